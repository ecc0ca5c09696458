//! The 16-bit floats of the HIP headers against the `half` crate, bit for bit.

use attnbench::device::cpu::CpuDevice;
use attnbench::device::{Arg, Device};
use attnbench::problem::DType;

use super::{LIMIT, clang_device, compile, device, launch};

const CONVERT: &str = r#"
#include <hip/hip_runtime.h>
#include <hip/hip_fp16.h>
#include <hip/hip_bf16.h>
#define ID (blockIdx.x * blockDim.x + threadIdx.x)
extern "C" __global__ void widen(float* out, float* out_bf) {
    out[ID] = __half2float(__ushort_as_half((unsigned short)ID));
    out_bf[ID] = __bfloat162float(__ushort_as_bfloat16((unsigned short)ID));
}
extern "C" __global__ void narrow(const float* in, unsigned short* out, unsigned short* out_bf) {
    out[ID] = __half_as_ushort(__float2half(in[ID]));
    out_bf[ID] = __bfloat16_as_ushort(__float2bfloat16(in[ID]));
}
extern "C" __global__ void narrow_double(const double* in, unsigned short* out,
                                         unsigned short* out_bf) {
    out[ID] = __half_as_ushort(__half(in[ID]));
    out_bf[ID] = __bfloat16_as_ushort(__hip_bfloat16(in[ID]));
}
// a, b, c of a thread: a + b, a * b, a / b, fma(a, b, c)
template <class T> __global__ void arithmetic(const T* in, T* out) {
    T a = in[3 * ID], b = in[3 * ID + 1], c = in[3 * ID + 2];
    out[4 * ID] = a + b;
    out[4 * ID + 1] = a * b;
    out[4 * ID + 2] = a / b;
    out[4 * ID + 3] = __hfma(a, b, c);
}
"#;

const ENTRIES: [&str; 5] =
    ["widen", "narrow", "narrow_double", "arithmetic<__half>", "arithmetic<__hip_bfloat16>"];

/// A cheap stream of bit patterns.
fn patterns(n: usize, seed: u64) -> impl Iterator<Item = u64> {
    let mut x = seed | 1;
    (0..n).map(move |_| {
        x = x.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        x ^ x >> 29
    })
}

/// NaNs compare as NaNs: which payload survives is the processor's affair.
fn same16(got: u16, want: u16, infinity: u16) -> bool {
    let nan = |x: u16| x & 0x7fff > infinity;
    got == want || (nan(got) && nan(want))
}

/// `x` in a 16-bit format, rounded once: `half` itself goes through f32 where the processor has a
/// conversion from there.
fn once(dtype: DType, x: f64) -> u16 {
    let mut bytes = [0; 2];
    dtype.store(&mut bytes, 0, x);
    u16::from_le_bytes(bytes)
}

/// Runs entry `entry` with `blocks` blocks of 256 over `input`, then `after` zeroed bytes at which
/// the outputs start at these offsets.
fn run(device: &mut CpuDevice, entry: usize, blocks: u32, input: &[u8], outs: &[usize]) -> Vec<u8> {
    let module = compile(device, CONVERT, &ENTRIES, 64);
    let bytes = input.len() + outs.iter().sum::<usize>();
    let arena = device.arena(bytes).unwrap();
    arena[..input.len()].copy_from_slice(input);
    let mut args = if input.is_empty() { vec![] } else { vec![Arg::Address(0)] };
    let mut at = input.len();
    for out in outs {
        args.push(Arg::Address(at));
        at += out;
    }
    device.run(&[launch(&module, entry, blocks, 256, &args)], 0, LIMIT).unwrap();
    device.arena(bytes).unwrap()[input.len()..].to_vec()
}

fn u16s(bytes: &[u8]) -> Vec<u16> {
    bytes.chunks(2).map(|c| u16::from_le_bytes([c[0], c[1]])).collect()
}

