//! `attnbench replay`.

use super::Found;
use super::common::{
    Sanitize, check_writable, drivable, json_on_stdout, print, registry, time_limit, write_json,
};
use super::machine::Machine;
use super::sweep::parse_time;
use anyhow::{Result, bail};
use attnbench::device::Lanes;
use attnbench::device::cpu::Variant;
use attnbench::judge::diagnose::Options;
use attnbench::judge::diagnose::failing::of_failure;
use attnbench::judge::replay::load;
use attnbench::judge::sanitize::Found as Checked;
use attnbench::judge::trial::{Outcome, Trial};
use attnbench::report::diagnose::headline;
use attnbench::report::json::{REPLAY_FORMAT, SavedFailure, case_fields, failure};
use attnbench::report::table;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Arguments of `replay`.
#[derive(clap::Args)]
pub struct Args {
    /// A case that a sweep saved, or a captured slice
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The kernel, where the file names none, or another than it names
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
    let mut recorded = load(&args.file)?;
    let Some(kernel) = args.kernel.clone().or_else(|| recorded.kernel.clone()) else {
        bail!("{} names no kernel; give one with --kernel", args.file.display());
    };
    let manifest = Arc::new(drivable(&registry()?, &kernel)?);
    if recorded.is_capture() {
        if !manifest.stage.takes_slices() {
            bail!(
                "{}: a captured decode step does not hold what stage `{}` of {} reads; give a \
                 kernel of another stage with --kernel",
                args.file.display(),
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
    let lanes = args.sanitize.lanes.unwrap_or(manifest.device.lanes);
    let told = config.variant == Variant::Checked || lanes == Lanes::Lockstep;
    let limit = time_limit(args.time_limit, told);
    let device = Machine::open(&args.device, config)?;
    // The data are the file's own: no captured slice is named.
    let captured = Arc::default();
    let mut trial = Trial::new(Arc::clone(&manifest), captured, device.another_with(lanes), limit);
    trial.grow_time_limit(args.time_limit.is_none());
    let replayed = recorded.replay(&mut trial)?;

    let case = &recorded.case;
    let diagnosis = match &replayed.outcome {
        Outcome::Failed(f) if f.property.starts_with("oracle") => {
            of_failure(case, &f.buffers, trial.arithmetic(case), Options::default())
        }
        _ => None,
    };
    let (verdict, found) = match &replayed.outcome {
        Outcome::Passed(_) => ("pass", Found::Nothing),
        Outcome::Failed(_) => ("fail", Found::Fault),
        Outcome::Vacuous(_) => ("vacuous", Found::Fault),
    };
    if let Some(path) = &args.json {
        let fields = match &replayed.outcome {
            Outcome::Failed(f) => {
                Value::Object(failure(case, f, diagnosis.as_ref(), &SavedFailure::default()))
            }
            _ => Value::Null,
        };
        let document = json!({
            "format": REPLAY_FORMAT, "device": device.describe(), "kernel": manifest.name,
            "file": args.file.display().to_string(), "verdict": verdict, "case": case_fields(case),
            "id": case.to_string(), "same_bits": replayed.same_bits, "failure": fields,
        });
        write_json(path, &document)?;
    }
    if !json_on_stdout(args.json.as_deref()) {
        let line = |m: &Checked| {
            let what = if m.is_note() { "note" } else { m.class().name() };
            format!("  {what:7} {}\n", m.words)
        };
        let text = match &replayed.outcome {
            Outcome::Passed(p) => format!(
                "{}PASS: largest error {} of its bound over {} runs\n",
                p.notes.iter().map(line).collect::<String>(),
                table::ratio(p.ratio, true),
                p.runs
            ),
            Outcome::Vacuous(what) => {
                format!("VACUOUS: the check would not see {what} on this case\n")
            }
            Outcome::Failed(f) => {
                let bits = match replayed.same_bits {
                    Some(true) => "  bits    the same as saved\n",
                    Some(false) => {
                        "  bits    not the same as saved: the kernel, the compiler or the device changed\n"
                    }
                    None => "",
                };
                let fault = diagnosis.as_ref().map(|d| format!("  fault   {}\n", headline(d)));
                let fault = fault.unwrap_or_default();
                let more = f.found.iter().filter(|found| found.words != f.detail);
                let more: String = more.map(line).collect();
                format!("  what    {}\n{more}{fault}{bits}FAIL: {}\n", f.detail, f.property)
            }
        };
        print(&format!("{} on {}\n  case    {case}\n{text}", manifest.name, device.describe()))?;
    }
    Ok(found)
}
