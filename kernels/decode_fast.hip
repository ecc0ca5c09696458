// decode_fast.hip: decode attention on the matrix cores, K and V read once for all heads of a group.
//
// Computes what decode_split does, for the attended keys n of sequence b, KV head g = h / group:
//   out[b,h,:] = sum_n exp(s_n - m) v[b,g,n,:] / l,   s_n = scale q[b,h,:] . k[b,g,n,:]
//   lse[b,h]   = m + log(l)         base e; out = 0 and lse = -inf where no key is attended
//
//   q        [batch, num_heads, HEAD_DIM]                  strides of 16 bytes, unit along HEAD_DIM
//   k, v     [batch, num_kv_heads, capacity, HEAD_DIM]     strides of 16 bytes, unit along HEAD_DIM
//   out      [batch, num_heads, HEAD_DIM]                  any strides, unit along HEAD_DIM
//   part_out [batch, num_heads, splits, HEAD_DIM] f32, part_lse [batch, num_heads, splits] f32: scratch,
//            used where splits > 1; merge_splits (merge.hip) is then launched behind it
//   seq_lens [batch] i32    lse [batch, num_heads] f32 or null
//
// Algorithm: one block a (KV head, split, sequence), so that K and V are read once for a group of query
//   heads. Wave w of split s has every (waves * splits)-th tile of 16 keys, and its own online softmax
//   (Milakov & Gimelshein, 2018); nothing is shared in the loop, not even a barrier. Scores come from the
//   matrix cores in the very registers in which P·V wants the weights (matrix.h), rounded to the type of
//   V. The next tile's K is asked for as soon as Q·K has used this one's, and V likewise: a wave always has
//   32 to 64 bytes a lane and row under way. O is scaled anew only when a maximum of the wave rose. At the
//   end the waves meet pairwise in shared memory, then the splits in a second launch: the order of all
//   sums is fixed, so the same case has the same bits.
// Launch:    grid (num_kv_heads, splits, batch), block (waves of the device) up to 8. Shared: half the
//            waves, rounded down, times WAVE * HEAD_BLOCKS * (HEAD_DIM + 8) bytes.
// Requires:  HEAD_DIM 64, 128 or 256; group <= HEAD_BLOCKS * BLOCK_HEADS. seq_lens[b] = 0 is legal.
#include "matrix.h"
#include "merge.hip"

// The first of 8 (or 4) dimensions of a row of V that a lane loads at once, and how many rows' pieces.
template <int HEAD_DIM> struct v_pieces {
    static constexpr int LANES = WAVE / 4;
    static constexpr int DIMS = HEAD_DIM / LANES < 8 ? HEAD_DIM / LANES : 8;
    static constexpr int COUNT = HEAD_DIM / (LANES * DIMS), WORDS = DIMS / 2;
};

// What a wave has of its keys: of each head block the maximum of scores times log2(e), this lane's share
// of the sum of weights, and the sum of values, not normalised.
template <int HEAD_DIM, int HEAD_BLOCKS> struct wave_sums {
    static constexpr int TILES = HEAD_DIM / 16;
    float maximum[HEAD_BLOCKS], total[HEAD_BLOCKS], values[HEAD_BLOCKS][TILES][4];
};

// The head of a block of heads, and the dimension, that element `e` of tile `m` of the values belongs to.
__device__ __forceinline__ int value_head(int lane, int e) {
    return WAVE == 32 ? 2 * lane_part(lane) + (e & 1) : lane_head(lane);
}
template <int HEAD_DIM>
__device__ __forceinline__ int value_dim(int lane, int m, int e) {
    typedef v_pieces<HEAD_DIM> pieces;
    if (WAVE == 32) return 64 * (m / 4) + 8 * lane_head(lane) + 2 * (m % 4) + (e >> 1);
    const int row = 4 * lane_part(lane) + e;
    return 16 * pieces::DIMS * (m / pieces::DIMS) + pieces::DIMS * row + m % pieces::DIMS;
}
// A number of each lane's head, as element `e` of the values wants it.
__device__ __forceinline__ float for_value(float x, int lane, int e) {
    return WAVE == 32 ? lane_from(x, 4 * value_head(lane, e)) : x;
}

