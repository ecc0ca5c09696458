// The names that HIP has and CUDA lacks, for nvcc: just those that the kernels of this suite use.
//
// Nothing else in the kernels changes for CUDA, so what a tool reports, it reports of their lines.

#pragma once

#include <cuda_runtime.h>

// The lanes that the block was launched with in this wave. HIP has shuffles and votes without a
// mask, CUDA only with one, and there a kernel that means its whole wave names all 32 lanes, or as
// many as the block has. So does this: lanes that have returned since are named, too, where
// __activemask() would leave them out and hide the fault from the tools.
__device__ __forceinline__ unsigned int attnbench_lanes() {
    const unsigned int threads = blockDim.x * blockDim.y * blockDim.z;
    const unsigned int thread =
        threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
    const unsigned int behind = threads - (thread & ~31u);
    return behind >= 32 ? ~0u : (1u << behind) - 1;
}

// Macros, as CUDA declares functions of these names. HIP's masks have 64 bits, CUDA's 32.
#define ATTNBENCH_MASK(mask) static_cast<unsigned int>(mask)

#define __shfl_sync(mask, ...) __shfl_sync(ATTNBENCH_MASK(mask), __VA_ARGS__)
#define __shfl_up_sync(mask, ...) __shfl_up_sync(ATTNBENCH_MASK(mask), __VA_ARGS__)
#define __shfl_down_sync(mask, ...) __shfl_down_sync(ATTNBENCH_MASK(mask), __VA_ARGS__)
#define __shfl_xor_sync(mask, ...) __shfl_xor_sync(ATTNBENCH_MASK(mask), __VA_ARGS__)
#define __ballot_sync(mask, ...) __ballot_sync(ATTNBENCH_MASK(mask), __VA_ARGS__)
#define __any_sync(mask, ...) __any_sync(ATTNBENCH_MASK(mask), __VA_ARGS__)
#define __all_sync(mask, ...) __all_sync(ATTNBENCH_MASK(mask), __VA_ARGS__)

#define __shfl(...) __shfl_sync(attnbench_lanes(), __VA_ARGS__)
#define __shfl_up(...) __shfl_up_sync(attnbench_lanes(), __VA_ARGS__)
#define __shfl_down(...) __shfl_down_sync(attnbench_lanes(), __VA_ARGS__)
#define __shfl_xor(...) __shfl_xor_sync(attnbench_lanes(), __VA_ARGS__)
#define __ballot(...) static_cast<unsigned long long>(__ballot_sync(attnbench_lanes(), __VA_ARGS__))
#define __any(...) __any_sync(attnbench_lanes(), __VA_ARGS__)
#define __all(...) __all_sync(attnbench_lanes(), __VA_ARGS__)
