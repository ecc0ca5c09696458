//! What comes before what: barriers, wave operations, and atomics with fences.
//!
//! There is one clock. It advances whenever something is ordered: a barrier, an exchange in a wave,
//! an atomic that may hand something on. An access is stamped with the clock. Whether it comes
//! before the running thread then needs no vector of clocks: it does if a barrier of the block was
//! passed since its time, or an exchange of the whole wave, or one of some lanes that both took
//! part in (`lanes`, made when the first such exchange is). Blocks run one after another but count
//! as simultaneous: only atomics order them.
//!
//! Atomics: a thread that has made a fence (or whose atomic releases) hands on what it knew at the
//! fence; a thread that reads the same location atomically takes over what was handed on there. As
//! in PTX and HIP a relaxed atomic without a fence hands nothing on. The reader's own fence is not
//! asked for: kernels leave it out, and `volatile` reads or the barrier that follows stand for it.
//! A fence that the writer made itself before a barrier counts, too. What is known is kept as a vector
//! of times for each block ([`Facts`]), shared between all who know the same.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::shadow::Record;

/// The most waves of a block: 1024 threads in waves of 32.
const MAX_WAVES: usize = 32;

/// Of a fence or an atomic: for the whole device, or for the block.
const DEVICE: usize = 0;
const BLOCK: usize = 1;

/// What is known of a block: times up to which its accesses come before.
#[derive(Clone, Default, PartialEq)]
struct Facts {
    /// Of all its threads.
    block: u32,
    /// Of a wave's, by its number.
    waves: Vec<u32>,
    /// Of single threads, by their numbers.
    threads: Vec<u32>,
}

impl Facts {
    fn cover(&self, r: Record, wave_shift: u32) -> bool {
        let upto = |times: &[u32], i: u16| times.get(i as usize).copied().unwrap_or(0);
        r.time <= self.block
            || r.time <= upto(&self.waves, r.thread >> wave_shift)
            || r.time <= upto(&self.threads, r.thread)
    }

    /// Whether all of the other's is known.
    fn hold(&self, other: &Facts) -> bool {
        let holds = |own: &[u32], other: &[u32]| {
            other.iter().enumerate().all(|(i, t)| *t <= own.get(i).copied().unwrap_or(0))
        };
        other.block <= self.block
            && holds(&self.waves, &other.waves)
            && holds(&self.threads, &other.threads)
    }

    /// Takes in what others know.
    fn merge(&mut self, other: &Facts) {
        self.block = self.block.max(other.block);
        for (own, other) in [(&mut self.waves, &other.waves), (&mut self.threads, &other.threads)] {
            own.resize(own.len().max(other.len()), 0);
            own.iter_mut().zip(other).for_each(|(own, other)| *own = (*own).max(*other));
        }
    }

    fn know_thread(&mut self, thread: usize, time: u32) {
        self.threads.resize(self.threads.len().max(thread + 1), 0);
        self.threads[thread] = self.threads[thread].max(time);
    }
}

/// What is known of every block, by when it began, through atomics for the device or for the block.
#[derive(Clone, Default)]
struct Known {
    blocks: BTreeMap<u32, [Rc<Facts>; 2]>,
}

impl Known {
    fn merge(&mut self, other: &Known) -> bool {
        let mut news = false;
        for (began, facts) in &other.blocks {
            news |= self.merge_block(*began, facts);
        }
        news
    }

    fn merge_block(&mut self, began: u32, facts: &[Rc<Facts>; 2]) -> bool {
        let Some(own) = self.blocks.get_mut(&began) else {
            self.blocks.insert(began, facts.clone());
            return true;
        };
        let mut news = false;
        for (own, other) in own.iter_mut().zip(facts) {
            if Rc::ptr_eq(own, other) || own.hold(other) {
                continue;
            }
            news = true;
            if other.hold(own) {
                *own = Rc::clone(other);
            } else {
                Rc::make_mut(own).merge(other);
            }
        }
        news
    }
}

/// A location through which things are handed on.
#[derive(Default)]
struct Place {
    known: Known,
    /// Counts what has been added to `known`.
    version: u32,
}

/// A thread's fences and what it has taken over.
#[derive(Clone, Default)]
struct Thread {
    /// What it knew of its own block at its last fence, for the device and for the block.
    fenced: [Rc<Facts>; 2],
    /// Of other threads, by atomics.
    taken: Known,
    /// The last version taken over from a place.
    seen: BTreeMap<u64, u32>,
}

