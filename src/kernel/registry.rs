//! Kernels by name or by path: the built-in ones, and a user's own.
//!
//! Built-in manifests and sources are part of the program. They are written into a cache folder
//! under the hash of their contents, so that compiler messages name a file that can be opened, and
//! so that they are read by the very code that reads a user's.

use super::manifest::Manifest;
use super::read::ManifestError;
use crate::problem::{did_you_mean, nearest};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// A kernel that is part of the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Builtin {
    /// File name and text of the manifest.
    pub manifest: (&'static str, &'static str),
    /// Path, relative to the manifest, and text of its source and of every file that it includes.
    pub files: &'static [(&'static str, &'static str)],
}

/// A file of `kernels/`, by name and text.
macro_rules! file {
    ($name:literal) => {
        ($name, include_str!(concat!("../../kernels/", $name)))
    };
}

/// A built-in kernel: its manifest, and its source with all that it includes.
macro_rules! kernel {
    ($manifest:literal: $($file:literal)+) => {
        Builtin { manifest: file!($manifest), files: &[$(file!($file)),+] }
    };
}

/// The kernels that are part of the program: whole decode attention first, then the stages in the
/// order in which an engine runs them.
pub const BUILTINS: &[Builtin] = &[
    kernel!("decode_naive.toml":
        "decode_naive.hip" "scores.hip" "softmax.hip" "pv.hip" "matvec.h" "portable.h"),
    kernel!("decode_online.toml": "decode_online.hip" "portable.h"),
    kernel!("decode_split.toml": "decode_split.hip" "decode_online.hip" "merge.hip" "portable.h"),
    kernel!("decode_fast.toml": "decode_fast.hip" "matrix.h" "parts.h" "portable.h"),
    kernel!("append.toml": "append.hip" "portable.h"),
    kernel!("scores.toml": "scores.hip" "portable.h"),
    kernel!("softmax.toml": "softmax.hip" "portable.h"),
    kernel!("pv.toml": "pv.hip" "matvec.h" "portable.h"),
    kernel!("split.toml": "decode_split.hip" "decode_online.hip" "merge.hip" "portable.h"),
    kernel!("merge.toml": "merge.hip" "portable.h"),
    kernel!("prefill.toml": "prefill.hip" "decode_online.hip" "portable.h"),
    kernel!("head_combine.toml": "head_combine.hip" "matvec.h" "portable.h"),
    kernel!("norm.toml": "norm.hip" "portable.h"),
];

/// The kernels of `bench`. They have no manifest: their place is taken by the one header.
const HELPERS: Builtin = Builtin {
    manifest: file!("portable.h"),
    files: &[file!("bench/fill.hip"), file!("bench/read.hip")],
};

/// Why a kernel was not found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// Neither a built-in kernel nor a manifest.
    #[error(
        "there is no kernel `{name}`{} (built in: {known}; or give the path of a manifest, ending in .toml)",
        did_you_mean(nearest)
    )]
    Unknown {
        /// What was asked for.
        name: String,
        /// A known one that is close to it.
        nearest: Option<String>,
        /// All of them.
        known: String,
    },
    /// A manifest that cannot be read.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// Two built-in kernels of one name.
    #[error("two built-in kernels are called `{0}`; rename one in its manifest")]
    Twice(String),
    /// The cache folder cannot be written.
    #[error(
        "cannot write the built-in kernels to {path}: {source}; make room there, or set ATTNBENCH_CACHE to a folder you can write"
    )]
    Cache {
        /// The file or folder.
        path: String,
        /// What the system said.
        source: io::Error,
    },
}

/// Finds kernels.
#[derive(Debug, Clone)]
pub struct Registry {
    cache: PathBuf,
    /// Name, from the manifest, and contents.
    builtins: Vec<(String, Builtin)>,
}

impl Registry {
    /// The program's own kernels, written into `cache` when they are asked for.
    ///
    /// # Errors
    /// [`RegistryError`], only for a built-in manifest with a mistake.
    pub fn new(cache: impl Into<PathBuf>) -> Result<Registry, RegistryError> {
        Registry::with_builtins(cache, BUILTINS)
    }

    /// As [`Registry::new`], with other built-in kernels.
    ///
    /// # Errors
    /// [`RegistryError`] for a manifest with a mistake, or a name that occurs twice.
    pub fn with_builtins(
        cache: impl Into<PathBuf>,
        builtins: &[Builtin],
    ) -> Result<Registry, RegistryError> {
        let mut named: Vec<(String, Builtin)> = Vec::new();
        for builtin in builtins {
            let (file, text) = builtin.manifest;
            let name = Manifest::parse(text, Path::new(file))?.name;
            if named.iter().any(|(n, _)| *n == name) {
                return Err(RegistryError::Twice(name));
            }
            named.push((name, *builtin));
        }
        Ok(Registry { cache: cache.into(), builtins: named })
    }

