// decode_online.hip: decode attention with an online softmax, one block a query head.
//
// Computes, for sequence b, query head h and its KV head g = h / (num_heads / num_kv_heads), over
// the attended keys n (all of seq_lens[b], or its last window_len):
//   s_n = scale * q[b,h,:] . k[b,g,n,:]     (softcap * tanh(s_n / softcap), where set)
//   out[b,h,:] = sum_n exp(s_n - m) v[b,g,n,:] / l,   l = sum_n exp(s_n - m) [+ exp(sink_h - m)]
//   lse[b,h]   = m + log(l)                           base e; -inf where no key is attended
//
//   q, out   [batch, num_heads, head_dim], [.., head_dim_v]  any strides, unit along the last axis
//   k, v     [batch, num_kv_heads, capacity, head_dim], [.., head_dim_v]  any strides on every axis
//   seq_lens [batch] i32    sinks [num_heads] f32 or null    lse [batch, num_heads] f32 or null
//
// Algorithm: online softmax, Milakov & Gimelshein 2018 (arXiv:1805.02867), algorithm 3, a tile of
//   blockDim.x * KEYS_PER_THREAD keys at a time. A thread scores its keys of the tile; the block
//   takes the maximum; then a thread owns the elements d = threadIdx.x, + blockDim.x, ... of out.
// Launch:   grid (num_heads, batch), block (threads): a power of two up to 1024.
//           Shared: q and the accumulator in f32, the tile's weights, the reduction's slots.
// Requires: nothing of alignment. seq_lens[b] = 0 is legal: writes out = 0.
// History:  v1 kept a redundant sum of the weights in every thread; now each thread sums the
//           weights of its own keys, and the block adds them up once at the end.
//           v2 scored one key a thread and tile; with four, the block reduces a quarter as often.
//           v3 had four barriers a tile, two of them before a reduction that the others order
//           already; now there are two. The loop became attend_keys, for decode_split and prefill.
#include "portable.h"

// Keys that a thread scores between two maxima of the block; the manifest sizes `weights` by it.
constexpr int KEYS_PER_THREAD = 4;

// What is left of a row of scores: the largest, and the sum of exp(score - maximum).
struct row_sums {
    float maximum, total;
};

// One query row over the keys [begin, end), by a one-dimensional block: leaves
// sum_n exp(s_n - maximum) v_n in the first head_dim_v floats of `shared`, where thread
// d % blockDim.x owns element d; every thread gets the sums. `sink` is the logit of this row, or
// null. shared: [head_dim_v + head_dim + blockDim.x * KEYS_PER_THREAD + BLOCK_REDUCE_SLOTS].
template <typename Q, typename KV>
__device__ __forceinline__ row_sums attend_keys(
    float *shared, const Q *q, const KV *k, const KV *v, const float *sink, int begin, int end,
    int head_dim, int head_dim_v, float scale, float softcap, index_t k_stride_n,
    index_t k_stride_d, index_t v_stride_n, index_t v_stride_d) {
    float *accumulator = shared;               // [head_dim_v], each element owned by one thread
    float *query = accumulator + head_dim_v;   // [head_dim]
    float *weights = query + head_dim;         // [blockDim.x * KEYS_PER_THREAD], exp(s - m)
    float *slots = weights + blockDim.x * KEYS_PER_THREAD;  // [BLOCK_REDUCE_SLOTS]
    const int thread = threadIdx.x, threads = blockDim.x, tile = threads * KEYS_PER_THREAD;

    for (int d = thread; d < head_dim; d += threads) query[d] = to_float(q[d]);
    for (int d = thread; d < head_dim_v; d += threads) accumulator[d] = 0.0f;
    __syncthreads();

    // The running maximum is the same in every thread; the running sum is this thread's part.
    float maximum = sink ? *sink : -INFINITY;
    float sum = sink && thread == 0 ? 1.0f : 0.0f;
    for (int first = begin; first < end; first += tile) {
        const int count = end - first < tile ? end - first : tile;
        float scores[KEYS_PER_THREAD], largest = -INFINITY;
        for (int i = 0; i < KEYS_PER_THREAD; ++i) {
            const int j = thread + i * threads;
            scores[i] = -INFINITY;
            if (j < count) {
                const KV *row = k + (first + j) * k_stride_n;
                float dot = 0.0f;
                for (int d = 0; d < head_dim; ++d) dot += query[d] * to_float(row[d * k_stride_d]);
                scores[i] = finish_score(dot, scale, softcap);
            }
            largest = fmaxf(largest, scores[i]);
        }
        // The barrier in here also ends the reading of the last tile's weights.
        const float larger = fmaxf(maximum, block_reduce(largest, slots, take_max()));
        const float rescale = weight_of(maximum, larger);
        maximum = larger;
        sum *= rescale;
        for (int i = 0; i < KEYS_PER_THREAD; ++i) {
            const float weight = weight_of(scores[i], larger);
            weights[thread + i * threads] = weight;
            sum += weight;
        }
        __syncthreads();  // every thread reads all weights of the tile
        for (int d = thread; d < head_dim_v; d += threads) {
            const KV *column = v + first * v_stride_n + d * v_stride_d;
            float value = accumulator[d] * rescale;
            for (int j = 0; j < count; ++j) value += weights[j] * to_float(column[j * v_stride_n]);
            accumulator[d] = value;
        }
    }
    return row_sums{maximum, block_reduce(sum, slots, take_sum())};
}

template <typename Q, typename KV, typename Out>
__global__ void decode_online(
    const Q *q, const KV *k, const KV *v, Out *out, float *lse, const int *seq_lens,
    const float *sinks, int group, int head_dim, int head_dim_v, int window_len, float scale,
    float softcap, index_t q_stride_s, index_t q_stride_h, index_t out_stride_s,
    index_t out_stride_h, index_t k_stride_s, index_t k_stride_h, index_t k_stride_n,
    index_t k_stride_d, index_t v_stride_s, index_t v_stride_h, index_t v_stride_n,
    index_t v_stride_d) {
    extern __shared__ float shared[];
    const int h = blockIdx.x, b = blockIdx.y, kv_head = h / group;
    const int thread = threadIdx.x, threads = blockDim.x;
    const int end = seq_lens[b], begin = first_key(end, window_len);
    q += b * q_stride_s + h * q_stride_h;
    k += b * k_stride_s + kv_head * k_stride_h;
    v += b * v_stride_s + kv_head * v_stride_h;
    out += b * out_stride_s + h * out_stride_h;

    const row_sums sums = attend_keys(
        shared, q, k, v, sinks ? sinks + h : nullptr, begin, end, head_dim, head_dim_v,
        scale, softcap, k_stride_n, k_stride_d, v_stride_n, v_stride_d);
    for (int d = thread; d < head_dim_v; d += threads) {
        out[d] = rounded<Out>::from(normalised(shared[d], sums.total));
    }
    if (lse && thread == 0) lse[b * gridDim.x + h] = sums.maximum + logf(sums.total);
}
