//! What a sweep says of kernels with the faults that people report of theirs: a true name or none, when it
//! fails, and what the runs show. The right twin of each passes.

mod addresses;
mod beginners;
mod limits;
mod named;
mod numbers;
mod writes;

use super::bench::{Bench, Edit, mutated};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

/// A small kernel of our own: its source and its manifest.
type Small = (&'static str, &'static str, &'static str);
const PLAIN: Small = ("plain", include_str!("plain.hip"), include_str!("plain.toml"));
const LANES: Small = ("lanes", include_str!("lanes.hip"), include_str!("lanes.toml"));

/// A built-in kernel with edits made.
#[track_caller]
fn built_in(kernel: &str, name: &str, edits: &[Edit<'_>]) -> PathBuf {
    mutated(&format!("told_{name}"), edits).join(format!("{kernel}.toml"))
}

/// A small kernel with edits made, each of a text that occurs once in one of its two files; where it lies stays the
/// same, so that what is compiled of it stays good.
#[track_caller]
fn small((kernel, source, manifest): Small, name: &str, edits: &[(&str, &str)]) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("told").join(name);
    fs::create_dir_all(&folder).expect("a folder");
    let (mut source, mut manifest) = (source.to_owned(), manifest.to_owned());
    for (from, to) in edits {
        let found = source.matches(from).count() + manifest.matches(from).count();
        assert_eq!(found, 1, "{name}: {from}");
        source = source.replace(from, to);
        manifest = manifest.replace(from, to);
    }
    fs::write(folder.join(format!("{kernel}.hip")), source).expect("written");
    let path = folder.join(format!("{kernel}.toml"));
    fs::write(&path, manifest).expect("written");
    path
}

/// What a sweep said of one kernel.
struct Told {
    code: i32,
    kernel: Value,
    text: String,
}

/// Sweeps cases of a kernel; without checked runs, which are their own subject.
fn sweep(kernel: &Path, cases: usize, more: &[&str]) -> Told {
    let bench = Bench::new();
    let (path, cases) = (kernel.to_str().expect("a plain path"), cases.to_string());
    let sweep = ["sweep", path, "--no-sanitize", "-j", "2", "--seed", "9", "--cases", &cases];
    let ran = bench.run([&sweep[..], &["--json", "result.json"], more].concat());
    let result = fs::read_to_string(bench.dir().join("result.json"));
    let document = super::bench::document(&result.expect("a result"));
    Told { code: ran.code, kernel: document["kernels"][0].clone(), text: ran.stdout }
}

/// The standard error of a sweep that is refused before anything runs.
#[track_caller]
fn refused(kernel: &Path, words: &[&str]) -> String {
    let bench = Bench::new();
    let path = kernel.to_str().expect("a plain path");
    let ran = bench.run(["sweep", path, "--device", "cpu", "--cases", "8", "--json", "-"]);
    assert_eq!(ran.stdout, "", "{}", ran.stderr);
    let said = ran.stderr.clone();
    ran.refuses(words);
    said
}

impl Told {
    /// Asserts that every case passed.
    #[track_caller]
    fn passes(self) -> Told {
        let counts = (self.code, &self.kernel["verdict"], &self.kernel["failed"]);
        assert_eq!(counts, (0, &"pass".into(), &0.into()), "{}", self.text);
        self
    }

    /// Asserts that it failed, and gives what is said of the most frequent failure.
    #[track_caller]
    fn failure(&self) -> &Value {
        assert_eq!((self.code, &self.kernel["verdict"]), (1, &"fail".into()), "{}", self.text);
        assert!(!self.text.contains("fault   clean"), "{}", self.text);
        let failures = self.kernel["failures"].as_array().expect("failures");
        failures.iter().max_by_key(|f| f["count"].as_u64()).expect("a failure")
    }

    /// The faults that are named, of all failures.
    fn names(&self) -> Vec<&str> {
        let failures = self.kernel["failures"].as_array().expect("failures");
        failures.iter().filter_map(|f| f["diagnosis"]["fault"].as_str()).collect()
    }

    /// Asserts that no failure is given a name but these.
    #[track_caller]
    fn names_nothing_but(&self, true_names: &[&str]) {
        self.failure();
        let names = self.names();
        assert!(names.iter().all(|n| true_names.contains(n)), "{names:?}\n{}", self.text);
        for failure in self.kernel["failures"].as_array().expect("failures") {
            let d = &failure["diagnosis"];
            let is_none = d.is_object() && d["fault"].is_null();
            assert!(!is_none || d["verdict"] == "unexplained", "{failure:#}");
        }
    }

    /// Asserts that every failure has this name.
    #[track_caller]
    fn is_named(&self, name: &str) {
        self.names_nothing_but(&[name]);
        assert_eq!(self.failure()["diagnosis"]["fault"], name, "{}", self.text);
    }

    /// What the runs show by themselves.
    #[track_caller]
    fn shows(&self, kind: &str) -> &str {
        let seen = &self.failure()["seen"];
        assert_eq!(seen["kind"], kind, "{}", self.text);
        seen["words"].as_str().expect("words")
    }

    /// Asserts that the trigger has this fact, and that few of the passing cases have all of its facts:
    /// those whose data do not show the fault.
    #[track_caller]
    fn needs(&self, fact: &str) {
        let trigger = &self.failure()["trigger"];
        let facts = trigger["facts"].as_array().unwrap_or_else(|| panic!("{}", self.text));
        assert!(facts.iter().any(|f| f == fact), "no `{fact}`: {}", self.text);
        let count = |key: &str| trigger[key].as_u64().expect("a count");
        assert!(count("failing") > 4 && count("passing_of") > 4, "{}", self.text);
        assert!(4 * count("passing") <= count("passing_of"), "{}", self.text);
        assert_eq!(trigger["exact"], count("passing") == 0, "{}", self.text);
        assert!(self.text.contains("  when    "), "{}", self.text);
    }
}
