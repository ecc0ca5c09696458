//! The logical tensors of a case: dense values, free of strides, padding and poison.

use crate::problem::{Case, DType};

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
}

/// K or V: for each sequence `[num_kv_heads, seq_len, dim]`, one after the other.
#[derive(Debug, Clone, PartialEq)]
pub struct Cache {
    /// The elements.
    pub data: Typed,
    /// Elements of a row.
    pub dim: usize,
    /// Where each sequence starts, in elements.
    starts: Vec<usize>,
    seq_lens: Vec<usize>,
}

impl Cache {
    /// Fills a cache head by head; `fill(s, kv_head, rows)` writes `[seq_len, dim]` values.
    pub fn fill(case: &Case, dim: usize, mut fill: impl FnMut(usize, usize, &mut [f32])) -> Self {
        let mut starts = Vec::with_capacity(case.batch());
        let mut values = Vec::new();
        for (s, n) in case.seq_lens.iter().enumerate() {
            starts.push(values.len());
            for g in 0..case.num_kv_heads {
                let at = values.len();
                values.resize(at + n * dim, 0.0);
                fill(s, g, &mut values[at..]);
            }
        }
        let data = Typed::round(case.dtypes.kv, values);
        Cache { data, dim, starts, seq_lens: case.seq_lens.clone() }
    }

    /// Element range of the rows of one sequence and KV head.
    pub fn range(&self, s: usize, kv_head: usize) -> std::ops::Range<usize> {
        let size = self.seq_lens[s] * self.dim;
        let at = self.starts[s] + kv_head * size;
        at..at + size
    }

    /// The values of rows `keys` of one sequence and KV head, `[keys, dim]`.
    pub fn rows(&self, s: usize, kv_head: usize, keys: std::ops::Range<usize>) -> &[f32] {
        &self.data.values[self.range(s, kv_head)][keys.start * self.dim..keys.end * self.dim]
    }
}

/// The inputs of a decode case.
#[derive(Debug, Clone, PartialEq)]
pub struct Inputs {
    /// `[batch, num_heads, head_dim]`.
    pub q: Typed,
    /// Rows of `head_dim`.
    pub k: Cache,
    /// Rows of `head_dim_v`.
    pub v: Cache,
    /// `[num_heads]`, f32 logits.
    pub sinks: Option<Vec<f32>>,
}

impl Inputs {
    /// The query vector of one head.
    pub fn query(&self, case: &Case, s: usize, h: usize) -> &[f32] {
        &self.q.values[(s * case.num_heads + h) * case.head_dim..][..case.head_dim]
    }
}
