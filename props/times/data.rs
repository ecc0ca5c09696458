//! The elements of a timed cache: what the device makes of them is what the host knows.

use super::super::bench::cache;
use attnbench::bench::data::{fill_entry, gauss};
use attnbench::device::cpu::{CpuConfig, CpuDevice};
use attnbench::device::{Arg, Device, Launch, Source, Subject, Timing};
use attnbench::kernel::Registry;
use attnbench::problem::DType;
use std::path::PathBuf;
use std::time::Duration;

const TYPES: [DType; 3] = [DType::F32, DType::F16, DType::BF16];

/// Elements: no multiple of the threads, which take several each.
const COUNT: usize = 10_007;

/// The CPU device, and `fill.hip` compiled on it for each of the types.
fn filler() -> (CpuDevice, attnbench::device::Module) {
    let worker_program = PathBuf::from(env!("CARGO_BIN_EXE_attnbench"));
    let config = CpuConfig { worker_program, cache_dir: cache(), ..CpuConfig::from_env() };
    let device = CpuDevice::new(config).expect("a C++ compiler");
    let folder = Registry::new(cache()).and_then(|registry| registry.helpers()).expect("a folder");
    assert!(folder.join("bench/read.hip").is_file() && folder.join("portable.h").is_file());
    let source = Source {
        file: folder.join("bench/fill.hip"),
        include_dirs: Vec::new(),
        defines: Vec::new(),
        entries: TYPES.map(fill_entry).to_vec(),
        wave: 32,
    };
    let module = device.compile(&source).expect("it compiles");
    (device, module)
}

/// What fills elements from a byte on.
fn fill(
    module: &attnbench::device::Module,
    entry: usize,
    at: usize,
    count: usize,
    seed: u64,
) -> Launch {
    Launch {
        module: module.clone(),
        entry,
        grid: [3, 1, 1],
        block: [64, 1, 1],
        shared_bytes: 0,
        args: vec![Arg::Address(at), Arg::Bits64(count as u64), Arg::Bits64(seed)],
    }
}

#[test]
fn the_device_makes_what_the_host_knows() {
    let (mut device, module) = filler();
    let limit = Duration::from_secs(60);
    for (entry, dtype) in TYPES.into_iter().enumerate() {
        // One wraps around at its sixth element.
        for seed in [1, 0x1234_5678_9abc_def0, u64::MAX - 4] {
            let bytes = COUNT * dtype.size();
            let mut want = vec![0xa5; bytes + 256];
            device.arena(want.len()).expect("memory").copy_from_slice(&want);
            device.run(&[fill(&module, entry, 128, COUNT, seed)], 0, limit).expect("a run");
            for i in 0..COUNT {
                let x = f64::from(gauss(seed, i as u64));
                dtype.store(&mut want[128..], i, x);
                assert!(dtype != DType::F32 || dtype.load(&want[128..], i) == x);
            }
            let got = device.arena(want.len()).expect("memory");
            let first = (0..want.len()).find(|byte| got[*byte] != want[*byte]);
            assert_eq!(first, None, "{dtype}, seed {seed}");
        }
    }
}

/// By the host's clock: given bytes, then what fills, then the first call, of which the outputs are.
#[test]
fn the_host_times_what_it_has_laid_out() {
    let (mut device, module) = filler();
    let given: Vec<u8> = (0..64).collect();
    let subject = |seed, calls, warm, replays| Subject {
        launches: vec![fill(&module, 0, 512, 4, seed)],
        calls,
        warm,
        replays,
        observed: true,
    };
    let timing = Timing {
        bytes: 1024,
        sets: 3,
        given: vec![(64, given.clone())],
        fill: vec![fill(&module, 1, 256, 16, 9)],
        subjects: vec![subject(5, 3, 2, 4), subject(6, 1, 1, 0)],
        outputs: vec![512..528, 64..128, 256..288, 288..292],
    };
    let timed = device.time(&timing, Duration::from_secs(60)).expect("times");
    let [first, second] = &timed[..] else { panic!("{timed:?}") };
    assert_eq!((first.micros.len(), second.micros.len()), (4, 0));
    assert!(first.micros.iter().all(|us| *us > 0.0 && *us < 1e7), "{first:?}");
    for (timed, seed) in [(first, 5), (second, 6)] {
        assert!(!timed.captured && timed.observed.is_none());
        let mut want = vec![0; 16];
        (0..4).for_each(|i| DType::F32.store(&mut want, i, f64::from(gauss(seed, i as u64))));
        want.extend(&given);
        want.resize(16 + 64 + 32, 0);
        (0..16).for_each(|i| DType::F16.store(&mut want[80..], i, f64::from(gauss(9, i as u64))));
        want.extend([0; 4]);
        assert_eq!(timed.left, [want.clone(), want]);
    }
}
