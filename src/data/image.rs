//! The image of device memory that a run works on: tensors, gaps, guard zones, poison.
//!
//! Every byte that a kernel may neither read nor write is poison: rows past `seq_len` and (in two of
//! three runs) before the window, gaps between strides, other layers, the zones around each buffer,
//! and, before the launch, the output and the scratch. After the run everything but the output's own elements and the scratch must be as it
//! was, to the bit.

use super::inputs::{Cache, Inputs};
use crate::problem::{Axis, Case, DType, Placement, Placements};
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

    fn fill(self, bytes: &mut [u8], dtype: DType) {
        let mut element = [0u8; 8];
        match self {
            Poison::Nan => return bytes.fill(0xff),
            _ => dtype.store(&mut element, 0, self.value(dtype) as f64),
        }
        let element = &element[..dtype.size()];
        // Double what is there until the whole is full: large copies are fast.
        let first = element.len().min(bytes.len());
        bytes[..first].copy_from_slice(&element[..first]);
        let mut done = first;
        while done < bytes.len() {
            let more = done.min(bytes.len() - done);
            bytes.copy_within(..more, done);
            done += more;
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
    /// The three runs of a case. K and V are NaN apart, so that a mask on one does not hide the
    /// other, and both are filled with large numbers of each sign: a maximum that skips NaN takes
    /// a large score, whichever sign q gives it.
    pub const RUNS: [Poisons; 3] = [
        Poisons { k: Poison::Nan, v: Poison::Plus, rest: Poison::Nan },
        Poisons { k: Poison::Plus, v: Poison::Nan, rest: Poison::Plus },
        Poisons { k: Poison::Minus, v: Poison::Minus, rest: Poison::Minus },
    ];
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
    /// Write its elements.
    Output,
    /// Anything.
    Scratch,
}

/// One buffer of the image.
#[derive(Debug, Clone)]
pub struct Buffer {
    /// The pointer argument that it stands for, or the scratch buffer's name.
    pub name: String,
    /// Its role.
    pub role: Role,
    /// Its element type.
    pub dtype: DType,
    /// Where it lies in the image, bytes.
    pub range: Range<usize>,
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
    size: usize,
    /// Byte ranges that the kernel may write, ascending, disjoint.
    writable: Vec<Range<usize>>,
    /// The same without scratch: each (sequence, head) row of out, then lse.
    out_rows: Vec<Range<usize>>,
}

/// A scratch buffer that a kernel asks for: name, element type, elements.
pub type Scratch = (String, DType, usize);

impl Image {
    /// Lays the buffers of a case out. `None` where the image would not fit in memory addresses.
    pub fn new(case: &Case, places: &Placements, scratch: &[Scratch]) -> Option<Image> {
        let heads = case.batch() * case.num_heads;
        let mut wanted: Vec<(String, Role, DType, usize)> = vec![
            ("q".into(), Role::Input, case.dtypes.q, places.q.span()),
            ("k".into(), Role::Input, case.dtypes.kv, places.k.span()),
            ("v".into(), Role::Input, case.dtypes.kv, places.v.span()),
            ("out".into(), Role::Output, case.dtypes.out, places.out.span()),
            ("lse".into(), Role::Output, DType::F32, heads),
            // i32 and u32 have f32's size.
            ("seq_lens".into(), Role::Input, DType::F32, case.batch()),
            ("pos".into(), Role::Input, DType::F32, case.batch()),
        ];
        if case.sinks {
            wanted.push(("sinks".into(), Role::Input, DType::F32, case.num_heads));
        }
        for (name, dtype, elements) in scratch {
            wanted.push((name.clone(), Role::Scratch, *dtype, *elements));
        }
        let mut buffers = Vec::with_capacity(wanted.len());
        let mut at = GUARD;
        for (name, role, dtype, elements) in wanted {
            let end = elements.checked_mul(dtype.size())?.checked_add(at)?;
            buffers.push(Buffer { name, role, dtype, range: at..end });
            at = end.checked_add(GUARD + BUFFER_ALIGN)? / BUFFER_ALIGN * BUFFER_ALIGN;
        }
        let size = at;
        let mut image = Image { buffers, size, writable: Vec::new(), out_rows: Vec::new() };
        let row = case.head_dim_v * case.dtypes.out.size();
        for s in 0..case.batch() {
            for h in 0..case.num_heads {
                let start = image.element("out", places.out.index(s, 0, h, 0, 0));
                image.out_rows.push(start..start + row);
            }
        }
        image.writable = image.out_rows.clone();
        let rest = image.buffers.iter().filter(|b| b.role == Role::Scratch || b.name == "lse");
        image.writable.extend(rest.map(|b| b.range.clone()));
        image.writable.sort_by_key(|r| r.start);
        Some(image)
    }

    /// Bytes of the image.
    pub fn size(&self) -> usize {
        self.size
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
        b.range.start + index * b.dtype.size()
    }

    /// Fills memory with poison and then the inputs.
    pub fn write(
        &self,
        case: &Case,
        places: &Placements,
        inputs: &Inputs,
        poisons: Poisons,
        memory: &mut [u8],
    ) {
        let mut at = 0;
        for (i, buffer) in self.buffers.iter().enumerate() {
            let poison = match buffer.name.as_str() {
                "k" => poisons.k,
                "v" => poisons.v,
                _ => poisons.rest,
            };
            // A buffer's poison reaches from its guard zone before it to the next one's.
            let end = self.buffers.get(i + 1).map_or(self.size, |next| next.range.start - GUARD);
            poison.fill(&mut memory[at..end], buffer.dtype);
            at = end;
        }
        let size = case.dtypes.q.size();
        let row = case.head_dim * size;
        for s in 0..case.batch() {
            for h in 0..case.num_heads {
                let to = self.element("q", places.q.index(s, 0, h, 0, 0));
                let from = (s * case.num_heads + h) * row;
                memory[to..to + row].copy_from_slice(&inputs.q.bytes[from..from + row]);
            }
        }
        // Keys before the window are poison where that is NaN in K or V; in the last run they hold
        // what an engine would still have there, and a key outside the window may look attractive.
        let evicted = poisons.k == Poison::Nan || poisons.v == Poison::Nan;
        let first = |s: usize| if evicted { case.attended(s).start } else { 0 };
        let kv = [("k", &places.k, &inputs.k), ("v", &places.v, &inputs.v)];
        for (name, place, cache) in kv {
            let base = self.element(name, 0);
            match cache.data.dtype.size() {
                2 => scatter::<2>(case, place, cache, &first, &mut memory[base..]),
                _ => scatter::<4>(case, place, cache, &first, &mut memory[base..]),
            }
        }
        let mut words = |name: &str, values: &mut dyn Iterator<Item = [u8; 4]>| {
            if let Some(buffer) = self.buffer(name) {
                for (i, bytes) in values.enumerate() {
                    let to = buffer.range.start + 4 * i;
                    memory[to..to + 4].copy_from_slice(&bytes);
                }
            }
        };
        words("seq_lens", &mut case.seq_lens.iter().map(|n| (*n as i32).to_le_bytes()));
        words("pos", &mut case.seq_lens.iter().map(|n| (n.saturating_sub(1) as u32).to_le_bytes()));
        words("sinks", &mut inputs.sinks.iter().flatten().map(|x| x.to_le_bytes()));
    }

    /// Row (s, h) of out, in the order `s * num_heads + h`, as stored.
    pub fn out_row<'a>(&self, memory: &'a [u8], row: usize) -> &'a [u8] {
        &memory[self.out_rows[row].clone()]
    }

    /// All rows of out, one after the other.
    pub fn out_bytes(&self, memory: &[u8]) -> Vec<u8> {
        self.out_rows.iter().flat_map(|r| memory[r.clone()].iter().copied()).collect()
    }

    /// lse as stored, `[batch, num_heads]` f32.
    pub fn lse_bytes<'a>(&self, memory: &'a [u8]) -> &'a [u8] {
        &memory[self.buffer("lse").expect("every image has lse").range.clone()]
    }

    /// The first byte that changed and may not have.
    pub fn stray_write(&self, before: &[u8], after: &[u8]) -> Option<Stray> {
        let mut at = 0;
        let ends = self.writable.iter().map(|r| (r.start, r.end)).chain([(self.size, self.size)]);
        for (start, end) in ends {
            if start > at && before[at..start] != after[at..start] {
                let byte = (at..start).find(|i| before[*i] != after[*i])?;
                return Some(Stray { place: self.describe(byte), byte });
            }
            at = at.max(end);
        }
        None
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
        let b = self.buffers.iter().min_by_key(|b| distance(b)).expect("an image has buffers");
        let size = b.dtype.size();
        if b.range.contains(&byte) {
            let element = (byte - b.range.start) / size;
            let kind = match b.role {
                Role::Input => "an input",
                Role::Output => "a gap between its rows, or an output that was not asked for",
                Role::Scratch => "scratch",
            };
            format!("{} at element {element} ({kind})", b.name)
        } else if byte < b.range.start {
            format!("{} bytes before {}", b.range.start - byte, b.name)
        } else {
            format!("{} bytes past the end of {}", byte + 1 - b.range.end, b.name)
        }
    }
}

