//! The row that is gone: a kernel that read the current token's slot before it was written leaves
//! an output made with a row that the capture no longer has.
//!
//! With `o'` a head's right answer over the other keys, `w` the weight of the missing row and `v`
//! its values, `out = o' + w (v - o')`. `v` is one row for the heads that share a KV head, `w` one
//! number a head: with `a = 1 / w`, `o' + a (out - o')` is the same point for all of them. Two heads
//! give `head_dim_v` equations for two unknowns; with one, any output can be solved for.

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
    /// The row that they agree on is the one that is there.
    NotMissing,
}

/// The heads that share a KV head of a sequence, without the current row.
struct Group<'p> {
    units: Vec<usize>,
    /// `[heads][head_dim_v]`: the answer over the other keys, and the output minus it.
    without: Vec<Vec<f64>>,
    apart: Vec<Vec<f64>>,
    /// Whether the output is beyond the bound of that answer.
    needs: Vec<bool>,
    /// By head: what its output tells of the missing row, as the logarithm of how rarely chance
    /// would put it on a given line.
    tells: Vec<f64>,
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
    let (mut moved, mut there) = (false, true);
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
        let rights = group
            .units
            .iter()
            .map(|u| right(problem, *u, &problem.arithmetic, &mut prediction).fits());
        // What is right without further ado says nothing against a row that others missed.
        if rights.collect::<Vec<_>>().iter().all(|fits| *fits) {
            continue;
        }
        moved = true;
        if !group.is_told() {
            return Err(NotInferred::Inconsistent);
        }
        let (row, weights) = group.solve().ok_or(NotInferred::Inconsistent)?;
        let captured = Recipe::right(problem);
        for (i, unit) in group.units.iter().enumerate() {
            let fit = judge(problem, *unit, &row, weights[i], &mut prediction);
            if !fit.fits() {
                return Err(NotInferred::Inconsistent);
            }
            missing.fit = missing.fit.and(fit);
            (missing.weights[*unit], missing.fits[*unit]) = (weights[i], fit);
            // Would the row that is there do as well, with its best weight?
            let stored = prediction.current(problem, *unit, &captured);
            let weight = weight_of(&group.without[i], &group.apart[i], &stored);
            let same = judge(problem, *unit, &stored, weight.clamp(0.0, 1.0), &mut prediction);
            there &= same.fits();
        }
    }
    match (moved, there) {
        (true, false) => Ok(missing),
        (true, true) => Err(NotInferred::NotMissing),
        (false, _) => Err(NotInferred::Inconsistent),
    }
}