    /// The names of the built-in kernels.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.builtins.iter().map(|(name, _)| name.as_str())
    }

    /// A kernel by its built-in name, or by the path of a manifest: what ends in `.toml` or has a
    /// slash in it is a path.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub fn find(&self, kernel: &str) -> Result<Manifest, RegistryError> {
        if let Some((_, builtin)) = self.builtins.iter().find(|(name, _)| name == kernel) {
            return self.load(builtin);
        }
        if kernel.ends_with(".toml") || kernel.contains(['/', '\\']) {
            return Ok(Manifest::load(Path::new(kernel))?);
        }
        Err(RegistryError::Unknown {
            name: kernel.to_owned(),
            nearest: nearest(kernel, self.names()),
            known: self.names().collect::<Vec<_>>().join(", "),
        })
    }

    /// Every built-in kernel.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub fn all(&self) -> Result<Vec<Manifest>, RegistryError> {
        self.builtins.iter().map(|(_, builtin)| self.load(builtin)).collect()
    }

    /// The folder with the kernels that `bench` makes data and its floor with.
    ///
    /// # Errors
    /// [`RegistryError::Cache`].
    pub fn helpers(&self) -> Result<PathBuf, RegistryError> {
        self.write(&HELPERS)
    }

    fn load(&self, builtin: &Builtin) -> Result<Manifest, RegistryError> {
        Ok(Manifest::load(&self.write(builtin)?.join(builtin.manifest.0))?)
    }

    /// Writes a kernel's files; the folder with them.
    fn write(&self, builtin: &Builtin) -> Result<PathBuf, RegistryError> {
        let folder = self.cache.join("kernels").join(content_hash(builtin));
        for (name, text) in builtin.files.iter().chain([&builtin.manifest]) {
            let path = folder.join(name);
            put(&path, text).map_err(|source| RegistryError::Cache {
                path: path.display().to_string(),
                source,
            })?;
        }
        Ok(folder)
    }
}

/// Hash of every file's name and text, 32 hexadecimal digits.
fn content_hash(builtin: &Builtin) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in builtin.files.iter().chain([&builtin.manifest]).flat_map(|(n, t)| [n, t]) {
        // The length keeps `ab` + `c` and `a` + `bc` apart.
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.finalize().to_hex()[..32].to_owned()
}

/// Writes a file unless it has that text already. Another process sees all of it or nothing.
fn put(path: &Path, text: &str) -> io::Result<()> {
    if fs::read(path).is_ok_and(|old| old == text.as_bytes()) {
        return Ok(());
    }
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(text.as_bytes())?;
    file.persist(path).map_err(|e| e.error)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "format = \"kernel/1\"\nname = \"mine\"\nsource = \"src/mine.hip\"\n\
        stage = \"decode\"\n[[launch]]\nentry = \"k\"\nargs = [\"out\"]\ngrid = [1, 1, 1]\n\
        block = [1, 1, 1]\n";
    const MINE: Builtin = Builtin {
        manifest: ("mine.toml", GOOD),
        files: &[("src/mine.hip", "// one\n"), ("portable.h", "// two\n")],
    };

    #[test]
    fn every_built_in_kernel_loads() {
        let cache = tempfile::tempdir().unwrap();
        let registry = Registry::new(cache.path()).unwrap();
        let all = registry.all().unwrap();
        assert_eq!(all.len(), BUILTINS.len());
        for (name, manifest) in registry.names().zip(&all) {
            assert_eq!(manifest.name, name);
            assert!(registry.find(name).unwrap().code.path().starts_with(cache.path()));
        }
    }

    #[test]
    fn files_lie_under_their_hash_and_are_mended() {
        let cache = tempfile::tempdir().unwrap();
        let registry = Registry::with_builtins(cache.path(), &[MINE]).unwrap();
        let first = registry.find("mine").unwrap();
        let source = first.code.path().to_owned();
        assert_eq!(fs::read_to_string(&source).unwrap(), "// one\n");
        let written = fs::metadata(&source).unwrap().modified().unwrap();
        assert_eq!(registry.find("mine").unwrap(), first);
        assert_eq!(fs::metadata(&source).unwrap().modified().unwrap(), written, "left alone");
        fs::write(&source, "// torn").unwrap();
        registry.find("mine").unwrap();
        assert_eq!(fs::read_to_string(&source).unwrap(), "// one\n", "mended");
        // Nothing but the three files is left behind.
        let folder = source.parent().unwrap().parent().unwrap();
        assert_eq!(fs::read_dir(folder).unwrap().count(), 3);

        let other = Builtin { files: &[("src/mine.hip", "// 1\n")], ..MINE };
        let other = Registry::with_builtins(cache.path(), &[other]).unwrap().find("mine").unwrap();
        assert_ne!(other.code.path(), source);
    }

    #[test]
    fn paths_and_unknown_names() {
        let cache = tempfile::tempdir().unwrap();
        let registry = Registry::with_builtins(cache.path(), &[MINE]).unwrap();
        let message = registry.find("mien").unwrap_err().to_string();
        assert!(message.contains("no kernel `mien`; did you mean `mine`?"), "{message}");
        assert!(message.contains("built in: mine"), "{message}");

        let path = cache.path().join("user.toml");
        let shown = path.to_str().unwrap();
        let message = registry.find(shown).unwrap_err().to_string();
        assert!(message.contains("user.toml: cannot be read"), "{message}");
        fs::write(&path, GOOD).unwrap();
        let message = registry.find(shown).unwrap_err().to_string();
        assert!(message.contains("user.toml:3: `source`"), "{message}");
        assert!(message.contains("there is no such file"), "{message}");
        fs::create_dir(cache.path().join("src")).unwrap();
        fs::write(cache.path().join("src/mine.hip"), "").unwrap();
        assert_eq!(registry.find(shown).unwrap().name, "mine");

        let twice = Registry::with_builtins(cache.path(), &[MINE, MINE]).unwrap_err().to_string();
        assert!(twice.contains("two built-in kernels are called `mine`"), "{twice}");
        let file = cache.path().join("file");
        fs::write(&file, "").unwrap();
        let stuck = Registry::with_builtins(&file, &[MINE]).unwrap().find("mine").unwrap_err();
        assert!(stuck.to_string().contains("cannot write the built-in kernels"), "{stuck}");
    }
}
