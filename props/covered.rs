//! What a pass covers: claims that are not driven, launches that a target cannot make, the checked share,
//! inputs that a kernel promises nothing for.

use super::bench::{Bench, Edit, mutated, said_once};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// `decode_online` with parts of its manifest or source replaced, as a user's own kernel.
fn own(name: &str, edits: &[Edit<'_>]) -> PathBuf {
    mutated(&format!("covered_{name}"), edits).join("decode_online.toml")
}

/// A few cases, and what the program said of them: the entry of the kernel, and the text.
fn swept(kernel: &Path, more: &[&str]) -> (Value, String) {
    let bench = Bench::new();
    let kernel = kernel.to_str().expect("a plain path");
    let sweep = ["sweep", kernel, "--device", "cpu", "--cases", "80", "--json", "result.json"];
    let ran = bench.run([&sweep[..], more].concat());
    let text = std::fs::read_to_string(bench.dir().join("result.json")).expect("a result");
    let document: Value = serde_json::from_str(&text).expect("JSON");
    said_once(&ran.stderr);
    (document["kernels"][0].clone(), ran.stdout)
}

/// The last line: what was not looked at is part of it.
fn last(text: &str) -> &str {
    text.lines().last().unwrap_or_default()
}

const MANIFEST: &str = "decode_online.toml";
const F32: &str = "{ q = \"f32\", kv = \"f32\", out = \"f32\" },\n";

#[test]
fn claims_that_are_not_driven_are_named_and_no_pass() {
    let fp8 = format!("{F32}{{ q = \"f16\", kv = \"f8_e4m3\", out = \"f16\" }},\n");
    let paged = "k = [\"HND\", \"PHTD\", ";
    let kernel = own("claims", &[(MANIFEST, F32, &fp8), (MANIFEST, "k = [\"HND\", ", paged)]);
    let (entry, text) = swept(&kernel, &["--no-sanitize"]);
    assert_eq!(entry["verdict"], "incomplete", "{text}");
    assert_eq!(entry["failed"], 0);
    assert_eq!(entry["not_driven"], serde_json::json!(["kv = f8_e4m3", "layout k PHTD"]));
    assert_eq!(entry["missing"], entry["not_driven"]);
    let line = "decode_online: claimed and not driven: kv = f8_e4m3, layout k PHTD\n";
    assert!(text.contains(line), "{text}");
    assert!(
        last(&text).starts_with("INCOMPLETE: 1 kernel") && last(&text).contains("kv = f8_e4m3")
    );
    // Who asks for one type alone is not told of another.
    let (entry, _) = swept(&kernel, &["--no-sanitize", "--dtype", "f32"]);
    assert_eq!(entry["not_driven"], serde_json::json!(["layout k PHTD"]));
}

#[test]
fn lengths_that_a_target_cannot_launch_are_told_until_none_is_claimed() {
    let size = "4 * (head_dim + head_dim_v + 4 * threads + 32)";
    let grows = "4 * (head_dim + head_dim_v + 4 * threads + 32 + seq_len)";
    let (entry, text) = swept(&own("lds", &[(MANIFEST, size, grows)]), &["--no-sanitize"]);
    assert_eq!((&entry["verdict"], &entry["failed"]), (&"incomplete".into(), &0.into()), "{text}");
    let missing = entry["missing"][0].as_str().expect("a claim");
    assert!(missing.starts_with("from seq_len ") && missing.contains("gfx942"), "{missing}");
    assert!(missing.contains("for more than 160 KiB: gfx950 cannot either"), "{missing}");
    // As it says itself.
    let at = missing.find("write seq_len = { max = ").expect("a mend") + 24;
    let max = missing[at..].split(' ').next().expect("a number");
    let bounded = format!("seq_len = {{ min = 0, max = {max} }}");
    let edits = [(MANIFEST, size, grows), (MANIFEST, "seq_len = { min = 0 }", &*bounded)];
    let (entry, text) = swept(&own("lds_bounded", &edits), &["--no-sanitize"]);
    assert_eq!(
        (&entry["verdict"], &entry["missing"]),
        (&"pass".into(), &serde_json::json!([])),
        "{text}"
    );
}

/// A key more is read than there is, and nothing comes of it.
const ONE_KEY_MORE: [Edit<'_>; 2] = [
    ("decode_online.hip", "if (j < count) {", "if (j <= count) {"),
    (
        "decode_online.hip",
        "scores[i] = finish_score(dot, scale, softcap);",
        "scores[i] = j < count ? finish_score(dot, scale, softcap) : -INFINITY;",
    ),
];

#[test]
fn the_checked_share_finds_what_no_value_shows_and_can_be_left_out() {
    let kernel = own("share", &ONE_KEY_MORE);
    let (entry, text) = swept(&kernel, &["--no-sanitize"]);
    assert_eq!((&entry["verdict"], &entry["checked"]), (&"pass".into(), &Value::Null), "{text}");
    assert!(last(&text).contains("not looked at: checked runs (--no-sanitize)"), "{text}");

    let bench = Bench::new();
    let path = kernel.to_str().expect("a plain path");
    let sweep = ["sweep", path, "--device", "cpu", "--cases", "80", "--json", "-"];
    let document = bench.run(sweep).ends_with(1).document();
    let entry = &document["kernels"][0];
    let failures = entry["failures"].as_array().expect("failures");
    assert_eq!((&entry["verdict"], failures.len()), (&"fail".into(), 1), "{entry:#}");
    assert_eq!(failures[0]["property"], "sanitize/memory");
    assert_eq!(entry["checked"]["findings"], 1);
    let saved = failures[0]["saved"].as_str().expect("a file");
    let again = bench.run(["replay", saved, "--json", "-"]).ends_with(1);
    let again: Value = serde_json::from_str(&again.stdout).expect("JSON");
    assert_eq!(again["failure"]["findings"], failures[0]["findings"]);
}

#[test]
fn a_right_kernel_passes_its_checked_share_and_says_how_much_it_was() {
    let (entry, text) = swept(&super::bench::manifest(MANIFEST), &[]);
    assert_eq!(
        (&entry["verdict"], &entry["checked"]["findings"]),
        (&"pass".into(), &0.into()),
        "{text}"
    );
    assert!(entry["checked"]["cases"].as_u64().expect("a count") >= 4, "{entry:#}");
    assert!(
        text.contains("decode_online: checked share: ") && !text.contains("checked runs ("),
        "{text}"
    );
}

#[test]
fn a_kernel_that_promises_nothing_for_nan_is_not_tried_on_it_and_that_is_said() {
    let swallows = (
        "portable.h",
        "return total == 0.0f ? sum : sum / total;",
        "return total > 0.0f ? sum / total : 0.0f;",
    );
    let (entry, text) = swept(&own("nan", &[swallows]), &["--no-sanitize"]);
    assert_eq!(entry["verdict"], "fail", "{text}");
    let promise = (MANIFEST, "[numerics]\n", "[numerics]\nnonfinite = false\n");
    let (entry, text) = swept(&own("no_nan", &[swallows, promise]), &["--no-sanitize"]);
    assert_eq!(entry["verdict"], "pass", "{text}");
    assert_eq!(entry["drawn"]["data"].get("nonfinite"), None);
    assert!(last(&text).contains("NaN and infinities (nonfinite = false)"), "{text}");
}
