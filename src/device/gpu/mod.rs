//! GPUs: HIP kernels compiled by the vendor's run-time compiler and run through its driver.
//!
//! Nothing of a vendor's is loaded into this process. One child process, the *worker*, holds the driver
//! and its context (`worker`, behind `server`); a source is compiled by a process of its own
//! (`compiler`, behind `compile`). A kernel that crashes or never ends takes the worker with it, and
//! another is started. Each host thread has a device with a *lane* of the worker: a stream and an arena
//! on the GPU, so that several small cases are under way at once.
//!
//! A fault takes all lanes' runs with it, and does not say whose it was. So the runs that were under way
//! are made again, one at a time, and the one that fails alone is the one. After a fault runs go on one
//! at a time for a while, as a kernel that crashed once will again.
//!
//! What the GPU decides: the order of blocks and threads; the seed of a run changes nothing. The bytes that
//! are used end where the GPU's block of memory does: what overruns them faults where the driver keeps
//! addresses free behind it (CUDA), or meets a margin filled with NaN (HIP). Before them may lie memory of
//! earlier cases. Dynamic shared memory that is overrun is not seen.

mod compile;
mod compiler;
pub mod cubin;
mod cuda;
mod device;
mod driver;
mod family;
mod hip;
mod lane;
mod library;
pub mod object;
mod protocol;
mod replay;
mod server;
mod telemetry;
mod worker;

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

pub use compile::Compiler;
pub use compiler::compiler_main;
pub use device::GpuDevice;
pub use protocol::{COMPILER_ARGUMENT, Info, WORKER_ARGUMENT};
pub use worker::worker_main;

/// A vendor's interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Api {
    /// AMD's runtime and hiprtc.
    Hip,
    /// NVIDIA's driver and NVRTC.
    Cuda,
}

impl Api {
    /// Both, in the order in which `auto` tries them.
    pub const ALL: [Api; 2] = [Api::Hip, Api::Cuda];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Api::Hip => "hip",
            Api::Cuda => "cuda",
        }
    }

    /// The API of a name.
    pub fn named(name: &str) -> Option<Api> {
        Api::ALL.into_iter().find(|api| api.name() == name)
    }
}

impl fmt::Display for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where a GPU's device finds what it needs.
#[derive(Debug, Clone)]
pub struct GpuConfig {
    /// The program that becomes the worker and the compiler: it must hand [`WORKER_ARGUMENT`] to
    /// [`worker_main`] and [`COMPILER_ARGUMENT`] to [`compiler_main`].
    pub worker_program: PathBuf,
    /// The folder of the compile cache.
    pub cache_dir: PathBuf,
    /// Environment variables of the worker and the compiler, and for the search for libraries, in place of
    /// the process's own.
    pub environment: Vec<(String, OsString)>,
}

impl GpuConfig {
    /// Reads `ATTNBENCH_WORKER` (else this program) and `ATTNBENCH_CACHE`, as the CPU device does.
    pub fn from_env() -> GpuConfig {
        GpuConfig::from_vars(|name| std::env::var_os(name))
    }

    /// As [`GpuConfig::from_env`], from other variables than the process's own.
    pub fn from_vars(variable: impl Fn(&str) -> Option<OsString>) -> GpuConfig {
        let cpu = super::cpu::CpuConfig::from_vars(variable);
        let environment = Vec::new();
        GpuConfig { worker_program: cpu.worker_program, cache_dir: cpu.cache_dir, environment }
    }

    /// An environment variable as the children have it.
    fn variable(&self, name: &str) -> Option<OsString> {
        let own = self.environment.iter().find(|(own, _)| own == name);
        own.map(|(_, value)| value.clone()).or_else(|| std::env::var_os(name))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