/// The clock and all that is known of a launch.
pub(super) struct Order {
    /// The clock; 0 is before everything.
    pub(super) now: u32,
    /// When the launch and the block began: what is earlier than the launch comes before all.
    launch: u32,
    block: u32,
    /// When the block last passed a barrier. Boxed, like `waves`: instrumented code looks at them.
    barrier: Box<u32>,
    /// When each wave last had an exchange of all its lanes, or the block a barrier.
    waves: Box<[u32; MAX_WAVES]>,
    /// For a wave in which some lanes exchanged: `[lane][other lane]`, known up to.
    lanes: Vec<Option<Box<[[u32; 64]; 64]>>>,
    wave_shift: u32,
    threads: Vec<Thread>,
    /// What the whole block has taken over.
    shared: Known,
    /// Whether anything was ordered since the last barrier by other means than whole waves.
    loose: Box<u32>,
    /// Whether any thread has taken over anything since the last barrier.
    anything: bool,
    places: BTreeMap<u64, Place>,
    /// The last fence of each thread of the block, for the device and for the block; and as they were
    /// at the last barrier, which everyone knows of since.
    fences: Vec<[u32; 2]>,
    settled: [Rc<Facts>; 2],
    /// When each block of the launch began, and which one it is.
    began: Vec<(u32, u64)>,
}

impl Order {
    pub(super) fn new() -> Order {
        Order {
            now: 1,
            launch: 0,
            block: 0,
            barrier: Box::new(0),
            waves: Box::new([0; MAX_WAVES]),
            lanes: Vec::new(),
            wave_shift: 6,
            threads: Vec::new(),
            shared: Known::default(),
            loose: Box::new(0),
            anything: false,
            places: BTreeMap::new(),
            fences: Vec::new(),
            settled: Default::default(),
            began: Vec::new(),
        }
    }

    /// Whether the clock may run out in one launch more: then all stamps must be forgotten.
    pub(super) fn is_worn(&self) -> bool {
        self.now > u32::MAX / 2
    }

    /// Begins a launch: everything until now comes before it.
    pub(super) fn begin_launch(&mut self) {
        self.launch = self.now;
        self.now += 1;
        self.places.clear();
        self.began.clear();
    }

    /// Waves of the blocks to come have 1 << `shift` lanes.
    pub(super) fn set_wave_size(&mut self, shift: u32) {
        self.wave_shift = shift;
    }

    /// Where the last barrier's time and those of the waves stand, and whether there is any other
    /// order than these; and the logarithm of a wave's lanes.
    pub(super) fn floors_of_waves(&self) -> (*const u32, *const u32, *const u32, u32) {
        (&raw const *self.barrier, self.waves.as_ptr(), &raw const *self.loose, self.wave_shift)
    }

    /// Begins block number `linear`. `is_shared` tells of a place whether it is the block's own.
    pub(super) fn begin_block(
        &mut self,
        linear: u64,
        threads: usize,
        is_shared: impl Fn(u64) -> bool,
    ) {
        self.block = self.now;
        *self.barrier = self.now;
        self.waves.fill(self.now);
        self.now += 1;
        self.began.push((self.block, linear));
        let waves = threads.div_ceil(1 << self.wave_shift);
        self.lanes.resize_with(waves.max(self.lanes.len()), || None);
        if self.threads.len() < threads {
            self.threads.resize(threads, Thread::default());
        }
        if *self.loose != 0 || self.anything || !self.fences.is_empty() || !self.places.is_empty() {
            self.places.retain(|place, _| !is_shared(*place));
            self.threads.fill(Thread::default());
            self.fences.clear();
            self.settled = Default::default();
        }
        self.shared = Known::default();
        (*self.loose, self.anything) = (0, false);
    }

    /// When the running block began.
    pub(super) fn block_began(&self) -> u32 {
        self.block
    }

    /// Which block an access belongs to, by its linear number.
    pub(super) fn block_of(&self, record: Record) -> u64 {
        self.began_of(record).map_or(0, |(_, linear)| linear)
    }

    fn began_of(&self, record: Record) -> Option<(u32, u64)> {
        let after = self.began.partition_point(|(began, _)| *began < record.time);
        self.began.get(after.checked_sub(1)?).copied()
    }

