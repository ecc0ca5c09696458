//! What a checked run found: faults of memory, order and arithmetic, each at its line of the source.

use std::fmt;
use std::path::PathBuf;

use super::Place;
pub use crate::data::access;

/// A class of checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Accesses outside of what a kernel may touch.
    Memory,
    /// Accesses that nothing orders.
    Race,
    /// Values that nothing has set.
    Init,
    /// Barriers and wave operations that not everyone reaches; loops that never end.
    Barrier,
    /// Integer arithmetic without a defined result.
    Arith,
}

impl Class {
    /// All of them, the gravest first.
    pub const ALL: [Class; 5] =
        [Class::Memory, Class::Race, Class::Init, Class::Barrier, Class::Arith];

    /// Its name on the command line and in results.
    pub fn name(self) -> &'static str {
        match self {
            Class::Memory => "memory",
            Class::Race => "race",
            Class::Init => "init",
            Class::Barrier => "barrier",
            Class::Arith => "arith",
        }
    }

    /// The property that a finding of the class breaks.
    pub fn property(self) -> &'static str {
        match self {
            Class::Memory => "sanitize/memory",
            Class::Race => "sanitize/race",
            Class::Init => "sanitize/init",
            Class::Barrier => "sanitize/barrier",
            Class::Arith => "sanitize/arith",
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What orders the lanes of a wave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub enum RaceModel {
    /// Barriers, `__syncwarp`, shuffles, votes and atomics only, as on NVIDIA since Volta.
    #[default]
    Sync,
    /// Also the program: lanes advance together, instruction by instruction, as on AMD.
    Lockstep,
}

/// What a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum Kind {
    /// An access to the arena where nothing, or not this, is allowed.
    Bounds,
    /// A write into what is only to be read.
    ReadOnly,
    /// An access beyond an array of shared memory.
    SharedBounds,
    /// An index beyond an array's end, as declared.
    Index,
    /// An address that is no multiple of what its type asks for.
    Misaligned,
    /// An access to no memory of the kernel's at all.
    Wild,
    /// An access to another thread's own variables.
    OtherStack,
    /// A block that writes one sequence's output reads another's rows.
    OtherSequence,
    /// A read that a write by another thread may overtake, or that may overtake it.
    ReadWrite,
    /// A write that may overtake a read, or be overtaken by it.
    WriteRead,
    /// Two writes of which either may be the last.
    WriteWrite,
    /// A read of memory that nothing has written.
    Uninitialised,
    /// A value taken from a lane that does not exist.
    AbsentLane,
    /// An output that nothing has written.
    Unwritten,
    /// A barrier that a part of the block reaches, while the rest has returned.
    PartOfBlock,
    /// Two barriers that each are reached by a part of the block.
    TwoBarriers,
    /// A wave operation reached by a part of its lanes, or with a wrong mask.
    PartOfWave,
    /// Threads that wait for each other.
    Deadlock,
    /// A loop that never ends.
    Endless,
    /// Signed overflow.
    Overflow,
    /// A shift by too much, or by less than nothing.
    Shift,
    /// A division by zero, or one that overflows.
    Division,
}

impl Kind {
    /// Its class.
    pub fn class(self) -> Class {
        match self {
            Kind::Bounds
            | Kind::ReadOnly
            | Kind::SharedBounds
            | Kind::Index
            | Kind::Misaligned
            | Kind::Wild
            | Kind::OtherStack
            | Kind::OtherSequence => Class::Memory,
            Kind::ReadWrite | Kind::WriteRead | Kind::WriteWrite => Class::Race,
            Kind::Uninitialised | Kind::AbsentLane | Kind::Unwritten => Class::Init,
            Kind::PartOfBlock
            | Kind::TwoBarriers
            | Kind::PartOfWave
            | Kind::Deadlock
            | Kind::Endless => Class::Barrier,
            Kind::Overflow | Kind::Shift | Kind::Division => Class::Arith,
        }
    }

    /// A word for results.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Bounds => "out-of-bounds",
            Kind::ReadOnly => "read-only",
            Kind::SharedBounds => "shared-out-of-bounds",
            Kind::Index => "index",
            Kind::Misaligned => "misaligned",
            Kind::Wild => "wild",
            Kind::OtherStack => "other-thread",
            Kind::OtherSequence => "other-sequence",
            Kind::ReadWrite => "read-after-write",
            Kind::WriteRead => "write-after-read",
            Kind::WriteWrite => "write-after-write",
            Kind::Uninitialised => "uninitialised",
            Kind::AbsentLane => "absent-lane",
            Kind::Unwritten => "unwritten",
            Kind::PartOfBlock => "part-of-block",
            Kind::TwoBarriers => "two-barriers",
            Kind::PartOfWave => "part-of-wave",
            Kind::Deadlock => "deadlock",
            Kind::Endless => "endless",
            Kind::Overflow => "overflow",
            Kind::Shift => "shift",
            Kind::Division => "division",
        }
    }
}

