//! A compiler's messages, cut down to the first error in the user's own words.

use std::path::Path;

use super::CompileError;

/// What the file name of an entry's line in the wrapper starts with.
pub(crate) const ENTRY_FILE: &str = "attnbench-entry-";

/// The files that messages may name.
pub(crate) struct Files<'a> {
    /// The source as the compiler was told, and as its user knows it.
    pub(crate) source: &'a Path,
    pub(crate) shown: &'a Path,
    /// The generated translation unit and the HIP headers: not the user's.
    pub(crate) wrapper: &'a Path,
    pub(crate) headers: &'a Path,
    pub(crate) entries: &'a [String],
}

/// One `file:line:column: kind: text` line.
struct Line<'a> {
    file: &'a str,
    position: &'a str,
    kind: &'a str,
    text: &'a str,
}

impl Files<'_> {
    /// The source as a compiler refused it with these messages.
    pub(crate) fn rejected(&self, messages: &str) -> CompileError {
        let (first, all) = first_error(messages, self);
        CompileError::Rejected { file: self.shown.display().to_string(), first, all }
    }
}

/// The first error of `messages`, and all of them with the user's own path.
fn first_error(messages: &str, files: &Files<'_>) -> (String, String) {
    let source = files.source.to_string_lossy();
    let shown = files.shown.to_string_lossy();
    let all = messages.replace(&*source, &shown);
    (first(&all, files).unwrap_or_else(|| last_resort(&all)), all)
}

/// NVRTC's messages in the form of the others: `file(line): error: text`.
pub(super) fn from_nvrtc(messages: &str) -> String {
    let line = |line: &str| -> Option<String> {
        let (place, text) = line.split_once("): ")?;
        let (file, row) = place.rsplit_once('(')?;
        let is_row = !row.is_empty() && row.bytes().all(|b| b.is_ascii_digit());
        is_row.then(|| format!("{file}:{row}:1: {text}"))
    };
    let lines = messages.lines().map(|text| line(text).unwrap_or_else(|| text.to_owned()));
    lines.collect::<Vec<_>>().join("\n")
}

fn first(all: &str, files: &Files<'_>) -> Option<String> {
    let lines: Vec<Line<'_>> = all.lines().filter_map(parse).collect();
    let at = lines.iter().position(|line| line.kind.ends_with("error"))?;
    let error = &lines[at];
    if let Some(index) = error.file.strip_prefix(ENTRY_FILE) {
        let entry = files.entries.get(index.parse::<usize>().ok()?)?;
        let undeclared = [
            "not declared",
            "has not been declared",
            "undeclared",
            "not a member",
            "no member named",
            "use of undeclared",
            "is undefined",
            "has no member",
        ];
        if undeclared.iter().any(|words| error.text.contains(words)) {
            let name = files.shown.file_name().unwrap_or(files.shown.as_os_str());
            return Some(format!("entry `{entry}` is not declared in {}", name.to_string_lossy()));
        }
        return Some(format!("entry `{entry}`: {}", error.text));
    }
    let foreign = |file: &str| {
        file.starts_with(&*files.headers.to_string_lossy())
            || file == files.wrapper.to_string_lossy()
            || file.starts_with("/usr/")
            || file.starts_with(ENTRY_FILE)
    };
    if foreign(error.file) {
        // An error inside a header that the user's line led to: g++ says so before it
        // ("required from here"), clang after it ("in instantiation of").
        let before = lines[..at].iter().rev();
        if let Some(own) = before.chain(&lines[at..]).find(|line| !foreign(line.file)) {
            return Some(format!("{}:{}: error: {}", own.file, own.position, error.text));
        }
    }
    Some(format!("{}:{}: error: {}", error.file, error.position, error.text))
}

/// Without an `error:` line (the linker, a compiler that crashed): the line that says most.
fn last_resort(all: &str) -> String {
    let mut lines = all.lines().filter(|line| !line.trim().is_empty());
    let telling = ["undefined reference", "undefined symbol", "error", "cannot"];
    lines
        .clone()
        .find(|line| telling.iter().any(|words| line.contains(words)))
        .or_else(|| lines.next())
        .unwrap_or("the compiler failed and said nothing")
        .trim()
        .to_owned()
}

/// Reads `file:line:column: kind: text`; also `file:line:column:   required from here`.
fn parse(line: &str) -> Option<Line<'_>> {
    for (at, _) in line.match_indices(':') {
        let mut parts = line[at + 1..].splitn(3, ':');
        let (row, column, rest) = (parts.next()?, parts.next()?, parts.next());
        let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
        if !digits(row) || !digits(column) {
            continue;
        }
        let position = &line[at + 1..at + 2 + row.len() + column.len()];
        let (kind, text) = rest?.split_once(": ").unwrap_or((rest?, ""));
        return Some(Line { file: &line[..at], position, kind: kind.trim(), text: text.trim() });
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn say(messages: &str) -> String {
        let entries = ["ok".to_owned(), "ns::k<float>".to_owned()];
        let files = Files {
            source: Path::new("/abs/k/attention.hip"),
            shown: Path::new("k/attention.hip"),
            wrapper: Path::new("/tmp/w/kernel.cpp"),
            headers: Path::new("/cache/include-1"),
            entries: &entries,
        };
        first_error(messages, &files).0
    }

    #[test]
    fn the_users_own_file_and_line_come_first() {
        assert_eq!(
            say("In file included from /tmp/w/kernel.cpp:2:\n/abs/k/attention.hip: In function \
                 'void k()':\n/abs/k/attention.hip:7:5: error: 'x' was not declared in this scope\n"),
            "k/attention.hip:7:5: error: 'x' was not declared in this scope"
        );
        assert_eq!(
            say("/abs/k/attention.hip:1:10: fatal error: no.h: No such file or directory\n"),
            "k/attention.hip:1:10: error: no.h: No such file or directory"
        );
    }

    #[test]
    fn an_error_inside_a_header_is_told_at_the_users_line() {
        assert_eq!(
            say("/cache/include-1/attnbench/wave.h: In instantiation of 'T f(T)':\n\
                 /abs/k/attention.hip:9:20:   required from here\n\
                 /cache/include-1/attnbench/wave.h:3:9: error: static assertion failed: big\n"),
            "k/attention.hip:9:20: error: static assertion failed: big"
        );
        assert_eq!(
            say("/cache/include-1/attnbench/wave.h:3:9: error: static assertion failed: big\n\
                 /abs/k/attention.hip:9:20: note: in instantiation of f requested here\n"),
            "k/attention.hip:9:20: error: static assertion failed: big"
        );
    }

    #[test]
    fn an_unknown_entry_is_told_by_its_name() {
        for text in ["'k' is not a member of 'ns'", "use of undeclared identifier 'ns'"] {
            assert_eq!(
                say(&format!("attnbench-entry-1:1:21: error: {text}\n")),
                "entry `ns::k<float>` is not declared in attention.hip"
            );
        }
        assert_eq!(say("attnbench-entry-0:1:1: error: ambiguous\n"), "entry `ok`: ambiguous");
    }

    #[test]
    fn a_linkers_message_is_found() {
        assert_eq!(
            say("/usr/bin/ld: k.o: in function `f':\nk.hip:3: undefined reference to `g'\n"),
            "k.hip:3: undefined reference to `g'"
        );
    }
}
