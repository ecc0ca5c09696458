//! The catalogue: every fault that a diagnosis can name.
//!
//! A new fault is one entry of [`FAULTS`]: its id, what the faulty kernel did, what to look at in
//! its code, and the members of its family on a given problem. A member is a change of the right
//! recipe in one respect and in nothing else.

use super::problem::{Memory, Problem, Task};
use super::recipe::{
    Aspect, Cache, Combine, End, HeadMap, How, Narrow, Parts, Reading, Recipe, ScaleBy,
};
use crate::problem::{Axis, DType};
use std::collections::BTreeMap;
use std::fmt;

/// The value of a fault's parameter.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Param {
    /// A number.
    Int(usize),
    /// A word.
    Text(String),
}

impl fmt::Display for Param {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Param::Int(x) => x.fmt(f),
            Param::Text(x) => x.fmt(f),
        }
    }
}

/// A fault's parameters by name.
pub type Params = BTreeMap<&'static str, Param>;

/// What a member changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Where K, V or both are read: strides, base and buffer.
    Address(Option<Reading>, Option<Reading>),
    /// The layer of K, of V.
    Layer(Option<usize>, Option<usize>),
    /// The head map.
    Heads(HeadMap),
    /// Where the attended keys end; whether a window is counted from there.
    End(End, bool),
    /// Row 0 is left out.
    WithoutFirst,
    /// All rows are shifted by one.
    Shift,
    /// Another window.
    Window(usize),
    /// Another factor on Q·K.
    Scale(ScaleBy),
    /// Fewer elements in Q·K.
    Used(usize),
    /// The current row is zeros.
    CurrentZero,
    /// Another way to form the output.
    Combine(Combine),
}

impl Change {
    /// Whether the change can be seen in the outputs of a task.
    pub fn concerns(&self, task: Task) -> bool {
        let [scores, weights, mix] = match self {
            Change::Address(k, v) => [k.is_some(), false, v.is_some()],
            Change::Layer(k, v) => [k.is_some(), false, v.is_some()],
            Change::Heads(_) => [true, false, true],
            Change::End(..) | Change::WithoutFirst | Change::Window(_) => [false, true, true],
            Change::Shift => [true, false, true],
            Change::Scale(_) | Change::Used(_) => [true, false, false],
            Change::CurrentZero => [true, false, true],
            Change::Combine(combine) => [false, matches!(combine, Combine::Split(..)), false],
        };
        match task {
            Task::Attend => true,
            Task::Scores => scores,
            Task::Weights => weights,
            Task::Mix => mix,
        }
    }

    /// Changes a recipe; false where another change touched the same aspect.
    pub fn apply(&self, recipe: &mut Recipe) -> bool {
        match self {
            Change::Address(k, v) => {
                let mut free = true;
                if let Some(k) = k {
                    free &= recipe.touch(Aspect::AddressK);
                    recipe.k = Reading { layer: recipe.k.layer, ..k.clone() };
                }
                if let Some(v) = v {
                    free &= recipe.touch(Aspect::AddressV);
                    recipe.v = Reading { layer: recipe.v.layer, ..v.clone() };
                }
                free
            }
            Change::Layer(k, v) => {
                let mut free = true;
                if let Some(k) = k {
                    free &= recipe.touch(Aspect::LayerK);
                    recipe.k.layer = *k;
                }
                if let Some(v) = v {
                    free &= recipe.touch(Aspect::LayerV);
                    recipe.v.layer = *v;
                }
                free
            }
            Change::Heads(map) => {
                recipe.heads = *map;
                recipe.touch(Aspect::Heads)
            }
            Change::End(end, follows) => {
                recipe.keys.end = *end;
                recipe.keys.window_follows = *follows;
                recipe.touch(Aspect::Last)
            }
            Change::WithoutFirst => {
                recipe.keys.without_first = true;
                recipe.touch(Aspect::First)
            }
            Change::Shift => {
                recipe.keys.shift = 1;
                // why: rows 1.. of S is neither without its first nor with another end.
                let first = recipe.touch(Aspect::First);
                recipe.touch(Aspect::Last) && first
            }
            Change::Window(w) => {
                recipe.keys.window = *w;
                recipe.touch(Aspect::First)
            }
            Change::Scale(by) => {
                recipe.scale = *by;
                recipe.touch(Aspect::Scale)
            }
            Change::Used(used) => {
                recipe.used = *used;
                recipe.touch(Aspect::Used)
            }
            Change::CurrentZero => {
                recipe.current_zero = true;
                recipe.touch(Aspect::Current)
            }
            Change::Combine(combine) => {
                recipe.combine = *combine;
                recipe.touch(Aspect::Combine)
            }
        }
    }
}

