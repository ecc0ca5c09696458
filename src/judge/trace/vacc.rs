//! `attn_vacc_trace`: P·V and the head's output of one decode step.
//!
//! Which sum the kernel must agree with:
//! - the one made here over the window, where the window is the whole sequence: nothing is missing;
//! - the trace's own sum over all keys (`pv_scope` full), where the window is a part of them;
//! - none, where both show a part: a residual no larger than the mass outside can hold is the
//!   reference's, as far as the trace tells, and one at rounding level would be a surprise.

use super::digits::{half_unit, mean_abs, percent, short};
use super::residual::Residuals;
use super::window::Window;
use super::{Judged, Numbers, Verdict};
use crate::data::trace::{Scope, VAcc};
use crate::problem::DType;

/// What an event can be compared with the same event of another run by.
#[derive(Debug, Clone, PartialEq)]
pub struct Evidence {
    /// Hash of the weights as printed.
    pub p: [u8; 32],
    /// Hash of the rows of V as printed.
    pub v: [u8; 32],
    /// The kernel's P·V, `[dims]`.
    pub pv: Vec<f64>,
    /// How far a right kernel's P·V as printed can be from the true one, `[dims]`, if the numbers
    /// outside the window are known as well as those in it.
    pub slack: Vec<f64>,
}

/// One of the two sums that an event holds.
struct Sum<'a> {
    name: &'static str,
    gpu: &'a [f64],
    cpu: Option<&'a [f64]>,
    arithmetic: &'a [f64],
    mae: Option<f64>,
    max_diff: Option<f64>,
}

/// Judges an event.
pub fn judge_vacc(e: &VAcc) -> (Numbers, Judged) {
    let window = Window::new(e);
    let pv = Sum {
        name: "pv",
        gpu: &e.pv_gpu,
        cpu: e.pv_cpu.as_deref(),
        arithmetic: &window.pv_arithmetic,
        mae: e.pv_mae,
        max_diff: e.pv_max_diff,
    };
    let out = e.out_gpu.as_deref().map(|gpu| Sum {
        name: "attn_out",
        gpu,
        cpu: e.out_cpu.as_deref(),
        arithmetic: &window.out_arithmetic,
        mae: e.out_mae,
        max_diff: e.out_max_diff,
    });
    let (pv_mae, pv_doubt) = pv.mean_error();
    let (out_mae, out_doubt) = out.as_ref().map_or((e.out_mae, None), Sum::mean_error);

    let mut judged = match window.mass.fault(&e.p, "p_window_gpu", window.whole) {
        Some(fault) => Judged::new(Verdict::Unexplained, fault),
        None => {
            let of_pv = judge_sum(e, &window, &pv);
            match out.as_ref().map(|out| judge_sum(e, &window, out)) {
                // The output is told of where it fares worse than the P·V before it.
                Some(of_out) if of_out.verdict > of_pv.verdict => of_out,
                _ => of_pv,
            }
        }
    };
    judged.notes.extend(pv_doubt.into_iter().chain(out_doubt));
    judged.notes.extend(doubts(e, &window));
    let hash = |numbers: &[f64]| {
        let mut hasher = blake3::Hasher::new();
        // why: a printed -0 is the same number as 0.
        for x in numbers {
            hasher.update(&(x + 0.0).to_le_bytes());
        }
        *hasher.finalize().as_bytes()
    };
    let against = if summed_here(e, &window) { Some(&window.sum[..]) } else { e.pv_cpu.as_deref() };
    let numbers = Numbers::VAcc {
        probe: e.probe.clone(),
        scope: e.scope,
        pv_mae: pv_mae.or_else(|| Some(mean_abs(&e.pv_gpu, &window.sum))).filter(|x| x.is_finite()),
        pv_mae_recomputed: against.map(|a| mean_abs(&e.pv_gpu, a)).filter(|x| x.is_finite()),
        out_mae: out_mae.filter(|x| x.is_finite()),
        window_mass: window.mass.sum,
        evidence: Evidence {
            p: hash(&e.p),
            v: hash(&e.v),
            pv: e.pv_gpu.clone(),
            slack: (0..e.dims)
                .map(|d| {
                    // Weights outside, too, may differ as much as half a unit, at most 5e-6 of each.
                    window.printing[d]
                        + window.pv_arithmetic[d]
                        + half_unit(e.pv_gpu[d])
                        + half_unit(1.0) * window.outside[d]
                })
                .collect(),
        },
    };
    (numbers, judged)
}

/// Whether the sum made here, over the window, is what the kernel is held against.
fn summed_here(e: &VAcc, window: &Window) -> bool {
    window.whole || e.scope == Scope::Window
}

