//! Devices: compile a kernel source, run its launches over an image of device memory.
//!
//! One trait, [`Device`], stands for every machine that a kernel can run on. All tensors of a run
//! lie in one *arena*: a byte image, laid out by the caller, in which every buffer has guard zones
//! around it. The caller fills the image, the device runs the launches on it, and the caller finds
//! in the same image what the kernel left. So poison, guard zones and "nothing else was written"
//! are checked in one place for every device, and a GPU needs one upload and one download a run.
//!
//! `unsafe` is allowed on this floor only.

pub(crate) mod cache;
mod check;
pub mod cpu;
pub(crate) mod declared;
pub(crate) mod diagnostics;
pub mod finding;
pub mod gpu;
pub(crate) mod headers;
pub(crate) mod includes;
pub mod interrupt;
mod memory;
mod params;
pub mod signature;
mod timing;
mod wire;

pub use memory::{available_memory, keep_freed_memory};
pub use timing::{Subject, Telemetry, Timed, Timing};

use crate::problem::named;
use finding::Finding;
use signature::Signature;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Alignment, in bytes, of the arena's first byte on every device.
pub const ARENA_ALIGN: usize = 4096;

/// The most dynamic shared memory that a launch may ask for, bytes: the largest of any GPU's.
pub const MAX_SHARED_BYTES: u32 = 160 * 1024;

named! {
    /// How the lanes of a wave advance between the operations that join them.
    #[derive(Default)]
    Lanes, "way of lanes", {
        /// Each at its own pace, as on NVIDIA since Volta: only barriers and wave operations order them.
        #[default]
        Independent = "independent",
        /// Together, access by access, as on AMD.
        Lockstep = "lockstep",
    }
}

/// A kernel source and how to compile it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Source {
    /// The file, as its user knows it: compiler messages name it.
    pub file: PathBuf,
    /// Folders searched by `#include`, in order, besides the source's own.
    pub include_dirs: Vec<PathBuf>,
    /// Preprocessor definitions, in order: name and text.
    pub defines: Vec<(String, String)>,
    /// Name expressions of the kernels wanted (`k`, `ns::k`, `k<float, 128>`).
    pub entries: Vec<String>,
    /// Lanes of a wave (32 or 64) that `warpSize` is to be.
    pub wave: u32,
}

/// What a kernel's parameter is, as the compiler sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum ParamKind {
    /// A pointer.
    Pointer,
    /// An integer (or bool, or enum) of so many bytes.
    Int(u8),
    /// A floating-point number of so many bytes.
    Float(u8),
    /// A value of so many bytes, of which no more is known.
    Sized(u32),
    /// Anything else (a struct by value), of so many bytes.
    Other(u32),
}

/// A compiled source. Cheap to clone; valid on the device that compiled it.
#[derive(Debug, Clone)]
pub struct Module {
    /// Hash of everything that the binary depends on, hexadecimal.
    pub hash: Arc<str>,
    /// The loadable binary.
    pub file: Arc<PathBuf>,
    /// [`Source::entries`], for messages.
    pub entries: Arc<Vec<String>>,
    /// The names of the entries in the binary, where the device finds them by name.
    pub kernels: Arc<Vec<String>>,
    /// For each of [`Source::entries`], its parameters; `None` where the device cannot tell.
    pub params: Arc<Vec<Option<Vec<ParamKind>>>>,
    /// For each of [`Source::entries`], what its binary says of it besides; may be shorter.
    pub signatures: Arc<Vec<Signature>>,
    /// The wave size that it was compiled for.
    pub wave: u32,
    /// What the compiler said of it.
    pub log: Arc<str>,
}

impl Module {
    /// A module that nothing compiled, of so many entries: for launches that are looked at, not made.
    pub fn uncompiled(entries: usize, wave: u32) -> Module {
        Module {
            hash: "".into(),
            file: Arc::default(),
            entries: Arc::default(),
            kernels: Arc::default(),
            params: Arc::new(vec![None; entries]),
            signatures: Arc::default(),
            wave,
            log: "".into(),
        }
    }
}

/// A kernel argument.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Arg {
    /// The address of a byte of the arena, counted from its start.
    Address(usize),
    /// A null pointer.
    Null,
    /// A signed or unsigned 32-bit integer, by its bits.
    Bits32(u32),
    /// A signed or unsigned 64-bit integer, by its bits.
    Bits64(u64),
    /// A 32-bit float.
    F32(f32),
    /// A 64-bit float.
    F64(f64),
}

