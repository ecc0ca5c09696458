//! What a case's outputs must be: the oracle and the bound over every sequence, head and query, for
//! every stage, and the vacuity gate that checks the check.

use super::attention::{Answer, Head, Scores, attend, mix, scores, softmax};
use super::bound::{
    Arithmetic, Bound, Term, bound, bound_pv, bound_scores, bound_softmax, explain, explain_pv,
    explain_scores, explain_softmax,
};
use super::linear::{norm, project};
use super::rope::rotate;
use crate::data::inputs::Inputs;
use crate::problem::{Case, DType, Pointer, Rope, Stage};
use std::borrow::Cow;

/// What one output must be.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Right {
    /// The right values, in the order of [`Case::runs`].
    pub want: Vec<f64>,
    /// The bound of each. A bound of 0 asks for the very bits.
    pub bound: Vec<f64>,
}

/// Right values and their bounds for a whole case.
#[derive(Debug, Clone, Default)]
pub struct Expected {
    /// Each output of the stage, the main one first. Stage `split` has `out` and `lse`: what its
    /// parts come to when they are put together.
    pub outputs: Vec<(Pointer, Right)>,
    /// The gate's probes, by what they are.
    pub probes: Vec<(&'static str, Probe)>,
}

/// A wrong output that the check must be able to see on this case.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Probe {
    /// Whether it differs from the right output at all.
    pub differs: bool,
    /// Its largest error over the bound.
    pub ratio: f64,
}

impl Probe {
    /// Relative differences below this are the oracle's own f64 rounding (a few thousand sums).
    const SAME: f64 = 1e-12;

    /// Takes a wrong output into account.
    fn see(&mut self, wrong: impl Iterator<Item = f64>, right: &[f64], bounds: &[f64]) {
        self.see_apart(wrong, right, bounds, Self::SAME);
    }

    /// As [`Probe::see`]; values closer than `same` in relative terms are the same.
    fn see_apart(
        &mut self,
        wrong: impl Iterator<Item = f64>,
        right: &[f64],
        bounds: &[f64],
        same: f64,
    ) {
        for ((wrong, right), bound) in wrong.zip(right).zip(bounds) {
            let error = (wrong - right).abs();
            if error > same * right.abs().max(wrong.abs()) {
                self.differs = true;
                self.ratio = self.ratio.max(error / bound);
            }
        }
    }

    /// Whether the check would miss it.
    fn is_missed(&self) -> bool {
        self.differs && self.ratio <= 1.0
    }

    fn is_seen(&self) -> bool {
        self.ratio > 1.0
    }
}

/// Weights that are given in f32 sum to 1 within half a unit in the last place of each: values that
/// differ by less than this are the same.
const GIVEN_SAME: f64 = 1.0 / (1u64 << 22) as f64;

const ZEROS: &str = "an all-zero output";
const MEAN: &str = "the mean of V";
const DROPPED: &str = "one key dropped";
const NEIGHBOUR: &str = "the neighbouring head's output";

/// The oracle's view of query `t` of one head of a case; of one head's parts in stage `merge`.
///
/// # Panics
/// In stages that have no P·V of scores.
pub fn head_of<'a>(case: &Case, inputs: &'a Inputs, s: usize, h: usize, t: usize) -> Head<'a, f32> {
    if case.stage == Stage::Merge {
        return Head {
            scores: Scores::Given(inputs.of(Pointer::PartialLse).all(s, h)),
            v: inputs.of(Pointer::PartialOut).all(s, h),
            head_dim_v: case.head_dim_v,
            sink: None,
        };
    }
    let (g, keys) = (h / case.group(), case.attended_by(s, t));
    Head {
        scores: dot_of(case, inputs, s, h, t),
        v: inputs.v().rows(s, g, keys),
        head_dim_v: case.head_dim_v,
        sink: inputs.sink(h),
    }
}

/// What the scores of query `t` of a head come from.
fn dot_of<'a>(case: &Case, inputs: &'a Inputs, s: usize, h: usize, t: usize) -> Scores<'a, f32> {
    Scores::Dot {
        q: inputs.q().rows(s, h, t..t + 1),
        k: inputs.k().rows(s, h / case.group(), case.attended_by(s, t)),
        scale: f64::from(case.scale),
        softcap: f64::from(case.softcap),
    }
}

