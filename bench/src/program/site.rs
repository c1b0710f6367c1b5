//! Where candidates run: namespaces, the wires between them, and the services behind the server.
//!
//! ```text
//! client ── server              direct; with offloads off; or over a long line
//! client ── relay ── server     no way but through the relay
//! ```

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use ffmesh_lab::{Lab, Net, Process, Transfer, run};

use crate::program::line::{Distance, LongLine};

/// Ports of the services in the server's namespace; tunnels listen on the client's loopback at 10,000 more.
pub(crate) const IPERF: u16 = 5201;
pub(crate) const ECHO: u16 = 7001;
pub(crate) const HTTP: u16 = 8080;
pub(crate) const SERVICES: [u16; 3] = [IPERF, ECHO, HTTP];
/// From a service's port to that of its tunnel on the client's loopback.
pub(crate) const LOCAL: u16 = 10_000;
/// Half of the far sites' round trip.
const FAR: Duration = Duration::from_millis(20);
/// What the lossy one loses each way, in percent.
const LOSS: f64 = 0.5;
/// For connections that come and go by the thousand.
const SETTINGS: [(&str, &str); 5] = [
    ("net/ipv4/ip_local_port_range", "20000 65535"),
    ("net/ipv4/tcp_tw_reuse", "1"),
    ("net/core/somaxconn", "8192"),
    ("net/ipv4/tcp_max_syn_backlog", "8192"),
    ("net/ipv4/ip_local_reserved_ports", "25000-29000"),
];

/// The kinds of sites.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Direct,
    /// No segmentation by the kernel: each packet for itself, as with a card that can't
    NoOffloads,
    Relay,
    /// 40 ms there and back, and half a percent lost each way
    Lossy,
    /// 40 ms there and back
    Far,
}

/// Where a process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Client,
    Relay,
    Server,
}

#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) kind: Kind,
    pub(crate) client: Net,
    pub(crate) relay: Net,
    pub(crate) server: Net,
    /// Addresses: the client's, the server's, the relay's towards each of them
    pub(crate) client_ip: IpAddr,
    pub(crate) server_ip: IpAddr,
    pub(crate) relay_ips: [IpAddr; 2],
    _services: Vec<Process>,
    _line: Option<LongLine>,
}

impl Site {
    pub(crate) fn new(lab: &Lab, kind: Kind, congestion: Option<&str>) -> Result<Self, String> {
        let tag = match kind {
            Kind::Direct => 'd',
            Kind::NoOffloads => 'o',
            Kind::Relay => 'r',
            Kind::Lossy => 'l',
            Kind::Far => 'f',
        };
        let net = |name: &str| lab.net(&format!("{tag}-{name}"));
        let (client, relay, server) = (net("client"), net("mid"), net("server"));
        for net in [&client, &relay, &server] {
            prepare(net, congestion)?;
        }
        let address = |net, host| IpAddr::from(Ipv4Addr::new(10, 80, net, host));
        let (near, far) = ([address(1, 1), address(1, 2)], [address(2, 1), address(2, 2)]);
        let with_prefix = |ip: IpAddr| format!("{ip}/24");
        let mut line = None;
        match kind {
            Kind::Direct | Kind::NoOffloads => {
                lab.wire(&client, &[&with_prefix(near[0])], &server, &[&with_prefix(near[1])]);
                if kind == Kind::NoOffloads {
                    without_offloads(&client, &client.interface_to(&server))?;
                    without_offloads(&server, &server.interface_to(&client))?;
                }
            }
            Kind::Relay => {
                lab.wire(&client, &[&with_prefix(near[0])], &relay, &[&with_prefix(near[1])]);
                lab.wire(&relay, &[&with_prefix(far[0])], &server, &[&with_prefix(far[1])]);
            }
            Kind::Lossy | Kind::Far => {
                for (end, ip) in [(&client, near[0]), (&server, near[1])] {
                    lab.wire(end, &[&with_prefix(ip)], &relay, &[]);
                    without_offloads(end, &end.interface_to(&relay))?;
                    without_offloads(&relay, &relay.interface_to(end))?;
                }
                let loss_percent = if kind == Kind::Lossy { LOSS } else { 0.0 };
                let ends = [&client, &server].map(|end| relay.interface_to(end));
                line = Some(LongLine::start(&relay, &ends, Distance { delay: FAR, loss_percent })?);
            }
        }
        let server_ip = if kind == Kind::Relay { far[1] } else { near[1] };
        let dir = lab.dir().join(format!("site-{tag}"));
        let services = serve(&server, &dir)?;
        Ok(Self {
            kind,
            client,
            relay,
            server,
            client_ip: near[0],
            server_ip,
            relay_ips: [near[1], far[0]],
            _services: services,
            _line: line,
        })
    }

    pub(crate) fn net(&self, place: Place) -> &Net {
        match place {
            Place::Client => &self.client,
            Place::Relay => &self.relay,
            Place::Server => &self.server,
        }
    }
}

/// Where a service's tunnel listens in the client's namespace.
pub(crate) fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port + LOCAL).into()
}

