//! A decode attention case: everything that defines one judged problem.

use super::text::{clip, is_identifier, sanitise};
use super::{Axis, DType, DTypes, Extents, Layout, LayoutError, Placement, Regime};
use std::collections::BTreeMap;

/// How a tensor lies in memory, before the extents are known.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Storage {
    /// The axes; the batch axis is understood as outermost where it is not written.
    pub layout: Layout,
    /// Padding or explicit strides.
    pub form: Form,
    /// Elements before the first one (a base that is not aligned).
    pub offset: usize,
}

/// Padding or explicit strides of a [`Storage`], in elements.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Form {
    /// Pads from the second innermost axis outwards; missing ones are 0.
    Pads(Vec<usize>),
    /// Strides, outermost first; the batch's may be left out.
    Strides(Vec<usize>),
}

impl Storage {
    /// A contiguous storage.
    pub fn contiguous(layout: Layout) -> Self {
        Storage { layout, form: Form::Pads(Vec::new()), offset: 0 }
    }

    /// A padded storage; trailing pads of 0 say nothing and are dropped.
    pub fn padded(layout: Layout, mut pads: Vec<usize>, offset: usize) -> Self {
        let used = pads.iter().rposition(|p| *p > 0).map_or(0, |i| i + 1);
        pads.truncate(used);
        Storage { layout, form: Form::Pads(pads), offset }
    }

    /// Whether some stride is wider than it must be, or the base is displaced.
    pub fn is_padded(&self) -> bool {
        self.offset > 0
            || match &self.form {
                Form::Pads(p) => p.iter().any(|p| *p > 0),
                Form::Strides(_) => true,
            }
    }

    /// The placement for given extents.
    ///
    /// # Errors
    /// [`LayoutError`], as [`Placement`]'s constructors say.
    pub fn place(&self, extents: Extents) -> Result<Placement, LayoutError> {
        let batched = self.layout.with_batch();
        match &self.form {
            Form::Pads(pads) => Placement::padded(&batched, extents, pads, self.offset),
            Form::Strides(strides) => {
                let mut strides = strides.clone();
                if strides.len() == self.layout.axes()?.len() && !self.layout.has(Axis::Seq) {
                    // The batch's stride follows from one sequence's own span.
                    let one = Extents { batch: 1, ..extents };
                    let span = Placement::strided(&self.layout, one, &strides, 0)?.span();
                    strides.insert(0, span);
                }
                Placement::strided(&batched, extents, &strides, self.offset)
            }
        }
    }
}

/// One decode attention problem, and how it is to be run.
///
/// Shapes: q, out `[batch, num_heads, head_dim]`, k `[batch, num_kv_heads, capacity, head_dim]`,
/// v `[batch, num_kv_heads, capacity, head_dim_v]`, each stored as its [`Storage`] says.
#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    /// Query heads; a multiple of `num_kv_heads`.
    pub num_heads: usize,
    /// KV heads.
    pub num_kv_heads: usize,
    /// Elements of a q and k vector.
    pub head_dim: usize,
    /// Elements of a v and out vector.
    pub head_dim_v: usize,
    /// Keys of each sequence; its length is the batch.
    pub seq_lens: Vec<usize>,
    /// Rows allocated along the token axis, at least the longest sequence.
    pub capacity: usize,
    /// Only the last `window_len` keys are attended; 0 means all.
    pub window_len: usize,
    /// `softcap * tanh(s / softcap)` on scores; 0 means none.
    pub softcap: f32,
    /// Whether each head has an attention sink: a logit that takes mass and has no value.
    pub sinks: bool,
    /// Factor on Q·K.
    pub scale: f32,
    /// Element types.
    pub dtypes: DTypes,
    /// Storage of K.
    pub k: Storage,
    /// Storage of V.
    pub v: Storage,
    /// Storage of q, over the axes `S H D`.
    pub q: Storage,
    /// Storage of out, over the axes `S H D`.
    pub out: Storage,
    /// Layers in the K and V buffers (1 without an `L` axis).
    pub layers: usize,
    /// The layer that is attended.
    pub layer: usize,
    /// The kernel's tunables, by name.
    pub params: BTreeMap<String, i64>,
    /// Lanes of a wave: 32 or 64.
    pub wave: u32,
    /// How q, k and v are filled.
    pub regime: Regime,
    /// Seed of the data.
    pub seed: u64,
    /// Seed of the thread order.
    pub order_seed: u64,
}

