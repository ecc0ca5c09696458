//! Diagnoses as a table, in words, and as JSON.

use super::json::put_number;
use super::table::{align_numbers, ratio, table};
use crate::judge::diagnose::catalogue::{Param, Params};
use crate::judge::diagnose::profile::Profile;
use crate::judge::diagnose::{Diagnosis, Named, Verdict, catalogue};
use serde_json::{Map, Value, json};
use std::fmt::Write;

/// Version of the document.
pub const DIAGNOSE_FORMAT: &str = "attnbench-diagnose/1";

/// A file and what was found of it.
pub struct Judged {
    /// The path, as it was given.
    pub file: String,
    /// The diagnosis.
    pub diagnosis: Diagnosis,
    /// What was captured, where the file could be judged.
    pub captured: Option<Captured>,
}

/// What a slice is of, and what figures show of it.
pub struct Captured {
    /// The prompt.
    pub prompt_id: String,
    /// The layer.
    pub layer: usize,
    /// Keys of the longest sequence.
    pub seq_len: usize,
    /// Query heads, KV heads.
    pub heads: (usize, usize),
    /// Elements of a head vector.
    pub head_dim: usize,
    /// Batch and query head of what the profile tried.
    pub units: Vec<(usize, usize)>,
    /// How far every hypothesis is.
    pub profile: Profile,
}

/// A captured slice as figures want it.
fn captured(c: &Captured) -> Map<String, Value> {
    let mut o = Map::new();
    o.insert(
        "shape".into(),
        json!({
            "prompt_id": c.prompt_id, "layer": c.layer, "seq_len": c.seq_len,
            "num_heads": c.heads.0, "num_kv_heads": c.heads.1, "head_dim": c.head_dim,
        }),
    );
    let p = &c.profile;
    let hypotheses = p.hypotheses.iter().map(|h| {
        let mut o = Map::new();
        o.insert("fault".into(), json!(h.fault));
        o.insert("params".into(), params(&h.params));
        put_number(&mut o, "mae", h.fit.mae);
        put_number(&mut o, "ratio", h.fit.ratio);
        // What is not finite is null here.
        o.insert("heads".into(), json!(h.heads));
        Value::Object(o)
    });
    o.insert("hypotheses".into(), hypotheses.collect());
    if let Some(probe) = p.probe {
        o.insert("probe".into(), json!({"mae_row": probe.row, "mae_col": probe.col}));
    }
    let units = c.units.iter().map(|(batch, head)| json!({"batch": batch, "head": head}));
    o.insert("units".into(), units.collect());
    let windows = p.windows.iter();
    o.insert(
        "windows".into(),
        windows
            .map(|w| json!({"window_len": w.window_len, "mae": w.mae, "missing": w.missing}))
            .collect(),
    );
    let first = p
        .first_wrong
        .iter()
        .map(|f| json!({"key": f.key, "max_abs": f.max_abs, "bound": f.bound, "ratio": f.ratio}));
    o.insert("first_wrong".into(), first.collect());
    o
}

fn params(params: &Params) -> Value {
    let value = |p: &Param| match p {
        Param::Int(x) => json!(x),
        Param::Text(x) => json!(x),
    };
    params.iter().map(|(key, p)| ((*key).to_owned(), value(p))).collect::<Map<_, _>>().into()
}

fn named(named: &Named) -> Value {
    let mut object = Map::new();
    object.insert("fault".into(), json!(named.fault));
    object.insert("params".into(), params(&named.params));
    put_number(&mut object, "mae", named.fit.mae);
    put_number(&mut object, "ratio", named.fit.ratio);
    object.into()
}

