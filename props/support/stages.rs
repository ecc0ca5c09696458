//! Honest kernels in software, for the stages alone: what `honest` is for decode attention, with the
//! liberties that a manifest's `[numerics]` can promise, and the same with one mild fault put in.
//!
//! A way gives the values of a stage's outputs in the order in which they are judged, each rounded to
//! the type that it is stored in. Only the operations that `honest` allows itself are used.

use attnbench::data::inputs::Inputs;
use attnbench::oracle::Arithmetic;
use attnbench::problem::{Case, DType, Pointer, RopeStyle, Stage};
use half::{bf16, f16};
use std::f32::consts::{LN_2, LOG2_E};

/// How sums of products are taken.
#[derive(Clone, Copy, PartialEq)]
pub enum Order {
    /// One accumulator, in order.
    Running,
    /// One accumulator, last term first.
    Reversed,
    /// One accumulator, each product and its addition rounded once.
    Fused,
    /// Halves, and halves of halves.
    Pairwise,
    /// Eight lanes that take turns, then put together.
    Lanes,
}

/// One way to compute a stage.
#[derive(Clone, Copy)]
pub struct Way {
    /// For the table.
    pub name: &'static str,
    /// The built-in kernel whose cases it is tried on.
    pub kernel: &'static str,
    /// See [`Order`].
    pub order: Order,
    /// Type that every result is rounded to.
    pub accumulate: DType,
    /// Type that given weights are narrowed to before they multiply V.
    pub probs: DType,
    /// Whether scores are kept in units of log 2.
    pub base2: bool,
    /// Whether subnormal operands and results are zero.
    pub flushes: bool,
    /// Another order of operations: the reciprocal of a sum instead of a division by it; in stage
    /// `norm` the residual normalised before it is rounded.
    pub other: bool,
    /// Stage `norm`: the normalised vector rounded to the residual's type before it is weighed.
    pub rounds_again: bool,
    /// Whether it has the stage's mild fault.
    pub fault: bool,
}

/// f32, in order: what the others vary.
const PLAIN: Way = Way {
    name: "",
    kernel: "",
    order: Order::Running,
    accumulate: DType::F32,
    probs: DType::F32,
    base2: false,
    flushes: false,
    other: false,
    rounds_again: false,
    fault: false,
};

const PV: Way = Way { name: "pv", kernel: "pv", ..PLAIN };
const SOFTMAX: Way = Way { name: "softmax", kernel: "softmax", ..PLAIN };
const MERGE: Way = Way { name: "merge", kernel: "merge", ..PLAIN };
const SCORES: Way = Way { name: "scores", kernel: "scores", ..PLAIN };
const NORM: Way = Way { name: "norm", kernel: "norm", ..PLAIN };
const COMBINE: Way = Way { name: "head_combine", kernel: "head_combine", ..PLAIN };
const APPEND: Way = Way { name: "append", kernel: "append", ..PLAIN };

/// Every honest way.
pub const WAYS: &[Way] = &[
    PV,
    Way { name: "pv, P in f16", probs: DType::F16, ..PV },
    Way { name: "pv, P in f16, pairwise", probs: DType::F16, order: Order::Pairwise, ..PV },
    Way { name: "pv, P in bf16", probs: DType::BF16, order: Order::Lanes, ..PV },
    Way { name: "pv, P in bf16, fused", probs: DType::BF16, order: Order::Fused, ..PV },
    Way { name: "pv, flushed", flushes: true, ..PV },
    Way { name: "pv, flushed, last first", flushes: true, order: Order::Reversed, ..PV },
    Way { name: "pv, bf16", accumulate: DType::BF16, probs: DType::BF16, ..PV },
    SOFTMAX,
    Way { name: "softmax, log 2", base2: true, ..SOFTMAX },
    Way { name: "softmax, log 2, reciprocal", base2: true, other: true, ..SOFTMAX },
    Way { name: "softmax, log 2, lanes", base2: true, order: Order::Lanes, ..SOFTMAX },
    Way { name: "softmax, flushed", flushes: true, order: Order::Pairwise, ..SOFTMAX },
    Way { name: "softmax, log 2, flushed", base2: true, flushes: true, other: true, ..SOFTMAX },
    MERGE,
    Way { name: "merge, log 2", base2: true, ..MERGE },
    Way { name: "merge, log 2, reciprocal", base2: true, other: true, ..MERGE },
    Way { name: "merge, log 2, fused", base2: true, order: Order::Fused, ..MERGE },
    Way { name: "merge, flushed", flushes: true, order: Order::Pairwise, ..MERGE },
    SCORES,
    Way { name: "scores, flushed", flushes: true, ..SCORES },
    Way { name: "scores, flushed, fused", flushes: true, order: Order::Fused, ..SCORES },
    Way { name: "scores, flushed, lanes", flushes: true, order: Order::Lanes, ..SCORES },
    NORM,
    Way { name: "norm, before the rounding", other: true, order: Order::Lanes, ..NORM },
    Way { name: "norm, rounded twice", rounds_again: true, ..NORM },
    Way {
        name: "norm, rounded twice, pairwise",
        rounds_again: true,
        order: Order::Pairwise,
        ..NORM
    },
    Way { name: "norm, flushed", flushes: true, ..NORM },
    Way { name: "norm, flushed, before", flushes: true, other: true, order: Order::Fused, ..NORM },
    Way { name: "norm, bf16", accumulate: DType::BF16, ..NORM },
    COMBINE,
    Way { name: "head_combine, flushed", flushes: true, ..COMBINE },
    Way { name: "head_combine, flushed, lanes", flushes: true, order: Order::Lanes, ..COMBINE },
    Way { name: "head_combine, bf16", accumulate: DType::BF16, order: Order::Pairwise, ..COMBINE },
    APPEND,
    Way { name: "append, flushed", flushes: true, ..APPEND },
    Way { name: "append, flushed, fused", flushes: true, order: Order::Fused, ..APPEND },
];

