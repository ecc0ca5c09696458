//! The checker: follows every access of an instrumented kernel, in the worker's process.
//!
//! The checked build of a kernel (`compile`) calls the functions of [`CHECKS`] before each access,
//! atomic, fence and wait. An access is first placed: in the arena, in shared memory, on a stack, in
//! the module's own data, or nowhere. For the arena the *access map* says of each byte whether the
//! case may read or write it, whether it holds a value yet, and which sequence owns it; for shared
//! memory the same is made from the module's symbols. What may be written is watched for races
//! ([`shadow`], [`order`]). Inputs are not: nobody may write them.
//!
//! Nothing here depends on addresses of this machine: the same seed finds the same.

mod memory;
pub(super) mod order;
pub(super) mod resolve;
mod shadow;
mod undefined;
pub(super) mod wire;

use std::collections::BTreeMap;
use std::io;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering::Relaxed};

use super::super::finding::{Class, Kind, RaceModel, Severity};
use super::module::{Attached, Loaded};
use super::order::Rng;
use super::protocol::WireFault;
use super::sched;
use super::wave::lanes;
pub(super) use memory::Plain;
use memory::{Memory, Unsettled};
use order::Order;
use shadow::Record;
use wire::{Checks, WireFinding, WireOther, WireStanding, WireTarget};

/// The functions that an instrumented module calls; the same struct as in `device.h`.
#[repr(C)]
pub(super) struct Callbacks {
    access: extern "C" fn(usize, u32, usize),
    range: extern "C" fn(usize, u64, u32, usize),
    atomic: extern "C" fn(usize, u32, usize),
    fence: extern "C" fn(u32, usize),
    at: extern "C" fn(u32, usize),
    undefined: unsafe extern "C" fn(u32, *const u8, u64, u64, usize),
}

/// The table of the checked variant.
pub(super) static CHECKS: Callbacks = Callbacks { access, range, atomic, fence, at, undefined };

/// Bits of what an access is, as in `device.h`; the low byte is its bytes.
const WRITE: u32 = 1 << 8;
const VOLATILE: u32 = 1 << 9;
const ATOMIC: u32 = 1 << 10;
const RELEASE: u32 = 1 << 11;
const BLOCK: u32 = 1 << 12;
const UPDATE: u32 = 1 << 13;

/// Different findings that one run tells of; more are counted only.
const MOST_FINDINGS: usize = 64;

/// On average a thread gives way after so many accesses that others could see.
const PREEMPT: u64 = 48;

/// A launch about to be checked.
pub(super) struct Begin<'a> {
    pub(super) index: u32,
    pub(super) module: &'a Loaded,
    pub(super) attached: &'a Attached,
    pub(super) shared_bytes: usize,
    pub(super) grid: [u32; 3],
    pub(super) threads: usize,
    pub(super) wave_size: usize,
}

/// Everything that is known of the run under way.
pub(super) struct Sanitizer {
    checks: Checks,
    memory: Memory,
    order: Order,
    launch: u32,
    grid: [u32; 3],
    block: [u32; 3],
    threads: usize,
    wave_shift: u32,
    /// Where the module lies: findings count program counters from its start.
    base: usize,
    /// Barrier number and program counter where each thread waits, waited or was last seen.
    sites: Vec<(u32, usize)>,
    returned: Vec<bool>,
    rng: Rng,
    /// Accesses until the running thread gives way.
    patience: u64,
    /// It does so before its next access: a write is made before others run.
    due: bool,
    found: Vec<WireFinding>,
    /// A write that nothing orders, which has been told of and not yet been made; and what to report of
    /// it, with the other side's place.
    unsettled: Option<(Unsettled, Vec<(WireFinding, u64)>)>,
    known: BTreeMap<(u8, u64, u64), usize>,
}

static SANITIZER: AtomicPtr<Sanitizer> = AtomicPtr::new(ptr::null_mut());
static LOCKSTEP: AtomicBool = AtomicBool::new(false);
/// Set by the timer: the run's time is up.
static EXPIRED: AtomicBool = AtomicBool::new(false);
/// Where the kernel was when its time was up, from the module's start.
static EXPIRED_AT: AtomicUsize = AtomicUsize::new(0);

/// The sanitizer of the run under way, where it is a checked one.
///
/// # Safety
/// The reference is gone before the next switch of fibers.
#[inline]
pub(super) unsafe fn active<'a>() -> Option<&'a mut Sanitizer> {
    // SAFETY: `Guard` sets the pointer to a sanitizer that outlives the run; the worker has one
    // thread, and by the caller's promise no other reference is in use.
    unsafe { SANITIZER.load(Relaxed).as_mut() }
}

