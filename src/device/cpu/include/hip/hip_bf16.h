// hip_bf16.h: __hip_bfloat16 and __hip_bfloat162. Arithmetic is done in float and rounded once an
// operation: exact for + - * / and sqrt, since float has more than twice the bits.
#pragma once
#include "hip_runtime.h"
#include "../attnbench/round.h"

static inline uint16_t attnbench_float_to_bf16(float x) {
    uint32_t bits = attnbench_bits<uint32_t>(x);
    if ((bits & 0x7fffffff) > 0x7f800000) return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

struct __hip_bfloat16_raw { unsigned short x; };

struct __hip_bfloat16 {
    unsigned short data;
    __hip_bfloat16() = default;
    __hip_bfloat16(float v) : data(attnbench_float_to_bf16(v)) {}
    __hip_bfloat16(double v) : data(attnbench_round16<7, -126>(v)) {}
    __hip_bfloat16(int v) : __hip_bfloat16((double)v) {}
    __hip_bfloat16(unsigned int v) : __hip_bfloat16((double)v) {}
    __hip_bfloat16(long v) : __hip_bfloat16((double)v) {}
    __hip_bfloat16(long long v) : __hip_bfloat16((double)v) {}
    __hip_bfloat16(unsigned long v) : __hip_bfloat16((double)v) {}
    __hip_bfloat16(unsigned long long v) : __hip_bfloat16((double)v) {}
    __hip_bfloat16(__hip_bfloat16_raw r) : data(r.x) {}
    operator float() const { return attnbench_bits<float>((uint32_t)data << 16); }
    operator __hip_bfloat16_raw() const { return __hip_bfloat16_raw{data}; }
    __hip_bfloat16 operator-() const {
        return __hip_bfloat16(__hip_bfloat16_raw{(unsigned short)(data ^ 0x8000)});
    }
    __hip_bfloat16 operator+() const { return *this; }
};
typedef __hip_bfloat16 hip_bfloat16;

#define ATTNBENCH_T __hip_bfloat16
#define ATTNBENCH_FMA(a, b, c) \
    __hip_bfloat16((double)attnbench_fma_odd((float)(a), (float)(b), (float)(c)))
#include "../attnbench/arithmetic16.h"
#undef ATTNBENCH_FMA
#undef ATTNBENCH_T

static inline __hip_bfloat16 __float2bfloat16(float x) { return __hip_bfloat16(x); }
static inline __hip_bfloat16 __float2bfloat16_rn(float x) { return __hip_bfloat16(x); }
static inline __hip_bfloat16 __double2bfloat16(double x) { return __hip_bfloat16(x); }
static inline float __bfloat162float(__hip_bfloat16 x) { return (float)x; }
static inline unsigned short __bfloat16_as_ushort(__hip_bfloat16 x) { return x.data; }
static inline short __bfloat16_as_short(__hip_bfloat16 x) { return (short)x.data; }
static inline __hip_bfloat16 __ushort_as_bfloat16(unsigned short x) {
    return __hip_bfloat16(__hip_bfloat16_raw{x});
}
static inline __hip_bfloat16 __short_as_bfloat16(short x) {
    return __hip_bfloat16(__hip_bfloat16_raw{(unsigned short)x});
}

struct alignas(4) __hip_bfloat162 {
    __hip_bfloat16 x, y;
    __hip_bfloat162() = default;
    __hip_bfloat162(__hip_bfloat16 a, __hip_bfloat16 b) : x(a), y(b) {}
#if defined(ATTNBENCH_CHECKED) && defined(__clang__)
    // why: see vector_types.h.
    __hip_bfloat162(const __hip_bfloat162& o) : x(o.x), y(o.y) {}
    __hip_bfloat162& operator=(const __hip_bfloat162& o) { x = o.x; y = o.y; return *this; }
#endif
};

#define ATTNBENCH_T __hip_bfloat16
#define ATTNBENCH_T2 __hip_bfloat162
#include "../attnbench/arithmetic16x2.h"
#undef ATTNBENCH_T2
#undef ATTNBENCH_T

static inline __hip_bfloat162 make_bfloat162(__hip_bfloat16 a, __hip_bfloat16 b) {
    return __hip_bfloat162(a, b);
}
static inline __hip_bfloat162 __halves2bfloat162(__hip_bfloat16 a, __hip_bfloat16 b) {
    return __hip_bfloat162(a, b);
}
static inline __hip_bfloat162 __bfloat162bfloat162(__hip_bfloat16 a) {
    return __hip_bfloat162(a, a);
}
static inline __hip_bfloat162 __float2bfloat162_rn(float a) {
    return __hip_bfloat162(__hip_bfloat16(a), __hip_bfloat16(a));
}
static inline __hip_bfloat162 __floats2bfloat162_rn(float a, float b) {
    return __hip_bfloat162(__hip_bfloat16(a), __hip_bfloat16(b));
}
static inline __hip_bfloat162 __float22bfloat162_rn(float2 a) {
    return __floats2bfloat162_rn(a.x, a.y);
}
static inline float2 __bfloat1622float2(__hip_bfloat162 a) {
    return float2{(float)a.x, (float)a.y};
}
