//! Text that was read, on its way into a message or a name.

/// The characters that a message shows of a word or a value.
const SHOWN: usize = 60;

/// Text from a file or a command line for a message: no control characters, which would break its
/// line or the terminal, and at most 60 characters.
pub(crate) fn clip(text: &str) -> String {
    one_line(text, SHOWN)
}

/// As [`clip`], with at most `limit` characters and an ellipsis.
pub(crate) fn one_line(text: &str, limit: usize) -> String {
    let mut chars = text.chars();
    let mut out: String =
        chars.by_ref().take(limit).map(|c| if c.is_control() { '?' } else { c }).collect();
    if chars.next().is_some() {
        out.push('…');
    }
    out
}

/// A name without the characters that end a field of a case id: `,` `[` `]` `=`, whitespace and
/// control characters become `_`, and so does an empty name.
pub fn sanitise(name: &str) -> String {
    if name.is_empty() {
        return "_".to_owned();
    }
    let ends = |c: char| ",[]=".contains(c) || c.is_whitespace() || c.is_control();
    name.chars().map(|c| if ends(c) { '_' } else { c }).collect()
}

/// Whether a word is a name in expressions: letters, digits and `_`, and no digit first.
pub(crate) fn is_identifier(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_keep_their_line_whatever_they_quote() {
        assert_eq!(clip("a\nb\u{1b}[31m\0"), "a?b?[31m?");
        assert_eq!(one_line("äöü", 3), "äöü");
        assert_eq!(one_line("äöüß", 3), "äöü…");
        assert_eq!(clip(&"x".repeat(1 << 20)).chars().count(), 61);
    }

    #[test]
    fn names_end_no_field() {
        assert_eq!(sanitise("a,b[1]=c d\te\u{7}"), "a_b_1__c_d_e_");
        assert_eq!(sanitise(""), "_");
        for (name, is) in [("tile_2", true), ("_", true), ("2a", false), ("", false), ("é", false)]
        {
            assert_eq!(is_identifier(name), is, "{name}");
        }
    }
}
