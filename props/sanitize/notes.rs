//! What the checker finds and nothing comes of is a note: told, and not held against the kernel.

use attnbench::device::finding::Severity;
use serde_json::Value;

use super::*;
use crate::bench::Bench;

const SOURCE: &str = r#"
#include <hip/hip_runtime.h>
#define PARAMS float* out, const float* in, const float* kv, float* scratch, int n
// Every thread stores the same, and one that stored it reads it back.
extern "C" __global__ void same(PARAMS) {
    __shared__ volatile float flag[2];
    const int t = threadIdx.x;
    flag[0] = in[n];
    out[t] = flag[0];
    scratch[0] = in[n];
}
// The last one stores something else.
extern "C" __global__ void other(PARAMS) {
    __shared__ float flag;
    const int t = threadIdx.x;
    flag = t == n ? 1.0f : 2.0f;
    __syncthreads();
    out[t] = flag;
}
// All store the same, and a thread that has not stored it reads it before any barrier.
extern "C" __global__ void reader(PARAMS) {
    __shared__ volatile float flag;
    const int t = threadIdx.x;
    if (t == 0) flag = 0.0f;
    __syncthreads();
    if (t >= 64) flag = 1.0f;
    if (t == n) out[t] = flag;
}
// The same at first, then one stores something else with nothing between.
extern "C" __global__ void later(PARAMS) {
    __shared__ volatile float flag;
    const int t = threadIdx.x;
    flag = 1.0f;
    if (t == n) flag = 2.0f;
    __syncthreads();
    out[t] = flag;
}
// Two blocks store the same in one place of global memory, and two half words of one word.
extern "C" __global__ void blocks(PARAMS) {
    unsigned short* halves = reinterpret_cast<unsigned short*>(scratch);
    if (threadIdx.x < 2) halves[threadIdx.x] = (unsigned short)(40 + threadIdx.x);
    out[blockIdx.x * blockDim.x + threadIdx.x] = in[threadIdx.x];
}
"#;

const ENTRIES: [&str; 5] = ["same", "other", "reader", "later", "blocks"];

#[test]
fn writes_of_one_value_are_notes_and_of_two_are_faults() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("notes.hip");
    std::fs::write(&file, SOURCE).expect("written");
    for mut device in devices() {
        for wave in [32, 64] {
            let entries = ENTRIES.map(str::to_owned).to_vec();
            let module = device.compile(&source(&file, entries, wave)).expect("it compiles");
            for (entry, name) in ENTRIES.into_iter().enumerate() {
                for seed in 1..6 {
                    let grid = if name == "blocks" { 3 } else { 1 };
                    let shape = Shape { grid, block: 128, shared: 0, n: 5 };
                    let limit = Duration::from_secs(20);
                    let (result, found) = run(&mut device, &module, entry, shape, seed, limit);
                    assert!(result.is_ok(), "{name}: {result:?}");
                    let list: Vec<String> = found.iter().map(in_a_line).collect();
                    let at = format!("{name} wave {wave} seed {seed}: {list:?}");
                    assert!(found.iter().all(|f| f.kind.class() == Class::Race), "{at}");
                    let faults = found.iter().filter(|f| f.severity == Severity::Fault).count();
                    let is_wrong = ["other", "reader", "later"].contains(&name);
                    assert_eq!(faults > 0, is_wrong, "{at}");
                    assert!(!found.is_empty(), "a note at least: {at}");
                }
            }
        }
    }
}

/// A decode kernel of one thread a head: it loads a key more than there is and does not use it, and every
/// thread of a block stores the same flag.
const DECODE: &str = r#"
#include <hip/hip_runtime.h>
extern "C" __global__ void attend(
    const float* q, const float* k, const float* v, float* out, const int* lens, int group, int dim,
    float scale, long long k_s, long long k_h, long long k_n, long long v_s, long long v_h, long long v_n,
    int rows) {
    __shared__ int any;
    const int h = blockIdx.x, b = blockIdx.y, d = threadIdx.x, n = lens[b];
    k += b * k_s + (h / group) * k_h, v += b * v_s + (h / group) * v_h;
    q += (b * gridDim.x + h) * dim, out += (b * gridDim.x + h) * dim;
    any = n > 0;
    __syncthreads();
    float m = -INFINITY, l = 0.0f, o = 0.0f;
    bool odd = false;
    for (int j = 0; j < (n + MORE < rows ? n + MORE : rows); ++j) {
        float s = 0.0f;
        for (int i = 0; i < dim; ++i) s += q[i] * k[j * k_n + i];
        const float value = v[j * v_n + d];
        odd = TAINTED && j >= n && n > 8 && value > 0.0f;
        if (USED) {
            s *= scale;
            const float big = s > m || s != s ? s : m;
            const float keep = m == big ? 1.0f : expf(m - big), p = s == big ? 1.0f : expf(s - big);
            m = big, l = l * keep + p, o = o * keep + p * value;
        }
    }
    const float x = any && l != 0.0f ? o / l : 0.0f;
    out[d] = __uint_as_float(__float_as_uint(x) ^ odd);
}
"#;

