//! From a case to the inputs of its stage.
//!
//! A stage of attention reads what the stage before it would give it: scores and weights are those
//! of the case's own q and k, the appended row is the cache's last, and the parts that are merged
//! have the scores of keys for their lse and the rows of V for their values. So every regime of
//! [`super::regimes`] makes its class of faults loud in every stage.

use super::captured::Captured;
use super::inputs::Inputs;
use super::random::Stream;
pub use super::regimes::DataError;
use super::regimes::{attention, code, least_normal, wide};
use crate::problem::{Case, DType, DTypes, HotKey, Pointer, Regime, Stage};

/// The tensors' tags in the seeds of their streams; apart from those of the regimes.
const X: u64 = 11;
const W: u64 = 12;
const RESIDUAL: u64 = 13;
const PLAN: u64 = 14;

/// Makes the inputs of a case. `captured` holds the slices that `slice:NAME` may name.
///
/// # Errors
/// [`DataError`], for captured slices only.
pub fn generate(case: &Case, captured: &[Captured]) -> Result<Inputs, DataError> {
    if let Regime::Slice(name) = &case.regime
        && !case.stage.takes_slices()
    {
        return Err(DataError::StageWithoutSlices { name: name.clone(), stage: case.stage });
    }
    match case.stage {
        Stage::Merge => parts(case, captured),
        Stage::HeadCombine => Ok(projection(case)),
        Stage::Norm => Ok(residual_stream(case)),
        _ => Ok(of_stage(case, attention(case, captured)?)),
    }
}

/// What a stage of attention reads, of the case's queries, keys, values and sinks.
pub fn of_stage(case: &Case, mut attention: Inputs) -> Inputs {
    match case.stage {
        Stage::Softmax => {
            let scores = |s: usize, h: usize, row: &mut [f32]| {
                row.iter_mut()
                    .zip(scores(case, &attention, s, h))
                    .for_each(|(to, x)| *to = x as f32);
            };
            let mut inputs = Inputs::default();
            inputs.put(case, Pointer::Scores, scores);
            attention.0.append(&mut inputs.0);
        }
        Stage::Pv => {
            let mut inputs = Inputs::default();
            inputs.put(case, Pointer::Probs, |s, h, row| weights(case, &attention, s, h, row));
            attention.0.append(&mut inputs.0);
        }
        Stage::Append => {
            let mut inputs = Inputs::default();
            for (new, cache) in [(Pointer::NewK, Pointer::K), (Pointer::NewV, Pointer::V)] {
                let cache = attention.of(cache);
                inputs.put(case, new, |s, g, row| {
                    row.copy_from_slice(cache.rows(s, g, case.pos(s)..case.pos(s) + 1));
                });
            }
            attention.0.append(&mut inputs.0);
        }
        _ => {}
    }
    attention.0.retain(|pointer, _| case.stage.port(*pointer).is_some());
    attention
}

/// `scale * q·k`, with the softcap, for all keys of a head. What a stage is given, not what is
/// right: the oracle judges by what was stored.
fn scores<'a>(
    case: &'a Case,
    attention: &'a Inputs,
    s: usize,
    h: usize,
) -> impl Iterator<Item = f64> + 'a {
    let q = attention.q().all(s, h);
    let k = attention.k().all(s, h / case.group());
    let (scale, cap) = (f64::from(case.scale), f64::from(case.softcap));
    k.chunks_exact(case.head_dim).map(move |k| {
        let dot: f64 = q.iter().zip(k).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum();
        if cap > 0.0 { cap * libm::tanh(scale * dot / cap) } else { scale * dot }
    })
}

/// The softmax of a head's scores over the attended keys. Keys before the window hold what an
/// engine could have left there, of any size.
fn weights(case: &Case, attention: &Inputs, s: usize, h: usize, row: &mut [f32]) {
    let scores: Vec<f64> = scores(case, attention, s, h).collect();
    let keys = case.attended(s);
    let max = scores[keys.clone()].iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let exp = |s: &f64| libm::exp(s - max);
    let sum: f64 = scores[keys].iter().map(exp).filter(|e| e.is_finite()).sum();
    for (p, s) in row.iter_mut().zip(&scores) {
        let weight = exp(s) / sum;
        *p = if weight > 1e6 { 1e6 } else { weight as f32 };
    }
}

