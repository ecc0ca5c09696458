//! What a recipe makes of a unit: the output in f64 from the raw buffers, and the error bound of
//! that prediction.

use super::problem::{Memory, Problem, Task};
use super::recipe::{Cache, Combine, How, Narrow, Reading, Recipe};
use crate::judge::compare;
use crate::oracle::{
    Answer, Arithmetic, Bound, Head, Scores, bound, bound_pv, bound_scores, bound_softmax, mix,
    scores, softmax,
};
use crate::problem::{Axis, DType};
use std::ops::Range;

/// A prediction would read an address that the buffer does not have, or is none of this task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutOfRange;

/// How an output compares with a prediction.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fit {
    /// The largest error over its bound.
    pub ratio: f64,
    /// The mean absolute error over the finite elements.
    pub mae: f64,
    /// Elements that are finite on both sides.
    pub finite: usize,
}

impl Fit {
    /// Whether every element is within its bound.
    pub fn fits(&self) -> bool {
        self.ratio <= 1.0
    }

    /// The fit of two sets of elements together.
    pub fn and(self, other: Fit) -> Fit {
        let finite = self.finite + other.finite;
        let mean = |f: Fit| if f.finite == 0 { 0.0 } else { f.mae * f.finite as f64 };
        let mae = (mean(self) + mean(other)) / finite.max(1) as f64;
        Fit { ratio: self.ratio.max(other.ratio), mae, finite }
    }

    /// The fit of nothing.
    pub const NONE: Fit = Fit { ratio: 0.0, mae: 0.0, finite: 0 };
}

/// A prediction, in memory that is used again.
#[derive(Debug, Default)]
pub struct Prediction {
    /// The right quantities of the recipe's own softmax.
    pub answer: Answer,
    /// The bound of [`Answer::out`].
    pub bound: Bound,
    /// K rows `[keys, used]`.
    k: Vec<f64>,
    /// V rows `[keys, dims]`.
    v: Vec<f64>,
}

impl Prediction {
    /// The rows of V that the last prediction read, `[keys, dims]`.
    pub(super) fn rows_of_v(&self) -> &[f64] {
        &self.v
    }

    /// Predicts a unit's output, of a head vector the first `dims` elements, with its bound.
    ///
    /// # Errors
    /// [`OutOfRange`].
    pub fn make(
        &mut self,
        problem: &Problem<'_>,
        recipe: &Recipe,
        unit: usize,
        dims: usize,
    ) -> Result<(), OutOfRange> {
        let u = problem.units[unit];
        let keys = recipe.range(&u, problem);
        let head = recipe.heads.of(u.h, problem.group(), problem.num_kv_heads);
        let at = (u.s, head);
        self.k.clear();
        self.v.clear();
        let (reads_k, reads_v) = problem.task.reads();
        if reads_k {
            read(problem, &recipe.k, at, &keys, (recipe.used, problem.head_dim), &mut self.k)?;
        }
        if reads_v {
            read(problem, &recipe.v, at, &keys, (dims, problem.head_dim_v), &mut self.v)?;
        }
        if recipe.current_zero && u.keys > 0 && keys.contains(&(u.keys - 1)) {
            let n = u.keys - 1 - keys.start;
            for (rows, dim) in [(&mut self.k, recipe.used), (&mut self.v, dims)] {
                rows.iter_mut().skip(n * dim).take(dim).for_each(|x| *x = 0.0);
            }
        }
        match problem.task {
            Task::Attend => self.attend(problem, recipe, unit, &keys, dims),
            Task::Scores => self.scores(problem, recipe, unit, &keys)?,
            Task::Weights => self.weights(problem, recipe, unit, &keys)?,
            Task::Mix => self.mix(problem, unit, &keys, dims)?,
        }
        Ok(())
    }

