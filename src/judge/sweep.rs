//! The property sweep: draw cases, judge them on every core, shrink what fails, keep it all.
//!
//! Results depend on the seed alone. Cases are handed out by index; when enough have been judged,
//! they are cut at the index where the wanted number was reached, so that the number of threads
//! changes nothing.

use super::checked::Share;
use super::compare::Comparison;
use super::coverage::Coverage;
use super::covered::Claims;
use super::curves::Curves;
use super::draw::Draw;
use super::explain::telling::{Telling, when};
use super::explain::trigger::Trigger;
use super::explain::{Explanation, explain};
use super::law::Law;
use super::refuse::before_any_run;
use super::sanitize::Found;
use super::shrink::Cases;
use super::space::Space;
use super::trial::{Failure, Outcome, Passed, Trial, TrialError};
use super::wide;
use crate::device::finding::{Class, Kind};
use crate::device::interrupt;
use crate::problem::Case;
use proptest::strategy::ValueTree;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Share of drawn cases that may lie outside `[supports]`, and share of those on which the check
/// would see nothing, before a result says too little.
const UNJUDGED_LIMIT: f64 = 0.2;
/// A kernel that never ends costs a time limit a case: give up after so many.
const TIMEOUT_LIMIT: usize = 3;
/// Shrinking stops after so many tries, or after [`SHRINK_TIME`].
const SHRINK_TRIES: usize = 400;
/// See [`SHRINK_TRIES`].
const SHRINK_TIME: Duration = Duration::from_secs(20);
/// While shrinking, a run that takes so long is one that never ends; it grows with the case.
const SHRINK_TIME_LIMIT: Duration = Duration::from_secs(2);
/// Ids of further failing cases of a property that are listed.
const LISTED: usize = 20;

/// What to sweep, and how long.
#[derive(Debug, Clone)]
pub struct Options {
    /// Seed of everything.
    pub seed: u64,
    /// Cases to judge, over all parts.
    pub cases: usize,
    /// This part, from 0, of so many.
    pub shard: (usize, usize),
    /// No new case after it.
    pub deadline: Option<Instant>,
    /// No new case after the first failure.
    pub fail_fast: bool,
    /// Besides, the cases of addresses beyond 32 bits; the trials' device checks its runs.
    pub wide: bool,
}

impl Options {
    /// Cases to judge in this part.
    pub fn share(&self) -> usize {
        let (part, parts) = self.shard;
        self.cases.saturating_sub(part).div_ceil(parts)
    }
}

/// How a sweep ended for a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Every judged case is right, and nothing supported was left out.
    Pass,
    /// A case failed.
    Fail,
    /// No case failed, but too much was skipped or never exercised.
    Incomplete,
}

/// Why a sweep judged fewer cases than it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// The user interrupted it.
    Interrupted,
    /// `--max-time` passed.
    MaxTime,
    /// `--fail-fast`, at the first failure.
    FailFast,
    /// The kernel kept exceeding its time limit.
    Timeouts,
    /// Too few of the drawn cases could be judged.
    TooFewCases,
    /// The request or the machine was at fault.
    Error,
}

impl Stopped {
    /// In words.
    pub fn reason(self) -> &'static str {
        match self {
            Stopped::Interrupted => "interrupted",
            Stopped::MaxTime => "stopped by --max-time",
            Stopped::FailFast => "stopped by --fail-fast",
            Stopped::Timeouts => "stopped: the kernel kept exceeding its time limit (--time-limit)",
            Stopped::TooFewCases => "stopped: too few of the drawn cases could be judged",
            Stopped::Error => "stopped by an error",
        }
    }
}

/// Failures of one family of properties: the smallest found, shrunk, and how many there were.
#[derive(Debug, Clone)]
pub struct Finding {
    /// The shrunk case.
    pub case: Case,
    /// The case that it was shrunk from.
    pub original: Case,
    /// How the shrunk case fails.
    pub failure: Failure,
    /// Failing cases of this property.
    pub count: usize,
    /// How many smaller cases were tried.
    pub tries: usize,
    /// Ids of others that failed, as drawn.
    pub others: Vec<String>,
    /// When the kernel fails so; `None` where no facts about its cases tell.
    pub trigger: Option<Trigger>,
    /// Why.
    pub explanation: Explanation,
    /// Whether the shrunk case passes where the lanes of a wave advance in lockstep.
    pub passes_in_lockstep: bool,
}

