//! One case on one device: three runs under different poison and thread orders, each judged.

use super::compare::{Comparison, Quantity, compare};
use crate::data::captured::Captured;
use crate::data::image::{Image, Poisons, Stray};
use crate::data::inputs::Inputs;
use crate::data::regimes::{DataError, generate};
use crate::device::{Arg, CompileError, Device, Fault, Module, RunError, Source};
use crate::kernel::{ArgSpec, Denormals, Env, Law, Manifest, PlanError, Pointer, ScratchType};
use crate::oracle::{Arithmetic, Expected};
use crate::problem::{Axis, Case, CaseError, DType, Placement, Placements};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

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
}

/// The buffers of a failing run, each from its first element.
#[derive(Debug, Clone, Default)]
pub struct Buffers {
    /// q as the kernel was given it.
    pub q: Vec<u8>,
    /// k as the kernel was given it.
    pub k: Vec<u8>,
    /// v as the kernel was given it.
    pub v: Vec<u8>,
    /// out as the kernel left it.
    pub out: Vec<u8>,
    /// lse as the kernel left it, where it writes one.
    pub lse: Option<Vec<u8>>,
    /// The sinks, where there are any.
    pub sinks: Option<Vec<u8>>,
}

/// A kernel on a device. Judges one case after another; owned by one thread.
pub struct Trial {
    manifest: Arc<Manifest>,
    captured: Arc<Vec<Captured>>,
    device: Box<dyn Device>,
    time_limit: Duration,
    modules: HashMap<Source, Module>,
    /// The image before the run, to compare with.
    before: Vec<u8>,
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
        }
    }

    /// The kernel's manifest.
    pub fn manifest(&self) -> &Arc<Manifest> {
        &self.manifest
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
        let places = case.placements()?;
        let env = Env::new(case, &places);
        let scratch: Vec<_> = self
            .manifest
            .scratch_sizes(&env)?
            .into_iter()
            .map(|s| (s.name.clone(), poison_type(s.dtype), s.elements))
            .collect();
        let image = Image::new(case, &places, &scratch)
            .ok_or(TrialError::TooLarge { need: u128::MAX >> 20, limit: free_memory() >> 20 })?;
        let module = self.module(self.manifest.source(&env)?)?;
        let manifest = Arc::clone(&self.manifest);
        let launches = manifest
            .launches(&env, &module, &|arg| address(&manifest, arg, case, &places, &image))?;
        let judges_lse = manifest.takes(Pointer::Lse);
        let exact = manifest.numerics.bitwise.contains(&Law::Repeat);

        let mut first: Option<Vec<u8>> = None;
        let mut passed = Passed::default();
        for (run, poisons) in Poisons::RUNS.into_iter().enumerate() {
            let order_seed = case.order_seed.wrapping_add(run as u64);
            self.before.resize(image.size(), 0);
            image.write(case, &places, inputs, poisons, &mut self.before);
            let refused = |source| TrialError::Run { kernel: manifest.name.clone(), source };
            self.device.arena(image.size()).map_err(refused)?.copy_from_slice(&self.before);
            let fault = match self.device.run(&launches, order_seed, self.time_limit) {
                Ok(()) => None,
                Err(RunError::Fault(fault)) => Some(fault),
                Err(other) => return Err(refused(other)),
            };
            let after: &[u8] = match &fault {
                Some(_) => &self.before,
                None => self.device.arena(image.size()).map_err(refused)?,
            };
            let failed = |property, detail, comparison: Option<Comparison>, after: &[u8]| {
                let cut = |name: &str, from: &[u8]| {
                    image.buffer(name).map(|b| from[b.range.clone()].to_vec())
                };
                let buffers = Buffers {
                    q: cut("q", &self.before).unwrap_or_default(),
                    k: cut("k", &self.before).unwrap_or_default(),
                    v: cut("v", &self.before).unwrap_or_default(),
                    out: cut("out", after).unwrap_or_default(),
                    lse: if judges_lse { cut("lse", after) } else { None },
                    sinks: cut("sinks", &self.before),
                };
                let failure =
                    Failure { property, detail, comparison, run, poisons, order_seed, buffers };
                Ok(Outcome::Failed(Box::new(failure)))
            };
            if let Some(fault) = fault {
                let (property, detail) = fault_in_words(&fault, &image);
                return failed(property, detail, None, after);
            }
            if let Some(Stray { place, .. }) = image.stray_write(&self.before, after) {
                return failed("stray-write", format!("the kernel wrote {place}"), None, after);
            }
            let comparison = compare(case, &image, after, &expected, judges_lse);
            if !comparison.is_right() {
                let property = match comparison.quantity {
                    Quantity::Out => "oracle",
                    Quantity::Lse => "oracle/lse",
                };
                let detail = wrong_in_words(&comparison, poisons);
                return failed(property, detail, Some(comparison), after);
            }
            passed.ratio = passed.ratio.max(comparison.ratio);
            passed.runs += 1;
            if exact {
                let mut bits = image.out_bytes(after);
                if judges_lse {
                    bits.extend_from_slice(image.lse_bytes(after));
                }
                match &first {
                    None => first = Some(bits),
                    Some(first) if *first != bits => {
                        let detail = repeat_in_words(case, first, &bits);
                        return failed("repeat", detail, Some(comparison), after);
                    }
                    Some(_) => {}
                }
            }
        }
        // A vacuous case was run all the same: it may crash, or write where it must not.
        Ok(expected.vacuous().map_or(Outcome::Passed(passed), Outcome::Vacuous))
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

/// MiB that a case may take without asking the system what is free, as almost all do.
const ALWAYS_THERE: u128 = 256;

/// Refuses a case before its data would exhaust the machine.
///
/// # Errors
/// [`TrialError::TooLarge`] or [`TrialError::Case`].
pub fn fits_in_memory(case: &Case) -> Result<(), TrialError> {
    let places = case.placements()?;
    let (kv, q) = (case.dtypes.kv.size() as u128, case.dtypes.q.size() as u128);
    // The image twice (before and after), the dense values with their bytes, the oracle's view.
    let span = |p: &Placement| p.span() as u128;
    let image =
        2 * ((span(&places.k) + span(&places.v)) * kv + (span(&places.q) + span(&places.out)) * 4);
    let keys: u128 = case.seq_lens.iter().map(|n| *n as u128).sum();
    let dense =
        keys * case.num_kv_heads as u128 * (case.head_dim + case.head_dim_v) as u128 * (4 + kv);
    let rows = case.batch() as u128 * case.num_heads as u128;
    let outputs = rows * (case.head_dim as u128 * (4 + q) + case.head_dim_v as u128 * 24);
    let need = (image + dense + outputs) >> 20;
    if need <= ALWAYS_THERE {
        return Ok(());
    }
    let limit = free_memory() >> 20;
    if need > limit { Err(TrialError::TooLarge { need, limit }) } else { Ok(()) }
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
        ArgSpec::Pointer(Pointer::Q) => image.element("q", places.q.offset()),
        ArgSpec::Pointer(Pointer::Out) => image.element("out", places.out.offset()),
        ArgSpec::Pointer(Pointer::Sinks) if !case.sinks => return Ok(Arg::Null),
        ArgSpec::Pointer(p) => match image.buffer(p.name()) {
            Some(buffer) => buffer.range.start,
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
    }
}

fn wrong_in_words(c: &Comparison, poisons: Poisons) -> String {
    let what = match c.quantity {
        Quantity::Out => format!("out[{}, {}, {}]", c.at.batch, c.at.head, c.at.d),
        Quantity::Lse => format!("lse[{}, {}]", c.at.batch, c.at.head),
    };
    format!(
        "{what} is {:.9e}, must be {:.9e} within {:.2e} ({} elements wrong; poison {poisons})",
        c.got, c.want, c.bound, c.wrong
    )
}

fn repeat_in_words(case: &Case, first: &[u8], again: &[u8]) -> String {
    let at = first.iter().zip(again).position(|(a, b)| a != b).unwrap_or(0);
    let row = case.head_dim_v * case.dtypes.out.size();
    let rows = case.batch() * case.num_heads;
    let what = if at < rows * row {
        let (row, d) = (at / row, at % row / case.dtypes.out.size());
        format!("out[{}, {}, {d}]", row / case.num_heads, row % case.num_heads)
    } else {
        "lse".to_owned()
    };
    format!(
        "{what} has other bits on a repeat with another order of threads and other poison in what \
         the kernel must not read"
    )
}
