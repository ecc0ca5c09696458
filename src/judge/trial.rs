//! One case on one device: three runs under different poison and thread orders, each judged.

use super::compare::{Comparison, Where, compare, place, values};
use super::law::{self, Law, Posed};
use super::sanitize::{self, Found};
use super::wide::is_wide;
use crate::data::captured::Captured;
use crate::data::generate::{DataError, generate};
use crate::data::image::{Image, Poisons, Role, Stray};
use crate::data::inputs::Inputs;
use crate::device::{
    ARENA_ALIGN, Arg, CompileError, Device, Fault, Launch, MOST_SIDE_BY_SIDE, Module, RunError,
    Source, Stretch,
};
use crate::kernel::{
    ArgSpec, Denormals, Env, Manifest, PlanError, Promise, ScratchSize, ScratchType,
};
use crate::oracle::{Arithmetic, Expected};
use crate::problem::{
    Axis, Case, CaseError, DType, Placement, Placements, Pointer, Stage, Tensor, clip,
};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Why a case could not be judged. The request or the machine is at fault, not the kernel.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrialError {
    /// The source does not compile, or the cache fails.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// The manifest cannot be evaluated for this case.
    #[error(transparent)]
    Plan(Box<PlanError>),
    /// The case's data cannot be made.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The case itself is impossible.
    #[error(transparent)]
    Case(#[from] CaseError),
    /// The launch cannot be made, or the device broke.
    #[error("{kernel}: {source}")]
    Run {
        /// The kernel.
        kernel: String,
        /// What was refused or broke.
        source: RunError,
    },
    /// The case needs more memory than there is.
    #[error(
        "the case needs about {need} MiB of memory, and {limit} MiB are free; use fewer or shorter \
         sequences, fewer heads, a smaller cap, or less padding"
    )]
    TooLarge {
        /// What it needs, MiB.
        need: u128,
        /// What there is, MiB.
        limit: u128,
    },
    /// The kernel's scratch buffers need more memory than there is.
    #[error(
        "{kernel}: scratch.{name} needs {need} MiB of memory in the case {case}, and {limit} MiB are \
         free; mend its size, or take smaller values of what it is computed from"
    )]
    Scratch {
        /// The kernel.
        kernel: String,
        /// The largest of them.
        name: String,
        /// What it needs, MiB, with what it is compared with.
        need: u128,
        /// What there is, MiB.
        limit: u128,
        /// The case's id.
        case: String,
    },
}

impl From<PlanError> for TrialError {
    fn from(error: PlanError) -> Self {
        TrialError::Plan(Box::new(error))
    }
}

/// What a case showed of a kernel.
#[derive(Debug)]
pub enum Outcome {
    /// Right in every run.
    Passed(Passed),
    /// Wrong.
    Failed(Box<Failure>),
    /// The check would not see a wrong output on this case: which one.
    Vacuous(&'static str),
}

/// Figures of a passed case.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Passed {
    /// Largest error over its bound, over all runs and outputs.
    pub ratio: f64,
    /// Runs that were judged.
    pub runs: usize,
    /// The law that it was tried on, besides.
    pub law: Option<Law>,
}

/// How a case failed.
#[derive(Debug, Clone)]
pub struct Failure {
    /// `oracle`, `oracle/lse`, `repeat`, `stray-write`, `crash`, `timeout`, `deadlock`, …
    pub property: &'static str,
    /// In words: what happened, and where.
    pub detail: String,
    /// The comparison with the oracle, where there is an output to compare.
    pub comparison: Option<Comparison>,
    /// Which of the runs failed.
    pub run: usize,
    /// Its poison.
    pub poisons: Poisons,
    /// Its order of threads.
    pub order_seed: u64,
    /// The buffers, to be saved.
    pub buffers: Buffers,
    /// What a checked run found, each fault once, the gravest class first.
    pub found: Vec<Found>,
}

impl Failure {
    /// The failure as one of its findings alone has it; `None` where it has no such.
    pub fn of_finding(&self, key: &str) -> Option<Failure> {
        let found = self.found.iter().find(|found| found.key() == key)?.clone();
        Some(Failure {
            property: found.property(),
            detail: found.words.clone(),
            comparison: None,
            found: vec![found],
            ..self.clone()
        })
    }
}

/// The buffers of a failing run by name, each from its first element.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Buffers {
    /// The stage's tensors as the kernel was given them.
    pub before: BTreeMap<String, Vec<u8>>,
    /// The outputs that the kernel writes, as it left them.
    pub after: BTreeMap<String, Vec<u8>>,
}

/// What a kernel is run on.
struct Planned {
    image: Image,
    launches: Vec<Launch>,
}

/// One judged output of a run that no fault ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Observed {
    /// Which one.
    pub output: Pointer,
    /// The judged values.
    pub values: Vec<f64>,
    /// The judged elements as stored.
    pub bytes: Vec<u8>,
}

/// A kernel on a device. Judges one case after another; owned by one thread.
pub struct Trial {
    manifest: Arc<Manifest>,
    captured: Arc<Vec<Captured>>,
    device: Box<dyn Device>,
    time_limit: Duration,
    modules: HashMap<Source, Module>,
    /// The image before a run that was made alone, to compare with.
    before: Vec<u8>,
    seen: Seen,
}

/// Where the memory of the run that is looked at lies.
#[derive(Debug, Clone, Copy)]
enum Seen {
    /// Alone in the arena.
    Alone,
    /// In the arena beside others, from this byte on.
    Beside(usize),
}