/// What the checker found that is no fault.
#[derive(Debug, Clone)]
pub struct Noted {
    /// As it was first found.
    pub found: Found,
    /// The first case that showed it.
    pub case: Case,
    /// Cases that showed it.
    pub cases: usize,
}

/// Figures by wave size.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct WaveCount {
    /// Cases that passed.
    pub passed: usize,
    /// Cases that failed.
    pub failed: usize,
}

/// The result of a sweep of one kernel.
#[derive(Debug, Clone)]
pub struct Report {
    /// The kernel.
    pub kernel: String,
    /// The verdict.
    pub verdict: Verdict,
    /// Cases that passed.
    pub passed: usize,
    /// Cases that failed.
    pub failed: usize,
    /// Captured slices outside `[supports]`.
    pub skipped: usize,
    /// Why, and how often.
    pub skipped_why: BTreeMap<String, usize>,
    /// Cases on which the check would see nothing.
    pub vacuous: usize,
    /// What it would miss, and how often.
    pub vacuous_why: BTreeMap<&'static str, usize>,
    /// Kernel runs that were judged.
    pub runs: usize,
    /// The time that the device's own clock counted for launches, over all runs, where it has one. Runs
    /// that were under way together count each.
    pub busy: Option<Duration>,
    /// Cases that a GPU did not do in time beside others, and did alone.
    pub late: u32,
    /// Wall time.
    pub seconds: f64,
    /// The largest error over its bound among judged cases.
    pub worst_ratio: f64,
    /// Median over the passed cases of each one's largest error over its bound.
    pub median_ratio: f64,
    /// The 99.9th percentile of the same.
    pub p999_ratio: f64,
    /// The id of the passed case with the largest ratio.
    pub worst_case: Option<String>,
    /// By wave size.
    pub by_wave: BTreeMap<u32, WaveCount>,
    /// What was drawn and judged.
    pub coverage: Coverage,
    /// How far passed cases are from the right answer.
    pub curves: Curves,
    /// What `[supports]` has and no case exercised.
    pub missing: Vec<String>,
    /// What it claims, beyond what was drawn.
    pub claims: Claims,
    /// What the checked share came to; `None` where there was none.
    pub checked: Option<Share>,
    /// What a pass says nothing of, in words.
    pub not_looked_at: Vec<String>,
    /// One for each family of properties that failed.
    pub findings: Vec<Finding>,
    /// What the checker found that is no fault, each once.
    pub notes: Vec<Noted>,
    /// Why it ended early.
    pub stopped: Option<Stopped>,
    /// What the request or the machine was at fault with, after some cases had been judged.
    pub error: Option<String>,
}

impl Report {
    /// Cases judged.
    pub fn cases(&self) -> usize {
        self.passed + self.failed
    }
}

