//! A decode attention case: everything that defines one judged problem, and its one-line id.
//!
//! An id such as `b=2,hq=8,hkv=2,d=128,n=[17,0],w=16,dt=f16,k=NHD+pad8,v=HDN,wave=32,data=gauss,seed=7`
//! prints every field that is not at its default, and parses back to the same case.

use super::{Axis, DType, DTypes, Extents, Layout, LayoutError, Placement, Regime};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// How a tensor lies in memory, before the extents are known.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Storage {
    /// The axes; the batch axis is understood as outermost where it is not written.
    pub layout: Layout,
    /// Padding or explicit strides.
    pub form: Form,
    /// Elements before the first one (a base that is not aligned).
    pub offset: usize,
}

/// Padding or explicit strides of a [`Storage`], in elements.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Form {
    /// Pads from the second innermost axis outwards; missing ones are 0.
    Pads(Vec<usize>),
    /// Strides, outermost first; the batch's may be left out.
    Strides(Vec<usize>),
}

impl Storage {
    /// A contiguous storage.
    pub fn contiguous(layout: Layout) -> Self {
        Storage { layout, form: Form::Pads(Vec::new()), offset: 0 }
    }

    /// A padded storage; trailing pads of 0 say nothing and are dropped.
    pub fn padded(layout: Layout, mut pads: Vec<usize>, offset: usize) -> Self {
        let used = pads.iter().rposition(|p| *p > 0).map_or(0, |i| i + 1);
        pads.truncate(used);
        Storage { layout, form: Form::Pads(pads), offset }
    }

    /// Whether some stride is wider than it must be, or the base is displaced.
    pub fn is_padded(&self) -> bool {
        self.offset > 0
            || match &self.form {
                Form::Pads(p) => p.iter().any(|p| *p > 0),
                Form::Strides(_) => true,
            }
    }

    /// The placement for given extents.
    ///
    /// # Errors
    /// [`LayoutError`], as [`Placement`]'s constructors say.
    pub fn place(&self, extents: Extents) -> Result<Placement, LayoutError> {
        let batched = self.layout.with_batch();
        match &self.form {
            Form::Pads(pads) => Placement::padded(&batched, extents, pads, self.offset),
            Form::Strides(strides) => {
                let mut strides = strides.clone();
                if strides.len() == self.layout.axes()?.len() && !self.layout.has(Axis::Seq) {
                    // The batch's stride follows from one sequence's own span.
                    let one = Extents { batch: 1, ..extents };
                    let span = Placement::strided(&self.layout, one, &strides, 0)?.span();
                    strides.insert(0, span);
                }
                Placement::strided(&batched, extents, &strides, self.offset)
            }
        }
    }
}

impl fmt::Display for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.layout)?;
        match &self.form {
            Form::Pads(pads) => {
                if !pads.is_empty() {
                    write!(f, "+pad{}", join(pads, "."))?;
                }
            }
            Form::Strides(s) => write!(f, "[{}]", join(s, ","))?,
        }
        if self.offset > 0 {
            write!(f, "@{}", self.offset)?;
        }
        Ok(())
    }
}

impl FromStr for Storage {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let number = |t: &str| {
            t.parse::<usize>().map_err(|_| format!("`{t}` in storage `{s}` is no element count"))
        };
        let (head, offset) = match s.split_once('@') {
            Some((head, offset)) => (head, number(offset)?),
            None => (s, 0),
        };
        let (layout, form) = if let Some((layout, pads)) = head.split_once("+pad") {
            let pads = pads.split('.').map(number).collect::<Result<Vec<_>, _>>()?;
            (layout, Form::Pads(pads))
        } else if let Some((layout, strides)) = head.split_once('[') {
            let strides = strides
                .strip_suffix(']')
                .ok_or_else(|| format!("storage `{s}`: the list of strides has no closing ]"))?;
            let strides = strides.split(',').map(number).collect::<Result<Vec<_>, _>>()?;
            (layout, Form::Strides(strides))
        } else {
            (head, Form::Pads(Vec::new()))
        };
        let layout = layout.parse::<Layout>().map_err(|e| e.to_string())?;
        Ok(match form {
            Form::Pads(pads) => Storage::padded(layout, pads, offset),
            form => Storage { layout, form, offset },
        })
    }
}

