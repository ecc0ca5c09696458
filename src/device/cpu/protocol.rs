//! What the device and its worker process say to each other: one line of JSON each way.

use std::io::{self, BufRead, Write};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::sanitize::wire::{Checks, WireFinding};
use serde::de::DeserializeOwned;
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
        Hello { version, headers: super::shim::HASH.clone() }
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
    pub(super) limit_ms: u64,
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

/// An argument.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) enum Word {
    /// Bytes from the arena's start.
    Offset(usize),
    /// The value's bits.
    Bits(u64),
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

/// Writes one line.
pub(super) fn send(to: &mut impl Write, message: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(message).map_err(io::Error::other)?;
    line.push(b'\n');
    to.write_all(&line)
}

/// Reads one line; `None` at the end.
pub(super) fn receive<T: DeserializeOwned>(from: &mut impl BufRead) -> io::Result<Option<T>> {
    let mut line = Vec::new();
    if from.read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    serde_json::from_slice(&line).map(Some).map_err(io::Error::other)
}

/// How long to look for a message before sleeping: on an idle machine waking up takes as long as a
/// small kernel. Whoever else wants the processor gets it meanwhile.
const SPIN: Duration = Duration::from_micros(60);

/// Waits until there is something to read, or the pipe is closed; false after `limit`.
pub(super) fn readable(pipe: BorrowedFd<'_>, limit: Duration) -> io::Result<bool> {
    let start = Instant::now();
    loop {
        let elapsed = start.elapsed();
        let left_ms = match elapsed < SPIN.min(limit) {
            true => 0,
            false => limit.saturating_sub(elapsed).as_micros().div_ceil(1000),
        };
        let timeout = i32::try_from(left_ms).unwrap_or(i32::MAX);
        let mut poll = libc::pollfd { fd: pipe.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one valid pollfd.
        match unsafe { libc::poll(&raw mut poll, 1, timeout) } {
            0 if elapsed >= limit => return Ok(false),
            // SAFETY: touches no memory.
            0 => _ = unsafe { libc::sched_yield() },
            n if n > 0 => return Ok(true),
            _ => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
}
