//! The program through its command line: what it prints, where, and how it ends.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

use attnbench::problem::Case;
use serde_json::Value;

use super::bench::{Bench, Ran, cache, document, does_nothing, one_key_too_few};

/// A document without what may differ between two runs of the same sweep.
fn lasting(mut document: Value) -> Value {
    for key in ["command", "device"] {
        document.as_object_mut().unwrap().remove(key).unwrap();
    }
    for kernel in document["kernels"].as_array_mut().unwrap() {
        kernel.as_object_mut().unwrap().remove("seconds").unwrap();
    }
    document
}

/// The only kernel's result.
fn only(document: &Value) -> &Value {
    assert_eq!(document["kernels"].as_array().map(Vec::len), Some(1), "{document:#}");
    &document["kernels"][0]
}

/// Runs a sweep that must find a fault, and gives its document.
fn failing(bench: &Bench, kernel: &Path, options: &str) -> Value {
    let kernel = kernel.to_str().expect("a plain path");
    let all = ["sweep", kernel, "--json", "-"].into_iter().chain(options.split_whitespace());
    bench.run(all).ends_with(1).document()
}

/// Every case that a sweep of a kernel that is always wrong judged.
fn judged(options: &str) -> Vec<Case> {
    let document = failing(&Bench::new(), &does_nothing(), options);
    let result = only(&document);
    let mut ids = Vec::new();
    for failure in result["failures"].as_array().unwrap() {
        ids.push(failure["original"].as_str().unwrap());
        ids.extend(failure["others"].as_array().unwrap().iter().map(|o| o.as_str().unwrap()));
    }
    // It lists 21 cases a property at most: ask for fewer.
    assert_eq!(ids.len() as u64, result["cases"].as_u64().unwrap(), "{result:#}");
    ids.into_iter().map(|id| id.parse().unwrap()).collect()
}

#[test]
fn the_built_in_kernels_pass_and_json_is_all_that_standard_output_holds() {
    let bench = Bench::new();
    let ran = bench.run(["sweep", "--cases", "100", "--json", "-"]).ends_with(0);
    assert_eq!(ran.stderr, "");
    let document = ran.document();
    let names: Vec<_> =
        document["kernels"].as_array().unwrap().iter().map(|k| &k["name"]).collect();
    let built_in: Vec<_> = attnbench::kernel::BUILTINS
        .iter()
        .map(|b| b.manifest.0.trim_end_matches(".toml"))
        .collect();
    assert_eq!(names, built_in);
    for kernel in document["kernels"].as_array().unwrap() {
        assert_eq!((&kernel["verdict"], &kernel["cases"]), (&"pass".into(), &100.into()));
        let waves = kernel["by_wave"].as_object().unwrap();
        let cases: u64 = waves.values().map(|w| w["cases"].as_u64().unwrap()).sum();
        assert_eq!((waves.len(), cases), (2, 100));
        let ratio = kernel["worst_ratio"].as_f64().unwrap();
        assert!(ratio > 0.0 && ratio <= 1.0, "{ratio}");
        let regimes = kernel["drawn"]["data"].as_object().unwrap();
        assert_eq!(regimes.values().map(|n| n.as_u64().unwrap()).sum::<u64>(), 100);
        let worst: Case = kernel["worst_case"].as_str().unwrap().parse().unwrap();
        assert_eq!(worst.validate(), Ok(()));
    }
    assert!(fs::read_dir(bench.dir()).unwrap().next().is_none(), "it left files behind");
}

#[test]
fn json_goes_to_a_file_and_the_tables_to_standard_output() {
    let bench = Bench::new();
    let sweep = ["sweep", "decode_online", "--cases", "100", "--json", "result.json"];
    let ran = bench.run(sweep).ends_with(0);
    let written = document(&fs::read_to_string(bench.dir().join("result.json")).unwrap());
    assert_eq!(only(&written)["cases"], 100);
    assert!(ran.stdout.contains("PASS: 1 kernel, 100 cases, 0 failed"), "{}", ran.stdout);
    assert!(ran.stdout.contains("decode_online drew"), "{}", ran.stdout);
    assert_eq!(ran.stderr, "");

    let elsewhere = ["sweep", "--cases", "3", "--json", "none/x.json"];
    bench.run(elsewhere).refuses(&["none/x.json", "no folder none"]);
}

