//! Data of a case: captured slices.

pub mod golden;
pub mod slice;
