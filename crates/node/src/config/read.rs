//! The schema: which section holds what, and what is possible there.
//!
//! Reading goes on after a problem, so that a file's problems are all reported at once; what could not be read
//! is left out of the result, which nobody gets in that case.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use ffmesh_core::id::NodeId;
use ffmesh_core::policy;

use super::conflict::{self, Socket, Taken};
use super::problem::Report;
use super::section::{Placed, Section, Value};
use super::yaml::Node;
use super::{
    Address, Admin, Config, Congestion, Listen, Log, LogFormat, Mesh, Protocol, Proxy, ProxyTarget, Quic,
    Service, Upstream, keys, value,
};

/// How a loopback listener is meant where nothing else is said.
const LOOPBACK: std::net::IpAddr = std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
/// How often a service is checked where `health_check` does not say.
const HEALTH_CHECK: Duration = Duration::from_secs(5);
/// Highest cost of a link or node in milliseconds: more than any path on Earth takes.
const MAX_COST: u64 = 100_000;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

const LATER: &str = "is not there yet in this version";

/// The configuration in the tree.
pub(super) fn config(root: &Node, report: &mut Report<'_>) -> Config {
    let mut config = Config::default();
    let root = Value { key: String::new(), node: root };
    let Some(root) = root.section(keys::ROOT, report) else { return config };
    let mut taken = Taken::default();

    config.node_id = root.get("node_id", report, value::node_id).map(|id| id.value);
    config.state_dir = root.get("state_dir", report, value::state_dir).map(|dir| dir.value);
    for (i, section) in root.sections("proxies", keys::PROXY, report).iter().enumerate() {
        config.proxies.extend(proxy(section, i, &mut taken, report));
    }
    for section in root.sections("services", keys::SERVICE, report) {
        config.services.extend(service(&section, &mut taken, report));
    }
    config.access = access(&root, report);
    if let Some(section) = root.value("quic").and_then(|v| v.section(keys::QUIC, report)) {
        config.quic = quic(&section, config.node_id.as_ref(), &mut taken, report);
    }
    if let Some(section) = root.value("mesh").and_then(|v| v.section(keys::MESH, report)) {
        config.mesh = mesh(&section, report);
    }
    if let Some(section) = root.value("admin").and_then(|v| v.section(keys::ADMIN, report)) {
        config.admin = admin(&section, &mut taken, report);
    }
    if let Some(section) = root.value("log").and_then(|v| v.section(keys::LOG, report)) {
        config.log = log(&section, report);
    }
    root.set("watch", report, value::flag, &mut config.watch);
    config
}

/// A proxy that stands alone: it has to have a name.
pub(super) fn one_proxy(node: &Node, report: &mut Report<'_>) -> Option<Proxy> {
    let section = Value { key: String::new(), node }.section(keys::PROXY, report)?;
    let name = section.need("name", "the name of the proxy", report, value::name);
    // What else is wrong is told as well.
    let unnamed = || Placed { value: String::new(), place: section.place, key: String::new() };
    proxy_named(&section, name.unwrap_or_else(unnamed), &mut Taken::default(), report)
}

/// A service that stands alone.
pub(super) fn one_service(node: &Node, report: &mut Report<'_>) -> Option<Service> {
    let section = Value { key: String::new(), node }.section(keys::SERVICE, report)?;
    service(&section, &mut Taken::default(), report)
}

/// Warns that what stands at `placed` has no effect yet.
fn later<T>(placed: &Placed<T>, so: &str, report: &mut Report<'_>) {
    report.warning(placed.place, &placed.key, format!("{LATER}: {so}"));
}

fn proxy(section: &Section<'_>, index: usize, taken: &mut Taken, report: &mut Report<'_>) -> Option<Proxy> {
    let name = section.get("name", report, value::name).unwrap_or_else(|| Placed {
        value: format!("proxy-{}", index + 1),
        place: section.place,
        key: section.key.clone(),
    });
    proxy_named(section, name, taken, report)
}

