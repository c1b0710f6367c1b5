//! What is measured: FFMesh, and what others use to reach a port behind another machine.

mod dumbpipe;
mod ffmesh;
mod haproxy;
mod hysteria;
mod keys;
mod rathole;
mod ssh;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ffmesh_lab::{Lab, Process, until_some};

use crate::program::site::{ECHO, HTTP, IPERF, Kind, Place, Site, local, version_of, wait_listening};
pub(crate) use keys::Keys;

/// How long what a candidate logs may take: dumbpipe looks for its relays for 5 s.
const LOG_LIMIT: Duration = Duration::from_secs(20);

/// Something that can be measured.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    pub(crate) name: String,
    pub(crate) version: String,
    tool: Tool,
    program: PathBuf,
}

/// The tools known here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tool {
    /// None: the load talks to the services
    Plain,
    Ffmesh,
    HaproxyTls,
    Ssh,
    RatholeTls,
    Dumbpipe,
    Hysteria2,
}

/// Names, programs, how to ask for the version, and what a reader has to know.
const TOOLS: [(Tool, &str, &str, &str, &str); 7] = [
    (Tool::Plain, "plain", "uname", "-sr", "no tunnel, the load talks to the services; direct sites only"),
    (Tool::Ffmesh, "ffmesh", "ffmesh", "--version", "QUIC, end to end"),
    (
        Tool::HaproxyTls,
        "haproxy-tls",
        "haproxy",
        "-v",
        "HAProxy on both sides, a connection of TLS 1.3 for each proxied one, verified both ways; a relay passes TCP on",
    ),
    (Tool::Ssh, "ssh", "ssh", "-V", "OpenSSH, one connection for all; through a relay by ProxyJump"),
    (
        Tool::RatholeTls,
        "rathole-tls",
        "rathole",
        "--version",
        "its server is where the load connects: at the client or at the relay, and then the load's leg to it is plain TCP",
    ),
    (
        Tool::Dumbpipe,
        "dumbpipe",
        "dumbpipe",
        "--version",
        "iroh, a QUIC connection for each proxied one; direct only",
    ),
    (
        Tool::Hysteria2,
        "hysteria2",
        "sing-box",
        "version",
        "sing-box, QUIC, one connection for all; a relay decrypts and encrypts again",
    ),
];

/// Where programs are looked for.
#[derive(Debug, Clone)]
pub(crate) struct Programs(Vec<PathBuf>);

impl Programs {
    /// In these directories, then in PATH and where Debian keeps servers.
    pub(crate) fn new(first: &[PathBuf]) -> Self {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let system = ["/usr/sbin", "/sbin"].map(PathBuf::from);
        Self(first.iter().cloned().chain(std::env::split_paths(&path)).chain(system).collect())
    }

    pub(crate) fn find(&self, name: &str) -> Option<PathBuf> {
        self.0.iter().map(|dir| dir.join(name)).find(|program| program.is_file())?.canonicalize().ok()
    }
}

/// FFMesh from `ffmesh`, other builds of it by name, and whatever else is installed.
pub(crate) fn all(ffmesh: &Path, others: &[(String, PathBuf)], programs: &Programs) -> Vec<Candidate> {
    let make = |tool, name: &str, program: PathBuf, argument| {
        let version = version_of(&program, &[argument]);
        Candidate { name: name.to_owned(), version, tool, program }
    };
    let builds = std::iter::once(("ffmesh".to_owned(), ffmesh.to_owned())).chain(others.iter().cloned());
    let builds = builds.map(|(name, program)| make(Tool::Ffmesh, &name, program, "--version"));
    let rest = TOOLS.iter().filter(|(tool, ..)| *tool != Tool::Ffmesh);
    let rest = rest.filter_map(|(tool, name, program, argument, _)| {
        Some(make(*tool, name, programs.find(program)?, argument))
    });
    builds.chain(rest).collect()
}

