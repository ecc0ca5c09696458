//! The whole path of `--device hip` where there is no GPU: a library with HIP's functions that runs
//! kernels on the processor (`hip_on_host/hip_on_host.cpp` says which, and how it tells faults).

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::time::Duration;

use attnbench::bench::data::gauss;
use attnbench::device::gpu::{Api, GpuDevice};
use attnbench::device::{
    Arg, Device, Fault, Launch, Module, RunError, Source, Subject, Timed, Timing,
};
use attnbench::kernel::Registry;
use attnbench::problem::Case;
use serde_json::Value;

use super::super::bench::{Bench, Ran, cache, mutated};

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Builds the library of a source, with more flags.
fn build(name: &str, source: &str, flags: &[&str]) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&folder).expect("a folder");
    let library = folder.join("libamdhip64.so");
    let mut compiler = Command::new("c++");
    compiler.args(["-O2", "-Wall", "-Werror", "-shared", "-fPIC"]).args(flags);
    let source = root("props/gpu/hip_on_host").join(source);
    compiler.arg(source).arg("-o").arg(&library).arg("-ldl");
    let output = compiler.output().expect("a C++ compiler");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let _ = std::fs::remove_file(folder.join("libhiprtc.so"));
    std::os::unix::fs::symlink("libamdhip64.so", folder.join("libhiprtc.so")).expect("a link");
    folder
}

static LIBRARY: LazyLock<PathBuf> = LazyLock::new(|| build("hip-on-host", "hip_on_host.cpp", &[]));

/// The same with graphs.
static WITH_GRAPHS: LazyLock<PathBuf> =
    LazyLock::new(|| build("hip-with-graphs", "graphs.cpp", &[]));

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
    let old = build("hip-without-streams", "hip_on_host.cpp", &["-DWITHOUT_STREAMS"]);
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

/// A device of a library, with more variables.
fn device(library: &Path, more: &[(&str, &str)]) -> GpuDevice {
    let mut config = super::config();
    config.environment = environment(library).map(|(name, value)| (name.to_owned(), value)).into();
    config.environment.extend(more.iter().map(|(name, value)| ((*name).to_owned(), value.into())));
    GpuDevice::open(config, Api::Hip, 0).expect("a device")
}

/// `count` adds 1 to a word for each launch, and notes a word that stands beside it. `wild` faults.
const COUNT: &str = "#include <hip/hip_runtime.h>
extern \"C\" __global__ void count(unsigned *count, const unsigned *beside, unsigned *seen) {
    *count += 1;
    *seen = *beside;
}
extern \"C\" __global__ void wild(unsigned *count) { count[1ll << 40] = 1; }
";

/// Byte 0 counts; byte 4 is given, and seen in byte 8; 64 to 96 are filled.
struct Counting {
    device: GpuDevice,
    count: Module,
    fill: Module,
}

impl Counting {
    fn new(library: &Path, more: &[(&str, &str)]) -> Counting {
        let device = device(library, more);
        let bench = Bench::new();
        let source = |file: PathBuf, entries: &[&str]| Source {
            file,
            include_dirs: Vec::new(),
            defines: Vec::new(),
            entries: entries.iter().map(|entry| (*entry).to_owned()).collect(),
            wave: 64,
        };
        let own = source(bench.write("count.hip", COUNT), &["count", "wild"]);
        let helpers = Registry::new(cache()).and_then(|registry| registry.helpers());
        let fill = helpers.expect("the helpers").join("bench/fill.hip");
        let fill = source(fill, &["fill<float>"]);
        let [count, fill] = [own, fill].map(|source| device.compile(&source).expect("a module"));
        Counting { device, count, fill }
    }

    fn launch(&self, entry: usize, threads: u32) -> Launch {
        let args = [0, 4, 8].map(Arg::Address);
        Launch {
            module: self.count.clone(),
            entry,
            grid: [1, 1, 1],
            block: [threads, 1, 1],
            shared_bytes: 0,
            args: args[..if entry == 0 { 3 } else { 1 }].to_vec(),
        }
    }

    fn subject(&self, calls: u32, warm: u32, replays: u32, observed: bool) -> Subject {
        Subject { launches: vec![self.launch(0, 1)], calls, warm, replays, observed }
    }

