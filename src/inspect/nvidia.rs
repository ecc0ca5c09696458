//! NVIDIA's limits, and warps an SM.
//!
//! *Sources:* CUDA C++ Programming Guide, "Compute Capabilities" (technical specifications per
//! compute capability); `cuda_occupancy.h` of the CUDA toolkit, for how registers are given out.

use super::instances::{Instance, Shape};
use super::occupancy::Limit;
use super::row::{Row, RowOccupancy};
use crate::device::CompileError;
use crate::device::gpu::Compiler;
use crate::device::gpu::cubin::{self, Cubin, Kernel, RESERVED_SHARED};
use std::collections::BTreeMap;

/// What an SM has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Warps.
    pub warps: u32,
    /// Blocks.
    pub blocks: u32,
    /// Shared memory, bytes.
    pub shared: u32,
    /// The most shared memory of one block, bytes.
    pub shared_block: u32,
}

/// Registers of an SM, in four parts.
const REGISTERS: u32 = 65536;
const PARTS: u32 = 4;
/// Registers are given out to a warp in so many.
const REGISTER_GRANULE: u32 = 256;
/// Shared memory is given out in so many bytes.
const SHARED_GRANULE: u32 = 128;

/// The limits of an architecture; `None` of one that is not known here.
pub fn limits(sm: u32) -> Option<Limits> {
    let (warps, blocks, shared) = match sm {
        80 => (64, 32, 164),
        86 => (48, 16, 100),
        87 => (48, 16, 164),
        89 => (48, 24, 100),
        90 | 100 | 103 => (64, 32, 228),
        120 | 121 => (48, 24, 100),
        _ => return None,
    };
    let shared = shared << 10;
    Some(Limits { warps, blocks, shared, shared_block: shared - RESERVED_SHARED })
}

/// Blocks an SM, and what keeps it from more. `shared` is static and dynamic, bytes a block.
pub fn occupancy(limits: &Limits, registers: u32, shared: u32, threads: u32) -> (u32, Limit) {
    let block = threads.max(1).div_ceil(32);
    let of_warp = (registers.max(1) * 32).next_multiple_of(REGISTER_GRANULE);
    let by_registers = REGISTERS / PARTS / of_warp * PARTS / block;
    let by_shared = match shared {
        _ if shared > limits.shared_block => 0,
        _ => limits.shared / (shared + RESERVED_SHARED).next_multiple_of(SHARED_GRANULE),
    };
    let by_warps = limits.warps / block;
    let blocks = by_registers.min(by_shared).min(by_warps).min(limits.blocks);
    let limit = if blocks * block == limits.warps {
        Limit::Full
    } else if by_shared == blocks {
        Limit::Lds
    } else if by_registers == blocks && by_registers < by_warps {
        Limit::Vgpr
    } else {
        Limit::Block
    };
    (blocks, limit)
}

/// Builds an instance for a target with NVRTC and gives a row for each entry.
///
/// # Errors
/// [`CompileError`]: what the compiler refuses, or that there is none.
pub fn of_instance(
    compiler: &Compiler,
    kernel: &str,
    instance: &Instance,
    arch: &str,
) -> Result<Vec<Row>, CompileError> {
    let source = &instance.source;
    let module = compiler.compile(source, arch)?;
    let file = module.file.display().to_string();
    let io = |why: String| CompileError::Io { what: format!("reading {file}"), why };
    let bytes = std::fs::read(&*module.file).map_err(|e| io(e.to_string()))?;
    let cubin = cubin::read(&bytes).map_err(|e| io(e.to_string()))?;
    let mut rows = Vec::new();
    for (index, (entry, symbol)) in source.entries.iter().zip(&*module.kernels).enumerate() {
        let Some(figures) = cubin.kernels.iter().find(|k| k.name == *symbol) else {
            return Err(io(format!("there is no kernel `{symbol}` in it")));
        };
        let shapes: Vec<Shape> = instance.shapes[index].iter().copied().collect();
        let mut row = row(kernel, &cubin, figures, &shapes);
        row.entry = entry.clone();
        row.dtype = Some(instance.dtype.clone());
        row.params = instance.params.clone();
        row.defines = source.defines.iter().map(|(n, t)| format!("{n}={t}")).collect();
        row.vgpr_spills = spilled(&module.log, symbol);
        rows.push(row);
    }
    Ok(rows)
}

/// Registers that a kernel spilled, as `ptxas -v` has it: words stored. `None` where the log says
/// nothing of the kernel.
fn spilled(log: &str, symbol: &str) -> Option<u32> {
    let mut lines = log
        .lines()
        .skip_while(|line| !line.ends_with(symbol) || !line.contains("Function properties for"));
    let line = lines.nth(1)?;
    let bytes = line.split(',').find(|part| part.contains("spill stores"))?;
    let bytes: u32 = bytes.split_whitespace().next()?.parse().ok()?;
    Some(bytes.div_ceil(4))
}

