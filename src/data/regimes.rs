//! What each data regime puts into q, k and v.
//!
//! Every regime makes a class of faults loud; the list with its reasons is the enum
//! [`Regime`]. Scores are designed through directions: with `e` a vector of
//! random signs, `k_n = a_n e` and `q = b e` give the score `scale * a_n * b * head_dim` exactly as
//! wanted, for any head_dim from 1 up.

use super::captured::Captured;
use super::inputs::Inputs;
use super::random::Stream;
use crate::problem::{Case, DType, HotKey, LargeScores, Pointer, Regime, Stage};

/// Why a case's data cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// A captured slice that is not there.
    #[error("data=slice:{name}: no such captured slice; known are: {known}")]
    NoSlice {
        /// The name.
        name: String,
        /// The names that are.
        known: String,
    },
    /// A stage that reads what no captured decode step holds.
    #[error(
        "data=slice:{name}: a captured decode step does not hold what stage `{stage}` reads; use a \
         synthetic regime, such as data=gauss"
    )]
    StageWithoutSlices {
        /// The slice.
        name: String,
        /// The stage.
        stage: Stage,
    },
    /// A case that is larger than the slice that it is to be cut from.
    #[error("data=slice:{name}: {what} is {got}, but the slice has {limit}")]
    SliceTooSmall {
        /// The name.
        name: String,
        /// The extent.
        what: &'static str,
        /// What the case asks for.
        got: usize,
        /// What there is.
        limit: usize,
    },
}

/// The tensors' tags in the seeds of their streams.
const Q: u64 = 1;
const K: u64 = 2;
const V: u64 = 3;
const SINK: u64 = 4;
const PLAN: u64 = 5;

/// Makes the queries, keys, values and sinks of a case. `captured` holds the slices that
/// `slice:NAME` may name.
///
/// # Errors
/// [`DataError`], for captured slices only.
pub fn attention(case: &Case, captured: &[Captured]) -> Result<Inputs, DataError> {
    if let Regime::Slice(name) = &case.regime {
        let slice =
            captured.iter().find(|c| &c.name == name).ok_or_else(|| DataError::NoSlice {
                name: name.clone(),
                known: captured.iter().map(|c| c.name.as_str()).collect::<Vec<_>>().join(", "),
            })?;
        return cut(case, slice);
    }
    let mut inputs = Inputs::default();
    if has_v(case) {
        inputs.put(case, Pointer::V, |s, g, rows| fill_v(case, s, g, rows));
    }
    inputs.put(case, Pointer::K, |s, g, rows| fill_k(case, s, g, rows));
    inputs.put(case, Pointer::Q, |s, h, rows| {
        for (t, q) in rows.chunks_exact_mut(case.head_dim).enumerate() {
            fill_q(case, s, h, t, q);
        }
    });
    put_sinks(case, &mut inputs);
    Ok(inputs)
}

/// Whether anything of the stage comes from V.
fn has_v(case: &Case) -> bool {
    !matches!(case.stage, Stage::Scores | Stage::Softmax)
}

/// Sink logits: mostly near the scores' own size, so that they take some of the mass and not all;
/// at some heads far below or above.
fn put_sinks(case: &Case, inputs: &mut Inputs) {
    let mut r = Stream::new(case.seed, &[SINK]);
    inputs.put(case, Pointer::Sinks, |_, _, logits| {
        logits.fill_with(|| match r.below(8) {
            0 => -90.0 + r.gauss(),
            1 => -6.0 + r.gauss(),
            2 => 40.0 + r.gauss(),
            _ => 3.0 + 2.0 * r.gauss(),
        });
    });
}

/// A standard deviation of 2 to 4 for Gaussian scores; with a softcap, about the cap, so that it
/// bites.
fn score_deviation(case: &Case, s: usize, h: usize) -> f32 {
    let mut r = Stream::new(case.seed, &[PLAN, 1, s as u64, h as u64]);
    if case.softcap > 0.0 { case.softcap * r.between(0.7, 1.5) } else { r.between(2.0, 4.0) }
}

/// The factor on a unit-variance q that gives scores of unit variance with a unit-variance k.
fn unit_score(case: &Case) -> f32 {
    let scale = case.scale.abs();
    if scale > 0.0 { 1.0 / (scale * (case.head_dim as f32).sqrt()) } else { 1.0 }
}

/// The sign vector that one-hot and large scores are built along, `[head_dim]`. Heads alternate
/// between two of them, so that neighbouring heads differ.
fn direction(case: &Case, s: usize, kv_head: usize, which: usize) -> impl Iterator<Item = f32> {
    let mut r = Stream::new(case.seed, &[PLAN, 2, s as u64, kv_head as u64, which as u64]);
    (0..case.head_dim).map(move |_| r.sign())
}

