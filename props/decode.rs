//! Every built-in kernel is right on every case that it supports.
//!
//! The same judge as `attnbench sweep`, driven by proptest: `PROPTEST_CASES` sets how many cases, a
//! failure shrinks by the case's own steps, and its seed is kept in `proptest-regressions/`.

use std::sync::Arc;
use std::time::Duration;

use attnbench::data::captured::Captured;
use attnbench::data::golden;
use attnbench::device::cpu::{CpuConfig, CpuDevice};
use attnbench::judge::shrink::Cases;
use attnbench::judge::space::{Filter, Space};
use attnbench::judge::trial::{Outcome, Trial};
use attnbench::kernel::{Manifest, Registry};
use attnbench::problem::Case;
use proptest::test_runner::{Config, TestCaseError, TestError, TestRunner};

use super::bench::cache;

/// The captured slices with the case that each is as a whole.
fn slices() -> Vec<(Captured, Case)> {
    let new = |(name, slice): &(&str, _)| Captured::new(name, slice).expect("a golden slice");
    golden::embedded().iter().filter_map(new).collect()
}

fn trial(manifest: &Manifest) -> Trial {
    let device = CpuDevice::new(CpuConfig {
        worker_program: env!("CARGO_BIN_EXE_attnbench").into(),
        cache_dir: cache(),
        ..CpuConfig::from_env()
    });
    let captured = slices().into_iter().map(|(captured, _)| captured).collect();
    let device = Box::new(device.expect("a C++ compiler"));
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
