//! How an output was computed: the right way, or one that differs from it in stated respects.
//!
//! A recipe is pure data. A fault changes some aspects of the right one, and two faults that
//! change different aspects make a third recipe; `predict` computes what comes out of it.

use super::problem::{Problem, Task, Unit};
use crate::problem::{Axis, DType};
use std::ops::Range;

/// One of the two caches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cache {
    /// Keys.
    K,
    /// Values.
    V,
}

/// Where rows are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// The buffer.
    pub buffer: Cache,
    /// Elements before the first.
    pub offset: usize,
    /// Strides in elements, by [`Axis`].
    pub strides: [usize; 5],
    /// The layer.
    pub layer: usize,
}

impl Reading {
    /// The element (0, 0) of a head's rows.
    pub fn base(&self, s: usize, kv_head: usize) -> Option<usize> {
        let [ss, ls, hs, ..] = self.strides;
        let of = |i: usize, stride: usize| i.checked_mul(stride);
        self.offset
            .checked_add(of(s, ss)?)?
            .checked_add(of(self.layer, ls)?)?
            .checked_add(of(kv_head, hs)?)
    }

    /// The first element of rows `keys` of a head, where `dim` elements of each of them lie in a
    /// buffer of `len`; `None` where some do not.
    pub fn first_inside(
        &self,
        (s, kv_head): (usize, usize),
        keys: &Range<usize>,
        dim: usize,
        len: usize,
    ) -> Option<usize> {
        let (token, element) = self.step();
        let base = self.base(s, kv_head)?;
        let row = base.checked_add((keys.end - 1).checked_mul(token)?)?;
        let last = row.checked_add((dim - 1).checked_mul(element)?)?;
        (last < len).then(|| base + keys.start * token)
    }

    /// Strides of token and element.
    pub fn step(&self) -> (usize, usize) {
        (self.strides[Axis::Token as usize], self.strides[Axis::Dim as usize])
    }

    /// The stride of an axis, to be changed.
    pub fn stride_mut(&mut self, axis: Axis) -> &mut usize {
        &mut self.strides[axis as usize]
    }
}

/// The KV head that a query head reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadMap {
    /// `h / G`.
    Grouped,
    /// `h mod H`.
    Interleaved,
    /// `(h / G + 1) mod H`.
    NextWrapped,
    /// `min((h + 1) / G, H - 1)`.
    NextClamped,
    /// Always the first.
    First,
    /// `h`, as if each query head had a KV head of its own.
    Own,
    /// `h / H`: divided by the number of KV heads, and not by the group.
    ByCount,
}

impl HeadMap {
    /// The KV head of query head `h`.
    pub fn of(self, h: usize, group: usize, num_kv_heads: usize) -> usize {
        match self {
            HeadMap::Grouped => h / group,
            HeadMap::Interleaved => h % num_kv_heads,
            HeadMap::NextWrapped => (h / group + 1) % num_kv_heads,
            HeadMap::NextClamped => ((h + 1) / group).min(num_kv_heads - 1),
            HeadMap::First => 0,
            HeadMap::Own => h,
            HeadMap::ByCount => h / num_kv_heads,
        }
    }
}

/// The sequence whose rows are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeqMap {
    /// The query's own.
    Own,
    /// This one, for all.
    Fixed(usize),
    /// The one after the query's own, the first after the last.
    Next,
}

impl SeqMap {
    /// The sequence that a query of sequence `s` reads, of `batch`.
    pub fn of(self, s: usize, batch: usize) -> usize {
        match self {
            SeqMap::Own => s,
            SeqMap::Fixed(b) => b,
            SeqMap::Next => (s + 1) % batch,
        }
    }
}

/// The output row that lies where a unit's should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowMap {
    /// The unit's own.
    Own,
    /// Of the query head after it, the first after the last.
    NextHead,
    /// Of the query head before it, the last before the first.
    HeadBefore,
    /// Of the query heads in reverse.
    Reversed,
    /// Row `r` of group `g` lies where that of row `g` of group `r` should.
    GroupsExchanged,
    /// The inverse of that, where there are not as many groups as rows of a group.
    GroupsExchangedBack,
    /// `[heads, batch]` in the place of `[batch, heads]`.
    HeadsOutside,
    /// Of the sequence after its own, the first after the last.
    NextSequence,
    /// Of the position after its own, the first after the last.
    NextPosition,
    /// Of the position before its own, the last before the first.
    PositionBefore,
    /// `[tokens, heads]` in the place of `[heads, tokens]`.
    TokensOutside,
}

