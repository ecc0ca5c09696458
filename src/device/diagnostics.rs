//! A compiler's messages as its user needs them: every error, in the user's own file, with the line.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::declared::{self, Declared};
use super::signature::header_of;
use super::{CompileError, includes};
use crate::problem::nearest;

/// What the file name of an entry's line in the wrapper starts with.
pub(crate) const ENTRY_FILE: &str = "attnbench-entry-";

/// Errors that are told; of more, how many.
const MOST: usize = 20;

/// Lines that show the place of an error.
const MOST_SNIPPET: usize = 3;

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
#[derive(Clone)]
struct Line<'a> {
    file: &'a str,
    position: &'a str,
    kind: &'a str,
    text: &'a str,
}

/// An error with what the compiler said around it.
struct Message<'a> {
    line: Line<'a>,
    /// The source line, the caret.
    snippet: Vec<&'a str>,
    /// Where the instance was asked for: lines before the error (g++), or notes after it (clang, NVRTC).
    around: Vec<&'a str>,
}

/// An error in the words in which it is told.
struct Told {
    /// `file:line:column: error: text`, or a sentence about an entry.
    first: String,
    snippet: Vec<String>,
}

impl Files<'_> {
    /// The source as a compiler refused it with these messages.
    pub(crate) fn rejected(&self, messages: &str) -> CompileError {
        let mut told = self.errors(messages);
        if told.is_empty() {
            told.push(Told { first: self.own_paths(&last_resort(messages)), snippet: Vec::new() });
        }
        let first = told[0].first.clone();
        let mut errors = match told.len() {
            1 => " ".to_owned(),
            count => format!(" {count} errors\n"),
        };
        for (at, Told { first, snippet }) in told.iter().take(MOST).enumerate() {
            let line_break = if at == 0 { "" } else { "\n" };
            let _ = write!(errors, "{line_break}{first}");
            snippet.iter().for_each(|line| errors += &format!("\n{line}"));
        }
        if told.len() > MOST {
            let _ = write!(errors, "\nand {} more errors", told.len() - MOST);
        }
        let (file, all) = (self.shown.display().to_string(), self.own_paths(messages));
        CompileError::Rejected { file, first, errors, all }
    }

    /// A text with the user's own paths, as the user gave them.
    fn own_paths(&self, text: &str) -> String {
        let (source, shown) = (self.source.to_string_lossy(), self.shown.to_string_lossy());
        let text = text.replace(&*source, &shown);
        match (self.source.parent(), self.shown.parent()) {
            (Some(source), Some(shown)) if source.parent().is_some() => {
                let shown = match shown.as_os_str().is_empty() {
                    true => String::new(),
                    false => format!("{}/", shown.display()),
                };
                text.replace(&format!("{}/", source.display()), &shown)
            }
            _ => text,
        }
    }

    fn is_foreign(&self, file: &str) -> bool {
        file.starts_with(&*self.headers.to_string_lossy())
            || file == self.wrapper.to_string_lossy()
            || file.starts_with("/usr/")
            || file.starts_with(ENTRY_FILE)
    }

    /// Every error once, those in the user's files first.
    fn errors(&self, messages: &str) -> Vec<Told> {
        let all = messages_of(messages);
        let (mut own, mut of_entries) = (Vec::new(), Vec::<(usize, bool, &Message<'_>)>::new());
        // A line of a template is told once, not again for each instance.
        let (mut rows, mut places) = (BTreeSet::new(), BTreeSet::new());
        for message in &all {
            let entry = entry_of(message.line.file)
                .or_else(|| message.around.iter().find_map(|line| entry_of(line)));
            let place = self.own_place(message);
            match (place, entry) {
                (Some(place), entry) => {
                    let row = (place.file, place.position.split(':').next().unwrap_or(""));
                    let again = entry.is_some() && rows.contains(&row);
                    rows.insert(row);
                    if !again && places.insert((place.file, place.position, message.line.text)) {
                        own.push(self.at_place(message, &place, entry));
                    }
                }
                (None, Some(entry)) => {
                    let direct = entry_of(message.line.file).is_some();
                    of_entries.push((entry, direct, message));
                }
                (None, None) => {
                    let Line { file, position, text, .. } = &message.line;
                    if places.insert((*file, *position, *text)) {
                        own.push(Told {
                            first: format!("{file}:{position}: error: {text}"),
                            snippet: message
                                .snippet
                                .iter()
                                .map(|line| (*line).to_owned())
                                .collect(),
                        });
                    }
                }
            }
        }
        let kernels = self.kernels();
        for index in 0..self.entries.len() {
            // What the compiler says of the entry's own line tells more than what follows from it.
            let of_this = of_entries.iter().filter(|(entry, ..)| *entry == index);
            let Some((.., message)) = of_this.min_by_key(|(_, direct, _)| !direct) else {
                continue;
            };
            let name = base_name(&self.entries[index]);
            let is_there = kernels.iter().any(|kernel| path_ends(&kernel.path(), name));
            // Where the source itself has errors, a kernel may be unknown for them.
            if own.is_empty() || !is_there {
                own.push(self.of_entry(&self.entries[index], message, &kernels));
            }
        }
        own
    }

    /// Where an error lies in the user's files: its own place, or that of the line that led to a header.
    fn own_place<'a>(&self, message: &Message<'a>) -> Option<Line<'a>> {
        if !self.is_foreign(message.line.file) {
            return Some(message.line.clone());
        }
        // Not a note on a candidate, which is only where the kernel stands.
        let leads = ["required from", "required by", "instantiation", "expan"];
        let is_lead = |line: &&&str| leads.iter().any(|words| line.contains(words));
        let around = message.around.iter().filter(is_lead).filter_map(|line| parse(line));
        around.into_iter().find(|line| !self.is_foreign(line.file))
    }

    fn at_place(&self, message: &Message<'_>, place: &Line<'_>, entry: Option<usize>) -> Told {
        let of = match entry.and_then(|index| self.entries.get(index)) {
            Some(entry) => format!(" (in the instance `{entry}`)"),
            // NVRTC names the function, and not who asked for it.
            None => {
                let during = "detected during ";
                let line = message.around.iter().find_map(|line| line.split_once(during));
                line.map_or(String::new(), |(_, what)| format!(" (during {})", what.trim()))
            }
        };
        let file = self.own_paths(place.file);
        let text = self.own_paths(message.line.text);
        let moved = (place.file, place.position) != (message.line.file, message.line.position);
        let snippet = if moved || message.snippet.is_empty() {
            shown_line(place)
        } else {
            message.snippet.iter().map(|line| (*line).to_owned()).collect()
        };
        let mend = if text.contains("No such file") || text.contains("file not found") {
            "; name its folder in `include_dirs`"
        } else {
            ""
        };
        Told { first: format!("{file}:{}: error: {text}{mend}{of}", place.position), snippet }
    }

    /// An error in the line that asks for an entry.
    fn of_entry(&self, entry: &str, message: &Message<'_>, kernels: &[Declared]) -> Told {
        let file = self.shown.file_name().unwrap_or(self.shown.as_os_str()).to_string_lossy();
        let name = base_name(entry);
        let text = message.line.text;
        // A compiler's own suggestion may be far off: `__half`; did you mean `__tanf`?
        let text = text.split("; did you mean").next().unwrap_or(text);
        let paths: BTreeSet<String> = kernels.iter().map(Declared::path).collect();
        let is_there = paths.iter().any(|path| path_ends(path, name));
        let unknown = unknown_name(text);
        if unknown.is_some_and(|unknown| name.split("::").any(|part| part == unknown)) && !is_there
        {
            let meant = nearest(name, paths.iter().map(String::as_str));
            let first = format!("entry `{entry}` is not declared in {file}");
            let list: Vec<&str> = paths.iter().map(String::as_str).collect();
            let more = match meant {
                Some(meant) => format!("; did you mean `{meant}`?"),
                None if list.is_empty() => String::new(),
                None => format!("; it declares {}", list.join(", ")),
            };
            return Told { first: first + &more, snippet: Vec::new() };
        }
        let template =
            kernels.iter().find(|k| path_ends(&k.path(), name) && k.arguments.is_empty());
        let of = match template {
            Some(kernel) if unknown.is_none() => {
                let head = match kernel.template.as_str() {
                    "" => "no template",
                    head => head,
                };
                format!(" (`{}` is declared as {head})", kernel.path())
            }
            _ => String::new(),
        };
        let header = unknown.and_then(header_of);
        let mend = header.map_or(String::new(), |header| format!("; include <{header}> in {file}"));
        Told { first: format!("entry `{entry}`: {text}{mend}{of}"), snippet: Vec::new() }
    }

    /// The kernels that the source and what it includes declare.
    fn kernels(&self) -> Vec<Declared> {
        let folder = self.source.parent().map(Path::to_path_buf);
        let scan = includes::scan(self.source, &folder.into_iter().collect::<Vec<_>>());
        let files = scan.map(|scan| scan.files).unwrap_or_default();
        let texts = files.iter().map(|(_, bytes)| String::from_utf8_lossy(bytes));
        texts.flat_map(|text| declared::kernels(&text)).collect()
    }
}

