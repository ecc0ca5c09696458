// hip_fp16.h: __half and __half2. Arithmetic is done in float and rounded once an operation:
// exact for + - * / and sqrt, since float has more than twice the bits.
#pragma once
#include "hip_runtime.h"
#include "../attnbench/round.h"

// Where the processor converts, it gives the same bits as the integer code. Not <immintrin.h>: that
// header takes longer to compile than the rest of a kernel.
#if defined(__aarch64__) || (defined(__clang__) && defined(__F16C__))
#define ATTNBENCH_FP16_TYPE 1
#elif defined(__F16C__)
#define ATTNBENCH_FP16_BUILTIN 1
typedef float attnbench_float4 __attribute__((vector_size(16)));
typedef short attnbench_short8 __attribute__((vector_size(16)));
#endif

static inline uint16_t attnbench_float_to_half(float x) {
#if defined(ATTNBENCH_FP16_TYPE)
    __fp16 h = (__fp16)x;
    uint16_t bits;
    __builtin_memcpy(&bits, &h, sizeof bits);
    return bits;
#elif defined(ATTNBENCH_FP16_BUILTIN)
    return (uint16_t)__builtin_ia32_vcvtps2ph(attnbench_float4{x, 0, 0, 0}, 0)[0];
#else
    return attnbench_round16<10, -14>((double)x);
#endif
}

static inline float attnbench_half_to_float(uint16_t h) {
#if defined(ATTNBENCH_FP16_TYPE)
    __fp16 x;
    __builtin_memcpy(&x, &h, sizeof x);
    return (float)x;
#elif defined(ATTNBENCH_FP16_BUILTIN)
    return __builtin_ia32_vcvtph2ps(attnbench_short8{(short)h, 0, 0, 0, 0, 0, 0, 0})[0];
#else
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, rest = h & 0x7fff;
    if (rest >= 0x7c00) {
        // why: like the processor, a signalling NaN comes out quiet.
        uint32_t quiet = rest > 0x7c00 ? 0x400000u : 0u;
        return attnbench_bits<float>(sign | 0x7f800000u | (rest & 0x3ff) << 13 | quiet);
    }
    if (rest < 0x400) {
        float magnitude = (float)rest * 0x1p-24f;
        return attnbench_bits<float>(sign | attnbench_bits<uint32_t>(magnitude));
    }
    return attnbench_bits<float>(sign | ((rest << 13) + 0x38000000u));
#endif
}

struct __half_raw { unsigned short x; };

struct __half {
    unsigned short __x;
    __half() = default;
    __half(float v) : __x(attnbench_float_to_half(v)) {}
    __half(double v) : __x(attnbench_round16<10, -14>(v)) {}
    __half(int v) : __half((double)v) {}
    __half(unsigned int v) : __half((double)v) {}
    __half(long v) : __half((float)v) {}
    __half(long long v) : __half((float)v) {}
    __half(unsigned long v) : __half((float)v) {}
    __half(unsigned long long v) : __half((float)v) {}
    __half(__half_raw r) : __x(r.x) {}
    operator float() const { return attnbench_half_to_float(__x); }
    operator __half_raw() const { return __half_raw{__x}; }
    __half operator-() const { return __half(__half_raw{(unsigned short)(__x ^ 0x8000)}); }
    __half operator+() const { return *this; }
};
typedef __half half;

#define ATTNBENCH_T __half
#define ATTNBENCH_FMA(a, b, c) \
    __half((double)attnbench_fma_odd((float)(a), (float)(b), (float)(c)))
#include "../attnbench/arithmetic16.h"
#undef ATTNBENCH_FMA
#undef ATTNBENCH_T

static inline __half __float2half(float x) { return __half(x); }
static inline __half __float2half_rn(float x) { return __half(x); }
static inline __half __double2half(double x) { return __half(x); }
static inline __half __int2half_rn(int x) { return __half(x); }
static inline float __half2float(__half h) { return (float)h; }
static inline unsigned short __half_as_ushort(__half h) { return h.__x; }
static inline short __half_as_short(__half h) { return (short)h.__x; }
static inline __half __ushort_as_half(unsigned short x) { return __half(__half_raw{x}); }
static inline __half __short_as_half(short x) { return __half(__half_raw{(unsigned short)x}); }

struct alignas(4) __half2 {
    __half x, y;
    __half2() = default;
    __half2(__half a, __half b) : x(a), y(b) {}
#if defined(ATTNBENCH_CHECKED) && defined(__clang__)
    // why: see vector_types.h.
    __half2(const __half2& o) : x(o.x), y(o.y) {}
    __half2& operator=(const __half2& o) { x = o.x; y = o.y; return *this; }
#endif
};
typedef __half2 half2;

#define ATTNBENCH_T __half
#define ATTNBENCH_T2 __half2
#include "../attnbench/arithmetic16x2.h"
#undef ATTNBENCH_T2
#undef ATTNBENCH_T

static inline __half2 make_half2(__half a, __half b) { return __half2(a, b); }
static inline __half2 __halves2half2(__half a, __half b) { return __half2(a, b); }
static inline __half2 __half2half2(__half a) { return __half2(a, a); }
static inline __half2 __float2half2_rn(float a) { return __half2(__half(a), __half(a)); }
static inline __half2 __floats2half2_rn(float a, float b) { return __half2(__half(a), __half(b)); }
static inline __half2 __float22half2_rn(float2 a) { return __floats2half2_rn(a.x, a.y); }
static inline float2 __half22float2(__half2 a) { return float2{(float)a.x, (float)a.y}; }
