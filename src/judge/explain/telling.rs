//! Where the cases come from that are drawn to tell when a kernel fails.

use super::facts::{Properties, properties};
use super::trigger::{self, Known, Source, Trigger};
use crate::judge::draw::Draw;
use crate::judge::law::Law;
use crate::judge::shrink::{CaseTree, steps};
use crate::judge::space::Space;
use crate::judge::trial::{Failure, Outcome, Trial};
use crate::problem::{Case, default_scale};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Cases that are drawn to tell at most.
const MOST_DRAWN: usize = 40;
/// Nor is one drawn after this time: a kernel that never ends takes its time limit in every case.
const PATIENCE: Duration = Duration::from_secs(6);
/// Draws beyond the sweep's own from which those are chosen that tell.
const POOL: usize = 400;
/// The first of them.
const BEYOND: usize = 1 << 40;
/// Failing cases whose simpler neighbours are in the pool as well.
const NEIGHBOURS_OF: usize = 4;
/// Multiply-adds of a case that is drawn to tell.
const MOST_WORK: usize = 1 << 19;

/// The cases that a sweep has judged, and how to make more.
pub struct Telling<'a> {
    /// Where cases are drawn.
    pub space: &'a Space,
    /// The sweep's seed.
    pub seed: u64,
    /// Set where the user ends the sweep.
    pub interrupted: &'a AtomicBool,
    /// Cases that passed, each with the law that it was tried on besides.
    pub passed: &'a [(Case, Option<Law>)],
}

/// When a kernel fails as some cases do. `fails` says of a failure whether it is one of these; `law` is
/// the law that they break, if it is one: then only cases that were tried on it can pass.
pub fn when(
    telling: &Telling<'_>,
    trial: &mut Trial,
    failing: &[&Case],
    law: Option<&str>,
    fails: &dyn Fn(&Failure) -> bool,
) -> Option<Trigger> {
    let manifest = &telling.space.manifest;
    let known = |case: &Case, fails| Known { properties: properties(case, manifest), fails };
    let tried = |of: &Option<Law>| law.is_none() || of.map(Law::property) == law;
    let passed = telling.passed.iter().filter(|(_, of)| tried(of)).map(|(case, _)| case);
    let all: Vec<Known> = failing
        .iter()
        .map(|case| known(case, true))
        .chain(passed.map(|case| known(case, false)))
        .collect();
    let mut failing: Vec<Case> = failing.iter().map(|case| (*case).clone()).collect();
    failing.sort_by_key(Case::work);
    let mut drawing =
        Drawing { telling, trial, failing, law, fails, drawn: 0, start: Instant::now() };
    trigger::find(all, &mut drawing)
}

/// Cases that are drawn and judged.
struct Drawing<'a, 't> {
    telling: &'t Telling<'a>,
    trial: &'t mut Trial,
    failing: Vec<Case>,
    law: Option<&'t str>,
    fails: &'t dyn Fn(&Failure) -> bool,
    drawn: usize,
    start: Instant,
}

impl Drawing<'_, '_> {
    fn known(&self, case: Case) -> (Case, Properties) {
        let properties = properties(&case, &self.telling.space.manifest);
        (case, properties)
    }
}

impl Source for Drawing<'_, '_> {
    fn pool(&mut self) -> Vec<(Case, Properties)> {
        let space = self.telling.space;
        let near = self.failing.iter().take(NEIGHBOURS_OF).flat_map(|case| {
            let simpler = steps(case, space).into_iter();
            simpler.filter(|c| c != case && CaseTree::is_inside(c, space)).collect::<Vec<_>>()
        });
        let drawn = (0..POOL).filter_map(|i| match space.draw(self.telling.seed, BEYOND + i) {
            Draw::Case(case) => Some(*case),
            Draw::Outside(..) => None,
        });
        let all: Vec<Case> = drawn.chain(near).filter(|case| case.work() <= MOST_WORK).collect();
        all.into_iter().map(|case| self.known(case)).collect()
    }

    fn fails(&mut self, case: &Case) -> Option<bool> {
        if self.is_over() {
            return None;
        }
        self.drawn += 1;
        match self.trial.judge(case).ok()? {
            Outcome::Passed(passed) => {
                let tried = self.law.is_none() || passed.law.map(Law::property) == self.law;
                tried.then_some(false)
            }
            Outcome::Failed(failure) => {
                let same = (self.fails)(&failure);
                if same {
                    self.failing.push(case.clone());
                }
                // What fails otherwise says nothing of these.
                same.then_some(true)
            }
            Outcome::Vacuous(_) => None,
        }
    }

    fn with(&mut self, case: &Case, name: &str, value: i64) -> Option<(Case, Properties)> {
        let value = usize::try_from(value).ok()?;
        let mut case = case.clone();
        match name {
            "seq_len" => {
                let spare = case.capacity.saturating_sub(case.seq_len());
                let longest = case.seq_len();
                for n in &mut case.seq_lens {
                    *n = if *n == longest { value } else { (*n).min(value) };
                }
                case.capacity = value.max(1) + spare;
            }
            "head_dim" => {
                let default = case.scale == default_scale(case.head_dim);
                if case.head_dim_v == case.head_dim {
                    case.head_dim_v = value;
                }
                case.head_dim = value;
                if default {
                    case.scale = default_scale(value);
                }
            }
            "head_dim_v" => case.head_dim_v = value,
            "batch" => case.seq_lens.resize(value, case.seq_len()),
            "window_len" => case.window_len = value,
            "group" => case.num_heads = case.num_kv_heads * value,
            "num_kv_heads" => {
                case.num_heads = case.group() * value;
                case.num_kv_heads = value;
            }
            "hidden" => case.hidden = value,
            _ => return None,
        }
        CaseTree::is_inside(&case, self.telling.space).then(|| self.known(case))
    }

    fn failing(&self) -> Vec<(Case, Properties)> {
        let manifest = &self.telling.space.manifest;
        self.failing.iter().map(|case| (case.clone(), properties(case, manifest))).collect()
    }

    fn is_over(&self) -> bool {
        self.drawn == MOST_DRAWN
            || self.start.elapsed() > PATIENCE
            || self.telling.interrupted.load(Ordering::Relaxed)
    }
}
