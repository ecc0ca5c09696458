//! The error bound: how far a right kernel can be from the oracle, for each output element.
//!
//! First-order forward error analysis of softmax attention in the kernel's own arithmetic, from
//! the case's own data. With `u` the unit roundoff of the accumulation type and `A` the attended
//! keys:
//!
//! ```text
//! ds_n <= |scale| (g(D) + 2u) sum_d |q_d k_nd|  (+ (tanh_ulp + 3) u |s_n| with a softcap)
//! E_n   = ds_n + sum_j p_j ds_j
//! dp_n <= p_n (expm1(E_n) + g(|A|) + (2 exp_ulp + exp_arg_ulp |s_n - m|) u + u_probs)
//! do_d <= sum_n (dp_n + (g(|A|) + u) p_n) |v_nd| + (2u + u_out) |o_d| + underflow
//! dlse <= sum_j p_j ds_j + g(|A|) + (2 exp_ulp + exp_arg_ulp max|s_n - m|) u
//!         + u (|m| + 2 max(1, |log l|)) + (exp_arg_ulp - 1) u (|m| + |lse|) + u_out |lse|
//! ```
//!
//! `g(n) = min(n, lambda sqrt(n)) u` bounds the error of a sum of n terms: Higham and Mary, "A new
//! approach to probabilistic rounding error analysis", SIAM J. Sci. Comput. 41(5), 2019, theorem
//! 2.4, fails with probability at most 2 exp(-lambda^2 / 2): 1.3e-9 at lambda = 6.5. It assumes
//! errors that do not all lean one way; where terms repeat (equal scores, constant V) they do, and
//! `g(n) = n u` there. `expm1(E)` is `E` to first order; with scores of 3e4 the second order counts.
//!
//! The softcap. `cap tanh(x)` with `x = s / cap` rounds x once, or twice where 1 / cap is rounded
//! and multiplied by; an error `e` of x in relative terms moves the result by
//! `cap |x| sech^2(x) e`, at most `cap |tanh x| e = |s_n| e`, as `x sech^2 x <= tanh x` for x > 0.
//! The product with cap rounds once more: `3 u |s_n|` beside the function's own error.
//!
//! Units of log 2. A kernel that says `exp_arg_ulp = c > 1` keeps scores multiplied by log2(e):
//! of its c units at `s - m` one is the subtraction's, and c - 1 are the conversion's (the
//! constant, and the product with it). m and lse are converted alike, m into those units and lse
//! out of them, and there no difference cancels: `(c - 1) u (|m| + |lse|)`.
//!
//! Stages alone. Scores have `ds`. Weights have `dp` with `ds = 0`, and `2u p_n` more: the division,
//! or the product with a rounded reciprocal (in `do` it is the `2u |o_d|`). P·V with P given has
//! `(g(|A|) + u) sum_n |p_n v_nd| + u_out |o_d|`. A merge is softmax and P·V with one part for a key
//! and its lse for the score, which is given: `ds = 0`.
//!
//! Underflow of weights. P may be narrowed, or underflow, before it is divided by l or after. An
//! absolute error `e` of a weight relative to the largest is `e / l` in the output; of a normalised
//! weight it is `e` itself, which is more, as `l >= 1` (the largest weight is 1). So a narrowed P
//! has `e |v|` with `e` half the type's least subnormal, whichever way it is stored, and a weight
//! of the accumulator's type, which can underflow in both places, `(1 + 1 / l) eta |v|`.
//!
//! Flushing. Where subnormal numbers may count as zero, a result that underflows is off by as much as
//! the least normal number, which is then `eta`; and a product of which a factor is subnormal may be
//! lost whole, however large the other factor: `|x y|` is added for each such product of Q·K, and of
//! P·V with P given. (A weight that is computed is at most 1, so a product with a subnormal value is
//! below `eta`, which each product has; a subnormal weight is among the weights that underflow.)

use super::attention::{Answer, Head, Scores};
use crate::problem::DType;

/// `lambda` of the probabilistic bound: a false alarm at one element in 10^9.
pub const LAMBDA: f64 = 6.5;

