//! Headers that are carried in the program, and written where a compiler reads.

use std::path::{Path, PathBuf};

use super::CompileError;
use super::cache;

/// A set of headers.
pub(crate) struct Headers {
    /// What their folder in a cache is called, before the hash.
    name: &'static str,
    /// Path and text of each.
    files: Vec<(&'static str, &'static str)>,
    /// Hash of all of them, hexadecimal.
    pub(crate) hash: String,
}

impl Headers {
    /// These files, by their path in the folder.
    pub(crate) fn new(name: &'static str, files: Vec<(&'static str, &'static str)>) -> Headers {
        let mut hasher = blake3::Hasher::new();
        for (path, text) in &files {
            cache::field(&mut hasher, path.as_bytes());
            cache::field(&mut hasher, text.as_bytes());
        }
        let hash = hasher.finalize().to_hex().as_str()[..32].to_owned();
        Headers { name, files, hash }
    }

    /// The folder's name in a cache.
    pub(crate) fn folder(&self) -> String {
        format!("{}-{}", self.name, self.hash)
    }

    /// The folder that holds the headers in this cache; writes it on first use.
    pub(crate) fn materialise(&self, cache_dir: &Path) -> Result<PathBuf, CompileError> {
        let dir = cache_dir.join(self.folder());
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
