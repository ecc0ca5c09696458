//! `attnbench sweep`.

use super::Found;
use super::common::{
    ReportTo, Sanitize, all_of, captured, check_file, check_writable, command_line, drivable,
    in_words, is_fatal, json_on_stdout, on_interrupt, print, registry, say, time_limit, write_json,
    write_text,
};
use super::machine::Machine;
use anyhow::{Context, Result, bail};
use attnbench::data::captured::Captured;
use attnbench::data::generate::generate;
use attnbench::device::Lanes;
use attnbench::device::cpu::{CpuConfig, CpuDevice, Variant};
use attnbench::device::finding::{Class, RaceModel};
use attnbench::judge::checked::{Checked, share};
use attnbench::judge::covered::Claims;
use attnbench::judge::replay::save;
use attnbench::judge::space::{Filter, Space};
use attnbench::judge::sweep::{Finding, Options, Report, Verdict, judge_one, sweep};
use attnbench::judge::trial::{Trial, TrialError, arithmetic, fits_in_memory};
use attnbench::judge::wide::is_wide;
use attnbench::kernel::{Claim, Driven, Manifest};
use attnbench::oracle::{explain_element, explained};
use attnbench::problem::{Case, Pointer, Regime, Stage, UnknownRegime, WantedTypes};
use attnbench::report::json::{self, KernelResult, SavedFailure};
use attnbench::report::{junit, table};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

/// Arguments of `sweep`.
#[derive(clap::Args)]
#[command(after_help = super::statuses(&[
    (0, "every kernel passed"),
    (1, "a kernel failed, whatever became of the others"),
    (2, "the request, a file or the machine was at fault; beside others a kernel that could not be judged \
         ends so where all others passed"),
    (3, "no kernel failed, and one is incomplete: too much was skipped or never exercised, or an interrupt \
         ended the sweep"),
]))]
pub struct Args {
    /// Built-in kernels by name, or paths of manifests; all built-in ones where none is given
    #[arg(value_name = "KERNEL|MANIFEST.toml")]
    kernels: Vec<String>,
    /// Where to run: auto (hip, then cuda, then cpu), cpu, hip[:N] or cuda[:N]
    #[arg(long, env = "ATTNBENCH_DEVICE", hide_env_values = true, default_value = "auto")]
    device: String,
    /// Lanes of a wave: 32, 64 or both, as far as the device has them
    #[arg(long, default_value = "both", value_parser = ["32", "64", "both"])]
    wave: String,
    /// Cases to judge for each kernel, over all wave sizes [default: 1000, with --sanitize 200]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    cases: Option<u64>,
    #[command(flatten)]
    sanitize: Sanitize,
    /// Leave out the checked share: the few cases that a sweep runs under the checker besides
    #[arg(long, conflicts_with = "sanitize")]
    no_sanitize: bool,
    /// Seed of the cases, their data and the thread orders
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Judge part I of N only, I from 1
    #[arg(long, value_name = "I/N", default_value = "1/1", value_parser = parse_shard)]
    shard: (usize, usize),
    /// Folder for failing cases
    #[arg(long, value_name = "DIR", default_value = "attnbench-failures")]
    save: PathBuf,
    /// Judge this one case
    #[arg(long, value_name = "ID")]
    case: Option<String>,
    /// Only this type of the cache (f16), or exactly these of q, cache and out (f16/f16/f32)
    #[arg(long)]
    dtype: Option<WantedTypes>,
    /// Only sequences of these lengths
    #[arg(long, value_name = "A..B", value_parser = parse_range)]
    seq_len: Option<(usize, usize)>,
    /// Only head vectors of these sizes
    #[arg(long, value_name = "A..B", value_parser = parse_range)]
    head_dim: Option<(usize, usize)>,
    /// Only this data regime or family of them (gauss, onehot, onehot:last, slice, …)
    #[arg(long, value_parser = parse_regime)]
    regime: Option<String>,
    /// Captured slices to sweep with, instead of the built-in ones
    #[arg(long, value_name = "DIR")]
    slices: Option<PathBuf>,
    /// Begin no new case after this time (90, 90s, 10m, 2h)
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    max_time: Option<Duration>,
    /// Begin no new case after the first failure
    #[arg(long)]
    fail_fast: bool,
    /// Time limit of one run of a kernel [default: 10s, with --sanitize 60s, and more for large cases]
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    time_limit: Option<Duration>,
    /// Threads, each with a worker process or a lane of the GPU's (default: one a core, on a GPU half
    /// as many more)
    #[arg(long, short = 'j')]
    jobs: Option<usize>,
    /// With --case: print each term of the error bound at batch b, head h, element d
    #[arg(long, value_name = "b,h,d", requires = "case", value_parser = parse_element)]
    explain_bound: Option<(usize, usize, usize)>,
    /// Write the result as JSON to a file, or to standard output for -
    #[arg(long, value_name = "FILE|-")]
    json: Option<PathBuf>,
    /// Write the result as JUnit XML, for a CI server
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    #[command(flatten)]
    report: ReportTo,
}

