//! Grouped queries are queries with a KV head of their own, repeated.

use super::{DECODE, breaks, holds};
use attnbench::judge::law::Law;

#[test]
fn grouped_heads_are_repeated_heads() {
    holds(Law::Heads, &DECODE);
    holds(Law::Heads, &["scores", "pv", "split", "prefill"]);
}

#[test]
fn a_kernel_that_takes_the_head_modulo_is_seen() {
    let edit = ("decode_online.hip", "kv_head = h / group;", "kv_head = h % (gridDim.x / group);");
    breaks(Law::Heads, "law_modulo", "decode_online", &[edit]);
}
