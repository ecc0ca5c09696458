//! A lane that times: sets of buffers of its own, and graphs of calls on them, replayed.

use std::sync::Arc;

use super::super::ARENA_ALIGN;
use super::driver::Handle;
use super::protocol::{WireLaunch, WireSubject, WireTimed, WireTiming};
use super::worker::{Lane, Memory, Trouble};

impl Lane<'_> {
    /// Makes room for the sets, times each subject on them, and gives the room back.
    pub(super) fn time(&mut self, timing: &WireTiming) -> Result<Vec<WireTimed>, Trouble> {
        let memory = self.memory()?;
        let outputs: usize = timing.outputs.iter().map(|(begin, end)| end - begin).sum();
        if timing.back + 2 * outputs * timing.subjects.len() > memory.layout.bytes {
            return Err(Trouble::Other("what is timed is larger than its arena".to_owned()));
        }
        let driver = Arc::clone(&self.shared.driver);
        let stride = timing.bytes.next_multiple_of(ARENA_ALIGN);
        let block = driver.block(stride * timing.sets)?;
        let sets: Vec<Handle> =
            (0..timing.sets).map(|set| Handle(block.start.0 + set * stride)).collect();
        let timed = self.subjects(timing, memory, &sets, outputs);
        // Whatever came of it, nothing may be under way when the memory is somebody else's again.
        let waited = driver.wait(self.stream).map_err(Trouble::from);
        let timed = timed.and_then(|timed| waited.map(|()| timed));
        // Also what was refused gives its room back: the worker goes on.
        let freed = driver.free(block).map_err(Trouble::from);
        timed.and_then(|timed| freed.map(|()| timed))
    }

    fn subjects(
        &mut self,
        timing: &WireTiming,
        memory: Memory,
        sets: &[Handle],
        outputs: usize,
    ) -> Result<Vec<WireTimed>, Trouble> {
        let driver = Arc::clone(&self.shared.driver);
        let mut back = memory.layout.arena() + timing.back;
        let mut all = Vec::new();
        for subject in &timing.subjects {
            for set in sets {
                for &[to, from, n] in &timing.given {
                    let from = memory.host(memory.layout.arena() + from);
                    // SAFETY: the arena's mapping stays until the stream has been waited for in `time`.
                    unsafe { driver.upload(self.stream, Handle(set.0 + to), from, n)? };
                }
                self.call(&timing.fill, *set)?;
            }
            for set in sets {
                self.call(&subject.launches, *set)?;
            }
            for set in [sets.first(), sets.last()].into_iter().flatten() {
                let mut at = back;
                for &(begin, end) in &timing.outputs {
                    let (to, from) = (memory.host(at), Handle(set.0 + begin));
                    // SAFETY: as above; the arena has room for all outputs, as `time` has seen.
                    unsafe { driver.download(self.stream, to, from, end - begin)? };
                    at += end - begin;
                }
                back += outputs;
            }
            driver.wait(self.stream)?;
            all.push(self.replay(subject, sets)?);
        }
        Ok(all)
    }

    /// Times the replays of a subject. All are asked for at once, with an event between each two: so the
    /// device never waits for the host, and what a replay takes is all the device's own.
    fn replay(&mut self, subject: &WireSubject, sets: &[Handle]) -> Result<WireTimed, Trouble> {
        let mut timed = WireTimed { micros: Vec::new(), captured: false, observed: None };
        if subject.replays == 0 {
            return Ok(timed);
        }
        let driver = Arc::clone(&self.shared.driver);
        let graph = self.capture(subject, sets);
        timed.captured = graph.is_some();
        while self.marks.len() <= subject.replays as usize {
            self.marks.push(driver.event()?);
        }
        let stream = self.stream;
        let once = |lane: &mut Self| match graph {
            Some(graph) => driver.launch_graph(graph, stream).map_err(Trouble::from),
            None => lane.calls(subject, sets),
        };
        let mut asked = || -> Result<(), Trouble> {
            (0..subject.warm).try_for_each(|_| once(self))?;
            driver.record(self.marks[0], stream)?;
            for replay in 1..=subject.replays as usize {
                once(self)?;
                driver.record(self.marks[replay], stream)?;
            }
            driver.wait(stream)?;
            if subject.observed {
                // Not while times are taken: the question itself may disturb.
                (0..subject.replays).try_for_each(|_| once(self))?;
                timed.observed = driver.telemetry();
                driver.wait(stream)?;
            }
            Ok(())
        };
        let asked = asked();
        if let Some(graph) = graph {
            let _ = driver.wait(stream);
            driver.free_graph(graph)?;
        }
        asked?;
        for pair in self.marks[..=subject.replays as usize].windows(2) {
            let micros = 1e3 * f64::from(driver.elapsed(pair[0], pair[1])?);
            timed.micros.push(micros / f64::from(subject.calls));
        }
        Ok(timed)
    }

    /// The calls of a replay, each on the next set.
    fn calls(&mut self, subject: &WireSubject, sets: &[Handle]) -> Result<(), Trouble> {
        let turns = sets.iter().cycle().take(subject.calls as usize);
        turns.copied().try_for_each(|set| self.call(&subject.launches, set))
    }

    fn call(&mut self, launches: &[WireLaunch], set: Handle) -> Result<(), Trouble> {
        launches.iter().enumerate().try_for_each(|(index, launch)| {
            self.launch(launch, set).map_err(|error| error.at(index))
        })
    }

    /// The calls of a replay as a graph; `None` where they cannot be captured.
    fn capture(&mut self, subject: &WireSubject, sets: &[Handle]) -> Option<Handle> {
        let driver = Arc::clone(&self.shared.driver);
        driver.begin_capture(self.stream).ok()?;
        let called = self.calls(subject, sets);
        let graph = driver.end_capture(self.stream).ok()?;
        if called.is_err() {
            let _ = driver.free_graph(graph);
            return None;
        }
        Some(graph)
    }
}
