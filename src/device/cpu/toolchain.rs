//! The system's C++ compiler: which one, and the flags that it gets.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::super::CompileError;

/// Programs tried, in order, where no environment variable names one.
const NAMES: [&str; 3] = ["c++", "g++", "clang++"];

const INSTALL: &str = "install g++ 12 or later or clang 14 or later (Debian, Ubuntu: apt install \
                       g++; Fedora: dnf install gcc-c++; Arch: pacman -S gcc), or name a compiler \
                       in ATTNBENCH_CXX";

/// What kind of compiler it is; the two differ in a few flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    Gcc,
    Clang,
}

/// A compiler that answered.
#[derive(Debug, Clone)]
pub(super) struct Toolchain {
    pub(super) program: PathBuf,
    pub(super) family: Family,
    /// Its first line of `--version`, part of every cache key.
    pub(super) version: String,
}

impl Toolchain {
    /// Finds a compiler: `chosen` (from `ATTNBENCH_CXX` or `CXX`) or the first of [`NAMES`].
    ///
    /// A compiler that the user named is never replaced by another.
    pub(super) fn find(chosen: Option<&Path>) -> Result<Toolchain, CompileError> {
        if let Some(program) = chosen {
            return probe(program).map_err(|why| {
                CompileError::NoCompiler(format!(
                    "the C++ compiler `{}` does not work: {why}; {INSTALL}",
                    program.display()
                ))
            });
        }
        let mut tried = Vec::new();
        for name in NAMES {
            match probe(Path::new(name)) {
                Ok(found) => return Ok(found),
                Err(why) => tried.push(format!("{name}: {why}")),
            }
        }
        Err(CompileError::NoCompiler(format!(
            "the CPU device needs a C++ compiler and found none ({}); {INSTALL}",
            tried.join("; ")
        )))
    }

    /// A short name such as `g++ 12.2.0`.
    pub(super) fn name(&self) -> String {
        let family = match self.family {
            Family::Gcc => "g++",
            Family::Clang => "clang++",
        };
        let number = self
            .version
            .split_whitespace()
            .rfind(|word| word.starts_with(|c: char| c.is_ascii_digit()) && word.contains('.'))
            .unwrap_or("");
        format!("{family} {number}")
    }

    /// Flags that make an object of a translation unit.
    pub(super) fn compile_flags(&self) -> Vec<&'static str> {
        let mut flags = vec![
            "-std=c++17",
            "-O2",
            "-g1",
            "-gdwarf-4",
            "-fPIC",
            "-w",
            "-fno-exceptions",
            "-fno-rtti",
            "-fno-threadsafe-statics",
            "-fno-math-errno",
            "-fvisibility=hidden",
            // Kernels read a row of halves through a `float4*`; GPUs give them what they mean.
            "-fno-strict-aliasing",
            // The same bits from every compiler: a product is contracted only where `fmaf` says so.
            "-ffp-contract=off",
        ];
        match self.family {
            Family::Gcc => flags.extend([
                // Template instances' shared arrays would be one object over all loaded modules.
                "-fno-gnu-unique",
                // `extern __shared__` names nothing that runs code first.
                "-fno-extern-tls-init",
            ]),
            // All errors are counted, and the first of them told.
            Family::Clang => flags.push("-ferror-limit=0"),
        }
        flags.extend(machine_flags());
        flags
    }

    /// Flags for the builds that the checker does not see: a function that overruns its arrays is ended
    /// when it returns.
    pub(super) fn unchecked_flags(&self) -> &'static [&'static str] {
        &["-fstack-protector-strong"]
    }

    /// Flags that make the compiler tell the checker of every access and of undefined arithmetic.
    pub(super) fn checked_flags(&self) -> &'static [&'static str] {
        match self.family {
            Family::Gcc => &[
                "-fsanitize=thread,bounds,alignment,shift,integer-divide-by-zero,\
                 signed-integer-overflow",
                "--param=tsan-instrument-func-entry-exit=0",
                "--param=tsan-distinguish-volatile=1",
                // A return address must be in the kernel that called.
                "-fno-optimize-sibling-calls",
                // Wide accesses are not among those that are told.
                "-fno-tree-vectorize",
                // Nor are copies that the compiler makes itself; calls are.
                "-fno-builtin-memcpy",
                "-fno-builtin-memmove",
                "-fno-builtin-memset",
            ],
            Family::Clang => &[
                // Not `bounds`: its other half ends the process and tells nothing.
                "-fsanitize=thread,array-bounds,alignment,shift,integer-divide-by-zero,\
                 signed-integer-overflow",
                "-mllvm",
                "-tsan-instrument-func-entry-exit=0",
                "-mllvm",
                "-tsan-distinguish-volatile=1",
                "-fno-optimize-sibling-calls",
                "-fno-vectorize",
                "-fno-slp-vectorize",
            ],
        }
    }

    /// Flags that make a shared object of an object and the shared-memory assembly.
    pub(super) fn link_flags(&self) -> &'static [&'static str] {
        // -z now: no symbol is resolved on a small coroutine stack.
        // -Bsymbolic: the module's own `abort` and `__assert_fail` come before the C library's.
        &["-shared", "-Wl,-z,now", "-Wl,-z,defs", "-Wl,-Bsymbolic", "-Wl,--as-needed"]
    }

    /// The compiler as a command that speaks English, so that its messages can be read.
    pub(super) fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.env("LC_ALL", "C");
        command
    }
}

