//! The HIP headers for kernels on the CPU.

use std::sync::LazyLock;

use super::super::headers::Headers;

macro_rules! headers {
    ($($path:literal),* $(,)?) => { vec![$(($path, include_str!(concat!("include/", $path)))),*] };
}

pub(super) static HEADERS: LazyLock<Headers> = LazyLock::new(|| {
    Headers::new(
        "include",
        headers![
            "hip/hip_runtime.h",
            "hip/hip_fp16.h",
            "hip/hip_bf16.h",
            "hip/hip_bfloat16.h",
            "attnbench/arithmetic16.h",
            "attnbench/arithmetic16x2.h",
            "attnbench/atomics.h",
            "attnbench/checked.h",
            "attnbench/device.h",
            "attnbench/entry.h",
            "attnbench/math.h",
            "attnbench/round.h",
            "attnbench/vector_types.h",
            "attnbench/wave.h",
        ],
    )
});
