// 32 lanes a query head, whatever the wave: each lane scores a key, then every lane takes the weights of all 32.
#include <hip/hip_runtime.h>

__global__ void lanes(const float *q, const float *k, const float *v, float *out, const int *lens, int heads, int group,
                      int row, int room, float scale) {
    const int lane = threadIdx.x % 32, mine = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, b = blockIdx.y;
    const int h = mine < heads ? mine : heads - 1;  // spare lanes do the last head again, and keep it
    const long long head = (long long)b * heads + h, cache = ((long long)b * (heads / group) + h / group) * room * row;
    float acc[4] = {0.0f, 0.0f, 0.0f, 0.0f}, most = -INFINITY, sum = 0.0f;
    for (int first = 0; first < lens[b]; first += 32) {
        const int left = lens[b] - first;
        float s = -INFINITY;
        if (lane < left) {
            s = 0.0f;
            for (int d = 0; d < row; ++d) s += q[head * row + d] * k[cache + (long long)(first + lane) * row + d];
            s *= scale;
        }
        float now = fmaxf(most, s);
        for (int other = 16; other > 0; other /= 2) now = fmaxf(now, __shfl_xor(now, other));
        const float keep = most == -INFINITY ? 0.0f : expf(most - now);
        const float weight = s == -INFINITY ? 0.0f : expf(s - now);
        sum = sum * keep + weight, most = now;
        for (float &part : acc) part *= keep;
        for (int j = 0; j < 32 && j < left; ++j) {
            const float w = __shfl(weight, j, 32);
            const float *values = v + cache + (long long)(first + j) * row;
            for (int i = 0, d = lane; d < row; d += 32, ++i) acc[i] += w * values[d];
        }
    }
    for (int other = 16; other > 0; other /= 2) sum += __shfl_xor(sum, other);
    if (mine != h) return;
    for (int i = 0, d = lane; d < row; d += 32, ++i) out[head * row + d] = sum == 0.0f ? acc[i] : acc[i] / sum;
}
