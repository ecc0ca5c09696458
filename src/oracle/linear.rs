//! What follows attention: the projection that combines the heads, and residual with RMS-norm.
//!
//! ```text
//! head_combine   o_j = sum_i x_i w_ji                     i over num_heads * head_dim
//!                do_j <= (g(n) + u) sum_i |x_i w_ji| + u_out |o_j| + underflow
//! norm           r_i = residual_i + x_i                   stored in the residual's type
//!                o_i = r_i w_i / sqrt(mean_i r_i^2 + eps)
//! ```
//!
//! RMS-norm: Zhang and Sennrich, arXiv:1910.07467, equation 4. A kernel may normalise r before it
//! is rounded to the residual's type or after: `dr_i <= (u + u_r) |r_i|`. The mean of squares then
//! errs by `e = g(hidden) + 2u + 2 (u + u_r)` in relative terms, with the division and eps, and through
//! root and reciprocal by `(1 - e)^(-1/2) - 1`, which is `e / 2` to first order; themselves they err by
//! 4u, two products by 2u:
//! `do_i <= |o_i| ((u + u_r) + (1 - e)^(-1/2) - 1 + u_r + 6u + u_out)`, the last `u_r` for kernels that
//! round the normalised vector to the residual's type before they weigh it. From `e = 1` on, a sum of
//! many squares in a narrow type, nothing is known of the mean, and there is no bound.
//!
//! Underflow, `eta` for an operation. Of the mean of squares: each square and the division, so
//! `2 eta / (mean + eps)` more in `e`. Of r: the sum, its store,
//! and whichever of the two that are added is subnormal where those count as zero; all of it is
//! normalised and weighed. Of the products and of the store: once each, the first one weighed, and the
//! whole of `o_i` where the weight itself is subnormal and counts as zero.

use super::bound::{Arithmetic, growth, narrower, repeats};
use crate::problem::DType;

/// `sum_i x_i w_i` and its bound. `terms` is work space.
pub fn project(x: &[f32], w: &[f32], a: &Arithmetic, terms: &mut Vec<f64>) -> (f64, f64) {
    terms.clear();
    terms.extend(x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w)));
    let sum: f64 = terms.iter().sum();
    let size: f64 = terms.iter().map(|t| t.abs()).sum();
    let u = a.accumulate.unit_roundoff();
    let n = terms.len();
    let bound = (growth(n, u, repeats(terms)) + u) * size
        + narrower(a.out, a.accumulate) * sum.abs()
        + a.underflow() * (n as f64 + 2.0)
        + a.flushed(x, w)
        + a.out.min_subnormal() / 2.0;
    (sum, bound)
}

/// A row of the residual stream, `[hidden]`: the sum and its normalised, weighted vector.
#[derive(Debug, Clone, Default)]
pub struct NormAnswer {
    /// `r`.
    pub residual: Vec<f64>,
    /// Its bound.
    pub residual_bound: Vec<f64>,
    /// `o`.
    pub out: Vec<f64>,
    /// Its bound.
    pub out_bound: Vec<f64>,
}

/// Residual add and RMS-norm of one row; the residual is stored as `stored`.
pub fn norm(
    residual: &[f32],
    x: &[f32],
    weight: &[f32],
    eps: f64,
    a: &Arithmetic,
    stored: DType,
) -> NormAnswer {
    let u = a.accumulate.unit_roundoff();
    let dr = u + narrower(stored, a.accumulate);
    let r: Vec<f64> = residual.iter().zip(x).map(|(r, x)| f64::from(*r) + f64::from(*x)).collect();
    let squares: Vec<f64> = r.iter().map(|r| r * r).collect();
    let mean = squares.iter().sum::<f64>() / r.len() as f64;
    let inverse = 1.0 / (mean + eps).sqrt();
    let g = growth(r.len(), u, repeats(&squares));
    // The normalised vector may be rounded to the residual's type before it is weighted.
    let again = narrower(stored, a.accumulate);
    let e = g + 2.0 * u + 2.0 * dr + 2.0 * a.underflow() / (mean + eps);
    let through_root = if e < 1.0 { 1.0 / (1.0 - e).sqrt() - 1.0 } else { f64::MAX };
    let relative = dr + through_root + again + 6.0 * u + narrower(a.out, a.accumulate);
    // What underflows: a product (times what it is multiplied by), r as stored, o as stored.
    let store = stored.min_subnormal() / 2.0;
    let lost = |x: &f32| a.flushed_factor(f64::from(*x));
    let r_below: Vec<f64> =
        residual.iter().zip(x).map(|(r, x)| lost(r) + lost(x) + a.underflow() + store).collect();
    let out: Vec<f64> = r.iter().zip(weight).map(|(r, w)| r * inverse * f64::from(*w)).collect();
    let out_bound = out.iter().zip(weight).zip(&r_below).map(|((o, w), r_below)| {
        let size = f64::from(*w).abs();
        let weightless = if lost(w) > 0.0 { o.abs() } else { 0.0 };
        relative * o.abs()
            + (r_below * inverse + a.underflow() + store) * size
            + weightless
            + a.underflow()
            + a.out.min_subnormal() / 2.0
    });
    NormAnswer {
        out_bound: out_bound.collect(),
        residual_bound: r.iter().zip(&r_below).map(|(r, below)| dr * r.abs() + below).collect(),
        residual: r,
        out,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_projection_by_hand() {
        let a = Arithmetic::single(DType::F32);
        let (sum, bound) = project(&[1.0, 2.0, -3.0], &[4.0, 0.5, 1.0], &a, &mut Vec::new());
        let u = DType::F32.unit_roundoff();
        assert_eq!(sum, 2.0);
        // g(3) = 3u, and u for the products, of 4 + 1 + 3.
        assert!((bound / (4.0 * u * 8.0) - 1.0).abs() < 1e-9, "{bound:e}");
    }

    #[test]
    fn a_norm_by_hand() {
        // r = (3, 4, 0, 0): the mean of squares is 25/4, with eps 13/2.
        let a = Arithmetic::single(DType::F32);
        let x = [2.0f32, 5.0, 0.0, 1.0];
        let n = norm(&[1.0, -1.0, 0.0, -1.0], &x, &[1.0, 2.0, 3.0, 4.0], 0.25, &a, DType::F32);
        assert_eq!(n.residual, [3.0, 4.0, 0.0, 0.0]);
        let inverse = 1.0 / 6.5f64.sqrt();
        for (got, want) in n.out.iter().zip([3.0 * inverse, 8.0 * inverse, 0.0, 0.0]) {
            assert!((got - want).abs() < 1e-15);
        }
        assert!(n.out_bound[0] > 0.0 && n.out_bound[0] < 2e-5 * n.out[0], "{:?}", n.out_bound);
        // Stored in f16, the residual may be rounded before it is normalised.
        let half = norm(&[1.0], &[2.0], &[1.0], 0.25, &a, DType::F16);
        assert!(half.residual_bound[0] > DType::F16.unit_roundoff() * 3.0);
    }
}
