//! The page of a sweep.

use super::numbers::{cell as counted_cell, count, counted, error, over_bound, some_of, whole};
use super::parts::{Kind, Tone, cell, chip, code_block, facts, folded, table};
use super::{Body, diagnosis, list, text};
use maud::{Markup, html};
use serde_json::Value;

/// What the page says of a sweep's document.
pub fn body(document: &Value) -> Body {
    let kernels = list(&document["kernels"]);
    let (verdict, tone, sentence) = verdict(kernels);
    let names: Vec<String> = kernels.iter().map(|k| text(&k["name"])).collect();
    Body {
        title: format!("Sweep of {}", some_of(&names)),
        verdict: verdict.to_owned(),
        tone,
        sentence,
        main: html! {
            h2 { "Kernels" }
            (summary(kernels))
            p class="quiet" {
                "err/bound is a case's largest error over the bound that its own data derives; 1 is the limit. \
                 Vacuous cases are those on which the check itself would miss a wrong output: they are run, and \
                 counted apart."
            }
            (failures(kernels))
            (troubles(kernels))
        },
        more: drawn(kernels),
        device: vec![("Device", cell(text(&document["device"])))],
    }
}

/// A kernel's verdict: one that could not be swept has its own.
fn kernel_verdict(kernel: &Value) -> (&'static str, Tone) {
    match kernel["verdict"].as_str() {
        Some("pass") => ("PASS", Tone::Good),
        Some("fail") => ("FAIL", Tone::Bad),
        _ if !kernel["error"].is_null() => ("ERROR", Tone::Warn),
        _ => ("INCOMPLETE", Tone::Warn),
    }
}

/// The names of the kernels of a verdict.
fn with(kernels: &[Value], verdict: &str) -> Vec<String> {
    let of = |k: &&Value| kernel_verdict(k).0 == verdict;
    kernels.iter().filter(of).map(|k| text(&k["name"])).collect()
}

fn verdict(kernels: &[Value]) -> (&'static str, Tone, String) {
    let total = |key: &str| kernels.iter().map(|k| counted(k, key)).sum::<u64>();
    let (cases, failed) = (total("cases"), total("failed"));
    let of_all = |n: usize| match (n, kernels.len()) {
        (_, 1) => "The kernel".to_owned(),
        (n, all) => format!("{n} of {}", count(all as u64, "kernel")),
    };
    let wrong = with(kernels, "FAIL");
    if !wrong.is_empty() {
        let sentence = format!(
            "{} failed: {}, in {} of {}.",
            of_all(wrong.len()),
            some_of(&wrong),
            whole(failed),
            count(cases, "case")
        );
        return ("FAIL", Tone::Bad, sentence);
    }
    let incomplete = with(kernels, "INCOMPLETE");
    if !incomplete.is_empty() {
        let sentence = format!(
            "No case of {} failed, but not enough was judged for a pass: {}.",
            whole(cases),
            some_of(&incomplete)
        );
        return ("INCOMPLETE", Tone::Warn, sentence);
    }
    let errors = with(kernels, "ERROR");
    if !errors.is_empty() {
        let sentence =
            format!("{} could not be judged: {}.", of_all(errors.len()), some_of(&errors));
        return ("ERROR", Tone::Warn, sentence);
    }
    let who = match kernels {
        [] => return ("NOTHING", Tone::Warn, "No kernel was swept.".to_owned()),
        [only] => format!("{} passes", text(&only["name"])),
        all => format!("All {} pass", count(all.len() as u64, "kernel")),
    };
    let sentence = format!("{who}: {} judged, none failed.", count(cases, "case"));
    ("PASS", Tone::Good, sentence)
}

fn summary(kernels: &[Value]) -> Markup {
    let columns = [
        ("kernel", Kind::Text),
        ("verdict", Kind::Text),
        ("cases", Kind::Number),
        ("failed", Kind::Number),
        ("skipped", Kind::Number),
        ("vacuous", Kind::Number),
        ("wave 32", Kind::Number),
        ("wave 64", Kind::Number),
        ("err/bound median", Kind::Number),
        ("99.9 %", Kind::Number),
        ("worst", Kind::Number),
        ("seconds", Kind::Number),
    ];
    let rows: Vec<Vec<Markup>> = kernels
        .iter()
        .enumerate()
        .map(|(i, k)| {
            let (word, tone) = kernel_verdict(k);
            let wave = |wave: &str| counted_cell(&k["by_wave"][wave], "cases");
            let judged = counted(k, "cases") > 0;
            let measure = |key| if judged { over_bound(k, key) } else { "-".to_owned() };
            let name = text(&k["name"]);
            vec![
                html! {
                    @if list(&k["failures"]).is_empty() { (name) }
                    @else { a href={ "#kernel-" (i) } { (name) } }
                },
                chip(tone, word),
                cell(counted_cell(k, "cases")),
                cell(counted_cell(k, "failed")),
                cell(counted_cell(k, "skipped")),
                cell(counted_cell(k, "vacuous")),
                cell(wave("32")),
                cell(wave("64")),
                cell(measure("median_ratio")),
                cell(measure("p999_ratio")),
                cell(measure("worst_ratio")),
                cell(k["seconds"].as_f64().map_or("-".to_owned(), |s| format!("{s:.1}"))),
            ]
        })
        .collect();
    table("What each kernel came to", &columns, &rows)
}

