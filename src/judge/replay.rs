//! Failing cases as files: saved as kv-slices, run again to the same bits.

use super::diagnose::saved::{DETAIL, RUN, UNFINISHED};
use super::sanitize::Found;
use super::sweep::{Finding, depends_on_lanes};
use super::trial::{Failure, Outcome, Trial, TrialError};
use crate::data::captured::inputs_of;
use crate::data::generate::of_stage;
use crate::data::slice::{KvSlice, Promises, Saved, SliceError, StageSlice};
use crate::kernel::Manifest;
use crate::problem::{Case, CaseError, Stage};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Metadata key, ours beside the contract's: the poison of the failing run.
const POISON: &str = "poison";

/// Saves a finding in `folder`, which is made where it is missing: a decode step as a kv-slice, a
/// case of another stage as a [`StageSlice`]. `kernel` is how `replay` finds the kernel again: a
/// built-in name or the path of a manifest.
///
/// # Errors
/// [`SliceError`]: the folder cannot be written, or the case cannot be saved.
pub fn save(
    folder: &Path,
    kernel: &str,
    manifest: &Manifest,
    finding: &Finding,
) -> Result<PathBuf, SliceError> {
    let Finding { case, failure, .. } = finding;
    let id = case.to_string();
    // Two findings of a class may shrink to the same case.
    let found: String = failure.found.iter().map(Found::key).collect();
    let hash = blake3::hash(format!("{id}{found}").as_bytes()).to_hex();
    let name = format!("{}-{}-{}", manifest.name, failure.property.replace('/', "-"), &hash[..8]);
    // A folder that cannot be made is reported by the write.
    let _ = std::fs::create_dir_all(folder);
    let path = folder.join(format!("{name}.safetensors"));
    let mut extra = BTreeMap::from([
        (POISON.to_owned(), failure.poisons.to_string()),
        (DETAIL.to_owned(), failure.detail.clone()),
    ]);
    let b = &failure.buffers;
    if b.after.is_empty() {
        extra.insert(RUN.to_owned(), UNFINISHED.to_owned());
    }
    let n = &manifest.numerics;
    let promises = Promises {
        accumulate: n.accumulate,
        probs: n.probs_with(case.dtypes.kv),
        exp_ulp: n.exp_ulp,
    };
    if case.stage != Stage::Decode {
        let slice = StageSlice {
            case: case.clone(),
            kernel: kernel.to_owned(),
            property: failure.property.to_owned(),
            extra,
            promises: Some(promises),
            before: b.before.clone(),
            after: b.after.clone(),
        };
        slice.write(&path)?;
        return Ok(path);
    }
    let before = |name: &str| b.before.get(name).map_or(&[][..], |bytes| &bytes[..]);
    let mut slice = KvSlice::from_case(
        &name,
        &Saved {
            case,
            kernel,
            property: failure.property,
            q: before("q"),
            k: before("k"),
            v: before("v"),
            // Where the run did not end, the output is as it was before it.
            out: b.after.get("out").map_or(before("out"), |bytes| &bytes[..]),
            lse: b.after.get("lse").map(|bytes| &bytes[..]),
            sinks: b.before.get("sinks").map(|bytes| &bytes[..]),
            promises: Some(promises),
        },
    )?;
    slice.extra.extend(extra);
    slice.write(&path)?;
    Ok(path)
}

/// What a file holds.
pub enum File {
    /// A decode step: saved by a sweep, or captured.
    Kv(Box<KvSlice>),
    /// A case of another stage, saved by a sweep.
    Stage(Box<StageSlice>),
}

/// A case ready to be run again.
pub struct Recorded {
    /// The file's contents.
    pub file: File,
    /// The case: as saved, or for a capture as the slice poses it.
    pub case: Case,
    /// The kernel that it was saved for, if any.
    pub kernel: Option<String>,
}

/// Why a file cannot be replayed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// The file is no valid slice.
    #[error(transparent)]
    Slice(#[from] SliceError),
    /// The case id in it cannot be read.
    #[error("{file}: {source}")]
    Case {
        /// The file.
        file: String,
        /// What is wrong with the id.
        source: CaseError,
    },
    /// The case id in it is of other extents than its tensors.
    #[error(
        "{file}: its `case` is {case}, but its tensors are {posed}; save the case again with `sweep`"
    )]
    Mismatch {
        /// The file.
        file: String,
        /// The case in its metadata.
        case: String,
        /// The case that its tensors pose.
        posed: String,
    },
}

