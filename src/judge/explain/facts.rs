//! Facts about a case: what can be said of it that may decide whether a kernel fails on it.
//!
//! A case has *properties*: numbers (`seq_len`, a tunable), words (a layout, a type) and yes-or-no
//! questions (`ragged`). A *fact* is a statement about one property, such as `batch >= 2`. The
//! trigger search asks which facts all failing cases share.

use crate::kernel::Manifest;
use crate::problem::{Axis, Case, Layout, Placement, Pointer, Regime, Storage, default_scale};
use std::collections::BTreeMap;
use std::fmt;

/// What a case has for a property.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    /// A number.
    Number(i64),
    /// One of several words.
    Word(String),
    /// An answer to a question.
    Answer(bool),
}

/// Tile sizes by which a length or a head vector may leave a rest.
const TILES: [usize; 7] = [4, 8, 16, 32, 64, 128, 256];

/// Bytes that a vector load wants an address to be a multiple of.
const VECTOR: usize = 16;

/// The properties of a case by name.
pub type Properties = BTreeMap<String, Value>;

/// The properties of a case of a kernel.
pub fn properties(case: &Case, manifest: &Manifest) -> Properties {
    let mut all = List::with_capacity(80);
    numbers(case, manifest, &mut all);
    words(case, &mut all);
    answers(case, manifest, &mut all);
    all.into_iter().collect()
}

type List = Vec<(String, Value)>;

/// Keys that the last token of each sequence attends.
fn attended(case: &Case) -> impl Iterator<Item = usize> + Clone {
    (0..case.batch()).map(|s| case.attended(s).len())
}

fn numbers(case: &Case, manifest: &Manifest, all: &mut List) {
    let stage = case.stage;
    let (keys, heads) = (stage.has_keys(), stage.has_heads());
    let shortest = case.seq_lens.iter().copied().min().unwrap_or(0);
    let attended = attended(case).max().unwrap_or(0);
    for (name, has, value) in [
        ("batch", true, case.batch()),
        ("num_kv_heads", heads, case.num_kv_heads),
        ("group", heads, case.group()),
        ("num_heads", heads, case.num_heads),
        ("head_dim", heads, case.head_dim),
        ("head_dim_v", stage.port(Pointer::V).is_some(), case.head_dim_v),
        ("seq_len", keys, case.seq_len()),
        ("the shortest sequence", keys && case.batch() > 0, shortest),
        ("the keys attended", keys, attended),
        ("window_len", stage.has_window(), case.window_len),
        ("capacity - seq_len", keys, case.capacity.saturating_sub(case.seq_len())),
        ("layers", true, case.layers),
        ("layer", true, case.layer),
        ("hidden", stage.has_hidden(), case.hidden),
    ] {
        if has {
            all.push((name.to_owned(), Value::Number(value as i64)));
        }
    }
    for param in &manifest.params {
        let value = case.params.get(&param.name).copied().unwrap_or(0);
        all.push((param.name.clone(), Value::Number(value)));
    }
}

fn words(case: &Case, all: &mut List) {
    let has = |pointer| case.stage.port(pointer).is_some();
    let [q, kv, out] = case.stage.types();
    let layout = |l: &Layout| {
        let one = l.without(Axis::Layer).to_string();
        one.strip_prefix('S').unwrap_or(&one).to_owned()
    };
    for (name, has, value) in [
        ("wave", true, case.wave.to_string()),
        ("dtype", true, case.dtypes.to_string()),
        ("q dtype", q, case.dtypes.q.to_string()),
        ("kv dtype", kv, case.dtypes.kv.to_string()),
        ("out dtype", out, case.dtypes.out.to_string()),
        ("k layout", has(Pointer::K), layout(&case.k.layout)),
        ("v layout", has(Pointer::V), layout(&case.v.layout)),
        ("data", true, case.regime.family().to_owned()),
        ("data of", true, case.regime.to_string()),
        ("rope", case.rope.is_some(), case.rope.map_or(String::new(), |r| r.style.to_string())),
    ] {
        if has {
            all.push((name.to_owned(), Value::Word(value)));
        }
    }
}

