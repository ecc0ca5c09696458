//! Every built-in kernel is right on every case that it supports.
//!
//! The same judge as `attnbench sweep`, driven by proptest: `PROPTEST_CASES` sets how many cases, a
//! failure shrinks by the case's own steps, and its seed is kept in `proptest-regressions/`.

use std::sync::Arc;
use std::time::Duration;

use attnbench::data::captured::Captured;
use attnbench::data::generate::generate;
use attnbench::data::golden;
use attnbench::data::inputs::Inputs;
use attnbench::device::cpu::{CpuConfig, CpuDevice};
use attnbench::device::{Arg, Device};
use attnbench::judge::shrink::Cases;
use attnbench::judge::space::{Filter, Space};
use attnbench::judge::trial::{Outcome, Trial, arithmetic};
use attnbench::kernel::{ArgSpec, Env, Manifest, Registry};
use attnbench::oracle::Expected;
use attnbench::problem::{Case, DType, Placement, Pointer};
use proptest::test_runner::{Config, TestCaseError, TestError, TestRunner};

use super::bench::cache;

/// The captured slices with the case that each is as a whole.
fn slices() -> Vec<(Captured, Case)> {
    let new = |(name, slice): &(&str, _)| Captured::new(name, slice).expect("a golden slice");
    golden::embedded().iter().filter_map(new).collect()
}

fn device() -> CpuDevice {
    let config = CpuConfig {
        worker_program: env!("CARGO_BIN_EXE_attnbench").into(),
        cache_dir: cache(),
        ..CpuConfig::from_env()
    };
    CpuDevice::new(config).expect("a C++ compiler")
}

fn trial(manifest: &Manifest) -> Trial {
    let captured = slices().into_iter().map(|(captured, _)| captured).collect();
    let device = Box::new(device());
    Trial::new(Arc::new(manifest.clone()), Arc::new(captured), device, Duration::from_secs(30))
}

fn kernel(name: &str) -> Manifest {
    Registry::new(cache()).and_then(|r| r.find(name)).expect("a built-in kernel")
}

/// Judges a case: right, or the failure in words. A vacuous case says nothing and is drawn again.
fn right(trial: &mut Trial, case: &Case) -> Result<(), TestCaseError> {
    match trial.judge(case).map_err(|e| TestCaseError::fail(e.to_string()))? {
        Outcome::Passed(_) => Ok(()),
        Outcome::Vacuous(what) => Err(TestCaseError::reject(what)),
        Outcome::Failed(f) => Err(TestCaseError::fail(format!("{}: {}", f.property, f.detail))),
    }
}

fn is_right_on_every_case(name: &str) {
    let manifest = kernel(name);
    let filter = Filter { waves: vec![32, 64], ..Filter::default() };
    let space = Space::new(&manifest, &filter, &slices()).expect("all of the kernel's space");
    let trial = std::cell::RefCell::new(trial(&manifest));
    let mut runner = TestRunner::new(Config { source_file: Some(file!()), ..Config::default() });
    let law = |case: Case| right(&mut trial.borrow_mut(), &case);
    match runner.run(&Cases::new(space), law) {
        Ok(()) => {}
        Err(TestError::Fail(why, case)) => panic!("{name}: {why}\n  smallest case {case}"),
        Err(TestError::Abort(why)) => panic!("{name}: {why}"),
    }
}

#[test]
fn decode_naive_is_right_on_every_case() {
    is_right_on_every_case("decode_naive");
}

#[test]
fn decode_online_is_right_on_every_case() {
    is_right_on_every_case("decode_online");
}

/// Every captured slice, whole, as it lies in its file, at both waves and with every tunable.
#[test]
fn every_kernel_is_right_on_every_captured_slice() {
    for name in ["decode_naive", "decode_online"] {
        let manifest = kernel(name);
        let mut trial = trial(&manifest);
        for (slice, whole) in slices() {
            for wave in [32, 64] {
                for value in &manifest.params[0].values {
                    let params = [(manifest.params[0].name.clone(), *value)].into();
                    let case = Case { wave, params, ..whole.clone() };
                    manifest.supports(&case).expect("the built-in kernels take every slice");
                    if let Err(failure) = right(&mut trial, &case) {
                        panic!("{name} on {}: {failure}", slice.name);
                    }
                }
            }
        }
    }
}

