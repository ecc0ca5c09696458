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
pub mod cubin;
mod cuda;
mod driver;
mod hip;
mod library;
pub mod object;
mod protocol;
mod server;
mod worker;

use std::collections::HashSet;
use std::ffi::OsString;
use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use compile::Compiler;
pub use compiler::compiler_main;
pub use protocol::{COMPILER_ARGUMENT, Info, WORKER_ARGUMENT};
pub use worker::worker_main;

use super::memory::{self, Mapping, SharedFile};
use super::{
    CompileError, Device, Fault, Launch, MOST_SIDE_BY_SIDE, Module, RunError, SideBySide, Source,
    Stretch, check,
};
use protocol::{Back, BackOfRun, Binary, Layout, Limits, Reply, Request, WireFault, WireLaunch};
use server::{Outcome, Server};

/// How long anything but a run may take.
const READY: Duration = Duration::from_secs(60);

/// Bytes of a small arena, which every lane has, and of the least large one. Memory that the GPU moves
/// itself is dear to get.
const SMALL_ARENA: usize = 16 << 20;
const LARGE_ARENA: usize = 64 << 20;

/// Lanes with large arenas that there should be, and how long to wait before there are more.
const LARGE_LANES: usize = 6;
const LARGE_PATIENCE: Duration = Duration::from_millis(300);

/// Queues of a worker for many: as many as there are.
const QUEUES: u32 = 32;

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
    /// Lanes made so far, and those that no device uses: their arenas are dear to make.
    lanes: AtomicUsize,
    idle: Mutex<Vec<Lane>>,
    /// Lanes with large arenas: few, which devices borrow.
    large: Mutex<Large>,
    large_is_back: Condvar,
}

/// Lanes with large arenas.
#[derive(Default)]
struct Large {
    idle: Vec<Lane>,
    made: usize,
}

impl Family {
    /// The running worker; a new one where it is gone.
    fn server(&self) -> Result<Arc<Server>, RunError> {
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
    fn borrow_large(&self) -> Lane {
        let large = lock(&self.large);
        let all_in_use = |large: &mut Large| large.idle.is_empty() && large.made >= LARGE_LANES;
        let waited = self.large_is_back.wait_timeout_while(large, LARGE_PATIENCE, all_in_use);
        let (mut large, _) = waited.unwrap_or_else(PoisonError::into_inner);
        large.idle.pop().unwrap_or_else(|| {
            large.made += 1;
            Lane::default()
        })
    }

    fn give_back(&self, lane: Lane) {
        lock(&self.large).idle.push(lane);
        self.large_is_back.notify_one();
    }
}

/// A GPU as a device.
pub struct GpuDevice {
    family: Arc<Family>,
    /// The lane of the last arena that was asked for; where that is a large one, the device's own waits.
    lane: Lane,
    own: Option<Lane>,
    /// Bytes of the arena that the caller asked for last.
    arena_bytes: usize,
    /// Microseconds of GPU time of all runs.
    busy: f64,
    /// What runs side by side left.
    left: Vec<u8>,
    /// The kernel that looks for what a run changed, where it compiles.
    changed: Option<Option<Module>>,
}

/// What a device has of the GPU, and what outlives it.
#[derive(Default)]
struct Lane {
    shared: Option<Shared>,
    link: Option<Link>,
}

struct Shared {
    mapping: Mapping,
    layout: Layout,
    file: SharedFile,
}

/// A lane of a running worker.
struct Link {
    server: Arc<Server>,
    /// Its number there.
    lane: usize,
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
        let server = Server::start(&config, compiler.libraries(), api, ordinal, QUEUES)?;
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
            idle: Mutex::default(),
            large: Mutex::default(),
            large_is_back: Condvar::new(),
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
        let lane = lock(&family.idle).pop().unwrap_or_default();
        GpuDevice {
            family,
            lane,
            own: None,
            arena_bytes: 0,
            busy: 0.0,
            left: Vec::new(),
            changed: None,
        }
    }

    /// Whether the compiler is there, and which: for a list of devices.
    ///
    /// # Errors
    /// [`CompileError::NoCompiler`].
    pub fn compiler(&self) -> Result<&str, CompileError> {
        self.family.compiler.version()
    }

