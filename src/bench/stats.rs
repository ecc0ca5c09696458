//! Figures of repeated times.

use serde::{Deserialize, Serialize};

/// Times of a call in microseconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Times {
    /// The middle of the rounds' medians.
    pub median: f64,
    /// The 5th percentile of all replays.
    pub p5: f64,
    /// The 95th.
    pub p95: f64,
    /// Replays.
    pub samples: usize,
    /// The median of each round.
    pub rounds: Vec<f64>,
}

impl Times {
    /// The figures of rounds of replays; `None` where there is none.
    pub fn of(rounds: &[Vec<f64>]) -> Option<Times> {
        let mut all: Vec<f64> = rounds.iter().flatten().copied().collect();
        all.sort_by(f64::total_cmp);
        let medians: Vec<f64> = rounds.iter().filter_map(|round| middle(round)).collect();
        Some(Times {
            median: middle(&medians)?,
            p5: quantile(&all, 0.05)?,
            p95: quantile(&all, 0.95)?,
            samples: all.len(),
            rounds: medians,
        })
    }

    /// Where the median of another round may well lie: between the least and the largest of those there
    /// are; of a single one, between its percentiles.
    pub fn interval(&self) -> (f64, f64) {
        if self.rounds.len() < 2 {
            return (self.p5, self.p95);
        }
        let least = self.rounds.iter().copied().fold(f64::INFINITY, f64::min);
        (least, self.rounds.iter().copied().fold(0.0, f64::max))
    }
}

/// The median.
pub fn middle(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    quantile(&sorted, 0.5)
}

/// A quantile of sorted values, interpolated linearly (Hyndman and Fan, 1996, type 7).
pub fn quantile(sorted: &[f64], q: f64) -> Option<f64> {
    let at = q * (sorted.len().checked_sub(1)?) as f64;
    let (low, part) = (at.floor() as usize, at.fract());
    let high = (low + 1).min(sorted.len() - 1);
    Some(sorted[low] + part * (sorted[high] - sorted[low]))
}

/// The geometric mean; `None` of nothing.
pub fn geometric_mean(values: &[f64]) -> Option<f64> {
    let sum: f64 = values.iter().map(|x| libm::log(*x)).sum();
    (!values.is_empty()).then(|| libm::exp(sum / values.len() as f64))
}

/// What one measurement says beside an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// All of the new interval lies below the old one, and the medians differ by more than the tolerance.
    Faster,
    /// The other way round.
    Slower,
    /// The medians differ by no more than the tolerance, and the intervals by no more than twice that.
    Same,
    /// None of these: measure again, or longer.
    Unclear,
}

impl Change {
    /// Its word.
    pub fn name(self) -> &'static str {
        match self {
            Change::Faster => "faster",
            Change::Slower => "slower",
            Change::Same => "same",
            Change::Unclear => "unclear",
        }
    }
}

/// The ratio of new to old, the interval that it lies in, and what that says.
pub fn change(new: &Times, old: &Times, tolerance: f64) -> (f64, (f64, f64), Change) {
    let ratio = new.median / old.median;
    let ((new_low, new_high), (old_low, old_high)) = (new.interval(), old.interval());
    let (low, high) = (new_low / old_high, new_high / old_low);
    let change = if high < 1.0 && ratio < 1.0 - tolerance {
        Change::Faster
    } else if low > 1.0 && ratio > 1.0 + tolerance {
        Change::Slower
    } else if (ratio - 1.0).abs() <= tolerance
        && low >= 1.0 - 2.0 * tolerance
        && high <= 1.0 + 2.0 * tolerance
    {
        Change::Same
    } else {
        Change::Unclear
    };
    (ratio, (low, high), change)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(rounds: &[f64]) -> Times {
        Times::of(&rounds.iter().map(|x| vec![0.99 * x, *x, 1.01 * x]).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn figures_by_hand() {
        let t = Times::of(&[vec![3.0, 1.0, 2.0], vec![5.0, 4.0, 6.0], vec![2.0]]).unwrap();
        assert_eq!(t.rounds, [2.0, 5.0, 2.0]);
        assert_eq!((t.median, t.samples), (2.0, 7));
        // Sorted 1 2 2 3 4 5 6: 0.05 * 6 = 0.3 of the way from 1 to 2.
        assert!((t.p5 - 1.3).abs() < 1e-12 && (t.p95 - 5.7).abs() < 1e-12, "{t:?}");
        assert_eq!(t.interval(), (2.0, 5.0));
        assert_eq!(Times::of(&[]), None);
        assert!((geometric_mean(&[2.0, 8.0]).unwrap() - 4.0).abs() < 1e-12);
    }

    #[test]
    fn what_two_measurements_say() {
        let old = times(&[100.0, 100.4, 99.7, 100.1, 100.2]);
        for (new, want) in [
            ([100.3, 100.5, 100.1, 100.0, 100.6], Change::Same),
            ([103.0, 103.3, 102.7, 103.1, 103.2], Change::Slower),
            ([97.0, 97.3, 96.7, 97.1, 97.2], Change::Faster),
            // Slower by more than the tolerance, but a round was as fast.
            ([103.0, 103.3, 100.0, 103.1, 103.2], Change::Unclear),
            // The same by its median, and anything by its rounds.
            ([100.0, 107.0, 99.0, 100.2, 100.1], Change::Unclear),
        ] {
            assert_eq!(change(&times(&new), &old, 0.02).2, want, "{new:?}");
        }
    }
}
