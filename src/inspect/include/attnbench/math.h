// math.h: device arithmetic. What the backend lowers itself (exp, log, sqrt, division, rounding) goes
// to it as it is, as ROCm's device library does; the rest is in reduce.h and reduce64.h.
#pragma once
#include "device.h"
#include "reduce.h"
#include "reduce64.h"

#ifndef INFINITY
#define INFINITY __builtin_inff()
#define NAN __builtin_nanf("")
#define HUGE_VALF __builtin_inff()
#define HUGE_VAL __builtin_inf()
#endif
#ifndef M_PI
#define M_E 2.7182818284590452354
#define M_LOG2E 1.4426950408889634074
#define M_LOG10E 0.43429448190325182765
#define M_LN2 0.69314718055994530942
#define M_LN10 2.30258509299404568402
#define M_PI 3.14159265358979323846
#define M_PI_2 1.57079632679489661923
#define M_PI_4 0.78539816339744830962
#define M_1_PI 0.31830988618379067154
#define M_2_PI 0.63661977236758134308
#define M_2_SQRTPI 1.12837916709551257390
#define M_SQRT2 1.41421356237309504880
#define M_SQRT1_2 0.70710678118654752440
#endif

// One-argument functions: the backend's own f32 form, and the f64 one where it has that too.
#define ATTNBENCH_F32(name) \
    ATTNBENCH_INLINE float name##f(float x) { return __builtin_##name##f(x); }
