//! The row that is gone: a kernel that read the current token's slot before it was written leaves
//! an output made with a row that the capture no longer has.
//!
//! With `o'` a head's right answer over the other keys, `w` the weight of the missing row and `v`
//! its values, `out = o' + w (v - o')`. `v` is one row for the heads that share a KV head, `w` one
//! number a head: with `a = 1 / w`, `o' + a (out - o')` is the same point for all of them. Two heads
//! give `head_dim_v` equations for two unknowns; with one, any output can be solved for. Heads whose
//! outputs are alike, or whose points lie on one line, say no more than one head does: an output that
//! was never written, zeros for all heads, agrees on a row of zeros that has all the weight.

use super::CHANCE;
use super::predict::{Fit, Prediction, fit, right};
use super::problem::Problem;
use super::recipe::{End, Recipe};
use crate::oracle::{Answer, Bound, Head, Scores, bound};

/// A missing row, solved for.
#[derive(Debug, Clone, PartialEq)]
pub struct Missing {
    /// How the outputs compare with those made of it.
    pub fit: Fit,
    /// By unit: the weight that the missing row had.
    pub weights: Vec<f64>,
    /// By unit: its fit.
    pub fits: Vec<Fit>,
}

/// Why no missing row was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotInferred {
    /// A KV head is shared by one query head only: any output can be solved for.
    OneHead,
    /// The heads do not agree on one row.
    Inconsistent,
    /// The row that they agree on is the one that is there, or a mix of those that are.
    NotMissing,
    /// The heads agree on a row, but heads so much alike would agree whatever the fault was.
    Alike,
}

/// Bounds below this are taken as this: their squares must not vanish.
const LEAST: f64 = 1e-100;

/// An output with its bound, `[head_dim_v]` each.
type Made = (Vec<f64>, Vec<f64>);

/// The heads that share a KV head of a sequence, without the current row.
struct Group<'p> {
    units: Vec<usize>,
    /// `[heads][head_dim_v]`: the answer over the other keys, and the output minus it.
    without: Vec<Vec<f64>>,
    apart: Vec<Vec<f64>>,
    /// The bound of that answer.
    bounds: Vec<Vec<f64>>,
    /// Whether the output is beyond it.
    needs: Vec<bool>,
    /// The output minus the right answer, and whether it is right.
    off: Vec<Vec<f64>>,
    is_right: Vec<bool>,
    observed: Vec<&'p [f64]>,
}

/// Solves for the current row of every KV head.
///
/// # Errors
/// [`NotInferred`].
pub fn missing_row(problem: &Problem<'_>) -> Result<Missing, NotInferred> {
    if problem.group() < 2 {
        return Err(NotInferred::OneHead);
    }
    let units = problem.units.len();
    let mut missing =
        Missing { fit: Fit::NONE, weights: vec![0.0; units], fits: vec![Fit::NONE; units] };
    let (mut moved, mut there, mut evidence) = (false, true, 0.0);
    let mut prediction = Prediction::default();
    let mut at = 0;
    while at < units {
        let of = |u: usize| {
            (problem.units[u].s, problem.units[u].h / problem.group(), problem.units[u].keys)
        };
        let members: Vec<usize> = (at..units).take_while(|u| of(*u) == of(at)).collect();
        at += members.len();
        if problem.units[members[0]].keys == 0 {
            continue;
        }
        let group = Group::new(problem, members, &mut prediction);
        if group.observed.iter().any(|o| o.iter().any(|x| !x.is_finite())) {
            return Err(NotInferred::Inconsistent);
        }
        // What is right without further ado says nothing against a row that others missed.
        if group.is_right.iter().all(|right| *right) {
            continue;
        }
        moved = true;
        let (row, weights) = group.solve().ok_or(NotInferred::Inconsistent)?;
        let made = group.made(problem, &row, &weights, &mut prediction);
        let made = made.ok_or(NotInferred::Inconsistent)?;
        let errors = group.errors(&row);
        for (i, unit) in group.units.iter().enumerate() {
            let fit = group.fit(problem, i, &made, &errors);
            if !fit.fits() {
                return Err(NotInferred::Inconsistent);
            }
            missing.fit = missing.fit.and(fit);
            (missing.weights[*unit], missing.fits[*unit]) = (weights[i], fit);
        }
        there &= group.is_stored(problem, &mut prediction)
            || group.is_mixed(problem, &row, &weights, &mut prediction);
        evidence += group.evidence();
    }
    match (moved, there) {
        (true, false) if evidence > -libm::log(CHANCE) => Ok(missing),
        (true, false) => Err(NotInferred::Alike),
        (true, true) => Err(NotInferred::NotMissing),
        (false, _) => Err(NotInferred::Inconsistent),
    }
}

