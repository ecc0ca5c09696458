//! How a sweep draws cases from a kernel's space.
//!
//! Draws crowd around edges: least and largest, tile ± 1, empty sequences, a window as long as the
//! sequence ± 1. The first [`EDGE_CASES`] cases cover each edge of each axis once; later ones are
//! random. A case depends on the seed and its index alone, so shards and threads do not change it.

use super::space::Space;
use crate::data::random::{Stream, mix};
use crate::device::MAX_SHARED_BYTES;
use crate::kernel::{Env, Param, Range, Supports};
use crate::problem::{Case, DType, Layout, Pointer, Regime, Rope, Stage, Storage, default_scale};
use std::collections::{BTreeMap, BTreeSet};

/// The first cases of a sweep cover every edge of every axis.
pub const EDGE_CASES: usize = 64;

/// One case in so many is cut from a captured slice.
const SLICE_EVERY: usize = 8;

/// Edge cases that are not cut from a slice, where there are slices.
const FEWEST_EDGES: usize = EDGE_CASES - EDGE_CASES / SLICE_EVERY;

/// Multiply-adds that a drawn case may take; heads and sequences are dropped beyond it.
const WORK_LIMIT: usize = 5 << 17;

/// What a query head of a sequence costs besides, as multiply-adds: the blocks that serve it.
const ROW_WORK: usize = 1 << 12;

/// Sizes around which kernels change their ways: waves, tiles, blocks, powers of two.
const TILES: [usize; 10] = [16, 32, 64, 96, 128, 192, 256, 384, 512, 768];

/// Lengths beyond those that are drawn otherwise, one past the powers of two at which indices of so
/// many bits end: among the edges, and once in [`LONG_EVERY`] cases after them. Such a case is thin:
/// it has one head, of few elements.
const LONG: [usize; 4] = [(1 << 13) + 1, (1 << 14) + 1, (1 << 16) + 1, 1 << 17];

/// See [`LONG`].
const LONG_EVERY: usize = 48;

/// The prompt of a prefill that stands for the first of [`LONG`]; the others are too dear, as the work
/// grows with the square.
const LONG_PREFILL: usize = 1030;

/// A residual stream up to this is made shorter where a projection is dear; of a longer one the heads
/// are made fewer.
const USUAL_HIDDEN: usize = 2048;

/// One draw.
#[derive(Debug, Clone, PartialEq)]
pub enum Draw {
    /// A case.
    Case(Box<Case>),
    /// A captured slice that lies outside what the kernel supports: its name, and why.
    Outside(String, String),
}

impl Space {
    /// Case `index` of the sweep with this seed.
    pub fn draw(&self, seed: u64, index: usize) -> Draw {
        let kernel = self.manifest.name.bytes().fold(0u64, |h, b| mix(h ^ b as u64));
        let mut r = Stream::new(seed, &[kernel, index as u64]);
        let (with_slices, block) = (!self.slices.is_empty(), index / SLICE_EVERY);
        // One of each block, at a place of its own: shards that take every n-th case get theirs.
        let at = block * SLICE_EVERY + (mix(block as u64) % SLICE_EVERY as u64) as usize;
        if with_slices && (index == at || self.regimes.is_empty()) {
            let turn = if self.regimes.is_empty() { index } else { block };
            return self.draw_slice(&mut r, turn);
        }
        let edge = (index < EDGE_CASES).then(|| {
            // The edges are numbered without the slices between them.
            let slices = if with_slices { block + usize::from(index > at) } else { 0 };
            Edges { seed: mix(seed ^ kernel), number: index - slices }
        });
        // An alignment or a range can make a draw impossible; then the next one is taken.
        let mut long = true;
        for _ in 0..64 {
            let case = self.draw_synthetic(&mut r, edge.as_ref(), long);
            if case.seq_len() >= LONG[0] && !self.fits_shared_memory(&case) {
                // why: a kernel with a score of every key in shared memory is right for less.
                long = false;
                continue;
            }
            if self.excludes(&case).is_none() && case.validate().is_ok() {
                return Draw::Case(Box::new(case));
            }
        }
        Draw::Outside("synthetic".into(), "64 draws in a row lay outside [supports]".into())
    }

