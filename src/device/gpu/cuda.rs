//! NVIDIA's driver, through cudarc's bindings and its library, which is loaded when it is asked for.
//!
//! The calls are looked up here, as numbers come back from them: cudarc has the result as an enum of
//! one version, and a newer driver's code would be no value of it. A symbol that is missing is then a
//! sentence, too, and no panic.
//!
//! A lane's memory lies alone in a stretch of addresses of its own (the driver's virtual memory calls): what
//! misses it by less than [`ROOM`] is a fault, and never another lane's data.

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_ulonglong, c_void};
use std::ptr;

use cudarc::driver::sys;
use sys::CUdevice_attribute as Attribute;
use sys::CUfunction_attribute as Of;

use super::super::timing::Telemetry;
use super::Api;
use super::driver::{Block, Driver, Error, Function, Handle, Meaning, Result, Shape};
use super::library::{self, Missing};
use super::protocol::{Info, Limits};
use super::telemetry;

/// Addresses kept free on either side of an arena, bytes.
const ROOM: usize = 64 << 30;

/// What nobody may use is of this, to be told from an arena's poison: NaN in every type.
const FILLER: u8 = 0xff;

library::calls! {
    /// The driver's calls that are used here, all of them in CUDA 11.4 and later.
    struct Calls {
        cuInit(flags: c_uint);
        cuDriverGetVersion(version: *mut c_int);
        cuGetErrorName(code: c_uint, name: *mut *const c_char);
        cuGetErrorString(code: c_uint, text: *mut *const c_char);
        cuDeviceGetCount(count: *mut c_int);
        cuDeviceGet(device: *mut c_int, ordinal: c_int);
        cuDeviceGetName(name: *mut c_char, bytes: c_int, device: c_int);
        cuDeviceGetAttribute(value: *mut c_int, attribute: c_int, device: c_int);
        cuDeviceTotalMem_v2(bytes: *mut usize, device: c_int);
        cuDevicePrimaryCtxSetFlags_v2(device: c_int, flags: c_uint);
        cuDevicePrimaryCtxRetain(context: *mut sys::CUcontext, device: c_int);
        cuCtxSetCurrent(context: sys::CUcontext);
        cuStreamCreate(stream: *mut sys::CUstream, flags: c_uint);
        cuStreamSynchronize(stream: sys::CUstream);
        cuStreamBeginCapture_v2(stream: sys::CUstream, mode: c_uint);
        cuStreamEndCapture(stream: sys::CUstream, graph: *mut sys::CUgraph);
        cuGraphInstantiateWithFlags(exec: *mut sys::CUgraphExec, graph: sys::CUgraph, flags: c_ulonglong);
        cuGraphDestroy(graph: sys::CUgraph);
        cuGraphExecDestroy(exec: sys::CUgraphExec);
        cuGraphLaunch(exec: sys::CUgraphExec, stream: sys::CUstream);
        cuMemGetAllocationGranularity(bytes: *mut usize, of: *const sys::CUmemAllocationProp, which: c_uint);
        cuMemAddressReserve(at: *mut u64, bytes: usize, align: usize, wanted: u64, flags: c_ulonglong);
        cuMemAddressFree(at: u64, bytes: usize);
        cuMemCreate(handle: *mut u64, bytes: usize, of: *const sys::CUmemAllocationProp, flags: c_ulonglong);
        cuMemMap(at: u64, bytes: usize, offset: usize, handle: u64, flags: c_ulonglong);
        cuMemSetAccess(at: u64, bytes: usize, access: *const sys::CUmemAccessDesc, count: usize);
        cuMemUnmap(at: u64, bytes: usize);
        cuMemRelease(handle: u64);
        cuMemsetD8_v2(at: u64, value: u8, bytes: usize);
        cuMemHostRegister_v2(start: *mut c_void, bytes: usize, flags: c_uint);
        cuMemHostUnregister(start: *mut c_void);
        cuMemcpyHtoDAsync_v2(to: u64, from: *const c_void, bytes: usize, stream: sys::CUstream);
        cuMemcpyDtoHAsync_v2(to: *mut c_void, from: u64, bytes: usize, stream: sys::CUstream);
        cuMemcpyDtoDAsync_v2(to: u64, from: u64, bytes: usize, stream: sys::CUstream);
        cuModuleLoadData(module: *mut sys::CUmodule, image: *const c_void);
        cuModuleGetFunction(function: *mut sys::CUfunction, module: sys::CUmodule, name: *const c_char);
        cuFuncGetAttribute(value: *mut c_int, attribute: c_uint, function: sys::CUfunction);
        cuFuncSetAttribute(function: sys::CUfunction, attribute: c_uint, value: c_int);
        cuLaunchKernel(
            function: sys::CUfunction, gx: c_uint, gy: c_uint, gz: c_uint, bx: c_uint, by: c_uint,
            bz: c_uint, shared: c_uint, stream: sys::CUstream, args: *mut *mut c_void,
            more: *mut *mut c_void
        );
        cuEventCreate(event: *mut sys::CUevent, flags: c_uint);
        cuEventRecord(event: sys::CUevent, stream: sys::CUstream);
        cuEventElapsedTime(milliseconds: *mut f32, from: sys::CUevent, to: sys::CUevent);
    }
}

