//! Honest kernels in software: decode attention in f32 (or narrower) as real kernels compute it,
//! and the same with one fault put in.
//!
//! Only additions, multiplications, divisions, fused multiply-adds and the `libm` crate are used,
//! so every machine has the same bits.

use attnbench::oracle::Arithmetic;

use super::cases::Head;
use attnbench::problem::DType;
use half::{bf16, f16};
use std::f32::consts::{LN_2, LOG2_E};

/// How sums are taken.
#[derive(Clone, Copy, PartialEq)]
pub enum Sum {
    /// One accumulator, in order.
    Running,
    /// One accumulator, each product and its addition rounded once.
    Fused,
    /// Halves, and halves of halves.
    Pairwise,
}

/// How exponentials are taken.
#[derive(Clone, Copy, PartialEq)]
pub enum Exp {
    /// `expf` and `tanhf`.
    Natural,
    /// Scores in units of log 2 from the start, and `exp2f`.
    Base2,
    /// The worst that the default promise allows: `exp` off by 2 u and `tanh` by 4 u (rounding
    /// included), with signs that hang on the argument's bits.
    Promised,
}

/// A fault inside the algorithm.
#[derive(Clone, Copy, PartialEq)]
pub enum Fault {
    /// One split's part is left out of the merge.
    LostSplit,
    /// Weights are powers of 2 where powers of e are meant.
    WrongBase,
    /// The first rescale that is due is left out.
    MissedRescale,
}

/// One way to compute attention.
#[derive(Clone, Copy)]
pub struct Way {
    /// For the table.
    pub name: &'static str,
    /// Keys of a tile of online softmax; 0 for three passes with P normalised before it
    /// multiplies V.
    pub tile: usize,
    /// Parts of the keys that are attended alone and merged.
    pub splits: usize,
    /// Last key first.
    pub reversed: bool,
    /// See [`Sum`].
    pub sum: Sum,
    /// See [`Exp`].
    pub exp: Exp,
    /// Type that P is narrowed to before it multiplies V.
    pub probs: DType,
    /// Type that every result is rounded to.
    pub accumulate: DType,
    /// What is wrong with it, if anything.
    pub fault: Option<Fault>,
}

/// Online softmax over tiles of 64 in f32: what the others vary.
pub const ONLINE: Way = Way {
    name: "online, tiles of 64",
    tile: 64,
    splits: 1,
    reversed: false,
    sum: Sum::Running,
    exp: Exp::Natural,
    probs: DType::F32,
    accumulate: DType::F32,
    fault: None,
};

/// Every honest way.
pub const WAYS: [Way; 17] = [
    ONLINE,
    Way { name: "online, tiles of 1", tile: 1, ..ONLINE },
    Way { name: "online, tiles of 7", tile: 7, ..ONLINE },
    Way { name: "three passes", tile: 0, ..ONLINE },
    Way { name: "5 splits, merged", tile: 16, splits: 5, ..ONLINE },
    Way { name: "last key first", reversed: true, ..ONLINE },
    Way { name: "pairwise sums", sum: Sum::Pairwise, tile: 0, ..ONLINE },
    Way { name: "fused multiply-adds", sum: Sum::Fused, ..ONLINE },
    Way { name: "exp2", exp: Exp::Base2, tile: 32, ..ONLINE },
    Way { name: "exp2, one pass a key", exp: Exp::Base2, tile: 1, sum: Sum::Fused, ..ONLINE },
    Way { name: "worst promised exp and tanh", exp: Exp::Promised, ..ONLINE },
    Way { name: "P in f16", probs: DType::F16, ..ONLINE },
    Way { name: "P in bf16", probs: DType::BF16, ..ONLINE },
    Way { name: "P in f16, three passes", probs: DType::F16, tile: 0, ..ONLINE },
    Way { name: "f16 throughout", accumulate: DType::F16, tile: 0, ..ONLINE },
    Way { name: "bf16 throughout", accumulate: DType::BF16, tile: 0, ..ONLINE },
    Way { name: "bf16, online, 3 splits", accumulate: DType::BF16, splits: 3, tile: 8, ..ONLINE },
];

/// What a way makes of a head.
pub struct Output {
    /// In the accumulation type, `[head_dim_v]`.
    pub out: Vec<f32>,
    /// Base e.
    pub lse: f32,
}

/// What one split leaves for the merge.
struct Part {
    max: f32,
    mass: f32,
    acc: Vec<f32>,
}

impl Way {
    /// What such a kernel's manifest says.
    pub fn promise(&self, out: DType) -> Arithmetic {
        Arithmetic {
            accumulate: self.accumulate,
            probs: self.probs,
            exp_arg_ulp: if self.exp == Exp::Base2 { 3.0 } else { 1.0 },
            ..Arithmetic::single(out)
        }
    }

