//! What must hold for any bytes that a parser is given: one function a parser, which panics where
//! it does not, and says whether the parser took them. The fuzz targets beside this file and the replay of their corpora in
//! `props/corpus.rs` call the same functions, so that what the one finds the other keeps.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::path::Path;

use attnbench::data::slice::{KvSlice, Saved, Tensor};
use attnbench::data::trace;
use attnbench::device::{Arg, Module};
use attnbench::judge::trace::{Judge, Numbers, Row, Verdict, compare, note_pairs};
use attnbench::kernel::{ArgSpec, Env, Expr, Manifest, Range, ScratchType, Template, Value};
use attnbench::problem::{Axis, Case, DType, DTypes, Layout, Placement, Regime, Stage, Storage};
use attnbench::report::trace::Report;
use safetensors::Dtype;
use serde_json::{Map, json};

/// Characters that a message may have. The longest name every key or variable that there is.
const MAX_MESSAGE: usize = 2000;

/// A message for people: one line of bearable length, whatever is in the file.
fn message(error: &dyn Display) -> String {
    let text = error.to_string();
    assert!(!text.is_empty());
    assert!(!text.contains(char::is_control), "more than one line: {text:?}");
    let length = text.chars().count();
    assert!(length <= MAX_MESSAGE, "a message of {length} characters: {text}");
    text
}

/// Placements of at most so many elements are gone through one by one.
const FEW: usize = 512;

/// Every element has a place of its own inside the span.
fn places(place: &Placement) {
    let e = place.extents();
    // In a `u128` no product overflows.
    let extents = [e.batch, e.layers, e.heads, e.tokens, e.dim];
    let len = extents.iter().try_fold(1usize, |product, n| product.checked_mul(*n));
    if len.is_none_or(|len| len > FEW) {
        return;
    }
    let mut seen = BTreeSet::new();
    let extent = |axis, n| if place.layout().has(axis) { n } else { 1 };
    for s in 0..extent(Axis::Seq, e.batch) {
        for l in 0..extent(Axis::Layer, e.layers) {
            for h in 0..extent(Axis::Head, e.heads) {
                for n in 0..extent(Axis::Token, e.tokens) {
                    for d in 0..extent(Axis::Dim, e.dim) {
                        let at = place.index(s, l, h, n, d);
                        assert!(at >= place.offset() && at < place.span(), "{place:?}: {at}");
                        assert!(seen.insert(at), "{place:?}: two elements at {at}");
                    }
                }
            }
        }
    }
    assert_eq!(seen.len(), place.len(), "{place:?}");
}

/// A valid case prints as one line, which parses to the same case, with the same placements.
fn case(case: &Case) {
    case.validate().unwrap_or_else(|e| panic!("{e}: {case:?}"));
    let id = case.to_string();
    assert!(!id.contains(char::is_control), "{id:?}");
    match id.parse::<Case>() {
        Ok(back) => {
            assert_eq!(back, *case, "{id}");
            assert_eq!(back.to_string(), id);
        }
        Err(e) => panic!("{id:?} does not parse back: {e}"),
    }
    let all = case.placements().unwrap_or_else(|e| panic!("{e}: {id}"));
    for place in [&all.q, &all.k, &all.v, &all.out] {
        places(place);
    }
    for s in 0..case.batch().min(8) {
        let attended = case.attended(s);
        assert!(attended.end <= case.capacity && attended.start <= attended.end, "{id}");
    }
    case.work();
    let env = Env::new(case, &all);
    assert!(env.get("batch").is_some());
}

/// Case ids, and what is part of them: layouts, storages, types and regimes.
pub fn case_id(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let parsed = text.parse::<Case>();
    match &parsed {
        Ok(parsed) => case(parsed),
        Err(e) => {
            let text = message(e);
            assert!(
                text.starts_with("case id: ") || text.starts_with("impossible case: "),
                "{text}"
            );
        }
    }
    for word in text.split([',', '=']).take(16) {
        layout(word);
        match word.parse::<Storage>() {
            Ok(storage) => assert_eq!(storage.to_string().parse::<Storage>(), Ok(storage)),
            Err(e) => drop(message(&e)),
        }
        match word.parse::<DTypes>() {
            Ok(dtypes) => assert_eq!(dtypes.to_string().parse::<DTypes>(), Ok(dtypes)),
            Err(e) => drop(message(&e)),
        }
        match word.parse::<Regime>() {
            Ok(regime) => assert_eq!(regime.to_string().parse::<Regime>(), Ok(regime)),
            Err(e) => drop(message(&e)),
        }
    }
    parsed.is_ok()
}

