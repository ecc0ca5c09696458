// decode_fast.hip: decode attention on the matrix cores, K and V read once for all heads of a group.
//
// Computes what decode_split does, for the attended keys n of sequence b, KV head g = h / group:
//   out[b,h,:] = sum_n exp(s_n - m) v[b,g,n,:] / l,   s_n = scale q[b,h,:] . k[b,g,n,:]
//   lse[b,h]   = m + log(l)         base e; out = 0 and lse = -inf where no key is attended
//
//   q        [batch, num_heads, HEAD_DIM]                  strides of 16 bytes, unit along HEAD_DIM
//   k, v     [batch, num_kv_heads, capacity, HEAD_DIM]     strides of 16 bytes, unit along HEAD_DIM
//   out      [batch, num_heads, HEAD_DIM]                  any strides, unit along HEAD_DIM
//   part_out [batch, num_heads, splits, HEAD_DIM] f32, part_stats [batch, num_heads, splits, 2] f32:
//            scratch, used where splits > 1
//   arrived  [batch, num_kv_heads] u32: zeros, and zeros again at the end
//   seq_lens [batch] i32    lse [batch, num_heads] f32 or null
//
// Algorithm: one block a (KV head, split, sequence), so that K and V are read once for a group of query
//   heads. A wave has every (waves * splits)-th tile of 16 keys, or of a stretch of keys that is its split's
//   alone every waves-th, and its own online softmax
//   (Milakov & Gimelshein, 2018); nothing is shared in the loop, not even a barrier. Scores come from the
//   matrix cores in the very registers in which P·V wants the weights (matrix.h), rounded to the type of
//   V. DEPTH tiles are under way in registers: a tile's K is asked for as soon as Q·K has used the one
//   before in its place, and V likewise. O is scaled anew only when a maximum of the wave rose.
//   At the end the waves' sums are put together through shared memory, by all threads, and those of the
//   splits by the block that arrives last, through memory. The order of all sums is fixed, so the same
//   case has the same bits.
// Launch:    grid (num_kv_heads, splits, batch), block (waves of the device) up to 8, 16 for HEAD_DIM 64.
//            Shared: room for the sums of `parts` waves: 4 * group * (parts * (HEAD_DIM + 6) + 8) + 16
//            bytes. The manifest's rule says what is best for a shape on a device.
// Requires:  HEAD_DIM 64, 128 or 256; HEADS 8 (at waves of 32) or 16; group <= HEADS; 1 <= parts <= waves.
//            16 rows of K or V lie within 2^31 elements. seq_lens[b] = 0 is legal. stretch: 0, or where
//            each split has a stretch of keys of its own how many they are of the longest sequence; early: tiles
//            of K and V, in turn, below `capacity`, that the cache is asked for, 4 at most, 0 where there is a window.
//
// History, each beside what it replaced in one run on an H100 (2026-11-26), microseconds, shapes of
// benches/shapes.json without llama8b_ (`attnbench bench OLD.toml NEW.toml --shapes …`):
//   waves put together all at once by all threads, splits by the last block, for waves pairwise and a
//     second launch                          b1_512 9.3 -> 5.7, b1_206 8.4 -> 5.5 (the former on an H200)
//   2^x by the instruction, rows put together by byte permutes, addresses kept, 80 KiB for all 8 waves of
//     16 heads                               b1_512 5.7 -> 5.2, gqa16 95.0 -> 94.2, smollm2 37.8 -> 37.1
//   the last parts in pairs, not eight       gqa16 93.2 -> 92.5, smollm2 37.0 -> 36.7
//   loads that bring 256 bytes to L2         b1_8k 16.0 -> 15.9, b256_1k 354.0 -> 352.2, smollm2 37.0 -> 36.5
//   blocks of 2 or 4 waves where 8 would leave some to a second turn
//                                            b64_4k 350.5 -> 347.3, mha_b8_4k 175.5 -> 173.9
//   two tiles under way, where blocks are many turns anyway     b256_1k 356.7 -> 353.9; else up to 3 % slower
//   L2 asked for the first two tiles of K and V (for the first of K alone where a wave has under 16) before
//     the length is known                    NHD: b8_8k 90.4 -> 88.4, gqa16 92.4 -> 91.6, smollm2 36.6 -> 35.9,
//                                            b1_8k 15.9 -> 15.5; for short or many turns of blocks it loses
//   each split its own stretch of keys, where rows follow each other
//                                            HND: gqa16 93.3 -> 91.8, b8_8k 90.5 -> 89.1, b1_128k 175.1 -> 176.8
//   parts put together with one division a row and not one a value, its logarithm beside it, two values a thread
//     for HEAD_DIM 64 (parts.h)               b1_512 5.3 -> 5.1, smollm2 35.9 -> 35.6, gqa16 91.6 -> 91.2
//   L2 asked for the first tiles one by one, without a loop, for HEAD_DIM 64
//                                            smollm2 35.6 -> 35.3, HND 35.1 -> 34.8; for 128 gqa16 91.7 -> 92.2
// And for what is right: f16 weights times 2^15 on AMD. v1 had them as they are, and gfx90a took those below
//   2^-14 for 0 in P·V alone: with peaked scores outside of the error bound. NVIDIA's code is the same to the byte.
// Lost:
//   plain or constant loads, for streaming   b1_512 5.2 -> 5.6, gqa16 93.2 -> 93.9
//   asking L2 for 6 tiles or more a wave, or all shapes for any    b8_8k 88.4 -> 92.8 at 16, b1_512 5.1 -> 5.7
//   each split its own stretch in NHD        gqa16 91.2 -> 92.0
//   a number taken before waves are put together, its last waiting for the others    b1_512 5.1 -> 5.5
//   L1 for what it is by default             gqa16 NHD 91.5 -> 94.2; 128 bytes or none to L2 are level now
//   rows of the sums turned, against bank conflicts             b1_512 5.05 -> 5.20
//   two tiles in a row a wave                own_b6_12k 99.6 -> 101.2
//   L2 asked in the loop for the tile after the next            smollm2 NHD 35.7 -> 43.4, HND 35.1 -> 38.6
//   two values a thread for HEAD_DIM 128     b1_512 5.1 -> 5.9, gqa16 91.5 -> 92.9
//   length and Q before L2 is asked, all addresses before the length is known   smollm2 NHD 35.7 -> 35.9, others level
//   7, 6, 4, and 10 waves (in 96 registers) for smollm2 NHD     36.5, 37.3, 40.7, 36.3
// What limits it there (hardware counters' samples, and bytes over the measured rate): above 100 MB of K
//   and V the memory: the loop of gqa16 reads at the rate of reading alone, and what is lost is 2 us until
//   the first data and 4 us to put 16 heads of 8 waves and 2 splits together. smollm2 in NHD: reading alone by
//   such blocks, rows of 128 bytes 384 apart, takes 34.6 to 34.9 us (HND: 34.3); the last block ends 1.7 us
//   after the median one, and its end takes 0.5 us. At 512 keys latency: half of the time is before the first
//   data. HEAD_DIM 256 on NVIDIA keeps 10 to 48 registers in local memory.
#include "matrix.h"
#include "parts.h"

