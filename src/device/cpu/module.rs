//! A loaded binary: its kernels, its coordinates and its shared memory.

use std::path::Path;
use std::ptr;

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};

use super::super::cache::Slot;
use super::compile::{CANARY, DYNAMIC_CAPACITY};
use super::description::{Description, SharedArray};
use super::sanitize::{CHECKS, Callbacks, Plain};
use super::sched::{CALLS, Calls};

/// Calls a kernel with its arguments' words.
pub(super) type Entry = unsafe extern "C" fn(*const u64);

/// Hands a module the checker's table, and takes where its functions for the checker lie.
type AttachChecker = unsafe extern "C" fn(*const Callbacks, *const Plain, *mut [usize; 2]);

/// What shared memory holds when a block begins, unless another byte is asked for: NaN in every float format.
pub(super) const POISON: u8 = 0xff;
/// What lies after a launch's dynamic shared memory.
const CANARY_BYTE: u8 = 0xa5;

/// Where a module keeps what the scheduler writes; the same struct as in `device.h`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Attached {
    pub(super) thread_idx: *mut [u32; 3],
    pub(super) block_idx: *mut [u32; 3],
    pub(super) block_dim: *mut [u32; 3],
    pub(super) grid_dim: *mut [u32; 3],
    /// The dynamic block of the calling OS thread.
    pub(super) dynamic_shared: *mut u8,
}

impl Attached {
    pub(super) fn none() -> Attached {
        let none = ptr::null_mut();
        Attached {
            thread_idx: none,
            block_idx: none,
            block_dim: none,
            grid_dim: none,
            dynamic_shared: ptr::null_mut(),
        }
    }
}

/// A binary in this process. Never unloaded: its address may still be on an abandoned stack.
pub(super) struct Loaded {
    entries: Vec<Entry>,
    attach: unsafe extern "C" fn(*const Calls, *mut Attached),
    /// Of a checked binary: takes the checker's table.
    attach_checker: Option<AttachChecker>,
    /// Where it lies.
    extent: std::ops::Range<usize>,
    description: Description,
}

impl Loaded {
    pub(super) fn open(binary: &Path) -> Result<Loaded, String> {
        let gone = || format!("{} is no longer in the compile cache", binary.display());
        let description: Description = Slot::of_binary(binary).read().ok_or_else(gone)?;
        // SAFETY: loading runs the module's constructors, code of the user's that this process
        // exists to run.
        let library = unsafe { Library::open(Some(binary), RTLD_NOW | RTLD_LOCAL) }
            .map_err(|e| e.to_string())?;
        let mut entries = Vec::new();
        for index in 0..description.params.len() {
            // SAFETY: the wrapper defines it with this type.
            let entry = unsafe { library.get::<Entry>(format!("attnbench_call_{index}")) };
            entries.push(*entry.map_err(|e| e.to_string())?);
        }
        // SAFETY: `entry.h` defines it with this type.
        let attach = unsafe { library.get("attnbench_attach") };
        let attach = *attach.map_err(|e| e.to_string())?;
        // SAFETY: `checked.h` defines it with this type.
        let attach_checker = unsafe { library.get("attnbench_attach_checker") };
        let attach_checker = attach_checker.ok().map(|function| *function);
        std::mem::forget(library);
        let extent = extent(attach as usize);
        Ok(Loaded { entries, attach, attach_checker, extent, description })
    }

    /// Where the binary lies, first address and end.
    pub(super) fn extent(&self) -> std::ops::Range<usize> {
        self.extent.clone()
    }

    /// The shared arrays, by where they lie in the thread-local segment.
    pub(super) fn arrays(&self) -> &[SharedArray] {
        &self.description.arrays
    }

    /// The thread-local segment of the calling OS thread: first address and bytes.
    pub(super) fn shared_segment(&self, attached: &Attached) -> (usize, usize) {
        let Description { tls_bytes, dynamic_offset, .. } = self.description;
        (attached.dynamic_shared as usize - dynamic_offset, tls_bytes)
    }

    pub(super) fn entry(&self, index: usize) -> Option<Entry> {
        self.entries.get(index).copied()
    }

