//! Links that come and go, lose packets, or work in one direction only, and meshes that fall apart and meet again.

use std::thread::sleep;
use std::time::{Duration, Instant};

use ffmesh_lab::{Load, Mesh, Pace, Plan, Stalls, once_within, report, until};

use crate::{diamond, mesh, relay_in_use};

/// Sessions may leave a flapping route so often.
const CHANGES: u64 = 5;

#[test]
fn a_flapping_link_changes_few_routes_and_costs_no_flow() {
    const FLAPS: u32 = 20;
    let Some(mesh) = mesh("flapping", &diamond()) else { return };
    let load = load(&mesh, "a", "b");
    let relay = relay_in_use(&mesh, "a", "b");
    let before = ["a", "b"].map(|id| mesh.node(id).status().failovers);
    // Once a second: half of it up, half of it silent.
    let start = Instant::now();
    for flap in 0..FLAPS {
        mesh.cut("a", &relay);
        sleep_until(start + Duration::from_millis(500) + Duration::from_secs(flap.into()));
        mesh.mend("a", &relay);
        sleep_until(start + Duration::from_secs(flap.into()) + Duration::from_secs(1));
    }
    for (id, before) in ["a", "b"].iter().zip(before) {
        let changes = mesh.node(id).status().failovers - before;
        assert!(changes <= CHANGES, "{id} changed routes {changes} times");
    }
    let outcome = load.finish(Duration::from_secs(20));
    report("flapping", &Stalls::of(&outcome, &[start]));
    assert_eq!(outcome.lost, Vec::<String>::new());
}

#[test]
fn a_link_that_works_in_one_direction_is_down_for_both() {
    let Some(mesh) = mesh("one-way", &diamond()) else { return };
    let load = load(&mesh, "a", "b");
    let relay = relay_in_use(&mesh, "a", "b");
    // The relay hears nothing from a, and a hears everything from the relay.
    mesh.net(&relay).deafen_to(mesh.net("a"));
    until("both ends have given the link up", Duration::from_secs(10), || {
        !mesh.node("a").sees(&relay) && !mesh.node(&relay).sees("a")
    });
    load.wait_flowing();
    until("only one route is left", Duration::from_secs(5), || mesh.node("a").routes_to("b").len() == 1);
    assert_ne!(relay_in_use(&mesh, "a", "b"), relay);
    mesh.net(&relay).hear_from(mesh.net("a"));
    until("the link is back", Duration::from_secs(10), || mesh.node("a").sees(&relay));
    let outcome = load.finish(Duration::from_secs(20));
    assert_eq!(outcome.lost, Vec::<String>::new());
    assert!(outcome.longest_silence() < Duration::from_secs(4), "{:?}", outcome.longest_silence());
}

#[test]
fn a_mesh_that_fell_apart_works_in_both_halves_and_meets_again() {
    let Some(mut mesh) = mesh("partition", &Plan::chain(&["a1", "a2", "b1", "b2"])) else { return };
    let across = load(&mesh, "a1", "b2");
    once_within("both halves know each other again", Duration::from_secs(2), || {
        mesh.cut("a2", "b1");
        until("both halves have noticed", Duration::from_secs(10), || {
            !mesh.node("a1").reaches("b2") && !mesh.node("b2").reaches("a1")
        });
        mesh.assert_carries("a1", "a2");
        mesh.assert_carries("b2", "b1");
        // One half changes meanwhile: what the other half knows of it is old.
        mesh.node_mut("b1").kill();
        mesh.node_mut("b1").start();
        until("the half is whole again", Duration::from_secs(10), || {
            mesh.node("b2").reaches("b1") && mesh.node("b1").reaches("b2")
        });
        mesh.mend("a2", "b1");
        until("the halves are linked", Duration::from_secs(10), || mesh.node("a2").sees("b1"));
        until("everybody is known everywhere", Duration::from_secs(10), || {
            mesh.node("a1").reaches("b2") && mesh.node("b2").reaches("a1")
        })
    });
    across.wait_flowing();
    mesh.assert_carries_all_pairs();
    let outcome = across.finish(Duration::from_secs(20));
    assert_eq!(outcome.lost, Vec::<String>::new());
}

fn load(mesh: &Mesh, from: &str, to: &str) -> Load {
    let (proxy, service) = (mesh.proxy(to, "load"), mesh.service("load"));
    Load::start(mesh.net(from), &proxy, mesh.net(to), &service, 20, Pace::STEADY)
}

fn sleep_until(time: Instant) {
    sleep(time.saturating_duration_since(Instant::now()));
}
