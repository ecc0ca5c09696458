//! `attnbench attend`.

use super::Found;
use super::common::{check_file, check_writable, json_on_stdout, print, write_json};
use anyhow::{Result, bail};
use attnbench::data::slice::KvSlice;
use attnbench::judge::diagnose::attend::attended;
use serde_json::json;
use std::path::PathBuf;

/// Arguments of `attend`.
#[derive(clap::Args)]
#[command(after_help = super::statuses(&[(0, "the file is written"), super::TROUBLE]))]
pub struct Args {
    /// A captured slice
    #[arg(value_name = "SLICE")]
    slice: PathBuf,
    /// The file to write; beside the slice, with `-right` in its name, where none is given
    #[arg(long, short = 'o', value_name = "FILE")]
    output: Option<PathBuf>,
    /// Write the result as JSON to a file, or to standard output for -
    #[arg(long, value_name = "FILE|-")]
    json: Option<PathBuf>,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<Found> {
    if let Some(path) = &args.json {
        check_writable(path)?;
    }
    let slice = KvSlice::read(&args.slice)?;
    let output = args.output.clone().unwrap_or_else(|| {
        let stem = args.slice.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        args.slice.with_file_name(format!("{stem}-right.safetensors"))
    });
    if same_file(&output, &args.slice) {
        bail!("{} is the slice itself; name another file with -o", output.display());
    }
    check_file("-o", &output)?;
    let right = attended(&slice)?;
    right.write(&output)?;
    if let Some(path) = &args.json {
        let lse = right.lse.as_ref().and_then(|t| t.values());
        let mut document = json!({
            "format": "attnbench-attend/1",
            "file": args.slice.display().to_string(),
            "written": output.display().to_string(),
            "num_heads": right.num_heads,
            "seq_lens": right.seq_lens(),
            "lse": lse.as_ref().map(|lse| {
                lse.iter().map(|x| x.is_finite().then_some(*x)).collect::<Vec<_>>()
            }),
        });
        if lse.iter().flatten().any(|x| !x.is_finite()) {
            document["nonfinite"] = json!(true);
        }
        write_json(path, &document)?;
    }
    if !json_on_stdout(args.json.as_deref()) {
        print(&format!("{}: the right out, lse, probs and scores\n", output.display()))?;
    }
    Ok(Found::Nothing)
}

fn same_file(a: &std::path::Path, b: &std::path::Path) -> bool {
    match (a.canonicalize(), b.canonicalize()) {
        (Ok(a), Ok(b)) => a == b,
        _ => false,
    }
}
