//! Every output element against the oracle, in units of its own bound.

use crate::data::image::Image;
use crate::oracle::Expected;
use crate::problem::{Case, DType};

/// Which output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantity {
    /// The attention output.
    Out,
    /// The logarithm of the softmax denominator.
    Lse,
}

/// An element of an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Where {
    /// Sequence.
    pub batch: usize,
    /// Query head.
    pub head: usize,
    /// Element of the head vector (0 for lse).
    pub d: usize,
}

/// How an output compares with what it must be.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// The largest error over its bound, in `out` where that is wrong, otherwise in either output;
    /// infinite where something is not finite that must be, or the other way round.
    pub ratio: f64,
    /// The largest ratio of each output alone.
    pub out_ratio: f64,
    /// See `out_ratio`; 0 where the kernel writes no lse.
    pub lse_ratio: f64,
    /// Where the largest ratio is.
    pub at: Where,
    /// In which output.
    pub quantity: Quantity,
    /// What was there, and what must be.
    pub got: f64,
    /// See `got`.
    pub want: f64,
    /// The bound at that element.
    pub bound: f64,
    /// Largest absolute error over all finite elements of out.
    pub max_abs: f64,
    /// Mean absolute error over all finite elements of out.
    pub mae: f64,
    /// Elements (of both outputs) beyond their bound.
    pub wrong: usize,
}

impl Comparison {
    /// Whether every element is within its bound.
    pub fn is_right(&self) -> bool {
        self.ratio <= 1.0
    }
}

/// Error over bound of one element.
///
/// An element must be finite where the oracle's is, and not finite where it is not (NaN and
/// infinity are not told apart). Where the right value rounds beyond the type's largest number, it
/// must be the infinity of that sign.
fn ratio(got: f64, want: f64, bound: f64, dtype: DType) -> f64 {
    if !want.is_finite() {
        return if got.is_finite() { f64::INFINITY } else { 0.0 };
    }
    if got.is_finite() {
        let error = (got - want).abs();
        let overflows = dtype.round(want).is_infinite() && error > bound;
        return match error {
            _ if overflows => f64::INFINITY,
            0.0 => 0.0,
            error => error / bound,
        };
    }
    // An infinity is right only where a value within the bound rounds to it.
    let reach = want.abs() + bound;
    let allowed = dtype.round(reach).is_infinite() && got == f64::INFINITY.copysign(want);
    if allowed { 0.0 } else { f64::INFINITY }
}

/// Error over bound of an lse. An empty attended set has exactly -inf: it is what a merge of
/// splits takes as "no mass", so NaN there is a fault.
fn lse_ratio(got: f64, want: f64, bound: f64) -> f64 {
    if want == f64::NEG_INFINITY {
        return if got == want { 0.0 } else { f64::INFINITY };
    }
    ratio(got, want, bound, DType::F32)
}

/// Compares what a run left in the image. `judges_lse` says whether the kernel writes lse.
pub fn compare(
    case: &Case,
    image: &Image,
    memory: &[u8],
    expected: &Expected,
    judges_lse: bool,
) -> Comparison {
    let mut c = Comparison {
        ratio: 0.0,
        out_ratio: 0.0,
        lse_ratio: 0.0,
        at: Where { batch: 0, head: 0, d: 0 },
        quantity: Quantity::Out,
        got: 0.0,
        want: 0.0,
        bound: 0.0,
        max_abs: 0.0,
        mae: 0.0,
        wrong: 0,
    };
    let (heads, dv, dtype) = (case.num_heads, case.head_dim_v, case.dtypes.out);
    let mut first = true;
    let mut take = |c: &mut Comparison, r: f64, quantity, at, got, want, bound| {
        c.wrong += usize::from(r > 1.0 || r.is_nan());
        // NaN (a bound that is not a number) is as bad as infinity.
        let r = if r.is_nan() { f64::INFINITY } else { r };
        // why: a fault that spoils both outputs is one fault, told by the one that users read.
        let outranked = quantity == Quantity::Lse && c.out_ratio > 1.0;
        if std::mem::take(&mut first) || (r > c.ratio && !outranked) {
            (c.ratio, c.quantity, c.at) = (r, quantity, at);
            (c.got, c.want, c.bound) = (got, want, bound);
        }
        r
    };
    let mut finite = 0usize;
    for row in 0..case.batch() * heads {
        let bytes = image.out_row(memory, row);
        for d in 0..dv {
            let i = row * dv + d;
            let (got, want, bound) = (dtype.load(bytes, d), expected.out[i], expected.out_bound[i]);
            let at = Where { batch: row / heads, head: row % heads, d };
            let r = ratio(got, want, bound, dtype);
            c.out_ratio = c.out_ratio.max(take(&mut c, r, Quantity::Out, at, got, want, bound));
            if got.is_finite() && want.is_finite() {
                let error = (got - want).abs();
                finite += 1;
                c.max_abs = c.max_abs.max(error);
                c.mae += error;
            }
        }
    }
    c.mae /= finite.max(1) as f64;
    if judges_lse {
        let bytes = image.lse_bytes(memory);
        for row in 0..case.batch() * heads {
            let (got, want) = (DType::F32.load(bytes, row), expected.lse[row]);
            let bound = expected.lse_bound[row];
            let at = Where { batch: row / heads, head: row % heads, d: 0 };
            let r = lse_ratio(got, want, bound);
            c.lse_ratio = c.lse_ratio.max(take(&mut c, r, Quantity::Lse, at, got, want, bound));
        }
    }
    c
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finite_elements_are_measured_in_bounds() {
        assert_eq!(ratio(1.0, 1.0, 0.0, DType::F32), 0.0);
        assert_eq!(ratio(1.5, 1.0, 0.25, DType::F32), 2.0);
        assert_eq!(ratio(1.5, 1.0, 0.0, DType::F32), f64::INFINITY);
    }

    #[test]
    fn what_is_not_finite_must_be_so_on_both_sides() {
        for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(ratio(bad, 1.0, 0.5, DType::F32), f64::INFINITY);
            assert_eq!(ratio(1.0, bad, 0.5, DType::F32), f64::INFINITY);
            assert_eq!(ratio(f64::NAN, bad, 0.5, DType::F32), 0.0);
        }
    }

    #[test]
    fn overflow_must_be_the_infinity_of_its_sign() {
        assert_eq!(ratio(f64::INFINITY, 7e4, 1.0, DType::F16), 0.0);
        assert_eq!(ratio(f64::NEG_INFINITY, 7e4, 1.0, DType::F16), f64::INFINITY);
        assert_eq!(ratio(f64::NAN, 7e4, 1.0, DType::F16), f64::INFINITY);
        assert_eq!(ratio(65504.0, 7e4, 1.0, DType::F16), f64::INFINITY);
        // Within the bound of the edge, both are right.
        assert_eq!(ratio(f64::INFINITY, 65519.0, 32.0, DType::F16), 0.0);
        assert!(ratio(65504.0, 65521.0, 32.0, DType::F16) <= 1.0);
    }

    #[test]
    fn the_lse_of_nothing_is_minus_infinity_and_not_nan() {
        assert_eq!(lse_ratio(f64::NEG_INFINITY, f64::NEG_INFINITY, 0.0), 0.0);
        assert_eq!(lse_ratio(f64::NAN, f64::NEG_INFINITY, 0.0), f64::INFINITY);
        assert_eq!(lse_ratio(-1e30, f64::NEG_INFINITY, 0.0), f64::INFINITY);
        assert_eq!(lse_ratio(f64::NEG_INFINITY, 1.0, 1.0), f64::INFINITY);
    }
}
