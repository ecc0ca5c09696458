//! A kernel and its manifest that do not agree, and what a compiler says of a kernel: one message that
//! names both sides, before anything runs. The right twin of each is silent.

use super::bench::{Bench, Ran};

/// One thread does a head's work: a right kernel of few lines, over three types.
const SOURCE: &str = r#"
#include <hip/hip_runtime.h>
#include <hip/hip_fp16.h>
#include <hip/hip_bf16.h>
namespace own {
constexpr int HALF_OF_MOST = 128;
__device__ inline float number(float x) { return x; }
__device__ inline float number(__half x) { return __half2float(x); }
__device__ inline float number(__hip_bfloat16 x) { return __bfloat162float(x); }
template <typename Q, typename KV, typename Out, int WAVES = 4>
__global__ void attend(const Q *q, const KV *k, const KV *v, Out *out, const int *lens, int group, int capacity,
                       int dim, float scale) {
    if (threadIdx.x != 0) return;
    const int h = blockIdx.x, b = blockIdx.y, heads = gridDim.x;
    const long long row = (long long)b * heads + h, kv = (long long)b * (heads / group) + h / group;
    float most = -INFINITY, sum = 0.0f, acc[64];
    for (int d = 0; d < dim; ++d) acc[d] = 0.0f;
    for (int n = 0; n < lens[b]; ++n) {
        float dot = 0.0f;
        for (int d = 0; d < dim; ++d)
            dot += number(q[row * dim + d]) * number(k[(kv * capacity + n) * dim + d]);
        dot *= scale;
        const float now = dot > most || dot != dot ? dot : most;
        const float old = expf(most - now), p = expf(dot - now);
        sum = sum * old + p;
        for (int d = 0; d < dim; ++d) acc[d] = acc[d] * old + p * number(v[(kv * capacity + n) * dim + d]);
        most = now;
    }
    for (int d = 0; d < dim; ++d) out[row * dim + d] = Out(acc[d] / sum);
}
}  // namespace own
"#;

const MANIFEST: &str = r#"
format = "kernel/1"
name = "own"
source = "own.hip"
stage = "decode"
[params]
threads = [32, 256]
[[launch]]
entry = "own::attend<{q}, {kv}, {out}>"
args = ["q", "k", "v", "out", "seq_lens", "i32:group", "i32:capacity", "i32:head_dim", "f32:scale"]
grid = ["num_heads", "batch", 1]
block = ["threads", 1, 1]
[supports]
dtype = [{ q = "f32", kv = "f32", out = "f32" }, { q = "f16", kv = "f16", out = "f32" }]
head_dim = { one_of = [8, 64] }
seq_len = { max = 300 }
"#;

/// Replaces a text that must be there.
#[track_caller]
fn with(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "no `{from}`");
    text.replacen(from, to, 1)
}

/// Sweeps a few cases.
fn sweep(source: &str, manifest: &str, more: &[&str]) -> Ran {
    sweep_of(24, source, manifest, more)
}

fn sweep_of(cases: usize, source: &str, manifest: &str, more: &[&str]) -> Ran {
    let bench = Bench::new();
    bench.write("own.hip", source);
    bench.write("own.toml", manifest);
    let cases = cases.to_string();
    bench.run(["sweep", "own.toml", "--cases", &cases].iter().chain(more))
}

/// Nothing has run: there is one message, and no table.
#[track_caller]
fn refused(source: &str, manifest: &str, words: &[&str]) -> String {
    let ran = sweep(source, manifest, &["--json", "-"]);
    assert_eq!(ran.stdout, "");
    let said = ran.stderr.clone();
    ran.refuses(words);
    said
}

#[test]
fn the_kernel_itself_is_right() {
    let ran = sweep(SOURCE, MANIFEST, &["--json", "-"]);
    let document = ran.document();
    assert_eq!(document["kernels"][0]["failed"], 0, "{document:#}");
}

