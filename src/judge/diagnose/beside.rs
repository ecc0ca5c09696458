//! Scores and weights that lie beside the output: which stage is the first that is wrong, and
//! whether a reference covers a part of the keys only.

use super::predict::Prediction;
use super::problem::{Beside, Problem, Task};
use super::recipe::Recipe;
use crate::oracle::{Answer, Scores, bound_scores, bound_softmax, softmax};
use crate::problem::DType;

/// What the weights in the file are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Weights {
    /// There are none.
    Absent,
    /// Those of every attended key that has any.
    Whole,
    /// Of the last `w` keys only.
    Partial {
        /// Keys that are covered.
        w: usize,
        /// Whether they sum to 1 all the same.
        renormalised: bool,
        /// The largest mass of the other keys, over the heads.
        missing: f64,
        /// The largest mean error of a head's output against P·V of them.
        residual: f64,
    },
    /// They are not the softmax of these q and k: the largest ratio.
    Wrong(f64),
}

/// What the captured scores and weights show.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shown {
    /// The largest error of the scores over their bound, where there are any.
    pub scores: Option<f64>,
    /// See [`Weights`].
    pub weights: Weights,
}

impl Shown {
    /// The first stage that is wrong where the output is.
    pub fn stage(&self) -> Option<&'static str> {
        match (self.scores, self.weights) {
            (Some(ratio), _) if ratio > 1.0 => Some("scores"),
            (_, Weights::Wrong(_)) => Some("softmax"),
            (None, Weights::Absent) => None,
            // The scores alone are right: what follows them is not told apart.
            (Some(_), Weights::Absent) => None,
            _ => Some("pv"),
        }
    }
}

/// Compares what lies beside the output with what it must be.
pub fn look(problem: &Problem<'_>) -> Shown {
    Shown {
        scores: problem.scores.as_ref().map(|given| scores_ratio(problem, given)),
        weights: problem.probs.as_ref().map_or(Weights::Absent, |given| weights(problem, given)),
    }
}

/// A unit's right scores and weights with their bounds, by key from the first attended.
struct Right {
    first: usize,
    answer: Answer,
    ds: Vec<f64>,
    dp: Vec<f64>,
    v: Vec<f64>,
}

fn right(
    problem: &Problem<'_>,
    unit: usize,
    last: Option<usize>,
    p: &mut Prediction,
) -> Option<Right> {
    let mut recipe = Recipe::right(problem);
    if let Some(w) = last {
        recipe.keys.window = if problem.window_len == 0 { w } else { w.min(problem.window_len) };
    }
    p.make(problem, &recipe, unit, problem.head_dim_v).ok()?;
    let from = Scores::Dot {
        q: problem.query(unit),
        k: &[],
        scale: problem.scale,
        softcap: problem.softcap,
    };
    let (a, answer) = (&problem.arithmetic, p.answer.clone());
    let (mut ds, mut dp) = (Vec::new(), Vec::new());
    bound_scores(&from, &answer, a, &mut ds);
    bound_softmax(problem.sink(unit).is_some(), &answer, a, &mut dp);
    let mean: f64 = answer.probs.iter().zip(&ds).map(|(p, ds)| p * ds).sum();
    for ((dp, p), ds) in dp.iter_mut().zip(&answer.probs).zip(&ds) {
        *dp += p * libm::expm1(ds + mean);
    }
    let first = recipe.range(&problem.units[unit], problem).start;
    Some(Right { first, answer, ds, dp, v: p.values().to_vec() })
}

/// What is stored of key `n` of a unit, if it is covered.
fn stored(problem: &Problem<'_>, given: &Beside, unit: usize, n: usize) -> Option<f64> {
    let before = problem.units[unit].keys.checked_sub(n)?;
    given.width.checked_sub(before).map(|at| given.of(unit)[at])
}

fn ratio(got: f64, want: f64, bound: f64, dtype: DType) -> f64 {
    let bound = bound + dtype.unit_roundoff() * want.abs() + dtype.min_subnormal() / 2.0;
    crate::judge::compare::ratio(got, want, bound, dtype)
}

fn scores_ratio(problem: &Problem<'_>, given: &Beside) -> f64 {
    let mut p = Prediction::default();
    let mut worst = 0.0f64;
    for unit in 0..problem.units.len() {
        let Some(right) = right(problem, unit, None, &mut p) else { continue };
        let row = given.of(unit);
        // A reference that covers a window may hold zeros for the keys before it.
        let skipped = row.iter().take_while(|s| **s == 0.0).count();
        for (i, (want, ds)) in right.answer.scores.iter().zip(&right.ds).enumerate() {
            let n = right.first + i;
            let Some(got) = stored(problem, given, unit, n) else { continue };
            if problem.units[unit].keys - n > given.width - skipped {
                continue;
            }
            worst = worst.max(ratio(got, *want, *ds, given.dtype));
        }
    }
    worst
}

