//! Slices that are right, files that are broken, and cases that come back.

use super::*;
use crate::data::golden::embedded;
use crate::problem::{Case, Regime};
use proptest::prelude::*;
use safetensors::tensor::TensorView;
use std::collections::HashMap;

/// A file in pieces, put together by the safetensors crate and not by our writer.
#[derive(Clone)]
struct Pieces {
    metadata: HashMap<String, String>,
    tensors: BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>,
}

impl Pieces {
    /// Two query heads on one KV head of 4 elements, 3 keys in 5 rows, f32.
    fn good() -> Pieces {
        let metadata = [
            ("format", "kv-slice/1"),
            ("model", "tiny"),
            ("prompt_id", "p"),
            ("phase", "decode0"),
            ("layer", "7"),
            ("pos_id", "2"),
            ("seq_len", "3"),
            ("capacity", "5"),
            ("num_heads", "2"),
            ("num_kv_heads", "1"),
            ("head_dim", "4"),
            ("scale", "0.5"),
            ("k_layout", "HND"),
            ("v_layout", "HDN"),
        ];
        let metadata = metadata.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let mut pieces = Pieces { metadata, tensors: BTreeMap::new() };
        pieces.tensor("q", Dtype::F32, &[2, 4]);
        pieces.tensor("k", Dtype::F32, &[1, 5, 4]);
        pieces.tensor("v", Dtype::F32, &[1, 4, 5]);
        pieces.tensor("out", Dtype::F32, &[2, 4]);
        pieces
    }

    /// The same with the batch axis: three sequences.
    fn batched() -> Pieces {
        let mut pieces = Pieces::good();
        pieces.set("k_layout", "SHND").set("v_layout", "SHND");
        pieces.tensor("q", Dtype::F32, &[3, 2, 4]).tensor("out", Dtype::F32, &[3, 2, 4]);
        pieces.tensor("k", Dtype::F32, &[3, 1, 5, 4]).tensor("v", Dtype::F32, &[3, 1, 5, 4]);
        pieces.ints("seq_lens", &[3], &[3, 0, 2]);
        pieces
    }

    fn set(&mut self, key: &str, value: &str) -> &mut Self {
        self.metadata.insert(key.into(), value.into());
        self
    }

    fn unset(&mut self, key: &str) -> &mut Self {
        assert!(self.metadata.remove(key).is_some());
        self
    }

    fn remove(&mut self, tensor: &str) -> &mut Self {
        assert!(self.tensors.remove(tensor).is_some());
        self
    }

    /// Elements whose bytes count up, so that no two are alike.
    fn tensor(&mut self, name: &str, dtype: Dtype, shape: &[usize]) -> &mut Self {
        let len = shape.iter().product::<usize>() * dtype.bitsize() / 8;
        let bytes = (0..len).map(|i| (i % 61) as u8).collect();
        self.tensors.insert(name.into(), (dtype, shape.to_vec(), bytes));
        self
    }

    fn ints(&mut self, name: &str, shape: &[usize], values: &[i32]) -> &mut Self {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.tensors.insert(name.into(), (Dtype::I32, shape.to_vec(), bytes));
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let views = self.tensors.iter().map(|(name, (dtype, shape, bytes))| {
            (name.as_str(), TensorView::new(*dtype, shape.clone(), bytes).unwrap())
        });
        safetensors::serialize(views, Some(self.metadata.clone())).unwrap()
    }

    fn read(&self) -> Result<KvSlice, SliceError> {
        KvSlice::from_bytes("tiny", &self.bytes())
    }
}

/// A file from a header's text and its data.
fn raw_file(header: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend_from_slice(data);
    bytes
}

fn refusal(bytes: &[u8]) -> String {
    KvSlice::from_bytes("tiny", bytes).expect_err("a broken file").to_string()
}

#[test]
fn golden_fields_are_as_their_readme_says() {
    for (part, seq_len, capacity, count) in
        [("p4_sys", 93, 256, 3), ("p5_ba", 9, 256, 4), ("p_long", 738, 1024, 1)]
    {
        let found: Vec<_> = embedded().iter().filter(|(name, _)| name.contains(part)).collect();
        assert_eq!(found.len(), count);
        for (name, s) in found {
            assert_eq!(s.name, *name);
            assert_eq!((s.seq_len, s.capacity, s.pos_id), (seq_len, capacity, seq_len - 1));
            assert_eq!((s.num_heads, s.num_kv_heads, s.head_dim, s.dim_v()), (9, 3, 64, 64));
            assert_eq!((s.scale, s.scale_f32()), (0.125, 0.125));
            assert_eq!(s.model, "SmolLM2-135M-Instruct.Q4_1");
            assert_eq!((s.phase.as_str(), &s.prompt_id[..]), ("decode0", part));
            assert_eq!(s.promises(), Promises::default());
            assert_eq!(s.warnings(), Vec::<String>::new());
            let half = s.name.ends_with("f16");
            assert_eq!(s.k.dtype, if half { DType::F16 } else { DType::F32 });
            assert_eq!((s.q.dtype, s.v.dtype, s.out.dtype), (s.k.dtype, s.k.dtype, DType::F32));
            assert_eq!(s.probs.is_some() && s.scores.is_some(), s.layer == 15);
            assert_eq!(s.layers(), if s.name.contains("LHND4") { 4 } else { 1 });
            assert_eq!(s.layer_index(), if s.name.contains("LHND4") { 2 } else { 0 });
        }
    }
}

