//! Laws: what holds between two runs of any right kernel, whatever the right values are.
//!
//! A law poses the case in another way (its keys in another order, its cache in another layout, one
//! sequence of its batch alone) and says what the outputs then are in terms of the first ones. It
//! needs no tolerance of its own: where the manifest promises the very bits (`bitwise`) it asks for
//! them, otherwise the two may differ by the sum of their bounds.
//!
//! | law | says | bits where promised |
//! | --- | --- | --- |
//! | `batch` | a sequence alone has the output that it has in the batch | `batch` |
//! | `layout` | other layouts and paddings change nothing | `layout` |
//! | `capacity` | more rows than needed change nothing | `layout` |
//! | `splits` | any number of splits equals another | `splits` |
//! | `window` | a window at least as long as every sequence is none | |
//! | `heads` | grouped queries equal one KV head each, repeated | |
//! | `order` | keys and values may be permuted together | |
//! | `shift` | the same constant on every score changes the lse by it, and nothing else | |
//! | `linear` | the output of a sum is the sum of the outputs | |
//! | `empty` | empty parts change nothing in a merge | |
//!
//! That a repeat has the same bits is asked of every case by [`super::trial`].

use crate::data::inputs::Inputs;
use crate::data::random::{Stream, mix};
use crate::kernel::{Manifest, Promise};
use crate::problem::{Case, Layout, Pointer, Stage, Storage};

/// A relation between runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Law {
    /// One sequence alone.
    Batch,
    /// Other layouts and paddings.
    Layout,
    /// A larger cache.
    Capacity,
    /// Another number of splits.
    Splits,
    /// A window over everything.
    Window,
    /// Every query head with a KV head of its own.
    Heads,
    /// Keys and values in another order.
    Order,
    /// A constant on every score.
    Shift,
    /// A sum of inputs.
    Linear,
    /// Empty parts in a merge.
    Empty,
}

impl Law {
    /// Every law.
    pub const ALL: [Law; 10] = [
        Law::Batch,
        Law::Layout,
        Law::Capacity,
        Law::Splits,
        Law::Window,
        Law::Heads,
        Law::Order,
        Law::Shift,
        Law::Linear,
        Law::Empty,
    ];

    /// The property's name in reports.
    pub fn property(self) -> &'static str {
        match self {
            Law::Batch => "law/batch",
            Law::Layout => "law/layout",
            Law::Capacity => "law/capacity",
            Law::Splits => "law/splits",
            Law::Window => "law/window",
            Law::Heads => "law/heads",
            Law::Order => "law/order",
            Law::Shift => "law/shift",
            Law::Linear => "law/linear",
            Law::Empty => "law/empty",
        }
    }

    /// The law's name.
    pub fn name(self) -> &'static str {
        self.property().trim_start_matches("law/")
    }

    /// The promise that makes it hold to the bit.
    fn promise(self) -> Option<Promise> {
        match self {
            Law::Batch => Some(Promise::Batch),
            Law::Layout | Law::Capacity => Some(Promise::Layout),
            Law::Splits => Some(Promise::Splits),
            _ => None,
        }
    }

    /// Whether a kernel promises that it holds to the bit.
    pub fn is_exact(self, manifest: &Manifest) -> bool {
        self.promise().is_some_and(|promise| manifest.numerics.bitwise.contains(&promise))
    }
}

/// Every second case is tried on one law, so that laws cost a sweep about a third more.
const LAW_EVERY: u64 = 2;

/// More parts than this are not made up for a law: their memory is the case's own many times over.
const MOST_PARTS: i64 = 4096;

/// The law that a case is tried on, if it is: the first of an order that its seed draws which can
/// be posed. It follows from the case alone, so that a replay tries the same.
pub fn choose(manifest: &Manifest, case: &Case, inputs: &Inputs) -> Option<(Law, Posed)> {
    if !mix(case.seed).is_multiple_of(LAW_EVERY) {
        return None;
    }
    let mut laws = Law::ALL;
    laws.sort_by_key(|law| mix(case.seed ^ mix(*law as u64 + 1)));
    laws.into_iter().find_map(|law| Some((law, pose(law, manifest, case, inputs)?)))
}

