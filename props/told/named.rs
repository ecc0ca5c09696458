//! Faults of the catalogue in a kernel of many kinds of cases: each by its own name.

use super::*;

/// A fault planted in `decode_online`, as the sweep names it.
#[track_caller]
fn planted(name: &str, from: &str, to: &str, cases: usize) -> Told {
    sweep(&built_in("decode_online", name, &[("decode_online.hip", from, to)]), cases, &[])
}

const END: &str = "const int end = seq_lens[b], begin = first_key(end, window_len);";

#[test]
fn a_scale_that_is_missing() {
    let (from, to) = ("finish_score(dot, scale, softcap)", "finish_score(dot, 1.0f, softcap)");
    planted("missing_scale", from, to, 100).is_named("missing_scale");
}

#[test]
fn half_of_the_head_vector() {
    let from =
        "for (int d = 0; d < head_dim; ++d) dot += query[d] * to_float(row[d * k_stride_d]);";
    let told =
        planted("used_half", from, &from.replace("< head_dim;", "< (head_dim + 1) / 2;"), 100);
    told.is_named("zero_padded_head_dim");
}

#[test]
fn a_window_of_one_key_too_many() {
    let longer = "const int end = seq_lens[b], first = first_key(end, window_len), begin = first > 0 ? first - 1 : 0;";
    let told = planted("window_longer", END, longer, 100);
    told.is_named("window_off_by_one");
    assert!(
        told.failure()["trigger"]["words"].as_str().expect("words").contains("window"),
        "{}",
        told.text
    );
}

#[test]
fn an_accumulator_of_16_bits() {
    let told = planted(
        "f16_accumulator",
        "accumulator[d] = value;",
        "accumulator[d] = to_float(rounded<__half>::from(value));",
        100,
    );
    told.names_nothing_but(&["fp16_accumulate", "accumulate"]);
    assert!(!told.names().is_empty(), "{}", told.text);
}