impl Expected {
    /// Evaluates the oracle, the bound and the gate.
    pub fn new(case: &Case, inputs: &Inputs, arithmetic: &Arithmetic) -> Expected {
        let inputs = &*without_empty_parts(case, inputs);
        match case.stage {
            Stage::Scores => expect_scores(case, inputs, arithmetic),
            Stage::Softmax => expect_softmax(case, inputs, arithmetic),
            Stage::Pv => expect_pv(case, inputs, arithmetic),
            Stage::Decode | Stage::Split | Stage::Prefill | Stage::Merge => {
                expect_attention(case, inputs, arithmetic)
            }
            Stage::Append => expect_append(case, inputs, arithmetic),
            Stage::HeadCombine => expect_projection(case, inputs, arithmetic),
            Stage::Norm => expect_norm(case, inputs, arithmetic),
        }
    }

    /// What an output must be, if the stage has it.
    pub fn of(&self, pointer: Pointer) -> Option<&Right> {
        self.outputs.iter().find(|(p, _)| *p == pointer).map(|(_, right)| right)
    }

    /// The probe that the check would miss on this case, if there is one.
    pub fn vacuous(&self) -> Option<&'static str> {
        self.probes.iter().find(|(_, probe)| probe.is_missed()).map(|(what, _)| *what)
    }
}

/// Whole attention, and the merge of parts, which is the same with scores that are given.
fn expect_attention(case: &Case, inputs: &Inputs, a: &Arithmetic) -> Expected {
    let (mut answer, mut limits) = (Answer::default(), Bound::default());
    let (mut out, mut lse, mut gate) = (Right::default(), Right::default(), Gate::default());
    let a = &of_parts(case, a);
    for s in 0..case.batch() {
        for h in 0..case.num_heads {
            for t in 0..case.queries(s) {
                let head = head_of(case, inputs, s, h, t);
                attend(&head, &mut answer);
                bound(&head, &answer, a, &mut limits);
                out.want.extend_from_slice(&answer.out);
                out.bound.extend_from_slice(&limits.out);
                lse.want.push(answer.lse);
                lse.bound.push(limits.lse);
                gate.see_head(&head, &answer, &limits.out, Weights::Computed);
            }
        }
    }
    let rows: Vec<usize> = (0..case.batch()).map(|s| case.queries(s) * case.head_dim_v).collect();
    gate.see_neighbours(case.num_heads, &rows, &out);
    let mut outputs = vec![(Pointer::Out, out)];
    if case.stage != Stage::Prefill {
        outputs.push((Pointer::Lse, lse));
    }
    Expected { outputs, probes: gate.probes() }
}

/// What an empty part holds is no input of a merge: it may be anything, NaN too. Here it is zeros,
/// which its weight of 0 leaves out of every sum.
fn without_empty_parts<'a>(case: &Case, inputs: &'a Inputs) -> Cow<'a, Inputs> {
    if case.stage != Stage::Merge {
        return Cow::Borrowed(inputs);
    }
    let mut clean = inputs.clone();
    let (lses, parts) = (inputs.of(Pointer::PartialLse), inputs.of(Pointer::PartialOut));
    clean.put(case, Pointer::PartialOut, |s, h, rows| {
        rows.copy_from_slice(parts.all(s, h));
        for (row, lse) in rows.chunks_exact_mut(case.head_dim_v).zip(lses.all(s, h)) {
            if *lse == f32::NEG_INFINITY {
                row.fill(0.0);
            }
        }
    });
    Cow::Owned(clean)
}

/// The parts of a split are f32, and it is their sum that is judged.
fn of_parts(case: &Case, a: &Arithmetic) -> Arithmetic {
    Arithmetic { out: if case.stage == Stage::Split { DType::F32 } else { a.out }, ..*a }
}

/// The weights of a head's given scores.
fn weigh(case: &Case, inputs: &Inputs, s: usize, h: usize, answer: &mut Answer) {
    let given = inputs.of(Pointer::Scores).rows(s, h, case.attended(s));
    scores(&Scores::Given(given), answer);
    softmax(inputs.sink(h), answer);
}

/// P·V of a head's given weights; the weights and the rows of V.
fn mix_given<'a>(
    case: &Case,
    inputs: &'a Inputs,
    s: usize,
    h: usize,
    answer: &mut Answer,
) -> (&'a [f32], &'a [f32]) {
    let keys = case.attended(s);
    let given = inputs.of(Pointer::Probs).rows(s, h, keys.clone());
    let v = inputs.v().rows(s, h / case.group(), keys);
    answer.probs.clear();
    answer.probs.extend(given.iter().map(|p| f64::from(*p)));
    mix(v, case.head_dim_v, answer);
    (given, v)
}

