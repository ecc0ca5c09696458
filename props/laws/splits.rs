//! Into how many parts the keys are cut changes nothing, and empty parts have no weight.

use super::{breaks, holds};
use attnbench::judge::law::Law;

#[test]
fn any_number_of_splits_equals_another() {
    holds(Law::Splits, &["decode_split", "split"]);
}

#[test]
fn empty_parts_change_nothing_in_a_merge() {
    holds(Law::Empty, &["merge"]);
}

#[test]
fn a_merge_that_takes_the_mean_is_seen() {
    let weight = "weights[s] = weight_of(partial_lse[s], maximum);";
    let edit = ("merge.hip", weight, "weights[s] = 1.0f;");
    breaks(Law::Splits, "law_mean_of_splits", "decode_split", &[edit]);
    breaks(Law::Empty, "law_mean_of_parts", "merge", &[edit]);
}
