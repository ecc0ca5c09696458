//! What several commands share: devices, kernels, captured slices, JSON output.

use super::Found;
use anstyle::AnsiColor;
use anyhow::{Context, Result, bail};
use attnbench::data::captured::Captured;
use attnbench::data::file;
use attnbench::data::golden;
use attnbench::data::slice::KvSlice;
use attnbench::device::cpu::{CpuConfig, Variant};
use attnbench::device::finding::{Class, RaceModel};
use attnbench::device::{CompileError, Lanes, interrupt};
use attnbench::judge::replay::ReplayFailure;
use attnbench::judge::trial::TrialError;
use attnbench::kernel::{Driven, Registry};
use attnbench::problem::Case;
use attnbench::report::{figures, html};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// What a checked run looks for, and what orders the lanes of a wave.
#[derive(clap::Args)]
pub struct Sanitize {
    /// Run under the checker: memory, race, init, barrier and arith, or only those named
    #[arg(
        long,
        value_name = "CLASS,…",
        value_delimiter = ',',
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "memory,race,init,barrier,arith",
        value_parser = parse_class
    )]
    pub sanitize: Option<Vec<Class>>,
    /// With --sanitize, what orders the lanes of a wave: sync (barriers, __syncwarp, shuffles, votes,
    /// atomics) or lockstep (they advance together, as on AMD)
    #[arg(
        long,
        value_name = "MODEL",
        default_value = "sync",
        requires = "sanitize",
        value_parser = parse_model
    )]
    pub race_model: RaceModel,
    /// How the lanes of a wave advance between wave operations, on the CPU device: independent or lockstep
    /// [default: the manifest's, or independent]
    #[arg(long, value_name = "HOW")]
    pub lanes: Option<Lanes>,
}

impl Sanitize {
    /// The device's configuration for it.
    pub fn config(&self) -> CpuConfig {
        let config = CpuConfig::from_env();
        match &self.sanitize {
            None => config,
            Some(classes) => CpuConfig {
                variant: Variant::Checked,
                classes: classes.clone(),
                race_model: self.race_model,
                ..config
            },
        }
    }
}

/// The time limit of one run of a kernel where --time-limit does not say. Where each access is told
/// (under the checker, or in lockstep), a run of a long sequence takes seconds.
pub fn time_limit(said: Option<Duration>, told: bool) -> Duration {
    said.unwrap_or(Duration::from_secs(if told { 60 } else { 10 }))
}

fn parse_class(text: &str) -> Result<Class, String> {
    let names = Class::ALL.map(Class::name).join(", ");
    let found = Class::ALL.into_iter().find(|class| class.name() == text);
    found.ok_or_else(|| format!("no such class of checks; there are {names}"))
}

fn parse_model(text: &str) -> Result<RaceModel, String> {
    match text {
        "sync" => Ok(RaceModel::Sync),
        "lockstep" => Ok(RaceModel::Lockstep),
        _ => Err("write sync or lockstep".to_owned()),
    }
}

/// The registry of kernels; built-in sources are written to the cache folder.
pub fn registry() -> Result<Registry> {
    Ok(Registry::new(CpuConfig::from_env().cache_dir)?)
}

/// A kernel that can be swept: the part of its manifest that is driven, and what that leaves.
pub fn drivable(registry: &Registry, name: &str) -> Result<Driven> {
    let manifest = registry.find(name)?;
    manifest.judged()?;
    Ok(manifest.driven()?)
}

/// Captured slices with the case that each is as a whole: a folder's, or the embedded ones.
pub fn captured(folder: Option<&Path>) -> Result<Vec<(Captured, Case)>> {
    let own: Vec<(String, KvSlice)>;
    let slices: Vec<(&str, &KvSlice)> = match folder {
        Some(folder) => {
            own = golden::load_dir(folder)?;
            own.iter().map(|(name, slice)| (name.as_str(), slice)).collect()
        }
        None => golden::embedded().iter().map(|(name, slice)| (*name, slice)).collect(),
    };
    let mut captured = Vec::new();
    for (name, slice) in slices {
        for warning in slice.warnings() {
            say(&format!("warning: {name}: {warning}"));
        }
        match Captured::new(name, slice)? {
            Some(pair) => captured.push(pair),
            None => say(&format!("warning: {name}: a batch is not re-cut; left out of the sweep")),
        }
    }
    Ok(captured)
}

