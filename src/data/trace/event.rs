//! The events of a trace, with their fields checked against each other.

use super::error::FieldError;
use super::fields::Fields;

/// The longest sequence: `seq_lens` of a kv-slice are i32.
const LONGEST: u64 = i32::MAX as u64;

/// What identifies an event: which token, of which prompt, in which head.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Head {
    /// The prompt.
    pub prompt_id: Option<String>,
    /// `prefill_last`, `decode0`, …
    pub phase: Option<String>,
    /// The layer, from 0.
    pub layer: Option<u64>,
    /// The query head, from 0.
    pub head: Option<u64>,
    /// Position of the current token, from 0.
    pub pos_id: Option<u64>,
    /// Keys attended.
    pub seq_len: Option<u64>,
    /// Keys of the window that the event shows, the last ones.
    pub window_len: Option<u64>,
}

/// One event.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// `attn_vacc_trace`: P·V and the head's output.
    VAcc(Box<VAcc>),
    /// `v_addr_trace`: where the appended row stands.
    VAddr(VAddr),
    /// `attn_softmax_trace`: scores and weights.
    Softmax(Box<Softmax>),
    /// A prefill or decode row: which token came out on top.
    TopOne(TopOne),
}

/// Which keys the reference P·V summed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Those of the window.
    Window,
    /// All.
    Full,
}

impl Scope {
    /// Its word in a trace.
    pub fn name(self) -> &'static str {
        match self {
            Scope::Window => "window",
            Scope::Full => "full",
        }
    }
}

/// The probe of V's layout: two guesses, and which came closer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct VProbe {
    /// `row` or `col`.
    pub best: Option<&'static str>,
    /// Mean error against a reference that read V row by row.
    pub mae_row: Option<f64>,
    /// Mean error against one that read it column-wise.
    pub mae_col: Option<f64>,
}

/// P·V of one head, over some sampled elements of the head vector.
#[derive(Debug, Clone, PartialEq)]
pub struct VAcc {
    /// Which one.
    pub head: Head,
    /// Keys attended, at least `window_len`.
    pub seq_len: u64,
    /// Softmax weights of the last keys, `[window_len]`.
    pub p: Vec<f64>,
    /// V of those keys, `[window_len, dims]`.
    pub v: Vec<f64>,
    /// Elements of a head vector.
    pub head_dim: Option<u64>,
    /// Those that were sampled.
    pub dims: usize,
    /// The kernel's P·V, `[dims]`; may be not finite.
    pub pv_gpu: Vec<f64>,
    /// The trace's own reference, `[dims]`.
    pub pv_cpu: Option<Vec<f64>>,
    /// The head's output, `[dims]`; may be not finite.
    pub out_gpu: Option<Vec<f64>>,
    /// The trace's own reference of it, `[dims]`.
    pub out_cpu: Option<Vec<f64>>,
    /// Which keys the references summed.
    pub scope: Scope,
    /// The layout probe.
    pub probe: VProbe,
    /// Mean error of P·V as printed.
    pub pv_mae: Option<f64>,
    /// Largest error of P·V as printed.
    pub pv_max_diff: Option<f64>,
    /// Mean error of the output as printed.
    pub out_mae: Option<f64>,
    /// Largest error of the output as printed.
    pub out_max_diff: Option<f64>,
}

/// Distances of the current token's K and V row from rows of the cache (mean absolute difference).
#[derive(Debug, Clone, PartialEq)]
pub struct VAddr {
    /// Which one.
    pub head: Head,
    /// The slot that the kernel used; `pos_id` where absent.
    pub kv_pos_used: Option<u64>,
    /// Bytes from one head's rows to the next.
    pub head_stride: Option<u64>,
    /// Bytes from one row to the next.
    pub pos_stride: Option<u64>,
    /// K at the slot used.
    pub k_pos: f64,
    /// K one slot before.
    pub k_prev: Option<f64>,
    /// K one slot after.
    pub k_next: Option<f64>,
    /// V at the slot used.
    pub v_pos: f64,
    /// V one slot before.
    pub v_prev: Option<f64>,
    /// V one slot after.
    pub v_next: Option<f64>,
    /// V written column-wise.
    pub v_col: Option<f64>,
}