impl RowMap {
    /// The unit whose right answer lies where that of `unit` should.
    pub fn source(self, unit: usize, problem: &Problem<'_>) -> Option<usize> {
        if self == RowMap::Own {
            return Some(unit);
        }
        let Unit { s, h, .. } = problem.units[unit];
        let (heads, kv_heads) = (problem.num_heads, problem.num_kv_heads);
        let (group, batch) = (problem.group(), problem.batch());
        let (first, tokens) = problem.queries(s, h);
        let t = unit - first;
        let at = |s: usize, h: usize, t: usize| {
            let (first, tokens) = problem.queries(s, h);
            (t < tokens).then_some(first + t)
        };
        match self {
            RowMap::Own => Some(unit),
            RowMap::NextHead => at(s, (h + 1) % heads, t),
            RowMap::HeadBefore => at(s, (h + heads - 1) % heads, t),
            RowMap::Reversed => at(s, heads - 1 - h, t),
            RowMap::GroupsExchanged => at(s, h % kv_heads * group + h / kv_heads, t),
            RowMap::GroupsExchangedBack => at(s, h % group * kv_heads + h / group, t),
            RowMap::HeadsOutside => {
                let flat = s * heads + h;
                at(flat % batch, flat / batch, t)
            }
            RowMap::NextSequence => at((s + 1) % batch, h, t),
            RowMap::NextPosition => at(s, h, (t + 1) % tokens),
            RowMap::PositionBefore => at(s, h, (t + tokens - 1) % tokens),
            RowMap::TokensOutside => {
                let flat = h * tokens + t;
                at(s, flat % heads, flat / heads)
            }
        }
    }
}

/// The sink's logit of which query head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SinkMap {
    /// The first of its group.
    GroupFirst,
    /// Head 0.
    Zero,
    /// The one whose number is that of its KV head.
    KvHead,
    /// The one whose number is its row in its group.
    RowOfGroup,
    /// The one after it, the first after the last.
    Next,
}

/// How the sink's logit takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sink {
    /// As it should.
    Right,
    /// Another head's.
    Of(SinkMap),
    /// So many times.
    Times(usize),
    /// Not at all.
    Ignored,
    /// Only where the part that carries it has keys, of so many parts: the last part of the attended
    /// keys, or the first of all keys before a window is cut off.
    InPart {
        /// Parts.
        splits: usize,
        /// Whether the last carries it.
        last: bool,
    },
    /// The right one, and one of logit 0 for each part without keys, of so many.
    EmptyParts(usize),
}

impl Sink {
    /// The logit that takes part in the softmax of a unit over `keys`.
    pub fn logit(self, unit: &Unit, keys: &Range<usize>, problem: &Problem<'_>) -> Option<f64> {
        let of = |h: usize| problem.sinks.as_ref().map(|sinks| sinks[h]);
        let (heads, group) = (problem.num_heads, problem.group());
        let own = of(unit.h);
        match self {
            Sink::Right => own,
            Sink::Of(map) => of(match map {
                SinkMap::GroupFirst => unit.h / group * group,
                SinkMap::Zero => 0,
                SinkMap::KvHead => unit.h / group,
                SinkMap::RowOfGroup => unit.h % group,
                SinkMap::Next => (unit.h + 1) % heads,
            }),
            Sink::Times(times) => own.map(|x| x + libm::log(times as f64)),
            Sink::Ignored => None,
            Sink::InPart { splits, last } => own.filter(|_| match last {
                true => empty_parts(keys.len(), splits) == 0,
                false => keys.start < keys.end.div_ceil(splits),
            }),
            Sink::EmptyParts(splits) => match (empty_parts(keys.len(), splits), own) {
                (0, own) => own,
                (empty, None) => Some(libm::log(empty as f64)),
                (empty, Some(own)) => {
                    let other = libm::log(empty as f64);
                    let (most, least) = (own.max(other), own.min(other));
                    Some(most + libm::log1p(libm::exp(least - most)))
                }
            },
        }
    }
}

