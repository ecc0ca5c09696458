//! One line of a result: a kernel of one instance on one target.

use super::asm::{Counts, count};
use super::build::{Builder, Built};
use super::instances::{Instance, Shape};
use super::note::{self, Kernel};
use super::occupancy::{Limit, Use, occupancy};
use super::target::Target;
use super::{asm, note::CodeObject};
use crate::device::CompileError;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Waves (AMD) or warps (NVIDIA) that run at a time, in the worst launch that was drawn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RowOccupancy {
    /// Waves a SIMD on average, or warps an SM.
    pub waves: f64,
    /// The most that there can be.
    pub most: u32,
    /// What keeps it from more: `full`, `vgpr`, `sgpr`, `lds`, `block`.
    pub limit: String,
    /// Threads a block of that launch.
    pub threads: u32,
    /// Its LDS, static and dynamic, bytes.
    pub lds_bytes: u32,
    /// Its blocks on a CU, WGP or SM; 0: it cannot be launched.
    pub blocks: u32,
}

/// The figures of one kernel. `None` is what the file does not tell. On NVIDIA `vgprs` are the
/// registers a thread, `lds_…` the shared memory, `scratch_bytes` the stack frame.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The manifest's name, or the code object's file.
    pub kernel: String,
    /// The name expression, or the symbol.
    pub entry: String,
    /// The symbol of its code.
    pub symbol: String,
    /// The target.
    pub target: String,
    /// Lanes a wave.
    pub wave: u32,
    /// Definitions that it was compiled with, `NAME=text`.
    pub defines: Vec<String>,
    /// Types of q, cache and out of a case that has this instance.
    pub dtype: Option<String>,
    /// Tunables of that case.
    pub params: BTreeMap<String, i64>,
    /// VGPRs a lane; where AGPRs share their file, with them.
    pub vgprs: u32,
    /// AGPRs a lane.
    pub agprs: Option<u32>,
    /// SGPRs a wave.
    pub sgprs: Option<u32>,
    /// VGPRs spilled.
    pub vgpr_spills: Option<u32>,
    /// SGPRs spilled.
    pub sgpr_spills: Option<u32>,
    /// Scratch a thread, bytes.
    pub scratch_bytes: u32,
    /// Whether more scratch is taken at run time.
    pub dynamic_stack: bool,
    /// Static LDS a block, bytes.
    pub lds_static_bytes: u32,
    /// The most dynamic LDS of a launch that was drawn, bytes.
    pub lds_dynamic_bytes: Option<u32>,
    /// Bytes of arguments.
    pub argument_bytes: Option<u32>,
    /// The largest block that it was compiled for, threads.
    pub max_threads: Option<u32>,
    /// The smallest and the largest block that was drawn, threads.
    pub block_threads: Option<[u32; 2]>,
    /// Waves at a time.
    pub occupancy: Option<RowOccupancy>,
    /// Its instructions; `None` without an assembly.
    pub counts: Option<Counts>,
    /// Its code, bytes.
    pub code_bytes: Option<u64>,
    /// Why it cannot be launched as drawn.
    pub fault: Option<String>,
}

/// A block of a code object of which no launch is known: what occupancy is told for.
const USUAL_THREADS: u32 = 256;

/// Builds an instance for a target and gives a row for each entry, and what was built.
///
/// # Errors
/// [`CompileError`]: what the compiler refuses, and calls of what it does not have.
pub fn of_instance(
    builder: &Builder,
    kernel: &str,
    instance: &Instance,
    target: &Target,
) -> Result<(Vec<Row>, Built), CompileError> {
    let source = &instance.source;
    let built = builder.build(source, target)?;
    let rejected = |why| CompileError::rejected(&source.file, why);
    let object = note::read(&built.object).map_err(|e| rejected(e.to_string()))?;
    if let Some(name) = object.undefined.first() {
        return Err(rejected(format!(
            "it calls `{}`, which is nowhere defined; ROCm's device library is not part of this \
             build (--compiler hipcc has it)",
            addr2line::demangle_auto(name.into(), None)
        )));
    }
    let functions = asm::functions(&built.assembly);
    let mut rows = Vec::new();
    for (index, entry) in source.entries.iter().enumerate() {
        let symbol = asm::entry_symbol(&built.assembly, index).unwrap_or_default();
        let Some(figures) = object.kernels.iter().find(|k| k.name == symbol) else {
            return Err(rejected(format!("entry `{entry}` is no __global__ function")));
        };
        let lines = functions.iter().find(|f| f.name == symbol).map(|f| count(&f.lines));
        let shapes: Vec<Shape> = instance.shapes[index].iter().copied().collect();
        let mut row = of_kernel(kernel, entry, &object, figures, &shapes);
        row.counts = lines;
        row.dtype = Some(instance.dtype.clone());
        row.params = instance.params.clone();
        row.defines = source.defines.iter().map(|(n, t)| format!("{n}={t}")).collect();
        rows.push(row);
    }
    Ok((rows, built))
}

