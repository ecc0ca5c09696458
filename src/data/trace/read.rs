//! The lines of a trace: how long one may be, and which event it is.

use super::error::{FieldError, TraceError};
use super::event::{Event, Head, Softmax, TopOne, VAcc, VAddr};
use super::fields::Fields;
use crate::problem::one_line;
use serde_json::{Map, Value};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

/// Bytes that a line may have. An event of 4096 keys and 128 elements takes 6 MB.
pub const MAX_LINE: usize = 8 << 20;

/// Characters of a reason that a message shows.
const SHOWN: usize = 120;

/// A known event.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Its line, from 1.
    pub line: u64,
    /// Its name; the phase where an event of prefill or decode has none.
    pub event: String,
    /// What it holds; or what can be read of it, and why it cannot be judged.
    pub holds: Result<Event, (Head, FieldError)>,
}

/// What was passed over.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Skipped {
    /// Objects that are no known event.
    pub unknown: u64,
    /// Lines that are no JSON object.
    pub broken: u64,
    /// Lines of more than [`MAX_LINE`] bytes.
    pub long: u64,
    /// The first of the broken or too long lines, and why; one line of text.
    pub first: Option<(u64, String)>,
}

impl Skipped {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.unknown + self.broken + self.long
    }

    fn broken(&mut self, line: u64, why: &str) {
        self.broken += 1;
        self.first.get_or_insert_with(|| (line, one_line(why, SHOWN)));
    }
}

/// Reads a trace, and hands over each known event in turn.
///
/// # Errors
/// [`TraceError`]: it cannot be read, or has no known event.
pub fn read(file: &Path, each: &mut dyn FnMut(Entry)) -> Result<Skipped, TraceError> {
    let io = |action| {
        let file = file.to_owned();
        move |source| TraceError::Io { file, action, source }
    };
    let open = File::open(file).map_err(io("open"))?;
    let kind = open.metadata().map_err(io("read"))?.file_type();
    // why: a pipe ends (`<(zcat …)`); a device such as /dev/zero may not.
    if kind.is_dir() || !(kind.is_file() || is_pipe(kind)) {
        return Err(TraceError::NotAFile { file: file.to_owned() });
    }
    read_from(file, &mut BufReader::new(open), each)
}

fn is_pipe(kind: std::fs::FileType) -> bool {
    std::os::unix::fs::FileTypeExt::is_fifo(&kind)
}

/// As [`read`], from bytes; `file` is only named in errors.
///
/// # Errors
/// [`TraceError`]: they cannot be read, or hold no known event.
pub fn read_from(
    file: &Path,
    input: &mut dyn BufRead,
    each: &mut dyn FnMut(Entry),
) -> Result<Skipped, TraceError> {
    let (mut skipped, mut known, mut line) = (Skipped::default(), 0u64, 0);
    let mut bytes = Vec::new();
    loop {
        let read = |source| TraceError::Io { file: file.to_owned(), action: "read", source };
        let Some(whole) = next_line(input, &mut bytes).map_err(read)? else { break };
        line += 1;
        if !whole {
            skipped.long += 1;
            let why = format!("it is longer than {} MiB", MAX_LINE >> 20);
            skipped.first.get_or_insert((line, why));
            continue;
        }
        // why: some editors put a byte order mark before the first line.
        let text = bytes.strip_prefix(b"\xef\xbb\xbf").filter(|_| line == 1).unwrap_or(&bytes);
        if text.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        match parse(text) {
            Ok(object) => match event(line, &object) {
                Some(entry) => {
                    known += 1;
                    each(entry);
                }
                None => skipped.unknown += 1,
            },
            Err(why) => skipped.broken(line, &why),
        }
    }
    if known == 0 {
        return Err(TraceError::NoEvent { file: file.to_owned(), lines: lines(line, &skipped) });
    }
    Ok(skipped)
}

