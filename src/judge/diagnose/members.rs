//! The members of every family of the catalogue on a given problem, the preferred first.

use super::catalogue::{Change, Member, Param, Params};
use super::problem::{Memory, Problem, Task};
use super::recipe::{
    Cache, Combine, End, Form, HeadMap, How, Merge, Narrow, Parts, Reading, Recipe, RowMap, SeqMap,
    Sink, SinkMap, Sum16, empty_parts as empty_parts_of,
};
use crate::problem::{Axis, DType};

pub fn plain(change: Change) -> Member {
    Member { params: Params::new(), change, default: true }
}

pub fn chosen(name: &'static str, value: Param, change: Change) -> Member {
    Member { params: Params::from([(name, value)]), change, default: true }
}

fn searched(name: &'static str, value: usize, default: bool, change: Change) -> Member {
    Member { params: Params::from([(name, Param::Int(value))]), change, default }
}

pub fn when(applies: bool, member: Member) -> Vec<Member> {
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
pub fn columns(p: &Problem<'_>, cache: Cache) -> Vec<Member> {
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
pub fn exchanged(p: &Problem<'_>, outer: char) -> Vec<Member> {
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

pub fn layers(p: &Problem<'_>) -> Vec<Member> {
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

pub fn swapped(p: &Problem<'_>) -> Vec<Member> {
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

/// A cache's reading with the strides of so many tokens a head and elements a row; what pads them
/// stays, and of the strides of sequences and layers only where `every` is set. `None` where pads
/// may be missing, as an axis of one element hides its stride.
fn restrided(
    p: &Problem<'_>,
    cache: Cache,
    (tokens, dim): (usize, usize),
    every: bool,
) -> Option<Reading> {
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
        let assumed = match inner {
            Axis::Token => tokens,
            Axis::Dim => dim,
            axis => place.extents().get(axis),
        };
        let filled = match inner {
            Axis::Token => p.capacity,
            axis => place.extents().get(axis),
        } * place.stride(inner);
        let pad = place.stride(outer).checked_sub(filled)?;
        *reading.stride_mut(outer) = assumed * reading.strides[inner as usize] + pad;
    }
    Some(reading)
}

/// Strides as they would be with `seq_len` rows.
pub fn short_strides(p: &Problem<'_>) -> Vec<Member> {
    if p.seq_len == 0 || p.seq_len == p.capacity {
        return Vec::new();
    }
    let shorter =
        |cache: Cache, every: bool| restrided(p, cache, (p.seq_len, dim_of(p, cache)), every);
    let mut members = Vec::new();
    let outer = p.layers > 1 || p.is_batched();
    for every in [true, false] {
        let (k, v) = (shorter(Cache::K, every), shorter(Cache::V, every));
        for (which, change) in addresses(k, v) {
            let mut member = which_of(which, change);
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

/// A change of both caches' addresses, and of each alone, where there are any.
fn addresses(k: Option<Reading>, v: Option<Reading>) -> Vec<(&'static str, Change)> {
    let all = [
        ("both", Change::Address(k.clone(), v.clone())),
        ("k", Change::Address(k, None)),
        ("v", Change::Address(None, v)),
    ];
    let none = |change: &Change| *change == Change::Address(None, None);
    all.into_iter().filter(|(_, change)| !none(change)).collect()
}

fn which_of(which: &str, change: Change) -> Member {
    chosen("which", Param::Text(which.into()), change)
}

/// Elements a row that a kernel may have been written for.
const ROWS: [usize; 11] = [16, 32, 48, 64, 80, 96, 112, 128, 160, 192, 256];
/// Rows a head that a kernel may have been written for: powers of two from 2^4 to 2^16.
const CAPACITIES: std::ops::RangeInclusive<u32> = 4..=16;

/// Addresses with a constant in the place of `head_dim`, or of the capacity.
pub fn constants(p: &Problem<'_>) -> Vec<Member> {
    let mut members = Vec::new();
    let mut put = |name: &'static str, constant: usize, of: &str, change| {
        let mut member = searched(name, constant, false, change);
        member.params.insert("of", Param::Text(of.into()));
        member.default = of == "all" && matches!(constant, 64 | 128);
        members.push(member);
    };
    let square = p.head_dim == p.head_dim_v;
    for rows in ROWS.into_iter().filter(|rows| *rows != p.head_dim || !square) {
        let of = |cache| {
            restrided(p, cache, (p.capacity, rows), true).filter(|_| dim_of(p, cache) != rows)
        };
        let (k, v) = (of(Cache::K), of(Cache::V));
        if p.packed
            && square
            && let (Some(k), Some(v)) = (&k, &v)
        {
            put("rows", rows, "all", Change::Rows(k.clone(), v.clone(), rows));
        }
        for (which, change) in addresses(k, v) {
            put("rows", rows, if which == "both" { "k and v" } else { which }, change);
        }
        if p.packed && rows != p.head_dim {
            put("rows", rows, "q", Change::QueryRows(rows));
        }
    }
    for tokens in CAPACITIES.map(|bits| 1usize << bits).filter(|c| *c != p.capacity) {
        let of = |cache| restrided(p, cache, (tokens, dim_of(p, cache)), true);
        for (which, change) in addresses(of(Cache::K), of(Cache::V)) {
            put("capacity", tokens, if which == "both" { "k and v" } else { which }, change);
        }
    }
    // What is not changed by it is no fault: where tokens or elements are outermost, say.
    let (k, v) = (right(p, Cache::K), right(p, Cache::V));
    members.retain(|m| match &m.change {
        Change::Address(a, b) => {
            a.as_ref().is_none_or(|a| *a != k) && b.as_ref().is_none_or(|b| *b != v)
        }
        _ => true,
    });
    members
}

/// Another sequence's rows, of both caches and of one.
pub fn sequences(p: &Problem<'_>) -> Vec<Member> {
    const MOST: usize = 8;
    if !p.is_batched() {
        return Vec::new();
    }
    let fixed = (0..p.batch().min(MOST)).map(|b| (Param::Int(b), SeqMap::Fixed(b), b == 0));
    let next = (Param::Text("next".into()), SeqMap::Next, true);
    let mut members = Vec::new();
    for (b, map, default) in fixed.chain([next]) {
        for (which, k, v) in [("both", true, true), ("k", true, false), ("v", false, true)] {
            let of = |read: bool| read.then_some(map);
            let mut member = chosen("b", b.clone(), Change::Seq(of(k), of(v)));
            member.params.insert("which", Param::Text(which.into()));
            member.default = default && which == "both";
            members.push(member);
        }
    }
    members
}

/// Other heads' sinks.
pub fn sinks(p: &Problem<'_>) -> Vec<Member> {
    let maps = [
        ("group's first", SinkMap::GroupFirst, p.group() > 1),
        ("head 0", SinkMap::Zero, p.num_heads > 1),
        ("KV head index", SinkMap::KvHead, p.group() > 1 && p.num_kv_heads > 1),
        ("row in group", SinkMap::RowOfGroup, p.num_kv_heads > 1),
        ("next", SinkMap::Next, p.num_heads > 1),
    ];
    let told = maps.into_iter().filter(|(.., differs)| *differs && p.sinks.is_some());
    told.map(|(head, map, _)| chosen("head", Param::Text(head.into()), Change::Sink(Sink::Of(map))))
        .collect()
}

/// The sink counted more than once: twice, or in every split.
pub fn sink_times(p: &Problem<'_>) -> Vec<Member> {
    if p.sinks.is_none() {
        return Vec::new();
    }
    let mut members = vec![plain(Change::Sink(Sink::Times(2)))];
    let more = 3..=16;
    members.extend(more.map(|n| searched("times", n, false, Change::Sink(Sink::Times(n)))));
    members
}

/// A sink that is lost with the split that carries it.
pub fn sink_parts(p: &Problem<'_>) -> Vec<Member> {
    if p.sinks.is_none() {
        return Vec::new();
    }
    let known = p.splits.0;
    let all = if known > 1 { known..=known } else { EVEN_PARTS };
    let mut members = Vec::new();
    for splits in all {
        for (part, last) in [("last", true), ("first", false)] {
            let sink = Sink::InPart { splits, last };
            let lost = (0..p.units.len()).any(|unit| {
                let keys = p.attended(unit);
                !keys.is_empty() && sink.logit(&p.units[unit], &keys, p).is_none()
            });
            if lost {
                let mut member = searched("splits", splits, false, Change::Sink(sink));
                member.params.insert("part", Param::Text(part.into()));
                members.push(member);
            }
        }
    }
    members
}

/// The softcap in other units.
pub fn caps(p: &Problem<'_>) -> Vec<Member> {
    if p.softcap == 0.0 {
        return Vec::new();
    }
    let variant =
        |name: &str, form| chosen("variant", Param::Text(name.into()), Change::Form(form));
    vec![
        variant("capped, then scaled", Form::CappedFirst),
        variant("never scaled", Form::CappedUnscaled),
        variant("units of log 2", Form::CappedLog2),
    ]
}

/// The types of 16 bits.
const NARROW: [DType; 2] = [DType::F16, DType::BF16];

fn of_type(dtype: DType, place: &str, change: Change) -> Member {
    let mut member = chosen("type", Param::Text(dtype.name().into()), change);
    member.params.insert("where", Param::Text(place.into()));
    member.default = false;
    member
}

/// One sum in 16 bits.
pub fn sums(_: &Problem<'_>) -> Vec<Member> {
    let mut members = Vec::new();
    let mut put = |place: &str, sum: Sum16, normalised: bool, change| {
        let mut member = of_type(sum.dtype, place, change);
        let mut words = Vec::new();
        words.extend(normalised.then_some("p normalised first"));
        words.extend((sum.fused && place != "row_sum").then_some("fused"));
        if !words.is_empty() {
            member.params.insert("variant", Param::Text(words.join(", ")));
        }
        if sum.tile > 0 {
            member.params.insert("tile", Param::Int(sum.tile));
        }
        members.push(member);
    };
    for dtype in NARROW {
        for tile in [0, 16, 32, 64, 128] {
            for fused in [true, false] {
                let sum = Sum16 { dtype, fused, tile };
                for normalised in [false, true] {
                    let combine = Combine::SumOfValues(sum, normalised);
                    put("pv", sum, normalised, Change::Combine(combine));
                }
                if tile <= 32 {
                    put("scores", sum, false, Change::Form(Form::Sum(sum)));
                }
            }
            let sum = Sum16 { dtype, fused: true, tile };
            put("row_sum", sum, false, Change::Combine(Combine::RowSum(sum)));
        }
    }
    for (dtype, tile) in NARROW.into_iter().flat_map(|t| RUNNING.map(|tile| (t, tile))) {
        let mut member = of_type(dtype, "pv", Change::Combine(Combine::Running(dtype, tile)));
        member.params.insert("variant", Param::Text("from tile to tile".into()));
        member.params.insert("tile", Param::Int(tile));
        members.push(member);
    }
    members.sort_by_key(|m| m.params.len());
    members
}

/// Tiles of keys after which an accumulator may be rounded.
const RUNNING: [usize; 6] = [16, 32, 64, 128, 256, 512];

/// Scores in 16 bits.
pub fn narrow_scores(_: &Problem<'_>) -> Vec<Member> {
    let places = [("before_scale", true), ("after_scale", false)];
    let of = |dtype| {
        let member = move |(place, before)| {
            of_type(dtype, place, Change::Form(Form::Narrowed(dtype, before)))
        };
        places.map(member)
    };
    NARROW.into_iter().flat_map(of).collect()
}

/// Bits that an index may be cut to.
const BITS: [u32; 7] = [8, 10, 12, 13, 14, 15, 16];

/// Indices of keys that are cut.
pub fn indices(p: &Problem<'_>) -> Vec<Member> {
    let mut members = Vec::new();
    for bits in BITS.into_iter().filter(|bits| 1usize << bits < p.seq_len) {
        for (which, k, v) in [("both", true, true), ("k", true, false), ("v", false, true)] {
            let of = |cut: bool| cut.then_some(bits);
            let mut member = which_of(which, Change::Index(of(k), of(v)));
            member.params.insert("bits", Param::Int(bits as usize));
            member.default = which == "both" && matches!(bits, 8 | 13 | 16);
            members.push(member);
        }
    }
    members
}

/// One head map for both caches.
pub fn both_heads(map: HeadMap) -> Change {
    Change::Heads(Some(map), Some(map))
}

/// Head maps in words, those that differ from the right one.
fn maps(p: &Problem<'_>, all: &[(&'static str, HeadMap)]) -> Vec<(&'static str, HeadMap)> {
    let of = |map: HeadMap, h| map.of(h, p.group(), p.num_kv_heads);
    let differs = |map: HeadMap| (0..p.num_heads).any(|h| of(map, h) != of(HeadMap::Grouped, h));
    all.iter().copied().filter(|(_, map)| differs(*map)).collect()
}

/// Maps that forget or mistake the group.
const FORGETFUL: [(&str, HeadMap); 3] =
    [("0", HeadMap::First), ("h", HeadMap::Own), ("h / H", HeadMap::ByCount)];

/// Both caches read with a map that forgets or mistakes the group.
pub fn head_maps(p: &Problem<'_>) -> Vec<Member> {
    let member = |(kv, map)| chosen("kv", Param::Text(String::from(kv)), both_heads(map));
    maps(p, &FORGETFUL).into_iter().map(member).collect()
}

/// One cache read with another head map.
pub fn one_head_map(p: &Problem<'_>, cache: Cache) -> Vec<Member> {
    const OTHERS: [(&str, HeadMap); 3] = [
        ("h mod H", HeadMap::Interleaved),
        ("(h/G + 1) mod H", HeadMap::NextWrapped),
        ("min((h+1)/G, H-1)", HeadMap::NextClamped),
    ];
    let all: Vec<_> = OTHERS.into_iter().chain(FORGETFUL).collect();
    let member = |(map, heads)| {
        let change = match cache {
            Cache::K => Change::Heads(Some(heads), None),
            Cache::V => Change::Heads(None, Some(heads)),
        };
        let mut member = chosen("map", Param::Text(String::from(map)), change);
        member.default = matches!(heads, HeadMap::First | HeadMap::Interleaved);
        member
    };
    maps(p, &all).into_iter().map(member).collect()
}

/// Outputs in each other's rows.
pub fn rows(p: &Problem<'_>) -> Vec<Member> {
    let all = [
        ("next head", RowMap::NextHead),
        ("head before", RowMap::HeadBefore),
        ("heads reversed", RowMap::Reversed),
        ("[rows of a group, groups]", RowMap::GroupsExchanged),
        ("[groups, rows of a group]", RowMap::GroupsExchangedBack),
        ("[heads, batch]", RowMap::HeadsOutside),
        ("next sequence", RowMap::NextSequence),
        ("next position", RowMap::NextPosition),
        ("position before", RowMap::PositionBefore),
        ("[tokens, heads]", RowMap::TokensOutside),
    ];
    let mut seen: Vec<Vec<Option<usize>>> = vec![(0..p.units.len()).map(Some).collect()];
    let mut members = Vec::new();
    for (row, map) in all {
        let sources: Vec<_> = (0..p.units.len()).map(|u| map.source(u, p)).collect();
        if sources.iter().all(Option::is_some) && !seen.contains(&sources) {
            let mut member = chosen("row", Param::Text(row.into()), Change::Row(map));
            member.default = false;
            members.push(member);
            seen.push(sources);
        }
    }
    members
}

/// The lse of parts in another order of axes.
pub fn lse_orders(p: &Problem<'_>) -> Vec<Member> {
    let read = |order: &str, merge| chosen("read", Param::Text(order.into()), Change::Merge(merge));
    let heads = p.is_batched() && p.num_heads > 1;
    let parts = p.capacity > 1 && p.units.len() > 1;
    let mut members = when(heads, read("[heads, batch, parts]", Merge::HeadsOutside));
    members.extend(when(parts, read("[parts, batch, heads]", Merge::PartsOutside)));
    members
}

/// Parts that are not merged.
pub fn parts_dropped(p: &Problem<'_>) -> Vec<Member> {
    let part = |name: &str, merge| chosen("part", Param::Text(name.into()), Change::Merge(merge));
    let mut members = when(p.capacity > 1, part("last", Merge::WithoutLast));
    members.extend(when(p.capacity > 1, part("first", Merge::WithoutFirst)));
    members
}

/// Parts without keys that count: where they are merged, or where their lse is written.
pub fn empty_parts(p: &Problem<'_>) -> Vec<Member> {
    if p.task == Task::Merge {
        return vec![plain(Change::Merge(Merge::EmptyAtZero))];
    }
    let (splits, summed) = p.splits;
    let has_empty = |unit: usize| empty_parts_of(p.attended(unit).len(), splits) > 0;
    let applies = summed && splits > 1 && (0..p.units.len()).any(has_empty);
    when(applies, plain(Change::Sink(Sink::EmptyParts(splits))))
}

/// Another end of the keys; with a window, which stays where it was or follows the end.
pub fn ends(p: &Problem<'_>, end: End) -> Vec<Member> {
    let mut members = vec![plain(Change::End(end, false))];
    if p.window_len > 0 {
        let follows = Change::End(end, true);
        members.push(chosen("window", Param::Text("follows".into()), follows));
    }
    members
}

pub fn windows(p: &Problem<'_>) -> Vec<Member> {
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

pub fn window_edges(p: &Problem<'_>) -> Vec<Member> {
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

pub fn tails(p: &Problem<'_>) -> Vec<Member> {
    let mut all: Vec<usize> = (2..=p.seq_len).collect();
    prefer_powers(&mut all);
    let default = |tile: usize| tile.is_power_of_two() && (4..=512).contains(&tile);
    let of = |tile: &usize| {
        searched("tile", *tile, default(*tile), Change::End(End::Tile(*tile), false))
    };
    let mut members: Vec<Member> = all.iter().map(of).collect();
    if p.window_len > 0 {
        // The window may be counted from where the keys end.
        let tiles = all.into_iter().filter(|tile| default(*tile));
        members.extend(tiles.map(|tile| {
            let mut member = searched("tile", tile, true, Change::End(End::Tile(tile), true));
            member.params.insert("window", Param::Text("follows".into()));
            member
        }));
    }
    members
}

/// What a fault with parameters of another case is on this one, where a search here would not try it:
/// a tile that is longer than the sequence leaves no key; row 0 is attended under a window that is no
/// shorter than a sequence; and a window of about as many keys as there are may be forgotten as well.
pub fn beyond(id: &str, params: &Params, p: &Problem<'_>) -> Option<Member> {
    let windowed = p.window_len > 0;
    match (id, params.get("tile")) {
        ("dropped_tail", Some(Param::Int(tile))) if *tile > p.seq_len => {
            Some(searched("tile", *tile, false, Change::End(End::Tile(*tile), false)))
        }
        ("sink_dropped", _)
            if windowed && (0..p.units.len()).any(|u| p.attended(u).contains(&0)) =>
        {
            Some(plain(Change::WithoutFirst))
        }
        ("window_w", _) if windowed && p.window_len.abs_diff(p.seq_len) <= 1 => {
            Some(searched("w", p.seq_len, false, Change::Window(p.seq_len)))
        }
        _ => None,
    }
}

/// Even parts that are tried, besides one cut in every place. Two are no cut where the sequences of
/// a batch differ in length.
pub const EVEN_PARTS: std::ops::RangeInclusive<usize> = 2..=64;

pub fn splits(p: &Problem<'_>) -> Vec<Member> {
    let mut members = Vec::new();
    if p.task == Task::Merge {
        let how = |name: &str, merge| chosen("how", Param::Text(name.into()), Change::Merge(merge));
        return vec![
            how("sum", Merge::Sum),
            how("mean", Merge::Mean),
            how("mean of all", Merge::MeanOfAll),
        ];
    }
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

pub fn narrowed_dims(p: &Problem<'_>) -> Vec<Member> {
    let mut all: Vec<usize> = (1..p.head_dim).collect();
    prefer_powers(&mut all);
    let default = |used: usize| used * 2 == p.head_dim || matches!(used, 32 | 64);
    all.into_iter().map(|used| searched("used", used, default(used), Change::Used(used))).collect()
}

pub fn narrow_sums(_: &Problem<'_>) -> Vec<Member> {
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
