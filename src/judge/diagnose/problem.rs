//! What a diagnosis starts from: the raw buffers of a decode step, and the output that is to be
//! explained.

use crate::data::slice::{KvSlice, SliceError, Tensor};
use crate::oracle::Arithmetic;
use crate::problem::{Axis, Case, DType, Placement, Pointer, Stage};
use std::borrow::Cow;
use std::ops::Range;

/// A cache buffer as the engine holds it, with the way in which it is rightly addressed.
#[derive(Debug, Clone)]
pub struct Memory<'a> {
    /// Little-endian elements.
    pub bytes: Cow<'a, [u8]>,
    /// Element type.
    pub dtype: DType,
    /// Factor on every stored element (1 unless the cache is quantised).
    pub factor: f64,
    /// Where the elements lie.
    pub place: Placement,
}

impl Memory<'_> {
    /// Elements of the buffer, those that no one should read included.
    pub fn len(&self) -> usize {
        self.bytes.len() / self.dtype.size()
    }

    /// Whether the buffer has no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends `rows` rows of `dim` elements to `to`: element (n, d) is at `base + n * step.0 +
    /// d * step.1`. The caller has checked that the last one is inside.
    pub fn gather(
        &self,
        base: usize,
        rows: usize,
        dim: usize,
        step: (usize, usize),
        to: &mut Vec<f64>,
    ) {
        to.reserve(rows * dim);
        for n in 0..rows {
            let row = base + n * step.0;
            to.extend((0..dim).map(|d| self.at(row + d * step.1)));
        }
    }

    /// The value of an element.
    pub fn at(&self, index: usize) -> f64 {
        self.factor * self.dtype.load(&self.bytes, index)
    }
}

/// One output vector: a query head of a sequence, at one position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unit {
    /// Sequence.
    pub s: usize,
    /// Query head.
    pub h: usize,
    /// Keys of the sequence up to this query's position.
    pub keys: usize,
}

/// Scores or weights that lie beside the output: for each unit those of its last `width` keys.
#[derive(Debug, Clone, PartialEq)]
pub struct Beside {
    /// Keys that are covered, the last ones.
    pub width: usize,
    /// `[units, width]`.
    pub values: Vec<f64>,
    /// The type that they are stored in.
    pub dtype: DType,
}

impl Beside {
    /// Those of a unit.
    pub fn of(&self, unit: usize) -> &[f64] {
        &self.values[unit * self.width..][..self.width]
    }
}

/// What the outputs are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// Attention: `out` from q, k and v.
    Attend,
    /// `scores` of the attended keys, from q and k.
    Scores,
    /// `probs` of the attended keys, from scores that are given.
    Weights,
    /// `out` from v and weights that are given.
    Mix,
    /// `out` from parts: their outputs in the place of V, their lse in that of scores.
    Merge,
}

impl Task {
    /// Whether K, and whether V, is an input.
    pub fn reads(self) -> (bool, bool) {
        match self {
            Task::Attend => (true, true),
            Task::Scores => (true, false),
            Task::Weights => (false, false),
            Task::Mix | Task::Merge => (false, true),
        }
    }
}

