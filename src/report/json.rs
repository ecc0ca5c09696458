//! The JSON documents of the commands. Their keys are contracts: add, never change.

use crate::device::Place;
use crate::device::finding::{Access, Line, Site};
use crate::judge::compare::Comparison;
use crate::judge::coverage::Coverage;
use crate::judge::curves::{Curves, Ratios};
use crate::judge::explain::Explanation;
use crate::judge::explain::trigger::Trigger;
use crate::judge::sanitize::Found;
use crate::judge::sweep::{Noted, Report, Verdict};
use crate::judge::trial::Failure;
use crate::problem::Case;
use serde_json::{Map, Value, json};

/// Version of the sweep document.
pub const SWEEP_FORMAT: &str = "attnbench-sweep/1";
/// Version of the replay document.
pub const REPLAY_FORMAT: &str = "attnbench-replay/1";
/// Version of the document of several replays: those of the single ones in `replays`.
pub const REPLAYS_FORMAT: &str = "attnbench-replays/1";

/// What a sweep came to for one kernel.
pub enum KernelResult<'a> {
    /// It was swept.
    Swept(&'a Report, Vec<SavedFailure>),
    /// It could not be: its name, and why.
    Error(&'a str, String),
}

/// Where a finding was saved, and the line that replays it.
#[derive(Debug, Clone, Default)]
pub struct SavedFailure {
    /// The path of the kv-slice; `None` where it could not be written.
    pub path: Option<String>,
    /// The command line.
    pub replay: Option<String>,
}

/// A number under `key`: `null` with `"nonfinite": true` beside it where it is not finite.
pub(super) fn put_number(object: &mut Map<String, Value>, key: &str, x: f64) {
    if x.is_finite() {
        object.insert(key.into(), json!(x));
    } else {
        object.insert(key.into(), Value::Null);
        object.insert("nonfinite".into(), json!(true));
    }
}

/// A value as it is read: a text without its quotes, `-` for what is not there.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The elements of an array; none where it is not one.
pub(super) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// The verdict's word.
pub fn verdict(v: Verdict) -> &'static str {
    match v {
        Verdict::Pass => "pass",
        Verdict::Fail => "fail",
        Verdict::Incomplete => "incomplete",
    }
}

