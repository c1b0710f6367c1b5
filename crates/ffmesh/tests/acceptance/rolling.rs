//! Draining: every relay is restarted under load and nothing is lost; what a node does while it drains.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use ffmesh_api::{Role, RouteState};
use ffmesh_core::reason::Reason;
use ffmesh_lab::{Conn, End, Load, Mesh, Pace, Plan, RandomBytes, Stalls, report, until};

use crate::pair::{CLIENT, Family, Pair, SERVER, Setup};
use crate::{mesh, relay_in_use};

const RELAYS: [&str; 3] = ["r1", "r2", "r3"];
const FLOWS: usize = 100;
/// Connections that echo between one restart and the next.
const ECHOES: usize = 10;
/// The bulk stream: what it sends at once and how often, some 6 MB/s.
const PIECE: u64 = 64 << 10;
const EVERY: Duration = Duration::from_millis(10);
/// No flow may be silent for longer, as for relays that die.
const LONGEST: Duration = Duration::from_secs(2);
/// A relay that drains waits for a second without transit, and the mesh has to leave it first.
const DRAINED: Duration = Duration::from_secs(10);

#[test]
fn every_relay_is_restarted_under_load_and_no_flow_is_reset() {
    let plan = RELAYS
        .iter()
        .fold(Plan::new(&["r1", "r2", "r3", "a", "b"]), |plan, relay| plan.link("a", relay).link("b", relay));
    let Some(mut mesh) = mesh("rolling", &plan) else { return };
    let (proxy, service) = (mesh.proxy("b", "load"), mesh.service("load"));
    let load = Load::start(mesh.net("a"), &proxy, mesh.net("b"), &service, FLOWS, Pace::STEADY);
    let echoes: Vec<_> = (0..ECHOES).map(|_| mesh.connect("a", "b", "echo").unwrap()).collect();
    let bulk = mesh.connect("a", "b", "digest").unwrap();
    let over = AtomicBool::new(false);
    let mut told = Vec::new();
    std::thread::scope(|scope| {
        let bulk = scope.spawn(|| send_until(&bulk, &over));
        // The last one to go is the one in use: what is left has all been restarted.
        for round in 0..RELAYS.len() {
            wait_warm(&mesh);
            let in_use = relay_in_use(&mesh, "a", "b");
            let relay = RELAYS.iter().cycle().skip_while(|relay| **relay != in_use).nth(round).unwrap();
            told.push(Instant::now());
            restart(&mut mesh, relay, round == 1);
            for echo in &echoes {
                echo.echo(b"still the same connection").unwrap();
            }
        }
        wait_warm(&mesh);
        load.wait_flowing();
        over.store(true, Ordering::Relaxed);
        let sent = bulk.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        assert!(sent > 10 * PIECE, "{sent} bytes are no bulk");
    });
    for echo in &echoes {
        echo.finish().unwrap();
        assert_eq!(echo.end(), End::Closed);
    }
    let outcome = load.finish(Duration::from_secs(20));
    report("rolling", &Stalls::of(&outcome, &told));
    assert_eq!(outcome.lost, Vec::<String>::new());
    let longest = outcome.longest_silence();
    assert!(longest < LONGEST, "silent for {longest:?}; restart by restart: {:?}", outcome.stalls(&told));
}

/// Ends a relay in order, with `ffmesh drain` or SIGTERM, and starts it again.
fn restart(mesh: &mut Mesh, relay: &str, by_command: bool) {
    let began = Instant::now();
    if by_command {
        let outcome = mesh.node(relay).ask(&["drain"]);
        assert!(outcome.is_success() && outcome.stdout.contains("the node has ended"), "{}", outcome.said());
        let ended = mesh.node_mut(relay).process().wait(Duration::from_secs(1));
        assert_eq!(ended.expect("the command waits for the node's end").code(), Some(0));
    } else {
        assert_eq!(mesh.node_mut(relay).stop().code(), Some(0));
    }
    let time = began.elapsed();
    assert!(time < DRAINED, "{relay} took {time:?} to drain");
    mesh.node_mut(relay).start();
}

