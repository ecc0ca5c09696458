//! Which files a source includes, so that a change in any of them is seen.
//!
//! The source is read, not compiled: a cached binary is then found without starting a compiler.
//! Every `#include` counts, also one in a branch that is not taken. A file that is not found in
//! the user's folders belongs to the system, whose changes show in the compiler's version.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What a scan found.
pub(crate) struct Scan {
    /// Each file once, the source first, with its contents.
    pub(crate) files: Vec<(PathBuf, Vec<u8>)>,
    /// Whether some `#include` names its file by a macro, which only the compiler can follow.
    pub(crate) computed: bool,
}

/// Reads `source` and everything that it includes from its own folder and `dirs`.
pub(crate) fn scan(source: &Path, dirs: &[PathBuf]) -> io::Result<Scan> {
    let mut found = Scan { files: Vec::new(), computed: false };
    let mut seen = HashSet::from([source.to_owned()]);
    let mut open = vec![(source.to_owned(), fs::read(source)?)];
    while let Some((path, bytes)) = open.pop() {
        let folder = path.parent().unwrap_or(Path::new(".")).to_owned();
        for name in included(&bytes, &mut found.computed) {
            for dir in std::iter::once(&folder).chain(dirs) {
                let candidate = dir.join(&name);
                if seen.contains(&candidate) {
                    break;
                }
                if let Ok(text) = fs::read(&candidate) {
                    seen.insert(candidate.clone());
                    open.push((candidate, text));
                    break;
                }
            }
        }
        found.files.push((path, bytes));
    }
    Ok(found)
}

/// File names after `#include` and in `__has_include`.
fn included(bytes: &[u8], computed: &mut bool) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes).replace("\\\r\n", " ").replace("\\\n", " ");
    let mut names = Vec::new();
    for line in text.lines() {
        let line = line.trim_start();
        let Some(directive) = line.strip_prefix('#').map(str::trim_start) else { continue };
        if let Some(rest) = directive.strip_prefix("include") {
            let rest = rest.strip_prefix("_next").unwrap_or(rest);
            match quoted(rest) {
                Some(name) => names.push(name),
                None => *computed = true,
            }
        }
        for (at, word) in directive.match_indices("__has_include") {
            names.extend(quoted(directive[at + word.len()..].trim_start_matches(['(', ' '])));
        }
    }
    names
}

/// The name in `"…"` or `<…>` at the start of `text`.
fn quoted(text: &str) -> Option<String> {
    let text = text.trim_start();
    let close = match text.chars().next()? {
        '"' => '"',
        '<' => '>',
        _ => return None,
    };
    text[1..].split_once(close).map(|(name, _)| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_an_include_is_seen() {
        let text = b"#include <a.h>\n  #  include \"b/c.h\" // x\n#if __has_include(<d.h>)\n\
                     #include_next <e.h>\n#include \\\n  \"f.h\"\nint x; // #include \"no.h\"\n";
        let mut computed = false;
        assert_eq!(included(text, &mut computed), ["a.h", "b/c.h", "d.h", "e.h", "f.h"]);
        assert!(!computed);
        included(b"#include CONFIG\n", &mut computed);
        assert!(computed);
    }

    #[test]
    fn includes_of_includes_are_found_once_in_their_own_folders() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            path
        };
        let main = put("k/main.hip", "#include \"near.h\"\n#include <far.h>\n#include <stdio.h>\n");
        let near = put("k/near.h", "#include \"main.hip\"\n");
        let far = put("inc/far.h", "#include \"deep.h\"\n");
        let deep = put("inc/deep.h", "");
        let scan = scan(&main, &[dir.path().join("inc")]).unwrap();
        let mut paths: Vec<_> = scan.files.into_iter().map(|(path, _)| path).collect();
        assert_eq!(paths.remove(0), main);
        paths.sort();
        assert_eq!(paths, [deep, far, near]);
    }
}
