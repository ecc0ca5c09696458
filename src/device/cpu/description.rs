//! What is kept of a compiled kernel beside its code.

use serde::{Deserialize, Serialize};

use super::super::ParamKind;
use super::super::signature::Signature;

/// What is known of a binary besides its code.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Description {
    /// Source, compiler and flags, for whoever looks into the folder.
    pub(super) made_from: String,
    /// Parameters of each entry.
    pub(super) params: Vec<Vec<ParamKind>>,
    /// What else is known of each entry.
    pub(super) signatures: Vec<Signature>,
    /// Bytes of the thread-local segment: static shared memory and the dynamic block.
    pub(super) tls_bytes: usize,
    /// Where in it the dynamic block starts.
    pub(super) dynamic_offset: usize,
    /// What the segment holds.
    pub(super) arrays: Vec<SharedArray>,
}

/// A shared array of the source, or the dynamic block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SharedArray {
    /// As the source has it, with the functions around it.
    pub(super) name: String,
    /// Bytes from the segment's start.
    pub(super) offset: usize,
    /// Bytes; of the dynamic block all that it may have.
    pub(super) bytes: usize,
    pub(super) kind: SharedKind,
}

/// What lies in the thread-local segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum SharedKind {
    Static,
    Dynamic,
    /// The compiler's own note of whether an object has been made: no shared memory.
    Guard,
}
