// barrier.hip: planted faults of the class `barrier`, each with its mended twin.
//
// Parameters, `//@` and `//!` as in memory.hip. `//!` marks every barrier and wave operation where
// threads wait in vain, and the line of a loop that never ends (`endless=1`).

constexpr int STRIDE = 32;

// The barrier is inside the test for the tail: the last 32 threads go past it to the end.
//@ barrier_in_tail_test grid=1 block=128 shared=0 n=96 wants=barrier threads=0..95
template <bool FAULT>
__global__ void barrier_in_tail_test(float* out, const float* in, const float* kv,
                                     float* scratch, int n) {
    __shared__ float tile[128];
    const int t = threadIdx.x;
    if constexpr (FAULT) {
        if (t < n) {
            tile[t] = in[t];
            __syncthreads();  //!
            out[t] = tile[n - 1 - t];
        }
    } else {
        if (t < n) tile[t] = in[t];
        __syncthreads();
        if (t < n) out[t] = tile[n - 1 - t];
    }
}

// A wave that has no keys leaves at once, and the others wait for it (real bug 15).
//@ wave_leaves_early grid=1 block=128 shared=0 n=8 wants=barrier threads=0..W-1
template <bool FAULT>
__global__ void wave_leaves_early(float* out, const float* in, const float* kv,
                                  float* scratch, int n) {
    __shared__ float m;
    const int t = threadIdx.x, first_key = 8 * (t / warpSize);
    if constexpr (FAULT) {
        if (first_key >= n) return;
    }
    if (t == 0) m = in[n];
    __syncthreads();  //!
    out[t] = in[t] - m;
}

// A barrier in a loop over keys that the threads go through a different number of times.
//@ uneven_trips grid=1 block=128 shared=0 n=160 wants=barrier threads=0..31
template <bool FAULT>
__global__ void uneven_trips(float* out, const float* in, const float* kv, float* scratch, int n) {
    __shared__ float tile[128];
    const int t = threadIdx.x, threads = blockDim.x;
    const int end = FAULT ? n : (n + threads - 1) / threads * threads;
    float acc = 0.0f;
    for (int key = t; key < end; key += threads) {
        tile[t] = key < n ? in[key] : 0.0f;
        __syncthreads();  //!
        acc += tile[t];
    }
    out[t] = acc;
}

// The block parts, and each part has a barrier of its own.
//@ barrier_in_each_arm grid=1 block=128 shared=0 n=40 wants=barrier threads=0..127
template <bool FAULT>
__global__ void barrier_in_each_arm(float* out, const float* in, const float* kv,
                                    float* scratch, int n) {
    __shared__ float tile[128];
    const int t = threadIdx.x;
    if (t < n) {
        tile[t] = in[t];
        if constexpr (FAULT) __syncthreads();  //!
    } else {
        tile[t] = 0.0f;
        if constexpr (FAULT) __syncthreads();  //!
    }
    if constexpr (!FAULT) __syncthreads();
    out[t] = tile[127 - t];
}

// The same with both barriers on one line, as a macro makes it.
//@ two_on_one_line grid=1 block=128 shared=0 n=40 wants=barrier threads=0..127
template <bool FAULT>
__global__ void two_on_one_line(float* out, const float* in, const float* kv,
                                float* scratch, int n) {
    __shared__ float tile[128];
    const int t = threadIdx.x;
    tile[t] = in[t];
    if constexpr (FAULT) {
        if (t < n) { __syncthreads(); } else { __syncthreads(); }  //!
    } else {
        __syncthreads();
    }
    out[t] = tile[127 - t];
}

// Some lanes of a wave wait at a barrier, the others at a shuffle with those lanes.
//@ barrier_against_shuffle grid=1 block=128 shared=0 n=16 wants=barrier threads=0..W-1
template <bool FAULT>
__global__ void barrier_against_shuffle(float* out, const float* in, const float* kv,
                                        float* scratch, int n) {
    const int t = threadIdx.x;
    float x = in[t];
    if constexpr (FAULT) {
        if (t < n) {
            __syncthreads();  //!
        } else {
            x += __shfl_xor_sync(~0ull, x, 1);  //!
        }
    } else {
        x += __shfl_xor_sync(~0ull, x, 1);
        __syncthreads();
    }
    out[t] = x;
}

// The mask of a vote names a lane that has skipped the vote and waits at the barrier after it.
//@ vote_mask_too_wide grid=1 block=128 shared=0 n=3 wants=barrier threads=0..127
template <bool FAULT>
__global__ void vote_mask_too_wide(float* out, const float* in, const float* kv,
                                   float* scratch, int n) {
    const int t = threadIdx.x;
    const bool has_key = t != n;
    unsigned long long votes = 0;
    if constexpr (FAULT) {
        if (has_key) {
            votes = __ballot_sync(~0ull, in[t] > 1.0f);  //!
        }
    } else {
        votes = __ballot_sync(~0ull, has_key && in[t] > 1.0f);
    }
    __syncthreads();  //!
    out[t] = static_cast<float>(votes & 0xffff);
}

