//! `attnbench bench`.

use super::Found;
use super::common::{
    ReportTo, all_of, check_writable, command_line, drivable, json_on_stdout, on_interrupt, print,
    registry, say, write_json,
};
use super::machine::Machine;
use super::sweep::parse_time;
use anyhow::{Result, bail};
use attnbench::bench::document::{self, Document, Method, Row};
use attnbench::bench::shapes::{self, Shape};
use attnbench::bench::stats::Change;
use attnbench::bench::{Bench, Options, WARM, compare, share};
use attnbench::device::cpu::CpuConfig;
use attnbench::device::interrupt;
use attnbench::kernel::Manifest;
use attnbench::problem::{DTypes, Layout};
use attnbench::report::bench as tables;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Arguments of `bench`.
#[derive(clap::Args)]
#[command(after_help = super::statuses(&[
    (0, "what was asked for was timed"),
    (1, "a kernel is wrong, faster than the memory allows, or with --compare slower than it was"),
    (2, "the request, a file or the machine was at fault, or no row could be timed"),
    (3, "an interrupt ended the bench, and no row so far is at fault"),
]))]
pub struct Args {
    /// Built-in kernels by name, or paths of manifests; all built-in ones of stage decode where none is
    /// given
    #[arg(value_name = "KERNEL|MANIFEST.toml")]
    kernels: Vec<String>,
    /// Shapes: names or sets of them (peers, own), models (llama3-8b, mistral-7b@8x4096), or one id;
    /// again for more [default: peers; on the CPU llama8b_b1_206]
    #[arg(long, value_name = "NAME,…|ID")]
    shapes: Vec<String>,
    /// How K and V lie, where a shape does not say it [default: NHD, or the kernel's first]
    #[arg(long, value_name = "LAYOUT,…", value_delimiter = ',')]
    layout: Vec<Layout>,
    /// Element types in place of the shapes' own: of the cache (bf16), or of q, cache and out
    #[arg(long)]
    dtype: Option<DTypes>,
    /// Where to run: auto (hip, then cuda, then cpu), cpu, hip[:N] or cuda[:N]
    #[arg(long, env = "ATTNBENCH_DEVICE", hide_env_values = true, default_value = "auto")]
    device: String,
    /// Rounds over the kernels, each on buffers allocated anew
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Timed replays a round
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=1000))]
    replays: u32,
    /// Time every value of every tunable, besides what the kernel's rule chooses
    #[arg(long)]
    tune: bool,
    /// An earlier result: says of each row whether it is faster, slower, the same or unclear, and ends
    /// with status 1 where one is slower
    #[arg(long, value_name = "OLD.json")]
    compare: Option<PathBuf>,
    /// What differs by no more is the same, percent
    #[arg(long, value_name = "PERCENT", default_value_t = 2.0)]
    tolerance: f64,
    /// Results of others on the same shapes (benches/peers): prints them side by side
    #[arg(long, value_name = "PEERS.json")]
    with: Vec<PathBuf>,
    /// Take this result in place of measuring
    #[arg(long, value_name = "RESULT.json", conflicts_with_all = ["kernels", "shapes", "layout", "dtype", "rounds", "replays", "seed", "tune"])]
    from: Option<PathBuf>,
    /// Seed of the data
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Time limit of one call
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_time)]
    time_limit: Duration,
    /// Write the result as JSON to a file, or to standard output for -
    #[arg(long, value_name = "FILE|-")]
    json: Option<PathBuf>,
    #[command(flatten)]
    report: ReportTo,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<Found> {
    if !(args.tolerance > 0.0 && args.tolerance < 100.0) {
        bail!("--tolerance {}: write a percentage between 0 and 100", args.tolerance);
    }
    // What cannot be read is said before any work.
    let old = args.compare.as_deref().map(Document::read).transpose()?;
    let mut peers = Vec::new();
    let mut devices_of_peers = Vec::new();
    for file in &args.with {
        let document = Document::read(file)?;
        devices_of_peers.push(document.device.name);
        peers.extend(document.rows);
    }
    if let Some(path) = &args.json {
        check_writable(path)?;
    }
    args.report.check()?;
    let quiet = json_on_stdout(args.json.as_deref());
    let mut document = match &args.from {
        Some(file) => Document::read(file)?,
        None => measure(args, quiet)?,
    };
    if !args.with.is_empty() {
        document.peers = peers;
    }
    document.versus = compare::versus(&document.rows, &document.peers);
    if let Some(old) = &old {
        document.changes = compare::changes(&document.rows, old, args.tolerance / 100.0);
    }
    let value = serde_json::to_value(&document)?;
    let json = args.json.as_deref().map_or(Ok(()), |path| write_json(path, &value));
    let report = args.report.write(&value);
    // Last: a terminal that was closed keeps back no file.
    let mut printed = Ok(());
    if !quiet {
        printed = print(&text(&document, old.as_ref()));
        for name in devices_of_peers.iter().filter(|name| **name != document.device.name) {
            say(&format!(
                "warning: others' figures are of {name}, and these of {}: what differs need not be the \
                 kernel",
                document.device.name
            ));
        }
    }
    all_of([json, report, printed])?;
    Ok(found(&document))
}

