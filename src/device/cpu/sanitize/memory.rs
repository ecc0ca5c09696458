//! Where an access lies, and whether it may be: the arena, shared memory, stacks, the module.

use std::io;
use std::ops::Range;
use std::ptr;

use super::super::super::finding::{Access, Class, Kind, access};
use super::super::cache::SharedArray;
use super::super::shared::GUARD;
use super::order::Order;
use super::shadow::{CELL, Cell, Record, Zeroed};
use super::wire::{Checks, WireTarget};
use super::{ATOMIC, UPDATE, VOLATILE, WRITE};

/// Addresses below it are null pointers with an offset.
const NULL: usize = 1 << 16;

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

/// Memory as the checker sees it.
pub(super) struct Memory {
    arena: Range<usize>,
    /// The access map, a byte for each of the arena's.
    map: *mut u8,
    cells: Zeroed<Cell>,
    /// The module's thread-local segment: shared memory.
    shared: Range<usize>,
    shared_map: Vec<u8>,
    shared_cells: Zeroed<Cell>,
    /// The arrays in it, and the dynamic block.
    arrays: Vec<Range<usize>>,
    stacks: Range<usize>,
    stride: usize,
    module: Range<usize>,
    /// Of it, what is ours and not the kernel's.
    shims: Range<usize>,
    /// Owners whose rows the block has read and written, a bit each.
    read: u16,
    written: u16,
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
            cells: Zeroed::empty(),
            shared: 0..0,
            shared_map: Vec::new(),
            shared_cells: Zeroed::empty(),
            arrays: Vec::new(),
            stacks: 0..0,
            stride: 1,
            module: 0..0,
            shims: 0..0,
            read: 0,
            written: 0,
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
        let cells = Zeroed::new(bytes / CELL + 1)?;
        Ok(Memory { arena, map, cells, stacks: first..end, stride, ..Memory::none() })
    }

    /// Forgets who touched what.
    pub(super) fn forget(&mut self) -> io::Result<()> {
        self.cells = Zeroed::new(self.cells.len())?;
        self.shared_cells = Zeroed::new(self.shared_cells.len())?;
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
    ) -> io::Result<()> {
        self.shared = start..start + bytes;
        (self.module, self.shims) = (module, shims);
        self.arrays.clear();
        self.arrays.extend(arrays.iter().map(|array| {
            array.offset..array.offset + if array.dynamic { dynamic } else { array.bytes }
        }));
        self.shared_map.clear();
        self.shared_map.resize(bytes, 0);
        if self.shared_cells.len() < bytes / CELL + 1 {
            self.shared_cells = Zeroed::new(bytes / CELL + 1)?;
        }
        Ok(())
    }

    /// Begins a block: shared memory holds nothing.
    pub(super) fn begin_block(&mut self) {
        for array in &self.arrays {
            self.shared_map[array.clone()].fill(access::READ | access::WRITE);
        }
        (self.read, self.written, self.wrote_common) = (0, 0, false);
    }

    /// Whether it is a read of an input that everything allows: the most frequent access by far.
    #[inline]
    pub(super) fn is_plain_input(&self, address: usize, bytes: usize) -> bool {
        const ALL: u128 = 0x0707_0707_0707_0707_0707_0707_0707_0707;
        const WANT: u128 = 0x0505_0505_0505_0505_0505_0505_0505_0505;
        let offset = address.wrapping_sub(self.arena.start);
        if offset >= (self.arena.end - self.arena.start).saturating_sub(16) {
            return false;
        }
        // SAFETY: at least 16 bytes of the map lie from `offset` on.
        let bits = unsafe {
            let at = self.map.add(offset);
            match bytes {
                1 => u128::from(at.read()),
                2 => u128::from(at.cast::<u16>().read_unaligned()),
                4 => u128::from(at.cast::<u32>().read_unaligned()),
                8 => u128::from(at.cast::<u64>().read_unaligned()),
                16 => at.cast::<u128>().read_unaligned(),
                _ => return false,
            }
        };
        let mask = if bytes == 16 { !0 } else { (1 << (8 * bytes)) - 1 };
        let owner = access::owner_of(bits as u8);
        (bits ^ WANT) & ALL & mask == 0 && self.read >> owner & 1 == 1
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
        match self.arena.contains(&address) {
            true => (address - self.arena.start) as u64,
            false => 1 << 63 | address.wrapping_sub(self.shared.start) as u64,
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
        let near = self.arena.start.saturating_sub(GUARD)..self.arena.end + GUARD;
        if near.contains(&address) {
            WireTarget::Arena(address.wrapping_sub(self.arena.start) as i64)
        } else if self.shared.contains(&address) {
            WireTarget::Shared(address - self.shared.start)
        } else if self.stacks.contains(&address) {
            WireTarget::Private
        } else {
            WireTarget::Address(address as u64)
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
        let empty = bits.iter().position(|byte| byte & access::INIT == 0);
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
        let owners = if writes { &mut self.written } else { &mut self.read };
        if *owners >> owner & 1 == 0 {
            *owners |= 1 << owner;
            if !writes {
                let Asked { thread, pc, .. } = *asked;
                let access = asked.kind();
                self.seen[owner as usize] = Seen { offset: start, thread, pc, access };
            }
        }
        self.wrote_common |= writes && owner == 0;
        if open {
            outcome.watched = true;
            if checks.has(Class::Race) {
                // Of global memory a volatile access is a relaxed atomic.
                let atomic = asked.what & (ATOMIC | VOLATILE) != 0;
                let cells = &mut self.cells.items()[start / CELL..=(part.end - 1) / CELL];
                if let Some((kind, other, other_writes)) =
                    race(cells, 0, asked, atomic, order, base)
                {
                    let target = WireTarget::Arena(start as i64);
                    let (other, detail) = (Some(other), String::new());
                    outcome.found.push(Found { kind, target, detail, other, other_writes });
                }
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
        let bad = bits.iter().position(|byte| *byte == 0);
        let empty = bits.iter().position(|byte| byte & access::INIT == 0);
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
            let atomic = asked.what & ATOMIC != 0;
            let cells = &mut self.shared_cells.items()[start / CELL..=(part.end - 1) / CELL];
            // Another block's shared memory is another memory.
            let since = order.block_began();
            if let Some((kind, other, other_writes)) =
                race(cells, since, asked, atomic, order, base)
            {
                let target = WireTarget::Shared(start);
                let (other, detail) = (Some(other), String::new());
                outcome.found.push(Found { kind, target, detail, other, other_writes });
            }
        }
        outcome
    }

    /// If the block has written one or more sequences' outputs and nothing else, and has read rows
    /// of a sequence that is not among them: which was read, one that was written, and where.
    pub(super) fn foreign_rows(&self) -> Option<(usize, usize, Seen)> {
        let (read, written) = (self.read & !1, self.written & !1);
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
}

/// How a recorded access was made.
pub(super) fn kind_of(record: Record, writes: bool) -> Access {
    let bytes = u64::from(record.how & !Record::ATOMIC);
    Access { write: writes, atomic: record.is_atomic(), bytes }
}

/// Notes an access in its cells; tells the first access there later than `since` that nothing orders
/// with it.
fn race(
    cells: &mut [Cell],
    since: u32,
    asked: &Asked,
    atomic: bool,
    order: &Order,
    base: usize,
) -> Option<(Kind, Record, bool)> {
    let thread = asked.thread;
    let how = asked.bytes.min(255) as u16 | if atomic { Record::ATOMIC } else { 0 };
    let pc = asked.pc.wrapping_sub(base) as u32;
    let own = Record { time: order.now, thread, how, pc };
    let clash = |other: Record| {
        other.time > since && !(atomic && other.is_atomic()) && !order.is_before(other, thread)
    };
    let mut found = None;
    for cell in cells {
        if asked.writes() {
            if found.is_none() {
                if clash(cell.write) {
                    found = Some((Kind::WriteWrite, cell.write, true));
                } else if let Some(read) = cell.reads.iter().find(|read| clash(**read)) {
                    found = Some((Kind::WriteRead, *read, false));
                }
            }
            let none = Record { time: 0, thread: 0, how: 0, pc: 0 };
            *cell = Cell { write: own, reads: [none; 2] };
        } else {
            if found.is_none() && clash(cell.write) {
                found = Some((Kind::ReadWrite, cell.write, true));
            }
            let [first, second] = cell.reads;
            let settled = |read: Record| {
                read.time <= since || read.thread == thread || order.is_before(read, thread)
            };
            let slot = if settled(first) {
                0
            } else if settled(second) || order.same_wave(second.thread, thread) {
                1
            } else {
                usize::from(!order.same_wave(first.thread, thread))
            };
            cell.reads[slot] = own;
        }
    }
    found
}