/// A decode step, or the positions of a prefill, or one stage of it alone, with the output that a
/// kernel produced.
#[derive(Debug, Clone)]
pub struct Problem<'a> {
    /// What the outputs are.
    pub task: Task,
    /// Query heads.
    pub num_heads: usize,
    /// KV heads.
    pub num_kv_heads: usize,
    /// Elements of a q and k vector.
    pub head_dim: usize,
    /// Elements of a v and out vector.
    pub head_dim_v: usize,
    /// Rows allocated along the token axis.
    pub capacity: usize,
    /// Keys of the longest sequence.
    pub seq_len: usize,
    /// Only the last so many keys are attended; 0 means all.
    pub window_len: usize,
    /// Layers in the buffers.
    pub layers: usize,
    /// The layer that is attended.
    pub layer: usize,
    /// Factor on Q·K, as kernels get it (f32).
    pub scale: f64,
    /// 0 means none.
    pub softcap: f64,
    /// The K cache, over the axes `S L H N D`.
    pub k: Memory<'a>,
    /// The V cache.
    pub v: Memory<'a>,
    /// `[units, head_dim]`.
    pub q: Vec<f64>,
    /// `[num_heads]`.
    pub sinks: Option<Vec<f64>>,
    /// What there is an output of.
    pub units: Vec<Unit>,
    /// What the kernel produced, unit after unit: `[head_dim_v]` each, or a score or weight for
    /// each attended key.
    pub observed: Vec<f64>,
    /// The scores, weights or lse of parts that are an input, over the axes `S H N`; in tasks
    /// [`Task::Weights`], [`Task::Mix`] and [`Task::Merge`].
    pub given: Option<Memory<'a>>,
    /// Whether queries and outputs each lie one after the other: one a sequence and head, no gap.
    pub packed: bool,
    /// Parts of each head's keys, 0 where there are none; whether the output is their sum.
    pub splits: (usize, bool),
    /// What the kernel promises.
    pub arithmetic: Arithmetic,
    /// The scores that were captured.
    pub scores: Option<Beside>,
    /// The weights that were captured.
    pub probs: Option<Beside>,
    /// Base e, `[units]`.
    pub lse: Option<Vec<f64>>,
}

impl<'a> Problem<'a> {
    /// The problem that a captured slice poses.
    ///
    /// # Errors
    /// [`SliceError`]: a layout or type that is not driven yet.
    pub fn of_slice(slice: &'a KvSlice) -> Result<Problem<'a>, SliceError> {
        slice.diagnosable()?;
        let places = slice.placements()?;
        let memory = |t: &'a Tensor, place: &Placement, factor: Option<f64>| Memory {
            bytes: Cow::Borrowed(&t.bytes[..]),
            dtype: t.dtype,
            factor: factor.unwrap_or(1.0),
            place: place.clone(),
        };
        let lens = slice.seq_lens();
        let units: Vec<Unit> = lens
            .iter()
            .enumerate()
            .flat_map(|(s, keys)| (0..slice.num_heads).map(move |h| Unit { s, h, keys: *keys }))
            .collect();
        let rows = |t: &Tensor, place: &Placement, dim: usize| -> Vec<f64> {
            let at = |u: &Unit, d| t.dtype.load(&t.bytes, place.index(u.s, 0, u.h, 0, d));
            units.iter().flat_map(|u| (0..dim).map(move |d| at(u, d))).collect()
        };
        let beside = |t: &Option<Tensor>| {
            let t = t.as_ref()?;
            let values = t.values()?;
            let width = values.len() / units.len().max(1);
            (width > 0).then_some(Beside { width, values, dtype: t.dtype })
        };
        let promises = slice.promises();
        let observed = rows(&slice.out, &places.out, slice.dim_v());
        let out = stored_as(slice.out.dtype, &observed);
        Ok(Problem {
            task: Task::Attend,
            given: None,
            num_heads: slice.num_heads,
            num_kv_heads: slice.num_kv_heads,
            head_dim: slice.head_dim,
            head_dim_v: slice.dim_v(),
            capacity: slice.capacity,
            seq_len: lens.iter().copied().max().unwrap_or(0),
            window_len: slice.window_len(),
            layers: slice.layers(),
            layer: slice.layer_index(),
            scale: f64::from(slice.scale_f32()),
            softcap: f64::from(slice.softcap_f32()),
            k: memory(&slice.k, &places.k, slice.k_scale),
            v: memory(&slice.v, &places.v, slice.v_scale),
            q: rows(&slice.q, &places.q, slice.head_dim),
            sinks: slice.sinks.as_ref().and_then(Tensor::values),
            observed,
            packed: slice.q_raw.is_none() && slice.out_raw.is_none(),
            splits: (0, false),
            arithmetic: Arithmetic {
                accumulate: promises.accumulate,
                probs: promises.probs,
                exp_ulp: promises.exp_ulp,
                ..Arithmetic::single(out)
            },
            scores: beside(&slice.scores),
            probs: beside(&slice.probs),
            lse: slice.lse.as_ref().and_then(Tensor::values),
            units,
        })
    }

