//! The control page: what the worker writes as it goes, at the head of the arena's file.

use std::io;
use std::sync::atomic::{AtomicI64, AtomicU32};

use super::super::memory::{Mapping, SharedFile};

/// What the worker writes as it goes, for the device to read when the worker is no more.
#[repr(C)]
pub(super) struct Control {
    pub(super) launch: AtomicU32,
    pub(super) block: [AtomicU32; 3],
    /// Linear index in the block.
    pub(super) thread: AtomicU32,
    /// 1 while a kernel runs.
    pub(super) running: AtomicU32,
    /// The signal that ended the worker, and its `si_code`.
    pub(super) signal: AtomicU32,
    pub(super) code: AtomicU32,
    /// Whether the address lies in the guard of a thread's stack.
    pub(super) overflow: AtomicU32,
    /// Whether the address lies within [`GUARD`](super::super::memory::GUARD) of the arena, and how far from its start.
    pub(super) near_arena: AtomicU32,
    pub(super) offset: AtomicI64,
    pub(super) address: AtomicI64,
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
