//! The CPU device: HIP kernels compiled by the system's C++ compiler, run as coroutines.
//!
//! A source becomes a shared object (`compile`) that is kept by the hash of all it depends on.
//! Each device has one child process, the *worker*, that loads these and runs a block's threads as
//! coroutines on one OS thread (`sched`): a kernel may crash, hang or write wild, and costs its
//! worker only. The arena is memory that both processes map. Parallelism is one device a host
//! thread; the cache is shared.
//!
//! What of a GPU is kept: blocks and waves of 32 or 64 lanes, barriers, shuffles and votes, static
//! and dynamic shared memory (poisoned before each block), seeded orders of blocks and threads. What
//! is not: blocks never run at the same time, and lanes of a wave do not advance in lockstep between
//! the operations that join them, unless they are told to (`Lanes::Lockstep`): then every access of
//! memory that lanes share is a step, which all lanes at one place of the program make before any of them
//! goes on.
//!
//! The checked variant is compiled with the compiler's instrumentation, and `sanitize` follows every
//! access; the debug variant is compiled as written and runs in the device's own process.

mod bounds;
mod call;
mod child;
mod compile;
mod control;
mod description;
mod elf;
mod fiber;
mod module;
mod order;
mod protocol;
mod redzone;
mod sanitize;
mod sched;
mod shim;
mod signals;
mod toolchain;
mod wave;
mod worker;

use std::collections::HashMap;
use std::env;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

pub use protocol::WORKER_ARGUMENT;
pub use worker::worker_main;

use super::check;
use super::finding::{Class, Finding, RaceModel};
use super::memory::{self, Mapping, SharedFile};
use super::wire::Word;
use super::{CompileError, Device, Fault, Lanes, Launch, Module, Place, RunError, Source};
use child::{Outcome, Patience, Worker, lenient};
use control::Overwritten;
use protocol::{Reply, Request, Run, WireFault, WireLaunch};
use sanitize::resolve::Resolver;
use sanitize::wire::Checks;
use toolchain::Toolchain;

/// How kernels are built for this device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Variant {
    /// Optimised, unchecked.
    Fast,
    /// Optimised, every access told to the checker.
    Checked,
    /// As written, for a debugger, and run in this very process.
    Debug,
}

/// Where the device finds what it needs.
#[derive(Debug, Clone)]
pub struct CpuConfig {
    /// The program that becomes the worker: it must hand [`WORKER_ARGUMENT`] to [`worker_main`].
    pub worker_program: PathBuf,
    /// The C++ compiler; `None` tries `c++`, `g++` and `clang++`.
    pub compiler: Option<PathBuf>,
    /// The folder of the compile cache.
    pub cache_dir: PathBuf,
    /// How kernels are built.
    pub variant: Variant,
    /// What [`Variant::Checked`] looks for.
    pub classes: Vec<Class>,
    /// What orders the lanes of a wave, for [`Variant::Checked`].
    pub race_model: RaceModel,
    /// How the lanes of a wave advance. In lockstep kernels are built as for the checker, so that each
    /// access is seen, and the race model is that of lockstep.
    pub lanes: Lanes,
}

impl CpuConfig {
    /// Whether kernels are built so that each of their accesses is told.
    fn is_instrumented(&self) -> bool {
        match self.variant {
            Variant::Fast => self.lanes == Lanes::Lockstep,
            Variant::Checked => true,
            Variant::Debug => false,
        }
    }

    /// Reads `ATTNBENCH_WORKER` (else this program), `ATTNBENCH_CXX` or `CXX`, `ATTNBENCH_CACHE`.
    pub fn from_env() -> CpuConfig {
        CpuConfig::from_vars(|name| env::var_os(name))
    }

    /// As [`CpuConfig::from_env`], from other variables than the process's own.
    pub fn from_vars(variable: impl Fn(&str) -> Option<OsString>) -> CpuConfig {
        let worker = variable("ATTNBENCH_WORKER").filter(|path| !path.is_empty());
        let worker_program = worker.map(PathBuf::from).or_else(|| env::current_exe().ok());
        CpuConfig {
            worker_program: worker_program.unwrap_or_else(|| PathBuf::from("attnbench")),
            compiler: toolchain::chosen(&variable),
            cache_dir: toolchain::cache_dir(&variable),
            variant: Variant::Fast,
            classes: Class::ALL.to_vec(),
            race_model: RaceModel::Sync,
            lanes: Lanes::Independent,
        }
    }
}

