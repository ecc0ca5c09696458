//! From a HIP source to a shared object whose kernels can be called.
//!
//! A small generated translation unit includes the user's file and takes the address of each entry
//! expression, which instantiates templates and resolves namespaces. `__shared__` is thread-local;
//! arrays declared `extern __shared__` are undefined thread-local names in the object, and a piece
//! of assembly gives all of them one block.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use tempfile::TempDir;

use super::super::cache::{self, Slot};
use super::super::diagnostics::{self, Files};
use super::super::includes::{self, Scan};
use super::super::interrupt;
use super::super::signature;
use super::super::{CompileError, MAX_SHARED_BYTES, Module, Source, absolute, params};
use super::Variant;
use super::description::Description;
use super::shim::HEADERS;
use super::toolchain::Toolchain;
use super::{bounds, elf, redzone};

/// The name of the dynamic block; `entry.h` takes its address.
pub(super) const DYNAMIC_SYMBOL: &str = "attnbench_dynamic_shared";

/// Bytes of the dynamic block.
pub(super) const DYNAMIC_CAPACITY: usize = MAX_SHARED_BYTES as usize;

/// Bytes after a launch's `shared_bytes` that nothing may write.
pub(super) const CANARY: usize = 4096;

/// What [`compile`] needs besides the source.
pub(super) struct Setting<'a> {
    pub(super) toolchain: &'a Toolchain,
    pub(super) cache_dir: &'a Path,
    pub(super) variant: Variant,
    /// Whether each access is told.
    pub(super) instrumented: bool,
}

/// One compilation, before its binary is known to exist.
struct Job<'a> {
    setting: &'a Setting<'a>,
    source: &'a Source,
    /// The source's absolute path.
    path: PathBuf,
    headers: PathBuf,
    flags: Vec<String>,
}

