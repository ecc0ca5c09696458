//! Whether a launch fits its kernel and the device: what would else be a crash is a sentence.

use super::super::{Arg, Launch, ParamKind};
use super::compile::DYNAMIC_CAPACITY;
use super::protocol::{WireLaunch, Word};
use super::sched::MAX_THREADS;

/// Turns a launch into what the worker is sent, or says why it cannot be made.
pub(super) fn wire(
    launch: &Launch,
    module: usize,
    arena_bytes: usize,
) -> Result<WireLaunch, String> {
    let entry = launch.entry;
    let Some(params) = launch.module.params.get(entry) else {
        return Err(format!(
            "the launch names entry {entry}, and the module has {}",
            launch.module.params.len()
        ));
    };
    let name = launch.module.entries.get(entry).map_or("the kernel", String::as_str);
    if launch.grid.contains(&0) || launch.block.contains(&0) {
        return Err(format!("the launch of {name} has an empty grid or block"));
    }
    let threads: u64 = launch.block.iter().map(|&n| u64::from(n)).product();
    if launch.block.iter().any(|&n| n > MAX_THREADS as u32) || threads > MAX_THREADS as u64 {
        let [x, y, z] = launch.block;
        return Err(format!(
            "the launch of {name} has blocks of {x} x {y} x {z} threads; at most {MAX_THREADS} run"
        ));
    }
    let blocks = launch.grid.iter().try_fold(1u64, |n, &g| n.checked_mul(u64::from(g)));
    if blocks.is_none_or(|n| n > 1 << 40) {
        return Err(format!("the launch of {name} has too many blocks: {:?}", launch.grid));
    }
    if launch.shared_bytes as usize > DYNAMIC_CAPACITY {
        return Err(format!(
            "the launch of {name} asks for {} bytes of dynamic shared memory; at most \
             {DYNAMIC_CAPACITY} are there",
            launch.shared_bytes
        ));
    }
    if let Some(params) = params {
        matches(name, &launch.args, params)?;
    }
    let mut args = Vec::with_capacity(launch.args.len());
    for (index, &arg) in launch.args.iter().enumerate() {
        if let Arg::Address(offset) = arg
            && offset > arena_bytes
        {
            return Err(format!(
                "argument {} of {name} is byte {offset} of an arena of {arena_bytes} bytes",
                index + 1
            ));
        }
        args.push(word(arg));
    }
    let Launch { grid, block, shared_bytes, .. } = *launch;
    Ok(WireLaunch { module, entry, wave: launch.module.wave, grid, block, shared_bytes, args })
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
        let fits = match arg {
            Arg::Address(_) | Arg::Null => *param == ParamKind::Pointer,
            Arg::Bits32(_) => *param == ParamKind::Int(4),
            Arg::Bits64(_) => *param == ParamKind::Int(8),
            Arg::F32(_) => *param == ParamKind::Float(4),
            Arg::F64(_) => *param == ParamKind::Float(8),
        };
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
