//! Where an access lies, and whether it may be: the arena, shared memory, stacks, the module.

use std::io;
use std::ops::Range;
use std::ptr;

use super::super::super::finding::{Access, Class, Kind, RaceModel, access};
use super::super::description::{SharedArray, SharedKind};
use super::order::Order;
use super::shadow::{Cell, Record, Shadow, WORD};
use super::wire::{Checks, WireTarget};
use super::{ATOMIC, UPDATE, VOLATILE, WRITE};

/// Places of atomics in shared memory are numbered from here, those in the module from there.
pub(super) const SHARED_PLACE: u64 = 1 << 63;
const MODULE_PLACE: u64 = 1 << 62;

/// In the map of shared memory: the compiler's own, which is each thread's to use.
const NOT_SHARED: u8 = 1 << 7;

/// What lies further from the arena did not come from an index.
const FAR: u64 = 1 << 40;

/// Addresses below it are null pointers with an offset.
const NULL: usize = 1 << 16;

/// Bytes of the widest access that a module lets pass by itself.
const WIDEST: usize = 16;

/// An access that a thread is about to make.
pub(super) struct Asked {
    pub(super) address: usize,
    pub(super) bytes: usize,
    pub(super) what: u32,
    pub(super) thread: u16,
    pub(super) pc: usize,
}

impl Asked {
    fn writes(&self) -> bool {
        self.what & WRITE != 0
    }

    /// Whether the value that is there is used.
    fn reads(&self) -> bool {
        !self.writes() || self.what & UPDATE != 0
    }

    pub(super) fn kind(&self) -> Access {
        let atomic = self.what & ATOMIC != 0;
        Access { write: self.writes(), atomic, bytes: self.bytes as u64 }
    }

    /// As a cell keeps it; program counters are counted from `base`.
    fn record(&self, atomic: bool, order: &Order, base: usize) -> Record {
        let how = self.bytes.min(255) as u16 | if atomic { Record::ATOMIC } else { 0 };
        let pc = self.pc.wrapping_sub(base) as u32;
        Record { time: order.now, thread: self.thread, how, pc }
    }
}

/// Something wrong with an access.
pub(super) struct Found {
    pub(super) kind: Kind,
    pub(super) target: WireTarget,
    pub(super) detail: String,
    /// Of a race: the other access, and whether it was a write.
    pub(super) other: Option<Record>,
    pub(super) other_writes: bool,
}

/// A write that is about to be made and that nothing orders with another access: whether it is a fault is
/// seen when it has been made.
pub(super) struct Unsettled {
    address: usize,
    /// What is there before it.
    held: Vec<u8>,
    own: Record,
    cells: Vec<Cell>,
}

/// Bytes of a write that is looked at once more when it has been made.
const MOST_HELD: usize = 256;

/// What a check came to.
#[derive(Default)]
pub(super) struct Outcome {
    pub(super) found: Vec<Found>,
    /// Whether others could see the access, so that orders matter.
    pub(super) watched: bool,
    /// Whether the access cannot be made.
    pub(super) stop: bool,
}

/// The first access to an owner's rows in a block.
#[derive(Clone, Copy)]
pub(super) struct Seen {
    pub(super) offset: usize,
    pub(super) thread: u16,
    pub(super) pc: usize,
    pub(super) access: Access,
}

/// What a module needs to know to let a plain access of an input pass by itself, the most frequent
/// one by far; the same struct as in `device.h`.
#[repr(C)]
pub(in super::super) struct Plain {
    arena: usize,
    /// Bytes of the arena, less what an access could reach beyond it.
    limit: usize,
    map: usize,
    /// Owners whose rows the block has read, a bit each: the first read is told.
    read: u64,
    module: usize,
    module_bytes: usize,
    shared: usize,
    shared_bytes: usize,
    shared_map: usize,
    cells: usize,
    /// When the block last passed a barrier, and when each wave had its last exchange since.
    barrier: *const u32,
    waves: *const u32,
    /// Not 0 where anything else has ordered threads since the last barrier.
    loose: *const u32,
    wave_shift: u32,
    thread: u32,
    /// Whether races are looked for.
    races: u32,
}

