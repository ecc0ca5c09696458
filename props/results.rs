//! The contract of results: exit statuses, what a signal leaves, files that are whole or not there at
//! all, and that whatever a sweep saves can be replayed and diagnosed.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use attnbench::data::slice::{KvSlice, Saved};
use attnbench::problem::Case;
use serde_json::Value;

use super::bench::{Bench, Ran, cache, document, does_nothing, mutated, one_key_too_few};

fn json(path: &Path) -> Value {
    let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}\n{text}", path.display()))
}

fn golden(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(path)
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder");
    let name = |e: std::io::Result<fs::DirEntry>| e.expect("an entry").file_name();
    let mut names: Vec<String> =
        entries.map(|e| name(e).into_string().expect("a plain name")).collect();
    names.sort();
    names
}

/// All built-in kernels, with a line at the start of each entry point.
fn with_first_line(name: &str, line: &str) -> PathBuf {
    let folder = mutated(name, &[]);
    for file in fs::read_dir(&folder).expect("a folder").map(|f| f.expect("an entry").path()) {
        if file.extension().is_none_or(|e| e != "hip") {
            continue;
        }
        let text = fs::read_to_string(&file).expect("a text");
        let mut edited = String::new();
        let mut parts = text.split("__global__");
        edited += parts.next().unwrap_or("");
        for part in parts {
            let (head, body) = part.split_once("{\n").expect("a body");
            edited += &format!("__global__{head}{{\n    {line}\n{body}");
        }
        fs::write(&file, edited).expect("written");
    }
    folder
}

#[test]
fn every_command_says_in_its_help_how_it_ends() {
    let bench = Bench::new();
    for (command, statuses) in [
        (&[][..], "0123"),
        (&["sweep"], "0123"),
        (&["replay"], "0123"),
        (&["diagnose"], "0123"),
        (&["attend"], "02"),
        (&["trace"], "0123"),
        (&["inspect"], "0123"),
        (&["bench"], "0123"),
        (&["plot"], "023"),
        (&["kernels"], "02"),
        (&["devices"], "02"),
    ] {
        let help = bench.run(command.iter().chain(&["--help"])).ends_with(0).stdout;
        let (_, said) = help.split_once("Exit status:\n").unwrap_or_else(|| panic!("{help}"));
        // Further lines of a meaning are indented more.
        let status = |line: &str| line.strip_prefix("  ")?.chars().next().filter(|c| *c != ' ');
        let said: String = said.lines().filter_map(status).collect();
        assert_eq!(said, statuses, "{command:?}: {help}");
    }
}

/// What a sweep of several kernels ends with: a fault first, then what is incomplete, then an error.
#[test]
fn the_worst_of_several_kernels_decides_how_a_sweep_ends() {
    let bench = Bench::new();
    let (wrong, broken) = (does_nothing(), bench.write("broken.hip", "no C++"));
    let text = fs::read_to_string(wrong.with_file_name("scores.toml")).expect("a manifest");
    let broken = broken.with_extension("toml");
    fs::write(&broken, text.replace("scores.hip", "broken.hip")).expect("written");
    let (wrong, broken) = (wrong.to_str().expect("plain"), broken.to_str().expect("plain"));
    // Of so few cases a sound kernel never exercises all that it claims.
    let sweep = |kernels: &[&str]| {
        let options = ["--cases", "3", "--json", "-"];
        bench.run(["sweep"].iter().chain(kernels).chain(&options))
    };
    sweep(&["scores", wrong, broken]).ends_with(1).document();
    let ran = sweep(&["scores", broken]).ends_with(3).document();
    assert_eq!(ran["kernels"].as_array().map(Vec::len), Some(2), "{ran:#}");
    let ran = bench.run(["sweep", "decode_online", broken, "--cases", "100"]).ends_with(2);
    assert!(ran.stdout.contains("\nERROR: 2 kernels"), "{}", ran.stdout);
    let ran = bench.run(["sweep", "scores", "--cases", "3"]).ends_with(3);
    assert!(ran.stdout.contains("\nINCOMPLETE: 1 kernel"), "{}", ran.stdout);
}

