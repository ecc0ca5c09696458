//! From which value of an axis on a launch asks for more LDS than a target's block can have.
//!
//! A sweep on the CPU device, or on a GPU with more, runs what such a target refuses to launch. The sizes
//! are the manifest's own (`shared_bytes`), over all that it claims; static arrays of the source are not
//! counted.

use super::space::Space;
use crate::kernel::{Env, Manifest, Range};
use crate::problem::{Case, Stage};
use std::collections::BTreeMap;

/// Targets by the LDS that one of their blocks can have, KiB.
const TARGETS: [(u32, &str); 2] = [(64, "gfx90a, gfx942, gfx11 and gfx12"), (160, "gfx950")];

/// Values of an axis beyond this are not asked about: no machine holds such a case.
const MOST: usize = 1 << 31;

/// Combinations of tunables and waves that are tried at most.
const MOST_COMBINATIONS: usize = 128;

/// An axis along which the LDS of a launch grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Grows {
    SeqLen,
    HeadDim,
    HeadDimV,
    Group,
    Batch,
    Hidden,
}

impl Grows {
    const ALL: [Grows; 6] =
        [Grows::SeqLen, Grows::HeadDim, Grows::HeadDimV, Grows::Group, Grows::Batch, Grows::Hidden];

    /// The key of `[supports]` that bounds it.
    fn key(self) -> &'static str {
        match self {
            Grows::SeqLen => "seq_len",
            Grows::HeadDim => "head_dim",
            Grows::HeadDimV => "head_dim_v",
            Grows::Group => "group",
            Grows::Batch => "batch",
            Grows::Hidden => "hidden",
        }
    }

    /// The variables of expressions that grow with it.
    fn variables(self) -> &'static [&'static str] {
        match self {
            Grows::SeqLen => &["seq_len", "capacity", "pos", "window_len"],
            Grows::HeadDim => &["head_dim"],
            Grows::HeadDimV => &["head_dim_v"],
            Grows::Group => &["group", "num_heads"],
            Grows::Batch => &["batch"],
            Grows::Hidden => &["hidden"],
        }
    }

    fn range(self, manifest: &Manifest) -> Option<&Range> {
        let s = &manifest.supports;
        match self {
            Grows::SeqLen => Some(&s.seq_len).filter(|_| manifest.stage.has_keys()),
            Grows::HeadDim => Some(&s.head_dim).filter(|_| manifest.stage != Stage::Norm),
            Grows::HeadDimV => s.head_dim_v.as_ref(),
            Grows::Group => Some(&s.group),
            Grows::Batch => Some(&s.batch),
            Grows::Hidden => Some(&s.hidden).filter(|_| manifest.stage.has_hidden()),
        }
    }
}

/// A claim of launches that some target cannot make, in words; empty where all fit.
pub fn beyond(space: &Space) -> Vec<String> {
    let lds = Lds::new(space);
    lds.axes.iter().filter_map(|axis| lds.words(*axis)).take(1).collect()
}

/// What is asked about one kernel.
struct Lds<'a> {
    manifest: &'a Manifest,
    /// The axes that the sizes depend on, those without a largest value first.
    axes: Vec<Grows>,
    /// Tunables with a wave size.
    combinations: Vec<(BTreeMap<String, i64>, u32)>,
}

