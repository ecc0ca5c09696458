//! The command line: parse, call, print.
//!
//! Exit status: 0 all is well, 1 a fault was found, 2 the request or the machine was at fault, 3 the
//! answer is incomplete. `--json` prints its document at 0, 1 and 3.

mod attend;
mod bench;
mod common;
mod diagnose;
mod inspect;
mod list;
mod machine;
mod plot;
mod replay;
mod sweep;
mod trace;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// A kernel-level test bench for decode attention.
#[derive(Parser)]
#[command(name = "attnbench", version, about, max_term_width = 100)]
#[command(after_help = statuses(&[
    (0, "all is well"),
    (1, "a fault was found: in a kernel, a slice, a trace or a figure"),
    TROUBLE,
    (3, "the answer is incomplete: no fault was found, and too little was judged to say that there is none, \
         or an interrupt ended the run"),
]))]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Property sweep of kernels against the f64 oracle
    Sweep(Box<sweep::Args>),
    /// Run a saved failing case, or a captured slice, again, bit for bit
    Replay(replay::Args),
    /// Which fault explains the output of a captured slice
    Diagnose(diagnose::Args),
    /// Write the right output of a captured slice beside its inputs
    Attend(attend::Args),
    /// Judge GRETA traces, in the tables of their reports
    Trace(trace::Args),
    /// Build kernels for AMD targets, with no GPU: registers, spills, LDS, occupancy, load widths
    Inspect(inspect::Args),
    /// Time kernels on shapes: microseconds, GB/s, share of what reading alone reaches
    Bench(Box<bench::Args>),
    /// Draw figures from results
    Plot(plot::Args),
    /// The built-in kernels
    #[command(after_help = statuses(&[(0, "the kernels are listed"), TROUBLE]))]
    Kernels,
    /// The devices that kernels can run on
    #[command(after_help = statuses(&[(0, "the devices are listed"), TROUBLE]))]
    Devices,
}

/// The exit status of a command that could not do its work.
const TROUBLE: (u8, &str) = (2, "the request, a file or the machine was at fault");

/// The exit statuses of a command, for its help.
fn statuses(meanings: &[(u8, &str)]) -> String {
    let lines: Vec<String> =
        meanings.iter().map(|(status, meaning)| format!("  {status}  {meaning}")).collect();
    format!("Exit status:\n{}", lines.join("\n"))
}

/// What a command that did its work found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// All is well.
    Nothing,
    /// A fault.
    Fault,
    /// The request or the machine was at fault, and that was said already.
    Trouble,
    /// No fault, and too little was judged to say that there is none.
    Incomplete,
}

impl Found {
    /// The exit status that says it.
    fn status(self) -> u8 {
        match self {
            Found::Nothing => 0,
            Found::Fault => 1,
            Found::Trouble => 2,
            Found::Incomplete => 3,
        }
    }
}

/// Runs the program with the process's arguments.
pub fn main() -> ExitCode {
    // clap ends the process itself: 0 for --help and --version, 2 for a wrong request.
    let args = Args::parse();
    let result = match args.command {
        Command::Sweep(args) => sweep::run(&args),
        Command::Replay(args) => replay::run(&args),
        Command::Diagnose(args) => diagnose::run(&args),
        Command::Attend(args) => attend::run(&args),
        Command::Trace(args) => trace::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Plot(args) => plot::run(&args),
        Command::Kernels => list::kernels(),
        Command::Devices => list::devices(),
    };
    match result {
        Ok(found) => ExitCode::from(found.status()),
        // The interrupt was said already, and there is nothing to show.
        Err(error) if common::is_interrupt(&error) => ExitCode::from(Found::Incomplete.status()),
        Err(error) => {
            common::say(&format!("error: {}", common::in_words(&error)));
            ExitCode::from(Found::Trouble.status())
        }
    }
}
