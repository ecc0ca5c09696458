//! Figures of timings: microseconds beside the peers', GB/s against the ceiling, the roofline, splits.

use super::panels::{Look, Panel, Panels, Rule, Series};
use super::rows::{Row, Rows};
use super::scale::{Axis, Scale, number as words};
use super::{Drawn, Figure, counted, distinct, list, number, text};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Shapes of a figure at most.
const MOST: usize = 40;
/// Layouts of the cache that `throughput` has a row of panels for.
const MOST_LAYOUTS: usize = 4;

/// A row of a document that was timed.
struct Timed<'v> {
    row: &'v Value,
    us: f64,
}

impl<'v> Timed<'v> {
    fn of(row: &'v Value) -> Option<Timed<'v>> {
        let us = row["us"]["median"].as_f64()?;
        (us > 0.0 && text(row, "verdict") == "right").then_some(Timed { row, us })
    }

    fn kernel(&self) -> &'v str {
        text(self.row, "kernel")
    }

    fn gbs(&self) -> f64 {
        number(self.row, "kv_bytes") / self.us / 1e3
    }

    /// The shape with its layout.
    fn place(&self) -> (&'v str, &'v str) {
        (text(self.row, "shape"), text(self.row, "layout"))
    }
}

/// What the documents' rows are: ours, and those of others.
struct Runs<'v> {
    document: &'v Value,
    ours: Vec<Timed<'v>>,
    peers: Vec<Timed<'v>>,
}

/// All figures of the documents. What others' scripts timed stands beside each.
pub(super) fn figures(documents: &[&Value]) -> Vec<Figure> {
    let is_peers = |d: &&&Value| text(d, "program") == "peers.py";
    let beside: Vec<&Value> =
        documents.iter().filter(is_peers).flat_map(|d| list(d, "rows")).collect();
    let runs: Vec<Runs> = documents
        .iter()
        .filter(|d| !is_peers(d))
        .map(|document| {
            let own = list(document, "peers");
            let peers: Vec<Timed> = match own {
                [] => beside.iter().filter_map(|row| Timed::of(row)).collect(),
                _ => own.iter().filter_map(Timed::of).collect(),
            };
            let ours = list(document, "rows").iter().filter_map(Timed::of).collect();
            Runs { document, ours, peers }
        })
        .filter(|run| !run.ours.is_empty())
        .collect();
    let mut figures = Vec::new();
    // One run is drawn: the one with others beside it, or with most rows.
    let rows = |r: &&Runs| (r.peers.len(), by_rule(r).count());
    if let Some(run) = runs.iter().filter(|r| by_rule(r).next().is_some()).max_by_key(rows) {
        figures.extend(beside_peers(run));
        figures.extend(throughput(run));
        figures.extend(roofline(run));
    }
    figures.extend(runs.iter().find_map(splits));
    figures
}

/// What the kernel's rule chose.
fn by_rule<'r, 'v>(run: &'r Runs<'v>) -> impl Iterator<Item = &'r Timed<'v>> {
    run.ours.iter().filter(|t| t.row["by_rule"].as_bool() != Some(false))
}

/// Ours, then the peers', as many as there are colours.
fn kernels<'v>(run: &Runs<'v>) -> Vec<&'v str> {
    let mut names = distinct(by_rule(run).chain(&run.peers).map(Timed::kernel));
    names.truncate(7);
    names
}

fn source(run: &Runs) -> String {
    let device = &run.document["device"];
    let name = device["name"].as_str().or_else(|| device.as_str()).unwrap_or("");
    let how = if text(&run.document["method"], "clock") == "device" {
        "medians of replays by the GPU's own clock, each call on a cache that lies in memory"
    } else {
        "by the host's clock: no GPU's figures"
    };
    format!("{name}; {how}. From `attnbench bench --json`.")
}

