//! A GPU as a device of one host thread.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::super::memory::{self, SharedFile};
use super::super::{
    CompileError, Device, Exchange, Fault, Launch, MOST_EXCHANGES, MOST_SIDE_BY_SIDE, Module,
    RunError, SideBySide, Source, Stretch, Subject, Timed, Timing, check,
};
use super::family::Family;
use super::lane::{Attempt, Lane, Link, READY, Shared, crash, fits, named, unexpected};
use super::protocol::{
    Back, BackOfRun, Binary, Info, Layout, Reply, Request, WireFault, WireLaunch, WireSubject,
    WireTimed, WireTiming,
};
use super::server::Outcome;
use super::{Api, GpuConfig, lock, object};

/// Bytes of a small arena, which every lane has, and of the least large one. Memory that the GPU moves
/// itself is dear to get.
const SMALL_ARENA: usize = 20 << 20;
const LARGE_ARENA: usize = 64 << 20;

/// A GPU as a device.
pub struct GpuDevice {
    family: Arc<Family>,
    /// The lane of the last arena that was asked for; where that is a large one, the device's own waits.
    lane: Lane,
    own: Option<Lane>,
    /// Bytes of the arena that the caller asked for last.
    arena_bytes: usize,
    /// Microseconds of GPU time of all runs.
    busy: f64,
    /// Requests that were not done in time beside others, and were alone.
    late: u32,
    /// What runs side by side left.
    left: Vec<u8>,
    /// What of their arena is made on the GPU, and here where it is asked for.
    made: Vec<Exchange>,
    /// The kernels around runs side by side, where they compile.
    beside: Option<Option<Module>>,
}

impl GpuDevice {
    /// Opens a visible device.
    ///
    /// # Errors
    /// In words: which library, device or right is missing, and how to mend it.
    pub fn open(config: GpuConfig, api: Api, ordinal: u32) -> Result<GpuDevice, String> {
        Ok(GpuDevice::with(Arc::new(Family::open(config, api, ordinal)?)))
    }

    /// Another device on the same GPU, for another host thread.
    pub fn sibling(&self) -> GpuDevice {
        GpuDevice::with(Arc::clone(&self.family))
    }

    /// What the GPU is.
    pub fn info(&self) -> &Info {
        &self.family.info
    }

    fn with(family: Arc<Family>) -> GpuDevice {
        let lane = lock(&family.idle).pop().unwrap_or_default();
        GpuDevice {
            family,
            lane,
            own: None,
            arena_bytes: 0,
            busy: 0.0,
            late: 0,
            left: Vec::new(),
            made: Vec::new(),
            beside: None,
        }
    }

    /// Whether the compiler is there, and which: for a list of devices.
    ///
    /// # Errors
    /// [`CompileError::NoCompiler`].
    pub fn compiler(&self) -> Result<&str, CompileError> {
        self.family.compiler.version()
    }

    /// All of the host's side: the arena, what came back, the tables.
    fn whole(&self) -> Option<&[u8]> {
        let shared = self.lane.shared.as_ref()?;
        // SAFETY: the mapping has as many bytes and lives as long as the borrow of `self`; the worker
        // touches it only during a run, which needs `self` mutably.
        Some(unsafe { std::slice::from_raw_parts(shared.mapping.start(), shared.layout.whole()) })
    }

    fn limits(&self) -> check::Limits {
        let info = &self.family.info;
        check::Limits {
            threads: info.max_threads,
            block: info.max_block,
            grid: info.max_grid,
            blocks: u64::MAX,
            shared_bytes: info.max_shared,
        }
    }

    /// The lane, on a running worker, with the arena mapped and the modules loaded.
    fn ready(&mut self, launches: &[&Launch]) -> Result<&Link, Attempt> {
        let server = self.family.server()?;
        let stale = |link: &Link| !Arc::ptr_eq(&link.server, &server);
        if self.lane.link.as_ref().is_none_or(stale) {
            let lane = self.family.lanes.fetch_add(1, Relaxed);
            let replies = server.open(lane);
            let loaded = HashMap::new();
            self.lane.link = Some(Link { server, lane, replies, mapped: 0, loaded });
        }
        if self.lane.shared.is_none() {
            self.arena(0)?;
        }
        let limits = self.limits();
        let (Some(link), Some(shared)) = (self.lane.link.as_mut(), self.lane.shared.as_ref())
        else {
            return Err(RunError::Device("the arena is gone".to_owned()).into());
        };
        let bytes = shared.layout.bytes;
        if link.mapped != bytes {
            let (process, fd) = (std::process::id(), shared.file.raw());
            match link.ask(Request::Arena { process, fd, bytes }, READY)? {
                Reply::Done => link.mapped = bytes,
                other => return Err(unexpected("mapping the arena", other)),
            }
        }
        let beside = self.beside.iter().flatten();
        for module in launches.iter().map(|launch| &launch.module).chain(beside) {
            if link.loaded.contains_key(&module.hash) {
                continue;
            }
            let kernels = module.kernels.to_vec();
            let binary =
                Binary { hash: module.hash.to_string(), file: module.file.to_path_buf(), kernels };
            match link.ask(Request::Load(binary), READY)? {
                Reply::Loaded(asked) => {
                    link.loaded.insert(Arc::clone(&module.hash), asked);
                }
                other => return Err(unexpected("loading a kernel", other)),
            }
        }
        for launch in launches {
            if let Some(asked) = link.loaded.get(&launch.module.hash) {
                fits(launch, asked, &limits)?;
            }
        }
        Ok(link)
    }

