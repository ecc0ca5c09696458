//! An interrupt of this process (Ctrl-C, SIGTERM, SIGHUP): waiting for a child process ends at once.
//!
//! A signal is the whole process's, and so is the flag. Without it a request that waits for a slow
//! kernel, or for a compiler, would hold up the end of a run until that is done.

use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

static REQUESTED: AtomicBool = AtomicBool::new(false);

/// How long a wait sleeps before it looks at the flag again.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// How often a running command is asked whether it has ended.
const ASK_AGAIN: Duration = Duration::from_millis(2);

/// Whether the process is to end: set it, and no more runs or compilations are begun, and those under
/// way end.
pub fn flag() -> &'static AtomicBool {
    &REQUESTED
}

/// Whether the process is to end.
pub fn is_requested() -> bool {
    REQUESTED.load(Ordering::Relaxed)
}

/// Runs a command to its end, as [`Command::output`] does; `None` where an interrupt ended it, and the
/// processes that it had started.
///
/// # Errors
/// It does not start, or cannot be read from.
pub fn output(command: &mut Command) -> io::Result<Option<Output>> {
    if is_requested() {
        return Ok(None);
    }
    // Its own process group: an interrupt from the keyboard is this program's to handle.
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn()?;
    let pipes = (child.stdout.take(), child.stderr.take());
    let (out, error) = (reader(pipes.0), reader(pipes.1));
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if is_requested() {
            let group = i32::try_from(child.id()).map_err(io::Error::other)?;
            // SAFETY: touches no memory; the group is the child's own, which is not waited for yet, so
            // that its number is no other's.
            unsafe { libc::kill(-group, libc::SIGKILL) };
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(ASK_AGAIN);
    };
    let read = |reader: Reader| reader.join().unwrap_or_else(|_| Err(io::ErrorKind::Other.into()));
    Ok(Some(Output { status, stdout: read(out)?, stderr: read(error)? }))
}

type Reader = std::thread::JoinHandle<io::Result<Vec<u8>>>;

/// Reads a pipe to its end as it fills: a full one would hold up whoever writes to it.
fn reader(pipe: Option<impl Read + Send + 'static>) -> Reader {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            pipe.read_to_end(&mut bytes)?;
        }
        Ok(bytes)
    })
}

/// Whether the process was started to outlive its terminal (`nohup`): SIGHUP is ignored then.
pub fn hangup_is_ignored() -> bool {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: asks for the action and sets none; `action` is a valid place for it.
    let asked = unsafe { libc::sigaction(libc::SIGHUP, std::ptr::null(), action.as_mut_ptr()) };
    // SAFETY: all zeros are a valid action, and the system has written one over them.
    asked == 0 && unsafe { action.assume_init() }.sa_sigaction == libc::SIG_IGN
}

/// Ignores SIGHUP from now on.
pub fn ignore_hangup() {
    // SAFETY: sets an action that runs no code of this process.
    unsafe { libc::signal(libc::SIGHUP, libc::SIG_IGN) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_runs_to_its_end_with_all_that_it_says() {
        let script = "printf out; printf error >&2; exit 3";
        let output = output(Command::new("sh").args(["-c", script])).unwrap().unwrap();
        assert_eq!((&output.stdout[..], &output.stderr[..]), (&b"out"[..], &b"error"[..]));
        assert_eq!(output.status.code(), Some(3));
        assert!(super::output(&mut Command::new("/nonexistent/program")).is_err());
    }

    /// More than a pipe holds.
    #[test]
    fn a_command_that_says_much_is_not_held_up() {
        let script = "head -c 300000 /dev/zero; head -c 300000 /dev/zero >&2";
        let output = output(Command::new("sh").args(["-c", script])).unwrap().unwrap();
        assert_eq!((output.stdout.len(), output.stderr.len()), (300_000, 300_000));
    }
}