/// A law posed on a case: what to run, and what the outputs of the first run must be.
#[derive(Debug, Clone)]
pub struct Posed {
    /// The first is judged by the others; where there are no others, by the case itself.
    pub runs: Vec<(Case, Inputs)>,
    how: How,
}

/// From the outputs of the other runs to what those of the first must be.
#[derive(Debug, Clone)]
enum How {
    /// The same.
    Same,
    /// Those of one sequence.
    Sequence(usize),
    /// The same, but scores and weights in another order, by sequence.
    Order(Vec<Vec<usize>>),
    /// Scores and lse larger by a number of their own, `[batch, num_heads, queries]`.
    Shift(Vec<f64>),
    /// The sum of two; log-sum-exp the same in all.
    Sum,
}

/// Poses a law on a case; `None` where it does not apply, or the kernel does not take it.
pub fn pose(law: Law, manifest: &Manifest, case: &Case, inputs: &Inputs) -> Option<Posed> {
    let other = |case: Case, inputs: Inputs, how: How| {
        let takes = |c: &Case| c.validate().is_ok() && manifest.supports(c).is_ok();
        takes(&case).then(|| Posed { runs: vec![(case, inputs)], how })
    };
    let has = |pointer| case.stage.port(pointer).is_some();
    let mut r = Stream::new(case.seed, &[91, law as u64]);
    match law {
        Law::Batch if case.batch() > 1 => {
            let s = r.below(case.batch());
            let alone = Case { seq_lens: vec![case.seq_lens[s]], ..case.clone() };
            let mut own = Inputs::default();
            for (pointer, rows) in &inputs.0 {
                let shared = matches!(pointer, Pointer::Sinks | Pointer::WO | Pointer::Weight);
                let from = if shared { 0 } else { s };
                own.put(&alone, *pointer, |_, h, to| to.copy_from_slice(rows.all(from, h)));
            }
            other(alone, own, How::Sequence(s))
        }
        Law::Layout => other(relaid(manifest, case, &mut r), inputs.clone(), How::Same)
            .filter(|posed| posed.runs[0].0 != *case),
        Law::Capacity if case.stage.has_keys() => {
            let larger = Case { capacity: case.capacity + 1 + r.below(40), ..case.clone() };
            other(larger, inputs.clone(), How::Same)
        }
        Law::Splits if case.stage != Stage::Merge => {
            let now = *case.params.get("splits")?;
            let param = manifest.params.iter().find(|p| p.name == "splits")?;
            let others: Vec<i64> = param.values.iter().copied().filter(|s| *s != now).collect();
            // One split most of all.
            let one = others.first().filter(|_| r.below(2) == 0);
            let splits = *one.or_else(|| others.get(r.below(others.len().max(1))))?;
            let mut split = case.clone();
            split.params.insert("splits".to_owned(), splits);
            other(split, inputs.clone(), How::Same)
        }
        Law::Window if case.window_len == 0 && case.stage.has_window() => {
            let window_len = case.seq_len().max(1) + r.below(3);
            other(Case { window_len, ..case.clone() }, inputs.clone(), How::Same)
        }
        Law::Heads
            if case.group() > 1 && (has(Pointer::K) || has(Pointer::V)) && !has(Pointer::NewK) =>
        {
            let repeated = Case { num_kv_heads: case.num_heads, ..case.clone() };
            let mut more = inputs.clone();
            for cache in [Pointer::K, Pointer::V].into_iter().filter(|cache| has(*cache)) {
                let rows = inputs.of(cache);
                more.put(&repeated, cache, |s, h, to| {
                    to.copy_from_slice(rows.all(s, h / case.group()));
                });
            }
            other(repeated, more, How::Same)
        }
        Law::Order if case.stage.has_window() && case.stage != Stage::Prefill => {
            let orders: Vec<Vec<usize>> =
                (0..case.batch()).map(|s| order(case, s, &mut r)).collect();
            let mut mixed = inputs.clone();
            for pointer in [Pointer::K, Pointer::V, Pointer::Scores, Pointer::Probs] {
                let Some(rows) = inputs.0.get(&pointer) else { continue };
                let dim = rows.shape.dim;
                mixed.put(case, pointer, |s, h, to| {
                    let from = rows.all(s, h);
                    for (row, n) in to.chunks_exact_mut(dim).zip(&orders[s]) {
                        row.copy_from_slice(&from[n * dim..][..dim]);
                    }
                });
            }
            other(case.clone(), mixed, How::Order(orders))
        }
        Law::Shift if has(Pointer::Q) && case.softcap == 0.0 && !case.sinks => {
            let (k, q) = (inputs.k(), inputs.q());
            let mut base = inputs.clone();
            base.put(case, Pointer::K, |s, g, to| on_grid(k.all(s, g), to));
            // The same vector on every key of a head adds the same number to all its scores.
            let step: Vec<f32> = (0..case.head_dim).map(|_| grid(r.gauss())).collect();
            let mut moved = base.clone();
            moved.put(case, Pointer::K, |s, g, to| {
                let from = base.k().all(s, g);
                for (i, x) in to.iter_mut().enumerate() {
                    *x = from[i] + step[i % case.head_dim];
                }
            });
            let dot = |q: &[f32]| -> f64 {
                q.iter().zip(&step).map(|(q, w)| f64::from(*q) * f64::from(*w)).sum()
            };
            let shifts = q.data.values.chunks_exact(case.head_dim);
            let shifts = shifts.map(|q| f64::from(case.scale) * dot(q)).collect();
            let mut posed = other(case.clone(), moved, How::Shift(shifts))?;
            posed.runs.push((case.clone(), base));
            Some(posed)
        }
        Law::Linear => {
            let of = if has(Pointer::V) && case.stage != Stage::Append {
                Pointer::V
            } else if case.stage == Stage::HeadCombine {
                Pointer::X
            } else {
                return None;
            };
            let [mut sum, mut one, mut two] = [inputs.clone(), inputs.clone(), inputs.clone()];
            one.put(case, of, |_, _, to| to.fill_with(|| grid(r.gauss())));
            two.put(case, of, |_, _, to| to.fill_with(|| grid(r.gauss())));
            sum.put(case, of, |s, h, to| {
                let (a, b) = (one.of(of).all(s, h), two.of(of).all(s, h));
                to.iter_mut().zip(a.iter().zip(b)).for_each(|(to, (a, b))| *to = a + b);
            });
            let mut posed = other(case.clone(), sum, How::Sum)?;
            posed.runs.extend([(case.clone(), one), (case.clone(), two)]);
            Some(posed)
        }
        Law::Empty if case.stage == Stage::Merge => {
            let param = manifest.params.iter().find(|p| p.name == "splits")?;
            let now = *case.params.get("splits")?;
            let larger =
                param.values.iter().filter(|splits| **splits > now && **splits <= MOST_PARTS);
            let more = *larger.min()?;
            let mut longer = case.clone();
            longer.params.insert("splits".to_owned(), more);
            let mut padded = Inputs::default();
            for (pointer, rows) in &inputs.0 {
                let lse = *pointer == Pointer::PartialLse;
                padded.put(&longer, *pointer, |s, h, to| {
                    let from = rows.all(s, h);
                    to.fill(if lse { f32::NEG_INFINITY } else { 1e3 });
                    to[..from.len()].copy_from_slice(from);
                });
            }
            other(longer, padded, How::Same)
        }
        _ => None,
    }
}

