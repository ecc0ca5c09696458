//! `attnbench trace`.

use super::Found;
use super::common::{
    ReportTo, all_of, check_writable, command_line, json_on_stdout, on_interrupt, print, write_json,
};
use anyhow::Result;
use attnbench::data::trace::{Skipped, TraceError, read};
use attnbench::judge::trace::{Judge, compare, note_pairs};
use attnbench::report::trace::{self, Report};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

/// Arguments of `trace`.
#[derive(clap::Args)]
#[command(after_help = super::statuses(&[
    (0, "no fault"),
    (1, "a row is explained or unexplained, or two files together prove a kernel wrong"),
    (2, "an event is invalid, a file cannot be judged, or the request or the machine was at fault"),
    (3, "an interrupt ended the reading, and no row so far is at fault"),
]))]
pub struct Args {
    /// GRETA traces, one JSON object a line; two are set side by side
    #[arg(value_name = "FILE.jsonl", required = true)]
    files: Vec<PathBuf>,
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
    let interrupted = on_interrupt()?;
    let (mut rows, mut skipped) = (Vec::new(), Vec::new());
    let mut whole = true;
    for (i, file) in args.files.iter().enumerate() {
        let mut judge = Judge::new(i);
        let passed_over = judge_file(file, &mut judge, interrupted)?;
        whole &= passed_over.is_some();
        skipped.push(passed_over.unwrap_or_default());
        rows.extend(judge.finish());
    }
    let names = names(&args.files);
    let pairs = compare(&rows);
    note_pairs(&mut rows, &pairs, &names);
    let files = args.files.iter().map(|f| f.display().to_string()).collect();
    let report = Report { names, files, skipped, rows, pairs };
    let mut document = report.json();
    document["command"] = command_line().into();
    let quiet = json_on_stdout(args.json.as_deref());
    all_of([
        args.json.as_deref().map_or(Ok(()), |path| write_json(path, &document)),
        args.report.write(&document),
        if quiet { Ok(()) } else { print(&report.text()) },
    ])?;
    Ok(match report.worst() {
        trace::Found::Fault => Found::Fault,
        _ if !whole => Found::Incomplete,
        trace::Found::Nothing => Found::Nothing,
        trace::Found::Invalid => Found::Trouble,
    })
}

/// Judges the events of a file; `None` where an interrupt came before its end. Another thread reads,
/// which may wait for a pipe.
fn judge_file(
    file: &Path,
    judge: &mut Judge,
    interrupted: &AtomicBool,
) -> Result<Option<Skipped>, TraceError> {
    let (sender, entries) = sync_channel(ENTRIES_AHEAD);
    let file = file.to_owned();
    let reader = std::thread::spawn(move || {
        // A judge that does not listen any more has been interrupted.
        read(&file, &mut |entry| _ = sender.send(entry))
    });
    while !interrupted.load(Ordering::Relaxed) {
        match entries.recv_timeout(LOOK_AGAIN) {
            Ok(entry) => judge.add(entry),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                return reader.join().expect("reading does not panic").map(Some);
            }
        }
    }
    Ok(None)
}

/// Events that are read before they are judged.
const ENTRIES_AHEAD: usize = 64;

/// How often to look for an interrupt while a file is waited for.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// A short name for each file: its stem where these differ, else the path as given.
fn names(files: &[PathBuf]) -> Vec<String> {
    let stem = |f: &PathBuf| f.file_stem().unwrap_or(f.as_os_str()).to_string_lossy().into_owned();
    let stems: Vec<String> = files.iter().map(stem).collect();
    let all_differ = (1..stems.len()).all(|i| !stems[..i].contains(&stems[i]));
    if all_differ { stems } else { files.iter().map(|f| f.display().to_string()).collect() }
}
