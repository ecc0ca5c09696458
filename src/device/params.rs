//! A kernel's parameters, as a compiled module tells them.

use super::ParamKind;

/// Reads the table that `entry.h` and `params.h` leave in a binary: the number of parameters, then for
/// each one `kind << 16 | bytes`. `None` where the bytes are too few.
pub(super) fn read(table: &[u8]) -> Option<Vec<ParamKind>> {
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
