//! GPUs without a GPU: what their compilers make of every kernel, what is said where nothing is there,
//! and the same on a GPU where one is.
//!
//! The compilers are real: hiprtc of Debian's packages (`libamdhip64-dev`, `libhiprtc-builtins5`,
//! `rocm-device-libs`), and NVRTC of CUDA's toolkit or of its Python wheels. A test whose compiler is
//! not here says so and is skipped.

mod host;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::PathBuf;

use attnbench::device::gpu::{Api, Compiler, GpuConfig};
use attnbench::device::{Module, ParamKind, Source};
use attnbench::judge::draw::Draw;
use attnbench::judge::space::{Filter, Space};
use attnbench::kernel::{Env, Registry};

use super::bench::{Bench, cache};
use super::support::cases::parallel;

fn config() -> GpuConfig {
    let mut config = GpuConfig::from_env();
    config.worker_program = PathBuf::from(env!("CARGO_BIN_EXE_attnbench"));
    config.cache_dir = cache();
    config
}

/// An API's compiler; where there is none, says so.
fn compiler(api: Api) -> Option<Compiler> {
    let compiler = Compiler::new(api, config());
    match compiler.version() {
        Ok(_) => Some(compiler),
        Err(why) => {
            eprintln!("skipped: {why}");
            None
        }
    }
}

/// Every distinct source of every built-in kernel among the first cases of its sweep.
fn sources(wave: u32) -> Vec<Source> {
    let registry = Registry::new(cache()).expect("a cache");
    let mut seen = BTreeSet::new();
    let mut sources = Vec::new();
    for manifest in registry.all().expect("the built-in kernels") {
        let filter = Filter { waves: vec![wave], ..Filter::default() };
        let space = Space::new(&manifest, &filter, &[]).expect("a space");
        for index in 0..64 {
            let Draw::Case(case) = space.draw(1, index) else { continue };
            let places = case.placements().expect("places");
            let source = manifest.source(&Env::new(&case, &places)).expect("a source");
            if seen.insert((source.file.clone(), source.entries.clone())) {
                sources.push(source);
            }
        }
    }
    assert!(sources.len() > 24, "{}", sources.len());
    sources
}

/// Compiles them all, and looks at what is known of each.
fn compile_all(compiler: &Compiler, wave: u32, arch: &str) {
    let sources = sources(wave);
    let modules = parallel(sources.len(), |i| {
        let module = compiler.compile(&sources[i], arch);
        module.unwrap_or_else(|e| panic!("{}: {e}", sources[i].file.display()))
    });
    for (source, module) in sources.iter().zip(&modules) {
        assert_eq!(module.kernels.len(), source.entries.len());
        for (kernel, params) in module.kernels.iter().zip(&*module.params) {
            let params = params.as_ref().expect("known");
            assert!(params.len() >= 6, "{kernel}: {params:?}");
            assert!(params.contains(&ParamKind::Pointer), "{kernel}: {params:?}");
            assert!(params.iter().all(|p| !matches!(p, ParamKind::Other(_))), "{params:?}");
        }
    }
}

#[test]
fn hiprtc_compiles_every_kernel_for_gfx90a() {
    if let Some(compiler) = compiler(Api::Hip) {
        compile_all(&compiler, 64, "gfx90a");
    }
}

#[test]
fn nvrtc_compiles_every_kernel_for_sm_90() {
    if let Some(compiler) = compiler(Api::Cuda) {
        compile_all(&compiler, 32, "sm_90");
    }
}

/// A source in a folder of its own, and what a compiler makes of it.
fn made(compiler: &Compiler, arch: &str, text: &str, entry: &str) -> Result<Module, String> {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let file = dir.path().join("attention.hip");
    std::fs::write(&file, text).expect("written");
    let entries = vec![entry.to_owned()];
    let source = Source { file, include_dirs: vec![], defines: vec![], entries, wave: 64 };
    compiler.compile(&source, arch).map_err(|e| e.to_string())
}

#[test]
fn a_refused_source_is_told_by_the_users_own_line() {
    for (api, arch) in [(Api::Hip, "gfx90a"), (Api::Cuda, "sm_90")] {
        let Some(compiler) = compiler(api) else { continue };
        let text = "#include <hip/hip_runtime.h>\n#include <hip/hip_fp16.h>\n\
                    #include <hip/hip_bf16.h>\n#include <stdint.h>\n\
                    template <typename T> __global__ void k(T *x, int n, float y, int64_t z) {\n\
                        x[threadIdx.x] = __shfl_xor(x[n], 1) + (T)y;\n}\n";
        let module = made(&compiler, arch, text, "k<float>").expect("it compiles");
        let kinds = [ParamKind::Pointer, ParamKind::Int(4), ParamKind::Float(4), ParamKind::Int(8)];
        assert_eq!(module.params[0].as_deref(), Some(&kinds[..]), "{api}");

        let wrong = made(&compiler, arch, &text.replace("x[n]", "xs[n]"), "k<float>");
        let wrong = wrong.expect_err("it does not compile");
        assert!(wrong.contains("attention.hip:6:") && wrong.contains("xs"), "{api}: {wrong}");
        let missing = made(&compiler, arch, text, "ns::k").expect_err("no such entry");
        let words = "entry `ns::k`";
        assert!(missing.contains(words), "{api}: {missing}");
    }
}

