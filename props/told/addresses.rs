//! What is read in the wrong place, or by the wrong lane: no false name, and when it fails.

use super::*;

/// K's and V's base of a batch as of its first sequence.
#[test]
fn a_base_of_k_and_v_without_the_batch() {
    let edits = [
        ("decode_online.hip", "k += b * k_stride_s + kv_head", "k += kv_head"),
        ("decode_online.hip", "v += b * v_stride_s + kv_head", "v += kv_head"),
    ];
    let told = sweep(&built_in("decode_online", "no_batch_term", &edits), 100, &[]);
    told.names_nothing_but(&["other_sequence"]);
    told.needs("batch >= 2");
}

#[test]
fn rows_of_128_elements_assumed() {
    let edits = [
        ("int row, int room,", "int, int room,"),
        ("    const int h =", "    constexpr int row = 128;\n    const int h ="),
    ];
    let told = sweep(&small(PLAIN, "rows_of_128", &edits), 100, &[]);
    told.names_nothing_but(&["constant_stride"]);
    let words = told.failure()["trigger"]["words"].as_str().expect("words");
    assert!(
        ["head_dim != 128", "head_dim <= 80", "head_dim % 128 != 0"].contains(&words),
        "{}",
        told.text
    );
    assert_eq!(told.failure()["trigger"]["passing"], 0, "{}", told.text);
    sweep(&small(PLAIN, "rows_right", &[]), 60, &[]).passes();
}

#[test]
fn a_shuffle_without_its_width() {
    let told = sweep(
        &small(LANES, "no_width", &[("__shfl(weight, j, 32)", "__shfl(weight, j)")]),
        100,
        &[],
    );
    told.names_nothing_but(&[]);
    told.needs("wave = 64");
    assert_eq!(told.kernel["by_wave"]["32"]["failed"], 0, "{}", told.text);
    sweep(&small(LANES, "with_width", &[]), 60, &[]).passes();
}