// The first of 8 (or 4) dimensions of a row of V that a lane loads at once, and how many rows' pieces.
template <int HEAD_DIM> struct v_pieces {
    static constexpr int LANES = BLOCK_HEADS;
    static constexpr int DIMS = HEAD_DIM / LANES < 8 ? HEAD_DIM / LANES : 8;
    static constexpr int COUNT = HEAD_DIM / (LANES * DIMS), WORDS = DIMS / 2;
};

// What a wave has of its keys: of each head block the maximum of scores times log2(e), this lane's share
// of the sum of weights, and the sum of values, not normalised.
template <int HEAD_DIM, int HEAD_BLOCKS> struct wave_sums {
    static constexpr int TILES = HEAD_DIM / 16;
    float maximum[HEAD_BLOCKS], total[HEAD_BLOCKS], values[HEAD_BLOCKS][TILES][LANE_KEYS];
};

// The values of a lane are runs of DIMS dimensions of one head: element `j` of run `r` is values[m][e].
template <int HEAD_DIM> struct v_runs {
    typedef v_pieces<HEAD_DIM> pieces;
    static constexpr int EACH = IS_MMA ? 2 : LANE_KEYS, COUNT = EACH * pieces::COUNT;
    static __device__ __forceinline__ int head(int lane, int r) {
        return IS_MMA ? 2 * lane_part(lane) + r % 2 : lane_head(lane);
    }
    static __device__ __forceinline__ int dim(int lane, int r) {
        const int row = IS_MMA ? lane_head(lane) : lane_result(lane, r % EACH);
        return pieces::DIMS * (pieces::LANES * (r / EACH) + row);
    }
    static __device__ __forceinline__ int tile(int r, int j) {
        return IS_MMA ? 4 * (r / EACH) + j / 2 : pieces::DIMS * (r / EACH) + j;
    }
    static __device__ __forceinline__ int element(int r, int j) {
        return IS_MMA ? 2 * (j % 2) + r % 2 : r % EACH;
    }
};
// A number of each lane's head, as element `e` of the values wants it.
__device__ __forceinline__ float for_value(float x, int lane, int e) {
    return IS_MMA ? lane_from(x, 4 * (2 * lane_part(lane) + (e & 1))) : x;
}

