//! `[supports]` and `[layout]`: inside which bounds a kernel is to be driven.

use super::read::{Item, ManifestError, Section};
use crate::device::ARENA_ALIGN;
use crate::problem::{Axis, DType, DTypes, Layout, MAX_BATCH, RopeStyle};
use std::fmt;

/// The largest value that a kernel may demand of `head_dim` and `group`: a draw beyond it is no case
/// for any machine, and products of such extents overflow.
const MOST: usize = 1 << 20;

/// The values that an extent may have: within `min..=max`, a multiple of `multiple_of`, and among
/// `one_of` where that is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    /// The least value.
    pub min: usize,
    /// The largest value; none means unlimited.
    pub max: Option<usize>,
    /// Only multiples of it; 1 allows all.
    pub multiple_of: usize,
    /// Only these, ascending.
    pub one_of: Option<Vec<usize>>,
}

impl Default for Range {
    /// Everything from 1.
    fn default() -> Self {
        Range { min: 1, max: None, multiple_of: 1, one_of: None }
    }
}

impl Range {
    /// Whether a value lies in the range.
    pub fn contains(&self, value: usize) -> bool {
        value >= self.min
            && self.max.is_none_or(|max| value <= max)
            && value.is_multiple_of(self.multiple_of)
            && self.one_of.as_ref().is_none_or(|list| list.contains(&value))
    }

    /// The least value of the range that is at least `from`.
    pub fn at_least(&self, from: usize) -> Option<usize> {
        let from = from.max(self.min);
        match &self.one_of {
            Some(list) => list.iter().copied().find(|x| *x >= from && self.contains(*x)),
            None => from.checked_next_multiple_of(self.multiple_of).filter(|x| self.contains(*x)),
        }
    }

    /// The largest value of the range that is at most `to`.
    pub fn at_most(&self, to: usize) -> Option<usize> {
        let to = to.min(self.max.unwrap_or(usize::MAX));
        match &self.one_of {
            Some(list) => list.iter().copied().rev().find(|x| *x <= to && self.contains(*x)),
            None => Some(to / self.multiple_of * self.multiple_of).filter(|x| self.contains(*x)),
        }
    }

    /// Reads a range of values from `least` on, which holds one of at most `most`.
    fn read(item: &Item, least: usize, most: usize) -> Result<Range, ManifestError> {
        let section = item.table("a table such as { min = 1, max = 128, multiple_of = 4 }")?;
        section.keys(&["min", "max", "multiple_of", "one_of"])?;
        let mut range = Range::default();
        let want = "an integer, such as 128";
        if let Some(item) = section.get("min") {
            range.min = item.count(least, want)?;
        }
        if let Some(item) = section.get("max") {
            range.max = Some(item.count(range.min, want)?);
        }
        if let Some(item) = section.get("multiple_of") {
            range.multiple_of = item.count(1, want)?;
        }
        if let Some(item) = section.get("one_of") {
            let list = item.filled_list("a list such as [64, 128]")?;
            let mut list =
                list.iter().map(|i| i.count(least, want)).collect::<Result<Vec<_>, _>>()?;
            if let Some(value) = list.iter().find(|value| **value > most) {
                return Err(item.bad(value, format_args!("it must be at most {most}")));
            }
            list.sort_unstable();
            list.dedup();
            // `min` is 1 by default, which must not exclude a 0 that is listed.
            if section.get("min").is_none() {
                range.min = range.min.min(list[0]);
            }
            range.one_of = Some(list);
        }
        match range.at_least(0) {
            None => Err(item.bad(&range, "no value satisfies all of it; widen one of them")),
            Some(value) if value > most => {
                let why = format_args!("its least value is {value}; it must be at most {most}");
                Err(item.bad(&range, why))
            }
            Some(_) => Ok(range),
        }
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.max {
            Some(max) => write!(f, "{} to {max}", self.min)?,
            None => write!(f, "{} or more", self.min)?,
        }
        if self.multiple_of > 1 {
            write!(f, ", multiples of {}", self.multiple_of)?;
        }
        if let Some(list) = &self.one_of {
            write!(f, ", one of {list:?}")?;
        }
        Ok(())
    }
}

/// What a kernel takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Supports {
    /// Combinations of element types.
    pub dtypes: Vec<DTypes>,
    /// Elements of a q and k vector.
    pub head_dim: Range,
    /// Elements of a v and out vector; none means always as many as `head_dim`.
    pub head_dim_v: Option<Range>,
    /// Query heads that share a KV head.
    pub group: Range,
    /// Keys of each sequence; 0 only where `min` says so.
    pub seq_len: Range,
    /// Sequences.
    pub batch: Range,
    /// Bytes that divide every base address and every stride but the unit one; none means the
    /// element's size.
    pub align: Option<usize>,
    /// Strides wider than the extents need.
    pub padding: bool,
    /// A sliding window.
    pub window: bool,
    /// A soft cap on scores.
    pub softcap: bool,
    /// Attention sinks.
    pub sinks: bool,
    /// Elements of the residual stream.
    pub hidden: Range,
    /// RoPE of the appended key; none means without.
    pub rope: Vec<RopeStyle>,
}

impl Default for Supports {
    fn default() -> Self {
        Supports {
            dtypes: vec![DTypes::uniform(DType::F32)],
            head_dim: Range::default(),
            head_dim_v: None,
            group: Range::default(),
            seq_len: Range::default(),
            batch: Range::default(),
            align: None,
            padding: false,
            window: false,
            softcap: false,
            sinks: false,
            hidden: Range::default(),
            rope: Vec::new(),
        }
    }
}

