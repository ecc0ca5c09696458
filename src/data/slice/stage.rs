//! `stage-slice/1`: a failing case of a stage that is no decode step.
//!
//! A kv-slice holds what an engine's decode step has. Scores without values, parts to be merged or
//! a residual stream have no place there, so their failing cases are saved beside it: one
//! safetensors file whose metadata has `format`, `kernel`, `case` (the id) and `property`, with the
//! stage's tensors as raw buffers, `before/NAME` as the kernel was given them and `after/NAME` as
//! it left them. The id says where each element lies. `accumulate`, `probs` and `exp_ulp` are what the
//! kernel promises, as in a kv-slice, and may be missing.

use super::error::{SliceError, SliceProblem};
use super::header::{self, Entry};
use super::read::promises;
use super::write::{number, write_whole};
use super::{Promises, from_safetensors, to_safetensors};
use crate::data::inputs::Inputs;
use crate::problem::{Case, Pointer, Tensor};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

const FORMAT: &str = "stage-slice/1";

/// A failing case of any stage, with its buffers.
#[derive(Debug, Clone, PartialEq)]
pub struct StageSlice {
    /// The case.
    pub case: Case,
    /// How the kernel is found again: a built-in name or the path of a manifest.
    pub kernel: String,
    /// The property that failed.
    pub property: String,
    /// More to be told, by name.
    pub extra: BTreeMap<String, String>,
    /// What the kernel promises, where the file says it.
    pub promises: Option<Promises>,
    /// The stage's tensors as the kernel was given them, by name: raw buffers.
    pub before: BTreeMap<String, Vec<u8>>,
    /// Its outputs as the kernel left them.
    pub after: BTreeMap<String, Vec<u8>>,
}