impl Plain {
    fn new(arena: &Range<usize>, map: *mut u8) -> Box<Plain> {
        Box::new(Plain {
            arena: arena.start,
            limit: arena.len().saturating_sub(WIDEST),
            map: map as usize,
            read: 0,
            module: 0,
            module_bytes: 0,
            shared: 0,
            shared_bytes: 0,
            shared_map: 0,
            cells: 0,
            barrier: ptr::null(),
            waves: ptr::null(),
            loose: ptr::null(),
            wave_shift: 6,
            thread: 0,
            races: 1,
        })
    }
}

/// Memory as the checker sees it.
pub(super) struct Memory {
    arena: Range<usize>,
    /// The access map, a byte for each of the arena's.
    map: *mut u8,
    shadow: Shadow,
    /// The module's thread-local segment: shared memory.
    shared: Range<usize>,
    shared_map: Vec<u8>,
    shared_shadow: Shadow,
    /// What lies in it, with the map's byte for it when a block begins.
    arrays: Vec<(Range<usize>, u8)>,
    stacks: Range<usize>,
    stride: usize,
    module: Range<usize>,
    /// Of it, what is ours and not the kernel's.
    shims: Range<usize>,
    plain: Box<Plain>,
    /// Owners whose rows the block has written, a bit each.
    written: u16,
    /// The cells of the last write as they were before it.
    replaced: Vec<Cell>,
    /// Of each thread of the block, its last write that stored what was there: when, and where.
    stored: Vec<(u32, Range<usize>)>,
    /// Whether it has written what belongs to nobody: parts that another block may finish.
    wrote_common: bool,
    seen: [Seen; 16],
}

impl Memory {
    pub(super) fn none() -> Memory {
        let nothing = Access { write: false, atomic: false, bytes: 0 };
        Memory {
            arena: 0..0,
            map: ptr::null_mut(),
            shadow: Shadow::empty(),
            shared: 0..0,
            shared_map: Vec::new(),
            shared_shadow: Shadow::empty(),
            arrays: Vec::new(),
            stacks: 0..0,
            stride: 1,
            module: 0..0,
            shims: 0..0,
            plain: Plain::new(&(0..0), ptr::null_mut()),
            written: 0,
            replaced: Vec::new(),
            stored: Vec::new(),
            wrote_common: false,
            seen: [Seen { offset: 0, thread: 0, pc: 0, access: nothing }; 16],
        }
    }

    pub(super) fn new(
        (start, bytes): (*mut u8, usize),
        map: *mut u8,
        (first, end, stride): (usize, usize, usize),
    ) -> io::Result<Memory> {
        let arena = start as usize..start as usize + bytes;
        let shadow = Shadow::new(bytes)?;
        let plain = Plain::new(&arena, map);
        Ok(Memory { arena, map, shadow, stacks: first..end, stride, plain, ..Memory::none() })
    }

    /// Of the arena so many bytes are the run's: the rest is as if it were not there.
    pub(super) fn open_arena(&mut self, bytes: usize) {
        self.arena.end = self.arena.start + bytes;
        self.plain.limit = bytes.saturating_sub(WIDEST);
    }

    /// Forgets who touched what.
    pub(super) fn forget(&mut self) -> io::Result<()> {
        self.shadow = Shadow::new(self.shadow.bytes())?;
        self.shared_shadow = Shadow::new(self.shared_shadow.bytes())?;
        Ok(())
    }