/// What one index came to.
enum Judged {
    Passed(Case, Passed),
    Failed(Case, Box<Failure>),
    Vacuous(&'static str),
    Skipped(String),
}

/// Makes trials: one a thread.
pub type TrialMaker<'a> = dyn Fn() -> Result<Trial, TrialError> + Sync + 'a;

/// Sweeps a kernel. `tick` is called after each case with the numbers judged and failed so far;
/// `interrupted` ends the sweep and keeps what was found.
///
/// # Errors
/// [`TrialError`]: the request or the machine was at fault; nothing was found before it.
pub fn sweep(
    space: &Space,
    options: &Options,
    threads: usize,
    make: &TrialMaker<'_>,
    interrupted: &AtomicBool,
    tick: &(dyn Fn(usize, usize) + Sync),
) -> Result<Report, TrialError> {
    let start = Instant::now();
    let shared = Shared {
        space,
        options,
        interrupted,
        tick,
        next: AtomicUsize::new(0),
        judged: AtomicUsize::new(0),
        failed: AtomicUsize::new(0),
        timeouts: AtomicUsize::new(0),
        results: Mutex::new(BTreeMap::new()),
        error: Mutex::new(None),
    };
    let mut trials: Vec<Trial> =
        (0..threads.max(1)).map(|_| make()).collect::<Result<_, TrialError>>()?;
    before_any_run(space, options, &mut trials)?;
    let mut trials = std::thread::scope(|scope| {
        let workers: Vec<_> =
            trials.into_iter().map(|trial| scope.spawn(|| shared.work(trial))).collect();
        workers.into_iter().map(|w| w.join().expect("a sweep thread panicked")).collect::<Vec<_>>()
    });
    let mut stopped = shared.stopped();
    let (results, error) = (shared.results, shared.error);
    let wide = options.wide.then(|| judge_wide(space, &mut trials, interrupted));
    if options.wide && interrupted.load(Ordering::Relaxed) {
        stopped.get_or_insert(Stopped::Interrupted);
    }
    let results = results.into_inner().expect("no thread holds the results");
    let mut tally = Tally::default();
    for (_, judged) in results {
        if tally.passed + tally.failures.len() == options.share() {
            break;
        }
        tally.add(judged);
    }
    wide.into_iter().flatten().for_each(|judged| tally.add(judged));
    let error = error.into_inner().expect("no thread holds the error");
    if let Some((case, error)) = error {
        if tally.passed + tally.failures.len() == 0 {
            return Err(error);
        }
        // What was found before is not lost.
        stopped = Some(Stopped::Error);
        tally.error = Some(format!("{error} (case {case})"));
    }
    let cases = Cases::new(space.clone());
    let trial = trials.first_mut().expect("there is a thread");
    let passed = std::mem::take(&mut tally.passes);
    let telling = Telling { space, seed: options.seed, interrupted, passed: &passed };
    let findings = tally.findings(
        trial,
        |trial, case, failed| shrink(&cases, trial, case, failed, interrupted),
        &Told::Sweep(telling),
    );
    // One part of a sweep need not exercise everything; all parts together do.
    let busy = trials.iter().filter_map(Trial::busy).reduce(|a, b| a + b);
    let late = trials.iter().map(Trial::late).sum();
    let whole = options.shard.1 == 1;
    let missing = if whole { tally.coverage.missing(space) } else { Vec::new() };
    let (kernel, seconds) = (space.manifest.name.clone(), start.elapsed().as_secs_f64());
    let report = tally.report(kernel, missing, findings, stopped, seconds);
    Ok(Report { busy, late, ..report })
}

/// Judges the wide cases. One that cannot be posed (a manifest may hold a stride in fewer bits than it
/// has) counts as skipped.
fn judge_wide(space: &Space, trials: &mut [Trial], interrupted: &AtomicBool) -> Vec<Judged> {
    let Some(trial) = trials.first_mut() else { return Vec::new() };
    let mut judged = Vec::new();
    for case in wide::cases(space) {
        if interrupted.load(Ordering::Relaxed) {
            break;
        }
        match trial.judge(&case) {
            Ok(Outcome::Passed(passed)) => judged.push(Judged::Passed(case, passed)),
            Ok(Outcome::Failed(failure)) => judged.push(Judged::Failed(case, failure)),
            Ok(Outcome::Vacuous(why)) => judged.push(Judged::Vacuous(why)),
            Err(error) if error.is_interrupt() => break,
            Err(error) => judged.push(Judged::Skipped(format!("addresses beyond 2^31: {error}"))),
        }
    }
    judged
}

/// Judges given cases one after the other, as long as `go_on` says of the number judged; what fails is shrunk
/// as in a sweep, and nothing is missing.
///
/// # Errors
/// [`TrialError`]: the request or the machine was at fault at the first case.
pub(super) fn judge_cases(
    space: &Space,
    cases: Vec<Case>,
    trial: &mut Trial,
    go_on: &dyn Fn(usize) -> bool,
    interrupted: &AtomicBool,
) -> Result<Report, TrialError> {
    let start = Instant::now();
    let mut tally = Tally::default();
    for case in cases {
        let judged = tally.passed + tally.failures.len();
        if interrupted.load(Ordering::Relaxed) || !go_on(judged) {
            break;
        }
        match trial.judge(&case) {
            Ok(Outcome::Passed(passed)) => tally.add(Judged::Passed(case, passed)),
            Ok(Outcome::Failed(failure)) => tally.add(Judged::Failed(case, failure)),
            Ok(Outcome::Vacuous(why)) => tally.add(Judged::Vacuous(why)),
            Err(error @ TrialError::Compile(_)) => return Err(error),
            Err(error) => tally.add(Judged::Skipped(error.to_string())),
        }
    }
    let shrinks = Cases::new(space.clone());
    let findings = tally.findings(
        trial,
        |trial, case, failed| shrink(&shrinks, trial, case, failed, interrupted),
        &Told::Checker,
    );
    let (kernel, seconds) = (space.manifest.name.clone(), start.elapsed().as_secs_f64());
    Ok(tally.report(kernel, Vec::new(), findings, None, seconds))
}

/// What the threads of a sweep share.
struct Shared<'a> {
    space: &'a Space,
    options: &'a Options,
    interrupted: &'a AtomicBool,
    tick: &'a (dyn Fn(usize, usize) + Sync),
    next: AtomicUsize,
    judged: AtomicUsize,
    failed: AtomicUsize,
    timeouts: AtomicUsize,
    results: Mutex<BTreeMap<usize, Judged>>,
    error: Mutex<Option<(String, TrialError)>>,
}