    /// Launches on so many bytes, as the worker is sent them.
    fn wire(&self, launches: &[&Launch], bytes: usize) -> Result<Vec<WireLaunch>, RunError> {
        let limits = self.limits();
        let wire = launches.iter().map(|launch| {
            let args = check::args(launch, &limits, bytes)?;
            let Launch { entry, grid, block, shared_bytes, .. } = **launch;
            let binary = launch.module.hash.to_string();
            Ok::<_, String>(WireLaunch { binary, entry, grid, block, shared_bytes, args })
        });
        wire.collect::<Result<_, _>>().map_err(RunError::Refused)
    }

    /// Makes launches on the arena; after a fault once more with no others under way.
    fn run_all(
        &mut self,
        launches: &[&Launch],
        back: Option<&Back>,
        time_limit: Duration,
    ) -> Result<(), RunError> {
        let bytes = self.arena_bytes;
        let wire = self.wire(launches, bytes)?;
        let family = Arc::clone(&self.family);
        let (reply, late) = family.attempt(|step| {
            let (launches_of, back) = (wire.clone(), back.cloned());
            let request = Request::Run { bytes, launches: launches_of, back, step };
            self.attempt(launches, request, time_limit)
        })?;
        self.late += u32::from(late);
        if let Reply::Ran(micros) = reply {
            self.busy += micros;
        }
        Ok(())
    }

    /// What is timed, as the worker is sent it, and the bytes of the arena that it needs.
    fn wire_timing(&self, timing: &Timing) -> Result<(WireTiming, usize), RunError> {
        let launches = |launches: &[Launch]| {
            let launches: Vec<&Launch> = launches.iter().collect();
            self.wire(&launches, timing.bytes)
        };
        let mut at = 0;
        let given = timing.given.iter().map(|(to, bytes)| {
            let from = at;
            at += bytes.len();
            [*to, from, bytes.len()]
        });
        let given = given.collect();
        let subjects = timing.subjects.iter().map(|subject| {
            let Subject { calls, warm, replays, observed, .. } = *subject;
            let launches = launches(&subject.launches)?;
            Ok(WireSubject { launches, calls, warm, replays, observed })
        });
        let wire = WireTiming {
            bytes: timing.bytes,
            sets: timing.sets,
            given,
            fill: launches(&timing.fill)?,
            subjects: subjects.collect::<Result<_, RunError>>()?,
            outputs: timing.outputs.iter().map(|range| (range.start, range.end)).collect(),
            back: at,
        };
        let outputs: usize = timing.outputs.iter().map(Range::len).sum();
        Ok((wire, at + 2 * outputs * timing.subjects.len()))
    }

    fn timed(&mut self, timing: &Timing, time_limit: Duration) -> Result<Vec<Timed>, RunError> {
        let (wire, bytes) = self.wire_timing(timing)?;
        let arena = self.arena(bytes.max(1))?;
        for ([_, at, n], (_, given)) in wire.given.iter().zip(&timing.given) {
            arena[*at..at + n].copy_from_slice(given);
        }
        let all = timing.subjects.iter().flat_map(|subject| &subject.launches);
        let launches: Vec<&Launch> = timing.fill.iter().chain(all).collect();
        let family = Arc::clone(&self.family);
        // A first call may take all of the time limit; so may no other.
        let limit = READY + time_limit.saturating_mul(timing.subjects.len() as u32 + 1);
        let (reply, _) =
            family.attempt(|_| self.attempt(&launches, Request::Time(wire.clone()), limit))?;
        let Reply::Timed(timed) = reply else {
            return Err(RunError::Device("timing: an answer that makes no sense".to_owned()));
        };
        let outputs: usize = timing.outputs.iter().map(Range::len).sum();
        let back = wire.back;
        let arena = self.arena(bytes.max(1))?;
        let timed = timed.into_iter().enumerate().map(|(index, timed)| {
            let left = [0, 1].map(|which| {
                let start = back + (2 * index + which) * outputs;
                arena[start..start + outputs].to_vec()
            });
            let WireTimed { micros, captured, observed } = timed;
            Timed { micros, captured, left, observed }
        });
        Ok(timed.collect())
    }