/// The slices that arguments name: files as given, and those in folders, sorted.
pub fn slice_files(given: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in given {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let entries = std::fs::read_dir(path)
            .with_context(|| format!("cannot list the folder {}", path.display()))?;
        let mut inside: Vec<PathBuf> = entries.flatten().map(|e| e.path()).collect();
        inside.retain(|p| p.extension().is_some_and(|e| e.eq_ignore_ascii_case("safetensors")));
        if inside.is_empty() {
            bail!("the folder {} has no .safetensors file; give one that has", path.display());
        }
        inside.sort();
        files.extend(inside);
    }
    Ok(files)
}

/// Whether `--json -` took standard output.
pub fn json_on_stdout(json: Option<&Path>) -> bool {
    json.is_some_and(|path| path == Path::new("-"))
}

/// Whether a JSON document can be written: said before the work, not after it.
pub fn check_writable(path: &Path) -> Result<()> {
    if path == Path::new("-") {
        return Ok(());
    }
    check_file("--json", path)
}

/// Whether the file that an option names can be written: said before the work, not after it.
pub fn check_file(option: &str, path: &Path) -> Result<()> {
    let shown = path.display();
    let folder = path.parent().filter(|f| !f.as_os_str().is_empty());
    if let Some(folder) = folder.filter(|f| !f.exists() && !is_below_a_file(f)) {
        bail!("{option} {shown}: there is no folder {}; make it", folder.display());
    }
    if path.is_dir() {
        bail!("{option} {shown}: that is a folder; name a file");
    }
    file::check(path)
        .with_context(|| format!("{option} {shown} cannot be written; name a file that can be"))
}

/// Whether something above a path is no folder, so that none can be made there.
fn is_below_a_file(path: &Path) -> bool {
    path.ancestors().find(|above| above.exists()).is_some_and(|above| !above.is_dir())
}

/// Where a report for people goes.
#[derive(clap::Args)]
pub struct ReportTo {
    /// Write a report for a browser, DIR/index.html, and the result beside it, DIR/result.json
    #[arg(long = "report", value_name = "DIR")]
    folder: Option<PathBuf>,
}

impl ReportTo {
    /// Whether a report is asked for.
    pub fn is_asked(&self) -> bool {
        self.folder.is_some()
    }

    /// Makes the folder, and sees that it can be written: said before the work, not after it.
    pub fn check(&self) -> Result<()> {
        let Some(folder) = &self.folder else { return Ok(()) };
        let shown = folder.display();
        std::fs::create_dir_all(folder).with_context(|| {
            format!("--report {shown}: the folder cannot be made; name one that can be")
        })?;
        tempfile::tempfile_in(folder).with_context(|| {
            format!("--report {shown}: nothing can be written there; name a folder of your own")
        })?;
        for name in [PAGE, RESULT] {
            let path = folder.join(name);
            if path.is_dir() {
                bail!("--report {shown}: {name} is a folder there; name another folder");
            }
            // One that lies there already is replaced at the end, and kept until then.
            file::check(&path).with_context(|| {
                format!("--report {shown}: {name} there cannot be replaced; remove it")
            })?;
        }
        Ok(())
    }

    /// Writes the report of a document, and the document; nothing where none is asked for.
    pub fn write(&self, document: &serde_json::Value) -> Result<()> {
        let Some(folder) = &self.folder else { return Ok(()) };
        let page = html::page(document, &figures::of(std::slice::from_ref(document)));
        all_of([write_json(&folder.join(RESULT), document), write_text(&folder.join(PAGE), &page)])
    }
}

/// The report's page, in its folder.
const PAGE: &str = "index.html";
/// The document that the page shows, beside it.
const RESULT: &str = html::RESULT;

/// Writes a JSON document to a file, or to standard output for `-`.
pub fn write_json(path: &Path, document: &serde_json::Value) -> Result<()> {
    let mut text = serde_json::to_string_pretty(document).context("a result as JSON")?;
    text.push('\n');
    if path == Path::new("-") {
        return print(&text);
    }
    write_text(path, &text)
}

/// Writes a file whole or not at all.
pub fn write_text(path: &Path, text: &str) -> Result<()> {
    write_bytes(path, text.as_bytes())
}

