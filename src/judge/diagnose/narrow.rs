//! Arithmetic in 16 bits, simulated: the sequence of roundings is the prediction.
//!
//! What is rounded was computed in f32, and an error of f32's size decides now and then between two
//! neighbours of the narrow type. Where it could, both are kept: a sum is an interval, which is a
//! point almost everywhere, and its width is in the bound. The errors that are allowed for are those
//! that f32 makes, and not those that it could make at worst: too small an allowance loses a name,
//! too large a one would fit what it must not.

use super::recipe::{Form, Narrow, Sum16};
use crate::oracle::{Answer, Arithmetic, Scores, growth, scores};
use crate::problem::DType;

/// Roundings of f32 by which a dot product is off, in units of the sum of its terms' sizes.
const TYPICAL: f64 = 3.0;

/// The roundoff of what is computed before it is narrowed.
fn single() -> f64 {
    DType::F32.unit_roundoff()
}

/// What f32 makes of a number that it does not have.
fn slack(x: f64) -> f64 {
    if f64::from(x as f32) == x { 0.0 } else { single() * x.abs() }
}

/// A value, or two neighbours between which it could not be decided and what lies between them.
#[derive(Debug, Clone, Copy, Default)]
struct Span {
    low: f64,
    high: f64,
}

impl Span {
    fn of(x: f64) -> Span {
        Span { low: x, high: x }
    }

    /// Rounded, where it was off by as much as `error`, and by f32's own rounding unless f32 has it
    /// exactly: halfway between two neighbours is where few bits often end.
    fn rounded(self, dtype: DType, error: f64) -> Span {
        let off = |x: f64| error + slack(x);
        Span {
            low: dtype.round(self.low - off(self.low)),
            high: dtype.round(self.high + off(self.high)),
        }
    }

    fn plus(self, x: Span) -> Span {
        Span { low: self.low + x.low, high: self.high + x.high }
    }

    fn middle(self) -> f64 {
        if self.low == self.high { self.low } else { (self.low + self.high) / 2.0 }
    }

    fn radius(self) -> f64 {
        if self.low == self.high { 0.0 } else { (self.high - self.low) / 2.0 }
    }
}

/// The sum of terms, each with its error, rounded to 16 bits after every addition.
fn sum(way: &Sum16, start: f64, terms: impl Iterator<Item = (f64, f64)>) -> Span {
    let mut whole = Span::of(way.dtype.round(start));
    let mut tile = Span::default();
    let mut count = 0;
    for (term, error) in terms {
        let (term, error) = match way.fused {
            true => (Span::of(term), error),
            false => (Span::of(term).rounded(way.dtype, error), 0.0),
        };
        let to = if way.tile == 0 { &mut whole } else { &mut tile };
        *to = to.plus(term).rounded(way.dtype, error);
        count += 1;
        if count == way.tile {
            whole = whole.plus(tile).rounded(way.dtype, 0.0);
            (tile, count) = (Span::default(), 0);
        }
    }
    if way.tile > 0 && count > 0 {
        whole = whole.plus(tile).rounded(way.dtype, 0.0);
    }
    whole
}

/// The scores of a form, with what bounds their errors in `abs_scores`.
pub fn score(from: &Scores<'_, f64>, form: Form, a: &Arithmetic, answer: &mut Answer) {
    scores(from, answer);
    let Scores::Dot { q, k, scale, softcap } = *from else { return };
    let dot = |row: &[f64]| q.iter().zip(row).map(|(q, k)| q * k).sum::<f64>();
    let rows = || k.chunks_exact(q.len().max(1));
    let capped = |s: f64| if softcap > 0.0 { softcap * libm::tanh(s / softcap) } else { s };
    let u = a.accumulate.unit_roundoff();
    // What `bound` makes of a size of 1 in `abs_scores`.
    let unit = growth(q.len(), u, false) + 2.0 * u;
    match form {
        Form::Right | Form::Uncapped => {}
        Form::CappedFirst => {
            answer.scores = rows().map(|row| scale * capped(dot(row))).collect();
        }
        Form::CappedUnscaled => {
            answer.scores = rows().map(|row| capped(dot(row))).collect();
            answer.abs_scores.iter_mut().for_each(|s| *s /= scale.abs());
        }
        Form::CappedLog2 => {
            let ln2 = std::f64::consts::LN_2;
            answer.scores = rows().map(|row| ln2 * capped(scale * dot(row) / ln2)).collect();
        }
        Form::ScaledQuery(dtype) => {
            let scaled = |q: &f64| dtype.round(f64::from(*q as f32 * scale as f32));
            let q: Vec<f64> = q.iter().map(scaled).collect();
            let dot = |row: &[f64]| q.iter().zip(row).map(|(q, k)| q * k).sum::<f64>();
            answer.scores = rows().map(|row| capped(dot(row))).collect();
        }
        Form::Narrowed(dtype, before) => {
            for (n, row) in rows().enumerate() {
                let error = TYPICAL * single() * answer.abs_scores[n];
                let of = if before { 1.0 } else { scale };
                let to = if before { scale } else { 1.0 };
                // why: `abs_scores` has the scale in it.
                let error = if before { error / scale.abs() } else { error };
                let stored = Span::of(of * dot(row)).rounded(dtype, error);
                put(answer, n, (to, stored), unit, &capped);
            }
        }
        Form::Sum(way) => {
            for (n, row) in rows().enumerate() {
                let terms = q.iter().zip(row).map(|(q, k)| (q * k, slack(q * k)));
                put(answer, n, (scale, sum(&way, 0.0, terms)), unit, &capped);
            }
        }
    }
}

