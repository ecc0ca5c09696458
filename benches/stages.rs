//! Judging each stage on the CPU device: cases a second on every core, three runs each under other
//! poison and thread orders, data, oracle, bound and comparison included; and how the cost of a case
//! grows with keys and heads.

mod common;

use attnbench::problem::{Case, Stage};
use common::{case, cores, judge, kernels, trials};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::time::Duration;

/// Shapes that the project's speed goals name: 8 heads, 2 KV heads, head_dim 64, batch 1. Seeds are
/// even by turns, so that laws are tried as in a sweep.
fn shapes(stage: Stage, keys: usize) -> String {
    match stage {
        Stage::Prefill => format!("hq=8,hkv=2,d=64,n={}", keys / 4),
        Stage::HeadCombine | Stage::Norm => "hq=8,hkv=8,d=64,n=1,hidden=512".to_owned(),
        Stage::Merge => "hq=8,hkv=8,d=64,n=1".to_owned(),
        _ => format!("hq=8,hkv=2,d=64,n={keys}"),
    }
}

fn stages(c: &mut Criterion) {
    let mut group = c.benchmark_group("judged");
    group.sample_size(10).measurement_time(Duration::from_secs(3));
    for manifest in kernels() {
        let mut trials = trials(&manifest, cores());
        let types = manifest.supports.dtypes[0];
        let cases: Vec<Case> = (0..32)
            .map(|i| {
                let wave = [32, 64][i % 2];
                let shape = shapes(manifest.stage, 128);
                case(&manifest, &format!("{shape},dt={types},wave={wave},seed={i}"))
            })
            .collect();
        // Compiled, and the workers started.
        judge(&mut trials, &cases);
        group.throughput(Throughput::Elements(cases.len() as u64));
        group.bench_function(&manifest.name, |b| {
            b.iter_custom(|n| (0..n).map(|_| judge(&mut trials, &cases)).sum());
        });
    }
    group.finish();
}

/// The same work per key and per head must cost the same: elements a second stay level.
fn growth(c: &mut Criterion) {
    let mut group = c.benchmark_group("growth");
    group.sample_size(10).measurement_time(Duration::from_secs(2));
    let manifest = common::kernel("decode_online");
    let mut trials = trials(&manifest, 1);
    let mut bench = |axis: &str, size: usize, work: usize, id: String| {
        let cases: Vec<Case> =
            (0..4).map(|i| case(&manifest, &format!("{id},seed={}", 2 * i + 1))).collect();
        judge(&mut trials, &cases);
        group.throughput(Throughput::Elements((cases.len() * work) as u64));
        group.bench_function(BenchmarkId::new(axis, size), |b| {
            b.iter_custom(|n| (0..n).map(|_| judge(&mut trials, &cases)).sum());
        });
    };
    for keys in [256, 1024, 4096, 16384] {
        bench("keys", keys, 2 * keys, format!("hq=2,hkv=1,d=64,n={keys}"));
    }
    for heads in [2, 8, 32, 128] {
        bench("heads", heads, 256 * heads, format!("hq={heads},hkv={},d=64,n=256", heads / 2));
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = common::criterion();
    targets = stages, growth
}
criterion_main!(benches);