    /// Hands the module its table, and makes its thread-local block exist: that must not happen
    /// on a fiber's stack.
    pub(super) fn attach(&self) -> Attached {
        let mut attached = Attached::none();
        // SAFETY: the function writes the struct and the module's own variables.
        unsafe { (self.attach)(&raw const CALLS, &raw mut attached) };
        attached
    }

    /// Hands a checked module the checker's table; where its own functions for the checker lie is
    /// returned.
    pub(super) fn attach_checker(&self, plain: *const Plain) -> std::ops::Range<usize> {
        let mut ends = [0; 2];
        if let Some(attach) = self.attach_checker {
            // SAFETY: the function copies the table, keeps the pointer, which outlives the launch,
            // and writes two addresses.
            unsafe { attach(&raw const CHECKS, plain, &raw mut ends) };
        }
        ends[0]..ends[1]
    }

    /// Lays the canary for a launch with `shared_bytes` of dynamic shared memory, and poison behind it,
    /// where a launch with more of it may have left something.
    pub(super) fn begin_launch(&self, attached: &Attached, shared_bytes: usize) {
        assert!(shared_bytes <= DYNAMIC_CAPACITY);
        // SAFETY: the block has DYNAMIC_CAPACITY + CANARY bytes.
        unsafe {
            let canary = attached.dynamic_shared.add(shared_bytes);
            canary.write_bytes(CANARY_BYTE, CANARY);
            canary.add(CANARY).write_bytes(POISON, DYNAMIC_CAPACITY - shared_bytes);
        }
    }

    /// Fills all shared memory for a block.
    pub(super) fn begin_block(&self, attached: &Attached, shared_bytes: usize, fill: u8) {
        let Description { tls_bytes, dynamic_offset, .. } = self.description;
        let after = dynamic_offset + DYNAMIC_CAPACITY + CANARY;
        // SAFETY: the thread-local segment starts `dynamic_offset` before the dynamic block and
        // has `tls_bytes` bytes, as read from the binary; all of it is shared memory.
        unsafe {
            let start = attached.dynamic_shared.sub(dynamic_offset);
            start.write_bytes(fill, dynamic_offset + shared_bytes);
            start.add(after).write_bytes(fill, tls_bytes.saturating_sub(after));
        }
    }

    /// Whether the canary is untouched.
    pub(super) fn canary_holds(&self, attached: &Attached, shared_bytes: usize) -> bool {
        // SAFETY: the block has DYNAMIC_CAPACITY + CANARY bytes, and no kernel runs.
        let canary = unsafe {
            std::slice::from_raw_parts(attached.dynamic_shared.add(shared_bytes), CANARY)
        };
        canary.iter().fold(0, |odd, &byte| odd | (byte ^ CANARY_BYTE)) == 0
    }
}

/// Where the loaded object lies that has an address.
fn extent(inside: usize) -> std::ops::Range<usize> {
    let mut found = 0..0;
    let mut look = |info: &libc::dl_phdr_info| {
        let base = info.dlpi_addr as usize;
        // SAFETY: the loader's own table, of `dlpi_phnum` headers.
        let headers = unsafe { std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()) };
        let loaded = headers.iter().filter(|header| header.p_type == libc::PT_LOAD);
        let end = loaded.map(|h| (h.p_vaddr + h.p_memsz) as usize).max().unwrap_or(0);
        if (base..base + end).contains(&inside) {
            found = base..base + end;
        }
    };
    let mut look: &mut dyn FnMut(&libc::dl_phdr_info) = &mut look;
    // SAFETY: the callback gets the address of `look`, which outlives the call.
    unsafe { libc::dl_iterate_phdr(Some(each_object), (&raw mut look).cast()) };
    found
}

/// Hands one loaded object's description to the closure behind `data`.
unsafe extern "C" fn each_object(
    info: *mut libc::dl_phdr_info,
    _bytes: usize,
    data: *mut libc::c_void,
) -> libc::c_int {
    // SAFETY: `extent` passes the address of such a closure; the loader a valid description.
    unsafe { (*data.cast::<&mut dyn FnMut(&libc::dl_phdr_info)>())(&*info) };
    0
}