impl Sum<'_> {
    /// The mean error as printed, where the samples bear it out; else their own, and that it differs.
    fn mean_error(&self) -> (Option<f64>, Option<String>) {
        let Some(cpu) = self.cpu else { return (self.mae, None) };
        let diffs = || self.gpu.iter().zip(cpu).map(|(g, c)| (g - c).abs());
        let slack = || self.gpu.iter().zip(cpu).map(|(g, c)| half_unit(*g) + half_unit(*c));
        let dims = self.gpu.len() as f64;
        let mean = diffs().sum::<f64>() / dims;
        let largest = diffs().fold(0.0, f64::max);
        if !mean.is_finite() {
            return (self.mae, None);
        }
        // why: f64 rounds these sums in the sixteenth digit; a trace may print all sixteen.
        let own = 1e-15 * self.gpu.iter().chain(cpu).map(|x| x.abs()).fold(0.0, f64::max);
        let name = self.name;
        let contradicts = |kind: &str, printed: Option<f64>, found: f64, slack: f64| {
            let printed = printed?;
            ((printed - found).abs() > slack + half_unit(printed) + own).then(|| {
                let (printed, found) = (short(printed), short(found));
                format!("the trace's {name}_{kind} {printed} contradicts its own samples: {found}")
            })
        };
        let of_mean = contradicts("mae", self.mae, mean, slack().sum::<f64>() / dims);
        let of_largest =
            contradicts("max_diff", self.max_diff, largest, slack().fold(0.0, f64::max));
        let mae = if of_mean.is_some() { Some(mean) } else { self.mae.or(Some(mean)) };
        (mae, of_mean.or(of_largest))
    }
}

fn judge_sum(e: &VAcc, window: &Window, sum: &Sum<'_>) -> Judged {
    if let Some(d) = sum.gpu.iter().position(|x| !x.is_finite()) {
        let name = sum.name;
        let note = format!("{name}_gpu_sample[{d}] is not finite, and the weights and V seen are");
        return Judged::new(Verdict::Unexplained, note);
    }
    let printed = |d: usize| half_unit(sum.gpu[d]) + sum.arithmetic[d];
    let by_window = Residuals::new(sum.gpu, &window.sum, |d| printed(d) + window.printing[d]);
    let by_trace =
        sum.cpu.map(|cpu| Residuals::new(sum.gpu, cpu, |d| printed(d) + half_unit(cpu[d])));
    let fits_trace = by_trace.as_ref().is_some_and(|r| r.worst(0.0).1 <= 1.0);
    let row_fits = match &by_trace {
        _ if summed_here(e, window) => by_window.worst(0.0).1 <= 1.0,
        // why: where the trace's sum was the column-wise guess, a row's fit was its other guess.
        Some(r) if e.probe.best == Some("col") => {
            e.probe.mae_row.is_none_or(|mae| mae <= r.mean_rounding())
        }
        _ => true,
    };
    if e.probe.best == Some("col") && fits_trace && !row_fits {
        return column_wise(sum);
    }
    if !summed_here(e, window) {
        // `VAcc` holds the trace's sum in this scope; an output's own may be missing all the same.
        return match by_trace {
            Some(r) => against_trace(e, window, sum, &r),
            None => Judged::new(Verdict::Clean, format!("{} has no reference", sum.name)),
        };
    }
    let (d, ratio) = by_window.worst(0.0);
    if ratio <= 1.0 {
        return at_rounding_level(window, &by_window, ratio, e.seq_len);
    }
    let outside = window.held_outside();
    let (far, held) = by_window.worst(outside);
    if !window.whole && held <= 1.0 {
        return within_the_mass_outside(e, window, &by_window).with_ratio(held);
    }
    let mut judged = missed(e, sum, &by_window, window, d, ratio);
    if outside > 0.0 {
        let times = (by_window.abs[far] - by_window.rounding[far]) / outside;
        judged.notes.push(format!(
            "the {} of the mass outside the window would have to lie on rows of V {} times as large \
             as any seen",
            percent(window.mass.most_missing(window.whole)),
            short(times)
        ));
    }
    judged
}

fn column_wise(sum: &Sum<'_>) -> Judged {
    let note = format!(
        "{} is the sum over V read column-wise, to rounding, and not the one read row by row: right \
         only if the cache is laid out HDN",
        sum.name
    );
    Judged { fault: Some("v_col"), ..Judged::new(Verdict::Explained, note) }
}

/// In scope `full`, over a window that is a part of the keys.
fn against_trace(e: &VAcc, window: &Window, sum: &Sum<'_>, r: &Residuals) -> Judged {
    let (d, ratio) = r.worst(0.0);
    if ratio > 1.0 {
        return missed(e, sum, r, window, d, ratio);
    }
    let note = format!("within rounding of the sum over all {} keys", e.seq_len);
    let mut judged = Judged::new(Verdict::Clean, note).with_ratio(ratio);
    // What the window can say of the reference itself.
    if let Some(cpu) = sum.cpu {
        let apart = Residuals::new(cpu, &window.sum, |d| half_unit(cpu[d]) + window.printing[d]);
        if apart.worst(window.held_outside()).1 > 1.0 {
            judged.notes.push(format!(
                "that sum is {} away from the window's, more than the {} of the mass outside can \
                 hold with V in the range seen ({})",
                short(apart.largest()),
                percent(window.mass.most_missing(false)),
                short(window.range)
            ));
        }
    }
    judged
}

