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
pub const IDS: [&str; 26] = [
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
];

/// How one head is computed. The right way to begin with.
struct Way<'c> {
    keys: Vec<usize>,
    k: Box<dyn Fn(usize, usize) -> Option<f64> + 'c>,
    v: Box<dyn Fn(usize, usize) -> Option<f64> + 'c>,
    scale: f64,
    used: usize,
    cut: Option<(&'static str, usize)>,
    narrow: Option<(DType, &'static str)>,
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
    let cap = f64::from(c.softcap);
    let mut scores = Vec::new();
    let mut rows = Vec::new();
    for n in &way.keys {
        let mut dot = 0.0;
        for (d, q) in q.iter().enumerate() {
            let k = (way.k)(*n, d)?;
            if d < way.used {
                dot += q * k;
            }
        }
        let s = way.scale * dot;
        scores.push(if cap > 0.0 { cap * libm::tanh(s / cap) } else { s });
        rows.push((0..c.head_dim_v).map(|d| (way.v)(*n, d)).collect::<Option<Vec<f64>>>()?);
    }
    let sink = c.sinks.as_ref().map(|sinks| f64::from(sinks[h]));
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
    let (acc, l) = part(&all, sink);
    Some(divide(acc, l))
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
        _ => return None,
    }?;
    let id = if id == "stale_current former" { "stale_current" } else { id };
    Some(Injected { id, params, out })
}
