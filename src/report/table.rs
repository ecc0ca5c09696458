//! Tables and paragraphs for a terminal. The verdict comes last.

use super::json::SavedFailure;
use crate::judge::compare::{Comparison, Where};
use crate::judge::coverage::Coverage;
use crate::judge::diagnose::Diagnosis;
use crate::judge::diagnose::promise::Promise;
use crate::judge::explain::Explanation;
use crate::judge::explain::consensus::Asked;
use crate::judge::sweep::{Noted, Report, Verdict};
use crate::judge::trial::PASSES_IN_LOCKSTEP;
use crate::judge::wide::is_wide;
use crate::oracle::Term;
use crate::problem::{Case, Pointer, Stage};
use comfy_table::{CellAlignment, Table, presets};
use std::fmt::Write;

/// A table that a terminal shows aligned, and that stays one when pasted into an issue (Markdown).
pub fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(header.iter().copied());
    table
}

/// Aligns every column but the first `text` ones to the right: numbers.
pub(super) fn align_numbers(table: &mut Table, text: usize) {
    for column in table.column_iter_mut().skip(text) {
        column.set_cell_alignment(CellAlignment::Right);
    }
}

/// A ratio with three significant digits; `-` where nothing was judged.
pub fn ratio(x: f64, judged: bool) -> String {
    match (judged, x.is_finite()) {
        (false, _) => "-".into(),
        (_, false) => "inf".into(),
        _ if x >= 100.0 => format!("{x:.1e}"),
        _ => format!("{x:.3}"),
    }
}

/// The verdict in capitals.
pub fn verdict(v: Verdict) -> &'static str {
    match v {
        Verdict::Pass => "PASS",
        Verdict::Fail => "FAIL",
        Verdict::Incomplete => "INCOMPLETE",
    }
}

/// One line a kernel.
pub fn summary(reports: &[&Report]) -> String {
    let mut t = table(&[
        "kernel",
        "verdict",
        "cases",
        "wave 32",
        "wave 64",
        "failed",
        "skipped",
        "vacuous",
        "err/bound median",
        "99.9 %",
        "worst",
        "cases/s",
        "runs/s",
    ]);
    for r in reports {
        let wave =
            |w: u32| r.by_wave.get(&w).map_or("-".into(), |c| (c.passed + c.failed).to_string());
        let rate = |n: usize| format!("{:.0}", n as f64 / r.seconds.max(1e-9));
        t.add_row([
            r.kernel.clone(),
            verdict(r.verdict).into(),
            r.cases().to_string(),
            wave(32),
            wave(64),
            r.failed.to_string(),
            r.skipped.to_string(),
            r.vacuous.to_string(),
            ratio(r.median_ratio, r.passed > 0),
            ratio(r.p999_ratio, r.passed > 0),
            ratio(r.worst_ratio, r.cases() > 0),
            rate(r.cases()),
            rate(r.runs),
        ]);
    }
    align_numbers(&mut t, 2);
    t.to_string()
}

/// What was drawn: a line an axis, buckets with their share.
pub fn drawn(coverage: &Coverage) -> String {
    let mut text = String::new();
    let width = coverage.axes.keys().map(String::len).max().unwrap_or(0);
    for (axis, buckets) in &coverage.axes {
        let mut shares: Vec<_> = buckets.iter().collect();
        // Numbers by value, words by name.
        shares.sort_by_key(|(bucket, _)| {
            let digits: String =
                bucket.chars().skip_while(|c| *c == '>').take_while(char::is_ascii_digit).collect();
            (digits.parse::<u64>().unwrap_or(0), bucket.starts_with('>'), bucket.as_str())
        });
        let cells: Vec<String> = shares
            .iter()
            .map(|(bucket, n)| {
                format!("{bucket} {:.0} %", 100.0 * **n as f64 / coverage.cases.max(1) as f64)
            })
            .collect();
        let _ = writeln!(text, "  {axis:width$}  {}", cells.join(" · "));
    }
    text
}

