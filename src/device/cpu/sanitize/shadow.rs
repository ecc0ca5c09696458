//! Who touched which memory last: a cell for every four bytes that may be written, or two of them.
//!
//! Epochs as in FastTrack (Flanagan & Freund 2009): a record is a thread and a time, and whether it
//! comes before the running thread is a comparison of times (`order`). Two readers are kept. A
//! reader that another one comes after need not be: whatever comes after the second also comes
//! after the first. Of three that nothing orders, two of different waves stay, so that a write by
//! either wave meets a reader of the other.
//!
//! A word of four bytes has one cell as long as all accesses take it whole, and from then on one for
//! each half: 16-bit floats are the smallest elements that a kernel shares out. A record of a half says
//! which of its two bytes it is about; of two threads that write one each, the later replaces the
//! earlier.

use std::io;
use std::marker::PhantomData;
use std::ops::Range;
use std::ptr::{self, NonNull};

/// Bytes of memory that a cell stands for, and half of it.
pub(super) const WORD: usize = 4;
const HALF: usize = WORD / 2;

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
    /// Of a write that stored what was there: it is kept as a reader.
    pub(super) const SILENT: u16 = 1 << 11;
    pub(super) const NONE: Record = Record { time: 0, thread: 0, how: 0, pc: 0 };

    /// Bits of `how`: the record is not about the first or the second byte of its half.
    const NOT: [u16; 2] = [1 << 9, 1 << 10];

    /// The record for the bytes of a cell that are touched: first and second, or both.
    pub(super) fn of(self, bytes: [bool; 2]) -> Record {
        let not = |i: usize| if bytes[i] { 0 } else { Record::NOT[i] };
        Record { how: self.how | not(0) | not(1), ..self }
    }

    /// Whether the two are about a byte in common.
    pub(super) fn meets(self, other: Record) -> bool {
        let left_out = (self.how | other.how) & (Record::NOT[0] | Record::NOT[1]);
        left_out != Record::NOT[0] | Record::NOT[1]
    }

    /// Bytes of the access.
    pub(super) fn bytes(self) -> u64 {
        u64::from(self.how & 0xff)
    }

    pub(super) fn is_silent(self) -> bool {
        self.how & Record::SILENT != 0
    }

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
    /// Not 0 where the word's halves have cells of their own.
    split: u32,
}

impl Cell {
    /// What was there before, as the cell is split now.
    pub(super) fn restore(&mut self, before: Cell) {
        (self.write, self.reads) = (before.write, before.reads);
    }

    /// Whether the cell stands for its whole word.
    #[inline]
    pub(super) fn is_whole(&self) -> bool {
        self.split == 0
    }
}

/// The cells of a stretch of memory.
pub(super) struct Shadow {
    words: Zeroed<Cell>,
    halves: Zeroed<Cell>,
}

impl Shadow {
    pub(super) fn empty() -> Shadow {
        Shadow { words: Zeroed::empty(), halves: Zeroed::empty() }
    }

    /// Cells for so many bytes, in which nobody has touched anything.
    pub(super) fn new(bytes: usize) -> io::Result<Shadow> {
        let words = bytes / WORD + 1;
        Ok(Shadow { words: Zeroed::new(words)?, halves: Zeroed::new(2 * words)? })
    }

    /// Bytes that it has cells for.
    pub(super) fn bytes(&self) -> usize {
        self.words.len() * WORD
    }

    /// The cell of each whole word.
    #[inline]
    pub(super) fn words(&mut self) -> &mut [Cell] {
        self.words.items()
    }

    /// Visits the cells of some bytes, with which of the two bytes of a half are among them.
    pub(super) fn visit(
        &mut self,
        bytes: Range<usize>,
        mut look: impl FnMut(&mut Cell, [bool; 2]),
    ) {
        for word in bytes.start / WORD..=(bytes.end - 1) / WORD {
            let whole = bytes.start <= word * WORD && (word + 1) * WORD <= bytes.end;
            let cell = &mut self.words.items()[word];
            if whole && cell.is_whole() {
                look(cell, [true; 2]);
                continue;
            }
            let halves = &mut self.halves.items()[2 * word..2 * word + 2];
            if cell.is_whole() {
                halves.fill(*cell);
                cell.split = 1;
            }
            for (i, half) in halves.iter_mut().enumerate() {
                let start = word * WORD + i * HALF;
                let touched = [bytes.contains(&start), bytes.contains(&(start + 1))];
                if touched != [false; 2] {
                    look(half, touched);
                }
            }
        }
    }
}

/// Memory that is zero until it is touched, and takes none before.
struct Zeroed<T> {
    start: NonNull<T>,
    count: usize,
    owns: PhantomData<T>,
}

/// What all bits zero are a value of.
///
/// # Safety
/// They are.
unsafe trait Plain: Copy {}

// SAFETY: integers only.
unsafe impl Plain for Cell {}

impl<T: Plain> Zeroed<T> {
    fn new(count: usize) -> io::Result<Zeroed<T>> {
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
    fn empty() -> Zeroed<T> {
        Zeroed { start: NonNull::dangling(), count: 0, owns: PhantomData }
    }

    /// Items.
    fn len(&self) -> usize {
        self.count
    }

    /// All of them.
    #[inline]
    fn items(&mut self) -> &mut [T] {
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
