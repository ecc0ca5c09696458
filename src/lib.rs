//! attnbench: a kernel-level test bench for decode attention.
#![deny(missing_docs, unsafe_op_in_unsafe_fn)]

pub mod device;
pub mod problem;

#[cfg(not(all(target_pointer_width = "64", target_endian = "little")))]
compile_error!("attnbench needs a 64-bit little-endian machine: element offsets are 64-bit");
