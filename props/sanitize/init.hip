// init.hip: planted faults of the class `init`, each with its mended twin.
//
// Parameters, `//@` and `//!` as in memory.hip. A value counts as used where memory that nothing
// has written is read, and where a lane takes a value that no lane has; `line=none must=N`: the
// elements 0 to N - 1 of out must be written, and no line can be named.

constexpr int SEQ_LEN = 5;
constexpr int HEAD_DIM = 24;
constexpr int STRIDE = 32;
constexpr float LOWEST = -1e30f;

// The combine step's metadata is set by `if (t < splits)`, which is too few once there are more
// splits than threads (real bug 20).
//@ more_splits_than_threads grid=1 block=128 shared=0 n=160 wants=init threads=0..31
template <bool FAULT>
__global__ void more_splits_than_threads(float* out, const float* in, const float* kv,
                                         float* scratch, int n) {
    __shared__ float weight[160];
    const int t = threadIdx.x;
    if constexpr (FAULT) {
        if (t < n) weight[t] = in[t];
    } else {
        for (int split = t; split < n; split += blockDim.x) weight[split] = in[split];
    }
    __syncthreads();
    float sum = 0.0f;
    for (int split = t; split < n; split += blockDim.x) {
        sum += weight[split];  //!
    }
    out[t] = sum;
}

// Two waves add their parts into a workspace that nobody has cleared (cf. real bug 35).
//@ workspace_not_cleared grid=1 block=128 shared=0 n=1 wants=init threads=0,64
template <bool FAULT>
__global__ void workspace_not_cleared(float* out, const float* in, const float* kv,
                                      float* scratch, int n) {
    const int t = threadIdx.x, d = t % 64;
    if constexpr (!FAULT) {
        if (t < n) scratch[t] = 0.0f;
        __syncthreads();
    }
    if (d < n) {
        atomicAdd(&scratch[d], in[t]);  //!
    }
    __syncthreads();
    out[t] = scratch[0];
}

// K's row in dynamic shared memory is padded to 32 and filled to 24; the product runs over all 32,
// where q is 0. Whatever lies there may be NaN (real bug 69).
//@ tile_padding grid=1 block=128 shared=128 n=24 wants=init threads=5
template <bool FAULT>
__global__ void tile_padding(float* out, const float* in, const float* kv, float* scratch, int n) {
    extern __shared__ float tile[];
    const int t = threadIdx.x;
    if constexpr (FAULT) {
        if (t < n) tile[t] = kv[t];
    } else {
        if (t < STRIDE) tile[t] = t < n ? kv[t] : 0.0f;
    }
    __syncthreads();
    if (t == 5) {
        float dot = 0.0f;
        for (int d = 0; d < STRIDE; d++) {
            const float q = d < n ? 0.5f : 0.0f;
            dot += q * tile[d];  //!
        }
        out[0] = dot;
    }
}

// The accumulator lives in the output, and the first tile rescales it by 0 where it should store: 0
// times whatever was there (real bug 67).
//@ rescales_unset_output grid=2 block=128 shared=0 n=0 wants=init threads=0..23
template <bool FAULT>
__global__ void rescales_unset_output(float* out, const float* in, const float* kv,
                                      float* scratch, int n) {
    const int d = threadIdx.x, i = blockIdx.x * HEAD_DIM + d;
    if (d >= HEAD_DIM) return;
    if constexpr (FAULT) {
        const float correction = static_cast<float>(n);
        out[i] = out[i] * correction + in[i];  //!
    } else {
        out[i] = in[i];
    }
}

// The first block works out a scale and later ones find it in shared memory, as long as they run on
// the same processor after it.
//@ survives_the_block grid=2 block=128 shared=0 n=7 wants=init threads=0..127 blocks=1
template <bool FAULT>
__global__ void survives_the_block(float* out, const float* in, const float* kv,
                                   float* scratch, int n) {
    __shared__ float scale;
    const int t = threadIdx.x, i = blockIdx.x * blockDim.x + t;
    const bool works_out = FAULT ? t == 0 && blockIdx.x == 0 : t == 0;
    if (works_out) scale = 1.0f / in[n];
    __syncthreads();
    const float mine = scale;  //!
    out[i] = in[i] * mine;
}

// A state of three components in a vector of four. The fourth is never set, but loaded and weighed
// by 0 with the rest.
//@ fourth_component grid=1 block=128 shared=0 n=0 wants=init threads=127
template <bool FAULT>
__global__ void fourth_component(float* out, const float* in, const float* kv,
                                 float* scratch, int n) {
    __shared__ float4 state;
    const int t = threadIdx.x;
    if (t == 0) {
        state.x = in[1];
        state.y = in[2];
        state.z = in[3];
        if constexpr (!FAULT) state.w = 0.0f;
    }
    __syncthreads();
    if (t == 127) {
        const float4 s = state;  //!
        out[0] = s.x + s.y + s.z + static_cast<float>(n) * s.w;
    }
}

