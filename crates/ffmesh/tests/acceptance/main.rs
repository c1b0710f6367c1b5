//! What FFMesh promises, shown with real nodes in network namespaces.
//!
//! - [`pair`]: two nodes, their services and proxies, which most tests start from
//! - [`seed_shape`]: the topology that FFMesh began with, with web servers and curl
//! - [`transfer`]: bytes, half-closes and resets, over IPv4, IPv6 only, and names of both
//! - [`refusals`]: what a client sees when its target can't be reached, and what the records say
//! - [`trust`]: who is let in, and who is not; [`stranger`] is one who tries
//! - [`enrolment`]: tokens, joining, renewal
//! - [`resilience`]: kills, outages, aborted flows, stalled readers
//! - [`limits`]: open files, idle flows, shutting down
//! - [`figures_agree`]: what status, proxies, flows and metrics say, and what a client has measured
//! - [`admin_attacks`]: the admin API over TCP, and those who want in or want it down
//! - [`ahead`]: sessions are there before the first flow
//! - [`choices`]: Unix sockets, state directories, which node a command talks to
//! - [`reload`]: another configuration while the node runs; proxies and services that are added then
//!
//! And with more than two nodes:
//! - [`chains`]: every pair of nodes carries bytes: chains of relays, a ring, a full mesh, both families, the seed's files
//! - [`discovery`]: nodes find each other, directly where they can; backups; nodes that nobody knows
//! - [`failover`]: 200 flows while relays are killed and fall silent
//! - [`waiting`]: no route is left, or only one that nobody had ready
//! - [`unsteady`]: links that flap, lose packets, work in one direction only; meshes that fall apart and meet again
//! - [`moving`]: addresses that change, NATs that forget, path MTUs that shrink
//! - [`restarts`]: nodes that restart, stop, or come back as somebody else
//! - [`events`]: what a node tells those who look on
//! - [`rolling`]: every relay is restarted under load; what a draining node does
//! - [`sharing`]: one connection over two relays
//! - [`relay_cost`]: what a relay costs and how fast it is
//! - [`iperf`]: bulk connections, for those that measure
//! - [`observing`]: what it costs to be looked at
//! - [`speedtest`]: what `ffmesh speedtest` measures is what the line carries
//! - [`fairness`]: sessions beside TCP on a line that is full
//! - [`figures`]: what docs/performance.md has of failures and probes; runs only when asked to
//! - [`doctor`]: what `ffmesh doctor` finds on a machine where something is wrong
//! - [`opaque`]: what a relay can read
//! - [`liars`]: a member that lies
//!
//! Without root each test says that it is skipped; in CI that is a failure.

#![cfg(target_os = "linux")]
#![allow(clippy::disallowed_methods, reason = "tests drive the nodes from plain threads, which may sleep")]
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
#![allow(clippy::print_stderr, reason = "what a measurement has to say goes to its output")]

mod admin_attacks;
mod ahead;
mod chains;
mod choices;
mod discovery;
mod doctor;
mod enrolment;
mod events;
mod failover;
mod fairness;
mod figures;
mod figures_agree;
mod iperf;
mod liars;
mod limits;
mod moving;
mod observing;
mod opaque;
mod pair;
mod refusals;
mod relay_cost;
mod reload;
mod resilience;
mod restarts;
mod rolling;
mod seed_shape;
mod sharing;
mod speedtest;
mod stranger;
mod transfer;
mod trust;
mod unsteady;
mod waiting;

use ffmesh_lab::{Lab, Mesh, Plan};

/// The program under test.
const FFMESH: &str = env!("CARGO_BIN_EXE_ffmesh");

/// The nodes of a plan, enrolled and not running; none where there is no root.
fn stopped_mesh(name: &str, plan: &Plan) -> Option<Mesh> {
    Some(Mesh::of(plan, Lab::new(name)?.with_program(FFMESH)))
}

/// The nodes of a plan, running, each with a route to every other; none where there is no root.
fn mesh(name: &str, plan: &Plan) -> Option<Mesh> {
    let mut mesh = stopped_mesh(name, plan)?;
    mesh.start();
    Some(mesh)
}

/// `a` and `b`, which see each other through `r1` and through `r2` only, and dial both.
fn diamond() -> Plan {
    Plan::new(&["r1", "a", "b", "r2"]).link("a", "r1").link("b", "r1").link("a", "r2").link("b", "r2")
}

/// The first relay of the route that traffic takes from one node to another.
fn relay_in_use(mesh: &Mesh, from: &str, to: &str) -> String {
    mesh.node(from).routes_to(to).first().map(|route| route.path[1].to_string()).expect("there is a route")
}
