//! Whether what a kernel left of a timed case is right: some heads of it against the oracle.
//!
//! All heads of some sequences' groups, not of all: a cache of a gigabyte takes the oracle minutes. The
//! first and the last group are among them, and others by the seed. What a sweep finds it finds in all.

use super::data::part;
use super::workload::Workload;
use crate::data::random::Stream;
use crate::judge::compare::ratio;
use crate::judge::trial::arithmetic;
use crate::kernel::Manifest;
use crate::oracle::Expected;
use crate::problem::{Case, DType, Placements, Pointer};

/// Groups that are looked at.
const GROUPS: usize = 4;

/// How right a kernel is on a timed case.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Checked {
    /// The largest error over its bound.
    pub(super) ratio: f64,
    /// Query heads that were looked at.
    pub(super) heads: usize,
    /// Where it is wrong, in words.
    pub(super) wrong: Option<String>,
}

/// What a case's outputs must be, for the groups that are looked at.
pub(super) struct Oracle {
    groups: Vec<(usize, Expected)>,
}

impl Oracle {
    /// Evaluates the oracle and its bound, a thread a group.
    pub(super) fn new(manifest: &Manifest, workload: &Workload, seed: u64) -> Oracle {
        let case = &workload.case;
        let groups = case.batch() * case.num_kv_heads;
        let mut r = Stream::new(seed, &[0x6368]);
        let mut chosen = vec![0, groups - 1];
        chosen.extend((2..GROUPS).map(|_| r.below(groups)));
        chosen.sort_unstable();
        chosen.dedup();
        let of_group = |group: usize| {
            let (s, g) = (group / case.num_kv_heads, group % case.num_kv_heads);
            let (part, inputs) = part(case, &workload.places, &workload.whole, seed, s, g);
            Expected::new(&part, &inputs, &arithmetic(manifest, case))
        };
        let expected: Vec<Expected> = std::thread::scope(|scope| {
            let threads: Vec<_> =
                chosen.iter().map(|group| scope.spawn(move || of_group(*group))).collect();
            let join = |thread: std::thread::ScopedJoinHandle<'_, _>| {
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            threads.into_iter().map(join).collect()
        });
        Oracle { groups: chosen.into_iter().zip(expected).collect() }
    }

    /// Judges outputs, put together as [`Workload::outputs`] says.
    pub(super) fn check(&self, workload: &Workload, left: &[u8]) -> Checked {
        let mut checked =
            Checked { ratio: 0.0, heads: self.groups.len() * workload.case.group(), wrong: None };
        for (group, expected) in &self.groups {
            check_group(workload, *group, expected, left, &mut checked);
        }
        checked
    }
}

fn check_group(
    workload: &Workload,
    group: usize,
    expected: &Expected,
    left: &[u8],
    checked: &mut Checked,
) {
    let Workload { case, places, .. } = workload;
    let (s, g) = (group / case.num_kv_heads, group % case.num_kv_heads);
    let mut at = 0;
    for (output, range) in workload.outputs.iter().zip(&workload.timing.outputs) {
        let bytes = &left[at..at + range.len()];
        at += range.len();
        let Some(right) = expected.of(*output) else { continue };
        let dtype = case.shape(*output).map_or(DType::F32, |(dtype, _)| dtype);
        for ((index, place), (want, bound)) in elements(case, places, *output, s, g)
            .into_iter()
            .zip(right.want.iter().zip(&right.bound))
        {
            let got = dtype.load(bytes, index);
            // An empty sequence's lse is -inf, as it must be.
            let same = *output == Pointer::Lse && got == *want;
            let ratio = if same { 0.0 } else { ratio(got, *want, *bound, dtype) };
            let ratio = if ratio.is_nan() { f64::INFINITY } else { ratio };
            checked.ratio = checked.ratio.max(ratio);
            if ratio > 1.0 && checked.wrong.is_none() {
                checked.wrong = Some(format!(
                    "{output} at {place} is {got:.6e}, must be {want:.6e}: the error is {ratio:.1} \
                     times its bound"
                ));
            }
        }
    }
}

/// The elements of an output that belong to a group, in the oracle's order: which, and where in words.
fn elements(
    case: &Case,
    places: &Placements,
    output: Pointer,
    s: usize,
    g: usize,
) -> Vec<(usize, String)> {
    let mut all = Vec::new();
    for h in g * case.group()..(g + 1) * case.group() {
        let head = format!("sequence {s}, head {h}");
        match output {
            Pointer::Lse => all.push((s * case.num_heads + h, head)),
            Pointer::Scores => {
                let key = |n| (places.scores.index(s, 0, h, n, 0), format!("{head}, key {n}"));
                all.extend(case.attended(s).map(key));
            }
            _ => {
                let element = |d| (places.out.index(s, 0, h, 0, d), format!("{head}, element {d}"));
                all.extend((0..case.head_dim_v).map(element));
            }
        }
    }
    all
}
