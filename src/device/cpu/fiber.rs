//! Threads of a block as stackful coroutines, behind four functions.
//!
//! A fiber lives as long as the process and runs one kernel thread after another, so a block costs
//! no allocation. Nothing above this file knows how a switch is made.

use std::io;
use std::num::NonZeroUsize;
use std::ptr::{self, NonNull};

use corosensei::stack::{Stack, StackPointer};
use corosensei::{Coroutine, Yielder};

use super::super::memory::page_size;

/// Bytes of a thread's stack.
pub(super) const STACK_BYTES: usize = 64 << 10;

/// Stacks start at addresses that differ by this much within a page, bytes: the busy ends of all
/// stacks would else compete for the same few cache lines.
const COLOUR_BYTES: usize = 192;
const COLOURS: usize = 20;

/// One block of address space for all stacks: each is a guard page and [`STACK_BYTES`] above it.
pub(super) struct Stacks {
    start: NonNull<u8>,
    count: usize,
    stride: usize,
}

impl Stacks {
    /// Reserves room for `count` stacks; memory is taken as they are used.
    pub(super) fn reserve(count: usize) -> io::Result<Stacks> {
        let stride = STACK_BYTES + page_size();
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a fresh anonymous mapping at an address of the system's choice.
        let start =
            unsafe { libc::mmap(ptr::null_mut(), count * stride, libc::PROT_NONE, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast::<u8>()).ok_or_else(io::Error::last_os_error)?;
        Ok(Stacks { start, count, stride })
    }

    /// First address and one past the last, and the distance from stack to stack.
    pub(super) fn extent(&self) -> (usize, usize, usize) {
        let start = self.start.as_ptr() as usize;
        (start, start + self.count * self.stride, self.stride)
    }

    /// Makes stack `index` usable. Each index is taken once.
    fn take(&self, index: usize) -> io::Result<FiberStack> {
        assert!(index < self.count, "stack {index} of {}", self.count);
        // SAFETY: `index < count`, so the result lies in the reserved block.
        let guard = unsafe { self.start.add(index * self.stride) };
        // SAFETY: as above; the usable part follows the guard page.
        let usable = unsafe { guard.add(page_size()) };
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: changes the protection of pages of our own block.
        if unsafe { libc::mprotect(usable.as_ptr().cast(), STACK_BYTES, access) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let limit = guard.as_ptr() as usize;
        let colour = index % COLOURS * COLOUR_BYTES;
        let base = limit + self.stride - colour;
        match (StackPointer::new(base), StackPointer::new(limit)) {
            (Some(base), Some(limit)) => Ok(FiberStack { base, limit }),
            _ => Err(io::Error::other("a stack at address 0")),
        }
    }
}

struct FiberStack {
    base: NonZeroUsize,
    limit: NonZeroUsize,
}

// SAFETY: `limit` is the start of a PROT_NONE page, more than MIN_STACK_SIZE usable bytes follow it
// up to `base`, and `base` is a multiple of 64 (page minus colour).
unsafe impl Stack for FiberStack {
    fn base(&self) -> StackPointer {
        self.base
    }

    fn limit(&self) -> StackPointer {
        self.limit
    }
}

/// Where a running fiber gives up control; valid for the fiber's life.
pub(super) type Exit = *const Yielder<(), ()>;

/// A coroutine that is never dropped half way: see [`Fiber::abandon`].
pub(super) struct Fiber {
    coroutine: Coroutine<(), (), (), FiberStack>,
}

impl Fiber {
    /// A fiber on stack `index` that will call `body` at its first resumption. `body` must not
    /// return, and must not unwind.
    pub(super) fn new(stacks: &Stacks, index: usize, body: fn(usize, Exit)) -> io::Result<Fiber> {
        let stack = stacks.take(index)?;
        Ok(Fiber { coroutine: Coroutine::with_stack(stack, move |exit, ()| body(index, exit)) })
    }

    /// Runs the fiber until it suspends.
    #[inline]
    pub(super) fn resume(&mut self) {
        self.coroutine.resume(());
    }

    /// Forgets whatever the fiber was doing and makes it start at `body` again: the kernel's
    /// frames vanish as with `longjmp`.
    pub(super) fn abandon(self, index: usize, body: fn(usize, Exit)) -> Fiber {
        let mut coroutine = self.coroutine;
        // SAFETY: the frames are those of a C++ kernel compiled without exceptions and of our
        // callbacks, none of which holds an object whose `Drop` matters while suspended.
        unsafe { coroutine.force_reset() };
        let stack = coroutine.into_stack();
        Fiber { coroutine: Coroutine::with_stack(stack, move |exit, ()| body(index, exit)) }
    }
}

/// Gives up control until the next resumption.
///
/// # Safety
/// Called on the fiber that `exit` belongs to.
#[inline]
pub(super) unsafe fn suspend(exit: Exit) {
    // SAFETY: the yielder lives at the fiber's stack base as long as the fiber runs.
    unsafe { (*exit).suspend(()) };
}
