//! A kernel's parameters, as a compiled module tells them.

use object::read::elf::ElfFile64;
use object::{Object, ObjectSection, ObjectSymbol};

use super::ParamKind;
use super::signature::{Signature, types_in};

/// The parameters of entry `index`, from the table that the translation unit left in the binary.
pub(super) fn of(binary: &[u8], index: usize) -> Result<Vec<ParamKind>, String> {
    let name = format!("attnbench_params_{index}");
    let missing = || format!("the binary has no table `{name}`");
    table(binary, &name)?.and_then(read).ok_or_else(missing)
}

/// What the translation unit left in the binary of entry `index` besides.
pub(super) fn signature(binary: &[u8], index: usize) -> Result<Signature, String> {
    let types = table(binary, &format!("attnbench_types_{index}"))?.unwrap_or_default();
    let end = types.iter().position(|byte| *byte == 0).unwrap_or(types.len());
    let bounds = table(binary, &format!("attnbench_bounds_{index}"))?;
    let bounds =
        bounds.and_then(|bytes| bytes.first_chunk()).map(|bytes| u32::from_le_bytes(*bytes));
    Ok(Signature {
        types: types_in(&String::from_utf8_lossy(&types[..end])),
        most_threads: bounds.filter(|threads| *threads > 0),
        lacks: None,
    })
}

/// The bytes of a binary from a symbol on; `None` where there is no such symbol.
fn table<'a>(binary: &'a [u8], name: &str) -> Result<Option<&'a [u8]>, String> {
    let file: ElfFile64<'a> = ElfFile64::parse(binary).map_err(|e| e.to_string())?;
    // A shared object has it among those that others may see, a GPU's binary need not.
    let mut symbols = file.dynamic_symbols().chain(file.symbols());
    let Some(symbol) = symbols.find(|s| s.name() == Ok(name)) else { return Ok(None) };
    let section = symbol.section_index().and_then(|index| file.section_by_index(index).ok());
    let Some(section) = section else { return Ok(None) };
    let data = section.data().map_err(|e| e.to_string())?;
    Ok(data.get(symbol.address().wrapping_sub(section.address()) as usize..))
}

/// Reads the table that `entry.h` and `params.h` leave in a binary: the number of parameters, then for
/// each one `kind << 16 | bytes`. `None` where the bytes are too few.
fn read(table: &[u8]) -> Option<Vec<ParamKind>> {
    let mut words =
        table.chunks_exact(4).map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
    let count = words.next()? as usize;
    let kinds: Vec<ParamKind> = words.take(count).map(kind).collect();
    (kinds.len() == count).then_some(kinds)
}

fn kind(word: u32) -> ParamKind {
    let bytes = word & 0xffff;
    match word >> 16 {
        1 => ParamKind::Pointer,
        2 => ParamKind::Int(bytes as u8),
        3 => ParamKind::Float(bytes as u8),
        _ => ParamKind::Other(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_read_to_its_count_and_no_further() {
        let words = [3u32, 1 << 16 | 8, 2 << 16 | 4, 3 << 16 | 4, 7];
        let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
        let kinds = [ParamKind::Pointer, ParamKind::Int(4), ParamKind::Float(4)];
        assert_eq!(read(&bytes).as_deref(), Some(&kinds[..]));
        assert_eq!(read(&bytes[..15]), None);
        assert_eq!(read(&[]), None);
    }
}