    /// All of the host's side: the arena, what came back, the tables.
    fn whole(&self) -> Option<&[u8]> {
        let shared = self.lane.shared.as_ref()?;
        // SAFETY: the mapping has as many bytes and lives as long as the borrow of `self`; the worker
        // touches it only during a run, which needs `self` mutably.
        Some(unsafe { std::slice::from_raw_parts(shared.mapping.start(), shared.layout.whole()) })
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
    fn ready(&mut self, launches: &[&Launch]) -> Result<&Link, Attempt> {
        let server = self.family.server()?;
        let stale = |link: &Link| !Arc::ptr_eq(&link.server, &server);
        if self.lane.link.as_ref().is_none_or(stale) {
            let lane = self.family.lanes.fetch_add(1, Relaxed);
            let replies = server.open(lane);
            let loaded = HashSet::new();
            self.lane.link = Some(Link { server, lane, replies, mapped: 0, loaded });
        }
        if self.lane.shared.is_none() {
            self.arena(0)?;
        }
        let limits = self.limits();
        let (Some(link), Some(shared)) = (self.lane.link.as_mut(), self.lane.shared.as_ref())
        else {
            return Err(RunError::Device("the arena is gone".to_owned()).into());
        };
        let bytes = shared.layout.bytes;
        if link.mapped != bytes {
            let (process, fd) = (std::process::id(), shared.file.raw());
            match link.ask(Request::Arena { process, fd, bytes }, READY)? {
                Reply::Done => link.mapped = bytes,
                other => return Err(unexpected("mapping the arena", other)),
            }
        }
        let looks = self.changed.iter().flatten();
        for module in launches.iter().map(|launch| &launch.module).chain(looks) {
            if link.loaded.contains(&module.hash) {
                continue;
            }
            let kernels = module.kernels.to_vec();
            let binary =
                Binary { hash: module.hash.to_string(), file: module.file.to_path_buf(), kernels };
            match link.ask(Request::Load(binary), READY)? {
                Reply::Loaded(asked) => {
                    fits(launches, module, &asked, &limits)?;
                    link.loaded.insert(Arc::clone(&module.hash));
                }
                other => return Err(unexpected("loading a kernel", other)),
            }
        }
        Ok(link)
    }

    /// Makes launches on the arena; after a fault once more with no others under way.
    fn run_all(
        &mut self,
        launches: &[&Launch],
        back: Option<&Back>,
        time_limit: Duration,
    ) -> Result<(), RunError> {
        let limits = self.limits();
        let wire = launches.iter().map(|launch| {
            let args = check::args(launch, &limits, self.arena_bytes)?;
            let Launch { entry, grid, block, shared_bytes, .. } = **launch;
            let binary = launch.module.hash.to_string();
            Ok::<_, String>(WireLaunch { binary, entry, grid, block, shared_bytes, args })
        });
        let wire: Vec<WireLaunch> = wire.collect::<Result<_, _>>().map_err(RunError::Refused)?;
        let request = |step| Request::Run {
            bytes: self.arena_bytes,
            launches: wire.clone(),
            back: back.cloned(),
            step,
        };
        let (together, alone) = (request(false), request(true));
        let family = Arc::clone(&self.family);
        if family.caution.load(Relaxed) == 0 {
            let shared = family.traffic.read().unwrap_or_else(PoisonError::into_inner);
            let attempt = self.attempt(launches, together, time_limit);
            drop(shared);
            match attempt {
                Ok(()) => return Ok(()),
                Err(Attempt::Failed(error)) => return Err(error),
                // It may have been another's fault.
                Err(Attempt::Ended(_)) => {}
            }
        }
        let _alone = family.traffic.write().unwrap_or_else(PoisonError::into_inner);
        match self.attempt(launches, alone, time_limit) {
            Ok(()) => {
                let less = |caution: u32| caution.checked_sub(1);
                if family.caution.fetch_update(Relaxed, Relaxed, less) == Ok(1) {
                    // From now on they are together again, on a worker for many.
                    *lock(&family.server) = None;
                }
                Ok(())
            }
            Err(Attempt::Failed(error)) => Err(error),
            Err(Attempt::Ended(fault)) => {
                family.caution.store(CAUTION, Relaxed);
                Err(fault.into())
            }
        }
    }

    /// One attempt at a request.
    fn attempt(
        &mut self,
        launches: &[&Launch],
        request: Request,
        limit: Duration,
    ) -> Result<(), Attempt> {
        let link = self.ready(launches)?;
        let reply = match link.server.ask(link.lane, &link.replies, request, limit) {
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
                    WireFault::Crash(what) => Fault::Crash {
                        what: named(&what, launches),
                        arena_offset: None,
                        place: None,
                    },
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
    fn ask(&self, request: Request, limit: Duration) -> Result<Reply, Attempt> {
        match self.server.ask(self.lane, &self.replies, request, limit) {
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
fn named(what: &str, launches: &[&Launch]) -> String {
    let mut text = what.to_owned();
    for (index, launch) in launches.iter().enumerate().rev() {
        text = text.replace(&format!("launch {index}"), check::name(launch));
    }
    text
}

/// Whether launches of a module ask for no more than its kernels and the GPU allow.
fn fits(
    launches: &[&Launch],
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
        if object::api_of(&source.file).is_some() {
            return object::load(source, self.family.api);
        }
        self.family.compiler.compile(source, &self.family.info.arch)
    }

    fn arena(&mut self, bytes: usize) -> Result<&mut [u8], RunError> {
        let refuse = |e: std::io::Error| {
            RunError::Device(format!("memory: {bytes} bytes for the arena: {e}"))
        };
        let large = bytes > SMALL_ARENA;
        match (large, self.own.take()) {
            (true, None) => {
                let borrowed = self.family.borrow_large();
                self.own = Some(std::mem::replace(&mut self.lane, borrowed));
            }
            (false, Some(own)) => {
                let large = std::mem::replace(&mut self.lane, own);
                self.family.give_back(large);
            }
            (_, own) => self.own = own,
        }
        let least = if large { LARGE_ARENA } else { SMALL_ARENA };
        let have = self.lane.shared.as_ref().map_or(0, |shared| shared.layout.bytes);
        if self.lane.shared.is_none() || bytes > have {
            // Growing is dear: the memory is kept in place for the GPU, which all lanes wait for.
            let grown = bytes.max(2 * have).max(least).next_multiple_of(memory::page_size());
            let layout = Layout { bytes: grown };
            if let Some(free) = memory::available_memory()
                && layout.whole() > free
            {
                let why = format!("the arena needs {} bytes and {free} are free", layout.whole());
                return Err(RunError::Device(format!("memory: {why}")));
            }
            let file = match self.lane.shared.take() {
                Some(old) => old.file,
                None => SharedFile::new().map_err(refuse)?,
            };
            file.grow(layout.whole()).map_err(refuse)?;
            let mapping = file.map_arena(layout.whole()).map_err(refuse)?;
            self.lane.shared = Some(Shared { mapping, layout, file });
        }
        self.arena_bytes = bytes;
        let Some(shared) = self.lane.shared.as_mut() else {
            return Err(RunError::Device("memory: the arena is gone".to_owned()));
        };
        // SAFETY: the layout has at least `bytes` bytes there, and the mapping lives as long as the borrow
        // of `self`; the worker touches it only during a run, which needs `self` again.
        let start = unsafe { shared.mapping.start().add(shared.layout.arena()) };
        // SAFETY: as above.
        Ok(unsafe { std::slice::from_raw_parts_mut(start, bytes) })
    }

    fn side_by_side(&mut self) -> Option<&mut dyn SideBySide> {
        if self.changed.is_none() {
            let info = &self.family.info;
            // Without it each run is made alone, and all of it comes back.
            self.changed = Some(self.family.compiler.changed(&info.arch, info.wave).ok());
        }
        self.changed.as_ref()?.as_ref()?;
        Some(self)
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
        let launches: Vec<&Launch> = launches.iter().collect();
        self.run_all(&launches, None, time_limit)
    }
}

impl SideBySide for GpuDevice {
    fn run(
        &mut self,
        runs: &[Stretch],
        time_limit: Duration,
    ) -> Result<Vec<Option<usize>>, RunError> {
        let changed = self.changed.clone().flatten();
        let Some(changed) = changed.filter(|_| runs.len() <= MOST_SIDE_BY_SIDE) else {
            return Err(RunError::Device("so many runs are not made side by side".to_owned()));
        };
        let pairs = |ranges: &[Range<usize>]| ranges.iter().map(|r| (r.start, r.end)).collect();
        let of_run = |run: &Stretch| BackOfRun {
            bytes: (run.bytes.start, run.bytes.end),
            outputs: pairs(&run.outputs),
            scratch: pairs(&run.scratch),
        };
        let back =
            Back { changed: changed.hash.to_string(), runs: runs.iter().map(of_run).collect() };
        let launches: Vec<&Launch> = runs.iter().flat_map(|run| &run.launches).collect();
        self.run_all(&launches, Some(&back), time_limit)?;

        let mut left = std::mem::take(&mut self.left);
        if left.len() < self.arena_bytes {
            left.resize(self.arena_bytes, 0);
        }
        let gone = || RunError::Device("memory: the arena is gone".to_owned());
        let layout = self.lane.shared.as_ref().ok_or_else(gone)?.layout;
        let whole = self.whole().ok_or_else(gone)?;
        let (places, _) = layout.places(&back.runs).ok_or_else(gone)?;
        let outputs = back.runs.iter().flat_map(|run| &run.outputs);
        for (&(begin, end), place) in outputs.zip(places) {
            left[begin..end].copy_from_slice(&whole[place..place + (end - begin)]);
        }
        let firsts = whole[layout.first()..].chunks_exact(8).take(runs.len());
        let first = |bytes: &[u8]| {
            let first = u64::from_le_bytes(bytes.try_into().unwrap_or([0xff; 8]));
            (first != u64::MAX).then_some(first as usize)
        };
        let firsts = firsts.map(first).collect();
        self.left = left;
        Ok(firsts)
    }

    fn given(&self) -> &[u8] {
        let from = self.lane.shared.as_ref().map_or(0, |shared| shared.layout.arena());
        self.whole().map_or(&[], |whole| &whole[from..from + self.arena_bytes])
    }

    fn left(&self) -> &[u8] {
        &self.left
    }
}

impl Drop for GpuDevice {
    fn drop(&mut self) {
        let mut lane = std::mem::take(&mut self.lane);
        if let Some(own) = self.own.take() {
            self.family.give_back(std::mem::replace(&mut lane, own));
        }
        lock(&self.family.idle).push(lane);
    }
}