// An exclusive sum whose first element is nobody's: lane 0 reads it and hands it to its whole wave.
//@ shuffle_hands_it_on grid=1 block=128 shared=0 n=0 wants=init threads=0
template <bool FAULT>
__global__ void shuffle_hands_it_on(float* out, const float* in, const float* kv,
                                    float* scratch, int n) {
    __shared__ float before[128];
    const int t = threadIdx.x;
    if (t + 1 < 128) before[t + 1] = in[t];
    if constexpr (!FAULT) {
        if (t == 0) before[0] = 0.0f;
    }
    __syncthreads();
    out[t] = __shfl(before[t], n);  //!
}

// A wave votes on whether all its lanes are done; the flag of the lane beyond the keys is not set.
//@ vote_on_unset_flag grid=1 block=128 shared=0 n=127 wants=init threads=127
template <bool FAULT>
__global__ void vote_on_unset_flag(float* out, const float* in, const float* kv,
                                   float* scratch, int n) {
    const int t = threadIdx.x;
    int* done = reinterpret_cast<int*>(scratch);
    if (t < n) done[t] = 1;
    if constexpr (!FAULT) {
        if (t >= n) done[t] = 1;
    }
    __syncthreads();
    const int all_done = __all(done[t]);  //!
    out[t] = static_cast<float>(all_done);
}

// A thread an element of head_dim, and a tree over the whole wave: half of its lanes take the
// values of lanes that a block of 24 does not have.
//@ block_below_a_wave grid=1 block=24 shared=0 n=24 wants=init threads=0..23
template <bool FAULT>
__global__ void block_below_a_wave(float* out, const float* in, const float* kv,
                                   float* scratch, int n) {
    const int d = threadIdx.x;
    float dot = 0.5f * kv[d];
    for (int offset = warpSize / 2; offset > 0; offset /= 2) {
        if constexpr (FAULT) {
            dot += __shfl_xor(dot, offset);  //!
        } else {
            const bool there = d + offset < n;
            const float other = __shfl(dot, there ? d + offset : d);
            dot += there ? other : 0.0f;
        }
    }
    if (d == 0) out[0] = dot;
}

// A partial sum is stored by each wave and sought by every 32 threads: with waves of 64 half of the
// slots are empty (real bug 85, real bug 87).
//@ slots_for_wave32 grid=1 block=128 shared=0 n=0 wants=init threads=0 waves=64
template <bool FAULT>
__global__ void slots_for_wave32(float* out, const float* in, const float* kv,
                                 float* scratch, int n) {
    __shared__ float partial[4];
    const int t = threadIdx.x;
    if (t % warpSize == 0) partial[t / warpSize] = in[t];
    __syncthreads();
    if (t == 0) {
        const int slots = blockDim.x / (FAULT ? 32 : warpSize);
        float sum = 0.0f;
        for (int slot = 0; slot < slots; slot++) {
            sum += partial[slot];  //!
        }
        out[0] = sum;
    }
}

// Each wave takes 8 keys and leaves its maximum; one that has no keys leaves nothing, and is merged
// all the same (cf. real bug 16).
//@ wave_without_keys grid=1 block=128 shared=0 n=5 wants=init threads=0
template <bool FAULT>
__global__ void wave_without_keys(float* out, const float* in, const float* kv,
                                  float* scratch, int n) {
    __shared__ float m_part[4];
    const int t = threadIdx.x, wave = t / warpSize, first_key = 8 * wave;
    if (t % warpSize == 0) {
        if (first_key < n) {
            m_part[wave] = kv[min(first_key, SEQ_LEN - 1) * STRIDE];
        } else if constexpr (!FAULT) {
            m_part[wave] = LOWEST;
        }
    }
    __syncthreads();
    if (t == 0) {
        float m = LOWEST;
        for (int w = 0; w < static_cast<int>(blockDim.x) / warpSize; w++) {
            m = fmaxf(m, m_part[w]);  //!
        }
        out[0] = m;
    }
}

// A row of length 0 has nothing to attend to, and its output is never written: the caller sees what
// was there before (real bug 71).
//@ never_written grid=2 block=128 shared=0 n=0 wants=init threads=0 blocks=0 line=none must=256
template <bool FAULT>
__global__ void never_written(float* out, const float* in, const float* kv, float* scratch, int n) {
    const int row = blockIdx.x * blockDim.x + threadIdx.x;
    const int length = static_cast<int>(in[row]);
    if constexpr (FAULT) {
        if (length <= n) return;
    }
    out[row] = length > n ? 1.0f / in[row] : 0.0f;
}
