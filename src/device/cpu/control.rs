//! The control page: what the worker writes as it goes, at the head of the arena's file.

use std::io;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64};

use super::super::memory::{Mapping, SharedFile};

/// What the worker writes as it goes, for the device to read when the worker is no more.
#[repr(C)]
pub(super) struct Control {
    pub(super) launch: AtomicU32,
    pub(super) block: [AtomicU32; 3],
    /// Linear index in the block.
    pub(super) thread: AtomicU32,
    /// Counts the turns that threads have had.
    pub(super) turns: AtomicU64,
    /// 1 while a kernel runs.
    pub(super) running: AtomicU32,
    /// The signal that ended the worker, and its `si_code`.
    pub(super) signal: AtomicU32,
    pub(super) code: AtomicU32,
    /// How it was seen that the kernel had overwritten its own stack ([`Overwritten`]); 0 if it had not.
    pub(super) overwritten: AtomicU32,
    /// Whether the worker's own program failed.
    pub(super) panicked: AtomicU32,
    /// Whether the address lies in the guard of a thread's stack.
    pub(super) overflow: AtomicU32,
    /// Whether the address lies within [`GUARD`](super::super::memory::GUARD) of the arena, and how far from its start.
    pub(super) near_arena: AtomicU32,
    pub(super) offset: AtomicI64,
    pub(super) address: AtomicI64,
}

/// How it was seen that a kernel had overwritten its own stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Overwritten {
    /// When a thread waited or ended, its caller's part of the stack was another.
    Caller = 1,
    /// The compiler's own check at the end of a function failed.
    Protector,
    /// It came back to an address where there is no code.
    Return,
    /// It wrote where a thread's stack ends, upwards.
    Above,
    /// It wrote where a thread's stack ends, downwards, from far above.
    Below,
}

impl Overwritten {
    const ALL: [Overwritten; 5] = [
        Overwritten::Caller,
        Overwritten::Protector,
        Overwritten::Return,
        Overwritten::Above,
        Overwritten::Below,
    ];

    /// What the worker wrote down.
    pub(super) fn of(number: u32) -> Option<Overwritten> {
        Overwritten::ALL.into_iter().find(|how| *how as u32 == number)
    }

    /// In words.
    pub(super) fn words(self) -> &'static str {
        match self {
            Overwritten::Caller => "the frame that called the kernel is changed",
            Overwritten::Protector => "the compiler's guard beside a function's arrays is changed",
            Overwritten::Return => "a function's return address is no longer one",
            Overwritten::Above => "the write went on to the end of the thread's memory",
            Overwritten::Below => "the write went on to the start of the thread's memory",
        }
    }
}

impl SharedFile {
    pub(super) fn map_control(&self) -> io::Result<Mapping> {
        self.map_head(size_of::<Control>())
    }
}

impl Mapping {
    /// The mapping as the control page.
    pub(super) fn control(&self) -> &Control {
        assert!(self.bytes() >= size_of::<Control>());
        // SAFETY: the mapping is large enough, page-aligned and lives as long as `self`; the
        // struct holds atomics only, for which any bits are valid and sharing is allowed.
        unsafe { &*self.start().cast::<Control>() }
    }
}
