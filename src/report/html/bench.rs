//! The page of a bench.

use super::numbers::{count, whole};
use super::parts::{Kind, Tone, cell, chip, facts, folded, table};
use super::{Body, unknown};
use crate::bench::compare::summary;
use crate::bench::document::{Device, Document, Row};
use crate::bench::stats::Change;
use crate::report::bench::{gbs, micros, params, percent, telemetry};
use crate::report::table::ratio;
use maud::{Markup, html};
use serde_json::Value;
use std::collections::BTreeSet;

/// What the page says of a bench's document.
pub fn body(document: &Value) -> Body {
    let document: Document = match serde_json::from_value(document.clone()) {
        Ok(document) => document,
        Err(error) => {
            let sentence = format!("The bench's document cannot be read: {error}.");
            return Body { sentence, ..unknown("") };
        }
    };
    let (verdict, tone, sentence) = verdict(&document);
    let kernels: BTreeSet<&str> = document.rows.iter().map(|row| row.kernel.as_str()).collect();
    let kernels: Vec<&str> = kernels.into_iter().collect();
    Body {
        title: format!("Bench of {} on {}", kernels.join(", "), document.device.name),
        verdict: verdict.to_owned(),
        tone,
        sentence,
        main: html! {
            @if document.method.clock == "host" {
                p {
                    "Timed by the host's clock on the CPU device, which imitates a GPU thread by thread: no \
                     figure here is a GPU's."
                }
            }
            h2 { "Times" }
            (times(&document.rows))
            (method(&document))
            (untimed(&document.rows))
            (versus(&document))
            (changes(&document))
        },
        more: under_load(&document),
        device: device(&document.device),
    }
}

fn verdict(document: &Document) -> (&'static str, Tone, String) {
    let rows = |verdict: &str| document.rows.iter().filter(|r| r.verdict == verdict).count() as u64;
    let changed =
        |change: Change| document.changes.iter().filter(|c| c.change == change).count() as u64;
    let (right, wrong, impossible) = (rows("right"), rows("wrong"), rows("impossible"));
    let mut parts = vec![format!("{} timed, each judged right before", count(right, "row"))];
    for (n, what) in [
        (wrong, "wrong, and not timed"),
        (impossible, "faster than the memory allows"),
        (rows("refused"), "not timed"),
    ] {
        if n > 0 {
            parts.push(format!("{} {what}", whole(n)));
        }
    }
    for change in [Change::Faster, Change::Slower, Change::Same, Change::Unclear] {
        if changed(change) > 0 {
            parts.push(format!("{} {} beside the earlier result", changed(change), change.name()));
        }
    }
    let kernels: BTreeSet<&str> = document.versus.iter().map(|v| v.kernel.as_str()).collect();
    for kernel in kernels {
        if let Some((mean, least)) = summary(&document.versus, kernel) {
            parts.push(format!(
                "the best of the others takes {mean:.3} times as long as {kernel} (geometric mean; least \
                 {least:.3})"
            ));
        }
    }
    let sentence = format!("{}.", parts.join("; "));
    if wrong + impossible > 0 {
        ("FAULT", Tone::Bad, sentence)
    } else if changed(Change::Slower) > 0 {
        ("SLOWER", Tone::Bad, sentence)
    } else if right > 0 {
        ("TIMED", Tone::Good, sentence)
    } else {
        ("NOT TIMED", Tone::Warn, sentence)
    }
}