impl StageSlice {
    /// Writes the file whole or not at all.
    ///
    /// # Errors
    /// [`SliceError`]: an impossible case, or a file that cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), SliceError> {
        let write = || {
            let tensors = self.tensors()?;
            let mut metadata = self.extra.clone();
            for (key, value) in [
                ("format", FORMAT),
                ("kernel", &self.kernel),
                ("property", &self.property),
                ("case", &self.case.to_string()),
            ] {
                metadata.insert(key.to_owned(), value.to_owned());
            }
            if let Some(Promises { accumulate, probs, exp_ulp }) = self.promises {
                for (key, value) in [
                    ("accumulate", accumulate.to_string()),
                    ("probs", probs.to_string()),
                    ("exp_ulp", number(exp_ulp)),
                ] {
                    metadata.insert(key.to_owned(), value);
                }
            }
            let named = |prefix: &str, buffers: &BTreeMap<String, Vec<u8>>| -> Vec<String> {
                buffers.keys().map(|name| format!("{prefix}/{name}")).collect()
            };
            let names = [named("before", &self.before), named("after", &self.after)].concat();
            let buffers = self.before.iter().chain(&self.after);
            let mut entries = Vec::new();
            for (name, (short, bytes)) in names.iter().zip(buffers) {
                let tensor =
                    tensors.iter().find(|t| t.pointer.name() == short).ok_or_else(|| {
                        SliceProblem::Unsavable(format!("the stage has no tensor `{short}`"))
                    })?;
                let shape = Cow::Owned(vec![bytes.len() / tensor.dtype.size()]);
                let dtype = to_safetensors(tensor.dtype);
                entries.push(Entry { name, dtype, shape, bytes: Cow::Borrowed(&bytes[..]) });
            }
            let head = header::render(&metadata, &mut entries);
            write_whole(path, &head, &entries)
        };
        write().map_err(|p| SliceError::new(path.display().to_string(), p))
    }

    /// Reads a file; `None` where it is of another format.
    ///
    /// # Errors
    /// [`SliceError`]: no safetensors file, or one of this format that is broken.
    pub fn read(path: &Path) -> Result<Option<StageSlice>, SliceError> {
        let read = || {
            let io = |source| SliceProblem::Io { action: "open", source };
            let meta = std::fs::metadata(path).map_err(io)?;
            if !meta.is_file() {
                return Err(SliceProblem::NotAFile);
            }
            let mut container = header::read(&mut File::open(path).map_err(io)?, meta.len())?;
            if container.metadata.remove("format").as_deref() != Some(FORMAT) {
                return Ok(None);
            }
            let mut take = |key: &'static str| {
                container.metadata.remove(key).ok_or(SliceProblem::MissingKey { key })
            };
            let (kernel, property) = (take("kernel")?, take("property")?);
            let case: Case = take("case")?.parse()?;
            let promises = promises(&mut container.metadata)?;
            let mut slice = StageSlice {
                case,
                kernel,
                property,
                extra: container.metadata,
                promises,
                before: BTreeMap::new(),
                after: BTreeMap::new(),
            };
            let tensors = slice.tensors()?;
            for (name, raw) in container.tensors {
                let (buffers, short) = match name.split_once('/') {
                    Some(("before", short)) => (&mut slice.before, short),
                    Some(("after", short)) => (&mut slice.after, short),
                    _ => continue,
                };
                let wrong = |why: String| SliceProblem::TensorEntry { tensor: name.clone(), why };
                let tensor = tensors
                    .iter()
                    .find(|t| t.pointer.name() == short)
                    .ok_or_else(|| wrong("the case's stage has no such tensor".to_owned()))?;
                if from_safetensors(raw.dtype) != Some(tensor.dtype) {
                    return Err(wrong(format!(
                        "it is {:?}, but the case has {}",
                        raw.dtype, tensor.dtype
                    )));
                }
                let need = tensor.place.span() * tensor.dtype.size();
                if raw.bytes.len() != need {
                    return Err(wrong(format!(
                        "it has {} bytes, but the case's has {need}",
                        raw.bytes.len()
                    )));
                }
                buffers.insert(short.to_owned(), raw.bytes);
            }
            for port in slice.case.stage.ports().iter().filter(|p| p.read && p.required) {
                if !slice.before.contains_key(port.pointer.name()) {
                    let tensor = format!("before/{}", port.pointer);
                    let why = "the file lacks it; save the case again with `sweep`".to_owned();
                    return Err(SliceProblem::TensorEntry { tensor, why });
                }
            }
            Ok(Some(slice))
        };
        read().map_err(|p| SliceError::new(path.display().to_string(), p))
    }

    /// The inputs that the buffers hold.
    ///
    /// # Errors
    /// [`SliceError`] where the case cannot be placed.
    pub fn inputs(&self) -> Result<Inputs, SliceError> {
        let tensors = self.tensors().map_err(|p| SliceError::new(self.case.to_string(), p))?;
        let mut inputs = Inputs::default();
        for tensor in &tensors {
            let read = self.case.stage.port(tensor.pointer).is_some_and(|p| p.read);
            let float = !matches!(tensor.pointer, Pointer::SeqLens | Pointer::Pos);
            let Some(bytes) = self.before.get(tensor.pointer.name()).filter(|_| read && float)
            else {
                continue;
            };
            let layered = matches!(tensor.pointer, Pointer::K | Pointer::V);
            let layer = if layered { self.case.layer } else { 0 };
            let dim = tensor.shape.dim;
            inputs.put(&self.case, tensor.pointer, |s, h, rows| {
                for (n, row) in rows.chunks_exact_mut(dim).enumerate() {
                    for (d, x) in row.iter_mut().enumerate() {
                        let at = tensor.place.index(s, layer, h, n, d);
                        *x = tensor.dtype.load(bytes, at) as f32;
                    }
                }
            });
        }
        Ok(inputs)
    }

    fn tensors(&self) -> Result<Vec<Tensor>, SliceProblem> {
        let places = self.case.placements()?;
        let unsavable = |e: crate::problem::LayoutError| SliceProblem::Unsavable(e.to_string());
        self.case.tensors(&places).map_err(unsavable)
    }
}