/// The row of a code object's kernel, over the launches that were drawn; without counts.
pub fn of_kernel(
    kernel: &str,
    entry: &str,
    object: &CodeObject,
    k: &Kernel,
    shapes: &[Shape],
) -> Row {
    let target = &object.target;
    // Where the files are apart, either can be full.
    let vgprs = if target.unified() { k.vgprs } else { k.vgprs.max(k.agprs.unwrap_or(0)) };
    let assumed = [Shape { threads: USUAL_THREADS.min(k.max_threads), shared_bytes: 0 }];
    let launches = if shapes.is_empty() { &assumed } else { shapes };
    let worst = launches
        .iter()
        .map(|shape| {
            let lds = k.lds_bytes.saturating_add(shape.shared_bytes);
            let threads = shape.threads;
            let u = Use { vgprs, sgprs: k.sgprs, lds, threads, wave: k.wave };
            (occupancy(target, &u), threads, lds)
        })
        .min_by(|a, b| a.0.waves.total_cmp(&b.0.waves).then(b.2.cmp(&a.2)));
    let most_threads = shapes.iter().map(|s| s.threads).max();
    let too_large = most_threads.filter(|threads| *threads > k.max_threads).map(|threads| {
        format!(
            "a block of {threads} threads is launched, but it is compiled for at most {}; raise \
             __launch_bounds__, or launch smaller blocks",
            k.max_threads
        )
    });
    let no_room = worst.filter(|(o, ..)| o.blocks == 0).map(|(o, threads, lds)| match o.limit {
        Limit::Lds => format!(
            "a block asks for {lds} bytes of LDS, {target} has {} for one; use less shared memory",
            target.limits(k.wave).lds_block
        ),
        _ => format!(
            "a block of {threads} threads with {} registers each does not fit; add \
             __launch_bounds__({threads})",
            k.vgprs
        ),
    });
    Row {
        kernel: kernel.to_owned(),
        entry: entry.to_owned(),
        symbol: k.name.clone(),
        target: target.id.clone(),
        wave: k.wave,
        defines: Vec::new(),
        dtype: None,
        params: BTreeMap::new(),
        vgprs: k.vgprs,
        agprs: k.agprs,
        sgprs: Some(k.sgprs),
        vgpr_spills: Some(k.vgpr_spills),
        sgpr_spills: Some(k.sgpr_spills),
        scratch_bytes: k.scratch_bytes,
        dynamic_stack: k.dynamic_stack,
        lds_static_bytes: k.lds_bytes,
        lds_dynamic_bytes: shapes.iter().map(|s| s.shared_bytes).max(),
        argument_bytes: Some(k.kernarg_bytes),
        max_threads: Some(k.max_threads),
        block_threads: shapes.iter().map(|s| s.threads).min().zip(most_threads).map(Into::into),
        occupancy: worst.map(|(o, threads, lds_bytes)| RowOccupancy {
            waves: o.waves,
            most: o.most,
            limit: o.limit.name().to_owned(),
            threads,
            lds_bytes,
            blocks: o.blocks,
        }),
        counts: None,
        code_bytes: k.code_bytes,
        fault: too_large.or(no_room),
    }
}

impl Row {
    /// Takes in the row of another instance that has the same code: its launches are drawn too.
    /// `false`, and nothing done, where the code is another.
    pub fn absorb(&mut self, other: &Row) -> bool {
        let code = |r: &Row| (r.kernel.clone(), r.entry.clone(), r.target.clone(), r.wave);
        let same = code(self) == code(other)
            && self.defines == other.defines
            && (self.vgprs, self.sgprs, self.counts) == (other.vgprs, other.sgprs, other.counts);
        if !same {
            return false;
        }
        self.lds_dynamic_bytes = self.lds_dynamic_bytes.max(other.lds_dynamic_bytes);
        self.block_threads = match (self.block_threads, other.block_threads) {
            (Some([a, b]), Some([c, d])) => Some([a.min(c), b.max(d)]),
            (one, other) => one.or(other),
        };
        let waves = |o: &Option<RowOccupancy>| o.as_ref().map_or(f64::MAX, |o| o.waves);
        if waves(&other.occupancy) < waves(&self.occupancy) {
            self.occupancy.clone_from(&other.occupancy);
        }
        self.fault = self.fault.take().or_else(|| other.fault.clone());
        true
    }

    /// Whether anything of it lies in scratch memory, or was moved out of registers.
    pub fn spills(&self) -> bool {
        self.vgpr_spills.unwrap_or(0) + self.sgpr_spills.unwrap_or(0) > 0
    }

    /// Whether it uses scratch memory.
    pub fn uses_scratch(&self) -> bool {
        self.scratch_bytes > 0 || self.dynamic_stack
    }
}
