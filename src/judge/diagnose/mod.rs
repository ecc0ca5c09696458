//! Diagnosis: which fault explains an output.
//!
//! | subject | file |
//! | --- | --- |
//! | buffers and outputs to be explained | `problem` |
//! | how an output is computed, rightly or not | `recipe` |
//! | what comes out of that, with its bound | `predict` |
//! | sums and scores in 16 bits, rounding by rounding | `narrow` |
//! | every fault that can be named | `catalogue`; its members on a problem: `members` |
//! | windows, tails and cuts by running sums | `ranges` |
//! | trying them all, alone and in pairs | `search` |
//! | trying what is named on other cases | `check` |
//! | the row that the capture no longer has | `infer` |
//! | scores and weights beside the output | `beside` |
//! | a log-sum-exp that is wrong | `lse` |
//! | under which promise it would be right | `promise` |
//! | the right answer, to be written | `attend` |
//! | a case that failed in a sweep | `failing` |
//! | a file that a sweep saved | `saved` |
//! | what figures show of a slice | `profile` |
//! | the verdict | here; in words in `words` |
//!
//! A head fits a hypothesis only where its error is within the error bound of *that* prediction.
//! The right answer comes first. It is tried as the kernel promises its arithmetic, then with P
//! held in f16 and bf16, which makes the bound so wide that a fault with a small effect fits under
//! it: where a fault explains the same outputs to its own, narrow bound, and chance does not, the
//! fault is named.

pub mod attend;
pub mod beside;
pub mod catalogue;
pub mod check;
pub mod failing;
mod infer;
pub mod lse;
mod members;
mod narrow;
pub mod predict;
pub mod problem;
pub mod profile;
pub mod promise;
mod ranges;
pub mod recipe;
pub mod saved;
pub mod search;
mod words;

#[cfg(test)]
mod tests;

pub use super::verdict::Verdict;

use crate::oracle::Arithmetic;
use crate::problem::DType;
use beside::{Shown, Weights};
use catalogue::{Param, Params};
use infer::NotInferred;
use predict::{Fit, Prediction, right};
use problem::{Problem, Task};
use search::{Finding, Search, Searched, Tried};
use std::collections::BTreeMap;

/// A fault with its parameters.
#[derive(Debug, Clone, PartialEq)]
pub struct Named {
    /// The id; `a+b` for a pair.
    pub fault: String,
    /// Its parameters.
    pub params: Params,
    /// How it compares on the heads that are wrong.
    pub fit: Fit,
}

/// What was found of one head.
#[derive(Debug, Clone, PartialEq)]
pub struct HeadVerdict {
    /// Sequence.
    pub batch: usize,
    /// Query head.
    pub head: usize,
    /// Keys up to its position (in a prefill one head has many).
    pub keys: usize,
    /// Clean, explained or unexplained.
    pub verdict: Verdict,
    /// What explains it.
    pub fault: Option<String>,
    /// The largest error over the bound of what explains it; of the right answer where nothing
    /// does.
    pub ratio: f64,
}

/// The result of a diagnosis.
#[derive(Debug, Clone)]
pub struct Diagnosis {
    /// The verdict.
    pub verdict: Verdict,
    /// What is named.
    pub fault: Option<String>,
    /// Its parameters.
    pub params: Params,
    /// The first stage that is wrong, where the file shows it.
    pub stage: Option<&'static str>,
    /// How the outputs compare with what the verdict says; with the closest where nothing fits.
    pub fit: Fit,
    /// The ranked hypotheses.
    pub candidates: Vec<Named>,
    /// What coincides with the verdict on this slice.
    pub equivalent: Vec<Named>,
    /// Members of a family that coincide as well as the screen can tell, and are not listed.
    pub more: BTreeMap<&'static str, usize>,
    /// By head.
    pub heads: Vec<HeadVerdict>,
    /// Predictions tried and rejected, by id.
    pub tried: BTreeMap<String, Tried>,
    /// In words: how sure, why, what to look at.
    pub note: String,
    /// The id of the case that it is of, where that is another than the one it stands beside.
    pub told_by: Option<String>,
}

