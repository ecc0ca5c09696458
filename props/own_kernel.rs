//! A kernel of a user's own, in a folder of its own: everything that a manifest can say, and nothing
//! of this project's.

use super::bench::Bench;

const SOURCE: &str = r#"
#include <hip/hip_runtime.h>
#include <hip/hip_fp16.h>
#include "math/number.h"

namespace engine {
namespace kernels {

// A block a head, a thread an element; the scores of all keys in shared memory.
template <typename KV, int HEAD_DIM>
__global__ void attend(
    const KV *q, const KV *k, const KV *v, float *partial, const float *bias, const int *lens,
    unsigned group, unsigned capacity, float scale) {
    extern __shared__ float scores[];
    __shared__ float query[HEAD_DIM];
    const unsigned h = blockIdx.x, b = blockIdx.y, d = threadIdx.x, heads = gridDim.x;
    const unsigned kv_head = h / group, kv_heads = heads / group;
    const size_t row = (size_t)b * heads + h;
    k += ((size_t)b * kv_heads + kv_head) * capacity * HEAD_DIM;
    v += ((size_t)b * kv_heads + kv_head) * capacity * HEAD_DIM;
    query[d] = number(q[row * HEAD_DIM + d]);
    __syncthreads();
    for (int n = d; n < lens[b]; n += HEAD_DIM) {
        float dot = 0.0f;
        for (int i = 0; i < HEAD_DIM; ++i) dot += query[i] * number(k[n * HEAD_DIM + i]);
        scores[n] = dot * scale + (bias ? bias[n] : 0.0f);
    }
    __syncthreads();
    float largest = -INFINITY, sum = 0.0f, out = 0.0f;
    for (int n = 0; n < lens[b]; ++n) {
        // A score that is no number must show.
        largest = scores[n] > largest || scores[n] != scores[n] ? scores[n] : largest;
    }
    for (int n = 0; n < lens[b]; ++n) {
        const float weight = expf(scores[n] - largest);
        sum += weight;
        out += weight * number(v[n * HEAD_DIM + d]);
    }
    partial[row * STRIDE + d] = out;
    if (d == 0) partial[row * STRIDE + HEAD_DIM] = sum;
}

__global__ void divide(const float *partial, float *out, unsigned head_dim) {
    const size_t row = (size_t)blockIdx.y * gridDim.x + blockIdx.x;
    const float sum = partial[row * STRIDE + head_dim];
    const unsigned d = threadIdx.x;
    out[row * head_dim + d] = sum == 0.0f ? 0.0f : partial[row * STRIDE + d] / sum;
}

}  // namespace kernels
}  // namespace engine
"#;

const HEADER: &str = r#"
#pragma once
__device__ inline float number(float x) { return x; }
__device__ inline float number(__half x) { return __half2float(x); }
"#;

const MANIFEST: &str = r#"
format = "kernel/1"
name = "engine-decode"
source = "src/attention.hip"
stage = "decode"
include_dirs = ["include"]
defines = { STRIDE = "={head_dim + pad}" }

[params]
pad = [1, 3]

[scratch]
partial = "f32: batch * num_heads * (head_dim + pad)"

[[launch]]
entry = "engine::kernels::attend<{kv}, {head_dim}>"
args = [
    "q", "k", "v", "partial", "null", "seq_lens", "u32:group", "u32:capacity", "f32:scale",
]
grid = ["num_heads", "batch", 1]
block = ["head_dim", 1, 1]
shared_bytes = "4 * max(1, seq_len)"

[[launch]]
entry = "engine::kernels::divide"
args = ["partial", "out", "u32:head_dim"]
grid = ["num_heads", "batch", 1]
block = ["head_dim", 1, 1]

[supports]
dtype = [{ q = "f32", kv = "f32", out = "f32" }, { q = "f16", kv = "f16", out = "f32" }]
head_dim = { one_of = [8, 64, 80] }
seq_len = { min = 0, max = 16384 }
"#;

/// A namespaced entry, a templated one, include directories, `extern __shared__`, a null argument,
/// a definition from an expression, scratch and two launches: all through the manifest alone.
#[test]
fn a_kernel_of_a_users_own_runs_through_its_manifest_alone() {
    let bench = Bench::new();
    bench.write("engine/include/math/number.h", HEADER);
    let source = bench.write("engine/src/attention.hip", SOURCE);
    let manifest = bench.write("engine/attention.toml", MANIFEST);
    let manifest = manifest.to_str().expect("a plain path");
    let sweep = ["sweep", manifest, "--cases", "120", "--json", "-"];
    let document = bench.run(sweep).ends_with(0).document();
    let kernel = &document["kernels"][0];
    assert_eq!((&kernel["name"], &kernel["cases"]), (&"engine-decode".into(), &120.into()));
    assert_eq!(kernel["by_wave"].as_object().expect("waves").len(), 2);
    assert_eq!(kernel["drawn"]["head_dim"].as_object().expect("sizes").len(), 3, "{kernel:#}");

    // And it is judged: the same kernel with a key too few is wrong.
    let less = SOURCE.replacen("n < lens[b]; n += HEAD_DIM", "n + 1 < lens[b]; n += HEAD_DIM", 1);
    assert_ne!(less, SOURCE);
    std::fs::write(source, less).expect("written");
    let document = bench.run(sweep).ends_with(1).document();
    let property = &document["kernels"][0]["failures"][0]["property"];
    assert!(property == "oracle" || property == "repeat", "{document:#}");
}