impl<'p> Group<'p> {
    fn new(problem: &'p Problem<'_>, units: Vec<usize>, prediction: &mut Prediction) -> Group<'p> {
        let mut recipe = Recipe::right(problem);
        recipe.keys.end = End::MinusOne;
        let (mut without, mut apart, mut bounds) = (Vec::new(), Vec::new(), Vec::new());
        let (mut needs, mut off, mut is_right) = (Vec::new(), Vec::new(), Vec::new());
        let observed: Vec<&[f64]> = units.iter().map(|u| problem.output(*u)).collect();
        for (unit, out) in units.iter().zip(&observed) {
            // The right keys but the last are inside whatever is.
            let made = prediction.make(problem, &recipe, *unit, problem.head_dim_v);
            let answer = if made.is_ok() { prediction.answer.out.clone() } else { out.to_vec() };
            needs.push(!prediction.fit(problem, *unit).fits());
            let differences: Vec<f64> = out.iter().zip(&answer).map(|(o, a)| o - a).collect();
            // It is the output that was rounded to its type, and not the answer without the row.
            let a = &problem.arithmetic;
            let rounding = 2.0 * a.accumulate.unit_roundoff() + a.u_out();
            let own = prediction.bound.out.iter().zip(out.iter().zip(&answer));
            let own =
                own.map(|(b, (o, without))| b - a.u_out() * without.abs() + rounding * o.abs());
            bounds.push(own.map(|b| b.max(LEAST)).collect());
            apart.push(differences);
            without.push(answer);
            is_right.push(right(problem, *unit, a, prediction).fits());
            off.push(out.iter().zip(&prediction.answer.out).map(|(o, right)| o - right).collect());
        }
        Group { units, without, apart, bounds, needs, off, is_right, observed }
    }

    /// The head that moved the most, of some.
    fn farthest(&self, heads: impl Iterator<Item = usize>) -> Option<usize> {
        let size = |h: &usize| self.apart[*h].iter().map(|x| x * x).sum::<f64>();
        heads.max_by(|a, b| size(a).total_cmp(&size(b)))
    }

    /// The logarithm of how rarely chance would make the heads agree on one row.
    ///
    /// Each is held against the one that moved the most. Two lines that are one have every point in
    /// common; where two outputs are equal, a weight of 1 for both makes them the row; and a row
    /// takes up noise that is hardly beyond the bound. So what counts is the least, in units of the
    /// bounds, of how far the head's line leaves the other's direction, how far the two outputs are
    /// apart, and how far each is from the right answer, and from that without the row. An element
    /// a head is spent on its weight, and one more on where on the line the row lies.
    fn evidence(&self) -> f64 {
        let Some(far) = self.farthest(0..self.units.len()) else { return 0.0 };
        let mut left: Vec<f64> = Vec::new();
        for h in (0..self.units.len()).filter(|h| *h != far) {
            let of = |h: usize| (&self.apart[h], &self.bounds[h], &self.off[h], self.observed[h]);
            let ((r, own, off, out), (along, other, off_far, out_far)) = (of(h), of(far));
            let dims = 0..r.len();
            let dot: f64 = dims.clone().map(|d| r[d] / own[d] * (along[d] / own[d])).sum();
            let squares: f64 =
                dims.clone().map(|d| (along[d] / own[d]) * (along[d] / own[d])).sum();
            let share = if squares > 0.0 { dot / squares } else { 0.0 };
            let told = |distance: &dyn Fn(usize) -> (f64, f64)| -> Vec<f64> {
                let logs = dims.clone().map(distance);
                logs.map(|(x, bound)| libm::log((x.abs() / bound).max(1.0))).collect()
            };
            let ways = [
                told(&|d| (r[d] - share * along[d], own[d] + share.abs() * other[d])),
                told(&|d| (out[d] - out_far[d], own[d] + other[d])),
                told(&|d| (r[d], own[d])),
                told(&|d| (along[d], other[d])),
                told(&|d| (off[d], own[d])),
                told(&|d| (off_far[d], other[d])),
            ];
            let total = |logs: &Vec<f64>| logs.iter().sum::<f64>();
            let least = ways.into_iter().min_by(|a, b| total(a).total_cmp(&total(b)));
            let mut least = least.unwrap_or_default();
            least.sort_by(|a, b| b.total_cmp(a));
            left.extend(least.iter().skip(1));
        }
        left.iter().sum::<f64>() - left.iter().copied().fold(0.0, f64::max)
    }

    /// What each head's output is with a row and its weights, and the bound of that; `None` where a
    /// row without weight is to have moved an output.
    fn made(
        &self,
        problem: &Problem<'_>,
        row: &[f64],
        weights: &[f64],
        prediction: &mut Prediction,
    ) -> Option<Vec<Made>> {
        if self.needs.iter().zip(weights).any(|(needs, w)| *needs && *w == 0.0) {
            return None;
        }
        let heads = self.units.iter().zip(weights);
        heads.map(|(unit, w)| predicted(problem, *unit, row, *w, prediction)).collect()
    }

    /// How a head's output compares with what was made of it.
    fn fit(&self, problem: &Problem<'_>, head: usize, made: &[Made], errors: &[Vec<f64>]) -> Fit {
        let (out, bound) = &made[head];
        let limits: Vec<f64> = bound.iter().zip(&errors[head]).map(|(b, e)| b + e).collect();
        fit(out, &limits, self.observed[head], problem.arithmetic.out)
    }

    /// Whether the row that the capture holds does as well, with other weights: then none is missing.
    fn is_stored(&self, problem: &Problem<'_>, prediction: &mut Prediction) -> bool {
        let row = prediction.current(problem, self.units[0], &Recipe::right(problem));
        let weights = self.weigh(&row).0;
        let Some(made) = self.made(problem, &row, &weights, prediction) else { return false };
        let errors = self.errors(&row);
        (0..self.units.len()).all(|head| self.fit(problem, head, &made, &errors).fits())
    }

    /// Whether a row is a mix of those that are attended: then the outputs may be made of the rows
    /// that are there, weighted otherwise, and two heads' lines meet in a plane whatever made them.
    fn is_mixed(
        &self,
        problem: &Problem<'_>,
        row: &[f64],
        weights: &[f64],
        prediction: &mut Prediction,
    ) -> bool {
        let (right, dim) = (Recipe::right(problem), row.len());
        if prediction.make(problem, &right, self.units[0], dim).is_err() {
            return false;
        }
        let mut rows = prediction.values().chunks_exact(dim);
        let Some(origin) = rows.next().filter(|_| rows.len() < dim) else { return false };
        let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
        let from_origin =
            |x: &[f64]| x.iter().zip(origin).map(|(x, o)| x - o).collect::<Vec<f64>>();
        // What is left of a vector beside those before it (Gram and Schmidt, twice for rounding).
        let mut basis: Vec<Vec<f64>> = Vec::new();
        let beside = |basis: &[Vec<f64>], mut x: Vec<f64>| {
            for b in basis.iter().chain(basis) {
                let along = dot(b, &x);
                x.iter_mut().zip(b).for_each(|(x, b)| *x -= along * b);
            }
            x
        };
        for other in rows {
            let x = from_origin(other);
            let size = dot(&x, &x).sqrt();
            let left = beside(&basis, x);
            let length = dot(&left, &left).sqrt();
            if length > 1e-9 * size {
                basis.push(left.into_iter().map(|x| x / length).collect());
            }
        }
        let left = beside(&basis, from_origin(row));
        // Each head allows its own bound over its weight to either side; the narrowest counts.
        let slack = |d: usize| {
            let heads = weights.iter().zip(&self.bounds).filter(|(w, _)| **w > 0.0);
            2.0 * heads.map(|(w, b)| b[d] / w).fold(f64::INFINITY, f64::min)
        };
        let slack: Vec<f64> = (0..dim).map(slack).collect();
        dot(&left, &left) <= dot(&slack, &slack)
    }

    /// By head and element: how far a prediction can be off because the weights were solved for from
    /// outputs that err by their own bounds b, to first order: with `x = v - o'`, the least squares
    /// `w = sum r x / b^2 / sum (x / b)^2` errs by at most `sum |x| / b / sum (x / b)^2`. The row adds
    /// nothing: with the true weights the true row is within every bound, and the row with the
    /// smallest largest error is within them all the more.
    fn errors(&self, row: &[f64]) -> Vec<Vec<f64>> {
        let heads = self.without.iter().zip(&self.bounds);
        heads
            .map(|(without, bounds)| {
                let x: Vec<f64> = row.iter().zip(without).map(|(v, o)| (v - o).abs()).collect();
                let terms = x.iter().zip(bounds).map(|(x, b)| x / b);
                let (sum, squares) = terms.fold((0.0, 0.0), |(s, q), x| (s + x, q + x * x));
                let of_weight = if squares > 0.0 { sum / squares } else { 0.0 };
                x.iter().map(|x| of_weight * x).collect()
            })
            .collect()
    }

    /// The row and each head's weight, by least squares in units of the bounds; `None` where there
    /// are no more equations than unknowns.
    ///
    /// The row lies on the ray of the head that moved the most, `o' + r / w`: one unknown, which is
    /// searched, as lines that are all but parallel leave it nearly free; then the row is refined.
    fn solve(&self) -> Option<(Vec<f64>, Vec<f64>)> {
        /// Weights that are tried, from 1 down to 2^-12, then so many closer and closer about the
        /// best.
        const GRID: usize = 96;
        const CLOSER: usize = 40;
        let dim = self.observed[0].len();
        let heads: Vec<usize> = (0..self.units.len()).filter(|i| self.needs[*i]).collect();
        if heads.len() < 2 || heads.len() * dim <= dim + heads.len() {
            return None;
        }
        let far = self.farthest(heads.into_iter())?;
        let on_ray = |log_w: f64| -> Vec<f64> {
            let a = libm::exp2(-log_w.min(0.0));
            self.without[far].iter().zip(&self.apart[far]).map(|(o, r)| o + a * r).collect()
        };
        let search = |cost: &dyn Fn(&[f64]) -> f64| {
            let cost = |log_w: f64| cost(&on_ray(log_w));
            let step = 12.0 / GRID as f64;
            let grid = (0..=GRID).map(|i| -(i as f64) * step);
            let mut best = grid.min_by(|a, b| cost(*a).total_cmp(&cost(*b))).unwrap_or(0.0);
            let mut reach = step;
            for _ in 0..CLOSER {
                let nearer = [best - reach, best, best + reach].map(|w| w.min(0.0));
                let nearest = nearer.into_iter().min_by(|a, b| cost(*a).total_cmp(&cost(*b)));
                best = nearest.unwrap_or(best);
                reach *= 0.7;
            }
            on_ray(best)
        };
        let squares = search(&|row| self.weigh(row).1);
        let largest = search(&|row| self.largest(row));
        let rows = [squares, largest].map(|row| self.refined(row));
        let best = rows.into_iter().min_by(|a, b| self.largest(a).total_cmp(&self.largest(b)));
        best.map(|row| {
            let weights = self.weigh(&row).0;
            (row, weights)
        })
    }

    /// The largest error with a row and its best weights, in units of the bounds.
    fn largest(&self, row: &[f64]) -> f64 {
        let weights = self.weigh(row).0;
        let heads = weights.iter().enumerate();
        let errors = heads.flat_map(|(h, w)| {
            let off = move |d: usize| w * (row[d] - self.without[h][d]) - self.apart[h][d];
            (0..row.len()).map(move |d| off(d).abs() / self.bounds[h][d])
        });
        errors.fold(0.0, f64::max)
    }

    /// The weights that fit a row best, and the squared errors in units of the bounds.
    fn weigh(&self, row: &[f64]) -> (Vec<f64>, f64) {
        let (mut weights, mut cost) = (Vec::with_capacity(self.units.len()), 0.0);
        for h in 0..self.units.len() {
            let of = |d: usize| {
                let b = self.bounds[h][d];
                ((row[d] - self.without[h][d]) / b, self.apart[h][d] / b)
            };
            let (mut dot, mut squares) = (0.0, 0.0);
            for (x, r) in (0..row.len()).map(of) {
                dot += r * x;
                squares += x * x;
            }
            let w = if squares > 0.0 { (dot / squares).clamp(0.0, 1.0) } else { 0.0 };
            cost += (0..row.len()).map(of).map(|(x, r)| (w * x - r) * (w * x - r)).sum::<f64>();
            weights.push(w);
        }
        (weights, cost)
    }

    /// A row made better, element by element and then the weights, as long as its largest error
    /// falls: what fits best on average may miss an element that a neighbour does not.
    fn refined(&self, row: Vec<f64>) -> Vec<f64> {
        const STEPS: usize = 20;
        let (mut best, mut least) = (row.clone(), self.largest(&row));
        let mut row = row;
        for _ in 0..STEPS {
            let weights = self.weigh(&row).0;
            for (d, x) in row.iter_mut().enumerate() {
                *x = self.element(d, &weights).unwrap_or(*x);
            }
            let largest = self.largest(&row);
            if largest < least {
                (best, least) = (row.clone(), largest);
            }
        }
        best
    }

    /// The element of the row whose largest error over the heads is least: a convex function of it,
    /// so its minimum lies between the values that each head alone would have.
    fn element(&self, d: usize, weights: &[f64]) -> Option<f64> {
        const THIRDS: usize = 100;
        let heads = || (0..weights.len()).filter(|h| weights[*h] > 0.0);
        let alone = |h: usize| self.without[h][d] + self.apart[h][d] / weights[h];
        let mut low = heads().map(alone).fold(f64::INFINITY, f64::min);
        let mut high = heads().map(alone).fold(f64::NEG_INFINITY, f64::max);
        let largest = |v: f64| {
            let error = |h: usize| {
                let off = weights[h] * (v - self.without[h][d]) - self.apart[h][d];
                off.abs() / self.bounds[h][d]
            };
            heads().map(error).fold(0.0, f64::max)
        };
        for _ in 0..THIRDS {
            let third = (high - low) / 3.0;
            if largest(low + third) < largest(high - third) {
                high -= third;
            } else {
                low += third;
            }
        }
        (low <= high).then_some((low + high) / 2.0)
    }
}

