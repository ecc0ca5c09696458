//! Kernels mean the same under the checker as without it, whatever of HIP they use; and what is
//! right is not reported.

use attnbench::device::{Device, Fault};

use super::*;

const SOURCE: &str = r#"
#include <hip/hip_runtime.h>
#include <hip/hip_fp16.h>
#include <hip/hip_bf16.h>

struct alignas(16) Pair { double first; float second; char tag; };
__device__ int calls = 0;
__constant__ float TABLE[4] = {1.0f, 2.0f, 3.0f, 4.0f};

__attribute__((noinline)) __device__ float apart(const float* x, int i) { return x[i] * 2.0f; }

template <typename T>
__device__ unsigned through_shared(T value) {
    __shared__ T tile[128];
    const int t = threadIdx.x;
    tile[t] = value;
    __syncthreads();
    const T other = tile[(t + 1) % blockDim.x];
    __syncthreads();
    return (unsigned)(float)other;
}

__device__ void mix(unsigned& sum, unsigned long long x) { sum = sum * 31u + (unsigned)(x ^ x >> 32); }

__device__ unsigned waves(int t) {
    unsigned sum = 0;
    const unsigned long long all = ~0ull;
    mix(sum, __shfl(t, 3));
    mix(sum, __shfl_up(t, 2));
    mix(sum, __shfl_down(t, 2));
    mix(sum, __shfl_xor(t, 5));
    for (int width = 2; width <= warpSize; width *= 2) {
        mix(sum, __shfl(t, 1, width));
        mix(sum, __shfl_up_sync(all, t, 1, width));
        mix(sum, __shfl_down_sync(all, t, 1, width));
        mix(sum, __shfl_xor_sync(all, t, 1, width));
    }
    mix(sum, __float_as_uint(__shfl_sync(all, (float)t, 7)));
    mix(sum, __double_as_longlong(__shfl_xor((double)t, 1)));
    mix(sum, __ballot(t % 3 == 0));
    mix(sum, __ballot_sync(all, t % 5 == 0));
    mix(sum, __any(t == 9) + 2 * __all(t >= 0) + 4 * __any_sync(all, t == 200));
    mix(sum, __all_sync(all, t < 100));
    mix(sum, __popcll(__activemask()));
    const int half = warpSize / 2, lane = t % warpSize;
    const unsigned long long mine = ((1ull << half) - 1) << (lane < half ? 0 : half);
    if (lane < half) mix(sum, __shfl_xor_sync(mine, t, 1));
    else mix(sum, __shfl_sync(mine, t, half));
    __syncwarp(mine);
    __syncwarp();
    return sum;
}

extern "C" __global__ void features(float* out, const float* in, const float* kv, float* scratch, int n) {
    extern __shared__ char dynamic[];
    const int t = threadIdx.x + threadIdx.y * blockDim.x;
    const int i = blockIdx.x * blockDim.x + t;
    unsigned sum = waves(t);

    mix(sum, __syncthreads_count(t % 3 == 0));
    mix(sum, __syncthreads_or(t == 77));
    mix(sum, __syncthreads_and(t != 5));

    mix(sum, through_shared<char>((char)(t % 100)));
    mix(sum, through_shared<unsigned short>((unsigned short)t));
    mix(sum, through_shared<int>(t * 3));
    mix(sum, through_shared<float>(t * 0.5f));
    mix(sum, through_shared<double>(t * 1.5));
    mix(sum, through_shared<__half>(__half((float)t)));
    mix(sum, through_shared<__hip_bfloat16>(__hip_bfloat16((float)t)));

    __shared__ Pair pairs[128];
    pairs[t] = Pair{(double)t, 1.0f, 'x'};
    float4* vectors = reinterpret_cast<float4*>(dynamic);
    vectors[t] = *reinterpret_cast<const float4*>(in + 4 * (i % 200));
    __half2* halves = reinterpret_cast<__half2*>(scratch);
    halves[i] = __floats2half2_rn(in[i], 1.0f);
    __syncthreads();
    const Pair other = pairs[t ^ 1];
    const float4 v = vectors[t ^ 2];
    mix(sum, (unsigned)(other.first + other.second) + (other.tag == 'x'));
    mix(sum, (unsigned)(v.x + v.y + v.z + v.w + TABLE[t % 4] + kv[t % 24] + apart(in, t)));
    mix(sum, (unsigned)__high2float(halves[i]));

    __shared__ int counter;
    __shared__ unsigned most;
    if (t == 0) { counter = 0; most = 0; }
    __syncthreads();
    atomicAdd(&counter, t);
    atomicMax(&most, (unsigned)t);
    __syncthreads();
    mix(sum, counter + most);
    int copy[4];
    memcpy(copy, in + i, sizeof copy);
    mix(sum, copy[0] ^ copy[3]);
    if (t == 0) atomicAdd(&calls, 1);
    if (t == 0 && blockIdx.x == 0) printf("a kernel says %d\n", n);
    assert(n > 0);
    out[i] = (float)(sum % 1000003u);
}

