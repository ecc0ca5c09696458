//! attnbench: a kernel-level test bench for decode attention.
//!
//! The library behind the program of the same name. Each floor uses only those under it:
//!
//! | floor | subject |
//! | --- | --- |
//! | [`report`] | tables and JSON of results |
//! | [`inspect`] | kernels built for GPUs that are not there: registers, spills, occupancy |
//! | [`mod@bench`] | time kernels on shapes, beside reading alone, beside others and earlier runs |
//! | [`judge`] | draw cases, run them, compare, shrink, save, replay; judge traces |
//! | [`kernel`] | manifests, built-in kernels, launches |
//! | [`device`] | compile and run kernels; the only floor with `unsafe` |
//! | [`oracle`] | the scalar reference and the error bound |
//! | [`data`] | regimes, the image of device memory with its poison, kv-slice files, GRETA traces |
//! | [`problem`] | number formats, layouts, cases and their ids: pure data |
#![deny(missing_docs, unsafe_code, unsafe_op_in_unsafe_fn, clippy::undocumented_unsafe_blocks)]

pub mod bench;
pub mod data;
#[allow(unsafe_code)]
pub mod device;
pub mod inspect;
pub mod judge;
pub mod kernel;
pub mod oracle;
pub mod problem;
pub mod report;

#[cfg(not(all(target_pointer_width = "64", target_endian = "little")))]
compile_error!("attnbench needs a 64-bit little-endian machine: element offsets are 64-bit");
