//! What an NVIDIA cubin says of its kernels.
//!
//! A cubin is an ELF file whose sections `.nv.info` and `.nv.info.KERNEL` hold attributes: a byte for
//! the format, one for the attribute, two for a value or a size, then the data. Neither they nor
//! `e_flags` are documented; what is read here is what `nvrtc` 12.9 and 13.5 write, seen in files whose
//! kernels are known, and the names are those that `cuobjdump -elf` prints.

use object::LittleEndian;
use object::elf::{FileHeader64, SHT_SYMTAB};
use object::read::elf::{FileHeader, SectionHeader, Sym};
use std::collections::BTreeMap;

/// The machine of a cubin's ELF header.
pub const EM_CUDA: u16 = 190;

const EIATTR_MAX_THREADS: u8 = 0x05;
const EIATTR_FRAME_SIZE: u8 = 0x11;
const EIATTR_MIN_STACK_SIZE: u8 = 0x12;
const EIATTR_KPARAM_INFO: u8 = 0x17;
const EIATTR_CBANK_PARAM_SIZE: u8 = 0x19;
const EIATTR_REGCOUNT: u8 = 0x2f;

/// Bytes of shared memory that every block has for the system, from sm_80; from sm_90 the linker
/// counts them among the kernel's own.
pub const RESERVED_SHARED: u32 = 1024;

/// A parameter of a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Param {
    /// Bytes from the first parameter.
    pub offset: u32,
    /// Bytes.
    pub bytes: u32,
}

/// One kernel.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Kernel {
    /// Its symbol, mangled.
    pub name: String,
    /// Registers a thread.
    pub registers: u32,
    /// Static shared memory a block, bytes, without what is the system's.
    pub shared_bytes: u32,
    /// Stack frame a thread, bytes of local memory: arrays that are indexed at run time, and
    /// registers that were spilled (nothing in the file tells which).
    pub frame_bytes: u32,
    /// The most stack that it and what it calls need, bytes.
    pub stack_bytes: u32,
    /// The largest block that `__launch_bounds__` allows, threads; `None` without it.
    pub max_threads: Option<u32>,
    /// Parameters in order.
    pub params: Vec<Param>,
    /// Bytes of all parameters.
    pub param_bytes: u32,
    /// Its code, bytes.
    pub code_bytes: u64,
}

/// A cubin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cubin {
    /// The architecture: 90 of sm_90.
    pub sm: u32,
    /// Its kernels, in the order of their sections.
    pub kernels: Vec<Kernel>,
}

/// Why bytes are no cubin that can be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CubinError {
    /// Not an ELF file, or cut short.
    #[error("it is no cubin: {0}; build it again")]
    Elf(String),
    /// An ELF file for another machine.
    #[error("its machine is {0}, that of a cubin is {EM_CUDA}; name a cubin")]
    Machine(u16),
    /// A version of the format that was never seen.
    #[error(
        "its ELF ABI version is {0}, known are 7 (CUDA 12) and 8 (CUDA 13); use a newer version of this program"
    )]
    Version(u8),
    /// Attributes that end early, or name what is not there.
    #[error("its section {section} is broken: {why}; build it again")]
    Attributes {
        /// The section.
        section: String,
        /// What is wrong.
        why: &'static str,
    },
}

/// Whether bytes start as a cubin does.
pub fn is_cubin(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\x7fELF\x02\x01") && bytes.get(18..20) == Some(&EM_CUDA.to_le_bytes()[..])
}

/// The kernels of a cubin: [`read`] without its architecture.
///
/// # Errors
/// [`CubinError`].
pub fn kernels(bytes: &[u8]) -> Result<Vec<Kernel>, CubinError> {
    Ok(read(bytes)?.kernels)
}