/// Compiles `source`, or finds it compiled.
pub(super) fn compile(setting: &Setting<'_>, source: &Source) -> Result<Module, CompileError> {
    let path = absolute(&source.file)?;
    let headers = absolute(&HEADERS.materialise(setting.cache_dir)?)?;
    let mut folders = Vec::new();
    for dir in path.parent().into_iter().chain(source.include_dirs.iter().map(PathBuf::as_path)) {
        folders.push(absolute(dir)?);
    }
    let flags = flags(setting, source, &headers, &folders);
    let job = Job { setting, source, path, headers, flags };
    let scan = job.scan(&folders)?;
    let hash = job.hash(&scan);
    let slot = Slot::new(setting.cache_dir, &hash, "so");
    let description = match slot.read() {
        Some(found) => found,
        None => {
            let _lock = slot.lock()?;
            match slot.read() {
                Some(found) => found,
                None => job.build(&slot, &scan)?,
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
        kernels: Arc::default(),
        params: Arc::new(description.params.into_iter().map(Some).collect()),
        signatures: Arc::new(signatures),
        wave: source.wave,
        log: "".into(),
    })
}

fn flags(
    setting: &Setting<'_>,
    source: &Source,
    headers: &Path,
    folders: &[PathBuf],
) -> Vec<String> {
    let mut flags: Vec<String> =
        setting.toolchain.compile_flags().into_iter().map(String::from).collect();
    let more = match setting.instrumented {
        true => setting.toolchain.checked_flags(),
        false => setting.toolchain.unchecked_flags(),
    };
    flags.extend(more.iter().map(|&flag| flag.to_owned()));
    if setting.instrumented {
        flags.push("-DATTNBENCH_CHECKED=1".to_owned());
    }
    if setting.variant == Variant::Debug {
        flags.extend(["-O0", "-g", "-fno-omit-frame-pointer"].map(String::from));
    }
    flags.push(format!("-DATTNBENCH_WAVE={}", source.wave));
    flags.push(format!("-I{}", headers.display()));
    flags.extend(folders.iter().map(|dir| format!("-I{}", dir.display())));
    flags.extend(source.defines.iter().map(|(name, text)| format!("-D{name}={text}")));
    flags
}

impl Job<'_> {
    /// The source and what it includes.
    fn scan(&self, folders: &[PathBuf]) -> Result<Scan, CompileError> {
        let mut scan = includes::scan(&self.path, folders)
            .map_err(|e| CompileError::reading(&self.path, &e))?;
        if scan.computed {
            scan.files.extend(self.ask_compiler_for_includes()?);
        }
        Ok(scan)
    }

    /// Hash of everything that the binary depends on.
    fn hash(&self, scan: &Scan) -> String {
        let mut hasher = blake3::Hasher::new();
        let mut add = |bytes: &[u8]| cache::field(&mut hasher, bytes);
        add(self.wrapper().as_bytes());
        add(self.setting.toolchain.program.as_os_str().as_encoded_bytes());
        add(self.setting.toolchain.version.as_bytes());
        add(HEADERS.hash.as_bytes());
        self.flags.iter().for_each(|flag| add(flag.as_bytes()));
        self.link_flags().iter().for_each(|flag| add(flag.as_bytes()));
        for (path, contents) in &scan.files {
            // The path too: messages and `assert` name it.
            add(path.as_os_str().as_encoded_bytes());
            add(contents);
        }
        hasher.finalize().to_hex().as_str()[..32].to_owned()
    }

    /// For sources that name an included file by a macro: the compiler's own list.
    fn ask_compiler_for_includes(&self) -> Result<Vec<(PathBuf, Vec<u8>)>, CompileError> {
        let mut command = self.setting.toolchain.command();
        command.args(&self.flags).args(["-x", "c++", "-MM"]).arg(&self.path);
        let answer = run(&mut command)?;
        // A source that cannot be read to its end is told so by the real compilation.
        let list = String::from_utf8_lossy(&answer.stdout).replace("\\\n", " ");
        let list = list.split_once(": ").map_or("", |(_, list)| list).replace("\\ ", "\0");
        let mut files = Vec::new();
        for name in list.split_whitespace() {
            let path = PathBuf::from(name.replace('\0', " "));
            let contents = fs::read(&path).map_err(|e| CompileError::reading(&path, &e))?;
            files.push((path, contents));
        }
        Ok(files)
    }

    /// The translation unit.
    fn wrapper(&self) -> String {
        let mut text = String::from("#include <hip/hip_runtime.h>\n");
        let _ = writeln!(text, "#include \"{}\"", self.path.display());
        for header in signature::headers_of(&self.source.entries) {
            let _ = writeln!(text, "#include <{header}>");
        }
        text.push_str("#include <attnbench/entry.h>\n");
        for (index, entry) in self.source.entries.iter().enumerate() {
            let _ = writeln!(text, "#line 1 \"{}{index}\"", diagnostics::ENTRY_FILE);
            let _ = writeln!(text, "ATTNBENCH_ENTRY({index}, {entry})");
        }
        text
    }

    /// The bounds of the entries' blocks, as constants for the end of the translation unit.
    fn bounds(&self, scan: &Scan, folder: &Path) -> Result<String, CompileError> {
        let has_any =
            |text: &[u8]| text.windows(bounds::WORD.len()).any(|word| word == bounds::WORD);
        if !scan.files.iter().any(|(_, text)| has_any(text)) {
            return Ok(String::new());
        }
        let unit = folder.join("declarations.cpp");
        put(&unit, self.wrapper().as_bytes())?;
        let mut command = self.setting.toolchain.command();
        command.args(&self.flags).args(["-DATTNBENCH_DECLARATIONS", "-E"]).arg(&unit);
        // A source that cannot be read to its end is told so by the compilation.
        let answer = run(&mut command)?;
        Ok(bounds::constants(&String::from_utf8_lossy(&answer.stdout), &self.source.entries))
    }

    fn build(&self, slot: &Slot, scan: &Scan) -> Result<Description, CompileError> {
        let dir = slot.workshop()?;
        let bounds = self.bounds(scan, dir.path())?;
        match self.build_with(slot, &dir, &bounds) {
            // What cannot be said of a bound is no fault of the kernel's.
            Err(CompileError::Rejected { all, .. }) if all.contains(bounds::FILE) => {
                self.build_with(slot, &dir, "")
            }
            built => built,
        }
    }

    fn build_with(
        &self,
        slot: &Slot,
        dir: &TempDir,
        bounds: &str,
    ) -> Result<Description, CompileError> {
        let [wrapper, object, assembly, binary] =
            ["kernel.cpp", "kernel.o", "shared.s", "kernel.so"].map(|name| dir.path().join(name));
        put(&wrapper, (self.wrapper() + bounds).as_bytes())?;
        let toolchain = self.setting.toolchain;
        let mut compile = toolchain.command();
        compile.args(&self.flags);
        if self.setting.instrumented {
            let spread = dir.path().join("kernel.s");
            compile.arg("-S").arg(&wrapper).arg("-o").arg(&spread);
            self.attempt(&mut compile, &wrapper)?;
            put(&spread, &redzone::spread(&read(&spread)?))?;
            let mut assemble = toolchain.command();
            self.attempt(assemble.arg("-c").arg(&spread).arg("-o").arg(&object), &wrapper)?;
        } else {
            self.attempt(compile.arg("-c").arg(&wrapper).arg("-o").arg(&object), &wrapper)?;
        }

        let names = elf::dynamic_shared_names(&read(&object)?)
            .map_err(|e| CompileError::odd(&object, e))?;
        put(&assembly, dynamic_block(&names).as_bytes())?;
        let mut link = toolchain.command();
        link.arg(&object).arg(&assembly).args(self.link_flags());
        self.attempt(link.arg("-lm").arg("-o").arg(&binary), &wrapper)?;

        let contents = read(&binary)?;
        let params = (0..self.source.entries.len())
            .map(|index| params::of(&contents, index))
            .collect::<Result<_, _>>()
            .map_err(|e| CompileError::odd(&binary, e))?;
        let signatures = (0..self.source.entries.len())
            .map(|index| params::signature(&contents, index))
            .collect::<Result<_, _>>()
            .map_err(|e| CompileError::odd(&binary, e))?;
        let (tls_bytes, dynamic_offset) =
            elf::tls_layout(&contents).map_err(|e| CompileError::odd(&binary, e))?;
        let made_from =
            format!("{} by {} {}", self.path.display(), toolchain.version, self.flags.join(" "));
        let arrays = elf::shared_arrays(&contents).map_err(|e| CompileError::odd(&binary, e))?;
        let description =
            Description { made_from, params, signatures, tls_bytes, dynamic_offset, arrays };
        slot.put(&binary, &description)?;
        Ok(description)
    }

    fn link_flags(&self) -> Vec<&'static str> {
        let mut flags = self.setting.toolchain.link_flags().to_vec();
        if self.setting.instrumented {
            // g++ leaves these calls as they are.
            flags.push("-Wl,--wrap=memcpy,--wrap=memmove,--wrap=memset");
        }
        flags
    }

    /// Runs one step of the compiler.
    fn attempt(&self, command: &mut Command, wrapper: &Path) -> Result<(), CompileError> {
        let answer = run(command)?;
        if answer.status.success() {
            return Ok(());
        }
        let messages = String::from_utf8_lossy(&answer.stderr);
        if messages.contains("No space left on device") {
            let full = std::io::Error::from_raw_os_error(libc::ENOSPC);
            return Err(cache::unwritable(wrapper, &full));
        }
        let files = Files {
            source: &self.path,
            shown: &self.source.file,
            wrapper,
            headers: &self.headers,
            entries: &self.source.entries,
        };
        Err(files.rejected(&messages))
    }
}