/// The sanitizer of the run under way, where it looks for anything: in lockstep it may only lead the lanes.
///
/// # Safety
/// As [`active`].
pub(super) unsafe fn looking<'a>() -> Option<&'a mut Sanitizer> {
    // SAFETY: by the caller's promise.
    unsafe { active() }.filter(|sanitizer| sanitizer.checks.any())
}

/// Whether lanes advance together in the run under way.
#[inline]
pub(super) fn is_lockstep() -> bool {
    LOCKSTEP.load(Relaxed)
}

/// A sanitizer at work, until dropped.
pub(super) struct Guard;

impl Drop for Guard {
    fn drop(&mut self) {
        SANITIZER.store(ptr::null_mut(), Relaxed);
        LOCKSTEP.store(false, Relaxed);
    }
}

/// What the running thread does after a check.
enum Next {
    GoOn,
    GiveWay,
    Stop,
}

impl Sanitizer {
    pub(super) fn new() -> Sanitizer {
        Sanitizer {
            checks: Checks::new(&[], RaceModel::Sync),
            memory: Memory::none(),
            order: Order::new(),
            launch: 0,
            grid: [1; 3],
            block: [0; 3],
            threads: 0,
            wave_shift: 6,
            base: 0,
            sites: Vec::new(),
            returned: Vec::new(),
            rng: Rng::new(0, [0, 0]),
            patience: PREEMPT,
            due: false,
            found: Vec::new(),
            unsettled: None,
            known: BTreeMap::new(),
        }
    }

    /// The arena and its access map have been mapped anew; `stacks` are first address, end, stride.
    pub(super) fn set_arena(
        &mut self,
        arena: (*mut u8, usize),
        map: *mut u8,
        stacks: (usize, usize, usize),
    ) -> io::Result<()> {
        self.memory = Memory::new(arena, map, stacks)?;
        Ok(())
    }

    /// Of the arena so many bytes are the run's.
    pub(super) fn open_arena(&mut self, bytes: usize) {
        self.memory.open_arena(bytes);
    }

    /// Begins a run: what it finds is asked for with [`Sanitizer::take`].
    pub(super) fn begin_run(&mut self, checks: Checks) -> Guard {
        self.checks = checks;
        self.found.clear();
        self.unsettled = None;
        self.known.clear();
        EXPIRED.store(false, Relaxed);
        EXPIRED_AT.store(0, Relaxed);
        LOCKSTEP.store(checks.model == RaceModel::Lockstep, Relaxed);
        // With nothing to check and no steps to make the calls come back at once.
        let works = checks.any() || is_lockstep();
        SANITIZER.store(if works { self } else { ptr::null_mut() }, Relaxed);
        Guard
    }

    /// What the run found, in order of discovery.
    pub(super) fn take(&mut self) -> Vec<WireFinding> {
        self.settle();
        std::mem::take(&mut self.found)
    }

    pub(super) fn begin_launch(&mut self, begin: &Begin<'_>) -> io::Result<()> {
        if self.order.is_worn() {
            self.order = Order::new();
            self.memory.forget()?;
        }
        self.order.begin_launch();
        self.launch = begin.index;
        self.grid = begin.grid;
        self.threads = begin.threads;
        self.wave_shift = begin.wave_size.trailing_zeros();
        let extent = begin.module.extent();
        self.base = extent.start;
        let segment = begin.module.shared_segment(begin.attached);
        let shims = begin.module.attach_checker(self.memory.plain());
        let arrays = begin.module.arrays();
        self.order.set_wave_size(self.wave_shift);
        let (places, with) = ((extent, shims), (&self.order, self.checks));
        self.memory.begin_launch(arrays, segment, begin.shared_bytes, places, with)
    }

    /// The write that was about to be made has been: one that stored what was there is no fault.
    #[inline]
    fn settle(&mut self) {
        if self.unsettled.is_some() {
            self.settle_write();
        }
    }

    fn settle_write(&mut self) {
        let Some((write, findings)) = self.unsettled.take() else { return };
        let silent = self.memory.was_silent(&write);
        for (mut finding, other_pc) in findings {
            if silent {
                finding.severity = Severity::Note;
            }
            self.report(finding, other_pc);
        }
    }

