//! Rounds over kernels on a shape, and how fast the device reads.

use super::check::Oracle;
use super::document::{Ceiling, Row};
use super::shapes::Shape;
use super::stats::{Times, middle};
use super::workload::{Helpers, Reading, STAGES, Workload, layout};
use crate::device::{Device, Launch, Module, RunError, Subject, Telemetry, Timing, interrupt};
use crate::judge::trial::{Trial, TrialError};
use crate::kernel::{Manifest, Promise};
use crate::problem::{Case, Layout, Storage};
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How a bench measures.
#[derive(Debug, Clone)]
pub struct Options {
    /// Rounds, each on buffers allocated anew.
    pub rounds: u32,
    /// Timed replays a round.
    pub replays: u32,
    /// Seed of the data.
    pub seed: u64,
    /// Time limit of one call.
    pub time_limit: Duration,
    /// Layouts of K and V for shapes that do not say theirs; the kernel's first where none is given.
    pub layouts: Vec<Layout>,
    /// Every value of every tunable, besides what the kernel's rule says.
    pub all_params: bool,
}

/// Replays before those that are timed.
pub const WARM: u32 = 3;

/// A replay has calls enough for this, microseconds, so that what lies between two replays is nothing to
/// it; but no slow kernel is called again and again for long.
const LONG_ENOUGH: f64 = 500.0;
const TOO_LONG: f64 = 20_000.0;

/// The replays of a kernel in a round take no longer together, microseconds, where it is slow; but there
/// are as many that all rounds together have 30.
const LONG_ROUND: f64 = 500_000.0;
const LEAST_SAMPLES: u32 = 30;

/// Bytes on which the ceiling is measured: far beyond any cache.
const CEILING_BYTES: usize = 1 << 30;

/// Kernels on a device.
pub struct Bench {
    trials: Vec<Trial>,
    helpers: Helpers,
    options: Options,
    /// The best rate of reading alone so far, GB/s, and the bytes of that.
    best: Option<(f64, u64)>,
    /// How the large cache is read best.
    reading: Option<Reading>,
    at_begin: Option<f64>,
}

/// A kernel on a shape, judged and ready to be timed by other statistics than ours.
pub struct Prepared(Entry);

impl Prepared {
    /// What is known of it so far.
    pub fn row(&self) -> &Row {
        &self.0.row
    }
}

/// A kernel on a shape and a layout, being measured.
struct Entry {
    trial: usize,
    row: Row,
    workload: Workload,
    reading: Option<Reading>,
    replays: u32,
    rounds: Vec<Vec<f64>>,
    reads: Vec<f64>,
    telemetry: Option<Telemetry>,
}

impl Bench {
    /// A bench of kernels; `make` gives a device for each, `helpers` is
    /// [`Registry::helpers`](crate::kernel::Registry::helpers).
    ///
    /// # Errors
    /// [`TrialError`]: the helpers do not compile.
    pub fn new(
        kernels: &[Manifest],
        helpers: PathBuf,
        make: &dyn Fn() -> Box<dyn Device>,
        options: Options,
    ) -> Result<Bench, TrialError> {
        let trial = |manifest: &Manifest| {
            Trial::new(Arc::new(manifest.clone()), Arc::default(), make(), options.time_limit)
        };
        let mut trials: Vec<Trial> = kernels.iter().map(trial).collect();
        let device = match trials.first_mut() {
            Some(trial) => trial.device(),
            None => &mut *make(),
        };
        let wave = device.waves()[0];
        let helpers = Helpers::compile(device, helpers, wave)?;
        Ok(Bench { trials, helpers, options, best: None, reading: None, at_begin: None })
    }

    /// Whether a stage is one that is timed.
    pub fn times(manifest: &Manifest) -> bool {
        STAGES.contains(&manifest.stage)
    }