/// What a kernel promises about its arithmetic (`[numerics]` of its manifest).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Arithmetic {
    /// Type of the accumulators.
    pub accumulate: DType,
    /// Type that P is held in when it multiplies V.
    pub probs: DType,
    /// Type of the output tensor.
    pub out: DType,
    /// Relative error of the exponential, in units of `u` (a unit in the last place is 1 to 2).
    pub exp_ulp: f64,
    /// Error of the exponential's argument, in units of `u |s - m|`.
    pub exp_arg_ulp: f64,
    /// Relative error of the hyperbolic tangent, in units of `u`.
    pub tanh_ulp: f64,
    /// Error of sine, cosine and power, in units of `u`, relative to 1 or to the power.
    pub trig_ulp: f64,
    /// Whether subnormal numbers are flushed to zero.
    pub flushes: bool,
}

impl Arithmetic {
    /// f32 throughout, with the exponential of a good math library: the manifest's defaults.
    pub fn single(out: DType) -> Self {
        Arithmetic {
            accumulate: DType::F32,
            probs: DType::F32,
            out,
            exp_ulp: 2.0,
            exp_arg_ulp: 1.0,
            tanh_ulp: 4.0,
            trig_ulp: 4.0,
            flushes: false,
        }
    }

    /// `u`.
    fn u(&self) -> f64 {
        self.accumulate.unit_roundoff()
    }

    /// Rounding to the output type, where that is narrower than the accumulator.
    pub(crate) fn u_out(&self) -> f64 {
        narrower(self.out, self.accumulate)
    }

    /// Rounding of P, where it is narrowed before it multiplies V.
    pub(crate) fn u_probs(&self) -> f64 {
        narrower(self.probs, self.accumulate)
    }

    /// The largest error of one operation whose result underflows.
    pub(crate) fn underflow(&self) -> f64 {
        if self.flushes { self.accumulate.min_normal() } else { self.accumulate.min_subnormal() }
    }

    /// `|x|` where it may count as zero, otherwise 0.
    pub(super) fn flushed_factor(&self, x: f64) -> f64 {
        let size = x.abs();
        if self.flushes && size < self.accumulate.min_normal() { size } else { 0.0 }
    }

    /// What is lost of a product where a factor of it may count as zero.
    pub(super) fn flushed_product(&self, x: f64, y: f64) -> f64 {
        let lost = |x: f64| self.flushed_factor(x) > 0.0;
        if lost(x) || lost(y) { (x * y).abs() } else { 0.0 }
    }

    /// What is lost of a sum of products.
    pub(super) fn flushed<T: Copy + Into<f64>>(&self, x: &[T], y: &[T]) -> f64 {
        if !self.flushes {
            return 0.0;
        }
        x.iter().zip(y).map(|(x, y)| self.flushed_product((*x).into(), (*y).into())).sum()
    }
}

/// The roundoff of storing in a type, where that is narrower than what is computed in; otherwise 0.
pub(super) fn narrower(stored: DType, computed: DType) -> f64 {
    let u = stored.unit_roundoff();
    if u > computed.unit_roundoff() { u } else { 0.0 }
}

/// One cause of error and how much of the bound it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Term {
    /// What rounds.
    pub name: &'static str,
    /// Its part of the bound, in the output's unit.
    pub value: f64,
}

/// What rounds, in the order of the formula.
#[derive(Clone, Copy)]
enum Cause {
    Scores,
    SecondOrder,
    Exp,
    Mass,
    Narrowed,
    Products,
    Division,
    Output,
    Underflow,
}

/// The names of the causes, for whoever asks what a bound is made of.
const CAUSES: [&str; 9] = [
    "Q·K: sums of head_dim products, and the scale",
    "Q·K: second order (expm1(E) - E)",
    "exp: the function and its argument",
    "softmax: sum of the weights",
    "P narrowed before it multiplies V",
    "P·V: sum over the keys",
    "rescale and division",
    "output rounded to its type",
    "underflow",
];

/// A bound by its causes. Every bound of attention is a sum of these, and the bound that is used is
/// their total: what is explained is what is judged by.
#[derive(Clone, Copy, Default)]
struct Causes([f64; CAUSES.len()]);

