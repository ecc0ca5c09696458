//! Verdicts on the events of GRETA traces, from the traces alone.
//!
//! No kernel runs and no number is taken on trust: P·V is summed again in f64 from the weights and
//! the rows of V that a trace shows, and every limit is derived from what is known of the numbers.
//! They were printed with six significant digits (`digits`), and come from f32 arithmetic
//! ([`crate::oracle`]). What no trace shows, it cannot judge, and the verdict is
//! [`Verdict::Reference`].
//!
//! | event | file |
//! | --- | --- |
//! | `attn_vacc_trace`: P·V and the output | `vacc`, on the sums of `window` and their `residual` |
//! | `attn_softmax_trace`: scores and weights | `softmax` |
//! | `v_addr_trace`: where a row was appended | `addr` |
//! | prefill and decode rows | `top_one` |
//! | the same event in two files | `pairs` |

mod addr;
mod digits;
mod pairs;
mod residual;
mod softmax;
mod top_one;
mod vacc;
mod window;

#[cfg(test)]
mod tests;

pub use super::verdict::Verdict;
pub use pairs::{Pair, compare, note_pairs};
pub use vacc::Evidence;

use crate::data::trace::{Entry, Event, Head, Scope, VAddr, VProbe};
use addr::judge_addr;
use softmax::judge_softmax;
use top_one::note_top_ones;
use vacc::judge_vacc;

/// A verdict with its reasons.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Judged {
    /// The verdict.
    pub verdict: Verdict,
    /// The fault's id from the catalogue, where it is explained.
    pub fault: Option<&'static str>,
    /// The largest error over the limit that decided.
    pub ratio: Option<f64>,
    /// Why, in sentences without line breaks.
    pub notes: Vec<String>,
}

impl Judged {
    pub(crate) fn new(verdict: Verdict, note: impl Into<String>) -> Judged {
        Judged { verdict, fault: None, ratio: None, notes: vec![note.into()] }
    }

    pub(crate) fn with_ratio(self, ratio: f64) -> Judged {
        Judged { ratio: ratio.is_finite().then_some(ratio), ..self }
    }
}

/// One known event of a trace, judged.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Index of its file among those given.
    pub file: usize,
    /// Its line there, from 1.
    pub line: u64,
    /// The event's name.
    pub event: String,
    /// What identifies it.
    pub head: Head,
    /// The verdict.
    pub verdict: Verdict,
    /// The fault's id from the catalogue.
    pub fault: Option<&'static str>,
    /// Why, each a line of text.
    pub notes: Vec<String>,
    /// The largest error over the limit that decided; at most 1 is a fit.
    pub ratio: Option<f64>,
    /// Its numbers.
    pub numbers: Numbers,
}

/// The numbers of an event that tables show.
#[derive(Debug, Clone, PartialEq)]
pub enum Numbers {
    /// `attn_vacc_trace`.
    VAcc {
        /// What the layout probe said.
        probe: VProbe,
        /// Which keys the reference summed.
        scope: Scope,
        /// Mean error of P·V as the trace has it; computed from its samples where it contradicts
        /// them or is absent.
        pv_mae: Option<f64>,
        /// Mean error of P·V against the sum made here.
        pv_mae_recomputed: Option<f64>,
        /// Mean error of the output, as `pv_mae`.
        out_mae: Option<f64>,
        /// Share of the softmax mass in the window.
        window_mass: f64,
        /// What two files are compared by.
        evidence: Evidence,
    },
    /// `attn_softmax_trace`.
    Softmax {
        /// Mean error of the scores.
        qk_mae: f64,
        /// Mean error of the weights.
        softmax_mae: f64,
        /// Share of the softmax mass in the window.
        window_mass: f64,
    },
    /// `v_addr_trace`.
    VAddr(VAddr),
    /// A prefill or decode row.
    TopOne(i64),
    /// None: the event is malformed.
    None,
}

impl Row {
    /// Share of the softmax mass that lies in the window that the event shows.
    pub fn window_mass(&self) -> Option<f64> {
        match &self.numbers {
            Numbers::VAcc { window_mass, .. } | Numbers::Softmax { window_mass, .. } => {
                Some(*window_mass)
            }
            _ => None,
        }
    }

    /// Mean error of P·V, where the event has one.
    pub fn pv_mae(&self) -> Option<f64> {
        match self.numbers {
            Numbers::VAcc { pv_mae, .. } => pv_mae,
            _ => None,
        }
    }

    /// Mean error of the head's output, where the event has one.
    pub fn out_mae(&self) -> Option<f64> {
        match self.numbers {
            Numbers::VAcc { out_mae, .. } => out_mae,
            _ => None,
        }
    }

    fn set(&mut self, judged: Judged) {
        self.verdict = judged.verdict;
        self.fault = judged.fault;
        self.ratio = judged.ratio;
        self.notes = judged.notes;
    }
}

/// Judges the events of one file in turn.
#[derive(Debug, Default)]
pub struct Judge {
    file: usize,
    rows: Vec<Row>,
    /// Lengths of head vectors that its events name: they say how wide a cached element is.
    head_dims: Vec<u64>,
}

impl Judge {
    /// A judge of the file with this index.
    pub fn new(file: usize) -> Judge {
        Judge { file, ..Judge::default() }
    }

    /// Judges one event.
    pub fn add(&mut self, entry: Entry) {
        let (head, numbers, judged) = match entry.holds {
            Err((head, error)) => {
                (head, Numbers::None, Judged::new(Verdict::Invalid, error.to_string()))
            }
            Ok(Event::VAcc(e)) => {
                self.head_dims.extend(e.head_dim);
                let (numbers, judged) = judge_vacc(&e);
                (e.head, numbers, judged)
            }
            Ok(Event::Softmax(e)) => {
                self.head_dims.push(e.head_dim);
                let (numbers, judged) = judge_softmax(&e);
                (e.head, numbers, judged)
            }
            // These two are judged by what else is in the file, in `finish`.
            Ok(Event::VAddr(e)) => {
                let head = e.head.clone();
                (head, Numbers::VAddr(e), Judged::new(Verdict::Reference, ""))
            }
            Ok(Event::TopOne(e)) => {
                (e.head, Numbers::TopOne(e.id), Judged::new(Verdict::Reference, ""))
            }
        };
        self.head_dims.sort_unstable();
        self.head_dims.dedup();
        let mut row = Row {
            file: self.file,
            line: entry.line,
            event: entry.event,
            head,
            verdict: judged.verdict,
            fault: None,
            notes: Vec::new(),
            ratio: None,
            numbers,
        };
        row.set(judged);
        self.rows.push(row);
    }

    /// The rows in file order, once every event is there.
    pub fn finish(mut self) -> Vec<Row> {
        let head_dim = match self.head_dims[..] {
            [only] => Some(only),
            _ => None,
        };
        for row in &mut self.rows {
            if let Numbers::VAddr(e) = &row.numbers {
                let judged = judge_addr(e, head_dim);
                row.set(judged);
            }
        }
        note_top_ones(&mut self.rows);
        self.rows
    }
}