    /// What the scores of a recipe come from, with the K rows that were read.
    fn dot<'s>(
        k: &'s [f64],
        problem: &'s Problem<'_>,
        recipe: &Recipe,
        unit: usize,
    ) -> Scores<'s, f64> {
        Scores::Dot {
            q: &problem.query(unit)[..recipe.used],
            k,
            scale: recipe.scale.of(problem),
            softcap: problem.softcap,
        }
    }

    fn attend(
        &mut self,
        problem: &Problem<'_>,
        recipe: &Recipe,
        unit: usize,
        keys: &Range<usize>,
        dims: usize,
    ) {
        let Prediction { answer, bound: limits, k, v } = self;
        let from = Self::dot(k, problem, recipe, unit);
        let a = &problem.arithmetic;
        let sink = problem.sink(unit);
        scores(&from, answer);
        match recipe.combine {
            Combine::Narrow(way) => {
                softmax(sink, answer);
                if way.single {
                    single_scores(&from, answer);
                }
                narrow(&way, sink, v, dims, answer);
                // The sequence of roundings is the prediction: what is left is the division's own.
                let u = DType::F32.unit_roundoff();
                let stored = a.out.unit_roundoff().max(u);
                let own = |o: &f64| (u + stored) * o.abs() + a.out.min_subnormal() / 2.0;
                limits.out.clear();
                limits.out.extend(answer.out.iter().map(own));
                return;
            }
            Combine::Split(how, parts) if !keys.is_empty() => {
                split(how, &parts.lengths(keys), sink, problem.softcap > 0.0, answer);
            }
            _ => softmax(sink, answer),
        }
        mix(v, dims, answer);
        bound(&Head { scores: from, v, head_dim_v: dims, sink }, answer, a, limits);
    }

    /// Scores of the attended keys.
    fn scores(
        &mut self,
        problem: &Problem<'_>,
        recipe: &Recipe,
        unit: usize,
        keys: &Range<usize>,
    ) -> Result<(), OutOfRange> {
        // There is one for each attended key, whichever row it was computed from.
        if keys.len() != problem.attended(unit).len() {
            return Err(OutOfRange);
        }
        let Prediction { answer, bound, k, .. } = self;
        let from = Self::dot(k, problem, recipe, unit);
        scores(&from, answer);
        bound_scores(&from, answer, &problem.arithmetic, &mut bound.out);
        answer.out.clone_from(&answer.scores);
        Ok(())
    }

    /// Weights of the attended keys, from scores that are given.
    fn weights(
        &mut self,
        problem: &Problem<'_>,
        recipe: &Recipe,
        unit: usize,
        keys: &Range<usize>,
    ) -> Result<(), OutOfRange> {
        let Prediction { answer, bound: limits, k, .. } = self;
        given(problem, unit, keys, k)?;
        scores(&Scores::Given(&k[..]), answer);
        let sink = problem.sink(unit);
        match recipe.combine {
            Combine::Split(how, parts) if !keys.is_empty() => {
                split(how, &parts.lengths(keys), sink, false, answer);
            }
            _ => softmax(sink, answer),
        }
        let mut bounds = Vec::new();
        bound_softmax(sink.is_some(), answer, &problem.arithmetic, &mut bounds);
        // Keys that were left out have no weight.
        let attended = problem.attended(unit);
        let nothing = problem.arithmetic.accumulate.min_subnormal();
        (answer.out, limits.out) = attended
            .map(|n| match n.checked_sub(keys.start).filter(|_| keys.contains(&n)) {
                Some(i) => (answer.probs[i], bounds[i]),
                None => (0.0, nothing),
            })
            .unzip();
        Ok(())
    }

    /// P·V with weights that are given.
    fn mix(
        &mut self,
        problem: &Problem<'_>,
        unit: usize,
        keys: &Range<usize>,
        dims: usize,
    ) -> Result<(), OutOfRange> {
        let Prediction { answer, bound: limits, k, v } = self;
        given(problem, unit, keys, k)?;
        answer.probs.clone_from(k);
        mix(v, dims, answer);
        bound_pv(v, dims, answer, &problem.arithmetic, &mut limits.out);
        Ok(())
    }

    /// The V rows of the prediction made last, `[keys, dims]`.
    pub fn values(&self) -> &[f64] {
        &self.v
    }

    /// The current token's V row as a recipe reads it, `[head_dim_v]`.
    pub fn current(&mut self, problem: &Problem<'_>, unit: usize, recipe: &Recipe) -> Vec<f64> {
        let u = problem.units[unit];
        let head = recipe.heads.of(u.h, problem.group(), problem.num_kv_heads);
        let mut row = Vec::new();
        let dims = (problem.head_dim_v, problem.head_dim_v);
        let keys = u.keys.saturating_sub(1)..u.keys;
        let _ = read(problem, &recipe.v, (u.s, head), &keys, dims, &mut row);
        row
    }

    /// How the prediction made last compares with the first elements of a unit's output.
    pub fn fit(&self, problem: &Problem<'_>, unit: usize) -> Fit {
        fit(&self.answer.out, &self.bound.out, problem.output(unit), problem.arithmetic.out)
    }
}

/// How observed elements compare with predicted ones.
pub fn fit(predicted: &[f64], bounds: &[f64], observed: &[f64], stored: DType) -> Fit {
    let mut fit = Fit::NONE;
    for ((want, bound), got) in predicted.iter().zip(bounds).zip(observed) {
        let ratio = compare::ratio(*got, *want, *bound, stored);
        fit.ratio = if ratio.is_nan() { f64::INFINITY } else { fit.ratio.max(ratio) };
        if got.is_finite() && want.is_finite() {
            fit.mae += (got - want).abs();
            fit.finite += 1;
        }
    }
    fit.mae /= fit.finite.max(1) as f64;
    fit
}

