//! The checker: planted faults are found, each in its class, at its line, in its thread; their mended
//! twins are silent.
//!
//! The kernels are the five `.hip` files beside this one. Each says in a `//@` line how it is
//! launched and what must be found, and marks the faulty lines with `//!`.

mod features;
mod notes;
mod program;
mod suite;

use std::path::{Path, PathBuf};
use std::time::Duration;

use attnbench::device::cpu::{CpuConfig, CpuDevice, Variant};
use attnbench::device::finding::{Class, Finding, RaceModel, access};
use attnbench::device::{Arg, Device, Launch, Module, RunError, Source};

/// Elements of each of `out`, `in` and `scratch`.
const ELEMENTS: usize = 1024;
/// The cache: rows, elements from row to row, and how many of each hold a value.
const ROWS: usize = 8;
const STRIDE: usize = 32;
const SEQ_LEN: usize = 5;
const HEAD_DIM: usize = 24;
/// Bytes that nothing may touch around each buffer.
const GUARD: usize = 4096;

fn config() -> CpuConfig {
    CpuConfig { variant: Variant::Checked, ..crate::device::config() }
}

/// A checked device with this machine's own compiler, and one with clang where it is here.
fn devices() -> Vec<CpuDevice> {
    let clang = crate::device::clang();
    if clang.is_none() {
        eprintln!("skipped: there is no clang++ here");
    }
    let with = |compiler| CpuDevice::new(CpuConfig { compiler, ..config() }).expect("a compiler");
    std::iter::once(with(config().compiler)).chain(clang.map(|clang| with(Some(clang)))).collect()
}

/// Where the buffers lie in the arena: `out`, `in`, `kv`, `scratch`.
fn offsets() -> [usize; 4] {
    let sizes = [ELEMENTS, ELEMENTS, ROWS * STRIDE, ELEMENTS].map(|n| 4 * n);
    let mut at = GUARD;
    sizes.map(|bytes| {
        let start = at;
        at += bytes + GUARD;
        start
    })
}

/// Lays the buffers out, with what the kernels may do with them.
fn lay_out(device: &mut CpuDevice) {
    let [out, input, kv, scratch] = offsets();
    let bytes = scratch + 4 * ELEMENTS + GUARD;
    let arena = device.arena(bytes).expect("memory");
    arena.fill(0xff);
    let mut put = |at: usize, i: usize, x: f32| {
        arena[at + 4 * i..][..4].copy_from_slice(&x.to_le_bytes());
    };
    (0..ELEMENTS).for_each(|i| put(input, i, i as f32));
    let rows = || (0..SEQ_LEN).flat_map(|n| (0..HEAD_DIM).map(move |d| (n, d)));
    rows().for_each(|(n, d)| put(kv, n * STRIDE + d, (n * 100 + d) as f32));
    put(scratch, ELEMENTS - 1, 0.0);

    let is_checked = device.is_checked();
    let Some(map) = device.access_map() else {
        assert!(!is_checked, "a checked device has a map");
        return;
    };
    let mut allow = |at: usize, i: usize, bits: u8| map[at + 4 * i..][..4].fill(bits);
    (0..ELEMENTS).for_each(|i| allow(out, i, access::READ | access::WRITE));
    (0..ELEMENTS).for_each(|i| allow(input, i, access::READ | access::INIT));
    rows().for_each(|(n, d)| allow(kv, n * STRIDE + d, access::READ | access::INIT));
    (0..ELEMENTS).for_each(|i| allow(scratch, i, access::READ | access::WRITE));
    allow(scratch, ELEMENTS - 1, access::READ | access::WRITE | access::INIT);
}

/// How a kernel of the suite is launched.
#[derive(Debug, Clone, Copy)]
struct Shape {
    grid: u32,
    block: u32,
    shared: u32,
    n: i32,
}

fn run(
    device: &mut CpuDevice,
    module: &Module,
    entry: usize,
    shape: Shape,
    seed: u64,
    limit: Duration,
) -> (Result<(), RunError>, Vec<Finding>) {
    lay_out(device);
    let [out, input, kv, scratch] = offsets().map(Arg::Address);
    let launch = Launch {
        module: module.clone(),
        entry,
        grid: [shape.grid, 1, 1],
        block: [shape.block, 1, 1],
        shared_bytes: shape.shared,
        args: vec![out, input, kv, scratch, Arg::Bits32(shape.n.cast_unsigned())],
    };
    let result = device.run(&[launch], seed, limit);
    (result, device.findings())
}

fn source(file: &Path, entries: Vec<String>, wave: u32) -> Source {
    Source { file: file.to_owned(), include_dirs: vec![], defines: vec![], entries, wave }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("props/sanitize")
}

/// A finding in a line, for messages.
fn in_a_line(f: &Finding) -> String {
    let other = f.other.as_ref().map(|o| format!(" other t{:?} {}", o.place.thread[0], o.site));
    let place = f.place.map_or([0; 3], |p| p.block);
    format!(
        "{}/{} thread {} of block {} at {}{} {:?} {} x{}",
        f.kind.class(),
        f.kind.name(),
        f.thread,
        place[0],
        f.site,
        other.unwrap_or_default(),
        f.target,
        f.detail,
        f.count
    )
}
