//! The worker process: loads modules, runs launches, answers.

use std::ffi::OsString;
use std::io::{self, BufReader};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::super::memory::{Mapping, SharedFile, page_size};
use super::super::wire::{self, Word};
use super::control::Control;
use super::module::Loaded;
use super::order::{Rng, Visit};
use super::protocol::{Hello, Reply, Request, Run, WireFault, WireLaunch};
use super::sanitize::wire::Checks;
use super::sanitize::{self, Sanitizer};
use super::sched::{Block, Engine};
use super::signals;

/// A checked run is ended by its own timer, which counts the time that the processor gave it, and tells
/// where it stood; the device waits longer for it, by so many times and seconds.
pub(super) const CHECKED_PATIENCE: (u64, u64) = (4, 10);

/// Seconds that a worker outlives its time limit, should its device not end it.
const GRACE_SECONDS: u64 = 10;

/// The program's `main` when its first argument is the hidden one.
///
/// `args` are the arguments after it. Returns when the device closes the worker's standard input.
pub fn worker_main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut files = args.into_iter().map(|arg| arg.to_str()?.parse::<i32>().ok());
    let (arena, map) = (files.next().flatten(), files.next().flatten());
    let Some(arena) = arena else {
        eprintln!("attnbench: this is an internal command of the CPU device");
        return ExitCode::from(2);
    };
    match serve(arena, map) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Standard output leads to the device's standard error, if it got so far.
            println!("attnbench: the CPU device's worker failed: {error}");
            ExitCode::from(2)
        }
    }
}

/// What runs kernels: in a process of its own, or in the device's.
pub(super) struct Worker {
    // The files outlive their mappings by being declared after them.
    arena: Mapping,
    /// Bytes of it that can be accessed, whole pages.
    open: usize,
    map: Option<Mapping>,
    control: Mapping,
    file: SharedFile,
    map_file: Option<SharedFile>,
    engine: Engine,
    sanitizer: Box<Sanitizer>,
    modules: Vec<Loaded>,
}

// SAFETY: in the device's process it is used by one thread at a time; nothing in it is tied to the
// OS thread that made it, and a module's thread-local memory is asked for anew by each launch.
unsafe impl Send for Worker {}

fn serve(arena: i32, map: Option<i32>) -> io::Result<()> {
    signals::die_with_parent()?;
    let mut replies = wire::private_stdout()?;
    wire::silence_stderr();
    // SAFETY: the device lets its worker inherit these descriptors and tells their numbers.
    let (file, map) =
        unsafe { (SharedFile::inherited(arena), map.map(|fd| SharedFile::inherited(fd))) };
    let mut worker = Worker::new(file, map)?;
    signals::install(worker.control.control(), worker.engine.stacks())?;
    signals::end_on_panic();
    wire::send(&mut replies, &Hello::ours())?;
    let mut requests = BufReader::new(io::stdin());
    while let Some(request) = next(&mut requests)? {
        let reply = worker.answer(request);
        // SAFETY: flushes the C library's streams, among them what a kernel printed.
        unsafe { libc::fflush(std::ptr::null_mut()) };
        wire::send(&mut replies, &reply)?;
    }
    Ok(())
}

fn next(requests: &mut BufReader<io::Stdin>) -> io::Result<Option<Request>> {
    while !wire::readable(requests.get_ref().as_fd(), Duration::MAX)? {}
    wire::receive(requests)
}

impl Worker {
    /// A worker on these files: the arena with the control page, and the access map.
    pub(super) fn new(file: SharedFile, map_file: Option<SharedFile>) -> io::Result<Worker> {
        let control = file.map_control()?;
        let engine = Engine::new(control.control())?;
        let arena = file.map_arena(0)?;
        let sanitizer = Box::new(Sanitizer::new());
        let modules = Vec::new();
        Ok(Worker {
            arena,
            open: page_size(),
            map: None,
            control,
            file,
            map_file,
            engine,
            sanitizer,
            modules,
        })
    }

    fn map(&mut self, bytes: usize) -> io::Result<()> {
        self.arena = self.file.map_arena(bytes)?;
        self.open = bytes.max(1).next_multiple_of(page_size());
        if let Some(file) = &self.map_file {
            let map = self.map.insert(file.map_arena(bytes)?);
            let arena = (self.arena.start(), bytes);
            self.sanitizer.set_arena(arena, map.start(), self.engine.stacks())?;
        }
        Ok(())
    }

    pub(super) fn answer(&mut self, request: Request) -> Reply {
        let answer = match request {
            Request::Arena { bytes } => self.map(bytes),
            Request::Load(binary) => {
                Loaded::open(&binary).map(|m| self.modules.push(m)).map_err(io::Error::other)
            }
            Request::Run(run) => match self.checked_run(&run) {
                Ok(reply) => return reply,
                Err(error) => Err(error),
            },
        };
        answer.map_or_else(|error| Reply::Failed(error.to_string()), |()| Reply::Done)
    }

