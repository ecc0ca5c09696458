// wave.h: barriers, shuffles and votes.
//
// A lane hands in its value and waits; the scheduler works out what each lane gets. A lane that
// does not take part (it is beyond the block, or has returned) gives nobody a value: who reads
// from it gets its own.
#pragma once
#include "device.h"

#ifdef ATTNBENCH_CHECKED
// The checker is told where: the barrier by a number of its own, since two may stand on one line, and
// the compiler may make two of one.
ATTNBENCH_UNCHECKED static uint32_t attnbench_barrier(uint32_t vote, uint32_t number) {
    attnbench_checker.at(number, __builtin_return_address(0));
    return attnbench_host.barrier(vote);
}
ATTNBENCH_UNCHECKED static uint64_t attnbench_wave(uint32_t what, uint64_t mask, uint64_t value,
                                                   uint32_t source) {
    attnbench_checker.at(0, __builtin_return_address(0));
    return attnbench_host.wave(what, mask, value, source);
}
#define __syncthreads() ((void)attnbench_barrier(0, __COUNTER__ + 1))
#define __syncthreads_count(p) ((int)attnbench_barrier((p) != 0, __COUNTER__ + 1))
#define __syncthreads_or(p) ((int)(attnbench_barrier((p) != 0, __COUNTER__ + 1) != 0))
#define __syncthreads_and(p) ((int)(attnbench_barrier((p) == 0, __COUNTER__ + 1) == 0))
#else
static inline uint64_t attnbench_wave(uint32_t what, uint64_t mask, uint64_t value,
                                      uint32_t source) {
    return attnbench_host.wave(what, mask, value, source);
}
static inline void __syncthreads() { attnbench_host.barrier(0); }
static inline int __syncthreads_count(int p) { return (int)attnbench_host.barrier(p != 0); }
static inline int __syncthreads_or(int p) { return attnbench_host.barrier(p != 0) != 0; }
static inline int __syncthreads_and(int p) { return attnbench_host.barrier(p == 0) == 0; }
#endif

// AMD's own: nothing moves across it at compile time. At run time it does nothing, as on the hardware,
// whose lanes advance together; here they do so where the manifest says `lanes = "lockstep"`.
#define __builtin_amdgcn_wave_barrier() __asm__ volatile("" ::: "memory")

ATTNBENCH_INLINE unsigned int __lane_id() {
    unsigned int linear = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
    return linear % (unsigned int)warpSize;
}

ATTNBENCH_INLINE uint64_t attnbench_ballot(uint32_t strict, uint64_t mask, bool p) {
    return attnbench_wave(ATTNBENCH_BALLOT | strict, mask, p, 0);
}

ATTNBENCH_INLINE void __syncwarp() { attnbench_wave(ATTNBENCH_SYNC, ~0ull, 0, 0); }
ATTNBENCH_INLINE void __syncwarp(uint64_t mask) {
    attnbench_wave(ATTNBENCH_SYNC | ATTNBENCH_STRICT, mask, 0, 0);
}
ATTNBENCH_INLINE unsigned long long __ballot(int p) { return attnbench_ballot(0, ~0ull, p != 0); }
ATTNBENCH_INLINE int __any(int p) { return attnbench_ballot(0, ~0ull, p != 0) != 0; }
ATTNBENCH_INLINE int __all(int p) { return attnbench_ballot(0, ~0ull, p == 0) == 0; }
ATTNBENCH_INLINE unsigned long long __activemask() { return attnbench_ballot(0, ~0ull, true); }
ATTNBENCH_INLINE unsigned long long __ballot_sync(uint64_t mask, int p) {
    return attnbench_ballot(ATTNBENCH_STRICT, mask, p != 0);
}
ATTNBENCH_INLINE int __any_sync(uint64_t mask, int p) {
    return attnbench_ballot(ATTNBENCH_STRICT, mask, p != 0) != 0;
}
ATTNBENCH_INLINE int __all_sync(uint64_t mask, int p) {
    return attnbench_ballot(ATTNBENCH_STRICT, mask, p == 0) == 0;
}

template <class T>
ATTNBENCH_INLINE T attnbench_shuffle(uint32_t strict, uint64_t mask, T value, unsigned int source) {
    static_assert(sizeof(T) <= 8, "a shuffle moves at most 8 bytes");
    uint64_t bits = 0;
    __builtin_memcpy(&bits, &value, sizeof(T));
    bits = attnbench_wave(ATTNBENCH_SHUFFLE | strict, mask, bits, source);
    __builtin_memcpy(&value, &bits, sizeof(T));
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

template <class T>
ATTNBENCH_INLINE T __shfl(T v, int source, int width = warpSize) {
    return attnbench_shuffle(0, ~0ull, v, attnbench_at(source, width));
}
template <class T>
ATTNBENCH_INLINE T __shfl_up(T v, unsigned int delta, int width = warpSize) {
    return attnbench_shuffle(ATTNBENCH_ALONG, ~0ull, v, attnbench_up(delta, width));
}
template <class T>
ATTNBENCH_INLINE T __shfl_down(T v, unsigned int delta, int width = warpSize) {
    return attnbench_shuffle(ATTNBENCH_ALONG, ~0ull, v, attnbench_down(delta, width));
}
template <class T>
ATTNBENCH_INLINE T __shfl_xor(T v, int bits, int width = warpSize) {
    return attnbench_shuffle(0, ~0ull, v, attnbench_xor(bits, width));
}
template <class T>
ATTNBENCH_INLINE T __shfl_sync(uint64_t mask, T v, int source, int width = warpSize) {
    return attnbench_shuffle(ATTNBENCH_STRICT, mask, v, attnbench_at(source, width));
}
template <class T>
ATTNBENCH_INLINE T __shfl_up_sync(uint64_t mask, T v, unsigned int delta, int width = warpSize) {
    return attnbench_shuffle(ATTNBENCH_STRICT | ATTNBENCH_ALONG, mask, v, attnbench_up(delta, width));
}
template <class T>
ATTNBENCH_INLINE T __shfl_down_sync(uint64_t mask, T v, unsigned int delta, int width = warpSize) {
    return attnbench_shuffle(ATTNBENCH_STRICT | ATTNBENCH_ALONG, mask, v, attnbench_down(delta, width));
}
template <class T>
ATTNBENCH_INLINE T __shfl_xor_sync(uint64_t mask, T v, int bits, int width = warpSize) {
    return attnbench_shuffle(ATTNBENCH_STRICT, mask, v, attnbench_xor(bits, width));
}
