//! From a HIP source to a binary for one GPU target, kept by the hash of all it depends on.
//!
//! A small generated translation unit includes the user's file and leaves each kernel's parameters in
//! the binary, from where they are read: a launch whose arguments do not fit is then a sentence.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufReader, Read};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::super::cache::{self, Slot};
use super::super::diagnostics::{self, Files};
use super::super::headers::Headers;
use super::super::signature::{self, Signature};
use super::super::wire::{self, Waited};
use super::super::{CompileError, Module, ParamKind, Source, absolute, includes, params};
use super::compiler::{Job, Made, Unit};
use super::library::Libraries;
use super::protocol::COMPILER_ARGUMENT;
use super::{Api, GpuConfig, cubin};

macro_rules! headers {
    ($($path:literal from $file:literal),* $(,)?) => {
        vec![$(($path, include_str!(concat!("include/", $file)))),*]
    };
}

/// What a HIP kernel includes, for NVRTC.
static CUDA: LazyLock<Headers> = LazyLock::new(|| {
    Headers::new(
        "include-cuda",
        headers![
            "hip/hip_runtime.h" from "cuda/hip/hip_runtime.h",
            "hip/hip_fp16.h" from "cuda/hip/hip_fp16.h",
            "hip/hip_bf16.h" from "cuda/hip/hip_bf16.h",
            "hip/hip_bfloat16.h" from "cuda/hip/hip_bfloat16.h",
            "attnbench/params.h" from "common/attnbench/params.h",
            "attnbench/beside.hip" from "common/attnbench/beside.hip",
            "assert.h" from "cuda/assert.h",
            "float.h" from "cuda/float.h",
            "limits.h" from "cuda/limits.h",
            "math.h" from "cuda/math.h",
            "stdint.h" from "cuda/stdint.h",
            "stdio.h" from "cuda/stdio.h",
        ],
    )
});

/// What a HIP kernel includes, for hiprtc.
static HIP: LazyLock<Headers> = LazyLock::new(|| {
    Headers::new(
        "include-hip",
        headers![
            "hip/hip_runtime.h" from "hiprtc/hip/hip_runtime.h",
            "math.h" from "hiprtc/math.h",
            "stdint.h" from "hiprtc/stdint.h",
            "hip/hip_fp16.h" from "hiprtc/hip/hip_fp16.h",
            "hip/hip_bf16.h" from "hiprtc/hip/hip_bf16.h",
            "hip/hip_bfloat16.h" from "hiprtc/hip/hip_bfloat16.h",
            "attnbench/params.h" from "common/attnbench/params.h",
            "attnbench/beside.hip" from "common/attnbench/beside.hip",
        ],
    )
});

/// How long a compilation may take.
const PATIENCE: Duration = Duration::from_secs(300);

/// The kernels around runs side by side: the one that looks for what a run changed, and the one that
/// makes images of another.
const BESIDE: [&str; 2] = ["attnbench_changed", "attnbench_exchange"];

/// What is kept of a binary beside its code.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Description {
    /// Source, compiler and flags, for whoever looks into the folder.
    made_from: String,
    /// The kernels' names in the binary, one an entry.
    kernels: Vec<String>,
    params: Vec<Vec<ParamKind>>,
    /// What else is known of each kernel.
    signatures: Vec<Signature>,
    /// What the compiler said.
    log: String,
}

/// A vendor's run-time compiler.
#[derive(Debug)]
pub struct Compiler {
    api: Api,
    config: GpuConfig,
    libraries: Libraries,
    version: OnceLock<Result<String, String>>,
}

impl Compiler {
    /// Looks for an API's compiler; whether it works shows with the first use.
    pub fn new(api: Api, config: GpuConfig) -> Compiler {
        let libraries = Libraries::find(api, &|name| config.variable(name));
        Compiler { api, config, libraries, version: OnceLock::new() }
    }

    pub(super) fn libraries(&self) -> &Libraries {
        &self.libraries
    }