fn answers(case: &Case, manifest: &Manifest, all: &mut List) {
    let stage = case.stage;
    let has = |pointer| stage.port(pointer).is_some();
    let mut ask = |name: &str, answer: bool| {
        all.push((name.to_owned(), Value::Answer(answer)));
    };
    if stage.has_keys() {
        ask("ragged", case.is_ragged());
        ask("an empty sequence", case.seq_lens.contains(&0));
        ask("several keys", case.seq_lens.iter().any(|n| *n > 1));
        ask("spare rows in the cache", case.capacity > case.seq_len());
        for tile in tiles(manifest) {
            let rest = |n: &usize| *n > 0 && !n.is_multiple_of(tile);
            ask(&format!("seq_len % {tile} != 0"), case.seq_lens.iter().any(rest));
        }
    }
    if stage.has_window() {
        ask("a window", case.window_len > 0);
        let cuts = |n: &usize| case.window_len > 0 && *n > case.window_len;
        ask("window < seq_len", case.seq_lens.iter().any(cuts));
        let late = case.seq_lens.iter().filter(|n| cuts(n)).count();
        ask("a window in a ragged batch", case.is_ragged() && late > 0);
    }
    if stage.has_softcap() {
        ask("softcap", case.softcap > 0.0);
    }
    if stage.has_sinks() {
        ask("sinks", case.sinks);
    }
    if stage.has_heads() {
        for tile in TILES {
            ask(&format!("head_dim % {tile} != 0"), !case.head_dim.is_multiple_of(tile));
            if has(Pointer::V) {
                let rest = !case.head_dim_v.is_multiple_of(tile);
                ask(&format!("head_dim_v % {tile} != 0"), rest);
            }
        }
        ask("num_kv_heads = group", case.num_kv_heads == case.group());
        ask("scale = 1/sqrt(head_dim)", case.scale == default_scale(case.head_dim));
        ask("scale < 0", case.scale < 0.0);
    }
    if has(Pointer::V) {
        ask("head_dim_v > head_dim", case.head_dim_v > case.head_dim);
        ask("head_dim_v = head_dim", case.head_dim_v == case.head_dim);
    }
    let splits = case.splits();
    if splits > 0 && stage.has_keys() {
        let empty = |n: usize| n.div_ceil(splits) * (splits - 1) >= n;
        let keys = attended(case);
        ask("a split without keys", keys.clone().any(|n| n > 0 && empty(n)));
        ask("more splits than keys", keys.clone().any(|n| splits > n));
        ask("keys % splits != 0", keys.into_iter().any(|n| n % splits != 0));
    }
    ask("several layers", case.layers > 1);
    ask("data that is not finite", case.regime == Regime::NonFinite);
    storage_answers(case, all);
}

fn storage_answers(case: &Case, all: &mut List) {
    let has = |pointer| case.stage.port(pointer).is_some();
    all.push(("padding".to_owned(), Value::Answer(case.is_padded())));
    let Ok(places) = case.placements() else { return };
    let kv = case.dtypes.kv.size();
    let tensors: [(&str, bool, &Storage, &Placement, usize); 4] = [
        ("q", has(Pointer::Q) || has(Pointer::X), &case.q, &places.q, case.dtypes.q.size()),
        ("k", has(Pointer::K), &case.k, &places.k, kv),
        ("v", has(Pointer::V), &case.v, &places.v, kv),
        ("out", has(Pointer::Out), &case.out, &places.out, case.dtypes.out.size()),
    ];
    for (name, _, storage, place, size) in tensors.into_iter().filter(|(_, has, ..)| *has) {
        let mut ask = |what: String, answer: bool| all.push((what, Value::Answer(answer)));
        ask(format!("padded {name}"), storage.is_padded());
        let unaligned = |elements: usize| !(elements * size).is_multiple_of(VECTOR);
        ask(format!("an unaligned base of {name}"), unaligned(place.offset()));
        let strides = place.strides();
        let rows = strides.iter().filter(|stride| **stride > 1);
        ask(format!("unaligned rows of {name}"), rows.into_iter().any(|s| unaligned(*s)));
    }
    if has(Pointer::K) && has(Pointer::V) {
        let same = places.k.strides() == places.v.strides();
        all.push(("K and V of equal strides".to_owned(), Value::Answer(same)));
        let same = case.k.layout == case.v.layout;
        all.push(("K and V of one layout".to_owned(), Value::Answer(same)));
    }
}