impl Causes {
    fn of<const N: usize>(parts: [(Cause, f64); N]) -> Causes {
        let mut causes = Causes::default();
        for (cause, value) in parts {
            causes.0[cause as usize] += value;
        }
        causes
    }

    /// With another's, each times a factor.
    fn and(mut self, other: Causes, factor: f64) -> Causes {
        self.0.iter_mut().zip(other.0).for_each(|(a, b)| *a += b * factor);
        self
    }

    fn total(&self) -> f64 {
        self.0.iter().sum()
    }

    /// The causes that have a part, largest first.
    fn terms(&self) -> Vec<Term> {
        let mut terms: Vec<Term> =
            CAUSES.iter().zip(self.0).map(|(name, value)| Term { name, value }).collect();
        terms.retain(|term| term.value > 0.0);
        terms.sort_by(|a, b| b.value.total_cmp(&a.value));
        terms
    }
}

/// The bound of one head.
#[derive(Debug, Clone, Default)]
pub struct Bound {
    /// `do`, `[head_dim_v]`.
    pub out: Vec<f64>,
    /// `dlse`.
    pub lse: f64,
    /// Work space: the factor on `|v_nd|`, `[keys]`.
    factors: Vec<f64>,
}

/// The quantities that all elements of a head share.
struct Shared {
    /// `ds_n = ds_rel * abs_scores_n + tanh_rel * |s_n| + ds_min + lost_n`.
    ds_rel: f64,
    tanh_rel: f64,
    ds_min: f64,
    /// What flushed factors take from a score, `[keys]`; nothing where none are.
    lost: Vec<f64>,
    /// `sum_j p_j ds_j`.
    ds_mean: f64,
    /// What underflows of a weight, before and after the division by `l`.
    weight_eta: f64,
    mix: Mix,
}

/// What the product of weights and V does, whoever made the weights.
#[derive(Clone, Copy)]
struct Mix {
    a: Arithmetic,
    keys: usize,
    u: f64,
    /// `g(|A|)`.
    g: f64,
    /// Absolute error of one operation that underflows.
    eta: f64,
    /// What underflows of a weight where P is held in f16 (or fp8).
    probs_eta: f64,
}

/// `g(n)`: the growth of rounding errors in a sum of `n` terms.
pub fn growth(n: usize, u: f64, leaning: bool) -> f64 {
    let n = n as f64;
    if leaning { n * u } else { n.min(LAMBDA * n.sqrt()) * u }
}

/// Whether numbers repeat so much that rounding errors of their sum may all lean one way: an eighth
/// of them equal the largest, or one of the four before.
pub fn repeats(x: &[f64]) -> bool {
    let largest = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    many(x.iter().filter(|x| **x == largest).count(), x.len())
        || (1..=x.len().min(4)).any(|lag| {
            let same = x[lag..].iter().zip(x).filter(|(a, b)| a == b);
            many(same.count(), x.len())
        })
}

/// Whether an eighth of the rows of V equal one of the four rows before.
pub fn rows_repeat<T: PartialEq>(v: &[T], dim: usize) -> bool {
    let rows = v.len() / dim.max(1);
    let row = |n: usize| &v[n * dim..][..dim];
    (1..=4).any(|lag| many((lag..rows).filter(|n| row(*n) == row(n - lag)).count(), rows))
}

/// Whether a head's terms repeat so much that its sums get the worst growth.
pub fn is_leaning<T: PartialEq>(head: &Head<'_, T>, answer: &Answer) -> bool {
    repeats(&answer.scores) || rows_repeat(head.v, head.head_dim_v)
}

fn many(count: usize, of: usize) -> bool {
    count * 8 > of && count > 3
}

impl Mix {
    fn new(a: &Arithmetic, keys: usize, terms: usize, leaning: bool) -> Self {
        let u = a.u();
        let probs_eta = if a.u_probs() > 0.0 { a.probs.min_subnormal() / 2.0 } else { 0.0 };
        Mix { a: *a, keys, u, g: growth(terms, u, leaning), eta: a.underflow(), probs_eta }
    }

