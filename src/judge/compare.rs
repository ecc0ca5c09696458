//! Every output element against the oracle, in units of its own bound.

use crate::data::image::Image;
use crate::oracle::{Expected, Right};
use crate::problem::{Case, DType, Pointer, Stage};

/// An element of an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Where {
    /// Sequence.
    pub batch: usize,
    /// Query head; KV head of an appended row.
    pub head: usize,
    /// Key of a score or weight, position of a prefill or an appended row; otherwise 0.
    pub token: usize,
    /// Element of the head vector or of the residual stream (0 for lse, scores and weights).
    pub d: usize,
}

/// The largest absolute error of an output.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Largest {
    /// The error.
    pub error: f64,
    /// The bound of that element.
    pub bound: f64,
}

/// In which way elements of an output are wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wrong {
    /// A number, but another one.
    Apart,
    /// NaN or infinite where a number must be.
    Broken,
    /// A number where NaN or an infinity must come out.
    Swallowed,
}

impl Wrong {
    fn of(got: f64, want: f64) -> Wrong {
        match (got.is_finite(), want.is_finite()) {
            (false, true) => Wrong::Broken,
            // An infinity is a value too (the lse of nothing, what overflows a type); NaN is not one.
            (true, false) if want.is_nan() => Wrong::Swallowed,
            (false, false) if got.is_nan() => Wrong::Broken,
            _ => Wrong::Apart,
        }
    }
}

/// What one output alone came to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measure {
    /// Which output.
    pub output: Pointer,
    /// The largest error over its bound.
    pub ratio: f64,
    /// Largest absolute error over the elements that are finite on both sides.
    pub max_abs: f64,
    /// The bound of the element that it is of.
    pub max_abs_bound: f64,
    /// Mean absolute error over the elements that are finite on both sides.
    pub mae: f64,
    /// Elements that are judged.
    pub elements: usize,
    /// Elements that are finite on both sides.
    pub finite: usize,
    /// Elements beyond their bound, by [`Wrong`].
    pub wrong: [usize; 3],
}

impl Measure {
    /// Elements beyond their bound.
    pub fn wrong(&self) -> usize {
        self.wrong.iter().sum()
    }

    /// The one way in which all wrong elements are wrong, if it is one.
    pub fn way(&self) -> Option<Wrong> {
        let ways = [Wrong::Apart, Wrong::Broken, Wrong::Swallowed];
        ways.into_iter().find(|way| self.wrong[*way as usize] == self.wrong() && self.wrong() > 0)
    }
}

/// How the outputs of a run compare with what they must be.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// The largest error over its bound, in the stage's main output where that is wrong, otherwise
    /// in any; infinite where something is not finite that must be, or the other way round.
    pub ratio: f64,
    /// Each judged output alone, the main one first.
    pub measures: Vec<Measure>,
    /// Where the largest ratio is.
    pub at: Where,
    /// In which output.
    pub output: Pointer,
    /// What was there, and what must be.
    pub got: f64,
    /// See `got`.
    pub want: f64,
    /// The bound at that element.
    pub bound: f64,
    /// Largest absolute error over all finite elements of the output that is told: the main one, unless
    /// another alone is wrong.
    pub max_abs: f64,
    /// The bound of the element that it is of.
    pub max_abs_bound: f64,
    /// Mean absolute error over the same elements.
    pub mae: f64,
    /// Elements (of all outputs) beyond their bound.
    pub wrong: usize,
}

impl Comparison {
    /// Whether every element is within its bound.
    pub fn is_right(&self) -> bool {
        self.ratio <= 1.0
    }

    /// The largest absolute error of the output that is told.
    pub fn largest(&self) -> Largest {
        Largest { error: self.max_abs, bound: self.max_abs_bound }
    }

    /// What one output alone came to; `None` where it was not judged.
    pub fn of(&self, output: Pointer) -> Option<&Measure> {
        self.measures.iter().find(|m| m.output == output)
    }