    /// Measures how fast the device reads; nothing where it has no clock of its own.
    ///
    /// # Errors
    /// [`TrialError`]: the device failed.
    pub fn read(&mut self) -> Result<(), TrialError> {
        let Some(trial) = self.trials.first_mut() else { return Ok(()) };
        if trial.device().cache_bytes() == 0 {
            return Ok(());
        }
        let (mut timing, buffers) = self.helpers.plain(CEILING_BYTES, self.options.seed);
        let candidates = self.reading.map_or_else(Reading::all, |reading| vec![reading]);
        let read = |how: &Reading| vec![self.helpers.read(*how, buffers.clone())];
        timing.subjects = candidates.iter().map(|how| subject(read(how), 2, WARM, 10)).collect();
        let timed = time(trial, &timing, self.options.time_limit)?;
        if let Some((how, micros)) = fastest(&candidates, &timed) {
            self.reading = Some(how);
            let gbs = CEILING_BYTES as f64 / micros / 1e3;
            self.at_begin.get_or_insert(gbs);
            self.see(gbs, CEILING_BYTES as u64);
        }
        Ok(())
    }

    /// Measures it once more, to see whether it has changed, and gives what was found.
    ///
    /// # Errors
    /// As [`Bench::read`].
    pub fn ceiling(&mut self) -> Result<Option<Ceiling>, TrialError> {
        let (at_begin, best) = (self.at_begin, self.best.take());
        self.read()?;
        let at_end = self.best.map(|(gbs, _)| gbs);
        if let Some((gbs, bytes)) = best {
            self.see(gbs, bytes);
        }
        let ceiling =
            |(gbs, bytes)| Ceiling { gbs, bytes, gbs_at_begin: at_begin, gbs_at_end: at_end };
        Ok(self.best.map(ceiling))
    }

    fn see(&mut self, gbs: f64, bytes: u64) {
        if self.best.is_none_or(|(best, _)| gbs > best) {
            self.best = Some((gbs, bytes));
        }
    }

    /// Judges every kernel on a shape. What cannot be timed is a row that says why.
    fn entries(&mut self, shape: &Shape) -> (Vec<Entry>, Vec<Row>) {
        let (mut rows, mut entries) = (Vec::new(), Vec::<Entry>::new());
        for trial in 0..self.trials.len() {
            // What is right does not depend on the tunables.
            let mut oracles = HashMap::new();
            for (case, by_rule) in self.cases(trial, shape) {
                // As many bytes are read best in the same way, whoever else reads them.
                let known = |bytes| entries.iter().find(|e| e.workload.kv_bytes == bytes)?.reading;
                match self.enter(trial, shape, &case, by_rule, &known, &mut oracles) {
                    Ok(entry) => entries.push(entry),
                    // What an interrupt cut short says nothing of the kernel.
                    Err(_) if interrupt::is_requested() => return (entries, rows),
                    Err(row) => rows.push(*row),
                }
            }
        }
        (entries, rows)
    }

    /// Measures every kernel on a shape. What a kernel does not take is a row that says so; what is not
    /// known before the bench has ended is the share of the ceiling.
    pub fn shape(&mut self, shape: &Shape) -> Vec<Row> {
        let (mut entries, mut rows) = self.entries(shape);
        // Taking turns, so that what drifts hits all alike.
        for round in 0..self.options.rounds {
            let mut failed = Vec::new();
            for (index, entry) in entries.iter_mut().enumerate() {
                let observed = round + 1 == self.options.rounds;
                if let Err(error) = self.round(entry, observed) {
                    failed.push((index, error));
                }
            }
            if interrupt::is_requested() {
                break;
            }
            for (index, error) in failed.into_iter().rev() {
                let entry = entries.remove(index);
                rows.push(refused(entry.row, error));
            }
        }
        // An interrupt may have come before the first round of some.
        rows.extend(entries.into_iter().filter(|e| !e.rounds.is_empty()).map(Entry::finish));
        rows
    }

    /// Judges every kernel on a shape, for [`Bench::nanoseconds`]. What cannot be timed is a row that says
    /// why.
    pub fn prepare(&mut self, shape: &Shape) -> (Vec<Prepared>, Vec<Row>) {
        let (entries, rows) = self.entries(shape);
        (entries.into_iter().map(Prepared).collect(), rows)
    }