impl Shared<'_> {
    /// Why no new case may be begun, if there is a reason besides having judged enough.
    fn stopped(&self) -> Option<Stopped> {
        let options = self.options;
        let enough = self.judged.load(Ordering::Relaxed) >= options.share();
        let drawn = self.next.load(Ordering::Relaxed);
        if enough {
            None
        } else if self.interrupted.load(Ordering::Relaxed) {
            Some(Stopped::Interrupted)
        } else if options.fail_fast && self.failed.load(Ordering::Relaxed) > 0 {
            Some(Stopped::FailFast)
        } else if self.timeouts.load(Ordering::Relaxed) >= TIMEOUT_LIMIT {
            Some(Stopped::Timeouts)
        } else if options.deadline.is_some_and(|d| Instant::now() >= d) {
            Some(Stopped::MaxTime)
        } else if drawn > 4 * options.share() + 256 {
            Some(Stopped::TooFewCases)
        } else {
            None
        }
    }

    fn work(&self, mut trial: Trial) -> Trial {
        let (part, parts) = self.options.shard;
        while self.judged.load(Ordering::Relaxed) < self.options.share()
            && self.stopped().is_none()
            && self.error.lock().expect("no thread panicked").is_none()
        {
            let turn = self.next.fetch_add(1, Ordering::Relaxed);
            let index = turn * parts + part;
            match self.judge(&mut trial, index) {
                Ok(judged) => {
                    if matches!(judged, Judged::Passed(..) | Judged::Failed(..)) {
                        self.judged.fetch_add(1, Ordering::Relaxed);
                    }
                    if let Judged::Failed(_, failure) = &judged {
                        self.failed.fetch_add(1, Ordering::Relaxed);
                        if ran_out_of_time(failure) {
                            self.timeouts.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                    self.results.lock().expect("no thread panicked").insert(index, judged);
                    let judged = self.judged.load(Ordering::Relaxed).min(self.options.share());
                    (self.tick)(judged, self.failed.load(Ordering::Relaxed));
                }
                // What an interrupt cut short is not judged.
                Err(error) if error.1.is_interrupt() => {}
                Err(error) => {
                    self.error.lock().expect("no thread panicked").get_or_insert(*error);
                }
            }
        }
        trial
    }

    /// Judges the case of an index; an error comes with the case's id.
    fn judge(&self, trial: &mut Trial, index: usize) -> Result<Judged, Box<(String, TrialError)>> {
        let case = match self.space.draw(self.options.seed, index) {
            Draw::Case(case) => *case,
            Draw::Outside(what, why) => return Ok(Judged::Skipped(format!("{what}: {why}"))),
        };
        Ok(match trial.judge(&case).map_err(|e| Box::new((case.to_string(), e)))? {
            Outcome::Passed(p) => Judged::Passed(case, p),
            Outcome::Failed(failure) => Judged::Failed(case, failure),
            Outcome::Vacuous(why) => Judged::Vacuous(why),
        })
    }
}

/// Shrinks a failing case as long as the same fails: the same property (so the same output), and
/// elements that are wrong in the same way.
fn shrink(
    cases: &Cases,
    trial: &mut Trial,
    case: Case,
    (fault, failure): (&Fault, Failure),
    interrupted: &AtomicBool,
) -> (Case, Failure, usize) {
    let start = Instant::now();
    let (first_case, first_failure) = (case.clone(), failure.clone());
    let way = |failure: &Failure| failure.comparison.as_ref().and_then(Comparison::way);
    let own = way(&failure);
    let fails = |failure: &Failure| fault.of(failure).filter(|f| own.is_none() || way(f) == own);
    let mut tree = cases.tree(case);
    let mut smallest = failure;
    let mut tries = 0;
    trial.hurry(Some(SHRINK_TIME_LIMIT));
    let mut more = tree.simplify();
    while more
        && tries < SHRINK_TRIES
        && start.elapsed() < SHRINK_TIME
        && !interrupted.load(Ordering::Relaxed)
    {
        tries += 1;
        let failed = match trial.judge(&tree.current()) {
            Ok(Outcome::Failed(failure)) => fails(&failure),
            _ => None,
        };
        more = match failed {
            Some(failure) => {
                smallest = failure;
                tree.simplify()
            }
            None => tree.complicate(),
        };
    }
    trial.hurry(None);
    // What took too long in a hurry may end, given its time.
    if tries > 0 && ran_out_of_time(&smallest) {
        let again = trial.judge(tree.smallest());
        if !matches!(&again, Ok(Outcome::Failed(failure)) if fails(failure).is_some()) {
            return (first_case, first_failure, tries);
        }
    }
    (tree.smallest().clone(), smallest, tries)
}

/// Whether what fails may be right where the lanes of a wave advance together.
pub fn depends_on_lanes(property: &str) -> bool {
    property.starts_with("oracle") || matches!(property, "repeat" | "deadlock")
}

/// Whether a time limit ended the run.
fn ran_out_of_time(failure: &Failure) -> bool {
    let endless = |f: &Found| f.finding.kind == Kind::Endless;
    failure.property == "timeout" || failure.found.iter().any(endless)
}

/// What a failure is a failure of: its property, unless that is a finding's, and each of its findings.
/// A case whose main output is right and whose lse is wrong is of another property than one whose
/// main output is wrong.
fn faults(failure: &Failure) -> Vec<Fault> {
    let found =
        failure.found.iter().filter(|f| !f.is_note()).map(|f| Fault::Found(f.class(), f.key()));
    let value = (!failure.property.starts_with("sanitize/"))
        .then(|| Fault::Value(failure.property.to_owned()));
    value.into_iter().chain(found).collect()
}

/// One fault of a kernel; in this order they are told.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    /// Of an output, or of the run as a whole: the property.
    Value(String),
    /// Found by the checker: the class, and what makes it one fault.
    Found(Class, String),
}