impl Diagnosis {
    /// The diagnosis of a file that cannot be judged.
    pub fn invalid(why: String) -> Diagnosis {
        Diagnosis {
            verdict: Verdict::Invalid,
            fault: None,
            params: Params::new(),
            stage: None,
            fit: Fit::NONE,
            candidates: Vec::new(),
            equivalent: Vec::new(),
            more: BTreeMap::new(),
            heads: Vec::new(),
            tried: BTreeMap::new(),
            note: why,
            told_by: None,
        }
    }

    /// Predictions tried in all.
    pub fn total(&self) -> usize {
        self.tried.values().map(|t| t.tried).sum()
    }

    /// The heads that are not clean.
    pub fn wrong(&self) -> impl Iterator<Item = &HeadVerdict> {
        self.heads.iter().filter(|h| h.verdict != Verdict::Clean)
    }

    /// What to look at in the code, for what is named.
    pub fn advice(&self) -> Vec<&'static str> {
        let ids = self.fault.as_deref().unwrap_or("").split('+');
        ids.filter_map(catalogue::find).map(|f| f.advice).collect()
    }
}

/// How thorough a diagnosis is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Whether pairs of faults are tried where single ones do not fit.
    pub pairs: bool,
    /// Whether other promises than the problem's are tried: P held in 16 bits. Only where nothing
    /// says in which type P is held.
    pub promises: bool,
    /// Whether a row that the buffers no longer hold may be solved for: of an engine's cache, whose
    /// former contents nobody knows. A sweep knows what it wrote.
    pub infers: bool,
    /// Whether a fit that chance might make is named with a doubt.
    pub weighs_chance: bool,
}

impl Options {
    /// For a case of a sweep, whose manifest says what the kernel promises.
    pub const SWEEP: Options =
        Options { pairs: true, promises: false, infers: false, weighs_chance: true };
}

impl Default for Options {
    fn default() -> Self {
        Options { pairs: true, promises: true, infers: true, weighs_chance: true }
    }
}

/// A fit that chance would make less often than this is none of chance's: the rate of the bound's
/// own false alarms.
const CHANCE: f64 = 1e-9;

/// Explains the outputs of a problem.
pub fn diagnose(problem: &Problem<'_>, options: Options) -> Diagnosis {
    diagnose_if(problem, options, &mut |_| true)
}

