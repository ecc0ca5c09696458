// scores.hip: the first pass of attention alone, a score for every key.
//
// Computes, for sequence b, query head h and its KV head g = h / (num_heads / num_kv_heads):
//   scores[b,h,n] = scale * q[b,h,:] . k[b,g,n,:]     (softcap * tanh(. / softcap), where set)
// over the attended keys n (all of seq_lens[b], or its last window_len); keys before the window
// get -inf; from seq_lens[b] on nothing is written.
//
//   q        [batch, num_heads, head_dim]               any strides, unit along head_dim
//   k        [batch, num_kv_heads, capacity, head_dim]  any strides on every axis
//   scores   [batch, num_heads, capacity] f32           any strides, unit along the keys
//   seq_lens [batch] i32
//
// Algorithm: the definition. A thread computes one score, and needs no other thread.
// Launch:    grid (ceil(seq_len / block), num_heads, batch), any block (threads).
// Requires:  nothing of alignment. seq_lens[b] = 0 is legal: writes nothing.
// History:   v1 was a pass of decode_naive, and left keys before the window as they were.
#include "portable.h"

template <typename Q, typename KV>
__global__ void score_keys(
    const Q *q, const KV *k, float *scores, const int *seq_lens, int group, int head_dim,
    int window_len, float scale, float softcap, index_t q_stride_s, index_t q_stride_h,
    index_t scores_stride_s, index_t scores_stride_h, index_t k_stride_s, index_t k_stride_h,
    index_t k_stride_n, index_t k_stride_d) {
    const int n = blockIdx.x * blockDim.x + threadIdx.x, h = blockIdx.y, b = blockIdx.z;
    const int end = seq_lens[b];
    if (n >= end) return;
    float score = -INFINITY;
    if (n >= first_key(end, window_len)) {
        const Q *query = q + b * q_stride_s + h * q_stride_h;
        const KV *row = k + b * k_stride_s + (h / group) * k_stride_h + n * k_stride_n;
        float dot = 0.0f;
        for (int d = 0; d < head_dim; ++d) {
            dot += to_float(query[d]) * to_float(row[d * k_stride_d]);
        }
        score = finish_score(dot, scale, softcap);
    }
    scores[b * scores_stride_s + h * scores_stride_h + n] = score;
}