    /// Attention of one head.
    pub fn attend(&self, head: &Head<'_, f32>) -> Output {
        match self.accumulate {
            DType::F16 => self.rounded(head, |x| f16::from_f32(x).to_f32()),
            DType::BF16 => self.rounded(head, |x| bf16::from_f32(x).to_f32()),
            _ => self.rounded(head, |x| x),
        }
    }

    /// Attention with every result rounded by `r` (from f32, whose 24 bits are enough for the
    /// second rounding to do no harm).
    fn rounded<R: Fn(f32) -> f32 + Copy>(&self, head: &Head<'_, f32>, r: R) -> Output {
        let scores = self.scores(head, r);
        let unit = if self.exp == Exp::Base2 { LOG2_E } else { 1.0 };
        let sink = head.sink.map(|sink| r(sink as f32 * unit));
        let (out, max, mass) = match self.tile {
            0 => self.three_passes(head, &scores, sink, r),
            _ => self.online(head, &scores, sink, r),
        };
        let lse = match self.exp {
            Exp::Base2 => r(r(max + r(libm::log2f(mass))) * LN_2),
            _ => r(max + r(libm::logf(mass))),
        };
        Output { out, lse: if mass > 0.0 { lse } else { f32::NEG_INFINITY } }
    }

    fn scores<R: Fn(f32) -> f32 + Copy>(&self, head: &Head<'_, f32>, r: R) -> Vec<f32> {
        let (scale, cap) = (head.scale as f32, head.softcap as f32);
        let base2 = self.exp == Exp::Base2;
        // A narrow accumulator takes q already scaled, as the sums would overflow otherwise.
        let narrow = self.accumulate != DType::F32;
        let q: Vec<f32> = head.q.iter().map(|q| if narrow { r(q * scale) } else { *q }).collect();
        let after = match (narrow, base2 && cap == 0.0) {
            (true, _) => 1.0,
            (false, true) => scale * LOG2_E,
            (false, false) => scale,
        };
        let cap_after = if base2 { cap * LOG2_E } else { cap };
        let mut products = Vec::new();
        let score = |row: &[f32]| {
            let s = r(after * self.dot(&q, row, &mut products, r));
            if cap > 0.0 { r(cap_after * r(self.tanh(r(s / cap)))) } else { s }
        };
        head.k.chunks_exact(q.len()).map(score).collect()
    }

    fn dot<R: Fn(f32) -> f32>(&self, a: &[f32], b: &[f32], terms: &mut Vec<f32>, r: R) -> f32 {
        let pairs = a.iter().zip(b);
        match self.sum {
            Sum::Running => pairs.fold(0.0, |sum, (a, b)| r(sum + r(a * b))),
            Sum::Fused => pairs.fold(0.0, |sum, (a, b)| a.mul_add(*b, sum)),
            Sum::Pairwise => {
                terms.clear();
                terms.extend(pairs.map(|(a, b)| r(a * b)));
                pairwise(terms)
            }
        }
    }

    fn total<R: Fn(f32) -> f32>(&self, terms: &[f32], r: R) -> f32 {
        match self.sum {
            Sum::Pairwise => pairwise(terms),
            _ => terms.iter().fold(0.0, |sum, x| r(sum + x)),
        }
    }

    fn exp(&self, x: f32) -> f32 {
        match self.exp {
            _ if self.fault == Some(Fault::WrongBase) => libm::exp2f(x),
            Exp::Natural => libm::expf(x),
            Exp::Base2 => libm::exp2f(x),
            // One u before the rounding, which adds another.
            Exp::Promised => (libm::exp(f64::from(x)) * (1.0 + sign(x) * U)) as f32,
        }
    }

    fn tanh(&self, x: f32) -> f32 {
        match self.exp {
            Exp::Promised => (libm::tanh(f64::from(x)) * (1.0 + sign(x) * 3.0 * U)) as f32,
            _ => libm::tanhf(x),
        }
    }

    fn narrow(&self, p: f32) -> f32 {
        match self.probs {
            DType::F16 => f16::from_f32(p).to_f32(),
            DType::BF16 => bf16::from_f32(p).to_f32(),
            _ => p,
        }
    }

