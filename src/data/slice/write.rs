//! From a typed slice to a file: equal slices give equal bytes.

use super::error::{SliceError, SliceProblem};
use super::header::{self, Entry};
use super::{KvSlice, Raw, to_safetensors};
use crate::data::file;
use safetensors::Dtype;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

/// The format that is written, and the only one that is read.
pub(super) const FORMAT: &str = "kv-slice/1";

impl KvSlice {
    /// The file's bytes.
    ///
    /// # Errors
    /// As [`KvSlice::validate`].
    pub fn to_bytes(&self) -> Result<Vec<u8>, SliceError> {
        let (head, entries) = self.render().map_err(|p| SliceError::new(&self.name, p))?;
        let mut bytes = head;
        entries.iter().for_each(|entry| bytes.extend_from_slice(&entry.bytes));
        Ok(bytes)
    }

    /// Writes the file whole or not at all, as [`file::write()`].
    ///
    /// # Errors
    /// As [`KvSlice::validate`]; [`SliceProblem::DiskFull`], [`SliceProblem::Write`].
    pub fn write(&self, path: &Path) -> Result<(), SliceError> {
        self.write_file(path).map_err(|p| SliceError::new(path.display().to_string(), p))
    }

    fn write_file(&self, path: &Path) -> Result<(), SliceProblem> {
        let (head, entries) = self.render()?;
        write_whole(path, &head, &entries)
    }

    fn render(&self) -> Result<(Vec<u8>, Vec<Entry<'_>>), SliceProblem> {
        self.check()?;
        let metadata = self.metadata()?;
        let mut entries = self.entries()?;
        let head = header::render(&metadata, &mut entries);
        // The first eight bytes are the length, which is no part of the header.
        let header = head.len() as u64 - 8;
        if header > header::MAX_HEADER {
            return Err(SliceProblem::HeaderTooLarge { header, limit: header::MAX_HEADER });
        }
        Ok((head, entries))
    }

    fn metadata(&self) -> Result<BTreeMap<String, String>, SliceProblem> {
        let mut map = BTreeMap::new();
        let mut put = |key: &str, value: Option<String>| {
            if let Some(value) = value {
                map.insert(key.to_owned(), value);
            }
        };
        put("format", Some(FORMAT.to_owned()));
        put("model", Some(self.model.clone()));
        put("prompt_id", Some(self.prompt_id.clone()));
        put("phase", Some(self.phase.clone()));
        put("scale", Some(number(self.scale)));
        put("k_layout", Some(self.k_layout.to_string()));
        put("v_layout", Some(self.v_layout.to_string()));
        for (key, value) in [
            ("layer", Some(self.layer)),
            ("pos_id", Some(self.pos_id)),
            ("seq_len", Some(self.seq_len)),
            ("capacity", Some(self.capacity)),
            ("num_heads", Some(self.num_heads)),
            ("num_kv_heads", Some(self.num_kv_heads)),
            ("head_dim", Some(self.head_dim)),
            ("head_dim_v", self.head_dim_v),
            ("window_len", self.window_len),
            ("page_size", self.page_size),
            ("x", self.x),
            ("layers", self.layers),
        ] {
            put(key, value.map(|n| n.to_string()));
        }
        for (key, value) in [
            ("softcap", self.softcap),
            ("k_scale", self.k_scale),
            ("v_scale", self.v_scale),
            ("exp_ulp", self.exp_ulp),
        ] {
            put(key, value.map(number));
        }
        put("accumulate", self.accumulate.map(|d| d.to_string()));
        put("probs", self.probs_type.map(|d| d.to_string()));
        for (tensor, raw) in
            [("q", &self.q_raw), ("k", &self.k_raw), ("v", &self.v_raw), ("out", &self.out_raw)]
        {
            let Some(Raw { strides, offset }) = raw else { continue };
            put(&format!("{tensor}_strides"), strides.as_ref().map(|s| array(s)));
            // A raw buffer must show as one, even if neither was given.
            let offset = offset.or(strides.is_none().then_some(0));
            put(&format!("{tensor}_offset"), offset.map(|n| n.to_string()));
        }
        for (key, value) in [
            ("engine", &self.engine),
            ("kernel", &self.kernel),
            ("case", &self.case),
            ("property", &self.property),
        ] {
            put(key, value.clone());
        }
        put("params", self.params.as_ref().map(|p| serde_json::json!(p).to_string()));
        put("wave", self.wave.map(|n| n.to_string()));
        put("seed", self.seed.map(|n| n.to_string()));
        put("order_seed", self.order_seed.map(|n| n.to_string()));
        for (key, value) in &self.extra {
            if super::read::KEYS.contains(&key.as_str()) {
                let why = format!("the extra key `{key}` is one of the format's; set its field");
                return Err(SliceProblem::Unsavable(why));
            }
            map.insert(key.clone(), value.clone());
        }
        Ok(map)
    }