/// The two hot keys of a one-hot regime: one for even heads, one for odd heads.
fn hot_keys(case: &Case, s: usize, kv_head: usize, hot: HotKey) -> [usize; 2] {
    let keys = case.attended(s);
    if keys.is_empty() {
        return [0, 0];
    }
    let (first, last) = (keys.start, keys.end - 1);
    let mut r = Stream::new(case.seed, &[PLAN, 3, s as u64, kv_head as u64]);
    match hot {
        HotKey::First => [first, (first + 1).min(last)],
        HotKey::Last => [last, last.saturating_sub(1).max(first)],
        HotKey::Outside => [first.saturating_sub(1), first],
        HotKey::Any => {
            let a = r.below(keys.len());
            [first + a, first + (a + 1 + r.below(keys.len())) % keys.len()]
        }
        HotKey::Tile => {
            let tile = 16usize << r.below(4);
            // Tiles may be counted from the first attended key or from key 0.
            let base = if r.below(2) == 0 { first } else { 0 };
            let edge = base + tile * (1 + r.below(1 + keys.len() / tile));
            [(edge - 1).clamp(first, last), edge.clamp(first, last)]
        }
    }
}

/// The scores that a large-score regime wants for each key.
fn large_targets(case: &Case, s: usize, kv_head: usize, kind: LargeScores) -> Vec<f32> {
    let keys = case.seq_lens[s];
    let mut r = Stream::new(case.seed, &[PLAN, 4, s as u64, kv_head as u64]);
    match kind {
        LargeScores::E80 => (0..keys).map(|_| r.sign() * 80.0 + r.between(-2.0, 2.0)).collect(),
        LargeScores::E1000 => (0..keys).map(|_| r.between(-1e3, 1e3)).collect(),
        LargeScores::E30000 => (0..keys).map(|_| r.between(-3e4, 3e4)).collect(),
        // The largest anywhere between -2.9e4 and -1.1e4 (sometimes near -1e5, beyond f16), and gaps
        // of about 1 between the largest ones, so that several weights count.
        LargeScores::Negative => {
            let far = if r.below(4) == 0 { 4.0 } else { 1.0 };
            let largest = far * r.between(-2.9e4, -1.1e4);
            (0..keys).map(|_| largest - 8.0 * r.gauss().abs()).collect()
        }
        LargeScores::Spread => {
            let quarter = r.below(4);
            let mut targets: Vec<f32> = (0..keys).map(|_| r.between(-90.0, 0.0)).collect();
            let in_quarter: Vec<usize> =
                case.attended(s).filter(|n| n % 64 / 16 == quarter).collect();
            if !in_quarter.is_empty() {
                targets[in_quarter[r.below(in_quarter.len())]] = 3.0;
            }
            targets
        }
    }
}

/// Shares a large product out between q and k, so that neither leaves f16's range.
fn share(case: &Case, largest: f32) -> (f32, f32) {
    let product = largest / (case.scale.abs().max(f32::MIN_POSITIVE) * case.head_dim as f32);
    let on_q = product.clamp(1.0, 1024.0);
    (on_q, product / on_q)
}

const HOT: f32 = 4.0;

fn fill_k(case: &Case, s: usize, g: usize, rows: &mut [f32]) {
    let mut r = Stream::new(case.seed, &[K, s as u64, g as u64]);
    let d = case.head_dim;
    match &case.regime {
        Regime::OneHot(hot) => {
            // Every key leans a quarter towards the directions, the hot ones four times 1.
            rows.fill_with(|| 0.25 * r.gauss());
            for (which, key) in hot_keys(case, s, g, *hot).into_iter().enumerate() {
                let Some(row) = rows.chunks_exact_mut(d).nth(key) else { continue };
                for (k, e) in row.iter_mut().zip(direction(case, s, g, which)) {
                    *k = HOT * e;
                }
            }
        }
        Regime::EqualScores => {
            let row: Vec<f32> = (0..d).map(|_| r.gauss()).collect();
            for k in rows.chunks_exact_mut(d) {
                k.copy_from_slice(&row);
            }
        }
        Regime::Large(kind) => {
            let targets = large_targets(case, s, g, *kind);
            let largest = targets.iter().fold(1.0f32, |m, t| m.max(t.abs()));
            let (_, on_k) = share(case, largest);
            let direction: Vec<f32> = direction(case, s, g, 0).collect();
            for (row, target) in rows.chunks_exact_mut(d).zip(targets) {
                for (k, e) in row.iter_mut().zip(&direction) {
                    *k = on_k * (target / largest) * e;
                }
            }
        }
        Regime::Wide => rows.fill_with(|| wide(&mut r, 6)),
        Regime::NonFinite => {
            rows.fill_with(|| r.gauss());
            // One element of one attended row: every output of the heads that read it.
            if let Some((false, n)) = wild_key(case, s, g) {
                rows[n * d + r.below(d)] = f32::NAN;
            }
        }
        _ => rows.fill_with(|| r.gauss()),
    }
}