fn check(device: &mut CpuDevice) {
    use half::{bf16, f16};
    const N: usize = 65536;

    let wide = run(device, 0, 256, &[], &[4 * N, 4 * N]);
    for (i, bytes) in wide.chunks(4).enumerate() {
        let got = f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        let bits = (i % N) as u16;
        let want =
            if i < N { f16::from_bits(bits).to_f32() } else { bf16::from_bits(bits).to_f32() };
        let same = got.to_bits() == want.to_bits() || (got.is_nan() && want.is_nan());
        assert!(same, "{bits:#06x} is {want:e}, not {got:e}");
    }

    // Every value of both formats, every midpoint, and the neighbours of each; then any bits.
    let around = |x: f32| {
        let bits = x.to_bits();
        [bits.wrapping_sub(1), bits, bits.wrapping_add(1)].map(f32::from_bits)
    };
    let mut floats = Vec::new();
    for bits in 0..N as u32 {
        let wide = f16::from_bits(bits as u16).to_f32();
        floats.extend(around(wide));
        floats.extend(around(f32::from_bits(wide.to_bits() + 0x1000)));
        floats.extend(around(f32::from_bits(bits << 16 | 0x8000)));
    }
    // Halves between the f16 subnormals, where the midpoint is elsewhere in the word.
    floats.extend((0..2048).flat_map(|i| around((i as f32 + 0.5) * 2f32.powi(-24))));
    floats.extend(patterns(1 << 18, 7).map(|x| f32::from_bits(x as u32)));
    floats.truncate(floats.len() / 256 * 256);
    let input: Vec<u8> = floats.iter().flat_map(|x| x.to_le_bytes()).collect();
    let n = floats.len();
    let narrow = u16s(&run(device, 1, (n / 256) as u32, &input, &[2 * n, 2 * n]));
    for (i, &x) in floats.iter().enumerate() {
        let (h, b) = (f16::from_f32(x).to_bits(), bf16::from_f32(x).to_bits());
        assert!(same16(narrow[i], h, 0x7c00), "{x:e} as f16: {:#06x}, not {h:#06x}", narrow[i]);
        assert!(same16(narrow[n + i], b, 0x7f80), "{x:e} as bf16: {:#06x}", narrow[n + i]);
    }

    // Doubles a hair from the midpoints, which a detour through float would round wrongly.
    let mut doubles = Vec::new();
    for bits in (0..N as u32).step_by(3) {
        let h = f16::from_bits(bits as u16).to_f64();
        let next = f16::from_bits(bits as u16 ^ 1).to_f64();
        let b = bf16::from_bits(bits as u16).to_f64();
        let b_next = bf16::from_bits(bits as u16 ^ 1).to_f64();
        for mid in [h / 2.0 + next / 2.0, b / 2.0 + b_next / 2.0] {
            let m = mid.to_bits();
            doubles.extend([m.wrapping_sub(1), m, m.wrapping_add(1)].map(f64::from_bits));
        }
    }
    doubles.truncate(doubles.len() / 256 * 256);
    let input: Vec<u8> = doubles.iter().flat_map(|x| x.to_le_bytes()).collect();
    let n = doubles.len();
    let narrow = u16s(&run(device, 2, (n / 256) as u32, &input, &[2 * n, 2 * n]));
    for (i, &x) in doubles.iter().enumerate() {
        let (h, b) = (once(DType::F16, x), once(DType::BF16, x));
        assert!(same16(narrow[i], h, 0x7c00), "{x:e} as f16: {:#06x}, not {h:#06x}", narrow[i]);
        assert!(same16(narrow[n + i], b, 0x7f80), "{x:e} as bf16: {:#06x}", narrow[n + i]);
    }
}

/// `a b + c`, rounded once: exact in 128-bit integers, for finite operands.
fn fma_once(a: f64, b: f64, c: f64, round: impl Fn(f64) -> u16) -> u16 {
    // p = a b is exact in f64. If c + p is not, the lost part decides ties only: round to odd.
    let p = a * b;
    let s = p + c;
    let big = if p.abs() > c.abs() { p } else { c };
    let small = if p.abs() > c.abs() { c } else { p };
    let lost = small - (s - big);
    if lost == 0.0 || s.to_bits() & 1 == 1 {
        return round(s);
    }
    let away = (lost > 0.0) == (s > 0.0);
    round(f64::from_bits(if away { s.to_bits() + 1 } else { s.to_bits() - 1 }))
}

fn check_arithmetic(device: &mut CpuDevice) {
    use half::{bf16, f16};
    let n = 256 * 400;
    let all: Vec<u16> = patterns(3 * n, 99).map(|x| x as u16).collect();
    let input: Vec<u8> = all.iter().flat_map(|x| x.to_le_bytes()).collect();
    for entry in [3, 4] {
        let got = u16s(&run(device, entry, 400, &input, &[8 * n]));
        let is_half = entry == 3;
        let wide = |x: u16| match is_half {
            true => f16::from_bits(x).to_f64(),
            false => bf16::from_bits(x).to_f64(),
        };
        let round = |x: f64| match is_half {
            true => once(DType::F16, x),
            false => once(DType::BF16, x),
        };
        for (abc, got) in all.chunks(3).zip(got.chunks(4)) {
            let [a, b, c] = [abc[0], abc[1], abc[2]].map(wide);
            if !(a.is_finite() && b.is_finite() && c.is_finite()) {
                continue;
            }
            let odd_sum = fma_once(1.0, a, b, round);
            let want = [odd_sum, round(a * b), round(a / b), fma_once(a, b, c, round)];
            let infinity = if is_half { 0x7c00 } else { 0x7f80 };
            for (op, (&got, want)) in ["+", "*", "/", "fma"].iter().zip(got.iter().zip(want)) {
                assert!(
                    same16(got, want, infinity),
                    "{op} of {a:e}, {b:e}, {c:e}: {got:#06x}, not {want:#06x}"
                );
            }
        }
    }
}

#[test]
fn conversions_and_arithmetic_round_once() {
    let mut device = device();
    check(&mut device);
    check_arithmetic(&mut device);
}

#[test]
fn clang_rounds_alike() {
    let Some(mut device) = clang_device() else { return };
    check(&mut device);
    check_arithmetic(&mut device);
}