    /// Begins a launch of a module that lies at `module` with our own functions at `shims`, whose
    /// shared memory is `bytes` bytes from `start`, and of whose dynamic block the launch asks for
    /// `dynamic` bytes.
    pub(super) fn begin_launch(
        &mut self,
        arrays: &[SharedArray],
        (start, bytes): (usize, usize),
        dynamic: usize,
        (module, shims): (Range<usize>, Range<usize>),
        (order, checks): (&Order, Checks),
    ) -> io::Result<()> {
        self.shared = start..start + bytes;
        (self.plain.module, self.plain.module_bytes) = (module.start, module.len());
        (self.module, self.shims) = (module, shims);
        self.arrays.clear();
        self.arrays.extend(arrays.iter().map(|array| {
            let (bytes, bits) = match array.kind {
                SharedKind::Static => (array.bytes, access::READ | access::WRITE),
                SharedKind::Dynamic => (dynamic, access::READ | access::WRITE),
                SharedKind::Guard => (array.bytes, NOT_SHARED),
            };
            (array.offset..array.offset + bytes, bits)
        }));
        self.shared_map.clear();
        self.shared_map.resize(bytes, 0);
        if self.shared_shadow.bytes() < bytes {
            self.shared_shadow = Shadow::new(bytes)?;
        }
        let plain = &mut *self.plain;
        // In lockstep every access is a step.
        let seen = if checks.model == RaceModel::Lockstep { 0 } else { bytes };
        (plain.shared, plain.shared_bytes) = (start, seen);
        plain.shared_map = self.shared_map.as_ptr() as usize;
        plain.races = checks.has(Class::Race).into();
        plain.cells = self.shared_shadow.words().as_ptr() as usize;
        (plain.barrier, plain.waves, plain.loose, plain.wave_shift) = order.floors_of_waves();
        Ok(())
    }

    /// Begins a block: shared memory holds nothing.
    pub(super) fn begin_block(&mut self) {
        for (array, bits) in &self.arrays {
            self.shared_map[array.clone()].fill(*bits);
        }
        (self.plain.read, self.written, self.wrote_common) = (0, 0, false);
        self.stored.clear();
    }

    /// Another thread runs.
    #[inline]
    pub(super) fn turn(&mut self, thread: usize) {
        self.plain.thread = thread as u32;
    }

    /// What a module is given.
    pub(super) fn plain(&self) -> *const Plain {
        &raw const *self.plain
    }

    /// Checks and notes an access of whole words where that is done at a glance: it is allowed, what
    /// it reads holds a value, and it is plain what it comes after. Else false, and nothing is said.
    #[inline]
    pub(super) fn glance(&mut self, asked: &Asked, race: bool, order: &Order, base: usize) -> bool {
        let Asked { address, bytes, .. } = *asked;
        if (address | bytes) % WORD != 0 {
            return false;
        }
        let writes = asked.writes();
        let own = asked.record(false, order, base);
        let need = if writes {
            access::READ | access::WRITE
        } else {
            access::READ | access::WRITE | access::INIT
        };
        let need = u32::from_ne_bytes([need; WORD]);
        let (offset, end) = (address.wrapping_sub(self.shared.start), self.shared_map.len());
        if offset < end && bytes <= end - offset {
            let words = self.shared_map[offset..offset + bytes].chunks_exact_mut(WORD);
            let cells = &mut self.shared_shadow.words()[offset / WORD..];
            for (bits, cell) in words.zip(cells) {
                let held = u32::from_ne_bytes([bits[0], bits[1], bits[2], bits[3]]);
                if held & need != need
                    || race && !is_plainly_ordered::<false>(cell, own, writes, order)
                {
                    return false;
                }
                bits.copy_from_slice(
                    &(held | u32::from_ne_bytes([access::INIT; WORD])).to_ne_bytes(),
                );
            }
            return true;
        }
        let (offset, end) =
            (address.wrapping_sub(self.arena.start), self.arena.end - self.arena.start);
        if offset < end && bytes <= end - offset {
            let part = offset..offset + bytes;
            let owner = access::owner_of(self.bits(offset));
            let seen = if writes { self.written } else { self.plain.read as u16 };
            if seen >> owner & 1 == 0 || writes && owner == 0 && !self.wrote_common {
                return false;
            }
            for word in part.step_by(WORD) {
                // SAFETY: the map has a byte for each of the arena's, of which `part` is a part.
                let bits = unsafe { self.map.add(word).cast::<u32>() };
                // SAFETY: as above.
                let held = unsafe { bits.read_unaligned() };
                let cell = &mut self.shadow.words()[word / WORD];
                if held & need != need
                    || race && !is_plainly_ordered::<true>(cell, own, writes, order)
                {
                    return false;
                }
                let init = u32::from_ne_bytes([access::INIT; WORD]);
                if held & init != init {
                    // SAFETY: as above; nobody else uses the map in a run.
                    unsafe { bits.write_unaligned(held | init) };
                }
            }
            return true;
        }
        false
    }

