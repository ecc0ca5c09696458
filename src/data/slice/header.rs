//! The safetensors container: eight bytes of header length, a JSON header, the tensors.
//!
//! The types are the `safetensors` crate's. Reading goes through a plain reader so that nothing but
//! the header and the tensors is ever held; writing orders everything, so that equal content gives
//! equal bytes (the crate keeps metadata in a hash map, whose order changes from run to run).

use super::error::SliceProblem;
use crate::problem::clip;
use safetensors::Dtype;
use safetensors::tensor::TensorInfo;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::io::Read;

/// Real headers take under a kilobyte; this leaves room for long ids and parameters.
pub(super) const MAX_HEADER: u64 = 16 << 20;
const PREFIX: u64 = 8;
const METADATA: &str = "__metadata__";

/// A tensor as the container holds it.
#[derive(Debug, Clone, PartialEq)]
pub struct RawTensor {
    /// safetensors' element type.
    pub dtype: Dtype,
    /// Extents, outermost first.
    pub shape: Vec<usize>,
    /// Little-endian elements, row-major.
    pub bytes: Vec<u8>,
}

/// What a file holds, before its meaning is looked at.
pub(super) struct Container {
    pub metadata: BTreeMap<String, String>,
    pub tensors: BTreeMap<String, RawTensor>,
}

/// Reads a container of `len` bytes.
pub(super) fn read(reader: &mut impl Read, len: u64) -> Result<Container, SliceProblem> {
    let mut prefix = [0u8; PREFIX as usize];
    if len < PREFIX {
        return Err(SliceProblem::NotSafetensors { why: format!("it has only {len} bytes") });
    }
    let io = |source| SliceProblem::Io { action: "read", source };
    reader.read_exact(&mut prefix).map_err(io)?;
    let header_len = u64::from_le_bytes(prefix);
    if header_len > len - PREFIX {
        return Err(SliceProblem::HeaderBeyondFile { header: header_len, file_len: len });
    }
    if header_len > MAX_HEADER {
        return Err(SliceProblem::HeaderTooLarge { header: header_len, limit: MAX_HEADER });
    }
    let header = take(reader, header_len, "header")?;
    if header.first() != Some(&b'{') {
        return Err(SliceProblem::NotSafetensors {
            why: "its header does not start with {".into(),
        });
    }
    let mut entries: Map<String, Value> =
        serde_json::from_slice(&header).map_err(|source| SliceProblem::HeaderJson { source })?;
    let metadata = strings(entries.remove(METADATA))?;
    let infos = tensor_infos(entries)?;
    let data = infos.last().map_or(0, |(_, info)| info.data_offsets.1 as u64);
    let have = len - PREFIX - header_len;
    if data > have {
        let need = data.saturating_add(PREFIX + header_len);
        return Err(SliceProblem::Truncated { need, have: len });
    }
    if data < have {
        return Err(SliceProblem::Trailing { extra: have - data });
    }
    let mut tensors = BTreeMap::new();
    for (name, TensorInfo { dtype, shape, data_offsets: (from, to) }) in infos {
        let bytes = take(reader, (to - from) as u64, &name)?;
        tensors.insert(name, RawTensor { dtype, shape, bytes });
    }
    Ok(Container { metadata, tensors })
}

/// Reads exactly `len` bytes; the caller knows that the file has them.
fn take(reader: &mut impl Read, len: u64, what: &str) -> Result<Vec<u8>, SliceProblem> {
    let mut bytes = Vec::new();
    let too_large = || SliceProblem::OutOfMemory { tensor: clip(what), bytes: len };
    bytes
        .try_reserve_exact(usize::try_from(len).map_err(|_| too_large())?)
        .map_err(|_| too_large())?;
    let got = reader
        .take(len)
        .read_to_end(&mut bytes)
        .map_err(|source| SliceProblem::Io { action: "read", source })?;
    if (got as u64) < len {
        return Err(SliceProblem::Truncated { need: len, have: got as u64 });
    }
    Ok(bytes)
}

