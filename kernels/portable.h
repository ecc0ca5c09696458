// portable.h: all that differs between AMD, NVIDIA and the host, for every kernel of this folder.
//
// A kernel includes this file, and HIP's own names (threadIdx, __syncthreads, expf) beside it.
// The wave size is 32 or 64; nothing here or in the kernels assumes either.
#pragma once

#include <hip/hip_runtime.h>
#include <hip/hip_fp16.h>
#include <hip/hip_bf16.h>

// Offsets into tensors are 64-bit: a cache of 2^31 elements is ordinary.
typedef long long index_t;

// Lanes of a wave, where a type or an unrolled loop depends on it: in device code, as warpSize. AMD's RDNA
// has waves of 32 unless the compiler is told otherwise.
#if defined(__CUDACC__) || defined(__CUDACC_RTC__)
constexpr int WAVE = 32;
#elif defined(__AMDGCN__)
#if defined(__GFX9__)
constexpr int WAVE = 64;
#else
constexpr int WAVE = 32;
#endif
#else
constexpr int WAVE = warpSize;
#endif

__device__ __forceinline__ int lane_of_wave() { return threadIdx.x % WAVE; }

// A shuffle among the lanes of one wave, of a built-in type. NVIDIA wants the mask of lanes that
// take part.
template <typename T>
__device__ __forceinline__ T lane_xor(T value, int mask) {
#if defined(__CUDACC__) || defined(__CUDACC_RTC__)
    return __shfl_xor_sync(0xffffffffu, value, mask);
#else
    return __shfl_xor(value, mask);
#endif
}

// lane_xor by a mask known to the compiler: on AMD without an address, within 16 lanes mostly in the instruction
// that uses it (DPP).
template <int MASK>
__device__ __forceinline__ float lane_swap(float x) {
#if defined(__AMDGCN__)
#if defined(__GFX9__)
    // Of four lanes any order; of 16, a rotation by half.
    constexpr int DPP = MASK == 1 ? 0xb1 : MASK == 2 ? 0x4e : MASK == 8 ? 0x128 : 0;
#else
    constexpr int DPP = MASK < 16 ? 0x160 + MASK : 0;
#endif
    const int bits = __float_as_int(x);
    if constexpr (DPP != 0) return __int_as_float(__builtin_amdgcn_mov_dpp(bits, DPP, 0xf, 0xf, true));
    if constexpr (MASK < 32) return __int_as_float(__builtin_amdgcn_ds_swizzle(bits, MASK << 10 | 0x1f));
#endif
    return lane_xor(x, MASK);
}

// The value of another lane of the wave.
template <typename T>
__device__ __forceinline__ T lane_from(T value, int lane) {
#if defined(__CUDACC__) || defined(__CUDACC_RTC__)
    return __shfl_sync(0xffffffffu, value, lane);
#else
    return __shfl(value, lane);
#endif
}

// A number that is the same in all lanes of a wave, which a compiler for AMD does not see by itself: it then keeps
// addresses and loops in vector registers and masks.
__device__ __forceinline__ int same_in_wave(int x) {
#if defined(__AMDGCN__)
    return __builtin_amdgcn_readfirstlane(x);
#else
    return x;
#endif
}

// Asks the device's cache for what lies there, which nobody waits for. Where there is no such thing, nothing.
#if defined(__CUDACC__) || defined(__CUDACC_RTC__)
constexpr bool ASKS_CACHE = true;
__device__ __forceinline__ void ask_cache(const void *where) {
    asm volatile("prefetch.global.L2 [%0];" : : "l"(where));
}
#else
constexpr bool ASKS_CACHE = false;
__device__ __forceinline__ void ask_cache(const void *) {}
#endif

// Whether one of the wave's lanes says so.
__device__ __forceinline__ bool any_lane(bool says) {
#if defined(__CUDACC__) || defined(__CUDACC_RTC__)
    return __any_sync(0xffffffffu, says);
#else
    return __any(says);
#endif
}

// Takes a number from a counter in the device's memory, and with it all that was written before others
// took theirs: by this thread, and by those that met it at a barrier.
__device__ __forceinline__ unsigned ticket(unsigned *counter) {
#if defined(__CUDACC__) || defined(__CUDACC_RTC__)
    unsigned taken;
    asm volatile("atom.add.acq_rel.gpu.global.u32 %0, [%1], 1;" : "=r"(taken) : "l"(counter) : "memory");
    return taken;
#else
    return __hip_atomic_fetch_add(counter, 1u, __ATOMIC_ACQ_REL, __HIP_MEMORY_SCOPE_AGENT);
#endif
}

