//! What is not written, or written as what it is not: it is seen, and no address is named beside it.

use super::*;

/// Blocks collide on some heads unless there are as many groups as heads in each.
#[test]
fn a_map_of_blocks_to_heads_that_misses_some() {
    let from = "const int h = blockIdx.x, b = blockIdx.y, kv_head = h / group;";
    let to = "const int h = blockIdx.x % group * group + blockIdx.x / group, b = blockIdx.y, kv_head = h / group;\n    \
              if (h >= (int)gridDim.x) return;";
    let told =
        sweep(&built_in("decode_online", "head_map", &[("decode_online.hip", from, to)]), 100, &[]);
    told.names_nothing_but(&[]);
    let words = told.shows("never_written");
    assert!(words.contains("head"), "{words}");
    assert!(told.text.contains("  seen    never written: "), "{}", told.text);
}

#[test]
fn rows_after_the_first_that_are_not_written() {
    let edit =
        ("prefill.hip", "if (t >= seq_lens[b]) return;", "if (t >= seq_lens[b] || t > 0) return;");
    let told = sweep(&built_in("prefill", "first_row", &[edit]), 60, &[]);
    told.names_nothing_but(&[]);
    told.shows("never_written");
}