/// A unit's output where its current row is `row` with weight `w`, and the bound of that; `None` where
/// the other keys cannot be read.
fn predicted(
    problem: &Problem<'_>,
    unit: usize,
    row: &[f64],
    w: f64,
    prediction: &mut Prediction,
) -> Option<Made> {
    let mut recipe = Recipe::right(problem);
    recipe.keys.end = End::MinusOne;
    prediction.make(problem, &recipe, unit, problem.head_dim_v).ok()?;
    let mut answer: Answer = prediction.answer.clone();
    let mut v = prediction.values().to_vec();
    v.extend_from_slice(row);
    answer.probs.iter_mut().for_each(|p| *p *= 1.0 - w);
    answer.probs.push(w);
    // Its score follows from its weight; the errors of a missing key's are those of the largest.
    let odds = (w / (1.0 - w)).clamp(1e-300, 1e300);
    let score = if answer.lse.is_finite() { answer.lse + libm::log(odds) } else { 0.0 };
    answer.lse = if answer.lse.is_finite() { answer.lse + libm::log1p(odds) } else { score };
    answer.scores.push(score);
    let largest = answer.abs_scores.iter().copied().fold(score.abs(), f64::max);
    answer.abs_scores.push(largest);
    answer.max = answer.max.max(score);
    answer.denominator = answer.denominator.max(1.0);
    for (o, v) in answer.out.iter_mut().zip(row) {
        *o += w * (v - *o);
    }
    let from = Scores::Dot {
        q: problem.query(unit),
        k: &[],
        scale: problem.scale,
        softcap: problem.softcap,
    };
    let sink = problem.sink(unit);
    let head = Head { scores: from, v: &v, head_dim_v: problem.head_dim_v, sink };
    let mut limits = Bound::default();
    bound(&head, &answer, &problem.arithmetic, &mut limits);
    Some((answer.out, limits.out))
}