/// One hypothesis: a fault with its parameters.
#[derive(Debug, Clone)]
pub struct Member {
    /// The parameters, as they are reported.
    pub params: Params,
    /// What differs from the right recipe.
    pub change: Change,
    /// Whether pairs are formed with it.
    pub default: bool,
}

/// How a fault's id ranks among others that fit as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// No free parameter.
    Plain,
    /// A choice among a few.
    Choice,
    /// A parameter that is searched.
    Searched,
}

/// How the members of a family are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Search {
    /// One after the other.
    Each,
    /// Windows: suffixes of the keys, by a running sum from the last.
    Windows,
    /// Tails: prefixes of the keys, by a running sum from the first.
    Tails,
    /// Cuts: a prefix and a suffix.
    Cuts,
}

/// A fault that a diagnosis can name.
pub struct Fault {
    /// The id, a contract.
    pub id: &'static str,
    /// What the faulty kernel did.
    pub meaning: &'static str,
    /// What to look at in its code.
    pub advice: &'static str,
    /// See [`Rank`].
    pub rank: Rank,
    /// See [`Search`].
    pub search: Search,
    /// Every member on a problem, the preferred first.
    pub members: fn(&Problem<'_>) -> Vec<Member>,
}

/// Every fault, in the order of the catalogue.
pub static FAULTS: [Fault; 25] = [
    Fault {
        id: "v_col",
        meaning: "V was read with tokens and elements exchanged inside a head",
        advice: "the address of V: element (n, d) of a row layout is at n * head_dim + d, of a \
                 column layout at d * capacity + n",
        rank: Rank::Plain,
        search: Search::Each,
        members: |p| columns(p, Cache::V),
    },
    Fault {
        id: "k_col",
        meaning: "K was read with tokens and elements exchanged inside a head",
        advice: "the address of K: element (n, d) of a row layout is at n * head_dim + d, of a \
                 column layout at d * capacity + n",
        rank: Rank::Plain,
        search: Search::Each,
        members: |p| columns(p, Cache::K),
    },
    Fault {
        id: "nhd_as_hnd",
        meaning: "a cache with tokens outside heads (NHD) was read as one with heads outside (HND)",
        advice: "the strides of head and token: here a token's heads lie side by side",
        rank: Rank::Plain,
        search: Search::Each,
        members: |p| exchanged(p, 'N'),
    },
    Fault {
        id: "hnd_as_nhd",
        meaning: "a cache with heads outside tokens (HND) was read as one with tokens outside (NHD)",
        advice: "the strides of head and token: here a head's tokens lie side by side",
        rank: Rank::Plain,
        search: Search::Each,
        members: |p| exchanged(p, 'H'),
    },
    Fault {
        id: "layer_slice",
        meaning: "K and V of another layer were read",
        advice: "the base pointers of K and V: add layer * layer stride, for this layer",
        rank: Rank::Choice,
        search: Search::Each,
        members: layers,
    },
    Fault {
        id: "v_prev_layer_mixed",
        meaning: "K of this layer and V of the layer before were read",
        advice: "the base pointer of V: it is one layer behind K's",
        rank: Rank::Plain,
        search: Search::Each,
        members: |p| match p.layer.checked_sub(1).filter(|_| p.layers > 1) {
            Some(before) => vec![plain(Change::Layer(None, Some(before)))],
            None => Vec::new(),
        },
    },
    Fault {
        id: "kv_swapped",
        meaning: "K and V were exchanged",
        advice: "the order of the arguments k and v at the launch",
        rank: Rank::Plain,
        search: Search::Each,
        members: swapped,
    },
    Fault {
        id: "head_map_interleaved",
        meaning: "query head h read KV head h mod num_kv_heads",
        advice: "the KV head of query head h: it is h / (num_heads / num_kv_heads)",
        rank: Rank::Plain,
        search: Search::Each,
        members: |_| vec![plain(Change::Heads(HeadMap::Interleaved))],
    },
    Fault {
        id: "head_off_by_one",
        meaning: "query heads read the KV head after their own",
        advice: "the KV head of query head h: it is h / (num_heads / num_kv_heads), rounded down",
        rank: Rank::Choice,
        search: Search::Each,
        members: |_| {
            let maps = [
                ("(h/G + 1) mod H", HeadMap::NextWrapped),
                ("min((h+1)/G, H-1)", HeadMap::NextClamped),
            ];
            let member =
                |(kv, map)| chosen("kv", Param::Text(String::from(kv)), Change::Heads(map));
            maps.map(member).into()
        },
    },
    Fault {
        id: "stride_seq_len",
        meaning: "strides were computed with seq_len rows; the cache has capacity rows",
        advice: "the base of a head is computed with seq_len rows; the cache has capacity rows: use \
                 capacity",
        rank: Rank::Choice,
        search: Search::Each,
        members: short_strides,
    },
    Fault {
        id: "seq_len_minus_1",
        meaning: "the current token was not attended",
        advice: "the end of the loop over keys: the last one is seq_len - 1, included",
        rank: Rank::Plain,
        search: Search::Each,
        members: |p| ends(p, End::MinusOne),
    },
    Fault {
        id: "seq_len_plus_1",
        meaning: "one row past the end was attended",
        advice: "the end of the loop over keys: n < seq_len, and not n <= seq_len",
        rank: Rank::Plain,
        search: Search::Each,
        members: |p| ends(p, End::PlusOne),
    },
    Fault {
        id: "pos_shift",
        meaning: "rows 1 to seq_len were attended in place of rows 0 to seq_len - 1",
        advice: "the index of a row: positions count from 0",
        rank: Rank::Plain,
        search: Search::Each,
        members: |_| vec![plain(Change::Shift)],
    },
    Fault {
        id: "sink_dropped",
        meaning: "row 0 was not attended",
        advice: "the start of the loop over keys: it is 0",
        rank: Rank::Plain,
        search: Search::Each,
        members: |p| when(p.window_len == 0, plain(Change::WithoutFirst)),
    },
    Fault {
        id: "capacity_as_seq",
        meaning: "every row of the cache was attended, stale ones too",
        advice: "the end of the loop over keys: it is seq_len, and not capacity",
        rank: Rank::Plain,
        search: Search::Each,
        members: |p| ends(p, End::Capacity),
    },
    Fault {
        id: "stale_current",
        meaning: "the current token's row had not been written yet when it was read",
        advice: "the order of appending the current K and V and of attending: a missing \
                 synchronisation, or an append after the launch",
        rank: Rank::Choice,
        search: Search::Each,
        members: |_| vec![chosen("variant", Param::Text("zero".into()), Change::CurrentZero)],
    },
    Fault {
        id: "window_w",
        meaning: "only the last w keys were attended, which was not asked for",
        advice: "where a window is set, or a tile of keys skipped, at the start of the loop over keys",
        rank: Rank::Searched,
        search: Search::Windows,
        members: windows,
    },
    Fault {
        id: "window_off_by_one",
        meaning: "a window of w attended one key too few or too many",
        advice: "whether the current token counts: the first key is seq_len - window_len",
        rank: Rank::Choice,
        search: Search::Each,
        members: window_edges,
    },
    Fault {
        id: "dropped_tail",
        meaning: "the last seq_len mod tile keys were not attended",
        advice: "the last, partial tile of the loop over keys, or the remainder of a split",
        rank: Rank::Searched,
        search: Search::Tails,
        members: tails,
    },
    Fault {
        id: "missing_scale",
        meaning: "Q·K was not scaled",
        advice: "where the softmax scale multiplies the scores, or q",
        rank: Rank::Plain,
        search: Search::Each,
        members: |_| vec![plain(Change::Scale(ScaleBy::One))],
    },
    Fault {
        id: "double_scale",
        meaning: "Q·K was scaled twice",
        advice: "whether q arrives already scaled",
        rank: Rank::Plain,
        search: Search::Each,
        members: |_| vec![plain(Change::Scale(ScaleBy::Squared))],
    },
    Fault {
        id: "scale_by_d",
        meaning: "Q·K was scaled by 1 / head_dim",
        advice: "the softmax scale: 1 / sqrt(head_dim)",
        rank: Rank::Plain,
        search: Search::Each,
        members: |_| vec![plain(Change::Scale(ScaleBy::HeadDim))],
    },
    Fault {
        id: "split_not_rescaled",
        meaning: "partial results of key splits were put together without their maxima",
        advice: "the merge: each part counts exp(its lse - the largest lse) times",
        rank: Rank::Searched,
        search: Search::Cuts,
        members: splits,
    },
    Fault {
        id: "zero_padded_head_dim",
        meaning: "only the first elements of q and k took part in Q·K",
        advice: "the loop over head_dim in Q·K, and what is loaded of q and k",
        rank: Rank::Searched,
        search: Search::Each,
        members: narrowed_dims,
    },
    Fault {
        id: "fp16_accumulate",
        meaning: "weights, products and their sums were held in 16 bits",
        advice: "the type of the accumulators of P·V and of the softmax's denominator: f32",
        rank: Rank::Searched,
        search: Search::Each,
        members: narrow_sums,
    },
];

/// The fault of an id.
pub fn find(id: &str) -> Option<&'static Fault> {
    FAULTS.iter().find(|f| f.id == id)
}

