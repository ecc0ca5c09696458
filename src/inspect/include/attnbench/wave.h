// wave.h: barriers, shuffles and votes, as ROCm's headers build them: a shuffle is one
// ds_bpermute for each 4 bytes, a vote a comparison into a lane mask.
#pragma once
#include "device.h"

ATTNBENCH_INLINE void __syncthreads() {
    __builtin_amdgcn_fence(__ATOMIC_RELEASE, "workgroup");
    __builtin_amdgcn_s_barrier();
    __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "workgroup");
}

ATTNBENCH_INLINE unsigned int __lane_id() {
#if ATTNBENCH_WAVE == 64
    return __builtin_amdgcn_mbcnt_hi(~0u, __builtin_amdgcn_mbcnt_lo(~0u, 0));
#else
    return __builtin_amdgcn_mbcnt_lo(~0u, 0);
#endif
}

ATTNBENCH_INLINE unsigned long long __ballot(int p) {
#if ATTNBENCH_WAVE == 64
    return __builtin_amdgcn_ballot_w64(p != 0);
#else
    return __builtin_amdgcn_ballot_w32(p != 0);
#endif
}
ATTNBENCH_INLINE int __any(int p) { return __ballot(p) != 0; }
ATTNBENCH_INLINE int __all(int p) { return __ballot(!p) == 0; }
ATTNBENCH_INLINE unsigned long long __activemask() { return __ballot(1); }
ATTNBENCH_INLINE unsigned long long __ballot_sync(uint64_t mask, int p) { return __ballot(p) & mask; }
ATTNBENCH_INLINE int __any_sync(uint64_t mask, int p) { return __ballot_sync(mask, p) != 0; }
ATTNBENCH_INLINE int __all_sync(uint64_t mask, int p) { return __ballot_sync(mask, !p) == 0; }

ATTNBENCH_INLINE void __syncwarp() {
    __builtin_amdgcn_fence(__ATOMIC_RELEASE, "wavefront");
    __builtin_amdgcn_wave_barrier();
    __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "wavefront");
}
ATTNBENCH_INLINE void __syncwarp(uint64_t) { __syncwarp(); }

// The votes of a whole block: each wave adds its count to one word.
ATTNBENCH_INLINE int __syncthreads_count(int p) {
    static __shared__ int votes;
    unsigned long long ours = __ballot(p);
    if (threadIdx.x == 0 && threadIdx.y == 0 && threadIdx.z == 0) votes = 0;
    __syncthreads();
    if (__lane_id() == (unsigned int)__builtin_ctzll(__activemask())) {
        __hip_atomic_fetch_add(&votes, __builtin_popcountll(ours), __ATOMIC_RELAXED,
                               __HIP_MEMORY_SCOPE_WORKGROUP);
    }
    __syncthreads();
    int all = votes;
    __syncthreads();
    return all;
}
ATTNBENCH_INLINE int __syncthreads_or(int p) { return __syncthreads_count(p != 0) != 0; }
ATTNBENCH_INLINE int __syncthreads_and(int p) { return __syncthreads_count(p == 0) == 0; }

template <class T>
ATTNBENCH_INLINE T attnbench_shuffle(T value, unsigned int source) {
    static_assert(sizeof(T) <= 8, "a shuffle moves at most 8 bytes");
    constexpr unsigned int WORDS = (sizeof(T) + 3) / 4;
    int words[WORDS] = {};
    __builtin_memcpy(words, &value, sizeof(T));
#pragma unroll
    for (unsigned int i = 0; i < WORDS; ++i) {
        words[i] = __builtin_amdgcn_ds_bpermute((int)(source << 2), words[i]);
    }
    __builtin_memcpy(&value, words, sizeof(T));
    return value;
}

// Which lane each form reads; a source outside the caller's group of `width` lanes is itself.
ATTNBENCH_INLINE unsigned int attnbench_at(int source, int width) {
    unsigned int lane = __lane_id();
    return (lane & ~(unsigned int)(width - 1)) | ((unsigned int)source & (unsigned int)(width - 1));
}
ATTNBENCH_INLINE unsigned int attnbench_up(unsigned int delta, int width) {
    unsigned int lane = __lane_id(), in_group = lane & (unsigned int)(width - 1);
    return delta > in_group ? lane : lane - delta;
}
ATTNBENCH_INLINE unsigned int attnbench_down(unsigned int delta, int width) {
    unsigned int lane = __lane_id(), in_group = lane & (unsigned int)(width - 1);
    return delta >= (unsigned int)width - in_group ? lane : lane + delta;
}
ATTNBENCH_INLINE unsigned int attnbench_xor(int bits, int width) {
    unsigned int lane = __lane_id(), other = lane ^ (unsigned int)bits;
    unsigned int end = (lane & ~(unsigned int)(width - 1)) + (unsigned int)width;
    return other < end ? other : lane;
}

#define ATTNBENCH_SHUFFLES(name, S, which)                                                  \
    template <class T>                                                                      \
    ATTNBENCH_INLINE T name(T v, S source, int width = warpSize) {                          \
        return attnbench_shuffle(v, which(source, width));                                  \
    }                                                                                       \
    template <class T>                                                                      \
    ATTNBENCH_INLINE T name##_sync(uint64_t, T v, S source, int width = warpSize) {         \
        return attnbench_shuffle(v, which(source, width));                                  \
    }
ATTNBENCH_SHUFFLES(__shfl, int, attnbench_at)
ATTNBENCH_SHUFFLES(__shfl_up, unsigned int, attnbench_up)
ATTNBENCH_SHUFFLES(__shfl_down, unsigned int, attnbench_down)
ATTNBENCH_SHUFFLES(__shfl_xor, int, attnbench_xor)
#undef ATTNBENCH_SHUFFLES
