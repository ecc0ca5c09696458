//! What a kernel's constructs mean: blocks, waves, shared memory, orders.

use std::collections::HashSet;

use attnbench::device::{Arg, Device, ParamKind};

use super::{LIMIT, clang_device, compile, device, launch, run_words};

const ADD: &str = r#"
#include <hip/hip_runtime.h>
#include <hip/hip_fp16.h>
#include <hip/hip_bf16.h>
namespace engine { namespace kernels {
template <typename T, int SCALE>
__global__ void add(const T* a, const T* b, T* c, unsigned n) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) c[i] = a[i] + b[i] * T(SCALE);
}
} }
"#;

#[test]
fn a_templated_namespaced_kernel_adds_f16_and_bf16() {
    let mut device = device();
    let entries = ["engine::kernels::add<__half, 2>", "engine::kernels::add<__hip_bfloat16, 2>"];
    let module = compile(&device, ADD, &entries, 64);
    let pointer = ParamKind::Pointer;
    let params = vec![pointer, pointer, pointer, ParamKind::Int(4)];
    assert_eq!(*module.params, vec![Some(params.clone()), Some(params)]);
    let n = 1000usize;
    for entry in 0..2 {
        let value = |i: usize| i as f32 * 0.37 - 150.0;
        let bits = |x: f32| match entry {
            0 => half::f16::from_f32(x).to_bits(),
            _ => half::bf16::from_f32(x).to_bits(),
        };
        let arena = device.arena(6 * n).unwrap();
        for i in 0..n {
            arena[2 * i..][..2].copy_from_slice(&bits(value(i)).to_le_bytes());
            arena[2 * n + 2 * i..][..2].copy_from_slice(&bits(value(n - i)).to_le_bytes());
        }
        let at = |k: usize| Arg::Address(2 * n * k);
        let args = [at(0), at(1), at(2), Arg::Bits32(n as u32)];
        device.run(&[launch(&module, entry, 8, 128, &args)], 1, LIMIT).unwrap();
        let arena = device.arena(6 * n).unwrap();
        for i in 0..n {
            let got = u16::from_le_bytes([arena[4 * n + 2 * i], arena[4 * n + 2 * i + 1]]);
            let want = match entry {
                0 => {
                    let [a, b] = [value(i), value(n - i)].map(half::f16::from_f32);
                    (a + b * half::f16::from_f32(2.0)).to_bits()
                }
                _ => {
                    let [a, b] = [value(i), value(n - i)].map(half::bf16::from_f32);
                    (a + b * half::bf16::from_f32(2.0)).to_bits()
                }
            };
            assert_eq!(got, want, "entry {entry}, element {i}");
        }
    }
}

const REDUCE: &str = r#"
#include <hip/hip_runtime.h>
// The sum of a block's numbers, by halving in shared memory.
extern "C" __global__ __launch_bounds__(256) void tree(const unsigned* in, unsigned* out) {
    __shared__ unsigned part[256];
    unsigned t = threadIdx.x, n = blockDim.x;
    part[t] = in[blockIdx.x * n + t];
    __syncthreads();
    for (unsigned half = n / 2; half > 0; half /= 2) {
        if (t < half) part[t] += part[t + half];
#ifndef NO_BARRIER
        __syncthreads();
#endif
    }
    if (t == 0) out[blockIdx.x] = part[0];
}
// The same by shuffles, over waves of which the last may be partial.
extern "C" __global__ void waves(const unsigned* in, unsigned* out, int n) {
    int t = threadIdx.x, lane = t % warpSize, wave = t / warpSize;
    unsigned v = t < n ? in[t] : 0;
    for (int d = warpSize / 2; d > 0; d /= 2) {
        unsigned other = __shfl_down(v, d);
        if (t + d < n && lane + d < warpSize) v += other;
    }
    if (lane == 0) out[wave] = v;
}
"#;

/// Numbers whose sums wrap, so that a lost or doubled one is always seen.
fn numbers(n: usize) -> Vec<u32> {
    (0..n as u32).map(|i| (i + 1).wrapping_mul(0x9e37_79b9)).collect()
}

fn sum(words: &[u32]) -> u32 {
    words.iter().fold(0, |a, &b| a.wrapping_add(b))
}

#[test]
fn a_barrier_reduction_sums_at_both_waves_in_every_order() {
    let mut device = device();
    for wave in [32, 64] {
        let module = compile(&device, REDUCE, &["tree"], wave);
        let mut words = numbers(4 * 256);
        let want: Vec<u32> = words.chunks(256).map(sum).collect();
        words.extend([0; 4]);
        for seed in 0..50 {
            let args = [Arg::Address(0), Arg::Address(4 * 1024)];
            let after =
                run_words(&mut device, launch(&module, 0, 4, 256, &args), seed, &words).unwrap();
            assert_eq!(after[1024..], want, "wave {wave}, seed {seed}");
        }
    }
}

