//! The command on the CPU device, and wrong requests.

use super::super::bench::{Bench, does_nothing, mutated, one_key_too_few};
use super::{SHAPE, document, only_row};
use serde_json::{Value, json};

const QUICK: [&str; 6] = ["--device", "cpu", "--rounds", "2", "--replays", "2"];

#[test]
fn a_right_kernel_is_timed() {
    let bench = ["bench", "decode_online", "--shapes", SHAPE];
    let ran = Bench::new().run([&bench[..], &QUICK, &["--json", "-"]].concat()).ends_with(0);
    let document = document(&ran);
    assert_eq!(document["method"], json!({"clock": "host", "rounds": 2, "replays": 2, "warm": 3}));
    assert_eq!((&document["ceiling"], &document["seed"]), (&Value::Null, &json!(1)));
    assert_eq!(document["device"]["api"], "cpu");
    assert!(document["command"].as_str().expect("a command").contains("bench decode_online --sh"));
    let row = &document["rows"][0];
    assert_eq!((&row["verdict"], &row["kernel"]), (&json!("right"), &json!("decode_online")));
    // K and V: 2 sequences, 40 keys, 2 heads, 64 elements of 2 bytes.
    assert_eq!(row["kv_bytes"], 2 * 2 * 40 * 2 * 64 * 2);
    for (key, want) in [
        ("batch", json!(2)),
        ("num_heads", json!(4)),
        ("num_kv_heads", json!(2)),
        ("head_dim", json!(64)),
        ("seq_len", json!(40)),
        ("window_len", json!(0)),
        ("dtype", json!("f16")),
        ("layout", json!("NHD")),
        ("shape", json!(SHAPE)),
        // The host's memory is no cache's, and what it measures is no graph.
        ("sets", json!(1)),
        ("calls", json!(1)),
        ("graph", json!(false)),
        ("share", Value::Null),
    ] {
        assert_eq!(row[key], want, "{key}: {row:#}");
    }
    let us = &row["us"];
    let of = |key: &str| us[key].as_f64().expect("a number");
    assert!(of("median") > 0.0 && of("p5") <= of("median") && of("median") <= of("p95"), "{us}");
    assert_eq!((&us["samples"], us["rounds"].as_array().map(Vec::len)), (&json!(4), Some(2)));
    let near =
        |key: &str, want: f64| (row[key].as_f64().expect("a number") / want - 1.0).abs() < 1e-9;
    assert!(near("gbs", 40_960.0 / of("median") / 1e3), "{row:#}");
    assert!(near("tokens_per_s", 2e6 / of("median")), "{row:#}");
    let ratio = row["ratio"].as_f64().expect("a ratio");
    assert!(ratio > 0.0 && ratio <= 1.0, "{row:#}");
    // The first and the last of four groups of two heads are among those that were looked at.
    let heads = row["heads_checked"].as_u64().expect("a count");
    assert!((4..=8).contains(&heads) && heads.is_multiple_of(2), "{row:#}");

    let text = Bench::new().run([&bench[..], &QUICK].concat()).ends_with(0).stdout;
    assert!(text.starts_with("device cpu ("), "{text}");
    assert!(text.contains(&format!("| {SHAPE} | NHD    | decode_online |")), "{text}");
    assert!(
        text.contains("imitates a GPU thread by thread: no figure here is a GPU's\n"),
        "{text}"
    );
    assert!(text.ends_with("\n1 timed\n"), "{text}");
}

