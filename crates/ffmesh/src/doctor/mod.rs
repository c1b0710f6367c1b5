//! `ffmesh doctor`: what usually goes wrong on a machine, and what to do.
//!
//! Each file gathers the facts of one subject and judges them; the judgements are functions of the facts. Nothing is
//! changed, and everything ends within [`LIMIT`]. Where the node runs, it is asked for what only it knows.

mod finding;
mod identity;
mod machine;
mod ports;
mod probe;
mod upstream;

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::time::Duration;

use ffmesh_core::text::escape;
use ffmesh_node::config::Config;
use ffmesh_node::identity::Credentials;
use ffmesh_node::state::StateDir;
use tokio::task::JoinSet;

use crate::args::Show;
use crate::client::Client;
use crate::failure::{Failure, Outcome};
use crate::place::Node;
use crate::{output, place};
use finding::{Finding, Verdict};

/// How long the node and upstreams may take, each with several steps of their own.
const LIMIT: Duration = Duration::from_secs(14);

/// Looks, and prints what it found. Exit status 1 when something failed, 2 when the configuration has errors.
pub(crate) async fn doctor(argument: Option<PathBuf>, show: &Show) -> Outcome {
    let file = place::file(argument, &show.choice)?;
    let mut findings = Vec::new();
    let loaded = match Config::load(&file) {
        Ok(loaded) => loaded,
        Err(problems) => {
            let advice = format!("correct it; `ffmesh check {}` shows the same", file.display());
            findings.push(Finding::failed("configuration", problems.to_string(), advice));
            print(&findings, show.json)?;
            return Err(Failure::silent(2));
        }
    };
    let state = place::state_dir(&show.choice, Some(&loaded.config))?;
    findings.push(configuration(&file.display().to_string(), &loaded.warnings));
    let (config, node) = (loaded.config.clone(), Node { state, config: Some(loaded.config) });

    findings.extend(identity::directory(&node.state));
    let credentials = Credentials::load(&node.state);
    findings.extend(identity::certificate(&credentials, config.node_id.as_ref()));
    let runs = place::is_running(&node.state) || is_held(&node.state);
    let peers = if runs { asked(&node, &mut findings).await } else { None };
    if !runs {
        findings.push(Finding::skipped("node", "it is not running: what only it knows is left out"));
    }
    findings.extend(ports::ports(&config, &node.state, runs));
    findings.extend(upstreams(&config, credentials.ok(), peers.as_deref()).await);
    findings.extend(machine::machine(&config));
    print(&findings, show.json)?;
    let failed = findings.iter().any(|finding| finding.result == Verdict::Failed);
    if failed { Err(Failure::silent(1)) } else { Ok(()) }
}

fn configuration(file: &str, warnings: &[ffmesh_node::config::Problem]) -> Finding {
    if warnings.is_empty() {
        return Finding::ok("configuration", format!("{file} is valid"));
    }
    let list: Vec<_> = warnings.iter().map(ToString::to_string).collect();
    Finding::warning("configuration", list.join("\n"), "correct it, or leave out what has no effect")
}

/// Whether a process has the directory. One that the lock file names and that does not hold it has its number by chance.
fn is_held(state: &StateDir) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let Ok(lock) = std::fs::metadata(state.path().join("lock")) else { return false };
    let inode = format!(":{} ", lock.ino());
    let locked = std::fs::read_to_string("/proc/locks")
        .map_or(true, |locks| locks.lines().any(|line| line.contains(&inode)));
    locked && state.is_held()
}

/// The neighbours of the node that runs, as it says.
async fn asked(node: &Node, findings: &mut Vec<Finding>) -> Option<Vec<ffmesh_api::Peer>> {
    if !place::is_running(&node.state) {
        let found = format!("it is running, and {} does not answer", node.state.admin_socket().display());
        findings.push(Finding::failed("node", found, "see its log; restart it"));
        return None;
    }
    let client = Client::new(node);
    match tokio::time::timeout(LIMIT, client.get::<Vec<ffmesh_api::Peer>>("peers")).await {
        Ok(Ok((_, peers))) => {
            findings.push(Finding::ok("node", "it is running and answers"));
            Some(peers)
        }
        Ok(Err(failure)) => {
            findings.push(Finding::failed("node", failure.message(), "see its log"));
            None
        }
        Err(_) => {
            let found = format!("its admin socket exists, and gives no answer within {LIMIT:?}");
            findings.push(Finding::failed("node", found, "see its log; restart it"));
            None
        }
    }
}

/// All upstreams at once.
async fn upstreams(
    config: &Config,
    credentials: Option<Credentials>,
    peers: Option<&[ffmesh_api::Peer]>,
) -> Vec<Finding> {
    let dialler = credentials.as_ref().and_then(|credentials| upstream::Dialler::new(credentials, config));
    let mut checks = JoinSet::new();
    for (order, upstream) in config.quic.upstreams.iter().cloned().enumerate() {
        let peer =
            peers.and_then(|peers| peers.iter().find(|peer| peer.node_id == upstream.node_id)).cloned();
        let (dialler, mtu) = (dialler.clone(), config.quic.mtu);
        checks.spawn(async move {
            let name = upstream::name(&upstream);
            let checked = upstream::check(upstream, mtu, dialler, peer);
            let found = tokio::time::timeout(LIMIT, checked).await;
            let late = || vec![Finding::skipped(name, format!("not done within {LIMIT:?}"))];
            (order, found.unwrap_or_else(|_| late()))
        });
    }
    let mut found = checks.join_all().await;
    found.sort_by_key(|(order, _)| *order);
    found.into_iter().flat_map(|(_, findings)| findings).collect()
}

fn print(findings: &[Finding], json: bool) -> Outcome {
    if json {
        return output::json(&findings);
    }
    let colour = std::io::stdout().is_terminal() && output::colour_wanted();
    for finding in findings {
        output::line(&text(finding, colour))?;
    }
    let count = |verdict| findings.iter().filter(|finding| finding.result == verdict).count();
    let (failed, warnings) = (count(Verdict::Failed), count(Verdict::Warning));
    let plural = if warnings == 1 { "" } else { "s" };
    output::line(&format!("\n{failed} failed, {warnings} warning{plural}, {} ok", count(Verdict::Ok)))
}

fn text(finding: &Finding, colour: bool) -> String {
    let (word, code) = match finding.result {
        Verdict::Ok => ("ok", "32"),
        Verdict::Warning => ("warning", "33"),
        Verdict::Failed => ("FAILED", "31"),
        Verdict::Skipped => ("skipped", "90"),
    };
    let word = format!("{word:<8}");
    let word = if colour { format!("\x1b[{code}m{word}\x1b[0m") } else { word };
    let mut text = format!("{word} {}: ", escape(&finding.name));
    let lines: Vec<_> = finding.found.lines().map(escape).collect();
    text += &lines.join("\n           ");
    if let Some(advice) = &finding.advice {
        text += "\n         → ";
        text += &escape(advice);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_says_what_to_do_and_is_fit_for_a_terminal() {
        let finding = Finding::failed("port", "taken\u{1b}[2J\nby x", "stop it");
        assert_eq!(
            text(&finding, false),
            "FAILED   port: taken\\u{1b}[2J\n           by x\n         → stop it"
        );
        let json = serde_json::to_value(&finding).unwrap();
        assert_eq!(json["result"], "failed");
        assert!(serde_json::to_value(Finding::ok("a", "b")).unwrap()["advice"].is_null());
    }
}
