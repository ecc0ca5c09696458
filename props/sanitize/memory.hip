// memory.hip: planted faults of the class `memory`, each with its mended twin.
//
// Every kernel has the same parameters: out [1024] f32, not set; in [1024] f32, read-only, in[i] =
// i; kv [8 rows, stride 32] f32, read-only, of which elements d < 24 of rows 0 to 4 may be read,
// value row * 100 + d; scratch [1024] f32, not set but for element 1023, which is integer 0; and n.
// The line above a kernel says how it is launched and what is wrong with <true>, and a mark at a
// line's end that it is wrong there.

constexpr int SEQ_LEN = 5;
constexpr int HEAD_DIM = 24;
constexpr int STRIDE = 32;

// The query's row is loaded in 8 chunks of 4, as for head_dim 32: the last two lie in the padding.
// They get weight 0, so no value shows it; at the end of a page it is a crash (real bug 59).
//@ q_chunks grid=1 block=128 shared=0 n=24 wants=memory threads=6,7
template <bool FAULT>
__global__ void q_chunks(float* out, const float* in, const float* kv, float* scratch, int n) {
    const int t = threadIdx.x, d = 4 * t;
    const int loaded = FAULT ? STRIDE : HEAD_DIM;
    float sum = 0.0f;
    if (d < loaded) {
        const float weight = d < n ? 1.0f : 0.0f;
        const float4 q = *reinterpret_cast<const float4*>(kv + 4 * STRIDE + d);  //!
        sum = weight * (q.x + q.y + q.z + q.w);
    }
    out[t] = sum;
}

// A thread a key, but with <= for <: the key at seq_len is read, then masked by weight 0. A stale
// row can make NaN of it all the same (real bug 67, real bug 72).
//@ one_key_more grid=1 block=128 shared=0 n=5 wants=memory threads=5
template <bool FAULT>
__global__ void one_key_more(float* out, const float* in, const float* kv, float* scratch, int n) {
    const int key = threadIdx.x;
    const int keys = FAULT ? n + 1 : n;
    float score = 0.0f;
    if (key < keys) {
        const float weight = key < n ? 1.0f : 0.0f;
        score = weight * kv[key * STRIDE + 3];  //!
    }
    out[key] = score;
}

// The left neighbour of element 0 does not exist. Weight 0 hides the value, not the access.
//@ left_neighbour grid=2 block=128 shared=0 n=0 wants=memory threads=0 blocks=0
template <bool FAULT>
__global__ void left_neighbour(float* out, const float* in, const float* kv,
                               float* scratch, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    const float weight = i > n ? 1.0f : 0.0f;
    const int left = FAULT ? i - 1 : max(i - 1, 0);
    const float before = weight * in[left];  //!
    out[i] = in[i] - before;
}

// Each request's rows lie n = 132 elements apart, as padded, in an output that is packed at 128:
// the last request ends behind the buffer (real bug 45).
//@ packed_as_padded grid=8 block=128 shared=0 n=132 wants=memory threads=100..127 blocks=7
template <bool FAULT>
__global__ void packed_as_padded(float* out, const float* in, const float* kv,
                                 float* scratch, int n) {
    const int request = blockIdx.x, t = threadIdx.x;
    const int request_stride = FAULT ? n : blockDim.x;
    out[request * request_stride + t] = 2.0f * in[request * blockDim.x + t];  //!
}

// The current token's key is appended to the cache that this launch may only read.
//@ append_to_input grid=1 block=128 shared=0 n=5 wants=memory threads=5
template <bool FAULT>
__global__ void append_to_input(float* out, const float* in, const float* kv,
                                float* scratch, int n) {
    const int d = threadIdx.x;
    float* cache = FAULT ? const_cast<float*>(kv) : scratch;
    const float key = d < HEAD_DIM ? kv[d] : 0.0f;
    if (d == n) {
        cache[d] = 0.5f * key;  //!
    }
    out[d] = key;
}

// A slot a wave, sized for waves of 64: with waves of 32 the block has twice as many (real bug 85).
//@ slots_for_wave64 grid=1 block=256 shared=0 n=0 wants=memory threads=128,160,192,224 waves=32
template <bool FAULT>
__global__ void slots_for_wave64(float* out, const float* in, const float* kv,
                                 float* scratch, int n) {
    __shared__ float partial[FAULT ? 4 : 8];
    const int t = threadIdx.x;
    float* slots = partial;
    if (t % warpSize == 0) {
        slots[t / warpSize] = in[t];  //!
    }
    __syncthreads();
    out[t] = in[t] - slots[n];
}

