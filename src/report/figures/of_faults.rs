//! Figures of planted faults: which data show them.

use super::heat::{Cell, Heat};
use super::{Drawn, Figure, counted, list, text};
use serde_json::Value;
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// Rows and columns at most, so that the cells can be read.
const FAULTS: usize = 60;
const REGIMES: usize = 24;

/// Faults that not all data show, by the regimes of data that do.
pub(super) fn figures(documents: &[&Value]) -> Vec<Figure> {
    documents.iter().filter_map(|d| matrix(d)).collect()
}

/// A fault, and of each regime alone the case that caught it first, or none.
struct Tried<'v> {
    name: &'v str,
    kernel: &'v str,
    first: BTreeMap<&'v str, Option<u64>>,
}

impl<'v> Tried<'v> {
    fn of(fault: &'v Value) -> Option<Tried<'v>> {
        let alone = fault["alone"].as_object()?;
        let first = alone.iter().map(|(regime, case)| (regime.as_str(), case.as_u64())).collect();
        Some(Tried { name: text(fault, "fault"), kernel: text(fault, "kernel"), first })
    }

    fn caught(&self) -> usize {
        self.first.values().flatten().count()
    }

    fn missed(&self) -> usize {
        self.first.len() - self.caught()
    }

    /// The darker the sooner it is caught; `most` are the cases that are tried.
    fn cell(&self, regime: &str, most: f64) -> Cell {
        match self.first.get(regime) {
            None => Cell::Of(0.0, "–".into()),
            Some(None) => Cell::Empty,
            Some(Some(case)) => Cell::Of(libm::log2(most / *case as f64), case.to_string()),
        }
    }
}

fn matrix(document: &Value) -> Option<Figure> {
    let all: Vec<Tried> = list(document, "faults").iter().filter_map(Tried::of).collect();
    let mut hard: Vec<&Tried> = all.iter().filter(|f| f.missed() > 0).collect();
    hard.sort_by_key(|f| (Reverse(f.missed()), f.kernel, f.name));
    if hard.is_empty() {
        return None;
    }
    // Those first that catch most of these.
    let mut caught: BTreeMap<&str, usize> = BTreeMap::new();
    for (regime, case) in hard.iter().flat_map(|f| &f.first) {
        *caught.entry(regime).or_default() += usize::from(case.is_some());
    }
    let mut regimes: Vec<(&str, usize)> = caught.into_iter().collect();
    regimes.sort_by_key(|(_, caught)| Reverse(*caught));
    regimes.truncate(REGIMES);
    let most = document["cases_alone"].as_f64().filter(|n| *n > 1.0)?;
    let row = |f: &&Tried| {
        let cells = regimes.iter().map(|(regime, _)| f.cell(regime, most)).collect();
        (f.name.to_owned(), cells)
    };
    let one = match hard.iter().filter(|f| f.caught() == 1).count() {
        0 => String::new(),
        n => format!(", {n} on all but one"),
    };
    let in_a_sweep = list(document, "faults").iter().filter(|f| f["cases"].is_u64()).count();
    let heat = Heat {
        title: format!(
            "{} of {} planted show on data of any regime; {} stay hidden on some{one}",
            all.len() - hard.len(),
            counted(all.len(), "fault"),
            hard.len(),
        ),
        caption: format!(
            "The case that catches a fault where all data are of one regime, of {most} cases; empty: none does; –: the \
             kernel has no such data. Faults that each regime catches are left out. A sweep draws among all regimes: \
             {} cases of it catch {in_a_sweep} of the {}. From `attnbench sweep --regime`, by `{}`.",
            document["cases"],
            all.len(),
            text(document, "command")
        ),
        axes: ("fault".into(), "regime of data".into()),
        columns: regimes.iter().map(|(regime, _)| (*regime).to_owned()).collect(),
        rows: hard.iter().take(FAULTS).map(row).collect(),
        range: (0.0, libm::log2(most)),
        key: String::new(),
        good: String::new(),
        gaps: Vec::new(),
    };
    Some(Figure::new("faults-by-regime", Drawn::Heat(heat)))
}
