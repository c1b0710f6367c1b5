//! A real node: the program with a configuration file and a state directory of its own.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use ffmesh_api::{Flow, Flows, Peer, PeerState, Proxy, Role, Route, RouteState, Status, Token};
use ffmesh_core::reason::Reason;
use serde::de::DeserializeOwned;

use crate::net::Net;
use crate::process::{Outcome, Process, run};
use crate::wait::{until, until_some};

/// How long a command of the program may take: `join` tries several addresses.
const COMMAND_LIMIT: Duration = Duration::from_secs(40);
/// How long a node may take to start.
const START_LIMIT: Duration = Duration::from_secs(10);
/// How long a node may take to stop without flows.
const STOP_LIMIT: Duration = Duration::from_secs(10);
/// How long the record of an ended flow may take to appear.
const RECORD_LIMIT: Duration = Duration::from_secs(3);

/// A node in a namespace. Its process, if it runs, is killed when this is dropped.
#[derive(Debug)]
pub struct Node {
    program: PathBuf,
    net: Net,
    id: String,
    dir: PathBuf,
    open_files: Option<u32>,
    process: Option<Process>,
}

impl Node {
    /// Writes a node's configuration to `dir`: `node_id`, `state_dir`, and what `yaml` adds.
    pub(crate) fn new(program: &Path, net: &Net, id: &str, dir: &Path, yaml: &str) -> Self {
        std::fs::create_dir_all(dir).expect("make the node's directory");
        let node = Self {
            program: program.to_owned(),
            net: net.clone(),
            id: id.to_owned(),
            dir: dir.to_owned(),
            open_files: None,
            process: None,
        };
        node.configure(yaml);
        node
    }

    /// Writes the configuration anew, for the next start.
    pub fn configure(&self, yaml: &str) {
        let state = self.state_dir();
        let whole = format!("node_id: \"{}\"\nstate_dir: {}\n{yaml}", self.id, state.display());
        std::fs::write(self.config(), whole).expect("write the configuration");
    }

    /// Processes of this node may open this many files from its next start on.
    pub fn limit_open_files(&mut self, count: u32) {
        self.open_files = Some(count);
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its namespace.
    pub fn net(&self) -> &Net {
        &self.net
    }

    /// Its configuration file.
    pub fn config(&self) -> PathBuf {
        self.dir.join("config.yaml")
    }

    /// Its state directory.
    pub fn state_dir(&self) -> PathBuf {
        self.dir.join("state")
    }

    /// Runs the program in the node's namespace with these arguments and no others.
    ///
    /// # Panics
    /// When it does not end.
    pub fn run(&self, arguments: &[&str]) -> Outcome {
        let mut command = self.net.command(&self.program.to_string_lossy());
        command.args(arguments);
        run(command, COMMAND_LIMIT)
    }

    /// Runs a command that talks to this node, chosen by `--config`.
    pub fn ask(&self, arguments: &[&str]) -> Outcome {
        let config = self.config();
        self.run(&[arguments, &["--config", &config.to_string_lossy()]].concat())
    }

    /// Founds a mesh.
    ///
    /// # Panics
    /// When that fails.
    pub fn init(&self, arguments: &[&str]) {
        let config = self.config();
        let outcome = self.run(&[&["init", &config.to_string_lossy()], arguments].concat());
        assert!(outcome.is_success(), "{}: init failed: {}", self.id, outcome.said());
    }

    /// Makes a token.
    ///
    /// # Panics
    /// When that fails.
    pub fn token(&self, arguments: &[&str]) -> String {
        self.json::<Token>(&[&["token", "create"], arguments].concat()).token
    }

    /// Enrols this node with a token.
    pub fn try_join(&self, token: &str) -> Outcome {
        let config = self.config();
        self.run(&["join", token, &config.to_string_lossy()])
    }

    /// Enrols this node with a token.
    ///
    /// # Panics
    /// When that fails.
    pub fn join(&self, token: &str) {
        let outcome = self.try_join(token);
        assert!(outcome.is_success(), "{}: join failed: {}", self.id, outcome.said());
    }

    /// Starts the node, the seed's way: `ffmesh CONFIG`. Does not wait.
    pub fn spawn(&mut self) {
        let program = self.program.to_string_lossy().into_owned();
        let mut command = match self.open_files {
            None => self.net.command(&program),
            Some(count) => {
                let mut shell = self.net.command("sh");
                shell.args(["-c", &format!("ulimit -n {count} && exec \"$0\" \"$@\""), &program]);
                shell
            }
        };
        command.arg(self.config());
        // What people set on their machines must not change what tests see.
        for name in ["FFMESH_STATE_DIR", "RUST_LOG", "NOTIFY_SOCKET"] {
            command.env_remove(name);
        }
        self.process = Some(Process::start(&self.id, command, &self.dir.join("log")));
    }

    /// Starts the node and waits until it answers.
    ///
    /// # Panics
    /// When it ends, or does not answer in time.
    pub fn start(&mut self) {
        self.spawn();
        self.wait_ready();
    }

    /// Waits until the node answers on its admin socket.
    ///
    /// # Panics
    /// When it ends, or does not answer in time.
    pub fn wait_ready(&mut self) {
        let what = format!("{} is ready", self.id);
        until(&what, START_LIMIT, || {
            assert!(self.is_running(), "{} ended at its start:\n{}", self.id, self.log());
            self.ask(&["status", "--json"]).is_success()
        });
    }

    /// Whether its process runs.
    pub fn is_running(&mut self) -> bool {
        self.process.as_mut().is_some_and(Process::is_running)
    }

    /// Its process.
    ///
    /// # Panics
    /// When it was not started.
    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("the node was started")
    }

