//! Faults of scores, softmax, P·V and prefill alone.

use super::{RACES, READS, VALUES, WRITES, faults};

const SCORES: &str = "scores.hip";
const SOFTMAX: &str = "softmax.hip";
const PV: &str = "pv.hip";
const MATVEC: &str = "matvec.h";
const PREFILL: &str = "prefill.hip";

faults! {
    the_newest_score_is_not_written: "scores", "", VALUES,
        (SCORES, "if (n >= end) return;", "if (n + 1 >= end) return;");
    a_score_past_the_end_is_written: "scores", "", &["stray-write", "crash"],
        (SCORES, "if (n >= end) return;", "if (n > end) return;");
    the_oldest_score_of_the_window_is_masked: "scores", "", VALUES,
        (SCORES, "if (n >= first_key(end, window_len)) {", "if (n > first_key(end, window_len) || window_len == 0) {");
    keys_before_the_window_get_a_finite_sentinel: "scores", "flashinfer-ai/flashinfer#4450", &["stray-write"],
        (SCORES, "float score = -INFINITY;", "float score = -5e4f;");
    rows_of_scores_are_as_long_as_the_grid: "scores", "ikawrakow/ik_llama.cpp#2087", WRITES,
        (SCORES, "h * scores_stride_h + n]", "h * (index_t)gridDim.x * blockDim.x + n]");
    the_query_of_the_group_s_first_head: "scores", "", VALUES,
        (SCORES, "b * q_stride_s + h * q_stride_h;", "b * q_stride_s + h / group * group * q_stride_h;");
    a_score_is_kept_in_f16: "scores", "", VALUES,
        (SCORES, "scores[b * scores_stride_s", "score = to_float(__float2half(score));\n    scores[b * scores_stride_s");

    the_weights_are_not_normalised: "softmax", "", VALUES,
        (SOFTMAX, "normalised(weight_of(scores[n], part.maximum), part.sum)",
         "weight_of(scores[n], part.maximum)");
    a_part_is_added_without_its_factor: "softmax", "", VALUES,
        (SOFTMAX, "high.sum + low.sum * factor", "high.sum + low.sum");
    the_lower_maximum_wins: "softmax", "", VALUES,
        (SOFTMAX, "a.maximum >= b.maximum;", "a.maximum <= b.maximum;");
    weights_go_by_the_strides_of_the_scores: "softmax", "", WRITES,
        (SOFTMAX, "probs += b * probs_stride_s + h * probs_stride_h;",
         "probs += b * scores_stride_s + h * scores_stride_h;");
    keys_before_the_window_have_weight: "softmax", "", &["stray-write"],
        (SOFTMAX, "probs[n] = 0.0f;", "probs[n] = 1.0f;");
    the_sink_takes_no_part: "softmax", "kekzl/imp#1303", VALUES,
        (SOFTMAX, "part_of(sinks && thread == 0 ? sinks[h] : -INFINITY)", "part_of(-INFINITY)");
    keys_past_the_65536th_have_no_weight_in_the_sum: "softmax", "", VALUES,
        (SOFTMAX, "n < end; n += threads) {\n        part", "n < end && n < 65536; n += threads) {\n        part");
    the_sums_of_other_waves_are_left_out: "softmax", "Luce-Org/lucebox#500", VALUES,
        ("portable.h", "for (int w = 1; w < waves; ++w) x = op(x, slots[w]);", "");

    p_times_v_starts_before_the_window: "pv", "", VALUES,
        (PV, "begin = first_key(end, window_len);", "begin = 0;");
    weights_of_the_first_head_of_the_group: "pv", "", VALUES,
        (PV, "probs += b * probs_stride_s + h * probs_stride_h;",
         "probs += b * probs_stride_s + h / group * group * probs_stride_h;");
    elements_past_the_row_are_written: "pv", "ROCm/composable_kernel#2072", WRITES,
        (PV, "beyond < head_dim ? beyond : head_dim,", "beyond,");
    v_is_read_by_columns_where_it_lies_in_rows: "pv", "", READS,
        (PV, "v[n * v_stride_n + d * v_stride_d]", "v[n * v_stride_d + d * v_stride_n]");
    the_values_of_the_first_sequence: "pv", "ml-explore/mlx#3497", VALUES,
        (PV, "v += b * v_stride_s + (h / group) * v_stride_h;", "v += (h / group) * v_stride_h;");
    the_last_share_is_not_added: "pv", "", VALUES,
        (MATVEC, "for (int i = 0; i < shares; ++i) sum", "for (int i = 0; i < shares - 1; ++i) sum");
    the_keys_past_the_last_round_are_lost: "pv", "", VALUES,
        (MATVEC, "n < end; n += shares) sum", "n - share + shares <= end; n += shares) sum");
    no_barrier_before_the_shares_are_added: "pv", "", RACES,
        (MATVEC, "    __syncthreads();\n", "");
    shares_are_summed_in_f16: "pv", "", VALUES,
        (MATVEC, "sum += weight(n) * element(n, j);",
         "sum = to_float(__float2half(sum + weight(n) * element(n, j)));");

    every_position_attends_the_whole_prompt: "prefill", "ModelTC/LightLLM#1311", VALUES,
        (PREFILL, "const int end = t + 1,", "const int end = seq_lens[b],");
    a_position_does_not_attend_itself: "prefill", "", VALUES,
        (PREFILL, "const int end = t + 1,", "const int end = t > 0 ? t : 1,");
    a_position_attends_the_next: "prefill", "", VALUES,
        (PREFILL, "const int end = t + 1,", "const int end = t + 1 < seq_lens[b] ? t + 2 : t + 1,");
    the_window_is_that_of_the_last_position: "prefill", "", VALUES,
        (PREFILL, "begin = first_key(end, window_len);", "begin = min(first_key(seq_lens[b], window_len), t);");
    positions_of_padding_are_written: "prefill", "Dao-AILab/flash-attention#1745", WRITES,
        (PREFILL, "if (t >= seq_lens[b]) return;", "if (t > seq_lens[b]) return;");
    positions_past_the_512th_are_not_computed: "prefill", "", VALUES,
        (PREFILL, "if (t >= seq_lens[b]) return;", "if (t >= seq_lens[b] || t >= 512) return;");
    queries_are_read_by_the_strides_of_out: "prefill", "", READS,
        (PREFILL, "t * q_stride_n + h * q_stride_h", "t * out_stride_n + h * q_stride_h");
}