/// The shares that say how hard a sweep was.
pub fn shares(coverage: &Coverage) -> String {
    let least = |bucket: &str| {
        let digits: String =
            bucket.trim_start_matches('>').chars().take_while(char::is_ascii_digit).collect();
        digits.parse::<usize>().unwrap_or(0)
    };
    let percent = |x: f64| format!("{:.0} %", 100.0 * x);
    [
        ("seq_len > 512", coverage.share("seq_len", |b| least(b) >= 513 || b.starts_with('>'))),
        ("head_dim >= 128", coverage.share("head_dim", |b| least(b) >= 128)),
        ("ragged", coverage.share("ragged", |b| b == "yes")),
        ("window", coverage.share("window", |b| b == "yes")),
        ("padded", coverage.share("padding", |b| b == "yes")),
        ("captured slices", coverage.share("data", |b| b == "slice")),
    ]
    .map(|(what, share)| format!("{what} {}", percent(share)))
    .join(" · ")
}

/// What the checker found of a kernel that is no fault, in words.
pub fn notes(report: &Report) -> String {
    let mut text = String::new();
    for Noted { found, case, cases } in &report.notes {
        let _ = writeln!(text, "{}: note ({}): {}", report.kernel, found.class(), found.words);
        let _ = writeln!(text, "  seen in {cases} of {} cases, first in {case}", report.cases());
    }
    text
}

/// The findings of a kernel in words.
pub fn findings(report: &Report, saved: &[SavedFailure]) -> String {
    let mut text = String::new();
    for (f, saved) in report.findings.iter().zip(saved) {
        let _ = writeln!(
            text,
            "{}: {} fails in {} of {} cases; the smallest found ({} tries):",
            report.kernel,
            f.failure.property,
            f.count,
            report.cases(),
            f.tries
        );
        let _ = writeln!(text, "  case    {}", f.case);
        let _ = writeln!(text, "  what    {}", f.failure.detail);
        if let Some(c) = f.failure.comparison.as_ref().filter(|c| !c.is_right()) {
            let _ = writeln!(text, "  error   {}", error(&f.case, c));
        }
        if let Some(trigger) = &f.trigger {
            let _ = writeln!(text, "  when    {trigger}");
        }
        text += &explanation(&f.explanation);
        if f.passes_in_lockstep {
            let _ = writeln!(text, "  lanes   {PASSES_IN_LOCKSTEP}");
        }
        let not = if is_wide(&f.case) { "no: its id makes it again" } else { "no (see above)" };
        let _ = writeln!(text, "  saved   {}", saved.path.as_deref().unwrap_or(not));
        if let Some(replay) = &saved.replay {
            let _ = writeln!(text, "  replay  {replay}");
        }
    }
    text
}

/// How large the errors of a comparison are, and where the largest is.
pub fn error(case: &Case, c: &Comparison) -> String {
    let at = match c.output {
        Pointer::Lse => format!("lse of batch {}, head {}", c.at.batch, c.at.head),
        Pointer::Scores | Pointer::Probs => {
            let Where { batch, head, token, .. } = c.at;
            format!("{} of batch {batch}, head {head}, key {token}", c.output)
        }
        output => {
            let Where { batch, head, token, d } = c.at;
            let token = match case.stage {
                Stage::Prefill | Stage::Append => format!(", token {token}"),
                _ => String::new(),
            };
            format!("{output} of batch {batch}, head {head}{token}, d {d}")
        }
    };
    let Some(m) = c.of(c.output) else { return format!("{} bounds at {at}", ratio(c.ratio, true)) };
    let [apart, broken, swallowed] = m.wrong;
    let mut words = match c.ratio.is_finite() {
        true => format!("{} bounds at {at}", ratio(c.ratio, true)),
        false => format!("at {at}: {} where {} must be", c.got, c.want),
    };
    let of = m.elements;
    if broken > 0 {
        words += &format!("; {broken} of {of} elements are not finite");
    }
    if swallowed > 0 {
        words += &format!("; {swallowed} of {of} elements are numbers where NaN must be");
    }
    if apart > 0 {
        words += &format!("; {apart} of {of} elements are off");
        if m.finite > 0 && m.max_abs > 0.0 {
            words += &format!(", by {:.3e} at most and {:.3e} on average", m.max_abs, m.mae);
        }
    }
    words
}

