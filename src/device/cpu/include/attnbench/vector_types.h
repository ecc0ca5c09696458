// vector_types.h: int2, float4 and their like, with HIP's alignments.
#pragma once
#include "device.h"

// why: clang checks the alignment of what a constructor is given, not of what it copies by itself.
#if defined(ATTNBENCH_CHECKED) && defined(__clang__)
#define ATTNBENCH_COPIES(V, T, params, args, copy, assign)                                  \
    V() = default;                                                                          \
    constexpr V params : args {}                                                            \
    V(const V& o) : copy {}                                                                 \
    V& operator=(const V& o) { assign; return *this; }
#define ATTNBENCH_COMMA ,
#define ATTNBENCH_COPIES_2(V, T)                                                            \
    ATTNBENCH_COPIES(V, T, (T a ATTNBENCH_COMMA T b), x(a) ATTNBENCH_COMMA y(b),            \
                     x(o.x) ATTNBENCH_COMMA y(o.y), x = o.x; y = o.y)
#define ATTNBENCH_COPIES_4(V, T)                                                            \
    ATTNBENCH_COPIES(V, T, (T a ATTNBENCH_COMMA T b ATTNBENCH_COMMA T c ATTNBENCH_COMMA T d), \
                     x(a) ATTNBENCH_COMMA y(b) ATTNBENCH_COMMA z(c) ATTNBENCH_COMMA w(d),   \
                     x(o.x) ATTNBENCH_COMMA y(o.y) ATTNBENCH_COMMA z(o.z) ATTNBENCH_COMMA w(o.w), \
                     x = o.x; y = o.y; z = o.z; w = o.w)
#else
#define ATTNBENCH_COPIES_2(V, T)
#define ATTNBENCH_COPIES_4(V, T)
#endif

#define ATTNBENCH_VECTORS(name, T)                                                          \
    struct name##1 { T x; };                                                                \
    struct alignas(2 * sizeof(T)) name##2 { T x, y; ATTNBENCH_COPIES_2(name##2, T) };       \
    struct alignas(4 * sizeof(T) > 16 ? 16 : 4 * sizeof(T)) name##4 {                       \
        T x, y, z, w;                                                                       \
        ATTNBENCH_COPIES_4(name##4, T)                                                      \
    };                                                                                      \
    static inline name##1 make_##name##1(T x) { return name##1{x}; }                        \
    static inline name##2 make_##name##2(T x, T y) { return name##2{x, y}; }                \
    static inline name##4 make_##name##4(T x, T y, T z, T w) { return name##4{x, y, z, w}; }

#define ATTNBENCH_VECTORS_3(name, T)                                                        \
    struct name##3 { T x, y, z; };                                                          \
    static inline name##3 make_##name##3(T x, T y, T z) { return name##3{x, y, z}; }

ATTNBENCH_VECTORS(char, signed char)
ATTNBENCH_VECTORS(uchar, unsigned char)
ATTNBENCH_VECTORS(short, short)
ATTNBENCH_VECTORS(ushort, unsigned short)
ATTNBENCH_VECTORS(int, int)
ATTNBENCH_VECTORS(uint, unsigned int)
ATTNBENCH_VECTORS(long, long)
ATTNBENCH_VECTORS(ulong, unsigned long)
ATTNBENCH_VECTORS(longlong, long long)
ATTNBENCH_VECTORS(ulonglong, unsigned long long)
ATTNBENCH_VECTORS(float, float)
ATTNBENCH_VECTORS(double, double)
ATTNBENCH_VECTORS_3(char, signed char)
ATTNBENCH_VECTORS_3(uchar, unsigned char)
ATTNBENCH_VECTORS_3(short, short)
ATTNBENCH_VECTORS_3(ushort, unsigned short)
ATTNBENCH_VECTORS_3(int, int)
ATTNBENCH_VECTORS_3(long, long)
ATTNBENCH_VECTORS_3(ulong, unsigned long)
ATTNBENCH_VECTORS_3(longlong, long long)
ATTNBENCH_VECTORS_3(ulonglong, unsigned long long)
ATTNBENCH_VECTORS_3(float, float)
ATTNBENCH_VECTORS_3(double, double)
static inline uint3 make_uint3(unsigned int x, unsigned int y, unsigned int z) {
    return uint3{x, y, z};
}

#undef ATTNBENCH_VECTORS
#undef ATTNBENCH_VECTORS_3

// Component-wise arithmetic, as HIP has it for its vectors.
#define ATTNBENCH_OPERATOR(V, op, ...)                                                      \
    static inline V operator op(V a, V b) { return V{__VA_ARGS__}; }                        \
    static inline V& operator op##=(V& a, V b) { return a = a op b; }
#define ATTNBENCH_ARITHMETIC(op)                                                            \
    ATTNBENCH_OPERATOR(float2, op, a.x op b.x, a.y op b.y)                                  \
    ATTNBENCH_OPERATOR(float3, op, a.x op b.x, a.y op b.y, a.z op b.z)                      \
    ATTNBENCH_OPERATOR(float4, op, a.x op b.x, a.y op b.y, a.z op b.z, a.w op b.w)
ATTNBENCH_ARITHMETIC(+)
ATTNBENCH_ARITHMETIC(-)
ATTNBENCH_ARITHMETIC(*)
ATTNBENCH_ARITHMETIC(/)
#undef ATTNBENCH_ARITHMETIC
#undef ATTNBENCH_OPERATOR
static inline float2 operator*(float2 a, float s) { return float2{a.x * s, a.y * s}; }
static inline float2 operator*(float s, float2 a) { return a * s; }
static inline float4 operator*(float4 a, float s) {
    return float4{a.x * s, a.y * s, a.z * s, a.w * s};
}
static inline float4 operator*(float s, float4 a) { return a * s; }
