//! The figures of docs/performance.md about failures and probes. They take minutes, so they run only when asked to:
//! `cargo test --release -p ffmesh --test acceptance figures -- --ignored --nocapture --test-threads 1`.

use std::thread::sleep;
use std::time::{Duration, Instant};

use ffmesh_lab::{
    DelayLine, Distribution, Line, Load, Mesh, Pace, Plan, Process, Stalls, report, require_programs, until,
};
use serde_json::json;

use crate::sharing::Download;
use crate::{diamond, mesh, relay_in_use, stopped_mesh};

/// Flows whose silences are noted.
const FLOWS: usize = 50;
/// Failures of each kind, and where only every other one counts.
const EVENTS: usize = 20;
const COUNTED_EVENTS: usize = 10;
/// What each of them sends, in both directions: as often as a silence is to be measured.
const PACE: Pace = Pace { bytes: 200, every: Duration::from_millis(10) };
/// How long a relay is gone.
const GONE: Duration = Duration::from_millis(700);
/// From both relays being ready to the next failure.
const PAUSE: Duration = Duration::from_millis(1500);
/// What a relay passes on where lines are long, and what of it is in use.
const LINE_MBIT: u32 = 400;
const BULK: &str = "300M";
/// What flows beside the others where lines are short.
const LIGHT_BULK: &str = "20M";
/// Where the delay lines listen.
const LINE_PORT: u16 = 3400;

/// How a relay fails.
#[derive(Debug, Clone, Copy)]
enum Failure {
    Kill,
    Blackhole,
}

#[test]
#[ignore = "figures for docs/performance.md"]
fn short_lines() {
    let Some(mut mesh) = mesh("short", &diamond()) else { return };
    for failure in [Failure::Kill, Failure::Blackhole] {
        measure("short", &mut mesh, failure, LIGHT_BULK, &["r1", "r2"]);
    }
}

#[test]
#[ignore = "figures for docs/performance.md"]
fn lines_of_10_ms_three_quarters_full() {
    let Some((mut mesh, _lines)) = long_diamond("long", [10, 10], "") else { return };
    for failure in [Failure::Kill, Failure::Blackhole] {
        measure("long", &mut mesh, failure, BULK, &["r1", "r2"]);
    }
}

#[test]
#[ignore = "figures for docs/performance.md"]
fn an_alternative_eight_times_longer() {
    let Some((mut mesh, _lines)) = long_diamond("unequal", [10, 80], "") else { return };
    for (name, bulk) in [("unequal-light", LIGHT_BULK), ("unequal-full", BULK)] {
        for failure in [Failure::Kill, Failure::Blackhole] {
            measure(name, &mut mesh, failure, bulk, &["r1"]);
        }
    }
}

/// A download that finds itself on a route eight times longer, and on one eight times shorter.
#[test]
#[ignore = "figures for docs/performance.md"]
fn another_round_trip_under_every_controller() {
    const MOVES: usize = 3;
    for controller in ["auto", "cubic", "bbr", "newreno"] {
        let quic = format!("  congestion: {controller}\n");
        let Some((mut mesh, _lines)) = long_diamond(controller, [10, 80], &quic) else { return };
        let ready = |mesh: &Mesh| {
            until("both relays are ready", Duration::from_mins(1), || {
                mesh.node("a").routes_to("b").len() == 2
            });
        };
        ready(&mesh);
        let download = Download::start(&mesh);
        for _ in 0..MOVES {
            for (name, relay) in [("longer", "r1"), ("shorter", "r2")] {
                ready(&mesh);
                sleep(Duration::from_secs(5));
                let before = second(&download);
                mesh.node_mut(relay).kill();
                let after = follow(&download);
                report(
                    &format!("figures-{controller}-{name}"),
                    &json!({ "mbit_before": before, "after": after }),
                );
                mesh.node_mut(relay).start();
            }
        }
        download.end();
    }
}

/// Mbit/s of the next second.
fn second(download: &Download) -> u64 {
    let before = download.received();
    sleep(Duration::from_secs(1));
    (download.received() - before) * 8 / 1_000_000
}