fn proxy_named(
    section: &Section<'_>,
    name: Placed<String>,
    taken: &mut Taken,
    report: &mut Report<'_>,
) -> Option<Proxy> {
    taken.name("proxy", &name, report);
    let words = [
        ("tcp", Protocol::Tcp),
        ("udp", Protocol::Udp),
        ("socks5", Protocol::Socks5),
        ("http", Protocol::Http),
    ];
    let protocol = section.get("protocol", report, |text| value::word(text, &words));
    let wrong_protocol = section.has("protocol") && protocol.is_none();
    let kind = protocol.as_ref().map(|p| p.value).unwrap_or_default();
    if let Some(protocol) = protocol.filter(|p| p.value != Protocol::Tcp) {
        let (word, _) = words.iter().find(|(_, p)| *p == protocol.value).copied().unwrap_or_default();
        let message = format!("`{word}` {LATER}: this proxy will not listen");
        report.warning(protocol.place, &protocol.key, message);
    }
    let listen = listen(section, report);
    if let Some(listen) = &listen {
        taken.socket(conflict::socket(&listen.value, kind), listen, report);
    }
    let idle = section.get("idle_timeout", report, |text| value::duration(text, SECOND..=DAY * 7));
    let (target, exit) = match kind {
        // What it needs depends on a word that is not known.
        _ if wrong_protocol => return None,
        Protocol::Tcp | Protocol::Udp => (Some(proxy_target(section, report)?), None),
        Protocol::Socks5 | Protocol::Http => (None, proxy_exit(section, report)),
    };
    Some(Proxy {
        name: name.value,
        listen: listen?.value,
        protocol: kind,
        target,
        exit,
        idle_timeout: idle.map(|idle| idle.value),
    })
}

/// Where a proxy listens, placed at the key that says so.
fn listen(section: &Section<'_>, report: &mut Report<'_>) -> Option<Placed<Listen>> {
    let address = section.get("local_address", report, value::local_address);
    if let Some(Placed { value: Err(unix), place, key }) = address {
        if let Some(port) = section.value("local_port") {
            port.wrong(
                report,
                "has no meaning beside a Unix socket in `local_address`: leave one of them out",
            );
        }
        return Some(Placed { value: unix, place, key });
    }
    let wrong = section.has("local_address") && address.is_none();
    let ip = address.and_then(|a| a.value.ok()).unwrap_or(LOOPBACK);
    let port = if wrong {
        section.get("local_port", report, value::port)
    } else {
        let expected = "the port to listen on, from 1 to 65535";
        section.need("local_port", expected, report, value::port)
    }?;
    (!wrong).then_some(Placed { value: Listen::Port(ip, port.value), place: port.place, key: port.key })
}

fn proxy_target(section: &Section<'_>, report: &mut Report<'_>) -> Option<ProxyTarget> {
    if section.has("target_service") {
        for beside in ["target_node_id", "target_address"] {
            if let Some(value) = section.value(beside) {
                value.wrong(report, "has no meaning beside `target_service`: leave one of them out");
            }
        }
        let service = section.get("target_service", report, value::name)?;
        later(&service, "this proxy will not listen", report);
        return Some(ProxyTarget::Service(service.value));
    }
    let node = section.need("target_node_id", "the id of the node that dials", report, value::node_id);
    let expected = "what that node dials, host:port or unix:/path";
    let target = section.need("target_address", expected, report, value::target);
    Some(ProxyTarget::Address { node: node?.value, target: target?.value })
}

/// The node through which a proxy goes whose clients name the target.
fn proxy_exit(section: &Section<'_>, report: &mut Report<'_>) -> Option<NodeId> {
    for name in ["target_address", "target_service"] {
        if let Some(value) = section.value(name) {
            value.wrong(report, "has no meaning here: clients of a `socks5` or `http` proxy name the target");
        }
    }
    section.get("target_node_id", report, value::node_id).map(|id| id.value)
}

