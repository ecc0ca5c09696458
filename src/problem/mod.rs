//! Pure data: number formats, layouts with their addresses, stages with their tensors, data regimes
//! by name, and cases.
//!
//! The lowest floor: it knows no kernel, no device and no file.

mod case;
mod dtype;
mod id;
mod layout;
mod names;
mod regime;
mod rope;
mod stage;
mod tensor;
mod text;

pub(crate) use case::MAX_SPLITS;
pub use case::{Case, CaseError, Form, Placements, Storage, default_scale};
pub use dtype::{DType, DTypes, UnknownDType, WantedTypes, pow2};
pub(crate) use id::MAX_BATCH;
pub use layout::{Axis, Extents, Layout, LayoutError, Placement};
pub(crate) use names::did_you_mean;
pub(crate) use names::named;
pub use names::{UnknownName, nearest};
pub use regime::{HotKey, LargeScores, Regime, UnknownRegime};
pub use rope::{Rope, RopeStyle};
pub use stage::{Pointer, Port, Stage};
pub use tensor::{Run, Shape, Tensor};
pub use text::sanitise;
pub(crate) use text::{clip, is_identifier, one_line};