/// For the non-finite regime: an attended key that holds a number that is not finite, and whether
/// it is in V (else in K). Every other KV head has none.
fn wild_key(case: &Case, s: usize, g: usize) -> Option<(bool, usize)> {
    let keys = case.attended(s);
    let mut r = Stream::new(case.seed, &[PLAN, 7, s as u64, g as u64]);
    let n = keys.start + r.below(keys.len());
    (!keys.is_empty() && r.below(2) == 0).then(|| (r.below(3) > 0, n))
}

fn fill_q(case: &Case, s: usize, h: usize, t: usize, q: &mut [f32]) {
    let mut r = match case.stage {
        Stage::Prefill => Stream::new(case.seed, &[Q, s as u64, h as u64, t as u64]),
        _ => Stream::new(case.seed, &[Q, s as u64, h as u64]),
    };
    let (d, g) = (case.head_dim, h / case.group());
    let deviation = score_deviation(case, s, h) * unit_score(case);
    let sign = if case.scale < 0.0 { -1.0 } else { 1.0 };
    let along = |q: &mut [f32], which: usize, length: f32| {
        for (q, e) in q.iter_mut().zip(direction(case, s, g, which)) {
            *q = sign * length * e;
        }
    };
    match &case.regime {
        Regime::OneHot(_) => {
            // A hot key scores 30 more than one without a lean towards the direction.
            let b = 30.0 / (case.scale.abs().max(f32::MIN_POSITIVE) * d as f32 * HOT);
            along(q, h % 2, b);
        }
        Regime::Large(kind) => {
            let targets = large_targets(case, s, g, *kind);
            let largest = targets.iter().fold(1.0f32, |m, t| m.max(t.abs()));
            let (on_q, _) = share(case, largest);
            // Odd heads see the scores with the opposite sign, where that is in the regime.
            let mirrored = h % 2 == 1
                && matches!(kind, LargeScores::E80 | LargeScores::E1000 | LargeScores::E30000);
            along(q, 0, if mirrored { -on_q } else { on_q });
        }
        Regime::Wide => q.fill_with(|| deviation * wide(&mut r, 6)),
        _ => q.fill_with(|| deviation * r.gauss()),
    }
}

/// Gaussian times a power of two from `2^-spread` to `2^spread`, of unit variance in all.
#[inline]
pub(super) fn wide(r: &mut Stream, spread: i32) -> f32 {
    // why: `powi` is a call for each element.
    let two_to = |n: i32| f32::from_bits(((127 + n) as u32) << 23);
    let binade = r.below(2 * spread as usize + 1) as i32 - spread;
    // Mean of 4^binade over the range.
    let count = (2 * spread + 1) as f32;
    let square = (two_to(2 * spread + 2) - two_to(-2 * spread)) / (3.0 * count);
    r.gauss() * two_to(binade) / square.sqrt()
}

/// An exact small code of (token, head, element): 1 to 127, different from each neighbour's.
pub(super) fn code(s: usize, n: usize, h: usize, d: usize) -> f32 {
    (1 + (n * 37 + h * 101 + d * 17 + s * 59) % 127) as f32
}

fn fill_v(case: &Case, s: usize, g: usize, rows: &mut [f32]) {
    let mut r = Stream::new(case.seed, &[V, s as u64, g as u64]);
    let dv = case.head_dim_v;
    match &case.regime {
        Regime::IndexCoded => {
            for (n, row) in rows.chunks_exact_mut(dv).enumerate() {
                for (d, v) in row.iter_mut().enumerate() {
                    *v = code(s, n, g, d);
                }
            }
        }
        Regime::ConstantV => {
            // Eight significant bits: exact in every driven type.
            let constant = r.sign() * (128 + r.below(128)) as f32 / 64.0;
            rows.fill(constant);
        }
        Regime::Wide => rows.fill_with(|| wide(&mut r, 8)),
        Regime::NonFinite => {
            rows.fill_with(|| r.gauss());
            // One element of one attended row: that element of the output, and no other.
            if let Some((true, n)) = wild_key(case, s, g) {
                rows[n * dv + r.below(dv)] = [f32::NAN, f32::INFINITY][r.below(2)];
            }
        }
        Regime::Subnormal => rows.fill_with(|| r.gauss() * 0.25 * least_normal(case.dtypes.kv)),
        _ => rows.fill_with(|| r.gauss()),
    }
}

