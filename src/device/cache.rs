//! The compile cache: binaries by the hash of everything that they depend on.
//!
//! `<dir>/<first two digits>/<hash>` with the device's extension, and beside it `<hash>.json`, which is
//! written last: a binary counts once its description is there. Files appear by rename, so any number of processes
//! share a folder; a lock file a hash keeps them from compiling the same thing twice.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::CompileError;

/// Adds bytes and their length, so that no two lists of fields hash alike.
pub(crate) fn field(hasher: &mut blake3::Hasher, bytes: &[u8]) {
    hasher.update(&(bytes.len() as u64).to_le_bytes());
    hasher.update(bytes);
}

/// Where one binary lies.
#[derive(Debug, Clone)]
pub(super) struct Slot {
    pub(super) binary: PathBuf,
    description: PathBuf,
}

impl Slot {
    pub(super) fn new(dir: &Path, hash: &str, extension: &str) -> Slot {
        let stem = dir.join(&hash[..2]).join(hash);
        Slot { binary: stem.with_extension(extension), description: stem.with_extension("json") }
    }

    /// The description beside `binary`.
    pub(super) fn of_binary(binary: &Path) -> Slot {
        Slot { binary: binary.to_owned(), description: binary.with_extension("json") }
    }

    /// The description, if the binary is here and whole.
    pub(super) fn read<D: DeserializeOwned>(&self) -> Option<D> {
        let text = fs::read(&self.description).ok()?;
        self.binary.is_file().then(|| serde_json::from_slice(&text).ok())?
    }

    /// Takes a binary that lies in the same file system, and its description.
    pub(super) fn put(
        &self,
        built: &Path,
        description: &impl Serialize,
    ) -> Result<(), CompileError> {
        fs::rename(built, &self.binary).map_err(|e| unwritable(&self.binary, &e))?;
        let text = serde_json::to_vec(description)
            .map_err(|e| unwritable(&self.description, &io::Error::other(e)))?;
        write_atomically(&self.description, &text)
    }

    /// A private folder in the cache to build in; deleted when dropped.
    pub(super) fn workshop(&self) -> Result<tempfile::TempDir, CompileError> {
        let dir = parent(&self.binary);
        fs::create_dir_all(dir).map_err(|e| unwritable(dir, &e))?;
        tempfile::Builder::new().prefix(".build-").tempdir_in(dir).map_err(|e| unwritable(dir, &e))
    }

    /// Waits until no one else builds this binary. Where the file system has no locks, two may
    /// build it at once, which costs time only.
    pub(super) fn lock(&self) -> Result<Lock, CompileError> {
        let path = self.binary.with_extension("lock");
        let dir = parent(&path);
        fs::create_dir_all(dir).map_err(|e| unwritable(dir, &e))?;
        let file = File::create(&path).map_err(|e| unwritable(&path, &e))?;
        // SAFETY: the descriptor is open; flock touches no memory.
        unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX) };
        Ok(Lock { _file: file })
    }
}

/// A held lock; closing the file lets it go.
pub(super) struct Lock {
    _file: File,
}

/// Writes a whole file by rename, making its folder.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), CompileError> {
    let write = || -> io::Result<()> {
        let dir = parent(path);
        fs::create_dir_all(dir)?;
        let mut file = tempfile::NamedTempFile::new_in(dir)?;
        file.write_all(bytes)?;
        file.persist(path)?;
        Ok(())
    };
    write().map_err(|e| unwritable(path, &e))
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("."))
}

/// The one message for a cache that cannot be written.
pub(crate) fn unwritable(path: &Path, error: &io::Error) -> CompileError {
    CompileError::Io {
        what: format!("writing {} in the compile cache", path.display()),
        why: format!("{error}; make room there, or set ATTNBENCH_CACHE to a folder you can write"),
    }
}
