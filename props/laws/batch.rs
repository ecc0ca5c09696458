//! A sequence has the same output whatever else is in its batch.

use super::{DECODE, breaks, holds};
use attnbench::judge::law::Law;

#[test]
fn a_sequence_alone_has_the_output_that_it_has_in_the_batch() {
    holds(Law::Batch, &DECODE);
    holds(Law::Batch, &["append", "scores", "softmax", "pv", "split"]);
    holds(Law::Batch, &["merge", "prefill", "head_combine", "norm"]);
}

#[test]
fn a_kernel_that_takes_the_first_length_for_all_is_seen() {
    let edit = ("softmax.hip", "const int end = seq_lens[b],", "const int end = seq_lens[0],");
    breaks(Law::Batch, "law_first_length", "softmax", &[edit]);
}

#[test]
fn a_kernel_that_reads_the_first_sequence_of_x_is_seen() {
    let edit = ("norm.hip", "x += b * x_stride_s;", "x += 0 * x_stride_s;");
    breaks(Law::Batch, "law_first_x", "norm", &[edit]);
}