/// The least normal number of a type; f32's for bf16, which has the same exponents.
pub(super) fn least_normal(dtype: DType) -> f32 {
    match dtype {
        DType::F16 => DType::F16.min_normal() as f32,
        _ => f32::MIN_POSITIVE,
    }
}

/// Cuts the case out of a captured slice: the whole of it where the lengths agree, else rows from
/// a start that the seed draws; heads and layers from 0.
fn cut(case: &Case, slice: &Captured) -> Result<Inputs, DataError> {
    let too_small =
        |what, got, limit| DataError::SliceTooSmall { name: slice.name.clone(), what, got, limit };
    for (what, got, limit) in [
        ("hkv", case.num_kv_heads, slice.num_kv_heads),
        ("the group hq/hkv", case.group(), slice.group()),
        ("d", case.head_dim, slice.head_dim),
        ("dv", case.head_dim_v, slice.head_dim_v),
        ("n", case.seq_len(), slice.seq_len),
    ] {
        if got > limit {
            return Err(too_small(what, got, limit));
        }
    }
    let start = |s: usize| {
        let room = slice.seq_len - case.seq_lens[s];
        Stream::new(case.seed, &[PLAN, 6, s as u64]).below(room + 1)
    };
    let copy = |from: &[f32], width: usize, dim: usize, s: usize, g: usize, rows: &mut [f32]| {
        let head = &from[g * slice.seq_len * width..];
        for (n, row) in rows.chunks_exact_mut(dim).enumerate() {
            row.copy_from_slice(&head[(start(s) + n) * width..][..dim]);
        }
    };
    let mut inputs = Inputs::default();
    inputs.put(case, Pointer::K, |s, g, rows| {
        copy(&slice.k, slice.head_dim, case.head_dim, s, g, rows);
    });
    if has_v(case) {
        inputs.put(case, Pointer::V, |s, g, rows| {
            copy(&slice.v, slice.head_dim_v, case.head_dim_v, s, g, rows);
        });
    }
    inputs.put(case, Pointer::Q, |_, h, q| {
        let captured = (h / case.group()) * slice.group() + h % case.group();
        q.copy_from_slice(&slice.q[captured * slice.head_dim..][..case.head_dim]);
    });
    put_sinks(case, &mut inputs);
    Ok(inputs)
}

#[cfg(test)]
mod tests {
    use super::super::generate::generate;
    use super::super::inputs::Rows;
    use super::*;
    use crate::oracle::{Answer, attend, head_of};

    fn answer(case: &Case, inputs: &Inputs, s: usize, h: usize) -> Answer {
        let mut a = Answer::default();
        attend(&head_of(case, inputs, s, h, 0), &mut a);
        a
    }

    fn case(id: &str) -> Case {
        id.parse().unwrap()
    }

    #[test]
    fn one_hot_puts_nearly_all_weight_on_its_key() {
        for d in [1, 2, 3, 64, 256] {
            for dt in ["f32", "f16", "bf16"] {
                for (hot, key) in [("first", 40), ("last", 99)] {
                    let c = case(&format!(
                        "hq=2,hkv=1,d={d},n=100,w=60,dt={dt},data=onehot:{hot},seed=3"
                    ));
                    let a = answer(&c, &generate(&c, &[]).unwrap(), 0, 0);
                    let p = a.probs[key - 40];
                    assert!(p > 0.9, "d={d} {dt} {hot}: p = {p}");
                }
            }
        }
    }

    #[test]
    fn the_key_outside_the_window_would_win_if_it_were_read() {
        let windowed = case("hq=2,hkv=1,d=64,n=100,w=60,data=onehot:outside,seed=3");
        let inputs = generate(&windowed, &[]).unwrap();
        let open = Case { window_len: 61, ..windowed.clone() };
        assert!(answer(&open, &inputs, 0, 0).probs[0] > 0.9);
        assert!(answer(&windowed, &inputs, 0, 0).probs[0] < 0.9);
    }