// Blocks hand over through an atomic ticket; the last one sums what all have left.
extern "C" __global__ void last_block(float* out, const float* in, const float* kv, float* scratch, int n) {
    __shared__ bool last;
    scratch[blockIdx.x * blockDim.x + threadIdx.x] = in[threadIdx.x] + blockIdx.x;
    __threadfence();
    __syncthreads();
    unsigned* ticket = reinterpret_cast<unsigned*>(scratch + 1023);
    if (threadIdx.x == 0) last = atomicAdd(ticket, 1u) == gridDim.x - 1;
    __syncthreads();
    if (last) {
        float sum = 0.0f;
        for (unsigned b = 0; b < gridDim.x; ++b) sum += scratch[b * blockDim.x + threadIdx.x];
        out[threadIdx.x] = sum;
    }
}

// A wave waits for another through shared memory, by atomics that order.
extern "C" __global__ void handshake(float* out, const float* in, const float* kv, float* scratch, int n) {
    __shared__ int flag;
    __shared__ float value;
    const int wave = threadIdx.x / warpSize;
    if (threadIdx.x == 0) __hip_atomic_store(&flag, 0, __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_WORKGROUP);
    __syncthreads();
    if (threadIdx.x == 0) {
        value = in[n];
        __hip_atomic_store(&flag, 1, __ATOMIC_RELEASE, __HIP_MEMORY_SCOPE_WORKGROUP);
    } else if (wave == 1) {
        while (__hip_atomic_load(&flag, __ATOMIC_ACQUIRE, __HIP_MEMORY_SCOPE_WORKGROUP) == 0) {}
        out[threadIdx.x] = value;
    }
}

// What looks like a fault and is none: each has been one to some checker.
struct Best { float score; bool valid; };
__device__ __noinline__ float chosen(const Best& best) { return best.valid ? best.score : 0.0f; }
extern "C" __global__ void unusual(float* out, const float* in, const float* kv, float* scratch, int n) {
    __shared__ bool flags[128];
    __shared__ unsigned char bytes[128];
    __shared__ Best best[128];
    __shared__ float part[128];
    __shared__ int full, turn;
    __shared__ int cleared[128];
    const int t = threadIdx.x, lane = t % warpSize, wave = t / warpSize;
    // Neighbouring bytes are of different threads.
    flags[t] = t % 3 == 0;
    bytes[t] = (unsigned char)t;
    // A copy of a struct copies its padding.
    best[t] = Best{in[t], t % 2 == 0};
    if (t == 0) { memset(cleared, 0, sizeof cleared); full = 0; turn = 0; }
    part[t] = 0.0f;
    __syncthreads();
    const Best other = best[127 - t];
    float sum = flags[127 - t] + bytes[127 - t] + chosen(other) + cleared[t];
    // The end of a row of lanes takes nothing, and adds nothing.
    float tail = in[t];
    for (int offset = 1; offset < warpSize; offset *= 2) {
        const float taken = __shfl_down(tail, offset);
        if (lane + offset < warpSize && t + offset < (int)blockDim.x) tail += taken;
    }
    if (lane == 0) sum += tail;
    __syncthreads();
    // Some lanes of a wave fill a row, one of them says so, another wave reads it.
    if (wave == 0 && lane < 16) {
        part[t] = in[t];
        __syncwarp(0xffffull);
        if (lane == 0) { __threadfence_block(); atomicAdd(&full, 1); }
    } else if (t == 64 + 20) {
        while (atomicAdd(&full, 0) == 0) {}
        __threadfence_block();
        for (int i = 0; i < 16; ++i) sum += part[i];
    }
    __syncthreads();
    // A token goes round the waves, spun on.
    const int waves = blockDim.x / warpSize;
    for (int round = 0; round < 10; ++round) {
        if (lane == 0) {
            while (atomicAdd(&turn, 0) != round * waves + wave) {}
            __threadfence_block();
            part[0] += 1.0f;
            __threadfence_block();
            int expected = round * waves + wave;
            __hip_atomic_compare_exchange_strong(&turn, &expected, expected + 1, __ATOMIC_ACQ_REL,
                                                 __ATOMIC_ACQUIRE, __HIP_MEMORY_SCOPE_WORKGROUP);
        }
    }
    __syncthreads();
    if (t == 0) sum += part[0];
    out[t] = sum;
}

