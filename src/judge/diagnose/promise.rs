//! Under which promise an output would be right: one key of `[numerics]` that the kernel does not
//! give.
//!
//! A wide bound explains anything, so a promise is told only where what is there looks as that
//! arithmetic makes it. Scores and a scaled q in 16 bits are simulated, and their bound is as narrow
//! as f32's. Of sums and of P in 16 bits the order of the operations is not known: their errors have
//! a size of their own, which follows from the case's own data, and those that are there must be of
//! that size, must be small beside the values, and must not all lean one way.

use super::predict::{Fit, Prediction, right};
use super::problem::{Problem, Task};
use super::recipe::{Form, Recipe};
use crate::oracle::Arithmetic;
use crate::problem::DType;

/// A promise with which every output is right.
#[derive(Debug, Clone, PartialEq)]
pub struct Promise {
    /// The key of `[numerics]`.
    pub key: &'static str,
    /// Its value.
    pub value: &'static str,
    /// What is then held, stored or flushed.
    pub what: &'static str,
    /// How the outputs compare with that; of what is simulated the ratio is to its own bound, of the
    /// others to the largest error that is of the arithmetic's size.
    pub fit: Fit,
    /// Whether it is simulated, rounding by rounding.
    pub simulated: bool,
}

/// The types of 16 bits, in their order.
const NARROW: [DType; 2] = [DType::F16, DType::BF16];
/// The largest error, in units of its typical size: a normal number is beyond once in 2 million.
const LARGEST: f64 = 5.0;
/// The mean size of what is there, in units of the typical size.
const SIZES: std::ops::RangeInclusive<f64> = 0.15..=2.5;
/// The largest error beside the outputs: above it, most outputs would be explained.
const SMALL: f64 = 1.0 / 16.0;
/// What subnormal numbers come to is never more than this.
const TINY: f64 = 1e-30;

/// A place where something is narrowed, whose errors have a size.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Place {
    Probs,
    SumOfValues,
    RowSum,
    Dots,
}

/// Every promise that would make all outputs right; those that are simulated first, then those whose
/// size is nearest. None where the outputs are right without, or are not of attention.
pub fn promises(problem: &Problem<'_>) -> Vec<Promise> {
    let mut p = Prediction::default();
    let mut units = 0..problem.units.len();
    let is_right = |u: usize, p: &mut Prediction| right(problem, u, &problem.arithmetic, p).fits();
    if problem.task != Task::Attend || units.all(|u| is_right(u, &mut p)) {
        return Vec::new();
    }
    let mut all = Vec::new();
    for dtype in NARROW {
        let forms = [
            ("scores", "the scores, before they are scaled", Form::Narrowed(dtype, true)),
            ("scores", "the scaled scores", Form::Narrowed(dtype, false)),
            ("q_scaled", "q times the scale", Form::ScaledQuery(dtype)),
        ];
        for (key, what, form) in forms {
            if let Some(fit) = simulated(problem, form, &mut p) {
                all.push(Promise { key, value: dtype.name(), what, fit, simulated: true });
            }
        }
    }
    if let Some(fit) = flushed(problem, &mut p) {
        let (key, value, what) = ("denormals", "flush", "subnormal numbers");
        all.push(Promise { key, value, what, fit, simulated: false });
    }
    let mut sized = Vec::new();
    let places = [
        ("probs", "P", Place::Probs),
        ("accumulate", "the sum P·V", Place::SumOfValues),
        ("accumulate", "the sum of the weights", Place::RowSum),
        ("accumulate", "the sums Q·K", Place::Dots),
    ];
    for (dtype, (key, what, place)) in NARROW.into_iter().flat_map(|t| places.map(|p| (t, p))) {
        if let Some((fit, size)) = of_size(problem, place, dtype, &mut p) {
            let promise = Promise { key, value: dtype.name(), what, fit, simulated: false };
            sized.push((libm::log(size).abs(), promise));
        }
    }
    sized.sort_by(|a, b| a.0.total_cmp(&b.0));
    all.extend(sized.into_iter().map(|(_, promise)| promise));
    all
}

/// How the outputs compare with what a form of scores makes of them, where all of them fit and the
/// right answer is told apart.
fn simulated(problem: &Problem<'_>, form: Form, p: &mut Prediction) -> Option<Fit> {
    let plain = Recipe::right(problem);
    let mut narrow = plain.clone();
    narrow.form = form;
    let dims = problem.head_dim_v;
    let (mut fit, mut told) = (Fit::NONE, false);
    for unit in 0..problem.units.len() {
        p.make(problem, &plain, unit, dims).ok()?;
        let (want, own) = (p.answer.out.clone(), p.bound.out.clone());
        p.make(problem, &narrow, unit, dims).ok()?;
        fit = fit.and(p.fit(problem, unit));
        if !fit.fits() {
            return None;
        }
        let size = rms(&p.answer.out);
        let apart = p.answer.out.iter().zip(&p.bound.out).zip(want.iter().zip(&own));
        told |= apart.into_iter().any(|((x, b), (y, own))| {
            (x - y).is_finite() && (x - y).abs() > b + own && *b <= SMALL * size
        });
    }
    told.then_some(fit)
}

/// How the outputs compare where subnormal numbers may count as zero.
fn flushed(problem: &Problem<'_>, p: &mut Prediction) -> Option<Fit> {
    if problem.arithmetic.flushes {
        return None;
    }
    let arithmetic = Arithmetic { flushes: true, ..problem.arithmetic };
    let mut fit = Fit::NONE;
    for unit in 0..problem.units.len() {
        right(problem, unit, &problem.arithmetic, p);
        let own = p.bound.out.clone();
        fit = fit.and(right(problem, unit, &arithmetic, p));
        let size = SMALL * rms(&p.answer.out);
        let explains = own.iter().zip(&p.bound.out).all(|(own, b)| b - own <= size.max(TINY));
        if !fit.fits() || !explains {
            return None;
        }
    }
    Some(fit)
}

