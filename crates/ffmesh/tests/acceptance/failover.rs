//! 200 flows in both directions while the relay that carries them dies: none is lost, every byte arrives.
//!
//! Here the worst silence only has to be below 2 s, as it depends on the machine. It is reported: see
//! `FFMESH_REPORT` in [`ffmesh_lab::report`] and docs/performance.md.

use std::thread::sleep;
use std::time::{Duration, Instant};

use ffmesh_lab::{DelayLine, Line, Load, Mesh, Pace, Plan, Stalls, report, until};

use crate::{diamond, mesh, relay_in_use, stopped_mesh};

const FLOWS: usize = 200;
/// Relays killed.
const KILLS: usize = 20;
/// Relays that fall silent.
const BLACKHOLES: usize = 6;
/// No flow may be silent for longer.
const LONGEST: Duration = Duration::from_secs(2);
/// How long a relay is gone.
const GONE: Duration = Duration::from_millis(700);
/// Between a relay that is ready again and the next that goes, so that what the one cost is not taken for the other's.
const PAUSE: Duration = Duration::from_millis(800);

#[test]
fn no_flow_is_lost_while_relays_are_killed_twenty_times() {
    let Some(mut mesh) = mesh("kills", &diamond()) else { return };
    let load = load(&mesh);
    let mut events = Vec::new();
    for _ in 0..KILLS {
        let relay = next_relay(&mesh);
        events.push(Instant::now());
        mesh.node_mut(&relay).kill();
        sleep(GONE);
        mesh.node_mut(&relay).start();
    }
    wait_warm(&mesh);
    judge("failover-kill", load, &events);
    let failovers = ["a", "b"].map(|id| mesh.node(id).status().failovers);
    assert!(failovers.iter().sum::<u64>() >= KILLS as u64, "{failovers:?} for {KILLS} kills");
}

#[test]
fn no_flow_is_lost_while_relays_fall_silent() {
    let Some(mesh) = mesh("blackholes", &diamond()) else { return };
    let load = load(&mesh);
    let mut events = Vec::new();
    for _ in 0..BLACKHOLES {
        let relay = next_relay(&mesh);
        let wires = [("a", relay.as_str()), ("b", relay.as_str())];
        events.push(Instant::now());
        mesh.cut_all(&wires);
        sleep(GONE);
        for (end, relay) in wires {
            mesh.mend(end, relay);
        }
    }
    judge("failover-blackhole", load, &events);
}

#[test]
fn no_flow_is_lost_where_the_other_relay_is_eight_times_as_far_away() {
    /// Where a line to a relay begins; the relay itself is dialled at the other end.
    const NEAR_END: u16 = 4334;
    let plan =
        Plan::new(&["r1", "a", "b", "r2"]).wire("a", "r1").wire("a", "r2").link("b", "r1").link("b", "r2");
    let address = |relay: &str| plan.address("a", relay).replace("3334", &NEAR_END.to_string());
    let plan = plan.clone().upstream("a", "r1", &address("r1")).upstream("a", "r2", &address("r2"));
    let Some(mut mesh) = stopped_mesh("far", &plan) else { return };
    // Round trips of 10 and 80 ms.
    let _lines = [("r1", 5), ("r2", 40)].map(|(relay, delay)| {
        let (near, far) = (address(relay), plan.address("a", relay));
        let line = Line { delay: Duration::from_millis(delay), ..Line::default() };
        DelayLine::start(mesh.net(relay), &near, &far, line)
    });
    mesh.start();
    let load = load(&mesh);
    let mut events = Vec::new();
    for _ in 0..3 {
        let relay = next_relay(&mesh);
        events.push(Instant::now());
        mesh.node_mut(&relay).kill();
        sleep(GONE);
        until("the other relay is used", LONGEST, || relay_in_use(&mesh, "a", "b") != relay);
        mesh.node_mut(&relay).start();
    }
    judge("failover-far", load, &events);
}

fn load(mesh: &Mesh) -> Load {
    let (proxy, service) = (mesh.proxy("b", "load"), mesh.service("load"));
    Load::start(mesh.net("a"), &proxy, mesh.net("b"), &service, FLOWS, Pace::STEADY)
}

/// The relay to go next: that in use, once the other has been ready for a while.
fn next_relay(mesh: &Mesh) -> String {
    wait_warm(mesh);
    sleep(PAUSE);
    relay_in_use(mesh, "a", "b")
}

/// Waits until both ends have both relays ready.
fn wait_warm(mesh: &Mesh) {
    use ffmesh_api::RouteState::{InUse, Warm};
    let ready = |from: &str, to: &str| {
        mesh.node(from).routes_to(to).iter().filter(|route| matches!(route.state, InUse | Warm)).count() == 2
    };
    until("both relays are ready", Duration::from_secs(15), || ready("a", "b"));
}

fn judge(name: &str, load: Load, events: &[Instant]) {
    load.wait_flowing();
    let outcome = load.finish(Duration::from_secs(20));
    report(name, &Stalls::of(&outcome, events));
    assert_eq!(outcome.lost, Vec::<String>::new());
    let longest = outcome.longest_silence();
    assert!(
        longest < LONGEST,
        "a flow was silent for {longest:?}; event by event: {:?}",
        outcome.stalls(events)
    );
}