    pub(super) fn begin_block(&mut self, block: [u32; 3], linear: u64, rng: Rng) {
        self.block = block;
        self.order.begin_block(linear, self.threads, |place| place >= memory::SHARED_PLACE);
        self.memory.begin_block();
        self.sites.clear();
        self.sites.resize(self.threads, (0, self.base));
        self.returned.clear();
        self.returned.resize(self.threads, false);
        self.rng = rng;
        self.patience = 1 + self.rng.next() % (2 * PREEMPT);
        self.due = false;
    }

    /// The block has ended: what can be told only of a whole block.
    pub(super) fn end_block(&mut self) {
        self.settle();
        if !self.checks.has(Class::Memory) {
            return;
        }
        if let Some((owner, wrote, seen)) = self.memory.foreign_rows() {
            let detail = format!("the block writes the output of sequence {wrote} only");
            let mut finding = self.finding(Kind::OtherSequence, seen.thread.into(), seen.pc);
            finding.access = Some(seen.access);
            finding.target = Some(WireTarget::Arena(seen.offset as i64));
            finding.detail = format!("it belongs to sequence {owner}, and {detail}");
            self.report(finding, 0);
        }
    }

    pub(super) fn retired(&mut self, thread: usize) {
        self.returned[thread] = true;
    }

    /// All threads that have not returned stand at a barrier, and pass it.
    pub(super) fn barrier_passed(&mut self) {
        let live = || (0..self.threads).filter(|&t| !self.returned[t]);
        let first = live().next().map_or((0, 0), |t| self.sites[t]);
        if self.checks.has(Class::Barrier) {
            let numbers = live().any(|t| self.sites[t].0 != first.0);
            // One barrier of the source, in a function that two branches call?
            let two = live().any(|t| self.sites[t] != first);
            let part = self.returned.contains(&true);
            if two || part {
                let standing = self.standing(|_| Some("wait at a barrier"));
                let kind = if part && !numbers { Kind::PartOfBlock } else { Kind::TwoBarriers };
                // Of two barriers, a thread of the smaller group; the other group is the rest.
                let waiting = standing.iter().filter(|s| s.pc.is_some());
                let odd = waiting.min_by_key(|s| (s.threads.len(), s.threads[0]));
                let (thread, pc) = odd.map_or((0, 0), |s| (s.threads[0], s.pc.unwrap_or(0)));
                let mut finding = self.finding(kind, thread, pc as usize + self.base);
                finding.detail = match kind {
                    Kind::TwoBarriers => "the block's threads wait at different barriers".into(),
                    _ => "a part of the block never reaches the barrier".into(),
                };
                finding.standing = standing;
                finding.if_lines_differ = kind == Kind::TwoBarriers && !numbers;
                self.report(finding, 0);
            }
        }
        self.order.barrier(self.threads);
    }

    /// The threads of the block, by what they do and where; those that have returned last.
    fn standing(&self, what: impl Fn(usize) -> Option<&'static str>) -> Vec<WireStanding> {
        let mut groups: BTreeMap<(usize, u32, &str), Vec<u32>> = BTreeMap::new();
        for thread in 0..self.threads {
            let (number, pc) = self.sites[thread];
            let key = match what(thread) {
                _ if self.returned[thread] => (usize::MAX, 1, "have returned"),
                None if pc == self.base => (usize::MAX, 0, "have not begun"),
                Some(what) => (pc, number, what),
                None => (pc, 0, "can run, and were last"),
            };
            groups.entry(key).or_default().push(thread as u32);
        }
        let standing = |((pc, _, what), threads): ((usize, u32, &str), Vec<u32>)| WireStanding {
            threads,
            what: what.to_owned(),
            pc: (pc != usize::MAX).then(|| (pc - self.base) as u64),
        };
        groups.into_iter().map(standing).collect()
    }

    /// Lanes of a wave have met in a shuffle or a vote: it must be the same one.
    pub(super) fn met(&mut self, wave: usize, group: u64) {
        let first = wave << self.wave_shift;
        let mut members = lanes(group).map(|lane| first + lane);
        let Some(one) = members.next() else { return };
        let pc = self.sites[one].1;
        let Some(other) = members.find(|t| self.sites[*t].1 != pc) else { return };
        if !self.checks.has(Class::Barrier) {
            return;
        }
        let in_group = |t: u32| group >> (t as usize - first) & 1 == 1;
        let standing =
            self.standing(|_| Some("are at it")).into_iter().filter_map(|mut standing| {
                standing.threads.retain(|t| {
                    (first..first + (1 << self.wave_shift)).contains(&(*t as usize)) && in_group(*t)
                });
                (!standing.threads.is_empty()).then_some(standing)
            });
        let standing = standing.collect();
        let mut finding = self.finding(Kind::PartOfWave, one as u32, pc);
        finding.detail = "lanes of the wave exchange values at different places".into();
        finding.standing = standing;
        finding.if_lines_differ = true;
        let other_pc = (self.sites[other].1 - self.base) as u64;
        self.report(finding, other_pc);
    }

