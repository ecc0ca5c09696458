//! The eight captured slices that come with the program, and folders of a user's own.
//!
//! Where they come from is in `golden/README.md`. They are part of the program, so that every sweep
//! sees real data wherever it runs.

use super::slice::{KvSlice, SliceError};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

macro_rules! files {
    ($($stem:literal),* $(,)?) => {
        [$(($stem, include_bytes!(concat!("../../golden/slices/", $stem, ".safetensors")).as_slice())),*]
    };
}

/// Stem and bytes of each file, sorted by stem.
static FILES: [(&str, &[u8]); 8] = files![
    "p4_sys_decode0_L00_f32",
    "p4_sys_decode0_L15_f32",
    "p4_sys_decode0_L29_f32",
    "p5_ba_decode0_L00_f32",
    "p5_ba_decode0_L02_LHND4_f16",
    "p5_ba_decode0_L15_f32",
    "p5_ba_decode0_L29_f32",
    "p_long_decode0_L29_f16",
];

static PARSED: LazyLock<Vec<(&'static str, KvSlice)>> = LazyLock::new(|| {
    let parse = |(name, bytes)| {
        (name, KvSlice::from_bytes(name, bytes).expect("a test reads every embedded slice"))
    };
    FILES.into_iter().map(parse).collect()
});

/// The embedded slices by name, sorted; parsed on the first call.
pub fn embedded() -> &'static [(&'static str, KvSlice)] {
    &PARSED
}

/// Why a folder of slices cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GoldenError {
    /// A folder that cannot be listed.
    #[error("cannot list the folder {folder}: {source}; give a folder of .safetensors files")]
    List {
        /// The folder.
        folder: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A folder without slices.
    #[error("the folder {folder} has no .safetensors file; give one that has")]
    Empty {
        /// The folder.
        folder: PathBuf,
    },
    /// Two files of one name.
    #[error("{one} and {other} would both be called `{name}` in case ids; rename one")]
    SameName {
        /// A file.
        one: PathBuf,
        /// Another.
        other: PathBuf,
        /// Their name, without the characters that a case id cannot hold.
        name: String,
    },
    /// A file that is no valid slice.
    #[error(transparent)]
    Slice(#[from] SliceError),
}

/// The slices in a folder (not in its subfolders) by name, sorted. A name is the file's stem,
/// with characters that a case id cannot hold replaced by `_`.
///
/// # Errors
/// [`GoldenError`]: the first file or folder at fault.
pub fn load_dir(folder: &Path) -> Result<Vec<(String, KvSlice)>, GoldenError> {
    let list = |source| GoldenError::List { folder: folder.to_owned(), source };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(list)? {
        let path = entry.map_err(list)?.path();
        if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("safetensors")) {
            paths.push(path);
        }
    }
    if paths.is_empty() {
        return Err(GoldenError::Empty { folder: folder.to_owned() });
    }
    paths.sort();
    let mut slices: Vec<(String, PathBuf, KvSlice)> = Vec::new();
    for path in paths {
        let slice = KvSlice::read(&path)?;
        if let Some((name, one, _)) = slices.iter().find(|(name, ..)| *name == slice.name) {
            let (one, name) = (one.clone(), name.clone());
            return Err(GoldenError::SameName { one, other: path, name });
        }
        slices.push((slice.name.clone(), path, slice));
    }
    slices.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(slices.into_iter().map(|(name, _, slice)| (name, slice)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn embedded_bytes_are_those_of_the_manifest() {
        let text = include_str!("../../golden/manifest.json");
        let manifest: serde_json::Value = serde_json::from_str(text).unwrap();
        let listed = manifest["files"].as_array().unwrap();
        assert_eq!(listed.len(), FILES.len());
        for ((stem, bytes), entry) in FILES.iter().zip(listed) {
            assert_eq!(entry["path"], format!("slices/{stem}.safetensors"));
            assert_eq!(entry["bytes"], bytes.len(), "{stem}");
            assert_eq!(entry["blake3"], blake3::hash(bytes).to_hex().as_str(), "{stem}");
        }
    }

    #[test]
    fn a_folder_is_sorted_and_its_names_fit_a_case_id() {
        let dir = tempfile::tempdir().unwrap();
        let (_, slice) = &embedded()[0];
        for name in ["b", "a x[1]=2,3", "c"] {
            slice.write(&dir.path().join(format!("{name}.safetensors"))).unwrap();
        }
        std::fs::write(dir.path().join("notes.txt"), "no slice").unwrap();
        let names: Vec<String> =
            load_dir(dir.path()).unwrap().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["a_x_1__2_3", "b", "c"]);
    }

    #[test]
    fn a_folder_that_cannot_be_used_says_why() {
        let dir = tempfile::tempdir().unwrap();
        let says = |want: &str| {
            let text = load_dir(dir.path()).unwrap_err().to_string();
            assert!(text.contains(want), "{text}");
        };
        says("has no .safetensors file");
        let (_, slice) = &embedded()[0];
        for name in ["a b", "a_b"] {
            slice.write(&dir.path().join(format!("{name}.safetensors"))).unwrap();
        }
        says("would both be called `a_b`");
        std::fs::write(dir.path().join("a b.safetensors"), "nonsense, and long enough").unwrap();
        says("a b.safetensors: the header says");
        let missing = load_dir(&dir.path().join("none")).unwrap_err().to_string();
        assert!(missing.contains("cannot list the folder"), "{missing}");
    }
}