    /// The device's time for so many calls, nanoseconds: of as many replays as have them, on buffers
    /// allocated anew.
    ///
    /// # Errors
    /// [`TrialError`]: the device failed.
    pub fn nanoseconds(&mut self, kernel: &Prepared, calls: u64) -> Result<f64, TrialError> {
        let entry = &kernel.0;
        let replays = calls.div_ceil(entry.row.calls.into()).clamp(1, 1000) as u32;
        let mut timing = entry.workload.timing.clone();
        timing.subjects =
            vec![subject(entry.workload.launches.clone(), entry.row.calls, WARM, replays)];
        let timed = time(&mut self.trials[entry.trial], &timing, self.options.time_limit)?;
        let micros = timed.first().map_or(0.0, |(micros, ..)| micros.iter().sum::<f64>());
        Ok(1e3 * micros / f64::from(replays) * calls as f64)
    }

    /// The cases of a shape for a kernel: its layouts, its tunables, and whether those are by its rule.
    fn cases(&mut self, trial: usize, shape: &Shape) -> Vec<(Case, bool)> {
        let trial = &mut self.trials[trial];
        let manifest = Arc::clone(trial.manifest());
        let wave = trial.device().waves()[0];
        let plain = Case { wave, ..shape.case.clone().for_stage(manifest.stage) };
        let mut laid_out = Vec::new();
        let preferred: Layout = "NHD".parse().expect("a constant layout");
        let known = manifest.layouts.k.iter().chain(&manifest.layouts.v);
        let own = known.clone().find(|l| **l == preferred).or_else(|| known.clone().next());
        let layouts: Vec<Layout> = match &self.options.layouts[..] {
            _ if shape.has_layout => Vec::new(),
            [] => own.cloned().into_iter().collect(),
            given => given.to_vec(),
        };
        for layout in &layouts {
            let storage = Storage::contiguous(layout.clone());
            laid_out.push(Case { k: storage.clone(), v: storage, ..plain.clone() });
        }
        if laid_out.is_empty() {
            laid_out.push(plain);
        }
        let mut cases: Vec<(Case, bool)> = Vec::new();
        for case in laid_out {
            let mut combinations = vec![case.clone()];
            if self.options.all_params {
                for param in &manifest.params {
                    combinations = combinations
                        .iter()
                        .flat_map(|case| {
                            param.values.iter().map(|value| {
                                let mut case = case.clone();
                                case.params.entry(param.name.clone()).or_insert(*value);
                                case
                            })
                        })
                        .collect();
                }
                combinations.insert(0, case);
            }
            for (index, case) in combinations.into_iter().enumerate() {
                let by_rule = index == 0 && !manifest.rule.is_empty() && case.params.is_empty();
                cases.push((case, by_rule));
            }
        }
        cases
    }

    /// Lays a kernel out on a case, judges it, and sees how long a call takes.
    fn enter(
        &mut self,
        index: usize,
        shape: &Shape,
        case: &Case,
        by_rule: bool,
        reading: &dyn Fn(u64) -> Option<Reading>,
        oracles: &mut HashMap<String, Oracle>,
    ) -> Result<Entry, Box<Row>> {
        let (seed, limit) = (self.options.seed, self.options.time_limit);
        let trial = &mut self.trials[index];
        let manifest = Arc::clone(trial.manifest());
        let mut row = row(&manifest, shape, case, by_rule);
        let (units, shared) = (trial.device().units(), trial.device().shared_bytes());
        let mut case = case.clone();
        let tuned = case.placements().map_err(TrialError::from).and_then(|places| {
            manifest.tune(&mut case, &places, units, shared)?;
            Ok(())
        });
        if let Err(error) = tuned {
            return Err(Box::new(refused(row, error)));
        }
        row.params = case.params.clone();
        row.case = case.to_string();
        if let Err(unsupported) = manifest.supports(&case) {
            return Err(Box::new(Row {
                verdict: "refused".to_owned(),
                why: Some(unsupported.to_string()),
                ..row
            }));
        }
        let workload = match Workload::new(trial, &self.helpers, &case, seed) {
            Ok(workload) => workload,
            Err(error) => return Err(Box::new(refused(row, error))),
        };
        row.kv_bytes = workload.kv_bytes;
        row.layout = workload.layout();
        row.hash = workload.launches.first().map_or(String::new(), |l| hash_of(&l.module));
        let mut timing = workload.timing.clone();
        timing.subjects = vec![subject(workload.launches.clone(), 1, 1, 3)];
        let first = match trial.device().time(&timing, limit) {
            Ok(first) => first.into_iter().next(),
            Err(source) => return Err(Box::new(fault_of(row, &manifest, source))),
        };
        let Some(first) = first else {
            return Err(Box::new(refused(row, no_answer(&manifest))));
        };
        let untuned = Case { params: BTreeMap::new(), ..case.clone() }.to_string();
        let oracle =
            oracles.entry(untuned).or_insert_with(|| Oracle::new(&manifest, &workload, seed));
        let checked = oracle.check(&workload, &first.left[0]);
        row.ratio = Some(checked.ratio);
        row.nonfinite = !checked.ratio.is_finite();
        row.heads_checked = checked.heads;
        let differ = first.left[0] != first.left[1];
        let promised = manifest.numerics.bitwise.contains(&Promise::Repeat);
        let differs =
            (differ && promised).then(|| "two calls on the same data left other bits".to_owned());
        if let Some(why) = checked.wrong.or(differs) {
            return Err(Box::new(Row { verdict: "wrong".to_owned(), why: Some(why), ..row }));
        }
        let micros = middle(&first.micros).unwrap_or(1.0).max(0.1);
        let (calls, replays) = self.repeats(&workload, index, micros);
        let reading = reading(workload.kv_bytes).or_else(|| self.best_reading(index, &workload));
        row.sets = workload.timing.sets;
        row.calls = calls;
        Ok(Entry {
            trial: index,
            row,
            workload,
            reading,
            replays,
            rounds: Vec::new(),
            reads: Vec::new(),
            telemetry: None,
        })
    }