    /// Whether others could see an access there: in shared memory, or where the arena is written.
    pub(super) fn is_shared_out(&self, address: usize) -> bool {
        match self.arena.contains(&address) {
            true => self.bits(address - self.arena.start) & access::WRITE != 0,
            false => self.shared.contains(&address),
        }
    }

    /// Whether it lies in the arena.
    pub(super) fn is_global(&self, address: usize) -> bool {
        self.arena.contains(&address)
    }

    /// Whether an address is in the kernel's code.
    pub(super) fn is_code(&self, address: usize) -> bool {
        self.module.contains(&address) && !self.shims.contains(&address)
    }

    /// A number for the place of an atomic.
    pub(super) fn place(&self, address: usize) -> u64 {
        if self.shared.contains(&address) {
            SHARED_PLACE | (address - self.shared.start) as u64
        } else if self.arena.contains(&address) {
            (address - self.arena.start) as u64
        } else {
            // A variable of the module's: global memory.
            MODULE_PLACE | address.wrapping_sub(self.module.start) as u64 & (MODULE_PLACE - 1)
        }
    }

    fn bits(&self, offset: usize) -> u8 {
        assert!(offset < self.arena.end - self.arena.start);
        // SAFETY: the map has a byte for each of the arena's.
        unsafe { self.map.add(offset).read() }
    }

    /// The map's bytes for a part of the arena.
    fn map(&mut self, part: Range<usize>) -> &mut [u8] {
        assert!(part.end <= self.arena.end - self.arena.start && part.start <= part.end);
        // SAFETY: the map has a byte for each of the arena's, and nobody else uses it in a run.
        unsafe { std::slice::from_raw_parts_mut(self.map.add(part.start), part.len()) }
    }

    /// Names an address.
    pub(super) fn target(&self, address: usize) -> WireTarget {
        if self.arena.contains(&address) {
            WireTarget::Arena((address - self.arena.start) as i64)
        } else if self.shared.contains(&address) {
            WireTarget::Shared(address - self.shared.start)
        } else if self.stacks.contains(&address) {
            WireTarget::Private
        } else {
            // An index gone wrong leads from the arena, and the distance is the same in every run.
            let distance = address.wrapping_sub(self.arena.start) as i64;
            match distance.unsigned_abs() < FAR && address >= NULL {
                true => WireTarget::Arena(distance),
                false => WireTarget::Address(address as u64),
            }
        }
    }

    /// Checks an access, and notes it.
    pub(super) fn check(
        &mut self,
        asked: &Asked,
        checks: Checks,
        order: &Order,
        base: usize,
    ) -> Outcome {
        let Asked { address, bytes, .. } = *asked;
        if self.arena.contains(&address) && bytes <= self.arena.end - address {
            return self.check_arena(asked, checks, order, base);
        }
        if self.shared.contains(&address) && bytes <= self.shared.end - address {
            return self.check_shared(asked, checks, order, base);
        }
        let mut outcome = Outcome::default();
        if self.stacks.contains(&address) {
            let owner = (address - self.stacks.start) / self.stride;
            if owner != asked.thread as usize && checks.has(Class::Memory) {
                let detail = format!("it is a variable of thread {owner}");
                outcome.tell(Kind::OtherStack, WireTarget::Private, detail);
            }
            return outcome;
        }
        if self.module.contains(&address) {
            return outcome;
        }
        // Nothing is there, or nothing of the kernel's.
        outcome.stop = true;
        let target = self.target(address);
        let (kind, detail) = match target {
            WireTarget::Arena(_) => (Kind::Bounds, String::new()),
            _ if address < NULL => (Kind::Wild, "a null pointer".to_owned()),
            _ => (Kind::Wild, "no memory of the kernel's is there".to_owned()),
        };
        if checks.has(Class::Memory) {
            outcome.tell(kind, target, detail);
        }
        outcome
    }