impl Fault {
    /// The failure as this fault alone has it, where it has it at all.
    fn of(&self, failure: &Failure) -> Option<Failure> {
        match self {
            Fault::Value(property) => (failure.property == property).then(|| failure.clone()),
            Fault::Found(_, key) => failure.of_finding(key),
        }
    }
}

/// What is told of failures.
enum Told<'a> {
    /// All, and when the kernel fails: there are cases to compare with, and more can be drawn.
    Sweep(Telling<'a>),
    /// All of one case.
    Case,
    /// What the checker found: wrong values are the sweep's to tell.
    Checker,
}

#[derive(Default)]
struct Tally {
    error: Option<String>,
    passed: usize,
    vacuous: BTreeMap<&'static str, usize>,
    runs: usize,
    skipped: BTreeMap<String, usize>,
    ratios: Vec<(f64, Case)>,
    /// Cases that passed, with the law that each was tried on besides.
    passes: Vec<(Case, Option<Law>)>,
    by_wave: BTreeMap<u32, WaveCount>,
    coverage: Coverage,
    curves: Curves,
    failures: Vec<(Case, Box<Failure>)>,
    notes: Vec<Noted>,
}

impl Tally {
    fn add(&mut self, judged: Judged) {
        match judged {
            Judged::Passed(case, passed) => {
                self.passed += 1;
                self.runs += passed.runs;
                self.coverage.count(&case, passed.law);
                self.by_wave.entry(case.wave).or_default().passed += 1;
                self.curves.add(&case, &passed);
                self.passes.push((case.clone(), passed.law));
                self.note(&case, passed.notes);
                self.ratios.push((passed.ratio, case));
            }
            Judged::Failed(case, failure) => {
                self.runs += failure.run + 1;
                self.coverage.count(&case, None);
                self.by_wave.entry(case.wave).or_default().failed += 1;
                let notes = failure.found.iter().filter(|found| found.is_note()).cloned();
                self.note(&case, notes.collect());
                self.failures.push((case, failure));
            }
            Judged::Vacuous(why) => *self.vacuous.entry(why).or_default() += 1,
            Judged::Skipped(why) => *self.skipped.entry(why).or_default() += 1,
        }
    }

