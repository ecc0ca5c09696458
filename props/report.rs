//! `--report` and `--junit` through the command line: what is written, and what cannot be.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::bench::{Bench, document, one_key_too_few};

fn golden(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(path)
}

/// The page and the document of a report's folder; the page loads nothing.
fn report(bench: &Bench, folder: &str) -> (String, Value) {
    let read = |name: &str| fs::read_to_string(bench.dir().join(folder).join(name)).expect(name);
    let page = read("index.html");
    assert!(page.starts_with("<!DOCTYPE html>") && page.ends_with("</html>"), "{page}");
    for never in ["<script", "src=\"http", "href=\"http", "@import"] {
        assert!(!page.contains(never), "{never} in the page");
    }
    (page, serde_json::from_str(&read("result.json")).expect("a document"))
}

fn has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no `{part}` in {text}");
    }
}

/// A text as it stands in a page or in XML.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[test]
fn a_sweep_that_finds_a_fault_leaves_a_report_and_junit() {
    let bench = Bench::new();
    let kernel = one_key_too_few();
    let sweep = ["sweep", kernel.to_str().expect("a plain path"), "scores", "--cases", "100"];
    let to = ["--report", "new/folder", "--junit", "junit.xml", "--json", "-"];
    let ran = bench.run([&sweep[..], &to].concat()).ends_with(1);
    let (page, result) = report(&bench, "new/folder");
    assert_eq!(result, ran.document());
    document(&fs::read_to_string(bench.dir().join("new/folder/result.json")).expect("read"));
    has(&page, &["FAIL", "decode_online", "scores", "What is wrong"]);
    let junit = fs::read_to_string(bench.dir().join("junit.xml")).expect("read");
    has(
        &junit,
        &["<testsuites", "name=\"decode_online\"", "name=\"scores\"", "type=\"oracle\">case"],
    );
    let kernels = result["kernels"].as_array().expect("kernels");
    assert_eq!(
        (kernels[0]["verdict"].as_str(), kernels[1]["verdict"].as_str()),
        (Some("fail"), Some("pass"))
    );
    for failure in kernels[0]["failures"].as_array().expect("failures") {
        for key in ["id", "replay"] {
            let text = escaped(failure[key].as_str().expect("a text"));
            has(&page, &[&text]);
            has(&junit, &[&text]);
        }
    }
    // Again into the same folder: what lies there is replaced.
    bench.run(["sweep", "scores", "--cases", "100", "--report", "new/folder"]).ends_with(0);
    let (page, _) = report(&bench, "new/folder");
    has(&page, &["scores passes: 100 cases judged, none failed."]);
}

#[test]
fn a_kernel_that_does_not_compile_is_an_error_in_junit() {
    let bench = Bench::new();
    let source = fs::read_to_string(super::bench::manifest("scores.toml")).expect("a manifest");
    let manifest = bench.write("scores.toml", source);
    bench.write("scores.hip", "this is no source");
    let kernel = manifest.to_str().expect("a plain path");
    let to = ["--report", "report", "--junit", "junit.xml"];
    bench.run([&["sweep", kernel, "--cases", "5"][..], &to].concat()).ends_with(2);
    let junit = fs::read_to_string(bench.dir().join("junit.xml")).expect("read");
    has(&junit, &["errors=\"1\"", "type=\"error\">"]);
    let (page, result) = report(&bench, "report");
    has(&page, &["The kernel could not be judged: scores."]);
    assert!(result["kernels"][0]["error"].is_string(), "{result:#}");
}

#[test]
fn diagnose_and_trace_leave_reports() {
    let bench = Bench::new();
    let slices = golden("slices");
    bench
        .run([Path::new("diagnose"), &slices, Path::new("--report"), Path::new("clean")])
        .ends_with(0);
    let (page, result) = report(&bench, "clean");
    has(&page, &["NO FAULT", "8 slices: 8 clean.", "p_long_decode0_L29_f16"]);
    assert_eq!(result["slices"].as_array().map(Vec::len), Some(8));

    let story = golden("story/wrong_layer.safetensors");
    bench
        .run([Path::new("diagnose"), &story, Path::new("--report"), Path::new("story")])
        .ends_with(1);
    let (page, _) = report(&bench, "story");
    has(
        &page,
        &[
            "EXPLAINED",
            "layer_slice {read: 0}",
            "K and V of another layer were read",
            "base pointers",
        ],
    );

    let (a, b) = (golden("traces/b3_24.jsonl"), golden("traces/b3_25.jsonl"));
    let json = [Path::new("--json"), Path::new("-"), Path::new("--report"), Path::new("trace")];
    let ran = bench.run([&[Path::new("trace"), &a, &b][..], &json].concat()).ends_with(1);
    let (page, result) = report(&bench, "trace");
    assert_eq!(result, serde_json::from_str::<Value>(&ran.stdout).expect("a document"));
    has(
        &page,
        &[
            "FAULT",
            "p4_sys layer 29 head 0",
            "one of the two kernels was wrong, that of b3_24.jsonl",
        ],
    );
    has(&page, &[&escaped(result["command"].as_str().expect("a command"))]);
}

