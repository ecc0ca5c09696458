//! Wrong files, kernels and machines: one clear message, no crash, and nothing else is lost.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::bench::{Bench, mutated, said_once};

/// A case that every kernel here supports, and that fails where a kernel is wrong at all.
const CASE: &str = "b=2,hq=4,hkv=2,d=40,n=[50,33],dt=f32,p.threads=32,wave=32,data=gauss,seed=1";

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/slices/p5_ba_decode0_L00_f32.safetensors")
}

/// The bytes of a safetensors file with another header.
fn with_header(change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let bytes = fs::read(golden()).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    change(&mut header);
    let mut text = serde_json::to_vec(&header).unwrap();
    text.resize(text.len().next_multiple_of(8), b' ');
    let mut file = (text.len() as u64).to_le_bytes().to_vec();
    file.extend(text);
    file.extend(&bytes[8 + length..]);
    file
}

fn with_metadata(key: &str, value: &str) -> Vec<u8> {
    with_header(|header| header["__metadata__"][key] = value.into())
}

/// A slice is refused by `replay` and by `sweep --slices`, by the name of its file.
fn refused_slice(bytes: &[u8], words: &[&str]) {
    let bench = Bench::new();
    bench.write("slices/bad.safetensors", bytes);
    let words: Vec<&str> = words.iter().copied().chain(["slices/bad.safetensors: "]).collect();
    bench.run(["replay", "slices/bad.safetensors", "--kernel", "decode_online"]).refuses(&words);
    let sweep = bench.run(["sweep", "--slices", "slices", "--json", "-"]);
    assert_eq!(sweep.stdout, "");
    sweep.refuses(&words);
}

#[test]
fn slices_cut_short_are_refused_at_every_length() {
    let bytes = fs::read(golden()).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    for length in [0, 1, 7] {
        refused_slice(&bytes[..length], &["safetensors"]);
    }
    for length in [8, 8 + header / 2, 8 + header, 8 + header + 1, bytes.len() - 1] {
        refused_slice(&bytes[..length], &["truncated", "copy or capture it again"]);
    }
    refused_slice(&[&bytes[..], b"more"].concat(), &["4 bytes follow the last tensor"]);
}

#[test]
fn slices_that_are_mislabelled_are_refused() {
    refused_slice(b"not a slice, but long enough to be one", &["not a safetensors file"]);
    refused_slice(&with_metadata("format", "kv-slice/9"), &["kv-slice/9", "reads kv-slice/1"]);
    refused_slice(&with_metadata("format", "notes"), &["notes", "not a slice"]);
    refused_slice(&with_metadata("num_heads", "many"), &["`num_heads` is `many`", "write"]);
    refused_slice(&with_metadata("scale", "nan"), &["`scale`", "finite"]);
    refused_slice(&with_metadata("k_layout", "HNX"), &["`k_layout`", "HNX"]);
    let without = with_header(|h| drop(h["__metadata__"].as_object_mut().unwrap().remove("scale")));
    refused_slice(&without, &["`scale` is missing"]);
    let nameless = with_header(|h| drop(h.as_object_mut().unwrap().remove("__metadata__")));
    refused_slice(&nameless, &["__metadata__"]);
    refused_slice(&with_header(|h| h["k"]["dtype"] = "Q8".into()), &["Q8"]);
}

#[test]
fn slices_that_contradict_themselves_are_refused() {
    refused_slice(&with_metadata("seq_len", "100000"), &["`seq_len` is 100000", "`capacity`"]);
    refused_slice(&with_metadata("num_kv_heads", "2"), &["num_kv_heads"]);
    refused_slice(&with_metadata("num_kv_heads", "0"), &["num_kv_heads", "at least 1"]);
    refused_slice(&with_metadata("head_dim", "63"), &["shape"]);
    refused_slice(&with_metadata("num_heads", "18446744073709551615"), &["num_heads"]);
    refused_slice(&with_metadata("k_strides", "[1, 2]"), &["k"]);
    let reshaped = with_header(|h| {
        let shape = h["v"]["shape"].as_array_mut().unwrap();
        shape.reverse();
    });
    refused_slice(&reshaped, &["`v`"]);
}

