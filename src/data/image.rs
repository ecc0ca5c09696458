//! The image of device memory that a run works on: tensors, gaps, guard zones, poison.
//!
//! Every byte that a kernel may neither read nor write is poison: rows past `seq_len` and (in two of
//! three runs) before the window, gaps between strides, other layers, the zones around each buffer,
//! and, before the launch, the outputs and the scratch. After the run everything but the outputs'
//! own elements and the scratch must be as it was, to the bit.

use super::access;
use super::inputs::{Inputs, Rows};
use crate::device::{ARENA_ALIGN, Exchange};
use crate::problem::{Axis, Case, DType, Placement, Placements, Pointer, Run, Stage, Tensor};
use std::fmt;
use std::ops::Range;

/// Bytes of poison before, between and after the buffers.
pub const GUARD: usize = 4096;

/// Alignment of each buffer, bytes; a tensor's own base offset comes on top.
const BUFFER_ALIGN: usize = 256;

/// What a byte that nothing may touch holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Poison {
    /// All bits set: NaN in every float type, -1 in every integer type.
    Nan,
    /// A large positive finite number.
    Plus,
    /// A large negative finite number.
    Minus,
}

impl Poison {
    /// The name in a saved case.
    pub fn name(self) -> &'static str {
        match self {
            Poison::Nan => "nan",
            Poison::Plus => "plus",
            Poison::Minus => "minus",
        }
    }

    /// The filler's value in a type: half of f16's largest, 2^100 where there is room.
    pub fn value(self, dtype: DType) -> f32 {
        let large = if dtype == DType::F16 { 30_000.0 } else { 1.267_650_6e30 };
        match self {
            Poison::Nan => f32::NAN,
            Poison::Plus => large,
            Poison::Minus => -large,
        }
    }

    /// An element of it as stored, as often as 8 bytes hold it.
    fn element(self, of: Element) -> [u8; 8] {
        let mut element = [0xff; 8];
        match (self, of) {
            (Poison::Nan, _) => {}
            (_, Element::Float(dtype)) => {
                for at in 0..8 / dtype.size() {
                    dtype.store(&mut element, at, self.value(dtype) as f64);
                }
            }
            // Seven eighths of the largest of any size, and of the least.
            (Poison::Plus, Element::Int(_)) => element = [0x70; 8],
            (Poison::Minus, Element::Int(_)) => element = [0x90; 8],
        }
        element
    }

    fn fill(self, bytes: &mut [u8], of: Element) {
        if self == Poison::Nan {
            return bytes.fill(0xff);
        }
        let element = &self.element(of)[..of.size()];
        // A piece that stays in the nearest cache, again and again.
        let mut piece = [0u8; 4096];
        piece.chunks_exact_mut(element.len()).for_each(|to| to.copy_from_slice(element));
        for to in bytes.chunks_mut(piece.len()) {
            to.copy_from_slice(&piece[..to.len()]);
        }
    }
}

/// What the elements of a buffer are. A float's poison has a value in its type, an integer's a pattern of
/// bytes: there is no float type of every size that kernels count in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Element {
    /// Floating-point numbers of a type.
    Float(DType),
    /// Integers, signed or not, of so many bytes: 1, 2, 4 or 8.
    Int(usize),
}

impl Element {
    /// Bytes of one.
    pub fn size(self) -> usize {
        match self {
            Element::Float(dtype) => dtype.size(),
            Element::Int(bytes) => bytes,
        }
    }
}

/// The poison of one run: K's, V's, and everything else's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Poisons {
    /// In and after K's buffer.
    pub k: Poison,
    /// In and after V's buffer.
    pub v: Poison,
    /// In and after all others.
    pub rest: Poison,
}

impl Poisons {
    /// NaN everywhere: what the other images can be made of.
    pub const NAN: Poisons = Poisons { k: Poison::Nan, v: Poison::Nan, rest: Poison::Nan };

    /// The three runs of a case. K and V are NaN apart, so that a mask on one does not hide the
    /// other, and both are filled with large numbers of each sign: a maximum that skips NaN takes
    /// a large score, whichever sign q gives it.
    pub const RUNS: [Poisons; 3] = [
        Poisons { k: Poison::Nan, v: Poison::Plus, rest: Poison::Nan },
        Poisons { k: Poison::Plus, v: Poison::Nan, rest: Poison::Plus },
        Poisons { k: Poison::Minus, v: Poison::Minus, rest: Poison::Minus },
    ];

    /// A run that tells what a failing case left of its outputs. V and the outputs hold fillers of
    /// opposite signs: what was made of V's filler is none that nothing wrote.
    pub const APART: Poisons = Poisons { k: Poison::Minus, v: Poison::Minus, rest: Poison::Plus };
}

impl Poisons {
    /// Whether keys before the window are poison: where that is NaN in K or V. In the last run they
    /// hold what an engine would still have there, and a key outside the window may look attractive.
    fn evicts(&self) -> bool {
        self.k == Poison::Nan || self.v == Poison::Nan
    }

    /// The poison of a buffer. Scores and weights stand where K does: what they are multiplied by
    /// is V's.
    pub fn of(&self, buffer: &str) -> Poison {
        match buffer {
            "k" | "scores" | "probs" => self.k,
            "v" => self.v,
            _ => self.rest,
        }
    }
}

impl fmt::Display for Poisons {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "k={},v={},rest={}", self.k.name(), self.v.name(), self.rest.name())
    }
}

/// What a kernel may do with a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Read it.
    Input,
    /// Write its elements, or some of them.
    Output,
    /// Anything.
    Scratch,
    /// Anything, but it is zeros before the run, and must be so after it: a counter.
    Zeroed,
}

/// One buffer of the image.
#[derive(Debug, Clone)]
pub struct Buffer {
    /// The pointer argument that it stands for, or the scratch buffer's name.
    pub name: String,
    /// Its role.
    pub role: Role,
    /// Its elements.
    pub element: Element,
    /// Where it lies in the image, bytes.
    pub range: Range<usize>,
    /// The tensor, where it is one.
    pub tensor: Option<Tensor>,
}

