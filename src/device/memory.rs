//! Memory that a device and its worker share: the arena, and a page before it for what else there is.
//!
//! Both processes map one memory file. The arena lies between stretches of address space that nothing may
//! touch, so an access that misses it by less than [`GUARD`] ends in a signal and not in
//! somebody's data.

use std::cmp::Ordering;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::{self, NonNull};

/// Address space kept free on either side of the arena, bytes.
pub(super) const GUARD: usize = 64 << 20;

/// Where the arena starts in the file: on any machine's page boundary.
const ARENA_AT: usize = 64 << 10;

/// The memory file.
pub(super) struct SharedFile {
    fd: OwnedFd,
}

impl SharedFile {
    pub(super) fn new() -> io::Result<SharedFile> {
        // SAFETY: the name is a C string; a descriptor or -1 comes back.
        let fd = unsafe { libc::memfd_create(c"attnbench-arena".as_ptr(), libc::MFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and nobody else's.
        let file = SharedFile { fd: unsafe { OwnedFd::from_raw_fd(fd) } };
        file.grow(0)?;
        Ok(file)
    }

    /// The same file once more.
    pub(super) fn again(&self) -> io::Result<SharedFile> {
        Ok(SharedFile { fd: self.fd.try_clone()? })
    }

    /// A file that another process made.
    pub(super) fn opened(file: std::fs::File) -> SharedFile {
        SharedFile { fd: file.into() }
    }

    /// Takes over an inherited descriptor.
    ///
    /// # Safety
    /// The descriptor is open and used by nothing else.
    pub(super) unsafe fn inherited(fd: i32) -> SharedFile {
        // SAFETY: as the caller promises.
        SharedFile { fd: unsafe { OwnedFd::from_raw_fd(fd) } }
    }

    pub(super) fn raw(&self) -> i32 {
        self.fd.as_raw_fd()
    }

    /// Makes all of an arena of `bytes` bytes zero, by giving its memory back.
    pub(super) fn clear(&self, bytes: usize) -> io::Result<()> {
        let length = libc::off_t::try_from(bytes).map_err(io::Error::other)?;
        let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        // SAFETY: the descriptor is open.
        match unsafe { libc::fallocate(self.raw(), mode, ARENA_AT as libc::off_t, length) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Makes room for an arena of `bytes` bytes.
    pub(super) fn grow(&self, bytes: usize) -> io::Result<()> {
        let size = libc::off_t::try_from(ARENA_AT + bytes).map_err(io::Error::other)?;
        // SAFETY: the descriptor is open.
        match unsafe { libc::ftruncate(self.raw(), size) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Maps the first `bytes` bytes of the file, before the arena.
    pub(super) fn map_head(&self, bytes: usize) -> io::Result<Mapping> {
        Mapping::new(&self.fd.try_clone()?, 0, bytes.min(ARENA_AT), 0)
    }

    /// Maps an arena of `bytes` bytes, with room around it that nothing may touch.
    pub(super) fn map_arena(&self, bytes: usize) -> io::Result<Mapping> {
        Mapping::new(&self.fd.try_clone()?, ARENA_AT, bytes, GUARD)
    }
}

/// A mapped part of the file, with untouchable space around it.
pub(super) struct Mapping {
    whole: NonNull<u8>,
    whole_bytes: usize,
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: a mapping belongs to its owner like a heap block; nothing in it is tied to a thread.
unsafe impl Send for Mapping {}

impl Mapping {
    fn new(fd: &OwnedFd, at: usize, bytes: usize, guard: usize) -> io::Result<Mapping> {
        let bytes_mapped = bytes.max(1).next_multiple_of(page_size());
        let whole_bytes = bytes_mapped + 2 * guard;
        let reserve = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a fresh anonymous mapping at an address of the system's choice.
        let whole =
            unsafe { libc::mmap(ptr::null_mut(), whole_bytes, libc::PROT_NONE, reserve, -1, 0) };
        if whole == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let whole = NonNull::new(whole.cast::<u8>()).ok_or_else(io::Error::last_os_error)?;
        // SAFETY: `guard` is less than the size of the block that was just reserved.
        let start = unsafe { whole.add(guard) };
        let mapping = Mapping { whole, whole_bytes, start, bytes };
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_FIXED;
        let (to, offset) = (start.as_ptr().cast(), at as libc::off_t);
        // SAFETY: the target lies inside the block reserved above, which is ours to replace.
        let part = unsafe { libc::mmap(to, bytes_mapped, access, flags, fd.as_raw_fd(), offset) };
        match part == libc::MAP_FAILED {
            true => Err(io::Error::last_os_error()),
            false => Ok(mapping),
        }
    }

    /// Makes the first `bytes` bytes accessible, in whole pages, and nothing beyond them. `open` are the
    /// pages' bytes that are so far; those that are now come back.
    pub(super) fn open_only(&self, bytes: usize, open: usize) -> io::Result<usize> {
        let wanted = bytes.min(self.bytes).next_multiple_of(page_size());
        let (from, to, access) = match wanted.cmp(&open) {
            Ordering::Equal => return Ok(open),
            Ordering::Less => (wanted, open, libc::PROT_NONE),
            Ordering::Greater => (open, wanted, libc::PROT_READ | libc::PROT_WRITE),
        };
        // SAFETY: the range lies inside the mapping, whose user asks for this.
        match unsafe { libc::mprotect(self.start().add(from).cast(), to - from, access) } {
            0 => Ok(wanted),
            _ => Err(io::Error::last_os_error()),
        }
    }

    pub(super) fn start(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly the block reserved in `new`; no reference into it outlives `self`.
        unsafe { libc::munmap(self.whole.as_ptr().cast(), self.whole_bytes) };
    }
}

/// Keeps memory that is given back for the next who asks, in place of returning it to the system: a
/// sweep takes and gives back megabytes a case, and each time the system would fill them with zeros.
/// For a program's start; nothing depends on it.
pub fn keep_freed_memory() {
    #[cfg(target_env = "gnu")]
    {
        // The most that it takes: half of a thread's heap.
        const MMAP_THRESHOLD: i32 = 32 << 20;
        let numbers = [
            (libc::M_MMAP_THRESHOLD, MMAP_THRESHOLD),
            (libc::M_TRIM_THRESHOLD, 1 << 30),
            // Heaps grow by a call that stops all threads.
            (libc::M_TOP_PAD, 8 << 20),
        ];
        for (which, number) in numbers {
            // SAFETY: sets a number of the C library's allocator.
            let taken = unsafe { libc::mallopt(which, number) };
            debug_assert_eq!(taken, 1, "mallopt({which}, {number})");
        }
    }
}

/// The system's page size, bytes.
pub(super) fn page_size() -> usize {
    // SAFETY: reads a constant.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(bytes).unwrap_or(4096)
}

/// Lets a child process inherit a descriptor. Called between fork and exec.
pub(super) fn keep_over_exec(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the descriptor is open; clears its close-on-exec flag.
    match unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Bytes that can be used without swapping, where the system tells.
pub fn available_memory() -> Option<usize> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<usize>().ok()?.checked_mul(1024)
}
