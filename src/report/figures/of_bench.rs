//! Figures of timings: microseconds beside the peers', GB/s against the ceiling, the roofline, splits.

use super::panels::{Look, Panel, Panels, Rule, Series};
use super::rows::{Row, Rows};
use super::scale::{Axis, Scale, number as words};
use super::{Drawn, Figure, list, number, text};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

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

/// All figures of the documents.
pub(super) fn figures(documents: &[&Value]) -> Vec<Figure> {
    let runs: Vec<Runs> = documents
        .iter()
        .filter(|d| text(d, "program") != "peers.py")
        .map(|document| Runs {
            document,
            ours: list(document, "rows").iter().filter_map(Timed::of).collect(),
            peers: list(document, "peers").iter().filter_map(Timed::of).collect(),
        })
        .filter(|run| !run.ours.is_empty())
        .collect();
    let mut figures = Vec::new();
    // One run is drawn: the one with others beside it, or with most rows.
    if let Some(run) =
        runs.iter().filter(|r| by_rule(r).count() > 1).max_by_key(|r| (r.peers.len(), r.ours.len()))
    {
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

fn source(run: &Runs) -> String {
    let device = &run.document["device"];
    let name = device["name"].as_str().or_else(|| device.as_str()).unwrap_or("");
    format!(
        "{name}; medians of graph replays, the cache in memory and not in L2. From `attnbench bench --json`."
    )
}

/// Our time beside the peers', shape by shape: a figure a layout.
fn beside_peers(run: &Runs) -> Vec<Figure> {
    let mut peers: Vec<&str> = Vec::new();
    for peer in &run.peers {
        if !peers.contains(&peer.kernel()) {
            peers.push(peer.kernel());
        }
    }
    let layouts: BTreeSet<&str> = by_rule(run).map(|t| t.place().1).collect();
    layouts.into_iter().filter_map(|layout| in_layout(run, &peers, layout)).collect()
}

fn in_layout(run: &Runs, peers: &[&str], layout: &str) -> Option<Figure> {
    let mut rows = Vec::new();
    let mut ratios = Vec::new();
    let mut ours: Vec<&Timed> = by_rule(run).filter(|t| t.place().1 == layout).collect();
    ours.sort_by(|a, b| number(b.row, "kv_bytes").total_cmp(&number(a.row, "kv_bytes")));
    for ours in ours {
        let beside = run.peers.iter().filter(|p| p.place() == ours.place());
        let series = |p: &Timed| 1 + peers.iter().position(|name| *name == p.kernel()).unwrap_or(0);
        let mut values: Vec<(usize, f64)> = beside.map(|p| (series(p), p.us / ours.us)).collect();
        let Some(best) = values.iter().map(|v| v.1).reduce(f64::min) else { continue };
        ratios.push(best);
        values.insert(0, (0, 1.0));
        let note = format!("{} µs, best other ×{best:.2}", words(ours.us));
        rows.push(Row { name: ours.place().0.to_owned(), values, note });
    }
    let kernel = by_rule(run).next().map_or("", Timed::kernel);
    let mean = libm::exp(ratios.iter().map(|r| libm::log(*r)).sum::<f64>() / ratios.len() as f64);
    let least = ratios.iter().copied().reduce(f64::min)?;
    let most = rows.iter().flat_map(|r| &r.values).map(|v| v.1).fold(1.0, f64::max);
    let axis = Axis::over("time of each / time of ours", Scale::Linear, [most].into_iter())
        .between(0.9, most * 1.02);
    let title = format!(
        "The best of {} others takes {mean:.2} times as long as {kernel} (geometric mean, {least:.2} at least)",
        peers.len()
    );
    let mut series = vec![kernel.to_owned()];
    series.extend(peers.iter().map(|p| (*p).to_owned()));
    let rows = Rows {
        title,
        caption: format!(
            "Layout {layout}, the largest caches first; one session on one machine, the same shapes and method. {}",
            source(run)
        ),
        series,
        axis,
        rule: Some((1.0, "ours".into())),
        rows,
    };
    Some(Figure::new(format!("beside-peers-{layout}"), Drawn::Rows(rows)))
}

/// GB/s by bytes and by length, with the ceiling.
fn throughput(run: &Runs) -> Option<Figure> {
    let ceiling = run.document["ceiling"]["gbs"].as_f64();
    let ours: Vec<&Timed> = by_rule(run).collect();
    let mut names: Vec<&str> = Vec::new();
    for t in ours.iter().copied().chain(&run.peers) {
        if !names.contains(&t.kernel()) {
            names.push(t.kernel());
        }
    }
    names.truncate(7);
    let panel = |title: &str, words: &str, key: &'static str| {
        let all = || ours.iter().copied().chain(&run.peers);
        let series = names
            .iter()
            .enumerate()
            .map(|(i, name)| Series {
                name: (*name).to_owned(),
                colour: i,
                look: Look::Points,
                points: all()
                    .filter(|t| t.kernel() == *name)
                    .map(|t| (number(t.row, key), t.gbs()))
                    .collect(),
            })
            // Ours lie on top.
            .rev()
            .collect();
        let rates = all().map(Timed::gbs).chain(ceiling);
        let scale = if key == "kv_bytes" { Scale::Log10 } else { Scale::Log2 };
        Panel {
            title: title.to_owned(),
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
    let title = match ceiling {
        Some(ceiling) => format!(
            "Up to {best:.0} GB/s, {:.0} % of what reading alone reaches; short caches are latency",
            100.0 * best / ceiling
        ),
        None => format!("Up to {best:.0} GB/s"),
    };
    let panels = Panels {
        title,
        caption: format!("Each mark a shape and layout. {}", source(run)),
        columns: 2,
        height: 320,
        panels: vec![
            panel("by size of the cache", "bytes of K and V", "kv_bytes"),
            panel("by length", "keys of a sequence", "seq_len"),
        ],
    };
    Some(Figure::new("throughput", Drawn::Panels(panels)))
}

/// Arithmetic against bytes.
fn roofline(run: &Runs) -> Option<Figure> {
    let ceiling = run.document["ceiling"]["gbs"].as_f64()?;
    // Two multiply-adds an element of K and of V, for each query head.
    let flops = |t: &Timed| {
        let bytes = number(t.row, "kv_bytes");
        let group = number(t.row, "num_heads") / number(t.row, "num_kv_heads");
        let width = if text(t.row, "dtype").starts_with("f32") { 4.0 } else { 2.0 };
        2.0 * group * bytes / width
    };
    let point = |t: &Timed| (flops(t) / number(t.row, "kv_bytes"), flops(t) / t.us / 1e6);
    let mut names: Vec<&str> = Vec::new();
    for t in by_rule(run).chain(&run.peers) {
        if !names.contains(&t.kernel()) {
            names.push(t.kernel());
        }
    }
    names.truncate(7);
    let all = || by_rule(run).chain(&run.peers);
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
    let most = all().map(|t| point(t).0).fold(0.0, f64::max);
    let panels = Panels {
        title: format!(
            "Every shape lies under the memory's slope: {} operations a byte at most",
            words(most)
        ),
        caption: format!(
            "Decode attention does 4 operations per element of K and V pair and query head; a matrix core's peak lies far \
             above what is shown. {}",
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
    let mut by_shape: BTreeMap<(&str, &str), Vec<&Timed>> = BTreeMap::new();
    for t in run.ours.iter().filter(|t| value(t).is_some()) {
        by_shape.entry(t.place()).or_default().push(t);
    }
    let many = |of: &Vec<&Timed>| {
        of.iter().filter_map(|t| value(t)).map(|x| x as u64).collect::<BTreeSet<_>>().len() > 2
    };
    by_shape.retain(|_, of| many(of));
    let mut panels = Vec::new();
    let mut chosen = Vec::new();
    for ((shape, layout), of) in by_shape.iter().take(6) {
        let mut waves: BTreeMap<u64, BTreeMap<u64, f64>> = BTreeMap::new();
        for t in of {
            let wave = t.row["params"]["waves"].as_u64().unwrap_or(0);
            let splits = value(t).unwrap_or(0.0) as u64;
            let best = waves.entry(wave).or_default().entry(splits).or_insert(f64::INFINITY);
            *best = best.min(t.us);
        }
        let mut series: Vec<Series> = waves
            .iter()
            .enumerate()
            .map(|(i, (wave, by))| Series {
                name: format!("{wave} wave{} a block", if *wave == 1 { "" } else { "s" }),
                colour: i,
                look: Look::Marked,
                points: by.iter().map(|(splits, us)| (*splits as f64, *us)).collect(),
            })
            .collect();
        let best = of.iter().map(|t| t.us).fold(f64::INFINITY, f64::min);
        if let Some(rule) = of.iter().find(|t| t.row["by_rule"] == true) {
            chosen.push(rule.us / best);
            let at = vec![(value(rule).unwrap_or(1.0), rule.us)];
            series.push(Series {
                name: "what the rule chooses".into(),
                colour: 4,
                look: Look::Points,
                points: at,
            });
        }
        let x = Axis::over(
            "blocks that share a sequence's keys (splits)",
            Scale::Log2,
            of.iter().filter_map(|t| value(t)),
        );
        let y =
            Axis::over("µs", Scale::Linear, of.iter().map(|t| t.us).filter(|us| *us < 4.0 * best));
        panels.push(Panel { title: format!("{shape} {layout}"), x, y, series, rules: Vec::new() });
    }
    if panels.is_empty() {
        return None;
    }
    let worst = chosen.iter().copied().fold(1.0, f64::max);
    let title = format!(
        "More splits help until all units have work, then cost: the rule is within {:.0} % of the best of each shape",
        (100.0 * (worst - 1.0)).ceil()
    );
    let kernel = run.ours.first().map_or("", Timed::kernel);
    let columns = panels.len().min(3);
    let caption = format!(
        "{kernel}, the best of all other tunables at each number of splits. {}",
        source(run)
    );
    Some(Figure::new(
        "splits",
        Drawn::Panels(Panels { title, caption, columns, height: 280, panels }),
    ))
}
