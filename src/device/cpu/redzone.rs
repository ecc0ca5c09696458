//! Room between shared arrays, so that an access past the end of one is not in the next.
//!
//! The compiler lays thread-local arrays side by side. The checked build lets it write assembly and
//! puts [`REDZONE`] bytes before each label in a thread-local section: a multiple of what any
//! `.align` before the label asks for, so that no array moves out of its alignment.

/// Bytes between two arrays; the largest alignment that is kept.
pub(super) const REDZONE: usize = 256;

/// Assembly with room before each thread-local object.
pub(super) fn spread(assembly: &str) -> String {
    let mut text = String::with_capacity(assembly.len() + (64 << 10));
    let mut in_shared = false;
    for line in assembly.lines() {
        let word = line.trim_start();
        if let Some(section) = section(word) {
            in_shared = section;
        }
        let label = !line.starts_with(char::is_whitespace)
            && !word.starts_with('.')
            && word.split('#').next().is_some_and(|code| code.trim_end().ends_with(':'));
        if in_shared && label {
            text.push_str(&format!("\t.zero {REDZONE}\n"));
        }
        text.push_str(line);
        text.push('\n');
    }
    text
}

/// Whether a directive begins a thread-local section; `None` where it is no section directive.
fn section(directive: &str) -> Option<bool> {
    let mut words = directive.split([' ', '\t', ',']);
    match words.next()? {
        ".text" | ".data" | ".bss" => Some(false),
        ".section" | ".pushsection" => {
            let name = words.next()?;
            Some(name.starts_with(".tbss") || name.starts_with(".tdata"))
        }
        ".popsection" | ".previous" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_thread_local_objects_get_room() {
        let text = "\t.text\nkernel:\n\tret\n\t.section\t.tbss,\"awT\",@nobits\n\t.align 32\n\
                    _ZZ1kvE1s:\n\t.zero\t512\n\t.section .tbss._ZZ1kIfEvvE1t,\"awTG\",@nobits,x,comdat\n\
                    _ZZ1kIfEvvE1t:                          # @t\n\t.zero\t64\n\t.data\nother:\n";
        let spread = spread(text);
        let before = |label: &str| {
            let lines: Vec<&str> = spread.lines().collect();
            let at = lines.iter().position(|line| line.starts_with(label)).unwrap();
            lines[at - 1].trim().to_owned()
        };
        assert_eq!(before("_ZZ1kvE1s:"), ".zero 256");
        assert_eq!(before("_ZZ1kIfEvvE1t:"), ".zero 256");
        assert_eq!(before("kernel:"), ".text");
        assert_eq!(before("other:"), ".data");
    }
}
