//! `attnbench replay`.

use super::Found;
use super::common::{
    Sanitize, all_of, check_writable, command_line, drivable, in_words, is_interrupt,
    json_on_stdout, on_interrupt, print, registry, say, slice_files, time_limit, write_json,
};
use super::machine::Machine;
use super::sweep::parse_time;
use anyhow::{Result, bail};
use attnbench::device::Lanes;
use attnbench::device::cpu::Variant;
use attnbench::judge::explain::{Explanation, explain};
use attnbench::judge::replay::{Recorded, Replayed, load};
use attnbench::judge::sanitize::Found as Checked;
use attnbench::judge::trial::{Failure, Outcome, PASSES_IN_LOCKSTEP, Trial};
use attnbench::kernel::{Manifest, Registry};
use attnbench::report::json::{REPLAY_FORMAT, REPLAYS_FORMAT, SavedFailure, case_fields, failure};
use attnbench::report::table;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Arguments of `replay`.
#[derive(clap::Args)]
#[command(after_help = super::statuses(&[
    (0, "every case passed"),
    (1, "a case failed, whatever became of the others"),
    (2, "a file could not be replayed, or the request or the machine was at fault"),
    (3, "incomplete: the check would see nothing on a case, or an interrupt ended the replay"),
]))]
pub struct Args {
    /// Cases that a sweep saved, captured slices, or folders of them
    #[arg(value_name = "FILE|DIR", required = true)]
    files: Vec<PathBuf>,
    /// The kernel, where a file names none, or another than it names
    #[arg(long, value_name = "KERNEL|MANIFEST.toml")]
    kernel: Option<String>,
    /// Where to run: auto, cpu, hip[:N] or cuda[:N]
    #[arg(long, env = "ATTNBENCH_DEVICE", hide_env_values = true, default_value = "auto")]
    device: String,
    #[command(flatten)]
    sanitize: Sanitize,
    /// Build the kernel as written and run the failing run in this process, for a debugger
    /// (gdb --args attnbench replay --debug FILE; break kernel.hip:88; run)
    #[arg(long, conflicts_with = "sanitize")]
    debug: bool,
    /// Time limit of one run of the kernel [default: 10s, under the checker 60s]
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    time_limit: Option<Duration>,
    /// Write the result as JSON to a file, or to standard output for -
    #[arg(long, value_name = "FILE|-")]
    json: Option<PathBuf>,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<Found> {
    if let Some(path) = &args.json {
        check_writable(path)?;
    }
    let files = slice_files(&args.files)?;
    let bench = Bench { args, registry: registry()?, machines: HashMap::new() };
    match &args.files[..] {
        [only] if !only.is_dir() => one(bench, only),
        _ if args.debug => {
            bail!("--debug: a crash ends this process, and with it the replay; name one file")
        }
        _ => several(bench, &files),
    }
}

/// A file alone, told in full.
fn one(mut bench: Bench<'_>, file: &Path) -> Result<Found> {
    let args = bench.args;
    on_interrupt()?;
    let again = bench.replay(file)?;
    let quiet = json_on_stdout(args.json.as_deref());
    all_of([
        args.json.as_deref().map_or(Ok(()), |path| write_json(path, &again.document())),
        if quiet { Ok(()) } else { print(&again.text()) },
    ])?;
    Ok(again.found())
}

/// One file after another: a line each, and what all come to.
fn several(mut bench: Bench<'_>, files: &[PathBuf]) -> Result<Found> {
    let args = bench.args;
    let interrupted = on_interrupt()?;
    let quiet = json_on_stdout(args.json.as_deref());
    let mut printed = Ok(());
    let mut tell = |text: &str| {
        if !quiet {
            printed = all_of([std::mem::replace(&mut printed, Ok(())), print(text)]);
        }
    };
    let (mut all, mut documents) = (Vec::new(), Vec::new());
    for file in files {
        if interrupted.load(Ordering::Relaxed) {
            break;
        }
        match bench.replay(file) {
            Ok(again) => {
                tell(&again.line());
                documents.push(again.document());
                all.push(again.found());
            }
            Err(error) if is_interrupt(&error) => break,
            Err(error) => {
                let (words, shown) = (in_words(&error), file.display().to_string());
                let said = if words.contains(&shown) {
                    format!("error: {words}")
                } else {
                    format!("error: {shown}: {words}")
                };
                say(&said);
                tell(&format!("ERROR       {shown}: not replayed\n"));
                documents.push(json!({
                    "format": REPLAY_FORMAT, "file": shown, "verdict": "error", "error": words,
                }));
                all.push(Found::Trouble);
            }
        }
    }
    let (words, found) = verdict(&all, files.len());
    tell(&words);
    let document = json!({
        "format": REPLAYS_FORMAT, "version": env!("CARGO_PKG_VERSION"), "command": command_line(),
        "replays": documents,
    });
    let json = args.json.as_deref().map_or(Ok(()), |path| write_json(path, &document));
    all_of([json, printed])?;
    Ok(found)
}

/// What all files come to: a failing one counts first, then one that could not be replayed, then a
/// vacuous one, or one that was not reached.
fn verdict(all: &[Found], asked: usize) -> (String, Found) {
    let count = |found: Found| all.iter().filter(|one| **one == found).count();
    let left = asked - all.len();
    let counts = [
        (count(Found::Fault), "failed"),
        (count(Found::Trouble), "not replayed"),
        (count(Found::Incomplete), "vacuous"),
        (left, "not reached"),
    ];
    let found = match counts.map(|(n, _)| n) {
        [0, 0, 0, 0] => Found::Nothing,
        [0, 0, ..] => Found::Incomplete,
        [0, ..] => Found::Trouble,
        _ => Found::Fault,
    };
    let word = match found {
        Found::Nothing => "PASS",
        Found::Fault => "FAIL",
        Found::Trouble => "ERROR",
        Found::Incomplete => "INCOMPLETE",
    };
    let files = if asked == 1 { "file" } else { "files" };
    let mut text = format!("{word}: {asked} {files}, {} passed", count(Found::Nothing));
    for (n, what) in counts.into_iter().filter(|(n, _)| *n > 0) {
        text += &format!(", {n} {what}");
    }
    (text + "\n", found)
}

/// What replays share.
struct Bench<'a> {
    args: &'a Args,
    registry: Registry,
    /// A device for each way of building kernels.
    machines: HashMap<Variant, Machine>,
}

