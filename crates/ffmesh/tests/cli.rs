//! The command as its user meets it: output, exit status, what goes to stdout and what to stderr.
//!
//! Commands about a running node talk to a real admin socket with a double behind it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its functions too")]

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use ffmesh_api as api;
use ffmesh_core::id::NodeId;
use ffmesh_core::reason::Reason;
use ffmesh_core::target::Target;
use ffmesh_node::admin::{self, BoxFuture, Control, FlowIo};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const COMMANDS: [&str; 13] = [
    "up",
    "demo",
    "check",
    "init",
    "token",
    "join",
    "status",
    "peers",
    "proxies",
    "flows",
    "ping",
    "nc",
    "completion",
];

fn ffmesh(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ffmesh"));
    command.args(args).stdin(Stdio::null());
    for name in ["FFMESH_STATE_DIR", "FFMESH_LOG", "NOTIFY_SOCKET"] {
        command.env_remove(name);
    }
    command
}

fn run(args: &[&str]) -> Output {
    ffmesh(args).output().unwrap()
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

#[track_caller]
fn assert_refused(args: &[&str], status: i32, words: &[&str]) {
    let output = run(args);
    assert_eq!(output.status.code(), Some(status), "{args:?}: {}", stderr(&output));
    assert!(output.stdout.is_empty(), "{args:?} printed {}", stdout(&output));
    for word in words {
        assert!(stderr(&output).contains(word), "{args:?} does not say {word:?}: {}", stderr(&output));
    }
}

#[test]
fn tells_its_version() {
    let output = run(&["--version"]);
    assert_eq!(stdout(&output), format!("ffmesh {}\n", env!("CARGO_PKG_VERSION")));
    assert!(output.status.success());
}

#[test]
fn every_command_has_help_with_examples() {
    for args in
        COMMANDS.map(|command| vec![command, "--help"]).into_iter().chain([vec!["token", "create", "--help"]])
    {
        let output = run(&args);
        assert!(output.status.success(), "{args:?}");
        if args[0] != "token" || args.len() == 3 {
            assert!(stdout(&output).contains("Examples:"), "{args:?}: {}", stdout(&output));
        }
    }
    let output = run(&["--help"]);
    for command in COMMANDS {
        assert!(stdout(&output).contains(&format!("\n  {command} ")), "{command} is not in the help");
    }
}

#[test]
fn a_misspelled_command_is_corrected() {
    assert_refused(&["staus"], 2, &["status"]);
    assert_refused(&["tokn", "create"], 2, &["token"]);
}

#[test]
fn wrong_usage_is_status_2() {
    assert_refused(&[], 2, &["Usage"]);
    assert_refused(&["ping"], 2, &["NODE"]);
    assert_refused(&["ping", "not.a.name"], 2, &["'.'"]);
    assert_refused(&["nc", "b", "no-port"], 2, &["has no port"]);
    assert_refused(&["token", "create", "--ttl", "5"], 2, &["expected a number with a unit"]);
    assert_refused(&["token", "create", "--uses", "0"], 2, &["0"]);
    assert_refused(&["init", "x.yaml", "--listen", "0"], 2, &["0"]);
    assert_refused(&["init", "x.yaml", "--advertise", "host"], 2, &["has no port"]);
    assert_refused(&["init"], 2, &["configuration file is missing"]);
    assert_refused(&["up", "a.yaml", "--config", "b.yaml"], 2, &["two configuration files"]);
    assert_refused(&["completion", "cmd.exe"], 2, &["bash"]);
}

#[test]
fn commands_of_later_versions_do_not_pretend_to_exist() {
    for command in ["routes", "services", "trace", "speedtest", "reload", "drain", "revoke", "authority"] {
        assert_refused(&[command], 2, &["unrecognized subcommand"]);
    }
}

#[test]
fn a_configuration_that_cannot_be_read_is_status_2() {
    for args in [&["missing.yaml"][..], &["up", "missing.yaml"], &["--state-dir", "/x", "missing.yaml"]] {
        assert_refused(args, 2, &["missing.yaml"]);
    }
    let output = run(&["check", "missing.yaml", "--json"]);
    assert_eq!(output.status.code(), Some(2));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["ok"], report["errors"].as_array().unwrap().len()), (&json!(false), 1));
    assert!(output.stderr.is_empty());
}

#[test]
fn a_valid_configuration_is_status_0() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.yaml");
    std::fs::write(&file, "node_id: a\n").unwrap();
    let output = run(&["check", file.to_str().unwrap()]);
    assert!(output.status.success() && stdout(&output).contains("is valid"), "{output:?}");
    let output = run(&["check", "--config", file.to_str().unwrap(), "--json"]);
    assert_eq!(serde_json::from_slice::<Value>(&output.stdout).unwrap()["ok"], true);
}

