//! The program `attnbench`.

mod cli;

use std::process::ExitCode;

use attnbench::device::{self, cpu, gpu};

fn main() -> ExitCode {
    // The devices run and compile kernels in child processes, which are this same program.
    let mut args = std::env::args_os().skip(1);
    match args.next().as_ref().and_then(|first| first.to_str()) {
        Some(cpu::WORKER_ARGUMENT) => cpu::worker_main(args),
        Some(gpu::WORKER_ARGUMENT) => gpu::worker_main(args),
        Some(gpu::COMPILER_ARGUMENT) => gpu::compiler_main(args),
        _ => {
            device::keep_freed_memory();
            cli::main()
        }
    }
}
