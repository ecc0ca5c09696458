//! One-line ids of cases.
//!
//! An id such as `b=2,hq=8,hkv=2,d=128,n=[17,0],w=16,dt=f16,k=NHD+pad8,v=HDN,wave=32,data=gauss,seed=7`
//! prints every field that is not at its default, and parses back to the same case.

use super::names::nearest;
use super::text::clip;
use super::{Case, CaseError, Form, Layout, Pointer, Regime, Stage, Storage};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

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
            let wrong = |_| format!("`{}` in storage `{}` is no element count", clip(t), clip(s));
            t.parse::<usize>().map_err(wrong)
        };
        let (head, offset) = match s.split_once('@') {
            Some((head, offset)) => (head, number(offset)?),
            None => (s, 0),
        };
        let (layout, form) = if let Some((layout, pads)) = head.split_once("+pad") {
            let pads = pads.split('.').map(number).collect::<Result<Vec<_>, _>>()?;
            (layout, Form::Pads(pads))
        } else if let Some((layout, strides)) = head.split_once('[') {
            let strides = strides.strip_suffix(']').ok_or_else(|| {
                format!("storage `{}`: the list of strides has no closing ]", clip(s))
            })?;
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

fn join<T: fmt::Display>(items: &[T], separator: &str) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join(separator)
}

