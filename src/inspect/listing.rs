//! Assembly with the source's lines between the instructions.

use super::asm::{Function, mnemonic};
use std::collections::HashMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// One function as text: before each run of instructions the line that they came from, with its text
/// where the file can be read. What was inlined is told at its own line, not at the call.
pub fn listing(assembly: &str, function: &Function<'_>) -> String {
    let files = files(assembly);
    let mut sources = Sources::default();
    let mut text = format!("{}:\n", addr2line::demangle_auto(function.name.into(), None));
    let (mut place, mut told) = (None, None);
    for line in &function.lines {
        let trimmed = line.trim();
        if let Some(loc) = trimmed.strip_prefix(".loc") {
            let mut numbers = loc.split_whitespace();
            let number = |w: Option<&str>| w.and_then(|w| w.parse::<usize>().ok());
            let (file, row) = (number(numbers.next()), number(numbers.next()));
            place = file.zip(row);
            continue;
        }
        let label = trimmed.starts_with(".LBB") && trimmed.contains(':');
        if label {
            let _ = writeln!(text, "{}", trimmed.split_whitespace().next().unwrap_or(trimmed));
            told = None;
        } else if mnemonic(trimmed).is_some() {
            if place != told
                && let Some((file, row)) = &place
            {
                let path = files.get(file);
                let name = path.and_then(|p| p.file_name()).unwrap_or_default().to_string_lossy();
                let source = path.and_then(|p| sources.line(p, *row)).unwrap_or_default();
                let _ = writeln!(text, "; {name}:{row}: {source}");
            }
            told = place;
            let code = trimmed.split_once(" ; ").map_or(trimmed, |(code, _)| code.trim_end());
            let _ = writeln!(text, "        {}", code.replace('\t', " "));
        }
    }
    text
}

/// The files that `.loc` names by number.
fn files(assembly: &str) -> HashMap<usize, PathBuf> {
    let mut files = HashMap::new();
    let lines = assembly.lines().filter_map(|line| line.trim_start().strip_prefix(".file"));
    for line in lines {
        let Some(number) = line.split_whitespace().next().and_then(|w| w.parse().ok()) else {
            continue;
        };
        let quoted: Vec<&str> = line.split('"').skip(1).step_by(2).collect();
        let path: PathBuf = quoted.iter().take(2).collect();
        files.insert(number, path);
    }
    files
}

/// Files that were read.
#[derive(Default)]
struct Sources(HashMap<PathBuf, Option<String>>);

impl Sources {
    fn line(&mut self, path: &Path, row: usize) -> Option<&str> {
        let text = self
            .0
            .entry(path.to_owned())
            .or_insert_with(|| std::fs::read_to_string(path).ok())
            .as_deref()?;
        Some(text.lines().nth(row.checked_sub(1)?)?.trim())
    }
}