/// The naive definition, with nothing shared with the oracle: scores, softmax, weighted sum.
#[test]
fn golden_outputs_are_attention_of_their_inputs() {
    let close = |name: &str, what: &str, ours: &[f64], stored: &Tensor| {
        let stored = stored.values().unwrap();
        assert_eq!(ours.len(), stored.len(), "{name} {what}");
        let largest = ours.iter().fold(0.0f64, |m, x| m.max(x.abs()));
        for (a, b) in ours.iter().zip(&stored) {
            assert!((a - b).abs() <= 1e-6 * largest, "{name} {what}: {a} {b}");
        }
    };
    for (name, s) in embedded() {
        let p = s.placements().unwrap();
        let (mut out, mut scores, mut probs) = (Vec::new(), Vec::new(), Vec::new());
        let (q, k, v) = (s.q.values().unwrap(), s.k.values().unwrap(), s.v.values().unwrap());
        for h in 0..s.num_heads {
            let (kv, l) = (h / s.group(), s.layer_index());
            let dot = |n| {
                let term = |d| q[p.q.index(0, 0, h, 0, d)] * k[p.k.index(0, l, kv, n, d)];
                (0..s.head_dim).map(term).sum::<f64>() * s.scale
            };
            let row: Vec<f64> = (0..s.seq_len).map(dot).collect();
            let largest = row.iter().fold(f64::NEG_INFINITY, |m, x| m.max(*x));
            let e: Vec<f64> = row.iter().map(|x| (x - largest).exp()).collect();
            let sum: f64 = e.iter().sum();
            for d in 0..s.dim_v() {
                let term = |n| e[n] / sum * v[p.v.index(0, l, kv, n, d)];
                out.push((0..s.seq_len).map(term).sum());
            }
            scores.extend(row);
            probs.extend(e.iter().map(|x| x / sum));
        }
        close(name, "out", &out, &s.out);
        s.probs.iter().for_each(|t| close(name, "probs", &probs, t));
        s.scores.iter().for_each(|t| close(name, "scores", &scores, t));
    }
}

/// Every optional key and tensor at once.
fn full() -> Pieces {
    let mut pieces = Pieces::batched();
    for (key, value) in [
        ("k_layout", "SLHND"),
        ("layer", "1"),
        ("layers", "2"),
        ("v_layout", "SNLHD"),
        ("head_dim_v", "3"),
        ("window_len", "2"),
        ("softcap", "30.5"),
        ("page_size", "16"),
        ("x", "8"),
        ("k_scale", "1"),
        ("v_scale", "1.5"),
        ("engine", "an \"engine\" \\ of é\n"),
        ("accumulate", "f16"),
        ("probs", "bf16"),
        ("exp_ulp", "3"),
        ("k_strides", "[100,50,40,5,1]"),
        ("k_offset", "3"),
        ("q_strides", "[20,6,1]"),
        ("out_offset", "1"),
        ("kernel", "naive"),
        ("params", "{\"tile\":32,\"a\":-1}"),
        ("wave", "64"),
        ("seed", "18446744073709551615"),
        ("order_seed", "5"),
        ("case", "b=1"),
        ("property", "oracle"),
        ("their_key", "kept"),
    ] {
        pieces.set(key, value);
    }
    pieces.tensor("k", Dtype::BF16, &[300]).tensor("v", Dtype::F16, &[3, 5, 2, 1, 3]);
    pieces.tensor("q", Dtype::F64, &[60]).tensor("out", Dtype::F32, &[19]);
    pieces.tensor("probs", Dtype::F32, &[3, 2, 2]).tensor("scores", Dtype::F32, &[3, 2, 3]);
    pieces.tensor("lse", Dtype::F32, &[3, 2]).tensor("sinks", Dtype::F16, &[2]);
    pieces.tensor("new_k", Dtype::BF16, &[3, 1, 4]).tensor("new_v", Dtype::F16, &[3, 1, 3]);
    pieces.ints("page_table", &[3, 2], &[0, 1, 2, 3, -1, 5]);
    pieces.tensor("theirs", Dtype::U8, &[5]);
    pieces
}

