//! Who touched which memory last: a cell for every two bytes that may be written.
//!
//! Epochs as in FastTrack (Flanagan & Freund 2009): a record is a thread and a time, and whether it
//! comes before the running thread is a comparison of times (`order`). Two readers are kept. A
//! reader that another one comes after need not be: whatever comes after the second also comes
//! after the first. Of three that nothing orders, two of different waves stay, so that a write by
//! either wave meets a reader of the other.
//!
//! Two bytes, as 16-bit floats are the smallest elements that a kernel shares out; of two threads
//! that write the two bytes of one cell, the later replaces the earlier.

use std::io;
use std::marker::PhantomData;
use std::ptr::{self, NonNull};

/// Bytes of memory that one cell stands for.
pub(super) const CELL: usize = 2;

/// One access: when, by whom, how, and from where. Time 0 is none.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Record {
    pub(super) time: u32,
    pub(super) thread: u16,
    /// [`Record::ATOMIC`] or 0, and the bytes of the access.
    pub(super) how: u16,
    /// Program counter, from the module's start.
    pub(super) pc: u32,
}

impl Record {
    pub(super) const ATOMIC: u16 = 1 << 8;

    pub(super) fn is_atomic(self) -> bool {
        self.how & Record::ATOMIC != 0
    }
}

/// The last write of a place, and two readers since.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Cell {
    pub(super) write: Record,
    pub(super) reads: [Record; 2],
}

/// Memory that is zero until it is touched, and takes none before.
pub(super) struct Zeroed<T> {
    start: NonNull<T>,
    count: usize,
    owns: PhantomData<T>,
}

/// What all bits zero are a value of.
///
/// # Safety
/// They are.
pub(super) unsafe trait Plain: Copy {}

// SAFETY: integers only.
unsafe impl Plain for Cell {}

impl<T: Plain> Zeroed<T> {
    pub(super) fn new(count: usize) -> io::Result<Zeroed<T>> {
        assert!(count > 0, "a mapping of nothing");
        let bytes = count * size_of::<T>();
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a fresh anonymous mapping at an address of the system's choice.
        let start = unsafe { libc::mmap(ptr::null_mut(), bytes, access, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast::<T>()).ok_or_else(io::Error::last_os_error)?;
        Ok(Zeroed { start, count, owns: PhantomData })
    }

    /// None.
    pub(super) fn empty() -> Zeroed<T> {
        Zeroed { start: NonNull::dangling(), count: 0, owns: PhantomData }
    }

    /// Items.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// All of them.
    pub(super) fn items(&mut self) -> &mut [T] {
        // SAFETY: the mapping has `count` items, for which zero bits are a value, and is borrowed
        // as long as `self` is.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.count) }
    }
}

impl<T> Drop for Zeroed<T> {
    fn drop(&mut self) {
        if self.count == 0 {
            return;
        }
        let bytes = self.count * size_of::<T>();
        // SAFETY: exactly the mapping made in `new`.
        unsafe { libc::munmap(self.start.as_ptr().cast(), bytes) };
    }
}