    fn timing(&self, bytes: usize, sets: usize, subjects: Vec<Subject>) -> Timing {
        let fill = Launch {
            module: self.fill.clone(),
            entry: 0,
            args: vec![Arg::Address(64), Arg::Bits64(8), Arg::Bits64(3)],
            ..self.launch(0, 4)
        };
        let given = vec![(4, 0x1234_5678u32.to_le_bytes().to_vec())];
        Timing { bytes, sets, given, fill: vec![fill], subjects, outputs: vec![64..96, 0..12] }
    }

    fn time(&mut self, timing: &Timing) -> Result<Vec<Timed>, RunError> {
        self.device.time(timing, Duration::from_secs(20))
    }
}

/// How often each of the first and the last set has been called by then: memory is all ones at first.
fn counted(timed: &Timed) -> [u32; 2] {
    timed.left.each_ref().map(|left| {
        let word = |at: usize| u32::from_le_bytes(left[at..at + 4].try_into().expect("4 bytes"));
        assert_eq!(left.len(), 32 + 12);
        let filled = (0..8).map(|i| f32::from_bits(word(4 * i)));
        assert!(filled.eq((0..8).map(|i| gauss(3, i))), "{left:?}");
        assert_eq!((word(36), word(40)), (0x1234_5678, 0x1234_5678));
        word(32).wrapping_add(1)
    })
}

/// By the device's clock: each set is given its data and called once, of which the first's and the last's
/// outputs come back; then calls take the sets in turn, as launches or as the nodes of a graph.
#[test]
fn calls_take_the_sets_in_turn() {
    for (library, captured) in [(&*LIBRARY, false), (&*WITH_GRAPHS, true)] {
        let mut own = Counting::new(library, &[]);
        // Each with how often its replays call the first and the last of 3 sets.
        let subjects = [
            (own.subject(1, 1, 0, true), [0, 0]),
            // 4 replays of 4 calls: sets 0 1 2 0.
            (own.subject(4, 1, 3, false), [4 * 2, 4]),
            // 2 replays of 2 calls, and 2 more while it is looked at: sets 0 1.
            (own.subject(2, 0, 2, true), [4, 0]),
            // 6 of 6.
            (own.subject(6, 5, 1, false), [6 * 2, 6 * 2]),
            (own.subject(1, 0, 0, false), [0, 0]),
        ];
        let timing =
            own.timing(5000, 3, subjects.iter().map(|(subject, _)| subject.clone()).collect());
        let timed = own.time(&timing).expect("times");
        let mut want = [0, 0];
        assert_eq!(timed.len(), subjects.len());
        for (timed, (subject, calls)) in timed.iter().zip(&subjects) {
            // The first call of each set, and all replays of the subjects before.
            want = want.map(|count| count + 1);
            assert_eq!(counted(timed), want, "{subject:?}");
            want = [want[0] + calls[0], want[1] + calls[1]];
            assert_eq!(timed.micros.len(), subject.replays as usize);
            assert!(timed.micros.iter().all(|us| *us >= 0.0 && us.is_finite()), "{timed:?}");
            assert_eq!((timed.captured, &timed.observed), (captured && subject.replays > 0, &None));
        }
        // The memory is given back, and another time it is another's.
        let again = own.timing(5000, 1, vec![own.subject(3, 0, 1, false)]);
        assert_eq!(counted(&own.time(&again).expect("times")[0]), [1, 1]);
    }
}

/// More calls take longer, and their time is told a call.
#[test]
fn launches_are_timed_by_events() {
    let mut own = Counting::new(&WITH_GRAPHS, &[]);
    let mut long = own.subject(1, 1, 5, false);
    long.launches = vec![Launch {
        module: own.fill.clone(),
        args: vec![Arg::Address(4096), Arg::Bits64(1 << 18), Arg::Bits64(3)],
        ..own.launch(0, 1)
    }];
    let many = Subject { calls: 8, ..long.clone() };
    let short = own.subject(1, 1, 5, false);
    let timing = own.timing(2 << 20, 2, vec![short, long, many]);
    let timed = own.time(&timing).expect("times");
    let least = |i: usize| timed[i].micros.iter().copied().fold(f64::INFINITY, f64::min);
    let [short, long, many] = [0, 1, 2].map(least);
    assert!(long > 10.0 * short && long < 1e6, "{short} {long}");
    assert!(many < 4.0 * long && long < 4.0 * many, "{long} {many}: of a call, not of a replay");
}