    /// The largest ratio of one output alone; 0 where it was not judged.
    pub fn ratio_of(&self, output: Pointer) -> f64 {
        self.of(output).map_or(0.0, |m| m.ratio)
    }

    /// In which way the output that is told is wrong, where it is one way.
    pub fn way(&self) -> Option<Wrong> {
        self.of(self.output).and_then(Measure::way)
    }
}

/// Error over bound of one element.
///
/// An element must be finite where the oracle's is, and not finite where it is not (NaN and
/// infinity are not told apart). Where the right value rounds beyond the type's largest number, it
/// must be the infinity of that sign. A bound of 0 asks for the very bits: also the sign of a zero.
pub fn ratio(got: f64, want: f64, bound: f64, dtype: DType) -> f64 {
    if bound == 0.0 && got == 0.0 && got.to_bits() != want.to_bits() {
        return f64::INFINITY;
    }
    if !want.is_finite() {
        return if got.is_finite() { f64::INFINITY } else { 0.0 };
    }
    if got.is_finite() {
        let error = (got - want).abs();
        let overflows = error > bound && dtype.round(want).is_infinite();
        return match error {
            _ if overflows => f64::INFINITY,
            0.0 => 0.0,
            error => error / bound,
        };
    }
    // An infinity is right only where a value within the bound rounds to it.
    let reach = want.abs() + bound;
    let allowed = dtype.round(reach).is_infinite() && got == f64::INFINITY.copysign(want);
    if allowed { 0.0 } else { f64::INFINITY }
}

/// Error over bound of an lse. An empty attended set has exactly -inf: it is what a merge of
/// splits takes as "no mass", so NaN there is a fault.
fn lse_ratio(got: f64, want: f64, bound: f64) -> f64 {
    if want == f64::NEG_INFINITY {
        return if got == want { 0.0 } else { f64::INFINITY };
    }
    ratio(got, want, bound, DType::F32)
}

/// The judged values of an output, as a run left them.
///
/// Stage `split` has `out` and `lse` for outputs: what its parts come to when they are put together
/// as `merge` does, in f64. Which keys are in which part is the kernel's affair, and what an empty
/// part holds is nobody's.
pub fn values(case: &Case, image: &Image, memory: &[u8], output: Pointer) -> Vec<f64> {
    if case.stage != Stage::Split {
        return image.output(output).values(memory).collect();
    }
    let outs: Vec<f64> = image.output(Pointer::PartialOut).values(memory).collect();
    let lses: Vec<f64> = image.output(Pointer::PartialLse).values(memory).collect();
    let (splits, dv) = (case.splits(), case.head_dim_v);
    let mut merged = Vec::new();
    for (lses, outs) in lses.chunks_exact(splits).zip(outs.chunks_exact(splits * dv)) {
        let largest = lses.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weight = |lse: f64| {
            if lse == f64::NEG_INFINITY { 0.0 } else { libm::exp(lse - largest) }
        };
        let sum: f64 = lses.iter().map(|lse| weight(*lse)).sum();
        if output == Pointer::Lse {
            merged.push(if sum == 0.0 { f64::NEG_INFINITY } else { largest + libm::log(sum) });
            continue;
        }
        let first = merged.len();
        merged.resize(first + dv, 0.0);
        for (lse, part) in lses.iter().zip(outs.chunks_exact(dv)) {
            if *lse != f64::NEG_INFINITY {
                for (o, x) in merged[first..].iter_mut().zip(part) {
                    *o += weight(*lse) / sum * x;
                }
            }
        }
    }
    merged
}

