//! Two nodes: `client` dials `server`. Each has the same services behind it, and proxies to the other's.

use std::fmt::Write;
use std::time::Duration;

use ffmesh_lab::{Lab, Net, Node, Service};

use crate::FFMESH;

/// The node that dials; it listens nowhere.
pub(crate) const CLIENT: &str = "cccc0002";
/// The node that is dialled; it founded the mesh.
pub(crate) const SERVER: &str = "ssss0001";
/// A node that is an upstream of the client and never there.
pub(crate) const ABSENT: &str = "dddd0004";
/// A node that nobody knows.
pub(crate) const UNKNOWN: &str = "nnnn0009";

/// Services of both nodes by the name of their proxies, with their port. Proxies listen 10,000 higher.
const SERVICES: [(&str, u16); 7] = [
    ("echo", 7001),
    ("digest", 7002),
    ("source", 7003),
    ("resetter", 7004),
    ("witness", 7005),
    // Nothing listens there.
    ("refused", 7009),
    // Connects hang.
    ("silent", 7010),
];

/// Without an access section, names are looked up where a service has them.
const NAMED: &str = "services:\n  \
     - { name: by-name, address: \"service.test:7001\" }\n  \
     - { name: nowhere, address: \"nowhere.invalid:80\" }\n";

/// What the nodes and their clients are reached over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    /// IPv4 addresses
    V4,
    /// IPv6 addresses, where IPv4 does not even work on the loopback
    V6Only,
    /// Names with an address of each family, where targets listen on IPv4 only
    Names,
}

/// What a test wants beyond the usual.
#[derive(Debug, Default)]
pub(crate) struct Setup<'a> {
    /// Sections of both configurations besides `quic` and `proxies`
    pub(crate) both: &'a str,
    /// The same of the client's only
    pub(crate) client: &'a str,
    /// The same of the server's only
    pub(crate) server: &'a str,
    /// More of the client's proxies, `- { … }` each
    pub(crate) proxies: &'a str,
    /// Options of `ffmesh init`
    pub(crate) init: &'a [&'a str],
}

/// The two nodes, running and linked.
pub(crate) struct Pair {
    pub(crate) client: Node,
    pub(crate) server: Node,
    pub(crate) family: Family,
    _services: Vec<Service>,
    pub(crate) lab: Lab,
}

impl Pair {
    /// The usual pair; none where there is no root.
    pub(crate) fn new(name: &str, family: Family) -> Option<Self> {
        Self::with(name, family, &Setup::default())
    }

    pub(crate) fn with(name: &str, family: Family, setup: &Setup<'_>) -> Option<Self> {
        let mut pair = Self::stopped(name, family, setup)?;
        pair.start();
        Some(pair)
    }

    /// A pair that is enrolled and not running.
    pub(crate) fn stopped(name: &str, family: Family, setup: &Setup<'_>) -> Option<Self> {
        let lab = Lab::new(name)?.with_program(FFMESH);
        let (c, s) = (lab.net("client"), lab.net("server"));
        family.wire(&lab, &c, &s);
        let services = [&c, &s].into_iter().flat_map(|net| family.services(net)).collect();
        let mut server = lab.node(&s, SERVER, &server_yaml(family, setup));
        let client = lab.node(&c, CLIENT, &client_yaml(family, setup));
        server.init(&[&["--advertise", &family.server_address()], setup.init].concat());
        server.start();
        client.join(&server.token(&[]));
        server.stop();
        Some(Self { client, server, family, _services: services, lab })
    }

    /// Writes both configurations anew, for the next start.
    pub(crate) fn configure(&self, setup: &Setup<'_>) {
        self.client.configure(&client_yaml(self.family, setup));
        self.server.configure(&server_yaml(self.family, setup));
    }

    /// Starts both nodes and waits for their link.
    pub(crate) fn start(&mut self) {
        self.server.start();
        self.client.start();
        self.client.wait_for_peer(SERVER);
        self.server.wait_for_peer(CLIENT);
    }

    /// Address of the client's proxy to a service of the server's, for [`Net::connect`] in the client's
    /// namespace; of the server's proxy to the client's, in the server's.
    pub(crate) fn proxy(&self, name: &str) -> String {
        let proxies = SERVICES.iter().map(|(name, port)| (*name, port + 10_000)).chain(refused_ports());
        let (_, port) = proxies.into_iter().find(|(known, _)| *known == name).expect("a proxy's name");
        format!("{}:{port}", self.family.loopback())
    }

    /// Whether bytes go through the client's proxy and back, within `patience`.
    pub(crate) fn echoes_within(&self, patience: Duration) -> bool {
        let echo = || {
            let conn = self.client.net().connect(&self.proxy("echo"))?;
            conn.set_patience(patience)?;
            conn.echo(b"anyone there?")
        };
        echo().is_ok()
    }

    /// Both nodes run and carry bytes.
    pub(crate) fn assert_healthy(&mut self) {
        assert!(self.client.is_running(), "the client is gone");
        assert!(self.server.is_running(), "the server is gone");
        for node in [&self.client, &self.server] {
            node.net().connect(&self.proxy("echo")).unwrap().echo(b"still here").unwrap();
        }
    }