/// Our time beside the peers', shape by shape: a figure a kernel and layout.
fn beside_peers(run: &Runs) -> Vec<Figure> {
    let places: BTreeSet<(&str, &str)> = by_rule(run).map(|t| (t.kernel(), t.place().1)).collect();
    let several = places.iter().map(|p| p.0).collect::<BTreeSet<_>>().len() > 1;
    let figure = |(kernel, layout): (&str, &str)| in_layout(run, kernel, layout, several);
    places.into_iter().filter_map(figure).collect()
}

fn in_layout(run: &Runs, kernel: &str, layout: &str, several: bool) -> Option<Figure> {
    let mut ours: Vec<&Timed> =
        by_rule(run).filter(|t| t.kernel() == kernel && t.place().1 == layout).collect();
    ours.sort_by(|a, b| number(b.row, "kv_bytes").total_cmp(&number(a.row, "kv_bytes")));
    let beside = |ours: &Timed<'_>| -> Vec<&Timed<'_>> {
        run.peers.iter().filter(|p| p.place() == ours.place()).collect()
    };
    let mut peers = distinct(ours.iter().flat_map(|t| beside(t)).map(Timed::kernel));
    peers.truncate(6);
    let mut rows = Vec::new();
    let mut ratios = Vec::new();
    for ours in ours.iter().take(MOST) {
        let series = |p: &Timed| Some(1 + peers.iter().position(|name| *name == p.kernel())?);
        let mut values: Vec<(usize, f64)> =
            beside(ours).into_iter().filter_map(|p| Some((series(p)?, p.us / ours.us))).collect();
        let Some(best) = values.iter().map(|v| v.1).reduce(f64::min) else { continue };
        ratios.push(best);
        values.insert(0, (0, 1.0));
        let note = format!("{} µs, best other ×{best:.3}", words(ours.us));
        rows.push(Row { name: ours.place().0.to_owned(), values, note });
    }
    let least = ratios.iter().copied().reduce(f64::min)?;
    let mean = libm::exp(ratios.iter().map(|r| libm::log(*r)).sum::<f64>() / ratios.len() as f64);
    let all = || rows.iter().flat_map(|r: &Row| &r.values).map(|v| v.1);
    let (low, high) = (all().fold(1.0, f64::min), all().fold(1.0, f64::max));
    let margin = (high - low).max(0.1) * 0.04;
    let axis = Axis::over("time of each / time of ours", Scale::Linear, std::iter::empty())
        .between(low - margin, high + margin);
    let ahead = ratios.iter().filter(|r| **r > 1.0).count();
    let title = format!(
        "{kernel} is ahead of the best of {} on {ahead} of {}: {mean:.2} times as fast (geometric mean), \
         {least:.3} at least",
        counted(peers.len(), "other"),
        counted(ratios.len(), "shape")
    );
    let mut series = vec![kernel.to_owned()];
    series.extend(peers.iter().map(|p| (*p).to_owned()));
    let rows = Rows {
        title,
        caption: format!("Layout {layout}, the largest caches first. {}", source(run)),
        series,
        axis,
        rule: Some((1.0, "ours".into())),
        rows,
    };
    let kernel = if several { format!("-{kernel}") } else { String::new() };
    Some(Figure::new(format!("beside-peers-{layout}{kernel}"), Drawn::Rows(rows)))
}