/// The judged values of one output, as they are stored.
pub type Values = (Pointer, Vec<f64>);

impl Way {
    /// What such a kernel's manifest says.
    pub fn promise(&self, out: DType) -> Arithmetic {
        Arithmetic {
            accumulate: self.accumulate,
            probs: self.probs,
            exp_arg_ulp: if self.base2 { 3.0 } else { 1.0 },
            flushes: self.flushes,
            ..Arithmetic::single(out)
        }
    }

    /// Whether a case's data are what it is made for: a narrow accumulator takes inputs of its own
    /// type.
    pub fn takes(&self, case: &Case) -> bool {
        self.accumulate == DType::F32 || case.dtypes.kv == self.accumulate
    }

    /// The stage's outputs.
    pub fn run(&self, case: &Case, inputs: &Inputs) -> Vec<Values> {
        match case.stage {
            Stage::Pv => self.pv(case, inputs),
            Stage::Softmax => self.softmax(case, inputs),
            Stage::Merge => self.merge(case, inputs),
            Stage::Scores => self.scores(case, inputs),
            Stage::Norm => self.norm(case, inputs),
            Stage::HeadCombine => self.combine(case, inputs),
            Stage::Append => self.append(case, inputs),
            other => panic!("no way to compute stage {other}"),
        }
    }

    /// A number as an operation reads it.
    fn read(&self, x: f32) -> f32 {
        let zero = self.flushes && f64::from(x.abs()) < self.accumulate.min_normal();
        if zero { 0.0 } else { x }
    }

    /// A result as an operation leaves it. f32's 24 bits are enough for the second rounding to do no
    /// harm.
    fn left(&self, x: f32) -> f32 {
        self.read(rounded(self.accumulate, x))
    }

    fn add(&self, a: f32, b: f32) -> f32 {
        self.left(self.read(a) + self.read(b))
    }

    fn times(&self, a: f32, b: f32) -> f32 {
        self.left(self.read(a) * self.read(b))
    }

    fn sum(&self, terms: &[f32]) -> f32 {
        let running = |terms: &mut dyn Iterator<Item = f32>| terms.fold(0.0, |s, x| self.add(s, x));
        match self.order {
            Order::Running | Order::Fused => running(&mut terms.iter().copied()),
            Order::Reversed => running(&mut terms.iter().rev().copied()),
            Order::Pairwise => match terms {
                [] => 0.0,
                [x] => *x,
                _ => {
                    let (a, b) = terms.split_at(terms.len() / 2);
                    self.add(self.sum(a), self.sum(b))
                }
            },
            Order::Lanes => {
                let lane = |lane: usize| running(&mut terms.iter().skip(lane).step_by(8).copied());
                running(&mut (0..8).map(lane))
            }
        }
    }

    /// A sum of products.
    fn dot(&self, pairs: impl Iterator<Item = (f32, f32)>, terms: &mut Vec<f32>) -> f32 {
        if self.order == Order::Fused {
            let fused = |sum: f32, (a, b): (f32, f32)| {
                self.left(self.read(a).mul_add(self.read(b), self.read(sum)))
            };
            return pairs.fold(0.0, fused);
        }
        terms.clear();
        terms.extend(pairs.map(|(a, b)| self.times(a, b)));
        self.sum(terms)
    }

    /// A score in the units that it is kept in; wrong by 3e-6 where that is the fault.
    fn in_units(&self, score: f32) -> f32 {
        let unit = match (self.base2, self.fault) {
            (true, true) => LOG2_E * (1.0 + 3e-6),
            (true, false) => LOG2_E,
            (false, true) => 1.0 + 3e-6,
            (false, false) => 1.0,
        };
        if unit == 1.0 { self.read(score) } else { self.times(score, unit) }
    }

