//! Runs the threads of a block, each a fiber, until all have returned.
//!
//! Threads that can run wait in two lists: `now` is emptied from its end, then `later` takes its
//! place. Both are filled in seeded random order, at the start, after each barrier and after each
//! exchange in a wave, so code that lacks a barrier meets orders in which that shows.
//!
//! The worker has one thread. Its state is reached through one static pointer, since a kernel's
//! calls arrive with nothing but their arguments.

use std::ffi::{CStr, c_char};
use std::io;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering::Relaxed};

use super::call;
use super::control::{Control, Overwritten};
use super::fiber::{self, Exit, Fiber, Stacks};
use super::module::{Attached, Entry};
use super::order::Rng;
use super::protocol::WireFault;
use super::sanitize;
use super::signals;
use super::wave::{MAX_LANES, Wave, is_exchange, lanes};

/// The most threads a block can have, as on every GPU.
pub(super) const MAX_THREADS: usize = 1024;

/// What a thread waits for that has come to a barrier.
pub(super) const AT_BARRIER: &str = "wait at __syncthreads";

/// The functions that a module calls to wait or to stop; the same struct as in `device.h`.
#[repr(C)]
pub(super) struct Calls {
    barrier: extern "C" fn(u32) -> u32,
    wave: extern "C" fn(u32, u64, u64, u32) -> u64,
    trap: unsafe extern "C" fn(*const c_char, *const c_char, u32),
    give_way: extern "C" fn(),
    overwritten: extern "C" fn(),
}

/// The table, for every variant.
pub(super) static CALLS: Calls = Calls { barrier, wave, trap, give_way, overwritten };

/// Everything that a running block needs and a kernel's calls change.
struct State {
    control: *const Control,
    attached: Attached,
    entry: Entry,
    words: *const u64,
    rng: Rng,
    /// Coordinates of each thread of the block.
    coordinates: Vec<[u32; 3]>,
    exits: Vec<Exit>,
    waves: Vec<Wave>,
    wave_size: usize,
    /// log2 of the wave size.
    wave_shift: u32,
    now: Vec<u16>,
    later: Vec<u16>,
    /// A permutation of the block's threads.
    order: Vec<u16>,
    /// In the lockstep model, for each wave: lanes that can run, and in place of `now` and `later`
    /// the lanes that have yet to make the step under way, and their wave.
    ready: Vec<u64>,
    step: (usize, u64),
    current: usize,
    turns: u64,
    threads: usize,
    live: usize,
    at_barrier: usize,
    votes: u32,
    barrier_answer: u32,
    fault: Option<WireFault>,
}

static STATE: AtomicPtr<State> = AtomicPtr::new(ptr::null_mut());

/// The state of the run under way.
///
/// # Safety
/// An [`Engine`] is alive, and the reference is gone before the next switch of fibers.
#[inline]
unsafe fn state<'a>() -> &'a mut State {
    // SAFETY: the engine leaks its state and sets the pointer; the worker has one thread, and by
    // the caller's promise no other reference is in use.
    unsafe { &mut *STATE.load(Relaxed) }
}

/// A kernel's call, as the worker has prepared it.
pub(super) struct Block {
    pub(super) entry: Entry,
    pub(super) attached: Attached,
    pub(super) block: [u32; 3],
    pub(super) wave_size: usize,
}

/// The fibers and the state that they share. One a process.
pub(super) struct Engine {
    stacks: Stacks,
    fibers: Vec<Fiber>,
    state: *mut State,
}

impl Engine {
    pub(super) fn new(control: *const Control) -> io::Result<Engine> {
        let stacks = Stacks::reserve(MAX_THREADS)?;
        let attached = Attached::none();
        let state = Box::leak(Box::new(State {
            control,
            attached,
            entry: no_entry,
            words: ptr::null(),
            rng: Rng::new(0, [0, 0]),
            coordinates: Vec::new(),
            exits: vec![ptr::null(); MAX_THREADS],
            waves: Vec::new(),
            wave_size: MAX_LANES,
            wave_shift: MAX_LANES.trailing_zeros(),
            now: Vec::with_capacity(MAX_THREADS),
            later: Vec::with_capacity(MAX_THREADS),
            order: Vec::with_capacity(MAX_THREADS),
            ready: Vec::new(),
            step: (0, 0),
            current: 0,
            turns: 0,
            threads: 0,
            live: 0,
            at_barrier: 0,
            votes: 0,
            barrier_answer: 0,
            fault: None,
        }));
        STATE.store(state, Relaxed);
        Ok(Engine { stacks, fibers: Vec::new(), state })
    }