fn expect_scores(case: &Case, inputs: &Inputs, a: &Arithmetic) -> Expected {
    let (mut answer, mut ds) = (Answer::default(), Vec::new());
    let mut right = Right::default();
    let (mut zeros, mut next) = (Probe::default(), Probe::default());
    for s in 0..case.batch() {
        for h in 0..case.num_heads {
            let from = dot_of(case, inputs, s, h, 0);
            scores(&from, &mut answer);
            bound_scores(&from, &answer, a, &mut ds);
            zeros.see(std::iter::repeat(0.0), &answer.scores, &ds);
            let shifted = answer.scores.iter().cycle().skip(1).copied();
            next.see(shifted, &answer.scores, &ds);
            right.want.extend_from_slice(&answer.scores);
            right.bound.extend_from_slice(&ds);
        }
    }
    let mut gate = Gate::default();
    let rows: Vec<usize> = (0..case.batch()).map(|s| case.attended(s).len()).collect();
    gate.see_neighbours(case.num_heads, &rows, &right);
    let probes = vec![(ZEROS, zeros), ("the next key's score", next), (NEIGHBOUR, gate.neighbour)];
    Expected { outputs: vec![(Pointer::Scores, right)], probes }
}

fn expect_softmax(case: &Case, inputs: &Inputs, a: &Arithmetic) -> Expected {
    let (mut answer, mut dp) = (Answer::default(), Vec::new());
    let (mut right, mut lse) = (Right::default(), Right::default());
    let (mut zeros, mut uniform) = (Probe::default(), Probe::default());
    for s in 0..case.batch() {
        for h in 0..case.num_heads {
            weigh(case, inputs, s, h, &mut answer);
            let dlse = bound_softmax(inputs.sink(h).is_some(), &answer, a, &mut dp);
            zeros.see(std::iter::repeat(0.0), &answer.probs, &dp);
            let mean = answer.probs.iter().sum::<f64>() / answer.probs.len().max(1) as f64;
            uniform.see(std::iter::repeat(mean), &answer.probs, &dp);
            right.want.extend_from_slice(&answer.probs);
            right.bound.extend_from_slice(&dp);
            lse.want.push(answer.lse);
            lse.bound.push(dlse);
        }
    }
    let mut gate = Gate::default();
    let rows: Vec<usize> = (0..case.batch()).map(|s| case.attended(s).len()).collect();
    gate.see_neighbours(case.num_heads, &rows, &right);
    let probes = vec![(ZEROS, zeros), ("uniform weights", uniform), (NEIGHBOUR, gate.neighbour)];
    Expected { outputs: vec![(Pointer::Probs, right), (Pointer::Lse, lse)], probes }
}

fn expect_pv(case: &Case, inputs: &Inputs, a: &Arithmetic) -> Expected {
    let (mut answer, mut limits) = (Answer::default(), Vec::new());
    let (mut out, mut gate) = (Right::default(), Gate::default());
    for s in 0..case.batch() {
        for h in 0..case.num_heads {
            let (given, v) = mix_given(case, inputs, s, h, &mut answer);
            bound_pv(v, case.head_dim_v, &answer, a, &mut limits);
            let scores = Scores::Given(given);
            let head = Head { scores, v, head_dim_v: case.head_dim_v, sink: None };
            gate.see_head(&head, &answer, &limits, Weights::Given);
            out.want.extend_from_slice(&answer.out);
            out.bound.extend_from_slice(&limits);
        }
    }
    gate.see_neighbours(case.num_heads, &vec![case.head_dim_v; case.batch()], &out);
    Expected { outputs: vec![(Pointer::Out, out)], probes: gate.probes() }
}

