//! What is read from object files: names of dynamic shared memory, parameters, thread-local layout.

use object::read::elf::{ElfFile64, ProgramHeader};
use object::{Object, ObjectSymbol, SymbolFlags};

use super::compile::{DYNAMIC_CAPACITY, DYNAMIC_SYMBOL};
use super::description::{SharedArray, SharedKind};

/// Names of the undefined thread-local symbols: what the source declares
/// `extern __shared__`, and the wrapper's own name for that block.
pub(super) fn dynamic_shared_names(object: &[u8]) -> Result<Vec<String>, String> {
    let file: ElfFile64<'_> = ElfFile64::parse(object).map_err(|e| e.to_string())?;
    let mut names = Vec::new();
    for symbol in file.symbols() {
        let SymbolFlags::Elf { st_info, .. } = symbol.flags() else { continue };
        if st_info.st_type() == object::elf::STT_TLS && symbol.is_undefined() {
            names.push(symbol.name().map_err(|e| e.to_string())?.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// Bytes of the thread-local segment of a shared object, and where in it the dynamic block lies.
pub(super) fn tls_layout(binary: &[u8]) -> Result<(usize, usize), String> {
    let file: ElfFile64<'_> = ElfFile64::parse(binary).map_err(|e| e.to_string())?;
    let endian = file.endian();
    let bytes = file
        .elf_program_headers()
        .iter()
        .find(|header| header.p_type(endian) == object::elf::PT_TLS)
        .map(|header| header.p_memsz(endian) as usize)
        .ok_or("the binary has no thread-local segment")?;
    let dynamic = file
        .symbols()
        .find(|symbol| symbol.name() == Ok(DYNAMIC_SYMBOL))
        .map(|symbol| symbol.address() as usize)
        .ok_or("the binary has no dynamic shared memory")?;
    Ok((bytes, dynamic))
}

/// The shared arrays of a shared object, by where they lie.
pub(super) fn shared_arrays(binary: &[u8]) -> Result<Vec<SharedArray>, String> {
    let file: ElfFile64<'_> = ElfFile64::parse(binary).map_err(|e| e.to_string())?;
    let mut arrays: Vec<SharedArray> = Vec::new();
    for symbol in file.symbols() {
        let SymbolFlags::Elf { st_info, .. } = symbol.flags() else { continue };
        let name = symbol.name().map_err(|e| e.to_string())?;
        if st_info.st_type() != object::elf::STT_TLS || symbol.is_undefined() {
            continue;
        }
        let (offset, bytes) = (symbol.address() as usize, symbol.size() as usize);
        let guard = ["_ZGV", "_ZTH", "__tls_guard"].iter().any(|prefix| name.starts_with(prefix));
        let kind = if guard { SharedKind::Guard } else { SharedKind::Static };
        arrays.push(SharedArray { name: plain_name(name), offset, bytes, kind });
    }
    let dynamic = |array: &SharedArray| array.name == DYNAMIC_SYMBOL;
    let at = arrays.iter().find(|array| dynamic(array)).map(|array| array.offset);
    if let Some(at) = at {
        // The source's name for it, where it has one.
        let of_source = arrays.iter().find(|a| a.offset == at && !dynamic(a));
        let name = of_source.map_or("dynamic shared memory".to_owned(), |a| a.name.clone());
        arrays.retain(|array| array.offset != at);
        let (bytes, kind) = (DYNAMIC_CAPACITY, SharedKind::Dynamic);
        arrays.push(SharedArray { name, offset: at, bytes, kind });
    }
    arrays.sort_by_key(|array| array.offset);
    Ok(arrays)
}

/// `kernel<float>(float*)::tile` becomes `tile`.
fn plain_name(symbol: &str) -> String {
    let whole = addr2line::demangle_auto(symbol.into(), None);
    let mut depth = 0;
    let mut start = 0;
    let bytes = whole.as_bytes();
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b'<' | b'(' | b'{' | b'[' => depth += 1,
            b'>' | b')' | b'}' | b']' => depth -= 1,
            b':' if depth == 0 && bytes.get(at + 1) != Some(&b':') => start = at + 1,
            _ => {}
        }
    }
    whole[start..].to_owned()
}