impl<'p> Group<'p> {
    fn new(problem: &'p Problem<'_>, units: Vec<usize>, prediction: &mut Prediction) -> Group<'p> {
        let mut recipe = Recipe::right(problem);
        recipe.keys.end = End::MinusOne;
        let (mut without, mut apart) = (Vec::new(), Vec::new());
        let (mut needs, mut tells) = (Vec::new(), Vec::new());
        let observed: Vec<&[f64]> = units.iter().map(|u| problem.output(*u)).collect();
        for (unit, out) in units.iter().zip(&observed) {
            // The right keys but the last are inside whatever is.
            let made = prediction.make(problem, &recipe, *unit, problem.head_dim_v);
            let answer = if made.is_ok() { prediction.answer.out.clone() } else { out.to_vec() };
            needs.push(!prediction.fit(problem, *unit).fits());
            let differences: Vec<f64> = out.iter().zip(&answer).map(|(o, a)| o - a).collect();
            let over = differences.iter().zip(&prediction.bound.out);
            let logs: Vec<f64> =
                over.map(|(r, b)| libm::log((r.abs() / b.max(1e-300)).max(1.0))).collect();
            // One element's worth is spent on the head's own weight.
            let spent = logs.iter().copied().fold(0.0, f64::max);
            tells.push(logs.iter().sum::<f64>() - spent);
            apart.push(differences);
            without.push(answer);
        }
        Group { units, without, apart, needs, tells, observed }
    }

    /// Whether chance would make the heads agree on one row less often than once in 10^9: the one
    /// that tells the most is spent on the row itself.
    fn is_told(&self) -> bool {
        let most = self.tells.iter().copied().fold(0.0, f64::max);
        self.tells.iter().sum::<f64>() - most > -libm::log(CHANCE)
    }

    /// The row and each head's weight, by least squares; `None` where they are not determined, or
    /// a weight is none.
    fn solve(&self) -> Option<(Vec<f64>, Vec<f64>)> {
        /// Steps of refinement: the start is exact but for rounding.
        const STEPS: usize = 20;
        let dim = self.observed[0].len();
        let heads: Vec<usize> = (0..self.units.len()).filter(|i| self.needs[*i]).collect();
        // More equations than unknowns.
        if heads.len() < 2 || heads.len() * dim <= dim + heads.len() {
            return None;
        }
        let size = |x: &[f64]| x.iter().map(|x| x * x).sum::<f64>();
        let mut by_size = heads.clone();
        by_size.sort_by(|a, b| size(&self.apart[*b]).total_cmp(&size(&self.apart[*a])));
        let (i, j) = (by_size[0], by_size[1]);
        // o'_i + a_i r_i = o'_j + a_j r_j, for a_i and a_j.
        let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
        let (ri, rj) = (&self.apart[i], &self.apart[j]);
        let between: Vec<f64> =
            self.without[j].iter().zip(&self.without[i]).map(|(j, i)| j - i).collect();
        let (ii, jj, ij) = (size(ri), size(rj), dot(ri, rj));
        let (bi, bj) = (dot(ri, &between), -dot(rj, &between));
        let determinant = ii * jj - ij * ij;
        let same = |between: f64| between <= 1e-20 * size(&self.without[i]);
        let mut row: Vec<f64> = if same(size(&between)) {
            // One other key: the row lies on the ray from it through the outputs, no nearer than
            // the farthest of them, and where is not known. No other key: it is the output.
            let far = if self.without[i].iter().all(|x| *x == 0.0) { 1.0 } else { 2.0 };
            self.without[i].iter().zip(ri).map(|(o, r)| o + far * r).collect()
        } else if determinant > 0.0 {
            let a = (bi * jj + bj * ij) / determinant;
            self.without[i].iter().zip(ri).map(|(o, r)| o + a * r).collect()
        } else {
            return None;
        };
        let mut weights = vec![0.0; self.units.len()];
        for _ in 0..STEPS {
            for (h, w) in weights.iter_mut().enumerate() {
                *w = weight_of(&self.without[h], &self.apart[h], &row);
            }
            let total: f64 = weights.iter().map(|w| w * w).sum();
            for (d, x) in row.iter_mut().enumerate() {
                let sum: f64 = (0..weights.len())
                    .map(|h| weights[h] * (self.apart[h][d] + weights[h] * self.without[h][d]))
                    .sum();
                *x = sum / total;
            }
        }
        Some((row, weights))
    }
}

/// The weight of a row that comes closest to the output: `apart . (row - o') / |row - o'|^2`.
fn weight_of(without: &[f64], apart: &[f64], row: &[f64]) -> f64 {
    let (mut dot, mut size) = (0.0, 0.0);
    for ((o, r), v) in without.iter().zip(apart).zip(row) {
        dot += r * (v - o);
        size += (v - o) * (v - o);
    }
    if size > 0.0 { dot / size } else { 0.0 }
}

/// How a unit's output compares with one whose current row is `row` with weight `w`. A weight
/// beyond 0 or 1 is none, unless the bound does not tell it from that.
fn judge(
    problem: &Problem<'_>,
    unit: usize,
    row: &[f64],
    w: f64,
    prediction: &mut Prediction,
) -> Fit {
    let mut recipe = Recipe::right(problem);
    recipe.keys.end = End::MinusOne;
    let none = Fit { ratio: f64::INFINITY, mae: f64::INFINITY, finite: 0 };
    if prediction.make(problem, &recipe, unit, problem.head_dim_v).is_err() {
        return none;
    }
    let proper = w.clamp(0.0, 1.0);
    let without = prediction.answer.out.clone();
    let mut answer: Answer = prediction.answer.clone();
    let mut v = prediction.values().to_vec();
    v.extend_from_slice(row);
    answer.probs.iter_mut().for_each(|p| *p *= 1.0 - proper);
    answer.probs.push(proper);
    // Its score follows from its weight; the errors of a missing key's are those of the largest.
    let odds = (proper / (1.0 - proper)).clamp(1e-300, 1e300);
    let score = if answer.lse.is_finite() { answer.lse + libm::log(odds) } else { 0.0 };
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
    let beyond = (w - proper).abs();
    let mut off = row.iter().zip(&without).zip(&limits.out);
    if off.any(|((v, o), bound)| beyond * (v - o).abs() > *bound) {
        return none;
    }
    fit(&answer.out, &limits.out, problem.output(unit), problem.arithmetic.out)
}
