//! The compiling process: NVRTC or hiprtc turn one source into a binary.
//!
//! A process of its own for each source: these compilers have locks, and now and then they crash.

use std::ffi::{CStr, CString, OsString, c_char, c_int};
use std::fs;
use std::io::{self, BufReader};
use std::path::PathBuf;
use std::process::ExitCode;
use std::ptr;

use cudarc::nvrtc::sys as nv;
use hip_sys as hip;
use serde::{Deserialize, Serialize};

use super::super::wire;
use super::Api;
use super::library::{self, Missing};

/// What is to be done.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Job {
    /// Say which compiler it is.
    Version,
    Compile(Unit),
}

/// One compilation.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Unit {
    /// The translation unit.
    pub(super) text: String,
    /// Its name in messages.
    pub(super) name: String,
    /// Name expressions of the kernels wanted.
    pub(super) entries: Vec<String>,
    pub(super) options: Vec<String>,
    /// Where the binary goes.
    pub(super) binary: PathBuf,
}

/// What came of it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Made {
    Version(String),
    /// The kernels' names in the binary, and what the compiler said.
    Binary {
        kernels: Vec<String>,
        log: String,
    },
    /// The compiler refused the source, with its messages.
    Rejected(String),
    /// There is no compiler, or it failed.
    Failed(String),
}

/// The program's `main` when its first argument is the compiler's: the API follows.
pub fn compiler_main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let word = args.into_iter().next();
    let Some(api) = word.and_then(|word| Api::named(&word.to_string_lossy())) else {
        eprintln!("attnbench: this is an internal command of the GPU devices");
        return ExitCode::from(2);
    };
    match answer(api) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("attnbench: the GPU's compiler failed: {error}");
            ExitCode::from(2)
        }
    }
}

fn answer(api: Api) -> io::Result<()> {
    let mut replies = wire::private_stdout()?;
    let Some(job) = wire::receive(&mut BufReader::new(io::stdin()))? else { return Ok(()) };
    let made = match (api, job) {
        (Api::Cuda, job) => nvrtc().and_then(|calls| match job {
            Job::Version => calls.version(),
            Job::Compile(unit) => calls.compile(&unit),
        }),
        (Api::Hip, job) => super::hip::available().and_then(|()| match job {
            Job::Version => hiprtc_version(),
            Job::Compile(unit) => hiprtc_compile(&unit),
        }),
    };
    wire::send(&mut replies, &made.unwrap_or_else(Made::Failed))
}

/// Texts as C has them, and the addresses of them.
struct Texts {
    _own: Vec<CString>,
    pointers: Vec<*const c_char>,
}

impl Texts {
    fn new(texts: &[String]) -> Result<Texts, String> {
        let own: Vec<CString> = texts.iter().map(|t| text(t)).collect::<Result<_, _>>()?;
        let pointers = own.iter().map(|text| text.as_ptr()).collect();
        Ok(Texts { _own: own, pointers })
    }
}

fn text(text: &str) -> Result<CString, String> {
    CString::new(text).map_err(|_| "the source or an option holds a zero byte".to_owned())
}

