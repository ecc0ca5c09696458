//! The program `attnbench`.

mod cli;

use std::process::ExitCode;

use attnbench::device::cpu;

fn main() -> ExitCode {
    // The CPU device runs kernels in a child process, which is this same program.
    let mut args = std::env::args_os().skip(1);
    if args.next().is_some_and(|first| first == cpu::WORKER_ARGUMENT) {
        return cpu::worker_main(args);
    }
    cli::main()
}