    /// Whether every launch of a case asks for no more shared memory than a block of any GPU has.
    fn fits_shared_memory(&self, case: &Case) -> bool {
        let Ok(places) = case.placements() else { return false };
        let bytes = self.manifest.shared_bytes(&Env::new(case, &places));
        bytes.is_ok_and(|bytes| bytes <= MAX_SHARED_BYTES)
    }

    fn draw_slice(&self, r: &mut Stream, turn: usize) -> Draw {
        let s = &self.manifest.supports;
        let count = self.slices.len();
        let (slice, whole) = &self.slices[turn % count];
        let mut case = self.with_params(whole);
        case.params = self.draw_params(r, None);
        // Each slice at every wave by turns, also where there is one slice only.
        case.wave = self.waves[(turn % count + turn / count) % self.waves.len()];
        (case.seed, case.order_seed) = (r.bits() >> 32, r.bits() >> 32);
        // Each slice whole at first; later every other time re-cut.
        let recut = turn / count % 2 == 1;
        if recut {
            case.dtypes = s.dtypes[r.below(s.dtypes.len())];
            let batch = pick(r, &among(&s.batch, [1, 1, 2, 3]));
            let mut lens = among(&s.seq_len, (1..=slice.seq_len).chain([0]));
            lens.retain(|n| *n <= slice.seq_len && (*n > 0 || case.stage != Stage::Append));
            if lens.is_empty() || batch == 0 {
                return Draw::Outside(slice.name.clone(), "no length of it is supported".into());
            }
            case.seq_lens = vec![lens[r.below(lens.len())]; batch];
            if self.manifest.takes_lengths() {
                case.seq_lens.fill_with(|| lens[r.below(lens.len())]);
            }
            self.draw_window(r, None, &mut case);
            self.draw_storage(r, None, &mut case);
            cheapen(s, &mut case, 4 * WORK_LIMIT, false);
        }
        match self.excludes(&case).or_else(|| case.validate().err().map(|e| e.to_string())) {
            Some(why) => Draw::Outside(slice.name.clone(), why),
            None => Draw::Case(Box::new(case)),
        }
    }

    /// The kernel's own tunables that may be tile sizes.
    fn own_tiles(&self) -> impl Iterator<Item = usize> {
        let values = self.manifest.params.iter().flat_map(|p| p.values.iter());
        values.filter_map(|v| usize::try_from(*v).ok()).filter(|v| (2..=1024).contains(v))
    }

    fn draw_params(&self, r: &mut Stream, edge: Option<&Edges>) -> BTreeMap<String, i64> {
        let pick = |(i, param): (usize, &Param)| {
            let len = param.values.len();
            (param.name.clone(), param.values[choose(r, edge, axis::PARAMS + i, len)])
        };
        self.manifest.params.iter().enumerate().map(pick).collect()
    }

