//! Softmax does not know the order of its keys, nor a constant on all scores.

use super::{DECODE, breaks, holds};
use attnbench::judge::law::Law;

#[test]
fn keys_and_values_may_be_permuted_together() {
    holds(Law::Order, &DECODE);
    holds(Law::Order, &["scores", "softmax", "pv", "split"]);
}

#[test]
fn a_constant_on_every_score_changes_the_lse_by_it_and_nothing_else() {
    holds(Law::Shift, &DECODE);
    holds(Law::Shift, &["scores", "split", "prefill"]);
}

#[test]
fn a_kernel_that_counts_the_first_key_twice_is_seen() {
    let sum = "            sum += weight;";
    let more = "            sum += first + i + thread == begin ? 2.0f * weight : weight;";
    breaks(Law::Order, "law_first_twice", "decode_online", &[("decode_online.hip", sum, more)]);
}

#[test]
fn a_kernel_whose_running_maximum_starts_at_zero_is_seen() {
    let from = "float maximum = sink ? *sink : -INFINITY;";
    let edit = ("decode_online.hip", from, "float maximum = sink ? *sink : 0.0f;");
    breaks(Law::Shift, "law_maximum_zero", "decode_online", &[edit]);
}
