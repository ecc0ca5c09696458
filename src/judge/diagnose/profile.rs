//! What figures show of a slice: how far every hypothesis is, what a reference over the last keys
//! leaves out, and how large the error is of a kernel that reads wrongly from some key on.

use super::catalogue::{FAULTS, Params};
use super::predict::{Fit, Prediction};
use super::problem::{Problem, Task};
use super::recipe::Recipe;
use super::search::Search;

/// Multiply-adds that a profile may take: of larger problems the heads are thinned out.
const WORK: usize = 1 << 32;
/// Members of a fault that are tried, about.
const MEMBERS: usize = 2;
/// Windows, and positions, at most.
const POINTS: usize = 64;

/// A hypothesis beside the outputs.
#[derive(Debug, Clone, PartialEq)]
pub struct Hypothesis {
    /// The fault's id; `none` for the right answer.
    pub fault: &'static str,
    /// The parameters of the nearest of its default members.
    pub params: Params,
    /// How it compares over the heads that were tried.
    pub fit: Fit,
    /// The largest error over its bound of each of them.
    pub heads: Vec<f64>,
}

/// The mean errors by which a probe decides that knows the kernel's weights, and two ways to read V.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Probe {
    /// V row by row.
    pub row: f64,
    /// V column by column.
    pub col: f64,
}

/// What a sum over the last keys leaves out, with the weights of all.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Window {
    /// Keys that are summed, the last ones.
    pub window_len: usize,
    /// The mean absolute error of such a sum against the sum over all.
    pub mae: f64,
    /// The weight of what is left out, mean over the heads.
    pub missing: f64,
}

/// The error of a kernel that reads V one row early from some key on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FirstWrong {
    /// The first key that is read wrongly.
    pub key: usize,
    /// The largest absolute error.
    pub max_abs: f64,
    /// The bound of that element.
    pub bound: f64,
    /// The largest error over its bound.
    pub ratio: f64,
}

/// See the module.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Profile {
    /// Indices of the heads that were tried, among all sequences' heads.
    pub units: Vec<usize>,
    /// The right answer first, then the catalogue's order.
    pub hypotheses: Vec<Hypothesis>,
    /// With the weights of the nearest hypothesis.
    pub probe: Option<Probe>,
    /// From the shortest window on.
    pub windows: Vec<Window>,
    /// From the first key on.
    pub first_wrong: Vec<FirstWrong>,
}

/// The profile of a problem; an empty one where the outputs are not of attention.
pub fn profile(problem: &Problem<'_>) -> Profile {
    let work: usize = problem.units.iter().map(|u| u.keys).sum::<usize>()
        * (problem.head_dim + problem.head_dim_v)
        * FAULTS.len()
        * MEMBERS;
    let every = work.div_ceil(WORK).max(1);
    let units: Vec<usize> = (0..problem.units.len()).step_by(every).collect();
    if problem.task != Task::Attend || units.is_empty() {
        return Profile::default();
    }
    let mut search = Search::new(problem, units.clone(), &vec![0.0; problem.units.len()]);
    let (hypotheses, probe) = search.nearest(&units);
    let keys = units.iter().map(|u| problem.units[*u].keys).max().unwrap_or(0);
    let (windows, first_wrong) = sums(problem, &units, keys);
    Profile { units, hypotheses, probe, windows, first_wrong }
}

/// Numbers from 1 to `last`, dense at first, at most [`POINTS`].
fn spaced(last: usize) -> Vec<usize> {
    let mut all: Vec<usize> = (0..POINTS)
        .map(|i| libm::pow(last as f64, i as f64 / (POINTS - 1) as f64).round() as usize)
        .collect();
    // The window of the engine's audit.
    all.push(64);
    all.retain(|x| (1..=last).contains(x));
    all.sort_unstable();
    all.dedup();
    all
}

