//! The node's configuration: what the YAML file says, checked.
//!
//! Everything here is checked when the file is read; nothing downstream sees a raw string of the file.
//!
//! `load` reads the bytes, `yaml` makes a tree of them in which everything knows its place, `read` walks
//! the tree by the schema with the readers of `section` and `value`, `conflict` finds what is taken
//! twice, and `problem` collects what is wrong. `diff` compares two configurations, `values` writes one down again.

mod conflict;
mod diff;
mod keys;
mod load;
mod problem;
mod read;
mod section;
#[cfg(test)]
mod tests;
mod value;
mod values;
mod yaml;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ffmesh_core::id::NodeId;
use ffmesh_core::policy;
use ffmesh_core::target::{Host, Target};

pub use diff::{Change, Diff, Entry, Kind};
pub use load::{Loaded, read_again};
pub use problem::{Problem, Problems};
pub(crate) use value::span;

/// A whole configuration file, checked. `Config::default()` is that of an empty file.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Config {
    /// The file it came from; none when it was made in memory.
    pub path: Option<PathBuf>,
    /// `node_id`; without it the identity in the state directory gives it.
    pub node_id: Option<NodeId>,
    /// `state_dir`, relative to the working directory as in any program.
    pub state_dir: Option<PathBuf>,
    /// `proxies`
    pub proxies: Vec<Proxy>,
    /// `services`
    pub services: Vec<Service>,
    /// `access`; `None` where the section is absent (the default policy), `Some(vec![])` where it is empty.
    pub access: Option<Vec<policy::Rule>>,
    /// `quic`
    pub quic: Quic,
    /// `mesh`
    pub mesh: Mesh,
    /// `admin`
    pub admin: Admin,
    /// `log`
    pub log: Log,
    /// `watch`
    pub watch: bool,
}

/// `proxies[]`: a local listener whose connections go to a target behind another node.
#[derive(Debug, Clone, PartialEq)]
pub struct Proxy {
    /// Unique in the file; `proxy-N` (counted from 1) where the file has none.
    pub name: String,
    /// Where it listens.
    pub listen: Listen,
    /// What it speaks to its clients.
    pub protocol: Protocol,
    /// What it leads to; none only for `socks5` and `http`, whose clients name the target. Those have a node all
    /// the same when `target_node_id` is set.
    pub target: Option<ProxyTarget>,
    /// `target_node_id` of a `socks5` or `http` proxy.
    pub exit: Option<NodeId>,
    /// `idle_timeout`: a flow without a byte in either direction for this long is ended. Off by default.
    pub idle_timeout: Option<Duration>,
}

impl Proxy {
    /// Whether this version can serve it; a proxy that it can't was warned of and does not listen.
    pub fn is_served(&self) -> bool {
        self.protocol == Protocol::Tcp && matches!(self.target, Some(ProxyTarget::Address { .. }))
    }
}

/// Where a proxy listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Listen {
    /// `local_address:local_port`
    Port(IpAddr, u16),
    /// `unix:/path`
    Unix(PathBuf),
}

/// `proxies[].protocol`, `services[].protocol`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// TCP or a Unix stream socket
    #[default]
    Tcp,
    /// UDP
    Udp,
    /// SOCKS 5 (RFC 1928); proxies only
    Socks5,
    /// HTTP CONNECT; proxies only
    Http,
}

/// What a proxy leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProxyTarget {
    /// `target_node_id` with `target_address`
    Address {
        /// The node that dials.
        node: NodeId,
        /// What it dials.
        target: Target,
    },
    /// `target_service`
    Service(String),
}

/// `services[]`: something this node offers by name.
#[derive(Debug, Clone, PartialEq)]
pub struct Service {
    /// Unique in the file.
    pub name: String,
    /// Where it is.
    pub target: Target,
    /// `tcp` or `udp`
    pub protocol: Protocol,
    /// `allow`; `None` means every member.
    pub allow: Option<Vec<policy::Subject>>,
    /// `health_check.interval`
    pub health_check: Option<Duration>,
}

