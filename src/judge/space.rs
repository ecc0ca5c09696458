//! The space of cases that a kernel supports, and how a sweep draws from it.
//!
//! Draws crowd around edges: least and largest, tile ± 1, empty sequences, a window as long as the
//! sequence ± 1. The first [`EDGE_CASES`] cases cover each edge of each axis once; later ones are
//! random. A case depends on the seed and its index alone, so shards and threads do not change it.

use crate::data::captured::Captured;
use crate::data::random::{Stream, mix};
use crate::problem::{Axis, Case, DTypes, Layout, Regime, Storage, default_scale};
use std::collections::BTreeMap;

/// The first cases of a sweep cover every edge of every axis.
pub const EDGE_CASES: usize = 64;

/// One case in so many is cut from a captured slice.
const SLICE_EVERY: usize = 8;

/// Multiply-adds that a drawn case may take; heads and sequences are dropped beyond it.
const WORK_LIMIT: usize = 1 << 20;

/// Sizes around which kernels change their ways: waves, tiles, blocks, powers of two.
const TILES: [usize; 6] = [16, 32, 64, 128, 256, 512];

/// A range of sizes that a kernel supports.
#[derive(Debug, Clone, PartialEq)]
pub struct Sizes {
    /// Least.
    pub min: usize,
    /// Largest.
    pub max: usize,
    /// Only multiples of it.
    pub multiple_of: usize,
    /// Only these, where not empty.
    pub one_of: Vec<usize>,
}

impl Sizes {
    /// Whether a size is in the range.
    pub fn contains(&self, x: usize) -> bool {
        (self.min..=self.max).contains(&x)
            && x % self.multiple_of.max(1) == 0
            && (self.one_of.is_empty() || self.one_of.contains(&x))
    }

    /// The sizes among `wanted`, or near them, that are in the range; ascending, each once.
    fn among(&self, wanted: impl IntoIterator<Item = usize>) -> Vec<usize> {
        let m = self.multiple_of.max(1);
        let mut sizes: Vec<usize> = if self.one_of.is_empty() {
            wanted
                .into_iter()
                .flat_map(|x| [x / m * m, x.div_ceil(m) * m])
                .filter(|x| self.contains(*x))
                .collect()
        } else {
            self.one_of.iter().copied().filter(|x| self.contains(*x)).collect()
        };
        sizes.sort_unstable();
        sizes.dedup();
        sizes
    }
}

/// Everything that a kernel supports, narrowed by what the user asked for.
#[derive(Debug, Clone)]
pub struct Space {
    /// The kernel's name: different kernels draw different cases from one seed.
    pub kernel: String,
    /// Element types.
    pub dtypes: Vec<DTypes>,
    /// Sizes of a head vector.
    pub head_dim: Sizes,
    /// Query heads a KV head.
    pub group: Sizes,
    /// Keys.
    pub seq_len: Sizes,
    /// Sequences.
    pub batch: Sizes,
    /// K layouts.
    pub k_layouts: Vec<Layout>,
    /// V layouts.
    pub v_layouts: Vec<Layout>,
    /// Values of each tunable.
    pub params: BTreeMap<String, Vec<i64>>,
    /// Alignment of bases and strides, bytes.
    pub align: usize,
    /// Whether strides may be padded.
    pub padding: bool,
    /// Whether a sliding window may be set.
    pub window: bool,
    /// Whether a softcap may be set.
    pub softcap: bool,
    /// Whether sinks may be given.
    pub sinks: bool,
    /// Wave sizes.
    pub waves: Vec<u32>,
    /// The synthetic regimes to draw from.
    pub regimes: Vec<Regime>,
    /// The captured slices, each with the case that it is as a whole.
    pub slices: Vec<(Captured, Case)>,
}

/// One draw.
#[derive(Debug, Clone, PartialEq)]
pub enum Draw {
    /// A case.
    Case(Box<Case>),
    /// A captured slice that lies outside what the kernel supports: its name, and why.
    Outside(String, String),
}