/// A score that is known but for what its roundings leave open.
fn put(
    answer: &mut Answer,
    n: usize,
    (scale, dot): (f64, Span),
    unit: f64,
    capped: &dyn Fn(f64) -> f64,
) {
    let s = scale * dot.middle();
    answer.scores[n] = capped(s);
    let error = scale.abs() * dot.radius() + 2.0 * single() * s.abs();
    answer.abs_scores[n] = if error.is_finite() { error / unit } else { 0.0 };
}

/// The relative errors of the weights in `answer`, as f32 makes them.
fn errors_of_weights(answer: &Answer) -> Vec<f64> {
    let u = single();
    let keys = answer.probs.len() as f64;
    let weighted = answer.probs.iter().zip(&answer.abs_scores).map(|(p, s)| p * s);
    let mean: f64 = weighted.sum();
    let of = |(s, size): (&f64, &f64)| {
        let score = TYPICAL * u * (size + mean);
        score + (4.0 + (s - answer.max).abs() + libm::sqrt(keys)) * u
    };
    answer.scores.iter().zip(&answer.abs_scores).map(of).collect()
}

/// The relative error of the denominator that comes from the weights: it is not rounded with P·V, so
/// the two do not cancel.
fn error_of_sum(answer: &Answer, errors: &[f64]) -> f64 {
    answer.probs.iter().zip(errors).map(|(p, e)| p * e).sum()
}

/// P·V of the softmax in `answer`, its sums in f32 within a tile of keys and rounded to 16 bits after
/// each, as an online softmax with 16-bit accumulators has them; into its `out` with a bound.
pub fn running_values(
    (dtype, tile): (DType, usize),
    sink: Option<f64>,
    v: &[f64],
    dims: usize,
    a: &Arithmetic,
    answer: &mut Answer,
    bounds: &mut Vec<f64>,
) {
    let u = single();
    let keys = answer.scores.len();
    let errors = errors_of_weights(answer);
    let mut sums = vec![Span::default(); dims];
    let mut max = sink.unwrap_or(f64::NEG_INFINITY);
    for first in (0..keys).step_by(tile.max(1)) {
        let range = first..(first + tile).min(keys);
        let larger = answer.scores[range.clone()].iter().copied().fold(max, f64::max);
        let rescale = if max == f64::NEG_INFINITY { 0.0 } else { libm::exp(max - larger) };
        max = larger;
        let weights: Vec<(f64, f64)> =
            range.clone().map(|n| (libm::exp(answer.scores[n] - max), errors[n])).collect();
        for (d, sum) in sums.iter_mut().enumerate() {
            let kept = Span { low: sum.low * rescale, high: sum.high * rescale };
            let (mut added, mut error) = (0.0, 4.0 * u * kept.middle().abs());
            for (n, (w, e)) in range.clone().zip(&weights) {
                let term = w * v[n * dims + d];
                added += term;
                error += term.abs() * (e + u);
            }
            *sum = kept.plus(Span::of(added)).rounded(dtype, error);
        }
    }
    let l = answer.denominator;
    let of_l = error_of_sum(answer, &errors);
    answer.out.clear();
    bounds.clear();
    for sum in &sums {
        let (out, open) = (sum.middle() / l, sum.radius() / l);
        answer.out.push(if keys > 0 { out } else { 0.0 });
        let own = of_l + (4.0 + libm::sqrt(keys as f64)) * u;
        let stored = a.out.unit_roundoff().max(u);
        bounds.push(open + (own + u + stored) * out.abs() + a.out.min_subnormal() / 2.0);
    }
}

