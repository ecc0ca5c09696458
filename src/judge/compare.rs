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
    let take = |c: &mut Comparison, r: f64, quantity, at, got, want, bound| {
        // NaN (a bound that is not a number) is as bad as infinity.
        let r = if r.is_nan() { f64::INFINITY } else { r };
        c.wrong += usize::from(r > 1.0);
        // why: a fault that spoils both outputs is one fault, told by the one that users read.
        let outranked = quantity == Quantity::Lse && c.out_ratio > 1.0;
        if r > c.ratio && !outranked {
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
            let r = take(&mut c, r, Quantity::Out, at, got, want, bound);
            c.out_ratio = c.out_ratio.max(r);
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
            let r = take(&mut c, r, Quantity::Lse, at, got, want, bound);
            c.lse_ratio = c.lse_ratio.max(r);
        }
    }
    c
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::image::Poisons;
    use crate::data::regimes::generate;
    use crate::oracle::Arithmetic;

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

    /// A case with its image, and an output that is right everywhere.
    fn right(id: &str) -> (Case, Image, Vec<u8>, Expected) {
        let case: Case = id.parse().unwrap();
        let places = case.placements().unwrap();
        let inputs = generate(&case, &[]).unwrap();
        let image = Image::new(&case, &places, &[]).unwrap();
        let mut memory = vec![0u8; image.size()];
        image.write(&case, &places, &inputs, Poisons::RUNS[0], &mut memory);
        let expected = Expected::new(&case, &inputs, &Arithmetic::single(case.dtypes.out));
        for row in 0..case.batch() * case.num_heads {
            let (s, h) = (row / case.num_heads, row % case.num_heads);
            let out = image.element("out", places.out.index(s, 0, h, 0, 0));
            for d in 0..case.head_dim {
                let want = expected.out[row * case.head_dim + d];
                case.dtypes.out.store(&mut memory[out..], d, want);
            }
            let lse = image.element("lse", 0);
            DType::F32.store(&mut memory[lse..], row, expected.lse[row]);
        }
        (case, image, memory, expected)
    }

    /// Whichever single element is wrong, in whichever output, it is found and named.
    #[test]
    fn one_wrong_element_anywhere_is_found_and_named() {
        let id = "b=2,hq=4,hkv=2,d=5,n=[9,0],dt=f16,q=HD+pad1,out=HD+pad3.2@1";
        let (case, image, memory, expected) = right(id);
        assert!(compare(&case, &image, &memory, &expected, true).is_right());
        let places = case.placements().unwrap();
        for row in 0..8 {
            let (batch, head) = (row / 4, row % 4);
            for d in 0..5 {
                let mut wrong = memory.clone();
                let at = image.element("out", places.out.index(batch, 0, head, 0, d));
                case.dtypes.out.store(&mut wrong[at..], 0, 30.0);
                let c = compare(&case, &image, &wrong, &expected, true);
                assert_eq!(
                    (c.at, c.quantity, c.wrong),
                    (Where { batch, head, d }, Quantity::Out, 1)
                );
                assert!(c.ratio > 1.0 && c.out_ratio == c.ratio && c.lse_ratio <= 1.0);
            }
            let mut wrong = memory.clone();
            DType::F32.store(&mut wrong[image.element("lse", row)..], 0, 99.0);
            let c = compare(&case, &image, &wrong, &expected, true);
            assert_eq!(
                (c.at, c.quantity, c.wrong),
                (Where { batch, head, d: 0 }, Quantity::Lse, 1)
            );
            assert!(compare(&case, &image, &wrong, &expected, false).is_right());
            // Both wrong: told by out.
            let at = image.element("out", places.out.index(1, 0, 3, 0, 4));
            case.dtypes.out.store(&mut wrong[at..], 0, 30.0);
            let c = compare(&case, &image, &wrong, &expected, true);
            assert_eq!((c.quantity, c.wrong), (Quantity::Out, 2));
        }
    }
}
