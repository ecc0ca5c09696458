//! What several property modules share: cases, an exact evaluation, honest kernels in software.

pub mod cases;
pub mod exact;
pub mod honest;
