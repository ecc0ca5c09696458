//! Figures of sweeps: errors by length and window, how ratios are distributed, cases a second.

use super::panels::{Look, Panel, Panels, Rule, Series};
use super::rows::{Row, Rows};
use super::scale::{Axis, Scale};
use super::{Drawn, Figure, list, number, text};
use serde_json::Value;
use std::collections::BTreeSet;

/// Kernels drawn beside each other in a panel of curves.
const MOST: usize = 6;

/// All figures of the documents' kernels.
pub(super) fn figures(documents: &[&Value]) -> Vec<Figure> {
    let mut figures = Vec::new();
    // Curves and distributions are of the sweep with most cases that has them.
    let with = |key: &str| {
        let has = |d: &&&Value| list(d, "kernels").iter().any(|k| !k[key].is_null());
        let cases = |d: &&&Value| {
            list(d, "kernels").iter().map(|k| k["cases"].as_u64().unwrap_or(0)).sum::<u64>()
        };
        documents.iter().filter(has).max_by_key(cases).copied()
    };
    if let Some(document) = with("errors") {
        figures.extend(errors(document, "seq_len", "keys of the longest sequence"));
        figures.extend(errors(document, "window_len", "keys of the window"));
    }
    figures.extend(with("ratios").and_then(ratios));
    figures.extend(rates(documents));
    figures
}

/// Where a document is from: device and seed.
fn source(document: &Value) -> String {
    let seed = &document["seed"];
    format!("From `attnbench sweep --json`, seed {seed}, on {}.", text(document, "device"))
}

fn bins<'v>(kernel: &'v Value, along: &str, dtype: &str) -> Vec<&'v Value> {
    let of = |b: &&Value| {
        text(b, "along") == along && text(b, "dtype") == dtype && number(b, "from") > 0.0
    };
    list(kernel, "errors").iter().filter(of).collect()
}

