//! What can be wrong with a trace, and with one event in it.

use std::path::PathBuf;

/// Why a trace file cannot be judged at all.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TraceError {
    /// The operating system refused to open or read it.
    #[error("{}: cannot {action}: {source}", file.display())]
    Io {
        /// The file.
        file: PathBuf,
        /// `open` or `read`.
        action: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// A folder, a device.
    #[error("{}: is not a file of lines; give a trace, one JSON object a line", file.display())]
    NotAFile {
        /// The file.
        file: PathBuf,
    },
    /// Nothing in it that could be judged.
    #[error(
        "{}: no known event in {lines}; a trace has one JSON object a line, with `event` \
         attn_vacc_trace, v_addr_trace or attn_softmax_trace, or with `phase` and `top1_id`",
        file.display()
    )]
    NoEvent {
        /// The file.
        file: PathBuf,
        /// How many lines it has, and what became of them.
        lines: String,
    },
}

/// Why a known event cannot be judged: the field, its value, and what it must be.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum FieldError {
    /// A field that the judgement needs is absent.
    #[error("`{field}` is missing; an event without it cannot be judged")]
    Missing {
        /// The field.
        field: String,
    },
    /// A value of another type.
    #[error("`{field}` is {value}; write {want}")]
    Kind {
        /// The field, with the index of an element.
        field: String,
        /// What the file says, clipped.
        value: String,
        /// What it takes.
        want: &'static str,
    },
    /// A number that is not finite.
    #[error("`{field}` is not a finite number; nothing can be computed from it")]
    NotFinite {
        /// The field, with the index of an element.
        field: String,
    },
    /// A number that no f32 holds.
    #[error(
        "`{field}` is {value:e}, beyond the largest f32 3.403e38; a kernel's numbers fit in one"
    )]
    TooLarge {
        /// The field, with the index of an element.
        field: String,
        /// Its value.
        value: f64,
    },
    /// An array of another length than the header says.
    #[error("`{field}` has {got} elements, but `{by}` is {want}")]
    Length {
        /// The field, with the index of a row.
        field: String,
        /// Elements there.
        got: usize,
        /// The header key that says how many.
        by: &'static str,
        /// What it says.
        want: u64,
    },
    /// A number below what it can be.
    #[error("`{field}` is {value}; it must be at least {least}")]
    TooSmall {
        /// The field.
        field: &'static str,
        /// Its value.
        value: f64,
        /// The least it can be.
        least: u64,
    },
    /// A number above another one that it cannot exceed.
    #[error("`{field}` is {value}, more than {limit}")]
    Exceeds {
        /// The field.
        field: &'static str,
        /// Its value.
        value: u64,
        /// What limits it, and its value.
        limit: String,
    },
}