/// The congestion control of TCP in a namespace.
pub(crate) fn congestion(net: &Net) -> String {
    let read = || std::fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control");
    net.inside(read).unwrap_or_default().trim().to_owned()
}

fn prepare(net: &Net, congestion: Option<&str>) -> Result<(), String> {
    let set = |key: &str, value: &str| net.inside(|| std::fs::write(format!("/proc/sys/{key}"), value));
    for (key, value) in SETTINGS {
        // What an older kernel does not have only makes the machine slower, for all candidates alike.
        let _ = set(key, value);
    }
    let Some(congestion) = congestion else { return Ok(()) };
    set("net/ipv4/tcp_congestion_control", congestion).map_err(|e| {
        format!(
            "can't use the congestion control {congestion}: {e}; \
             put it into /proc/sys/net/ipv4/tcp_allowed_congestion_control first"
        )
    })
}

fn without_offloads(net: &Net, interface: &str) -> Result<(), String> {
    let mut arguments = vec!["-K", interface];
    for offload in ["tso", "gso", "gro", "tx", "rx"] {
        arguments.extend([offload, "off"]);
    }
    let outcome = net.run("ethtool", &arguments);
    if outcome.is_success() { Ok(()) } else { Err(format!("ethtool {arguments:?}: {}", outcome.said())) }
}

/// The echo service and the web server.
fn serve(net: &Net, dir: &Path) -> Result<Vec<Process>, String> {
    let failed = |e: std::io::Error| format!("can't prepare the services: {e}");
    let pages = dir.join("pages");
    std::fs::create_dir_all(&pages).map_err(failed)?;
    std::fs::write(pages.join("64"), [b'a'; 64]).map_err(failed)?;
    std::fs::write(pages.join("16k"), vec![b'b'; 16 << 10]).map_err(failed)?;
    let at = dir.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|k| format!("{k}_temp_path {at}/{k};\n"))
        .concat();
    let config = format!(
        "user root;\ndaemon off;\nmaster_process off;\npid {at}/nginx.pid;\nworker_rlimit_nofile 16000;\n\
         events {{ worker_connections 8192; }}\nhttp {{\naccess_log off;\nsendfile on;\ntcp_nopush on;\n\
         keepalive_requests 1000000000;\nopen_file_cache max=16;\ndefault_type text/plain;\n{temporary}\
         server {{ listen {HTTP} backlog=8192; root {at}/pages; }}\n}}\n"
    );
    let file = dir.join("nginx.conf");
    std::fs::write(&file, config).map_err(failed)?;
    let mut nginx = net.command("nginx");
    nginx.args(["-e", "stderr", "-c"]).arg(&file).arg("-p").arg(dir);
    let processes = vec![
        Process::start("nginx", nginx, &dir.join("nginx.log")),
        echo(net, &dir.join("echo.log"), (Ipv4Addr::UNSPECIFIED, ECHO).into())?,
    ];
    for port in [ECHO, HTTP] {
        wait_listening(net, port)?;
    }
    Ok(processes)
}

/// This program as an echo service.
pub(crate) fn echo(net: &Net, log: &Path, address: SocketAddr) -> Result<Process, String> {
    let program = std::env::current_exe().map_err(|e| format!("can't find this program: {e}"))?;
    let mut command = net.command(&program.to_string_lossy());
    command.args(["echo", &address.to_string()]);
    Ok(Process::start("echo", command, log))
}

/// A server for one test of iperf3.
pub(crate) fn iperf_server(net: &Net, port: u16, dir: &Path) -> Result<Process, String> {
    let at = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)).to_string();
    let process = Transfer::serve(net, &at, &dir.join("iperf3.log"), &["--one-off"]);
    wait_listening(net, port)?;
    Ok(process)
}

/// Waits until something listens on a TCP port, without connecting there.
pub(crate) fn wait_listening(net: &Net, port: u16) -> Result<(), String> {
    /// Of dumbpipe, which looks for its relays first.
    const LIMIT: Duration = Duration::from_secs(15);
    const POLL: Duration = Duration::from_millis(5);
    let ends_with = format!(":{port:04X}");
    let listens = || {
        ["tcp", "tcp6"].iter().any(|table| {
            let table = std::fs::read_to_string(format!("/proc/thread-self/net/{table}")).unwrap_or_default();
            // The second column is the local address, the fourth the state; 0A is LISTEN.
            table.lines().any(|line| {
                let mut fields = line.split_whitespace().skip(1);
                fields.next().is_some_and(|local| local.ends_with(&ends_with)) && fields.nth(1) == Some("0A")
            })
        })
    };
    net.inside(|| {
        let start = std::time::Instant::now();
        while !listens() {
            if start.elapsed() > LIMIT {
                return Err(format!("nothing listens on port {port}"));
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    })
}

/// The first line with a number that a program prints with these arguments: its version.
pub(crate) fn version_of(program: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new(program);
    command.args(arguments);
    let said = run(command, Duration::from_secs(10)).said();
    let has_number = |line: &&str| line.contains(|c: char| c.is_ascii_digit());
    said.lines().map(str::trim).find(has_number).unwrap_or_default().to_owned()
}