#[test]
fn without_credentials_up_names_the_two_ways_to_them() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.yaml");
    std::fs::write(&file, "node_id: a\n").unwrap();
    let output = ffmesh(&["a.yaml", "--state-dir", "state"]).current_dir(&dir).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    for word in ["ffmesh init a.yaml", "ffmesh join TOKEN a.yaml"] {
        assert!(stderr(&output).contains(word), "{}", stderr(&output));
    }
    let output = ffmesh(&["a.yaml", "--log-level", "loud"]).current_dir(&dir).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
}

#[test]
fn completion_is_a_script_and_survives_a_closed_pipe() {
    for shell in ["bash", "zsh", "fish"] {
        let output = run(&["completion", shell]);
        assert!(output.status.success() && stdout(&output).contains("proxies"), "{shell}");
    }
    let mut child = ffmesh(&["completion", "bash"]).stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert!(child.wait().unwrap().success());
}

#[test]
fn where_no_node_runs_it_says_how_to_start_one() {
    let dir = tempfile::tempdir().unwrap();
    for command in ["status", "peers", "proxies", "flows"] {
        let output = ffmesh(&[command, "--json", "--state-dir", dir.path().to_str().unwrap()])
            .current_dir(&dir)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(output.stdout.is_empty());
        assert!(
            stderr(&output).contains("no node is running") && stderr(&output).contains("ffmesh CONFIG.yaml")
        );
    }
}

/// A node that knows `server`, which echoes once the client has ended.
struct Double;

impl Control for Double {
    fn status(&self) -> api::Status {
        serde_json::from_value(json!({
            "node_id": "here", "mesh": "home", "version": "0", "started": "2026-01-01T00:00:00Z",
            "config": null, "state_dir": "/", "listen": [], "accepts": false, "links_up": 1,
            "upstreams": 1, "upstreams_up": 1, "sessions": 0, "flows_open": 0, "flows_total": 2,
            "bytes_sent": 1_048_576, "bytes_received": 0, "flow_memory": 0,
            "certificate_expires": "2026-06-01T00:00:00Z", "issuer": false,
            "errors": [{"kind": "refused", "count": 1}]
        }))
        .unwrap()
    }

    fn peers(&self) -> Vec<api::Peer> {
        serde_json::from_value(json!([{
            "node_id": "server", "name": "evil\u{1b}[2J", "state": "up", "address": "192.0.2.1:3334",
            "dialled": true, "since": "2026-01-01T00:00:00Z", "rtt_ms": 1.25, "loss": 0.0, "groups": [],
            "relay": true, "last_error": null
        }]))
        .unwrap()
    }

    fn proxies(&self) -> Vec<api::Proxy> {
        Vec::new()
    }

    fn flows(&self) -> api::Flows {
        let flow = |n: u32| {
            json!({
                "id": n.to_string(), "role": "ingress", "proxy": format!("p{n}"), "peer": "server",
                "target": "127.0.0.1:80", "client": "127.0.0.1:4", "started": "2026-01-01T00:00:00Z",
                "duration_ms": 5, "bytes_up": 1, "bytes_down": 2, "connected": true, "reason": "refused",
                "detail": null
            })
        };
        let ended: Vec<_> = (0..30).rev().map(flow).collect();
        serde_json::from_value(json!({"open": [], "ended": ended})).unwrap()
    }

    fn ping(&self, node: NodeId) -> BoxFuture<'_, Result<api::Ping, api::Error>> {
        Box::pin(async move { known(node).map(|node_id| api::Ping { node_id, rtt_ms: 1.5, route: vec![] }) })
    }

    fn open(&self, node: NodeId, _: Target) -> BoxFuture<'_, Result<Box<dyn FlowIo>, api::Error>> {
        Box::pin(async move {
            known(node)?;
            let (near, mut far) = tokio::io::duplex(1024);
            tokio::spawn(async move {
                let mut all = Vec::new();
                far.read_to_end(&mut all).await.unwrap();
                far.write_all(&all).await.unwrap();
            });
            Ok(Box::new(near) as Box<dyn FlowIo>)
        })
    }

    fn create_token(&self, _: api::TokenRequest) -> Result<api::Token, api::Error> {
        let expires = "2026-01-01T01:00:00Z".parse().unwrap();
        Ok(api::Token { token: "ffm1.x".into(), join: "ffmesh join ffm1.x CONFIG.yaml".into(), expires })
    }
}

