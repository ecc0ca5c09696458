//! One case on one device: three runs under different poison and thread orders, each judged.

mod beside;
mod far;
mod laws;
mod limit;
mod lockstep;
mod masked;
mod room;
mod run;
mod words;

pub use lockstep::PASSES_IN_LOCKSTEP;
pub use room::fits_in_memory;
pub(super) use words::element_in_words;

use super::compare::{Comparison, Largest, compare, place, values};
use super::law::{self, Law};
use super::sanitize::{self, Found};
use super::wide::is_wide;
use crate::data::captured::Captured;
use crate::data::generate::{DataError, generate};
use crate::data::image::{Image, Poisons, Stray};
use crate::data::inputs::Inputs;
use crate::device::{CompileError, Device, Fault, Launch, Module, RunError, Source};
use crate::kernel::{Denormals, Manifest, PlanError, Promise};
use crate::oracle::{Arithmetic, Expected};
use crate::problem::{Case, CaseError, Pointer, Stage};
use limit::TimeLimit;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};
use words::{fault_in_words, property_of, repeat_in_words, wrong_in_words};

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

impl TrialError {
    /// Whether nothing is wrong, and an interrupt of the process ended the work.
    pub fn is_interrupt(&self) -> bool {
        matches!(
            self,
            TrialError::Compile(CompileError::Interrupted)
                | TrialError::Run { source: RunError::Interrupted, .. }
        )
    }
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
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Passed {
    /// Largest error over its bound, over all runs and outputs.
    pub ratio: f64,
    /// Largest absolute error of the main output over all runs; `None` where none was compared.
    pub largest: Option<Largest>,
    /// Runs that were judged.
    pub runs: usize,
    /// The law that it was tried on, besides.
    pub law: Option<Law>,
    /// What a checked run found that is no fault, each once.
    pub notes: Vec<Found>,
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
    /// What a checked run found, each once: faults, the gravest class first, then notes.
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
    time_limit: TimeLimit,
    modules: HashMap<Source, Module>,
    /// The image before a run that was made alone, to compare with.
    before: Vec<u8>,
    seen: Seen,
    /// The same kernel on a device whose lanes are in lockstep, once it was asked for.
    lockstep: Option<Box<Trial>>,
}

/// Where the memory of the run that is looked at lies.
#[derive(Debug, Clone, Copy)]
enum Seen {
    /// Alone in the arena.
    Alone,
    /// In the arena beside others, from this byte on.
    Beside(usize),
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
            time_limit: TimeLimit { base: time_limit, grows: false, hurry: None },
            modules: HashMap::new(),
            before: Vec::new(),
            seen: Seen::Alone,
            lockstep: None,
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

    /// [`Device::late`] so far.
    pub fn late(&self) -> u32 {
        self.device.late()
    }

    /// The time limit was not said by the user: it grows with the case, and a run that makes no progress
    /// is ended sooner.
    pub fn grow_time_limit(&mut self, grows: bool) {
        self.time_limit.grows = grows;
    }