    /// Where the weights are an input.
    fn given<T: Copy + PartialEq + Into<f64>>(
        v: &[T],
        head_dim_v: usize,
        answer: &Answer,
        a: &Arithmetic,
    ) -> Self {
        let keys = answer.probs.len();
        Mix::new(a, keys, keys, repeats(&answer.probs) || rows_repeat(v, head_dim_v))
    }

    /// `(u_probs + g(|A|) + u) p_n`: of a key's product with V, by `|v_nd|`.
    fn of_product(&self, p: f64) -> Causes {
        Causes::of([
            (Cause::Narrowed, self.a.u_probs() * p.abs() + self.probs_eta),
            (Cause::Products, (self.g + self.u) * p.abs()),
        ])
    }

    /// `2u |x|`: of the division by l, and of a rescale or a product with a rounded reciprocal.
    fn of_division(&self, x: f64) -> Causes {
        Causes::of([(Cause::Division, 2.0 * self.u * x.abs())])
    }

    /// `u_out |o_d|`, and what underflows: each product, and the result in both types.
    fn of_output(&self, o: f64) -> Causes {
        let below = self.eta * (self.keys as f64 + 2.0) + self.a.out.min_subnormal() / 2.0;
        Causes::of([(Cause::Output, self.a.u_out() * o.abs()), (Cause::Underflow, below)])
    }
}

impl Shared {
    fn new<T: Copy + PartialEq + Into<f64>>(
        head: &Head<'_, T>,
        answer: &Answer,
        a: &Arithmetic,
    ) -> Self {
        Shared::of(&head.scores, head.sink.is_some(), is_leaning(head, answer), answer, a)
    }

    /// The quantities where V has no part in it.
    fn of<T: Copy + Into<f64>>(
        scores: &Scores<'_, T>,
        has_sink: bool,
        leaning: bool,
        answer: &Answer,
        a: &Arithmetic,
    ) -> Self {
        let keys = answer.scores.len();
        let mix = Mix::new(a, keys, keys + usize::from(has_sink), leaning);
        let (u, eta) = (mix.u, mix.eta);
        let inv_l = if answer.denominator > 0.0 { 1.0 / answer.denominator } else { 0.0 };
        let (ds_rel, tanh_rel, ds_min) = match scores {
            // Given scores are exact, but a kernel that keeps units of log 2 converts them: u |s_n|.
            Scores::Given(_) => (0.0, (a.exp_arg_ulp - 1.0).max(0.0) * u, 0.0),
            Scores::Dot { q, scale, softcap, .. } => (
                growth(q.len(), u, false) + 2.0 * u,
                if *softcap > 0.0 { (a.tanh_ulp + 3.0) * u } else { 0.0 },
                (q.len() as f64 * scale.abs() + 1.0) * eta,
            ),
        };
        let lost = match scores {
            Scores::Dot { q, k, scale, .. } if a.flushes => {
                k.chunks_exact(q.len()).map(|k| scale.abs() * a.flushed(q, k)).collect()
            }
            _ => Vec::new(),
        };
        let weight_eta = (1.0 + inv_l) * eta;
        let mut shared = Shared { ds_rel, tanh_rel, ds_min, lost, ds_mean: 0.0, weight_eta, mix };
        let probs = answer.probs.iter().enumerate();
        shared.ds_mean = probs.map(|(n, p)| p * shared.ds(answer, n)).sum();
        shared
    }

    /// The quantities of weights alone.
    fn of_softmax(has_sink: bool, answer: &Answer, a: &Arithmetic) -> Self {
        let given = Scores::<f64>::Given(&[]);
        Shared::of(&given, has_sink, repeats(&answer.scores), answer, a)
    }

    fn ds(&self, answer: &Answer, n: usize) -> f64 {
        // why: a given score may be -inf, and 0 times infinity is no error.
        let s = answer.scores[n];
        let bent = if s.is_finite() { self.tanh_rel * s.abs() } else { 0.0 };
        let lost = self.lost.get(n).copied().unwrap_or(0.0);
        self.ds_rel * answer.abs_scores[n] + bent + self.ds_min + lost
    }