/// One kernel launch.
#[derive(Debug, Clone)]
pub struct Launch {
    /// The module.
    pub module: Module,
    /// Which of the module's entries.
    pub entry: usize,
    /// Blocks along x, y, z; each at least 1.
    pub grid: [u32; 3],
    /// Threads of a block along x, y, z; each at least 1.
    pub block: [u32; 3],
    /// Dynamic shared memory, bytes.
    pub shared_bytes: u32,
    /// Arguments in order.
    pub args: Vec<Arg>,
}

/// One of several runs side by side, each on a stretch of the arena of its own.
#[derive(Debug, Clone)]
pub struct Stretch {
    /// The bytes that its launches use; a multiple of [`ARENA_ALIGN`] in place and number.
    pub bytes: Range<usize>,
    /// Its launches, in order.
    pub launches: Vec<Launch>,
    /// Bytes that it may write, and that are wanted.
    pub outputs: Vec<Range<usize>>,
    /// Bytes that it may write, and that nobody wants.
    pub scratch: Vec<Range<usize>>,
}

/// Bytes of the arena that are made of others of it: copied, with an element in place of those whose
/// bits are all set. Places and numbers are multiples of 8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exchange {
    /// What is copied begins here.
    pub from: usize,
    /// Where the copy begins: behind all that is copied.
    pub to: usize,
    /// Bytes.
    pub bytes: usize,
    /// Of an element: 1, 2, 4 or 8.
    pub size: usize,
    /// The new element, as often as 8 bytes hold it.
    pub element: [u8; 8],
}

impl Exchange {
    /// Makes those of the bytes that lie in a range, and a few around it.
    ///
    /// # Panics
    /// If the copy does not begin behind what is copied.
    pub fn make(&self, within: Range<usize>, arena: &mut [u8]) {
        let begin = within.start.saturating_sub(self.to).min(self.bytes) / 8 * 8;
        let end = within.end.saturating_sub(self.to).min(self.bytes).next_multiple_of(8);
        if begin >= end {
            return;
        }
        let (before, to) = arena.split_at_mut(self.to);
        let (from, to) = (&before[self.from..][begin..end], &mut to[begin..end]);
        for (from, to) in from.as_chunks::<8>().0.iter().zip(to.as_chunks_mut::<8>().0) {
            let elements = from.chunks_exact(self.size).zip(self.element.chunks_exact(self.size));
            for (to, (old, new)) in to.chunks_exact_mut(self.size).zip(elements) {
                let is_set = old.iter().all(|byte| *byte == 0xff);
                to.copy_from_slice(if is_set { new } else { old });
            }
        }
    }
}

/// Runs side by side. The arena stays as it was filled; what the runs left lies apart.
pub trait SideBySide {
    /// Makes runs, at most [`MOST_SIDE_BY_SIDE`]. Of each, the first byte of the arena that it changed
    /// and might not. `exchanges`, at most [`MOST_EXCHANGES`], fill the arena where the caller has not:
    /// from the first of their places on.
    ///
    /// # Errors
    /// As [`Device::run`]; it is not told whose fault it was.
    fn run(
        &mut self,
        runs: &[Stretch],
        exchanges: &[Exchange],
        time_limit: Duration,
    ) -> Result<Vec<Option<usize>>, RunError>;

    /// Makes the exchanges on the host's side, too, where they touch a range.
    fn exchange(&mut self, within: Range<usize>);

    /// The arena as it was filled for the runs; where by exchanges, after [`SideBySide::exchange`].
    fn given(&self) -> &[u8];

    /// The arena as the runs left it: their outputs, and nothing else.
    fn left(&self) -> &[u8];
}

/// Runs that [`SideBySide::run`] makes at once.
pub const MOST_SIDE_BY_SIDE: usize = 16;

/// Exchanges that [`SideBySide::run`] makes at once.
pub const MOST_EXCHANGES: usize = 100;

/// Where in a launch something happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Which launch of the run, from 0.
    pub launch: usize,
    /// Block coordinates.
    pub block: [u32; 3],
    /// Thread coordinates in the block.
    pub thread: [u32; 3],
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [bx, by, bz] = self.block;
        let [x, y, z] = self.thread;
        write!(f, "launch {}, block ({bx},{by},{bz}), thread ({x},{y},{z})", self.launch)
    }
}