    /// Lanes of a wave have had their exchange; `live` are those that have not returned.
    pub(super) fn exchanged(&mut self, wave: usize, group: u64, live: u64) {
        self.order.exchange(wave, group, live & !group == 0);
    }

    /// A lane of a wave was given its own value, since the lane that it asked takes no part.
    pub(super) fn absent(&mut self, wave: usize, lane: usize, source: usize) {
        let first = wave << self.wave_shift;
        let (thread, other) = (first + lane, first + source);
        let (kind, class, why) = match self.returned.get(other) {
            None => (Kind::AbsentLane, Class::Init, "which the block does not have"),
            Some(true) => (Kind::PartOfWave, Class::Barrier, "which has returned"),
            Some(false) => (Kind::PartOfWave, Class::Barrier, "which takes no part in it"),
        };
        if !self.checks.has(class) {
            return;
        }
        let mut finding = self.finding(kind, thread as u32, self.sites[thread].1);
        finding.detail = format!("it takes the value of lane {source}, {why}");
        self.report(finding, 0);
    }

    /// Nobody can run; `what` each thread waits for. What it means becomes a finding.
    pub(super) fn deadlock(&mut self, what: impl Fn(usize) -> Option<&'static str>, text: &str) {
        let in_wave = |t: &usize| what(*t).is_some_and(|what| what != sched::AT_BARRIER);
        let live = || (0..self.threads).filter(|&t| !self.returned[t]);
        let thread = live().find(in_wave).or_else(|| live().next()).unwrap_or(0);
        let kind = if live().any(|t| in_wave(&t)) { Kind::PartOfWave } else { Kind::Deadlock };
        let standing = self.standing(&what);
        let mut finding = self.finding(kind, thread as u32, self.sites[thread].1);
        finding.detail = text.to_owned();
        finding.standing = standing;
        if self.checks.has(Class::Barrier) {
            self.report(finding, 0);
        }
    }

    /// The running thread takes part in a wave operation with a mask that leaves it out.
    pub(super) fn wrong_mask(&mut self, thread: usize, text: &str) {
        if self.checks.has(Class::Barrier) {
            let mut finding = self.finding(Kind::PartOfWave, thread as u32, self.sites[thread].1);
            finding.detail = text.to_owned();
            self.report(finding, 0);
        }
    }

    /// The run's time is up while `thread` runs; `what` the others wait for.
    fn endless(&mut self, thread: usize, what: impl Fn(usize) -> Option<&'static str>) {
        let at = EXPIRED_AT.load(Relaxed);
        if at != 0 {
            self.sites[thread].1 = at;
        }
        let standing = self.standing(|t| if t == thread { Some("runs") } else { what(t) });
        let mut finding = self.finding(Kind::Endless, thread as u32, self.sites[thread].1);
        finding.detail =
            "the time limit passed while it ran (blocks run one after another here: one \
                          that waits for a block yet to come waits for ever)"
                .into();
        finding.standing = standing;
        self.report(finding, 0);
    }

    /// A thread is about to run.
    #[inline]
    pub(super) fn turn(&mut self, thread: usize) {
        self.due = false;
        self.settle();
        self.memory.turn(thread);
    }

    /// Where a lane is, for the scheduler of the lockstep model.
    pub(super) fn pc(&self, thread: usize) -> usize {
        self.sites[thread].1
    }

    /// The lanes of a wave have each made one access.
    pub(super) fn stepped(&mut self, wave: usize) {
        self.order.step(wave);
    }

    /// A finding about `thread` of the running block, with its other fields empty.
    fn finding(&self, kind: Kind, thread: u32, pc: usize) -> WireFinding {
        WireFinding {
            kind,
            severity: Severity::Fault,
            launch: self.launch,
            block: self.block,
            thread,
            pc: pc.wrapping_sub(self.base) as u64,
            line: None,
            access: None,
            target: None,
            other: None,
            standing: Vec::new(),
            if_lines_differ: false,
            detail: String::new(),
            count: 1,
        }
    }