fn strings(metadata: Option<Value>) -> Result<BTreeMap<String, String>, SliceProblem> {
    let problem = |what: String| SliceProblem::Metadata { what };
    let Some(metadata) = metadata else { return Err(problem("is missing".into())) };
    let Value::Object(map) = metadata else { return Err(problem("is no map".into())) };
    map.into_iter()
        .map(|(key, value)| match value {
            Value::String(text) => Ok((key, text)),
            other => Err(problem(format!(
                "has `{}` = {}, which is no string",
                clip(&key),
                clip(&other.to_string())
            ))),
        })
        .collect()
}

/// The tensors in the order of their bytes, which must follow each other without gaps.
fn tensor_infos(entries: Map<String, Value>) -> Result<Vec<(String, TensorInfo)>, SliceProblem> {
    let entry = |tensor: &str, why: String| SliceProblem::TensorEntry { tensor: clip(tensor), why };
    let mut infos = Vec::new();
    for (name, value) in entries {
        let info: TensorInfo =
            serde_json::from_value(value).map_err(|e| entry(&name, clip(&e.to_string())))?;
        infos.push((name, info));
    }
    infos.sort_by(|a, b| (a.1.data_offsets, &a.0).cmp(&(b.1.data_offsets, &b.0)));
    let mut end = 0;
    for (name, info) in &infos {
        let (from, to) = info.data_offsets;
        if from != end || to < from {
            let why = format!("its data_offsets are [{from}, {to}], but it must start at {end}");
            return Err(entry(name, why));
        }
        let need = byte_len(info.dtype, &info.shape);
        if need != Some(to - from) {
            let need = need.map_or("more than 2^64".into(), |n| n.to_string());
            let why = format!(
                "{} {} takes {need} bytes, but its data_offsets span {}",
                info.dtype,
                clip(&format!("{:?}", info.shape)),
                to - from
            );
            return Err(entry(name, why));
        }
        end = to;
    }
    Ok(infos)
}

/// Bytes of a tensor; none where that does not fit, or ends inside a byte.
pub(super) fn byte_len(dtype: Dtype, shape: &[usize]) -> Option<usize> {
    let elements = shape.iter().try_fold(1usize, |n, extent| n.checked_mul(*extent))?;
    let bits = elements.checked_mul(dtype.bitsize())?;
    bits.is_multiple_of(8).then_some(bits / 8)
}

/// A tensor on its way into a file.
pub(super) struct Entry<'a> {
    pub name: &'a str,
    pub dtype: Dtype,
    pub shape: std::borrow::Cow<'a, [usize]>,
    pub bytes: std::borrow::Cow<'a, [u8]>,
}

/// Orders the tensors as the crate does (widest type first, then by name: each is aligned to its
/// element) and renders the header, its length first, padded so that the data starts at a multiple of 8.
pub(super) fn render(metadata: &BTreeMap<String, String>, entries: &mut [Entry<'_>]) -> Vec<u8> {
    entries.sort_by(|a, b| b.dtype.cmp(&a.dtype).then(a.name.cmp(b.name)));
    // A Value's own text escapes whatever must be escaped.
    let quoted = |s: &str| Value::from(s).to_string();
    let pairs: Vec<String> =
        metadata.iter().map(|(k, v)| format!("{}:{}", quoted(k), quoted(v))).collect();
    let mut json = format!("{{{}:{{{}}}", quoted(METADATA), pairs.join(","));
    let mut at = 0;
    for entry in entries.iter() {
        let end = at + entry.bytes.len();
        let shape = entry.shape.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
        json.push_str(&format!(
            ",{}:{{\"dtype\":\"{}\",\"shape\":[{shape}],\"data_offsets\":[{at},{end}]}}",
            quoted(entry.name),
            entry.dtype,
        ));
        at = end;
    }
    json.push('}');
    json.extend(std::iter::repeat_n(' ', json.len().next_multiple_of(8) - json.len()));
    let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
    bytes.extend(json.into_bytes());
    bytes
}