/// The new rows, to the bit; a rotated key within its bound.
fn expect_append(case: &Case, inputs: &Inputs, a: &Arithmetic) -> Expected {
    let kv = case.dtypes.kv;
    let (mut outputs, mut gate) = (Vec::new(), RotationGate::default());
    for (new, cache) in [(Pointer::NewK, Pointer::K), (Pointer::NewV, Pointer::V)] {
        let mut right = Right::default();
        for s in 0..case.batch() {
            for g in 0..case.num_kv_heads {
                let row = inputs.of(new).all(s, g);
                match case.rope.filter(|_| new == Pointer::NewK) {
                    Some(rope) => {
                        let (first, Right { want, bound }) = (right.want.len(), &mut right);
                        rotate(&rope, case.pos(s), row, a, kv, want, bound);
                        gate.see(&rope, case.pos(s), row, &want[first..], &bound[first..]);
                    }
                    None => right.want.extend(row.iter().map(|x| kv.round(f64::from(*x)))),
                }
            }
        }
        right.bound.resize(right.want.len(), 0.0);
        outputs.push((cache, right));
    }
    // Of what is only moved, whatever is not the row itself differs by more than nothing.
    let probes = vec![
        ("the key not rotated", gate.unturned),
        ("the key rotated the other way", gate.reversed),
    ];
    Expected { outputs, probes: if case.rope.is_some() { probes } else { Vec::new() } }
}

/// The probes of a rotated key. At position 0 neither differs from it.
#[derive(Default)]
struct RotationGate {
    unturned: Probe,
    reversed: Probe,
}

impl RotationGate {
    fn see(&mut self, rope: &Rope, pos: usize, row: &[f32], want: &[f64], bounds: &[f64]) {
        self.unturned.see(row.iter().map(|x| f64::from(*x)), want, bounds);
        // With the two of each pair exchanged before and after, a turn goes the other way.
        let exchanged = |row: &mut dyn FnMut(usize, usize)| {
            (0..want.len() / 2).map(|i| rope.pair(i, want.len())).for_each(|(a, b)| row(a, b));
        };
        let mut other = row.to_vec();
        exchanged(&mut |a, b| other.swap(a, b));
        let (mut turned, mut unused) = (Vec::new(), Vec::new());
        let single = Arithmetic::single(DType::F32);
        rotate(rope, pos, &other, &single, DType::F32, &mut turned, &mut unused);
        exchanged(&mut |a, b| turned.swap(a, b));
        self.reversed.see(turned.into_iter(), want, bounds);
    }
}

fn expect_projection(case: &Case, inputs: &Inputs, a: &Arithmetic) -> Expected {
    let (x, w) = (inputs.of(Pointer::X), inputs.of(Pointer::WO));
    let terms = case.num_heads * case.head_dim;
    let (mut right, mut work) = (Right::default(), Vec::new());
    let (mut zeros, mut next, mut headless) =
        (Probe::default(), Probe::default(), Probe::default());
    let row = |j: usize| &w.data.values[j * terms..][..terms];
    let mut others = Vec::new();
    for s in 0..case.batch() {
        // The heads of a sequence lie one after the other: that is the concatenation.
        let x = &x.data.values[x.range(s, 0).start..][..terms];
        let first = right.want.len();
        others.clear();
        for j in 0..case.hidden {
            let (sum, bound) = project(x, row(j), a, &mut work);
            others.push(sum - work[..case.head_dim].iter().sum::<f64>());
            right.want.push(sum);
            right.bound.push(bound);
        }
        let (want, bound) = (&right.want[first..], &right.bound[first..]);
        zeros.see(std::iter::repeat(0.0), want, bound);
        next.see(want.iter().cycle().skip(1).copied(), want, bound);
        headless.see(others.iter().copied(), want, bound);
    }
    let probes =
        vec![(ZEROS, zeros), ("the next row of w_o", next), ("the first head left out", headless)];
    Expected { outputs: vec![(Pointer::Out, right)], probes }
}

fn expect_norm(case: &Case, inputs: &Inputs, a: &Arithmetic) -> Expected {
    let (mut out, mut residual) = (Right::default(), Right::default());
    let weight = inputs.of(Pointer::Weight).all(0, 0);
    let (mut zeros, mut alone, mut plain) = (Probe::default(), Probe::default(), Probe::default());
    for s in 0..case.batch() {
        let (r, x) = (inputs.of(Pointer::Residual).all(s, 0), inputs.of(Pointer::X).all(s, 0));
        let row = norm(r, x, weight, f64::from(case.eps), a, case.dtypes.q);
        zeros.see(std::iter::repeat(0.0), &row.out, &row.out_bound);
        let unscaled = row.residual.iter().zip(weight).map(|(r, w)| r * f64::from(*w));
        plain.see(unscaled, &row.out, &row.out_bound);
        alone.see(x.iter().map(|x| f64::from(*x)), &row.residual, &row.residual_bound);
        out.want.extend(row.out);
        out.bound.extend(row.out_bound);
        residual.want.extend(row.residual);
        residual.bound.extend(row.residual_bound);
    }
    let probes =
        vec![(ZEROS, zeros), ("the residual left out", alone), ("no normalisation", plain)];
    Expected { outputs: vec![(Pointer::Out, out), (Pointer::Residual, residual)], probes }
}

