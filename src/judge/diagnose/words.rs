//! A diagnosis in words: how sure, why, what to look at, what capture would tell more.

use super::beside::{Shown, Weights, lse_in_words};
use super::catalogue::{self, Fault};
use super::infer::NotInferred;
use super::problem::Problem;
use super::{Diagnosis, Named};
use crate::problem::DType;
use std::collections::BTreeSet;
use std::fmt;

/// Sentences, joined.
fn note(sentences: impl IntoIterator<Item = Option<String>>) -> String {
    let all: Vec<String> = sentences.into_iter().flatten().collect();
    all.join(". ")
}

/// Units as ranges of heads: `0-2, 5`, with the sequence where there are several.
pub fn units(problem: &Problem<'_>, units: &[usize]) -> String {
    let mut parts: Vec<(usize, usize, usize)> = Vec::new();
    for unit in units {
        let u = &problem.units[*unit];
        match parts.last_mut() {
            Some((s, _, last)) if *s == u.s && (*last == u.h || *last + 1 == u.h) => *last = u.h,
            _ => parts.push((u.s, u.h, u.h)),
        }
    }
    let batch = problem.units.iter().any(|u| u.s > 0);
    let words = parts.iter().map(|(s, first, last)| {
        let heads = if first == last { first.to_string() } else { format!("{first}-{last}") };
        if batch { format!("{s}:{heads}") } else { heads }
    });
    words.collect::<Vec<_>>().join(", ")
}

/// A fault with its parameters: `layer_slice {read: 0}`.
impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let params: Vec<String> =
            self.params.iter().map(|(key, value)| format!("{key}: {value}")).collect();
        match params.is_empty() {
            true => f.write_str(&self.fault),
            false => write!(f, "{} {{{}}}", self.fault, params.join(", ")),
        }
    }
}

fn names<'a>(all: impl IntoIterator<Item = &'a Named>) -> String {
    const SHOWN: usize = 6;
    let all: Vec<String> = all.into_iter().map(Named::to_string).collect();
    let more = all.len().saturating_sub(SHOWN);
    let mut text = all.into_iter().take(SHOWN).collect::<Vec<_>>().join(", ");
    if more > 0 {
        text += &format!(" and {more} more");
    }
    text
}

/// Which heads are wrong, of how many.
fn which(problem: &Problem<'_>, d: &Diagnosis) -> String {
    let wrong: Vec<usize> =
        (0..d.heads.len()).filter(|i| d.heads[*i].verdict != super::Verdict::Clean).collect();
    match wrong.len() == d.heads.len() {
        true => format!("all {} outputs are wrong", wrong.len()),
        false => {
            let heads = units(problem, &wrong);
            format!("{} of {} outputs are wrong (head {heads})", wrong.len(), d.heads.len())
        }
    }
}

/// Where something fits.
pub fn explained(problem: &Problem<'_>, d: &Diagnosis, shown: &Shown, weak: bool) -> String {
    let ids: Vec<&Fault> =
        d.fault.as_deref().unwrap_or("").split('+').filter_map(catalogue::find).collect();
    let meaning: Vec<&str> = ids.iter().map(|f| f.meaning).collect();
    let sure = match d.fit.finite {
        0 => Some("no output is finite, so whatever reads something that is not fits".to_owned()),
        n => Some(format!(
            "all {n} elements of them agree with that: the largest error is {:.3} of its own bound",
            d.fit.ratio
        )),
    };
    let weak = weak.then(|| {
        format!(
            "that is too little evidence: of {} predictions chance alone might fit one so well; \
             capture more heads, or an output in f32",
            d.total()
        )
    });
    let others = d.equivalent.iter().filter(|e| Some(&e.fault) != d.fault.as_ref());
    let others: Vec<&Named> = others.collect();
    let coincides = (!others.is_empty()).then(|| {
        format!(
            "on this slice it coincides with {}{}",
            names(others.iter().copied()),
            apart(problem, d)
        )
    });
    let partial = match shown.weights {
        Weights::Partial { w, .. } => {
            Some(format!("the probs beside it cover the last {w} keys only"))
        }
        _ => None,
    };
    note([
        Some(which(problem, d)),
        zeros(problem),
        Some(meaning.join("; and ")),
        sure,
        weak,
        coincides,
        partial,
        lse_in_words(problem),
    ])
}

/// Where the row that is missing was solved for.
pub fn inferred(problem: &Problem<'_>, d: &Diagnosis, weights: &[f64]) -> String {
    let wrong = d.heads.iter().zip(weights).filter(|(h, _)| h.fault.is_some()).map(|(_, w)| *w);
    let (least, most) = wrong.fold((f64::INFINITY, 0.0f64), |(a, b), w| (a.min(w), b.max(w)));
    note([
        Some(which(problem, d)),
        Some(
            "the current token's row held something else when it was read, which the capture no \
             longer has: one row for each KV head explains all heads that share it"
                .to_owned(),
        ),
        Some(format!("it was solved for, with weights of {least:.3} to {most:.3}")),
        Some("capture the cache before the append as well to see the row itself".to_owned()),
    ])
}

