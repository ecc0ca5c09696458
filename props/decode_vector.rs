//! `decode_vector`: attention on the vector units, with the merges of `decode_fast`.

use std::collections::BTreeSet;

use super::bench::{
    Bench, is_clean_under_the_checker, manifest, mutated, passes_at_both_waves, swept,
};
use super::inspect::{builder, rows};
use std::path::PathBuf;

fn own() -> PathBuf {
    manifest("decode_vector.toml")
}

#[test]
fn it_is_right_at_both_waves() {
    passes_at_both_waves(&own());
}

#[test]
fn the_checker_finds_nothing() {
    is_clean_under_the_checker(&own());
}

/// Weights that are read before they are there are a race. (That they are written only when all have read the
/// ones before, the shuffles between also see to, for the checker.)
#[test]
fn the_checker_sees_weights_read_too_soon() {
    let fault = (
        "decode_vector.hip",
        "        wave_sync();\n#pragma unroll\n        for (int i = 0; i < SCORES; i += 4) {",
        "#pragma unroll\n        for (int i = 0; i < SCORES; i += 4) {",
    );
    let folder = mutated("vector_weights_read_too_soon", &[fault]);
    let manifest = folder.join("decode_vector.toml");
    let few = ["--dtype", "f16/f16/f16", "--head-dim", "64..64", "--cases", "24"];
    let more = ["--sanitize=race", "--fail-fast", "--time-limit", "60s"];
    let document = swept(&manifest, &[&few[..], &more].concat());
    let failures = document["kernels"][0]["failures"].as_array().expect("a list");
    let found = failures.iter().any(|f| f["property"] == "sanitize/race");
    assert!(found, "{document:#}");
}

/// What is particular to it, or to the merges that it shares with `decode_fast`, wrong: each is caught.
#[test]
fn faults_in_reductions_and_merges_are_caught() {
    let faults = [
        (
            "vector_last_step_of_the_reduction_missing",
            "decode_vector.hip",
            "add_halving<SCORES, LANES / 2, 1>(score, lane)",
            "add_halving<SCORES, LANES / 2, 2>(score, lane)",
        ),
        (
            "vector_halves_swapped",
            "decode_vector.hip",
            "lane & MASK ? high : low, given = lane & MASK ? low : high;",
            "lane & MASK ? low : high, given = lane & MASK ? high : low;",
        ),
        (
            "vector_values_not_rescaled",
            "decode_vector.hip",
            "sums.values[h * OWN + i] *= of;",
            "sums.values[h * OWN + i] *= 1.0f;",
        ),
        (
            "vector_total_not_rescaled",
            "decode_vector.hip",
            "            sums.total *= factor;\n",
            "",
        ),
        (
            "vector_last_tile_unmasked",
            "decode_vector.hip",
            "score[j] = key < keys ?",
            "score[j] = key < keys + 1 ?",
        ),
        (
            "vector_a_weight_counted_twice",
            "decode_vector.hip",
            "over_lanes<SAME, HEAD_LANES>(sums.total, take_sum())",
            "over_lanes<1, HEAD_LANES>(sums.total, take_sum())",
        ),
        (
            "vector_weights_of_another_row",
            "decode_vector.hip",
            "row_weights[own % ROWS * HEADS",
            "row_weights[(ROWS - 1 - own % ROWS) * HEADS",
        ),
        (
            "vector_rows_of_lanes_not_added",
            "decode_vector.hip",
            "add_halving<HEADS * OWN, WAVE / 2, LANES>",
            "add_halving<HEADS * OWN, WAVE / 4, LANES>",
        ),
        (
            "vector_splits_take_the_same_tiles",
            "decode_vector.hip",
            "(wave * splits + split)",
            "(wave * splits)",
        ),
        (
            "vector_head_blocks_take_the_same_heads",
            "decode_vector.hip",
            "g * group + blockIdx.x % head_blocks * most_heads",
            "g * group",
        ),
        (
            "vector_what_is_no_piece_counts",
            "decode_vector.hip",
            "has[p] ? words.piece[p] : none",
            "none.x == 0 ? words.piece[p] : none",
        ),
        (
            "vector_a_wave_is_left_out",
            "parts.h",
            "if (wave < left) put_part",
            "if (wave < max(1, left - 1)) put_part",
        ),
        (
            "vector_a_wave_without_room_is_left_out",
            "parts.h",
            "if (wave >= left - moved && wave < left) put_part",
            "if (wave > left - moved && wave < left) put_part",
        ),
        ("vector_counter_not_reset", "parts.h", "        if (*is_last) *count = 0;\n", ""),
        (
            "vector_an_early_block_merges",
            "parts.h",
            "ticket(count) == splits - 1",
            "ticket(count) == splits - 2",
        ),
        ("vector_lse_in_base_two", "parts.h", " * 0.693147180559945309417f", ""),
    ];
    for (name, file, from, to) in faults {
        let folder = mutated(name, &[(file, from, to)]);
        let manifest = folder.join("decode_vector.toml");
        let document = swept(&manifest, &["--cases", "150", "--fail-fast"]);
        assert_eq!(document["kernels"][0]["verdict"], "fail", "{name}: {document:#}");
    }
}

/// The instances of one type and size of head, which differ in the heads of a block alone: 1, 2, 4, or up to
/// 8. There are as many for each of `f32/f32/f32`, `f16/f16/f16`, `bf16/bf16/bf16`, `f16/f16/f32`, and for each
/// of DIMS 64, 128 and 256 (head_dim up to it), and as many again for head_dim that is less than DIMS.
#[test]
fn its_instances_are_these_and_neither_spill_nor_use_scratch() {
    if builder().is_none() {
        return;
    }
    for (head_dim, dims, full) in [("128..128", 128, 1), ("72..120", 128, 0)] {
        let own = own();
        let own = own.to_str().expect("a plain path");
        let inspect =
            ["inspect", own, "--arch", "gfx1030", "--json", "-", "--dtype", "f16/f16/f16"];
        let more = ["--head-dim", head_dim, "--deny", "spills,scratch"];
        let told = rows(&Bench::new().run([&inspect[..], &more].concat()).ends_with(0));
        let of_type = told.iter().map(|row| row.entry.clone());
        let of_type = of_type.filter(|entry| entry.contains("__half, __half"));
        let instances: BTreeSet<String> = of_type.collect();
        let expected = [1, 2, 4, 8]
            .map(|heads| format!("decode_vector<__half, __half, {dims}, {heads}, {full}>"));
        assert_eq!(instances, BTreeSet::from(expected));
    }
}