    /// Which compiler it is, such as `NVRTC 13.0`.
    ///
    /// # Errors
    /// [`CompileError::NoCompiler`], with what to install.
    pub fn version(&self) -> Result<&str, CompileError> {
        let ask = || match self.ask(&Job::Version) {
            Ok(Made::Version(version)) => Ok(version),
            Ok(Made::Failed(why)) => Err(why),
            Ok(_) => Err("the compiler's answer makes no sense".to_owned()),
            Err(error) => Err(error.to_string()),
        };
        match self.version.get_or_init(ask) {
            Ok(version) => Ok(version),
            Err(why) => Err(CompileError::NoCompiler(why.clone())),
        }
    }

    /// The kernels around runs side by side.
    pub(super) fn beside(&self, arch: &str, wave: u32) -> Result<Module, CompileError> {
        let folder = self.headers().materialise(&self.config.cache_dir)?;
        let source = Source {
            file: folder.join("attnbench/beside.hip"),
            include_dirs: Vec::new(),
            defines: Vec::new(),
            entries: BESIDE.map(str::to_owned).to_vec(),
            wave,
        };
        self.compile(&source, arch)
    }

    /// The headers that stand in for the vendor's.
    fn headers(&self) -> &'static Headers {
        match self.api {
            Api::Cuda => &CUDA,
            Api::Hip => &HIP,
        }
    }

    /// Compiles a source for a target (`sm_90`, `gfx942`), or finds it compiled.
    ///
    /// # Errors
    /// [`CompileError`].
    pub fn compile(&self, source: &Source, arch: &str) -> Result<Module, CompileError> {
        let path = absolute(&source.file)?;
        let own = self.headers();
        let folder = own.materialise(&self.config.cache_dir)?;
        let folder = absolute(&folder)?;
        let mut folders = Vec::new();
        let given = source.include_dirs.iter().map(PathBuf::as_path);
        for dir in path.parent().into_iter().chain(given) {
            folders.push(absolute(dir)?);
        }
        let options = self.options(source, arch, &folder, &folders);
        let text = wrapper(&path, &source.entries);
        let scan = includes::scan(&path, &folders).map_err(|e| CompileError::reading(&path, &e))?;
        if scan.computed {
            return Err(CompileError::Io {
                what: format!("reading {}", path.display()),
                why: "an #include names its file by a macro, which cannot be followed here; write \
                      the file's name"
                    .to_owned(),
            });
        }
        let mut hasher = blake3::Hasher::new();
        let mut add = |bytes: &[u8]| cache::field(&mut hasher, bytes);
        add(text.as_bytes());
        add(self.version()?.as_bytes());
        add(self.libraries.identity().as_bytes());
        add(own.hash.as_bytes());
        options.iter().for_each(|option| add(option.as_bytes()));
        for (path, contents) in &scan.files {
            add(path.as_os_str().as_encoded_bytes());
            add(contents);
        }
        let hash = hasher.finalize().to_hex().as_str()[..32].to_owned();
        let extension = match self.api {
            Api::Cuda => "cubin",
            Api::Hip => "hsaco",
        };
        let slot = Slot::new(&self.config.cache_dir, &hash, extension);
        let description: Description = match slot.read() {
            Some(found) => found,
            None => {
                let _lock = slot.lock()?;
                match slot.read() {
                    Some(found) => found,
                    None => {
                        let job = Build { compiler: self, source, path: &path, headers: &folder };
                        job.build(&slot, text, options)?
                    }
                }
            }
        };
        let mut signatures = description.signatures;
        for (signature, entry) in signatures.iter_mut().zip(&source.entries) {
            signature.lacks = signature::lacks(entry, &scan.files);
        }
        Ok(Module {
            hash: hash.into(),
            file: Arc::new(slot.binary),
            entries: Arc::new(source.entries.clone()),
            kernels: Arc::new(description.kernels),
            params: Arc::new(description.params.into_iter().map(Some).collect()),
            signatures: Arc::new(signatures),
            wave: source.wave,
            log: description.log.into(),
        })
    }

    fn options(
        &self,
        source: &Source,
        arch: &str,
        headers: &Path,
        folders: &[PathBuf],
    ) -> Vec<String> {
        let mut options: Vec<String> = match self.api {
            // Lines for the vendor's tools; functions without a space are the device's, as constexpr
            // ones are in HIP; the log says what registers were spilled.
            Api::Cuda => {
                let own = ["--std=c++17", "-lineinfo", "-default-device", "--ptxas-options=-v"];
                let target = format!("--gpu-architecture={arch}");
                own.into_iter().map(str::to_owned).chain([target]).collect()
            }
            Api::Hip => {
                let target = (!arch.is_empty()).then(|| format!("--offload-arch={arch}"));
                ["-std=c++17", "-O3"].into_iter().map(str::to_owned).chain(target).collect()
            }
        };
        options.push(format!("-I{}", headers.display()));
        options.extend(folders.iter().map(|dir| format!("-I{}", dir.display())));
        options.extend(self.vendor_headers().iter().map(|dir| format!("-I{}", dir.display())));
        options.extend(source.defines.iter().map(|(name, text)| format!("-D{name}={text}")));
        options
    }

    /// Folders with CUDA's own headers, which its compiler does not bring.
    fn vendor_headers(&self) -> Vec<PathBuf> {
        if self.api == Api::Hip {
            return Vec::new();
        }
        let beside = self.libraries.folder();
        let above = beside.iter().flat_map(|folder| folder.ancestors().skip(1).take(3));
        let beside = above.flat_map(|folder| {
            // Of the toolkit, of Debian's package, and of the wheels.
            ["include", "cuda_runtime/include"].map(|name| folder.join(name))
        });
        let homes = ["CUDA_HOME", "CUDA_PATH"].iter().filter_map(|name| self.config.variable(name));
        let homes = homes.map(|home| PathBuf::from(home).join("include"));
        let all = beside.chain(homes).chain(["/usr/local/cuda/include".into()]);
        let found = all.into_iter().find(|folder| folder.join("cuda_fp16.h").is_file());
        let below = found.iter().map(|folder| folder.join("cccl")).filter(|f| f.is_dir());
        let below: Vec<PathBuf> = below.collect();
        found.into_iter().chain(below).collect()
    }

    /// Starts a process for one job.
    fn ask(&self, job: &Job) -> Result<Made, CompileError> {
        let mut command = Command::new(&self.config.worker_program);
        command.args([COMPILER_ARGUMENT, self.api.name()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Its own process group: an interrupt from the keyboard is the program's to handle.
        command.process_group(0);
        command.envs(self.config.environment.iter().map(|(name, value)| (name, value)));
        self.libraries.give_to(&mut command, &self.config.cache_dir)?;
        let program = self.config.worker_program.display();
        let broken = |why: String| CompileError::Io {
            what: format!("starting the compiling process {program}"),
            why: format!("{why}; set ATTNBENCH_WORKER to the attnbench program"),
        };
        let mut child = command.spawn().map_err(|e| broken(e.to_string()))?;
        if let Some(mut to) = child.stdin.take() {
            wire::send(&mut to, job).map_err(|e| broken(e.to_string()))?;
        }
        let (Some(replies), Some(mut words)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(broken("it has no pipes".to_owned()));
        };
        // What it says is read as it comes: a full pipe would hold it up.
        let listener = std::thread::spawn(move || {
            let mut said = Vec::new();
            let _ = words.read_to_end(&mut said);
            String::from_utf8_lossy(&said).into_owned()
        });
        let waited = wire::wait(replies.as_fd(), PATIENCE).map_err(|e| broken(e.to_string()))?;
        if !matches!(waited, Waited::Readable) {
            let _ = child.kill();
            let _ = child.wait();
            if matches!(waited, Waited::Interrupted) {
                return Err(CompileError::Interrupted);
            }
            let api = self.api;
            let why = format!("the compiler of {api} did not end within {PATIENCE:?}");
            return Ok(Made::Failed(why));
        }
        let made = wire::receive(&mut BufReader::new(replies));
        let end = child.wait().map_err(|e| broken(e.to_string()))?;
        match made {
            Ok(Some(made)) => Ok(made),
            _ => {
                let said = listener.join().unwrap_or_default();
                let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("");
                Ok(Made::Failed(format!("the compiler's process ended with {end}: {last}")))
            }
        }
    }
}

struct Build<'a> {
    compiler: &'a Compiler,
    source: &'a Source,
    path: &'a Path,
    headers: &'a Path,
}

