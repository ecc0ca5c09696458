//! AMD's runtime, through hip-sys, whose library is loaded when it is asked for.
//!
//! Only calls and numbers that are the same from ROCm 5 to 7. The properties struct is not among them:
//! the one thing that only it tells, the target's name, is looked for in whatever the runtime wrote.
//! Every symbol is looked up before the first call, as the bindings panic where one is missing.
//!
//! On AMD a kernel's wild access ends the process, with the address on standard error.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::Path;
use std::ptr;

use hip_sys as sys;

use super::super::timing::Telemetry;
use super::Api;
use super::driver::{Block, Driver, Error, Function, Handle, Meaning, Result, Shape};
use super::library::visible_devices;
use super::protocol::{Info, Limits};
use super::telemetry;

/// Memory before and after an arena that no lane uses, bytes: what misses an arena by less touches
/// nobody's data.
const MARGIN: usize = 1 << 20;

/// What it is filled with: NaN in every type.
const FILLER: c_int = 0xff;

/// Room for any version's properties, bytes.
const PROPERTIES: usize = 64 << 10;

/// All that is called here, but for one of the names of the properties' call.
const SYMBOLS: [&str; 40] = [
    "hipRuntimeGetVersion",
    "hipGetErrorName",
    "hipGetErrorString",
    "hipGetDeviceCount",
    "hipSetDevice",
    "hipSetDeviceFlags",
    "hipDeviceGetName",
    "hipDeviceGetAttribute",
    "hipDeviceTotalMem",
    "hipStreamCreateWithFlags",
    "hipStreamSynchronize",
    "hipStreamBeginCapture",
    "hipStreamEndCapture",
    "hipGraphInstantiate",
    "hipGraphDestroy",
    "hipGraphExecDestroy",
    "hipGraphLaunch",
    "hipMalloc",
    "hipFree",
    "hipMemset",
    "hipMemcpyAsync",
    "hipHostRegister",
    "hipHostUnregister",
    "hipModuleLoadData",
    "hipModuleGetFunction",
    "hipModuleLaunchKernel",
    "hipFuncGetAttribute",
    "hipEventCreate",
    "hipEventRecord",
    "hipEventElapsedTime",
    "hiprtcCreateProgram",
    "hiprtcDestroyProgram",
    "hiprtcAddNameExpression",
    "hiprtcCompileProgram",
    "hiprtcVersion",
    "hiprtcGetProgramLog",
    "hiprtcGetProgramLogSize",
    "hiprtcGetLoweredName",
    "hiprtcGetCode",
    "hiprtcGetCodeSize",
];

/// The runtime with one device.
pub(super) struct Hip {
    device: c_int,
    info: Info,
}

/// Makes a call and tells what a failure of it means.
macro_rules! call {
    ($name:ident($($arg:expr),* $(,)?)) => {{
        // SAFETY: the symbol is there (`available`); pointers among the arguments are of live
        // variables, or what the caller promised.
        match unsafe { sys::$name($($arg),*) } {
            0 => Ok(()),
            code => Err(error(stringify!($name), code)),
        }
    }};
}

fn error(call: &'static str, code: u32) -> Error {
    let words = |text: *const c_char| match text.is_null() {
        true => None,
        // SAFETY: what it points to is a constant of the library.
        false => Some(unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()),
    };
    // SAFETY: the symbols are there; any number is answered.
    let (name, text) = unsafe { (sys::hipGetErrorName(code), sys::hipGetErrorString(code)) };
    Error {
        call,
        name: words(name).map_or(format!("error {code}"), |name| format!("{name}, {code}")),
        text: words(text).unwrap_or_else(|| "an unknown error".to_owned()),
        meaning: match code {
            // IllegalAddress, LaunchTimeOut, LaunchFailure, and CUDA's own between them
            700 | 702 | 714 | 716..=719 => Meaning::Crash,
            // Assert, and CUDA's illegal instruction
            710 | 715 => Meaning::Trap,
            // OutOfMemory, LaunchOutOfResources
            2 | 701 => Meaning::TooMuch,
            _ => Meaning::Other,
        },
    }
}

/// Whether the libraries are here and have all that is called; else why not.
pub(super) fn available() -> std::result::Result<(), String> {
    if !sys::is_available() {
        return Err(
            "there is no libamdhip64.so or no libhiprtc.so: install ROCm 5 or newer, or set \
                    ROCM_PATH to where it is"
                .to_owned(),
        );
    }
    let (hip, rtc) = (library("libamdhip64.so")?, library("libhiprtc.so")?);
    for name in SYMBOLS {
        let (library, file) = match name.starts_with("hiprtc") {
            true => (&rtc, "libhiprtc.so"),
            false => (&hip, "libamdhip64.so"),
        };
        // SAFETY: looked up only, not called.
        let found = unsafe { library.get::<unsafe extern "C" fn()>(name.as_bytes()) };
        if found.is_err() {
            return Err(format!("{file} has no {name}: ROCm 5 or newer is needed"));
        }
    }
    Ok(())
}

