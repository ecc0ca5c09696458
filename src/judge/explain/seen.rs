//! What a failing run shows by itself: no hypothesis is needed to say it, so it is said first.

use crate::data::image::Image;
use crate::judge::compare::{Where, Wrong, place};
use crate::judge::trial::{Buffers, Failure};
use crate::problem::{Case, DType, Pointer, Stage};
use std::collections::BTreeMap;
use std::fmt;

/// What a failing run shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// Elements of an output still hold what lay there before the launch, under every poison.
    NeverWritten {
        /// The output.
        output: Pointer,
        /// Which of its elements, in words.
        what: String,
        /// Wrong elements that were written.
        rest: usize,
    },
    /// Every wrong row of an output is zeros.
    AllZero {
        /// The output.
        output: Pointer,
        /// Which rows, in words.
        what: String,
    },
    /// Every wrong row of an output is a copy of an input's row.
    Copied {
        /// The output.
        output: Pointer,
        /// Of which row.
        of: &'static str,
    },
    /// An output is a number where the right answer is NaN.
    Swallowed {
        /// The output.
        output: Pointer,
    },
    /// The outputs differ between runs that must not differ.
    OtherBits,
    /// Memory changed that is not the kernel's to write.
    StrayWrite,
}

impl Seen {
    /// A word for it in documents.
    pub fn kind(&self) -> &'static str {
        match self {
            Seen::NeverWritten { .. } => "never_written",
            Seen::AllZero { .. } => "all_zero",
            Seen::Copied { .. } => "copied",
            Seen::Swallowed { .. } => "nan_swallowed",
            Seen::OtherBits => "other_bits",
            Seen::StrayWrite => "stray_write",
        }
    }

    /// Whether it says all that an address or a formula could say: no fault is looked for beside it.
    pub fn is_enough(&self) -> bool {
        match self {
            Seen::NeverWritten { rest, .. } => *rest == 0,
            Seen::AllZero { .. }
            | Seen::Copied { .. }
            | Seen::Swallowed { .. }
            | Seen::OtherBits => true,
            Seen::StrayWrite => false,
        }
    }

    /// What to look at in the code.
    pub fn advice(&self) -> &'static str {
        match self {
            Seen::NeverWritten { .. } => {
                "the map from block and thread to the output's rows, the grid of the launch, and an \
                 early return"
            }
            Seen::AllZero { .. } => {
                "whether the accumulator is what is stored, and whether any key is attended"
            }
            Seen::Copied { .. } => "what is stored at the end, and whether the loop over keys runs",
            Seen::Swallowed { .. } => {
                "a comparison such as `l > 0 ? acc / l : 0`, which is false of NaN; where the kernel \
                 promises nothing on NaN and infinities, say `nonfinite = false` in [numerics]"
            }
            Seen::OtherBits => {
                "a race, an atomic sum, or memory that is read before it is written; --sanitize shows \
                 where"
            }
            Seen::StrayWrite => "the address of that write; --sanitize=memory shows its line",
        }
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Seen::NeverWritten { output, what, rest } => {
                write!(f, "never written: {what} of {output} still hold what lay there before")?;
                match rest {
                    0 => Ok(()),
                    1 => f.write_str("; 1 wrong element was written"),
                    n => write!(f, "; {n} wrong elements were written"),
                }
            }
            Seen::AllZero { output, what } => write!(f, "all zero: {what} of {output} are zeros"),
            Seen::Copied { output, of } => {
                write!(f, "a copy: the wrong rows of {output} are {of}, unchanged")
            }
            Seen::Swallowed { output } => write!(
                f,
                "NaN swallowed: the inputs make {output} NaN, and the kernel gives a number"
            ),
            Seen::OtherBits => f.write_str("other bits on a repeat of the same case"),
            Seen::StrayWrite => f.write_str("wrote where it must not"),
        }
    }
}

