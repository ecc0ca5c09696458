//! What a GPU's device and its worker process say to each other: one line of JSON each way.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

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
        /// Its bytes, whole pages.
        bytes: usize,
    },
    /// Load a binary.
    Load(Binary),
    /// Upload the arena's first bytes, run launches, download.
    Run {
        bytes: usize,
        launches: Vec<WireLaunch>,
        /// Wait after each launch, so that the one at fault is known.
        step: bool,
    },
    /// Run launches many times without moving the arena, and time each by the device's clock.
    Time {
        launches: Vec<WireLaunch>,
        /// Runs before the timed ones.
        warm: u32,
        /// Timed runs.
        runs: u32,
    },
    /// Give back what the lane holds.
    Close,
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
    /// Where the arena lies on the device.
    Arena(u64),
    /// What each kernel of a binary asks for.
    Loaded(Vec<Limits>),
    /// A run ended: microseconds between the launches' begin and end, by the device's clock.
    Ran(f64),
    /// Microseconds of each timed run, and whether they were replays of a graph.
    Timed(Vec<f64>, bool),
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