/// One decode attention problem, and how it is to be run.
///
/// Shapes: q, out `[batch, num_heads, head_dim]`, k `[batch, num_kv_heads, capacity, head_dim]`,
/// v `[batch, num_kv_heads, capacity, head_dim_v]`, each stored as its [`Storage`] says.
#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    /// Query heads; a multiple of `num_kv_heads`.
    pub num_heads: usize,
    /// KV heads.
    pub num_kv_heads: usize,
    /// Elements of a q and k vector.
    pub head_dim: usize,
    /// Elements of a v and out vector.
    pub head_dim_v: usize,
    /// Keys of each sequence; its length is the batch.
    pub seq_lens: Vec<usize>,
    /// Rows allocated along the token axis, at least the longest sequence.
    pub capacity: usize,
    /// Only the last `window_len` keys are attended; 0 means all.
    pub window_len: usize,
    /// `softcap * tanh(s / softcap)` on scores; 0 means none.
    pub softcap: f32,
    /// Whether each head has an attention sink: a logit that takes mass and has no value.
    pub sinks: bool,
    /// Factor on Q·K.
    pub scale: f32,
    /// Element types.
    pub dtypes: DTypes,
    /// Storage of K.
    pub k: Storage,
    /// Storage of V.
    pub v: Storage,
    /// Storage of q, over the axes `S H D`.
    pub q: Storage,
    /// Storage of out, over the axes `S H D`.
    pub out: Storage,
    /// Layers in the K and V buffers (1 without an `L` axis).
    pub layers: usize,
    /// The layer that is attended.
    pub layer: usize,
    /// The kernel's tunables, by name.
    pub params: BTreeMap<String, i64>,
    /// Lanes of a wave: 32 or 64.
    pub wave: u32,
    /// How q, k and v are filled.
    pub regime: Regime,
    /// Seed of the data.
    pub seed: u64,
    /// Seed of the thread order.
    pub order_seed: u64,
}

/// The four placements of a case.
#[derive(Debug, Clone, PartialEq)]
pub struct Placements {
    /// q over `[batch, num_heads, head_dim]`.
    pub q: Placement,
    /// k over `[batch, layers, num_kv_heads, capacity, head_dim]`.
    pub k: Placement,
    /// v over `[batch, layers, num_kv_heads, capacity, head_dim_v]`.
    pub v: Placement,
    /// out over `[batch, num_heads, head_dim_v]`.
    pub out: Placement,
}

/// Why a case is impossible, or its id cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CaseError {
    /// A field whose value cannot be read.
    #[error("case id: `{key}={value}`: {why}")]
    Field {
        /// The key.
        key: String,
        /// What was written.
        value: String,
        /// Why it was refused, and what to write.
        why: String,
    },
    /// A key that no case has.
    #[error("case id: unknown key `{key}`; did you mean `{nearest}`? (known: {known})")]
    Key {
        /// The key.
        key: String,
        /// The nearest known one.
        nearest: String,
        /// All of them.
        known: String,
    },
    /// A key that must be there.
    #[error("case id: `{0}` is missing; an id needs at least hq, hkv, d and n")]
    Missing(&'static str),
    /// Fields that contradict each other.
    #[error("impossible case: {0}")]
    Impossible(String),
    /// A storage that cannot be.
    #[error("impossible case: {tensor}: {source}")]
    Layout {
        /// `q`, `k`, `v` or `out`.
        tensor: &'static str,
        /// What is wrong with it.
        source: LayoutError,
    },
}

/// `1 / sqrt(head_dim)`, rounded to f32 once.
pub fn default_scale(head_dim: usize) -> f32 {
    (1.0 / (head_dim as f64).sqrt()) as f32
}

