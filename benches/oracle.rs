//! The parts of judging a case that are not the kernel: data, the image of memory with its poison,
//! the oracle, and the bound, by the number of keys.

mod common;

use attnbench::data::generate::generate;
use attnbench::data::image::{Image, Poisons};
use attnbench::judge::trial::arithmetic;
use attnbench::oracle::{Answer, Bound, Expected, attend, bound, head_of};
use attnbench::problem::Case;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use std::time::Duration;

fn parts(c: &mut Criterion) {
    let manifest = common::kernel("decode_online");
    let mut group = c.benchmark_group("parts");
    group.sample_size(20).measurement_time(Duration::from_secs(1));
    for n in [128, 512, 2048, 8192] {
        let case: Case = format!("hq=8,hkv=2,d=64,n={n}").parse().expect("a valid id");
        let places = case.placements().expect("a valid case");
        let inputs = generate(&case, &[]).expect("synthetic data");
        let image = Image::new(&case, &places, &[]).expect("a small image");
        let mut memory = vec![0; image.size()];
        let promised = arithmetic(&manifest, &case);
        group.throughput(Throughput::Elements((n * case.num_heads) as u64));
        group.bench_function(BenchmarkId::new("data", n), |b| {
            b.iter(|| generate(black_box(&case), &[]).expect("synthetic data"))
        });
        group.bench_function(BenchmarkId::new("image", n), |b| {
            b.iter(|| image.write(&case, &inputs, Poisons::RUNS[0], black_box(&mut memory)))
        });
        let heads = || (0..case.num_heads).map(|h| head_of(&case, &inputs, 0, h, 0));
        let mut answer = Answer::default();
        group.bench_function(BenchmarkId::new("oracle", n), |b| {
            b.iter(|| heads().for_each(|head| attend(black_box(&head), &mut answer)))
        });
        let answers: Vec<Answer> = heads()
            .map(|head| {
                let mut answer = Answer::default();
                attend(&head, &mut answer);
                answer
            })
            .collect();
        let mut limits = Bound::default();
        group.bench_function(BenchmarkId::new("bound", n), |b| {
            b.iter(|| {
                for (head, answer) in heads().zip(&answers) {
                    bound(&head, black_box(answer), &promised, &mut limits);
                }
            })
        });
        group.bench_function(BenchmarkId::new("oracle, bound and gate", n), |b| {
            b.iter(|| Expected::new(black_box(&case), &inputs, &promised))
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = common::criterion();
    targets = parts
}
criterion_main!(benches);
