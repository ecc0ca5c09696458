//! What a checked run found, in words and by its tensors.

use crate::data::image::Image;
use crate::device::finding::{Access, Class, Finding, Kind, Severity, Site, Standing, Target};
use crate::problem::{Case, Pointer, Stage};

/// A finding, and what it says.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// As the device has it.
    pub finding: Finding,
    /// The memory at fault, by the tensor's own words; empty where there is none.
    pub target: String,
    /// The whole in words.
    pub words: String,
}

impl Found {
    /// A finding of a run of `case` on `image`.
    pub fn new(finding: Finding, case: &Case, image: &Image) -> Found {
        let target = finding.target.as_ref().map_or(String::new(), |t| target(t, case, image));
        let words = in_words(&finding, &target);
        Found { finding, target, words }
    }

    /// An output that nothing has written: element `index` of the judged ones, named `element`.
    pub fn unwritten(element: &str) -> Found {
        let finding = Finding {
            kind: Kind::Unwritten,
            severity: Severity::Fault,
            place: None,
            thread: 0,
            wave: 0,
            lane: 0,
            site: Site::default(),
            access: None,
            target: None,
            other: None,
            standing: Vec::new(),
            detail: String::new(),
            count: 1,
        };
        let words = format!("{element} is an output, and no thread writes it");
        Found { finding, target: element.to_owned(), words }
    }

    /// Whether it is no fault.
    pub fn is_note(&self) -> bool {
        self.finding.severity == Severity::Note
    }

    /// Whether it is a read of what holds nothing that the kernel may use, where every run has other
    /// filler: past a sequence's rows and within the tensor's own memory, or never written. If nothing
    /// comes of the filler it is no fault.
    pub fn may_be_masked(&self, image: &Image) -> bool {
        let reads = self.finding.access.is_some_and(|access| !access.write);
        let in_tensor = |target: &Target| match target {
            Target::Arena(at) => usize::try_from(*at).is_ok_and(|byte| {
                image.buffers().iter().any(|b| b.tensor.is_some() && b.range.contains(&byte))
            }),
            _ => false,
        };
        reads
            && match self.finding.kind {
                Kind::Bounds => self.finding.target.as_ref().is_some_and(in_tensor),
                Kind::Uninitialised => true,
                _ => false,
            }
    }

    /// Nothing came of what was read: a note.
    pub fn masked(mut self) -> Found {
        self.finding.severity = Severity::Note;
        self.words +=
            "; no output depends on it (three runs with other bytes there gave the same bits)";
        self
    }

    /// What makes two findings the same fault.
    pub fn key(&self) -> String {
        match self.finding.kind {
            Kind::Unwritten => Kind::Unwritten.name().to_owned(),
            _ => self.finding.key(),
        }
    }

    /// The property that it breaks.
    pub fn property(&self) -> &'static str {
        self.class().property()
    }

    /// Its class.
    pub fn class(&self) -> Class {
        self.finding.kind.class()
    }
}

/// The outputs of which a checked run must have written every judged element. Of a split's parts the
/// empty ones may be left.
pub fn must_be_written(case: &Case, judged: &[Pointer]) -> Vec<Pointer> {
    match case.stage {
        Stage::Split => vec![Pointer::PartialLse],
        _ => judged.to_vec(),
    }
}

fn target(target: &Target, case: &Case, image: &Image) -> String {
    match target {
        Target::Arena(offset) => match usize::try_from(*offset) {
            Ok(byte) => image.locate(case, byte),
            Err(_) => format!("{} bytes before all buffers", -offset),
        },
        Target::Shared { array, offset, bytes } => match usize::try_from(*offset) {
            Err(_) => format!("shared {array} at byte {offset}, before its start"),
            Ok(at) if at >= *bytes => {
                format!("shared {array} at byte {at}, past its end at {bytes}")
            }
            Ok(at) => format!("shared {array} at byte {at} of {bytes}"),
        },
        Target::Private => "another thread's own variable".to_owned(),
        Target::Address(address) => format!("address {address:#x}"),
    }
}

