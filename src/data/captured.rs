//! Captured slices as a source of data: the attended rows of one layer, dense and in f32.

use super::inputs::Inputs;
use super::slice::{KvSlice, SliceError, Tensor};
use crate::problem::{Case, Placement, Pointer};
use std::sync::Arc;

/// A captured decode step, ready to be cut to other lengths, layouts and types. Clones share the
/// numbers: every kernel of a sweep has all slices.
#[derive(Debug, Clone, PartialEq)]
pub struct Captured {
    /// The file's stem, as `data=slice:NAME` names it.
    pub name: String,
    /// Query heads.
    pub num_heads: usize,
    /// KV heads.
    pub num_kv_heads: usize,
    /// Elements of a q and k vector.
    pub head_dim: usize,
    /// Elements of a v vector.
    pub head_dim_v: usize,
    /// Keys.
    pub seq_len: usize,
    /// `[num_heads, head_dim]`.
    pub q: Arc<[f32]>,
    /// `[num_kv_heads, seq_len, head_dim]`.
    pub k: Arc<[f32]>,
    /// `[num_kv_heads, seq_len, head_dim_v]`.
    pub v: Arc<[f32]>,
}

impl Captured {
    /// The slice as data, and the case that it poses as a whole. `None` for a batch, which is not
    /// re-cut.
    ///
    /// # Errors
    /// [`SliceError`], as [`KvSlice::to_case`].
    pub fn new(name: &str, slice: &KvSlice) -> Result<Option<(Captured, Case)>, SliceError> {
        let case = slice.to_case()?;
        if case.batch() != 1 {
            return Ok(None);
        }
        let inputs = inputs_of(slice, &case)?;
        let captured = Captured {
            name: name.to_owned(),
            num_heads: case.num_heads,
            num_kv_heads: case.num_kv_heads,
            head_dim: case.head_dim,
            head_dim_v: case.head_dim_v,
            seq_len: case.seq_len(),
            q: inputs.q().data.values.as_slice().into(),
            k: inputs.k().data.values.as_slice().into(),
            v: inputs.v().data.values.as_slice().into(),
        };
        Ok(Some((captured, case)))
    }

    /// Query heads that share a KV head.
    pub fn group(&self) -> usize {
        self.num_heads / self.num_kv_heads
    }
}

/// The inputs that a slice holds, for its own case ([`KvSlice::to_case`]) or one that differs from
/// it in nothing but the data's name.
///
/// # Errors
/// [`SliceError`] where the slice's tensors cannot be placed.
pub fn inputs_of(slice: &KvSlice, case: &Case) -> Result<Inputs, SliceError> {
    let places = slice.placements()?;
    // to_case refuses types that cannot be converted, so every element has a value; f64 captures
    // are rounded to f32 by the case's own type.
    let value = |t: &Tensor, i: usize| t.get(i).unwrap_or(f64::NAN) as f32;
    let mut inputs = Inputs::default();
    let mut put = |pointer, t: &Tensor, place: &Placement, layer: usize, dim: usize| {
        inputs.put(case, pointer, |s, h, rows| {
            for (n, row) in rows.chunks_exact_mut(dim).enumerate() {
                for (d, x) in row.iter_mut().enumerate() {
                    *x = value(t, place.index(s, layer, h, n, d));
                }
            }
        });
    };
    put(Pointer::Q, &slice.q, &places.q, 0, case.head_dim);
    put(Pointer::K, &slice.k, &places.k, slice.layer_index(), case.head_dim);
    put(Pointer::V, &slice.v, &places.v, slice.layer_index(), case.head_dim_v);
    if let Some(sinks) = &slice.sinks {
        inputs.put(case, Pointer::Sinks, |_, _, logits| {
            logits.iter_mut().enumerate().for_each(|(h, x)| *x = value(sinks, h));
        });
    }
    Ok(inputs)
}
