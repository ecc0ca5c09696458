//! Figures of captured slices: which hypothesis fits, and how far the others are.

use super::heat::{Cell, Heat};
use super::panels::{Look, Panel, Panels, Series};
use super::scale::{Axis, Scale};
use super::{Drawn, Figure, list, number, text};
use serde_json::Value;
use std::collections::BTreeMap;

/// Slices drawn beside each other.
const MOST: usize = 8;

/// All figures of the documents' slices.
pub(super) fn figures(documents: &[&Value]) -> Vec<Figure> {
    let slices: Vec<&Value> = documents.iter().flat_map(|d| list(d, "slices")).collect();
    let shown: Vec<&Value> =
        slices.iter().copied().filter(|s| !list(s, "hypotheses").is_empty()).collect();
    let mut figures = Vec::new();
    figures.extend(layouts(&shown));
    figures.extend(heads(&shown));
    figures.extend(windows(&shown));
    figures.extend(first_wrong(&shown));
    figures
}

/// A slice's name: of the prompt, layer and type where its document says them, else of the file.
fn name(slice: &Value) -> String {
    let file = text(slice, "file");
    let stem = file.rsplit(['/', '\\']).next().unwrap_or(file);
    stem.strip_suffix(".safetensors").unwrap_or(stem).to_owned()
}

/// The name in lines short enough for a column.
fn in_lines(name: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    for part in name.split('_') {
        match lines.last_mut().filter(|line| line.chars().count() + part.chars().count() < 11) {
            Some(line) => *line = format!("{line} {part}"),
            None => lines.push(part.chars().take(14).collect()),
        }
    }
    lines.join("\n")
}

fn hypothesis<'v>(slice: &'v Value, fault: &str) -> Option<&'v Value> {
    list(slice, "hypotheses").iter().find(|h| text(h, "fault") == fault)
}

/// The logarithm of an error over its bound; beyond all where it is not finite.
fn decades(ratio: &Value) -> f64 {
    ratio.as_f64().map_or(9.0, |r| libm::log10(r.max(1e-3)))
}

fn cell(h: Option<&Value>) -> Cell {
    let Some(h) = h else { return Cell::Empty };
    match h["ratio"].as_f64() {
        Some(ratio) if ratio <= 1.0 => Cell::Good(String::new()),
        _ => {
            let x = decades(&h["ratio"]);
            Cell::Of(x, if x >= 9.0 { "∞".into() } else { format!("{x:.1}") })
        }
    }
}

/// Hypotheses by slices, and what a probe that knows two of them would have said.
fn layouts(slices: &[&Value]) -> Option<Figure> {
    // The slices that say most: one with a fault first.
    let mut slices = slices.to_vec();
    slices.sort_by_key(|s| hypothesis(s, "none").is_some_and(|h| number(h, "ratio") <= 1.0));
    slices.truncate(MOST);
    let mut faults: Vec<&str> = Vec::new();
    for h in slices.iter().flat_map(|s| list(s, "hypotheses")) {
        if !faults.contains(&text(h, "fault")) {
            faults.push(text(h, "fault"));
        }
    }
    if slices.is_empty() {
        return None;
    }
    let mut rows: Vec<(String, Vec<Cell>)> = faults
        .iter()
        .map(|fault| {
            let words = if *fault == "none" { "the right answer" } else { fault };
            (words.to_owned(), slices.iter().map(|s| cell(hypothesis(s, fault))).collect())
        })
        .collect();
    // The probe of the engine that this comes from: the smaller mean error of two wins.
    let mae = |s: &Value, fault| hypothesis(s, fault).map_or(f64::NAN, |h| number(h, "mae"));
    let probe = |own: &'static str, other: &'static str| -> Vec<Cell> {
        let of = |s: &&Value| {
            let (own, other) = (mae(s, own), mae(s, other));
            let words = format!("{own:.1e}");
            if own.is_nan() {
                Cell::Empty
            } else if own < other {
                Cell::Good(words)
            } else {
                Cell::Of(-9.0, words)
            }
        };
        slices.iter().map(of).collect()
    };
    let gap = rows.len() - 1;
    rows.push(("two-way probe: row".into(), probe("none", "v_col")));
    rows.push(("two-way probe: col".into(), probe("v_col", "none")));
    let wrong: Vec<&&Value> = slices
        .iter()
        .filter(|s| hypothesis(s, "none").is_some_and(|h| number(h, "ratio") > 1.0))
        .collect();
    let title = match wrong.first() {
        Some(s) if s["fault"].is_string() => {
            let choice = if mae(s, "v_col") < mae(s, "none") { "col" } else { "row" };
            format!(
                "Of {} hypotheses {} alone explains the wrong output; a probe of two says {choice}",
                faults.len(),
                text(s, "fault")
            )
        }
        Some(_) => "No hypothesis explains the wrong output".to_owned(),
        None => format!(
            "The right answer fits all {} captures; the {} faults miss by up to {} their bound",
            slices.len(),
            faults.len() - 1,
            largest(&slices)
        ),
    };
    let caption = "Each cell: the logarithm of the largest error over its bound, of the nearest member of a fault, \
                   over all heads; up to 0 it fits (marked). Below: the mean errors by which a probe of two layouts \
                   decides. From `attnbench diagnose --json`.";
    let heat = Heat {
        title,
        caption: caption.into(),
        axes: ("hypothesis".into(), "captured slice".into()),
        columns: slices.iter().map(|s| in_lines(&name(s))).collect(),
        rows,
        range: (0.0, 5.6),
        key: "log (error / bound)".into(),
        good: "fits; of the probe: its choice".into(),
        gaps: vec![gap],
    };
    Some(Figure::new("layouts", Drawn::Heat(heat)))
}

