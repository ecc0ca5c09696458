//! Faults of whole decode attention, in one pass and in three.

use super::{RACES, READS, VALUES, WRITES, faults};

const ONLINE: &str = "decode_online.hip";
const MANIFEST: &str = "decode_online.toml";
const SHARED: &str = "portable.h";

faults! {
    // Which keys.
    a_window_one_key_too_long: "decode_online", "zml/zml#763", VALUES,
        (SHARED, "seq_len - window_len : 0", "seq_len - window_len - 1 : 0");
    a_window_one_key_too_short: "decode_online", "lightseekorg/tokenspeed#578", VALUES,
        (SHARED, "seq_len - window_len : 0", "seq_len - window_len + 1 : 0");
    a_window_rounded_up_to_a_tile: "decode_online", "sgl-project/sglang#31501", VALUES,
        (SHARED, "seq_len - window_len : 0", "(seq_len - window_len) / 16 * 16 : 0");
    the_window_is_ignored: "decode_online", "EricLBuehler/mistral.rs#2094", VALUES,
        (ONLINE, "begin = first_key(end, window_len);", "begin = 0;");
    one_key_too_many: "decode_online", "", READS,
        (ONLINE, "const int end = seq_lens[b],", "const int end = seq_lens[b] + 1,");
    the_last_partial_tile_is_dropped: "decode_online", "", VALUES,
        (ONLINE, "for (int first = begin; first < end; first += tile) {",
         "for (int first = begin; first + tile <= end; first += tile) {");
    the_tail_of_a_tile_is_not_masked: "decode_online", "woct0rdho/SageAttention#98", READS,
        (ONLINE, "if (j < count) {", "if (j < tile) {");
    the_first_length_holds_for_all_sequences: "decode_online", "", READS,
        (ONLINE, "const int end = seq_lens[b],", "const int end = seq_lens[0],");
    a_stale_row_is_read_with_weight_zero: "decode_online", "vllm-project/vllm#936", VALUES,
        (ONLINE, "            accumulator[d] = value;",
         "            if (first + count == end) value += 0.0f * to_float(column[count * v_stride_n]);\n            accumulator[d] = value;");

    // Which heads and sequences.
    the_kv_head_is_taken_modulo: "decode_online", "ggml-org/llama.cpp#6374", VALUES,
        (ONLINE, "kv_head = h / group;", "kv_head = h % (gridDim.x / group);");
    the_kv_head_is_always_the_first: "decode_online", "BobMcDear/attorch#14", VALUES,
        (ONLINE, "kv_head = h / group;", "kv_head = 0;");
    the_group_is_forgotten: "decode_online", "ggml-org/llama.cpp#6374", READS,
        (ONLINE, "kv_head = h / group;", "kv_head = h;");
    the_last_head_takes_the_kv_head_before: "decode_online", "", VALUES,
        (ONLINE, "kv_head = h / group;",
         "kv_head = h + 1 == (int)gridDim.x && h >= group ? h / group - 1 : h / group;");
    all_sequences_read_the_first_one_of_k: "decode_online", "", VALUES,
        (ONLINE, "k += b * k_stride_s + kv_head * k_stride_h;", "k += kv_head * k_stride_h;");
    v_goes_by_the_strides_of_k: "decode_online", "", READS,
        (MANIFEST, r#""i64:v_stride_s", "i64:v_stride_h", "i64:v_stride_n", "i64:v_stride_d","#,
         r#""i64:k_stride_s", "i64:k_stride_h", "i64:k_stride_n", "i64:k_stride_d","#);
    out_goes_by_the_strides_of_q: "decode_online", "XPU-Forces/mojo_opset#371", WRITES,
        (ONLINE, "out += b * out_stride_s + h * out_stride_h;",
         "out += b * q_stride_s + h * q_stride_h;");
    the_strides_of_k_are_shifted_by_an_axis: "decode_online", "ROCm/aiter#4531", READS,
        (MANIFEST, r#""i64:k_stride_s", "i64:k_stride_h", "i64:k_stride_n", "i64:k_stride_d","#,
         r#""i64:k_stride_h", "i64:k_stride_n", "i64:k_stride_d", "i64:k_stride_d","#);
    rows_of_v_are_as_long_as_those_of_k: "decode_online", "ikawrakow/ik_llama.cpp#2031", READS,
        (MANIFEST, r#""i64:v_stride_n""#, r#""i64:v_stride_n * head_dim / head_dim_v""#);

    // Softmax.
    the_accumulator_is_not_rescaled: "decode_online", "", VALUES,
        (ONLINE, "float value = accumulator[d] * rescale;", "float value = accumulator[d];");
    the_sum_is_not_rescaled: "decode_online", "", VALUES,
        (ONLINE, "sum *= rescale;", "sum *= 1.0f;");
    the_running_maximum_starts_at_a_finite_number: "decode_online", "flashinfer-ai/flashinfer#4450", VALUES,
        (ONLINE, "float maximum = sink ? *sink : -INFINITY;", "float maximum = sink ? *sink : -1e4f;");
    the_running_maximum_starts_at_zero: "decode_online", "", VALUES,
        (ONLINE, "float maximum = sink ? *sink : -INFINITY;", "float maximum = sink ? *sink : 0.0f;");
    the_maximum_is_not_subtracted: "decode_online", "", VALUES,
        (ONLINE, "maximum = larger;", "maximum = 0.0f;"),
        (ONLINE, "weight_of(scores[i], larger);", "expf(scores[i]);");
    a_score_that_is_no_number_has_no_weight: "decode_online", "Liger-Kernel#259", VALUES,
        (SHARED, "return score == -INFINITY ? 0.0f", "return !(score > -INFINITY) ? 0.0f");
    the_sinks_are_ignored: "decode_online", "kekzl/imp#1303", VALUES,
        (ONLINE, "float sum = sink && thread == 0 ? 1.0f : 0.0f;", "float sum = 0.0f;");
    every_thread_counts_the_sink: "decode_online", "ROCm/rocm-libraries#12227", VALUES,
        (ONLINE, "float sum = sink && thread == 0 ? 1.0f", "float sum = sink ? 1.0f");
    every_head_has_the_first_one_s_sink: "decode_online", "modular/modular#6198", VALUES,
        (ONLINE, "sinks ? sinks + h : nullptr", "sinks ? sinks : nullptr");
    the_softcap_is_ignored: "decode_online", "sgl-project/sgl-kernel-xpu#491", VALUES,
        (SHARED, "softcap > 0.0f ? softcap * tanhf(s / softcap) : s", "s");
    the_softcap_bends_the_unscaled_score: "decode_online", "", VALUES,
        (SHARED, "softcap * tanhf(s / softcap)", "softcap * tanhf(dot / softcap) * scale");
    the_softcap_is_in_units_of_log_2: "decode_online", "sgl-project/sgl-kernel-xpu#491", VALUES,
        (SHARED, "softcap * tanhf(s / softcap)", "1.44269504f * softcap * tanhf(s / softcap)");
    the_scale_is_ignored: "decode_online", "", VALUES,
        (SHARED, "const float s = dot * scale;", "const float s = dot;");
    the_scale_is_baked_in: "decode_online", "pegainfer#873", VALUES,
        (MANIFEST, r#""f32:scale""#, r#""f32:0.125""#);
    the_scale_is_that_of_a_padded_head: "decode_online", "", VALUES,
        (MANIFEST, r#""f32:scale""#, r#""f32:scale * 0.995""#);
    the_log_sum_exp_has_base_two: "decode_online", "sgl-project/sglang#40903", &["oracle/lse"],
        (ONLINE, "sums.maximum + logf(sums.total)", "sums.maximum + log2f(sums.total)");
    the_log_sum_exp_lacks_the_batch_stride: "decode_online", "", &["oracle/lse"],
        (ONLINE, "lse[b * gridDim.x + h]", "lse[h]");
    the_log_sum_exp_is_transposed: "decode_online", "vllm-project/flash-attention#87", &["oracle/lse"],
        (ONLINE, "lse[b * gridDim.x + h]", "lse[h * gridDim.y + b]");

    // Elements of a head vector.
    the_last_dims_of_a_key_are_dropped: "decode_online", "", VALUES,
        (ONLINE, "d < head_dim; ++d) dot +=", "d < head_dim / 4 * 4; ++d) dot +=");
    dims_past_64_of_a_key_are_ignored: "decode_online", "triton-lang/triton#621", VALUES,
        (ONLINE, "d < head_dim; ++d) dot +=", "d < head_dim && d < 64; ++d) dot +=");
    dims_past_32_are_not_written: "decode_online", "mni-ml/framework#38", RACES,
        (ONLINE, "d < head_dim_v; d += threads) {\n        out[d]",
         "d < head_dim_v && d < 32; d += threads) {\n        out[d]");
    dims_beyond_the_block_are_not_written: "decode_online", "", RACES,
        (ONLINE, "d < head_dim_v; d += threads) {\n        out[d]",
         "d < head_dim_v; d += head_dim_v) {\n        out[d]");
    p_times_v_accumulates_in_f16: "decode_online", "ggml-org/llama.cpp#6374", VALUES,
        (ONLINE, "accumulator[d] = value;",
         "accumulator[d] = to_float(rounded<__half>::from(value));");
    f16_is_cut_and_not_rounded: "decode_online", "", VALUES,
        (SHARED, "return __float2half(x);",
         "return __float2half(__half2float(__float2half(x)) == x ? x : x * (1.0f - 4.8e-4f));");

    // Empty sequences.
    an_empty_sequence_is_not_written: "decode_online", "vllm-project/vllm#37442", VALUES,
        (ONLINE, "    q += b *", "    if (end == 0) return;\n    q += b *");
    an_empty_sequence_is_nothing_over_nothing: "decode_online", "vllm-project/vllm#57094", VALUES,
        (SHARED, "return total == 0.0f ? sum : sum / total;", "return sum / total;");

    // Threads.
    no_barrier_after_the_weights_are_written: "decode_online", "", RACES,
        (ONLINE, "        __syncthreads();  // every thread reads all weights of the tile\n", "");
    no_barrier_after_the_query_is_loaded: "decode_online", "", RACES,
        (ONLINE, "    __syncthreads();\n\n    // The running maximum", "    // The running maximum");
    no_barrier_after_the_slots_are_written: "decode_online", "flashinfer-ai/flashinfer#3624", RACES,
        (SHARED, "slots[wave] = x;\n    __syncthreads();", "slots[wave] = x;");
    the_wave_has_32_lanes_in_the_slots: "decode_online", "ggml-org/llama.cpp#3630", RACES,
        (SHARED, "const int wave = threadIdx.x / warpSize, waves = (threads + warpSize - 1) / warpSize;",
         "const int wave = threadIdx.x / 32, waves = (threads + 31) / 32;");
    a_barrier_that_some_threads_do_not_reach: "decode_online", "", &["deadlock"],
        (ONLINE, "        __syncthreads();  // every thread",
         "        if (thread >= count) break;\n        __syncthreads();  // every thread");
    all_threads_share_one_weight: "decode_online", "1bit-MONSTER#393", RACES,
        (ONLINE, "weights[thread + i * threads] = weight;", "weights[i * threads] = weight;");

    // Memory.
    one_element_past_the_row_is_written: "decode_online", "", WRITES,
        (ONLINE, "    if (lse && thread == 0)",
         "    if (thread == 0) out[head_dim_v] = rounded<Out>::from(0.0f);\n    if (lse && thread == 0)");
    the_output_is_written_through_a_null_pointer: "decode_online", "", &["crash"],
        (ONLINE, "out += b * out_stride_s + h * out_stride_h;", "out = nullptr;");
    the_very_first_element_alone_is_wrong: "decode_online", "", VALUES,
        (ONLINE, "    if (lse && thread == 0)",
         "    if (b + h + thread == 0) out[0] = rounded<Out>::from(shared[0] + 9.0f);\n    if (lse && thread == 0)");
    the_very_last_element_alone_is_wrong: "decode_online", "", VALUES,
        (ONLINE, "    if (lse && thread == 0)",
         "    if (b + 1 == gridDim.y && h + 1 == gridDim.x && thread == (head_dim_v - 1) % threads) out[head_dim_v - 1] = rounded<Out>::from(shared[0] + 9.0f);\n    if (lse && thread == 0)");

    // Three passes: what passes between them.
    the_scores_of_a_partial_block_are_dropped: "decode_naive", "", RACES,
        ("scores.hip", "if (n >= end) return;", "if (n >= end / 16 * 16) return;");
    the_weights_are_read_by_the_sequence_s_own_length: "decode_naive", "", READS,
        ("pv.hip", "probs += b * probs_stride_s + h * probs_stride_h;",
         "probs += b * probs_stride_s + h * (index_t)end;");
}