/// Wrong, or without any result, or crashing: judged first, and no time is told.
#[test]
fn a_wrong_kernel_is_not_timed() {
    for (manifest, words, infinite) in [
        (
            one_key_too_few(),
            &["out at sequence 0, head 0, element", "must be", "times its bound"][..],
            false,
        ),
        (does_nothing(), &["out at sequence 0, head 0, element 0 is NaN, must be"], true),
    ] {
        let manifest = manifest.to_str().expect("a plain path");
        let row = only_row(&[manifest, "--shapes", SHAPE], 1);
        assert_eq!((&row["verdict"], &row["us"]), (&json!("wrong"), &Value::Null), "{row:#}");
        assert_eq!((&row["gbs"], &row["tokens_per_s"]), (&Value::Null, &Value::Null), "{row:#}");
        let why = row["why"].as_str().expect("a reason");
        assert!(words.iter().all(|word| why.contains(word)), "{why}");
        assert_eq!(row["ratio"].is_null(), infinite, "{row:#}");
        assert_eq!(row.get("nonfinite"), infinite.then_some(&json!(true)), "{row:#}");
        assert!(infinite || row["ratio"].as_f64() > Some(1.0), "{row:#}");
        let bench = [&["bench", manifest, "--shapes", SHAPE], &QUICK[..]].concat();
        let text = Bench::new().run(bench).ends_with(1).stdout;
        assert!(text.contains(&format!("wrong decode_online on {SHAPE} (NHD): out at")), "{text}");
        assert!(text.ends_with("\n0 timed, 1 wrong and not timed\n"), "{text}");
    }
    let store = "scores[b * scores_stride_s + h * scores_stride_h + n] = score;";
    let wild = "scores[(1ll << 40) + n] = score;";
    let manifest = mutated("wild_everywhere", &[("scores.hip", store, wild)]).join("scores.toml");
    let manifest = manifest.to_str().expect("a plain path");
    let shape = SHAPE.replace("f16", "f16/f16/f32");
    let row = only_row(&[manifest, "--shapes", &shape], 1);
    let why = row["why"].as_str().expect("a reason");
    assert!(row["verdict"] == "wrong" && why.contains("the kernel crashed"), "{row:#}");
}

/// An error that only some heads have is found in the last group of the last sequence.
#[test]
fn the_last_head_is_looked_at() {
    let end = "const int end = seq_lens[b], begin = first_key(end, window_len);";
    let less = "const int end = seq_lens[b] - (b == 5 && blockIdx.x == 5), begin = first_key(seq_lens[b], window_len);";
    let manifest = mutated("last_head_alone", &[("decode_online.hip", end, less)]);
    let manifest = manifest.join("decode_online.toml");
    let manifest = manifest.to_str().expect("a plain path");
    let row = only_row(&[manifest, "--shapes", "b=6,hq=6,hkv=6,d=8,n=20,dt=f16"], 1);
    let why = row["why"].as_str().expect("a reason");
    assert!(why.starts_with("out at sequence 5, head 5, element"), "{why}");
}

#[test]
fn stages_that_read_a_cache_are_timed_alone() {
    let shape = SHAPE.replace("f16", "f16/f16/f32");
    // Half of what attention reads.
    for kernel in ["scores", "pv"] {
        let row = only_row(&[kernel, "--shapes", &shape], 0);
        assert_eq!(
            (&row["verdict"], &row["kv_bytes"]),
            (&json!("right"), &json!(20_480)),
            "{row:#}"
        );
    }
    for kernel in ["merge", "norm", "append"] {
        let ran = Bench::new().run(["bench", "decode_online", kernel, "--shapes", SHAPE]);
        assert_eq!(ran.stdout, "");
        let stage = format!("this is stage `{kernel}`");
        ran.refuses(&["bench times what reads a cache (stages decode, scores, pv)", &stage]);
    }
}

/// A window, and sequences of unequal lengths: only what is attended counts.
#[test]
fn what_is_attended_counts() {
    let row =
        only_row(&["decode_online", "--shapes", "b=2,hq=4,hkv=2,d=64,n=[40,5],w=16,dt=bf16"], 0);
    assert_eq!(
        (&row["kv_bytes"], &row["window_len"]),
        (&json!((16 + 5) * 2 * 64 * 2 * 2), &json!(16))
    );
    // A model at a size: the window is left out where it holds all keys.
    let row = only_row(&["decode_online", "--shapes", "smollm2-135m@1x33", "--dtype", "f32"], 0);
    assert_eq!((&row["shape"], &row["dtype"]), (&json!("smollm2-135m@1x33"), &json!("f32")));
    assert_eq!(row["kv_bytes"], 33 * 3 * 64 * 4 * 2);
}