/// As [`diagnose`]; a finding that fits is named only where `keep` says that it explains more than
/// these outputs.
pub fn diagnose_if(
    problem: &Problem<'_>,
    options: Options,
    keep: &mut dyn FnMut(&Finding) -> bool,
) -> Diagnosis {
    let mut p = Prediction::default();
    let units = 0..problem.units.len();
    let mut fits = Vec::with_capacity(units.len());
    let mut spread = Vec::with_capacity(units.len());
    // The error of each element against the right answer, to weigh chance by.
    let mut errors = Vec::with_capacity(problem.observed.len());
    for unit in units.clone() {
        fits.push(right(problem, unit, &problem.arithmetic, &mut p));
        spread.push(p.spread());
        errors.extend(problem.output(unit).iter().zip(&p.answer.out).map(|(a, b)| (a - b).abs()));
    }
    let shown = beside::look(problem);
    let wrong: Vec<usize> = units.clone().filter(|u| !fits[*u].fits()).collect();
    let no_fault = fits.iter().fold(Fit::NONE, |all, fit| all.and(*fit));
    let mut d = Diagnosis {
        verdict: Verdict::Clean,
        fit: no_fault,
        heads: heads(problem, &fits),
        ..Diagnosis::invalid(String::new())
    };
    if wrong.is_empty() {
        clean(problem, &mut d, &spread, &shown, None);
        return d;
    }
    d.stage = shown.stage();
    let attends = problem.task == Task::Attend;
    let narrowed = if attends && options.promises { narrowed(problem, &mut p) } else { None };
    let mut search = Search::new(problem, wrong.clone(), &spread);
    let mut found = search.singles();
    found.fits.retain(&mut *keep);
    let by_chance = |found: &Searched, search: &mut Search<'_, '_>| {
        options.weighs_chance
            && log_chance(found, search, problem, &wrong, &errors) >= libm::log(CHANCE)
    };
    if let Some((dtype, fits)) = &narrowed
        && by_chance(&found, &mut search)
    {
        let arithmetic = Arithmetic { probs: *dtype, ..problem.arithmetic };
        let wide = Problem { arithmetic, ..problem.clone() };
        d.fit = fits.iter().fold(Fit::NONE, |all, fit| all.and(*fit));
        d.heads = heads(&wide, fits);
        d.stage = None;
        clean(&wide, &mut d, &spread, &shown, Some((*dtype, no_fault.ratio)));
        d.equivalent.splice(0..0, found.fits.iter().map(named));
        return d;
    }
    d.tried.append(&mut found.tried);
    if !found.fits.is_empty() {
        let weak = by_chance(&found, &mut search);
        explain(problem, &mut d, &mut search, found, &shown, None, weak);
        return d;
    }
    // The same with P narrowed as matrix cores hold it: in the cache's type.
    let held = problem.v.dtype;
    let narrow = matches!(held, DType::F16 | DType::BF16);
    if attends && narrow && options.promises && problem.arithmetic.probs == DType::F32 {
        let arithmetic = Arithmetic { probs: held, ..problem.arithmetic };
        let wide = Problem { arithmetic, ..problem.clone() };
        let mut search = Search::new(&wide, wrong.clone(), &spread);
        let again = search.singles();
        // The bound is so wide here that much fits under it: what chance might fit is not named.
        let proven =
            again.fits.first().is_some_and(|f| f.evidence.tells) && !by_chance(&again, &mut search);
        if proven {
            explain(&wide, &mut d, &mut search, again, &shown, Some(held), false);
            return d;
        }
    }
    let inferred = match attends && options.infers {
        true => infer::missing_row(problem),
        false => Err(NotInferred::Inconsistent),
    };
    if let Ok(missing) = &inferred {
        d.verdict = Verdict::Explained;
        d.fault = Some("stale_current".to_owned());
        d.params = Params::from([("variant", Param::Text("former".into()))]);
        d.fit = missing.fit;
        name_heads(&mut d, &missing.fits);
        d.note = words::inferred(problem, &d, &missing.weights);
        return d;
    }
    let mut closest = found.closest;
    if options.pairs && problem.observed.iter().any(|x| x.is_finite()) {
        let mut pairs = search.pairs();
        pairs.fits.retain(&mut *keep);
        d.tried.append(&mut pairs.tried);
        if !pairs.fits.is_empty() {
            let weak = by_chance(&pairs, &mut search);
            explain(problem, &mut d, &mut search, pairs, &shown, None, weak);
            return d;
        }
        closest.append(&mut pairs.closest);
        closest.sort_by(|a, b| a.fit.ratio.total_cmp(&b.fit.ratio));
    }
    d.verdict = Verdict::Unexplained;
    d.candidates = closest.iter().map(named).collect();
    d.fit = closest.first().map_or(no_fault, |c| c.fit);
    d.note = words::unexplained(problem, &d, &shown, inferred.err());
    d
}

fn named(finding: &Finding) -> Named {
    Named { fault: finding.id(), params: finding.params.clone(), fit: finding.fit }
}

fn heads(problem: &Problem<'_>, fits: &[Fit]) -> Vec<HeadVerdict> {
    let verdict = |fit: &Fit| if fit.fits() { Verdict::Clean } else { Verdict::Unexplained };
    let units = problem.units.iter().zip(fits);
    units
        .map(|(unit, fit)| HeadVerdict {
            batch: unit.s,
            head: unit.h,
            keys: unit.keys,
            verdict: verdict(fit),
            fault: None,
            ratio: fit.ratio,
        })
        .collect()
}

/// The type of P with which every head is right, if there is one, and how they fit.
fn narrowed(problem: &Problem<'_>, p: &mut Prediction) -> Option<(DType, Vec<Fit>)> {
    [DType::F16, DType::BF16].into_iter().find_map(|probs| {
        let arithmetic = Arithmetic { probs, ..problem.arithmetic };
        let fits = (0..problem.units.len()).map(|u| right(problem, u, &arithmetic, p));
        let fits: Vec<Fit> = fits.take_while(Fit::fits).collect();
        (fits.len() == problem.units.len()).then_some((probs, fits))
    })
}

