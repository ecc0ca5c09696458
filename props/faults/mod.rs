//! Faults planted in the kernels, end to end: each must be caught, within 300 cases.
//!
//! A fault is a small edit of a built-in kernel's source, made when the test runs and checked to
//! apply. Many are shaped after bugs that real kernels had; those name the issue. Run
//! `cargo test --release --test props faults::table -- --ignored --nocapture` for the table of what
//! caught each of them, and after how many cases.

mod append;
mod decode;
mod linear;
mod split;
mod stages;

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use attnbench::data::slice::KvSlice;
use attnbench::problem::{Case, Regime};
use serde_json::{Value, json};

use super::bench::{Bench, Edit, mutated, one_key_too_few};
use super::support::cases::parallel;

/// Cases within which every fault must be caught.
const WITHIN: &str = "300";
/// Cases on the data of one regime alone, for the table.
const ALONE: &str = "60";

/// A fault in a kernel.
pub struct Fault {
    /// What is wrong, as a name.
    pub name: &'static str,
    /// The built-in kernel whose source is edited.
    pub kernel: &'static str,
    /// The issue of a real kernel that had it, or nothing.
    pub after: &'static str,
    /// The families of properties that may catch it.
    pub by: &'static [&'static str],
    /// The edits.
    pub edits: &'static [Edit<'static>],
}

/// A list of faults, and a test for each.
macro_rules! faults {
    ($($name:ident: $kernel:literal, $after:literal, $by:expr, $($edit:expr),+;)*) => {
        pub const FAULTS: &[super::Fault] = &[$(super::Fault {
            name: stringify!($name),
            kernel: $kernel,
            after: $after,
            by: $by,
            edits: &[$($edit),+],
        }),*];

        $(#[test]
        fn $name() {
            let fault = FAULTS.iter().find(|f| f.name == stringify!($name)).expect("in the list");
            fault.assert_caught(&[]);
        })*
    };
}
use faults;

/// Values that differ from the oracle's, in any output.
const VALUES: &[&str] = &["oracle"];
/// Values, or other bits on a repeat: what is read depends on the order of threads, or is poison.
const RACES: &[&str] = &["oracle", "repeat"];
/// Values, or an address outside of everything.
const READS: &[&str] = &["oracle", "repeat", "crash"];
/// Elements written that are not the stage's to write.
const WRITES: &[&str] = &["stray-write", "oracle", "repeat", "crash"];

/// What a sweep found first.
struct Caught {
    /// The failure's entry of the document.
    failure: Value,
    /// The data of the failing case as drawn.
    regime: String,
    /// Cases judged until then.
    cases: u64,
}

/// What a sweep of a faulty kernel found first.
fn caught(kernel: &Path, more: &[&str]) -> Caught {
    let bench = Bench::new();
    let kernel = kernel.to_str().expect("a plain path");
    let sweep = ["sweep", kernel, "--cases", WITHIN, "--fail-fast", "-j", "1", "--json", "-"];
    let ran = bench.run(sweep.iter().chain(more));
    assert_eq!(ran.code, 1, "{kernel} is not caught: {}\n{}", ran.stdout, ran.stderr);
    let document = ran.document();
    let result = &document["kernels"][0];
    assert_eq!(result["verdict"], "fail", "{kernel} is not caught: {result:#}");
    let failure = result["failures"][0].clone();
    let original: Case = failure["original"].as_str().unwrap().parse().unwrap();
    let caught = Caught {
        regime: original.regime.to_string(),
        cases: result["cases"].as_u64().unwrap(),
        failure,
    };
    println!(
        "caught by {} on {} data after {} cases; smallest: {}",
        caught.property(),
        caught.regime,
        caught.cases,
        caught.failure["id"]
    );
    caught
}

/// Of each regime's data alone, the case that catches a fault first: null where none does, and left out where a
/// kernel has no such data.
fn alone(kernel: &Path) -> Value {
    let bench = Bench::new();
    let kernel = kernel.to_str().expect("a plain path");
    let mut first = serde_json::Map::new();
    for regime in Regime::FAMILIES {
        let sweep =
            ["sweep", kernel, "--cases", ALONE, "--regime", regime, "--fail-fast", "-j", "1"];
        let ran = bench.run(sweep.iter().chain(&["--json", "-"]));
        if ran.code == 2 {
            assert!(ran.stderr.contains("nothing is left of it"), "{}", ran.stderr);
            continue;
        }
        let document = ran.document();
        let result = &document["kernels"][0];
        let caught = result["verdict"] == "fail";
        first.insert(regime.to_owned(), if caught { result["cases"].clone() } else { Value::Null });
    }
    first.into()
}

impl Caught {
    fn property(&self) -> &str {
        self.failure["property"].as_str().expect("a property")
    }
}

impl Fault {
    /// The manifest of the kernel that has it, written anew.
    fn planted(&self) -> PathBuf {
        mutated(self.name, self.edits).join(format!("{}.toml", self.kernel))
    }

    /// Asserts that it is caught by one of its properties.
    #[track_caller]
    fn assert_caught(&self, more: &[&str]) -> Caught {
        let caught = caught(&self.planted(), more);
        // `oracle/lse` is of the family `oracle`: a wrong value, in any output.
        let property = caught.property();
        let family = property.split('/').next().expect("a family");
        let right = self.by.contains(&property) || self.by.contains(&family);
        assert!(right, "{}: caught by {property}: {:#}", self.name, caught.failure);
        caught
    }
}

/// Every list.
pub fn all() -> Vec<&'static Fault> {
    let lists = [decode::FAULTS, split::FAULTS, stages::FAULTS, append::FAULTS, linear::FAULTS];
    lists.into_iter().flatten().collect()
}

