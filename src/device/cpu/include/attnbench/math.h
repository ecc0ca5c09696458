// math.h: device arithmetic by the host's library, correctly rounded where HIP's is.
#pragma once
#include "device.h"
// why: libstdc++'s special functions are half of the time that a small kernel takes to compile.
#if __has_include(<bits/c++config.h>)
#include <bits/c++config.h>
#undef _GLIBCXX_USE_STD_SPEC_FUNCS
#endif
#include <math.h>
#include <stdlib.h>

// The C library declares some of these names itself, so ours have others.
static inline float attnbench_expf(float x) { return expf(x); }
static inline float attnbench_exp10f(float x) { return (float)pow(10.0, (double)x); }
static inline float attnbench_logf(float x) { return logf(x); }
static inline float attnbench_log2f(float x) { return log2f(x); }
static inline float attnbench_log10f(float x) { return log10f(x); }
static inline float attnbench_sinf(float x) { return sinf(x); }
static inline float attnbench_cosf(float x) { return cosf(x); }
static inline float attnbench_tanf(float x) { return tanf(x); }
static inline float attnbench_powf(float x, float y) { return powf(x, y); }
static inline void attnbench_sincosf(float x, float* s, float* c) { *s = sinf(x); *c = cosf(x); }
#define __expf attnbench_expf
#define __exp10f attnbench_exp10f
#define __logf attnbench_logf
#define __log2f attnbench_log2f
#define __log10f attnbench_log10f
#define __sinf attnbench_sinf
#define __cosf attnbench_cosf
#define __tanf attnbench_tanf
#define __powf attnbench_powf
#define __sincosf attnbench_sincosf

static inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
static inline double rsqrt(double x) { return 1.0 / sqrt(x); }
static inline float rsqrt(float x) { return rsqrtf(x); }
static inline float __frsqrt_rn(float x) { return rsqrtf(x); }
static inline float __fsqrt_rn(float x) { return sqrtf(x); }
static inline float __frcp_rn(float x) { return 1.0f / x; }
static inline float __fdividef(float a, float b) { return a / b; }
static inline float __fdiv_rn(float a, float b) { return a / b; }
static inline float __fadd_rn(float a, float b) { return a + b; }
static inline float __fsub_rn(float a, float b) { return a - b; }
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
static inline float __saturatef(float x) { return x > 0 ? (x < 1 ? x : 1.0f) : 0.0f; }
static inline float fdividef(float a, float b) { return a / b; }

#define ATTNBENCH_MINMAX(T)                                                     \
    static inline T min(T a, T b) { return b < a ? b : a; }                     \
    static inline T max(T a, T b) { return a < b ? b : a; }
ATTNBENCH_MINMAX(int)
ATTNBENCH_MINMAX(unsigned int)
ATTNBENCH_MINMAX(long)
ATTNBENCH_MINMAX(unsigned long)
ATTNBENCH_MINMAX(long long)
ATTNBENCH_MINMAX(unsigned long long)
#undef ATTNBENCH_MINMAX
// A NaN gives way to a number, as on the device.
static inline float min(float a, float b) { return fminf(a, b); }
static inline float max(float a, float b) { return fmaxf(a, b); }
static inline double min(double a, double b) { return fmin(a, b); }
static inline double max(double a, double b) { return fmax(a, b); }
// Operands of two types meet in the type that arithmetic would give them, where HIP declares it.
#define ATTNBENCH_MIXED(A, B, T)                                                \
    static inline T min(A a, B b) { return min((T)a, (T)b); }                   \
    static inline T max(A a, B b) { return max((T)a, (T)b); }                   \
    static inline T min(B a, A b) { return min((T)a, (T)b); }                   \
    static inline T max(B a, A b) { return max((T)a, (T)b); }
ATTNBENCH_MIXED(int, unsigned int, unsigned int)
ATTNBENCH_MIXED(int, long, long)
ATTNBENCH_MIXED(int, long long, long long)
ATTNBENCH_MIXED(int, unsigned long, unsigned long)
ATTNBENCH_MIXED(int, unsigned long long, unsigned long long)
ATTNBENCH_MIXED(unsigned int, long, long)
ATTNBENCH_MIXED(unsigned int, long long, long long)
ATTNBENCH_MIXED(unsigned int, unsigned long, unsigned long)
ATTNBENCH_MIXED(unsigned int, unsigned long long, unsigned long long)
ATTNBENCH_MIXED(float, double, double)
ATTNBENCH_MIXED(int, float, float)
ATTNBENCH_MIXED(int, double, double)
#undef ATTNBENCH_MIXED

static inline int __popc(unsigned int x) { return __builtin_popcount(x); }
static inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
static inline int __clz(int x) { return x ? __builtin_clz((unsigned int)x) : 32; }
static inline int __clzll(long long x) { return x ? __builtin_clzll((unsigned long long)x) : 64; }
static inline int __ffs(int x) { return __builtin_ffs(x); }
static inline int __ffsll(long long x) { return __builtin_ffsll(x); }
static inline unsigned int __brev(unsigned int x) {
    unsigned int r = 0;
    for (int i = 0; i < 32; i++, x >>= 1) r = r << 1 | (x & 1);
    return r;
}
static inline int __mul24(int a, int b) { return (a << 8 >> 8) * (b << 8 >> 8); }
static inline unsigned int __umulhi(unsigned int a, unsigned int b) {
    return (unsigned int)((unsigned long long)a * b >> 32);
}

template <class To, class From>
static inline To attnbench_bits(From from) {
    static_assert(sizeof(To) == sizeof(From), "reinterpretation keeps the size");
    To to;
    __builtin_memcpy(&to, &from, sizeof(To));
    return to;
}
static inline int __float_as_int(float x) { return attnbench_bits<int>(x); }
static inline unsigned int __float_as_uint(float x) { return attnbench_bits<unsigned int>(x); }
static inline float __int_as_float(int x) { return attnbench_bits<float>(x); }
static inline float __uint_as_float(unsigned int x) { return attnbench_bits<float>(x); }
static inline long long __double_as_longlong(double x) { return attnbench_bits<long long>(x); }
static inline double __longlong_as_double(long long x) { return attnbench_bits<double>(x); }
static inline int __float2int_rn(float x) { return (int)lrintf(x); }
static inline int __float2int_rz(float x) { return (int)x; }
static inline int __float2int_rd(float x) { return (int)floorf(x); }
static inline int __float2int_ru(float x) { return (int)ceilf(x); }
static inline float __int2float_rn(int x) { return (float)x; }
static inline float __uint2float_rn(unsigned int x) { return (float)x; }