#[test]
fn a_saved_case_with_a_wrong_id_is_refused() {
    let bench = Bench::new();
    bench.write("bad.safetensors", with_metadata("case", "b=1,hq=none"));
    let replay = ["replay", "bad.safetensors", "--kernel", "decode_online"];
    bench.run(replay).refuses(&["bad.safetensors: ", "hq"]);
    // One that the tensors do not fit.
    bench.write("bad.safetensors", with_metadata("case", CASE));
    bench.run(replay).refuses(&["bad.safetensors: its `case` is b=2,hq=4", "tensors are"]);
    bench.write("bad.safetensors", with_metadata("kernel", "decode_nave"));
    bench.run(&replay[..2]).refuses(&["decode_nave", "did you mean `decode_naive`"]);
}

#[test]
fn an_impossible_case_is_refused() {
    let refuses = |id: &str, words: &[&str]| {
        Bench::new().run(["sweep", "decode_online", "--case", id]).refuses(words);
    };
    refuses("", &["case id"]);
    refuses("b=1", &["case id"]);
    refuses("hq=5,hkv=2,d=8,n=4", &["5", "2"]);
    refuses("hq=1,hkv=1,d=8,n=4,wave=48", &["48"]);
    refuses("hq=1,hkv=1,d=8,n=4,colour=red", &["colour"]);
    refuses("hq=1,hkv=1,d=8,n=4,data=loud", &["loud", "gauss"]);
    refuses("hq=1,hkv=1,d=300,n=4", &["head_dim = 300", "1 to 256"]);
    refuses("hq=1,hkv=1,d=8,n=4,p.threads=7", &["parameter threads"]);
    refuses("hq=1,hkv=1,d=8,n=4,data=slice:none", &["none"]);
    refuses("hq=1,hkv=1,d=8,n=99999999999999999999", &["99999999999999999999"]);
}

/// A kernel with one edit, in a folder that stays the same; the manifest's path.
fn edited(name: &str, file: &str, from: &str, to: &str) -> String {
    let folder = mutated(name, &[(file, from, to)]);
    folder.join("decode_online.toml").to_str().expect("a plain path").to_owned()
}

#[test]
fn manifests_with_a_mistake_are_refused_by_line() {
    let refuses = |name: &str, from: &str, to: &str, words: &[&str]| {
        let manifest = edited(name, "decode_online.toml", from, to);
        let ran = Bench::new().run(["sweep", &manifest, "--case", CASE, "--json", "-"]);
        assert_eq!(ran.stdout, "");
        ran.refuses(words);
    };
    let here = |line: &str| format!("decode_online.toml:{line}: ");
    let stage = "stage = \"decode\"";
    refuses(
        "typo",
        stage,
        "stagee = \"decode\"",
        &["`stagee`", "did you mean `stage`", &here("5")],
    );
    refuses("stage", stage, "stage = \"decoder\"", &["`decoder`", "`decode`?"]);
    refuses(
        "support",
        "softcap = true",
        "softcaps = true",
        &["softcaps`", "did you mean `softcap`"],
    );
    refuses("toml", stage, "stage = \"decode", &["not TOML", "decode_online.toml"]);
    refuses(
        "source",
        "\"decode_online.hip\"",
        "\"none.hip\"",
        &["`source`", "none.hip", &here("4")],
    );
    refuses("variable", "\"i32:group\"", "\"i32:groups\"", &["`groups`", "did you mean `group`"]);
    let grid = "\"num_heads\", \"batch\", 1";
    let divides = "\"num_heads / (batch - batch)\", \"batch\", 1";
    refuses("zero", grid, divides, &["divides by zero", "grid[0]", "num_heads = 4"]);
    refuses(
        "huge",
        grid,
        "\"num_heads\", \"batch * 100000000000\", 1",
        &["grid[1]", "200000000000"],
    );
    refuses("fewer", "\"i32:group\", ", "", &["25 parameters", "24 arguments"]);
    refuses("types", "\"f32:scale\"", "\"i32:capacity\"", &["argument 12", "4-byte float"]);
    refuses(
        "entry",
        "entry = \"decode_online<",
        "entry = \"decode_onlin<",
        &["`decode_onlin<", "not declared"],
    );
    refuses(
        "block",
        "block = [\"threads\", 1, 1]",
        "block = [\"threads\", 64, 1]",
        &["32 x 64 x 1", "at most 1024"],
    );
}

