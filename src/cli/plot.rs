//! `attnbench plot`.

use super::Found;
use super::common::{on_interrupt, print, write_bytes, write_text};
use anyhow::{Context, Result, bail};
use attnbench::report::figures::{self, Figure, KINDS};
use attnbench::report::table::table;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

/// Arguments of `plot`.
#[derive(clap::Args)]
#[command(after_help = super::statuses(&[
    (0, "the figures are drawn"),
    super::TROUBLE,
    (3, "an interrupt ended the drawing: figures are missing"),
]))]
pub struct Args {
    /// Results of sweep, diagnose, trace and bench, as --json writes them
    #[arg(value_name = "RESULT.json", required = true)]
    results: Vec<PathBuf>,
    /// Folder for the figures
    #[arg(long, short, value_name = "DIR")]
    output: PathBuf,
    /// Write each as PNG besides SVG
    #[arg(long)]
    png: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<Found> {
    let interrupted = on_interrupt()?;
    let documents = args.results.iter().map(|path| read(path)).collect::<Result<Vec<_>>>()?;
    let figures = figures::of(&documents);
    if figures.is_empty() {
        bail!(
            "there is nothing to draw in {}: results of older versions have no curves; make them again with --json",
            args.results.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", ")
        );
    }
    let folder = args.output.display();
    std::fs::create_dir_all(&args.output)
        .with_context(|| format!("cannot make the folder {folder}; name one that can be made"))?;
    // Said before the work, not after it.
    tempfile::tempfile_in(&args.output).with_context(|| {
        format!("nothing can be written in {folder}; name a folder of your own with -o")
    })?;
    let mut t = table(&["figure", "finding"]);
    let mut drawn = 0;
    for figure in figures.iter().take_while(|_| !interrupted.load(Ordering::Relaxed)) {
        save(figure, &args.output, args.png)?;
        t.add_row([format!("{}.svg", figure.name), figure.title.clone()]);
        drawn += 1;
    }
    print(&format!("{t}\n{drawn} figures in {folder}\n"))?;
    Ok(if drawn == figures.len() { Found::Nothing } else { Found::Incomplete })
}

/// A result that figures can be drawn from.
fn read(path: &Path) -> Result<Value> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let document: Value = serde_json::from_slice(&bytes)
        .with_context(|| format!("{} is no JSON that attnbench writes", path.display()))?;
    let format = document["format"].as_str().unwrap_or("none");
    let known = KINDS.iter().any(|kind| format == format!("attnbench-{kind}/1"));
    if !known {
        bail!(
            "{}: `format` is {format}; figures are drawn from {}",
            path.display(),
            KINDS.map(|kind| format!("attnbench-{kind}/1")).join(", ")
        );
    }
    Ok(document)
}

fn save(figure: &Figure, folder: &Path, png: bool) -> Result<()> {
    let path = folder.join(format!("{}.svg", figure.name));
    write_text(&path, &figure.svg)?;
    if png {
        let path = folder.join(format!("{}.png", figure.name));
        let bytes = figure.png().map_err(|why| {
            anyhow::anyhow!("cannot draw {}: {why}; leave out --png", path.display())
        })?;
        write_bytes(&path, &bytes)?;
    }
    Ok(())
}
