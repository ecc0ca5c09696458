//! The HIP headers for AMD targets: carried in the program, written where a compiler reads.

use crate::device::cpu::shim::Headers;

macro_rules! headers {
    ($($path:literal),* $(,)?) => { [$(($path, include_str!(concat!("include/", $path)))),*] };
}

const OWN: [(&str, &str); 14] = headers![
    "hip/hip_runtime.h",
    "hip/hip_fp16.h",
    "hip/hip_bf16.h",
    "hip/hip_bfloat16.h",
    "attnbench/atomics.h",
    "attnbench/device.h",
    "attnbench/float16.h",
    "attnbench/float16x2.h",
    "attnbench/math.h",
    "attnbench/reduce.h",
    "attnbench/reduce64.h",
    "attnbench/wave.h",
    "math.h",
    "cmath",
];

/// The vectors are those that kernels on the CPU have.
const VECTOR_TYPES: (&str, &str) =
    ("attnbench/vector_types.h", include_str!("../device/cpu/include/attnbench/vector_types.h"));

/// All of them.
pub(super) fn headers() -> Headers {
    let files = OWN.into_iter().chain([VECTOR_TYPES]).collect();
    Headers { name: "include-amd", files }
}