#[test]
fn a_kernel_that_does_not_compile_is_told_by_its_own_line_and_the_other_is_judged() {
    let broken = edited("broken", "decode_online.hip", "float dot = 0.0f;", "float dot = 0.0f");
    let source = Path::new(&broken).with_file_name("decode_online.hip");
    let text = fs::read_to_string(&source).unwrap();
    let line = text.lines().position(|l| l.contains("float dot = 0.0f")).unwrap() + 2;
    let place = format!("{}:{line}:", source.display());

    let bench = Bench::new();
    let alone = bench.run(["sweep", &broken, "--cases", "20", "--json", "-"]);
    assert_eq!(alone.stdout, "");
    alone.refuses(&["does not compile", &place, "error: expected"]);

    let both = ["sweep", &broken, "decode_naive", "--cases", "100"];
    let in_words = bench.run(both).ends_with(2);
    assert!(in_words.stdout.contains("decode_naive drew"), "{}", in_words.stdout);
    assert!(in_words.stdout.contains("decode_online: not judged"), "{}", in_words.stdout);
    let in_json = bench.run(both.iter().chain(&["--json", "-"])).ends_with(2);
    let document = in_json.document();
    let verdicts: Vec<_> = (0..2).map(|i| &document["kernels"][i]["verdict"]).collect();
    assert_eq!(verdicts, ["incomplete", "pass"]);
    assert!(document["kernels"][0]["error"].as_str().unwrap().contains(&place));
    in_json.refuses(&["does not compile", &place]);
}

/// Judges [`CASE`] with an edited kernel that must fail by `property`, and whose message has words.
fn fails(name: &str, from: &str, to: &str, property: &str, words: &[&str]) {
    let kernel = edited(name, "decode_online.hip", from, to);
    let bench = Bench::new();
    let judge = ["sweep", &kernel, "--case", CASE, "--time-limit", "500ms"];
    let ran = bench.run(judge.iter().chain(&["--json", "-"])).ends_with(1);
    assert_eq!(ran.stderr, "");
    let failure = &ran.document()["kernels"][0]["failures"][0];
    assert_eq!(failure["property"], property, "{failure:#}");
    let detail = failure["detail"].as_str().unwrap();
    for word in words {
        assert!(detail.contains(word), "no `{word}` in: {detail}");
    }
    said_once(detail);
    // Even without an output, what was saved runs again.
    let saved = failure["saved"].as_str().unwrap();
    let again = bench.run(["replay", saved, "--time-limit", "500ms"]).ends_with(1);
    assert!(again.stdout.contains(&format!("FAIL: {property}")), "{}", again.stdout);
}

#[test]
fn kernels_that_crash_hang_or_write_elsewhere_are_at_fault_themselves() {
    let start = "    const int h = blockIdx.x,";
    let out = "out += b * out_stride_s + h * out_stride_h;";
    fails("null", out, "out = nullptr;", "crash", &["crashed", "SIGSEGV", "block ("]);
    let wild = &format!("out += (1ll << 40); {out}");
    fails("wild", out, wild, "crash", &["crashed", "block ("]);
    let before = &format!("out[-1] = out[0]; {out}");
    fails("before", out, before, "stray-write", &["the kernel wrote", "out"]);
    let k = "const_cast<KV *>(k)[0] = k[1];";
    fails("k", out, &format!("{out} {k}"), "stray-write", &["the kernel wrote", "k"]);
    fails("loop", "first += tile)", "first += 0)", "timeout", &["500ms", "--time-limit"]);
    let zero = format!("    if (blockIdx.x == 1) abort();\n{start}");
    fails("trap", start, &zero, "trap", &["stopped itself", "block ("]);
    let barrier = "__syncthreads();  // every thread reads";
    let hang = format!("if (thread >= 7) break; {barrier}");
    fails("hang", barrier, &hang, "deadlock", &["hangs", "thread ("]);
    let past = "shared[2 * head_dim + 4 * threads + 32 + thread] = 1.0f;";
    fails("shared", out, &format!("{out} {past}"), "shared-overrun", &["past its"]);
}

/// A sweep with another environment, which must be refused.
fn refused_machine(variables: &[(&str, &OsStr)], words: &[&str]) {
    let bench = Bench::new();
    for args in [&["sweep", "--cases", "5", "--json", "-"][..], &["sweep", "decode_naive"]] {
        bench.run_with(args, variables).refuses(words);
    }
}

