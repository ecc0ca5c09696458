//! The CPU device: what kernels mean on it, and what it says when they go wrong.

mod alone;
mod build;
mod faults;
mod floats;
mod lockstep;
mod meaning;
mod progress;
mod stack;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use attnbench::device::cpu::{CpuConfig, CpuDevice};
use attnbench::device::{Arg, Device, Launch, Module, RunError, Source};

const LIMIT: Duration = Duration::from_secs(20);

/// One cache for all tests, kept between runs: it is never stale, as `build` shows.
fn cache() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("kernels")
}

pub fn config() -> CpuConfig {
    let mut config = CpuConfig::from_env();
    config.worker_program = PathBuf::from(env!("CARGO_BIN_EXE_attnbench"));
    config.cache_dir = cache();
    config
}

fn device() -> CpuDevice {
    CpuDevice::new(config()).expect("a C++ compiler")
}

/// The device with clang as its compiler; where there is none, says so.
fn clang_device() -> Option<CpuDevice> {
    let Some(clang) = clang() else {
        eprintln!("skipped: there is no clang++ here");
        return None;
    };
    let config = CpuConfig { compiler: Some(clang), ..config() };
    Some(CpuDevice::new(config).expect("clang++ was found"))
}

/// A source in a folder of its own.
struct Written {
    _dir: tempfile::TempDir,
    source: Source,
}

fn write(text: &str, entries: &[&str], wave: u32) -> Written {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let file = dir.path().join("attention.hip");
    fs::write(&file, text).expect("written");
    let entries = entries.iter().map(|&entry| entry.to_owned()).collect();
    let source = Source { file, include_dirs: vec![], defines: vec![], entries, wave };
    Written { _dir: dir, source }
}

fn compile(device: &CpuDevice, text: &str, entries: &[&str], wave: u32) -> Module {
    device.compile(&write(text, entries, wave).source).unwrap_or_else(|e| panic!("{e:?}"))
}

fn launch(module: &Module, entry: usize, grid: u32, block: u32, args: &[Arg]) -> Launch {
    Launch {
        module: module.clone(),
        entry,
        grid: [grid, 1, 1],
        block: [block, 1, 1],
        shared_bytes: 0,
        args: args.to_vec(),
    }
}

/// Runs one launch over an arena of 32-bit words and gives back what it left.
fn run_words(
    device: &mut CpuDevice,
    launch: Launch,
    seed: u64,
    words: &[u32],
) -> Result<Vec<u32>, RunError> {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    device.arena(bytes.len())?.copy_from_slice(&bytes);
    device.run(&[launch], seed, LIMIT)?;
    let after = device.arena(bytes.len())?;
    Ok(after.chunks(4).map(|c| u32::from_le_bytes([c[0], c[1], c[2], c[3]])).collect())
}

/// A clang++ of this machine, by its usual names.
pub fn clang() -> Option<PathBuf> {
    let names = ["clang++", "clang++-14", "clang++-16", "clang++-18", "clang++-19"];
    let works = |name: &&str| {
        std::process::Command::new(name).arg("--version").output().is_ok_and(|o| o.status.success())
    };
    names.into_iter().find(works).map(PathBuf::from)
}