// The launch sized the dynamic block as two rows of head_dim; the kernel looks for V at the padded
// stride, so that the end of V's row lies behind the block.
//@ dynamic_row_stride grid=1 block=128 shared=192 n=0 wants=memory threads=16..23
template <bool FAULT>
__global__ void dynamic_row_stride(float* out, const float* in, const float* kv,
                                   float* scratch, int n) {
    extern __shared__ float tile[];
    const int d = threadIdx.x;
    if (d < HEAD_DIM) {
        tile[d] = kv[d];
        tile[HEAD_DIM + d] = kv[STRIDE + d];
    }
    __syncthreads();
    const int v_row = FAULT ? STRIDE : HEAD_DIM;
    if (d < HEAD_DIM) {
        const float v = tile[v_row + d];  //!
        out[d] = tile[d] * v;
    }
}

// A ring of 16 slots, n = 3 tokens back: in C++ the remainder of a negative number is negative.
//@ ring_negative grid=1 block=128 shared=64 n=3 wants=memory threads=0..2
template <bool FAULT>
__global__ void ring_negative(float* out, const float* in, const float* kv, float* scratch, int n) {
    extern __shared__ float tile[];
    const int t = threadIdx.x;
    if (t < 16) tile[t] = in[t];
    __syncthreads();
    if (t < 16) {
        const int slot = FAULT ? (t - n) % 16 : (t - n + 16) % 16;
        out[t] = tile[slot];  //!
    }
}

// Rows of n = 46 elements. Whether a vector store is aligned is asked of the source only; every
// other row of the destination is 8 bytes off (real bug 60).
//@ store_alignment grid=1 block=128 shared=0 n=46 wants=memory threads=1,3,5,7
template <bool FAULT>
__global__ void store_alignment(float* out, const float* in, const float* kv,
                                float* scratch, int n) {
    const int row = threadIdx.x;
    if (row >= 8) return;
    const float* from = in + 4 * row;
    float* to = out + row * n;
    const size_t asked = reinterpret_cast<size_t>(FAULT ? from : to);
    if (asked % sizeof(float4) == 0) {
        *reinterpret_cast<float4*>(to) = *reinterpret_cast<const float4*>(from);  //!
    } else {
        for (int d = 0; d < 4; d++) to[d] = from[d];
    }
}

// The tail of a vector of 4 tokens is set to zero up to and with element 4 (real bug 64).
//@ tail_zeroing grid=1 block=128 shared=0 n=4 wants=memory threads=1
template <bool FAULT>
__global__ void tail_zeroing(float* out, const float* in, const float* kv, float* scratch, int n) {
    const int t = threadIdx.x, first = n * t;
    if (first >= SEQ_LEN) return;
    float v_vec[4];
    for (int j = 0; j < 4; j++) v_vec[j] = in[first + j];
    if (first + n > SEQ_LEN) {
        const int end = FAULT ? n + 1 : n;
        for (int j = SEQ_LEN - first; j < end; j++) v_vec[j] = 0.0f;  //!
    }
    out[t] = v_vec[0] + v_vec[1] + v_vec[2] + v_vec[3];
}

// 6 query heads share a KV head; the block is laid out for 8, the next power of two, and the state
// has 6 places (real bug 54).
//@ heads_to_power_of_two grid=1 block=128 shared=0 n=6 wants=memory threads=96,112
template <bool FAULT>
__global__ void heads_to_power_of_two(float* out, const float* in, const float* kv,
                                      float* scratch, int n) {
    __shared__ float running_max[6];
    const int t = threadIdx.x, head = t / 16;
    const int heads = FAULT ? 8 : n;
    if (t % 16 == 0 && head < heads) {
        running_max[head] = in[t];  //!
    }
    __syncthreads();
    out[t] = running_max[t % 6];
}

// The log-sum-exp is optional: the caller passes null, and the store does not ask
// (cf. real bug 17).
//@ lse_is_null grid=1 block=128 shared=0 n=0 wants=memory threads=0
template <bool FAULT>
__global__ void lse_is_null(float* out, const float* in, const float* kv, float* scratch, int n) {
    const int t = threadIdx.x;
    float* volatile given = n > 0 ? scratch : nullptr;
    float* lse = given;
    const bool stores = FAULT ? t == 0 : t == 0 && lse != nullptr;
    if (stores) {
        lse[blockIdx.x] = in[t];  //!
    }
    out[t] = in[t] + 1.0f;
}

// A row is copied whole, from where the last row begins less than a row before the end.
//@ copy_beyond_the_last_row grid=1 block=64 shared=0 n=4 wants=memory threads=3
template <bool FAULT>
__global__ void copy_beyond_the_last_row(float* out, const float* in, const float* kv,
                                         float* scratch, int n) {
    const int t = threadIdx.x;
    float row[HEAD_DIM];
    out[t] = in[t];
    if (t == 3) {
        memcpy(row, kv + n * STRIDE + (FAULT ? 1 : 0), sizeof row);  //!
        float sum = 0.0f;
        for (int d = 0; d < HEAD_DIM; ++d) sum += row[d];
        out[t] = sum;
    }
}
