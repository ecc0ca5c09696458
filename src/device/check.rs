//! Whether a launch fits its kernel and the device: what would else be a crash is a sentence.

use super::wire::Word;
use super::{Arg, Launch, ParamKind};

/// What a device can launch.
pub(super) struct Limits {
    /// Threads of a block.
    pub(super) threads: u32,
    /// Threads of a block along each axis.
    pub(super) block: [u32; 3],
    /// Blocks of a grid along each axis, and in all.
    pub(super) grid: [u32; 3],
    pub(super) blocks: u64,
    /// Dynamic shared memory of a block, bytes.
    pub(super) shared_bytes: u32,
}

/// A kernel's name, for messages.
pub(super) fn name(launch: &Launch) -> &str {
    launch.module.entries.get(launch.entry).map_or("the kernel", String::as_str)
}

/// The arguments of a launch as a worker is sent them, or why the launch cannot be made.
pub(super) fn args(
    launch: &Launch,
    limits: &Limits,
    arena_bytes: usize,
) -> Result<Vec<Word>, String> {
    let entry = launch.entry;
    let Some(params) = launch.module.params.get(entry) else {
        return Err(format!(
            "the launch names entry {entry}, and the module has {}",
            launch.module.params.len()
        ));
    };
    let name = name(launch);
    let [x, y, z] = launch.block;
    if launch.grid.contains(&0) || launch.block.contains(&0) {
        return Err(format!("the launch of {name} has an empty grid or block"));
    }
    let threads: u64 = launch.block.iter().map(|&n| u64::from(n)).product();
    if threads > u64::from(limits.threads) {
        let most = limits.threads;
        return Err(format!(
            "the launch of {name} has blocks of {x} x {y} x {z} threads; at most {most} run"
        ));
    }
    let exceeds = |extents: [u32; 3], most: [u32; 3]| extents.iter().zip(most).any(|(&n, m)| n > m);
    if exceeds(launch.block, limits.block) {
        let most = limits.block;
        return Err(format!(
            "the launch of {name} has blocks of {x} x {y} x {z} threads; at most {most:?} run along \
             each axis"
        ));
    }
    let blocks = launch.grid.iter().try_fold(1u64, |n, &g| n.checked_mul(u64::from(g)));
    if blocks.is_none_or(|n| n > limits.blocks) || exceeds(launch.grid, limits.grid) {
        let (grid, most) = (launch.grid, limits.grid);
        return Err(format!(
            "the launch of {name} has too many blocks: {grid:?}; at most {most:?} along each axis"
        ));
    }
    if launch.shared_bytes > limits.shared_bytes {
        return Err(format!(
            "the launch of {name} asks for {} bytes of dynamic shared memory; at most {} are there",
            launch.shared_bytes, limits.shared_bytes
        ));
    }
    if let Some(params) = params {
        matches(name, &launch.args, params)?;
    }
    let mut words = Vec::with_capacity(launch.args.len());
    for (index, &arg) in launch.args.iter().enumerate() {
        if let Arg::Address(offset) = arg
            && offset > arena_bytes
        {
            return Err(format!(
                "argument {} of {name} is byte {offset} of an arena of {arena_bytes} bytes",
                index + 1
            ));
        }
        words.push(word(arg));
    }
    Ok(words)
}

fn matches(name: &str, args: &[Arg], params: &[ParamKind]) -> Result<(), String> {
    if args.len() != params.len() {
        return Err(format!(
            "{name} has {} parameters and the launch {} arguments",
            params.len(),
            args.len()
        ));
    }
    for (index, (arg, param)) in args.iter().zip(params).enumerate() {
        let (kind, bytes) = match arg {
            Arg::Address(_) | Arg::Null => (ParamKind::Pointer, 8),
            Arg::Bits32(_) => (ParamKind::Int(4), 4),
            Arg::Bits64(_) => (ParamKind::Int(8), 8),
            Arg::F32(_) => (ParamKind::Float(4), 4),
            Arg::F64(_) => (ParamKind::Float(8), 8),
        };
        let fits = *param == kind || *param == ParamKind::Sized(bytes);
        if !fits {
            return Err(format!(
                "argument {} of {name} is {} in the launch but {} in the kernel",
                index + 1,
                arg_in_words(arg),
                param_in_words(*param)
            ));
        }
    }
    Ok(())
}

fn arg_in_words(arg: &Arg) -> &'static str {
    match arg {
        Arg::Address(_) | Arg::Null => "a pointer",
        Arg::Bits32(_) => "a 4-byte integer",
        Arg::Bits64(_) => "an 8-byte integer",
        Arg::F32(_) => "a 4-byte float",
        Arg::F64(_) => "an 8-byte float",
    }
}

fn param_in_words(param: ParamKind) -> String {
    let article = |bytes: u8| if bytes == 8 { "an" } else { "a" };
    match param {
        ParamKind::Pointer => "a pointer".to_owned(),
        ParamKind::Int(bytes) => format!("{} {bytes}-byte integer", article(bytes)),
        ParamKind::Float(bytes) => format!("{} {bytes}-byte float", article(bytes)),
        ParamKind::Sized(bytes) => format!("a value of {bytes} bytes"),
        ParamKind::Other(bytes) => format!("a struct of {bytes} bytes"),
    }
}

/// The argument as the kernel's wrapper reads it: the value in the low bytes.
fn word(arg: Arg) -> Word {
    match arg {
        Arg::Address(offset) => Word::Offset(offset),
        Arg::Null => Word::Bits(0),
        Arg::Bits32(bits) => Word::Bits(bits.into()),
        Arg::Bits64(bits) => Word::Bits(bits),
        Arg::F32(value) => Word::Bits(value.to_bits().into()),
        Arg::F64(value) => Word::Bits(value.to_bits()),
    }
}