fn layout(text: &str) {
    let layout: Layout = match text.parse() {
        Ok(layout) => layout,
        Err(e) => return drop(message(&e)),
    };
    assert_eq!(layout.to_string().parse(), Ok(layout.clone()));
    for other in [layout.with_batch(), layout.with_layers(), layout.without(Axis::Layer)] {
        assert_eq!(other.as_str().parse(), Ok(other.clone()), "{layout}");
    }
    match layout.axes() {
        Ok(axes) => assert_eq!(axes.len(), layout.as_str().len(), "{layout}"),
        Err(e) => assert!(layout.is_paged() || layout.has_inner(), "{layout}: {}", message(&e)),
    }
}

/// A file of a fuzzed slice. Bytes alone rarely make one: lengths, offsets and shapes must agree.
/// So what starts with `{` is a header, up to a 0 byte, whose length is put before it; what starts
/// with `#` is a recipe, a line `key=value` for each metadata key and `@name=TYPE extents: numbers`
/// for each tensor, whose offsets and bytes are put in. Anything else is the file itself.
fn slice_file(data: &[u8]) -> Vec<u8> {
    match data.first() {
        Some(b'{') => {
            let end = data.iter().position(|b| *b == 0);
            let (header, rest) = end.map_or((data, &[][..]), |at| (&data[..at], &data[at + 1..]));
            container(header, rest)
        }
        Some(b'#') => recipe(&String::from_utf8_lossy(data)),
        _ => data.to_vec(),
    }
}

fn container(header: &[u8], data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header, data].concat()
}

/// Bytes of a recipe's tensor; more are not worth the time, and are missing from the file.
const MAX_TENSOR: usize = 1 << 14;

fn recipe(text: &str) -> Vec<u8> {
    let (mut metadata, mut header, mut data) = (Map::new(), Map::new(), Vec::new());
    for line in text.lines().skip(1) {
        let Some((key, value)) = line.split_once('=') else { continue };
        let Some(tensor) = key.strip_prefix('@') else {
            metadata.insert(key.to_owned(), value.into());
            continue;
        };
        let (what, numbers) = value.split_once(':').unwrap_or((value, ""));
        let (dtype, extents) = what.split_once(' ').unwrap_or((what, ""));
        let numbers: Vec<i64> = numbers.split(',').filter_map(|n| n.trim().parse().ok()).collect();
        let shape: Vec<u64> = extents.split(',').filter_map(|n| n.trim().parse().ok()).collect();
        let bits = serde_json::from_value::<Dtype>(dtype.into()).map_or(8, |d| d.bitsize());
        let elements = shape.iter().try_fold(1u64, |n, extent| n.checked_mul(*extent));
        let bytes = elements.and_then(|n| n.checked_mul(bits as u64)).map_or(u64::MAX, |n| n / 8);
        let from = data.len() as u64;
        if header.contains_key(tensor) {
            continue;
        }
        if let Some(bytes) = usize::try_from(bytes).ok().filter(|n| *n <= MAX_TENSOR) {
            let width = (bits / 8).clamp(1, 8);
            let values =
                numbers.iter().cycle().flat_map(|n| n.to_le_bytes().into_iter().take(width));
            data.extend(values.chain(std::iter::repeat(0)).take(bytes));
        }
        let offsets = [from, from.saturating_add(bytes)];
        let entry = json!({ "dtype": dtype, "shape": shape, "data_offsets": offsets });
        header.insert(tensor.to_owned(), entry);
    }
    header.insert("__metadata__".to_owned(), metadata.into());
    container(&serde_json::Value::from(header).to_string().into_bytes(), &data)
}

