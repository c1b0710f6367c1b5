//! What a node tells those who look on: changes of state as they happen, the mesh as a graph, services, its log.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use ffmesh_api::{Change, Event, LogEntry, PeerState, Service, Topology};
use ffmesh_core::id::NodeId;
use ffmesh_lab::{Mesh, Node, Plan, until};
use serde::de::DeserializeOwned;

use crate::{diamond, mesh, relay_in_use};

/// How long what a dead relay leads to may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// `GET` over the admin socket, as far as the head of the answer.
fn ask(node: &Node, path: &str, headers: &str) -> UnixStream {
    let mut socket = UnixStream::connect(node.state_dir().join("admin.sock")).unwrap();
    // HTTP/1.0 has no chunks: the answer comes as it is.
    let request = format!("GET /api/v1/{path} HTTP/1.0\r\nHost: x\r\n{headers}\r\n");
    socket.write_all(request.as_bytes()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        socket.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    assert!(head.starts_with("HTTP/1.0 200 ") || head.starts_with("HTTP/1.1 200 "), "{path}: {head}");
    socket
}

fn get<T: DeserializeOwned>(node: &Node, path: &str) -> T {
    serde_json::from_reader(ask(node, path, "")).unwrap()
}

/// An event stream and what came over it.
struct Stream {
    socket: UnixStream,
    read: Vec<u8>,
    events: Vec<Event>,
}

impl Stream {
    fn open(node: &Node, headers: &str) -> Self {
        Self { socket: ask(node, "events", headers), read: Vec::new(), events: Vec::new() }
    }

    /// Reads on until the events so far are as they should be.
    fn until(&mut self, what: &str, enough: impl Fn(&[Event]) -> bool) {
        let begin = Instant::now();
        while !enough(&self.events) {
            assert!(begin.elapsed() < PATIENCE, "{what}: {:#?}", self.events);
            let mut buffer = [0; 4096];
            let read =
                self.socket.read(&mut buffer).unwrap_or_else(|e| panic!("{what}: {e}: {:#?}", self.events));
            assert!(read > 0, "the stream ended before {what}: {:#?}", self.events);
            self.read.extend(&buffer[..read]);
            while let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line: Vec<_> = self.read.drain(..=end).collect();
                if let Some(data) = line.strip_prefix(b"data: ") {
                    self.events.push(serde_json::from_slice(data).unwrap());
                }
            }
        }
    }
}

/// Where the first event is for which this holds.
fn place(events: &[Event], is: impl Fn(&Change) -> bool) -> Option<usize> {
    events.iter().position(|event| is(&event.change))
}

fn is_peer(change: &Change, node: &str, wanted: PeerState) -> bool {
    matches!(change, Change::Peer { node_id, state, .. } if node_id.as_str() == node && *state == wanted)
}

fn is_node(change: &Change, node: &str, wanted: bool) -> bool {
    matches!(change, Change::Node { node_id, reachable } if node_id.as_str() == node && *reachable == wanted)
}

fn is_failover(change: &Change) -> bool {
    matches!(change, Change::Failover { .. })
}

fn is_log(change: &Change) -> bool {
    matches!(change, Change::Log(_))
}

/// Whether it is kept for clients that come back.
fn is_kept(change: &Change) -> bool {
    !matches!(change, Change::Log(_) | Change::Sample(_))
}

fn path(nodes: &[&str]) -> Vec<NodeId> {
    nodes.iter().map(|node| node.parse().unwrap()).collect()
}

/// A diamond whose only session is that of `a` and `b`.
fn diamond_alone() -> Plan {
    diamond().relay_only("r1").relay_only("r2")
}

fn wait_warm(mesh: &Mesh) {
    use ffmesh_api::RouteState::{InUse, Warm};
    let ready = |mesh: &Mesh| {
        let routes = mesh.node("a").routes_to("b");
        routes.iter().filter(|route| matches!(route.state, InUse | Warm)).count() == 2
    };
    until("both relays are ready", PATIENCE, || ready(mesh));
}

