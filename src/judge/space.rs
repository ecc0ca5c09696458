//! The space of cases that a kernel supports, narrowed by what the user asked for.

use crate::data::captured::Captured;
use crate::kernel::Manifest;
use crate::problem::{Case, DTypes, Regime, WantedTypes};
use std::sync::Arc;

/// What a user wants of a kernel's cases; `None` wants all.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Cases whose cache has this type, or whose three types are these.
    pub dtype: Option<WantedTypes>,
    /// Every sequence's length, both ends included.
    pub seq_len: Option<(usize, usize)>,
    /// Sizes of a head vector, both ends included.
    pub head_dim: Option<(usize, usize)>,
    /// A regime (`onehot:last`) or a family of them (`onehot`, `slice`).
    pub regime: Option<String>,
    /// Wave sizes.
    pub waves: Vec<u32>,
}

/// Everything that a kernel supports, narrowed by what the user asked for.
#[derive(Debug, Clone)]
pub struct Space {
    /// The kernel, with `[supports]` narrowed.
    pub manifest: Arc<Manifest>,
    /// Wave sizes.
    pub waves: Vec<u32>,
    /// The synthetic regimes to draw from.
    pub regimes: Vec<Regime>,
    /// The captured slices, each with the case that it is as a whole.
    pub slices: Vec<(Captured, Case)>,
}

/// A filter that leaves nothing of a kernel's space.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kernel}: nothing is left of it with {option} (it has {has})")]
pub struct Nothing {
    /// The kernel.
    pub kernel: String,
    /// The option and its value.
    pub option: String,
    /// What the kernel has.
    pub has: String,
}

impl Space {
    /// The space of a kernel under a filter. `slices` are the captured slices with the cases that
    /// they are as a whole.
    ///
    /// # Errors
    /// [`Nothing`]: the option that excludes everything.
    pub fn new(
        manifest: &Manifest,
        filter: &Filter,
        slices: &[(Captured, Case)],
    ) -> Result<Space, Nothing> {
        let mut narrow = manifest.clone();
        let nothing = |option: String, has: String| {
            Err(Nothing { kernel: manifest.name.clone(), option, has })
        };
        if let Some(wanted) = filter.dtype {
            narrow.supports.dtypes.retain(|dtypes| wanted.includes(dtypes));
            if narrow.supports.dtypes.is_empty() {
                let has: Vec<_> = manifest.supports.dtypes.iter().map(DTypes::to_string).collect();
                return nothing(format!("--dtype {wanted}"), has.join(", "));
            }
        }
        let stage = manifest.stage;
        for (option, wanted, has, range) in [
            ("--seq-len", filter.seq_len, stage.has_keys(), &mut narrow.supports.seq_len),
            ("--head-dim", filter.head_dim, stage.has_heads(), &mut narrow.supports.head_dim),
        ] {
            let Some((from, to)) = wanted.filter(|_| has) else { continue };
            let has = range.to_string();
            range.min = range.min.max(from);
            range.max = Some(range.max.map_or(to, |max| max.min(to)));
            if range.at_least(from).is_none() {
                return nothing(format!("{option} {from}..{to}"), has);
            }
        }
        // Rows of V are head vectors too.
        if let Some((from, to)) = filter.head_dim
            && let Some(range) = &mut narrow.supports.head_dim_v
        {
            range.min = range.min.max(from);
            range.max = Some(range.max.map_or(to, |max| max.min(to)));
            if range.at_least(from).is_none() {
                narrow.supports.head_dim_v = None;
            }
        }
        let mut regimes = Regime::synthetic();
        if !manifest.numerics.nonfinite {
            regimes.retain(|regime| *regime != Regime::NonFinite);
        }
        let mut slices = slices.to_vec();
        slices.retain(|_| manifest.stage.takes_slices());
        if let Some(wanted) = &filter.regime {
            regimes.retain(|r| r.family() == wanted || r.to_string() == *wanted);
            slices.retain(|(c, _)| wanted == "slice" || *wanted == format!("slice:{}", c.name));
            if regimes.is_empty() && slices.is_empty() {
                let mut has = Regime::FAMILIES.to_vec();
                has.retain(|family| manifest.numerics.nonfinite || *family != "nonfinite");
                return nothing(format!("--regime {wanted}"), has.join(", "));
            }
        }
        let mut space = Space {
            manifest: Arc::new(narrow),
            waves: filter.waves.clone(),
            regimes,
            slices: Vec::new(),
        };
        // A slice that the kernel takes and the user does not want is not counted as skipped.
        slices.retain(|(_, whole)| {
            let whole = space.with_params(whole);
            space.excludes(&whole).is_none() || manifest.supports(&whole).is_err()
        });
        space.slices = slices;
        Ok(space)
    }