/// Runs that were made side by side: the three of a case, and those of its law.
struct Beside {
    /// Of each of the three, the first byte of the arena that it changed and might not.
    changed: Vec<Option<usize>>,
    /// Bytes from one of the three to the next.
    stride: usize,
    /// What the law's came to; `None` where they were not among them.
    observed: Option<Vec<Vec<Observed>>>,
}

impl Trial {
    /// A kernel on a device; `captured` are the slices that cases may name.
    pub fn new(
        manifest: Arc<Manifest>,
        captured: Arc<Vec<Captured>>,
        device: Box<dyn Device>,
        time_limit: Duration,
    ) -> Self {
        Trial {
            manifest,
            captured,
            device,
            time_limit,
            modules: HashMap::new(),
            before: Vec::new(),
            seen: Seen::Alone,
        }
    }

    /// The kernel's manifest.
    pub fn manifest(&self) -> &Arc<Manifest> {
        &self.manifest
    }

    /// The time that the device's own clock has counted for launches, where it has one.
    pub fn busy(&self) -> Option<Duration> {
        self.device.busy()
    }

    /// The time limit of one run.
    pub fn time_limit(&self) -> Duration {
        self.time_limit
    }

    /// Sets the time limit of one run.
    pub fn set_time_limit(&mut self, limit: Duration) {
        self.time_limit = limit;
    }

    /// What the kernel promises, for a case's output type.
    pub fn arithmetic(&self, case: &Case) -> Arithmetic {
        arithmetic(&self.manifest, case)
    }

    /// Makes a case's data and judges the kernel on it.
    ///
    /// # Errors
    /// [`TrialError`]: the case could not be judged.
    pub fn judge(&mut self, case: &Case) -> Result<Outcome, TrialError> {
        if self.device.is_checked() && is_wide(case) {
            return self.judge_wide(case);
        }
        fits_in_memory(case)?;
        let inputs = generate(case, &self.captured)?;
        self.judge_inputs(case, &inputs)
    }

    /// Judges a case of far addresses and few elements, on a device that checks its runs: one run on
    /// memory that is there only where it is used. The access map stands for poison and for what
    /// must not change.
    fn judge_wide(&mut self, case: &Case) -> Result<Outcome, TrialError> {
        let inputs = generate(case, &self.captured)?;
        let expected = Expected::new(case, &inputs, &self.arithmetic(case));
        let Planned { image, launches } = self.plan(case)?;
        let judged = self.judged(case);
        let (run, poisons, order_seed) = (2, Poisons::RUNS[2], case.order_seed);
        let kernel = self.manifest.name.clone();
        let refused = |source| TrialError::Run { kernel, source };
        let memory = self.device.sparse_arena(image.size()).map_err(refused)?;
        self.seen = Seen::Alone;
        image.write_inputs(case, &inputs, poisons, memory);
        if let Some(map) = self.device.access_map() {
            image.allow(case, &inputs, map);
        }
        let fault = self.execute(&launches, order_seed)?;
        let mut found = FoundOnce::default();
        self.look(case, &image, &judged, fault.is_none(), &mut found);
        let found = found.list();
        let gravest = found.first().map(|found| (found.property(), found.words.clone()));
        // The buffers are too large to be kept; the case's id makes them again.
        let buffers = Buffers::default();
        let failed = |property, detail, comparison| {
            let failure =
                Failure { property, detail, comparison, run, poisons, order_seed, buffers, found };
            Ok(Outcome::Failed(Box::new(failure)))
        };
        match (&fault, gravest) {
            (None | Some(Fault::Found), Some((property, detail))) => {
                return failed(property, detail, None);
            }
            (Some(fault), _) => {
                let (property, detail) = fault_in_words(fault, &image);
                return failed(property, detail, None);
            }
            (None, None) => {}
        }
        let comparison = compare(case, &image, self.after(&image)?, &expected, &judged);
        if !comparison.is_right() {
            let property = property_of(&expected, comparison.output);
            let detail = wrong_in_words(case, &comparison, poisons);
            return failed(property, detail, Some(comparison));
        }
        let passed = Passed { ratio: comparison.ratio, runs: 1, law: None };
        Ok(expected.vacuous().map_or(Outcome::Passed(passed), Outcome::Vacuous))
    }