/// The probes of stages that have a P·V; each is looked at only until it has been seen once.
#[derive(Debug, Default)]
struct Gate {
    zeros: Probe,
    mean: Probe,
    dropped: Probe,
    neighbour: Probe,
}

/// Where a head's weights come from.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Weights {
    /// The kernel computes them: those of the other keys take the mass of one that is dropped.
    Computed,
    /// They are an input, and sum to 1 only within their rounding to f32.
    Given,
}

impl Gate {
    fn probes(self) -> Vec<(&'static str, Probe)> {
        vec![
            (ZEROS, self.zeros),
            (MEAN, self.mean),
            (DROPPED, self.dropped),
            (NEIGHBOUR, self.neighbour),
        ]
    }

    /// Zeros, the mean of V, and one key dropped.
    fn see_head(
        &mut self,
        head: &Head<'_, f32>,
        answer: &Answer,
        limits: &[f64],
        weights: Weights,
    ) {
        let dv = head.head_dim_v;
        let rows = || head.v.chunks_exact(dv);
        let keys = answer.probs.len();
        if !self.zeros.is_seen() {
            self.zeros.see(std::iter::repeat(0.0), &answer.out, limits);
        }
        if !self.mean.is_seen() && keys > 0 {
            let mut mean = vec![0.0; dv];
            for row in rows() {
                mean.iter_mut().zip(row).for_each(|(m, v)| *m += f64::from(*v));
            }
            let mean = mean.into_iter().map(|sum| sum / keys as f64);
            // why: equal weights, or a constant V, make the mean of V but for the weights' rounding.
            let same = if weights == Weights::Given { GIVEN_SAME } else { Probe::SAME };
            self.mean.see_apart(mean, &answer.out, limits, same);
        }
        if !self.dropped.is_seen() && keys > 0 {
            // The key whose absence moves the output most.
            let effect = |(p, row): (&f64, &[f32])| {
                let far = row.iter().zip(&answer.out).map(|(v, o)| (*v as f64 - o).abs());
                p * far.fold(0.0, f64::max)
            };
            let effects = answer.probs.iter().zip(rows()).map(effect).enumerate();
            let (n, _) = effects.max_by(|(_, a), (_, b)| a.total_cmp(b)).expect("keys");
            let others = || (0..keys).filter(|j| *j != n);
            let mass: f64 = if weights == Weights::Computed {
                others().map(|j| answer.probs[j]).sum()
            } else {
                1.0
            };
            let mut without = vec![0.0; dv];
            for (_, (p, row)) in
                answer.probs.iter().zip(rows()).enumerate().filter(|(j, _)| *j != n)
            {
                without.iter_mut().zip(row).for_each(|(o, v)| *o += p * f64::from(*v));
            }
            let without = without.into_iter().map(|sum| if mass > 0.0 { sum / mass } else { 0.0 });
            self.dropped.see(without, &answer.out, limits);
        }
    }

    /// The output of the next head of the same sequence; `rows` are the elements that a head of
    /// each sequence has.
    fn see_neighbours(&mut self, heads: usize, rows: &[usize], right: &Right) {
        let mut first = 0;
        for size in rows {
            let row = |h: usize| first + h * size..first + (h + 1) * size;
            for h in 0..heads {
                if self.neighbour.is_seen() {
                    return;
                }
                let wrong = right.want[row((h + 1) % heads)].iter().copied();
                self.neighbour.see(wrong, &right.want[row(h)], &right.bound[row(h)]);
            }
            first += heads * size;
        }
    }
}

/// The output that [`explain_element`] can tell of, and how many elements a head of sequence `s` has
/// there: attended keys in stages `scores` and `softmax`. `None` in stages that it does not explain.
pub fn explained(case: &Case, s: usize) -> Option<(Pointer, usize)> {
    match case.stage {
        Stage::Scores => Some((Pointer::Scores, case.attended(s).len())),
        Stage::Softmax => Some((Pointer::Probs, case.attended(s).len())),
        Stage::Pv | Stage::Decode | Stage::Split | Stage::Merge => {
            Some((Pointer::Out, case.head_dim_v))
        }
        Stage::Prefill | Stage::Append | Stage::HeadCombine | Stage::Norm => None,
    }
}

