//! The command line: parse, call, print.
//!
//! Exit status: 0 all is well, 1 a fault was found, 2 the request or the machine was at fault.

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
    Kernels,
    /// The devices that kernels can run on
    Devices,
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
        Ok(Found::Nothing) => ExitCode::SUCCESS,
        Ok(Found::Fault) => ExitCode::from(1),
        Ok(Found::Trouble) => ExitCode::from(2),
        Err(error) => {
            eprintln!("error: {}", common::in_words(&error));
            ExitCode::from(2)
        }
    }
}
