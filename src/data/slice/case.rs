//! Slices and cases: saving a case that failed, and the case that a slice poses.

use super::error::{SliceError, SliceProblem};
use super::{KvSlice, Promises, Raw, Tensor};
use crate::problem::{Axis, Case, DType, DTypes, Layout, Placement, Placements, Regime, Storage};
use std::collections::BTreeMap;

/// A failing case with its buffers, to be saved.
#[derive(Debug, Clone, Copy)]
pub struct Saved<'a> {
    /// The case.
    pub case: &'a Case,
    /// The kernel's name.
    pub kernel: &'a str,
    /// The property that failed.
    pub property: &'a str,
    /// The buffer of q, from its first element; at least as long as its placement's span, as all.
    pub q: &'a [u8],
    /// The buffer of k.
    pub k: &'a [u8],
    /// The buffer of v.
    pub v: &'a [u8],
    /// The buffer of out, as the kernel left it.
    pub out: &'a [u8],
    /// The kernel's `lse`, f32 `[batch, num_heads]`.
    pub lse: Option<&'a [u8]>,
    /// The sinks, f32 `[num_heads]`.
    pub sinks: Option<&'a [u8]>,
    /// What the kernel promises, where that is not the default.
    pub promises: Option<Promises>,
}

impl KvSlice {
    /// The slice that saves a failing case under `name`. Its [`KvSlice::placements`] are the case's.
    ///
    /// A tensor that fills its buffer without gaps keeps the layout's shape; others are stored as
    /// raw buffers with strides. One sequence gets an `S` axis only if its strides depend on it.
    ///
    /// # Errors
    /// [`SliceProblem::Case`] or [`SliceProblem::Unsavable`]: an impossible case, a buffer that is
    /// too short, sinks that the case does not have or lacks.
    pub fn from_case(name: &str, saved: &Saved<'_>) -> Result<KvSlice, SliceError> {
        let name = super::sanitise(name);
        let save = || {
            saved.case.validate()?;
            let placements = saved.case.placements().map_err(SliceProblem::Case)?;
            let written = [&saved.case.k, &saved.case.v].iter().any(|s| s.layout.has(Axis::Seq));
            if saved.case.batch() == 1 && !written {
                let plain = build(&name, saved, &placements, false)?;
                if plain.placements().is_ok_and(|p| p == placements) {
                    return Ok(plain);
                }
            }
            build(&name, saved, &placements, true)
        };
        save().map_err(|p| SliceError::new(&name, p))
    }

    /// The case that this slice poses. Its placements are the file's, its regime is
    /// [`Regime::Slice`] of the name, its wave 32 where the file has none.
    ///
    /// # Errors
    /// [`SliceProblem::NotYet`] for paged layouts, 8-bit types, k and v of two types, and factors on
    /// k or v other than 1; [`SliceProblem::Case`] where [`Case::validate`] refuses it.
    pub fn to_case(&self) -> Result<Case, SliceError> {
        self.pose().map_err(|p| SliceError::new(&self.name, p))
    }

    /// Whether the slice's tensors can be read element by element, whatever their types and factors.
    ///
    /// # Errors
    /// [`SliceProblem::NotYet`] for paged layouts and 8-bit types.
    pub fn diagnosable(&self) -> Result<(), SliceError> {
        self.check_placed().map_err(|p| SliceError::new(&self.name, p))
    }

    fn check_placed(&self) -> Result<(), SliceProblem> {
        for (name, t) in [("q", &self.q), ("k", &self.k), ("v", &self.v), ("out", &self.out)] {
            if !t.is_loadable() {
                return Err(SliceProblem::NotYet {
                    what: format!("tensor `{name}` of type {}", t.dtype),
                    mend: "capture it as f32, f16 or bf16",
                });
            }
            self.place(name)?;
        }
        Ok(())
    }

    fn pose(&self) -> Result<Case, SliceProblem> {
        self.check_placed()?;
        if self.k.dtype != self.v.dtype {
            return Err(SliceProblem::NotYet {
                what: format!("a cache with k in {} and v in {}", self.k.dtype, self.v.dtype),
                mend: "capture both in the same type",
            });
        }
        for (key, factor) in [("k_scale", self.k_scale), ("v_scale", self.v_scale)] {
            if let Some(factor) = factor.filter(|f| *f != 1.0) {
                return Err(SliceProblem::NotYet {
                    what: format!("`{key}` = {factor}"),
                    mend: "capture the cache as the kernel uses it, with a factor of 1",
                });
            }
        }
        let plain = Case::plain(self.num_heads, self.num_kv_heads, self.head_dim, self.seq_lens());
        let case = Case {
            head_dim_v: self.dim_v(),
            capacity: self.capacity,
            window_len: self.window_len(),
            softcap: self.softcap_f32(),
            sinks: self.sinks.is_some(),
            scale: self.scale_f32(),
            dtypes: DTypes { q: self.q.dtype, kv: self.k.dtype, out: self.out.dtype },
            k: self.storage("k"),
            v: self.storage("v"),
            q: self.storage("q"),
            out: self.storage("out"),
            layers: self.layers(),
            layer: self.layer_index(),
            params: self.params.clone().unwrap_or_default(),
            wave: self.wave.unwrap_or(32),
            regime: Regime::Slice(self.name.clone()),
            seed: self.seed.unwrap_or(0),
            order_seed: self.order_seed.unwrap_or(0),
            ..plain
        };
        case.validate()?;
        Ok(case)
    }
}

