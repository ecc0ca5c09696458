//! The worker process: loads modules, runs launches, answers.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufReader};
use std::os::fd::{AsFd, FromRawFd};
use std::process::ExitCode;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::module::Loaded;
use super::order::{Rng, Visit};
use super::protocol::{self, Hello, Reply, Request, Run, WireFault, WireLaunch, Word};
use super::sched::{Block, Engine};
use super::shared::{Control, Mapping, SharedFile};
use super::signals;

/// Seconds that a worker outlives its time limit, should its device not end it.
const GRACE_SECONDS: u64 = 10;

/// The program's `main` when its first argument is the hidden one.
///
/// `args` are the arguments after it. Returns when the device closes the worker's standard input.
pub fn worker_main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let fd = args.into_iter().next().and_then(|arg| arg.to_str()?.parse::<i32>().ok());
    let Some(fd) = fd else {
        eprintln!("attnbench: this is an internal command of the CPU device");
        return ExitCode::from(2);
    };
    match serve(fd) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("attnbench: the CPU device's worker failed: {error}");
            ExitCode::from(2)
        }
    }
}

struct Worker {
    // The file outlives its mappings by being declared after them.
    arena: Mapping,
    control: Mapping,
    file: SharedFile,
    engine: Engine,
    modules: Vec<Loaded>,
}

fn serve(fd: i32) -> io::Result<()> {
    signals::die_with_parent()?;
    let mut replies = private_stdout()?;
    // SAFETY: the device lets its worker inherit this descriptor and tells its number.
    let file = unsafe { SharedFile::inherited(fd) };
    let control = file.map_control()?;
    let engine = Engine::new(control.control())?;
    signals::install(control.control(), engine.stacks())?;
    let arena = file.map_arena(0)?;
    let mut worker = Worker { arena, control, file, engine, modules: Vec::new() };
    protocol::send(&mut replies, &Hello::ours())?;
    let mut requests = BufReader::new(io::stdin());
    while let Some(request) = next(&mut requests)? {
        let reply = worker.answer(request);
        // SAFETY: flushes the C library's streams, among them what a kernel printed.
        unsafe { libc::fflush(std::ptr::null_mut()) };
        protocol::send(&mut replies, &reply)?;
    }
    Ok(())
}

fn next(requests: &mut BufReader<io::Stdin>) -> io::Result<Option<Request>> {
    while !protocol::readable(requests.get_ref().as_fd(), Duration::MAX)? {}
    protocol::receive(requests)
}

/// Keeps the real standard output for replies: what a kernel prints goes to standard error.
fn private_stdout() -> io::Result<File> {
    // SAFETY: plain descriptor calls; the new descriptor is ours alone.
    unsafe {
        let replies = libc::fcntl(1, libc::F_DUPFD_CLOEXEC, 3);
        if replies < 0 || libc::dup2(2, 1) < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(File::from_raw_fd(replies))
    }
}

impl Worker {
    fn answer(&mut self, request: Request) -> Reply {
        let answer = match request {
            Request::Arena { bytes } => self.file.map_arena(bytes).map(|arena| {
                signals::set_arena(arena.start() as usize, arena.bytes());
                self.arena = arena;
            }),
            Request::Load(binary) => {
                Loaded::open(&binary).map(|m| self.modules.push(m)).map_err(io::Error::other)
            }
            Request::Run(run) => match self.run(&run) {
                Ok(Ok(())) => Ok(()),
                Ok(Err(fault)) => return Reply::Fault(fault),
                Err(error) => Err(error),
            },
        };
        answer.map_or_else(|error| Reply::Failed(error.to_string()), |()| Reply::Done)
    }

    fn run(&mut self, run: &Run) -> io::Result<Result<(), WireFault>> {
        let seconds = run.limit_ms / 1000 + GRACE_SECONDS;
        // SAFETY: sets a timer whose signal ends this process: no device watches it any more.
        unsafe { libc::alarm(u32::try_from(seconds).unwrap_or(0)) };
        let mut result = Ok(());
        for (index, launch) in run.launches.iter().enumerate() {
            result = self.launch(index, launch, run.order_seed)?;
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
        seed: u64,
    ) -> io::Result<Result<(), WireFault>> {
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
        // SAFETY: `attach` gave the addresses of the module's own variables.
        unsafe { (*attached.block_dim, *attached.grid_dim) = (launch.block, launch.grid) };

        let [x, y, z] = launch.grid.map(u64::from);
        let visit = Visit::new(x * y * z, &mut Rng::new(seed, [index as u64, u64::MAX]));
        for linear in visit {
            let block = [linear % x, linear / x % y, linear / x / y].map(|c| c as u32);
            control.block.iter().zip(block).for_each(|(slot, c)| slot.store(c, Relaxed));
            // SAFETY: as above.
            unsafe { *attached.block_idx = block };
            module.begin_block(&attached, shared_bytes);
            let rng = Rng::new(seed, [index as u64, linear]);
            control.running.store(1, Relaxed);
            // SAFETY: the device has held the arguments against the kernel's parameters, and the
            // module stays loaded.
            let result = unsafe { self.engine.run_block(words.as_ptr(), rng) };
            control.running.store(0, Relaxed);
            if result.is_err() {
                return Ok(result);
            }
            if !module.canary_holds(&attached, shared_bytes) {
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
