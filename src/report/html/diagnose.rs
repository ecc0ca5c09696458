//! The page of a diagnosis of captured slices.

use super::diagnosis::{self, MEANINGS, tone};
use super::numbers::{cell as counted_cell, count, over_bound};
use super::parts::{Kind, Tone, cell, chip, folded, table};
use super::{Body, list, text};
use maud::{Markup, html};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// What the page says of a diagnosis's document.
pub fn body(document: &Value) -> Body {
    let slices = list(&document["slices"]);
    let (verdict, tone, sentence) = verdict(slices);
    let title = match slices {
        [only] => format!("Diagnosis of {}", text(&only["file"])),
        all => format!("Diagnosis of {}", count(all.len() as u64, "captured slice")),
    };
    Body {
        title,
        verdict,
        tone,
        sentence,
        main: html! {
            h2 { "Slices" }
            (summary(slices))
            h2 { "What was found" }
            @for (i, slice) in slices.iter().enumerate() { (one(i, slice)) }
        },
        more: meanings(),
        device: vec![("Device", html! { "none: computed in f64 on the CPU" })],
    }
}

fn verdict(slices: &[Value]) -> (String, Tone, String) {
    if let [only] = slices {
        let verdict = text(&only["verdict"]);
        let meaning = MEANINGS.iter().find(|(name, _)| *name == verdict).map_or("", |(_, m)| m);
        let sentence = match only["fault"].is_null() {
            true => format!("The output: {meaning}."),
            false => format!("{}: {meaning}.", diagnosis::named(only)),
        };
        return (verdict.to_uppercase(), tone(&verdict), sentence);
    }
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    slices.iter().for_each(|s| *counts.entry(text(&s["verdict"])).or_default() += 1);
    let all: Vec<String> = counts.iter().map(|(verdict, n)| format!("{n} {verdict}")).collect();
    let sentence = format!("{}: {}.", count(slices.len() as u64, "slice"), all.join(", "));
    let any = |of: Tone| slices.iter().any(|s| tone(&text(&s["verdict"])) == of);
    if any(Tone::Bad) {
        ("FAULT".to_owned(), Tone::Bad, sentence)
    } else if any(Tone::Warn) || slices.is_empty() {
        ("INVALID".to_owned(), Tone::Warn, sentence)
    } else {
        ("NO FAULT".to_owned(), Tone::Good, sentence)
    }
}

/// The name of a slice: its file's.
fn name(slice: &Value) -> String {
    let file = text(&slice["file"]);
    let stem = Path::new(&file).file_stem().map(|stem| stem.to_string_lossy().into_owned());
    stem.unwrap_or(file)
}

fn summary(slices: &[Value]) -> Markup {
    let columns = [
        ("slice", Kind::Text),
        ("verdict", Kind::Text),
        ("fault", Kind::Text),
        ("stage", Kind::Text),
        ("heads wrong", Kind::Number),
        ("err/bound", Kind::Number),
        ("tried", Kind::Number),
    ];
    let rows: Vec<Vec<Markup>> = slices
        .iter()
        .enumerate()
        .map(|(i, slice)| {
            let verdict = text(&slice["verdict"]);
            let judged = verdict != "invalid";
            vec![
                html! { a href={ "#slice-" (i) } { (name(slice)) } },
                chip(tone(&verdict), &verdict),
                html! {
                    @if slice["fault"].is_null() { "-" } @else { code { (diagnosis::named(slice)) } }
                },
                cell(text(&slice["stage"])),
                cell(diagnosis::heads_wrong(slice)),
                cell(if judged { over_bound(slice, "ratio") } else { "-".to_owned() }),
                cell(counted_cell(slice, "tried")),
            ]
        })
        .collect();
    table("What each slice came to", &columns, &rows)
}

fn one(i: usize, slice: &Value) -> Markup {
    let tone = tone(&text(&slice["verdict"]));
    html! {
        article class=(tone.class()) id={ "slice-" (i) } {
            h3 { (name(slice)) }
            p { (diagnosis::headline(slice)) }
            p class="quiet" { code { (text(&slice["file"])) } }
            (diagnosis::words(slice))
            (diagnosis::measures(slice))
            (diagnosis::details(slice))
        }
    }
}

fn meanings() -> Markup {
    let rows: Vec<Vec<Markup>> = MEANINGS
        .iter()
        .map(|(verdict, meaning)| vec![chip(tone(verdict), verdict), cell(meaning)])
        .collect();
    let columns = [("verdict", Kind::Text), ("says", Kind::Words)];
    html! {
        h2 { "What the verdicts say" }
        (folded("Six verdicts", &table("Verdicts", &columns, &rows)))
    }
}