/// Errors along an axis: types side by side, absolute above, in units of the bound below.
fn errors(document: &Value, along: &str, words: &str) -> Option<Figure> {
    let mut kernels: Vec<&Value> = list(document, "kernels")
        .iter()
        .filter(|k| list(k, "errors").iter().any(|b| text(b, "along") == along))
        .collect();
    // Attention first: what other stages put out is of another size.
    let attends = |k: &&Value| text(k, "name").starts_with("decode");
    if kernels.iter().any(attends) {
        kernels.retain(attends);
    }
    kernels.truncate(MOST);
    let mut dtypes: Vec<&str> = Vec::new();
    for bin in kernels.iter().flat_map(|k| list(k, "errors")).filter(|b| text(b, "along") == along)
    {
        if !dtypes.contains(&text(bin, "dtype")) {
            dtypes.push(text(bin, "dtype"));
        }
    }
    let order = ["f32", "f16", "bf16"];
    dtypes.sort_by_key(|d| (order.iter().position(|o| o == d).unwrap_or(3), d.to_string()));
    // A point or two are no curve.
    dtypes.retain(|dtype| kernels.iter().any(|k| bins(k, along, dtype).len() > 2));
    dtypes.truncate(3);
    if dtypes.is_empty() {
        return None;
    }
    let all = |key: &str| -> Vec<f64> {
        let of = |k: &&Value| -> Vec<f64> {
            let bins = dtypes.iter().flat_map(|dtype| bins(k, along, dtype));
            bins.map(|b| number(b, key)).collect()
        };
        kernels.iter().flat_map(of).collect()
    };
    let x = Axis::over(words, Scale::Log2, all("from").into_iter());
    let sizes = all("max_abs").into_iter().chain(all("bound")).filter(|x| *x > 1e-12);
    let y = Axis::over("largest absolute error", Scale::Log10, sizes);
    let mut panels = Vec::new();
    for dtype in &dtypes {
        let mut series: Vec<Series> = Vec::new();
        for (i, k) in kernels.iter().enumerate() {
            let of = |key: &str| -> Vec<(f64, f64)> {
                bins(k, along, dtype).iter().map(|b| (number(b, "from"), number(b, key))).collect()
            };
            series.push(Series {
                name: text(k, "name").into(),
                colour: i,
                look: Look::Marked,
                points: of("max_abs"),
            });
            series.push(Series {
                name: "its bound, dashed".into(),
                colour: i,
                look: Look::Dashed,
                points: of("bound"),
            });
        }
        panels.push(Panel {
            title: (*dtype).into(),
            x: x.clone(),
            y: y.clone(),
            series,
            rules: Vec::new(),
        });
    }
    let unit =
        Axis::over("largest error / bound", Scale::Linear, [1.0].into_iter()).between(0.0, 1.1);
    for dtype in &dtypes {
        let of = |(i, k): (usize, &&Value)| Series {
            name: text(k, "name").into(),
            colour: i,
            look: Look::Marked,
            points: bins(k, along, dtype)
                .iter()
                .map(|b| (number(b, "from"), number(b, "ratio")))
                .collect(),
        };
        panels.push(Panel {
            title: (*dtype).into(),
            x: x.clone(),
            y: unit.clone(),
            series: kernels.iter().enumerate().map(of).collect(),
            rules: vec![Rule { at: 1.0, text: "the bound".into() }],
        });
    }
    let worst = all("ratio").into_iter().fold(0.0, f64::max);
    let (first, last) = (x.range.0 * 1.25, x.range.1 / 1.25);
    let what = if along == "seq_len" { "length" } else { "window" };
    let title = if worst <= 1.0 {
        format!(
            "From {what} {} to {} no error exceeds its bound; the worst uses {:.1} % of it",
            super::scale::short(first.round()),
            super::scale::short(last.round()),
            (1000.0 * worst).floor() / 10.0
        )
    } else {
        format!("Errors exceed their bound up to {worst:.1} times")
    };
    let caption = format!(
        "Each mark: the largest over all passed cases with normal data whose {what} is from that power of two up to the \
         next; dashed, in the same colour, the bound of that very element. {}",
        source(document)
    );
    let columns = dtypes.len();
    let name = format!("errors-{along}");
    Some(Figure::new(name, Drawn::Panels(Panels { title, caption, columns, height: 250, panels })))
}

/// How far below their bounds errors stay.
fn ratios(document: &Value) -> Option<Figure> {
    let kernels: Vec<&Value> =
        list(document, "kernels").iter().filter(|k| k["ratios"].is_object()).collect();
    let mut panels = Vec::new();
    let mut over_half = (0u64, 0u64);
    let x = Axis::over("largest error of a case / bound", Scale::Log10, [1e-6, 1.0].into_iter())
        .between(1e-5, 1.25);
    for kernel in kernels.iter().take(15) {
        let of = &kernel["ratios"];
        let counts: Vec<u64> = list(of, "counts").iter().map(|n| n.as_u64().unwrap_or(0)).collect();
        let (from, a_decade) = (number(of, "log10_from"), number(of, "bins_a_decade"));
        let total: u64 = counts.iter().sum::<u64>() + of["below"].as_u64().unwrap_or(0);
        if total == 0 {
            continue;
        }
        let at = |i: usize| libm::pow(10.0, from + i as f64 / a_decade);
        let mut points: Vec<(f64, f64)> = counts
            .iter()
            .enumerate()
            .map(|(i, n)| (at(i), 100.0 * *n as f64 / total as f64))
            .collect();
        points.push((at(counts.len()), 0.0));
        let half: u64 =
            counts.iter().enumerate().filter(|(i, _)| at(*i + 1) > 0.5).map(|(_, n)| n).sum();
        over_half = (over_half.0 + half, over_half.1 + total);
        let most = points.iter().map(|p| p.1).fold(0.0, f64::max);
        panels.push(Panel {
            title: format!(
                "{}, median {:.2}",
                text(kernel, "name"),
                number(kernel, "median_ratio")
            ),
            x: x.clone(),
            y: Axis::over("% of cases", Scale::Linear, [most].into_iter()),
            series: vec![Series { name: "cases".into(), colour: 0, look: Look::Steps, points }],
            rules: Vec::new(),
        });
    }
    if panels.is_empty() {
        return None;
    }
    let title = format!(
        "The bounds are tight: {:.0} % of passed cases have an element that uses over half of its own",
        100.0 * over_half.0 as f64 / over_half.1 as f64
    );
    let caption = format!(
        "Passed cases by their largest error over its bound, which at 1 would be a failure. What ends in f16 or bf16 \
         stands near 1, since its last rounding alone may use all of the bound; f32 lies lower. {}",
        source(document)
    );
    let columns = if panels.len() > 1 { 3 } else { 1 };
    Some(Figure::new(
        "error-over-bound",
        Drawn::Panels(Panels { title, caption, columns, height: 170, panels }),
    ))
}