#[test]
fn a_fault_ends_with_one_and_still_prints_one_document() {
    let bench = Bench::new();
    let failed = failing(&bench, &one_key_too_few(), "--cases 100");
    let result = only(&failed);
    assert_eq!(result["verdict"], "fail");
    let failures = result["failures"].as_array().unwrap();
    let count: u64 = failures.iter().map(|f| f["count"].as_u64().unwrap()).sum();
    assert_eq!(Some(count), result["failed"].as_u64());

    // In words, the same.
    let kernel = one_key_too_few();
    let ran = bench.run(["sweep", kernel.to_str().unwrap(), "--cases", "100"]).ends_with(1);
    for failure in failures {
        assert!(ran.stdout.contains(failure["id"].as_str().unwrap()), "{}", ran.stdout);
        assert!(ran.stdout.contains(failure["replay"].as_str().unwrap()), "{}", ran.stdout);
    }
    assert!(ran.stdout.contains("FAIL: 1 kernel, 100 cases"), "{}", ran.stdout);
}

#[test]
fn a_sweep_that_leaves_much_out_is_incomplete() {
    let bench = Bench::new();
    let few = bench.run(["sweep", "decode_online", "--cases", "3", "--json", "-"]).ends_with(3);
    let document = few.document();
    assert_eq!(only(&document)["verdict"], "incomplete");
    assert!(!only(&document)["missing"].as_array().unwrap().is_empty());
}

#[test]
fn a_wrong_request_ends_with_two_and_prints_no_document() {
    let bench = Bench::new();
    let refuses = |args: &[&str], words: &[&str]| {
        let ran = bench.run(args);
        assert_eq!(ran.stdout, "", "{args:?}");
        ran.refuses(words);
    };
    refuses(&["sweep", "decode_onlin", "--json", "-"], &["`decode_onlin`", "`decode_online`?"]);
    refuses(&["sweep", "none.toml", "--json", "-"], &["none.toml", "give the path"]);
    refuses(&["sweep", "--casess", "3"], &["--casess", "'--cases'"]);
    refuses(&["sweep", "--cases", "0"], &["--cases"]);
    refuses(&["sweep", "--cases", "-1"], &["-1"]);
    refuses(&["sweep", "--wave", "16"], &["--wave", "64"]);
    refuses(&["sweep", "--shard", "3/2"], &["--shard", "I/N"]);
    refuses(&["sweep", "--shard", "0/2"], &["--shard", "I/N"]);
    refuses(&["sweep", "--seq-len", "9..5"], &["--seq-len", "A <= B"]);
    refuses(&["sweep", "--max-time", "5y"], &["--max-time", "ms, s, m or h"]);
    refuses(&["sweep", "--dtype", "f17"], &["--dtype", "f17"]);
    let one = ["sweep", "decode_online", "--json", "-"];
    refuses(&[&one[..], &["--dtype", "f64"]].concat(), &["--dtype f64", "f16"]);
    refuses(&[&one[..], &["--head-dim", "300..400"]].concat(), &["--head-dim 300..400", "256"]);
    refuses(&["sweep", "--json", "-", "--regime", "loud"], &["loud", "gauss"]);
    refuses(&["sweep", "--json", "-", "--device", "hip:one"], &["hip:one", "hip[:N]"]);
    refuses(&["sweep", "--json", "-", "--device", "tpu"], &["tpu", "cpu"]);
    refuses(&["sweep", "--json", "-", "--case", "b=1"], &["case id"]);
    refuses(&["sweep", "--explain-bound", "0,0,0"], &["--case"]);
    fs::create_dir(bench.dir().join("empty")).unwrap();
    refuses(&["sweep", "--json", "-", "--slices", "empty"], &["empty", "no .safetensors file"]);
    refuses(&["sweep", "--json", "-", "--slices", "none"], &["none", "cannot list"]);
    refuses(&["replay", "none.safetensors"], &["none.safetensors", "No such file"]);
    refuses(&["swep"], &["swep", "sweep"]);
}

