//! The JSON document of judged traces. Its keys are contracts: add, never change.

use super::Report;
use crate::data::trace::Skipped;
use crate::judge::trace::{Numbers, Pair, Row};
use serde_json::{Map, Value, json};

/// Version of the trace document.
pub const TRACE_FORMAT: &str = "attnbench-trace/1";

impl Report {
    /// The document.
    pub fn json(&self) -> Value {
        let total = |f: fn(&Skipped) -> u64| self.skipped.iter().map(f).sum::<u64>();
        let mut document = json!({
            "format": TRACE_FORMAT,
            "version": env!("CARGO_PKG_VERSION"),
            "rows": self.rows.iter().map(|r| self.json_row(r)).collect::<Vec<_>>(),
            "skipped": total(Skipped::total),
            "skipped_why": {
                "unknown_event": total(|s| s.unknown),
                "broken_line": total(|s| s.broken),
                "long_line": total(|s| s.long),
            },
        });
        if self.files.len() > 1 {
            document["compared"] = self.pairs.iter().map(|p| self.json_pair(p)).collect();
        }
        document
    }

    fn json_row(&self, row: &Row) -> Value {
        let h = &row.head;
        let mut r = json!({
            "event": row.event, "prompt_id": h.prompt_id, "layer": h.layer, "head": h.head,
            "seq_len": h.seq_len, "window_len": h.window_len, "v_layout_best": null,
            "pv_scope": null, "pv_mae": row.pv_mae(), "attn_out_mae": row.out_mae(),
            "window_mass": row.window_mass(), "verdict": row.verdict.name(), "fault": row.fault,
            "note": row.notes.join("; "), "ratio": row.ratio, "file": self.files[row.file], "line": row.line,
            "phase": h.phase, "pos_id": h.pos_id,
        });
        let mut more = |key: &str, value: Value| r[key] = value;
        match &row.numbers {
            Numbers::VAcc { probe, scope: s, pv_mae_recomputed, .. } => {
                more("v_layout_best", json!(probe.best));
                more("v_mae_row", json!(probe.mae_row));
                more("v_mae_col", json!(probe.mae_col));
                more("pv_scope", json!(s.name()));
                more("pv_mae_recomputed", json!(pv_mae_recomputed));
            }
            Numbers::Softmax { qk_mae, softmax_mae, .. } => {
                more("qk_mae", json!(qk_mae));
                more("softmax_mae", json!(softmax_mae));
            }
            Numbers::TopOne(id) => more("top1_id", json!(id)),
            Numbers::VAddr(_) | Numbers::None => {}
        }
        r
    }

    fn json_pair(&self, pair: &Pair) -> Value {
        let (a, b) = (&self.rows[pair.a], &self.rows[pair.b]);
        let mut p = Map::new();
        let file = |row: usize| json!(self.files[self.rows[row].file]);
        p.insert("files".into(), json!([self.files[a.file], self.files[b.file]]));
        p.insert("rows".into(), json!([pair.a, pair.b]));
        p.insert("prompt_id".into(), json!(a.head.prompt_id));
        p.insert("layer".into(), json!(a.head.layer));
        p.insert("head".into(), json!(a.head.head));
        p.insert("p_equal".into(), json!(pair.p_equal));
        p.insert("v_equal".into(), json!(pair.v_equal));
        p.insert("pv_equal".into(), json!(pair.pv_equal));
        p.insert("ratio".into(), json!(pair.ratio));
        p.insert("one_kernel_is_wrong".into(), json!(pair.proves_wrong()));
        p.insert("wrong_file".into(), pair.wrong.map_or(Value::Null, file));
        p.insert("cleared_file".into(), pair.cleared.map_or(Value::Null, file));
        Value::Object(p)
    }
}