    /// A captured decode step as a case of the kernel's stage, with the space's first tunables and
    /// wave.
    pub fn with_params(&self, case: &Case) -> Case {
        let wave = self.waves.first().copied().unwrap_or(case.wave);
        let params = self.manifest.default_params();
        let stage = self.manifest.stage;
        // Types of tensors that the stage does not have are free: those of the kernel are taken.
        let [q, kv, out] = stage.types();
        let same = |d: &&DTypes| {
            let of = &case.dtypes;
            (!q || d.q == of.q) && (!kv || d.kv == of.kv) && (!out || d.out == of.out)
        };
        let dtypes = *self.manifest.supports.dtypes.iter().find(same).unwrap_or(&case.dtypes);
        Case { params, wave, dtypes, ..case.clone().for_stage(stage) }
    }

    /// Why a case lies outside the space; `None` where it lies inside.
    pub fn excludes(&self, case: &Case) -> Option<String> {
        if !self.waves.contains(&case.wave) {
            return Some(format!("wave {} is not asked for", case.wave));
        }
        self.manifest.supports(case).err().map(|e| e.to_string())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::draw::tests::cases;
    use super::*;
    use crate::problem::DType;

    /// A manifest that supports nearly everything, with more `[supports]` lines of a test's own.
    pub(crate) fn manifest(supports: &str) -> Manifest {
        let text = format!(
            r#"
            format = "kernel/1"
            name = "test"
            source = "test.hip"
            stage = "decode"
            params = {{ tile = [32, 64, 128] }}
            layout = {{ k = ["HND", "NHD"], v = ["HND", "NHD", "HDN"] }}
            [[launch]]
            entry = "test"
            args = ["q", "k", "v", "out", "seq_lens"]
            grid = [1, 1, 1]
            block = [1, 1, 1]
            [supports]
            dtype = [
                {{ q = "f32", kv = "f32", out = "f32" }},
                {{ q = "f16", kv = "f16", out = "f16" }},
                {{ q = "bf16", kv = "bf16", out = "bf16" }},
            ]
            window = true
            softcap = true
            sinks = true
            {supports}
            "#
        );
        Manifest::parse(&text, std::path::Path::new("test.toml")).unwrap()
    }

    pub(crate) fn filter() -> Filter {
        Filter { waves: vec![32, 64], ..Filter::default() }
    }

    pub(crate) fn space() -> Space {
        let supports = "padding = true\nhead_dim = { max = 256 }\nseq_len = { min = 0 }";
        Space::new(&manifest(supports), &filter(), &[]).unwrap()
    }

    #[test]
    fn filters_narrow_and_say_when_nothing_is_left() {
        let m = manifest("padding = true\nhead_dim = { max = 256 }");
        let wanted = Filter {
            dtype: Some("f16".parse().unwrap()),
            seq_len: Some((33, 128)),
            head_dim: Some((64, 64)),
            regime: Some("onehot".into()),
            waves: vec![64],
        };
        let s = Space::new(&m, &wanted, &[]).unwrap();
        for c in cases(&s, 0..200) {
            assert!(c.seq_lens.iter().all(|n| (33..=128).contains(n)), "{c}");
            assert_eq!((c.head_dim, c.wave, c.regime.family()), (64, 64, "onehot"));
            assert_eq!(c.dtypes, DTypes::uniform(DType::F16));
        }
        for (option, bad) in [
            // A triple is that triple, also where the cache's type is there.
            (
                "--dtype f16/f16/f32",
                Filter { dtype: Some("f16/f16/f32".parse().unwrap()), ..filter() },
            ),
            ("--dtype f64", Filter { dtype: Some("f64".parse().unwrap()), ..filter() }),
            ("--head-dim 300..400", Filter { head_dim: Some((300, 400)), ..filter() }),
            ("--regime loud", Filter { regime: Some("loud".into()), ..filter() }),
        ] {
            let error = Space::new(&m, &bad, &[]).unwrap_err().to_string();
            assert!(error.contains(option), "{error}");
        }
    }
}