fn plain(change: Change) -> Member {
    Member { params: Params::new(), change, default: true }
}

fn chosen(name: &'static str, value: Param, change: Change) -> Member {
    Member { params: Params::from([(name, value)]), change, default: true }
}

fn searched(name: &'static str, value: usize, default: bool, change: Change) -> Member {
    Member { params: Params::from([(name, Param::Int(value))]), change, default }
}

fn when(applies: bool, member: Member) -> Vec<Member> {
    if applies { vec![member] } else { Vec::new() }
}

fn memory<'p, 'a>(p: &'p Problem<'a>, cache: Cache) -> &'p Memory<'a> {
    match cache {
        Cache::K => &p.k,
        Cache::V => &p.v,
    }
}

/// The right reading of a cache.
fn right(p: &Problem<'_>, cache: Cache) -> Reading {
    let recipe = Recipe::right(p);
    match cache {
        Cache::K => recipe.k,
        Cache::V => recipe.v,
    }
}

fn dim_of(p: &Problem<'_>, cache: Cache) -> usize {
    match cache {
        Cache::K => p.head_dim,
        Cache::V => p.head_dim_v,
    }
}

fn address(cache: Cache, reading: Reading) -> Change {
    match cache {
        Cache::K => Change::Address(Some(reading), None),
        Cache::V => Change::Address(None, Some(reading)),
    }
}

