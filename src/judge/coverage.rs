//! What a sweep drew: a histogram by axis, and the supported things that it never exercised.

use super::draw::{LARGEST_HEAD_DIM, LARGEST_PREFILL, LARGEST_SEQ_LEN};
use super::law::Law;
use super::space::Space;
use crate::problem::{Axis, Case, Layout, Pointer, Regime, Stage};
use std::collections::BTreeMap;

/// Counts of judged cases by axis and bucket.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Coverage {
    /// Cases counted.
    pub cases: usize,
    /// Axis, then bucket, then cases.
    pub axes: BTreeMap<String, BTreeMap<String, usize>>,
    /// Least and largest length of a sequence, and size of a head vector.
    pub(super) extremes: Option<[(usize, usize); 2]>,
}

/// Buckets of a size: its label and its least member, ascending.
const SEQ_LEN: [(usize, &str); 9] = [
    (0, "0"),
    (1, "1"),
    (2, "2-16"),
    (17, "17-64"),
    (65, "65-128"),
    (129, "129-512"),
    (513, "513-1024"),
    (1025, "1025-8192"),
    (8193, ">8192"),
];
const HEAD_DIM: [(usize, &str); 6] =
    [(1, "1-15"), (16, "16-63"), (64, "64"), (65, "65-127"), (128, "128"), (129, ">128")];