/// What can be launched here.
const LIMITS: check::Limits = check::Limits {
    threads: sched::MAX_THREADS as u32,
    block: [sched::MAX_THREADS as u32; 3],
    grid: [u32::MAX; 3],
    blocks: 1 << 40,
    shared_bytes: compile::DYNAMIC_CAPACITY as u32,
};

/// The CPU as a device.
pub struct CpuDevice {
    config: Arc<CpuConfig>,
    toolchain: Arc<Toolchain>,
    shared: Option<Shared>,
    /// Bytes of the arena that the caller asked for last.
    arena_bytes: usize,
    /// The time without progress after which a run is ended.
    idle: Option<Duration>,
    /// What shared memory is filled with.
    shared_fill: u8,
    worker: Option<Host>,
    resolver: Resolver,
    findings: Vec<Finding>,
}

struct Shared {
    arena: Mapping,
    control: Mapping,
    file: SharedFile,
    /// The access map and its file, where runs are checked.
    map: Option<(Mapping, SharedFile)>,
}

impl Shared {
    /// Fills what follows an arena of so many bytes in its last page, which is all that a kernel can
    /// reach there.
    fn end_page(&self, bytes: usize) {
        let end = bytes.next_multiple_of(memory::page_size()).min(self.arena.bytes());
        let rest = end.saturating_sub(bytes);
        // SAFETY: inside the mapping, and nobody else has it: no run is under way, and the caller's
        // bytes end before it.
        unsafe { self.arena.start().add(bytes.min(end)).write_bytes(BEYOND, rest) };
    }
}

/// What lies between an arena's end and that of its page: NaN in every float format.
const BEYOND: u8 = 0xff;

/// What runs the kernels.
enum Host {
    Child(Worker),
    /// In this process, for a debugger: a kernel that crashes ends it.
    Here(Box<worker::Worker>, Hosted),
}

/// What a worker in this process has been given.
#[derive(Default)]
struct Hosted {
    arena_bytes: usize,
    modules: HashMap<Arc<str>, usize>,
}

impl Host {
    fn map_arena(&mut self, bytes: usize) -> Result<(), RunError> {
        match self {
            Host::Child(worker) => worker.map_arena(bytes),
            Host::Here(_, hosted) if hosted.arena_bytes == bytes => Ok(()),
            Host::Here(worker, hosted) => {
                hosted.arena_bytes = bytes;
                here(worker.answer(Request::Arena { bytes }))
            }
        }
    }

    fn module(&mut self, module: &Module) -> Result<usize, RunError> {
        match self {
            Host::Child(worker) => worker.module(&module.hash, &module.file),
            Host::Here(worker, hosted) => {
                if let Some(&number) = hosted.modules.get(&module.hash) {
                    return Ok(number);
                }
                here(worker.answer(Request::Load(module.file.to_path_buf())))?;
                let number = hosted.modules.len();
                hosted.modules.insert(module.hash.clone(), number);
                Ok(number)
            }
        }
    }

    fn ask(&mut self, request: Request, patience: &Patience<'_>) -> Result<Outcome, RunError> {
        match self {
            Host::Child(worker) => worker.ask(&request, patience).map_err(child::broken),
            Host::Here(worker, _) => Ok(Outcome::Reply(worker.answer(request))),
        }
    }
}

/// An answer within this process to a request that has no result.
fn here(reply: Reply) -> Result<(), RunError> {
    match reply {
        Reply::Failed(why) => Err(RunError::Device(why)),
        _ => Ok(()),
    }
}

impl CpuDevice {
    /// Finds the compiler. The worker starts with the first run.
    ///
    /// # Errors
    /// [`CompileError::NoCompiler`], with what to install.
    pub fn new(config: CpuConfig) -> Result<CpuDevice, CompileError> {
        let toolchain = Arc::new(Toolchain::find(config.compiler.as_deref())?);
        Ok(CpuDevice::with(Arc::new(config), toolchain))
    }

    /// Another device of the same kind, with a worker of its own, for another host thread.
    pub fn sibling(&self) -> CpuDevice {
        CpuDevice::with(self.config.clone(), self.toolchain.clone())
    }

    /// Another device of the same kind, whose lanes advance in this way.
    pub fn with_lanes(&self, lanes: Lanes) -> CpuDevice {
        let config = CpuConfig { lanes, ..(*self.config).clone() };
        CpuDevice::with(Arc::new(config), self.toolchain.clone())
    }

    fn with(config: Arc<CpuConfig>, toolchain: Arc<Toolchain>) -> CpuDevice {
        CpuDevice {
            config,
            toolchain,
            shared: None,
            arena_bytes: 0,
            idle: None,
            shared_fill: module::POISON,
            worker: None,
            resolver: Resolver::default(),
            findings: Vec::new(),
        }
    }