/// Cases of a kernel where --cases does not say; under the checker the first 64 hold every edge of
/// every axis, and what is drawn beyond adds less than it does to values.
const CASES: u64 = 1000;
const CHECKED_CASES: u64 = 200;

impl Args {
    fn cases(&self) -> u64 {
        let default = if self.sanitize.sanitize.is_some() { CHECKED_CASES } else { CASES };
        self.cases.unwrap_or(default)
    }
}

/// More parts than this are a typing error.
const MOST_SHARDS: usize = 10_000;

fn parse_shard(text: &str) -> Result<(usize, usize), String> {
    let parts = text.split_once('/').and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
    match parts {
        Some((i, n)) if (1..=n).contains(&i) && n <= MOST_SHARDS => Ok((i, n)),
        _ => Err(format!("write I/N with 1 <= I <= N <= {MOST_SHARDS}, such as 2/4")),
    }
}

pub(super) fn parse_range(text: &str) -> Result<(usize, usize), String> {
    let number = |t: &str| t.trim_start_matches('=').parse::<usize>().ok();
    let range = match text.split_once("..") {
        Some((a, b)) => number(a).zip(number(b)),
        None => number(text).map(|n| (n, n)),
    };
    match range {
        Some((a, b)) if a <= b => Ok((a, b)),
        _ => Err("write A..B with A <= B (both included), or one number".into()),
    }
}

fn parse_regime(text: &str) -> Result<String, UnknownRegime> {
    if !Regime::FAMILIES.contains(&text) {
        text.parse::<Regime>()?;
    }
    Ok(text.to_owned())
}

pub(super) fn parse_time(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "ms" => 1e-3,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err("write seconds, or a number with ms, s, m or h".into()),
    };
    let seconds = digits.parse::<f64>().ok().map(|x| x * unit);
    match seconds.filter(|s| *s > 0.0 && *s < 1e9) {
        Some(s) => Ok(Duration::from_secs_f64(s)),
        None => Err("write a positive time, such as 90, 90s, 10m or 2h".into()),
    }
}

fn parse_element(text: &str) -> Result<(usize, usize, usize), String> {
    let numbers: Option<Vec<usize>> = text.split(',').map(|n| n.trim().parse().ok()).collect();
    match numbers.as_deref() {
        Some([b, h, d]) => Ok((*b, *h, *d)),
        _ => Err("write three numbers: batch, head, element, such as 0,3,17".into()),
    }
}

/// One kernel's result.
enum Outcome {
    Swept(Box<Report>, Vec<SavedFailure>),
    Error(String, String),
}

