//! The page of judged traces.

use super::diagnosis::tone;
use super::numbers::{count, counted, over_bound};
use super::parts::{Kind, Tone, cell, chip, sentences, table};
use super::{Body, list, text};
use maud::{Markup, html};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// What the page says of a trace's document.
pub fn body(document: &Value) -> Body {
    let (rows, pairs) = (list(&document["rows"]), list(&document["compared"]));
    let (verdict, tone, sentence) = verdict(rows, pairs);
    let files: BTreeSet<String> = rows.iter().map(|row| text(&row["file"])).collect();
    let files: Vec<String> = files.iter().map(|file| name(file)).collect();
    Body {
        title: format!("Traces {}", files.join(", ")),
        verdict: verdict.to_owned(),
        tone,
        sentence,
        main: html! {
            h2 { "Events" }
            (events(rows))
            (passed_over(document))
            (compared(pairs))
            h2 { "What each verdict rests on" }
            @for row in rows { (reasons(row)) }
        },
        more: html! {},
        device: vec![("Device", html! { "none: computed in f64 on the CPU" })],
    }
}

fn name(file: &str) -> String {
    Path::new(file).file_name().map_or(file.to_owned(), |name| name.to_string_lossy().into_owned())
}

fn verdict(rows: &[Value], pairs: &[Value]) -> (&'static str, Tone, String) {
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    rows.iter().for_each(|row| *counts.entry(text(&row["verdict"])).or_default() += 1);
    let all: Vec<String> = counts.iter().map(|(verdict, n)| format!("{n} {verdict}")).collect();
    let mut sentence = format!("{}: {}", count(rows.len() as u64, "event"), all.join(", "));
    let proofs: Vec<&Value> = pairs.iter().filter(|p| p["one_kernel_is_wrong"] == true).collect();
    if !proofs.is_empty() {
        sentence += &format!(
            ". Two files have the same weights and V in {} and another P·V: one of the two kernels was wrong",
            count(proofs.len() as u64, "event")
        );
        let wrong: BTreeSet<&str> =
            proofs.iter().filter_map(|p| p["wrong_file"].as_str()).collect();
        let wrong: Vec<String> = wrong.into_iter().map(name).collect();
        if !wrong.is_empty() {
            sentence += &format!(", that of {}", wrong.join(", "));
        }
    }
    sentence.push('.');
    let any = |of: Tone| rows.iter().any(|row| tone(&text(&row["verdict"])) == of);
    if !proofs.is_empty() || any(Tone::Bad) {
        ("FAULT", Tone::Bad, sentence)
    } else if any(Tone::Warn) {
        ("INVALID", Tone::Warn, sentence)
    } else {
        ("OK", Tone::Good, sentence)
    }
}

/// What rows of some kind of event may hold: the key, and what stands in it.
const COLUMNS: [(&str, Kind); 18] = [
    ("prompt_id", Kind::Text),
    ("phase", Kind::Text),
    ("layer", Kind::Number),
    ("head", Kind::Number),
    ("seq_len", Kind::Number),
    ("window_len", Kind::Number),
    ("pos_id", Kind::Number),
    ("v_layout_best", Kind::Text),
    ("v_mae_row", Kind::Number),
    ("v_mae_col", Kind::Number),
    ("pv_scope", Kind::Text),
    ("pv_mae", Kind::Number),
    ("pv_mae_recomputed", Kind::Number),
    ("attn_out_mae", Kind::Number),
    ("qk_mae", Kind::Number),
    ("softmax_mae", Kind::Number),
    ("window_mass", Kind::Number),
    ("top1_id", Kind::Number),
];