/// Cases a second, by kernel and device.
fn rates(documents: &[&Value]) -> Option<Figure> {
    let mut devices: Vec<String> = Vec::new();
    let mut names: Vec<&str> = Vec::new();
    let short = |device: &str| -> String {
        let name = device
            .split('(')
            .nth(1)
            .map_or(device, |rest| rest.split([',', ')']).next().unwrap_or(rest));
        let kind = device.split([' ', ':']).next().unwrap_or(device);
        format!("{kind} ({name})")
    };
    for d in documents {
        let device = short(text(d, "device"));
        if !devices.contains(&device) {
            devices.push(device);
        }
        for kernel in list(d, "kernels") {
            if !names.contains(&text(kernel, "name")) && number(kernel, "seconds") > 0.0 {
                names.push(text(kernel, "name"));
            }
        }
    }
    let rate = |name: &str, device: &str| -> Option<f64> {
        let all = documents.iter().filter(|d| short(text(d, "device")) == device);
        let of = all.flat_map(|d| list(d, "kernels")).filter(|k| text(k, "name") == name);
        of.filter(|k| number(k, "cases") >= 200.0)
            .map(|k| number(k, "cases") / number(k, "seconds"))
            .fold(None, |most, x| Some(most.map_or(x, |most: f64| most.max(x))))
    };
    let rows: Vec<Row> = names
        .iter()
        .map(|name| {
            let values: Vec<(usize, f64)> = devices
                .iter()
                .enumerate()
                .filter_map(|(i, device)| Some((i, rate(name, device)?)))
                .collect();
            let words: Vec<String> = values.iter().map(|v| format!("{:.0}", v.1)).collect();
            Row { name: (*name).to_owned(), note: words.join(" / "), values }
        })
        .filter(|row| !row.values.is_empty())
        .collect();
    if rows.is_empty() {
        return None;
    }
    let used: BTreeSet<usize> = rows.iter().flat_map(|r| &r.values).map(|v| v.0).collect();
    let values = || rows.iter().flat_map(|r| &r.values).map(|v| v.1);
    let (least, most) = (values().fold(f64::INFINITY, f64::min), values().fold(0.0, f64::max));
    let axis = Axis::over("cases a second", Scale::Log10, values());
    let title = format!(
        "A kernel is judged on {least:.0} to {most:.0} cases a second, each against the f64 oracle"
    );
    let caption = "Drawn, run three times with other poison in the unused memory, compared element by element; \
                   compiling is included. From `attnbench sweep --json`, sweeps of 200 cases and more.";
    let rows = Rows {
        title,
        caption: caption.into(),
        series: devices
            .iter()
            .enumerate()
            .filter(|(i, _)| used.contains(i))
            .map(|(_, d)| d.clone())
            .collect(),
        axis,
        rule: None,
        rows,
    };
    Some(Figure::new("cases-a-second", Drawn::Rows(rows)))
}