    /// First address, end and stride of the threads' stacks.
    pub(super) fn stacks(&self) -> (usize, usize, usize) {
        self.stacks.extent()
    }

    /// Makes ready for blocks of this shape.
    pub(super) fn prepare(&mut self, block: &Block) -> io::Result<()> {
        let threads = block.block.iter().product::<u32>() as usize;
        while self.fibers.len() < threads {
            self.fibers.push(Fiber::new(&self.stacks, self.fibers.len(), body)?);
        }
        // SAFETY: no fiber runs.
        let state = unsafe { &mut *self.state };
        state.entry = block.entry;
        state.attached = block.attached;
        state.wave_size = block.wave_size;
        state.wave_shift = block.wave_size.trailing_zeros();
        state.threads = threads;
        let [x, y, _] = block.block;
        state.coordinates.clear();
        state.coordinates.extend((0..threads as u32).map(|t| [t % x, t / x % y, t / x / y]));
        let waves = threads.div_ceil(block.wave_size);
        while state.waves.len() < waves {
            state.waves.push(Wave::new());
        }
        state.ready.clear();
        state.ready.resize(waves, 0);
        Ok(())
    }

    /// Runs one block, whose coordinates the caller has set.
    ///
    /// # Safety
    /// `words` holds an argument for each of the entry's parameters, as `entry.h` unpacks them,
    /// and stays valid; the module is loaded.
    pub(super) unsafe fn run_block(
        &mut self,
        words: *const u64,
        rng: Rng,
    ) -> Result<(), WireFault> {
        let state = self.state;
        // SAFETY: no fiber runs here and after each `resume`, so nothing else refers to the state.
        unsafe { (*state).begin(words, rng) };
        loop {
            // SAFETY: as above.
            while let Some(thread) = unsafe { (*state).next() } {
                self.fibers[thread].resume();
            }
            // SAFETY: as above.
            let state = unsafe { &mut *state };
            if state.live == 0 && state.fault.is_none() {
                return Ok(());
            }
            if state.fault.is_none() && state.release_divergent() {
                continue;
            }
            let fault = state.fault.take().unwrap_or_else(|| state.deadlock());
            self.abandon();
            return Err(fault);
        }
    }

    /// Gives up the kernel's threads where they stand.
    fn abandon(&mut self) {
        self.fibers = std::mem::take(&mut self.fibers)
            .into_iter()
            .enumerate()
            .map(|(index, fiber)| fiber.abandon(index, body))
            .collect();
        call::forget();
    }
}

impl State {
    fn begin(&mut self, words: *const u64, mut rng: Rng) {
        self.words = words;
        (self.live, self.at_barrier, self.votes) = (self.threads, 0, 0);
        let mut left = self.threads;
        for wave in self.waves.iter_mut().take(self.threads.div_ceil(self.wave_size)) {
            wave.begin(left.min(self.wave_size), rng.next() >> 63 == 1);
            left = left.saturating_sub(self.wave_size);
        }
        self.order.clear();
        self.order.extend(0..self.threads as u16);
        self.rng = rng;
        self.later.clear();
        self.step = (0, 0);
        self.all_now();
    }

    /// Makes every thread that has not returned ready, in a new order.
    fn all_now(&mut self) {
        if sanitize::is_lockstep() {
            let waves = self.threads.div_ceil(self.wave_size);
            let live = self.waves[..waves].iter().map(Wave::live);
            self.ready.iter_mut().zip(live).for_each(|(ready, live)| *ready = live);
            return;
        }
        self.rng.shuffle(&mut self.order);
        self.now.clear();
        if self.live == self.threads {
            self.now.extend_from_slice(&self.order);
        } else {
            let (waves, shift, size) = (&self.waves, self.wave_shift, self.wave_size);
            let runs = |&&thread: &&u16| {
                waves[thread as usize >> shift].elsewhere() >> (thread as usize & (size - 1)) & 1
                    == 1
            };
            self.now.extend(self.order.iter().filter(runs));
        }
    }

