//! A mesh of thousands of FFMesh control planes on one virtual clock, all of it out of one seed.
//!
//! `cargo run --release -p sim -- --nodes 1000 --degree 4 --seed 7` starts a random regular mesh, changes it one
//! change at a time (a link goes down and comes up, a node crashes and restarts, a node joins, the mesh falls
//! in halves and heals), leaves it alone, and says how long the tables took and what was sent. After each change all
//! tables are compared with what an oracle says; a run that fails prints the command that repeats it.
//!
//! - [`world`]: nodes, links, the event heap
//! - [`topology`]: who is linked with whom
//! - [`run`]: the changes, and what is measured
//! - [`oracle`]: what the tables must say
//! - [`alone`]: one node of a mesh that is too large to run as a whole
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "its report is its output")]

mod alone;
mod keys;
mod oracle;
mod report;
mod run;
mod topology;
mod world;

use std::error::Error;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;

use crate::run::Plan;
use crate::world::Network;

/// Runs a whole mesh of control planes on a virtual clock and reports convergence, traffic and memory.
#[derive(Debug, Parser)]
#[command(name = "sim", max_term_width = 100)]
struct Arguments {
    /// Nodes at the start
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(2..=50_000))]
    nodes: u32,
    /// Links of each node
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(2..=64))]
    degree: u32,
    /// What all that is random comes from: one seed, one run
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// Longest delay of a link one way, in ms; the shortest is a twentieth of it
    #[arg(long, default_value_t = 20)]
    delay: u64,
    /// Packets lost on links, in per mille; each costs its message a retransmission
    #[arg(long, default_value_t = 0)]
    loss: u64,
    /// A change is noticed by each neighbour within so many ms
    #[arg(long, default_value_t = 250)]
    detection: u64,
    /// How many times each kind of change is made
    #[arg(long, default_value_t = 5)]
    changes: usize,
    /// Members that send forged, old and broken records every second
    #[arg(long, default_value_t = 0)]
    liars: usize,
    /// Seconds at rest at the end, over which traffic is counted; in two hours all records are refreshed
    #[arg(long, default_value_t = 7200, value_parser = clap::value_parser!(u64).range(1..))]
    steady: u64,
    /// Only one node, that takes in the records of all others: for meshes too large to run as a whole
    #[arg(long)]
    alone: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let arguments = Arguments::parse();
    let (nodes, degree) = (arguments.nodes as usize, arguments.degree as usize);
    let start = Instant::now();
    let report = if arguments.alone {
        alone::run(nodes, degree, arguments.seed)?
    } else {
        run::run(Plan {
            nodes,
            degree,
            seed: arguments.seed,
            network: Network {
                delay: Duration::from_millis(arguments.delay.max(1)),
                loss: arguments.loss.min(900),
                detection: Duration::from_millis(arguments.detection),
            },
            changes: arguments.changes,
            liars: arguments.liars,
            steady: Duration::from_secs(arguments.steady),
        })?
    };
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        println!("{nodes} nodes of degree {degree}, seed {}", arguments.seed);
        println!("{}", report.table());
        println!("took {:.1} s", start.elapsed().as_secs_f64());
    }
    for line in report.over() {
        eprintln!("over its limit: {}", line.what);
    }
    for failure in &report.failures {
        eprintln!("wrong: {failure}");
    }
    if report.failures.is_empty() && report.over().next().is_none() {
        return Ok(ExitCode::SUCCESS);
    }
    let words: Vec<String> = std::env::args().skip(1).collect();
    eprintln!("again: cargo run --release -p sim -- {}", words.join(" "));
    Ok(ExitCode::FAILURE)
}
