//! The laboratory: namespaces and wires that go away with it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use crate::net::Net;
use crate::node::Node;
use crate::process::run;
use crate::requirement::{require_programs, require_root};

/// What all namespaces of labs begin with; the number of the process that made it follows.
const PREFIX: &str = "ffm-";
/// Where ip(8) keeps the namespaces.
const NAMESPACES: &str = "/var/run/netns";
/// Where `ip netns exec` finds a namespace's own hosts file.
const NAMESPACE_FILES: &str = "/etc/netns";
/// Descriptors that this process and the nodes it starts want; the usual 1,024 are too few for 1,000 connections.
const OPEN_FILES: u64 = 65_536;

/// Namespaces, wires between them, and a temporary directory.
///
/// Only one lab exists at a time on a machine: another waits for its end, so that what a test measures is its own.
/// Declare it before nodes and services, so that it is dropped after them.
#[derive(Debug)]
pub struct Lab {
    name: String,
    program: Option<PathBuf>,
    nets: Mutex<Vec<Net>>,
    dir: tempfile::TempDir,
    _alone: File,
}

impl Lab {
    /// A lab without anything in it; none (after saying why) where the machine does not allow it.
    ///
    /// # Panics
    /// Where `CI` is set and the machine does not allow it.
    pub fn new(name: &str) -> Option<Self> {
        if !require_root() || !require_programs(&["ip", "nft"]) {
            return None;
        }
        let lock = std::env::temp_dir().join("ffmesh-lab.lock");
        let alone =
            File::options().create(true).truncate(false).write(true).open(lock).expect("open the lock");
        alone.lock().expect("wait for the lab before this one");
        remove_stale();
        raise_open_files();
        let dir = tempfile::Builder::new().prefix("ffm-").tempdir().expect("make a temporary directory");
        let nets = Mutex::default();
        Some(Self { name: name.to_owned(), program: None, nets, dir, _alone: alone })
    }

    /// The same lab, whose nodes run this program.
    #[must_use]
    pub fn with_program(mut self, program: &str) -> Self {
        self.program = Some(program.into());
        self
    }

    /// The lab's temporary directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Makes a namespace with its loopback up. `name` has at most 11 characters.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn net(&self, name: &str) -> Net {
        let unique = format!("{PREFIX}{}-{}-{name}", std::process::id(), self.name);
        let net = Net::make(unique, name.to_owned());
        self.nets.lock().expect("no test panics with it").push(net.clone());
        net
    }

    /// Joins two namespaces by a veth pair of MTU 1500, `to-b` in `a` and `to-a` in `b`, with these addresses
    /// (`10.1.1.1/24`, `fd01::1/64`), which can be used at once.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn wire(&self, a: &Net, a_addresses: &[&str], b: &Net, b_addresses: &[&str]) {
        let (to_b, to_a) = (a.interface_to(b), b.interface_to(a));
        let pair = ["link", "add", &to_b, "netns", a.name(), "type", "veth", "peer"];
        ip(&[&pair[..], &["name", &to_a, "netns", b.name()]].concat());
        for (net, interface, addresses) in [(a, &to_b, a_addresses), (b, &to_a, b_addresses)] {
            net.ip(&["link", "set", interface, "mtu", "1500", "up"]);
            for address in addresses {
                // Duplicate address detection would hold an IPv6 address back for a second or two.
                let nodad: &[_] = if address.contains(':') { &["nodad"] } else { &[] };
                net.ip(&[&["address", "add", address, "dev", interface], nodad].concat());
            }
        }
    }

    /// How many namespaces it has.
    ///
    /// # Panics
    /// Never in a test that has not failed already.
    pub fn nets(&self) -> usize {
        self.nets.lock().expect("no test panics with it").len()
    }

    /// A node of the lab's program in a namespace. `yaml` is its configuration without `node_id` and `state_dir`.
    ///
    /// # Panics
    /// When the lab has no program.
    pub fn node(&self, net: &Net, id: &str, yaml: &str) -> Node {
        self.node_in(net, id, id, yaml)
    }

    /// The same with a directory of another name than the node's id, for two nodes of one id.
    ///
    /// # Panics
    /// When the lab has no program.
    pub fn node_in(&self, net: &Net, id: &str, dir: &str, yaml: &str) -> Node {
        let program = self.program.as_deref().expect("Lab::with_program comes first");
        self.node_of(program, net, id, dir, yaml)
    }

    /// The same of another program than the lab's, to put two builds side by side.
    pub fn node_of(&self, program: &Path, net: &Net, id: &str, dir: &str, yaml: &str) -> Node {
        Node::new(program, net, id, &self.dir().join(dir), yaml)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let nets = self.nets.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        for net in nets.drain(..) {
            remove(net.name());
        }
    }
}

pub(crate) fn ip(arguments: &[&str]) -> String {
    run_tool("ip", arguments)
}

/// Runs a program that configures the kernel, and returns what it prints.
pub(crate) fn run_tool(program: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(program);
    command.args(arguments);
    let outcome = run(command, Duration::from_secs(10));
    assert!(outcome.is_success(), "{program} {}: {}", arguments.join(" "), outcome.stderr);
    outcome.stdout
}

/// Writes `/etc/<file>` as processes of a namespace see it.
pub(crate) fn write_namespace_file(net: &str, file: &str, text: &str) {
    let dir = Path::new(NAMESPACE_FILES).join(net);
    std::fs::create_dir_all(&dir).expect("make the namespace's directory");
    std::fs::write(dir.join(file), text).expect("write the namespace's file");
}

pub(crate) fn namespace_path(net: &str) -> PathBuf {
    Path::new(NAMESPACES).join(net)
}

/// Removes a namespace, its files and the processes left in it. What is gone already is no error.
fn remove(net: &str) {
    use rustix::process::{Pid, Signal, kill_process};

    let mut pids = Command::new("ip");
    pids.args(["netns", "pids", net]);
    for pid in run(pids, Duration::from_secs(10)).stdout.split_whitespace() {
        // A thread of this process may still be in there on behalf of a service.
        let pid = pid.parse().ok().filter(|pid| u32::try_from(*pid) != Ok(std::process::id()));
        if let Some(pid) = pid.and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
    let mut delete = Command::new("ip");
    delete.args(["netns", "delete", net]);
    let _ = run(delete, Duration::from_secs(10));
    let _ = std::fs::remove_dir_all(Path::new(NAMESPACE_FILES).join(net));
    // Only when it is empty, and then it was made here.
    let _ = std::fs::remove_dir(NAMESPACE_FILES);
}

/// Removes what labs of processes that are gone, or earlier labs of this one, left behind.
fn remove_stale() {
    for dir in [NAMESPACES, NAMESPACE_FILES] {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some(owner) = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()) else {
                continue;
            };
            let Ok(owner) = owner.parse::<u32>() else { continue };
            if owner == std::process::id() || !Path::new(&format!("/proc/{owner}")).exists() {
                remove(&name);
            }
        }
    }
}

fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.map_or(OPEN_FILES, |most| most.min(OPEN_FILES));
    if limit.current.is_some_and(|current| current < most) {
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum: limit.maximum });
    }
}