    /// The next thread to run, its coordinates set.
    #[inline]
    fn next(&mut self) -> Option<usize> {
        let thread = if sanitize::is_lockstep() {
            self.next_in_lockstep()?
        } else {
            match self.now.pop() {
                Some(thread) => thread.into(),
                None => {
                    std::mem::swap(&mut self.now, &mut self.later);
                    self.now.pop()?.into()
                }
            }
        };
        self.current = thread;
        call::turn(thread);
        // SAFETY: the reference ends with the statement.
        if let Some(sanitizer) = unsafe { sanitize::active() } {
            sanitizer.turn(thread);
        }
        self.turns += 1;
        // SAFETY: the worker keeps the control page mapped as long as it lives.
        unsafe {
            (*self.control).thread.store(thread as u32, Relaxed);
            (*self.control).turns.store(self.turns, Relaxed);
        }
        // SAFETY: `attach` gave the address of the module's own variable.
        unsafe { *self.attached.thread_idx = self.coordinates[thread] };
        Some(thread)
    }

    /// The next lane of the step under way, or of a new one: those lanes of a wave that are furthest
    /// behind in the program. Where they part and meet again, the least address comes first, so
    /// that a loop is left by all before its end is reached by any.
    fn next_in_lockstep(&mut self) -> Option<usize> {
        let (wave, step) = self.step;
        let first = |wave: usize| wave << self.wave_shift;
        if step != 0 {
            self.step.1 &= step - 1;
            return Some(first(wave) + step.trailing_zeros() as usize);
        }
        let waves = self.ready.iter().filter(|ready| **ready != 0).count() as u64;
        let pick = self.rng.next().checked_rem(waves)? as usize;
        let wave = (0..self.ready.len()).filter(|wave| self.ready[*wave] != 0).nth(pick)?;
        // SAFETY: the reference ends with the block.
        let step = unsafe {
            let sanitizer = sanitize::active()?;
            sanitizer.stepped(self.step.0);
            let pc = |lane: usize| sanitizer.pc(first(wave) + lane);
            let least = lanes(self.ready[wave]).map(pc).min()?;
            lanes(self.ready[wave]).filter(|lane| pc(*lane) == least).fold(0, |s, l| s | 1 << l)
        };
        self.ready[wave] &= !step;
        self.step = (wave, step & (step - 1));
        Some(first(wave) + step.trailing_zeros() as usize)
    }

    /// Tells the checker of an exchange that has been made.
    fn exchanged(&mut self, wave: usize, set: u64) {
        // SAFETY: the reference ends with the block.
        if let Some(sanitizer) = unsafe { sanitize::active() } {
            sanitizer.exchanged(wave, set, self.waves[wave].live());
            for (lane, source) in self.waves[wave].take_absent() {
                sanitizer.absent(wave, lane, source);
            }
        }
    }

    /// Makes lanes of a wave ready.
    fn go_on(&mut self, wave: usize, set: u64) {
        self.exchanged(wave, set);
        if sanitize::is_lockstep() {
            self.ready[wave] |= set;
            return;
        }
        let list = if self.waves[wave].eager { &mut self.now } else { &mut self.later };
        let from = list.len();
        list.extend(lanes(set).map(|lane| ((wave << self.wave_shift) + lane) as u16));
        self.rng.shuffle(&mut list[from..]);
    }

    /// Lets the block pass its barrier if everyone who runs has come.
    #[inline]
    fn pass_barrier(&mut self) {
        if self.at_barrier == self.live && self.live > 0 {
            // SAFETY: the reference ends with the statement.
            if let Some(sanitizer) = unsafe { sanitize::active() } {
                sanitizer.barrier_passed();
            }
            (self.barrier_answer, self.votes, self.at_barrier) = (self.votes, 0, 0);
            self.all_now();
        }
    }

    fn retire(&mut self) {
        let (wave, lane) = self.place();
        self.live -= 1;
        // SAFETY: the reference ends with the statement.
        if let Some(sanitizer) = unsafe { sanitize::active() } {
            sanitizer.retired(self.current);
        }
        let set = self.waves[wave].retire(lane);
        if set != 0 {
            self.go_on(wave, set);
        }
        self.pass_barrier();
    }