/// The largest error over its bound of a kernel on a case whose tensors are far larger than memory:
/// the arena is sparse, and only the elements themselves are written.
fn sparse_ratio(manifest: &Manifest, case: &Case) -> f64 {
    let places = case.placements().expect("a case that can be placed");
    let inputs: Inputs = generate(case, &[]).expect("synthetic data");
    let env = Env::new(case, &places);
    let (kv, mut end) = (case.dtypes.kv, 0);
    let mut room = |bytes: usize| {
        let start = end;
        end += bytes.next_multiple_of(256);
        start
    };
    let span = |p: &Placement, dtype: DType| p.span() * dtype.size();
    let q = room(span(&places.q, case.dtypes.q));
    let out = room(span(&places.out, case.dtypes.out));
    let seq_lens = room(4 * case.batch());
    let lse = room(4 * case.num_heads * case.batch());
    let scratch: Vec<usize> = manifest
        .scratch_sizes(&env)
        .expect("sizes")
        .iter()
        .map(|s| room(s.elements * s.dtype.size()))
        .collect();
    let (k, v) = (room(span(&places.k, kv)), room(span(&places.v, kv)));

    let mut device = device();
    let module = device.compile(&manifest.source(&env).expect("a source")).expect("it compiles");
    let address = |arg: &ArgSpec| {
        Ok(Arg::Address(match arg {
            ArgSpec::Pointer(Pointer::Q) => q,
            ArgSpec::Pointer(Pointer::K) => k,
            ArgSpec::Pointer(Pointer::V) => v,
            ArgSpec::Pointer(Pointer::Out) => out,
            ArgSpec::Pointer(Pointer::Lse) => lse,
            ArgSpec::Pointer(Pointer::SeqLens) => seq_lens,
            ArgSpec::Scratch(index) => scratch[*index],
            _ => return Ok(Arg::Null),
        }))
    };
    let launches = manifest.launches(&env, &module, &address).expect("launches");
    let arena = device.arena(end).expect("address space for a sparse arena");
    for s in 0..case.batch() {
        arena[seq_lens + 4 * s..][..4].copy_from_slice(&(case.seq_lens[s] as i32).to_le_bytes());
        for h in 0..case.num_heads {
            for (d, x) in inputs.q().all(s, h).iter().enumerate() {
                case.dtypes.q.store(&mut arena[q..], places.q.index(s, 0, h, 0, d), *x as f64);
            }
        }
        for g in 0..case.num_kv_heads {
            for (base, place, cache) in [(k, &places.k, inputs.k()), (v, &places.v, inputs.v())] {
                for (i, x) in cache.rows(s, g, 0..case.seq_lens[s]).iter().enumerate() {
                    let dim = cache.shape.dim;
                    let at = place.index(s, 0, g, i / dim, i % dim);
                    kv.store(&mut arena[base..], at, *x as f64);
                }
            }
        }
    }
    device.run(&launches, case.order_seed, Duration::from_secs(30)).expect("it runs");
    let arena = device.arena(end).expect("the same arena");
    let expected = Expected::new(case, &inputs, &arithmetic(manifest, case));
    let right = expected.of(Pointer::Out).expect("decode has out");
    let mut worst = 0.0f64;
    for (row, wants) in right.want.chunks_exact(case.head_dim).enumerate() {
        for (d, want) in wants.iter().enumerate() {
            let (s, h) = (row / case.num_heads, row % case.num_heads);
            let at = places.out.index(s, 0, h, 0, d);
            let error = (case.dtypes.out.load(&arena[out..], at) - want).abs();
            worst = worst.max(error / right.bound[row * case.head_dim + d]);
        }
    }
    worst
}

/// Offsets on each axis pass 2^31 elements, for K and V by turns: 64-bit arithmetic is needed.
#[test]
fn offsets_beyond_32_bits_are_read_where_they_are() {
    let far = (1usize << 31) + 24;
    for name in ["decode_naive", "decode_online"] {
        let manifest = kernel(name);
        for (strides, n) in [
            (format!("[{far},16,4,1]"), "[2,2]"),           // sequences
            (format!("[16,{far},4,1]"), "[2,0]"),           // heads
            (format!("[16,8,{},1]", far / 2), "[3,0]"),     // tokens: the third one
            (format!("[8,4,1,{}]", far / 3 + 40), "[2,0]"), // elements: the fourth one
        ] {
            for (k, v) in [
                (format!("SHND{strides}"), "HND".to_owned()),
                ("HND".into(), format!("SHND{strides}")),
            ] {
                let id = format!("b=2,hq=2,hkv=2,d=4,n={n},dt=f16,k={k},v={v},seed=5");
                let mut case: Case = id.parse().expect("a valid id");
                case.params = manifest.default_params();
                let ratio = sparse_ratio(&manifest, &case);
                assert!(ratio <= 1.0, "{name}: {ratio} bounds on {case}");
            }
        }
    }
}
