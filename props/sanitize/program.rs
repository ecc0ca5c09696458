//! The checker through the command line: `sweep --sanitize`, `replay`, `replay --debug`.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::bench::{Bench, Edit, Ran, cache, mutated};

/// `decode_online` with parts of its source replaced, as a user's own kernel; and its source's lines.
fn spoiled(name: &str, changes: &[(&str, &str)]) -> (PathBuf, Vec<String>) {
    let edits: Vec<Edit<'_>> =
        changes.iter().map(|(old, new)| ("decode_online.hip", *old, *new)).collect();
    let folder = mutated(&format!("checked_{name}"), &edits);
    let source = std::fs::read_to_string(folder.join("decode_online.hip")).expect("a kernel");
    (folder.join("decode_online.toml"), source.lines().map(str::to_owned).collect())
}

/// A key more is scored than there is, and its score is not used: no value shows it.
const ONE_KEY_MORE: [(&str, &str); 2] = [
    ("if (j < count) {", "if (j <= count) {"),
    (
        "scores[i] = finish_score(dot, scale, softcap);",
        "scores[i] = j < count ? finish_score(dot, scale, softcap) : -INFINITY;",
    ),
];

fn sweep(bench: &Bench, kernel: &Path, options: &str) -> Ran {
    let kernel = kernel.to_str().expect("a plain path");
    let all = ["sweep", kernel, "--json", "-"].into_iter().chain(options.split_whitespace());
    bench.run(all)
}

fn failures(document: &Value) -> Vec<Value> {
    document["kernels"][0]["failures"].as_array().expect("failures").clone()
}

/// The line of the source on which a text stands.
fn line_of(lines: &[String], text: &str) -> u64 {
    1 + lines.iter().position(|line| line.contains(text)).expect("the line") as u64
}

#[test]
fn a_read_that_no_value_shows_is_found_shrunk_saved_and_replayed() {
    let bench = Bench::new();
    let (kernel, lines) = spoiled("one_key_more", &ONE_KEY_MORE);
    let plain = sweep(&bench, &kernel, "--no-sanitize --cases 40").document();
    assert_eq!(failures(&plain), [Value::Null; 0], "no value shows it");

    let document = sweep(&bench, &kernel, "--sanitize --cases 20").ends_with(1).document();
    let all = failures(&document);
    assert_eq!(all.len(), 1, "one fault: {all:#?}");
    let failure = &all[0];
    assert_eq!(failure["property"], "sanitize/memory");
    let finding = &failure["findings"][0];
    assert_eq!((&finding["class"], &finding["kind"]), (&"memory".into(), &"out-of-bounds".into()));
    assert_eq!(finding["at"]["line"], line_of(&lines, "dot += query[d]"));
    let file = finding["at"]["file"].as_str().expect("a file");
    assert!(Path::new(file).ends_with("checked_one_key_more/decode_online.hip"), "{file}");
    let callers = finding["at"]["callers"].as_array().expect("callers");
    assert_eq!(callers.len(), 1, "the kernel calls attend_keys: {callers:?}");
    let target = finding["target"].as_str().expect("a target");
    // In the smallest case the cache ends with the sequence.
    assert!(target == "1 byte past the end of k" || target.contains("1 token past"), "{target}");
    // The smallest case with a key beyond the last.
    let case = &failure["case"];
    let sizes = ["batch", "num_heads", "num_kv_heads", "head_dim"].map(|key| &case[key]);
    assert!(sizes.iter().all(|size| **size == 1), "{case}");

    // The same seed finds the same.
    let again = sweep(&bench, &kernel, "--sanitize --cases 20").ends_with(1).document();
    assert_eq!(failures(&again)[0]["findings"], failure["findings"]);

    let saved = failure["saved"].as_str().expect("a file");
    for more in [&[][..], &["--sanitize"][..]] {
        let args = ["replay", saved, "--json", "-"].into_iter().chain(more.iter().copied());
        let replayed: Value =
            serde_json::from_str(&bench.run(args).ends_with(1).stdout).expect("JSON");
        assert_eq!(replayed["failure"]["findings"], failure["findings"]);
    }
}

#[test]
fn a_race_is_told_with_both_of_its_lines() {
    let bench = Bench::new();
    let barrier = "        __syncthreads();  // every thread reads all weights of the tile";
    let (kernel, lines) = spoiled("no_barrier", &[(barrier, "")]);
    let document = sweep(&bench, &kernel, "--sanitize=race --cases 12").ends_with(1).document();
    let all = failures(&document);
    let races: Vec<&Value> = all
        .iter()
        .filter(|f| f["property"] == "sanitize/race")
        .map(|f| &f["findings"][0])
        .collect();
    assert!(!races.is_empty(), "{all:#?}");
    let writes = line_of(&lines, "weights[thread + i * threads] = weight;");
    let reads = line_of(&lines, "value += weights[j]");
    // The barrier also kept the slots of two reductions apart: that race is told as well.
    let own = races.iter().find(|race| {
        let found = [&race["at"]["line"], &race["other"]["at"]["line"]].map(|n| n.as_u64());
        found.contains(&Some(writes)) && found.contains(&Some(reads))
    });
    let target = own.and_then(|race| race["target"].as_str());
    assert!(target.is_some_and(|t| t.starts_with("shared ")), "{races:#?}");
}