impl Case {
    /// A plain case to build others from: contiguous `HND`, f32, all keys, wave 32, Gaussian data.
    pub fn plain(
        num_heads: usize,
        num_kv_heads: usize,
        head_dim: usize,
        seq_lens: Vec<usize>,
    ) -> Case {
        let hnd: Layout = "HND".parse().expect("a constant layout");
        let hd: Layout = "HD".parse().expect("a constant layout");
        Case {
            num_heads,
            num_kv_heads,
            head_dim,
            head_dim_v: head_dim,
            capacity: seq_lens.iter().copied().max().unwrap_or(0).max(1),
            seq_lens,
            window_len: 0,
            softcap: 0.0,
            sinks: false,
            scale: default_scale(head_dim),
            dtypes: DTypes::uniform(DType::F32),
            k: Storage::contiguous(hnd.clone()),
            v: Storage::contiguous(hnd),
            q: Storage::contiguous(hd.clone()),
            out: Storage::contiguous(hd),
            layers: 1,
            layer: 0,
            params: BTreeMap::new(),
            wave: 32,
            regime: Regime::Gaussian,
            seed: 0,
            order_seed: 0,
        }
    }

    /// Sequences.
    pub fn batch(&self) -> usize {
        self.seq_lens.len()
    }

    /// Query heads that share a KV head.
    pub fn group(&self) -> usize {
        self.num_heads / self.num_kv_heads
    }

    /// Keys of the longest sequence.
    pub fn seq_len(&self) -> usize {
        self.seq_lens.iter().copied().max().unwrap_or(0)
    }

    /// The attended keys of sequence `s`: all, or the last `window_len`.
    pub fn attended(&self, s: usize) -> std::ops::Range<usize> {
        let n = self.seq_lens[s];
        let first = if self.window_len == 0 { 0 } else { n.saturating_sub(self.window_len) };
        first..n
    }

    /// Whether two sequences differ in length.
    pub fn is_ragged(&self) -> bool {
        self.seq_lens.windows(2).any(|w| w[0] != w[1])
    }

    /// Whether any tensor has wider strides than it must, or a displaced base.
    pub fn is_padded(&self) -> bool {
        [&self.q, &self.k, &self.v, &self.out].iter().any(|s| s.is_padded())
    }

    /// Multiply-adds of Q·K and P·V over attended keys: the cost of judging the case.
    pub fn work(&self) -> usize {
        let keys: usize = (0..self.batch()).map(|s| self.attended(s).len()).sum();
        keys * self.num_heads * (self.head_dim + self.head_dim_v)
    }

    /// Where every element lies.
    ///
    /// # Errors
    /// [`CaseError::Layout`], naming the tensor.
    pub fn placements(&self) -> Result<Placements, CaseError> {
        let place = |tensor, storage: &Storage, heads, tokens, dim| {
            let kv = matches!(tensor, "k" | "v");
            let extents = Extents {
                batch: self.batch(),
                layers: if kv { self.layers } else { 1 },
                heads,
                tokens,
                dim,
            };
            storage.place(extents).map_err(|source| CaseError::Layout { tensor, source })
        };
        Ok(Placements {
            q: place("q", &self.q, self.num_heads, 1, self.head_dim)?,
            k: place("k", &self.k, self.num_kv_heads, self.capacity, self.head_dim)?,
            v: place("v", &self.v, self.num_kv_heads, self.capacity, self.head_dim_v)?,
            out: place("out", &self.out, self.num_heads, 1, self.head_dim_v)?,
        })
    }

