// read.hip: the least that attention must do: K and V read once, and nothing else.
//
// Its time is the floor of every kernel on the same cache, and its best rate the ceiling of the device.
//
//   k, v   k_pieces and v_pieces pieces of 16 bytes     sink   one word, never written: no thread is the
//          one that would, which the compiler cannot know
//
// Algorithm: all blocks sweep over the cache together, so that the memory sees one window that moves; a
//   contiguous range a block is 5 to 9 % slower (H100). UNROLL loads are under way a thread, streaming:
//   nothing is used twice. The words are added up, so that no load is left out.
// Launch:    grid any, block any, both one-dimensional.
#include "../portable.h"

__device__ __forceinline__ uint4 load_once(const uint4 *from) {
#if defined(__CUDACC__) || defined(__CUDACC_RTC__)
    return __ldcs(from);
#elif defined(__AMDGCN__)
    const unsigned *words = (const unsigned *)from;
    return {__builtin_nontemporal_load(words), __builtin_nontemporal_load(words + 1),
            __builtin_nontemporal_load(words + 2), __builtin_nontemporal_load(words + 3)};
#else
    return *from;
#endif
}

template <int UNROLL>
__device__ __forceinline__ unsigned sum_of(const uint4 *from, index_t pieces) {
    const index_t threads = (index_t)gridDim.x * blockDim.x;
    index_t i = (index_t)blockIdx.x * blockDim.x + threadIdx.x;
    unsigned sum = 0;
    for (; i + (UNROLL - 1) * threads < pieces; i += UNROLL * threads) {
        uint4 words[UNROLL];
#pragma unroll
        for (int u = 0; u < UNROLL; ++u) words[u] = load_once(from + i + u * threads);
#pragma unroll
        for (int u = 0; u < UNROLL; ++u) sum += words[u].x ^ words[u].y ^ words[u].z ^ words[u].w;
    }
    for (; i < pieces; i += threads) {
        const uint4 words = load_once(from + i);
        sum += words.x ^ words.y ^ words.z ^ words.w;
    }
    return sum;
}

template <int UNROLL>
__global__ void read_only(const uint4 *k, index_t k_pieces, const uint4 *v, index_t v_pieces,
                          unsigned *sink) {
    const unsigned sum = sum_of<UNROLL>(k, k_pieces) + sum_of<UNROLL>(v, v_pieces);
    if (sum == 0x5eed5eedu && threadIdx.x == blockDim.x) *sink = sum;
}
