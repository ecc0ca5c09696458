// vector_types.h: int2, float4 and their like, with HIP's alignments. Included between pragmas that make
// every function one of either side.
//
// why: the compiler keeps a copied struct of four floats in memory, and puts it into LDS or scratch; as
// one vector it stays in registers. HIP's own types are unions with a vector for that.
#pragma once
#include "device.h"

#define ATTNBENCH_MAKERS(name, T)                                                           \
    static inline name##1 make_##name##1(T x) { return name##1{x}; }                        \
    static inline name##2 make_##name##2(T x, T y) { return name##2{x, y}; }                \
    static inline name##4 make_##name##4(T x, T y, T z, T w) { return name##4{x, y, z, w}; }
#define ATTNBENCH_PAIR(name, T)                                                             \
    struct name##1 { T x; };                                                                \
    typedef T attnbench_##name##2 __attribute__((ext_vector_type(2)));                      \
    struct alignas(2 * sizeof(T)) name##2 {                                                 \
        union {                                                                             \
            struct { T x, y; };                                                             \
            attnbench_##name##2 data;                                                       \
        };                                                                                  \
    };
#define ATTNBENCH_VECTORS(name, T)                                                          \
    ATTNBENCH_PAIR(name, T)                                                                 \
    typedef T attnbench_##name##4 __attribute__((ext_vector_type(4)));                      \
    struct alignas(4 * sizeof(T)) name##4 {                                                 \
        union {                                                                             \
            struct { T x, y, z, w; };                                                       \
            attnbench_##name##4 data;                                                       \
        };                                                                                  \
    };                                                                                      \
    ATTNBENCH_MAKERS(name, T)
// Of 8 bytes an element, four are more than one access moves.
#define ATTNBENCH_LARGE(name, T)                                                            \
    ATTNBENCH_PAIR(name, T)                                                                 \
    struct alignas(16) name##4 { T x, y, z, w; };                                           \
    ATTNBENCH_MAKERS(name, T)
#define ATTNBENCH_VECTORS_3(name, T)                                                        \
    struct name##3 { T x, y, z; };                                                          \
    static inline name##3 make_##name##3(T x, T y, T z) { return name##3{x, y, z}; }

ATTNBENCH_VECTORS(char, signed char)
ATTNBENCH_VECTORS(uchar, unsigned char)
ATTNBENCH_VECTORS(short, short)
ATTNBENCH_VECTORS(ushort, unsigned short)
ATTNBENCH_VECTORS(int, int)
ATTNBENCH_VECTORS(uint, unsigned int)
ATTNBENCH_LARGE(long, long)
ATTNBENCH_LARGE(ulong, unsigned long)
ATTNBENCH_LARGE(longlong, long long)
ATTNBENCH_LARGE(ulonglong, unsigned long long)
ATTNBENCH_VECTORS(float, float)
ATTNBENCH_LARGE(double, double)
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

#undef ATTNBENCH_MAKERS
#undef ATTNBENCH_PAIR
#undef ATTNBENCH_VECTORS
#undef ATTNBENCH_LARGE
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
