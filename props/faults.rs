//! Faults planted in the kernels, end to end: each must be caught, within 300 cases.

use std::fs;
use std::path::Path;

use attnbench::data::slice::KvSlice;
use attnbench::problem::Case;
use serde_json::Value;

use super::bench::{Bench, Edit, mutated, one_key_too_few};

/// What a sweep of a faulty kernel found first: the failure's entry of the document.
fn caught(kernel: &Path, more: &[&str]) -> Value {
    let bench = Bench::new();
    let kernel = kernel.to_str().expect("a plain path");
    let sweep = ["sweep", kernel, "--cases", "300", "--fail-fast", "-j", "1", "--json", "-"];
    let ran = bench.run(sweep.iter().chain(more));
    assert_eq!(ran.code, 1, "{kernel} is not caught: {}\n{}", ran.stdout, ran.stderr);
    let document = ran.document();
    let result = &document["kernels"][0];
    assert_eq!(result["verdict"], "fail", "{kernel} is not caught: {result:#}");
    let failure = result["failures"][0].clone();
    let original: Case = failure["original"].as_str().unwrap().parse().unwrap();
    println!(
        "caught by {} on {} data after {} cases; smallest: {}",
        failure["property"], original.regime, result["cases"], failure["id"]
    );
    failure
}

