//! A kernel on a shape: its buffers, what fills them, its launches, and reading alone.

use super::data::{fill_entry, given, seed_of};
use crate::data::image::{Poisons, Role};
use crate::data::inputs::Inputs;
use crate::device::{Arg, Device, Launch, Module, Source, Timing};
use crate::judge::trial::{Trial, TrialError};
use crate::problem::{Case, DType, Placements, Pointer, Stage};
use std::ops::Range;
use std::path::PathBuf;

/// The stages that are timed: those that read a cache.
pub(super) const STAGES: [Stage; 3] = [Stage::Decode, Stage::Scores, Stage::Pv];

/// What all sets together have at least, bytes: several times the last-level cache of most GPUs, so that
/// also what is small comes from memory.
const LEAST_BYTES: u64 = 256_000_000;

/// Sets at most: those of the smallest shapes are then launches enough for one replay.
const MOST_SETS: u64 = 512;

/// How the cache is read alone: which unrolling, threads of a block, blocks a multiprocessor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reading {
    unroll: usize,
    threads: u32,
    blocks: u32,
}

const UNROLLS: [u32; 2] = [4, 8];

impl Reading {
    /// What is tried; the fastest is the floor.
    pub(super) fn all() -> Vec<Reading> {
        let mut all = Vec::new();
        for unroll in 0..UNROLLS.len() {
            for (threads, blocks) in
                [(256, 2), (256, 4), (256, 8), (512, 1), (512, 2), (512, 4), (1024, 1), (1024, 2)]
            {
                all.push(Reading { unroll, threads, blocks });
            }
        }
        all
    }
}

/// The kernels beside the one that is timed, compiled for a device.
pub(super) struct Helpers {
    fill: Module,
    fills: Vec<DType>,
    read: Module,
    units: u32,
}

impl Helpers {
    /// Compiles them; `folder` is where the sources lie.
    pub(super) fn compile(
        device: &dyn Device,
        folder: PathBuf,
        wave: u32,
    ) -> Result<Helpers, TrialError> {
        let source = |file: &str, entries: Vec<String>| Source {
            file: folder.join(file),
            include_dirs: Vec::new(),
            defines: Vec::new(),
            entries,
            wave,
        };
        let fills = vec![DType::F32, DType::F16, DType::BF16];
        let entries = fills.iter().map(|dtype| fill_entry(*dtype)).collect();
        let reads = UNROLLS.iter().map(|unroll| format!("read_only<{unroll}>")).collect();
        Ok(Helpers {
            fill: device.compile(&source("bench/fill.hip", entries))?,
            fills,
            read: device.compile(&source("bench/read.hip", reads))?,
            units: device.units(),
        })
    }

    fn fill(&self, buffer: Range<usize>, dtype: DType, seed: u64) -> Launch {
        Launch {
            module: self.fill.clone(),
            entry: self.fills.iter().position(|known| *known == dtype).unwrap_or(0),
            grid: [8 * self.units, 1, 1],
            block: [256, 1, 1],
            shared_bytes: 0,
            args: vec![
                Arg::Address(buffer.start),
                Arg::Bits64((buffer.len() / dtype.size()) as u64),
                Arg::Bits64(seed),
            ],
        }
    }

    /// Reads the first bytes of two buffers, and nothing else.
    pub(super) fn read(&self, how: Reading, buffers: [Range<usize>; 2]) -> Launch {
        let [k, v] = &buffers;
        let pieces = |buffer: &Range<usize>| Arg::Bits64((buffer.len() / 16) as u64);
        Launch {
            module: self.read.clone(),
            entry: how.unroll,
            grid: [how.blocks * self.units, 1, 1],
            block: [how.threads, 1, 1],
            shared_bytes: 0,
            args: vec![
                Arg::Address(k.start),
                pieces(k),
                Arg::Address(v.start),
                pieces(v),
                // Never written.
                Arg::Address(k.start),
            ],
        }
    }

