//! Cases drawn as a sweep draws them, and how many of them.

use attnbench::data::generate::generate;
use attnbench::data::inputs::Inputs;
use attnbench::judge::draw::Draw;
use attnbench::judge::space::{Filter, Space};
use attnbench::kernel::Manifest;
use attnbench::oracle::Scores;
use attnbench::problem::Case;
use std::num::NonZero;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Cases of a sweep: `PROPTEST_CASES`, by default 256.
pub fn count() -> usize {
    std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(256)
}

/// Everything that a decode kernel can be asked for, narrowed to lengths and head sizes (both ends
/// included).
pub fn space(seq_len: (usize, usize), head_dim: (usize, usize)) -> Space {
    const MANIFEST: &str = r#"
        format = "kernel/1"
        name = "software"
        source = "software.hip"
        stage = "decode"
        [[launch]]
        entry = "software"
        args = ["q", "k", "v", "out", "lse", "seq_lens", "sinks"]
        grid = [1, 1, 1]
        block = [1, 1, 1]
        [layout]
        k = ["HND", "NHD"]
        v = ["HND", "NHD"]
        [supports]
        dtype = [
            { q = "f32", kv = "f32", out = "f32" },
            { q = "f16", kv = "f16", out = "f16" },
            { q = "bf16", kv = "bf16", out = "bf16" },
            { q = "f16", kv = "f16", out = "f32" },
        ]
        head_dim = { min = 1, max = 256 }
        seq_len = { min = 0 }
        padding = true
        window = true
        softcap = true
        sinks = true
    "#;
    let manifest = Manifest::parse(MANIFEST, Path::new("software.toml")).expect("a manifest");
    let filter = Filter {
        seq_len: Some(seq_len),
        head_dim: Some(head_dim),
        waves: vec![32],
        ..Filter::default()
    };
    let mut space = Space::new(&manifest, &filter, &[]).expect("a space with cases");
    // These laws are about rounding: what is not a number has none.
    space.regimes.retain(|regime| regime.family() != "nonfinite");
    space
}

/// Case `index` of the sweep with this seed, with its data; `None` for the rare impossible draw.
pub fn draw(space: &Space, seed: u64, index: usize) -> Option<(Case, Inputs)> {
    match space.draw(seed, index) {
        Draw::Case(case) => {
            let inputs = generate(&case, &[]).expect("synthetic data");
            Some((*case, inputs))
        }
        Draw::Outside(..) => None,
    }
}

/// One query head over its attended keys, flat: what implementations in these tests work on.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a, T> {
    pub q: &'a [T],
    pub k: &'a [T],
    pub v: &'a [T],
    pub head_dim_v: usize,
    pub scale: f64,
    pub softcap: f64,
    pub sink: Option<f64>,
}

impl<T> Head<'_, T> {
    pub fn keys(&self) -> usize {
        self.k.len() / self.q.len()
    }

    /// The oracle's view of it.
    pub fn oracle(&self) -> attnbench::oracle::Head<'_, T> {
        let (q, k) = (self.q, self.k);
        attnbench::oracle::Head {
            scores: Scores::Dot { q, k, scale: self.scale, softcap: self.softcap },
            v: self.v,
            head_dim_v: self.head_dim_v,
            sink: self.sink,
        }
    }
}

/// One query head of a case, over its attended keys.
pub fn head<'a>(case: &Case, inputs: &'a Inputs, s: usize, h: usize) -> Head<'a, f32> {
    let (g, keys) = (h / (case.num_heads / case.num_kv_heads), case.attended(s));
    Head {
        q: inputs.q().all(s, h),
        k: inputs.k().rows(s, g, keys.clone()),
        v: inputs.v().rows(s, g, keys),
        head_dim_v: case.head_dim_v,
        scale: f64::from(case.scale),
        softcap: f64::from(case.softcap),
        sink: inputs.sink(h),
    }
}

/// Calls `work` once for each index below `count`, on every processor, and gives back the results
/// in the order of the indices.
pub fn parallel<T: Send>(count: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, NonZero::get) {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= count {
                        return;
                    }
                    let result = work(index);
                    done.lock().expect("no worker panics in the lock").push((index, result));
                }
            });
        }
    });
    let mut done = done.into_inner().expect("no worker panicked");
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}