/// Runs the command.
pub fn run(args: &Args) -> Result<Found> {
    let registry = registry()?;
    let names: Vec<String> = match &args.kernels[..] {
        [] => registry.names().map(str::to_owned).collect(),
        given => given.to_vec(),
    };
    // A wrong name or manifest is said before any work.
    let mut not_driven = Vec::new();
    let mut kernels: Vec<(String, Manifest)> = Vec::new();
    for name in names {
        let Driven { manifest, not_driven: claims } = drivable(&registry, &name)?;
        not_driven.push(claims);
        kernels.push((name, manifest));
    }
    let captured = captured(args.slices.as_deref())?;
    let case: Option<Case> = args.case.as_deref().map(str::parse).transpose()?;
    if let Some((case, element)) = case.as_ref().zip(args.explain_bound) {
        if args.junit.is_some() || args.report.is_asked() {
            bail!("--explain-bound judges nothing to report; leave out --report and --junit");
        }
        return explain(&kernels, case, &captured, element);
    }
    check_options(args, &kernels)?;
    let device = Machine::open(&args.device, args.sanitize.config())?;
    let quiet = json_on_stdout(args.json.as_deref());
    if let Some(path) = &args.json {
        check_writable(path)?;
    }
    if let Some(path) = &args.junit {
        if path == Path::new("-") {
            bail!("--junit -: standard output is not for it; name a file");
        }
        check_file("--junit", path)?;
    }
    args.report.check()?;
    if !quiet {
        print(&format!("device {}, seed {}\n", device.describe_choice(), args.seed))?;
    }
    let interrupted = on_interrupt()?;

    let start = Instant::now();
    let mut outcomes = Vec::new();
    for (turn, (name, manifest)) in kernels.iter().enumerate() {
        // Each kernel gets its share of the time that is left.
        let left = args.max_time.map(|t| t.saturating_sub(start.elapsed()));
        let deadline = left.map(|t| Instant::now() + t / (kernels.len() - turn) as u32);
        let not_driven = &not_driven[turn];
        let bench =
            Bench { args, manifest, not_driven, device: &device, captured: &captured, deadline };
        match bench.sweep(case.as_ref(), interrupted) {
            Ok(report) => {
                if let Some(error) = &report.error {
                    say(&format!("error: {error}"));
                }
                let saved = save_findings(args, name, manifest, &report);
                outcomes.push(Outcome::Swept(Box::new(report), saved));
            }
            Err(error) => {
                let fatal = error
                    .downcast_ref()
                    .is_some_and(|e| matches!(e, TrialError::Compile(e) if is_fatal(e)));
                let words = in_words(&error);
                outcomes.push(Outcome::Error(manifest.name.clone(), words.clone()));
                if kernels.len() == 1 || fatal && outcomes.len() == 1 {
                    write_reports(args, &document(args, &device, &outcomes))?;
                    return Err(error);
                }
                // The other kernels are swept all the same; what was found is not lost.
                let prefix = if words.starts_with(name) { "" } else { &format!("{name}: ") };
                say(&format!("error: {prefix}{words}"));
                if fatal {
                    break;
                }
            }
        }
    }
    let document = document(args, &device, &outcomes);
    if outcomes.iter().all(|o| matches!(o, Outcome::Error(..))) {
        write_reports(args, &document)?;
        return Ok(Found::Trouble);
    }
    let json = args.json.as_deref().map_or(Ok(()), |path| write_json(path, &document));
    let reports = write_reports(args, &document);
    // Last: a terminal that was closed keeps back no file.
    let text = if quiet { Ok(()) } else { print(&describe(args, &outcomes, start.elapsed())) };
    all_of([json, reports, text])?;
    Ok(found(&outcomes))
}

/// The document of what was swept.
fn document(args: &Args, device: &Machine, outcomes: &[Outcome]) -> serde_json::Value {
    let results: Vec<KernelResult<'_>> = outcomes
        .iter()
        .map(|o| match o {
            Outcome::Swept(report, saved) => KernelResult::Swept(report, saved.clone()),
            Outcome::Error(name, error) => KernelResult::Error(name, error.clone()),
        })
        .collect();
    json::sweep(&device.describe(), args.seed, &command_line(), &results)
}

/// Writes what others than programs of ours read: also where no kernel could be swept, so that a CI
/// server shows it.
fn write_reports(args: &Args, document: &serde_json::Value) -> Result<()> {
    let junit = args.junit.as_deref().map_or(Ok(()), |path| {
        let xml = junit::xml(document)?;
        write_text(path, &xml)
    });
    all_of([junit, args.report.write(document)])
}

/// Says which kernels an option narrows nothing of, for want of what it narrows; refuses it where that
/// is all of them.
fn check_options(args: &Args, kernels: &[(String, Manifest)]) -> Result<()> {
    type Has = fn(Stage) -> bool;
    let options: [(&str, bool, &str, Has); 2] = [
        ("--seq-len", args.seq_len.is_some(), "keys", Stage::has_keys),
        ("--head-dim", args.head_dim.is_some(), "head vectors", Stage::has_heads),
    ];
    for (option, _, what, has) in options.into_iter().filter(|(_, given, ..)| *given) {
        let without: Vec<String> = kernels
            .iter()
            .filter(|(_, m)| !has(m.stage))
            .map(|(_, m)| format!("{} (stage `{}`)", m.name, m.stage))
            .collect();
        let list = without.join(", ");
        if without.len() == kernels.len() {
            bail!("{option} narrows nothing: there are no {what} in {list}; leave it out");
        } else if !without.is_empty() {
            say(&format!("note: {option} narrows nothing of {list}: there are no {what}"));
        }
    }
    Ok(())
}