/// Parts of `ceil(keys / splits)` keys that have none.
pub fn empty_parts(keys: usize, splits: usize) -> usize {
    let each = keys.div_ceil(splits).max(1);
    splits - keys.div_ceil(each)
}

/// Where the attended keys end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// After the last key.
    Right,
    /// One before it.
    MinusOne,
    /// One after it.
    PlusOne,
    /// `S mod tile` before it.
    Tile(usize),
    /// After the last row of the buffer.
    Capacity,
}

/// Which keys are attended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keys {
    /// Where they end.
    pub end: End,
    /// Whether a window is counted back from that end, and not from the right one.
    pub window_follows: bool,
    /// The window, 0 for none.
    pub window: usize,
    /// The keys from which the window is counted back, where they are not the query's own.
    pub window_of: Option<usize>,
    /// Whether row 0 is left out.
    pub without_first: bool,
    /// Rows by which all are shifted.
    pub shift: usize,
}

impl Keys {
    /// The rows that a query with `n` keys attends; empty ones start and end at 0.
    pub fn range(&self, n: usize, capacity: usize) -> Range<usize> {
        let end = match self.end {
            End::Right => n,
            End::MinusOne => n.saturating_sub(1),
            End::PlusOne => n + 1,
            End::Tile(tile) => n - n % tile,
            End::Capacity => capacity,
        };
        let counted = self.window_of.unwrap_or(if self.window_follows { end } else { n });
        let mut start = if self.window == 0 { 0 } else { counted.saturating_sub(self.window) };
        if self.without_first {
            start = start.max(1);
        }
        let (start, end) = (start + self.shift, end + self.shift);
        if start < end { start..end } else { 0..0 }
    }
}

/// The factor on Q·K.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScaleBy {
    /// As it should be.
    Right,
    /// 1.
    One,
    /// Its square.
    Squared,
    /// `1 / head_dim`.
    HeadDim,
}

impl ScaleBy {
    /// The factor.
    pub fn of(self, problem: &Problem<'_>) -> f64 {
        let scale = problem.scale;
        match self {
            ScaleBy::Right => scale,
            ScaleBy::One => 1.0,
            ScaleBy::Squared => scale * scale,
            ScaleBy::HeadDim => 1.0 / problem.head_dim as f64,
        }
    }
}

/// How the parts of a split are wrongly put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// Numerators and denominators added as they are, each relative to its own maximum.
    Sum,
    /// The mean of the normalised parts.
    Mean,
}

/// Where the keys are split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parts {
    /// In two, before this key.
    Cut(usize),
    /// In so many of `ceil(keys / parts)` each.
    Even(usize),
}

impl Parts {
    /// The part of each of `keys` (positions from the first attended), as lengths.
    pub fn lengths(self, keys: &Range<usize>) -> Vec<usize> {
        let n = keys.len();
        match self {
            Parts::Cut(at) => {
                let first = at.saturating_sub(keys.start).min(n);
                [first, n - first].into_iter().filter(|len| *len > 0).collect()
            }
            Parts::Even(parts) => {
                let each = n.div_ceil(parts).max(1);
                (0..n).step_by(each).map(|at| each.min(n - at)).collect()
            }
        }
    }
}

/// A softmax and P·V in 16 bits, key after key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Narrow {
    /// f16 or bf16.
    pub dtype: DType,
    /// Product and addition rounded once.
    pub fused: bool,
    /// Keys of a tile, whose sums start at 0 and are added when it ends; 0 for none.
    pub tile: usize,
    /// P is divided by the denominator before it multiplies V.
    pub normalised: bool,
    /// Scores computed in f32 as well, key by key, and not in f64.
    pub single: bool,
}

/// A sum that is rounded to 16 bits after every addition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sum16 {
    /// f16 or bf16.
    pub dtype: DType,
    /// Product and addition rounded once.
    pub fused: bool,
    /// Terms of a tile, whose sum starts at 0 and is added when it ends; 0 for none.
    pub tile: usize,
}