#[test]
fn every_compile_error_is_told_with_its_line() {
    let wrong = with(SOURCE, "dot *= scale;", "dot *= scal;\n        first(3);");
    let wrong = with(&wrong, "most = now;", "int word = \"abc\";");
    let row = |text: &str| 1 + wrong.lines().position(|line| line.contains(text)).expect("a line");
    let places = ["scal;", "first(3)", "int word"].map(|text| format!("own.hip:{}:", row(text)));
    let [a, b, c] = places.each_ref().map(String::as_str);
    let words = ["own.hip does not compile: 3 errors\n", a, b, c, "int word = \"abc\";\n", "^~~~~"];
    let said = refused(&wrong, MANIFEST, &words);
    assert_eq!(said.matches(": error: ").count(), 3, "{said}");

    let absent = with(SOURCE, "<hip/hip_fp16.h>", "\"engine/no_such.h\"");
    refused(&absent, MANIFEST, &["own.hip:3:", "engine/no_such.h: No such file", "`include_dirs`"]);

    let many: String = (0..30).map(|i| format!("int x{i} = absent{i};\n")).collect();
    let said = sweep(&(many + SOURCE), MANIFEST, &[]).ends_with(2).stderr;
    assert!(said.contains(": 30 errors\n") && said.contains("'absent19'"), "{said}");
    assert!(said.ends_with("and 10 more errors\n"), "{said}");
    assert!(!said.contains("absent20"), "{said}");
}

/// The instance that fails is told by its error and by who asked for it.
#[test]
fn an_instance_that_does_not_compile_is_not_called_undeclared() {
    let mixed = with(SOURCE, "float most", "const float *rows = k; float most");
    let words = [
        "own.hip:",
        "cannot convert",
        "const float *rows = k;",
        "own::attend<__half, __half, float>`",
    ];
    let said = refused(&mixed, MANIFEST, &words);
    assert!(!said.contains("not declared"), "{said}");

    let entry = "own::attend<{q}, {kv}, {out}>";
    let unknown = with(MANIFEST, entry, "own::atend<{q}, {kv}, {out}>");
    refused(
        SOURCE,
        &unknown,
        &[
            "entry `own::atend<",
            "float>` is not declared in own.hip",
            "did you mean `own::attend`?",
        ],
    );
    let far = with(MANIFEST, entry, "flash<{q}>");
    let said = refused(SOURCE, &far, &["` is not declared in own.hip; it declares own::attend"]);
    assert!(!said.contains("did you mean"), "{said}");
    let number = with(MANIFEST, entry, "own::attend<{q}, {kv}, 4>");
    let said =
        refused(SOURCE, &number, &["entry `own::attend<", "template <typename Q, typename KV"]);
    assert!(!said.contains("not declared"), "{said}");
    let type_name = with(MANIFEST, entry, "own::attend<{q}, {kv}, fp17_t>");
    let said = refused(SOURCE, &type_name, &["fp17_t>`", "'fp17_t' was not declared"]);
    assert!(!said.contains("did you mean"), "{said}");
}

/// A template that knows nothing of the types that it is for.
const BARE: &str = "#include <hip/hip_runtime.h>\ntemplate <typename T> __global__ void bare(const T *q, T *out) \
                    { out[threadIdx.x] = (T)(float)q[threadIdx.x]; }\n";

const BARE_MANIFEST: &str = r#"
format = "kernel/1"
name = "bare"
source = "own.hip"
stage = "decode"
[[launch]]
entry = "bare<{kv}>"
args = ["q", "out"]
grid = [1, 1, 1]
block = ["head_dim", 1, 1]
[supports]
dtype = [{ q = "f32", kv = "f16", out = "f32" }]
"#;