impl Space {
    /// Why a case lies outside the space; `None` where it lies inside.
    pub fn excludes(&self, case: &Case) -> Option<String> {
        let size = |what: &str, sizes: &Sizes, x: usize| {
            (!sizes.contains(x)).then(|| format!("{what} = {x} is outside {sizes:?}"))
        };
        if !self.dtypes.contains(&case.dtypes) {
            return Some(format!("dtype {} is not supported", case.dtypes));
        }
        let lens = case.seq_lens.iter().find_map(|n| size("seq_len", &self.seq_len, *n));
        let found = size("head_dim", &self.head_dim, case.head_dim)
            .or_else(|| size("group", &self.group, case.group()))
            .or_else(|| size("batch", &self.batch, case.batch()))
            .or(lens);
        if found.is_some() {
            return found;
        }
        for (tensor, storage, list) in
            [("k", &case.k, &self.k_layouts), ("v", &case.v, &self.v_layouts)]
        {
            let plain: String = storage.layout.as_str().chars().filter(|c| *c != 'L').collect();
            let matches = |l: &Layout| l.with_batch().as_str() == with_batch(&plain);
            if !list.iter().any(matches) {
                return Some(format!("{tensor} layout {} is not supported", storage.layout));
            }
        }
        let no = |what: &str| Some(format!("{what} is not supported"));
        if !self.padding && case.is_padded() && !is_plain_contiguous(case) {
            return no("padding");
        }
        if !self.window && case.window_len > 0 {
            return no("a window");
        }
        if !self.softcap && case.softcap > 0.0 {
            return no("a softcap");
        }
        if !self.sinks && case.sinks {
            return no("a sink");
        }
        for (name, values) in &self.params {
            if case.params.get(name).is_none_or(|v| !values.contains(v)) {
                return Some(format!("parameter {name} must be one of {values:?}"));
            }
        }
        if !self.waves.contains(&case.wave) {
            return Some(format!("wave {} is not asked for", case.wave));
        }
        misaligned(case, self.align)
    }

    /// Case `index` of the sweep with this seed.
    pub fn draw(&self, seed: u64, index: usize) -> Draw {
        let kernel = self.kernel.bytes().fold(0u64, |h, b| mix(h ^ b as u64));
        let mut r = Stream::new(seed, &[kernel, index as u64]);
        let with_slices = !self.slices.is_empty();
        if with_slices && (index % SLICE_EVERY == SLICE_EVERY / 2 + 1 || self.regimes.is_empty()) {
            let turn = if self.regimes.is_empty() { index } else { index / SLICE_EVERY };
            return self.draw_slice(&mut r, turn);
        }
        let edge = (index < EDGE_CASES).then(|| {
            // The edges are numbered without the slices between them.
            let slices = if with_slices { (index + SLICE_EVERY / 2 - 2) / SLICE_EVERY } else { 0 };
            Edges { seed: mix(seed ^ kernel), number: index - slices }
        });
        // An alignment or a range can make a draw impossible; then the next one is taken.
        for _ in 0..64 {
            let case = self.draw_synthetic(&mut r, edge.as_ref());
            if self.excludes(&case).is_none() && case.validate().is_ok() {
                return Draw::Case(Box::new(case));
            }
        }
        Draw::Outside("synthetic".into(), "64 draws in a row lay outside [supports]".into())
    }

