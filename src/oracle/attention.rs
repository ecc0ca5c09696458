//! The scalar oracle: the definition of right.
//!
//! Plain f64 loops, no blocking, no online tricks. Inputs are read as stored, that is already
//! rounded to their type. What is computed, for the attended keys `n` of one head:
//!
//! ```text
//! s_n = scale * sum_d q_d k_nd            (then softcap * tanh(s_n / softcap), where set)
//! m   = max_n s_n                         (and the sink's logit, where set)
//! p_n = exp(s_n - m) / l,   l = sum_j exp(s_j - m) [+ exp(sink - m)]
//! o_d = sum_n p_n v_nd
//! lse = m + log(l)                        (base e)
//! ```
//!
//! `exp`, `log` and `tanh` are the `libm` crate's, so that every machine has the same answer.

/// What a head's scores come from, for its attended keys.
#[derive(Debug, Clone, Copy)]
pub enum Scores<'a, T> {
    /// Queries and keys.
    Dot {
        /// `[head_dim]`.
        q: &'a [T],
        /// `[keys, head_dim]`, the attended rows only.
        k: &'a [T],
        /// Factor on Q·K.
        scale: f64,
        /// 0 means none.
        softcap: f64,
    },
    /// Scores as an earlier kernel stored them, `[keys]`.
    Given(&'a [T]),
}

/// One query head over its attended keys.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a, T> {
    /// Where the scores come from.
    pub scores: Scores<'a, T>,
    /// `[keys, head_dim_v]`, the attended rows only.
    pub v: &'a [T],
    /// Elements of a `v` row; says what `v` means where there is no key.
    pub head_dim_v: usize,
    /// The sink's logit.
    pub sink: Option<f64>,
}

/// The right answer for one head, with what the error bound needs beside it.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    /// `o`, `[head_dim_v]`; 0 where no key is attended.
    pub out: Vec<f64>,
    /// Base e; -inf where no key is attended and there is no sink.
    pub lse: f64,
    /// `s`, after the softcap, `[keys]`.
    pub scores: Vec<f64>,
    /// `p`, `[keys]`.
    pub probs: Vec<f64>,
    /// `|scale| * sum_d |q_d k_nd|`, `[keys]`: the scale of Q·K's rounding errors; 0 for scores
    /// that are given.
    pub abs_scores: Vec<f64>,
    /// The largest score, or the sink's logit.
    pub max: f64,
    /// `l`, the sum of exponentials relative to `max`.
    pub denominator: f64,
}

/// Computes the right answer for one head into `answer`, whose memory is used again.
pub fn attend<T: Copy + Into<f64>>(head: &Head<'_, T>, answer: &mut Answer) {
    scores(&head.scores, answer);
    softmax(head.sink, answer);
    mix(head.v, head.head_dim_v, answer);
}

/// The scores of the attended keys.
pub fn scores<T: Copy + Into<f64>>(from: &Scores<'_, T>, answer: &mut Answer) {
    answer.scores.clear();
    answer.abs_scores.clear();
    match from {
        Scores::Given(scores) => {
            answer.scores.extend(scores.iter().map(|s| (*s).into()));
            answer.abs_scores.resize(scores.len(), 0.0);
        }
        Scores::Dot { q, k, scale, softcap } => {
            for row in k.chunks_exact(q.len()) {
                let (mut dot, mut abs) = (0.0, 0.0);
                for (q, k) in q.iter().zip(row) {
                    let product = (*q).into() * (*k).into();
                    dot += product;
                    abs += product.abs();
                }
                let mut s = scale * dot;
                if *softcap > 0.0 {
                    s = softcap * libm::tanh(s / softcap);
                }
                answer.scores.push(s);
                answer.abs_scores.push(scale.abs() * abs);
            }
        }
    }
}

/// The weights of the scores that are in `answer`, and their log-sum-exp.
pub fn softmax(sink: Option<f64>, answer: &mut Answer) {
    let max = answer.scores.iter().copied().chain(sink).fold(f64::NEG_INFINITY, nan_max);
    answer.max = max;
    answer.probs.clear();
    if max == f64::NEG_INFINITY {
        // Nothing is attended.
        answer.denominator = 0.0;
        answer.lse = f64::NEG_INFINITY;
        answer.probs.resize(answer.scores.len(), 0.0);
        return;
    }
    let mut denominator = sink.map_or(0.0, |sink| libm::exp(sink - max));
    for s in &answer.scores {
        let e = libm::exp(s - max);
        denominator += e;
        answer.probs.push(e);
    }
    answer.denominator = denominator;
    answer.lse = max + libm::log(denominator);
    for p in &mut answer.probs {
        *p /= denominator;
    }
}

