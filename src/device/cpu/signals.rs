//! What a worker does when a kernel crashes: writes down where, and ends.

use std::ffi::{c_int, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering::Relaxed};

use super::super::memory::{GUARD, page_size};
use super::control::Control;
use super::sanitize;

/// Exit status of a worker whose kernel crashed.
pub(super) const CRASHED: i32 = 99;

static CONTROL: AtomicPtr<Control> = AtomicPtr::new(ptr::null_mut());
static ARENA: [AtomicUsize; 2] = [AtomicUsize::new(0), AtomicUsize::new(0)];
static STACKS: [AtomicUsize; 4] = [const { AtomicUsize::new(0) }; 4];
static PARENT: AtomicUsize = AtomicUsize::new(0);

/// Tells the handler where the arena is: first address and bytes.
pub(super) fn set_arena(start: usize, bytes: usize) {
    ARENA[0].store(start, Relaxed);
    ARENA[1].store(bytes, Relaxed);
}

/// Takes over the signals of a crash. `stacks`: first address, end and stride.
pub(super) fn install(control: *const Control, stacks: (usize, usize, usize)) -> io::Result<()> {
    CONTROL.store(control.cast_mut(), Relaxed);
    for (slot, value) in STACKS.iter().zip([stacks.0, stacks.1, stacks.2, page_size()]) {
        slot.store(value, Relaxed);
    }
    let stack = Box::leak(vec![0u8; 64 << 10].into_boxed_slice());
    let alternative =
        libc::stack_t { ss_sp: stack.as_mut_ptr().cast(), ss_flags: 0, ss_size: stack.len() };
    // SAFETY: the stack is leaked, so it stays valid.
    if unsafe { libc::sigaltstack(&raw const alternative, ptr::null_mut()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let crash: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = on_crash;
    for signal in
        [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGABRT, libc::SIGTRAP]
    {
        set(signal, crash as usize, libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESETHAND)?;
    }
    Ok(())
}

/// Ends this process when its parent ends, also in the midst of an endless kernel.
///
/// The system sends the signal when the parent's *thread* ends; the handler looks whether the
/// process is still there.
pub(super) fn die_with_parent() -> io::Result<()> {
    // SAFETY: getppid has no conditions.
    let parent = unsafe { libc::getppid() };
    PARENT.store(parent as usize, Relaxed);
    let handler: extern "C" fn(c_int) = on_parent_thread_end;
    set(libc::SIGUSR2, handler as usize, libc::SA_RESTART | libc::SA_ONSTACK)?;
    // SAFETY: sets an attribute of this process.
    if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGUSR2) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// After so many milliseconds of this process's time, and then every [`AGAIN_US`], the running
/// kernel is told that its time is up; 0 takes the timer back.
pub(super) fn set_timer(limit_ms: u64) -> io::Result<()> {
    let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = on_time;
    set(libc::SIGPROF, handler as usize, libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART)?;
    let seconds = libc::time_t::try_from(limit_ms / 1000).unwrap_or(libc::time_t::MAX);
    let rest = (limit_ms % 1000 * 1000) as libc::suseconds_t;
    let interval = if limit_ms == 0 { 0 } else { AGAIN_US };
    let timer = libc::itimerval {
        it_value: libc::timeval { tv_sec: seconds, tv_usec: rest },
        it_interval: libc::timeval { tv_sec: 0, tv_usec: interval },
    };
    // SAFETY: a valid timer of this process's.
    match unsafe { libc::setitimer(libc::ITIMER_PROF, &raw const timer, ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Microseconds after which an expired kernel is told again: it may have been in a library's
/// function, where it cannot be stopped.
const AGAIN_US: libc::suseconds_t = 2000;

/// Makes a kernel that is in its own code call [`sanitize::out_of_time`] next.
extern "C" fn on_time(_: c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
    let stop: extern "C" fn() = sanitize::out_of_time;
    // SAFETY: the system passes the interrupted thread's registers. A kernel in its own code holds
    // nothing of ours; it does not come back from the call, whose stack lies beyond the kernel's
    // frame and its red zone.
    unsafe {
        let machine = &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext;
        #[cfg(target_arch = "x86_64")]
        {
            let [pc, sp] = [libc::REG_RIP, libc::REG_RSP].map(|register| register as usize);
            if sanitize::expire(machine.gregs[pc] as usize) {
                machine.gregs[sp] = ((machine.gregs[sp] - 256) & !15) - 8;
                machine.gregs[pc] = stop as usize as i64;
            }
        }
        #[cfg(target_arch = "aarch64")]
        if sanitize::expire(machine.pc as usize) {
            machine.sp = (machine.sp - 256) & !15;
            machine.pc = stop as usize as u64;
        }
    }
}

fn set(signal: c_int, handler: usize, flags: c_int) -> io::Result<()> {
    // SAFETY: all bits zero is a valid sigaction.
    let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    action.sa_sigaction = handler;
    action.sa_flags = flags;
    // SAFETY: the handler is a function of the right type for `flags`.
    match unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

extern "C" fn on_parent_thread_end(_: c_int) {
    // SAFETY: both calls are safe in a handler.
    unsafe {
        if libc::getppid() as usize != PARENT.load(Relaxed) {
            libc::_exit(0);
        }
    }
}

/// Only plain stores and `_exit`: nothing else is allowed here.
extern "C" fn on_crash(signal: c_int, info: *mut libc::siginfo_t, _: *mut c_void) {
    // SAFETY: the page is mapped for the process's life; `info` comes from the system.
    let (control, code, address) =
        unsafe { (&*CONTROL.load(Relaxed), (*info).si_code, (*info).si_addr() as usize) };
    let [start, end, stride, page] = [0, 1, 2, 3].map(|i| STACKS[i].load(Relaxed));
    let in_guard = (start..end).contains(&address) && (address - start) % stride < page;
    let (arena, bytes) = (ARENA[0].load(Relaxed), ARENA[1].load(Relaxed));
    let near = bytes > 0 && address >= arena - GUARD && address < arena + bytes + GUARD;
    control.signal.store(signal as u32, Relaxed);
    control.code.store(code as u32, Relaxed);
    control.overflow.store(in_guard.into(), Relaxed);
    control.near_arena.store(near.into(), Relaxed);
    control.offset.store(address.wrapping_sub(arena) as i64, Relaxed);
    control.address.store(address as i64, Relaxed);
    // SAFETY: ends the process without running anything.
    unsafe { libc::_exit(CRASHED) };
}
