//! What holds for any right kernel whatever the right values are, tried on the built-in kernels; one
//! module a subject. Each law is also seen to break on a kernel with a fault.
//!
//! `PROPTEST_CASES` scales them. A case that broke a law is kept in `props/regressions/laws.txt`, and
//! tried first from then on.

mod batch;
mod bits;
mod captures;
mod heads;
mod layout;
mod linear;
mod order;
mod small;
mod splits;
mod steps;
mod window;

use super::bench::{Edit, cache, mutated};
use super::support::cases::count;
use attnbench::data::captured::Captured;
use attnbench::data::generate::generate;
use attnbench::data::golden;
use attnbench::device::cpu::{CpuConfig, CpuDevice};
use attnbench::judge::law::Law;
use attnbench::judge::shrink::Cases;
use attnbench::judge::space::{Filter, Space};
use attnbench::judge::trial::{Failure, Outcome, Trial};
use attnbench::kernel::{Manifest, Registry};
use attnbench::problem::Case;
use proptest::prelude::*;
use proptest::test_runner::{FileFailurePersistence, RngAlgorithm, TestRng, TestRunner};
use std::cell::RefCell;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

/// The whole decode kernels.
const DECODE: [&str; 3] = ["decode_naive", "decode_online", "decode_split"];

/// Longest sequence that the laws draw: several tiles of every kernel.
const LONGEST: usize = 150;

/// A built-in kernel by its name.
fn built_in(name: &str) -> Arc<Manifest> {
    let registry = Registry::new(cache()).expect("the built-in kernels");
    Arc::new(registry.find(name).expect("a built-in kernel"))
}

/// A kernel with edits made.
#[track_caller]
fn faulty(name: &str, kernel: &str, edits: &[Edit<'_>]) -> Arc<Manifest> {
    let path = mutated(name, edits).join(format!("{kernel}.toml"));
    Arc::new(Manifest::load(&path).expect("a manifest"))
}

/// The golden slices, each with the case that it is as a whole.
fn captures() -> Vec<(Captured, Case)> {
    let pair = |(name, slice): &(&str, attnbench::data::slice::KvSlice)| {
        Captured::new(name, slice).expect("a golden slice").expect("one sequence")
    };
    golden::embedded().iter().map(pair).collect()
}

/// A kernel ready to be judged.
pub fn trial(manifest: &Arc<Manifest>) -> Trial {
    static DEVICE: LazyLock<Mutex<CpuDevice>> = LazyLock::new(|| {
        let worker_program = PathBuf::from(env!("CARGO_BIN_EXE_attnbench"));
        let config = CpuConfig { worker_program, cache_dir: cache(), ..CpuConfig::from_env() };
        Mutex::new(CpuDevice::new(config).expect("a C++ compiler"))
    });
    let captured = captures().into_iter().map(|(captured, _)| captured).collect();
    let device = Box::new(DEVICE.lock().expect("no panic in it").sibling());
    Trial::new(Arc::clone(manifest), Arc::new(captured), device, Duration::from_secs(60))
}

/// The cases of a kernel, no sequence longer than [`LONGEST`].
fn cases(manifest: &Manifest) -> Cases {
    let seq_len = manifest.stage.has_keys().then_some((0, LONGEST));
    let filter = Filter { waves: vec![32, 64], seq_len, ..Filter::default() };
    Cases::new(Space::new(manifest, &filter, &captures()).expect("a space with cases"))
}

/// A runner of so many cases. Where what fails is a regression the cases are others each time, and it is
/// kept; a planted fault is looked for in the same cases always, as it might be missed in others.
fn runner(cases: usize, keeps: bool) -> TestRunner {
    let file = FileFailurePersistence::Direct("props/regressions/laws.txt");
    let config = ProptestConfig {
        cases: u32::try_from(cases).expect("few cases"),
        failure_persistence: if keeps { Some(Box::new(file)) } else { None },
        max_shrink_iters: 300,
        max_global_rejects: 1 << 16,
        ..ProptestConfig::default()
    };
    if keeps {
        return TestRunner::new(config);
    }
    TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha))
}

/// Tries a law on drawn cases of a kernel: how it first fails, if it does, with the shrunk case.
fn broken(
    law: Law,
    manifest: &Arc<Manifest>,
    cases_wanted: usize,
    keeps: bool,
) -> Option<(Case, Failure)> {
    let trial = RefCell::new(trial(manifest));
    let found = RefCell::new(None);
    let tried = RefCell::new(0usize);
    let mut runner = runner(cases_wanted, keeps);
    let _ = runner.run(&cases(manifest), |case| {
        let captured = captures().into_iter().map(|(captured, _)| captured).collect::<Vec<_>>();
        let inputs = generate(&case, &captured).expect("data");
        match trial.borrow_mut().judge_law(law, &case, &inputs).expect("the case runs") {
            None => Err(TestCaseError::reject("the law does not apply")),
            Some(Outcome::Failed(failure)) => {
                let message = failure.detail.clone();
                *found.borrow_mut() = Some((case, *failure));
                Err(TestCaseError::fail(message))
            }
            Some(_) => {
                *tried.borrow_mut() += 1;
                Ok(())
            }
        }
    });
    let found = found.into_inner();
    assert!(found.is_some() || *tried.borrow() >= cases_wanted, "{}: too few", manifest.name);
    found
}

/// Asserts that a law holds for kernels, on a share of the cases each.
#[track_caller]
fn holds(law: Law, kernels: &[&str]) {
    for kernel in kernels {
        let share = (count() / 4 / kernels.len()).max(8);
        if let Some((case, failure)) = broken(law, &built_in(kernel), share, true) {
            panic!("{kernel} breaks the law `{}` on {case}: {}", law.name(), failure.detail);
        }
    }
}

/// Asserts that a faulty kernel is seen to break a law.
#[track_caller]
fn breaks(law: Law, name: &str, kernel: &str, edits: &[Edit<'_>]) {
    // What a planted fault breaks is no regression.
    let found = broken(law, &faulty(name, kernel, edits), 300, false);
    let (case, failure) = found.unwrap_or_else(|| panic!("{name}: `{}` holds", law.name()));
    assert_eq!(failure.property, law.property(), "{name}: {}", failure.detail);
    println!("{name}: {} on {case}", failure.detail);
}

/// How a faulty kernel fails on a case.
#[track_caller]
fn breaks_case(manifest: &Arc<Manifest>, case: &Case) -> Failure {
    match trial(manifest).judge(case).expect("it runs") {
        Outcome::Failed(failure) => *failure,
        other => panic!("{}: {case} does not fail: {other:?}", manifest.name),
    }
}
