//! Timing kernels: how fast, beside the least that the memory allows, and beside others.
//!
//! A kernel is judged before it is timed, on the very buffers that it is timed on. The buffers are
//! *sets*, enough of them that the last-level cache never holds what the next call reads. A call is a
//! node of a graph that takes the sets in turn; a replay of the graph is timed by the device. Rounds
//! allocate the sets anew, as where they lie moves times by a percent, too.
//!
//! | subject | file |
//! | --- | --- |
//! | the named shapes, models, and ids | `shapes` |
//! | a cache whose elements the host knows without moving them | `data` |
//! | a kernel on a shape: buffers, launches, and reading alone | `workload` |
//! | whether what it left is right | `check` |
//! | medians, intervals, and what two of them say of each other | `stats` |
//! | rounds over kernels and shapes, and the ceiling | `measure` |
//! | the document, and what one says beside another | `document`, `compare` |

pub mod compare;
pub mod data;
pub mod document;
pub mod shapes;
pub mod stats;

mod check;
mod measure;
mod workload;

pub use measure::{Bench, Options, Prepared, WARM, share};
