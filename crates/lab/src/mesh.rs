//! A mesh of nodes, each in a namespace of its own, wired and enrolled as a plan says.

use std::fmt::Write;
use std::io;
use std::time::Duration;

use crate::bytes::RandomBytes;
use crate::conn::{Conn, End};
use crate::lab::Lab;
use crate::net::Net;
use crate::node::Node;
use crate::plan::{PORT, Plan};
use crate::service::Service;
use crate::wait::{in_parallel, until};

/// What is behind each node, by the name of the proxies to it, with its port.
const SERVICES: [(&str, u16); 5] = [
    ("echo", 7001),
    ("digest", 7002),
    ("source", 7003),
    // What a test puts there.
    ("load", 7004),
    ("spare", 7005),
];
/// How long all nodes together may take until each reaches every other.
const MEET_LIMIT: Duration = Duration::from_secs(20);
/// Joins at a time.
const JOINS: usize = 4;
/// Pairs that [`Mesh::assert_carries_all_pairs`] tries at a time.
const PAIRS: usize = 4;
/// Bytes of each of these trials, in each direction: several windows of what is in flight on such wires.
const TRIAL: u64 = 300_000;

/// Nodes of a mesh and what is behind each of them.
#[derive(Debug)]
pub struct Mesh {
    nodes: Vec<Node>,
    plan: Plan,
    loopback: &'static str,
    _services: Vec<Service>,
    /// The lab, for more namespaces and wires
    pub lab: Lab,
}

impl Mesh {
    /// Makes the namespaces and wires of a plan and enrols all of its nodes. None of them runs yet.
    ///
    /// Enrolment takes place in a namespace of its own, so that it needs no wire of the plan.
    ///
    /// # Panics
    /// When any of this fails.
    pub fn of(plan: &Plan, lab: Lab) -> Self {
        enrol(plan, &lab);
        let loopback = if plan.is_v6_only() { "[::1]" } else { "127.0.0.1" };
        let nets: Vec<_> = plan.nodes.iter().map(|node| lab.net(&node.id)).collect();
        let net = |id: &str| &nets[plan.index(id)];
        for edge in plan.edges.iter().filter(|edge| edge.wired) {
            let [dialler, listener] = edge.interface_addresses();
            lab.wire(net(&edge.dialler), &[&dialler], net(&edge.listener), &[&listener]);
        }
        if plan.is_v6_only() {
            nets.iter().for_each(Net::without_ipv4);
        }
        let at = |name| format!("{loopback}:{}", port(name));
        let serve = |net: &Net| {
            [
                Service::echo(net, &at("echo")),
                Service::digest(net, &at("digest")),
                Service::source(net, &at("source")),
            ]
        };
        let services = nets.iter().flat_map(serve).collect();
        let yaml = |id: &str| yaml(plan, loopback, id);
        let nodes = plan.nodes.iter().zip(&nets).map(|(node, net)| lab.node(net, &node.id, &yaml(&node.id)));
        let nodes = nodes.collect();
        Self { nodes, plan: plan.clone(), loopback, _services: services, lab }
    }

    /// Starts all nodes and waits until each reaches every other.
    ///
    /// # Panics
    /// When they do not in time.
    pub fn start(&mut self) {
        self.spawn();
        self.wait_all_reach_all();
    }

    /// Starts all nodes and waits until each answers.
    ///
    /// # Panics
    /// When one does not.
    pub fn spawn(&mut self) {
        self.nodes.iter_mut().for_each(Node::spawn);
        self.nodes.iter_mut().for_each(Node::wait_ready);
    }

    /// Waits until each node that runs has a route to every other.
    ///
    /// # Panics
    /// When they have not in time.
    pub fn wait_all_reach_all(&mut self) {
        let running =
            self.nodes.iter_mut().filter_map(|node| node.is_running().then(|| node.id().to_owned()));
        let ids: Vec<_> = running.collect();
        for id in &ids {
            let others = ids.iter().filter(|other| *other != id).map(String::as_str).collect::<Vec<_>>();
            until(&format!("{id} reaches {others:?}"), MEET_LIMIT, || {
                let routes = self.node(id).routes();
                others.iter().all(|other| {
                    let leads =
                        |route: &ffmesh_api::Route| route.node_id.as_str() == *other && route.hops > 0;
                    routes.iter().any(leads)
                })
            });
        }
    }

