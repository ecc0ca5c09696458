//! How many runs of a kernel are judged a second on the CPU device, and what a case's parts cost.
//!
//! Shapes are those that the project's speed goals name: 8 heads, 2 KV heads, head_dim 64, batch 1.
//! `judged` uses every core, one worker process each; the parts are on one thread.

use attnbench::data::generate::generate;
use attnbench::data::image::{Image, Poisons};
use attnbench::device::Device;
use attnbench::device::cpu::{CpuConfig, CpuDevice};
use attnbench::judge::trial::{Outcome, Trial, arithmetic};
use attnbench::kernel::Registry;
use attnbench::oracle::Expected;
use attnbench::problem::Case;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Cases of 8 heads whose lengths walk through `from..=to`, at both waves.
fn cases(from: usize, to: usize) -> Vec<Case> {
    (0..32)
        .map(|i| {
            let n = from + (to - from) * i / 31;
            let wave = [32, 64][i % 2];
            let id = format!("hq=8,hkv=2,d=64,n={n},wave={wave},seed={i}");
            id.parse().expect("a valid id")
        })
        .collect()
}

fn device() -> CpuDevice {
    let worker_program = PathBuf::from(env!("CARGO_BIN_EXE_attnbench"));
    CpuDevice::new(CpuConfig { worker_program, ..CpuConfig::from_env() }).expect("a C++ compiler")
}

fn judged(c: &mut Criterion) {
    let registry = Registry::new(CpuConfig::from_env().cache_dir).expect("the built-in kernels");
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut group = c.benchmark_group("judged");
    group.sample_size(10).measurement_time(Duration::from_secs(4));
    for manifest in registry.all().expect("the built-in kernels") {
        let manifest = Arc::new(manifest);
        let first = device();
        let mut trials: Vec<Trial> = (0..threads)
            .map(|_| {
                let device: Box<dyn Device> = Box::new(first.sibling());
                Trial::new(Arc::clone(&manifest), Arc::default(), device, Duration::from_secs(10))
            })
            .collect();
        for (from, to) in [(33, 128), (33, 512)] {
            let mut cases = cases(from, to);
            for case in &mut cases {
                case.params = manifest.default_params();
                trials[0].prepare(case).expect("the built-in kernels compile");
            }
            // Three runs a case, a share of the cases on each thread.
            group.throughput(Throughput::Elements(3 * cases.len() as u64));
            let id = BenchmarkId::new(&manifest.name, format!("seq {from}-{to}"));
            group.bench_function(id, |b| {
                b.iter_custom(|iterations| {
                    let start = Instant::now();
                    for _ in 0..iterations {
                        std::thread::scope(|scope| {
                            for (part, trial) in trials.iter_mut().enumerate() {
                                let cases = &cases;
                                scope.spawn(move || {
                                    for case in cases.iter().skip(part).step_by(threads) {
                                        let outcome = trial.judge(case).expect("the case runs");
                                        assert!(matches!(outcome, Outcome::Passed(_)));
                                    }
                                });
                            }
                        });
                    }
                    start.elapsed()
                });
            });
        }
    }
    group.finish();
}

fn parts(c: &mut Criterion) {
    let registry = Registry::new(CpuConfig::from_env().cache_dir).expect("the built-in kernels");
    let manifest = registry.find("decode_online").expect("a built-in kernel");
    let mut group = c.benchmark_group("parts");
    group.sample_size(20).measurement_time(Duration::from_secs(2));
    for n in [128, 512] {
        let case: Case = format!("hq=8,hkv=2,d=64,n={n}").parse().expect("a valid id");
        let places = case.placements().expect("a valid case");
        let inputs = generate(&case, &[]).expect("synthetic data");
        let image = Image::new(&case, &places, &[]).expect("a small image");
        let mut memory = vec![0; image.size()];
        group.bench_function(BenchmarkId::new("data", n), |b| {
            b.iter(|| generate(black_box(&case), &[]).expect("synthetic data"))
        });
        let promised = arithmetic(&manifest, &case);
        group.bench_function(BenchmarkId::new("oracle and bound", n), |b| {
            b.iter(|| Expected::new(black_box(&case), &inputs, &promised))
        });
        group.bench_function(BenchmarkId::new("image", n), |b| {
            b.iter(|| image.write(&case, &inputs, Poisons::RUNS[0], black_box(&mut memory)))
        });
    }
    group.finish();
}

criterion_group!(benches, judged, parts);
criterion_main!(benches);