#[test]
fn the_seed_alone_decides_whatever_the_number_of_threads() {
    let bench = Bench::new();
    let kernel = one_key_too_few();
    let sweep = |options: &str| lasting(failing(&bench, &kernel, options));
    let one = sweep("--cases 40 --seed 7 --jobs 1");
    assert_eq!(one, sweep("--cases 40 --seed 7 --jobs 1"));
    assert_eq!(one, sweep("--cases 40 --seed 7 --jobs 2"));
    assert_eq!(one, sweep("--cases 40 --seed 7 --jobs 5"));
    let other = sweep("--cases 40 --seed 8 --jobs 2");
    assert_ne!(only(&one)["drawn"], only(&other)["drawn"]);
}

#[test]
fn shards_judge_disjoint_cases_that_together_are_all() {
    let ids = |options: &str| -> BTreeSet<String> {
        judged(options).iter().map(Case::to_string).collect()
    };
    let (first, second) = (ids("--cases 18 --shard 1/2"), ids("--cases 18 --shard 2/2"));
    assert_eq!((first.len(), second.len()), (9, 9));
    assert!(first.is_disjoint(&second));
    assert_eq!(ids("--cases 18"), &first | &second);
}

#[test]
fn filters_hold_for_every_case() {
    let all = judged("--cases 20");
    let hold = |option: &str, holds: &dyn Fn(&Case) -> bool| {
        assert!(!all.iter().all(holds), "{option} filters nothing");
        for case in judged(&format!("--cases 20 {option}")) {
            assert!(holds(&case), "{option}: {case}");
        }
    };
    hold("--dtype bf16", &|c| c.dtypes.to_string() == "bf16");
    hold("--dtype f16/f16/f32", &|c| c.dtypes.to_string() == "f16/f16/f32");
    hold("--seq-len 33..64", &|c| c.seq_lens.iter().all(|n| (33..=64).contains(n)));
    hold("--seq-len 17", &|c| c.seq_lens.iter().all(|n| *n == 17));
    hold("--head-dim 60..=70", &|c| (60..=70).contains(&c.head_dim));
    hold("--regime onehot", &|c| c.regime.family() == "onehot");
    hold("--regime large:3e4", &|c| c.regime.to_string() == "large:3e4");
    hold("--regime slice", &|c| c.regime.family() == "slice");
    hold("--wave 32", &|c| c.wave == 32);
    hold("--wave 64", &|c| c.wave == 64);
}

#[test]
fn one_case_is_judged_by_its_id() {
    let bench = Bench::new();
    let kernel = one_key_too_few();
    let found = failing(&bench, &kernel, "--cases 20 --fail-fast");
    let failure = &only(&found)["failures"][0];
    // As drawn, and shrunk.
    for id in [&failure["original"], &failure["id"]].map(|id| id.as_str().unwrap()) {
        let again = failing(&bench, &kernel, &format!("--case {id}"));
        let result = only(&again);
        assert_eq!((&result["cases"], &result["failed"]), (&1.into(), &1.into()));
        assert_eq!(result["failures"][0]["id"], id);
    }
    let id = failure["id"].as_str().unwrap();
    let shrunk = failing(&bench, &kernel, &format!("--case {id}"));
    for key in ["property", "ratio", "max_abs", "where", "detail", "case"] {
        assert_eq!(only(&shrunk)["failures"][0][key], failure[key], "{key}");
    }
    let sound = bench.run(["sweep", "decode_online", "--case", id, "--json", "-"]).ends_with(0);
    assert_eq!(only(&sound.document())["passed"], 1);
}