/// The case with other layouts of K and V, and padding where it had none or none where it had any.
fn relaid(manifest: &Manifest, case: &Case, r: &mut Stream) -> Case {
    let mut other = case.clone();
    let unit = |size: usize| (manifest.supports.align.unwrap_or(1) / size).max(1);
    let pads = !case.is_padded() && manifest.supports.padding;
    let layered =
        |l: &Layout| if case.layers > 1 { l.with_batch().with_layers() } else { l.clone() };
    let (k, v) = (&manifest.layouts.k, &manifest.layouts.v);
    let (q, kv, out) = (case.dtypes.q.size(), case.dtypes.kv.size(), case.dtypes.out.size());
    for (storage, pointer, layouts, size) in [
        (&mut other.k, Pointer::K, Some(k), kv),
        (&mut other.v, Pointer::V, Some(v), kv),
        (&mut other.q, Pointer::Q, None, q),
        (&mut other.out, Pointer::Out, None, out),
        (&mut other.scores, Pointer::Scores, None, 4),
        (&mut other.probs, Pointer::Probs, None, 4),
    ] {
        let x = pointer == Pointer::Q && case.stage.port(Pointer::X).is_some();
        if case.stage.port(pointer).is_none() && !x {
            continue;
        }
        let layout = match layouts {
            Some(layouts) => layered(&layouts[r.below(layouts.len())]),
            None => storage.layout.clone(),
        };
        let (pad, offset) = if pads { (unit(size) * (1 + r.below(3)), unit(size)) } else { (0, 0) };
        *storage = Storage::padded(layout, vec![pad], offset);
    }
    other
}

