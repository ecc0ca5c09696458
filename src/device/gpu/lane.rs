//! A lane: the host's memory of an arena, and the link to the thread of the worker that serves it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use super::super::memory::{Mapping, SharedFile};
use super::super::{Fault, Launch, RunError, check};
use super::protocol::{Layout, Limits, Reply, Request, WireFault};
use super::server::{Outcome, Server};

/// How long anything but a run may take.
pub(super) const READY: Duration = Duration::from_secs(60);

/// What a device has of the GPU, and what outlives it.
#[derive(Default)]
pub(super) struct Lane {
    pub(super) shared: Option<Shared>,
    pub(super) link: Option<Link>,
}

pub(super) struct Shared {
    pub(super) mapping: Mapping,
    pub(super) layout: Layout,
    pub(super) file: SharedFile,
}

impl Shared {
    /// The arena's first bytes.
    pub(super) fn arena(&mut self, bytes: usize) -> &mut [u8] {
        let bytes = bytes.min(self.layout.bytes);
        // SAFETY: the layout has as many bytes there, and the mapping lives as long as the borrow of
        // `self`; the worker touches it only during a run, which needs the device that has it.
        let start = unsafe { self.mapping.start().add(self.layout.arena()) };
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(start, bytes) }
    }
}

/// A lane of a running worker.
pub(super) struct Link {
    pub(super) server: Arc<Server>,
    /// Its number there.
    pub(super) lane: usize,
    pub(super) replies: Receiver<Reply>,
    /// Bytes of the arena that the worker has mapped.
    pub(super) mapped: usize,
    pub(super) loaded: HashMap<Arc<str>, Vec<Limits>>,
}

impl Link {
    pub(super) fn ask(&self, request: Request, limit: Duration) -> Result<Reply, Attempt> {
        match self.server.ask(self.lane, &self.replies, request, limit) {
            Outcome::Reply(Reply::Fault(WireFault::Crash(what) | WireFault::Trap(what))) => {
                self.server.end()?;
                Err(Attempt::Ended(crash(what)))
            }
            Outcome::Reply(reply) => Ok(reply),
            Outcome::TimedOut => {
                self.server.end_late()?;
                let what = format!("the GPU's worker did not answer within {limit:?}");
                Err(Attempt::Lost(RunError::Device(what)))
            }
            Outcome::Interrupted => Err(RunError::Interrupted.into()),
            Outcome::Gone => Err(self.server.gone()),
        }
    }
}

/// Why an attempt at a run has no result.
pub(super) enum Attempt {
    /// The worker is of no use any more: this run's fault, or another's.
    Ended(Fault),
    /// The worker is of no use any more, for a reason that need not be a kernel's.
    Lost(RunError),
    /// The run alone is concerned.
    Failed(RunError),
}

/// A crash of which only the words are known.
pub(super) fn crash(what: String) -> Fault {
    Fault::Crash { what, arena_offset: None, place: None }
}

impl From<RunError> for Attempt {
    fn from(error: RunError) -> Attempt {
        Attempt::Failed(error)
    }
}

pub(super) fn unexpected(what: &str, reply: Reply) -> Attempt {
    match reply {
        Reply::Failed(why) | Reply::Refused(why) => {
            RunError::Device(format!("{what}: {why}")).into()
        }
        _ => RunError::Device(format!("{what}: an answer that makes no sense")).into(),
    }
}

/// A worker's words with the kernel's name in place of the launch's number.
pub(super) fn named(what: &str, launches: &[&Launch]) -> String {
    let mut text = what.to_owned();
    for (index, launch) in launches.iter().enumerate().rev() {
        text = text.replace(&format!("launch {index}"), check::name(launch));
    }
    text
}

/// Whether a launch asks for no more than its kernel and the GPU allow.
pub(super) fn fits(
    launch: &Launch,
    asked: &[Limits],
    limits: &check::Limits,
) -> Result<(), RunError> {
    let Some(kernel) = asked.get(launch.entry) else { return Ok(()) };
    let (name, threads) = (check::name(launch), launch.block.iter().product::<u32>());
    if threads > kernel.max_threads {
        return Err(RunError::Refused(format!(
            "the launch of {name} has blocks of {threads} threads; the compiled kernel allows {} on \
             this GPU (its registers, or its __launch_bounds__): launch smaller blocks, or raise the \
             bound",
            kernel.max_threads
        )));
    }
    let shared = u64::from(kernel.static_shared) + u64::from(launch.shared_bytes);
    if shared > u64::from(limits.shared_bytes) {
        return Err(RunError::Refused(format!(
            "the launch of {name} needs {shared} bytes of shared memory, {} of them static; a \
             block has {} on this GPU",
            kernel.static_shared, limits.shared_bytes
        )));
    }
    Ok(())
}