/// Where the output is right.
pub fn clean(
    problem: &Problem<'_>,
    d: &Diagnosis,
    shown: &Shown,
    held: Option<(DType, f64)>,
) -> String {
    let held = held.map(|(dtype, ratio)| {
        format!(
            "right where P is held in {dtype} when it multiplies V, and not otherwise: then it would be \
             {ratio:.1e} of its bound off"
        )
    });
    let stored = problem.arithmetic.out;
    let stored = (stored != DType::F32 && stored != DType::F64)
        .then(|| format!("the output is {stored}, or was before it was captured"));
    let reference = match shown.weights {
        Weights::Partial { w, renormalised, missing, residual } => Some(format!(
            "the output is right; the reference beside it covers the last {w} keys only{}: up to \
             {:.1} % of a head's weight lies before them, and P·V of it misses the output by \
             {residual:.3e} on average",
            if renormalised { ", renormalised" } else { "" },
            100.0 * missing,
        )),
        Weights::Wrong(ratio) => Some(format!(
            "the probs in the file are not the softmax of its q and k ({ratio:.1e} of their bound): \
             the output was not made from them"
        )),
        _ => None,
    };
    let scores = shown.scores.filter(|ratio| *ratio > 1.0).map(|ratio| {
        format!("the scores in the file are not those of its q and k ({ratio:.1e} of their bound)")
    });
    let coincides = (!d.equivalent.is_empty()).then(|| {
        format!("would look the same here: {}{}", names(&d.equivalent), apart(problem, d))
    });
    let nonfinite =
        nonfinite(problem).map(|what| format!("the right answer is not finite either: {what}"));
    note([nonfinite, reference, held, stored, scores, lse_in_words(problem), coincides])
}

/// Where nothing fits.
pub fn unexplained(
    problem: &Problem<'_>,
    d: &Diagnosis,
    shown: &Shown,
    row: Option<NotInferred>,
) -> String {
    let closest = d.candidates.first().map(|c| {
        format!(
            "the closest, {}, is {:.1e} of its bound off: the best of wrong guesses is no answer",
            c, c.fit.ratio
        )
    });
    let stage = match shown.stage() {
        Some("pv") => Some("scores and weights are right: look at P·V".to_owned()),
        Some(stage) => Some(format!("the first stage that is wrong is {stage}")),
        None => None,
    };
    let row = match row {
        Some(NotInferred::OneHead) => {
            Some("a current row that is gone cannot be solved for with one query head a KV head")
        }
        Some(NotInferred::Alike) => Some(
            "a row that is gone would explain it, but the heads that share a KV head are \
             too much alike, or too coarse, to prove that: so would much else",
        ),
        _ => None,
    };
    let row = row.map(str::to_owned);
    note([
        Some(which(problem, d)),
        zeros(problem),
        nonfinite(problem),
        closest,
        stage,
        row,
        lse_in_words(problem),
    ])
}

/// Outputs that are zeros throughout.
fn zeros(problem: &Problem<'_>) -> Option<String> {
    let is_zero = |u: &usize| {
        let out = problem.output(*u);
        !problem.attended(*u).is_empty() && !out.is_empty() && out.iter().all(|x| *x == 0.0)
    };
    let all: Vec<usize> = (0..problem.units.len()).filter(is_zero).collect();
    (!all.is_empty()).then(|| {
        format!(
            "the output of head {} is zeros throughout: it may never have been written",
            units(problem, &all)
        )
    })
}