    /// Nothing arrives at either node.
    pub(crate) fn cut(&self) {
        self.client.net().deafen();
        self.server.net().deafen();
    }

    /// Ends [`Pair::cut`].
    pub(crate) fn mend(&self) {
        self.client.net().hear();
        self.server.net().hear();
    }
}

impl Family {
    /// The server's address on the wire, with the port of its node.
    fn server_address(self) -> String {
        format!("{}:3334", self.server_host())
    }

    /// An address of the wire's network that nobody has.
    fn absent_address(self) -> &'static str {
        match self {
            Self::V4 => "10.71.1.99:3334",
            Self::V6Only => "[fd71:1::99]:3334",
            Self::Names => "absent.test:3334",
        }
    }

    /// The server by an address, or name of one, that is not on its loopback.
    pub(crate) fn server_host(self) -> &'static str {
        match self {
            Self::V4 => "10.71.1.2",
            Self::V6Only => "[fd71:1::2]",
            Self::Names => "server.test",
        }
    }

    /// What services and proxies listen on.
    pub(crate) fn loopback(self) -> &'static str {
        match self {
            Self::V4 | Self::Names => "127.0.0.1",
            Self::V6Only => "[::1]",
        }
    }

    /// What proxies name as their target's host.
    pub(crate) fn target_host(self) -> &'static str {
        match self {
            Self::Names => "service.test",
            Self::V4 | Self::V6Only => self.loopback(),
        }
    }

    pub(crate) fn local_address(self) -> &'static str {
        self.loopback().trim_matches(['[', ']'])
    }

    fn wire(self, lab: &Lab, c: &Net, s: &Net) {
        let (v4, v6) = (["10.71.1.1/24", "10.71.1.2/24"], ["fd71:1::1/64", "fd71:1::2/64"]);
        match self {
            Self::V4 => lab.wire(c, &v4[..1], s, &v4[1..]),
            Self::V6Only => {
                lab.wire(c, &v6[..1], s, &v6[1..]);
                c.without_ipv4();
                s.without_ipv4();
            }
            Self::Names => {
                lab.wire(c, &[v6[0], v4[0]], s, &[v6[1], v4[1]]);
                for net in [c, s] {
                    net.hosts(&[
                        ("server.test", "fd71:1::2"),
                        ("server.test", "10.71.1.2"),
                        ("service.test", "::1"),
                        ("service.test", "127.0.0.1"),
                    ]);
                }
            }
        }
        for net in [c, s] {
            net.silence_port(port("silent"));
        }
    }

    fn services(self, net: &Net) -> Vec<Service> {
        let at = |name| format!("{}:{}", self.loopback(), port(name));
        vec![
            Service::echo(net, &at("echo")),
            Service::digest(net, &at("digest")),
            Service::source(net, &at("source")),
            Service::resetter(net, &at("resetter")),
        ]
    }

    /// The `proxies` of a node to the services behind `node`.
    fn proxies(self, node: &str) -> String {
        let mut yaml = String::new();
        for (name, port) in SERVICES {
            let target = format!("{}:{port}", self.target_host());
            yaml += &proxy(self, name, port + 10_000, node, &target);
        }
        yaml
    }
}

/// One entry of `proxies`.
pub(crate) fn proxy(family: Family, name: &str, port: u16, node: &str, target: &str) -> String {
    format!(
        "  - {{ name: {name}, local_address: \"{}\", local_port: {port}, target_node_id: \"{node}\", \
         target_address: \"{target}\" }}\n",
        family.local_address()
    )
}

fn server_yaml(family: Family, setup: &Setup<'_>) -> String {
    let proxies = family.proxies(CLIENT);
    format!("quic:\n  listen_port: 3334\nproxies:\n{proxies}{NAMED}{}{}", setup.both, setup.server)
}

fn client_yaml(family: Family, setup: &Setup<'_>) -> String {
    let mut yaml = format!(
        "quic:\n  upstreams:\n    \
         - {{ name: server, node_id: \"{SERVER}\", address: \"{}\" }}\n    \
         - {{ name: absent, node_id: \"{ABSENT}\", address: \"{}\" }}\n\
         proxies:\n{}",
        family.server_address(),
        family.absent_address(),
        family.proxies(SERVER),
    );
    let targets = [
        // The default policy lets members dial the loopback and nothing else.
        ("denied", SERVER, format!("{}:7001", family.server_host())),
        ("unroutable", SERVER, "nowhere.invalid:80".to_owned()),
        ("unknown", UNKNOWN, format!("{}:7001", family.target_host())),
        ("absent", ABSENT, format!("{}:7001", family.target_host())),
    ];
    for ((name, port), (same, node, target)) in refused_ports().zip(targets) {
        assert_eq!(name, same);
        yaml += &proxy(family, name, port, node, &target);
    }
    let _ = write!(yaml, "{}{NAMED}{}{}", setup.proxies, setup.both, setup.client);
    yaml
}

/// Proxies that only the client has, whose flows are refused.
fn refused_ports() -> impl Iterator<Item = (&'static str, u16)> {
    ["denied", "unroutable", "unknown", "absent"].into_iter().zip(18_001..)
}

fn port(name: &str) -> u16 {
    SERVICES.iter().find(|(known, _)| *known == name).map(|(_, port)| *port).expect("a service's name")
}
