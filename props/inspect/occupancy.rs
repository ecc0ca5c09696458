//! Occupancy against what LLVM says of the same code, over registers, LDS and block sizes.

use super::super::bench::Bench;
use super::builder;
use attnbench::device::Source;
use attnbench::inspect::asm;
use attnbench::inspect::note;
use attnbench::inspect::occupancy::{Use, occupancy, sgpr_waves, vgpr_waves};
use attnbench::inspect::target::Target;

const SOURCE: &str = "
#include <hip/hip_runtime.h>
template <int N, int LDS, int BOUND>
__global__ void __launch_bounds__(BOUND) k(const float *q, float *out) {
    __shared__ volatile char block[LDS + 1];
    if (q[1] == 2) block[threadIdx.x % (LDS + 1)] = 1;
    float v[N];
#pragma unroll
    for (int i = 0; i < N; ++i) v[i] = q[i * 1024 + threadIdx.x];
    for (int n = (int)q[0]; n > 0; --n) {
#pragma unroll
        for (int i = 0; i < N; ++i) v[i] = v[i] * v[(i + 1) % N] + q[n];
    }
#pragma unroll
    for (int i = 0; i < N; ++i) out[i * 1024 + threadIdx.x] = v[i];
    out[0] = block[threadIdx.x % (LDS + 1)];
}
";

/// `AMDGPUSubtarget::getOccupancyWithLocalMemSize` of LLVM 19. It counts LDS to the byte, a block of the
/// largest size, and a part of a wave a SIMD as a whole one, so it can be above the hardware's figure.
fn lds_waves(target: &Target, lds: u32, threads: u32, wave: u32) -> u32 {
    let l = target.limits(wave);
    let block = threads.div_ceil(wave);
    let most_blocks = if block == 1 { 40 } else { (l.waves * l.simds / block).min(l.barriers) };
    let by_lds = l.lds / lds.max(1);
    if by_lds == 0 {
        return 1;
    }
    (by_lds.min(most_blocks) * block).div_ceil(l.simds).min(l.waves)
}

#[test]
fn llvm_counts_the_same_waves() {
    let Some(builder) = builder() else { return };
    if builder.compiler.major() != 19 {
        eprintln!("skipped: the formula is that of LLVM 19, not of {}", builder.compiler.name());
        return;
    }
    let bench = Bench::new();
    let file = bench.write("many.hip", SOURCE);
    let mut entries = Vec::new();
    for live in [4, 40, 70, 110, 180] {
        entries.push(format!("k<{live}, 0, 256>"));
    }
    for (lds, bound) in
        [(5000, 64), (5000, 256), (17000, 128), (17000, 1024), (40000, 64), (60000, 512)]
    {
        entries.push(format!("k<4, {lds}, {bound}>"));
    }
    let mut seen = std::collections::BTreeSet::new();
    for name in [
        "gfx906", "gfx908", "gfx90a", "gfx942", "gfx1010", "gfx1030", "gfx1100", "gfx1102",
        "gfx1201",
    ] {
        let target = Target::parse(name).unwrap();
        let (include_dirs, defines) = (Vec::new(), Vec::new());
        let wave = target.wave();
        let source =
            Source { file: file.clone(), include_dirs, defines, entries: entries.clone(), wave };
        let built = builder.build(&source, &target).unwrap();
        let object = note::read(&built.object).unwrap();
        assert_eq!(object.target, target);
        let functions = asm::functions(&built.assembly);
        for (i, entry) in entries.iter().enumerate() {
            let symbol = asm::entry_symbol(&built.assembly, i).unwrap();
            let k = object.kernels.iter().find(|k| k.name == symbol).unwrap();
            let said = functions.iter().find(|f| f.name == symbol).unwrap().occupancy.unwrap();
            let vgpr = vgpr_waves(&target, wave, k.vgprs);
            let sgpr = sgpr_waves(&target, wave, k.sgprs);
            let lds = lds_waves(&target, k.lds_bytes, k.max_threads, wave);
            assert_eq!(vgpr.min(sgpr).min(lds), said, "{name} {entry}: {k:?}");
            // The hardware's figure is no higher.
            let u = Use {
                vgprs: k.vgprs,
                sgprs: k.sgprs,
                lds: k.lds_bytes,
                threads: k.max_threads,
                wave,
            };
            let ours = occupancy(&target, &u);
            assert!(ours.waves <= f64::from(said), "{name} {entry}: {ours:?}, LLVM {said}");
            seen.insert(ours.limit.name());
        }
    }
    assert!(["full", "lds", "vgpr"].iter().all(|limit| seen.contains(limit)), "{seen:?}");
}
