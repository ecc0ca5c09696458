// hip_bf16.h: __hip_bfloat16 and __hip_bfloat162 on the compiler's own __bf16, in whose place the
// backend computes in f32 and rounds once an operation.
#pragma once
#include "hip_runtime.h"

struct __hip_bfloat16_raw { unsigned short x; };

struct __hip_bfloat16 {
    __bf16 data;
    __hip_bfloat16() = default;
    __device__ explicit __hip_bfloat16(__bf16 v) : data(v) {}
    __device__ __hip_bfloat16(float v) : data((__bf16)v) {}
    __device__ __hip_bfloat16(double v) : data((__bf16)v) {}
    __device__ __hip_bfloat16(int v) : data((__bf16)(float)v) {}
    __device__ __hip_bfloat16(unsigned int v) : data((__bf16)(float)v) {}
    __device__ __hip_bfloat16(long v) : data((__bf16)(float)v) {}
    __device__ __hip_bfloat16(long long v) : data((__bf16)(float)v) {}
    __device__ __hip_bfloat16(unsigned long v) : data((__bf16)(float)v) {}
    __device__ __hip_bfloat16(unsigned long long v) : data((__bf16)(float)v) {}
    __device__ __hip_bfloat16(__hip_bfloat16_raw r) : data(attnbench_bits<__bf16>(r.x)) {}
    __device__ operator float() const { return (float)data; }
    __device__ operator __hip_bfloat16_raw() const { return __hip_bfloat16_raw{attnbench_bits<unsigned short>(data)}; }
    __device__ __hip_bfloat16 operator-() const { return __hip_bfloat16(-data); }
    __device__ __hip_bfloat16 operator+() const { return *this; }
};
typedef __hip_bfloat16 hip_bfloat16;

#define ATTNBENCH_T __hip_bfloat16
#include "../attnbench/float16.h"
#undef ATTNBENCH_T

// The product is exact in f32, so the sum is rounded twice at most; ROCm does the same.
ATTNBENCH_INLINE __hip_bfloat16 __hfma(__hip_bfloat16 a, __hip_bfloat16 b, __hip_bfloat16 c) {
    return __hip_bfloat16(__builtin_fmaf((float)a, (float)b, (float)c));
}
ATTNBENCH_INLINE __hip_bfloat16 __float2bfloat16(float x) { return __hip_bfloat16(x); }
ATTNBENCH_INLINE __hip_bfloat16 __float2bfloat16_rn(float x) { return __hip_bfloat16(x); }
ATTNBENCH_INLINE __hip_bfloat16 __double2bfloat16(double x) { return __hip_bfloat16(x); }
ATTNBENCH_INLINE float __bfloat162float(__hip_bfloat16 x) { return (float)x; }
ATTNBENCH_INLINE unsigned short __bfloat16_as_ushort(__hip_bfloat16 x) {
    return attnbench_bits<unsigned short>(x);
}
ATTNBENCH_INLINE short __bfloat16_as_short(__hip_bfloat16 x) { return attnbench_bits<short>(x); }
ATTNBENCH_INLINE __hip_bfloat16 __ushort_as_bfloat16(unsigned short x) {
    return __hip_bfloat16(__hip_bfloat16_raw{x});
}
ATTNBENCH_INLINE __hip_bfloat16 __short_as_bfloat16(short x) {
    return __hip_bfloat16(__hip_bfloat16_raw{(unsigned short)x});
}

typedef __bf16 attnbench_bf16_pair __attribute__((ext_vector_type(2)));
struct alignas(4) __hip_bfloat162 {
    union {
        attnbench_bf16_pair data;
        struct { __hip_bfloat16 x, y; };
    };
    __hip_bfloat162() = default;
    __device__ explicit __hip_bfloat162(attnbench_bf16_pair v) : data(v) {}
    __device__ __hip_bfloat162(__hip_bfloat16 a, __hip_bfloat16 b) : data{a.data, b.data} {}
};

#define ATTNBENCH_T __hip_bfloat16
#define ATTNBENCH_T2 __hip_bfloat162
#include "../attnbench/float16x2.h"
#undef ATTNBENCH_T2
#undef ATTNBENCH_T

ATTNBENCH_INLINE __hip_bfloat162 __hfma2(__hip_bfloat162 a, __hip_bfloat162 b, __hip_bfloat162 c) {
    return __hip_bfloat162(__hfma(a.x, b.x, c.x), __hfma(a.y, b.y, c.y));
}
ATTNBENCH_INLINE __hip_bfloat162 make_bfloat162(__hip_bfloat16 a, __hip_bfloat16 b) {
    return __hip_bfloat162(a, b);
}
ATTNBENCH_INLINE __hip_bfloat162 __halves2bfloat162(__hip_bfloat16 a, __hip_bfloat16 b) {
    return __hip_bfloat162(a, b);
}
ATTNBENCH_INLINE __hip_bfloat162 __bfloat162bfloat162(__hip_bfloat16 a) {
    return __hip_bfloat162(a, a);
}
ATTNBENCH_INLINE __hip_bfloat162 __float2bfloat162_rn(float a) {
    return __hip_bfloat162(__hip_bfloat16(a), __hip_bfloat16(a));
}
ATTNBENCH_INLINE __hip_bfloat162 __floats2bfloat162_rn(float a, float b) {
    return __hip_bfloat162(__hip_bfloat16(a), __hip_bfloat16(b));
}
ATTNBENCH_INLINE __hip_bfloat162 __float22bfloat162_rn(float2 a) {
    return __floats2bfloat162_rn(a.x, a.y);
}
ATTNBENCH_INLINE float2 __bfloat1622float2(__hip_bfloat162 a) {
    return float2{(float)a.x, (float)a.y};
}