/// A library, the same that the bindings load.
fn library(name: &str) -> std::result::Result<libloading::Library, String> {
    let folder = std::env::var_os("HIP_PATH").map(std::path::PathBuf::from);
    let path = folder.map(|folder| folder.join(name)).filter(|path| path.exists());
    // SAFETY: the bindings have loaded it, and its start-up code has run.
    unsafe { libloading::Library::new(path.unwrap_or_else(|| name.into())) }
        .map_err(|e| format!("{name}: {e}"))
}

/// The name of a device's target, with its features: `gfx942:sramecc+:xnack-`.
fn target(device: c_int) -> Option<String> {
    type Ask = unsafe extern "C" fn(*mut c_void, c_int) -> u32;
    let library = library("libamdhip64.so").ok()?;
    let mut properties = vec![0u8; PROPERTIES];
    for name in ["hipGetDevicePropertiesR0600", "hipGetDeviceProperties"] {
        // SAFETY: in every version it takes where to write and a device, and writes far less.
        let answer = unsafe {
            let Ok(ask) = library.get::<Ask>(name.as_bytes()) else { continue };
            ask(properties.as_mut_ptr().cast(), device)
        };
        if answer == 0
            && let Some(found) = target_in(&properties)
        {
            return Some(found);
        }
    }
    None
}

/// The first text that is a target's name.
fn target_in(bytes: &[u8]) -> Option<String> {
    let starts = bytes.windows(3).enumerate().filter(|(_, w)| w == b"gfx").map(|(at, _)| at);
    starts.into_iter().find_map(|at| {
        let end = at + bytes[at..].iter().position(|&b| b == 0)?;
        let text = std::str::from_utf8(&bytes[at..end]).ok()?;
        let number = text[3..].split(':').next()?;
        let is_target = number.len() >= 3 && number.bytes().all(|b| b.is_ascii_hexdigit());
        is_target.then(|| text.to_owned())
    })
}

impl Hip {
    /// Opens a visible device.
    pub(super) fn open(ordinal: u32) -> std::result::Result<Hip, String> {
        available()?;
        let none = |error: Error| {
            format!(
                "no AMD GPU can be used: {error}; {}; the user needs access to /dev/kfd and \
                 /dev/dri (groups render and video)",
                visible_devices()
            )
        };
        let mut count = 0;
        call!(hipGetDeviceCount(&raw mut count)).map_err(none)?;
        if i64::from(ordinal) >= i64::from(count) {
            let visible = visible_devices();
            return Err(match count {
                0 => format!("no AMD GPU is visible; {visible}"),
                _ => format!(
                    "there is no device {ordinal}: {count} visible, counted from 0; {visible}"
                ),
            });
        }
        Hip::with(ordinal, count as u32).map_err(|e| e.to_string())
    }

