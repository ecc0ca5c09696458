//! Seeded orders: of a launch's blocks, and of a block's threads.
//!
//! Pure functions of the seed, the launch and the block, with nothing from the machine in them.

/// Splitmix64 (Steele, Lea, Flood 2014): one multiplication chain, any seed is good.
#[derive(Clone)]
pub(super) struct Rng(u64);

impl Rng {
    /// A generator for one purpose: `parts` are mixed in one after another.
    pub(super) fn new(seed: u64, parts: [u64; 2]) -> Rng {
        let mut rng = Rng(seed);
        for part in parts {
            rng.0 = rng.next() ^ part.wrapping_mul(0xd6e8_feb8_6659_fd93);
        }
        rng
    }

    #[inline]
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// Permutes at most 1024 items (Fisher and Yates); four draws come from one number, whose
    /// bias of at most 1024 / 65536 does not matter here.
    #[inline]
    pub(super) fn shuffle(&mut self, items: &mut [u16]) {
        let (mut bits, mut draws) = (0, 0);
        for last in (1..items.len()).rev() {
            if draws == 0 {
                (bits, draws) = (self.next(), 4);
            }
            let pick = ((bits & 0xffff) * (last as u64 + 1)) >> 16;
            bits >>= 16;
            draws -= 1;
            items.swap(last, pick as usize);
        }
    }
}

/// Visits `0..count` once each: steps of a length that has no factor in common with `count`.
pub(super) struct Visit {
    count: u64,
    step: u64,
    at: u64,
    left: u64,
}

impl Visit {
    pub(super) fn new(count: u64, rng: &mut Rng) -> Visit {
        let mut step = 1;
        if count > 2 {
            loop {
                step = 1 + rng.next() % (count - 1);
                if gcd(step, count) == 1 {
                    break;
                }
            }
        }
        Visit { count, step, at: rng.next() % count.max(1), left: count }
    }
}

impl Iterator for Visit {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        self.left = self.left.checked_sub(1)?;
        self.at += self.step;
        if self.at >= self.count {
            self.at -= self.count;
        }
        Some(self.at)
    }
}

fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn a_visit_meets_each_block_once_and_seeds_differ() {
        for count in (1..40).chain([1000, 65536]) {
            let orders: HashSet<Vec<u64>> = (0..20)
                .map(|seed| Visit::new(count, &mut Rng::new(seed, [0, 0])).collect())
                .collect();
            for order in &orders {
                assert_eq!(order.iter().collect::<HashSet<_>>().len() as u64, count);
                assert!(order.iter().all(|&block| block < count));
            }
            assert!(count == 1 || orders.len() > 1, "{count} blocks have one order only");
        }
    }

    /// Each item comes to each place about equally often: 20 000 shuffles of 7, 5 sigma.
    #[test]
    fn shuffles_are_even() {
        let mut rng = Rng::new(1, [2, 3]);
        let mut seen = [[0i32; 7]; 7];
        for _ in 0..20_000 {
            let mut items = [0, 1, 2, 3, 4, 5, 6];
            rng.shuffle(&mut items);
            items.iter().enumerate().for_each(|(at, &item)| seen[at][item as usize] += 1);
        }
        assert!(seen.as_flattened().iter().all(|n| (n - 2857).abs() < 250), "{seen:?}");
    }

    /// Orders are part of a saved case: a change here makes old cases replay differently.
    #[test]
    fn orders_stay_what_they_are() {
        let mut items = [0, 1, 2, 3, 4, 5, 6, 7];
        Rng::new(42, [1, 2]).shuffle(&mut items);
        let visit: Vec<u64> = Visit::new(8, &mut Rng::new(42, [1, 2])).collect();
        assert_eq!((items, visit), ([7, 0, 4, 3, 1, 5, 2, 6], vec![4, 5, 6, 7, 0, 1, 2, 3]));
    }
}