fn weights(problem: &Problem<'_>, given: &Beside) -> Weights {
    let units = 0..problem.units.len();
    // Leading zeros of every head are keys that were skipped, where these keys have any weight.
    let zeros = units.clone().map(|u| given.of(u).iter().take_while(|p| **p == 0.0).count());
    let w = given.width - zeros.min().unwrap_or(0);
    if w == 0 {
        // Zeros throughout were never written: they cover no key, and are no reference.
        return Weights::Wrong(f64::INFINITY);
    }
    let mut p = Prediction::default();
    let (mut whole, mut renormalised) = (0.0f64, 0.0f64);
    let (mut missing, mut residual, mut seen) = (0.0f64, [0.0f64; 2], [0.0f64; 2]);
    for unit in units {
        let Some(all) = right(problem, unit, None, &mut p) else { continue };
        let Some(part) = right(problem, unit, Some(w), &mut p) else { continue };
        let against = |right: &Right| {
            let pairs = right.answer.probs.iter().zip(&right.dp).enumerate();
            pairs.fold(0.0f64, |worst, (i, (want, dp))| {
                let n = right.first + i;
                match stored(problem, given, unit, n) {
                    Some(got) if problem.units[unit].keys - n <= w => {
                        worst.max(ratio(got, *want, *dp, given.dtype))
                    }
                    _ => worst,
                }
            })
        };
        whole = whole.max(against(&all));
        renormalised = renormalised.max(against(&part));
        let skipped = part.first - all.first;
        let mass: f64 = all.answer.probs[..skipped].iter().sum();
        missing = missing.max(mass);
        // What P·V of the covered keys comes to, as they are and renormalised.
        let dim = problem.head_dim_v;
        let made = |weights: &[f64]| {
            let mut out = vec![0.0; dim];
            for (p, row) in weights.iter().zip(part.v.chunks_exact(dim)) {
                out.iter_mut().zip(row).for_each(|(o, v)| *o += p * v);
            }
            out
        };
        let cut = made(&all.answer.probs[skipped..]);
        // Its bound is what both are held against.
        super::predict::right(problem, unit, &problem.arithmetic, &mut p);
        for (i, out) in [cut, part.answer.out.clone()].iter().enumerate() {
            let observed = problem.output(unit);
            let apart = out.iter().zip(observed).map(|(a, b)| (a - b).abs());
            residual[i] = residual[i].max(apart.sum::<f64>() / dim as f64);
            let f = super::predict::fit(out, &p.bound.out, observed, problem.arithmetic.out);
            seen[i] = seen[i].max(f.ratio);
        }
    }
    let covers = (0..problem.units.len()).all(|u| problem.attended(u).len() <= w);
    match (whole <= 1.0, renormalised <= 1.0) {
        (true, _) if covers || seen[0] <= 1.0 => Weights::Whole,
        (true, _) => Weights::Partial { w, renormalised: false, missing, residual: residual[0] },
        (_, true) => Weights::Partial { w, renormalised: true, missing, residual: residual[1] },
        _ => Weights::Wrong(whole.min(renormalised)),
    }
}

/// The log-sum-exp in the file, in words, where it is not the right one.
pub fn lse_in_words(problem: &Problem<'_>) -> Option<String> {
    // Of parts that are merged there is no score to begin with.
    let given = problem.lse.as_ref().filter(|_| problem.task == Task::Attend)?;
    let mut p = Prediction::default();
    let (mut worst, mut base2, mut bare) = (0.0f64, 0.0f64, 0.0f64);
    for (unit, got) in given.iter().enumerate() {
        let Some(right) = right(problem, unit, None, &mut p) else { continue };
        let mut answer = right.answer;
        let dlse = bound_softmax(
            problem.sink(unit).is_some(),
            &answer,
            &problem.arithmetic,
            &mut Vec::new(),
        );
        let mean: f64 = answer.probs.iter().zip(&right.ds).map(|(p, ds)| p * ds).sum();
        softmax(problem.sink(unit), &mut answer);
        let bound = dlse + mean;
        let ln2 = std::f64::consts::LN_2;
        let off = |got: f64, want: f64, bound: f64| match (got.is_finite(), want.is_finite()) {
            (false, false) => 0.0,
            _ => ratio(got, want, bound, DType::F32),
        };
        worst = worst.max(off(*got, answer.lse, bound));
        base2 = base2.max(off(*got, answer.lse / ln2, bound / ln2 + DType::F32.unit_roundoff()));
        bare = bare.max(off(*got, libm::log(answer.denominator), bound));
    }
    if worst <= 1.0 {
        return None;
    }
    let why = match (base2 <= 1.0, bare <= 1.0) {
        (true, _) => ": it is to base 2, and must be to base e",
        (_, true) => ": it lacks the largest score",
        _ => "",
    };
    Some(format!("the lse in the file is not the right one ({worst:.1e} of its bound){why}"))
}
