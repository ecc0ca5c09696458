//! The command line.

use std::process::ExitCode;

use attnbench::device::cpu;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    if args.next().is_some_and(|first| first == cpu::WORKER_ARGUMENT) {
        return cpu::worker_main(args);
    }
    ExitCode::from(2)
}
