//! The CPU device: what kernels mean on it, and what it says when they go wrong.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use attnbench::device::cpu::{CpuConfig, CpuDevice};
use attnbench::device::{
    Arg, CompileError, Device, Fault, Launch, Module, ParamKind, Place, RunError, Source,
};

const LIMIT: Duration = Duration::from_secs(20);

/// One cache for the whole test program, so that kernels compile once.
fn cache() -> &'static Path {
    static CACHE: OnceLock<tempfile::TempDir> = OnceLock::new();
    CACHE.get_or_init(|| tempfile::tempdir().expect("a temporary folder")).path()
}

fn config() -> CpuConfig {
    let mut config = CpuConfig::from_env();
    config.worker_program = PathBuf::from(env!("CARGO_BIN_EXE_attnbench"));
    config.cache_dir = cache().to_owned();
    config
}

fn device() -> CpuDevice {
    CpuDevice::new(config()).expect("a C++ compiler")
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

const ADD: &str = r#"
#include <hip/hip_runtime.h>
#include <hip/hip_fp16.h>
#include <hip/hip_bf16.h>
namespace engine { namespace kernels {
template <typename T, int SCALE>
__global__ void add(const T* a, const T* b, T* c, unsigned n) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) c[i] = a[i] + b[i] * T(SCALE);
}
} }
"#;

#[test]
fn a_templated_namespaced_kernel_adds_f16_and_bf16() {
    let mut device = device();
    let entries = ["engine::kernels::add<__half, 2>", "engine::kernels::add<__hip_bfloat16, 2>"];
    let module = compile(&device, ADD, &entries, 64);
    let pointer = ParamKind::Pointer;
    let params = vec![pointer, pointer, pointer, ParamKind::Int(4)];
    assert_eq!(*module.params, vec![Some(params.clone()), Some(params)]);
    let n = 1000usize;
    for entry in 0..2 {
        let value = |i: usize| i as f32 * 0.37 - 150.0;
        let bits = |x: f32| match entry {
            0 => half::f16::from_f32(x).to_bits(),
            _ => half::bf16::from_f32(x).to_bits(),
        };
        let arena = device.arena(6 * n).unwrap();
        for i in 0..n {
            arena[2 * i..][..2].copy_from_slice(&bits(value(i)).to_le_bytes());
            arena[2 * n + 2 * i..][..2].copy_from_slice(&bits(value(n - i)).to_le_bytes());
        }
        let at = |k: usize| Arg::Address(2 * n * k);
        let args = [at(0), at(1), at(2), Arg::Bits32(n as u32)];
        device.run(&[launch(&module, entry, 8, 128, &args)], 1, LIMIT).unwrap();
        let arena = device.arena(6 * n).unwrap();
        for i in 0..n {
            let got = u16::from_le_bytes([arena[4 * n + 2 * i], arena[4 * n + 2 * i + 1]]);
            let want = match entry {
                0 => {
                    let [a, b] = [value(i), value(n - i)].map(half::f16::from_f32);
                    (a + b * half::f16::from_f32(2.0)).to_bits()
                }
                _ => {
                    let [a, b] = [value(i), value(n - i)].map(half::bf16::from_f32);
                    (a + b * half::bf16::from_f32(2.0)).to_bits()
                }
            };
            assert_eq!(got, want, "entry {entry}, element {i}");
        }
    }
}