/// An order of the keys of a sequence: the attended ones shuffled, the others where they are.
fn order(case: &Case, s: usize, r: &mut Stream) -> Vec<usize> {
    let mut order: Vec<usize> = (0..case.seq_lens[s]).collect();
    let keys = case.attended(s);
    let attended = &mut order[keys];
    for i in (1..attended.len()).rev() {
        attended.swap(i, r.below(i + 1));
    }
    order
}

/// The nearest multiple of 1/16 between -7 and 7. The sum of two of them has at most eight
/// significant bits: it is exact in every driven type.
fn grid(x: f32) -> f32 {
    // Adding 1.5 * 2^23 leaves no bits below 1: rounds as `round_ties_even`, which is a call where the
    // processor's instruction for it cannot be relied on.
    const WHOLE: f32 = 12_582_912.0;
    (x.clamp(-7.0, 7.0) * 16.0 + WHOLE - WHOLE) / 16.0
}

fn on_grid(from: &[f32], to: &mut [f32]) {
    for (to, x) in to.iter_mut().zip(from) {
        *to = if x.is_finite() { grid(*x) } else { 0.0 };
    }
}

impl Posed {
    /// What the values of an output of the first run must be, from those of the other runs; `None`
    /// where the law says nothing of that output.
    pub fn predict(&self, case: &Case, output: Pointer, others: &[Vec<f64>]) -> Option<Vec<f64>> {
        let base = others.first()?;
        let per_head = |s: usize| match output {
            Pointer::Lse => 1,
            Pointer::Scores | Pointer::Probs => case.attended(s).len(),
            Pointer::K => case.head_dim,
            Pointer::V => case.head_dim_v,
            Pointer::Residual => case.hidden,
            _ if case.stage.has_hidden() => case.hidden,
            _ => case.queries(s) * case.head_dim_v,
        };
        let heads = match (output, case.stage) {
            (Pointer::K | Pointer::V, _) => case.num_kv_heads,
            (_, stage) if stage.has_hidden() => 1,
            _ => case.num_heads,
        };
        let start = |s: usize| (0..s).map(|s| heads * per_head(s)).sum::<usize>();
        match &self.how {
            How::Same => Some(base.clone()),
            How::Sequence(s) => Some(base[start(*s)..start(s + 1)].to_vec()),
            How::Order(_) if !matches!(output, Pointer::Scores | Pointer::Probs) => {
                Some(base.clone())
            }
            How::Order(orders) => {
                let mut wanted = Vec::with_capacity(base.len());
                for (s, order) in orders.iter().enumerate() {
                    let keys = case.attended(s);
                    for h in 0..heads {
                        let row = start(s) + h * keys.len();
                        wanted
                            .extend(order[keys.clone()].iter().map(|n| base[row + n - keys.start]));
                    }
                }
                Some(wanted)
            }
            How::Shift(shifts) => match output {
                Pointer::Lse => Some(base.iter().zip(shifts).map(|(x, shift)| x + shift).collect()),
                Pointer::Scores => {
                    let mut wanted = Vec::with_capacity(base.len());
                    for s in 0..case.batch() {
                        for h in 0..heads {
                            let row = start(s) + h * per_head(s);
                            let shift = shifts[s * heads + h];
                            wanted.extend(base[row..row + per_head(s)].iter().map(|x| x + shift));
                        }
                    }
                    Some(wanted)
                }
                _ => Some(base.clone()),
            },
            How::Sum if output == Pointer::Lse => Some(base.clone()),
            How::Sum => Some(base.iter().zip(others.get(1)?).map(|(a, b)| a + b).collect()),
        }
    }