/// How many lines a file has, and what became of them.
fn lines(all: u64, skipped: &Skipped) -> String {
    let mut text = match all {
        0 => return "an empty file".to_owned(),
        1 => "1 line".to_owned(),
        n => format!("{n} lines"),
    };
    for (n, what) in [
        (skipped.unknown, "of unknown events"),
        (skipped.broken, "that are no JSON object"),
        (skipped.long, "too long"),
    ] {
        if n > 0 {
            text.push_str(&format!(", {n} {what}"));
        }
    }
    if let Some((line, why)) = &skipped.first {
        text.push_str(&format!(" (line {line}: {why})"));
    }
    text
}

/// Reads a line into `bytes`, without its end. `None` after the last; `Some(false)` where it is too
/// long: then its rest is passed over and `bytes` holds nothing.
fn next_line(input: &mut dyn BufRead, bytes: &mut Vec<u8>) -> std::io::Result<Option<bool>> {
    bytes.clear();
    let (mut any, mut whole) = (false, true);
    loop {
        let chunk = match input.fill_buf() {
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            other => other?,
        };
        if chunk.is_empty() {
            return Ok(any.then_some(whole));
        }
        any = true;
        let end = chunk.iter().position(|b| *b == b'\n');
        let part = &chunk[..end.unwrap_or(chunk.len())];
        if bytes.len() + part.len() > MAX_LINE {
            (whole, *bytes) = (false, Vec::new());
        } else if whole {
            bytes.extend_from_slice(part);
        }
        let used = end.map_or(chunk.len(), |at| at + 1);
        input.consume(used);
        if end.is_some() {
            return Ok(Some(whole));
        }
    }
}

/// A line as a JSON object, or why it is none.
fn parse(text: &[u8]) -> Result<Map<String, Value>, String> {
    let value = match serde_json::from_slice(text) {
        Ok(value) => value,
        // why: C++ prints what is not finite as nan and inf, which JSON lacks.
        Err(error) => match quoted(text).and_then(|t| serde_json::from_slice(&t).ok()) {
            Some(value) => value,
            // The parser counts lines from this one.
            None => {
                return Err(format!("no JSON: {error}").replace(" at line 1 column", " at column"));
            }
        },
    };
    match value {
        Value::Object(object) => Ok(object),
        Value::Array(_) => Err("an array, and not one object a line".to_owned()),
        _ => Err("no JSON object".to_owned()),
    }
}

/// The text with `nan`, `inf` and the like outside strings put into quotes; `None` without any.
fn quoted(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() + 64);
    let (mut at, mut any, mut inside) = (0, false, false);
    while let Some(&byte) = text.get(at) {
        let rest = &text[at..];
        match byte {
            b'\\' if inside => {
                out.extend_from_slice(&rest[..rest.len().min(2)]);
                at += 2;
                continue;
            }
            b'"' => inside = !inside,
            _ if !inside => {
                let word =
                    ["-infinity", "infinity", "-inf", "inf", "-nan", "nan"].iter().find(|w| {
                        rest.len() >= w.len() && rest[..w.len()].eq_ignore_ascii_case(w.as_bytes())
                    });
                if let Some(word) = word {
                    out.push(b'"');
                    out.extend_from_slice(word.as_bytes());
                    out.push(b'"');
                    at += word.len();
                    any = true;
                    continue;
                }
            }
            _ => {}
        }
        out.push(byte);
        at += 1;
    }
    any.then_some(out)
}

