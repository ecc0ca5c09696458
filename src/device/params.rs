//! A kernel's parameters, as a compiled module tells them.

use object::read::elf::ElfFile64;
use object::{Object, ObjectSection, ObjectSymbol};

use super::ParamKind;

/// The parameters of entry `index`, from the table that the translation unit left in the binary.
pub(super) fn of(binary: &[u8], index: usize) -> Result<Vec<ParamKind>, String> {
    let file: ElfFile64<'_> = ElfFile64::parse(binary).map_err(|e| e.to_string())?;
    let name = format!("attnbench_params_{index}");
    let missing = || format!("the binary has no table `{name}`");
    // A shared object has it among those that others may see, a GPU's binary need not.
    let mut symbols = file.dynamic_symbols().chain(file.symbols());
    let symbol = symbols.find(|s| s.name() == Ok(&name)).ok_or_else(missing)?;
    let section = symbol.section_index().and_then(|index| file.section_by_index(index).ok());
    let section = section.ok_or_else(missing)?;
    let data = section.data().map_err(|e| e.to_string())?;
    let at = symbol.address().wrapping_sub(section.address()) as usize;
    read(data.get(at..).ok_or_else(missing)?).ok_or_else(missing)
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
