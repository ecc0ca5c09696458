//! Headers that are carried in the program, and written where a compiler reads.

use std::path::{Path, PathBuf};

use super::CompileError;
use super::cache;

/// Headers by their path in the folder, and their text.
pub(crate) type Headers = [(&'static str, &'static str)];

/// Hash of headers, hexadecimal.
pub(crate) fn hash(headers: &Headers) -> String {
    let mut hasher = blake3::Hasher::new();
    for (path, text) in headers {
        cache::field(&mut hasher, path.as_bytes());
        cache::field(&mut hasher, text.as_bytes());
    }
    hasher.finalize().to_hex().as_str()[..32].to_owned()
}

/// The folder's name in a cache.
pub(crate) fn folder(hash: &str) -> String {
    format!("include-{hash}")
}

/// The folder that holds the headers in this cache; writes it on first use.
pub(crate) fn materialise(
    headers: &Headers,
    hash: &str,
    cache_dir: &Path,
) -> Result<PathBuf, CompileError> {
    let dir = cache_dir.join(folder(hash));
    for (path, text) in headers {
        let file = dir.join(path);
        // why: a reader may have deleted or emptied one; a length is enough to see that.
        if std::fs::metadata(&file).is_ok_and(|m| m.len() == text.len() as u64) {
            continue;
        }
        cache::write_atomically(&file, text.as_bytes())?;
    }
    Ok(dir)
}