/// Where judged element `index` of an output is.
pub fn place(case: &Case, image: &Image, output: Pointer, index: usize) -> Where {
    let [batch, head, token, d] = match (case.stage, output) {
        (Stage::Split, Pointer::Lse) => [index / case.num_heads, index % case.num_heads, 0, 0],
        (Stage::Split, _) => {
            let row = index / case.head_dim_v;
            [row / case.num_heads, row % case.num_heads, 0, index % case.head_dim_v]
        }
        _ => image.output(output).place(index),
    };
    Where { batch, head, token, d }
}

/// The type in which an output is stored.
fn stored_in(case: &Case, image: &Image, output: Pointer) -> DType {
    if case.stage == Stage::Split { DType::F32 } else { image.output(output).dtype }
}

/// Compares what a run left in the image. `judged` are the outputs that the kernel writes.
pub fn compare(
    case: &Case,
    image: &Image,
    memory: &[u8],
    expected: &Expected,
    judged: &[Pointer],
) -> Comparison {
    let outputs = || expected.outputs.iter().filter(|(p, _)| judged.contains(p));
    let main = outputs().map(|(p, _)| *p).next().unwrap_or(Pointer::Out);
    let mut c = Comparison {
        ratio: 0.0,
        measures: Vec::new(),
        at: Where::default(),
        output: main,
        got: 0.0,
        want: 0.0,
        bound: 0.0,
        max_abs: 0.0,
        max_abs_bound: 0.0,
        mae: 0.0,
        wrong: 0,
    };
    for (output, right) in outputs() {
        let got = values(case, image, memory, *output);
        let dtype = stored_in(case, image, *output);
        let (measure, worst_at) = measure(*output, &got, right, dtype);
        c.wrong += measure.wrong();
        // why: a fault that spoils several outputs is one fault, told by the one that users read.
        let told = measure.ratio > c.ratio && c.ratio <= 1.0;
        if let Some(i) = worst_at.filter(|_| told) {
            (c.ratio, c.output) = (measure.ratio, *output);
            (c.got, c.want, c.bound) = (got[i], right.want[i], right.bound[i]);
            c.at = place(case, image, *output, i);
        }
        if *output == main || told && measure.ratio > 1.0 {
            (c.max_abs, c.max_abs_bound, c.mae) =
                (measure.max_abs, measure.max_abs_bound, measure.mae);
        }
        c.measures.push(measure);
    }
    c
}

