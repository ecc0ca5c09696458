//! Faults that the catalogue does not know, with facts that are true of when they show.
//!
//! Many are those of [`super::faults`]; the others make the output wrong where a case has some
//! property, and right elsewhere, so that the property is what must be told.

use super::{Plant, faults};

const ONLINE: &str = "decode_online.hip";
const SPLIT: &str = "decode_split.hip";
const MERGE: &str = "merge.hip";

/// The result of `decode_online` a tenth too small where a condition holds.
macro_rules! small {
    ($where:literal) => {
        (
            ONLINE,
            "rounded<Out>::from(normalised(shared[d], sums.total));",
            concat!(
                "rounded<Out>::from(normalised(shared[d], sums.total) * (",
                $where,
                " ? 0.9f : 1.0f));"
            ),
        )
    };
}

/// The result of `merge` a tenth too small where a condition holds.
macro_rules! merged {
    ($where:literal) => {
        (
            MERGE,
            "rounded<Out>::from(normalised(sum, total));",
            concat!("rounded<Out>::from(normalised(sum, total) * (", $where, " ? 0.9f : 1.0f));"),
        )
    };
}

macro_rules! plants {
    ($($name:ident: $kernel:literal, $when:expr, $($edit:expr),+;)*) => {
        const OWN: &[Plant] = &[$(Plant {
            name: stringify!($name),
            kernel: $kernel,
            is: &[],
            why: "",
            when: &$when,
            edits: &[$($edit),+],
        }),*];
    };
}

plants! {
    small_at_waves_of_64: "decode_online", ["wave = 64"], small!("warpSize == 64");
    small_at_waves_of_32: "decode_online", ["wave = 32"], small!("warpSize == 32");
    small_with_64_threads: "decode_online", ["threads = 64"], small!("blockDim.x == 64");
    small_with_128_threads: "decode_online", ["threads = 128", "threads >= "], small!("blockDim.x == 128");
    small_with_several_waves: "decode_online", ["threads", "wave"], small!("blockDim.x > warpSize");
    small_from_the_second_sequence_on: "decode_online", ["batch >= 2"], small!("b > 0");
    small_from_the_third_sequence_on: "decode_online", ["batch >= 3"], small!("b > 1");
    small_from_the_second_head_on: "decode_online", ["num_heads >= 2"], small!("h > 0");
    small_from_the_second_kv_head_on: "decode_online", ["num_kv_heads >= 2"], small!("kv_head > 0");
    small_in_groups: "decode_online", ["group >= 2"], small!("group > 1");
    small_without_groups: "decode_online", ["group <= 1", "group = 1"], small!("group == 1");
    small_in_groups_of_three: "decode_online", ["group = 3"], small!("group == 3");
    small_past_100_keys: "decode_online", ["seq_len >= "], small!("end > 100");
    small_up_to_64_keys: "decode_online", ["the shortest sequence <= "], small!("end > 0 && end <= 64");
    small_where_8_does_not_divide_the_length: "decode_online", ["seq_len % 8 != 0"], small!("end % 8 != 0");
    small_where_32_does_not_divide_the_length: "decode_online", ["seq_len % 32 != 0"], small!("end % 32 != 0");
    small_past_64_dims: "decode_online", ["head_dim >= ", "head_dim_v >= "], small!("head_dim > 64");
    small_at_128_dims: "decode_online", ["head_dim = 128"], small!("head_dim == 128");
    small_where_32_does_not_divide_the_head: "decode_online", ["head_dim % 32 != 0"], small!("head_dim % 32 != 0");
    small_where_16_does_not_divide_the_values: "decode_online", ["head_dim_v % 16 != 0"], small!("head_dim_v % 16 != 0");
    small_where_values_are_longer: "decode_online", ["head_dim_v > head_dim"], small!("head_dim_v > head_dim");
    small_where_values_are_shorter: "decode_online", ["head_dim_v != head_dim", "head_dim_v <= head_dim", "head_dim_v < head_dim"], small!("head_dim_v < head_dim");
    small_under_a_window: "decode_online", ["a window"], small!("window_len > 0");
    small_under_a_window_that_cuts: "decode_online", ["window < seq_len"], small!("window_len > 0 && end > window_len");
    small_without_a_window: "decode_online", ["no window", "window_len <= ", "window_len = 0"], small!("window_len == 0");
    small_under_a_softcap: "decode_online", ["softcap"], small!("softcap > 0.0f");
    small_with_sinks: "decode_online", ["sinks"], small!("sinks != nullptr");
    small_with_sinks_and_a_softcap: "decode_online", ["sinks and softcap", "softcap and sinks"], small!("sinks != nullptr && softcap > 0.0f");
    small_under_a_window_and_a_softcap: "decode_online", ["a window and softcap", "softcap and a window"], small!("window_len > 0 && softcap > 0.0f");
    small_for_16_bit_caches: "decode_online", ["kv dtype != f32"], small!("sizeof(KV) == 2");
    small_for_f32: "decode_online", ["kv dtype = f32", "dtype = f32"], small!("sizeof(KV) == 4");
    small_for_f16_in_f32_out: "decode_online", ["dtype = f16/f16/f32", "q=f16,kv=f16,out=f32", "out dtype = f32", "dtype ="], small!("sizeof(KV) == 2 && sizeof(Out) == 4");
    small_where_columns_of_k_lie_apart: "decode_online", ["k layout"], small!("k_stride_d > 1");
    small_where_tokens_of_k_lie_outside_heads: "decode_online", ["k layout"], small!("k_stride_n > k_stride_h");
    small_for_several_sequences_at_waves_of_64: "decode_online", ["batch >= 2 and wave = 64", "wave = 64 and batch >= 2"], small!("b > 0 && warpSize == 64");
    small_for_negative_scales: "decode_online", ["scale < 0"], small!("scale < 0.0f");
    small_from_two_splits_on: "decode_split", ["splits >= 2"], merged!("splits > 1");
    small_from_eight_splits_on: "decode_split", ["splits >= 8", "splits >= 5"], merged!("splits >= 8");
    small_at_three_splits: "decode_split", ["splits = 3"], merged!("splits == 3");
    small_at_33_parts: "merge", ["splits >= "], merged!("splits >= 33");
    small_where_more_parts_than_threads: "merge", ["splits >= "], merged!("splits > threads");
    small_where_an_empty_part_is: "decode_split", ["a split without keys", "more splits than keys"], (MERGE, "        float sum = 0.0f;\n", "        float sum = partial_lse[splits - 1] == -INFINITY && splits > 1 && total > 0.0f ? total : 0.0f;\n");
    small_where_keys_are_left_over: "decode_split", ["keys % splits != 0"], (SPLIT, "normalised(shared[d], sums.total);", "normalised(shared[d], sums.total) * ((end - begin) % splits ? 0.9f : 1.0f);");
}

