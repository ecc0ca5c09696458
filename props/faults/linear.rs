//! Faults of combining the heads, and of residual and norm.

use super::{READS, VALUES, WRITES, faults};

const COMBINE: &str = "head_combine.hip";
const NORM: &str = "norm.hip";

faults! {
    heads_are_transposed: "head_combine", "", READS,
        (COMBINE, "i / head_dim * x_stride_h + i % head_dim", "i % num_heads * x_stride_h + i / num_heads"),
        (COMBINE, "const bool dense = x_stride_h == head_dim;", "const bool dense = num_heads == 1 && x_stride_h == head_dim;");
    the_projection_is_transposed: "head_combine", "", READS,
        (COMBINE, "w_o[(index_t)j * length + i]", "w_o[(index_t)i * hidden + j]");
    the_last_head_is_left_out: "head_combine", "", VALUES,
        (COMBINE, "shared, true, 0, length, first,", "shared, true, 0, length - head_dim, first,");
    heads_are_taken_to_lie_side_by_side: "head_combine", "ggml-org/llama.cpp#14500", READS,
        (COMBINE, "const bool dense = x_stride_h == head_dim;", "const bool dense = true;");
    columns_past_the_row_are_written: "head_combine", "", WRITES,
        (COMBINE, "beyond < hidden ? beyond : hidden,", "beyond,");
    every_sequence_has_the_first_one_s_heads: "head_combine", "", VALUES,
        (COMBINE, "x += b * x_stride_s;", "x += 0 * x_stride_s;");
    the_projection_is_summed_in_f16: "head_combine", "ggml-org/llama.cpp#6374", VALUES,
        ("matvec.h", "sum += weight(n) * element(n, j);",
         "sum = to_float(__float2half(sum + weight(n) * element(n, j)));");

    eps_is_left_out: "norm", "", VALUES,
        (NORM, "squares / hidden + eps", "squares / hidden");
    eps_is_added_after_the_root: "norm", "", VALUES,
        (NORM, "1.0f / sqrtf(squares / hidden + eps)", "1.0f / (sqrtf(squares / hidden) + eps)");
    the_squares_are_not_averaged: "norm", "", VALUES,
        (NORM, "squares / hidden + eps", "squares + eps");
    the_mean_is_over_one_less: "norm", "", VALUES,
        (NORM, "squares / hidden + eps", "squares / (hidden > 1 ? hidden - 1 : 1) + eps");
    the_sum_is_not_kept: "norm", "", VALUES,
        (NORM, "residual[i] = rounded<X>::from(to_float(residual[i]) + to_float(x[i]));\n        const float r = to_float(residual[i]);",
         "const float r = to_float(rounded<X>::from(to_float(residual[i]) + to_float(x[i])));");
    the_residual_is_normalised_before_it_is_added_to: "norm", "", VALUES,
        (NORM, "const float r = to_float(residual[i]);", "const float r = to_float(residual[i]) - to_float(x[i]);");
    the_weight_is_left_out: "norm", "", VALUES,
        (NORM, " * to_float(weight[i]));", ");");
    the_weight_is_the_thread_s_first: "norm", "", VALUES,
        (NORM, "to_float(weight[i])", "to_float(weight[thread])");
    squares_are_summed_in_f16: "norm", "", VALUES,
        (NORM, "squares += r * r;", "squares = to_float(__float2half(squares + r * r));");
    squares_past_the_2048th_are_left_out: "norm", "", VALUES,
        (NORM, "squares += r * r;", "if (i < 2048) squares += r * r;");
    elements_past_the_block_are_not_normalised: "norm", "", VALUES,
        (NORM, "i < hidden; i += threads) {\n        out[i]", "i < hidden; i += hidden) {\n        out[i]");
}