    fn note(&mut self, case: &Case, notes: Vec<Found>) {
        for found in notes {
            match self.notes.iter_mut().find(|known| known.found.key() == found.key()) {
                Some(known) => known.cases += 1,
                None => self.notes.push(Noted { found, case: case.clone(), cases: 1 }),
            }
        }
    }

    /// One finding a fault: its cheapest case, shrunk. What the checker found is told by class, and
    /// within it the most frequent first.
    fn findings(
        &self,
        trial: &mut Trial,
        mut shrink: impl FnMut(&mut Trial, Case, (&Fault, Failure)) -> (Case, Failure, usize),
        told: &Told<'_>,
    ) -> Vec<Finding> {
        let mut by_fault: BTreeMap<Fault, Vec<&(Case, Box<Failure>)>> = BTreeMap::new();
        for failed in &self.failures {
            for fault in faults(&failed.1) {
                by_fault.entry(fault).or_default().push(failed);
            }
        }
        let mut by_fault: Vec<_> = by_fault.into_iter().collect();
        if matches!(told, Told::Checker) {
            by_fault.retain(|(fault, _)| matches!(fault, Fault::Found(..)));
        }
        by_fault.sort_by_key(|(fault, failed)| match fault {
            Fault::Value(_) => (None, 0),
            Fault::Found(class, _) => (Some(*class), usize::MAX - failed.len()),
        });
        by_fault
            .into_iter()
            .map(|(fault, failed)| {
                let size = |case: &Case| case.work() + case.head_dim + case.num_heads;
                let (original, failure) =
                    failed.iter().min_by_key(|(c, _)| size(c)).expect("a property that failed");
                let failure = fault.of(failure).expect("the fault of this failure");
                let (case, failure, tries) = shrink(trial, original.clone(), (&fault, failure));
                let alike: Vec<(&Case, &Failure)> =
                    failed.iter().map(|(case, failure)| (case, &**failure)).collect();
                let explanation = explain(trial, (&case, &failure), &alike);
                let mut cases: Vec<&Case> = failed.iter().map(|(case, _)| case).collect();
                // What is said of when it fails must hold of the case that is shown.
                if !cases.contains(&&case) {
                    cases.push(&case);
                }
                let same = |failure: &Failure| fault.of(failure).is_some();
                let law = failure.property.starts_with("law/").then_some(failure.property);
                let trigger = match told {
                    Told::Sweep(telling) => when(telling, trial, &cases, law, &same),
                    Told::Checker | Told::Case => None,
                };
                let passes_in_lockstep = depends_on_lanes(failure.property)
                    && !matches!(told, Told::Checker)
                    && !interrupt::is_requested()
                    && trial.case_passes_in_lockstep(&case)
                    && trial.case_passes_in_lockstep(original);
                let others = failed.iter().filter(|(c, _)| c != original).take(LISTED);
                Finding {
                    case,
                    original: original.clone(),
                    failure,
                    count: failed.len(),
                    tries,
                    others: others.map(|(c, _)| c.to_string()).collect(),
                    trigger,
                    explanation,
                    passes_in_lockstep,
                }
            })
            .collect()
    }

