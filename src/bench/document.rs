//! The bench document, `attnbench-bench/1`: what one run measured, and what others did that write the same.

use super::stats::{Change, Times};
use crate::device::Telemetry;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// Version of the document.
pub const FORMAT: &str = "attnbench-bench/1";

/// A run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Document {
    /// [`FORMAT`].
    pub format: String,
    /// What measured.
    pub program: String,
    /// Its version.
    pub version: String,
    /// The command line.
    pub command: String,
    /// Seed of the data.
    pub seed: u64,
    /// What was measured on.
    pub device: Device,
    /// How.
    pub method: Method,
    /// How fast the device reads, by a kernel that does nothing else.
    pub ceiling: Option<Ceiling>,
    /// One a kernel, shape and layout.
    pub rows: Vec<Row>,
    /// What others measured, where asked for: their rows.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<Row>,
    /// This run's rows beside the best of the others'.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub versus: Vec<Versus>,
    /// This run's rows beside an earlier run's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<Changed>,
}

/// What was measured on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Device {
    /// Its name: of a GPU the vendor's.
    pub name: String,
    /// `cpu`, `cuda` or `hip`.
    pub api: String,
    /// What it is compiled for.
    pub arch: String,
    /// The driver, with its version.
    pub driver: String,
    /// The compiler of kernels.
    pub compiler: String,
    /// Multiprocessors, or compute units.
    pub multiprocessors: u32,
    /// The last-level cache, bytes.
    pub l2_bytes: u64,
    /// Memory, bytes.
    pub memory: u64,
}

/// How it was measured.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Method {
    /// `device`, or `host` where the device has no clock: then no figure is a GPU's.
    pub clock: String,
    /// Rounds, each on buffers allocated anew.
    pub rounds: u32,
    /// Timed replays a round, where a kernel is not too slow for as many.
    pub replays: u32,
    /// Replays before those.
    pub warm: u32,
}

/// How fast the device reads.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Ceiling {
    /// GB/s (10^9): the best that reading alone reached in this run.
    pub gbs: f64,
    /// Bytes of the cache on which it was.
    pub bytes: u64,
    /// The same at the end of the run, on the same bytes as at its begin.
    pub gbs_at_end: Option<f64>,
    /// And at its begin.
    pub gbs_at_begin: Option<f64>,
}

/// A kernel on a shape.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Row {
    /// The kernel.
    pub kernel: String,
    /// Hash of all that its binary depends on.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub hash: String,
    /// The shape.
    pub shape: String,
    /// The whole problem, as an id.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub case: String,
    /// Sequences.
    pub batch: usize,
    /// Query heads.
    pub num_heads: usize,
    /// KV heads.
    pub num_kv_heads: usize,
    /// Elements of a head vector.
    pub head_dim: usize,
    /// Keys of the longest sequence.
    pub seq_len: usize,
    /// Keys that are attended; 0 means all.
    pub window_len: usize,
    /// Element types.
    pub dtype: String,
    /// How K and V lie.
    pub layout: String,
    /// The tunables.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub params: BTreeMap<String, i64>,
    /// Whether the kernel's own rule chose them.
    pub by_rule: bool,
    /// `right`; `wrong` and not timed; `refused` and not timed; `impossible`: faster than memory.
    pub verdict: String,
    /// Why it is not right.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The largest error over its bound, and the heads that were looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio: Option<f64>,
    /// Whether `ratio` is not finite: JSON has no such number, and `ratio` is null there.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub nonfinite: bool,
    /// See `ratio`.
    pub heads_checked: usize,
    /// Relative error of the output, where that was measured instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rel_l2_error: Option<f64>,
    /// Bytes of K and V that are attended, each once.
    pub kv_bytes: u64,
    /// Sets of buffers.
    pub sets: usize,
    /// Calls of a replay.
    pub calls: u32,
    /// Whether a graph was replayed.
    pub graph: bool,
    /// Microseconds a call.
    pub us: Option<Times>,
    /// GB/s (10^9).
    pub gbs: Option<f64>,
    /// Share of the ceiling.
    pub share: Option<f64>,
    /// Microseconds in which the same bytes were read alone, taking turns with the kernel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_us: Option<f64>,
    /// `read_us` over `us`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub of_read: Option<f64>,
    /// Tokens a second, were the model this one attention.
    pub tokens_per_s: Option<f64>,
    /// The device under this load.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub telemetry: Option<Telemetry>,
}

impl Row {
    /// What is compared with one another: the same kernel on the same problem.
    pub fn key(&self) -> [&str; 4] {
        [&self.kernel, &self.shape, &self.layout, &self.dtype]
    }
}

/// A row beside the best of others.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Versus {
    /// The kernel.
    pub kernel: String,
    /// The shape.
    pub shape: String,
    /// How K and V lie.
    pub layout: String,
    /// Microseconds.
    pub us: f64,
    /// The best of the others.
    pub peer: String,
    /// Its microseconds.
    pub peer_us: f64,
    /// `peer_us` over `us`: above 1 this kernel is faster.
    pub ratio: f64,
}

/// A row beside an earlier one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Changed {
    /// The kernel.
    pub kernel: String,
    /// The shape.
    pub shape: String,
    /// How K and V lie.
    pub layout: String,
    /// Microseconds then.
    pub old_us: f64,
    /// Microseconds now.
    pub us: f64,
    /// `us` over `old_us`.
    pub ratio: f64,
    /// Where that may lie.
    pub low: f64,
    /// See `low`.
    pub high: f64,
    /// What that says.
    pub change: Change,
}

/// Why a document cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {why}")]
pub struct DocumentError {
    /// The file.
    pub file: String,
    /// What is wrong with it, and what to name instead.
    pub why: String,
}

impl Document {
    /// Reads a document.
    ///
    /// # Errors
    /// [`DocumentError`]: it cannot be read, or is none.
    pub fn read(file: &Path) -> Result<Document, DocumentError> {
        let fail = |why: String| DocumentError { file: file.display().to_string(), why };
        let text =
            std::fs::read_to_string(file).map_err(|e| fail(format!("cannot be read: {e}")))?;
        let mut document: Document = serde_json::from_str(&text).map_err(|e| {
            fail(format!("is no {FORMAT} document: {e}; name what bench --json wrote"))
        })?;
        if document.format != FORMAT {
            let has = if document.format.is_empty() { "none" } else { &document.format };
            return Err(fail(format!("its format is {has}; name a file of {FORMAT}")));
        }
        // Others write rows of what they found right alone, and no word of it.
        for row in document.rows.iter_mut().filter(|row| row.verdict.is_empty() && row.us.is_some())
        {
            row.verdict = "right".to_owned();
        }
        let is_time = |us: &f64| us.is_finite() && *us > 0.0;
        let plain = |us: &Times| [us.median, us.p5, us.p95].iter().chain(&us.rounds).all(is_time);
        let wrong = |row: &&Row| row.us.as_ref().is_some_and(|us| !plain(us));
        match document.rows.iter().chain(&document.peers).find(wrong) {
            Some(row) => Err(fail(format!(
                "a time of {} on {} is no positive number of microseconds",
                row.kernel, row.shape
            ))),
            None => Ok(document),
        }
    }
}
