//! The HIP headers for kernels on the CPU: carried in the program, written where a compiler reads.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use super::super::CompileError;
use super::super::headers;

macro_rules! headers {
    ($($path:literal),* $(,)?) => { [$(($path, include_str!(concat!("include/", $path)))),*] };
}

const HEADERS: [(&str, &str); 14] = headers![
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
];

/// Hash of all headers, hexadecimal.
pub(super) static HASH: LazyLock<String> = LazyLock::new(|| headers::hash(&HEADERS));

/// The folder's name in a cache.
pub(super) fn folder() -> String {
    headers::folder(&HASH)
}

/// The folder that holds the headers in this cache; writes it on first use.
pub(super) fn materialise(cache_dir: &Path) -> Result<PathBuf, CompileError> {
    headers::materialise(&HEADERS, &HASH, cache_dir)
}
