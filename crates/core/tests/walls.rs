//! The wall around this crate: it decides and does no I/O, so that a whole mesh runs in one test on one clock.

use std::fs;
use std::path::{Path, PathBuf};

/// What no source of this crate says, and why not.
const FORBIDDEN: [(&str, &str); 17] = [
    ("tokio", "tasks belong to the node"),
    (".await", "the core is asked and answers; it never waits"),
    ("async fn", "the core is asked and answers; it never waits"),
    ("Instant", "callers pass the time in"),
    ("SystemTime", "callers pass the time in"),
    ("Timestamp::now", "callers pass the time in"),
    ("TcpStream", "sockets belong to the node"),
    ("TcpListener", "sockets belong to the node"),
    ("UdpSocket", "sockets belong to the node"),
    ("UnixStream", "sockets belong to the node"),
    ("ToSocketAddrs", "names are resolved by the node"),
    ("std::fs", "files belong to the node"),
    ("std::env", "the environment belongs to the command"),
    ("std::process", "the core runs nothing"),
    ("std::thread", "the core runs in its caller's thread"),
    ("rand::", "callers pass random numbers in, so that a seed repeats a run"),
    ("RandomState", "the order of its entries differs from run to run; a HashMap's must not show either"),
];

/// Crates that this one may be built on. Each more is a decision.
const DEPENDENCIES: [&str; 5] = ["serde", "serde_json", "thiserror", "ipnet", "data-encoding"];

#[test]
fn no_source_reads_a_clock_or_opens_anything() {
    let mut sources = Vec::new();
    collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut sources);
    assert!(!sources.is_empty());
    let mut broken = Vec::new();
    for path in sources {
        let text = fs::read_to_string(&path).unwrap();
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            for (word, reason) in FORBIDDEN {
                if code.contains(word) {
                    broken.push(format!("{}:{}: {word}: {reason}", path.display(), number + 1));
                }
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn it_is_built_on_nothing_that_does_io() {
    let manifest = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).unwrap();
    let section = manifest.split("[dependencies]").nth(1).unwrap().split("\n[").next().unwrap();
    let names =
        section.lines().filter_map(|line| line.split(['.', ' ', '=']).next()).filter(|name| !name.is_empty());
    for name in names.filter(|name| !name.starts_with('#')) {
        assert!(DEPENDENCIES.contains(&name), "{name} is new: say in docs/decisions/ why the core needs it");
    }
}

fn collect(dir: &Path, sources: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("a directory of sources") {
        let path = entry.expect("a source").path();
        if path.is_dir() {
            collect(&path, sources);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            sources.push(path);
        }
    }
}