    /// Whether an access comes before what `thread` does now, by a barrier or an exchange of the whole
    /// wave: a quick look that may say no where [`Order::is_before`] says yes. `GLOBAL` where the
    /// access may be another block's.
    #[inline]
    pub(super) fn is_plainly_before<const GLOBAL: bool>(&self, r: Record, thread: u16) -> bool {
        if GLOBAL && r.time <= self.block {
            return r.time <= self.launch;
        }
        // A record of another block's shared memory is earlier than any barrier of this one.
        r.time <= *self.barrier || r.thread == thread || {
            let wave = thread >> self.wave_shift;
            r.thread >> self.wave_shift == wave && r.time <= self.waves[wave as usize]
        }
    }

    /// Whether nothing has ordered an access of this block's since it was made.
    #[inline]
    pub(super) fn is_current(&self, r: Record) -> bool {
        *self.loose == 0 && r.time > self.waves[(r.thread >> self.wave_shift) as usize % MAX_WAVES]
    }

    /// Whether an access comes before what `thread` does now.
    #[inline]
    pub(super) fn is_before(&self, record: Record, thread: u16) -> bool {
        if record.time <= self.launch {
            return true;
        }
        if record.time > self.block {
            if record.thread == thread || record.time <= *self.barrier {
                return true;
            }
            let wave = (thread >> self.wave_shift) as usize;
            if self.same_wave(record.thread, thread) {
                if record.time <= self.waves[wave] {
                    return true;
                }
                if let Some(lanes) = &self.lanes[wave] {
                    let lane = |t: u16| (t & ((1 << self.wave_shift) - 1)) as usize;
                    if record.time <= lanes[lane(thread)][lane(record.thread)] {
                        return true;
                    }
                }
            }
        }
        self.was_taken(record, thread)
    }

    /// Whether two threads are lanes of one wave.
    pub(super) fn same_wave(&self, a: u16, b: u16) -> bool {
        a >> self.wave_shift == b >> self.wave_shift
    }

    /// Everyone of the block has come to a barrier.
    pub(super) fn barrier(&mut self, threads: usize) {
        *self.barrier = self.now;
        self.waves.fill(self.now);
        self.now += 1;
        *self.loose = 0;
        if !self.fences.is_empty() {
            for scope in [DEVICE, BLOCK] {
                let fences = self.fences.iter().map(|fence| fence[scope]);
                let facts = Facts { threads: fences.collect(), ..Facts::default() };
                self.settled[scope] = Rc::new(facts);
            }
        }
        if std::mem::take(&mut self.anything) {
            for thread in &mut self.threads[..threads] {
                let taken = std::mem::take(&mut thread.taken);
                self.shared.merge(&taken);
            }
        }
    }

    /// Lanes of a wave have exchanged something: `whole` if all that have not returned.
    pub(super) fn exchange(&mut self, wave: usize, group: u64, whole: bool) {
        let time = self.now;
        self.now += 1;
        let first = wave << self.wave_shift;
        let members = || super::lanes(group).map(move |lane| first + lane);
        if self.anything {
            let mut all = Known::default();
            for thread in members() {
                all.merge(&self.threads[thread].taken);
            }
            members().for_each(|thread| self.threads[thread].taken = all.clone());
        }
        if whole {
            self.waves[wave] = time;
            return;
        }
        *self.loose = 1;
        let known = self.lanes[wave].get_or_insert_with(|| Box::new([[0; 64]; 64]));
        let mut all = [0u32; 64];
        for lane in super::lanes(group) {
            for (to, from) in all.iter_mut().zip(&known[lane]) {
                *to = (*to).max(*from);
            }
        }
        super::lanes(group).for_each(|lane| all[lane] = time);
        super::lanes(group).for_each(|lane| known[lane] = all);
    }

    /// The lanes of a wave have made a step together (lockstep).
    pub(super) fn step(&mut self, wave: usize) {
        self.waves[wave] = self.now;
        self.now += 1;
    }

    /// A fence, for the whole device or for the block only.
    pub(super) fn fence(&mut self, thread: u16, block_only: bool) {
        let facts = Rc::new(self.own_facts(thread));
        let at = thread as usize;
        self.fences.resize(self.fences.len().max(at + 1), [0; 2]);
        for scope in if block_only { BLOCK..=BLOCK } else { DEVICE..=BLOCK } {
            self.threads[at].fenced[scope] = Rc::clone(&facts);
            self.fences[at][scope] = self.now;
        }
        *self.loose = 1;
        self.now += 1;
    }