/// Outputs that are not finite: where, and what could have made them so.
fn nonfinite(problem: &Problem<'_>) -> Option<String> {
    let bad: Vec<usize> = (0..problem.units.len())
        .filter(|u| problem.output(*u).iter().any(|x| !x.is_finite()))
        .collect();
    let first = *bad.first()?;
    let element = problem.output(first).iter().position(|x| !x.is_finite())?;
    let count = problem.observed.iter().filter(|x| !x.is_finite()).count();
    let mut causes = Vec::new();
    // A stage alone has what it does read in the place of a cache that it lacks.
    let (reads_k, reads_v) = problem.task.reads();
    let caches = [
        ("K", &problem.k, problem.head_dim, reads_k),
        ("V", &problem.v, problem.head_dim_v, reads_v),
    ];
    for (name, memory, dim, _) in caches.into_iter().filter(|(.., reads)| *reads) {
        let (place, layer) = (&memory.place, problem.layer);
        let holds = |u: &usize, n: usize| {
            let unit = &problem.units[*u];
            let at = |d| place.index(unit.s, layer, unit.h / problem.group(), n, d);
            (0..dim).any(|d| !memory.at(at(d)).is_finite())
        };
        let bad_rows = |of: &dyn Fn(usize) -> std::ops::Range<usize>| {
            bad.iter().find_map(|u| of(*u).find(|n| holds(u, *n)))
        };
        if let Some(n) = bad_rows(&|u| problem.attended(u)) {
            causes.push(format!("attended row {n} of {name} is not finite"));
        }
        if let Some(n) = bad_rows(&|u| 0..problem.attended(u).start) {
            causes.push(format!("row {n} of {name}, before the window, is not finite"));
        }
        if let Some(n) = bad_rows(&|u| problem.units[u].keys..problem.capacity) {
            causes.push(format!("row {n} of {name}, past the end, is not finite"));
        }
    }
    let largest = largest_score(problem, &bad);
    // exp of more than this is infinite in f32; 65504 is f16's largest number.
    if largest.1 > 88.72 {
        causes.push(format!(
            "scores reach {:.1}, whose exponential is infinite in f32 unless the largest is \
             subtracted first",
            largest.1
        ));
    }
    if largest.0 > 65504.0 {
        causes.push(format!("Q·K reaches {:.3e} before the scale, beyond f16", largest.0));
    }
    if bad.iter().any(|u| problem.attended(*u).is_empty()) {
        causes.push("a sequence is empty: 0 / 0 unless that is asked first".to_owned());
    }
    let causes = match causes.is_empty() {
        true => "nothing in the inputs is not finite or overflows: look for memory that nothing \
                 wrote, or a part without keys (-inf minus -inf)"
            .to_owned(),
        false => format!("it could come from: {}", causes.join("; ")),
    };
    let unit = &problem.units[first];
    Some(format!(
        "{count} elements of head {} are not finite (first: sequence {}, head {}, element \
         {element}); {causes}",
        units(problem, &bad),
        unit.s,
        unit.h
    ))
}

/// The largest |Q·K| before the scale, and the largest score, over some units.
fn largest_score(problem: &Problem<'_>, of: &[usize]) -> (f64, f64) {
    let mut p = super::Prediction::default();
    let mut largest = (0.0f64, f64::NEG_INFINITY);
    for unit in of {
        super::right(problem, *unit, &problem.arithmetic, &mut p);
        let scale = problem.scale.abs();
        let dot = p.answer.abs_scores.iter().copied().fold(0.0, f64::max);
        largest.0 = largest.0.max(if scale > 0.0 { dot / scale } else { 0.0 });
        largest.1 = p.answer.scores.iter().copied().fold(largest.1, f64::max);
    }
    largest
}

/// What capture would tell apart what coincides.
fn apart(problem: &Problem<'_>, d: &Diagnosis) -> String {
    let ids: BTreeSet<&str> = d
        .equivalent
        .iter()
        .flat_map(|e| e.fault.split('+'))
        .chain(d.fault.as_deref().unwrap_or("").split('+'))
        .collect();
    let any = |of: &[&str]| of.iter().any(|id| ids.contains(id));
    let mut wanted = Vec::new();
    if problem.seq_len <= 1 {
        wanted.push("more than one token".to_owned());
    } else if any(&[
        "seq_len_minus_1",
        "seq_len_plus_1",
        "sink_dropped",
        "window_w",
        "window_off_by_one",
        "dropped_tail",
        "pos_shift",
        "capacity_as_seq",
        "split_not_rescaled",
        "stale_current",
    ]) {
        wanted.push(
            "a length that is no multiple of a tile, with weight on the first and last keys"
                .to_owned(),
        );
    }
    if any(&["double_scale", "scale_by_d"]) {
        wanted.push("a scale other than 1 / sqrt(head_dim)".to_owned());
    }
    if any(&["head_map_interleaved", "head_off_by_one"]) {
        wanted.push("three or more KV heads that differ".to_owned());
    }
    if any(&["layer_slice", "v_prev_layer_mixed"]) {
        wanted.push("the caches of more layers".to_owned());
    }
    if any(&["stride_seq_len", "v_col", "k_col", "nhd_as_hnd", "hnd_as_nhd", "kv_swapped"]) {
        wanted.push("rows that differ, and a capacity above seq_len".to_owned());
    }
    if any(&["zero_padded_head_dim"]) {
        wanted.push("a q that is not 0 in its last elements".to_owned());
    }
    match wanted.is_empty() {
        true => String::new(),
        false => format!(" (to tell them apart, capture {})", wanted.join("; ")),
    }
}