// 2^(a - b), where b >= a, or both are -inf: then nothing is there to be weighted.
__device__ __forceinline__ float factor_of(float a, float b) {
    return a == -INFINITY ? 0.0f : exp2f(a - b);
}

template <int HEAD_DIM, int HEAD_BLOCKS>
__device__ __forceinline__ void scale_values(
    wave_sums<HEAD_DIM, HEAD_BLOCKS> &sums, int block, float factor, int lane) {
    float of[2];
    for (int e = 0; e < 2; ++e) of[e] = for_value(factor, lane, e);
#pragma unroll
    for (int m = 0; m < HEAD_DIM / 16; ++m) {
#pragma unroll
        for (int e = 0; e < 4; ++e) sums.values[block][m][e] *= of[e & 1];
    }
}

template <typename KV, typename Out, int HEAD_DIM, int HEAD_BLOCKS>
__global__ void __launch_bounds__(8 * WAVE) decode_fast(
    const KV *q, const KV *k, const KV *v, Out *out, float *lse, float *part_out, float *part_lse,
    const int *seq_lens, int group, int window_len, float scale, index_t q_stride_s,
    index_t q_stride_h, index_t out_stride_s, index_t out_stride_h, index_t k_stride_s,
    index_t k_stride_h, index_t k_stride_n, index_t v_stride_s, index_t v_stride_h,
    index_t v_stride_n) {
    typedef v_pieces<HEAD_DIM> pieces;
    constexpr int K_PIECES = HEAD_DIM / PIECE, TILES = HEAD_DIM / 16;
    extern __shared__ float shared[];
    const int g = blockIdx.x, split = blockIdx.y, splits = gridDim.y, b = blockIdx.z;
    const int wave = threadIdx.x / WAVE, waves = blockDim.x / WAVE, lane = lane_of_wave();
    const int end = seq_lens[b], begin = first_key(end, window_len), keys = end - begin;
    const float to_log2 = scale * 1.44269504088896340736f;
    int turn = 0;

    q += b * q_stride_s + g * group * q_stride_h + lane_dim(lane);
    k += b * k_stride_s + g * k_stride_h + begin * k_stride_n + lane_dim(lane);
    v += b * v_stride_s + g * v_stride_h + begin * v_stride_n + pieces::DIMS * lane_head(lane);

    // Q stays in registers; heads that are none are zero.
    word_t query[HEAD_BLOCKS][K_PIECES][4];
#pragma unroll
    for (int block = 0; block < HEAD_BLOCKS; ++block) {
        const int head = block * BLOCK_HEADS + lane_head(lane);
#pragma unroll
        for (int piece = 0; piece < K_PIECES; ++piece) {
            uint4 words = {0, 0, 0, 0};
            if (head < group) words = load16(q + head * q_stride_h + PIECE * piece);
            query[block][piece][0] = words.x, query[block][piece][1] = words.y;
            query[block][piece][2] = words.z, query[block][piece][3] = words.w;
        }
    }

    wave_sums<HEAD_DIM, HEAD_BLOCKS> sums;
#pragma unroll
    for (int block = 0; block < HEAD_BLOCKS; ++block) {
        sums.maximum[block] = -INFINITY, sums.total[block] = 0.0f;
#pragma unroll
        for (int m = 0; m < TILES; ++m) {
#pragma unroll
            for (int e = 0; e < 4; ++e) sums.values[block][m][e] = 0.0f;
        }
    }

    word_t key[K_ROWS][K_PIECES][4], value[4][pieces::COUNT][pieces::WORDS];
    // Rows past the last are read as the last once more: they get no weight.
    auto load_keys = [&](int first) {
#pragma unroll
        for (int r = 0; r < K_ROWS; ++r) {
            const int n = first + lane_row(lane, r);
            const KV *row = k + (n < keys ? n : keys - 1) * k_stride_n;
#pragma unroll
            for (int piece = 0; piece < K_PIECES; ++piece) {
                const uint4 words = load16(row + PIECE * piece);
                key[r][piece][0] = words.x, key[r][piece][1] = words.y;
                key[r][piece][2] = words.z, key[r][piece][3] = words.w;
            }
        }
    };
    auto load_values = [&](int first) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const int n = first + lane_key(lane, i);
            const KV *row = v + (n < keys ? n : keys - 1) * v_stride_n;
#pragma unroll
            for (int piece = 0; piece < pieces::COUNT; ++piece) {
                const KV *from = row + pieces::LANES * pieces::DIMS * piece;
                if constexpr (pieces::WORDS == 4) {
                    const uint4 words = load16(from);
                    value[i][piece][0] = words.x, value[i][piece][1] = words.y;
                    value[i][piece][2] = words.z, value[i][piece][3] = words.w;
                } else {
                    const uint2 words = load8(from);
                    value[i][piece][0] = words.x, value[i][piece][1] = words.y;
                }
            }
        }
    };

    const int step = splits * waves * TILE_KEYS;
    int first = (wave * splits + split) * TILE_KEYS;
    if (first < keys) load_keys(first), load_values(first);
    for (; first < keys; first += step) {
        // Scores of this lane's 4 keys, for its head of each block.
        float score[HEAD_BLOCKS][4];
        float product[2][4];
#pragma unroll
        for (int i = 0; i < 8; ++i) product[i / 4][i % 4] = 0.0f;
#pragma unroll
        for (int piece = 0; piece < K_PIECES; ++piece) {
#pragma unroll
            for (int half = 0; half < 4; half += 2) {
                if constexpr (WAVE == 32) {
                    const word_t *low = &query[0][piece][half];
                    const word_t *high = &query[HEAD_BLOCKS - 1][piece][half];
                    const bool both = HEAD_BLOCKS > 1;
                    const word_t a[4] = {low[0], both ? high[0] : 0, low[1], both ? high[1] : 0};
                    multiply_add<KV>(product[0], a, &key[0][piece][half], turn);
                    multiply_add<KV>(product[1], a, &key[K_ROWS - 1][piece][half], turn);
                } else {
                    multiply_add<KV>(product[0], &key[0][piece][half], &query[0][piece][half], turn);
                }
            }
        }
#pragma unroll
        for (int block = 0; block < HEAD_BLOCKS; ++block) {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const float x =
                    WAVE == 32 ? product[i / 2][2 * block + i % 2] : product[0][i];
                score[block][i] = first + lane_key(lane, i) < keys ? x * to_log2 : -INFINITY;
            }
        }
        const bool more = first + step < keys;
        if (more) load_keys(first + step);

        word_t weight[HEAD_BLOCKS][2];
