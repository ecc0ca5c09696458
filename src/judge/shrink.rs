//! Shrinking a failing case: proptest's protocol over steps that know what a case is.
//!
//! A generic shrinker halves numbers; this one asks what a person would: does it fail with one
//! sequence, one head, fewer keys, no window, no padding, plain layouts, f32? [`CaseTree`] is a
//! `ValueTree`, so the same shrinking serves the sweep and `proptest!` laws.

use super::draw::Draw;
use super::space::Space;
use crate::problem::{Case, DType, DTypes, Regime, Storage, default_scale};
use proptest::strategy::{NewTree, Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use rand::Rng;
use std::fmt;
use std::sync::Arc;

/// The cases of a space, as a proptest strategy.
#[derive(Clone)]
pub struct Cases(Arc<Space>);

impl Cases {
    /// The strategy over a space.
    pub fn new(space: Space) -> Self {
        Cases(Arc::new(space))
    }

    /// The space.
    pub fn space(&self) -> &Arc<Space> {
        &self.0
    }

    /// The shrinking tree of a case.
    pub fn tree(&self, case: Case) -> CaseTree {
        CaseTree {
            space: Arc::clone(&self.0),
            failing: case.clone(),
            current: case,
            step: 0,
            gained: false,
        }
    }
}

impl fmt::Debug for Cases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the cases of {}", self.0.manifest.name)
    }
}

impl Strategy for Cases {
    type Tree = CaseTree;
    type Value = Case;

    fn new_tree(&self, runner: &mut TestRunner) -> NewTree<Self> {
        let seed = runner.rng().next_u64();
        // Index 0 to 63 would be edge cases; a law wants any case.
        let index = super::draw::EDGE_CASES + (runner.rng().next_u32() as usize);
        match self.0.draw(seed, index) {
            Draw::Case(case) => Ok(self.tree(*case)),
            Draw::Outside(what, why) => Err(format!("{what}: {why}").into()),
        }
    }
}

/// A case on its way to a smaller one that still fails.
///
/// `simplify` is called when the current case fails, `complicate` when it passes.
#[derive(Debug, Clone)]
pub struct CaseTree {
    space: Arc<Space>,
    /// The smallest case known to fail.
    failing: Case,
    /// The case under test.
    current: Case,
    /// The next step to try on `failing`.
    step: usize,
    /// Whether a step helped since the steps were last begun.
    gained: bool,
}

impl CaseTree {
    /// Moves on to the next step that changes the failing case and stays in the space.
    fn advance(&mut self) -> bool {
        loop {
            let steps = steps(&self.failing, &self.space);
            while self.step < steps.len() {
                let candidate = &steps[self.step];
                self.step += 1;
                if *candidate != self.failing && Self::is_inside(candidate, &self.space) {
                    self.current = candidate.clone();
                    return true;
                }
            }
            if !std::mem::take(&mut self.gained) {
                self.current = self.failing.clone();
                return false;
            }
            self.step = 0;
        }
    }

    /// The smallest case known to fail.
    pub fn smallest(&self) -> &Case {
        &self.failing
    }

    /// Whether a case can be posed to the kernel of a space.
    pub fn is_inside(case: &Case, space: &Space) -> bool {
        case.validate().is_ok() && space.excludes(case).is_none()
    }
}

impl ValueTree for CaseTree {
    type Value = Case;

    fn current(&self) -> Case {
        self.current.clone()
    }

    fn simplify(&mut self) -> bool {
        if self.current != self.failing {
            self.failing = self.current.clone();
            self.gained = true;
            // The same step may help again (halving); go one back.
            self.step = self.step.saturating_sub(1);
        }
        self.advance()
    }

    fn complicate(&mut self) -> bool {
        self.advance()
    }
}

