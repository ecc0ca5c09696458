//! What a barrier, a shuffle, a run and a compilation cost. Measured, not judged:
//! `cargo test --release --test props speed -- --ignored --nocapture`.

use std::time::{Duration, Instant};

use attnbench::device::{Arg, Device};

use super::{LIMIT, compile, device, launch, write};

const KERNELS: &str = r#"
#include <hip/hip_runtime.h>
extern "C" __global__ void little(unsigned* out) { out[threadIdx.x] = threadIdx.x; }
extern "C" __global__ void barriers(unsigned* out, int n) {
    for (int i = 0; i < n; i++) __syncthreads();
    out[threadIdx.x] = n;
}
extern "C" __global__ void shuffles(unsigned* out, int n) {
    unsigned v = threadIdx.x;
    for (int i = 0; i < n; i++) v += __shfl_xor(v, 1);
    out[threadIdx.x] = v;
}
"#;

const ENTRIES: [&str; 3] = ["little", "barriers", "shuffles"];

/// The fastest of five: the machine has other things to do.
fn best(mut what: impl FnMut() -> Duration) -> Duration {
    (0..5).map(|_| what()).min().unwrap_or_default()
}

#[test]
#[ignore = "a measurement"]
fn speed() {
    let mut device = device();
    println!("{}", device.describe());
    let compiled = best(|| {
        let written = write(KERNELS, &ENTRIES, 64);
        let start = Instant::now();
        device.compile(&written.source).unwrap();
        start.elapsed()
    });
    let written = write(KERNELS, &ENTRIES, 64);
    device.compile(&written.source).unwrap();
    let found = best(|| {
        let start = Instant::now();
        device.compile(&written.source).unwrap();
        start.elapsed()
    });
    println!("compile {compiled:?}, found in the cache {found:?}");

    let module = compile(&device, KERNELS, &ENTRIES, 64);
    device.arena(1 << 16).unwrap();
    for threads in [1, 64, 256] {
        let little = [launch(&module, 0, 1, threads, &[Arg::Address(0)])];
        let run = best(|| {
            let start = Instant::now();
            (0..1000).for_each(|_| device.run(&little, 0, LIMIT).unwrap());
            start.elapsed() / 1000
        });
        println!("run of one block of {threads} threads: {run:?}");
    }
    for (entry, name) in [(1, "barrier"), (2, "shuffle")] {
        for threads in [32u32, 64, 128, 256, 1024] {
            let n = 10_000_000 / 32 / threads;
            let args = [Arg::Address(0), Arg::Bits32(n)];
            let launch = [launch(&module, entry, 1, threads, &args)];
            let spent = best(|| {
                let start = Instant::now();
                device.run(&launch, 0, LIMIT).unwrap();
                start.elapsed()
            });
            let each = spent.as_nanos() as f64 / f64::from(n * threads);
            println!("{name}, a thread, {threads} threads: {each:.1} ns");
        }
    }
}
