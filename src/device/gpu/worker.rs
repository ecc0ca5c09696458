//! The worker process: it alone talks to the GPU's driver.
//!
//! One process with one context, as many lanes as the device has host threads: each a thread with a
//! stream, an arena on the GPU and a mapping of its device's arena. So small cases of several threads
//! are under way at once, and a kernel's fault, which takes the whole context with it, costs a process
//! and not the program.

use std::collections::HashMap;
use std::ffi::{CString, OsString, c_void};
use std::fs::File;
use std::io::{self, BufReader};
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use super::super::ARENA_ALIGN;
use super::super::memory::{self, Mapping, SharedFile};
use super::super::wire::{self, Word};
use super::Api;
use super::cuda::Cuda;
use super::driver::{Block, Driver, Error, Function, Handle, Meaning, Shape};
use super::hip::Hip;
use super::protocol::{
    Answer, Back, BackOfRun, Binary, Hello, Layout, Limits, Made, Message, Reply, Request,
    WireFault, WireLaunch,
};

/// The program's `main` when its first argument is the worker's: the API and the device's number follow.
pub fn worker_main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let words: Vec<String> =
        args.into_iter().map(|arg| arg.to_string_lossy().into_owned()).collect();
    let (api, ordinal) = match &words[..] {
        [api, ordinal] => (Api::named(api), ordinal.parse().ok()),
        _ => (None, None),
    };
    let (Some(api), Some(ordinal)) = (api, ordinal) else {
        eprintln!("attnbench: this is an internal command of the GPU devices");
        return ExitCode::from(2);
    };
    // A panic (of a binding, say) in a lane must not leave the device waiting.
    std::panic::set_hook(Box::new(|panic| {
        eprintln!("attnbench: the GPU's worker failed: {panic}");
        leave(101);
    }));
    match serve(api, ordinal) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("attnbench: the GPU's worker failed: {error}");
            ExitCode::from(2)
        }
    }
}

/// Opens a device of an API.
fn open(api: Api, ordinal: u32) -> Result<Arc<dyn Driver>, String> {
    Ok(match api {
        Api::Cuda => Arc::new(Cuda::open(ordinal)?),
        Api::Hip => Arc::new(Hip::open(ordinal)?),
    })
}

fn serve(api: Api, ordinal: u32) -> io::Result<()> {
    let mut replies = wire::private_stdout()?;
    let driver = open(api, ordinal);
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let device = driver.as_ref().map(|driver| driver.info().clone()).map_err(Clone::clone);
    wire::send(&mut replies, &Hello { version, device })?;
    let Ok(driver) = driver else { return Ok(()) };
    let shared = Arc::new(Shared {
        driver,
        replies: Mutex::new(replies),
        modules: Mutex::new(HashMap::new()),
    });
    let mut lanes: HashMap<usize, Sender<Request>> = HashMap::new();
    let mut requests = BufReader::new(io::stdin());
    while let Some(Message { lane, request }) = wire::receive(&mut requests)? {
        let sender = lanes.entry(lane).or_insert_with(|| {
            let (sender, receiver) = channel();
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || Lane::work(&shared, lane, &receiver));
            sender
        });
        // A lane that is gone has said why.
        let _ = sender.send(request);
    }
    leave(0)
}

/// Arguments of 0 behind those of a launch, and words behind the last of them: more than all parameters
/// of a kernel may have (4 KiB on AMD, 32,764 bytes on NVIDIA).
const SPARE_ARGS: usize = 256;
const SPARE_WORDS: usize = 8192;

/// Blocks a run that look for what it changed.
const LOOKING_BLOCKS: u32 = 64;

/// Ends the process at once: a kernel may be running that never ends, and the driver would wait for it.
fn leave(status: i32) -> ! {
    // SAFETY: ends the process; the system takes back all that it holds.
    unsafe { libc::_exit(status) }
}

/// What the lanes share.
pub(super) struct Shared {
    pub(super) driver: Arc<dyn Driver>,
    replies: Mutex<File>,
    modules: Mutex<HashMap<String, Arc<Vec<Function>>>>,
}