/// The sweep document: one entry a kernel, in the order asked for.
pub fn sweep(device: &str, seed: u64, command: &str, kernels: &[KernelResult<'_>]) -> Value {
    json!({
        "format": SWEEP_FORMAT,
        "version": env!("CARGO_PKG_VERSION"),
        "command": command,
        "device": device,
        "seed": seed,
        "kernels": kernels.iter().map(kernel).collect::<Vec<_>>(),
    })
}

fn kernel(result: &KernelResult<'_>) -> Value {
    let (report, saved) = match result {
        KernelResult::Swept(report, saved) => (report, saved),
        KernelResult::Error(name, error) => {
            return json!({
                "name": name, "verdict": "incomplete", "error": error, "cases": 0, "passed": 0,
                "failed": 0, "skipped": 0, "vacuous": 0, "seconds": 0.0, "worst_ratio": 0.0,
                "by_wave": {}, "drawn": {}, "failures": [],
            });
        }
    };
    let mut k = Map::new();
    k.insert("name".into(), json!(report.kernel));
    k.insert("verdict".into(), json!(verdict(report.verdict)));
    k.insert("cases".into(), json!(report.cases()));
    k.insert("passed".into(), json!(report.passed));
    k.insert("failed".into(), json!(report.failed));
    k.insert("skipped".into(), json!(report.skipped));
    k.insert("vacuous".into(), json!(report.vacuous));
    k.insert("runs".into(), json!(report.runs));
    k.insert("seconds".into(), json!(report.seconds));
    if report.late > 0 {
        k.insert("late".into(), json!(report.late));
    }
    if let Some(busy) = report.busy {
        k.insert("busy_seconds".into(), json!(busy.as_secs_f64()));
    }
    put_number(&mut k, "worst_ratio", report.worst_ratio);
    k.insert("median_ratio".into(), json!(report.median_ratio));
    k.insert("p999_ratio".into(), json!(report.p999_ratio));
    k.insert("worst_case".into(), json!(report.worst_case));
    let by_wave: Map<String, Value> = report
        .by_wave
        .iter()
        .map(|(wave, c)| {
            let cases = c.passed + c.failed;
            (wave.to_string(), json!({"cases": cases, "passed": c.passed, "failed": c.failed}))
        })
        .collect();
    k.insert("by_wave".into(), Value::Object(by_wave));
    k.insert("drawn".into(), drawn(&report.coverage));
    k.insert("ratios".into(), ratios(&report.curves.ratios));
    k.insert("errors".into(), errors(&report.curves));
    let missing: Vec<&String> = report.missing.iter().chain(report.claims.all()).collect();
    k.insert("missing".into(), json!(missing));
    k.insert("not_driven".into(), json!(report.claims.not_driven));
    k.insert("not_looked_at".into(), json!(report.not_looked_at));
    if let Some(share) = &report.checked {
        let (cases, seconds, findings) = (share.cases, share.seconds, share.findings);
        k.insert(
            "checked".into(),
            json!({"cases": cases, "seconds": seconds, "findings": findings}),
        );
    }
    k.insert("skipped_why".into(), json!(report.skipped_why));
    k.insert("vacuous_why".into(), json!(report.vacuous_why));
    k.insert("stopped".into(), json!(report.stopped.map(|s| s.reason())));
    if let Some(error) = &report.error {
        k.insert("error".into(), json!(error));
    }
    let failures = report.findings.iter().zip(saved).map(|(finding, saved)| {
        let explanation = Some(&finding.explanation);
        let mut f = failure(&finding.case, &finding.failure, explanation, saved);
        f.insert("trigger".into(), finding.trigger.as_ref().map_or(Value::Null, trigger));
        f.insert("passes_in_lockstep".into(), json!(finding.passes_in_lockstep));
        f.insert("count".into(), json!(finding.count));
        f.insert("original".into(), json!(finding.original.to_string()));
        f.insert("others".into(), json!(finding.others));
        Value::Object(f)
    });
    k.insert("failures".into(), failures.collect());
    if !report.notes.is_empty() {
        let note = |noted: &Noted| {
            let mut note = finding(&noted.found);
            note["cases"] = json!(noted.cases);
            note["case"] = json!(noted.case.to_string());
            note
        };
        k.insert("notes".into(), report.notes.iter().map(note).collect());
    }
    Value::Object(k)
}

/// How many cases have which largest error over its bound.
fn ratios(ratios: &Ratios) -> Value {
    json!({
        "log10_from": Ratios::FROM, "bins_a_decade": Ratios::BINS_A_DECADE, "counts": ratios.counts,
        "below": ratios.below,
    })
}

/// The largest errors on normal data, by length and by window.
fn errors(curves: &Curves) -> Value {
    let bins = curves.errors.iter().map(|((along, dtype, from), bin)| {
        json!({
            "along": along.name(), "dtype": dtype, "from": from, "cases": bin.cases,
            "max_abs": bin.max_abs, "bound": bin.bound, "ratio": bin.ratio,
        })
    });
    bins.collect()
}

fn drawn(coverage: &Coverage) -> Value {
    json!(coverage.axes)
}

/// When a kernel fails.
fn trigger(trigger: &Trigger) -> Value {
    let facts: Vec<String> = trigger.facts.iter().map(ToString::to_string).collect();
    json!({
        "facts": facts, "words": trigger.facts_in_words(), "exact": trigger.is_exact(),
        "failing": trigger.failing, "failing_of": trigger.failing,
        "passing": trigger.passing.0, "passing_of": trigger.passing.1, "drawn": trigger.drawn,
    })
}

/// What the runs show by themselves.
fn seen(explanation: &Explanation) -> Value {
    let seen = explanation.seen();
    seen.map_or(
        Value::Null,
        |seen| json!({"kind": seen.kind(), "words": seen.to_string(), "advice": seen.advice()}),
    )
}

/// The diagnosis of a failure, with how many failing cases it was held against.
fn diagnosis(explanation: &Explanation) -> Value {
    let Some((d, asked)) = explanation.diagnosis() else { return Value::Null };
    let mut object = super::diagnose::object(d);
    object.insert("cases".into(), json!(asked.cases));
    object.insert("fits".into(), json!(asked.fits));
    if let Some(most) = &asked.most {
        object.insert("most".into(), json!(most));
    }
    if let Some(p) = explanation.promise() {
        let words = super::table::promise_in_words(p);
        object.insert("promise".into(), json!({"key": p.key, "value": p.value, "words": words}));
    }
    object.into()
}

/// A failing case: what failed, where, and how to run it again.
pub fn failure(
    case: &Case,
    failure: &Failure,
    explanation: Option<&Explanation>,
    saved: &SavedFailure,
) -> Map<String, Value> {
    let mut f = Map::new();
    f.insert("property".into(), json!(failure.property));
    f.insert("case".into(), case_fields(case));
    f.insert("id".into(), json!(case.to_string()));
    match &failure.comparison {
        Some(c) => measures(&mut f, c),
        None => {
            for key in ["ratio", "max_abs", "mae", "where"] {
                f.insert(key.into(), Value::Null);
            }
        }
    }
    f.insert("detail".into(), json!(failure.detail));
    f.insert("poison".into(), json!(failure.poisons.to_string()));
    f.insert("order_seed".into(), json!(failure.order_seed));
    f.insert("seen".into(), explanation.map_or(Value::Null, seen));
    f.insert("diagnosis".into(), explanation.map_or(Value::Null, diagnosis));
    if !failure.found.is_empty() {
        f.insert("findings".into(), failure.found.iter().map(finding).collect());
    }
    f.insert("saved".into(), json!(saved.path));
    f.insert("replay".into(), json!(saved.replay));
    f
}

/// What the checker found.
fn finding(found: &Found) -> Value {
    let f = &found.finding;
    let place = |p: &Place, thread: u32| json!({"launch": p.launch, "block": p.block, "thread": thread, "thread_idx": p.thread});
    let line = |l: &Line| {
        let known = l.line > 0;
        json!({
            "file": known.then(|| l.file.display().to_string()),
            "line": known.then_some(l.line),
            "function": l.function,
        })
    };
    let site = |s: &Site| {
        let mut own = line(&s.line);
        own["callers"] = s.callers.iter().map(line).collect();
        own
    };
    let access = |a: &Access| json!({"write": a.write, "atomic": a.atomic, "bytes": a.bytes});
    let standing = f
        .standing
        .iter()
        .map(|s| json!({"threads": s.threads, "what": s.what, "at": s.site.as_ref().map(site)}));
    json!({
        "class": f.kind.class().name(),
        "kind": f.kind.name(),
        "severity": f.severity.name(),
        "words": found.words,
        "target": (!found.target.is_empty()).then_some(&found.target),
        "at": site(&f.site),
        "place": f.place.as_ref().map(|p| place(p, f.thread)),
        "wave": f.place.map(|_| f.wave),
        "lane": f.place.map(|_| f.lane),
        "access": f.access.as_ref().map(access),
        "other": f.other.as_ref().map(|o| json!({
            "place": place(&o.place, o.thread), "at": site(&o.site), "access": access(&o.access),
        })),
        "standing": standing.collect::<Vec<_>>(),
        "detail": f.detail,
        "count": f.count,
    })
}

fn measures(f: &mut Map<String, Value>, c: &Comparison) {
    put_number(f, "ratio", c.ratio);
    put_number(f, "max_abs", c.max_abs);
    put_number(f, "mae", c.mae);
    let at = json!({
        "output": c.output.name(), "batch": c.at.batch, "head": c.at.head, "token": c.at.token,
        "d": c.at.d,
    });
    f.insert("where".into(), at);
    f.insert("wrong_elements".into(), json!(c.wrong));
}

/// A case, field by field.
pub fn case_fields(c: &Case) -> Value {
    json!({
        "stage": c.stage.name(), "hidden": c.hidden, "eps": c.eps,
        "rope": c.rope.map(|rope| rope.to_string()),
        "scores": c.scores.to_string(), "probs": c.probs.to_string(),
        "batch": c.batch(), "num_heads": c.num_heads, "num_kv_heads": c.num_kv_heads,
        "head_dim": c.head_dim, "head_dim_v": c.head_dim_v, "seq_lens": c.seq_lens,
        "capacity": c.capacity, "window_len": c.window_len, "softcap": c.softcap,
        "sinks": c.sinks, "scale": c.scale, "dtype": c.dtypes.to_string(),
        "k": c.k.to_string(), "v": c.v.to_string(), "q": c.q.to_string(),
        "out": c.out.to_string(), "layers": c.layers, "layer": c.layer, "params": c.params,
        "wave": c.wave, "data": c.regime.to_string(), "seed": c.seed, "order_seed": c.order_seed,
    })
}
