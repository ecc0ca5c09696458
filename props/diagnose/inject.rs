//! Faulty attention, one plain loop a sum, from the raw buffers of a capture: each fault as the
//! catalogue describes it, apart from the crate's own recipes.

use super::capture::{Cache, Capture};
use attnbench::data::random::Stream;
use attnbench::problem::DType;

/// How a fault was injected: the id, and the parameters that a diagnosis must report.
#[derive(Debug, Clone)]
pub struct Injected {
    pub id: &'static str,
    pub params: Vec<(&'static str, String)>,
    /// `[batch, num_heads, head_dim_v]`, in f64.
    pub out: Vec<f64>,
}

/// Every id that is injected.
pub const IDS: [&str; 42] = [
    "v_col",
    "k_col",
    "nhd_as_hnd",
    "hnd_as_nhd",
    "layer_slice",
    "v_prev_layer_mixed",
    "kv_swapped",
    "head_map_interleaved",
    "head_off_by_one",
    "stride_seq_len",
    "seq_len_minus_1",
    "seq_len_plus_1",
    "pos_shift",
    "sink_dropped",
    "capacity_as_seq",
    "stale_current",
    "stale_current former",
    "window_w",
    "window_off_by_one",
    "dropped_tail",
    "missing_scale",
    "double_scale",
    "scale_by_d",
    "split_not_rescaled",
    "zero_padded_head_dim",
    "fp16_accumulate",
    "other_sequence",
    "constant_stride",
    "window_from_longest",
    "other_head_sink",
    "sink_twice",
    "sink_ignored",
    "sink_dropped_in_split",
    "softcap_ignored",
    "softcap_on_unscaled",
    "accumulate",
    "scores_narrowed",
    "index_bits",
    "k_head_map",
    "v_head_map",
    "head_map",
    "row_map",
];

/// The score of a dot product's terms.
type Score<'c> = Box<dyn Fn(&[f64]) -> f64 + 'c>;

/// How one head is computed. The right way to begin with.
struct Way<'c> {
    keys: Vec<usize>,
    k: Box<dyn Fn(usize, usize) -> Option<f64> + 'c>,
    v: Box<dyn Fn(usize, usize) -> Option<f64> + 'c>,
    scale: f64,
    used: usize,
    cut: Option<(&'static str, usize)>,
    narrow: Option<(DType, &'static str)>,
    sink: Option<f64>,
    score: Score<'c>,
    /// A sum in 16 bits: where, the type, how many terms of a tile.
    sum: Option<(&'static str, DType, &'static str, usize)>,
}

/// What is read at an address; nothing outside the buffer.
fn load(cache: &Cache, address: usize) -> Option<f64> {
    cache.values.get(address).copied()
}

fn place(s: usize, l: usize, h: usize, n: usize, d: usize) -> [(char, usize); 5] {
    [('S', s), ('L', l), ('H', h), ('N', n), ('D', d)]
}

/// The strides of a contiguous cache whose token axis has `rows` rows.
fn contiguous(c: &Capture, cache: &Cache, rows: usize) -> Cache {
    let mut next = 1;
    let mut other = cache.clone();
    for axis in cache.layout.chars().rev() {
        other.strides.insert(axis, next);
        next *= match axis {
            'S' => c.lens.len(),
            'L' => c.layers,
            'H' => c.num_kv_heads,
            'N' => rows,
            _ => cache.dim,
        };
    }
    other
}

/// The right output, `[batch, num_heads, head_dim_v]`.
pub fn right(c: &Capture) -> Vec<f64> {
    let made = every(c, &|s, h| right_way(c, s, h));
    made.expect("everything that is attended is there")
}

/// The output with key `n` of every sequence counted twice.
pub fn doubled(c: &Capture, n: usize) -> Vec<f64> {
    let made = every(c, &|s, h| {
        let mut way = right_way(c, s, h);
        if way.keys.contains(&n) {
            way.keys.push(n);
        }
        way
    });
    made.expect("everything that is attended is there")
}

fn right_way(c: &Capture, s: usize, h: usize) -> Way<'_> {
    let (g, n) = (h / c.group(), c.lens[s]);
    let first = if c.window == 0 { 0 } else { n.saturating_sub(c.window) };
    Way {
        keys: (first..n).collect(),
        k: Box::new(move |n, d| load(&c.k, c.k.address(place(s, c.layer, g, n, d)))),
        v: Box::new(move |n, d| load(&c.v, c.v.address(place(s, c.layer, g, n, d)))),
        scale: f64::from(c.scale),
        used: c.head_dim,
        cut: None,
        narrow: None,
        sink: c.sinks.as_ref().map(|sinks| f64::from(sinks[h])),
        score: Box::new(|terms| {
            let s = f64::from(c.scale) * terms.iter().sum::<f64>();
            capped(c, s)
        }),
        sum: None,
    }
}

fn capped(c: &Capture, s: f64) -> f64 {
    let cap = f64::from(c.softcap);
    if cap > 0.0 { cap * libm::tanh(s / cap) } else { s }
}

/// A sum of terms, rounded after every addition; of a tile first, where there are tiles.
fn sum16(dtype: DType, variant: &str, tile: usize, terms: impl Iterator<Item = f64>) -> f64 {
    let r = |x: f64| dtype.round(x);
    let terms: Vec<f64> = terms.map(|x| if variant.contains("fused") { x } else { r(x) }).collect();
    let of = |terms: &[f64]| terms.iter().fold(0.0, |sum, x| r(sum + x));
    match tile {
        0 => of(&terms),
        tile => terms.chunks(tile).fold(0.0, |sum, terms| r(sum + of(terms))),
    }
}

fn every<'c>(c: &'c Capture, way: &dyn Fn(usize, usize) -> Way<'c>) -> Option<Vec<f64>> {
    let mut out = Vec::new();
    for s in 0..c.lens.len() {
        for h in 0..c.num_heads {
            out.extend(attend(c, s, h, &way(s, h))?);
        }
    }
    Some(out)
}