/// The judged elements of an output tensor, and what may happen around them.
#[derive(Debug, Clone)]
pub struct Output {
    /// Which one.
    pub pointer: Pointer,
    /// The element type.
    pub dtype: DType,
    /// The judged elements, in order.
    pub runs: Vec<Run>,
    /// Byte of the image where the buffer begins.
    base: usize,
    /// Rows of which elements besides the judged ones may hold one other value: a score of -inf, a
    /// weight of 0.
    open: Vec<Open>,
}

/// A row of scores or weights, in elements of the buffer.
#[derive(Debug, Clone)]
struct Open {
    /// Its sequence.
    sequence: usize,
    /// All `capacity` elements.
    row: Range<usize>,
    /// Those that are judged.
    judged: Range<usize>,
}

impl Output {
    fn new(case: &Case, tensor: &Tensor, base: usize) -> Output {
        let mut open = Vec::new();
        if matches!(tensor.pointer, Pointer::Scores | Pointer::Probs) {
            for s in 0..case.batch() {
                for h in 0..case.num_heads {
                    let first = tensor.place.index(s, 0, h, 0, 0);
                    let keys = case.attended(s);
                    let judged = first + keys.start..first + keys.end;
                    open.push(Open { sequence: s, row: first..first + case.capacity, judged });
                }
            }
        }
        let runs = case.runs(tensor);
        Output { pointer: tensor.pointer, dtype: tensor.dtype, runs, base, open }
    }

    /// Adds the bytes that a kernel may write.
    fn claim(&self, writable: &mut Vec<Range<usize>>) {
        self.each_writable(|range, _| writable.push(range));
    }

    /// Visits the bytes that a kernel may write, with the sequence whose they are.
    fn each_writable(&self, mut visit: impl FnMut(Range<usize>, usize)) {
        let size = self.dtype.size();
        let mut visit = |first: usize, count: usize, s: usize| {
            let at = self.base + first * size;
            visit(at..at + count * size, s);
        };
        if !self.open.is_empty() {
            let rows = self.open.iter();
            return rows.for_each(|o| visit(o.row.start, o.row.len(), o.sequence));
        }
        for run in &self.runs {
            match run.step {
                1 => visit(run.first, run.count, run.at[0]),
                step => (0..run.count).for_each(|i| visit(run.first + i * step, 1, run.at[0])),
            }
        }
    }

    /// The byte of element `i` of a run.
    fn byte(&self, run: &Run, i: usize) -> usize {
        self.base + (run.first + i * run.step) * self.dtype.size()
    }

    /// What the elements beside the judged ones of an open row may hold.
    fn tolerated(&self) -> f64 {
        if self.pointer == Pointer::Scores { f64::NEG_INFINITY } else { 0.0 }
    }

    /// The judged elements' values, in order.
    pub fn values<'a>(&'a self, memory: &'a [u8]) -> impl Iterator<Item = f64> + 'a {
        self.runs.iter().flat_map(move |run| {
            (0..run.count).map(move |i| self.dtype.load(&memory[self.byte(run, i)..], 0))
        })
    }

    /// The judged elements as stored.
    pub fn bytes(&self, memory: &[u8], bytes: &mut Vec<u8>) {
        let size = self.dtype.size();
        for run in &self.runs {
            if run.step == 1 {
                let at = self.byte(run, 0);
                bytes.extend_from_slice(&memory[at..at + run.count * size]);
            } else {
                for i in 0..run.count {
                    let at = self.byte(run, i);
                    bytes.extend_from_slice(&memory[at..at + size]);
                }
            }
        }
    }

    /// Sequence, head, token and element of judged element `index`.
    pub fn place(&self, mut index: usize) -> [usize; 4] {
        for run in &self.runs {
            if index < run.count {
                let [s, h, t] = run.at;
                return if run.along_tokens { [s, h, t + index, 0] } else { [s, h, t, index] };
            }
            index -= run.count;
        }
        [0; 4]
    }
}

/// A write where a kernel must not write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stray {
    /// In words: which buffer, and where in or beside it.
    pub place: String,
    /// Byte of the image.
    pub byte: usize,
}

/// The layout of an image.
#[derive(Debug, Clone)]
pub struct Image {
    buffers: Vec<Buffer>,
    outputs: Vec<Output>,
    size: usize,
    /// Byte ranges that the kernel may write, ascending, disjoint.
    writable: Vec<Range<usize>>,
}

/// A scratch buffer that a kernel asks for.
#[derive(Debug, Clone)]
pub struct Scratch {
    /// Its name.
    pub name: String,
    /// What it holds, and is poisoned as.
    pub element: Element,
    /// Elements.
    pub elements: usize,
    /// Whether it is zeros before a run, and must be so after it.
    pub zeroed: bool,
}

