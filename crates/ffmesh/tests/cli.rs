//! The command as its user meets it: output, exit status, what goes to stdout and what to stderr.
//!
//! Commands about a running node talk to a real admin socket with a double behind it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its functions too")]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ffmesh_api as api;
use ffmesh_core::id::NodeId;
use ffmesh_core::reason::Reason;
use ffmesh_core::target::Target;
use ffmesh_node::admin::{self, BoxFuture, Control, OpenFlow};
use ffmesh_node::events::Events;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// How long what does not depend on speed may take.
const PATIENCE: Duration = Duration::from_secs(20);

const COMMANDS: [&str; 21] = [
    "up",
    "demo",
    "check",
    "init",
    "token",
    "join",
    "status",
    "peers",
    "routes",
    "proxies",
    "services",
    "events",
    "flows",
    "ping",
    "trace",
    "speedtest",
    "doctor",
    "console",
    "drain",
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
    assert_refused(&["trace"], 2, &["NODE"]);
    assert_refused(&["trace", "b", "-c", "0"], 2, &["0"]);
    assert_refused(&["speedtest"], 2, &["NODE"]);
    for duration in ["0s", "31s", "3"] {
        assert_refused(&["speedtest", "b", "--duration", duration], 2, &[duration]);
    }
    assert_refused(&["routes", "not.a.name"], 2, &["'.'"]);
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
    for command in ["revoke", "authority"] {
        assert_refused(&[command], 2, &["unrecognized subcommand"]);
    }
}

#[test]
fn a_configuration_that_cannot_be_read_is_status_2() {
    for args in [&["missing.yaml"][..], &["up", "missing.yaml"], &["--state-dir", "/x", "missing.yaml"]] {
        assert_refused(args, 2, &["missing.yaml"]);
    }
    assert_refused(&["doctor"], 2, &["the configuration file is missing"]);
    let output = run(&["doctor", "missing.yaml", "--json"]);
    let findings: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &findings[0]["result"]), (Some(2), &json!("failed")), "{findings}");
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
    for command in ["status", "peers", "routes", "proxies", "flows"] {
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

/// Runs in `dir` with the state directory below it.
fn run_in(dir: &Path, args: &[&str]) -> Output {
    ffmesh(args).current_dir(dir).env("FFMESH_STATE_DIR", dir.join("state")).output().unwrap()
}

#[test]
fn init_writes_a_file_that_is_valid_and_spares_what_exists() {
    let dir = tempfile::tempdir().unwrap();
    let output = run_in(dir.path(), &["init", "a.yaml", "--node", "a", "--listen", "4000", "--mesh", "home"]);
    assert!(output.status.success(), "{}", stderr(&output));
    for part in ["mesh home", "node a", "ffmesh a.yaml", "ffmesh token create --config a.yaml"] {
        assert!(stdout(&output).contains(part), "{part:?} is missing in {}", stdout(&output));
    }
    let file = std::fs::read_to_string(dir.path().join("a.yaml")).unwrap();
    assert!(file.contains("node_id: \"a\"") && file.contains("listen_port: 4000"), "{file}");
    let output = run_in(dir.path(), &["check", "a.yaml"]);
    assert!(output.status.success() && stdout(&output).contains("is valid\n"), "{output:?}");

    // The identity is there: whatever is asked for, nothing changes.
    for name in ["a.yaml", "b.yaml"] {
        let output = run_in(dir.path(), &["init", name]);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
    }
    assert_eq!(std::fs::read_to_string(dir.path().join("a.yaml")).unwrap(), file);
    let mut names: Vec<_> = std::fs::read_dir(&dir).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["a.yaml", "state"]);
}

#[test]
fn init_takes_what_the_file_says_and_leaves_the_file_alone() {
    let dir = tempfile::tempdir().unwrap();
    let text = "node_id: b\nstate_dir: mine # here\nquic: {listen_port: 4001}\n";
    std::fs::write(dir.path().join("b.yaml"), text).unwrap();
    let init = |args: &[&str]| ffmesh(args).current_dir(&dir).output().unwrap();
    assert_eq!(init(&["init", "b.yaml", "--listen", "5000"]).status.code(), Some(2));
    assert_eq!(init(&["init", "b.yaml", "--node", "c"]).status.code(), Some(2));
    let output = init(&["init", "b.yaml", "--json"]);
    let made: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&made["node_id"], &made["listen_port"]), (&json!("b"), &json!(4001)));
    assert_eq!(made["config_written"], false);
    assert!(dir.path().join("mine").is_dir());
    assert_eq!(std::fs::read_to_string(dir.path().join("b.yaml")).unwrap(), text);
}

