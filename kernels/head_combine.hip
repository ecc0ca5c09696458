// head_combine.hip: the heads' results side by side, projected.
//
// Computes, for sequence b and output j:
//   out[b,j] = sum_i c[b,i] w_o[j,i],   c[b, h * head_dim + d] = x[b,h,d]
//
//   x   [batch, num_heads, head_dim]      any strides, unit along head_dim
//   w_o [hidden, num_heads * head_dim]    contiguous
//   out [batch, hidden]                   any stride of rows, unit along hidden
//
// Algorithm: block_matvec of matvec.h: the x threads of a block read a row of w_o side by side,
//   and its y threads take the rows of a tile of as many outputs as there are x threads.
// Launch:    grid (ceil(hidden / block x), batch), block (x, y).
//            Shared: the partial sums, (x + 1) * max(x, y) floats.
// Requires:  nothing of alignment.
#include "matvec.h"

template <typename X, typename W, typename Out>
__global__ void head_combine(
    const X *x, const W *w_o, Out *out, int num_heads, int head_dim, int hidden,
    index_t x_stride_s, index_t x_stride_h, index_t out_stride_s) {
    extern __shared__ float shared[];
    const int b = blockIdx.y, length = num_heads * head_dim;
    const int first = blockIdx.x * blockDim.x, beyond = first + blockDim.x;
    x += b * x_stride_s;
    out += b * out_stride_s;
    // The division is left out where heads lie side by side already.
    const bool dense = x_stride_h == head_dim;
    block_matvec(
        shared, true, 0, length, first, beyond < hidden ? beyond : hidden,
        [=](int i) {
            return to_float(x[dense ? i : i / head_dim * x_stride_h + i % head_dim]);
        },
        [=](int i, int j) { return to_float(w_o[(index_t)j * length + i]); },
        [=](int j, float sum) { out[j] = rounded<Out>::from(sum); });
}