#define ATTNBENCH_F64(name) \
    ATTNBENCH_INLINE double name(double x) { return __builtin_##name(x); }
ATTNBENCH_F32(exp) ATTNBENCH_F32(exp2) ATTNBENCH_F32(exp10)
ATTNBENCH_F32(log) ATTNBENCH_F32(log2) ATTNBENCH_F32(log10)
ATTNBENCH_F32(sqrt) ATTNBENCH_F64(sqrt)
ATTNBENCH_F32(fabs) ATTNBENCH_F64(fabs)
ATTNBENCH_F32(floor) ATTNBENCH_F64(floor)
ATTNBENCH_F32(ceil) ATTNBENCH_F64(ceil)
ATTNBENCH_F32(trunc) ATTNBENCH_F64(trunc)
ATTNBENCH_F32(round) ATTNBENCH_F64(round)
ATTNBENCH_F32(rint) ATTNBENCH_F64(rint)
ATTNBENCH_F32(nearbyint) ATTNBENCH_F64(nearbyint)
#undef ATTNBENCH_F32
#undef ATTNBENCH_F64
#define ATTNBENCH_BINARY(name)                                                              \
    ATTNBENCH_INLINE float name##f(float x, float y) { return __builtin_##name##f(x, y); }  \
    ATTNBENCH_INLINE double name(double x, double y) { return __builtin_##name(x, y); }     \
    ATTNBENCH_INLINE float name(float x, float y) { return __builtin_##name##f(x, y); }
ATTNBENCH_BINARY(fmax)
ATTNBENCH_BINARY(fmin)
ATTNBENCH_BINARY(fmod)
ATTNBENCH_BINARY(copysign)
#undef ATTNBENCH_BINARY
ATTNBENCH_INLINE float fmaf(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
ATTNBENCH_INLINE double fma(double a, double b, double c) { return __builtin_fma(a, b, c); }
ATTNBENCH_INLINE float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
ATTNBENCH_INLINE float fdimf(float x, float y) { return x > y ? x - y : x <= y ? 0.0f : x + y; }
ATTNBENCH_INLINE float ldexpf(float x, int e) { return __builtin_ldexpf(x, e); }
ATTNBENCH_INLINE double ldexp(double x, int e) { return __builtin_ldexp(x, e); }
ATTNBENCH_INLINE float ldexp(float x, int e) { return __builtin_ldexpf(x, e); }
ATTNBENCH_INLINE float scalbnf(float x, int e) { return __builtin_ldexpf(x, e); }
ATTNBENCH_INLINE float frexpf(float x, int* e) { return __builtin_frexpf(x, e); }
ATTNBENCH_INLINE double frexp(double x, int* e) { return __builtin_frexp(x, e); }
ATTNBENCH_INLINE float hypotf(float x, float y) {
    return (float)__builtin_sqrt((double)x * x + (double)y * y);
}
ATTNBENCH_INLINE long lrintf(float x) { return (long)__builtin_rintf(x); }
ATTNBENCH_INLINE long lroundf(float x) { return (long)__builtin_roundf(x); }
ATTNBENCH_INLINE float rsqrtf(float x) {
    // why: the instruction takes no subnormal.
    const bool small = x < 0x1p-100f;
    return __builtin_amdgcn_rsqf(small ? x * 0x1p+100f : x) * (small ? 0x1p+50f : 1.0f);
}
ATTNBENCH_INLINE double rsqrt(double x) { return 1.0 / __builtin_sqrt(x); }
ATTNBENCH_INLINE float rsqrt(float x) { return rsqrtf(x); }

// The overloads of C++: f32, and integers as f64.
template <class T, bool = __is_integral(T)> struct attnbench_integer {};
template <class T> struct attnbench_integer<T, true> { using type = double; };
#define ATTNBENCH_OVERLOAD(name)                                                            \
    ATTNBENCH_INLINE float name(float x) { return name##f(x); }                             \
    template <class T>                                                                      \
    ATTNBENCH_INLINE typename attnbench_integer<T>::type name(T x) { return name((double)x); }
ATTNBENCH_OVERLOAD(exp) ATTNBENCH_OVERLOAD(exp2)
ATTNBENCH_OVERLOAD(log) ATTNBENCH_OVERLOAD(log2) ATTNBENCH_OVERLOAD(log10)
ATTNBENCH_OVERLOAD(sqrt) ATTNBENCH_OVERLOAD(fabs) ATTNBENCH_OVERLOAD(floor)
ATTNBENCH_OVERLOAD(ceil) ATTNBENCH_OVERLOAD(trunc) ATTNBENCH_OVERLOAD(round)
ATTNBENCH_OVERLOAD(rint) ATTNBENCH_OVERLOAD(nearbyint)
ATTNBENCH_OVERLOAD(sin) ATTNBENCH_OVERLOAD(cos) ATTNBENCH_OVERLOAD(tanh)
#undef ATTNBENCH_OVERLOAD
ATTNBENCH_INLINE float pow(float x, float y) { return powf(x, y); }
ATTNBENCH_INLINE double pow(float x, int y) { return pow((double)x, (double)y); }
ATTNBENCH_INLINE double pow(double x, int y) { return pow(x, (double)y); }
ATTNBENCH_INLINE double pow(int x, int y) { return pow((double)x, (double)y); }
ATTNBENCH_INLINE float expm1(float x) { return expm1f(x); }
ATTNBENCH_INLINE float log1p(float x) { return log1pf(x); }
ATTNBENCH_INLINE float erf(float x) { return erff(x); }
ATTNBENCH_INLINE float tan(float x) { return tanf(x); }
// A template: libstdc++'s own overloads, where a source includes them, come before it.
template <class T> ATTNBENCH_INLINE T abs(T x) { return x < 0 ? -x : x; }
template <> __device__ inline float abs(float x) { return __builtin_fabsf(x); }
template <> __device__ inline double abs(double x) { return __builtin_fabs(x); }

template <class T> ATTNBENCH_INLINE bool isnan(T x) { return x != x; }
template <class T> ATTNBENCH_INLINE bool isfinite(T x) { return x - x == 0; }
template <class T> ATTNBENCH_INLINE bool isinf(T x) { return x == x && x - x != 0; }
ATTNBENCH_INLINE bool signbit(float x) { return attnbench_bits<int>(x) < 0; }
ATTNBENCH_INLINE bool signbit(double x) { return attnbench_bits<long long>(x) < 0; }

// The fast forms: one instruction and a multiplication.
ATTNBENCH_INLINE float __expf(float x) { return __builtin_amdgcn_exp2f(x * 0x1.715476p+0f); }
ATTNBENCH_INLINE float __exp10f(float x) { return __builtin_amdgcn_exp2f(x * 0x1.a934f0p+1f); }
ATTNBENCH_INLINE float __log2f(float x) { return __builtin_amdgcn_logf(x); }
ATTNBENCH_INLINE float __logf(float x) { return __builtin_amdgcn_logf(x) * 0x1.62e430p-1f; }
ATTNBENCH_INLINE float __log10f(float x) { return __builtin_amdgcn_logf(x) * 0x1.344136p-2f; }
ATTNBENCH_INLINE float __sinf(float x) {
    return __builtin_amdgcn_sinf(__builtin_amdgcn_fractf(x * 0x1.45f306p-3f));
}
ATTNBENCH_INLINE float __cosf(float x) {
    return __builtin_amdgcn_cosf(__builtin_amdgcn_fractf(x * 0x1.45f306p-3f));
}
ATTNBENCH_INLINE float __tanf(float x) { return __sinf(x) * __builtin_amdgcn_rcpf(__cosf(x)); }
ATTNBENCH_INLINE float __powf(float x, float y) { return powf(x, y); }
ATTNBENCH_INLINE void __sincosf(float x, float* s, float* c) { *s = __sinf(x); *c = __cosf(x); }
ATTNBENCH_INLINE float __frsqrt_rn(float x) { return __builtin_amdgcn_rsqf(x); }
ATTNBENCH_INLINE float __fsqrt_rn(float x) { return __builtin_sqrtf(x); }
ATTNBENCH_INLINE float __frcp_rn(float x) { return 1.0f / x; }
ATTNBENCH_INLINE float __fdividef(float a, float b) { return a / b; }
ATTNBENCH_INLINE float fdividef(float a, float b) { return a / b; }
ATTNBENCH_INLINE float __fdiv_rn(float a, float b) { return a / b; }
ATTNBENCH_INLINE float __fadd_rn(float a, float b) { return a + b; }
ATTNBENCH_INLINE float __fsub_rn(float a, float b) { return a - b; }
ATTNBENCH_INLINE float __fmul_rn(float a, float b) { return a * b; }
ATTNBENCH_INLINE float __fmaf_rn(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
ATTNBENCH_INLINE float __saturatef(float x) { return x > 0 ? (x < 1 ? x : 1.0f) : 0.0f; }

#define ATTNBENCH_MINMAX(T)                                                                 \
    ATTNBENCH_INLINE T min(T a, T b) { return b < a ? b : a; }                              \
    ATTNBENCH_INLINE T max(T a, T b) { return a < b ? b : a; }
ATTNBENCH_MINMAX(int)
ATTNBENCH_MINMAX(unsigned int)
ATTNBENCH_MINMAX(long)
ATTNBENCH_MINMAX(unsigned long)
ATTNBENCH_MINMAX(long long)
ATTNBENCH_MINMAX(unsigned long long)
#undef ATTNBENCH_MINMAX
// A NaN gives way to a number.
ATTNBENCH_INLINE float min(float a, float b) { return __builtin_fminf(a, b); }
ATTNBENCH_INLINE float max(float a, float b) { return __builtin_fmaxf(a, b); }
ATTNBENCH_INLINE double min(double a, double b) { return __builtin_fmin(a, b); }
ATTNBENCH_INLINE double max(double a, double b) { return __builtin_fmax(a, b); }
// Operands of two types meet in the type that arithmetic would give them, where HIP declares it.
#define ATTNBENCH_MIXED(A, B, T)                                                            \
    ATTNBENCH_INLINE T min(A a, B b) { return min((T)a, (T)b); }                            \
    ATTNBENCH_INLINE T max(A a, B b) { return max((T)a, (T)b); }                            \
    ATTNBENCH_INLINE T min(B a, A b) { return min((T)a, (T)b); }                            \
    ATTNBENCH_INLINE T max(B a, A b) { return max((T)a, (T)b); }
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

ATTNBENCH_INLINE int __popc(unsigned int x) { return __builtin_popcount(x); }
ATTNBENCH_INLINE int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
ATTNBENCH_INLINE int __clz(int x) { return x ? __builtin_clz((unsigned int)x) : 32; }
ATTNBENCH_INLINE int __clzll(long long x) {
    return x ? __builtin_clzll((unsigned long long)x) : 64;
}
ATTNBENCH_INLINE int __ffs(int x) { return x ? __builtin_ctz((unsigned int)x) + 1 : 0; }
ATTNBENCH_INLINE int __ffsll(long long x) {
    return x ? __builtin_ctzll((unsigned long long)x) + 1 : 0;
}
ATTNBENCH_INLINE unsigned int __brev(unsigned int x) { return __builtin_bitreverse32(x); }
ATTNBENCH_INLINE int __mul24(int a, int b) { return (a << 8 >> 8) * (b << 8 >> 8); }
ATTNBENCH_INLINE unsigned int __umulhi(unsigned int a, unsigned int b) {
    return (unsigned int)((unsigned long long)a * b >> 32);
}

ATTNBENCH_INLINE int __float_as_int(float x) { return attnbench_bits<int>(x); }
ATTNBENCH_INLINE unsigned int __float_as_uint(float x) { return attnbench_bits<unsigned int>(x); }
ATTNBENCH_INLINE float __int_as_float(int x) { return attnbench_bits<float>(x); }
ATTNBENCH_INLINE float __uint_as_float(unsigned int x) { return attnbench_bits<float>(x); }
ATTNBENCH_INLINE long long __double_as_longlong(double x) { return attnbench_bits<long long>(x); }
ATTNBENCH_INLINE double __longlong_as_double(long long x) { return attnbench_bits<double>(x); }
ATTNBENCH_INLINE int __float2int_rn(float x) { return (int)__builtin_rintf(x); }
ATTNBENCH_INLINE int __float2int_rz(float x) { return (int)x; }
ATTNBENCH_INLINE int __float2int_rd(float x) { return (int)__builtin_floorf(x); }
ATTNBENCH_INLINE int __float2int_ru(float x) { return (int)__builtin_ceilf(x); }
ATTNBENCH_INLINE float __int2float_rn(int x) { return (float)x; }
ATTNBENCH_INLINE float __uint2float_rn(unsigned int x) { return (float)x; }
