//! The device's side of its worker: start it, ask it, tell what became of it.

use std::collections::HashMap;
use std::io::{self, BufReader};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::super::RunError;
use super::super::memory::{SharedFile, keep_over_exec};
use super::super::wire::{self, Waited};
use super::protocol::{Hello, Reply, Request, WORKER_ARGUMENT};
use super::signals::LOOK_AT_STACK;

/// How long a new worker may take to say that it is ready, and to load a module.
const READY: Duration = Duration::from_secs(20);

/// A running worker process.
pub(super) struct Worker {
    child: Child,
    requests: ChildStdin,
    replies: BufReader<ChildStdout>,
    /// Bytes of the arena that it has mapped.
    pub(super) arena_bytes: usize,
    modules: HashMap<Arc<str>, usize>,
}

/// How long a reply is waited for.
pub(super) struct Patience<'a> {
    /// In all: by the clock, or with `idle` in the processor's time.
    pub(super) limit: Duration,
    /// Of the processor's time, without a change of the count.
    pub(super) idle: Option<(Duration, &'a AtomicU64)>,
}

impl Patience<'_> {
    /// By the clock.
    pub(super) fn until(limit: Duration) -> Patience<'static> {
        Patience { limit, idle: None }
    }
}

/// A limit in the processor's time, by the clock of a machine that has more to do.
pub(super) fn lenient(limit: Duration) -> Duration {
    let (times, more) = super::worker::CHECKED_PATIENCE;
    limit.saturating_mul(times as u32) + Duration::from_secs(more)
}

/// How long a worker whose time is up may take to look at its kernel's stack.
const LAST_WORD: Duration = Duration::from_millis(200);

/// How often in the time without progress it is looked for.
const LOOKS: u32 = 8;

/// The processor's time that a child process has used, or 0 where it is no more.
fn cpu_time(pid: u32) -> Duration {
    let mut clock: libc::clockid_t = 0;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes a number, of a process that is a child of this one and not yet waited for.
    let found = unsafe { libc::clock_getcpuclockid(pid as libc::pid_t, &raw mut clock) } == 0;
    // SAFETY: writes the time.
    match found && unsafe { libc::clock_gettime(clock, &raw mut time) } == 0 {
        true => Duration::new(time.tv_sec as u64, time.tv_nsec as u32),
        false => Duration::ZERO,
    }
}

/// What came of a request.
pub(super) enum Outcome {
    Reply(Reply),
    /// A time limit passed, this one; the worker has been ended.
    TimedOut(Duration),
    /// The process was interrupted; the worker has been ended.
    Interrupted,
    /// The worker ended by itself.
    Died(ExitStatus),
}

/// How a wait for a reply ended.
enum Ended {
    /// There is something to read, or the pipe is closed.
    Readable,
    /// The process was interrupted.
    Interrupted,
    /// This limit passed.
    After(Duration),
}

impl Worker {
    /// Starts a process that works on these files: the arena's, and its access map's.
    pub(super) fn start(program: &Path, files: &[&SharedFile]) -> Result<Worker, RunError> {
        let fds: Vec<i32> = files.iter().map(|file| file.raw()).collect();
        let mut command = Command::new(program);
        command.arg(WORKER_ARGUMENT).args(fds.iter().map(i32::to_string));
        // Its own process group: an interrupt from the keyboard is the device's to handle.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
        // SAFETY: between fork and exec only one system call a file is made, on a descriptor that
        // stays open as long as the file, which outlives the spawn.
        unsafe {
            command.pre_exec(move || {
                fds.iter().try_for_each(|&fd| keep_over_exec(BorrowedFd::borrow_raw(fd)))
            })
        };
        let mut child = command.spawn().map_err(|e| not_a_worker(program, &e.to_string()))?;
        let (Some(requests), Some(replies)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(RunError::Device("the worker has no pipes".to_owned()));
        };
        let replies = BufReader::new(replies);
        let modules = HashMap::new();
        let mut worker = Worker { child, requests, replies, arena_bytes: 0, modules };
        let replies = worker.replies.get_ref().as_fd();
        let hello = match wire::wait(replies, READY).map_err(broken)? {
            Waited::Readable => wire::receive::<Hello>(&mut worker.replies).unwrap_or(None),
            Waited::TimedOut => None,
            Waited::Interrupted => return Err(RunError::Interrupted),
        };
        match hello {
            Some(hello) if hello == Hello::ours() => Ok(worker),
            Some(_) => Err(not_a_worker(program, "it is of another build")),
            None => Err(not_a_worker(program, "it does not answer as a worker")),
        }
    }

    /// The number under which the worker knows a binary; has it loaded on first use.
    pub(super) fn module(&mut self, hash: &Arc<str>, binary: &Path) -> Result<usize, RunError> {
        if let Some(&number) = self.modules.get(hash) {
            return Ok(number);
        }
        self.expect_done(&Request::Load(PathBuf::from(binary)), "loading a kernel")?;
        let number = self.modules.len();
        self.modules.insert(hash.clone(), number);
        Ok(number)
    }