#[test]
fn the_terms_of_a_bound_add_up_to_it() {
    let bench = Bench::new();
    let id = "b=2,hq=6,hkv=2,d=80,n=[77,40],w=33,softcap=5,sinks=1,dt=f16,p.threads=32,wave=64,data=gauss,seed=3";
    let explain = ["sweep", "decode_online", "--case", id, "--explain-bound", "1,4,79"];
    let ran = bench.run(explain).ends_with(0);
    let number = |text: &str| text.trim_end_matches('.').parse::<f64>().ok();
    // A row is a name, a value and a share in percent.
    let rows: Vec<(String, f64)> = ran
        .stdout
        .lines()
        .filter(|line| line.trim_end().ends_with("% |"))
        .map(|line| {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            (cells[1].to_owned(), number(cells[2]).unwrap_or_else(|| panic!("{line}")))
        })
        .collect();
    let (sum, terms) = rows.split_last().expect("rows");
    assert!(sum.0 == "sum" && terms.len() >= 8, "{rows:?}");
    let added: f64 = terms.iter().map(|t| t.1).sum();
    let used =
        ran.stdout.split("the bound used is ").nth(1).and_then(|t| number(t.trim())).unwrap();
    // Each is printed with five digits.
    for total in [sum.1, used] {
        assert!((added - total).abs() <= 1e-4 * total, "{added:e} {total:e}\n{}", ran.stdout);
    }
    assert!(terms.iter().any(|t| t.0.contains("output rounded") && t.1 > 0.0), "{rows:?}");

    let beyond = ["sweep", "decode_online", "--case", id, "--explain-bound", "2,0,0"];
    bench.run(beyond).refuses(&["batch 2", "has 2", "count from 0"]);
}

#[test]
fn each_kernel_has_its_share_of_max_time() {
    let kernels = ["scores", "decode_online", "merge"];
    let sweep = ["--cases", "10000000", "--max-time", "6s", "--json", "-"];
    let document = Bench::new().run(["sweep"].iter().chain(&kernels).chain(&sweep)).document();
    for kernel in document["kernels"].as_array().unwrap() {
        assert!(kernel["cases"].as_u64().unwrap() > 20, "{}", kernel["cases"]);
        assert_eq!(kernel["stopped"], "stopped by --max-time");
    }
}

#[test]
fn max_time_ends_a_sweep() {
    let bench = Bench::new();
    let start = Instant::now();
    let sweep =
        ["sweep", "decode_online", "--cases", "10000000", "--max-time", "2s", "--json", "-"];
    let document = bench.run(sweep).document();
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    let result = only(&document);
    assert_eq!(result["stopped"], "stopped by --max-time");
    assert!(result["cases"].as_u64().unwrap() > 0);
}

#[test]
fn fail_fast_begins_no_case_after_a_failure() {
    let one = failing(&Bench::new(), &does_nothing(), "--cases 50 --fail-fast -j 1");
    assert_eq!((&only(&one)["cases"], &only(&one)["failed"]), (&1.into(), &1.into()));
    assert_eq!(only(&one)["stopped"], "stopped by --fail-fast");
}

#[test]
fn an_interrupt_keeps_what_was_found() {
    let bench = Bench::new();
    let kernel = one_key_too_few();
    let child = Command::new(env!("CARGO_BIN_EXE_attnbench"))
        .args(["sweep", kernel.to_str().unwrap(), "--cases", "10000000", "--json", "-"])
        .current_dir(bench.dir())
        .env("ATTNBENCH_CACHE", cache())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Compiled already or not, in three seconds some cases are judged.
    thread::sleep(Duration::from_secs(3));
    let kill = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    let sent = Instant::now();
    let output = child.wait_with_output().unwrap();
    assert!(sent.elapsed() < Duration::from_secs(30), "{:?}", sent.elapsed());
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let ran = Ran {
        code: output.status.code().unwrap_or(-1),
        stdout: text(&output.stdout),
        stderr: text(&output.stderr),
    };
    let ran = ran.ends_with(1);
    assert!(ran.stderr.starts_with("interrupted: "), "{}", ran.stderr);
    let document = ran.document();
    let result = only(&document);
    assert_eq!((&result["stopped"], &result["verdict"]), (&"interrupted".into(), &"fail".into()));
    for failure in result["failures"].as_array().unwrap() {
        assert!(bench.dir().join(failure["saved"].as_str().unwrap()).is_file());
    }
}

