// parts.h: the sums of attention over parts of the keys, put together: those of a block's waves through
// shared memory, those of a sequence's blocks by the one that arrives last.
//
// A part of a head is a maximum m of its scores times log2(e), the sum of its weights 2^(s - m), and the sum
// of its values by those weights, not normalised. One without keys has m = -inf and sums of 0.
#pragma once
#include "portable.h"

// 2^(a - b), where b >= a, or both are -inf: then nothing is there to be weighted.
__device__ __forceinline__ float factor_of(float a, float b) {
    return a == -INFINITY ? 0.0f : power_of_2(a - b);
}

// The sums of parts as rows of shared memory: of each head those of all parts, HEAD_DIM values each, and
// behind them every row's maximum and total.
template <int HEAD_DIM> struct shared_rows {
    // why: 4 more than the values, and 8 more a head, so that rows that are written at once begin in
    // different banks.
    static constexpr int ROW = HEAD_DIM + 4, MORE = 8;
    float *values;
    float2 *stats;
    int group, parts;

    __device__ shared_rows(float *shared, int group, int parts)
        : values(shared), stats((float2 *)(shared + group * (parts * ROW + MORE))), group(group),
          parts(parts) {}
    // The first float behind all.
    __device__ __forceinline__ float *end() const { return (float *)(stats + group * parts); }
    __device__ __forceinline__ float *row(int part, int head) const {
        return values + head * (parts * ROW + MORE) + part * ROW;
    }
    __device__ __forceinline__ float2 *stat(int part, int head) const {
        return stats + head * parts + part;
    }
};

// Parts put together, for 4 dimensions of a head: the sum of values and of weights, to the maximum.
struct joined { float sum[4], maximum, total; };

// Adds the first MANY of `count` parts, or as many as there are, whose values are STEP apart: their loads are
// under way together.
template <int STEP, int MANY>
__device__ __forceinline__ void join_some(
    joined &all, const float *values, const float2 *stats, int count) {
    float4 value[MANY];
    float2 stat[MANY];
#pragma unroll
    for (int i = 0; i < MANY; ++i) {
        const int part = i < count ? i : 0;
        stat[i] = stats[part];
        value[i] = *(const float4 *)(values + part * STEP);
        if (i >= count) stat[i] = {-INFINITY, 0.0f};
    }
    float now = all.maximum;
#pragma unroll
    for (int i = 0; i < MANY; ++i) now = fmaxf(now, stat[i].x);
    const float base = now == -INFINITY ? 0.0f : now;
    const float own = power_of_2(all.maximum - base);
    all.maximum = now;
    all.total *= own;
#pragma unroll
    for (int i = 0; i < 4; ++i) all.sum[i] *= own;
#pragma unroll
    for (int i = 0; i < MANY; ++i) {
        const float factor = power_of_2(stat[i].x - base);
        all.total += stat[i].y * factor;
        all.sum[0] += value[i].x * factor, all.sum[1] += value[i].y * factor;
        all.sum[2] += value[i].z * factor, all.sum[3] += value[i].w * factor;
    }
}
template <int STEP>
__device__ __forceinline__ joined join(const float *values, const float2 *stats, int count) {
    joined all = {{0.0f, 0.0f, 0.0f, 0.0f}, -INFINITY, 0.0f};
    for (; count >= 8; count -= 8, values += 8 * STEP, stats += 8) {
        join_some<STEP, 8>(all, values, stats, 8);
    }
    for (; count > 0; count -= 2, values += 2 * STEP, stats += 2) {
        join_some<STEP, 2>(all, values, stats, count);
    }
    return all;
}

template <typename Out>
__device__ __forceinline__ void put_out(const joined &x, Out *out, float *lse) {
    Out four[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) four[i] = rounded<Out>::from(normalised(x.sum[i], x.total));
    if constexpr (sizeof(Out) == 4) {
        *(uint4 *)out = *(const uint4 *)four;
    } else {
        *(uint2 *)out = *(const uint2 *)four;
    }
    if (lse) *lse = (x.maximum + log2f(x.total)) * 0.693147180559945309417f;
}