/// The logarithm of how often chance would fit one of the predictions as well: an element that the
/// right answer misses by far more than the finding's own bound is met by chance once in so many
/// times. Infinite where nothing fits.
fn log_chance(
    found: &Searched,
    search: &mut Search<'_, '_>,
    problem: &Problem<'_>,
    wrong: &[usize],
    errors: &[f64],
) -> f64 {
    let Some(best) = found.fits.first() else { return f64::INFINITY };
    let mut chance = libm::log(found.total() as f64);
    for unit in wrong {
        let bounds = search.bounds(best, *unit);
        let of = &errors[problem.span(*unit)];
        let shares = bounds.iter().zip(of).map(|(b, e)| if *e > *b { b / e } else { 1.0 });
        chance += shares.map(|share| libm::log(share.max(1e-300))).sum::<f64>();
    }
    chance
}

/// Fills in the verdict on an output that is right.
fn clean(
    problem: &Problem<'_>,
    d: &mut Diagnosis,
    spread: &[f64],
    shown: &Shown,
    held: Option<(DType, f64)>,
) {
    let mut search = Search::new(problem, (0..problem.units.len()).collect(), spread);
    let mut found = search.singles();
    d.equivalent = found.fits.iter().map(named).collect();
    d.more = found.more;
    d.tried.append(&mut found.tried);
    if let Weights::Partial { w, renormalised, .. } = shown.weights {
        let of = if renormalised { "renormalised" } else { "as they are" };
        d.verdict = Verdict::Reference;
        d.fault = Some(REFERENCE.to_owned());
        d.params = Params::from([("w", Param::Int(w)), ("weights", Param::Text(of.into()))]);
    }
    d.note = words::clean(problem, d, shown, held);
}

/// The id of a reference that covers the last keys only.
pub const REFERENCE: &str = "softmax_over_window_then_full";

/// Fills in the verdict where something fits.
fn explain(
    problem: &Problem<'_>,
    d: &mut Diagnosis,
    search: &mut Search<'_, '_>,
    found: Searched,
    shown: &Shown,
    held: Option<DType>,
    weak: bool,
) {
    let best = found.fits[0].clone();
    let weak = weak || !best.evidence.tells;
    // Those of equal rank, of another id, are as good a name.
    let equal = |f: &Finding| f.everywhere == best.everywhere && f.order.0 == best.order.0;
    let others = found.fits.iter().filter(|f| equal(f) && f.faults != best.faults);
    d.verdict = if others.count() == 0 && !weak { Verdict::Explained } else { Verdict::Ambiguous };
    d.fault = Some(best.id());
    d.params = best.params.clone();
    d.fit = best.fit;
    if let Some(dtype) = held {
        d.params.insert("probs", Param::Text(dtype.name().into()));
    }
    let is_wrong = |unit: &usize| d.heads[*unit].verdict != Verdict::Clean;
    let wrong: Vec<usize> = (0..d.heads.len()).filter(is_wrong).collect();
    if wrong.len() < d.heads.len() {
        let words = words::units(problem, &wrong);
        d.params.insert("heads", Param::Text(words));
    }
    name_heads(d, &search.fits(&best));
    d.candidates = found.fits.iter().take(5).map(named).collect();
    d.equivalent = found.fits[1..].iter().map(named).collect();
    d.more = found.more;
    d.note = words::explained(problem, d, shown, weak);
}

/// Says of the heads that are wrong what explains them, and how they fit that.
fn name_heads(d: &mut Diagnosis, fits: &[Fit]) {
    let heads = d.heads.iter_mut().zip(fits);
    for (head, fit) in heads.filter(|(head, _)| head.verdict != Verdict::Clean) {
        (head.verdict, head.fault, head.ratio) = (Verdict::Explained, d.fault.clone(), fit.ratio);
    }
}
