//! The variables that a manifest's expressions see in a case.

use super::expr::Value;
use crate::problem::{Axis, Case, DTypes, Placement, Placements, RopeStyle};
use std::collections::BTreeMap;

/// The variables of every case. A kernel's tunables come on top, and what single stages have
/// ([`crate::problem::Stage::variables`]). Strides are in elements.
pub const VARIABLES: [&str; 40] = [
    "batch",
    "num_heads",
    "num_kv_heads",
    "group",
    "head_dim",
    "head_dim_v",
    "seq_len",
    "capacity",
    "window_len",
    "scale",
    "softcap",
    "layer",
    "pos",
    "page_size",
    "x",
    "wave",
    "q_stride_s",
    "q_stride_h",
    "out_stride_s",
    "out_stride_h",
    "scores_stride_s",
    "scores_stride_h",
    "probs_stride_s",
    "probs_stride_h",
    "k_stride_s",
    "k_stride_l",
    "k_stride_h",
    "k_stride_n",
    "k_stride_d",
    "k_stride_p",
    "k_stride_t",
    "k_stride_x",
    "v_stride_s",
    "v_stride_l",
    "v_stride_h",
    "v_stride_n",
    "v_stride_d",
    "v_stride_p",
    "v_stride_t",
    "v_stride_x",
];

/// The values of the variables in one case, and what else a kernel is compiled for.
#[derive(Debug, Clone, PartialEq)]
pub struct Env {
    values: BTreeMap<String, Value>,
    /// The element types that `{q} {kv} {out}` stand for.
    pub dtypes: DTypes,
    /// Lanes of a wave.
    pub wave: u32,
}

impl Env {
    /// The variables of a case.
    ///
    /// `seq_len` is the longest of the batch and `pos` one less, 0 when it is empty. `page_size`,
    /// `x` and the strides of axes that a layout does not have are 0. `rope_base` is 0 without RoPE;
    /// `q_stride_n` and `out_stride_n` have a value only where those tensors have a token axis.
    pub fn new(case: &Case, placements: &Placements) -> Env {
        let mut values = BTreeMap::new();
        let mut int = |name: &str, value: usize| {
            values.insert(name.to_owned(), Value::Int(to_i64(value)));
        };
        let seq_len = case.seq_len();
        int("batch", case.batch());
        int("num_heads", case.num_heads);
        int("num_kv_heads", case.num_kv_heads);
        int("group", case.num_heads.checked_div(case.num_kv_heads).unwrap_or(0));
        int("head_dim", case.head_dim);
        int("head_dim_v", case.head_dim_v);
        int("seq_len", seq_len);
        int("capacity", case.capacity);
        int("window_len", case.window_len);
        int(
            "layer",
            if case.k.layout.has(Axis::Layer) || case.v.layout.has(Axis::Layer) {
                case.layer
            } else {
                0
            },
        );
        int("pos", seq_len.saturating_sub(1));
        int("page_size", 0);
        int("x", 0);
        int("wave", case.wave as usize);
        int("hidden", case.hidden);
        let interleaved = case.rope.is_some_and(|rope| rope.style == RopeStyle::Interleaved);
        int("rope_interleaved", usize::from(interleaved));
        for (tensor, place) in [("q", &placements.q), ("out", &placements.out)] {
            int(&format!("{tensor}_stride_s"), place.stride(Axis::Seq));
            int(&format!("{tensor}_stride_h"), place.stride(Axis::Head));
            if place.layout().has(Axis::Token) {
                int(&format!("{tensor}_stride_n"), place.stride(Axis::Token));
            }
        }
        for (tensor, place) in [("scores", &placements.scores), ("probs", &placements.probs)] {
            int(&format!("{tensor}_stride_s"), place.stride(Axis::Seq));
            int(&format!("{tensor}_stride_h"), place.stride(Axis::Head));
        }
        for (tensor, place) in [("k", &placements.k), ("v", &placements.v)] {
            for letter in "slhndptx".chars() {
                int(&format!("{tensor}_stride_{letter}"), stride(place, letter));
            }
        }
        let mut env = Env { values, dtypes: case.dtypes, wave: case.wave };
        env.set("scale", Value::Float(case.scale.into()));
        env.set("softcap", Value::Float(case.softcap.into()));
        env.set("eps", Value::Float(case.eps.into()));
        env.set("rope_base", Value::Float(case.rope.map_or(0.0, |rope| rope.base).into()));
        for (name, value) in &case.params {
            // A tunable never hides a variable: manifests that would are refused at load.
            env.values.entry(name.clone()).or_insert(Value::Int(*value));
        }
        env
    }

