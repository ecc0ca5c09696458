// norm.hip: the residual added, then the root-mean-square norm.
//
// Computes, for sequence b:
//   residual[b,:] = r = residual[b,:] + x[b,:]                  rounded to its type
//   out[b,:]      = r * weight / sqrt(mean_i(r_i^2) + eps)      of the rounded r
//
//   residual [batch, hidden]    contiguous, read and written
//   x        [batch, hidden]    the residual's type, any stride of rows, unit along hidden
//   weight   [hidden]
//   out      [batch, hidden]    any stride of rows, unit along hidden
//
// Algorithm: Zhang & Sennrich, "Root mean square layer normalization", 2019 (arXiv:1910.07467),
//   equation 4. The norm is that of the residual as the next layer reads it, after its rounding;
//   so the second pass needs no copy of the sums: a thread reads what it wrote itself.
// Launch:    grid (batch), block (threads): a power of two up to 1024.
// Requires:  nothing of alignment. The squares must not overflow f32: |r| below 1e18 or so.
#include "portable.h"

template <typename X, typename W, typename Out>
__global__ void add_and_norm(
    X *residual, const X *x, const W *weight, Out *out, int hidden, float eps, index_t x_stride_s,
    index_t out_stride_s) {
    __shared__ float slots[BLOCK_REDUCE_SLOTS];
    const int b = blockIdx.x, thread = threadIdx.x, threads = blockDim.x;
    residual += (index_t)b * hidden;
    x += b * x_stride_s;
    out += b * out_stride_s;

    float squares = 0.0f;
    for (int i = thread; i < hidden; i += threads) {
        residual[i] = rounded<X>::from(to_float(residual[i]) + to_float(x[i]));
        const float r = to_float(residual[i]);
        squares += r * r;
    }
    squares = block_reduce(squares, slots, take_sum());
    const float factor = 1.0f / sqrtf(squares / hidden + eps);
    for (int i = thread; i < hidden; i += threads) {
        out[i] = rounded<Out>::from(to_float(residual[i]) * factor * to_float(weight[i]));
    }
}
