//! Why cases fail, and when: from what failing cases show to what is said of them.
//!
//! | subject | file |
//! | --- | --- |
//! | which failing cases are asked | `sample` |
//! | what a run shows by itself | `seen` |
//! | which fault explains all of them | `consensus` |
//! | what can be said of a case | `facts` |
//! | which facts decide | `trigger`, `telling` |
//!
//! A false name costs its reader a day, so a fault is named only where it explains every failing
//! case that it can be tried on, and a statement that needs no hypothesis comes before one that
//! does. The trigger is true whatever the cause is.

pub mod consensus;
pub mod facts;
pub mod sample;
pub mod seen;
pub mod telling;
pub mod trigger;

use crate::data::image::Poisons;
use crate::device::interrupt;
use crate::judge::compare::Wrong;
use crate::judge::diagnose::Diagnosis;
use crate::judge::diagnose::promise::Promise;
use crate::judge::trial::{Buffers, Trial};
use crate::problem::Pointer;
use consensus::Asked;
use sample::Failing;
use seen::Seen;

/// Failing cases that are asked at most. A fault must explain at least 16 of them, where so many fail.
pub const MOST_ASKED: usize = 24;

/// What is said of a group of cases that fail alike.
#[derive(Debug, Clone)]
pub enum Explanation {
    /// The failure says of itself all that can be said: a crash, a hang, a finding, a law.
    Itself,
    /// What the runs show by themselves; no fault was looked for beside it.
    Seen {
        /// What they show.
        seen: Seen,
        /// Failing cases that were asked, all of which show it.
        cases: usize,
    },
    /// A fault explains every case that was asked.
    Fault {
        /// The fault, with its equivalents.
        diagnosis: Box<Diagnosis>,
        /// How many cases were asked.
        asked: Asked,
        /// A promise of `[numerics]` that would make every case right.
        promise: Option<Promise>,
        /// What the runs show besides.
        seen: Option<Seen>,
    },
    /// No fault explains all cases.
    Unexplained {
        /// What comes closest on one of them.
        diagnosis: Box<Diagnosis>,
        /// How many cases were asked, and which fault fits the most of them.
        asked: Asked,
        /// A promise of `[numerics]` that would make every case right.
        promise: Option<Promise>,
        /// What the runs show besides.
        seen: Option<Seen>,
    },
}

impl Explanation {
    /// What the runs show by themselves.
    pub fn seen(&self) -> Option<&Seen> {
        match self {
            Explanation::Itself => None,
            Explanation::Seen { seen, .. } => Some(seen),
            Explanation::Fault { seen, .. } | Explanation::Unexplained { seen, .. } => {
                seen.as_ref()
            }
        }
    }

    /// The promise of `[numerics]` that the manifest does not make, and with which every case that was
    /// asked would be right.
    pub fn promise(&self) -> Option<&Promise> {
        match self {
            Explanation::Itself | Explanation::Seen { .. } => None,
            Explanation::Fault { promise, .. } | Explanation::Unexplained { promise, .. } => {
                promise.as_ref()
            }
        }
    }

    /// The diagnosis, where faults were looked for.
    pub fn diagnosis(&self) -> Option<(&Diagnosis, &Asked)> {
        match self {
            Explanation::Itself | Explanation::Seen { .. } => None,
            Explanation::Fault { diagnosis, asked, .. }
            | Explanation::Unexplained { diagnosis, asked, .. } => Some((diagnosis, asked)),
        }
    }
}

/// One failing case with the buffers that it is judged by.
pub struct Evidence<'a> {
    /// The case and how it fails.
    pub failing: Failing<'a>,
    /// Its buffers under [`Poisons::APART`], which are finite, where they tell more than the failing run's.
    pub again: Option<Buffers>,
    /// What it shows by itself, what says the most first.
    pub seen: Vec<Seen>,
}

/// Says why cases fail. `first` is the case that is told, the others failed in the same way.
pub fn explain(trial: &mut Trial, first: Failing<'_>, others: &[Failing<'_>]) -> Explanation {
    let property = first.1.property;
    if !property.starts_with("oracle") && !matches!(property, "stray-write" | "repeat") {
        return Explanation::Itself;
    }
    let others: Vec<Failing<'_>> =
        others.iter().copied().filter(|(case, _)| *case != first.0).collect();
    let mut asked = vec![first];
    asked.extend(sample::choose(&others, MOST_ASKED - 1));
    let evidence: Vec<Evidence<'_>> =
        asked.into_iter().map(|failing| gather(trial, failing)).collect();
    let shown = |e: &Evidence<'_>, kind: &str, enough: bool| {
        e.seen.iter().any(|seen| seen.kind() == kind && (!enough || seen.is_enough()))
    };
    let by_all =
        |seen: &&Seen, enough: bool| evidence.iter().all(|e| shown(e, seen.kind(), enough));
    let told = &evidence[0].seen;
    if let Some(seen) = told.iter().find(|seen| by_all(seen, true)) {
        return Explanation::Seen { seen: seen.clone(), cases: evidence.len() };
    }
    let seen = told.iter().find(|seen| by_all(seen, false)).cloned();
    let found = consensus::search(trial, &evidence, seen);
    // A search that an interrupt cut short has tried too little to say anything.
    if interrupt::is_requested() { Explanation::Itself } else { found }
}

/// What a case shows, with another run where the failing one alone does not tell.
fn gather<'a>(trial: &mut Trial, failing: Failing<'a>) -> Evidence<'a> {
    let (case, failure) = failing;
    let way = failure.comparison.as_ref().and_then(|c| c.way());
    // Whatever reads a NaN explains a NaN: a run whose poison is finite tells more.
    let blind = way != Some(Wrong::Apart) && failure.property.starts_with("oracle");
    let again = (blind || seen::needs_again(case, failure))
        .then(|| trial.buffers_under(case, Poisons::APART).ok().flatten())
        .flatten();
    let seen = seen::look(case, failure, again.as_ref());
    Evidence { failing, again: again.filter(|_| blind), seen }
}

/// The output that a failing case is told by.
pub fn told_output(failing: Failing<'_>) -> Option<Pointer> {
    failing.1.comparison.as_ref().map(|c| c.output)
}