/// Tiles by which a length may leave a rest: powers of two, and the kernel's own tunables.
fn tiles(manifest: &Manifest) -> Vec<usize> {
    let own = manifest.params.iter().flat_map(|p| &p.values);
    let own = own.filter_map(|v| usize::try_from(*v).ok()).filter(|v| (3..=1024).contains(v));
    let mut all: Vec<usize> = TILES.into_iter().chain(own).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// A statement about one property.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fact {
    /// The property's name.
    pub name: String,
    /// What is stated.
    pub is: Is,
}

/// What a fact states of its property.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Is {
    /// This value.
    Equal(Value),
    /// Any other than this value.
    Not(Value),
    /// This number or more.
    AtLeast(i64),
    /// This number or less.
    AtMost(i64),
}

impl Fact {
    /// Whether it holds of a case with these properties.
    pub fn holds(&self, properties: &Properties) -> bool {
        let Some(value) = properties.get(&self.name) else { return false };
        match (&self.is, value) {
            (Is::Equal(is), value) => is == value,
            (Is::Not(is), value) => is != value,
            (Is::AtLeast(least), Value::Number(n)) => n >= least,
            (Is::AtMost(most), Value::Number(n)) => n <= most,
            _ => false,
        }
    }

    /// How far the statement is from one that a person would expect: of two that separate equally
    /// well, the one with the smaller number is told.
    pub fn oddness(&self) -> u32 {
        let derived =
            ["the keys attended", "the shortest sequence", "num_heads", "capacity - seq_len"];
        let storage = ["unaligned", "padded ", "K and V", "data of"];
        let own = match &self.is {
            Is::Equal(Value::Answer(true)) => 0,
            Is::Equal(Value::Answer(false)) => 3,
            Is::Equal(Value::Word(_)) => 1,
            Is::AtLeast(2) => 1,
            Is::AtLeast(n) if n.count_ones() == 1 || (n - 1).count_ones() == 1 => 2,
            Is::Not(_) => 3,
            Is::Equal(Value::Number(_)) => 3,
            Is::AtLeast(_) | Is::AtMost(_) => 4,
        };
        let about = u32::from(derived.contains(&self.name.as_str()))
            + 2 * u32::from(storage.iter().any(|s| self.name.starts_with(s)))
            + u32::from(self.name.contains('%'));
        own + about
    }
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.name;
        let is_statement = [" = ", " < ", " > ", " != "].iter().any(|op| name.contains(op));
        match &self.is {
            Is::Equal(Value::Answer(true)) => f.write_str(name),
            Is::Equal(Value::Answer(false)) if is_statement => f.write_str(&negated(name)),
            Is::Equal(Value::Answer(false)) => {
                write!(f, "no {}", name.trim_start_matches("an ").trim_start_matches("a "))
            }
            Is::Equal(Value::Number(n)) => write!(f, "{name} = {n}"),
            Is::Equal(Value::Word(word)) => write!(f, "{name} = {word}"),
            Is::Not(Value::Number(n)) => write!(f, "{name} != {n}"),
            Is::Not(Value::Word(word)) => write!(f, "{name} != {word}"),
            Is::Not(Value::Answer(answer)) => write!(f, "{name} is not {answer}"),
            Is::AtLeast(n) => write!(f, "{name} >= {n}"),
            Is::AtMost(n) => write!(f, "{name} <= {n}"),
        }
    }
}

/// A comparison's opposite: `a < b` as `a >= b`.
fn negated(statement: &str) -> String {
    for (sign, opposite) in [(" != ", " = "), (" = ", " != "), (" < ", " >= "), (" > ", " <= ")] {
        if statement.contains(sign) {
            return statement.replacen(sign, opposite, 1);
        }
    }
    format!("not {statement}")
}

/// Properties with so many values that one of them says nothing.
const WIDE: [&str; 8] = [
    "data of",
    "seq_len",
    "the shortest sequence",
    "the keys attended",
    "capacity - seq_len",
    "window_len",
    "num_heads",
    "hidden",
];

/// Whether a single value of a property may be told.
pub fn is_narrow(name: &str) -> bool {
    !WIDE.contains(&name)
}
