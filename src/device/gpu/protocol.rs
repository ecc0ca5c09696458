//! What a GPU's device and its worker process say to each other: one line of JSON each way.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::super::timing::Telemetry;
use super::super::wire::Word;
use super::Api;

/// The hidden first argument that makes the program a GPU's worker.
pub const WORKER_ARGUMENT: &str = "__gpu-worker";

/// The hidden first argument that makes the program compile one source for a GPU.
pub const COMPILER_ARGUMENT: &str = "__gpu-compiler";

/// What a GPU is, as its driver says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Info {
    /// Which driver it is reached by.
    pub api: Api,
    /// Its number among the visible ones.
    pub ordinal: u32,
    /// How many are visible.
    pub count: u32,
    /// The vendor's name for it.
    pub name: String,
    /// What to compile for: `sm_90`, `gfx942:sramecc+:xnack-`.
    pub arch: String,
    /// Lanes of a wave.
    pub wave: u32,
    /// The driver, with its version.
    pub driver: String,
    /// The most threads of a block.
    pub max_threads: u32,
    /// The most threads of a block along each axis.
    pub max_block: [u32; 3],
    /// The most blocks of a grid along each axis.
    pub max_grid: [u32; 3],
    /// The most shared memory of a block, bytes.
    pub max_shared: u32,
    /// Multiprocessors, or compute units.
    pub multiprocessors: u32,
    /// The last-level cache, bytes.
    pub l2_bytes: u64,
    /// Memory, bytes.
    pub memory: u64,
    /// Where it is on the bus: `0000:1b:00.0`.
    pub pci: String,
}

/// The worker's first words: what it works on, or why it cannot.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Hello {
    pub(super) version: String,
    pub(super) device: Result<Info, String>,
}

/// To the worker, for one of its lanes: each has a stream and an arena of its own.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Message {
    pub(super) lane: usize,
    pub(super) request: Request,
}

/// What a lane is asked.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Request {
    /// Map the host's arena anew: it has grown.
    Arena {
        /// The process that has it, and the descriptor of its file there.
        process: u32,
        fd: i32,
        /// Its bytes, whole pages; the file has more ([`Layout`]).
        bytes: usize,
    },
    /// Load a binary.
    Load(Binary),
    /// Upload the arena's first bytes, run launches, and bring back what is wanted.
    Run {
        bytes: usize,
        launches: Vec<WireLaunch>,
        /// What comes back; `None`: all of it, to where it came from.
        back: Option<Back>,
        /// Wait after each launch, so that the one at fault is known.
        step: bool,
    },
    /// Time launches on sets of buffers.
    Time(WireTiming),
}

/// A [`Timing`](super::super::Timing). What the host gives lies in its arena, and what comes back goes
/// there.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct WireTiming {
    pub(super) bytes: usize,
    pub(super) sets: usize,
    /// Byte of a set, byte of the arena, number.
    pub(super) given: Vec<[usize; 3]>,
    pub(super) fill: Vec<WireLaunch>,
    pub(super) subjects: Vec<WireSubject>,
    /// Begin and end in a set.
    pub(super) outputs: Vec<(usize, usize)>,
    /// Byte of the arena from which on the outputs of each subject's first and last set go.
    pub(super) back: usize,
}

/// A [`Subject`](super::super::Subject).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct WireSubject {
    pub(super) launches: Vec<WireLaunch>,
    pub(super) calls: u32,
    pub(super) warm: u32,
    pub(super) replays: u32,
    pub(super) observed: bool,
}

/// A [`Timed`](super::super::Timed), but for the outputs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct WireTimed {
    pub(super) micros: Vec<f64>,
    pub(super) captured: bool,
    pub(super) observed: Option<Telemetry>,
}

/// A loadable binary.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Binary {
    /// The hash under which launches name it.
    pub(super) hash: String,
    pub(super) file: PathBuf,
    /// The kernels' names in it.
    pub(super) kernels: Vec<String>,
}

/// What comes back of runs side by side: their outputs, put together, and of each the first byte that
/// it changed besides.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Back {
    /// Hash of the binary with the kernels for that.
    pub(super) beside: String,
    pub(super) runs: Vec<BackOfRun>,
    /// Bytes of the arena that are not uploaded, but made on the GPU.
    pub(super) made: Vec<Made>,
}