/// `ns::k` of `ns::k<float, 4>`.
fn base_name(entry: &str) -> &str {
    entry.split('<').next().unwrap_or(entry).trim().trim_start_matches("::")
}

/// Whether a kernel's path is a name, or ends in it: `engine::k` may be called `k` where it is used.
fn path_ends(path: &str, name: &str) -> bool {
    path == name || path.ends_with(&format!("::{name}"))
}

/// The name that an error says is not declared.
fn unknown_name(text: &str) -> Option<&str> {
    let undeclared = [
        "not declared",
        "has not been declared",
        "undeclared",
        "not a member",
        "no member named",
        "is undefined",
        "has no member",
        "unknown type name",
        "no template named",
    ];
    if !undeclared.iter().any(|words| text.contains(words)) {
        return None;
    }
    let quoted = text.split(['\'', '"', '`', '\u{2018}', '\u{2019}']);
    let mut quoted = quoted.skip(1).step_by(2);
    let first = quoted.next();
    // NVRTC names the namespace first.
    let last = if text.contains("has no member") { quoted.next() } else { None };
    last.or(first).map(|name| name.rsplit("::").next().unwrap_or(name))
}

/// The index of the entry whose line in the wrapper a text names.
fn entry_of(text: &str) -> Option<usize> {
    let rest = &text[text.find(ENTRY_FILE)? + ENTRY_FILE.len()..];
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    rest[..digits].parse().ok()
}