fn at_rounding_level(window: &Window, r: &Residuals, ratio: f64, keys: u64) -> Judged {
    let missing = window.mass.least_missing(window.whole);
    if r.rounding.iter().all(|rounding| missing * window.range <= *rounding) {
        let note = format!("within rounding of the sum over {} keys, made again here", window.keys);
        return Judged::new(Verdict::Clean, note).with_ratio(ratio);
    }
    let note = format!(
        "at rounding level of a sum over {} of {keys} keys, although {} of the mass lies outside: \
         those rows cancel, or the kernel left them out too; a sum over all keys would tell",
        window.keys,
        percent(missing)
    );
    Judged::new(Verdict::Reference, note).with_ratio(ratio)
}

fn within_the_mass_outside(e: &VAcc, window: &Window, r: &Residuals) -> Judged {
    let missing = window.mass.most_missing(window.whole);
    let note = format!(
        "the reference sums the last {} of {} keys; the residual (largest {}, mean {}) is within what \
         the other {} of the mass can hold: {}, if V there stays in the range seen ({})",
        window.keys,
        e.seq_len,
        short(r.largest()),
        short(r.mean()),
        percent(missing),
        short(missing * window.range),
        short(window.range)
    );
    let mut judged = Judged::new(Verdict::Reference, note);
    judged.notes.push(
        "it can neither find the kernel wrong nor prove it right; a sum over all keys would"
            .to_owned(),
    );
    if let Some((label, mae, factor)) = probe_misses(e, r) {
        judged.notes.push(format!(
            "the probe's `{label}` is no finding: its mean error {} is {} times the rounding level",
            short(mae),
            short(factor)
        ));
    }
    judged
}

/// What the probe chose, its mean error, and how many times the mean rounding level that is.
fn probe_misses(e: &VAcc, r: &Residuals) -> Option<(&'static str, f64, f64)> {
    let label = e.probe.best?;
    let mae = if label == "row" { e.probe.mae_row } else { e.probe.mae_col }?;
    let factor = mae / r.mean_rounding();
    (factor > 1.0 && factor.is_finite()).then_some((label, mae, factor))
}

/// Wrong, and not explained.
fn missed(e: &VAcc, sum: &Sum<'_>, r: &Residuals, window: &Window, d: usize, ratio: f64) -> Judged {
    let note = format!(
        "{} misses by {} at sampled element {d}, {} times what rounding allows",
        sum.name,
        short(r.abs[d]),
        short(ratio)
    );
    let mut judged = Judged::new(Verdict::Unexplained, note).with_ratio(ratio);
    if let Some((label, mae, factor)) = probe_misses(e, r) {
        judged.notes.push(format!(
            "neither row nor col fits: the probe's `{label}` is the better of two wrong guesses, and \
             its mean error {} is {} times the rounding level {}",
            short(mae),
            short(factor),
            short(r.mean_rounding())
        ));
    }
    let as_narrow = |t: &DType| {
        let u = t.unit_roundoff();
        (0..sum.gpu.len()).all(|d| r.abs[d] <= r.rounding[d] + 2.0 * u * window.abs[d])
    };
    if let Some(t) = [DType::F16, DType::BF16].into_iter().find(as_narrow) {
        judged.notes.push(format!("no further off than P or the output held in {t} would be"));
    }
    judged
}

/// What else does not agree in the event; no verdict of its own.
fn doubts(e: &VAcc, window: &Window) -> Vec<String> {
    let mut doubts = Vec::new();
    // The trace's reference against the sum made here over the same keys.
    if let Some(cpu) = e.pv_cpu.as_deref().filter(|_| summed_here(e, window)) {
        let apart = Residuals::new(cpu, &window.sum, |d| half_unit(cpu[d]) + window.printing[d]);
        if apart.worst(0.0).1 > 1.0 {
            doubts.push(match e.probe.best {
                Some("col") => "the trace's own pv_cpu_fp64_sample was summed column-wise".to_owned(),
                _ => format!(
                    "the trace's own pv_cpu_fp64_sample is {} away from the sum of its weights and V",
                    short(apart.largest())
                ),
            });
        }
    }
    if let Some(pos) = e.head.pos_id.filter(|pos| pos.saturating_add(1) != e.seq_len) {
        doubts.push(format!("seq_len {} is not pos_id {pos} + 1", e.seq_len));
    }
    doubts
}