/// Whether an element's tokens are contiguous.
fn is_column(p: &Problem<'_>, cache: Cache) -> bool {
    let letters = memory(p, cache).place.layout().as_str();
    letters.find('D') < letters.find('N')
}

/// Tokens and elements exchanged: of a head whose base is right; and, where a token's heads lie
/// side by side, of the whole cache, so that the bases differ too.
fn columns(p: &Problem<'_>, cache: Cache) -> Vec<Member> {
    let of = right(p, cache);
    let (dim, column) = (dim_of(p, cache), is_column(p, cache));
    let exchange = |reading: &Reading, row: usize, col: usize| {
        let mut reading = reading.clone();
        let (token, element) = if column { (row, 1) } else { (1, col) };
        *reading.stride_mut(Axis::Token) = token;
        *reading.stride_mut(Axis::Dim) = element;
        reading
    };
    let mut members = vec![plain(address(cache, exchange(&of, dim, p.capacity)))];
    let heads = of.strides[Axis::Head as usize];
    let between = if column { of.step().1 > heads } else { of.step().0 > heads };
    if between && p.num_kv_heads > 1 {
        let mut whole = exchange(&of, dim * p.num_kv_heads, p.capacity * p.num_kv_heads);
        *whole.stride_mut(Axis::Head) = if column { dim } else { p.capacity };
        members.push(chosen("bases", Param::Text("exchanged".into()), address(cache, whole)));
    }
    members
}