    /// One attempt at a request.
    fn attempt(
        &mut self,
        launches: &[&Launch],
        request: Request,
        limit: Duration,
    ) -> Result<Reply, Attempt> {
        let link = self.ready(launches)?;
        let reply = match link.server.ask(link.lane, &link.replies, request, limit) {
            Outcome::Reply(reply) => reply,
            Outcome::TimedOut => {
                link.server.end_late()?;
                return Err(Attempt::Ended(Fault::Timeout { limit, place: None }));
            }
            Outcome::Interrupted => return Err(RunError::Interrupted.into()),
            Outcome::Gone => return Err(link.server.gone()),
        };
        match reply {
            reply @ (Reply::Ran(_) | Reply::Timed(_)) => Ok(reply),
            Reply::Fault(fault) => {
                link.server.end()?;
                Err(Attempt::Ended(match fault {
                    WireFault::Crash(what) => crash(named(&what, launches)),
                    WireFault::Trap(what) => {
                        Fault::Trap { what: named(&what, launches), place: None }
                    }
                }))
            }
            Reply::Refused(why) => Err(RunError::Refused(named(&why, launches)).into()),
            other => Err(unexpected("running a kernel", other)),
        }
    }
}

impl Device for GpuDevice {
    fn describe(&self) -> String {
        let Info { api, ordinal, name, arch, driver, .. } = &self.family.info;
        let compiler = self.family.compiler.version().unwrap_or("no compiler");
        format!("{api}:{ordinal} ({name}, {arch}, {driver}, {compiler})")
    }

    fn waves(&self) -> &[u32] {
        &self.family.waves
    }

    fn compile(&self, source: &Source) -> Result<Module, CompileError> {
        if object::api_of(&source.file).is_some() {
            return object::load(source, self.family.api);
        }
        self.family.compiler.compile(source, &self.family.info.arch)
    }

    fn arena(&mut self, bytes: usize) -> Result<&mut [u8], RunError> {
        let refuse = |e: std::io::Error| {
            RunError::Device(format!("memory: {bytes} bytes for the arena: {e}"))
        };
        let large = bytes > SMALL_ARENA;
        match (large, self.own.take()) {
            (true, None) => {
                let borrowed = self.family.borrow_large();
                self.own = Some(std::mem::replace(&mut self.lane, borrowed));
            }
            (false, Some(own)) => {
                let large = std::mem::replace(&mut self.lane, own);
                self.family.give_back(large);
            }
            (_, own) => self.own = own,
        }
        let least = if large { LARGE_ARENA } else { SMALL_ARENA };
        let have = self.lane.shared.as_ref().map_or(0, |shared| shared.layout.bytes);
        if self.lane.shared.is_none() || bytes > have {
            // Growing is dear: the memory is kept in place for the GPU, which all lanes wait for.
            let grown = bytes.max(2 * have).max(least).next_multiple_of(memory::page_size());
            let layout = Layout { bytes: grown };
            if let Some(free) = memory::available_memory()
                && layout.whole() > free
            {
                let why = format!("the arena needs {} bytes and {free} are free", layout.whole());
                return Err(RunError::Device(format!("memory: {why}")));
            }
            let file = match self.lane.shared.take() {
                Some(old) => old.file,
                None => SharedFile::new().map_err(refuse)?,
            };
            file.grow(layout.whole()).map_err(refuse)?;
            let mapping = file.map_arena(layout.whole()).map_err(refuse)?;
            self.lane.shared = Some(Shared { mapping, layout, file });
        }
        self.arena_bytes = bytes;
        let Some(shared) = self.lane.shared.as_mut() else {
            return Err(RunError::Device("memory: the arena is gone".to_owned()));
        };
        Ok(shared.arena(bytes))
    }

    fn side_by_side(&mut self) -> Option<&mut dyn SideBySide> {
        if self.beside.is_none() {
            let info = &self.family.info;
            // Without it each run is made alone, and all of it comes back.
            self.beside = Some(self.family.compiler.beside(&info.arch, info.wave).ok());
        }
        self.beside.as_ref()?.as_ref()?;
        Some(self)
    }

    fn busy(&self) -> Option<Duration> {
        Some(Duration::from_secs_f64(self.busy / 1e6))
    }

    fn late(&self) -> u32 {
        self.late
    }