    /// `exp(score - max)` of numbers in those units.
    fn exp(&self, score: f32, max: f32) -> f32 {
        if score == f32::NEG_INFINITY {
            return 0.0;
        }
        let x = self.add(score, -max);
        self.left(if self.base2 { libm::exp2f(x) } else { libm::expf(x) })
    }

    /// `max + log(mass)`, base e.
    fn lse(&self, max: f32, mass: f32) -> f64 {
        if mass == 0.0 {
            return f64::NEG_INFINITY;
        }
        f64::from(if self.base2 {
            self.times(self.add(max, self.left(libm::log2f(mass))), LN_2)
        } else {
            self.add(max, self.left(libm::logf(mass)))
        })
    }

    /// A number over a sum that is not 0.
    fn over(&self, x: f32, sum: f32) -> f32 {
        if self.other {
            self.times(x, self.left(1.0 / self.read(sum)))
        } else {
            self.left(self.read(x) / self.read(sum))
        }
    }

    fn pv(&self, case: &Case, inputs: &Inputs) -> Vec<Values> {
        let (mut out, mut terms) = (Vec::new(), Vec::new());
        let dv = case.head_dim_v;
        for (s, h) in heads(case) {
            let mut keys = case.attended(s);
            keys.end -= usize::from(self.fault && !keys.is_empty());
            let probs = inputs.of(Pointer::Probs).rows(s, h, keys.clone());
            let probs: Vec<f32> = probs.iter().map(|p| rounded(self.probs, *p)).collect();
            let v = inputs.v().rows(s, h / case.group(), keys);
            for d in 0..dv {
                let column = v[d.min(v.len())..].iter().step_by(dv);
                let sum = self.dot(probs.iter().copied().zip(column.copied()), &mut terms);
                out.push(case.dtypes.out.round(f64::from(sum)));
            }
        }
        vec![(Pointer::Out, out)]
    }

    fn softmax(&self, case: &Case, inputs: &Inputs) -> Vec<Values> {
        let (mut probs, mut lse) = (Vec::new(), Vec::new());
        for (s, h) in heads(case) {
            let given = inputs.of(Pointer::Scores).rows(s, h, case.attended(s));
            let scores: Vec<f32> = given.iter().map(|x| self.in_units(*x)).collect();
            let sink = inputs.sink(h).map(|sink| self.in_units(sink as f32));
            let max = scores.iter().copied().chain(sink).fold(f32::NEG_INFINITY, f32::max);
            let mut weights: Vec<f32> = scores.iter().map(|x| self.exp(*x, max)).collect();
            weights.extend(sink.map(|sink| self.exp(sink, max)));
            let mass = self.sum(&weights);
            let weights = weights[..scores.len()].iter().map(|w| f64::from(self.over(*w, mass)));
            probs.extend(weights);
            lse.push(self.lse(max, mass));
        }
        vec![(Pointer::Probs, probs), (Pointer::Lse, lse)]
    }

    fn merge(&self, case: &Case, inputs: &Inputs) -> Vec<Values> {
        let (mut out, mut lse, mut terms) = (Vec::new(), Vec::new(), Vec::new());
        let dv = case.head_dim_v;
        for (s, h) in heads(case) {
            let given = inputs.of(Pointer::PartialLse).all(s, h);
            let lses: Vec<f32> = given.iter().map(|x| self.in_units(*x)).collect();
            let max = lses.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let weights: Vec<f32> = lses.iter().map(|x| self.exp(*x, max)).collect();
            let mass = self.sum(&weights);
            let parts = inputs.of(Pointer::PartialOut).all(s, h);
            for d in 0..dv {
                // What an empty part holds is not read.
                let column = weights.iter().zip(parts[d..].iter().step_by(dv));
                let column = column.filter(|(w, _)| **w > 0.0).map(|(w, x)| (*w, *x));
                let sum = self.dot(column, &mut terms);
                let o = if mass == 0.0 { 0.0 } else { self.over(sum, mass) };
                out.push(case.dtypes.out.round(f64::from(o)));
            }
            lse.push(self.lse(max, mass));
        }
        vec![(Pointer::Out, out), (Pointer::Lse, lse)]
    }

    fn scores(&self, case: &Case, inputs: &Inputs) -> Vec<Values> {
        let (mut out, mut terms) = (Vec::new(), Vec::new());
        for (s, h) in heads(case) {
            let k = inputs.k().rows(s, h / case.group(), case.attended(s));
            for row in k.chunks_exact(case.head_dim) {
                let row = &row[usize::from(self.fault)..];
                let pairs = inputs.q().all(s, h)[usize::from(self.fault)..].iter().zip(row);
                let dot = self.dot(pairs.map(|(q, k)| (*q, *k)), &mut terms);
                let mut score = self.times(dot, case.scale);
                if case.softcap > 0.0 {
                    let x = self.left(score / case.softcap);
                    score = self.times(case.softcap, self.left(libm::tanhf(x)));
                }
                out.push(f64::from(score));
            }
        }
        vec![(Pointer::Scores, out)]
    }

