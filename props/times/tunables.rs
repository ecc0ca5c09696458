//! Tunables that a kernel's rule chooses, all values of them, and scratch that is zeros before and after.

use super::super::bench::{Bench, mutated};
use super::{SHAPE, document, only_row};
use serde_json::json;

/// `decode_online` with other tunables.
fn with_rule(name: &str, rule: &str) -> String {
    let text =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/kernels/decode_online.toml"));
    let text = text.expect("a manifest");
    let params = text.find("[params]").expect("tunables");
    let launch = text.find("[[launch]]").expect("a launch");
    let edit = ("decode_online.toml", &text[params..launch], rule);
    let folder = mutated(name, &[edit]);
    folder.join("decode_online.toml").to_str().expect("a plain path").to_owned()
}

#[test]
fn a_rule_chooses_and_the_case_has_the_last_word() {
    // 96 is none of the values that a sweep draws.
    let rule = "[params]\nthreads = [32, 64]\n\n[rule]\nthird = \"if_le(seq_len, 40, 96, 64)\"\nthreads = \"third\"\n\n";
    let manifest = with_rule("rule_of_steps", rule);
    let threads = |shape: &str| {
        let row = only_row(&[&manifest, "--shapes", shape], 0);
        (row["by_rule"].as_bool().expect("a bool"), row["params"].clone())
    };
    assert_eq!(threads(SHAPE), (true, json!({"threads": 96})));
    assert_eq!(threads(&SHAPE.replace("n=40", "n=41")), (true, json!({"threads": 64})));
    assert_eq!(threads(&format!("{SHAPE},p.threads=32")), (false, json!({"threads": 32})));
    let text = Bench::new()
        .run(["bench", &manifest, "--shapes", SHAPE, "--rounds", "1"])
        .ends_with(0)
        .stdout;
    assert!(text.contains("| threads=96 (rule) |"), "{text}");
    // A sweep draws what the list has, and replays what a rule may say.
    let sweep = ["sweep", &manifest, "--cases", "64", "--device", "cpu", "--json", "-"];
    let drawn = Bench::new().run(sweep).ends_with(0).document();
    assert_eq!(drawn["kernels"][0]["verdict"], "pass");
    let case = "b=1,hq=2,hkv=1,d=8,n=9,dt=f32,p.threads=96,wave=32";
    Bench::new().run(["sweep", &manifest, "--case", case]).ends_with(0);

    // Every value of every tunable stands beside the rule's.
    let tune = ["bench", &manifest, "--shapes", SHAPE, "--tune", "--rounds", "1", "--replays", "1"];
    let document = document(&Bench::new().run([&tune[..], &["--json", "-"]].concat()).ends_with(0));
    let rows = document["rows"].as_array().expect("rows").iter();
    let of: Vec<_> =
        rows.map(|row| (row["by_rule"] == true, row["params"]["threads"].as_i64())).collect();
    assert_eq!(of, [(true, Some(96)), (false, Some(32)), (false, Some(64))]);
}

/// A rule's mistake is the manifest's when it is read, and a row's where it has no value for a shape.
#[test]
fn wrong_rules_are_told() {
    let manifest =
        with_rule("rule_of_nobody", "[params]\nthreads = [32]\n\n[rule]\nthread = 64\n\n");
    let ran = Bench::new().run(["bench", &manifest, "--shapes", SHAPE]);
    assert_eq!(ran.stdout, "");
    ran.refuses(&["`rule.thread`", "there is no such tunable in [params]", "decode_online.toml:"]);
    let manifest = with_rule(
        "rule_too_small",
        "[params]\nthreads = [32]\n\n[rule]\nthreads = \"seq_len - 40\"\n\n",
    );
    let row = only_row(&[&manifest, "--shapes", SHAPE], 2);
    let why = row["why"].as_str().expect("a reason");
    assert!(row["verdict"] == "refused", "{row:#}");
    let words = "decode_online: rule.threads = `seq_len - 40` is 0 (with seq_len = 40), but it must be between 1";
    assert!(why.contains(words), "{why}");
}

/// The counter that the last block of `decode_fast` sets back to 0: without that the next call would find
/// it as it is. It is right once, and the sweep still tells.
#[test]
fn a_counter_that_is_not_set_back_is_a_stray_write() {
    let reset = "        if (*is_last) *count = 0;\n";
    let folder = mutated("fast_counter_stays", &[("parts.h", reset, "")]);
    let manifest = folder.join("decode_fast.toml");
    let manifest = manifest.to_str().expect("a plain path");
    let sweep = ["sweep", manifest, "--device", "cpu", "--cases", "64", "--json", "-"];
    let document = Bench::new().run(sweep).ends_with(1).document();
    let failures = document["kernels"][0]["failures"].as_array().expect("failures");
    assert!(!failures.is_empty(), "{document:#}");
    for failure in failures {
        assert_eq!(failure["property"], "stray-write", "{failure:#}");
        let detail = failure["detail"].as_str().expect("words");
        let words = "(scratch that is zeros before a run, and must be after it)";
        assert!(detail.contains("wrote arrived at element ") && detail.contains(words), "{detail}");
    }
}