    /// The running thread's wave and lane.
    #[inline]
    fn place(&self) -> (usize, usize) {
        (self.current >> self.wave_shift, self.current & (self.wave_size - 1))
    }

    fn release_divergent(&mut self) -> bool {
        let mut any = false;
        for wave in 0..self.threads.div_ceil(self.wave_size) {
            let set = self.waves[wave].release_divergent();
            if set != 0 {
                self.go_on(wave, set);
                any = true;
            }
        }
        any
    }

    /// Who waits where, once nobody can run; the control page gets one of them.
    fn deadlock(&mut self) -> WireFault {
        let mut parts = Vec::new();
        let mut witness = None;
        if self.at_barrier > 0 {
            parts.push((self.at_barrier, "__syncthreads".to_owned()));
        }
        for (index, wave) in
            self.waves.iter().enumerate().take(self.threads.div_ceil(self.wave_size))
        {
            for (set, name) in wave.waiting() {
                let count = set.count_ones() as usize;
                witness.get_or_insert((index << self.wave_shift) + set.trailing_zeros() as usize);
                parts.push((count, format!("{name} of wave {index}")));
            }
        }
        if let Some(thread) = witness {
            // SAFETY: the worker keeps the control page mapped as long as it lives.
            unsafe { (*self.control).thread.store(thread as u32, Relaxed) };
        }
        let mut text = String::new();
        for (index, (count, at)) in parts.into_iter().enumerate() {
            text += &match index {
                0 if count == 1 => format!("1 thread of {} waits at {at}", self.threads),
                0 => format!("{count} threads of {} wait at {at}", self.threads),
                _ => format!(", {count} at {at}"),
            };
        }
        // SAFETY: the reference ends with the block.
        if let Some(sanitizer) = unsafe { sanitize::looking() } {
            let waiting = self.waiting(None);
            sanitizer.deadlock(|thread| waiting[thread], &text);
            return WireFault::Found;
        }
        WireFault::Deadlock(text)
    }

    /// What each thread of the block waits for, while one of them runs or none.
    fn waiting(&self, running: Option<usize>) -> Vec<Option<&'static str>> {
        let ready = |thread: usize| {
            let listed = |list: &[u16]| list.contains(&(thread as u16));
            listed(&self.now) || listed(&self.later) || running == Some(thread)
        };
        let of = |thread: usize| {
            let (wave, lane) = (thread >> self.wave_shift, thread & (self.wave_size - 1));
            let lockstep = self.ready[wave] >> lane & 1 == 1
                || (self.step.0 == wave && self.step.1 >> lane & 1 == 1);
            match self.waves[wave].what(lane) {
                Some("a shuffle") => Some("wait at a shuffle"),
                Some("a vote") => Some("wait at a vote"),
                Some(_) => Some("wait at __syncwarp"),
                None if lockstep || ready(thread) => None,
                None => Some(AT_BARRIER),
            }
        };
        (0..self.threads).map(of).collect()
    }

    /// Ends the run: nobody is ready any more.
    fn stop(&mut self, fault: WireFault) {
        self.now.clear();
        self.later.clear();
        self.ready.fill(0);
        self.step = (0, 0);
        self.fault = Some(fault);
    }
}

/// A fiber's whole life: kernel thread after kernel thread.
fn body(index: usize, exit: Exit) {
    loop {
        // SAFETY: the reference ends with the statement.
        let (entry, words) = unsafe {
            let state = state();
            state.exits[index] = exit;
            (state.entry, state.words)
        };
        // SAFETY: the caller of `run_block` vouches for the entry and its words.
        if !unsafe { call::call(entry, words) } {
            signals::overwritten(Overwritten::Caller);
        }
        // SAFETY: the reference ends with the statement.
        unsafe { state().retire() };
        // SAFETY: this is the fiber of `exit`.
        unsafe { fiber::suspend(exit) };
    }
}

unsafe extern "C" fn no_entry(_: *const u64) {}

/// Ends the process if the running thread has overwritten its own stack: to switch to another would
/// lead anywhere.
#[inline]
fn look_at_stack() {
    if !call::is_intact() {
        signals::overwritten(Overwritten::Caller);
    }
}

/// The compiler's own check of a function's frame has failed. Does not come back.
extern "C" fn overwritten() {
    signals::overwritten(Overwritten::Protector);
}

