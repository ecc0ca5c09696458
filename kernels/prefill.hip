// prefill.hip: causal attention for every position of a prompt, one block a query row.
//
// Computes, for sequence b, position t < seq_lens[b], query head h and its KV head
// g = h / (num_heads / num_kv_heads), over the keys n <= t (all of them, or the last window_len):
//   s_n = scale * q[b,t,h,:] . k[b,g,n,:]     (softcap * tanh(s_n / softcap), where set)
//   out[b,t,h,:] = sum_n exp(s_n - m) v[b,g,n,:] / l,   l = sum_n exp(s_n - m) [+ exp(sink_h - m)]
//
//   q, out   [batch, seq_len, num_heads, head_dim]      any strides, unit along head_dim
//   k, v     [batch, num_kv_heads, capacity, head_dim]  any strides on every axis
//   seq_lens [batch] i32    sinks [num_heads] f32 or null
//
// Algorithm: the online softmax of decode_online, on t + 1 keys. Nothing is shared between rows: K
//   and V are read seq_len times. It is what a tiled kernel must equal, not how one is built.
// Launch:    grid (seq_len, num_heads, batch): positions come first, as only x may exceed 65535;
//            block (threads): a power of two up to 1024; shared as decode_online.
// Requires:  nothing of alignment. Positions from seq_lens[b] on are neither read nor written.
#include "decode_online.hip"

template <typename Q, typename KV, typename Out>
__global__ void prefill(
    const Q *q, const KV *k, const KV *v, Out *out, const int *seq_lens, const float *sinks,
    int group, int head_dim, int window_len, float scale, float softcap, index_t q_stride_s,
    index_t q_stride_n, index_t q_stride_h, index_t out_stride_s, index_t out_stride_n,
    index_t out_stride_h, index_t k_stride_s, index_t k_stride_h, index_t k_stride_n,
    index_t k_stride_d, index_t v_stride_s, index_t v_stride_h, index_t v_stride_n,
    index_t v_stride_d) {
    extern __shared__ float shared[];
    const int t = blockIdx.x, h = blockIdx.y, b = blockIdx.z;
    if (t >= seq_lens[b]) return;
    const int end = t + 1, begin = first_key(end, window_len);
    q += b * q_stride_s + t * q_stride_n + h * q_stride_h;
    k += b * k_stride_s + (h / group) * k_stride_h;
    v += b * v_stride_s + (h / group) * v_stride_h;
    out += b * out_stride_s + t * out_stride_n + h * out_stride_h;

    const row_sums sums = attend_keys(
        shared, q, k, v, sinks ? sinks + h : nullptr, begin, end, head_dim, head_dim, scale,
        softcap, k_stride_n, k_stride_d, v_stride_n, v_stride_d);
    for (int d = threadIdx.x; d < head_dim; d += blockDim.x) {
        out[d] = rounded<Out>::from(normalised(shared[d], sums.total));
    }
}
