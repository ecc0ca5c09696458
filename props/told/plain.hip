// Attention by one thread a query row, over contiguous rows: the first kernel that a person writes.
#include <hip/hip_bf16.h>
#include <hip/hip_fp16.h>
#include <hip/hip_runtime.h>

constexpr int LONGEST = 128;

__device__ inline float wide(float x) { return x; }
__device__ inline float wide(__half x) { return __half2float(x); }
__device__ inline float wide(__hip_bfloat16 x) { return __bfloat162float(x); }

template <typename Q, typename KV, typename Out>
__global__ void plain(const Q *q, const KV *k, const KV *v, Out *out, const int *lens, int group, int row, int room,
                      float scale) {
    const int h = blockIdx.x, b = blockIdx.y, heads = gridDim.x;
    const long long head = (long long)b * heads + h, cache = head / group * room * row;
    float acc[LONGEST], most = -INFINITY, sum = 0.0f;
    for (int d = 0; d < row; ++d) acc[d] = 0.0f;
    for (int n = 0; n < lens[b]; ++n) {
        const long long at = cache + (long long)n * row;
        float s = 0.0f;
        for (int d = 0; d < row; ++d) s += wide(q[head * row + d]) * wide(k[at + d]);
        s *= scale;
        const float now = s > most || s != s ? s : most;
        const float keep = most == -INFINITY ? 0.0f : expf(most - now);
        const float weight = s == -INFINITY ? 0.0f : expf(s - now);
        sum = sum * keep + weight;
        for (int d = 0; d < row; ++d) acc[d] = acc[d] * keep + weight * wide(v[at + d]);
        most = now;
    }
    for (int d = 0; d < row; ++d) out[head * row + d] = Out(sum == 0.0f ? acc[d] : acc[d] / sum);
}
