//! Nodes find each other, directly where they can; backups wait; and who is nowhere is said to be nowhere.

use std::thread::sleep;
use std::time::{Duration, Instant};

use ffmesh_api::{Role, RouteState};
use ffmesh_core::reason::Reason;
use ffmesh_lab::{End, Load, Mesh, Pace, Plan, once_within, until};

use crate::{diamond, mesh, relay_in_use, stopped_mesh};

/// Without changes for this long, nodes say at once what is new (docs/protocol.md, section 12).
const QUIET: Duration = Duration::from_secs(11);
/// A working route is left only for one that has been better for half a minute.
const LEFT: Duration = Duration::from_mins(1);
/// It is dialled after a second or two, and has to be no worse than the relayed one for three.
const DIRECT: Duration = Duration::from_secs(20);

#[test]
fn a_relay_that_restarts_is_a_warm_route_again_within_a_second_of_listening() {
    let Some(mut mesh) = mesh("relay-back", &diamond()) else { return };
    let load = load(&mesh);
    once_within("the route is warm", Duration::from_secs(1), || {
        until("both routes are up", Duration::from_secs(10), || mesh.node("a").routes_to("b").len() == 2);
        let relay = relay_in_use(&mesh, "a", "b");
        sleep(QUIET);
        mesh.node_mut(&relay).kill();
        sleep(Duration::from_millis(1500));
        mesh.node_mut(&relay).spawn();
        let listening = wait_listening(&mut mesh, &relay);
        until("the route is warm again", Duration::from_secs(20), || {
            let warm = |state| matches!(state, RouteState::Warm | RouteState::InUse);
            let routes = mesh.node("a").routes_to("b");
            routes.iter().any(|route| route.path[1].as_str() == relay && warm(route.state))
        });
        listening.elapsed()
    });
    let outcome = load.finish(Duration::from_secs(20));
    assert_eq!(outcome.lost, Vec::<String>::new());
}

#[test]
fn a_node_that_joins_appears_everywhere_within_two_seconds() {
    let plan = Plan::chain(&["a", "r1", "r2", "b", "new"]);
    let Some(mut mesh) = started_without("new", &plan) else { return };
    once_within("everybody reaches the new node", Duration::from_secs(2), || {
        mesh.node_mut("new").spawn();
        let listening = wait_listening(&mut mesh, "new");
        mesh.node_mut("new").wait_ready();
        until("they reach each other", Duration::from_secs(20), || {
            let ids = ["a", "r1", "r2", "b"];
            ids.iter().all(|id| mesh.node(id).reaches("new") && mesh.node("new").reaches(id))
        });
        let time = listening.elapsed();
        mesh.assert_carries("a", "new");
        mesh.assert_carries("new", "a");
        // Its end is known as soon.
        mesh.node_mut("new").stop();
        until("it is gone everywhere", Duration::from_secs(5), || !mesh.node("a").reaches("new"));
        time
    });
}

#[test]
fn nodes_that_know_each_other_through_a_relay_go_direct_where_they_can() {
    // The wire between a and b is in nobody's configuration: b says where it can be dialled.
    let plan = Plan::chain(&["a", "r", "b"]).wire("a", "b");
    let advertise = format!("  advertise: [\"{}\"]\n", plan.address("a", "b"));
    let plan = plan.with_quic("b", &advertise);
    let Some(mut mesh) = stopped_mesh("direct", &plan) else { return };
    mesh.cut("a", "b");
    mesh.start();
    let load = load(&mesh);
    assert_eq!(mesh.node("a").routes_to("b")[0].hops, 2);
    let hops = |mesh: &Mesh| mesh.node("a").routes_to("b").first().map(|route| (route.hops, route.state));
    mesh.mend("a", "b");
    until("the direct route is used", DIRECT, || hops(&mesh) == Some((1, RouteState::InUse)));
    // The relay is its backup.
    let carried = |mesh: &Mesh| mesh.node("r").status().transit.bytes;
    until("the relay is ready", Duration::from_secs(5), || mesh.node("a").routes_to("b").len() == 2);
    let before = carried(&mesh);
    sleep(Duration::from_secs(1));
    // Twenty flows of 20 kB/s in both directions would be 800 kB.
    assert!(carried(&mesh) - before < 400_000, "the relay still carries what could go directly");
    mesh.cut("a", "b");
    load.wait_flowing();
    until("the relay is used", Duration::from_secs(5), || hops(&mesh).is_some_and(|(hops, _)| hops == 2));
    let outcome = load.finish(Duration::from_secs(20));
    assert_eq!(outcome.lost, Vec::<String>::new());
    assert!(outcome.longest_silence() < Duration::from_secs(2), "{:?}", outcome.longest_silence());
}

