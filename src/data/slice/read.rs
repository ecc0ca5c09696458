//! From a file's strings and tensors to a typed slice.

use super::error::{SliceError, SliceProblem};
use super::header::{self, RawTensor};
use super::{IntTensor, KvSlice, Promises, Raw, Tensor, from_safetensors, sanitise};
use crate::problem::{DType, Layout, clip};
use safetensors::Dtype;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::str::FromStr;

/// Every metadata key that is read.
pub(super) const KEYS: [&str; 41] = [
    "format",
    "model",
    "prompt_id",
    "phase",
    "layer",
    "pos_id",
    "seq_len",
    "capacity",
    "num_heads",
    "num_kv_heads",
    "head_dim",
    "head_dim_v",
    "scale",
    "k_layout",
    "v_layout",
    "window_len",
    "softcap",
    "page_size",
    "x",
    "k_scale",
    "v_scale",
    "engine",
    "layers",
    "accumulate",
    "probs",
    "exp_ulp",
    "q_strides",
    "k_strides",
    "v_strides",
    "out_strides",
    "q_offset",
    "k_offset",
    "v_offset",
    "out_offset",
    "kernel",
    "params",
    "wave",
    "seed",
    "order_seed",
    "case",
    "property",
];

/// Every tensor that is read.
pub(super) const TENSORS: [&str; 12] = [
    "q",
    "k",
    "v",
    "out",
    "probs",
    "scores",
    "lse",
    "sinks",
    "new_k",
    "new_v",
    "page_table",
    "seq_lens",
];

impl KvSlice {
    /// Reads and checks a file. Memory: the header and the tensors.
    ///
    /// # Errors
    /// [`SliceError`], naming the file.
    pub fn read(path: &Path) -> Result<KvSlice, SliceError> {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        let open = || {
            let io = |source| SliceProblem::Io { action: "open", source };
            // Looked at before it is opened: opening a pipe would wait for a writer.
            let meta = std::fs::metadata(path).map_err(io)?;
            if !meta.is_file() {
                return Err(SliceProblem::NotAFile);
            }
            Self::from_reader(&stem, &mut File::open(path).map_err(io)?, meta.len())
        };
        open().map_err(|p| SliceError::new(path.display().to_string(), p))
    }

    /// Reads and checks a file that is in memory. `name` is its stem.
    ///
    /// # Errors
    /// [`SliceError`], naming it by `name`.
    pub fn from_bytes(name: &str, mut bytes: &[u8]) -> Result<KvSlice, SliceError> {
        let len = bytes.len() as u64;
        Self::from_reader(name, &mut bytes, len).map_err(|p| SliceError::new(name, p))
    }

