//! A diagnosis, of a captured slice or of a sweep's failure.

use super::numbers::{count, counted, error, over_bound, whole};
use super::parts::{Kind, Tone, cell, chip, facts, folded, sentences, table};
use super::{list, text};
use crate::judge::diagnose::catalogue;
use maud::{Markup, html};
use serde_json::Value;

/// A verdict's tone.
pub fn tone(verdict: &str) -> Tone {
    match verdict {
        "clean" => Tone::Good,
        "explained" | "ambiguous" | "unexplained" => Tone::Bad,
        "invalid" => Tone::Warn,
        _ => Tone::Plain,
    }
}

/// What each verdict says.
pub const MEANINGS: [(&str, &str); 6] = [
    ("clean", "within the error bound of the right answer"),
    ("explained", "one fault fits in every head, within the bound of its own prediction"),
    ("ambiguous", "several faults fit that differ in general, but not on this data"),
    (
        "reference",
        "right, or not to be judged by what lies beside it: the reference covers a part only",
    ),
    ("unexplained", "wrong, and nothing that is known fits"),
    ("invalid", "the file cannot be judged"),
];

/// A fault with its parameters: `layer_slice {read: 0}`.
pub fn named(fault: &Value) -> String {
    let name = text(&fault["fault"]);
    let params = fault["params"].as_object().into_iter().flatten();
    let params: Vec<String> =
        params.map(|(key, value)| format!("{key}: {}", text(value))).collect();
    match params.is_empty() {
        true => name,
        false => format!("{name} {{{}}}", params.join(", ")),
    }
}

/// What the faults of an id (`a+b` for a pair) are, in words.
fn meaning(id: &Value) -> String {
    let ids = id.as_str().unwrap_or_default().split('+').filter_map(catalogue::find);
    ids.map(|fault| fault.meaning).collect::<Vec<_>>().join("; and ")
}

/// The verdict, with the fault where it names one.
pub fn headline(d: &Value) -> Markup {
    let verdict = text(&d["verdict"]);
    html! {
        (chip(tone(&verdict), &verdict))
        @if !d["fault"].is_null() { " " code { (named(d)) } }
    }
}

/// How many heads are wrong, of how many.
pub fn heads_wrong(d: &Value) -> String {
    let heads = list(&d["heads"]);
    let wrong = heads.iter().filter(|head| head["verdict"] != "clean").count();
    if heads.is_empty() { "-".to_owned() } else { format!("{wrong} of {}", heads.len()) }
}

/// The words of it: what was found, what to look at, what would look the same.
pub fn words(d: &Value) -> Markup {
    let advice = list(&d["advice"]);
    let told_by = d["told_by"].as_str();
    html! {
        (sentences(d["note"].as_str().unwrap_or_default().split(". ")))
        @if !advice.is_empty() {
            p { "Look at:" }
            ul { @for line in advice { li { (text(line)) } } }
        }
        @if let Some(case) = told_by {
            p class="quiet" { "Told by the case " code { (case) } }
        }
    }
}

/// What was tried: the closest hypotheses, those that look the same, head by head.
pub fn details(d: &Value) -> Markup {
    html! {
        (candidates(d))
        (equivalent(d))
        (heads(d))
        (tried(d))
    }
}

fn candidates(d: &Value) -> Markup {
    let rows: Vec<Vec<Markup>> = list(&d["candidates"])
        .iter()
        .map(|c| {
            vec![
                html! { code { (named(c)) } },
                cell(over_bound(c, "ratio")),
                cell(error(c, "mae")),
                cell(meaning(&c["fault"])),
            ]
        })
        .collect();
    let columns = [
        ("hypothesis", Kind::Text),
        ("err/bound", Kind::Number),
        ("mean error", Kind::Number),
        ("meaning", Kind::Words),
    ];
    table(
        "Closest hypotheses; one fits where its error over its bound is at most 1",
        &columns,
        &rows,
    )
}

fn equivalent(d: &Value) -> Markup {
    let all = list(&d["equivalent"]);
    let more = d["more"].as_object().into_iter().flatten();
    let more: Vec<String> = more.map(|(fault, n)| format!("{} more of {fault}", text(n))).collect();
    html! {
        @if !all.is_empty() {
            @let name = format!("What would look the same here: {}", all.len());
            (folded(&name, &html! {
                ul {
                    @for fault in all { li { code { (named(fault)) } " " (meaning(&fault["fault"])) } }
                    @for line in &more { li { (line) } }
                }
            }))
        }
    }
}

fn heads(d: &Value) -> Markup {
    /// More are folded.
    const AT_ONCE: usize = 16;
    let heads = list(&d["heads"]);
    let rows: Vec<Vec<Markup>> = heads
        .iter()
        .map(|head| {
            let verdict = text(&head["verdict"]);
            vec![
                cell(format!("batch {}, head {}", counted(head, "batch"), text(&head["head"]))),
                chip(tone(&verdict), &verdict),
                cell(text(&head["fault"])),
                cell(over_bound(head, "ratio")),
            ]
        })
        .collect();
    let columns = [
        ("head", Kind::Text),
        ("verdict", Kind::Text),
        ("fault", Kind::Text),
        ("err/bound", Kind::Number),
    ];
    let all_clean = heads.iter().all(|head| head["verdict"] == "clean");
    let content = table("Head by head", &columns, &rows);
    match heads.len() > AT_ONCE || all_clean && !heads.is_empty() {
        true => folded(&format!("{}, one by one", count(heads.len() as u64, "head")), &content),
        false => content,
    }
}

fn tried(d: &Value) -> Markup {
    let search = d["search"].as_object().into_iter().flatten();
    let rows: Vec<Vec<Markup>> = search
        .map(|(fault, n)| {
            vec![
                html! { code { (fault) } },
                cell(whole(counted(n, "tried"))),
                cell(whole(counted(n, "out_of_range"))),
            ]
        })
        .collect();
    let columns = [
        ("fault", Kind::Text),
        ("predictions tried", Kind::Number),
        ("rejected: outside a buffer", Kind::Number),
    ];
    let total = counted(d, "tried");
    html! {
        @if total > 0 {
            @let name = format!("{} tried", count(total, "prediction"));
            (folded(&name, &table("Predictions by fault", &columns, &rows)))
        }
    }
}

/// The whole of it as facts, for a failure of a sweep.
pub fn as_facts(d: &Value) -> Vec<(&'static str, Markup)> {
    vec![(
        "Diagnosis",
        html! {
            p { (headline(d)) }
            (words(d))
        },
    )]
}

/// The facts of a slice's measure.
pub fn measures(d: &Value) -> Markup {
    let mut rows = Vec::new();
    if !list(&d["heads"]).is_empty() {
        rows.push(("Heads wrong", cell(heads_wrong(d))));
    }
    if !d["ratio"].is_null() || d["nonfinite"] == true {
        rows.push((
            "Error",
            html! { (over_bound(d, "ratio")) " times its bound; mean " (error(d, "mae")) },
        ));
    }
    if let Some(stage) = d["stage"].as_str() {
        rows.push(("Stage", cell(stage)));
    }
    facts(&rows)
}