    /// Calls of a replay, and replays of a round, of a kernel that takes so long.
    fn repeats(&mut self, workload: &Workload, index: usize, micros: f64) -> (u32, u32) {
        let sets = workload.timing.sets as u32;
        let device = self.trials[index].device();
        // So many calls move what the last-level cache holds several times over.
        let fresh = (4 * device.cache_bytes()).div_ceil(workload.kv_bytes.max(1)).max(1) as u32;
        let rotations = (LONG_ENOUGH / (micros * f64::from(sets))).ceil().max(1.0) as u32;
        let most = ((TOO_LONG / micros) as u32).max(fresh.min(sets));
        let calls = if device.cache_bytes() == 0 { 1 } else { (rotations * sets).min(most).max(1) };
        let least = LEAST_SAMPLES.div_ceil(self.options.rounds).min(self.options.replays);
        let fit = (LONG_ROUND / (micros * f64::from(calls))) as u32;
        (calls, fit.clamp(least, self.options.replays))
    }

    /// The fastest way of reading what a kernel reads, where the device has a clock.
    fn best_reading(&mut self, index: usize, workload: &Workload) -> Option<Reading> {
        let device = self.trials[index].device();
        if device.cache_bytes() == 0 || workload.kv_bytes == 0 {
            return None;
        }
        let all = Reading::all();
        let calls = workload.timing.sets as u32;
        let read = |how: &Reading| vec![self.helpers.read(*how, workload.caches.clone())];
        let mut timing = workload.timing.clone();
        timing.subjects = all.iter().map(|how| subject(read(how), calls, 1, 9)).collect();
        timing.outputs = Vec::new();
        let timed = time(&mut self.trials[index], &timing, self.options.time_limit).ok()?;
        fastest(&all, &timed).map(|(how, _)| how)
    }

    fn round(&mut self, entry: &mut Entry, observed: bool) -> Result<(), TrialError> {
        let mut timing = entry.workload.timing.clone();
        let subject = |launches| subject(launches, entry.row.calls, WARM, entry.replays);
        let kernel = subject(entry.workload.launches.clone());
        timing.subjects.push(Subject { observed, ..kernel });
        if let Some(how) = entry.reading {
            let read = self.helpers.read(how, entry.workload.caches.clone());
            timing.subjects.push(subject(vec![read]));
        }
        let trial = &mut self.trials[entry.trial];
        let mut timed = time(trial, &timing, self.options.time_limit)?.into_iter();
        if let Some((micros, captured, telemetry)) = timed.next() {
            entry.rounds.push(micros);
            entry.row.graph = captured;
            entry.telemetry = telemetry.or(entry.telemetry.take());
        }
        if let Some((micros, ..)) = timed.next()
            && let Some(median) = middle(&micros)
        {
            entry.reads.push(median);
            let bytes = entry.workload.kv_bytes;
            self.see(bytes as f64 / median / 1e3, bytes);
        }
        Ok(())
    }
}

