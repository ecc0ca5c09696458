//! Figures of sweeps: errors by length and window, how ratios are distributed, cases a second.

use super::panels::{Look, Panel, Panels, Rule, Series};
use super::rows::{Row, Rows};
use super::scale::{Axis, Scale};
use super::{Drawn, Figure, counted, distinct, list, number, text};
use serde_json::Value;

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
    let mut left_out: Vec<String> = Vec::new();
    if kernels.iter().any(attends) {
        let others = kernels.iter().filter(|k| !attends(k)).count();
        left_out.extend(match others {
            0 => None,
            1 => Some("1 kernel of another stage".to_owned()),
            n => Some(format!("{n} kernels of other stages")),
        });
        kernels.retain(attends);
    }
    left_out.extend((kernels.len() > MOST).then(|| counted(kernels.len() - MOST, "kernel")));
    kernels.truncate(MOST);
    let own = kernels.iter().flat_map(|k| list(k, "errors")).filter(|b| text(b, "along") == along);
    let mut dtypes = distinct(own.map(|bin| text(bin, "dtype")));
    let order = ["f32", "f16", "bf16"];
    dtypes.sort_by_key(|d| (order.iter().position(|o| o == d).unwrap_or(3), d.to_string()));
    // A point or two are no curve.
    let drawn = |k: &Value, dtype: &str| {
        bins(k, along, dtype).iter().filter(|b| number(b, "max_abs") > 1e-12).count()
    };
    dtypes.retain(|dtype| kernels.iter().any(|k| drawn(k, dtype) > 2));
    left_out.extend(dtypes.iter().skip(3).map(|dtype| (*dtype).to_owned()));
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
    let count =
        |key: &str| kernels.iter().map(|k| number(k, key)).filter(|n| *n > 0.0).sum::<f64>();
    let (failed, cases) = (count("failed"), count("cases"));
    let passed: f64 = all("cases").into_iter().sum();
    let of = if failed > 0.0 {
        format!("{failed} of {cases} cases fail; of {passed} passed ones")
    } else {
        format!("Of {passed} passed cases")
    };
    let title = format!(
        "{of} with normal data the worst uses {:.1} % of its bound",
        (1000.0 * worst).floor() / 10.0
    );
    let what = if along == "seq_len" { "longest sequence" } else { "window" };
    let left_out = if left_out.is_empty() {
        String::new()
    } else {
        format!(" Not drawn: {}.", left_out.join(", "))
    };
    let caption = format!(
        "Each mark: the largest over the passed cases with normal data whose {what} is from that power of two up to the \
         next; above the largest absolute error of the main output, dashed the bound of that very element; below the \
         largest error over its bound, of all outputs. Lines pass over bins without a case, or without an error.{left_out} {}",
        source(document)
    );
    let columns = dtypes.len();
    let name = format!("errors-{along}");
    Some(Figure::new(name, Drawn::Panels(Panels { title, caption, columns, height: 250, panels })))
}

