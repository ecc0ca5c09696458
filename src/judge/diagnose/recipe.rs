//! How an output was computed: the right way, or one that differs from it in stated respects.
//!
//! A recipe is pure data. A fault changes some aspects of the right one, and two faults that
//! change different aspects make a third recipe; `predict` computes what comes out of it.

use super::problem::{Problem, Unit};
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
}

impl HeadMap {
    /// The KV head of query head `h`.
    pub fn of(self, h: usize, group: usize, num_kv_heads: usize) -> usize {
        match self {
            HeadMap::Grouped => h / group,
            HeadMap::Interleaved => h % num_kv_heads,
            HeadMap::NextWrapped => (h / group + 1) % num_kv_heads,
            HeadMap::NextClamped => ((h + 1) / group).min(num_kv_heads - 1),
        }
    }
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
        let counted = if self.window_follows { end } else { n };
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

/// How weights and values become an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Combine {
    /// Softmax and P·V.
    Softmax,
    /// Parts put together wrongly.
    Split(How, Parts),
    /// In 16 bits.
    Narrow(Narrow),
}

/// How one output was computed.
#[derive(Debug, Clone, PartialEq)]
pub struct Recipe {
    /// Where keys are read.
    pub k: Reading,
    /// Where values are read.
    pub v: Reading,
    /// Which KV head.
    pub heads: HeadMap,
    /// Which keys.
    pub keys: Keys,
    /// The factor on Q·K.
    pub scale: ScaleBy,
    /// Elements of q and k that take part in Q·K.
    pub used: usize,
    /// The current token's row is read as zeros.
    pub current_zero: bool,
    /// How the output is formed.
    pub combine: Combine,
    /// Aspects that were changed.
    touched: u16,
}

/// An aspect of a recipe. Two faults that change the same one cannot be composed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aspect {
    /// Strides, base and buffer of K.
    AddressK = 1,
    /// Strides, base and buffer of V.
    AddressV = 2,
    /// The layer of K.
    LayerK = 4,
    /// The layer of V.
    LayerV = 8,
    /// The head map.
    Heads = 16,
    /// Where the keys begin.
    First = 32,
    /// Where the keys end.
    Last = 64,
    /// The factor on Q·K.
    Scale = 128,
    /// The elements used.
    Used = 256,
    /// The current row.
    Current = 512,
    /// How the output is formed.
    Combine = 1024,
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
            heads: HeadMap::Grouped,
            keys: Keys {
                end: End::Right,
                window_follows: false,
                window: problem.window_len,
                without_first: false,
                shift: 0,
            },
            scale: ScaleBy::Right,
            used: problem.head_dim,
            current_zero: false,
            combine: Combine::Softmax,
            touched: 0,
        }
    }

    /// Notes that an aspect is changed; false where another fault changed it already.
    pub fn touch(&mut self, aspect: Aspect) -> bool {
        let free = self.touched & aspect as u16 == 0;
        self.touched |= aspect as u16;
        free
    }

    /// The rows that a unit attends.
    pub fn range(&self, unit: &Unit, problem: &Problem<'_>) -> Range<usize> {
        self.keys.range(unit.keys, problem.capacity)
    }
}