impl Image {
    /// Lays the buffers of a case out. `None` where the image would not fit in memory addresses.
    pub fn new(case: &Case, places: &Placements, scratch: &[Scratch]) -> Option<Image> {
        let mut wanted = Vec::new();
        for tensor in case.tensors(places).ok()? {
            let written = case.stage.port(tensor.pointer).is_some_and(|port| port.write);
            let role = if written { Role::Output } else { Role::Input };
            let name = tensor.pointer.name().to_owned();
            let element = Element::Float(tensor.dtype);
            wanted.push((name, role, element, tensor.place.span(), Some(tensor)));
        }
        for Scratch { name, element, elements, zeroed } in scratch {
            let role = if *zeroed { Role::Zeroed } else { Role::Scratch };
            wanted.push((name.clone(), role, *element, *elements, None));
        }
        let mut buffers = Vec::with_capacity(wanted.len());
        let mut at = GUARD;
        for (name, role, element, elements, tensor) in wanted {
            let end = elements.checked_mul(element.size())?.checked_add(at)?;
            buffers.push(Buffer { name, role, element, range: at..end, tensor });
            at = end.checked_add(GUARD + BUFFER_ALIGN)? / BUFFER_ALIGN * BUFFER_ALIGN;
        }
        let (mut outputs, mut writable) = (Vec::new(), Vec::new());
        for buffer in &buffers {
            match (&buffer.tensor, buffer.role) {
                (Some(tensor), Role::Output) => {
                    let output = Output::new(case, tensor, buffer.range.start);
                    output.claim(&mut writable);
                    outputs.push(output);
                }
                (_, Role::Scratch) => writable.push(buffer.range.clone()),
                _ => {}
            }
        }
        writable.sort_by_key(|r| r.start);
        // Whole pages, so that nothing lies between the last one's guard zone and what no kernel can touch.
        let size = at.checked_next_multiple_of(ARENA_ALIGN)?;
        Some(Image { buffers, outputs, size, writable })
    }

    /// Bytes of the image.
    pub fn size(&self) -> usize {
        self.size
    }

    /// The buffers, in the order in which they lie.
    pub fn buffers(&self) -> &[Buffer] {
        &self.buffers
    }

    /// The output tensors of the stage.
    pub fn outputs(&self) -> &[Output] {
        &self.outputs
    }

    /// An output by its pointer.
    ///
    /// # Panics
    /// If the stage has no such output.
    pub fn output(&self, pointer: Pointer) -> &Output {
        let found = self.outputs.iter().find(|o| o.pointer == pointer);
        found.unwrap_or_else(|| panic!("no output {pointer} in the image"))
    }

    /// A buffer by name.
    pub fn buffer(&self, name: &str) -> Option<&Buffer> {
        self.buffers.iter().find(|b| b.name == name)
    }

    /// The byte where element `index` of a buffer lies.
    ///
    /// # Panics
    /// If there is no such buffer.
    pub fn element(&self, name: &str, index: usize) -> usize {
        let b = self.buffer(name).unwrap_or_else(|| panic!("no buffer {name} in the image"));
        b.range.start + index * b.element.size()
    }

    /// Fills memory with poison and then the inputs.
    pub fn write(&self, case: &Case, inputs: &Inputs, poisons: Poisons, memory: &mut [u8]) {
        for (buffer, area) in self.areas() {
            poisons.of(&buffer.name).fill(&mut memory[area], buffer.element);
            if buffer.role == Role::Zeroed {
                memory[buffer.range.clone()].fill(0);
            }
        }
        self.write_inputs(case, inputs, poisons, memory);
        self.poison_empty_parts(inputs, poisons, memory);
    }

    /// Whether the image of a run differs from one with [`Poisons::NAN`] in nothing but the poison; else
    /// keys before the window are in it.
    pub fn is_exchanged(&self, case: &Case, poisons: Poisons) -> bool {
        poisons.evicts() || (0..case.batch()).all(|s| case.live(s).start == 0)
    }

    /// How such an image, to lie at byte `to`, is made of that one, at byte `from`.
    pub fn exchanges(
        &self,
        poisons: Poisons,
        from: usize,
        to: usize,
    ) -> impl Iterator<Item = Exchange> {
        self.areas().map(move |(buffer, area)| Exchange {
            from: from + area.start,
            to: to + area.start,
            bytes: area.len(),
            size: buffer.element.size(),
            element: poisons.of(&buffer.name).element(buffer.element),
        })
    }

    /// The buffers, with the bytes that their poison fills: from the guard zone before each to that
    /// before the next.
    fn areas(&self) -> impl Iterator<Item = (&Buffer, Range<usize>)> {
        let ends = self.buffers.iter().skip(1).map(|next| next.range.start - GUARD);
        let mut at = 0;
        self.buffers.iter().zip(ends.chain([self.size])).map(move |(buffer, end)| {
            let area = at..end;
            at = end;
            (buffer, area)
        })
    }

    /// Writes the inputs, and nothing around them.
    pub fn write_inputs(&self, case: &Case, inputs: &Inputs, poisons: Poisons, memory: &mut [u8]) {
        for buffer in &self.buffers {
            self.write_input(buffer, case, inputs, poisons, memory);
        }
    }

    /// The bytes of one input's buffer; `None` where there is no such buffer.
    pub fn input(
        &self,
        name: &str,
        case: &Case,
        inputs: &Inputs,
        poisons: Poisons,
    ) -> Option<Vec<u8>> {
        let buffer = self.buffer(name)?;
        let alone = Buffer { range: 0..buffer.range.len(), ..buffer.clone() };
        let mut bytes = vec![0; alone.range.len()];
        self.write_input(&alone, case, inputs, poisons, &mut bytes);
        Some(bytes)
    }

    fn write_input(
        &self,
        buffer: &Buffer,
        case: &Case,
        inputs: &Inputs,
        poisons: Poisons,
        memory: &mut [u8],
    ) {
        let Some(tensor) = &buffer.tensor else { return };
        let start = buffer.range.start;
        match tensor.pointer {
            Pointer::SeqLens => {
                let words_of = case.seq_lens.iter().map(|n| (*n as i32).to_le_bytes());
                words(&mut memory[start..], words_of);
            }
            Pointer::Pos => {
                let words_of = (0..case.batch()).map(|s| (case.pos(s) as u32).to_le_bytes());
                words(&mut memory[start..], words_of);
            }
            pointer => {
                put_rows(buffer, case, inputs, memory, &|s| match pointer {
                    // The row at `pos` is not there yet.
                    Pointer::K | Pointer::V if case.stage == Stage::Append => 0..case.pos(s),
                    Pointer::K | Pointer::V | Pointer::Scores | Pointer::Probs => {
                        if poisons.evicts() { case.live(s) } else { 0..case.seq_lens[s] }
                    }
                    _ => 0..tensor.shape.tokens[s],
                })
            }
        }
    }

