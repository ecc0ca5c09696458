// append.hip: the current token's key and value written into the cache, the key rotated or not.
//
// Computes, for sequence b, KV head h and p = pos[b]:
//   k[b,h,p,:] = R(p) new_k[b,h,:]      v[b,h,p,:] = new_v[b,h,:]
// R(p) is the rotary embedding, or nothing where rope_base is 0. It turns pairs of elements,
// i = 0 .. head_dim / 2 - 1, by the angle a_i = p * rope_base^(-2 i / head_dim):
//   (x, y) -> (x cos a_i - y sin a_i, x sin a_i + y cos a_i)
// A pair is the elements i and i + head_dim / 2 (GPT-NeoX), or, where rope_interleaved, 2 i and
// 2 i + 1 (GPT-J, and the paper). Of an odd head_dim the last element is left as it is.
//
//   new_k, new_v [batch, num_kv_heads, head_dim], of the activations' type         contiguous
//   k, v         [batch, num_kv_heads, capacity, head_dim], the cache's type       any strides
//   pos          [batch] u32, the row to write
//
// Algorithm: Su et al., "RoFormer: enhanced transformer with rotary position embedding", 2021
//   (arXiv:2104.09864), section 3.4.2. Angle and rotation in f32, by the library's accurate pow,
//   sin and cos (angles reach thousands); one rounding at the store, to nearest, ties to even.
// Launch:    grid (num_kv_heads, batch), any block (threads).
// Requires:  pos[b] < capacity. Touches the one row of each head.
#include "portable.h"

template <typename Q, typename KV>
__global__ void append_row(
    const Q *new_k, const Q *new_v, const unsigned *pos, KV *k, KV *v, int head_dim,
    float rope_base, int rope_interleaved, index_t k_stride_s, index_t k_stride_h,
    index_t k_stride_n, index_t k_stride_d, index_t v_stride_s, index_t v_stride_h,
    index_t v_stride_n, index_t v_stride_d) {
    const int h = blockIdx.x, b = blockIdx.y, thread = threadIdx.x, threads = blockDim.x;
    const index_t row = (index_t)b * gridDim.x + h, position = pos[b];
    new_k += row * head_dim;
    new_v += row * head_dim;
    k += b * k_stride_s + h * k_stride_h + position * k_stride_n;
    v += b * v_stride_s + h * v_stride_h + position * v_stride_n;

    const int pairs = rope_base != 0.0f ? head_dim / 2 : 0;
    for (int i = thread; i < pairs; i += threads) {
        const int first = rope_interleaved ? 2 * i : i;
        const int second = rope_interleaved ? first + 1 : first + pairs;
        const float frequency = powf(rope_base, (float)(-2 * i) / (float)head_dim);
        const float angle = (float)position * frequency;
        const float c = cosf(angle), s = sinf(angle);
        const float x = to_float(new_k[first]), y = to_float(new_k[second]);
        k[first * k_stride_d] = rounded<KV>::from(x * c - y * s);
        k[second * k_stride_d] = rounded<KV>::from(x * s + y * c);
    }
    for (int d = 2 * pairs + thread; d < head_dim; d += threads) {
        k[d * k_stride_d] = rounded<KV>::from(to_float(new_k[d]));
    }
    for (int d = thread; d < head_dim; d += threads) {
        v[d * v_stride_d] = rounded<KV>::from(to_float(new_v[d]));
    }
}
