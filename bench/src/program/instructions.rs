//! Instructions per operation, counted by valgrind: the same on every run, whatever else the machine does.
//!
//! Each operation is counted done N and 2 N times; the difference, divided by N, has no start or set-up in it.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use ffmesh_bench::operations::{OPERATIONS, Operation};
use ffmesh_lab::run as run_command;
use serde::{Deserialize, Serialize};

use crate::program::args::InstructionsArgs;

/// How many more than written down are a regression: hash seeds, and variants of the C library's copying for
/// different processors, make up to one percent.
const TOLERANCE: f64 = 0.03;
/// One run under valgrind, some fifty times slower than without.
const LIMIT: Duration = Duration::from_mins(5);

/// The file of counts.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Counts {
    /// Which compiler made the program: another one makes other instructions
    compiler: String,
    instructions: BTreeMap<String, u64>,
}

/// Counts, and compares with the file or writes it. Whether nothing has become worse.
pub(crate) fn run(args: &InstructionsArgs) -> Result<bool, String> {
    if Command::new("valgrind").arg("--version").output().is_err() {
        return Err("valgrind is not installed; Debian has it in the package valgrind".to_owned());
    }
    let mut counts = Counts { compiler: compiler(), ..Counts::default() };
    let old = if args.write { Counts::default() } else { load(&args.file)? };
    if !args.write && old.compiler != counts.compiler {
        eprintln!("bench: the counts in the file are of {}, these of {}", old.compiler, counts.compiler);
    }
    println!("| operation | instructions | before | |\n| --- | ---: | ---: | --- |");
    let mut worse = false;
    for operation in OPERATIONS {
        let count = count(&operation)?;
        counts.instructions.insert(operation.name.to_owned(), count);
        let before = old.instructions.get(operation.name).copied();
        let verdict = before.map_or("", |before| verdict(before, count));
        worse |= verdict == WORSE;
        let before = before.map_or("-".to_owned(), |before| before.to_string());
        println!("| {} | {count} | {before} | {verdict} |", operation.name);
    }
    if args.write {
        let text = serde_json::to_string_pretty(&counts).map_err(|e| e.to_string())?;
        std::fs::write(&args.file, text + "\n")
            .map_err(|e| format!("can't write {}: {e}", args.file.display()))?;
    }
    Ok(!worse)
}

/// Does an operation so many times: what valgrind looks at.
pub(crate) fn operation(name: &str, times: u32) -> Result<(), String> {
    let operation = OPERATIONS.iter().find(|operation| operation.name == name).ok_or("no such operation")?;
    let mut job = operation.prepare().map_err(|e| format!("can't {name}: {e}"))?;
    (0..times).for_each(|_| job());
    Ok(())
}

const WORSE: &str = "**WORSE**";

fn verdict(before: u64, now: u64) -> &'static str {
    #[allow(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    let ratio = now as f64 / before as f64;
    if ratio > 1.0 + TOLERANCE {
        WORSE
    } else if ratio < 1.0 - TOLERANCE {
        "better: --write it down"
    } else {
        ""
    }
}

fn load(file: &Path) -> Result<Counts, String> {
    let text = std::fs::read_to_string(file).map_err(|e| format!("can't read {}: {e}", file.display()))?;
    serde_json::from_str(&text).map_err(|e| format!("{} has no counts: {e}", file.display()))
}

fn compiler() -> String {
    let mut command = Command::new("rustc");
    command.arg("--version");
    run_command(command, Duration::from_secs(10)).stdout.trim().to_owned()
}

fn count(operation: &Operation) -> Result<u64, String> {
    let once = total(operation, operation.times)?;
    let twice = total(operation, 2 * operation.times)?;
    Ok(twice.saturating_sub(once) / u64::from(operation.times))
}

fn total(operation: &Operation, times: u32) -> Result<u64, String> {
    let program = std::env::current_exe().map_err(|e| format!("can't find this program: {e}"))?;
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(program);
    command.args(["operation", operation.name, &times.to_string()]);
    let outcome = run_command(command, LIMIT);
    let collected = |line: &str| line.split_once("Collected : ")?.1.trim().parse().ok();
    outcome
        .stderr
        .lines()
        .find_map(collected)
        .filter(|_| outcome.is_success())
        .ok_or_else(|| format!("valgrind failed: {}", outcome.stderr.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_more_are_none() {
        assert_eq!(verdict(1000, 1030), "");
        assert_eq!(verdict(1000, 1031), WORSE);
        assert!(verdict(1000, 960).starts_with("better"));
    }
}
