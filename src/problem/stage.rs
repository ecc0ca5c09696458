//! Stages: what a kernel computes, and the tensors that it may take.

use super::names::named;

named! {
    /// What a kernel computes.
    Stage, "stage", {
        /// Q·K: `scores` f32 `[batch, num_heads, capacity]`.
        Scores = "scores",
        /// `probs` from `scores`, both f32 `[batch, num_heads, capacity]`.
        Softmax = "softmax",
        /// `out` from `probs` and v.
        Pv = "pv",
        /// The whole of decode attention.
        Decode = "decode",
        /// The first half of split decode attention: `partial_out` and `partial_lse` of each part of
        /// the keys. Which keys are in which part is the kernel's affair: what must be right is
        /// the parts put together.
        Split = "split",
        /// Causal attention for every position: q `[S, N, H, D]`.
        Prefill = "prefill",
        /// One row of k and v written at `pos`.
        Append = "append",
        /// Partial results of splits put together.
        Merge = "merge",
        /// Heads concatenated and projected: `[batch, hidden]`.
        HeadCombine = "head_combine",
        /// Residual added, RMS-normalised, weighted: `[batch, hidden]`.
        Norm = "norm",
    }
}

named! {
    /// A tensor that a kernel can take by pointer.
    Pointer, "pointer", {
        /// Queries `[batch, num_heads, head_dim]`.
        Q = "q",
        /// Keys, as the case's K storage says.
        K = "k",
        /// Values, as the case's V storage says.
        V = "v",
        /// The result.
        Out = "out",
        /// Log-sum-exp, base e, f32 `[batch, num_heads]`.
        Lse = "lse",
        /// Scores f32 `[batch, num_heads, capacity]`.
        Scores = "scores",
        /// Softmax weights f32 `[batch, num_heads, capacity]`.
        Probs = "probs",
        /// Pages of each sequence, i32 `[batch, pages]`.
        PageTable = "page_table",
        /// Keys of each sequence, i32 `[batch]`.
        SeqLens = "seq_lens",
        /// Attention sinks, logits `[num_heads]`.
        Sinks = "sinks",
        /// The key row to append, `[batch, num_kv_heads, head_dim]`.
        NewK = "new_k",
        /// The value row to append, `[batch, num_kv_heads, head_dim_v]`.
        NewV = "new_v",
        /// Position of the current token, u32 `[batch]`.
        Pos = "pos",
        /// Factor of stored keys.
        KScale = "k_scale",
        /// Factor of stored values.
        VScale = "v_scale",
        /// Normalised partial results, f32 `[batch, num_heads, splits, head_dim]`.
        PartialOut = "partial_out",
        /// Their log-sum-exp, f32 `[batch, num_heads, splits]`; -inf is an empty part.
        PartialLse = "partial_lse",
        /// `[batch, num_heads, head_dim]` in `head_combine`, `[batch, hidden]` in `norm`.
        X = "x",
        /// Projection `[hidden, num_heads * head_dim]`.
        WO = "w_o",
        /// Residual stream `[batch, hidden]`, read and written.
        Residual = "residual",
        /// RMS-norm weights `[hidden]`.
        Weight = "weight",
    }
}

/// A tensor of a stage, and what the stage does with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Port {
    /// The tensor.
    pub pointer: Pointer,
    /// Whether the stage reads it.
    pub read: bool,
    /// Whether the stage writes it.
    pub write: bool,
    /// Whether the stage is not itself without it. Only outputs are demanded of a kernel that is
    /// judged.
    pub required: bool,
}

impl Stage {
    /// The tensors of the stage: its inputs, what else may help to read them, its outputs.
    pub fn ports(self) -> Vec<Port> {
        use Pointer::*;
        let port = |read, write, required| {
            move |pointer: &Pointer| Port { pointer: *pointer, read, write, required }
        };
        let [inputs, extra, both, out, optional_out]: [&[Pointer]; 5] = match self {
            Stage::Scores => [&[Q, K], &[PageTable, SeqLens, Pos, KScale], &[], &[Scores], &[]],
            Stage::Softmax => [&[Scores], &[SeqLens, Sinks, Pos], &[], &[Probs], &[Lse]],
            Stage::Pv => [&[Probs, V], &[PageTable, SeqLens, Pos, VScale], &[], &[Out], &[]],
            Stage::Decode | Stage::Prefill => [
                &[Q, K, V],
                &[PageTable, SeqLens, Sinks, Pos, KScale, VScale],
                &[],
                &[Out],
                // A prefill's lse has no shape in the format.
                if self == Stage::Decode { &[Lse] } else { &[] },
            ],
            Stage::Split => [
                &[Q, K, V],
                &[PageTable, SeqLens, Sinks, Pos, KScale, VScale],
                &[],
                &[PartialOut, PartialLse],
                &[],
            ],
            Stage::Append => {
                [&[NewK, NewV, Pos], &[PageTable, SeqLens, KScale, VScale], &[K, V], &[], &[]]
            }
            Stage::Merge => [&[PartialOut, PartialLse], &[], &[], &[Out], &[Lse]],
            Stage::HeadCombine => [&[X, WO], &[], &[], &[Out], &[]],
            Stage::Norm => [&[X, Weight], &[], &[Residual], &[Out], &[]],
        };
        let mut ports: Vec<Port> = inputs.iter().map(port(true, false, true)).collect();
        ports.extend(extra.iter().map(port(true, false, false)));
        // One of them alone is a kernel too: many engines append K and V apart.
        ports.extend(both.iter().map(port(true, true, false)));
        ports.extend(out.iter().map(port(false, true, true)));
        ports.extend(optional_out.iter().map(port(false, true, false)));
        ports
    }