    fn entries(&self) -> Result<Vec<Entry<'_>>, SliceProblem> {
        let mut entries: Vec<Entry<'_>> = self
            .floats()
            .into_iter()
            .map(|(name, t)| Entry {
                name,
                dtype: to_safetensors(t.dtype),
                shape: Cow::Borrowed(&t.shape),
                bytes: Cow::Borrowed(&t.bytes),
            })
            .collect();
        let ints =
            |values: &[i32]| Cow::Owned(values.iter().flat_map(|v| v.to_le_bytes()).collect());
        if let Some(table) = &self.page_table {
            let (shape, bytes) = (Cow::Borrowed(&table.shape[..]), ints(&table.values));
            entries.push(Entry { name: "page_table", dtype: Dtype::I32, shape, bytes });
        }
        if let Some(lens) = &self.lens {
            let (shape, bytes) = (Cow::Owned(vec![lens.len()]), ints(lens));
            entries.push(Entry { name: "seq_lens", dtype: Dtype::I32, shape, bytes });
        }
        for (name, t) in &self.extra_tensors {
            if super::read::TENSORS.contains(&name.as_str()) || name == "__metadata__" {
                let why =
                    format!("the extra tensor `{name}` is one of the format's; set its field");
                return Err(SliceProblem::Unsavable(why));
            }
            entries.push(Entry {
                name,
                dtype: t.dtype,
                shape: Cow::Borrowed(&t.shape),
                bytes: Cow::Borrowed(&t.bytes),
            });
        }
        Ok(entries)
    }
}

/// Writes a file whole or not at all.
pub(super) fn write_whole(
    path: &Path,
    head: &[u8],
    entries: &[Entry<'_>],
) -> Result<(), SliceProblem> {
    let bytes = entries.iter().map(|e| e.bytes.len() as u64).sum::<u64>() + head.len() as u64;
    let failed = |source| write_problem(source, bytes);
    file::write_with(path, |to| emit(head, entries, to)).map_err(failed)
}

fn emit(head: &[u8], entries: &[Entry<'_>], to: &mut dyn Write) -> io::Result<()> {
    to.write_all(head)?;
    entries.iter().try_for_each(|entry| to.write_all(&entry.bytes))?;
    to.flush()
}

fn write_problem(source: io::Error, bytes: u64) -> SliceProblem {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            SliceProblem::DiskFull { bytes, source }
        }
        _ => SliceProblem::Write { source },
    }
}

/// The shortest decimal text that reads back as the same number.
pub(super) fn number(x: f64) -> String {
    format!("{x:?}")
}

fn array(items: &[usize]) -> String {
    serde_json::json!(items).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk with room for 100 bytes.
    struct Small(usize);

    impl Write for Small {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.0 == 100 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let n = bytes.len().min(100 - self.0);
            self.0 += n;
            Ok(n)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_is_called_one() {
        let (_, slice) = &crate::data::golden::embedded()[0];
        let (head, entries) = slice.render().unwrap();
        let source = emit(&head, &entries, &mut Small(0)).unwrap_err();
        let text = write_problem(source, 398376).to_string();
        assert!(text.contains("cannot write 398376 bytes: the disk is full; free some"), "{text}");
    }
}