/// What an output came to, and its element with the largest ratio, if one is off at all.
fn measure(output: Pointer, got: &[f64], right: &Right, dtype: DType) -> (Measure, Option<usize>) {
    let mut m = Measure {
        output,
        ratio: 0.0,
        max_abs: 0.0,
        max_abs_bound: 0.0,
        mae: 0.0,
        elements: got.len(),
        finite: 0,
        wrong: [0; 3],
    };
    let mut worst_at = None;
    for (i, ((got, want), bound)) in got.iter().zip(&right.want).zip(&right.bound).enumerate() {
        let r = match output {
            Pointer::Lse => lse_ratio(*got, *want, *bound),
            _ => ratio(*got, *want, *bound, dtype),
        };
        // NaN (a bound that is not a number) is as bad as infinity.
        let r = if r.is_nan() { f64::INFINITY } else { r };
        if r > 1.0 {
            m.wrong[Wrong::of(*got, *want) as usize] += 1;
        }
        if r > m.ratio {
            (m.ratio, worst_at) = (r, Some(i));
        }
        if got.is_finite() && want.is_finite() {
            let error = (got - want).abs();
            m.finite += 1;
            if error > m.max_abs {
                (m.max_abs, m.max_abs_bound) = (error, *bound);
            }
            m.mae += error;
        }
    }
    m.mae /= m.finite.max(1) as f64;
    (m, worst_at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::generate::generate;
    use crate::data::image::Poisons;
    use crate::oracle::Arithmetic;

    #[test]
    fn finite_elements_are_measured_in_bounds() {
        assert_eq!(ratio(1.0, 1.0, 0.0, DType::F32), 0.0);
        assert_eq!(ratio(1.5, 1.0, 0.25, DType::F32), 2.0);
        assert_eq!(ratio(1.5, 1.0, 0.0, DType::F32), f64::INFINITY);
    }

    #[test]
    fn what_is_not_finite_must_be_so_on_both_sides() {
        for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(ratio(bad, 1.0, 0.5, DType::F32), f64::INFINITY);
            assert_eq!(ratio(1.0, bad, 0.5, DType::F32), f64::INFINITY);
            assert_eq!(ratio(f64::NAN, bad, 0.5, DType::F32), 0.0);
        }
    }

    #[test]
    fn overflow_must_be_the_infinity_of_its_sign() {
        assert_eq!(ratio(f64::INFINITY, 7e4, 1.0, DType::F16), 0.0);
        assert_eq!(ratio(f64::NEG_INFINITY, 7e4, 1.0, DType::F16), f64::INFINITY);
        assert_eq!(ratio(f64::NAN, 7e4, 1.0, DType::F16), f64::INFINITY);
        assert_eq!(ratio(65504.0, 7e4, 1.0, DType::F16), f64::INFINITY);
        // Within the bound of the edge, both are right.
        assert_eq!(ratio(f64::INFINITY, 65519.0, 32.0, DType::F16), 0.0);
        assert!(ratio(65504.0, 65521.0, 32.0, DType::F16) <= 1.0);
    }

    #[test]
    fn the_lse_of_nothing_is_minus_infinity_and_not_nan() {
        assert_eq!(lse_ratio(f64::NEG_INFINITY, f64::NEG_INFINITY, 0.0), 0.0);
        assert_eq!(lse_ratio(f64::NAN, f64::NEG_INFINITY, 0.0), f64::INFINITY);
        assert_eq!(lse_ratio(-1e30, f64::NEG_INFINITY, 0.0), f64::INFINITY);
        assert_eq!(lse_ratio(f64::NEG_INFINITY, 1.0, 1.0), f64::INFINITY);
    }

    #[test]
    fn a_bound_of_zero_asks_for_the_very_bits() {
        assert_eq!(ratio(0.0, 0.0, 0.0, DType::F32), 0.0);
        assert_eq!(ratio(-0.0, 0.0, 0.0, DType::F32), f64::INFINITY);
        assert_eq!(ratio(0.0, -0.0, 0.0, DType::F32), f64::INFINITY);
        assert_eq!(ratio(-0.0, 0.0, 1e-30, DType::F32), 0.0);
    }

    /// A case with its image, and outputs that are right everywhere.
    fn right(id: &str) -> (Case, Image, Vec<u8>, Expected) {
        let case: Case = id.parse().unwrap();
        let places = case.placements().unwrap();
        let inputs = generate(&case, &[]).unwrap();
        let image = Image::new(&case, &places, &[]).unwrap();
        let mut memory = vec![0u8; image.size()];
        image.write(&case, &inputs, Poisons::RUNS[0], &mut memory);
        let expected = Expected::new(&case, &inputs, &Arithmetic::single(case.dtypes.out));
        for (pointer, right) in &expected.outputs {
            let output = image.output(*pointer);
            let mut values = right.want.iter();
            for run in &output.runs {
                for i in 0..run.count {
                    let at = image.element(pointer.name(), run.first + i * run.step);
                    output.dtype.store(&mut memory[at..], 0, *values.next().unwrap());
                }
            }
        }
        (case, image, memory, expected)
    }

    /// Whichever single element is wrong, in whichever output of whichever stage, it is found and
    /// named.
    #[test]
    fn one_wrong_element_anywhere_is_found_and_named() {
        for id in [
            "b=2,hq=4,hkv=2,d=5,n=[9,0],dt=f16,q=HD+pad1,out=HD+pad3.2@1",
            "stage=scores,b=2,hq=2,hkv=1,d=5,n=[9,2],w=4,scores=HN+pad3@1",
            "stage=softmax,b=2,hq=2,hkv=1,d=5,n=[9,2],w=4,probs=HN+pad2",
            "stage=pv,b=1,hq=2,hkv=1,d=5,n=3,out=HD+pad2",
            "stage=prefill,b=2,hq=2,hkv=1,d=3,n=[4,1],out=NHD+pad2.1",
            "stage=append,b=2,hq=2,hkv=2,d=3,n=[4,1],k=NHD+pad1,v=HDN+pad1@2",
            "stage=append,b=2,hq=2,hkv=2,d=3,dv=5,n=[4,1],k=NHD+pad1,v=HDN+pad1@2",
            "stage=merge,b=2,hq=2,hkv=2,d=3,n=1,p.splits=3",
            "stage=head_combine,b=2,hq=2,hkv=2,d=3,n=1,hidden=5",
            "stage=norm,b=2,hq=1,hkv=1,d=1,n=1,hidden=7",
        ] {
            let (case, image, memory, expected) = right(id);
            let all: Vec<Pointer> = expected.outputs.iter().map(|(p, _)| *p).collect();
            let c = compare(&case, &image, &memory, &expected, &all);
            assert!(c.is_right(), "{id}: {c:?}");
            for (which, (pointer, right)) in expected.outputs.iter().enumerate() {
                let output = image.output(*pointer);
                let mut index = 0;
                for run in &output.runs {
                    for i in 0..run.count {
                        let mut wrong = memory.clone();
                        let at = image.element(pointer.name(), run.first + i * run.step);
                        output.dtype.store(&mut wrong[at..], 0, 30_000.0);
                        let c = compare(&case, &image, &wrong, &expected, &all);
                        let place = place(&case, &image, *pointer, index);
                        assert_eq!((c.at, c.output, c.wrong), (place, *pointer, 1), "{id}");
                        assert!(c.ratio > 1.0 && c.ratio_of(*pointer) == c.ratio);
                        let others: Vec<Pointer> =
                            all.iter().copied().filter(|p| p != pointer).collect();
                        assert!(compare(&case, &image, &wrong, &expected, &others).is_right());
                        // Both wrong: told by the main output.
                        let main = image.output(all[0]);
                        let at = image.element(all[0].name(), main.runs[0].first);
                        main.dtype.store(&mut wrong[at..], 0, 30_000.0);
                        let c = compare(&case, &image, &wrong, &expected, &all);
                        let same = which == 0 && index == 0;
                        assert_eq!((c.output, c.wrong), (all[0], 2 - usize::from(same)), "{id}");
                        index += 1;
                    }
                }
                assert_eq!(index, right.want.len());
            }
        }
    }

    #[test]
    fn the_parts_of_a_split_are_judged_put_together() {
        let id = "stage=split,b=1,hq=1,hkv=1,d=2,n=6,p.splits=3";
        let case: Case = id.parse().unwrap();
        let image = Image::new(&case, &case.placements().unwrap(), &[]).unwrap();
        let mut memory = vec![0u8; image.size()];
        let mut store = |name: &str, values: &[f64]| {
            let at = image.element(name, 0);
            values.iter().enumerate().for_each(|(i, x)| DType::F32.store(&mut memory[at..], i, *x));
        };
        // Weights 1, 3 and nothing; what the empty part holds does not matter.
        store("partial_lse", &[0.0, 3f64.ln(), f64::NEG_INFINITY]);
        store("partial_out", &[4.0, 0.0, 8.0, 4.0, f64::NAN, 1e9]);
        let out = values(&case, &image, &memory, Pointer::Out);
        assert!((out[0] - 7.0).abs() < 1e-6 && (out[1] - 3.0).abs() < 1e-6, "{out:?}");
        let lse = values(&case, &image, &memory, Pointer::Lse);
        assert!((lse[0] - 4f64.ln()).abs() < 1e-6, "{lse:?}");
    }
}