    /// The stage's use of a tensor, if it has any.
    pub fn port(self, pointer: Pointer) -> Option<Port> {
        self.ports().into_iter().find(|p| p.pointer == pointer)
    }

    /// Whether the stage has keys: a cache of them, or one score or weight for each.
    pub fn has_keys(self) -> bool {
        !matches!(self, Stage::Merge | Stage::HeadCombine | Stage::Norm)
    }

    /// Whether the stage has heads, and so vectors of `head_dim` elements.
    pub fn has_heads(self) -> bool {
        self != Stage::Norm
    }

    /// The axes of q and out beside the batch's.
    pub fn row_axes(self) -> &'static str {
        if self == Stage::Prefill { "NHD" } else { "HD" }
    }

    /// Whether only attended keys count, so that a window may leave some out.
    pub fn has_window(self) -> bool {
        self.has_keys() && self != Stage::Append
    }

    /// Whether the stage computes scores, so that a softcap may bend them.
    pub fn has_softcap(self) -> bool {
        self.has_window() && !matches!(self, Stage::Softmax | Stage::Pv)
    }

    /// Whether the stage has softmax's denominator, in which a sink may take part.
    pub fn has_sinks(self) -> bool {
        self.port(Pointer::Sinks).is_some()
    }

    /// Whether a tensor of the stage has the type `q`, `kv`, `out` of a case.
    pub fn types(self) -> [bool; 3] {
        use Pointer::*;
        let any = |of: &[Pointer]| of.iter().any(|pointer| self.port(*pointer).is_some());
        [any(&[Q, X, NewK, NewV, Residual]), any(&[K, V, WO, Weight]), any(&[Out])]
    }

    /// Whether the stage reads or writes the residual stream.
    pub fn has_hidden(self) -> bool {
        matches!(self, Stage::HeadCombine | Stage::Norm)
    }

    /// Whether its partial results are one a split, whose number the parameter `splits` says.
    pub fn has_splits(self) -> bool {
        matches!(self, Stage::Merge | Stage::Split)
    }

    /// Whether a captured decode step holds what the stage reads.
    pub fn takes_slices(self) -> bool {
        // A capture has the query of one position only.
        self.has_keys() && self != Stage::Prefill
    }

    /// Variables of expressions that only this stage has, besides those of every stage.
    pub fn variables(self) -> &'static [&'static str] {
        match self {
            Stage::Prefill => &["q_stride_n", "out_stride_n"],
            Stage::Append => &["rope_base", "rope_interleaved"],
            Stage::HeadCombine => &["hidden"],
            Stage::Norm => &["hidden", "eps"],
            _ => &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_the_format() {
        let outputs = |stage: Stage| {
            let outputs = stage.ports().into_iter().filter(|p| p.write);
            outputs
                .map(|p| format!("{}{}", p.pointer, if p.required { "" } else { "?" }))
                .collect::<Vec<_>>()
                .join(" ")
        };
        let inputs = |stage: Stage| {
            let inputs = stage.ports().into_iter().filter(|p| p.read && (p.required || p.write));
            inputs.map(|p| p.pointer.name()).collect::<Vec<_>>().join(" ")
        };
        for (stage, ins, outs) in [
            ("scores", "q k", "scores"),
            ("softmax", "scores", "probs lse?"),
            ("pv", "probs v", "out"),
            ("decode", "q k v", "out lse?"),
            ("split", "q k v", "partial_out partial_lse"),
            ("prefill", "q k v", "out"),
            ("append", "new_k new_v pos k v", "k? v?"),
            ("merge", "partial_out partial_lse", "out lse?"),
            ("head_combine", "x w_o", "out"),
            ("norm", "x weight residual", "residual? out"),
        ] {
            let stage: Stage = stage.parse().unwrap();
            assert_eq!((inputs(stage).as_str(), outputs(stage).as_str()), (ins, outs), "{stage}");
        }
        assert_eq!(Stage::ALL.len(), 10);
        assert!(Stage::Decode.port(Pointer::NewK).is_none());
    }

    #[test]
    fn names_parse_back_and_mistakes_name_the_nearest() {
        for p in Pointer::ALL {
            assert_eq!(p.name().parse(), Ok(*p));
        }
        let message = "decod".parse::<Stage>().unwrap_err().to_string();
        assert!(message.contains("unknown stage `decod`; did you mean `decode`?"), "{message}");
    }
}
