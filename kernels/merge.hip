// merge.hip: the results of attention over parts of the keys, put together.
//
// Computes, for sequence b and head h, over the parts s:
//   out[b,h,:] = sum_s w_s partial_out[b,h,s,:] / l,  w_s = exp(partial_lse[b,h,s] - m),
//                                                     l = sum_s w_s [+ exp(sink_h - m)]
//   lse[b,h]   = m + log(l)       base e; m the largest partial_lse [and sink_h]
// A part without keys has partial_lse = -inf, and whatever numbers stand in its partial_out have
// no weight. Where every part is empty, out = 0 and lse = -inf (or the sink).
//
//   partial_out [batch, num_heads, splits, head_dim] f32, each part normalised    contiguous
//   partial_lse [batch, num_heads, splits] f32                                    contiguous
//   out         [batch, num_heads, head_dim]                any strides, unit along head_dim
//   sinks [num_heads] f32 or null    lse [batch, num_heads] f32 or null
//
// Algorithm: the reduction of Flash-Decoding (Dao, Haziza, Massa & Sizov, 2023). Every thread
//   finds the maximum by itself, since the parts are few; a weight is computed by one thread and
//   read by all. One barrier, no shuffles, any number of parts.
// Launch:    grid (num_heads, batch), any block (threads). Shared: the weights, [splits] floats.
// Requires:  nothing.
#include "portable.h"

template <typename Out>
__global__ void merge_splits(
    const float *partial_out, const float *partial_lse, Out *out, float *lse, const float *sinks,
    int splits, int head_dim, index_t out_stride_s, index_t out_stride_h) {
    extern __shared__ float weights[];
    const int h = blockIdx.x, b = blockIdx.y, thread = threadIdx.x, threads = blockDim.x;
    const index_t row = (index_t)b * gridDim.x + h;
    partial_out += row * splits * head_dim;
    partial_lse += row * splits;
    out += b * out_stride_s + h * out_stride_h;

    float maximum = sinks ? sinks[h] : -INFINITY;
    for (int s = 0; s < splits; ++s) maximum = fmaxf(maximum, partial_lse[s]);
    for (int s = thread; s < splits; s += threads) weights[s] = weight_of(partial_lse[s], maximum);
    __syncthreads();

    float total = sinks ? weight_of(sinks[h], maximum) : 0.0f;
    for (int s = 0; s < splits; ++s) total += weights[s];
    for (int d = thread; d < head_dim; d += threads) {
        float sum = 0.0f;
        for (int s = 0; s < splits; ++s) sum += weights[s] * partial_out[s * (index_t)head_dim + d];
        out[d] = rounded<Out>::from(normalised(sum, total));
    }
    if (lse && thread == 0) lse[row] = maximum + logf(total);
}