impl Candidate {
    /// What a reader of its figures has to know.
    pub(crate) fn about(&self) -> &'static str {
        TOOLS.iter().find(|(tool, ..)| *tool == self.tool).map_or("", |(.., about)| about)
    }

    pub(crate) fn runs_at(&self, kind: Kind) -> bool {
        kind != Kind::Relay || !matches!(self.tool, Tool::Plain | Tool::Dumbpipe)
    }

    /// Starts it. Nothing has gone through it when this returns.
    pub(crate) fn start(&self, mut start: Start<'_>) -> Result<Running, String> {
        let program = self.program.as_path();
        match self.tool {
            Tool::Plain => {
                let services = [IPERF, ECHO, HTTP].map(|port| (start.site.server_ip, port).into());
                [start.iperf, start.echo, start.http] = services;
                Ok(())
            }
            Tool::Ffmesh => ffmesh::start(&mut start, program),
            Tool::HaproxyTls => haproxy::start(&mut start, program),
            Tool::Ssh => ssh::start(&mut start, program),
            Tool::RatholeTls => rathole::start(&mut start, program),
            Tool::Dumbpipe => dumbpipe::start(&mut start, program),
            Tool::Hysteria2 => hysteria::start(&mut start, program),
        }
        .map_err(|e| format!("{} does not start: {e}{}", self.name, start.logs()))?;
        let Start { processes, iperf, echo, http, .. } = start;
        Ok(Running { processes, iperf, echo, http })
    }
}

/// What a start is given, and what it has made so far.
pub(crate) struct Start<'a> {
    pub(crate) lab: &'a Lab,
    pub(crate) site: &'a Site,
    pub(crate) keys: &'a Keys,
    pub(crate) programs: &'a Programs,
    /// A directory of its own, in the lab's
    pub(crate) dir: PathBuf,
    processes: Vec<(Place, Process)>,
    iperf: SocketAddr,
    echo: SocketAddr,
    http: SocketAddr,
}

/// A candidate that runs. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Running {
    processes: Vec<(Place, Process)>,
    /// Where the load connects, in the client's namespace
    pub(crate) iperf: SocketAddr,
    pub(crate) echo: SocketAddr,
    pub(crate) http: SocketAddr,
}

impl Running {
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.processes.iter().map(|(_, process)| process.pid()).collect()
    }

    pub(crate) fn pids_at(&self, place: Place) -> Vec<u32> {
        self.processes.iter().filter(|(at, _)| *at == place).map(|(_, process)| process.pid()).collect()
    }
}

impl<'a> Start<'a> {
    pub(crate) fn new(
        lab: &'a Lab,
        site: &'a Site,
        keys: &'a Keys,
        programs: &'a Programs,
        name: &str,
    ) -> Result<Self, String> {
        let dir = lab.dir().join(name);
        std::fs::create_dir_all(&dir).map_err(|e| format!("can't make {}: {e}", dir.display()))?;
        let [iperf, echo, http] = [IPERF, ECHO, HTTP].map(local);
        Ok(Self { lab, site, keys, programs, dir, processes: Vec::new(), iperf, echo, http })
    }

    fn is_relayed(&self) -> bool {
        self.site.kind == Kind::Relay
    }

    fn spawn(&mut self, place: Place, name: &str, program: &Path, arguments: &[&str]) {
        let mut command = self.site.net(place).command(&program.to_string_lossy());
        command.args(arguments);
        let process = Process::start(name, command, &self.log_of(name));
        self.processes.push((place, process));
    }

    fn log_of(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.log"))
    }

    fn write(&self, name: &str, text: &str) -> Result<String, String> {
        let path = self.dir.join(name);
        std::fs::write(&path, text).map_err(|e| format!("can't write {}: {e}", path.display()))?;
        Ok(path.to_string_lossy().into_owned())
    }

    fn wait_listening(&self, place: Place, port: u16) -> Result<(), String> {
        wait_listening(self.site.net(place), port)
    }

    /// Waits for a word of a log that begins like this.
    fn wait_word(&self, name: &str, begin: &str) -> String {
        let log = self.log_of(name);
        until_some(&format!("{name} says {begin}…"), LOG_LIMIT, || {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            said.split_whitespace().find(|word| word.starts_with(begin) && word.len() > 40).map(str::to_owned)
        })
    }

    /// What its processes have said, for a failure.
    fn logs(&self) -> String {
        const TAIL: usize = 400;
        let tail = |(_, process): &(Place, Process)| {
            let log = process.log();
            let from = log.char_indices().rev().nth(TAIL).map_or(0, |(at, _)| at);
            format!("\n  … {}", log[from..].trim())
        };
        self.processes.iter().map(tail).collect()
    }
}