/// How the outputs compare with the size of what rounding in one place makes, and how large they are
/// beside it.
fn of_size(
    problem: &Problem<'_>,
    place: Place,
    dtype: DType,
    p: &mut Prediction,
) -> Option<(Fit, f64)> {
    let plain = Recipe::right(problem);
    let dims = problem.head_dim_v;
    let mut fit = Fit::NONE;
    let (mut squares, mut count) = (0.0, 0usize);
    let (mut values, mut typical) = (0.0, 0.0);
    let (mut along, mut size_of_errors) = (0.0, 0.0);
    // By how much each unit's output is off as a whole.
    let mut factors = Vec::new();
    for unit in 0..problem.units.len() {
        p.make(problem, &plain, unit, dims).ok()?;
        let sizes = sizes(problem, &plain, unit, place, dtype, p);
        let wide: Vec<f64> = p.bound.out.iter().zip(&sizes).map(|(b, e)| b + LARGEST * e).collect();
        let observed = problem.output(unit);
        fit = fit.and(super::predict::fit(&p.answer.out, &wide, observed, problem.arithmetic.out));
        if !fit.fits() {
            return None;
        }
        if place == Place::RowSum {
            let pairs = || observed.iter().zip(&p.answer.out);
            let squares: f64 = pairs().map(|(_, want)| want * want).sum();
            let factor = pairs().map(|(got, want)| (got - want) * want).sum::<f64>() / squares;
            let mut rest = pairs().zip(&p.bound.out);
            if !rest.all(|((got, want), own)| (got - want - factor * want).abs() <= *own) {
                return None;
            }
            factors.push(factor);
        }
        for (d, got) in observed.iter().enumerate() {
            let (want, own, size) = (p.answer.out[d], p.bound.out[d], sizes[d]);
            let error = got - want;
            if !error.is_finite() || size <= own {
                continue;
            }
            squares += (error / size) * (error / size);
            count += 1;
            values += want * want;
            typical += size * size;
            along += error * want;
            size_of_errors += error * error;
        }
    }
    // A few elements say nothing of a size.
    const ENOUGH: usize = 8;
    if count < ENOUGH {
        return None;
    }
    let n = count as f64;
    let size = libm::sqrt(squares / n);
    let small = 4.0 * libm::sqrt(typical) <= SMALL * libm::sqrt(values);
    // Errors of a row sum are a factor for each head, and not the same for all of them; all others
    // are along nothing.
    let leans = match place {
        Place::RowSum => {
            let mean = factors.iter().sum::<f64>() / factors.len() as f64;
            let apart: Vec<f64> = factors.iter().map(|f| f - mean).collect();
            factors.len() < 4 || rms(&apart) < 0.1 * rms(&factors)
        }
        _ => along.abs() > 4.0 / libm::sqrt(n) * libm::sqrt(size_of_errors * values),
    };
    (SIZES.contains(&size) && small && !leans).then_some((fit, size))
}

/// The typical size of the errors that rounding in one place makes of a unit's output.
fn sizes(
    problem: &Problem<'_>,
    plain: &Recipe,
    unit: usize,
    place: Place,
    dtype: DType,
    p: &Prediction,
) -> Vec<f64> {
    let dims = problem.head_dim_v;
    let (answer, v) = (&p.answer, p.values());
    let u = dtype.unit_roundoff();
    // Each rounding is off by anything up to half a step: a third of its square on average.
    let third = |squares: f64| u * libm::sqrt(squares / 3.0);
    let rows = || v.chunks_exact(dims);
    match place {
        Place::Probs => {
            let least = dtype.min_subnormal() / 2.0 / u / answer.denominator.max(1.0);
            let of = |d: usize| {
                let each = answer.probs.iter().zip(rows());
                third(each.map(|(p, row)| (p.max(least) * row[d]).powi(2)).sum())
            };
            (0..dims).map(of).collect()
        }
        Place::SumOfValues => {
            let of = |d: usize| {
                let (mut sum, mut squares) = (0.0f64, 0.0);
                for (p, row) in answer.probs.iter().zip(rows()) {
                    sum += p * row[d];
                    squares += sum * sum;
                }
                third(squares)
            };
            (0..dims).map(of).collect()
        }
        Place::RowSum => {
            let (mut sum, mut squares) = (0.0f64, 0.0);
            for p in &answer.probs {
                sum += p;
                squares += sum * sum;
            }
            answer.out.iter().map(|o| third(squares) * o.abs()).collect()
        }
        Place::Dots => {
            let q = plain.query(unit, problem).unwrap_or(&[]);
            let rows_of_k = p.rows_of_k().chunks_exact(q.len().max(1));
            let errors: Vec<f64> = rows_of_k
                .map(|k| {
                    let (mut sum, mut squares) = (0.0f64, 0.0);
                    for (q, k) in q.iter().zip(k) {
                        sum += q * k;
                        squares += sum * sum;
                    }
                    problem.scale.abs() * third(squares)
                })
                .collect();
            let of = |d: usize| {
                let each = answer.probs.iter().zip(rows()).zip(&errors);
                let square = |((p, row), e): ((&f64, &[f64]), &f64)| {
                    (p * (row[d] - answer.out[d]) * e).powi(2)
                };
                libm::sqrt(each.map(square).sum())
            };
            (0..dims).map(of).collect()
        }
    }
}

fn rms(x: &[f64]) -> f64 {
    libm::sqrt(x.iter().map(|x| x * x).sum::<f64>() / x.len().max(1) as f64)
}
