//! Nodes that restart, stop in order, or come back as somebody else.

use std::time::{Duration, Instant};

use ffmesh_api::Role;
use ffmesh_core::reason::Reason;
use ffmesh_lab::{End, Load, Pace, Plan, until};

use crate::{diamond, mesh, relay_in_use};

#[test]
fn a_node_behind_a_relay_that_restarts_is_carried_to_at_once() {
    let Some(mut mesh) = mesh("restart", &Plan::chain(&["a", "r", "b"])) else { return };
    for _ in 0..3 {
        let held = mesh.connect("a", "b", "echo").unwrap();
        held.echo(b"to the life before").unwrap();
        let since = mesh.node("b").status().started;
        mesh.node_mut("b").kill();
        mesh.node_mut("b").start();
        // An idle link is noticed within 3.5 s; what its ends then sign anew may be held back, as there was a change just before.
        until("flows open again", Duration::from_secs(10), || {
            mesh.echoes_within("a", "b", Duration::from_millis(500))
        });
        assert!(mesh.node("b").status().started > since);
        // The new life does not know the flow of the old one.
        assert_eq!(held.end(), End::Reset);
    }
    mesh.node("a").wait_for_record(Role::Ingress, "echo-b", Reason::Lost);
    let links = mesh.node("r").peers();
    assert_eq!(links.iter().filter(|peer| peer.node_id.as_str() == "b").count(), 1, "{links:?}");
    mesh.assert_carries_all_pairs();
}

#[test]
fn a_node_that_restarts_as_soon_as_its_session_is_open_is_carried_to() {
    let Some(mut mesh) = mesh("restart-early", &Plan::chain(&["a", "b"])) else { return };
    for _ in 0..3 {
        // The session that `a` has now may not have been told of whose life it is.
        until("a session is open", Duration::from_secs(20), || mesh.node("a").status().sessions > 0);
        mesh.node_mut("b").kill();
        mesh.node_mut("b").start();
        until("flows open again", Duration::from_secs(10), || {
            mesh.echoes_within("a", "b", Duration::from_millis(500))
        });
    }
}

#[test]
fn a_machine_whose_key_was_replaced_is_refused_everywhere() {
    const ADDRESS: &str = "10.72.1.2:3334";
    let advertise = format!("  advertise: [\"{ADDRESS}\"]\n");
    let plan = Plan::new(&["r", "b", "a"]).link("b", "r").link("a", "r").with_quic("r", &advertise);
    assert_eq!(plan.address("b", "r"), ADDRESS);
    let Some(mut mesh) = mesh("other-key", &plan) else { return };
    // Another machine takes the place of b.
    mesh.node_mut("b").stop();
    let yaml = format!("quic:\n  upstreams:\n    - {{ node_id: r, address: \"{ADDRESS}\" }}\n");
    let mut new = mesh.lab.node_in(mesh.net("b"), "b", "b-new", &yaml);
    new.join(&mesh.node("r").token(&["--node", "b"]));
    new.start();
    until("the new machine carries", Duration::from_secs(10), || {
        mesh.echoes_within("a", "b", Duration::from_millis(500))
    });
    let held = mesh.connect("a", "b", "echo").unwrap();
    held.echo(b"to the new machine").unwrap();

    // The old one is back, elsewhere.
    let elsewhere = mesh.lab.net("elsewhere");
    mesh.lab.wire(&elsewhere, &["10.73.1.1/24"], mesh.net("r"), &["10.73.1.2/24"]);
    let from = mesh.node("r").log_len();
    let mut old = mesh.lab.node_in(&elsewhere, "b", "b", &yaml.replace(ADDRESS, "10.73.1.2:3334"));
    old.spawn();
    let line = mesh.node("r").wait_log(from, &["error", "b", "key"]);
    assert!(!line.is_empty());
    until("it is counted", Duration::from_secs(5), || {
        mesh.node("r").status().errors.iter().any(|error| error.kind.contains("key") && error.count > 0)
    });
    assert!(old.is_running() && !old.sees("r"));
    held.echo(b"the new machine has kept its place").unwrap();
    assert!(mesh.echoes_within("a", "b", Duration::from_secs(2)));
    assert!(new.sees("r"));
}

#[test]
fn a_relay_that_is_told_to_stop_resets_nothing() {
    let plan = diamond().everywhere("mesh: { drain_timeout: 3s }\n");
    let Some(mut mesh) = mesh("drain", &plan) else { return };
    let (proxy, service) = (mesh.proxy("b", "load"), mesh.service("load"));
    let load = Load::start(mesh.net("a"), &proxy, mesh.net("b"), &service, 50, Pace::STEADY);
    for _ in 0..2 {
        until("both relays are known", Duration::from_secs(10), || {
            mesh.node("a").routes_to("b").len() == 2 && mesh.node("b").routes_to("a").len() == 2
        });
        let relay = relay_in_use(&mesh, "a", "b");
        let told = Instant::now();
        assert_eq!(mesh.node_mut(&relay).stop().code(), Some(0));
        let time = told.elapsed();
        assert!(time < Duration::from_secs(5), "{relay} took {time:?} to stop");
        load.wait_flowing();
        assert_ne!(relay_in_use(&mesh, "a", "b"), relay);
        mesh.node_mut(&relay).start();
    }
    let outcome = load.finish(Duration::from_secs(20));
    assert_eq!(outcome.lost, Vec::<String>::new());
    let longest = outcome.longest_silence();
    assert!(longest < Duration::from_secs(2), "a flow was silent for {longest:?}");
}