    /// `(2 exp_ulp + exp_arg_ulp |s_n - m|) u`.
    fn exp_error(&self, answer: &Answer, n: usize) -> f64 {
        let Mix { a, u, .. } = &self.mix;
        let distance = (answer.scores[n] - answer.max).abs();
        // A weight of 0 has no error of its own, however far its score is (also at -inf).
        if answer.probs[n] == 0.0 { 0.0 } else { (2.0 * a.exp_ulp + a.exp_arg_ulp * distance) * u }
    }

    /// `p_n (expm1(E_n) + g(|A|) + ...)` and what underflows: `dp_n`, as the softmax leaves a weight
    /// but for the division. `E_n` is what the errors of all scores do to its logarithm.
    fn of_weight(&self, answer: &Answer, n: usize) -> Causes {
        let (p, e) = (answer.probs[n], self.ds(answer, n) + self.ds_mean);
        let second = if p > 0.0 {
            p * (libm::expm1(e) - e)
        } else if answer.scores[n] > f64::NEG_INFINITY {
            // why: below f64's range p is 0, and 0 times an infinite expm1(E) is no bound.
            libm::exp(answer.scores[n] - answer.lse + e)
        } else {
            0.0
        };
        Causes::of([
            (Cause::Scores, p * e),
            // why: the largest number, times a v that is 0, is still 0.
            (Cause::SecondOrder, second.min(f64::MAX)),
            (Cause::Exp, p * self.exp_error(answer, n)),
            (Cause::Mass, p * self.mix.g),
            (Cause::Underflow, self.weight_eta),
        ])
    }

    /// Of key n in the output, by `|v_nd|`.
    fn of_key(&self, answer: &Answer, n: usize) -> Causes {
        self.of_weight(answer, n).and(self.mix.of_product(answer.probs[n]), 1.0)
    }

    /// Of the output, beside its keys.
    fn of_output(&self, o: f64) -> Causes {
        self.mix.of_output(o).and(self.mix.of_division(o), 1.0)
    }

    /// A weight that is stored in f32.
    fn of_stored_weight(&self, answer: &Answer, n: usize) -> Causes {
        let stored = Causes::of([(Cause::Underflow, DType::F32.min_subnormal())]);
        let division = self.mix.of_division(answer.probs[n]);
        self.of_weight(answer, n).and(division, 1.0).and(stored, 1.0)
    }

    /// A score that is stored in f32.
    fn of_stored_score(&self, answer: &Answer, n: usize) -> Causes {
        let u_scores = narrower(DType::F32, self.mix.a.accumulate);
        Causes::of([
            (Cause::Scores, self.ds(answer, n)),
            (Cause::Output, u_scores * answer.scores[n].abs()),
            (Cause::Underflow, DType::F32.min_subnormal()),
        ])
    }

    /// `dlse`.
    fn lse(&self, answer: &Answer) -> f64 {
        let Mix { a, keys, u, g, eta, .. } = self.mix;
        // Nothing is attended, or nothing has mass: -inf, exactly.
        if answer.max == f64::NEG_INFINITY {
            return 0.0;
        }
        let farthest = (0..keys).map(|n| self.exp_error(answer, n)).fold(0.0, f64::max);
        let log_l =
            if answer.denominator > 0.0 { libm::log(answer.denominator).abs() } else { 0.0 };
        self.ds_mean
            + g
            + farthest
            + u * (answer.max.abs() + 2.0 * log_l.max(1.0))
            // why: the units of log 2 that the scores are kept in.
            + (a.exp_arg_ulp - 1.0).max(0.0) * u * (answer.max.abs() + answer.lse.abs())
            // lse is stored in f32 whatever the output's type.
            + narrower(DType::F32, a.accumulate) * answer.lse.abs()
            + eta * 2.0
    }
}