/// What a download does in the next seconds: its longest silence, and Mbit/s in spans that begin now.
fn follow(download: &Download) -> serde_json::Value {
    const STEP: u64 = 10;
    const SPANS: [u64; 5] = [500, 500, 1000, 2000, 4000];
    let (mut at, mut silence, mut seen) = (vec![download.received()], Duration::ZERO, Instant::now());
    for span in SPANS {
        for _ in 0..span / STEP {
            let before = download.received();
            sleep(Duration::from_millis(STEP));
            if download.received() > before {
                silence = silence.max(seen.elapsed());
                seen = Instant::now();
            }
        }
        at.push(download.received());
    }
    let mbit = |(bytes, ms): (u64, u64)| bytes * 8 / ms / 1000;
    let spans: Vec<_> = at.windows(2).map(|pair| pair[1] - pair[0]).zip(SPANS).map(mbit).collect();
    json!({ "silence_ms": silence.as_secs_f64() * 1e3, "spans_ms": SPANS, "mbit": spans })
}

#[test]
#[ignore = "figures for docs/performance.md"]
fn an_idle_link_that_falls_silent() {
    let Some(mesh) = mesh("idle", &diamond()) else { return };
    let mut times = Vec::new();
    for _ in 0..5 {
        sleep(Duration::from_secs(2));
        mesh.cut("a", "r1");
        times.push(until("the link is given up", Duration::from_secs(10), || !mesh.node("a").sees("r1")));
        mesh.mend("a", "r1");
        until("the link is back", Duration::from_secs(10), || mesh.node("a").sees("r1"));
    }
    report("figures-idle", &Distribution::of(&times));
}

/// What probing costs a node with so many sessions, each of which carries one slow flow.
#[test]
#[ignore = "figures for docs/performance.md"]
fn sessions_at_once() {
    const SESSIONS: usize = 50;
    const MEASURED: Duration = Duration::from_secs(5);
    let others: Vec<_> = (0..SESSIONS).map(|n| format!("n{n}")).collect();
    let ids: Vec<_> = ["r1", "r2", "a"].into_iter().chain(others.iter().map(String::as_str)).collect();
    let dial = |plan: Plan, id: &&str| plan.link(id, "r1").link(id, "r2");
    let plan = ids[2..].iter().fold(Plan::new(&ids), dial);
    let Some(mut mesh) = stopped_mesh("sessions", &plan) else { return };
    mesh.spawn();
    until("everybody is known", Duration::from_mins(1), || {
        let routes = mesh.node("a").routes();
        others
            .iter()
            .all(|other| routes.iter().any(|route| route.node_id.as_str() == other && route.hops > 0))
    });
    let mut loads = Vec::new();
    for count in [1, 10, SESSIONS] {
        for to in &others[loads.len()..count] {
            let (proxy, service) = (mesh.proxy(to, "load"), mesh.service("load"));
            loads.push(Load::start(mesh.net("a"), &proxy, mesh.net(to), &service, 1, Pace::STEADY));
        }
        sleep(Duration::from_secs(10));
        let cpu = |mesh: &mut Mesh| ["a", "r1"].map(|id| mesh.node_mut(id).process().cpu_seconds());
        let (before, sent, start) = (cpu(&mut mesh), datagrams_sent(&mesh, "a"), Instant::now());
        sleep(MEASURED);
        let seconds = start.elapsed().as_secs_f64();
        let (after, sent) = (cpu(&mut mesh), datagrams_sent(&mesh, "a") - sent);
        let figures = json!({
            "sessions": count,
            "datagrams_a_second": f64::from(u32::try_from(sent).unwrap()) / seconds,
            "node_cores": (after[0] - before[0]) / seconds,
            "relay_cores": (after[1] - before[1]) / seconds,
        });
        report(&format!("figures-sessions-{count}"), &figures);
    }
    for load in loads {
        assert_eq!(load.finish(Duration::from_secs(20)).lost, Vec::<String>::new());
    }
}