/// Slices: what is accepted is written and read again to the same slice, and to the same bytes; and
/// the case that it poses is valid, has the same placements, and can be saved and posed again.
pub fn slice(data: &[u8]) -> bool {
    let file = slice_file(data);
    let slice = match KvSlice::from_bytes("fuzz", &file) {
        Ok(slice) => slice,
        Err(e) => {
            let text = message(&e);
            assert!(text.starts_with("fuzz: "), "{text}");
            return false;
        }
    };
    slice.validate().unwrap_or_else(|e| panic!("accepted, then refused: {e}"));
    slice.warnings().iter().for_each(|w| drop(message(w)));
    let bytes = slice.to_bytes().unwrap_or_else(|e| panic!("read, but not written: {e}"));
    // Numbers may take more digits, and a raw buffer gets its offset; nothing else is added.
    assert!(bytes.len() <= 2 * file.len() + 4096, "{} bytes of {}", bytes.len(), file.len());
    match KvSlice::from_bytes("fuzz", &bytes) {
        Ok(back) => {
            assert_eq!(back, slice);
            assert!(back.to_bytes().is_ok_and(|b| b == bytes), "equal slices, other bytes");
        }
        Err(e) => panic!("written, but not read: {e}"),
    }
    for tensor in [&slice.q, &slice.k, &slice.v, &slice.out] {
        let values = tensor.values();
        assert!(values.is_none_or(|v| v.len() == tensor.len()), "{:?}", tensor.shape);
    }
    match slice.placements() {
        Ok(all) => {
            for (place, t) in
                [(&all.q, &slice.q), (&all.k, &slice.k), (&all.v, &slice.v), (&all.out, &slice.out)]
            {
                assert!(place.span() <= t.len(), "{place:?} of {} elements", t.len());
                places(place);
            }
        }
        Err(e) => drop(message(&e)),
    }
    match slice.to_case() {
        Ok(posed) => {
            case(&posed);
            assert_eq!(posed.placements().ok(), slice.placements().ok(), "{posed}");
            save_again(&slice, &posed);
        }
        Err(e) => drop(message(&e)),
    }
    true
}

/// Saves the case of a slice with the slice's buffers.
fn save_again(slice: &KvSlice, posed: &Case) {
    let zeros = |n: usize| vec![0u8; 4 * n];
    let (lse, sinks) = (zeros(posed.batch() * posed.num_heads), zeros(posed.num_heads));
    let saved = Saved {
        case: posed,
        kernel: "fuzz",
        property: "fuzz",
        q: &slice.q.bytes,
        k: &slice.k.bytes,
        v: &slice.v.bytes,
        out: &slice.out.bytes,
        lse: Some(&lse),
        sinks: posed.sinks.then_some(&sinks),
        promises: Some(slice.promises()),
    };
    let again = match KvSlice::from_case("fuzz", &saved) {
        Ok(again) => again,
        Err(e) => panic!("{posed} cannot be saved: {e}"),
    };
    let bytes = again.to_bytes().unwrap_or_else(|e| panic!("{posed} is not written: {e}"));
    let back = KvSlice::from_bytes("fuzz", &bytes);
    let back = back.unwrap_or_else(|e| panic!("{posed} is written, but not read: {e}"));
    let whole = |t: &Tensor, u: &Tensor| t.dtype == u.dtype && t.bytes == u.bytes;
    assert!(whole(&back.q, &slice.q) && whole(&back.k, &slice.k), "{posed}");
    assert!(whole(&back.v, &slice.v) && whole(&back.out, &slice.out), "{posed}");
    let posed_again = back.to_case().unwrap_or_else(|e| panic!("{posed} is not posed again: {e}"));
    assert_eq!(posed_again.placements(), posed.placements(), "{posed}, then {posed_again}");
    assert_eq!(posed_again.seq_lens, posed.seq_lens);
    assert_eq!(back.promises(), slice.promises());
    assert_eq!(back.case, Some(posed.to_string()));
}