    /// An atomic at `place`: hands on where it writes, takes over what was handed on.
    pub(super) fn atomic(
        &mut self,
        thread: u16,
        place: u64,
        writes: bool,
        releases: bool,
        block_only: bool,
    ) {
        let at = thread as usize;
        *self.loose = 1;
        if releases {
            let facts = Rc::new(self.own_facts(thread));
            self.threads[at].fenced[BLOCK] = Rc::clone(&facts);
            if !block_only {
                self.threads[at].fenced[DEVICE] = facts;
            }
        }
        let own = self.places.entry(place).or_default();
        let taken = own.version;
        if self.threads[at].seen.get(&place) != Some(&taken) {
            self.threads[at].taken.merge(&own.known);
            self.anything = true;
        }
        if writes {
            let own_wave = if self.fences.is_empty() { None } else { self.fences_of_wave(thread) };
            let own = self.places.entry(place).or_default();
            let thread = &self.threads[at];
            let mut news = own.known.merge_block(self.block, &thread.fenced);
            if let Some(facts) = own_wave {
                news |= own.known.merge_block(self.block, &facts);
            }
            news |= own.known.merge_block(self.block, &self.settled);
            news |= own.known.merge(&thread.taken);
            news |= own.known.merge(&self.shared);
            own.version += u32::from(news);
        }
        // What it has added itself it knows.
        let version = self.places.get(&place).map_or(0, |place| place.version);
        self.threads[at].seen.insert(place, version);
        self.now += 1;
    }

    /// The fences of the other lanes of a thread's wave that it knows of: of what each of them did
    /// before its fence.
    fn fences_of_wave(&self, thread: u16) -> Option<[Rc<Facts>; 2]> {
        let wave = (thread >> self.wave_shift) as usize;
        let first = wave << self.wave_shift;
        let own = thread as usize - first;
        let mut facts = [Facts::default(), Facts::default()];
        let mut any = false;
        for (lane, fence) in self.fences.iter().skip(first).take(1 << self.wave_shift).enumerate() {
            let by_lanes = self.lanes[wave].as_ref().map_or(0, |lanes| lanes[own][lane]);
            let known = self.waves[wave].max(by_lanes);
            for scope in [DEVICE, BLOCK] {
                if fence[scope] > self.block && fence[scope] <= known {
                    facts[scope].know_thread(first + lane, fence[scope]);
                    any = true;
                }
            }
        }
        any.then(|| facts.map(Rc::new))
    }

    /// What a thread knows of its own block.
    fn own_facts(&self, thread: u16) -> Facts {
        let wave = (thread >> self.wave_shift) as usize;
        let mut facts = Facts { block: *self.barrier, ..Facts::default() };
        facts.waves.resize(wave + 1, 0);
        facts.waves[wave] = self.waves[wave];
        if let Some(lanes) = &self.lanes[wave] {
            let own = thread as usize - (wave << self.wave_shift);
            for (lane, time) in lanes[own].iter().enumerate().take(1 << self.wave_shift) {
                if *time > self.block {
                    facts.know_thread((wave << self.wave_shift) + lane, *time);
                }
            }
        }
        facts.know_thread(thread.into(), self.now);
        facts
    }