#[test]
fn init_leaves_nothing_where_the_file_cannot_be_written() {
    let dir = tempfile::tempdir().unwrap();
    let output = run_in(dir.path(), &["init", "missing/a.yaml"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0);
}

#[test]
fn a_token_is_made_without_a_running_node() {
    let dir = tempfile::tempdir().unwrap();
    assert!(run_in(dir.path(), &["init", "a.yaml", "--advertise", "192.0.2.1:3334"]).status.success());
    for args in [&["token", "create", "--json"][..], &["token", "create", "--json", "--config", "a.yaml"]] {
        let output = run_in(dir.path(), args);
        assert!(output.status.success(), "{}", stderr(&output));
        let token: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(token["token"].as_str().unwrap().starts_with("ffm1."), "{token}");
        assert!(token["join"].as_str().unwrap().starts_with("ffmesh join ffm1."), "{token}");
    }
}

#[test]
fn a_token_that_is_none_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let output = run_in(dir.path(), &["join", "nonsense", "b.yaml"]);
    assert!(matches!(output.status.code(), Some(1 | 2)), "{output:?}");
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0, "{output:?}");
}

#[test]
fn join_reads_its_token_from_a_file_and_does_nothing_where_nothing_is_needed() {
    let dir = tempfile::tempdir().unwrap();
    let join = |token: &str, more: &[&str]| run_in(dir.path(), &[&["join", token, "a.yaml"], more].concat());
    let said = |output: &Output| stderr(output).to_owned();
    let output = join("@token", &["--if-needed"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(said(&output).contains("cannot be read from token"), "{output:?}");
    std::fs::write(dir.path().join("token"), "nonsense\n").unwrap();
    assert_eq!(said(&join("@token", &[])), said(&join("nonsense", &[])));

    assert!(run_in(dir.path(), &["init", "a.yaml"]).status.success());
    let output = join("@nowhere", &["--if-needed", "--json"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(serde_json::from_slice::<Value>(&output.stdout).unwrap()["joined"], false);
    assert_eq!(join("@nowhere", &[]).status.code(), Some(1));
}

/// A node that knows `server`, which echoes once the client has ended. What it dials at port 8 is cut.
struct Double(Events);

/// Ids of the flows to the port that echoes, and to the one that is cut.
const ECHOED: u32 = 0;
const CUT: u32 = 1;

impl Control for Double {
    fn status(&self) -> api::Status {
        serde_json::from_value(json!({
            "node_id": "here", "mesh": "home", "version": "0", "started": "2026-01-01T00:00:00Z",
            "config": null, "state_dir": "/", "listen": [], "accepts": false, "links_up": 1,
            "upstreams": 1, "upstreams_up": 1, "sessions": 0, "flows_open": 0, "flows_total": 2,
            "bytes_sent": 1_048_576, "bytes_received": 0, "flow_memory": 0,
            "certificate_expires": "2026-06-01T00:00:00Z", "issuer": false,
            "errors": [{"kind": "flow_failed", "count": 1}, {"kind": "link_down", "count": 3}]
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

    fn routes(&self) -> Vec<api::Route> {
        let route = |node: &str, path: &[&str], state: &str| {
            json!({
                "node_id": node, "path": path, "hops": path.len().saturating_sub(1), "cost_ms": null,
                "state": state, "rtt_ms": null, "loss": null
            })
        };
        serde_json::from_value(json!([
            route("server", &["here", "relay", "server"], "in_use"),
            route("far", &[], "unreachable"),
        ]))
        .unwrap()
    }

    fn proxies(&self) -> Vec<api::Proxy> {
        Vec::new()
    }

    fn flows(&self) -> api::Flows {
        let flow = |n: u32| {
            let reason = if n == ECHOED { "done" } else { "lost" };
            json!({
                "id": n.to_string(), "role": "ingress", "proxy": format!("p{n}"), "peer": "server",
                "target": "127.0.0.1:80", "client": "127.0.0.1:4", "started": "2026-01-01T00:00:00Z",
                "duration_ms": 5, "bytes_up": 1, "bytes_down": 2, "connected": true, "reason": reason,
                "detail": "server restarted"
            })
        };
        let ended: Vec<_> = (0..30).rev().map(flow).collect();
        serde_json::from_value(json!({"open": [], "ended": ended})).unwrap()
    }

    fn metrics(&self) -> String {
        "# EOF\n".to_owned()
    }

    fn history(&self, query: admin::HistoryQuery) -> api::History {
        let step_s = if query.step == api::Step::Minute { 60 } else { 1 };
        api::History { step_s, from: query.from, ..api::History::default() }
    }

    fn ping(&self, node: NodeId) -> BoxFuture<'_, Result<api::Ping, api::Error>> {
        Box::pin(async move { known(node).map(|node_id| api::Ping { node_id, rtt_ms: 1.5, route: vec![] }) })
    }

    fn trace(&self, node: NodeId) -> BoxFuture<'_, Result<api::Trace, api::Error>> {
        Box::pin(async move {
            let rtt = if node.as_str() == "far" { Value::Null } else { json!(1.5) };
            let node_id = if rtt.is_null() { node } else { known(node)? };
            let hop = |node: &str, rtt: &Value| {
                json!({
                    "node_id": node, "rtt_ms": rtt, "link_rtt_ms": rtt, "link_loss": null,
                    "error": rtt.is_null().then_some("no answer\u{1b}[2J")
                })
            };
            let hops = [hop("relay", &json!(0.5)), hop(node_id.as_str(), &rtt)];
            Ok(serde_json::from_value(json!({"node_id": node_id, "hops": hops})).unwrap())
        })
    }

    fn speedtest(
        &self,
        node: NodeId,
        duration: Duration,
    ) -> BoxFuture<'_, Result<api::Speedtest, api::Error>> {
        Box::pin(async move {
            let one_way = json!({"bytes": 7_500_000, "seconds": duration.as_secs(), "mbit_per_s": 20.0});
            Ok(serde_json::from_value(json!({
                "node_id": known(node)?, "up": one_way, "down": one_way, "rtt_idle_ms": 1.5,
                "rtt_loaded_ms": 12.5, "route": ["here", "server"]
            }))
            .unwrap())
        })
    }

    fn open(&self, node: NodeId, target: Target) -> BoxFuture<'_, Result<OpenFlow, api::Error>> {
        Box::pin(async move {
            known(node)?;
            let (near, mut far) = tokio::io::duplex(1024);
            if target.to_string().ends_with(":8") {
                far.write_all(b"a part").await.unwrap();
                return Ok(OpenFlow { id: CUT.to_string(), io: Box::new(near) });
            }
            tokio::spawn(async move {
                let mut all = Vec::new();
                far.read_to_end(&mut all).await.unwrap();
                far.write_all(&all).await.unwrap();
            });
            Ok(OpenFlow { id: ECHOED.to_string(), io: Box::new(near) })
        })
    }

    fn topology(&self) -> BoxFuture<'_, api::Topology> {
        let node = |id: &str, hops: u32| {
            json!({
                "node_id": id, "reachable": true, "hops": hops, "relay": true, "issuer": false, "draining": false,
                "services": []
            })
        };
        let link =
            json!({"a": "here", "b": "server", "own": true, "cost_ms": 1.5, "rtt_ms": null, "loss": null});
        let topology = json!({
            "generation": 3, "nodes": [node("here", 0), node("server", 1)], "links": [link], "paths": []
        });
        Box::pin(async move { serde_json::from_value(topology).unwrap() })
    }

    fn services(&self) -> BoxFuture<'_, Vec<api::Service>> {
        let service = json!({
            "name": "evil\u{1b}[2J", "protocol": "tcp", "node_id": "server", "reachable": true, "address": null,
            "allow": null, "origin": null, "error": null
        });
        Box::pin(async move { serde_json::from_value(json!([service])).unwrap() })
    }

    fn events(&self) -> &Events {
        &self.0
    }

    fn log(&self) -> Vec<api::LogEntry> {
        let line = json!({
            "at": "2026-01-01T00:00:00Z", "level": "INFO", "target": "ffmesh_node", "message": "evil\u{1b}[2J",
            "fields": {"peer": "b"}
        });
        serde_json::from_value(json!([line])).unwrap()
    }

    fn drain(&self) -> api::Drain {
        api::Drain { flows_open: 3, timeout_s: 30 }
    }

    fn create_token(&self, _: api::TokenRequest) -> Result<api::Token, api::Error> {
        let expires = "2026-01-01T01:00:00Z".parse().unwrap();
        Ok(api::Token { token: "ffm1.x".into(), join: "ffmesh join ffm1.x CONFIG.yaml".into(), expires })
    }

    fn config(&self) -> api::Config {
        api::Config {
            path: None,
            applied: "2026-01-01T00:00:00Z".parse().unwrap(),
            values: json!({}),
            warnings: Vec::new(),
            needs_restart: Vec::new(),
        }
    }

    fn reload(&self) -> BoxFuture<'_, Result<api::Reload, api::Error>> {
        Box::pin(async move {
            Ok(api::Reload {
                changed: vec!["proxies.web: changed".to_owned()],
                needs_restart: vec!["quic.mtu".to_owned()],
                failed: vec!["proxy \"web\" cannot listen on 127.0.0.1:80: it is taken".to_owned()],
                warnings: Vec::new(),
            })
        })
    }

    fn put_proxy(
        &self,
        _: Option<String>,
        _: api::ProxySpec,
    ) -> BoxFuture<'_, Result<api::Proxy, api::Error>> {
        Box::pin(async move { Err(api::Error::new("no")) })
    }

    fn remove_proxy(&self, _: String) -> BoxFuture<'_, Result<(), api::Error>> {
        Box::pin(async move { Err(api::Error::new("no")) })
    }

    fn put_service(
        &self,
        _: Option<String>,
        _: api::ServiceSpec,
    ) -> BoxFuture<'_, Result<api::Service, api::Error>> {
        Box::pin(async move { Err(api::Error::new("no")) })
    }

    fn remove_service(&self, _: String) -> BoxFuture<'_, Result<(), api::Error>> {
        Box::pin(async move { Err(api::Error::new("no")) })
    }
}

