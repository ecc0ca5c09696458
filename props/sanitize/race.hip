// race.hip: planted faults of the class `race`, each with its mended twin.
//
// Parameters, `//@` and `//!` as in memory.hip; here `//!` marks both sides. What races has been
// set before, behind a barrier, so that no order makes it a read of something never written.

constexpr int HEAD_DIM = 24;
constexpr float LOWEST = -1e30f;

// The combine step reads the splits' log-sum-exp with no barrier after they are stored: about 1 %
// of results wrong, rarely (real bug 21, real bug 83).
//@ combine_no_barrier grid=1 block=128 shared=0 n=4 wants=race threads=0..3,127
template <bool FAULT>
__global__ void combine_no_barrier(float* out, const float* in, const float* kv,
                                   float* scratch, int n) {
    __shared__ float lse[4];
    const int t = threadIdx.x;
    if (t < 4) lse[t] = LOWEST;
    __syncthreads();
    if (t < n) {
        lse[t] = in[t];  //!
    }
    if constexpr (!FAULT) __syncthreads();
    if (t == 127) {
        float m = LOWEST;
        for (int split = 0; split < n; split++) m = fmaxf(m, lse[split]);  //!
        out[0] = m;
    }
}

// The tile is refilled while a slower thread still reads the last one (real bug 88).
//@ refill_early grid=1 block=128 shared=0 n=3 wants=race threads=0,127
template <bool FAULT>
__global__ void refill_early(float* out, const float* in, const float* kv, float* scratch, int n) {
    __shared__ float tile[128];
    const int t = threadIdx.x;
    float acc = 0.0f;
    for (int i = 0; i < n; i++) {
        tile[t] = in[i * 128 + t];  //!
        __syncthreads();
        if (t == 0) {
            acc += tile[127];  //!
        }
        if constexpr (!FAULT) __syncthreads();
    }
    if (t == 0) out[0] = acc;
}

// Every thread owns a key, and all store theirs in the same place (real bug 84).
//@ one_place_for_all_keys grid=1 block=128 shared=0 n=0 wants=race threads=0..127
template <bool FAULT>
__global__ void one_place_for_all_keys(float* out, const float* in, const float* kv,
                                       float* scratch, int n) {
    __shared__ float s_k[128];
    const int t = threadIdx.x;
    const int place = FAULT ? n : t;
    s_k[place] = in[t];  //!
    __syncthreads();
    out[t] = s_k[place];
}

// Wave 1 hands the sum to wave 0, and what should order them orders the lanes of a wave only.
//@ syncwarp_for_syncthreads grid=1 block=128 shared=0 n=0 wants=race threads=0,W
template <bool FAULT>
__global__ void syncwarp_for_syncthreads(float* out, const float* in, const float* kv,
                                         float* scratch, int n) {
    __shared__ float l_sum;
    const int t = threadIdx.x;
    if (t == 0) l_sum = 0.0f;
    __syncthreads();
    if (t == warpSize) {
        l_sum = in[t];  //!
    }
    if constexpr (FAULT) __syncwarp(); else __syncthreads();
    if (t == 0) {
        out[0] = l_sum;  //!
    }
}

// A tree in shared memory that trusts the lanes of a wave to advance together.
//@ tree_without_syncwarp grid=1 block=128 shared=0 n=0 wants=race threads=0..W/2
template <bool FAULT>
__global__ void tree_without_syncwarp(float* out, const float* in, const float* kv,
                                      float* scratch, int n) {
    __shared__ float part[64];
    const int t = threadIdx.x;
    if (t >= warpSize) return;
    part[t] = in[t];
    __syncwarp();
    for (int offset = warpSize / 2; offset > 0; offset /= 2) {
        if (t < offset) {
            part[t] += part[t + offset];  //!
        }
        if constexpr (!FAULT) __syncwarp();
    }
    if (t == 0) out[0] = part[0];
}

// The combine step addresses the output by a batch stride that is 0: all sequences fold onto the
// first (real bug 18).
//@ batch_stride_zero grid=2 block=128 shared=0 n=0 wants=race threads=0..23
template <bool FAULT>
__global__ void batch_stride_zero(float* out, const float* in, const float* kv,
                                  float* scratch, int n) {
    const int sequence = blockIdx.x, d = threadIdx.x;
    const int o_batch_stride = FAULT ? n : HEAD_DIM;
    if (d < HEAD_DIM) {
        out[sequence * o_batch_stride + d] = in[sequence * HEAD_DIM + d];  //!
    }
}

// The last block to take a ticket merges the parts of all. No fence lies between a part and its
// ticket, so the ticket may be seen before the part.
//@ ticket_without_fence grid=4 block=128 shared=0 n=4 wants=race threads=0
template <bool FAULT>
__global__ void ticket_without_fence(float* out, const float* in, const float* kv,
                                     float* scratch, int n) {
    if (threadIdx.x != 0) return;
    scratch[blockIdx.x] = in[blockIdx.x];  //!
    if constexpr (!FAULT) __threadfence();
    const int ticket = atomicAdd(reinterpret_cast<int*>(scratch + 1023), 1);
    if (ticket == n - 1) {
        __threadfence();
        float sum = 0.0f;
        for (int block = 0; block < n; block++) sum += scratch[block];  //!
        out[0] = sum;
    }
}