/// A file that was replayed.
struct Again {
    file: String,
    manifest: Arc<Manifest>,
    device: String,
    recorded: Recorded,
    replayed: Replayed,
    /// Why it fails, where it does.
    why: Option<Explanation>,
}

impl Bench<'_> {
    fn replay(&mut self, file: &Path) -> Result<Again> {
        let args = self.args;
        let mut recorded = load(file)?;
        let Some(kernel) = args.kernel.clone().or_else(|| recorded.kernel.clone()) else {
            bail!("{} names no kernel; give one with --kernel", file.display());
        };
        let manifest = Arc::new(drivable(&self.registry, &kernel)?.manifest);
        if recorded.is_capture() {
            if !manifest.stage.takes_slices() {
                bail!(
                    "{}: a captured decode step does not hold what stage `{}` of {} reads; give a \
                     kernel of another stage with --kernel",
                    file.display(),
                    manifest.stage,
                    manifest.name
                );
            }
            recorded.case = recorded.case.for_stage(manifest.stage);
        }
        manifest.complete(&mut recorded.case);
        manifest.supports(&recorded.case)?;
        let mut config = args.sanitize.config();
        if args.debug {
            config.variant = Variant::Debug;
        } else if recorded.was_checked() {
            // A finding is seen only by those who look.
            config.variant = Variant::Checked;
        }
        let variant = config.variant;
        let lanes = args.sanitize.lanes.unwrap_or(manifest.device.lanes);
        let told = variant == Variant::Checked || lanes == Lanes::Lockstep;
        let limit = time_limit(args.time_limit, told);
        let device = match self.machines.entry(variant) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(free) => free.insert(Machine::open(&args.device, config)?),
        };
        // The data are the file's own: no captured slice is named.
        let lanes = device.another_with(lanes);
        let mut trial = Trial::new(Arc::clone(&manifest), Arc::default(), lanes, limit);
        trial.grow_time_limit(args.time_limit.is_none());
        let replayed = recorded.replay(&mut trial)?;
        let case = &recorded.case;
        let why = match &replayed.outcome {
            Outcome::Failed(f) => Some(explain(&mut trial, (case, f), &[])),
            _ => None,
        };
        let (file, device) = (file.display().to_string(), device.describe());
        Ok(Again { file, manifest, device, recorded, replayed, why })
    }
}