fn bytes(access: Access) -> String {
    match access.bytes {
        1 => "1 byte".to_owned(),
        n => format!("{n} bytes"),
    }
}

fn in_words(f: &Finding, target: &str) -> String {
    let who = match f.place {
        Some(p) => {
            let [x, y, z] = p.block;
            let launch =
                if p.launch == 0 { String::new() } else { format!("launch {}, ", p.launch) };
            format!("{launch}thread {} of block ({x},{y},{z})", f.thread)
        }
        None => "a thread".to_owned(),
    };
    let at = format!("at {}", f.site);
    // `k[token 3]`, but `1 byte past the end of k`.
    let of = if target.starts_with(|c: char| c.is_ascii_digit()) { "," } else { " of" };
    let touches = |access: Access| format!("{} {}{of} {target}", access.verb(), bytes(access));
    let mut text = match (f.kind, f.access) {
        (Kind::Wild, Some(access)) => {
            format!("{who} {} {target} {at}: {}", access.verb(), f.detail)
        }
        (Kind::ReadOnly, Some(access)) => {
            format!("{who} {}, an input that is to be read only, {at}", touches(access))
        }
        (Kind::Uninitialised, Some(access)) => {
            format!("{who} {}, which nothing has written, {at}", touches(access))
        }
        (_, Some(access)) if f.detail.is_empty() => format!("{who} {} {at}", touches(access)),
        (_, Some(access)) => format!("{who} {} {at}: {}", touches(access), f.detail),
        (Kind::Misaligned, None) => format!("{who} accesses {target} {at}: {}", f.detail),
        (Kind::Endless, _) => format!("{who} is in a loop that does not end {at}: {}", f.detail),
        (kind, None) if kind.class() == Class::Barrier => format!("{who} {at}: {}", f.detail),
        (_, None) => format!("{who} {at}: {}", f.detail),
    };
    if let Some(other) = &f.other {
        let [x, y, z] = other.place.block;
        let own = f.place.is_some_and(|p| p.block == other.place.block);
        let block = if own { String::new() } else { format!(" of block ({x},{y},{z})") };
        text += &format!(
            "; thread {}{block} {} it at {}, and nothing orders the two",
            other.thread,
            other.access.verb(),
            other.site
        );
    }
    for Standing { threads, what, site } in &f.standing {
        let at = site.as_ref().map_or(String::new(), |site| format!(" at {site}"));
        text += &format!("; {} {what}{at}", ranges(threads));
    }
    if f.severity == Severity::Note {
        text += "; it stores the value that was there, so either may be the last";
    }
    if f.count > 1 {
        text += &format!(" ({} times in the run)", f.count);
    }
    text
}

/// `threads 0-31, 40`.
fn ranges(threads: &[u32]) -> String {
    let mut parts: Vec<(u32, u32)> = Vec::new();
    for &t in threads {
        match parts.last_mut() {
            Some((_, last)) if *last + 1 == t => *last = t,
            _ => parts.push((t, t)),
        }
    }
    let more = parts.len().saturating_sub(8);
    let shown: Vec<String> = parts
        .iter()
        .take(8)
        .map(|(a, b)| if a == b { a.to_string() } else { format!("{a}-{b}") })
        .collect();
    let name = if threads.len() == 1 { "thread" } else { "threads" };
    let rest = if more == 0 { String::new() } else { format!(" and {more} more ranges") };
    format!("{name} {}{rest}", shown.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_told_in_ranges() {
        assert_eq!(ranges(&[3]), "thread 3");
        assert_eq!(ranges(&[0, 1, 2, 31, 40, 41]), "threads 0-2, 31, 40-41");
        let odd: Vec<u32> = (0..20).map(|i| 2 * i).collect();
        assert_eq!(ranges(&odd), "threads 0, 2, 4, 6, 8, 10, 12, 14 and 12 more ranges");
    }
}