    /// Makes the run's part of the arena accessible and nothing beyond it, where larger runs have left
    /// what they left.
    fn open_arena(&mut self, bytes: usize) -> io::Result<()> {
        self.open = self.arena.open_only(bytes, self.open)?;
        signals::set_arena(self.arena.start() as usize, bytes);
        self.sanitizer.open_arena(bytes);
        Ok(())
    }

    fn checked_run(&mut self, run: &Run) -> io::Result<Reply> {
        self.open_arena(run.arena_bytes)?;
        let Some(checks) = run.checks else {
            return Ok(self.run(run)?.map_or_else(Reply::Fault, |()| Reply::Done));
        };
        let guard = self.sanitizer.begin_run(checks);
        if !checks.any() {
            // In lockstep, and nothing is looked for.
            let result = self.run(run);
            drop(guard);
            return Ok(result?.map_or_else(Reply::Fault, |()| Reply::Done));
        }
        signals::set_timer(run.idle_ms.unwrap_or(run.limit_ms), run.limit_ms)?;
        let result = self.run(run);
        signals::stop_timer()?;
        drop(guard);
        Ok(Reply::Checked(self.sanitizer.take(), result?.err()))
    }

    fn run(&mut self, run: &Run) -> io::Result<Result<(), WireFault>> {
        let (times, more) = CHECKED_PATIENCE;
        let seconds = times.saturating_mul(run.limit_ms) / 1000 + more + GRACE_SECONDS;
        // SAFETY: sets a timer whose signal ends this process: no device watches it any more.
        unsafe { libc::alarm(u32::try_from(seconds).unwrap_or(0)) };
        let mut result = Ok(());
        for (index, launch) in run.launches.iter().enumerate() {
            result = self.launch(index, launch, run)?;
            if result.is_err() {
                break;
            }
        }
        // SAFETY: takes the timer back.
        unsafe { libc::alarm(0) };
        Ok(result)
    }

    fn launch(
        &mut self,
        index: usize,
        launch: &WireLaunch,
        run: &Run,
    ) -> io::Result<Result<(), WireFault>> {
        let (seed, checked) = (run.order_seed, run.checks.is_some());
        let missing = || io::Error::other("a launch names a kernel that is not loaded");
        let module = self.modules.get(launch.module).ok_or_else(missing)?;
        let entry = module.entry(launch.entry).ok_or_else(missing)?;
        let words: Vec<u64> = launch.args.iter().map(|arg| word(*arg, &self.arena)).collect();
        let attached = module.attach();
        let wave_size = launch.wave as usize;
        self.engine.prepare(&Block { entry, attached, block: launch.block, wave_size })?;

        let control: &Control = self.control.control();
        control.launch.store(index as u32, Relaxed);
        let shared_bytes = launch.shared_bytes as usize;
        module.begin_launch(&attached, shared_bytes);
        if checked {
            self.sanitizer.begin_launch(&sanitize::Begin {
                index: index as u32,
                module,
                attached: &attached,
                shared_bytes,
                grid: launch.grid,
                threads: launch.block.iter().product::<u32>() as usize,
                wave_size,
            })?;
        }
        // SAFETY: `attach` gave the addresses of the module's own variables.
        unsafe { (*attached.block_dim, *attached.grid_dim) = (launch.block, launch.grid) };

        let [x, y, z] = launch.grid.map(u64::from);
        let visit = Visit::new(x * y * z, &mut Rng::new(seed, [index as u64, u64::MAX]));
        for linear in visit {
            let block = [linear % x, linear / x % y, linear / x / y].map(|c| c as u32);
            control.block.iter().zip(block).for_each(|(slot, c)| slot.store(c, Relaxed));
            // SAFETY: as above.
            unsafe { *attached.block_idx = block };
            module.begin_block(&attached, shared_bytes, run.shared_fill);
            let rng = Rng::new(seed, [index as u64, linear]);
            if checked {
                self.sanitizer.begin_block(block, linear, Rng::new(seed, [linear, index as u64]));
            }
            control.running.store(1, Relaxed);
            // SAFETY: the device has held the arguments against the kernel's parameters, and the
            // module stays loaded.
            let result = unsafe { self.engine.run_block(words.as_ptr(), rng) };
            control.running.store(0, Relaxed);
            if result.is_err() {
                return Ok(result);
            }
            if checked {
                self.sanitizer.end_block();
            }
            if !run.checks.is_some_and(Checks::any) && !module.canary_holds(&attached, shared_bytes)
            {
                control.thread.store(0, Relaxed);
                return Ok(Err(WireFault::SharedOverrun(launch.shared_bytes)));
            }
        }
        Ok(Ok(()))
    }
}

fn word(arg: Word, arena: &Mapping) -> u64 {
    match arg {
        Word::Offset(offset) => arena.start() as u64 + offset as u64,
        Word::Bits(bits) => bits,
    }
}