/// The row of a cubin's kernel over its launches; 256 threads are taken where none is known.
pub fn row(kernel: &str, cubin: &Cubin, k: &Kernel, shapes: &[Shape]) -> Row {
    let assumed = [Shape { threads: k.max_threads.unwrap_or(256).min(256), shared_bytes: 0 }];
    let launches = if shapes.is_empty() { &assumed } else { shapes };
    let occupancy = limits(cubin.sm).and_then(|l| {
        let of = |shape: &Shape| {
            let shared = k.shared_bytes.saturating_add(shape.shared_bytes);
            let (blocks, limit) = occupancy(&l, k.registers, shared, shape.threads);
            RowOccupancy {
                waves: f64::from(blocks * shape.threads.div_ceil(32)),
                most: l.warps,
                limit: limit.name().to_owned(),
                threads: shape.threads,
                lds_bytes: shared,
                blocks,
            }
        };
        launches.iter().map(of).min_by(|a, b| a.waves.total_cmp(&b.waves))
    });
    let most_threads = shapes.iter().map(|s| s.threads).max();
    let too_large = most_threads.zip(k.max_threads).filter(|(most, bound)| most > bound);
    let fault = too_large.map(|(most, bound)| {
        format!(
            "a block of {most} threads is launched, but it is compiled for at most {bound}; raise \
             __launch_bounds__, or launch smaller blocks"
        )
    });
    let no_room = occupancy.as_ref().filter(|o| o.blocks == 0).map(|o| {
        format!(
            "no block of {} threads, {} registers each, with {} bytes of shared memory fits an SM",
            o.threads, k.registers, o.lds_bytes
        )
    });
    Row {
        kernel: kernel.to_owned(),
        entry: addr2line::demangle_auto(k.name.as_str().into(), None).into_owned(),
        symbol: k.name.clone(),
        target: format!("sm_{}", cubin.sm),
        wave: 32,
        defines: Vec::new(),
        dtype: None,
        params: BTreeMap::new(),
        vgprs: k.registers,
        agprs: None,
        sgprs: None,
        // The file does not tell spills from arrays: both are in the stack frame.
        vgpr_spills: None,
        sgpr_spills: None,
        scratch_bytes: k.frame_bytes,
        dynamic_stack: false,
        lds_static_bytes: k.shared_bytes,
        lds_dynamic_bytes: shapes.iter().map(|s| s.shared_bytes).max(),
        argument_bytes: Some(k.param_bytes),
        max_threads: k.max_threads,
        block_threads: shapes.iter().map(|s| s.threads).min().zip(most_threads).map(Into::into),
        occupancy,
        counts: None,
        code_bytes: Some(k.code_bytes),
        fault: fault.or(no_room),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spills_are_read_from_the_compilers_log() {
        let log = "ptxas info    : 8 bytes gmem\n\
                   ptxas info    : Compiling entry function '_Z1kPf' for 'sm_90'\n\
                   ptxas info    : Function properties for _Z1kPf\n\
                   ptxas         .     40 bytes stack frame, 36 bytes spill stores, 48 bytes spill loads\n\
                   ptxas info    : Function properties for _Z1lPf\n\
                   ptxas         .     0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n";
        assert_eq!(spilled(log, "_Z1kPf"), Some(9));
        assert_eq!(spilled(log, "_Z1lPf"), Some(0));
        assert_eq!(spilled(log, "_Z1mPf"), None);
    }

    /// By hand, from the tables of the guide.
    #[test]
    fn each_limit_by_hand() {
        let of = |sm, registers, shared, threads| {
            let (blocks, limit) = occupancy(&limits(sm).unwrap(), registers, shared, threads);
            (blocks * u32::div_ceil(threads, 32), limit.name())
        };
        assert_eq!(of(90, 32, 0, 256), (64, "full"));
        assert_eq!(of(90, 33, 0, 256), (48, "vgpr"));
        assert_eq!(of(90, 255, 0, 256), (8, "vgpr"));
        assert_eq!(of(80, 64, 0, 128), (32, "vgpr"));
        assert_eq!(of(80, 32, 40 << 10, 128), (16, "lds"));
        assert_eq!(of(80, 32, 163 << 10, 128), (4, "lds"));
        assert_eq!(of(80, 32, (163 << 10) + 1, 128), (0, "lds"));
        assert_eq!(of(86, 32, 0, 64), (32, "block"));
        assert_eq!(of(89, 32, 0, 64), (48, "full"));
        assert_eq!(of(120, 40, 0, 1024), (32, "block"));
        assert_eq!(of(90, 255, 0, 1024), (0, "vgpr"));
        assert_eq!(limits(75), None);
    }
}
