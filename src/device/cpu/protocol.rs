//! What the device and its worker process say to each other: one line of JSON each way.

use std::path::PathBuf;

use super::super::wire::Word;
use super::sanitize::wire::{Checks, WireFinding};
use serde::{Deserialize, Serialize};

/// The hidden first argument that makes the program a worker.
pub const WORKER_ARGUMENT: &str = "__cpu-worker";

/// Said by a worker when it is ready. A worker of another build may mean something else by the
/// same words, so the builds' header hashes are compared too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hello {
    pub(super) version: String,
    pub(super) headers: String,
}

impl Hello {
    pub(super) fn ours() -> Hello {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        Hello { version, headers: super::shim::HEADERS.hash.clone() }
    }
}

/// To the worker.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Request {
    /// Map the arena anew: it has grown. Its access map lies in a file of its own, where the runs
    /// are checked.
    Arena {
        /// Its bytes, whole pages.
        bytes: usize,
    },
    /// Load a binary; it is then known by the count of those loaded before it.
    Load(PathBuf),
    /// Run launches.
    Run(Run),
}

/// A run.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Run {
    pub(super) order_seed: u64,
    /// The arena's part that the run may touch, bytes: the rest is of larger runs before it.
    pub(super) arena_bytes: usize,
    /// What shared memory is filled with before each block.
    pub(super) shared_fill: u8,
    pub(super) limit_ms: u64,
    /// The time without progress after which it is ended.
    pub(super) idle_ms: Option<u64>,
    pub(super) launches: Vec<WireLaunch>,
    /// What is checked, where the run is a checked one.
    pub(super) checks: Option<Checks>,
}

/// One launch, checked by the device.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct WireLaunch {
    pub(super) module: usize,
    pub(super) entry: usize,
    pub(super) wave: u32,
    pub(super) grid: [u32; 3],
    pub(super) block: [u32; 3],
    pub(super) shared_bytes: u32,
    pub(super) args: Vec<Word>,
}

/// From the worker.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Reply {
    Done,
    Fault(WireFault),
    /// A checked run: what was found, and the fault that ended it.
    Checked(Vec<WireFinding>, Option<WireFault>),
    /// The worker could not do it.
    Failed(String),
}

/// A fault that the worker survived; the place is in the control page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum WireFault {
    Deadlock(String),
    SharedOverrun(u32),
    Trap(String),
    /// A checked run was ended by what was found.
    Found,
}