/// A table for each kind of event, with the columns that its rows fill.
fn events(rows: &[Value]) -> Markup {
    let mut kinds: Vec<String> = Vec::new();
    for row in rows {
        let kind = text(&row["event"]);
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    html! {
        @for kind in &kinds {
            @let of: Vec<&Value> = rows.iter().filter(|row| text(&row["event"]) == *kind).collect();
            h3 { code { (kind) } }
            (events_of(kind, &of))
        }
    }
}

fn events_of(kind: &str, rows: &[&Value]) -> Markup {
    let filled: Vec<(&str, Kind)> = COLUMNS
        .into_iter()
        .filter(|(key, _)| rows.iter().any(|row| !row[*key].is_null()))
        .collect();
    let mut columns = vec![("event", Kind::Text)];
    columns.extend(&filled);
    columns.extend([("err/bound", Kind::Number), ("verdict", Kind::Text)]);
    let cells: Vec<Vec<Markup>> = rows
        .iter()
        .map(|row| {
            let mut cells = vec![cell(place(row))];
            cells.extend(filled.iter().map(|(key, _)| cell(number(&row[*key]))));
            cells.push(cell(over_bound(row, "ratio")));
            cells.push(judged(row));
            cells
        })
        .collect();
    table(&format!("Events {kind}"), &columns, &cells)
}

/// A measure with six digits, as traces print theirs; anything else as it is.
fn number(value: &Value) -> String {
    match value.as_f64() {
        Some(x) if value.is_f64() && x != 0.0 && x.abs() < 1e-3 => format!("{x:.5e}"),
        Some(x) if value.is_f64() => format!("{x:.6}"),
        _ => text(value),
    }
}

fn place(row: &Value) -> String {
    match (row["file"].as_str(), row["line"].as_u64()) {
        (Some(file), Some(line)) => format!("{} line {line}", name(file)),
        (Some(file), None) => name(file),
        _ => text(&row["event"]),
    }
}

fn judged(row: &Value) -> Markup {
    let verdict = text(&row["verdict"]);
    html! {
        (chip(tone(&verdict), &verdict))
        @if !row["fault"].is_null() { " " code { (text(&row["fault"])) } }
    }
}

fn reasons(row: &Value) -> Markup {
    let mut at = place(row);
    if let Some(prompt) = row["prompt_id"].as_str() {
        at += &format!(", {prompt}");
    }
    for key in ["layer", "head"] {
        if let Some(n) = row[key].as_u64() {
            at += &format!(" {key} {n}");
        }
    }
    html! {
        article class=(tone(&text(&row["verdict"])).class()) {
            h3 { (at) }
            p { (judged(row)) }
            (sentences(row["note"].as_str().unwrap_or_default().split("; ")))
        }
    }
}

fn passed_over(document: &Value) -> Markup {
    let total = counted(document, "skipped");
    let why = document["skipped_why"].as_object().into_iter().flatten();
    let why: Vec<String> = why
        .filter_map(|(why, n)| Some((why, n.as_u64().filter(|n| *n > 0)?)))
        .map(|(why, n)| count(n, &why.replace('_', " ")))
        .collect();
    html! {
        @if total > 0 {
            p class="quiet" { "Passed over: " (count(total, "line")) " (" (why.join(", ")) ")." }
        }
    }
}

fn compared(pairs: &[Value]) -> Markup {
    let yes = |value: &Value| match value.as_bool() {
        Some(true) => "yes",
        Some(false) => "no",
        None => "-",
    };
    let rows: Vec<Vec<Markup>> = pairs
        .iter()
        .map(|pair| {
            let files: Vec<String> = list(&pair["files"]).iter().map(|f| name(&text(f))).collect();
            let wrong = pair["wrong_file"].as_str().map_or("not told".to_owned(), name);
            vec![
                cell(files.join(" and ")),
                cell(text(&pair["prompt_id"])),
                cell(text(&pair["layer"])),
                cell(text(&pair["head"])),
                cell(yes(&pair["p_equal"])),
                cell(yes(&pair["v_equal"])),
                cell(yes(&pair["pv_equal"])),
                html! {
                    @if pair["one_kernel_is_wrong"] == true {
                        (chip(Tone::Bad, "one is wrong")) ": " (wrong)
                    } @else { "nothing" }
                },
            ]
        })
        .collect();
    let columns = [
        ("files", Kind::Text),
        ("prompt", Kind::Text),
        ("layer", Kind::Number),
        ("head", Kind::Number),
        ("same weights", Kind::Text),
        ("same V", Kind::Text),
        ("same P·V", Kind::Text),
        ("proves", Kind::Text),
    ];
    html! {
        @if !pairs.is_empty() {
            h2 { "The files side by side" }
            (table("Events that two files hold", &columns, &rows))
        }
    }
}