#[test]
fn there_are_many_of_distinct_names_over_every_kernel() {
    let faults = all();
    let names: std::collections::BTreeSet<_> = faults.iter().map(|f| f.name).collect();
    assert!(names.len() == faults.len() && names.len() >= 80, "{}", names.len());
    for builtin in attnbench::kernel::BUILTINS {
        let kernel = builtin.manifest.0.trim_end_matches(".toml");
        // Those of decode_fast are edits of what it shares with others, too: props/decode_fast.rs has them.
        let has_own = kernel == "decode_fast";
        assert!(has_own || faults.iter().any(|f| f.kernel == kernel), "{kernel} has no fault");
    }
    let edits: std::collections::BTreeSet<_> = faults.iter().map(|f| (f.kernel, f.edits)).collect();
    assert_eq!(edits.len(), faults.len(), "two faults are the same");
}

/// Writes the table of all faults.
#[test]
#[ignore = "minutes; run it for the table"]
fn table() {
    let faults = all();
    let rows = parallel(faults.len(), |i| {
        let (fault, caught) = (faults[i], faults[i].assert_caught(&[]));
        let words = fault.name.replace('_', " ");
        let after = if fault.after.is_empty() { "-" } else { fault.after };
        let (property, regime) = (caught.property().to_owned(), caught.regime);
        let row = format!(
            "| {words} | {} | {after} | {property} | {regime} | {} |\n",
            fault.kernel, caught.cases
        );
        let entry = json!({
            "fault": words, "kernel": fault.kernel, "real": fault.after, "property": property,
            "regime": regime, "cases": caught.cases, "alone": alone(&fault.planted()),
        });
        (row, entry)
    });
    let (rows, entries): (Vec<String>, Vec<Value>) = rows.into_iter().unzip();
    let mut text = format!(
        "# Planted faults\n\n{} of {} are caught within {WITHIN} cases, seed 1. \
         `cargo test --release --test props faults::table -- --ignored --nocapture` made this.\n\n\
         | fault | kernel | a real one | caught by | on data | after cases |\n\
         |---|---|---|---|---|---:|\n",
        rows.len(),
        faults.len()
    );
    rows.iter().for_each(|row| write!(text, "{row}").expect("a string"));
    println!("{text}");
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("plots/results/2026-11-26-cpu/faults.md");
    fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
    fs::write(&file, text).expect("written");
    let document = json!({
        "format": "attnbench-faults/1",
        "version": env!("CARGO_PKG_VERSION"),
        "command": "cargo test --release --test props faults::table -- --ignored --nocapture",
        "seed": 1,
        "cases": WITHIN.parse::<u64>().expect("a number"),
        "cases_alone": ALONE.parse::<u64>().expect("a number"),
        "faults": entries,
    });
    let document = serde_json::to_string_pretty(&document).expect("JSON");
    fs::write(file.with_extension("json"), document + "\n").expect("written");
}

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

#[test]
fn a_kernel_that_does_nothing() {
    let caught = caught(&super::bench::does_nothing(), &[]);
    assert!(caught.property().starts_with("oracle"), "{:#}", caught.failure);
}

#[test]
fn an_endless_loop() {
    let edit = ("decode_online.hip", "first < end; first += tile)", "first < end; first += 0)");
    let kernel = mutated("endless", &[edit]).join("decode_online.toml");
    let caught = caught(&kernel, &["--time-limit", "100ms"]);
    assert_eq!(caught.property(), "timeout", "{:#}", caught.failure);
}

#[test]
fn half_of_a_reduction_at_waves_of_64() {
    let from = "int mask = lanes_of(threads) / 2;";
    let to = "int mask = lanes_of(threads) < 32 ? lanes_of(threads) / 2 : 16;";
    let kernel = mutated("shuffle_from_16", &[("portable.h", from, to)]).join("norm.toml");
    let caught = caught(&kernel, &[]);
    assert_eq!(caught.failure["case"]["wave"], 64, "{:#}", caught.failure);
}

/// A case of a stage that is no decode step is saved and replayed too.
#[test]
fn a_fault_of_any_stage_is_shrunk_saved_and_replayed() {
    for fault in all().iter().filter(|f| {
        ["p_times_v_starts_before_the_window", "eps_is_left_out", "parts_are_averaged"]
            .contains(&f.name)
            || f.name == "the_row_is_written_one_too_late"
    }) {
        let bench = Bench::new();
        let kernel = fault.planted();
        let kernel = kernel.to_str().expect("a plain path");
        let sweep = ["sweep", kernel, "--cases", "60", "--save", "found", "--json", "-"];
        let document = bench.run(sweep).ends_with(1).document();
        for failure in document["kernels"][0]["failures"].as_array().expect("failures") {
            let case: Case = failure["id"].as_str().unwrap().parse().unwrap();
            // Which head of a merge has empty parts is the data's affair.
            assert!(case.batch() <= 2 && case.num_heads <= 4, "{case}");
            let words: Vec<&str> = failure["replay"].as_str().unwrap().split(' ').collect();
            let again = bench.run(&words[1..]).ends_with(1);
            let property = failure["property"].as_str().unwrap();
            assert!(again.stdout.contains(&format!("FAIL: {property}")), "{}", again.stdout);
            if property.starts_with("oracle") {
                assert!(again.stdout.contains("the same as saved"), "{}", again.stdout);
            }
            let sound = bench.run([words[1], words[2], "--kernel", fault.kernel]).ends_with(0);
            assert!(sound.stdout.contains("PASS"), "{}", sound.stdout);
        }
    }
}