    fn report(
        mut self,
        kernel: String,
        missing: Vec<String>,
        findings: Vec<Finding>,
        stopped: Option<Stopped>,
        seconds: f64,
    ) -> Report {
        self.ratios.sort_by(|a, b| a.0.total_cmp(&b.0));
        let at = |share: f64| {
            let last = self.ratios.len().saturating_sub(1);
            self.ratios.get((last as f64 * share).round() as usize).map_or(0.0, |r| r.0)
        };
        let skipped: usize = self.skipped.values().sum();
        let failed = self.failures.len();
        let vacuous: usize = self.vacuous.values().sum();
        let drawn = self.passed + failed + skipped + vacuous;
        let too_many = |n: usize| n as f64 > UNJUDGED_LIMIT * drawn as f64;
        let incomplete = too_many(skipped)
            || too_many(vacuous)
            || !missing.is_empty()
            || self.passed == 0
            || matches!(
                stopped,
                Some(Stopped::TooFewCases | Stopped::Interrupted | Stopped::Error)
            );
        Report {
            kernel,
            verdict: match (failed, incomplete) {
                (0, false) => Verdict::Pass,
                (0, true) => Verdict::Incomplete,
                _ => Verdict::Fail,
            },
            passed: self.passed,
            failed,
            skipped,
            skipped_why: self.skipped,
            vacuous,
            vacuous_why: self.vacuous,
            runs: self.runs,
            busy: None,
            late: 0,
            seconds,
            worst_ratio: self
                .failures
                .iter()
                .filter_map(|(_, f)| f.comparison.as_ref().map(|c| c.ratio))
                .fold(at(1.0), f64::max),
            median_ratio: at(0.5),
            p999_ratio: at(0.999),
            worst_case: self.ratios.last().map(|(_, case)| case.to_string()),
            by_wave: self.by_wave,
            coverage: self.coverage,
            curves: self.curves,
            missing,
            claims: Claims::default(),
            checked: None,
            not_looked_at: Vec::new(),
            findings,
            notes: self.notes,
            stopped,
            error: self.error,
        }
    }
}

/// Judges one given case; it is not shrunk, and nothing is missing.
///
/// # Errors
/// [`TrialError`]: the case could not be judged.
pub fn judge_one(trial: &mut Trial, case: &Case) -> Result<Report, TrialError> {
    let start = Instant::now();
    let mut tally = Tally::default();
    let mut stopped = None;
    match trial.judge(case) {
        Ok(Outcome::Passed(p)) => tally.add(Judged::Passed(case.clone(), p)),
        Ok(Outcome::Failed(failure)) => tally.add(Judged::Failed(case.clone(), failure)),
        Ok(Outcome::Vacuous(why)) => tally.add(Judged::Vacuous(why)),
        Err(error) if error.is_interrupt() => stopped = Some(Stopped::Interrupted),
        Err(error) => return Err(error),
    }
    let findings = tally.findings(trial, |_, case, (_, failure)| (case, failure, 0), &Told::Case);
    let name = trial.manifest().name.clone();
    let seconds = start.elapsed().as_secs_f64();
    Ok(tally.report(name, Vec::new(), findings, stopped, seconds))
}