/// Parts to be merged. Their lse are scores and their values rows of V, of as many keys as there
/// are parts; every query head has keys of its own. Some parts are empty: lse -inf, and finite
/// numbers of any size for values, which must have no weight.
fn parts(case: &Case, captured: &[Captured]) -> Result<Inputs, DataError> {
    let splits = case.splits();
    let keys = Case {
        num_kv_heads: case.num_heads,
        seq_lens: vec![splits; case.batch()],
        capacity: splits,
        dtypes: DTypes::uniform(DType::F32),
        ..case.clone().for_stage(Stage::Decode)
    };
    let attention = attention(&keys, captured)?;
    let mut inputs = Inputs::default();
    let empty = |s: usize, h: usize| {
        let mut r = Stream::new(case.seed, &[PLAN, 1, s as u64, h as u64]);
        let (kind, at) = (r.below(8), r.below(splits));
        (0..splits)
            .map(move |part| match kind {
                0 => part >= at,
                1 => part < at,
                2 => part != at,
                3 => r.below(3) == 0,
                // Sometimes all of them, which a merge must answer with 0 and -inf.
                4 => s % 2 == 1,
                _ => false,
            })
            .collect::<Vec<bool>>()
    };
    inputs.put(case, Pointer::PartialLse, |s, h, row| {
        let scores = scores(&keys, &attention, s, h);
        for ((lse, x), empty) in row.iter_mut().zip(scores).zip(empty(s, h)) {
            *lse = if empty { f32::NEG_INFINITY } else { x as f32 };
        }
    });
    inputs.put(case, Pointer::PartialOut, |s, h, rows| {
        let mut r = Stream::new(case.seed, &[PLAN, 2, s as u64, h as u64]);
        rows.copy_from_slice(attention.v().all(s, h));
        if case.regime == Regime::Subnormal {
            // Subnormal in the output's type: in f32's range all of it would round to 0.
            let larger = least_normal(case.dtypes.out) / least_normal(DType::F32);
            rows.iter_mut().for_each(|x| *x *= larger);
        }
        for (row, _) in
            rows.chunks_exact_mut(case.head_dim_v).zip(empty(s, h)).filter(|(_, empty)| *empty)
        {
            row.fill_with(|| 1e6 * r.gauss());
        }
    });
    Ok(inputs)
}

/// An index that a one-hot regime picks among `count`.
fn hot_index(r: &mut Stream, hot: HotKey, count: usize) -> usize {
    let last = count - 1;
    match hot {
        HotKey::First | HotKey::Outside => r.below(2).min(last),
        HotKey::Last => last - r.below(2).min(last),
        HotKey::Any => r.below(count),
        HotKey::Tile => {
            let tile = 16usize << r.below(4);
            let edge = tile * (1 + r.below(1 + count / tile));
            (edge - r.below(2)).min(last)
        }
    }
}

/// A constant of eight significant bits: exact in every driven type.
fn constant(r: &mut Stream) -> f32 {
    r.sign() * (128 + r.below(128)) as f32 / 64.0
}

/// The heads' outputs and the projection that combines them.
fn projection(case: &Case) -> Inputs {
    let terms = case.num_heads * case.head_dim;
    let mut inputs = Inputs::default();
    inputs.put(case, Pointer::X, |s, h, row| {
        let mut r = Stream::new(case.seed, &[X, s as u64, h as u64]);
        // One index over all heads of a sequence.
        let mut of_sequence = Stream::new(case.seed, &[PLAN, 3, s as u64]);
        match &case.regime {
            Regime::OneHot(hot) => {
                let at = hot_index(&mut of_sequence, *hot, terms);
                for (d, x) in row.iter_mut().enumerate() {
                    *x = if h * case.head_dim + d == at { 2.0 } else { 0.0 };
                }
            }
            Regime::ConstantV | Regime::EqualScores => row.fill(constant(&mut of_sequence)),
            Regime::Large(_) => row.fill_with(|| 1e3 * r.gauss()),
            Regime::Wide => row.fill_with(|| wide(&mut r, 6)),
            Regime::Subnormal => row.fill_with(|| r.gauss() * least_normal(case.dtypes.q)),
            Regime::NonFinite => {
                row.fill_with(|| r.gauss());
                if of_sequence.below(2) == 0 && of_sequence.below(case.num_heads) == h {
                    row[r.below(case.head_dim)] = [f32::NAN, f32::INFINITY][r.below(2)];
                }
            }
            _ => row.fill_with(|| r.gauss()),
        }
    });
    inputs.put(case, Pointer::WO, |_, _, rows| {
        let mut r = Stream::new(case.seed, &[W]);
        let unit = 1.0 / (terms as f32).sqrt();
        for (j, row) in rows.chunks_exact_mut(terms).enumerate() {
            match &case.regime {
                Regime::OneHot(_) | Regime::IndexCoded => {
                    for (i, w) in row.iter_mut().enumerate() {
                        *w = code(0, i, j, 0);
                    }
                }
                Regime::ConstantV => row.fill(constant(&mut r)),
                Regime::Wide => row.fill_with(|| unit * wide(&mut r, 6)),
                _ => row.fill_with(|| unit * r.gauss()),
            }
        }
    });
    inputs
}