/// How far below their bounds errors stay.
fn ratios(document: &Value) -> Option<Figure> {
    const FROM: f64 = 1e-5;
    let kernels = list(document, "kernels").iter().filter(|k| k["ratios"].is_object());
    let mut panels = Vec::new();
    let (mut over_half, mut of_all) = (0.0, 0.0);
    let x = Axis::over("largest error of a case / bound", Scale::Log10, [FROM, 1.0].into_iter())
        .between(FROM, 1.25);
    for kernel in kernels.take(15) {
        let of = &kernel["ratios"];
        let counts: Vec<f64> =
            list(of, "counts").iter().map(|n| n.as_f64().unwrap_or(0.0)).take(1000).collect();
        let (from, a_decade) = (number(of, "log10_from"), number(of, "bins_a_decade"));
        let below = of["below"].as_f64().unwrap_or(0.0);
        let total: f64 = counts.iter().sum::<f64>() + below;
        if !(total > 0.0 && a_decade > 0.0 && from.is_finite()) {
            continue;
        }
        let at = |i: usize| libm::pow(10.0, from + i as f64 / a_decade);
        let mut points: Vec<(f64, f64)> =
            counts.iter().enumerate().map(|(i, n)| (at(i), 100.0 * n / total)).collect();
        points.push((at(counts.len()), 0.0));
        let where_ = |least: f64| -> f64 {
            counts.iter().enumerate().filter(|(i, _)| at(*i) >= least).map(|(_, n)| n).sum()
        };
        over_half += where_(0.5);
        of_all += total;
        let hidden = 100.0 * (1.0 - where_(FROM * 0.999) / total);
        let hidden =
            if hidden >= 0.5 { format!(", {hidden:.0} % further left") } else { String::new() };
        let most = points.iter().map(|p| p.1).fold(0.0, f64::max);
        panels.push(Panel {
            title: format!("{}{hidden}", text(kernel, "name")),
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
        "In {:.0} % of the passed cases an element uses more than half of its bound",
        (100.0 * over_half / of_all).floor()
    );
    let caption = format!(
        "Passed cases by their largest error over its bound, which above 1 would be a failure: how much slack a bound has. \
         {}",
        source(document)
    );
    let columns = panels.len().min(3);
    let panels = Panels { title, caption, columns, height: 170, panels };
    Some(Figure::new("error-over-bound", Drawn::Panels(panels)))
}

/// Cases a second, by kernel and device.
fn rates(documents: &[&Value]) -> Option<Figure> {
    const CASES: f64 = 200.0;
    let short = |device: &str| -> String {
        let inside = device.split('(').nth(1);
        let name = inside.map_or(device, |rest| rest.split([',', ')']).next().unwrap_or(rest));
        format!("{} ({name})", device.split([' ', ':']).next().unwrap_or(device))
    };
    let mut devices: Vec<String> = Vec::new();
    let mut by_kernel: Vec<(&str, Vec<(usize, f64)>)> = Vec::new();
    for document in documents {
        for kernel in list(document, "kernels") {
            let rate = number(kernel, "cases") / number(kernel, "seconds");
            if !(number(kernel, "cases") >= CASES && rate > 0.0 && rate.is_finite()) {
                continue;
            }
            let device = short(text(document, "device"));
            let at = devices.iter().position(|d| *d == device).unwrap_or_else(|| {
                devices.push(device);
                devices.len() - 1
            });
            let name = text(kernel, "name");
            let place = by_kernel.iter().position(|k| k.0 == name).unwrap_or_else(|| {
                by_kernel.push((name, Vec::new()));
                by_kernel.len() - 1
            });
            let values = &mut by_kernel[place].1;
            match values.iter_mut().find(|v| v.0 == at) {
                Some(value) => value.1 = value.1.max(rate),
                None => values.push((at, rate)),
            }
        }
    }
    by_kernel.truncate(40);
    let rows: Vec<Row> = by_kernel
        .into_iter()
        .map(|(name, values)| {
            let of =
                |i| values.iter().find(|v| v.0 == i).map_or("-".into(), |v| format!("{:.0}", v.1));
            let note = (0..devices.len()).map(of).collect::<Vec<String>>().join(" / ");
            Row { name: name.to_owned(), note, values }
        })
        .collect();
    let values = || rows.iter().flat_map(|r| &r.values).map(|v| v.1);
    let (least, most) = (values().reduce(f64::min)?, values().fold(0.0, f64::max));
    let axis = Axis::over("cases a second", Scale::Log10, values());
    let rows = Rows {
        title: if rows.len() == 1 && least == most {
            format!("{most:.0} cases a second are judged against the f64 oracle")
        } else {
            format!("From {least:.0} to {most:.0} cases a second are judged against the f64 oracle")
        },
        caption: format!(
            "Data drawn, runs with other poison in the unused memory, every element compared; compiling is included. The \
             fastest of several sweeps on a device, of {CASES} cases and more. From `attnbench sweep --json`."
        ),
        series: devices,
        axis,
        rule: None,
        rows,
    };
    Some(Figure::new("cases-a-second", Drawn::Rows(rows)))
}