    fn draw_synthetic(&self, r: &mut Stream, edge: Option<&Edges>, long: bool) -> Case {
        let s = &self.manifest.supports;
        let dtypes = s.dtypes[choose(r, edge, axis::DTYPE, s.dtypes.len())];
        let dims = edges(
            &s.head_dim,
            [1, 2, 3, 31, 32, 33, 63, 64, 65, 72, 80, 96, 112, 127, 128, 129, 160, 192, 255, 256],
            LARGEST_HEAD_DIM,
        );
        let head_dim = match edge {
            Some(e) => dims[e.pick(axis::HEAD_DIM, dims.len())],
            None => draw_head_dim(r, &s.head_dim),
        };
        let groups = edges(&s.group, [1, 2, 3, 4, 5, 7, 8, 12, 16, 32, 71], LARGEST_COUNT);
        let group = groups[choose(r, edge, axis::GROUP, groups.len())];
        let num_kv_heads = [1, 2, 3, 4, 8, 17][choose(r, edge, axis::KV_HEADS, 6)];
        let stage = self.manifest.stage;
        let (group, num_kv_heads, head_dim) =
            if stage == Stage::Norm { (1, 1, 1) } else { (group, num_kv_heads, head_dim) };
        let mut case =
            Case::plain(group * num_kv_heads, num_kv_heads, head_dim, vec![1]).for_stage(stage);
        case.dtypes = dtypes;
        // V rows of another length, as latent attention has them.
        if let Some(range) = s.head_dim_v.as_ref().filter(|_| stage != Stage::Norm) {
            let other = r.below(3) == 0 || !range.contains(head_dim);
            case.head_dim_v = if other { draw_head_dim(r, range) } else { head_dim };
        }
        let batches = edges(&s.batch, [1, 2, 3, 4, 8, 17], LARGEST_COUNT);
        let batch = match edge {
            Some(e) => batches[e.pick(axis::BATCH, batches.len())],
            None if r.below(10) < 3 => batches[0],
            None => {
                let usual = batches.len().min(if r.below(8) == 0 { usize::MAX } else { 4 });
                pick(r, &batches[usize::from(usual > 1)..usual])
            }
        };
        let tiles = TILES.into_iter().chain(self.own_tiles());
        let around = tiles.flat_map(|t| [t - 1, t, t + 1]);
        let lens = edges(
            &s.seq_len,
            around
                .chain([0, 1, 2, 3, 5, 7, 1000, 1024, 1025, 2048])
                .chain(LONG.into_iter().filter(|_| long)),
            LARGEST_SEQ_LEN,
        );
        let longest = match edge {
            _ if !stage.has_keys() => 1,
            Some(e) => lens[e.pick(axis::SEQ_LEN, lens.len())],
            None => draw_seq_len(r, &s.seq_len, &lens),
        };
        let longest = match stage {
            // Every position attends all before it: the work grows with the square.
            Stage::Prefill if longest == LONG[0] => near(r, &s.seq_len, &[LONG_PREFILL]),
            Stage::Prefill if longest > LARGEST_PREFILL => {
                near(r, &s.seq_len, &[1 + longest % LARGEST_PREFILL])
            }
            Stage::Append => longest.max(1),
            _ => longest,
        };
        let ragged = batch > 1 && longest > 0 && self.manifest.takes_lengths() && r.below(20) < 17;
        case.seq_lens = vec![longest; batch];
        if ragged && stage.has_keys() {
            let empties = s.seq_len.contains(0) && stage != Stage::Append;
            for n in case.seq_lens.iter_mut().skip(1) {
                let shorter = [r.below(longest + 1), r.below(longest + 1) / 8];
                *n = match r.below(6) {
                    0 if empties => 0,
                    _ => near(r, &s.seq_len, &shorter),
                };
                if stage == Stage::Append {
                    *n = (*n).max(1);
                }
            }
            // The longest is not always the first.
            case.seq_lens.rotate_left(r.below(batch));
        }
        case.params = self.draw_params(r, edge);
        case.wave = self.waves[choose(r, edge, axis::WAVE, self.waves.len())];
        if r.below(4) == 0 {
            // Not only 1 / sqrt(head_dim), and not only positive.
            let factor = [0.5, 1.5, 0.25, 1.0, -1.0][r.below(5)];
            case.scale = factor * default_scale(head_dim + r.below(40));
        }
        case.regime = self.draw_regime(r, edge);
        let mut one_in =
            |axis: usize, n: usize| edge.map_or_else(|| r.below(n) == 0, |e| e.pick(axis, n) == 1);
        case.sinks = one_in(axis::SINKS, 5) && s.sinks && stage.has_sinks();
        let softcap = one_in(axis::SOFTCAP, 4) && s.softcap && stage.has_softcap();
        if softcap && edge.is_some() && !takes_softcap(&case.regime) && self.takes_gauss() {
            // why: among the edges a softcap comes up every fourth time, whatever the data.
            case.regime = Regime::Gaussian;
        }
        if softcap && takes_softcap(&case.regime) {
            case.softcap = [1.0, 5.0, 30.0, 50.0][r.below(4)];
        }
        if stage == Stage::Append && head_dim % 2 == 0 && !s.rope.is_empty() && r.below(3) > 0 {
            let base = [10_000.0, 500_000.0, 100.0][r.below(3)];
            case.rope = Some(Rope { style: s.rope[r.below(s.rope.len())], base });
        }
        if stage.has_hidden() {
            let sizes = [
                1, 2, 3, 31, 33, 63, 64, 65, 127, 128, 256, 257, 576, 1000, 1024, 2048, 4096, 8192,
                16384,
            ];
            let sizes = edges(&s.hidden, sizes, LARGEST_HIDDEN);
            case.hidden = sizes[choose(r, edge, axis::HIDDEN, sizes.len())];
            case.eps = [1e-5, 1e-6, 1e-5, 0.125][r.below(4)];
        }
        (case.seed, case.order_seed) = (r.bits() >> 32, r.bits() >> 32);
        self.draw_window(r, edge, &mut case);
        // why: the largest head vector comes up two or three times among the edges, and often with a length
        // that leaves no work for it. A length beyond the usual ones, or the largest, comes up but once:
        // it goes first where the head vector has another turn.
        let is_largest =
            |range: &Range, x: usize| range.max.and_then(|max| range.at_most(max)) == Some(x);
        let keeps_length = |n: usize| n >= LONG[0] || is_largest(&s.seq_len, n);
        let keeps_head_dim = edge.is_some_and(|e| {
            let has_another = || {
                (0..FEWEST_EDGES).any(|number| {
                    let other = Edges { number, ..*e };
                    is_largest(&s.head_dim, dims[other.pick(axis::HEAD_DIM, dims.len())])
                        && !keeps_length(lens[other.pick(axis::SEQ_LEN, lens.len())])
                })
            };
            let (length, largest) = (case.seq_len(), is_largest(&s.head_dim, head_dim));
            largest && (!keeps_length(length) || !is_largest(&s.seq_len, length) && !has_another())
        });
        cheapen(s, &mut case, WORK_LIMIT, keeps_head_dim);
        self.draw_storage(r, edge, &mut case);
        case
    }

