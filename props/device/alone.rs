//! What a run sees of memory that it may not use does not depend on the runs before it.

use attnbench::device::cpu::CpuDevice;
use attnbench::device::{Arg, Device, Fault, Module, RunError};

use super::{LIMIT, compile, device, launch};

const SOURCE: &str = r#"
#include <hip/hip_runtime.h>
// Fills what the next run may not use: shared memory, and its own stack.
extern "C" __global__ void dirty(unsigned* out, int words) {
    extern __shared__ unsigned dynamic[];
    __shared__ unsigned fixed[64];
    volatile unsigned own[256];
    for (int i = 0; i < 256; ++i) own[i] = 7u * i + threadIdx.x;
    for (int i = threadIdx.x; i < words; i += blockDim.x) dynamic[i] = i;
    fixed[threadIdx.x % 64] = own[threadIdx.x % 256];
    out[threadIdx.x] = fixed[threadIdx.x % 64];
}
// Copies 64 words of what nothing has set.
extern "C" __global__ void around(unsigned* out, int what, int first) {
    extern __shared__ unsigned dynamic[];
    __shared__ unsigned fixed[64];
    volatile unsigned own[128];
    const int t = threadIdx.x;
    if (what == 0) out[t] = fixed[t];
    if (what == 1) out[t] = dynamic[first + t];
    if (what == 2) out[t] = own[t];
    if (what == 3) out[t] = out[first + t];
}
"#;

/// A large run that leaves something everywhere.
fn dirty(device: &mut CpuDevice, module: &Module) {
    device.arena(1 << 20).expect("memory").fill(0x77);
    let words = 32 << 10;
    let mut launch = launch(module, 0, 2, 128, &[Arg::Address(0), Arg::Bits32(words)]);
    launch.shared_bytes = 4 * words;
    device.run(&[launch], 1, LIMIT).expect("it runs");
}

const WORDS: usize = 300;

fn around(
    device: &mut CpuDevice,
    module: &Module,
    what: u32,
    first: u32,
) -> Result<Vec<u8>, RunError> {
    device.arena(4 * WORDS)?.fill(0x11);
    let args = [Arg::Address(0), Arg::Bits32(what), Arg::Bits32(first)];
    device.run(&[launch(module, 1, 1, 64, &args)], 1, LIMIT)?;
    Ok(device.arena(4 * WORDS)?.to_vec())
}

#[test]
fn a_run_sees_the_same_alone_and_after_a_larger_one() {
    let mut alone = device();
    let module = compile(&alone, SOURCE, &["dirty", "around"], 32);
    let mut after = alone.sibling();
    // Static and dynamic shared memory, beyond the canary behind the latter too; a variable that is
    // never set; what follows the arena in its last page.
    for (what, first) in [(0, 0), (1, 0), (1, 1024), (1, 20_000), (2, 0), (3, WORDS as u32)] {
        let expected = around(&mut alone, &module, what, first).expect("it runs");
        dirty(&mut after, &module);
        let seen = around(&mut after, &module, what, first).expect("it runs");
        assert_eq!(seen, expected, "{what} from {first}");
        assert_ne!(seen[..256], [0x11; 256], "something was copied");
    }
}

/// Behind the page in which the arena ends nothing can be touched, whatever larger arena there was.
#[test]
fn what_lies_behind_an_arena_is_gone_alone_and_after_a_larger_one() {
    let mut alone = device();
    let module = compile(&alone, SOURCE, &["dirty", "around"], 32);
    let mut after = alone.sibling();
    dirty(&mut after, &module);
    for first in [16 << 10, 200 << 10] {
        let told = [&mut alone, &mut after].map(|device| match around(device, &module, 3, first) {
            Err(RunError::Fault(fault @ Fault::Crash { arena_offset: Some(_), .. })) => {
                fault.to_string()
            }
            other => panic!("{first}: {other:?}"),
        });
        assert_eq!(told[0], told[1]);
        // And the larger arena is there again.
        dirty(&mut after, &module);
    }
}
