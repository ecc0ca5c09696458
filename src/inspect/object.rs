//! Compiled files: AMD code objects, NVIDIA cubins.

use super::asm::{count, disassembled};
use super::instances::Shape;
use super::row::{self, Row};
use super::{note, nvidia};
use crate::device::gpu::cubin;
use crate::device::gpu::object::plain;
use std::path::Path;
use std::process::Command;

/// Disassemblers tried, in order.
const NAMES: [&str; 6] = [
    "llvm-objdump-22",
    "llvm-objdump-21",
    "llvm-objdump-20",
    "llvm-objdump-19",
    "llvm-objdump",
    "/opt/rocm/llvm/bin/llvm-objdump",
];

/// Why a compiled file has no figures.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ObjectError {
    /// It cannot be read.
    #[error("{file}: cannot be read: {why}")]
    Io {
        /// The file.
        file: String,
        /// What the system said.
        why: String,
    },
    /// PTX.
    #[error(
        "{0}: registers of PTX are decided by the driver that compiles it; build a cubin (nvcc \
         -cubin -arch=sm_90) and name that"
    )]
    Ptx(String),
    /// Not an AMD code object that can be read.
    #[error("{file}: {source}")]
    Note {
        /// The file.
        file: String,
        /// What is wrong with it.
        source: note::NoteError,
    },
    /// Not a cubin that can be read.
    #[error("{file}: {source}")]
    Cubin {
        /// The file.
        file: String,
        /// What is wrong with it.
        source: cubin::CubinError,
    },
    /// It has no kernel of that name.
    #[error("{file}: there is no kernel `{entry}` in it; it has {has}")]
    Entry {
        /// The file.
        file: String,
        /// The entry wanted.
        entry: String,
        /// Those that there are.
        has: String,
    },
}

/// A compiled file's figures.
#[derive(Debug)]
pub struct Opened {
    /// One a kernel.
    pub rows: Vec<Row>,
    /// The disassembly; `None` where no disassembler was found.
    pub assembly: Option<String>,
}

/// Reads a compiled file. `wanted` are the entries that a manifest launches, with their launches;
/// all kernels where there are none.
///
/// # Errors
/// [`ObjectError`].
pub fn open(
    kernel: &str,
    path: &Path,
    wanted: &[(String, Vec<Shape>)],
) -> Result<Opened, ObjectError> {
    let file = path.display().to_string();
    let ending = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
    if ending == "ptx" {
        return Err(ObjectError::Ptx(file));
    }
    let bytes = std::fs::read(path)
        .map_err(|e| ObjectError::Io { file: file.clone(), why: e.to_string() })?;
    let mut rows;
    let mut assembly = None;
    if ending == "cubin" || cubin::is_cubin(&bytes) {
        let cubin = cubin::read(&bytes)
            .map_err(|source| ObjectError::Cubin { file: file.clone(), source })?;
        rows = chosen(&cubin.kernels, |k| &k.name, wanted, &file)?
            .into_iter()
            .map(|(k, shapes)| nvidia::row(kernel, &cubin, k, shapes))
            .collect();
    } else {
        let object = note::read(&bytes)
            .map_err(|source| ObjectError::Note { file: file.clone(), source })?;
        assembly = disassemble(path);
        let functions = assembly.as_deref().map(disassembled).unwrap_or_default();
        rows = Vec::new();
        for (k, shapes) in chosen(&object.kernels, |k| &k.name, wanted, &file)? {
            let shown = addr2line::demangle_auto(k.name.as_str().into(), None);
            let mut row = row::of_kernel(kernel, &shown, &object, k, shapes);
            row.counts = functions.iter().find(|f| f.name == k.name).map(|f| count(&f.lines));
            rows.push(row);
        }
    }
    Ok(Opened { rows, assembly })
}

/// The kernels that a manifest launches, each with its launches.
fn chosen<'a, K>(
    kernels: &'a [K],
    name: impl Fn(&K) -> &str,
    wanted: &'a [(String, Vec<Shape>)],
    file: &str,
) -> Result<Vec<(&'a K, &'a [Shape])>, ObjectError> {
    if wanted.is_empty() {
        return Ok(kernels.iter().map(|k| (k, &[][..])).collect());
    }
    let plain = |k: &K| plain(name(k));
    let of = |(entry, shapes): &'a (String, Vec<Shape>)| {
        let found = kernels.iter().find(|k| name(k) == entry || plain(k) == *entry);
        let found = found.ok_or_else(|| ObjectError::Entry {
            file: file.to_owned(),
            entry: entry.clone(),
            has: kernels.iter().map(&plain).collect::<Vec<_>>().join(", "),
        })?;
        Ok((found, &shapes[..]))
    };
    wanted.iter().map(of).collect()
}

/// The disassembly of a code object, where some llvm-objdump can make it.
fn disassemble(path: &Path) -> Option<String> {
    NAMES.iter().find_map(|program| {
        let mut command = Command::new(program);
        command.args(["-d", "--no-show-raw-insn", "--no-leading-addr"]).arg(path);
        let answer = command.env("LC_ALL", "C").output().ok()?;
        let text = String::from_utf8_lossy(&answer.stdout).into_owned();
        (answer.status.success() && !disassembled(&text).is_empty()).then_some(text)
    })
}
