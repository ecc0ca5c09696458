//! A kernel that does wrong costs its run and nothing else, and the message says where.

use std::time::{Duration, Instant};

use attnbench::device::cpu::CpuDevice;
use attnbench::device::{Arg, Device, Fault, Launch, Module, Place, RunError};

use super::{LIMIT, compile, device, launch, run_words};

const WRONG: &str = r#"
#include <hip/hip_runtime.h>
#include <stdlib.h>
// What to do wrong, in thread (5,1,0) of block (1,2,0).
extern "C" __global__ void wrong(unsigned* out, int what, long long far, unsigned* null) {
    bool me = threadIdx.x == 5 && threadIdx.y == 1 && blockIdx.x == 1 && blockIdx.y == 2;
    __syncthreads();
    if (me && what == 1) *null = 1;
    if (me && what == 2) out[far] = 1;
    if (me && what == 3) for (volatile int spin = 0; ; ) spin = spin + 1;
    if (me && what == 4) __trap();
    if (me && what == 5) assert(out[0] == 12345 && "the first word");
    if (me && what == 6) abort();
    if (me && what == 7) { volatile int zero = 0; out[1] = 7 / zero; }
    if (me && what == 8) exit(3);
    if (me && what == 9) __builtin_trap();
    if (me && what == 10) printf("said by a kernel\n");
    out[0] = 1;
}
__attribute__((noinline)) static int deep(int n, volatile int* p) {
    volatile int here[64];
    here[n % 64] = n;
    return n == 0 ? 0 : deep(n - 1, here) + here[n % 64] + p[0];
}
extern "C" __global__ void overflow(int* out, int n) { out[0] = deep(n, out); }
// 31 threads of 64 wait at the barrier and 33 at a shuffle that reads them.
extern "C" __global__ void hang(unsigned* out) {
    if (threadIdx.x < 31) __syncthreads();
    else out[threadIdx.x] = __shfl(threadIdx.x, 0);
}
extern "C" __global__ void masked(unsigned* out) {
    if (threadIdx.x < 10) out[threadIdx.x] = __ballot_sync(0xfff, 1);
    else __syncthreads();
}
extern "C" __global__ void outside(unsigned* out) { out[0] = __ballot_sync(1, 1); }
extern "C" __global__ void overrun(unsigned bytes) {
    extern __shared__ char tile[];
    if (blockIdx.x == 1 && threadIdx.x == 3) tile[bytes] = 0;
}
"#;

const ENTRIES: [&str; 6] = ["wrong", "overflow", "hang", "masked", "outside", "overrun"];

const HERE: Option<Place> = Some(Place { launch: 1, block: [1, 2, 0], thread: [5, 1, 0] });

/// Does wrong in the second of two launches.
fn wrong(device: &mut CpuDevice, module: &Module, what: u32, far: i64, limit: Duration) -> Fault {
    device.arena(4096).unwrap().fill(0);
    let launch = |what| Launch {
        module: module.clone(),
        entry: 0,
        grid: [2, 3, 1],
        block: [8, 4, 1],
        shared_bytes: 0,
        args: vec![Arg::Address(0), Arg::Bits32(what), Arg::Bits64(far as u64), Arg::Null],
    };
    match device.run(&[launch(0), launch(what)], 4, limit) {
        Err(RunError::Fault(fault)) => fault,
        other => panic!("{what}: {other:?}"),
    }
}

/// The device can be used again.
fn still_works(device: &mut CpuDevice, module: &Module) {
    let args = [Arg::Address(0), Arg::Bits32(10), Arg::Bits64(0), Arg::Null];
    let after = run_words(device, launch(module, 0, 2, 8, &args), 0, &[0; 8]).unwrap();
    assert_eq!(after[0], 1);
}

#[test]
fn crashes_are_survived_and_placed() {
    let mut device = device();
    let module = compile(&device, WRONG, &ENTRIES, 32);
    let crash = |fault: Fault| match fault {
        Fault::Crash { what, arena_offset, place } => {
            assert_eq!(place, HERE, "{what}");
            (what, arena_offset)
        }
        other => panic!("{other:?}"),
    };
    let (what, offset) = crash(wrong(&mut device, &module, 1, 0, LIMIT));
    assert!(what.contains("SIGSEGV") && what.contains("null"), "{what}");
    assert_eq!(offset, None);
    still_works(&mut device, &module);

    for far in [-3, -1 << 20, 1 << 20] {
        let (what, offset) = crash(wrong(&mut device, &module, 2, far, LIMIT));
        assert_eq!(offset, Some(4 * far), "{what}");
        still_works(&mut device, &module);
    }
    let (what, _) = crash(wrong(&mut device, &module, 2, 1 << 58, LIMIT));
    assert!(what.contains("no memory can have"), "{what}");
    #[cfg(target_arch = "x86_64")] // An AArch64 divides by zero in silence.
    {
        let (what, _) = crash(wrong(&mut device, &module, 7, 0, LIMIT));
        assert!(what.contains("SIGFPE"), "{what}");
    }
    let (what, _) = crash(wrong(&mut device, &module, 8, 0, LIMIT));
    assert!(what.contains("ended the process with status 3"), "{what}");
    let (what, _) = crash(wrong(&mut device, &module, 9, 0, LIMIT));
    assert!(what.contains("SIGILL") || what.contains("SIGTRAP"), "{what}");
    still_works(&mut device, &module);
}

