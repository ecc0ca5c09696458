//! The device's side of the worker process: start it, ask one of its lanes, tell what became of it.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::super::{RunError, interrupt, wire};
use super::lane::{Attempt, crash};
use super::library::Libraries;
use super::protocol::{Answer, Hello, Info, Message, Reply, Request, WORKER_ARGUMENT};
use super::{Api, GpuConfig, lock};

/// How long a new worker may take to open its device.
const READY: Duration = Duration::from_secs(60);

/// Lines of its last words that are kept.
const LAST_WORDS: usize = 20;

/// A running worker.
pub(super) struct Server {
    info: Info,
    child: Mutex<Child>,
    requests: Mutex<ChildStdin>,
    shared: Arc<Shared>,
    /// Who reads its standard error.
    listening: Mutex<Option<JoinHandle<()>>>,
}

/// What the threads that read from the worker share with its lanes.
#[derive(Default)]
struct Shared {
    lanes: Mutex<HashMap<usize, Sender<Reply>>>,
    gone: AtomicBool,
    /// Whether it was ended since something took too long.
    late: AtomicBool,
    /// The end of what it said on standard error.
    said: Mutex<Vec<String>>,
}

/// What came of a request.
pub(super) enum Outcome {
    Reply(Reply),
    /// The time limit passed. The worker goes on until it is ended.
    TimedOut,
    /// The process was interrupted. The worker goes on until it is ended.
    Interrupted,
    /// The worker is gone.
    Gone,
}