/// GB/s by bytes and by length, with the ceiling.
fn throughput(run: &Runs) -> Option<Figure> {
    let ceiling = run.document["ceiling"]["gbs"].as_f64().filter(|gbs| *gbs > 0.0);
    let ours: Vec<&Timed> = by_rule(run).collect();
    let names = kernels(run);
    let all = || ours.iter().copied().chain(&run.peers);
    let panel = |layout: &str, title: &str, words: &str, key: &'static str| {
        let series = names
            .iter()
            .enumerate()
            .map(|(i, name)| Series {
                name: (*name).to_owned(),
                colour: i,
                look: Look::Points,
                points: all()
                    .filter(|t| t.kernel() == *name && t.place().1 == layout)
                    .map(|t| (number(t.row, key), t.gbs()))
                    .collect(),
            })
            // Ours lie on top.
            .rev()
            .collect();
        // Room for the ceiling's words above it.
        let rates = all().map(Timed::gbs).chain(ceiling.map(|gbs| 1.05 * gbs));
        let scale = if key == "kv_bytes" { Scale::Log10 } else { Scale::Log2 };
        Panel {
            title: format!("{layout}, {title}"),
            x: Axis::over(words, scale, all().map(|t| number(t.row, key))),
            y: Axis::over("GB/s, K and V read once", Scale::Linear, rates),
            series,
            rules: ceiling
                .map(|gbs| Rule { at: gbs, text: format!("reading alone: {gbs:.0} GB/s") })
                .into_iter()
                .collect(),
        }
    };
    let best = ours.iter().map(|t| t.gbs()).fold(0.0, f64::max);
    if !(best > 0.0 && best.is_finite()) {
        return None;
    }
    let title = match ceiling {
        Some(ceiling) => format!(
            "{best:.0} GB/s at most, {:.0} % of the {ceiling:.0} that reading alone reaches",
            100.0 * best / ceiling
        ),
        None => format!("{best:.0} GB/s at most"),
    };
    let mut layouts = distinct(ours.iter().map(|t| t.place().1));
    layouts.truncate(MOST_LAYOUTS);
    let both = |layout: &&str| {
        [
            panel(layout, "by size of the cache", "bytes of K and V", "kv_bytes"),
            panel(layout, "by length", "keys of a sequence", "seq_len"),
        ]
    };
    let panels = Panels {
        title,
        caption: format!("Each mark a shape. {}", source(run)),
        columns: 2,
        height: 260,
        panels: layouts.iter().flat_map(both).collect(),
    };
    Some(Figure::new("throughput", Drawn::Panels(panels)))
}

/// Arithmetic against bytes.
fn roofline(run: &Runs) -> Option<Figure> {
    let ceiling = run.document["ceiling"]["gbs"].as_f64().filter(|gbs| *gbs > 0.0)?;
    // Two multiply-adds an element of K and of V, for each query head.
    let flops = |t: &Timed| {
        let bytes = number(t.row, "kv_bytes");
        let group = number(t.row, "num_heads") / number(t.row, "num_kv_heads");
        let width = if text(t.row, "dtype").starts_with("f32") { 4.0 } else { 2.0 };
        2.0 * group * bytes / width
    };
    let point = |t: &Timed| (flops(t) / number(t.row, "kv_bytes"), flops(t) / t.us / 1e6);
    let names = kernels(run);
    // Of whole attention, which reads K and V.
    let whole = |t: &&Timed| !text(t.row, "case").contains("stage=");
    let all = || by_rule(run).chain(&run.peers).filter(whole);
    all().next()?;
    let x = Axis::over(
        "multiplications and additions a byte of K and V",
        Scale::Log2,
        all().map(|t| point(t).0),
    );
    let x = Axis { range: (x.range.0 / 1.3, x.range.1 * 1.3), ..x };
    let mut series: Vec<Series> = vec![Series {
        name: format!("the memory's ceiling, {ceiling:.0} GB/s"),
        colour: 6,
        look: Look::Line,
        points: [x.range.0, x.range.1].map(|x| (x, x * ceiling / 1e3)).to_vec(),
    }];
    for (i, name) in names.iter().enumerate().rev() {
        let points = all().filter(|t| t.kernel() == *name).map(point).collect();
        series.push(Series { name: (*name).to_owned(), colour: i, look: Look::Points, points });
    }
    let heights = all().map(|t| point(t).1).chain([x.range.1 * ceiling / 1e3]);
    let y = Axis::over("TFLOP/s", Scale::Log10, heights);
    let above = all().filter(|t| t.gbs() > ceiling).count();
    let title = if above == 0 {
        format!(
            "None of {} lies above the memory's slope, {ceiling:.0} GB/s",
            counted(all().count(), "time")
        )
    } else {
        format!(
            "{above} of {} lie above the memory's slope: a cache was timed",
            counted(all().count(), "time")
        )
    };
    let panels = Panels {
        title,
        caption: format!(
            "Decode attention does 4 operations for each pair of elements of K and V and query head. The slope is \
             that of the memory; the roof of a unit's arithmetic was not measured and is not drawn. {}",
            source(run)
        ),
        columns: 1,
        height: 360,
        panels: vec![Panel { title: String::new(), x, y, series, rules: Vec::new() }],
    };
    Some(Figure::new("roofline", Drawn::Panels(panels)))
}