#[test]
fn a_stack_overflow_is_called_that() {
    let mut device = device();
    let module = compile(&device, WRONG, &ENTRIES, 32);
    let run = |device: &mut CpuDevice, depth| {
        let args = [Arg::Address(0), Arg::Bits32(depth)];
        run_words(device, launch(&module, 1, 1, 4, &args), 0, &[0; 4])
    };
    run(&mut device, 50).unwrap();
    let error = run(&mut device, 100_000).unwrap_err().to_string();
    assert!(error.contains("stack overflow"), "{error}");
    run(&mut device, 50).unwrap();
}

#[test]
fn an_endless_kernel_is_ended_at_the_limit() {
    let mut device = device();
    let module = compile(&device, WRONG, &ENTRIES, 32);
    let limit = Duration::from_millis(300);
    let start = Instant::now();
    let fault = wrong(&mut device, &module, 3, 0, limit);
    assert_eq!(fault, Fault::Timeout { limit, place: HERE });
    assert!((limit..limit * 10).contains(&start.elapsed()), "{:?}", start.elapsed());
    still_works(&mut device, &module);
}

#[test]
fn a_kernel_that_stops_itself_is_quoted() {
    let mut device = device();
    let module = compile(&device, WRONG, &ENTRIES, 32);
    for (what, words) in
        [(4, "trap"), (5, "attention.hip:12: assertion `out[0] == 12345"), (6, "abort")]
    {
        match wrong(&mut device, &module, what, 0, LIMIT) {
            Fault::Trap { what, place } => {
                assert!(what.contains(words), "{what}");
                assert_eq!(place, HERE);
            }
            other => panic!("{other:?}"),
        }
        still_works(&mut device, &module);
    }
}

#[test]
fn threads_that_wait_for_ever_are_counted() {
    let mut device = device();
    let module = compile(&device, WRONG, &ENTRIES, 64);
    let mut hang = |entry: usize| {
        let launch = launch(&module, entry, 1, 64, &[Arg::Address(0)]);
        let error = run_words(&mut device, launch, 9, &[0; 64]).unwrap_err();
        still_works(&mut device, &module);
        error
    };
    match hang(2) {
        RunError::Fault(Fault::Deadlock { what, place }) => {
            assert_eq!(what, "31 threads of 64 wait at __syncthreads, 33 at a shuffle of wave 0");
            assert_eq!(place.map(|p| p.thread), Some([31, 0, 0]));
        }
        other => panic!("{other:?}"),
    }
    let error = hang(3).to_string();
    assert!(error.contains("54 threads of 64 wait at __syncthreads, 10 at a vote"), "{error}");
    let error = hang(4).to_string();
    assert!(error.contains("mask 0x1 leaves it out"), "{error}");
}

#[test]
fn a_write_past_dynamic_shared_memory_is_seen() {
    let mut device = device();
    let module = compile(&device, WRONG, &ENTRIES, 64);
    device.arena(64).unwrap();
    let mut run = |bytes: u32, at: u32| {
        let mut launch = launch(&module, 5, 3, 8, &[Arg::Bits32(at)]);
        launch.shared_bytes = bytes;
        device.run(&[launch], 0, LIMIT)
    };
    for bytes in [0, 100, 160 * 1024] {
        assert!(bytes == 0 || run(bytes, bytes - 1).is_ok());
        for past in [0, 1, 4095] {
            match run(bytes, bytes + past) {
                Err(RunError::Fault(Fault::SharedOverrun { bytes: told, place })) => {
                    assert_eq!((told, place.unwrap().block), (bytes, [1, 0, 0]));
                }
                other => panic!("{bytes} + {past}: {other:?}"),
            }
        }
    }
}

#[test]
fn a_launch_that_does_not_fit_is_refused() {
    let mut device = device();
    let module = compile(&device, WRONG, &ENTRIES, 32);
    device.arena(64).unwrap();
    let good = [Arg::Address(0), Arg::Bits32(0), Arg::Bits64(0), Arg::Null];
    let mut refuse = |change: &dyn Fn(&mut Launch)| {
        let mut launch = launch(&module, 0, 1, 8, &good);
        change(&mut launch);
        match device.run(&[launch], 0, LIMIT) {
            Err(RunError::Refused(why)) => why,
            other => panic!("{other:?}"),
        }
    };
    let why = refuse(&|l| l.args[0] = Arg::Bits32(1));
    assert_eq!(
        why,
        "argument 1 of wrong is a 4-byte integer in the launch but a pointer in the kernel"
    );
    let why = refuse(&|l| l.args[2] = Arg::F64(1.0));
    assert_eq!(
        why,
        "argument 3 of wrong is an 8-byte float in the launch but an 8-byte integer in the kernel"
    );
    let why = refuse(&|l| l.args.truncate(3));
    assert_eq!(why, "wrong has 4 parameters and the launch 3 arguments");
    assert!(refuse(&|l| l.args[0] = Arg::Address(65)).contains("byte 65 of an arena of 64"));
    assert!(refuse(&|l| l.block = [32, 33, 1]).contains("at most 1024"));
    assert!(refuse(&|l| l.grid[1] = 0).contains("empty grid"));
    assert!(refuse(&|l| l.shared_bytes = 160 * 1024 + 1).contains("163841 bytes"));
    assert!(refuse(&|l| l.entry = 6).contains("entry 6"));
}