    fn from_reader(name: &str, reader: &mut impl Read, len: u64) -> Result<Self, SliceProblem> {
        let container = header::read(reader, len)?;
        let mut keys = Keys { map: container.metadata };
        let mut tensors = Tensors { map: container.tensors };
        keys.format()?;
        let slice = KvSlice {
            name: sanitise(name),
            model: keys.required("model")?,
            prompt_id: keys.required("prompt_id")?,
            phase: keys.required("phase")?,
            layer: keys.count("layer")?,
            pos_id: keys.count("pos_id")?,
            seq_len: keys.count("seq_len")?,
            capacity: keys.count("capacity")?,
            num_heads: keys.count("num_heads")?,
            num_kv_heads: keys.count("num_kv_heads")?,
            head_dim: keys.count("head_dim")?,
            head_dim_v: keys.optional("head_dim_v", count)?,
            scale: keys
                .optional("scale", float)?
                .ok_or(SliceProblem::MissingKey { key: "scale" })?,
            k_layout: keys.layout("k_layout")?,
            v_layout: keys.layout("v_layout")?,
            window_len: keys.optional("window_len", count)?,
            softcap: keys.optional("softcap", float)?,
            page_size: keys.optional("page_size", count)?,
            x: keys.optional("x", count)?,
            k_scale: keys.optional("k_scale", float)?,
            v_scale: keys.optional("v_scale", float)?,
            engine: keys.map.remove("engine"),
            layers: keys.optional("layers", count)?,
            accumulate: keys.optional("accumulate", promise)?,
            probs_type: keys.optional("probs", promise)?,
            exp_ulp: keys.optional("exp_ulp", float)?,
            q_raw: keys.raw("q_strides", "q_offset")?,
            k_raw: keys.raw("k_strides", "k_offset")?,
            v_raw: keys.raw("v_strides", "v_offset")?,
            out_raw: keys.raw("out_strides", "out_offset")?,
            kernel: keys.map.remove("kernel"),
            params: keys.optional("params", params)?,
            wave: keys.optional("wave", wave)?,
            seed: keys.optional("seed", seed)?,
            order_seed: keys.optional("order_seed", seed)?,
            case: keys.map.remove("case"),
            property: keys.map.remove("property"),
            q: tensors.required("q")?,
            k: tensors.required("k")?,
            v: tensors.required("v")?,
            out: tensors.required("out")?,
            probs: tensors.floats("probs")?,
            scores: tensors.floats("scores")?,
            lse: tensors.floats("lse")?,
            sinks: tensors.floats("sinks")?,
            new_k: tensors.floats("new_k")?,
            new_v: tensors.floats("new_v")?,
            page_table: tensors.ints("page_table")?,
            lens: tensors.lens()?,
            extra: keys.map,
            extra_tensors: tensors.map,
        };
        slice.check()?;
        Ok(slice)
    }
}

/// The metadata; what was read is taken out.
struct Keys {
    map: BTreeMap<String, String>,
}

