//! Lanes in lockstep: every access of shared memory is a step that all lanes at one place make before any
//! of them goes on.

use attnbench::device::cpu::{CpuConfig, CpuDevice};
use attnbench::device::{Arg, Device, Fault, Lanes, Module, RunError};

use super::{clang, compile, config, launch, run_words};

const SOURCE: &str = r#"
#include <hip/hip_runtime.h>
// A tree over 32 lanes, with nothing between its steps: every lane adds, also those whose sum is not used.
extern "C" __global__ void tree(unsigned* out) {
    __shared__ volatile unsigned s[48];
    const unsigned t = threadIdx.x;
    if (t < 32) {
        s[t] = out[t] + 1;
        if (t < 16) s[32 + t] = 0;
        s[t] = s[t] + s[t + 16];
        s[t] = s[t] + s[t + 8];
        s[t] = s[t] + s[t + 4];
        s[t] = s[t] + s[t + 2];
        s[t] = s[t] + s[t + 1];
        if (t == 0) out[0] = s[0];
    }
}
// Every lane hands its value to the next: right only if all have read before any writes.
extern "C" __global__ void turn(unsigned* out) {
    __shared__ unsigned s[64];
    const unsigned t = threadIdx.x, n = warpSize;
    s[t] = t;
    for (unsigned i = 0; i < 5; ++i) {
        __builtin_amdgcn_wave_barrier();
        s[t] = s[(t + 1) % n];
    }
    __builtin_amdgcn_wave_barrier();
    out[t] = s[t];
}
// A part of the lanes writes what all then read; and in global memory.
extern "C" __global__ void part(unsigned* out) {
    __shared__ volatile unsigned s[64];
    volatile unsigned* global = out + 64;
    const unsigned t = threadIdx.x, n = warpSize;
    s[t] = 0;
    if (t >= n / 2) s[t - n / 2] = t;
    else s[t + n / 2] = t;
    global[t] = s[t];
    out[t] = global[n - 1 - t];
}
// Waves are not in step with each other, barriers are waited at, and shuffles work.
extern "C" __global__ void waves(unsigned* out) {
    __shared__ unsigned s[128];
    const unsigned t = threadIdx.x;
    s[t] = __shfl_xor(t, 1);
    __syncthreads();
    out[t] = s[127 - t];
}
extern "C" __global__ void hangs(unsigned* out) {
    if (threadIdx.x < 3) __syncthreads();
    else out[threadIdx.x] = __shfl(threadIdx.x, 0);
}
extern "C" __global__ void beyond(unsigned* out) {
    extern __shared__ unsigned s[];
    s[threadIdx.x + 64] = 1;
}
"#;

const ENTRIES: [&str; 6] = ["tree", "turn", "part", "waves", "hangs", "beyond"];

fn devices() -> Vec<CpuDevice> {
    let with = |compiler| {
        let config = CpuConfig { compiler, lanes: Lanes::Lockstep, ..config() };
        CpuDevice::new(config).expect("a compiler")
    };
    std::iter::once(with(config().compiler)).chain(clang().map(|clang| with(Some(clang)))).collect()
}

/// What each kernel must leave, at a wave size.
fn expected(entry: usize, wave: u32) -> Vec<u32> {
    match entry {
        0 => vec![(1..=32).sum()],
        1 => (0..wave).map(|t| (t + 5) % wave).collect(),
        2 => (0..wave).map(|t| (wave - 1 - t + wave / 2) % wave).collect(),
        _ => (0..128).map(|t| (127 - t) ^ 1).collect(),
    }
}

/// In how many of 12 orders a kernel leaves what it must.
fn right(device: &mut CpuDevice, module: &Module, entry: usize) -> usize {
    let wave = module.wave;
    let threads = [wave, wave, wave, 128][entry];
    let before: Vec<u32> = (0..256).collect();
    let bytes: Vec<u8> = before.iter().flat_map(|word| word.to_le_bytes()).collect();
    (0..12)
        .filter(|seed| {
            device.arena(bytes.len()).expect("memory").copy_from_slice(&bytes);
            if let Some(map) = device.access_map() {
                map.fill(7);
            }
            let launch = launch(module, entry, 1, threads, &[Arg::Address(0)]);
            device.run(&[launch], *seed, super::LIMIT).expect("it runs");
            let expected = expected(entry, wave);
            let left = device.arena(bytes.len()).expect("memory");
            let words: Vec<u32> =
                left.chunks(4).map(|c| u32::from_le_bytes([c[0], c[1], c[2], c[3]])).collect();
            words[..expected.len()] == expected
        })
        .count()
}

#[test]
fn what_needs_lanes_in_lockstep_is_right_in_lockstep_only() {
    for mut device in devices() {
        assert!(!device.is_checked() && device.in_lockstep().is_none());
        for wave in [32, 64] {
            let module = compile(&device, SOURCE, &ENTRIES, wave);
            for (entry, name) in ENTRIES.iter().enumerate().take(4) {
                let count = right(&mut device, &module, entry);
                assert_eq!(count, 12, "{name} wave {wave}");
            }
        }
    }
    let mut independent = super::device();
    for wave in [32, 64] {
        let module = compile(&independent, SOURCE, &ENTRIES, wave);
        for (entry, name) in ENTRIES.iter().enumerate().take(3) {
            let count = right(&mut independent, &module, entry);
            assert!(count < 12, "{name} wave {wave}");
        }
        assert_eq!(right(&mut independent, &module, 3), 12);
    }
}

/// Nothing is looked for, so faults are those of the unchecked build.
#[test]
fn faults_in_lockstep_are_those_of_independent_lanes() {
    for mut device in devices() {
        let module = compile(&device, SOURCE, &ENTRIES, 64);
        let run = |device: &mut CpuDevice, entry, shared_bytes| {
            let mut launch = launch(&module, entry, 1, 64, &[Arg::Address(0)]);
            launch.shared_bytes = shared_bytes;
            run_words(device, launch, 1, &[0; 64]).expect_err("a fault")
        };
        let error = run(&mut device, 4, 0);
        assert!(matches!(error, RunError::Fault(Fault::Deadlock { .. })), "{error:?}");
        let error = run(&mut device, 5, 256);
        assert!(
            matches!(error, RunError::Fault(Fault::SharedOverrun { bytes: 256, .. })),
            "{error:?}"
        );
        assert!(device.findings().is_empty());
    }
}
