// Every name that the headers for AMD targets have, used once: it must compile wherever clang does.
#include <hip/hip_runtime.h>
#include <hip/hip_fp16.h>
#include <hip/hip_bf16.h>
#include <hip/hip_bfloat16.h>
#include <math.h>
#include <cmath>
#include <stdint.h>
#include <float.h>
#include <limits>
#include <algorithm>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <type_traits>

template <class T>
__device__ float floats(T x) {
    float f = (float)x, s, c;
    sincosf(f, &s, &c);
    __sincosf(f, &s, &c);
    f += sinf(f) + cosf(f) + tanf(f) + tanhf(f) + powf(f, s) + expm1f(f) + log1pf(f) + erff(f);
    f += sinhf(f) + coshf(f) + expf(f) + exp2f(f) + exp10f(f) + logf(f) + log2f(f) + log10f(f);
    f += sqrtf(f) + rsqrtf(f) + fabsf(f) + floorf(f) + ceilf(f) + truncf(f) + roundf(f) + rintf(f);
    f += fmaxf(f, s) + fminf(f, c) + fmodf(f, s) + copysignf(f, c) + fmaf(f, s, c) + ldexpf(f, 3);
    f += __expf(f) + __exp10f(f) + __logf(f) + __log2f(f) + __log10f(f) + __sinf(f) + __cosf(f);
    f += __tanf(f) + __powf(f, s) + __frsqrt_rn(f) + __frcp_rn(f) + __fdividef(f, s) + __saturatef(f);
    f += std::exp(f) + std::max(1, 2) + (f < std::numeric_limits<float>::max()) + exp(f) + sqrt(f) + pow(f, 2.0f) + abs(f) + abs(-3) + sqrt(4);
    f += (float)(exp(1.0) + log(2.0 + f) + pow(2.0, (double)f) + tanh((double)f) + sin((double)f) + cos((double)f));
    f += isnan(f) + isinf(f) + isfinite(f) + signbit(f) + (f == INFINITY) + (f < FLT_MAX);
    return f + min(1, 2u) + max(1.0f, f) + min(f, 2.0) + __float_as_int(f) + __float2int_rn(f);
}

template <class T>
__device__ float halves(T a, T b) {
    T c = a + b - a * b / a;
    c += b;
    c = __hfma(a, b, __hmax(c, __hneg(a)));
    c = hexp(c) + hlog(c) + hsqrt(c) + hrsqrt(c) + hrcp(c) + hexp2(c) + hlog2(c) + __habs(c);
    return (a < b) + __hge(a, b) + __hisnan(c) + __hisinf(c) + (float)(-c);
}

__constant__ float table[4] = {1, 2, 3, 4};

__global__ void __launch_bounds__(256, 2) features(float *f, int *n, unsigned long long *wide,
                                                   __half *h, __hip_bfloat16 *b, float4 *v) {
    extern __shared__ float dynamic[];
    __shared__ int fixed[64];
    const dim3 block = blockDim;
    const int i = threadIdx.x + blockIdx.x * blockDim.x + threadIdx.y * gridDim.x + block.z;
    fixed[threadIdx.x % 64] = i;
    dynamic[i] = f[i];
    __syncthreads();
    int votes = __syncthreads_count(i > 3) + __syncthreads_or(i) + __syncthreads_and(i);
    votes += __any(i) + __all(i) + __popcll(__ballot(i)) + __popcll(__activemask());
    votes += __any_sync(~0ull, i) + __all_sync(~0ull, i) + __popcll(__ballot_sync(~0ull, i));
    __syncwarp();
    __threadfence();
    __threadfence_block();
    __threadfence_system();
    float x = __shfl(f[i], 3) + __shfl_up(f[i], 1) + __shfl_down(f[i], 1, 16) + __shfl_xor(f[i], 5);
    x += __shfl_sync(~0ull, f[i], 3) + __shfl_xor_sync(~0ull, (double)f[i], 1, 32);
    x += floats(f[i]) + floats(n[i]) + halves(h[i], h[i + 1]) + halves(b[i], b[i + 1]) + table[i & 3];
    atomicAdd(f, 1);
    atomicAdd_block(n, 1);
    unsafeAtomicAdd(f, x);
    atomicMax(n, 3);
    atomicMin(n, 3);
    atomicMax(f + 1, x);
    atomicExch(f, 2.0f);
    atomicCAS(n, 1, 2);
    atomicSub(n, 3);
    atomicOr(n, 3);
    atomicAnd(n, 3);
    atomicXor_system(n, 3);
    atomicInc((unsigned *)n, 7u);
    atomicDec((unsigned *)n, 7u);
    atomicAdd(wide, 1ull);
    x += __hip_atomic_load(f, __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_AGENT);
    const float4 w = v[i] * 2.0f + make_float4(1, 2, 3, 4);
    const float2 u = __half22float2(__hfma2(__floats2half2_rn(w.x, w.y), __half2half2(h[i]), make_half2(h[0], h[1])));
    const __hip_bfloat162 pair = __float22bfloat162_rn(u) + __halves2bfloat162(b[i], b[1]);
    x += __low2float(pair) + (float)__hmax2(pair, pair).y + u.x;
    x += __ldg(f + 2) + __ldcs(f + 3) + __ldcg(v + 1).x;
    __stcs(f + 4, x);
    __stcs(v + 2, w);
    memcpy(v + 3, &w, sizeof w);
    assert(i >= 0);
    printf("%d\n", i);
    f[i] = x + votes + dynamic[i + 1] + fixed[(threadIdx.x + 1) % 64] + warpSize + __lane_id();
    h[i] = __float2half(x);
    b[i] = __float2bfloat16(x);
    if (x < 0) __trap();
}
