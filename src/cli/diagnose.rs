//! `attnbench diagnose`.

use super::Found;
use super::common::{
    ReportTo, all_of, check_writable, command_line, json_on_stdout, on_interrupt, print,
    slice_files, write_json,
};
use anyhow::Result;
use attnbench::data::slice::{KvSlice, SliceError, SliceProblem, StageSlice};
use attnbench::judge::diagnose::problem::Problem;
use attnbench::judge::diagnose::profile::profile;
use attnbench::judge::diagnose::{Diagnosis, Options, Verdict, diagnose, saved};
use attnbench::report::diagnose::{Captured, Judged, describe, document, headline, summary};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Arguments of `diagnose`.
#[derive(clap::Args)]
#[command(after_help = super::statuses(&[
    (0, "every output is right"),
    (1, "an output is wrong, or a file was saved for another fault, whatever became of the other files"),
    (2, "a file cannot be judged, or the request or the machine was at fault"),
    (3, "an interrupt ended the judging: files were not reached, and none so far is at fault"),
]))]
pub struct Args {
    /// Captured slices, cases that a sweep saved, or folders of them
    #[arg(value_name = "SLICE|DIR", required = true)]
    slices: Vec<PathBuf>,
    /// Try no pairs of faults where a single one does not fit
    #[arg(long)]
    no_pairs: bool,
    /// Threads (default: one a core)
    #[arg(long, short = 'j')]
    jobs: Option<usize>,
    /// Write the result as JSON to a file, or to standard output for -
    #[arg(long, value_name = "FILE|-")]
    json: Option<PathBuf>,
    #[command(flatten)]
    report: ReportTo,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<Found> {
    if let Some(path) = &args.json {
        check_writable(path)?;
    }
    args.report.check()?;
    let files = slice_files(&args.slices)?;
    let quiet = json_on_stdout(args.json.as_deref());
    let interrupted = on_interrupt()?;
    let judged = judge_all(args, &files, quiet, interrupted);
    let document = document(&command_line(), &judged);
    all_of([
        args.json.as_deref().map_or(Ok(()), |path| write_json(path, &document)),
        args.report.write(&document),
        if quiet { Ok(()) } else { print(&text(&judged, files.len())) },
    ])?;
    Ok(found(&judged, files.len()))
}

/// `profiled`: with what figures and documents show besides.
fn judge(path: &Path, options: Options, profiled: bool) -> Judged {
    let file = path.display().to_string();
    let mut captured = None;
    let diagnosis = match KvSlice::read(path) {
        Err(error) => of_stage(path, options, &error),
        Ok(slice) => {
            let mut d = match Problem::of_slice(&slice) {
                Ok(problem) => saved::of_slice(&slice, || {
                    if profiled {
                        let profile = profile(&problem);
                        let unit = |u: &usize| (problem.units[*u].s, problem.units[*u].h);
                        captured = Some(Captured {
                            prompt_id: slice.prompt_id.clone(),
                            layer: slice.layer,
                            seq_len: problem.seq_len,
                            heads: (problem.num_heads, problem.num_kv_heads),
                            head_dim: problem.head_dim,
                            units: profile.units.iter().map(unit).collect(),
                            profile,
                        });
                    }
                    // What the file says that P is held in is a promise; other types are none of its.
                    let promises = slice.probs_type.is_none();
                    diagnose(&problem, Options { promises, ..options })
                }),
                Err(error) => Diagnosis::invalid(error.to_string()),
            };
            for warning in slice.warnings() {
                d.note = if d.note.is_empty() { warning } else { format!("{}. {warning}", d.note) };
            }
            d
        }
    };
    Judged { file, diagnosis, captured }
}

/// A file that is no kv-slice: a case of another stage, or none that can be judged.
fn of_stage(path: &Path, options: Options, error: &SliceError) -> Diagnosis {
    let other_format = matches!(*error.problem, SliceProblem::Format { .. });
    match StageSlice::read(path) {
        Ok(Some(slice)) if other_format => saved::of_stage(&slice, options),
        Err(broken) if other_format => Diagnosis::invalid(broken.to_string()),
        _ => Diagnosis::invalid(error.to_string()),
    }
}

/// Every file, on several threads, in the order given; those not reached when interrupted are left
/// out.
fn judge_all(args: &Args, files: &[PathBuf], quiet: bool, interrupted: &AtomicBool) -> Vec<Judged> {
    let options = Options { pairs: !args.no_pairs, ..Options::default() };
    let profiled = args.json.is_some() || args.report.is_asked();
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    let jobs = args.jobs.unwrap_or(cores).clamp(1, files.len().max(1));
    let bar = ProgressBar::with_draw_target(
        Some(files.len() as u64),
        if quiet || files.len() == 1 {
            ProgressDrawTarget::hidden()
        } else {
            ProgressDrawTarget::stderr()
        },
    );
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} slices, {msg}") {
        bar.set_style(style);
    }
    let (next, results) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while !interrupted.load(Ordering::Relaxed) {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(path) = files.get(index) else { break };
                    let judged = judge(path, options, profiled);
                    // What an interrupt cut short is not judged.
                    if interrupted.load(Ordering::Relaxed) {
                        break;
                    }
                    bar.set_message(headline(&judged.diagnosis));
                    bar.inc(1);
                    results.lock().expect("no thread panicked").push((index, judged));
                }
            });
        }
    });
    bar.finish_and_clear();
    let mut results = results.into_inner().expect("no thread panicked");
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, judged)| judged).collect()
}

/// The table, what is wrong in words, and the verdict last.
fn text(judged: &[Judged], asked: usize) -> String {
    let mut text = String::new();
    if asked > 1 {
        text += &format!("{}\n\n", summary(judged));
    }
    let told = |j: &&Judged| asked == 1 || j.diagnosis.verdict != Verdict::Clean;
    for judged in judged.iter().filter(told) {
        text += &format!("{}\n", describe(judged));
    }
    if let [only] = judged {
        return text + &headline(&only.diagnosis) + "\n";
    }
    let mut counts: BTreeMap<Verdict, usize> = BTreeMap::new();
    judged.iter().for_each(|j| *counts.entry(j.diagnosis.verdict).or_default() += 1);
    let counts: Vec<String> = counts.iter().map(|(v, n)| format!("{n} {}", v.name())).collect();
    let left = asked - judged.len();
    let left = if left > 0 { format!(", {left} not reached") } else { String::new() };
    text + &format!("{} slices: {}{left}\n", judged.len(), counts.join(", "))
}

fn found(judged: &[Judged], asked: usize) -> Found {
    let any = |of: fn(Verdict) -> bool| judged.iter().any(|j| of(j.diagnosis.verdict));
    if any(Verdict::is_fault) {
        Found::Fault
    } else if any(|v| v == Verdict::Invalid) {
        Found::Trouble
    } else if judged.len() < asked {
        Found::Incomplete
    } else {
        Found::Nothing
    }
}
