//! Room between shared arrays, so that an access past the end of one is not in the next.
//!
//! The compiler lays thread-local arrays side by side. The checked build lets it write assembly and
//! puts [`REDZONE`] bytes before each label in a thread-local section: a multiple of what any
//! `.align` before the label asks for, so that no array moves out of its alignment.

/// Bytes between two arrays; the largest alignment that is kept.
pub(super) const REDZONE: usize = 256;

/// Assembly with room before each thread-local object. It is bytes: strings may be of any encoding.
pub(super) fn spread(assembly: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(assembly.len() + (64 << 10));
    let mut in_shared = false;
    for line in assembly.split_inclusive(|byte| *byte == b'\n') {
        // Labels of objects and directives are ASCII.
        let code = std::str::from_utf8(line).unwrap_or("\t.ascii");
        if let Some(section) = section(code.trim()) {
            in_shared = section;
        }
        if in_shared && is_label(code) {
            text.extend_from_slice(format!("\t.zero {REDZONE}\n").as_bytes());
        }
        text.extend_from_slice(line);
    }
    text
}

fn is_label(line: &str) -> bool {
    let code = line.split('#').next().unwrap_or(line).trim_end();
    !line.starts_with(char::is_whitespace) && !line.starts_with('.') && code.ends_with(':')
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
        let spread = String::from_utf8(spread(text.as_bytes())).unwrap();
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