    fn draw_slice(&self, r: &mut Stream, turn: usize) -> Draw {
        let count = self.slices.len();
        let (slice, whole) = &self.slices[turn % count];
        let mut case = whole.clone();
        case.params = self.draw_params(r, None);
        case.wave = self.waves[(turn + turn / count) % self.waves.len()];
        (case.seed, case.order_seed) = (r.bits() >> 32, r.bits() >> 32);
        // Each slice whole at first; later every other time re-cut.
        let recut = turn / count % 2 == 1;
        if recut {
            case.dtypes = self.dtypes[r.below(self.dtypes.len())];
            case.layers = 1;
            case.layer = 0;
            let batch = pick_size(r, &self.batch.among([1, 1, 2, 3]));
            let lens = self.seq_len.among((1..=slice.seq_len).chain([0]));
            if lens.is_empty() || batch == 0 {
                return Draw::Outside(slice.name.clone(), "no length of it is supported".into());
            }
            case.seq_lens = (0..batch).map(|_| lens[r.below(lens.len())]).collect();
            self.draw_window(r, None, &mut case);
            self.draw_storage(r, None, &mut case);
            cheapen(self, &mut case, 4 * WORK_LIMIT);
        }
        match self.excludes(&case).or_else(|| case.validate().err().map(|e| e.to_string())) {
            Some(why) => Draw::Outside(slice.name.clone(), why),
            None => Draw::Case(Box::new(case)),
        }
    }

    fn draw_params(&self, r: &mut Stream, edge: Option<&Edges>) -> BTreeMap<String, i64> {
        let pick = |(i, (name, values)): (usize, (&String, &Vec<i64>))| {
            let at = edge.map_or_else(|| r.below(values.len()), |e| e.pick(100 + i, values.len()));
            (name.clone(), values[at])
        };
        self.params.iter().enumerate().map(pick).collect()
    }

    fn draw_synthetic(&self, r: &mut Stream, edge: Option<&Edges>) -> Case {
        let mut axis = 0;
        // The edge of an axis while edges are covered, otherwise a random choice.
        let mut choose = |r: &mut Stream, len: usize| {
            axis += 1;
            edge.map_or_else(|| r.below(len), |e| e.pick(axis, len))
        };
        let dtypes = self.dtypes[choose(r, self.dtypes.len())];
        let head_dim = match edge {
            Some(_) => {
                let dims = edges(
                    &self.head_dim,
                    [1, 2, 3, 31, 32, 33, 63, 64, 65, 80, 96, 127, 128, 129, 192, 255, 256],
                );
                dims[choose(r, dims.len())]
            }
            None => draw_head_dim(r, &self.head_dim),
        };
        let groups = edges(&self.group, [1, 2, 3, 4, 5, 7, 8, 12, 16]);
        let group = groups[choose(r, groups.len())];
        let num_kv_heads = [1, 2, 3, 4, 8][choose(r, 5)];
        let mut case = Case::plain(group * num_kv_heads, num_kv_heads, head_dim, vec![1]);
        case.dtypes = dtypes;
        let batches = edges(&self.batch, [1, 2, 3, 4]);
        let batch = match edge {
            Some(_) => batches[choose(r, batches.len())],
            None if r.below(10) < 3 => batches[0],
            None => batches[batches.len().min(2) - 1 + r.below(batches.len().max(2) - 1)],
        };
        let lens = edges(
            &self.seq_len,
            TILES.into_iter().flat_map(|t| [t - 1, t, t + 1]).chain([0, 1, 2, 3, 5, 7, 1024, 1025]),
        );
        let longest = match edge {
            Some(_) => lens[choose(r, lens.len())],
            None => draw_seq_len(r, &self.seq_len, &lens),
        };
        let ragged = batch > 1 && r.below(20) < 17;
        case.seq_lens = vec![longest; batch];
        if ragged {
            let empties = self.seq_len.contains(0);
            for n in case.seq_lens.iter_mut().skip(1) {
                let shorter = self.seq_len.among([r.below(longest + 1), r.below(longest + 1) / 8]);
                *n = match r.below(6) {
                    0 if empties => 0,
                    _ => pick_size(r, &shorter).max(self.seq_len.min),
                };
            }
            // The longest is not always the first.
            case.seq_lens.rotate_left(r.below(batch));
        }
        case.params = self.draw_params(r, edge);
        case.wave = self.waves
            [edge.map_or_else(|| r.below(self.waves.len()), |e| e.pick(90, self.waves.len()))];
        if r.below(4) == 0 {
            case.scale = [0.5, 1.5, 0.25, 1.0][r.below(4)] * default_scale(head_dim + r.below(40));
        }
        case.regime = self.draw_regime(r, edge);
        case.sinks = self.sinks && r.below(5) == 0;
        if self.softcap && r.below(4) == 0 && takes_softcap(&case.regime) {
            case.softcap = [1.0, 5.0, 30.0, 50.0][r.below(4)];
        }
        (case.seed, case.order_seed) = (r.bits() >> 32, r.bits() >> 32);
        self.draw_window(r, edge, &mut case);
        cheapen(self, &mut case, WORK_LIMIT);
        self.draw_storage(r, edge, &mut case);
        case
    }