/// Processes whose parent this is, or whose environment has the mark: what a run leaves behind.
fn marked(mark: &str) -> Vec<String> {
    let all = fs::read_dir("/proc").expect("processes").flatten();
    let of = |e: fs::DirEntry| {
        let environment = fs::read(e.path().join("environ")).ok()?;
        let command = fs::read(e.path().join("cmdline")).ok().filter(|c| !c.is_empty())?;
        String::from_utf8_lossy(&environment)
            .contains(mark)
            .then(|| String::from_utf8_lossy(&command).replace('\0', " "))
    };
    all.filter_map(of).collect()
}

/// Starts the program, ends it with a signal after a while, and gives what it said, how long it took
/// to end, and what is still there of it.
fn ended_by(bench: &Bench, args: &[&str], signal: &str, after: Duration) -> (Ran, Duration) {
    let mark = format!("ATTNBENCH_TEST_MARK={signal}-{}", bench.dir().display());
    let (name, value) = mark.split_once('=').expect("a variable");
    let child = Command::new(env!("CARGO_BIN_EXE_attnbench"))
        .args(args)
        .current_dir(bench.dir())
        .env("ATTNBENCH_CACHE", cache())
        .env("ATTNBENCH_DEVICE", "cpu")
        .env(name, value)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    thread::sleep(after);
    let kill = Command::new("kill").args([signal, &child.id().to_string()]).status();
    assert!(kill.expect("kill").success(), "it had ended before the signal");
    let sent = Instant::now();
    let output = child.wait_with_output().expect("it ends");
    let took = sent.elapsed();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let code = output.status.code().unwrap_or(-1);
    let ran = Ran { code, stdout: text(&output.stdout), stderr: text(&output.stderr) };
    assert!(ran.stderr.starts_with("interrupted: "), "{ran:?}");
    assert!(!ran.stderr.contains("panicked"), "{ran:?}");
    // A worker is told of its parent's end by a signal.
    let gone = Instant::now();
    while !marked(&mark).is_empty() && gone.elapsed() < Duration::from_secs(2) {
        thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(marked(&mark), Vec::<String>::new(), "left behind");
    (ran, took)
}

/// How long the end of a run may take. Alone it takes a tenth of a second; other tests run beside it.
const AT_ONCE: Duration = Duration::from_secs(5);

/// A kernel that writes nothing, and takes for ever where a sequence has more than 100 keys.
fn slow_and_wrong() -> PathBuf {
    let first = "    extern __shared__ float shared[];";
    let slow = "    if (seq_lens[blockIdx.y] > 100) for (volatile long i = 0; i < 200000000000; ++i) {}\n    \
                if (group > 0) return;\n    extern __shared__ float shared[];";
    mutated("slow_and_wrong", &[("decode_online.hip", first, slow)]).join("decode_online.toml")
}

#[test]
fn a_signal_ends_a_sweep_at_once_and_what_was_judged_is_in_every_file() {
    let kernel = slow_and_wrong();
    let kernel = kernel.to_str().expect("a plain path");
    let narrow = ["--dtype", "f32", "--head-dim", "64", "--wave", "32", "-j", "4"];
    // Compiled before: then a short wait is enough for the first cases.
    let short = ["sweep", kernel, "--seq-len", "1..9", "--cases", "8"];
    Bench::new().run([&short[..], &narrow].concat()).ends_with(1);
    for signal in ["-TERM", "-HUP", "-INT"] {
        let bench = Bench::new();
        let files = [
            "--json",
            "result.json",
            "--junit",
            "junit.xml",
            "--report",
            "report",
            "--save",
            "saved",
        ];
        let slow = ["--cases", "100000", "--seq-len", "1..120", "--time-limit", "10m"];
        let sweep = [&["sweep", kernel][..], &slow].concat();
        let args = [&sweep[..], &narrow, &files].concat();
        let (ran, took) = ended_by(&bench, &args, signal, Duration::from_secs(4));
        let ran = ran.ends_with(1);
        assert!(took < AT_ONCE, "{signal}: {took:?}");
        assert!(ran.stdout.contains("\nFAIL: 1 kernel"), "{}", ran.stdout);
        let path = |name: &str| bench.dir().join(name);
        let result = document(&fs::read_to_string(path("result.json")).expect("a result"));
        let kernel = &result["kernels"][0];
        assert_eq!(kernel["stopped"], "interrupted", "{kernel:#}");
        let cases = kernel["cases"].as_u64().expect("a count");
        assert!(cases > 0 && kernel["failed"] == cases, "{kernel:#}");
        let saved = kernel["failures"][0]["saved"].as_str().expect("a path");
        assert!(path(saved).is_file());
        assert_eq!(json(&path("report/result.json")), result);
        for (file, end) in [("junit.xml", "</testsuites>"), ("report/index.html", "</html>")] {
            let text = fs::read_to_string(path(file)).expect("a text");
            assert!(text.trim_end().ends_with(end), "{file}: {text}");
        }
    }
}

/// Nothing that failed, and much that was not judged.
#[test]
fn an_interrupt_without_a_fault_is_incomplete() {
    let bench = Bench::new();
    let kernel = slow_and_wrong();
    let kernel = kernel.to_str().expect("a plain path");
    let slow = ["--seq-len", "140..150", "--cases", "50", "--time-limit", "10m", "--dtype", "f32"];
    let narrow = ["--head-dim", "64", "--wave", "32", "--json", "result.json"];
    let args = [&["sweep", kernel][..], &slow, &narrow].concat();
    let (ran, took) = ended_by(&bench, &args, "-TERM", Duration::from_secs(2));
    let ran = ran.ends_with(3);
    assert!(took < AT_ONCE, "{took:?}");
    assert!(ran.stdout.contains("\nINCOMPLETE: 1 kernel, 0 cases"), "{}", ran.stdout);
    let kernel = &json(&bench.dir().join("result.json"))["kernels"][0];
    assert_eq!(
        (&kernel["verdict"], &kernel["stopped"]),
        (&"incomplete".into(), &"interrupted".into())
    );

    // The other commands: a trace that never ends, and the case of the slow kernel again.
    let pipe = bench.dir().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo").success());
    let feed = fs::read(golden("traces/b3_24.jsonl")).expect("a trace");
    let to = pipe.clone();
    thread::spawn(move || {
        use std::io::Write;
        let mut pipe = fs::OpenOptions::new().write(true).open(to).expect("a reader");
        let _ = pipe.write_all(&feed);
        thread::sleep(Duration::from_secs(60));
    });
    let args = ["trace", "pipe", "--json", "trace.json"];
    let (ran, took) = ended_by(&bench, &args, "-HUP", Duration::from_secs(2));
    assert!(took < AT_ONCE && matches!(ran.code, 1 | 3), "{took:?} {ran:?}");
    assert!(!json(&bench.dir().join("trace.json"))["rows"].as_array().expect("rows").is_empty());

    let saved = bench.dir().join("slow.safetensors");
    vacuous("hq=1,hkv=1,d=64,n=140,dt=f32", kernel_of(&slow_and_wrong()))
        .write(&saved)
        .expect("saved");
    let replay = ["replay", "slow.safetensors", "--time-limit", "10m"];
    let (ran, took) = ended_by(&bench, &replay, "-TERM", Duration::from_secs(2));
    assert!(took < AT_ONCE && ran.code == 3, "{took:?} {ran:?}");
}

fn kernel_of(manifest: &Path) -> &str {
    manifest.to_str().expect("a plain path")
}

/// A file that cannot be written to its end leaves the old one as it was, and nothing beside it.
#[test]
fn a_result_is_written_whole_or_not_at_all() {
    let bench = Bench::new();
    let old = "as it was";
    let trace = golden("traces/b3_24.jsonl");
    let story = golden("story/wrong_layer.safetensors");
    let (trace, story) = (trace.to_str().expect("plain"), story.to_str().expect("plain"));
    bench.run(["diagnose", story, "--json", "for-figures.json"]).ends_with(1);
    let kernel = does_nothing();
    let sweep =
        format!("sweep {} --cases 30 --dtype f32 --head-dim 64 --wave 32", kernel_of(&kernel));
    bench.run(sweep.split(' ').chain(["--save", "first"])).ends_with(1);
    // A limit on the size of files, with its signal ignored, fails writes as a full disk does.
    for (command, target) in [
        (format!("diagnose {story} --json target"), "target"),
        (format!("diagnose {story} --report target"), "target/result.json"),
        (format!("diagnose {story} --report target"), "target/index.html"),
        (format!("trace {trace} --json target"), "target"),
        (format!("{sweep} --save first --json target"), "target"),
        (format!("{sweep} --save first --junit target"), "target"),
        (format!("attend {story} -o target"), "target"),
        ("plot for-figures.json --png -o target".to_owned(), "target/*.svg"),
    ] {
        let folder = target
            .split_once('/')
            .map_or(bench.dir().join("alone"), |_| bench.dir().join("target"));
        let _ = fs::remove_dir_all(bench.dir().join("target"));
        let _ = fs::remove_file(bench.dir().join("target"));
        fs::create_dir_all(&folder).expect("a folder");
        if target.contains('*') {
            bench.run(command.split(' ')).ends_with(0);
            for name in names(&folder) {
                fs::write(folder.join(name), old).expect("written");
            }
        } else {
            fs::write(bench.dir().join(target), old).expect("written");
        }
        let before = (names(bench.dir()), names(&folder));
        let script = format!("trap '' XFSZ; ulimit -f 1; exec \"$0\" {command}");
        let mut limited = assert_cmd::Command::new("sh");
        limited.args(["-c", &script, env!("CARGO_BIN_EXE_attnbench")]).current_dir(bench.dir());
        limited.env("ATTNBENCH_CACHE", cache()).env("ATTNBENCH_DEVICE", "cpu");
        let output = limited.output().expect("it starts");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{command}: {said}");
        let about = said.lines().filter(|line| line.contains("File too large")).count();
        assert_eq!(about, 1, "{command}: {said}");
        assert_eq!((names(bench.dir()), names(&folder)), before, "{command}");
        match target.strip_suffix("/*.svg") {
            None => assert_eq!(fs::read_to_string(bench.dir().join(target)).expect("read"), old),
            Some(_) => assert!(
                names(&folder)
                    .iter()
                    .any(|n| fs::read_to_string(folder.join(n)).is_ok_and(|t| t == old))
            ),
        }
    }
}

/// A target that cannot be written is told before the work: this sweep would take for ever.
#[test]
fn a_target_that_cannot_be_written_is_refused_before_the_work() {
    let bench = Bench::new();
    bench.write("file", "in the way");
    fs::create_dir(bench.dir().join("folder")).expect("a folder");
    let story = golden("story/wrong_layer.safetensors");
    let trace = golden("traces/b3_24.jsonl");
    let (story, trace) = (story.to_str().expect("plain"), trace.to_str().expect("plain"));
    let before = names(bench.dir());
    let sweep = ["sweep", "decode_online", "--cases", "100000000"];
    let targets: [(&str, &[&str]); 6] = [
        ("file/below", &["file/below", "Not a directory"]),
        ("none/x.json", &["none/x.json", "no folder none"]),
        ("folder", &["folder", "that is a folder"]),
        ("", &["a value is required"]),
        ("/proc/x.json", &["/proc/x.json", "cannot be written"]),
        ("/dev/fd/987", &["/dev/fd/987", "cannot be written"]),
    ];
    for (target, words) in targets {
        for option in ["--json", "--junit"] {
            bench
                .run([&sweep[..], &[option, target]].concat())
                .refuses(&[words, &[option]].concat());
        }
        for command in [
            &["diagnose", story][..],
            &["trace", trace],
            &["replay", story, "--kernel", "decode_online"],
            &["inspect", "scores"],
            &["bench", "decode_online"],
            &["attend", story, "-o", "new"],
        ] {
            bench.run([command, &["--json", target]].concat()).refuses(words);
        }
        bench.run(["attend", story, "-o", target]).refuses(words);
    }
    for command in [&sweep[..], &["diagnose", story], &["trace", trace], &["bench"]] {
        for target in ["file", "file/below", "/proc/report"] {
            bench.run([command, &["--report", target]].concat()).refuses(&["--report", target]);
        }
    }
    bench.run(["diagnose", story, "--json", "figures.json"]).ends_with(1);
    for target in ["file", "file/below", "/proc/plots"] {
        bench.run(["plot", "figures.json", "-o", target]).refuses(&[target]);
    }
    fs::remove_file(bench.dir().join("figures.json")).expect("removed");
    assert_eq!(names(bench.dir()), before, "it left files behind");
}

/// Links stay links; pipes and devices are written to.
#[test]
fn results_go_through_links_and_into_pipes() {
    let bench = Bench::new();
    let story = golden("story/wrong_layer.safetensors");
    let story = story.to_str().expect("plain");
    fs::create_dir(bench.dir().join("far")).expect("a folder");
    bench.write("far/result.json", "old");
    symlink("far/result.json", bench.dir().join("link")).expect("a link");
    bench.run(["diagnose", story, "--json", "link"]).ends_with(1);
    let whole = json(&bench.dir().join("far/result.json"));
    assert!(fs::symlink_metadata(bench.dir().join("link")).expect("there").is_symlink());
    assert_eq!(names(&bench.dir().join("far")), ["result.json"]);
    bench.run(["diagnose", story, "--json", "/dev/null"]).ends_with(1);
    let same = |text: &str| {
        let mut document: Value = serde_json::from_str(text).expect("a document");
        document["command"] = whole["command"].clone();
        assert_eq!(document, whole);
    };
    for script in [
        "\"$0\" diagnose \"$1\" --json /dev/fd/3 3>&1 >/dev/null | cat",
        "\"$0\" diagnose \"$1\" --json /dev/fd/3 3>direct >/dev/null; cat direct",
        "\"$0\" diagnose \"$1\" --json /dev/stderr 2>&1 >/dev/null | cat",
    ] {
        let mut shell = assert_cmd::Command::new("sh");
        shell.args(["-c", script, env!("CARGO_BIN_EXE_attnbench"), story]).current_dir(bench.dir());
        let output = shell.output().expect("it starts");
        same(&String::from_utf8_lossy(&output.stdout));
    }
    // Standard output in a file: the document, and what is printed besides, whole and in turn.
    let script = "echo before; \"$0\" diagnose \"$1\" --json /dev/stdout";
    let mut shell = assert_cmd::Command::new("sh");
    shell.args(["-c", &format!("{{ {script}; }} > all"), env!("CARGO_BIN_EXE_attnbench"), story]);
    shell.current_dir(bench.dir()).output().expect("it starts");
    let all = fs::read_to_string(bench.dir().join("all")).expect("read");
    let rest = all.strip_prefix("before\n").unwrap_or_else(|| panic!("{all}"));
    let (document, words) = rest.split_at(rest.find("\n}\n").expect("its end") + 3);
    same(document);
    assert!(words.ends_with("explained: layer_slice {read: 0}\n"), "{words}");
}

/// A file of a case whose check sees nothing: scores of 1e-6 in a bf16 output.
fn vacuous(id: &str, kernel: &str) -> KvSlice {
    let case: Case = id.parse().expect("an id");
    let value = |i: usize| ((i * 37) % 64) as f32 / 32.0 - 1.0;
    let wide = case.dtypes.kv.size() == 4;
    let bytes = |n: usize, factor: f32| -> Vec<u8> {
        let values = (0..n).map(|i| factor * value(i));
        match wide {
            true => values.flat_map(f32::to_le_bytes).collect(),
            false => values.flat_map(|x| half::bf16::from_f32(x).to_le_bytes()).collect(),
        }
    };
    let (keys, dim) = (case.seq_len(), case.head_dim);
    let saved = Saved {
        case: &case,
        kernel,
        property: "oracle",
        q: &bytes(dim, 1e-6),
        k: &bytes(keys * dim, 1.0),
        v: &bytes(keys * dim, 1.0),
        out: &bytes(dim, 0.0),
        lse: None,
        sinks: None,
        promises: None,
    };
    KvSlice::from_case("vacuous", &saved).expect("a slice")
}

#[test]
fn a_vacuous_replay_is_incomplete() {
    let bench = Bench::new();
    let file = bench.dir().join("vacuous.safetensors");
    vacuous("hq=1,hkv=1,d=16,n=40,dt=bf16", "decode_online").write(&file).expect("written");
    let ran = bench.run(["replay", "vacuous.safetensors"]).ends_with(3);
    assert!(
        ran.stdout.contains("VACUOUS: the check would not see the mean of V"),
        "{}",
        ran.stdout
    );
    let ran = bench.run(["replay", "vacuous.safetensors", "--json", "-"]).ends_with(3);
    let document: Value = serde_json::from_str(&ran.stdout).expect("a document");
    assert_eq!(
        (&document["format"], &document["verdict"]),
        (&"attnbench-replay/1".into(), &"vacuous".into())
    );
}

#[test]
fn a_folder_is_replayed_and_its_worst_file_decides() {
    let bench = Bench::new();
    let kernel = one_key_too_few();
    let sweep = ["sweep", kernel_of(&kernel), "--cases", "60", "--save", "all"];
    bench.run(sweep).ends_with(1);
    let failed = names(&bench.dir().join("all")).len();
    let slice = golden("slices/p5_ba_decode0_L15_f32.safetensors");
    let copy = |to: &str| fs::copy(&slice, bench.dir().join(to)).map(|_| ()).expect("copied");
    copy("all/capture.safetensors");
    vacuous("hq=1,hkv=1,d=16,n=40,dt=bf16", "decode_online")
        .write(&bench.dir().join("all/vacuous.safetensors"))
        .expect("written");
    bench.write("all/broken.safetensors", "no slice");
    bench.write("all/notes.txt", "no slice either");

    // The capture names no kernel.
    let ran = bench.run(["replay", "all"]).ends_with(1);
    let files = failed + 3;
    let last =
        format!("FAIL: {files} files, 0 passed, {failed} failed, 2 not replayed, 1 vacuous\n");
    assert!(ran.stdout.ends_with(&last), "{}", ran.stdout);
    assert_eq!(ran.stdout.lines().count(), files + 1, "{}", ran.stdout);
    assert!(
        ran.stderr.contains("broken.safetensors") && ran.stderr.contains("give one with --kernel")
    );

    let all = ["replay", "all", "--kernel", "decode_online", "--json", "-"];
    let document = |ran: &Ran| -> Value { serde_json::from_str(&ran.stdout).expect("a document") };
    let ran = bench.run(all).ends_with(2);
    let result = document(&ran);
    assert_eq!(result["format"], "attnbench-replays/1");
    let replays = result["replays"].as_array().expect("replays");
    assert_eq!(replays.len(), files);
    assert!(replays.iter().all(|r| r["format"] == "attnbench-replay/1"), "{result:#}");
    let sorted: Vec<&str> = replays.iter().map(|r| r["file"].as_str().expect("a file")).collect();
    assert!(sorted.is_sorted(), "{sorted:?}");
    fs::remove_file(bench.dir().join("all/broken.safetensors")).expect("removed");
    bench.run(all).ends_with(3);
    fs::remove_file(bench.dir().join("all/vacuous.safetensors")).expect("removed");
    let ran = bench.run(["replay", "all", "--kernel", "decode_online"]).ends_with(0);
    assert!(ran.stdout.ends_with(&format!("\nPASS: {0} files, {0} passed\n", failed + 1)));

    // A file alone is told as before, and a folder of one as a folder.
    let ran = bench.run(["replay", "all/capture.safetensors", "--kernel", "scores", "--json", "-"]);
    assert_eq!(document(&ran.ends_with(0))["format"], "attnbench-replay/1");
    fs::create_dir(bench.dir().join("one")).expect("a folder");
    copy("one/capture.safetensors");
    let ran = bench.run(["replay", "one", "--kernel", "scores", "--json", "-"]).ends_with(0);
    assert_eq!(document(&ran)["replays"].as_array().map(Vec::len), Some(1));
    bench.run(["replay", "one", "--debug"]).refuses(&["--debug", "name one file"]);
    fs::create_dir(bench.dir().join("empty")).expect("a folder");
    bench.run(["replay", "empty"]).refuses(&["empty", "no .safetensors file"]);
}

/// The stages of the built-in kernels.
const STAGES: [&str; 10] = [
    "scores",
    "softmax",
    "pv",
    "append",
    "split",
    "merge",
    "prefill",
    "head_combine",
    "norm",
    "decode_online",
];

/// What a sweep of kernels in a folder saves, as `diagnose` tells it: the texts and the slices.
fn diagnosed(bench: &Bench, folder: &Path, kernels: &[&str], more: &[&str]) -> Vec<Value> {
    for kernel in kernels {
        let manifest = folder.join(format!("{kernel}.toml"));
        let sweep =
            ["sweep", kernel_of(&manifest), "--cases", "12", "--fail-fast", "--save", "saved"];
        bench.run([&sweep[..], more].concat()).ends_with(1);
    }
    let ran = bench.run(["diagnose", "saved", "--json", "-"]).ends_with(1);
    let document: Value = serde_json::from_str(&ran.stdout).expect("a document");
    document["slices"].as_array().expect("slices").clone()
}

/// Every stage's files are read, and none that a sweep saved is called clean.
#[test]
fn every_file_that_a_sweep_saves_is_diagnosed() {
    let bench = Bench::new();
    let nothing = with_first_line("writes_nothing", "if (blockDim.x < 4096) return;");
    let slices = diagnosed(&bench, &nothing, &STAGES, &[]);
    for stage in STAGES {
        let of = |s: &&Value| s["file"].as_str().is_some_and(|f| f.contains(&format!("/{stage}-")));
        let slices: Vec<&Value> = slices.iter().filter(of).collect();
        assert!(!slices.is_empty(), "nothing of {stage}");
        for slice in slices {
            let (verdict, note) = (&slice["verdict"], slice["note"].as_str().expect("a note"));
            assert!(verdict != "invalid" && verdict != "clean", "{slice:#}");
            assert!(note.starts_with("saved for `oracle"), "{slice:#}");
            // What no thread wrote no fault explains; two stages have no hypothesis at all.
            assert!(stage != "merge" || verdict == "unexplained", "{slice:#}");
            if ["head_combine", "norm"].contains(&stage) {
                assert!(
                    verdict == "unexplained" && note.contains("the largest error"),
                    "{slice:#}"
                );
            }
        }
    }
}

/// A run that did not end left nothing to judge, and its file says why.
#[test]
fn what_ended_a_run_is_told_by_its_file() {
    let bench = Bench::new();
    let traps = with_first_line("traps", "if (blockDim.x < 4096) __builtin_trap();");
    let slices = diagnosed(&bench, &traps, &["norm", "scores", "decode_online"], &["--wave", "32"]);
    assert_eq!(slices.len(), 3, "{slices:#?}");
    for slice in &slices {
        let note = slice["note"].as_str().expect("a note");
        assert_eq!(slice["verdict"], "unexplained", "{slice:#}");
        assert!(note.starts_with("saved for `crash`: ") || note.starts_with("saved for `trap`: "));
        assert!(note.contains("left no output to judge"), "{note}");
    }
}

/// What was saved for something else than its values is not called clean.
#[test]
fn a_stray_write_is_told_by_its_file() {
    let store = "scores[b * scores_stride_s + h * scores_stride_h + n] = score;";
    let text = fs::read_to_string(super::bench::manifest("scores.hip")).expect("a kernel");
    assert!(text.contains(store), "{text}");
    let stray = format!("{store}\n    if (n == 0 && b == 0 && h == 0) scores[-2] = 0;");
    let folder = mutated("stray_scores", &[("scores.hip", store, &stray)]);
    let bench = Bench::new();
    let slices = diagnosed(&bench, &folder, &["scores"], &[]);
    let note = slices[0]["note"].as_str().expect("a note");
    assert_eq!(slices[0]["verdict"], "unexplained", "{slices:#?}");
    assert!(note.starts_with("saved for `stray-write`: the kernel wrote "), "{note}");
    assert!(note.contains("The values of its output are right"), "{note}");
}
