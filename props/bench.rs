//! What tests of the whole program share: a folder to run it in, and kernels with a planted fault.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

use serde_json::Value;

/// The schema of the sweep document, as it is kept for whoever reads such documents.
const SWEEP_SCHEMA: &str = include_str!("../golden/schema/attnbench-sweep-1.json");

/// Longer than any run of the program here: a hang is a failure, not a wait.
const PATIENCE: Duration = Duration::from_secs(300);

/// The one compile cache of all tests, kept between runs of them.
pub fn cache() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("compile-cache")
}

/// A folder to run the program in.
pub struct Bench {
    dir: tempfile::TempDir,
}

/// What the program answered.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Bench {
    pub fn new() -> Bench {
        Bench { dir: tempfile::tempdir().expect("a temporary folder") }
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Writes a file in the folder, and gives its path.
    pub fn write(&self, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.dir().join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(&path, contents).expect("written");
        path
    }

    /// Runs the program.
    pub fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Ran {
        self.run_with(args, &[])
    }

    /// Runs the program with more environment variables.
    pub fn run_with<S: AsRef<OsStr>>(
        &self,
        args: impl IntoIterator<Item = S>,
        variables: &[(&str, &OsStr)],
    ) -> Ran {
        let mut command = assert_cmd::Command::new(env!("CARGO_BIN_EXE_attnbench"));
        command.current_dir(self.dir()).env("ATTNBENCH_CACHE", cache()).args(args);
        // Also where there is a GPU: what is tested is known of the CPU device.
        command.env("ATTNBENCH_DEVICE", "cpu");
        command.envs(variables.iter().copied()).timeout(PATIENCE);
        let output = command.output().expect("the program starts");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let ran = Ran {
            code: output.status.code().unwrap_or(-1),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        };
        assert!(!ran.stderr.contains("panicked at"), "{ran:?}");
        assert!((0..=3).contains(&ran.code), "{ran:?}");
        ran
    }
}

impl Ran {
    /// Asserts the exit status.
    #[track_caller]
    pub fn ends_with(self, code: i32) -> Ran {
        assert_eq!(self.code, code, "{}\n{}", self.stdout, self.stderr);
        self
    }

    /// The sweep document on standard output, which holds nothing else.
    #[track_caller]
    pub fn document(&self) -> Value {
        document(&self.stdout)
    }

    /// Asserts that it failed with status 2 and exactly one message, which has every word.
    #[track_caller]
    pub fn refuses(self, words: &[&str]) {
        assert_eq!(self.code, 2, "{self:?}");
        let errors = self.stderr.lines().filter(|line| line.starts_with("error:")).count();
        assert!(self.stderr.starts_with("error:") && errors == 1, "{}", self.stderr);
        for word in words {
            assert!(self.stderr.contains(word), "no `{word}` in: {}", self.stderr);
        }
        said_once(&self.stderr);
    }
}

/// Asserts that a message does not repeat its causes.
#[track_caller]
pub fn said_once(text: &str) {
    // A cause is several words; a kernel may have the name of its entry.
    // A line of a source is quoted with each error in it.
    let said = text.lines().filter(|line| !line.contains(" | "));
    let causes = said.flat_map(|line| line.split(": ")).filter(|p| p.contains(' '));
    for part in causes.filter(|p| p.len() > 12) {
        assert_eq!(text.matches(part).count(), 1, "`{part}` is said again in: {text}");
    }
}

/// A sweep document, checked against the schema.
#[track_caller]
pub fn document(text: &str) -> Value {
    static SCHEMA: LazyLock<jsonschema::Validator> = LazyLock::new(|| {
        let schema = serde_json::from_str(SWEEP_SCHEMA).expect("the schema is JSON");
        jsonschema::validator_for(&schema).expect("the schema is a schema")
    });
    let document: Value = serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"));
    let wrong: Vec<String> =
        SCHEMA.iter_errors(&document).map(|e| format!("{}: {e}", e.instance_path())).collect();
    assert!(wrong.is_empty(), "{}\n{document:#}", wrong.join("\n"));
    for kernel in document["kernels"].as_array().expect("kernels") {
        let count = |key: &str| kernel[key].as_u64().expect("a count");
        assert_eq!(count("cases"), count("passed") + count("failed"), "{kernel:#}");
    }
    document
}

