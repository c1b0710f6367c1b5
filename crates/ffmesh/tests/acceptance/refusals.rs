//! What a client sees when its target can't be reached, how soon, and what the nodes say about it.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use ffmesh_api::Role;
use ffmesh_core::reason::Reason;
use ffmesh_lab::{End, once_within};

use crate::pair::{Family, Pair, SERVER, Setup, UNKNOWN, proxy};
use crate::transfer::over_each_family;

/// A client whose target refuses, is denied or has no route knows within this time.
const AT_ONCE: Duration = Duration::from_secs(1);
/// A client of a node that can't be reached knows within 3 s, and some for a busy machine.
const NO_ROUTE: Duration = Duration::from_secs(4);

over_each_family! {
    a_refused_a_denied_and_an_unroutable_target_reset_the_client_within_a_second,
    a_node_without_a_route_resets_the_client_within_three_seconds,
    a_silent_target_resets_the_client_after_ten_seconds,
}

fn a_refused_a_denied_and_an_unroutable_target_reset_the_client_within_a_second(name: &str, family: Family) {
    let Some(mut pair) = Pair::new(name, family) else { return };
    let target = |host: &str, port| format!("{host}:{port}");
    let cases = [
        ("refused", Reason::Refused, target(family.target_host(), 7009)),
        ("denied", Reason::Denied, target(family.server_host(), 7001)),
        ("unroutable", Reason::Unroutable, target("nowhere.invalid", 80)),
    ];
    for (proxy, reason, target) in cases {
        for speaks in [false, true] {
            once_within(&format!("{proxy} is reset"), AT_ONCE, || time_of_reset(&pair, proxy, speaks));
        }
        let record = pair.client.wait_for_record(Role::Ingress, proxy, reason);
        assert_eq!((record.peer.as_str(), record.target.as_str()), (SERVER, target.as_str()));
        assert!(!record.connected);
        pair.server.wait_for_record(Role::Egress, proxy, reason);
        for node in [&pair.client, &pair.server] {
            node.wait_log(0, &[reason.as_str(), &target]);
        }
        let proxies = pair.client.proxies();
        let counted = proxies.iter().find(|p| p.name == proxy).unwrap();
        assert!(counted.flows_failed >= 2, "{proxy}: {counted:?}");
    }
    pair.assert_healthy();
}

fn a_node_without_a_route_resets_the_client_within_three_seconds(name: &str, family: Family) {
    let Some(mut pair) = Pair::new(name, family) else { return };
    for (proxy, reason) in [("unknown", Reason::UnknownNode), ("absent", Reason::NoRoute)] {
        once_within(&format!("{proxy} is reset"), NO_ROUTE, || time_of_reset(&pair, proxy, true));
        let record = pair.client.wait_for_record(Role::Ingress, proxy, reason);
        assert!(!record.connected);
        pair.client.wait_log(0, &[reason.as_str(), record.peer.as_str()]);
    }
    assert!(pair.client.log().contains(UNKNOWN));
    pair.assert_healthy();
}

fn a_silent_target_resets_the_client_after_ten_seconds(name: &str, family: Family) {
    let Some(mut pair) = Pair::new(name, family) else { return };
    let time = time_of_reset(&pair, "silent", true);
    assert!((9..13).contains(&time.as_secs()), "a silent target was given up after {time:?}");
    pair.client.wait_for_record(Role::Ingress, "silent", Reason::Timeout);
    pair.server.wait_for_record(Role::Egress, "silent", Reason::Timeout);
    for node in [&pair.client, &pair.server] {
        node.wait_log(0, &[Reason::Timeout.as_str(), &format!("{}:7010", family.target_host())]);
    }
    pair.assert_healthy();
}

#[test]
fn rules_decide_in_their_order_and_an_allowed_address_without_a_route_is_unroutable() {
    let proxies = [
        ("allowed", 17_101, "10.71.1.2:7101"),
        ("forbidden", 17_102, "127.0.0.1:7001"),
        ("nowhere", 17_103, "203.0.113.1:80"),
        ("metadata", 17_104, "169.254.169.254:80"),
    ]
    .map(|(name, port, target)| proxy(Family::V4, name, port, SERVER, target))
    .concat();
    let server = "access:\n  \
        - { from: [\"*\"], to: [\"127.0.0.1:7001\"], action: deny }\n  \
        - { from: [\"*\"], to: [\"0.0.0.0/0:*\"], action: allow }\n";
    let setup = Setup { proxies: &proxies, server, ..Setup::default() };
    let Some(pair) = Pair::with("rules", Family::V4, &setup) else { return };
    let _echo = ffmesh_lab::Service::echo(pair.server.net(), "10.71.1.2:7101");
    pair.client.net().connect("127.0.0.1:17101").unwrap().echo(b"allowed").unwrap();
    for (name, port, reason) in [
        ("forbidden", 17_102, Reason::Denied),
        ("nowhere", 17_103, Reason::Unroutable),
        ("metadata", 17_104, Reason::Denied),
    ] {
        let conn = pair.client.net().connect(&format!("127.0.0.1:{port}")).unwrap();
        assert_eq!(conn.end(), End::Reset, "{name}");
        pair.client.wait_for_record(Role::Ingress, name, reason);
        pair.server.wait_for_record(Role::Egress, name, reason);
    }
}

#[test]
fn a_node_never_dials_its_own_listeners() {
    // Else a flow could run in circles, or reach the admin API as a local client.
    let circle = proxy(Family::V4, "circle", 17_101, SERVER, "127.0.0.1:17001");
    let Some(pair) = Pair::with("circle", Family::V4, &Setup { proxies: &circle, ..Setup::default() }) else {
        return;
    };
    let conn = pair.client.net().connect("127.0.0.1:17101").unwrap();
    assert_eq!(conn.end(), End::Reset);
    pair.server.wait_for_record(Role::Egress, "circle", Reason::Denied);
}

/// Connects through the client's proxy, with first bytes or without, and returns when the reset came.
fn time_of_reset(pair: &Pair, proxy: &str, speaks: bool) -> Duration {
    let address = pair.proxy(proxy);
    let (end, time) = if speaks {
        let start = Instant::now();
        let end = pair.client.net().connect(&address).map(|conn| {
            let _ = conn.send(b"GET / HTTP/1.0\r\n\r\n"); // the reset may be faster
            conn.end()
        });
        let end =
            end.or_else(|e| if e.kind() == ErrorKind::ConnectionReset { Ok(End::Reset) } else { Err(e) });
        (end.unwrap(), start.elapsed())
    } else {
        pair.client.net().timed_end_of(&address).unwrap()
    };
    assert_eq!(end, End::Reset, "{proxy}: the client must see a failure, not an empty reply");
    time
}