    /// What a kernel may do with each byte, for a run that is checked: `map` is all 0, a byte for each
    /// of the image's.
    ///
    /// Of an input the elements that hold something may be read; keys before the window, too: they
    /// are the sequence's own. Of an output the elements that the stage writes may be written and
    /// then read, and scratch. All else is forbidden: rows from `seq_len` on, other layers, gaps,
    /// the zones around the buffers. Rows of a batch are marked as their sequence's.
    pub fn allow(&self, case: &Case, inputs: &Inputs, map: &mut [u8]) {
        let batch = case.batch();
        for buffer in &self.buffers {
            let Some(tensor) = &buffer.tensor else {
                let held = if buffer.role == Role::Zeroed { access::INIT } else { 0 };
                map[buffer.range.clone()].fill(access::READ | access::WRITE | held);
                continue;
            };
            let is_int = matches!(tensor.pointer, Pointer::SeqLens | Pointer::Pos);
            if !is_int && !inputs.0.contains_key(&tensor.pointer) {
                continue;
            }
            let held = |s: usize| match tensor.pointer {
                Pointer::K | Pointer::V if case.stage == Stage::Append => 0..case.pos(s),
                Pointer::K | Pointer::V => 0..case.seq_lens[s],
                Pointer::Scores | Pointer::Probs => case.live(s),
                _ => 0..tensor.shape.tokens[s],
            };
            let layer =
                if matches!(tensor.pointer, Pointer::K | Pointer::V) { case.layer } else { 0 };
            let (size, place) = (buffer.element.size(), &tensor.place);
            let own = tensor.shape.tokens.len() == batch && batch > 1;
            let step_d = if tensor.shape.dim == 1 { 1 } else { place.stride(Axis::Dim) };
            for s in 0..tensor.shape.tokens.len() {
                let bits = access::READ | access::INIT | if own { access::owner(s) } else { 0 };
                for (h, t) in (0..tensor.shape.heads).flat_map(|h| held(s).map(move |t| (h, t))) {
                    let first = buffer.range.start + place.index(s, layer, h, t, 0) * size;
                    match step_d {
                        1 => map[first..first + tensor.shape.dim * size].fill(bits),
                        step => (0..tensor.shape.dim)
                            .for_each(|d| map[first + d * step * size..][..size].fill(bits)),
                    }
                }
            }
        }
        self.allow_nothing_of_empty_parts(inputs, map);
        for output in &self.outputs {
            let owner = |s: usize| if batch > 1 { access::owner(s) } else { 0 };
            output.each_writable(|at, s| {
                let held = map[at.start] & access::INIT;
                map[at].fill(access::READ | access::WRITE | held | owner(s));
            });
        }
    }

    /// The rows of an empty part hold nothing.
    fn allow_nothing_of_empty_parts(&self, inputs: &Inputs, map: &mut [u8]) {
        for range in self.empty_parts(inputs) {
            map[range].fill(access::READ);
        }
    }

    /// The first judged element of an output that nothing has written, as an index among them.
    pub fn unwritten(&self, output: Pointer, map: &[u8]) -> Option<usize> {
        let output = self.output(output);
        let bytes = output.runs.iter().flat_map(|run| (0..run.count).map(|i| output.byte(run, i)));
        bytes.into_iter().position(|byte| map[byte] & access::INIT == 0)
    }

    /// An empty part has an lse of -inf, and in its rows of `partial_out` stands what happened to be
    /// there: poison.
    fn poison_empty_parts(&self, inputs: &Inputs, poisons: Poisons, memory: &mut [u8]) {
        for range in self.empty_parts(inputs) {
            poisons
                .of(Pointer::PartialOut.name())
                .fill(&mut memory[range], Element::Float(DType::F32));
        }
    }

    /// Where the rows of empty parts lie, bytes.
    fn empty_parts(&self, inputs: &Inputs) -> Vec<Range<usize>> {
        let mut found = Vec::new();
        let Some(lses) = inputs.0.get(&Pointer::PartialLse) else { return found };
        let parts = self.buffers.iter().find(|b| b.name == Pointer::PartialOut.name());
        let Some((buffer, tensor)) = parts.and_then(|b| Some((b, b.tensor.as_ref()?))) else {
            return found;
        };
        let size = buffer.element.size();
        for (s, h) in (0..tensor.shape.tokens.len())
            .flat_map(|s| (0..tensor.shape.heads).map(move |h| (s, h)))
        {
            let lse = lses.all(s, h).iter().enumerate();
            for (part, _) in lse.filter(|(_, lse)| **lse == f32::NEG_INFINITY) {
                let first = buffer.range.start + tensor.place.index(s, 0, h, part, 0) * size;
                found.push(first..first + tensor.shape.dim * size);
            }
        }
        found
    }

    /// The first byte that changed and may not have.
    pub fn stray_write(&self, before: &[u8], after: &[u8]) -> Option<Stray> {
        self.stray_within(std::iter::once(0..self.size), before, after)
    }

    /// As [`Image::stray_write`], among the bytes of the buffers that are outputs: elsewhere `after` may
    /// hold anything.
    pub fn stray_in_outputs(&self, before: &[u8], after: &[u8]) -> Option<Stray> {
        let outputs = self.buffers.iter().filter(|buffer| buffer.role == Role::Output);
        self.stray_within(outputs.map(|buffer| buffer.range.clone()), before, after)
    }

    /// A byte that changed and may not have.
    pub fn stray_at(&self, byte: usize) -> Stray {
        Stray { place: self.describe(byte), byte }
    }