    /// Judges the kernel on given inputs.
    ///
    /// # Errors
    /// [`TrialError`]: the case could not be judged.
    pub fn judge_inputs(&mut self, case: &Case, inputs: &Inputs) -> Result<Outcome, TrialError> {
        let expected = Expected::new(case, inputs, &self.arithmetic(case));
        let Planned { image, launches } = self.plan(case)?;
        let judged = self.judged(case);
        let exact = self.manifest.numerics.bitwise.contains(&Promise::Repeat);

        let mut first: Option<Vec<u8>> = None;
        let mut passed = Passed::default();
        let mut found = FoundOnce::default();
        // What the checker looks at does not depend on the poison; an order more may show a race.
        let checked = self.device.is_checked();
        let runs: &[usize] = if checked { &[0, 2] } else { &[0, 1, 2] };
        let mut last = (0, Poisons::RUNS[0], case.order_seed);
        // Laws are about values: they are for the fast build.
        let law = law::choose(&self.manifest, case, inputs).filter(|_| !checked);
        let posed = law.as_ref().map(|(_, posed)| posed);
        let beside = self.run_side_by_side(case, inputs, &image, &launches, posed)?;
        for (run, poisons) in runs.iter().map(|&run| (run, Poisons::RUNS[run])) {
            let order_seed = case.order_seed.wrapping_add(run as u64);
            last = (run, poisons, order_seed);
            let fault = match &beside {
                Some(beside) => {
                    self.seen = Seen::Beside(run * beside.stride);
                    None
                }
                None => self.run(case, inputs, &image, &launches, poisons, order_seed)?,
            };
            let ended = fault.is_none();
            if checked {
                self.look(case, &image, &judged, ended, &mut found);
            }
            let list = found.list();
            let failed = |trial: &mut Trial, property, detail, comparison: Option<Comparison>| {
                let buffers = trial.buffers(&image, ended)?;
                let failure = Failure {
                    property,
                    detail,
                    comparison,
                    run,
                    poisons,
                    order_seed,
                    buffers,
                    found: list.clone(),
                };
                Ok(Outcome::Failed(Box::new(failure)))
            };
            if let (Some(Fault::Found), Some(gravest)) = (&fault, list.first()) {
                return failed(self, gravest.property(), gravest.words.clone(), None);
            }
            if let Some(fault) = fault {
                let (property, detail) = fault_in_words(&fault, &image);
                return failed(self, property, detail, None);
            }
            let stray = self.stray_write(&image, beside.as_ref().and_then(|b| b.changed[run]))?;
            let after = self.after(&image)?;
            let bits = exact.then(|| output_bytes(case, &image, &judged, after));
            // The same bits as before compare as they did.
            let again = first.is_some() && first == bits;
            let comparison = (!again).then(|| compare(case, &image, after, &expected, &judged));
            // Where the checker has seen the write, it has said more of it.
            if let Some(Stray { place, .. }) = stray.filter(|_| list.is_empty()) {
                let detail = format!("the kernel wrote {place}");
                return failed(self, "stray-write", detail, None);
            }
            passed.runs += 1;
            let Some(comparison) = comparison else { continue };
            if !comparison.is_right() {
                let property = property_of(&expected, comparison.output);
                let detail = wrong_in_words(case, &comparison, poisons);
                return failed(self, property, detail, Some(comparison));
            }
            passed.ratio = passed.ratio.max(comparison.ratio);
            match (&first, bits) {
                (Some(first), Some(bits)) if *first != bits => {
                    let detail = repeat_in_words(case, &image, &judged, first, &bits);
                    return failed(self, "repeat", detail, Some(comparison));
                }
                (None, bits) => first = bits,
                _ => {}
            }
        }
        if let Some(gravest) = found.list().first() {
            let (run, poisons, order_seed) = last;
            let (property, detail) = (gravest.property(), gravest.words.clone());
            let (comparison, found) = (None, found.list());
            let buffers = self.buffers(&image, true)?;
            let failure =
                Failure { property, detail, comparison, run, poisons, order_seed, buffers, found };
            return Ok(Outcome::Failed(Box::new(failure)));
        }
        if let Some((law, posed)) = law {
            passed.law = Some(law);
            passed.runs += posed.runs.len();
            let observed = beside.and_then(|beside| beside.observed);
            let failure = self.try_law(law, &posed, observed, case, &image, &expected)?;
            if let Some(failure) = failure {
                return Ok(Outcome::Failed(Box::new(failure)));
            }
        }
        // A vacuous case was run all the same: it may crash, or write where it must not.
        Ok(expected.vacuous().map_or(Outcome::Passed(passed), Outcome::Vacuous))
    }

    /// Judges the kernel by one law on given inputs; `None` where the law does not apply.
    ///
    /// # Errors
    /// [`TrialError`]: the case, or the law's, could not be run.
    pub fn judge_law(
        &mut self,
        law: Law,
        case: &Case,
        inputs: &Inputs,
    ) -> Result<Option<Outcome>, TrialError> {
        let Some(posed) = law::pose(law, &self.manifest, case, inputs) else { return Ok(None) };
        let expected = Expected::new(case, inputs, &self.arithmetic(case));
        let Planned { image, launches } = self.plan(case)?;
        let (poisons, order_seed) = (Poisons::RUNS[2], case.order_seed);
        if let Some(fault) = self.run(case, inputs, &image, &launches, poisons, order_seed)? {
            let (property, detail) = fault_in_words(&fault, &image);
            let buffers = self.buffers(&image, false)?;
            let (comparison, run, found) = (None, 2, Vec::new());
            let failure =
                Failure { property, detail, comparison, run, poisons, order_seed, buffers, found };
            return Ok(Some(Outcome::Failed(Box::new(failure))));
        }
        let failure = self.try_law(law, &posed, None, case, &image, &expected)?;
        let passed = Passed { ratio: 0.0, runs: 1 + posed.runs.len(), law: Some(law) };
        Ok(Some(failure.map_or(Outcome::Passed(passed), |f| Outcome::Failed(Box::new(f)))))
    }

    /// Takes over what the checks of the last run found.
    fn look(
        &mut self,
        case: &Case,
        image: &Image,
        judged: &[Pointer],
        ended: bool,
        found: &mut FoundOnce,
    ) {
        for finding in self.device.findings() {
            found.add(Found::new(finding, case, image));
        }
        let Some(map) = self.device.accessed().filter(|_| ended) else { return };
        for output in sanitize::must_be_written(case, judged) {
            if let Some(index) = image.unwritten(output, map) {
                let at = place(case, image, output, index);
                found.add(Found::unwritten(&element_in_words(case, output, at)));
            }
        }
    }

