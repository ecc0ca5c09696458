//! `attnbench trace`.

use super::Found;
use super::common::{ReportTo, check_writable, command_line, json_on_stdout, print, write_json};
use anyhow::Result;
use attnbench::data::trace::read;
use attnbench::judge::trace::{Judge, compare, note_pairs};
use attnbench::report::trace::{self, Report};
use std::path::PathBuf;

/// Arguments of `trace`.
#[derive(clap::Args)]
#[command(
    after_help = "Exit status: 0 no fault; 1 a row is explained or unexplained, or two files \
together prove a kernel wrong; 2 an event is invalid, or a file cannot be judged."
)]
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
    let (mut rows, mut skipped) = (Vec::new(), Vec::new());
    for (i, file) in args.files.iter().enumerate() {
        let mut judge = Judge::new(i);
        skipped.push(read(file, &mut |entry| judge.add(entry))?);
        rows.extend(judge.finish());
    }
    let names = names(&args.files);
    let pairs = compare(&rows);
    note_pairs(&mut rows, &pairs, &names);
    let files = args.files.iter().map(|f| f.display().to_string()).collect();
    let report = Report { names, files, skipped, rows, pairs };
    let mut document = report.json();
    document["command"] = command_line().into();
    if let Some(path) = &args.json {
        write_json(path, &document)?;
    }
    args.report.write(&document)?;
    if !json_on_stdout(args.json.as_deref()) {
        print(&report.text())?;
    }
    Ok(match report.worst() {
        trace::Found::Nothing => Found::Nothing,
        trace::Found::Fault => Found::Fault,
        trace::Found::Invalid => Found::Trouble,
    })
}

/// A short name for each file: its stem where these differ, else the path as given.
fn names(files: &[PathBuf]) -> Vec<String> {
    let stem = |f: &PathBuf| f.file_stem().unwrap_or(f.as_os_str()).to_string_lossy().into_owned();
    let stems: Vec<String> = files.iter().map(stem).collect();
    let all_differ = (1..stems.len()).all(|i| !stems[..i].contains(&stems[i]));
    if all_differ { stems } else { files.iter().map(|f| f.display().to_string()).collect() }
}
