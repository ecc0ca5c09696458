extern "C" __global__ void __launch_bounds__(256) scale(const float *in, float *out, int n, double by) {
    __shared__ float tile[256];
    tile[threadIdx.x] = in[threadIdx.x];
    __syncthreads();
    if (threadIdx.x < n) out[threadIdx.x] = tile[255 - threadIdx.x] * (float)by;
}
extern "C" __global__ void frame(const int *in, int *out, int n) {
    int local[32];
#pragma unroll 1
    for (int i = 0; i < 32; ++i) local[in[i] & 31] = i;
    out[threadIdx.x] = local[n & 31];
}