    fn check_arena(
        &mut self,
        asked: &Asked,
        checks: Checks,
        order: &Order,
        base: usize,
    ) -> Outcome {
        let mut outcome = Outcome::default();
        let start = asked.address - self.arena.start;
        let part = start..start + asked.bytes;
        let (writes, reads) = (asked.writes(), asked.reads());
        let bits = self.map(part.clone());
        let need = if writes { access::WRITE } else { access::READ };
        let bad = bits.iter().position(|byte| byte & need == 0);
        let empty = first_unset(bits);
        let open = bits.iter().any(|byte| byte & access::WRITE != 0);
        let owner = access::owner_of(bits[0]);
        let allowed = bad.map(|at| bits[at]);
        if let (Some(at), Some(allowed)) = (bad, allowed) {
            if checks.has(Class::Memory) {
                let read_only = writes && allowed & access::READ != 0;
                let kind = if read_only { Kind::ReadOnly } else { Kind::Bounds };
                outcome.tell(kind, WireTarget::Arena((start + at) as i64), String::new());
            }
            return outcome;
        }
        if writes {
            bits.iter_mut().for_each(|byte| *byte |= access::INIT);
        }
        if let Some(at) = empty.filter(|_| reads && checks.has(Class::Init)) {
            let target = WireTarget::Arena((start + at) as i64);
            outcome.tell(Kind::Uninitialised, target, String::new());
        }
        if writes {
            self.written |= 1 << owner;
        } else if self.plain.read >> owner & 1 == 0 {
            self.plain.read |= 1 << owner;
            let Asked { thread, pc, .. } = *asked;
            let access = asked.kind();
            self.seen[owner as usize] = Seen { offset: start, thread, pc, access };
        }
        self.wrote_common |= writes && owner == 0;
        if open {
            outcome.watched = true;
            if checks.has(Class::Race) {
                // Of global memory a volatile access is a relaxed atomic.
                let own = asked.record(asked.what & (ATOMIC | VOLATILE) != 0, order, base);
                let stored = self.has_stored(asked);
                let cells = (&mut self.shadow, &mut self.replaced);
                let clash = race(cells, part, 0, (own, writes, stored), order);
                outcome.tell_race(clash, WireTarget::Arena(start as i64));
            }
        }
        outcome
    }

    fn check_shared(
        &mut self,
        asked: &Asked,
        checks: Checks,
        order: &Order,
        base: usize,
    ) -> Outcome {
        let mut outcome = Outcome { watched: true, ..Outcome::default() };
        let start = asked.address - self.shared.start;
        let part = start..start + asked.bytes;
        let bits = &mut self.shared_map[part.clone()];
        if bits[0] == NOT_SHARED {
            return Outcome::default();
        }
        let bad = bits.iter().position(|byte| *byte == 0);
        let empty = first_unset(bits);
        if let Some(at) = bad {
            if checks.has(Class::Memory) {
                let target = WireTarget::Shared(start + at);
                outcome.tell(Kind::SharedBounds, target, String::new());
            }
            return outcome;
        }
        if asked.writes() {
            bits.iter_mut().for_each(|byte| *byte |= access::INIT);
        }
        if let Some(at) = empty.filter(|_| asked.reads() && checks.has(Class::Init)) {
            let target = WireTarget::Shared(start + at);
            outcome.tell(Kind::Uninitialised, target, String::new());
        }
        if checks.has(Class::Race) {
            let own = asked.record(asked.what & ATOMIC != 0, order, base);
            let stored = self.has_stored(asked);
            let cells = (&mut self.shared_shadow, &mut self.replaced);
            // Another block's shared memory is another memory.
            let since = order.block_began();
            let clash = race(cells, part, since, (own, asked.writes(), stored), order);
            outcome.tell_race(clash, WireTarget::Shared(start));
        }
        outcome
    }

