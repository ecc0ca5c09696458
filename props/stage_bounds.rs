//! Laws about the error bounds of the stages alone: no honest kernel exceeds them, whatever liberty it
//! takes that a manifest can promise, and a mild fault of the same kernel exceeds them still.

use crate::bench::cache;
use crate::support::cases::{count, draw, parallel};
use crate::support::ratios::{quantile, ratio};
use crate::support::stages::{WAYS, Way};
use attnbench::data::inputs::Inputs;
use attnbench::judge::space::{Filter, Space};
use attnbench::kernel::Registry;
use attnbench::oracle::Expected;
use attnbench::problem::{Case, DType, Pointer, Stage};
use std::collections::BTreeMap;

/// Longest sequence, so that a case of every way takes little time.
const LONGEST: usize = 1100;

/// The cases of each stage that has a way, by its built-in kernel's name.
fn spaces() -> BTreeMap<&'static str, Space> {
    let registry = Registry::new(cache()).expect("the built-in kernels");
    let space = |way: &Way| {
        let manifest = registry.find(way.kernel).expect("a built-in kernel");
        let seq_len = manifest.stage.has_keys().then_some((0, LONGEST));
        let filter = Filter { seq_len, waves: vec![32], ..Filter::default() };
        let mut space = Space::new(&manifest, &filter, &[]).expect("a space with cases");
        // These laws are about rounding: what is not a number has none.
        space.regimes.retain(|regime| regime.family() != "nonfinite");
        (way.kernel, space)
    };
    WAYS.iter().map(space).collect()
}

/// The factor that brings ordinary numbers around the least normal one of f32.
const SMALL: f32 = f32::MIN_POSITIVE;

/// A factor for what they are multiplied by, so that what is lost of a small number shows.
const LARGE: f32 = 1024.0 * 1024.0;

/// The same case with one operand of its products around the least normal number, some of it below,
/// and the other large; for data in f32, which can hold that.
fn subdued(case: &Case, inputs: &Inputs) -> Option<Inputs> {
    use Pointer::*;
    let all_single = [case.dtypes.q, case.dtypes.kv, case.dtypes.out] == [DType::F32; 3];
    let factors: &[(Pointer, f32)] = match case.stage {
        _ if !all_single => return None,
        Stage::Scores => &[(Q, SMALL), (K, LARGE)],
        Stage::Pv => &[(Probs, SMALL), (V, LARGE)],
        Stage::Merge => &[(PartialOut, SMALL)],
        Stage::HeadCombine => &[(X, SMALL), (WO, LARGE)],
        Stage::Norm => &[(X, SMALL), (Residual, SMALL)],
        Stage::Append => &[(NewK, SMALL)],
        _ => return None,
    };
    let mut inputs = inputs.clone();
    for (pointer, factor) in factors {
        let rows =
            std::sync::Arc::make_mut(inputs.0.get_mut(pointer).expect("an input of the stage"));
        rows.data.values.iter_mut().for_each(|x| *x *= factor);
    }
    Some(inputs)
}

/// The errors over their bounds of each way, sound or with its fault, on its stage's case of an index.
fn ratios(
    spaces: &BTreeMap<&'static str, Space>,
    fault: bool,
    seed: u64,
    index: usize,
) -> Vec<Vec<f32>> {
    let case = |(kernel, space): (&&'static str, &Space)| {
        let (case, inputs) = draw(space, seed, index)?;
        let subdued = (index % 2 == 1 && !fault).then(|| subdued(&case, &inputs)).flatten();
        Some((*kernel, (case, subdued.unwrap_or(inputs))))
    };
    let cases: BTreeMap<_, _> = spaces.iter().filter_map(case).collect();
    let of = |way: &Way| {
        let Some((case, inputs)) = cases.get(way.kernel).filter(|(case, _)| way.takes(case)) else {
            return Vec::new();
        };
        let way = Way { fault, ..*way };
        let expected = Expected::new(case, inputs, &way.promise(case.dtypes.out));
        let mut ratios = Vec::new();
        for (output, got) in way.run(case, inputs) {
            let right = expected.of(output).expect("an output of the stage");
            assert_eq!(got.len(), right.want.len(), "{}: {case}", way.name);
            let pairs = got.iter().zip(&right.want).zip(&right.bound);
            ratios.extend(pairs.map(|((got, want), bound)| ratio(*got, *want, *bound)));
        }
        if let Some(worst) = ratios.iter().copied().reduce(f32::max).filter(|r| *r > 1.0)
            && !way.fault
        {
            println!("VIOLATION {}: {worst}: {case}", way.name);
        }
        ratios
    };
    WAYS.iter().map(of).collect()
}

/// No element of any honest way exceeds its bound, over the cases that a sweep of its stage draws.
#[test]
fn honest_stages_stay_under_the_bound() {
    let spaces = spaces();
    let all = parallel(count(), |index| ratios(&spaces, false, 7, index));
    println!("{:32} {:>9} {:>9} {:>9} {:>9}", "", "elements", "median", "99.9 %", "max");
    let mut beyond = Vec::new();
    for (i, way) in WAYS.iter().enumerate() {
        let mut list: Vec<f32> = all.iter().flat_map(|ways| &ways[i]).copied().collect();
        list.sort_by(f32::total_cmp);
        let [median, most, largest] = [0.5, 0.999, 1.0].map(|share| quantile(&list, share));
        println!("{:32} {:9} {median:9.5} {most:9.5} {largest:9.5}", way.name, list.len());
        // Nothing that was not tried is right, and a bound that nothing comes near is no bound.
        assert!(list.len() >= 20 * count(), "{}: {} elements", way.name, list.len());
        assert!(largest > 0.02, "{}: {largest}", way.name);
        if largest > 1.0 {
            beyond.push(way.name);
        }
    }
    assert!(beyond.is_empty(), "beyond their bounds: {}", beyond.join("; "));
}

/// Each way's mild fault exceeds its bound within the first cases of a sweep that the way takes.
#[test]
fn a_mild_fault_of_each_stage_exceeds_the_bound() {
    /// Cases within which a fault must have been seen.
    const WITHIN: usize = 64;
    let spaces = spaces();
    let all = parallel(4 * WITHIN, |index| ratios(&spaces, true, 23, index));
    let mut missed = Vec::new();
    for (i, way) in WAYS.iter().enumerate() {
        let worst = |ways: &Vec<Vec<f32>>| ways[i].iter().copied().reduce(f32::max);
        let cases: Vec<f32> = all.iter().filter_map(worst).take(WITHIN).collect();
        let seen = cases.iter().filter(|ratio| **ratio > 1.0).count();
        println!("{:32} seen in {seen:2} of {:2} cases", way.name, cases.len());
        if seen == 0 {
            missed.push(way.name);
        }
    }
    assert!(missed.is_empty(), "never seen: {}", missed.join("; "));
}
