//! The `ffmesh` command: runs a node, gives it an identity, and asks a running one.
//!
//! [`args`] is the command line, [`commands`] what each command does. Commands about a running node find it with
//! [`place`] and talk to it with [`client`]; everything that is printed goes through [`output`].

mod args;
mod client;
mod commands;
mod config_file;
mod demo;
mod doctor;
mod failure;
mod format;
mod journal;
mod log;
mod output;
mod place;
mod run;
mod watchdog;

use std::process::ExitCode;

use clap::Parser;

use failure::{Failure, Outcome};

fn main() -> ExitCode {
    let cli = args::Cli::parse_from(args::with_up(std::env::args_os().collect()));
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output::error(&failure);
            ExitCode::from(failure.status())
        }
    }
}

fn run(cli: args::Cli) -> Outcome {
    ffmesh_udp::keep_memory();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers())
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("the program cannot start its threads: {error}")))?;
    let outcome = runtime.block_on(commands::run(cli));
    // A thread that waits for stdin ends with the process, not before.
    runtime.shutdown_background();
    outcome
}

/// Threads that run tasks: half of the cores, as the programs at both ends of a flow and the kernel need theirs, too. A flow's
/// tasks wake each other all the time, and on another thread that takes longer than what they do: with one thread on two cores
/// a flow opens in three quarters of the time and for half of the CPU.
fn workers() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| (cores.get() / 2).max(1))
}