    fn stray_within(
        &self,
        areas: impl Iterator<Item = Range<usize>>,
        before: &[u8],
        after: &[u8],
    ) -> Option<Stray> {
        let stray = |byte| Some(self.stray_at(byte));
        for area in areas {
            let mut at = area.start;
            let inside = self.writable.iter().filter(|r| r.end > area.start && r.start < area.end);
            let end = std::iter::once((area.end, area.end));
            for (start, end) in inside.map(|r| (r.start, r.end)).chain(end) {
                if start > at && before[at..start] != after[at..start] {
                    return stray((at..start).find(|i| before[*i] != after[*i])?);
                }
                at = at.max(end);
            }
        }
        // Beside the judged elements of an open row: as it was, or the one other value.
        for output in &self.outputs {
            let (size, tolerated) = (output.dtype.size(), output.tolerated());
            for Open { row, judged, .. } in &output.open {
                for element in row.clone().filter(|i| !judged.contains(i)) {
                    let byte = output.base + element * size;
                    let same = before[byte..byte + size] == after[byte..byte + size];
                    if !same && output.dtype.load(&after[byte..], 0) != tolerated {
                        return stray(byte);
                    }
                }
            }
        }
        None
    }

    /// A byte of the image in words, and where it may not be touched: why not.
    pub fn locate(&self, case: &Case, byte: usize) -> String {
        let inside = self.buffers.iter().find(|b| b.range.contains(&byte));
        let Some((b, tensor)) = inside.and_then(|b| Some((b, b.tensor.as_ref()?))) else {
            return self.describe(byte);
        };
        let element = (byte - b.range.start) / b.element.size();
        let place = &tensor.place;
        let Some(at) = place.coordinates(element) else {
            let Some((at, beyond)) = place.nearest_below(element) else {
                return format!("{} before the tensor's first element", b.name);
            };
            let elements = if beyond == 1 { "element" } else { "elements" };
            let name = tensor_element(&b.name, place, at);
            return format!("{name} + {beyond} {elements}, in a gap between its strides");
        };
        let [s, layer, _, token, _] = at;
        let name = tensor_element(&b.name, place, at);
        let len = case.seq_lens.get(s).copied().unwrap_or(0);
        let keyed =
            matches!(tensor.pointer, Pointer::K | Pointer::V | Pointer::Scores | Pointer::Probs);
        match tensor.pointer {
            Pointer::K | Pointer::V if layer != case.layer => {
                format!("{name}, of another layer than the attended one, {}", case.layer)
            }
            _ if keyed && token >= len => {
                let past = token - len + 1;
                let tokens = if past == 1 { "token" } else { "tokens" };
                format!("{name}, {past} {tokens} past the sequence's seq_len of {len}")
            }
            _ => name,
        }
    }

    /// A byte of the image in words.
    pub fn describe(&self, byte: usize) -> String {
        let distance = |b: &Buffer| {
            if byte < b.range.start {
                b.range.start - byte
            } else {
                (byte + 1).saturating_sub(b.range.end)
            }
        };
        let Some(b) = self.buffers.iter().min_by_key(|b| distance(b)) else {
            return "an image without buffers".to_owned();
        };
        if byte < b.range.start {
            return format!("{} before {}", bytes(b.range.start - byte), b.name);
        }
        if byte >= b.range.end {
            return format!("{} past the end of {}", bytes(byte + 1 - b.range.end), b.name);
        }
        let element = (byte - b.range.start) / b.element.size();
        let Some(tensor) = &b.tensor else {
            let kind = match b.role {
                Role::Zeroed => "scratch that is zeros before a run, and must be after it",
                _ => "scratch",
            };
            return format!("{} at element {element} ({kind})", b.name);
        };
        let kind = match b.role {
            Role::Output => "not among the elements that the stage writes",
            _ => "an input",
        };
        match tensor.place.coordinates(element) {
            Some(at) => {
                format!("{} ({kind})", tensor_element(&b.name, &tensor.place, at))
            }
            None => format!("{} at element {element} (a gap between its strides)", b.name),
        }
    }
}

fn bytes(count: usize) -> String {
    if count == 1 { "1 byte".to_owned() } else { format!("{count} bytes") }
}

/// `v[sequence 1, head 2, token 17, element 5]`, without the axes of extent 1.
fn tensor_element(name: &str, place: &Placement, at: [usize; 5]) -> String {
    let axes = place.layout().axes().unwrap_or_default();
    let place: Vec<String> = axes
        .iter()
        .filter(|a| place.extents().get(**a) > 1)
        .map(|a| format!("{} {}", a.word(), at[*a as usize]))
        .collect();
    if place.is_empty() { format!("{name}[0]") } else { format!("{name}[{}]", place.join(", ")) }
}

/// Puts rows of an input where they belong in the image, of sequence `s` the tokens `held(s)`.
fn put_rows(
    buffer: &Buffer,
    case: &Case,
    inputs: &Inputs,
    memory: &mut [u8],
    held: &dyn Fn(usize) -> Range<usize>,
) {
    let Some(tensor) = &buffer.tensor else { return };
    let Some(rows) = inputs.0.get(&tensor.pointer) else { return };
    let memory = &mut memory[buffer.range.start..];
    let layer = if matches!(tensor.pointer, Pointer::K | Pointer::V) { case.layer } else { 0 };
    match rows.data.dtype.size() {
        2 => scatter::<2>(&tensor.place, layer, rows, held, memory),
        _ => scatter::<4>(&tensor.place, layer, rows, held, memory),
    }
}

/// Stores 4-byte words one after the other.
fn words(memory: &mut [u8], values: impl Iterator<Item = [u8; 4]>) {
    for (to, value) in memory.chunks_exact_mut(4).zip(values) {
        to.copy_from_slice(&value);
    }
}