#[test]
fn a_node_that_nobody_knows_is_refused_within_three_seconds_and_so_is_one_out_of_reach() {
    let plan = Plan::chain(&["a", "r", "b", "ghost"]);
    let Some(mut mesh) = started_without("ghost", &plan) else { return };
    refused(&mesh, "ghost", Reason::UnknownNode);
    mesh.node_mut("r").kill();
    until("no route is left", Duration::from_secs(10), || !mesh.node("a").reaches("b"));
    refused(&mesh, "b", Reason::NoRoute);
    // Without anybody to ask, a node that is unknown stays so.
    refused(&mesh, "ghost", Reason::UnknownNode);
}

#[test]
fn nodes_that_may_not_or_will_not_relay_are_ends_of_routes_only() {
    let plan = Plan::new(&["a", "b", "may-not", "will-not"]).link("a", "may-not").link("b", "may-not");
    let plan = plan.link("a", "will-not").link("b", "will-not").without_relay("may-not");
    let plan = plan.with("will-not", "mesh: { transit: false }\n");
    let Some(mut mesh) = stopped_mesh("leaves", &plan) else { return };
    mesh.spawn();
    for (from, to) in [("a", "may-not"), ("a", "will-not"), ("b", "may-not"), ("b", "will-not")] {
        until(&format!("{from} reaches {to}"), Duration::from_secs(10), || mesh.node(from).reaches(to));
        mesh.assert_carries(from, to);
        mesh.assert_carries(to, from);
    }
    // They tell a of b, and that is all.
    until("b is known", Duration::from_secs(5), || mesh.node("a").status().nodes_known == 3);
    assert!(!mesh.node("a").reaches("b"));
    refused(&mesh, "b", Reason::NoRoute);
}

#[test]
fn an_upstream_with_a_cost_is_used_when_the_others_are_gone_and_left_again() {
    let plan = Plan::new(&["cheap", "a", "b", "dear"]).link("a", "cheap").link("b", "cheap");
    let plan = plan.backup("a", "dear", 50).link("b", "dear");
    let Some(mut mesh) = mesh("backup", &plan) else { return };
    let load = load(&mesh);
    until("both routes are known", Duration::from_secs(10), || mesh.node("a").routes_to("b").len() == 2);
    assert_eq!(relay_in_use(&mesh, "a", "b"), "cheap");
    let routes = mesh.node("a").routes_to("b");
    let costs: Vec<_> = routes.iter().filter_map(|route| route.cost_ms).collect();
    assert!(costs[1] >= costs[0] + 45.0, "{routes:?}");
    let carried = |mesh: &Mesh| mesh.node("dear").status().transit.bytes;
    let before = carried(&mesh);
    sleep(Duration::from_secs(2));
    // Probes only: all flows together would be 1.6 MB.
    assert!(carried(&mesh) - before < 500_000, "the backup carries what the cheap route could");

    mesh.node_mut("cheap").kill();
    load.wait_flowing();
    until("the backup is used", Duration::from_secs(5), || relay_in_use(&mesh, "a", "b") == "dear");
    mesh.node_mut("cheap").start();
    until("the backup is left again", LEFT, || relay_in_use(&mesh, "a", "b") == "cheap");
    let outcome = load.finish(Duration::from_secs(20));
    assert_eq!(outcome.lost, Vec::<String>::new());
}

/// Refused soon, with a reset and this reason in the record.
fn refused(mesh: &Mesh, node: &str, reason: Reason) {
    once_within(&format!("{node} is refused"), Duration::from_secs(3), || {
        let (end, time) = mesh.net("a").timed_end_of(&mesh.proxy(node, "echo")).unwrap();
        assert_eq!(end, End::Reset, "a flow to {node}");
        time
    });
    mesh.node("a").wait_for_record(Role::Ingress, &format!("echo-{node}"), reason);
}

/// All nodes run but one, which is enrolled.
fn started_without(last: &str, plan: &Plan) -> Option<Mesh> {
    let mut mesh = stopped_mesh(last, plan)?;
    for id in mesh.ids().iter().filter(|id| *id != last) {
        mesh.node_mut(id).start();
    }
    mesh.wait_all_reach_all();
    Some(mesh)
}

fn wait_listening(mesh: &mut Mesh, id: &str) -> Instant {
    let node = mesh.node_mut(id);
    while !node.process().listens_on_udp(3334) {
        assert!(node.is_running());
        sleep(Duration::from_millis(2));
    }
    Instant::now()
}

fn load(mesh: &Mesh) -> Load {
    let (proxy, service) = (mesh.proxy("b", "load"), mesh.service("load"));
    Load::start(mesh.net("a"), &proxy, mesh.net("b"), &service, 20, Pace::STEADY)
}