#[test]
fn a_missing_barrier_shows_in_most_orders() {
    let mut device = device();
    let text = format!("#define NO_BARRIER\n{REDUCE}");
    let module = compile(&device, &text, &["tree"], 64);
    let mut words = numbers(256);
    let want = sum(&words);
    words.push(0);
    let args = [Arg::Address(0), Arg::Address(4 * 256)];
    let wrong = (0..50)
        .filter(|&seed| {
            let launch = launch(&module, 0, 1, 256, &args);
            run_words(&mut device, launch, seed, &words).unwrap()[256] != want
        })
        .count();
    assert!(wrong >= 45, "{wrong} of 50 orders show it");
}

#[test]
fn shuffles_sum_whole_and_partial_waves() {
    let mut device = device();
    for wave in [32u32, 64] {
        let module = compile(&device, REDUCE, &["waves"], wave);
        for threads in [1, 31, 32, 33, 64, 65, 100, 128, 1024] {
            let mut words = numbers(threads);
            let want: Vec<u32> = words.chunks(wave as usize).map(sum).collect();
            words.resize(threads + want.len(), 7);
            let args = [Arg::Address(0), Arg::Address(4 * threads), Arg::Bits32(threads as u32)];
            for seed in 0..5 {
                let launch = launch(&module, 0, 1, threads as u32, &args);
                let after = run_words(&mut device, launch, seed, &words).unwrap();
                assert_eq!(after[threads..], want, "wave {wave}, {threads} threads, seed {seed}");
            }
        }
    }
}

const LANES: &str = r#"
#include <hip/hip_runtime.h>
// Every form, 16 words a thread.
extern "C" __global__ void forms(unsigned* out) {
    unsigned t = threadIdx.x, lane = t % warpSize;
    unsigned* o = out + 16 * t;
    o[0] = __shfl(t, 5);
    o[1] = __shfl(t, 3, 8);
    o[2] = __shfl_up(t, 2);
    o[3] = __shfl_up(t, 3, 16);
    o[4] = __shfl_down(t, 2);
    o[5] = __shfl_down(t, 3, 16);
    o[6] = __shfl_xor(t, 1);
    o[7] = __shfl_xor(t, 12, 16);
    unsigned long long b = __ballot(t % 3 == 0);
    o[8] = (unsigned)b;
    o[9] = (unsigned)(b >> 32);
    o[10] = __any(lane == 7) * 2 + __all(lane < 60);
    double d = __shfl_xor(1.0 / (t + 1), 1);
    o[11] = (unsigned)(1.0 / d + 0.5);
    // Halves of a wave apart, by mask.
    unsigned long long low = (1ull << warpSize / 2) - 1, mask = lane < warpSize / 2 ? low : low << warpSize / 2;
    if (lane < warpSize / 2) o[12] = __shfl_xor_sync(mask, t, 1);
    else o[12] = 1000 + __shfl_xor_sync(mask, t, 2);
    o[13] = __popcll(__ballot_sync(mask, 1));
    o[14] = __syncthreads_count(t % 5 == 0);
    o[15] = __syncthreads_or(t == 3) * 2 + __syncthreads_and(t < 1000);
}
// The lanes of a branch exchange among themselves, as active lanes do on the hardware.
extern "C" __global__ void branch(unsigned* out) {
    unsigned t = threadIdx.x, v = 0;
    if (t < 16) v = __shfl_xor(t, 1) + 100 * __popcll(__ballot(1));
    __syncthreads();
    out[t] = v;
}
// Threads that have returned count as arrived.
extern "C" __global__ void early(unsigned* out) {
    unsigned t = threadIdx.x;
    if (t >= 40) return;
    __syncthreads();
    out[t] = __popcll(__ballot(1));
}
"#;

