//! The whole path of `--device hip` where there is no GPU: a library with HIP's functions that runs
//! kernels on the processor (`hip_on_host/hip_on_host.cpp` says which, and how it tells faults).

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use attnbench::device::Device;
use attnbench::device::gpu::{Api, GpuDevice};
use attnbench::judge::trial::Trial;
use attnbench::kernel::Registry;
use attnbench::problem::Case;
use serde_json::Value;

use super::super::bench::{Bench, Ran, cache, mutated};

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Builds the library, with more flags.
fn build(name: &str, flags: &[&str]) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&folder).expect("a folder");
    let library = folder.join("libamdhip64.so");
    let mut compiler = Command::new("c++");
    compiler.args(["-O2", "-Wall", "-Werror", "-shared", "-fPIC"]).args(flags);
    compiler.arg(root("props/gpu/hip_on_host/hip_on_host.cpp")).arg("-o").arg(&library).arg("-ldl");
    let output = compiler.output().expect("a C++ compiler");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let _ = std::fs::remove_file(folder.join("libhiprtc.so"));
    std::os::unix::fs::symlink("libamdhip64.so", folder.join("libhiprtc.so")).expect("a link");
    folder
}

static LIBRARY: LazyLock<PathBuf> = LazyLock::new(|| build("hip-on-host", &[]));

/// The last line of `scores.hip`.
const STORE: &str = "scores[b * scores_stride_s + h * scores_stride_h + n] = score;";

