//! Sessions opened ahead: the first flow to a node waits for nothing but its own bytes.

use std::time::{Duration, Instant};

use ffmesh_lab::{DelayLine, Line, Mesh, Plan, until};

use crate::stopped_mesh;

/// One way from the first node to the next.
const DELAY: Duration = Duration::from_millis(100);
/// The round trip from end to end: the line's, as nothing else takes time.
const RTT: Duration = DELAY.saturating_mul(2);
/// How long it may take until there is a session.
const OPENED: Duration = Duration::from_secs(20);

/// `a` dials the second node of `plan` over a line that takes [`DELAY`] each way.
fn far(name: &str, second: &str, plan: Plan) -> Option<(Mesh, DelayLine)> {
    let far = plan.address("a", second);
    let near = far.replace("3334", "4334");
    let plan = plan.upstream("a", second, &near);
    let mut mesh = stopped_mesh(name, &plan)?;
    let line = Line { delay: DELAY, ..Line::default() };
    let line = DelayLine::start(mesh.net(second), &near, &far, line);
    mesh.start();
    Some((mesh, line))
}

fn sessions_open(mesh: &Mesh, node: &str, count: u32) {
    let what = format!("{node} has {count} sessions before any client came");
    until(&what, OPENED, || mesh.node(node).status().sessions == count);
    assert_eq!(mesh.node(node).status().flows_total, 0, "somebody came");
}

/// The first flow of `mesh` from `a` to `b`: connect, send, and get the bytes back.
fn first_byte(mesh: &Mesh) -> Duration {
    let start = Instant::now();
    let conn = mesh.connect("a", "b", "echo").unwrap();
    conn.echo(b"first").unwrap();
    start.elapsed()
}

/// Far less than a session that has to be opened first would take, which is three round trips, with room for a slow
/// machine.
fn assert_prompt(took: Duration) {
    assert!(took >= RTT, "{took:?}: the line is no line");
    assert!(took < RTT * 5 / 2, "the first byte of the first flow took {took:?}, and a round trip {RTT:?}");
}

#[test]
fn the_first_flow_to_a_neighbour_takes_one_round_trip() {
    let Some((mesh, _line)) = far("ahead-pair", "b", Plan::new(&["b", "a"]).wire("a", "b")) else { return };
    sessions_open(&mesh, "a", 1);
    assert_prompt(first_byte(&mesh));
}

#[test]
fn the_first_flow_through_a_relay_takes_one_round_trip() {
    let plan = Plan::new(&["r", "a", "b"]).wire("a", "r").link("b", "r");
    let Some((mesh, _line)) = far("ahead-relay", "r", plan) else { return };
    // Each node's proxies lead to both others.
    sessions_open(&mesh, "a", 2);
    assert_prompt(first_byte(&mesh));
}
