//! Timing: launches made again and again on buffers that the device fills itself.

use std::ops::Range;
use std::time::{Duration, Instant};

use super::{Device, Launch, RunError};

/// Launches to be timed. Addresses count from the begin of a *set*: one copy of all buffers. Each call
/// takes the next set, so that none finds its data in a cache.
#[derive(Debug, Clone)]
pub struct Timing {
    /// Bytes of a set.
    pub bytes: usize,
    /// Sets.
    pub sets: usize,
    /// What the host writes into each set: from which byte on, and what.
    pub given: Vec<(usize, Vec<u8>)>,
    /// Launches that write the rest, made on each set before each subject.
    pub fill: Vec<Launch>,
    /// What is timed, one after the other.
    pub subjects: Vec<Subject>,
    /// Bytes of a set that are wanted of each subject's first call.
    pub outputs: Vec<Range<usize>>,
}

/// What is timed.
#[derive(Debug, Clone)]
pub struct Subject {
    /// The launches of a call, in order.
    pub launches: Vec<Launch>,
    /// Calls of a replay. The sets are taken in turn.
    pub calls: u32,
    /// Replays before those that are timed.
    pub warm: u32,
    /// Replays that are timed; where it is 0 the subject is called once on each set.
    pub replays: u32,
    /// Whether the device's clocks are looked at, too, under the subject's load.
    pub observed: bool,
}

/// What was found of a subject.
#[derive(Debug, Clone, PartialEq)]
pub struct Timed {
    /// Microseconds a call, of each replay.
    pub micros: Vec<f64>,
    /// Whether replays were of a captured graph; else the host launched each call.
    pub captured: bool,
    /// [`Timing::outputs`] after the first calls, put together: of the first set and of the last.
    pub left: [Vec<u8>; 2],
    /// The device's state under load, where it was asked for and the driver tells.
    pub observed: Option<Telemetry>,
}

/// What a device's driver tells of its state.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Telemetry {
    /// Clock of the multiprocessors (compute units), MHz.
    pub sm_mhz: Option<u32>,
    /// Clock of the memory, MHz.
    pub mem_mhz: Option<u32>,
    /// Power, watts.
    pub power_w: Option<f64>,
    /// Temperature, degrees Celsius.
    pub temperature_c: Option<u32>,
    /// Why clocks are lower than they could be, in the driver's words; empty where they are not, `None`
    /// where the driver does not tell.
    pub throttle: Option<Vec<String>>,
}

/// Timing by the host's clock, of a device that has none: on one set, with all that a run costs.
pub(super) fn by_host<D: Device + ?Sized>(
    device: &mut D,
    timing: &Timing,
    time_limit: Duration,
) -> Result<Vec<Timed>, RunError> {
    timing.subjects.iter().map(|subject| of_subject(device, timing, subject, time_limit)).collect()
}

fn of_subject<D: Device + ?Sized>(
    device: &mut D,
    timing: &Timing,
    subject: &Subject,
    time_limit: Duration,
) -> Result<Timed, RunError> {
    let arena = device.sparse_arena(timing.bytes)?;
    for (at, bytes) in &timing.given {
        arena[*at..at + bytes.len()].copy_from_slice(bytes);
    }
    device.run(&timing.fill, 0, time_limit)?;
    device.run(&subject.launches, 0, time_limit)?;
    let arena = device.arena(timing.bytes)?;
    let left: Vec<u8> =
        timing.outputs.iter().flat_map(|range| &arena[range.clone()]).copied().collect();
    let mut call = || device.run(&subject.launches, 0, time_limit);
    let mut micros = Vec::new();
    let replays = if subject.replays == 0 { 0 } else { subject.warm + subject.replays };
    for replay in 0..replays {
        let start = Instant::now();
        for _ in 0..subject.calls {
            call()?;
        }
        if replay >= subject.warm {
            micros.push(1e6 * start.elapsed().as_secs_f64() / f64::from(subject.calls));
        }
    }
    Ok(Timed { micros, captured: false, left: [left.clone(), left], observed: None })
}