    /// Stops it with SIGTERM.
    ///
    /// # Panics
    /// When it does not stop in time.
    pub fn stop(&mut self) -> ExitStatus {
        let id = self.id.clone();
        self.process().terminate();
        self.process().wait(STOP_LIMIT).unwrap_or_else(|| panic!("{id} did not stop within {STOP_LIMIT:?}"))
    }

    /// Kills it with SIGKILL.
    pub fn kill(&mut self) {
        self.process().kill();
    }

    /// What it has logged, in all of its runs.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    /// How long its log is, to look only at what comes later.
    pub fn log_len(&self) -> usize {
        self.log().len()
    }

    /// Waits until one line of the log after `from` holds all of `words` (in any case of letters) and returns it.
    ///
    /// # Panics
    /// When none does in time.
    pub fn wait_log(&self, from: usize, words: &[&str]) -> String {
        let holds = |line: &str| {
            let line = line.to_lowercase();
            words.iter().all(|word| line.contains(&word.to_lowercase()))
        };
        let what = format!("{} logs a line with {words:?}", self.id);
        until_some(&what, RECORD_LIMIT, || {
            let log = self.log();
            log.get(from..)?.lines().find(|line| holds(line)).map(str::to_owned)
        })
    }

    /// What a command prints with `--json`.
    ///
    /// # Panics
    /// When it fails or prints something else.
    pub fn json<T: DeserializeOwned>(&self, arguments: &[&str]) -> T {
        let outcome = self.ask(&[arguments, &["--json"]].concat());
        assert!(outcome.is_success(), "{}: {arguments:?} failed: {}", self.id, outcome.said());
        serde_json::from_str(&outcome.stdout)
            .unwrap_or_else(|e| panic!("{}: {arguments:?} printed {:?}: {e}", self.id, outcome.stdout))
    }

    /// `ffmesh status`
    pub fn status(&self) -> Status {
        self.json(&["status"])
    }

    /// `ffmesh peers`
    pub fn peers(&self) -> Vec<Peer> {
        self.json(&["peers"])
    }

    /// `ffmesh proxies`
    pub fn proxies(&self) -> Vec<Proxy> {
        self.json(&["proxies"])
    }

    /// `ffmesh flows`
    pub fn flows(&self) -> Flows {
        self.json(&["flows"])
    }

    /// `ffmesh routes`
    pub fn routes(&self) -> Vec<Route> {
        self.json(&["routes"])
    }

    /// What it answers to a GET on its admin socket, which is a path in the state directory.
    ///
    /// # Panics
    /// When it does not answer with 200.
    pub fn get(&self, path: &str) -> String {
        let mut socket = UnixStream::connect(self.state_dir().join("admin.sock")).expect("the admin socket");
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).expect("send a request");
        let mut answer = String::new();
        socket.read_to_string(&mut answer).expect("read an answer");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        assert!(head.starts_with("HTTP/1.1 200 "), "{}: GET {path}: {answer}", self.id);
        assert!(!head.to_lowercase().contains("chunked"), "{head}");
        body.to_owned()
    }

    /// The value of one of its metrics, named with its labels as in the answer; none where it is not there.
    pub fn metric(&self, sample: &str) -> Option<f64> {
        let text = self.get("/metrics");
        text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' ')?.parse().ok())
    }

    /// Its routes to another node, the best first. Those that are down are not among them.
    pub fn routes_to(&self, other: &str) -> Vec<Route> {
        let live = |route: &Route| !matches!(route.state, RouteState::Down | RouteState::Unreachable);
        self.routes().into_iter().filter(|route| route.node_id.as_str() == other && live(route)).collect()
    }

    /// Whether a route leads to another node.
    pub fn reaches(&self, other: &str) -> bool {
        !self.routes_to(other).is_empty()
    }

    /// Whether its link to another node is up.
    pub fn sees(&self, other: &str) -> bool {
        self.peers().iter().any(|peer| peer.node_id.as_str() == other && peer.state == PeerState::Up)
    }

    /// Waits until its link to another node is up.
    ///
    /// # Panics
    /// When it is not, in time.
    pub fn wait_for_peer(&self, other: &str) {
        until(&format!("{} is linked to {other}", self.id), START_LIMIT, || self.sees(other));
    }

    /// Waits for the record of a flow through `proxy` that ended with `reason` and returns it.
    ///
    /// # Panics
    /// When there is none in time.
    pub fn wait_for_record(&self, role: Role, proxy: &str, reason: Reason) -> Flow {
        let what = format!("{} has a record of a flow of {proxy} that ended with {reason}", self.id);
        until_some(&what, RECORD_LIMIT, || {
            let matches = |f: &Flow| f.role == role && f.proxy == proxy && f.reason == Some(reason);
            self.flows().ended.into_iter().find(matches)
        })
    }
}
