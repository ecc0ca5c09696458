//! Which fault explains every failing case that is asked.

use super::seen::Seen;
use super::{Evidence, Explanation};
use crate::device::interrupt;
use crate::judge::diagnose::catalogue::FAULTS;
use crate::judge::diagnose::check::{Candidate, Checked};
use crate::judge::diagnose::failing::{of_append, problem_of};
use crate::judge::diagnose::lse::{LseFault, LseVerdict, explain_lse};
use crate::judge::diagnose::problem::Problem;
use crate::judge::diagnose::promise::{Promise, promises};
use crate::judge::diagnose::search::{Finding, Search};
use crate::judge::diagnose::{Diagnosis, Named, Options, Verdict, diagnose_if};
use crate::judge::trial::Trial;
use crate::problem::{Case, Pointer, Regime, Stage};

/// Faults that are held against the failing cases at most: what is beyond is not named. A count and no
/// time, so that the same sweep says the same on any machine.
const MOST_HELD: usize = 400;

/// Elements of q, K and V that a case may have to be searched: of longer ones a search takes seconds.
const MOST_ELEMENTS: usize = 1 << 19;

/// Cases that agree in so great a number do not by chance.
const MANY: usize = 4;

/// Cases on which a search begins, where those before them name nothing that explains all.
const BASES: usize = 3;

/// What a case must have to tell faults apart: keys, and elements of its outputs.
const TELLING: (usize, usize) = (9, 8);

/// How many failing cases were asked, and what they said.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Asked {
    /// Failing cases on which faults could be tried.
    pub cases: usize,
    /// How many of them the fault fits that is named, or that fits the most.
    pub fits: usize,
    /// The fault that fits the most of them, where none fits all.
    pub most: Option<String>,
}

