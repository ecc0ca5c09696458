//! A kernel that overwrites its own stack is told as that, wherever the write goes on to.

use attnbench::device::{Arg, Device, Fault, Place, RunError};

use super::{compile, device, launch, run_words};

const SOURCE: &str = r#"
#include <hip/hip_runtime.h>
#define BARE __attribute__((no_stack_protector))
// Thread 5 of block 1 writes elements `from` to `to` of an array of 16.
__device__ __forceinline__ void write(float* p, int from, int to, float value) {
    asm volatile("" : "+r"(p));
    if (threadIdx.x != 5 || blockIdx.x != 1) return;
    const int step = from < to ? 1 : -1;
    for (int i = from; i != to; i += step) p[i] = value;
}
extern "C" __global__ BARE void bare(float* out, int from, int to, float value, int wait) {
    float own[16] = {};
    write(own, from, to, value);
    if (wait == 1) __syncthreads();
    if (wait == 3 && threadIdx.x == 5 && blockIdx.x == 1) for (volatile int spin = 0;;) spin = spin + 1;
    if (wait == 2) own[0] += __shfl(own[1], 0);
    out[threadIdx.x] = own[0] + own[15];
}
extern "C" __global__ void guarded(float* out, int from, int to, float value, int wait) {
    float own[16] = {};
    write(own, from, to, value);
    if (wait == 1) __syncthreads();
    out[threadIdx.x] = own[0] + own[15];
}
__attribute__((noinline)) BARE static float inner(int from, int to, float value) {
    float own[16] = {};
    write(own, from, to, value);
    asm volatile("" ::: "memory");
    return own[0] + own[15];
}
extern "C" __global__ BARE void called(float* out, int from, int to, float value, int wait) {
    out[threadIdx.x] = inner(from, to, value) + 1.0f;
    if (wait == 1) __syncthreads();
}
extern "C" __global__ void large(float* out, int n) {
    volatile float own[40000];
    for (int i = 0; i < n; ++i) own[i] = (float)i;
    out[threadIdx.x] = own[n / 2];
}
"#;

const ENTRIES: [&str; 4] = ["bare", "guarded", "called", "large"];
const HERE: Option<Place> = Some(Place { launch: 0, block: [1, 0, 0], thread: [5, 0, 0] });

#[test]
fn a_kernel_that_overwrites_its_own_stack_is_told_as_that() {
    let mut device = device();
    let module = compile(&device, SOURCE, &ENTRIES, 32);
    let mut run = |entry: usize, from: i32, to: i32, value: f32, wait: u32| {
        let [from, to] = [from, to].map(|i| Arg::Bits32(i.cast_unsigned()));
        let args = [Arg::Address(0), from, to, Arg::F32(value), Arg::Bits32(wait)];
        run_words(&mut device, launch(&module, entry, 2, 40, &args), 3, &[0; 64])
    };
    let whole_ways = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (2, 0), (2, 1)];
    for (entry, wait) in whole_ways {
        let name = ENTRIES[entry];
        run(entry, 0, 16, 1.0, wait).unwrap_or_else(|e| panic!("{name}, inside the array: {e}"));
        // Over what the function saved and its return address; over its caller's frame and ours; to the
        // end of the thread's memory, in either direction.
        for to in [64, 100, 400, 4096, 40_000, -20_000] {
            // As numbers, an address that no memory can have, a low one, and none.
            for value in [1.0, 0.0, f32::from_bits(7), -1e30] {
                let from = if to < 0 { -1 } else { 0 };
                let error = run(entry, from, to, value, wait).expect_err("it is overwritten");
                let text = error.to_string();
                match error {
                    RunError::Fault(Fault::StackOverwritten { place, .. }) => {
                        assert_eq!(place, HERE, "{name} wait {wait} to {to}: {text}");
                    }
                    other => panic!("{name} wait {wait} to {to} value {value}: {other:?}"),
                }
                assert!(text.contains("--sanitize=memory"), "{text}");
            }
        }
        run(entry, 0, 16, 1.0, wait).unwrap_or_else(|e| panic!("{name}, afterwards: {e}"));
    }
}

/// What it overwrites may be what it counts with.
#[test]
fn a_kernel_that_overwrites_its_stack_and_never_ends_is_told_as_that() {
    let mut device = device();
    let module = compile(&device, SOURCE, &ENTRIES, 32);
    device.arena(256).expect("memory").fill(0);
    let args = [Arg::Address(0), Arg::Bits32(0), Arg::Bits32(100), Arg::F32(1.0), Arg::Bits32(3)];
    let limit = std::time::Duration::from_millis(300);
    let error = device.run(&[launch(&module, 0, 2, 40, &args)], 3, limit).unwrap_err();
    assert!(matches!(&error, RunError::Fault(Fault::StackOverwritten { .. })), "{error:?}");
}

/// The compiler's guard lies beside the array: what overruns it by one element is told.
#[test]
fn a_short_overrun_is_told_where_the_compiler_guards_the_array() {
    let mut device = device();
    let module = compile(&device, SOURCE, &ENTRIES, 32);
    let args = [Arg::Address(0), Arg::Bits32(16), Arg::Bits32(24), Arg::F32(1.0), Arg::Bits32(0)];
    let error = run_words(&mut device, launch(&module, 1, 2, 40, &args), 3, &[0; 64]).unwrap_err();
    assert!(error.to_string().contains("the compiler's guard"), "{error}");
}

#[test]
fn more_private_memory_than_there_is_is_a_stack_overflow() {
    let mut device = device();
    let module = compile(&device, SOURCE, &ENTRIES, 32);
    let args = [Arg::Address(0), Arg::Bits32(40_000)];
    let error = run_words(&mut device, launch(&module, 3, 1, 4, &args), 0, &[0; 8]).unwrap_err();
    assert!(matches!(&error, RunError::Fault(Fault::Crash { .. })), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("stack overflow: private memory of a thread exceeds 64 KiB"), "{text}");
    device.arena(64).expect("the device can be used again");
}