// Two waves count the keys that they kept in one counter, by reading and writing it.
//@ plain_counter grid=1 block=128 shared=0 n=3 wants=race threads=3,67
template <bool FAULT>
__global__ void plain_counter(float* out, const float* in, const float* kv, float* scratch, int n) {
    __shared__ int kept;
    const int t = threadIdx.x;
    if (t == 0) kept = 0;
    __syncthreads();
    if (t % 64 == n) {
        if constexpr (FAULT) {
            kept += 1;  //!
        } else {
            atomicAdd(&kept, 1);
        }
    }
    __syncthreads();
    out[t] = static_cast<float>(kept);
}

// One side of a flag is atomic, the other a plain read: the compiler may tear or reorder it.
//@ atomic_against_plain grid=1 block=128 shared=0 n=0 wants=race threads=0,127
template <bool FAULT>
__global__ void atomic_against_plain(float* out, const float* in, const float* kv,
                                     float* scratch, int n) {
    __shared__ int any_nan;
    const int t = threadIdx.x;
    const float x = in[t];
    if (t == 64) any_nan = 0;
    __syncthreads();
    if (t == 127) {
        atomicOr(&any_nan, x != x);  //!
    }
    if (t == 0) {
        int seen;
        if constexpr (FAULT) {
            seen = any_nan;  //!
        } else {
            seen = atomicOr(&any_nan, 0);
        }
        out[0] = static_cast<float>(seen);
    }
}

// Two 16-bit neighbours of two threads: each reads the word of both, and writes it back whole.
//@ neighbour_halves grid=1 block=128 shared=0 n=3 wants=race threads=3,67
template <bool FAULT>
__global__ void neighbour_halves(float* out, const float* in, const float* kv,
                                 float* scratch, int n) {
    __shared__ unsigned int pair;
    const int t = threadIdx.x, half = t / 64;
    if (t == 0) pair = 0;
    __syncthreads();
    if (t % 64 == n) {
        if constexpr (FAULT) {
            pair = (pair & 0xffff0000u >> 16 * half) | t << 16 * half;  //!
        } else {
            reinterpret_cast<unsigned short*>(&pair)[half] = t;
        }
    }
    __syncthreads();
    out[t] = static_cast<float>(pair & 0xffff) + static_cast<float>(pair >> 16);
}

// Wave 0 clears the waves' partial sums while a faster wave already stores its own (real bug 88,
// llm.c#847).
//@ clear_against_partial grid=1 block=128 shared=0 n=2 wants=race threads=1,W
template <bool FAULT>
__global__ void clear_against_partial(float* out, const float* in, const float* kv,
                                      float* scratch, int n) {
    __shared__ float partial[4];
    const int t = threadIdx.x;
    if (t < n) {
        partial[t] = 0.0f;  //!
    }
    if constexpr (!FAULT) __syncthreads();
    if (t % warpSize == 0) {
        partial[t / warpSize] = in[t];  //!
    }
    __syncthreads();
    out[t] = partial[0] + partial[1];
}

// Two stages: the next tile is stored in the stage that is being read, not in the other.
//@ wrong_stage grid=1 block=128 shared=0 n=2 wants=race threads=0,127
template <bool FAULT>
__global__ void wrong_stage(float* out, const float* in, const float* kv, float* scratch, int n) {
    __shared__ float stage[2][128];
    const int t = threadIdx.x;
    float acc = 0.0f;
    stage[0][t] = in[t];
    stage[1][t] = 0.0f;
    __syncthreads();
    for (int i = 0; i < n; i++) {
        const int next = FAULT ? i % 2 : (i + 1) % 2;
        if (t == 0) {
            acc += stage[i % 2][127];  //!
        }
        stage[next][t] = in[(i + 1) * 128 + t];  //!
        __syncthreads();
    }
    if (t == 0) out[0] = acc;
}

// The tile is released and then read once more, while its producer fills it again: an order through
// atomics, which no barrier shows.
//@ read_after_release grid=1 block=128 shared=0 n=7 wants=race threads=0,64
template <bool FAULT>
__global__ void read_after_release(float* out, const float* in, const float* kv,
                                   float* scratch, int n) {
    __shared__ float row;
    __shared__ int released;
    const int t = threadIdx.x;
    if (t == 64) {
        row = in[n];
        released = 0;
    }
    __syncthreads();
    if (t == 0) {
        float value = row;
        if constexpr (FAULT) {
            __threadfence_block();
            atomicExch(&released, 1);
            value = *(volatile float*)&row;  //!
        } else {
            value = *(volatile float*)&row;
            __threadfence_block();
            atomicExch(&released, 1);
        }
        out[0] = value;
    }
    if (t == 64) {
        while (atomicAdd(&released, 0) == 0) {}
        __threadfence_block();
        row = in[n + 1];  //!
    }
}

// A counter in shared memory orders a block's own threads, not two blocks that write one row.
//@ counter_of_its_own grid=2 block=64 shared=0 n=3 wants=race threads=0
template <bool FAULT>
__global__ void counter_of_its_own(float* out, const float* in, const float* kv,
                                   float* scratch, int n) {
    __shared__ int stores;
    if (threadIdx.x == 0) {
        stores = 0;
        atomicAdd(&stores, 1);
        out[FAULT ? n : n + blockIdx.x] = in[blockIdx.x];  //!
        __threadfence();
        atomicAdd(&stores, 1);
    }
}
