//! No route is left: flows wait. Or only one that nobody had ready.

use std::thread::sleep;
use std::time::{Duration, Instant};

use ffmesh_api::Role;
use ffmesh_core::reason::Reason;
use ffmesh_lab::{End, Load, Mesh, Pace, Plan, once_within, until};

use crate::{mesh, relay_in_use};

/// A new flow that can't be opened says so within this time.
const REFUSED: Duration = Duration::from_secs(3);

#[test]
fn flows_wait_for_a_route_and_go_on_when_one_returns() {
    let Some(mut mesh) = mesh("wait", &Plan::chain(&["a", "r", "b"])) else { return };
    let load = load(&mesh, 20);
    // Killed, and then silent: both ways for a route to go.
    mesh.node_mut("r").kill();
    sleep(Duration::from_secs(5));
    mesh.node_mut("r").start();
    load.wait_flowing();
    mesh.cut_all(&[("a", "r"), ("r", "b")]);
    sleep(Duration::from_secs(5));
    assert_eq!(load.silent_for(Duration::from_secs(3)), 40, "something passes a wire that is cut");
    mesh.mend("a", "r");
    mesh.mend("r", "b");
    load.wait_flowing();
    let outcome = load.finish(Duration::from_secs(20));
    assert_eq!(outcome.lost, Vec::<String>::new());
}

#[test]
fn a_flow_that_waited_for_the_whole_hold_is_reset_and_new_ones_are_refused_at_once() {
    const HOLD: Duration = Duration::from_secs(3);
    let plan = Plan::chain(&["a", "r", "b"]).everywhere("mesh: { hold: 3s }\n");
    let Some(mut mesh) = mesh("hold-mesh", &plan) else { return };
    let held = mesh.connect("a", "b", "echo").unwrap();
    held.echo(b"before").unwrap();
    mesh.node_mut("r").kill();
    let (end, time) = held.timed_end();
    assert_eq!(end, End::Reset, "after {time:?}");
    assert!(time >= HOLD, "given up after {time:?}");
    assert!(time < HOLD + Duration::from_secs(12), "given up after {time:?}");
    mesh.node("a").wait_for_record(Role::Ingress, "echo-b", Reason::NoRoute);
    // The node is known, and no route leads to it.
    assert!(!mesh.node("a").reaches("b"));
    once_within("a new flow is refused", REFUSED, || {
        let (end, time) = mesh.net("a").timed_end_of(&mesh.proxy("b", "digest")).unwrap();
        assert_eq!(end, End::Reset);
        time
    });
    mesh.node("a").wait_for_record(Role::Ingress, "digest-b", Reason::NoRoute);
    mesh.node_mut("r").start();
    mesh.wait_all_reach_all();
    mesh.assert_carries("a", "b");
}

#[test]
fn a_route_that_nobody_had_ready_is_found_within_a_second() {
    // The two routes share a relay, so only one of them is kept warm.
    let plan = Plan::new(&["r", "a", "b", "x1", "x2"]).link("a", "r").link("x1", "r").link("x2", "r");
    let plan = plan.link("b", "x1").link("b", "x2");
    let Some(mut mesh) = mesh("cold", &plan) else { return };
    let load = load(&mesh, 20);
    once_within("the other route is taken", Duration::from_secs(1), || {
        mesh.wait_all_reach_all();
        sleep(Duration::from_secs(1));
        let used = mesh.node("a").routes_to("b")[0].path[2].to_string();
        let killed = Instant::now();
        mesh.node_mut(&used).kill();
        sleep(Duration::from_millis(200));
        load.wait_flowing_within(Duration::from_secs(10));
        let time = killed.elapsed();
        assert_eq!(relay_in_use(&mesh, "a", "b"), "r");
        mesh.node_mut(&used).start();
        time
    });
    until("all links are back", Duration::from_secs(10), || mesh.node("b").status().links_up == 2);
    let outcome = load.finish(Duration::from_secs(20));
    assert_eq!(outcome.lost, Vec::<String>::new());
}

fn load(mesh: &Mesh, flows: usize) -> Load {
    let (proxy, service) = (mesh.proxy("b", "load"), mesh.service("load"));
    Load::start(mesh.net("a"), &proxy, mesh.net("b"), &service, flows, Pace::STEADY)
}