impl Server {
    /// Starts a worker for a device, with so many of an NVIDIA GPU's queues: streams that share one wait
    /// for each other, and each takes its time to be ended after a fault.
    ///
    /// # Errors
    /// In words: why there is none.
    pub(super) fn start(
        config: &GpuConfig,
        libraries: &Libraries,
        api: Api,
        ordinal: u32,
        queues: u32,
    ) -> Result<Server, String> {
        let program = &config.worker_program;
        let not_a_worker = |why: &str| {
            let program = program.display();
            format!(
                "starting the worker {program}: {why}; set ATTNBENCH_WORKER to the attnbench program"
            )
        };
        let mut command = Command::new(program);
        command.args([WORKER_ARGUMENT, api.name(), &ordinal.to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Its own process group: an interrupt from the keyboard is the device's to handle.
        command.process_group(0);
        if std::env::var_os("CUDA_DEVICE_MAX_CONNECTIONS").is_none() {
            command.env("CUDA_DEVICE_MAX_CONNECTIONS", queues.to_string());
        }
        command.envs(config.environment.iter().map(|(name, value)| (name, value)));
        libraries.give_to(&mut command, &config.cache_dir).map_err(|e| e.to_string())?;
        let mut child = command.spawn().map_err(|e| not_a_worker(&e.to_string()))?;
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(requests), Some(replies), Some(words)) = pipes else {
            return Err(not_a_worker("it has no pipes"));
        };
        let shared = Arc::new(Shared::default());
        let listener = Arc::clone(&shared);
        let listening = std::thread::spawn(move || listener.listen(BufReader::new(words)));
        let listening = Mutex::new(Some(listening));
        let (hello, opened) = channel();
        let reader = Arc::clone(&shared);
        std::thread::spawn(move || reader.read(BufReader::new(replies), &hello));
        let info = match opened.recv_timeout(READY) {
            Ok(Hello { version, .. }) if version != env!("CARGO_PKG_VERSION") => {
                Err(not_a_worker("it is of another build"))
            }
            Ok(Hello { device, .. }) => device,
            Err(RecvTimeoutError::Timeout) => {
                Err(format!("the driver did not open the device within {READY:?}"))
            }
            Err(RecvTimeoutError::Disconnected) => Err(match child.wait() {
                Ok(status) if !status.success() => format!(
                    "the driver ended the process that opened it ({status}); try the vendor's own \
                     tools (nvidia-smi, rocminfo)"
                ),
                _ => not_a_worker("it does not answer as one"),
            }),
        };
        let (child, requests) = (Mutex::new(child), Mutex::new(requests));
        match info {
            Ok(info) => Ok(Server { info, child, requests, shared, listening }),
            Err(why) => {
                let mut child = lock(&child);
                let _ = child.kill();
                let _ = child.wait();
                let said = lock(&shared.said);
                let last = said.last().map_or(String::new(), |line| format!(" ({line})"));
                Err(format!("{why}{last}"))
            }
        }
    }

    pub(super) fn info(&self) -> &Info {
        &self.info
    }

    /// Whether it can still be asked.
    pub(super) fn is_alive(&self) -> bool {
        !self.shared.gone.load(Relaxed)
    }

    /// A lane's replies come there from now on.
    pub(super) fn open(&self, lane: usize) -> Receiver<Reply> {
        let (sender, receiver) = channel();
        lock(&self.shared.lanes).insert(lane, sender);
        if !self.is_alive() {
            // The reader has been through the lanes already.
            lock(&self.shared.lanes).clear();
        }
        receiver
    }

    fn send(&self, lane: usize, request: Request) -> std::io::Result<()> {
        let mut to = lock(&self.requests);
        wire::send(&mut *to, &Message { lane, request })?;
        to.flush()
    }

    /// Asks a lane, whose replies come to `replies`.
    pub(super) fn ask(
        &self,
        lane: usize,
        replies: &Receiver<Reply>,
        request: Request,
        limit: Duration,
    ) -> Outcome {
        if interrupt::is_requested() {
            return Outcome::Interrupted;
        }
        if !self.is_alive() || self.send(lane, request).is_err() {
            return Outcome::Gone;
        }
        let start = Instant::now();
        loop {
            let left = limit.saturating_sub(start.elapsed());
            match replies.recv_timeout(left.min(interrupt::LOOK_AGAIN)) {
                Ok(reply) => return Outcome::Reply(reply),
                Err(RecvTimeoutError::Disconnected) => return Outcome::Gone,
                Err(RecvTimeoutError::Timeout) if interrupt::is_requested() => {
                    return Outcome::Interrupted;
                }
                Err(RecvTimeoutError::Timeout) if start.elapsed() >= limit => {
                    return Outcome::TimedOut;
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// Ends it since a request took too long: what else was under way ends with it, and is no fault.
    pub(super) fn end_late(&self) -> Result<(), RunError> {
        self.shared.late.store(true, Relaxed);
        self.end().map(|_| ())
    }

    /// What became of a request whose worker is gone.
    pub(super) fn gone(&self) -> Attempt {
        if self.shared.late.load(Relaxed) {
            let what = "the GPU's worker was ended, as another request took too long";
            return Attempt::Lost(RunError::Device(what.to_owned()));
        }
        match self.end() {
            Ok(status) => Attempt::Ended(crash(self.last_words(status))),
            Err(error) => Attempt::Failed(error),
        }
    }

    /// Ends it, whatever it does, and tells how it had ended before.
    pub(super) fn end(&self) -> Result<ExitStatus, RunError> {
        let mut child = lock(&self.child);
        let broken = |e: std::io::Error| RunError::Device(format!("ending the GPU's worker: {e}"));
        self.shared.gone.store(true, Relaxed);
        child.kill().map_err(broken)?;
        let status = child.wait().map_err(broken)?;
        lock(&self.shared.lanes).clear();
        // Its last words are all there before anybody asks for them.
        if let Some(listening) = lock(&self.listening).take() {
            let _ = listening.join();
        }
        Ok(status)
    }

    /// What ended it, in words, as far as it is known.
    fn last_words(&self, status: ExitStatus) -> String {
        let said = lock(&self.shared.said);
        let telling = said.iter().rev().find(|line| {
            ["fault", "error", "Error", "failed"].iter().any(|word| line.contains(word))
        });
        match (telling, status.signal()) {
            (Some(line), _) => line.trim().to_owned(),
            (None, Some(signal)) => format!("the GPU's worker ended by signal {signal}"),
            (None, None) => {
                let code = status.code().unwrap_or(-1);
                format!("the GPU's worker ended with status {code}")
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already, which is what is wanted.
        let _ = self.end();
    }
}

impl Shared {
    /// Hands each reply to its lane, until the worker is gone.
    fn read(&self, mut replies: impl BufRead, hello: &Sender<Hello>) {
        if let Ok(Some(first)) = wire::receive(&mut replies) {
            let _ = hello.send(first);
            while let Ok(Some(Answer { lane, reply })) = wire::receive(&mut replies) {
                let to = lock(&self.lanes).get(&lane).cloned();
                // A lane that does not wait any more has been told why.
                let _ = to.map(|to| to.send(reply));
            }
        }
        self.gone.store(true, Relaxed);
        lock(&self.lanes).clear();
    }

    /// Passes on what the worker says, a kernel's printf among it, and keeps the end.
    fn listen(&self, words: impl BufRead) {
        for line in words.split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            eprintln!("{line}");
            let mut said = lock(&self.said);
            if said.len() == LAST_WORDS {
                said.remove(0);
            }
            said.push(line);
        }
    }
}