    fn draw_regime(&self, r: &mut Stream, edge: Option<&Edges>) -> Regime {
        if let Some(e) = edge {
            return self.regimes[e.pick(91, self.regimes.len())].clone();
        }
        // Families by weight, then evenly within the family.
        let weight = |family: &str| match family {
            "gauss" => 20,
            "onehot" => 24,
            "coded" => 14,
            "large" => 16,
            _ => 6,
        };
        let mut at = r.below(self.regimes.iter().map(|x| weight(x.family())).sum());
        let family = self
            .regimes
            .iter()
            .find(|x| match at.checked_sub(weight(x.family())) {
                Some(rest) => {
                    at = rest;
                    false
                }
                None => true,
            })
            .expect("the weights add up")
            .family();
        let members: Vec<&Regime> = self.regimes.iter().filter(|x| x.family() == family).collect();
        members[r.below(members.len())].clone()
    }

    fn draw_window(&self, r: &mut Stream, edge: Option<&Edges>, case: &mut Case) {
        let n = case.seq_lens[r.below(case.batch())];
        let windows = [
            0,
            1,
            n.saturating_sub(1),
            n,
            n + 1,
            2,
            15,
            16,
            17,
            63,
            64,
            65,
            n / 2,
            1 + r.below(n + 1),
        ];
        case.window_len = match edge {
            _ if !self.window => 0,
            Some(e) => windows[e.pick(92, windows.len())],
            None if r.below(20) < 8 => windows[1 + r.below(windows.len() - 1)],
            None => 0,
        };
    }

    /// Layouts, capacity, padding and base offsets.
    fn draw_storage(&self, r: &mut Stream, edge: Option<&Edges>, case: &mut Case) {
        let n = case.seq_len().max(1);
        case.capacity = n + [0, 0, 0, 1, 7, 64, n][r.below(7)].min(2048);
        let mut layout = |axis: usize, list: &[Layout]| {
            list[edge.map_or_else(|| r.below(list.len()), |e| e.pick(axis, list.len()))].clone()
        };
        let (k, v) = (layout(93, &self.k_layouts), layout(94, &self.v_layouts));
        (case.k, case.v) = (Storage::contiguous(k), Storage::contiguous(v));
        let plain = Case::plain(1, 1, 1, vec![1]);
        (case.q, case.out) = (plain.q, plain.out);
        let padded = self.padding && edge.map_or_else(|| r.below(20) < 9, |e| e.pick(95, 2) == 1);
        let dims = [
            (case.num_heads, 1, case.head_dim, case.dtypes.q),
            (case.num_kv_heads, case.capacity, case.head_dim, case.dtypes.kv),
            (case.num_kv_heads, case.capacity, case.head_dim_v, case.dtypes.kv),
            (case.num_heads, 1, case.head_dim_v, case.dtypes.out),
        ];
        let batch = case.batch();
        let tensors = [&mut case.q, &mut case.k, &mut case.v, &mut case.out];
        for (i, (storage, (heads, tokens, dim, dtype))) in tensors.into_iter().zip(dims).enumerate()
        {
            let unit = (self.align / dtype.size()).max(1);
            let axes = storage.layout.with_batch().axes().unwrap_or_default();
            let extent = |a: &Axis| match a {
                Axis::Seq => batch,
                Axis::Head => heads,
                Axis::Token => tokens,
                Axis::Dim => dim,
                Axis::Layer => 1,
            };
            let (mut pads, mut span) = (Vec::new(), 1);
            for inner in axes.iter().rev().take(axes.len().saturating_sub(1)) {
                span *= extent(inner).max(1);
                // Each tensor's pads come from numbers of its own, so no two strides agree.
                let extra = if padded { unit * ((i + 1) * r.below(3) + r.below(2)) } else { 0 };
                let stride = if self.padding { (span + extra).div_ceil(unit) * unit } else { span };
                pads.push(stride - span);
                span = stride;
            }
            let offset = if padded { unit * r.below(4) } else { 0 };
            *storage = Storage::padded(storage.layout.clone(), pads, offset);
        }
    }
}