    /// By how much the first run may miss the prediction: its own bound and those of the others,
    /// brought into its order by the same rule.
    pub fn slack(&self, case: &Case, output: Pointer, bounds: &[Vec<f64>]) -> Option<Vec<f64>> {
        let others = &bounds[1..];
        let same = match &self.how {
            How::Shift(_) => Posed { runs: Vec::new(), how: How::Same },
            how => Posed { runs: Vec::new(), how: how.clone() },
        };
        let theirs = same.predict(case, output, others)?;
        Some(bounds[0].iter().zip(&theirs).map(|(a, b)| a + b).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::super::draw::{Draw, EDGE_CASES};
    use super::super::space::{Filter, Space};
    use super::*;
    use crate::data::generate::generate;
    use crate::kernel::Registry;
    use std::collections::BTreeMap;

    /// How often each law can be posed on the cases of a kernel, and how often it is chosen.
    fn posed(kernel: &str) -> BTreeMap<&'static str, (usize, usize)> {
        let cache = tempfile::tempdir().unwrap();
        let manifest = Registry::new(cache.path()).unwrap().find(kernel).unwrap();
        let filter = Filter { waves: vec![32, 64], seq_len: Some((0, 80)), ..Filter::default() };
        let filter =
            if manifest.stage.has_keys() { filter } else { Filter { seq_len: None, ..filter } };
        let space = Space::new(&manifest, &filter, &[]).unwrap();
        let mut counts = BTreeMap::new();
        for i in EDGE_CASES..EDGE_CASES + 200 {
            let Draw::Case(case) = space.draw(7, i) else { continue };
            let inputs = generate(&case, &[]).unwrap();
            for law in Law::ALL {
                if pose(law, &manifest, &case, &inputs).is_some() {
                    counts.entry(law.name()).or_insert((0, 0)).0 += 1;
                }
            }
            if let Some((law, _)) = choose(&manifest, &case, &inputs) {
                counts.entry(law.name()).or_insert((0, 0)).1 += 1;
            }
        }
        counts
    }

    #[test]
    fn every_law_that_applies_is_posed_and_chosen() {
        for (kernel, laws) in [
            ("decode_online", "batch capacity heads layout linear order shift window"),
            ("decode_split", "batch capacity heads layout linear order shift splits window"),
            ("append", "batch capacity layout"),
            ("scores", "batch capacity heads layout order shift window"),
            ("softmax", "batch capacity layout order window"),
            ("pv", "batch capacity heads layout linear order window"),
            ("split", "batch capacity heads layout linear order shift splits window"),
            ("merge", "batch empty layout"),
            ("prefill", "batch capacity heads layout linear shift window"),
            ("head_combine", "batch layout linear"),
            ("norm", "batch layout"),
        ] {
            let counts = posed(kernel);
            let names: Vec<&str> = counts.keys().copied().collect();
            assert_eq!(names.join(" "), laws, "{kernel}");
            assert!(
                counts.values().all(|(posed, chosen)| *posed > 20 && *chosen > 2),
                "{kernel}: {counts:?}"
            );
        }
    }
}