    /// Adds the rows of V at `at`, each times its weight.
    fn add_rows<R: Fn(f32) -> f32 + Copy>(
        &self,
        acc: &mut [f32],
        weights: &[f32],
        at: &[usize],
        head: &Head<'_, f32>,
        r: R,
    ) {
        let dv = head.head_dim_v;
        if self.sum == Sum::Pairwise {
            let mut terms = vec![0.0; at.len()];
            for (d, acc) in acc.iter_mut().enumerate() {
                for (term, (p, n)) in terms.iter_mut().zip(weights.iter().zip(at)) {
                    *term = p * head.v[n * dv + d];
                }
                *acc += pairwise(&terms);
            }
            return;
        }
        for (p, n) in weights.iter().zip(at) {
            let row = &head.v[n * dv..][..dv];
            for (acc, v) in acc.iter_mut().zip(row) {
                *acc = match self.sum {
                    Sum::Fused => p.mul_add(*v, *acc),
                    _ => r(*acc + r(p * v)),
                };
            }
        }
    }

    fn three_passes<R: Fn(f32) -> f32 + Copy>(
        &self,
        head: &Head<'_, f32>,
        scores: &[f32],
        sink: Option<f32>,
        r: R,
    ) -> (Vec<f32>, f32, f32) {
        let mut acc = vec![0.0; head.head_dim_v];
        let max = scores.iter().copied().chain(sink).fold(f32::NEG_INFINITY, f32::max);
        let mut weights: Vec<f32> = scores.iter().map(|s| r(self.exp(r(s - max)))).collect();
        let sunk = sink.map_or(0.0, |sink| r(self.exp(r(sink - max))));
        let mass = r(self.total(&weights, r) + sunk);
        for p in &mut weights {
            *p = self.narrow(r(*p / mass));
        }
        let at: Vec<usize> = (0..scores.len()).collect();
        self.add_rows(&mut acc, &weights, &at, head, r);
        (acc, max, mass)
    }

    fn online<R: Fn(f32) -> f32 + Copy>(
        &self,
        head: &Head<'_, f32>,
        scores: &[f32],
        sink: Option<f32>,
        r: R,
    ) -> (Vec<f32>, f32, f32) {
        let mut order: Vec<usize> = (0..scores.len()).collect();
        if self.reversed {
            order.reverse();
        }
        let chunk = order.len().div_ceil(self.splits).max(1);
        let mut parts: Vec<Part> =
            order.chunks(chunk).map(|keys| self.part(head, scores, keys, r)).collect();
        if self.fault == Some(Fault::LostSplit) {
            parts.remove(parts.len() / 2);
        }
        if let Some(sink) = sink {
            parts.push(Part { max: sink, mass: 1.0, acc: vec![0.0; head.head_dim_v] });
        }
        let max = parts.iter().map(|p| p.max).fold(f32::NEG_INFINITY, f32::max);
        let (mut mass, mut out) = (0.0, vec![0.0; head.head_dim_v]);
        for part in &parts {
            let c = r(self.exp(r(part.max - max)));
            mass = r(mass + r(c * part.mass));
            for (o, a) in out.iter_mut().zip(&part.acc) {
                *o = r(*o + r(c * a));
            }
        }
        if mass > 0.0 {
            for o in &mut out {
                *o = r(*o / mass);
            }
        }
        (out, max, mass)
    }

    fn part<R: Fn(f32) -> f32 + Copy>(
        &self,
        head: &Head<'_, f32>,
        scores: &[f32],
        keys: &[usize],
        r: R,
    ) -> Part {
        let mut part = Part { max: f32::NEG_INFINITY, mass: 0.0, acc: vec![0.0; head.head_dim_v] };
        let mut weights = Vec::with_capacity(self.tile);
        let mut missed = self.fault != Some(Fault::MissedRescale);
        for tile in keys.chunks(self.tile) {
            let max = tile.iter().map(|n| scores[*n]).fold(part.max, f32::max);
            if max > part.max {
                if part.mass > 0.0 && !missed {
                    missed = true;
                } else {
                    let c = r(self.exp(r(part.max - max)));
                    part.mass = r(part.mass * c);
                    part.acc.iter_mut().for_each(|a| *a = r(*a * c));
                }
                part.max = max;
            }
            weights.clear();
            weights.extend(tile.iter().map(|n| r(self.exp(r(scores[*n] - max)))));
            part.mass = r(part.mass + self.total(&weights, r));
            weights.iter_mut().for_each(|p| *p = self.narrow(*p));
            self.add_rows(&mut part.acc, &weights, tile, head, r);
        }
        part
    }
}

/// f32's unit roundoff.
const U: f64 = f32::EPSILON as f64 / 2.0;

/// +1 or -1, from the number of bits set.
fn sign(x: f32) -> f64 {
    if x.to_bits().count_ones().is_multiple_of(2) { 1.0 } else { -1.0 }
}

fn pairwise(terms: &[f32]) -> f32 {
    match terms {
        [] => 0.0,
        [x] => *x,
        _ => {
            let (a, b) = terms.split_at(terms.len() / 2);
            pairwise(a) + pairwise(b)
        }
    }
}