/// P·V with the weights that are in `answer` and the rows `v`, `[keys, head_dim_v]`.
pub fn mix<T: Copy + Into<f64>>(v: &[T], head_dim_v: usize, answer: &mut Answer) {
    answer.out.clear();
    answer.out.resize(head_dim_v, 0.0);
    for (p, row) in answer.probs.iter().zip(v.chunks_exact(head_dim_v)) {
        for (o, v) in answer.out.iter_mut().zip(row) {
            *o += p * (*v).into();
        }
    }
}

/// The larger of two, NaN if either is one (`f64::max` would hide it).
fn nan_max(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(head: &Head<'_, f64>) -> Answer {
        let mut a = Answer::default();
        attend(head, &mut a);
        a
    }

    fn head<'a>(q: &'a [f64], k: &'a [f64], v: &'a [f64], dv: usize) -> Head<'a, f64> {
        let scores = Scores::Dot { q, k, scale: 1.0, softcap: 0.0 };
        Head { scores, v, head_dim_v: dv, sink: None }
    }

    #[test]
    fn two_keys_by_hand() {
        // Scores ln 3 and 0: weights 3/4 and 1/4.
        let ln3 = 1.098_612_288_668_109_8;
        let a = run(&head(&[1.0, 0.0], &[ln3, 5.0, 0.0, 7.0], &[4.0, 0.0, 8.0, 100.0], 2));
        assert!((a.out[0] - 5.0).abs() < 1e-15, "{a:?}");
        assert!((a.out[1] - 25.0).abs() < 1e-14, "{a:?}");
        assert!((a.lse - 4f64.ln()).abs() < 1e-15, "{a:?}");
        assert!((a.probs[0] - 0.75).abs() < 1e-15);
    }

    #[test]
    fn one_key_is_its_value_whatever_the_score() {
        for score in [-3e4, -1.0, 0.0, 1e-300, 3e4] {
            let a = run(&head(&[score], &[1.0], &[2.5, -7.0], 2));
            assert_eq!((a.out.as_slice(), a.lse), ([2.5, -7.0].as_slice(), score));
        }
    }

    #[test]
    fn no_key_is_zero_and_minus_infinity() {
        let a = run(&head(&[1.0], &[], &[], 3));
        assert_eq!((a.out, a.lse), (vec![0.0; 3], f64::NEG_INFINITY));
        let sunk = run(&Head { sink: Some(0.5), ..head(&[1.0], &[], &[], 1) });
        assert_eq!((sunk.out, sunk.lse), (vec![0.0], 0.5));
    }

    #[test]
    fn a_sink_takes_mass_and_gives_no_value() {
        // Score 0 and sink 0: half the mass each.
        let a = run(&Head { sink: Some(0.0), ..head(&[0.0], &[1.0], &[6.0], 1) });
        assert_eq!(a.out, vec![3.0]);
        assert!((a.lse - 2f64.ln()).abs() < 1e-16);
    }

    #[test]
    fn softcap_bends_the_scaled_score() {
        // scale 2, q·k = 5: s = 10, capped at 10 * tanh(1).
        let scores = Scores::Dot { q: &[5.0], k: &[1.0], scale: 2.0, softcap: 10.0 };
        let a = run(&Head { scores, v: &[1.0], head_dim_v: 1, sink: None });
        assert!((a.lse - 10.0 * 0.761_594_155_955_764_9).abs() < 1e-14, "{}", a.lse);
    }

    #[test]
    fn nan_and_minus_infinity_come_through_as_they_must() {
        let nan = run(&head(&[1.0], &[f64::NAN, 0.0], &[1.0, 2.0], 1));
        assert!(nan.out[0].is_nan() && nan.lse.is_nan());
        // A score of -inf has weight 0.
        let masked = run(&head(&[1.0], &[f64::NEG_INFINITY, 0.0], &[1.0, 2.0], 1));
        assert_eq!(masked.out, vec![2.0]);
    }
}