/// Time by the number of splits, where every value of it was timed.
fn splits(run: &Runs) -> Option<Figure> {
    let value = |t: &Timed| t.row["params"]["splits"].as_f64();
    let mut by_shape: BTreeMap<(&str, &str, &str), Vec<&Timed>> = BTreeMap::new();
    for t in run.ours.iter().filter(|t| value(t).is_some()) {
        let (shape, layout) = t.place();
        by_shape.entry((shape, layout, t.kernel())).or_default().push(t);
    }
    let many = |of: &Vec<&Timed>| {
        of.iter().filter_map(|t| value(t)).map(|x| x as u64).collect::<BTreeSet<_>>().len() > 2
    };
    by_shape.retain(|_, of| many(of));
    let mut panels = Vec::new();
    let mut chosen: Option<f64> = None;
    let mut best_at = Vec::new();
    for ((shape, layout, kernel), of) in by_shape.iter().take(6) {
        let mut waves: BTreeMap<u64, BTreeMap<u64, f64>> = BTreeMap::new();
        for t in of {
            let wave = t.row["params"]["waves"].as_u64().unwrap_or(0);
            let splits = value(t).unwrap_or(0.0) as u64;
            let best = waves.entry(wave).or_default().entry(splits).or_insert(f64::INFINITY);
            *best = best.min(t.us);
        }
        let name = |wave: u64| match wave {
            0 => "all".to_owned(),
            n => format!("{} a block", counted(n as usize, "wave")),
        };
        let mut series: Vec<Series> = waves
            .iter()
            .enumerate()
            .map(|(i, (wave, by))| Series {
                name: name(*wave),
                colour: i,
                look: Look::Marked,
                points: by.iter().map(|(splits, us)| (*splits as f64, *us)).collect(),
            })
            .collect();
        let fastest = of.iter().min_by(|a, b| a.us.total_cmp(&b.us))?;
        let best = fastest.us;
        best_at.push(format!("{} on {shape}", value(fastest).unwrap_or(1.0)));
        if let Some(rule) = of.iter().find(|t| t.row["by_rule"] == true) {
            chosen = Some(chosen.unwrap_or(1.0).max(rule.us / best));
            let at = vec![(value(rule).unwrap_or(1.0), rule.us)];
            let name = "what the rule chooses".into();
            series.push(Series { name, colour: 4, look: Look::Points, points: at });
        }
        let x = Axis::over(
            "blocks that share a sequence's keys (splits)",
            Scale::Log2,
            of.iter().filter_map(|t| value(t)),
        );
        let shown = of.iter().map(|t| t.us).filter(|us| *us < 4.0 * best);
        let y = Axis::over("µs", Scale::Linear, shown);
        let title = format!("{kernel}: {shape} {layout}");
        panels.push(Panel { title, x, y, series, rules: Vec::new() });
    }
    if panels.is_empty() {
        return None;
    }
    let rule = chosen.map_or(String::new(), |worst| {
        format!("; the rule is within {:.1} % of it", (1000.0 * (worst - 1.0)).ceil() / 10.0)
    });
    let title = format!("The best number of splits is {}{rule}", best_at.join(", "));
    let columns = panels.len().min(3);
    let caption = format!(
        "The best of all other tunables that were timed, at each number of splits; times over 4 times the best are \
         above the panel. {}",
        source(run)
    );
    Some(Figure::new(
        "splits",
        Drawn::Panels(Panels { title, caption, columns, height: 280, panels }),
    ))
}