/// Every failure, with all that is needed to see it again.
fn failures(kernels: &[Value]) -> Markup {
    let any = kernels.iter().any(|k| !list(&k["failures"]).is_empty());
    html! {
        @if any {
            h2 { "What is wrong" }
            @for (i, kernel) in kernels.iter().enumerate() {
                @for (n, failure) in list(&kernel["failures"]).iter().enumerate() {
                    @let id = if n == 0 { format!("kernel-{i}") } else { format!("kernel-{i}-{n}") };
                    (one_failure(&id, kernel, failure))
                }
            }
        }
    }
}

fn one_failure(id: &str, kernel: &Value, failure: &Value) -> Markup {
    let mut rows: Vec<(&'static str, Markup)> = Vec::new();
    rows.push(("Smallest case", code_block("the smallest failing case", &text(&failure["id"]))));
    if let Some(detail) = failure["detail"].as_str() {
        rows.push(("What", cell(detail)));
    }
    if failure["where"].is_object() {
        rows.push(("Where", cell(place(&failure["where"]))));
        // What differs from itself is not wrong by an error.
        if failure["wrong_elements"] != 0 {
            rows.push(("Error", cell(measures(failure))));
        }
    }
    let findings = list(&failure["findings"]);
    if !findings.is_empty() {
        rows.push(("The checker", html! { ul { @for f in findings { li { (finding(f)) } } } }));
    }
    if failure["trigger"].is_object() {
        rows.push(("When", cell(when(&failure["trigger"]))));
    }
    if let Some(seen) = failure["seen"]["words"].as_str() {
        rows.push(("Seen", cell(seen)));
    }
    if failure["diagnosis"].is_object() {
        rows.extend(diagnosis::as_facts(&failure["diagnosis"]));
    }
    match failure["saved"].as_str() {
        Some(path) => rows.push(("Saved", html! { code { (path) } })),
        None => rows.push(("Saved", cell("no: the case's line makes it again"))),
    }
    if let Some(replay) = failure["replay"].as_str() {
        rows.push(("Replay", code_block("the line to replay", replay)));
    }
    let times = match failure["count"].as_u64() {
        Some(n) => format!(
            "Fails in {} of {}. This is the smallest that was found.",
            whole(n),
            count(counted(kernel, "cases"), "case")
        ),
        None => "This is the smallest case that was found.".to_owned(),
    };
    let mut others: Vec<String> = Vec::new();
    others.extend(failure["original"].as_str().map(str::to_owned));
    others.extend(list(&failure["others"]).iter().map(text));
    html! {
        article class="bad" id=(id) {
            h3 { (text(&kernel["name"])) ": " (text(&failure["property"])) }
            p { (times) }
            (facts(&rows))
            @if failure["diagnosis"].is_object() {
                (folded("What the diagnosis tried", &diagnosis::details(&failure["diagnosis"])))
            }
            @if !others.is_empty() {
                @let name = format!("{} as drawn, before shrinking", count(others.len() as u64, "case"));
                (folded(&name, &code_block("the cases as drawn", &others.join("\n"))))
            }
            (folded("The smallest case, field by field", &fields(&failure["case"])))
        }
    }
}

/// When a kernel fails, with the cases that say so.
fn when(trigger: &Value) -> String {
    let n = |key: &str| whole(counted(trigger, key));
    let mut words = format!(
        "{}: {} of {} failing cases have this, and {} of {} passing ones",
        text(&trigger["words"]),
        n("failing"),
        n("failing_of"),
        n("passing"),
        n("passing_of")
    );
    if counted(trigger, "drawn") > 0 {
        words += &format!("; {} of them were drawn to tell", n("drawn"));
    }
    words
}

/// The worst element.
fn place(at: &Value) -> String {
    let mut parts = Vec::new();
    for (key, name) in [("batch", "batch"), ("head", "head"), ("token", "token"), ("d", "d")] {
        if !at[key].is_null() {
            parts.push(format!("{name} {}", text(&at[key])));
        }
    }
    match at["output"].as_str() {
        Some(output) => format!("{} of {output}", parts.join(", ")),
        None => parts.join(", "),
    }
}

fn measures(failure: &Value) -> String {
    let mut words = format!(
        "got {} times the bound; largest {}, mean {}",
        over_bound(failure, "ratio"),
        error(failure, "max_abs"),
        error(failure, "mae")
    );
    if let Some(n) = failure["wrong_elements"].as_u64() {
        words += &format!("; {} wrong", count(n, "element"));
    }
    words
}

/// What the checker found, in its words, with the calls that led there.
fn finding(found: &Value) -> Markup {
    let times = counted(found, "count");
    let callers: Vec<String> = list(&found["at"]["callers"]).iter().map(line).collect();
    html! {
        (text(&found["words"]))
        @if let Some(target) = found["target"].as_str() { " (" code { (target) } ")" }
        @if times > 1 { ", " (whole(times)) " times" }
        div class="quiet" {
            (text(&found["class"])) " / " (text(&found["kind"])) " at " (line(&found["at"]))
            @if !callers.is_empty() { ", called at " (callers.join(", ")) }
            @if found["other"].is_object() { "; the other side at " (line(&found["other"]["at"])) }
        }
    }
}

/// A line of a source.
fn line(at: &Value) -> String {
    let function = text(&at["function"]);
    match (at["file"].as_str(), at["line"].as_u64()) {
        (Some(file), Some(line)) => format!("{file}:{line} ({function})"),
        _ => function,
    }
}

fn fields(case: &Value) -> Markup {
    let fields = case.as_object().into_iter().flatten();
    let rows: Vec<Vec<Markup>> =
        fields.map(|(key, value)| vec![cell(key), html! { code { (text(value)) } }]).collect();
    table("The case", &[("field", Kind::Text), ("value", Kind::Text)], &rows)
}

/// What keeps kernels from a verdict, and what was left out.
fn troubles(kernels: &[Value]) -> Markup {
    let of: Vec<(String, Markup)> = kernels
        .iter()
        .filter_map(|kernel| trouble(kernel).map(|found| (text(&kernel["name"]), found)))
        .collect();
    html! {
        @if !of.is_empty() {
            h2 { "What was left out" }
            @for (name, found) in &of {
                article class="warn" {
                    h3 { (name) }
                    (found)
                }
            }
        }
    }
}

fn trouble(kernel: &Value) -> Option<Markup> {
    let mut rows: Vec<(&'static str, Markup)> = Vec::new();
    if let Some(error) = kernel["error"].as_str() {
        rows.push(("Error", code_block("the error", error)));
    }
    if let Some(stopped) = kernel["stopped"].as_str() {
        rows.push(("Stopped", cell(stopped)));
    }
    let missing: Vec<String> = list(&kernel["missing"]).iter().map(text).collect();
    if !missing.is_empty() {
        rows.push(("Never exercised", cell(missing.join(", "))));
    }
    let skipped = kernel["skipped_why"].as_object().filter(|why| !why.is_empty());
    if let Some(why) = skipped {
        rows.push((
            "Skipped",
            html! { ul { @for (why, n) in why { li { (text(n)) " times: " (why) } } } },
        ));
    }
    if let Some(late) = kernel["late"].as_u64() {
        let what = "not end in time beside others, and did when made again alone";
        rows.push(("Late", cell(format!("{} did {what}", count(late, "case")))));
    }
    (!rows.is_empty()).then(|| facts(&rows))
}

/// What was drawn, an axis a row: how hard the sweep was.
fn drawn(kernels: &[Value]) -> Markup {
    let any = kernels.iter().any(|k| k["drawn"].as_object().is_some_and(|axes| !axes.is_empty()));
    html! {
        @if any {
            h2 { "What was drawn" }
            @for kernel in kernels {
                (folded(&text(&kernel["name"]), &drawn_of(kernel)))
            }
        }
    }
}

fn drawn_of(kernel: &Value) -> Markup {
    let cases = counted(kernel, "cases").max(1) as f64;
    let axes = kernel["drawn"].as_object().into_iter().flatten();
    let rows: Vec<Vec<Markup>> = axes
        .map(|(axis, buckets)| {
            let mut shares: Vec<(&String, u64)> = buckets
                .as_object()
                .into_iter()
                .flatten()
                .map(|(b, n)| (b, n.as_u64().unwrap_or(0)))
                .collect();
            shares.sort_by_key(|share| std::cmp::Reverse(share.1));
            let shares: Vec<String> = shares
                .iter()
                .map(|(bucket, n)| format!("{bucket}: {:.1} %", 100.0 * *n as f64 / cases))
                .collect();
            vec![cell(axis), cell(shares.join(", "))]
        })
        .collect();
    let vacuous = kernel["vacuous_why"].as_object().filter(|why| !why.is_empty());
    html! {
        @if let Some(worst) = kernel["worst_case"].as_str() {
            (facts(&[("Worst case", code_block("the case of the largest error over its bound", worst))]))
        }
        (table("Share of the judged cases", &[("axis", Kind::Text), ("drawn", Kind::Words)], &rows))
        @if let Some(why) = vacuous {
            p { "Vacuous, as the check would not see" }
            ul { @for (why, n) in why { li { (why) ": " (text(n)) } } }
        }
    }
}