#[test]
fn what_a_kernel_does_not_take_is_a_row_with_the_reason() {
    let layout = format!("{SHAPE},k=HDN,v=HND");
    let other = SHAPE.replace("f16", "f32");
    for (shape, reason, place) in [
        (layout.as_str(), "decode_fast does not support k layout = HDN (supports ", "HDN/HND"),
        (other.as_str(), "decode_fast does not support dtype = f32 (supports ", "NHD"),
    ] {
        let row = only_row(&["decode_fast", "--shapes", shape], 2);
        assert_eq!((&row["verdict"], &row["us"]), (&json!("refused"), &Value::Null), "{row:#}");
        assert!(row["why"].as_str().expect("a reason").starts_with(reason), "{row:#}");
        assert_eq!(row["layout"], place);
    }
    // One of two layouts, of one of two kernels: the others are timed, and all is well.
    let bench = ["bench", "decode_fast", "decode_online", "--shapes", SHAPE, "--layout", "HDN,HND"];
    let ran = Bench::new().run([&bench[..], &QUICK, &["--json", "-"]].concat()).ends_with(0);
    let rows = document(&ran)["rows"].as_array().expect("rows").clone();
    let mut of: Vec<[&str; 3]> = rows
        .iter()
        .map(|row| ["kernel", "layout", "verdict"].map(|key| row[key].as_str().expect("a word")))
        .collect();
    of.sort_unstable();
    let want = [
        ["decode_fast", "HDN", "refused"],
        ["decode_fast", "HND", "right"],
        ["decode_online", "HDN", "right"],
        ["decode_online", "HND", "right"],
    ];
    assert_eq!(of, want);
    let text = Bench::new().run([&bench[..], &QUICK].concat()).ends_with(0).stdout;
    assert!(text.ends_with("\n3 timed, 1 not timed\n"), "{text}");
}

#[test]
fn wrong_requests_are_refused_before_any_work() {
    let bench = Bench::new();
    bench.write("sweep.json", r#"{"format": "attnbench-sweep/1", "kernels": []}"#);
    bench.write("broken.json", "{");
    bench.write("list.json", "[1, 2]");
    bench.write("none.json", "{}");
    let zero = json!({"format": "attnbench-bench/1", "rows": [{"kernel": "k", "shape": "a", "us":
        {"median": 0.0, "p5": 1.0, "p95": 1.0, "samples": 1, "rounds": [1.0]}}]});
    bench.write("zero.json", zero.to_string());
    let refuses = |more: &[&str], words: &[&str]| {
        let ran = bench.run([&["bench", "decode_online"], more].concat());
        assert_eq!(ran.stdout, "", "{more:?}");
        ran.refuses(words);
    };
    refuses(
        &["--shapes", "llama8b_b1_8"],
        &["--shapes llama8b_b1_8: ", "did you mean `llama8b_b1_8k`?"],
    );
    refuses(
        &["--shapes", "peers,ownn"],
        &["--shapes ownn: ", "did you mean `own`?", "sets: own, peers"],
    );
    refuses(&["--shapes", ""], &["there is no such shape"]);
    for size in ["8", "8x", "x8", "0x4", "4x0", "4x-1", "1x99999999999999999999"] {
        let name = format!("llama3-8b@{size}");
        refuses(&["--shapes", &name], &[&format!("--shapes {name}: write MODEL@BATCHxKEYS")]);
    }
    refuses(&["--shapes", "lama3-8b@8x8"], &["did you mean `llama3-8b`?"]);
    refuses(
        &["--shapes", "hq=4,hkv=3,d=64,n=1"],
        &["--shapes hq=4,hkv=3,d=64,n=1: ", "no multiple"],
    );
    refuses(&["--compare", "no.json"], &["no.json: cannot be read", "No such file"]);
    refuses(&["--with", "no.json"], &["no.json: cannot be read", "No such file"]);
    for option in ["--compare", "--with"] {
        let sweep =
            ["sweep.json: its format is attnbench-sweep/1", "name a file of attnbench-bench/1"];
        refuses(&[option, "sweep.json"], &sweep);
        refuses(&[option, "broken.json"], &["broken.json: is no attnbench-bench/1 document: "]);
        refuses(&[option, "list.json"], &["list.json: is no attnbench-bench/1 document: "]);
        refuses(&[option, "none.json"], &["none.json: its format is none"]);
        refuses(&[option, "zero.json"], &["zero.json: a time of k on a is no positive number"]);
    }
    for wrong in ["0", "100", "-1", "nan", "inf"] {
        refuses(&[&format!("--tolerance={wrong}")], &["--tolerance ", "between 0 and 100"]);
    }
    refuses(&["--json", "no/x.json"], &["--json no/x.json", "there is no folder no"]);
    refuses(&["--json", "."], &["that is a folder"]);
    refuses(&["--rounds", "0"], &["--rounds", "1..=1000"]);
    refuses(&["--replays", "0"], &["--replays", "1..=1000"]);
    refuses(&["--from", "sweep.json"], &["cannot be used with"]);
    refuses(&["decode_onlin"], &["did you mean `decode_online`?"]);
    let from = bench.run(["bench", "--from", "sweep.json"]);
    from.refuses(&["sweep.json: its format is attnbench-sweep/1"]);
}
