// matrix.h: the matrix cores as decode attention uses them, on AMD, on NVIDIA, and by hand.
//
// Two products, each of 16 keys, for blocks of query heads:
//   scores_of   S[head, key] += sum_d Q[head, d] K[key, d]     over a piece of the dimensions
//   values_of   O[head, dim] += sum_key P[head, key] V[key, dim]
// What a lane holds is chosen so that the result of the first is an operand of the second as it lies in
// the registers, and that K and V come from memory in pieces of 16 bytes, without shared memory:
//
//                      NVIDIA m16n8k16           AMD MFMA 16x16x16         AMD WMMA 16x16x16
//   lanes of a wave    32                        64                        32
//   heads a block      8                         16                        16
//   head of a lane     lane / 4                  lane % 16                 lane % 16
//   its part t         lane % 4                  lane / 16                 lane / 16
//   its of 16 keys     2 t, 2 t + 1,             4 t + (0..3)              gfx12: 8 t + (0..7)
//                      2 t + 8, 2 t + 9                                    gfx11: t + 2 (0..7)
//   K                  16 bytes of rows          16 bytes of               the same
//                      lane / 4 and + 8          row lane % 16
//   V                  16 bytes of rows of its   the same                  the same
//                      keys
//
// Which dimension meets which index of a contraction is free as long as both operands agree: a lane takes
// 8 dimensions in a row of Q and of K, and feeds two instructions with 4 of them each, or one with all 8.
// So too for the keys of P and V, whose order is that of the scores. gfx11 wants the operands whole in both
// halves of a wave: the halves hand each other theirs just before the instruction, so that a lane holds, and
// loads, no more than on gfx12.
//
// By hand: where there is no such instruction (the host; AMD's RDNA before gfx11), the lanes put their
// operands into shared memory and each computes its elements of the result, in f32, which holds the
// products exactly. The fragments are those of the instructions, to the register: of MFMA at waves of 64, of
// NVIDIA at waves of 32, or with MATRIX_BY_HAND_WMMA = 11 or 12 those of WMMA on gfx11 or gfx12.
#pragma once
#include "portable.h"

typedef unsigned int word_t;  // two elements of 16 bits, the first one low

#if defined(__CUDACC__) || defined(__CUDACC_RTC__)
#define MATRIX_MMA
#elif defined(__gfx90a__) || defined(__gfx940__) || defined(__gfx941__) || defined(__gfx942__) || \
    defined(__gfx950__)
#define MATRIX_MFMA
#elif defined(__GFX11__)
#define MATRIX_WMMA 11
#define MATRIX_WMMA_OF(type) __builtin_amdgcn_wmma_f32_16x16x16_##type##_w32
#elif defined(__gfx1200__) || defined(__gfx1201__)
#define MATRIX_WMMA 12
#define MATRIX_WMMA_OF(type) __builtin_amdgcn_wmma_f32_16x16x16_##type##_w32_gfx12
#endif
#if !defined(MATRIX_MMA) && !defined(MATRIX_MFMA) && !defined(MATRIX_WMMA)
#define MATRIX_BY_HAND
#endif

// Whose fragments these are: AMD's WMMA of a generation, or none of them; NVIDIA's, or one of AMD's.
#if defined(MATRIX_WMMA)
constexpr int WMMA = MATRIX_WMMA;
#elif defined(MATRIX_BY_HAND_WMMA)
constexpr int WMMA = WAVE == 32 ? MATRIX_BY_HAND_WMMA : 0;
#else
constexpr int WMMA = 0;
#endif
constexpr bool IS_MMA = WAVE == 32 && WMMA == 0;

// Waves of a block at most.
constexpr int MOST_WAVES = 16;
// Keys of a tile, and those of them that a lane has; so many elements has its share of a result.
constexpr int TILE_KEYS = 16, LANE_KEYS = WMMA ? 8 : 4;
// Words of an operand of 16 x 16 that a lane has, but for NVIDIA's left one, which has two rows of them.
constexpr int LANE_WORDS = LANE_KEYS / 2;
// Lanes with the same head; heads that one block of heads has.
constexpr int PARTS = TILE_KEYS / LANE_KEYS, BLOCK_HEADS = WAVE / PARTS;
// Dimensions of a piece of K; rows of K of a tile that a lane loads.
constexpr int PIECE = 8 * PARTS, K_ROWS = TILE_KEYS / BLOCK_HEADS;

