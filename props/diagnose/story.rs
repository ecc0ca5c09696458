//! The seed's story, on real data.
//!
//! Its audit B3.24 asked whether the decode kernel read V row-wise or column-wise, and was answered
//! `col`. The kernel read another layer's cache. Its audit B3.25 then found an error of 2.45e-3 on
//! one prompt; the reference had summed the last 64 keys of a longer sequence.
//!
//! Both are files in `golden/story`, made here from golden slices, so that the program can be shown
//! them; this test makes them again and compares every byte (`ATTNBENCH_BLESS=1` writes them).

use super::diagnosis;
use attnbench::data::golden::embedded;
use attnbench::data::slice::{KvSlice, Tensor};
use attnbench::judge::diagnose::Verdict;
use attnbench::judge::diagnose::attend::attended;
use attnbench::problem::DType;
use std::path::PathBuf;

fn golden(name: &str) -> &'static KvSlice {
    &embedded().iter().find(|(n, _)| *n == name).expect("a golden slice").1
}

fn f32s(shape: Vec<usize>, values: &[f64]) -> Tensor {
    let mut bytes = vec![0u8; values.len() * 4];
    values.iter().enumerate().for_each(|(i, x)| DType::F32.store(&mut bytes, i, *x));
    Tensor { dtype: DType::F32, shape, bytes }
}

/// The slice with a shorter cache: its first `capacity` rows, the stale ones among them.
fn cut(slice: &KvSlice, capacity: usize) -> KvSlice {
    let shorter = |t: &Tensor| {
        let rows = t.shape.len() - 2;
        let row = t.shape[rows + 1] * t.dtype.size();
        let heads = t.bytes.chunks_exact(slice.capacity * row);
        let mut shape = t.shape.clone();
        shape[rows] = capacity;
        let bytes = heads.flat_map(|head| &head[..capacity * row]).copied().collect();
        Tensor { dtype: t.dtype, shape, bytes }
    };
    KvSlice { capacity, k: shorter(&slice.k), v: shorter(&slice.v), ..slice.clone() }
}

/// Compares a slice with its file, or writes it.
fn keep(name: &str, slice: &KvSlice) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden/story").join(name);
    if std::env::var_os("ATTNBENCH_BLESS").is_some() {
        slice.write(&path).expect("written");
    }
    let file = std::fs::read(&path).expect("a file of the story");
    assert_eq!(file, slice.to_bytes().expect("a slice"), "{name} is made otherwise now");
}

/// Layer 2's query over layer 0's cache: what the kernel of B3.24 computed.
fn wrong_layer() -> KvSlice {
    let slice = cut(golden("p5_ba_decode0_L02_LHND4_f16"), 32);
    let read = KvSlice { layer: 0, ..slice.clone() };
    let out = attended(&read).expect("a slice").out;
    KvSlice { out, name: "wrong_layer".into(), ..slice }
}

/// The right output beside the weights of the last 64 of 93 keys: the reference of B3.25.
fn short_reference() -> KvSlice {
    const WINDOW: usize = 64;
    let slice = cut(golden("p4_sys_decode0_L15_f32"), 96);
    let (heads, keys) = (slice.num_heads, slice.seq_len);
    let probs = slice.probs.as_ref().and_then(Tensor::values).expect("weights");
    let last: Vec<f64> =
        probs.chunks_exact(keys).flat_map(|row| &row[keys - WINDOW..]).copied().collect();
    KvSlice {
        probs: Some(f32s(vec![heads, WINDOW], &last)),
        scores: None,
        name: "short_reference".into(),
        ..slice
    }
}

/// Mean errors of the two hypotheses of the seed's probe against the output of a head: its weights
/// times V of its own layer, read row-wise and column-wise.
fn probe(slice: &KvSlice, weights: &[f64], head: usize) -> (f64, f64) {
    let (keys, dim) = (slice.seq_len, slice.head_dim);
    let base = (slice.layer * slice.num_kv_heads + head / slice.group()) * slice.capacity * dim;
    let v = |at: usize| slice.v.get(base + at).expect("inside");
    let error = |of: &dyn Fn(usize, usize) -> f64| {
        let off = (0..dim).map(|d| {
            let sum: f64 = (0..keys).map(|n| weights[n] * of(n, d)).sum();
            (sum - slice.out.get(head * dim + d).expect("inside")).abs()
        });
        off.sum::<f64>() / dim as f64
    };
    (error(&|n, d| v(n * dim + d)), error(&|n, d| v(d * slice.capacity + n)))
}