fn known(node: NodeId) -> Result<NodeId, api::Error> {
    if node.as_str() == "server" {
        return Ok(node);
    }
    Err(api::Error::because(Reason::UnknownNode, format!("no node is called {node}")))
}

struct Node {
    dir: tempfile::TempDir,
    runtime: tokio::runtime::Runtime,
    events: Events,
}

impl Node {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let path = dir.path().join("admin.sock");
        let events = Events::default();
        let double = Arc::new(Double(events.clone()));
        runtime.spawn(async move {
            admin::serve(admin::bind(&path).unwrap(), double, None, std::future::pending()).await;
        });
        let path = dir.path().join("admin.sock");
        while !path.exists() {
            std::thread::yield_now();
        }
        Self { dir, runtime, events }
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
    assert_eq!(node.json(&["routes", "--json"]).as_array().unwrap().len(), 2);
    assert_eq!(node.json(&["services", "--json"])[0]["node_id"], "server");
    assert_eq!(node.json(&["routes", "far", "--json"])[0]["state"], "unreachable");
    assert_eq!(node.json(&["trace", "server", "--json"])["hops"][1]["rtt_ms"], 1.5);
    assert_eq!(node.json(&["flows", "--json", "--limit", "1"])["ended"].as_array().unwrap().len(), 30);
    assert_eq!(node.json(&["ping", "server", "-c", "2", "-i", "0.01", "--json"])["received"], 2);
    assert_eq!(node.json(&["speedtest", "server", "--json"])["up"]["seconds"], 3.0);
    assert_eq!(node.json(&["speedtest", "server", "--duration", "9s", "--json"])["down"]["seconds"], 9.0);
    assert_eq!(node.json(&["token", "create", "--json"])["token"], "ffm1.x");
}