/// The translation unit's name in messages.
const UNIT: &str = "attnbench-unit.hip";

impl Build<'_> {
    fn build(
        &self,
        slot: &Slot,
        text: String,
        options: Vec<String>,
    ) -> Result<Description, CompileError> {
        let workshop = slot.workshop()?;
        let binary = absolute(&workshop.path().join("kernel"))?;
        let version = self.compiler.version()?;
        let made_from = format!("{} by {version} {}", self.path.display(), options.join(" "));
        let unit = Unit {
            text,
            name: UNIT.to_owned(),
            entries: self.source.entries.clone(),
            options,
            binary: binary.clone(),
        };
        let (kernels, log) = match self.compiler.ask(&Job::Compile(unit))? {
            Made::Binary { kernels, log } => (kernels, log),
            Made::Rejected(log) => return Err(self.rejected(&log)),
            Made::Failed(why) => {
                return Err(CompileError::rejected(&self.source.file, why));
            }
            Made::Version(_) => {
                return Err(CompileError::odd(&binary, "an answer that makes no sense"));
            }
        };
        let contents = fs::read(&binary).map_err(|e| CompileError::reading(&binary, &e))?;
        let params = (0..self.source.entries.len())
            .map(|index| params::of(&contents, index))
            .collect::<Result<_, _>>()
            .map_err(|why: String| CompileError::odd(&binary, why))?;
        let signatures = signatures(&contents, &kernels)
            .map_err(|why: String| CompileError::odd(&binary, why))?;
        let description = Description { made_from, kernels, params, signatures, log };
        slot.put(&binary, &description)?;
        Ok(description)
    }

    fn rejected(&self, log: &str) -> CompileError {
        let unit = PathBuf::from(UNIT);
        let files = Files {
            source: self.path,
            shown: &self.source.file,
            wrapper: &unit,
            headers: self.headers,
            entries: &self.source.entries,
        };
        files.rejected(&diagnostics::from_nvrtc(log))
    }
}