impl Shared {
    fn answer(&self, lane: usize, reply: Reply) {
        let mut to = self.replies.lock().unwrap_or_else(PoisonError::into_inner);
        if wire::send(&mut *to, &Answer { lane, reply }).is_err() {
            // Nobody listens any more.
            leave(0);
        }
    }

    /// The kernels of a binary, loaded once in the process.
    fn load(&self, binary: &Binary) -> Result<Vec<Limits>, Trouble> {
        let mut modules = self.modules.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = modules.get(&binary.hash) {
            return Ok(known.iter().map(|function| function.limits).collect());
        }
        let file = binary.file.display();
        let other =
            |what: &str, e: &dyn std::fmt::Display| Trouble::Other(format!("{what}{file}: {e}"));
        // A fault of another lane's kernel is none of the file's.
        let told = |what: &str, error: Error| match error.meaning {
            Meaning::Crash | Meaning::Trap => Trouble::Call(error),
            _ => other(what, &error),
        };
        let image = std::fs::read(&binary.file).map_err(|e| other("", &e))?;
        let module = self.driver.load(&image).map_err(|e| told("", e))?;
        let most = self.driver.info().max_shared;
        let mut functions = Vec::new();
        for name in &binary.kernels {
            let symbol = CString::new(name.as_str()).map_err(|e| other("", &e))?;
            let what = format!("kernel {name} of ");
            let function = self.driver.function(module, &symbol).map_err(|e| told(&what, e))?;
            // All that there is, once: a launch is held against the limits before it is made.
            let dynamic = most.saturating_sub(function.limits.static_shared);
            self.driver.allow_shared(function.handle, dynamic).map_err(|e| told(&what, e))?;
            functions.push(function);
        }
        let limits = functions.iter().map(|function| function.limits).collect();
        modules.insert(binary.hash.clone(), Arc::new(functions));
        Ok(limits)
    }
}

/// A host's arena as the worker has it: mapped, and held in place where the driver can.
struct Host {
    mapping: Mapping,
    layout: Layout,
    /// Where what is held in place begins.
    pinned: Option<Handle>,
}

/// The memory of a lane: of the host, of the device as it is given, and the arena as it is worked on.
#[derive(Clone, Copy)]
pub(super) struct Memory {
    pub(super) layout: Layout,
    host: *mut u8,
    given: Handle,
    /// Where the device's arena ends.
    work_end: usize,
    /// Where what is held in place of the host's begins, bytes.
    pinned: usize,
}

impl Memory {
    /// Where an arena of so many bytes lies on the device: what is used ends where the block does, so that
    /// what overruns it meets nobody's memory.
    fn work(&self, bytes: usize) -> Handle {
        Handle(self.work_end - bytes.next_multiple_of(ARENA_ALIGN))
    }

    /// An address of the host's, by the bytes from the mapping's start.
    pub(super) fn host(&self, at: usize) -> *mut u8 {
        // SAFETY: places are those of the layout, which the mapping has room for.
        unsafe { self.host.add(at) }
    }

    fn given(&self, at: usize) -> Handle {
        Handle(self.given.0 + at)
    }
}

/// One lane.
pub(super) struct Lane<'a> {
    pub(super) shared: &'a Shared,
    pub(super) stream: Handle,
    /// Of the ends of timed replays; as many as were needed so far.
    pub(super) marks: Vec<Handle>,
    /// Of the begin and the end of launches.
    events: [Handle; 2],
    host: Option<Host>,
    /// The arena as kernels work on it, and the like of the host's memory.
    blocks: Vec<Block>,
    functions: HashMap<String, Arc<Vec<Function>>>,
}

/// Why a request was not done.
pub(super) enum Trouble {
    /// A call of the driver's failed.
    Call(Error),
    /// A call failed while a launch was made, of this kernel.
    Launch(Error, usize),
    /// Something else.
    Other(String),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Trouble {
        Trouble::Call(error)
    }
}