/// Reads a cubin.
///
/// # Errors
/// [`CubinError`].
pub fn read(bytes: &[u8]) -> Result<Cubin, CubinError> {
    let elf = |e: object::Error| CubinError::Elf(e.to_string());
    let header = FileHeader64::<LittleEndian>::parse(bytes).map_err(elf)?;
    let endian = LittleEndian;
    let machine = header.e_machine.get(endian).0;
    if machine != EM_CUDA {
        return Err(CubinError::Machine(machine));
    }
    let flags = header.e_flags.get(endian).0;
    let sm = match header.e_ident.abi_version {
        7 => flags & 0xff,
        8 => flags >> 8 & 0xff,
        other => return Err(CubinError::Version(other)),
    };
    let sections = header.sections(endian, bytes).map_err(elf)?;
    let symbols = sections.symbols(endian, bytes, SHT_SYMTAB).map_err(elf)?;

    let mut kernels: BTreeMap<u32, Kernel> = BTreeMap::new();
    let mut order = Vec::new();
    let named = || {
        sections.iter().filter_map(|s| {
            let name = sections.section_name(endian, s).ok()?;
            Some((std::str::from_utf8(name).ok()?, s))
        })
    };
    // Kernels are those that have attributes of their own.
    for (name, _) in named() {
        let Some(kernel) = name.strip_prefix(".nv.info.") else { continue };
        let found = symbols.enumerate().find(|(_, s)| {
            s.name(endian, symbols.strings()) == Ok(kernel.as_bytes())
                && s.st_type() == object::elf::STT_FUNC
        });
        let broken = |why| CubinError::Attributes { section: name.to_owned(), why };
        let (index, symbol) = found.ok_or_else(|| broken("it belongs to no function"))?;
        let index = index.0 as u32;
        let code_bytes = symbol.st_size(endian);
        kernels.insert(index, Kernel { name: kernel.to_owned(), code_bytes, ..Kernel::default() });
        order.push(index);
    }
    for (name, section) in named() {
        let data = || section.data(endian, bytes).map_err(elf);
        let broken = |why| CubinError::Attributes { section: name.to_owned(), why };
        let of = |kernel: &str| order.iter().copied().find(|i| kernels[i].name == kernel);
        if name == ".nv.info" {
            for (attribute, value) in attributes(data()?).map_err(broken)? {
                let [symbol, number] = words(value).map_err(broken)?;
                let Some(kernel) = kernels.get_mut(&symbol) else { continue };
                match attribute {
                    EIATTR_REGCOUNT => kernel.registers = number,
                    EIATTR_FRAME_SIZE => kernel.frame_bytes = number,
                    EIATTR_MIN_STACK_SIZE => kernel.stack_bytes = number,
                    _ => {}
                }
            }
        } else if let Some(index) = name.strip_prefix(".nv.info.").and_then(of) {
            let attributes = attributes(data()?).map_err(broken)?;
            if let Some(kernel) = kernels.get_mut(&index) {
                describe(kernel, &attributes).map_err(broken)?;
            }
        } else if let Some(index) = name.strip_prefix(".nv.shared.").and_then(of) {
            let size = u32::try_from(section.sh_size(endian)).unwrap_or(u32::MAX);
            let system = if sm >= 90 { RESERVED_SHARED } else { 0 };
            if let Some(kernel) = kernels.get_mut(&index) {
                kernel.shared_bytes = size.saturating_sub(system);
            }
        }
    }
    let kernels: Vec<Kernel> = order.iter().filter_map(|index| kernels.remove(index)).collect();
    if kernels.iter().any(|k| k.registers == 0) {
        let why = "a kernel has no register count";
        return Err(CubinError::Attributes { section: ".nv.info".to_owned(), why });
    }
    Ok(Cubin { sm, kernels })
}

fn describe(kernel: &mut Kernel, attributes: &[(u8, &[u8])]) -> Result<(), &'static str> {
    let mut params = BTreeMap::new();
    for (attribute, value) in attributes {
        match *attribute {
            EIATTR_MAX_THREADS => {
                let [x, y, z] = words(value)?;
                kernel.max_threads = Some(x.saturating_mul(y).saturating_mul(z));
            }
            EIATTR_CBANK_PARAM_SIZE => {
                let low = value.get(..2).ok_or("a parameter block without a size")?;
                kernel.param_bytes = u32::from(u16::from_le_bytes([low[0], low[1]]));
            }
            EIATTR_KPARAM_INFO => {
                // Index, then ordinal and offset in 16 bits each, then the size from bit 18.
                let [_, place, size] = words(value)?;
                let param = Param { offset: place >> 16, bytes: size >> 18 };
                params.insert(place & 0xffff, param);
            }
            _ => {}
        }
    }
    kernel.params = params.into_values().collect();
    Ok(())
}

/// The attributes of a section: which, and the data. Formats 1 to 3 hold 2 bytes in place of a size.
fn attributes(mut data: &[u8]) -> Result<Vec<(u8, &[u8])>, &'static str> {
    let mut all = Vec::new();
    while !data.is_empty() {
        let (head, rest) = data.split_at_checked(4).ok_or("an attribute is cut short")?;
        let (format, attribute) = (head[0], head[1]);
        data = rest;
        let value = match format {
            1..=3 => &head[2..4],
            4 => {
                let size = usize::from(u16::from_le_bytes([head[2], head[3]]));
                let (value, rest) =
                    data.split_at_checked(size).ok_or("an attribute's data are cut short")?;
                data = rest;
                value
            }
            _ => return Err("an attribute has a format that is not 1, 2, 3 or 4"),
        };
        all.push((attribute, value));
    }
    Ok(all)
}

/// The first words of an attribute's data; 0 in place of a word of `.nv.info` that is not there.
fn words<const N: usize>(value: &[u8]) -> Result<[u32; N], &'static str> {
    if N > 2 && value.len() < 4 * N {
        return Err("an attribute has fewer words than it should");
    }
    let mut words = [0; N];
    for (word, bytes) in words.iter_mut().zip(value.chunks_exact(4)) {
        *word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    }
    Ok(words)
}

#[cfg(test)]
#[path = "cubin_tests.rs"]
mod tests;