    /// Makes the worker map an arena of `bytes` bytes.
    pub(super) fn map_arena(&mut self, bytes: usize) -> Result<(), RunError> {
        if self.arena_bytes != bytes {
            self.expect_done(&Request::Arena { bytes }, "mapping the arena")?;
            self.arena_bytes = bytes;
        }
        Ok(())
    }

    fn expect_done(&mut self, request: &Request, what: &str) -> Result<(), RunError> {
        let why = match self.ask(request, &Patience::until(READY)).map_err(broken)? {
            Outcome::Reply(Reply::Done) => return Ok(()),
            Outcome::Reply(Reply::Failed(why)) => why,
            Outcome::Reply(Reply::Fault(_) | Reply::Checked(..)) => {
                "an answer that makes no sense".to_owned()
            }
            Outcome::Interrupted => return Err(RunError::Interrupted),
            Outcome::TimedOut(limit) => format!("no answer within {limit:?}"),
            Outcome::Died(status) => format!("the worker ended with {status}"),
        };
        Err(RunError::Device(format!("{what}: {why}")))
    }

    /// Sends a request and waits for its reply. After anything but a reply the worker is no more.
    pub(super) fn ask(
        &mut self,
        request: &Request,
        patience: &Patience<'_>,
    ) -> io::Result<Outcome> {
        if wire::send(&mut self.requests, request).is_ok() {
            match self.wait_with(patience)? {
                Ended::Readable => {}
                Ended::Interrupted => {
                    self.child.kill()?;
                    self.child.wait()?;
                    return Ok(Outcome::Interrupted);
                }
                Ended::After(limit) => {
                    // It ends at once if its kernel has overwritten its own stack, and then says so.
                    // SAFETY: sends a signal to a child that has not been waited for.
                    unsafe { libc::kill(self.child.id() as libc::pid_t, LOOK_AT_STACK) };
                    if self.wait(LAST_WORD)? && wire::receive::<Reply>(&mut self.replies)?.is_none()
                    {
                        return Ok(Outcome::Died(self.child.wait()?));
                    }
                    self.child.kill()?;
                    self.child.wait()?;
                    return Ok(Outcome::TimedOut(limit));
                }
            }
            if let Some(reply) = wire::receive(&mut self.replies)? {
                return Ok(Outcome::Reply(reply));
            }
        }
        Ok(Outcome::Died(self.child.wait()?))
    }

    /// Waits for a reply as long as patience lasts.
    fn wait_with(&self, patience: &Patience<'_>) -> io::Result<Ended> {
        let Some((idle, turns)) = patience.idle else {
            return Ok(match wire::wait(self.replies.get_ref().as_fd(), patience.limit)? {
                Waited::Readable => Ended::Readable,
                Waited::TimedOut => Ended::After(patience.limit),
                Waited::Interrupted => Ended::Interrupted,
            });
        };
        let (start, pid) = (Instant::now(), self.child.id());
        let (first, at_most) = (cpu_time(pid), lenient(patience.limit));
        let (mut seen, mut since) = (turns.load(Relaxed), first);
        loop {
            let look = (idle / LOOKS).max(Duration::from_millis(1));
            match wire::wait(self.replies.get_ref().as_fd(), look)? {
                Waited::Readable => return Ok(Ended::Readable),
                Waited::Interrupted => return Ok(Ended::Interrupted),
                Waited::TimedOut => {}
            }
            let (now, turn) = (cpu_time(pid), turns.load(Relaxed));
            if turn != seen {
                (seen, since) = (turn, now);
            }
            let took = |from: Duration| now.saturating_sub(from);
            if took(since) >= idle {
                return Ok(Ended::After(idle));
            }
            if took(first) >= patience.limit || start.elapsed() >= at_most {
                return Ok(Ended::After(patience.limit));
            }
        }
    }

    /// Waits until there is something to read, or the pipe is closed; false after `limit`.
    fn wait(&self, limit: Duration) -> io::Result<bool> {
        wire::readable(self.replies.get_ref().as_fd(), limit)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Either may fail if it has ended already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An error in talking to a worker.
pub(super) fn broken(error: io::Error) -> RunError {
    RunError::Device(format!("talking to the CPU device's worker: {error}"))
}

fn not_a_worker(program: &Path, why: &str) -> RunError {
    RunError::Device(format!(
        "starting the worker {}: {why}; set ATTNBENCH_WORKER to the attnbench program",
        program.display()
    ))
}

/// A status in words, for a worker that ended with no signal of its own to tell.
pub(super) fn describe(status: ExitStatus) -> String {
    match status.signal() {
        Some(libc::SIGKILL) => "the process was killed (is memory short?)".to_owned(),
        Some(signal) => format!("the process ended by signal {signal}"),
        None => format!("it ended the process with status {}", status.code().unwrap_or(-1)),
    }
}