/// `quic`
#[derive(Debug, Clone, PartialEq)]
pub struct Quic {
    /// `listen_port`; a node without it only dials out.
    pub listen_port: Option<u16>,
    /// `listen_address`; `None` means all addresses, IPv6 and IPv4.
    pub listen_address: Option<IpAddr>,
    /// `advertise`: where others reach this node.
    pub advertise: Vec<Address>,
    /// `upstreams`
    pub upstreams: Vec<Upstream>,
    /// `congestion`
    pub congestion: Congestion,
    /// `keep_alive`: how often an idle link is probed, 200 ms to 10 s; default 1 s. Three unanswered probes mean
    /// that the neighbour is gone.
    pub keep_alive: Duration,
    /// `stream_window`: bytes that one flow may have in flight or unread in each direction, 64 KiB to 64 MiB;
    /// default 8 MiB: 800 Mbit/s at a round trip of 40 ms where packets get lost and come a round trip later.
    pub stream_window: u32,
    /// `send_window`: bytes that one session may have unacknowledged, 64 KiB to 1 GiB; default 32 MiB.
    pub send_window: u32,
    /// `mtu`: the largest UDP payload that path MTU discovery tries, 1,200 to 9,000; default 1,452.
    pub mtu: u16,
    /// `max_flows`: flows open at once through this node in either role, 1 to 65,535 per session; default 50,000.
    pub max_flows: u32,
    /// `flow_memory`: bytes that all flows together may hold for slow readers, from 16 MiB; default 1 GiB.
    pub flow_memory: u64,
    /// `max_links`: neighbours at once, 1 to 10,000; default 1,000.
    pub max_links: u32,
}

/// `host:port` of a node.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Address {
    /// Address or name
    pub host: Host,
    /// Never 0
    pub port: u16,
}

/// `quic.upstreams[]`: a node to dial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// Unique in the file; where it has none, the node's id, with `-2`, `-3`, ... behind it where that is taken.
    pub name: String,
    /// The node that must answer there.
    pub node_id: NodeId,
    /// Where to dial.
    pub address: Address,
    /// Milliseconds added to each route over this link; 0 to 100,000. More than 0 makes it a backup.
    pub cost: u32,
}

/// `quic.congestion`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Congestion {
    /// What does best on most paths.
    #[default]
    Auto,
    /// BBR version 3
    Bbr,
    /// CUBIC (RFC 9438)
    Cubic,
    /// NewReno (RFC 9002)
    NewReno,
}

/// `mesh`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mesh {
    /// `transit`: forwards for others. Default true.
    pub transit: bool,
    /// `cost`: milliseconds added to each route through this node, 0 to 100,000.
    pub cost: u32,
    /// `hold`: how long a flow waits when no route is left. Default 10 min.
    pub hold: Duration,
    /// `drain_timeout`. Default 30 s.
    pub drain_timeout: Duration,
}

/// `admin`
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Admin {
    /// `listen`: TCP address of console, API and metrics. Off by default.
    pub listen: Option<SocketAddr>,
    /// `hosts`: names by which it may be addressed, beside addresses, `localhost` and this machine's name.
    pub hosts: Vec<String>,
}

/// `log`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Log {
    /// `level`
    pub level: tracing::Level,
    /// `format`
    pub format: LogFormat,
}

/// `log.format`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// A line for people, coloured on a terminal.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl Default for Quic {
    fn default() -> Self {
        Self {
            listen_port: None,
            listen_address: None,
            advertise: Vec::new(),
            upstreams: Vec::new(),
            congestion: Congestion::Auto,
            keep_alive: Duration::from_secs(1),
            stream_window: 8 << 20,
            send_window: 32 << 20,
            mtu: 1452,
            max_flows: 50_000,
            flow_memory: 1 << 30,
            max_links: 1_000,
        }
    }
}

impl Default for Mesh {
    fn default() -> Self {
        Self { transit: true, cost: 0, hold: Duration::from_mins(10), drain_timeout: Duration::from_secs(30) }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { level: tracing::Level::INFO, format: LogFormat::Text }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port(ip, port) => SocketAddr::new(*ip, *port).fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Socks5 => "socks5",
            Self::Http => "http",
        })
    }
}