/// The four placements of a case.
#[derive(Debug, Clone, PartialEq)]
pub struct Placements {
    /// q over `[batch, num_heads, head_dim]`.
    pub q: Placement,
    /// k over `[batch, layers, num_kv_heads, capacity, head_dim]`.
    pub k: Placement,
    /// v over `[batch, layers, num_kv_heads, capacity, head_dim_v]`.
    pub v: Placement,
    /// out over `[batch, num_heads, head_dim_v]`.
    pub out: Placement,
}

/// Why a case is impossible, or its id cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CaseError {
    /// A field whose value cannot be read.
    #[error("case id: `{key}={value}`: {why}")]
    Field {
        /// The key.
        key: String,
        /// What was written.
        value: String,
        /// Why it was refused, and what to write.
        why: String,
    },
    /// A key that no case has.
    #[error("case id: unknown key `{key}`; did you mean `{nearest}`? (known: {known})")]
    Key {
        /// The key.
        key: String,
        /// The nearest known one.
        nearest: String,
        /// All of them.
        known: String,
    },
    /// A key that must be there.
    #[error("case id: `{0}` is missing; an id needs at least hq, hkv, d and n")]
    Missing(&'static str),
    /// Fields that contradict each other.
    #[error("impossible case: {0}")]
    Impossible(String),
    /// A storage that cannot be.
    #[error("impossible case: {tensor}: {source}")]
    Layout {
        /// `q`, `k`, `v` or `out`.
        tensor: &'static str,
        /// What is wrong with it.
        source: LayoutError,
    },
}

/// `1 / sqrt(head_dim)`, rounded to f32 once.
pub fn default_scale(head_dim: usize) -> f32 {
    (1.0 / (head_dim as f64).sqrt()) as f32
}

impl Case {
    /// A plain case to build others from: contiguous `HND`, f32, all keys, wave 32, Gaussian data.
    pub fn plain(
        num_heads: usize,
        num_kv_heads: usize,
        head_dim: usize,
        seq_lens: Vec<usize>,
    ) -> Case {
        let hnd: Layout = "HND".parse().expect("a constant layout");
        let hd: Layout = "HD".parse().expect("a constant layout");
        Case {
            num_heads,
            num_kv_heads,
            head_dim,
            head_dim_v: head_dim,
            capacity: seq_lens.iter().copied().max().unwrap_or(0).max(1),
            seq_lens,
            window_len: 0,
            softcap: 0.0,
            sinks: false,
            scale: default_scale(head_dim),
            dtypes: DTypes::uniform(DType::F32),
            k: Storage::contiguous(hnd.clone()),
            v: Storage::contiguous(hnd),
            q: Storage::contiguous(hd.clone()),
            out: Storage::contiguous(hd),
            layers: 1,
            layer: 0,
            params: BTreeMap::new(),
            wave: 32,
            regime: Regime::Gaussian,
            seed: 0,
            order_seed: 0,
        }
    }

    /// Sequences.
    pub fn batch(&self) -> usize {
        self.seq_lens.len()
    }

    /// Query heads that share a KV head.
    pub fn group(&self) -> usize {
        self.num_heads / self.num_kv_heads
    }

    /// Keys of the longest sequence.
    pub fn seq_len(&self) -> usize {
        self.seq_lens.iter().copied().max().unwrap_or(0)
    }

    /// The attended keys of sequence `s`: all, or the last `window_len`.
    pub fn attended(&self, s: usize) -> std::ops::Range<usize> {
        let n = self.seq_lens[s];
        let first = if self.window_len == 0 { 0 } else { n.saturating_sub(self.window_len) };
        first..n
    }

    /// Whether two sequences differ in length.
    pub fn is_ragged(&self) -> bool {
        self.seq_lens.windows(2).any(|w| w[0] != w[1])
    }

    /// Whether any tensor has wider strides than it must, or a displaced base.
    pub fn is_padded(&self) -> bool {
        [&self.q, &self.k, &self.v, &self.out].iter().any(|s| s.is_padded())
    }

    /// Multiply-adds of Q·K and P·V over attended keys: the cost of judging the case.
    pub fn work(&self) -> usize {
        // Extents that can be placed are small enough one by one; their product need not be.
        let keys = |sum: usize, s| sum.saturating_add(self.attended(s).len());
        (0..self.batch())
            .fold(0, keys)
            .saturating_mul(self.num_heads)
            .saturating_mul(self.head_dim.saturating_add(self.head_dim_v))
    }

