//! The checked share of a sweep: a few cheap and different cases under the checker.
//!
//! A fault that leaves the output right (a barrier that some threads pass by, a read beyond an array, a
//! 32-bit offset that a small cache does not overflow) shows to the checker alone. The share is small:
//! each instance has to be compiled once more, with the checker's calls, and its runs are slow.

use super::draw::{Draw, EDGE_CASES};
use super::space::Space;
use super::sweep::{Finding, judge_cases};
use super::trial::{Trial, TrialError};
use super::wide;
use crate::kernel::Env;
use crate::problem::{Case, Regime};
use std::collections::BTreeSet;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

/// Part of the sweep's own time that the share takes: one in so many.
const PART: u32 = 5;
/// Cases of the share at most.
const MOST: usize = 32;
/// Cases that are judged whatever they take, besides the wide ones.
const LEAST: usize = 4;
/// Instances of the kernel that the share has compiled, for each wave size.
const INSTANCES: usize = 2;
/// Findings of a class in a result are of the checker where their property begins so.
const FOUND: &str = "sanitize/";

/// What the share came to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Share {
    /// Cases that were run under the checker.
    pub cases: usize,
    /// Those that failed.
    pub failed: usize,
    /// Wall time.
    pub seconds: f64,
    /// Faults that it found.
    pub findings: usize,
}

/// A checked share, or why there was none.
#[derive(Debug)]
pub enum Checked {
    /// It was run.
    Done(Share, Vec<Finding>),
    /// It was not: why.
    Not(String),
}

/// Runs the checked share of a sweep that took so long. The trial's device checks its runs.
pub fn share(
    space: &Space,
    seed: u64,
    took: Duration,
    trial: &mut Trial,
    interrupted: &AtomicBool,
) -> Checked {
    let start = Instant::now();
    let (cases, least) = cases(space, seed);
    if cases.is_empty() {
        return Checked::Not("none of the cases is small enough".to_owned());
    }
    let go_on = |judged: usize| judged < least || start.elapsed() < took / PART;
    match judge_cases(space, cases, trial, &go_on, interrupted) {
        Err(TrialError::Compile(error)) => Checked::Not(format!("no checked build: {error}")),
        Err(error) => Checked::Not(error.to_string()),
        Ok(report) => {
            // What is wrong with the values, the sweep itself has seen.
            let is_found = |finding: &Finding| finding.failure.property.starts_with(FOUND);
            let cases = report.cases();
            let findings: Vec<Finding> = report.findings.into_iter().filter(is_found).collect();
            let failed = findings.iter().map(|finding| finding.count).max().unwrap_or(0);
            let seconds = start.elapsed().as_secs_f64();
            Checked::Done(Share { cases, failed, seconds, findings: findings.len() }, findings)
        }
    }
}

/// The cases of the share, in the order in which they are judged, and how many of them are judged whatever
/// that takes: first a few edges, then the wide ones, then more edges.
fn cases(space: &Space, seed: u64) -> (Vec<Case>, usize) {
    let mut edges = edges(space, seed);
    let wide = wide::cases(space);
    let first: Vec<Case> = edges.drain(..LEAST.min(edges.len())).collect();
    let least = first.len() + wide.len();
    let mut all: Vec<Case> = first.into_iter().chain(wide).chain(edges).collect();
    all.truncate(MOST.max(least));
    (all, least)
}

/// Edges of the sweep, those first that have most of what none before had, and among equals the cheapest.
fn edges(space: &Space, seed: u64) -> Vec<Case> {
    let mut left: Vec<(Case, String, BTreeSet<String>)> = (0..EDGE_CASES)
        .filter_map(|index| match space.draw(seed, index) {
            // A captured slice is dear, and its data are of no interest here.
            Draw::Case(case) if !matches!(case.regime, Regime::Slice(_)) => Some(*case),
            _ => None,
        })
        .map(|mut case| {
            // Nor are other data: what is said of them is that the check would see nothing.
            if space.regimes.contains(&Regime::Gaussian) {
                case.regime = Regime::Gaussian;
            }
            case
        })
        .filter_map(|case| {
            let instance = instance(space, &case)?;
            let facts = facts(&case);
            Some((case, instance, facts))
        })
        .collect();
    left.sort_by_key(|(case, ..)| cost(case));
    // The longer half is no share's affair.
    left.truncate(left.len().div_ceil(2).max(LEAST));
    let (mut chosen, mut seen) = (Vec::new(), BTreeSet::new());
    let mut instances: BTreeSet<(u32, String)> = BTreeSet::new();
    while !left.is_empty() {
        let new = |facts: &BTreeSet<String>| facts.difference(&seen).count();
        let is_known = |case: &Case, instance: &String| {
            instances.contains(&(case.wave, instance.clone()))
                || instances.iter().filter(|(wave, _)| *wave == case.wave).count() < INSTANCES
        };
        left.retain(|(case, instance, _)| is_known(case, instance));
        // The first of the largest: the cheapest.
        let Some(at) = (0..left.len()).rev().max_by_key(|at| new(&left[*at].2)) else { break };
        let (case, instance, facts) = left.remove(at);
        instances.insert((case.wave, instance));
        seen.extend(facts);
        chosen.push(case);
    }
    chosen
}

/// What a case's kernel is compiled from, as far as it differs between cases.
fn instance(space: &Space, case: &Case) -> Option<String> {
    let env = Env::new(case, &case.placements().ok()?);
    let source = space.manifest.source(&env).ok()?;
    Some(format!("{:?} {:?}", source.defines, source.entries))
}

/// What the checker may come upon in a case.
fn facts(case: &Case) -> BTreeSet<String> {
    let n = case.seq_len();
    let mut facts = BTreeSet::from([
        format!("wave {}", case.wave),
        format!("batch {}", case.batch() > 1),
        format!("group {}", case.group() > 1),
        format!("length {}", n.next_power_of_two()),
        format!("head_dim {}", case.head_dim.next_power_of_two()),
        format!("whole {}", case.head_dim.is_multiple_of(16)),
        format!("layouts {} {}", case.k.layout, case.v.layout),
    ]);
    for (is, name) in [
        (case.is_ragged(), "ragged"),
        (case.window_len > 0, "window"),
        (case.window_len > n, "window longer"),
        (case.sinks, "sinks"),
        (case.softcap > 0.0, "softcap"),
        (case.head_dim_v > case.head_dim, "long V"),
        (case.seq_lens.contains(&0), "empty"),
    ] {
        if is {
            facts.insert(name.to_owned());
        }
    }
    facts.extend(case.params.iter().map(|(name, value)| format!("param {name} {value}")));
    facts
}

/// What a case costs, in no unit.
fn cost(case: &Case) -> usize {
    let rows = case.batch() * case.num_heads;
    case.work()
        + rows * (1 << 10)
        + case.batch() * case.num_kv_heads * case.capacity * case.head_dim
}