    /// Checks that the fields agree with each other, and that every tensor can be placed.
    ///
    /// # Errors
    /// [`CaseError::Impossible`] or [`CaseError::Layout`]: the first contradiction.
    pub fn validate(&self) -> Result<(), CaseError> {
        let fail = |why: String| Err(CaseError::Impossible(why));
        if self.seq_lens.is_empty() {
            return fail("the batch is empty; give at least one sequence length".into());
        }
        for (name, value) in [
            ("hq", self.num_heads),
            ("hkv", self.num_kv_heads),
            ("d", self.head_dim),
            ("dv", self.head_dim_v),
            ("cap", self.capacity),
        ] {
            if value == 0 {
                return fail(format!("{name} is 0; it must be at least 1"));
            }
        }
        if !self.num_heads.is_multiple_of(self.num_kv_heads) {
            return fail(format!(
                "hq={} is no multiple of hkv={}; each KV head serves hq/hkv query heads",
                self.num_heads, self.num_kv_heads
            ));
        }
        if let Some(n) = self.seq_lens.iter().find(|n| **n > self.capacity) {
            return fail(format!(
                "n={n} exceeds cap={}; the cache must hold every key",
                self.capacity
            ));
        }
        if !self.scale.is_finite() {
            return fail(format!("scale={} is not finite", self.scale));
        }
        if !self.softcap.is_finite() || self.softcap < 0.0 {
            return fail(format!("softcap={} must be finite and not negative", self.softcap));
        }
        if self.layer >= self.layers {
            return fail(format!("layer={} of only layers={}", self.layer, self.layers));
        }
        for (tensor, storage) in [("k", &self.k), ("v", &self.v)] {
            if self.layers > 1 && !storage.layout.has(Axis::Layer) {
                return fail(format!(
                    "layers={} but {tensor}={} has no L axis",
                    self.layers, storage.layout
                ));
            }
            if !storage.layout.has(Axis::Token) && !storage.layout.is_paged() {
                return fail(format!("{tensor}={} has no token axis N", storage.layout));
            }
        }
        for (tensor, storage) in [("q", &self.q), ("out", &self.out)] {
            let text = storage.layout.with_batch();
            if text.as_str() != "SHD" {
                return fail(format!("{tensor}={} must be over the axes HD", storage.layout));
            }
        }
        if self.wave != 32 && self.wave != 64 {
            return fail(format!("wave={} must be 32 or 64", self.wave));
        }
        let p = self.placements()?;
        for (tensor, place) in [("q", &p.q), ("out", &p.out)] {
            if self.head_dim.max(self.head_dim_v) > 1 && place.stride(Axis::Dim) != 1 {
                return fail(format!("{tensor} must have unit stride along D"));
            }
        }
        Ok(())
    }
}

fn join<T: fmt::Display>(items: &[T], separator: &str) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join(separator)
}

const KEYS: [&str; 22] = [
    "b", "hq", "hkv", "d", "dv", "n", "cap", "w", "softcap", "sinks", "scale", "dt", "k", "v", "q",
    "out", "layers", "layer", "wave", "data", "seed", "order",
];

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain =
            Case::plain(self.num_heads, self.num_kv_heads, self.head_dim, self.seq_lens.clone());
        write!(
            f,
            "b={},hq={},hkv={},d={}",
            self.batch(),
            self.num_heads,
            self.num_kv_heads,
            self.head_dim
        )?;
        if self.head_dim_v != plain.head_dim_v {
            write!(f, ",dv={}", self.head_dim_v)?;
        }
        match &self.seq_lens[..] {
            [n] => write!(f, ",n={n}")?,
            many => write!(f, ",n=[{}]", join(many, ","))?,
        }
        if self.capacity != plain.capacity {
            write!(f, ",cap={}", self.capacity)?;
        }
        if self.window_len != 0 {
            write!(f, ",w={}", self.window_len)?;
        }
        if self.softcap != 0.0 {
            write!(f, ",softcap={}", self.softcap)?;
        }
        if self.sinks {
            write!(f, ",sinks=1")?;
        }
        if self.scale.to_bits() != plain.scale.to_bits() {
            write!(f, ",scale={}", self.scale)?;
        }
        write!(f, ",dt={},k={},v={}", self.dtypes, self.k, self.v)?;
        for (key, ours, default) in [("q", &self.q, &plain.q), ("out", &self.out, &plain.out)] {
            if ours != default {
                write!(f, ",{key}={ours}")?;
            }
        }
        if self.layers != 1 {
            write!(f, ",layers={},layer={}", self.layers, self.layer)?;
        }
        for (name, value) in &self.params {
            write!(f, ",p.{name}={value}")?;
        }
        write!(f, ",wave={},data={},seed={}", self.wave, self.regime, self.seed)?;
        if self.order_seed != 0 {
            write!(f, ",order={}", self.order_seed)?;
        }
        Ok(())
    }
}