/// One head.
fn attend(c: &Capture, s: usize, h: usize, way: &Way<'_>) -> Option<Vec<f64>> {
    let q = c.query(s, h);
    let mut scores = Vec::new();
    let mut rows = Vec::new();
    for n in &way.keys {
        let mut terms = Vec::new();
        for (d, q) in q.iter().enumerate() {
            let k = (way.k)(*n, d)?;
            if d < way.used {
                terms.push(q * k);
            }
        }
        // Another scale makes another term of each.
        let by = way.scale / f64::from(c.scale);
        terms.iter_mut().for_each(|x| *x *= by);
        scores.push((way.score)(&terms));
        rows.push((0..c.head_dim_v).map(|d| (way.v)(*n, d)).collect::<Option<Vec<f64>>>()?);
    }
    let sink = way.sink;
    let all: Vec<usize> = (0..scores.len()).collect();
    let part = |of: &[usize], sink: Option<f64>| {
        let max = of.iter().map(|i| scores[*i]).chain(sink).fold(f64::NEG_INFINITY, f64::max);
        let mut l = sink.map_or(0.0, |sink| libm::exp(sink - max));
        let mut acc = vec![0.0; c.head_dim_v];
        for i in of {
            let e = libm::exp(scores[*i] - max);
            l += e;
            acc.iter_mut().zip(&rows[*i]).for_each(|(a, v)| *a += e * v);
        }
        (acc, l)
    };
    let divide = |acc: Vec<f64>, l: f64| {
        acc.into_iter().map(|a| if l > 0.0 { a / l } else { 0.0 }).collect::<Vec<f64>>()
    };
    if let Some((how, cut)) = way.cut {
        let at = way.keys.iter().filter(|n| **n < cut).count();
        let (a, b) = all.split_at(at);
        if a.is_empty() || b.is_empty() {
            let (acc, l) = part(&all, sink);
            return Some(divide(acc, l));
        }
        let ((one, l1), (two, l2)) = (part(a, sink), part(b, None));
        return Some(match how {
            "sum" => divide(one.iter().zip(&two).map(|(a, b)| a + b).collect(), l1 + l2),
            _ => {
                let (one, two) = (divide(one, l1), divide(two, l2));
                one.iter().zip(&two).map(|(a, b)| (a + b) / 2.0).collect()
            }
        });
    }
    if let Some((dtype, variant)) = way.narrow {
        let r = |x: f64| dtype.round(x);
        let max = scores.iter().copied().chain(sink).fold(f64::NEG_INFINITY, f64::max);
        let (_, l) = part(&all, sink);
        let mut den = r(sink.map_or(0.0, |sink| libm::exp(sink - max)));
        let mut num = vec![0.0; c.head_dim_v];
        for (s, row) in scores.iter().zip(&rows) {
            let e = libm::exp(s - max);
            let p = r(if variant == "p normalised first" { e / l } else { e });
            den = r(den + p);
            for (num, v) in num.iter_mut().zip(row) {
                *num = if variant == "fused" { r(*num + p * v) } else { r(*num + r(p * v)) };
            }
        }
        let den = if variant == "p normalised first" { 1.0 } else { den };
        return Some(divide(num, den));
    }
    if let Some((place, dtype, variant, tile)) = way.sum {
        let max = scores.iter().copied().chain(sink).fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|s| libm::exp(s - max)).collect();
        let (acc, l) = part(&all, sink);
        if place == "row_sum" {
            let mut den = dtype.round(sink.map_or(0.0, |sink| libm::exp(sink - max)));
            match tile {
                0 => weights.iter().for_each(|p| den = dtype.round(den + p)),
                tile => weights.chunks(tile).for_each(|part| {
                    let of = sum16(dtype, "fused", 0, part.iter().copied());
                    den = dtype.round(den + of);
                }),
            }
            return Some(divide(acc, den));
        }
        let first = variant.contains("p normalised first");
        let column = |d: usize| {
            let terms = weights.iter().zip(&rows);
            let terms = terms.map(|(p, row)| if first { p / l * row[d] } else { p * row[d] });
            sum16(dtype, variant, tile, terms)
        };
        let out = (0..c.head_dim_v).map(column).collect();
        return Some(divide(out, if first { 1.0 } else { l }));
    }
    let (acc, l) = part(&all, sink);
    Some(divide(acc, l))
}

