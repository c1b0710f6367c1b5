//! `ffmesh speedtest` measures what the line carries, one direction like the other, and one test at a time.

use std::time::Duration;

use ffmesh_api::Speedtest;
use ffmesh_core::reason::Reason;
use ffmesh_lab::{Plan, report, until};
use serde_json::{Value, json};

use crate::mesh;
use crate::pair::{Family, Pair, SERVER};

/// Mbit/s of the line to the other node, and back.
const UP: u32 = 50;
const DOWN: u32 = 20;
/// Shares of the line that a result may have: headers and the first round trips cost something, and the line lets a
/// few packets through at once.
const SHARES: std::ops::RangeInclusive<f64> = 0.7..=1.05;

fn assert_is_the_line(measured: &Speedtest, hops: usize) {
    report("speedtest", &json!({ "line_up_mbit": UP, "line_down_mbit": DOWN, "measured": measured }));
    for (way, line) in [(&measured.up, UP), (&measured.down, DOWN)] {
        let share = way.mbit_per_s / f64::from(line);
        assert!(SHARES.contains(&share), "{share:.2} of {line} Mbit/s: {measured:?}");
        assert!((1.0..6.0).contains(&way.seconds), "{measured:?}");
    }
    assert!(measured.rtt_idle_ms.is_some() && measured.rtt_loaded_ms.is_some(), "{measured:?}");
    assert_eq!(measured.route.len(), hops + 1, "{measured:?}");
}

#[test]
fn it_measures_a_line_that_is_slower_one_way() {
    let Some(pair) = Pair::new("speed", Family::V4) else { return };
    pair.client.net().limit_rate_to(pair.server.net(), UP);
    pair.server.net().limit_rate_to(pair.client.net(), DOWN);
    let measured: Speedtest = pair.client.json(&["speedtest", SERVER]);
    assert_is_the_line(&measured, 1);
    // Both nodes have it among their flows.
    for node in [&pair.client, &pair.server] {
        let flows = node.flows();
        let test = flows.ended.iter().find(|flow| flow.proxy == "speedtest").expect("a flow");
        assert_eq!(test.reason, Some(Reason::Done), "{test:?}");
        assert!(test.bytes_up >= measured.up.bytes && test.bytes_down >= measured.down.bytes, "{test:?}");
    }
}

#[test]
fn it_measures_through_a_relay() {
    let Some(mesh) = mesh("speed-r", &Plan::new(&["r", "a", "b"]).link("a", "r").link("b", "r")) else {
        return;
    };
    mesh.net("r").limit_rate_to(mesh.net("b"), UP);
    mesh.net("r").limit_rate_to(mesh.net("a"), DOWN);
    assert_is_the_line(&mesh.node("a").json(&["speedtest", "b"]), 2);
}

#[test]
fn a_drain_does_not_wait_for_a_test() {
    let Some(mut pair) = Pair::new("speed-drain", Family::V4) else { return };
    std::thread::scope(|scope| {
        let client = &pair.client;
        let test = scope.spawn(|| client.ask(&["speedtest", SERVER, "--duration", "30s"]));
        let server = &mut pair.server;
        until("the test runs", Duration::from_secs(10), || {
            server.flows().open.iter().any(|flow| flow.proxy == "speedtest" && flow.connected)
        });
        // Well within mesh.drain_timeout, and within the test.
        server.stop();
        let cut = test.join().unwrap();
        assert!(!cut.is_success() && cut.stderr.contains("drained"), "{}", cut.said());
    });
}

#[test]
fn a_second_test_meanwhile_is_refused_and_the_next_is_not() {
    let Some(pair) = Pair::new("speed-two", Family::V4) else { return };
    pair.client.net().limit_rate_to(pair.server.net(), UP);
    pair.server.net().limit_rate_to(pair.client.net(), DOWN);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| pair.client.json::<Speedtest>(&["speedtest", SERVER, "--duration", "4s"]));
        until("the first test runs", Duration::from_secs(10), || {
            pair.server.flows().open.iter().any(|flow| flow.proxy == "speedtest" && flow.connected)
        });
        let second = pair.client.ask(&["speedtest", SERVER]);
        assert!(!second.is_success() && second.stderr.contains("(limit)"), "{}", second.said());
        assert_is_the_line(&first.join().unwrap(), 1);
    });
    let third: Value = pair.client.json(&["speedtest", SERVER, "--duration", "1s"]);
    assert!(third["up"]["bytes"].as_u64().unwrap() > 0, "{third}");
}