impl Trouble {
    fn reply(self) -> Reply {
        let (error, launch) = match self {
            Trouble::Call(error) => (error, None),
            Trouble::Launch(error, launch) => (error, Some(launch)),
            Trouble::Other(why) => return Reply::Failed(why),
        };
        let place = launch.map_or(String::new(), |launch| format!(" in launch {launch}"));
        match (error.meaning, launch) {
            (Meaning::Crash, _) => {
                Reply::Fault(WireFault::Crash(format!("{} ({}){place}", error.text, error.name)))
            }
            (Meaning::Trap, _) => {
                Reply::Fault(WireFault::Trap(format!("{} ({}){place}", error.text, error.name)))
            }
            (Meaning::TooMuch, Some(launch)) => {
                Reply::Refused(format!("launch {launch} asks for more than the GPU has: {error}"))
            }
            (_, Some(launch)) => Reply::Refused(format!("launch {launch} is refused: {error}")),
            (_, None) => Reply::Failed(error.to_string()),
        }
    }
}

impl Lane<'_> {
    fn work(shared: &Shared, number: usize, requests: &Receiver<Request>) {
        let begun = shared.driver.enter().and_then(|()| {
            let driver = &shared.driver;
            Ok((driver.stream()?, [driver.event()?, driver.event()?]))
        });
        let (stream, events) = match begun {
            Ok(begun) => begun,
            Err(error) => {
                for _ in requests {
                    shared.answer(number, Trouble::from(error.clone()).reply());
                }
                return;
            }
        };
        let (host, blocks, functions) = (None, Vec::new(), HashMap::new());
        let marks = Vec::new();
        let mut lane = Lane { shared, stream, marks, events, host, blocks, functions };
        for request in requests {
            let reply = lane.answer(request).unwrap_or_else(Trouble::reply);
            shared.answer(number, reply);
        }
        lane.release();
    }

    fn answer(&mut self, request: Request) -> Result<Reply, Trouble> {
        match request {
            Request::Arena { process, fd, bytes } => self.map(process, fd, bytes),
            Request::Load(binary) => self.shared.load(&binary).map(Reply::Loaded),
            Request::Run { bytes, launches, back, step } => {
                self.run(bytes, &launches, back.as_ref(), step)
            }
            Request::Time(timing) => self.time(&timing).map(Reply::Timed),
        }
    }

    fn driver(&self) -> &dyn Driver {
        &*self.shared.driver
    }

    /// Maps the host's arena, and makes room for as much on the device.
    fn map(&mut self, process: u32, fd: i32, bytes: usize) -> Result<Reply, Trouble> {
        self.release();
        let other = |e: io::Error| Trouble::Other(format!("the arena's file: {e}"));
        let path = format!("/proc/{process}/fd/{fd}");
        let file = File::options().read(true).write(true).open(path).map_err(other)?;
        let layout = Layout { bytes };
        let mapping = SharedFile::opened(file).map_arena(layout.whole()).map_err(other)?;
        // Most outputs are far smaller than the arena: of the room for them only the end is pinned, which
        // is used first. What lies before it is moved all the same, only slower.
        let from = (layout.first() * 3 / 4) / memory::page_size() * memory::page_size();
        // SAFETY: the mapping lives in `self.host` until `release`, which takes the pin back first.
        let (start, pinned) = unsafe {
            let start = mapping.start().add(from);
            (start, self.driver().pin(start, mapping.bytes() - from))
        };
        let pinned = pinned.is_ok().then_some(Handle(start as usize));
        self.host = Some(Host { mapping, layout, pinned });
        for bytes in [bytes, layout.whole()] {
            let block = self.driver().block(bytes)?;
            self.blocks.push(block);
        }
        Ok(Reply::Done)
    }

    /// Gives the arena back, on both sides.
    fn release(&mut self) {
        if let Some(host) = self.host.take() {
            if let Some(start) = host.pinned {
                // SAFETY: it was pinned at this address, and nothing is under way in the stream.
                let _ = unsafe { self.driver().unpin(start.0 as *mut u8) };
            }
            drop(host.mapping);
        }
        for block in std::mem::take(&mut self.blocks) {
            let _ = self.driver().free(block);
        }
    }

    fn run(
        &mut self,
        bytes: usize,
        launches: &[WireLaunch],
        back: Option<&Back>,
        step: bool,
    ) -> Result<Reply, Trouble> {
        let memory = self.memory()?;
        if bytes > memory.layout.bytes {
            return Err(Trouble::Other("a run is larger than its arena".to_owned()));
        }
        let asked = self.ask(memory, bytes, launches, back, step);
        // Whatever came of it, nothing may be under way when the memory is somebody else's again.
        let driver = self.driver();
        let waited = driver.wait(self.stream).map_err(Trouble::from);
        asked.and(waited)?;
        let [begin, end] = self.events;
        Ok(Reply::Ran(f64::from(driver.elapsed(begin, end)?) * 1e3))
    }

    /// Asks the stream for all that a request needs.
    fn ask(
        &mut self,
        memory: Memory,
        bytes: usize,
        launches: &[WireLaunch],
        back: Option<&Back>,
        step: bool,
    ) -> Result<(), Trouble> {
        let (layout, work) = (memory.layout, memory.work(bytes));
        let driver = Arc::clone(&self.shared.driver);
        let (stream, arena) = (self.stream, layout.arena());
        let places = match back {
            Some(back) => Some(tables(memory, back)?),
            None => None,
        };
        let at = |handle: Handle| Word::Bits(handle.0 as u64);
        let beside = |back: &Back, entry: usize, rows: usize, args: Vec<Word>| WireLaunch {
            binary: back.beside.clone(),
            entry,
            grid: [LOOKING_BLOCKS, rows as u32, 1],
            block: [256, 1, 1],
            shared_bytes: 0,
            args,
        };
        let uploaded = back.and_then(|back| back.made.iter().map(|made| made[1] as usize).min());
        // SAFETY: the mapping has room for the layout, and stays until the stream has been waited for in
        // `run`; the device waits for the answer before it touches its side.
        unsafe {
            match back {
                None => driver.upload(stream, work, memory.host(arena), bytes)?,
                Some(_) => {
                    let first = layout.first();
                    let (to, from) = (memory.given(first), memory.host(first));
                    let uploaded = arena - first + uploaded.unwrap_or(bytes).min(bytes);
                    driver.upload(stream, to, from, uploaded)?;
                }
            }
        }
        if let Some(back) = back {
            if !back.made.is_empty() {
                let args = vec![at(memory.given(arena)), at(memory.given(layout.made()))];
                self.launch(&beside(back, 1, back.made.len(), args), work)?;
            }
            // SAFETY: as above, on the device alone.
            unsafe { driver.copy(stream, work, memory.given(arena), bytes)? };
        }
        let [begin, end] = self.events;
        driver.record(begin, stream)?;
        for (number, launch) in launches.iter().enumerate() {
            self.launch(launch, work).map_err(|e| e.at(number))?;
            if step {
                driver.wait(stream).map_err(|e| Trouble::Launch(e, number))?;
            }
        }
        driver.record(end, stream)?;
        let Some((back, start)) = back.zip(places) else {
            // SAFETY: as above.
            unsafe { driver.download(stream, memory.host(arena), work, bytes)? };
            return Ok(());
        };
        let args = vec![
            at(memory.given(arena)),
            at(work),
            at(memory.given(layout.tables())),
            Word::Bits(Layout::TABLE_WORDS as u64),
            at(memory.given(layout.first())),
            at(memory.given),
        ];
        let look = beside(back, 0, back.runs.len(), args);
        self.launch(&look, work)?;
        let n = layout.first() + Layout::FIRSTS - start;
        // Not over the border of what is held in place: a driver may refuse that.
        let before = memory.pinned.saturating_sub(start).min(n);
        for (at, n) in [(start, before), (start + before, n - before)] {
            if n > 0 {
                // SAFETY: as above.
                unsafe { driver.download(stream, memory.host(at), memory.given(at), n)? };
            }
        }
        Ok(())
    }

    /// The lane's memory.
    pub(super) fn memory(&self) -> Result<Memory, Trouble> {
        match (&self.host, &self.blocks[..]) {
            (Some(host), [work, given]) => Ok(Memory {
                layout: host.layout,
                host: host.mapping.start(),
                given: given.start,
                work_end: work.start.0 + host.layout.bytes,
                pinned: host.pinned.map_or(0, |start| start.0 - host.mapping.start() as usize),
            }),
            _ => Err(Trouble::Other("a run before its arena was mapped".to_owned())),
        }
    }

    pub(super) fn launch(&mut self, launch: &WireLaunch, arena: Handle) -> Result<(), Trouble> {
        let functions = match self.functions.get(&launch.binary) {
            Some(functions) => Arc::clone(functions),
            None => {
                let modules = self.shared.modules.lock().unwrap_or_else(PoisonError::into_inner);
                let known = modules.get(&launch.binary).map(Arc::clone);
                let missing =
                    || Trouble::Other("a launch names a binary that is not loaded".into());
                let functions = known.ok_or_else(missing)?;
                self.functions.insert(launch.binary.clone(), Arc::clone(&functions));
                functions
            }
        };
        let missing = || Trouble::Other("a launch names a kernel that is not there".into());
        let function = functions.get(launch.entry).ok_or_else(missing)?;
        let word = |word: &Word| match *word {
            Word::Offset(offset) => (arena.0 + offset) as u64,
            Word::Bits(bits) => bits,
        };
        let mut words: Vec<u64> = launch.args.iter().map(word).collect();
        // A kernel whose parameters nobody could count may have more, or larger ones: they are then 0.
        let given = words.len();
        words.resize(given + SPARE_WORDS, 0);
        let mut args: Vec<*mut c_void> = (0..given + SPARE_ARGS)
            .map(|i| std::ptr::from_ref(&words[i]).cast_mut().cast())
            .collect();
        let driver = &self.shared.driver;
        let WireLaunch { grid, block, shared_bytes, .. } = *launch;
        let shape = Shape { grid, block, shared_bytes };
        // SAFETY: the device has held the arguments against the kernel's parameters, where it knows
        // them; where it does not, there are zeros behind, as many as parameters may have.
        unsafe { driver.launch(function.handle, &shape, self.stream, &mut args)? };
        Ok(())
    }
}

