//! Families over contiguous ranges of keys, by running sums.
//!
//! Every window is a suffix of the keys, every dropped tail a prefix, every cut a prefix and a
//! suffix. Sums that run from an end give all of them for the cost of one, and nothing cancels:
//! only what is attended is ever added. This is a screen: it looks at a few elements of the
//! output, with a bound that is never smaller than the prediction's own; what passes is judged in
//! full.

use super::predict::Prediction;
use super::problem::Problem;
use super::recipe::Recipe;
use crate::judge::compare;
use crate::oracle::{Arithmetic, Head, Scores, growth, is_leaning};

/// Elements of the output that the screen looks at.
const SCREENED: usize = 8;

/// What of a family is left on a unit, and what came closest.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Left {
    /// By parameter: whether it may fit.
    pub fits: Vec<bool>,
    /// The parameter with the smallest mean error.
    pub closest: Option<(usize, f64)>,
}

impl Left {
    fn of(size: usize) -> Left {
        Left { fits: vec![false; size], closest: None }
    }

    fn see(&mut self, parameter: usize, seen: Option<f64>) {
        if let Some(fits) = self.fits.get_mut(parameter) {
            *fits = seen == Some(0.0);
        }
        if let Some(error) = seen.filter(|e| self.closest.is_none_or(|(_, least)| *e < least)) {
            self.closest = Some((parameter, error));
        }
    }
}

/// What the screens leave of a unit.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Screen {
    /// By window length.
    pub windows: Left,
    /// By the number of keys from 0 where the prefix ends.
    pub tails: Left,
    /// Splits added as they are, by the key before which they are cut.
    pub sums: Left,
    /// Means of splits, by the key before which they are cut.
    pub means: Left,
}

/// Attention over some keys, with what bounds its error.
#[derive(Debug, Clone)]
struct Running {
    max: f64,
    least: f64,
    l: f64,
    ds: f64,
    keys: usize,
    /// `[dims]` of each: numerator, the same of |v|, and the sum of |v|.
    sums: [[f64; SCREENED]; 3],
}

impl Running {
    fn new(sink: Option<f64>) -> Running {
        let max = sink.unwrap_or(f64::NEG_INFINITY);
        let l = if sink.is_some() { 1.0 } else { 0.0 };
        let least = f64::INFINITY;
        Running { max, least, l, ds: 0.0, keys: 0, sums: [[0.0; SCREENED]; 3] }
    }

    fn push(&mut self, s: f64, ds: f64, row: &[f64]) {
        if s > self.max {
            let c = libm::exp(self.max - s);
            self.l *= c;
            for sums in &mut self.sums[..2] {
                sums.iter_mut().for_each(|x| *x *= c);
            }
            self.max = s;
        }
        let p = libm::exp(s - self.max);
        self.l += p;
        self.least = self.least.min(s);
        self.ds = self.ds.max(ds);
        self.keys += 1;
        let [out, size, values] = &mut self.sums;
        for (d, v) in row.iter().enumerate() {
            out[d] += p * v;
            size[d] += p * v.abs();
            values[d] += v.abs();
        }
    }
}

/// A prediction of the screened elements with a bound.
type Guess = ([f64; SCREENED], [f64; SCREENED]);

struct Bounds<'a> {
    a: &'a Arithmetic,
    leaning: bool,
}

impl Bounds<'_> {
    /// The factor on `sum p |v|` that is never less than the bound's own.
    fn factor(&self, ds: f64, keys: usize, spread: f64) -> f64 {
        let a = self.a;
        let u = a.accumulate.unit_roundoff();
        let spread = if spread.is_finite() { spread } else { 0.0 };
        libm::expm1(2.0 * ds)
            + 2.0 * growth(keys + 1, u, self.leaning)
            + (2.0 * a.exp_ulp + a.exp_arg_ulp * spread + 1.0) * u
            + a.u_probs()
    }

    /// Numerator, numerator of |v| and sum of |v|, all over the denominator `l`.
    fn guess(&self, sums: &[[f64; SCREENED]; 3], l: f64, factor: f64, keys: usize) -> Guess {
        let a = self.a;
        let u = a.accumulate.unit_roundoff();
        let eta = a.underflow();
        let narrowed = if a.u_probs() > 0.0 { a.probs.min_subnormal() / 2.0 } else { 0.0 };
        let tiny = eta * (keys as f64 + 2.0) + a.out.min_subnormal() / 2.0;
        let [numerator, size, values] = sums;
        let over = |x: f64| if l > 0.0 { x / l } else { 0.0 };
        let out = numerator.map(over);
        let weight = narrowed + (1.0 + over(1.0)) * eta;
        let bound = std::array::from_fn(|d| {
            factor * over(size[d])
                + weight * values[d]
                + (2.0 * u + a.u_out()) * out[d].abs()
                + tiny
        });
        (out, bound)
    }

    fn alone(&self, part: &Running) -> Guess {
        let factor = self.factor(part.ds, part.keys, part.max - part.least);
        self.guess(&part.sums, part.l, factor, part.keys)
    }

    fn sum(&self, a: &Running, b: &Running) -> Guess {
        let spread = a.max.max(b.max) - a.least.min(b.least);
        let ds = a.ds.max(b.ds);
        // why: the errors of two maxima do not cancel here.
        let reach = 3.0 * a.max.abs().max(b.max.abs()) * self.a.accumulate.unit_roundoff();
        let factor = self.factor(2.0 * ds + 8.0 * reach, a.keys + b.keys, spread);
        let mut sums = a.sums;
        for (sums, other) in sums.iter_mut().zip(&b.sums) {
            sums.iter_mut().zip(other).for_each(|(x, y)| *x += y);
        }
        self.guess(&sums, a.l + b.l, factor, a.keys + b.keys)
    }

    fn mean(&self, a: &Running, b: &Running) -> Guess {
        let (mut guess, other) = (self.alone(a), self.alone(b));
        for (one, two) in [(&mut guess.0, &other.0), (&mut guess.1, &other.1)] {
            one.iter_mut().zip(two).for_each(|(x, y)| *x = (*x + y) / 2.0);
        }
        // why: each key's weight is relative to its own part's sum, and a part counts for a half.
        guess.1.iter_mut().for_each(|b| *b *= 2.0);
        guess
    }
}