    /// Keeps a finding, or counts it where its like is known: of the same kind, at the same place.
    fn report(&mut self, finding: WireFinding, other_pc: u64) {
        let key = (finding.kind as u8, finding.pc, other_pc);
        if let Some(&known) = self.known.get(&key) {
            let count = self.found[known].count + 1;
            // Where it was a fault once, it is one.
            if finding.severity < self.found[known].severity {
                self.found[known] = finding;
            }
            self.found[known].count = count;
        } else if self.found.len() < MOST_FINDINGS {
            self.known.insert(key, self.found.len());
            self.found.push(finding);
        }
    }

    /// Checks an access where that is done at a glance.
    #[inline]
    fn glance(&mut self, address: usize, bytes: usize, what: u32, pc: usize) -> bool {
        // Where the thread must give way, or a volatile access may be an atomic, it takes longer.
        if self.patience == 1
            || self.due
            || self.unsettled.is_some()
            || what & VOLATILE != 0
            || is_lockstep()
        {
            return false;
        }
        let thread = sched::current() as u16;
        let asked = memory::Asked { address, bytes, what, thread, pc };
        let race = self.checks.has(Class::Race);
        let done = self.memory.glance(&asked, race, &self.order, self.base);
        self.patience -= u64::from(done);
        done
    }

    /// Checks an access of the running thread.
    fn touch(&mut self, address: usize, bytes: usize, what: u32, pc: usize) -> Next {
        let thread = sched::current();
        self.sites[thread].1 = pc;
        if !self.checks.any() {
            return Next::GoOn;
        }
        self.settle();
        let access = memory::Asked { address, bytes, what, thread: thread as u16, pc };
        let outcome = self.memory.check(&access, self.checks, &self.order, self.base);
        let watched = outcome.watched;
        let stop = outcome.stop;
        let is_race = |found: &memory::Found| {
            matches!(found.kind, Kind::WriteWrite | Kind::WriteRead)
                && !found.other.is_some_and(Record::is_atomic)
        };
        let mut unsettled = match outcome.found.iter().any(is_race) {
            true => self.memory.unsettled(&access, &self.order, self.base),
            false => None,
        };
        let mut later = Vec::new();
        for found in outcome.found {
            let waits = unsettled.is_some() && is_race(&found);
            let mut finding = self.finding(found.kind, thread as u32, pc);
            finding.access = Some(access.kind());
            finding.target = Some(found.target);
            finding.detail = found.detail;
            let mut other_pc = 0;
            if let Some(record) = found.other {
                let linear = self.order.block_of(record);
                let [x, y, _] = self.grid.map(u64::from);
                other_pc = record.pc.into();
                finding.other = Some(WireOther {
                    block: [linear % x, linear / x % y, linear / x / y].map(|c| c as u32),
                    thread: record.thread.into(),
                    pc: record.pc.into(),
                    access: memory::kind_of(record, found.other_writes),
                });
            }
            match waits {
                true => later.push((finding, other_pc)),
                false => self.report(finding, other_pc),
            }
        }
        if let Some(write) = unsettled.take() {
            // It is made before any other thread runs.
            self.unsettled = Some((write, later));
            return Next::GoOn;
        }
        match (stop, watched) {
            (true, _) => Next::Stop,
            (false, true) => self.grow_impatient(what & WRITE != 0),
            (false, false) => Next::GoOn,
        }
    }

    /// The running thread hands on and takes over at an address, by an atomic.
    fn meet(&mut self, address: usize, what: u32) {
        if !self.checks.any() {
            return;
        }
        let (thread, place) = (sched::current() as u16, self.memory.place(address));
        let [writes, releases, block_only] = [WRITE, RELEASE, BLOCK].map(|bit| what & bit != 0);
        self.order.atomic(thread, place, writes, releases, block_only);
    }

    fn grow_impatient(&mut self, writes: bool) -> Next {
        self.patience -= 1;
        if self.patience > 0 {
            return Next::GoOn;
        }
        self.patience = 1 + self.rng.next() % (2 * PREEMPT);
        if writes {
            self.due = true;
            return Next::GoOn;
        }
        Next::GiveWay
    }
}