/// What goes wrong while it is timed is told, and the next is timed all the same.
#[test]
fn faults_and_refusals_while_timing_are_told() {
    for library in [&*LIBRARY, &*WITH_GRAPHS] {
        let mut own = Counting::new(library, &[("MOCK_MEMORY", "600000000")]);
        let right = own.timing(4096, 2, vec![own.subject(2, 0, 1, false)]);
        // A pebibyte.
        let too_many = Timing { sets: 1 << 30, ..own.timing(1 << 20, 1, Vec::new()) };
        let mut wild = right.clone();
        wild.subjects[0].launches.push(own.launch(1, 1));
        for _ in 0..2 {
            match own.time(&wild) {
                Err(RunError::Fault(Fault::Crash { what, .. })) => {
                    let words =
                        "an illegal memory access was encountered (hipErrorIllegalAddress, 700)";
                    assert!(what.contains(words), "{what}");
                }
                other => panic!("{other:?}"),
            }
            own.time(&right).expect("times");
            match own.time(&too_many) {
                Err(RunError::Device(why)) => {
                    assert!(
                        why.contains("hipMalloc") && why.contains("hipErrorOutOfMemory, 2"),
                        "{why}"
                    );
                }
                other => panic!("{other:?}"),
            }
            own.time(&right).expect("times");
        }
    }
    // What was refused gives its memory back: the worker goes on, and would have less each time.
    let mut own = Counting::new(&WITH_GRAPHS, &[("MOCK_MEMORY", "600000000")]);
    let right = own.timing(50_000_000, 2, vec![own.subject(2, 0, 1, false)]);
    let mut refused = right.clone();
    refused.subjects[0].launches[0].block = [1000, 1, 1];
    for _ in 0..8 {
        match own.time(&refused) {
            Err(RunError::Refused(why)) => {
                assert!(
                    why.contains("asks for more than the GPU has") && why.contains("701"),
                    "{why}"
                );
            }
            other => panic!("{other:?}"),
        }
    }
    own.time(&right).expect("times");
}

/// The command on such a device: its clock, a graph, and no word that no figure is a GPU's.
#[test]
fn the_bench_has_the_devices_clock() {
    let shape = "b=2,hq=4,hkv=2,d=16,n=40,dt=f16/f16/f32";
    let bench = [
        "bench",
        "scores",
        "--device",
        "hip",
        "--shapes",
        shape,
        "--rounds",
        "2",
        "--replays",
        "3",
    ];
    // Without a last-level cache nothing is read alone: on the host that takes minutes.
    let more = [("MOCK_L2", "0")];
    let ran = run_with(&WITH_GRAPHS, &[&bench[..], &["--json", "-"]].concat(), &more).ends_with(0);
    let document = super::super::times::document(&ran);
    assert_eq!(document["method"]["clock"], "device");
    let device = &document["device"];
    assert_eq!((&device["name"], &device["api"]), (&"HIP on the host".into(), &"hip".into()));
    assert_eq!(
        (&device["multiprocessors"], &device["memory"]),
        (&104.into(), &(1u64 << 34).into())
    );
    let row = &document["rows"][0];
    assert_eq!((&row["verdict"], &row["graph"]), (&"right".into(), &true.into()), "{row:#}");
    assert_eq!(row["us"]["samples"], 6, "{row:#}");
    let text = run_with(&WITH_GRAPHS, &bench, &more).ends_with(0).stdout;
    assert!(!text.contains("no figure here is a GPU's") && text.ends_with("\n1 timed\n"), "{text}");
    let one_too_few = edited("scores_one_too_few", &format!("if (n + 1 < end) {STORE}"));
    let wrong = [&["bench", &one_too_few], &bench[2..], &["--json", "-"]].concat();
    let document =
        super::super::times::document(&run_with(&WITH_GRAPHS, &wrong, &more).ends_with(1));
    let why = document["rows"][0]["why"].as_str().expect("a reason");
    assert!(why.starts_with("scores at sequence 0, head 0, key 39 is NaN"), "{why}");
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