/// Manifests: what is accepted reads again to the same, takes a case that is made to fit, and has a
/// source, scratch buffers and launches for it, or says in one line why not.
pub fn manifest(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let manifest = match Manifest::parse(text, Path::new("dir/fuzz.toml")) {
        Ok(manifest) => manifest,
        Err(e) => {
            let shown = message(&e);
            assert!(shown.starts_with(&format!("dir/fuzz.toml:{}: ", e.line)), "{shown}");
            // A mistake at the very end lies on the line after the last.
            assert!((1..=text.split('\n').count()).contains(&e.line), "{shown}");
            return false;
        }
    };
    assert_eq!(Manifest::parse(text, Path::new("dir/fuzz.toml")).as_ref(), Ok(&manifest));
    if let Err(e) = manifest.judged() {
        message(&e);
    }
    let s = &manifest.supports;
    for range in
        [&s.head_dim, &s.group, &s.hidden, &s.seq_len, &s.batch].into_iter().chain(&s.head_dim_v)
    {
        steps(range);
    }
    let plain: Case = "hq=2,hkv=1,d=8,n=3".parse().expect("a constant id");
    if let Err(e) = manifest.supports(&plain) {
        message(&e);
    }
    let Some(fitting) = fitting(&manifest) else { return true };
    manifest.supports(&fitting).unwrap_or_else(|e| panic!("{e}: {fitting}"));
    let placements = fitting.placements().unwrap_or_else(|e| panic!("{e}: {fitting}"));
    let env = Env::new(&fitting, &placements);
    match manifest.scratch_sizes(&env) {
        Ok(sizes) => {
            assert_eq!(sizes.len(), manifest.scratch.len());
            assert!(sizes.iter().all(|s| isize::try_from(s.bytes()).is_ok()));
        }
        Err(e) => drop(message(&e)),
    }
    let source = match manifest.source(&env) {
        Ok(source) => source,
        Err(e) => {
            message(&e);
            return true;
        }
    };
    assert_eq!(source.defines.len(), manifest.defines.len());
    let distinct: BTreeSet<&String> = source.entries.iter().collect();
    assert!(distinct.len() == source.entries.len() && distinct.len() <= manifest.launches.len());
    let entries = source.entries;
    let module = Module::uncompiled(entries.len(), env.wave);
    match manifest.launches(&env, &module, &|_| Ok(Arg::Address(0))) {
        Ok(launches) => {
            assert!(launches.len() <= manifest.launches.len());
            for launch in launches {
                assert!(launch.grid.iter().chain(&launch.block).all(|n| *n > 0));
                assert!(launch.entry < entries.len());
            }
        }
        Err(e) => {
            let shown = message(&e);
            assert!(shown.starts_with(&manifest.name), "{shown}");
        }
    }
    for arg in manifest.launches.iter().flat_map(|l| &l.args) {
        assert!(!matches!(arg, ArgSpec::Scratch(i) if *i >= manifest.scratch.len()));
        message(&manifest.arg_name(arg));
    }
    assert!(manifest.scratch.iter().all(|s| ScratchType::ALL.contains(&s.dtype)));
    true
}

/// The neighbours that a range names lie in it, and none is between.
fn steps(range: &Range) {
    message(range);
    for x in [0, 1, 7, 8, 64, 1000, usize::MAX] {
        let (up, down) = (range.at_least(x), range.at_most(x));
        assert!(up.is_none_or(|y| y >= x && range.contains(y)), "{range}: {up:?} from {x}");
        assert!(down.is_none_or(|y| y <= x && range.contains(y)), "{range}: {down:?} to {x}");
        assert!(!range.contains(x) || (up, down) == (Some(x), Some(x)), "{range}: {x}");
    }
}

/// A small case inside the manifest's bounds, where there is one.
fn fitting(manifest: &Manifest) -> Option<Case> {
    let s = &manifest.supports;
    let head_dim = s.head_dim.at_least(1)?;
    // A batch costs a length a sequence, so a large one would be this function's own doing.
    let batch = s.batch.at_least(1).filter(|n| *n <= 64)?;
    let stage = manifest.stage;
    let seq_len = if stage.has_keys() { s.seq_len.at_least(2)? } else { 1 };
    let mut case =
        Case::plain(s.group.at_least(1)?, 1, head_dim, vec![seq_len; batch]).for_stage(stage);
    if stage.has_hidden() {
        case.hidden = s.hidden.at_least(1)?;
    }
    if let Some(range) = s.head_dim_v.as_ref().filter(|_| stage != Stage::Append) {
        case.head_dim_v = range.at_least(1)?;
    }
    case.dtypes = *s.dtypes.first()?;
    case.k.layout = manifest.layouts.k.iter().find(|l| l.axes().is_ok())?.clone();
    case.v.layout = manifest.layouts.v.iter().find(|l| l.axes().is_ok())?.clone();
    manifest.complete(&mut case);
    case.validate().ok()?;
    // Its strides follow from the extents; whether they are aligned is not this function's choice.
    (s.align.is_none()).then_some(case)
}