/// Lets the relay in use fail again and again, under load, until as many of those `counted` have.
fn measure(name: &str, mesh: &mut Mesh, failure: Failure, bulk: &str, counted: &[&str]) {
    let (proxy, service) = (mesh.proxy("b", "load"), mesh.service("load"));
    let load = Load::start(mesh.net("a"), &proxy, mesh.net("b"), &service, FLOWS, PACE);
    let mut bulk = require_programs(&["iperf3"]).then(|| start_bulk(mesh, bulk));
    let mut events = Vec::new();
    let wanted = if counted.len() == 2 { EVENTS } else { COUNTED_EVENTS };
    while events.len() < wanted {
        until("both relays are ready", Duration::from_mins(1), || mesh.node("a").routes_to("b").len() == 2);
        sleep(PAUSE);
        let relay = relay_in_use(mesh, "a", "b");
        let start = Instant::now();
        match failure {
            Failure::Kill => {
                mesh.node_mut(&relay).kill();
                sleep(GONE);
                mesh.node_mut(&relay).start();
            }
            Failure::Blackhole => {
                mesh.cut_all(&[("a", &relay), ("b", &relay)]);
                sleep(GONE);
                for end in ["a", "b"] {
                    mesh.mend(end, &relay);
                }
            }
        }
        if counted.contains(&relay.as_str()) {
            events.push(start);
        }
    }
    sleep(GONE);
    if let Some([server, client]) = &mut bulk {
        assert!(client.is_running(), "the bulk stream has ended: {}", client.log());
        client.kill();
        server.kill();
    }
    let outcome = load.finish(Duration::from_secs(20));
    report(&format!("figures-{name}-{failure:?}").to_lowercase(), &Stalls::of(&outcome, &events));
    eprintln!("{name} {failure:?}, each: {:?}", outcome.stalls(&events));
    assert_eq!(outcome.lost, Vec::<String>::new());
}

/// One connection at a steady rate from `a` to `b`: server and client.
fn start_bulk(mesh: &Mesh, rate: &str) -> [Process; 2] {
    let (proxy, service) = (mesh.proxy("b", "spare"), mesh.service("spare"));
    let start = |id: &str, mode: &str, address: &str, options: &[&str]| {
        let (host, port) = address.rsplit_once(':').unwrap();
        let mut command = mesh.net(id).command("iperf3");
        command.args([mode, host, "--port", port]).args(options);
        Process::start("iperf3", command, &mesh.lab.dir().join(format!("iperf3-{id}.log")))
    };
    let server = start("b", "--bind", &service, &["--server"]);
    sleep(Duration::from_millis(300));
    let client = start("a", "--client", &proxy, &["--bitrate", rate, "--time", "3600"]);
    [server, client]
}

/// A diamond whose routes have these round trip times, in ms, with more keys in the `quic` sections.
fn long_diamond(name: &str, rtt: [u64; 2], quic: &str) -> Option<(Mesh, Vec<DelayLine>)> {
    let ends = [("a", "r1"), ("b", "r1"), ("a", "r2"), ("b", "r2")];
    let wires =
        ends.iter().fold(Plan::new(&["r1", "a", "b", "r2"]), |plan, (end, relay)| plan.wire(end, relay));
    let addresses = ends.map(|(end, relay)| wires.address(end, relay));
    let line_of = |address: &str| format!("{}:{LINE_PORT}", address.rsplit_once(':').unwrap().0);
    let dialled = ends.iter().zip(&addresses);
    let plan = dialled.fold(wires, |plan, ((end, relay), to)| plan.upstream(end, relay, &line_of(to)));
    let plan = ["a", "b"].into_iter().fold(plan, |plan, id| plan.with_quic(id, quic));
    let mut mesh = stopped_mesh(name, &plan)?;
    let mut lines = Vec::new();
    for ((_, relay), to) in ends.iter().zip(&addresses) {
        // A round trip passes four times.
        let delay = Duration::from_micros(rtt[usize::from(*relay == "r2")] * 250);
        let line = Line { delay, ..Line::default() };
        lines.push(DelayLine::start(mesh.net(relay), &line_of(to), to, line));
    }
    for relay in ["r1", "r2"] {
        mesh.limit_relay(relay, ["a", "b"], LINE_MBIT);
    }
    mesh.start();
    Some((mesh, lines))
}

/// Datagrams that a node's namespace has sent: those of its probes, its flows and the control plane.
fn datagrams_sent(mesh: &Mesh, id: &str) -> u64 {
    let snmp = mesh.net(id).run("cat", &["/proc/net/snmp"]).stdout;
    let mut lines = snmp.lines().filter(|line| line.starts_with("Udp:"));
    let (names, values) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let at = names.split_whitespace().position(|name| name == "OutDatagrams").unwrap();
    values.split_whitespace().nth(at).and_then(|value| value.parse().ok()).unwrap()
}