    fn takes_gauss(&self) -> bool {
        self.regimes.contains(&Regime::Gaussian)
    }

    fn draw_regime(&self, r: &mut Stream, edge: Option<&Edges>) -> Regime {
        if let Some(e) = edge {
            return self.regimes[e.pick(axis::REGIME, self.regimes.len())].clone();
        }
        // Families by weight, then evenly within the family.
        let weight = |family: &str| match family {
            "gauss" => 20,
            "onehot" => 24,
            "coded" => 14,
            "large" => 16,
            _ => 6,
        };
        let families: BTreeSet<&str> = self.regimes.iter().map(Regime::family).collect();
        let mut at = r.below(families.iter().map(|f| weight(f)).sum());
        let mut family = "";
        for f in families {
            family = f;
            match at.checked_sub(weight(f)) {
                Some(rest) => at = rest,
                None => break,
            }
        }
        let members: Vec<&Regime> = self.regimes.iter().filter(|x| x.family() == family).collect();
        members[r.below(members.len())].clone()
    }

    fn draw_window(&self, r: &mut Stream, edge: Option<&Edges>, case: &mut Case) {
        let s = &self.manifest.supports;
        let n = case.seq_lens[r.below(case.batch())];
        let around = [0, 1, n.saturating_sub(1), n, n + 1, 2, n / 2, 1 + r.below(n + 1)];
        let tiles = [15, 16, 17, 63, 64, 65, 127, 128, 129, 256, 512];
        let windows: Vec<usize> = around.into_iter().chain(tiles).chain(self.own_tiles()).collect();
        case.window_len = match edge {
            _ if !s.window || !case.stage.has_window() => 0,
            Some(e) => windows[e.pick(axis::WINDOW, windows.len())],
            None if r.below(20) < 8 => windows[1 + r.below(windows.len() - 1)],
            None => 0,
        };
    }