const MANIFEST: &str = r#"
format = "kernel/1"
name = "NAME"
source = "attend.hip"
stage = "decode"
defines = { MORE = "MORE_KEYS", USED = "WHICH", TAINTED = "TAINT" }
[[launch]]
entry = "attend"
args = ["q", "k", "v", "out", "seq_lens", "i32:group", "i32:head_dim", "f32:scale",
        "i64:k_stride_s", "i64:k_stride_h", "i64:k_stride_n", "i64:v_stride_s", "i64:v_stride_h",
        "i64:v_stride_n", "i32:capacity"]
grid = ["num_heads", "batch", 1]
block = ["head_dim", 1, 1]
[numerics]
bitwise = []
[layout]
k = ["HND", "NHD"]
v = ["HND", "NHD"]
[supports]
dtype = [{ q = "f32", kv = "f32", out = "f32" }]
head_dim = { one_of = [8, 64] }
seq_len = { min = 0, max = 600 }
"#;

fn swept(bench: &Bench, name: &str, more: usize, used: &str, taint: &str) -> crate::bench::Ran {
    bench.write("attend.hip", DECODE);
    let manifest = MANIFEST.replace("NAME", name);
    let manifest = manifest
        .replace("MORE_KEYS", &more.to_string())
        .replace("WHICH", used)
        .replace("TAINT\"", &format!("{taint}\""));
    let file = bench.write(&format!("{name}.toml"), &manifest);
    bench.run([
        "sweep",
        file.to_str().expect("a plain path"),
        "--sanitize",
        "--cases",
        "40",
        "--json",
        "out.json",
    ])
}

#[test]
fn masked_reads_and_writes_of_one_value_do_not_fail_a_sweep() {
    let bench = Bench::new();
    let ran = swept(&bench, "masked", 3, "j < n", "false");
    assert!(
        ran.stdout.contains("note (memory)") && ran.stdout.contains("note (race)"),
        "{}",
        ran.stdout
    );
    let text = std::fs::read_to_string(bench.dir().join("out.json")).expect("a document");
    let document: Value = serde_json::from_str(&text).expect("JSON");
    let kernel = &document["kernels"][0];
    assert_eq!((&kernel["passed"], &kernel["failed"]), (&40.into(), &0.into()));
    let notes = kernel["notes"].as_array().expect("notes");
    let kinds: Vec<&str> = notes.iter().filter_map(|note| note["kind"].as_str()).collect();
    assert!(kinds.contains(&"out-of-bounds") && kinds.contains(&"write-after-write"), "{kinds:?}");
    for note in notes {
        assert_eq!(note["severity"], "note");
        assert!(note["cases"].as_u64().is_some_and(|n| (1..=40).contains(&n)), "{note}");
        assert!(
            note["case"].as_str().is_some_and(|id| id.parse::<attnbench::problem::Case>().is_ok())
        );
    }
    // Without a read too many and with one writer there is nothing to note but what is there.
    let ran = swept(&bench, "plain", 0, "j < n", "false");
    assert!(!ran.stdout.contains("note (memory)"), "{}", ran.stdout);
}

#[test]
fn what_reaches_an_output_is_no_note() {
    let bench = Bench::new();
    let ran = swept(&bench, "used", 1, "true", "false").ends_with(1);
    assert!(ran.stdout.contains("sanitize/memory fails in"), "{}", ran.stdout);
    assert!(ran.stdout.contains("past the sequence's seq_len"), "{}", ran.stdout);

    // Within the bound, but the last bit depends on it.
    let ran = swept(&bench, "tainted", 1, "j < n", "true").ends_with(1);
    assert!(ran.stdout.contains("sanitize/memory fails in"), "{}", ran.stdout);
    assert!(!ran.stdout.contains("oracle"), "within the bound: {}", ran.stdout);
}