/// Whether a finding is a fault.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Default,
    serde::Serialize,
    serde::Deserialize,
)]
pub enum Severity {
    /// It is: the kernel may go wrong.
    #[default]
    Fault,
    /// Nothing comes of it: told, and not held against the kernel.
    Note,
}

impl Severity {
    /// Its name in results.
    pub fn name(self) -> &'static str {
        match self {
            Severity::Fault => "fault",
            Severity::Note => "note",
        }
    }
}

/// A line of the source.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Line {
    /// The file, as the compiler was told.
    pub file: PathBuf,
    /// The line, from 1; 0 where none is known.
    pub line: u32,
    /// The function, as declared.
    pub function: String,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.file.file_name().unwrap_or(self.file.as_os_str()).to_string_lossy();
        match self.line {
            0 => write!(f, "an unknown line"),
            line => write!(f, "{name}:{line}"),
        }
    }
}

/// Where in the source something happened: the line, and the calls that led there.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Site {
    /// The user's own line.
    pub line: Line,
    /// The lines of the calls around it, from the innermost; of functions that were inlined.
    pub callers: Vec<Line>,
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.line)?;
        for caller in &self.callers {
            write!(f, ", called at {caller}")?;
        }
        Ok(())
    }
}

/// How memory was accessed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Access {
    /// Whether it is a write (an atomic update is one).
    pub write: bool,
    /// Whether it is atomic.
    pub atomic: bool,
    /// Bytes.
    pub bytes: u64,
}

impl Access {
    /// `reads 4 bytes of`, `updates …`.
    pub fn verb(self) -> &'static str {
        match (self.write, self.atomic) {
            (false, false) => "reads",
            (true, false) => "writes",
            (false, true) => "reads atomically",
            (true, true) => "updates atomically",
        }
    }
}

/// What was accessed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A byte of the arena, counted from its start; may lie outside.
    Arena(i64),
    /// Shared memory.
    Shared {
        /// The array's name in the source; of the nearest one where the access is beyond it.
        array: String,
        /// Bytes from its start.
        offset: i64,
        /// Bytes that the array has.
        bytes: usize,
    },
    /// A variable of a thread's own.
    Private,
    /// Some other address.
    Address(u64),
}

/// The other access of a race.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Other {
    /// Which thread.
    pub place: Place,
    /// Its linear index in its block.
    pub thread: u32,
    /// Where in the source.
    pub site: Site,
    /// How.
    pub access: Access,
}

/// Threads of a block that stand at one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Linear indices of the threads, ascending.
    pub threads: Vec<u32>,
    /// What they do there: `wait at __syncthreads`.
    pub what: String,
    /// Where; `None` for threads that have returned.
    pub site: Option<Site>,
}

/// One fault, found in one run.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// What it is.
    pub kind: Kind,
    /// Whether it is a fault.
    pub severity: Severity,
    /// The thread; `None` where none can be named.
    pub place: Option<Place>,
    /// Linear index of the thread in its block, and its wave and lane.
    pub thread: u32,
    /// The wave in the block.
    pub wave: u32,
    /// The lane in the wave.
    pub lane: u32,
    /// Where in the source.
    pub site: Site,
    /// The access, where it is one.
    pub access: Option<Access>,
    /// What was accessed.
    pub target: Option<Target>,
    /// The other side of a race.
    pub other: Option<Other>,
    /// Where the threads of the block stand.
    pub standing: Vec<Standing>,
    /// What else there is to say.
    pub detail: String,
    /// How often it happened in the run.
    pub count: u64,
}

impl Finding {
    /// What makes two findings the same fault: the kind and the line; of a race the two lines, of
    /// which either may come first.
    pub fn key(&self) -> String {
        match &self.other {
            Some(other) => {
                let mut lines = [self.site.line.to_string(), other.site.line.to_string()];
                lines.sort();
                format!("{}@{}", self.kind.class(), lines.join("+"))
            }
            // Past the end of a sequence's rows another's may follow.
            None if self.kind == Kind::OtherSequence => {
                format!("{}@{}", Kind::Bounds.name(), self.site.line)
            }
            None => format!("{}@{}", self.kind.name(), self.site.line),
        }
    }
}
