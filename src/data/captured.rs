//! Captured slices as a source of data: the attended rows of one layer, dense and in f32.

/// A captured decode step, ready to be cut to other lengths, layouts and types.
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
    pub q: Vec<f32>,
    /// `[num_kv_heads, seq_len, head_dim]`.
    pub k: Vec<f32>,
    /// `[num_kv_heads, seq_len, head_dim_v]`.
    pub v: Vec<f32>,
}

impl Captured {
    /// Query heads that share a KV head.
    pub fn group(&self) -> usize {
        self.num_heads / self.num_kv_heads
    }
}
