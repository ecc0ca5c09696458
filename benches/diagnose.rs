//! What a diagnosis costs: the search over single faults, and over pairs where none fits.
//!
//! The output is right but for noise, so that nothing fits and everything is tried.

mod common;

use attnbench::data::golden::embedded;
use attnbench::data::random::Stream;
use attnbench::data::slice::{KvSlice, Tensor};
use attnbench::judge::diagnose::problem::Problem;
use attnbench::judge::diagnose::{Options, Verdict, diagnose};
use attnbench::problem::DType;
use criterion::{Criterion, criterion_group, criterion_main};
use std::hint::black_box;

fn tensor(shape: Vec<usize>, mut value: impl FnMut() -> f64) -> Tensor {
    let mut bytes = vec![0u8; shape.iter().product::<usize>() * 4];
    (0..bytes.len() / 4).for_each(|i| DType::F32.store(&mut bytes, i, value()));
    Tensor { dtype: DType::F32, shape, bytes }
}

/// A slice of 9 heads, 738 keys and head_dim 64, with noise on its output.
fn captured() -> KvSlice {
    let (_, slice) =
        embedded().iter().find(|(name, _)| name.starts_with("p_long")).expect("golden");
    noisy(slice.clone())
}

/// 32 heads, 8 KV heads, 8192 keys, head_dim 128.
fn large() -> KvSlice {
    let (heads, kv_heads, keys, dim) = (32, 8, 8192, 128);
    let mut r = Stream::new(71, &[]);
    let mut gauss = |scale: f64| {
        let mut r = Stream::new(r.bits(), &[]);
        move || scale * f64::from(r.gauss())
    };
    let cache = vec![kv_heads, keys, dim];
    KvSlice {
        num_heads: heads,
        num_kv_heads: kv_heads,
        head_dim: dim,
        seq_len: keys,
        capacity: keys,
        pos_id: keys - 1,
        scale: 1.0 / (dim as f64).sqrt(),
        q: tensor(vec![heads, dim], gauss(2.0)),
        k: tensor(cache.clone(), gauss(1.0)),
        v: tensor(cache, gauss(1.0)),
        out: tensor(vec![heads, dim], gauss(0.1)),
        ..embedded()[0].1.clone()
    }
}

fn noisy(slice: KvSlice) -> KvSlice {
    let mut r = Stream::new(73, &[]);
    let mut out = slice.out.clone();
    for i in 0..out.len() {
        let x = out.get(i).expect("f32") + 1e-2 * f64::from(r.gauss());
        out.dtype.store(&mut out.bytes, i, x);
    }
    KvSlice { out, ..slice }
}

fn diagnoses(c: &mut Criterion) {
    let mut group = c.benchmark_group("diagnose");
    group.sample_size(10);
    for (name, slice, pairs) in [
        ("singles/9x3x738x64", captured(), false),
        ("singles and pairs/9x3x738x64", captured(), true),
        ("singles/32x8x8192x128", large(), false),
    ] {
        slice.validate().expect("a slice");
        group.bench_function(name, |b| {
            b.iter(|| {
                let problem = Problem::of_slice(&slice).expect("a slice");
                let d = diagnose(black_box(&problem), Options { pairs, ..Options::default() });
                assert_eq!(d.verdict, Verdict::Unexplained);
            });
        });
    }
}

criterion_group! {
    name = benches;
    config = common::criterion();
    targets = diagnoses
}
criterion_main!(benches);
