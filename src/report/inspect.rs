//! The result of `inspect`: the table, the comparison, the document.

use super::table::{align_numbers, table};
use crate::inspect::Row;
use crate::inspect::compare::{Change, Comparison};
use serde_json::{Value, json};
use std::fmt::Write;

/// Version of the document.
pub const FORMAT: &str = "attnbench-inspect/1";

/// A kernel that has no row on a target, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    /// The kernel.
    pub kernel: String,
    /// The target; `None` where it is none of a target's.
    pub target: Option<String>,
    /// What the message said.
    pub error: String,
}

/// One line a kernel, instance and target.
pub fn summary(rows: &[Row]) -> String {
    let mut t = table(&[
        "kernel",
        "entry",
        "target",
        "VGPR",
        "AGPR",
        "SGPR",
        "spills",
        "scratch",
        "LDS",
        "waves",
        "limit",
        "loads 16/8/4/<4",
        "stores 16/8/4/<4",
        "matrix",
        "barriers",
        "waits",
        "bytes",
    ]);
    let number = |n: Option<u32>| n.map_or("-".to_owned(), |n| n.to_string());
    for r in rows {
        let widths = |of: fn(&crate::inspect::asm::Counts) -> crate::inspect::asm::Widths| {
            r.counts.as_ref().map(of).map_or("-".to_owned(), |w| {
                format!("{}/{}/{}/{}", w.b16, w.b12 + w.b8, w.b4, w.less)
            })
        };
        let spills = match (r.vgpr_spills, r.sgpr_spills) {
            (Some(v), s) => format!("{}", v + s.unwrap_or(0)),
            _ => "-".to_owned(),
        };
        let lds = match r.lds_dynamic_bytes {
            Some(dynamic) if dynamic > 0 => format!("{} + {dynamic}", r.lds_static_bytes),
            _ => r.lds_static_bytes.to_string(),
        };
        let waves = r.occupancy.as_ref();
        t.add_row([
            r.kernel.clone(),
            entry(r),
            if r.wave == 64 && r.target.starts_with("gfx1") {
                format!("{} wave 64", r.target)
            } else {
                r.target.clone()
            },
            r.vgprs.to_string(),
            number(r.agprs),
            number(r.sgprs),
            spills,
            format!("{}{}", r.scratch_bytes, if r.dynamic_stack { "+" } else { "" }),
            lds,
            waves.map_or("-".to_owned(), |o| format!("{}/{}", short(o.waves), o.most)),
            waves.map_or("-".to_owned(), |o| o.limit.clone()),
            widths(|c| c.loads),
            widths(|c| c.stores),
            number(r.counts.map(|c| c.matrix)),
            number(r.counts.map(|c| c.barriers)),
            number(r.counts.map(|c| c.waits)),
            r.code_bytes.map_or("-".to_owned(), |n| n.to_string()),
        ]);
    }
    align_numbers(&mut t, 3);
    t.to_string()
}

/// An entry with the definitions that make it another instance.
fn entry(row: &Row) -> String {
    let defines = row.defines.iter().map(|d| format!(" {d}"));
    format!("{}{}", row.entry, defines.collect::<Vec<_>>().concat())
}

fn short(x: f64) -> String {
    if x.fract() == 0.0 { format!("{x:.0}") } else { format!("{x:.1}") }
}

/// What the table does not say by itself, one line each.
pub fn remarks(rows: &[Row]) -> String {
    let mut text = String::new();
    for r in rows {
        let place = format!("{} {} on {}", r.kernel, entry(r), r.target);
        if let Some(fault) = &r.fault {
            let _ = writeln!(text, "{place}: cannot be launched: {fault}");
        }
        if r.spills() {
            let _ = writeln!(
                text,
                "{place}: {} VGPRs and {} SGPRs do not fit and were spilled; fewer live values, or \
                 __launch_bounds__ of smaller blocks, leave room",
                r.vgpr_spills.unwrap_or(0),
                r.sgpr_spills.unwrap_or(0)
            );
        }
        let nvidia = r.target.starts_with("sm_");
        if r.uses_scratch() && nvidia {
            let _ = writeln!(
                text,
                "{place}: {} bytes of local memory a thread: registers that were spilled, or an \
                 array indexed by what is known at run time only",
                r.scratch_bytes
            );
        } else if r.uses_scratch() && !r.spills() {
            let _ = writeln!(
                text,
                "{place}: {} bytes of scratch a thread and no spill: an array of a thread's own is \
                 indexed by what is known at run time only (unroll the loop), or a function was not \
                 inlined",
                r.scratch_bytes
            );
        }
        if let Some(calls) = r.counts.map(|c| c.calls).filter(|n| *n > 0) {
            let _ = writeln!(
                text,
                "{place}: {calls} calls of functions that were not inlined, which are not counted"
            );
        }
    }
    text
}

/// A comparison in words, worse first.
pub fn comparison(c: &Comparison) -> String {
    let mut text = String::new();
    for (change, word) in
        [(Change::Worse, "worse"), (Change::Better, "better"), (Change::Other, "other")]
    {
        for d in c.differences.iter().filter(|d| d.change == change) {
            let (old, new) = (short(d.old), short(d.new));
            let _ = writeln!(text, "{word:6} {}: {} {old} -> {new}", d.place, d.what);
        }
    }
    for (word, list) in [("new", &c.added), ("gone", &c.gone)] {
        for place in list {
            let _ = writeln!(text, "{word:6} {place}");
        }
    }
    let count = |change| c.differences.iter().filter(|d| d.change == change).count();
    let _ = writeln!(
        text,
        "compared: {} figures worse, {} better, {} other, {} rows the same, {} new, {} gone",
        count(Change::Worse),
        count(Change::Better),
        count(Change::Other),
        c.same,
        c.added.len(),
        c.gone.len()
    );
    text
}

/// The document.
pub fn document(compiler: Option<&str>, rows: &[Row], failed: &[Failed]) -> Value {
    let failed: Vec<Value> = failed
        .iter()
        .map(|f| json!({"kernel": f.kernel, "target": f.target, "error": f.error}))
        .collect();
    json!({
        "format": FORMAT,
        "version": env!("CARGO_PKG_VERSION"),
        "compiler": compiler,
        "kernels": rows,
        "failed": failed,
    })
}

/// The rows of a document.
///
/// # Errors
/// Why it is none, in words.
pub fn read(text: &str) -> Result<Vec<Row>, String> {
    let document: Value = serde_json::from_str(text).map_err(|e| format!("it is no JSON: {e}"))?;
    match document.get("format").and_then(Value::as_str) {
        Some(FORMAT) => {}
        Some(other) => {
            return Err(format!("its format is \"{other}\"; write it with inspect --json"));
        }
        None => return Err("it has no `format`; write it with inspect --json".to_owned()),
    }
    let rows = document.get("kernels").cloned().unwrap_or_default();
    serde_json::from_value(rows).map_err(|e| format!("its `kernels` are broken: {e}"))
}