/// Looks for a fault that explains all of the evidence.
pub fn search(trial: &mut Trial, evidence: &[Evidence<'_>], seen: Option<Seen>) -> Explanation {
    if evidence[0].failing.0.stage == Stage::Append {
        return appended(evidence, seen);
    }
    let least = evidence.iter().map(|e| elements(e.failing.0)).min().unwrap_or(0);
    let problems: Vec<(&Case, Problem<'_>)> = evidence
        .iter()
        .filter(|e| elements(e.failing.0) <= MOST_ELEMENTS.max(least))
        .filter_map(|e| {
            let (case, failure) = e.failing;
            let buffers = e.again.as_ref().unwrap_or(&failure.buffers);
            Some((case, problem_of(case, buffers, trial.arithmetic(case))?))
        })
        .collect();
    if problems.is_empty() {
        return seen
            .map_or(Explanation::Itself, |seen| Explanation::Seen { seen, cases: evidence.len() });
    }
    if super::told_output(evidence[0].failing) == Some(Pointer::Lse) {
        return of_lse(&problems, seen);
    }
    let mut jury = Jury::new(&problems);
    let mut first: Option<Diagnosis> = None;
    for pairs in [false, true] {
        for base in bases(&problems) {
            if jury.is_late() {
                break;
            }
            // What one case alone says may be chance; what many say is not.
            let weighs_chance = problems.len() < MANY;
            let options = Options { pairs, weighs_chance, ..Options::SWEEP };
            let mut d = diagnose_if(&problems[base].1, options, &mut |f| jury.is_convinced(f));
            // Which heads are wrong is the told case's own affair.
            d.params.remove("heads");
            if base > 0 {
                d.told_by = Some(problems[base].0.to_string());
            }
            // Of few cases, what chance may fit as well is no name.
            let named = match d.verdict {
                Verdict::Explained => true,
                Verdict::Ambiguous => problems.len() >= MANY,
                _ => false,
            };
            if let Some(fault) = d.fault.as_ref().filter(|_| named) {
                let named = Named { fault: fault.clone(), params: d.params.clone(), fit: d.fit };
                let fits = Candidate::named(&named).map_or(0, |c| jury.count(&c));
                let asked = Asked { cases: problems.len(), fits, most: None };
                // What is held in fewer bits than promised may be what the kernel is for.
                let narrow = NARROW.contains(&fault.as_str());
                let promise = if narrow { promised(&problems) } else { None };
                return Explanation::Fault { diagnosis: Box::new(d), asked, promise, seen };
            }
            first.get_or_insert(d);
        }
    }
    let most = jury.farthest();
    let fits = most.as_ref().map_or(0, |candidate| jury.count(candidate));
    let most = most.filter(|_| fits > 0).map(|candidate| candidate.id());
    let asked = Asked { cases: problems.len(), fits, most };
    let mut diagnosis = first.unwrap_or_else(|| Diagnosis::invalid(String::new()));
    diagnosis.verdict = Verdict::Unexplained;
    (diagnosis.fault, diagnosis.params) = (None, Default::default());
    diagnosis.told_by = None;
    let promise = promised(&problems);
    Explanation::Unexplained { diagnosis: Box::new(diagnosis), asked, promise, seen }
}

/// Faults of the catalogue that a manifest may promise.
const NARROW: [&str; 3] = ["fp16_accumulate", "accumulate", "scores_narrowed"];

/// Cases that are asked for a promise: each takes as long as many predictions.
const PROMISED_BY: usize = 16;

/// The promise with which every case would be right that can be asked.
fn promised(problems: &[(&Case, Problem<'_>)]) -> Option<Promise> {
    let mut left: Option<Vec<Promise>> = None;
    let asked = bases(problems).into_iter().chain(0..problems.len()).take(PROMISED_BY);
    for at in asked {
        let here = promises(&problems[at].1);
        let kept = match left {
            None => here,
            Some(left) => {
                let again = |p: &Promise| here.iter().any(|o| (o.key, o.value) == (p.key, p.value));
                left.into_iter().filter(again).collect()
            }
        };
        if kept.is_empty() {
            return None;
        }
        left = Some(kept);
    }
    left.and_then(|left| left.into_iter().next())
}

/// What is wrong with the lse alone, the same in every case that can tell.
fn of_lse(problems: &[(&Case, Problem<'_>)], seen: Option<Seen>) -> Explanation {
    let verdicts: Vec<LseVerdict> = problems.iter().map(|(_, p)| explain_lse(p)).collect();
    let named: Vec<&LseFault> = verdicts
        .iter()
        .filter_map(|v| match v {
            LseVerdict::Named(fault) => Some(fault),
            _ => None,
        })
        .collect();
    let refuted = verdicts.contains(&LseVerdict::Unexplained);
    let mut diagnosis = Diagnosis::invalid(String::new());
    diagnosis.verdict = Verdict::Unexplained;
    let cases = problems.len();
    let Some(first) = named.first() else {
        let asked = Asked { cases, fits: 0, most: None };
        let diagnosis = Box::new(diagnosis);
        return Explanation::Unexplained { diagnosis, asked, promise: None, seen };
    };
    // A parameter that follows the case need not be the same.
    let own = |f: &LseFault| match FAULTS.iter().find(|known| known.id == f.fault) {
        Some(known) => known.own(&f.params),
        None => f.params.clone(),
    };
    let same = |f: &&&LseFault| f.fault == first.fault && own(f) == own(first);
    let fits = named.iter().filter(same).count();
    if refuted || fits < named.len() {
        let asked = Asked { cases, fits, most: Some(first.fault.to_owned()) };
        let diagnosis = Box::new(diagnosis);
        return Explanation::Unexplained { diagnosis, asked, promise: None, seen };
    }
    diagnosis.verdict = Verdict::Explained;
    (diagnosis.fault, diagnosis.params) = (Some(first.fault.to_owned()), first.params.clone());
    diagnosis.note = format!("the output is right, and the lse alone is wrong: {}", first.meaning);
    let asked = Asked { cases, fits, most: None };
    Explanation::Fault { diagnosis: Box::new(diagnosis), asked, promise: None, seen }
}

/// Elements that a search over a case reads for each fault.
fn elements(case: &Case) -> usize {
    let rows: usize = (0..case.batch()).map(|s| case.queries(s) * case.seq_lens[s]).sum();
    rows * case.num_heads * (case.head_dim + case.head_dim_v)
}

/// The cases on which a search begins: those that tell faults apart, and the first.
fn bases(problems: &[(&Case, Problem<'_>)]) -> Vec<usize> {
    let telling = |at: &usize| {
        let (case, problem) = &problems[*at];
        case.seq_len() >= TELLING.0
            && case.head_dim_v >= TELLING.1
            && problem.observed.iter().any(|x| x.is_finite())
    };
    let mut bases: Vec<usize> = (0..problems.len()).filter(telling).collect();
    let odd = |case: &Case| match case.regime {
        Regime::Gaussian | Regime::IndexCoded | Regime::Slice(_) => 0,
        Regime::NonFinite => 2,
        _ => 1,
    };
    bases.sort_by_key(|at| (odd(problems[*at].0), elements(problems[*at].0)));
    bases.truncate(BASES - 1);
    if !bases.contains(&0) {
        bases.push(0);
    }
    bases
}

/// Of appended rows: where they stand instead, the same in every case.
fn appended(evidence: &[Evidence<'_>], seen: Option<Seen>) -> Explanation {
    let all: Vec<Diagnosis> =
        evidence.iter().filter_map(|e| of_append(e.failing.0, &e.failing.1.buffers)).collect();
    let Some(first) = all.first().cloned() else {
        return seen
            .map_or(Explanation::Itself, |seen| Explanation::Seen { seen, cases: evidence.len() });
    };
    let fits = all.iter().filter(|d| d.fault == first.fault).count();
    let mut asked = Asked { cases: all.len(), fits, most: None };
    if first.fault.is_some() && fits == all.len() {
        return Explanation::Fault { diagnosis: Box::new(first), asked, promise: None, seen };
    }
    asked.most = first.fault.clone();
    asked.fits = if first.fault.is_some() { fits } else { 0 };
    let diagnosis = Diagnosis {
        verdict: Verdict::Unexplained,
        fault: None,
        params: Default::default(),
        ..first
    };
    Explanation::Unexplained { diagnosis: Box::new(diagnosis), asked, promise: None, seen }
}

/// The failing cases as they judge a fault.
struct Jury<'p, 'a> {
    searches: Vec<Search<'p, 'a>>,
    /// What became of a fault: with the parameters that are the kernel's own, how many cases it fitted
    /// before one refuted it, and whether none did.
    known: Vec<(Candidate, usize, bool)>,
}

impl<'p, 'a> Jury<'p, 'a> {
    fn new(problems: &'p [(&Case, Problem<'a>)]) -> Self {
        let mut order: Vec<usize> = bases(problems);
        let rest: Vec<usize> = (0..problems.len()).filter(|at| !order.contains(at)).collect();
        order.extend(rest);
        let searches = order.into_iter().map(|at| Search::of(&problems[at].1));
        let searches = searches.filter(|search| !search.is_right()).collect();
        Jury { searches, known: Vec::new() }
    }

    fn is_late(&self) -> bool {
        self.known.len() >= MOST_HELD || interrupt::is_requested()
    }

    /// Whether a fault explains every case that can tell, and of many at least some can.
    fn is_convinced(&mut self, finding: &Finding) -> bool {
        let candidate = Candidate::found(finding);
        let own = candidate.own();
        let same =
            |(c, ..): &&(Candidate, usize, bool)| c.faults == candidate.faults && c.own() == own;
        if let Some((_, _, convinced)) = self.known.iter().find(same) {
            return *convinced;
        }
        // What is not tried is not named.
        if self.is_late() {
            return false;
        }
        let (mut fits, mut refuted) = (0, false);
        for search in &mut self.searches {
            match search.check(&candidate) {
                Checked::Fits => fits += 1,
                Checked::CannotTell => {}
                Checked::Refuted => {
                    refuted = true;
                    break;
                }
            }
        }
        let needed = if self.searches.len() < 2 * MANY { 1 } else { MANY - 1 };
        let convinced = fits >= needed && !refuted;
        self.known.push((candidate, fits, convinced));
        convinced
    }

    /// The fault that fitted the most cases before one refuted it.
    fn farthest(&self) -> Option<Candidate> {
        self.known.iter().max_by_key(|(_, fits, _)| *fits).map(|(candidate, ..)| candidate.clone())
    }

    /// How many cases a fault fits.
    fn count(&mut self, candidate: &Candidate) -> usize {
        let searches = self.searches.iter_mut();
        searches.map(|search| search.check(candidate)).filter(|c| *c == Checked::Fits).count()
    }
}