    /// The value of a variable.
    pub fn get(&self, name: &str) -> Option<Value> {
        self.values.get(name).copied()
    }

    /// Sets a variable.
    pub fn set(&mut self, name: &str, value: Value) {
        self.values.insert(name.to_owned(), value);
    }
}

fn stride(place: &Placement, letter: char) -> usize {
    Axis::from_letter(letter.to_ascii_uppercase()).map_or(0, |axis| place.stride(axis))
}

/// Extents beyond 63 bits never pass [`Case::validate`]; should one come, it stays the largest.
fn to_i64(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(id: &str) -> Env {
        let case: Case = id.parse().unwrap();
        Env::new(&case, &case.placements().unwrap())
    }

    #[test]
    fn every_variable_has_a_value() {
        let env = env("b=1,hq=4,hkv=2,d=8,n=3");
        for name in VARIABLES {
            assert!(env.get(name).is_some(), "{name}");
        }
        assert_eq!(env.get("q_stride_n"), None);
        assert_eq!(env.get("splits"), None);
    }

    #[test]
    fn values_of_a_case_by_hand() {
        let env = env("b=2,hq=4,hkv=2,d=8,dv=4,n=[3,5],cap=6,w=2,softcap=30,scale=0.5,\
                       k=LHND+pad1,v=LHDN,q=HD+pad3,layers=3,layer=2,p.splits=4,wave=64");
        let want = [
            ("batch", 2),
            ("num_heads", 4),
            ("num_kv_heads", 2),
            ("group", 2),
            ("head_dim", 8),
            ("head_dim_v", 4),
            ("seq_len", 5),
            ("capacity", 6),
            ("window_len", 2),
            ("layer", 2),
            ("pos", 4),
            ("wave", 64),
            ("splits", 4),
            ("q_stride_h", 11),
            ("q_stride_s", 44),
            ("out_stride_h", 4),
            ("out_stride_s", 16),
            ("scores_stride_h", 6),
            ("scores_stride_s", 24),
            ("probs_stride_h", 6),
            ("probs_stride_s", 24),
            ("k_stride_n", 9),
            ("k_stride_h", 54),
            ("k_stride_l", 108),
            ("k_stride_s", 324),
            ("k_stride_d", 1),
            ("k_stride_p", 0),
            ("v_stride_n", 1),
            ("v_stride_d", 6),
            ("v_stride_h", 24),
            ("v_stride_s", 144),
            ("v_stride_l", 48),
            ("v_stride_x", 0),
        ];
        for (name, value) in want {
            assert_eq!(env.get(name), Some(Value::Int(value)), "{name}");
        }
        assert_eq!(env.get("scale"), Some(Value::Float(0.5)));
        assert_eq!(env.get("softcap"), Some(Value::Float(30.0)));
    }

    #[test]
    fn an_empty_sequence_is_at_position_zero() {
        let env = env("b=1,hq=1,hkv=1,d=4,n=0,scale=0.1");
        assert_eq!(env.get("seq_len"), Some(Value::Int(0)));
        assert_eq!(env.get("pos"), Some(Value::Int(0)));
        assert_eq!(env.get("scale"), Some(Value::Float(0.1f32 as f64)));
    }
}