#[test]
fn every_field_is_read() {
    let s = full().read().unwrap();
    assert_eq!((s.batch(), s.seq_lens(), s.layers(), s.layer_index()), (3, vec![3, 0, 2], 2, 1));
    assert_eq!((s.dim_v(), s.window_len(), s.softcap_f32()), (3, 2, 30.5));
    assert_eq!((s.page_size, s.x, s.k_scale, s.v_scale), (Some(16), Some(8), Some(1.0), Some(1.5)));
    let promises = Promises { accumulate: DType::F16, probs: DType::BF16, exp_ulp: 3.0 };
    assert_eq!(s.promises(), promises);
    assert_eq!(s.kernel.as_deref(), Some("naive"));
    assert_eq!(s.params, Some([("a".to_owned(), -1), ("tile".to_owned(), 32)].into()));
    assert_eq!((s.wave, s.seed, s.order_seed), (Some(64), Some(u64::MAX), Some(5)));
    assert_eq!((s.case.as_deref(), s.property.as_deref()), (Some("b=1"), Some("oracle")));
    assert_eq!(s.engine.as_deref(), Some("an \"engine\" \\ of é\n"));
    assert_eq!(s.extra, [("their_key".to_owned(), "kept".to_owned())].into());
    assert_eq!(s.extra_tensors["theirs"].bytes, [0, 1, 2, 3, 4]);
    assert_eq!(s.page_table.as_ref().unwrap().values[4], -1);
    let p = s.placements().unwrap();
    assert_eq!(p.k.index(2, 1, 0, 4, 3), 3 + 200 + 50 + 20 + 3);
    assert_eq!(p.v.index(2, 1, 0, 4, 2), 2 * 30 + 4 * 6 + 3 + 2);
    assert_eq!(p.q.index(2, 0, 1, 0, 3), 40 + 6 + 3);
    assert_eq!(p.out.index(0, 0, 0, 0, 0), 1);
    assert_eq!(s.q.get(59).is_some(), s.q.get(60).is_none());
}

#[test]
fn what_is_written_reads_back_and_is_a_safetensors_file() {
    let golden = embedded().iter().map(|(_, s)| s.clone());
    let tiny = [full(), Pieces::good(), Pieces::batched()].map(|p| p.read().unwrap());
    for slice in golden.chain(tiny) {
        let bytes = slice.to_bytes().unwrap();
        assert_eq!(KvSlice::from_bytes(&slice.name, &bytes).unwrap(), slice);
        let theirs = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(theirs.tensor("k").unwrap().data(), slice.k.bytes);
        let (header, _) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
        assert_eq!(header % 8, 0, "the data must be aligned");
    }
}

#[test]
fn a_raw_buffer_without_strides_or_offset_stays_one() {
    let mut slice = Pieces::good().read().unwrap();
    (slice.q_raw, slice.q.shape) = (Some(Raw::default()), vec![8]);
    let back = KvSlice::from_bytes("tiny", &slice.to_bytes().unwrap()).unwrap();
    assert_eq!(back.placements().unwrap(), slice.placements().unwrap());
    assert_eq!(back.q, slice.q);
}

#[test]
fn equal_content_gives_equal_bytes() {
    // The crate's own metadata order differs between these two, being a hash map's.
    let (one, other) = (full().read().unwrap(), full().read().unwrap());
    assert_eq!(one.to_bytes().unwrap(), other.to_bytes().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.safetensors");
    for _ in 0..2 {
        one.write(&path).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), one.to_bytes().unwrap());
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file is left");
    assert_eq!(KvSlice::read(&path).unwrap().name, "a");
}