/// Simpler cases to try, boldest first. Each is strictly simpler in one respect, so shrinking ends.
pub fn steps(case: &Case, space: &Space) -> Vec<Case> {
    let mut steps = Vec::new();
    let mut with = |change: &dyn Fn(&mut Case)| {
        let mut c = case.clone();
        change(&mut c);
        // A cache that was just large enough stays so.
        if case.capacity == case.seq_len().max(1) {
            c.capacity = c.seq_len().max(1);
        }
        steps.push(c);
    };

    if case.batch() > 1 {
        for s in 0..case.batch() {
            with(&|c| c.seq_lens = vec![c.seq_lens[s]]);
        }
        for s in 0..case.batch() {
            with(&|c| {
                c.seq_lens.remove(s);
            });
        }
    }
    let heads = |c: &mut Case, kv: usize, group: usize| {
        c.num_kv_heads = kv;
        c.num_heads = kv * group;
    };
    let (kv, group) = (case.num_kv_heads, case.group());
    for (kv, group) in smaller(kv).map(|kv| (kv, group)).chain(smaller(group).map(|g| (kv, g))) {
        with(&|c| heads(c, kv, group));
    }
    for s in 0..case.batch() {
        for n in smaller(case.seq_lens[s]).chain((case.seq_lens[s] == 1).then_some(0)) {
            with(&|c| c.seq_lens[s] = n);
        }
    }
    for d in smaller(case.head_dim) {
        with(&|c| {
            let default = c.scale == default_scale(c.head_dim);
            if c.head_dim_v == c.head_dim {
                c.head_dim_v = d;
            }
            c.head_dim = d;
            if default {
                c.scale = default_scale(d);
            }
        });
    }
    for w in std::iter::once(0).chain(smaller(case.window_len)).filter(|w| *w < case.window_len) {
        with(&|c| c.window_len = w);
    }
    with(&|c| c.softcap = 0.0);
    with(&|c| c.sinks = false);
    with(&|c| c.scale = default_scale(c.head_dim));
    with(&|c| c.capacity = c.seq_len().max(1));
    let plain = |s: &Storage| Storage::contiguous(s.layout.clone());
    with(&|c| {
        (c.q, c.k, c.v, c.out) = (plain(&c.q), plain(&c.k), plain(&c.v), plain(&c.out));
        (c.scores, c.probs) = (plain(&c.scores), plain(&c.probs));
    });
    with(&|c| c.q = plain(&c.q));
    with(&|c| c.k = plain(&c.k));
    with(&|c| c.v = plain(&c.v));
    with(&|c| c.out = plain(&c.out));
    with(&|c| c.scores = plain(&c.scores));
    with(&|c| c.probs = plain(&c.probs));
    with(&|c| c.rope = None);
    with(&|c| c.eps = Case::plain(1, 1, 1, vec![1]).eps);
    for hidden in smaller(case.hidden) {
        with(&|c| c.hidden = hidden);
    }
    for first in space.manifest.layouts.k.iter().take(1) {
        with(&|c| c.k.layout = first.clone());
    }
    for first in space.manifest.layouts.v.iter().take(1) {
        with(&|c| c.v.layout = first.clone());
    }
    with(&|c| (c.layers, c.layer) = (1, 0));
    with(&|c| c.dtypes = DTypes::uniform(DType::F32));
    for param in &space.manifest.params {
        let now = case.params.get(&param.name);
        for value in param.values.iter().filter(|v| now.is_some_and(|now| *v < now)) {
            with(&|c| {
                c.params.insert(param.name.clone(), *value);
            });
        }
    }
    with(&|c| c.wave = space.waves.iter().copied().min().unwrap_or(c.wave).min(c.wave));
    with(&|c| c.regime = Regime::Gaussian);
    with(&|c| c.seed = 0);
    with(&|c| c.order_seed = 0);
    steps
}

/// Smaller numbers from 1 up, boldest first.
fn smaller(n: usize) -> impl Iterator<Item = usize> {
    let mut tried = vec![1, n / 8, n / 4, n / 2, n - n / 4, n - n / 8, n.saturating_sub(1)];
    tried.retain(|m| *m >= 1 && *m < n);
    tried.dedup();
    tried.into_iter()
}

#[cfg(test)]
mod tests {
    use super::super::space::tests::space;
    use super::*;

    fn shrink(id: &str, fails: impl Fn(&Case) -> bool) -> (Case, usize) {
        let mut tree = Cases::new(space()).tree(id.parse().unwrap());
        let (mut more, mut tries) = (true, 0);
        while more {
            tries += 1;
            assert!(tries < 2000, "shrinking does not end at {}", tree.current());
            more = if fails(&tree.current()) { tree.simplify() } else { tree.complicate() };
        }
        assert_eq!(tree.current(), *tree.smallest());
        (tree.current(), tries)
    }

    const LARGE: &str = "b=3,hq=24,hkv=8,d=129,n=[300,17,1025],cap=2000,w=77,softcap=30,sinks=1,\
        scale=0.3,dt=bf16,k=NHD+pad1.2.3@3,v=HDN+pad4,q=HD+pad3@1,out=HD+pad5,p.tile=128,wave=64,\
        data=onehot:last,seed=99,order=98";

    #[test]
    fn what_does_not_matter_goes() {
        let (c, tries) = shrink(LARGE, |_| true);
        let want: Case = "hq=1,hkv=1,d=1,n=0,p.tile=32,k=HND,v=HND".parse().unwrap();
        assert_eq!(c, want, "after {tries} tries");
    }

    #[test]
    fn what_matters_stays_and_is_minimal() {
        let (c, tries) =
            shrink(LARGE, |c| c.seq_len() > 64 && c.head_dim >= 33 && c.num_kv_heads > 1);
        assert_eq!((c.seq_lens.as_slice(), c.head_dim, c.num_heads), ([65].as_slice(), 33, 2));
        assert!(tries < 150, "{tries}");
        let (c, _) =
            shrink(LARGE, |c| c.window_len > 0 && c.seq_len() > c.window_len && c.wave == 64);
        assert_eq!((c.window_len, c.seq_lens.as_slice(), c.wave), (1, [2].as_slice(), 64));
        let (c, _) = shrink(LARGE, |c| c.is_ragged() && c.v.is_padded());
        assert_eq!(c.batch(), 2);
        assert!(!c.k.is_padded() && c.v.is_padded());
    }
}
