// softmax.hip: the second pass of attention alone, weights from scores.
//
// Computes, for sequence b and head h, over the attended keys n (all of seq_lens[b], or its last
// window_len):
//   probs[b,h,n] = exp(s_n - m) / l,  m = max_n s_n [and sink_h],
//                                     l = sum_n exp(s_n - m) [+ exp(sink_h - m)]
//   lse[b,h]     = m + log(l)         base e; -inf where no key is attended and no sink is given
// Keys before the window get 0; from seq_lens[b] on nothing is written, and of scores nothing but
// the attended keys is read.
//
//   scores, probs [batch, num_heads, capacity] f32   any strides, unit along the keys; probs may
//                                                    be scores, with the same strides
//   seq_lens [batch] i32    sinks [num_heads] f32 or null    lse [batch, num_heads] f32 or null
//
// Algorithm: online softmax, Milakov & Gimelshein 2018 (arXiv:1805.02867), algorithm 3, with the
//   merge of partial results of section 3.1: maximum and sum together take one walk over the
//   scores and one reduction over the block; a second walk writes the weights.
// Launch:    grid (num_heads, batch), block (threads): a power of two up to 1024.
// Requires:  nothing of alignment. seq_lens[b] = 0 is legal: writes lse only.
// History:   v1, a pass of decode_naive, found the maximum and then the sum, with a reduction and
//            a walk over memory each, wrote the weights, and came back to divide them.
#include "portable.h"

// What a part of a row comes to: its largest score, and the sum of exp(score - maximum).
struct softmax_part {
    float maximum, sum;
};

__device__ __forceinline__ softmax_part part_of(float score) {
    if (score == -INFINITY) return softmax_part{score, 0.0f};
    // why: 1, and NaN for a score that is NaN or +inf, as exp(score - maximum) is.
    return softmax_part{score, score - score + 1.0f};
}

__device__ __forceinline__ softmax_part lane_xor(softmax_part x, int mask) {
    // One shuffle of 8 bytes: where a shuffle is expensive, half as many of them.
    unsigned long long bits = (unsigned long long)__float_as_uint(x.maximum) << 32;
    bits = lane_xor(bits | __float_as_uint(x.sum), mask);
    return softmax_part{__uint_as_float((unsigned)(bits >> 32)), __uint_as_float((unsigned)bits)};
}

struct merge_parts {
    __device__ __forceinline__ softmax_part operator()(softmax_part a, softmax_part b) const {
        // A NaN among the maxima is in its sum too, and so in the result's.
        const bool a_is_higher = a.maximum >= b.maximum;
        const softmax_part high = a_is_higher ? a : b, low = a_is_higher ? b : a;
        const float factor = weight_of(low.maximum, high.maximum);
        return softmax_part{high.maximum, high.sum + low.sum * factor};
    }
};

__global__ void softmax_rows(
    const float *scores, float *probs, float *lse, const int *seq_lens, const float *sinks,
    int window_len, index_t scores_stride_s, index_t scores_stride_h, index_t probs_stride_s,
    index_t probs_stride_h) {
    __shared__ softmax_part slots[BLOCK_REDUCE_SLOTS];
    const int h = blockIdx.x, b = blockIdx.y, thread = threadIdx.x, threads = blockDim.x;
    const int end = seq_lens[b], begin = first_key(end, window_len);
    scores += b * scores_stride_s + h * scores_stride_h;
    probs += b * probs_stride_s + h * probs_stride_h;

    softmax_part part = part_of(sinks && thread == 0 ? sinks[h] : -INFINITY);
    for (int n = begin + thread; n < end; n += threads) {
        part = merge_parts()(part, part_of(scores[n]));
    }
    part = block_reduce(part, slots, merge_parts());

    for (int n = thread; n < begin; n += threads) probs[n] = 0.0f;
    for (int n = begin + thread; n < end; n += threads) {
        probs[n] = normalised(weight_of(scores[n], part.maximum), part.sum);
    }
    if (lse && thread == 0) lse[b * gridDim.x + h] = part.maximum + logf(part.sum);
}
