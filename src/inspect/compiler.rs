//! The compiler for AMD targets: a clang with the AMDGPU backend, or ROCm's hipcc.

use super::target::Target;
use crate::device::{CompileError, interrupt};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Programs tried, in order, where none is named: a newer one knows more targets.
const NAMES: [&str; 8] = [
    "clang++-22",
    "clang++-21",
    "clang++-20",
    "clang++-19",
    "clang++-18",
    "clang++",
    "clang-19",
    "clang",
];

/// What to install.
pub const INSTALL: &str = "install clang 18 or later with the AMDGPU target (Debian, Ubuntu: \
                           apt-get install clang-19 lld-19), or name one with --compiler or in \
                           ATTNBENCH_CLANG";

/// Which headers and library a compiler brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// None: it gets this program's.
    Clang,
    /// ROCm's own.
    Hipcc,
}

/// A compiler that answered.
#[derive(Debug, Clone)]
pub struct Compiler {
    /// The program.
    pub program: PathBuf,
    /// What it is.
    pub kind: Kind,
    /// Its `--version`, the line that names clang.
    pub version: String,
}

/// The compiler named by the environment, where it names one.
pub fn chosen(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    variable("ATTNBENCH_CLANG").filter(|value| !value.is_empty()).map(PathBuf::from)
}

impl Compiler {
    /// Finds a compiler: `chosen`, or the first of the usual names that knows AMD's GPUs. One that
    /// the user named is never replaced by another.
    ///
    /// # Errors
    /// [`CompileError::NoCompiler`], with what to install.
    pub fn find(chosen: Option<&Path>) -> Result<Compiler, CompileError> {
        if let Some(program) = chosen {
            return probe(program).map_err(|why| {
                CompileError::NoCompiler(format!(
                    "the compiler `{}` does not build for AMD: {why}; {INSTALL}",
                    program.display()
                ))
            });
        }
        let mut tried = Vec::new();
        for name in NAMES {
            match probe(Path::new(name)) {
                Ok(found) => return Ok(found),
                Err(why) => tried.push((name, why)),
            }
        }
        // An absent program is told by its absence; one that is there says what it lacks.
        let there: Vec<String> = tried
            .iter()
            .filter(|(_, why)| why != ABSENT)
            .map(|(name, why)| format!("{name}: {why}"))
            .collect();
        let there =
            if there.is_empty() { String::new() } else { format!(" ({})", there.join("; ")) };
        Err(CompileError::NoCompiler(format!(
            "building for AMD targets needs clang, and none was found{there}; {INSTALL}"
        )))
    }

    /// The major version of its clang; 0 where it does not say.
    pub fn major(&self) -> u32 {
        let after = self.version.split("clang version ").nth(1).unwrap_or_default();
        let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().unwrap_or(0)
    }

    /// A short name such as `clang 19.1.7`.
    pub fn name(&self) -> String {
        let after = self.version.split("clang version ").nth(1).unwrap_or(&self.version);
        let number = after.split_whitespace().next().unwrap_or_default();
        match self.kind {
            Kind::Clang => format!("clang {number}"),
            Kind::Hipcc => format!("hipcc, clang {number}"),
        }
    }

    /// Checks that it knows a target.
    ///
    /// # Errors
    /// [`CompileError::NoCompiler`]: which one it does not know, and what to do.
    pub fn check(&self, target: &Target) -> Result<(), CompileError> {
        let mut command = self.command();
        command.args(self.flags(target)).args(["-S", "-o", "-", "/dev/null"]);
        let answer = run(&mut command)?;
        if answer.status.success() {
            return Ok(());
        }
        let messages = String::from_utf8_lossy(&answer.stderr);
        let first = messages.lines().find(|l| l.contains("error")).unwrap_or("it failed");
        Err(CompileError::NoCompiler(format!(
            "{} does not build for {target}: {}; take a newer clang (--compiler PATH), or leave the \
             target out",
            self.name(),
            first.rsplit_once("error: ").map_or(first, |(_, text)| text).trim()
        )))
    }