/// What a sweep of one kernel needs.
struct Bench<'a> {
    args: &'a Args,
    manifest: &'a Manifest,
    not_driven: &'a [Claim],
    device: &'a Machine,
    captured: &'a [(Captured, Case)],
    deadline: Option<Instant>,
}

impl Bench<'_> {
    fn sweep(&self, case: Option<&Case>, interrupted: &AtomicBool) -> Result<Report> {
        let args = self.args;
        let mut waves = self.device.waves();
        if let Ok(wanted) = args.wave.parse::<u32>() {
            if !waves.contains(&wanted) {
                let device = self.device.describe();
                bail!("--wave {wanted}: {device} has waves of {}; leave it out", waves[0]);
            }
            waves = vec![wanted];
        }
        let slices: Arc<Vec<Captured>> =
            Arc::new(self.captured.iter().map(|(c, _)| c.clone()).collect());
        let manifest = Arc::new(self.manifest.clone());
        let make = || {
            let lanes = args.sanitize.lanes.unwrap_or(manifest.device.lanes);
            let device = self.device.another_with(lanes);
            let told = args.sanitize.sanitize.is_some() || lanes == Lanes::Lockstep;
            let limit = time_limit(args.time_limit, told);
            let mut trial = Trial::new(Arc::clone(&manifest), Arc::clone(&slices), device, limit);
            trial.grow_time_limit(args.time_limit.is_none());
            Ok(trial)
        };
        if let Some(case) = case {
            let mut case = case.clone();
            self.manifest.complete(&mut case);
            self.manifest.supports(&case)?;
            return Ok(judge_one(&mut make()?, &case)?);
        }
        let filter = Filter {
            dtype: args.dtype,
            seq_len: args.seq_len,
            head_dim: args.head_dim,
            regime: args.regime.clone(),
            waves,
        };
        let space = Space::new(self.manifest, &filter, self.captured)?;
        let options = Options {
            seed: args.seed,
            cases: usize::try_from(args.cases()).context("--cases")?,
            shard: (args.shard.0 - 1, args.shard.1),
            deadline: self.deadline,
            fail_fast: args.fail_fast,
            // The whole sweep has them once.
            wide: args.sanitize.sanitize.is_some() && args.shard.0 == 1,
        };
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        // A thread that waits for a GPU needs no core.
        let threads =
            args.jobs.unwrap_or(if self.device.is_gpu() { cores + cores / 2 } else { cores });
        let bar = progress(&self.manifest.name, options.share() as u64);
        let report = sweep(&space, &options, threads, &make, interrupted, &|judged, failed| {
            bar.set_position(judged as u64);
            if failed > 0 {
                bar.set_message(format!("{failed} failed"));
            }
        });
        bar.finish_and_clear();
        let mut report = report?;
        report.take_claims(Claims::of(&space, self.not_driven, args.dtype.is_some()));
        if let Some(checked) = self.checked_share(&space, &report, interrupted) {
            report.take_checked(checked);
        }
        report.say_what_was_left(&space);
        Ok(report)
    }

    /// The checked share of a sweep, or why it has none; `None` where all of it was checked.
    fn checked_share(
        &self,
        space: &Space,
        report: &Report,
        interrupted: &AtomicBool,
    ) -> Option<Checked> {
        let args = self.args;
        let why = match () {
            () if args.sanitize.sanitize.is_some() => return None,
            () if args.no_sanitize => "--no-sanitize",
            () if args.shard.0 > 1 => "the first part has them",
            () if report.verdict == Verdict::Fail => "it failed without; --sanitize makes them",
            () if report.stopped.is_some() => "stopped",
            () => "",
        };
        if !why.is_empty() {
            return Some(Checked::Not(why.to_owned()));
        }
        let classes = Class::ALL.to_vec();
        let lanes = args.sanitize.lanes.unwrap_or(space.manifest.device.lanes);
        let race_model = match lanes {
            Lanes::Lockstep => RaceModel::Lockstep,
            Lanes::Independent => RaceModel::Sync,
        };
        let own = CpuConfig::from_env();
        let config = CpuConfig { variant: Variant::Checked, classes, race_model, ..own };
        let device = match CpuDevice::new(config) {
            Ok(device) => device.with_lanes(lanes),
            Err(error) => return Some(Checked::Not(error.to_string())),
        };
        let (manifest, limit) = (Arc::clone(&space.manifest), time_limit(args.time_limit, true));
        let mut trial = Trial::new(manifest, Arc::default(), Box::new(device), limit);
        let took = Duration::from_secs_f64(report.seconds);
        Some(share(space, args.seed, took, &mut trial, interrupted))
    }
}

