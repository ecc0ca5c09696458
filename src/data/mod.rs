//! Data: what the tensors of a case hold, what lies around them, captured slices, and traces.

pub mod access;
pub mod captured;
pub mod file;
pub mod generate;
pub mod golden;
pub mod image;
pub mod inputs;
pub mod random;
pub mod regimes;
pub mod slice;
pub mod trace;