/// Assembly that gives `names` one zeroed thread-local block with room for a canary after it.
fn dynamic_block(names: &[String]) -> String {
    // Room before it, as between all arrays of the checked build.
    let mut text = format!(
        "    .section .tbss,\"awT\",%nobits\n    .balign {0}\n    .zero {0}\n",
        redzone::REDZONE
    );
    // The wrapper itself declares DYNAMIC_SYMBOL, so it is among the names.
    for name in names {
        let _ = writeln!(text, "    .globl {name}\n    .hidden {name}");
        let _ = writeln!(text, "    .type {name}, %tls_object\n{name}:");
    }
    let _ = writeln!(text, "    .zero {}", DYNAMIC_CAPACITY + CANARY);
    text.push_str("    .section .note.GNU-stack,\"\",%progbits\n");
    text
}

fn run(command: &mut Command) -> Result<std::process::Output, CompileError> {
    let ended = interrupt::output(command).map_err(|e| {
        let program = command.get_program().to_string_lossy();
        CompileError::NoCompiler(format!("the C++ compiler `{program}` does not start: {e}"))
    })?;
    ended.ok_or(CompileError::Interrupted)
}

fn read(path: &Path) -> Result<Vec<u8>, CompileError> {
    fs::read(path).map_err(|e| CompileError::reading(path, &e))
}

fn put(path: &Path, bytes: &[u8]) -> Result<(), CompileError> {
    fs::write(path, bytes).map_err(|e| cache::unwritable(path, &e))
}
