//! Which of the failing cases are asked: different in their axes, and cheap enough to be searched.

use crate::judge::coverage::buckets;
use crate::judge::trial::Failure;
use crate::problem::Case;
use std::collections::BTreeSet;

/// A failing case, and how it fails.
pub type Failing<'a> = (&'a Case, &'a Failure);

/// Chooses at most `most` failing cases: each time the one that has the most buckets of axes that no
/// chosen one has, of equal ones the cheapest.
pub fn choose<'a>(failing: &[Failing<'a>], most: usize) -> Vec<Failing<'a>> {
    let mut left: Vec<(Failing<'a>, BTreeSet<(String, String)>)> =
        failing.iter().map(|f| (*f, buckets(f.0).into_iter().collect())).collect();
    left.sort_by_key(|((case, _), _)| case.work());
    let mut seen: BTreeSet<(String, String)> = BTreeSet::new();
    let mut chosen = Vec::new();
    while chosen.len() < most && !left.is_empty() {
        let new = |at: usize| left[at].1.difference(&seen).count();
        let at = (0..left.len()).max_by_key(|at| (new(*at), std::cmp::Reverse(*at)));
        let (failing, buckets) = left.remove(at.unwrap_or(0));
        seen.extend(buckets);
        chosen.push(failing);
    }
    chosen
}