    /// The shared memory, made on first use, and the running worker with the whole arena mapped.
    fn ready(&mut self) -> Result<(&Shared, &mut Host), RunError> {
        if self.shared.is_none() {
            self.arena(0)?;
        }
        let shared = self.shared.as_ref().ok_or_else(|| no_memory("the arena is gone"))?;
        if self.worker.is_none() {
            shared.control.control().running.store(0, Relaxed);
            shared.control.control().signal.store(0, Relaxed);
            shared.control.control().overwritten.store(0, Relaxed);
            shared.control.control().panicked.store(0, Relaxed);
            let map = shared.map.as_ref().map(|(_, file)| file);
            self.worker = Some(match self.config.variant {
                Variant::Debug => {
                    let file = shared.file.again().map_err(child::broken)?;
                    let worker = worker::Worker::new(file, None).map_err(child::broken)?;
                    Host::Here(Box::new(worker), Hosted::default())
                }
                _ => {
                    let files: Vec<&SharedFile> =
                        std::iter::once(&shared.file).chain(map).collect();
                    Host::Child(Worker::start(&self.config.worker_program, &files)?)
                }
            });
        }
        let worker = self.worker.as_mut().ok_or_else(|| no_memory("the worker is gone"))?;
        worker.map_arena(shared.arena.bytes())?;
        Ok((shared, worker))
    }

    /// Memory for an arena of so many bytes.
    fn room(&mut self, bytes: usize) -> Result<&mut [u8], RunError> {
        let have = self.shared.as_ref().map_or(0, |shared| shared.arena.bytes());
        if self.shared.is_none() || bytes > have {
            let with_map = self.config.is_instrumented();
            self.shared = Some(enlarge(self.shared.take(), bytes.max(have + have / 2), with_map)?);
        }
        self.arena_bytes = bytes;
        let shared = self.shared.as_mut().ok_or_else(|| no_memory("the arena is gone"))?;
        // SAFETY: the mapping has at least `bytes` bytes and lives as long as the borrow of `self`;
        // the worker touches it only during `run`, which needs `self` again.
        Ok(unsafe { std::slice::from_raw_parts_mut(shared.arena.start(), bytes) })
    }

    fn try_run(
        &mut self,
        launches: &[Launch],
        order_seed: u64,
        limit: Duration,
    ) -> Result<(), RunError> {
        let (arena_bytes, idle, shared_fill) = (self.arena_bytes, self.idle, self.shared_fill);
        // Refuse before a process is started or a module loaded.
        let checked_args = |launch| check::args(launch, &LIMITS, arena_bytes);
        let args: Vec<Vec<Word>> = launches
            .iter()
            .map(checked_args)
            .collect::<Result<_, _>>()
            .map_err(RunError::Refused)?;
        self.findings.clear();
        let checked = self.config.variant == Variant::Checked;
        let classes = if checked { &self.config.classes[..] } else { &[] };
        let model = match self.config.lanes {
            Lanes::Lockstep => RaceModel::Lockstep,
            Lanes::Independent => self.config.race_model,
        };
        let checks = self.config.is_instrumented().then(|| Checks::new(classes, model));
        let (shared, worker) = self.ready()?;
        let mut wire = Vec::with_capacity(launches.len());
        for (launch, args) in launches.iter().zip(args) {
            let module = worker.module(&launch.module)?;
            let Launch { entry, grid, block, shared_bytes, .. } = *launch;
            let wave = launch.module.wave;
            wire.push(WireLaunch { module, entry, wave, grid, block, shared_bytes, args });
        }
        shared.end_page(arena_bytes);
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let (limit_ms, idle_ms) = (ms(limit), idle.map(ms));
        let request = Request::Run(Run {
            order_seed,
            arena_bytes,
            shared_fill,
            limit_ms,
            idle_ms,
            launches: wire,
            checks,
        });
        // A checked run's own timer looks at its progress, and tells where it stood.
        let patience = match checks.is_some_and(Checks::any) {
            true => Patience::until(lenient(limit)),
            false => {
                let turns = &shared.control.control().turns;
                Patience { limit, idle: idle.map(|idle| (idle, turns)) }
            }
        };
        let outcome = worker.ask(request, &patience)?;
        let place = place(shared, launches);
        let outcome = match outcome {
            Outcome::Reply(Reply::Checked(found, fault)) => {
                let headers = self.config.cache_dir.join(shim::HEADERS.folder());
                let headers = std::path::absolute(&headers).unwrap_or(headers);
                let resolver = &mut self.resolver;
                let found = found.into_iter();
                self.findings =
                    found.filter_map(|f| resolver.resolve(f, launches, &headers)).collect();
                Outcome::Reply(fault.map_or(Reply::Done, Reply::Fault))
            }
            other => other,
        };
        let shared = self.shared.as_ref().ok_or_else(|| no_memory("the arena is gone"))?;
        match outcome {
            Outcome::Reply(Reply::Done) => Ok(()),
            Outcome::Reply(Reply::Failed(why)) => Err(RunError::Device(why)),
            Outcome::Reply(Reply::Checked(..)) => unreachable!("taken apart above"),
            Outcome::Reply(Reply::Fault(fault)) => Err(match fault {
                WireFault::Deadlock(what) => Fault::Deadlock { what, place },
                WireFault::SharedOverrun(bytes) => Fault::SharedOverrun { bytes, place },
                WireFault::Trap(what) => Fault::Trap { what, place },
                WireFault::Found => Fault::Found,
            }
            .into()),
            Outcome::TimedOut(limit) => Err(Fault::Timeout { limit, place }.into()),
            Outcome::Interrupted => Err(RunError::Interrupted),
            Outcome::Died(status) => Err(crash(shared, arena_bytes, status, place).into()),
        }
    }
}