// What orders the lanes of a wave where they pass something through shared memory.
__device__ __forceinline__ void wave_sync() {
#if defined(__AMDGCN__)
    __builtin_amdgcn_fence(__ATOMIC_RELEASE, "wavefront");
    __builtin_amdgcn_wave_barrier();
    __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "wavefront");
#else
    __syncwarp();
#endif
}

// Element types in and out of f32, one rounding each.
__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(__half x) { return __half2float(x); }
__device__ __forceinline__ float to_float(__hip_bfloat16 x) { return __bfloat162float(x); }

template <typename T> struct rounded;
template <> struct rounded<float> {
    static __device__ __forceinline__ float from(float x) { return x; }
};
template <> struct rounded<__half> {
    static __device__ __forceinline__ __half from(float x) { return __float2half(x); }
};
template <> struct rounded<__hip_bfloat16> {
    static __device__ __forceinline__ __hip_bfloat16 from(float x) { return __float2bfloat16(x); }
};

// Lanes of a wave that a block of `threads` (a power of two, or a multiple of the wave) fills.
__device__ __forceinline__ int lanes_of(int threads) {
    return threads < warpSize ? threads : warpSize;
}

struct take_max {
    __device__ __forceinline__ float operator()(float a, float b) const { return fmaxf(a, b); }
};
struct take_sum {
    __device__ __forceinline__ float operator()(float a, float b) const { return a + b; }
};

// Slots of shared memory that block_reduce needs: one a wave, for a block of up to 1024 threads.
#define BLOCK_REDUCE_SLOTS 32

// Reduces `x` over a one-dimensional block; every thread gets the result. `slots` is shared
// memory, BLOCK_REDUCE_SLOTS of T. There is one barrier in it, which no thread passes before all
// have come. Ends with the slots still being read: the caller has a barrier of its own before
// the same slots are used again. `op` must give the same for (a, b) and (b, a), to the bit.
template <typename T, typename Op>
__device__ __forceinline__ T block_reduce(T x, T *slots, Op op) {
    const int threads = blockDim.x;
    for (int mask = lanes_of(threads) / 2; mask > 0; mask /= 2) x = op(x, lane_xor(x, mask));
    const int wave = threadIdx.x / warpSize, waves = (threads + warpSize - 1) / warpSize;
    if (threadIdx.x % warpSize == 0) slots[wave] = x;
    __syncthreads();
    x = slots[0];
    for (int w = 1; w < waves; ++w) x = op(x, slots[w]);
    return x;
}

// 2^x by the instruction for it: within 2 ulp, and 0 may stand for what is below 2^-126.
__device__ __forceinline__ float power_of_2(float x) {
#if defined(__CUDACC__) || defined(__CUDACC_RTC__)
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#elif defined(__AMDGCN__) && __has_builtin(__builtin_amdgcn_exp2f)
    return __builtin_amdgcn_exp2f(x);
#else
    return exp2f(x);
#endif
}

// 16 bytes of memory that is used once.
__device__ __forceinline__ uint4 load16(const void *from) {
#if defined(__CUDACC__) || defined(__CUDACC_RTC__)
    uint4 x;
    asm volatile("ld.global.nc.L1::evict_first.L2::256B.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w) : "l"(from));
    return x;
#else
    return *(const uint4 *)from;
#endif
}

// Softmax scale, and the softcap where there is one.
__device__ __forceinline__ float finish_score(float dot, float scale, float softcap) {
    const float s = dot * scale;
    return softcap > 0.0f ? softcap * tanhf(s / softcap) : s;
}

// The first attended key of a sequence: all keys, or the last `window_len`.
__device__ __forceinline__ int first_key(int seq_len, int window_len) {
    return window_len > 0 && window_len < seq_len ? seq_len - window_len : 0;
}

// exp(score - maximum), the weight of a key before it is normalised. A NaN score passes: what is
// not a number must show.
__device__ __forceinline__ float weight_of(float score, float maximum) {
    // why: where every score so far is -inf, so is the maximum, and -inf - -inf is NaN.
    return score == -INFINITY ? 0.0f : expf(score - maximum);
}

// A weighted sum divided by the sum of its weights. Where nothing has weight the sum is 0, or NaN
// from a value that was multiplied by 0, and stays what it is. A total that is NaN passes.
__device__ __forceinline__ float normalised(float sum, float total) {
    return total == 0.0f ? sum : sum / total;
}