    fn norm(&self, case: &Case, inputs: &Inputs) -> Vec<Values> {
        let (mut out, mut residual, mut terms) = (Vec::new(), Vec::new(), Vec::new());
        let stored = case.dtypes.q;
        let weight = inputs.of(Pointer::Weight).all(0, 0);
        for s in 0..case.batch() {
            let (r, x) = (inputs.of(Pointer::Residual).all(s, 0), inputs.of(Pointer::X).all(s, 0));
            let sums: Vec<f32> = r.iter().zip(x).map(|(r, x)| self.add(*r, *x)).collect();
            let kept: Vec<f32> = sums.iter().map(|r| rounded(stored, *r)).collect();
            let row = if self.other { &sums } else { &kept };
            let squares = self.dot(row.iter().map(|r| (*r, *r)), &mut terms);
            let count = case.hidden - usize::from(self.fault && case.hidden > 1);
            let mean = self.add(self.left(squares / count as f32), case.eps);
            let inverse = self.left(1.0 / self.left(mean.sqrt()));
            for (r, w) in row.iter().zip(weight) {
                let mut normalised = self.times(*r, inverse);
                if self.rounds_again {
                    normalised = rounded(stored, normalised);
                }
                out.push(case.dtypes.out.round(f64::from(self.times(normalised, *w))));
            }
            residual.extend(kept.iter().map(|r| f64::from(*r)));
        }
        vec![(Pointer::Out, out), (Pointer::Residual, residual)]
    }

    fn combine(&self, case: &Case, inputs: &Inputs) -> Vec<Values> {
        let (mut out, mut terms) = (Vec::new(), Vec::new());
        let length = case.num_heads * case.head_dim;
        let (x, w) = (inputs.of(Pointer::X), inputs.of(Pointer::WO));
        for s in 0..case.batch() {
            let x = &x.data.values[x.range(s, 0).start..][..length];
            for row in w.data.values.chunks_exact(length) {
                let last = length - usize::from(self.fault);
                let pairs = x[..last].iter().zip(row);
                let sum = self.dot(pairs.map(|(x, w)| (*x, *w)), &mut terms);
                out.push(case.dtypes.out.round(f64::from(sum)));
            }
        }
        vec![(Pointer::Out, out)]
    }

    /// The key alone: the value is moved, not computed.
    fn append(&self, case: &Case, inputs: &Inputs) -> Vec<Values> {
        let (mut out, mut terms) = (Vec::new(), Vec::new());
        let Some(rope) = case.rope else { return Vec::new() };
        let (dim, pairs) = (case.head_dim, case.head_dim / 2);
        for s in 0..case.batch() {
            for g in 0..case.num_kv_heads {
                let row = inputs.of(Pointer::NewK).all(s, g);
                let mut turned = vec![0.0; dim];
                for i in 0..pairs {
                    let (a, b) = match rope.style {
                        RopeStyle::Interleaved => (2 * i, 2 * i + 1),
                        RopeStyle::Half => (i, i + pairs),
                    };
                    let exponent = self.left(-2.0 * i as f32 / dim as f32);
                    let frequency = self.left(libm::powf(rope.base, exponent));
                    let mut angle = self.times(case.pos(s) as f32, frequency);
                    if self.fault {
                        angle = rounded(DType::F16, angle);
                    }
                    let (sin, cos) = (self.left(libm::sinf(angle)), self.left(libm::cosf(angle)));
                    let first = [(row[a], cos), (row[b], -sin)];
                    let second = [(row[a], sin), (row[b], cos)];
                    for (at, products) in [(a, first), (b, second)] {
                        turned[at] = self.dot(products.into_iter(), &mut terms);
                    }
                }
                out.extend(turned.iter().map(|x| case.dtypes.kv.round(f64::from(*x))));
            }
        }
        vec![(Pointer::K, out)]
    }
}

fn rounded(dtype: DType, x: f32) -> f32 {
    match dtype {
        DType::F16 => f16::from_f32(x).to_f32(),
        DType::BF16 => bf16::from_f32(x).to_f32(),
        _ => x,
    }
}

/// Every sequence with every query head.
fn heads(case: &Case) -> impl Iterator<Item = (usize, usize)> + use<> {
    let heads = case.num_heads;
    (0..case.batch()).flat_map(move |s| (0..heads).map(move |h| (s, h)))
}