#[test]
fn another_sequences_rows_are_told_apart() {
    let bench = Bench::new();
    let own = "    const row_sums sums = attend_keys(";
    let other = format!(
        "    if (gridDim.y == 2 && b == 0) {{ volatile float x = to_float(k[k_stride_s]); (void)x; }}\n{own}"
    );
    let (kernel, lines) = spoiled("other_sequence", &[(own, &other)]);
    let case = "b=2,hq=1,hkv=1,d=8,n=[3,4],dt=f32,k=HND,v=HND,p.threads=32,wave=32";
    let ran = bench.run([
        "sweep",
        kernel.to_str().expect("a plain path"),
        "--sanitize",
        "--case",
        case,
        "--json",
        "-",
    ]);
    let all = failures(&ran.ends_with(1).document());
    let finding = &all[0]["findings"][0];
    assert_eq!(finding["kind"], "other-sequence", "{all:#?}");
    assert_eq!(finding["at"]["line"], line_of(&lines, "gridDim.y == 2"));
    assert!(finding["target"].as_str().is_some_and(|t| t.starts_with("k[sequence 1")), "{finding}");
}

/// Offsets of 32 bits are found with next to no memory, at the line that computes them.
#[test]
fn offsets_of_32_bits_are_found_on_sparse_memory() {
    let bench = Bench::new();
    let edit = ("portable.h", "typedef long long index_t", "typedef int index_t");
    let kernel = mutated("checked_narrow", &[edit]).join("decode_online.toml");
    let manifest = std::fs::read_to_string(&kernel).expect("a manifest");
    std::fs::write(&kernel, manifest.replace("i64:", "i32:")).expect("written");
    let document =
        sweep(&bench, &kernel, "--sanitize --cases 2 --dtype f16").ends_with(1).document();
    let all = failures(&document);
    let has = |property: &str, words: &str| {
        all.iter().any(|f| {
            f["property"] == property && f["detail"].as_str().is_some_and(|d| d.contains(words))
        })
    };
    assert!(has("sanitize/arith", "does not fit in `int`"), "{all:#?}");
    assert!(has("sanitize/memory", "before all buffers"), "{all:#?}");
    let replay = all[0]["replay"].as_str().expect("a line");
    assert!(replay.contains("--sanitize --case"), "{replay}");
}

#[test]
fn a_class_that_is_not_there_is_refused_with_those_that_are() {
    let ran = Bench::new().run(["sweep", "norm", "--sanitize=memory,nosuch"]);
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("nosuch") && ran.stderr.contains("barrier"), "{}", ran.stderr);
    let ran = Bench::new().run(["sweep", "norm", "--sanitize", "--race-model", "warp"]);
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("sync or lockstep"), "{}", ran.stderr);
}

#[test]
fn a_debugger_stops_at_a_line_of_the_kernel() {
    if Command::new("gdb").arg("--version").output().is_err() {
        eprintln!("skipped: there is no gdb here");
        return;
    }
    let bench = Bench::new();
    let (kernel, lines) = spoiled("one_key_more", &ONE_KEY_MORE);
    let document = sweep(&bench, &kernel, "--sanitize --cases 2").ends_with(1).document();
    let saved = failures(&document)[0]["saved"].as_str().expect("a file").to_owned();
    // Without a debugger the values are right, and the program ends well.
    bench.run(["replay", "--debug", &saved]).ends_with(0);

    let line = line_of(&lines, "dot += query[d]");
    let mut gdb = Command::new("gdb");
    gdb.current_dir(bench.dir()).env("ATTNBENCH_CACHE", cache()).args(["-nx", "-batch"]);
    for command in [
        "set breakpoint pending on".to_owned(),
        "set startup-with-shell off".to_owned(),
        format!("break decode_online.hip:{line}"),
        "run".to_owned(),
        "print j".to_owned(),
        "kill".to_owned(),
    ] {
        gdb.args(["-ex", &command]);
    }
    gdb.args(["--args", env!("CARGO_BIN_EXE_attnbench"), "replay", "--debug", &saved]);
    let output = gdb.output().expect("gdb runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let told = String::from_utf8_lossy(&output.stderr);
    if told.contains("ptrace") {
        eprintln!("skipped: gdb may not trace a process here");
        return;
    }
    assert!(text.contains(&format!("decode_online.hip:{line}")), "{text}\n{told}");
    assert!(text.contains("Breakpoint 1,") && text.contains("$1 = "), "{text}\n{told}");
}
