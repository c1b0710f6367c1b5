//! What the programs in `bench/` are asked for.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Measures FFMesh. See bench/README.md.
#[derive(Debug, Parser)]
#[command(name = "bench")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Put loads through FFMesh, and through whichever peers are installed (root)
    Run(RunArgs),
    /// Show what a results file holds
    Table { file: PathBuf },
    /// Compare two results: exits with 1 where a row has become worse than chance explains
    Compare(CompareArgs),
    /// Curves: what FFMesh does with more relays, flows, openers, peers (root)
    Scale(ScaleArgs),
    /// Count instructions per operation, and compare with what is written down (valgrind)
    Instructions(InstructionsArgs),
    /// The echo service that loads use
    #[command(hide = true)]
    Echo { address: SocketAddr },
    /// One operation again and again, for valgrind
    #[command(hide = true)]
    Operation { name: String, times: u32 },
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Rows to measure, by key or what keys begin with: bulk, relay.up1, ping (all)
    #[arg(long, value_delimiter = ',')]
    pub(crate) rows: Vec<String>,
    /// List the keys of all rows and end
    #[arg(long)]
    pub(crate) list: bool,
    /// Candidates: plain, ffmesh, haproxy-tls, ssh, rathole-tls, dumbpipe, hysteria2 (all that are installed)
    #[arg(long, value_delimiter = ',')]
    pub(crate) candidates: Vec<String>,
    /// FFMesh alone, without peers
    #[arg(long, conflicts_with = "candidates")]
    pub(crate) alone: bool,
    /// Repetitions; the table has their medians
    #[arg(long, default_value_t = 3)]
    pub(crate) reps: usize,
    /// Seconds of each transfer; over the lossy line at least 8
    #[arg(long, default_value_t = 3)]
    pub(crate) seconds: u32,
    /// The program to measure (the one of the same build)
    #[arg(long, value_name = "PATH")]
    pub(crate) ffmesh: Option<PathBuf>,
    /// One more build of FFMesh, beside the first
    #[arg(long, value_name = "NAME=PATH", value_parser = named_path)]
    pub(crate) also: Vec<(String, PathBuf)>,
    /// Where to look for peers' programs before PATH
    #[arg(long, value_name = "DIR")]
    pub(crate) bin: Vec<PathBuf>,
    /// Congestion control of TCP in the namespaces (the system's)
    #[arg(long, value_name = "NAME")]
    pub(crate) congestion: Option<String>,
    /// Results as JSON; added to where the file exists (target/bench-DATE.json)
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct CompareArgs {
    pub(crate) old: PathBuf,
    pub(crate) new: PathBuf,
    /// Whose figures to take of OLD
    #[arg(long, default_value = "ffmesh")]
    pub(crate) old_candidate: String,
    /// Whose figures to take of NEW
    #[arg(long, default_value = "ffmesh")]
    pub(crate) new_candidate: String,
}

#[derive(Debug, Args)]
pub(crate) struct ScaleArgs {
    /// Curves: relays, flows, opens, peers (all)
    #[arg(value_parser = ["relays", "flows", "opens", "peers"])]
    pub(crate) curves: Vec<String>,
    /// The program to measure (the one of the same build)
    #[arg(long, value_name = "PATH")]
    pub(crate) ffmesh: Option<PathBuf>,
    /// The most peers; each is a process of some 10 MiB
    #[arg(long, default_value_t = 300)]
    pub(crate) peers: usize,
    /// Seconds of each transfer
    #[arg(long, default_value_t = 4)]
    pub(crate) seconds: u32,
}

#[derive(Debug, Args)]
pub(crate) struct InstructionsArgs {
    /// The counts to compare with
    #[arg(long, value_name = "FILE", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/instructions.json"))]
    pub(crate) file: PathBuf,
    /// Write the counts there instead
    #[arg(long)]
    pub(crate) write: bool,
}

fn named_path(text: &str) -> Result<(String, PathBuf), String> {
    let (name, path) = text.split_once('=').ok_or("NAME=PATH is wanted")?;
    Ok((name.to_owned(), path.into()))
}