    #[test]
    fn large_scores_are_as_large_as_they_say_and_finite_in_f16() {
        for (kind, least, most) in
            [("80", 75.0, 83.0), ("1e3", 500.0, 1001.0), ("3e4", 1.5e4, 3.1e4)]
        {
            for d in [1, 64, 256] {
                let c =
                    case(&format!("hq=2,hkv=1,d={d},n=64,dt=f16,scale=0.0625,data=large:{kind}"));
                let a = answer(&c, &generate(&c, &[]).unwrap(), 0, 0);
                assert!(a.max > least && a.max < most, "{kind} d={d}: {}", a.max);
                assert!(a.out.iter().all(|o| o.is_finite()));
            }
        }
        let c = case("hq=1,hkv=1,d=64,n=64,data=large:negative");
        let a = answer(&c, &generate(&c, &[]).unwrap(), 0, 0);
        assert!(a.scores.iter().all(|s| *s < -9e3), "{:?}", a.scores);
    }

    /// A wild element of V shows in that element of the outputs that read it; one of K in all of
    /// them; and other KV heads are untouched.
    #[test]
    fn what_is_not_finite_shows_where_it_must_and_nowhere_else() {
        let (mut in_v, mut in_k, mut none) = (0, 0, 0);
        for seed in 0..40 {
            let c = case(&format!("hq=4,hkv=2,d=16,n=20,w=9,data=nonfinite,seed={seed}"));
            let inputs = generate(&c, &[]).unwrap();
            for h in 0..4 {
                let wild =
                    |c: &Rows| c.rows(0, h / 2, 11..20).iter().filter(|x| !x.is_finite()).count();
                let out = answer(&c, &inputs, 0, h).out;
                let shows = out.iter().filter(|x| !x.is_finite()).count();
                match (wild(inputs.k()), wild(inputs.v())) {
                    (1, 0) => (assert_eq!(shows, 16), in_k += 1),
                    (0, 1) => (assert_eq!(shows, 1), in_v += 1),
                    other => (assert_eq!((other, shows), ((0, 0), 0)), none += 1),
                };
            }
        }
        assert!(in_v > 10 && in_k > 10 && none > 10, "{in_v} {in_k} {none}");
    }

    #[test]
    fn equal_scores_and_constant_v_are_exact() {
        let c = case("hq=2,hkv=1,d=64,n=64,dt=bf16,data=equal");
        let a = answer(&c, &generate(&c, &[]).unwrap(), 0, 1);
        assert!(a.scores.iter().all(|s| *s == a.scores[0]));
        let c = case("hq=2,hkv=1,d=64,n=64,dt=bf16,data=constv");
        let inputs = generate(&c, &[]).unwrap();
        let constant = inputs.v().data.values[0];
        assert!(inputs.v().data.values.iter().all(|v| *v == constant) && constant != 0.0);
    }

    #[test]
    fn codes_are_exact_in_bf16_and_differ_from_every_neighbour() {
        for (a, b) in [
            ((0, 5, 1, 3), (0, 6, 1, 3)),
            ((0, 5, 1, 3), (0, 5, 2, 3)),
            ((0, 5, 1, 3), (0, 5, 1, 4)),
            ((0, 5, 1, 3), (1, 5, 1, 3)),
        ] {
            assert_ne!(code(a.0, a.1, a.2, a.3), code(b.0, b.1, b.2, b.3));
        }
        for n in 0..127 {
            let x = code(0, n, 0, 0);
            assert_eq!(half::bf16::from_f32(x).to_f32(), x);
        }
    }

    #[test]
    fn gaussian_scores_deviate_by_2_to_4_and_a_softcap_bites() {
        let c = case("hq=1,hkv=1,d=64,n=4096,scale=0.3,seed=11");
        let a = answer(&c, &generate(&c, &[]).unwrap(), 0, 0);
        let deviation = (a.scores.iter().map(|s| s * s).sum::<f64>() / 4096.0).sqrt();
        assert!((1.7..4.5).contains(&deviation), "{deviation}");
        let capped = case("hq=1,hkv=1,d=64,n=4096,softcap=30,seed=11");
        let a = answer(&capped, &generate(&capped, &[]).unwrap(), 0, 0);
        let bent = a.scores.iter().filter(|s| s.abs() > 15.0).count();
        assert!(bent > 1000, "{bent} of 4096 scores are bent by more than 8 %");
    }

    #[test]
    fn a_head_keeps_its_first_rows_when_the_case_shrinks() {
        let long = generate(&case("hq=2,hkv=2,d=8,n=50,seed=5"), &[]).unwrap();
        let short = generate(&case("hq=1,hkv=1,d=8,n=20,seed=5"), &[]).unwrap();
        assert_eq!(long.k().rows(0, 0, 0..20), short.k().rows(0, 0, 0..20));
    }
}