#[test]
fn a_probe_of_two_hypotheses_says_col_and_the_diagnosis_says_which_layer() {
    let slice = wrong_layer();
    keep("wrong_layer.safetensors", &slice);
    let read = attended(&KvSlice { layer: 0, ..slice.clone() }).expect("a slice");
    let weights = read.probs.as_ref().and_then(Tensor::values).expect("weights");
    for head in 0..slice.num_heads {
        let (row, col) = probe(&slice, &weights[head * slice.seq_len..], head);
        assert!(col < row, "head {head}: row {row:.4}, col {col:.4}");
        // Five orders of magnitude above rounding: the better of two wrong guesses.
        assert!(col > 1e-2, "head {head}: {col:.4}");
    }
    let d = diagnosis(&slice);
    assert_eq!((d.verdict, d.fault.as_deref()), (Verdict::Explained, Some("layer_slice")));
    assert_eq!(d.params["read"].to_string(), "0");
    assert!(d.fit.mae < 1e-7 && d.fit.ratio < 0.1, "{:?}", d.fit);
    assert!(d.advice()[0].contains("layer * layer stride"), "{:?}", d.advice());
}

#[test]
fn the_error_of_the_longer_prompt_is_the_references() {
    let slice = short_reference();
    keep("short_reference.safetensors", &slice);
    // P·V of the reference misses the output by what lies before its window.
    let (keys, dim) = (slice.seq_len, slice.head_dim);
    let probs = slice.probs.as_ref().and_then(Tensor::values).expect("weights");
    let window = probs.len() / slice.num_heads;
    let mut largest = 0.0f64;
    for head in 0..slice.num_heads {
        let base = head / slice.group() * slice.capacity * dim;
        let off = (0..dim).map(|d| {
            let sum: f64 = (0..window)
                .map(|i| {
                    let n = keys - window + i;
                    probs[head * window + i] * slice.v.get(base + n * dim + d).expect("inside")
                })
                .sum();
            (sum - slice.out.get(head * dim + d).expect("inside")).abs()
        });
        largest = largest.max(off.sum::<f64>() / dim as f64);
    }
    assert!(largest > 1e-3, "{largest:e}");
    let d = diagnosis(&slice);
    assert_eq!(
        (d.verdict, d.fault.as_deref()),
        (Verdict::Reference, Some("softmax_over_window_then_full"))
    );
    assert_eq!(d.params["w"].to_string(), "64");
    assert!(d.note.contains("the output is right"), "{}", d.note);
    // With the full sum it vanishes.
    let full = attended(&slice).expect("a slice");
    assert_eq!(diagnosis(&full).verdict, Verdict::Clean);
}

/// A reference that was renormalised over its window, or holds zeros for the keys before it.
#[test]
fn a_short_reference_is_recognised_in_every_form() {
    let slice = short_reference();
    let (heads, keys) = (slice.num_heads, slice.seq_len);
    let probs = slice.probs.as_ref().and_then(Tensor::values).expect("weights");
    let window = probs.len() / heads;
    let renormalised: Vec<f64> = probs
        .chunks_exact(window)
        .flat_map(|row| {
            let sum: f64 = row.iter().sum();
            row.iter().map(move |p| p / sum)
        })
        .collect();
    let padded: Vec<f64> = probs
        .chunks_exact(window)
        .flat_map(|row| vec![0.0; keys - window].into_iter().chain(row.iter().copied()))
        .collect();
    for (weights, width, how) in [
        (&renormalised, window, "renormalised"),
        (&padded, keys, "as they are"),
        (&probs, window, "as they are"),
    ] {
        let probs = Some(f32s(vec![heads, width], weights));
        let d = diagnosis(&KvSlice { probs, ..slice.clone() });
        assert_eq!(d.verdict, Verdict::Reference, "{how}: {}", d.note);
        assert_eq!(
            (d.params["w"].to_string(), d.params["weights"].to_string()),
            (window.to_string(), how.to_owned())
        );
    }
    // Weights that are none of these are said to be wrong, and the output is right all the same.
    let mut wrong = probs.clone();
    wrong.iter_mut().for_each(|p| *p *= 1.001);
    let d = diagnosis(&KvSlice { probs: Some(f32s(vec![heads, window], &wrong)), ..slice });
    assert_eq!(d.verdict, Verdict::Clean);
    assert!(d.note.contains("probs in the file are not the softmax"), "{}", d.note);
}

/// The first stage that is wrong is named.
#[test]
fn the_first_wrong_stage_is_named() {
    let slice = attended(golden("p4_sys_decode0_L15_f32")).expect("a slice");
    let spoil = |t: &Option<Tensor>, by: f64| {
        let mut values = t.as_ref().and_then(Tensor::values).expect("there");
        values.iter_mut().for_each(|x| *x *= by);
        Some(f32s(t.as_ref().expect("there").shape.clone(), &values))
    };
    let bad_out = spoil(&Some(slice.out.clone()), 1.01).expect("out");
    let out_alone = KvSlice { out: bad_out, ..slice };
    assert_eq!(diagnosis(&out_alone).stage, Some("pv"));
    let weights = KvSlice { probs: spoil(&out_alone.probs, 1.01), ..out_alone };
    assert_eq!(diagnosis(&weights).stage, Some("softmax"));
    let scores = KvSlice { scores: spoil(&weights.scores, 1.01), ..weights };
    assert_eq!(diagnosis(&scores).stage, Some("scores"));
}