/// Expressions and templates: meaning is kept under parentheses and signs, values read back.
pub fn expr(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let env = |name: &str| match name.len() % 8 {
        0 => None,
        1 => Some(Value::Int(-3)),
        2 => Some(Value::Float(0.5)),
        3 => Some(Value::Int(0)),
        4 => Some(Value::Int(i64::MAX)),
        5 => Some(Value::Float(f64::INFINITY)),
        n => Some(Value::Int(n as i64)),
    };
    let dtypes = DTypes::uniform(DType::F16);
    for template in [Template::parse(text), Template::parse_define(text)] {
        match template {
            Ok(template) => {
                assert_eq!(template.to_string(), text);
                if let Err(e) = template.render(dtypes, &env) {
                    message(&e);
                }
            }
            Err(e) => drop(message(&e)),
        }
    }
    let parsed = match Expr::parse(text) {
        Ok(parsed) => parsed,
        Err(e) => {
            assert!((1..=text.chars().count() + 1).contains(&e.column), "{e}");
            message(&e);
            return false;
        }
    };
    assert_eq!(parsed.text(), text);
    if let Err(e) = parsed.check(["head_dim", "batch"]) {
        message(&e);
    }
    let value = parsed.eval(&env);
    assert_eq!(parsed.eval(&env), value);
    // The same again, by other words. One parenthesis more may be one too many.
    let again = |text: String| Expr::parse(&text).ok().map(|e| e.eval(&env).ok());
    for other in
        [format!("({text})"), format!("min({text}, {text})"), format!("max({text},{text})")]
    {
        assert!(again(other.clone()).is_none_or(|v| v == value.clone().ok()), "{other}");
    }
    match value {
        Ok(value) => {
            assert!(value.as_f64().is_finite(), "{text}");
            // The least integer has no positive counterpart, so its text is none that C++ reads either.
            if value != Value::Int(i64::MIN) {
                assert_eq!(again(value.to_string()), Some(Some(value)), "{text}");
                let twice = again(format!("-(-({text}))"));
                assert!(twice.is_none_or(|v| v == Some(value)), "{text}");
            }
        }
        Err(e) => {
            assert!((1..=text.chars().count()).contains(&e.column), "{e}");
            message(&e);
        }
    }
    parsed.describe_values(&env);
    true
}

/// Traces: every known event is a row in file order, with a verdict and one line a note; judging
/// twice gives the same; a file beside itself proves nothing wrong.
pub fn trace(data: &[u8]) -> bool {
    let rows = |file: usize| -> Result<(Vec<Row>, trace::Skipped), String> {
        let mut judge = Judge::new(file);
        let read = trace::read_from(Path::new("fuzz"), &mut &data[..], &mut |e| judge.add(e));
        let skipped = read.map_err(|e| message(&e))?;
        Ok((judge.finish(), skipped))
    };
    let (first, skipped) = match rows(0) {
        Ok(read) => read,
        Err(text) => {
            assert!(text.starts_with("fuzz: no known event"), "{text}");
            return false;
        }
    };
    let lines = data.split(|b| *b == b'\n').count() as u64;
    assert!(first.len() as u64 + skipped.total() <= lines);
    assert!(first.windows(2).all(|two| two[0].line < two[1].line));
    for row in &first {
        assert!(!row.notes.is_empty(), "{row:?}");
        row.notes.iter().for_each(|note| drop(message(note)));
        assert_eq!(row.verdict == Verdict::Invalid, row.numbers == Numbers::None, "{row:?}");
        assert_eq!(row.verdict == Verdict::Explained, row.fault.is_some(), "{row:?}");
        assert!(row.ratio.is_none_or(|r| r.is_finite() && r >= 0.0), "{row:?}");
        let clean_ratio = row.verdict != Verdict::Clean || row.ratio.is_none_or(|r| r <= 1.0);
        assert!(clean_ratio, "{row:?}");
    }
    let mut all = first.clone();
    match rows(1) {
        Ok((again, _)) => all.extend(again),
        Err(e) => panic!("read once, and then: {e}"),
    }
    let pairs = compare(&all);
    assert!(pairs.iter().all(|p| !p.proves_wrong() && p.wrong.is_none()), "{pairs:?}");
    let names = vec!["a".to_owned(), "b".to_owned()];
    note_pairs(&mut all, &pairs, &names);
    let files = names.clone();
    let skipped = vec![skipped.clone(), skipped];
    let report = Report { names, files, skipped, rows: all, pairs };
    let text = report.text();
    assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
    let document = report.json();
    assert_eq!(document["rows"].as_array().map(Vec::len), Some(2 * first.len()));
    true
}