#[test]
fn every_shuffle_and_vote_reads_the_lane_it_names() {
    let mut device = device();
    for wave in [32usize, 64] {
        let module = compile(&device, LANES, &["forms"], wave as u32);
        let n = 128;
        let launch = launch(&module, 0, 1, n as u32, &[Arg::Address(0)]);
        let got = run_words(&mut device, launch, 3, &vec![0; 16 * n]).unwrap();
        for t in 0..n {
            let (base, lane) = (t / wave * wave, t % wave);
            let within = |lane: i64, width: usize, other: i64| -> u32 {
                let group = lane as usize / width * width;
                let inside = (group as i64..(group + width) as i64).contains(&other);
                (base as i64 + if inside { other } else { lane }) as u32
            };
            let l = lane as i64;
            let votes: u64 = (0..wave).filter(|i| (base + i) % 3 == 0).fold(0, |v, i| v | 1 << i);
            let half = if lane < wave / 2 { t ^ 1 } else { 1000 + (t ^ 2) };
            let want = [
                (base + 5) as u32,
                (base + lane / 8 * 8 + 3) as u32,
                within(l, wave, l - 2),
                within(l, 16, l - 3),
                within(l, wave, l + 2),
                within(l, 16, l + 3),
                (t ^ 1) as u32,
                within(l, 16, l ^ 12),
                votes as u32,
                (votes >> 32) as u32,
                2 + u32::from(wave == 32),
                (t ^ 1) as u32 + 1,
                half as u32,
                wave as u32 / 2,
                26,
                3,
            ];
            assert_eq!(got[16 * t..16 * t + 16], want, "wave {wave}, thread {t}");
        }
    }
}

#[test]
fn lanes_of_a_branch_and_after_a_return_are_on_their_own() {
    let mut device = device();
    let module = compile(&device, LANES, &["branch", "early"], 64);
    for seed in 0..20 {
        let branch = launch(&module, 0, 1, 64, &[Arg::Address(0)]);
        let got = run_words(&mut device, branch, seed, &[9; 64]).unwrap();
        let want: Vec<u32> = (0..64).map(|t| if t < 16 { (t ^ 1) + 1600 } else { 0 }).collect();
        assert_eq!(got, want);
        let early = launch(&module, 1, 1, 64, &[Arg::Address(0)]);
        let got = run_words(&mut device, early, seed, &[9; 64]).unwrap();
        let want: Vec<u32> = (0..64).map(|t| if t < 40 { 40 } else { 9 }).collect();
        assert_eq!(got, want);
    }
}

/// Lanes 16 to 31 have returned and the block ends at lane 40 of 64.
const ABSENT: &str = r#"
#include <hip/hip_runtime.h>
extern "C" __global__ void absent(unsigned* out) {
    unsigned t = threadIdx.x, all = __shfl_xor(t + 1, 1);
    if (t / 16 == 1) return;
    out[t] = 100 * __shfl_down(all, 8) + __shfl(t, t + 16);
}
"#;

#[test]
fn a_lane_that_reads_an_absent_one_keeps_its_own() {
    let mut device = device();
    let module = compile(&device, ABSENT, &["absent"], 64);
    for seed in 0..5 {
        let launch = launch(&module, 0, 2, 40, &[Arg::Address(0)]);
        let got = run_words(&mut device, launch, seed, &[7; 40]).unwrap();
        let here = |t: usize| t < 16 || (32..40).contains(&t);
        let other = |t: usize, source: usize| if here(source) { source } else { t };
        let want: Vec<u32> = (0..40)
            .map(|t| if here(t) { 100 * ((other(t, t + 8) ^ 1) + 1) + other(t, t + 16) } else { 7 })
            .map(|word| word as u32)
            .collect();
        assert_eq!(got, want, "seed {seed}");
    }
}

const SHARED: &str = r#"
#include <hip/hip_runtime.h>
#include <hip/hip_fp16.h>
extern "C" __global__ void turn(const unsigned* in, unsigned* out) {
    extern __shared__ unsigned tile[];
    tile[threadIdx.x] = in[threadIdx.x];
    __syncthreads();
    out[threadIdx.x] = tile[blockDim.x - 1 - threadIdx.x];
}
namespace deep {
template <class T> __global__ void twice(const T* in, T* out) {
    extern __shared__ __attribute__((aligned(16))) char raw[];
    __shared__ T fixed[64];
    T* tile = reinterpret_cast<T*>(raw);
    tile[threadIdx.x] = in[threadIdx.x];
    fixed[threadIdx.x] = in[threadIdx.x];
    __syncthreads();
    out[threadIdx.x] = tile[threadIdx.x ^ 1] + fixed[threadIdx.x ^ 2];
}
}
// What shared memory holds before anyone writes it.
extern "C" __global__ void stale(unsigned* out) {
    extern __shared__ float dynamic[];
    __shared__ float fixed[4];
    __shared__ __half halves[4];
    out[0] = dynamic[63] != dynamic[63];
    out[1] = fixed[3] != fixed[3];
    out[2] = (float)halves[3] != (float)halves[3];
    __syncthreads();
    dynamic[63] = fixed[3] = 1.0f;
    halves[3] = 1.0f;
}
"#;