impl<'a> Lds<'a> {
    fn new(space: &'a Space) -> Lds<'a> {
        let manifest = &*space.manifest;
        let names: Vec<&str> = manifest
            .launches
            .iter()
            .flat_map(|launch| launch.shared_bytes.names())
            .map(|name| &**name)
            .collect();
        let reads = |axis: &Grows| axis.variables().iter().any(|name| names.contains(name));
        let has = |axis: &Grows| axis.range(manifest).is_some();
        let mut axes: Vec<Grows> =
            Grows::ALL.into_iter().filter(|axis| reads(axis) && has(axis)).collect();
        axes.sort_by_key(|axis| axis.range(manifest).is_some_and(|range| range.max.is_some()));
        let mut combinations = vec![(manifest.default_params(), 0)];
        for param in manifest.params.iter().filter(|p| names.contains(&p.name.as_str())) {
            combinations = combinations
                .into_iter()
                .flat_map(|(params, wave)| {
                    param.values.iter().map(move |value| {
                        let mut params = params.clone();
                        params.insert(param.name.clone(), *value);
                        (params, wave)
                    })
                })
                .take(MOST_COMBINATIONS)
                .collect();
        }
        let count = if names.contains(&"wave") { space.waves.len() } else { 1 };
        let waves = &space.waves[..count.min(space.waves.len())];
        let combinations = combinations
            .into_iter()
            .flat_map(|(params, _)| waves.iter().map(move |wave| (params.clone(), *wave)))
            .collect();
        Lds { manifest, axes, combinations }
    }

    /// Bytes of the launch that asks for most, at a value of an axis: the other axes at their least, or
    /// where they have one at their largest.
    fn bytes(
        &self,
        (axis, value): (Grows, usize),
        largest: bool,
        (params, wave): &(BTreeMap<String, i64>, u32),
    ) -> Option<u64> {
        let at = |other: Grows| {
            let range = other.range(self.manifest);
            let least = range.and_then(|range| range.at_least(1)).unwrap_or(1);
            let most = range.and_then(|range| range.max.and_then(|max| range.at_most(max)));
            match (other == axis, largest && self.axes.contains(&other)) {
                (true, _) => value,
                (false, true) => most.unwrap_or(least),
                (false, false) => least,
            }
        };
        let mut case =
            Case::plain(at(Grows::Group), 1, at(Grows::HeadDim), vec![at(Grows::SeqLen)]);
        case = case.for_stage(self.manifest.stage);
        if self.manifest.supports.head_dim_v.is_some() {
            case.head_dim_v = at(Grows::HeadDimV);
        }
        case.hidden = at(Grows::Hidden);
        case.capacity = case.seq_len().max(1);
        (case.params, case.wave) = (params.clone(), *wave);
        let mut env = Env::new(&case, &case.placements().ok()?);
        env.set("batch", crate::kernel::Value::Int(at(Grows::Batch) as i64));
        // A size that no launch can ask for at all is beyond every target.
        Some(self.manifest.shared_bytes(&env).map_or(u64::MAX, u64::from))
    }

    /// The least value of an axis from which on a launch asks for more than `kib`.
    fn from(
        &self,
        axis: Grows,
        kib: u32,
        largest: bool,
        of: &(BTreeMap<String, i64>, u32),
    ) -> Option<usize> {
        let range = axis.range(self.manifest)?;
        let (first, last) = (range.at_least(1)?, range.at_most(range.max.unwrap_or(MOST))?);
        let exceeds = |value: usize| {
            let bytes = self.bytes((axis, value), largest, of);
            bytes.is_some_and(|bytes| bytes > u64::from(kib) << 10)
        };
        if !exceeds(last) {
            return None;
        }
        // Sizes grow with their axis; one that does not is found somewhere.
        let (mut fits, mut too_many) = (first.saturating_sub(1), last);
        while too_many - fits > 1 {
            let middle = fits + (too_many - fits) / 2;
            if exceeds(middle) { too_many = middle } else { fits = middle }
        }
        range.at_least(too_many)
    }

    /// What cannot be launched along an axis, and how to mend it.
    fn words(&self, axis: Grows) -> Option<String> {
        let own = self.manifest.device.lds_kib;
        let limits: Vec<(u32, String)> = match own {
            Some(kib) => vec![(kib, format!("the {kib} KiB of `[device] lds_kib`"))],
            None => TARGETS.map(|(kib, names)| (kib, names.to_owned())).to_vec(),
        };
        let mut text = String::new();
        let mut least = None;
        for (turn, (kib, names)) in limits.iter().enumerate() {
            let earliest = self
                .combinations
                .iter()
                .filter_map(|of| Some((self.from(axis, *kib, true, of)?, of)))
                .min_by_key(|(from, _)| *from);
            let Some((from, of)) = earliest else { break };
            let always: Option<Vec<usize>> =
                self.combinations.iter().map(|of| self.from(axis, *kib, false, of)).collect();
            let always = always.and_then(|all| all.into_iter().max()).filter(|all| *all > from);
            if turn == 0 {
                least = Some(from);
                let with = self.with(axis, of);
                text +=
                    &format!("from {} {from} on{with} a launch asks for more than ", axis.key());
                text += &match own {
                    Some(_) => names.clone(),
                    None => format!("{kib} KiB of LDS: {names} cannot launch it"),
                };
                text +=
                    &always.map_or(String::new(), |n| format!(" (from {n} on whatever they are)"));
            } else {
                text += &format!("; from {from} on for more than {kib} KiB: {names} cannot either");
            }
        }
        let least = least?;
        let range = axis.range(self.manifest)?;
        let max = range.at_most(least - 1);
        let mend = match max {
            Some(max) => format!("write {} = {{ max = {max} }} under [supports]", axis.key()),
            None => "ask for less".to_owned(),
        };
        let device = match own {
            Some(_) => "",
            None => ", or lds_kib under [device] where the kernel is for one target alone",
        };
        Some(format!("{text}; {} {range} is claimed: {mend}{device}", axis.key()))
    }

    /// The other values with which it is so.
    fn with(&self, axis: Grows, (params, wave): &(BTreeMap<String, i64>, u32)) -> String {
        let names: Vec<&String> =
            self.manifest.launches.iter().flat_map(|launch| launch.shared_bytes.names()).collect();
        let reads = |name: &str| names.iter().any(|other| *other == name);
        let mut with: Vec<String> = params
            .iter()
            .filter(|(name, _)| reads(name))
            .map(|(name, value)| format!("{name} {value}"))
            .collect();
        for other in self.axes.iter().filter(|other| **other != axis) {
            let range = other.range(self.manifest);
            let most = range.and_then(|r| r.max.and_then(|max| r.at_most(max)).or(r.at_least(1)));
            with.extend(most.map(|most| format!("{} {most}", other.key())));
        }
        if reads("wave") {
            with.push(format!("waves of {wave}"));
        }
        if with.is_empty() { String::new() } else { format!(" ({})", with.join(", ")) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::space::tests::filter;
    use super::*;
    use crate::kernel::Registry;
    use std::path::Path;

    fn told(shared: &str, tail: &str) -> Vec<String> {
        let text = format!(
            "format = \"kernel/1\"\nname = \"t\"\nsource = \"t.hip\"\nstage = \"decode\"\n\
             params = {{ threads = [32, 64] }}\n\
             [[launch]]\nentry = \"t\"\nargs = [\"q\", \"k\", \"v\", \"out\"]\ngrid = [1, 1, 1]\n\
             block = [1, 1, 1]\nshared_bytes = \"{shared}\"\n{tail}"
        );
        let manifest = Manifest::parse(&text, Path::new("t.toml")).unwrap();
        beyond(&Space::new(&manifest, &filter(), &[]).unwrap())
    }

    /// By hand: (65536 / 4) - 64 scores fit, and (163840 / 4) - 64.
    #[test]
    fn lengths_that_no_launch_can_have_are_told_by_target() {
        let told_of = told("4 * (threads + seq_len)", "[supports]\nhead_dim = { max = 128 }");
        assert_eq!(
            told_of,
            [
                "from seq_len 16321 on (threads 64) a launch asks for more than 64 KiB of LDS: gfx90a, gfx942, gfx11 \
              and gfx12 cannot launch it (from 16353 on whatever they are); from 40897 on for more than 160 KiB: \
              gfx950 cannot either; seq_len 1 or more is claimed: write seq_len = { max = 16320 } under [supports], \
              or lds_kib under [device] where the kernel is for one target alone"
            ]
        );
        let fits = "[supports]\nseq_len = { max = 16320 }";
        assert_eq!(told("4 * (threads + seq_len)", fits), Vec::<String>::new());
        let less = "[supports]\nseq_len = { max = 40896 }";
        assert_eq!(told("4 * (threads + seq_len)", less).len(), 1);
        let gfx950 = format!("[device]\nlds_kib = 160\n{less}");
        assert_eq!(told("4 * (threads + seq_len)", &gfx950), Vec::<String>::new());
        let one_more = "[device]\nlds_kib = 160\n[supports]\nseq_len = { max = 40897 }";
        let told_of = told("4 * (threads + seq_len)", one_more);
        assert!(told_of[0].contains("from seq_len 40897 on (threads 64)"), "{told_of:?}");
    }

    #[test]
    fn other_axes_count_as_well() {
        let bounded = "[supports]\nhead_dim = { max = 256 }";
        assert_eq!(told("4 * head_dim * 64", bounded), Vec::<String>::new());
        let told_of = told("4 * head_dim * 80", bounded);
        // 65536 / 320 = 204.8.
        assert!(told_of[0].starts_with("from head_dim 205 on a launch"), "{told_of:?}");
        assert!(told_of[0].contains("write head_dim = { max = 204 }"), "{told_of:?}");
        let own = "[device]\nlds_kib = 160\n[supports]\nhead_dim = { max = 256 }";
        assert_eq!(told("4 * head_dim * 80", own), Vec::<String>::new());
        // A group bounded by 8 at its largest, with heads of at most 64.
        let both = "[supports]\nhead_dim = { max = 64 }\ngroup = { max = 64 }";
        let told_of = told("4 * head_dim * group * 8", both);
        assert!(told_of[0].starts_with("from head_dim 33 on (group 64) a launch"), "{told_of:?}");
    }

    #[test]
    fn the_built_in_kernels_claim_no_more_than_fits() {
        let cache = tempfile::tempdir().unwrap();
        let registry = Registry::new(cache.path().to_owned()).unwrap();
        for name in registry.names() {
            let manifest = registry.find(name).unwrap();
            let space = Space::new(&manifest, &filter(), &[]).unwrap();
            assert_eq!(beyond(&space), Vec::<String>::new(), "{name}");
        }
    }
}