/// The other order of heads and tokens, for the caches whose outer one of the two is `outer`.
fn exchanged(p: &Problem<'_>, outer: char) -> Vec<Member> {
    let other = |cache: Cache| {
        let mut reading = right(p, cache);
        let (dim, heads, tokens) = (dim_of(p, cache), p.num_kv_heads, p.capacity);
        let column = is_column(p, cache);
        // In a column layout it is the elements that tokens stand for: a head's lie side by side.
        let letters = memory(p, cache).place.layout().as_str();
        let inner = if column { 'D' } else { 'N' };
        let heads_outside = letters.find('H') < letters.find(inner);
        if heads_outside != (outer == 'H') {
            return None;
        }
        let (head, token, element) = match (outer, column) {
            ('N', false) => (tokens * dim, dim, 1),
            ('N', true) => (dim * tokens, 1, tokens),
            (_, false) => (dim, heads * dim, 1),
            (_, true) => (tokens, 1, heads * tokens),
        };
        for (axis, stride) in [(Axis::Head, head), (Axis::Token, token), (Axis::Dim, element)] {
            *reading.stride_mut(axis) = stride;
        }
        Some(reading)
    };
    let (k, v) = (other(Cache::K), other(Cache::V));
    if k.is_none() && v.is_none() {
        return Vec::new();
    }
    let mut members = vec![plain(Change::Address(k.clone(), v.clone()))];
    if k.is_some() && v.is_some() {
        let which = |name: &str, change| chosen("which", Param::Text(name.into()), change);
        members.push(which("k", Change::Address(k, None)));
        members.push(which("v", Change::Address(None, v)));
    }
    members
}

fn layers(p: &Problem<'_>) -> Vec<Member> {
    let others = (0..p.layers).filter(|read| *read != p.layer);
    let mut members: Vec<Member> = others
        .map(|read| {
            let near = read == 0 || read.abs_diff(p.layer) == 1 || p.layers <= 8;
            searched("read", read, near, Change::Layer(Some(read), Some(read)))
        })
        .collect();
    // The base that was never offset is the likeliest, then the neighbours.
    members.sort_by_key(|m| !m.default);
    members
}

fn swapped(p: &Problem<'_>) -> Vec<Member> {
    if p.head_dim != p.head_dim_v {
        return Vec::new();
    }
    let (k, v) = (right(p, Cache::K), right(p, Cache::V));
    let mut members = vec![plain(Change::Address(Some(v.clone()), Some(k.clone())))];
    if (k.offset, k.strides) != (v.offset, v.strides) {
        // The pointers alone: each is read with the strides of the other.
        let crossed = |strides: &Reading, buffer| Reading { buffer, ..strides.clone() };
        let change = Change::Address(Some(crossed(&k, Cache::V)), Some(crossed(&v, Cache::K)));
        members.push(chosen("strides", Param::Text("kept".into()), change));
    }
    members
}

/// Strides as they would be with `seq_len` rows; what pads them stays.
fn short_strides(p: &Problem<'_>) -> Vec<Member> {
    if p.seq_len == 0 || p.seq_len == p.capacity {
        return Vec::new();
    }
    let shorter = |cache: Cache, every: bool| {
        let place = &memory(p, cache).place;
        let mut reading = right(p, cache);
        let mut axes: Vec<Axis> =
            Axis::ALL.into_iter().filter(|axis| place.stride(*axis) > 0).collect();
        axes.sort_by_key(|axis| (place.stride(*axis), place.extents().get(*axis)));
        for pair in axes.windows(2) {
            let (inner, outer) = (pair[0], pair[1]);
            if !every && matches!(outer, Axis::Seq | Axis::Layer) {
                continue;
            }
            let rows = |axis: Axis, tokens| match axis {
                Axis::Token => tokens,
                axis => place.extents().get(axis),
            };
            let filled = rows(inner, p.capacity) * place.stride(inner);
            let short = rows(inner, p.seq_len) * reading.strides[inner as usize];
            // why: pads may be missing where an axis of one element hides its stride.
            let pad = place.stride(outer).checked_sub(filled)?;
            *reading.stride_mut(outer) = short + pad;
        }
        Some(reading)
    };
    let mut members = Vec::new();
    let outer = p.layers > 1 || p.is_batched();
    for every in [true, false] {
        let (k, v) = (shorter(Cache::K, every), shorter(Cache::V, every));
        for (which, k, v) in [("both", &k, &v), ("k", &k, &None), ("v", &None, &v)] {
            if k.is_none() && v.is_none() {
                continue;
            }
            let change = Change::Address(k.clone(), v.clone());
            let mut member = chosen("which", Param::Text(which.into()), change);
            if !every {
                member.params.insert("strides", Param::Text("of heads".into()));
            }
            members.push(member);
        }
        if !outer {
            break;
        }
    }
    members
}

/// Another end of the keys; with a window, which stays where it was or follows the end.
fn ends(p: &Problem<'_>, end: End) -> Vec<Member> {
    let mut members = vec![plain(Change::End(end, false))];
    if p.window_len > 0 {
        let follows = Change::End(end, true);
        members.push(chosen("window", Param::Text("follows".into()), follows));
    }
    members
}

