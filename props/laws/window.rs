//! A window at least as long as the sequence is none.

use super::{DECODE, breaks, holds};
use attnbench::judge::law::Law;

#[test]
fn a_window_over_everything_is_none() {
    holds(Law::Window, &DECODE);
    holds(Law::Window, &["scores", "softmax", "pv", "split", "prefill"]);
}

#[test]
fn a_window_that_leaves_out_the_current_token_is_seen() {
    let from = "return window_len > 0 && window_len < seq_len ? seq_len - window_len : 0;";
    let to = "return window_len > 0 && window_len <= seq_len ? seq_len - window_len + 1 : 0;";
    breaks(Law::Window, "law_window_less_one", "decode_online", &[("portable.h", from, to)]);
}