impl Entry {
    /// The row of what the rounds came to.
    fn finish(self) -> Row {
        let Entry { mut row, rounds, reads, workload, telemetry, .. } = self;
        row.us = Times::of(&rounds);
        if let Some(us) = &row.us {
            row.verdict = "right".to_owned();
            row.gbs = Some(workload.kv_bytes as f64 / us.median / 1e3);
            row.tokens_per_s = Some(1e6 * workload.case.batch() as f64 / us.median);
            row.read_us = middle(&reads);
            row.of_read = row.read_us.map(|read| read / us.median);
        }
        row.telemetry = telemetry;
        row
    }
}

/// Gives rows their share of the ceiling. One that is faster in all but its fastest replays than reading
/// ever was is wrong, or measures a cache.
pub fn share(rows: &mut [Row], ceiling: Option<&Ceiling>) {
    let Some(ceiling) = ceiling else { return };
    for row in rows {
        let (Some(gbs), Some(us)) = (row.gbs, &row.us) else { continue };
        row.share = Some(gbs / ceiling.gbs);
        let slowest = row.kv_bytes as f64 / us.p95 / 1e3;
        if slowest > ceiling.gbs {
            row.verdict = "impossible".to_owned();
            row.why = Some(format!(
                "{slowest:.0} GB/s even in its slow replays, and the device reads at most {:.0}: it does \
                 not read all of K and V from memory",
                ceiling.gbs
            ));
        }
    }
}

/// What is timed, without a look at the device's clocks.
fn subject(launches: Vec<Launch>, calls: u32, warm: u32, replays: u32) -> Subject {
    Subject { launches, calls, warm, replays, observed: false }
}

/// The fastest of ways of reading that were timed in their order, and its median.
fn fastest(ways: &[Reading], timed: &TimedSubjects) -> Option<(Reading, f64)> {
    let medians = timed.iter().map(|(micros, ..)| middle(micros).unwrap_or(f64::INFINITY));
    ways.iter().copied().zip(medians).min_by(|a, b| a.1.total_cmp(&b.1))
}

/// Times, whether captured, telemetry: of each subject.
type TimedSubjects = Vec<(Vec<f64>, bool, Option<Telemetry>)>;

fn time(trial: &mut Trial, timing: &Timing, limit: Duration) -> Result<TimedSubjects, TrialError> {
    let kernel = trial.manifest().name.clone();
    let timed =
        trial.device().time(timing, limit).map_err(|source| TrialError::Run { kernel, source })?;
    Ok(timed.into_iter().map(|t| (t.micros, t.captured, t.observed)).collect())
}

fn hash_of(module: &Module) -> String {
    module.hash.chars().take(32).collect()
}

fn no_answer(manifest: &Manifest) -> TrialError {
    let source = RunError::Device("nothing was timed".to_owned());
    TrialError::Run { kernel: manifest.name.clone(), source }
}

/// A row of what could not be timed.
fn refused(row: Row, error: TrialError) -> Row {
    Row { verdict: "refused".to_owned(), why: Some(error.to_string()), ..row }
}

/// A row of what a fault ended, or the device refused.
fn fault_of(row: Row, manifest: &Manifest, source: RunError) -> Row {
    if let RunError::Fault(fault) = &source {
        return Row { verdict: "wrong".to_owned(), why: Some(fault.to_string()), ..row };
    }
    refused(row, TrialError::Run { kernel: manifest.name.clone(), source })
}

fn row(manifest: &Manifest, shape: &Shape, case: &Case, by_rule: bool) -> Row {
    Row {
        kernel: manifest.name.clone(),
        shape: shape.name.clone(),
        batch: case.batch(),
        num_heads: case.num_heads,
        num_kv_heads: case.num_kv_heads,
        head_dim: case.head_dim,
        seq_len: case.seq_len(),
        window_len: case.window_len,
        dtype: case.dtypes.to_string(),
        layout: layout(case),
        params: case.params.clone(),
        by_rule,
        ..Row::default()
    }
}