/// Splits at commas that are not inside brackets.
fn split_fields(s: &str) -> Vec<&str> {
    let (mut depth, mut start, mut parts) = (0i32, 0, Vec::new());
    for (i, c) in s.char_indices() {
        match c {
            '[' => depth += 1,
            ']' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&s[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    parts.push(&s[start..]);
    parts
}

impl FromStr for Case {
    type Err = CaseError;

    /// Parses an id and validates the case.
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let mut fields: BTreeMap<&str, &str> = BTreeMap::new();
        let mut params = BTreeMap::new();
        for part in split_fields(s.trim()) {
            let field = |key: &str, value: &str, why: &str| CaseError::Field {
                key: key.to_owned(),
                value: value.to_owned(),
                why: why.to_owned(),
            };
            let (key, value) = part
                .split_once('=')
                .ok_or_else(|| field(part, "", "write key=value pairs separated by commas"))?;
            if let Some(name) = key.strip_prefix("p.") {
                let value = value
                    .parse()
                    .map_err(|_| field(key, value, "a kernel's parameter is an integer"))?;
                params.insert(name.to_owned(), value);
                continue;
            }
            if !KEYS.contains(&key) {
                let nearest = KEYS
                    .iter()
                    .min_by_key(|k| strsim::osa_distance(k, key))
                    .expect("there are keys")
                    .to_string();
                return Err(CaseError::Key {
                    key: key.to_owned(),
                    nearest,
                    known: format!("{} p.NAME", KEYS.join(" ")),
                });
            }
            if fields.insert(key, value).is_some() {
                return Err(field(key, value, "the key occurs twice; write it once"));
            }
        }
        let parsed = |key: &'static str| Fields { fields: &fields, key };
        let seq_lens = parsed("n").list()?;
        let batch = parsed("b").get_or(seq_lens.len())?;
        let seq_lens = match seq_lens[..] {
            [n] if batch > 1 && batch <= MAX_BATCH => vec![n; batch],
            _ => seq_lens,
        };
        if seq_lens.len() != batch {
            return Err(CaseError::Impossible(format!(
                "b={batch}, but n lists {} lengths; give one a sequence",
                seq_lens.len()
            )));
        }
        let mut case =
            Case::plain(parsed("hq").get()?, parsed("hkv").get()?, parsed("d").get()?, seq_lens);
        case.head_dim_v = parsed("dv").get_or(case.head_dim_v)?;
        case.capacity = parsed("cap").get_or(case.capacity)?;
        case.window_len = parsed("w").get_or(0)?;
        case.softcap = parsed("softcap").get_or(0.0)?;
        case.sinks = parsed("sinks").get_or(0u8)? != 0;
        case.scale = parsed("scale").get_or(case.scale)?;
        case.dtypes = parsed("dt").get_or(case.dtypes)?;
        case.k = parsed("k").get_or(case.k)?;
        case.v = parsed("v").get_or(case.v)?;
        case.q = parsed("q").get_or(case.q)?;
        case.out = parsed("out").get_or(case.out)?;
        case.layers = parsed("layers").get_or(1)?;
        case.layer = parsed("layer").get_or(0)?;
        case.wave = parsed("wave").get_or(32)?;
        case.regime = parsed("data").get_or(Regime::Gaussian)?;
        case.seed = parsed("seed").get_or(0)?;
        case.order_seed = parsed("order").get_or(0)?;
        case.params = params;
        case.validate()?;
        Ok(case)
    }
}

/// More sequences than this in one case are a typing error, not a batch.
const MAX_BATCH: usize = 1 << 20;

/// One field of an id on its way to a value.
struct Fields<'a> {
    fields: &'a BTreeMap<&'a str, &'a str>,
    key: &'static str,
}

impl Fields<'_> {
    fn error(&self, value: &str, why: String) -> CaseError {
        CaseError::Field { key: self.key.to_owned(), value: value.to_owned(), why }
    }

    fn parse<T: FromStr<Err: fmt::Display>>(&self, value: &str) -> Result<T, CaseError> {
        value.parse().map_err(|e: T::Err| self.error(value, e.to_string()))
    }

    fn get<T: FromStr<Err: fmt::Display>>(&self) -> Result<T, CaseError> {
        self.parse(self.fields.get(self.key).ok_or(CaseError::Missing(self.key))?)
    }

    fn get_or<T: FromStr<Err: fmt::Display>>(&self, default: T) -> Result<T, CaseError> {
        self.fields.get(self.key).map_or(Ok(default), |v| self.parse(v))
    }

    fn list(&self) -> Result<Vec<usize>, CaseError> {
        let value = self.fields.get(self.key).ok_or(CaseError::Missing(self.key))?;
        let inner = value.strip_prefix('[').map_or(Some(*value), |v| v.strip_suffix(']'));
        let inner = inner.ok_or_else(|| self.error(value, "the list has no closing ]".into()))?;
        inner.split(',').map(|n| self.parse(n)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: &str = "b=2,hq=8,hkv=2,d=128,dv=64,n=[17,0],cap=32,w=16,softcap=30,sinks=1,\
        scale=0.1,dt=f16/f16/f32,k=NHD+pad8,v=HDN[9000,4096,32,1]@3,q=HD+pad3.5@1,out=HD+pad2,\
        p.tile=64,wave=64,data=onehot:last,seed=7,order=9";

    #[test]
    fn ids_print_and_parse_back() {
        let case: Case = FULL.parse().unwrap();
        assert_eq!(case.to_string(), FULL);
        assert_eq!(case.attended(0), 1..17);
        assert_eq!(case.attended(1), 0..0);
        let short: Case = "hq=1,hkv=1,d=4,n=3".parse().unwrap();
        assert_eq!(short.to_string().parse::<Case>().unwrap(), short);
    }

    #[test]
    fn impossible_ids_say_what_and_how_to_mend_it() {
        for (id, says) in [
            ("hq=1,hkv=1,d=4", "`n` is missing"),
            ("hq=3,hkv=2,d=4,n=3", "no multiple of hkv=2"),
            ("hq=1,hkv=1,d=4,n=9,cap=8", "n=9 exceeds cap=8"),
            ("hq=1,hkv=1,d=0,n=9", "d is 0"),
            ("hq=1,hkv=1,d=4,n=9,scale=NaN", "scale=NaN is not finite"),
            ("hq=1,hkv=1,d=4,n=9,wav=32", "did you mean `wave`"),
            ("hq=1,hkv=1,d=4,n=9,k=NXD", "`X` is no axis"),
            ("hq=1,hkv=1,d=4,n=9,k=PHTD", "not driven yet"),
            ("hq=1,hkv=2,d=4,n=x", "`n=x`"),
            ("hq=2,hkv=2,d=4,n=3,k=HND[8,4,1]", "elements overlap"),
            ("b=3,hq=1,hkv=1,d=4,n=[1,2]", "n lists 2 lengths"),
            ("hq=1,hkv=1,d=4,n=[1,2", "no closing ]"),
            ("hq=1,hkv=1,d=4,n=9223372036854775807,cap=9223372036854775807", "63 bits"),
            ("hq=1,hq=2", "occurs twice"),
        ] {
            let text = id.parse::<Case>().expect_err(id).to_string();
            assert!(text.contains(says), "{id}: {text}");
        }
    }
}
