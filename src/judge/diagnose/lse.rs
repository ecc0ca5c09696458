//! A log-sum-exp that is wrong: in another base, without its maximum, in another order, or of
//! another softmax than the output's.

use super::catalogue::{FAULTS, Param, Params};
use super::predict::Prediction;
use super::problem::Problem;
use super::recipe::{Recipe, RowMap};
use crate::judge::compare;
use crate::problem::DType;

/// What is wrong with the lse.
#[derive(Debug, Clone, PartialEq)]
pub struct LseFault {
    /// The id; of the catalogue, or of a fault that only an lse has.
    pub fault: &'static str,
    /// Its parameters.
    pub params: Params,
    /// What the faulty kernel did.
    pub meaning: &'static str,
    /// The largest error over the bound of what it explains.
    pub ratio: f64,
}

/// What a case says of its lse.
#[derive(Debug, Clone, PartialEq)]
pub enum LseVerdict {
    /// Right, or there is none.
    Right,
    /// One fault explains all that are wrong.
    Named(LseFault),
    /// Several would, or chance might.
    CannotTell,
    /// None does.
    Unexplained,
}

/// What explains a fault by chance less often than this proves it.
const CHANCE: f64 = 1e-4;

/// A value that an lse should have, and how far it may be off.
type Near = (f64, f64);

/// What explains the lse beside the outputs.
pub fn explain_lse(problem: &Problem<'_>) -> LseVerdict {
    verdict(problem).unwrap_or(LseVerdict::Right)
}

/// As [`explain_lse`]; `None` where the lse are right, or cannot be computed.
fn verdict(problem: &Problem<'_>) -> Option<LseVerdict> {
    let given = problem.lse.as_deref()?;
    let mut p = Prediction::default();
    let plain = Recipe::right(problem);
    let (mut right, mut sums) = (Vec::new(), Vec::new());
    for unit in 0..problem.units.len().min(given.len()) {
        p.make(problem, &plain, unit, problem.head_dim_v).ok()?;
        right.push((p.answer.lse, p.bound.lse));
        sums.push((p.answer.max, p.answer.denominator));
    }
    let wrong: Vec<usize> = (0..right.len()).filter(|u| off(given[*u], right[*u]) > 1.0).collect();
    if wrong.is_empty() {
        return None;
    }
    if wrong.iter().all(|u| right[*u].0 == f64::NEG_INFINITY) {
        return Some(LseVerdict::Named(LseFault {
            fault: "lse_of_nothing",
            params: Params::new(),
            meaning: "the lse where no key is attended is not -infinity, so that a merge counts it",
            ratio: f64::INFINITY,
        }));
    }
    let mut candidates = Vec::new();
    let u = DType::F32.unit_roundoff();
    let ln2 = std::f64::consts::LN_2;
    let base2 = |(x, b): &Near| (x / ln2, b / ln2 + 2.0 * u * (x / ln2).abs());
    candidates.push((
        "lse_base",
        Params::from([("base", Param::Int(2))]),
        "the lse is to base 2, and must be to base e",
        right.iter().map(base2).collect::<Vec<Near>>(),
    ));
    let mixed = |((_, b), (max, l)): (&Near, &(f64, f64))| {
        let x = max + libm::log2(*l);
        (x, b / ln2 + 2.0 * u * x.abs())
    };
    candidates.push((
        "lse_base",
        Params::from([("base", Param::Text("2 of the sum alone".into()))]),
        "the logarithm of the sum is to base 2, and the maximum beside it is not",
        right.iter().zip(&sums).map(mixed).collect(),
    ));
    candidates.push((
        "lse_max_missing",
        Params::new(),
        "the lse lacks the largest score: it is max + log(sum)",
        right.iter().zip(&sums).map(|((_, b), (_, l))| (libm::log(*l), *b)).collect(),
    ));
    for (fault, row, map, meaning) in [
        (
            "lse_layout_swapped",
            "[heads, batch]",
            RowMap::HeadsOutside,
            "the lse lie in the order [heads, batch], and must in [batch, heads]",
        ),
        ("row_map", "next head", RowMap::NextHead, "the lse are those of the head after their own"),
        (
            "row_map",
            "head before",
            RowMap::HeadBefore,
            "the lse are those of the head before their own",
        ),
        ("row_map", "heads reversed", RowMap::Reversed, "the lse of the heads are in reverse"),
        (
            "row_map",
            "next sequence",
            RowMap::NextSequence,
            "the lse are those of the sequence after their own",
        ),
    ] {
        let of = |unit: usize| Some(right[map.source(unit, problem)?]);
        if let Some(values) = (0..right.len()).map(of).collect() {
            candidates.push((
                fault,
                Params::from([("row", Param::Text(row.into()))]),
                meaning,
                values,
            ));
        }
    }
    // A softmax that is wrong in the lse alone.
    for fault in &FAULTS {
        let members = (fault.members)(problem);
        for member in members.into_iter().filter(|m| m.default && m.change.concerns(problem.task)) {
            let mut recipe = plain.clone();
            if !member.change.apply(&mut recipe) || recipe.out_rows.is_some() {
                continue;
            }
            let mut of = |unit: usize| {
                // No element of the output is looked at.
                p.make(problem, &recipe, unit, 1).ok()?;
                Some((p.answer.lse, p.bound.lse))
            };
            // Most of them end at the first that is wrong.
            if of(wrong[0]).is_none_or(|near| off(given[wrong[0]], near) > 1.0) {
                continue;
            }
            if let Some(values) = (0..right.len()).map(of).collect() {
                candidates.push((fault.id, member.params, fault.meaning, values));
            }
        }
    }
    let tries = libm::log(candidates.len() as f64);
    let (mut fits, mut by_chance) = (Vec::new(), false);
    for (fault, params, meaning, values) in candidates {
        let ratio =
            values.iter().zip(given).map(|(near, got)| off(*got, *near)).fold(0.0, f64::max);
        if ratio > 1.0 {
            continue;
        }
        let share = |unit: &usize| {
            let (error, bound) = ((given[*unit] - right[*unit].0).abs(), values[*unit].1);
            if error > bound && bound > 0.0 { libm::log(bound / error) } else { 0.0 }
        };
        let chance = tries + wrong.iter().map(share).sum::<f64>();
        match chance <= libm::log(CHANCE) {
            true => fits.push(LseFault { fault, params, meaning, ratio }),
            false => by_chance = true,
        }
    }
    Some(match fits.first() {
        None if by_chance => LseVerdict::CannotTell,
        None => LseVerdict::Unexplained,
        // Two names for one thing are none.
        Some(first) if fits.iter().all(|f| f.fault == first.fault) => {
            LseVerdict::Named(first.clone())
        }
        Some(_) => LseVerdict::CannotTell,
    })
}

/// How far an lse is off, in units of its bound. Nothing attended has exactly -infinity.
fn off(got: f64, (want, bound): Near) -> f64 {
    if want == f64::NEG_INFINITY {
        return if got == want { 0.0 } else { f64::INFINITY };
    }
    let ratio = compare::ratio(got, want, bound, DType::F32);
    if ratio.is_nan() { f64::INFINITY } else { ratio }
}
