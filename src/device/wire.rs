//! What devices and their worker processes talk with: one line of JSON each way.

use std::fs::File;
use std::io::{self, BufRead, Write};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd};
use std::time::{Duration, Instant};

use super::interrupt;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// An argument.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) enum Word {
    /// Bytes from the arena's start.
    Offset(usize),
    /// The value's bits.
    Bits(u64),
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

/// How a wait for a message ended.
pub(super) enum Waited {
    /// There is something to read, or the pipe is closed.
    Readable,
    /// The limit passed.
    TimedOut,
    /// The process was interrupted.
    Interrupted,
}

/// As [`readable`]; an interrupt of the process ends the wait.
pub(super) fn wait(pipe: BorrowedFd<'_>, limit: Duration) -> io::Result<Waited> {
    let start = Instant::now();
    loop {
        if interrupt::is_requested() {
            return Ok(Waited::Interrupted);
        }
        let left = limit.saturating_sub(start.elapsed());
        if readable(pipe, left.min(interrupt::LOOK_AGAIN))? {
            return Ok(Waited::Readable);
        }
        if start.elapsed() >= limit {
            return Ok(Waited::TimedOut);
        }
    }
}

/// Keeps the real standard output for replies: what a kernel prints goes to standard error.
pub(super) fn private_stdout() -> io::Result<File> {
    // SAFETY: plain descriptor calls; the new descriptor is ours alone.
    unsafe {
        let replies = libc::fcntl(1, libc::F_DUPFD_CLOEXEC, 3);
        if replies < 0 || libc::dup2(2, 1) < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(File::from_raw_fd(replies))
    }
}

/// Standard error leads nowhere: what the C library says when it gives up on a kernel's behalf is told by
/// the device, in its words. What a kernel prints is on standard output.
pub(super) fn silence_stderr() {
    if let Ok(nowhere) = File::options().write(true).open("/dev/null") {
        // SAFETY: a plain descriptor call.
        unsafe { libc::dup2(nowhere.as_raw_fd(), 2) };
    }
}
