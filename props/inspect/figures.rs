//! Planted kernels: each figure moves with what it counts.

use super::super::bench::Bench;
use super::{builder, plant, rows};
use attnbench::inspect::Row;

/// `N` values a thread, all live through a loop.
const LIVE: &str = "
template <int N>
__device__ void live(const float *q, float *out) {
    float v[N];
#pragma unroll
    for (int i = 0; i < N; ++i) v[i] = q[i * 1024 + threadIdx.x];
    for (int n = (int)q[0]; n > 0; --n) {
#pragma unroll
        for (int i = 0; i < N; ++i) v[i] = v[i] * v[(i + 1) % N] + q[n];
    }
#pragma unroll
    for (int i = 0; i < N; ++i) out[i * 1024 + threadIdx.x] = v[i];
}
__global__ void __launch_bounds__(BOUND) k(const float *q, const float *, const float *, float *out) {
    live<COUNT>(q, out);
}
";

const INDEXED: &str = "
__global__ void k(const float *q, const float *k, const float *v, float *out) {
    float part[24];
    for (int i = 0; i < 24; ++i) part[i] = q[i];
    for (int i = 0; i < 64; ++i) part[((const int *)k)[i]] += v[i];
    for (int i = 0; i < 24; ++i) out[i] = part[((const int *)k)[i + 99]];
}
";

const COPY: &str = "
__global__ void k(const T *q, const T *, const T *, T *out) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    const T x = q[i];
    __syncthreads();
    out[i] = x;
}
";

fn only(bench: &Bench, kernel: &str, arch: &str) -> Row {
    let ran = bench.run(["inspect", kernel, "--arch", arch, "--json", "-"]).ends_with(0);
    let mut rows = rows(&ran);
    assert_eq!(rows.len(), 1, "{ran:?}");
    rows.remove(0)
}

fn live(count: u32, bound: u32) -> String {
    LIVE.replace("COUNT", &count.to_string()).replace("BOUND", &bound.to_string())
}

#[test]
fn too_many_live_values_spill_and_launch_bounds_decide() {
    if builder().is_none() {
        return;
    }
    let bench = Bench::new();
    let tight = plant(&bench, "tight", "k", "[1024, 1, 1]", &live(110, 1024));
    let loose = plant(&bench, "loose", "k", "[64, 1, 1]", &live(110, 64));
    for arch in ["gfx90a", "gfx1100"] {
        let (tight, loose) = (only(&bench, &tight, arch), only(&bench, &loose, arch));
        assert!(tight.spills() && tight.scratch_bytes > 0, "{tight:?}");
        assert!(tight.counts.unwrap().scratch > 0, "{tight:?}");
        assert!(!loose.spills() && loose.scratch_bytes == 0 && loose.vgprs > 192, "{loose:?}");
        assert_eq!((tight.max_threads, loose.max_threads), (Some(1024), Some(64)));
        assert_eq!(loose.occupancy.unwrap().limit, "vgpr");
    }
    let denied = |what| ["inspect", &tight, "--arch", "gfx90a", "--deny", what];
    bench.run(denied("spills")).ends_with(1);
    let said = bench.run(denied("scratch")).ends_with(1).stdout;
    assert!(said.contains("do not fit and were spilled"), "{said}");
    bench.run(["inspect", &loose, "--arch", "gfx90a", "--deny", "spills,scratch"]).ends_with(0);
}

#[test]
fn an_array_indexed_at_run_time_lies_in_scratch() {
    if builder().is_none() {
        return;
    }
    let bench = Bench::new();
    let kernel = plant(&bench, "indexed", "k", "[64, 1, 1]", INDEXED);
    for arch in ["gfx942", "gfx1201"] {
        let row = only(&bench, &kernel, arch);
        assert!(row.scratch_bytes >= 96 && !row.spills(), "{row:?}");
        assert!(row.counts.unwrap().scratch > 0, "{row:?}");
    }
    let said = bench.run(["inspect", &kernel, "--deny", "scratch"]).ends_with(1).stdout;
    assert!(said.contains("scratch a thread and no spill: an array"), "{said}");
}

