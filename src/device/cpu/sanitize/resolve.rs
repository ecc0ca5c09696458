//! From program counters and bytes to lines of the source and arrays of shared memory.
//!
//! The line tables are those of the binary. Functions of this device's own headers are left out of
//! what a user sees: `__shfl_xor` is at the line that calls it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use addr2line::{Loader, Location};

use super::super::super::cache::Slot;
use super::super::super::finding::{Finding, Kind, Line, Other, Site, Standing, Target};
use super::super::super::{Launch, Place};
use super::super::description::{Description, SharedArray, SharedKind};
use super::wire::{WireFinding, WireOther, WireStanding, WireTarget};

/// What is known of the binaries that runs were made of.
#[derive(Default)]
pub(in super::super) struct Resolver {
    binaries: HashMap<PathBuf, Binary>,
}

struct Binary {
    lines: Option<Loader>,
    arrays: Vec<SharedArray>,
    known: HashMap<u64, Site>,
}

impl Binary {
    fn open(path: &Path) -> Binary {
        let arrays = Slot::of_binary(path).read().map_or(Vec::new(), |d: Description| d.arrays);
        // Without line tables a finding is told all the same.
        Binary { lines: Loader::new(path).ok(), arrays, known: HashMap::new() }
    }

    /// Where a call was made that returns to `pc`.
    fn site(&mut self, pc: u64, headers: &Path) -> Site {
        if let Some(site) = self.known.get(&pc) {
            return site.clone();
        }
        let of_user = |address: u64| {
            let mut lines = self.lines.as_ref().map_or(Vec::new(), |lines| frames(lines, address));
            lines.retain(|line| !line.file.starts_with(headers));
            lines
        };
        // An instruction that the compiler could give no line belongs to the nearest one before.
        let addresses = (1..=FURTHEST).filter_map(|back| pc.checked_sub(back));
        let mut lines = addresses.map(of_user);
        let found = lines.find(|lines| lines.first().is_some_and(|own| own.line > 0));
        let mut lines = found.unwrap_or_default().into_iter();
        let site = Site { line: lines.next().unwrap_or_default(), callers: lines.collect() };
        self.known.insert(pc, site.clone());
        site
    }

    fn shared(&self, offset: usize) -> Target {
        let distance = |array: &&SharedArray| {
            let end = array.offset + array.bytes;
            if offset < array.offset {
                array.offset - offset
            } else {
                (offset + 1).saturating_sub(end)
            }
        };
        // Just past an array is more likely than just before the next.
        let real = |array: &&SharedArray| array.kind != SharedKind::Guard && array.bytes > 0;
        let arrays = self.arrays.iter().filter(real);
        let (array, from, bytes) = match arrays.min_by_key(distance) {
            Some(array) => (array.name.clone(), array.offset, array.bytes),
            None => ("shared memory".to_owned(), 0, 0),
        };
        Target::Shared { array, offset: offset as i64 - from as i64, bytes }
    }
}

/// How far before an address a line is looked for, bytes.
const FURTHEST: u64 = 64;

fn frames(lines: &Loader, address: u64) -> Vec<Line> {
    let mut found = Vec::new();
    let Ok(mut frames) = lines.find_frames(address) else { return found };
    while let Ok(Some(frame)) = frames.next() {
        let Some(Location { file: Some(file), line, .. }) = frame.location else { continue };
        let name = frame.function.as_ref().and_then(|f| f.demangle().ok().map(|n| n.into_owned()));
        let function = name.unwrap_or_default();
        found.push(Line { file: PathBuf::from(file), line: line.unwrap_or(0), function });
    }
    found
}

impl Resolver {
    /// A finding of a run of `launches`; `headers` is the folder of this device's headers.
    pub(in super::super) fn resolve(
        &mut self,
        wire: WireFinding,
        launches: &[Launch],
        headers: &Path,
    ) -> Option<Finding> {
        let index = wire.launch as usize;
        let Some(launch) = launches.get(index) else { unreachable!("a finding of no launch") };
        let file = launch.module.file.as_ref();
        let binary = self.binaries.entry(file.clone()).or_insert_with(|| Binary::open(file));
        let [x, y, _] = launch.block;
        let place = |block: [u32; 3], t: u32| Place {
            launch: index,
            block,
            thread: [t % x, t / x % y, t / x / y],
        };
        let mut site = binary.site(wire.pc, headers);
        if let Some((file, line)) = wire.line {
            let file = PathBuf::from(file);
            // The compiler's description is exact; of a function of our headers the call is told.
            if !file.starts_with(headers) {
                let function = std::mem::take(&mut site.line.function);
                site.line = Line { file, line, function };
            }
        }
        let dynamic = launch.shared_bytes as usize;
        let target = wire.target.map(|target| match target {
            WireTarget::Arena(offset) => Target::Arena(offset),
            WireTarget::Private => Target::Private,
            WireTarget::Address(address) => Target::Address(address),
            WireTarget::Shared(offset) => {
                for array in binary.arrays.iter_mut().filter(|a| a.kind == SharedKind::Dynamic) {
                    array.bytes = dynamic;
                }
                binary.shared(offset)
            }
        });
        let other = wire.other.map(|WireOther { block, thread, pc, access }| Other {
            place: place(block, thread),
            thread,
            site: binary.site(pc, headers),
            access,
        });
        let mut standing: Vec<Standing> = Vec::new();
        for WireStanding { threads, what, pc } in wire.standing {
            let site = pc.map(|pc| binary.site(pc, headers));
            // The compiler may have made several places of one line.
            match standing.iter_mut().find(|s| (&s.site, &s.what) == (&site, &what)) {
                Some(same) if wire.kind != Kind::TwoBarriers || wire.if_lines_differ => {
                    same.threads.extend(threads);
                    same.threads.sort_unstable();
                }
                _ => standing.push(Standing { threads, what, site }),
            }
        }
        let places = standing.iter().filter(|s| s.site.is_some()).count();
        if wire.if_lines_differ && places < 2 {
            return None;
        }
        Some(Finding {
            kind: wire.kind,
            severity: wire.severity,
            place: Some(place(wire.block, wire.thread)),
            thread: wire.thread,
            wave: wire.thread / launch.module.wave,
            lane: wire.thread % launch.module.wave,
            site,
            access: wire.access,
            target,
            other,
            standing,
            detail: wire.detail,
            count: wire.count,
        })
    }
}
