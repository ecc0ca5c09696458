//! What the worker tells of a checked run: findings by program counter and byte, not yet in words.

use serde::{Deserialize, Serialize};

use super::super::super::finding::{Access, Class, Kind, RaceModel, Severity};

/// What is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in super::super) struct Checks {
    /// A bit a class, in the order of [`Class::ALL`].
    classes: u8,
    pub(in super::super) model: RaceModel,
}

impl Checks {
    pub(in super::super) fn new(classes: &[Class], model: RaceModel) -> Checks {
        let classes = classes.iter().fold(0, |bits, class| bits | 1 << *class as u8);
        Checks { classes, model }
    }

    /// Whether anything is.
    pub(in super::super) fn any(self) -> bool {
        self.classes != 0
    }

    pub(super) fn has(self, class: Class) -> bool {
        self.classes >> class as u8 & 1 == 1
    }
}

/// A finding as the worker knows it. Program counters are counted from the module's start, and are
/// addresses after a call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(in super::super) struct WireFinding {
    pub(in super::super) kind: Kind,
    pub(in super::super) severity: Severity,
    pub(in super::super) launch: u32,
    pub(in super::super) block: [u32; 3],
    pub(in super::super) thread: u32,
    pub(in super::super) pc: u64,
    /// File and line, where the compiler's own description has them.
    pub(in super::super) line: Option<(String, u32)>,
    pub(in super::super) access: Option<Access>,
    pub(in super::super) target: Option<WireTarget>,
    pub(in super::super) other: Option<WireOther>,
    pub(in super::super) standing: Vec<WireStanding>,
    /// Whether it is one only if the threads stand at different lines, or came there by different
    /// calls: the compiler may have made two places of one.
    pub(in super::super) if_lines_differ: bool,
    pub(in super::super) detail: String,
    pub(in super::super) count: u64,
}

/// What was accessed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(in super::super) enum WireTarget {
    /// Bytes from the arena's start.
    Arena(i64),
    /// Bytes from the start of the module's thread-local segment.
    Shared(usize),
    Private,
    Address(u64),
}

/// The other side of a race.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(in super::super) struct WireOther {
    pub(in super::super) block: [u32; 3],
    pub(in super::super) thread: u32,
    pub(in super::super) pc: u64,
    pub(in super::super) access: Access,
}

/// Threads that stand at one place; without one they have returned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(in super::super) struct WireStanding {
    pub(in super::super) threads: Vec<u32>,
    pub(in super::super) what: String,
    pub(in super::super) pc: Option<u64>,
}