    /// Layouts, capacity, padding and base offsets.
    fn draw_storage(&self, r: &mut Stream, edge: Option<&Edges>, case: &mut Case) {
        let s = &self.manifest.supports;
        let n = case.seq_len().max(1);
        let spare = [0, 0, 0, 1, 7, 64, n][r.below(7)].min(2048);
        case.capacity = if case.stage.has_keys() { n + spare } else { 1 };
        let layouts = &self.manifest.layouts;
        let k = layouts.k[choose(r, edge, axis::K_LAYOUT, layouts.k.len())].clone();
        let v = layouts.v[choose(r, edge, axis::V_LAYOUT, layouts.v.len())].clone();
        let has = |pointer| case.stage.port(pointer).is_some();
        let (has_k, has_v) = (has(Pointer::K), has(Pointer::V));
        // A cache of several layers, of which one is attended and the others are poison.
        let reads = |name| self.manifest.reads_variable(name);
        let chance = if reads("layer") || reads("k_stride_l") { 10 } else { 1 };
        let layered = r.below(20) < chance && (has_k || has_v);
        case.layers = if layered { 1 + r.below(3) } else { 1 };
        case.layer = r.below(case.layers);
        let layered = |l: Layout| if case.layers > 1 { l.with_batch().with_layers() } else { l };
        let plain = Case::plain(1, 1, 1, vec![1]).for_stage(case.stage);
        case.k = if has_k { Storage::contiguous(layered(k)) } else { plain.k };
        case.v = if has_v { Storage::contiguous(layered(v)) } else { plain.v };
        if case.layers > 1 {
            // A tensor that the stage does not have has as many layers as the one that it has.
            for storage in [&mut case.k, &mut case.v] {
                storage.layout = layered(storage.layout.clone());
            }
        }
        (case.q, case.out) = (plain.q, plain.out);
        (case.scores, case.probs) = (plain.scores, plain.probs);
        let padded =
            s.padding && edge.map_or_else(|| r.below(20) < 9, |e| e.pick(axis::PADDING, 2) == 1);
        let Ok(p) = case.placements() else { return };
        let f32 = DType::F32;
        let (q, kv, out) = (case.dtypes.q, case.dtypes.kv, case.dtypes.out);
        let strided = [
            (has(Pointer::Q) || has(Pointer::X), p.q, q),
            (has_k, p.k, kv),
            (has_v, p.v, kv),
            (has(Pointer::Out), p.out, out),
            (has(Pointer::Scores), p.scores, f32),
            (has(Pointer::Probs), p.probs, f32),
        ];
        let tensors = [
            &mut case.q,
            &mut case.k,
            &mut case.v,
            &mut case.out,
            &mut case.scores,
            &mut case.probs,
        ];
        for (i, (storage, (has, place, dtype))) in tensors.into_iter().zip(strided).enumerate() {
            if !has {
                continue;
            }
            let unit = (s.align.unwrap_or(1) / dtype.size()).max(1);
            let axes = place.layout().axes().unwrap_or_default();
            let (mut pads, mut span) = (Vec::new(), 1);
            for inner in axes.iter().rev().take(axes.len().saturating_sub(1)) {
                span *= place.extents().get(*inner).max(1);
                // Each tensor's pads come from numbers of its own, so no two strides agree.
                let extra = if padded { unit * (i + 6 * r.below(2)) } else { 0 };
                let stride = if s.padding { (span + extra).div_ceil(unit) * unit } else { span };
                pads.push(stride - span);
                span = stride;
            }
            let offset = if padded { unit * r.below(4) } else { 0 };
            *storage = Storage::padded(storage.layout.clone(), pads, offset);
        }
    }
}

/// Whether the softcap bends this regime's scores without emptying it of meaning.
fn takes_softcap(regime: &Regime) -> bool {
    !matches!(regime, Regime::OneHot(_) | Regime::Large(_))
}