#[test]
fn widths_barriers_and_lines_are_those_of_the_source() {
    if builder().is_none() {
        return;
    }
    let bench = Bench::new();
    for (name, ty) in [("wide", "float4"), ("narrow", "float"), ("half", "unsigned short")] {
        plant(&bench, name, "k", "[256, 1, 1]", &COPY.replace("T ", &format!("{ty} ")));
    }
    for arch in ["gfx90a", "gfx942", "gfx1100", "gfx1201"] {
        let counts = |name: &str| only(&bench, &format!("{name}.toml"), arch).counts.unwrap();
        let (wide, narrow, half) = (counts("wide"), counts("narrow"), counts("half"));
        assert_eq!((wide.loads.b16, wide.loads.sum(), wide.stores.b16), (1, 1, 1), "{arch}");
        assert_eq!((narrow.loads.b4, narrow.loads.sum(), narrow.stores.b4), (1, 1, 1), "{arch}");
        let on_target = only(&bench, "wide.toml", arch);
        assert_eq!((on_target.lds_static_bytes, on_target.scratch_bytes), (0, 0), "{arch}");
        assert_eq!((half.loads.less, half.loads.sum(), half.stores.less), (1, 1, 1), "{arch}");
        assert_eq!((wide.barriers, wide.matrix), (1, 0), "{arch}");
        assert!(wide.waits > 0, "{arch}");
    }
    let asm = bench.run(["inspect", "wide.toml", "--asm"]).ends_with(0).stdout;
    let at = asm.find("; wide.hip:5: const float4 x = q[i];").unwrap_or_else(|| panic!("{asm}"));
    assert!(asm[at..].contains("global_load_dwordx4"), "{asm}");
}

#[test]
fn what_the_launch_asks_for_and_cannot_have_is_a_fault() {
    if builder().is_none() {
        return;
    }
    let bench = Bench::new();
    let block = plant(&bench, "block", "k", "[256, 1, 1]", &live(8, 128));
    let ran = bench.run(["inspect", &block, "--json", "-"]).ends_with(1);
    let fault = rows(&ran)[0].fault.clone().unwrap();
    assert!(fault.contains("256 threads") && fault.contains("at most 128"), "{fault}");
    let lds = plant(
        &bench,
        "lds",
        "k",
        "[64, 1, 1]\nshared_bytes = 70000",
        "__global__ void k(const float *q, const float *, const float *, float *out) { out[0] = q[1]; }",
    );
    let said = bench.run(["inspect", &lds]).ends_with(1).stdout;
    assert!(said.contains("asks for 70000 bytes of LDS, gfx942 has 65536"), "{said}");
}

#[test]
fn a_result_is_compared_with_an_earlier_one() {
    if builder().is_none() {
        return;
    }
    let bench = Bench::new();
    let kernel = plant(&bench, "changed", "k", "[64, 1, 1]", &live(20, 64));
    let old = ["inspect", &kernel, "--json", "old.json"];
    bench.run(old).ends_with(0);
    let compare = ["inspect", &kernel, "--compare", "old.json", "--deny", "worse"];
    let same = bench.run(compare).ends_with(0).stdout;
    assert!(same.contains("compared: 0 figures worse, 0 better"), "{same}");
    plant(&bench, "changed", "k", "[64, 1, 1]", &live(150, 64));
    let worse = bench.run(compare).ends_with(1).stdout;
    assert!(worse.contains("worse  changed k gfx942 wave 64: occupancy 8 -> "), "{worse}");
    bench.run(["inspect", &kernel, "--compare", "old.json"]).ends_with(0);
    plant(&bench, "changed", "k", "[64, 1, 1]", &live(8, 64));
    let better = bench.run(compare).ends_with(0).stdout;
    assert!(better.contains("other  changed k gfx942 wave 64: vgprs "), "{better}");
}

/// Every name of the headers compiles on every kind of target, for both wave sizes of RDNA.
#[test]
fn the_headers_have_what_they_promise() {
    if builder().is_none() {
        return;
    }
    let bench = Bench::new();
    let features = include_str!("features.hip");
    let kernel = plant(&bench, "features", "features", "[256, 1, 1]", features);
    let ran = bench.run([
        "inspect",
        &kernel,
        "--arch",
        "gfx906,gfx908,gfx90a,gfx942,gfx1030,gfx1100,gfx1201",
    ]);
    ran.ends_with(0);
    bench.run(["inspect", &kernel, "--arch", "gfx1100", "--wave", "64"]).ends_with(0);
}
