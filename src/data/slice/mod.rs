//! `kv-slice/1`: one captured decode step of attention in a `.safetensors` file.
//!
//! A slice has q `[num_heads, head_dim]`, the cache buffers k and v as the engine holds them, and
//! `out` `[num_heads, head_dim_v]`, what the engine's kernel produced; with an `S` axis in the
//! layouts, q and out are `[batch, num_heads, …]`. Rows from `seq_len` on hold stale data.
//!
//! [`KvSlice::read`] checks every field before it returns, so whoever has a slice need not. Nothing
//! is allocated on the word of a header: sizes come from the bytes that are there.
//!
//! Three optional keys are our additions: `q_offset` and `out_offset`, like k's and v's, and
//! `layers`, the extent of `L`, which a raw buffer with strides does not show. A raw buffer without
//! `layers` is taken to end with the layer that it is about.

mod case;
mod check;
mod error;
mod header;
mod read;
mod stage;
mod write;

#[cfg(test)]
mod tests;

pub use crate::problem::sanitise;
pub use case::Saved;
pub use error::{SliceError, SliceProblem};
pub use header::RawTensor;
pub use stage::StageSlice;

use crate::problem::{
    Axis, DType, Extents, Form, Layout, LayoutError, Placement, Placements, Storage, clip,
};
use safetensors::Dtype;
use std::collections::BTreeMap;

/// A tensor of floating point numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// Element type.
    pub dtype: DType,
    /// Extents, outermost first.
    pub shape: Vec<usize>,
    /// Little-endian elements, row-major.
    pub bytes: Vec<u8>,
}

impl Tensor {
    /// Elements.
    pub fn len(&self) -> usize {
        self.bytes.len() / self.dtype.size()
    }

    /// Whether it has no element.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Whether its elements can be converted; the 8-bit types cannot yet.
    pub fn is_loadable(&self) -> bool {
        self.dtype.is_driven() || self.dtype == DType::F64
    }

    /// Element `index` of the buffer, exactly; none beyond the end or where the type is not
    /// converted yet.
    pub fn get(&self, index: usize) -> Option<f64> {
        (self.is_loadable() && index < self.len()).then(|| self.dtype.load(&self.bytes, index))
    }

    /// Every element in buffer order, exactly; none where the type is not converted yet.
    pub fn values(&self) -> Option<Vec<f64>> {
        let load = |i| self.dtype.load(&self.bytes, i);
        self.is_loadable().then(|| (0..self.len()).map(load).collect())
    }
}

/// A tensor of 32-bit integers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IntTensor {
    /// Extents, outermost first.
    pub shape: Vec<usize>,
    /// Elements, row-major.
    pub values: Vec<i32>,
}

/// That a tensor is stored 1-D as the engine's raw buffer, and how to address it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Raw {
    /// Strides in elements, in the layout's letter order (q and out: `[S] H D`); contiguous ones
    /// where the file gives an offset only.
    pub strides: Option<Vec<usize>>,
    /// Elements before the first one; none where the file does not say, which means 0.
    pub offset: Option<usize>,
}

/// What the kernel promises, for the error bound; as `[numerics]` of a manifest.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Promises {
    /// The type sums are accumulated in: f32, f16 or bf16.
    pub accumulate: DType,
    /// The type P is held in when it multiplies V: f32, f16 or bf16.
    pub probs: DType,
    /// Units in the last place that `exp` may be off by.
    pub exp_ulp: f64,
}

impl Default for Promises {
    fn default() -> Self {
        Promises { accumulate: DType::F32, probs: DType::F32, exp_ulp: 2.0 }
    }
}

