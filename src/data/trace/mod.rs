//! GRETA traces: events of an engine's own audit of decode attention, one JSON object a line.
//!
//! Reading only; [`crate::judge::trace`] says what the events come to. Numbers in them were printed
//! with six significant digits. Broken lines and unknown events are passed over and counted; a known
//! event that does not hold what it must is an [`Entry`] with the reason in its place.
//!
//! | subject | file |
//! | --- | --- |
//! | lines, their limits, and which event one is | `read` |
//! | the fields of each event | `event` |
//! | taking typed fields out of an object | `fields` |
//! | what can be wrong | `error` |

mod error;
mod event;
mod fields;
mod read;

pub use error::{FieldError, TraceError};
pub use event::{Event, Head, Scope, Softmax, TopOne, VAcc, VAddr, VProbe};
pub use read::{Entry, MAX_LINE, Skipped, read, read_from};