/// Writes the tables of runs side by side; the least place where something comes back.
fn tables(memory: Memory, back: &Back) -> Result<usize, Trouble> {
    let layout = memory.layout;
    let fits = |run: &BackOfRun| run.outputs.len() + run.scratch.len() <= Layout::RANGES;
    let places = layout.places(&back.runs);
    let few = back.runs.len() <= Layout::RUNS && back.made.len() <= Layout::MADE;
    let inside = |made: &Made| {
        let [from, to, bytes, ..] = made.map(|number| number as usize);
        let ends = from.checked_add(bytes).zip(to.checked_add(bytes));
        ends.is_some_and(|(from, to)| from.max(to) <= layout.bytes)
    };
    let all_inside = back.made.iter().all(inside);
    let places = places.filter(|_| few && all_inside && back.runs.iter().all(fits));
    let Some((places, start)) = places else {
        return Err(Trouble::Other("runs side by side have too many outputs".to_owned()));
    };
    let mut places = places.into_iter();
    let put = |at: usize, words: &[u64]| {
        // SAFETY: the layout has room for as many words there, and nothing else uses it meanwhile.
        unsafe {
            let to = memory.host(at).cast::<u64>();
            std::ptr::copy_nonoverlapping(words.as_ptr(), to, words.len());
        }
    };
    put(layout.first(), &[u64::MAX; Layout::RUNS]);
    put(layout.made(), back.made.as_flattened());
    for (index, run) in back.runs.iter().enumerate() {
        let (begin, end) = run.bytes;
        let ranges = run.outputs.len() + run.scratch.len();
        let mut table = [begin, end - begin, ranges, run.outputs.len()].to_vec();
        for &(begin, end) in &run.outputs {
            table.extend([begin, end, places.next().unwrap_or(0)]);
        }
        for &(begin, end) in &run.scratch {
            table.extend([begin, end, 0]);
        }
        let words: Vec<u64> = table.into_iter().map(|word| word as u64).collect();
        put(layout.tables() + 8 * Layout::TABLE_WORDS * index, &words);
    }
    Ok(start)
}

impl Trouble {
    /// The same, told of a launch.
    pub(super) fn at(self, launch: usize) -> Trouble {
        match self {
            Trouble::Call(error) => Trouble::Launch(error, launch),
            other => other,
        }
    }
}