/// One captured decode step. Optional fields are `None` where the file does not have them; the
/// methods of the same names give the defaults.
///
/// The fields are public so that tools can build and change slices; [`KvSlice::validate`] says
/// whether they still agree, and [`KvSlice::write`] asks it.
#[derive(Debug, Clone, PartialEq)]
pub struct KvSlice {
    /// The file's stem, fit for a case id (see [`sanitise`]).
    pub name: String,
    /// The model, free text.
    pub model: String,
    /// The prompt, free text.
    pub prompt_id: String,
    /// `prefill_last`, `decode0`, `decode1`, …
    pub phase: String,
    /// The layer that q and out belong to; an index only where a layout has an `L` axis.
    pub layer: usize,
    /// 0-based position of the current token.
    pub pos_id: usize,
    /// Keys attended; the longest sequence's in a batch.
    pub seq_len: usize,
    /// Rows allocated along `N`.
    pub capacity: usize,
    /// Query heads.
    pub num_heads: usize,
    /// KV heads.
    pub num_kv_heads: usize,
    /// Elements of a q and k vector.
    pub head_dim: usize,
    /// Elements of a v and out vector, where the file says it; see [`KvSlice::dim_v`].
    pub head_dim_v: Option<usize>,
    /// Factor on Q·K as the file has it; kernels get [`KvSlice::scale_f32`].
    pub scale: f64,
    /// Axes of k.
    pub k_layout: Layout,
    /// Axes of v.
    pub v_layout: Layout,
    /// Only the last `window_len` keys are attended; 0 means all.
    pub window_len: Option<usize>,
    /// `softcap * tanh(s / softcap)` on scores; 0 means none.
    pub softcap: Option<f64>,
    /// Tokens of a page.
    pub page_size: Option<usize>,
    /// Width of the inner part of an axis.
    pub x: Option<usize>,
    /// Factor on the stored k.
    pub k_scale: Option<f64>,
    /// Factor on the stored v.
    pub v_scale: Option<f64>,
    /// The engine that was captured, free text.
    pub engine: Option<String>,
    /// Layers in k and v where strides hide the `L` extent (our addition to the format).
    pub layers: Option<usize>,
    /// Promise: see [`Promises::accumulate`].
    pub accumulate: Option<DType>,
    /// Promise (key `probs`): see [`Promises::probs`].
    pub probs_type: Option<DType>,
    /// Promise: see [`Promises::exp_ulp`].
    pub exp_ulp: Option<f64>,
    /// How q is addressed where it is a raw buffer.
    pub q_raw: Option<Raw>,
    /// How k is addressed where it is a raw buffer.
    pub k_raw: Option<Raw>,
    /// How v is addressed where it is a raw buffer.
    pub v_raw: Option<Raw>,
    /// How out is addressed where it is a raw buffer.
    pub out_raw: Option<Raw>,
    /// Saved case: the kernel.
    pub kernel: Option<String>,
    /// Saved case: the kernel's tunables.
    pub params: Option<BTreeMap<String, i64>>,
    /// Saved case: lanes of a wave.
    pub wave: Option<u32>,
    /// Saved case: seed of the data.
    pub seed: Option<u64>,
    /// Saved case: seed of the thread order.
    pub order_seed: Option<u64>,
    /// Saved case: the id of the case.
    pub case: Option<String>,
    /// Saved case: the property that failed.
    pub property: Option<String>,
    /// Metadata keys that the format does not name; they survive a rewrite.
    pub extra: BTreeMap<String, String>,
    /// Query of the current token, after RoPE.
    pub q: Tensor,
    /// The K cache, after RoPE.
    pub k: Tensor,
    /// The V cache.
    pub v: Tensor,
    /// What the engine's kernel produced.
    pub out: Tensor,
    /// Softmax weights `[num_heads, W]` of the last `W` keys.
    pub probs: Option<Tensor>,
    /// Scores `[num_heads, W]` of the last `W` keys.
    pub scores: Option<Tensor>,
    /// Log-sum-exp of the scores `[num_heads]`, base e.
    pub lse: Option<Tensor>,
    /// Sink logits `[num_heads]`.
    pub sinks: Option<Tensor>,
    /// The current token's K row `[num_kv_heads, head_dim]`.
    pub new_k: Option<Tensor>,
    /// The current token's V row `[num_kv_heads, head_dim_v]`.
    pub new_v: Option<Tensor>,
    /// Pages of the sequence.
    pub page_table: Option<IntTensor>,
    /// Keys of each sequence `[batch]`; see [`KvSlice::seq_lens`].
    pub lens: Option<Vec<i32>>,
    /// Tensors that the format does not name; they survive a rewrite.
    pub extra_tensors: BTreeMap<String, RawTensor>,
}

impl KvSlice {
    /// Elements of a v and out vector.
    pub fn dim_v(&self) -> usize {
        self.head_dim_v.unwrap_or(self.head_dim)
    }