impl Device for CpuDevice {
    fn describe(&self) -> String {
        format!("cpu ({}, {})", self.toolchain.name(), env::consts::ARCH)
    }

    fn waves(&self) -> &[u32] {
        &[32, 64]
    }

    fn units(&self) -> u32 {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        u32::try_from(cores).unwrap_or(u32::MAX)
    }

    fn compile(&self, source: &Source) -> Result<Module, CompileError> {
        if super::gpu::object::api_of(&source.file).is_some() {
            let why = "a compiled kernel runs on a GPU only; use --device hip or cuda".to_owned();
            return Err(CompileError::rejected(&source.file, why));
        }
        let setting = compile::Setting {
            toolchain: &self.toolchain,
            cache_dir: &self.config.cache_dir,
            variant: self.config.variant,
            instrumented: self.config.is_instrumented(),
        };
        compile::compile(&setting, source)
    }

    fn arena(&mut self, bytes: usize) -> Result<&mut [u8], RunError> {
        let have = self.shared.as_ref().map_or(0, |shared| shared.arena.bytes());
        if bytes > have
            && let Some(free) = memory::available_memory()
            && bytes > free
        {
            return Err(no_memory(&format!("the arena needs {bytes} bytes and {free} are free")));
        }
        self.room(bytes)
    }

    fn sparse_arena(&mut self, bytes: usize) -> Result<&mut [u8], RunError> {
        self.room(bytes)?;
        let file = self.shared.as_ref().map(|shared| &shared.file);
        let clear = file.map_or(Ok(()), |file| file.clear(bytes));
        clear.map_err(|e| no_memory(&format!("clearing a sparse arena: {e}")))?;
        self.room(bytes)
    }

    fn slowdown(&self) -> u32 {
        if self.config.is_instrumented() { SLOWDOWN } else { 1 }
    }

    fn in_lockstep(&self) -> Option<Box<dyn Device>> {
        let own = self.config.lanes == Lanes::Lockstep || self.config.variant == Variant::Debug;
        (!own).then(|| Box::new(self.with_lanes(Lanes::Lockstep)) as Box<dyn Device>)
    }

    fn fill_shared(&mut self, byte: u8) {
        self.shared_fill = byte;
    }

    fn watch(&mut self, idle: Option<Duration>) {
        self.idle = idle;
    }

    fn is_checked(&self) -> bool {
        self.config.variant == Variant::Checked
    }

    fn access_map(&mut self) -> Option<&mut [u8]> {
        let bytes = self.arena_bytes;
        let (map, file) = self.shared.as_mut()?.map.as_mut()?;
        // SAFETY: the mapping has at least as many bytes as the arena and lives as long as the borrow
        // of `self`; the worker touches it only during `run`, which needs `self` again.
        let map = unsafe { std::slice::from_raw_parts_mut(map.start(), bytes) };
        if bytes < SMALL_MAP || file.clear(bytes).is_err() {
            map.fill(0);
        }
        Some(map)
    }

    fn accessed(&self) -> Option<&[u8]> {
        let (map, _) = self.shared.as_ref()?.map.as_ref()?;
        // SAFETY: as above.
        Some(unsafe { std::slice::from_raw_parts(map.start(), self.arena_bytes) })
    }

    fn findings(&mut self) -> Vec<Finding> {
        std::mem::take(&mut self.findings)
    }

