//! What a worker does when a kernel crashes: writes down where, and ends.

use std::ffi::{c_int, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::panic;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering::Relaxed};

use super::super::memory::{GUARD, page_size};
use super::call;
use super::control::{Control, Overwritten};
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

/// Sent to a worker whose time is up.
pub(super) const LOOK_AT_STACK: c_int = libc::SIGUSR1;

/// A kernel that has overwritten its own stack may never end.
extern "C" fn on_look(_: c_int) {
    // SAFETY: null, or the page that is mapped for the process's life.
    let runs =
        unsafe { CONTROL.load(Relaxed).as_ref() }.is_some_and(|c| c.running.load(Relaxed) == 1);
    if runs && !call::is_intact() {
        overwritten(Overwritten::Caller);
    }
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
    let look: extern "C" fn(c_int) = on_look;
    set(LOOK_AT_STACK, look as usize, libc::SA_RESTART | libc::SA_ONSTACK)?;
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

/// The running kernel is told that its time is up after so many milliseconds of this process's time, or
/// sooner if it makes no progress for `idle_ms`; and then every [`AGAIN_US`].
pub(super) fn set_timer(idle_ms: u64, limit_ms: u64) -> io::Result<()> {
    let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = on_time;
    set(libc::SIGPROF, handler as usize, libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART)?;
    let ms = (idle_ms / STALE).max(1);
    LOOKS.store(limit_ms.div_ceil(ms), Relaxed);
    let seconds = libc::time_t::try_from(ms / 1000).unwrap_or(libc::time_t::MAX);
    let rest = (ms % 1000 * 1000) as libc::suseconds_t;
    let every = libc::timeval { tv_sec: seconds, tv_usec: rest };
    timer(every, every)
}

/// Takes the timer back.
pub(super) fn stop_timer() -> io::Result<()> {
    let never = libc::timeval { tv_sec: 0, tv_usec: 0 };
    timer(never, never)
}

fn timer(first: libc::timeval, again: libc::timeval) -> io::Result<()> {
    let timer = libc::itimerval { it_value: first, it_interval: again };
    // SAFETY: a valid timer of this process's.
    match unsafe { libc::setitimer(libc::ITIMER_PROF, &raw const timer, ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The timer looks so often in the time without progress that is allowed.
const STALE: u64 = 4;
/// How often it may still look.
static LOOKS: AtomicU64 = AtomicU64::new(0);
/// The turns that the kernel's threads had had when it was last looked at, and how often since.
static SEEN: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];

/// Whether the kernel's time is not up yet: it has made progress, and the whole is not used up.
fn may_go_on() -> bool {
    let looks = LOOKS.load(Relaxed).saturating_sub(1);
    LOOKS.store(looks, Relaxed);
    // SAFETY: null, or the page that is mapped for the process's life.
    let turns = unsafe { CONTROL.load(Relaxed).as_ref() }.map_or(0, |c| c.turns.load(Relaxed));
    let stale = if SEEN[0].swap(turns, Relaxed) == turns { SEEN[1].load(Relaxed) + 1 } else { 0 };
    SEEN[1].store(stale, Relaxed);
    if looks > 0 && stale < STALE {
        return true;
    }
    LOOKS.store(0, Relaxed);
    let soon = libc::timeval { tv_sec: 0, tv_usec: AGAIN_US };
    // It is one system call, as a handler may make it; without it the kernel is told again later.
    let _ = timer(soon, soon);
    false
}

/// Microseconds after which an expired kernel is told again: it may have been in a library's
/// function, where it cannot be stopped.
const AGAIN_US: libc::suseconds_t = 2000;

/// Makes a kernel that is in its own code call [`sanitize::out_of_time`] next.
extern "C" fn on_time(_: c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
    if may_go_on() {
        return;
    }
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

/// Only plain loads and stores and `_exit`: nothing else is allowed here.
extern "C" fn on_crash(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the page is mapped for the process's life; `info` comes from the system.
    let (control, code, address) =
        unsafe { (&*CONTROL.load(Relaxed), (*info).si_code, (*info).si_addr() as usize) };
    let [start, _, stride, page] = [0, 1, 2, 3].map(|i| STACKS[i].load(Relaxed));
    let own = start + control.thread.load(Relaxed) as usize * stride;
    let [in_guard, in_next] =
        [own, own + stride].map(|guard| (guard..guard + page).contains(&address));
    let (pc, sp) = registers(context);
    let runs = control.running.load(Relaxed) == 1;
    // A thread that needs more stack than it has comes to the end of it step by step.
    let is_overflow = in_guard && sp < own + 2 * page;
    let overwritten = match () {
        () if !runs || is_overflow => None,
        () if in_next => Some(Overwritten::Above),
        () if in_guard => Some(Overwritten::Below),
        () if !call::is_intact() => Some(Overwritten::Caller),
        () if came_back_wrong(signal, code, address, pc) => Some(Overwritten::Return),
        () => None,
    };
    let (arena, bytes) = (ARENA[0].load(Relaxed), ARENA[1].load(Relaxed));
    let near = bytes > 0 && address >= arena - GUARD && address < arena + bytes + GUARD;
    control.signal.store(signal as u32, Relaxed);
    control.code.store(code as u32, Relaxed);
    control.overflow.store(is_overflow.into(), Relaxed);
    control.overwritten.store(overwritten.map_or(0, |how| how as u32), Relaxed);
    control.near_arena.store(near.into(), Relaxed);
    control.offset.store(address.wrapping_sub(arena) as i64, Relaxed);
    control.address.store(address as i64, Relaxed);
    // SAFETY: ends the process without running anything.
    unsafe { libc::_exit(CRASHED) };
}

/// The interrupted thread's program counter and stack pointer.
fn registers(context: *mut c_void) -> (usize, usize) {
    // SAFETY: the system passes the interrupted thread's registers.
    unsafe {
        let machine = &(*context.cast::<libc::ucontext_t>()).uc_mcontext;
        #[cfg(target_arch = "x86_64")]
        {
            let [pc, sp] = [libc::REG_RIP, libc::REG_RSP].map(|register| register as usize);
            (machine.gregs[pc] as usize, machine.gregs[sp] as usize)
        }
        #[cfg(target_arch = "aarch64")]
        {
            (machine.pc as usize, machine.sp as usize)
        }
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        {
            let _ = machine;
            (0, usize::MAX)
        }
    }
}

/// Addresses below it are null pointers with an offset, and no function's.
const NULL: usize = 1 << 16;

/// Whether a function came back to where there is no code: what was fetched is what could not be
/// accessed, or the return itself failed, as no address is like that.
fn came_back_wrong(signal: c_int, code: c_int, address: usize, pc: usize) -> bool {
    let is_memory = signal == libc::SIGSEGV || signal == libc::SIGBUS;
    if is_memory && pc == address {
        return pc >= NULL;
    }
    #[cfg(target_arch = "x86_64")]
    {
        const RETURN: u8 = 0xc3;
        const SI_KERNEL: c_int = 0x80;
        // SAFETY: without an address of its own the fault is that of the instruction at `pc`, which
        // was fetched.
        is_memory && code == SI_KERNEL && unsafe { (pc as *const u8).read() } == RETURN
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = code;
        false
    }
}

/// Ends the worker: the running kernel has overwritten its own stack, on which nothing can go on.
pub(super) fn overwritten(how: Overwritten) -> ! {
    // SAFETY: null, or the page that is mapped for the process's life.
    let Some(control) = (unsafe { CONTROL.load(Relaxed).as_ref() }) else {
        // In the device's own process, for a debugger: it stops where this is called.
        std::process::abort();
    };
    control.overwritten.store(how as u32, Relaxed);
    // SAFETY: ends the process without running anything.
    unsafe { libc::_exit(CRASHED) }
}

/// Ends the worker if its program fails while a kernel runs: then that has written over it.
pub(super) fn end_on_panic() {
    let told = panic::take_hook();
    panic::set_hook(Box::new(move |what| {
        // SAFETY: null, or the page that is mapped for the process's life.
        let control = unsafe { CONTROL.load(Relaxed).as_ref() };
        match control.filter(|control| control.running.load(Relaxed) == 1) {
            Some(_) if !call::is_intact() => overwritten(Overwritten::Caller),
            Some(control) => {
                control.panicked.store(1, Relaxed);
                // SAFETY: ends the process without running anything.
                unsafe { libc::_exit(CRASHED) }
            }
            None => told(what),
        }
    }));
}
