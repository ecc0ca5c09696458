//! `attn_softmax_trace`: scores and softmax weights of one head over a window of keys.
//!
//! Three questions, each with the limit that the trace allows:
//!
//! - *Scores.* A right f32 score is off by at most `(g(D) + 2u) |scale| sum_d |q_d k_d|`. That sum is
//!   not in the trace. It is at least `|s|`, and taken to be at most D times the largest score of the
//!   window: no single product is larger than that score. A score that needs this is said so.
//! - *Softmax of its own scores.* `p_n = exp(s_n - lse)`, so `ln p_n - s_n` is the same for all keys,
//!   to the rounding of both and of the exponential. This needs nothing that the trace lacks.
//! - *Weights against the reference.* They move with the scores' errors, which are seen in the window
//!   and bounded as above outside it.

use super::digits::{half_unit, mean_abs, percent, short};
use super::window::{Mass, length};
use super::{Judged, Numbers, Verdict};
use crate::data::trace::Softmax;
use crate::oracle::{growth, repeats};
use crate::problem::DType;

/// Judges an event.
pub fn judge_softmax(e: &Softmax) -> (Numbers, Judged) {
    let mass = Mass::new(&e.p_gpu, e.seq_len);
    let numbers = Numbers::Softmax {
        qk_mae: e.qk_mae.unwrap_or_else(|| mean_abs(&e.qk_gpu, &e.qk_cpu)),
        softmax_mae: e.p_mae.unwrap_or_else(|| mean_abs(&e.p_gpu, &e.p_cpu)),
        window_mass: mass.sum,
    };
    let whole = e.p_gpu.len() as u64 == e.seq_len;
    let wrong = |note: String| Judged::new(Verdict::Unexplained, note);
    let judged = if let Some(fault) = mass.fault(&e.p_gpu, "softmax_window_gpu", whole) {
        wrong(fault)
    } else {
        match Scores::new(e) {
            Ok(scores) => judge_weights(e, &scores, &mass, whole),
            Err(judged) => judged,
        }
    };
    (numbers, judged)
}

/// Scores within their limits.
struct Scores {
    /// What a right score can be off by where nothing of it is seen: outside the window.
    unseen: f64,
    /// The largest error over the limit.
    ratio: f64,
    /// How many times `|s|` the sum of a score's products must be; above 1 it was assumed.
    products: f64,
}

impl Scores {
    fn new(e: &Softmax) -> Result<Scores, Judged> {
        let u = DType::F32.unit_roundoff();
        let relative = growth(length(e.head_dim), u, false) + 2.0 * u;
        let largest = e.qk_cpu.iter().map(|s| s.abs() + half_unit(*s)).fold(0.0, f64::max);
        let unseen = relative * e.head_dim as f64 * largest;
        let mut scores = Scores { unseen, ratio: 0.0, products: 0.0 };
        for (n, (g, c)) in e.qk_gpu.iter().zip(&e.qk_cpu).enumerate() {
            let (error, printed) = ((g - c).abs(), half_unit(*g) + half_unit(*c));
            if error <= printed {
                continue;
            }
            // Where every score is 0, none may differ: 0 * 0 limits to nothing.
            let ratio = error / (printed + unseen);
            scores.ratio = scores.ratio.max(ratio);
            scores.products = scores.products.max((error - printed) / (relative * c.abs()));
            if ratio > 1.0 {
                let note = format!(
                    "score {n} of the window is {} where the reference has {}, {} times what rounding \
                     allows (with products no larger than the largest score, {})",
                    short(*g),
                    short(*c),
                    short(ratio),
                    short(largest)
                );
                return Err(Judged::new(Verdict::Unexplained, note).with_ratio(ratio));
            }
        }
        Ok(scores)
    }
}

/// `ln p_n - factor s_n` over the window: by how much it varies, over what rounding allows. At most 1
/// is a softmax of these scores.
fn spread(p: &[f64], s: &[f64], factor: f64, arithmetic: f64, u_probs: f64) -> f64 {
    let (mut low, mut high) = ((f64::INFINITY, 0.0), (f64::NEG_INFINITY, 0.0));
    for (p, s) in p.iter().zip(s).filter(|(p, _)| **p > 0.0) {
        let ln = libm::log(*p);
        let error = half_unit(*p) / p
            + factor.abs() * half_unit(*s)
            + arithmetic * (6.0 - ln.min(0.0)) * DType::F32.unit_roundoff()
            + u_probs
            // The sums here, in f64.
            + 4.0 * f64::EPSILON * (ln.abs() + (factor * s).abs());
        let c = ln - factor * s;
        // The tightest interval from each side: all must overlap.
        if c + error < low.0 + low.1 {
            low = (c, error);
        }
        if c - error > high.0 - high.1 {
            high = (c, error);
        }
    }
    // low is the key whose interval ends first, high the one whose begins last.
    let (apart, allowed) = (high.0 - low.0, high.1 + low.1);
    if apart <= 0.0 { 0.0 } else { apart / allowed }
}