// What a weight of 1 is where it is summed and where it multiplies V: on AMD in f16 as large a power of two as
// there is. why: gfx90a's matrix cores take f16 below 2^-14 for 0, in P·V and not in the sum of weights.
// The host computes as AMD does at waves of 64, as NVIDIA does at waves of 32.
template <typename KV> __device__ __forceinline__ constexpr float weight_of_1() {
    return half_words<KV>::is_f16 && !IS_MMA ? 32768.0f : 1.0f;
}

__device__ __forceinline__ float max_of_4(const float *x) {
    return fmaxf(fmaxf(x[0], x[1]), fmaxf(x[2], x[3]));
}

template <int HEAD_DIM, int HEAD_BLOCKS>
__device__ __forceinline__ void scale_values(
    wave_sums<HEAD_DIM, HEAD_BLOCKS> &sums, int block, float factor, int lane) {
    float of[2];
    for (int e = 0; e < 2; ++e) of[e] = for_value(factor, lane, e);
#pragma unroll
    for (int m = 0; m < HEAD_DIM / 16; ++m) {
#pragma unroll
        for (int e = 0; e < LANE_KEYS; ++e) sums.values[block][m][e] *= of[e & 1];
    }
}

template <int HEAD_DIM, int HEAD_BLOCKS>
__device__ __forceinline__ void put_part(
    const wave_sums<HEAD_DIM, HEAD_BLOCKS> &sums, const shared_rows<HEAD_DIM> &rows, int part,
    int lane) {
    typedef v_runs<HEAD_DIM> runs;
#pragma unroll
    for (int block = 0; block < HEAD_BLOCKS; ++block) {
        const int own = block * BLOCK_HEADS + lane_head(lane);
        if (lane_part(lane) == 0 && own < rows.group) {
            *rows.stat(part, own) = {sums.maximum[block], sums.total[block]};
        }
#pragma unroll
        for (int r = 0; r < runs::COUNT; ++r) {
            const int head = block * BLOCK_HEADS + runs::head(lane, r);
            if (head >= rows.group) continue;
            float4 *to = (float4 *)(rows.row(part, head) + runs::dim(lane, r));
#pragma unroll
            for (int j = 0; j < runs::pieces::DIMS; j += 4) {
                float x[4];
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    x[i] = sums.values[block][runs::tile(r, j + i)][runs::element(r, j + i)];
                }
                to[j / 4] = {x[0], x[1], x[2], x[3]};
            }
        }
    }
}

// Adds a part to a wave's own sums.
template <int HEAD_DIM, int HEAD_BLOCKS>
__device__ __forceinline__ void add_part(
    wave_sums<HEAD_DIM, HEAD_BLOCKS> &sums, const shared_rows<HEAD_DIM> &rows, int part, int lane) {
    typedef v_runs<HEAD_DIM> runs;
#pragma unroll
    for (int block = 0; block < HEAD_BLOCKS; ++block) {
        const int own = block * BLOCK_HEADS + lane_head(lane);
        float2 other = {-INFINITY, 0.0f};
        if (own < rows.group) other = *rows.stat(part, own);
        const float now = fmaxf(sums.maximum[block], other.x);
        const float factor = factor_of(sums.maximum[block], now);
        const float others = factor_of(other.x, now);
        sums.maximum[block] = now;
        sums.total[block] = sums.total[block] * factor + other.y * others;
        scale_values(sums, block, factor, lane);
        float of[2];
        for (int e = 0; e < 2; ++e) of[e] = for_value(others, lane, e);
#pragma unroll
        for (int r = 0; r < runs::COUNT; ++r) {
            const int head = block * BLOCK_HEADS + runs::head(lane, r);
            if (head >= rows.group) continue;
            const float *from = rows.row(part, head) + runs::dim(lane, r);
#pragma unroll
            for (int j = 0; j < runs::pieces::DIMS; ++j) {
                const int e = runs::element(r, j);
                sums.values[block][runs::tile(r, j)][e] += from[j] * of[e & 1];
            }
        }
    }
}

