//! What an AMD code object says of its kernels: the msgpack document in its note section.
//!
//! *Source:* llvm.org/docs/AMDGPUUsage.html, "Code Object V3 and Above Metadata": note name `AMDGPU`,
//! type 32, keys `amdhsa.kernels`, `amdhsa.target`.

use super::target::Target;
use object::LittleEndian;
use object::elf::{EM_AMDGPU, FileHeader64, SHT_DYNSYM, SHT_NOTE, SHT_SYMTAB};
use object::read::elf::{FileHeader, SectionHeader, Sym};
use rmpv::Value;

/// The note's type.
const NT_AMDGPU_METADATA: u32 = 32;

/// How files of several code objects start.
const BUNDLES: [&[u8]; 2] = [b"__CLANG_OFFLOAD_BUNDLE__", b"CCOB"];

/// What the note says of one kernel. Registers are counted a lane (VGPR, AGPR) or a wave (SGPR).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Kernel {
    /// The symbol of its code, mangled.
    pub name: String,
    /// VGPRs; on targets with one file for both, AGPRs are among them.
    pub vgprs: u32,
    /// AGPRs; `None` where the note does not say (before gfx908 there are none).
    pub agprs: Option<u32>,
    /// SGPRs, with those that the hardware reserves.
    pub sgprs: u32,
    /// VGPRs that did not fit, and live in scratch (or in AGPRs).
    pub vgpr_spills: u32,
    /// SGPRs that did not fit, and live in VGPRs.
    pub sgpr_spills: u32,
    /// Scratch memory a thread, bytes.
    pub scratch_bytes: u32,
    /// Whether more scratch is taken at run time (recursion, indirect calls).
    pub dynamic_stack: bool,
    /// Static LDS, bytes.
    pub lds_bytes: u32,
    /// Arguments, bytes.
    pub kernarg_bytes: u32,
    /// The largest block that it was compiled for, threads.
    pub max_threads: u32,
    /// Lanes a wave.
    pub wave: u32,
    /// Its code, bytes; `None` where the file has no symbols.
    pub code_bytes: Option<u64>,
}

/// A code object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodeObject {
    /// What it was made for.
    pub target: Target,
    /// Its kernels, in the note's order.
    pub kernels: Vec<Kernel>,
    /// Functions that it calls and does not hold.
    pub undefined: Vec<String>,
}

/// Why bytes are no code object that can be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// A file of several code objects.
    #[error(
        "it is an offload bundle, a file of several code objects; build with \
         --no-gpu-bundle-output, or take one out: clang-offload-bundler --unbundle --type=o \
         --input=FILE --targets=hipv4-amdgcn-amd-amdhsa--gfx942 --output=FILE.hsaco"
    )]
    Bundle,
    /// Not an ELF file for AMD, or cut short.
    #[error("it is no AMD code object: {0}")]
    Elf(String),
    /// An ELF file for a processor that is not known here.
    #[error(
        "its e_flags 0x{0:x} name no processor known here; use a newer version of this program"
    )]
    Processor(u32),
    /// An AMD code object without the note.
    #[error(
        "it has no AMDGPU metadata note (code object version 3 or later has one); build it again"
    )]
    NoNote,
    /// The note is broken.
    #[error("its AMDGPU metadata note is broken: {0}; build it again")]
    Note(String),
}

