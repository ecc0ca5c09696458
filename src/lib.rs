//! attnbench: a kernel-level test bench for decode attention.
#![deny(missing_docs, unsafe_code, unsafe_op_in_unsafe_fn)]

pub mod data;
#[allow(unsafe_code)]
pub mod device;
pub mod judge;
pub mod kernel;
pub mod oracle;
pub mod problem;
pub mod report;

#[cfg(not(all(target_pointer_width = "64", target_endian = "little")))]
compile_error!("attnbench needs a 64-bit little-endian machine: element offsets are 64-bit");
