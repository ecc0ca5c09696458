//! The catalogue: every fault that a diagnosis can name.
//!
//! A new fault is one entry of [`FAULTS`]: its id, what the faulty kernel did, what to look at in
//! its code, and the members of its family on a given problem. A member is a change of the right
//! recipe in one respect and in nothing else.

use super::members::{self, both_heads, chosen, plain, when};
use super::problem::{Problem, Task};
use super::recipe::{
    Aspect, Cache, Combine, End, Form, HeadMap, Merge, Reading, Recipe, RowMap, ScaleBy, SeqMap,
    Sink,
};
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
    /// The head map of K, of V.
    Heads(Option<HeadMap>, Option<HeadMap>),
    /// The sequence of K, of V.
    Seq(Option<SeqMap>, Option<SeqMap>),
    /// Bits of the index of K's rows, of V's.
    Index(Option<u32>, Option<u32>),
    /// Everything read and written as if rows had so many elements.
    Rows(Reading, Reading, usize),
    /// Queries read as if rows had so many elements.
    QueryRows(usize),
    /// Where the attended keys end; whether a window is counted from there.
    End(End, bool),
    /// Row 0 is left out.
    WithoutFirst,
    /// All rows are shifted by one.
    Shift,
    /// Another window.
    Window(usize),
    /// A window counted back from so many keys.
    WindowOf(usize),
    /// Another factor on Q·K.
    Scale(ScaleBy),
    /// Fewer elements in Q·K.
    Used(usize),
    /// The current row is zeros.
    CurrentZero,
    /// Another way to make the scores.
    Form(Form),
    /// Another sink.
    Sink(Sink),
    /// Another way to form the output.
    Combine(Combine),
    /// Another way to merge parts.
    Merge(Merge),
    /// Another unit's output.
    Row(RowMap),
}