    fn time(&mut self, timing: &Timing, time_limit: Duration) -> Result<Vec<Timed>, RunError> {
        self.timed(timing, time_limit)
    }

    fn units(&self) -> u32 {
        self.family.info.multiprocessors
    }

    fn shared_bytes(&self) -> u32 {
        self.family.info.max_shared
    }

    fn cache_bytes(&self) -> u64 {
        let info = &self.family.info;
        // why: AMD's runtime tells of L2 and not of the cache behind it, the Infinity Cache: 256 MB on
        // CDNA 3 (its white paper, 2023), at most 128 MB on RDNA 2 to 4 (theirs).
        let behind =
            [("gfx94", 256), ("gfx95", 256), ("gfx103", 128), ("gfx11", 128), ("gfx12", 128)];
        let behind = behind.iter().find(|(arch, _)| info.arch.starts_with(arch));
        info.l2_bytes.max(behind.map_or(0, |(_, mib)| mib << 20))
    }

    fn run(
        &mut self,
        launches: &[Launch],
        _order_seed: u64,
        time_limit: Duration,
    ) -> Result<(), RunError> {
        let launches: Vec<&Launch> = launches.iter().collect();
        self.run_all(&launches, None, time_limit)
    }
}

impl SideBySide for GpuDevice {
    fn run(
        &mut self,
        runs: &[Stretch],
        exchanges: &[Exchange],
        time_limit: Duration,
    ) -> Result<Vec<Option<usize>>, RunError> {
        self.made = exchanges.to_vec();
        let few = runs.len() <= MOST_SIDE_BY_SIDE && exchanges.len() <= MOST_EXCHANGES;
        let beside = self.beside.clone().flatten();
        let Some(beside) = beside.filter(|_| few) else {
            return Err(RunError::Device("so many runs are not made side by side".to_owned()));
        };
        let pairs = |ranges: &[Range<usize>]| ranges.iter().map(|r| (r.start, r.end)).collect();
        let of_run = |run: &Stretch| BackOfRun {
            bytes: (run.bytes.start, run.bytes.end),
            outputs: pairs(&run.outputs),
            scratch: pairs(&run.scratch),
        };
        let made = |exchange: &Exchange| {
            let Exchange { from, to, bytes, size, element } = *exchange;
            let places = [from, to, bytes, size].map(|number| number as u64);
            [places[0], places[1], places[2], places[3], u64::from_le_bytes(element)]
        };
        let back = Back {
            beside: beside.hash.to_string(),
            runs: runs.iter().map(of_run).collect(),
            made: exchanges.iter().map(made).collect(),
        };
        let launches: Vec<&Launch> = runs.iter().flat_map(|run| &run.launches).collect();
        self.run_all(&launches, Some(&back), time_limit)?;

        let mut left = std::mem::take(&mut self.left);
        if left.len() < self.arena_bytes {
            left.resize(self.arena_bytes, 0);
        }
        let gone = || RunError::Device("memory: the arena is gone".to_owned());
        let layout = self.lane.shared.as_ref().ok_or_else(gone)?.layout;
        let whole = self.whole().ok_or_else(gone)?;
        let (places, _) = layout.places(&back.runs).ok_or_else(gone)?;
        let outputs = back.runs.iter().flat_map(|run| &run.outputs);
        for (&(begin, end), place) in outputs.zip(places) {
            left[begin..end].copy_from_slice(&whole[place..place + (end - begin)]);
        }
        let firsts = whole[layout.first()..].chunks_exact(8).take(runs.len());
        let first = |bytes: &[u8]| {
            let first = u64::from_le_bytes(bytes.try_into().unwrap_or([0xff; 8]));
            (first != u64::MAX).then_some(first as usize)
        };
        let firsts = firsts.map(first).collect();
        self.left = left;
        Ok(firsts)
    }

    fn given(&self) -> &[u8] {
        let from = self.lane.shared.as_ref().map_or(0, |shared| shared.layout.arena());
        self.whole().map_or(&[], |whole| &whole[from..from + self.arena_bytes])
    }

    fn exchange(&mut self, within: Range<usize>) {
        let Some(shared) = self.lane.shared.as_mut() else { return };
        let arena = shared.arena(self.arena_bytes);
        for exchange in &self.made {
            exchange.make(within.clone(), arena);
        }
    }

    fn left(&self) -> &[u8] {
        &self.left
    }
}

impl Drop for GpuDevice {
    fn drop(&mut self) {
        let mut lane = std::mem::take(&mut self.lane);
        if let Some(own) = self.own.take() {
            self.family.give_back(std::mem::replace(&mut lane, own));
        }
        lock(&self.family.idle).push(lane);
    }
}
