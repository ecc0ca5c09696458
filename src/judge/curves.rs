//! How far a kernel is from the right answer, by what a case asks of it: what figures are drawn from.

use super::trial::Passed;
use crate::problem::{Case, Regime};
use std::collections::BTreeMap;

/// Decades below 1 that ratios are counted in, and bins of one.
const DECADES: usize = 6;
const BINS: usize = 20;

/// What passed, by its largest error over its bound.
#[derive(Debug, Clone, PartialEq)]
pub struct Ratios {
    /// Cases whose ratio is in bin i: from 10^(i / 20 - 6), up to the next one. The last ends at 1.
    pub counts: Vec<usize>,
    /// Cases below all bins.
    pub below: usize,
}

impl Default for Ratios {
    fn default() -> Self {
        Ratios { counts: vec![0; DECADES * BINS], below: 0 }
    }
}

impl Ratios {
    /// Bins of a factor of 10.
    pub const BINS_A_DECADE: usize = BINS;
    /// The logarithm, base 10, at which the first bin begins.
    pub const FROM: i32 = -(DECADES as i32);

    fn add(&mut self, ratio: f64) {
        let place = (libm::log10(ratio) + DECADES as f64) * BINS as f64;
        if place >= 0.0 {
            let last = self.counts.len() - 1;
            self.counts[(place as usize).min(last)] += 1;
        } else {
            self.below += 1;
        }
    }
}

/// Along what errors are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Along {
    /// The length of the longest sequence.
    SeqLen,
    /// The window's, of cases that have one.
    WindowLen,
}

impl Along {
    /// Its name in a document.
    pub fn name(self) -> &'static str {
        match self {
            Along::SeqLen => "seq_len",
            Along::WindowLen => "window_len",
        }
    }
}

/// The errors of a bin of cases.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Errors {
    /// Cases.
    pub cases: usize,
    /// The largest absolute error of the main output.
    pub max_abs: f64,
    /// The bound of that element.
    pub bound: f64,
    /// The largest error over its bound, of all outputs.
    pub ratio: f64,
}

/// What passed cases came to.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Curves {
    /// Of all.
    pub ratios: Ratios,
    /// Of those with normal data (absolute errors of others say how large their values are): by axis,
    /// types (`f16`), and the power of two that a bin begins with, 0 for none.
    pub errors: BTreeMap<(Along, String, usize), Errors>,
}

impl Curves {
    /// Counts a case.
    pub fn add(&mut self, case: &Case, passed: &Passed) {
        // A case that was tried on a law alone has no error.
        let Some(largest) = passed.largest else { return };
        self.ratios.add(passed.ratio);
        if case.regime != Regime::Gaussian {
            return;
        }
        let window = (case.window_len > 0).then_some((Along::WindowLen, case.window_len));
        let length = case.stage.has_keys().then_some((Along::SeqLen, case.seq_len()));
        for (along, x) in length.into_iter().chain(window) {
            let from = if x == 0 { 0 } else { 1 << x.ilog2() };
            let bin = self.errors.entry((along, case.dtypes.to_string(), from)).or_default();
            bin.cases += 1;
            bin.ratio = bin.ratio.max(passed.ratio);
            if largest.error >= bin.max_abs {
                (bin.max_abs, bin.bound) = (largest.error, largest.bound);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::compare::Largest;

    fn passed(ratio: f64, error: f64, bound: f64) -> Passed {
        Passed { ratio, largest: Some(Largest { error, bound }), ..Passed::default() }
    }

    #[test]
    fn a_ratio_is_in_the_bin_that_begins_below_it() {
        let mut ratios = Ratios::default();
        for x in [0.0, 1e-9, 1.001e-6, 0.1001, 0.999, 1.0] {
            ratios.add(x);
        }
        assert_eq!(ratios.below, 2);
        let filled = ratios.counts.iter().enumerate().filter(|(_, n)| **n > 0);
        assert_eq!(filled.map(|(i, n)| (i, *n)).collect::<Vec<_>>(), [(0, 1), (100, 1), (119, 2)]);
    }

    #[test]
    fn the_largest_error_keeps_its_own_bound_and_normal_data_alone_have_errors() {
        let mut curves = Curves::default();
        let case: Case = "b=2,hq=1,hkv=1,d=4,n=[70,9],w=5,dt=f16,data=gauss".parse().unwrap();
        curves.add(&case, &passed(0.5, 1e-3, 2e-3));
        curves.add(&case, &passed(0.75, 3e-4, 4e-4));
        // A larger error of a smaller bound.
        curves.add(&case, &passed(0.9375, 1.5e-3, 1.6e-3));
        let large: Case = "b=1,hq=1,hkv=1,d=4,n=70,dt=f16,data=large:1e3".parse().unwrap();
        curves.add(&large, &passed(0.9, 30.0, 40.0));
        curves.add(&case, &Passed::default());
        let want = Errors { cases: 3, max_abs: 1.5e-3, bound: 1.6e-3, ratio: 0.9375 };
        let key = |along, from| (along, "f16".to_owned(), from);
        let errors = [(key(Along::SeqLen, 64), want), (key(Along::WindowLen, 4), want)];
        assert_eq!(curves.errors, errors.into());
        assert_eq!(curves.ratios.counts.iter().sum::<usize>(), 4);
    }
}