/// Asserts that edits of `decode_online` (or its neighbours) are caught by one of `properties`.
fn assert_caught(name: &str, edits: &[Edit<'_>], properties: &[&str]) -> Value {
    let kernel = if edits.iter().any(|(file, ..)| file.starts_with("decode_naive")) {
        "decode_naive.toml"
    } else {
        "decode_online.toml"
    };
    let failure = caught(&mutated(name, edits).join(kernel), &[]);
    let property = failure["property"].as_str().unwrap();
    // `oracle/lse` is of the family `oracle`: a wrong value, in out or in lse.
    let family = property.split('/').next().unwrap();
    let right = properties.contains(&property) || properties.contains(&family);
    assert!(right, "{name}: caught by {property}: {failure:#}");
    failure
}

/// Values that differ from the oracle's, in the output or in its log-sum-exp.
const VALUES: &[&str] = &["oracle"];

#[test]
fn one_key_too_few_is_caught_shrunk_saved_and_replayed() {
    let kernel = one_key_too_few();
    let kernel = kernel.to_str().unwrap();
    let bench = Bench::new();
    let ran = bench.run(["sweep", kernel, "--cases", "300", "--save", "found", "--json", "-"]);
    let document = ran.ends_with(1).document();
    let failures = document["kernels"][0]["failures"].as_array().unwrap();
    assert_eq!(document["kernels"][0]["cases"], 300, "{document:#}");
    for failure in failures {
        let property = failure["property"].as_str().unwrap();
        assert!(property.starts_with("oracle"), "{failure:#}");

        // Shrunk to next to nothing.
        let id = failure["id"].as_str().unwrap();
        let case: Case = id.parse().unwrap();
        assert_eq!((case.batch(), case.num_heads, case.num_kv_heads), (1, 1, 1), "{id}");
        assert!(case.seq_len() <= 2 && case.head_dim <= 2, "{id}");
        assert!(!case.is_padded() && case.window_len == 0 && case.softcap == 0.0, "{id}");
        assert!(!case.sinks && case.capacity == case.seq_len(), "{id}");

        // Saved with all that runs it again.
        let saved = bench.dir().join(failure["saved"].as_str().unwrap());
        assert_eq!(saved.parent(), Some(&*bench.dir().join("found")));
        let slice = KvSlice::read(&saved).unwrap();
        assert_eq!(slice.kernel.as_deref(), Some(kernel));
        assert_eq!(slice.params.as_ref(), Some(&case.params));
        assert_eq!(slice.wave, Some(case.wave));
        assert_eq!((slice.seed, slice.order_seed), (Some(case.seed), Some(case.order_seed)));
        assert_eq!(slice.case.as_deref(), Some(id));
        assert_eq!(slice.property.as_deref(), Some(property));

        // The printed command line runs it again to the same bits; the sound kernel is right.
        let command = failure["replay"].as_str().unwrap();
        let words: Vec<&str> = command.split(' ').collect();
        assert_eq!(words[1], "replay", "{command}");
        let again = bench.run(&words[1..]).ends_with(1);
        assert!(again.stdout.contains("bits    the same as saved"), "{}", again.stdout);
        assert!(again.stdout.contains(&format!("FAIL: {property}")), "{}", again.stdout);
        let sound = bench.run([words[1], words[2], "--kernel", "decode_online"]).ends_with(0);
        assert!(sound.stdout.contains("PASS"), "{}", sound.stdout);

        // So does its id.
        bench.run(["sweep", kernel, "--case", id]).ends_with(1);
        bench.run(["sweep", "decode_online", "--case", id]).ends_with(0);
    }
    let files = fs::read_dir(bench.dir().join("found")).unwrap().count();
    assert_eq!(files, failures.len());
}

/// A test a fault: its name, the edits, and the properties that may catch it.
macro_rules! faults {
    ($($name:ident: $properties:expr, $($edit:expr),+;)*) => {$(
        #[test]
        fn $name() {
            assert_caught(stringify!($name), &[$($edit),+], $properties);
        }
    )*};
}

const ONLINE: &str = "decode_online.hip";
const NAIVE: &str = "decode_naive.hip";
const SHARED: &str = "portable.h";

faults! {
    a_window_one_key_too_long: VALUES,
        (SHARED, "seq_len - window_len : 0", "seq_len - window_len - 1 : 0");
    a_window_one_key_too_short: VALUES,
        (SHARED, "seq_len - window_len : 0", "seq_len - window_len + 1 : 0");
    the_window_is_ignored: VALUES,
        (ONLINE, "begin = first_key(end, window_len);", "begin = 0;");
    the_kv_head_is_taken_modulo: VALUES,
        (ONLINE, "kv_head = h / group;", "kv_head = h % (gridDim.x / group);");
    the_kv_head_is_always_the_first: VALUES,
        (ONLINE, "kv_head = h / group;", "kv_head = 0;");
    the_first_length_holds_for_all_sequences: &["oracle", "crash"],
        (ONLINE, "const int end = seq_lens[b],", "const int end = seq_lens[0],");
    v_goes_by_the_strides_of_k: &["oracle", "crash"],
        ("decode_online.toml",
         r#""i64:v_stride_s", "i64:v_stride_h", "i64:v_stride_n", "i64:v_stride_d","#,
         r#""i64:k_stride_s", "i64:k_stride_h", "i64:k_stride_n", "i64:k_stride_d","#);
    out_goes_by_the_strides_of_q: &["oracle", "stray-write", "repeat"],
        (ONLINE,
         "out += b * out_stride_s + h * out_stride_h;",
         "out += b * q_stride_s + h * q_stride_h;");
    the_accumulator_is_not_rescaled: VALUES,
        (ONLINE, "float value = accumulator[d] * rescale;", "float value = accumulator[d];");
    the_sum_is_not_rescaled: VALUES,
        (ONLINE, "sum *= rescale;", "sum *= 1.0f;");
    the_running_maximum_starts_at_a_finite_number: VALUES,
        (ONLINE, "float maximum = sinks ? sinks[h] : -INFINITY;",
         "float maximum = sinks ? sinks[h] : -1e4f;");
    the_running_maximum_starts_at_zero: VALUES,
        (ONLINE, "float maximum = sinks ? sinks[h] : -INFINITY;",
         "float maximum = sinks ? sinks[h] : 0.0f;");
    the_maximum_is_not_subtracted: VALUES,
        (ONLINE, "maximum = larger;", "maximum = 0.0f;"),
        (ONLINE, "expf(scores[i] - larger);", "expf(scores[i]);");
    the_sinks_are_ignored: VALUES,
        (ONLINE, "sum = sinks && thread == 0 ? 1.0f : 0.0f;", "sum = 0.0f;");
    every_thread_counts_the_sink: VALUES,
        (ONLINE, "sum = sinks && thread == 0 ? 1.0f", "sum = sinks ? 1.0f");
    the_softcap_is_ignored: VALUES,
        (SHARED, "softcap > 0.0f ? softcap * tanhf(s / softcap) : s", "s");
    the_scale_is_ignored: VALUES,
        (SHARED, "const float s = dot * scale;", "const float s = dot;");
    the_last_dims_of_a_key_are_dropped: VALUES,
        (ONLINE, "d < head_dim; ++d) dot +=", "d < head_dim / 4 * 4; ++d) dot +=");
    dims_beyond_the_block_are_not_written: &["oracle"],
        (ONLINE, "d += threads) {\n        // Nothing attended", "d += head_dim) {\n        // Nothing attended");
    an_empty_sequence_is_not_written: VALUES,
        (ONLINE, "    q += b *", "    if (end == 0) return;\n    q += b *");
    the_log_sum_exp_has_base_two: &["oracle/lse"],
        (ONLINE, "maximum + logf(total)", "maximum + log2f(total)");
    the_log_sum_exp_lacks_the_batch_stride: &["oracle/lse"],
        (ONLINE, "lse[b * gridDim.x + h]", "lse[h]");
    p_times_v_accumulates_in_f16: &["oracle"],
        (ONLINE, "accumulator[d] = value;",
         "accumulator[d] = to_float(rounded<__half>::from(value));");
    no_barrier_after_the_weights_are_written: &["oracle", "repeat"],
        (ONLINE, "        __syncthreads();  // every thread reads all weights of the tile\n", "");
    // The barrier at the end of a tile is not in this list: without it nothing changes, since
    // block_reduce either has barriers of its own before the weights are written again, or makes
    // every lane of the only wave arrive at its shuffles.
    no_barrier_after_the_query_is_loaded: &["oracle", "repeat"],
        (ONLINE, "    __syncthreads();\n\n    // The running maximum", "    // The running maximum");
    no_barrier_after_the_slots_are_written: &["oracle", "repeat"],
        (SHARED, "slots[wave] = x;\n    __syncthreads();", "slots[wave] = x;");
    no_barrier_before_the_slots_are_written_again: &["oracle", "repeat"],
        (SHARED, "    __syncthreads();  // why: a slower wave may still read the slots of the call before\n", ""),
        (NAIVE, "// decode_naive.hip:", "// decode_naive.hip, whose two reductions follow each other:");
    one_element_past_the_row_is_written: &["stray-write", "oracle", "repeat"],
        (ONLINE, "    if (lse && thread == 0)",
         "    if (thread == 0) out[head_dim] = rounded<Out>::from(0.0f);\n    if (lse && thread == 0)");
    a_stale_row_is_read_with_weight_zero: VALUES,
        (ONLINE, "            accumulator[d] = value;",
         "            if (first + count == end) value += 0.0f * to_float(column[count * v_stride_n]);\n            accumulator[d] = value;");
    a_barrier_that_some_threads_do_not_reach: &["deadlock"],
        (ONLINE, "        __syncthreads();  // every thread",
         "        if (thread >= count) break;\n        __syncthreads();  // every thread");
    the_output_is_written_through_a_null_pointer: &["crash"],
        (ONLINE, "out += b * out_stride_s + h * out_stride_h;", "out = nullptr;");
    the_very_first_element_alone_is_wrong: &["oracle"],
        (ONLINE, "    if (lse && thread == 0)",
         "    if (b + h + thread == 0) out[0] = rounded<Out>::from(accumulator[0] + 9.0f);\n    if (lse && thread == 0)");
    the_very_last_element_alone_is_wrong: &["oracle"],
        (ONLINE, "    if (lse && thread == 0)",
         "    if (b + 1 == gridDim.y && h + 1 == gridDim.x && thread == (head_dim - 1) % threads) out[head_dim - 1] = rounded<Out>::from(accumulator[0] + 9.0f);\n    if (lse && thread == 0)");
    p_times_v_starts_before_the_window: VALUES,
        (NAIVE, "for (int n = begin; n < end; ++n) sum += row[n]",
         "for (int n = 0; n < end; ++n) sum += row[n]");
    the_weights_are_not_normalised: VALUES,
        (NAIVE, "row[n] /= sum;", "row[n] /= 1.0f;");
    scores_of_the_last_partial_block_are_dropped: VALUES,
        (NAIVE, "n >= end) return;", "n >= end / 16 * 16) return;");
}

#[test]
fn a_kernel_that_does_nothing() {
    let failure = caught(&super::bench::does_nothing(), &[]);
    assert!(failure["property"].as_str().unwrap().starts_with("oracle"), "{failure:#}");
}

#[test]
fn a_reduction_that_ends_one_step_early_on_waves_of_64() {
    let from = "int mask = lanes_of(threads) / 2;";
    let to = "int mask = lanes_of(threads) < 32 ? lanes_of(threads) / 2 : 16;";
    let failure =
        assert_caught("shuffle_from_16", &[(SHARED, from, to)], &["oracle", "deadlock", "repeat"]);
    assert_eq!(failure["case"]["wave"], 64, "{failure:#}");
}

#[test]
fn an_endless_loop() {
    let edit = ("decode_online.hip", "first < end; first += tile)", "first < end; first += 0)");
    let kernel = mutated("endless", &[edit]).join("decode_online.toml");
    let failure = caught(&kernel, &["--time-limit", "100ms"]);
    assert_eq!(failure["property"], "timeout", "{failure:#}");
}
