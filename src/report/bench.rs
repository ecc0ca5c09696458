//! Tables of `bench`.

use super::table::{align_numbers, ratio, table};
use crate::bench::compare::summary;
use crate::bench::document::{Changed, Document, Row, Versus};
use std::collections::BTreeSet;
use std::fmt::Write;

/// Microseconds with digits that mean something.
pub(super) fn micros(us: f64) -> String {
    match us {
        _ if us < 10.0 => format!("{us:.2}"),
        _ if us < 1000.0 => format!("{us:.1}"),
        _ => format!("{us:.0}"),
    }
}

/// GB/s with digits that mean something.
pub(super) fn gbs(gbs: Option<f64>) -> String {
    gbs.map_or("-".into(), |gbs| if gbs < 10.0 { format!("{gbs:.3}") } else { format!("{gbs:.0}") })
}

/// A share in percent.
pub(super) fn percent(share: Option<f64>) -> String {
    share.map_or("-".into(), |share| format!("{:.1} %", 100.0 * share))
}

/// The tunables of a row, and whether its rule chose them.
pub(super) fn params(row: &Row) -> String {
    let list = row.params.iter().map(|(name, value)| format!("{name}={value}"));
    let list: Vec<String> = list.collect();
    match (row.by_rule, list.is_empty()) {
        (_, true) => "-".to_owned(),
        (true, _) => format!("{} (rule)", list.join(" ")),
        (false, _) => list.join(" "),
    }
}

/// One line a kernel, shape and layout; what was not timed, with the reason; the ceiling.
pub fn rows(document: &Document) -> String {
    let mut text = String::new();
    let timed: Vec<&Row> = document.rows.iter().filter(|row| row.us.is_some()).collect();
    if !timed.is_empty() {
        let mut t = table(&[
            "shape",
            "layout",
            "kernel",
            "dtype",
            "tunables",
            "us",
            "p5",
            "p95",
            "GB/s",
            "of ceiling",
            "of reading alone",
            "tokens/s",
            "err/bound",
        ]);
        for row in &timed {
            let Some(us) = &row.us else { continue };
            t.add_row([
                row.shape.clone(),
                row.layout.clone(),
                row.kernel.clone(),
                row.dtype.clone(),
                params(row),
                micros(us.median),
                micros(us.p5),
                micros(us.p95),
                gbs(row.gbs),
                percent(row.share),
                percent(row.of_read),
                row.tokens_per_s.map_or("-".into(), |t| format!("{t:.0}")),
                ratio(row.ratio.unwrap_or(0.0), row.ratio.is_some()),
            ]);
        }
        align_numbers(&mut t, 5);
        let _ = writeln!(text, "{t}");
    }
    for row in document.rows.iter().filter(|row| row.verdict != "right") {
        let why = row.why.as_deref().unwrap_or("no reason is known");
        let _ = writeln!(
            text,
            "{} {} on {} ({}): {why}",
            row.verdict, row.kernel, row.shape, row.layout
        );
    }
    if let Some(ceiling) = &document.ceiling {
        let _ = write!(
            text,
            "ceiling {:.0} GB/s: reading alone, {} MB",
            ceiling.gbs,
            ceiling.bytes / 1_000_000
        );
        if let (Some(begin), Some(end)) = (ceiling.gbs_at_begin, ceiling.gbs_at_end) {
            let _ =
                write!(text, "; on 1 GiB {begin:.0} at the begin of the run, {end:.0} at its end");
        }
        text.push('\n');
    }
    text
}

/// What the driver told of the device, under each row's load.
pub fn telemetry(document: &Document) -> String {
    let observed: Vec<_> = document.rows.iter().filter_map(|row| row.telemetry.as_ref()).collect();
    if observed.is_empty() {
        return String::new();
    }
    let range = |values: Vec<f64>, unit: &str| {
        let least = values.iter().copied().fold(f64::INFINITY, f64::min);
        let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        match values.is_empty() {
            true => format!("unknown {unit}"),
            false if least == most => format!("{least:.0} {unit}"),
            false => format!("{least:.0} to {most:.0} {unit}"),
        }
    };
    let sm = observed.iter().filter_map(|t| t.sm_mhz.map(f64::from)).collect();
    let memory = observed.iter().filter_map(|t| t.mem_mhz.map(f64::from)).collect();
    let power = observed.iter().filter_map(|t| t.power_w).collect();
    let heat = observed.iter().filter_map(|t| t.temperature_c.map(f64::from)).collect();
    let reasons: BTreeSet<&str> =
        observed.iter().filter_map(|t| t.throttle.as_ref()).flatten().map(String::as_str).collect();
    let reasons: Vec<&str> = reasons.into_iter().collect();
    let slowed = match (reasons.is_empty(), observed.iter().all(|t| t.throttle.is_some())) {
        (false, _) => format!("; clocks held back by {}", reasons.join(", ")),
        (true, true) => "; clocks not held back".to_owned(),
        (true, false) => String::new(),
    };
    format!(
        "under load: multiprocessors {}, memory {}, {}, {}{slowed}\n",
        range(sm, "MHz"),
        range(memory, "MHz"),
        range(power, "W"),
        range(heat, "degrees C")
    )
}

/// Rows beside those of others, a column each, and how the best of them compares.
pub fn versus(document: &Document) -> String {
    let mut text = String::new();
    let kernels: BTreeSet<&str> = document.versus.iter().map(|v| v.kernel.as_str()).collect();
    for kernel in kernels {
        let own: Vec<&Versus> = document.versus.iter().filter(|v| v.kernel == kernel).collect();
        let mut peers: Vec<&str> = Vec::new();
        for peer in &document.peers {
            if !peers.contains(&peer.kernel.as_str()) {
                peers.push(&peer.kernel);
            }
        }
        let mut header = vec!["shape", "layout", kernel];
        header.extend(&peers);
        header.push("best of them / ours");
        let mut t = table(&header);
        for versus in &own {
            let mut cells = vec![versus.shape.clone(), versus.layout.clone(), micros(versus.us)];
            for peer in &peers {
                let found = document.peers.iter().find(|row| {
                    row.kernel == *peer && row.shape == versus.shape && row.layout == versus.layout
                });
                let us = found.and_then(|row| row.us.as_ref());
                cells.push(us.map_or("-".into(), |us| micros(us.median)));
            }
            cells.push(format!("{:.3}", versus.ratio));
            t.add_row(cells);
        }
        align_numbers(&mut t, 2);
        let _ = writeln!(text, "{t}");
        if let Some((mean, least)) = summary(&document.versus, kernel) {
            let _ = writeln!(
                text,
                "{kernel}: best of them / ours, geometric mean {mean:.3} over {}, least {least:.3}",
                own.len()
            );
        }
    }
    text
}

/// Rows beside an earlier run's.
pub fn changes(changes: &[Changed]) -> String {
    let mut t = table(&[
        "shape",
        "layout",
        "kernel",
        "us then",
        "us now",
        "now / then",
        "between",
        "verdict",
    ]);
    for change in changes {
        t.add_row([
            change.shape.clone(),
            change.layout.clone(),
            change.kernel.clone(),
            micros(change.old_us),
            micros(change.us),
            format!("{:.3}", change.ratio),
            format!("{:.3} and {:.3}", change.low, change.high),
            change.change.name().to_owned(),
        ]);
    }
    align_numbers(&mut t, 3);
    format!("{t}\n")
}