    /// Tries a law on a case that has just been run; how it fails, if it does. `observed`: what its runs
    /// came to, where they were made already.
    fn try_law(
        &mut self,
        law: Law,
        posed: &Posed,
        observed: Option<Vec<Vec<Observed>>>,
        case: &Case,
        image: &Image,
        expected: &Expected,
    ) -> Result<Option<Failure>, TrialError> {
        let judged = self.judged(case);
        // What the case itself came to, before its memory is used again, if it will be.
        let kept = if observed.is_some() { None } else { Some(self.buffers(image, true)?) };
        let after = self.after(image)?;
        let own: Vec<Vec<f64>> = judged.iter().map(|o| values(case, image, after, *o)).collect();
        let poisons = Poisons::RUNS[2];
        let failed = |trial: &mut Trial, detail: String, comparison: Option<Comparison>| {
            let (property, run, order_seed) = (law.property(), 2, case.order_seed);
            let buffers = kept.map_or_else(|| trial.buffers(image, true), Ok)?;
            let found = Vec::new();
            let failure =
                Failure { property, detail, comparison, run, poisons, order_seed, buffers, found };
            Ok(Some(failure))
        };
        let mut runs = observed.unwrap_or_default();
        for (other, inputs) in posed.runs.iter().skip(runs.len()) {
            match self.observe(other, inputs, poisons)? {
                Ok(observed) => runs.push(observed),
                Err(fault) => return failed(self, format!("{fault} (posed as {other})"), None),
            }
        }
        let first = &posed.runs[0].0;
        let exact = law.is_exact(&self.manifest);
        // The bounds are dear, and needed only where bits differ.
        let mut limits: Option<Vec<Expected>> = None;
        for (i, output) in judged.iter().enumerate() {
            let others: Vec<Vec<f64>> = match runs.len() {
                1 => vec![own[i].clone()],
                _ => runs[1..].iter().map(|run| run[i].values.clone()).collect(),
            };
            let Some(wanted) = posed.predict(case, *output, &others) else { continue };
            let got = &runs[0][i].values;
            let differs = |(got, want): (&f64, &f64)| {
                got.to_bits() != want.to_bits() && (got.is_finite() || want.is_finite())
            };
            if !got.iter().zip(&wanted).any(differs) {
                continue;
            }
            let arithmetic = self.arithmetic(case);
            let limits = limits.get_or_insert_with(|| {
                let of = |(c, inputs): &(Case, Inputs)| Expected::new(c, inputs, &arithmetic);
                let mut all: Vec<Expected> = posed.runs.iter().map(of).collect();
                if all.len() == 1 {
                    all.push(expected.clone());
                }
                all
            });
            let bounds: Option<Vec<Vec<f64>>> =
                limits.iter().map(|e| e.of(*output).map(|right| right.bound.clone())).collect();
            let Some(slack) = bounds.and_then(|bounds| posed.slack(case, *output, &bounds)) else {
                continue;
            };
            for (j, (got, want)) in got.iter().zip(&wanted).enumerate() {
                let limit = if exact { 0.0 } else { slack[j] };
                let error = (got - want).abs();
                let apart = match (got.is_finite(), want.is_finite()) {
                    // The very bits, but for those of a NaN.
                    _ if exact => {
                        got.to_bits() != want.to_bits() && !(got.is_nan() && want.is_nan())
                    }
                    (true, true) => error > limit,
                    // -inf of an empty lse is a value; what overflows in one may not in the other.
                    (false, false) => false,
                    _ => limit.is_finite(),
                };
                if !apart {
                    continue;
                }
                let image = Image::new(first, &first.placements()?, &[]);
                let at = image.map_or(Where::default(), |image| place(first, &image, *output, j));
                let (ratio, what) = if exact {
                    (f64::INFINITY, "the very bits, as the manifest promises".to_owned())
                } else {
                    (error / limit, format!("within {limit:.2e}"))
                };
                let detail = format!(
                    "{} is {got:.9e} where the law `{}` has {want:.9e}, {what} (posed as {first})",
                    element_in_words(first, *output, at),
                    law.name(),
                );
                let comparison = Comparison {
                    ratio,
                    ratios: Vec::new(),
                    at,
                    output: *output,
                    got: *got,
                    want: *want,
                    bound: limit,
                    max_abs: error,
                    mae: error,
                    wrong: 1,
                };
                return failed(self, detail, Some(comparison));
            }
        }
        Ok(None)
    }

    /// Runs the kernel once and gives its judged outputs; or the fault, in words.
    ///
    /// # Errors
    /// [`TrialError`]: the case could not be run.
    pub fn observe(
        &mut self,
        case: &Case,
        inputs: &Inputs,
        poisons: Poisons,
    ) -> Result<Result<Vec<Observed>, String>, TrialError> {
        let Planned { image, launches } = self.plan(case)?;
        let judged = self.judged(case);
        if let Some(fault) = self.run(case, inputs, &image, &launches, poisons, case.order_seed)? {
            return Ok(Err(fault_in_words(&fault, &image).1));
        }
        Ok(Ok(self.observed(case, &image, &judged)?))
    }

