//! What a recipe makes of a unit: the output in f64 from the raw buffers, and the error bound of
//! that prediction.

use super::narrow::{narrow, row_sum, running_values, score, single_scores, sum_of_values};
use super::problem::{Memory, Problem, Task, Unit};
use super::recipe::{Cache, Combine, Form, How, Merge, Reading, Recipe};
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
    /// Elements of the output that the recipe says something of.
    said: usize,
}

impl Prediction {
    /// Over how many keys the weight of the prediction made last is spread.
    pub(super) fn spread(&self) -> f64 {
        let squares: f64 = self.answer.probs.iter().map(|p| p * p).sum();
        if squares > 0.0 { 1.0 / squares } else { 0.0 }
    }

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
        self.said = usize::MAX;
        if let Some(rows) = recipe.out_rows {
            return self.rows(problem, recipe, (unit, rows), dims);
        }
        let source = recipe.row.source(unit, problem).ok_or(OutOfRange)?;
        self.of_unit(problem, recipe, source, dims)
    }

    /// What lies where a unit's output should, of a kernel whose outputs are `rows` elements each,
    /// one after the other. What lies behind the last of them it never writes.
    fn rows(
        &mut self,
        problem: &Problem<'_>,
        recipe: &Recipe,
        (unit, rows): (usize, usize),
        dims: usize,
    ) -> Result<(), OutOfRange> {
        let (mut out, mut bounds) = (Vec::with_capacity(dims), Vec::with_capacity(dims));
        let first = unit * problem.head_dim_v;
        while out.len() < dims {
            let (row, from) = ((first + out.len()) / rows, (first + out.len()) % rows);
            if row >= problem.units.len() {
                break;
            }
            let to = rows.min(from + dims - out.len());
            self.of_unit(problem, recipe, row, to)?;
            out.extend_from_slice(&self.answer.out[from..]);
            bounds.extend_from_slice(&self.bound.out[from..]);
        }
        self.said = out.len();
        out.resize(dims, 0.0);
        bounds.resize(dims, 0.0);
        (self.answer.out, self.bound.out) = (out, bounds);
        Ok(())
    }

    /// Predicts what a recipe computes for a unit, wherever it lies.
    fn of_unit(
        &mut self,
        problem: &Problem<'_>,
        recipe: &Recipe,
        unit: usize,
        dims: usize,
    ) -> Result<(), OutOfRange> {
        let u = problem.units[unit];
        let keys = recipe.range(&u, problem);
        let (dim_k, dim_v) = recipe.dims(problem);
        self.k.clear();
        self.v.clear();
        let (reads_k, reads_v) = problem.task.reads();
        if reads_k {
            let rows = Rows { keys: &keys, bits: recipe.bits[0], dims: recipe.used, dim: dim_k };
            read(problem, &recipe.k, recipe.head(Cache::K, &u, problem), &rows, &mut self.k)?;
        }
        if reads_v {
            let rows = Rows { keys: &keys, bits: recipe.bits[1], dims, dim: dim_v };
            read(problem, &recipe.v, recipe.head(Cache::V, &u, problem), &rows, &mut self.v)?;
        }
        if recipe.current_zero && u.keys > 0 && keys.contains(&(u.keys - 1)) {
            let n = u.keys - 1 - keys.start;
            for (rows, dim) in [(&mut self.k, recipe.used), (&mut self.v, dims)] {
                rows.iter_mut().skip(n * dim).take(dim).for_each(|x| *x = 0.0);
            }
        }
        match problem.task {
            Task::Attend => self.attend(problem, recipe, unit, &keys, dims)?,
            Task::Scores => self.scores(problem, recipe, unit, &keys)?,
            Task::Weights => self.weights(problem, recipe, unit, &keys)?,
            Task::Mix => self.mix(problem, unit, &keys, dims)?,
            Task::Merge => self.merge(problem, recipe, unit, dims)?,
        }
        Ok(())
    }

    /// What the scores of a recipe come from, with the K rows that were read.
    fn dot<'s>(
        k: &'s [f64],
        problem: &'s Problem<'_>,
        recipe: &Recipe,
        unit: usize,
    ) -> Result<Scores<'s, f64>, OutOfRange> {
        Ok(Scores::Dot {
            q: recipe.query(unit, problem).ok_or(OutOfRange)?,
            k,
            scale: recipe.scale.of(problem),
            softcap: if recipe.form == Form::Uncapped { 0.0 } else { problem.softcap },
        })
    }

    fn attend(
        &mut self,
        problem: &Problem<'_>,
        recipe: &Recipe,
        unit: usize,
        keys: &Range<usize>,
        dims: usize,
    ) -> Result<(), OutOfRange> {
        let Prediction { answer, bound: limits, k, v, .. } = self;
        let from = Self::dot(k, problem, recipe, unit)?;
        let a = &problem.arithmetic;
        let sink = recipe.sink.logit(&problem.units[unit], keys, problem);
        score(&from, recipe.form, a, answer);
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
                return Ok(());
            }
            Combine::SumOfValues(sum, normalised) => {
                softmax(sink, answer);
                sum_of_values(&sum, normalised, v, dims, a, answer, &mut limits.out);
                return Ok(());
            }
            Combine::Running(dtype, tile) => {
                softmax(sink, answer);
                running_values((dtype, tile), sink, v, dims, a, answer, &mut limits.out);
                return Ok(());
            }
            Combine::Split(how, parts) if !keys.is_empty() => {
                split(how, &parts.lengths(keys), sink, problem.softcap > 0.0, answer);
            }
            _ => softmax(sink, answer),
        }
        mix(v, dims, answer);
        bound(&Head { scores: from, v, head_dim_v: dims, sink }, answer, a, limits);
        if let Combine::RowSum(sum) = recipe.combine {
            row_sum(&sum, sink, a, answer, &mut limits.out);
        }
        Ok(())
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
        let from = Self::dot(k, problem, recipe, unit)?;
        score(&from, recipe.form, &problem.arithmetic, answer);
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
        let sink = recipe.sink.logit(&problem.units[unit], keys, problem);
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
        let Prediction { answer, bound: limits, k, v, .. } = self;
        given(problem, unit, keys, k)?;
        answer.probs.clone_from(k);
        mix(v, dims, answer);
        bound_pv(v, dims, answer, &problem.arithmetic, &mut limits.out);
        Ok(())
    }

    /// Parts put together by their lse, which are given.
    fn merge(
        &mut self,
        problem: &Problem<'_>,
        recipe: &Recipe,
        unit: usize,
        dims: usize,
    ) -> Result<(), OutOfRange> {
        let Prediction { answer, bound: limits, k, v, .. } = self;
        let parts = 0..problem.capacity;
        given_as(problem, unit, recipe.merge, k)?;
        for (lse, row) in k.iter().zip(v.chunks_exact_mut(dims)) {
            // What an empty part left of its output has no weight, whatever it is.
            if *lse == f64::NEG_INFINITY && recipe.merge != Merge::EmptyAtZero {
                row.fill(0.0);
            }
        }
        match recipe.merge {
            Merge::Base2 => k.iter_mut().for_each(|lse| *lse *= std::f64::consts::LN_2),
            Merge::WithoutFirst => k[0] = f64::NEG_INFINITY,
            Merge::WithoutLast => k[parts.len() - 1] = f64::NEG_INFINITY,
            Merge::EmptyAtZero => {
                k.iter_mut().filter(|lse| **lse == f64::NEG_INFINITY).for_each(|lse| *lse = 0.0);
            }
            _ => {}
        }
        scores(&Scores::Given(&k[..]), answer);
        softmax(None, answer);
        let share = match recipe.merge {
            Merge::Sum => Some(1.0),
            Merge::Mean => {
                Some(1.0 / k.iter().filter(|lse| **lse > f64::NEG_INFINITY).count() as f64)
            }
            Merge::MeanOfAll => Some(1.0 / parts.len() as f64),
            _ => None,
        };
        if let Some(share) = share {
            let weights = answer.probs.iter_mut().zip(k.iter());
            weights.for_each(|(p, lse)| *p = if *lse > f64::NEG_INFINITY { share } else { 0.0 });
        }
        mix(v, dims, answer);
        let head = Head { scores: Scores::Given(&k[..]), v: &v[..], head_dim_v: dims, sink: None };
        bound(&head, answer, &problem.arithmetic, limits);
        Ok(())
    }

    /// The rows of K that the last prediction read, `[keys, used]`.
    pub(super) fn rows_of_k(&self) -> &[f64] {
        &self.k
    }

    /// The V rows of the prediction made last, `[keys, dims]`.
    pub fn values(&self) -> &[f64] {
        &self.v
    }

    /// The current token's V row as a recipe reads it, `[head_dim_v]`.
    pub fn current(&mut self, problem: &Problem<'_>, unit: usize, recipe: &Recipe) -> Vec<f64> {
        let u = problem.units[unit];
        let mut row = Vec::new();
        let dim = problem.head_dim_v;
        let keys = u.keys.saturating_sub(1)..u.keys;
        let rows = Rows { keys: &keys, bits: recipe.bits[1], dims: dim, dim };
        let _ = read(problem, &recipe.v, recipe.head(Cache::V, &u, problem), &rows, &mut row);
        row
    }

    /// How the prediction made last compares with the first elements of a unit's output.
    pub fn fit(&self, problem: &Problem<'_>, unit: usize) -> Fit {
        let said = self.said.min(self.answer.out.len());
        let (want, bounds) = (&self.answer.out[..said], &self.bound.out[..said]);
        fit(want, bounds, problem.output(unit), problem.arithmetic.out)
    }

    /// The elements that are predicted: some kernels never write the others.
    pub fn said(&self) -> usize {
        self.said.min(self.answer.out.len())
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

/// Rows of a head.
struct Rows<'r> {
    keys: &'r Range<usize>,
    /// Bits of a row's index; 0 for all.
    bits: u32,
    /// Elements of a row that are wanted.
    dims: usize,
    /// Those that a kernel would read: all of them must be in the buffer.
    dim: usize,
}