    /// When the thread itself last stored what was there already, where it now accesses something.
    fn has_stored(&self, asked: &Asked) -> Option<u32> {
        let (time, part) = self.stored.get(asked.thread as usize)?;
        let inside = part.start <= asked.address && asked.address + asked.bytes <= part.end;
        inside.then_some(*time)
    }

    /// Keeps what a write needs that is about to be made, to be looked at once more when it has been:
    /// `None` of one that cannot be.
    pub(super) fn unsettled(&self, asked: &Asked, order: &Order, base: usize) -> Option<Unsettled> {
        let Asked { address, bytes, .. } = *asked;
        let plain = asked.writes() && asked.what & (ATOMIC | UPDATE) == 0 && bytes <= MOST_HELD;
        let inside =
            |memory: &Range<usize>| memory.contains(&address) && bytes <= memory.end - address;
        if !plain || !(inside(&self.arena) || inside(&self.shared)) {
            return None;
        }
        let own = asked.record(false, order, base);
        let own = Record { how: own.how | Record::SILENT, ..own };
        Some(Unsettled {
            address,
            held: bytes_at(address, bytes),
            own,
            cells: self.replaced.clone(),
        })
    }

    /// Whether a write that has been made has stored what was there. It then counts as a reader.
    pub(super) fn was_silent(&mut self, write: &Unsettled) -> bool {
        let Unsettled { address, held, own, cells } = write;
        if bytes_at(*address, held.len()) != *held {
            return false;
        }
        let (shadow, start) = match self.arena.contains(address) {
            true => (&mut self.shadow, self.arena.start),
            false => (&mut self.shared_shadow, self.shared.start),
        };
        let thread = own.thread as usize;
        self.stored.resize(self.stored.len().max(thread + 1), (0, 0..0));
        self.stored[thread] = (own.time, *address..*address + held.len());
        let mut cells = cells.iter();
        shadow.visit(address - start..address - start + held.len(), |cell, bytes| {
            if let Some(before) = cells.next() {
                cell.restore(*before);
                let free = cell.reads.iter().position(|r| r.time == 0 || r.thread == own.thread);
                cell.reads[free.unwrap_or(1)] = own.of(bytes);
            }
        });
        true
    }

    /// If the block has written one or more sequences' outputs and nothing else, and has read rows
    /// of a sequence that is not among them: which was read, one that was written, and where.
    pub(super) fn foreign_rows(&self) -> Option<(usize, usize, Seen)> {
        let (read, written) = (self.plain.read as u16 & !1, self.written & !1);
        let foreign = read & !written;
        if written == 0 || foreign == 0 || self.wrote_common {
            return None;
        }
        let (owner, wrote) = (foreign.trailing_zeros() as usize, written.trailing_zeros() as usize);
        Some((owner - 1, wrote - 1, self.seen[owner]))
    }
}

impl Outcome {
    fn tell(&mut self, kind: Kind, target: WireTarget, detail: String) {
        let found = Found { kind, target, detail, other: None, other_writes: false };
        self.found.push(found);
    }

    /// Tells what [`race`] found, if anything.
    fn tell_race(&mut self, clash: Option<(Kind, Record, bool)>, target: WireTarget) {
        let Some((kind, other, other_writes)) = clash else { return };
        let (other, detail) = (Some(other), String::new());
        self.found.push(Found { kind, target, detail, other, other_writes });
    }
}

