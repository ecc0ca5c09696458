//! The HIP headers for AMD targets: carried in the program, written where a compiler reads.

use crate::device::headers::Headers;
use std::sync::LazyLock;

macro_rules! headers {
    ($($path:literal),* $(,)?) => { [$(($path, include_str!(concat!("include/", $path)))),*] };
}

const OWN: [(&str, &str); 15] = headers![
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
    "attnbench/vector_types.h",
    "attnbench/wave.h",
    "math.h",
    "cmath",
];

/// All of them.
pub(super) static HEADERS: LazyLock<Headers> =
    LazyLock::new(|| Headers::new("include-amd", OWN.to_vec()));
