//! GPUs: HIP kernels compiled by the vendor's run-time compiler and run through its driver.
//!
//! Nothing of a vendor's is loaded into this process. One child process, the *worker*, holds the driver
//! and its context (`worker`, behind `server`); a source is compiled by a process of its own
//! (`compiler`, behind `compile`). A kernel that crashes or never ends takes the worker with it, and
//! another is started. Each host thread has a device with a *lane* of the worker: a stream and an arena
//! on the GPU, so that several small cases are under way at once.
//!
//! A fault takes all lanes' runs with it, and does not say whose it was. So the runs that were under way
//! are made again, one at a time, and the one that fails alone is the one. After a fault runs go on one
//! at a time for a while, as a kernel that crashed once will again.
//!
//! What the GPU decides: the order of blocks and threads; the seed of a run changes nothing. Accesses
//! beyond the arena fault where the driver keeps addresses free around it (CUDA), or meet a margin
//! filled with NaN (HIP). Dynamic shared memory that is overrun is not seen.

mod compile;
mod compiler;
mod cuda;
mod driver;
mod hip;
mod library;
mod protocol;
mod server;
mod worker;

use std::collections::HashSet;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use compile::Compiler;
pub use compiler::compiler_main;
pub use protocol::{COMPILER_ARGUMENT, Info, WORKER_ARGUMENT};
pub use worker::worker_main;

use super::memory::{self, Mapping, SharedFile};
use super::{CompileError, Device, Fault, Launch, Module, RunError, Source, check};
use protocol::{Binary, Limits, Reply, Request, WireFault, WireLaunch};
use server::{Outcome, Server};

/// How long anything but a run may take.
const READY: Duration = Duration::from_secs(60);

/// Runs that are made one at a time after a fault.
const CAUTION: u32 = 16;

/// A vendor's interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Api {
    /// AMD's runtime and hiprtc.
    Hip,
    /// NVIDIA's driver and NVRTC.
    Cuda,
}

impl Api {
    /// Both, in the order in which `auto` tries them.
    pub const ALL: [Api; 2] = [Api::Hip, Api::Cuda];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Api::Hip => "hip",
            Api::Cuda => "cuda",
        }
    }

    /// The API of a name.
    pub fn named(name: &str) -> Option<Api> {
        Api::ALL.into_iter().find(|api| api.name() == name)
    }
}

impl fmt::Display for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where a GPU's device finds what it needs.
#[derive(Debug, Clone)]
pub struct GpuConfig {
    /// The program that becomes the worker and the compiler: it must hand [`WORKER_ARGUMENT`] to
    /// [`worker_main`] and [`COMPILER_ARGUMENT`] to [`compiler_main`].
    pub worker_program: PathBuf,
    /// The folder of the compile cache.
    pub cache_dir: PathBuf,
}

impl GpuConfig {
    /// Reads `ATTNBENCH_WORKER` (else this program) and `ATTNBENCH_CACHE`, as the CPU device does.
    pub fn from_env() -> GpuConfig {
        GpuConfig::from_vars(|name| std::env::var_os(name))
    }

    /// As [`GpuConfig::from_env`], from other variables than the process's own.
    pub fn from_vars(variable: impl Fn(&str) -> Option<OsString>) -> GpuConfig {
        let cpu = super::cpu::CpuConfig::from_vars(variable);
        GpuConfig { worker_program: cpu.worker_program, cache_dir: cpu.cache_dir }
    }
}

/// One GPU, as all of a program's devices on it share it.
struct Family {
    api: Api,
    ordinal: u32,
    config: GpuConfig,
    info: Info,
    waves: [u32; 1],
    compiler: Compiler,
    server: Mutex<Option<Arc<Server>>>,
    /// Held shared by runs that may be under way together, alone by those that may not.
    traffic: RwLock<()>,
    /// Runs still to be made one at a time.
    caution: AtomicU32,
    lanes: AtomicUsize,
}

