// decode_naive.hip: decode attention in three passes over memory, the readable baseline.
//
// Computes, for sequence b and query head h, over the attended keys n (all of seq_lens[b], or its
// last window_len):
//   score_keys    weights[b,h,n] = the score of key n                              scores.hip
//   softmax_rows  weights[b,h,n] = its weight, in place; lse[b,h]                  softmax.hip
//   weigh_values  out[b,h,:] = sum_n weights[b,h,n] v[b,g,n,:]                     pv.hip
//
//   weights  [batch, num_heads, seq_len] f32, scratch; what is not attended is never read
//   all else as in those files
//
// Algorithm: the definition, a kernel a line. Each is judged alone too, so that a fault of the
//   whole can be traced to its pass.
// Launch:   as those files say.
// Requires: nothing of alignment. seq_lens[b] = 0 is legal: writes out = 0.
// History:  one pass with the scores in shared memory would bound seq_len by the LDS; scratch in
//           global memory does not. v1 had three kernels of its own.
#include "scores.hip"
#include "softmax.hip"
#include "pv.hip"