    /// What the last run left of its outputs.
    fn observed(
        &mut self,
        case: &Case,
        image: &Image,
        judged: &[Pointer],
    ) -> Result<Vec<Observed>, TrialError> {
        let after = self.after(image)?;
        let observe = |output: &Pointer| Observed {
            output: *output,
            values: values(case, image, after, *output),
            bytes: output_bytes(case, image, &[*output], after),
        };
        Ok(judged.iter().map(observe).collect())
    }

    /// Runs the kernel `repeats` times on a case's own data: the shortest time of one run on the
    /// device, without what is done before and after it.
    ///
    /// # Errors
    /// [`TrialError`]: the case could not be run, or a fault ended it.
    pub fn timed(&mut self, case: &Case, repeats: usize) -> Result<Duration, TrialError> {
        let inputs = generate(case, &self.captured)?;
        let Planned { image, launches } = self.plan(case)?;
        let mut best = Duration::MAX;
        for _ in 0..repeats {
            self.lay_out(case, &inputs, &image, Poisons::RUNS[2])?;
            let start = Instant::now();
            let fault = self.execute(&launches, case.order_seed)?;
            best = best.min(start.elapsed());
            if let Some(fault) = fault {
                let kernel = self.manifest.name.clone();
                return Err(TrialError::Run { kernel, source: fault.into() });
            }
        }
        Ok(best)
    }

    /// Runs the kernel once on a case's own data and gives the buffers; `None` where a fault ended
    /// the run.
    ///
    /// # Errors
    /// [`TrialError`]: the case could not be run.
    pub fn buffers_under(
        &mut self,
        case: &Case,
        poisons: Poisons,
    ) -> Result<Option<Buffers>, TrialError> {
        let inputs = generate(case, &self.captured)?;
        let Planned { image, launches } = self.plan(case)?;
        let fault = self.run(case, &inputs, &image, &launches, poisons, case.order_seed)?;
        if fault.is_some() { Ok(None) } else { Ok(Some(self.buffers(&image, true)?)) }
    }

    /// The outputs that are judged: those of the stage that the kernel writes. A split's are what
    /// its parts come to.
    fn judged(&self, case: &Case) -> Vec<Pointer> {
        if case.stage == Stage::Split {
            return vec![Pointer::Out, Pointer::Lse];
        }
        let ports = case.stage.ports();
        let written = ports.iter().filter(|p| p.write).map(|p| p.pointer);
        written.filter(|p| self.manifest.takes(*p)).collect()
    }

    /// Lays a case out, compiles what it needs and evaluates its launches.
    fn plan(&mut self, case: &Case) -> Result<Planned, TrialError> {
        let places = case.placements()?;
        let env = Env::new(case, &places);
        let sizes = self.manifest.scratch_sizes(&env)?;
        self.scratch_fits_in_memory(case, &sizes)?;
        let scratch: Vec<_> =
            sizes.into_iter().map(|s| (s.name.clone(), poison_type(s.dtype), s.elements)).collect();
        let image = Image::new(case, &places, &scratch)
            .ok_or(TrialError::TooLarge { need: u128::MAX >> 20, limit: free_memory() >> 20 })?;
        if !self.device.waves().contains(&case.wave) {
            let why = format!(
                "the case has waves of {}, and {} has waves of {}; write wave={} in it",
                case.wave,
                self.device.describe(),
                self.device.waves()[0],
                self.device.waves()[0]
            );
            let kernel = self.manifest.name.clone();
            return Err(TrialError::Run { kernel, source: RunError::Refused(why) });
        }
        let module = self.module(self.manifest.source(&env)?)?;
        let manifest = Arc::clone(&self.manifest);
        let launches = manifest
            .launches(&env, &module, &|arg| address(&manifest, arg, case, &places, &image))?;
        Ok(Planned { image, launches })
    }

    /// Refuses scratch buffers before they would exhaust the machine. As every buffer they are there
    /// twice: before a run and after it.
    fn scratch_fits_in_memory(&self, case: &Case, sizes: &[ScratchSize]) -> Result<(), TrialError> {
        let mib = |size: &ScratchSize| (2 * size.bytes() as u128) >> 20;
        let Some(largest) = sizes.iter().max_by_key(|size| mib(size)) else { return Ok(()) };
        let need = sizes.iter().map(mib).sum();
        match room_for(need) {
            Ok(()) => Ok(()),
            Err(limit) => Err(TrialError::Scratch {
                kernel: self.manifest.name.clone(),
                name: clip(&largest.name),
                need,
                limit,
                case: case.to_string(),
            }),
        }
    }

    /// One run on freshly written memory; the fault that ended it, if one did.
    fn run(
        &mut self,
        case: &Case,
        inputs: &Inputs,
        image: &Image,
        launches: &[Launch],
        poisons: Poisons,
        order_seed: u64,
    ) -> Result<Option<Fault>, TrialError> {
        self.lay_out(case, inputs, image, poisons)?;
        self.execute(launches, order_seed)
    }

