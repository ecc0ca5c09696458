//! The words of the contract for what was found of an output, a slice or an event of a trace.

/// What a judge comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Within the error bound of the right answer; in a trace, within what printing and right
    /// arithmetic allow.
    Clean,
    /// What lies beside it covers a part of the keys only, or cannot judge it.
    Reference,
    /// One finding fits.
    Explained,
    /// Ids of equal rank fit, or chance might fit one so well. No event of a trace is.
    Ambiguous,
    /// Wrong, and nothing fits.
    Unexplained,
    /// It does not hold what is needed to judge it.
    Invalid,
}

impl Verdict {
    /// The word in documents.
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Clean => "clean",
            Verdict::Reference => "reference",
            Verdict::Explained => "explained",
            Verdict::Ambiguous => "ambiguous",
            Verdict::Unexplained => "unexplained",
            Verdict::Invalid => "invalid",
        }
    }

    /// Whether it says that something is wrong with a kernel.
    pub fn is_fault(self) -> bool {
        matches!(self, Verdict::Explained | Verdict::Ambiguous | Verdict::Unexplained)
    }
}