/// The largest finite error over its bound of a wrong hypothesis, in words.
fn largest(slices: &[&Value]) -> String {
    let all = slices.iter().flat_map(|s| list(s, "hypotheses"));
    let most = all.filter_map(|h| h["ratio"].as_f64()).fold(0.0, f64::max);
    super::scale::power_of_ten(libm::floor(libm::log10(most.max(1.0))) as i32) + " times"
}

/// The error of each head, by slice.
fn heads(slices: &[&Value]) -> Option<Figure> {
    let ratios = |s: &Value| -> Vec<f64> {
        let right = hypothesis(s, "none").map_or(&[][..], |h| list(h, "heads"));
        right.iter().map(|r| r.as_f64().unwrap_or(f64::INFINITY)).collect()
    };
    let shown: Vec<&Value> =
        slices.iter().copied().filter(|s| !ratios(s).is_empty()).take(24).collect();
    let columns = shown.iter().map(|s| ratios(s).len()).max().filter(|n| *n <= 32)?;
    let mut worst = (0.0f64, String::new(), 0);
    let mut wrong = 0;
    let rows = shown
        .iter()
        .map(|s| {
            let ratios = ratios(s);
            for (head, ratio) in ratios.iter().enumerate() {
                wrong += usize::from(*ratio > 1.0);
                if *ratio > worst.0 {
                    worst = (*ratio, name(s), head);
                }
            }
            let of = |r: &f64| {
                let decades = libm::log10(r.max(1e-9));
                Cell::Of(decades, if *r > 1.0 { format!("{decades:+.1}") } else { String::new() })
            };
            let mut cells: Vec<Cell> = ratios.iter().map(of).collect();
            cells.resize(columns, Cell::Empty);
            (name(s), cells)
        })
        .collect();
    let total: usize = shown.iter().map(|s| ratios(s).len()).sum();
    let title = if wrong == 0 {
        format!(
            "All {total} heads of {} captures are right: the worst uses {:.0} % of its bound",
            shown.len(),
            100.0 * worst.0
        )
    } else {
        format!("{wrong} of {total} heads are wrong, head {} of {} most", worst.2, worst.1)
    };
    let heat = Heat {
        title,
        caption: "The logarithm of each head's largest error over its bound, against the right answer; above 0 it is \
                  wrong, and the cell says by how many decades. From `attnbench diagnose --json`."
            .into(),
        axes: ("capture".into(), "query head".into()),
        columns: (0..columns).map(|h| h.to_string()).collect(),
        rows,
        range: (-2.5, if wrong > 0 { 4.5 } else { 0.3 }),
        key: "log (error / bound)".into(),
        good: String::new(),
        gaps: Vec::new(),
    };
    Some(Figure::new("heads", Drawn::Heat(heat)))
}

/// One slice a prompt and length: the others' curves would lie over it.
fn told_apart<'v>(slices: &[&'v Value], key: &str) -> Vec<&'v Value> {
    let mut one: BTreeMap<(u64, String), &Value> = BTreeMap::new();
    for s in slices.iter().filter(|s| !list(s, key).is_empty()) {
        let keys = s["shape"]["seq_len"].as_u64().unwrap_or(0);
        let layer = s["shape"]["layer"].as_u64().unwrap_or(0);
        one.entry((u64::MAX - keys, format!("{layer:03}"))).or_insert(s);
    }
    // The longest say most: in few keys there is little to leave out.
    one.into_values().take(4).collect()
}

fn label(s: &Value) -> String {
    let shape = &s["shape"];
    let prompt = text(shape, "prompt_id");
    let keys = shape["seq_len"].as_u64().unwrap_or(0);
    let layer = shape["layer"].as_u64().unwrap_or(0);
    if prompt.is_empty() { name(s) } else { format!("{prompt}, layer {layer}, {keys} keys") }
}