/// Copies dense rows to their places, those of sequence `s` from row `first(s)` on. `SIZE` is the
/// element's, in bytes.
fn scatter<const SIZE: usize>(
    case: &Case,
    place: &Placement,
    cache: &Cache,
    first: &dyn Fn(usize) -> usize,
    memory: &mut [u8],
) {
    let dim = cache.dim;
    let (step_n, step_d) = (place.stride(Axis::Token), place.stride(Axis::Dim));
    for (s, keys) in case.seq_lens.iter().enumerate() {
        for g in 0..case.num_kv_heads {
            let range = cache.range(s, g);
            let rows = &cache.data.bytes[range.start * SIZE..range.end * SIZE];
            let base = place.index(s, case.layer, g, 0, 0) * SIZE;
            if step_d == 1 {
                for (n, row) in rows.chunks_exact(dim * SIZE).enumerate().skip(first(s)) {
                    let to = base + n * step_n * SIZE;
                    memory[to..to + row.len()].copy_from_slice(row);
                }
            } else {
                for d in 0..dim {
                    for n in first(s)..*keys {
                        let from = (n * dim + d) * SIZE;
                        let to = base + (n * step_n + d * step_d) * SIZE;
                        memory[to..to + SIZE].copy_from_slice(&rows[from..from + SIZE]);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::regimes::generate;

    fn built(id: &str, poisons: Poisons) -> (Case, Placements, Inputs, Image, Vec<u8>) {
        let case: Case = id.parse().unwrap();
        let places = case.placements().unwrap();
        let inputs = generate(&case, &[]).unwrap();
        let image = Image::new(&case, &places, &[("part".into(), DType::F32, 7)]).unwrap();
        let mut memory = vec![0u8; image.size()];
        image.write(&case, &places, &inputs, poisons, &mut memory);
        (case, places, inputs, image, memory)
    }

    const IDS: [&str; 4] = [
        "hq=4,hkv=2,d=5,n=[3,0,2],b=3,cap=4,dt=f16,k=NHD+pad3.1.2@1,v=HDN+pad1.0.5@3,q=HD+pad1.2@1",
        "hq=2,hkv=2,d=8,n=6,w=2,k=DNH+pad1,v=NDH+pad2.1",
        "hq=2,hkv=1,d=4,n=3,layers=3,layer=1,k=LHND,v=HLND+pad1,dt=bf16",
        "b=2,hq=2,hkv=1,d=4,n=[3,2],k=NSHD,v=HND,sinks=1",
    ];

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
                                let want = inputs.k.rows(s, g, n..n + 1)[d] as f64;
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
        assert_eq!(image.describe(k.range.start + 5), "k at element 2 (an input)");
    }
}