#[test]
fn a_stored_bench_is_shown_again() {
    let bench = Bench::new();
    let stored =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("plots/results/2026-11-26-h100/bench.json");
    let from =
        [Path::new("bench"), Path::new("--from"), &stored, Path::new("--report"), Path::new("r")];
    bench.run(from).ends_with(0);
    let (page, result) = report(&bench, "r");
    has(&page, &["TIMED", "NVIDIA H100 80GB HBM3", "Beside others"]);
    assert_eq!(result["format"], "attnbench-bench/1");
}

#[test]
fn what_cannot_be_written_is_said_before_any_work() {
    let bench = Bench::new();
    bench.write("file", "a file");
    fs::create_dir_all(bench.dir().join("taken/index.html")).expect("folders");
    let slice = golden("story/wrong_layer.safetensors");
    let trace = golden("traces/b3_24.jsonl");
    let commands: [&[&Path]; 4] = [
        &[Path::new("sweep"), Path::new("scores")],
        &[Path::new("diagnose"), &slice],
        &[Path::new("trace"), &trace],
        &[Path::new("bench"), Path::new("decode_naive")],
    ];
    for command in commands {
        let refuses = |folder: &str, words: &[&str]| {
            let to = [Path::new("--report"), Path::new(folder)];
            let ran = bench.run([command, &to].concat());
            assert_eq!(ran.stdout, "", "{command:?} {folder}");
            ran.refuses(words);
        };
        refuses("file", &["--report file", "cannot be made", "name one that can be"]);
        refuses("file/below", &["--report file/below", "cannot be made"]);
        refuses("taken", &["--report taken", "index.html is a folder there"]);
    }
    let refuses = |args: &[&str], words: &[&str]| bench.run(args).refuses(words);
    refuses(&["sweep", "scores", "--junit", "-"], &["--junit -", "name a file"]);
    refuses(
        &["sweep", "scores", "--junit", "none/x.xml"],
        &["--junit none/x.xml", "no folder none"],
    );
    refuses(&["sweep", "scores", "--junit", "taken"], &["--junit taken", "that is a folder"]);
    let explain =
        ["sweep", "decode_online", "--case", "hq=1,hkv=1,d=4,n=9", "--explain-bound", "0,0,0"];
    refuses(
        &[&explain[..], &["--report", "r"]].concat(),
        &["--explain-bound", "leave out --report"],
    );
}

/// A browser without a window, if there is one.
fn browser() -> Option<&'static str> {
    let found = |name: &&str| {
        Command::new(name).arg("--version").output().is_ok_and(|o| o.status.success())
    };
    let browser = ["chromium", "chromium-browser", "google-chrome"].into_iter().find(found);
    if browser.is_none() {
        println!("skipped: neither chromium nor google-chrome is here");
    }
    browser
}

#[test]
fn a_browser_shows_the_report_without_a_word_on_its_console() {
    let Some(browser) = browser() else { return };
    let bench = Bench::new();
    // A file's name is somebody else's text.
    let hostile = "<img src=x onerror=alert(1)>&amp;.safetensors";
    fs::copy(golden("story/wrong_layer.safetensors"), bench.dir().join(hostile)).expect("copied");
    bench.run(["diagnose", hostile, "--report", "report"]).ends_with(1);
    let profile = bench.dir().join("profile");
    let shows = |width: u32, task: &str| {
        let ran = Command::new(browser)
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--no-first-run",
            ])
            .args([
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
            ])
            .args(["--enable-logging=stderr", "--hide-scrollbars"])
            .arg(format!("--window-size={width},2000"))
            .arg(format!("--user-data-dir={}", profile.display()))
            .arg(task)
            .arg(format!("file://{}", bench.dir().join("report/index.html").display()))
            .output()
            .expect("a browser that runs");
        let said = String::from_utf8_lossy(&ran.stderr).into_owned();
        assert!(ran.status.success(), "{said}");
        let console: Vec<&str> = said.lines().filter(|line| line.contains("CONSOLE")).collect();
        assert!(console.is_empty(), "{console:?}");
        String::from_utf8_lossy(&ran.stdout).into_owned()
    };
    for width in [400, 1400] {
        let dom = shows(width, "--dump-dom");
        has(&dom, &["EXPLAINED", "layer_slice {read: 0}", "base pointers", "<svg", "</html>"]);
        has(&dom, &["&lt;img src=x onerror=alert(1)&gt;&amp;amp;"]);
        assert!(!dom.contains("<img"), "a file's name became an element");
        let picture = bench.dir().join(format!("{width}.png"));
        shows(width, &format!("--screenshot={}", picture.display()));
        let picture = fs::read(picture).expect("a picture");
        assert!(picture.len() > 20_000, "{} bytes at {width} pixels", picture.len());
    }
}
