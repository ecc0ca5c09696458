//! P·V over the window that a trace shows, with what each number's printing leaves open.
//!
//! With `r(x)` half a unit in the last printed digit of x, the sum over the true numbers lies within
//! `sum_n (r(p_n) |v_n| + |p_n| r(v_n) + r(p_n) r(v_n))` of the sum over the printed ones. A right
//! f32 kernel over N keys lies within `(g(N) + u) sum_n |p_n v_n|` of the true one
//! ([`crate::oracle::bound_pv`]), where the sum goes over all keys. Those outside the window weigh what
//! is missing of the mass, and their V is taken to be no larger than any V seen; where a reference
//! over all keys adds more than that to the window's sum, `sum |p v|` outside is at least that much.
//! (To take as much a unit of mass as inside was too little: on widely spread V, a right kernel was
//! three times over it.)

use super::digits::half_unit;
use crate::data::trace::{Scope, VAcc};
use crate::oracle::{growth, repeats, rows_repeat};
use crate::problem::DType;

/// Weights of the last keys, and what their sum says.
pub struct Mass {
    /// Sum of the weights as printed: the share of the softmax mass that lies in the window.
    pub sum: f64,
    /// How far a right kernel's sum can be from the true share.
    pub slack: f64,
    /// Unit roundoff of the type that the weights seem to be held in, where it is narrower than f32.
    pub u_probs: f64,
    /// The first weight that is none: negative, or above 1 by more than rounding.
    pub no_weight: Option<usize>,
}

impl Mass {
    /// Of `p` among `keys` weights in all.
    pub fn new(p: &[f64], keys: u64) -> Mass {
        let u = DType::F32.unit_roundoff();
        let sum: f64 = p.iter().sum();
        let u_probs = narrow(p).map_or(0.0, DType::unit_roundoff);
        let relative = growth(length(keys), u, repeats(p)) + 2.0 * u + u_probs;
        let printed: f64 = p.iter().map(|p| half_unit(*p)).sum();
        let wrong = |p: &f64| *p < 0.0 || *p > 1.0 + half_unit(*p) + relative;
        Mass {
            sum,
            slack: printed + relative * sum.abs(),
            u_probs,
            no_weight: p.iter().position(wrong),
        }
    }

    /// The most that can lie outside the window; nothing where the window is the whole sequence.
    pub fn most_missing(&self, whole: bool) -> f64 {
        if whole { 0.0 } else { (1.0 - self.sum + self.slack).clamp(0.0, 1.0) }
    }

    /// The least that lies outside.
    pub fn least_missing(&self, whole: bool) -> f64 {
        if whole { 0.0 } else { (1.0 - self.sum - self.slack).clamp(0.0, 1.0) }
    }

    /// What is wrong with the weights whatever V is, of a window that is the `whole` sequence or not.
    pub fn fault(&self, p: &[f64], field: &str, whole: bool) -> Option<String> {
        if let Some(n) = self.no_weight {
            return Some(format!("{field}[{n}] is {}, which is no softmax weight", p[n]));
        }
        if self.sum > 1.0 + self.slack {
            return Some(format!("the weights sum to {:.6}, more than all of the mass", self.sum));
        }
        (whole && self.sum < 1.0 - self.slack).then(|| {
            format!(
                "the weights of all {} keys sum to {:.6}: mass is lost (or a sink took it, of which \
                 a trace says nothing)",
                p.len(),
                self.sum
            )
        })
    }
}

/// The narrow type that every weight seems to be held in, to its printed digits.
fn narrow(p: &[f64]) -> Option<DType> {
    let holds = |t: &DType| p.iter().all(|x| (t.round(*x) - x).abs() <= half_unit(*x));
    [DType::F16, DType::BF16].into_iter().find(holds)
}

/// A count of keys as a sum's length.
pub fn length(keys: u64) -> usize {
    usize::try_from(keys).unwrap_or(usize::MAX)
}

