//! HIP headers that are carried in the program, written where a compiler reads: here those for kernels
//! on the CPU.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use super::super::CompileError;
use super::cache;

/// A set of headers.
pub(crate) struct Headers {
    /// What their folder in a cache is called, before the hash.
    pub(crate) name: &'static str,
    /// Path and text of each.
    pub(crate) files: Vec<(&'static str, &'static str)>,
}

macro_rules! headers {
    ($($path:literal),* $(,)?) => { vec![$(($path, include_str!(concat!("include/", $path)))),*] };
}

/// The headers for kernels on the CPU.
static CPU: LazyLock<Headers> = LazyLock::new(|| Headers {
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
pub(super) static HASH: LazyLock<String> = LazyLock::new(|| CPU.hash());

impl Headers {
    /// Hash of all of them, hexadecimal.
    pub(crate) fn hash(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        for (path, text) in &self.files {
            cache::field(&mut hasher, path.as_bytes());
            cache::field(&mut hasher, text.as_bytes());
        }
        hasher.finalize().to_hex().as_str()[..32].to_owned()
    }

    /// The folder that holds the headers in this cache; writes it on first use.
    pub(crate) fn materialise(&self, cache_dir: &Path) -> Result<PathBuf, CompileError> {
        let dir = cache_dir.join(format!("{}-{}", self.name, self.hash()));
        for (path, text) in &self.files {
            let file = dir.join(path);
            // why: a reader may have deleted or emptied one; a length is enough to see that.
            if std::fs::metadata(&file).is_ok_and(|m| m.len() == text.len() as u64) {
                continue;
            }
            cache::write_atomically(&file, text.as_bytes())?;
        }
        Ok(dir)
    }
}

/// The folder's name in a cache.
pub(super) fn folder() -> String {
    format!("include-{}", *HASH)
}

/// The folder that holds the headers in this cache; writes it on first use.
pub(super) fn materialise(cache_dir: &Path) -> Result<PathBuf, CompileError> {
    CPU.materialise(cache_dir)
}
