//! The HIP headers for kernels on the CPU.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use super::super::CompileError;
use super::super::headers::Headers;

macro_rules! headers {
    ($($path:literal),* $(,)?) => { vec![$(($path, include_str!(concat!("include/", $path)))),*] };
}

static HEADERS: LazyLock<Headers> = LazyLock::new(|| Headers {
    name: "include",
    files: headers![
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
});

/// Hash of all headers, hexadecimal.
pub(super) static HASH: LazyLock<String> = LazyLock::new(|| HEADERS.hash());

/// The folder's name in a cache.
pub(super) fn folder() -> String {
    format!("{}-{}", HEADERS.name, *HASH)
}

/// The folder that holds the headers in this cache; writes it on first use.
pub(super) fn materialise(cache_dir: &Path) -> Result<PathBuf, CompileError> {
    HEADERS.materialise(cache_dir)
}