/// Reads the first `dims` elements of rows `keys` of one head; `dim` are those that a kernel
/// would read, and all of them must be in the buffer.
fn read(
    problem: &Problem<'_>,
    reading: &Reading,
    at: (usize, usize),
    keys: &Range<usize>,
    (dims, dim): (usize, usize),
    to: &mut Vec<f64>,
) -> Result<(), OutOfRange> {
    if keys.is_empty() {
        return Ok(());
    }
    let memory: &Memory<'_> = match reading.buffer {
        Cache::K => &problem.k,
        Cache::V => &problem.v,
    };
    let first = reading.first_inside(at, keys, dim, memory.len()).ok_or(OutOfRange)?;
    memory.gather(first, keys.len(), dims, reading.step(), to);
    Ok(())
}

/// The weights that a wrong merge of parts gives the keys, whose scores are in `answer`; a sink
/// belongs to the first part.
///
/// The errors of a part's maximum do not cancel where parts are added as they are: each key's score
/// then errs by its maximum's too, which is put into `abs_scores`.
fn split(how: How, lengths: &[usize], sink: Option<f64>, capped: bool, answer: &mut Answer) {
    let mut weights = Vec::with_capacity(answer.scores.len());
    let mut largest = f64::NEG_INFINITY;
    let (mut total, mut first) = (0.0, 0);
    for (i, len) in lengths.iter().enumerate() {
        let part = &answer.scores[first..first + len];
        let sink = sink.filter(|_| i == 0);
        let max = part.iter().copied().chain(sink).fold(f64::NEG_INFINITY, f64::max);
        let exp = |s: f64| libm::exp(s - max);
        let l = part.iter().map(|s| exp(*s)).sum::<f64>() + sink.map_or(0.0, exp);
        largest = largest.max(max);
        let share = match how {
            How::Sum => {
                total += l;
                1.0
            }
            How::Mean => 1.0 / (l * lengths.len() as f64),
        };
        weights.extend(part.iter().map(|s| share * exp(*s)));
        if how == How::Sum {
            let reach = answer.abs_scores[first..first + len].iter().copied().fold(0.0, f64::max);
            // Three times the score covers the softcap's own errors, in units of Q·K's.
            let bent = if capped { 3.0 * max.abs() } else { 0.0 };
            answer.abs_scores[first..first + len].iter_mut().for_each(|s| *s += reach + bent);
        }
        first += len;
    }
    let total = if how == How::Sum { total } else { 1.0 };
    weights.iter_mut().for_each(|w| *w /= total);
    answer.probs = weights;
    answer.max = largest;
    answer.denominator = total;
    answer.lse = largest + libm::log(total);
}

/// Appends what is given of rows `keys` of a unit.
fn given(
    problem: &Problem<'_>,
    unit: usize,
    keys: &Range<usize>,
    to: &mut Vec<f64>,
) -> Result<(), OutOfRange> {
    let memory = problem.given.as_ref().ok_or(OutOfRange)?;
    let u = problem.units[unit];
    let place = &memory.place;
    let at = place.index(u.s, 0, u.h, 0, 0) + keys.start * place.stride(Axis::Token);
    let last = at + keys.len().saturating_sub(1) * place.stride(Axis::Token);
    if !keys.is_empty() && last >= memory.len() {
        return Err(OutOfRange);
    }
    memory.gather(at, keys.len(), 1, (place.stride(Axis::Token), 1), to);
    Ok(())
}

/// Scores in f32, one fused multiply-add a key element, as a plain kernel computes them.
fn single_scores(from: &Scores<'_, f64>, answer: &mut Answer) {
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
fn narrow(way: &Narrow, sink: Option<f64>, v: &[f64], dims: usize, answer: &mut Answer) {
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

/// What the right answer of a unit is, under other promises than the problem's.
pub fn right(
    problem: &Problem<'_>,
    unit: usize,
    arithmetic: &Arithmetic,
    prediction: &mut Prediction,
) -> Fit {
    let recipe = Recipe::right(problem);
    if prediction.make(problem, &recipe, unit, problem.head_dim_v).is_err() {
        return Fit { ratio: f64::INFINITY, mae: f64::INFINITY, finite: 0 };
    }
    if *arithmetic != problem.arithmetic && problem.task == Task::Attend {
        let Prediction { answer, bound: limits, k, v } = prediction;
        let scores = Prediction::dot(k, problem, &recipe, unit);
        let head = Head { scores, v, head_dim_v: problem.head_dim_v, sink: problem.sink(unit) };
        bound(&head, answer, arithmetic, limits);
    }
    prediction.fit(problem, unit)
}