fn times(rows: &[Row]) -> Markup {
    let columns = [
        ("shape", Kind::Text),
        ("layout", Kind::Text),
        ("kernel", Kind::Text),
        ("dtype", Kind::Text),
        ("us", Kind::Number),
        ("5 %", Kind::Number),
        ("95 %", Kind::Number),
        ("GB/s", Kind::Number),
        ("of ceiling", Kind::Number),
        ("of reading alone", Kind::Number),
        ("tokens/s", Kind::Number),
        ("err/bound", Kind::Number),
        ("tunables", Kind::Text),
    ];
    let cells: Vec<Vec<Markup>> = rows
        .iter()
        .filter_map(|row| Some((row, row.us.as_ref()?)))
        .map(|(row, us)| {
            let error = match row.nonfinite {
                true => "inf".to_owned(),
                false => ratio(row.ratio.unwrap_or(0.0), row.ratio.is_some()),
            };
            vec![
                cell(&row.shape),
                cell(&row.layout),
                cell(&row.kernel),
                cell(&row.dtype),
                cell(micros(us.median)),
                cell(micros(us.p5)),
                cell(micros(us.p95)),
                cell(gbs(row.gbs)),
                cell(percent(row.share)),
                cell(percent(row.of_read)),
                cell(row.tokens_per_s.map_or("-".to_owned(), |t| whole(t.round() as u64))),
                cell(error),
                html! { code { (params(row)) } },
            ]
        })
        .collect();
    table(
        "Microseconds a call: the median of the rounds, and of all replays 5 % and 95 %",
        &columns,
        &cells,
    )
}