/// How weights and values become an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Combine {
    /// Softmax and P·V.
    Softmax,
    /// Parts put together wrongly.
    Split(How, Parts),
    /// In 16 bits.
    Narrow(Narrow),
    /// P·V alone summed in 16 bits, with P divided by the denominator before or after.
    SumOfValues(Sum16, bool),
    /// P·V summed in f32 within a tile of so many keys, and in 16 bits from tile to tile, relative to
    /// the largest score so far.
    Running(DType, usize),
    /// The denominator alone summed in 16 bits.
    RowSum(Sum16),
}

/// How a score is made of q and a key's row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Scaled, then capped where a softcap is set.
    Right,
    /// Never capped.
    Uncapped,
    /// Capped, then scaled.
    CappedFirst,
    /// Capped without being scaled at all.
    CappedUnscaled,
    /// Capped in units of log 2, with the cap of base e.
    CappedLog2,
    /// Rounded to a type: the dot product before it is scaled, or the scaled one.
    Narrowed(DType, bool),
    /// q times the scale rounded to a type before it meets the keys.
    ScaledQuery(DType),
    /// The dot product summed in 16 bits.
    Sum(Sum16),
}

/// How parts are wrongly merged, of each its output and its lse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Merge {
    /// Rightly.
    Right,
    /// The parts that have keys added as they are.
    Sum,
    /// The mean of the parts that have keys.
    Mean,
    /// The sum over those that have keys, divided by the number of all parts.
    MeanOfAll,
    /// Each lse taken for one to base 2.
    Base2,
    /// Without the first part.
    WithoutFirst,
    /// Without the last part.
    WithoutLast,
    /// A part without keys counts as if its lse were 0, with what lies in its output.
    EmptyAtZero,
    /// The lse of part i of row r read where that of `[heads, batch, parts]` would be.
    HeadsOutside,
    /// The lse of part i of row r read where that of `[parts, batch, heads]` would be.
    PartsOutside,
}

/// How one output was computed.
#[derive(Debug, Clone, PartialEq)]
pub struct Recipe {
    /// Where keys are read.
    pub k: Reading,
    /// Where values are read.
    pub v: Reading,
    /// Which KV head of K.
    pub heads_k: HeadMap,
    /// Which KV head of V.
    pub heads_v: HeadMap,
    /// Which sequence's keys.
    pub seq_k: SeqMap,
    /// Which sequence's values.
    pub seq_v: SeqMap,
    /// Bits of the index of a key's row, of a value's; 0 for all.
    pub bits: [u32; 2],
    /// Which keys.
    pub keys: Keys,
    /// The factor on Q·K.
    pub scale: ScaleBy,
    /// Elements of q and k that take part in Q·K.
    pub used: usize,
    /// Elements from one query to the next, where they are not those of a q vector.
    pub q_rows: Option<usize>,
    /// Elements from one output to the next, and of each output, where they are not those of a v vector.
    pub out_rows: Option<usize>,
    /// The current token's row is read as zeros.
    pub current_zero: bool,
    /// How scores are made.
    pub form: Form,
    /// How the sink takes part.
    pub sink: Sink,
    /// How the output is formed.
    pub combine: Combine,
    /// How parts are merged.
    pub merge: Merge,
    /// Whose row the output is.
    pub row: RowMap,
    /// Aspects that were changed.
    touched: u32,
}

/// An aspect of a recipe. Two faults that change the same one cannot be composed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aspect {
    /// Strides, base and buffer of K.
    AddressK,
    /// Strides, base and buffer of V.
    AddressV,
    /// Strides of q and of the output.
    AddressQ,
    /// The layer of K.
    LayerK,
    /// The layer of V.
    LayerV,
    /// The head map of K.
    HeadsK,
    /// The head map of V.
    HeadsV,
    /// The sequence of K.
    SeqK,
    /// The sequence of V.
    SeqV,
    /// The index of K's rows.
    IndexK,
    /// The index of V's rows.
    IndexV,
    /// Where the keys begin.
    First,
    /// Where the keys end.
    Last,
    /// The factor on Q·K.
    Scale,
    /// The elements used.
    Used,
    /// The current row.
    Current,
    /// How scores are made.
    Form,
    /// How the sink takes part.
    Sink,
    /// How the output is formed, or parts are merged.
    Combine,
    /// Whose row the output is.
    Row,
}