/// The driver with one device.
pub(super) struct Cuda {
    calls: Calls,
    context: sys::CUcontext,
    device: c_int,
    granularity: usize,
    info: Info,
}

// SAFETY: the driver's calls may be made by any thread, and its handles are the process's.
unsafe impl Send for Cuda {}
// SAFETY: as above.
unsafe impl Sync for Cuda {}

/// Makes a call and tells what a failure of it means.
macro_rules! call {
    ($calls:expr, $name:ident($($arg:expr),* $(,)?)) => {{
        let calls: &Calls = &$calls;
        // SAFETY: the function is the driver's own of that name; pointers among the arguments are of
        // live variables, or what the caller promised.
        match unsafe { (calls.$name)($($arg),*) } {
            0 => Ok(()),
            code => Err(error(calls, stringify!($name), code)),
        }
    }};
}

fn error(calls: &Calls, call: &'static str, code: u32) -> Error {
    let words = |ask: unsafe extern "C" fn(c_uint, *mut *const c_char) -> c_uint| {
        let mut text: *const c_char = ptr::null();
        // SAFETY: the driver's own function; what it points to is a constant of the library.
        unsafe {
            let known = ask(code, &raw mut text) == 0 && !text.is_null();
            known.then(|| CStr::from_ptr(text).to_string_lossy().into_owned())
        }
    };
    let name = words(calls.cuGetErrorName);
    Error {
        call,
        name: name.map_or(format!("error {code}"), |name| format!("{name}, {code}")),
        text: words(calls.cuGetErrorString).unwrap_or_else(|| "an unknown error".to_owned()),
        meaning: match code {
            // ILLEGAL_ADDRESS, LAUNCH_TIMEOUT, HARDWARE_STACK_ERROR, MISALIGNED_ADDRESS to
            // INVALID_PC, LAUNCH_FAILED; ECC_UNCORRECTABLE is not the kernel's.
            700 | 702 | 714 | 716..=719 => Meaning::Crash,
            // ASSERT, ILLEGAL_INSTRUCTION (which `__trap` is)
            710 | 715 => Meaning::Trap,
            // OUT_OF_MEMORY, LAUNCH_OUT_OF_RESOURCES
            2 | 701 => Meaning::TooMuch,
            _ => Meaning::Other,
        },
    }
}

impl Cuda {
    /// Opens a visible device.
    pub(super) fn open(ordinal: u32) -> std::result::Result<Cuda, String> {
        // SAFETY: loads the driver's library, whose start-up code is trusted as the system's own.
        if !unsafe { sys::is_culib_present() } {
            return Err("there is no libcuda.so: no NVIDIA driver is installed".to_owned());
        }
        // SAFETY: it is there.
        let library = unsafe { sys::culib() };
        let calls = Calls::load(library).map_err(|Missing(symbol)| {
            format!("libcuda.so has no {symbol}: the driver is older than CUDA 11.4; update it")
        })?;
        let none = |error: Error| {
            let visible = library::visible_devices();
            format!("no NVIDIA GPU can be used: {error}; {visible}")
        };
        call!(calls, cuInit(0)).map_err(none)?;
        let mut count = 0;
        call!(calls, cuDeviceGetCount(&raw mut count)).map_err(none)?;
        if i64::from(ordinal) >= i64::from(count) {
            let visible = library::visible_devices();
            return Err(match count {
                0 => format!("no NVIDIA GPU is visible; {visible}"),
                _ => format!(
                    "there is no device {ordinal}: {count} visible, counted from 0; {visible}"
                ),
            });
        }
        Cuda::with(calls, ordinal, count as u32).map_err(|e| e.to_string())
    }

