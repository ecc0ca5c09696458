//! A law that a kernel promises to the bit is broken by one bit; the same kernel keeps it where it
//! does not promise that.

use super::{breaks, broken, faulty};
use crate::bench::Edit;
use attnbench::judge::law::Law;

/// Asserts that a kernel breaks a law, and that it holds for the same kernel without the promise.
#[track_caller]
fn only_the_promise(law: Law, name: &str, kernel: &str, promise: Edit<'_>, edit: Edit<'_>) {
    breaks(law, name, kernel, &[edit]);
    let modest = format!("{name}_modest");
    let found = broken(law, &faulty(&modest, kernel, &[edit, promise]), 40, false);
    assert!(found.is_none(), "{modest}: {found:?}");
}

#[test]
fn the_last_bit_of_a_sequence_that_is_not_the_first_is_seen() {
    let store = "out[i] = rounded<Out>::from(";
    let edit = "out[i] = rounded<Out>::from((b > 0 ? 1.0000001f : 1.0f) * ";
    let promise = (
        "norm.toml",
        r#"bitwise = ["repeat", "batch", "layout"]"#,
        r#"bitwise = ["repeat", "layout"]"#,
    );
    only_the_promise(Law::Batch, "law_last_bit", "norm", promise, ("norm.hip", store, edit));
}

#[test]
fn the_sign_of_a_zero_is_seen() {
    let store = "out[d] = rounded<Out>::from(sum);";
    let edit = "out[d] = rounded<Out>::from(sum == 0.0f && b > 0 ? -0.0f : sum);";
    let promise = ("pv.toml", r#"bitwise = ["repeat", "batch"]"#, r#"bitwise = ["repeat"]"#);
    only_the_promise(Law::Batch, "law_minus_zero", "pv", promise, ("pv.hip", store, edit));
}

#[test]
fn the_last_bit_in_rows_that_are_padded_is_seen() {
    let store = "out[i] = rounded<Out>::from(";
    let edit = "out[i] = rounded<Out>::from((x_stride_s > hidden ? 1.0000001f : 1.0f) * ";
    let promise = (
        "norm.toml",
        r#"bitwise = ["repeat", "batch", "layout"]"#,
        r#"bitwise = ["repeat", "batch"]"#,
    );
    only_the_promise(Law::Layout, "law_padded_bit", "norm", promise, ("norm.hip", store, edit));
}