impl Change {
    /// Whether the change can be seen in the outputs of a task.
    pub fn concerns(&self, task: Task) -> bool {
        let [scores, weights, mix] = match self {
            Change::Address(k, v) => [k.is_some(), false, v.is_some()],
            Change::Layer(k, v) => [k.is_some(), false, v.is_some()],
            Change::Heads(k, v) => [k.is_some(), false, v.is_some()],
            Change::Seq(k, v) => [k.is_some(), false, v.is_some()],
            Change::Index(k, v) => [k.is_some(), false, v.is_some()],
            Change::End(..) | Change::WithoutFirst | Change::Window(_) | Change::WindowOf(_) => {
                [false, true, true]
            }
            Change::Shift => [true, false, true],
            Change::Scale(_) | Change::Used(_) => [true, false, false],
            Change::Form(_) | Change::QueryRows(_) => [true, false, false],
            Change::CurrentZero => [true, false, true],
            Change::Sink(_) => [false, true, false],
            Change::Combine(combine) => [false, matches!(combine, Combine::Split(..)), false],
            Change::Rows(..) | Change::Merge(_) | Change::Row(_) => [false; 3],
        };
        let merges = matches!(self, Change::Merge(_));
        match task {
            Task::Attend => !merges,
            Task::Merge => merges,
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
            Change::Heads(k, v) => {
                recipe.heads_k = k.unwrap_or(recipe.heads_k);
                recipe.heads_v = v.unwrap_or(recipe.heads_v);
                let free = k.is_none() || recipe.touch(Aspect::HeadsK);
                (v.is_none() || recipe.touch(Aspect::HeadsV)) && free
            }
            Change::Seq(k, v) => {
                recipe.seq_k = k.unwrap_or(recipe.seq_k);
                recipe.seq_v = v.unwrap_or(recipe.seq_v);
                let free = k.is_none() || recipe.touch(Aspect::SeqK);
                (v.is_none() || recipe.touch(Aspect::SeqV)) && free
            }
            Change::Index(k, v) => {
                recipe.bits = [k.unwrap_or(recipe.bits[0]), v.unwrap_or(recipe.bits[1])];
                let free = k.is_none() || recipe.touch(Aspect::IndexK);
                (v.is_none() || recipe.touch(Aspect::IndexV)) && free
            }
            Change::Rows(k, v, rows) => {
                let address = Change::Address(Some(k.clone()), Some(v.clone()));
                let free = address.apply(recipe) & Change::QueryRows(*rows).apply(recipe);
                recipe.out_rows = Some(*rows);
                recipe.used = *rows;
                recipe.touch(Aspect::Used) && free
            }
            Change::QueryRows(rows) => {
                recipe.q_rows = Some(*rows);
                recipe.touch(Aspect::AddressQ)
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
            Change::WindowOf(keys) => {
                recipe.keys.window_of = Some(*keys);
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
            Change::Form(form) => {
                recipe.form = *form;
                recipe.touch(Aspect::Form)
            }
            Change::Sink(sink) => {
                recipe.sink = *sink;
                recipe.touch(Aspect::Sink)
            }
            Change::Combine(combine) => {
                recipe.combine = *combine;
                recipe.touch(Aspect::Combine)
            }
            Change::Merge(merge) => {
                recipe.merge = *merge;
                recipe.touch(Aspect::Combine)
            }
            Change::Row(row) => {
                recipe.row = *row;
                recipe.touch(Aspect::Row)
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
    /// Parameters that follow the case; the others are the kernel's own, and the same in all cases.
    pub follows: &'static [&'static str],
    /// Every member on a problem, the preferred first.
    pub members: fn(&Problem<'_>) -> Vec<Member>,
}

impl Fault {
    /// Whether two sets of parameters, each of a case of its own, can be of one kernel: what is the
    /// kernel's own and is said of both is the same.
    pub fn agrees(&self, a: &Params, b: &Params) -> bool {
        let own = |name: &&&str| !self.follows.contains(*name);
        let same = a.keys().filter(own).all(|name| b.get(name).is_none_or(|x| *x == a[name]));
        same && sign(a).zip(sign(b)).is_none_or(|(a, b)| a == b)
    }

    /// The parameters that are the kernel's own.
    pub fn own(&self, params: &Params) -> Params {
        params
            .iter()
            .filter(|(name, _)| !self.follows.contains(name))
            .map(|(n, x)| (*n, x.clone()))
            .collect()
    }
}

/// Of a window that attended other keys than it should: whether there were fewer.
fn sign(params: &Params) -> Option<bool> {
    Some(params.get("keys")? < params.get("w")?)
}

/// Faults of the catalogue.
pub const COUNT: usize = 45;

/// Every fault, in the order of the catalogue.
pub static FAULTS: [Fault; COUNT] = [
    Fault {
        id: "v_col",
        meaning: "V was read with tokens and elements exchanged inside a head",
        advice: "the address of V: element (n, d) of a row layout is at n * head_dim + d, of a \
                 column layout at d * capacity + n",
        rank: Rank::Plain,
        search: Search::Each,
        follows: &["bases"],
        members: |p| members::columns(p, Cache::V),
    },
    Fault {
        id: "k_col",
        meaning: "K was read with tokens and elements exchanged inside a head",
        advice: "the address of K: element (n, d) of a row layout is at n * head_dim + d, of a \
                 column layout at d * capacity + n",
        rank: Rank::Plain,
        search: Search::Each,
        follows: &["bases"],
        members: |p| members::columns(p, Cache::K),
    },
    Fault {
        id: "nhd_as_hnd",
        meaning: "a cache with tokens outside heads (NHD) was read as one with heads outside (HND)",
        advice: "the strides of head and token: here a token's heads lie side by side",
        rank: Rank::Plain,
        search: Search::Each,
        follows: &[],
        members: |p| members::exchanged(p, 'N'),
    },
    Fault {
        id: "hnd_as_nhd",
        meaning: "a cache with heads outside tokens (HND) was read as one with tokens outside (NHD)",
        advice: "the strides of head and token: here a head's tokens lie side by side",
        rank: Rank::Plain,
        search: Search::Each,
        follows: &[],
        members: |p| members::exchanged(p, 'H'),
    },
    Fault {
        id: "layer_slice",
        meaning: "K and V of another layer were read",
        advice: "the base pointers of K and V: add layer * layer stride, for this layer",
        rank: Rank::Choice,
        search: Search::Each,
        follows: &["read"],
        members: members::layers,
    },
    Fault {
        id: "v_prev_layer_mixed",
        meaning: "K of this layer and V of the layer before were read",
        advice: "the base pointer of V: it is one layer behind K's",
        rank: Rank::Plain,
        search: Search::Each,
        follows: &[],
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
        follows: &["strides"],
        members: members::swapped,
    },
    Fault {
        id: "head_map_interleaved",
        meaning: "query head h read KV head h mod num_kv_heads",
        advice: "the KV head of query head h: it is h / (num_heads / num_kv_heads)",
        rank: Rank::Plain,
        search: Search::Each,
        follows: &[],
        members: |_| vec![plain(both_heads(HeadMap::Interleaved))],
    },
    Fault {
        id: "head_off_by_one",
        meaning: "query heads read the KV head after their own",
        advice: "the KV head of query head h: it is h / (num_heads / num_kv_heads), rounded down",
        rank: Rank::Choice,
        search: Search::Each,
        follows: &[],
        members: |_| {
            let maps = [
                ("(h/G + 1) mod H", HeadMap::NextWrapped),
                ("min((h+1)/G, H-1)", HeadMap::NextClamped),
            ];
            let member = |(kv, map)| chosen("kv", Param::Text(String::from(kv)), both_heads(map));
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
        follows: &["strides"],
        members: members::short_strides,
    },
    Fault {
        id: "seq_len_minus_1",
        meaning: "the current token was not attended",
        advice: "the end of the loop over keys: the last one is seq_len - 1, included",
        rank: Rank::Plain,
        search: Search::Each,
        follows: &[],
        members: |p| members::ends(p, End::MinusOne),
    },
    Fault {
        id: "seq_len_plus_1",
        meaning: "one row past the end was attended",
        advice: "the end of the loop over keys: n < seq_len, and not n <= seq_len",
        rank: Rank::Plain,
        search: Search::Each,
        follows: &[],
        members: |p| members::ends(p, End::PlusOne),
    },
    Fault {
        id: "pos_shift",
        meaning: "rows 1 to seq_len were attended in place of rows 0 to seq_len - 1",
        advice: "the index of a row: positions count from 0",
        rank: Rank::Plain,
        search: Search::Each,
        follows: &[],
        members: |_| vec![plain(Change::Shift)],
    },
    Fault {
        id: "sink_dropped",
        meaning: "row 0 was not attended",
        advice: "the start of the loop over keys: it is 0",
        rank: Rank::Plain,
        search: Search::Each,
        follows: &[],
        members: |p| when(p.window_len == 0, plain(Change::WithoutFirst)),
    },
    Fault {
        id: "capacity_as_seq",
        meaning: "every row of the cache was attended, stale ones too",
        advice: "the end of the loop over keys: it is seq_len, and not capacity",
        rank: Rank::Plain,
        search: Search::Each,
        follows: &[],
        members: |p| members::ends(p, End::Capacity),
    },
    Fault {
        id: "stale_current",
        meaning: "the current token's row had not been written yet when it was read",
        advice: "the order of appending the current K and V and of attending: a missing \
                 synchronisation, or an append after the launch",
        rank: Rank::Choice,
        search: Search::Each,
        follows: &[],
        members: |_| vec![chosen("variant", Param::Text("zero".into()), Change::CurrentZero)],
    },
    Fault {
        id: "window_w",
        meaning: "only the last w keys were attended, which was not asked for",
        advice: "where a window is set, or a tile of keys skipped, at the start of the loop over keys",
        rank: Rank::Searched,
        search: Search::Windows,
        follows: &["w"],
        members: members::windows,
    },
    Fault {
        id: "window_off_by_one",
        meaning: "a window of w attended one key too few or too many",
        advice: "whether the current token counts: the first key is seq_len - window_len",
        rank: Rank::Choice,
        search: Search::Each,
        follows: &["w", "keys"],
        members: members::window_edges,
    },
    Fault {
        id: "dropped_tail",
        meaning: "the last seq_len mod tile keys were not attended",
        advice: "the last, partial tile of the loop over keys, or the remainder of a split",
        rank: Rank::Searched,
        search: Search::Tails,
        follows: &[],
        members: members::tails,
    },
    Fault {
        id: "missing_scale",
        meaning: "Q·K was not scaled",
        advice: "where the softmax scale multiplies the scores, or q",
        rank: Rank::Plain,
        search: Search::Each,
        follows: &[],
        members: |_| vec![plain(Change::Scale(ScaleBy::One))],
    },
    Fault {
        id: "double_scale",
        meaning: "Q·K was scaled twice",
        advice: "whether q arrives already scaled",
        rank: Rank::Plain,
        search: Search::Each,
        follows: &[],
        members: |_| vec![plain(Change::Scale(ScaleBy::Squared))],
    },
    Fault {
        id: "scale_by_d",
        meaning: "Q·K was scaled by 1 / head_dim",
        advice: "the softmax scale: 1 / sqrt(head_dim)",
        rank: Rank::Plain,
        search: Search::Each,
        follows: &[],
        members: |_| vec![plain(Change::Scale(ScaleBy::HeadDim))],
    },
    Fault {
        id: "split_not_rescaled",
        meaning: "partial results of key splits were put together without their maxima",
        advice: "the merge: each part counts exp(its lse - the largest lse) times",
        rank: Rank::Searched,
        search: Search::Cuts,
        follows: &["cut", "splits"],
        members: members::splits,
    },
    Fault {
        id: "zero_padded_head_dim",
        meaning: "only the first elements of q and k took part in Q·K",
        advice: "the loop over head_dim in Q·K, and what is loaded of q and k",
        rank: Rank::Searched,
        search: Search::Each,
        follows: &["used"],
        members: members::narrowed_dims,
    },
    Fault {
        id: "fp16_accumulate",
        meaning: "weights, products and their sums were held in 16 bits",
        advice: "the type of the accumulators of P·V and of the softmax's denominator: f32",
        rank: Rank::Searched,
        search: Search::Each,
        follows: &["dtype"],
        members: members::narrow_sums,
    },
    Fault {
        id: "other_sequence",
        meaning: "K, V or both of another sequence of the batch were read",
        advice: "the base pointers of K and V: add batch index * batch stride",
        rank: Rank::Choice,
        search: Search::Each,
        follows: &[],
        members: members::sequences,
    },
    Fault {
        id: "constant_stride",
        meaning: "addresses were computed with a constant number of elements a row, or of rows a head, \
                  which is not the call's",
        advice: "the strides of q, K, V and out: from head_dim and capacity, and not from a constant \
                 or a template argument that one case has",
        rank: Rank::Searched,
        search: Search::Each,
        follows: &[],
        members: members::constants,
    },
    Fault {
        id: "window_from_longest",
        meaning: "the window was counted back from the longest sequence of the batch, and not from \
                  each sequence's own end",
        advice: "the first key: it is this sequence's length - window_len, and not the longest \
                 length - window_len",
        rank: Rank::Plain,
        search: Search::Each,
        follows: &[],
        members: |p| {
            let applies = p.window_len > 0 && p.is_batched() && p.is_decode();
            when(applies, plain(Change::WindowOf(p.seq_len)))
        },
    },
    Fault {
        id: "other_head_sink",
        meaning: "another query head's sink logit took part",
        advice: "the index of the sink: it is the query head, h, also where the rows of a group are \
                 packed together",
        rank: Rank::Choice,
        search: Search::Each,
        follows: &[],
        members: members::sinks,
    },
    Fault {
        id: "sink_twice",
        meaning: "the sink's logit was counted more than once",
        advice: "where the sink is added to the denominator: once, and not in every split or tile",
        rank: Rank::Searched,
        search: Search::Each,
        follows: &["times"],
        members: members::sink_times,
    },
    Fault {
        id: "sink_ignored",
        meaning: "the sink's logit was not counted",
        advice: "where the sink is added to the denominator, and whether its pointer arrives",
        rank: Rank::Plain,
        search: Search::Each,
        follows: &[],
        members: |p| when(p.sinks.is_some(), plain(Change::Sink(Sink::Ignored))),
    },
    Fault {
        id: "sink_dropped_in_split",
        meaning: "the sink's logit was lost where the split that carries it has no keys",
        advice: "the split that adds the sink: it must count also where it has no keys, or the merge \
                 must add it",
        rank: Rank::Searched,
        search: Search::Each,
        follows: &["splits"],
        members: members::sink_parts,
    },
    Fault {
        id: "softcap_ignored",
        meaning: "scores were not capped",
        advice: "where softcap * tanh(s / softcap) is applied to the scaled scores",
        rank: Rank::Plain,
        search: Search::Each,
        follows: &[],
        members: |p| when(p.softcap > 0.0, plain(Change::Form(Form::Uncapped))),
    },
    Fault {
        id: "softcap_on_unscaled",
        meaning: "the softcap was applied to scores in other units than those of the scaled score",
        advice: "the order of scale and softcap: softcap * tanh(scale * dot / softcap)",
        rank: Rank::Choice,
        search: Search::Each,
        follows: &[],
        members: members::caps,
    },
    Fault {
        id: "accumulate",
        meaning: "one sum was held in 16 bits: of the scores, of the denominator or of P·V",
        advice: "the type of that accumulator: f32; or say so: `accumulate` in [numerics]",
        rank: Rank::Searched,
        search: Search::Each,
        follows: &["type", "tile"],
        members: members::sums,
    },
    Fault {
        id: "scores_narrowed",
        meaning: "scores were rounded to 16 bits before the softmax",
        advice: "the type in which scores are stored: f32; or say so: `scores` in [numerics]",
        rank: Rank::Choice,
        search: Search::Each,
        follows: &["type"],
        members: members::narrow_scores,
    },
    Fault {
        id: "index_bits",
        meaning: "the index of a key was cut to a few bits, so that later keys read earlier rows",
        advice: "the type of the key's index, and masks on it: a table or field of so many bits",
        rank: Rank::Choice,
        search: Search::Each,
        follows: &[],
        members: members::indices,
    },
    Fault {
        id: "k_head_map",
        meaning: "K was read of another KV head than V",
        advice: "the KV head in the address of K: it is h / (num_heads / num_kv_heads)",
        rank: Rank::Choice,
        search: Search::Each,
        follows: &[],
        members: |p| members::one_head_map(p, Cache::K),
    },
    Fault {
        id: "v_head_map",
        meaning: "V was read of another KV head than K",
        advice: "the KV head in the address of V: it is h / (num_heads / num_kv_heads)",
        rank: Rank::Choice,
        search: Search::Each,
        follows: &[],
        members: |p| members::one_head_map(p, Cache::V),
    },
    Fault {
        id: "head_map",
        meaning: "query heads read another KV head than their group's",
        advice: "the KV head of query head h: it is h / (num_heads / num_kv_heads)",
        rank: Rank::Choice,
        search: Search::Each,
        follows: &[],
        members: members::head_maps,
    },
    Fault {
        id: "row_map",
        meaning: "the right outputs lie in each other's rows",
        advice: "the address of out, or of q and out both: which head, sequence and position a block \
                 works on, and where it writes",
        rank: Rank::Choice,
        search: Search::Each,
        follows: &[],
        members: members::rows,
    },
    Fault {
        id: "lse_base",
        meaning: "the lse of parts were taken for logarithms to base 2",
        advice: "the units of lse: base e; exp(lse - m), or exp2 where both sides are in base 2",
        rank: Rank::Choice,
        search: Search::Each,
        follows: &[],
        members: |_| vec![chosen("base", Param::Int(2), Change::Merge(Merge::Base2))],
    },
    Fault {
        id: "lse_layout_swapped",
        meaning: "the lse of parts were read in another order of axes than they were written in",
        advice: "the address of an lse: [batch, heads, parts] on both sides",
        rank: Rank::Choice,
        search: Search::Each,
        follows: &[],
        members: members::lse_orders,
    },
    Fault {
        id: "part_dropped",
        meaning: "the first or the last part was not merged",
        advice: "the bounds of the loop over parts: from 0 to splits - 1, included",
        rank: Rank::Choice,
        search: Search::Each,
        follows: &[],
        members: members::parts_dropped,
    },
    Fault {
        id: "empty_part_counted",
        meaning: "a part without keys counted as if its lse were 0",
        advice: "the lse of a part without keys: -infinity, which has no weight",
        rank: Rank::Plain,
        search: Search::Each,
        follows: &[],
        members: members::empty_parts,
    },
];

/// The fault of an id.
pub fn find(id: &str) -> Option<&'static Fault> {
    FAULTS.iter().find(|f| f.id == id)
}