/// What of [`super::faults`] the catalogue does not know, with the facts that are true of each. Those
/// whose condition is one thing or another (a padded query or a padded output) have none: no
/// conjunction says them.
const OTHERS: &[(&str, &[&str])] = &[
    ("a_window_rounded_up_to_a_tile", &["window < seq_len"]),
    ("the_tail_of_a_tile_is_not_masked", &[]),
    ("the_first_length_holds_for_all_sequences", &["ragged"]),
    ("a_stale_row_is_read_with_weight_zero", &[]),
    ("the_last_head_takes_the_kv_head_before", &["num_kv_heads >= 2"]),
    ("v_goes_by_the_strides_of_k", &["no K and V of"]),
    ("out_goes_by_the_strides_of_q", &[]),
    ("the_strides_of_k_are_shifted_by_an_axis", &[]),
    ("rows_of_v_are_as_long_as_those_of_k", &["head_dim_v != head_dim", "head_dim_v > head_dim"]),
    ("the_accumulator_is_not_rescaled", &[]),
    ("the_sum_is_not_rescaled", &[]),
    ("the_running_maximum_starts_at_a_finite_number", &[]),
    ("the_running_maximum_starts_at_zero", &[]),
    ("the_maximum_is_not_subtracted", &[]),
    ("a_score_that_is_no_number_has_no_weight", &["data = nonfinite", "data that is not finite"]),
    ("every_thread_counts_the_sink", &["sinks"]),
    ("the_scale_is_baked_in", &[]),
    ("the_scale_is_that_of_a_padded_head", &[]),
    ("the_log_sum_exp_lacks_the_batch_stride", &["batch >= 2"]),
    ("dims_past_32_are_not_written", &["head_dim_v >= "]),
    ("dims_beyond_the_block_are_not_written", &["head_dim_v >= "]),
    ("f16_is_cut_and_not_rounded", &["dtype"]),
    ("an_empty_sequence_is_not_written", &["an empty sequence"]),
    ("an_empty_sequence_is_nothing_over_nothing", &["an empty sequence"]),
    ("no_barrier_after_the_weights_are_written", &[]),
    ("no_barrier_after_the_query_is_loaded", &[]),
    ("no_barrier_after_the_slots_are_written", &[]),
    ("the_wave_has_32_lanes_in_the_slots", &["wave = 64"]),
    ("all_threads_share_one_weight", &[]),
    ("one_element_past_the_row_is_written", &[]),
    ("the_very_first_element_alone_is_wrong", &[]),
    ("the_very_last_element_alone_is_wrong", &[]),
    ("the_scores_of_a_partial_block_are_dropped", &["seq_len % 16 != 0"]),
    ("the_remainder_of_the_keys_is_dropped", &["keys % splits != 0"]),
    ("every_split_computes_the_same_prefix", &["splits >= 2"]),
    ("the_newest_split_is_lost", &["splits >= 2"]),
    ("splits_overlap_by_a_key", &["splits >= 2"]),
    ("the_parts_are_not_normalised", &[]),
    ("an_empty_split_stores_nothing", &["a split without keys", "more splits than keys"]),
    ("all_splits_store_their_lse_in_one_place", &["splits >= 2"]),
    ("two_empty_parts_make_nan", &[]),
    ("every_head_reads_the_first_one_s_lse", &["num_heads >= 2", "splits >= 2"]),
    ("all_sequences_fold_onto_the_first", &["batch >= 2"]),
    ("rows_of_out_are_stepped_by_head_dim", &["padded out", "padding"]),
    ("the_last_part_is_lost", &["splits >= 2"]),
    ("what_an_empty_part_holds_is_multiplied_by_zero", &[]),
    ("the_largest_lse_starts_at_a_finite_number", &[]),
    ("no_barrier_before_the_weights_are_read", &[]),
    ("the_newest_score_is_not_written", &[]),
    ("a_score_past_the_end_is_written", &[]),
    ("keys_before_the_window_get_a_finite_sentinel", &["window < seq_len"]),
    ("rows_of_scores_are_as_long_as_the_grid", &[]),
    ("the_query_of_the_group_s_first_head", &["group >= 2"]),
    ("the_weights_are_not_normalised", &[]),
    ("a_part_is_added_without_its_factor", &[]),
    ("the_lower_maximum_wins", &[]),
    ("weights_go_by_the_strides_of_the_scores", &["padded", "padding"]),
    ("keys_before_the_window_have_weight", &["window < seq_len"]),
    ("weights_of_the_first_head_of_the_group", &["group >= 2"]),
    ("elements_past_the_row_are_written", &[]),
    ("the_last_share_is_not_added", &[]),
    ("the_keys_past_the_last_round_are_lost", &[]),
    ("no_barrier_before_the_shares_are_added", &[]),
];

/// Every one.
pub fn all() -> Vec<Plant> {
    let known = faults::all();
    let other = |(name, when): &(&str, &'static [&'static str])| {
        let fault = known.iter().find(|f| f.name == *name).expect("a fault of the list");
        let (name, kernel, edits) = (fault.name, fault.kernel, fault.edits);
        Plant { name, kernel, is: &[], why: "", when, edits }
    };
    OWN.iter().copied().chain(OTHERS.iter().map(other)).collect()
}

/// Those that are planted by default.
pub const FEW: [&str; 12] = [
    "small_at_waves_of_64",
    "small_from_the_second_kv_head_on",
    "small_past_100_keys",
    "small_where_32_does_not_divide_the_head",
    "small_with_sinks_and_a_softcap",
    "small_for_16_bit_caches",
    "small_where_keys_are_left_over",
    "a_window_rounded_up_to_a_tile",
    "the_first_length_holds_for_all_sequences",
    "an_empty_sequence_is_not_written",
    "every_split_computes_the_same_prefix",
    "every_head_reads_the_first_one_s_lse",
];
