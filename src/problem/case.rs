//! A case: everything that defines one judged problem.

use super::names::did_you_mean;
use super::text::{clip, is_identifier, sanitise};
use super::{
    Axis, DType, DTypes, Extents, Layout, LayoutError, Placement, Pointer, Regime, Rope, Stage,
};
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

/// One problem of a stage of decode attention, and how it is to be run.
///
/// Shapes in stage `decode`: q, out `[batch, num_heads, head_dim]`,
/// k `[batch, num_kv_heads, capacity, head_dim]`, v `[batch, num_kv_heads, capacity, head_dim_v]`,
/// each stored as its [`Storage`] says. The tensors of every stage are [`Case::tensors`]. Stages
/// without keys have one for each sequence, so that `seq_lens` is still the batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    /// What is computed.
    pub stage: Stage,
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
    /// Rotation of the appended key, in stage `append`.
    pub rope: Option<Rope>,
    /// Elements of the residual stream, in stages `head_combine` and `norm`; 0 in all others.
    pub hidden: usize,
    /// What RMS-norm adds to the mean of squares, in stage `norm`.
    pub eps: f32,
    /// Element types.
    pub dtypes: DTypes,
    /// Storage of K.
    pub k: Storage,
    /// Storage of V.
    pub v: Storage,
    /// Storage of q, or of x in the stages that read x: over the axes `S H D`, in stage `prefill`
    /// `S N H D`.
    pub q: Storage,
    /// Storage of out, over the axes of q.
    pub out: Storage,
    /// Storage of the scores, over the axes `S H N`.
    pub scores: Storage,
    /// Storage of the softmax weights, over the axes `S H N`.
    pub probs: Storage,
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

/// The placements of the tensors whose strides are a case's own.
#[derive(Debug, Clone, PartialEq)]
pub struct Placements {
    /// q over `[batch, num_heads, head_dim]`, or what stands for it.
    pub q: Placement,
    /// k over `[batch, layers, num_kv_heads, capacity, head_dim]`.
    pub k: Placement,
    /// v over `[batch, layers, num_kv_heads, capacity, head_dim_v]`.
    pub v: Placement,
    /// out over `[batch, num_heads, head_dim_v]`, or what stands for it.
    pub out: Placement,
    /// scores over `[batch, num_heads, capacity]`.
    pub scores: Placement,
    /// probs over `[batch, num_heads, capacity]`.
    pub probs: Placement,
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
    #[error("case id: unknown key `{key}`{} (known: {known})", did_you_mean(nearest))]
    Key {
        /// The key.
        key: String,
        /// A known one that is close to it.
        nearest: Option<String>,
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
        /// `q`, `k`, `v`, `out`, `scores` or `probs`.
        tensor: &'static str,
        /// What is wrong with it.
        source: LayoutError,
    },
}

/// More parts than this are a typing error, not a split.
pub(crate) const MAX_SPLITS: usize = 1 << 20;