#[test]
fn a_pointer_to_other_numbers_than_the_manifests_is_refused() {
    let entry = "own::attend<{q}, {kv}, {out}>";
    let all = with(MANIFEST, entry, "own::attend<{kv}, {kv}, {kv}>");
    let words = [
        "own: launch[0]: argument 4 `out` is f32 by the manifest (dtype f16/f16/f32), but parameter 4 of \
         `own::attend<__half, __half, __half>` is `__half*`",
        "mend `dtype` under [supports], the entry or the parameter's type",
    ];
    refused(SOURCE, &all, &words);
    let fixed = with(MANIFEST, entry, "own::attend<float, float, float>");
    refused(
        SOURCE,
        &fixed,
        &["`q` is f16 by the manifest", "`const float*`", "argument 2 `k`", "argument 3 `v`"],
    );
    let long = with(SOURCE, "const int *lens", "const long long *lens");
    refused(
        &long,
        MANIFEST,
        &["argument 5 `seq_lens` is i32 in every case", "`const long long int*`"],
    );
    let vector = with(SOURCE, "const KV *v,", "const float4 *v4,");
    let vector = with(&vector, "if (threadIdx.x", "const KV *v = (const KV *)v4; if (threadIdx.x");
    refused(&vector, MANIFEST, &["argument 3 `v` is f16 by the manifest", "`const float4*`"]);
    // Without the header of the type that the entry names the mistake is the same.
    refused(BARE, BARE_MANIFEST, &["`q` is f32", "own.hip does not include <hip/hip_fp16.h>"]);

    // Raw bits, bytes and a struct of the user's own are as good as the type.
    for (own, cast) in [
        ("const void *raw", "(const KV *)raw"),
        ("const unsigned short *raw", "(const KV *)raw"),
        ("const uint4 *raw", "(const KV *)raw"),
        ("const unsigned char *raw", "(const KV *)raw"),
        ("const Row *raw", "(const KV *)raw->words"),
    ] {
        let taken = with(SOURCE, "const KV *v,", &format!("{own},"));
        let taken =
            with(&taken, "namespace own {", "namespace own {\nstruct Row { float words[1]; };");
        let taken =
            with(&taken, "if (threadIdx.x", &format!("const KV *v = {cast}; if (threadIdx.x"));
        let document = sweep(&taken, MANIFEST, &["--json", "-"]).document();
        assert_eq!(document["kernels"][0]["failed"], 0, "{own}: {document:#}");
    }

    // Other kernels are swept all the same.
    let bench = Bench::new();
    bench.write("own.hip", SOURCE);
    bench.write("own.toml", &all);
    let ran = bench.run(["sweep", "own.toml", "decode_naive", "--cases", "100"]).ends_with(2);
    assert!(ran.stdout.contains("own: not judged: own: launch[0]: argument 4"), "{}", ran.stdout);
    assert!(ran.stdout.contains("decode_naive drew"), "{}", ran.stdout);
}

#[test]
fn a_block_beyond_the_launch_bounds_is_refused_with_both_numbers() {
    let head = "__global__ void attend(";
    let words = [
        "own: launch[0].block is 256 threads (with threads = 256), but `own::attend<",
        "float>` is made for at most 128 (its __launch_bounds__): launch blocks of at most 128 threads",
        "raise the bound",
    ];
    let wrong = [
        "__global__ void __launch_bounds__(128) attend(",
        "__global__ __launch_bounds__(128, 2) void attend(",
        "__launch_bounds__(HALF_OF_MOST) __global__ void attend(",
        "__global__ void __launch_bounds__(sizeof(Q) > 1 ? WAVES * 32 : 1, 1, 1) attend(",
        "BLOCKS(attend)(",
    ];
    let define = "#define BLOCKS(name) __global__ void __launch_bounds__(own::HALF_OF_MOST) name\nnamespace own {";
    let source = |head_now: &str| with(&with(SOURCE, head, head_now), "namespace own {", define);
    for head in wrong {
        refused(&source(head), MANIFEST, &words);
    }
    // What is large enough is silent; so is a bound that cannot be told apart from here.
    for head in [
        "__global__ void __launch_bounds__(256) attend(",
        "__global__ __launch_bounds__(HALF_OF_MOST * 2, 2) void attend(",
        "__global__ void __launch_bounds__(sizeof(Q) * 64 < 256 ? 256 : WAVES * 64) attend(",
    ] {
        let document = sweep(&source(head), MANIFEST, &["--json", "-"]).document();
        assert_eq!(document["kernels"][0]["failed"], 0, "{head}: {document:#}");
        assert!(document["kernels"][0]["error"].is_null(), "{head}: {document:#}");
    }
    // Of a checked build too.
    let small = source(wrong[0]);
    let ran = sweep(&small, MANIFEST, &["--sanitize", "--json", "-"]);
    ran.refuses(&words);
}

