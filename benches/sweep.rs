//! The sweep's own cases a second, kernel by kernel: drawn as `sweep` draws them, on every core; and
//! by the number of cases, of which the cost must be a multiple.

mod common;

use attnbench::judge::draw::Draw;
use attnbench::judge::space::{Filter, Space};
use attnbench::kernel::Manifest;
use attnbench::problem::Case;
use common::{cores, judge, kernels, trials};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::time::Duration;

/// The first cases of a sweep with seed 1.
fn drawn(manifest: &Manifest, count: usize) -> Vec<Case> {
    let filter = Filter { waves: vec![32, 64], ..Filter::default() };
    let space = Space::new(manifest, &filter, &[]).expect("a space with cases");
    let case = |i| match space.draw(1, i) {
        Draw::Case(case) => *case,
        Draw::Outside(what, why) => panic!("{what}: {why}"),
    };
    (0..count).map(case).collect()
}

fn by_kernel(c: &mut Criterion) {
    let mut group = c.benchmark_group("sweep");
    group.sample_size(10).measurement_time(Duration::from_secs(4));
    for manifest in kernels() {
        let (mut trials, cases) = (trials(&manifest, cores()), drawn(&manifest, 100));
        judge(&mut trials, &cases);
        group.throughput(Throughput::Elements(cases.len() as u64));
        group.bench_function(&manifest.name, |b| {
            b.iter_custom(|n| (0..n).map(|_| judge(&mut trials, &cases)).sum());
        });
    }
    group.finish();
}

fn by_count(c: &mut Criterion) {
    let mut group = c.benchmark_group("cases");
    group.sample_size(10).measurement_time(Duration::from_secs(4));
    let manifest = common::kernel("scores");
    let mut trials = trials(&manifest, cores());
    for count in [100, 200, 400, 800] {
        let cases = drawn(&manifest, count);
        judge(&mut trials, &cases);
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(BenchmarkId::new("scores", count), |b| {
            b.iter_custom(|n| (0..n).map(|_| judge(&mut trials, &cases)).sum());
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = common::criterion();
    targets = by_kernel, by_count
}
criterion_main!(benches);