/// The ceiling, and how it was measured.
fn method(document: &Document) -> Markup {
    let mut rows: Vec<(&'static str, Markup)> = Vec::new();
    if let Some(ceiling) = &document.ceiling {
        let mut words = format!(
            "{:.0} GB/s: reading alone, {} MB",
            ceiling.gbs,
            whole(ceiling.bytes / 1_000_000)
        );
        if let (Some(begin), Some(end)) = (ceiling.gbs_at_begin, ceiling.gbs_at_end) {
            words += &format!(
                "; on 1 GiB {begin:.0} GB/s at the begin of the run, {end:.0} GB/s at its end"
            );
        }
        rows.push(("Ceiling", cell(words)));
    }
    let m = &document.method;
    if m.rounds > 0 {
        rows.push((
            "Method",
            cell(format!(
                "{}, each on buffers allocated anew, of {} after {} to warm up; the {}'s clock",
                count(m.rounds.into(), "round"),
                count(m.replays.into(), "replay"),
                m.warm,
                m.clock
            )),
        ));
    }
    facts(&rows)
}

fn untimed(rows: &[Row]) -> Markup {
    let cells: Vec<Vec<Markup>> = rows
        .iter()
        .filter(|row| row.verdict != "right")
        .map(|row| {
            let tone = if row.verdict == "refused" { Tone::Warn } else { Tone::Bad };
            vec![
                cell(&row.shape),
                cell(&row.layout),
                cell(&row.kernel),
                chip(tone, &row.verdict),
                cell(row.why.as_deref().unwrap_or("no reason is known")),
            ]
        })
        .collect();
    let columns = [
        ("shape", Kind::Text),
        ("layout", Kind::Text),
        ("kernel", Kind::Text),
        ("verdict", Kind::Text),
        ("why", Kind::Words),
    ];
    html! {
        @if !cells.is_empty() {
            h2 { "What does not count" }
            (table("Rows that are not right", &columns, &cells))
        }
    }
}

/// Rows beside those of others, a column each.
fn versus(document: &Document) -> Markup {
    let kernels: BTreeSet<&str> = document.versus.iter().map(|v| v.kernel.as_str()).collect();
    let mut peers: Vec<&str> = Vec::new();
    for peer in &document.peers {
        if !peers.contains(&peer.kernel.as_str()) {
            peers.push(&peer.kernel);
        }
    }
    html! {
        @if !document.versus.is_empty() { h2 { "Beside others" } }
        @for kernel in kernels { (versus_of(document, kernel, &peers)) }
    }
}

fn versus_of(document: &Document, kernel: &str, peers: &[&str]) -> Markup {
    let mut columns = vec![("shape", Kind::Text), ("layout", Kind::Text), (kernel, Kind::Number)];
    columns.extend(peers.iter().map(|peer| (*peer, Kind::Number)));
    columns.push(("best of them / ours", Kind::Number));
    let own = document.versus.iter().filter(|v| v.kernel == kernel);
    let cells: Vec<Vec<Markup>> = own
        .map(|versus| {
            let mut cells =
                vec![cell(&versus.shape), cell(&versus.layout), cell(micros(versus.us))];
            for peer in peers {
                let found = document.peers.iter().find(|row| {
                    row.kernel == *peer && row.shape == versus.shape && row.layout == versus.layout
                });
                let us = found.and_then(|row| row.us.as_ref());
                cells.push(cell(us.map_or("-".to_owned(), |us| micros(us.median))));
            }
            cells.push(cell(format!("{:.3}", versus.ratio)));
            cells
        })
        .collect();
    let name = format!(
        "Microseconds of {kernel} and of others; above 1 in the last column ours is faster"
    );
    table(&name, &columns, &cells)
}

/// Rows beside an earlier run's.
fn changes(document: &Document) -> Markup {
    let cells: Vec<Vec<Markup>> = document
        .changes
        .iter()
        .map(|change| {
            let tone = match change.change {
                Change::Faster => Tone::Good,
                Change::Slower => Tone::Bad,
                Change::Same => Tone::Plain,
                Change::Unclear => Tone::Warn,
            };
            vec![
                cell(&change.shape),
                cell(&change.layout),
                cell(&change.kernel),
                cell(micros(change.old_us)),
                cell(micros(change.us)),
                cell(format!("{:.3}", change.ratio)),
                cell(format!("{:.3} and {:.3}", change.low, change.high)),
                chip(tone, change.change.name()),
            ]
        })
        .collect();
    let columns = [
        ("shape", Kind::Text),
        ("layout", Kind::Text),
        ("kernel", Kind::Text),
        ("us then", Kind::Number),
        ("us now", Kind::Number),
        ("now / then", Kind::Number),
        ("between", Kind::Number),
        ("verdict", Kind::Text),
    ];
    html! {
        @if !cells.is_empty() {
            h2 { "Beside the earlier result" }
            (table("Microseconds then and now", &columns, &cells))
        }
    }
}

/// What the driver told of the device under each row's load.
fn under_load(document: &Document) -> Markup {
    let told = telemetry(document);
    let number = |n: Option<f64>| cell(n.map_or("-".to_owned(), |n| format!("{n:.0}")));
    let cells: Vec<Vec<Markup>> = document
        .rows
        .iter()
        .filter_map(|row| Some((row, row.telemetry.as_ref()?)))
        .map(|(row, t)| {
            let held = match t.throttle.as_deref() {
                None => "not told".to_owned(),
                Some([]) => "no".to_owned(),
                Some(reasons) => reasons.join(", "),
            };
            vec![
                cell(&row.shape),
                cell(&row.layout),
                cell(&row.kernel),
                number(t.sm_mhz.map(f64::from)),
                number(t.mem_mhz.map(f64::from)),
                number(t.power_w),
                number(t.temperature_c.map(f64::from)),
                cell(held),
            ]
        })
        .collect();
    let columns = [
        ("shape", Kind::Text),
        ("layout", Kind::Text),
        ("kernel", Kind::Text),
        ("multiprocessors, MHz", Kind::Number),
        ("memory, MHz", Kind::Number),
        ("power, W", Kind::Number),
        ("degrees C", Kind::Number),
        ("clocks held back", Kind::Text),
    ];
    html! {
        @if !cells.is_empty() {
            h2 { "The device under load" }
            p { (told.trim().trim_start_matches("under load: ")) }
            (folded("Row by row", &table("Under each row's load", &columns, &cells)))
        }
    }
}

fn device(device: &Device) -> Vec<(&'static str, Markup)> {
    let mut rows: Vec<(&'static str, Markup)> = Vec::new();
    for (name, value) in [
        ("Device", &device.name),
        ("Interface", &device.api),
        ("Target", &device.arch),
        ("Driver", &device.driver),
        ("Compiler", &device.compiler),
    ] {
        if !value.is_empty() {
            rows.push((name, cell(value)));
        }
    }
    if device.multiprocessors > 0 {
        rows.push(("Processors", cell(whole(device.multiprocessors.into()))));
    }
    for (name, bytes) in [("Last cache", device.l2_bytes), ("Memory", device.memory)] {
        if bytes > 0 {
            rows.push((name, cell(format!("{} MB", whole(bytes / 1_000_000)))));
        }
    }
    rows
}
