// decode_naive.hip: decode attention in three passes over memory, the readable baseline.
//
// Computes, for sequence b, query head h and its KV head g = h / (num_heads / num_kv_heads), over
// the attended keys n (all of seq_lens[b], or its last window_len):
//   naive_scores    weights[b,h,n] = scale * q[b,h,:] . k[b,g,n,:]   (then the softcap, where set)
//   naive_softmax   weights[b,h,n] = exp(s_n - m) / l,  l = sum_n exp(s_n - m) [+ exp(sink_h - m)]
//                   lse[b,h] = m + log(l)                  base e; -inf where no key is attended
//   naive_pv        out[b,h,:] = sum_n weights[b,h,n] v[b,g,n,:]
//
//   q, out   [batch, num_heads, head_dim]               any strides, unit along head_dim
//   k, v     [batch, num_kv_heads, capacity, head_dim]  any strides on every axis
//   weights  [batch, num_heads, seq_len] f32, scratch; only attended keys are written and read
//   seq_lens [batch] i32    sinks [num_heads] f32 or null    lse [batch, num_heads] f32 or null
//
// Algorithm: the definition. A thread computes one score, and one element of the output.
// Launch:   scores  grid (ceil(seq_len / block), num_heads, batch)
//           softmax grid (num_heads, batch); a power of two threads
//           pv      grid (ceil(head_dim / block), num_heads, batch)
// Requires: nothing of alignment. seq_lens[b] = 0 is legal: writes out = 0.
// History:  one pass with the scores in shared memory would bound seq_len by the LDS; scratch in
//           global memory does not.
#include "portable.h"

template <typename Q, typename KV>
__global__ void naive_scores(
    const Q *q, const KV *k, float *weights, const int *seq_lens, int group, int head_dim,
    int window_len, int longest, float scale, float softcap, index_t q_stride_s,
    index_t q_stride_h, index_t k_stride_s, index_t k_stride_h, index_t k_stride_n,
    index_t k_stride_d) {
    const int n = blockIdx.x * blockDim.x + threadIdx.x, h = blockIdx.y, b = blockIdx.z;
    const int end = seq_lens[b];
    if (n < first_key(end, window_len) || n >= end) return;
    const Q *query = q + b * q_stride_s + h * q_stride_h;
    const KV *row = k + b * k_stride_s + (h / group) * k_stride_h + n * k_stride_n;
    float dot = 0.0f;
    for (int d = 0; d < head_dim; ++d) dot += to_float(query[d]) * to_float(row[d * k_stride_d]);
    weights[((index_t)b * gridDim.y + h) * longest + n] = finish_score(dot, scale, softcap);
}

__global__ void naive_softmax(
    float *weights, float *lse, const int *seq_lens, const float *sinks, int window_len,
    int longest) {
    __shared__ float slots[BLOCK_REDUCE_SLOTS];
    const int h = blockIdx.x, b = blockIdx.y;
    const int end = seq_lens[b], begin = first_key(end, window_len);
    float *row = weights + ((index_t)b * gridDim.x + h) * longest;

    float largest = sinks ? sinks[h] : -INFINITY;
    for (int n = begin + threadIdx.x; n < end; n += blockDim.x) largest = fmaxf(largest, row[n]);
    largest = block_reduce(largest, slots, take_max());

    float sum = sinks && threadIdx.x == 0 ? expf(sinks[h] - largest) : 0.0f;
    for (int n = begin + threadIdx.x; n < end; n += blockDim.x) {
        row[n] = expf(row[n] - largest);
        sum += row[n];
    }
    sum = block_reduce(sum, slots, take_sum());
    for (int n = begin + threadIdx.x; n < end; n += blockDim.x) row[n] /= sum;
    if (lse && threadIdx.x == 0) lse[b * gridDim.x + h] = largest + logf(sum);
}

template <typename KV, typename Out>
__global__ void naive_pv(
    const float *weights, const KV *v, Out *out, const int *seq_lens, int group, int head_dim,
    int window_len, int longest, index_t out_stride_s, index_t out_stride_h, index_t v_stride_s,
    index_t v_stride_h, index_t v_stride_n, index_t v_stride_d) {
    const int d = blockIdx.x * blockDim.x + threadIdx.x, h = blockIdx.y, b = blockIdx.z;
    if (d >= head_dim) return;
    const int end = seq_lens[b], begin = first_key(end, window_len);
    const float *row = weights + ((index_t)b * gridDim.y + h) * longest;
    const KV *column = v + b * v_stride_s + (h / group) * v_stride_h + d * v_stride_d;
    float sum = 0.0f;
    for (int n = begin; n < end; ++n) sum += row[n] * to_float(column[n * v_stride_n]);
    out[b * out_stride_s + h * out_stride_h + d] = rounded<Out>::from(sum);
}