    fn with(ordinal: u32, count: u32) -> Result<Hip> {
        let device = ordinal as c_int;
        call!(hipSetDevice(device))?;
        // Threads that wait sleep: others of this machine have work to do. A wish, no more.
        let _ = call!(hipSetDeviceFlags(sys::hipDeviceScheduleBlockingSync));
        let attribute = |which: sys::hipDeviceAttribute_t| -> Result<u32> {
            let mut value = 0;
            call!(hipDeviceGetAttribute(&raw mut value, which, device))?;
            Ok(u32::try_from(value).unwrap_or(0))
        };
        let (mut name, mut version, mut memory) = ([0 as c_char; 256], 0, 0);
        call!(hipDeviceGetName(name.as_mut_ptr(), name.len() as c_int, device))?;
        call!(hipRuntimeGetVersion(&raw mut version))?;
        call!(hipDeviceTotalMem(&raw mut memory, device))?;
        // SAFETY: the runtime ended the name with a zero.
        let name = unsafe { CStr::from_ptr(name.as_ptr()) }.to_string_lossy().into_owned();
        let (major, minor, patch) =
            (version / 10_000_000, version / 100_000 % 100, version % 100_000);
        let info = Info {
            api: Api::Hip,
            ordinal,
            count,
            name,
            arch: target(device).unwrap_or_default(),
            wave: attribute(sys::hipDeviceAttribute_t_hipDeviceAttributeWarpSize)?,
            driver: format!("HIP {major}.{minor}.{patch}"),
            max_threads: attribute(sys::hipDeviceAttribute_t_hipDeviceAttributeMaxThreadsPerBlock)?,
            max_block: [
                attribute(sys::hipDeviceAttribute_t_hipDeviceAttributeMaxBlockDimX)?,
                attribute(sys::hipDeviceAttribute_t_hipDeviceAttributeMaxBlockDimY)?,
                attribute(sys::hipDeviceAttribute_t_hipDeviceAttributeMaxBlockDimZ)?,
            ],
            max_grid: [
                attribute(sys::hipDeviceAttribute_t_hipDeviceAttributeMaxGridDimX)?,
                attribute(sys::hipDeviceAttribute_t_hipDeviceAttributeMaxGridDimY)?,
                attribute(sys::hipDeviceAttribute_t_hipDeviceAttributeMaxGridDimZ)?,
            ],
            max_shared: attribute(
                sys::hipDeviceAttribute_t_hipDeviceAttributeMaxSharedMemoryPerBlock,
            )?,
            multiprocessors: attribute(
                sys::hipDeviceAttribute_t_hipDeviceAttributeMultiprocessorCount,
            )?,
            l2_bytes: attribute(sys::hipDeviceAttribute_t_hipDeviceAttributeL2CacheSize)?.into(),
            memory: memory as u64,
            pci: {
                // A runtime that does not know where it is has no telemetry, and nothing else is amiss.
                let place = |which| attribute(which).unwrap_or(0);
                telemetry::bus_id(
                    place(sys::hipDeviceAttribute_t_hipDeviceAttributePciDomainID),
                    place(sys::hipDeviceAttribute_t_hipDeviceAttributePciBusId),
                    place(sys::hipDeviceAttribute_t_hipDeviceAttributePciDeviceId),
                )
            },
        };
        Ok(Hip { device, info })
    }
}

impl Driver for Hip {
    fn info(&self) -> &Info {
        &self.info
    }

    fn enter(&self) -> Result<()> {
        call!(hipSetDevice(self.device))
    }

    fn stream(&self) -> Result<Handle> {
        let mut stream: sys::hipStream_t = ptr::null_mut();
        call!(hipStreamCreateWithFlags(&raw mut stream, sys::hipStreamNonBlocking))?;
        Ok(Handle(stream as usize))
    }

    fn wait(&self, stream: Handle) -> Result<()> {
        call!(hipStreamSynchronize(stream.0 as sys::hipStream_t))
    }

    fn block(&self, bytes: usize) -> Result<Block> {
        let whole_bytes = bytes.next_multiple_of(super::super::ARENA_ALIGN) + 2 * MARGIN;
        let mut whole = ptr::null_mut();
        call!(hipMalloc(&raw mut whole, whole_bytes))?;
        // The lanes' streams do not wait for the one in which that is done.
        let filled = call!(hipMemset(whole, FILLER, whole_bytes))
            .and_then(|()| call!(hipStreamSynchronize(ptr::null_mut())));
        if let Err(error) = filled {
            let _ = call!(hipFree(whole));
            return Err(error);
        }
        let whole = Handle(whole as usize);
        // An allocation begins on a page of the GPU's.
        Ok(Block { start: Handle(whole.0 + MARGIN), whole, whole_bytes, handle: 0 })
    }

    fn free(&self, block: Block) -> Result<()> {
        call!(hipFree(block.whole.0 as *mut c_void))
    }

    unsafe fn pin(&self, start: *mut u8, bytes: usize) -> Result<()> {
        call!(hipHostRegister(start.cast(), bytes, 0))
    }

    unsafe fn unpin(&self, start: *mut u8) -> Result<()> {
        call!(hipHostUnregister(start.cast()))
    }

    unsafe fn upload(&self, stream: Handle, to: Handle, from: *const u8, n: usize) -> Result<()> {
        let (to, stream) = (to.0 as *mut c_void, stream.0 as sys::hipStream_t);
        let up = sys::hipMemcpyKind_hipMemcpyHostToDevice;
        call!(hipMemcpyAsync(to, from.cast(), n, up, stream))
    }

    unsafe fn download(&self, stream: Handle, to: *mut u8, from: Handle, n: usize) -> Result<()> {
        let (from, stream) = (from.0 as *const c_void, stream.0 as sys::hipStream_t);
        let down = sys::hipMemcpyKind_hipMemcpyDeviceToHost;
        call!(hipMemcpyAsync(to.cast(), from, n, down, stream))
    }

    unsafe fn copy(&self, stream: Handle, to: Handle, from: Handle, n: usize) -> Result<()> {
        let (to, from) = (to.0 as *mut c_void, from.0 as *const c_void);
        let within = sys::hipMemcpyKind_hipMemcpyDeviceToDevice;
        call!(hipMemcpyAsync(to, from, n, within, stream.0 as sys::hipStream_t))
    }