    /// Until it is taken back: no run takes longer than this limit, grown with the case.
    pub fn hurry(&mut self, limit: Option<Duration>) {
        self.time_limit.hurry = limit;
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
        let (beside, struck) = self.run_side_by_side(case, inputs, &image, &launches, posed)?;
        for (run, poisons) in runs.iter().map(|&run| (run, Poisons::RUNS[run])) {
            let order_seed = case.order_seed.wrapping_add(run as u64);
            last = (run, poisons, order_seed);
            let fault = match &beside {
                Some(beside) => {
                    self.seen = Seen::Beside(beside.at[run]);
                    None
                }
                None => self.run(case, inputs, &image, &launches, poisons, order_seed)?,
            };
            let ended = fault.is_none();
            if checked {
                self.look(case, &image, &judged, ended, &mut found);
            }
            let list = found.list();
            let gravest = list.first().filter(|found| !found.is_note());
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
            if let (Some(Fault::Found), Some(gravest)) = (&fault, gravest) {
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
            if let Some(Stray { place, .. }) = stray.filter(|_| gravest.is_none()) {
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
            if passed.largest.is_none_or(|l| l.error < comparison.max_abs) {
                passed.largest = Some(comparison.largest());
            }
            match (&first, bits) {
                (Some(first), Some(bits)) if *first != bits => {
                    let detail = repeat_in_words(case, &image, &judged, first, &bits);
                    return failed(self, "repeat", detail, Some(comparison));
                }
                (None, bits) => first = bits,
                _ => {}
            }
        }
        self.note_masked(case, inputs, (&image, &launches), &expected, &mut found)?;
        if let Some(gravest) = found.list().first().filter(|found| !found.is_note()) {
            let (run, poisons, order_seed) = last;
            let (property, detail) = (gravest.property(), gravest.words.clone());
            let (comparison, found) = (None, found.list());
            let buffers = self.buffers(&image, true)?;
            let failure =
                Failure { property, detail, comparison, run, poisons, order_seed, buffers, found };
            return Ok(Outcome::Failed(Box::new(failure)));
        }
        if let Some(fault) = struck {
            let (run, poisons, order_seed) = last;
            let (property, fault) = fault_in_words(&fault, &image);
            let detail = format!("{fault}; made one after another its runs ended");
            let (comparison, found) = (None, Vec::new());
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
        passed.notes = found.list();
        // A vacuous case was run all the same: it may crash, or write where it must not.
        Ok(expected.vacuous().map_or(Outcome::Passed(passed), Outcome::Vacuous))
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

    /// Runs the kernel `repeats` times on a case's own data: the shortest time of one run by the host's
    /// clock, without what is done before and after it.
    ///
    /// # Errors
    /// [`TrialError`]: the case could not be run, or a fault ended it.
    pub fn timed(&mut self, case: &Case, repeats: usize) -> Result<Duration, TrialError> {
        let inputs = generate(case, &self.captured)?;
        let Planned { image, launches } = self.plan(case)?;
        self.lay_out(case, &inputs, &image, Poisons::RUNS[2])?;
        let mut best = Duration::MAX;
        for _ in 0..repeats {
            self.lay_out(case, &inputs, &image, Poisons::RUNS[2])?;
            let start = Instant::now();
            let fault = self.execute(case, &launches, case.order_seed)?;
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

    /// How a case's buffers lie, and the launches on them.
    ///
    /// # Errors
    /// [`TrialError`]: the case cannot be planned, or does not compile.
    pub fn planned(&mut self, case: &Case) -> Result<(Image, Vec<Launch>), TrialError> {
        let Planned { image, launches } = self.plan(case)?;
        Ok((image, launches))
    }

    /// The device.
    pub fn device(&mut self) -> &mut dyn Device {
        &mut *self.device
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
}

/// Findings, each fault once.
#[derive(Default)]
struct FoundOnce(Vec<Found>);

impl FoundOnce {
    fn add(&mut self, found: Found) {
        match self.0.iter_mut().find(|known| known.key() == found.key()) {
            None => self.0.push(found),
            // Where it was a fault once, it is one.
            Some(known) if known.is_note() && !found.is_note() => *known = found,
            Some(_) => {}
        }
    }

    /// The gravest class first, and notes last.
    fn list(&self) -> Vec<Found> {
        let mut list = self.0.clone();
        list.sort_by_key(|found| (found.is_note(), found.class()));
        list
    }
}

/// What a kernel promises, for a case's output type.
pub fn arithmetic(manifest: &Manifest, case: &Case) -> Arithmetic {
    let n = &manifest.numerics;
    Arithmetic {
        accumulate: n.accumulate,
        probs: n.probs_with(case.dtypes.kv),
        out: case.dtypes.out,
        exp_ulp: n.exp_ulp,
        exp_arg_ulp: n.exp_arg_ulp,
        tanh_ulp: n.tanh_ulp,
        trig_ulp: n.trig_ulp,
        flushes: n.denormals == Denormals::Flush,
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