/// Why a source did not become a module.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum CompileError {
    /// There is no compiler.
    #[error("{0}")]
    NoCompiler(String),
    /// The compiler refused the source: its errors, with the user's own file and lines.
    #[error("{file} does not compile:{errors}")]
    Rejected {
        /// The source file.
        file: String,
        /// The first error, `file:line:column: error: text`.
        first: String,
        /// The errors as they are told after the file's name: each with the source line and the caret.
        errors: String,
        /// Everything that the compiler said.
        all: String,
    },
    /// The process was interrupted ([`interrupt`]) before the compiler had ended.
    #[error("interrupted")]
    Interrupted,
    /// The cache cannot be written, a file cannot be read, and the like.
    #[error("{what}: {why}")]
    Io {
        /// What was being done, with the path.
        what: String,
        /// What the system said, and how to mend it.
        why: String,
    },
}

impl CompileError {
    /// A refusal of a file in one sentence.
    pub(crate) fn rejected(file: &Path, why: String) -> CompileError {
        let file = file.display().to_string();
        CompileError::Rejected { file, first: why.clone(), errors: format!(" {why}"), all: why }
    }

    /// A file that cannot be read.
    pub(crate) fn reading(path: &Path, error: &std::io::Error) -> CompileError {
        CompileError::Io { what: format!("reading {}", path.display()), why: error.to_string() }
    }

    /// A compiler's output that makes no sense.
    fn odd(path: &Path, why: impl Into<String>) -> CompileError {
        let what = format!("reading the compiler's output {}", path.display());
        CompileError::Io { what, why: why.into() }
    }
}

/// The absolute path of a file or folder, which need not be there.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf, CompileError> {
    std::path::absolute(path).map_err(|e| CompileError::reading(path, &e))
}

/// What a kernel did wrong while it ran. The device goes on; the run's results are void.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// A signal, or a GPU's memory fault.
    #[error("the kernel crashed: {what}{}", at(.place))]
    Crash {
        /// The signal by name, and the address where one is known.
        what: String,
        /// For a memory fault: the byte of the arena, counted from its start (may be negative).
        arena_offset: Option<i64>,
        /// Which thread was running.
        place: Option<Place>,
    },
    /// The kernel wrote over its own stack.
    #[error(
        "the kernel overwrote its own stack (a private array is written past its end, or before its \
         start): {how}{}; run with --sanitize=memory to see where",
        at(.place)
    )]
    StackOverwritten {
        /// How it was seen.
        how: &'static str,
        /// Which thread was running.
        place: Option<Place>,
    },
    /// The time limit passed.
    #[error("the kernel did not end within {limit:?}{} (--time-limit sets the limit)", at(.place))]
    Timeout {
        /// The limit.
        limit: Duration,
        /// Which thread was running.
        place: Option<Place>,
    },
    /// Threads wait for each other for ever, or outside what the hardware allows.
    #[error("the kernel hangs: {what}{}", at(.place))]
    Deadlock {
        /// Who waits where.
        what: String,
        /// One of the waiting threads.
        place: Option<Place>,
    },
    /// Shared memory beyond `shared_bytes` was written.
    #[error("the kernel wrote dynamic shared memory past its {bytes} bytes{}", at(.place))]
    SharedOverrun {
        /// The launch's `shared_bytes`.
        bytes: u32,
        /// The block (thread (0,0,0) stands for all of its threads).
        place: Option<Place>,
    },
    /// The kernel called `trap`, `abort` or a failing `assert`.
    #[error("the kernel stopped itself: {what}{}", at(.place))]
    Trap {
        /// What it said.
        what: String,
        /// Which thread was running.
        place: Option<Place>,
    },
    /// The checker ended the run, as it could not go on after what it found.
    #[error("the run was ended by what the checker found")]
    Found,
}

fn at(place: &Option<Place>) -> String {
    place.map_or(String::new(), |p| format!(" at {p}"))
}

/// Why a run has no result.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The kernel's own fault.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// The launch cannot be made on this device: arguments that do not match the kernel's
    /// parameters, a block too large, too much shared memory.
    #[error("{0}")]
    Refused(String),
    /// The process was interrupted ([`interrupt`]) before the run had ended.
    #[error("interrupted")]
    Interrupted,
    /// The device itself failed (its process could not be started, the library broke).
    #[error("the device failed: {0}")]
    Device(String),
}