/// Where no library is found: an empty folder in every place that is searched first, and a name of a
/// file that is none.
#[test]
fn a_missing_gpu_is_one_message_with_what_hides_devices() {
    let bench = Bench::new();
    let hidden = [
        ("ROCR_VISIBLE_DEVICES", OsStr::new("-1")),
        ("HIP_VISIBLE_DEVICES", OsStr::new("-1")),
        ("CUDA_VISIBLE_DEVICES", OsStr::new("-1")),
    ];
    for api in ["hip", "cuda"] {
        let device = format!("{api}:0");
        let ran = bench.run_with(["sweep", "scores", "--device", &device], &hidden).ends_with(2);
        let lines: Vec<&str> = ran.stderr.lines().collect();
        assert_eq!(lines.len(), 1, "{}", ran.stderr);
        assert!(lines[0].starts_with(&format!("error: --device {device}: ")), "{}", ran.stderr);
        let no_library = lines[0].contains("there is no lib");
        let no_device = ["ROCR_", "HIP_", "CUDA_"]
            .iter()
            .all(|vendor| lines[0].contains(&format!("{vendor}VISIBLE_DEVICES=-1")));
        assert!(no_library || no_device, "{}", ran.stderr);
    }
    let ran = bench.run_with(["sweep", "scores", "--device", "auto", "--cases", "64"], &hidden);
    let first = ran.stdout.lines().next().unwrap_or_default().to_owned();
    assert!(first.starts_with("device cpu ("), "{first}");
    assert!(first.contains("(auto; hip: ") && first.contains("; cuda: "), "{first}");
}

/// The real runtime, which asks the kernel's driver and finds none.
#[test]
fn the_real_hip_runtime_answers_that_there_is_no_device() {
    if compiler(Api::Hip).is_none() || PathBuf::from("/dev/kfd").exists() {
        return;
    }
    let ran = Bench::new().run(["sweep", "scores", "--device", "hip"]).ends_with(2);
    assert!(ran.stderr.contains("hipErrorNoDevice, 100"), "{}", ran.stderr);
    assert!(ran.stderr.contains("/dev/kfd"), "{}", ran.stderr);
}

#[test]
fn requests_that_a_gpu_cannot_serve_are_refused() {
    let bench = Bench::new();
    let kernel = bench.write("k.hsaco", "");
    let manifest = "format = \"kernel/1\"\nname = \"k\"\ncode_object = \"k.hsaco\"\n\
                    stage = \"scores\"\n[[launch]]\nentry = \"k\"\nargs = [\"q\", \"k\", \"scores\"]\n\
                    grid = [1, 1, 1]\nblock = [1, 1, 1]\n[supports]\n\
                    dtype = [{ q = \"f32\", kv = \"f32\", out = \"f32\" }]\nbatch = { max = 1 }\n";
    let manifest = bench.write("k.toml", manifest);
    let manifest = manifest.to_str().expect("a plain path");
    let cases: [(&[&str], &str); 5] = [
        (&["sweep", "scores", "--device", "gpu"], "write auto, cpu, hip[:N] or cuda[:N]"),
        (&["sweep", "scores", "--device", "hip:x"], "write auto, cpu, hip[:N] or cuda[:N]"),
        (&["sweep", "scores", "--device", "cuda", "--sanitize"], "--sanitize needs the CPU device"),
        (&["sweep", manifest, "--device", "cpu"], "a compiled kernel runs on a GPU only"),
        (&["inspect", "scores", "--arch", "sm_9x"], "sm_9x"),
    ];
    for (args, words) in cases {
        let ran = bench.run(args).ends_with(2);
        assert!(ran.stderr.contains(words), "{args:?}: {}", ran.stderr);
    }
    drop(kernel);
}

/// On a machine with a GPU: a sweep of a kernel there, and a kernel that faults among sound ones.
#[test]
fn a_gpu_sweeps_and_survives_a_kernel_that_faults() {
    let bench = Bench::new();
    let gpu = ["hip", "cuda"].into_iter().find(|api| {
        let ran = bench.run(["sweep", "scores", "--device", api, "--cases", "64"]);
        ran.code == 0
    });
    let Some(gpu) = gpu else {
        eprintln!("skipped: there is no GPU here");
        return;
    };
    let store = "scores[b * scores_stride_s + h * scores_stride_h + n] = score;";
    let wild =
        "scores[(h == 1 ? 1ll << 40 : b * scores_stride_s + h * scores_stride_h) + n] = score;";
    let edit = ("scores.hip", store, wild);
    let kernel = super::bench::mutated("wild_scores", &[edit]).join("scores.toml");
    let kernel = kernel.to_str().expect("a plain path");
    let sweep = ["sweep", kernel, "softmax", "--device", gpu, "--cases", "100", "--json", "-"];
    let document = bench.run(sweep).ends_with(1).document();
    let verdicts: Vec<&str> =
        (0..2).map(|i| document["kernels"][i]["verdict"].as_str().expect("a verdict")).collect();
    assert_eq!(verdicts, ["fail", "pass"], "{document:#}");
    assert_eq!(document["kernels"][0]["failures"][0]["property"], "crash", "{document:#}");
}