/// A line of a file with a caret below it, as g++ shows one.
fn shown_line(place: &Line<'_>) -> Vec<String> {
    let mut parts = place.position.split(':').filter_map(|number| number.parse::<usize>().ok());
    let (Some(row), Some(column)) = (parts.next(), parts.next()) else { return Vec::new() };
    let text = fs::read(place.file).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let Some(line) = text.lines().nth(row.saturating_sub(1)) else { return Vec::new() };
    let before = line.chars().take(column.saturating_sub(1));
    let space: String = before.map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
    vec![format!("{row:>5} | {line}"), format!("      | {space}^")]
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

/// The errors among a compiler's messages, in order.
fn messages_of(all: &str) -> Vec<Message<'_>> {
    let (mut found, mut context) = (Vec::<Message<'_>>::new(), Vec::new());
    // Whether lines go to the last error, and whether they still show its place.
    let (mut of_last, mut in_snippet) = (false, false);
    for text in all.lines() {
        match parse(text) {
            Some(line) if line.kind.ends_with("error") => {
                let around = context.clone();
                found.push(Message { line, snippet: Vec::new(), around });
                (of_last, in_snippet) = (true, true);
            }
            Some(line) if matches!(line.kind, "note" | "warning") => {
                in_snippet = false;
                if let Some(last) = found.last_mut().filter(|_| of_last) {
                    last.around.push(text);
                }
            }
            // "required from here", and the like.
            Some(_) => {
                (of_last, in_snippet) = (false, false);
                context.push(text);
            }
            None if is_context(text) => {
                // A new function, or a new instance: what was said before is of another.
                context.clear();
                (of_last, in_snippet) = (false, false);
            }
            None => {
                let Some(last) = found.last_mut().filter(|_| of_last) else { continue };
                let shows =
                    in_snippet && last.snippet.len() < MOST_SNIPPET && !text.trim().is_empty();
                if shows && !text.contains("detected during") && !is_count(text) {
                    last.snippet.push(text);
                } else {
                    in_snippet = false;
                    last.around.push(text);
                }
            }
        }
    }
    found
}

/// `file: In function 'f':`, `file: In instantiation of 'f':`, `file: At global scope:`.
fn is_context(text: &str) -> bool {
    [": In ", ": At ", "In file included from "].iter().any(|words| text.contains(words))
        && text.trim_end().ends_with([':', ','])
}

/// `2 errors generated.`, `1 error generated when compiling for gfx942.`, `compilation terminated.`, NVRTC's
/// `1 error detected in …`.
fn is_count(text: &str) -> bool {
    let counts = [" generated when compiling for ", " detected in the compilation"];
    let ends = ["generated.", "terminated."];
    counts.iter().any(|words| text.contains(words)) || ends.iter().any(|words| text.contains(words))
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
    // A line of the source that is shown may hold colons, too.
    if line.starts_with(char::is_whitespace) {
        return None;
    }
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
#[path = "diagnostics_tests.rs"]
mod tests;