/// A progress bar on standard error; hidden where that is no terminal.
fn progress(kernel: &str, cases: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(cases), ProgressDrawTarget::stderr_with_hz(10));
    let style = "{prefix} {bar:40} {pos}/{len} cases, {per_sec}, {eta} left {msg}";
    bar.set_style(
        ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()),
    );
    bar.set_prefix(kernel.to_owned());
    bar
}

fn save_findings(
    args: &Args,
    name: &str,
    manifest: &Manifest,
    report: &Report,
) -> Vec<SavedFailure> {
    let program = std::env::args().next().unwrap_or_else(|| "attnbench".into());
    // A manifest's path is saved so that replay finds it from any folder.
    let kernel = if Path::new(name).exists() && name.ends_with(".toml") {
        std::path::absolute(name).map_or(name.to_owned(), |p| p.display().to_string())
    } else {
        name.to_owned()
    };
    let by_id = |finding: &Finding| {
        let is_checked =
            args.sanitize.sanitize.is_some() || finding.failure.property.starts_with("sanitize/");
        let checked = if is_checked { " --sanitize" } else { "" };
        let case = quote(&finding.case.to_string());
        let lanes = lanes_of(args);
        let replay = format!("{program} sweep {}{checked}{lanes} --case {case}", quote(name));
        SavedFailure { path: None, replay: Some(replay) }
    };
    let one = |finding: &Finding| {
        // The id makes such a case again; its buffers are gigabytes of nothing.
        if is_wide(&finding.case) {
            return by_id(finding);
        }
        match save(&args.save, &kernel, manifest, finding) {
            Ok(path) => {
                let path = path.display().to_string();
                SavedFailure {
                    replay: Some(format!("{program} replay {}{}", quote(&path), lanes_of(args))),
                    path: Some(path),
                }
            }
            Err(error) => {
                say(&format!("error: a failing case of {} is not saved: {error}", manifest.name));
                by_id(finding)
            }
        }
    };
    report.findings.iter().map(one).collect()
}

/// The option that makes lanes advance again as they did.
fn lanes_of(args: &Args) -> String {
    args.sanitize.lanes.map_or(String::new(), |lanes| format!(" --lanes {lanes}"))
}

/// A word for a shell.
fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=+:@,".contains(c);
    if word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

fn explain(
    kernels: &[(String, Manifest)],
    case: &Case,
    captured: &[(Captured, Case)],
    (b, h, d): (usize, usize, usize),
) -> Result<Found> {
    for (what, value, limit) in [("batch", b, case.batch()), ("head", h, case.num_heads)] {
        in_extent(what, value, limit)?;
    }
    let Some((output, limit)) = explained(case, b) else {
        bail!(
            "--explain-bound: stage `{}` is not explained; stages scores, softmax, pv, decode, split \
             and merge are",
            case.stage
        );
    };
    let keys = matches!(output, Pointer::Scores | Pointer::Probs);
    in_extent(if keys { "attended key" } else { "element" }, d, limit)?;
    fits_in_memory(case)?;
    let slices: Vec<Captured> = captured.iter().map(|(c, _)| c.clone()).collect();
    let inputs = generate(case, &slices)?;
    for (_, manifest) in kernels {
        let promised = arithmetic(manifest, case);
        let (want, bound, terms) = explain_element(case, &inputs, &promised, (b, h, d));
        print(&format!(
            "{}: error bound of {output}[{b}, {h}, {d}] in {case}\n{}\n",
            manifest.name,
            table::bound_terms(want, bound, &terms)
        ))?;
    }
    Ok(Found::Nothing)
}

/// Refuses a coordinate of `--explain-bound` that the case does not have.
fn in_extent(what: &str, value: usize, limit: usize) -> Result<()> {
    if value >= limit {
        bail!("--explain-bound: {what} {value} of a case that has {limit}; count from 0");
    }
    Ok(())
}

