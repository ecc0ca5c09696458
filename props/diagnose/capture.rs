//! Random captures: caches with stale rows and gaps that hold something, in any layout and type,
//! from synthetic data or re-cut from a golden slice.
//!
//! Addresses are computed here from the layout string alone, apart from the crate's own placement.

use attnbench::data::golden::embedded;
use attnbench::data::random::Stream;
use attnbench::data::slice::{KvSlice, Raw, Tensor};
use attnbench::problem::{DType, Layout};
use std::collections::BTreeMap;

/// A cache: its values as stored, and how it is addressed.
#[derive(Debug, Clone)]
pub struct Cache {
    pub layout: String,
    pub strides: BTreeMap<char, usize>,
    pub offset: usize,
    pub dim: usize,
    pub dtype: DType,
    pub values: Vec<f64>,
    /// Whether some stride is wider than it must be.
    pub padded: bool,
}

impl Cache {
    pub fn stride(&self, axis: char) -> usize {
        self.strides.get(&axis).copied().unwrap_or(0)
    }

    /// Whether a token's elements are contiguous.
    pub fn is_row(&self) -> bool {
        self.layout.find('D') > self.layout.find('N')
    }

    pub fn address(&self, at: [(char, usize); 5]) -> usize {
        self.offset + at.iter().map(|(axis, i)| i * self.stride(*axis)).sum::<usize>()
    }
}

/// A decode step without an output.
#[derive(Debug, Clone)]
pub struct Capture {
    pub num_heads: usize,
    pub num_kv_heads: usize,
    pub head_dim: usize,
    pub head_dim_v: usize,
    pub capacity: usize,
    pub lens: Vec<usize>,
    pub layers: usize,
    pub layer: usize,
    pub window: usize,
    pub scale: f32,
    pub softcap: f32,
    pub sinks: Option<Vec<f32>>,
    pub q_dtype: DType,
    pub out_dtype: DType,
    /// `[batch, num_heads, head_dim]`.
    pub q: Vec<f64>,
    pub k: Cache,
    pub v: Cache,
}

fn pick<T: Copy>(r: &mut Stream, of: &[T]) -> T {
    of[r.below(of.len())]
}

/// The element of a golden slice's head, whatever its layout: a source of real numbers.
struct Real {
    slice: &'static KvSlice,
    k: Vec<f64>,
    v: Vec<f64>,
    q: Vec<f64>,
}

impl Real {
    fn pick(r: &mut Stream) -> Real {
        let (_, slice) = &embedded()[r.below(embedded().len())];
        let values = |t: &Tensor| t.values().expect("a golden slice");
        Real { slice, k: values(&slice.k), v: values(&slice.v), q: values(&slice.q) }
    }

    /// Element d of row n of a head of K or V. Beyond the capture's extents the rows are others,
    /// so that no two heads or layers are the same.
    fn at(&self, of_k: bool, layer: usize, h: usize, n: usize, d: usize) -> f64 {
        let s = self.slice;
        let (values, layers) = (if of_k { &self.k } else { &self.v }, s.layers());
        let (l, around) = ((s.layer_index() + layer) % layers, layer / layers);
        let (h, more) = (h % s.num_kv_heads, h / s.num_kv_heads);
        let n = (n + 29 * more + 53 * around) % s.capacity;
        values[((l * s.num_kv_heads + h) * s.capacity + n) * s.head_dim + d]
    }

    /// Element d of the query of a head, turned around beyond the capture's heads.
    fn query(&self, h: usize, d: usize) -> f64 {
        let s = self.slice;
        let (h, more) = (h % s.num_heads, h / s.num_heads);
        self.q[h * s.head_dim + (d + 13 * more) % s.head_dim]
    }
}

impl Capture {
    /// A random capture; every second one is re-cut from a golden slice.
    pub fn random(r: &mut Stream) -> Capture {
        Capture::sized(r, &[4, 12, 33, 70, 100])
    }