/// Scores and weights of one head over a window of keys.
#[derive(Debug, Clone, PartialEq)]
pub struct Softmax {
    /// Which one.
    pub head: Head,
    /// Keys attended, at least `window_len`.
    pub seq_len: u64,
    /// Elements of a head vector: the terms of a score.
    pub head_dim: u64,
    /// The factor on Q·K.
    pub scale: Option<f64>,
    /// The kernel's scores, `[window_len]`.
    pub qk_gpu: Vec<f64>,
    /// The trace's own, in f64.
    pub qk_cpu: Vec<f64>,
    /// The kernel's weights, `[window_len]`.
    pub p_gpu: Vec<f64>,
    /// The trace's own.
    pub p_cpu: Vec<f64>,
    /// Mean error of the scores as printed.
    pub qk_mae: Option<f64>,
    /// Mean error of the weights as printed.
    pub p_mae: Option<f64>,
}

/// The most likely next token after a prefill or a decode step.
#[derive(Debug, Clone, PartialEq)]
pub struct TopOne {
    /// Which step.
    pub head: Head,
    /// Its id.
    pub id: i64,
}

impl Head {
    /// What can be read of it: a field that is malformed stays empty, so that a row about a
    /// malformed event names what it can.
    pub(super) fn lenient(f: &Fields<'_>) -> Head {
        let whole = |field| f.whole(field).ok().flatten();
        let text = |field| f.text(field).ok().flatten();
        Head {
            prompt_id: text("prompt_id"),
            phase: text("phase"),
            layer: whole("layer"),
            head: whole("head"),
            pos_id: whole("pos_id"),
            seq_len: whole("seq_len"),
            window_len: whole("window_len"),
        }
    }

    fn strict(f: &Fields<'_>) -> Result<Head, FieldError> {
        Ok(Head {
            prompt_id: f.text("prompt_id")?,
            phase: f.text("phase")?,
            layer: f.whole("layer")?,
            head: f.whole("head")?,
            pos_id: f.whole("pos_id")?,
            seq_len: f.whole("seq_len")?,
            window_len: f.whole("window_len")?,
        })
    }
}

/// `seq_len` and `window_len`, checked against each other.
fn lengths(f: &Fields<'_>) -> Result<(u64, u64), FieldError> {
    let (seq_len, window_len) = (f.need_whole("seq_len")?, f.need_whole("window_len")?);
    if window_len == 0 {
        return Err(FieldError::TooSmall { field: "window_len", value: 0.0, least: 1 });
    }
    let exceeds = |field, value, limit| Err(FieldError::Exceeds { field, value, limit });
    if seq_len > LONGEST {
        return exceeds("seq_len", seq_len, format!("the longest sequence, {LONGEST}"));
    }
    if window_len > seq_len {
        return exceeds("window_len", window_len, format!("`seq_len`, {seq_len}"));
    }
    Ok((seq_len, window_len))
}