#[test]
fn without_a_compiler_it_says_what_to_install() {
    let named = [("ATTNBENCH_CXX", OsStr::new("/nonexistent/c++"))];
    refused_machine(&named, &["/nonexistent/c++", "apt install g++", "ATTNBENCH_CXX"]);
    let no_path = [("PATH", "/nonexistent"), ("CXX", ""), ("ATTNBENCH_CXX", "")];
    let no_path = no_path.map(|(name, value)| (name, OsStr::new(value)));
    refused_machine(&no_path, &["needs a C++ compiler and found none", "apt install g++"]);
    let other = [("ATTNBENCH_CXX", OsStr::new("false"))];
    refused_machine(&other, &["`false` does not work"]);

    // The list says so too, and that is no fault.
    let devices = Bench::new().run_with(["devices"], &named).ends_with(0);
    assert!(devices.stdout.contains("cpu   not usable: the C++ compiler"), "{}", devices.stdout);
}

#[test]
fn a_cache_that_cannot_be_written_is_named() {
    let bench = Bench::new();
    let file = bench.write("file", "in the way");
    let below = file.join("cache");
    let words = [below.to_str().unwrap(), "Not a directory", "ATTNBENCH_CACHE"];
    refused_machine(&[("ATTNBENCH_CACHE", below.as_os_str())], &words);

    // A user's kernel needs no built-in files, but binaries.
    let own = edited("own", "portable.h", "// portable.h:", "// portable.h :");
    let variables = [("ATTNBENCH_CACHE", below.as_os_str())];
    bench.run_with(["sweep", &own, "--cases", "5"], &variables).refuses(&words);

    // Root writes where it must not; elsewhere a folder without permission is refused.
    let locked = bench.dir().join("locked");
    fs::create_dir(&locked).unwrap();
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o555)).unwrap();
    if fs::write(locked.join("probe"), "").is_err() {
        let variables = [("ATTNBENCH_CACHE", locked.as_os_str())];
        refused_machine(&variables, &["Permission denied", "ATTNBENCH_CACHE"]);
    }
}

#[test]
fn a_full_disk_is_named() {
    let bench = Bench::new();
    let online = ["sweep", "decode_online", "--cases", "2", "--json", "/dev/full"];
    bench.run(online).refuses(&["/dev/full", "No space left"]);

    // A limit on the size of files, with its signal ignored, fails writes as a full disk does.
    let limited = |script: &str| {
        let mut command = assert_cmd::Command::new("sh");
        command.args(["-c", script, "sh", env!("CARGO_BIN_EXE_attnbench")]);
        command.current_dir(bench.dir()).env("ATTNBENCH_CACHE", bench.dir().join("cache"));
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.starts_with("error: ") && text.lines().count() == 1, "{text}");
        assert!(text.contains("File too large"), "{text}");
        assert!(text.contains("ATTNBENCH_CACHE"), "{text}");
        said_once(&text);
    };
    limited("trap '' XFSZ; ulimit -f 1; exec \"$1\" sweep decode_online --cases 5 --json -");
    let own = edited("own", "portable.h", "// portable.h:", "// portable.h :");
    limited(&format!("trap '' XFSZ; ulimit -f 1; exec \"$1\" sweep {own} --cases 5 --json -"));
}

#[test]
fn a_failing_case_that_cannot_be_saved_is_still_reported() {
    let bench = Bench::new();
    bench.write("file", "in the way");
    let kernel = super::bench::does_nothing();
    let sweep =
        ["sweep", kernel.to_str().unwrap(), "--case", CASE, "--save", "file/x", "--json", "-"];
    let ran = bench.run(sweep).ends_with(1);
    assert!(ran.stderr.contains("is not saved") && ran.stderr.contains("file/x"), "{}", ran.stderr);
    said_once(&ran.stderr);
    let failure = &ran.document()["kernels"][0]["failures"][0];
    assert_eq!(failure["saved"], Value::Null);
    // The command line beside it makes the case again instead.
    let command = failure["replay"].as_str().unwrap().replace('\'', "");
    let words: Vec<&str> = command.split(' ').skip(1).collect();
    bench.run(&words).ends_with(1);
}

#[test]
fn a_case_too_large_for_the_machine_is_refused() {
    for id in ["hq=4,hkv=2,d=64,n=64,k=HND+pad4000000000", "hq=40000,hkv=1,d=64,n=40000000"] {
        let ran = Bench::new().run(["sweep", "decode_online", "--case", id, "--json", "-"]);
        assert_eq!(ran.stdout, "");
        ran.refuses(&["MiB of memory", "are free", "less padding"]);
    }
}