    fn load(&self, image: &[u8]) -> Result<Handle> {
        let mut module: sys::hipModule_t = ptr::null_mut();
        call!(hipModuleLoadData(&raw mut module, image.as_ptr().cast()))?;
        Ok(Handle(module as usize))
    }

    fn function(&self, module: Handle, name: &CStr) -> Result<Function> {
        let mut function: sys::hipFunction_t = ptr::null_mut();
        let module = module.0 as sys::hipModule_t;
        call!(hipModuleGetFunction(&raw mut function, module, name.as_ptr()))?;
        let attribute = |which: sys::hipFunction_attribute| -> Result<u32> {
            let mut value = 0;
            call!(hipFuncGetAttribute(&raw mut value, which, function))?;
            Ok(u32::try_from(value).unwrap_or(0))
        };
        let limits = Limits {
            max_threads: attribute(
                sys::hipFunction_attribute_HIP_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK,
            )?,
            static_shared: attribute(
                sys::hipFunction_attribute_HIP_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES,
            )?,
        };
        Ok(Function { handle: Handle(function as usize), limits })
    }

    fn allow_shared(&self, _: Handle, _: u32) -> Result<()> {
        // AMD's launches have what the block's limit allows, without being asked.
        Ok(())
    }

    unsafe fn launch(
        &self,
        function: Handle,
        shape: &Shape,
        stream: Handle,
        args: &mut [*mut c_void],
    ) -> Result<()> {
        let ([gx, gy, gz], [bx, by, bz]) = (shape.grid, shape.block);
        let (function, stream) = (function.0 as sys::hipFunction_t, stream.0 as sys::hipStream_t);
        let (shared, args, none) = (shape.shared_bytes, args.as_mut_ptr(), ptr::null_mut());
        call!(hipModuleLaunchKernel(function, gx, gy, gz, bx, by, bz, shared, stream, args, none))
    }

    fn telemetry(&self) -> Option<Telemetry> {
        telemetry::of_amd(Path::new("/sys/bus/pci/devices"), &self.info.pci)
    }

    fn event(&self) -> Result<Handle> {
        let mut event: sys::hipEvent_t = ptr::null_mut();
        call!(hipEventCreate(&raw mut event))?;
        Ok(Handle(event as usize))
    }

    fn record(&self, event: Handle, stream: Handle) -> Result<()> {
        call!(hipEventRecord(event.0 as sys::hipEvent_t, stream.0 as sys::hipStream_t))
    }

    fn elapsed(&self, from: Handle, to: Handle) -> Result<f32> {
        let mut milliseconds = 0.0;
        let (from, to) = (from.0 as sys::hipEvent_t, to.0 as sys::hipEvent_t);
        call!(hipEventElapsedTime(&raw mut milliseconds, from, to))?;
        Ok(milliseconds)
    }

    fn begin_capture(&self, stream: Handle) -> Result<()> {
        let own = sys::hipStreamCaptureMode_hipStreamCaptureModeThreadLocal;
        call!(hipStreamBeginCapture(stream.0 as sys::hipStream_t, own))
    }

    fn end_capture(&self, stream: Handle) -> Result<Handle> {
        let mut graph: sys::hipGraph_t = ptr::null_mut();
        let mut exec: sys::hipGraphExec_t = ptr::null_mut();
        call!(hipStreamEndCapture(stream.0 as sys::hipStream_t, &raw mut graph))?;
        let none = ptr::null_mut();
        let made = call!(hipGraphInstantiate(&raw mut exec, graph, none, ptr::null_mut(), 0));
        call!(hipGraphDestroy(graph))?;
        made.map(|()| Handle(exec as usize))
    }

    fn launch_graph(&self, graph: Handle, stream: Handle) -> Result<()> {
        call!(hipGraphLaunch(graph.0 as sys::hipGraphExec_t, stream.0 as sys::hipStream_t))
    }

    fn free_graph(&self, graph: Handle) -> Result<()> {
        call!(hipGraphExecDestroy(graph.0 as sys::hipGraphExec_t))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_targets_name_is_found_wherever_it_lies() {
        let mut bytes = vec![0u8; 4096];
        bytes[100..].iter_mut().zip(b"a gfxcard\0").for_each(|(to, b)| *to = *b);
        assert_eq!(target_in(&bytes), None);
        bytes[1160..].iter_mut().zip(b"gfx942:sramecc+:xnack-\0").for_each(|(to, b)| *to = *b);
        assert_eq!(target_in(&bytes).as_deref(), Some("gfx942:sramecc+:xnack-"));
        bytes[1160..].iter_mut().zip(b"gfx1100\0").for_each(|(to, b)| *to = *b);
        assert_eq!(target_in(&bytes).as_deref(), Some("gfx1100"));
    }
}