    /// A cache of nothing but two buffers, to see how fast the device reads at all.
    pub(super) fn plain(&self, bytes: usize, seed: u64) -> (Timing, [Range<usize>; 2]) {
        let half = bytes / 2;
        let buffers = [0..half, half..2 * half];
        let fill = buffers.iter().map(|buffer| self.fill(buffer.clone(), DType::F16, seed));
        let timing = Timing {
            bytes,
            sets: 2,
            given: Vec::new(),
            fill: fill.collect(),
            subjects: Vec::new(),
            outputs: Vec::new(),
        };
        (timing, buffers)
    }
}

/// Sets that a cache of so many bytes needs on a device.
pub(super) fn sets(device: &dyn Device, kv_bytes: u64) -> usize {
    match device.cache_bytes() {
        // The host's memory is not what a device without one is limited by.
        0 => 1,
        cache => LEAST_BYTES.max(4 * cache).div_ceil(kv_bytes.max(1)).clamp(2, MOST_SETS) as usize,
    }
}

/// A kernel on a shape.
pub(super) struct Workload {
    pub(super) case: Case,
    pub(super) places: Placements,
    /// What the host gives.
    pub(super) whole: Inputs,
    /// All but the subjects.
    pub(super) timing: Timing,
    /// The outputs that are judged, in the order of [`Timing::outputs`].
    pub(super) outputs: Vec<Pointer>,
    /// A call.
    pub(super) launches: Vec<Launch>,
    /// Bytes of K and V that are attended, each once.
    pub(super) kv_bytes: u64,
    /// As many bytes of the buffers of K and V.
    pub(super) caches: [Range<usize>; 2],
}

impl Workload {
    /// Lays a case out, with its tunables set.
    pub(super) fn new(
        trial: &mut Trial,
        helpers: &Helpers,
        case: &Case,
        seed: u64,
    ) -> Result<Workload, TrialError> {
        let places = case.placements()?;
        let (image, launches) = trial.planned(case)?;
        let manifest = trial.manifest().clone();
        let whole = self::given(case, seed);
        let (mut given, mut fill) = (Vec::new(), Vec::new());
        let (mut outputs, mut ranges) = (Vec::new(), Vec::new());
        for buffer in image.buffers() {
            let range = buffer.range.clone();
            if buffer.role == Role::Zeroed {
                given.push((range.start, vec![0; range.len()]));
            }
            let Some(tensor) = &buffer.tensor else { continue };
            match (tensor.pointer, buffer.role) {
                (pointer @ (Pointer::K | Pointer::V), _) => {
                    fill.push(helpers.fill(range, tensor.dtype, seed_of(seed, pointer)));
                }
                (pointer, Role::Output) => {
                    given.push((range.start, vec![0xff; range.len()]));
                    if manifest.takes(pointer) {
                        outputs.push(pointer);
                        ranges.push(range);
                    }
                }
                _ => {
                    let bytes = image.input(&buffer.name, case, &whole, Poisons::NAN);
                    given.push((range.start, bytes.unwrap_or_default()));
                }
            }
        }
        let keys: usize = (0..case.batch()).map(|s| case.attended(s).len()).sum();
        let rows = keys * case.num_kv_heads * case.dtypes.kv.size();
        let caches = ["k", "v"].map(|name| {
            let dim = if name == "k" { case.head_dim } else { case.head_dim_v };
            match image.buffer(name) {
                Some(buffer) => buffer.range.start..buffer.range.start + rows * dim,
                None => 0..0,
            }
        });
        let kv_bytes = caches.iter().map(|cache| cache.len() as u64).sum();
        let timing = Timing {
            bytes: image.size(),
            sets: sets(trial.device(), kv_bytes),
            given,
            fill,
            subjects: Vec::new(),
            outputs: ranges,
        };
        let case = case.clone();
        Ok(Workload { case, places, whole, timing, outputs, launches, kv_bytes, caches })
    }

    /// How K and V lie, as the shapes' tables say it.
    pub(super) fn layout(&self) -> String {
        layout(&self.case)
    }
}

/// How K and V of a case lie: `NHD`, or `NHD/HND` where they differ.
pub(super) fn layout(case: &Case) -> String {
    let [k, v] = [&case.k, &case.v].map(ToString::to_string);
    match (case.stage.port(Pointer::K).is_some(), case.stage.port(Pointer::V).is_some()) {
        (true, false) => k,
        (false, true) => v,
        _ if k == v => k,
        _ => format!("{k}/{v}"),
    }
}