/// The output of a kernel for which every row, of queries, K, V and outputs, has so many elements.
fn of_constant_rows(c: &Capture, size: usize) -> Option<Vec<f64>> {
    let strided = |cache: &Cache| contiguous(c, &Cache { dim: size, ..cache.clone() }, c.capacity);
    let (k, v) = (strided(&c.k), strided(&c.v));
    let total = c.lens.len() * c.num_heads * c.head_dim_v;
    let mut out = Vec::new();
    for row in 0..total.div_ceil(size) {
        let (s, h) = (row / c.num_heads, row % c.num_heads);
        let q = c.q.get(row * size..(row + 1) * size)?;
        let (g, right) = (h / c.group(), right_way(c, s, h));
        let (mut scores, mut rows) = (Vec::new(), Vec::new());
        for n in &right.keys {
            let at = |d| place(s, c.layer, g, *n, d);
            let load = |cache: &Cache, d| load(cache, cache.address(at(d)));
            let terms = (0..size).map(|d| Some(q[d] * load(&k, d)?)).collect::<Option<Vec<_>>>()?;
            scores.push((right.score)(&terms));
            rows.push((0..size).map(|d| load(&v, d)).collect::<Option<Vec<_>>>()?);
        }
        let max = scores.iter().copied().chain(right.sink).fold(f64::NEG_INFINITY, f64::max);
        let l = scores.iter().copied().chain(right.sink).map(|s| libm::exp(s - max)).sum::<f64>();
        for d in 0..size {
            let weighted = scores.iter().zip(&rows).map(|(s, row)| libm::exp(s - max) * row[d]);
            out.push(weighted.sum::<f64>() / l);
        }
    }
    out.truncate(total);
    Some(out)
}