/// Why cases fail, a line each statement.
pub fn explanation(e: &Explanation) -> String {
    let mut text = String::new();
    if let Some(seen) = e.seen() {
        let _ = writeln!(text, "  seen    {seen}");
        if e.diagnosis().is_none() {
            let _ = writeln!(text, "  look at {}", seen.advice());
        }
    }
    let Some((d, asked)) = e.diagnosis() else { return text };
    let _ =
        writeln!(text, "  fault   {}{}", super::diagnose::headline(d), asked_in_words(d, asked));
    let others = d.equivalent.iter().filter(|e| Some(&e.fault) != d.fault.as_ref());
    let others: Vec<String> = others.map(ToString::to_string).collect();
    if d.fault.is_some() && !others.is_empty() {
        let shown = others.iter().take(4).cloned().collect::<Vec<_>>().join(", ");
        let more = others.len().saturating_sub(4);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let _ = writeln!(text, "  or      {shown}{more}: no case tells them apart");
    }
    if let Some(case) = &d.told_by {
        let _ = writeln!(text, "  told by {case}");
    }
    if d.advice().is_empty() && d.fault.is_some() {
        let _ = writeln!(text, "  that is {}", d.note);
    }
    for advice in d.advice() {
        let _ = writeln!(text, "  look at {advice}");
    }
    if let Some(promise) = e.promise() {
        let _ = writeln!(text, "  right   if {}", promise_in_words(promise));
    }
    text
}

/// A promise that the manifest does not make.
pub fn promise_in_words(p: &Promise) -> String {
    let yet = match p.key {
        "accumulate" | "probs" | "denormals" => "",
        _ => ", a key that this version does not drive yet",
    };
    format!(
        "{}: a manifest that means it says {} = \"{}\" in [numerics]{yet}",
        p.what, p.key, p.value
    )
}

/// How many failing cases a fault was held against.
fn asked_in_words(d: &Diagnosis, asked: &Asked) -> String {
    let Asked { cases, fits, most } = asked;
    let of =
        |n: usize| if n == 1 { "1 failing case".to_owned() } else { format!("{n} failing cases") };
    match (&d.fault, most) {
        (Some(_), _) if fits == cases => {
            format!(" (fits {} of {} that were asked)", fits, of(*cases))
        }
        (Some(_), _) => {
            format!(" (fits {fits} of {} that were asked; the others cannot tell)", of(*cases))
        }
        (None, Some(most)) => format!(" ({most} fits {fits} of {} that were asked)", of(*cases)),
        (None, None) => format!(" (no fault fits any of {} that were asked)", of(*cases)),
    }
}

/// The terms of the bound at one element, largest first, with their shares and the sum.
pub fn bound_terms(want: f64, bound: f64, terms: &[Term]) -> String {
    let mut t = table(&["cause of error", "bound", "share"]);
    for term in terms {
        let share = if bound > 0.0 { 100.0 * term.value / bound } else { 0.0 };
        t.add_row([term.name.to_owned(), format!("{:.4e}", term.value), format!("{share:.2} %")]);
    }
    let sum: f64 = terms.iter().map(|t| t.value).sum();
    t.add_row(["sum".to_owned(), format!("{sum:.4e}"), "100 %".to_owned()]);
    align_numbers(&mut t, 1);
    format!("{t}\nthe right value is {want:e}; the bound used is {bound:.4e}")
}