/// What a failing run shows, what says the most first. `again` are the buffers of another run of the
/// case under [`Poisons::APART`](crate::data::image::Poisons::APART), where there was one: an element
/// that nothing wrote holds each run's own poison.
pub fn look(case: &Case, failure: &Failure, again: Option<&Buffers>) -> Vec<Seen> {
    match failure.property {
        "repeat" => return vec![Seen::OtherBits],
        "stray-write" => return vec![Seen::StrayWrite],
        property if !property.starts_with("oracle") => return Vec::new(),
        _ => {}
    }
    let mut all = Vec::new();
    let Some(comparison) = &failure.comparison else { return all };
    let output = match (case.stage, comparison.output) {
        // What is judged is made of the parts: they are what is written.
        (Stage::Split, _) => Pointer::PartialLse,
        (_, output) => output,
    };
    let rows = Rows::of(case, &failure.buffers, again, output);
    let wrong = comparison.of(comparison.output).map_or(0, |m| m.wrong());
    if let Some(rows) = &rows
        && let Some(what) = rows.unwritten()
    {
        let written = if case.stage == Stage::Split { 0 } else { rows.count_unwritten() };
        all.push(Seen::NeverWritten { output, what, rest: wrong.saturating_sub(written) });
    }
    if comparison.way() == Some(Wrong::Swallowed) {
        all.push(Seen::Swallowed { output });
    }
    let Some(rows) = rows.filter(|_| output == Pointer::Out && case.stage != Stage::Split) else {
        return all;
    };
    if rows.is_zero() {
        let what = match rows.rows.len() {
            1 => "all elements".to_owned(),
            n => format!("all {n} rows"),
        };
        all.push(Seen::AllZero { output, what });
    } else if comparison.way() == Some(Wrong::Apart) {
        all.extend(rows.copied(case, &failure.buffers).map(|of| Seen::Copied { output, of }));
    }
    all
}

/// A row of an output: where it is, and its elements with whether each was written.
struct Row {
    at: Where,
    values: Vec<f64>,
    written: Vec<bool>,
}

/// The rows of an output, in order.
struct Rows {
    case_heads: usize,
    prefill: bool,
    rows: Vec<Row>,
}

impl Rows {
    fn of(case: &Case, own: &Buffers, again: Option<&Buffers>, output: Pointer) -> Option<Rows> {
        let image = Image::new(case, &case.placements().ok()?, &[])?;
        let judged = image.outputs().iter().find(|o| o.pointer == output)?;
        let size = judged.dtype.size();
        let bytes = |buffers: &BTreeMap<String, Vec<u8>>| {
            let memory = memory(&image, buffers, output.name())?;
            let mut bytes = Vec::new();
            judged.bytes(&memory, &mut bytes);
            Some(bytes)
        };
        let (before, after) = (bytes(&own.before)?, bytes(&own.after)?);
        let other = match again {
            Some(again) => Some((bytes(&again.before)?, bytes(&again.after)?)),
            None => None,
        };
        let same = |(before, after): (&[u8], &[u8]), i: usize| {
            before[i * size..][..size] == after[i * size..][..size]
        };
        let mut rows: Vec<Row> = Vec::new();
        for i in 0..after.len() / size {
            let at = place(case, &image, output, i);
            let is_next = |row: &&mut Row| {
                (row.at.batch, row.at.head, row.at.token) == (at.batch, at.head, at.token)
            };
            let untouched = same((&before, &after), i)
                && other.as_ref().is_none_or(|(before, after)| same((before, after), i));
            let value = judged.dtype.load(&after, i);
            match rows.last_mut().filter(is_next) {
                Some(row) => {
                    row.values.push(value);
                    row.written.push(!untouched);
                }
                None => rows.push(Row { at, values: vec![value], written: vec![!untouched] }),
            }
        }
        let prefill = case.stage == Stage::Prefill;
        Some(Rows { case_heads: case.num_heads, prefill, rows })
    }

    fn count_unwritten(&self) -> usize {
        self.rows.iter().map(|row| row.written.iter().filter(|w| !**w).count()).sum()
    }

    /// Which elements were never written, in words; `None` where all were.
    fn unwritten(&self) -> Option<String> {
        let none = |row: &&Row| !row.written.contains(&true);
        let whole: Vec<&Row> = self.rows.iter().filter(none).collect();
        if !self.rows.is_empty() && whole.len() == self.rows.len() {
            return Some("all elements".to_owned());
        }
        if !whole.is_empty() {
            return Some(format!(
                "{} of {} rows ({})",
                whole.len(),
                self.rows.len(),
                self.places(&whole)
            ));
        }
        let part: Vec<&Row> = self.rows.iter().filter(|row| row.written.contains(&false)).collect();
        let first = part.first()?;
        let missing = |row: &Row| -> Vec<usize> {
            (0..row.written.len()).filter(|d| !row.written[*d]).collect()
        };
        let elements = ranges(&missing(first));
        let alike = part.iter().all(|row| missing(row) == missing(first));
        let which = match (part.len() == self.rows.len(), alike) {
            (true, true) => "every row".to_owned(),
            (_, true) => format!("{} of {} rows", part.len(), self.rows.len()),
            _ => {
                return Some(format!(
                    "{} elements in {} of {} rows",
                    self.count_unwritten(),
                    part.len(),
                    self.rows.len()
                ));
            }
        };
        Some(format!("elements {elements} of {which}"))
    }