/// An edit of one file of a kernel: the file, the text as it is, the text to be.
pub type Edit<'a> = (&'a str, &'a str, &'a str);

/// The folder of the built-in kernels with edits made, in a place that stays the same from one run
/// of the tests to the next, so that what is compiled of it stays good.
///
/// Each edited text must occur exactly once: an edit that does nothing would test nothing.
#[track_caller]
pub fn mutated(name: &str, edits: &[Edit<'_>]) -> PathBuf {
    let original = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("faults").join(name);
    fs::create_dir_all(&folder).expect("a folder");
    let files = fs::read_dir(&original).expect("the kernels");
    for file in files.map(|f| f.expect("an entry").path()).filter(|f| f.is_file()) {
        let file_name = file.file_name().and_then(OsStr::to_str).expect("a plain name");
        let mut text = fs::read_to_string(&file).expect("a text");
        for (_, from, to) in edits.iter().filter(|(of, ..)| *of == file_name) {
            assert_eq!(text.matches(from).count(), 1, "{name}: in {file_name}: {from}");
            text = text.replace(from, to);
        }
        fs::write(folder.join(file_name), text).expect("written");
    }
    for (of, ..) in edits {
        assert!(original.join(of).is_file(), "{name}: no file {of}");
    }
    folder
}

/// The manifest of `decode_online` without the last attended key.
pub fn one_key_too_few() -> PathBuf {
    let end = "const int end = seq_lens[b], begin = first_key(end, window_len);";
    let less = "const int end = seq_lens[b] - 1, begin = first_key(end + 1, window_len);";
    mutated("one_key_too_few", &[("decode_online.hip", end, less)]).join("decode_online.toml")
}

/// The manifest of `decode_online` as a kernel that does nothing, so that every case fails.
pub fn does_nothing() -> PathBuf {
    let first = "    extern __shared__ float shared[];";
    let edit = (
        "decode_online.hip",
        first,
        "    if (group > 0) return;\n    extern __shared__ float shared[];",
    );
    mutated("does_nothing", &[edit]).join("decode_online.toml")
}

/// A sweep's document of a kernel on the CPU, with a seed of its own.
#[track_caller]
pub fn swept(kernel: &Path, more: &[&str]) -> Value {
    let kernel = kernel.to_str().expect("a plain path");
    let sweep = ["sweep", kernel, "--device", "cpu", "--json", "-", "--seed", "9"];
    Bench::new().run([&sweep[..], more].concat()).document()
}

/// A manifest of `kernels/`.
pub fn manifest(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels").join(name)
}

/// Asserts that a kernel passes a sweep at both waves.
#[track_caller]
pub fn passes_at_both_waves(kernel: &Path) {
    for wave in ["32", "64"] {
        let document = swept(kernel, &["--cases", "150", "--wave", wave]);
        let kernel = &document["kernels"][0];
        let counts = (&kernel["cases"], &kernel["failed"], &kernel["verdict"]);
        assert_eq!(counts, (&150.into(), &0.into(), &"pass".into()), "{kernel:#}");
    }
}

/// Asserts that the checker finds nothing in a few cases of a kernel.
#[track_caller]
pub fn is_clean_under_the_checker(kernel: &Path) {
    let document = swept(kernel, &["--cases", "8", "--sanitize", "--time-limit", "60s"]);
    let kernel = &document["kernels"][0];
    assert_eq!((&kernel["cases"], &kernel["failed"]), (&8.into(), &0.into()), "{kernel:#}");
}