/// Drops heads, then sequences, then elements, until a case costs no more than `limit`
/// multiply-adds. Lengths stay: they are what is dear, and what the case was drawn for; unless it was drawn
/// for its head vectors.
fn cheapen(supports: &Supports, case: &mut Case, limit: usize, keeps_head_dim: bool) {
    let whole_heads = matches!(case.regime, Regime::Slice(_));
    let cost = |case: &Case| {
        let blocks: usize = (0..case.batch()).map(|s| case.queries(s)).sum();
        let per_block = if case.stage == Stage::Prefill { ROW_WORK / 4 } else { ROW_WORK };
        // Of a long cache also what is made and laid out, though a window may leave most of it out.
        let held = if case.seq_len() >= LONG[0] { held(case) } else { 0 };
        case.work().max(held) + per_block * blocks * case.num_heads
    };
    while cost(case) > limit {
        let group = case.group();
        if let Some(less) = supports.hidden.at_most(case.hidden / 2)
            && case.stage == Stage::HeadCombine
            && case.hidden <= USUAL_HIDDEN
            && less >= 8
        {
            case.hidden = less;
            continue;
        } else if !whole_heads && case.num_kv_heads > 2 {
            case.num_kv_heads = 2;
        } else if !whole_heads && group > 4 && supports.group.contains(group / 2) {
            case.num_heads = case.num_kv_heads * (group / 2);
            continue;
        } else if case.batch() > 1 && supports.batch.contains(case.batch() - 1) {
            // Keep the longest: the case was drawn for it.
            let shortest = case.seq_lens.iter().copied().min().unwrap_or(0);
            let at = case.seq_lens.iter().position(|n| *n == shortest).unwrap_or(0);
            case.seq_lens.remove(at);
        } else if !whole_heads && case.num_kv_heads > 1 {
            case.num_kv_heads = 1;
        } else if !whole_heads && group > 1 && supports.group.contains(group - 1) {
            case.num_heads = case.num_kv_heads * (group - 1);
            continue;
        } else if keeps_head_dim {
            let mut shorter = false;
            for n in &mut case.seq_lens {
                let less = supports.seq_len.at_most(*n / 2).filter(|less| *less > 0);
                shorter |= less.is_some();
                *n = less.unwrap_or(*n);
            }
            if !shorter {
                return;
            }
        } else if let Some(less) = supports.head_dim.at_most(case.head_dim / 2)
            && !whole_heads
            && less >= 8
        {
            let same = case.head_dim_v == case.head_dim;
            case.head_dim = less;
            case.head_dim_v = if same { less } else { case.head_dim_v.min(less) };
        } else {
            return;
        }
        case.num_heads = case.num_kv_heads * group;
    }
}

/// Elements of K and V that a case holds.
fn held(case: &Case) -> usize {
    let tokens: usize = case.seq_lens.iter().sum();
    tokens * case.num_kv_heads * (case.head_dim + case.head_dim_v)
}

/// The largest sizes that are visited for being the largest; a case of more would take all day.
pub(super) const LARGEST_SEQ_LEN: usize = 1 << 17;
/// See [`LARGEST_SEQ_LEN`].
pub(super) const LARGEST_HEAD_DIM: usize = 1 << 12;
/// See [`LARGEST_SEQ_LEN`]; of query heads a KV head, and of sequences.
const LARGEST_COUNT: usize = 128;
/// The longest sequence of a prefill, unless a kernel takes longer ones only.
pub(super) const LARGEST_PREFILL: usize = 257;
/// The longest residual stream that is visited for being the longest.
const LARGEST_HIDDEN: usize = 1 << 14;

/// The sizes of a range at or next to each wanted one; ascending, each once.
fn among(range: &Range, wanted: impl IntoIterator<Item = usize>) -> Vec<usize> {
    let near = |x: usize| [range.at_most(x), range.at_least(x)].into_iter().flatten();
    let all: BTreeSet<usize> = match &range.one_of {
        Some(list) => list.iter().copied().filter(|x| range.contains(*x)).collect(),
        None => wanted.into_iter().flat_map(near).collect(),
    };
    all.into_iter().collect()
}