// The sums of a block's waves as parts 0, 1, ... of `rows`, and how many: those that there is no room for are
// added to others' first. A kernel says how a wave's sums are written (put_part), and added to (add_part).
template <int HEAD_DIM, typename Sums>
__device__ __forceinline__ int gather_waves(
    Sums &sums, const shared_rows<HEAD_DIM> &rows, int wave, int waves, int lane) {
    int left = waves;
    while (left > rows.parts) {
        const int moved = min(rows.parts, min(left - rows.parts, left / 2));
        if (wave >= left - moved && wave < left) put_part(sums, rows, wave - (left - moved), lane);
        __syncthreads();
        if (wave >= left - 2 * moved && wave < left - moved) {
            add_part(sums, rows, wave - (left - 2 * moved), lane);
        }
        __syncthreads();
        left -= moved;
    }
    if (wave < left) put_part(sums, rows, wave, lane);
    __syncthreads();
    return left;
}

// What a block has of its heads: `rows.group` of them from `first_head` of sequence b on, row `first` of all
// heads of the batch; their sums of all keys of the split are the first `count` parts of `rows`. Goes to the
// results, or where there are more splits to
//   part_out [.., splits, HEAD_DIM], part_stats [.., splits], as lse [..] of all heads.
// Dimensions from head_dim on are none.
template <int HEAD_DIM, typename Out>
__device__ __forceinline__ void put_split(
    const shared_rows<HEAD_DIM> &rows, int count, Out *out, float *lse, float *part_out,
    float2 *part_stats, int split, int splits, int b, index_t first, int first_head, int head_dim,
    index_t out_stride_s, index_t out_stride_h) {
    constexpr int QUADS = HEAD_DIM / 4;
    for (int item = threadIdx.x; item < rows.group * QUADS; item += blockDim.x) {
        const int head = item / QUADS, d = 4 * (item % QUADS);
        if (d >= head_dim) continue;
        const joined x =
            join<shared_rows<HEAD_DIM>::ROW>(rows.row(0, head) + d, rows.stat(0, head), count);
        const index_t row = first + head;
        if (splits == 1) {
            put_out(
                x, out + b * out_stride_s + (first_head + head) * out_stride_h + d,
                d == 0 && lse ? lse + row : nullptr);
        } else {
            const index_t part = row * splits + split;
            *(float4 *)(part_out + part * HEAD_DIM + d) = {x.sum[0], x.sum[1], x.sum[2], x.sum[3]};
            if (d == 0) part_stats[part] = {x.maximum, x.total};
        }
    }
}

// Whether this block is the last of the `splits` that have the same x and z: then it sees what all others put
// before, and the counter, arrived[z][x], is 0 again. `is_last` is shared memory that nobody reads any more.
__device__ __forceinline__ bool arrives_last(unsigned *arrived, int x, int z, int splits, int *is_last) {
    __syncthreads();
    if (threadIdx.x == 0) {
        unsigned *count = arrived + z * gridDim.x + x;
        *is_last = ticket(count) == splits - 1;
        if (*is_last) *count = 0;
    }
    __syncthreads();
    return *is_last;
}

// The results of `heads` heads from what put_split made of their splits.
template <int HEAD_DIM, typename Out>
__device__ __forceinline__ void join_splits(
    int heads, Out *out, float *lse, const float *part_out, const float2 *part_stats, int splits, int b,
    index_t first, int first_head, int head_dim, index_t out_stride_s, index_t out_stride_h) {
    constexpr int QUADS = HEAD_DIM / 4;
    for (int item = threadIdx.x; item < heads * QUADS; item += blockDim.x) {
        const int head = item / QUADS, d = 4 * (item % QUADS);
        if (d >= head_dim) continue;
        const index_t row = first + head;
        const joined x =
            join<HEAD_DIM>(part_out + row * splits * HEAD_DIM + d, part_stats + row * splits, splits);
        put_out(
            x, out + b * out_stride_s + (first_head + head) * out_stride_h + d,
            d == 0 && lse ? lse + row : nullptr);
    }
}