/// Screens the families over ranges on one unit, of a kernel that is otherwise as `base` says; the
/// cuts only where they are asked for.
pub fn screen(
    problem: &Problem<'_>,
    base: &Recipe,
    unit: usize,
    cuts: bool,
    scratch: &mut Prediction,
) -> Screen {
    let n = problem.units[unit].keys;
    let dims = problem.head_dim_v.min(SCREENED);
    let a = &problem.arithmetic;
    let u = a.accumulate.unit_roundoff();
    // Every row up to the query's position, those before a window too.
    let mut recipe = base.clone();
    recipe.keys.window = 0;
    if scratch.make(problem, &recipe, unit, dims).is_err() {
        return Screen::default();
    }
    let (answer, v) = (&scratch.answer, scratch.values());
    let sink = base.sink.logit(&problem.units[unit], &problem.attended(unit), problem);
    let head = Head { scores: Scores::<f64>::Given(&[]), v, head_dim_v: dims, sink };
    let bounds = Bounds { a, leaning: is_leaning(&head, answer) };
    let tanh = if problem.softcap > 0.0 { (a.tanh_ulp + 3.0) * u } else { 0.0 };
    let least = (problem.head_dim as f64 * problem.scale.abs() + 1.0) * a.underflow();
    let ds = |n: usize| {
        (growth(problem.head_dim, u, false) + 2.0 * u) * answer.abs_scores[n]
            + tanh * answer.scores[n].abs()
            + least
    };
    let push = |part: &mut Running, n: usize| {
        part.push(answer.scores[n], ds(n), &v[n * dims..][..dims]);
    };
    let observed = &problem.output(unit)[..dims];
    let seen = |guess: Guess| -> Option<f64> {
        let mut error = 0.0;
        let mut fits = true;
        for (d, got) in observed.iter().enumerate() {
            fits &= compare::ratio(*got, guess.0[d], guess.1[d], a.out) <= 1.0;
            error += (got - guess.0[d]).abs();
        }
        // Whatever fits is as close as can be.
        if fits { Some(0.0) } else { Some(error / dims as f64).filter(|e| e.is_finite()) }
    };

    let first = problem.attended(unit).start;
    let mut screen = Screen {
        windows: Left::of(n + 1),
        tails: Left::of(n + 1),
        sums: Left::of(n + 1),
        means: Left::of(n + 1),
    };
    let mut suffix = Running::new(sink);
    for key in (0..n).rev() {
        push(&mut suffix, key);
        screen.windows.see(n - key, seen(bounds.alone(&suffix)));
    }
    let mut prefixes = vec![Running::new(sink)];
    for key in first..n {
        let mut prefix = prefixes.last().expect("there is the empty one").clone();
        push(&mut prefix, key);
        prefixes.push(prefix);
    }
    for (i, prefix) in prefixes.iter().enumerate() {
        screen.tails.see(first + i, seen(bounds.alone(prefix)));
    }
    // Tails that reach before a window leave nothing.
    let nothing = screen.tails.fits.get(first).copied().unwrap_or(false);
    screen.tails.fits[..first].fill(nothing);
    if !cuts {
        return screen;
    }
    // A cut before the window, or at the end, cuts nothing.
    let whole = screen.tails.fits[n];
    for cuts in [&mut screen.sums, &mut screen.means] {
        cuts.fits[..=first].fill(whole);
        cuts.fits[n] = whole;
    }
    let mut suffix = Running::new(None);
    for key in (first + 1..n).rev() {
        push(&mut suffix, key);
        let prefix = &prefixes[key - first];
        screen.sums.see(key, seen(bounds.sum(prefix, &suffix)));
        screen.means.see(key, seen(bounds.mean(prefix, &suffix)));
    }
    screen
}
