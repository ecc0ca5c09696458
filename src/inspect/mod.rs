//! What a compiler made of a kernel: registers, spills, scratch, LDS, occupancy, widths of its loads.
//!
//! No GPU is needed, nor ROCm: clang builds a source for AMD targets by itself, with the headers that
//! are part of this program, and leaves the figures in a note of the code object. Nothing here runs
//! a kernel.
//!
//! | subject | file |
//! | --- | --- |
//! | AMD targets and their limits, waves a SIMD | `target`, `occupancy` |
//! | from a source to assembly and a code object | `compiler`, `build`, `headers` |
//! | the code object's note | `note` |
//! | instructions counted, and laid beside the source | `asm`, `listing` |
//! | the distinct instances of a manifest | `instances` |
//! | compiled files: `.hsaco`, `.co` | `object` |
//! | NVIDIA's `.cubin`, and its limits | `cubin`, `nvidia` |
//! | better or worse than an earlier result | `compare` |
//!
//! The headers have what the CPU device's have; of `<math.h>` not the inverse trigonometric functions,
//! `cbrt`, `erfc`, `lgamma` and their like. Device `malloc` traps and `printf` prints nothing.
//!
//! Where a source calls `sinf`, `tanhf`, `powf`, `atomicAdd` on floats or `printf`, the code differs
//! from what ROCm's own headers and library make: registers may differ a little.

pub mod asm;
pub mod build;
pub mod compare;
pub mod compiler;
mod headers;
pub mod instances;
pub mod listing;
pub mod note;
pub mod nvidia;
pub mod object;
pub mod occupancy;
pub mod row;
pub mod target;

pub use row::Row;