#[test]
fn kernels_and_devices_are_listed() {
    let bench = Bench::new();
    let kernels = bench.run(["kernels"]).ends_with(0).stdout;
    for name in ["decode_naive", "decode_online"] {
        let line = kernels.lines().find(|line| line.starts_with(name)).expect(name);
        assert!(line.contains("stage decode") && line.contains("f16/f16/f32"), "{line}");
    }
    // The manifests that it names can be swept.
    let path = kernels.lines().map(str::trim).find(|l| l.ends_with("decode_online.toml")).unwrap();
    bench.run(["sweep", path, "--cases", "100", "--dtype", "f32"]).ends_with(0);

    let devices = bench.run(["devices"]).ends_with(0).stdout;
    assert!(devices.lines().any(|l| l.starts_with("cpu") && l.contains("++")), "{devices}");
    assert!(devices.contains("32 and 64"), "{devices}");
}

#[test]
fn a_captured_slice_is_replayed_as_a_case() {
    let bench = Bench::new();
    let slices = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/slices");
    let slice = slices.join("p5_ba_decode0_L02_LHND4_f16.safetensors");
    let slice = slice.to_str().unwrap();
    let replay = ["replay", slice, "--kernel", "decode_naive", "--json", "-"];
    let ran = bench.run(replay).ends_with(0);
    let document: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(document["format"], "attnbench-replay/1");
    assert_eq!((&document["verdict"], &document["failure"]), (&"pass".into(), &Value::Null));
    bench.run(["replay", slice]).refuses(&["names no kernel", "--kernel"]);
}

#[test]
fn a_folder_of_slices_takes_the_place_of_the_built_in_ones() {
    let bench = Bench::new();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/slices");
    fs::create_dir(bench.dir().join("mine")).unwrap();
    let name = "p4_sys_decode0_L00_f32.safetensors";
    fs::copy(golden.join(name), bench.dir().join("mine/mine.safetensors")).unwrap();
    let sweep = ["sweep", "decode_online", "--cases", "100", "--slices", "mine", "--json", "-"];
    let document = bench.run(sweep).ends_with(0).document();
    let slices = only(&document)["drawn"]["slice"].as_object().unwrap();
    assert_eq!(slices.keys().collect::<Vec<_>>(), ["mine"]);
}

/// On a terminal, which `script` makes: colour, and none where `NO_COLOR` asks for none.
#[test]
fn the_verdict_is_coloured_on_a_terminal_alone() {
    let bench = Bench::new();
    let sweep = format!("{} sweep norm --cases 200", env!("CARGO_BIN_EXE_attnbench"));
    let terminal = |no_colour: Option<&str>| {
        let mut script = std::process::Command::new("script");
        script.args(["-qec", &sweep, "/dev/null"]).current_dir(bench.dir());
        script.env("TERM", "xterm-256color").env_remove("NO_COLOR").env_remove("CI");
        no_colour.map(|value| script.env("NO_COLOR", value));
        script.output().ok().map(|o| String::from_utf8_lossy(&o.stdout).into_owned())
    };
    let piped = bench.run(["sweep", "norm", "--cases", "200"]).ends_with(0).stdout;
    assert!(!piped.contains('\u{1b}'), "{piped:?}");
    let (Some(coloured), Some(plain)) = (terminal(None), terminal(Some("1"))) else {
        return println!("skipped: `script` is not here");
    };
    let last = |text: &str| text.trim_end().lines().last().unwrap_or("").trim().to_owned();
    assert!(last(&coloured).contains("\u{1b}[32mPASS\u{1b}[0m: 1 kernel"), "{:?}", last(&coloured));
    assert!(last(&plain).contains("PASS: 1 kernel") && !last(&plain).contains("[32m"), "{plain:?}");
}