/// Copies dense rows to their places, of sequence `s` the tokens `held(s)`. `SIZE` is the element's,
/// in bytes.
fn scatter<const SIZE: usize>(
    place: &Placement,
    layer: usize,
    tensor: &Rows,
    held: &dyn Fn(usize) -> Range<usize>,
    memory: &mut [u8],
) {
    const ROWS: usize = 64;
    let dim = tensor.shape.dim;
    let (step_n, step_d) = (place.stride(Axis::Token), place.stride(Axis::Dim));
    for s in 0..tensor.shape.tokens.len() {
        let tokens = held(s);
        for h in 0..tensor.shape.heads {
            let range = tensor.range(s, h);
            let rows = &tensor.data.bytes[range.start * SIZE..range.end * SIZE];
            let base = place.index(s, layer, h, 0, 0) * SIZE;
            if (step_d == 1 && step_n == dim) || (dim == 1 && step_n == 1) {
                // Dense here as there.
                let (from, count) = (tokens.start * dim * SIZE, tokens.len() * dim * SIZE);
                memory[base + from..][..count].copy_from_slice(&rows[from..from + count]);
            } else if step_d == 1 || dim == 1 {
                for n in tokens.clone() {
                    let to = base + n * step_n * SIZE;
                    let row = &rows[n * dim * SIZE..(n + 1) * dim * SIZE];
                    memory[to..to + row.len()].copy_from_slice(row);
                }
            } else {
                // As many rows as the nearest cache holds, each read once a dimension.
                for first in tokens.clone().step_by(ROWS) {
                    let piece = first..tokens.end.min(first + ROWS);
                    for d in 0..dim {
                        let from = rows[(piece.start * dim + d) * SIZE..].chunks(dim * SIZE);
                        let to = base + (piece.start * step_n + d * step_d) * SIZE;
                        let to = memory[to..].chunks_mut(step_n.max(1) * SIZE);
                        for (to, from) in to.zip(from).take(piece.len()) {
                            to[..SIZE].copy_from_slice(&from[..SIZE]);
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::generate::generate;

    fn built(id: &str, poisons: Poisons) -> (Case, Placements, Inputs, Image, Vec<u8>) {
        let case: Case = id.parse().unwrap();
        let places = case.placements().unwrap();
        let inputs = generate(&case, &[]).unwrap();
        let image = Image::new(
            &case,
            &places,
            &[Scratch {
                name: "part".into(),
                element: Element::Float(DType::F32),
                elements: 7,
                zeroed: false,
            }],
        )
        .unwrap();
        let mut memory = vec![0u8; image.size()];
        image.write(&case, &inputs, poisons, &mut memory);
        (case, places, inputs, image, memory)
    }

    const IDS: [&str; 4] = [
        "hq=4,hkv=2,d=5,n=[3,0,2],b=3,cap=4,dt=f16,k=NHD+pad3.1.2@1,v=HDN+pad1.0.5@3,q=HD+pad1.2@1",
        "hq=2,hkv=2,d=8,n=6,w=2,k=DNH+pad1,v=NDH+pad2.1",
        "hq=2,hkv=1,d=4,n=3,layers=3,layer=1,k=LHND,v=HLND+pad1,dt=bf16",
        "b=2,hq=2,hkv=1,d=4,n=[3,2],k=NSHD,v=HND,sinks=1",
    ];

    /// Images that are made by exchanges are those that are written.
    #[test]
    fn exchanges_make_what_is_written() {
        let stages = [
            "stage=append,hq=2,hkv=2,d=8,n=[4,1],b=2,cap=6",
            "stage=softmax,hq=2,hkv=1,d=4,n=9,w=3",
            "stage=pv,hq=2,hkv=1,d=4,n=9,w=3,dt=f16",
            "stage=merge,b=2,hq=3,hkv=3,d=4,n=1,p.splits=5",
            "hq=2,hkv=2,d=8,n=6,dt=bf16,data=nonfinite",
        ];
        for id in IDS.iter().chain(&stages) {
            let (case, _, inputs, image, base) = built(id, Poisons::NAN);
            assert!(!inputs.hold_poison(), "{id}");
            for (run, poisons) in Poisons::RUNS.into_iter().enumerate() {
                let mut memory = base.clone();
                memory.resize(2 * image.size(), 0x5a);
                let exchanges = image.exchanges(poisons, 0, image.size());
                exchanges.for_each(|exchange| exchange.make(0..usize::MAX, &mut memory));
                let got = &memory[image.size()..];
                let mut want = vec![0u8; image.size()];
                image.write(&case, &inputs, poisons, &mut want);
                let first = (0..want.len()).find(|i| got[*i] != want[*i]);
                assert_eq!(first.is_none(), image.is_exchanged(&case, poisons), "{id} {run}");
            }
        }
    }

    /// Data of which an element has all bits set is not exchanged.
    #[test]
    fn data_that_looks_like_poison_is_seen() {
        for id in IDS {
            let (_, _, mut inputs, ..) = built(id, Poisons::NAN);
            let data = &mut std::sync::Arc::make_mut(inputs.0.get_mut(&Pointer::V).unwrap()).data;
            let size = data.dtype.size();
            data.bytes[1..1 + size].fill(0xff);
            assert!(!inputs.hold_poison(), "{id}: no element has all bits set");
            let data = &mut std::sync::Arc::make_mut(inputs.0.get_mut(&Pointer::V).unwrap()).data;
            data.bytes[size..2 * size].fill(0xff);
            assert!(inputs.hold_poison(), "{id}");
        }
    }

    /// Every owned element is where its placement says, and every other byte of K is poison.
    #[test]
    fn owned_elements_lie_in_place_and_all_else_is_poison() {
        for id in IDS {
            for poisons in Poisons::RUNS {
                let (case, places, inputs, image, memory) = built(id, poisons);
                let dtype = case.dtypes.kv;
                let mut owned = std::collections::BTreeSet::new();
                for s in 0..case.batch() {
                    for g in 0..case.num_kv_heads {
                        let evicted = poisons != Poisons::RUNS[2];
                        let first = if evicted { case.attended(s).start } else { 0 };
                        for n in first..case.seq_lens[s] {
                            for d in 0..case.head_dim {
                                let i = places.k.index(s, case.layer, g, n, d);
                                let got = dtype.load(&memory[image.element("k", 0)..], i);
                                let want = inputs.k().rows(s, g, n..n + 1)[d] as f64;
                                assert_eq!(got, want, "{id} ({s},{g},{n},{d})");
                                assert!(owned.insert(i), "two elements at one address");
                            }
                        }
                    }
                }
                let poison = DType::round(dtype, poisons.k.value(dtype) as f64);
                for i in (0..places.k.span()).filter(|i| !owned.contains(i)) {
                    let x = dtype.load(&memory[image.element("k", 0)..], i);
                    assert!(
                        x == poison || (x.is_nan() && poison.is_nan()),
                        "{id} element {i}: {x}"
                    );
                }
            }
        }
    }

    /// What may be read are the elements that the sequences hold, with their owner; what may be written
    /// are the outputs and the scratch; nothing else may be touched.
    #[test]
    fn the_access_map_allows_what_is_held_and_nothing_else() {
        for id in IDS {
            let (case, places, inputs, image, _) = built(id, Poisons::RUNS[0]);
            let mut map = vec![0u8; image.size()];
            image.allow(&case, &inputs, &mut map);
            let mut want = vec![0u8; image.size()];
            let owner = |s: usize| if case.batch() > 1 { access::owner(s) } else { 0 };
            let mut put = |name: &str, element: usize, bits: u8| {
                let size = image.buffer(name).unwrap().element.size();
                want[image.element(name, element)..][..size].fill(bits);
            };
            let input = |s: usize| access::READ | access::INIT | owner(s);
            let output = |s: usize| access::READ | access::WRITE | owner(s);
            for s in 0..case.batch() {
                for h in 0..case.num_heads {
                    for d in 0..case.head_dim {
                        put("q", places.q.index(s, 0, h, 0, d), input(s));
                        put("out", places.out.index(s, 0, h, 0, d), output(s));
                    }
                    put("lse", s * case.num_heads + h, output(s));
                }
                for (g, n) in
                    (0..case.num_kv_heads).flat_map(|g| (0..case.seq_lens[s]).map(move |n| (g, n)))
                {
                    for d in 0..case.head_dim {
                        put("k", places.k.index(s, case.layer, g, n, d), input(s));
                        put("v", places.v.index(s, case.layer, g, n, d), input(s));
                    }
                }
                put("seq_lens", s, access::READ | access::INIT);
            }
            (0..7).for_each(|i| put("part", i, access::READ | access::WRITE));
            if case.sinks {
                (0..case.num_heads).for_each(|h| put("sinks", h, access::READ | access::INIT));
            }
            // The stage has `pos` too.
            let known = image.buffers().iter().filter(|b| b.name != "pos");
            for buffer in known {
                let own = buffer.range.clone();
                assert_eq!(map[own.clone()], want[own], "{id}: {}", buffer.name);
            }
            let outside = |byte: &usize| !image.buffers().iter().any(|b| b.range.contains(byte));
            assert!((0..image.size()).filter(outside).all(|byte| map[byte] == 0), "{id}");
        }
    }

    /// A place that may not be touched is told by the tensor's own words.
    #[test]
    fn what_may_not_be_touched_is_told_with_why() {
        let (case, places, _, image, _) =
            built("b=2,hq=2,hkv=2,d=4,n=[3,1],cap=5,k=HND+pad2", Poisons::RUNS[0]);
        let at = |s, h, n, d| image.element("k", places.k.index(s, 0, h, n, d));
        let say = |byte| image.locate(&case, byte);
        assert_eq!(say(at(0, 1, 2, 3)), "k[sequence 0, head 1, token 2, element 3]");
        let past =
            "k[sequence 1, head 1, token 2, element 0], 2 tokens past the sequence's seq_len of 1";
        assert_eq!(say(at(1, 1, 2, 0)), past);
        let gap =
            "k[sequence 0, head 0, token 1, element 3] + 1 element, in a gap between its strides";
        assert_eq!(say(at(0, 0, 1, 3) + 4), gap);
        assert_eq!(say(image.buffer("k").unwrap().range.start - 8), "8 bytes before k");
    }

    /// In the rows of an empty part stands poison; the others hold what they were given.
    #[test]
    fn empty_parts_hold_poison() {
        let (mut empty, mut full) = (0, 0);
        for seed in 0..20 {
            let id = format!("stage=merge,b=2,hq=3,hkv=3,d=4,n=1,p.splits=5,seed={seed}");
            for poisons in Poisons::RUNS {
                let (case, _, inputs, image, memory) = built(&id, poisons);
                let (lses, parts) =
                    (inputs.of(Pointer::PartialLse), inputs.of(Pointer::PartialOut));
                let poison = poisons.rest.value(DType::F32);
                let start = image.element("partial_out", 0);
                for i in 0..2 * 3 * 5 {
                    let [s, h, part] = [i / 15, i / 5 % 3, i % 5];
                    let is_empty = lses.all(s, h)[part] == f32::NEG_INFINITY;
                    *[&mut full, &mut empty][usize::from(is_empty)] += 1;
                    for d in 0..4 {
                        let got = DType::F32.load(&memory[start..], i * 4 + d) as f32;
                        let given = parts.all(s, h)[part * 4 + d];
                        let want = if is_empty { poison } else { given };
                        assert_eq!(got.is_nan(), want.is_nan(), "{case} {i}");
                        assert!(got == want || got.is_nan(), "{case} {i}: {got} {want}");
                    }
                }
            }
        }
        assert!(empty > 100 && full > 100, "{empty} {full}");
    }

    /// Scratch of every size holds another pattern in each run, and none of them is small.
    #[test]
    fn scratch_of_every_type_is_poisoned_in_its_own_size() {
        let case: Case = "hq=1,hkv=1,d=4,n=2".parse().unwrap();
        let (places, inputs) = (case.placements().unwrap(), generate(&case, &[]).unwrap());
        let floats = [DType::F64, DType::F32, DType::F16, DType::BF16].map(Element::Float);
        let all = [1, 2, 4, 8].map(Element::Int).into_iter().chain(floats);
        let scratch: Vec<Scratch> = all
            .map(|element| Scratch {
                name: format!("{element:?}"),
                element,
                elements: 5,
                zeroed: false,
            })
            .collect();
        let image = Image::new(&case, &places, &scratch).unwrap();
        for scratch in &scratch {
            let mut seen = Vec::new();
            for poison in [Poison::Nan, Poison::Plus, Poison::Minus] {
                let mut memory = vec![0; image.size()];
                let poisons = Poisons { k: poison, v: poison, rest: poison };
                image.write(&case, &inputs, poisons, &mut memory);
                let bytes = &memory[image.buffer(&scratch.name).unwrap().range.clone()];
                let size = scratch.element.size();
                assert_eq!(bytes.len(), 5 * size);
                let first = bytes[..size].to_vec();
                assert!(bytes.chunks_exact(size).all(|element| *element == first));
                if let Element::Int(_) = scratch.element {
                    let signed = i64::from(*first.last().unwrap() as i8);
                    match poison {
                        Poison::Nan => assert_eq!(signed, -1),
                        Poison::Plus => assert!(signed > 100),
                        Poison::Minus => assert!(signed < -100),
                    }
                }
                seen.push(first);
            }
            seen.dedup();
            assert_eq!(seen.len(), 3, "{scratch:?}: {seen:?}");
        }
    }

    /// A counter is zeros whatever the poison, the zones around it are not, and it must be left as zeros.
    #[test]
    fn what_is_zeroed_is_zeros_before_and_after() {
        let case: Case = "b=2,hq=2,hkv=1,d=4,n=[3,2]".parse().unwrap();
        let (places, inputs) = (case.placements().unwrap(), generate(&case, &[]).unwrap());
        let scratch = |name: &str, elements, zeroed| Scratch {
            name: name.into(),
            element: Element::Float(DType::F32),
            elements,
            zeroed,
        };
        let scratch =
            [scratch("part", 7, false), scratch("arrived", 5, true), scratch("more", 3, true)];
        let image = Image::new(&case, &places, &scratch).unwrap();
        for poisons in [Poisons::NAN].into_iter().chain(Poisons::RUNS) {
            let mut memory = vec![0x5a; image.size()];
            image.write(&case, &inputs, poisons, &mut memory);
            let poison = poisons.rest.element(Element::Float(DType::F32));
            for name in ["arrived", "more"] {
                let range = image.buffer(name).unwrap().range.clone();
                assert!(memory[range.clone()].iter().all(|byte| *byte == 0), "{name} {poisons}");
                assert_eq!(memory[range.start - 4..range.start], poison[..4], "{name} {poisons}");
                assert_eq!(memory[range.end..range.end + 4], poison[..4], "{name} {poisons}");
            }
            let part = image.buffer("part").unwrap().range.clone();
            assert_eq!(memory[part.start..part.start + 4], poison[..4], "{poisons}");

            // An exchanged image has them as well.
            let mut both = vec![0u8; 2 * image.size()];
            image.write(&case, &inputs, Poisons::NAN, &mut both[..image.size()]);
            let exchanges = image.exchanges(poisons, 0, image.size());
            exchanges.for_each(|exchange| exchange.make(0..usize::MAX, &mut both));
            let counter = image.element("arrived", 0);
            assert!(
                both[image.size() + counter..][..20].iter().all(|byte| *byte == 0),
                "{poisons}"
            );
        }
        let mut before = vec![0; image.size()];
        image.write(&case, &inputs, Poisons::RUNS[1], &mut before);
        assert_eq!(image.stray_write(&before, &before), None);
        let mut after = before.clone();
        after[image.element("part", 2)] ^= 1;
        assert_eq!(image.stray_write(&before, &after), None, "scratch is anybody's");
        after[image.element("arrived", 3) + 1] = 1;
        let stray = image.stray_write(&before, &after).unwrap();
        assert_eq!(stray.byte, image.element("arrived", 3) + 1);
        assert!(stray.place.starts_with("arrived"), "{}", stray.place);
        // It may be read and written, and holds something from the begin on.
        let mut map = vec![0u8; image.size()];
        image.allow(&case, &inputs, &mut map);
        let all = access::READ | access::WRITE | access::INIT;
        assert!(
            map[image.buffer("arrived").unwrap().range.clone()].iter().all(|bits| *bits == all)
        );
        let part = image.buffer("part").unwrap().range.clone();
        assert!(map[part].iter().all(|bits| *bits == access::READ | access::WRITE));
    }

    #[test]
    fn any_changed_byte_outside_the_outputs_is_found_and_none_inside() {
        let (case, places, _, image, before) = built(IDS[0], Poisons::RUNS[0]);
        let mut may_change = vec![false; image.size()];
        for s in 0..case.batch() {
            for h in 0..case.num_heads {
                let start = image.element("out", places.out.index(s, 0, h, 0, 0));
                may_change[start..start + case.head_dim * 2].fill(true);
            }
        }
        may_change[image.buffer("lse").unwrap().range.clone()].fill(true);
        may_change[image.buffer("part").unwrap().range.clone()].fill(true);
        let mut after = before.clone();
        for byte in 0..image.size() {
            after[byte] ^= 0x10;
            let stray = image.stray_write(&before, &after);
            assert_eq!(stray.map(|s| s.byte), (!may_change[byte]).then_some(byte));
            after[byte] ^= 0x10;
        }
        let k = image.buffer("k").unwrap();
        assert_eq!(image.describe(k.range.end + 3), "4 bytes past the end of k");
        assert_eq!(
            image.describe(k.range.start + 5),
            "k[sequence 0, token 0, head 0, element 1] (an input)"
        );
    }
}