/// Reads rows of one head.
fn read(
    problem: &Problem<'_>,
    reading: &Reading,
    at: (usize, usize),
    rows: &Rows<'_>,
    to: &mut Vec<f64>,
) -> Result<(), OutOfRange> {
    let memory: &Memory<'_> = match reading.buffer {
        Cache::K => &problem.k,
        Cache::V => &problem.v,
    };
    for keys in runs(rows.keys, rows.bits) {
        let first = reading.first_inside(at, &keys, rows.dim, memory.len()).ok_or(OutOfRange)?;
        memory.gather(first, keys.len(), rows.dims, reading.step(), to);
    }
    Ok(())
}

/// The runs of rows that `keys` are where their index is cut to some bits; 0 for all of them.
pub fn runs(keys: &Range<usize>, bits: u32) -> Vec<Range<usize>> {
    if keys.is_empty() {
        return Vec::new();
    }
    if bits == 0 {
        return vec![keys.clone()];
    }
    let size = 1usize << bits;
    let mut runs = Vec::new();
    let mut at = keys.start;
    while at < keys.end {
        let end = keys.end.min((at / size + 1) * size);
        runs.push(at % size..at % size + end - at);
        at = end;
    }
    runs
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

/// The lse of a unit's parts, `[parts]`, as they are read.
fn given_as(
    problem: &Problem<'_>,
    unit: usize,
    merge: Merge,
    to: &mut Vec<f64>,
) -> Result<(), OutOfRange> {
    let memory = problem.given.as_ref().ok_or(OutOfRange)?;
    let Unit { s, h, .. } = problem.units[unit];
    let (batch, heads, parts) = (problem.batch(), problem.num_heads, problem.capacity);
    let at = |part: usize| match merge {
        Merge::HeadsOutside => (h * batch + s) * parts + part,
        Merge::PartsOutside => (part * batch + s) * heads + h,
        _ => memory.place.index(s, 0, h, part, 0),
    };
    to.extend((0..parts).map(|part| memory.at(at(part))));
    Ok(())
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
        let Prediction { answer, bound: limits, k, v, .. } = prediction;
        let Ok(scores) = Prediction::dot(k, problem, &recipe, unit) else {
            unreachable!("the right queries are all there");
        };
        let head = Head { scores, v, head_dim_v: problem.head_dim_v, sink: problem.sink(unit) };
        bound(&head, answer, arithmetic, limits);
    }
    prediction.fit(problem, unit)
}
