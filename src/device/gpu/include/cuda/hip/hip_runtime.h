// hip_runtime.h: HIP's device side on NVIDIA, for NVRTC: the names that HIP has and CUDA lacks.
//
// Kernels are compiled as they are; nothing here changes what CUDA's own names mean, but for masks,
// which HIP has in 64 bits.
#pragma once
#ifndef __HIP_PLATFORM_NVIDIA__
#define __HIP_PLATFORM_NVIDIA__ 1
#endif
#define __HIP__ 1
#define __HIPCC__ 1
#define __HIP_DEVICE_COMPILE__ 1

#include <stdint.h>

#ifndef INFINITY
#define INFINITY __int_as_float(0x7f800000)
#endif
#ifndef NAN
#define NAN __int_as_float(0x7fffffff)
#endif
#ifndef HUGE_VALF
#define HUGE_VALF INFINITY
#endif
#ifndef HIP_INF_F
#define HIP_INF_F INFINITY
#define HIP_NAN_F NAN
#endif

#ifndef __noinline__
#define __noinline__ __attribute__((noinline))
#endif

#define hipThreadIdx_x threadIdx.x
#define hipThreadIdx_y threadIdx.y
#define hipThreadIdx_z threadIdx.z
#define hipBlockIdx_x blockIdx.x
#define hipBlockIdx_y blockIdx.y
#define hipBlockIdx_z blockIdx.z
#define hipBlockDim_x blockDim.x
#define hipBlockDim_y blockDim.y
#define hipBlockDim_z blockDim.z
#define hipGridDim_x gridDim.x
#define hipGridDim_y gridDim.y
#define hipGridDim_z gridDim.z
#define HIP_DYNAMIC_SHARED(type, name) extern __shared__ type name[];

// The lanes that the block was launched with in this warp. HIP has shuffles and votes without a mask
// and CUDA only with one; a kernel that means its whole wave then names as many lanes as there are.
__device__ __forceinline__ unsigned int attnbench_lanes() {
    const unsigned int threads = blockDim.x * blockDim.y * blockDim.z;
    const unsigned int thread =
        threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
    const unsigned int behind = threads - (thread & ~31u);
    return behind >= 32 ? ~0u : (1u << behind) - 1;
}

// HIP's masks have 64 bits. CUDA's own functions are a better match for 32.
#define ATTNBENCH_OF_WAVE(name, parameters, ...)                                             \
    template <typename T>                                                                    \
    __device__ __forceinline__ T name##_sync(                                                \
        unsigned long long mask, T value, parameters, int width = warpSize) {                \
        return name##_sync((unsigned int)mask, value, __VA_ARGS__, width);                   \
    }                                                                                        \
    template <typename T>                                                                    \
    __device__ __forceinline__ T name##_sync(                                                \
        unsigned long mask, T value, parameters, int width = warpSize) {                     \
        return name##_sync((unsigned int)mask, value, __VA_ARGS__, width);                   \
    }                                                                                        \
    template <typename T>                                                                    \
    __device__ __forceinline__ T name(T value, parameters, int width = warpSize) {           \
        return name##_sync(attnbench_lanes(), value, __VA_ARGS__, width);                    \
    }
ATTNBENCH_OF_WAVE(__shfl, int lane, lane)
ATTNBENCH_OF_WAVE(__shfl_up, unsigned int by, by)
ATTNBENCH_OF_WAVE(__shfl_down, unsigned int by, by)
ATTNBENCH_OF_WAVE(__shfl_xor, int mask_of_lanes, mask_of_lanes)
#undef ATTNBENCH_OF_WAVE

#define ATTNBENCH_VOTE(type, name)                                                           \
    __device__ __forceinline__ type name##_sync(unsigned long long mask, int vote) {         \
        return name##_sync((unsigned int)mask, vote);                                        \
    }                                                                                        \
    __device__ __forceinline__ type name##_sync(unsigned long mask, int vote) {              \
        return name##_sync((unsigned int)mask, vote);                                        \
    }
ATTNBENCH_VOTE(unsigned long long, __ballot)
ATTNBENCH_VOTE(int, __any)
ATTNBENCH_VOTE(int, __all)
#undef ATTNBENCH_VOTE
// Macros, as CUDA still declares functions of these names, for old devices.
#define __ballot(vote) ((unsigned long long)__ballot_sync(attnbench_lanes(), vote))
#define __any(vote) __any_sync(attnbench_lanes(), vote)
#define __all(vote) __all_sync(attnbench_lanes(), vote)

__device__ __forceinline__ void __syncwarp(unsigned long long mask) {
    __syncwarp((unsigned int)mask);
}

__device__ __forceinline__ unsigned int __lane_id() {
    unsigned int lane;
    asm("mov.u32 %0, %%laneid;" : "=r"(lane));
    return lane;
}