type Parse<T> = fn(&'static str, &str) -> Result<T, SliceProblem>;

impl Keys {
    fn format(&mut self) -> Result<(), SliceProblem> {
        let found = self.required("format")?;
        if found == super::write::FORMAT {
            return Ok(());
        }
        let version = found.strip_prefix("kv-slice/").map(|v| v.parse::<u32>());
        let found = clip(&found);
        Err(match version {
            Some(Ok(_)) => SliceProblem::Version { found },
            _ => SliceProblem::Format { found },
        })
    }

    fn required(&mut self, key: &'static str) -> Result<String, SliceProblem> {
        self.map.remove(key).ok_or(SliceProblem::MissingKey { key })
    }

    fn optional<T>(&mut self, key: &'static str, f: Parse<T>) -> Result<Option<T>, SliceProblem> {
        self.map.remove(key).map(|text| f(key, &text)).transpose()
    }

    fn count(&mut self, key: &'static str) -> Result<usize, SliceProblem> {
        count(key, &self.required(key)?)
    }

    fn layout(&mut self, key: &'static str) -> Result<Layout, SliceProblem> {
        let text = self.required(key)?;
        clip(&text).parse().map_err(|source| SliceProblem::Layout { key, source })
    }

    fn raw(
        &mut self,
        strides_key: &'static str,
        offset_key: &'static str,
    ) -> Result<Option<Raw>, SliceProblem> {
        let strides = self.optional(strides_key, strides)?;
        let offset = self.optional(offset_key, count)?;
        Ok((strides.is_some() || offset.is_some()).then_some(Raw { strides, offset }))
    }
}

fn value(key: &str, text: &str, want: &'static str) -> SliceProblem {
    SliceProblem::Value { key: key.to_owned(), value: clip(text), want }
}

/// Digits only: `+5`, ` 5` and `5.0` were written by something that misunderstood the format.
fn digits<T: FromStr>(key: &str, text: &str, want: &'static str) -> Result<T, SliceProblem> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|_| plain).ok_or_else(|| value(key, text, want))
}

fn count(key: &'static str, text: &str) -> Result<usize, SliceProblem> {
    digits(key, text, "a decimal number from 0 to 2^64 - 1, digits only")
}

fn seed(key: &'static str, text: &str) -> Result<u64, SliceProblem> {
    digits(key, text, "a decimal number from 0 to 2^64 - 1, digits only")
}

fn wave(key: &'static str, text: &str) -> Result<u32, SliceProblem> {
    digits(key, text, "32 or 64")
}

/// A number; whether it is finite is checked with the other fields.
fn float(key: &'static str, text: &str) -> Result<f64, SliceProblem> {
    text.parse().map_err(|_| value(key, text, "a decimal number such as 0.125"))
}

/// What the kernel promises, where at least one key says so: the others are then the defaults.
pub(super) fn promises(
    map: &mut BTreeMap<String, String>,
) -> Result<Option<Promises>, SliceProblem> {
    let mut keys = Keys { map: std::mem::take(map) };
    let accumulate = keys.optional("accumulate", promise)?;
    let probs = keys.optional("probs", promise)?;
    let exp_ulp = keys.optional("exp_ulp", float)?;
    *map = keys.map;
    if let Some(ulp) = exp_ulp.filter(|ulp| !(ulp.is_finite() && *ulp >= 0.0)) {
        return Err(value("exp_ulp", &ulp.to_string(), "a number that is not negative"));
    }
    let default = Promises::default();
    let told = accumulate.is_some() || probs.is_some() || exp_ulp.is_some();
    Ok(told.then(|| Promises {
        accumulate: accumulate.unwrap_or(default.accumulate),
        probs: probs.unwrap_or(default.probs),
        exp_ulp: exp_ulp.unwrap_or(default.exp_ulp),
    }))
}

fn promise(key: &'static str, text: &str) -> Result<DType, SliceProblem> {
    text.parse()
        .ok()
        .filter(|d: &DType| d.is_driven())
        .ok_or_else(|| value(key, text, "f32, f16 or bf16"))
}

fn strides(key: &'static str, text: &str) -> Result<Vec<usize>, SliceProblem> {
    serde_json::from_str(text)
        .map_err(|_| value(key, text, "a JSON array of strides in elements, none negative"))
}

fn params(key: &'static str, text: &str) -> Result<BTreeMap<String, i64>, SliceProblem> {
    serde_json::from_str(text).map_err(|_| value(key, text, "a JSON object of integers"))
}

/// The tensors; what was read is taken out.
struct Tensors {
    map: BTreeMap<String, RawTensor>,
}

impl Tensors {
    fn required(&mut self, tensor: &'static str) -> Result<Tensor, SliceProblem> {
        let why = "; a slice has q, k, v and out";
        self.floats(tensor)?.ok_or(SliceProblem::MissingTensor { tensor, why })
    }

    fn floats(&mut self, tensor: &'static str) -> Result<Option<Tensor>, SliceProblem> {
        let Some(RawTensor { dtype: stored, shape, bytes }) = self.map.remove(tensor) else {
            return Ok(None);
        };
        let dtype = from_safetensors(stored).ok_or_else(|| SliceProblem::ElementType {
            tensor,
            dtype: stored.to_string(),
            allowed: "F64, F32, F16, BF16, F8_E4M3, F8_E5M2, F8_E4M3FNUZ or F8_E5M2FNUZ",
        })?;
        Ok(Some(Tensor { dtype, shape, bytes }))
    }

    fn ints(&mut self, tensor: &'static str) -> Result<Option<IntTensor>, SliceProblem> {
        let Some(RawTensor { dtype, shape, bytes }) = self.map.remove(tensor) else {
            return Ok(None);
        };
        if dtype != Dtype::I32 {
            let dtype = dtype.to_string();
            return Err(SliceProblem::ElementType { tensor, dtype, allowed: "I32" });
        }
        let (words, _) = bytes.as_chunks::<4>();
        let values = words.iter().map(|word| i32::from_le_bytes(*word)).collect();
        Ok(Some(IntTensor { shape, values }))
    }

    fn lens(&mut self) -> Result<Option<Vec<i32>>, SliceProblem> {
        let Some(tensor) = self.ints("seq_lens")? else { return Ok(None) };
        if tensor.shape.len() != 1 {
            let want = "[batch]".to_owned();
            return Err(SliceProblem::Shape { tensor: "seq_lens", stored: tensor.shape, want });
        }
        Ok(Some(tensor.values))
    }
}