    /// The flags of every compilation for a target.
    pub fn flags(&self, target: &Target) -> Vec<String> {
        let mut flags: Vec<String> = ["-x", "hip", "--cuda-device-only"].map(String::from).to_vec();
        flags.push(format!("--offload-arch={}", target.id));
        if self.kind == Kind::Clang {
            flags.extend(["-nogpulib", "-nogpuinc"].map(String::from));
        }
        flags
    }

    /// The compiler as a command that speaks English, so that its messages can be read.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.env("LC_ALL", "C");
        command
    }
}

/// Runs a command to its end.
///
/// # Errors
/// [`CompileError::NoCompiler`] where it does not start, [`CompileError::Interrupted`].
pub fn run(command: &mut Command) -> Result<Output, CompileError> {
    let ended = interrupt::output(command).map_err(|e| {
        let program = command.get_program().to_string_lossy();
        CompileError::NoCompiler(format!("the compiler `{program}` does not start: {e}; {INSTALL}"))
    })?;
    ended.ok_or(CompileError::Interrupted)
}

const ABSENT: &str = "there is no such program";

fn probe(program: &Path) -> Result<Compiler, String> {
    let ask = |what: &str| {
        let answer = Command::new(program).arg(what).env("LC_ALL", "C").output();
        let answer = answer.map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => ABSENT.to_owned(),
            _ => e.to_string(),
        })?;
        if !answer.status.success() {
            return Err(format!("`{what}` ended with {}", answer.status));
        }
        Ok(String::from_utf8_lossy(&answer.stdout).into_owned())
    };
    let text = ask("--version")?;
    let Some(version) = text.lines().find(|line| line.contains("clang version ")) else {
        return Err(format!("it is not clang, but `{}`", text.lines().next().unwrap_or("").trim()));
    };
    let hipcc = program.file_stem().is_some_and(|name| name == "hipcc");
    let kind = if hipcc { Kind::Hipcc } else { Kind::Clang };
    // Apple's, and some distributions', have no AMDGPU backend.
    if kind == Kind::Clang && !ask("--print-targets")?.contains("amdgcn") {
        return Err("it was built without the AMDGPU target".to_owned());
    }
    Ok(Compiler { program: program.to_owned(), kind, version: version.trim().to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn fake(script: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("clang++-19");
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        (dir, path)
    }

    #[test]
    fn what_is_no_clang_for_amd_is_told_with_the_packages() {
        let absent = Path::new("/nonexistent/clang");
        let refuse = |path: &Path, word: &str| {
            let error = Compiler::find(Some(path)).unwrap_err().to_string();
            let words = [path.to_str().unwrap(), word, "apt-get install clang-19 lld-19"];
            assert!(words.iter().all(|w| error.contains(w)), "{error}");
        };
        refuse(absent, "there is no such program");
        let (_dir, gcc) = fake("echo 'g++ (Debian 12.2.0) 12.2.0'");
        refuse(&gcc, "it is not clang, but `g++ (Debian 12.2.0) 12.2.0`");
        let (_dir, x86) = fake("echo 'clang version 19.1.7'");
        refuse(&x86, "built without the AMDGPU target");
    }

    #[test]
    fn a_target_that_it_does_not_know_is_told() {
        let (_dir, path) = fake(
            "case \"$*\" in --version) echo 'Debian clang version 19.1.7 (3)';; \
             --print-targets) echo amdgcn;; *gfx950*) \
             echo \"clang-19: error: invalid target ID 'gfx950'; format is\" >&2; exit 1;; esac",
        );
        let compiler = Compiler::find(Some(&path)).unwrap();
        assert_eq!((compiler.name().as_str(), compiler.major()), ("clang 19.1.7", 19));
        assert!(compiler.check(&Target::parse("gfx942").unwrap()).is_ok());
        let error = compiler.check(&Target::parse("gfx950").unwrap()).unwrap_err().to_string();
        assert!(
            error.contains("clang 19.1.7 does not build for gfx950: invalid target ID"),
            "{error}"
        );
    }
}