    /// One with at most so many keys a sequence.
    pub fn sized(r: &mut Stream, most: &[usize]) -> Capture {
        let real = (r.below(2) == 0).then(|| Real::pick(r));
        let num_kv_heads = pick(r, &[1, 2, 2, 3, 4]);
        let num_heads = num_kv_heads * pick(r, &[1, 2, 3, 4]);
        let head_dim = match &real {
            Some(_) => 64,
            None => pick(r, &[1, 2, 4, 8, 16, 24, 32, 64]),
        };
        let head_dim_v = if real.is_none() && r.below(8) == 0 { head_dim + 3 } else { head_dim };
        let batch = pick(r, &[1, 1, 1, 2, 3]);
        let most = pick(r, most);
        let lens: Vec<usize> = (0..batch).map(|_| 1 + r.below(most)).collect();
        let longest = lens.iter().copied().max().unwrap_or(1);
        let capacity = longest + pick(r, &[0, 1, 3, 7, 16]);
        let layers = pick(r, &[1, 1, 2, 4]);
        let layer = r.below(layers);
        let window = if r.below(4) == 0 { 1 + r.below(longest) } else { 0 };
        let softcap = if r.below(8) == 0 { 20.0 } else { 0.0 };
        // A scale other than 1 / sqrt(head_dim) tells its square from 1 / head_dim.
        let scale = pick(r, &[1.0, 1.0, 0.7]) * (1.0 / (head_dim as f64).sqrt()) as f32;
        let sinks = (r.below(8) == 0).then(|| (0..num_heads).map(|_| r.gauss()).collect());
        let kv = pick(r, &[DType::F32, DType::F32, DType::F16, DType::BF16]);
        let q_dtype = if kv == DType::F32 { kv } else { pick(r, &[kv, DType::F32]) };
        let out_dtype = pick(r, &[DType::F32, DType::F32, kv]);
        // Scores of standard deviation 1 to 4, so that every key has some weight.
        let spread = pick(r, &[1.0f32, 2.0, 4.0]);
        let q = (0..batch * num_heads * head_dim)
            .map(|i| {
                let x = match &real {
                    Some(real) => real.query(i / head_dim, i % head_dim) as f32,
                    None => spread * r.gauss(),
                };
                q_dtype.round(f64::from(x))
            })
            .collect();
        let mut cache = |dim: usize, of_k: bool| {
            let mut layout = String::from(pick(r, &["HND", "NHD", "HDN", "DHN", "HND"]));
            if layers > 1 {
                layout.insert(0, 'L');
            }
            if batch > 1 {
                let at = if layers > 1 { r.below(2) } else { 0 };
                layout.insert(at, 'S');
            }
            let extent = |axis| match axis {
                'S' => batch,
                'L' => layers,
                'H' => num_kv_heads,
                'N' => capacity,
                _ => dim,
            };
            let padded = r.below(3) == 0;
            let (mut strides, mut next) = (BTreeMap::new(), 1);
            for axis in layout.chars().rev() {
                strides.insert(axis, next);
                let pad = if padded { r.below(4) } else { 0 };
                next = next * extent(axis) + pad;
            }
            let offset = if padded { r.below(3) } else { 0 };
            // Gaps and stale rows hold something, as they do in an engine.
            let mut values: Vec<f64> =
                (0..offset + next).map(|_| kv.round(f64::from(r.gauss()))).collect();
            let cache =
                Cache { layout, strides, offset, dim, dtype: kv, values: Vec::new(), padded };
            if let Some(real) = &real {
                for (s, l) in (0..batch).flat_map(|s| (0..layers).map(move |l| (s, l))) {
                    for (h, n) in (0..num_kv_heads).flat_map(|h| (0..capacity).map(move |n| (h, n)))
                    {
                        for d in 0..dim {
                            let at = [('S', s), ('L', l), ('H', h), ('N', n), ('D', d)];
                            let x = real.at(of_k, l, h, n + 11 * s, d);
                            values[cache.address(at)] = kv.round(x);
                        }
                    }
                }
            }
            Cache { values, ..cache }
        };
        let (k, v) = (cache(head_dim, true), cache(head_dim_v, false));
        Capture {
            num_heads,
            num_kv_heads,
            head_dim,
            head_dim_v,
            capacity,
            lens,
            layers,
            layer,
            window,
            scale,
            softcap,
            sinks,
            q_dtype,
            out_dtype,
            q,
            k,
            v,
        }
    }

    pub fn group(&self) -> usize {
        self.num_heads / self.num_kv_heads
    }

    pub fn seq_len(&self) -> usize {
        self.lens.iter().copied().max().unwrap_or(0)
    }

    /// The query of a head.
    pub fn query(&self, s: usize, h: usize) -> &[f64] {
        &self.q[(s * self.num_heads + h) * self.head_dim..][..self.head_dim]
    }

    /// The slice with an output `[batch, num_heads, head_dim_v]`, rounded to its type.
    pub fn slice(&self, out: &[f64]) -> KvSlice {
        let batch = self.lens.len();
        let lead = |rest: &[usize]| {
            let batch = (batch > 1).then_some(batch);
            batch.into_iter().chain(rest.iter().copied()).collect::<Vec<usize>>()
        };
        let tensor = |dtype: DType, shape: Vec<usize>, values: &[f64]| {
            let mut bytes = vec![0u8; values.len() * dtype.size()];
            values.iter().enumerate().for_each(|(i, x)| dtype.store(&mut bytes, i, *x));
            Tensor { dtype, shape, bytes }
        };
        let buffer = |c: &Cache| tensor(c.dtype, vec![c.values.len()], &c.values);
        let raw = |c: &Cache| {
            let strides = c.layout.chars().map(|axis| c.stride(axis)).collect();
            Some(Raw { strides: Some(strides), offset: Some(c.offset) })
        };
        let layout = |c: &Cache| c.layout.parse::<Layout>().expect("a plain layout");
        let slice = KvSlice {
            name: "random".into(),
            layer: self.layer,
            pos_id: self.seq_len().saturating_sub(1),
            seq_len: self.seq_len(),
            capacity: self.capacity,
            num_heads: self.num_heads,
            num_kv_heads: self.num_kv_heads,
            head_dim: self.head_dim,
            head_dim_v: (self.head_dim_v != self.head_dim).then_some(self.head_dim_v),
            scale: f64::from(self.scale),
            k_layout: layout(&self.k),
            v_layout: layout(&self.v),
            window_len: (self.window > 0).then_some(self.window),
            softcap: (self.softcap > 0.0).then_some(f64::from(self.softcap)),
            layers: (self.layers > 1).then_some(self.layers),
            k_raw: raw(&self.k),
            v_raw: raw(&self.v),
            q_raw: None,
            out_raw: None,
            q: tensor(self.q_dtype, lead(&[self.num_heads, self.head_dim]), &self.q),
            k: buffer(&self.k),
            v: buffer(&self.v),
            out: tensor(self.out_dtype, lead(&[self.num_heads, self.head_dim_v]), out),
            sinks: self.sinks.as_ref().map(|sinks| {
                let logits: Vec<f64> = sinks.iter().map(|x| f64::from(*x)).collect();
                tensor(DType::F32, vec![self.num_heads], &logits)
            }),
            lens: (batch > 1).then(|| self.lens.iter().map(|n| *n as i32).collect()),
            probs: None,
            scores: None,
            ..embedded()[0].1.clone()
        };
        slice.validate().unwrap_or_else(|e| panic!("{e}: {self:?}"));
        slice
    }
}