    /// A node.
    ///
    /// # Panics
    /// When there is none of this id.
    pub fn node(&self, id: &str) -> &Node {
        self.nodes.iter().find(|node| node.id() == id).unwrap_or_else(|| panic!("no node {id}"))
    }

    /// A node, to start or stop it.
    ///
    /// # Panics
    /// When there is none of this id.
    pub fn node_mut(&mut self, id: &str) -> &mut Node {
        self.nodes.iter_mut().find(|node| node.id() == id).unwrap_or_else(|| panic!("no node {id}"))
    }

    /// The namespace of a node.
    pub fn net(&self, id: &str) -> &Net {
        self.node(id).net()
    }

    /// The ids of all nodes, as in the plan.
    pub fn ids(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.id().to_owned()).collect()
    }

    /// Address of every node's proxy to a service behind `to`: `echo`, `digest`, `source`, `load` or `spare`.
    pub fn proxy(&self, to: &str, service: &str) -> String {
        let index =
            self.nodes.iter().position(|node| node.id() == to).unwrap_or_else(|| panic!("no node {to}"));
        format!("{}:{}", self.loopback, proxy_port(index, port(service)))
    }

    /// Where a node would dial a service of its own: for services of a test's own.
    pub fn service(&self, service: &str) -> String {
        format!("{}:{}", self.loopback, port(service))
    }

    /// Connects from behind one node to a service behind another.
    pub fn connect(&self, from: &str, to: &str, service: &str) -> io::Result<Conn> {
        self.net(from).connect(&self.proxy(to, service))
    }

    /// Whether bytes go through the mesh and back, within `patience`.
    pub fn echoes_within(&self, from: &str, to: &str, patience: Duration) -> bool {
        let echo = || {
            let conn = self.connect(from, to, "echo")?;
            conn.set_patience(patience)?;
            conn.echo(b"anyone there?")
        };
        echo().is_ok()
    }

    /// Every node carries bytes to and from services behind every other, exactly.
    ///
    /// # Panics
    /// When it does not.
    pub fn assert_carries_all_pairs(&self) {
        let ids = self.ids();
        let pairs: Vec<_> =
            ids.iter().flat_map(|a| ids.iter().map(move |b| (a, b))).filter(|(a, b)| a != b).collect();
        in_parallel(pairs.len(), PAIRS, |n| self.assert_carries(pairs[n].0, pairs[n].1));
    }

    /// One node carries bytes to and from services behind another, exactly.
    ///
    /// # Panics
    /// When it does not.
    pub fn assert_carries(&self, from: &str, to: &str) {
        let carry = || {
            let conn = self.connect(from, to, "digest")?;
            conn.send_random(41, TRIAL)?;
            conn.finish()?;
            assert_eq!(
                conn.receive(32)?,
                RandomBytes::digest(41, TRIAL),
                "from {from} to {to}: other bytes arrived"
            );
            assert_eq!(conn.end(), End::Closed, "from {from} to {to}");
            let conn = self.connect(from, to, "source")?;
            conn.send(&Service::request(42, TRIAL))?;
            conn.receive_random(42, TRIAL)?;
            assert_eq!(conn.end(), End::Closed, "from {to} to {from}");
            io::Result::Ok(())
        };
        carry().unwrap_or_else(|e| panic!("from {from} to {to}: {e}"));
    }

    /// See [`Plan::address`].
    pub fn address(&self, a: &str, b: &str) -> String {
        self.plan.address(a, b)
    }

    /// From now on nothing passes the wire of these two, ICMP included, and nobody is told.
    pub fn cut(&self, a: &str, b: &str) {
        self.cut_all(&[(a, b)]);
    }

    /// The same for several wires, all of them at about the same time.
    pub fn cut_all(&self, wires: &[(&str, &str)]) {
        let ends: Vec<_> = wires.iter().flat_map(|(a, b)| [(a, b), (b, a)]).collect();
        in_parallel(ends.len(), ends.len(), |n| self.net(ends[n].0).deafen_to(self.net(ends[n].1)));
    }

    /// Ends [`Mesh::cut`].
    pub fn mend(&self, a: &str, b: &str) {
        self.net(a).hear_from(self.net(b));
        self.net(b).hear_from(self.net(a));
    }

    /// From now on this relay passes at most this many Mbit/s on over each wire to these nodes.
    pub fn limit_relay(&self, relay: &str, nodes: [&str; 2], mbit: u32) {
        for node in nodes {
            self.net(relay).limit_rate_to(self.net(node), mbit);
        }
    }
}

