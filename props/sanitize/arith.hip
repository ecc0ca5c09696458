// arith.hip: planted faults of the class `arith`, each with its mended twin.
//
// Parameters, `//@` and `//!` as in memory.hip. Results are used, but only masked to an index, so
// that no fault of the class `memory` follows.

constexpr int SEQ_LEN = 5;
// The score of a masked key, in the kernels that quantise scores.
constexpr int MASKED = -2147483647 - 1;

// Page times stride in 32 bits: at 480 * 576 elements a page, page 7768 is too far (real bug 75).
//@ page_times_stride grid=1 block=128 shared=0 n=7763 wants=arith threads=5
template <bool FAULT>
__global__ void page_times_stride(float* out, const float* in, const float* kv,
                                  float* scratch, int n) {
    const int t = threadIdx.x, page = n + t, page_stride = 480 * 576;
    if (t > SEQ_LEN) return;
    if constexpr (FAULT) {
        const int offset = page * page_stride;  //!
        out[t] = in[offset & 1023];
    } else {
        const long long offset = static_cast<long long>(page) * page_stride;
        out[t] = in[offset & 1023];
    }
}

// A lane's bit in a word of 32: with waves of 64 the upper lanes shift by too much (real bug 87).
//@ lane_bit_in_32 grid=1 block=128 shared=0 n=0 wants=arith threads=32..63,96..127 waves=64
template <bool FAULT>
__global__ void lane_bit_in_32(float* out, const float* in, const float* kv,
                               float* scratch, int n) {
    const int t = threadIdx.x, lane = t % warpSize;
    const unsigned long long votes = __ballot(in[t] > 3.0f);
    if constexpr (FAULT) {
        const unsigned int bit = 1u << lane;  //!
        out[t] = (votes & bit) != 0 ? 1.0f : 0.0f;
    } else {
        const unsigned long long bit = 1ull << lane;
        out[t] = (votes & bit) != 0 ? 1.0f : 0.0f;
    }
}

// Dequantisation by an exponent with a bias: the exponent below the bias shifts by less than 0.
//@ exponent_below_bias grid=1 block=128 shared=0 n=1 wants=arith threads=0
template <bool FAULT>
__global__ void exponent_below_bias(float* out, const float* in, const float* kv,
                                    float* scratch, int n) {
    const int t = threadIdx.x;
    if (t >= 16) return;
    const int exponent = static_cast<int>(in[t]);
    const int shift = FAULT ? exponent - n : max(exponent - n, 0);
    const int scale = 1 << shift;  //!
    out[t] = static_cast<float>(scale);
}

// The cache in blocks of 32 KiB, addressed by a shift in 32 bits: block 131072 is shifted out
// (real bug 78).
//@ block_shifted_out grid=1 block=128 shared=0 n=131072 wants=arith threads=1
template <bool FAULT>
__global__ void block_shifted_out(float* out, const float* in, const float* kv,
                                  float* scratch, int n) {
    const int t = threadIdx.x, block_id = t * n;
    if (t > 1) return;
    if constexpr (FAULT) {
        const int offset = block_id << 15;  //!
        out[t] = in[offset & 1023];
    } else {
        const long long offset = static_cast<long long>(block_id) << 15;
        out[t] = in[offset & 1023];
    }
}

// Vectors of 32 elements a row: none for head_dim 24, and the threads are divided among none
// (cf. real bug 61).
//@ no_vectors_in_a_row grid=1 block=128 shared=0 n=24 wants=arith threads=9
template <bool FAULT>
__global__ void no_vectors_in_a_row(float* out, const float* in, const float* kv,
                                    float* scratch, int n) {
    const int t = threadIdx.x;
    if (t != 9) return;
    const int vectors = FAULT ? n / 32 : (n + 31) / 32;
    const int rows = 128 / vectors;  //!
    out[0] = static_cast<float>(rows);
}

// A window of 0 means none; the place of the current token in the ring is taken modulo the window.
//@ window_of_zero grid=1 block=128 shared=0 n=0 wants=arith threads=4
template <bool FAULT>
__global__ void window_of_zero(float* out, const float* in, const float* kv,
                               float* scratch, int n) {
    const int token = threadIdx.x, window = FAULT ? n : (n > 0 ? n : 1024);
    if (token != SEQ_LEN - 1) return;
    const int place = token % window;  //!
    out[0] = in[place & 1023];
}

// Scores are divided by -1, and so is the sentinel of a masked key, whose quotient does not fit.
// Finite sentinels have other faults, too (cf. real bug 2).
//@ sentinel_divided grid=1 block=128 shared=0 n=-1 wants=arith threads=5
template <bool FAULT>
__global__ void sentinel_divided(float* out, const float* in, const float* kv,
                                 float* scratch, int n) {
    const int key = threadIdx.x;
    if (key > SEQ_LEN) return;
    const int masked = FAULT ? MASKED : MASKED + 1;
    const int score = key < SEQ_LEN ? static_cast<int>(in[key]) : masked;
    const int scaled = score / n;  //!
    out[key] = static_cast<float>(scaled);
}

// The magnitude of a score, for its scale: the sentinel of a masked key has none.
//@ sentinel_negated grid=1 block=128 shared=0 n=77 wants=arith threads=77
template <bool FAULT>
__global__ void sentinel_negated(float* out, const float* in, const float* kv,
                                 float* scratch, int n) {
    const int key = threadIdx.x;
    const int masked = FAULT ? MASKED : MASKED + 1;
    const int score = key == n ? masked : -static_cast<int>(in[key]);
    const int magnitude = -score;  //!
    out[key] = static_cast<float>(magnitude);
}

// A batch stride of 2^30 is added up once a sequence: the third does not fit (real bug 77).
//@ stride_added_up grid=1 block=128 shared=0 n=1073741824 wants=arith threads=2
template <bool FAULT>
__global__ void stride_added_up(float* out, const float* in, const float* kv,
                                float* scratch, int n) {
    const int sequence = threadIdx.x;
    if (sequence > 2) return;
    if constexpr (FAULT) {
        int base = 0;
        for (int s = 0; s < sequence; s++) {
            base += n;  //!
        }
        out[sequence] = in[(base & 1023) + sequence];
    } else {
        long long base = 0;
        for (int s = 0; s < sequence; s++) base += n;
        out[sequence] = in[(base & 1023) + sequence];
    }
}

// An unlimited window is the greatest integer, and the oldest allowed key is that far behind: of
// the first padded query, at position -2, further than integers go.
//@ window_before_all grid=1 block=128 shared=0 n=2147483647 wants=arith threads=0
template <bool FAULT>
__global__ void window_before_all(float* out, const float* in, const float* kv,
                                  float* scratch, int n) {
    const int t = threadIdx.x, position = t - 2;
    const int window = FAULT ? n : min(n, 1024);
    const int oldest = position - window;  //!
    out[t] = static_cast<float>(max(oldest, 0));
}