/// A tensor and how it is addressed, from a buffer.
fn store(
    name: &str,
    placement: &Placement,
    dtype: DType,
    buffer: &[u8],
    batched: bool,
) -> Result<(Tensor, Option<Raw>), SliceProblem> {
    let need = placement.span().checked_mul(dtype.size());
    if need.is_none_or(|need| buffer.len() < need) || !buffer.len().is_multiple_of(dtype.size()) {
        return Err(SliceProblem::Unsavable(format!(
            "{name} has {} bytes, but its placement spans {} elements of {dtype}",
            buffer.len(),
            placement.span()
        )));
    }
    let tensor = |shape| Tensor { dtype, shape, bytes: buffer.to_vec() };
    let axes =
        placement.layout().axes().map_err(|source| SliceProblem::Unsavable(source.to_string()))?;
    let e = placement.extents();
    let mut axes: Vec<(usize, usize)> = axes
        .into_iter()
        .map(|axis| {
            let extent = match axis {
                Axis::Seq => e.batch,
                Axis::Layer => e.layers,
                Axis::Head => e.heads,
                Axis::Token => e.tokens,
                Axis::Dim => e.dim,
            };
            (extent, placement.stride(axis))
        })
        .collect();
    if !batched {
        axes.remove(0);
    }
    let shape: Vec<usize> = axes.iter().map(|(extent, _)| *extent).collect();
    let contiguous =
        Placement::padded(placement.layout(), e, &[], 0).is_ok_and(|c| c == *placement);
    if contiguous && need == Some(buffer.len()) {
        return Ok((tensor(shape), None));
    }
    let strides = Some(axes.iter().map(|(_, stride)| *stride).collect());
    let offset = (placement.offset() > 0).then_some(placement.offset());
    Ok((tensor(vec![buffer.len() / dtype.size()]), Some(Raw { strides, offset })))
}

fn build(
    name: &str,
    saved: &Saved<'_>,
    placements: &Placements,
    batched: bool,
) -> Result<KvSlice, SliceProblem> {
    let case = saved.case;
    let keep = |tensor, placement, dtype, buffer| store(tensor, placement, dtype, buffer, batched);
    let (q, q_raw) = keep("q", &placements.q, case.dtypes.q, saved.q)?;
    let (k, k_raw) = keep("k", &placements.k, case.dtypes.kv, saved.k)?;
    let (v, v_raw) = keep("v", &placements.v, case.dtypes.kv, saved.v)?;
    let (out, out_raw) = keep("out", &placements.out, case.dtypes.out, saved.out)?;
    if saved.sinks.is_some() != case.sinks {
        let why = "the case and the buffers disagree about sinks; give them where the case has any";
        return Err(SliceProblem::Unsavable(why.into()));
    }
    let f32s = |bytes: &[u8], shape| Tensor { dtype: DType::F32, shape, bytes: bytes.to_vec() };
    let layout = |storage: &Storage| -> Layout {
        if batched { storage.layout.with_batch() } else { storage.layout.clone() }
    };
    let lens =
        case.seq_lens.iter().map(|n| i32::try_from(*n)).collect::<Result<Vec<i32>, _>>().map_err(
            |_| SliceProblem::Unsavable("a sequence has more than 2^31 - 1 keys".into()),
        )?;
    let mut heads = vec![case.num_heads];
    if batched {
        heads.insert(0, case.batch());
    }
    let layered = case.k.layout.has(Axis::Layer) || case.v.layout.has(Axis::Layer);
    let seq_len = case.seq_len();
    let slice = KvSlice {
        name: name.to_owned(),
        model: "attnbench".into(),
        prompt_id: case.regime.to_string(),
        phase: "decode0".into(),
        layer: if layered { case.layer } else { 0 },
        pos_id: seq_len.saturating_sub(1),
        seq_len,
        capacity: case.capacity,
        num_heads: case.num_heads,
        num_kv_heads: case.num_kv_heads,
        head_dim: case.head_dim,
        head_dim_v: (case.head_dim_v != case.head_dim).then_some(case.head_dim_v),
        scale: f64::from(case.scale),
        k_layout: layout(&case.k),
        v_layout: layout(&case.v),
        window_len: (case.window_len > 0).then_some(case.window_len),
        softcap: (case.softcap != 0.0).then_some(f64::from(case.softcap)),
        page_size: None,
        x: None,
        k_scale: None,
        v_scale: None,
        engine: None,
        layers: layered.then_some(case.layers),
        accumulate: saved.promises.map(|p| p.accumulate),
        probs_type: saved.promises.map(|p| p.probs),
        exp_ulp: saved.promises.map(|p| p.exp_ulp),
        q_raw,
        k_raw,
        v_raw,
        out_raw,
        kernel: Some(saved.kernel.to_owned()),
        params: Some(case.params.clone()),
        wave: Some(case.wave),
        seed: Some(case.seed),
        order_seed: Some(case.order_seed),
        case: Some(case.to_string()),
        property: Some(saved.property.to_owned()),
        extra: BTreeMap::new(),
        q,
        k,
        v,
        out,
        probs: None,
        scores: None,
        lse: saved.lse.map(|bytes| f32s(bytes, heads)),
        sinks: saved.sinks.map(|bytes| f32s(bytes, vec![case.num_heads])),
        new_k: None,
        new_v: None,
        page_table: None,
        lens: batched.then_some(lens),
        extra_tensors: BTreeMap::new(),
    };
    slice.check()?;
    Ok(slice)
}