/// Scratch of every type holds what is written there, and poison before.
#[test]
fn scratch_of_every_type_is_the_kernels_own() {
    let take = "template <typename Q, typename KV, typename Out, int WAVES = 4>";
    let source = with(SOURCE, take, "template <typename Q, typename KV, typename Out, typename S>");
    let source = with(&source, "int dim, float scale) {", "int dim, float scale, S *part) {");
    for (scratch, cpp) in [
        ("u8", "unsigned char"),
        ("i8", "signed char"),
        ("u16", "unsigned short"),
        ("i16", "short"),
        ("f16", "__half"),
        ("bf16", "__hip_bfloat16"),
        ("i32", "int"),
        ("u64", "unsigned long long"),
    ] {
        let manifest = with(MANIFEST, "{out}>", &format!("{{out}}, {cpp}>"));
        let manifest = with(&manifest, "\"f32:scale\"]", "\"f32:scale\", \"part\"]");
        let manifest = with(
            &manifest,
            "[[launch]]",
            &format!("[scratch]\npart = \"{scratch}: batch * num_heads\"\n[[launch]]"),
        );
        // Written and read again: the same number. Read and not written: not zero in some run.
        let used = |before: &str| {
            let at = "    for (int d = 0; d < dim; ++d) out";
            let code =
                format!("    {before}\n    if ((float)part[row] != 3.0f) sum = 0.5f * sum;\n{at}");
            with(&source, at, &code)
        };
        let right = sweep(&used("part[row] = S(3.0f);"), &manifest, &["--json", "-"]).document();
        assert_eq!(right["kernels"][0]["failed"], 0, "{scratch}: {right:#}");
        let wrong = sweep(&used("if (part == nullptr) return;"), &manifest, &["--json", "-"]);
        assert!(
            wrong.ends_with(1).document()["kernels"][0]["failed"].as_u64() > Some(0),
            "{scratch}"
        );
    }
}

const APPEND: &str = r#"
#include <hip/hip_runtime.h>
template <typename T>
__global__ void put(const T *new_k, const T *new_v, const unsigned *pos, T *k, T *v, int dim, int dim_v, int capacity) {
    const long long row = (long long)blockIdx.y * gridDim.x + blockIdx.x, at = row * capacity + pos[blockIdx.y];
    for (int d = threadIdx.x; d < dim; d += blockDim.x) k[at * dim + d] = new_k[row * dim + d];
    for (int d = threadIdx.x; d < dim_v; d += blockDim.x) v[at * dim_v + d] = new_v[row * dim_v + d];
}
"#;

const APPEND_MANIFEST: &str = r#"
format = "kernel/1"
name = "put"
source = "own.hip"
stage = "append"
[[launch]]
entry = "put<{kv}>"
args = ["new_k", "new_v", "pos", "k", "v", "i32:head_dim", "i32:head_dim_v", "i32:capacity"]
grid = ["num_kv_heads", "batch", 1]
block = [64, 1, 1]
[supports]
dtype = [{ q = "f32", kv = "f32", out = "f32" }]
head_dim = { max = 128 }
head_dim_v = { max = 128 }
seq_len = { max = 300 }
"#;

/// The rows of K and V that are appended may differ in length.
#[test]
fn append_draws_head_dim_v() {
    let right = sweep_of(80, APPEND, APPEND_MANIFEST, &["--json", "-"]).document();
    assert_eq!(right["kernels"][0]["failed"], 0, "{right:#}");
    let drawn = &right["kernels"][0]["drawn"]["head_dim_v"];
    assert!(drawn["other"].as_u64() > Some(0) && drawn["head_dim"].as_u64() > Some(0), "{drawn:#}");
    for (from, to) in [
        ("new_v[row * dim_v", "new_v[row * dim"),
        ("d < dim_v", "d < dim"),
        ("v[at * dim_v", "v[at * dim"),
    ] {
        let wrong = with(APPEND, from, to);
        let wrong = sweep_of(80, &wrong, APPEND_MANIFEST, &["--json", "-"]);
        let document = wrong.ends_with(1).document();
        let failures = document["kernels"][0]["failures"].as_array().expect("failures");
        // What fails is saved, and runs again as it was.
        let case = failures[0]["id"].as_str().expect("an id");
        assert!(case.contains(",dv="), "{case}");
    }
}

#[test]
fn a_triple_of_types_means_that_triple() {
    for (asked, takes) in
        [("f16", true), ("f16/f16/f32", true), ("f16/f16/f16", false), ("f32/f16/f32", false)]
    {
        let ran = sweep(SOURCE, MANIFEST, &["--dtype", asked, "--json", "-"]);
        if takes {
            let drawn = ran.document()["kernels"][0]["drawn"]["dtype"].clone();
            assert_eq!(
                drawn.as_object().expect("types").keys().collect::<Vec<_>>(),
                ["f16/f16/f32"],
                "{asked}"
            );
        } else {
            ran.refuses(&[&format!(
                "nothing is left of it with --dtype {asked} (it has f32, f16/f16/f32)"
            )]);
        }
    }
}
