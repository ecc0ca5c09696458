//! What went up or down against an earlier result.

use super::row::Row;

/// Which way a figure went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// More waves, fewer spills, fewer bytes of scratch or LDS.
    Better,
    /// The reverse.
    Worse,
    /// Of which neither can be said: registers that leave the waves as they are, instructions.
    Other,
}

/// One figure that differs.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// The kernel, its entry, and the target, as one text.
    pub place: String,
    /// Which figure.
    pub what: &'static str,
    /// It was.
    pub old: f64,
    /// It is.
    pub new: f64,
    /// Better or worse.
    pub change: Change,
}

/// A comparison.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Comparison {
    /// Figures that differ.
    pub differences: Vec<Difference>,
    /// Rows that are equal in all figures.
    pub same: usize,
    /// Rows that only the new result has.
    pub added: Vec<String>,
    /// Rows that only the old result has, of targets that the new one has too.
    pub gone: Vec<String>,
}

impl Comparison {
    /// Whether any figure is worse.
    pub fn is_worse(&self) -> bool {
        self.differences.iter().any(|d| d.change == Change::Worse)
    }
}

/// How a row is called: kernel, entry, definitions, target, wave.
pub fn place(row: &Row) -> String {
    let defines = row.defines.iter().map(|d| format!(" -D{d}")).collect::<Vec<_>>().concat();
    let of = if row.entry == row.kernel { String::new() } else { format!(" {}", row.entry) };
    format!("{}{of}{defines} {} wave {}", row.kernel, row.target, row.wave)
}

/// Compares two results, row by row.
pub fn compare(old: &[Row], new: &[Row]) -> Comparison {
    let mut comparison = Comparison::default();
    for row in new {
        let name = place(row);
        let Some(before) = old.iter().find(|o| place(o) == name) else {
            comparison.added.push(name);
            continue;
        };
        let before_count = comparison.differences.len();
        for (what, less_is_better, figure) in FIGURES {
            let (Some(was), Some(is)) = (figure(before), figure(row)) else { continue };
            if was == is {
                continue;
            }
            let change = match less_is_better {
                None => Change::Other,
                Some(less) if (is < was) == less => Change::Better,
                Some(_) => Change::Worse,
            };
            let place = name.clone();
            comparison.differences.push(Difference { place, what, old: was, new: is, change });
        }
        comparison.same += usize::from(comparison.differences.len() == before_count);
    }
    let targets: Vec<&str> = new.iter().map(|r| r.target.as_str()).collect();
    let is_gone = |o: &&Row| {
        targets.contains(&o.target.as_str()) && !new.iter().any(|n| place(n) == place(o))
    };
    comparison.gone = old.iter().filter(is_gone).map(place).collect();
    comparison
}

type Figure = (&'static str, Option<bool>, fn(&Row) -> Option<f64>);

/// Figures, whether less of them is better (`None`: it is only another), and how they are got.
/// Registers that matter show in the occupancy.
const FIGURES: [Figure; 11] = [
    ("occupancy", Some(false), |r| r.occupancy.as_ref().map(|o| o.waves)),
    ("vgpr spills", Some(true), |r| r.vgpr_spills.map(f64::from)),
    ("sgpr spills", Some(true), |r| r.sgpr_spills.map(f64::from)),
    ("scratch bytes", Some(true), |r| Some(f64::from(r.scratch_bytes))),
    ("vgprs", None, |r| Some(f64::from(r.vgprs))),
    ("sgprs", None, |r| r.sgprs.map(f64::from)),
    ("static lds bytes", Some(true), |r| Some(f64::from(r.lds_static_bytes))),
    ("16-byte loads", None, |r| r.counts.map(|c| f64::from(c.loads.b16))),
    ("global loads", None, |r| r.counts.map(|c| f64::from(c.loads.sum()))),
    ("barriers", None, |r| r.counts.map(|c| f64::from(c.barriers))),
    ("instructions", None, |r| r.counts.map(|c| f64::from(c.instructions))),
];

#[cfg(test)]
#[path = "compare_tests.rs"]
mod tests;