    /// Where every element lies.
    ///
    /// # Errors
    /// [`CaseError::Layout`], naming the tensor.
    pub fn placements(&self) -> Result<Placements, CaseError> {
        let place = |tensor, storage: &Storage, heads, tokens, dim| {
            let kv = matches!(tensor, "k" | "v");
            let extents = Extents {
                batch: self.batch(),
                layers: if kv { self.layers } else { 1 },
                heads,
                tokens,
                dim,
            };
            storage.place(extents).map_err(|source| CaseError::Layout { tensor, source })
        };
        Ok(Placements {
            q: place("q", &self.q, self.num_heads, 1, self.head_dim)?,
            k: place("k", &self.k, self.num_kv_heads, self.capacity, self.head_dim)?,
            v: place("v", &self.v, self.num_kv_heads, self.capacity, self.head_dim_v)?,
            out: place("out", &self.out, self.num_heads, 1, self.head_dim_v)?,
        })
    }

    /// Checks that the fields agree with each other, and that every tensor can be placed.
    ///
    /// # Errors
    /// [`CaseError::Impossible`] or [`CaseError::Layout`]: the first contradiction.
    pub fn validate(&self) -> Result<(), CaseError> {
        let fail = |why: String| Err(CaseError::Impossible(why));
        if self.seq_lens.is_empty() {
            return fail("the batch is empty; give at least one sequence length".into());
        }
        for (name, value) in [
            ("hq", self.num_heads),
            ("hkv", self.num_kv_heads),
            ("d", self.head_dim),
            ("dv", self.head_dim_v),
            ("cap", self.capacity),
        ] {
            if value == 0 {
                return fail(format!("{name} is 0; it must be at least 1"));
            }
        }
        if !self.num_heads.is_multiple_of(self.num_kv_heads) {
            return fail(format!(
                "hq={} is no multiple of hkv={}; each KV head serves hq/hkv query heads",
                self.num_heads, self.num_kv_heads
            ));
        }
        if let Some(n) = self.seq_lens.iter().find(|n| **n > self.capacity) {
            return fail(format!(
                "n={n} exceeds cap={}; the cache must hold every key",
                self.capacity
            ));
        }
        if !self.scale.is_finite() {
            return fail(format!("scale={} is not finite", self.scale));
        }
        if !self.softcap.is_finite() || self.softcap < 0.0 {
            return fail(format!("softcap={} must be finite and not negative", self.softcap));
        }
        if self.layer >= self.layers {
            return fail(format!("layer={} of only layers={}", self.layer, self.layers));
        }
        for (tensor, storage) in [("k", &self.k), ("v", &self.v)] {
            if self.layers > 1 && !storage.layout.has(Axis::Layer) {
                return fail(format!(
                    "layers={} but {tensor}={} has no L axis",
                    self.layers, storage.layout
                ));
            }
            if !storage.layout.has(Axis::Token) && !storage.layout.is_paged() {
                return fail(format!("{tensor}={} has no token axis N", storage.layout));
            }
        }
        for (tensor, storage) in [("q", &self.q), ("out", &self.out)] {
            let text = storage.layout.with_batch();
            if text.as_str() != "SHD" {
                return fail(format!("{tensor}={} must be over the axes HD", storage.layout));
            }
        }
        // Names that end a field of the id too early would make it the id of another case.
        if let Some(name) = self.params.keys().find(|name| !is_identifier(name)) {
            let name = clip(name);
            return fail(format!("parameter `{name}` is no identifier; use letters, digits and _"));
        }
        if let Regime::Slice(name) = &self.regime
            && sanitise(name) != *name
        {
            let (name, better) = (clip(name), clip(&sanitise(name)));
            return fail(format!("slice name `{name}` does not fit in an id; call it `{better}`"));
        }
        if self.wave != 32 && self.wave != 64 {
            return fail(format!("wave={} must be 32 or 64", self.wave));
        }
        let p = self.placements()?;
        for (tensor, place) in [("q", &p.q), ("out", &p.out)] {
            if self.head_dim.max(self.head_dim_v) > 1 && place.stride(Axis::Dim) != 1 {
                return fail(format!("{tensor} must have unit stride along D"));
            }
        }
        Ok(())
    }
}