    /// The scale that kernels and the oracle use: rounded to f32 once.
    pub fn scale_f32(&self) -> f32 {
        self.scale as f32
    }

    /// Keys that are attended at most; 0 means all.
    pub fn window_len(&self) -> usize {
        self.window_len.unwrap_or(0)
    }

    /// The softcap, rounded to f32; 0 means none.
    pub fn softcap_f32(&self) -> f32 {
        self.softcap.unwrap_or(0.0) as f32
    }

    /// What the kernel promises, with the defaults.
    pub fn promises(&self) -> Promises {
        let default = Promises::default();
        Promises {
            accumulate: self.accumulate.unwrap_or(default.accumulate),
            probs: self.probs_type.unwrap_or(default.probs),
            exp_ulp: self.exp_ulp.unwrap_or(default.exp_ulp),
        }
    }

    /// Whether the layouts have an `S` axis: q and out are `[batch, num_heads, …]` then.
    pub fn is_batched(&self) -> bool {
        self.k_layout.has(Axis::Seq) || self.v_layout.has(Axis::Seq)
    }

    /// Sequences.
    pub fn batch(&self) -> usize {
        self.lens.as_ref().map_or(1, Vec::len)
    }

    /// Keys of each sequence.
    pub fn seq_lens(&self) -> Vec<usize> {
        match &self.lens {
            Some(lens) => lens.iter().map(|n| usize::try_from(*n).unwrap_or(0)).collect(),
            None => vec![self.seq_len],
        }
    }

    /// Query heads that share a KV head.
    pub fn group(&self) -> usize {
        self.num_heads / self.num_kv_heads.max(1)
    }

    /// Layers in the k and v buffers; 1 without an `L` axis.
    pub fn layers(&self) -> usize {
        let ours = [
            (&self.k_layout, &self.k_raw, &self.k.shape),
            (&self.v_layout, &self.v_raw, &self.v.shape),
        ];
        // A stored shape knows; a raw buffer only has the key, or at least the layer itself.
        let with_axis = ours.iter().filter(|(layout, ..)| layout.has(Axis::Layer));
        let (mut any, mut shaped) = (false, None);
        for (layout, raw, shape) in with_axis {
            any = true;
            if raw.is_none() {
                let at = layout.as_str().find('L').unwrap_or(0);
                shaped = shaped.or(shape.get(at).copied());
            }
        }
        match (any, shaped) {
            (false, _) => 1,
            (true, Some(layers)) => layers,
            (true, None) => self.layers.unwrap_or(self.layer.saturating_add(1)),
        }
    }

    /// The index of [`KvSlice::layer`] along the `L` axis; 0 where there is none.
    pub fn layer_index(&self) -> usize {
        let has = self.k_layout.has(Axis::Layer) || self.v_layout.has(Axis::Layer);
        if has { self.layer } else { 0 }
    }

    /// What a careful reader should know although the slice can be judged.
    pub fn warnings(&self) -> Vec<String> {
        let mut all = Vec::new();
        let expected = self.pos_id.checked_add(1);
        if expected != Some(self.seq_len) && (self.seq_len, self.pos_id) != (0, 0) {
            all.push(format!(
                "seq_len is {}, but pos_id is {}: normally seq_len = pos_id + 1",
                self.seq_len, self.pos_id
            ));
        }
        let longest = self.seq_lens().into_iter().max().unwrap_or(0);
        if longest != self.seq_len {
            all.push(format!(
                "seq_len is {}, but the longest of seq_lens is {longest}, which is used",
                self.seq_len
            ));
        }
        if self.scale_f32() == 0.0 {
            all.push(format!("scale is {}, 0 as f32: every attended key weighs alike", self.scale));
        }
        for key in self.extra.keys() {
            // why: a distance costs time and memory by both lengths; these are far apart anyway.
            let alike = |k: &str| k.len().abs_diff(key.len()) <= 4;
            let near = read::KEYS.iter().find(|k| alike(k) && strsim::osa_distance(k, key) == 1);
            if let Some(near) = near.filter(|near| near.len() > 1) {
                let key = clip(key);
                all.push(format!("metadata key `{key}` is not read; did you mean `{near}`?"));
            }
        }
        all
    }

