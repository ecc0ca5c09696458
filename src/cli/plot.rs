//! `attnbench plot`.

use super::Found;
use super::common::print;
use anyhow::{Context, Result, bail};
use attnbench::report::figures::{self, Figure, KINDS};
use attnbench::report::table::table;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Arguments of `plot`.
#[derive(clap::Args)]
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
    let documents = args.results.iter().map(|path| read(path)).collect::<Result<Vec<_>>>()?;
    let figures = figures::of(&documents);
    if figures.is_empty() {
        bail!(
            "there is nothing to draw in {}: results of older versions have no curves; make them again with --json",
            args.results.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", ")
        );
    }
    std::fs::create_dir_all(&args.output)
        .with_context(|| format!("cannot make the folder {}", args.output.display()))?;
    let mut t = table(&["figure", "finding"]);
    for figure in &figures {
        save(figure, &args.output, args.png)?;
        t.add_row([format!("{}.svg", figure.name), figure.title.clone()]);
    }
    print(&format!("{t}\n{} figures in {}\n", figures.len(), args.output.display()))?;
    Ok(Found::Nothing)
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
    std::fs::write(&path, &figure.svg)
        .with_context(|| format!("cannot write {}", path.display()))?;
    if png {
        let path = folder.join(format!("{}.png", figure.name));
        if let Err(why) = figure.png(&path) {
            bail!("cannot write {}: {why}", path.display());
        }
    }
    Ok(())
}
