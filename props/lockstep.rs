//! A kernel that relies on lanes in lockstep, through its manifest and the command line.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use attnbench::data::generate::generate;
use attnbench::device::cpu::{CpuConfig, CpuDevice};
use attnbench::device::{Device, Lanes};
use attnbench::judge::trial::{Outcome, PASSES_IN_LOCKSTEP, Trial};
use attnbench::kernel::Manifest;

use crate::bench::{Bench, cache};

/// A wave a head; the scores are summed over its lanes through shared memory, with nothing between the
/// steps of the sum.
const SOURCE: &str = r#"
#include <hip/hip_runtime.h>
extern "C" __global__ void attend(
    const float* q, const float* k, const float* v, float* out, const int* lens, int group, int dim,
    float scale, long long k_s, long long k_h, long long k_n, long long v_s, long long v_h, long long v_n) {
    __shared__ volatile float s[48];
    const int h = blockIdx.x, b = blockIdx.y, t = threadIdx.x;
    k += b * k_s + (h / group) * k_h, v += b * v_s + (h / group) * v_h;
    q += (b * gridDim.x + h) * dim, out += (b * gridDim.x + h) * dim;
    float m = -INFINITY, l = 0.0f, o[2] = {0.0f, 0.0f};
    if (t < 16) s[32 + t] = 0.0f;
    for (int j = 0; j < lens[b]; ++j) {
        float part = 0.0f;
        for (int i = t; i < dim; i += 32) part += q[i] * k[j * k_n + i];
        s[t] = part;
        for (int apart = 16; apart > 0; apart /= 2) {
            __builtin_amdgcn_wave_barrier();
            s[t] = s[t] + s[t + apart];
        }
        const float score = s[0] * scale;
        const float big = score > m || score != score ? score : m;
        const float keep = m == big ? 1.0f : expf(m - big), p = score == big ? 1.0f : expf(score - big);
        m = big, l = l * keep + p;
        for (int i = 0; i < 2; ++i) {
            const int d = t + 32 * i;
            if (d < dim) o[i] = o[i] * keep + p * v[j * v_n + d];
        }
    }
    for (int i = 0; i < 2; ++i) {
        if (t + 32 * i < dim) out[t + 32 * i] = l == 0.0f ? 0.0f : o[i] / l;
    }
}
"#;

const MANIFEST: &str = r#"
format = "kernel/1"
name = "in-step"
source = "attend.hip"
stage = "decode"
[[launch]]
entry = "attend"
args = ["q", "k", "v", "out", "seq_lens", "i32:group", "i32:head_dim", "f32:scale",
        "i64:k_stride_s", "i64:k_stride_h", "i64:k_stride_n", "i64:v_stride_s", "i64:v_stride_h",
        "i64:v_stride_n"]
grid = ["num_heads", "batch", 1]
block = [32, 1, 1]
[layout]
k = ["HND", "NHD"]
v = ["HND", "NHD"]
[supports]
dtype = [{ q = "f32", kv = "f32", out = "f32" }]
head_dim = { one_of = [8, 64] }
seq_len = { min = 0, max = 200 }
"#;

fn written(bench: &Bench, lanes: &str) -> PathBuf {
    bench.write("attend.hip", SOURCE);
    bench.write("in-step.toml", format!("{MANIFEST}{lanes}"))
}

#[test]
fn the_manifest_or_an_option_says_how_lanes_advance() {
    let bench = Bench::new();
    let sweep = |manifest: &PathBuf, more: &[&str]| {
        let kernel = manifest.to_str().expect("a plain path");
        let args = ["sweep", kernel, "--cases", "30", "--json", "-"];
        bench.run(args.into_iter().chain(more.iter().copied()))
    };
    // Few cases do not exercise everything; of those that are judged none fails.
    let passes = |manifest: &PathBuf, more: &[&str]| {
        let document = sweep(manifest, more).document();
        let kernel = &document["kernels"][0];
        let counts = (&kernel["passed"], &kernel["failed"]);
        assert_eq!(counts, (&30.into(), &0.into()), "{more:?}: {kernel:#}");
    };
    let plain = written(&bench, "");
    let document = sweep(&plain, &[]).ends_with(1).document();
    let saved = document["kernels"][0]["failures"][0]["saved"].as_str().expect("a file").to_owned();
    passes(&plain, &["--lanes", "lockstep"]);
    bench.run(["replay", &saved]).ends_with(1);
    bench.run(["replay", &saved, "--lanes", "lockstep"]).ends_with(0);
    // Under the checker there is no race in lockstep, and there is one without.
    passes(&plain, &["--sanitize", "--lanes", "lockstep"]);
    sweep(&plain, &["--sanitize=race"]).ends_with(1);

    let said = written(&bench, "[device]\nlanes = \"lockstep\"\n");
    passes(&said, &[]);
    sweep(&said, &["--lanes", "independent"]).ends_with(1);

    let wrong = written(&bench, "[device]\nlanes = \"together\"\n");
    let ran = sweep(&wrong, &[]);
    assert_eq!(ran.code, 2);
    let all = ["in-step.toml:", "device.lanes", "together", "independent, lockstep"];
    assert!(all.iter().all(|word| ran.stderr.contains(word)), "{}", ran.stderr);
}

#[test]
fn a_failing_case_is_tried_in_lockstep() {
    let bench = Bench::new();
    let manifest = Arc::new(Manifest::load(&written(&bench, "")).expect("a manifest"));
    let config = CpuConfig {
        worker_program: PathBuf::from(env!("CARGO_BIN_EXE_attnbench")),
        cache_dir: cache(),
        ..CpuConfig::from_env()
    };
    let device = CpuDevice::new(config).expect("a compiler");
    let trial = |lanes| {
        let device: Box<dyn Device> = Box::new(device.with_lanes(lanes));
        Trial::new(Arc::clone(&manifest), Arc::default(), device, Duration::from_secs(20))
    };
    let id = "b=2,hq=4,hkv=2,d=64,n=[9,30],dt=f32,k=HND,v=HND,wave=32,data=gauss,seed=3";
    let case = id.parse().expect("a case");
    let inputs = generate(&case, &[]).expect("data");

    let mut independent = trial(Lanes::Independent);
    let outcome = independent.judge_inputs(&case, &inputs).expect("it is judged");
    assert!(matches!(outcome, Outcome::Failed(_)), "{outcome:?}");
    let again = independent.judge_in_lockstep(&case, &inputs);
    assert!(matches!(again, Some(Outcome::Passed(_))), "{again:?}");
    assert!(independent.passes_in_lockstep(&case, &inputs));
    assert!(PASSES_IN_LOCKSTEP.contains("lanes = \"lockstep\""));

    // In lockstep already: there is nothing to try.
    let mut lockstep = trial(Lanes::Lockstep);
    assert!(matches!(lockstep.judge_inputs(&case, &inputs), Ok(Outcome::Passed(_))));
    assert!(lockstep.judge_in_lockstep(&case, &inputs).is_none());

    // What is wrong in lockstep too is not excused.
    bench.write("attend.hip", SOURCE.replace("s[0] * scale", "s[0]"));
    let mut wrong = trial(Lanes::Independent);
    assert!(!wrong.passes_in_lockstep(&case, &inputs));
}
