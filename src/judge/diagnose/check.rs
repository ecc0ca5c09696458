//! Whether what is named of one case explains another.
//!
//! A name holds for a kernel only if it explains every case in which the kernel fails. A parameter
//! that is the kernel's own (a tile, a constant stride) must be the same in all of them; one that
//! follows the case (a window that it asks for, a layer) is found anew in each.

use super::Named;
use super::catalogue::{FAULTS, Param, Params};
use super::search::{Finding, Searched};

/// What another case says of a named fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checked {
    /// It explains what is wrong there, and nothing right would look the same.
    Fits,
    /// What is wrong there is something else: the fault predicts another output, or makes no
    /// difference in that case.
    Refuted,
    /// The case says nothing of it: it would look the same with too many faults, or the faulty kernel would
    /// read what was not kept.
    CannotTell,
}

/// A fault, or two, to be tried on other cases.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// Indices in [`FAULTS`], ascending.
    pub faults: Vec<usize>,
    /// The parameters that it was found with.
    pub params: Params,
}

impl Candidate {
    /// What is named; `None` where that is no fault of the catalogue.
    pub fn named(named: &Named) -> Option<Candidate> {
        let index = |id: &str| FAULTS.iter().position(|f| f.id == id);
        let faults = named.fault.split('+').map(index).collect::<Option<Vec<_>>>()?;
        Some(Candidate { faults, params: named.params.clone() })
    }

    /// What was found.
    pub fn found(finding: &Finding) -> Candidate {
        Candidate { faults: finding.faults.clone(), params: finding.params.clone() }
    }

    /// What fits a case, the preferred first; those that differ only in what follows the case once.
    pub fn all(searched: &Searched) -> Vec<Candidate> {
        let mut all: Vec<Candidate> = Vec::new();
        for candidate in searched.fits.iter().map(Candidate::found) {
            let same = |c: &Candidate| c.faults == candidate.faults && c.own() == candidate.own();
            if !all.iter().any(same) {
                all.push(candidate);
            }
        }
        all
    }

    /// The ids, `a+b` for a pair.
    pub fn id(&self) -> String {
        let ids: Vec<&str> = self.faults.iter().map(|i| FAULTS[*i].id).collect();
        ids.join("+")
    }

    /// The parameters that are the kernel's own.
    pub fn own(&self) -> Params {
        self.faults.iter().fold(self.params.clone(), |params, f| FAULTS[*f].own(&params))
    }

    /// Whether it is the current row that the capture no longer has, which is no member of a family.
    pub(super) fn is_former_row(&self) -> bool {
        self.params.get("variant") == Some(&Param::Text("former".into()))
    }
}