/// What the checker found, in a line.
fn finding(found: &Checked) -> String {
    let what = if found.is_note() { "note" } else { found.class().name() };
    format!("  {what:7} {}\n", found.words)
}

impl Again {
    fn found(&self) -> Found {
        match &self.replayed.outcome {
            Outcome::Passed(_) => Found::Nothing,
            Outcome::Failed(_) => Found::Fault,
            Outcome::Vacuous(_) => Found::Incomplete,
        }
    }

    fn document(&self) -> Value {
        let case = &self.recorded.case;
        let verdict = match &self.replayed.outcome {
            Outcome::Passed(_) => "pass",
            Outcome::Failed(_) => "fail",
            Outcome::Vacuous(_) => "vacuous",
        };
        let fields = match &self.replayed.outcome {
            Outcome::Failed(f) => {
                Value::Object(failure(case, f, self.why.as_ref(), &SavedFailure::default()))
            }
            _ => Value::Null,
        };
        json!({
            "format": REPLAY_FORMAT, "device": self.device, "kernel": self.manifest.name,
            "file": self.file, "verdict": verdict, "case": case_fields(case),
            "id": case.to_string(), "same_bits": self.replayed.same_bits, "failure": fields,
        })
    }

    /// In full.
    fn text(&self) -> String {
        let text = match &self.replayed.outcome {
            Outcome::Passed(p) => format!(
                "{}PASS: largest error {} of its bound over {} runs\n",
                p.notes.iter().map(finding).collect::<String>(),
                table::ratio(p.ratio, true),
                p.runs
            ),
            Outcome::Vacuous(what) => {
                format!("VACUOUS: the check would not see {what} on this case\n")
            }
            Outcome::Failed(f) => self.failed(f),
        };
        let case = &self.recorded.case;
        format!("{} on {}\n  case    {case}\n{text}", self.manifest.name, self.device)
    }

    fn failed(&self, f: &Failure) -> String {
        let bits = match self.replayed.same_bits {
            Some(true) => "  bits    the same as saved\n",
            Some(false) => {
                "  bits    not the same as saved: the kernel, the compiler or the device changed\n"
            }
            None => "",
        };
        let mut fault = self.why.as_ref().map_or(String::new(), table::explanation);
        if self.replayed.passes_in_lockstep {
            fault += &format!("  lanes   {PASSES_IN_LOCKSTEP}\n");
        }
        let more = f.found.iter().filter(|found| found.words != f.detail);
        let more: String = more.map(finding).collect();
        format!("  what    {}\n{more}{fault}{bits}FAIL: {}\n", f.detail, f.property)
    }

    /// In one line.
    fn line(&self) -> String {
        let (word, what) = match &self.replayed.outcome {
            Outcome::Passed(p) => {
                ("PASS", format!("largest error {} of its bound", table::ratio(p.ratio, true)))
            }
            Outcome::Failed(f) => {
                let changed = self.replayed.same_bits == Some(false);
                let bits = if changed { " (not the bits that were saved)" } else { "" };
                ("FAIL", format!("{}: {}{bits}", f.property, f.detail))
            }
            Outcome::Vacuous(what) => ("VACUOUS", format!("the check would not see {what}")),
        };
        format!("{word:11} {}: {}: {what}\n", self.file, self.manifest.name)
    }
}