#[test]
fn text_for_a_pipe_has_no_control_characters() {
    let node = Node::start();
    for (command, part) in [
        ("status", "1 of 2 flows (50 %): 1 failed; 3 link_down"),
        ("peers", "evil\\u{1b}[2J"),
        ("routes", "here > relay > server"),
        ("proxies", "no proxies"),
        ("services", "evil\\u{1b}[2J"),
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
fn trace_fails_when_the_node_was_not_reached() {
    let node = Node::start();
    let output = node.run(&["trace", "server"]);
    assert!(output.status.success() && stdout(&output).contains("2  server  1.50 ms"), "{output:?}");
    let output = node.run(&["trace", "far"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stdout(&output).contains("2  far") && stdout(&output).contains("no answer\\u{1b}[2J"),
        "{output:?}"
    );
    let output = node.run(&["trace", "far", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(serde_json::from_slice::<Value>(&output.stdout).unwrap()["hops"][1]["rtt_ms"], Value::Null);
    let output = node.run(&["trace", "stranger"]);
    assert!(output.status.code() == Some(1) && stderr(&output).contains("unknown_node"), "{output:?}");
}

#[test]
fn events_are_lines_until_the_node_ends() {
    let node = Node::start();
    let drain = |flows_open| api::Change::Drain { flows_open };
    let first_lines = |args: &[&str]| {
        let mut child = node.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // It is told of what happens once it is there.
        let begin = Instant::now();
        while !node.events.is_watched() {
            assert!(begin.elapsed() < PATIENCE);
            std::thread::yield_now();
        }
        node.events.publish(api::Change::Sample(api::Sample::default()));
        node.events.publish(api::Change::Proxy { name: "evil\u{1b}[2J".to_owned() });
        node.events.publish(drain(3));
        let read: Vec<_> =
            lines.by_ref().take(if args.contains(&"drain") { 1 } else { 2 }).map(Result::unwrap).collect();
        (child, read)
    };
    let (mut child, lines) = first_lines(&["events"]);
    assert!(lines[0].ends_with("proxy evil\\u{1b}[2J changed"), "{lines:?}");
    assert!(lines[1].ends_with("draining, 3 flows are open"), "{lines:?}");
    child.kill().unwrap();
    child.wait().unwrap();
    while node.events.is_watched() {
        node.events.publish(drain(0)); // the node finds out by writing that the client is gone
        std::thread::yield_now();
    }
    let (child, lines) = first_lines(&["events", "--json", "--kinds", "drain"]);
    let event: Value = serde_json::from_str(&lines[0]).unwrap();
    assert_eq!((&event["kind"], &event["flows_open"]), (&json!("drain"), &json!(3)));
    let Node { runtime, .. } = node;
    runtime.shutdown_background();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("may have stopped"), "{}", stderr(&output));
}

#[test]
fn events_of_a_kind_that_there_is_not_are_wrong_usage() {
    for kinds in ["peers", "peer&after=0", "peer,foo"] {
        assert_refused(&["events", "--kinds", kinds], 2, &["there are peer, node"]);
    }
    assert_refused(&["events", "--kinds", ","], 2, &["expected words"]);
}

#[test]
fn reload_fails_when_not_all_could_be_done_or_the_file_is_wrong() {
    let node = Node::start();
    let output = node.run(&["reload"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(
        stdout(&output),
        "changed: proxies.web: changed\ntakes a restart: quic.mtu\n\
         failed, trying on: proxy \"web\" cannot listen on 127.0.0.1:80: it is taken\n"
    );
    let output = node.run(&["reload", "--json"]);
    let reload: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &reload["needs_restart"]), (Some(1), &json!(["quic.mtu"])));
    std::fs::write(node.dir.path().join("bad.yaml"), "watch: 1\nprxies: []\n").unwrap();
    let output = node.run(&["reload", "--config", "bad.yaml"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(
        stderr(&output).contains("\nbad.yaml:1:8: watch: ") && stderr(&output).contains("\nbad.yaml:2:1: ")
    );
    let output = node.run(&["reload", "--config", "bad.yaml", "--json"]);
    let error: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &error["problems"][1]["line"]), (Some(1), &json!(2)));
}

#[test]
fn routes_to_a_node_that_nobody_knows_are_none_and_status_1() {
    let node = Node::start();
    let output = node.run(&["routes", "stranger"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).contains("no node stranger is known"), "{output:?}");
    let output = node.run(&["routes", "stranger", "--json"]);
    assert_eq!((output.status.code(), stdout(&output).trim()), (Some(1), "[]"));
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
fn nc_fails_when_its_flow_was_cut_whatever_stdin_does() {
    let node = Node::start();
    for stdin in [Stdio::null(), Stdio::piped()] {
        let mut command = node.command(&["nc", "server", "127.0.0.1:8"]);
        let mut child = command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let held = child.stdin.take();
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), stdout(&output)), (Some(1), "a part"), "{output:?}");
        assert_eq!(stderr(&output), "error: lost: server restarted\n");
        drop(held);
    }
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
