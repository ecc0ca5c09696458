//! From a source to assembly and a code object for one AMD target, kept in the compile cache.
//!
//! A small generated translation unit includes the user's file and takes the address of each entry
//! expression, which instantiates templates and tells the symbol. clang writes assembly, and
//! assembles it in a second step, so that the code and its figures are the same build; nothing is
//! linked. hipcc, whose own headers and library are used, is run twice.

use super::compiler::{Compiler, Kind, run};
use super::headers::HEADERS;
use super::target::Target;
use crate::device::diagnostics::{self, Files};
use crate::device::{CompileError, Source, absolute, cache, includes, signature};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What became of a source.
#[derive(Debug, Clone)]
pub struct Built {
    /// Assembly with line numbers.
    pub assembly: String,
    /// The code object: relocatable, or linked by hipcc.
    pub object: Vec<u8>,
}

/// Builds sources.
#[derive(Debug, Clone)]
pub struct Builder {
    /// The compiler.
    pub compiler: Compiler,
    /// The folder of the compile cache.
    pub cache_dir: PathBuf,
}

/// One compilation.
struct Job<'a> {
    builder: &'a Builder,
    source: &'a Source,
    target: &'a Target,
    path: PathBuf,
    headers: PathBuf,
    flags: Vec<String>,
}

impl Builder {
    /// Builds a source for a target, or finds it built. [`Source::wave`] is the wave size.
    ///
    /// # Errors
    /// [`CompileError`].
    pub fn build(&self, source: &Source, target: &Target) -> Result<Built, CompileError> {
        let path = absolute(&source.file)?;
        let headers = absolute(&HEADERS.materialise(&self.cache_dir)?)?;
        let mut folders = Vec::new();
        for dir in path.parent().into_iter().chain(source.include_dirs.iter().map(PathBuf::as_path))
        {
            folders.push(absolute(dir)?);
        }
        let mut flags = self.compiler.flags(target);
        flags.extend(["-std=c++17", "-O3", "-w", "-gline-tables-only"].map(String::from));
        if source.wave == 64 && target.wave() == 32 {
            flags.push("-mwavefrontsize64".to_owned());
        }
        if self.compiler.kind == Kind::Clang {
            flags.push(format!("-DATTNBENCH_WAVE={}", source.wave));
            flags.push(format!("-I{}", headers.display()));
            flags.push("-ferror-limit=0".to_owned());
        }
        flags.extend(folders.iter().map(|dir| format!("-I{}", dir.display())));
        flags.extend(source.defines.iter().map(|(name, text)| format!("-D{name}={text}")));
        let job = Job { builder: self, source, target, path, headers, flags };
        let Some(stem) = job.stem(&folders)? else { return job.build() };
        // The object is written last: where it is, the assembly is.
        let (assembly, object) = (stem.with_extension("s"), stem.with_extension("o"));
        if let (Ok(object), Ok(assembly)) = (fs::read(&object), fs::read_to_string(&assembly)) {
            return Ok(Built { assembly, object });
        }
        let built = job.build()?;
        cache::write_atomically(&assembly, built.assembly.as_bytes())?;
        cache::write_atomically(&object, &built.object)?;
        Ok(built)
    }
}

impl Job<'_> {
    /// Where in the cache it lies; `None` where only the compiler can tell what is included.
    fn stem(&self, folders: &[PathBuf]) -> Result<Option<PathBuf>, CompileError> {
        let scan = includes::scan(&self.path, folders)
            .map_err(|e| CompileError::reading(&self.path, &e))?;
        if scan.computed {
            return Ok(None);
        }
        let mut hasher = blake3::Hasher::new();
        let mut add = |bytes: &[u8]| cache::field(&mut hasher, bytes);
        let compiler = &self.builder.compiler;
        add(self.wrapper().as_bytes());
        add(compiler.program.as_os_str().as_encoded_bytes());
        add(compiler.version.as_bytes());
        add(HEADERS.hash.as_bytes());
        self.flags.iter().for_each(|flag| add(flag.as_bytes()));
        for (path, contents) in &scan.files {
            // The path too: the assembly names it.
            add(path.as_os_str().as_encoded_bytes());
            add(contents);
        }
        let hash = hasher.finalize().to_hex();
        let folder = self.builder.cache_dir.join("inspect").join(&hash.as_str()[..2]);
        Ok(Some(folder.join(&hash.as_str()[..32])))
    }

    /// The translation unit.
    fn wrapper(&self) -> String {
        let mut text = String::from("#include <hip/hip_runtime.h>\n");
        let _ = writeln!(text, "#include \"{}\"", self.path.display());
        for header in signature::headers_of(&self.source.entries) {
            let _ = writeln!(text, "#include <{header}>");
        }
        for (index, entry) in self.source.entries.iter().enumerate() {
            let _ = writeln!(text, "#line 1 \"{}{index}\"", diagnostics::ENTRY_FILE);
            let _ = writeln!(
                text,
                "extern \"C\" __attribute__((device, used)) const void* const \
                 attnbench_entry_{index} = (const void*)&{entry};"
            );
        }
        text
    }

    fn build(&self) -> Result<Built, CompileError> {
        let dir = &self.builder.cache_dir;
        let workshop = fs::create_dir_all(dir)
            .and_then(|()| tempfile::Builder::new().prefix(".inspect-").tempdir_in(dir))
            .map_err(|e| cache::unwritable(dir, &e))?;
        let [wrapper, assembly, object] =
            ["kernel.hip", "kernel.s", "kernel.o"].map(|name| workshop.path().join(name));
        fs::write(&wrapper, self.wrapper()).map_err(|e| cache::unwritable(&wrapper, &e))?;
        let compiler = &self.builder.compiler;
        let mut compile = compiler.command();
        compile.args(&self.flags).arg("-S").arg(&wrapper).arg("-o").arg(&assembly);
        self.attempt(&mut compile, &wrapper)?;
        let mut finish = compiler.command();
        match compiler.kind {
            Kind::Clang => {
                finish.args(["-x", "assembler", "-target", "amdgcn-amd-amdhsa"]);
                finish.arg(format!("-mcpu={}", self.target.id));
                if self.flags.iter().any(|flag| flag == "-mwavefrontsize64") {
                    finish.arg("-mwavefrontsize64");
                }
                finish.arg("-c").arg(&assembly);
            }
            Kind::Hipcc => {
                finish.args(&self.flags).args(["--no-gpu-bundle-output", "-c"]).arg(&wrapper);
            }
        }
        self.attempt(finish.arg("-o").arg(&object), &wrapper)?;
        let text = fs::read(&assembly).map_err(|e| CompileError::reading(&assembly, &e))?;
        let object = fs::read(&object).map_err(|e| CompileError::reading(&object, &e))?;
        Ok(Built { assembly: String::from_utf8_lossy(&text).into_owned(), object })
    }

    /// Runs one step of the compiler.
    fn attempt(&self, command: &mut Command, wrapper: &Path) -> Result<(), CompileError> {
        let answer = run(command)?;
        if answer.status.success() {
            return Ok(());
        }
        let messages = String::from_utf8_lossy(&answer.stderr);
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