fn service(section: &Section<'_>, taken: &mut Taken, report: &mut Report<'_>) -> Option<Service> {
    let name = section.need("name", "the name of the service", report, value::name);
    if let Some(name) = &name {
        taken.name("service", name, report);
    }
    let target =
        section.need("address", "where the service is, host:port or unix:/path", report, value::target);
    let mut protocol = Protocol::Tcp;
    let words = [("tcp", Protocol::Tcp), ("udp", Protocol::Udp)];
    section.set("protocol", report, |text| value::word(text, &words), &mut protocol);
    let allow = section.list("allow", report, value::subject);
    let health_check = section.value("health_check").and_then(|v| v.section(keys::HEALTH_CHECK, report));
    let health_check = health_check.map(|section| {
        let mut interval = HEALTH_CHECK;
        section.set("interval", report, |text| value::duration(text, SECOND..=HOUR), &mut interval);
        report.warning(section.place, &section.key, format!("{LATER}: the service is not checked"));
        interval
    });
    Some(Service { name: name?.value, target: target?.value, protocol, allow, health_check })
}

/// `None` only where the key is absent or null: an empty list refuses everything.
fn access(root: &Section<'_>, report: &mut Report<'_>) -> Option<Vec<policy::Rule>> {
    root.value("access")?;
    let rules = root.sections("access", keys::RULE, report);
    Some(rules.iter().filter_map(|section| rule(section, report)).collect())
}

fn rule(section: &Section<'_>, report: &mut Report<'_>) -> Option<policy::Rule> {
    for (name, expected) in [
        ("from", "who, a list of \"*\", group:NAME and node:ID"),
        ("to", "what, a list of CIDR:ports, [v6 CIDR]:ports, name:ports, \"*:ports\" and unix:/path"),
    ] {
        match section.value(name) {
            None => {
                report.problem(
                    section.place,
                    &section.path(name),
                    format!("is missing: expected {expected}"),
                );
            }
            // Nobody means a rule that never matches.
            Some(list) if list.is_empty() => list.wrong(report, format!("is empty: expected {expected}")),
            Some(_) => {}
        }
    }
    let from = section.list("from", report, value::subject);
    let to = section.list("to", report, value::own);
    let words = [("allow", policy::Action::Allow), ("deny", policy::Action::Deny)];
    let action = section.need("action", "allow or deny", report, |text| value::word(text, &words));
    Some(policy::Rule { from: from?, to: to?, action: action?.value })
}

fn quic(section: &Section<'_>, own: Option<&NodeId>, taken: &mut Taken, report: &mut Report<'_>) -> Quic {
    let mut quic = Quic::default();
    let port = section.get("listen_port", report, value::port);
    quic.listen_address = section.get("listen_address", report, value::ip).map(|ip| ip.value);
    if let Some(port) = &port {
        let every = std::net::IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED);
        taken.socket(Socket::Udp((quic.listen_address.unwrap_or(every), port.value).into()), port, report);
    }
    quic.listen_port = port.map(|port| port.value);
    quic.advertise = section.list("advertise", report, value::address).unwrap_or_default();
    let upstreams = section.sections("upstreams", keys::UPSTREAM, report);
    let upstreams = upstreams.iter().filter_map(|section| upstream(section, own, taken, report));
    quic.upstreams = told_apart(upstreams.collect());
    let words = [
        ("auto", Congestion::Auto),
        ("bbr", Congestion::Bbr),
        ("cubic", Congestion::Cubic),
        ("newreno", Congestion::NewReno),
    ];
    section.set("congestion", report, |text| value::word(text, &words), &mut quic.congestion);
    let pace = Duration::from_millis(200)..=Duration::from_secs(10);
    section.set("keep_alive", report, |text| value::duration(text, pace), &mut quic.keep_alive);
    let window = 64 * KIB..=64 * MIB;
    section.set("stream_window", report, |text| value::size(text, window), &mut quic.stream_window);
    section.set("send_window", report, |text| value::size(text, 64 * KIB..=GIB), &mut quic.send_window);
    section.set("mtu", report, |text| value::whole(text, 1_200..=9_000), &mut quic.mtu);
    section.set("max_flows", report, |text| value::whole(text, 1..=65_535), &mut quic.max_flows);
    let memory = 16 * MIB..=KIB * GIB;
    section.set("flow_memory", report, |text| value::size(text, memory), &mut quic.flow_memory);
    section.set("max_links", report, |text| value::whole(text, 1..=10_000), &mut quic.max_links);
    quic
}

