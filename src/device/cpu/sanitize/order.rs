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
//! A fence that the writer made itself before a barrier counts, too.

use std::collections::BTreeMap;

use super::shadow::Record;

/// Times up to which others are known: of the own thread, its wave, its block.
#[derive(Clone, Copy, Default)]
struct Floors {
    own: u32,
    wave: u32,
    block: u32,
}

/// Something handed on at an atomic.
struct Release {
    thread: u16,
    wave: u16,
    /// The clock when the thread's block began.
    began: u32,
    at: Floors,
    /// What it knew at its last fence, as other blocks and as its own block see it.
    fenced: [Floors; 2],
    /// What it had taken over itself.
    inherited: Vec<Taken>,
}

/// What was handed on at location `place`, the first `count` times.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Taken {
    place: usize,
    count: usize,
}

/// The most waves of a block: 1024 threads in waves of 32.
const MAX_WAVES: usize = 32;

/// Of a fence or an atomic: for the whole device, or for the block.
const DEVICE: usize = 0;
const BLOCK: usize = 1;

/// A thread's fences and what it has taken over.
#[derive(Clone, Default)]
struct Thread {
    fenced: [Floors; 2],
    taken: Vec<Taken>,
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
    shared: Vec<Taken>,
    /// Whether any thread has taken over anything since the last barrier.
    anything: bool,
    /// Where things were handed on: by address.
    places: BTreeMap<u64, usize>,
    releases: Vec<Vec<Release>>,
    /// The last fence of each thread of each block: by when the block began.
    fences: BTreeMap<u32, Vec<[u32; 2]>>,
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
            shared: Vec::new(),
            anything: false,
            places: BTreeMap::new(),
            releases: Vec::new(),
            fences: BTreeMap::new(),
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
        self.releases.clear();
        self.fences.clear();
        self.began.clear();
    }

    /// Waves of the blocks to come have 1 << `shift` lanes.
    pub(super) fn set_wave_size(&mut self, shift: u32) {
        self.wave_shift = shift;
    }

    /// Where the last barrier's time and those of the waves stand, and the logarithm of a wave's
    /// lanes.
    pub(super) fn floors_of_waves(&self) -> (*const u32, *const u32, u32) {
        (&raw const *self.barrier, self.waves.as_ptr(), self.wave_shift)
    }

    /// Begins block number `linear`.
    pub(super) fn begin_block(&mut self, linear: u64, threads: usize) {
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
        for thread in &mut self.threads[..threads] {
            thread.fenced = [Floors::default(); 2];
            thread.taken.clear();
        }
        self.shared.clear();
        self.anything = false;
    }

    /// When the running block began.
    pub(super) fn block_began(&self) -> u32 {
        self.block
    }

    /// Which block an access belongs to, by its linear number.
    pub(super) fn block_of(&self, record: Record) -> u64 {
        let after = self.began.partition_point(|(began, _)| *began < record.time);
        self.began.get(after.saturating_sub(1)).map_or(0, |(_, linear)| *linear)
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
        r.time > self.waves[(r.thread >> self.wave_shift) as usize % MAX_WAVES]
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
            if record.thread >> self.wave_shift == thread >> self.wave_shift {
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
        if std::mem::take(&mut self.anything) {
            for thread in &mut self.threads[..threads] {
                for taken in thread.taken.drain(..) {
                    take(&mut self.shared, taken);
                }
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
            let mut all = Vec::new();
            for thread in members() {
                self.threads[thread].taken.iter().for_each(|taken| take(&mut all, *taken));
            }
            members().for_each(|thread| self.threads[thread].taken.clone_from(&all));
        }
        if whole {
            self.waves[wave] = time;
            return;
        }
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
        let floors = self.floors(thread);
        let last = self.fences.entry(self.block).or_default();
        if last.len() <= thread as usize {
            last.resize(thread as usize + 1, [0; 2]);
        }
        let scopes = if block_only { BLOCK..=BLOCK } else { DEVICE..=BLOCK };
        for scope in scopes {
            self.threads[thread as usize].fenced[scope] = floors;
            last[thread as usize][scope] = self.now;
        }
        self.now += 1;
    }

    /// An atomic at `place`: hands on where it writes, takes over where it reads.
    pub(super) fn atomic(
        &mut self,
        thread: u16,
        place: u64,
        writes: bool,
        reads: bool,
        releases: bool,
        block_only: bool,
    ) {
        let place = *self.places.entry(place).or_insert_with(|| {
            self.releases.push(Vec::new());
            self.releases.len() - 1
        });
        let count = self.releases[place].len();
        if writes {
            let at = self.floors(thread);
            let own = &self.threads[thread as usize];
            let mut fenced = own.fenced;
            if releases {
                fenced[BLOCK] = at;
                if !block_only {
                    fenced[DEVICE] = at;
                }
            }
            let mut inherited = self.shared.clone();
            own.taken.iter().for_each(|taken| take(&mut inherited, *taken));
            let wave = thread >> self.wave_shift;
            let release = Release { thread, wave, began: self.block, at, fenced, inherited };
            self.releases[place].push(release);
        }
        if reads && count > 0 {
            take(&mut self.threads[thread as usize].taken, Taken { place, count });
            self.anything = true;
        }
        self.now += 1;
    }

    fn floors(&self, thread: u16) -> Floors {
        let wave = self.waves[(thread >> self.wave_shift) as usize];
        Floors { own: self.now, wave, block: *self.barrier }
    }

    /// Whether an access was handed on to `thread` through atomics.
    #[cold]
    fn was_taken(&self, record: Record, thread: u16) -> bool {
        let mut open = self.shared.clone();
        self.threads[thread as usize].taken.iter().for_each(|taken| take(&mut open, *taken));
        let mut seen: Vec<Taken> = Vec::new();
        while let Some(Taken { place, count }) = open.pop() {
            let done = seen.iter().find(|s| s.place == place).map_or(0, |s| s.count);
            if done >= count {
                continue;
            }
            take(&mut seen, Taken { place, count });
            for release in &self.releases[place][done..count] {
                if self.covers(release, record) {
                    return true;
                }
                release.inherited.iter().for_each(|taken| take(&mut open, *taken));
            }
        }
        false
    }

    /// Whether what was handed on holds the access.
    fn covers(&self, release: &Release, record: Record) -> bool {
        if record.time <= release.began || record.time > release.at.own {
            return false;
        }
        let same_wave = record.thread >> self.wave_shift == release.wave;
        let under = |floors: &Floors| {
            record.time <= floors.block
                || (same_wave && record.time <= floors.wave)
                || (record.thread == release.thread && record.time <= floors.own)
        };
        let scope = if record.time > self.block { BLOCK } else { DEVICE };
        if under(&release.fenced[scope]) {
            return true;
        }
        let fences = self.fences.get(&release.began);
        let own = fences.and_then(|of| of.get(record.thread as usize)).map_or(0, |f| f[scope]);
        under(&release.at) && own >= record.time
    }
}

/// Adds to a set in which each place stands once, with its largest count.
fn take(set: &mut Vec<Taken>, new: Taken) {
    match set.iter_mut().find(|taken| taken.place == new.place) {
        Some(taken) => taken.count = taken.count.max(new.count),
        None => set.push(new),
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
        order.begin_block(0, 128);
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
        order.begin_block(1, 128);
        assert!(!order.is_before(last, 5) && !order.is_before(early, 1));
        assert_eq!((order.block_of(last), order.block_of(record(order.now, 0))), (0, 1));
        order.begin_launch();
        order.begin_block(0, 128);
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
            order.atomic(0, 64, true, true, false, false);
            let late = record(order.now, 0);
            order.begin_block(1, 128);
            order.atomic(0, 64, true, true, false, false);
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
        first.atomic(0, 8, true, true, false, false);
        first.begin_block(1, 128);
        first.atomic(3, 8, true, true, false, false);
        assert!(first.is_before(part, 3));

        let mut second = order();
        let part = record(second.now, 7);
        second.atomic(7, 8, true, false, true, false);
        second.atomic(9, 8, false, true, false, false);
        assert!(second.is_before(part, 9) && !second.is_before(part, 10));
        // And on to a third, through another place.
        second.atomic(9, 16, true, false, true, false);
        second.atomic(100, 16, false, true, false, false);
        assert!(second.is_before(part, 100));
    }
}