#[cfg(target_arch = "x86_64")]
fn machine_flags() -> Vec<&'static str> {
    let mut flags = vec!["-fstack-clash-protection"];
    if std::arch::is_x86_feature_detected!("avx2") {
        flags.push("-mavx2");
    }
    if std::arch::is_x86_feature_detected!("f16c") {
        flags.push("-mf16c");
    }
    if std::arch::is_x86_feature_detected!("fma") {
        flags.push("-mfma");
    }
    flags
}

#[cfg(not(target_arch = "x86_64"))]
fn machine_flags() -> Vec<&'static str> {
    Vec::new()
}

/// The compiler named by the environment, where it names one.
pub(super) fn chosen(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    ["ATTNBENCH_CXX", "CXX"]
        .into_iter()
        .filter_map(variable)
        .find(|value| !value.is_empty())
        .map(PathBuf::from)
}

fn probe(program: &Path) -> Result<Toolchain, String> {
    let answer = Command::new(program)
        .arg("--version")
        .env("LC_ALL", "C")
        .output()
        .map_err(|e| e.to_string())?;
    let text = String::from_utf8_lossy(&answer.stdout);
    let version = text.lines().next().unwrap_or("").trim().to_owned();
    if !answer.status.success() || version.is_empty() {
        return Err(format!("`--version` ended with {}", answer.status));
    }
    let family = if version.contains("clang") {
        Family::Clang
    } else if text.contains("Free Software Foundation") && !version.contains("coreutils") {
        Family::Gcc
    } else {
        return Err(format!("it is neither g++ nor clang, but `{version}`"));
    };
    Ok(Toolchain { program: program.to_owned(), family, version })
}

/// The cache's folder: `ATTNBENCH_CACHE`, or `attnbench` in the user's cache folder.
pub(super) fn cache_dir(variable: impl Fn(&str) -> Option<OsString>) -> PathBuf {
    use etcetera::BaseStrategy;
    if let Some(dir) = variable("ATTNBENCH_CACHE").filter(|dir| !dir.is_empty()) {
        return PathBuf::from(dir);
    }
    match etcetera::choose_base_strategy() {
        Ok(strategy) => strategy.cache_dir().join("attnbench"),
        Err(_) => env::temp_dir().join("attnbench-cache"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_compiler_that_is_absent_is_named_in_the_error() {
        let error = Toolchain::find(Some(Path::new("/nonexistent/c++"))).unwrap_err().to_string();
        assert!(error.contains("/nonexistent/c++") && error.contains("apt install"), "{error}");
    }

    #[test]
    fn our_own_variable_comes_before_cxx() {
        let both = |name: &str| Some(OsString::from(format!("/from/{name}")));
        assert_eq!(chosen(both), Some(PathBuf::from("/from/ATTNBENCH_CXX")));
        let one = |name: &str| (name == "CXX").then(|| OsString::from("/cxx"));
        assert_eq!(chosen(one), Some(PathBuf::from("/cxx")));
        assert_eq!(chosen(|_| Some(OsString::new())), None);
    }
}