/// The least size, the next, the largest up to `top`, and the wanted ones in between.
fn edges(range: &Range, wanted: impl IntoIterator<Item = usize>, top: usize) -> Vec<usize> {
    let wanted = wanted.into_iter().filter(|x| *x <= range.max.unwrap_or(top));
    let most = range.max.filter(|max| *max <= top);
    among(range, wanted.chain([range.min, range.min + 1]).chain(most))
}

fn pick(r: &mut Stream, sizes: &[usize]) -> usize {
    if sizes.is_empty() { 0 } else { sizes[r.below(sizes.len())] }
}

/// A size of the range near one of the wanted.
fn near(r: &mut Stream, range: &Range, wanted: &[usize]) -> usize {
    let wanted = pick(r, wanted);
    match (&range.one_of, range.at_most(wanted), range.at_least(wanted)) {
        // A short list: any of it, whatever was wanted.
        (Some(_), ..) => pick(r, &among(range, [])),
        (_, Some(x), _) | (_, None, Some(x)) => x,
        _ => range.min,
    }
}

fn draw_head_dim(r: &mut Stream, range: &Range) -> usize {
    let large = r.below(4) == 0;
    let any = [1 + r.below(127), 128 + r.below(129)];
    let wanted: &[usize] = match r.below(3) {
        0 if large => &[128, 192, 256],
        0 => &[16, 32, 64, 80, 96],
        1 if large => &[127, 129, 160, 255, 128],
        1 => &[1, 2, 3, 4, 8, 31, 33, 63, 65],
        _ if large => &any[1..],
        _ => &any[..1],
    };
    near(r, range, wanted)
}

fn draw_seq_len(r: &mut Stream, range: &Range, lens: &[usize]) -> usize {
    let (usual, long) = lens.split_at(lens.partition_point(|n| *n < LONG[0]));
    if !long.is_empty() && (usual.is_empty() || r.below(LONG_EVERY) == 0) {
        return pick(r, long);
    }
    match r.below(20) {
        0..3 => near_one(r, range, 513, 700),
        3 => near_one(r, range, 1024, 1200),
        4..11 => pick(r, usual),
        _ => near_one(r, range, 1, 300),
    }
}

/// A size of the range near `from` to `from + count`.
fn near_one(r: &mut Stream, range: &Range, from: usize, count: usize) -> usize {
    let wanted = from + r.below(count);
    near(r, range, &[wanted])
}

/// Numbers of the axes that have edges; each has a walk of its own.
mod axis {
    pub const DTYPE: usize = 1;
    pub const HEAD_DIM: usize = 2;
    pub const GROUP: usize = 3;
    pub const KV_HEADS: usize = 4;
    pub const BATCH: usize = 5;
    pub const SEQ_LEN: usize = 6;
    pub const WAVE: usize = 90;
    pub const REGIME: usize = 91;
    pub const WINDOW: usize = 92;
    pub const K_LAYOUT: usize = 93;
    pub const V_LAYOUT: usize = 94;
    pub const PADDING: usize = 95;
    pub const HIDDEN: usize = 96;
    pub const SINKS: usize = 97;
    pub const SOFTCAP: usize = 98;
    /// And from here on one for each tunable.
    pub const PARAMS: usize = 100;
}

/// The edge of an axis while edges are covered, otherwise a random choice of `len`.
fn choose(r: &mut Stream, edge: Option<&Edges>, axis: usize, len: usize) -> usize {
    edge.map_or_else(|| r.below(len), |e| e.pick(axis, len))
}