/// Reads a code object, linked or not.
///
/// # Errors
/// [`NoteError`].
pub fn read(bytes: &[u8]) -> Result<CodeObject, NoteError> {
    if BUNDLES.iter().any(|magic| bytes.starts_with(magic)) {
        return Err(NoteError::Bundle);
    }
    let elf = |e: object::Error| NoteError::Elf(e.to_string());
    let header = FileHeader64::<LittleEndian>::parse(bytes).map_err(elf)?;
    let endian = LittleEndian;
    let machine = header.e_machine.get(endian).0;
    if machine != EM_AMDGPU.0 {
        return Err(NoteError::Elf(format!("its machine is {machine}, AMD's is {}", EM_AMDGPU.0)));
    }
    let flags = header.e_flags.get(endian).0;
    let target = Target::from_flags(flags).ok_or(NoteError::Processor(flags))?;
    let sections = header.sections(endian, bytes).map_err(elf)?;

    let mut kernels = None;
    for section in sections.iter().filter(|s| s.sh_type.get(endian) == SHT_NOTE) {
        let Some(mut notes) = section.notes(endian, bytes).map_err(elf)? else { continue };
        while let Some(note) = notes.next().map_err(elf)? {
            if note.name() == b"AMDGPU" && note.n_type(endian).0 == NT_AMDGPU_METADATA {
                kernels = Some(document(note.desc())?);
            }
        }
    }
    let mut kernels = kernels.ok_or(NoteError::NoNote)?;

    let mut undefined = Vec::new();
    for kind in [SHT_SYMTAB, SHT_DYNSYM] {
        let symbols = sections.symbols(endian, bytes, kind).map_err(elf)?;
        for symbol in symbols.iter() {
            let name = symbol.name(endian, symbols.strings()).map_err(elf)?;
            let name = String::from_utf8_lossy(name);
            if kind == SHT_SYMTAB && symbol.is_undefined(endian) && !name.is_empty() {
                // The weak names of threadIdx and its like are never used.
                if symbol.st_bind() != object::elf::STB_WEAK {
                    undefined.push(name.into_owned());
                }
            } else if let Some(k) = kernels.iter_mut().find(|k| k.name == name) {
                k.code_bytes = Some(symbol.st_size(endian));
            }
        }
    }
    Ok(CodeObject { target, kernels, undefined })
}

fn document(bytes: &[u8]) -> Result<Vec<Kernel>, NoteError> {
    let broken = |why: String| NoteError::Note(why);
    let mut rest = bytes;
    let document = rmpv::decode::read_value(&mut rest).map_err(|e| broken(e.to_string()))?;
    let list = get(&document, "amdhsa.kernels")
        .ok_or_else(|| broken("there is no `amdhsa.kernels`".into()))?;
    let list = list.as_array().ok_or_else(|| broken("`amdhsa.kernels` is no list".into()))?;
    list.iter().map(kernel).collect()
}

fn kernel(value: &Value) -> Result<Kernel, NoteError> {
    let text = |key: &str| get(value, key).and_then(Value::as_str);
    let name = text(".name").or_else(|| text(".symbol").map(|s| s.trim_end_matches(".kd")));
    let name = name.ok_or_else(|| NoteError::Note("a kernel has no `.name`".into()))?.to_owned();
    let number = |key: &str| match get(value, key) {
        None => Ok(None),
        Some(v) => match v.as_u64().and_then(|n| u32::try_from(n).ok()) {
            Some(n) => Ok(Some(n)),
            None => Err(NoteError::Note(format!("`{key}` of {name} is {v}, no 32-bit number"))),
        },
    };
    let must =
        |key: &str| number(key)?.ok_or_else(|| NoteError::Note(format!("{name} has no `{key}`")));
    Ok(Kernel {
        vgprs: must(".vgpr_count")?,
        agprs: number(".agpr_count")?,
        sgprs: must(".sgpr_count")?,
        vgpr_spills: number(".vgpr_spill_count")?.unwrap_or(0),
        sgpr_spills: number(".sgpr_spill_count")?.unwrap_or(0),
        scratch_bytes: must(".private_segment_fixed_size")?,
        dynamic_stack: get(value, ".uses_dynamic_stack").and_then(Value::as_bool) == Some(true),
        lds_bytes: must(".group_segment_fixed_size")?,
        kernarg_bytes: must(".kernarg_segment_size")?,
        max_threads: must(".max_flat_workgroup_size")?,
        wave: must(".wavefront_size")?,
        code_bytes: None,
        name,
    })
}

fn get<'a>(map: &'a Value, key: &str) -> Option<&'a Value> {
    map.as_map()?.iter().find(|(k, _)| k.as_str() == Some(key)).map(|(_, v)| v)
}

#[cfg(test)]
#[path = "note_tests.rs"]
mod tests;