/// Injects a fault with random parameters; `None` where the capture cannot show it, or it would
/// read outside a buffer.
pub fn inject(c: &Capture, id: &'static str, r: &mut Stream) -> Option<Injected> {
    let mut params: Vec<(&'static str, String)> = Vec::new();
    let (longest, heads, group) = (c.seq_len(), c.num_kv_heads, c.group());
    let keys = |f: &dyn Fn(usize) -> (usize, usize)| {
        let f: Vec<(usize, usize)> = c.lens.iter().map(|n| f(*n)).collect();
        every(c, &move |s, h| Way {
            keys: (f[s].0..f[s].1.max(f[s].0)).collect(),
            ..right_way(c, s, h)
        })
    };
    let begin = |n: usize| if c.window == 0 { 0 } else { n.saturating_sub(c.window) };
    let read = |k: Cache, v: Cache, layers: (usize, usize), map: &dyn Fn(usize) -> usize| {
        let (k, v) = (std::rc::Rc::new(k), std::rc::Rc::new(v));
        every(c, &|s, h| {
            let (k, v, g) = (k.clone(), v.clone(), map(h));
            Way {
                k: Box::new(move |n, d| load(&k, k.address(place(s, layers.0, g, n, d)))),
                v: Box::new(move |n, d| load(&v, v.address(place(s, layers.1, g, n, d)))),
                ..right_way(c, s, h)
            }
        })
    };
    let grouped = |h: usize| h / group;
    let here = (c.layer, c.layer);
    let column = |cache: &Cache| {
        let mut other = cache.clone();
        let (n, d) = if cache.is_row() { (1, c.capacity) } else { (cache.dim, 1) };
        other.strides.insert('N', n);
        other.strides.insert('D', d);
        other
    };
    let out = match id {
        "v_col" => read(c.k.clone(), column(&c.v), here, &grouped),
        "k_col" => read(column(&c.k), c.v.clone(), here, &grouped),
        "nhd_as_hnd" | "hnd_as_nhd" => {
            let from = if id == "nhd_as_hnd" { "NHD" } else { "HND" };
            if heads == 1 || !c.k.layout.ends_with(from) || !c.v.layout.ends_with(from) {
                return None;
            }
            let other = |cache: &Cache| {
                let mut other = cache.clone();
                let (h, n) = match from {
                    "NHD" => (c.capacity * cache.dim, cache.dim),
                    _ => (cache.dim, heads * cache.dim),
                };
                other.strides.insert('H', h);
                other.strides.insert('N', n);
                other.strides.insert('D', 1);
                other
            };
            read(other(&c.k), other(&c.v), here, &grouped)
        }
        "layer_slice" if c.layers > 1 => {
            let layer = (c.layer + 1 + r.below(c.layers - 1)) % c.layers;
            params.push(("read", layer.to_string()));
            read(c.k.clone(), c.v.clone(), (layer, layer), &grouped)
        }
        "v_prev_layer_mixed" if c.layer > 0 => {
            read(c.k.clone(), c.v.clone(), (c.layer, c.layer - 1), &grouped)
        }
        "kv_swapped" if c.head_dim == c.head_dim_v => {
            read(c.v.clone(), c.k.clone(), here, &grouped)
        }
        "head_map_interleaved" if heads > 1 => read(c.k.clone(), c.v.clone(), here, &|h| h % heads),
        "head_off_by_one" if heads > 1 => {
            let wraps = r.below(2) == 0;
            params.push(("kv", if wraps { "(h/G + 1) mod H" } else { "min((h+1)/G, H-1)" }.into()));
            let map = |h: usize| match wraps {
                true => (h / group + 1) % heads,
                false => ((h + 1) / group).min(heads - 1),
            };
            read(c.k.clone(), c.v.clone(), here, &map)
        }
        "stride_seq_len" if !c.k.padded && !c.v.padded && longest < c.capacity => {
            let which = ["both", "k", "v"][r.below(3)];
            params.push(("which", which.into()));
            let (k, v) = (contiguous(c, &c.k, longest), contiguous(c, &c.v, longest));
            let k = if which == "v" { c.k.clone() } else { k };
            let v = if which == "k" { c.v.clone() } else { v };
            read(k, v, here, &grouped)
        }
        "seq_len_minus_1" => keys(&|n| (begin(n), n - 1)),
        "seq_len_plus_1" => keys(&|n| (begin(n), n + 1)),
        "pos_shift" => keys(&|n| (begin(n) + 1, n + 1)),
        "sink_dropped" if c.window == 0 => keys(&|n| (1, n)),
        "capacity_as_seq" => keys(&|n| (begin(n), c.capacity)),
        "stale_current" => {
            params.push(("variant", "zero".into()));
            every(c, &|s, h| {
                let way = right_way(c, s, h);
                let (k, v, last) = (way.k, way.v, c.lens[s] - 1);
                Way {
                    k: Box::new(move |n, d| if n == last { Some(0.0) } else { k(n, d) }),
                    v: Box::new(move |n, d| if n == last { Some(0.0) } else { v(n, d) }),
                    ..right_way(c, s, h)
                }
            })
        }
        // Of one or two keys the outputs lie on a line, and of few elements in 16 bits on many:
        // then a row that is gone cannot be told from much else.
        "stale_current former"
            if group > 1 && c.head_dim_v >= 16 && c.lens.iter().all(|n| n - begin(*n) > 2) =>
        {
            params.push(("variant", "former".into()));
            let (mut k, mut v) = (c.k.clone(), c.v.clone());
            for (s, n) in c.lens.iter().enumerate() {
                for g in 0..heads {
                    for cache in [&mut k, &mut v] {
                        for d in 0..cache.dim {
                            let at = cache.address(place(s, c.layer, g, n - 1, d));
                            cache.values[at] = cache.dtype.round(f64::from(r.gauss()));
                        }
                    }
                }
            }
            // Where the row has hardly any weight in a head, there is nothing to solve for.
            let without = keys(&|n| (begin(n), n - 1))?;
            let made = read(k, v, here, &grouped)?;
            let size = |x: &[f64]| x.iter().map(|x| x * x).sum::<f64>().sqrt();
            let moved = |(a, b): (&[f64], &[f64])| {
                let apart: Vec<f64> = a.iter().zip(b).map(|(a, b)| a - b).collect();
                size(&apart) > 0.02 * size(a)
            };
            let mut heads = made.chunks(c.head_dim_v).zip(without.chunks(c.head_dim_v));
            heads.all(moved).then_some(made)
        }
        "window_w" if c.window == 0 && longest > 1 => {
            let w = 1 + r.below(longest - 1);
            params.push(("w", w.to_string()));
            keys(&|n| (n.saturating_sub(w), n))
        }
        "window_off_by_one" if c.window > 1 => {
            let w = if r.below(2) == 0 { c.window - 1 } else { c.window + 1 };
            params.push(("w", c.window.to_string()));
            params.push(("keys", w.to_string()));
            keys(&|n| (n.saturating_sub(w), n))
        }
        "dropped_tail" if longest > 2 => {
            let tile = 2 + r.below(longest - 1);
            params.push(("tile", tile.to_string()));
            keys(&|n| (begin(n), n - n % tile))
        }
        "missing_scale" | "double_scale" | "scale_by_d" => {
            let right = f64::from(c.scale);
            let scale = match id {
                "missing_scale" => 1.0,
                "double_scale" => right * right,
                _ => 1.0 / c.head_dim as f64,
            };
            every(c, &|s, h| Way { scale, ..right_way(c, s, h) })
        }
        "split_not_rescaled" if longest > 1 => {
            let how = ["sum", "mean"][r.below(2)];
            let cut = 1 + r.below(longest - 1);
            params.push(("how", how.into()));
            params.push(("cut", cut.to_string()));
            every(c, &|s, h| Way { cut: Some((how, cut)), ..right_way(c, s, h) })
        }
        "zero_padded_head_dim" if c.head_dim > 1 => {
            let used = 1 + r.below(c.head_dim - 1);
            params.push(("used", used.to_string()));
            every(c, &|s, h| Way { used, ..right_way(c, s, h) })
        }
        "fp16_accumulate" => {
            let dtype = [DType::F16, DType::BF16][r.below(2)];
            let variant = ["", "fused", "p normalised first"][r.below(3)];
            params.push(("dtype", dtype.name().into()));
            if !variant.is_empty() {
                params.push(("variant", variant.into()));
            }
            every(c, &|s, h| Way { narrow: Some((dtype, variant)), ..right_way(c, s, h) })
        }
        "other_sequence" if c.lens.len() > 1 => {
            let which = ["both", "k", "v"][r.below(3)];
            let b = r.below(c.lens.len() + 1);
            let batch = c.lens.len();
            params.push(("b", if b == batch { "next".into() } else { b.to_string() }));
            params.push(("which", which.into()));
            let of = |s: usize| if b == batch { (s + 1) % batch } else { b };
            every(c, &|s, h| {
                let right = right_way(c, s, h);
                let other = right_way(c, of(s), h);
                Way {
                    k: if which == "v" { right.k } else { other.k },
                    v: if which == "k" { right.v } else { other.v },
                    ..right_way(c, s, h)
                }
            })
        }
        "constant_stride" if !c.k.padded && !c.v.padded && c.head_dim == c.head_dim_v => {
            let of = ["all", "k and v", "k", "v", "capacity"][r.below(5)];
            let size = [16, 32, 48, 64, 80, 96, 112, 128][r.below(8)];
            if of == "capacity" {
                let rows = [16, 32, 64, 128][r.below(4)];
                params.push(("capacity", rows.to_string()));
                params.push(("of", "k and v".into()));
                read(contiguous(c, &c.k, rows), contiguous(c, &c.v, rows), here, &grouped)
                    .filter(|_| rows != c.capacity)
            } else {
                params.push(("rows", size.to_string()));
                params.push(("of", of.into()));
                let strided = |cache: &Cache| {
                    contiguous(c, &Cache { dim: size, ..cache.clone() }, c.capacity)
                };
                let (k, v) = (strided(&c.k), strided(&c.v));
                match of {
                    // A smaller constant leaves outputs that are never written.
                    _ if size <= c.head_dim => None,
                    "all" => of_constant_rows(c, size),
                    "k" => read(k, c.v.clone(), here, &grouped),
                    "v" => read(c.k.clone(), v, here, &grouped),
                    _ => read(k, v, here, &grouped),
                }
            }
        }
        "window_from_longest" if c.window > 0 && c.lens.iter().any(|n| *n != longest) => {
            let first = longest.saturating_sub(c.window);
            keys(&|n| (first, n))
        }
        "other_head_sink" if c.sinks.is_some() && c.num_heads > 1 => {
            let maps = ["group's first", "head 0", "KV head index", "row in group", "next"];
            let head = maps[r.below(5)];
            params.push(("head", head.into()));
            let of = |h: usize| match head {
                "group's first" => h - h % group,
                "head 0" => 0,
                // With one KV head it is head 0 by another name.
                "KV head index" if heads > 1 => h / group,
                "row in group" => h % group,
                "next" => (h + 1) % c.num_heads,
                _ => h,
            };
            let sinks = c.sinks.as_ref().expect("there are some");
            let made =
                every(c, &|s, h| Way { sink: Some(f64::from(sinks[of(h)])), ..right_way(c, s, h) });
            made.filter(|_| (0..c.num_heads).any(|h| of(h) != h))
        }
        "sink_twice" | "sink_ignored" => {
            let times = if r.below(2) == 0 || id == "sink_ignored" { 2 } else { 3 + r.below(6) };
            if times > 2 {
                params.push(("times", times.to_string()));
            }
            let sinks = c.sinks.as_ref()?;
            every(c, &|s, h| {
                // exp(sink) so many times, by adding it up.
                let sum: f64 = (0..times).map(|_| libm::exp(f64::from(sinks[h]))).sum();
                let sink = (id == "sink_twice").then(|| libm::log(sum));
                Way { sink, ..right_way(c, s, h) }
            })
        }
        "sink_dropped_in_split" => {
            let (splits, last) = (2 + r.below(8), r.below(2) == 0);
            params.push(("splits", splits.to_string()));
            params.push(("part", if last { "last" } else { "first" }.into()));
            let sinks = c.sinks.as_ref()?;
            let mut lost = false;
            for n in &c.lens {
                lost |= split_is_empty(begin(*n), *n, splits, last);
            }
            every(c, &|s, h| {
                let n = c.lens[s];
                let kept = !split_is_empty(begin(n), n, splits, last);
                Way { sink: kept.then(|| f64::from(sinks[h])), ..right_way(c, s, h) }
            })
            .filter(|_| lost)
        }
        "softcap_ignored" | "softcap_on_unscaled" if c.softcap > 0.0 => {
            let variants = ["capped, then scaled", "never scaled", "units of log 2"];
            let variant = if id == "softcap_ignored" { "" } else { variants[r.below(3)] };
            if !variant.is_empty() {
                params.push(("variant", variant.into()));
            }
            let scale = f64::from(c.scale);
            every(c, &|s, h| {
                let score = move |terms: &[f64]| {
                    let dot: f64 = terms.iter().sum();
                    let log2e = std::f64::consts::LOG2_E;
                    match variant {
                        "" => scale * dot,
                        "capped, then scaled" => scale * capped(c, dot),
                        "never scaled" => capped(c, dot),
                        _ => capped(c, scale * dot * log2e) / log2e,
                    }
                };
                Way { score: Box::new(score), ..right_way(c, s, h) }
            })
        }
        "accumulate" => {
            let dtype = [DType::F16, DType::BF16][r.below(2)];
            let place = ["pv", "row_sum", "scores"][r.below(3)];
            let tile = [0, 0, 16, 32][r.below(4)];
            let variant = match place {
                "pv" => {
                    ["", "fused", "p normalised first", "p normalised first, fused"][r.below(4)]
                }
                "scores" => ["", "fused"][r.below(2)],
                _ => "",
            };
            params.push(("type", dtype.name().into()));
            params.push(("where", place.into()));
            // A tile as long as the sum is none.
            let terms = if place == "scores" { c.head_dim } else { longest };
            if tile > 0 && tile < terms {
                params.push(("tile", tile.to_string()));
            }
            if !variant.is_empty() {
                params.push(("variant", variant.into()));
            }
            let scale = f64::from(c.scale);
            every(c, &|s, h| {
                let way = right_way(c, s, h);
                match place {
                    "scores" => Way {
                        score: Box::new(move |terms| {
                            let dot = sum16(dtype, variant, tile, terms.iter().copied());
                            capped(c, scale * dot)
                        }),
                        ..way
                    },
                    _ => Way { sum: Some((place, dtype, variant, tile)), ..way },
                }
            })
        }
        "scores_narrowed" => {
            let dtype = [DType::F16, DType::BF16][r.below(2)];
            let place = ["before_scale", "after_scale"][r.below(2)];
            params.push(("type", dtype.name().into()));
            params.push(("where", place.into()));
            let scale = f64::from(c.scale);
            every(c, &|s, h| {
                let score = move |terms: &[f64]| {
                    let dot: f64 = terms.iter().sum();
                    let s = match place {
                        "before_scale" => scale * dtype.round(dot),
                        _ => dtype.round(scale * dot),
                    };
                    capped(c, s)
                };
                Way { score: Box::new(score), ..right_way(c, s, h) }
            })
        }
        "index_bits" if longest > 256 => {
            let which = ["both", "k", "v"][r.below(3)];
            params.push(("bits", "8".into()));
            params.push(("which", which.into()));
            every(c, &|s, h| {
                let (way, plain) = (right_way(c, s, h), right_way(c, s, h));
                let cut = |n: usize| n % 256;
                let (k, v) = (way.k, way.v);
                let k: Box<dyn Fn(usize, usize) -> Option<f64>> = match which {
                    "v" => k,
                    _ => Box::new(move |n, d| k(cut(n), d)),
                };
                let v: Box<dyn Fn(usize, usize) -> Option<f64>> = match which {
                    "k" => v,
                    _ => Box::new(move |n, d| v(cut(n), d)),
                };
                Way { k, v, ..plain }
            })
        }
        "k_head_map" | "v_head_map" | "head_map" if heads > 1 => {
            let all = ["0", "h / H", "h mod H", "(h/G + 1) mod H"];
            let map = all[r.below(if id == "head_map" { 2 } else { 4 })];
            params.push((if id == "head_map" { "kv" } else { "map" }, map.into()));
            let of = |h: usize| match map {
                "0" => 0,
                "h / H" => h / heads,
                "h mod H" => h % heads,
                _ => (h / group + 1) % heads,
            };
            let differs = (0..c.num_heads).any(|h| of(h) != h / group);
            if !differs || (0..c.num_heads).any(|h| of(h) >= heads) {
                return None;
            }
            let other = |s: usize, h: usize| {
                // A query head of the group that the map says.
                right_way(c, s, of(h) * group)
            };
            every(c, &|s, h| {
                let right = right_way(c, s, h);
                Way {
                    k: if id == "v_head_map" { right.k } else { other(s, h).k },
                    v: if id == "k_head_map" { right.v } else { other(s, h).v },
                    ..right_way(c, s, h)
                }
            })
        }
        "row_map" if c.num_heads > 1 => {
            let rows = ["next head", "head before", "heads reversed", "[heads, batch]"];
            let row = rows[r.below(4)];
            let (batch, all) = (c.lens.len(), c.num_heads);
            // Of two heads the one after is the one before.
            let same = all == 2 && matches!(row, "head before" | "heads reversed");
            if same || row == "[heads, batch]" && batch == 1 {
                return None;
            }
            params.push(("row", row.into()));
            let right = right(c);
            let mut out = Vec::new();
            for (s, h) in (0..batch).flat_map(|s| (0..all).map(move |h| (s, h))) {
                let (s, h) = match row {
                    "next head" => (s, (h + 1) % all),
                    "head before" => (s, (h + all - 1) % all),
                    "heads reversed" => (s, all - 1 - h),
                    _ => ((s * all + h) % batch, (s * all + h) / batch),
                };
                out.extend_from_slice(&right[(s * all + h) * c.head_dim_v..][..c.head_dim_v]);
            }
            Some(out)
        }
        _ => return None,
    }?;
    let id = if id == "stale_current former" { "stale_current" } else { id };
    Some(Injected { id, params, out })
}

/// Whether the part that carries the sink has no attended key: the last of the attended ones, or the first
/// of all keys.
fn split_is_empty(begin: usize, n: usize, splits: usize, last: bool) -> bool {
    let of = if last { n - begin } else { n };
    let each = of.div_ceil(splits);
    if last { (splits - 1) * each >= of } else { begin >= each }
}
