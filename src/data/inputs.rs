//! The input tensors of a case: dense values, free of strides, padding and poison.

use crate::problem::{Case, DType, Pointer, Shape};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// Elements of one type, with the f32 value of each (every driven type is exact in f32).
#[derive(Debug, Clone, PartialEq)]
pub struct Typed {
    /// The element type.
    pub dtype: DType,
    /// What the stored elements are worth.
    pub values: Vec<f32>,
    /// The elements as stored, little-endian.
    pub bytes: Vec<u8>,
}

impl Typed {
    /// Rounds values to a type, to nearest, ties to even.
    ///
    /// # Panics
    /// For types that are not driven ([`DType::is_driven`]).
    pub fn round(dtype: DType, mut values: Vec<f32>) -> Self {
        use half::slice::HalfFloatSliceExt;
        let mut bytes = vec![0u8; values.len() * dtype.size()];
        macro_rules! narrow {
            ($half:ty) => {{
                let mut narrow = vec![<$half>::ZERO; values.len()];
                narrow.convert_from_f32_slice(&values);
                narrow.convert_to_f32_slice(&mut values);
                for (b, x) in bytes.chunks_exact_mut(2).zip(&narrow) {
                    b.copy_from_slice(&x.to_le_bytes());
                }
            }};
        }
        match dtype {
            DType::F32 => {
                for (b, x) in bytes.chunks_exact_mut(4).zip(&values) {
                    b.copy_from_slice(&x.to_le_bytes());
                }
            }
            DType::F16 => narrow!(half::f16),
            DType::BF16 => narrow!(half::bf16),
            other => panic!("{other} is parsed but not driven yet"),
        }
        Typed { dtype, values, bytes }
    }

    /// Whether an element has all bits set.
    fn holds_poison(&self) -> bool {
        // Without a way out on the first: such a loop takes many elements at once.
        match self.dtype.size() {
            2 => {
                let elements = self.bytes.as_chunks::<2>().0.iter();
                elements.fold(false, |any, x| any | (u16::from_ne_bytes(*x) == u16::MAX))
            }
            _ => {
                let elements = self.bytes.as_chunks::<4>().0.iter();
                elements.fold(false, |any, x| any | (u32::from_ne_bytes(*x) == u32::MAX))
            }
        }
    }
}

/// The elements of a tensor that hold something: for each sequence `[heads, tokens, dim]`, one
/// after the other.
#[derive(Debug, Clone, PartialEq)]
pub struct Rows {
    /// What there is.
    pub shape: Shape,
    /// The elements.
    pub data: Typed,
    /// Where each sequence starts, in elements.
    starts: Vec<usize>,
}

impl Rows {
    /// Fills a tensor head by head; `fill(s, head, rows)` writes `[tokens, dim]` values, which are
    /// then rounded to the type.
    pub fn fill(
        dtype: DType,
        shape: Shape,
        mut fill: impl FnMut(usize, usize, &mut [f32]),
    ) -> Self {
        let mut starts = Vec::with_capacity(shape.tokens.len());
        let mut values = Vec::with_capacity(shape.len());
        for (s, tokens) in shape.tokens.iter().enumerate() {
            starts.push(values.len());
            for h in 0..shape.heads {
                let at = values.len();
                values.resize(at + tokens * shape.dim, 0.0);
                fill(s, h, &mut values[at..]);
            }
        }
        Rows { data: Typed::round(dtype, values), shape, starts }
    }

    /// Element range of the rows of one sequence and head.
    pub fn range(&self, s: usize, head: usize) -> Range<usize> {
        let size = self.shape.tokens[s] * self.shape.dim;
        let at = self.starts[s] + head * size;
        at..at + size
    }

    /// The values of rows `tokens` of one sequence and head, `[tokens, dim]`.
    pub fn rows(&self, s: usize, head: usize, tokens: Range<usize>) -> &[f32] {
        let dim = self.shape.dim;
        &self.data.values[self.range(s, head)][tokens.start * dim..tokens.end * dim]
    }

    /// The values of all rows of one sequence and head.
    pub fn all(&self, s: usize, head: usize) -> &[f32] {
        &self.data.values[self.range(s, head)]
    }
}

/// The floating-point inputs of a case, by name. Lengths and positions follow from the case. A law poses
/// a case in another way on the same tensors, which are then shared.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Inputs(pub BTreeMap<Pointer, Arc<Rows>>);

impl Inputs {
    /// Whether an element has all bits set: one NaN among many, and what poison is.
    pub fn hold_poison(&self) -> bool {
        self.0.values().any(|rows| rows.data.holds_poison())
    }

    /// A tensor of the case's stage.
    ///
    /// # Panics
    /// If the stage does not read it.
    pub fn of(&self, pointer: Pointer) -> &Rows {
        self.0.get(&pointer).unwrap_or_else(|| panic!("the inputs have no {pointer}"))
    }

    /// Queries `[num_heads, queries, head_dim]`.
    pub fn q(&self) -> &Rows {
        self.of(Pointer::Q)
    }

    /// Keys `[num_kv_heads, seq_len, head_dim]`.
    pub fn k(&self) -> &Rows {
        self.of(Pointer::K)
    }

    /// Values `[num_kv_heads, seq_len, head_dim_v]`.
    pub fn v(&self) -> &Rows {
        self.of(Pointer::V)
    }

    /// The sink's logit of a head, where the case has sinks.
    pub fn sink(&self, head: usize) -> Option<f64> {
        self.0.get(&Pointer::Sinks).map(|sinks| f64::from(sinks.data.values[head]))
    }

    /// Puts a tensor of the case in, filled head by head as [`Rows::fill`] says; nothing where the
    /// case has no such tensor.
    pub fn put(
        &mut self,
        case: &Case,
        pointer: Pointer,
        fill: impl FnMut(usize, usize, &mut [f32]),
    ) {
        if let Some((dtype, shape)) = case.shape(pointer) {
            self.0.insert(pointer, Arc::new(Rows::fill(dtype, shape, fill)));
        }
    }
}