fn judge_weights(e: &Softmax, scores: &Scores, mass: &Mass, whole: bool) -> Judged {
    let wrong = |note: String| Judged::new(Verdict::Unexplained, note);
    // Scores may be printed before the scale. The f64 reference tells: no f32 arithmetic in it.
    let factors = [Some(1.0), e.scale.filter(|s| *s != 1.0)];
    let of_reference =
        factors.into_iter().flatten().find(|f| spread(&e.p_cpu, &e.qk_cpu, *f, 0.0, 0.0) <= 1.0);
    let mut notes = Vec::new();
    let factor = match of_reference {
        Some(factor) => factor,
        None => {
            notes.push("the trace's own weights are no softmax of its own scores".to_owned());
            1.0
        }
    };
    let of_kernel = spread(&e.p_gpu, &e.qk_gpu, factor, 1.0, mass.u_probs);
    if of_kernel > 1.0 {
        let judged = wrong(format!(
            "softmax_window_gpu is no softmax of qk_window_gpu: ln p - s varies by {} times what \
             rounding allows",
            short(of_kernel)
        ));
        return judged.with_ratio(of_kernel);
    }
    if let Some(n) = lost(e, factor, mass) {
        return wrong(format!(
            "softmax_window_gpu[{n}] is 0, although its score is {} and gives a weight that f32 holds",
            short(e.qk_gpu[n])
        ));
    }
    let of_cpu = Mass::new(&e.p_cpu, e.seq_len);
    // A reference normalised over the window while the mass goes further.
    if !whole && (of_cpu.sum - 1.0).abs() <= of_cpu.slack && mass.least_missing(whole) > 0.0 {
        let note = format!(
            "the reference is normalised over the window's {} keys, of {}; {} of the mass lies outside: \
             it cannot judge the weights, which are a softmax of their scores",
            e.p_gpu.len(),
            e.seq_len,
            percent(mass.least_missing(whole))
        );
        return Judged::new(Verdict::Reference, note);
    }
    let (n, ratio) = against_reference(e, scores, factor, mass, &of_cpu, whole);
    if ratio > 1.0 {
        let judged = wrong(format!(
            "weight {n} of the window is {} where the reference has {}, {} times what rounding allows",
            short(e.p_gpu[n]),
            short(e.p_cpu[n]),
            short(ratio)
        ));
        return judged.with_ratio(ratio);
    }
    let note =
        "scores and weights are within rounding, and the weights are a softmax of the scores";
    let mut judged = Judged::new(Verdict::Clean, note).with_ratio(ratio.max(scores.ratio));
    if scores.products > 1.0 {
        notes.push(format!(
            "a score whose products sum to {} times itself, in absolute value, is assumed",
            short(scores.products)
        ));
    }
    judged.notes.extend(notes);
    judged
}

/// A key whose weight was printed as 0 although it cannot have underflowed.
fn lost(e: &Softmax, factor: f64, mass: &Mass) -> Option<usize> {
    let known = e.p_gpu.iter().zip(&e.qk_gpu).filter(|(p, _)| **p > 0.0);
    let minus_lse = known.map(|(p, s)| libm::log(*p) - factor * s).fold(f64::INFINITY, f64::min);
    // why: weights held in a narrow type underflow sooner; flushed ones at the least normal number.
    let least = if mass.u_probs > 0.0 { DType::F16.min_normal() } else { DType::F32.min_normal() };
    let limit = libm::log(least) + 1.0;
    (0..e.p_gpu.len()).find(|n| e.p_gpu[*n] == 0.0 && factor * e.qk_gpu[*n] + minus_lse > limit)
}

/// The worst weight against the reference, and its error over what rounding allows.
fn against_reference(
    e: &Softmax,
    scores: &Scores,
    factor: f64,
    mass: &Mass,
    of_cpu: &Mass,
    whole: bool,
) -> (usize, f64) {
    let u = DType::F32.unit_roundoff();
    // How far the score of key n is from the reference's, at most.
    let shift = |n: usize| {
        let (g, c) = (e.qk_gpu[n], e.qk_cpu[n]);
        factor.abs() * ((g - c).abs() + half_unit(g) + half_unit(c))
    };
    let outside = of_cpu.most_missing(whole) * factor.abs() * scores.unseen;
    let of_lse: f64 =
        (0..e.p_cpu.len()).map(|n| e.p_cpu[n].max(0.0) * shift(n)).sum::<f64>() + outside;
    let g = growth(length(e.seq_len), u, repeats(&e.p_gpu));
    let mut worst = (0, 0.0);
    for (n, (p, want)) in e.p_gpu.iter().zip(&e.p_cpu).enumerate() {
        let distance = if *want > 0.0 { (-libm::log(*want)).max(0.0) } else { 0.0 };
        let relative =
            libm::expm1((shift(n) + of_lse).min(1.0)) + g + (6.0 + distance) * u + mass.u_probs;
        let narrow = if mass.u_probs > 0.0 { DType::F16.min_subnormal() } else { 0.0 };
        let limit = half_unit(*p)
            + half_unit(*want)
            + want.abs() * relative
            + DType::F32.min_normal()
            + narrow;
        let ratio = (p - want).abs() / limit;
        if ratio > worst.1 {
            worst = (n, ratio);
        }
    }
    worst
}
