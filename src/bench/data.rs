//! The elements of a timed cache, as the host knows them: the twin of `kernels/bench/fill.hip`.

use crate::data::inputs::{Inputs, Rows};
use crate::data::random::mix;
use crate::problem::{Case, DType, Placement, Placements, Pointer};
use std::sync::Arc;

/// Element `i` of a buffer that a seed fills, before it is rounded to the buffer's type: nearly Gaussian,
/// the sum of four uniform integers (Irwin-Hall), variance 4/3.
pub fn gauss(seed: u64, i: u64) -> f32 {
    let b = mix(seed.wrapping_add(i));
    let sum = (b & 0xffff) + (b >> 16 & 0xffff) + (b >> 32 & 0xffff) + (b >> 48);
    // Of 18 bits, and times a power of two: exact.
    (sum as i32 - 131_070) as f32 * (1.0 / 32_768.0)
}

/// The seed of a tensor's buffer.
pub fn seed_of(seed: u64, pointer: Pointer) -> u64 {
    mix(seed ^ mix(pointer as u64))
}

/// What the host writes: queries, softmax weights, scores and sinks of a whole case. K and V are the
/// device's own.
pub fn given(case: &Case, seed: u64) -> Inputs {
    let mut inputs = Inputs::default();
    for pointer in [Pointer::Q, Pointer::Scores, Pointer::Sinks, Pointer::Probs] {
        if !case.stage.port(pointer).is_some_and(|port| port.read) {
            continue;
        }
        let seed = seed_of(seed, pointer);
        let mut at = 0u64;
        inputs.put(case, pointer, |s, _, row| {
            for x in row.iter_mut() {
                *x = gauss(seed, at);
                at += 1;
            }
            if pointer == Pointer::Probs {
                // Weights of keys that are attended sum to 1, as a softmax's do.
                let keys = case.attended(s);
                row.iter_mut().for_each(|x| *x = libm::expf(*x));
                let sum: f32 = row[keys].iter().sum();
                row.iter_mut().for_each(|x| *x /= sum);
            }
        });
    }
    inputs
}

/// One sequence and KV head of a case as a case of its own, and its inputs: `whole` are those of
/// [`given`].
pub fn part(
    case: &Case,
    places: &Placements,
    whole: &Inputs,
    seed: u64,
    s: usize,
    g: usize,
) -> (Case, Inputs) {
    let plain = Case::plain(case.group(), 1, case.head_dim, vec![case.seq_lens[s]]);
    let part = Case {
        head_dim_v: case.head_dim_v,
        window_len: case.window_len,
        softcap: case.softcap,
        sinks: case.sinks,
        scale: case.scale,
        dtypes: case.dtypes,
        wave: case.wave,
        seed: case.seed,
        ..plain.for_stage(case.stage)
    };
    let first = g * case.group();
    let mut inputs = Inputs::default();
    for (pointer, rows) in &whole.0 {
        let rows: &Rows = rows;
        inputs.put(&part, *pointer, |_, h, row| {
            if *pointer == Pointer::Sinks {
                row.copy_from_slice(&rows.all(0, 0)[first..first + row.len()]);
            } else {
                row.copy_from_slice(rows.all(s, first + h));
            }
        });
    }
    for (pointer, place) in [(Pointer::K, &places.k), (Pointer::V, &places.v)] {
        if case.stage.port(pointer).is_some() {
            cache_rows(&part, &mut inputs, pointer, place, case, seed, (s, g));
        }
    }
    (part, inputs)
}

fn cache_rows(
    part: &Case,
    inputs: &mut Inputs,
    pointer: Pointer,
    place: &Placement,
    case: &Case,
    seed: u64,
    (s, g): (usize, usize),
) {
    let seed = seed_of(seed, pointer);
    let Some((dtype, shape)) = part.shape(pointer) else { return };
    let dim = shape.dim;
    let rows = Rows::fill(dtype, shape, |_, _, rows| {
        for (n, row) in rows.chunks_exact_mut(dim).enumerate() {
            for (d, x) in row.iter_mut().enumerate() {
                *x = gauss(seed, place.index(s, case.layer, g, n, d) as u64);
            }
        }
    });
    inputs.0.insert(pointer, Arc::new(rows));
}

/// The C++ name of what fills a buffer of a type.
pub fn fill_entry(dtype: DType) -> String {
    format!("fill<{}>", dtype.cpp_name())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_nearly_gaussian_and_the_same_everywhere() {
        let n = 100_000u64;
        let x: Vec<f64> = (0..n).map(|i| f64::from(gauss(7, i))).collect();
        let mean = x.iter().sum::<f64>() / n as f64;
        let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n as f64;
        assert!(mean.abs() < 0.02, "{mean}");
        assert!((variance - 4.0 / 3.0).abs() < 0.03, "{variance}");
        // Known values: a change would make the device's data others than the host's.
        assert_eq!([gauss(7, 0), gauss(7, 1), gauss(8, 0)].map(f32::to_bits), KNOWN);
        assert_eq!(gauss(8, 0), gauss(7, 1), "an element is known by seed and place together");
    }

    /// By the definition in `kernels/bench/fill.hip`, computed apart from both: -0.65057373046875 and
    /// 0.170501708984375.
    const KNOWN: [u32; 3] = [0xbf26_8c00, 0x3e2e_9800, 0x3e2e_9800];

    #[test]
    fn a_part_has_the_elements_of_the_whole() {
        let case: Case =
            "b=2,hq=4,hkv=2,d=8,n=[5,3],cap=6,dt=f16,k=NHD+pad8,v=HND".parse().unwrap();
        let places = case.placements().unwrap();
        let whole = given(&case, 3);
        let (part, inputs) = part(&case, &places, &whole, 3, 1, 1);
        assert_eq!((part.batch(), part.group(), part.seq_len()), (1, 2, 3));
        assert_eq!(inputs.q().all(0, 1), whole.q().all(1, 3));
        let at = places.k.index(1, 0, 1, 2, 7) as u64;
        let want = half::f16::from_f32(gauss(seed_of(3, Pointer::K), at)).to_f32();
        assert_eq!(inputs.k().rows(0, 0, 2..3)[7], want);
    }
}