/// The residual stream, what is added to it, and the weights of its norm.
fn residual_stream(case: &Case) -> Inputs {
    let hidden = case.hidden;
    let mut inputs = Inputs::default();
    for (pointer, tag) in [(Pointer::X, X), (Pointer::Residual, RESIDUAL)] {
        inputs.put(case, pointer, |s, _, row| {
            let mut r = Stream::new(case.seed, &[tag, s as u64]);
            match &case.regime {
                // One element that outweighs the others, in x.
                Regime::OneHot(hot) => {
                    row.fill_with(|| 0.125 * r.gauss());
                    if pointer == Pointer::X {
                        row[hot_index(&mut r, *hot, hidden)] = 100.0;
                    }
                }
                Regime::ConstantV | Regime::EqualScores => row.fill(constant(&mut r)),
                // The sum of both stays within f16, its square does not.
                Regime::Large(_) => row.fill_with(|| r.between(-1e4, 1e4)),
                Regime::Wide => row.fill_with(|| wide(&mut r, 6)),
                Regime::Subnormal => row.fill_with(|| r.gauss() * least_normal(case.dtypes.q)),
                Regime::NonFinite => {
                    row.fill_with(|| r.gauss());
                    if r.below(4) == 0 {
                        row[r.below(hidden)] = [f32::NAN, f32::INFINITY][r.below(2)];
                    }
                }
                _ => row.fill_with(|| r.gauss()),
            }
        });
    }
    inputs.put(case, Pointer::Weight, |_, _, row| {
        let mut r = Stream::new(case.seed, &[W]);
        match &case.regime {
            Regime::IndexCoded => {
                row.iter_mut().enumerate().for_each(|(i, w)| *w = code(0, i, 0, 0));
            }
            _ => row.fill_with(|| 1.0 + 0.25 * r.gauss()),
        }
    });
    inputs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inputs(id: &str) -> (Case, Inputs) {
        let case: Case = id.parse().unwrap();
        let inputs = generate(&case, &[]).unwrap();
        (case, inputs)
    }

    #[test]
    fn every_stage_has_its_inputs_in_every_regime_and_no_others() {
        for stage in Stage::ALL {
            for regime in Regime::synthetic() {
                let keys = if stage.has_keys() { 5 } else { 1 };
                let id = format!(
                    "stage={stage},b=2,hq=4,hkv=2,d=6,n={keys},p.splits=3,data={regime},dt=f16"
                );
                let (case, inputs) = inputs(&id);
                let want: Vec<Pointer> = stage
                    .ports()
                    .iter()
                    .filter(|p| p.read && case.shape(p.pointer).is_some())
                    .map(|p| p.pointer)
                    .filter(|p| !matches!(p, Pointer::SeqLens | Pointer::Pos))
                    .collect();
                for pointer in &want {
                    let (dtype, shape) = case.shape(*pointer).unwrap();
                    let rows = inputs.of(*pointer);
                    assert_eq!((rows.data.dtype, &rows.shape), (dtype, &shape), "{id} {pointer}");
                    assert_eq!(rows.data.values.len(), shape.len(), "{id} {pointer}");
                }
                assert_eq!(inputs.0.len(), want.len(), "{id}: {:?}", inputs.0.keys());
            }
        }
    }

    #[test]
    fn a_slice_in_a_stage_that_has_none_is_refused() {
        for id in [
            "stage=prefill,hq=1,hkv=1,d=2,n=3,data=slice:a",
            "stage=merge,hq=1,hkv=1,d=2,n=1,p.splits=2,data=slice:a",
            "stage=norm,hq=1,hkv=1,d=1,n=1,hidden=4,data=slice:a",
        ] {
            let case: Case = id.parse().unwrap();
            let message = generate(&case, &[]).unwrap_err().to_string();
            assert!(message.contains("does not hold what stage"), "{message}");
        }
    }

    #[test]
    fn weights_sum_to_one_over_the_window() {
        for data in ["gauss", "onehot:outside", "large:3e4"] {
            let (_, inputs) = inputs(&format!("stage=pv,hq=2,hkv=1,d=16,n=40,w=9,data={data}"));
            for h in 0..2 {
                let sum: f32 = inputs.of(Pointer::Probs).rows(0, h, 31..40).iter().sum();
                assert!((sum - 1.0).abs() < 1e-5, "{data}: {sum}");
            }
        }
    }

    #[test]
    fn the_appended_row_is_the_cache_s_last() {
        for (dv, elements) in [("", 6), (",dv=4", 4), (",dv=9", 9)] {
            let id = format!("stage=append,b=2,hq=2,hkv=2,d=6,n=[4,1],dt=bf16{dv}");
            let (_, inputs) = inputs(&id);
            for (s, pos) in [(0, 3), (1, 0)] {
                let last = inputs.v().rows(s, 1, pos..pos + 1);
                assert_eq!(inputs.of(Pointer::NewV).all(s, 1), last);
                assert_eq!((last.len(), inputs.of(Pointer::NewK).all(s, 1).len()), (elements, 6));
            }
        }
    }

    #[test]
    fn some_parts_are_empty_and_their_values_are_finite() {
        let (mut all, mut some, mut none) = (0, 0, 0);
        for seed in 0..60 {
            let (_, inputs) =
                inputs(&format!("stage=merge,b=2,hq=2,hkv=2,d=4,n=1,p.splits=5,seed={seed}"));
            let lse = inputs.of(Pointer::PartialLse);
            assert!(inputs.of(Pointer::PartialOut).data.values.iter().all(|x| x.is_finite()));
            for (s, h) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                let empty = lse.all(s, h).iter().filter(|x| **x == f32::NEG_INFINITY).count();
                *[&mut none, &mut some, &mut all][empty.min(1) + usize::from(empty == 5)] += 1;
            }
        }
        assert!(all > 5 && some > 20 && none > 20, "{all} {some} {none}");
    }
}
