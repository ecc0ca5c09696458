//! The same event in two files: what two runs prove together.
//!
//! Weights are normalised over all keys, so runs that print the same weights and the same V in the
//! window posed the same P·V to their kernels. Two right kernels then differ by rounding only. Where
//! they differ by more, one is wrong, whatever the reference beside them covers; and where one of them
//! is clean by its own trace, it is the other.

use super::{Evidence, Numbers, Row, Verdict};
use std::collections::HashMap;

/// One event that two files hold.
#[derive(Debug, Clone, PartialEq)]
pub struct Pair {
    /// Index of the earlier file's row.
    pub a: usize,
    /// Index of the later file's row.
    pub b: usize,
    /// Whether `p_window_gpu` is the same.
    pub p_equal: bool,
    /// Whether `v_window_gpu_sample` is the same.
    pub v_equal: bool,
    /// Whether `pv_gpu_sample` is the same, to what two right kernels can differ by.
    pub pv_equal: bool,
    /// Largest difference of `pv_gpu_sample`, over what two right kernels can differ by; `None`
    /// where their inputs differ, or one is not finite.
    pub ratio: Option<f64>,
    /// The row whose kernel is wrong, where a pair that proves one wrong tells which.
    pub wrong: Option<usize>,
    /// The row whose output is right although its own trace could not judge it: the other's trace
    /// judges the same output, and it is clean.
    pub cleared: Option<usize>,
}

impl Pair {
    /// Whether it proves that one of two kernels is wrong.
    pub fn proves_wrong(&self) -> bool {
        self.p_equal && self.v_equal && !self.pv_equal
    }

    fn of(rows: &[Row], a: usize, b: usize) -> Option<Pair> {
        let (x, y) = (rows[a].evidence()?, rows[b].evidence()?);
        let (p_equal, v_equal) = (x.p == y.p, x.v == y.v);
        let same = p_equal && v_equal && x.pv.len() == y.pv.len();
        let ratio = same.then(|| apart(x, y));
        let mut pair = Pair {
            a,
            b,
            p_equal,
            v_equal,
            pv_equal: ratio.map_or(x.pv == y.pv, |r| r <= 1.0),
            ratio: ratio.filter(|r| r.is_finite()),
            wrong: None,
            cleared: None,
        };
        let is = |row: usize, verdict| rows[row].verdict == verdict;
        for (row, other) in [(a, b), (b, a)] {
            if pair.proves_wrong() && is(other, Verdict::Clean) && !is(row, Verdict::Clean) {
                pair.wrong = Some(row);
            }
            let agrees = same && pair.pv_equal;
            if agrees && is(other, Verdict::Clean) && is(row, Verdict::Reference) {
                pair.cleared = Some(row);
            }
        }
        Some(pair)
    }
}

/// Largest difference over what two right kernels can differ by. NaN in one alone is a difference.
fn apart(x: &Evidence, y: &Evidence) -> f64 {
    let mut worst: f64 = 0.0;
    for d in 0..x.pv.len() {
        let (a, b) = (x.pv[d], y.pv[d]);
        let ratio = match (a.is_finite(), b.is_finite()) {
            (true, true) if a == b => 0.0,
            (true, true) => (a - b).abs() / (x.slack[d] + y.slack[d]),
            (false, false) => 0.0,
            _ => f64::INFINITY,
        };
        worst = worst.max(ratio);
    }
    worst
}

impl Row {
    fn evidence(&self) -> Option<&Evidence> {
        match &self.numbers {
            Numbers::VAcc { evidence, .. } => Some(evidence),
            _ => None,
        }
    }

    /// What two rows of one event agree in: the same token of one prompt in the same head.
    pub fn key(&self) -> impl Eq + std::hash::Hash {
        let h = &self.head;
        (self.event.as_str(), &h.prompt_id, &h.phase, (h.layer, h.head, h.pos_id, h.seq_len))
    }
}

/// Compares each P·V that two of the files hold, in the order of the rows. One that a file holds
/// several times is compared by the first.
pub fn compare(rows: &[Row]) -> Vec<Pair> {
    let mut seen: HashMap<_, Vec<usize>> = HashMap::new();
    let mut pairs = Vec::new();
    for (b, row) in rows.iter().enumerate().filter(|(_, row)| row.evidence().is_some()) {
        let before = seen.entry(row.key()).or_default();
        if before.iter().all(|a| rows[*a].file != row.file) {
            pairs.extend(before.iter().filter_map(|a| Pair::of(rows, *a, b)));
            before.push(b);
        }
    }
    pairs.sort_by_key(|pair| (pair.a, pair.b));
    pairs
}

/// Writes into the rows what their pairs say; `names` are those of the files.
pub fn note_pairs(rows: &mut [Row], pairs: &[Pair], names: &[String]) {
    for pair in pairs {
        for (row, other) in [(pair.a, pair.b), (pair.b, pair.a)] {
            let name = names.get(rows[other].file).map_or("", String::as_str);
            let note = if pair.proves_wrong() {
                let which = match pair.wrong {
                    Some(wrong) if wrong == row => "this one, as that is clean",
                    Some(_) => "not this one, which is clean",
                    None => "which of the two, the traces do not tell",
                };
                format!(
                    "{name} has the same weights and V, and another P·V: one of the two kernels is wrong ({which})"
                )
            } else if pair.cleared == Some(row) {
                format!("{name} has the same P·V, and there it is clean: the output is right")
            } else {
                continue;
            };
            rows[row].notes.push(note);
        }
    }
}