    fn with(calls: Calls, ordinal: u32, count: u32) -> Result<Cuda> {
        let mut device = 0;
        call!(calls, cuDeviceGet(&raw mut device, ordinal as c_int))?;
        let attribute = |which: Attribute| -> Result<u32> {
            let mut value = 0;
            call!(calls, cuDeviceGetAttribute(&raw mut value, which as c_int, device))?;
            Ok(u32::try_from(value).unwrap_or(0))
        };
        let (mut name, mut version, mut memory) = ([0 as c_char; 128], 0, 0);
        call!(calls, cuDeviceGetName(name.as_mut_ptr(), name.len() as c_int, device))?;
        call!(calls, cuDriverGetVersion(&raw mut version))?;
        call!(calls, cuDeviceTotalMem_v2(&raw mut memory, device))?;
        // Threads that wait sleep: others of this machine have work to do.
        let sleeping = sys::CUctx_flags::CU_CTX_SCHED_BLOCKING_SYNC as c_uint;
        call!(calls, cuDevicePrimaryCtxSetFlags_v2(device, sleeping))?;
        let mut context = ptr::null_mut();
        call!(calls, cuDevicePrimaryCtxRetain(&raw mut context, device))?;
        call!(calls, cuCtxSetCurrent(context))?;
        let mut granularity = 0;
        let property = property(device);
        call!(calls, cuMemGetAllocationGranularity(&raw mut granularity, &raw const property, 0))?;
        use Attribute as A;
        let (major, minor) = (
            attribute(A::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            attribute(A::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        );
        // SAFETY: the driver ended the name with a zero.
        let name = unsafe { CStr::from_ptr(name.as_ptr()) }.to_string_lossy().into_owned();
        let info = Info {
            api: Api::Cuda,
            ordinal,
            count,
            name,
            arch: format!("sm_{major}{minor}"),
            wave: attribute(A::CU_DEVICE_ATTRIBUTE_WARP_SIZE)?,
            driver: format!("CUDA {}.{}", version / 1000, version % 1000 / 10),
            max_threads: attribute(A::CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK)?,
            max_block: [
                attribute(A::CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_X)?,
                attribute(A::CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Y)?,
                attribute(A::CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Z)?,
            ],
            max_grid: [
                attribute(A::CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_X)?,
                attribute(A::CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Y)?,
                attribute(A::CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Z)?,
            ],
            max_shared: attribute(A::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?,
            multiprocessors: attribute(A::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
            l2_bytes: attribute(A::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)?.into(),
            memory: memory as u64,
            pci: telemetry::bus_id(
                attribute(A::CU_DEVICE_ATTRIBUTE_PCI_DOMAIN_ID)?,
                attribute(A::CU_DEVICE_ATTRIBUTE_PCI_BUS_ID)?,
                attribute(A::CU_DEVICE_ATTRIBUTE_PCI_DEVICE_ID)?,
            ),
        };
        Ok(Cuda { calls, context, device, granularity, info })
    }

    fn map(&self, at: u64, bytes: usize) -> Result<u64> {
        let property = property(self.device);
        let access = sys::CUmemAccessDesc {
            location: property.location,
            flags: sys::CUmemAccess_flags::CU_MEM_ACCESS_FLAGS_PROT_READWRITE,
        };
        let mut handle = 0;
        call!(self.calls, cuMemCreate(&raw mut handle, bytes, &raw const property, 0))?;
        let mapped = call!(self.calls, cuMemMap(at, bytes, 0, handle, 0))
            .and_then(|()| call!(self.calls, cuMemSetAccess(at, bytes, &raw const access, 1)))
            .and_then(|()| call!(self.calls, cuMemsetD8_v2(at, FILLER, bytes)))
            // The lanes' streams do not wait for the one in which that is done.
            .and_then(|()| call!(self.calls, cuStreamSynchronize(ptr::null_mut())));
        if let Err(error) = mapped {
            let _ = call!(self.calls, cuMemUnmap(at, bytes));
            let _ = call!(self.calls, cuMemRelease(handle));
            return Err(error);
        }
        Ok(handle)
    }
}

/// Plain memory of a device.
fn property(device: c_int) -> sys::CUmemAllocationProp {
    // SAFETY: all zero is what the driver wants of the fields that are not used; none is a reference.
    let mut property: sys::CUmemAllocationProp = unsafe { std::mem::zeroed() };
    property.type_ = sys::CUmemAllocationType::CU_MEM_ALLOCATION_TYPE_PINNED;
    property.location.type_ = sys::CUmemLocationType::CU_MEM_LOCATION_TYPE_DEVICE;
    property.location.id = device;
    property
}

impl Driver for Cuda {
    fn info(&self) -> &Info {
        &self.info
    }

    fn enter(&self) -> Result<()> {
        call!(self.calls, cuCtxSetCurrent(self.context))
    }

    fn stream(&self) -> Result<Handle> {
        let mut stream: sys::CUstream = ptr::null_mut();
        let apart = sys::CUstream_flags::CU_STREAM_NON_BLOCKING as c_uint;
        call!(self.calls, cuStreamCreate(&raw mut stream, apart))?;
        Ok(Handle(stream as usize))
    }

    fn wait(&self, stream: Handle) -> Result<()> {
        call!(self.calls, cuStreamSynchronize(stream.0 as sys::CUstream))
    }

    fn block(&self, bytes: usize) -> Result<Block> {
        let mapped = bytes.max(1).next_multiple_of(self.granularity);
        let whole_bytes = mapped + 2 * ROOM;
        let mut whole = 0;
        call!(self.calls, cuMemAddressReserve(&raw mut whole, whole_bytes, 0, 0, 0))?;
        let at = whole + ROOM as u64;
        let handle = match self.map(at, mapped) {
            Ok(handle) => handle,
            Err(error) => {
                let _ = call!(self.calls, cuMemAddressFree(whole, whole_bytes));
                return Err(error);
            }
        };
        // The arena ends where the mapping does: what overruns it faults.
        let start = at + (mapped - bytes.next_multiple_of(super::super::ARENA_ALIGN)) as u64;
        Ok(Block {
            start: Handle(start as usize),
            whole: Handle(whole as usize),
            whole_bytes,
            handle,
        })
    }

    fn free(&self, block: Block) -> Result<()> {
        let (at, bytes) = (block.whole.0 as u64 + ROOM as u64, block.whole_bytes - 2 * ROOM);
        call!(self.calls, cuMemUnmap(at, bytes))?;
        call!(self.calls, cuMemRelease(block.handle))?;
        call!(self.calls, cuMemAddressFree(block.whole.0 as u64, block.whole_bytes))
    }

    unsafe fn pin(&self, start: *mut u8, bytes: usize) -> Result<()> {
        call!(self.calls, cuMemHostRegister_v2(start.cast(), bytes, 0))
    }

    unsafe fn unpin(&self, start: *mut u8) -> Result<()> {
        call!(self.calls, cuMemHostUnregister(start.cast()))
    }

    unsafe fn upload(&self, stream: Handle, to: Handle, from: *const u8, n: usize) -> Result<()> {
        let stream = stream.0 as sys::CUstream;
        call!(self.calls, cuMemcpyHtoDAsync_v2(to.0 as u64, from.cast(), n, stream))
    }

    unsafe fn download(&self, stream: Handle, to: *mut u8, from: Handle, n: usize) -> Result<()> {
        let stream = stream.0 as sys::CUstream;
        call!(self.calls, cuMemcpyDtoHAsync_v2(to.cast(), from.0 as u64, n, stream))
    }

    unsafe fn copy(&self, stream: Handle, to: Handle, from: Handle, n: usize) -> Result<()> {
        let (to, from, stream) = (to.0 as u64, from.0 as u64, stream.0 as sys::CUstream);
        call!(self.calls, cuMemcpyDtoDAsync_v2(to, from, n, stream))
    }

    fn load(&self, image: &[u8]) -> Result<Handle> {
        // A text is read to its zero; a binary knows its own length.
        let text = CString::new(image);
        let start = text.as_ref().map_or(image.as_ptr(), |text| text.as_ptr().cast());
        let mut module: sys::CUmodule = ptr::null_mut();
        call!(self.calls, cuModuleLoadData(&raw mut module, start.cast()))?;
        Ok(Handle(module as usize))
    }

    fn function(&self, module: Handle, name: &CStr) -> Result<Function> {
        let mut function: sys::CUfunction = ptr::null_mut();
        let module = module.0 as sys::CUmodule;
        call!(self.calls, cuModuleGetFunction(&raw mut function, module, name.as_ptr()))?;
        let attribute = |which: Of| -> Result<u32> {
            let mut value = 0;
            call!(self.calls, cuFuncGetAttribute(&raw mut value, which as c_uint, function))?;
            Ok(u32::try_from(value).unwrap_or(0))
        };
        let limits = Limits {
            max_threads: attribute(Of::CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK)?,
            static_shared: attribute(Of::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES)?,
        };
        Ok(Function { handle: Handle(function as usize), limits })
    }

    fn allow_shared(&self, function: Handle, bytes: u32) -> Result<()> {
        let dynamic = Of::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES as c_uint;
        let function = function.0 as sys::CUfunction;
        call!(self.calls, cuFuncSetAttribute(function, dynamic, bytes as c_int))
    }

    unsafe fn launch(
        &self,
        function: Handle,
        shape: &Shape,
        stream: Handle,
        args: &mut [*mut c_void],
    ) -> Result<()> {
        let ([gx, gy, gz], [bx, by, bz]) = (shape.grid, shape.block);
        let (function, stream) = (function.0 as sys::CUfunction, stream.0 as sys::CUstream);
        let (shared, args, none) = (shape.shared_bytes, args.as_mut_ptr(), ptr::null_mut());
        call!(
            self.calls,
            cuLaunchKernel(function, gx, gy, gz, bx, by, bz, shared, stream, args, none)
        )
    }

    fn telemetry(&self) -> Option<Telemetry> {
        telemetry::of_nvidia(&self.info.pci)
    }

    fn event(&self) -> Result<Handle> {
        let mut event: sys::CUevent = ptr::null_mut();
        call!(self.calls, cuEventCreate(&raw mut event, 0))?;
        Ok(Handle(event as usize))
    }

    fn record(&self, event: Handle, stream: Handle) -> Result<()> {
        call!(self.calls, cuEventRecord(event.0 as sys::CUevent, stream.0 as sys::CUstream))
    }

    fn elapsed(&self, from: Handle, to: Handle) -> Result<f32> {
        let mut milliseconds = 0.0;
        let (from, to) = (from.0 as sys::CUevent, to.0 as sys::CUevent);
        call!(self.calls, cuEventElapsedTime(&raw mut milliseconds, from, to))?;
        Ok(milliseconds)
    }

    fn begin_capture(&self, stream: Handle) -> Result<()> {
        let own = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL as c_uint;
        call!(self.calls, cuStreamBeginCapture_v2(stream.0 as sys::CUstream, own))
    }

    fn end_capture(&self, stream: Handle) -> Result<Handle> {
        let (mut graph, mut exec) = (ptr::null_mut(), ptr::null_mut());
        call!(self.calls, cuStreamEndCapture(stream.0 as sys::CUstream, &raw mut graph))?;
        let made = call!(self.calls, cuGraphInstantiateWithFlags(&raw mut exec, graph, 0));
        call!(self.calls, cuGraphDestroy(graph))?;
        made.map(|()| Handle(exec as usize))
    }

    fn launch_graph(&self, graph: Handle, stream: Handle) -> Result<()> {
        call!(self.calls, cuGraphLaunch(graph.0 as sys::CUgraphExec, stream.0 as sys::CUstream))
    }

    fn free_graph(&self, graph: Handle) -> Result<()> {
        call!(self.calls, cuGraphExecDestroy(graph.0 as sys::CUgraphExec))
    }
}