    /// The three runs of a case and those of its law at once, side by side in the arena, where the
    /// device gains by it. `None` where it does not, or a fault ended one of them: then they are to be
    /// made one after another.
    fn run_side_by_side(
        &mut self,
        case: &Case,
        inputs: &Inputs,
        image: &Image,
        launches: &[Launch],
        posed: Option<&Posed>,
    ) -> Result<Option<Beside>, TrialError> {
        if self.device.side_by_side().is_none() {
            return Ok(None);
        }
        // What cannot be planned is told when it comes to it.
        let plans = posed.map(|posed| posed.runs.iter().map(|(other, _)| self.plan(other)));
        let plans: Vec<Planned> =
            plans.and_then(|plans| plans.collect::<Result<_, _>>().ok()).unwrap_or_default();
        let room = |image: &Image| image.size().next_multiple_of(ARENA_ALIGN);
        let stride = room(image);
        let own = Poisons::RUNS.map(|poisons| (case, inputs, image, launches, poisons));
        let laws =
            posed.iter().flat_map(|posed| &posed.runs).zip(&plans).map(|(run, plan)| {
                (&run.0, &run.1, &plan.image, &plan.launches[..], Poisons::RUNS[2])
            });
        let all: Vec<_> = own.into_iter().chain(laws).collect();
        let bytes: usize = all.iter().map(|(_, _, image, ..)| room(image)).sum();
        if bytes > MOST_BESIDE || all.len() > MOST_SIDE_BY_SIDE {
            return Ok(None);
        }
        let kernel = self.manifest.name.clone();
        let refused = |source| TrialError::Run { kernel: kernel.clone(), source };
        let mut rest = self.device.arena(bytes).map_err(&refused)?;
        let (mut runs, mut at) = (Vec::new(), 0);
        for &(case, inputs, image, launches, poisons) in &all {
            let (own, others) = rest.split_at_mut(room(image));
            image.write(case, inputs, poisons, &mut own[..image.size()]);
            runs.push(stretch(image, launches, at));
            (rest, at) = (others, at + own.len());
        }
        let Some(device) = self.device.side_by_side() else { return Ok(None) };
        let changed = match device.run(&runs, self.time_limit) {
            Ok(changed) => changed,
            Err(RunError::Fault(_)) => return Ok(None),
            Err(source) => return Err(refused(source)),
        };
        let mut observed = Vec::new();
        for (run, (case, _, image, ..)) in runs.iter().zip(&all).skip(Poisons::RUNS.len()) {
            self.seen = Seen::Beside(run.bytes.start);
            observed.push(self.observed(case, image, &self.judged(case))?);
        }
        let observed = (!plans.is_empty()).then_some(observed);
        Ok(Some(Beside { changed, stride, observed }))
    }

    /// The first byte that the run that is looked at changed and might not have. `changed`: what the
    /// device has seen outside of the outputs, of a run beside others.
    fn stray_write(
        &mut self,
        image: &Image,
        changed: Option<usize>,
    ) -> Result<Option<Stray>, TrialError> {
        let Seen::Beside(at) = self.seen else {
            let before = std::mem::take(&mut self.before);
            let stray = image.stray_write(&before, self.after(image)?);
            self.before = before;
            return Ok(stray);
        };
        let own = at..at + image.size();
        let outside = changed.map(|byte| image.stray_at(byte - at));
        let Some(device) = self.device.side_by_side() else { return Ok(outside) };
        let (before, after) = (&device.given()[own.clone()], &device.left()[own]);
        Ok(outside.or_else(|| image.stray_in_outputs(before, after)))
    }

    /// Writes the memory of a run, and what the kernel may do with it.
    fn lay_out(
        &mut self,
        case: &Case,
        inputs: &Inputs,
        image: &Image,
        poisons: Poisons,
    ) -> Result<(), TrialError> {
        self.before.resize(image.size(), 0);
        image.write(case, inputs, poisons, &mut self.before);
        let kernel = &self.manifest.name;
        let refused = |source| TrialError::Run { kernel: kernel.clone(), source };
        self.device.arena(image.size()).map_err(refused)?.copy_from_slice(&self.before);
        self.seen = Seen::Alone;
        if let Some(map) = self.device.access_map() {
            image.allow(case, inputs, map);
        }
        Ok(())
    }

    /// Runs the launches on the memory laid out.
    fn execute(
        &mut self,
        launches: &[Launch],
        order_seed: u64,
    ) -> Result<Option<Fault>, TrialError> {
        let result = self.device.run(launches, order_seed, self.time_limit);
        self.fault_of(result)
    }

    /// The fault that ended a run, if one did.
    fn fault_of(&self, result: Result<(), RunError>) -> Result<Option<Fault>, TrialError> {
        match result {
            Ok(()) => Ok(None),
            Err(RunError::Fault(fault)) => Ok(Some(fault)),
            Err(source) => {
                let kernel = self.manifest.name.clone();
                Err(TrialError::Run { kernel, source })
            }
        }
    }

    /// Memory as the last run left it.
    fn after(&mut self, image: &Image) -> Result<&[u8], TrialError> {
        if let Seen::Beside(at) = self.seen {
            let left = self.device.side_by_side().map_or(&[][..], |device| device.left());
            return Ok(&left[at..at + image.size()]);
        }
        let kernel = &self.manifest.name;
        match self.device.arena(image.size()) {
            Ok(memory) => Ok(memory),
            Err(source) => Err(TrialError::Run { kernel: kernel.clone(), source }),
        }
    }

    /// The buffers of the last run; without outputs where a fault ended it.
    fn buffers(&mut self, image: &Image, ended: bool) -> Result<Buffers, TrialError> {
        let cut = |from: &[u8], roles: &[Role]| {
            let wanted = image.buffers().iter().filter(|b| roles.contains(&b.role));
            wanted.map(|b| (b.name.clone(), from[b.range.clone()].to_vec())).collect()
        };
        let inputs = [Role::Input, Role::Output];
        let before = match (self.seen, self.device.side_by_side()) {
            (Seen::Beside(at), Some(device)) => {
                cut(&device.given()[at..at + image.size()], &inputs)
            }
            _ => cut(&self.before, &inputs),
        };
        let manifest = Arc::clone(&self.manifest);
        let mut after: BTreeMap<String, Vec<u8>> =
            if ended { cut(self.after(image)?, &[Role::Output]) } else { BTreeMap::new() };
        after.retain(|name, _| name.parse().is_ok_and(|pointer| manifest.takes(pointer)));
        Ok(Buffers { before, after })
    }

