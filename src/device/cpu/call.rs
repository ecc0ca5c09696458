//! Calls a kernel in such a way that one which overwrites its own stack is found out.
//!
//! A private array that is written past its end runs over what its function saved, over its return
//! address, and then over the frames that called it. Between these and our own lies a moat, and what
//! must be the same after the call is kept elsewhere: registers, the stack pointer, the place to come
//! back to. The check is a comparison, made when a thread ends and whenever it waits; a crash is looked
//! at in the same way (`signals`).
//!
//! Below, the stack is filled before the call: a variable that the kernel never sets holds the same in
//! every run, and as a float it is NaN.

use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering::Relaxed};

use super::module::Entry;
use super::sched::MAX_THREADS;

/// Bytes between a kernel's frame and ours that nothing may write.
const MOAT: usize = 256;
/// Bytes of the stack that are filled for the kernel: the frames of most.
const FILLED: usize = 2048;

/// What is kept of a call, apart from its stack.
#[repr(C)]
pub(super) struct Kept {
    /// The stack pointer before the call; 0 while no kernel runs on the stack.
    sp: AtomicUsize,
    /// Registers that a function gives back as it found them.
    registers: [AtomicUsize; 6],
    /// Where the call comes back to.
    back: AtomicUsize,
}

static KEPT: [Kept; MAX_THREADS] = [const {
    Kept {
        sp: AtomicUsize::new(0),
        registers: [const { AtomicUsize::new(0) }; 6],
        back: AtomicUsize::new(0),
    }
}; MAX_THREADS];

/// What is kept of the running thread's call.
static CURRENT: AtomicPtr<Kept> = AtomicPtr::new(ptr::null_mut());

/// Thread `index` is about to run.
#[inline]
pub(super) fn turn(index: usize) {
    CURRENT.store((&raw const KEPT[index]).cast_mut(), Relaxed);
}

/// Whether the running thread's stack above its kernel's frame is as it was at the call. May be called
/// in a signal's handler.
#[inline]
pub(super) fn is_intact() -> bool {
    // SAFETY: null, or one of `KEPT`.
    let Some(kept) = (unsafe { CURRENT.load(Relaxed).as_ref() }) else { return true };
    let sp = kept.sp.load(Relaxed);
    if sp == 0 {
        return true;
    }
    // SAFETY: the kernel is under way, so its caller's part of the stack is there: the place to come
    // back to, and the moat above it.
    unsafe {
        let moat = (sp - MOAT) as *const usize;
        let returns = cfg!(not(target_arch = "x86_64"))
            || moat.sub(1).read_volatile() == kept.back.load(Relaxed);
        returns && moat.read_volatile() == usize::MAX && moat.add(1).read_volatile() == usize::MAX
    }
}

/// Calls a kernel on the running fiber; false if it came back and had overwritten the stack.
///
/// # Safety
/// As the entry's own; `turn` was called for this fiber.
#[cfg(target_arch = "x86_64")]
#[inline(never)]
pub(super) unsafe fn call(entry: Entry, words: *const u64) -> bool {
    let kept = CURRENT.load(Relaxed);
    let changed: usize;
    // SAFETY: by the caller's promise. Every register that a function gives back is put back from
    // `kept`, whatever the kernel left in it; the fill ends below the stack pointer, where nothing is.
    unsafe {
        std::arch::asm!(
            "mov [rdx], rsp",
            "mov [rdx + 8], rbp",
            "mov [rdx + 16], rbx",
            "mov [rdx + 24], r12",
            "mov [rdx + 32], r13",
            "mov [rdx + 40], r14",
            "mov [rdx + 48], r15",
            "lea rcx, [rip + 2f]",
            "mov [rdx + 56], rcx",
            "mov r8, rdi",
            "mov r9, rax",
            "lea rdi, [rsp - {below}]",
            "mov ecx, {words}",
            "mov rax, -1",
            "rep stosq",
            "mov rdi, r8",
            "sub rsp, {moat}",
            "call r9",
            "2:",
            "mov rdx, [rip + {current}]",
            "lea rax, [rsp + {moat}]",
            "xor rax, [rdx]",
            "mov rcx, rbp",
            "xor rcx, [rdx + 8]",
            "or rax, rcx",
            "mov rcx, rbx",
            "xor rcx, [rdx + 16]",
            "or rax, rcx",
            "mov rcx, r12",
            "xor rcx, [rdx + 24]",
            "or rax, rcx",
            "mov rcx, r13",
            "xor rcx, [rdx + 32]",
            "or rax, rcx",
            "mov rcx, r14",
            "xor rcx, [rdx + 40]",
            "or rax, rcx",
            "mov rcx, r15",
            "xor rcx, [rdx + 48]",
            "or rax, rcx",
            "mov rsi, [rdx]",
            "mov rcx, -{moat_words}",
            "mov r8, -1",
            "3:",
            "and r8, [rsi + rcx * 8]",
            "inc rcx",
            "jnz 3b",
            "not r8",
            "or rax, r8",
            "mov rsp, rsi",
            "mov rbp, [rdx + 8]",
            "mov rbx, [rdx + 16]",
            "mov r12, [rdx + 24]",
            "mov r13, [rdx + 32]",
            "mov r14, [rdx + 40]",
            "mov r15, [rdx + 48]",
            below = const MOAT + FILLED,
            words = const (MOAT + FILLED) / 8,
            moat = const MOAT,
            moat_words = const MOAT / 8,
            current = sym CURRENT,
            inout("rax") entry => changed,
            in("rdx") kept,
            in("rdi") words,
            clobber_abi("C"),
        );
    }
    // SAFETY: one of `KEPT`: `turn` was called.
    unsafe { (*kept).sp.store(0, Relaxed) };
    changed == 0
}

/// As on other machines, without the registers.
///
/// # Safety
/// As the entry's own; `turn` was called for this fiber.
#[cfg(not(target_arch = "x86_64"))]
#[inline(never)]
pub(super) unsafe fn call(entry: Entry, words: *const u64) -> bool {
    let mut moat = [usize::MAX; MOAT / size_of::<usize>()];
    let end = std::hint::black_box(&mut moat).as_mut_ptr_range().end;
    // SAFETY: `turn` was called.
    let kept = unsafe { &*CURRENT.load(Relaxed) };
    kept.sp.store(end as usize, Relaxed);
    // SAFETY: by the caller's promise.
    unsafe { entry(words) };
    kept.sp.store(0, Relaxed);
    std::hint::black_box(&moat).iter().fold(usize::MAX, |all, word| all & word) == usize::MAX
}

/// Forgets all calls: their threads have been given up.
pub(super) fn forget() {
    KEPT.iter().for_each(|kept| kept.sp.store(0, Relaxed));
}