/// A text that a compiler keeps, as long as its program.
fn owned(text: *const c_char) -> String {
    // SAFETY: the callers pass what a successful call has set, ended with a zero.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

fn put(unit: &Unit, code: &[u8]) -> Result<(), String> {
    fs::write(&unit.binary, code).map_err(|e| format!("{}: {e}", unit.binary.display()))
}

library::calls! {
    /// NVRTC's calls that are used here.
    struct Nvrtc {
        nvrtcVersion(major: *mut c_int, minor: *mut c_int);
        nvrtcCreateProgram(
            program: *mut nv::nvrtcProgram, text: *const c_char, name: *const c_char,
            headers: c_int, texts: *const *const c_char, names: *const *const c_char
        );
        nvrtcDestroyProgram(program: *mut nv::nvrtcProgram);
        nvrtcAddNameExpression(program: nv::nvrtcProgram, name: *const c_char);
        nvrtcCompileProgram(program: nv::nvrtcProgram, count: c_int, options: *const *const c_char);
        nvrtcGetProgramLogSize(program: nv::nvrtcProgram, bytes: *mut usize);
        nvrtcGetProgramLog(program: nv::nvrtcProgram, log: *mut c_char);
        nvrtcGetLoweredName(program: nv::nvrtcProgram, name: *const c_char, lowered: *mut *const c_char);
        nvrtcGetCUBINSize(program: nv::nvrtcProgram, bytes: *mut usize);
        nvrtcGetCUBIN(program: nv::nvrtcProgram, code: *mut c_char);
    }
}

fn nvrtc() -> Result<Nvrtc, String> {
    // SAFETY: loads NVIDIA's compiler, whose start-up code is trusted as the system's own.
    if !unsafe { nv::is_culib_present() } {
        return Err(
            "there is no libnvrtc.so: install the CUDA toolkit (or its package nvrtc), or \
                    name the file in ATTNBENCH_NVRTC"
                .to_owned(),
        );
    }
    // SAFETY: it is there.
    let library = unsafe { nv::culib() };
    Nvrtc::load(library).map_err(|Missing(symbol)| {
        format!("libnvrtc.so has no {symbol}: CUDA 11.4 or newer is needed")
    })
}

/// Calls one of a compiler's functions; the error names it.
macro_rules! call {
    ($function:expr, $name:expr, $($arg:expr),* $(,)?) => {
        // SAFETY: the function is the vendor's own of that name; pointers are of live variables.
        match unsafe { $function($($arg),*) } {
            0 => Ok(()),
            code => Err(format!("{} answers {code}", $name)),
        }
    };
}

impl Nvrtc {
    fn version(&self) -> Result<Made, String> {
        let (mut major, mut minor) = (0, 0);
        call!((self.nvrtcVersion), "nvrtcVersion", &raw mut major, &raw mut minor)?;
        Ok(Made::Version(format!("NVRTC {major}.{minor}")))
    }

    fn compile(&self, unit: &Unit) -> Result<Made, String> {
        let (source, name) = (text(&unit.text)?, text(&unit.name)?);
        let (options, entries) = (Texts::new(&unit.options)?, Texts::new(&unit.entries)?);
        let mut program = ptr::null_mut();
        let (source, name) = (source.as_ptr(), name.as_ptr());
        let create = self.nvrtcCreateProgram;
        let none = ptr::null();
        call!(create, "nvrtcCreateProgram", &raw mut program, source, name, 0, none, none)?;
        for &entry in &entries.pointers {
            call!((self.nvrtcAddNameExpression), "nvrtcAddNameExpression", program, entry)?;
        }
        let count = options.pointers.len() as c_int;
        let compiled = call!(
            (self.nvrtcCompileProgram),
            "nvrtcCompileProgram",
            program,
            count,
            options.pointers.as_ptr()
        );
        let mut bytes = 0;
        call!((self.nvrtcGetProgramLogSize), "nvrtcGetProgramLogSize", program, &raw mut bytes)?;
        let mut log = vec![0u8; bytes + 1];
        let to = log.as_mut_ptr().cast();
        call!((self.nvrtcGetProgramLog), "nvrtcGetProgramLog", program, to)?;
        let log = owned(log.as_ptr().cast());
        if let Err(why) = compiled {
            return Ok(Made::Rejected(if log.is_empty() { why } else { log }));
        }
        let mut kernels = Vec::new();
        for &entry in &entries.pointers {
            let mut lowered = ptr::null();
            let ask = self.nvrtcGetLoweredName;
            call!(ask, "nvrtcGetLoweredName", program, entry, &raw mut lowered)?;
            kernels.push(owned(lowered));
        }
        call!((self.nvrtcGetCUBINSize), "nvrtcGetCUBINSize", program, &raw mut bytes)?;
        let mut code = vec![0u8; bytes];
        let to = code.as_mut_ptr().cast();
        call!((self.nvrtcGetCUBIN), "nvrtcGetCUBIN", program, to)?;
        put(unit, &code)?;
        call!((self.nvrtcDestroyProgram), "nvrtcDestroyProgram", &raw mut program)?;
        Ok(Made::Binary { kernels, log })
    }
}

fn hiprtc_version() -> Result<Made, String> {
    let (mut major, mut minor) = (0, 0);
    call!(hip::hiprtcVersion, "hiprtcVersion", &raw mut major, &raw mut minor)?;
    // The compiler's own number has stood still; the runtime's tells the release.
    let mut runtime = 0;
    call!(hip::hipRuntimeGetVersion, "hipRuntimeGetVersion", &raw mut runtime).unwrap_or_default();
    let (first, second) = (runtime / 10_000_000, runtime / 100_000 % 100);
    Ok(Made::Version(match runtime {
        0 => format!("hiprtc {major}.{minor}"),
        _ => format!("hiprtc {major}.{minor} of HIP {first}.{second}.{}", runtime % 100_000),
    }))
}

fn hiprtc_compile(unit: &Unit) -> Result<Made, String> {
    let (source, name) = (text(&unit.text)?, text(&unit.name)?);
    let (mut options, entries) = (Texts::new(&unit.options)?, Texts::new(&unit.entries)?);
    let mut program: hip::hiprtcProgram = ptr::null_mut();
    let (source, name) = (source.as_ptr(), name.as_ptr());
    // The two lists are `const char**` in some versions and `const char* const*` in others.
    let none = || ptr::null_mut();
    call!(
        hip::hiprtcCreateProgram,
        "hiprtcCreateProgram",
        &raw mut program,
        source,
        name,
        0,
        none(),
        none()
    )?;
    for &entry in &entries.pointers {
        call!(hip::hiprtcAddNameExpression, "hiprtcAddNameExpression", program, entry)?;
    }
    let count = options.pointers.len() as c_int;
    let list = options.pointers.as_mut_ptr();
    let compiled = call!(hip::hiprtcCompileProgram, "hiprtcCompileProgram", program, count, list);
    let mut bytes = 0;
    call!(hip::hiprtcGetProgramLogSize, "hiprtcGetProgramLogSize", program, &raw mut bytes)?;
    // why: where there is no log some versions count no byte, and write one all the same.
    let mut log = vec![0u8; bytes + 8];
    let to = log.as_mut_ptr().cast();
    call!(hip::hiprtcGetProgramLog, "hiprtcGetProgramLog", program, to)?;
    let log = owned(log.as_ptr().cast());
    if let Err(why) = compiled {
        return Ok(Made::Rejected(if log.trim().is_empty() { why } else { log }));
    }
    let mut kernels = Vec::new();
    for &entry in &entries.pointers {
        let mut lowered = ptr::null();
        let name = "hiprtcGetLoweredName";
        call!(hip::hiprtcGetLoweredName, name, program, entry, &raw mut lowered)?;
        kernels.push(owned(lowered));
    }
    call!(hip::hiprtcGetCodeSize, "hiprtcGetCodeSize", program, &raw mut bytes)?;
    let mut code = vec![0u8; bytes];
    let to = code.as_mut_ptr().cast();
    call!(hip::hiprtcGetCode, "hiprtcGetCode", program, to)?;
    put(unit, &code)?;
    call!(hip::hiprtcDestroyProgram, "hiprtcDestroyProgram", &raw mut program)?;
    Ok(Made::Binary { kernels, log })
}