extern "C" __global__ void stops(float* out, const float* in, const float* kv, float* scratch, int n) {
    if (threadIdx.x == 3 && n == 1) assert(in[0] == 12345.0f);
    if (threadIdx.x == 3 && n == 2) __trap();
    out[threadIdx.x] = in[threadIdx.x];
}
"#;

const ENTRIES: [&str; 5] = ["features", "last_block", "handshake", "unusual", "stops"];
const STOPS: usize = 4;

/// `out` after a launch, in the plain build.
fn plain(device: &mut CpuDevice, module: &Module, entry: usize, shape: Shape) -> Vec<u8> {
    run(device, module, entry, shape, 1, Duration::from_secs(20)).0.expect("it runs");
    let [out, ..] = offsets();
    let end = out + 4 * ELEMENTS;
    device.arena(end).expect("memory")[out..].to_vec()
}

#[test]
fn kernels_mean_the_same_under_the_checker_and_right_ones_are_silent() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("features.hip");
    std::fs::write(&file, SOURCE).expect("written");
    let entries: Vec<String> = ENTRIES.map(str::to_owned).to_vec();
    let mut fast = CpuDevice::new(crate::device::config()).expect("a compiler");
    for mut device in devices() {
        for wave in [32, 64] {
            let source = source(&file, entries.clone(), wave);
            let known = fast.compile(&source).expect("it compiles");
            let module = device.compile(&source).unwrap_or_else(|e| panic!("{e:?}"));
            let shapes = [(0, 5, 2048, 3), (1, 7, 0, 1), (2, 1, 0, 9), (3, 1, 0, 1)];
            for (entry, grid, shared, n) in shapes {
                let shape = Shape { grid, block: 128, shared, n };
                for seed in 1..4 {
                    let (result, found) =
                        run(&mut device, &module, entry, shape, seed, Duration::from_secs(20));
                    let list: Vec<String> = found.iter().map(in_a_line).collect();
                    let what = format!("{} {} wave {wave}", device.describe(), ENTRIES[entry]);
                    assert!(result.is_ok() && found.is_empty(), "{what}: {result:?} {list:#?}");
                    // What a handshake leaves unwritten is what was there.
                    let want = plain(&mut fast, &known, entry, shape);
                    let [out, ..] = offsets();
                    let arena = device.arena(out + 4 * ELEMENTS).expect("memory");
                    let written = [128 * grid as usize, 128, 0, 128][entry];
                    let got = &arena[out..out + 4 * written];
                    assert_eq!(got, &want[..4 * written], "{what}");
                }
            }
        }
    }
}

#[test]
fn asserts_and_traps_end_a_checked_run_as_any_other() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("stops.hip");
    std::fs::write(&file, SOURCE).expect("written");
    for mut device in devices() {
        let module = device
            .compile(&source(&file, ENTRIES.map(str::to_owned).to_vec(), 32))
            .expect("it compiles");
        for (n, words) in [(1, "in[0] == 12345.0f"), (2, "trap")] {
            let shape = Shape { grid: 1, block: 64, shared: 0, n };
            let (result, _) = run(&mut device, &module, STOPS, shape, 1, Duration::from_secs(20));
            match result {
                Err(RunError::Fault(Fault::Trap { what, place })) => {
                    assert!(what.contains(words), "{what}");
                    assert_eq!(place.expect("a place").thread[0], 3);
                }
                other => panic!("{other:?}"),
            }
        }
        let (result, found) = run(
            &mut device,
            &module,
            STOPS,
            Shape { grid: 1, block: 64, shared: 0, n: 3 },
            1,
            Duration::from_secs(20),
        );
        assert!(result.is_ok() && found.is_empty(), "the device can be used again");
    }
}

/// What lockstep orders is no race in its model; what waves do to each other still is.
#[test]
fn the_lockstep_model_orders_the_lanes_of_a_wave_and_nothing_else() {
    let config = CpuConfig { race_model: RaceModel::Lockstep, ..config() };
    let mut device = CpuDevice::new(config).expect("a compiler");
    let file = folder().join("race.hip");
    let names = ["tree_without_syncwarp", "combine_no_barrier", "one_place_for_all_keys"];
    let entries = names.map(|name| format!("{name}<true>")).to_vec();
    for wave in [32, 64] {
        let module = device.compile(&source(&file, entries.clone(), wave)).expect("it compiles");
        for (entry, name) in names.into_iter().enumerate() {
            let shape = suite::shape(&file, name);
            let (result, found) =
                run(&mut device, &module, entry, shape, 1, Duration::from_secs(20));
            assert!(result.is_ok(), "{name} wave {wave}: {result:?}");
            let races = found.iter().any(|f| f.kind.class() == Class::Race);
            let list: Vec<String> = found.iter().map(in_a_line).collect();
            assert_eq!(races, entry != 0, "{name} wave {wave}: {list:?}");
        }
    }
}