/// Founds the mesh and enrols everybody in a namespace that has only its loopback.
fn enrol(plan: &Plan, lab: &Lab) {
    let net = lab.net("enrol");
    let ids: Vec<_> = plan.nodes.iter().map(|node| node.id.as_str()).collect();
    let listens = format!("quic:\n  listen_port: {PORT}\n");
    let mut founder = lab.node(&net, ids[0], &listens);
    founder.init(&plan.init.iter().map(String::as_str).collect::<Vec<_>>());
    if ids[1..].is_empty() {
        return;
    }
    // For the tokens made here only: the founder is dialled elsewhere later.
    founder.configure(&format!("{listens}  advertise: [\"127.0.0.1:{PORT}\"]\n"));
    founder.start();
    let groups =
        |relay: bool| plan.nodes[1..].iter().filter(move |node| node.relay == relay).collect::<Vec<_>>();
    for (members, options) in [(groups(true), &[][..]), (groups(false), &["--no-relay"][..])] {
        if members.is_empty() {
            continue;
        }
        let token = founder.token(&[&["--uses", &members.len().to_string()], options].concat());
        in_parallel(members.len(), JOINS, |n| lab.node(&net, &members[n].id, "").join(&token));
    }
    founder.stop();
}

/// A node's configuration.
fn yaml(plan: &Plan, loopback: &str, id: &str) -> String {
    let node = &plan.nodes[plan.index(id)];
    let mut yaml = "quic:\n".to_owned();
    if node.listens {
        let _ = writeln!(yaml, "  listen_port: {PORT}");
    }
    yaml += &node.quic;
    let upstreams: Vec<_> = plan.edges.iter().filter(|edge| edge.dialler == id && edge.dialled).collect();
    if !upstreams.is_empty() {
        yaml += "  upstreams:\n";
    }
    for edge in upstreams {
        let (listener, address, cost) = (&edge.listener, edge.address(), edge.cost);
        let _ = writeln!(yaml, "    - {{ node_id: \"{listener}\", address: \"{address}\", cost: {cost} }}");
    }
    let local = loopback.trim_matches(['[', ']']);
    let others = plan.nodes.iter().enumerate().filter(|(_, other)| other.id != id && other.proxied);
    let others: Vec<_> = others.filter(|_| node.proxied).collect();
    if !others.is_empty() {
        yaml += "proxies:\n";
    }
    for (index, other) in others {
        for (service, port) in SERVICES {
            let (to, local_port) = (&other.id, proxy_port(index, port));
            let _ = writeln!(
                yaml,
                "  - {{ name: {service}-{to}, local_address: \"{local}\", local_port: {local_port}, \
                 target_node_id: \"{to}\", target_address: \"{loopback}:{port}\" }}"
            );
        }
    }
    yaml + &plan.everywhere + &node.more
}

fn port(service: &str) -> u16 {
    SERVICES.iter().find(|(name, _)| *name == service).map(|(_, port)| *port).expect("a service's name")
}

/// Proxies to the node of this number listen from 20,000 on, a hundred for each.
fn proxy_port(index: usize, port: u16) -> u16 {
    20_000 + u16::try_from(index).expect("a mesh of a test is small") * 100 + port % 100
}