    /// How a tensor lies in memory. The batch axis is left out where it is outermost.
    fn storage(&self, tensor: &str) -> Storage {
        let (layout, raw) = match tensor {
            "k" => (&self.k_layout, &self.k_raw),
            "v" => (&self.v_layout, &self.v_raw),
            "q" => (&Self::head_layout(), &self.q_raw),
            _ => (&Self::head_layout(), &self.out_raw),
        };
        let layout = match layout.as_str().strip_prefix('S').map(str::parse) {
            Some(Ok(inner)) => inner,
            _ => layout.clone(),
        };
        let raw = raw.clone().unwrap_or_default();
        Storage {
            layout,
            form: raw.strides.map_or(Form::Pads(Vec::new()), Form::Strides),
            offset: raw.offset.unwrap_or(0),
        }
    }

    /// The axes of q and out.
    fn head_layout() -> Layout {
        "HD".parse().expect("a constant layout")
    }

    fn place(&self, tensor: &'static str) -> Result<Placement, SliceProblem> {
        let kv = matches!(tensor, "k" | "v");
        let extents = Extents {
            batch: self.batch(),
            layers: if kv { self.layers() } else { 1 },
            heads: if kv { self.num_kv_heads } else { self.num_heads },
            tokens: if kv { self.capacity } else { 1 },
            dim: if matches!(tensor, "q" | "k") { self.head_dim } else { self.dim_v() },
        };
        let layout = if tensor == "k" { &self.k_layout } else { &self.v_layout };
        self.storage(tensor).place(extents).map_err(|source| match source {
            LayoutError::NotYet { kind, .. } => SliceProblem::NotYet {
                // As the file has it: the error's own text has a batch axis that it may not have.
                what: format!("`{tensor}_layout` = {layout}, {kind},"),
                mend: "use a layout over S L H N D",
            },
            source => SliceProblem::Placement { tensor, source },
        })
    }

    /// Where every element of q, k, v and out lies in its buffer.
    ///
    /// # Errors
    /// [`SliceProblem::NotYet`] for paged and inner-`x` layouts; [`SliceProblem::Placement`] only
    /// if the fields were changed since the slice was read.
    pub fn placements(&self) -> Result<Placements, SliceError> {
        let place = |tensor| self.place(tensor).map_err(|p| SliceError::new(&self.name, p));
        // A capture has no strided scores of its own: they lie as those of a plain case.
        let rows = || {
            let layout: Layout = "SHN".parse()?;
            let (batch, heads) = (self.batch(), self.num_heads);
            let extents = Extents { batch, layers: 1, heads, tokens: self.capacity, dim: 1 };
            Placement::padded(&layout, extents, &[], 0)
        };
        let scores = rows().map_err(|source| {
            SliceError::new(&self.name, SliceProblem::Placement { tensor: "scores", source })
        })?;
        Ok(Placements {
            q: place("q")?,
            k: place("k")?,
            v: place("v")?,
            out: place("out")?,
            probs: scores.clone(),
            scores,
        })
    }

    /// The required and optional tensors of floats that are there.
    fn floats(&self) -> Vec<(&'static str, &Tensor)> {
        let mut all = vec![("q", &self.q), ("k", &self.k), ("v", &self.v), ("out", &self.out)];
        let optional = [
            ("probs", &self.probs),
            ("scores", &self.scores),
            ("lse", &self.lse),
            ("sinks", &self.sinks),
            ("new_k", &self.new_k),
            ("new_v", &self.new_v),
        ];
        all.extend(optional.iter().filter_map(|(name, t)| t.as_ref().map(|t| (*name, t))));
        all
    }
}

/// Our name for one of safetensors' float types.
fn from_safetensors(dtype: Dtype) -> Option<DType> {
    DType::ALL.into_iter().find(|d| to_safetensors(*d) == dtype)
}

/// safetensors' name for one of our types.
fn to_safetensors(dtype: DType) -> Dtype {
    match dtype {
        DType::F64 => Dtype::F64,
        DType::F32 => Dtype::F32,
        DType::F16 => Dtype::F16,
        DType::BF16 => Dtype::BF16,
        DType::F8E4M3 => Dtype::F8_E4M3,
        DType::F8E5M2 => Dtype::F8_E5M2,
        DType::F8E4M3Fnuz => Dtype::F8_E4M3FNUZ,
        DType::F8E5M2Fnuz => Dtype::F8_E5M2FNUZ,
    }
}
