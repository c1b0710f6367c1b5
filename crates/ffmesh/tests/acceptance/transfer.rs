//! Bytes arrive exactly, each direction closes by itself, a reset is seen as a reset.

use std::time::Duration;

use ffmesh_api::Role;
use ffmesh_core::reason::Reason;
use ffmesh_lab::{Conn, End, Node, RandomBytes, Service, in_parallel, until};

use crate::pair::{CLIENT, Family, Pair, SERVER};

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;

/// Runs each of these tests over each family.
macro_rules! over_each_family {
    ($($test:ident),* $(,)?) => {
        mod over_ipv4 {
            $(#[test] fn $test() { super::$test("v4", crate::pair::Family::V4); })*
        }
        mod over_ipv6_only {
            $(#[test] fn $test() { super::$test("v6", crate::pair::Family::V6Only); })*
        }
        mod over_names_of_both_families {
            $(#[test] fn $test() { super::$test("names", crate::pair::Family::Names); })*
        }
    };
}
pub(crate) use over_each_family;

over_each_family! {
    a_gibibyte_keeps_its_digest_up_and_down,
    a_thousand_connections_at_once_are_each_exact,
    a_request_that_half_closes_gets_its_reply,
    a_reset_is_seen_as_a_reset_at_the_other_end,
    a_node_that_was_dialled_is_an_ingress_too,
}

fn a_gibibyte_keeps_its_digest_up_and_down(name: &str, family: Family) {
    let Some(mut pair) = Pair::new(name, family) else { return };
    upload(&pair.client, &pair.proxy("digest"), 11, GIB);
    download(&pair.client, &pair.proxy("source"), 12, GIB);
    let record = pair.server.wait_for_record(Role::Egress, "source", Reason::Done);
    assert_eq!((record.peer.as_str(), record.bytes_down), (CLIENT, GIB));
    let record = pair.client.wait_for_record(Role::Ingress, "digest", Reason::Done);
    assert_eq!((record.peer.as_str(), record.bytes_up, record.bytes_down), (SERVER, GIB, 32));
    assert!(record.connected);
    pair.assert_healthy();
}

fn a_thousand_connections_at_once_are_each_exact(name: &str, family: Family) {
    const COUNT: usize = 1000;
    let Some(mut pair) = Pair::new(name, family) else { return };
    let address = pair.proxy("echo");
    pair.client.net().inside(|| {
        let conns = in_parallel(COUNT, 50, |_| Conn::open(&address).unwrap());
        // All of them are open at once: each has echoed before the first is closed.
        in_parallel(COUNT, 100, |n| conns[n].echo(&[n.to_le_bytes()[0]]).unwrap());
        assert_eq!(pair.client.flows().open.len(), COUNT);
        in_parallel(COUNT, COUNT, |n| {
            let bytes = RandomBytes::take(n as u64, 20_000 + n);
            conns[n].echo(&bytes).unwrap();
            conns[n].finish().unwrap();
            assert_eq!(conns[n].end(), End::Closed);
        });
    });
    until("all flows have ended", Duration::from_secs(5), || {
        pair.client.flows().open.is_empty() && pair.server.flows().open.is_empty()
    });
    pair.assert_healthy();
}

fn a_request_that_half_closes_gets_its_reply(name: &str, family: Family) {
    let Some(pair) = Pair::new(name, family) else { return };
    // The digest service answers only when its client has finished.
    for (seed, count) in [(21, 0), (22, 1), (23, 100_000), (24, 10 * MIB)] {
        upload(&pair.client, &pair.proxy("digest"), seed, count);
    }
    // And the other way about: the service closes first, then the client still sends.
    let (counts, seen) = std::sync::mpsc::channel();
    let listen = format!("{}:7005", family.loopback());
    let _first = Service::new(pair.server.net(), &listen, move |conn| {
        let _ = conn.send(b"bye").and_then(|()| conn.finish());
        let _ = counts.send(conn.receive_digest());
    });
    let conn = pair.client.net().connect(&pair.proxy("witness")).unwrap();
    assert_eq!(conn.receive(3).unwrap(), b"bye");
    assert_eq!(conn.end(), End::Closed);
    conn.send_random(25, MIB).unwrap();
    conn.finish().unwrap();
    let received = seen.recv_timeout(Duration::from_secs(10)).unwrap().unwrap();
    assert_eq!(received, (RandomBytes::digest(25, MIB), MIB));
}

fn a_reset_is_seen_as_a_reset_at_the_other_end(name: &str, family: Family) {
    let Some(mut pair) = Pair::new(name, family) else { return };
    let patience = Duration::from_secs(5);
    for (from, to) in [(&pair.client, &pair.server), (&pair.server, &pair.client)] {
        // By the service,
        let conn = from.net().connect(&pair.proxy("resetter")).unwrap();
        conn.receive(1).unwrap();
        conn.send(b"x").unwrap();
        conn.set_patience(patience).unwrap();
        assert_eq!(conn.end(), End::Reset, "a reset by the service behind {}", to.id());
        from.wait_for_record(Role::Ingress, "resetter", Reason::Reset);
        to.wait_for_record(Role::Egress, "resetter", Reason::Reset);

        // by the client,
        let (_witness, ends) = Service::witness(to.net(), &format!("{}:7005", family.loopback()));
        let conn = from.net().connect(&pair.proxy("witness")).unwrap();
        conn.receive(1).unwrap();
        conn.reset();
        assert_eq!(
            ends.recv_timeout(patience).unwrap(),
            End::Reset,
            "a reset by the client of {}",
            from.id()
        );
        to.wait_for_record(Role::Egress, "witness", Reason::Reset);

        // and closing in order is none.
        let conn = from.net().connect(&pair.proxy("witness")).unwrap();
        conn.receive(1).unwrap();
        drop(conn);
        assert_eq!(ends.recv_timeout(patience).unwrap(), End::Closed);
    }
    pair.assert_healthy();
}

fn a_node_that_was_dialled_is_an_ingress_too(name: &str, family: Family) {
    let Some(mut pair) = Pair::new(name, family) else { return };
    upload(&pair.server, &pair.proxy("digest"), 31, 64 * MIB);
    download(&pair.server, &pair.proxy("source"), 32, 64 * MIB);
    let address = pair.proxy("echo");
    pair.server.net().inside(|| {
        in_parallel(100, 100, |n| {
            Conn::open(&address).unwrap().echo(&RandomBytes::take(n as u64, 50_000)).unwrap();
        });
    });
    pair.server.wait_for_record(Role::Ingress, "source", Reason::Done);
    pair.assert_healthy();
}

#[test]
fn the_first_bytes_of_a_client_that_waits_for_its_server_are_not_waited_for() {
    // A protocol in which the server speaks first, such as SSH or SMTP.
    let Some(pair) = Pair::new("first", Family::V4) else { return };
    let (_witness, _ends) = Service::witness(pair.server.net(), "127.0.0.1:7005");
    let conn = pair.client.net().connect(&pair.proxy("witness")).unwrap();
    conn.set_patience(Duration::from_secs(5)).unwrap();
    assert_eq!(conn.receive(1).unwrap(), b"x");
}

#[test]
fn a_client_that_sends_everything_and_closes_at_once_loses_nothing() {
    let Some(pair) = Pair::new("hasty", Family::V4) else { return };
    let (digests, seen) = std::sync::mpsc::channel();
    let _sink = Service::new(pair.server.net(), "127.0.0.1:7005", move |conn| {
        let _ = digests.send(conn.receive_digest());
    });
    for (seed, count) in [(41, 1), (42, 1000), (43, 100_000), (44, MIB)] {
        let conn = pair.client.net().connect(&pair.proxy("witness")).unwrap();
        conn.send_random(seed, count).unwrap();
        drop(conn);
        let received = seen.recv_timeout(Duration::from_secs(10)).unwrap().unwrap();
        assert_eq!(received, (RandomBytes::digest(seed, count), count));
    }
}

/// Sends random bytes, half-closes, and reads the digest that the service made of them.
fn upload(node: &Node, address: &str, seed: u64, count: u64) {
    let expected = RandomBytes::digest(seed, count);
    let conn = node.net().connect(address).unwrap();
    conn.send_random(seed, count).unwrap();
    conn.finish().unwrap();
    assert_eq!(conn.receive(32).unwrap(), expected, "{count} bytes up through {}", node.id());
    assert_eq!(conn.end(), End::Closed);
}

fn download(node: &Node, address: &str, seed: u64, count: u64) {
    let expected = RandomBytes::digest(seed, count);
    let conn = node.net().connect(address).unwrap();
    conn.send(&Service::request(seed, count)).unwrap();
    assert_eq!(
        conn.receive_random(seed, count).unwrap(),
        expected,
        "{count} bytes down through {}",
        node.id()
    );
    assert_eq!(conn.end(), End::Closed);
}