// The wave's number; on WMMA as one that is the same in all lanes, or there would not be registers enough.
__device__ __forceinline__ int wave_of_block() {
#if defined(MATRIX_WMMA)
    return same_in_wave(threadIdx.x / WAVE);
#else
    return threadIdx.x / WAVE;
#endif
}

// The head of a lane within a block of heads.
__device__ __forceinline__ int lane_head(int lane) { return IS_MMA ? lane / 4 : lane % 16; }
// Its place among the lanes with the same head, below PARTS.
__device__ __forceinline__ int lane_part(int lane) { return IS_MMA ? lane % 4 : lane / 16; }
// On AMD: the row of element `i` of a result, below LANE_KEYS.
__device__ __forceinline__ int lane_result(int lane, int i) {
    const int t = lane_part(lane);
    return WMMA == 11 ? t + 2 * i : LANE_KEYS * t + i;
}
// The key of a tile that its score `i`, below LANE_KEYS, belongs to.
__device__ __forceinline__ int lane_key(int lane, int i) {
    const int t = lane_part(lane);
    return IS_MMA ? 2 * t + (i & 1) + 8 * (i >> 1) : lane_result(lane, i);
}
// The row of K of a tile that it loads, `r` below K_ROWS; and its first dimension of a piece.
__device__ __forceinline__ int lane_row(int lane, int r) { return lane_head(lane) + 8 * r; }
__device__ __forceinline__ int lane_dim(int lane) { return 8 * lane_part(lane); }

// Over the lanes with the same head: the maximum, and the sum.
__device__ __forceinline__ float head_max(float x) {
    constexpr int step = IS_MMA ? 1 : 16;
    x = fmaxf(x, lane_xor(x, step));
    return PARTS == 2 ? x : fmaxf(x, lane_xor(x, 2 * step));
}
__device__ __forceinline__ float head_sum(float x) {
    constexpr int step = IS_MMA ? 1 : 16;
    x += lane_xor(x, step);
    return PARTS == 2 ? x : x + lane_xor(x, 2 * step);
}

// Two numbers rounded into one word, and one element of a word.
template <typename T> struct half_words;
template <> struct half_words<__half> {
    static constexpr bool is_f16 = true;
    static __device__ __forceinline__ word_t of(float a, float b) {
        return __half_as_ushort(__float2half(a)) | (word_t)__half_as_ushort(__float2half(b)) << 16;
    }
    static __device__ __forceinline__ float low(word_t w) {
        return __half2float(__ushort_as_half((unsigned short)w));
    }
};
template <> struct half_words<__hip_bfloat16> {
    static constexpr bool is_f16 = false;
    static __device__ __forceinline__ word_t of(float a, float b) {
        return bits(a) | (word_t)bits(b) << 16;
    }
    static __device__ __forceinline__ float low(word_t w) { return __uint_as_float(w << 16); }
    static __device__ __forceinline__ unsigned short bits(float x) {
        return __bfloat16_as_ushort(__float2bfloat16(x));
    }
};

// The low, and the high, elements of two words in one.
__device__ __forceinline__ word_t lows(word_t a, word_t b) {
#if defined(MATRIX_MMA)
    return __byte_perm(a, b, 0x5410);
#elif defined(MATRIX_WMMA)
    return __builtin_amdgcn_perm(b, a, 0x05040100);
#else
    return (a & 0xffffu) | b << 16;
#endif
}
__device__ __forceinline__ word_t highs(word_t a, word_t b) {
#if defined(MATRIX_MMA)
    return __byte_perm(a, b, 0x7632);
#elif defined(MATRIX_WMMA)
    return __builtin_amdgcn_perm(b, a, 0x07060302);
#else
    return a >> 16 | (b & 0xffff0000u);
#endif
}

