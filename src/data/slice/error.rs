//! What can be wrong with a slice file.

use crate::problem::{CaseError, LayoutError, clip};

/// Why a slice cannot be read, written or used: the file, and what is wrong with it.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {problem}")]
pub struct SliceError {
    /// The file as it was named, or the slice's name where there is no file.
    pub file: String,
    /// What is wrong.
    #[source]
    pub problem: Box<SliceProblem>,
}

impl SliceError {
    pub(super) fn new(file: impl Into<String>, problem: SliceProblem) -> Self {
        SliceError { file: file.into(), problem: Box::new(problem) }
    }
}

/// One kind of problem each. The messages say the thing, its value, the limit and the mend.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SliceProblem {
    /// The operating system refused to open or read it.
    #[error("cannot {action}: {source}")]
    Io {
        /// `open` or `read`.
        action: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// A folder, a pipe, a device.
    #[error("is not a regular file; give a .safetensors file")]
    NotAFile,
    /// Too short or without a header.
    #[error("is not a safetensors file: {why}; capture it again as kv-slice/1")]
    NotSafetensors {
        /// What was found instead.
        why: String,
    },
    /// A header that ends beyond the file.
    #[error(
        "the header says it has {header} bytes, but the file has only {file_len} bytes: not a safetensors file, or truncated; copy or capture it again"
    )]
    HeaderBeyondFile {
        /// Length that the first eight bytes give.
        header: u64,
        /// Length of the file.
        file_len: u64,
    },
    /// A header too long to be one.
    #[error(
        "the header has {header} bytes, more than the {limit} that a slice may have; put large data into tensors"
    )]
    HeaderTooLarge {
        /// Its length.
        header: u64,
        /// The limit.
        limit: u64,
    },
    /// A header that is no JSON object.
    #[error("the header is no JSON object: {source}; capture the slice again")]
    HeaderJson {
        /// Where the parser stopped.
        source: serde_json::Error,
    },
    /// A header entry that describes no tensor, or places it where it cannot be.
    #[error("tensor `{tensor}` in the header: {why}; write the file with a safetensors library")]
    TensorEntry {
        /// The tensor.
        tensor: String,
        /// What is wrong.
        why: String,
    },
    /// Fewer bytes than the header describes.
    #[error(
        "truncated: header and tensors need {need} bytes, the file has {have}; copy or capture it again"
    )]
    Truncated {
        /// Bytes needed.
        need: u64,
        /// Bytes there.
        have: u64,
    },
    /// More bytes than the header describes.
    #[error(
        "{extra} bytes follow the last tensor, which the header does not describe; copy or capture it again"
    )]
    Trailing {
        /// How many.
        extra: u64,
    },
    /// More memory than there is.
    #[error("tensor `{tensor}` needs {bytes} bytes of memory, which are not to be had")]
    OutOfMemory {
        /// The tensor.
        tensor: String,
        /// Its size.
        bytes: u64,
    },
    /// No `__metadata__`, or a value in it that is no string.
    #[error(
        "the header's `__metadata__` {what}; it must be a map of strings with at least `format`"
    )]
    Metadata {
        /// What is wrong with it.
        what: String,
    },
    /// Another format.
    #[error("`format` is `{found}`, not `kv-slice/1`: not a slice; capture it as kv-slice/1")]
    Format {
        /// What the file says.
        found: String,
    },
    /// A version of the format that this program does not know.
    #[error(
        "`format` is `{found}`, and this program reads kv-slice/1 only; use a newer attnbench, or write kv-slice/1"
    )]
    Version {
        /// What the file says.
        found: String,
    },
    /// A required key that is absent.
    #[error("metadata key `{key}` is missing; add it as kv-slice/1 describes")]
    MissingKey {
        /// The key.
        key: &'static str,
    },
    /// A value of the wrong kind.
    #[error("metadata `{key}` is `{value}`; write {want}")]
    Value {
        /// The key.
        key: String,
        /// What the file says, clipped.
        value: String,
        /// What it takes.
        want: &'static str,
    },
    /// A number that is not finite, or not in f32.
    #[error("metadata `{key}` is `{value}`, not finite as f32; write a finite decimal number")]
    NotFinite {
        /// The key.
        key: &'static str,
        /// What the file says, clipped.
        value: String,
    },
    /// A negative number where none can be.
    #[error("metadata `{key}` is {value}; it must be at least 0")]
    Negative {
        /// The key.
        key: &'static str,
        /// Its value.
        value: f64,
    },
    /// A zero where there must be something.
    #[error("metadata `{key}` is 0; it must be at least 1")]
    Zero {
        /// The key.
        key: &'static str,
    },
    /// A sequence longer than the cache.
    #[error("`{what}` is {value}, but `capacity` is {capacity}: the cache must hold every key")]
    BeyondCapacity {
        /// `seq_len` or `seq_lens[i]`.
        what: String,
        /// The length.
        value: usize,
        /// Rows allocated.
        capacity: usize,
    },
    /// A negative length.
    #[error("`seq_lens[{index}]` is {value}; a sequence has at least 0 keys")]
    NegativeLength {
        /// Which sequence.
        index: usize,
        /// Its value.
        value: i32,
    },
    /// A layer that the tensors do not have.
    #[error(
        "`layer` is {layer}, but the L axis holds {layers} layers; it counts from 0 along that axis"
    )]
    Layer {
        /// The layer.
        layer: usize,
        /// Layers in the file.
        layers: usize,
    },
    /// Two counts of layers.
    #[error("{one} has {one_layers} layers, but {other} has {other_layers}; they must agree")]
    Layers {
        /// What gives the first count.
        one: &'static str,
        /// The first count.
        one_layers: usize,
        /// What gives the other.
        other: &'static str,
        /// The other count.
        other_layers: usize,
    },
    /// Query heads that cannot be shared out.
    #[error(
        "`num_heads` {num_heads} is no multiple of `num_kv_heads` {num_kv_heads}; each KV head serves an equal group"
    )]
    Heads {
        /// Query heads.
        num_heads: usize,
        /// KV heads.
        num_kv_heads: usize,
    },
    /// A layout that is none.
    #[error("metadata `{key}`: {source}")]
    Layout {
        /// `k_layout` or `v_layout`.
        key: &'static str,
        /// What is wrong with it.
        source: LayoutError,
    },
    /// A batch that one of the caches does not have.
    #[error(
        "the file has {batch} sequences, but `{key}` = {layout} has no S axis; both caches need one"
    )]
    BatchAxis {
        /// `k_layout` or `v_layout`.
        key: &'static str,
        /// The layout.
        layout: String,
        /// Sequences.
        batch: usize,
    },
    /// Something that the format has and this program does not drive.
    #[error("{what} is read, but not driven yet; {mend}")]
    NotYet {
        /// The thing.
        what: String,
        /// What to use instead.
        mend: &'static str,
    },
    /// A required tensor that is absent.
    #[error("tensor `{tensor}` is missing{why}")]
    MissingTensor {
        /// The tensor.
        tensor: &'static str,
        /// Why it is needed, where that is not plain.
        why: &'static str,
    },
    /// A shape that contradicts the metadata.
    #[error(
        "tensor `{tensor}` has shape {}, but the metadata ask for {want}",
        clip(&format!("{stored:?}"))
    )]
    Shape {
        /// The tensor.
        tensor: &'static str,
        /// Its shape.
        stored: Vec<usize>,
        /// The shape that was expected, and from what.
        want: String,
    },
    /// Bytes that do not make up the shape.
    #[error("tensor `{tensor}` holds {have} bytes, but its shape and type need {need}")]
    Bytes {
        /// The tensor.
        tensor: String,
        /// Bytes of the shape; none where the number does not fit in 64 bits.
        need: String,
        /// Bytes there.
        have: usize,
    },
    /// An element type that the tensor cannot have.
    #[error("tensor `{tensor}` is stored as {dtype}; it may be {allowed}")]
    ElementType {
        /// The tensor.
        tensor: &'static str,
        /// Its type, by safetensors' name.
        dtype: String,
        /// The types it may have.
        allowed: &'static str,
    },
    /// A wrong number of strides.
    #[error("metadata `{key}` has {got} strides, but {layout} has {want} axes; give one an axis")]
    StrideCount {
        /// The key.
        key: &'static str,
        /// The axes.
        layout: String,
        /// How many the layout takes.
        want: usize,
        /// How many there were.
        got: usize,
    },
    /// Strides that place elements where they cannot be.
    #[error("tensor `{tensor}`: {source}")]
    Placement {
        /// The tensor.
        tensor: &'static str,
        /// What is wrong.
        source: LayoutError,
    },
    /// A raw buffer that is too short for its strides.
    #[error(
        "tensor `{tensor}`: strides and offset reach {need} elements, but {have} are stored; store the whole buffer"
    )]
    Span {
        /// The tensor.
        tensor: &'static str,
        /// Elements needed.
        need: usize,
        /// Elements there.
        have: usize,
    },
    /// A case that is impossible although the slice is not.
    #[error("as a case: {0}")]
    Case(#[from] CaseError),
    /// A buffer that cannot be written with this metadata.
    #[error("cannot save the case: {0}")]
    Unsavable(String),
    /// A full disk or quota.
    #[error("cannot write {bytes} bytes: the disk is full; free some space or name another folder")]
    DiskFull {
        /// Size of the whole file.
        bytes: u64,
        /// What the system said.
        source: std::io::Error,
    },
    /// Another failure on writing.
    #[error("cannot write: {source}; the folder must exist and be writable")]
    Write {
        /// What the system said.
        source: std::io::Error,
    },
}
