//! Faults of splitting the keys, and of putting the parts together.

use super::{RACES, READS, VALUES, WRITES, faults};

const SPLIT: &str = "decode_split.hip";
const MERGE: &str = "merge.hip";

faults! {
    the_remainder_of_the_keys_is_dropped: "decode_split", "tile-ai/tilelang#2010", &["oracle", "law"],
        (SPLIT, "(end - begin + splits - 1) / splits;", "(end - begin) / splits;");
    every_split_computes_the_same_prefix: "decode_split", "tile-ai/tilelang#2010", VALUES,
        (SPLIT, "from = begin + split * part,", "from = begin + 0 * split,");
    the_newest_split_is_lost: "split", "openvinotoolkit/openvino#38034", VALUES,
        (SPLIT, "to = from + part;", "to = splits > 1 && split + 1 == splits ? from : from + part;");
    the_window_is_counted_from_the_first_key: "split", "", VALUES,
        (SPLIT, "begin = first_key(end, window_len);", "begin = 0;");
    splits_overlap_by_a_key: "split", "", VALUES,
        (SPLIT, "to = from + part;", "to = from + part + 1;");
    the_parts_are_not_normalised: "split", "", VALUES,
        (SPLIT, "partial_out[d] = normalised(shared[d], sums.total);", "partial_out[d] = shared[d];");
    an_empty_split_stores_nothing: "decode_split", "flashinfer-ai/flashinfer#50", RACES,
        (SPLIT, "partial_out += row * head_dim_v;",
         "partial_out += row * head_dim_v;\n    if (from >= end && split > 0) return;");
    all_splits_store_their_lse_in_one_place: "decode_split", "sgl-project/sgl-kernel-xpu#487", RACES,
        (SPLIT, "partial_lse[row] =", "partial_lse[row - split] =");
    the_lse_of_a_part_has_base_two: "decode_split", "sgl-project/sglang#35045", VALUES,
        (SPLIT, "sums.maximum + logf(sums.total)", "(sums.maximum + logf(sums.total)) * 1.44269504f");
    the_values_have_a_kv_head_each: "decode_split", "", READS,
        (SPLIT, "v += b * v_stride_s + (h / group) * v_stride_h;",
         "v += b * v_stride_s + h * v_stride_h;");

    parts_are_averaged: "merge", "", VALUES,
        (MERGE, "weights[s] = weight_of(partial_lse[s], maximum);", "weights[s] = 1.0f;");
    parts_are_weighed_to_base_two: "merge", "vllm-project/vllm#52796", VALUES,
        (MERGE, "weights[s] = weight_of(partial_lse[s], maximum);",
         "weights[s] = weight_of(0.69314718f * partial_lse[s], 0.69314718f * maximum);");
    two_empty_parts_make_nan: "merge", "flashinfer-ai/flashinfer#4051", VALUES,
        (MERGE, "weights[s] = weight_of(partial_lse[s], maximum);",
         "weights[s] = expf(partial_lse[s] - maximum);");
    an_empty_part_counts_as_a_score_of_zero: "merge", "", VALUES,
        (MERGE, "weights[s] = weight_of(partial_lse[s], maximum);",
         "weights[s] = weight_of(partial_lse[s] == -INFINITY ? 0.0f : partial_lse[s], maximum);");
    more_parts_than_threads_are_not_weighed: "merge", "ggml-org/llama.cpp#13852", RACES,
        (MERGE, "for (int s = thread; s < splits; s += threads) weights[s] =",
         "for (int s = thread; s < splits && s < threads; s += threads) weights[s] =");
    every_head_reads_the_first_one_s_lse: "merge", "Tencent/hpc-ops#6", VALUES,
        (MERGE, "partial_lse += row * splits;", "partial_lse += (row - h) * splits;");
    all_sequences_fold_onto_the_first: "merge", "Dao-AILab/flash-attention#1217", WRITES,
        (MERGE, "out += b * out_stride_s + h * out_stride_h;", "out += h * out_stride_h;");
    rows_of_out_are_stepped_by_head_dim: "merge", "FlagOpen/FlagGems#5235", WRITES,
        (MERGE, "out += b * out_stride_s + h * out_stride_h;", "out += row * head_dim;");
    the_last_part_is_lost: "merge", "", VALUES,
        (MERGE, "for (int s = 0; s < splits; ++s) {",
         "for (int s = 0; s < (splits > 1 ? splits - 1 : 1); ++s) {");
    what_an_empty_part_holds_is_multiplied_by_zero: "merge", "", VALUES,
        (MERGE, "if (partial_lse[s] == -INFINITY) continue;", "");
    the_largest_lse_starts_at_a_finite_number: "merge", "", VALUES,
        (MERGE, "float maximum = sinks ? sinks[h] : -INFINITY;", "float maximum = sinks ? sinks[h] : -1e4f;");
    no_barrier_before_the_weights_are_read: "merge", "ROCm/composable_kernel#2934", RACES,
        (MERGE, "    __syncthreads();\n\n    float total", "\n    float total");
    the_lse_of_the_merge_is_its_maximum: "merge", "", &["oracle/lse"],
        (MERGE, "lse[row] = maximum + logf(total);", "lse[row] = maximum;");
    the_merge_counts_the_sink_twice: "decode_split", "ROCm/rocm-libraries#12227", VALUES,
        (MERGE, "float total = sinks ? weight_of(sinks[h], maximum)",
         "float total = sinks ? 2.0f * weight_of(sinks[h], maximum)");
    the_merge_forgets_the_sink: "decode_split", "kekzl/imp#1345", VALUES,
        (MERGE, "float total = sinks ? weight_of(sinks[h], maximum) : 0.0f;", "float total = 0.0f;");
}
