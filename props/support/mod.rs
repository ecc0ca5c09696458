//! What several property modules share: cases, an exact evaluation, honest kernels in software,
//! of decode attention and of its stages alone.

pub mod cases;
pub mod exact;
pub mod honest;
pub mod ratios;
pub mod stages;