/// Errors by window, and by the first wrong key.
fn sums(problem: &Problem<'_>, units: &[usize], keys: usize) -> (Vec<Window>, Vec<FirstWrong>) {
    let dims = problem.head_dim_v;
    let right = Recipe::right(problem);
    let mut windows: Vec<Window> = spaced(keys)
        .into_iter()
        .map(|window_len| Window { window_len, mae: 0.0, missing: 0.0 })
        .collect();
    let step = keys.div_ceil(POINTS).max(1);
    let mut wrong: Vec<FirstWrong> = (1..keys)
        .filter(|n| (n - 1) % step == 0 || *n + 1 == keys)
        .map(|key| FirstWrong { key, max_abs: 0.0, bound: 0.0, ratio: 0.0 })
        .collect();
    let (mut p, mut judged) = (Prediction::default(), 0usize);
    for unit in units {
        // Sums are over all keys: a window of the model's own has no others.
        if p.make(problem, &right, *unit, dims).is_err() || p.answer.probs.is_empty() {
            continue;
        }
        judged += 1;
        let (probs, v) = (&p.answer.probs, p.rows_of_v());
        let n = probs.len();
        // Of the keys from each one on: their weight, what they add, and what it would be with the row before.
        let mut left = vec![0.0; dims];
        let (mut mass, mut at) = (0.0, 0);
        for window in windows.iter_mut().rev() {
            while at < n.saturating_sub(window.window_len) {
                mass += probs[at];
                left.iter_mut().zip(&v[at * dims..]).for_each(|(sum, v)| *sum += probs[at] * v);
                at += 1;
            }
            window.mae += left.iter().map(|x| x.abs()).sum::<f64>() / dims as f64;
            window.missing += mass;
        }
        let mut error = vec![0.0; dims];
        let mut at = n;
        for first in wrong.iter_mut().rev().filter(|first| first.key < n) {
            while at > first.key {
                at -= 1;
                for (d, sum) in error.iter_mut().enumerate() {
                    *sum += probs[at] * (v[(at - 1) * dims + d] - v[at * dims + d]);
                }
            }
            for (error, bound) in error.iter().map(|e| e.abs()).zip(&p.bound.out) {
                if error > first.max_abs {
                    (first.max_abs, first.bound) = (error, *bound);
                }
                first.ratio = first.ratio.max(error / bound.max(f64::MIN_POSITIVE));
            }
        }
    }
    for window in &mut windows {
        window.mae /= judged.max(1) as f64;
        window.missing /= judged.max(1) as f64;
    }
    (windows, wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::slice::KvSlice;
    use std::path::Path;

    fn of(name: &str) -> Profile {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(name);
        let slice = KvSlice::read(&file).expect("a golden slice");
        profile(&Problem::of_slice(&slice).expect("a problem"))
    }

    #[test]
    fn the_right_answer_fits_and_nearly_all_others_do_not() {
        let p = of("slices/p5_ba_decode0_L15_f32.safetensors");
        assert_eq!(p.hypotheses[0].fault, "none");
        assert!(p.hypotheses[0].fit.fits());
        let fit = p.hypotheses.iter().filter(|h| h.fit.fits()).count();
        assert!(p.hypotheses.len() > 12 && fit <= 3, "{fit} of {}", p.hypotheses.len());
        assert!(p.hypotheses.iter().all(|h| h.heads.len() == p.units.len()));
    }

    /// What the engine's probe said: the better of two wrong guesses.
    #[test]
    fn the_probe_of_two_layouts_says_col_where_another_layer_was_read() {
        let p = of("story/wrong_layer.safetensors");
        let probe = p.probe.expect("a probe");
        assert!(probe.col < probe.row && probe.col > 1e-2, "{probe:?}");
        let p = of("slices/p5_ba_decode0_L15_f32.safetensors");
        let probe = p.probe.expect("a probe");
        assert!(probe.row < 1e-6 && probe.col > 1e-2, "{probe:?}");
    }

    #[test]
    fn what_a_window_leaves_out_falls_to_nothing_at_the_full_length() {
        let p = of("slices/p4_sys_decode0_L15_f32.safetensors");
        let (first, last) = (p.windows[0], p.windows[p.windows.len() - 1]);
        assert_eq!((first.window_len, last.window_len), (1, 93));
        assert_eq!((last.mae, last.missing), (0.0, 0.0));
        assert!(first.missing > 0.5 && first.mae > 1e-3);
        assert!(p.windows.windows(2).all(|w| w[1].missing <= w[0].missing));
    }

    /// Against the sums themselves, key by key.
    #[test]
    fn the_errors_are_those_of_the_sums_spelled_out() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("golden/slices/p4_sys_decode0_L00_f32.safetensors");
        let slice = KvSlice::read(&file).unwrap();
        let problem = Problem::of_slice(&slice).unwrap();
        let p = profile(&problem);
        let dims = problem.head_dim_v;
        let mut own = Prediction::default();
        let (mut largest, mut mae, mut missing) = (0.0f64, 0.0, 0.0);
        let (key, window) = (17, p.windows.iter().find(|w| w.window_len >= 9).unwrap());
        for unit in 0..problem.units.len() {
            own.make(&problem, &Recipe::right(&problem), unit, dims).unwrap();
            let (probs, v) = (&own.answer.probs, own.rows_of_v());
            let sum = |d: usize, of: &dyn Fn(usize) -> Option<usize>| -> f64 {
                (0..probs.len()).filter_map(|n| Some(probs[n] * v[of(n)? * dims + d])).sum()
            };
            for d in 0..dims {
                let right = sum(d, &Some);
                let early = sum(d, &|n| Some(if n < key { n } else { n - 1 }));
                largest = largest.max((early - right).abs());
                let last = sum(d, &|n| (n + window.window_len >= probs.len()).then_some(n));
                mae += (last - right).abs() / dims as f64;
            }
            missing += probs[..probs.len() - window.window_len].iter().sum::<f64>();
        }
        let units = problem.units.len() as f64;
        let near = |a: f64, b: f64| assert!((a - b).abs() <= 1e-12 * b.abs(), "{a} {b}");
        near(window.mae, mae / units);
        near(window.missing, missing / units);
        near(p.first_wrong.iter().find(|f| f.key == key).unwrap().max_abs, largest);
        // From the second key, which has one before it, to the last.
        let ends = [p.first_wrong.first(), p.first_wrong.last()].map(|f| f.unwrap().key);
        assert_eq!(ends, [1, own.answer.probs.len() - 1]);
    }
}