#pragma unroll
        for (int block = 0; block < HEAD_BLOCKS; ++block) {
            float *s = score[block];
            const float highest = head_max(fmaxf(fmaxf(s[0], s[1]), fmaxf(s[2], s[3])));
            const float before = sums.maximum[block], now = fmaxf(before, highest);
            if (any_lane(now > before)) {
                const float factor = factor_of(before, now);
                sums.maximum[block] = now;
                sums.total[block] *= factor;
                scale_values(sums, block, factor, lane);
            }
            float p[4];
#pragma unroll
            for (int i = 0; i < 4; ++i) p[i] = factor_of(s[i], now);
            sums.total[block] += (p[0] + p[1]) + (p[2] + p[3]);
            weight[block][0] = half_words<KV>::of(p[0], p[1]);
            weight[block][1] = half_words<KV>::of(p[2], p[3]);
        }

#pragma unroll
        for (int piece = 0; piece < pieces::COUNT; ++piece) {
#pragma unroll
            for (int w = 0; w < pieces::WORDS; ++w) {
                const word_t v0 = value[0][piece][w], v1 = value[1][piece][w];
                const word_t v2 = value[2][piece][w], v3 = value[3][piece][w];
                const int m = pieces::WORDS * piece + w;
                // Rows of both dimensions of the word.
                const word_t a[4] = {lows(v0, v1), highs(v0, v1), lows(v2, v3), highs(v2, v3)};
                if constexpr (WAVE == 32) {
#pragma unroll
                    for (int block = 0; block < HEAD_BLOCKS; ++block) {
                        multiply_add<KV>(sums.values[block][m], a, weight[block], turn);
                    }
                } else {
                    const word_t even[2] = {a[0], a[2]}, odd[2] = {a[1], a[3]};
                    multiply_add<KV>(sums.values[0][2 * m], even, weight[0], turn);
                    multiply_add<KV>(sums.values[0][2 * m + 1], odd, weight[0], turn);
                }
            }
        }
        if (more) load_values(first + step);
    }
