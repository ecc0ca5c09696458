// decode_vector.hip: decode attention on the vector units, K and V read once for the heads of a group.
//
// For devices without matrix cores, and for f32. Computes what decode_fast does, with weights that stay f32,
// for the attended keys n of sequence b, KV head g = h / group:
//   out[b,h,:] = sum_n exp(s_n - m) v[b,g,n,:] / l,   s_n = scale q[b,h,:] . k[b,g,n,:]
//   lse[b,h]   = m + log(l)         base e; out = 0 and lse = -inf where no key is attended
//
//   q        [batch, num_heads, head_dim]                  strides of 16 bytes, unit along head_dim
//   k, v     [batch, num_kv_heads, capacity, head_dim]     strides of 16 bytes, unit along head_dim
//   out      [batch, num_heads, head_dim]                  strides of 16 bytes, unit along head_dim
//   part_out [batch, num_heads, splits, DIMS] f32, part_stats [batch, num_heads, splits, 2] f32:
//            scratch, used where splits > 1
//   arrived  [batch, num_kv_heads * head_blocks] u32: zeros, and zeros again at the end
//   seq_lens [batch] i32    lse [batch, num_heads] f32 or null
//
// Algorithm: one block a (KV head, split, sequence), or one a block of up to 8 query heads where the group has
//   more: then K and V are read once for each. Wave w of split s has every (waves * splits)-th tile of keys,
//   and its own online softmax (Milakov & Gimelshein, 2018); no barrier of the block is in the loop.
//   A wave's lanes stand in rows: the lanes of a row have 8 dimensions each, of Q, of O, of the K and V they
//   load by 16 bytes. A tile is ROWS keys a row of lanes. What a tile does:
//     1. Each lane multiplies its part of ROWS rows of K by its part of Q: HEADS * ROWS partial scores.
//     2. The lanes of a row add them up by halving: a lane keeps half of its numbers, hands its neighbour the
//        other half and adds what it is handed, until each has its own scores, and nobody has another's.
//     3. Each lane computes the weights of its scores, once in the row, and puts them into shared memory.
//     4. Each lane multiplies its part of ROWS rows of V by the row's weights. Rows of lanes have O apart.
//   The next tile's K is asked for after 1, its V after 4. O is scaled anew only when a maximum of the wave
//   rose. At the end the rows of lanes add up O, by halving too; then waves and splits as in decode_fast
//   (parts.h). The order of all sums is fixed, so the same case has the same bits.
// Launch:    grid (num_kv_heads * head_blocks, splits, batch), block (waves of the device) up to 8. Shared: room
//            for the sums of `parts` waves: 4 * heads * (parts * (DIMS + 6) + 8) + 16 bytes, where `heads` =
//            ceil(group / head_blocks) are the heads of a block. Static beside it: the weights.
// Requires:  DIMS 64, 128 or 256; head_dim a multiple of 8 up to DIMS, and FULL where it is DIMS; HEADS 1, 2, 4
//            or 8, heads <= HEADS, a head in each block; 1 <= parts <= waves; rows of K and V less than 2^26 bytes
//            apart.
//            seq_lens[b] = 0 is legal.
// History:   v1 read as many rows of K a lane at waves of 64 as at 32: up to 55 registers did not fit with 8 heads
//            (attnbench inspect kernels/decode_vector.toml --arch gfx942).
#include "parts.h"

// Waves of a block at most.
constexpr int MOST_WAVES = 8;

// What a lane has.
template <typename KV, int DIMS, int HEADS> struct lane_shape {
    // Its dimensions of a row of K; lanes of a row; rows of lanes of a wave.
    static constexpr int OWN = 8, LANES = DIMS / OWN, LANE_ROWS = WAVE / LANES;
    // Elements of 16 bytes; pieces of 16 bytes that its dimensions lie in, LANES * VECTOR elements apart.
    static constexpr int VECTOR = 16 / sizeof(KV), PIECES = OWN / VECTOR;
    // Rows of K (and of V) of a tile: 4 KiB for the wave, or 2 where Q and O leave no more registers, and 4
    // scores at least.
    static constexpr int LOADS = (HEADS <= 2 ? 4096 : 2048) / (16 * WAVE), LEAST = HEADS < 4 ? 4 / HEADS : 1;
    static constexpr int ROWS = LOADS / PIECES > LEAST ? LOADS / PIECES : LEAST;
    static constexpr int TILE_KEYS = LANE_ROWS * ROWS;
    // Scores of a row of lanes; those of them that a lane has in the end; lanes that have the same one.
    static constexpr int SCORES = HEADS * ROWS, LEFT = SCORES > LANES ? SCORES / LANES : 1;
    static constexpr int SAME = LANES > SCORES ? LANES / SCORES : 1;
    // Lanes of a row that have scores of the same head, those of lane l: of head l % LANES / HEAD_LANES.
    static constexpr int HEAD_LANES = LANES / HEADS;
    // Values of O that it has in the end.
    static constexpr int VALUES = HEADS * OWN / LANE_ROWS;
    // Floats of shared memory for the weights of a row of lanes. why: 4 more, for other banks.
    static constexpr int WEIGHTS = SCORES + 4;

    // The first element of a piece.
    static __device__ __forceinline__ int dim(int lane, int piece) {
        return VECTOR * (LANES * piece + lane % LANES);
    }
    // Of number `i` of a lane's HEADS * OWN values of O: its dimension.
    static __device__ __forceinline__ int value_dim(int lane, int i) {
        return dim(lane, i % OWN / VECTOR) + i % VECTOR;
    }
};