/// Computes the bound of one head into `bound`, whose memory is used again.
pub fn bound<T: Copy + PartialEq + Into<f64>>(
    head: &Head<'_, T>,
    answer: &Answer,
    arithmetic: &Arithmetic,
    bound: &mut Bound,
) {
    let shared = Shared::new(head, answer, arithmetic);
    bound.factors.clear();
    bound.factors.extend((0..shared.mix.keys).map(|n| shared.of_key(answer, n).total()));
    bound.out.clear();
    bound.out.resize(head.head_dim_v, 0.0);
    for (factor, row) in bound.factors.iter().zip(head.v.chunks_exact(head.head_dim_v)) {
        for (b, v) in bound.out.iter_mut().zip(row) {
            *b += factor * (*v).into().abs();
        }
    }
    for (b, o) in bound.out.iter_mut().zip(&answer.out) {
        *b += shared.of_output(*o).total();
    }
    bound.lse = shared.lse(answer);
}

/// The bound of scores alone, `[keys]`: `ds`, with the rounding to f32 in which they are stored.
pub fn bound_scores<T: Copy + Into<f64>>(
    from: &Scores<'_, T>,
    answer: &Answer,
    a: &Arithmetic,
    ds: &mut Vec<f64>,
) {
    let shared = Shared::of(from, false, false, answer, a);
    ds.clear();
    ds.extend((0..answer.scores.len()).map(|n| shared.of_stored_score(answer, n).total()));
}

/// The bound of weights alone, `[keys]`, and of their log-sum-exp.
pub fn bound_softmax(has_sink: bool, answer: &Answer, a: &Arithmetic, dp: &mut Vec<f64>) -> f64 {
    let shared = Shared::of_softmax(has_sink, answer, a);
    dp.clear();
    dp.extend((0..answer.probs.len()).map(|n| shared.of_stored_weight(answer, n).total()));
    shared.lse(answer)
}

/// The bound of P·V with P given, `[head_dim_v]`.
pub fn bound_pv<T: Copy + PartialEq + Into<f64>>(
    v: &[T],
    head_dim_v: usize,
    answer: &Answer,
    a: &Arithmetic,
    out: &mut Vec<f64>,
) {
    let mix = Mix::given(v, head_dim_v, answer, a);
    out.clear();
    out.resize(head_dim_v, 0.0);
    for (p, row) in answer.probs.iter().zip(v.chunks_exact(head_dim_v)) {
        let factor = mix.of_product(*p).total();
        for (b, v) in out.iter_mut().zip(row) {
            let v: f64 = (*v).into();
            *b += factor * v.abs() + a.flushed_product(*p, v);
        }
    }
    for (b, o) in out.iter_mut().zip(&answer.out) {
        *b += mix.of_output(*o).total();
    }
}

/// The terms of the bound at element `d`, largest cause first; they add up to [`Bound::out`].
pub fn explain<T: Copy + PartialEq + Into<f64>>(
    head: &Head<'_, T>,
    answer: &Answer,
    arithmetic: &Arithmetic,
    d: usize,
) -> Vec<Term> {
    let shared = Shared::new(head, answer, arithmetic);
    let v = head.v[d..].iter().step_by(head.head_dim_v).enumerate();
    let keys = v.fold(Causes::default(), |sum, (n, v)| {
        sum.and(shared.of_key(answer, n), (*v).into().abs())
    });
    keys.and(shared.of_output(answer.out[d]), 1.0).terms()
}

/// As [`explain`], of the score of key `n` alone: what [`bound_scores`] is made of.
pub fn explain_scores<T: Copy + Into<f64>>(
    from: &Scores<'_, T>,
    answer: &Answer,
    a: &Arithmetic,
    n: usize,
) -> Vec<Term> {
    Shared::of(from, false, false, answer, a).of_stored_score(answer, n).terms()
}

/// As [`explain`], of the weight of key `n` alone: what [`bound_softmax`] is made of.
pub fn explain_softmax(has_sink: bool, answer: &Answer, a: &Arithmetic, n: usize) -> Vec<Term> {
    Shared::of_softmax(has_sink, answer, a).of_stored_weight(answer, n).terms()
}