#[test]
fn a_failover_is_seen_as_it_happens_and_a_lost_stream_misses_nothing() {
    let Some(mut mesh) = mesh("events", &diamond_alone()) else { return };
    let mut stream = Stream::open(mesh.node("a"), "");
    let conn = mesh.connect("a", "b", "echo").unwrap();
    conn.echo(b"before").unwrap();
    // The session may be older than the stream; who comes from another run is told all that is kept.
    let mut whole = Stream::open(mesh.node("a"), "Last-Event-ID: 1\r\n");
    let opened = |change: &Change| matches!(change, Change::Session { open: true, .. });
    whole.until("the session is open", |events| place(events, opened).is_some());
    wait_warm(&mesh);
    let relay = relay_in_use(&mesh, "a", "b");
    let other = if relay == "r1" { "r2" } else { "r1" };

    mesh.node_mut(&relay).kill();
    conn.echo(b"after").unwrap();
    stream.until("the relay is gone", |events| {
        place(events, is_failover).is_some()
            && place(events, |change| is_node(change, &relay, false)).is_some()
    });
    let events = &stream.events;
    let down = place(events, |change| is_peer(change, &relay, PeerState::Down)).unwrap();
    let gone = place(events, |change| is_node(change, &relay, false)).unwrap();
    assert!(down < gone, "{events:#?}");
    assert!(matches!(&events[down].change, Change::Peer { reason: Some(_), .. }), "{events:#?}");
    let dialling = place(events, |change| is_peer(change, &relay, PeerState::Dialling)).unwrap();
    assert!(down < dialling, "{events:#?}");
    let failover = &events[place(events, is_failover).unwrap()].change;
    let (from, to) = (path(&["a", &relay, "b"]), path(&["a", other, "b"]));
    assert_eq!(*failover, Change::Failover { node_id: "b".parse().unwrap(), from, to });
    assert_eq!(mesh.node("a").status().failovers, 1);
    assert!(events.windows(2).all(|pair| pair[0].id < pair[1].id), "{events:#?}");
    assert!(place(events, is_log).is_some(), "what the log says comes as well: {events:#?}");

    // The stream is lost; the relay comes back meanwhile.
    let seen = stream.events;
    drop(stream.socket);
    mesh.node_mut(&relay).start();
    mesh.node("a").wait_for_peer(&relay);
    let last = seen.iter().find(|event| is_kept(&event.change)).unwrap().id;
    let mut again = Stream::open(mesh.node("a"), &format!("Last-Event-ID: {last}\r\n"));
    again.until("the relay is back", |events| {
        place(events, |change| is_peer(change, &relay, PeerState::Up)).is_some()
            && place(events, |change| is_node(change, &relay, true)).is_some()
    });
    let kept: Vec<_> = seen.iter().filter(|event| event.id > last && is_kept(&event.change)).collect();
    let back: Vec<_> = again.events.iter().filter(|event| is_kept(&event.change)).take(kept.len()).collect();
    assert_eq!(back, kept, "the same, with the same numbers");
    conn.echo(b"at last").unwrap();

    for relay in ["r1", "r2"] {
        mesh.node_mut(relay).kill();
    }
    let stranded = |change: &Change| matches!(change, Change::Failover { to, .. } if to.is_empty());
    again.until("no route is left", |events| place(events, stranded).is_some());
}

#[test]
fn the_mesh_is_told_of_as_a_graph_with_its_services() {
    let plan = diamond_alone()
        .with("a", "services:\n- {name: own, address: \"127.0.0.1:5432\", allow: [\"group:dev\"]}\n")
        .with("b", "services:\n- {name: web, address: \"127.0.0.1:80\"}\n");
    let Some(mesh) = mesh("topology", &plan) else { return };
    let conn = mesh.connect("a", "b", "echo").unwrap();
    conn.echo(b"x").unwrap();
    wait_warm(&mesh);
    let node = mesh.node("a");
    let whole = || -> Option<Topology> {
        let topology: Topology = get(node, "topology");
        let measured = topology.links.iter().filter(|link| link.rtt_ms.is_some()).count();
        (topology.links.len() == 4 && measured == 2).then_some(topology)
    };
    let topology = ffmesh_lab::until_some("the graph is whole", PATIENCE, whole);
    let ids: Vec<_> = topology.nodes.iter().map(|node| node.node_id.to_string()).collect();
    assert_eq!(ids, ["a", "b", "r1", "r2"]);
    assert!(topology.nodes.iter().all(|node| node.reachable && !node.draining), "{topology:#?}");
    let hops: Vec<_> = topology.nodes.iter().map(|node| node.hops).collect();
    assert_eq!(hops, [Some(0), Some(2), Some(1), Some(1)]);
    assert_eq!(topology.nodes[1].services, ["web"]);
    assert_eq!(topology.nodes.iter().filter(|node| node.issuer).count(), 1);
    let ends: Vec<_> = topology.links.iter().map(|link| [link.a.as_str(), link.b.as_str()]).collect();
    assert_eq!(ends, [["a", "r1"], ["a", "r2"], ["b", "r1"], ["b", "r2"]]);
    assert!(topology.links.iter().all(|link| link.cost_ms.is_some()), "{topology:#?}");
    assert_eq!(topology.links.iter().filter(|link| link.own).count(), 2);
    let in_use: Vec<_> =
        topology.paths.iter().filter(|path| path.state == ffmesh_api::RouteState::InUse).collect();
    assert_eq!((topology.paths.len(), in_use.len()), (2, 1), "{topology:#?}");
    assert_eq!((in_use[0].node_id.as_str(), in_use[0].flows_open), ("b", 1));

    let services: Vec<Service> = node.json(&["services"]);
    let names: Vec<_> =
        services.iter().map(|one| (&*one.name, one.node_id.as_str(), one.reachable)).collect();
    assert_eq!(names, [("own", "a", true), ("web", "b", true)]);
    assert_eq!(services[0].allow.as_deref(), Some(&["group:dev".to_owned()][..]));
    assert_eq!((&services[1].address, &services[1].allow), (&None, &None));

    let lines: Vec<LogEntry> = get(node, "log");
    assert!(lines.iter().any(|entry| entry.line.message == "node is ready"), "{lines:#?}");
}