#[test]
fn dynamic_and_static_shared_memory_hold_a_block_each() {
    let mut device = device();
    let module = compile(&device, SHARED, &["turn", "deep::twice<unsigned>", "stale"], 32);
    let mut words = numbers(64);
    words.resize(128, 0);
    let args = [Arg::Address(0), Arg::Address(256)];
    let mut with = |entry: usize, threads, args: &[Arg]| {
        let mut launch = launch(&module, entry, 3, threads, args);
        launch.shared_bytes = 256;
        run_words(&mut device, launch, 5, &words).unwrap()
    };
    let turned: Vec<u32> = words[..64].iter().rev().copied().collect();
    assert_eq!(with(0, 64, &args)[64..], turned);
    let twice: Vec<u32> = (0..64).map(|t: usize| words[t ^ 1].wrapping_add(words[t ^ 2])).collect();
    assert_eq!(with(1, 64, &args)[64..], twice);
    // Three blocks: the second and third find what the first left, were it not poisoned again.
    assert_eq!(with(2, 1, &args[..1])[..3], [1, 1, 1]);
}

const ORDER: &str = r#"
#include <hip/hip_runtime.h>
extern "C" __global__ void order(unsigned* next, unsigned* out) {
    unsigned id = blockIdx.x * blockDim.x + threadIdx.x;
    out[atomicAdd(next, 1)] = id;
    __syncthreads();
    out[atomicAdd(next, 1)] = id;
    __shfl_xor(id, 1);
    out[atomicAdd(next, 1)] = id;
}
"#;

#[test]
fn a_seed_fixes_the_order_and_seeds_differ() {
    let (mut one, mut two) = (device(), device());
    let module = compile(&one, ORDER, &["order"], 32);
    let mut seen = HashSet::new();
    for seed in 0..10 {
        let n = 3 * 4 * 96;
        let args = [Arg::Address(0), Arg::Address(4)];
        let order = launch(&module, 0, 4, 96, &args);
        let got = run_words(&mut one, order.clone(), seed, &vec![0; n + 1]).unwrap();
        assert_eq!(got, run_words(&mut two, order, seed, &vec![0; n + 1]).unwrap());
        let mut ids = got[1..].to_vec();
        // Blocks run one after another, and threads between barriers in no natural order.
        let natural = ids.windows(2).filter(|pair| pair[1] == pair[0] + 1).count();
        assert!(natural < n / 4, "seed {seed}: {natural} natural steps of {n}");
        ids.sort();
        assert!(ids.chunks(3).enumerate().all(|(id, chunk)| chunk == [id as u32; 3]));
        seen.insert(got);
    }
    assert_eq!(seen.len(), 10, "each seed has its own order");
}

/// What the tests above do with the first compiler found, once more with clang.
#[test]
fn clang_builds_kernels_that_do_the_same() {
    let Some(mut device) = clang_device() else { return };
    assert!(device.describe().contains("clang++"), "{}", device.describe());
    for wave in [32, 64] {
        let module = compile(&device, REDUCE, &["tree", "waves"], wave);
        let mut words = numbers(256);
        words.extend([0; 8]);
        let args = [Arg::Address(0), Arg::Address(1024), Arg::Bits32(256)];
        for seed in 0..5 {
            let tree = launch(&module, 0, 1, 256, &args[..2]);
            let got = run_words(&mut device, tree, seed, &words).unwrap();
            assert_eq!(got[256], sum(&words[..256]));
            let waves = launch(&module, 1, 1, 256, &args);
            let got = run_words(&mut device, waves, seed, &words).unwrap();
            let want: Vec<u32> = words[..256].chunks(wave as usize).map(sum).collect();
            assert_eq!(got[256..256 + want.len()], want);
        }
        let module = compile(&device, SHARED, &["turn", "deep::twice<unsigned>", "stale"], wave);
        let mut words = numbers(64);
        words.resize(128, 0);
        for (entry, count) in [(0, 2), (1, 2), (2, 1)] {
            let mut launch = launch(&module, entry, 2, 64, &args[..count]);
            launch.args[count - 1] = Arg::Address(if count == 2 { 256 } else { 0 });
            launch.shared_bytes = 256;
            let got = run_words(&mut device, launch, 1, &words).unwrap();
            let want = |t: usize| match entry {
                0 => words[63 - t],
                _ => words[t ^ 1].wrapping_add(words[t ^ 2]),
            };
            match entry {
                2 => assert_eq!(got[..3], [1, 1, 1]),
                _ => assert!((0..64).all(|t| got[64 + t] == want(t)), "entry {entry}"),
            }
        }
    }
}
