//! Faults of the catalogue as edits of kernels, each with the ids that are truly its own.
//!
//! Left out, as no sweep can show them: `layer_slice` and `v_prev_layer_mixed` (a sweep's other layers
//! hold the run's poison, and one filler alone names no address), `stale_current` (a sweep writes the
//! current row before the launch), `softmax_over_window_then_full` (a reference's fault, not a
//! kernel's).

use super::Plant;

const ONLINE: &str = "decode_online.hip";
const SPLIT: &str = "decode_split.hip";
const MERGE: &str = "merge.hip";
const SHARED: &str = "portable.h";
const O: &str = "decode_online.toml";
const S: &str = "decode_split.toml";

/// Layouts with heads outside tokens alone, as many kernels have them.
macro_rules! layouts {
    ($of:literal) => {
        concat!($of, r#" = ["HND", "NHD", "HDN", "NDH", "DHN", "DNH", "NSHD"]"#)
    };
}
const K_LAYOUTS: &str = layouts!("k");
const V_LAYOUTS: &str = layouts!("v");
const K_HND: &str = r#"k = ["HND"]"#;
const V_HND: &str = r#"v = ["HND"]"#;
const K_ROWS: &str = r#"k = ["HND", "NHD"]"#;
const V_ROWS: &str = r#"v = ["HND", "NHD"]"#;

const K_ND: &str = r#""i64:k_stride_n", "i64:k_stride_d""#;
const V_ND: &str = r#""i64:v_stride_n", "i64:v_stride_d""#;
const K_HN: &str = r#""i64:k_stride_h", "i64:k_stride_n""#;
const V_HN: &str = r#""i64:v_stride_h", "i64:v_stride_n""#;
const K_COL: &str = r#""i64:if_le(k_stride_d, k_stride_n, 1, head_dim)", "i64:if_le(k_stride_d, k_stride_n, capacity, 1)""#;
const V_COL: &str = r#""i64:if_le(v_stride_d, v_stride_n, 1, head_dim_v)", "i64:if_le(v_stride_d, v_stride_n, capacity, 1)""#;
const K_AS_HND: &str = r#""i64:if_le(k_stride_h, k_stride_n, capacity * head_dim, k_stride_h)", "i64:if_le(k_stride_h, k_stride_n, head_dim, k_stride_n)""#;
const V_AS_HND: &str = r#""i64:if_le(v_stride_h, v_stride_n, capacity * head_dim_v, v_stride_h)", "i64:if_le(v_stride_h, v_stride_n, head_dim_v, v_stride_n)""#;
const K_AS_NHD: &str = r#""i64:if_le(k_stride_h, k_stride_n, k_stride_h, head_dim)", "i64:if_le(k_stride_h, k_stride_n, k_stride_n, num_kv_heads * head_dim)""#;
const V_AS_NHD: &str = r#""i64:if_le(v_stride_h, v_stride_n, v_stride_h, head_dim_v)", "i64:if_le(v_stride_h, v_stride_n, v_stride_n, num_kv_heads * head_dim_v)""#;
const K_SHORT: &str = r#""i64:k_stride_h - (capacity - seq_len) * k_stride_n", "i64:k_stride_n""#;
const V_SHORT: &str = r#""i64:v_stride_h - (capacity - seq_len) * v_stride_n", "i64:v_stride_n""#;
const NO_PADDING: (&str, &str) = ("padding = true", "padding = false");
const ONE_DIM: (&str, &str) = ("head_dim_v = { min = 1, max = 256 }\n", "");

const KEYS: &str = "const int end = seq_lens[b], begin = first_key(end, window_len);";
const MAP_O: &str = "kv_head = h / group;";
const K_O: &str = "k += b * k_stride_s + kv_head * k_stride_h;";
const V_O: &str = "v += b * v_stride_s + kv_head * v_stride_h;";
const K_S: &str = "k += b * k_stride_s + (h / group) * k_stride_h;";
const V_S: &str = "v += b * v_stride_s + (h / group) * v_stride_h;";
const SCORE: &str = "const float s = dot * scale;";
const CAP: &str = "softcap > 0.0f ? softcap * tanhf(s / softcap) : s";
const DOT: &str =
    "for (int d = 0; d < head_dim; ++d) dot += query[d] * to_float(row[d * k_stride_d]);";
const FINISH: &str = "scores[i] = finish_score(dot, scale, softcap);";
const K_ROW: &str = "k + (first + j) * k_stride_n;";
const V_LOOP: &str =
    "for (int j = 0; j < count; ++j) value += weights[j] * to_float(column[j * v_stride_n]);";
const SINK_O: &str = "sinks ? sinks + h : nullptr";
const OUT: &str = "out += b * out_stride_s + h * out_stride_h;";
const WEIGHTS: &str = "weights[s] = weight_of(partial_lse[s], maximum);";
const TOTAL: &str = "float total = sinks ? weight_of(sinks[h], maximum) : 0.0f;";
const ROW: &str = "partial_lse += row * splits;";

const ARGS_O: &str = "const float *sinks, int group,";
const MORE_O: &str = "const float *sinks, int more, int group,";
const ARGS_S: &str = "const int *seq_lens, int group,";
const MORE_S: &str = "const int *seq_lens, int more, int group,";
const GROUP: &str = r#""i32:group""#;
const CAPACITY: &str = r#""i32:capacity", "i32:group""#;
const LONGEST: &str = r#""i32:seq_len", "i32:group""#;

const MINUS_1: &str = "const int end = seq_lens[b] - 1, begin = first_key(end + 1, window_len);";
const MINUS_1_FOLLOWS: &str =
    "const int end = seq_lens[b] - 1, begin = first_key(end, window_len);";
const PLUS_1: &str = "const int end = seq_lens[b] + 1, begin = first_key(end - 1, window_len);";
const WITHOUT_0: &str = "const int end = seq_lens[b], begin = max(first_key(end, window_len), 1);";
const ALL_ROWS: &str = "const int end = more, begin = first_key(seq_lens[b], window_len);";
const OF_16: &str =
    "const int end = seq_lens[b], begin = first_key(end, window_len > 0 ? window_len : 16);";
const NO_WINDOW: &str = "const int end = seq_lens[b], begin = 0;";
const ONE_FEWER: &str = "const int end = seq_lens[b], begin = window_len > 1 ? first_key(end, window_len - 1) : first_key(end, window_len);";
const ONE_MORE: &str =
    "const int end = seq_lens[b], begin = window_len > 0 ? first_key(end, window_len + 1) : 0;";
const OF_LONGEST: &str =
    "const int end = seq_lens[b], begin = min(end, first_key(more, window_len));";
const TAIL_16: &str =
    "const int end = seq_lens[b] / 16 * 16, begin = min(end, first_key(seq_lens[b], window_len));";
const TAIL_64: &str =
    "const int end = seq_lens[b] / 64 * 64, begin = min(end, first_key(seq_lens[b], window_len));";
const TAIL_FOLLOWS: &str =
    "const int end = seq_lens[b] / 32 * 32, begin = first_key(end, window_len);";

/// The largest score first, so that every weight is relative to it.
const TWO_PASSES: (&str, &str, &str) = (
    ONLINE,
    "    float sum = sink && thread == 0 ? 1.0f : 0.0f;\n",
    "    for (int n = begin + thread; n < end; n += threads) {\n        float dot = 0.0f;\n        \
     for (int d = 0; d < head_dim; ++d) dot += query[d] * to_float(k[n * k_stride_n + d * k_stride_d]);\n        \
     maximum = fmaxf(maximum, finish_score(dot, scale, softcap));\n    }\n    \
     maximum = block_reduce(maximum, slots, take_max());\n    __syncthreads();\n    \
     float sum = sink && thread == 0 ? weight_of(*sink, maximum) : 0.0f;\n",
);
const HALF_PV: &str = "for (int j = 0; j < count; ++j) value = to_float(rounded<__half>::from(value + weights[j] * to_float(column[j * v_stride_n])));";
const HALF_PV_PRODUCT: &str = "for (int j = 0; j < count; ++j) value = to_float(rounded<__half>::from(value + to_float(rounded<__half>::from(weights[j] * to_float(column[j * v_stride_n])))));";
const BF16_PV: &str = "for (int j = 0; j < count; ++j) value = to_float(rounded<__hip_bfloat16>::from(value + weights[j] * to_float(column[j * v_stride_n])));";
const OWN_SUM: &str = "            sum += weight;\n";
const BARRIER: &str = "        __syncthreads();  // every thread reads all weights of the tile\n";
const HALF_SUM: &str = "        __syncthreads();  // every thread reads all weights of the tile\n        \
     if (thread == 0) for (int j = 0; j < count; ++j) sum = to_float(rounded<__half>::from(sum + weights[j]));\n";
const HALF_WEIGHT: &str =
    "const float weight = to_float(rounded<__half>::from(weight_of(scores[i], larger)));";
const WEIGHT: &str = "const float weight = weight_of(scores[i], larger);";
const HALF_DOT: &str = "for (int d = 0; d < head_dim; ++d) dot = to_float(rounded<__half>::from(dot + query[d] * to_float(row[d * k_stride_d])));";

macro_rules! plants {
    ($($kernel:literal $name:ident is $is:expr, $why:literal: $($edit:expr),+;)*) => {
        pub const PLANTS: &[Plant] = &[$(Plant {
            name: concat!(stringify!($name), "_in_", $kernel),
            kernel: $kernel,
            is: &$is,
            why: $why,
            when: &[],
            edits: &[$($edit),+],
        }),*];
    };
}

plants! {
    // Addresses.
    "decode_online" v_col is ["v_col"], "": (O, V_ND, V_COL);
    "decode_split" v_col is ["v_col"], "": (S, V_ND, V_COL);
    "decode_online" k_col is ["k_col"], "": (O, K_ND, K_COL);
    "decode_split" k_col is ["k_col"], "": (S, K_ND, K_COL);
    "decode_online" nhd_as_hnd is ["nhd_as_hnd"], "": (O, K_LAYOUTS, K_ROWS), (O, V_LAYOUTS, V_ROWS), (O, K_HN, K_AS_HND), (O, V_HN, V_AS_HND);
    "decode_split" nhd_as_hnd is ["nhd_as_hnd"], "": (S, K_LAYOUTS, K_ROWS), (S, V_LAYOUTS, V_ROWS), (S, K_HN, K_AS_HND), (S, V_HN, V_AS_HND);
    "decode_online" hnd_as_nhd is ["hnd_as_nhd"], "": (O, K_LAYOUTS, K_ROWS), (O, V_LAYOUTS, V_ROWS), (O, K_HN, K_AS_NHD), (O, V_HN, V_AS_NHD);
    "decode_split" hnd_as_nhd is ["hnd_as_nhd"], "": (S, K_LAYOUTS, K_ROWS), (S, V_LAYOUTS, V_ROWS), (S, K_HN, K_AS_NHD), (S, V_HN, V_AS_NHD);
    "decode_online" kv_swapped is ["kv_swapped"], "": (O, r#""q", "k", "v", "out""#, r#""q", "v", "k", "out""#), (O, ONE_DIM.0, ONE_DIM.1);
    "decode_split" kv_swapped is ["kv_swapped"], "": (S, r#""q", "k", "v", "part_out""#, r#""q", "v", "k", "part_out""#), (S, ONE_DIM.0, ONE_DIM.1);
    "decode_online" stride_seq_len is ["stride_seq_len"], "": (O, K_LAYOUTS, K_HND), (O, V_LAYOUTS, V_HND), (O, K_HN, K_SHORT), (O, V_HN, V_SHORT);
    "decode_split" stride_seq_len is ["stride_seq_len"], "": (S, K_LAYOUTS, K_HND), (S, V_LAYOUTS, V_HND), (S, K_HN, K_SHORT), (S, V_HN, V_SHORT);
    "decode_online" stride_seq_len_of_k is ["stride_seq_len"], "": (O, K_LAYOUTS, K_HND), (O, K_HN, K_SHORT);
    "decode_online" constant_stride_of_q is ["constant_stride"], "": (ONLINE, "q += b * q_stride_s + h * q_stride_h;", "q += (b * gridDim.x + h) * (index_t)64;"), (O, NO_PADDING.0, NO_PADDING.1);
    "decode_split" constant_stride_of_q is ["constant_stride"], "": (SPLIT, "q += b * q_stride_s + h * q_stride_h;", "q += (b * gridDim.x + h) * (index_t)64;"), (S, NO_PADDING.0, NO_PADDING.1);
    "decode_online" constant_capacity is ["constant_stride"], "": (O, K_LAYOUTS, K_HND), (O, V_LAYOUTS, V_HND), (O, NO_PADDING.0, NO_PADDING.1),
        (O, r#""i64:k_stride_s", "i64:k_stride_h""#, r#""i64:64 * num_kv_heads * head_dim", "i64:64 * head_dim""#),
        (O, r#""i64:v_stride_s", "i64:v_stride_h""#, r#""i64:64 * num_kv_heads * head_dim_v", "i64:64 * head_dim_v""#);
    "decode_online" index_bits is ["index_bits"], "": (ONLINE, K_ROW, "k + ((first + j) & 255) * k_stride_n;"), (ONLINE, V_LOOP, "for (int j = 0; j < count; ++j) value += weights[j] * to_float(column[(((first + j) & 255) - first) * v_stride_n]);");
    "decode_split" index_bits_of_k is ["index_bits"], "": (ONLINE, K_ROW, "k + ((first + j) & 255) * k_stride_n;");

    // Heads and sequences.
    "decode_online" head_map_interleaved is ["head_map_interleaved"], "": (ONLINE, MAP_O, "kv_head = h % (gridDim.x / group);");
    "decode_split" head_map_interleaved is ["head_map_interleaved"], "": (SPLIT, K_S, "k += b * k_stride_s + (h % (gridDim.x / group)) * k_stride_h;"), (SPLIT, V_S, "v += b * v_stride_s + (h % (gridDim.x / group)) * v_stride_h;");
    "decode_online" head_off_by_one is ["head_off_by_one"], "": (ONLINE, MAP_O, "kv_head = (h / group + 1) % (gridDim.x / group);");
    "decode_split" head_off_by_one is ["head_off_by_one"], "": (SPLIT, K_S, "k += b * k_stride_s + min((h + 1) / group, (int)gridDim.x / group - 1) * k_stride_h;"), (SPLIT, V_S, "v += b * v_stride_s + min((h + 1) / group, (int)gridDim.x / group - 1) * v_stride_h;");
    "decode_online" head_map_first is ["head_map"], "": (ONLINE, MAP_O, "kv_head = 0;");
    "decode_online" head_map_own is ["head_map"], "": (ONLINE, MAP_O, "kv_head = h;");
    "decode_online" k_head_map is ["k_head_map"], "": (ONLINE, K_O, "k += b * k_stride_s + (h % (gridDim.x / group)) * k_stride_h;");
    "decode_split" k_head_map is ["k_head_map"], "": (SPLIT, K_S, "k += b * k_stride_s;");
    "decode_online" v_head_map is ["v_head_map"], "": (ONLINE, V_O, "v += b * v_stride_s;");
    "decode_split" v_head_map is ["v_head_map"], "": (SPLIT, V_S, "v += b * v_stride_s + (h % (gridDim.x / group)) * v_stride_h;");
    "decode_online" other_sequence is ["other_sequence"], "": (ONLINE, K_O, "k += kv_head * k_stride_h;"), (ONLINE, V_O, "v += kv_head * v_stride_h;");
    "decode_split" other_sequence is ["other_sequence"], "": (SPLIT, K_S, "k += (h / group) * k_stride_h;"), (SPLIT, V_S, "v += (h / group) * v_stride_h;");
    "decode_online" other_sequence_of_k is ["other_sequence"], "": (ONLINE, K_O, "k += kv_head * k_stride_h;");
    "decode_split" next_sequence_of_v is ["other_sequence"], "": (SPLIT, V_S, "v += (b + 1) % gridDim.z * v_stride_s + (h / group) * v_stride_h;");
    "decode_online" row_map_next_head is ["row_map"], "": (ONLINE, OUT, "out += b * out_stride_s + (h + 1) % gridDim.x * out_stride_h;");
    "decode_split" row_map_reversed is ["row_map"], "": (MERGE, OUT, "out += b * out_stride_s + (gridDim.x - 1 - h) * out_stride_h;");
    "decode_online" row_map_next_sequence is ["row_map"], "": (ONLINE, OUT, "out += (b + 1) % gridDim.y * out_stride_s + h * out_stride_h;");

    // Keys.
    "decode_online" seq_len_minus_1 is ["seq_len_minus_1"], "": (ONLINE, KEYS, MINUS_1);
    "decode_split" seq_len_minus_1 is ["seq_len_minus_1"], "": (SPLIT, KEYS, MINUS_1);
    "decode_online" seq_len_minus_1_and_its_window is ["seq_len_minus_1"], "": (ONLINE, KEYS, MINUS_1_FOLLOWS);
    "decode_online" seq_len_plus_1 is ["seq_len_plus_1"], "": (ONLINE, KEYS, PLUS_1);
    "decode_split" seq_len_plus_1 is ["seq_len_plus_1"], "": (SPLIT, KEYS, PLUS_1);
    "decode_online" pos_shift is ["pos_shift"], "": (ONLINE, K_O, "k += b * k_stride_s + kv_head * k_stride_h + k_stride_n;"), (ONLINE, V_O, "v += b * v_stride_s + kv_head * v_stride_h + v_stride_n;");
    "decode_split" pos_shift is ["pos_shift"], "": (SPLIT, K_S, "k += b * k_stride_s + (h / group) * k_stride_h + k_stride_n;"), (SPLIT, V_S, "v += b * v_stride_s + (h / group) * v_stride_h + v_stride_n;");
    "decode_online" sink_dropped is ["sink_dropped"], "": (ONLINE, KEYS, WITHOUT_0);
    "decode_split" sink_dropped is ["sink_dropped"], "": (SPLIT, KEYS, WITHOUT_0);
    "decode_online" capacity_as_seq is ["capacity_as_seq"], "": (ONLINE, KEYS, ALL_ROWS), (ONLINE, ARGS_O, MORE_O), (O, GROUP, CAPACITY);
    "decode_split" capacity_as_seq is ["capacity_as_seq"], "": (SPLIT, KEYS, ALL_ROWS), (SPLIT, ARGS_S, MORE_S), (S, GROUP, CAPACITY);
    "decode_online" window_w is ["window_w"], "": (ONLINE, KEYS, OF_16);
    "decode_split" window_w is ["window_w"], "": (SPLIT, KEYS, OF_16);
    "decode_online" window_ignored is ["window_w"], "the window of all keys": (ONLINE, KEYS, NO_WINDOW);
    "decode_split" window_ignored is ["window_w"], "the window of all keys": (SPLIT, KEYS, NO_WINDOW);
    "decode_online" window_off_by_one_fewer is ["window_off_by_one"], "": (ONLINE, KEYS, ONE_FEWER);
    "decode_split" window_off_by_one_fewer is ["window_off_by_one"], "": (SPLIT, KEYS, ONE_FEWER);
    "decode_online" window_off_by_one_more is ["window_off_by_one"], "": (ONLINE, KEYS, ONE_MORE);
    "decode_split" window_off_by_one_more is ["window_off_by_one"], "": (SPLIT, KEYS, ONE_MORE);
    "decode_online" window_from_longest is ["window_from_longest"], "": (ONLINE, KEYS, OF_LONGEST), (ONLINE, ARGS_O, MORE_O), (O, GROUP, LONGEST);
    "decode_split" window_from_longest is ["window_from_longest"], "": (SPLIT, KEYS, OF_LONGEST), (SPLIT, ARGS_S, MORE_S), (S, GROUP, LONGEST);
    "decode_online" dropped_tail_16 is ["dropped_tail"], "": (ONLINE, KEYS, TAIL_16);
    "decode_split" dropped_tail_64 is ["dropped_tail"], "": (SPLIT, KEYS, TAIL_64);
    "decode_online" dropped_tail_and_its_window is ["dropped_tail"], "": (ONLINE, KEYS, TAIL_FOLLOWS);

    // Scores.
    "decode_online" missing_scale is ["missing_scale"], "": (SHARED, SCORE, "const float s = dot;");
    "decode_split" missing_scale is ["missing_scale"], "": (SHARED, SCORE, "const float s = dot;");
    "decode_online" double_scale is ["double_scale"], "": (SHARED, SCORE, "const float s = dot * scale * scale;");
    "decode_split" double_scale is ["double_scale"], "": (SHARED, SCORE, "const float s = dot * scale * scale;");
    "decode_online" scale_by_d is ["scale_by_d"], "": (O, r#""f32:scale""#, r#""f32:1.0 / head_dim""#);
    "decode_split" scale_by_d is ["scale_by_d"], "": (S, r#""f32:scale""#, r#""f32:1.0 / head_dim""#);
    "decode_online" softcap_ignored is ["softcap_ignored"], "": (SHARED, CAP, "s");
    "decode_split" softcap_ignored is ["softcap_ignored"], "": (SHARED, CAP, "s");
    "decode_online" softcap_on_unscaled is ["softcap_on_unscaled"], "": (SHARED, CAP, "softcap > 0.0f ? softcap * tanhf(dot / softcap) * scale : s");
    "decode_split" softcap_on_unscaled is ["softcap_on_unscaled"], "": (SHARED, CAP, "softcap > 0.0f ? softcap * tanhf(dot / softcap) : s");
    "decode_online" softcap_in_log_2 is ["softcap_on_unscaled"], "": (SHARED, CAP, "softcap > 0.0f ? 1.44269504f * softcap * tanhf(s / softcap) : s");
    "decode_online" zero_padded_head_dim_64 is ["zero_padded_head_dim"], "": (ONLINE, DOT, "for (int d = 0; d < head_dim && d < 64; ++d) dot += query[d] * to_float(row[d * k_stride_d]);");
    "decode_split" zero_padded_head_dim_half is ["zero_padded_head_dim"], "": (ONLINE, DOT, "for (int d = 0; d < (head_dim + 1) / 2; ++d) dot += query[d] * to_float(row[d * k_stride_d]);");

    // Sums.
    "decode_online" fp16_accumulate is ["fp16_accumulate"], "": TWO_PASSES, (ONLINE, V_LOOP, HALF_PV_PRODUCT), (ONLINE, WEIGHT, HALF_WEIGHT), (ONLINE, OWN_SUM, ""), (ONLINE, BARRIER, HALF_SUM);
    "decode_online" accumulate_pv is ["accumulate"], "": TWO_PASSES, (ONLINE, V_LOOP, HALF_PV);
    "decode_online" accumulate_pv_product is ["accumulate"], "": TWO_PASSES, (ONLINE, V_LOOP, HALF_PV_PRODUCT);
    "decode_online" accumulate_pv_bf16 is ["accumulate"], "": TWO_PASSES, (ONLINE, V_LOOP, BF16_PV);
    "decode_online" accumulate_row_sum is ["accumulate"], "": TWO_PASSES, (ONLINE, OWN_SUM, ""), (ONLINE, BARRIER, HALF_SUM);
    "decode_online" accumulate_scores is ["accumulate"], "": (ONLINE, DOT, HALF_DOT);
    "decode_split" accumulate_scores is ["accumulate"], "": (ONLINE, DOT, HALF_DOT);
    "decode_online" scores_narrowed_after is ["scores_narrowed"], "": (ONLINE, FINISH, "scores[i] = to_float(rounded<__half>::from(finish_score(dot, scale, softcap)));");
    "decode_split" scores_narrowed_before is ["scores_narrowed"], "": (ONLINE, FINISH, "scores[i] = finish_score(to_float(rounded<__half>::from(dot)), scale, softcap);");
    "decode_split" scores_narrowed_bf16 is ["scores_narrowed"], "": (ONLINE, FINISH, "scores[i] = to_float(rounded<__hip_bfloat16>::from(finish_score(dot, scale, softcap)));");

    // Sinks.
    "decode_online" sink_ignored is ["sink_ignored"], "": (ONLINE, SINK_O, "nullptr");
    "decode_split" sink_ignored is ["sink_ignored"], "": (MERGE, TOTAL, "float total = 0.0f;");
    "decode_online" sink_twice is ["sink_twice"], "": (ONLINE, "float sum = sink && thread == 0 ? 1.0f", "float sum = sink && thread == 0 ? 2.0f");
    "decode_split" sink_twice is ["sink_twice"], "": (MERGE, TOTAL, "float total = sinks ? 2.0f * weight_of(sinks[h], maximum) : 0.0f;");
    "decode_split" sink_in_every_split is ["sink_twice"], "": (MERGE, TOTAL, "float total = sinks ? splits * weight_of(sinks[h], maximum) : 0.0f;");
    "decode_online" other_head_sink_first is ["other_head_sink"], "": (ONLINE, SINK_O, "sinks");
    "decode_online" other_head_sink_kv is ["other_head_sink"], "": (ONLINE, SINK_O, "sinks ? sinks + h / group : nullptr");
    "decode_split" other_head_sink is ["other_head_sink"], "": (MERGE, "float maximum = sinks ? sinks[h]", "float maximum = sinks ? sinks[0]"), (MERGE, TOTAL, "float total = sinks ? weight_of(sinks[0], maximum) : 0.0f;");
    "decode_split" sink_dropped_in_split is ["sink_dropped_in_split"], "": (MERGE, TOTAL, "float total = sinks && partial_lse[splits - 1] > -INFINITY ? weight_of(sinks[h], maximum) : 0.0f;");

    // Parts.
    "decode_split" split_not_rescaled_mean is ["split_not_rescaled"], "": (MERGE, WEIGHTS, "weights[s] = partial_lse[s] == -INFINITY ? 0.0f : 1.0f;"), (S, "sinks = true", "sinks = false");
    "decode_split" split_not_rescaled_sum is ["split_not_rescaled"], "": (SPLIT, "partial_lse[row] = sums.maximum + logf(sums.total);", "partial_lse[row] = logf(sums.total);"), (S, "sinks = true", "sinks = false");
    "decode_split" empty_part_counted is ["empty_part_counted"], "": (MERGE, WEIGHTS, "weights[s] = weight_of(partial_lse[s] == -INFINITY ? 0.0f : partial_lse[s], maximum);");
    "merge" parts_averaged is ["split_not_rescaled"], "": (MERGE, WEIGHTS, "weights[s] = partial_lse[s] == -INFINITY ? 0.0f : 1.0f;");
    "merge" parts_averaged_over_all is ["split_not_rescaled"], "": (MERGE, WEIGHTS, "weights[s] = 1.0f;");
    "merge" parts_added is ["split_not_rescaled"], "": (MERGE, WEIGHTS, "weights[s] = 1.0f;"), (MERGE, "rounded<Out>::from(normalised(sum, total));", "rounded<Out>::from(sum);");
    "merge" last_part_dropped is ["part_dropped"], "": (MERGE, "    float maximum =", "    const int parts = splits > 1 ? splits - 1 : 1;\n    float maximum ="),
        (MERGE, "for (int s = 0; s < splits; ++s) maximum", "for (int s = 0; s < parts; ++s) maximum"), (MERGE, "for (int s = 0; s < splits; ++s) total", "for (int s = 0; s < parts; ++s) total"), (MERGE, "for (int s = 0; s < splits; ++s) {", "for (int s = 0; s < parts; ++s) {");
    "merge" first_part_dropped is ["part_dropped"], "": (MERGE, "    float maximum =", "    const int from = splits > 1 ? 1 : 0;\n    float maximum ="),
        (MERGE, "for (int s = 0; s < splits; ++s) maximum", "for (int s = from; s < splits; ++s) maximum"), (MERGE, "for (int s = 0; s < splits; ++s) total", "for (int s = from; s < splits; ++s) total"), (MERGE, "for (int s = 0; s < splits; ++s) {", "for (int s = from; s < splits; ++s) {");
    "merge" empty_part_counted is ["empty_part_counted"], "": (MERGE, WEIGHTS, "weights[s] = weight_of(partial_lse[s] == -INFINITY ? 0.0f : partial_lse[s], maximum);"), (MERGE, "            if (partial_lse[s] == -INFINITY) continue;\n", "");
    "merge" lse_base is ["lse_base"], "": (MERGE, WEIGHTS, "weights[s] = weight_of(0.69314718f * partial_lse[s], 0.69314718f * maximum);");
    "merge" lse_heads_outside is ["lse_layout_swapped"], "": (MERGE, ROW, "partial_lse += ((index_t)h * gridDim.y + b) * splits;");
    "merge" lse_row_map is ["row_map"], "": (MERGE, OUT, "out += b * out_stride_s + (h + 1) % gridDim.x * out_stride_h;");

    // The lse that is written.
    "decode_online" lse_base is ["lse_base"], "": (ONLINE, "sums.maximum + logf(sums.total)", "(sums.maximum + logf(sums.total)) * 1.44269504f");
    "decode_online" lse_base_of_the_sum is ["lse_base"], "": (ONLINE, "sums.maximum + logf(sums.total)", "sums.maximum + log2f(sums.total)");
    "decode_split" lse_base is ["lse_base"], "": (MERGE, "lse[row] = maximum + logf(total);", "lse[row] = (maximum + logf(total)) * 1.44269504f;");
    "decode_online" lse_layout_swapped is ["lse_layout_swapped"], "": (ONLINE, "lse[b * gridDim.x + h]", "lse[h * gridDim.y + b]");
    "decode_split" lse_layout_swapped is ["lse_layout_swapped"], "": (MERGE, "lse[row] = maximum", "lse[h * gridDim.y + b] = maximum");

    // Two at once.
    "decode_online" scale_and_last_key is ["missing_scale", "seq_len_minus_1"], "two": (SHARED, SCORE, "const float s = dot;"), (ONLINE, KEYS, MINUS_1);
    "decode_split" head_map_and_scale is ["head_map_interleaved", "double_scale"], "two": (SHARED, SCORE, "const float s = dot * scale * scale;"), (SPLIT, K_S, "k += b * k_stride_s + (h % (gridDim.x / group)) * k_stride_h;"), (SPLIT, V_S, "v += b * v_stride_s + (h % (gridDim.x / group)) * v_stride_h;");
    "decode_online" columns_and_scale is ["v_col", "missing_scale"], "two": (O, V_ND, V_COL), (SHARED, SCORE, "const float s = dot;");
    "decode_online" tail_and_scale is ["dropped_tail", "missing_scale"], "two": (ONLINE, KEYS, TAIL_16), (SHARED, SCORE, "const float s = dot;");
}

/// Those that are planted by default.
pub const FEW: [&str; 12] = [
    "v_col_in_decode_online",
    "stride_seq_len_in_decode_split",
    "head_map_interleaved_in_decode_split",
    "other_sequence_of_k_in_decode_online",
    "seq_len_minus_1_in_decode_online",
    "window_off_by_one_fewer_in_decode_split",
    "missing_scale_in_decode_online",
    "softcap_on_unscaled_in_decode_split",
    "scores_narrowed_after_in_decode_online",
    "sink_ignored_in_decode_online",
    "lse_base_in_merge",
    "parts_averaged_in_merge",
];
