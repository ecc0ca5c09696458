// device.h: HIP's names for what an AMD GPU has, on the compiler's own builtins.
//
// Code compiled with these headers is read, never run: there is no ROCm in it, so it must say by
// itself what ROCm's headers and device library say. Blocks are of uniform size, as HIP's launches
// are, so blockDim is read where the runtime leaves it (code object v5: the hidden arguments).
#pragma once

// Not <stdint.h>: nothing here needs a C library. The same types, so that both may be included.
typedef __INT8_TYPE__ int8_t;
typedef __INT16_TYPE__ int16_t;
typedef __INT32_TYPE__ int32_t;
typedef __INT64_TYPE__ int64_t;
typedef __UINT8_TYPE__ uint8_t;
typedef __UINT16_TYPE__ uint16_t;
typedef __UINT32_TYPE__ uint32_t;
typedef __UINT64_TYPE__ uint64_t;
typedef __INTPTR_TYPE__ intptr_t;
typedef __UINTPTR_TYPE__ uintptr_t;
typedef __SIZE_TYPE__ size_t;

#define __global__ __attribute__((global))
#define __device__ __attribute__((device))
#define __host__ __attribute__((host))
#define __constant__ __attribute__((constant))
#define __shared__ __attribute__((shared))
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __align__(n) __attribute__((aligned(n)))
// clang's launch_bounds is NVIDIA's and says nothing to this backend. The second argument of HIP's
// is waves a SIMD.
#define ATTNBENCH_BOUNDS_1(threads) __attribute__((amdgpu_flat_work_group_size(1, threads)))
#define ATTNBENCH_BOUNDS_2(threads, waves) \
    __attribute__((amdgpu_flat_work_group_size(1, threads), amdgpu_waves_per_eu(waves)))
#define ATTNBENCH_BOUNDS(_1, _2, NAME, ...) NAME
#define __launch_bounds__(...) \
    ATTNBENCH_BOUNDS(__VA_ARGS__, ATTNBENCH_BOUNDS_2, ATTNBENCH_BOUNDS_1, )(__VA_ARGS__)

#define ATTNBENCH_INLINE static __device__ __forceinline__

constexpr int warpSize = ATTNBENCH_WAVE;

struct uint3 { unsigned int x, y, z; };

struct dim3 {
    unsigned int x, y, z;
    constexpr __host__ __device__ dim3(unsigned int x_ = 1, unsigned int y_ = 1, unsigned int z_ = 1)
        : x(x_), y(y_), z(z_) {}
    constexpr __host__ __device__ dim3(uint3 v) : x(v.x), y(v.y), z(v.z) {}
    constexpr __host__ __device__ operator uint3() const { return uint3{x, y, z}; }
};

#define ATTNBENCH_CONSTANT __attribute__((address_space(4)))
// The hidden arguments of code object v5: blocks along each axis (u32), then threads of a block (u16).
ATTNBENCH_INLINE unsigned int attnbench_blocks(unsigned int axis) {
    return ((const ATTNBENCH_CONSTANT uint32_t*)__builtin_amdgcn_implicitarg_ptr())[axis];
}
ATTNBENCH_INLINE unsigned int attnbench_threads(unsigned int axis) {
    return ((const ATTNBENCH_CONSTANT uint16_t*)__builtin_amdgcn_implicitarg_ptr())[6 + axis];
}
#undef ATTNBENCH_CONSTANT

#define ATTNBENCH_COORDINATES(name, X, Y, Z)                                                \
    struct attnbench_##name {                                                               \
        static __device__ __forceinline__ unsigned int get_x() { return X; }                \
        static __device__ __forceinline__ unsigned int get_y() { return Y; }                \
        static __device__ __forceinline__ unsigned int get_z() { return Z; }                \
        __declspec(property(get = get_x)) unsigned int x;                                   \
        __declspec(property(get = get_y)) unsigned int y;                                   \
        __declspec(property(get = get_z)) unsigned int z;                                   \
        __device__ operator dim3() const { return dim3(X, Y, Z); }                          \
        __device__ operator uint3() const { return uint3{X, Y, Z}; }                        \
    };                                                                                      \
    extern const __device__ __attribute__((weak)) attnbench_##name name;
ATTNBENCH_COORDINATES(threadIdx, __builtin_amdgcn_workitem_id_x(),
                      __builtin_amdgcn_workitem_id_y(), __builtin_amdgcn_workitem_id_z())
ATTNBENCH_COORDINATES(blockIdx, __builtin_amdgcn_workgroup_id_x(),
                      __builtin_amdgcn_workgroup_id_y(), __builtin_amdgcn_workgroup_id_z())
ATTNBENCH_COORDINATES(blockDim, attnbench_threads(0), attnbench_threads(1), attnbench_threads(2))
ATTNBENCH_COORDINATES(gridDim, attnbench_blocks(0), attnbench_blocks(1), attnbench_blocks(2))
#undef ATTNBENCH_COORDINATES

[[noreturn]] ATTNBENCH_INLINE void __trap() { __builtin_trap(); }
[[noreturn]] ATTNBENCH_INLINE void abort() { __builtin_trap(); }
// ROCm's assert prints through the host before it traps; that code is not here.
#ifdef NDEBUG
#define assert(x) ((void)0)
#else
#define assert(x) ((x) ? (void)0 : __builtin_trap())
#endif
// ROCm's printf writes its arguments into a buffer that the host reads; here they are only used.
template <class... T>
ATTNBENCH_INLINE int printf(const char*, T... arguments) {
    int sink[] = {0, ((void)arguments, 0)...};
    return sink[0];
}

// ROCm's device heap is not here; clang's own <new> wants the names.
ATTNBENCH_INLINE void* malloc(size_t) { __builtin_trap(); }
ATTNBENCH_INLINE void free(void*) { __builtin_trap(); }

ATTNBENCH_INLINE void* memcpy(void* to, const void* from, size_t bytes) {
    return __builtin_memcpy(to, from, bytes);
}
ATTNBENCH_INLINE void* memmove(void* to, const void* from, size_t bytes) {
    return __builtin_memmove(to, from, bytes);
}
ATTNBENCH_INLINE void* memset(void* to, int byte, size_t bytes) {
    return __builtin_memset(to, byte, bytes);
}

template <class To, class From>
ATTNBENCH_INLINE To attnbench_bits(From from) {
    static_assert(sizeof(To) == sizeof(From), "reinterpretation keeps the size");
    To to;
    __builtin_memcpy(&to, &from, sizeof(To));
    return to;
}