/// What a binary says of its kernels besides their parameters. Of an AMD one the largest block is told by
/// the driver, with its other limits.
fn signatures(binary: &[u8], kernels: &[String]) -> Result<Vec<Signature>, String> {
    let of_cubin = match cubin::is_cubin(binary) {
        true => cubin::kernels(binary).map_err(|e| e.to_string())?,
        false => Vec::new(),
    };
    let signature = |(index, name): (usize, &String)| {
        let kernel = of_cubin.iter().find(|kernel| kernel.name == *name);
        let most_threads = kernel.and_then(|kernel| kernel.max_threads);
        Ok(Signature { most_threads, ..params::signature(binary, index)? })
    };
    kernels.iter().enumerate().map(signature).collect()
}

/// The translation unit.
fn wrapper(path: &Path, entries: &[String]) -> String {
    let mut text = String::from("#include <hip/hip_runtime.h>\n");
    let _ = writeln!(text, "#include \"{}\"", path.display());
    for header in signature::headers_of(entries) {
        let _ = writeln!(text, "#include <{header}>");
    }
    text.push_str("#include <attnbench/params.h>\n");
    for (index, entry) in entries.iter().enumerate() {
        let _ = writeln!(text, "#line 1 \"{}{index}\"", diagnostics::ENTRY_FILE);
        let _ = writeln!(text, "ATTNBENCH_ENTRY({index}, {entry})");
    }
    text
}
