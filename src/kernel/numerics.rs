//! `[numerics]`: what a kernel promises, and so what its error bound may assume.

use super::read::{ManifestError, Section};
use crate::problem::{DType, named};
use std::collections::BTreeSet;

named! {
    /// What a kernel does with subnormal numbers.
    Denormals, "treatment of denormals", {
        /// They count as what they are.
        Keep = "keep",
        /// They may count as zero.
        Flush = "flush",
    }
}

named! {
    /// A property that can hold to the bit.
    Promise, "law", {
        /// The same launch again, in another thread order.
        Repeat = "repeat",
        /// Whatever else is in the batch.
        Batch = "batch",
        /// Whatever the layout and the strides.
        Layout = "layout",
        /// Whatever the number of splits.
        Splits = "splits",
    }
}

/// What the error bound may assume of a kernel. Units: `_ulp` in units of roundoff `u`.
#[derive(Debug, Clone, PartialEq)]
pub struct Numerics {
    /// Type in which sums are accumulated: f32, f16 or bf16.
    pub accumulate: DType,
    /// Type that P is held in when it multiplies V: f32, f16 or bf16; `None`: that of V ("kv").
    pub probs: Option<DType>,
    /// Error of the exponential function.
    pub exp_ulp: f64,
    /// Error of the exponential per unit of its argument: about 3 for `exp2(x * log2(e))`.
    pub exp_arg_ulp: f64,
    /// Error of the hyperbolic tangent (soft cap).
    pub tanh_ulp: f64,
    /// Error of sine, cosine and power (RoPE).
    pub trig_ulp: f64,
    /// What becomes of subnormal numbers.
    pub denormals: Denormals,
    /// Whether it promises anything for inputs that are not finite.
    pub nonfinite: bool,
    /// The properties that hold to the bit; the others hold within twice the bound.
    pub bitwise: BTreeSet<Promise>,
}

impl Default for Numerics {
    fn default() -> Self {
        Numerics {
            accumulate: DType::F32,
            probs: Some(DType::F32),
            exp_ulp: 2.0,
            exp_arg_ulp: 1.0,
            tanh_ulp: 4.0,
            trig_ulp: 4.0,
            denormals: Denormals::Keep,
            nonfinite: true,
            bitwise: BTreeSet::from([Promise::Repeat]),
        }
    }
}

impl Numerics {
    /// Type that P is held in when it multiplies a V of type `kv`.
    pub fn probs_with(&self, kv: DType) -> DType {
        self.probs.unwrap_or(kv)
    }

    pub(super) fn read(section: &Section) -> Result<Numerics, ManifestError> {
        section.keys(&[
            "accumulate",
            "probs",
            "exp_ulp",
            "exp_arg_ulp",
            "tanh_ulp",
            "trig_ulp",
            "denormals",
            "nonfinite",
            "bitwise",
        ])?;
        let mut numerics = Numerics::default();
        let types = [DType::F32, DType::F16, DType::BF16];
        let read = |name: &str, more: Option<&str>| {
            let Some(item) = section.get(name) else { return Ok(None) };
            let want = match more {
                None => "\"f32\", \"f16\" or \"bf16\"",
                Some(_) => "\"f32\", \"f16\", \"bf16\" or \"kv\", the type of V",
            };
            let text = item.string(want)?;
            if more == Some(text) {
                return Ok(Some(None));
            }
            let found = types.into_iter().find(|d| d.name() == text);
            let bad = || item.bad(format_args!("\"{text}\""), format_args!("it must be {want}"));
            found.ok_or_else(bad).map(|found| Some(Some(found)))
        };
        if let Some(Some(accumulate)) = read("accumulate", None)? {
            numerics.accumulate = accumulate;
        }
        if let Some(probs) = read("probs", Some("kv"))? {
            numerics.probs = probs;
        }
        for (name, field) in [
            ("exp_ulp", &mut numerics.exp_ulp),
            ("exp_arg_ulp", &mut numerics.exp_arg_ulp),
            ("tanh_ulp", &mut numerics.tanh_ulp),
            ("trig_ulp", &mut numerics.trig_ulp),
        ] {
            if let Some(item) = section.get(name) {
                *field = item.amount("a number of units, such as 2 or 1.5")?;
            }
        }
        if let Some(item) = section.get("denormals") {
            numerics.denormals = item.word("\"keep\" or \"flush\"")?;
        }
        if let Some(item) = section.get("nonfinite") {
            numerics.nonfinite = item.boolean()?;
        }
        if let Some(item) = section.get("bitwise") {
            let want = "a list of \"repeat\", \"batch\", \"layout\", \"splits\"";
            // An empty list is a promise too: a kernel with atomics repeats nothing to the bit.
            let laws = item.list(want)?;
            numerics.bitwise = laws.iter().map(|i| i.word(want)).collect::<Result<_, _>>()?;
        }
        Ok(numerics)
    }
}