fn curve(s: &Value, of: &str, colour: usize, x: &str, y: &str) -> Series {
    let points = list(s, of).iter().map(|p| (number(p, x), number(p, y))).collect();
    Series { name: label(s), colour, look: Look::Line, points }
}

/// What a reference over the last keys leaves out.
fn windows(slices: &[&Value]) -> Option<Figure> {
    let shown = told_apart(slices, "windows");
    let (first, of) = (shown.first()?, "windows");
    let points = || shown.iter().flat_map(|s| list(s, of));
    let x = Axis::over(
        "keys that the reference sums, the last ones",
        Scale::Log2,
        points().map(|p| number(p, "window_len")),
    );
    let errors: Vec<Series> =
        shown.iter().enumerate().map(|(i, s)| curve(s, of, i, "window_len", "mae")).collect();
    let masses: Vec<Series> =
        shown.iter().enumerate().map(|(i, s)| curve(s, of, i, "window_len", "missing")).collect();
    let y = Axis::over("mean error of P·V", Scale::Log10, points().map(|p| number(p, "mae")));
    // At 64 keys, as the audit had it, where a capture is longer.
    let long = shown
        .iter()
        .rev()
        .find(|s| s["shape"]["seq_len"].as_u64().unwrap_or(0) > 64)
        .unwrap_or(first);
    let at = list(long, of).iter().rfind(|p| number(p, "window_len") <= 64.0);
    let at = at.map_or((f64::NAN, f64::NAN, f64::NAN), |p| {
        (number(p, "window_len"), number(p, "mae"), number(p, "missing"))
    });
    let panel = |title: &str, y, series| Panel {
        title: title.into(),
        x: x.clone(),
        y,
        series,
        rules: Vec::new(),
    };
    let panels = Panels {
        title: format!(
            "A reference over the last {} keys calls a right kernel wrong by {:.1e}: it leaves out {:.0} % of the weight",
            at.0,
            at.1,
            100.0 * at.2
        ),
        caption: "The right output of captured slices against the sum over their last keys only, with the weights of \
                  all, mean over heads and dimensions: both fall to 0 where all keys are summed. This is what \
                  remained in the engine's audit, and looked like a fault of short prompts. From \
                  `attnbench diagnose --json`."
            .into(),
        columns: 2,
        height: 300,
        panels: vec![
            panel("error that the kernel does not have", y, errors),
            panel("weight of the keys left out", Axis::over("share of the weight", Scale::Linear, points().map(|p| number(p, "missing"))).between(0.0, 1.0), masses),
        ],
    };
    Some(Figure::new("reference-window", Drawn::Panels(panels)))
}

/// A fault that begins at some key.
fn first_wrong(slices: &[&Value]) -> Option<Figure> {
    let shown = told_apart(slices, "first_wrong");
    let of = "first_wrong";
    shown.first()?;
    let points = || shown.iter().flat_map(|s| list(s, of));
    let x = Axis::over(
        "first key whose row of V is read one row early",
        Scale::Linear,
        points().map(|p| number(p, "key")),
    );
    let series =
        |y: &str| shown.iter().enumerate().map(|(i, s)| curve(s, of, i, "key", y)).collect();
    let least = points().map(|p| number(p, "ratio")).fold(f64::INFINITY, f64::min);
    let missed = points().filter(|p| number(p, "ratio") <= 1.0).count();
    let title = if missed == 0 {
        format!(
            "However late a fault begins, the check sees it: at the last key it is still {least:.0} times the bound"
        )
    } else {
        format!("A fault that begins late is not seen at {missed} of {} places", points().count())
    };
    let rule = super::panels::Rule { at: 1.0, text: "the bound".into() };
    let panel = |title: &str, y: Axis, series, rules| Panel {
        title: title.into(),
        x: x.clone(),
        y,
        series,
        rules,
    };
    let over = |title: &str, key: &'static str| {
        Axis::over(title, Scale::Log10, points().map(|p| number(p, key)))
    };
    let ratios = over("error / bound", "ratio");
    let ratios = Axis { range: (ratios.range.0.min(0.5), ratios.range.1), ..ratios };
    let panels = Panels {
        title,
        caption: "The largest error over all heads and dimensions of captured slices, were V read one row early from \
                  that key on; the shorter the wrong part, the less weight it has. From `attnbench diagnose --json`."
            .into(),
        columns: 2,
        height: 300,
        panels: vec![
            panel("largest error", over("absolute error", "max_abs"), series("max_abs"), Vec::new()),
            panel("in units of its bound", ratios, series("ratio"), vec![rule]),
        ],
    };
    Some(Figure::new("first-wrong-key", Drawn::Panels(panels)))
}