/// An [`Exchange`](super::super::Exchange): where from, where to, bytes, bytes of an element, the element.
pub(super) type Made = [u64; 5];

/// Of one run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct BackOfRun {
    /// The stretch of the arena that it uses, bytes: begin and end.
    pub(super) bytes: (usize, usize),
    /// Bytes of the arena that come back.
    pub(super) outputs: Vec<(usize, usize)>,
    /// Bytes of the arena that may change and do not come back.
    pub(super) scratch: Vec<(usize, usize)>,
}

/// How a lane's memory lies, alike on the host and on the device: room for what comes back, whose end
/// is used; the first changed byte of each run; the runs' tables; the arena.
///
/// What goes up is one stretch, and what comes down is one: each call of a driver's takes its time, and
/// the lanes take turns at it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    /// Bytes of the arena, whole pages.
    pub(super) bytes: usize,
}

const _: () = assert!(5 * Layout::MADE <= Layout::TABLE_WORDS);

impl Layout {
    /// Runs of a request at most.
    pub(super) const RUNS: usize = super::super::MOST_SIDE_BY_SIDE;
    /// Words of 8 bytes of a run's table, and ranges that have room in it.
    pub(super) const TABLE_WORDS: usize = 512;
    pub(super) const RANGES: usize = (Self::TABLE_WORDS - 4) / 3;
    /// What can be made, at most.
    pub(super) const MADE: usize = super::super::MOST_EXCHANGES;
    /// Bytes of the first changed bytes, and with all tables.
    const FIRST_BYTES: usize = 8 * Self::RUNS;
    const HEAD_BYTES: usize = (Self::FIRST_BYTES + 8 * Self::TABLE_WORDS * (Self::RUNS + 1))
        .next_multiple_of(super::super::ARENA_ALIGN);

    /// Bytes of the whole.
    pub(super) fn whole(self) -> usize {
        2 * self.bytes + Self::HEAD_BYTES
    }

    /// Where the first changed bytes lie; what comes back ends here.
    pub(super) fn first(self) -> usize {
        self.bytes
    }

    /// Where the tables begin.
    pub(super) fn tables(self) -> usize {
        self.bytes + Self::FIRST_BYTES
    }

    /// Where the table of what is made on the GPU begins.
    pub(super) fn made(self) -> usize {
        self.tables() + 8 * Self::TABLE_WORDS * Self::RUNS
    }

    /// Where the arena begins.
    pub(super) fn arena(self) -> usize {
        self.bytes + Self::HEAD_BYTES
    }

    /// Bytes of what comes down, without the outputs.
    pub(super) const FIRSTS: usize = Self::FIRST_BYTES;

    /// Where each output comes back, in order, and the least of these places. `None` where they are more
    /// than the arena.
    pub(super) fn places(self, runs: &[BackOfRun]) -> Option<(Vec<usize>, usize)> {
        let lengths = runs.iter().flat_map(|run| &run.outputs).map(|&(begin, end)| end - begin);
        let total: usize = lengths.clone().sum();
        let start = self.bytes.checked_sub(total)?;
        let places = lengths.scan(start, |at, length| {
            *at += length;
            Some(*at - length)
        });
        Some((places.collect(), start))
    }
}

/// One launch.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct WireLaunch {
    /// Hash of its binary.
    pub(super) binary: String,
    pub(super) entry: usize,
    pub(super) grid: [u32; 3],
    pub(super) block: [u32; 3],
    pub(super) shared_bytes: u32,
    pub(super) args: Vec<Word>,
}

/// From the worker.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Answer {
    pub(super) lane: usize,
    pub(super) reply: Reply,
}

/// What a lane answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Reply {
    Done,
    /// What each kernel of a binary asks for.
    Loaded(Vec<Limits>),
    /// The runs ended: microseconds between the begin and the end of launches, by the device's clock,
    /// added up. What else was changed comes back, too.
    Ran(f64),
    /// What was found of each subject.
    Timed(Vec<WireTimed>),
    /// The kernel's fault; the worker is of no use any more.
    Fault(WireFault),
    /// The launch cannot be made.
    Refused(String),
    /// The worker could not do it.
    Failed(String),
}

/// What a loaded kernel asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Limits {
    /// The most threads of a block.
    pub(super) max_threads: u32,
    /// Static shared memory, bytes.
    pub(super) static_shared: u32,
}

/// A fault of the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum WireFault {
    Crash(String),
    Trap(String),
}
