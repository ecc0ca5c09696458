//! Faults of appending a row to the cache, and of rotating it.

use super::{READS, VALUES, WRITES, faults};

const APPEND: &str = "append.hip";

faults! {
    the_row_is_written_one_too_late: "append", "", WRITES,
        (APPEND, "position = pos[b];", "position = pos[b] + 1;");
    the_row_is_written_one_too_early: "append", "", WRITES,
        (APPEND, "position = pos[b];", "position = (index_t)pos[b] - 1;");
    the_position_has_thirteen_bits: "append", "", WRITES,
        (APPEND, "position = pos[b];", "position = pos[b] & 0x1fff;");
    every_sequence_has_the_first_one_s_position: "append", "", WRITES,
        (APPEND, "position = pos[b];", "position = pos[0];");
    rows_of_all_sequences_go_to_the_first: "append", "Dao-AILab/flash-attention#772", WRITES,
        (APPEND, "k += b * k_stride_s + h * k_stride_h", "k += h * k_stride_h");
    the_value_is_written_as_a_column: "append", "", WRITES,
        (APPEND, "v[d * v_stride_d] =", "v[d * v_stride_n] =");
    keys_and_values_are_exchanged: "append", "", WRITES,
        ("append.toml", r#""pos", "k", "v","#, r#""pos", "v", "k","#);
    new_rows_are_read_head_by_sequence: "append", "", READS,
        (APPEND, "row = (index_t)b * gridDim.x + h,", "row = (index_t)h * gridDim.y + b,");
    the_next_row_is_cleared: "append", "", WRITES,
        (APPEND, "v[d * v_stride_d] = rounded<KV>::from(to_float(new_v[d]));",
         "v[d * v_stride_d] = rounded<KV>::from(to_float(new_v[d]));\n        if (position > 0) v[d * v_stride_d - v_stride_n] = rounded<KV>::from(0.0f);");
    the_last_dim_is_not_written: "append", "vllm-project/vllm#45466", VALUES,
        (APPEND, "for (int d = thread; d < head_dim; d += threads) {",
         "for (int d = thread; d < head_dim - 1; d += threads) {");
    the_cache_is_stored_with_a_scale: "append", "lightseekorg/tokenspeed#759", VALUES,
        (APPEND, "rounded<KV>::from(to_float(new_v[d]))", "rounded<KV>::from(0.5f * to_float(new_v[d]))");
    values_are_cut_and_not_rounded: "append", "", VALUES,
        ("portable.h", "return __float2bfloat16(x);",
         "return __float2bfloat16(__uint_as_float(__float_as_uint(x) & 0xffff0000u));");

    keys_are_rotated_the_other_way: "append", "", VALUES,
        (APPEND, "s = sinf(angle);", "s = -sinf(angle);");
    pairs_are_taken_in_the_other_style: "append", "", VALUES,
        (APPEND, "const int first = rope_interleaved ? 2 * i : i;", "const int first = rope_interleaved ? i : 2 * i;"),
        (APPEND, "const int second = rope_interleaved ? first + 1 : first + pairs;",
         "const int second = rope_interleaved ? first + pairs : first + 1;");
    keys_are_rotated_for_the_next_position: "append", "", VALUES,
        (APPEND, "const float angle = (float)position * frequency;",
         "const float angle = (float)(position + 1) * frequency;");
    the_base_is_baked_in: "append", "", VALUES,
        (APPEND, "powf(rope_base,", "powf(10000.0f,");
    the_exponent_is_halved: "append", "", VALUES,
        (APPEND, "(float)(-2 * i)", "(float)(-i)");
    rows_past_the_first_sequence_are_not_rotated: "append", "ml-explore/mlx#3795", VALUES,
        (APPEND, "const int pairs = rope_base != 0.0f ?", "const int pairs = rope_base != 0.0f && b == 0 ?");
    the_rotation_is_computed_in_place: "append", "", VALUES,
        (APPEND, "k[second * k_stride_d] = rounded<KV>::from(x * s + y * c);",
         "k[second * k_stride_d] = rounded<KV>::from(to_float(k[first * k_stride_d]) * s + y * c);");
}
