//! Figures of captured slices: which hypothesis fits, and how far the others are.

use super::heat::{Cell, Heat};
use super::panels::{Look, Panel, Panels, Series};
use super::scale::number as number_of;
use super::scale::{Axis, Scale};
use super::{Drawn, Figure, counted, distinct, list, number, text};
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

/// The faults that fit.
fn fits(slice: &Value) -> Vec<&str> {
    let all = list(slice, "hypotheses").iter();
    all.filter(|h| number(h, "ratio") <= 1.0).map(|h| text(h, "fault")).collect()
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
    let of_all = slices.len();
    slices.truncate(MOST);
    if slices.is_empty() {
        return None;
    }
    let all = slices.iter().flat_map(|s| list(s, "hypotheses"));
    let faults = distinct(all.map(|h| text(h, "fault")));
    let mut rows: Vec<(String, Vec<Cell>)> = faults
        .iter()
        .map(|fault| {
            let words = if *fault == "none" { "the right answer" } else { fault };
            (words.to_owned(), slices.iter().map(|s| cell(hypothesis(s, fault))).collect())
        })
        .collect();
    // The probe of the engine that this comes from: the smaller mean error of two wins.
    let probed = |s: &Value, key: &str| number(&s["probe"], key);
    let probe = |own: &'static str, other: &'static str| -> Vec<Cell> {
        let of = |s: &&Value| {
            let (own, other) = (probed(s, own), probed(s, other));
            let words = format!("{own:.1e}");
            if !own.is_finite() {
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
    rows.push(("two-way probe: row".into(), probe("mae_row", "mae_col")));
    rows.push(("two-way probe: col".into(), probe("mae_col", "mae_row")));
    let wrong: Vec<&&Value> = slices
        .iter()
        .filter(|s| hypothesis(s, "none").is_some_and(|h| number(h, "ratio") > 1.0))
        .collect();
    let others = faults.len() - 1;
    let title = match wrong.first() {
        Some(s) => {
            let (row, col) = (probed(s, "mae_row"), probed(s, "mae_col"));
            let probe = match row.partial_cmp(&col) {
                Some(order) if order.is_le() => "; a probe of two layouts says row",
                Some(_) => "; a probe of two layouts says col",
                None => "",
            };
            let what = match fits(s)[..] {
                [] => format!("None of {} explains {}", counted(others, "fault"), name(s)),
                [one] => format!("Of {} only {one} explains {}", counted(others, "fault"), name(s)),
                ref more => format!("{} explain {}", counted(more.len(), "fault"), name(s)),
            };
            what + probe
        }
        None => {
            let nearest = slices.iter().flat_map(|s| list(s, "hypotheses"));
            let nearest = nearest.filter(|h| text(h, "fault") != "none");
            let nearest = nearest.filter_map(|h| h["ratio"].as_f64()).fold(f64::INFINITY, f64::min);
            let right = format!("The right answer fits {}", counted(slices.len(), "capture"));
            if nearest.is_finite() {
                format!(
                    "{right}; the nearest of {} is at {} times its bound",
                    counted(others, "fault"),
                    number_of(nearest)
                )
            } else {
                right
            }
        }
    };
    let left_out = if slices.len() < of_all {
        format!(" {} of {of_all} slices, those with a fault first.", slices.len())
    } else {
        String::new()
    };
    let caption = format!(
        "Each cell: the logarithm of the largest error over its bound, of the nearest default member of a fault, over the \
         heads; up to 0 it fits (marked). Below: the mean errors by which a probe decides that knows the kernel's own \
         weights, and V by rows or by columns.{left_out} From `attnbench diagnose --json`."
    );
    let heat = Heat {
        title,
        caption,
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

/// The error of each head, by slice.
fn heads(slices: &[&Value]) -> Option<Figure> {
    const COLUMNS: usize = 64;
    let ratios = |s: &Value| -> Vec<f64> {
        let right = hypothesis(s, "none").map_or(&[][..], |h| list(h, "heads"));
        right.iter().map(|r| r.as_f64().unwrap_or(f64::INFINITY)).collect()
    };
    // The heads of the first that has most: others of the same model have the same.
    let fits = |s: &&Value| (1..=COLUMNS).contains(&ratios(s).len());
    let shown: Vec<&Value> = slices.iter().copied().filter(fits).take(24).collect();
    let most = shown.iter().max_by_key(|s| ratios(s).len())?;
    let of_batch = list(most, "units").iter().any(|u| u["batch"] != 0);
    let label = |s: &Value, place: usize| -> String {
        let unit = &s["units"][place];
        match (unit["batch"].as_u64(), unit["head"].as_u64()) {
            (Some(batch), Some(head)) if of_batch => format!("{batch}.{head}"),
            (_, Some(head)) => head.to_string(),
            _ => place.to_string(),
        }
    };
    let columns = ratios(most).len();
    let (mut worst, mut where_, mut wrong, mut total) = (0.0f64, String::new(), 0, 0);
    let mut rows = Vec::new();
    for s in &shown {
        let ratios = ratios(s);
        let mut cells = Vec::new();
        for (place, ratio) in ratios.iter().enumerate() {
            (total, wrong) = (total + 1, wrong + usize::from(*ratio > 1.0));
            if *ratio > worst {
                (worst, where_) = (*ratio, format!("head {} of {}", label(s, place), name(s)));
            }
            let decades = libm::log10(ratio.clamp(1e-9, 1e9));
            let words = if *ratio > 1.0 { format!("{decades:+.1}") } else { String::new() };
            cells.push(Cell::Of(decades, words));
        }
        cells.resize(columns, Cell::Empty);
        rows.push((name(s), cells));
    }
    let heads = counted(total, "head");
    let captures = counted(shown.len(), "capture");
    let title = if wrong == 0 {
        format!(
            "{heads} of {captures}, and none wrong: {where_} is worst, at {} of its bound",
            number_of(worst)
        )
    } else {
        format!("{wrong} of {heads} in {captures} are wrong, {where_} most")
    };
    let left_out = slices.len() - shown.len();
    let left_out =
        if left_out > 0 { format!(" {left_out} more are not drawn.") } else { String::new() };
    let heat = Heat {
        title,
        caption: format!(
            "The logarithm of each head's largest error over its bound, against the right answer; above 0 it is wrong, and \
             the cell says by how many decades.{left_out} From `attnbench diagnose --json`."
        ),
        axes: ("capture".into(), if of_batch { "batch.head" } else { "query head" }.into()),
        columns: (0..columns).map(|place| label(most, place)).collect(),
        rows,
        // The fourth shade begins at 0.
        range: (-3.0, 4.0),
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
    let of = "windows";
    let points = || shown.iter().flat_map(|s| list(s, of));
    let series = |y: &str| -> Vec<Series> {
        shown.iter().enumerate().map(|(i, s)| curve(s, of, i, "window_len", y)).collect()
    };
    // At 64 keys, as an engine's audit had it, or the most below: where that leaves out most.
    let at = |s: &&&Value| list(s, of).iter().rfind(|p| number(p, "window_len") <= 64.0).cloned();
    let told: Vec<(&&Value, Value)> = shown.iter().filter_map(|s| Some((s, at(&s)?))).collect();
    let (slice, point) = told
        .iter()
        .filter(|(_, p)| number(p, "mae") > 0.0)
        .max_by(|a, b| number(&a.1, "mae").total_cmp(&number(&b.1, "mae")))?;
    let x = Axis::over(
        "keys that the reference sums, the last ones",
        Scale::Log2,
        points().map(|p| number(p, "window_len")),
    );
    let y = Axis::over("mean error of P·V", Scale::Log10, points().map(|p| number(p, "mae")));
    let share =
        Axis::over("share of the weight", Scale::Linear, std::iter::empty()).between(0.0, 1.0);
    let panel = |title: &str, y, series| Panel {
        title: title.into(),
        x: x.clone(),
        y,
        series,
        rules: Vec::new(),
    };
    let panels = Panels {
        title: format!(
            "Over the last {} keys a reference calls the right output of {} wrong by {}: it leaves out {:.0} % of the weight",
            number(point, "window_len"),
            label(slice),
            number_of(number(point, "mae")),
            100.0 * number(point, "missing")
        ),
        caption: "The right output of captured slices against the sum over their last keys only, with the weights of all; \
                  mean over heads and dimensions. Where all keys are summed nothing is left, which the left scale cannot \
                  show. From `attnbench diagnose --json`."
            .into(),
        columns: 2,
        height: 300,
        panels: vec![
            panel("error that the kernel does not have", y, series("mae")),
            panel("weight of the keys left out", share, series("missing")),
        ],
    };
    Some(Figure::new("reference-window", Drawn::Panels(panels)))
}

/// A fault that begins at some key.
fn first_wrong(slices: &[&Value]) -> Option<Figure> {
    let shown = told_apart(slices, "first_wrong");
    let of = "first_wrong";
    let points = || shown.iter().flat_map(|s| list(s, of));
    let series = |y: &str| -> Vec<Series> {
        let place = |(i, s): (usize, &&Value)| {
            let keys = number(&s["shape"], "seq_len");
            let mut series = curve(s, of, i, "key", y);
            series.points.iter_mut().for_each(|p| p.0 = 100.0 * p.0 / keys);
            series
        };
        shown.iter().enumerate().map(place).collect()
    };
    let last = shown.iter().filter_map(|s| list(s, of).last()).map(|p| number(p, "ratio"));
    let least = last.reduce(f64::min).filter(|least| least.is_finite())?;
    let missed = points().filter(|p| number(p, "ratio") <= 1.0).count();
    let title = if missed == 0 {
        format!(
            "However late a wrong read begins, it would be seen: in the last key alone it is {} bounds or more",
            number_of(least)
        )
    } else {
        format!("A wrong read would not be seen at {missed} of {} first keys", points().count())
    };
    let x = Axis::over(
        "first key whose row of V is read one row early, % of the length",
        Scale::Linear,
        std::iter::empty(),
    )
    .between(0.0, 100.0);
    let rule = super::panels::Rule { at: 1.0, text: "the bound".into() };
    let panel = |title: &str, y: Axis, series, rules| Panel {
        title: title.into(),
        x: x.clone(),
        y,
        series,
        rules,
    };
    let over = |title: &str, key: &'static str| {
        Axis::over(title, Scale::Log10, points().map(move |p| number(p, key)))
    };
    let ratios = over("error / bound", "ratio");
    let ratios = Axis { range: (ratios.range.0.min(0.5), ratios.range.1), ..ratios };
    let panels = Panels {
        title,
        caption: "The largest error over the heads and dimensions of captured slices, were V read one row early from that \
                  key on, and what the check would make of it: the shorter the wrong part, the less weight it has. From \
                  `attnbench diagnose --json`."
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
