// hip_bf16.h: bfloat16 for hiprtc.
//
// From some version on hiprtc has included its own before the first line of a source; its guard tells.
// Before that there is none, or one that only the whole of ROCm's headers could use. Then this is it,
// its functions under names of its own, as they could not be told from others by what they return.
#pragma once
#include "hip_runtime.h"

#if !defined(_HIP_INCLUDE_HIP_AMD_DETAIL_HIP_BF16_H_) && \
    !defined(HIP_INCLUDE_HIP_AMD_DETAIL_HIP_BF16_H)
#define __float2bfloat16 attnbench_float2bfloat16
#define __float2bfloat16_rn attnbench_float2bfloat16
#define __double2bfloat16 attnbench_double2bfloat16
#define __bfloat162float attnbench_bfloat162float
#define __bfloat16_as_ushort attnbench_bfloat16_as_ushort
#define __ushort_as_bfloat16 attnbench_ushort_as_bfloat16
#define __bfloat1622float2 attnbench_bfloat1622float2
#define __float22bfloat162_rn attnbench_float22bfloat162
#define __floats2bfloat162_rn attnbench_floats2bfloat162
#define __float2bfloat162_rn attnbench_float2bfloat162
#define __halves2bfloat162 attnbench_halves2bfloat162
#define make_bfloat162 attnbench_halves2bfloat162

struct __hip_bfloat16_raw { unsigned short x; };

// The nearest of the type, ties to even; a NaN stays one.
__device__ inline unsigned short attnbench_round_bf16(float x) {
    const unsigned int bits = __float_as_uint(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return (unsigned short)((bits >> 16) | 0x40u);
    return (unsigned short)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

// A double to a float whose rounding to fewer bits is the double's own: to odd (Boldo & Melquiond
// 2008).
__device__ inline float attnbench_to_odd(double x) {
    const float f = (float)x;
    if ((double)f == x || x != x || __builtin_isinf(f)) return f;
    unsigned int bits = __float_as_uint(f);
    if (!(bits & 1u)) bits += (((double)f < x) == (f > 0.0f)) ? 1u : ~0u;
    return __uint_as_float(bits);
}

struct __hip_bfloat16 {
    unsigned short data;
    __hip_bfloat16() = default;
    __device__ __hip_bfloat16(float x) : data(attnbench_round_bf16(x)) {}
    __device__ __hip_bfloat16(double x) : data(attnbench_round_bf16(attnbench_to_odd(x))) {}
    __device__ __hip_bfloat16(int x) : __hip_bfloat16((double)x) {}
    __device__ __hip_bfloat16(unsigned int x) : __hip_bfloat16((double)x) {}
    __device__ __hip_bfloat16(__hip_bfloat16_raw raw) : data(raw.x) {}
    __device__ operator float() const { return __uint_as_float((unsigned int)data << 16); }
    __device__ operator __hip_bfloat16_raw() const { return __hip_bfloat16_raw{data}; }
    __device__ __hip_bfloat16 operator-() const {
        return __hip_bfloat16(__hip_bfloat16_raw{(unsigned short)(data ^ 0x8000)});
    }
};

#define ATTNBENCH_BF16_OPERATOR(op)                                                          \
    __device__ inline __hip_bfloat16 operator op(__hip_bfloat16 a, __hip_bfloat16 b) {       \
        return __hip_bfloat16((float)a op (float)b);                                         \
    }                                                                                        \
    __device__ inline __hip_bfloat16& operator op##=(__hip_bfloat16& a, __hip_bfloat16 b) {  \
        return a = a op b;                                                                   \
    }
ATTNBENCH_BF16_OPERATOR(+)
ATTNBENCH_BF16_OPERATOR(-)
ATTNBENCH_BF16_OPERATOR(*)
ATTNBENCH_BF16_OPERATOR(/)
#undef ATTNBENCH_BF16_OPERATOR
#define ATTNBENCH_BF16_COMPARISON(op)                                                        \
    __device__ inline bool operator op(__hip_bfloat16 a, __hip_bfloat16 b) {                 \
        return (float)a op (float)b;                                                         \
    }
ATTNBENCH_BF16_COMPARISON(==)
ATTNBENCH_BF16_COMPARISON(!=)
ATTNBENCH_BF16_COMPARISON(<)
ATTNBENCH_BF16_COMPARISON(>)
ATTNBENCH_BF16_COMPARISON(<=)
ATTNBENCH_BF16_COMPARISON(>=)
#undef ATTNBENCH_BF16_COMPARISON

__device__ inline __hip_bfloat16 __float2bfloat16(float x) { return __hip_bfloat16(x); }
__device__ inline __hip_bfloat16 __double2bfloat16(double x) { return __hip_bfloat16(x); }
__device__ inline float __bfloat162float(__hip_bfloat16 x) { return (float)x; }
__device__ inline unsigned short __bfloat16_as_ushort(__hip_bfloat16 x) { return x.data; }
__device__ inline __hip_bfloat16 __ushort_as_bfloat16(unsigned short x) {
    return __hip_bfloat16(__hip_bfloat16_raw{x});
}

struct alignas(4) __hip_bfloat162 {
    __hip_bfloat16 x, y;
    __hip_bfloat162() = default;
    __device__ __hip_bfloat162(__hip_bfloat16 a, __hip_bfloat16 b) : x(a), y(b) {}
};
__device__ inline __hip_bfloat162 __halves2bfloat162(__hip_bfloat16 a, __hip_bfloat16 b) {
    return __hip_bfloat162(a, b);
}
__device__ inline __hip_bfloat162 __floats2bfloat162_rn(float a, float b) {
    return __hip_bfloat162(__hip_bfloat16(a), __hip_bfloat16(b));
}
__device__ inline __hip_bfloat162 __float2bfloat162_rn(float a) {
    return __floats2bfloat162_rn(a, a);
}
__device__ inline __hip_bfloat162 __float22bfloat162_rn(float2 a) {
    return __floats2bfloat162_rn(a.x, a.y);
}
__device__ inline float2 __bfloat1622float2(__hip_bfloat162 a) {
    return make_float2((float)a.x, (float)a.y);
}
#endif