/// A machine that runs kernels, owned by one host thread.
pub trait Device: Send {
    /// A name for reports, such as `cpu (g++ 12.2.0, x86_64)`.
    fn describe(&self) -> String;

    /// The wave sizes that it can run.
    fn waves(&self) -> &[u32];

    /// Compiles a source, or finds it compiled.
    ///
    /// # Errors
    /// [`CompileError`].
    fn compile(&self, source: &Source) -> Result<Module, CompileError>;

    /// Host memory for the next run's image: `bytes` bytes, whose contents are unspecified until
    /// the caller has written them. After [`Device::run`] the same bytes are what the run left.
    ///
    /// # Errors
    /// [`RunError::Device`] where there is not so much memory.
    fn arena(&mut self, bytes: usize) -> Result<&mut [u8], RunError>;

    /// As [`Device::arena`], for an image of which little is written: all of it is 0, and takes memory
    /// only where it is touched, as far as the device can.
    ///
    /// # Errors
    /// [`RunError::Device`] where there is no such room.
    fn sparse_arena(&mut self, bytes: usize) -> Result<&mut [u8], RunError> {
        let arena = self.arena(bytes)?;
        arena.fill(0);
        Ok(arena)
    }

    /// Runs side by side, of a device on which several cost hardly more than one.
    fn side_by_side(&mut self) -> Option<&mut dyn SideBySide> {
        None
    }

    /// Times launches. By the host's clock, with what a run costs besides, unless the device has one.
    ///
    /// # Errors
    /// As [`Device::run`].
    fn time(&mut self, timing: &Timing, time_limit: Duration) -> Result<Vec<Timed>, RunError> {
        timing::by_host(self, timing, time_limit)
    }

    /// Multiprocessors, or compute units: how many blocks are under way at once, at least.
    fn units(&self) -> u32;

    /// The most shared memory of a block, bytes.
    fn shared_bytes(&self) -> u32 {
        MAX_SHARED_BYTES
    }

    /// The last-level cache, bytes; 0 where it is not known, or is none of the kernels'.
    fn cache_bytes(&self) -> u64 {
        0
    }

    /// Requests that were not done in time beside others, and were when they were made again alone.
    fn late(&self) -> u32 {
        0
    }

    /// The time that the device itself was busy with launches, where it has a clock.
    fn busy(&self) -> Option<Duration> {
        None
    }

    /// From now on a run that makes no progress for so long, in the time that its processor gives it, is
    /// ended, and its time limit is meant in the same way; with `None` only the time limit counts, by the
    /// clock. A device that cannot see progress has the time limit alone.
    fn watch(&mut self, idle: Option<Duration>) {
        let _ = idle;
    }

    /// How many times as long a run takes here as on a device of the kind that does nothing but run.
    fn slowdown(&self) -> u32 {
        1
    }

    /// Another device of the same kind, on which the lanes of a wave advance in lockstep; `None` where
    /// there is none, or they do so on this one.
    fn in_lockstep(&self) -> Option<Box<dyn Device>> {
        None
    }

    /// What shared memory is filled with before each block, from now on, where the device can: NaN in every
    /// float format (0xff) otherwise.
    fn fill_shared(&mut self, byte: u8) {
        let _ = byte;
    }

    /// Whether runs are checked.
    fn is_checked(&self) -> bool {
        false
    }

    /// Of a device that checks its runs: what each byte of the next run's image may be used for
    /// ([`finding::access`]), one byte a byte, all of them 0. `None` where runs are not checked.
    fn access_map(&mut self) -> Option<&mut [u8]> {
        None
    }

    /// The access map as the last run left it: what the kernel wrote holds a value.
    fn accessed(&self) -> Option<&[u8]> {
        None
    }

    /// What the last run's checks found, in order of discovery.
    fn findings(&mut self) -> Vec<Finding> {
        Vec::new()
    }

    /// Runs launches in order on the image. `order_seed` permutes the order of blocks and of the
    /// threads between barriers, where the device can.
    ///
    /// # Errors
    /// [`RunError`]. After a [`Fault`] the arena's contents are unspecified, and the device can be
    /// used again.
    fn run(
        &mut self,
        launches: &[Launch],
        order_seed: u64,
        time_limit: Duration,
    ) -> Result<(), RunError>;
}