#[test]
fn slices_that_cannot_be_written_say_why_and_leave_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut slice = Pieces::good().read().unwrap();
    let missing = dir.path().join("none").join("a.safetensors");
    let text = slice.write(&missing).unwrap_err().to_string();
    assert!(text.contains("the folder must exist and be writable"), "{text}");
    let taken = dir.path().join("taken");
    std::fs::create_dir(&taken).unwrap();
    assert!(slice.write(&taken).is_err());
    std::fs::remove_dir(&taken).unwrap();
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "the temporary file goes");
    slice.extra.insert("scale".into(), "2".into());
    let path = dir.path().join("a.safetensors");
    let text = slice.write(&path).unwrap_err().to_string();
    assert!(text.contains("the extra key `scale`"), "{text}");
    slice.extra.clear();
    slice.q.bytes.pop();
    let text = slice.write(&path).unwrap_err().to_string();
    assert!(text.contains("tensor `q` holds 31 bytes, but its shape and type need 32"), "{text}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

/// What is changed in a good file, and what the message must say.
type Break = (fn(&mut Pieces) -> &mut Pieces, &'static str);

#[test]
fn broken_metadata_say_what_and_how_to_mend_it() {
    let broken: &[Break] = &[
        (|p| p.unset("format"), "key `format` is missing"),
        (|p| p.set("format", "gguf"), "`format` is `gguf`, not `kv-slice/1`"),
        (|p| p.set("format", "kv-slice/2"), "reads kv-slice/1 only; use a newer"),
        (|p| p.unset("head_dim"), "key `head_dim` is missing"),
        (|p| p.unset("model"), "key `model` is missing"),
        (|p| p.unset("scale"), "key `scale` is missing"),
        (|p| p.unset("v_layout"), "key `v_layout` is missing"),
        (|p| p.set("capacity", "0x10"), "`capacity` is `0x10`; write a decimal number"),
        (|p| p.set("num_heads", "-2"), "`num_heads` is `-2`; write"),
        (|p| p.set("num_heads", "2.0"), "`num_heads` is `2.0`; write"),
        (|p| p.set("pos_id", ""), "`pos_id` is ``; write"),
        (|p| p.set("layer", "+1"), "`layer` is `+1`; write"),
        (|p| p.set("seq_len", "99999999999999999999"), "from 0 to 2^64 - 1"),
        (|p| p.set("seq_len", "6"), "`seq_len` is 6, but `capacity` is 5"),
        (|p| p.set("head_dim", "18446744073709551615"), "but the metadata ask for"),
        (|p| p.set("num_kv_heads", "0"), "`num_kv_heads` is 0; it must be at least 1"),
        (|p| p.set("capacity", "0").set("seq_len", "0"), "`capacity` is 0"),
        (|p| p.set("head_dim_v", "0"), "`head_dim_v` is 0"),
        (|p| p.set("num_kv_heads", "3"), "`num_heads` 2 is no multiple of `num_kv_heads` 3"),
        (|p| p.set("scale", "NaN"), "`scale` is `NaN`, not finite as f32"),
        (|p| p.set("scale", "-inf"), "`scale` is `-inf`, not finite as f32"),
        (|p| p.set("scale", "1e39"), "not finite as f32"),
        (|p| p.set("scale", "1/8"), "`scale` is `1/8`; write a decimal number"),
        (|p| p.set("softcap", "-1"), "`softcap` is -1; it must be at least 0"),
        (|p| p.set("softcap", "nan"), "`softcap` is `NaN`, not finite"),
        (|p| p.set("window_len", "-1"), "`window_len` is `-1`; write"),
        (|p| p.set("k_layout", "HXD"), "`k_layout`: layout `HXD`: `X` is no axis"),
        (|p| p.set("v_layout", "HHD"), "axis H occurs twice"),
        (|p| p.set("accumulate", "f64"), "`accumulate` is `f64`; write f32, f16 or bf16"),
        (|p| p.set("exp_ulp", "-2"), "`exp_ulp` is -2"),
        (|p| p.set("wave", "48"), "`wave` is `48`; write 32 or 64"),
        (|p| p.set("seed", "x"), "`seed` is `x`; write"),
        (|p| p.set("params", "{\"a\":1.5}"), "write a JSON object of integers"),
        (|p| p.set("k_strides", "20,4,1"), "a JSON array of strides in elements"),
        (|p| p.set("k_strides", "[20,-4,1]"), "a JSON array of strides in elements"),
        (|p| p.set("k_offset", "-1"), "`k_offset` is `-1`; write"),
    ];
    for (change, says) in broken {
        let mut pieces = Pieces::good();
        assert!(pieces.read().is_ok());
        change(&mut pieces);
        let text = refusal(&pieces.bytes());
        assert!(text.contains(says) && text.starts_with("tiny: "), "{says}: {text}");
    }
}

#[test]
fn broken_tensors_say_what_and_how_to_mend_it() {
    let broken: &[Break] = &[
        (|p| p.remove("q"), "tensor `q` is missing"),
        (|p| p.remove("out"), "tensor `out` is missing"),
        (
            |p| p.tensor("q", Dtype::F32, &[2, 5]),
            "tensor `q` has shape [2, 5], but the metadata ask for [2, 4] (num_heads, head_dim)",
        ),
        (|p| p.tensor("q", Dtype::F32, &[8]), "`q` has shape [8]"),
        // A shape as long as a page is cut.
        (|p| p.tensor("q", Dtype::F32, &[1; 5000]), "1, 1,…, but the metadata ask for [2, 4]"),
        (
            |p| p.tensor("k", Dtype::F32, &[1, 4, 5]),
            "`k` has shape [1, 4, 5], but the metadata ask for [1, 5, 4] (HND)",
        ),
        (|p| p.tensor("v", Dtype::F32, &[1, 5, 4]), "ask for [1, 4, 5] (HDN)"),
        (|p| p.tensor("k", Dtype::F32, &[5, 4]), "ask for 3 axes (HND)"),
        (|p| p.tensor("q", Dtype::I64, &[2, 4]), "`q` is stored as I64; it may be F64, F32"),
        (|p| p.tensor("sinks", Dtype::F32, &[3]), "`sinks` has shape [3]"),
        (|p| p.tensor("lse", Dtype::F32, &[2, 1]), "`lse` has shape [2, 1]"),
        (|p| p.tensor("probs", Dtype::F32, &[2, 4]), "the last W of at most 3 keys"),
        (|p| p.tensor("scores", Dtype::F32, &[1, 3]), "`scores` has shape [1, 3]"),
        (|p| p.tensor("scores", Dtype::F32, &[2, 0]), "`scores` has shape [2, 0]"),
        (|p| p.tensor("new_v", Dtype::F32, &[1, 5]), "`new_v` has shape [1, 5]"),
        (|p| p.tensor("page_table", Dtype::I64, &[1]), "stored as I64; it may be I32"),
        (|p| p.ints("page_table", &[1, 1], &[0]), "`page_table` has shape [1, 1]"),
        (
            |p| p.set("k_layout", "PHTD").tensor("k", Dtype::F32, &[0, 1, 2, 4]),
            "`k` has shape [0, 1, 2, 4], but the metadata ask for [_, 1, _, 4] (PHTD)",
        ),
        (|p| p.ints("seq_lens", &[2], &[3, 3]), "since the layouts have no S axis"),
        (|p| p.ints("seq_lens", &[1], &[-3]), "`seq_lens[0]` is -3"),
        (|p| p.set("k_layout", "LHND"), "`k` has shape [1, 5, 4]"),
        (
            |p| p.set("k_layout", "LHND").tensor("k", Dtype::F32, &[7, 1, 5, 4]),
            "`layer` is 7, but the L axis holds 7 layers",
        ),
        (
            |p| {
                p.set("k_layout", "LHND").tensor("k", Dtype::F32, &[8, 1, 5, 4]);
                p.set("v_layout", "LHDN").tensor("v", Dtype::F32, &[9, 1, 4, 5])
            },
            "k has 8 layers, but v has 9",
        ),
        (|p| p.set("k_strides", "[20,4,1]"), "a 1-D raw buffer"),
        (
            |p| p.set("k_strides", "[4,1]").tensor("k", Dtype::F32, &[20]),
            "`k_strides` has 2 strides, but HND has 3 axes",
        ),
        (
            |p| p.set("q_strides", "[1]").tensor("q", Dtype::F32, &[8]),
            "`q_strides` has 1 strides, but HD has 2 axes",
        ),
        (|p| p.set("k_strides", "[20,3,1]").tensor("k", Dtype::F32, &[20]), "axis N has stride 3"),
        (
            |p| p.set("k_strides", "[30,6,1]").tensor("k", Dtype::F32, &[27]),
            "strides and offset reach 28 elements, but 27 are stored",
        ),
        (
            |p| p.set("v_offset", "2").tensor("v", Dtype::F32, &[21]),
            "`v`: strides and offset reach 22 elements, but 21 are stored",
        ),
        (
            |p| p.set("k_strides", "[1,9223372036854775807,1]").tensor("k", Dtype::F32, &[9]),
            "does not fit in 63 bits",
        ),
        (
            |p| p.set("k_layout", "PHDTd").tensor("k", Dtype::F32, &[1, 1, 1, 5, 3]),
            "but the metadata ask for [_, 1, 0, _, _] (PHDTd)",
        ),
    ];
    for (change, says) in broken {
        let mut pieces = Pieces::good();
        change(&mut pieces);
        let text = refusal(&pieces.bytes());
        assert!(text.contains(says), "{says}: {text}");
    }
    let broken_batches: &[Break] = &[
        (|p| p.remove("seq_lens"), "`seq_lens` is missing: the layouts have an S"),
        (
            |p| p.tensor("k", Dtype::F32, &[2, 1, 5, 4]),
            "`k` has shape [2, 1, 5, 4], but the metadata ask for [3, 1, 5, 4] (SHND)",
        ),
        (|p| p.ints("seq_lens", &[0], &[]), "`seq_lens` has shape [0]"),
        (|p| p.ints("seq_lens", &[1, 3], &[1, 1, 1]), "`seq_lens` has shape [1, 3]"),
        (|p| p.ints("seq_lens", &[2], &[1, 1]), "`q` has shape [3, 2, 4]"),
        (|p| p.ints("seq_lens", &[3], &[1, 9, 1]), "`seq_lens[1]` is 9, but `capacity` is 5"),
        (|p| p.tensor("seq_lens", Dtype::F32, &[3]), "stored as F32; it may be I32"),
        (|p| p.set("v_layout", "HND"), "`v_layout` = HND has no S axis"),
        (
            |p| p.set("q_strides", "[4,1]").tensor("q", Dtype::F32, &[24]),
            "`q_strides` has 2 strides, but SHD has 3 axes",
        ),
    ];
    for (change, says) in broken_batches {
        let mut pieces = Pieces::batched();
        assert!(pieces.read().is_ok());
        change(&mut pieces);
        let text = refusal(&pieces.bytes());
        assert!(text.contains(says), "{says}: {text}");
    }
}

#[test]
fn broken_containers_say_what_and_how_to_mend_it() {
    let good = Pieces::good().bytes();
    let mut long = good.clone();
    long.push(0);
    let one =
        |info: &str| format!("{{\"__metadata__\":{{\"format\":\"kv-slice/1\"}},\"q\":{info}}}");
    let tensor = |info: &str| raw_file(&one(info), &[0; 8]);
    let oversized = raw_file(&" ".repeat((16 << 20) + 1), &[]);
    for (bytes, says) in [
        (vec![], "not a safetensors file: it has only 0 bytes"),
        (b"GGUF\x03\0\0\0 and so on".to_vec(), "not a safetensors file, or truncated"),
        (good[..50].to_vec(), "but the file has only 50 bytes"),
        (good[..good.len() - 1].to_vec(), "truncated: header and tensors need"),
        (long, "1 bytes follow the last tensor"),
        (oversized, "more than the 16777216 that a slice may have"),
        (raw_file("[]", &[]), "its header does not start with {"),
        (raw_file("{\"a\":", &[]), "the header is no JSON object"),
        (raw_file("{\"a\":\"\u{fffd}\0\"}", &[]), "the header is no JSON object"),
        (raw_file("{}", &[]), "`__metadata__` is missing"),
        (raw_file("{\"__metadata__\":[]}", &[]), "`__metadata__` is no map"),
        (raw_file("{\"__metadata__\":{\"layer\":3}}", &[]), "has `layer` = 3, which is no string"),
        (
            tensor("{\"dtype\":\"F99\",\"shape\":[],\"data_offsets\":[0,8]}"),
            "unknown variant `F99`",
        ),
        (
            tensor("{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,8]}"),
            "tensor `q` in the header: F32 [3] takes 12 bytes, but its data_offsets span 8",
        ),
        (tensor("{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}"), "must start at 0"),
        (tensor("{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,-4]}"), "tensor `q` in"),
        (
            tensor(
                "{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296,2],\"data_offsets\":[0,8]}",
            ),
            "takes more than 2^64 bytes",
        ),
        (
            tensor("{\"dtype\":\"U8\",\"shape\":[999999999999],\"data_offsets\":[0,999999999999]}"),
            "truncated: header and tensors need",
        ),
    ] {
        let text = refusal(&bytes);
        assert!(text.contains(says), "{says}: {text}");
    }
    let dir = tempfile::tempdir().unwrap();
    let text = KvSlice::read(dir.path()).unwrap_err().to_string();
    assert!(text.contains("is not a regular file"), "{text}");
    let text = KvSlice::read(&dir.path().join("none")).unwrap_err().to_string();
    assert!(text.contains("none: cannot open"), "{text}");
}

#[test]
fn oddities_that_can_be_judged_only_warn() {
    let warned: &[Break] = &[
        (|p| p.set("pos_id", "7"), "normally seq_len = pos_id + 1"),
        (|p| p.set("scale", "1e-60"), "0 as f32"),
        (|p| p.set("softcp", "30"), "did you mean `softcap`"),
        (
            |p| p.set("order_see\u{17}d", "1"),
            "`order_see?d` is not read; did you mean `order_seed`",
        ),
        (|p| p.ints("seq_lens", &[1], &[2]), "the longest of seq_lens is 2"),
    ];
    for (change, says) in warned {
        let mut pieces = Pieces::good();
        change(&mut pieces);
        let warnings = pieces.read().unwrap().warnings();
        assert!(warnings.len() == 1 && warnings[0].contains(says), "{says}: {warnings:?}");
    }
    // A key as long as a header may be costs no distance to every known one.
    let mut long = Pieces::good();
    assert!(long.set(&"s".repeat(1 << 22), "1").read().unwrap().warnings().is_empty());
    let mut empty = Pieces::good();
    empty.set("seq_len", "0").set("pos_id", "0");
    assert_eq!(empty.read().unwrap().warnings(), Vec::<String>::new());
}

#[test]
fn what_is_not_driven_is_read_and_refused_as_a_case() {
    let refused: &[Break] = &[
        (|p| p.tensor("q", Dtype::F8_E4M3, &[2, 4]), "tensor `q` of type f8_e4m3"),
        (|p| p.tensor("k", Dtype::F16, &[1, 5, 4]), "k in f16 and v in f32"),
        (|p| p.set("v_scale", "0.5"), "`v_scale` = 0.5"),
        (
            |p| p.set("k_layout", "PHTD").tensor("k", Dtype::F32, &[3, 1, 2, 4]),
            "`k_layout` = PHTD, paged, is read, but not driven yet",
        ),
        (
            |p| p.set("v_layout", "PHDTt").tensor("v", Dtype::F32, &[3, 1, 4, 2, 2]),
            "`v_layout` = PHDTt",
        ),
        (
            |p| p.set("q_strides", "[1,2]").tensor("q", Dtype::F32, &[8]),
            "q must have unit stride along D",
        ),
        // A name that ends its field too early makes the id that of another case.
        (|p| p.set("params", r#"{"a,b": 1}"#), "parameter `a,b` is no identifier"),
    ];
    for (change, says) in refused {
        let mut pieces = Pieces::good();
        change(&mut pieces);
        let slice = pieces.read().unwrap_or_else(|e| panic!("{says}: {e}"));
        let text = slice.to_case().unwrap_err().to_string();
        assert!(text.contains(says), "{says}: {text}");
    }
    let mut eight = Pieces::good();
    let q = eight.tensor("q", Dtype::F8_E5M2FNUZ, &[2, 4]).read().unwrap().q;
    assert_eq!((q.dtype, q.len(), q.get(0), q.values()), (DType::F8E5M2Fnuz, 8, None, None));
}

#[test]
fn a_slice_poses_its_case() {
    let case = full().set("v_scale", "1").tensor("v", Dtype::BF16, &[3, 5, 2, 1, 3]).read();
    let slice = case.unwrap();
    let case = slice.to_case().unwrap();
    assert_eq!(case.placements().unwrap(), slice.placements().unwrap());
    assert_eq!(
        case.to_string(),
        "b=3,hq=2,hkv=1,d=4,dv=3,n=[3,0,2],cap=5,w=2,softcap=30.5,sinks=1,dt=f64/bf16/f32,\
         k=LHND[100,50,40,5,1]@3,v=NLHD,q=HD[20,6,1],out=HD@1,layers=2,layer=1,p.a=-1,p.tile=32,\
         wave=64,data=slice:tiny,seed=18446744073709551615,order=5"
    );
}

/// Cases in which each tensor is stored in another way.
const CASES: [&str; 7] = [
    "b=1,hq=4,hkv=2,d=8,n=5,cap=7,wave=32",
    "b=1,hq=4,hkv=2,d=8,dv=4,n=0,cap=7,w=3,scale=0.1,p.tile=64,wave=64,seed=7,order=9",
    "b=3,hq=4,hkv=2,d=8,n=[5,0,7],softcap=30,sinks=1,dt=f16/bf16/f32,k=NHD,v=HDN",
    "b=1,hq=4,hkv=2,d=8,n=5,k=NHD+pad3,v=HDN+pad1.5@3,q=HD+pad3.5@1,out=HD+pad2",
    "b=2,hq=4,hkv=2,d=8,n=5,k=HSND,v=NHD[1000,64,32,1],q=HD+pad1,data=onehot:last",
    "b=1,hq=4,hkv=2,d=8,n=5,k=LHND+pad1,v=NLHD,layers=3,layer=2",
    "b=1,hq=4,hkv=2,d=8,n=5,k=HND[90,16,2],v=HND@5",
];

#[test]
fn a_saved_case_comes_back_with_the_same_placements_and_bytes() {
    for id in CASES {
        let case: Case = id.parse().unwrap();
        let p = case.placements().unwrap();
        let fill = |span: usize, dtype: DType, tail: usize| -> Vec<u8> {
            (0..(span + tail) * dtype.size()).map(|i| (i % 251) as u8).collect()
        };
        let (q, k) = (fill(p.q.span(), case.dtypes.q, 0), fill(p.k.span(), case.dtypes.kv, 0));
        let (v, out) =
            (fill(p.v.span(), case.dtypes.kv, 6), fill(p.out.span(), case.dtypes.out, 0));
        let lse = fill(case.batch() * case.num_heads, DType::F32, 0);
        let sinks = fill(case.num_heads, DType::F32, 0);
        let promises = Promises { accumulate: DType::F16, ..Promises::default() };
        let saved = Saved {
            case: &case,
            kernel: "naive",
            property: "oracle",
            q: &q,
            k: &k,
            v: &v,
            out: &out,
            lse: Some(&lse),
            sinks: case.sinks.then_some(&sinks[..]),
            promises: Some(promises),
        };
        let slice = KvSlice::from_case("a case", &saved).unwrap();
        let back = KvSlice::from_bytes("a case", &slice.to_bytes().unwrap()).unwrap();
        assert_eq!(back, slice, "{id}");
        assert_eq!(back.warnings(), Vec::<String>::new());
        assert_eq!((&back.q.bytes, &back.k.bytes, &back.v.bytes), (&q, &k, &v));
        assert_eq!((&back.out.bytes, &back.lse.as_ref().unwrap().bytes), (&out, &lse));
        assert_eq!(back.promises(), promises);
        assert_eq!(back.case.as_deref(), Some(case.to_string().as_str()));
        assert_eq!(
            (back.kernel.as_deref(), back.property.as_deref()),
            (Some("naive"), Some("oracle"))
        );
        assert_eq!(back.placements().unwrap(), p, "{id}");
        let posed = back.to_case().unwrap();
        assert_eq!(posed.placements().unwrap(), p, "{id}");
        // But for storage, which is given by strides now, and the regime, it is the same case.
        let same = Case {
            k: case.k.clone(),
            v: case.v.clone(),
            q: case.q.clone(),
            out: case.out.clone(),
            regime: case.regime.clone(),
            ..posed.clone()
        };
        assert_eq!(same, case, "{id}");
        assert_eq!(posed.regime, Regime::Slice("a_case".into()));
        assert_eq!(posed.to_string().parse::<Case>().unwrap(), posed, "{id}");
    }
}

#[test]
fn buffers_that_do_not_fit_their_case_are_not_saved() {
    let case: Case = CASES[0].parse().unwrap();
    let bytes = |n: usize| vec![0u8; 4 * n];
    let (q, kv) = (bytes(32), bytes(112));
    let saved = Saved {
        case: &case,
        kernel: "",
        property: "",
        q: &q,
        k: &kv,
        v: &kv,
        out: &q,
        lse: None,
        sinks: None,
        promises: None,
    };
    assert!(KvSlice::from_case("x", &saved).is_ok());
    for (wrong, says) in [
        (Saved { k: &kv[4..], ..saved }, "k has 444 bytes, but its placement spans 112 elements"),
        (Saved { sinks: Some(&q), ..saved }, "disagree about sinks"),
        (Saved { lse: Some(&q), ..saved }, "tensor `lse` holds 128 bytes"),
    ] {
        let text = KvSlice::from_case("x", &wrong).unwrap_err().to_string();
        assert!(text.contains(says), "{says}: {text}");
    }
}

/// Whatever a damaged file still says, its tensors are as large as its numbers claim.
fn sound(slice: &KvSlice) -> Result<(), TestCaseError> {
    for (name, t) in slice.floats() {
        let elements: usize = t.shape.iter().product();
        prop_assert_eq!(elements * t.dtype.size(), t.bytes.len(), "{}", name);
    }
    if let Ok(p) = slice.placements() {
        for (t, p) in [(&slice.q, &p.q), (&slice.k, &p.k), (&slice.v, &p.v), (&slice.out, &p.out)] {
            let e = p.extents();
            let last = p.index(e.batch - 1, e.layers - 1, e.heads - 1, e.tokens - 1, e.dim - 1);
            prop_assert!(last < t.len());
        }
    }
    prop_assert!(slice.seq_lens().iter().all(|n| *n <= slice.capacity));
    prop_assert!(slice.scale_f32().is_finite());
    let _ = (slice.to_case(), slice.warnings());
    let again = KvSlice::from_bytes(&slice.name, &slice.to_bytes().unwrap()).unwrap();
    prop_assert_eq!(again.to_bytes().unwrap(), slice.to_bytes().unwrap());
    Ok(())
}

fn any_file() -> impl Strategy<Value = Vec<u8>> {
    let files = [Pieces::good(), Pieces::batched(), full()];
    // Our own writer's bytes: the order in the crate's changes from run to run.
    let bytes = files.map(|p| p.read().unwrap().to_bytes().unwrap());
    (0..bytes.len()).prop_map(move |i| bytes[i].clone())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    /// A file cut anywhere is refused: no tensor is ever shorter than the header says.
    #[test]
    fn a_truncated_file_is_refused(file in any_file(), cut in any::<prop::sample::Index>()) {
        prop_assert!(KvSlice::from_bytes("cut", &file[..cut.index(file.len())]).is_err());
    }

    /// Changed bytes are refused or still describe what is there; nothing panics. Digits replace
    /// digits often, since other bytes rarely get past the JSON parser.
    #[test]
    fn a_damaged_file_is_refused_or_sound(
        mut file in any_file(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0u8..4), 1..4),
    ) {
        let header = 8 + u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
        let digits: Vec<usize> = (8..header).filter(|i| file[*i].is_ascii_digit()).collect();
        for (at, byte, kind) in flips {
            match kind {
                0 => { let i = at.index(file.len()); file[i] ^= byte; }
                1 => { let i = at.index(header); file[i] = byte; }
                _ => file[digits[at.index(digits.len())]] = b'0' + byte % 10,
            }
        }
        if let Ok(slice) = KvSlice::from_bytes("flipped", &file) {
            sound(&slice)?;
        }
    }
}