fn bucket(table: &[(usize, &'static str)], x: usize) -> &'static str {
    table.iter().rev().find(|(least, _)| x >= *least).map_or("", |(_, label)| label)
}

fn yes(b: bool) -> &'static str {
    if b { "yes" } else { "no" }
}

/// A layout as `[layout]` of a manifest names it: no layer axis, no outermost batch axis.
fn one_sequence(layout: &Layout) -> String {
    let plain = layout.without(Axis::Layer).to_string();
    plain.strip_prefix('S').unwrap_or(&plain).to_owned()
}

/// The axes that a case counts on, with its bucket on each.
pub(super) fn buckets(case: &Case) -> Vec<(String, String)> {
    let stage = case.stage;
    let has = |pointer| stage.port(pointer).is_some();
    let (keys, heads) = (stage.has_keys(), stage != Stage::Norm);
    let size = bucket(&HEAD_DIM, case.head_dim);
    let all = [
        ("seq_len", keys, bucket(&SEQ_LEN, case.seq_len()).into()),
        ("head_dim", heads, size.into()),
        (
            "head_dim_v",
            has(Pointer::V),
            if case.head_dim_v == case.head_dim { "head_dim" } else { "other" }.into(),
        ),
        ("hidden", stage.has_hidden(), bucket(&SEQ_LEN, case.hidden).into()),
        ("dtype", true, case.dtypes.to_string()),
        ("k layout", has(Pointer::K), one_sequence(&case.k.layout)),
        ("v layout", has(Pointer::V), one_sequence(&case.v.layout)),
        ("group", heads, case.group().to_string()),
        ("batch", true, case.batch().to_string()),
        ("ragged", keys, yes(case.is_ragged()).into()),
        ("empty sequence", keys, yes(case.seq_lens.contains(&0)).into()),
        ("window", stage.has_window(), yes(case.window_len > 0).into()),
        ("padding", true, yes(case.is_padded()).into()),
        ("softcap", stage.has_softcap(), yes(case.softcap > 0.0).into()),
        ("sinks", stage.has_sinks(), yes(case.sinks).into()),
        (
            "rope",
            stage == Stage::Append,
            case.rope.map_or("no".to_owned(), |rope| rope.style.to_string()),
        ),
        ("layers", has(Pointer::K) || has(Pointer::V), case.layers.to_string()),
        ("wave", true, case.wave.to_string()),
        ("data", true, case.regime.family().into()),
    ];
    let mut all: Vec<(String, String)> = all
        .into_iter()
        .filter(|(_, has, _)| *has)
        .map(|(axis, _, bucket)| (axis.to_owned(), bucket))
        .collect();
    if let Regime::Slice(name) = &case.regime {
        all.push(("slice".into(), name.clone()));
    }
    all.extend(
        case.params.iter().map(|(name, value)| (format!("param {name}"), value.to_string())),
    );
    all
}

impl Coverage {
    /// Counts a case, and the law that it was tried on besides.
    pub fn count(&mut self, case: &Case, law: Option<Law>) {
        self.cases += 1;
        let lens = case.seq_lens.iter().copied();
        let ends = (lens.clone().min().unwrap_or(0), lens.max().unwrap_or(0));
        let new = [ends, (case.head_dim, case.head_dim)];
        let old = self.extremes.get_or_insert(new);
        for (old, new) in old.iter_mut().zip(new) {
            *old = (old.0.min(new.0), old.1.max(new.1));
        }
        let law = ("law".to_owned(), law.map_or("none", Law::name).to_owned());
        for (axis, bucket) in buckets(case).into_iter().chain([law]) {
            *self.axes.entry(axis).or_default().entry(bucket).or_default() += 1;
        }
    }

    /// Cases in a bucket.
    pub fn get(&self, axis: &str, bucket: &str) -> usize {
        self.axes.get(axis).and_then(|a| a.get(bucket)).copied().unwrap_or(0)
    }

    /// The share of cases on `axis` whose bucket passes.
    pub fn share(&self, axis: &str, passes: impl Fn(&str) -> bool) -> f64 {
        let Some(buckets) = self.axes.get(axis) else { return 0.0 };
        let count: usize = buckets.iter().filter(|(b, _)| passes(b)).map(|(_, n)| n).sum();
        count as f64 / self.cases.max(1) as f64
    }

    /// What the space supports and no counted case exercised, in words.
    pub fn missing(&self, space: &Space) -> Vec<String> {
        let (manifest, supports) = (&space.manifest, &space.manifest.supports);
        let random = !space.regimes.is_empty();
        let mut wanted: Vec<(String, String)> = Vec::new();
        let mut want = |axis: &str, bucket: String| wanted.push((axis.to_owned(), bucket));
        let stage = manifest.stage;
        if random {
            supports.dtypes.iter().for_each(|d| want("dtype", d.to_string()));
            for (axis, pointer, layouts) in [
                ("k layout", Pointer::K, &manifest.layouts.k),
                ("v layout", Pointer::V, &manifest.layouts.v),
            ] {
                if stage.port(pointer).is_some() {
                    layouts.iter().for_each(|l| want(axis, one_sequence(l)));
                }
            }
            if supports.head_dim_v.is_some() && stage.port(Pointer::V).is_some() {
                want("head_dim_v", "other".to_owned());
            }
            if stage == Stage::Append {
                supports.rope.iter().for_each(|style| want("rope", style.to_string()));
            }
        }
        space.waves.iter().for_each(|w| want("wave", w.to_string()));
        for param in &manifest.params {
            let axis = format!("param {}", param.name);
            param.values.iter().for_each(|v| want(&axis, v.to_string()));
        }
        let ragged = manifest.takes_lengths()
            && stage.has_keys()
            && supports.batch.at_least(2).is_some()
            && supports.seq_len.at_least(supports.seq_len.min + 1).is_some();
        for (axis, supported) in [
            ("window", supports.window && stage.has_window()),
            ("padding", supports.padding),
            (
                "softcap",
                supports.softcap
                    && stage.has_softcap()
                    && space.regimes.contains(&Regime::Gaussian),
            ),
            ("sinks", supports.sinks && stage.has_sinks()),
            ("ragged", ragged),
            (
                "empty sequence",
                supports.seq_len.contains(0) && stage.has_keys() && stage != Stage::Append,
            ),
        ] {
            if supported && random {
                want(axis, "yes".into());
            }
        }
        for (slice, whole) in &space.slices {
            if space.excludes(&space.with_params(whole)).is_none() {
                want("slice", slice.name.clone());
            }
        }
        wanted.retain(|(axis, bucket)| self.get(axis, bucket) == 0);
        let mut missing: Vec<String> =
            wanted.into_iter().map(|(axis, bucket)| format!("{axis} {bucket}")).collect();
        let [seq_len, head_dim] = self.extremes.unwrap_or([(usize::MAX, 0); 2]);
        let longest = if stage == Stage::Prefill { LARGEST_PREFILL } else { LARGEST_SEQ_LEN };
        for (axis, has, range, (least, largest), top) in [
            ("seq_len", stage.has_keys(), &supports.seq_len, seq_len, longest),
            ("head_dim", stage != Stage::Norm, &supports.head_dim, head_dim, LARGEST_HEAD_DIM),
        ] {
            if !has {
                continue;
            }
            let ends = [range.at_least(0), range.max.and_then(|max| range.at_most(max))];
            let [min, max] = ends.map(|end| end.filter(|end| random && *end <= top));
            missing
                .extend(min.filter(|min| *min < least).map(|x| format!("{axis} {x}, the least")));
            missing.extend(
                max.filter(|max| *max > largest).map(|x| format!("{axis} {x}, the largest")),
            );
        }
        missing
    }
}

#[cfg(test)]
mod tests {
    use super::super::draw::{Draw, EDGE_CASES};
    use super::super::space::tests::space;
    use super::*;
    use crate::data::captured::Captured;
    use crate::data::golden;
    use crate::kernel::Registry;

    #[test]
    fn the_edge_cases_leave_nothing_out_and_less_does() {
        let space = space();
        let mut coverage = Coverage::default();
        for i in 0..EDGE_CASES {
            if let Draw::Case(case) = space.draw(1, i) {
                coverage.count(&case, None);
            }
        }
        assert_eq!(coverage.missing(&space), Vec::<String>::new());
        let none = Coverage::default().missing(&space);
        assert!(
            none.contains(&"dtype bf16".to_owned()) && none.contains(&"param tile 64".to_owned())
        );
    }

    /// The spaces of all built-in kernels, with captured slices and without.
    fn spaces() -> Vec<Space> {
        let cache = tempfile::tempdir().unwrap();
        let registry = Registry::new(cache.path().to_owned()).unwrap();
        let slices: Vec<_> = golden::embedded()
            .iter()
            .filter_map(|(name, slice)| Captured::new(name, slice).unwrap())
            .collect();
        let filter = super::super::space::tests::filter();
        registry
            .names()
            .flat_map(|name| {
                let manifest = registry.find(name).unwrap();
                [&slices[..], &[]].map(|slices| Space::new(&manifest, &filter, slices).unwrap())
            })
            .collect()
    }

    #[test]
    fn the_edge_cases_of_every_kernel_reach_every_edge_at_any_seed() {
        for space in spaces() {
            for seed in 0..200 {
                let mut coverage = Coverage::default();
                for i in 0..EDGE_CASES {
                    if let Draw::Case(case) = space.draw(seed, i) {
                        coverage.count(&case, None);
                    }
                }
                let mut missing = coverage.missing(&space);
                // Which captured slice is due is the block's affair, and each needs a block of its own.
                missing.retain(|edge| !edge.starts_with("slice "));
                let (name, slices) = (&space.manifest.name, space.slices.len());
                assert_eq!(missing, Vec::<String>::new(), "{name}, seed {seed}, {slices} slices");
            }
        }
    }

    #[test]
    fn sizes_fall_into_their_buckets() {
        for (n, label) in
            [(0, "0"), (1, "1"), (16, "2-16"), (17, "17-64"), (512, "129-512"), (9999, ">8192")]
        {
            assert_eq!(bucket(&SEQ_LEN, n), label);
        }
    }
}
