//! The diagnosis of a case that failed in a sweep, from its buffers.

use super::catalogue::{Param, Params};
use super::problem::Problem;
use super::{Diagnosis, Options, Verdict, diagnose};
use crate::data::image::{Image, Poisons};
use crate::device::interrupt;
use crate::judge::compare::{ratio, values};
use crate::judge::trial::{Buffers, Failure, Trial};
use crate::oracle::Arithmetic;
use crate::problem::{Axis, Case, DType, Placement, Pointer, Stage};

/// More multiply-adds than this are not searched: a failing case is shrunk first.
const MOST_WORK: usize = 1 << 22;

/// Of scores, weights and P·V alone every window, tail and cut is computed by itself, which is
/// quadratic in the keys: cases with more of them are not searched.
const MOST_KEYS: usize = 1024;
/// What a larger case must have to tell faults apart: keys, and elements of its outputs.
const TELLING: (usize, usize) = (9, 8);
/// Larger cases that are tried.
const MOST_TRIED: usize = 8;

/// Which fault explains what failed. The shrunk case is the smallest that fails, and often too small
/// to tell faults apart: then larger ones that failed alike are asked, the cheapest first.
pub fn explain<'f>(
    trial: &mut Trial,
    shrunk: (&Case, &Failure),
    larger: impl Iterator<Item = (&'f Case, &'f Failure)>,
) -> Option<Diagnosis> {
    let found = found_of(trial, shrunk, larger);
    // A search that an interrupt cut short has tried too little to say anything.
    found.filter(|_| !interrupt::is_requested())
}

fn found_of<'f>(
    trial: &mut Trial,
    shrunk: (&Case, &Failure),
    larger: impl Iterator<Item = (&'f Case, &'f Failure)>,
) -> Option<Diagnosis> {
    let first = of_finding(trial, shrunk.0, shrunk.1, Options::default())?;
    let told = |d: &Diagnosis| matches!(d.verdict, Verdict::Explained | Verdict::Clean);
    if told(&first) {
        return Some(first);
    }
    let telling = |case: &Case| case.seq_len() >= TELLING.0 && case.head_dim_v >= TELLING.1;
    let mut larger: Vec<(&Case, &Failure)> = larger.filter(|(case, _)| telling(case)).collect();
    larger.sort_by_key(|(case, _)| case.work());
    let mut found = larger.into_iter().take(MOST_TRIED).filter_map(|(case, failure)| {
        // One fault at a time: a sweep has many kernels to go.
        let mut d = of_finding(trial, case, failure, Options { pairs: false })?;
        d.told_by = Some(case.to_string());
        (d.verdict == Verdict::Explained).then_some(d)
    });
    found.next().or(Some(first))
}

/// Under a poison of NaN an output is often not finite, and whatever reads the poison explains it:
/// then another run tells more, whose poison is finite.
fn of_finding(
    trial: &mut Trial,
    case: &Case,
    failure: &Failure,
    options: Options,
) -> Option<Diagnosis> {
    let stray = failure.property == "stray-write";
    if interrupt::is_requested() || !failure.property.starts_with("oracle") && !stray {
        return None;
    }
    let arithmetic = trial.arithmetic(case);
    // What was written beside an output says nothing of the output where that is right.
    let first = of_failure(case, &failure.buffers, arithmetic, options)
        .filter(|d| !stray || d.verdict != Verdict::Clean)?;
    if first.verdict == Verdict::Explained || first.fit.finite > 0 {
        return Some(first);
    }
    let again = trial.buffers_under(case, Poisons::RUNS[2]).ok().flatten();
    let again = again.and_then(|buffers| of_failure(case, &buffers, arithmetic, options));
    Some(again.filter(|d| d.verdict == Verdict::Explained).unwrap_or(first))
}

/// The diagnosis of what a kernel left of a case's outputs; `None` where the stage has no
/// hypotheses, or the case is too large to be searched.
pub fn of_failure(
    case: &Case,
    buffers: &Buffers,
    arithmetic: Arithmetic,
    options: Options,
) -> Option<Diagnosis> {
    let alone = matches!(case.stage, Stage::Scores | Stage::Softmax | Stage::Pv);
    if case.work() > MOST_WORK || alone && case.seq_len() > MOST_KEYS {
        return None;
    }
    if case.stage == Stage::Append {
        return of_append(case, buffers);
    }
    let main = match case.stage {
        Stage::Scores => Pointer::Scores,
        Stage::Softmax => Pointer::Probs,
        _ => Pointer::Out,
    };
    let observed = observed(case, buffers, main)?;
    let before = |name: &str| buffers.before.get(name).map(|bytes| &bytes[..]);
    // Scores, weights and the parts of a split are f32 whatever the output is.
    let out = match case.stage {
        Stage::Scores | Stage::Softmax | Stage::Split => DType::F32,
        _ => arithmetic.out,
    };
    let mut problem = Problem::of_case(case, &before, observed, Arithmetic { out, ..arithmetic })?;
    let lse = buffers.after.get("lse").filter(|_| case.stage == Stage::Decode);
    problem.lse = lse.map(|bytes| {
        (0..bytes.len() / 4).map(|i| DType::F32.load(bytes, i)).take(problem.units.len()).collect()
    });
    Some(diagnose(&problem, options))
}