/// A kernel with tunables of absurd sizes, whatever it computes from them, is refused by one message.
#[test]
fn absurd_tunables_are_refused() {
    let refuses = |kernel: &str, name: &str, from: &str, to: &str, words: &[&str]| {
        let file = format!("{kernel}.toml");
        let folder = mutated(&format!("absurd_{name}"), &[(&file, from, to)]);
        let manifest = folder.join(&file);
        let sweep = ["sweep", manifest.to_str().unwrap(), "--cases", "5", "--json", "-"];
        let ran = Bench::new().run(sweep);
        assert_eq!(ran.stdout, "");
        ran.refuses(words);
    };
    let parts = ["between 1 and 1048576 parts", "write fewer"];
    for (kernel, from) in [
        ("decode_split", "splits = [1, 2, 3, 4, 8, 16]"),
        ("split", "splits = ["),
        ("merge", "splits = ["),
    ] {
        for (name, value) in [("many", "3000000000"), ("none", "0"), ("less", "-4")] {
            let to = if from.ends_with(']') {
                format!("splits = [{value}]")
            } else {
                format!("splits = [{value}, ")
            };
            let here = format!("{kernel}.toml:");
            let words = [parts[0], parts[1], value, &here];
            refuses(kernel, &format!("{kernel}_{name}"), from, &to, &words);
        }
    }
    let threads = "threads = [32, 64]";
    refuses(
        "decode_split",
        "scratch",
        "part_lse = \"f32: batch",
        "part_lse = \"f32: 10000000000 * batch",
        &["scratch.part_lse", "MiB are free", "smaller values", "in the case b="],
    );
    let most = "part_lse = \"f32: 9000000000000000000 / 4 * (batch + 1) / (batch + 1) + batch";
    refuses("decode_split", "scratch_most", "part_lse = \"f32: batch", most, &["part_lse"]);
    let block = ["launch[0].shared_bytes", "threads = 3000000000", "4294967295"];
    refuses("decode_split", "threads", threads, "threads = [3000000000]", &block);
    refuses(
        "decode_split",
        "shared",
        "shared_bytes = \"4 * splits\"",
        "shared_bytes = \"1000000000 * splits * 4\"",
        &["shared"],
    );
}

/// An option that narrows nothing is not taken in silence.
#[test]
fn options_for_what_a_stage_has_not_are_told() {
    for (option, kernels, what) in [
        ("--seq-len", &["norm", "merge", "head_combine"][..], "no keys"),
        ("--head-dim", &["norm"], "no head vectors"),
    ] {
        let sweep = ["sweep", option, "8..16", "--cases", "5"];
        let ran = Bench::new().run(sweep.iter().chain(kernels));
        ran.refuses(&[option, what, "leave it out", "norm (stage `norm`)"]);
        let ran = Bench::new().run(sweep.iter().chain(kernels).chain(&["scores"]));
        assert_ne!(ran.code, 2, "{}", ran.stderr);
        let note = format!("note: {option} narrows nothing of {}", kernels[0]);
        assert!(ran.stderr.contains(&note) && !ran.stderr.contains("scores"), "{}", ran.stderr);
    }
}

#[test]
fn an_error_in_mid_sweep_keeps_what_was_found() {
    let from = "shared_bytes = \"4 * (";
    let manifest =
        edited("late", "decode_online.toml", from, "shared_bytes = \"150 * seq_len + 4 * (");
    let ran = Bench::new().run(["sweep", &manifest, "--cases", "200", "--json", "-"]).ends_with(2);
    let kernel = ran.document()["kernels"][0].clone();
    assert!(
        kernel["passed"].as_u64().unwrap() > 0 && kernel["verdict"] == "incomplete",
        "{kernel:#}"
    );
    assert_eq!(kernel["stopped"], "stopped by an error");
    let error = kernel["error"].as_str().unwrap();
    assert!(error.contains("shared memory") && error.contains("(case b="), "{error}");
    assert!(ran.stderr.contains(error), "{}", ran.stderr);
}

/// What a captured decode step does not hold is not made up.
#[test]
fn a_capture_is_not_replayed_on_a_stage_that_it_does_not_hold() {
    let slice =
        concat!(env!("CARGO_MANIFEST_DIR"), "/golden/slices/p5_ba_decode0_L15_f32.safetensors");
    for kernel in ["merge", "prefill", "head_combine", "norm"] {
        let ran = Bench::new().run(["replay", slice, "--kernel", kernel]);
        ran.refuses(&["does not hold what stage", kernel]);
    }
    for kernel in ["scores", "softmax", "pv", "append", "split", "decode_split"] {
        Bench::new().run(["replay", slice, "--kernel", kernel]).ends_with(0);
    }
}
