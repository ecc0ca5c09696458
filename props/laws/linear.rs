//! The output is linear in the values, and a projection in what it projects.

use super::{DECODE, breaks, holds};
use attnbench::judge::law::Law;

#[test]
fn the_output_of_a_sum_is_the_sum_of_the_outputs() {
    holds(Law::Linear, &DECODE);
    holds(Law::Linear, &["pv", "split", "prefill", "head_combine"]);
}

#[test]
fn a_kernel_that_accumulates_in_f16_is_seen() {
    let edit = (
        "decode_online.hip",
        "accumulator[d] = value;",
        "accumulator[d] = to_float(rounded<__half>::from(value));",
    );
    breaks(Law::Linear, "law_f16_sums", "decode_online", &[edit]);
}