/// The judged values of an output, as they were left.
fn observed(case: &Case, buffers: &Buffers, output: Pointer) -> Option<Vec<f64>> {
    let image = Image::new(case, &case.placements().ok()?, &[])?;
    let mut memory = vec![0u8; image.size()];
    for (name, bytes) in &buffers.after {
        let range = image.buffer(name)?.range.clone();
        let bytes = bytes.get(..range.len())?;
        memory[range].copy_from_slice(bytes);
    }
    let written = |name: &str| buffers.after.contains_key(name);
    let whole = match case.stage {
        Stage::Split => written("partial_out") && written("partial_lse"),
        _ => written(output.name()),
    };
    whole.then(|| values(case, &image, &memory, output))
}

/// Where an appended row stands instead.
fn of_append(case: &Case, buffers: &Buffers) -> Option<Diagnosis> {
    /// Where a row was written, by id.
    const PLACES: [(&str, &str); 3] = [
        ("append_early", "the row stands one slot before its own"),
        ("append_late", "the row stands one slot after its own"),
        ("append_col", "the row was written column-wise"),
    ];
    let places = case.placements().ok()?;
    let mut found = [true; PLACES.len()];
    let mut wrong = Vec::new();
    for (new, cache, place) in [("new_k", "k", &places.k), ("new_v", "v", &places.v)] {
        // A rotated key is another row than the one that was given.
        let Some(after) =
            buffers.after.get(cache).filter(|_| case.rope.is_none() || new == "new_v")
        else {
            continue;
        };
        let given = buffers.before.get(new)?;
        let dim = place.extents().get(Axis::Dim);
        let element = |at: usize| {
            (at < after.len() / case.dtypes.kv.size()).then(|| case.dtypes.kv.load(after, at))
        };
        for s in 0..case.batch() {
            for g in 0..case.num_kv_heads {
                let pos = case.pos(s);
                let row = |base: usize, step: usize| {
                    (0..dim).all(|d| {
                        let at = (s * case.num_kv_heads + g) * dim + d;
                        let want = case.dtypes.kv.round(case.dtypes.q.load(given, at));
                        element(base + d * step)
                            .is_some_and(|got| ratio(got, want, 0.0, case.dtypes.kv) <= 1.0)
                    })
                };
                let base = |n: usize| place.index(s, case.layer, g, n, 0);
                let step = place.stride(Axis::Dim);
                if row(base(pos), step) {
                    continue;
                }
                wrong.push(g);
                found[0] &= pos > 0 && row(base(pos - 1), step);
                found[1] &= pos + 1 < case.capacity && row(base(pos + 1), step);
                found[2] &= row(base(0) + column(place, pos), column_step(place, case.capacity));
            }
        }
    }
    if wrong.is_empty() {
        return None;
    }
    let mut d = Diagnosis::invalid(String::new());
    match PLACES.iter().zip(found).find(|(_, found)| *found) {
        Some(((id, meaning), _)) => {
            d.verdict = Verdict::Explained;
            d.fault = Some((*id).to_owned());
            d.params = Params::from([("rows", Param::Int(wrong.len()))]);
            d.note = format!("{} rows are not where they must be; {meaning}", wrong.len());
        }
        None => {
            d.verdict = Verdict::Unexplained;
            d.note = format!(
                "{} rows are not where they must be, nor one slot before or after, nor column-wise",
                wrong.len()
            );
        }
    }
    Some(d)
}

/// Where row `pos` of a head begins, from the head's base, with tokens and elements exchanged.
fn column(place: &Placement, pos: usize) -> usize {
    let row = place.stride(Axis::Token) > place.stride(Axis::Dim);
    if row { pos } else { pos * place.extents().get(Axis::Dim) }
}

/// The stride of its elements.
fn column_step(place: &Placement, capacity: usize) -> usize {
    let row = place.stride(Axis::Token) > place.stride(Axis::Dim);
    if row { capacity } else { 1 }
}