    /// Compiles a source, once.
    fn module(&mut self, source: Source) -> Result<Module, CompileError> {
        if let Some(module) = self.modules.get(&source) {
            return Ok(module.clone());
        }
        let module = self.device.compile(&source)?;
        self.modules.insert(source, module.clone());
        Ok(module)
    }

    /// Compiles what a case needs, so that a sweep can prepare all instances first.
    ///
    /// # Errors
    /// [`TrialError::Compile`] or [`TrialError::Plan`].
    pub fn prepare(&mut self, case: &Case) -> Result<(), TrialError> {
        let source = self.manifest.source(&Env::new(case, &case.placements()?))?;
        self.module(source)?;
        Ok(())
    }
}

/// Findings, each fault once.
#[derive(Default)]
struct FoundOnce(Vec<Found>);

impl FoundOnce {
    fn add(&mut self, found: Found) {
        if !self.0.iter().any(|known| known.key() == found.key()) {
            self.0.push(found);
        }
    }

    /// The gravest class first.
    fn list(&self) -> Vec<Found> {
        let mut list = self.0.clone();
        list.sort_by_key(Found::class);
        list
    }
}

/// Bytes of images that are run side by side: of larger ones each run is long enough alone.
const MOST_BESIDE: usize = 64 << 20;

/// A run on the stretch of the arena that begins at a byte.
fn stretch(image: &Image, launches: &[Launch], at: usize) -> Stretch {
    let shift = |arg: &Arg| match *arg {
        Arg::Address(byte) => Arg::Address(byte + at),
        other => other,
    };
    let shifted = |launch: &Launch| Launch {
        args: launch.args.iter().map(shift).collect(),
        ..launch.clone()
    };
    let of_role = |role: Role| {
        let buffers = image.buffers().iter().filter(move |buffer| buffer.role == role);
        buffers.map(|buffer| buffer.range.start + at..buffer.range.end + at).collect()
    };
    Stretch {
        bytes: at..at + image.size().next_multiple_of(ARENA_ALIGN),
        launches: launches.iter().map(shifted).collect(),
        outputs: of_role(Role::Output),
        scratch: of_role(Role::Scratch),
    }
}

/// MiB that a case may take without asking the system what is free, as almost all do.
const ALWAYS_THERE: u128 = 256;

/// Refuses a case before its data would exhaust the machine.
///
/// # Errors
/// [`TrialError::TooLarge`] or [`TrialError::Case`].
pub fn fits_in_memory(case: &Case) -> Result<(), TrialError> {
    let places = case.placements()?;
    // The image twice (before and after), the dense values with their bytes, the oracle's view.
    let bytes = |t: &Tensor| {
        let (span, held, size) =
            (t.place.span() as u128, t.shape.len() as u128, t.dtype.size() as u128);
        let written = case.stage.port(t.pointer).is_some_and(|p| p.write);
        2 * span * size + held * if written { 24 } else { 4 + size }
    };
    let tensors = case
        .tensors(&places)
        .map_err(|source| CaseError::Layout { tensor: "a tensor of the stage", source })?;
    let need = tensors.iter().map(bytes).sum::<u128>() >> 20;
    room_for(need).map_err(|limit| TrialError::TooLarge { need, limit })
}

/// Whether so many MiB are free; where they are not, how many are.
fn room_for(need: u128) -> Result<(), u128> {
    if need <= ALWAYS_THERE {
        return Ok(());
    }
    let limit = free_memory() >> 20;
    if need > limit { Err(limit) } else { Ok(()) }
}

/// Bytes of memory that are free, as the system says; 4 GiB where it does not.
fn free_memory() -> u128 {
    let read = || {
        let text = std::fs::read_to_string("/proc/meminfo").ok()?;
        let line = text.lines().find_map(|l| l.strip_prefix("MemAvailable:"))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u128>().ok()
    };
    read().map_or(4 << 30, |kib| kib << 10)
}

/// What a kernel promises, for a case's output type.
pub fn arithmetic(manifest: &Manifest, case: &Case) -> Arithmetic {
    let n = &manifest.numerics;
    Arithmetic {
        accumulate: n.accumulate,
        probs: n.probs,
        out: case.dtypes.out,
        exp_ulp: n.exp_ulp,
        exp_arg_ulp: n.exp_arg_ulp,
        tanh_ulp: n.tanh_ulp,
        trig_ulp: n.trig_ulp,
        flushes: n.denormals == Denormals::Flush,
    }
}

/// The type in which a scratch buffer is poisoned. Integers get the float of their size: large.
fn poison_type(scratch: ScratchType) -> DType {
    match scratch {
        ScratchType::F16 => DType::F16,
        ScratchType::BF16 => DType::BF16,
        other => match other.size() {
            8 => DType::F64,
            4 => DType::F32,
            2 => DType::BF16,
            _ => DType::F8E5M2,
        },
    }
}