fn describe(args: &Args, outcomes: &[Outcome], elapsed: Duration) -> String {
    let mut text = String::new();
    let reports: Vec<&Report> = outcomes
        .iter()
        .filter_map(|o| match o {
            Outcome::Swept(report, _) => Some(&**report),
            Outcome::Error(..) => None,
        })
        .collect();
    if args.case.is_none() {
        for r in &reports {
            text += &format!("\n{} drew\n{}", r.kernel, table::drawn(&r.coverage));
            text += &format!("  in all: {}\n", table::shares(&r.coverage));
        }
    }
    text += &format!("\n{}\n", table::summary(&reports));
    for outcome in outcomes {
        let (r, saved) = match outcome {
            Outcome::Swept(report, saved) => (report, saved),
            Outcome::Error(name, why) => {
                text += &format!("{name}: not judged: {why}\n");
                continue;
            }
        };
        text += &table::findings(r, saved);
        text += &table::notes(r);
        for (why, count) in &r.skipped_why {
            text += &format!("{}: skipped {count} times: {why}\n", r.kernel);
        }
        if let Some(busy) = r.busy {
            let share = busy.as_secs_f64() / r.seconds.max(1e-9);
            text += &format!(
                "{}: the GPU ran its launches for {:.2} s in all: {share:.1} under way at a time\n",
                r.kernel,
                busy.as_secs_f64()
            );
        }
        if r.late > 0 {
            text += &format!(
                "{}: {} did not end within --time-limit beside others, and did when made again alone\n",
                r.kernel,
                if r.late == 1 { "1 case".to_owned() } else { format!("{} cases", r.late) }
            );
        }
        if !r.missing.is_empty() {
            text += &format!("{}: never exercised: {}\n", r.kernel, r.missing.join(", "));
        }
        if !r.claims.not_driven.is_empty() {
            let claims = r.claims.not_driven.join(", ");
            text += &format!("{}: claimed and not driven: {claims}\n", r.kernel);
        }
        for claim in &r.claims.not_launchable {
            text += &format!("{}: claimed and not to be launched: {claim}\n", r.kernel);
        }
        if let Some(share) = r.checked {
            text += &format!(
                "{}: checked share: {} cases in {:.1} s, {} findings\n",
                r.kernel, share.cases, share.seconds, share.findings
            );
        }
        if let Some(stopped) = r.stopped {
            text += &format!("{}: {}\n", r.kernel, stopped.reason());
        }
        for (why, count) in &r.vacuous_why {
            let times =
                if args.case.is_some() { String::new() } else { format!("{count} times: ") };
            text += &format!("{}: vacuous {times}the check would not see {why}\n", r.kernel);
        }
    }
    let verdict = match found(outcomes) {
        Found::Nothing => "PASS",
        Found::Fault => "FAIL",
        Found::Incomplete => "INCOMPLETE",
        Found::Trouble => "ERROR",
    };
    let cases: usize = reports.iter().map(|r| r.cases()).sum();
    let failed: usize = reports.iter().map(|r| r.failed).sum();
    let mut left: Vec<&str> = Vec::new();
    for words in reports.iter().flat_map(|r| &r.not_looked_at) {
        if !left.contains(&words.as_str()) {
            left.push(words);
        }
    }
    let left = match &left[..] {
        [] => String::new(),
        left => format!("; not looked at: {}", left.join(", ")),
    };
    text + &format!(
        "{verdict}: {} kernel{}, {cases} cases, {failed} failed, seed {}, {:.1} s{left}\n",
        outcomes.len(),
        if outcomes.len() == 1 { "" } else { "s" },
        args.seed,
        elapsed.as_secs_f64()
    )
}

/// What all kernels come to: a failing one counts first, then one that is incomplete, then one that could
/// not be judged.
fn found(outcomes: &[Outcome]) -> Found {
    let of = |outcome: &Outcome| match outcome {
        Outcome::Swept(r, _) => match r.verdict {
            Verdict::Fail => Found::Fault,
            _ if r.error.is_some() => Found::Trouble,
            Verdict::Incomplete => Found::Incomplete,
            Verdict::Pass => Found::Nothing,
        },
        Outcome::Error(..) => Found::Trouble,
    };
    let any = |found: &Found| outcomes.iter().any(|outcome| of(outcome) == *found);
    let order = [Found::Fault, Found::Incomplete, Found::Trouble];
    order.into_iter().find(any).unwrap_or(Found::Nothing)
}
