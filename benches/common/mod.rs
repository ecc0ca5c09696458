//! What the benches share: the device, a kernel ready to be judged, and judging cases on every core.

#![allow(dead_code, reason = "each bench uses some of it")]

use attnbench::device::Device;
use attnbench::device::cpu::{CpuConfig, CpuDevice};
use attnbench::judge::trial::{Outcome, Trial};
use attnbench::kernel::{Manifest, Registry};
use attnbench::problem::Case;
use criterion::{Criterion, PlottingBackend};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How results are drawn: in the font that comes with the program, so on a machine that has none as well.
pub fn criterion() -> Criterion {
    attnbench::report::figures::register_font();
    Criterion::default().plotting_backend(PlottingBackend::Plotters)
}

/// Every built-in kernel.
pub fn kernels() -> Vec<Arc<Manifest>> {
    let registry = Registry::new(CpuConfig::from_env().cache_dir).expect("the built-in kernels");
    registry.all().expect("the built-in kernels").into_iter().map(Arc::new).collect()
}

/// A built-in kernel by name.
pub fn kernel(name: &str) -> Arc<Manifest> {
    kernels().into_iter().find(|m| m.name == name).expect("a built-in kernel")
}

/// A kernel ready to be judged, once for each of so many threads.
pub fn trials(manifest: &Arc<Manifest>, threads: usize) -> Vec<Trial> {
    trials_with(config(), manifest, threads)
}

/// The CPU device's configuration.
pub fn config() -> CpuConfig {
    let worker_program = PathBuf::from(env!("CARGO_BIN_EXE_attnbench"));
    CpuConfig { worker_program, ..CpuConfig::from_env() }
}

/// As [`trials`], on a device of another configuration.
pub fn trials_with(config: CpuConfig, manifest: &Arc<Manifest>, threads: usize) -> Vec<Trial> {
    let first = CpuDevice::new(config).expect("a C++ compiler");
    let trial = |_| {
        let device: Box<dyn Device> = Box::new(first.sibling());
        Trial::new(Arc::clone(manifest), Arc::default(), device, Duration::from_secs(60))
    };
    (0..threads).map(trial).collect()
}

/// Processors.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// A case of a kernel, with its first tunables.
pub fn case(manifest: &Manifest, more: &str) -> Case {
    let mut id = format!("stage={},{more}", manifest.stage);
    for (name, value) in manifest.default_params() {
        id += &format!(",p.{name}={value}");
    }
    let case: Case = id.parse().unwrap_or_else(|e| panic!("{id}: {e}"));
    manifest.supports(&case).unwrap_or_else(|e| panic!("{id}: {e}"));
    case
}

/// How long it takes to judge the cases, each trial a share of them.
pub fn judge(trials: &mut [Trial], cases: &[Case]) -> Duration {
    let (start, parts) = (Instant::now(), trials.len());
    std::thread::scope(|scope| {
        for (part, trial) in trials.iter_mut().enumerate() {
            scope.spawn(move || {
                for case in cases.iter().skip(part).step_by(parts) {
                    let outcome = trial.judge(case).expect("the case runs");
                    assert!(!matches!(outcome, Outcome::Failed(_)), "{case}: {outcome:?}");
                }
            });
        }
    });
    start.elapsed()
}