/// `plain` with the batch axis, as text.
fn with_batch(plain: &str) -> String {
    if plain.contains('S') { plain.to_owned() } else { format!("S{plain}") }
}

/// Whether explicit strides say no more than a contiguous layout does.
fn is_plain_contiguous(case: &Case) -> bool {
    let Ok(ours) = case.placements() else { return false };
    let plain = |s: &Storage| Storage::contiguous(s.layout.clone());
    let contiguous = Case {
        q: plain(&case.q),
        k: plain(&case.k),
        v: plain(&case.v),
        out: plain(&case.out),
        ..case.clone()
    };
    contiguous.placements().is_ok_and(|p| p == ours)
}

/// The first base or stride that is not aligned.
fn misaligned(case: &Case, align: usize) -> Option<String> {
    let places = case.placements().ok()?;
    let dtypes = [case.dtypes.q, case.dtypes.kv, case.dtypes.kv, case.dtypes.out];
    let tensors = [("q", &places.q), ("k", &places.k), ("v", &places.v), ("out", &places.out)];
    for ((tensor, place), dtype) in tensors.into_iter().zip(dtypes) {
        let bytes = place.strides().into_iter().filter(|s| *s > 1).chain([place.offset()]);
        for elements in bytes {
            if elements * dtype.size() % align.max(1) != 0 {
                return Some(format!(
                    "{tensor}: {elements} elements of {} B are not aligned to {align} B",
                    dtype.size()
                ));
            }
        }
    }
    None
}

/// Whether the softcap bends this regime's scores without emptying it of meaning.
fn takes_softcap(regime: &Regime) -> bool {
    !matches!(regime, Regime::OneHot(_) | Regime::Large(_))
}

/// Drops heads, then sequences, until a case costs no more than `limit` multiply-adds.
fn cheapen(space: &Space, case: &mut Case, limit: usize) {
    let shrink_heads = matches!(case.regime, Regime::Slice(_));
    while case.work() > limit {
        let group = case.group();
        if !shrink_heads && case.num_kv_heads > 2 {
            case.num_kv_heads = 2;
        } else if !shrink_heads && group > 4 && space.group.contains(group / 2) {
            case.num_heads = case.num_kv_heads * (group / 2);
            continue;
        } else if case.batch() > 1 && space.batch.contains(case.batch() - 1) {
            // Keep the longest: the case was drawn for it.
            let shortest = case.seq_lens.iter().copied().min().unwrap_or(0);
            let at = case.seq_lens.iter().position(|n| *n == shortest).unwrap_or(0);
            case.seq_lens.remove(at);
        } else if !shrink_heads && case.num_kv_heads > 1 {
            case.num_kv_heads = 1;
        } else if !shrink_heads && group > 1 && space.group.contains(group - 1) {
            case.num_heads = case.num_kv_heads * (group - 1);
            continue;
        } else {
            return;
        }
        case.num_heads = case.num_kv_heads * group;
    }
}