/// Writes a file whole or not at all.
pub fn write_bytes(path: &Path, bytes: &[u8]) -> Result<()> {
    file::write(path, bytes)
        .with_context(|| format!("cannot write {}; name a file that can be", path.display()))
}

/// The first error of what has all been tried: one file that cannot be written keeps back no other.
pub fn all_of(tried: impl IntoIterator<Item = Result<()>>) -> Result<()> {
    // Each is tried, also behind one that failed.
    let all: Vec<Result<()>> = tried.into_iter().collect();
    all.into_iter().collect()
}

/// Says a line on standard error. Where that is gone (a terminal that was closed) the run goes on, and
/// its files are written.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// The command line, as the documents have it.
pub fn command_line() -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./:=,+@%".contains(c);
    let quoted = |arg: std::ffi::OsString| {
        let arg = arg.to_string_lossy().into_owned();
        if !arg.is_empty() && arg.chars().all(plain) {
            return arg;
        }
        format!("'{}'", arg.replace('\'', "'\\''"))
    };
    std::env::args_os().map(quoted).collect::<Vec<_>>().join(" ")
}

/// Prints to standard output, the verdict of the last line in its colour where that is a terminal and
/// `NO_COLOR` does not say otherwise. A reader that went away (`| head`) is no error.
pub fn print(text: &str) -> Result<()> {
    match anstream::stdout().write_all(coloured(text).as_bytes()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(e).context("cannot write to standard output")
        }
        _ => Ok(()),
    }
}

/// Text whose last line begins with a verdict, that word in its colour.
fn coloured(text: &str) -> String {
    let end = text.trim_end().len();
    let begin = text[..end].rfind('\n').map_or(0, |at| at + 1);
    let word = text[begin..end].split([':', ' ', ',']).next().unwrap_or("");
    let colour = match word {
        "PASS" | "clean" => AnsiColor::Green,
        "FAIL" | "FAULT" | "explained" | "unexplained" => AnsiColor::Red,
        "INCOMPLETE" | "ambiguous" | "invalid" => AnsiColor::Yellow,
        _ => return text.to_owned(),
    };
    let style = colour.on_default().bold();
    let rest = &text[begin + word.len()..];
    format!("{}{style}{word}{style:#}{rest}", &text[..begin])
}

/// An error with its causes, each said once: many a message quotes its cause already.
pub fn in_words(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// Whether an error says no more than that an interrupt ended the work.
pub fn is_interrupt(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let of_trial = cause.downcast_ref::<TrialError>().is_some_and(TrialError::is_interrupt);
        let of_replay = cause
            .downcast_ref::<ReplayFailure>()
            .is_some_and(|e| matches!(e, ReplayFailure::Trial(e) if e.is_interrupt()));
        let compiling = cause.downcast_ref::<CompileError>();
        of_trial || of_replay || matches!(compiling, Some(CompileError::Interrupted))
    })
}

/// Whether an error means that there is no compiler or no cache at all: no kernel can run.
pub fn is_fatal(error: &CompileError) -> bool {
    matches!(error, CompileError::NoCompiler(_) | CompileError::Io { .. })
}

/// The first Ctrl-C, SIGTERM or SIGHUP ends the run and keeps what was found; the second ends the
/// program. Gives the flag that the first one sets.
pub fn on_interrupt() -> Result<&'static AtomicBool> {
    let flag = interrupt::flag();
    let outlives_terminal = interrupt::hangup_is_ignored();
    ctrlc::set_handler(|| {
        if flag.swap(true, Ordering::Relaxed) {
            std::process::exit(Found::Trouble.status().into());
        }
        say("interrupted: finishing with what was found (again to end at once)");
    })
    .context("cannot watch for signals")?;
    if outlives_terminal {
        interrupt::ignore_hangup();
    }
    Ok(flag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verdict_alone_is_coloured() {
        let red = "\u{1b}[1m\u{1b}[31mFAIL\u{1b}[0m";
        assert_eq!(coloured("PASS: a\nFAIL: 2 kernels\n"), format!("PASS: a\n{red}: 2 kernels\n"));
        assert!(coloured("clean\n").starts_with("\u{1b}[1m\u{1b}[32mclean\u{1b}[0m"));
        for plain in ["", "\n", "{\n}\n", "30 timed\n", "PASSED: no verdict\n"] {
            assert_eq!(coloured(plain), plain);
        }
    }
}