/// One diagnosis, without a file: as a failure of a sweep carries it.
pub fn object(d: &Diagnosis) -> Map<String, Value> {
    let mut o = Map::new();
    o.insert("verdict".into(), json!(d.verdict.name()));
    o.insert("fault".into(), json!(d.fault));
    o.insert("params".into(), params(&d.params));
    o.insert("stage".into(), json!(d.stage));
    put_number(&mut o, "mae", d.fit.mae);
    put_number(&mut o, "ratio", d.fit.ratio);
    o.insert("candidates".into(), d.candidates.iter().map(named).collect());
    let equivalent = d.equivalent.iter();
    o.insert(
        "equivalent".into(),
        equivalent.map(|e| json!({"fault": e.fault, "params": params(&e.params)})).collect(),
    );
    o.insert("more".into(), json!(d.more));
    let heads = d.heads.iter().map(|h| {
        let mut head = Map::new();
        head.insert("batch".into(), json!(h.batch));
        head.insert("head".into(), json!(h.head));
        head.insert("verdict".into(), json!(h.verdict.name()));
        head.insert("fault".into(), json!(h.fault));
        put_number(&mut head, "ratio", h.ratio);
        Value::Object(head)
    });
    o.insert("heads".into(), heads.collect());
    o.insert("tried".into(), json!(d.total()));
    let search = d
        .tried
        .iter()
        .map(|(id, t)| (id.clone(), json!({"tried": t.tried, "out_of_range": t.out_of_range})));
    o.insert("search".into(), search.collect::<Map<_, _>>().into());
    o.insert("advice".into(), json!(d.advice()));
    o.insert("note".into(), json!(d.note));
    if let Some(case) = &d.told_by {
        o.insert("told_by".into(), json!(case));
    }
    o
}

/// The document of `diagnose`.
pub fn document(command: &str, judged: &[Judged]) -> Value {
    let slices = judged.iter().map(|j| {
        let mut slice = object(&j.diagnosis);
        slice.insert("file".into(), json!(j.file));
        if let Some(c) = &j.captured {
            slice.append(&mut captured(c));
        }
        Value::Object(slice)
    });
    json!({
        "format": DIAGNOSE_FORMAT,
        "version": env!("CARGO_PKG_VERSION"),
        "command": command,
        "slices": slices.collect::<Vec<_>>(),
    })
}

/// The verdict with what it names: `explained: layer_slice {read: 0}`.
pub fn headline(d: &Diagnosis) -> String {
    match &d.fault {
        Some(fault) => {
            let named = Named { fault: fault.clone(), params: d.params.clone(), fit: d.fit };
            format!("{}: {named}", d.verdict.name())
        }
        None => d.verdict.name().to_owned(),
    }
}

/// One line a file.
pub fn summary(judged: &[Judged]) -> String {
    let mut t = table(&["slice", "verdict", "fault", "stage", "heads wrong", "err/bound", "tried"]);
    for Judged { file, diagnosis: d, .. } in judged {
        let name = std::path::Path::new(file).file_stem().map(|s| s.to_string_lossy().into_owned());
        let fault = d.fault.as_ref().map_or("-".to_owned(), |fault| {
            Named { fault: fault.clone(), params: d.params.clone(), fit: d.fit }.to_string()
        });
        let judged = d.verdict != Verdict::Invalid;
        t.add_row([
            name.unwrap_or_else(|| file.clone()),
            d.verdict.name().to_owned(),
            fault,
            d.stage.unwrap_or("-").to_owned(),
            if judged { format!("{} of {}", d.wrong().count(), d.heads.len()) } else { "-".into() },
            ratio(d.fit.ratio, judged),
            d.total().to_string(),
        ]);
    }
    align_numbers(&mut t, 4);
    t.to_string()
}

/// One diagnosis in full.
pub fn describe(judged: &Judged) -> String {
    let d = &judged.diagnosis;
    let mut text = format!("{}\n", judged.file);
    for sentence in d.note.split(". ").filter(|s| !s.is_empty()) {
        let _ = writeln!(text, "  {sentence}");
    }
    for advice in d.advice() {
        let _ = writeln!(text, "  look at {advice}");
    }
    if !d.candidates.is_empty() && d.verdict != Verdict::Explained {
        let mut t = table(&["closest hypotheses", "err/bound", "mean error", "meaning"]);
        for c in &d.candidates {
            let ids = c.fault.split('+').filter_map(catalogue::find);
            let meaning: Vec<&str> = ids.map(|f| f.meaning).collect();
            t.add_row([
                c.to_string(),
                ratio(c.fit.ratio, true),
                format!("{:.3e}", c.fit.mae),
                meaning.join("; and "),
            ]);
        }
        let _ = writeln!(text, "{t}");
    }
    let out_of_range: usize = d.tried.values().map(|t| t.out_of_range).sum();
    if d.total() > 0 {
        let _ = writeln!(
            text,
            "  {} predictions tried, {out_of_range} of them rejected as they read outside a buffer",
            d.total()
        );
    }
    text
}