impl VAcc {
    pub(super) fn parse(f: &Fields<'_>) -> Result<VAcc, FieldError> {
        let head = Head::strict(f)?;
        f.need_whole("layer")?;
        f.need_whole("head")?;
        let (seq_len, window_len) = lengths(f)?;
        let (head_dim, dims) = (f.whole("head_dim")?, f.need_whole("dims_sample")?);
        if dims == 0 {
            return Err(FieldError::TooSmall { field: "dims_sample", value: 0.0, least: 1 });
        }
        if let Some(head_dim) = head_dim.filter(|n| dims > *n) {
            let limit = format!("`head_dim`, {head_dim}");
            return Err(FieldError::Exceeds { field: "dims_sample", value: dims, limit });
        }
        let scopes = [Scope::Window, Scope::Full].map(|s| (s.name(), s));
        let scope = f.word("pv_scope", &scopes, "`window` or `full`")?.unwrap_or(Scope::Window);
        let sample = |field| f.outputs(field, "dims_sample", dims);
        let reference = |field| f.numbers(field, "dims_sample", dims);
        let probe = match f.object("v_layout_probe")? {
            None => VProbe::default(),
            Some(p) => VProbe {
                best: p.word(
                    "v_layout_best",
                    &[("row", "row"), ("col", "col")],
                    "`row` or `col`",
                )?,
                mae_row: p.error("v_mae_row")?,
                mae_col: p.error("v_mae_col")?,
            },
        };
        let all = VAcc {
            head,
            seq_len,
            p: f.need("p_window_gpu", f.numbers("p_window_gpu", "window_len", window_len)?)?,
            v: f.matrix("v_window_gpu_sample", ("window_len", window_len), ("dims_sample", dims))?,
            head_dim,
            // The array's length is `dims`, so that fits in memory.
            dims: dims as usize,
            pv_gpu: f.need("pv_gpu_sample", sample("pv_gpu_sample")?)?,
            pv_cpu: reference("pv_cpu_fp64_sample")?,
            out_gpu: sample("attn_out_gpu_sample")?,
            out_cpu: reference("attn_out_cpu_fp64_sample")?,
            scope,
            probe,
            pv_mae: f.error("pv_mae")?,
            pv_max_diff: f.error("pv_max_diff")?,
            out_mae: f.error("attn_out_mae")?,
            out_max_diff: f.error("attn_out_max_diff")?,
        };
        // The sum over all keys cannot be made again from a part of them.
        if scope == Scope::Full && window_len < seq_len && all.pv_cpu.is_none() {
            f.need("pv_cpu_fp64_sample", None::<()>)?;
        }
        Ok(all)
    }
}

impl VAddr {
    pub(super) fn parse(f: &Fields<'_>) -> Result<VAddr, FieldError> {
        f.need_whole("layer")?;
        f.need_whole("pos_id")?;
        Ok(VAddr {
            head: Head { window_len: None, ..Head::strict(f)? },
            kv_pos_used: f.whole("kv_pos_used")?,
            head_stride: f.whole("kv_head_stride_bytes")?,
            pos_stride: f.whole("kv_pos_stride_bytes")?,
            k_pos: f.distance("mae_k_pos")?,
            k_prev: f.error("mae_k_prev")?,
            k_next: f.error("mae_k_next")?,
            v_pos: f.distance("mae_v_pos")?,
            v_prev: f.error("mae_v_prev")?,
            v_next: f.error("mae_v_next")?,
            v_col: f.error("mae_v_col")?,
        })
    }
}

impl Softmax {
    pub(super) fn parse(f: &Fields<'_>) -> Result<Softmax, FieldError> {
        let head = Head::strict(f)?;
        f.need_whole("layer")?;
        f.need_whole("head")?;
        let (seq_len, window_len) = lengths(f)?;
        let head_dim = f.need_whole("head_dim")?;
        if head_dim == 0 {
            return Err(FieldError::TooSmall { field: "head_dim", value: 0.0, least: 1 });
        }
        if head_dim > LONGEST {
            let limit = format!("the longest sum, {LONGEST}");
            return Err(FieldError::Exceeds { field: "head_dim", value: head_dim, limit });
        }
        let window = |field| f.need(field, f.numbers(field, "window_len", window_len)?);
        Ok(Softmax {
            head,
            seq_len,
            head_dim,
            scale: f.number("scale_used")?,
            qk_gpu: window("qk_window_gpu")?,
            qk_cpu: window("qk_window_cpu_fp64")?,
            p_gpu: window("softmax_window_gpu")?,
            p_cpu: window("softmax_window_cpu")?,
            qk_mae: f.error("qk_mae")?,
            p_mae: f.error("softmax_mae")?,
        })
    }
}

impl TopOne {
    pub(super) fn parse(f: &Fields<'_>) -> Result<TopOne, FieldError> {
        let head = Head::strict(f)?;
        let id = f.0.get("top1_id").and_then(serde_json::Value::as_i64);
        let id = id.map_or_else(|| f.need_whole("top1_id").map(|n| n as i64), Ok)?;
        Ok(TopOne { head: Head { window_len: None, ..head }, id })
    }
}