/// P·V over the window.
pub struct Window {
    /// Keys in all, and whether the window shows every one.
    pub whole: bool,
    /// Keys of the window.
    pub keys: usize,
    /// The weights.
    pub mass: Mass,
    /// Largest |V| seen, over all rows and sampled elements.
    pub range: f64,
    /// The sum over the printed numbers, `[dims]`.
    pub sum: Vec<f64>,
    /// How far the sum over the true numbers can be from it, `[dims]`.
    pub printing: Vec<f64>,
    /// Bound of `sum_n |p_n v_n|` over all keys, `[dims]`.
    pub abs: Vec<f64>,
    /// The part of it outside the window, `[dims]`.
    pub outside: Vec<f64>,
    /// What f32 arithmetic does to P·V with P given, `[dims]`.
    pub pv_arithmetic: Vec<f64>,
    /// What it does to the normalised output of attention with the scores given, `[dims]`.
    pub out_arithmetic: Vec<f64>,
}

impl Window {
    /// Of an event.
    pub fn new(e: &VAcc) -> Window {
        let (keys, dims) = (e.p.len(), e.dims);
        let whole = keys as u64 == e.seq_len;
        let mass = Mass::new(&e.p, e.seq_len);
        let (u, flush) = (DType::F32.unit_roundoff(), DType::F32.min_normal());
        let g = growth(length(e.seq_len), u, repeats(&e.p) || rows_repeat(&e.v, dims));
        let range = e.v.iter().map(|v| v.abs() + half_unit(*v)).fold(0.0, f64::max);
        let missing = mass.most_missing(whole);
        let (mut sum, mut printing) = (vec![0.0; dims], vec![0.0; dims]);
        // What underflows is at most a product a key, and as much again of the weights.
        let underflow = flush * (e.seq_len as f64 + 2.0) * (1.0 + range);
        let (mut abs, mut exponential) = (vec![0.0; dims], vec![0.0; dims]);
        for (p, row) in e.p.iter().zip(e.v.chunks_exact(dims)) {
            let (a, dp) = (p.abs(), half_unit(*p));
            for (d, v) in row.iter().enumerate() {
                let (b, dv) = (v.abs(), half_unit(*v));
                sum[d] += p * v;
                // why: this sum's own rounding, at most one unit roundoff of f64 a term.
                let own = (keys as f64 + 1.0) * (f64::EPSILON / 2.0) * a * b;
                printing[d] += dp * b + a * dv + dp * dv + own;
                abs[d] += (a + dp) * (b + dv);
                exponential[d] += (a + dp) * (b + dv) * self::exponential(*p);
            }
        }
        let full = e.pv_cpu.as_ref().filter(|_| !whole && e.scope == Scope::Full);
        let outside: Vec<f64> = (0..dims)
            .map(|d| full.map_or(0.0, |all| (all[d] - sum[d]).abs()).max(missing * range))
            .collect();
        for d in 0..dims {
            abs[d] += outside[d];
            exponential[d] += outside[d] * self::exponential(0.0);
        }
        let pv_arithmetic: Vec<f64> = abs.iter().map(|s| (g + u) * s + underflow).collect();
        let out_arithmetic = (0..dims)
            .map(|d| pv_arithmetic[d] + (g + 4.0 * u) * abs[d] + u * exponential[d] + underflow)
            .collect();
        Window {
            whole,
            keys,
            mass,
            range,
            sum,
            printing,
            abs,
            outside,
            pv_arithmetic,
            out_arithmetic,
        }
    }

    /// The most that keys outside the window can add.
    pub fn held_outside(&self) -> f64 {
        self.mass.most_missing(self.whole) * self.range
    }
}

/// Error of a weight's exponential in units of u: 2 ulp, and one for its argument times `|s - m|`,
/// which is at most `-ln p`. No weight that f32 holds lies further off than its least normal number.
fn exponential(p: f64) -> f64 {
    let farthest = -libm::log(DType::F32.min_normal());
    let distance = if p > 0.0 { (-libm::log(p)).clamp(0.0, farthest) } else { farthest };
    4.0 + distance
}