    fn run(
        &mut self,
        launches: &[Launch],
        order_seed: u64,
        time_limit: Duration,
    ) -> Result<(), RunError> {
        let result = self.try_run(launches, order_seed, time_limit);
        let worker_is_gone = matches!(
            result,
            Err(RunError::Device(_)
                | RunError::Interrupted
                | RunError::Fault(
                    Fault::Crash { .. } | Fault::StackOverwritten { .. } | Fault::Timeout { .. }
                ))
        );
        if worker_is_gone {
            self.worker = None;
        }
        result
    }
}

/// The memory file, made or grown to hold an arena of `bytes` bytes.
fn enlarge(old: Option<Shared>, bytes: usize, checked: bool) -> Result<Shared, RunError> {
    let refuse = |e: std::io::Error| no_memory(&format!("{bytes} bytes for the arena: {e}"));
    let bytes = bytes.next_multiple_of(memory::page_size());
    let (file, control, map) = match old {
        Some(old) => (old.file, old.control, old.map.map(|(_, file)| file)),
        None => {
            let file = SharedFile::new().map_err(refuse)?;
            let control = file.map_control().map_err(refuse)?;
            let map = checked.then(SharedFile::new).transpose().map_err(refuse)?;
            (file, control, map)
        }
    };
    let with_map = |file: SharedFile| -> std::io::Result<(Mapping, SharedFile)> {
        file.grow(bytes)?;
        Ok((file.map_arena(bytes)?, file))
    };
    let map = map.map(with_map).transpose().map_err(refuse)?;
    file.grow(bytes).map_err(refuse)?;
    let arena = file.map_arena(bytes).map_err(refuse)?;
    Ok(Shared { arena, control, file, map })
}

fn no_memory(what: &str) -> RunError {
    RunError::Device(format!("memory: {what}"))
}

/// Where the worker was, as it last wrote.
fn place(shared: &Shared, launches: &[Launch]) -> Option<Place> {
    let control = shared.control.control();
    let launch = control.launch.load(Relaxed) as usize;
    let [x, y, _] = launches.get(launch)?.block;
    let thread = control.thread.load(Relaxed);
    let block = [0, 1, 2].map(|axis| control.block[axis].load(Relaxed));
    Some(Place { launch, block, thread: [thread % x, thread / x % y, thread / x / y] })
}

/// What a worker that ended by itself wrote down.
fn crash(shared: &Shared, arena_bytes: usize, status: ExitStatus, place: Option<Place>) -> Fault {
    let control = shared.control.control();
    if let Some(how) = Overwritten::of(control.overwritten.load(Relaxed)) {
        return Fault::StackOverwritten { how: how.words(), place };
    }
    if control.panicked.load(Relaxed) == 1 {
        let what = "it overwrote what runs its threads; run with --sanitize=memory to see where";
        return Fault::Crash { what: what.to_owned(), arena_offset: None, place };
    }
    let (signal, address) = (control.signal.load(Relaxed), control.address.load(Relaxed) as u64);
    let is_memory = matches!(signal as i32, libc::SIGSEGV | libc::SIGBUS);
    let near = is_memory && control.near_arena.load(Relaxed) == 1;
    let arena_offset = near.then(|| control.offset.load(Relaxed));
    let name = match signal as i32 {
        0 => return Fault::Crash { what: child::describe(status), arena_offset: None, place },
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGBUS => "SIGBUS",
        libc::SIGFPE => "SIGFPE (an integer division by zero, or one that overflows)",
        libc::SIGILL => "SIGILL (a built-in trap, or code that cannot be reached)",
        libc::SIGABRT => "SIGABRT",
        _ => "SIGTRAP",
    };
    let what = if !is_memory {
        name.to_owned()
    } else if control.overflow.load(Relaxed) == 1 {
        let kib = fiber::STACK_BYTES >> 10;
        format!("stack overflow: private memory of a thread exceeds {kib} KiB")
    } else if let Some(offset) = arena_offset {
        format!("{name} at byte {offset} of an arena of {arena_bytes} bytes")
    } else if control.code.load(Relaxed) == SI_KERNEL {
        format!("{name}: a misaligned vector access, or an address that no memory can have")
    } else if address < 1 << 16 {
        format!("{name} at address {address:#x}: a null pointer")
    } else {
        format!("{name} at address {address:#x}")
    };
    Fault::Crash { what, arena_offset, place }
}

/// How many times as long a run takes that tells each access: 2 to 19 were measured.
const SLOWDOWN: u32 = 16;

/// An access map of so many bytes is cleared by writing it; a larger one by giving it back.
const SMALL_MAP: usize = 1 << 20;

/// `si_code` of a fault that has no address.
const SI_KERNEL: u32 = 0x80;
