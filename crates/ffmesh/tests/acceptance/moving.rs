//! Addresses that change, NATs that forget, and path MTUs that shrink: flows go on.

use std::thread::sleep;
use std::time::Duration;

use ffmesh_lab::{Load, Mesh, Net, Pace, Plan, once_within, require_programs, until};

use crate::stopped_mesh;

/// A dialled node at an address behind a router.
const FAR: &str = "10.73.2.2:3334";

#[test]
fn a_nat_that_forgets_its_mappings_costs_no_flow() {
    if !require_programs(&["conntrack"]) {
        return;
    }
    // a ── nat ── r ── b: the relay sees a at the NAT's address.
    let plan = Plan::new(&["r", "a", "b"]).upstream("a", "r", FAR).link("b", "r").hidden("a");
    let Some(mut mesh) = stopped_mesh("rebinding", &plan) else { return };
    let nat = routed(&mesh, "a", "r");
    nat.masquerade(mesh.net("r"), 20_000);
    mesh.start();
    let (proxy, service) = (mesh.proxy("b", "load"), mesh.service("load"));
    let load = Load::start(mesh.net("a"), &proxy, mesh.net("b"), &service, 20, Pace::STEADY);
    let link = |mesh: &Mesh| mesh.node("r").peers().into_iter().find(|p| p.node_id.as_str() == "a").unwrap();
    let first = link(&mesh);
    for port in [30_000, 40_000] {
        nat.masquerade(mesh.net("r"), port);
        let prefix = format!(":{}", port / 1000);
        until("the relay knows the new address", Duration::from_secs(10), || {
            link(&mesh).address.is_some_and(|address| address.contains(&prefix))
        });
        load.wait_flowing();
    }
    // The link has moved, it was not made anew.
    assert_eq!(link(&mesh).since, first.since);
    let outcome = load.finish(Duration::from_secs(20));
    assert_eq!(outcome.lost, Vec::<String>::new());
}

#[test]
fn a_dialled_node_that_moves_is_found_by_its_name_again() {
    let plan =
        Plan::new(&["r", "a", "b"]).wire("a", "r").upstream("a", "r", "relay.test:3334").link("b", "r");
    let Some(mut mesh) = stopped_mesh("moves", &plan) else { return };
    let old = mesh.address("a", "r").replace(":3334", "");
    let new = old.replace(".2", ".3");
    assert_ne!(old, new);
    mesh.net("a").hosts(&[("relay.test", &old)]);
    mesh.start();
    let (proxy, service) = (mesh.proxy("b", "load"), mesh.service("load"));
    let load = Load::start(mesh.net("a"), &proxy, mesh.net("b"), &service, 20, Pace::STEADY);
    mesh.net("r").readdress(mesh.net("a"), &format!("{old}/24"), &format!("{new}/24"));
    mesh.net("a").hosts(&[("relay.test", &new)]);
    until("it is linked at its new address", Duration::from_secs(15), || {
        let peers = mesh.node("a").peers();
        let at = |peer: &ffmesh_api::Peer| peer.address.as_deref().is_some_and(|a| a.starts_with(&new));
        peers.iter().any(|peer| peer.node_id.as_str() == "r" && at(peer)) && mesh.node("a").sees("r")
    });
    load.wait_flowing();
    let outcome = load.finish(Duration::from_secs(20));
    assert_eq!(outcome.lost, Vec::<String>::new());
}

#[test]
fn a_path_mtu_that_shrinks_silently_stalls_nothing_for_a_second() {
    let mut run = 0;
    let mut outcomes = Vec::new();
    let mut skipped = false;
    once_within("the longest silence", Duration::from_secs(1), || {
        run += 1;
        // The route between the nodes is a router's; and one hop further, the same through a relay.
        let plan = Plan::new(&["r", "a", "b"]).upstream("a", "r", FAR).link("b", "r");
        let Some(mut mesh) = stopped_mesh(&format!("mtu{run}"), &plan) else {
            skipped = true;
            return Duration::ZERO;
        };
        let router = routed(&mesh, "a", "r");
        mesh.start();
        // More at a time than a packet holds, so that packets are full.
        let pace = Pace { bytes: 6000, every: Duration::from_millis(50) };
        let (proxy, service) = (mesh.proxy("b", "load"), mesh.service("load"));
        let load = Load::start(mesh.net("a"), &proxy, mesh.net("b"), &service, 10, pace);
        // Time to find out what the path can carry.
        sleep(Duration::from_secs(2));
        router.drop_longer_than(1280);
        sleep(Duration::from_secs(2));
        load.wait_flowing();
        let outcome = load.finish(Duration::from_secs(20));
        let longest = outcome.longest_silence();
        outcomes.push(outcome);
        longest
    });
    assert!(skipped || !outcomes.is_empty());
    for outcome in outcomes {
        assert_eq!(outcome.lost, Vec::<String>::new());
    }
}

/// A router between two nodes: `inner` at 10.73.1.1, `outer` at [`FAR`].
fn routed(mesh: &Mesh, inner: &str, outer: &str) -> Net {
    let router = mesh.lab.net("router");
    mesh.lab.wire(mesh.net(inner), &["10.73.1.1/24"], &router, &["10.73.1.2/24"]);
    mesh.lab.wire(&router, &["10.73.2.1/24"], mesh.net(outer), &["10.73.2.2/24"]);
    router.route_packets();
    mesh.net(inner).add_route("10.73.2.0/24", "10.73.1.2");
    mesh.net(outer).add_route("10.73.1.0/24", "10.73.2.1");
    for end in [inner, outer] {
        // The router measures packets, not batches of them.
        mesh.net(end).one_packet_at_a_time(&router);
    }
    router
}