// Has the compiler for WMMA know a value here, neither earlier (out of a loop) nor later (past loads): what
// it moves costs registers that are not there.
template <typename T> __device__ __forceinline__ void settle(T &x) {
#if defined(MATRIX_MMA)
    if constexpr (sizeof(T) == 8) asm volatile("" : "+l"(x));
#elif defined(MATRIX_WMMA)
    asm volatile("" : "+v"(x));
#else
    (void)x;
#endif
}

__device__ __forceinline__ uint2 load8(const void *from) { return *(const uint2 *)from; }

#if defined(MATRIX_BY_HAND)
// What the lanes of a wave hand each other, in elements of 16 bits, b by columns: twice, so that nobody
// writes what is still read.
struct alignas(16) handed_operands { unsigned short a[16][16], b[16][16]; };
__device__ __forceinline__ handed_operands *handed() {
    __shared__ handed_operands of_waves[MOST_WAVES][2];
    return of_waves[threadIdx.x / WAVE];
}
// Two elements into their places of a row or a column; side by side but on gfx11.
__device__ __forceinline__ void hand(unsigned short *to, int k, int next, word_t two) {
    if (WMMA == 11) {
        to[k] = (unsigned short)two;
        to[next] = (unsigned short)(two >> 16);
    } else {
        *(word_t *)(to + k) = two;
    }
}
// x plus the products of two elements.
template <typename T> __device__ __forceinline__ float add_products(float x, word_t a, word_t b) {
    x += half_words<T>::low(a) * half_words<T>::low(b);
    return x + half_words<T>::low(a >> 16) * half_words<T>::low(b >> 16);
}

// On the host these two stand for an instruction: a checker has no business with what is in them, and would
// take as long over them as over all the rest.
#if defined(__AMDGCN__)
#define IN_ONE_INSTRUCTION __device__ __forceinline__
#else
#define IN_ONE_INSTRUCTION \
    static __device__ __attribute__((noinline, no_sanitize("thread", "undefined")))
#endif

// The lane's words of both operands into their places.
IN_ONE_INSTRUCTION void hand_out(handed_operands *all, const word_t *a, const word_t *b) {
    constexpr int OWN_ROWS = IS_MMA ? 2 : 1;
    const int lane = lane_of_wave(), own = lane_head(lane);
    for (int w = 0; w < LANE_WORDS; ++w) {
        // The columns of a lane are numbered as its keys.
        const int k = lane_key(lane, 2 * w), next = lane_key(lane, 2 * w + 1);
        for (int r = 0; r < OWN_ROWS; ++r) hand(all->a[own + 8 * r], k, next, a[OWN_ROWS * w + r]);
        hand(all->b[own], k, next, b[w]);
    }
}

// The lane's elements of the product, added to d.
template <typename T>
IN_ONE_INSTRUCTION void multiply_by_hand(const handed_operands *all, float (&d)[LANE_KEYS]) {
    constexpr int ROWS = IS_MMA ? 2 : LANE_KEYS, COLUMNS = IS_MMA ? 2 : 1;
    const int lane = lane_of_wave(), own = lane_head(lane), t = lane_part(lane);
    for (int k = 0; k < 2; ++k) {
        uint4 rows[ROWS], columns[COLUMNS];
        for (int r = 0; r < ROWS; ++r) {
            rows[r] = ((const uint4 *)all->a[IS_MMA ? own + 8 * r : lane_result(lane, r)])[k];
        }
        for (int c = 0; c < COLUMNS; ++c) columns[c] = ((const uint4 *)all->b[IS_MMA ? 2 * t + c : own])[k];
        for (int i = 0; i < LANE_KEYS; ++i) {
            const uint4 x = rows[IS_MMA ? i >> 1 : i], y = columns[IS_MMA ? i & 1 : 0];
            d[i] = add_products<T>(d[i], x.x, y.x);
            d[i] = add_products<T>(d[i], x.y, y.y);
            d[i] = add_products<T>(d[i], x.z, y.z);
            d[i] = add_products<T>(d[i], x.w, y.w);
        }
    }
}
#endif