impl Supports {
    pub(super) fn read(section: &Section) -> Result<Supports, ManifestError> {
        section.keys(&[
            "dtype",
            "head_dim",
            "head_dim_v",
            "group",
            "seq_len",
            "batch",
            "align",
            "padding",
            "window",
            "softcap",
            "sinks",
            "hidden",
            "rope",
        ])?;
        let mut supports = Supports::default();
        if let Some(item) = section.get("dtype") {
            let list = item.filled_list(DTYPES)?;
            supports.dtypes = list.iter().map(read_dtypes).collect::<Result<_, _>>()?;
        }
        for (name, least, most, field) in [
            ("head_dim", 1, MOST, &mut supports.head_dim),
            ("group", 1, MOST, &mut supports.group),
            ("hidden", 1, MOST, &mut supports.hidden),
            // Lengths reach the kernel as i32.
            ("seq_len", 0, i32::MAX as usize, &mut supports.seq_len),
            ("batch", 1, MAX_BATCH, &mut supports.batch),
        ] {
            if let Some(item) = section.get(name) {
                *field = Range::read(item, least, most)?;
            }
        }
        if let Some(item) = section.get("head_dim_v") {
            supports.head_dim_v = Some(Range::read(item, 1, MOST)?);
        }
        if let Some(item) = section.get("align") {
            let align = item.count(1, "a number of bytes, such as 16")?;
            if !align.is_power_of_two() || align > ARENA_ALIGN {
                let why = format!("it must be a power of two of at most {ARENA_ALIGN} bytes");
                return Err(item.bad(align, why));
            }
            supports.align = Some(align);
        }
        for (name, field) in [
            ("padding", &mut supports.padding),
            ("window", &mut supports.window),
            ("softcap", &mut supports.softcap),
            ("sinks", &mut supports.sinks),
        ] {
            if let Some(item) = section.get(name) {
                *field = item.boolean()?;
            }
        }
        if let Some(item) = section.get("rope") {
            let want = "a list such as [\"half\", \"interleaved\"]";
            let styles = item.filled_list(want)?;
            supports.rope = styles.iter().map(|i| i.word(want)).collect::<Result<_, _>>()?;
        }
        Ok(supports)
    }
}

const DTYPES: &str = "a list such as [{ q = \"f16\", kv = \"f16\", out = \"f32\" }]";

fn read_dtypes(item: &Item) -> Result<DTypes, ManifestError> {
    let section = item.table("a table such as { q = \"f16\", kv = \"f16\", out = \"f32\" }")?;
    section.keys(&["q", "kv", "out"])?;
    let dtype = |name: &str| {
        section.require(name, &format!("{name} = \"f32\""))?.word("a type, such as \"f16\"")
    };
    Ok(DTypes { q: dtype("q")?, kv: dtype("kv")?, out: dtype("out")? })
}

/// The layouts of K and V that a kernel reads; they combine freely.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layouts {
    /// Layouts of K, without the batch axis where it is outermost.
    pub k: Vec<Layout>,
    /// Layouts of V.
    pub v: Vec<Layout>,
}

impl Default for Layouts {
    /// `HND` for both.
    fn default() -> Self {
        let hnd: Layout = "HND".parse().expect("a constant layout");
        Layouts { k: vec![hnd.clone()], v: vec![hnd] }
    }
}

impl Layouts {
    pub(super) fn read(section: &Section) -> Result<Layouts, ManifestError> {
        section.keys(&["k", "v"])?;
        let mut layouts = Layouts::default();
        for (name, field) in [("k", &mut layouts.k), ("v", &mut layouts.v)] {
            let Some(item) = section.get(name) else { continue };
            let mut list: Vec<Layout> = Vec::new();
            for item in item.filled_list("a list such as [\"HND\", \"NHD\"]")? {
                let layout: Layout = item.word("a layout, such as \"HND\"")?;
                if !layout.has(Axis::Dim) {
                    return Err(item.bad(layout, "it has no element axis; add D"));
                }
                if !layout.has(Axis::Token) && !layout.is_paged() {
                    let why = "it has no token axis; add N, or P and T for pages";
                    return Err(item.bad(layout, why));
                }
                if list.iter().any(|l| l.with_batch() == layout.with_batch()) {
                    return Err(item.bad(layout, "it is in the list already; remove one"));
                }
                list.push(layout);
            }
            *field = list;
        }
        Ok(layouts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_know_their_neighbours() {
        let r = Range { min: 5, max: Some(30), multiple_of: 8, one_of: None };
        for x in 0..40 {
            assert_eq!(r.contains(x), [8, 16, 24].contains(&x), "{x}");
            assert_eq!(r.at_least(x), (x..40).find(|y| r.contains(*y)), "{x}");
            assert_eq!(r.at_most(x), (0..=x).rev().find(|y| r.contains(*y)), "{x}");
        }
        let r = Range { min: 1, max: None, multiple_of: 1, one_of: Some(vec![64, 128, 256]) };
        assert_eq!((r.at_least(65), r.at_most(127), r.at_most(63)), (Some(128), Some(64), None));
        assert_eq!(Range::default().at_least(usize::MAX), Some(usize::MAX));
        assert_eq!(Range { multiple_of: 4, ..Range::default() }.at_least(usize::MAX), None);
        assert_eq!(Range::default().at_least(0), Some(1));
    }
}