// Adds up N numbers over the lanes that differ in the bits MASK, MASK / 2, ... LAST of lane, by halving: of two
// lanes that differ in a bit one keeps the first half of its numbers, the other the second half; the last
// number both keep. In the end a lane has max(1, N / lanes) sums, from number (those bits of lane) * N / lanes on.
template <int N, int MASK, int LAST>
__device__ __forceinline__ void add_halving(float *x, int lane) {
    if constexpr (MASK >= LAST) {
        constexpr int KEPT = N > 1 ? N / 2 : 1;
#pragma unroll
        for (int i = 0; i < KEPT; ++i) {
            const float low = x[i], high = x[N - KEPT + i];
            const float kept = lane & MASK ? high : low, given = lane & MASK ? low : high;
            x[i] = kept + lane_swap<MASK>(given);
        }
        add_halving<KEPT, MASK / 2, LAST>(x, lane);
    }
}

// Reduces a number over the lanes that differ in the bits MASK, 2 MASK, ... below END of lane.
template <int MASK, int END, typename Op>
__device__ __forceinline__ float over_lanes(float x, Op op) {
    if constexpr (MASK < END) {
        return over_lanes<2 * MASK, END>(op(x, lane_swap<MASK>(x)), op);
    } else {
        return x;
    }
}

// What a wave has of its keys: the maximum of scores times log2(e), and of the sum of weights this lane's share,
// both of the lane's head; and its share of the sums of values, number head * OWN + i. After the loop `total`
// is whole, and the values are VALUES of those numbers, whole too, from lane row * VALUES on.
template <typename KV, int DIMS, int HEADS> struct vector_sums {
    typedef lane_shape<KV, DIMS, HEADS> shape;
    float maximum, total, values[HEADS * shape::OWN];
};

// What the lanes of a head have for it.
template <typename Shape> __device__ __forceinline__ float of_head(float x, int head) {
    return lane_from(x, head * Shape::HEAD_LANES);
}

template <typename KV, int DIMS, int HEADS>
__device__ __forceinline__ void put_part(
    const vector_sums<KV, DIMS, HEADS> &sums, const shared_rows<DIMS> &rows, int part, int lane) {
    typedef lane_shape<KV, DIMS, HEADS> shape;
    const int own = lane / shape::HEAD_LANES, first = lane / shape::LANES * shape::VALUES;
    if (lane % shape::HEAD_LANES == 0 && own < rows.group) {  // so in the first row of lanes
        *rows.stat(part, own) = {sums.maximum, sums.total};
    }
#pragma unroll
    for (int j = 0; j < shape::VALUES; j += shape::VALUES < 4 ? 1 : 4) {
        const int head = (first + j) / shape::OWN;
        if (head >= rows.group) continue;
        float *to = rows.row(part, head) + shape::value_dim(lane, first + j);
        if constexpr (shape::VALUES < 4) {
            *to = sums.values[j];
        } else {
            *(float4 *)to = {
                sums.values[j], sums.values[j + 1], sums.values[j + 2], sums.values[j + 3]};
        }
    }
}

// Adds a part to a wave's own sums.
template <typename KV, int DIMS, int HEADS>
__device__ __forceinline__ void add_part(
    vector_sums<KV, DIMS, HEADS> &sums, const shared_rows<DIMS> &rows, int part, int lane) {
    typedef lane_shape<KV, DIMS, HEADS> shape;
    const int own = lane % shape::LANES / shape::HEAD_LANES;
    const int first = lane / shape::LANES * shape::VALUES;
    float2 other = {-INFINITY, 0.0f};
    if (own < rows.group) other = *rows.stat(part, own);
    const float now = fmaxf(sums.maximum, other.x);
    const float factor = factor_of(sums.maximum, now), others = factor_of(other.x, now);
    sums.maximum = now;
    sums.total = sums.total * factor + other.y * others;
#pragma unroll
    for (int j = 0; j < shape::VALUES; ++j) {
        const int head = (first + j) / shape::OWN;
        const float mine = of_head<shape>(factor, head), its = of_head<shape>(others, head);
        if (head >= rows.group) continue;
        const float value = rows.row(part, head)[shape::value_dim(lane, first + j)];
        sums.values[j] = sums.values[j] * mine + value * its;
    }
}

