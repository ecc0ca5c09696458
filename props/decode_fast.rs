//! `decode_fast`: its fragments, of every kind of matrix instruction, and its merges.

use super::bench::{is_clean_under_the_checker, manifest, mutated, passes_at_both_waves, swept};
use std::path::PathBuf;

fn own() -> PathBuf {
    manifest("decode_fast.toml")
}

/// The fragments of NVIDIA's matrix instructions at waves of 32, of AMD's at waves of 64.
#[test]
fn it_is_right_at_both_waves() {
    passes_at_both_waves(&own());
}

/// The fragments of WMMA, by hand too: those of gfx11 and of gfx12, and one with a wrong row of K.
#[test]
fn it_is_right_with_the_fragments_of_wmma() {
    let row =
        ("matrix.h", "return lane_head(lane) + 8 * r;", "return (lane_head(lane) ^ 1) + 8 * r;");
    for (generation, fault) in [("11", false), ("12", false), ("11", true), ("12", true)] {
        let stage = "stage = \"decode\"\n";
        let with = format!("{stage}defines = {{ MATRIX_BY_HAND_WMMA = {generation} }}\n");
        let mut edits = vec![("decode_fast.toml", stage, &with[..])];
        edits.extend(fault.then_some(row));
        let folder = mutated(&format!("fast_wmma_{generation}_{fault}"), &edits);
        let manifest = folder.join("decode_fast.toml");
        let document = swept(&manifest, &["--cases", "100", "--wave", "32", "--fail-fast"]);
        let failed = document["kernels"][0]["failed"].as_u64().expect("a count");
        assert_eq!(failed > 0, fault, "{generation}: {document:#}");
    }
}

#[test]
fn the_checker_finds_nothing() {
    is_clean_under_the_checker(&own());
}

/// gfx90a's matrix cores take f16 below 2^-14 for 0. Where the product by hand does so with the weights, peaked
/// scores are right all the same, and are not where a weight of 1 is 1.
#[test]
fn small_weights_survive_a_flush_of_subnormals() {
    let flush = (
        "matrix.h",
        "    x += half_words<T>::low(a) * half_words<T>::low(b);\n    \
         return x + half_words<T>::low(a >> 16) * half_words<T>::low(b >> 16);",
        "    auto right = [](word_t w) {\n        \
             const float x = half_words<T>::low(w);\n        \
             return fabsf(x) < 6.103515625e-05f ? 0.0f : x;\n    };\n    \
         x += half_words<T>::low(a) * right(b);\n    \
         return x + half_words<T>::low(a >> 16) * right(b >> 16);",
    );
    let plain = ("decode_fast.hip", "? 32768.0f : 1.0f;", "? 1.0f : 1.0f;");
    for (name, edits, fails) in
        [("fast_flush", &[flush][..], false), ("fast_flush_plain", &[flush, plain], true)]
    {
        let folder = mutated(name, edits);
        let more = ["--cases", "40", "--wave", "64", "--dtype", "f16", "--regime", "large:spread"];
        let document = swept(&folder.join("decode_fast.toml"), &more);
        let failed = document["kernels"][0]["failed"].as_u64().expect("a count");
        assert_eq!(failed > 0, fails, "{name}: {document:#}");
    }
}

/// What is particular to it, wrong: each is caught.
#[test]
fn faults_in_fragments_and_merges_are_caught() {
    let faults = [
        (
            "fast_keys_of_a_lane_swapped",
            "matrix.h",
            "2 * t + (i & 1) + 8 * (i >> 1) : lane_result(lane, i);",
            "2 * t + (i >> 1) + 8 * (i & 1) : lane_result(lane, i ^ 1);",
        ),
        (
            "fast_values_not_rescaled",
            "decode_fast.hip",
            "                scale_values(sums, block, factor, lane);\n",
            "",
        ),
        (
            "fast_total_not_rescaled",
            "decode_fast.hip",
            "                sums.total[block] *= factor;\n",
            "",
        ),
        (
            "fast_last_tile_unmasked",
            "decode_fast.hip",
            "lane_key(lane, i) < keys - first ?",
            "lane_key(lane, i) < keys + 1 - first ?",
        ),
        (
            "fast_a_wave_is_left_out",
            "parts.h",
            "    if (wave < left) put_part(sums, rows, wave, lane);",
            "    if (wave < left) put_part(sums, rows, wave > 0 ? wave - 1 : 0, lane);",
        ),
        (
            "fast_waves_without_room_are_lost",
            "parts.h",
            "            add_part(sums, rows, wave - (left - 2 * moved), lane);\n",
            "",
        ),
        (
            "fast_a_part_too_few",
            "parts.h",
            "part_stats + row * splits, splits);",
            "part_stats + row * splits, splits - 1);",
        ),
        (
            "fast_the_tail_counts_twice",
            "parts.h",
            "if (i >= count) stat[i] = {-INFINITY, 0.0f};",
            "",
        ),
        ("fast_weights_stay_raised", "parts.h", "log2f(x.total * unit)", "log2f(x.total)"),
        ("fast_lse_in_base_two", "parts.h", " * 0.693147180559945309417f", ""),
        (
            "fast_splits_take_the_same_tiles",
            "decode_fast.hip",
            "(wave * splits + split)",
            "(wave * splits)",
        ),
    ];
    for (name, file, from, to) in faults {
        let folder = mutated(name, &[(file, from, to)]);
        let manifest = folder.join("decode_fast.toml");
        let document = swept(&manifest, &["--cases", "150", "--fail-fast"]);
        assert_eq!(document["kernels"][0]["verdict"], "fail", "{name}: {document:#}");
    }
}