    /// The problem of a failing case, from its buffers as they lie in memory and its judged
    /// outputs in their order; `None` for stages that are no part of attention, or where a buffer
    /// is missing.
    pub fn of_case(
        case: &Case,
        buffer: &dyn Fn(&str) -> Option<&'a [u8]>,
        observed: Vec<f64>,
        arithmetic: Arithmetic,
    ) -> Option<Problem<'a>> {
        let task = match case.stage {
            Stage::Decode | Stage::Prefill | Stage::Split => Task::Attend,
            Stage::Scores => Task::Scores,
            Stage::Softmax => Task::Weights,
            Stage::Pv => Task::Mix,
            Stage::Merge => return Problem::of_parts(case, buffer, observed, arithmetic),
            Stage::Append | Stage::HeadCombine | Stage::Norm => return None,
        };
        let places = case.placements().ok()?;
        let memory = |name: &str, dtype: DType, place: &Placement| {
            let bytes = buffer(name)?;
            let whole = bytes.len() / dtype.size() >= place.span();
            let (bytes, place) = (Cow::Borrowed(bytes), place.clone());
            whole.then_some(Memory { bytes, dtype, factor: 1.0, place })
        };
        let kv = case.dtypes.kv;
        let (k, v) = (memory("k", kv, &places.k), memory("v", kv, &places.v));
        let given = match task {
            Task::Weights => Some(memory("scores", DType::F32, &places.scores)?),
            Task::Mix => Some(memory("probs", DType::F32, &places.probs)?),
            _ => None,
        };
        // A stage that has no K, say, has what it does read in its place: nothing looks there.
        let any = k.clone().or_else(|| v.clone()).or_else(|| given.clone())?;
        let mut units = Vec::new();
        let mut q = Vec::new();
        let bytes = buffer("q");
        for s in 0..case.batch() {
            for h in 0..case.num_heads {
                for t in 0..case.queries(s) {
                    units.push(Unit { s, h, keys: case.attended_by(s, t).end });
                    let at = |d| places.q.index(s, 0, h, t, d);
                    let load = |d| bytes.map_or(0.0, |b| case.dtypes.q.load(b, at(d)));
                    q.extend((0..case.head_dim).map(load));
                }
            }
        }
        let sinks = match case.sinks {
            true => {
                let bytes = buffer("sinks")?;
                Some((0..case.num_heads).map(|h| DType::F32.load(bytes, h)).collect())
            }
            false => None,
        };
        // why: a kernel that takes no strides can be wrong about them only where there is no gap.
        let dense = |place: &Placement| place.offset() == 0 && place.span() == place.len();
        let packed = case.stage != Stage::Prefill && dense(&places.q) && dense(&places.out);
        Some(Problem {
            task,
            given,
            packed: packed && in_rows(&places.q) && in_rows(&places.out),
            splits: (case.splits(), case.stage == Stage::Split),
            num_heads: case.num_heads,
            num_kv_heads: case.num_kv_heads,
            head_dim: case.head_dim,
            head_dim_v: case.head_dim_v,
            capacity: case.capacity,
            seq_len: case.seq_len(),
            window_len: case.window_len,
            layers: case.layers,
            layer: case.layer,
            scale: f64::from(case.scale),
            softcap: f64::from(case.softcap),
            k: k.unwrap_or_else(|| any.clone()),
            v: v.unwrap_or(any),
            q,
            sinks,
            units,
            observed,
            arithmetic,
            scores: None,
            probs: None,
            lse: None,
        })
    }

    /// The problem of a failing case of stage `merge`: a key for each part, and a KV head for each
    /// query head.
    fn of_parts(
        case: &Case,
        buffer: &dyn Fn(&str) -> Option<&'a [u8]>,
        observed: Vec<f64>,
        arithmetic: Arithmetic,
    ) -> Option<Problem<'a>> {
        let tensors = case.tensors(&case.placements().ok()?).ok()?;
        let memory = |pointer: Pointer| {
            let tensor = tensors.iter().find(|t| t.pointer == pointer)?;
            let bytes = buffer(pointer.name())?;
            let whole = bytes.len() / tensor.dtype.size() >= tensor.place.span();
            let (bytes, place) = (Cow::Borrowed(bytes), tensor.place.clone());
            whole.then_some(Memory { bytes, dtype: tensor.dtype, factor: 1.0, place })
        };
        let parts = memory(Pointer::PartialOut)?;
        let splits = case.splits();
        let heads = (0..case.batch()).flat_map(|s| (0..case.num_heads).map(move |h| (s, h)));
        Some(Problem {
            task: Task::Merge,
            given: Some(memory(Pointer::PartialLse)?),
            packed: false,
            splits: (splits, false),
            num_heads: case.num_heads,
            num_kv_heads: case.num_heads,
            head_dim: 1,
            head_dim_v: case.head_dim_v,
            capacity: splits,
            seq_len: splits,
            window_len: 0,
            layers: 1,
            layer: 0,
            scale: 1.0,
            softcap: 0.0,
            k: parts.clone(),
            v: parts,
            q: Vec::new(),
            sinks: None,
            units: heads.map(|(s, h)| Unit { s, h, keys: splits }).collect(),
            observed,
            arithmetic,
            scores: None,
            probs: None,
            lse: None,
        })
    }

    /// Query heads that share a KV head.
    pub fn group(&self) -> usize {
        self.num_heads / self.num_kv_heads
    }

    /// The query of a unit, `[head_dim]`.
    pub fn query(&self, unit: usize) -> &[f64] {
        &self.q[unit * self.head_dim..][..self.head_dim]
    }

    /// The output of a unit.
    pub fn output(&self, unit: usize) -> &[f64] {
        &self.observed[self.span(unit)]
    }

    /// Where the output of a unit lies among all.
    pub fn span(&self, unit: usize) -> Range<usize> {
        if matches!(self.task, Task::Attend | Task::Mix | Task::Merge) {
            return unit * self.head_dim_v..(unit + 1) * self.head_dim_v;
        }
        let start: usize = (0..unit).map(|u| self.attended(u).len()).sum();
        start..start + self.attended(unit).len()
    }

    /// The sink's logit of a unit.
    pub fn sink(&self, unit: usize) -> Option<f64> {
        self.sinks.as_ref().map(|sinks| sinks[self.units[unit].h])
    }

    /// The keys that a unit rightly attends.
    pub fn attended(&self, unit: usize) -> Range<usize> {
        let n = self.units[unit].keys;
        if self.window_len == 0 { 0..n } else { n.saturating_sub(self.window_len)..n }
    }

    /// Whether some sequence is not alone.
    pub fn is_batched(&self) -> bool {
        self.batch() > 1
    }

    /// Sequences.
    pub fn batch(&self) -> usize {
        self.units.last().map_or(1, |u| u.s + 1)
    }

    /// The first unit of a sequence's head, and how many follow each other: one, but in a prefill.
    pub fn queries(&self, s: usize, h: usize) -> (usize, usize) {
        let first = self.units.partition_point(|u| (u.s, u.h) < (s, h));
        let count = self.units[first..].iter().take_while(|u| (u.s, u.h) == (s, h)).count();
        (first, count)
    }

    /// Whether there is one query a head.
    pub fn is_decode(&self) -> bool {
        self.units.len() == self.batch() * self.num_heads
    }
}

/// Whether heads lie inside sequences, and elements inside heads.
fn in_rows(place: &Placement) -> bool {
    let stride = |axis| place.stride(axis);
    let batched = place.extents().get(Axis::Seq) > 1;
    stride(Axis::Dim) <= stride(Axis::Head) && (!batched || stride(Axis::Head) <= stride(Axis::Seq))
}

/// The type that an output was really stored in: an engine's f16 result is often captured as f32,
/// and all its values are then numbers that f16 has.
fn stored_as(dtype: DType, values: &[f64]) -> DType {
    /// So many values that are f16's or bf16's by chance have a chance below 2^-13 each.
    const ENOUGH: usize = 8;
    let nonzero = values.iter().filter(|x| x.is_finite() && **x != 0.0).count();
    if !matches!(dtype, DType::F32 | DType::F64) || nonzero < ENOUGH {
        return dtype;
    }
    let all = |t: DType| values.iter().all(|x| !x.is_finite() || t.round(*x) == *x);
    [DType::F16, DType::BF16, DType::F32].into_iter().find(|t| all(*t)).unwrap_or(dtype)
}
