//! How long a run may take: the time limit, and what a case's own work adds to it.
//!
//! A limit that the user has said is the limit. The default one is for small cases: a kernel with a
//! shuffle for each key takes seconds for a long sequence where every lane is a coroutine. So the
//! default grows with the case, by far more than a right kernel can need; and because such a limit is
//! long, a run that makes no progress (no thread waits, no block ends) is ended sooner.

use crate::device::Launch;
use crate::problem::Case;
use std::time::Duration;

/// Nanoseconds that a multiply-add may take on one slow thread; 1 to 4 are common.
const PRODUCT_NS: u64 = 20;
/// Nanoseconds that a thread may take to wait and to go on; 20 to 50 are common.
const SWITCH_NS: u64 = 200;
/// Times that a thread may wait for each key and head: two reductions over a wave of 64, and more.
const WAITS: u64 = 16;

/// How long a run may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    /// In all.
    pub(super) whole: Duration,
    /// Without any progress; `None` where the user has said the whole.
    pub(super) idle: Option<Duration>,
}

/// The time limit of a trial's runs.
#[derive(Debug, Clone, Copy)]
pub(super) struct TimeLimit {
    /// As said, or of a case without any work.
    pub(super) base: Duration,
    /// Whether it grows with the case.
    pub(super) grows: bool,
    /// While there is no time to lose: a shorter base, which always grows.
    pub(super) hurry: Option<Duration>,
}

impl TimeLimit {
    /// For the launches of a case.
    pub(super) fn of(&self, case: &Case, launches: &[Launch], slowdown: u32) -> Limits {
        let full = match self.grows {
            true => grown(self.base, case, launches, slowdown),
            false => Limits { whole: self.base, idle: None },
        };
        let Some(hurry) = self.hurry else { return full };
        let hurried = grown(hurry, case, launches, slowdown);
        if hurried.whole < full.whole { hurried } else { full }
    }
}

/// A limit with what the case's work adds, on a device that is so many times slower.
fn grown(base: Duration, case: &Case, launches: &[Launch], slowdown: u32) -> Limits {
    let times = |a: u64, b: usize| a.saturating_mul(b as u64);
    let longest = case.seq_lens.iter().max().copied().unwrap_or(0);
    let keys = times(times(1, longest), case.batch() * case.num_heads);
    let products = times(1, case.work()).max(times(keys, case.head_dim + case.head_dim_v));
    let threads = launches.iter().map(|l| l.block.iter().product::<u32>()).max().unwrap_or(1);
    let switches = times(keys, threads as usize).saturating_mul(WAITS);
    let alone = products.saturating_mul(PRODUCT_NS).saturating_mul(slowdown.into());
    let waits = switches.saturating_mul(SWITCH_NS).saturating_mul(slowdown.into());
    let idle = base.saturating_add(whole_tenths(alone));
    let whole = idle.saturating_add(whole_tenths(waits));
    Limits { whole, idle: Some(idle) }
}

/// Nanoseconds in whole tenths of a second, so that a message says a round figure.
fn whole_tenths(ns: u64) -> Duration {
    Duration::from_millis(ns / 100_000_000 * 100)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Module;

    fn launch(threads: u32) -> Launch {
        Launch {
            module: Module::uncompiled(1, 64),
            entry: 0,
            grid: [1; 3],
            block: [threads, 1, 1],
            shared_bytes: 0,
            args: Vec::new(),
        }
    }

    fn case(n: usize) -> Case {
        let id = format!("b=1,hq=8,hkv=2,d=64,n={n},dt=f32,k=HND,v=HND,wave=64,data=gauss,seed=0");
        id.parse().expect("a case")
    }

    #[test]
    fn the_default_grows_with_the_case_and_a_said_one_does_not() {
        let second = Duration::from_secs(1);
        let said = TimeLimit { base: second, grows: false, hurry: None };
        let limits = said.of(&case(131_072), &[launch(128)], 1);
        assert_eq!(limits, Limits { whole: second, idle: None });

        let default = TimeLimit { grows: true, ..said };
        let limits = default.of(&case(20), &[launch(128)], 1);
        assert_eq!(limits, Limits { whole: second, idle: Some(second) }, "a small case");
        // 8 heads, 131,072 keys, 128 threads that wait 6 times a key at 50 ns: 40 s.
        let large = default.of(&case(131_072), &[launch(128)], 1);
        assert!(large.whole > Duration::from_secs(120), "{large:?}");
        assert!(
            large.idle.is_some_and(|idle| idle > second && idle < large.whole / 4),
            "{large:?}"
        );
    }

    #[test]
    fn a_hurry_grows_too_and_never_beyond_the_limit() {
        let said = TimeLimit {
            base: Duration::from_secs(10),
            grows: false,
            hurry: Some(Duration::from_secs(2)),
        };
        assert_eq!(said.of(&case(20), &[launch(64)], 1).whole, Duration::from_secs(2));
        assert_eq!(said.of(&case(131_072), &[launch(64)], 1).whole, Duration::from_secs(10));
        let default = TimeLimit { grows: true, ..said };
        let [hurried, full] = [Some(Duration::from_secs(2)), None]
            .map(|hurry| TimeLimit { hurry, ..default }.of(&case(131_072), &[launch(64)], 1).whole);
        assert_eq!(full - hurried, Duration::from_secs(8));
        assert!(hurried > Duration::from_secs(2));
    }
}