/// What makes HIP be this library.
fn environment(library: &Path) -> [(&'static str, OsString); 3] {
    let include = root("src/device/cpu/include");
    [("HIP_PATH", library.into()), ("ROCM_PATH", "".into()), ("MOCK_INCLUDE", include.into())]
}

/// Runs the program with the library, and more variables.
fn run_with(library: &Path, args: &[&str], more: &[(&str, &str)]) -> Ran {
    let own = environment(library);
    let mut variables: Vec<(&str, &OsStr)> =
        own.iter().map(|(name, value)| (*name, value.as_os_str())).collect();
    variables.extend(more.iter().map(|&(name, value)| (name, OsStr::new(value))));
    Bench::new().run_with(args, &variables)
}

fn run(args: &[&str]) -> Ran {
    run_with(&LIBRARY, args, &[])
}

/// `scores` with an edit of its last line.
fn edited(name: &str, line: &str) -> String {
    let folder = mutated(name, &[("scores.hip", STORE, line)]);
    folder.join("scores.toml").to_str().expect("a plain path").to_owned()
}

/// The failures of the first kernel, and the ids of all failing cases of the first of them.
fn failing(document: &Value) -> (&Value, Vec<Case>) {
    let failure = &document["kernels"][0]["failures"][0];
    let others = failure["others"].as_array().into_iter().flatten();
    let ids = others.chain([&failure["original"], &failure["id"]]);
    let case = |id: &Value| id.as_str().expect("an id").parse().expect("a case");
    (failure, ids.map(case).collect())
}

#[test]
fn kernels_are_swept_as_on_the_cpu() {
    let sweep = ["sweep", "scores", "append", "--cases", "150", "-j", "12", "--json", "-"];
    let hip = run(&[&sweep[..], &["--device", "hip"]].concat()).ends_with(0).document();
    let cpu = ["--device", "cpu", "--wave", "64"];
    let cpu = run(&[&sweep[..], &cpu].concat()).ends_with(0).document();
    assert!(
        hip["device"].as_str().expect("a device").starts_with("hip:0 (HIP on the host, gfx90a")
    );
    for kernel in 0..2 {
        let (hip, cpu) = (&hip["kernels"][kernel], &cpu["kernels"][kernel]);
        for key in ["name", "verdict", "cases", "passed", "vacuous", "skipped", "by_wave", "drawn"]
        {
            assert_eq!(hip[key], cpu[key], "{key}");
        }
        // The same arithmetic in the same order, by the same compiler.
        assert!(hip["worst_ratio"].as_f64().expect("a ratio") < 1.0);
    }
}

/// More bytes than a small arena has, and more than are run side by side.
#[test]
fn large_cases_run_in_large_arenas() {
    for n in [3000, 20_000] {
        let case = format!("stage=scores,b=2,hq=8,hkv=4,d=64,n={n},wave=64");
        run(&["sweep", "scores", "--device", "hip", "--case", &case]).ends_with(0);
    }
}

/// A fault takes every lane's run with it; it is told of the case whose it is.
#[test]
fn a_crash_is_told_of_its_own_cases() {
    let kernel = edited(
        "wild_scores",
        "scores[(h == 1 ? 1ll << 40 : b * scores_stride_s + h * scores_stride_h) + n] = score;",
    );
    let sweep = ["sweep", &kernel, "--cases", "100", "--seed", "3", "--json", "-", "-j", "8"];
    let cpu = run(&[&sweep[..], &["--device", "cpu", "--wave", "64"]].concat());
    let cpu = cpu.ends_with(1).document();
    for (more, words) in [
        (
            &[][..],
            "an illegal memory access was encountered (hipErrorIllegalAddress, 700) in score_keys",
        ),
        (&[("MOCK_ABORT", "1")], "Memory access fault by GPU node-1 on address 0x1"),
    ] {
        let sweep = [&sweep[..], &["--device", "hip"]].concat();
        let hip = run_with(&LIBRARY, &sweep, more).ends_with(1).document();
        let (failure, cases) = failing(&hip);
        assert_eq!(failure["property"], "crash", "{failure:#}");
        assert!(cases.iter().all(|case| case.num_heads > 1), "{failure:#}");
        assert_eq!(hip["kernels"][0]["failed"], cpu["kernels"][0]["failed"], "{failure:#}");
        assert_eq!(hip["kernels"][0]["passed"], cpu["kernels"][0]["passed"], "{failure:#}");
        let what = failure["detail"].as_str().unwrap_or_default();
        assert!(what.contains(words), "{failure:#}");
    }
}

#[test]
fn an_endless_kernel_is_ended_and_the_others_are_judged() {
    let kernel = edited(
        "endless_scores",
        "while (end == 65 && *(volatile const int *)&seq_lens[b] == 65) {}\n    \
         scores[b * scores_stride_s + h * scores_stride_h + n] = score;",
    );
    let sweep = ["sweep", &kernel, "append", "--device", "hip", "--cases", "64", "--json", "-"];
    let more = ["--time-limit", "500ms", "--seq-len", "60..70"];
    let hip = run(&[&sweep[..], &more].concat()).ends_with(1).document();
    let (failure, cases) = failing(&hip);
    assert_eq!(failure["property"], "timeout", "{failure:#}");
    assert!(cases.iter().all(|case| case.seq_lens.contains(&65)), "{failure:#}");
    assert!(hip["kernels"][0]["passed"].as_u64() > Some(0), "{hip:#}");
    assert_eq!(hip["kernels"][1]["verdict"], "pass", "{hip:#}");
}

/// The device itself looks for what changed besides the outputs.
#[test]
fn a_stray_write_is_found_where_it_is() {
    for (name, write, words) in [
        ("writes_q", "((Q *)q)[0] = (Q)0;", "wrote q"),
        ("writes_before", "if (n == 0 && b == 0 && h == 0) scores[-2] = 0;", "scores"),
    ] {
        let kernel = edited(name, &format!("{STORE}\n    {write}"));
        let sweep = ["sweep", &kernel, "--device", "hip", "--cases", "64", "--json", "-"];
        let hip = run(&sweep).ends_with(1).document();
        let (failure, _) = failing(&hip);
        assert_eq!(failure["property"], "stray-write", "{failure:#}");
        let what = failure["detail"].as_str().unwrap_or_default();
        assert!(what.contains(words), "{failure:#}");
    }
}

#[test]
fn what_is_missing_is_said() {
    let sweep = |device: &str, more: &[(&str, &str)]| {
        let sweep = ["sweep", "scores", "--device", device, "--cases", "64"];
        run_with(&LIBRARY, &sweep, more).ends_with(2).stderr
    };
    let none = sweep("hip", &[("MOCK_DEVICES", "0"), ("HIP_VISIBLE_DEVICES", "7")]);
    let words = "HIP_VISIBLE_DEVICES=7";
    assert!(none.contains("hipErrorNoDevice, 100") && none.contains(words), "{none}");
    let beyond = sweep("hip:3", &[("MOCK_DEVICES", "2")]);
    assert!(beyond.contains("there is no device 3: 2 visible, counted from 0"), "{beyond}");
    let wave = run(&["sweep", "scores", "--device", "hip", "--wave", "32"]).ends_with(2).stderr;
    assert!(wave.contains("has waves of 64; leave it out"), "{wave}");
    let old = build("hip-without-streams", &["-DWITHOUT_STREAMS"]);
    let sweep = ["sweep", "scores", "--device", "hip"];
    let old = run_with(&old, &sweep, &[]).ends_with(2).stderr;
    let words = "libamdhip64.so has no hipStreamCreateWithFlags: ROCm 5 or newer is needed";
    assert!(old.contains(words), "{old}");
}

/// What is written far behind a small case is no memory of a larger one.
#[test]
fn what_overruns_a_small_case_faults() {
    let kernel = edited("far_overrun", &format!("{STORE}\n    if (n == 0) scores[1 << 20] = 7;"));
    let case = "stage=scores,b=1,hq=2,hkv=1,d=8,n=40,wave=64";
    let document = run(&["sweep", &kernel, "--device", "hip", "--case", case, "--json", "-"]);
    let document = document.ends_with(1).document();
    assert_eq!(failing(&document).0["property"], "crash", "{document:#}");
}

/// `scores` that does something in one run and never again.
fn once(name: &str, what: &str) -> String {
    let mark = Bench::new().dir().join("once");
    std::fs::create_dir_all(mark.parent().expect("a folder")).expect("a folder");
    let once = format!(
        "static bool done; if (!done && n == 0 && end > 60) {{ done = true; \
         if (int f = open(\"{}\", O_CREAT | O_EXCL, 0600); f >= 0) {{ close(f); {what} }} }}\n    {STORE}",
        mark.display()
    );
    let include = (
        "scores.hip",
        "#include \"portable.h\"",
        "#include \"portable.h\"\n#include <fcntl.h>\n#include <unistd.h>",
    );
    let folder = mutated(name, &[include, ("scores.hip", STORE, &once)]);
    folder.join("scores.toml").to_str().expect("a plain path").to_owned()
}

/// A fault that does not come back is not forgotten.
#[test]
fn a_fault_that_comes_once_is_told() {
    let kernel = once("faults_once", "scores += 1ll << 40;");
    let sweep = ["sweep", &kernel, "--device", "hip", "--cases", "64", "-j", "4", "--json", "-"];
    let document = run(&sweep).ends_with(1).document();
    let (failure, _) = failing(&document);
    assert_eq!(failure["property"], "crash", "{failure:#}");
    let detail = failure["detail"].as_str().unwrap_or_default();
    assert!(
        detail.contains("the fault comes and goes") || detail.contains("its runs ended"),
        "{detail}"
    );
    assert_eq!(document["kernels"][0]["failed"], 1, "{failure:#}");
}

/// A run that is late beside others need not be the kernel's fault; but it is told.
#[test]
fn a_run_that_is_late_once_is_counted() {
    let kernel = once("late_once", "pause();");
    let sweep = ["sweep", &kernel, "--device", "hip", "--cases", "100", "-j", "4"];
    let more = ["--time-limit", "4s", "--json", "-"];
    let document = run(&[&sweep[..], &more].concat()).ends_with(0).document();
    let kernel = &document["kernels"][0];
    assert_eq!(kernel["late"], 1, "{kernel:#}");
    assert_eq!((&kernel["failed"], &kernel["cases"]), (&0.into(), &100.into()), "{kernel:#}");
}

/// A kernel is timed by the device's own clock, here by launches, as this library captures no graph.
#[test]
fn launches_are_timed() {
    let mut config = super::config();
    config.environment = environment(&LIBRARY).map(|(name, value)| (name.to_owned(), value)).into();
    let device = GpuDevice::open(config, Api::Hip, 0).expect("a device");
    assert_eq!(device.waves(), [64]);
    let registry = Registry::new(cache()).expect("a cache");
    let manifest = Arc::new(registry.find("scores").expect("a kernel"));
    let limit = Duration::from_secs(20);
    let mut trial = Trial::new(manifest, Arc::default(), Box::new(device), limit);
    let time = |trial: &mut Trial, n: usize| {
        let case = format!("stage=scores,b=1,hq=2,hkv=1,d=64,n={n},p.threads=64,wave=64");
        trial.timed(&case.parse().expect("a case"), 5).expect("a time")
    };
    let (short, long) = (time(&mut trial, 64), time(&mut trial, 6400));
    assert!(long > 10 * short && short > Duration::ZERO, "{short:?} {long:?}");
}

/// A kernel that a GPU cannot launch is refused with the limit.
#[test]
fn a_launch_beyond_the_limits_is_refused() {
    let manifest = std::fs::read_to_string(root("kernels/scores.toml")).expect("a manifest");
    let grid = manifest.lines().find(|line| line.starts_with("block")).expect("a block");
    let folder = mutated("large_blocks", &[("scores.toml", grid, "block = [2048, 1, 1]")]);
    let kernel = folder.join("scores.toml");
    let kernel = kernel.to_str().expect("a plain path");
    let ran = run(&["sweep", kernel, "--device", "hip", "--cases", "64"]).ends_with(2);
    assert!(ran.stderr.contains("at most 1024 run"), "{}", ran.stderr);
}