/// Where a pointer argument points: the first element of its tensor. With a layer axis that is the
/// attended layer's, unless the kernel takes the layer's stride and finds it itself.
fn address(
    manifest: &Manifest,
    arg: &ArgSpec,
    case: &Case,
    places: &Placements,
    image: &Image,
) -> Result<Arg, PlanError> {
    let none =
        || PlanError::NoBuffer { kernel: manifest.name.clone(), arg: manifest.arg_name(arg) };
    let kv = |name: &str, place: &Placement| {
        let own = manifest.reads_variable(&format!("{name}_stride_l"));
        let layer = if own { 0 } else { case.layer * place.stride(Axis::Layer) };
        image.element(name, place.offset() + layer)
    };
    let byte = match arg {
        ArgSpec::Null => return Ok(Arg::Null),
        ArgSpec::Scratch(index) => image.element(&manifest.scratch[*index].name, 0),
        ArgSpec::Pointer(Pointer::K) => kv("k", &places.k),
        ArgSpec::Pointer(Pointer::V) => kv("v", &places.v),
        ArgSpec::Pointer(Pointer::Sinks) if !case.sinks => return Ok(Arg::Null),
        ArgSpec::Pointer(p) => match image.buffer(p.name()).and_then(|b| b.tensor.as_ref()) {
            Some(tensor) => image.element(p.name(), tensor.place.offset()),
            None => return Err(none()),
        },
        ArgSpec::Scalar { .. } => return Err(none()),
    };
    Ok(Arg::Address(byte))
}

fn fault_in_words(fault: &Fault, image: &Image) -> (&'static str, String) {
    match fault {
        Fault::Crash { arena_offset: Some(at), .. } => {
            let place = match usize::try_from(*at) {
                Ok(byte) => image.describe(byte),
                Err(_) => format!("{} bytes before all buffers", -at),
            };
            ("crash", format!("{fault}; the address lies {place}"))
        }
        Fault::Crash { .. } => ("crash", fault.to_string()),
        Fault::Timeout { .. } => ("timeout", fault.to_string()),
        Fault::Deadlock { .. } => ("deadlock", fault.to_string()),
        Fault::SharedOverrun { .. } => ("shared-overrun", fault.to_string()),
        Fault::Trap { .. } => ("trap", fault.to_string()),
        Fault::Found => ("sanitize", fault.to_string()),
    }
}

/// The judged elements of some outputs, as stored. A split's are what its parts come to: what an
/// empty part holds may differ.
fn output_bytes(case: &Case, image: &Image, judged: &[Pointer], memory: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for output in judged {
        if case.stage == Stage::Split {
            let merged = values(case, image, memory, *output);
            bytes.extend(merged.iter().flat_map(|x| x.to_le_bytes()));
        } else {
            image.output(*output).bytes(memory, &mut bytes);
        }
    }
    bytes
}

/// `oracle` for the stage's main output, `oracle/NAME` for another.
fn property_of(expected: &Expected, output: Pointer) -> &'static str {
    match output {
        main if expected.outputs.first().is_some_and(|(p, _)| *p == main) => "oracle",
        Pointer::Lse => "oracle/lse",
        Pointer::Residual => "oracle/residual",
        Pointer::V => "oracle/v",
        _ => "oracle",
    }
}

/// An element of an output in words.
fn element_in_words(case: &Case, output: Pointer, at: Where) -> String {
    let Where { batch, head, token, d } = at;
    match (output, case.stage) {
        (Pointer::Lse, _) => format!("lse[{batch}, {head}]"),
        (Pointer::Scores | Pointer::Probs, _) => format!("{output}[{batch}, {head}, {token}]"),
        (Pointer::K | Pointer::V, _) => {
            format!("{output}[sequence {batch}, KV head {head}, token {token}, element {d}]")
        }
        (_, Stage::Prefill) => format!("out[{batch}, {token}, {head}, {d}]"),
        (_, Stage::HeadCombine | Stage::Norm) => format!("{output}[{batch}, {d}]"),
        (_, Stage::Split) => format!("out[{batch}, {head}, {d}], of the parts put together,"),
        _ => format!("{output}[{batch}, {head}, {d}]"),
    }
}

fn wrong_in_words(case: &Case, c: &Comparison, poisons: Poisons) -> String {
    format!(
        "{} is {:.9e}, must be {:.9e} within {:.2e} ({} elements wrong; poison {poisons})",
        element_in_words(case, c.output, c.at),
        c.got,
        c.want,
        c.bound,
        c.wrong
    )
}

fn repeat_in_words(
    case: &Case,
    image: &Image,
    judged: &[Pointer],
    first: &[u8],
    again: &[u8],
) -> String {
    let mut byte = first.iter().zip(again).position(|(a, b)| a != b).unwrap_or(0);
    let mut what = "an output".to_owned();
    for output in judged {
        let (elements, size) = match case.stage {
            // As merged, in f64.
            Stage::Split if *output == Pointer::Lse => (case.batch() * case.num_heads, 8),
            Stage::Split => (case.batch() * case.num_heads * case.head_dim_v, 8),
            _ => {
                let output = image.output(*output);
                (output.runs.iter().map(|r| r.count).sum(), output.dtype.size())
            }
        };
        if byte < elements * size {
            what = element_in_words(case, *output, place(case, image, *output, byte / size));
            break;
        }
        byte -= elements * size;
    }
    format!(
        "{what} has other bits on a repeat with another order of threads and other poison in what \
         the kernel must not read"
    )
}