/// Which event an object is; `None` where it is none that is known.
fn event(line: u64, object: &Map<String, Value>) -> Option<Entry> {
    let f = Fields(object);
    let name = object.get("event").and_then(Value::as_str);
    let holds = match name {
        Some("attn_vacc_trace") => VAcc::parse(&f).map(|e| Event::VAcc(Box::new(e))),
        Some("v_addr_trace") => VAddr::parse(&f).map(Event::VAddr),
        Some("attn_softmax_trace") => Softmax::parse(&f).map(|e| Event::Softmax(Box::new(e))),
        _ if object.contains_key("phase") && object.contains_key("top1_id") => {
            TopOne::parse(&f).map(Event::TopOne)
        }
        _ => return None,
    };
    let phase = object.get("phase").and_then(Value::as_str);
    Some(Entry {
        line,
        event: name.or(phase).unwrap_or("phase").to_owned(),
        holds: holds.map_err(|e| (Head::lenient(&f), e)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &[u8]) -> (Vec<Entry>, Result<Skipped, String>) {
        let mut entries = Vec::new();
        let skipped = read_from(Path::new("t"), &mut &text[..], &mut |e| entries.push(e));
        (entries, skipped.map_err(|e| e.to_string()))
    }

    const TOP: &str = r#"{"phase":"decode0","prompt_id":"p","top1_id":7}"#;

    #[test]
    fn lines_end_as_they_like_and_blank_ones_do_not_count() {
        for text in [
            TOP.to_owned(),
            format!("{TOP}\n"),
            format!("\u{feff}{TOP}\r\n\r\n  \n"),
            format!("\n\n{TOP}\n"),
        ] {
            let (entries, skipped) = all(text.as_bytes());
            assert_eq!((entries.len(), skipped), (1, Ok(Skipped::default())), "{text:?}");
            assert_eq!(entries[0].event, "decode0");
        }
    }

    #[test]
    fn what_is_no_event_is_counted_with_the_first_reason() {
        let text = format!("{{\"event\":\"x\"}}\n{{\"a\":\n[1]\n{TOP}\n7\n{{\"top1_id\":1}}\n\"a");
        let (entries, skipped) = all(text.as_bytes());
        let skipped = skipped.unwrap();
        assert_eq!((entries.len(), entries[0].line), (1, 4));
        assert_eq!((skipped.unknown, skipped.broken, skipped.total()), (2, 4, 6));
        let (line, why) = skipped.first.unwrap();
        assert!(line == 2 && why.contains("no JSON: EOF"), "{line}: {why}");
    }

    #[test]
    fn a_file_without_events_says_what_one_would_be() {
        let says = |text: &[u8], words: &[&str]| {
            let error = all(text).1.unwrap_err();
            for word in ["t: no known event in", "attn_vacc_trace", "top1_id"].iter().chain(words) {
                assert!(error.contains(word), "no `{word}` in {error}");
            }
            assert!(!error.contains(char::is_control), "{error:?}");
        };
        says(b"", &["an empty file"]);
        says(b"\n\n", &["2 lines"]);
        says(b"{\"event\":\"x\"}", &["1 line, 1 of unknown events"]);
        says(b"\x7fELF\x02\x01\0\n\xff\xfe\n", &["2 that are no JSON object", "line 1"]);
        says(&[b'['; 100_000], &["recursion limit"]);
        says(b"{\"phase\":\"a\",\"top1_id\":\"\xff\"}", &["invalid unicode"]);
    }

    #[test]
    fn a_line_that_is_too_long_is_passed_over_and_the_next_is_read() {
        let long = vec![b' '; MAX_LINE + 1];
        let text = [b"{\"a\":\"", &long[..], b"\"}\n", TOP.as_bytes()].concat();
        let (entries, skipped) = all(&text);
        let skipped = skipped.unwrap();
        assert_eq!((entries.len(), entries[0].line, skipped.long), (1, 2, 1));
        assert_eq!(skipped.first, Some((1, "it is longer than 8 MiB".to_owned())));
        // One byte less is not too long.
        let text = [TOP.as_bytes(), &long[..MAX_LINE - TOP.len()]].concat();
        assert_eq!(all(&text).0.len(), 1);
    }

    #[test]
    fn words_for_what_is_not_finite_are_read_and_text_is_left_alone() {
        let read = |t: &str| parse(t.as_bytes()).map(Value::Object).map(|v| v.to_string());
        assert_eq!(
            read(r#"{"a":[nan,-NaN,inf,-Infinity,1],"nan \" inf":"inf"}"#).unwrap(),
            r#"{"a":["nan","-nan","inf","-infinity",1],"nan \" inf":"inf"}"#
        );
        assert!(read(r#"{"a":nan,"b":}"#).unwrap_err().starts_with("no JSON"));
        assert!(read(r#"{"a":1e999}"#).unwrap_err().contains("out of range"));
        // A backslash at the very end.
        assert!(read("{\"a\":nan,\"\\").is_err());
    }
}