/// One entry, and whether it has a name of its own; else it has that of its node.
fn upstream(
    section: &Section<'_>,
    own: Option<&NodeId>,
    taken: &mut Taken,
    report: &mut Report<'_>,
) -> Option<(Upstream, bool)> {
    let name = section.get("name", report, value::name);
    if let Some(name) = &name {
        taken.name("upstream", name, report);
    }
    let node = section.need("node_id", "the id of the node that answers there", report, value::node_id);
    if let Some(node) = node.as_ref().filter(|node| Some(&node.value) == own) {
        let message = format!("\"{}\" is this node's own id: expected the id of another node", node.value);
        report.problem(node.place, &node.key, message);
    }
    let address = section.need("address", "where to dial, host:port", report, value::address);
    if let (Some(node), Some(address)) = (&node, &address) {
        let Address { host, port } = &address.value;
        let value = format!("{} at {host}:{port}", node.value);
        taken.name("upstream to", &Placed { value, place: address.place, key: address.key.clone() }, report);
    }
    let mut cost = 0;
    section.set("cost", report, |text| value::whole(text, 0..=MAX_COST), &mut cost);
    let node = node?.value;
    let named = name.is_some();
    let name = name.map_or_else(|| node.to_string(), |name| name.value);
    Some((Upstream { name, node_id: node, address: address?.value, cost }, named))
}

/// Gives each entry without a name of its own one that no other entry has: `ID`, `ID-2`, ...
fn told_apart(upstreams: Vec<(Upstream, bool)>) -> Vec<Upstream> {
    let own_names = upstreams.iter().filter(|(_, named)| *named);
    let mut names: HashSet<String> = own_names.map(|(upstream, _)| upstream.name.clone()).collect();
    let mut numbers: HashMap<NodeId, u32> = HashMap::new();
    let unique = |(mut upstream, named): (Upstream, bool)| {
        let number = numbers.entry(upstream.node_id.clone()).or_insert(1);
        while !named && !names.insert(upstream.name.clone()) {
            *number += 1;
            upstream.name = format!("{}-{number}", upstream.node_id);
        }
        upstream
    };
    upstreams.into_iter().map(unique).collect()
}

fn mesh(section: &Section<'_>, report: &mut Report<'_>) -> Mesh {
    let mut mesh = Mesh::default();
    section.set("transit", report, value::flag, &mut mesh.transit);
    section.set("cost", report, |text| value::whole(text, 0..=MAX_COST), &mut mesh.cost);
    section.set("hold", report, |text| value::duration(text, Duration::ZERO..=DAY), &mut mesh.hold);
    let drain = Duration::ZERO..=HOUR;
    section.set("drain_timeout", report, |text| value::duration(text, drain), &mut mesh.drain_timeout);
    mesh
}

fn admin(section: &Section<'_>, taken: &mut Taken, report: &mut Report<'_>) -> Admin {
    let listen = section.get("listen", report, value::socket);
    if let Some(listen) = &listen {
        taken.socket(Socket::Tcp(listen.value), listen, report);
    }
    let hosts = section.list("hosts", report, value::host_name).unwrap_or_default();
    Admin { listen: listen.map(|listen| listen.value), hosts }
}

fn log(section: &Section<'_>, report: &mut Report<'_>) -> Log {
    use tracing::Level;
    let mut log = Log::default();
    let levels = [
        ("error", Level::ERROR),
        ("warn", Level::WARN),
        ("info", Level::INFO),
        ("debug", Level::DEBUG),
        ("trace", Level::TRACE),
    ];
    section.set("level", report, |text| value::word(text, &levels), &mut log.level);
    let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
    section.set("format", report, |text| value::word(text, &formats), &mut log.format);
    log
}