// Asks the cache for the rows from `first` on of a tile of K or V, as far as there are any, used or not.
template <int HEAD_DIM, typename KV>
__device__ __forceinline__ void ask_for_tile(
    const KV *rows, index_t stride_n, int first, int capacity, int lane) {
    constexpr int LANES = HEAD_DIM > 128 ? HEAD_DIM / 64 : 2;  // of a row, for at most 128 bytes each
    for (int r = lane / LANES; r < TILE_KEYS; r += WAVE / LANES) {
        if (first + r < capacity) ask_cache(rows + (first + r) * stride_n + lane % LANES * (HEAD_DIM / LANES));
    }
}

// Tiles of K and V, in turn, that the cache is asked for at most.
constexpr int MOST_EARLY = 4;

template <typename KV, typename Out, int HEAD_DIM, int HEADS, int DEPTH>
__global__ void __launch_bounds__((HEAD_DIM <= 64 ? MOST_WAVES : 8) * WAVE) decode_fast(
    const KV *q, const KV *k, const KV *v, Out *out, float *lse, float *part_out, float2 *part_stats,
    unsigned *arrived, const int *seq_lens, int group, int window_len, int parts, int stretch,
    int early, int capacity, float scale, index_t q_stride_s, index_t q_stride_h, index_t out_stride_s,
    index_t out_stride_h, index_t k_stride_s, index_t k_stride_h, index_t k_stride_n,
    index_t v_stride_s, index_t v_stride_h, index_t v_stride_n) {
    typedef v_pieces<HEAD_DIM> pieces;
    constexpr int HEAD_BLOCKS = (HEADS + BLOCK_HEADS - 1) / BLOCK_HEADS;
    constexpr int K_PIECES = HEAD_DIM / PIECE, TILES = HEAD_DIM / 16;
    // Whether the registers hold Q and the next tile's K and V beside O. Where O has half of them, Q is read
    // again for each tile, from the cache, and K and V take turns.
    constexpr bool SPACIOUS = HEAD_DIM < 256 || (WMMA == 0 && !(IS_MMA && HEADS > 8));
    // Tiles that they hold.
    constexpr int HELD = WMMA && HEAD_DIM > 64 ? 1 : DEPTH;
    extern __shared__ float shared[];
    const int g = blockIdx.x, split = blockIdx.y, splits = gridDim.y, b = blockIdx.z;
    const int wave = wave_of_block(), waves = blockDim.x / WAVE, lane = lane_of_wave();
    const int step = (stretch ? waves : splits * waves) * TILE_KEYS;
    int start = stretch ? split * stretch + wave * TILE_KEYS : (wave * splits + split) * TILE_KEYS;
    // Where the first tiles are is known before the length is, which takes as long to come as they do.
    if constexpr (ASKS_CACHE) {
        auto ask = [&](int i) {
            const KV *tile = i % 2 ? v + b * v_stride_s + g * v_stride_h : k + b * k_stride_s + g * k_stride_h;
            const index_t stride_n = i % 2 ? v_stride_n : k_stride_n;
            ask_for_tile<HEAD_DIM>(tile, stride_n, start + i / 2 * step, capacity, lane);
        };
        if constexpr (HEAD_DIM > 64) {
            for (int i = 0; i < early; ++i) ask(i);
        } else {
            // Each by itself: the first is asked for half as many instructions after the block's begin.
#pragma unroll
            for (int i = 0; i < MOST_EARLY; ++i) {
                if (i == early) break;
                ask(i);
            }
        }
    }
    const int end = seq_lens[b], begin = first_key(end, window_len), keys = end - begin;
    int stop = keys;
    if (stretch) {
        // why: of this sequence, whatever others of the batch are: the same sums in the same order.
        const int own = ((keys + TILE_KEYS - 1) / TILE_KEYS + splits - 1) / splits * TILE_KEYS;
        start = split * own + wave * TILE_KEYS;
        stop = min(keys, (split + 1) * own);
    }
    const float to_log2 = scale * 1.44269504088896340736f;
    int turn = 0;
    // Rows without heads. why: a zero that the compiler knows it writes anew before each instruction.
    const word_t none = (unsigned)group >> 31;

    q += b * q_stride_s + g * group * q_stride_h + lane_dim(lane);
    k += b * k_stride_s + g * k_stride_h + begin * k_stride_n + lane_dim(lane);
    v += b * v_stride_s + g * v_stride_h + begin * v_stride_n + pieces::DIMS * lane_head(lane);

    // Heads that are none are the last once more: nobody gets to see them.
    word_t query[HEAD_BLOCKS][K_PIECES][4];
    auto load_query = [&](int begin, int end, index_t offset) {
#pragma unroll
        for (int block = 0; block < HEAD_BLOCKS; ++block) {
            const int head = block * BLOCK_HEADS + lane_head(lane);
            const KV *row = q + (head < group ? head : group - 1) * q_stride_h + offset;
#pragma unroll
            for (int piece = begin; piece < end; ++piece) {
                const uint4 words = load16(row + PIECE * piece);
                query[block][piece][0] = words.x, query[block][piece][1] = words.y;
                query[block][piece][2] = words.z, query[block][piece][3] = words.w;
            }
        }
    };
    if (SPACIOUS) load_query(0, K_PIECES, 0);

    wave_sums<HEAD_DIM, HEAD_BLOCKS> sums;
#pragma unroll
    for (int block = 0; block < HEAD_BLOCKS; ++block) {
        sums.maximum[block] = -INFINITY, sums.total[block] = 0.0f;
#pragma unroll
        for (int m = 0; m < TILES; ++m) {
#pragma unroll
            for (int e = 0; e < LANE_KEYS; ++e) sums.values[block][m][e] = 0.0f;
        }
    }

    word_t keys_of[HELD][K_ROWS][K_PIECES][4], values_of[HELD][LANE_KEYS][pieces::COUNT][pieces::WORDS];
    // Rows past the last are read as the last once more: they get no weight.
    const int k_step = k_stride_n, v_step = v_stride_n;
    settle(k), settle(v);  // or their addresses would be computed anew in each turn
    auto load_keys = [&](int first, word_t (&key)[K_ROWS][K_PIECES][4]) {
        const KV *tile = k + first * k_stride_n;
        const int last = keys - 1 - first;
#pragma unroll
        for (int r = 0; r < K_ROWS; ++r) {
            const KV *row = tile + min(lane_row(lane, r), last) * k_step;
#pragma unroll
            for (int piece = 0; piece < K_PIECES; ++piece) {
                const uint4 words = load16(row + PIECE * piece);
                key[r][piece][0] = words.x, key[r][piece][1] = words.y;
                key[r][piece][2] = words.z, key[r][piece][3] = words.w;
            }
        }
    };
    auto load_values = [&](int first, word_t (&value)[LANE_KEYS][pieces::COUNT][pieces::WORDS]) {
        const KV *tile = v + first * v_stride_n;
        const int last = keys - 1 - first;
#pragma unroll
        for (int i = 0; i < LANE_KEYS; ++i) {
            const KV *row = tile + min(lane_key(lane, i), last) * v_step;
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

    if constexpr (SPACIOUS) {
#pragma unroll
        for (int d = 0; d < HELD; ++d) {
            if (start + d * step < stop) load_keys(start + d * step, keys_of[d]);
        }
#pragma unroll
        for (int d = 0; d < HELD; ++d) {
            if (start + d * step < stop) load_values(start + d * step, values_of[d]);
        }
    }
    auto attend = [&](int first, word_t (&key)[K_ROWS][K_PIECES][4],
                      word_t (&value)[LANE_KEYS][pieces::COUNT][pieces::WORDS]) {
        const int next = first + HELD * step;
        if constexpr (!SPACIOUS) load_keys(first, key);
        // Scores of this lane's keys, for its head of each block.
        float score[HEAD_BLOCKS][LANE_KEYS];
        float product[K_ROWS][LANE_KEYS];
#pragma unroll
        for (int r = 0; r < K_ROWS; ++r) {
#pragma unroll
            for (int i = 0; i < LANE_KEYS; ++i) product[r][i] = 0.0f;
        }
#pragma unroll
        for (int piece = 0; piece < K_PIECES; ++piece) {
            if (!SPACIOUS && piece % 4 == 0) {
                index_t zero = 0;
                settle(zero);  // or the compiler would read Q once for all
                load_query(piece, piece + 4, zero);
            }
#pragma unroll
            for (int half = 0; half < 4; half += LANE_WORDS) {
                if constexpr (IS_MMA) {
                    const word_t *low = &query[0][piece][half];
                    const word_t *high = &query[HEAD_BLOCKS - 1][piece][half];
                    const bool both = HEAD_BLOCKS > 1;
                    const word_t a[4] = {
                        low[0], both ? high[0] : none, low[1], both ? high[1] : none};
                    multiply_add<KV>(product[0], a, &key[0][piece][half], turn);
                    multiply_add<KV>(product[K_ROWS - 1], a, &key[K_ROWS - 1][piece][half], turn);
                } else {
                    multiply_add<KV>(product[0], &key[0][piece][half], &query[0][piece][half], turn);
                }
            }
        }
        settle(product[0][0]);  // the next K goes where this one was
#pragma unroll
        for (int block = 0; block < HEAD_BLOCKS; ++block) {
#pragma unroll
            for (int i = 0; i < LANE_KEYS; ++i) {
                const float x =
                    IS_MMA ? product[i / 2][2 * block + i % 2] : product[0][i];
                score[block][i] = lane_key(lane, i) < keys - first ? x * to_log2 : -INFINITY;
            }
        }
        if constexpr (!SPACIOUS) load_values(first, value);
        else if (next < stop) load_keys(next, key);

        word_t weight[HEAD_BLOCKS][LANE_WORDS];
#pragma unroll
        for (int block = 0; block < HEAD_BLOCKS; ++block) {
            float *s = score[block];
            float highest = max_of_4(s);
            if constexpr (LANE_KEYS == 8) highest = fmaxf(highest, max_of_4(s + 4));
            highest = head_max(highest);
            const float before = sums.maximum[block], now = fmaxf(before, highest);
            // Where no key has weight yet, a maximum of -inf would make NaN of it.
            const float base = now == -INFINITY ? 0.0f : now;
            if (any_lane(now > before)) {
                const float factor = power_of_2(before - base);
                sums.maximum[block] = now;
                sums.total[block] *= factor;
                scale_values(sums, block, factor, lane);
            }
#pragma unroll
            for (int i = 0; i < LANE_KEYS; i += 4) {
                float p[4];
#pragma unroll
                for (int e = 0; e < 4; ++e) p[e] = power_of_2(s[i + e] - base) * weight_of_1<KV>();
                sums.total[block] += (p[0] + p[1]) + (p[2] + p[3]);
                weight[block][i / 2] = half_words<KV>::of(p[0], p[1]);
                weight[block][i / 2 + 1] = half_words<KV>::of(p[2], p[3]);
            }
        }

#pragma unroll
        for (int piece = 0; piece < pieces::COUNT; ++piece) {
#pragma unroll
            for (int w = 0; w < pieces::WORDS; ++w) {
                const int m = pieces::WORDS * piece + w;
                // Rows of both dimensions of the word.
                word_t even[LANE_WORDS], odd[LANE_WORDS];
#pragma unroll
                for (int i = 0; i < LANE_WORDS; ++i) {
                    const word_t v0 = value[2 * i][piece][w], v1 = value[2 * i + 1][piece][w];
                    even[i] = lows(v0, v1), odd[i] = highs(v0, v1);
                }
                if constexpr (IS_MMA) {
                    const word_t a[4] = {even[0], odd[0], even[1], odd[1]};
#pragma unroll
                    for (int block = 0; block < HEAD_BLOCKS; ++block) {
                        multiply_add<KV>(sums.values[block][m], a, weight[block], turn);
                    }
                } else {
                    multiply_add<KV>(sums.values[0][2 * m], even, weight[0], turn);
                    multiply_add<KV>(sums.values[0][2 * m + 1], odd, weight[0], turn);
                }
            }
        }
        if (SPACIOUS && next < stop) load_values(next, value);
    };
    for (; start < stop; start += HELD * step) {
#pragma unroll
        for (int d = 0; d < HELD; ++d) {
            if (d == 0 || start + d * step < stop) attend(start + d * step, keys_of[d], values_of[d]);
        }
    }
#pragma unroll
    for (int block = 0; block < HEAD_BLOCKS; ++block) sums.total[block] = head_sum(sums.total[block]);

    const shared_rows<HEAD_DIM> rows(shared, group, parts);
    const int left = gather_waves(sums, rows, wave, waves, lane);
    const index_t head_of_group = (index_t)b * gridDim.x * group + g * group;
    put_split(
        rows, left, out, lse, part_out, part_stats, split, splits, b, head_of_group, g * group, HEAD_DIM,
        out_stride_s, out_stride_h, 1.0f / weight_of_1<KV>());
    if (splits == 1) return;
    if (!arrives_last(arrived, g, b, splits, (int *)rows.end())) return;
    join_splits<HEAD_DIM>(
        group, out, lse, part_out, part_stats, splits, b, head_of_group, g * group, HEAD_DIM,
        out_stride_s, out_stride_h, 1.0f / weight_of_1<KV>());
}