fn known(node: NodeId) -> Result<NodeId, api::Error> {
    if node.as_str() == "server" {
        return Ok(node);
    }
    Err(api::Error { error: format!("no node is called {node}"), reason: Some(Reason::UnknownNode) })
}

struct Node {
    dir: tempfile::TempDir,
    _runtime: tokio::runtime::Runtime,
}

impl Node {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let path = dir.path().join("admin.sock");
        runtime.spawn(async move {
            admin::serve(admin::bind(&path).unwrap(), Arc::new(Double), std::future::pending()).await;
        });
        let path = dir.path().join("admin.sock");
        while !path.exists() {
            std::thread::yield_now();
        }
        Self { dir, _runtime: runtime }
    }

    fn command(&self, args: &[&str]) -> Command {
        let dir: &Path = self.dir.path();
        let mut command = ffmesh(args);
        command.arg("--state-dir").arg(dir).current_dir(dir);
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    #[track_caller]
    fn json(&self, args: &[&str]) -> Value {
        let output = self.run(args);
        assert!(output.status.success() && output.stderr.is_empty(), "{args:?}: {output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

#[test]
fn with_json_stdout_is_json_and_nothing_else() {
    let node = Node::start();
    let status = node.json(&["status", "--json"]);
    assert_eq!((&status["node_id"], &status["peers"][0]["rtt_ms"]), (&json!("here"), &json!(1.25)));
    assert_eq!(node.json(&["peers", "--json"])[0]["node_id"], "server");
    assert_eq!(node.json(&["proxies", "--json"]), json!([]));
    assert_eq!(node.json(&["flows", "--json", "--limit", "1"])["ended"].as_array().unwrap().len(), 30);
    assert_eq!(node.json(&["ping", "server", "-c", "2", "-i", "0.01", "--json"])["received"], 2);
    assert_eq!(node.json(&["token", "create", "--json"])["token"], "ffm1.x");
}

#[test]
fn text_for_a_pipe_has_no_control_characters() {
    let node = Node::start();
    for (command, part) in [
        ("status", "1 refused (50.00 in 100 flows)"),
        ("peers", "evil\\u{1b}[2J"),
        ("proxies", "no proxies"),
        ("flows", "p29"),
    ] {
        let output = node.run(&[command]);
        assert!(output.status.success(), "{output:?}");
        assert!(!stdout(&output).contains('\u{1b}'), "{command}: {output:?}");
        assert!(stdout(&output).contains(part), "{command}: {}", stdout(&output));
    }
}

#[test]
fn flows_come_newest_last_and_the_rest_is_announced() {
    let node = Node::start();
    let output = node.run(&["flows"]);
    let lines: Vec<_> = stdout(&output).lines().collect();
    assert_eq!(lines.len(), 21);
    assert!(lines[1].contains("p10 ") && lines[20].contains("p29 "), "{lines:#?}");
    assert_eq!(stderr(&output), "10 more ended: --limit 0 shows all\n");
    assert_eq!(stdout(&node.run(&["flows", "--limit", "0"])).lines().count(), 31);
}

#[test]
fn ping_fails_when_nothing_comes_back() {
    let node = Node::start();
    let output = node.run(&["ping", "server", "-c", "1"]);
    assert!(
        output.status.success() && stdout(&output).contains("1 sent, 1 received, 0 % lost"),
        "{output:?}"
    );
    let output = node.run(&["ping", "stranger", "-c", "1", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["replies"][0]["error"]["reason"], "unknown_node");
}

#[test]
fn nc_ends_each_direction_alone() {
    let node = Node::start();
    let mut child = node
        .command(&["nc", "server", "127.0.0.1:7"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let sent: Vec<u8> = (0..1_000_000_u32).map(|i| i.to_le_bytes()[0]).collect();
    child.stdin.take().unwrap().write_all(&sent).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(output.stdout == sent, "{} bytes came back of {}", output.stdout.len(), sent.len());
}

#[test]
fn nc_says_why_it_was_refused() {
    let node = Node::start();
    let output = node.run(&["nc", "stranger", "127.0.0.1:7"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    assert!(stderr(&output).contains("unknown_node"), "{}", stderr(&output));
}

#[test]
fn token_prints_the_command_alone_on_stdout() {
    let node = Node::start();
    let output = node.run(&["token", "create"]);
    assert_eq!(stdout(&output), "ffmesh join ffm1.x CONFIG.yaml\n");
    assert!(stderr(&output).contains("works once"));
}