#pragma unroll
    for (int block = 0; block < HEAD_BLOCKS; ++block) sums.total[block] = head_sum(sums.total[block]);

    // Waves meet pairwise: the later half of those that are left hands its sums to the earlier.
    constexpr int EACH = HEAD_BLOCKS * (4 * TILES + 2);
    for (int left = waves; left > 1;) {
        const int half = (left + 1) / 2;
        if (wave >= half && wave < left) {
            float *slot = shared + (wave - half) * EACH * WAVE + lane;
#pragma unroll
            for (int block = 0; block < HEAD_BLOCKS; ++block) {
                *slot = sums.maximum[block], slot += WAVE;
                *slot = sums.total[block], slot += WAVE;
#pragma unroll
                for (int i = 0; i < 4 * TILES; ++i, slot += WAVE) *slot = sums.values[block][i / 4][i % 4];
            }
        }
        __syncthreads();
        if (wave + half < left) {
            const float *slot = shared + wave * EACH * WAVE + lane;
#pragma unroll
            for (int block = 0; block < HEAD_BLOCKS; ++block) {
                const float maximum = slot[0], total = slot[WAVE];
                slot += 2 * WAVE;
                const float now = fmaxf(sums.maximum[block], maximum);
                const float own = factor_of(sums.maximum[block], now);
                const float others = factor_of(maximum, now);
                sums.maximum[block] = now;
                sums.total[block] = sums.total[block] * own + total * others;
                float of[2];
                for (int e = 0; e < 2; ++e) of[e] = for_value(others, lane, e);
                scale_values(sums, block, own, lane);
#pragma unroll
                for (int i = 0; i < 4 * TILES; ++i, slot += WAVE) {
                    sums.values[block][i / 4][i % 4] += *slot * of[i & 1];
                }
            }
        }
        __syncthreads();
        left = half;
    }
    if (wave > 0) return;

    const index_t num_heads = (index_t)gridDim.x * group;
#pragma unroll
    for (int block = 0; block < HEAD_BLOCKS; ++block) {
        const float maximum = sums.maximum[block], total = sums.total[block];
        const int own = block * BLOCK_HEADS + lane_head(lane);
        if (lane_part(lane) == 0 && own < group) {
            const index_t row = b * num_heads + g * group + own;
            const float log_sum = (maximum + log2f(total)) * 0.693147180559945309417f;
            if (splits > 1) part_lse[row * splits + split] = log_sum;
            else if (lse) lse[row] = log_sum;
        }
        float of[2];
        for (int e = 0; e < 2; ++e) of[e] = for_value(total, lane, e);
#pragma unroll
        for (int m = 0; m < TILES; ++m) {
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                const int head = block * BLOCK_HEADS + value_head(lane, e);
                if (head >= group) continue;
                const int h = g * group + head, d = value_dim<HEAD_DIM>(lane, m, e);
                const float x = normalised(sums.values[block][m][e], of[e & 1]);
                if (splits > 1) part_out[((b * num_heads + h) * splits + split) * HEAD_DIM + d] = x;
                else out[b * out_stride_s + h * out_stride_h + d] = rounded<Out>::from(x);
            }
        }
    }
}