/// What RMS-norm adds to the mean of squares, unless a case says otherwise.
pub(super) const DEFAULT_EPS: f32 = 1e-5;

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
        let hn: Layout = "HN".parse().expect("a constant layout");
        Case {
            stage: Stage::Decode,
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
            rope: None,
            hidden: 0,
            eps: DEFAULT_EPS,
            dtypes: DTypes::uniform(DType::F32),
            k: Storage::contiguous(hnd.clone()),
            v: Storage::contiguous(hnd),
            q: Storage::contiguous(hd.clone()),
            out: Storage::contiguous(hd),
            scores: Storage::contiguous(hn.clone()),
            probs: Storage::contiguous(hn),
            layers: 1,
            layer: 0,
            params: BTreeMap::new(),
            wave: 32,
            regime: Regime::Gaussian,
            seed: 0,
            order_seed: 0,
        }
    }

    /// The same problem as a case of another stage. What that stage does not have is left out; a
    /// residual stream that it has is as long as all heads together, unless it has a length; and where
    /// q and out have other axes there they are contiguous.
    pub fn for_stage(mut self, stage: Stage) -> Case {
        self.stage = stage;
        if !stage.has_window() {
            self.window_len = 0;
        }
        if !stage.has_softcap() {
            self.softcap = 0.0;
        }
        self.sinks &= stage.has_sinks();
        self.rope = self.rope.filter(|_| stage == Stage::Append);
        let heads_together = self.num_heads.saturating_mul(self.head_dim);
        self.hidden = match (stage.has_hidden(), self.hidden) {
            (false, _) => 0,
            (true, 0) => heads_together,
            (true, hidden) => hidden,
        };
        let axes: Layout = stage.row_axes().parse().expect("a constant layout");
        for storage in [&mut self.q, &mut self.out] {
            if storage.layout.with_batch() != axes.with_batch() {
                *storage = Storage::contiguous(axes.clone());
            }
        }
        self
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

    /// The keys that the last token of sequence `s` attends: all, or the last `window_len`.
    pub fn attended(&self, s: usize) -> std::ops::Range<usize> {
        self.attended_from(self.seq_lens[s])
    }

    /// The keys that a token attends that is the last of `n`.
    fn attended_from(&self, n: usize) -> std::ops::Range<usize> {
        let first = if self.window_len == 0 { 0 } else { n.saturating_sub(self.window_len) };
        first..n
    }

    /// The tokens of sequence `s` that have a query: the last one, all of them in stage `prefill`.
    /// An empty sequence has a query too, except in `prefill`.
    pub fn queries(&self, s: usize) -> usize {
        if self.stage == Stage::Prefill { self.seq_lens[s] } else { 1 }
    }

    /// The keys that query `t` of sequence `s` attends.
    pub fn attended_by(&self, s: usize, t: usize) -> std::ops::Range<usize> {
        if self.stage == Stage::Prefill { self.attended_from(t + 1) } else { self.attended(s) }
    }

    /// The keys of sequence `s` that any query attends. Those before a window are dead, and an
    /// engine may have evicted them.
    pub fn live(&self, s: usize) -> std::ops::Range<usize> {
        if self.stage == Stage::Prefill { 0..self.seq_lens[s] } else { self.attended(s) }
    }

    /// The row that stage `append` writes in sequence `s`: the last one.
    pub fn pos(&self, s: usize) -> usize {
        self.seq_lens[s].saturating_sub(1)
    }

    /// Parts of each head's keys, in the stages that have any: the parameter `splits`; 0 where
    /// there is none.
    pub fn splits(&self) -> usize {
        self.params.get("splits").map_or(0, |splits| usize::try_from(*splits).unwrap_or(0))
    }

    /// Whether two sequences differ in length.
    pub fn is_ragged(&self) -> bool {
        self.seq_lens.windows(2).any(|w| w[0] != w[1])
    }

    /// Whether any tensor has wider strides than it must, or a displaced base.
    pub fn is_padded(&self) -> bool {
        let strided = [
            (Pointer::Q, &self.q),
            (Pointer::X, &self.q),
            (Pointer::K, &self.k),
            (Pointer::V, &self.v),
            (Pointer::Out, &self.out),
            (Pointer::Scores, &self.scores),
            (Pointer::Probs, &self.probs),
        ];
        strided.iter().any(|(p, s)| self.stage.port(*p).is_some() && s.is_padded())
    }

    /// Multiply-adds, the cost of judging the case: of Q·K and P·V over attended keys, whichever
    /// of them the stage has.
    pub fn work(&self) -> usize {
        let work = |factors: &[usize]| factors.iter().fold(1usize, |p, x| p.saturating_mul(*x));
        let (heads, batch) = (self.num_heads, self.batch());
        let rows = self.head_dim.saturating_add(self.head_dim_v);
        match self.stage {
            Stage::Merge => work(&[batch, heads, self.splits(), rows]),
            Stage::HeadCombine => work(&[batch, self.hidden, heads, self.head_dim]),
            Stage::Norm => work(&[batch, self.hidden]),
            _ => {
                // Extents that can be placed are small enough one by one; products need not be.
                let keys = (0..batch).fold(0usize, |sum, s| sum.saturating_add(self.keys(s)));
                work(&[keys, heads, rows])
            }
        }
    }

    /// Keys that the queries of sequence `s` attend, all together.
    fn keys(&self, s: usize) -> usize {
        let (n, last) = (self.seq_lens[s], self.attended(s).len());
        if self.stage != Stage::Prefill {
            return last;
        }
        // Query t attends min(t + 1, last) keys.
        let growing = last.saturating_mul(last.saturating_add(1)) / 2;
        growing.saturating_add((n - last).saturating_mul(last))
    }

    /// Where every element lies.
    ///
    /// # Errors
    /// [`CaseError::Layout`], naming the tensor.
    pub fn placements(&self) -> Result<Placements, CaseError> {
        let place = |tensor, storage: &Storage, layers, heads, tokens, dim| {
            let extents = Extents { batch: self.batch(), layers, heads, tokens, dim };
            storage.place(extents).map_err(|source| CaseError::Layout { tensor, source })
        };
        let (heads, kv_heads) = (self.num_heads, self.num_kv_heads);
        // What q and out are where the stage has something else in their place.
        let (q_heads, q_dim, out_heads, out_dim) = match self.stage {
            Stage::HeadCombine => (heads, self.head_dim, 1, self.hidden),
            Stage::Norm => (1, self.hidden, 1, self.hidden),
            _ => (heads, self.head_dim, heads, self.head_dim_v),
        };
        let tokens = if self.stage == Stage::Prefill { self.seq_len().max(1) } else { 1 };
        let (layers, capacity) = (self.layers, self.capacity);
        Ok(Placements {
            q: place("q", &self.q, 1, q_heads, tokens, q_dim)?,
            k: place("k", &self.k, layers, kv_heads, capacity, self.head_dim)?,
            v: place("v", &self.v, layers, kv_heads, capacity, self.head_dim_v)?,
            out: place("out", &self.out, 1, out_heads, tokens, out_dim)?,
            scores: place("scores", &self.scores, 1, heads, capacity, 1)?,
            probs: place("probs", &self.probs, 1, heads, capacity, 1)?,
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
            if !storage.layout.has(Axis::Dim) {
                return fail(format!("{tensor}={} has no axis D", storage.layout));
            }
        }
        let row = self.stage.row_axes();
        for (tensor, storage, axes) in [
            ("q", &self.q, row),
            ("out", &self.out, row),
            ("scores", &self.scores, "HN"),
            ("probs", &self.probs, "HN"),
        ] {
            if storage.layout.with_batch().as_str()[1..] != *axes {
                return fail(format!("{tensor}={} must be over the axes {axes}", storage.layout));
            }
        }
        self.validate_stage()?;
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
        for (tensor, place, axis) in [
            ("q", &p.q, Axis::Dim),
            ("out", &p.out, Axis::Dim),
            ("scores", &p.scores, Axis::Token),
            ("probs", &p.probs, Axis::Token),
        ] {
            if place.extents().get(axis) > 1 && place.stride(axis) != 1 {
                return fail(format!("{tensor} must have unit stride along {}", axis.letter()));
            }
        }
        Ok(())
    }

    /// What only some stages have.
    fn validate_stage(&self) -> Result<(), CaseError> {
        let (fail, stage) = (|why: String| Err(CaseError::Impossible(why)), self.stage);
        for (what, has, allowed) in [
            ("a window", self.window_len != 0, stage.has_window()),
            ("a softcap", self.softcap != 0.0, stage.has_softcap()),
            ("sinks", self.sinks, stage.has_sinks()),
            ("RoPE", self.rope.is_some(), stage == Stage::Append),
        ] {
            if has && !allowed {
                return fail(format!("stage `{stage}` has no {}", what.trim_start_matches("a ")));
            }
        }
        if stage.has_splits() && !(1..=MAX_SPLITS).contains(&self.splits()) {
            return fail(format!(
                "stage `{stage}` needs the parameter splits between 1 and {MAX_SPLITS}, such as \
                 p.splits=4"
            ));
        }
        if stage == Stage::Append && self.seq_lens.contains(&0) {
            return fail("n=0 in stage `append`: the row that is written is the last one".into());
        }
        if !stage.has_keys() && (self.seq_len(), self.capacity) != (1, 1) {
            return fail(format!("stage `{stage}` has no keys; write n=1, cap=1"));
        }
        if stage.has_hidden() != (self.hidden > 0) {
            return fail(format!(
                "hidden={} in stage `{stage}`: at least 1 where there is a residual stream, else 0",
                self.hidden
            ));
        }
        if !(self.eps.is_finite() && self.eps > 0.0) {
            return fail(format!("eps={} must be finite and positive", self.eps));
        }
        if self.rope.is_some() && !self.head_dim.is_multiple_of(2) {
            return fail(format!("d={} is odd; RoPE rotates pairs of elements", self.head_dim));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_of_a_prefill_are_those_of_every_position() {
        for n in 0..9 {
            for w in 0..11 {
                let mut case = Case::plain(3, 1, 2, vec![n, 4]).for_stage(Stage::Prefill);
                case.window_len = w;
                let one_by_one: usize = (0..2)
                    .flat_map(|s| (0..case.queries(s)).map(move |t| (s, t)))
                    .map(|(s, t)| case.attended_by(s, t).len())
                    .sum();
                assert_eq!(case.work(), one_by_one * 3 * 4, "n={n} w={w}");
            }
        }
    }
}
