//! One GPU, as all of a program's devices on it share it: the worker, who may run when, idle lanes.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock};
use std::time::Duration;

use super::super::{Fault, RunError};
use super::lane::{Attempt, Lane};
use super::protocol::{Info, Reply};
use super::server::Server;
use super::{Api, Compiler, GpuConfig, lock};

/// Lanes with large arenas that there should be, and how long to wait before there are more.
const LARGE_LANES: usize = 6;
const LARGE_PATIENCE: Duration = Duration::from_millis(300);

/// Queues of a worker for many: as many as there are.
const QUEUES: u32 = 32;

/// Runs that are made one at a time after a fault.
const CAUTION: u32 = 16;

/// One GPU, as all of a program's devices on it share it.
pub(super) struct Family {
    pub(super) api: Api,
    pub(super) ordinal: u32,
    config: GpuConfig,
    pub(super) info: Info,
    pub(super) waves: [u32; 1],
    pub(super) compiler: Compiler,
    server: Mutex<Option<Arc<Server>>>,
    /// Held shared by runs that may be under way together, alone by those that may not.
    traffic: RwLock<()>,
    /// Runs still to be made one at a time.
    caution: AtomicU32,
    /// Lanes made so far, and those that no device uses: their arenas are dear to make.
    pub(super) lanes: AtomicUsize,
    pub(super) idle: Mutex<Vec<Lane>>,
    /// Lanes with large arenas: few, which devices borrow.
    large: Mutex<Large>,
    large_is_back: Condvar,
    strike: Mutex<Strike>,
}

/// A fault that took the runs of several lanes with it, and what became of these when they were made
/// again alone.
#[derive(Default)]
struct Strike {
    /// What was said of it first, other than that time was up: many together take longer.
    fault: Option<Fault>,
    /// Runs that it hit, and those of them that are still to be made again.
    hit: usize,
    left: usize,
    /// Whether one of them failed alone.
    explained: bool,
}

impl Strike {
    /// A run was under way when the worker ended.
    fn hits(&mut self, fault: Fault) {
        if !matches!(fault, Fault::Timeout { .. }) {
            self.fault.get_or_insert(fault);
        }
        self.hit += 1;
        self.left += 1;
    }

    /// Such a run was made again. Where it was the last and all have passed, the fault that was nobody's:
    /// it is told of this one, as it must not be lost.
    fn made_again(&mut self, failed: bool) -> Option<Fault> {
        self.left -= 1;
        self.explained |= failed;
        if self.left > 0 {
            return None;
        }
        let strike = std::mem::take(self);
        let say = |what: String| {
            format!(
                "{what}; this was one of {} runs under way, and none of them failed when it was made \
                 again alone: the fault comes and goes",
                strike.hit
            )
        };
        match strike.fault.filter(|_| !strike.explained)? {
            Fault::Crash { what, arena_offset, place } => {
                Some(Fault::Crash { what: say(what), arena_offset, place })
            }
            Fault::Trap { what, place } => Some(Fault::Trap { what: say(what), place }),
            other => Some(other),
        }
    }
}

/// Lanes with large arenas.
#[derive(Default)]
pub(super) struct Large {
    idle: Vec<Lane>,
    made: usize,
}

impl Family {
    /// Opens a visible device.
    ///
    /// # Errors
    /// In words: which library, device or right is missing, and how to mend it.
    pub(super) fn open(config: GpuConfig, api: Api, ordinal: u32) -> Result<Family, String> {
        let compiler = Compiler::new(api, config.clone());
        let server = Server::start(&config, compiler.libraries(), api, ordinal, QUEUES)?;
        let info = server.info().clone();
        let waves = [info.wave];
        Ok(Family {
            api,
            ordinal,
            config,
            info,
            waves,
            compiler,
            server: Mutex::new(Some(Arc::new(server))),
            traffic: RwLock::new(()),
            caution: AtomicU32::new(0),
            lanes: AtomicUsize::new(0),
            idle: Mutex::default(),
            large: Mutex::default(),
            large_is_back: Condvar::new(),
            strike: Mutex::default(),
        })
    }

    /// Makes an attempt; where the worker ended in it, once more with no other under way. `attempt` is
    /// told whether it is alone. Beside the reply, whether the first did not come in time.
    pub(super) fn attempt(
        &self,
        mut attempt: impl FnMut(bool) -> Result<Reply, Attempt>,
    ) -> Result<(Reply, bool), RunError> {
        let (mut struck, mut late) = (false, false);
        if self.caution.load(Relaxed) == 0 {
            let shared = self.traffic.read().unwrap_or_else(PoisonError::into_inner);
            let attempted = attempt(false);
            match attempted {
                Ok(reply) => return Ok((reply, false)),
                Err(Attempt::Failed(error)) => return Err(error),
                // It may have been another's fault.
                Err(Attempt::Ended(fault)) => {
                    late = matches!(fault, Fault::Timeout { .. });
                    lock(&self.strike).hits(fault);
                    struck = true;
                }
                Err(Attempt::Lost(_)) => {}
            }
            drop(shared);
        }
        let _alone = self.traffic.write().unwrap_or_else(PoisonError::into_inner);
        let attempted = attempt(true);
        let is_its_own = matches!(attempted, Err(Attempt::Ended(_)));
        let nobodys = if struck { lock(&self.strike).made_again(is_its_own) } else { None };
        match attempted {
            Ok(reply) => {
                let less = |caution: u32| caution.checked_sub(1);
                if self.caution.fetch_update(Relaxed, Relaxed, less) == Ok(1)
                    && let Some(few) = lock(&self.server).take()
                {
                    // From now on they are together again, on a worker for many.
                    few.end()?;
                }
                nobodys.map_or(Ok((reply, late)), |fault| Err(fault.into()))
            }
            Err(Attempt::Failed(error) | Attempt::Lost(error)) => Err(error),
            Err(Attempt::Ended(fault)) => {
                self.caution.store(CAUTION, Relaxed);
                Err(fault.into())
            }
        }
    }

    /// The running worker; a new one where it is gone.
    pub(super) fn server(&self) -> Result<Arc<Server>, RunError> {
        let mut server = lock(&self.server);
        if let Some(server) = server.as_ref().filter(|server| server.is_alive()) {
            return Ok(Arc::clone(server));
        }
        let libraries = self.compiler.libraries();
        let queues = if self.caution.load(Relaxed) > 0 { 1 } else { QUEUES };
        let new = Server::start(&self.config, libraries, self.api, self.ordinal, queues);
        let new = Arc::new(new.map_err(RunError::Device)?);
        *server = Some(Arc::clone(&new));
        Ok(new)
    }

    /// A lane with a large arena. Where as many as there should be are in use, waits for one, and for
    /// so long only: a device keeps the one that it has until it needs none, which may be never.
    pub(super) fn borrow_large(&self) -> Lane {
        let large = lock(&self.large);
        let all_in_use = |large: &mut Large| large.idle.is_empty() && large.made >= LARGE_LANES;
        let waited = self.large_is_back.wait_timeout_while(large, LARGE_PATIENCE, all_in_use);
        let (mut large, _) = waited.unwrap_or_else(PoisonError::into_inner);
        large.idle.pop().unwrap_or_else(|| {
            large.made += 1;
            Lane::default()
        })
    }

    pub(super) fn give_back(&self, lane: Lane) {
        lock(&self.large).idle.push(lane);
        self.large_is_back.notify_one();
    }
}