// The mask is that of the lanes with a key before them; lane 0 takes part with it all the same.
//@ mask_without_self grid=1 block=128 shared=0 n=1 wants=barrier threads=0
template <bool FAULT>
__global__ void mask_without_self(float* out, const float* in, const float* kv,
                                  float* scratch, int n) {
    const int t = threadIdx.x;
    const unsigned long long mask = FAULT ? ~0ull << n : ~0ull;
    if (t < warpSize) {
        out[t] = __shfl_sync(mask, in[t], n);  //!
    }
}

// Lanes beyond the 20 heads of the group have returned, and the reduction takes their values
// (cf. real bug 57).
//@ takes_from_returned grid=1 block=128 shared=0 n=20 wants=barrier threads=4..15
template <bool FAULT>
__global__ void takes_from_returned(float* out, const float* in, const float* kv,
                                    float* scratch, int n) {
    const int head = threadIdx.x;
    if constexpr (FAULT) {
        if (head >= n) return;
    }
    float x = head < n ? in[head] : 0.0f;
    x += __shfl_xor(x, 16);  //!
    out[head] = x;
}

// A barrier that counts, reached by a part of the block only: it meets the others' next barrier.
//@ count_in_divergence grid=1 block=128 shared=0 n=100 wants=barrier threads=0..127
template <bool FAULT>
__global__ void count_in_divergence(float* out, const float* in, const float* kv,
                                    float* scratch, int n) {
    const int t = threadIdx.x;
    int kept = 0;
    if constexpr (FAULT) {
        if (t < n) {
            kept = __syncthreads_count(in[t] > 7.0f);  //!
        }
    } else {
        kept = __syncthreads_count(t < n && in[t] > 7.0f);
    }
    __syncthreads();  //!
    out[t] = static_cast<float>(kept);
}

// The last key's thread sets a flag, and another spins on it; key n = 128 has no thread.
//@ flag_nobody_sets grid=1 block=128 shared=0 n=128 wants=barrier threads=5 endless=1
template <bool FAULT>
__global__ void flag_nobody_sets(float* out, const float* in, const float* kv,
                                 float* scratch, int n) {
    __shared__ int flag;
    volatile int* ready = &flag;
    const int t = threadIdx.x, last = FAULT ? n : n - 1;
    if (t == 0) *ready = 0;
    __syncthreads();
    if (t == last) *ready = 1;
    if constexpr (FAULT) {
        if (t == 5) {
            while (*ready == 0) {}  //!
        }
    } else {
        __syncthreads();
    }
    out[t] = in[t] * static_cast<float>(*ready);
}

// Keys a step are rounded down to 0 for a short sequence, and the loop stands still (real bug 26).
//@ step_of_zero grid=1 block=128 shared=0 n=24 wants=barrier threads=70 endless=1
template <bool FAULT>
__global__ void step_of_zero(float* out, const float* in, const float* kv, float* scratch, int n) {
    const unsigned int t = threadIdx.x, keys = n, splits = STRIDE;
    const unsigned int step = FAULT ? keys / splits : (keys + splits - 1) / splits;
    volatile unsigned int rounds = 0;
    if (t == 70) {
        for (unsigned int key = 0; key < keys; key += step) rounds = rounds + 1;  //!
    }
    out[t] = static_cast<float>(rounds);
}

// One reduction of the source, called from both arms of a branch: each half of the block waits in
// its own call, and the two barriers meet.
//@ reduction_in_each_arm grid=1 block=128 shared=0 n=64 wants=barrier threads=0,64
__device__ __forceinline__ float first_and_last(float value, float* tile, int t, int threads) {
    tile[t] = value;
    __syncthreads();  //!
    return tile[0] + tile[threads - 1];
}
template <bool FAULT>
__global__ void reduction_in_each_arm(float* out, const float* in, const float* kv,
                                      float* scratch, int n) {
    __shared__ float tile[128];
    const int t = threadIdx.x;
    float sum;
    if (FAULT && t < n) {
        sum = first_and_last(in[t], tile, t, 128);
    } else {
        sum = first_and_last(FAULT ? 2.0f * in[t] : in[t], tile, t, 128);
    }
    out[t] = sum;
}

// Lanes exchange values at two shuffles of the source, as if it were one.
//@ two_shuffles_meet grid=1 block=128 shared=0 n=0 wants=barrier threads=0,W,2*W,3*W
template <bool FAULT>
__global__ void two_shuffles_meet(float* out, const float* in, const float* kv,
                                  float* scratch, int n) {
    const int t = threadIdx.x, lane = t % warpSize;
    float x = in[t];
    if constexpr (FAULT) {
        if (lane % 2 == 1) {
            x += __shfl_xor_sync(~0ull, x, 1);  //!
        } else {
            x -= __shfl_xor_sync(~0ull, x, 1);  //!
        }
    } else {
        const float other = __shfl_xor_sync(~0ull, x, 1);
        x = lane % 2 == 1 ? x + other : x - other;
    }
    out[t] = x;
}