impl Recipe {
    /// The right way.
    pub fn right(problem: &Problem<'_>) -> Recipe {
        let reading = |buffer, place: &crate::problem::Placement| Reading {
            buffer,
            offset: place.offset(),
            strides: Axis::ALL.map(|axis| place.stride(axis)),
            layer: problem.layer,
        };
        Recipe {
            k: reading(Cache::K, &problem.k.place),
            v: reading(Cache::V, &problem.v.place),
            heads_k: HeadMap::Grouped,
            heads_v: HeadMap::Grouped,
            seq_k: SeqMap::Own,
            seq_v: SeqMap::Own,
            bits: [0; 2],
            keys: Keys {
                end: End::Right,
                window_follows: false,
                window: problem.window_len,
                window_of: None,
                without_first: false,
                shift: 0,
            },
            scale: ScaleBy::Right,
            used: problem.head_dim,
            q_rows: None,
            out_rows: None,
            current_zero: false,
            form: Form::Right,
            sink: Sink::Right,
            combine: Combine::Softmax,
            merge: Merge::Right,
            row: RowMap::Own,
            touched: 0,
        }
    }

    /// Notes that an aspect is changed; false where another fault changed it already.
    pub fn touch(&mut self, aspect: Aspect) -> bool {
        let free = !self.touches(aspect);
        self.touched |= 1 << aspect as u32;
        free
    }

    /// Whether an aspect is changed.
    pub fn touches(&self, aspect: Aspect) -> bool {
        self.touched & (1 << aspect as u32) != 0
    }

    /// Whether it is a sequence of roundings: where they leave too much open, they prove nothing.
    pub fn simulates(&self) -> bool {
        matches!(self.combine, Combine::SumOfValues(..) | Combine::RowSum(_))
            || matches!(self.form, Form::Sum(_) | Form::Narrowed(..))
    }

    /// Whether it is about where something is read or written: outputs that are one number say
    /// nothing of that.
    pub fn names_address(&self, problem: &Problem<'_>) -> bool {
        use Aspect::*;
        let aspects = [
            AddressK, AddressV, AddressQ, LayerK, LayerV, HeadsK, HeadsV, SeqK, SeqV, IndexK,
            IndexV,
        ];
        problem.task != Task::Merge
            && (self.touches(Row) || aspects.iter().any(|aspect| self.touches(*aspect)))
    }

    /// The rows that a unit attends.
    pub fn range(&self, unit: &Unit, problem: &Problem<'_>) -> Range<usize> {
        self.keys.range(unit.keys, problem.capacity)
    }

    /// The sequence and the KV head that a unit reads of a cache.
    pub fn head(&self, cache: Cache, unit: &Unit, problem: &Problem<'_>) -> (usize, usize) {
        let (seq, heads) = match cache {
            Cache::K => (self.seq_k, self.heads_k),
            Cache::V => (self.seq_v, self.heads_v),
        };
        let head = heads.of(unit.h, problem.group(), problem.num_kv_heads);
        (seq.of(unit.s, problem.batch()), head)
    }

    /// Elements of a row that are read of K, of V.
    pub fn dims(&self, problem: &Problem<'_>) -> (usize, usize) {
        (self.used.max(problem.head_dim), self.out_rows.unwrap_or(problem.head_dim_v))
    }

    /// The query of a unit as it is read; `None` where it would be beyond the last.
    pub fn query<'q>(&self, unit: usize, problem: &'q Problem<'_>) -> Option<&'q [f64]> {
        let rows = self.q_rows.unwrap_or(problem.head_dim);
        problem.q.get(unit * rows..)?.get(..self.used)
    }

    /// The units whose rows some output holds, as a kernel computes them.
    pub fn sources(&self, problem: &Problem<'_>) -> Range<usize> {
        let units = problem.units.len();
        match self.out_rows {
            Some(rows) => 0..units.min((units * problem.head_dim_v).div_ceil(rows)),
            None => 0..units,
        }
    }
}