/// The least, the largest, and the wanted sizes in between.
fn edges(sizes: &Sizes, wanted: impl IntoIterator<Item = usize>) -> Vec<usize> {
    let near = |x: usize| [x, x.saturating_add(sizes.multiple_of.max(1))];
    let top = if sizes.max < 4096 { sizes.max } else { 0 };
    let all = sizes.among(wanted.into_iter().chain(near(sizes.min)).chain([top]));
    if all.is_empty() { vec![sizes.min.max(1)] } else { all }
}

fn pick_size(r: &mut Stream, sizes: &[usize]) -> usize {
    if sizes.is_empty() { 0 } else { sizes[r.below(sizes.len())] }
}

fn draw_head_dim(r: &mut Stream, sizes: &Sizes) -> usize {
    let large = r.below(4) == 0;
    let wanted: Vec<usize> = match r.below(3) {
        0 if large => vec![128, 192, 256],
        0 => vec![16, 32, 64, 80, 96],
        1 if large => vec![127, 129, 160, 255, 128],
        1 => vec![1, 2, 3, 4, 8, 31, 33, 63, 65],
        _ if large => vec![128 + r.below(129)],
        _ => vec![1 + r.below(127)],
    };
    let found = sizes.among(wanted);
    if found.is_empty() {
        pick_size(r, &edges(sizes, [64, 128, 256, 80, 96]))
    } else {
        pick_size(r, &found)
    }
}

fn draw_seq_len(r: &mut Stream, sizes: &Sizes, lens: &[usize]) -> usize {
    let wanted = match r.below(20) {
        0..5 => 513 + r.below(700),
        5 if sizes.max >= 1500 => 1024 + r.below(1200),
        5..12 => return pick_size(r, lens),
        _ => 1 + r.below(300),
    };
    let found = sizes.among([wanted.min(sizes.max)]);
    if found.is_empty() { pick_size(r, lens) } else { pick_size(r, &found) }
}

/// Which edge of each axis a case is for.
struct Edges {
    seed: u64,
    number: usize,
}

impl Edges {
    /// The edge of an axis with `len` edges. Each axis has a walk of its own through its edges (a
    /// start and a step that is prime to `len`), so that every edge comes up in any `len` cases
    /// in a row, and no two axes go together.
    fn pick(&self, axis: usize, len: usize) -> usize {
        let mut r = Stream::new(self.seed, &[axis as u64, 77]);
        let (start, step) = (r.below(len), 1 + r.below(len.max(2) - 1));
        let step = (0..len).map(|i| 1 + (step - 1 + i) % len.max(1)).find(|s| gcd(*s, len) == 1);
        // Rounds after the first start elsewhere: axes of equal length would go together for ever.
        let round = self.number / len;
        (start + self.number * step.unwrap_or(1) + round * (1 + axis % 3)) % len
    }
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::problem::DType;

    pub(crate) fn space() -> Space {
        let all = Sizes { min: 1, max: usize::MAX, multiple_of: 1, one_of: vec![] };
        let layouts = |l: &[&str]| l.iter().map(|s| s.parse().unwrap()).collect::<Vec<_>>();
        Space {
            kernel: "test".into(),
            dtypes: [DType::F32, DType::F16, DType::BF16].map(DTypes::uniform).to_vec(),
            head_dim: Sizes { max: 256, ..all.clone() },
            group: all.clone(),
            seq_len: Sizes { min: 0, ..all.clone() },
            batch: all,
            k_layouts: layouts(&["HND", "NHD"]),
            v_layouts: layouts(&["HND", "NHD", "HDN"]),
            params: BTreeMap::from([("tile".to_owned(), vec![32, 64, 128])]),
            align: 2,
            padding: true,
            window: true,
            softcap: true,
            sinks: true,
            waves: vec![32, 64],
            regimes: Regime::synthetic(),
            slices: vec![],
        }
    }