fn windows(p: &Problem<'_>) -> Vec<Member> {
    let (window, n) = (p.window_len, p.seq_len);
    // The neighbours of a window that was asked for have a name of their own. Where one was asked
    // for, the window may also have been forgotten.
    let last = if window == 0 { n.saturating_sub(1) } else { n };
    let mut all: Vec<usize> =
        (1..=last).filter(|w| window == 0 || w.abs_diff(window) > 1).collect();
    prefer_powers(&mut all);
    let default = |w: usize| w.is_power_of_two() && w >= 8 || window > 0 && w == n;
    all.into_iter().map(|w| searched("w", w, default(w), Change::Window(w))).collect()
}

fn window_edges(p: &Problem<'_>) -> Vec<Member> {
    let w = p.window_len;
    let edge = |keys: usize| {
        let mut member = searched("w", w, true, Change::Window(keys));
        member.params.insert("keys", Param::Int(keys));
        member
    };
    match w {
        0 => Vec::new(),
        // A window of 0 would mean none.
        1 => vec![edge(2)],
        w => vec![edge(w - 1), edge(w + 1)],
    }
}

fn tails(p: &Problem<'_>) -> Vec<Member> {
    let mut all: Vec<usize> = (2..=p.seq_len).collect();
    prefer_powers(&mut all);
    let default = |tile: usize| tile.is_power_of_two() && (4..=512).contains(&tile);
    all.into_iter()
        .map(|tile| searched("tile", tile, default(tile), Change::End(End::Tile(tile), false)))
        .collect()
}

/// Even parts that are tried, besides one cut in every place. Two are no cut where the sequences of
/// a batch differ in length.
pub const EVEN_PARTS: std::ops::RangeInclusive<usize> = 2..=64;

fn splits(p: &Problem<'_>) -> Vec<Member> {
    let mut members = Vec::new();
    let half = p.seq_len.div_ceil(2);
    for (name, how) in [("sum", How::Sum), ("mean", How::Mean)] {
        let member = |key, value, default, parts| {
            let mut member =
                searched(key, value, default, Change::Combine(Combine::Split(how, parts)));
            member.params.insert("how", Param::Text(name.into()));
            member
        };
        let mut cuts: Vec<usize> = (1..p.seq_len).collect();
        prefer_powers(&mut cuts);
        members
            .extend(cuts.into_iter().map(|cut| member("cut", cut, cut == half, Parts::Cut(cut))));
        let even = EVEN_PARTS.filter(|parts| *parts <= p.seq_len);
        members.extend(
            even.map(|parts| member("splits", parts, matches!(parts, 4 | 8), Parts::Even(parts))),
        );
    }
    members
}

fn narrowed_dims(p: &Problem<'_>) -> Vec<Member> {
    let mut all: Vec<usize> = (1..p.head_dim).collect();
    prefer_powers(&mut all);
    let default = |used: usize| used * 2 == p.head_dim || matches!(used, 32 | 64);
    all.into_iter().map(|used| searched("used", used, default(used), Change::Used(used))).collect()
}

fn narrow_sums(_: &Problem<'_>) -> Vec<Member> {
    let mut members = Vec::new();
    for single in [false, true] {
        for dtype in [DType::F16, DType::BF16] {
            for normalised in [false, true] {
                for fused in [false, true] {
                    for tile in [0, 16, 32, 64, 128] {
                        let way = Narrow { dtype, fused, tile, normalised, single };
                        let combine = Change::Combine(Combine::Narrow(way));
                        let mut member = chosen("dtype", Param::Text(dtype.name().into()), combine);
                        let mut words = Vec::new();
                        words.extend(normalised.then_some("p normalised first"));
                        words.extend(fused.then_some("fused"));
                        words.extend(single.then_some("f32 scores"));
                        if !words.is_empty() {
                            let words = Param::Text(words.join(", "));
                            member.params.insert("variant", words);
                        }
                        if tile > 0 {
                            member.params.insert("tile", Param::Int(tile));
                        }
                        member.default = !normalised && !fused && !single && tile == 0;
                        members.push(member);
                    }
                }
            }
        }
    }
    members.sort_by_key(|m| m.params.len());
    members
}

/// Powers of two first, each group ascending: the likelier parameters of a kernel.
fn prefer_powers(all: &mut [usize]) {
    all.sort_by_key(|x| (!x.is_power_of_two(), *x));
}