// why: with f32 and 4 heads NVIDIA's compiler spills a few registers to have two blocks in a multiprocessor.
template <typename KV, typename Out, int DIMS, int HEADS, bool FULL>
__global__ void __launch_bounds__(
    MOST_WAVES * WAVE, sizeof(KV) == 4 && HEADS == 4 ? 1 : 0) decode_vector(
    const KV *q, const KV *k, const KV *v, Out *out, float *lse, float *part_out, float2 *part_stats,
    unsigned *arrived, const int *seq_lens, int group, int head_blocks, int head_dim, int window_len,
    int parts, float scale, index_t q_stride_s, index_t q_stride_h, index_t out_stride_s,
    index_t out_stride_h, index_t k_stride_s, index_t k_stride_h, index_t k_stride_n,
    index_t v_stride_s, index_t v_stride_h, index_t v_stride_n) {
    typedef lane_shape<KV, DIMS, HEADS> shape;
    constexpr int OWN = shape::OWN, PIECES = shape::PIECES, VECTOR = shape::VECTOR;
    constexpr int ROWS = shape::ROWS, SCORES = shape::SCORES, LEFT = shape::LEFT;
    constexpr int LANES = shape::LANES, HEAD_LANES = shape::HEAD_LANES, SAME = shape::SAME;
    extern __shared__ float shared[];
    __shared__ __align__(16) float weights[MOST_WAVES][shape::LANE_ROWS][shape::WEIGHTS];
    const int g = blockIdx.x / head_blocks, split = blockIdx.y, splits = gridDim.y, b = blockIdx.z;
    const int wave = same_in_wave(threadIdx.x / WAVE), waves = blockDim.x / WAVE;
    const int lane = lane_of_wave(), lane_row = lane / LANES;
    const int end = seq_lens[b], begin = first_key(end, window_len), keys = end - begin;
    const float to_log2 = scale * 1.44269504088896340736f;
    const int row_dim = FULL ? DIMS : head_dim;
    // The heads of this block.
    const int most_heads = (group + head_blocks - 1) / head_blocks;
    const int first_head = g * group + blockIdx.x % head_blocks * most_heads;
    const int heads = min(most_heads, (g + 1) * group - first_head);

    // Whether the row has this lane's piece: what is none counts as zeros.
    bool has[PIECES];
#pragma unroll
    for (int p = 0; p < PIECES; ++p) has[p] = FULL || shape::dim(lane, p) < row_dim;
    // A lane's 8 numbers of a row, as they were loaded.
    struct own_words { uint4 piece[PIECES]; };
    auto load = [&](const char *row) {
        own_words x;
#pragma unroll
        for (int p = 0; p < PIECES; ++p) {
            x.piece[p] = load16(row + (has[p] ? sizeof(KV) * shape::dim(lane, p) : 0));
        }
        return x;
    };
    auto unpack = [&](const own_words &words, float (&x)[OWN]) {
#pragma unroll
        for (int p = 0; p < PIECES; ++p) {
            const uint4 none = {0, 0, 0, 0}, piece = has[p] ? words.piece[p] : none;
            const KV *elements = (const KV *)&piece;
#pragma unroll
            for (int i = 0; i < VECTOR; ++i) x[VECTOR * p + i] = to_float(elements[i]);
        }
    };

    // Heads that are none are the last once more: nobody gets to see them.
    float query[HEADS][OWN];
#pragma unroll
    for (int h = 0; h < HEADS; ++h) {
        const int head = first_head + min(h, heads - 1);
        unpack(load((const char *)(q + b * q_stride_s + head * q_stride_h)), query[h]);
    }
    vector_sums<KV, DIMS, HEADS> sums;
    sums.maximum = -INFINITY, sums.total = 0.0f;
#pragma unroll
    for (int i = 0; i < HEADS * OWN; ++i) sums.values[i] = 0.0f;

    k += b * k_stride_s + g * k_stride_h + begin * k_stride_n;
    v += b * v_stride_s + g * v_stride_h + begin * v_stride_n;
    // Bytes from a row to the next. Row r of a tile for this row of lanes is row r * LANE_ROWS + lane_row;
    // rows past the last are read as the last once more: they get no weight.
    const int k_step = sizeof(KV) * k_stride_n, v_step = sizeof(KV) * v_stride_n;
    const int k_row = lane_row * k_step, v_row = lane_row * v_step;
    auto load_rows = [&](const KV *tile, int step, int lane_offset, int last, own_words (&rows)[ROWS]) {
#pragma unroll
        for (int r = 0; r < ROWS; ++r) {
            const unsigned offset = min(lane_offset + r * shape::LANE_ROWS * step, last * step);
            rows[r] = load((const char *)tile + offset);
        }
    };
    own_words keys_of[ROWS], values_of[ROWS];
    auto load_keys = [&](int first) {
        load_rows(k + first * k_stride_n, k_step, k_row, min(shape::TILE_KEYS, keys - first) - 1, keys_of);
    };
    auto load_values = [&](int first) {
        load_rows(v + first * v_stride_n, v_step, v_row, min(shape::TILE_KEYS, keys - first) - 1, values_of);
    };

    // Where the scores that this lane has in the end belong: number own_score + j is head * ROWS + row.
    const int own_score = lane % LANES * SCORES / LANES;
    float *row_weights = weights[wave][lane_row];
    const int step = splits * waves * shape::TILE_KEYS;
    int first = (wave * splits + split) * shape::TILE_KEYS;
    if (first < keys) load_keys(first), load_values(first);
    for (; first < keys; first += step) {
        const int next = first + step;
        float score[SCORES];
#pragma unroll
        for (int r = 0; r < ROWS; ++r) {
            float x[OWN];
            unpack(keys_of[r], x);
#pragma unroll
            for (int h = 0; h < HEADS; ++h) {
                float dot = query[h][0] * x[0];
#pragma unroll
                for (int i = 1; i < OWN; ++i) dot += query[h][i] * x[i];
                score[h * ROWS + r] = dot;
            }
        }
        if (next < keys) load_keys(next);

        add_halving<SCORES, LANES / 2, 1>(score, lane);
        float highest = -INFINITY;
#pragma unroll
        for (int j = 0; j < LEFT; ++j) {
            const int key = first + (own_score + j) % ROWS * shape::LANE_ROWS + lane_row;
            score[j] = key < keys ? score[j] * to_log2 : -INFINITY;
            highest = fmaxf(highest, score[j]);
        }
        highest = over_lanes<SAME, HEAD_LANES>(highest, take_max());
        highest = over_lanes<LANES, WAVE>(highest, take_max());
        const float before = sums.maximum, now = fmaxf(before, highest);
        // Where no key has weight yet, a maximum of -inf would make NaN of it.
        const float base = now == -INFINITY ? 0.0f : now;
        if (any_lane(now > before)) {
            const float factor = power_of_2(before - base);
            sums.maximum = now;
            sums.total *= factor;
#pragma unroll
            for (int h = 0; h < HEADS; ++h) {
                const float of = of_head<shape>(factor, h);
#pragma unroll
                for (int i = 0; i < OWN; ++i) sums.values[h * OWN + i] *= of;
            }
        }
        // In shared memory in the order in which they are used: row * HEADS + head.
        float weight[SCORES];
#pragma unroll
        for (int j = 0; j < LEFT; ++j) {
            const int own = own_score + j;
            weight[j] = power_of_2(score[j] - base);
            sums.total += weight[j];
            if (lane % SAME == 0) row_weights[own % ROWS * HEADS + own / ROWS] = weight[j];
        }
        wave_sync();
#pragma unroll
        for (int i = 0; i < SCORES; i += 4) {
            const float4 four = *(const float4 *)(row_weights + i);
            weight[i] = four.x, weight[i + 1] = four.y, weight[i + 2] = four.z, weight[i + 3] = four.w;
        }
#pragma unroll
        for (int r = 0; r < ROWS; ++r) {
            float x[OWN];
            unpack(values_of[r], x);
#pragma unroll
            for (int h = 0; h < HEADS; ++h) {
#pragma unroll
                for (int i = 0; i < OWN; ++i) sums.values[h * OWN + i] += weight[r * HEADS + h] * x[i];
            }
        }
        wave_sync();  // all have read the weights
        if (next < keys) load_values(next);
    }
    sums.total = over_lanes<SAME, HEAD_LANES>(sums.total, take_sum());
    sums.total = over_lanes<LANES, WAVE>(sums.total, take_sum());
    add_halving<HEADS * OWN, WAVE / 2, LANES>(sums.values, lane);

    const shared_rows<DIMS> rows(shared, heads, parts);
    const int left = gather_waves(sums, rows, wave, waves, lane);
    const index_t num_heads = gridDim.x / head_blocks * group, head_of_all = b * num_heads + first_head;
    put_split(
        rows, left, out, lse, part_out, part_stats, split, splits, b, head_of_all, first_head, row_dim,
        out_stride_s, out_stride_h);
    if (splits == 1) return;
    if (!arrives_last(arrived, blockIdx.x, b, splits, (int *)rows.end())) return;
    join_splits<DIMS>(
        heads, out, lse, part_out, part_stats, splits, b, head_of_all, first_head, row_dim, out_stride_s,
        out_stride_h);
}