/// Does what a check came to. No reference to the sanitizer is alive.
#[inline]
fn follow(next: Next) {
    match next {
        Next::GoOn => {}
        // In lockstep a thread has given way before the access already.
        Next::GiveWay if is_lockstep() => {}
        Next::GiveWay => sched::give_way(),
        Next::Stop => sched::leave(WireFault::Found),
    }
}

/// What the module itself has not let pass: see [`memory::Plain`].
extern "C" fn access(address: usize, what: u32, pc: usize) {
    let bytes = (what & 0xff) as usize;
    // SAFETY: the reference ends with the statement.
    let done = unsafe { active() }.is_none_or(|s| s.glance(address, bytes, what, pc));
    if !done {
        check(address, bytes, what, pc);
    }
}

/// The slower part of an access.
fn check(address: usize, bytes: usize, what: u32, pc: usize) {
    if EXPIRED.load(Relaxed) {
        out_of_time();
    }
    // SAFETY: each reference ends with its statement.
    unsafe {
        if is_lockstep() && active().is_some_and(|s| s.memory.is_shared_out(address)) {
            if let Some(s) = active() {
                let thread = sched::current();
                s.sites[thread].1 = pc;
            }
            sched::give_way();
        }
        if active().is_some_and(|s| std::mem::take(&mut s.due)) {
            follow(Next::GiveWay);
        }
        let next = active().map_or(Next::GoOn, |s| {
            let next = s.touch(address, bytes, what, pc);
            // Of global memory a volatile access orders like a relaxed atomic.
            if what & VOLATILE != 0 && s.memory.is_global(address) {
                s.meet(address, what);
            }
            next
        });
        follow(next);
    }
}

extern "C" fn range(address: usize, bytes: u64, what: u32, pc: usize) {
    if bytes > 0 {
        check(address, bytes as usize, what, pc);
    }
}

extern "C" fn atomic(address: usize, what: u32, pc: usize) {
    check(address, (what & 0xff) as usize, what | ATOMIC, pc);
    // SAFETY: the reference ends with the block.
    unsafe {
        if let Some(s) = active() {
            s.meet(address, what);
        }
    }
}

extern "C" fn fence(scope: u32, _pc: usize) {
    // SAFETY: the reference ends with the block.
    unsafe {
        if let Some(s) = active() {
            s.order.fence(sched::current() as u16, scope & BLOCK != 0);
        }
    }
}

extern "C" fn at(number: u32, pc: usize) {
    if EXPIRED.load(Relaxed) {
        out_of_time();
    }
    // SAFETY: the reference ends with the block.
    unsafe {
        if let Some(s) = active() {
            s.sites[sched::current()] = (number, pc);
        }
    }
}

unsafe extern "C" fn undefined(number: u32, data: *const u8, a: u64, b: u64, pc: usize) {
    // SAFETY: the module passes what the compiler gave it.
    let Some(read) = (unsafe { undefined::read(number, data, a, b) }) else { return };
    // SAFETY: the reference ends with the block.
    let next = unsafe {
        let Some(s) = active() else { return };
        let thread = sched::current();
        s.sites[thread].1 = pc;
        if s.checks.has(read.kind.class()) {
            let mut finding = s.finding(read.kind, thread as u32, pc);
            finding.line = read.line;
            finding.detail = read.detail;
            if let Some((address, align)) = read.address {
                finding.target = Some(s.memory.target(address));
                finding.detail += &format!("; it lies {} past one", address % align);
            }
            s.report(finding, 0);
        }
        if read.ends && s.checks.any() { Next::Stop } else { Next::GoOn }
    };
    follow(next);
}

/// The time limit has passed, and a kernel runs at the module's byte `at`. Called by the timer's
/// handler, which may not do more; true if the handler shall make the kernel call [`out_of_time`].
pub(super) fn expire(pc: usize) -> bool {
    EXPIRED.store(true, Relaxed);
    // SAFETY: the handler interrupts this thread: the pointer is valid, and only plain fields are
    // read.
    let sanitizer = unsafe { SANITIZER.load(Relaxed).as_ref() };
    let inside = sanitizer.is_some_and(|s| s.memory.is_code(pc));
    if inside {
        EXPIRED_AT.store(pc + 1, Relaxed);
    }
    inside
}

/// Ends the run: its time is up. Does not come back.
pub(super) extern "C" fn out_of_time() {
    // SAFETY: the references end with the block.
    unsafe {
        if let Some(s) = active() {
            let waits = sched::waiting();
            s.endless(sched::current(), |t| waits[t]);
        }
    }
    sched::leave(WireFault::Found);
}
