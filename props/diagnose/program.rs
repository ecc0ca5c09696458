//! `diagnose` and `attend` through their command line, and the diagnosis of a sweep's failures.

use crate::bench::{Bench, document as sweep_document, mutated, one_key_too_few};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

const SCHEMA: &str = include_str!("../../golden/schema/attnbench-diagnose-1.json");

fn golden(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(path)
}

/// The document on standard output, checked against the schema.
fn document(text: &str) -> Value {
    let schema: Value = serde_json::from_str(SCHEMA).expect("the schema is JSON");
    let validator = jsonschema::validator_for(&schema).expect("the schema is a schema");
    let document: Value = serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"));
    let wrong: Vec<String> =
        validator.iter_errors(&document).map(|e| format!("{}: {e}", e.instance_path())).collect();
    assert!(wrong.is_empty(), "{}\n{document:#}", wrong.join("\n"));
    document
}

#[test]
fn the_golden_slices_are_clean() {
    let slices = golden("slices");
    let ran = Bench::new().run([Path::new("diagnose"), &slices]).ends_with(0);
    assert!(ran.stdout.ends_with("8 slices: 8 clean\n"), "{}", ran.stdout);
    let json = [Path::new("diagnose"), &slices, Path::new("--json"), Path::new("-")];
    let document = document(&Bench::new().run(json).ends_with(0).stdout);
    let slices = document["slices"].as_array().expect("slices");
    assert!(slices.len() == 8 && slices.iter().all(|s| s["verdict"] == "clean"), "{document:#}");
}

#[test]
fn a_fault_is_told_in_words_and_ends_with_1() {
    let bench = Bench::new();
    let story = golden("story/wrong_layer.safetensors");
    let ran = bench.run([Path::new("diagnose"), &story]).ends_with(1);
    for words in
        ["K and V of another layer were read", "look at the base pointers", "predictions tried"]
    {
        assert!(ran.stdout.contains(words), "no `{words}` in {}", ran.stdout);
    }
    assert!(ran.stdout.ends_with("explained: layer_slice {read: 0}\n"), "{}", ran.stdout);
    // A reference that is short is no fault of the kernel.
    let short = golden("story/short_reference.safetensors");
    let ran = bench.run([Path::new("diagnose"), &short]).ends_with(0);
    assert!(ran.stdout.contains("the output is right"), "{}", ran.stdout);
    // The worst of several counts, and all are in the table.
    let all = [Path::new("diagnose"), &short, &story];
    let ran = bench.run(all).ends_with(1);
    assert!(ran.stdout.ends_with("2 slices: 1 reference, 1 explained\n"), "{}", ran.stdout);
}

#[test]
fn what_cannot_be_judged_is_invalid_and_ends_with_2() {
    let bench = Bench::new();
    let whole = fs::read(golden("story/wrong_layer.safetensors")).expect("a slice");
    let files: [(&str, &[u8]); 4] = [
        ("empty", b""),
        ("text", b"this is no slice, and long enough to be read as one"),
        ("truncated", &whole[..whole.len() / 2]),
        ("header", &whole[..100]),
    ];
    for (name, bytes) in files {
        let path = bench.write(&format!("{name}.safetensors"), bytes);
        let ran = bench.run([Path::new("diagnose"), &path]).ends_with(2);
        assert!(ran.stdout.ends_with("invalid\n"), "{}", ran.stdout);
        let json = [Path::new("diagnose"), &path, Path::new("--json"), Path::new("-")];
        let document = document(&bench.run(json).ends_with(2).stdout);
        assert_ne!(document["slices"][0]["note"], "", "{document:#}");
    }
    let missing = ["diagnose", "nowhere.safetensors"];
    assert!(bench.run(missing).ends_with(2).stdout.contains("nowhere.safetensors"));
    bench.run(["diagnose"]).ends_with(2);
    fs::create_dir(bench.dir().join("bare")).expect("a folder");
    bench.run(["diagnose", "bare"]).refuses(&["no .safetensors file"]);
    // What can be judged is judged all the same.
    let good = golden("story/wrong_layer.safetensors");
    let bad = bench.dir().join("empty.safetensors");
    let ran = bench.run([Path::new("diagnose"), &bad, &good]).ends_with(1);
    assert!(ran.stdout.ends_with("2 slices: 1 explained, 1 invalid\n"), "{}", ran.stdout);
}

#[test]
fn attend_writes_what_is_clean() {
    let bench = Bench::new();
    let story = golden("story/wrong_layer.safetensors");
    let right = bench.dir().join("right.safetensors");
    let attend = [Path::new("attend"), &story, Path::new("-o"), &right];
    bench.run(attend).ends_with(0);
    let ran = bench.run([Path::new("diagnose"), &right]).ends_with(0);
    assert!(ran.stdout.ends_with("clean\n"), "{}", ran.stdout);
    let onto = [Path::new("attend"), &right, Path::new("-o"), &right];
    bench.run(onto).refuses(&["is the slice itself"]);
}

/// The first failure of a sweep of a kernel with a fault.
fn failure(manifest: &Path, property: &str) -> Value {
    let manifest = manifest.to_str().expect("a plain path");
    let sweep = ["sweep", manifest, "--cases", "150", "--json", "-", "--seed", "3"];
    let document = sweep_document(&Bench::new().run(sweep).ends_with(1).stdout);
    let failures = document["kernels"][0]["failures"].as_array().expect("failures").clone();
    let of = |f: &Value| f["property"].as_str().is_some_and(|p| p.starts_with(property));
    failures.into_iter().find(of).unwrap_or_else(|| panic!("no {property}: {document:#}"))
}

#[test]
fn a_failure_of_a_sweep_carries_its_diagnosis() {
    let names = |failure: &Value, id: &str| {
        let d = &failure["diagnosis"];
        let listed = d["equivalent"].as_array().into_iter().flatten();
        assert!(
            d["fault"] == id || listed.clone().any(|e| e["fault"] == id),
            "{}: {d:#}",
            failure["id"]
        );
    };
    names(&failure(&one_key_too_few(), "oracle"), "seq_len_minus_1");
    // Stages alone: Q·K without its scale, P·V with the KV heads interleaved.
    let scale =
        ("scores.hip", "finish_score(dot, scale, softcap)", "finish_score(dot, 1.0f, softcap)");
    let scores = mutated("diagnosed_scores", &[scale]).join("scores.toml");
    names(&failure(&scores, "oracle"), "missing_scale");
    let head = ("pv.hip", "h / group", "h % (gridDim.y / group)");
    let pv = mutated("diagnosed_pv", &[head]).join("pv.toml");
    names(&failure(&pv, "oracle"), "head_map_interleaved");
    // A row one slot before its own is a write where none may be.
    let early = ("append.hip", "position * v_stride_n", "(position - (position > 0)) * v_stride_n");
    let append = mutated("diagnosed_append", &[early]).join("append.toml");
    names(&failure(&append, "stray-write"), "append_early");
}