    /// Whether an access was handed on to `thread` through atomics.
    fn was_taken(&self, record: Record, thread: u16) -> bool {
        let Some((began, _)) = self.began_of(record) else { return false };
        let scope = if record.time > self.block { BLOCK } else { DEVICE };
        [&self.shared, &self.threads[thread as usize].taken].into_iter().any(|known| {
            let facts = known.blocks.get(&began);
            facts.is_some_and(|facts| facts[scope].cover(record, self.wave_shift))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(time: u32, thread: u16) -> Record {
        Record { time, thread, how: 4, pc: 0 }
    }

    fn order() -> Order {
        let mut order = Order::new();
        order.set_wave_size(5);
        order.begin_launch();
        order.begin_block(0, 128, |_| false);
        order
    }

    #[test]
    fn a_barrier_orders_the_block_and_an_exchange_its_wave() {
        let mut order = order();
        let early = record(order.now, 1);
        assert!(order.is_before(early, 1), "a thread comes after itself");
        assert!(!order.is_before(early, 2) && !order.is_before(early, 40));
        order.exchange(0, 0xffff_ffff, true);
        assert!(order.is_before(early, 2) && !order.is_before(early, 40));
        let late = record(order.now, 1);
        assert!(!order.is_before(late, 2));
        order.barrier(128);
        assert!(order.is_before(late, 2) && order.is_before(late, 40));
        // The next block knows nothing of this one, the next launch all.
        let last = record(order.now, 5);
        order.begin_block(1, 128, |_| false);
        assert!(!order.is_before(last, 5) && !order.is_before(early, 1));
        assert_eq!((order.block_of(last), order.block_of(record(order.now, 0))), (0, 1));
        order.begin_launch();
        order.begin_block(0, 128, |_| false);
        assert!(order.is_before(last, 77));
    }

    #[test]
    fn an_exchange_of_some_lanes_orders_these_and_what_they_knew() {
        let mut order = order();
        let (a, c) = (record(order.now, 0), record(order.now, 2));
        order.exchange(0, 0b0011, false);
        assert!(order.is_before(a, 1) && !order.is_before(c, 1) && !order.is_before(a, 2));
        order.exchange(0, 0b0110, false);
        assert!(order.is_before(a, 2), "lane 1 has told lane 2 of lane 0");
        assert!(!order.is_before(c, 0) && !order.is_before(a, 3));
    }

    /// The ticket of a merge by the last block: ordered with a fence, not without.
    #[test]
    fn atomics_order_blocks_where_there_is_a_fence() {
        for (fence, scope, want) in
            [(false, false, false), (true, true, false), (true, false, true)]
        {
            let mut order = order();
            let part = record(order.now, 40);
            order.barrier(128);
            if fence {
                order.fence(0, scope);
            }
            order.atomic(0, 64, true, false, false);
            let late = record(order.now, 0);
            order.begin_block(1, 128, |_| false);
            order.atomic(0, 64, true, false, false);
            assert_eq!(order.is_before(part, 0), want, "fence {fence}, of the block {scope}");
            assert!(!order.is_before(part, 9), "the others have not been told yet");
            order.barrier(128);
            assert_eq!(order.is_before(part, 9), want);
            assert!(!order.is_before(late, 9), "what came after the ticket");
        }
    }

    #[test]
    fn a_fence_by_the_writer_before_the_barrier_counts_and_a_release_is_one() {
        let mut first = order();
        let part = record(first.now, 40);
        first.fence(40, false);
        first.barrier(128);
        first.atomic(0, 8, true, false, false);
        first.begin_block(1, 128, |_| false);
        first.atomic(3, 8, true, false, false);
        assert!(first.is_before(part, 3));

        let mut second = order();
        let part = record(second.now, 7);
        second.atomic(7, 8, true, true, false);
        second.atomic(9, 8, false, false, false);
        assert!(second.is_before(part, 9) && !second.is_before(part, 10));
        // And on to a third, through another place.
        second.atomic(9, 16, true, true, false);
        second.atomic(100, 16, false, false, false);
        assert!(second.is_before(part, 100));
    }

    /// What a lane knows by a partial exchange it hands on with its fence.
    #[test]
    fn a_partial_exchange_is_handed_on() {
        let mut order = order();
        let written = record(order.now, 3);
        order.exchange(0, 0b1001, false);
        order.fence(0, true);
        order.atomic(0, 8, true, false, false);
        order.atomic(100, 8, true, false, false);
        assert!(order.is_before(written, 100) && !order.is_before(written, 101));
    }

    /// Spinning on a location adds nothing to what is known there.
    #[test]
    fn spinning_adds_nothing() {
        let mut order = order();
        order.fence(5, false);
        order.atomic(5, 8, true, false, false);
        let version = order.places[&8].version;
        for _ in 0..100 {
            order.atomic(70, 8, true, false, false);
        }
        assert!(order.places[&8].version <= version + 1);
    }

    /// Two blocks do not meet in their own shared memory.
    #[test]
    fn shared_places_end_with_their_block() {
        let mut order = order();
        let part = record(order.now, 40);
        order.fence(40, false);
        order.atomic(40, 8, true, false, false);
        order.begin_block(1, 128, |place| place == 8);
        order.atomic(3, 8, true, false, false);
        assert!(!order.is_before(part, 3));
    }
}