/// The first byte that holds no value, of an access to bytes with this map. What is copied whole may
/// have padding between its members: of two to four bytes half must be unset to be told, of more an
/// aligned eight.
fn first_unset(bits: &[u8]) -> Option<usize> {
    let part = match bits.len() {
        0 | 1 => 1,
        2..=4 => 2,
        _ => 8,
    };
    let unset = |part: &[u8]| part.iter().all(|byte| byte & access::INIT == 0);
    bits.chunks(part).position(unset).map(|i| i * part)
}

/// What lies in memory that a kernel may access.
fn bytes_at(address: usize, bytes: usize) -> Vec<u8> {
    // SAFETY: the caller has found it inside the arena or shared memory, and no kernel runs meanwhile.
    unsafe { std::slice::from_raw_parts(address as *const u8, bytes) }.to_vec()
}

/// How a recorded access was made.
pub(super) fn kind_of(record: Record, writes: bool) -> Access {
    Access { write: writes, atomic: record.is_atomic(), bytes: record.bytes() }
}

/// Notes an access in its cells; tells the first access there later than `since` that nothing orders
/// with it, and whether that is a write.
fn race(
    (shadow, replaced): (&mut Shadow, &mut Vec<Cell>),
    part: Range<usize>,
    since: u32,
    (own, writes, stored): (Record, bool, Option<u32>),
    order: &Order,
) -> Option<(Kind, Record, bool)> {
    let thread = own.thread;
    let both_atomic = |other: Record| own.is_atomic() && other.is_atomic();
    let is_before = |other: Record| other.time <= since || order.is_before(other, thread);
    let mut found = None;
    replaced.clear();
    shadow.visit(part, |cell, bytes| {
        let own = own.of(bytes);
        let clash = |other: Record| other.meets(own) && !both_atomic(other) && !is_before(other);
        // What it has stored itself it may read, whoever else has stored the same.
        let may_read = !writes && stored.is_some_and(|time| cell.write.time <= time);
        if found.is_none() && clash(cell.write) && !may_read {
            let kind = if writes { Kind::WriteWrite } else { Kind::ReadWrite };
            found = Some((kind, cell.write, true));
        }
        if writes {
            let read = cell.reads.into_iter().find(|read| clash(*read));
            if let Some(read) = read.filter(|_| found.is_none()) {
                let kind = if read.is_silent() { Kind::WriteWrite } else { Kind::WriteRead };
                found = Some((kind, read, read.is_silent()));
            }
            replaced.push(*cell);
            (cell.write, cell.reads) = (own, [Record::NONE; 2]);
        } else {
            let [first, second] = cell.reads;
            let settled = |read: Record| read.thread == thread || is_before(read);
            let slot = if settled(first) {
                0
            } else if settled(second) || order.same_wave(second.thread, thread) {
                1
            } else {
                usize::from(!order.same_wave(first.thread, thread))
            };
            cell.reads[slot] = own;
        }
    });
    found
}

/// Notes a plain access of a whole word where it is plain that nothing is wrong with it; false where
/// a closer look is needed. `GLOBAL` where other blocks may have touched the word.
#[inline]
fn is_plainly_ordered<const GLOBAL: bool>(
    cell: &mut Cell,
    own: Record,
    writes: bool,
    order: &Order,
) -> bool {
    let is_before = |other| order.is_plainly_before::<GLOBAL>(other, own.thread);
    if !cell.is_whole() || !is_before(cell.write) {
        return false;
    }
    let [first, second] = cell.reads;
    if writes {
        let settled = is_before(first) && is_before(second);
        if settled {
            (cell.write, cell.reads) = (own, [Record::NONE; 2]);
        }
        return settled;
    }
    // Of two readers that nothing has ordered since, one is another than whoever writes next, who
    // then comes after neither: a third need not be kept.
    let known = order.is_current(first)
        && (first.thread == own.thread
            || (order.is_current(second) && first.thread != second.thread));
    if known {
        true
    } else if is_before(first) {
        cell.reads[0] = own;
        true
    } else if is_before(second) {
        cell.reads[1] = own;
        true
    } else {
        false
    }
}