const KEYS: [&str; 28] = [
    "stage", "b", "hq", "hkv", "d", "dv", "n", "cap", "w", "softcap", "sinks", "scale", "rope",
    "hidden", "eps", "dt", "k", "v", "q", "out", "scores", "probs", "layers", "layer", "wave",
    "data", "seed", "order",
];

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain =
            Case::plain(self.num_heads, self.num_kv_heads, self.head_dim, self.seq_lens.clone())
                .for_stage(self.stage);
        if self.stage != Stage::Decode {
            write!(f, "stage={},", self.stage)?;
        }
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
        if let Some(rope) = &self.rope {
            write!(f, ",rope={rope}")?;
        }
        if self.hidden != plain.hidden {
            write!(f, ",hidden={}", self.hidden)?;
        }
        if self.eps.to_bits() != plain.eps.to_bits() {
            write!(f, ",eps={}", self.eps)?;
        }
        write!(f, ",dt={}", self.dtypes)?;
        for (key, pointer, ours, default) in [
            ("k", Pointer::K, &self.k, &plain.k),
            ("v", Pointer::V, &self.v, &plain.v),
            ("q", Pointer::Q, &self.q, &plain.q),
            ("out", Pointer::Out, &self.out, &plain.out),
            ("scores", Pointer::Scores, &self.scores, &plain.scores),
            ("probs", Pointer::Probs, &self.probs, &plain.probs),
        ] {
            // K and V are always told where the stage has them: a reader asks for them first.
            let told = matches!(key, "k" | "v") && self.stage.port(pointer).is_some();
            if told || ours != default {
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
                key: clip(key),
                value: clip(value),
                why: why.to_owned(),
            };
            let (key, value) = part
                .split_once('=')
                .ok_or_else(|| field(part, "", "write key=value pairs separated by commas"))?;
            if let Some(name) = key.strip_prefix("p.") {
                let value: i64 = value
                    .parse()
                    .map_err(|_| field(key, value, "a kernel's parameter is an integer"))?;
                if params.insert(name.to_owned(), value).is_some() {
                    return Err(field(key, &value.to_string(), TWICE));
                }
                continue;
            }
            if !KEYS.contains(&key) {
                let shown = clip(key);
                let nearest = nearest(key, KEYS.iter().copied());
                return Err(CaseError::Key {
                    key: shown,
                    nearest,
                    known: format!("{} p.NAME", KEYS.join(" ")),
                });
            }
            if fields.insert(key, value).is_some() {
                return Err(field(key, value, TWICE));
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
            Case::plain(parsed("hq").get()?, parsed("hkv").get()?, parsed("d").get()?, seq_lens)
                .for_stage(parsed("stage").get_or(Stage::Decode)?);
        case.head_dim_v = parsed("dv").get_or(case.head_dim_v)?;
        case.capacity = parsed("cap").get_or(case.capacity)?;
        case.window_len = parsed("w").get_or(0)?;
        case.softcap = parsed("softcap").get_or(0.0)?;
        case.sinks = parsed("sinks").get_or(0u8)? != 0;
        case.scale = parsed("scale").get_or(case.scale)?;
        case.rope = parsed("rope").optional()?;
        case.hidden = parsed("hidden").get_or(case.hidden)?;
        case.eps = parsed("eps").get_or(case.eps)?;
        case.dtypes = parsed("dt").get_or(case.dtypes)?;
        case.k = parsed("k").get_or(case.k)?;
        case.v = parsed("v").get_or(case.v)?;
        case.q = parsed("q").get_or(case.q)?;
        case.out = parsed("out").get_or(case.out)?;
        case.scores = parsed("scores").get_or(case.scores)?;
        case.probs = parsed("probs").get_or(case.probs)?;
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

/// More sequences than this in one case are a typing error, not a batch: no grid has as many blocks
/// along its second or third axis. A short id asks for a length each, so there must be some end.
pub(crate) const MAX_BATCH: usize = 1 << 16;

/// Why a key is refused the second time.
const TWICE: &str = "the key occurs twice; write it once";

/// One field of an id on its way to a value.
struct Fields<'a> {
    fields: &'a BTreeMap<&'a str, &'a str>,
    key: &'static str,
}

impl Fields<'_> {
    fn error(&self, value: &str, why: String) -> CaseError {
        CaseError::Field { key: self.key.to_owned(), value: clip(value), why }
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

    fn optional<T: FromStr<Err: fmt::Display>>(&self) -> Result<Option<T>, CaseError> {
        self.fields.get(self.key).map(|v| self.parse(v)).transpose()
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
        for id in [
            "stage=append,b=1,hq=2,hkv=2,d=8,n=3,rope=half:10000,dt=f32,k=HND,v=HDN,wave=32,data=gauss,seed=1",
            "stage=prefill,b=1,hq=2,hkv=2,d=8,n=3,w=2,dt=f32,k=HND,v=HND,q=NHD+pad3,wave=32,data=gauss,seed=1",
            "stage=softmax,b=1,hq=2,hkv=2,d=8,n=3,dt=f32,scores=HN+pad1.2@1,probs=HN+pad3,wave=32,data=gauss,seed=1",
            "stage=merge,b=2,hq=2,hkv=2,d=8,n=[1,1],dt=f32,p.splits=5,wave=64,data=gauss,seed=1",
            "stage=norm,b=1,hq=1,hkv=1,d=1,n=1,hidden=48,eps=0.001,dt=f32,q=HD+pad3,wave=64,data=gauss,seed=1",
        ] {
            assert_eq!(id.parse::<Case>().unwrap().to_string(), id);
        }
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
            ("stage=append,hq=1,hkv=1,d=4,n=0", "n=0 in stage `append`"),
            ("stage=append,hq=1,hkv=1,d=3,n=1,rope=half:10000", "d=3 is odd"),
            ("stage=pv,hq=1,hkv=1,d=3,n=1,softcap=2", "`pv` has no softcap"),
            ("stage=merge,hq=1,hkv=1,d=3,n=1", "needs the parameter splits"),
            ("stage=norm,hq=1,hkv=1,d=3,n=2", "has no keys"),
            ("stage=norm,hq=1,hkv=1,d=3,n=1,eps=0", "eps=0 must be"),
            ("stage=nor,hq=1,hkv=1,d=3,n=1", "did you mean `norm`"),
            ("hq=1,hkv=1,d=3,n=1,rope=half", "`decode` has no RoPE"),
            ("hq=1,hkv=1,d=3,n=1,k=HN", "k=HN has no axis D"),
            ("hq=1,hkv=1,d=3,n=1,scores=HD", "scores=HD must be over the axes HN"),
            ("hq=1,hkv=1,d=4,n=9,p.tile=1,p.tile=2", "`p.tile=2`: the key occurs twice"),
            // These printed as ids of other cases, or as none.
            ("hq=1,hkv=1,d=4,n=9,p.a[=1", "`a[` is no identifier"),
            ("hq=1,hkv=1,d=4,n=9,p.=1", "`` is no identifier"),
            ("hq=1,hkv=1,d=4,n=9,data=slice:a[", "`data=slice:a[`"),
            ("b=65537,hq=1,hkv=1,d=4,n=9", "n lists 1 lengths"),
            // Control characters would leave the message's line.
            ("hq=1,hkv=1,d=4,n=9,k=H\nD", "layout `H?D`: `\\n` is no axis"),
            ("hq=1,hkv=1,d=4,n=9,\u{7}=1", "unknown key `?`"),
        ] {
            let text = id.parse::<Case>().expect_err(id).to_string();
            assert!(text.contains(says), "{id}: {text}");
            assert!(!text.contains(char::is_control), "{id}: {text:?}");
        }
        let long = "x".repeat(1 << 20);
        for id in
            [format!("hq={long}"), format!("{long}=1"), format!("hq=1,d=4,n=1,hkv=1,k={long}")]
        {
            let text = id.parse::<Case>().unwrap_err().to_string();
            assert!(text.len() < 500, "{} bytes", text.len());
        }
    }
}