extern "C" fn barrier(vote: u32) -> u32 {
    look_at_stack();
    // SAFETY: called by a kernel, so an engine runs; the reference is not used after the switch.
    let exit = unsafe {
        let state = state();
        state.votes += vote;
        state.at_barrier += 1;
        state.pass_barrier();
        state.exits[state.current]
    };
    // SAFETY: the running fiber's own exit.
    unsafe { fiber::suspend(exit) };
    // SAFETY: as above.
    unsafe { state().barrier_answer }
}

extern "C" fn wave(what: u32, mask: u64, value: u64, source: u32) -> u64 {
    look_at_stack();
    // SAFETY: called by a kernel, so an engine runs; the reference is not used after the switch.
    let (exit, wave, lane) = unsafe {
        let state = state();
        let (wave, lane) = state.place();
        let mask = if state.wave_size == MAX_LANES { mask } else { mask & 0xffff_ffff };
        if mask >> lane & 1 == 0 {
            let text = format!(
                "lane {lane} takes part in a wave operation whose mask {mask:#x} leaves it out"
            );
            state.stop(match sanitize::looking() {
                Some(sanitizer) => {
                    sanitizer.wrong_mask(state.current, &text);
                    WireFault::Found
                }
                None => WireFault::Trap(text),
            });
        } else {
            let set = state.waves[wave].ask(lane, what, mask, value, source);
            if set != 0 {
                if let Some(sanitizer) = sanitize::active().filter(|_| is_exchange(what)) {
                    sanitizer.met(wave, set);
                }
                state.go_on(wave, set);
            }
        }
        (state.exits[state.current], wave, lane)
    };
    // SAFETY: the running fiber's own exit.
    unsafe { fiber::suspend(exit) };
    // SAFETY: as above.
    unsafe { state().waves[wave].result(lane) }
}

/// The running thread, by its linear index in the block.
#[inline]
pub(super) fn current() -> usize {
    // SAFETY: called while an engine runs; the reference ends with the statement.
    unsafe { state() }.current
}

/// What each thread of the block waits for while one runs; `None` for one that can run.
pub(super) fn waiting() -> Vec<Option<&'static str>> {
    // SAFETY: as above.
    let state = unsafe { state() };
    state.waiting(Some(state.current))
}

/// Lets others run before the running thread goes on.
pub(super) extern "C" fn give_way() {
    look_at_stack();
    // SAFETY: called by a kernel, so an engine runs; the reference is not used after the switch.
    let exit = unsafe {
        let state = state();
        if sanitize::is_lockstep() {
            let (wave, lane) = state.place();
            state.ready[wave] |= 1 << lane;
        } else {
            // Anywhere among those that wait their turn.
            let at = state.rng.next() % (state.later.len() as u64 + 1);
            state.later.push(state.current as u16);
            let last = state.later.len() - 1;
            state.later.swap(at as usize, last);
        }
        state.exits[state.current]
    };
    // SAFETY: the running fiber's own exit.
    unsafe { fiber::suspend(exit) };
}

/// Ends the run from within the running thread. Does not come back: the fiber is abandoned.
pub(super) fn leave(fault: WireFault) {
    // SAFETY: called by a kernel, so an engine runs; the reference is not used after the switch.
    let exit = unsafe {
        let state = state();
        state.stop(fault);
        state.exits[state.current]
    };
    // SAFETY: the running fiber's own exit; an abandoned fiber is not resumed here.
    unsafe { fiber::suspend(exit) };
}

/// Does not come back.
unsafe extern "C" fn trap(what: *const c_char, file: *const c_char, line: u32) {
    // SAFETY: the module passes string constants or null.
    let text = |p: *const c_char| unsafe {
        (!p.is_null()).then(|| CStr::from_ptr(p).to_string_lossy().into_owned())
    };
    let what = text(what).unwrap_or_default();
    let said = match text(file) {
        Some(file) => format!("{file}:{line}: assertion `{what}` failed"),
        None => format!("it called {what}"),
    };
    // SAFETY: called by a kernel, so an engine runs; the reference is not used after the switch.
    let exit = unsafe {
        let state = state();
        state.stop(WireFault::Trap(said));
        state.exits[state.current]
    };
    // SAFETY: the running fiber's own exit; an abandoned fiber is not resumed here.
    unsafe { fiber::suspend(exit) };
}