    /// Rows as heads of sequences, or as positions of a prefill.
    fn places(&self, rows: &[&Row]) -> String {
        const SHOWN: usize = 4;
        let mut by_sequence: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for row in rows {
            let at = if self.prefill { row.at.token } else { row.at.head };
            by_sequence.entry(row.at.batch).or_default().push(at);
        }
        let what = if self.prefill { "positions" } else { "heads" };
        let all = by_sequence.len();
        let words = by_sequence.into_iter().take(SHOWN).map(|(s, mut at)| {
            at.sort_unstable();
            at.dedup();
            let every = !self.prefill && at.len() == self.case_heads;
            let at = if every { "all heads".to_owned() } else { format!("{what} {}", ranges(&at)) };
            format!("sequence {s}: {at}")
        });
        let mut words = words.collect::<Vec<_>>().join("; ");
        if all > SHOWN {
            words += &format!("; and {} more sequences", all - SHOWN);
        }
        words
    }

    fn is_zero(&self) -> bool {
        self.rows.iter().all(|row| row.values.iter().all(|x| *x == 0.0))
    }

    /// Of which input's row every row is a copy.
    fn copied(&self, case: &Case, buffers: &Buffers) -> Option<&'static str> {
        let places = case.placements().ok()?;
        let (q_type, kv, out) = (case.dtypes.q, case.dtypes.kv, case.dtypes.out);
        let bytes = |name: &str| buffers.before.get(name);
        let is_row = |row: &Row, load: &dyn Fn(usize) -> Option<f64>| {
            row.values.iter().enumerate().all(|(d, got)| load(d).is_some_and(|x| x == *got))
        };
        let load = |bytes: Option<&Vec<u8>>, dtype: DType, at: usize| {
            let bytes = bytes.filter(|bytes| (at + 1) * dtype.size() <= bytes.len())?;
            Some(out.round(dtype.load(bytes, at)))
        };
        let from = |row: &Row, of: &str| {
            let Where { batch, head, token, .. } = row.at;
            let (group, n) = (head / case.group(), case.attended_by(batch, token).end);
            let cache = |name: &str, place: &crate::problem::Placement, key: usize, d| {
                load(bytes(name), kv, place.index(batch, case.layer, group, key, d))
            };
            match of {
                Q => is_row(row, &|d| {
                    let at = places.q.index(batch, 0, head, token, d);
                    load(bytes("q"), q_type, at).filter(|_| d < case.head_dim)
                }),
                V_FIRST if n > 0 => is_row(row, &|d| cache("v", &places.v, 0, d)),
                V_LAST if n > 0 => is_row(row, &|d| cache("v", &places.v, n - 1, d)),
                K_LAST if n > 0 => {
                    is_row(row, &|d| cache("k", &places.k, n - 1, d).filter(|_| d < case.head_dim))
                }
                _ => false,
            }
        };
        let is_told = |row: &&Row| row.values.iter().any(|x| *x != 0.0);
        let told: Vec<&Row> = self.rows.iter().filter(is_told).collect();
        let all = [Q, V_FIRST, V_LAST, K_LAST];
        all.into_iter().find(|of| !told.is_empty() && told.iter().all(|row| from(row, of)))
    }
}

const Q: &str = "the query's own rows";
const V_FIRST: &str = "V's first row";
const V_LAST: &str = "V's last row";
const K_LAST: &str = "K's last row";

/// An image that holds one buffer's bytes.
fn memory(image: &Image, buffers: &BTreeMap<String, Vec<u8>>, name: &str) -> Option<Vec<u8>> {
    let range = image.buffer(name)?.range.clone();
    let mut memory = vec![0u8; image.size()];
    memory[range.clone()].copy_from_slice(buffers.get(name)?.get(..range.len())?);
    Some(memory)
}

/// Whether a run under another poison is needed to say that elements were never written: where one
/// holds what lay there before.
pub fn needs_again(case: &Case, failure: &Failure) -> bool {
    let Some(comparison) = &failure.comparison else { return false };
    let output = if case.stage == Stage::Split { Pointer::PartialLse } else { comparison.output };
    Rows::of(case, &failure.buffers, None, output).is_some_and(|r| r.unwritten().is_some())
}

/// Numbers in ranges: `0-3, 7`.
fn ranges(numbers: &[usize]) -> String {
    const SHOWN: usize = 6;
    let mut parts: Vec<(usize, usize)> = Vec::new();
    for &n in numbers {
        match parts.last_mut() {
            Some((_, last)) if *last + 1 == n => *last = n,
            _ => parts.push((n, n)),
        }
    }
    let words = parts.iter().take(SHOWN).map(|(a, b)| match a == b {
        true => a.to_string(),
        false => format!("{a}-{b}"),
    });
    let mut words = words.collect::<Vec<_>>().join(", ");
    if parts.len() > SHOWN {
        words += &format!(" and {} more ranges", parts.len() - SHOWN);
    }
    words
}
