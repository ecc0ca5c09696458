//! What this device needs of a vendor's driver. One implementation each: `cuda`, `hip`.

use std::ffi::{CStr, c_void};
use std::fmt;

use super::super::timing::Telemetry;
use super::protocol::{Info, Limits};

/// An address, or a driver's own handle: a plain number that any thread may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Handle(pub(super) usize);

/// A kernel that can be launched.
#[derive(Debug, Clone, Copy)]
pub(super) struct Function {
    pub(super) handle: Handle,
    pub(super) limits: Limits,
}

/// Memory of the device for one arena.
#[derive(Debug, Clone, Copy)]
pub(super) struct Block {
    /// Where the arena starts.
    pub(super) start: Handle,
    /// The whole of the allocation, and the driver's handle of it where it has one.
    pub(super) whole: Handle,
    pub(super) whole_bytes: usize,
    pub(super) handle: u64,
}

/// What a failed call means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// A kernel crashed; nothing works in this process any more.
    Crash,
    /// A kernel stopped itself; nothing works in this process any more.
    Trap,
    /// The request asks for more than there is.
    TooMuch,
    /// Something else.
    Other,
}

/// A call that failed.
#[derive(Debug, Clone)]
pub(super) struct Error {
    /// The call.
    pub(super) call: &'static str,
    /// The driver's name and number for what happened.
    pub(super) name: String,
    /// Its words for it.
    pub(super) text: String,
    pub(super) meaning: Meaning,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({})", self.call, self.text, self.name)
    }
}

pub(super) type Result<T> = std::result::Result<T, Error>;

/// A driver with one device chosen. Every thread calls [`Driver::enter`] before anything else.
///
/// Handles are the driver's own, given by it and used on it alone; addresses of the host stay valid
/// until the stream has been waited for.
pub(super) trait Driver: Send + Sync {
    fn info(&self) -> &Info;

    /// Makes the device the calling thread's.
    fn enter(&self) -> Result<()>;

    fn stream(&self) -> Result<Handle>;
    /// Waits until all that was asked of a stream is done.
    fn wait(&self, stream: Handle) -> Result<()>;

    /// Memory for an arena of so many bytes.
    fn block(&self, bytes: usize) -> Result<Block>;
    fn free(&self, block: Block) -> Result<()>;

    /// Keeps memory of the host in place, so that the device moves it itself.
    ///
    /// # Safety
    /// The memory is mapped, and stays so until [`Driver::unpin`].
    unsafe fn pin(&self, start: *mut u8, bytes: usize) -> Result<()>;
    /// # Safety
    /// [`Driver::pin`] was called with the same address.
    unsafe fn unpin(&self, start: *mut u8) -> Result<()>;

    /// # Safety
    /// The host's memory stays mapped until the stream has been waited for; the device's is its own.
    unsafe fn upload(&self, stream: Handle, to: Handle, from: *const u8, n: usize) -> Result<()>;
    /// # Safety
    /// As [`Driver::upload`]; and nobody else uses the host's memory until then.
    unsafe fn download(&self, stream: Handle, to: *mut u8, from: Handle, n: usize) -> Result<()>;

    /// # Safety
    /// Both stretches are the device's own.
    unsafe fn copy(&self, stream: Handle, to: Handle, from: Handle, n: usize) -> Result<()>;

    fn load(&self, image: &[u8]) -> Result<Handle>;
    fn function(&self, module: Handle, name: &CStr) -> Result<Function>;
    /// Lets a function have so much dynamic shared memory.
    fn allow_shared(&self, function: Handle, bytes: u32) -> Result<()>;
    /// # Safety
    /// The arguments are those of the function, each an address of the host's that holds as many bytes
    /// as the parameter.
    unsafe fn launch(
        &self,
        function: Handle,
        shape: &Shape,
        stream: Handle,
        args: &mut [*mut c_void],
    ) -> Result<()>;

    /// The device's clocks, power and the like, where its driver tells.
    fn telemetry(&self) -> Option<Telemetry>;

    fn event(&self) -> Result<Handle>;
    fn record(&self, event: Handle, stream: Handle) -> Result<()>;
    /// Milliseconds from one recorded and passed event to another.
    fn elapsed(&self, from: Handle, to: Handle) -> Result<f32>;

    /// What is asked of the stream from now on is kept, not done.
    fn begin_capture(&self, stream: Handle) -> Result<()>;
    /// What was asked since, as a graph that can be launched.
    fn end_capture(&self, stream: Handle) -> Result<Handle>;
    fn launch_graph(&self, graph: Handle, stream: Handle) -> Result<()>;
    fn free_graph(&self, graph: Handle) -> Result<()>;
}

/// The shape of a launch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) grid: [u32; 3],
    pub(super) block: [u32; 3],
    pub(super) shared_bytes: u32,
}
