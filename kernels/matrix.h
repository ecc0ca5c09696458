// matrix.h: the matrix cores as decode attention uses them, on AMD, on NVIDIA, and by hand.
//
// Two products, each of 16 keys, for blocks of query heads:
//   scores_of   S[head, key] += sum_d Q[head, d] K[key, d]     over 32 of the dimensions
//   values_of   O[head, dim] += sum_key P[head, key] V[key, dim]
// What a lane holds is chosen so that the result of the first is an operand of the second as it lies in
// the registers, and that K and V come from memory in pieces of 16 bytes, without shared memory:
//
//                      waves of 32 (NVIDIA m16n8k16)          waves of 64 (AMD MFMA 16x16x16)
//   heads a block      8                                      16
//   head of a lane     lane / 4                               lane % 16
//   its 4 of 16 keys   2 t, 2 t + 1, 2 t + 8, 2 t + 9;        4 t + (0..3);
//                      t = lane % 4                           t = lane / 16
//   K                  16 bytes of rows lane / 4 and + 8      16 bytes of row lane % 16
//   V                  16 bytes of rows of its 4 keys         the same
//
// Which dimension meets which index of a contraction is free as long as both operands agree: a lane takes
// 8 dimensions in a row of Q and of K, and feeds two instructions with 4 of them each.
//
// By hand: where there is no such instruction (the host; AMD's RDNA, whose own are not used yet), the lanes
// put their operands into shared memory and each computes its elements of the result, in f32, which
// holds the products exactly. The fragments are those of the instructions, to the register.
#pragma once
#include "portable.h"

typedef unsigned int word_t;  // two elements of 16 bits, the first one low

#if defined(__CUDACC__) || defined(__CUDACC_RTC__)
constexpr int WAVE = 32;
#define MATRIX_MMA
#elif defined(__AMDGCN__)
#if defined(__GFX9__)
constexpr int WAVE = 64;
#else
constexpr int WAVE = 32;
#endif
#if defined(__gfx90a__) || defined(__gfx940__) || defined(__gfx941__) || defined(__gfx942__) || \
    defined(__gfx950__)
#define MATRIX_MFMA
#endif
#else
constexpr int WAVE = warpSize;
#endif

// Heads that one block of heads has.
constexpr int BLOCK_HEADS = WAVE / 4;
// Keys of a tile; dimensions of a piece of K.
constexpr int TILE_KEYS = 16, PIECE = 32;
// Rows of K of a tile that a lane loads.
constexpr int K_ROWS = 512 / (WAVE * 8);

__device__ __forceinline__ int lane_of_wave() { return threadIdx.x % WAVE; }

// The head of a lane within a block of heads.
__device__ __forceinline__ int lane_head(int lane) { return WAVE == 32 ? lane / 4 : lane % 16; }
// Its place among the lanes with the same head, 0 to 3.
__device__ __forceinline__ int lane_part(int lane) { return WAVE == 32 ? lane % 4 : lane / 16; }
// The key of a tile that its score `i`, 0 to 3, belongs to.
__device__ __forceinline__ int lane_key(int lane, int i) {
    const int t = lane_part(lane);
    return WAVE == 32 ? 2 * t + (i & 1) + 8 * (i >> 1) : 4 * t + i;
}
// The row of K of a tile that it loads, `r` below K_ROWS; and its first dimension of a piece.
__device__ __forceinline__ int lane_row(int lane, int r) { return lane_head(lane) + 8 * r; }
__device__ __forceinline__ int lane_dim(int lane) { return 8 * lane_part(lane); }

// Over the lanes with the same head: the maximum, and the sum.
__device__ __forceinline__ float head_max(float x) {
    constexpr int step = WAVE == 32 ? 1 : 16;
    x = fmaxf(x, lane_xor(x, step));
    return fmaxf(x, lane_xor(x, 2 * step));
}
__device__ __forceinline__ float head_sum(float x) {
    constexpr int step = WAVE == 32 ? 1 : 16;
    x += lane_xor(x, step);
    return x + lane_xor(x, 2 * step);
}

// What orders the lanes of a wave where they pass something through shared memory.
__device__ __forceinline__ void wave_sync() {
#if defined(__AMDGCN__)
    __builtin_amdgcn_fence(__ATOMIC_RELEASE, "wavefront");
    __builtin_amdgcn_wave_barrier();
    __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "wavefront");
#else
    __syncwarp();
#endif
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
__device__ __forceinline__ word_t lows(word_t a, word_t b) { return (a & 0xffffu) | b << 16; }
__device__ __forceinline__ word_t highs(word_t a, word_t b) { return a >> 16 | (b & 0xffff0000u); }

// 16 bytes of memory that is used once.
__device__ __forceinline__ uint4 load16(const void *from) {
#if defined(MATRIX_MMA)
    return __ldcs((const uint4 *)from);
#else
    return *(const uint4 *)from;
#endif
}
__device__ __forceinline__ uint2 load8(const void *from) { return *(const uint2 *)from; }

#if !defined(MATRIX_MMA) && !defined(MATRIX_MFMA)
// What the lanes of a wave hand each other, b by columns: twice, so that nobody writes what is still read.
struct handed_operands { float a[16][16], b[16][16]; };
__device__ __forceinline__ handed_operands *handed() {
    __shared__ handed_operands of_waves[8][2];
    return of_waves[threadIdx.x / WAVE];
}
#endif

// One instruction: d[16 x N] += a[16 x 16] b[16 x N], N = 8 at waves of 32 and 16 at waves of 64.
// a: waves of 32: words 0, 2 are row lane / 4, words 1, 3 row lane / 4 + 8; words 0, 1 columns 2 t, 2 t + 1,
//    words 2, 3 columns 2 t + 8, 2 t + 9. Waves of 64: row lane % 16, columns 4 t + (0..3).
// b: the same columns as rows, of column lane / 4 (waves of 32: words 0, 1 only) or lane % 16.
// d: waves of 32: rows lane / 4 and + 8 (d[2], d[3]), columns 2 t, 2 t + 1. Waves of 64: rows 4 t + (0..3),
//    column lane % 16.
template <typename T>
__device__ __forceinline__ void multiply_add(
    float (&d)[4], const word_t *a, const word_t *b, int &turn) {
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
#else
    const int lane = lane_of_wave(), own = lane_head(lane), t = lane_part(lane);
    handed_operands *all = &handed()[turn & 1];
    ++turn;
    for (int w = 0; w < 2; ++w) {
        const int k = lane_key(lane, 2 * w);  // the columns of a lane are numbered as its keys
        if (WAVE == 32) {
            for (int half = 0; half < 2; ++half) {
                all->a[own + 8 * half][k] = half_words<T>::low(a[2 * w + half]);
                all->a[own + 8 * half][k + 1] = half_words<T>::low(a[2 * w + half] >> 16);
            }
        } else {
            all->a[own][k] = half_words<T>::low(a[w]);
            all->a[own][k + 1] = half_words<T>::low(a[w] >> 16);
        }
        all->b[own][k] = half_words<T>::low(b[w]);
        all->b[own][k + 1] = half_words<T>::low(b[w] >> 16);
    }
    wave_sync();
    for (int i = 0; i < 4; ++i) {
        const float *row = all->a[WAVE == 32 ? own + 8 * (i >> 1) : 4 * t + i];
        const float *column = all->b[WAVE == 32 ? 2 * t + (i & 1) : own];
        for (int k = 0; k < 16; ++k) d[i] += row[k] * column[k];
    }
#endif
}
