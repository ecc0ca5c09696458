//! Rotary position embedding of an appended key: the right row, and its bound.
//!
//! Pair i of a row at position `pos` is rotated by `t = pos * base^(-2i / head_dim)` (RoFormer,
//! arXiv:2104.09864, equations 15 and 34):
//!
//! ```text
//! a' = a cos t - b sin t        b' = a sin t + b cos t
//! ```
//!
//! Error bound. The exponent rounds once, which multiplies the power by `1 + u |e ln base|`, a power
//! computed through a logarithm and an exponential by twice that again; the function itself errs by
//! `2 trig_ulp u`, and the product with pos rounds: `dt <= t u (3 |e ln base| + 2 trig_ulp + 2)`. The
//! rotation turns an angle's error into `|b'| dt` of a' and `|a'| dt` of b' to first order, at most
//! `2 hypot(a, b)` in all; sine and cosine err by `2 trig_ulp u`, and three operations round.

use super::bound::{Arithmetic, narrower};
use crate::problem::{DType, Rope};

/// Rotates a row in f64. `bounds` gets the error bound of each element, stored as `stored`.
pub fn rotate(
    rope: &Rope,
    pos: usize,
    row: &[f32],
    a: &Arithmetic,
    stored: DType,
    right: &mut Vec<f64>,
    bounds: &mut Vec<f64>,
) {
    let (dim, first) = (row.len(), right.len());
    let u = a.accumulate.unit_roundoff();
    let u_store = narrower(stored, a.accumulate);
    let log_base = libm::log(f64::from(rope.base));
    right.resize(first + dim, 0.0);
    bounds.resize(first + dim, 0.0);
    for i in 0..dim / 2 {
        let exponent = -2.0 * i as f64 / dim as f64;
        let t = pos as f64 * libm::exp(exponent * log_base);
        let (sin, cos) = (libm::sin(t), libm::cos(t));
        let (ia, ib) = rope.pair(i, dim);
        let (x, y) = (f64::from(row[ia]), f64::from(row[ib]));
        let rotated = [x * cos - y * sin, x * sin + y * cos];
        let dt = t * u * (3.0 * (exponent * log_base).abs() + 2.0 * a.trig_ulp + 2.0);
        let rounding = (2.0 * a.trig_ulp + 3.0) * u * (x.abs() + y.abs());
        for (at, value, other) in [(ia, rotated[0], rotated[1]), (ib, rotated[1], rotated[0])] {
            // Beyond the first order the chord cannot be longer than the circle is wide.
            let turned = (dt * (other.abs() + dt * value.abs())).min(2.0 * libm::hypot(x, y));
            right[first + at] = value;
            bounds[first + at] = turned
                + rounding
                + u_store * value.abs()
                + 3.0 * a.underflow()
                + stored.min_subnormal() / 2.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rotated(style: &str, pos: usize, row: &[f32]) -> (Vec<f64>, Vec<f64>) {
        let (mut right, mut bounds) = (Vec::new(), Vec::new());
        let a = Arithmetic::single(DType::F32);
        rotate(&style.parse().unwrap(), pos, row, &a, DType::F32, &mut right, &mut bounds);
        (right, bounds)
    }

    #[test]
    fn two_pairs_by_hand() {
        // head_dim 4: frequencies 1 and 1/100.
        let (out, bounds) = rotated("interleaved:10000", 3, &[1.0, 2.0, 3.0, 4.0]);
        let (c, s) = (3f64.cos(), 3f64.sin());
        let (c2, s2) = (0.03f64.cos(), 0.03f64.sin());
        let want = [c - 2.0 * s, s + 2.0 * c, 3.0 * c2 - 4.0 * s2, 3.0 * s2 + 4.0 * c2];
        for (out, want) in out.iter().zip(want) {
            assert!((out - want).abs() < 1e-15, "{out} {want}");
        }
        assert!(bounds.iter().all(|b| *b > 0.0 && *b < 1e-5), "{bounds:?}");
        // The same pairs, i with i + 2.
        let (half, _) = rotated("half:10000", 3, &[1.0, 3.0, 2.0, 4.0]);
        assert_eq!([half[0], half[2], half[1], half[3]], out[..]);
    }

    #[test]
    fn position_zero_turns_nothing() {
        let (out, _) = rotated("half:500000", 0, &[0.5, -1.5, 2.25, 7.0]);
        assert_eq!(out, [0.5, -1.5, 2.25, 7.0]);
    }

    /// An f32 rotation as an engine writes it stays inside, at positions up to 100,000.
    #[test]
    fn an_honest_f32_rotation_is_inside() {
        let row: Vec<f32> = (0..64).map(|i| libm::sin(f64::from(i) * 0.7) as f32).collect();
        for pos in [1, 2, 7, 100, 1000, 32_768, 100_000] {
            let (right, bounds) = rotated("half:10000", pos, &row);
            let mut largest = 0.0f64;
            for i in 0..32 {
                let frequency = 10000f32.powf(-2.0 * i as f32 / 64.0);
                let t = pos as f32 * frequency;
                let (a, b) = (row[i], row[i + 32]);
                for (at, got) in
                    [(i, a * t.cos() - b * t.sin()), (i + 32, a * t.sin() + b * t.cos())]
                {
                    largest = largest.max((f64::from(got) - right[at]).abs() / bounds[at]);
                }
            }
            assert!(largest > 0.001 && largest < 1.0, "pos {pos}: {largest}");
        }
    }
}