/// As [`explain`], of P·V with P given: what [`bound_pv`] is made of.
pub fn explain_pv<T: Copy + PartialEq + Into<f64>>(
    v: &[T],
    head_dim_v: usize,
    answer: &Answer,
    a: &Arithmetic,
    d: usize,
) -> Vec<Term> {
    let mix = Mix::given(v, head_dim_v, answer, a);
    let column = answer.probs.iter().zip(v[d..].iter().step_by(head_dim_v));
    let keys = column.fold(Causes::default(), |sum, (p, v)| {
        let v: f64 = (*v).into();
        let lost = Causes::of([(Cause::Underflow, a.flushed_product(*p, v))]);
        sum.and(mix.of_product(*p), v.abs()).and(lost, 1.0)
    });
    keys.and(mix.of_output(answer.out[d]), 1.0).terms()
}

#[cfg(test)]
mod tests {
    use super::super::attention::attend;
    use super::*;

    fn sample() -> (Vec<f32>, Vec<f32>, Vec<f32>) {
        let wave = |i: usize, step: f64| libm::sin(i as f64 * step) as f32;
        let q = (0..8).map(|i| wave(i, 0.7) * 3.0).collect();
        let k = (0..8 * 20).map(|i| wave(i, 1.3)).collect();
        let v = (0..4 * 20).map(|i| wave(i, 2.1)).collect();
        (q, k, v)
    }

    #[test]
    fn the_explained_terms_add_up_to_the_bound_used() {
        let (q, k, v) = sample();
        for (softcap, sink, scale) in
            [(0.0, None, 0.35), (5.0, Some(0.3), 0.35), (0.0, None, 900.0)]
        {
            for arithmetic in [
                Arithmetic::single(DType::F16),
                Arithmetic {
                    probs: DType::F16,
                    exp_arg_ulp: 3.0,
                    ..Arithmetic::single(DType::F32)
                },
                Arithmetic {
                    accumulate: DType::BF16,
                    flushes: true,
                    ..Arithmetic::single(DType::BF16)
                },
            ] {
                let scores = Scores::Dot { q: &q, k: &k, scale, softcap };
                let head = Head { scores, v: &v, head_dim_v: 4, sink };
                let (mut answer, mut b) = (Answer::default(), Bound::default());
                attend(&head, &mut answer);
                bound(&head, &answer, &arithmetic, &mut b);
                for d in 0..4 {
                    let sum: f64 =
                        explain(&head, &answer, &arithmetic, d).iter().map(|t| t.value).sum();
                    assert!((sum / b.out[d] - 1.0).abs() < 1e-12, "{sum:e} against {:e}", b.out[d]);
                }
            }
        }
    }

    #[test]
    fn one_key_in_f32_by_hand() {
        // p = 1, m = s: E = 2 ds; ds = (g(1) + 2u) |s| + tiny; g(1) = u.
        let scores = Scores::Dot { q: &[0.5f32], k: &[2.0], scale: 1.0, softcap: 0.0 };
        let head = Head { scores, v: &[3.0], head_dim_v: 1, sink: None };
        let (mut answer, mut b) = (Answer::default(), Bound::default());
        attend(&head, &mut answer);
        bound(&head, &answer, &Arithmetic::single(DType::F32), &mut b);
        let u = DType::F32.unit_roundoff();
        let want = (6.0 + 1.0 + 4.0 + 1.0 + 1.0 + 2.0) * u * 3.0;
        assert!((b.out[0] / want - 1.0).abs() < 1e-6, "{:e} against {want:e}", b.out[0]);
    }

    #[test]
    fn repeated_terms_get_the_worst_case_growth() {
        let v: Vec<f32> = (0..1024).map(|i| i as f32).collect();
        let same = vec![1.0f64; 1024];
        let varied: Vec<f64> = (0..1024).map(|i| f64::from(i * 37 % 1024) / 64.0).collect();
        assert!(repeats(&same) && !repeats(&varied));
        assert!(!rows_repeat(&v, 1) && rows_repeat(&v[..1].repeat(9), 1));
        assert_eq!(growth(1024, 1.0, true), 1024.0);
        assert_eq!(growth(1024, 1.0, false), LAMBDA * 32.0);
        assert_eq!(growth(9, 1.0, false), 9.0);
    }
}
