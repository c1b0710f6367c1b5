//! Limits: open files, idle flows, and a node that is told to stop.

use std::thread::sleep;
use std::time::{Duration, Instant};

use ffmesh_api::Role;
use ffmesh_core::reason::Reason;
use ffmesh_lab::{Conn, End, in_parallel, until};

use crate::pair::{CLIENT, Family, Pair, SERVER, Setup, proxy};

/// What a node may open in the tests of that limit: enough to run, and far fewer than [`FLOOD`].
const OPEN_FILES: u32 = 100;
/// Connections of a flood.
const FLOOD: usize = 300;

#[test]
fn an_ingress_that_runs_out_of_open_files_recovers_after_the_flood() {
    let Some(mut pair) = Pair::stopped("emfile-in", Family::V4, &Setup::default()) else { return };
    pair.client.limit_open_files(OPEN_FILES);
    pair.start();
    let address = pair.proxy("echo");
    let flood = pair.client.net().inside(|| in_parallel(FLOOD, 50, |_| Conn::open(&address)));
    sleep(Duration::from_secs(2));
    assert!(pair.client.is_running(), "a flood of connections ended the node");
    pair.client.wait_log(0, &["too many open files"]);
    drop(flood);
    until("flows open again", Duration::from_secs(10), || pair.echoes_within(Duration::from_secs(1)));
    pair.assert_healthy();
    // It paused between its tries instead of writing the log full.
    let complaints = pair.client.log().lines().filter(|line| line.contains("oo many open files")).count();
    assert!(complaints < 200, "{complaints} lines of log");
}

#[test]
fn an_egress_that_runs_out_of_open_files_refuses_and_recovers() {
    let Some(mut pair) = Pair::stopped("emfile-out", Family::V4, &Setup::default()) else { return };
    pair.server.limit_open_files(OPEN_FILES);
    pair.start();
    let address = pair.proxy("echo");
    let flood = pair.client.net().inside(|| {
        in_parallel(FLOOD, FLOOD, |_| {
            let conn = Conn::open(&address).unwrap();
            conn.set_patience(Duration::from_secs(20)).unwrap();
            let carried = conn.echo(b"x").is_ok();
            assert!(carried || conn.end() != End::Open, "a flow hangs");
            (carried, conn)
        })
    });
    assert!(flood.iter().any(|(carried, _)| *carried));
    assert!(flood.iter().any(|(carried, _)| !*carried), "the limit was not reached");
    assert!(pair.server.is_running(), "a flood of flows ended the node");
    drop(flood);
    until("flows open again", Duration::from_secs(10), || pair.echoes_within(Duration::from_secs(1)));
    pair.assert_healthy();
}

#[test]
fn a_flow_ends_after_the_idle_timeout_of_its_proxy_and_no_other_does() {
    let limited =
        proxy(Family::V4, "limited", 17_101, SERVER, "127.0.0.1:7001").replace(" }", ", idle_timeout: 1s }");
    let Some(pair) = Pair::with("idle", Family::V4, &Setup { proxies: &limited, ..Setup::default() }) else {
        return;
    };
    let unlimited = pair.client.net().connect(&pair.proxy("echo")).unwrap();
    unlimited.echo(b"then silence").unwrap();

    let busy = pair.client.net().connect("127.0.0.1:17101").unwrap();
    for _ in 0..12 {
        busy.echo(b"x").unwrap();
        sleep(Duration::from_millis(300));
    }
    let idle = pair.client.net().connect("127.0.0.1:17101").unwrap();
    idle.echo(b"then silence").unwrap();
    let (end, time) = idle.timed_end();
    assert_eq!(end, End::Reset);
    assert!(time > Duration::from_millis(700) && time < Duration::from_secs(5), "ended after {time:?}");
    pair.client.wait_for_record(Role::Ingress, "limited", Reason::Idle);
    unlimited.echo(b"after more than 3 s").unwrap();
}

#[test]
fn a_node_that_is_told_to_stop_lets_flows_end_and_then_exits() {
    let setup = Setup { both: "mesh: { drain_timeout: 3s }\n", ..Setup::default() };
    let Some(mut pair) = Pair::with("stop", Family::V4, &setup) else { return };
    let ending = pair.client.net().connect(&pair.proxy("echo")).unwrap();
    let lasting = pair.client.net().connect(&pair.proxy("echo")).unwrap();
    ending.echo(b"x").unwrap();
    lasting.echo(b"x").unwrap();

    let start = Instant::now();
    pair.client.process().terminate();
    sleep(Duration::from_millis(300));
    ending.echo(b"what was begun is finished").unwrap();
    ending.finish().unwrap();
    assert_eq!(ending.end(), End::Closed);
    let status = pair.client.process().wait(Duration::from_secs(8)).expect("it exits");
    let time = start.elapsed();
    assert_eq!(status.code(), Some(0));
    assert!(time > Duration::from_millis(2500), "it did not wait for the flow that goes on: {time:?}");
    assert_ne!(lasting.end(), End::Open);

    // Without flows there is nothing to wait for.
    let start = Instant::now();
    assert_eq!(pair.server.stop().code(), Some(0));
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    // And the sockets are free again.
    pair.start();
    pair.server.wait_for_peer(CLIENT);
    pair.assert_healthy();
}

#[test]
fn a_port_that_is_taken_is_an_error_that_names_it() {
    let Some(mut pair) = Pair::new("taken", Family::V4) else { return };
    pair.client.stop();
    let _taken = ffmesh_lab::Service::echo(pair.client.net(), "127.0.0.1:17001");
    let outcome = pair.client.run(&[&pair.client.config().to_string_lossy()]);
    assert_eq!(outcome.code, Some(1), "{}", outcome.said());
    assert!(outcome.said().contains("17001"), "{}", outcome.said());
    assert!(pair.server.is_running());
}