#if defined(MATRIX_WMMA)
// An operand of WMMA in vectors of its words. gfx12: what the lane has. gfx11: what both halves of the wave
// have, in the same order in both.
typedef word_t operand_t __attribute__((ext_vector_type(WMMA == 11 ? 8 : 4)));
__device__ __forceinline__ operand_t whole_operand(const word_t *own) {
    operand_t whole;
    for (int w = 0; w < LANE_WORDS; ++w) {
        word_t mine = own[w];
#if MATRIX_WMMA == 11
        settle(mine);  // or Q would be kept whole over the loop
        const bool first = lane_of_wave() < 16;
        const word_t others = __builtin_amdgcn_permlanex16(
            mine, mine, 0x76543210, 0xfedcba98, true, false);  // of lane ^ 16
        whole[w] = first ? mine : others;
        whole[w + 4] = first ? others : mine;
#else
        whole[w] = mine;
#endif
    }
    return whole;
}
#endif

// One instruction: d[16 x N] += a[16 x 16] b[16 x N], N = 8 on NVIDIA and 16 on AMD.
// a: NVIDIA: words 0, 2 are row lane / 4, words 1, 3 row lane / 4 + 8; words 0, 1 columns 2 t, 2 t + 1,
//    words 2, 3 columns 2 t + 8, 2 t + 9. AMD: row lane % 16, the LANE_KEYS columns of the lane's part.
// b: the same columns as rows, of column lane / 4 (NVIDIA: words 0, 1 only) or lane % 16.
// d: NVIDIA: rows lane / 4 and + 8 (d[2], d[3]), columns 2 t, 2 t + 1. AMD: rows lane_result(lane, 0..),
//    column lane % 16.
template <typename T>
__device__ __forceinline__ void multiply_add(
    float (&d)[LANE_KEYS], const word_t *a, const word_t *b, int &turn) {
#if defined(MATRIX_MMA)
    (void)turn;
    if constexpr (half_words<T>::is_f16) {
        asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
            "{%8,%9}, {%0,%1,%2,%3};"
            : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
    } else {
        asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
            "{%8,%9}, {%0,%1,%2,%3};"
            : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
    }
#elif defined(MATRIX_MFMA)
    (void)turn;
    typedef float v4f __attribute__((ext_vector_type(4)));
    typedef word_t v2w __attribute__((ext_vector_type(2)));
    v4f sum = {d[0], d[1], d[2], d[3]};
    const v2w left = {a[0], a[1]}, right = {b[0], b[1]};
    if constexpr (half_words<T>::is_f16) {
        typedef _Float16 v4h __attribute__((ext_vector_type(4)));
        sum = __builtin_amdgcn_mfma_f32_16x16x16f16(
            __builtin_bit_cast(v4h, left), __builtin_bit_cast(v4h, right), sum, 0, 0, 0);
    } else {
        typedef short v4s __attribute__((ext_vector_type(4)));
        sum = __builtin_amdgcn_mfma_f32_16x16x16bf16_1k(
            __builtin_bit_cast(v4s, left), __builtin_bit_cast(v4s, right), sum, 0, 0, 0);
    }
    for (int i = 0; i < 4; ++i) d[i] = sum[i];
#elif defined(MATRIX_WMMA)
    (void)turn;
    typedef float v8f __attribute__((ext_vector_type(8)));
    v8f sum;
    for (int i = 0; i < 8; ++i) sum[i] = d[i];
    const operand_t left = whole_operand(a), right = whole_operand(b);
    if constexpr (half_words<T>::is_f16) {
        typedef _Float16 halves __attribute__((ext_vector_type(sizeof(operand_t) / 2)));
        sum = MATRIX_WMMA_OF(f16)(
            __builtin_bit_cast(halves, left), __builtin_bit_cast(halves, right), sum);
    } else {
        typedef short halves __attribute__((ext_vector_type(sizeof(operand_t) / 2)));
        sum = MATRIX_WMMA_OF(bf16)(
            __builtin_bit_cast(halves, left), __builtin_bit_cast(halves, right), sum);
    }
    for (int i = 0; i < 8; ++i) d[i] = sum[i];
#else
    handed_operands *all = &handed()[turn & 1];
    ++turn;
    hand_out(all, a, b);
    wave_sync();
    multiply_by_hand<T>(all, d);
#endif
}