/// Which edge of each axis a case is for.
#[derive(Clone, Copy)]
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
    use super::super::space::tests::{filter, manifest, space};
    use super::*;
    use crate::data::captured::Captured;

    pub(crate) fn cases(space: &Space, range: std::ops::Range<usize>) -> Vec<Case> {
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

    /// Every part of a sweep has its share of captured slices, whatever the number of parts.
    #[test]
    fn shards_have_their_slices() {
        let slice = Captured {
            name: "one".into(),
            num_heads: 2,
            num_kv_heads: 1,
            head_dim: 4,
            head_dim_v: 4,
            seq_len: 93,
            q: [0.0; 8].into(),
            k: [0.0; 372].into(),
            v: [0.0; 372].into(),
        };
        let whole: Case = "hq=2,hkv=1,d=4,n=93,data=slice:one".parse().unwrap();
        let supports = "padding = true\nseq_len = { min = 1, multiple_of = 31 }";
        let m = manifest(supports).clone();
        let s = Space::new(&m, &filter(), &[(slice, whole)]).unwrap();
        for parts in 1..=9 {
            for part in 0..parts {
                let drawn: Vec<Case> = (0..400)
                    .filter_map(|turn| match s.draw(5, turn * parts + part) {
                        Draw::Case(c) => Some(*c),
                        Draw::Outside(..) => None,
                    })
                    .collect();
                let slices = drawn.iter().filter(|c| c.regime.family() == "slice").count();
                assert!((20..=90).contains(&slices), "{part} of {parts}: {slices} of 400");
                // Never more rows than the slice has.
                assert!(drawn.iter().all(|c| c.regime.family() != "slice" || c.seq_len() <= 93));
            }
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
        for n in LONG {
            some(&format!("n={n}"), &|c| c.seq_len() == n);
        }
        for dtype in &s.manifest.supports.dtypes {
            some("dtype", &|c| c.dtypes == *dtype);
        }
        for l in &s.manifest.layouts.v {
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

    /// Sizes beyond the usual ones come in every kernel's sweep, thin, and rarely after its edges.
    #[test]
    fn the_largest_sizes_are_drawn_now_and_then() {
        let cache = tempfile::tempdir().unwrap();
        let registry = crate::kernel::Registry::new(cache.path()).unwrap();
        for manifest in registry.all().unwrap() {
            let stage = manifest.stage;
            let long = |c: &Case| match stage {
                Stage::Prefill => c.seq_len() > 1024,
                _ if stage.has_keys() => c.seq_len() >= LONG[0],
                _ => c.hidden > 2 * USUAL_HIDDEN,
            };
            if stage == Stage::Merge {
                continue;
            }
            let space = Space::new(&manifest, &filter(), &[]).unwrap();
            let [edges, later] = [0..EDGE_CASES, EDGE_CASES..EDGE_CASES + 1000]
                .map(|range| cases(&space, range).into_iter().filter(long).collect::<Vec<_>>());
            assert!((1..=16).contains(&edges.len()), "{}: {}", manifest.name, edges.len());
            let most = if stage.has_hidden() { 200 } else { 40 };
            assert!((1..=most).contains(&later.len()), "{}: {}", manifest.name, later.len());
            // Thin: one head of one sequence, or within the limit with more.
            let thin = |c: &Case| {
                (c.num_heads, c.batch()) == (1, 1) || c.work().max(held(c)) <= WORK_LIMIT
            };
            if stage.has_keys() {
                let fat = edges.iter().chain(&later).find(|c| !thin(c));
                assert_eq!(fat.map(ToString::to_string), None);
            }
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
        let supports = "align = 16\nhead_dim = { min = 8, max = 128, multiple_of = 8 }";
        let padded = manifest(&format!("{supports}\npadding = true"));
        let s = Space::new(&padded, &filter(), &[]).unwrap();
        let c = cases(&s, 0..500);
        assert!(c.len() > 400, "{}", c.len());
        assert!(c.iter().any(|c| c.is_padded()));
        for case in &c {
            assert_eq!(padded.supports(case), Ok(()));
        }
        let tight = Space::new(&manifest(supports), &filter(), &[]).unwrap();
        assert!(cases(&tight, 0..500).iter().all(|c| !c.is_padded()));
    }
}