/// Reads a saved case, or a capture.
///
/// # Errors
/// [`ReplayError`].
pub fn load(path: &Path) -> Result<Recorded, ReplayError> {
    if let Some(slice) = StageSlice::read(path)? {
        let (kernel, case) = (Some(slice.kernel.clone()), slice.case.clone());
        return Ok(Recorded { kernel, case, file: File::Stage(Box::new(slice)) });
    }
    let slice = KvSlice::read(path)?;
    let posed = slice.to_case()?;
    let file = || path.display().to_string();
    let case: Case = match &slice.case {
        None => posed,
        Some(id) => {
            let case: Case =
                id.parse().map_err(|source| ReplayError::Case { file: file(), source })?;
            let extents = |c: &Case| {
                let heads = (c.num_heads, c.num_kv_heads, c.head_dim, c.head_dim_v);
                (c.seq_lens.clone(), c.capacity, heads, c.layers, c.layer, c.sinks)
            };
            if extents(&case) != extents(&posed) {
                let (case, posed) = (id.clone(), posed.to_string());
                return Err(ReplayError::Mismatch { file: file(), case, posed });
            }
            case
        }
    };
    Ok(Recorded { kernel: slice.kernel.clone(), case, file: File::Kv(Box::new(slice)) })
}

/// What a replay showed.
#[derive(Debug)]
pub struct Replayed {
    /// The outcome of the case now.
    pub outcome: Outcome,
    /// Whether the failing run left the same bits as the saved one; `None` where there is nothing
    /// to compare (a capture, or a run without an output).
    pub same_bits: Option<bool>,
    /// Whether the case, which fails, passes where the lanes of a wave advance in lockstep.
    pub passes_in_lockstep: bool,
}

impl Recorded {
    /// Whether it is a capture of an engine's, and not a case that a sweep saved.
    pub fn is_capture(&self) -> bool {
        matches!(&self.file, File::Kv(slice) if slice.case.is_none())
    }

    /// Whether what it was saved for was found by the checker.
    pub fn was_checked(&self) -> bool {
        let property = match &self.file {
            File::Kv(slice) => slice.property.as_deref(),
            File::Stage(slice) => Some(slice.property.as_str()),
        };
        property.is_some_and(|property| property.starts_with("sanitize/"))
    }

    /// Runs the case again on the file's own tensors.
    ///
    /// # Errors
    /// [`TrialError`] where it cannot be run, [`SliceError`] where its tensors cannot be read.
    pub fn replay(&self, trial: &mut Trial) -> Result<Replayed, ReplayFailure> {
        let inputs = match &self.file {
            File::Kv(slice) => of_stage(&self.case, inputs_of(slice, &self.case)?),
            File::Stage(slice) => slice.inputs()?,
        };
        let outcome = trial.judge_inputs(&self.case, &inputs)?;
        let same_bits = match &outcome {
            Outcome::Failed(failure) if failure.comparison.is_some() => self.same_bits(failure),
            _ => None,
        };
        let passes_in_lockstep = match &outcome {
            Outcome::Failed(f) if depends_on_lanes(f.property) => {
                trial.passes_in_lockstep(&self.case, &inputs)
            }
            _ => false,
        };
        Ok(Replayed { outcome, same_bits, passes_in_lockstep })
    }

    fn same_bits(&self, failure: &Failure) -> Option<bool> {
        let now = &failure.buffers.after;
        match &self.file {
            File::Kv(slice) => slice.case.as_ref().map(|_| {
                let lse = slice.lse.as_ref().map(|t| &t.bytes);
                now.get("out") == Some(&slice.out.bytes) && now.get("lse") == lse
            }),
            File::Stage(slice) => Some(*now == slice.after),
        }
    }
}

/// Why a replay has no outcome.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayFailure {
    /// The case could not be run.
    #[error(transparent)]
    Trial(#[from] TrialError),
    /// The file's tensors cannot be read.
    #[error(transparent)]
    Slice(#[from] SliceError),
}