/// Waits until a route over each relay is in use or takes over at once.
fn wait_warm(mesh: &Mesh) {
    let ready = |from: &str, to: &str| {
        let routes = mesh.node(from).routes_to(to);
        routes.iter().filter(|route| matches!(route.state, RouteState::InUse | RouteState::Warm)).count()
    };
    until("all relays are ready", Duration::from_secs(20), || ready("a", "b") == RELAYS.len());
}

/// Sends until it is over, and checks that all of it arrived. Returns how much that was.
fn send_until(conn: &Conn, over: &AtomicBool) -> u64 {
    let (mut bytes, mut piece, mut sent) = (RandomBytes::new(7), vec![0; 64 << 10], 0);
    while !over.load(Ordering::Relaxed) {
        bytes.fill(&mut piece);
        conn.send(&piece).unwrap();
        sent += PIECE;
        sleep(EVERY);
    }
    conn.finish().unwrap();
    assert_eq!(conn.receive(32).unwrap(), RandomBytes::digest(7, sent), "other bytes arrived");
    assert_eq!(conn.end(), End::Closed);
    sent
}

#[test]
fn a_node_that_drains_refuses_new_flows_and_cuts_what_does_not_end_in_time() {
    let setup = Setup { server: "mesh: { drain_timeout: 4s }\n", ..Setup::default() };
    let Some(mut pair) = Pair::with("drain-limit", Family::V4, &setup) else { return };
    let lasting = pair.client.net().connect(&pair.proxy("echo")).unwrap();
    lasting.echo(b"x").unwrap();

    let began = Instant::now();
    let told: serde_json::Value = pair.server.json(&["drain", "--no-wait"]);
    assert_eq!(
        (&told["flows_open"], &told["timeout_s"], &told["ended"]),
        (&1.into(), &4.into(), &false.into())
    );
    // The client's node does not know yet, and is told why.
    let new = pair.client.net().connect(&pair.proxy("echo")).unwrap();
    assert_ne!(new.end(), End::Open);
    pair.client.wait_for_record(Role::Ingress, "echo", Reason::Drained);
    until("its own listeners are closed", Duration::from_secs(2), || {
        pair.server.net().connect(&pair.proxy("echo")).is_err()
    });
    assert!(pair.server.status().draining);
    lasting.echo(b"what is open goes on").unwrap();

    // Asking again changes nothing; now it is followed.
    let followed: serde_json::Value = pair.server.json(&["drain"]);
    assert_eq!((&followed["flows_left"], &followed["ended"]), (&1.into(), &true.into()), "{followed}");
    let time = began.elapsed();
    let status = pair.server.process().wait(Duration::from_secs(1)).expect("it has ended");
    assert_eq!(status.code(), Some(0));
    assert!(time > Duration::from_millis(3_500) && time < Duration::from_secs(12), "it took {time:?}");
    assert_ne!(lasting.end(), End::Open);
    assert!(pair.client.is_running());
}

#[test]
fn a_second_signal_ends_a_draining_node_at_once() {
    let Some(mut pair) = Pair::new("drain-twice", Family::V4) else { return };
    for by_command in [true, false] {
        let held = pair.client.net().connect(&pair.proxy("echo")).unwrap();
        held.echo(b"x").unwrap();
        let from = pair.server.log_len();
        if by_command {
            assert!(pair.server.ask(&["drain", "--no-wait"]).is_success());
        } else {
            pair.server.process().terminate();
        }
        pair.server.wait_log(from, &["ending in order"]);
        held.echo(b"it waits for this flow").unwrap();
        pair.server.process().terminate();
        let status = pair.server.process().wait(Duration::from_secs(5)).expect("it ends at once");
        assert_eq!(status.code(), Some(0), "it was told to end: it is not to be started anew");
        pair.server.wait_log(from, &["ended the node at once"]);
        pair.server.start();
        pair.client.wait_for_peer(SERVER);
        pair.server.wait_for_peer(CLIENT);
        until("flows open again", Duration::from_secs(10), || pair.echoes_within(Duration::from_secs(1)));
    }
}