impl Family {
    /// The running worker; a new one where it is gone.
    fn server(&self) -> Result<Arc<Server>, RunError> {
        let mut server = lock(&self.server);
        if let Some(server) = server.as_ref().filter(|server| server.is_alive()) {
            return Ok(Arc::clone(server));
        }
        let libraries = self.compiler.libraries();
        let new = Server::start(&self.config, libraries, self.api, self.ordinal);
        let new = Arc::new(new.map_err(RunError::Device)?);
        *server = Some(Arc::clone(&new));
        Ok(new)
    }
}

/// A GPU as a device.
pub struct GpuDevice {
    family: Arc<Family>,
    lane: usize,
    shared: Option<Shared>,
    /// Bytes of the arena that the caller asked for last.
    arena_bytes: usize,
    link: Option<Link>,
    /// Microseconds of GPU time of all runs.
    busy: f64,
}

struct Shared {
    arena: Mapping,
    file: SharedFile,
}

/// A lane of a running worker.
struct Link {
    server: Arc<Server>,
    replies: Receiver<Reply>,
    /// Bytes of the arena that the worker has mapped.
    mapped: usize,
    loaded: HashSet<Arc<str>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl GpuDevice {
    /// Opens a visible device.
    ///
    /// # Errors
    /// In words: which library, device or right is missing, and how to mend it.
    pub fn open(config: GpuConfig, api: Api, ordinal: u32) -> Result<GpuDevice, String> {
        let compiler = Compiler::new(api, config.clone());
        let server = Server::start(&config, compiler.libraries(), api, ordinal)?;
        let info = server.info().clone();
        let waves = [info.wave];
        let family = Family {
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
        };
        Ok(GpuDevice::with(Arc::new(family)))
    }

    /// Another device on the same GPU, for another host thread.
    pub fn sibling(&self) -> GpuDevice {
        GpuDevice::with(Arc::clone(&self.family))
    }

    /// What the GPU is.
    pub fn info(&self) -> &Info {
        &self.family.info
    }

    fn with(family: Arc<Family>) -> GpuDevice {
        let lane = family.lanes.fetch_add(1, Relaxed);
        GpuDevice { family, lane, shared: None, arena_bytes: 0, link: None, busy: 0.0 }
    }

    /// Whether the compiler is there, and which: for a list of devices.
    ///
    /// # Errors
    /// [`CompileError::NoCompiler`].
    pub fn compiler(&self) -> Result<&str, CompileError> {
        self.family.compiler.version()
    }

    fn limits(&self) -> check::Limits {
        let info = &self.family.info;
        check::Limits {
            threads: info.max_threads,
            block: info.max_block,
            grid: info.max_grid,
            blocks: u64::MAX,
            shared_bytes: info.max_shared,
        }
    }

    /// The lane, on a running worker, with the arena mapped and the modules loaded.
    fn ready(&mut self, launches: &[Launch]) -> Result<&Link, Attempt> {
        let server = self.family.server()?;
        let stale = |link: &Link| !Arc::ptr_eq(&link.server, &server);
        if self.link.as_ref().is_none_or(stale) {
            let replies = server.open(self.lane);
            self.link = Some(Link { server, replies, mapped: 0, loaded: HashSet::new() });
        }
        if self.shared.is_none() {
            self.arena(0)?;
        }
        let (lane, limits) = (self.lane, self.limits());
        let (Some(link), Some(shared)) = (self.link.as_mut(), self.shared.as_ref()) else {
            return Err(RunError::Device("the arena is gone".to_owned()).into());
        };
        let bytes = shared.arena.bytes();
        if link.mapped != bytes {
            let (process, fd) = (std::process::id(), shared.file.raw());
            match link.ask(lane, Request::Arena { process, fd, bytes }, READY)? {
                Reply::Arena(_) => link.mapped = bytes,
                other => return Err(unexpected("mapping the arena", other)),
            }
        }
        for launch in launches {
            let module = &launch.module;
            if link.loaded.contains(&module.hash) {
                continue;
            }
            let kernels = module.kernels.to_vec();
            let binary =
                Binary { hash: module.hash.to_string(), file: module.file.to_path_buf(), kernels };
            match link.ask(lane, Request::Load(binary), READY)? {
                Reply::Loaded(asked) => {
                    fits(launches, module, &asked, &limits)?;
                    link.loaded.insert(Arc::clone(&module.hash));
                }
                other => return Err(unexpected("loading a kernel", other)),
            }
        }
        Ok(link)
    }

    /// One attempt at a run. `alone`: no other run is under way.
    fn attempt(
        &mut self,
        launches: &[Launch],
        wire: &[WireLaunch],
        limit: Duration,
        alone: bool,
    ) -> Result<(), Attempt> {
        let (lane, bytes) = (self.lane, self.arena_bytes);
        let link = self.ready(launches)?;
        let request = Request::Run { bytes, launches: wire.to_vec(), step: alone };
        let reply = match link.server.ask(lane, &link.replies, request, limit) {
            Outcome::Reply(reply) => reply,
            Outcome::TimedOut => {
                link.server.end()?;
                return Err(Attempt::Ended(Fault::Timeout { limit, place: None }));
            }
            Outcome::Gone => {
                let what = link.server.last_words(link.server.end()?);
                return Err(Attempt::Ended(Fault::Crash { what, arena_offset: None, place: None }));
            }
        };
        match reply {
            Reply::Ran(micros) => {
                self.busy += micros;
                Ok(())
            }
            Reply::Fault(fault) => {
                link.server.end()?;
                Err(Attempt::Ended(match fault {
                    WireFault::Crash(what) => {
                        Fault::Crash { what: named(&what, launches), arena_offset: None, place: None }
                    }
                    WireFault::Trap(what) => {
                        Fault::Trap { what: named(&what, launches), place: None }
                    }
                }))
            }
            Reply::Refused(why) => Err(RunError::Refused(named(&why, launches)).into()),
            other => Err(unexpected("running a kernel", other)),
        }
    }
}

impl Link {
    fn ask(&self, lane: usize, request: Request, limit: Duration) -> Result<Reply, Attempt> {
        match self.server.ask(lane, &self.replies, request, limit) {
            Outcome::Reply(reply) => Ok(reply),
            Outcome::TimedOut => {
                self.server.end()?;
                let what = format!("the GPU's worker did not answer within {limit:?}");
                Err(RunError::Device(what).into())
            }
            Outcome::Gone => {
                let what = self.server.last_words(self.server.end()?);
                Err(Attempt::Ended(Fault::Crash { what, arena_offset: None, place: None }))
            }
        }
    }
}

/// Why an attempt at a run has no result.
enum Attempt {
    /// The worker is of no use any more: this run's fault, or another's.
    Ended(Fault),
    /// The run alone is concerned.
    Failed(RunError),
}

impl From<RunError> for Attempt {
    fn from(error: RunError) -> Attempt {
        Attempt::Failed(error)
    }
}

fn unexpected(what: &str, reply: Reply) -> Attempt {
    match reply {
        Reply::Failed(why) | Reply::Refused(why) => {
            RunError::Device(format!("{what}: {why}")).into()
        }
        Reply::Fault(WireFault::Crash(what) | WireFault::Trap(what)) => {
            Attempt::Ended(Fault::Crash { what, arena_offset: None, place: None })
        }
        _ => RunError::Device(format!("{what}: an answer that makes no sense")).into(),
    }
}

/// A worker's words with the kernel's name in place of the launch's number.
fn named(what: &str, launches: &[Launch]) -> String {
    let mut text = what.to_owned();
    for (index, launch) in launches.iter().enumerate().rev() {
        text = text.replace(&format!("launch {index}"), check::name(launch));
    }
    text
}

/// Whether launches of a module ask for no more than its kernels and the GPU allow.
fn fits(
    launches: &[Launch],
    module: &Module,
    asked: &[Limits],
    limits: &check::Limits,
) -> Result<(), RunError> {
    for launch in launches.iter().filter(|launch| launch.module.hash == module.hash) {
        let Some(kernel) = asked.get(launch.entry) else { continue };
        let (name, threads) = (check::name(launch), launch.block.iter().product::<u32>());
        if threads > kernel.max_threads {
            return Err(RunError::Refused(format!(
                "the launch of {name} has blocks of {threads} threads; the compiled kernel allows {} \
                 on this GPU (its registers, or its __launch_bounds__)",
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
    }
    Ok(())
}

impl Device for GpuDevice {
    fn describe(&self) -> String {
        let Info { api, ordinal, name, arch, driver, .. } = &self.family.info;
        let compiler = self.family.compiler.version().unwrap_or("no compiler");
        format!("{api}:{ordinal} ({name}, {arch}, {driver}, {compiler})")
    }

    fn waves(&self) -> &[u32] {
        &self.family.waves
    }

    fn compile(&self, source: &Source) -> Result<Module, CompileError> {
        self.family.compiler.compile(source, &self.family.info.arch)
    }

    fn arena(&mut self, bytes: usize) -> Result<&mut [u8], RunError> {
        let refuse = |e: std::io::Error| {
            RunError::Device(format!("memory: {bytes} bytes for the arena: {e}"))
        };
        let have = self.shared.as_ref().map_or(0, |shared| shared.arena.bytes());
        if self.shared.is_none() || bytes > have {
            let file = match self.shared.take() {
                Some(old) => old.file,
                None => SharedFile::new().map_err(refuse)?,
            };
            let grown = bytes.max(have + have / 2).next_multiple_of(memory::page_size());
            file.grow(grown).map_err(refuse)?;
            let arena = file.map_arena(grown).map_err(refuse)?;
            self.shared = Some(Shared { arena, file });
        }
        self.arena_bytes = bytes;
        let Some(shared) = self.shared.as_mut() else {
            return Err(RunError::Device("memory: the arena is gone".to_owned()));
        };
        // SAFETY: the mapping has at least `bytes` bytes and lives as long as the borrow of `self`; the
        // worker touches it only during `run`, which needs `self` again.
        Ok(unsafe { std::slice::from_raw_parts_mut(shared.arena.start(), bytes) })
    }

    fn runs_together(&self) -> bool {
        true
    }

    fn busy(&self) -> Option<Duration> {
        Some(Duration::from_secs_f64(self.busy / 1e6))
    }

    fn run(
        &mut self,
        launches: &[Launch],
        _order_seed: u64,
        time_limit: Duration,
    ) -> Result<(), RunError> {
        let limits = self.limits();
        let mut wire = Vec::with_capacity(launches.len());
        for launch in launches {
            let args =
                check::args(launch, &limits, self.arena_bytes).map_err(RunError::Refused)?;
            let Launch { entry, grid, block, shared_bytes, .. } = *launch;
            let binary = launch.module.hash.to_string();
            wire.push(WireLaunch { binary, entry, grid, block, shared_bytes, args });
        }
        let family = Arc::clone(&self.family);
        if family.caution.load(Relaxed) == 0 {
            let together = family.traffic.read().unwrap_or_else(PoisonError::into_inner);
            let attempt = self.attempt(launches, &wire, time_limit, false);
            drop(together);
            match attempt {
                Ok(()) => return Ok(()),
                Err(Attempt::Failed(error)) => return Err(error),
                // It may have been another's fault.
                Err(Attempt::Ended(_)) => {}
            }
        }
        let _alone = family.traffic.write().unwrap_or_else(PoisonError::into_inner);
        match self.attempt(launches, &wire, time_limit, true) {
            Ok(()) => {
                let less = |caution: u32| caution.checked_sub(1);
                let _ = family.caution.fetch_update(Relaxed, Relaxed, less);
                Ok(())
            }
            Err(Attempt::Failed(error)) => Err(error),
            Err(Attempt::Ended(fault)) => {
                family.caution.store(CAUTION, Relaxed);
                Err(fault.into())
            }
        }
    }
}

impl Drop for GpuDevice {
    fn drop(&mut self) {
        if let Some(link) = self.link.take() {
            link.server.close(self.lane);
        }
    }
}