/// The kernels and shapes that are asked for, measured.
fn measure(args: &Args, quiet: bool) -> Result<Document> {
    let registry = registry()?;
    let all: Vec<String> = registry.names().map(str::to_owned).collect();
    let mut kernels: Vec<Manifest> = Vec::new();
    for name in if args.kernels.is_empty() { &all } else { &args.kernels } {
        let manifest = drivable(&registry, name)?.manifest;
        let is_default = manifest.stage == attnbench::problem::Stage::Decode;
        match (args.kernels.is_empty(), Bench::times(&manifest)) {
            (true, _) if is_default => kernels.push(manifest),
            (true, _) => {}
            (false, true) => kernels.push(manifest),
            (false, false) => bail!(
                "{name}: bench times what reads a cache (stages decode, scores, pv), and this is stage \
                 `{}`",
                manifest.stage
            ),
        }
    }
    let device = Machine::open(&args.device, CpuConfig::from_env())?;
    let default = if device.is_gpu() { "peers" } else { "llama8b_b1_206" };
    let mut shapes: Vec<Shape> = Vec::new();
    let lists: Vec<&str> = match &args.shapes[..] {
        [] => vec![default],
        given => given.iter().map(String::as_str).collect(),
    };
    for list in lists {
        shapes.extend(shapes::parse(list)?);
    }
    if let Some(dtypes) = args.dtype {
        shapes.iter_mut().for_each(|shape| shape.case.dtypes = dtypes);
    }
    if !quiet {
        print(&format!("device {}, seed {}\n", device.describe_choice(), args.seed))?;
    }
    let interrupted = on_interrupt()?;
    let options = Options {
        rounds: args.rounds,
        replays: args.replays,
        seed: args.seed,
        time_limit: args.time_limit,
        layouts: args.layout.clone(),
        all_params: args.tune,
    };
    let mut bench = Bench::new(&kernels, registry.helpers()?, &|| device.another(), options)?;
    let bar = progress(shapes.len() as u64);
    bench.read()?;
    let mut rows: Vec<Row> = Vec::new();
    for shape in &shapes {
        if interrupted.load(Ordering::Relaxed) {
            break;
        }
        bar.set_message(shape.name.clone());
        rows.extend(bench.shape(shape));
        bar.inc(1);
    }
    let ceiling = match bench.ceiling() {
        Err(error) if error.is_interrupt() => None,
        ceiling => ceiling?,
    };
    bar.finish_and_clear();
    share(&mut rows, ceiling.as_ref());
    Ok(Document {
        format: document::FORMAT.to_owned(),
        program: "attnbench".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        command: command_line(),
        seed: args.seed,
        device: device.facts(),
        method: Method {
            clock: if device.is_gpu() { "device" } else { "host" }.to_owned(),
            rounds: args.rounds,
            replays: args.replays,
            warm: WARM,
        },
        ceiling,
        rows,
        ..Document::default()
    })
}

/// What is printed: the tables, and the verdict last.
fn text(document: &Document, old: Option<&Document>) -> String {
    let mut text = tables::rows(document);
    text.push_str(&tables::telemetry(document));
    if document.method.clock == "host" {
        text.push_str(
            "timed by the host's clock on the CPU device, which imitates a GPU thread by thread: no figure \
             here is a GPU's\n",
        );
    }
    if !document.peers.is_empty() {
        text.push_str(&tables::versus(document));
        if document.versus.is_empty() {
            text.push_str("no shape and layout of these rows is among the others'\n");
        }
    }
    if let Some(old) = old {
        if old.device.name != document.device.name {
            text.push_str(&format!(
                "then it was another device ({}): what changed need not be the kernel\n",
                old.device.name
            ));
        }
        match document.changes.is_empty() {
            true => text.push_str("no row of the earlier result is of the same kernel and shape\n"),
            false => text.push_str(&tables::changes(&document.changes)),
        }
    }
    text.push_str(&verdict(document));
    text
}

fn verdict(document: &Document) -> String {
    let count = |verdict: &str| document.rows.iter().filter(|r| r.verdict == verdict).count();
    let mut parts = vec![format!("{} timed", count("right"))];
    for (verdict, words) in [
        ("wrong", "wrong and not timed"),
        ("impossible", "faster than the memory allows"),
        ("refused", "not timed"),
    ] {
        if count(verdict) > 0 {
            parts.push(format!("{} {words}", count(verdict)));
        }
    }
    for change in [Change::Faster, Change::Slower, Change::Same, Change::Unclear] {
        let n = document.changes.iter().filter(|c| c.change == change).count();
        if n > 0 {
            parts.push(format!("{n} {}", change.name()));
        }
    }
    format!("{}\n", parts.join(", "))
}

fn found(document: &Document) -> Found {
    let any = |verdict: &str| document.rows.iter().any(|row| row.verdict == verdict);
    let slower = document.changes.iter().any(|change| change.change == Change::Slower);
    if any("wrong") || any("impossible") || slower {
        Found::Fault
    } else if interrupt::is_requested() {
        Found::Incomplete
    } else if any("right") {
        Found::Nothing
    } else {
        Found::Trouble
    }
}

fn progress(shapes: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(shapes), ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("bench {bar:30} {pos}/{len} {elapsed} {msg}");
    if let Ok(style) = style {
        bar.set_style(style);
    }
    bar
}