/// The terms of the bound at element `i` of head `h` of sequence `s`; with the answer's value and the
/// bound. In stages `scores` and `softmax` the element is an attended key, counted from the first.
///
/// # Panics
/// In stages of which [`explained`] says nothing, and beyond the extent that it gives.
pub fn explain_element(
    case: &Case,
    inputs: &Inputs,
    a: &Arithmetic,
    (s, h, i): (usize, usize, usize),
) -> (f64, f64, Vec<Term>) {
    let (mut answer, mut limits) = (Answer::default(), Vec::new());
    let inputs = &*without_empty_parts(case, inputs);
    match case.stage {
        Stage::Scores => {
            let from = dot_of(case, inputs, s, h, 0);
            scores(&from, &mut answer);
            bound_scores(&from, &answer, a, &mut limits);
            (answer.scores[i], limits[i], explain_scores(&from, &answer, a, i))
        }
        Stage::Softmax => {
            let sink = inputs.sink(h);
            weigh(case, inputs, s, h, &mut answer);
            bound_softmax(sink.is_some(), &answer, a, &mut limits);
            (answer.probs[i], limits[i], explain_softmax(sink.is_some(), &answer, a, i))
        }
        Stage::Pv => {
            let (_, v) = mix_given(case, inputs, s, h, &mut answer);
            bound_pv(v, case.head_dim_v, &answer, a, &mut limits);
            (answer.out[i], limits[i], explain_pv(v, case.head_dim_v, &answer, a, i))
        }
        _ => {
            let a = &of_parts(case, a);
            let (head, mut limits) = (head_of(case, inputs, s, h, 0), Bound::default());
            attend(&head, &mut answer);
            bound(&head, &answer, a, &mut limits);
            (answer.out[i], limits.out[i], explain(&head, &answer, a, i))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::generate::generate;
    use crate::problem::DType;

    fn expected(id: &str) -> Expected {
        let case: Case = id.parse().unwrap();
        let inputs = generate(&case, &[]).unwrap();
        Expected::new(&case, &inputs, &Arithmetic::single(case.dtypes.out))
    }

    #[test]
    fn ordinary_cases_are_not_vacuous() {
        for data in ["gauss", "coded", "onehot:first", "large:3e4", "equal", "constv", "wide"] {
            for dt in ["f32", "f16", "bf16"] {
                let id = format!("b=2,hq=4,hkv=2,d=16,n=[40,0],w=33,dt={dt},data={data},seed=9");
                let e = expected(&id);
                assert_eq!(e.vacuous(), None, "{id}: {:?}", e.probes);
            }
        }
    }

    /// Q·K that cannot be told from uniform weights: scores of 1e-6 in a bf16 output.
    #[test]
    fn a_case_whose_check_sees_nothing_is_vacuous() {
        let case: Case = "hq=1,hkv=1,d=16,n=40,dt=bf16".parse().unwrap();
        let mut inputs = generate(&case, &[]).unwrap();
        let q = std::sync::Arc::make_mut(inputs.0.get_mut(&Pointer::Q).unwrap());
        q.data.values.iter_mut().for_each(|q| *q *= 1e-6);
        let e = Expected::new(&case, &inputs, &Arithmetic::single(DType::BF16));
        assert_eq!(e.vacuous(), Some("the mean of V"));
    }

    /// What is explained of an element is what it is judged by.
    #[test]
    fn the_explained_terms_add_up_to_the_bound_of_every_stage() {
        for stage in ["decode", "split", "merge", "scores", "softmax", "pv"] {
            let keys = if stage == "merge" { "1" } else { "[9,3]" };
            let id = format!("stage={stage},b=2,hq=4,hkv=2,d=6,n={keys},p.splits=5,seed=9");
            let case: Case = id.parse().unwrap();
            let inputs = generate(&case, &[]).unwrap();
            for a in [
                Arithmetic::single(DType::F16),
                Arithmetic {
                    probs: DType::F16,
                    exp_arg_ulp: 3.0,
                    flushes: true,
                    ..Arithmetic::single(DType::F32)
                },
            ] {
                let expected = Expected::new(&case, &inputs, &a);
                let right = &expected.outputs[0].1;
                let mut at = 0;
                for s in 0..2 {
                    for (h, i) in (0..4)
                        .flat_map(|h| (0..explained(&case, s).unwrap().1).map(move |i| (h, i)))
                    {
                        let (want, bound, terms) = explain_element(&case, &inputs, &a, (s, h, i));
                        assert_eq!((want, bound), (right.want[at], right.bound[at]), "{id}");
                        let sum: f64 = terms.iter().map(|t| t.value).sum();
                        assert!((sum / bound - 1.0).abs() < 1e-12, "{id}: {sum:e} {bound:e}");
                        at += 1;
                    }
                }
                assert_eq!(at, right.want.len(), "{id}");
            }
        }
    }

    /// Every stage: as many values as elements are judged, and ordinary data are not vacuous.
    #[test]
    fn every_stage_expects_what_is_judged() {
        for stage in Stage::ALL {
            let keys = if stage.has_keys() { "[40,3]" } else { "1" };
            let id = format!("stage={stage},b=2,hq=4,hkv=2,d=16,n={keys},p.splits=5,dt=f16,seed=9");
            let case: Case = id.parse().unwrap();
            let e = expected(&id);
            assert_eq!(e.vacuous(), None, "{id}: {:?}", e.probes);
            if *stage == Stage::Split {
                continue;
            }
            for tensor in case.tensors(&case.placements().unwrap()).unwrap() {
                let written = stage.port(tensor.pointer).is_some_and(|p| p.write);
                let right = e.of(tensor.pointer);
                assert_eq!(right.is_some(), written, "{id} {}", tensor.pointer);
                if let Some(right) = right {
                    let judged: usize = case.runs(&tensor).iter().map(|r| r.count).sum();
                    assert_eq!((right.want.len(), right.bound.len()), (judged, judged), "{id}");
                }
            }
        }
    }

    /// Whatever an empty part holds, a merge must have the same output.
    #[test]
    fn what_an_empty_part_holds_changes_nothing() {
        let case: Case = "stage=merge,b=2,hq=4,hkv=4,d=4,n=1,p.splits=6,seed=3".parse().unwrap();
        let inputs = generate(&case, &[]).unwrap();
        let mut other = inputs.clone();
        let lses = inputs.of(Pointer::PartialLse).data.values.clone();
        assert!(lses.contains(&f32::NEG_INFINITY));
        let parts = std::sync::Arc::make_mut(other.0.get_mut(&Pointer::PartialOut).unwrap());
        for (row, lse) in parts.data.values.chunks_exact_mut(4).zip(&lses) {
            if *lse == f32::NEG_INFINITY {
                row.fill(f32::NAN);
            }
        }
        let a = Arithmetic::single(DType::F32);
        let [one, two] = [&inputs, &other].map(|inputs| Expected::new(&case, inputs, &a));
        assert_eq!((one.outputs, one.probes), (two.outputs, two.probes));
    }

    /// A rotation that is not made, or made the other way, is asked of an appended key; at position 0
    /// there is nothing to see of it.
    #[test]
    fn a_key_that_is_not_rotated_is_probed() {
        for (n, differs) in [("1", false), ("2", true), ("[1,1,9]", true)] {
            for style in ["half", "interleaved"] {
                let b = if n == "[1,1,9]" { 3 } else { 1 };
                let e = expected(&format!(
                    "stage=append,b={b},hq=2,hkv=2,d=8,n={n},rope={style}:10000,dt=f32/f16/f32"
                ));
                assert_eq!(e.probes.len(), 2);
                for (what, probe) in &e.probes {
                    assert_eq!((probe.differs, probe.is_seen()), (differs, differs), "{n} {what}");
                }
                assert_eq!(e.vacuous(), None);
            }
        }
        assert!(expected("stage=append,hq=2,hkv=2,d=8,n=3").probes.is_empty());
    }

    #[test]
    fn the_gate_skips_what_cannot_differ() {
        // One head, one key, V constant: only zeros differ (and the dropped key, which is zeros).
        let e = expected("hq=1,hkv=1,d=4,n=1,data=constv");
        assert_eq!(e.vacuous(), None);
        assert!(!e.probes[1].1.differs && !e.probes[3].1.differs, "{:?}", e.probes);
        let empty = expected("hq=1,hkv=1,d=4,n=0");
        assert!(empty.probes.iter().all(|(_, p)| !p.differs));
        assert_eq!(empty.of(Pointer::Out).unwrap().bound.len(), 4);
    }
}
