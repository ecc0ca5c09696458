// hip_fp16.h: __half and __half2 on the compiler's own _Float16.
#pragma once
#include "hip_runtime.h"

struct __half_raw { unsigned short x; };

struct __half {
    _Float16 data;
    __half() = default;
    __device__ explicit __half(_Float16 v) : data(v) {}
    __device__ __half(float v) : data((_Float16)v) {}
    __device__ __half(double v) : data((_Float16)v) {}
    __device__ __half(int v) : data((_Float16)(float)v) {}
    __device__ __half(unsigned int v) : data((_Float16)(float)v) {}
    __device__ __half(long v) : data((_Float16)(float)v) {}
    __device__ __half(long long v) : data((_Float16)(float)v) {}
    __device__ __half(unsigned long v) : data((_Float16)(float)v) {}
    __device__ __half(unsigned long long v) : data((_Float16)(float)v) {}
    __device__ __half(__half_raw r) : data(attnbench_bits<_Float16>(r.x)) {}
    __device__ operator float() const { return (float)data; }
    __device__ operator __half_raw() const { return __half_raw{attnbench_bits<unsigned short>(data)}; }
    __device__ __half operator-() const { return __half(-data); }
    __device__ __half operator+() const { return *this; }
};
typedef __half half;

#define ATTNBENCH_T __half
#include "../attnbench/float16.h"
#undef ATTNBENCH_T

ATTNBENCH_INLINE __half __hfma(__half a, __half b, __half c) {
    return __half(__builtin_fmaf16(a.data, b.data, c.data));
}
ATTNBENCH_INLINE __half __float2half(float x) { return __half(x); }
ATTNBENCH_INLINE __half __float2half_rn(float x) { return __half(x); }
ATTNBENCH_INLINE __half __double2half(double x) { return __half(x); }
ATTNBENCH_INLINE __half __int2half_rn(int x) { return __half(x); }
ATTNBENCH_INLINE float __half2float(__half h) { return (float)h; }
ATTNBENCH_INLINE unsigned short __half_as_ushort(__half h) {
    return attnbench_bits<unsigned short>(h);
}
ATTNBENCH_INLINE short __half_as_short(__half h) { return attnbench_bits<short>(h); }
ATTNBENCH_INLINE __half __ushort_as_half(unsigned short x) { return __half(__half_raw{x}); }
ATTNBENCH_INLINE __half __short_as_half(short x) { return __half(__half_raw{(unsigned short)x}); }

typedef _Float16 attnbench_half_pair __attribute__((ext_vector_type(2)));
struct alignas(4) __half2 {
    union {
        attnbench_half_pair data;
        struct { __half x, y; };
    };
    __half2() = default;
    __device__ explicit __half2(attnbench_half_pair v) : data(v) {}
    __device__ __half2(__half a, __half b) : data{a.data, b.data} {}
};
typedef __half2 half2;

#define ATTNBENCH_T __half
#define ATTNBENCH_T2 __half2
#include "../attnbench/float16x2.h"
#undef ATTNBENCH_T2
#undef ATTNBENCH_T

ATTNBENCH_INLINE __half2 __hfma2(__half2 a, __half2 b, __half2 c) {
    return __half2(__builtin_elementwise_fma(a.data, b.data, c.data));
}
ATTNBENCH_INLINE __half2 make_half2(__half a, __half b) { return __half2(a, b); }
ATTNBENCH_INLINE __half2 __halves2half2(__half a, __half b) { return __half2(a, b); }
ATTNBENCH_INLINE __half2 __half2half2(__half a) { return __half2(a, a); }
ATTNBENCH_INLINE __half2 __float2half2_rn(float a) { return __half2(__half(a), __half(a)); }
ATTNBENCH_INLINE __half2 __floats2half2_rn(float a, float b) { return __half2(__half(a), __half(b)); }
ATTNBENCH_INLINE __half2 __float22half2_rn(float2 a) { return __floats2half2_rn(a.x, a.y); }
ATTNBENCH_INLINE float2 __half22float2(__half2 a) { return float2{(float)a.x, (float)a.y}; }
