//! A kernel that goes on is let go on; one that does not, or never ends, is ended.

use std::time::{Duration, Instant};

use attnbench::device::cpu::{CpuConfig, CpuDevice, Variant};
use attnbench::device::finding::Kind;
use attnbench::device::{Arg, Device, Fault, Module, RunError};

use super::{compile, config, launch};

const SOURCE: &str = r#"
#include <hip/hip_runtime.h>
extern "C" __global__ void waits(unsigned* out, unsigned long long times) {
    unsigned long long i = 0;
    for (; i < times; ++i) __syncthreads();
    out[threadIdx.x] = (unsigned)i;
}
extern "C" __global__ void spins(unsigned* out, unsigned long long times) {
    for (volatile unsigned long long i = 0; i < times; i = i + 1) {}
    out[threadIdx.x] = 1;
}
"#;

const IDLE: Duration = Duration::from_millis(200);
const FOR_EVER: u64 = u64::MAX;

/// Runs a kernel with a limit on the time without progress, and measures it.
fn run(
    (device, module): (&mut CpuDevice, &Module),
    entry: usize,
    times: u64,
    limit: Duration,
) -> (Result<(), RunError>, Duration) {
    device.arena(4096).expect("memory").fill(0);
    if let Some(map) = device.access_map() {
        map.fill(7);
    }
    device.watch(Some(IDLE));
    let launch = launch(module, entry, 1, 64, &[Arg::Address(0), Arg::Bits64(times)]);
    let start = Instant::now();
    (device.run(&[launch], 1, limit), start.elapsed())
}

fn devices() -> [(CpuDevice, Module); 2] {
    [Variant::Fast, Variant::Checked].map(|variant| {
        let device = CpuDevice::new(CpuConfig { variant, ..config() }).expect("a compiler");
        let module = compile(&device, SOURCE, &["waits", "spins"], 32);
        (device, module)
    })
}

#[test]
fn a_kernel_that_makes_progress_may_take_longer_than_one_that_does_not() {
    for (mut device, module) in devices() {
        // Some hundred times as long as may pass without progress, were there none.
        let mut times = 1000;
        loop {
            let (result, took) = run((&mut device, &module), 0, times, Duration::from_secs(300));
            result.unwrap_or_else(|e| panic!("{times} barriers in {took:?}: {e}"));
            if took > 3 * IDLE {
                break;
            }
            times *= 4;
        }
    }
}

#[test]
fn a_kernel_without_progress_is_ended_long_before_its_limit() {
    for (mut device, module) in devices() {
        let checked = device.is_checked();
        let (result, took) = run((&mut device, &module), 1, FOR_EVER, Duration::from_secs(300));
        assert!(took < Duration::from_secs(60), "{took:?}");
        assert!(took >= IDLE, "{took:?}");
        let findings = device.findings();
        match result {
            Err(RunError::Fault(Fault::Timeout { limit: IDLE, .. })) => assert!(!checked),
            Err(RunError::Fault(Fault::Found)) if checked => {
                assert!(findings.iter().any(|f| f.kind == Kind::Endless), "{findings:?}");
            }
            other => panic!("{other:?}"),
        }
        // The device can be used again.
        run((&mut device, &module), 1, 10, Duration::from_secs(20)).0.expect("it ends");
    }
}

#[test]
fn an_endless_kernel_that_makes_progress_is_ended_at_its_limit() {
    for (mut device, module) in devices() {
        let limit = Duration::from_millis(800);
        let (result, took) = run((&mut device, &module), 0, FOR_EVER, limit);
        assert!(took >= limit && took < Duration::from_secs(60), "{took:?}");
        assert!(
            matches!(&result, Err(RunError::Fault(Fault::Timeout { .. } | Fault::Found))),
            "{result:?}"
        );
        device.findings();
        run((&mut device, &module), 0, 10, Duration::from_secs(20)).0.expect("it ends");
    }
}
