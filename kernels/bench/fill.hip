// fill.hip: the data of a timed cache, made on the device from a seed and each element's place.
//
//   to[i] = rounded(gauss(seed, i)),   i = 0 .. count - 1
//   gauss(seed, i) = (a + b + c + d - 131070) 2^-15,   a, b, c, d: the four 16-bit parts of mix(seed + i)
//
// Nearly Gaussian, variance 4/3 (Irwin-Hall); mix is the finalizer of SplitMix64 (Steele, Lea and Flood,
// 2014). All of it is exact until the one rounding, so that the host knows every element without moving
// any (src/bench/data.rs).
//
//   to     count elements of T
// Launch:  any one-dimensional grid and block; a thread takes every (threads of the grid)-th element.
#include "../portable.h"

__device__ __forceinline__ unsigned long long mix(unsigned long long x) {
    x += 0x9e3779b97f4a7c15ull;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}

template <typename T>
__global__ void fill(T *to, unsigned long long count, unsigned long long seed) {
    const unsigned long long threads = (unsigned long long)gridDim.x * blockDim.x;
    for (unsigned long long i = (unsigned long long)blockIdx.x * blockDim.x + threadIdx.x; i < count;
         i += threads) {
        const unsigned long long b = mix(seed + i);
        const int sum = (int)(b & 0xffff) + (int)(b >> 16 & 0xffff) + (int)(b >> 32 & 0xffff) +
                        (int)(b >> 48);
        to[i] = rounded<T>::from((float)(sum - 131070) * 3.0517578125e-05f);
    }
}
