// pv.hip: the last pass of attention alone, the weighted sum of values.
//
// Computes, for sequence b, query head h and its KV head g = h / (num_heads / num_kv_heads), over
// the attended keys n (all of seq_lens[b], or its last window_len):
//   out[b,h,:] = sum_n probs[b,h,n] v[b,g,n,:]
//
//   probs    [batch, num_heads, capacity] f32             any strides, unit along the keys
//   v        [batch, num_kv_heads, capacity, head_dim_v]  any strides on every axis
//   out      [batch, num_heads, head_dim_v]               any strides, unit along head_dim_v
//   seq_lens [batch] i32
//
// Algorithm: block_matvec of matvec.h. Where a token's values are contiguous (row-wise V), the
//   x threads of a block take neighbouring elements, and its y threads share the keys; where an
//   element's tokens are (column-wise V), x shares the keys and y the elements.
// Launch:    grid (ceil(head_dim_v / block x), num_heads, batch), block (x, y).
//            Shared: the partial sums, (x + 1) * max(x, y) floats.
// Requires:  nothing of alignment. seq_lens[b] = 0 is legal: writes out = 0.
// History:   v1, a pass of decode_naive, had a thread an element and every key: of column-wise V
//            its neighbours read far apart, and of a long sequence each walked all of it.
#include "matvec.h"

template <typename KV, typename Out>
__global__ void weigh_values(
    const float *probs, const KV *v, Out *out, const int *seq_lens, int group, int head_dim,
    int window_len, index_t probs_stride_s, index_t probs_stride_h, index_t out_stride_s,
    index_t out_stride_h, index_t v_stride_s, index_t v_stride_h, index_t v_stride_n,
    index_t v_stride_d) {
    extern __shared__ float shared[];
    const int h = blockIdx.y, b = blockIdx.z;
    const int end = seq_lens[b], begin = first_key(end, window_len);
    const int first = blockIdx.x * blockDim.x, beyond = first + blockDim.x;
    probs += b * probs_stride_s + h * probs_stride_h;
    v += b * v_stride_s + (h / group) * v_stride_h;
    out += b * out_stride_s + h * out_stride_h;
    block_matvec(
        shared, v_stride_n < v_stride_d, begin, end, first, beyond < head_dim ? beyond : head_dim,
        [=](int n) { return probs[n]; },
        [=](int n, int d) { return to_float(v[n * v_stride_n + d * v_stride_d]); },
        [=](int d, float sum) { out[d] = rounded<Out>::from(sum); });
}