/// P·V summed in 16 bits, of the softmax in `answer`, into its `out` with a bound.
pub fn sum_of_values(
    way: &Sum16,
    normalised: bool,
    v: &[f64],
    dims: usize,
    a: &Arithmetic,
    answer: &mut Answer,
    bounds: &mut Vec<f64>,
) {
    let u = single();
    let keys = answer.probs.len() as f64;
    let l = if normalised { 1.0 } else { answer.denominator };
    let errors = errors_of_weights(answer);
    let of_l = error_of_sum(answer, &errors);
    answer.out.clear();
    bounds.clear();
    for d in 0..dims {
        let terms = answer.probs.iter().zip(&errors).zip(v.chunks_exact(dims));
        let terms = terms.map(|((p, e), row)| (l * p * row[d], (l * p * row[d]).abs() * e));
        let made = sum(way, 0.0, terms);
        let (out, open) = (made.middle() / l, made.radius() / l);
        answer.out.push(if keys > 0.0 { out } else { 0.0 });
        let own = if normalised { 0.0 } else { of_l + (4.0 + libm::sqrt(keys)) * u };
        let stored = a.out.unit_roundoff().max(u);
        bounds.push(open + (own + u + stored) * out.abs() + a.out.min_subnormal() / 2.0);
    }
}

/// The denominator summed in 16 bits: what that makes of the output in `answer` and its bound.
pub fn row_sum(
    way: &Sum16,
    sink: Option<f64>,
    a: &Arithmetic,
    answer: &mut Answer,
    bounds: &mut [f64],
) {
    if answer.probs.is_empty() || answer.denominator == 0.0 {
        return;
    }
    let u = single();
    let start = sink.map_or(0.0, |sink| libm::exp(sink - answer.max));
    let terms = answer.scores.iter().zip(&answer.abs_scores).map(|(s, size)| {
        let e = libm::exp(s - answer.max);
        (e, e * u * (TYPICAL * size + 4.0 + (s - answer.max).abs()))
    });
    let made = sum(way, start, terms);
    let by = answer.denominator / made.middle();
    let open = made.radius() / made.middle();
    for (o, bound) in answer.out.iter_mut().zip(bounds) {
        *o *= by;
        *bound = *bound * by + open * o.abs() + a.out.min_subnormal() / 2.0;
    }
}

/// Scores in f32, one fused multiply-add a key element, as a plain kernel computes them.
pub fn single_scores(from: &Scores<'_, f64>, answer: &mut Answer) {
    let Scores::Dot { q, k, scale, softcap } = *from else { return };
    let (scale, cap) = (scale as f32, softcap as f32);
    answer.scores.clear();
    answer.scores.extend(k.chunks_exact(q.len()).map(|row| {
        let dot = q.iter().zip(row).fold(0f32, |sum, (q, k)| (*q as f32).mul_add(*k as f32, sum));
        let s = scale * dot;
        f64::from(if cap > 0.0 { cap * libm::tanhf(s / cap) } else { s })
    }));
    answer.max = answer.scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
}

/// Softmax and P·V with every result in 16 bits, keys in ascending order, from the scores and the
/// maximum in `answer`, into its `out`.
pub fn narrow(way: &Narrow, sink: Option<f64>, v: &[f64], dims: usize, answer: &mut Answer) {
    let round = |x: f64| way.dtype.round(x);
    let max = answer.max;
    let exp = |s: f64| match way.single {
        true => f64::from(libm::expf((s - max) as f32)),
        false => libm::exp(s - max),
    };
    let mut weights: Vec<f64> = answer.scores.iter().map(|s| exp(*s)).collect();
    let sunk = sink.map_or(0.0, exp);
    if way.normalised {
        let l: f64 = weights.iter().sum::<f64>() + sunk;
        weights.iter_mut().for_each(|p| *p /= l);
    }
    weights.iter_mut().for_each(|p| *p = round(*p));
    answer.out.clear();
    answer.out.resize(dims, 0.0);
    if weights.is_empty() {
        return;
    }
    let tile = if way.tile == 0 { weights.len() } else { way.tile };
    let mut denominator = round(sunk);
    let mut sums = vec![0.0; dims];
    for (weights, rows) in weights.chunks(tile).zip(v.chunks(tile * dims)) {
        let mut mass = if way.tile == 0 { denominator } else { 0.0 };
        sums.fill(0.0);
        for (p, row) in weights.iter().zip(rows.chunks_exact(dims)) {
            mass = round(mass + p);
            for (sum, v) in sums.iter_mut().zip(row) {
                // why: the product of two 16-bit numbers, and its sum with a third, are exact in
                // f64 or rounded so far below that one rounding to 16 bits is the only one.
                *sum = if way.fused { round(*sum + p * v) } else { round(*sum + round(p * v)) };
            }
        }
        denominator = if way.tile == 0 { mass } else { round(denominator + mass) };
        for (out, sum) in answer.out.iter_mut().zip(&sums) {
            *out = round(*out + sum);
        }
    }
    if !way.normalised {
        answer.out.iter_mut().for_each(|o| *o /= denominator);
    }
}