    fn cases(space: &Space, range: std::ops::Range<usize>) -> Vec<Case> {
        range
            .filter_map(|i| match space.draw(5, i) {
                Draw::Case(c) => Some(*c),
                Draw::Outside(..) => None,
            })
            .collect()
    }

    #[test]
    fn every_draw_is_valid_inside_the_space_and_its_id_parses_back() {
        let s = space();
        for c in cases(&s, 0..2000) {
            assert_eq!(c.validate(), Ok(()));
            assert_eq!(s.excludes(&c), None, "{c}");
            assert_eq!(c.to_string().parse::<Case>().as_ref(), Ok(&c), "{c}");
        }
    }

    #[test]
    fn draws_depend_on_the_seed_and_the_index_alone() {
        let s = space();
        assert_eq!(s.draw(5, 300), s.draw(5, 300));
        assert_ne!(s.draw(5, 300), s.draw(6, 300));
        assert_ne!(s.draw(5, 300), s.draw(5, 301));
    }

    #[test]
    fn the_first_cases_cover_each_edge_of_each_axis() {
        let s = space();
        let c = cases(&s, 0..EDGE_CASES);
        let some = |what: &str, f: &dyn Fn(&Case) -> bool| assert!(c.iter().any(f), "{what}");
        for d in [1, 2, 31, 32, 33, 63, 64, 65, 127, 128, 129, 255, 256] {
            some(&format!("d={d}"), &|c| c.head_dim == d);
        }
        for n in [0, 1, 2, 15, 16, 17, 63, 64, 65, 127, 128, 129, 511, 512, 513] {
            some(&format!("n={n}"), &|c| c.seq_len() == n);
        }
        for dtype in &s.dtypes {
            some("dtype", &|c| c.dtypes == *dtype);
        }
        for l in &s.v_layouts {
            some("v layout", &|c| c.v.layout == *l);
        }
        for t in [32, 64, 128] {
            some("tile", &|c| c.params["tile"] == t);
        }
        for g in [1, 2, 3, 5, 8, 16] {
            some(&format!("group {g}"), &|c| c.group() == g);
        }
        some("an empty sequence in a batch", &|c| {
            c.batch() > 1 && c.seq_lens.contains(&0) && c.seq_len() > 0
        });
        for (what, by) in [("window = length - 1", -1isize), ("= length", 0), ("= length + 1", 1)] {
            some(what, &|c| {
                c.window_len > 1
                    && c.seq_lens.iter().any(|n| *n as isize + by == c.window_len as isize)
            });
        }
        for regime in &s.regimes {
            some(&regime.to_string(), &|c| c.regime == *regime);
        }
    }

    #[test]
    fn the_shares_that_a_sweep_promises_are_drawn() {
        let c = cases(&space(), 64..4064);
        let share = |what: &str, least: f64, f: &dyn Fn(&Case) -> bool| {
            let got = c.iter().filter(|c| f(c)).count() as f64 / c.len() as f64;
            assert!(got >= least, "{what}: {got:.3} < {least}");
        };
        share("seq_len over 512", 0.19, &|c| c.seq_len() > 512);
        share("head_dim 128 or more", 0.19, &|c| c.head_dim >= 128);
        share("ragged", 0.36, &|c| c.is_ragged());
        share("window", 0.25, &|c| c.window_len > 0);
        share("padded", 0.30, &|c| c.is_padded());
        share("wave 64", 0.45, &|c| c.wave == 64);
    }

    #[test]
    fn alignment_and_multiples_are_kept() {
        let mut s = space();
        s.align = 16;
        s.head_dim = Sizes { min: 8, max: 128, multiple_of: 8, one_of: vec![] };
        let c = cases(&s, 0..500);
        assert!(c.len() > 400);
        assert!(c.iter().all(|c| misaligned(c, 16).is_none() && c.head_dim % 8 == 0));
        s.padding = false;
        assert!(cases(&s, 0..500).iter().all(|c| !c.is_padded()));
    }
}
