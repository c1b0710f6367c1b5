//! Kills, outages, aborted flows and stalled readers cost only what they concern.

use std::thread::sleep;
use std::time::{Duration, Instant};

use ffmesh_api::Role;
use ffmesh_core::reason::Reason;
use ffmesh_lab::{Conn, End, RandomBytes, Service, in_parallel, once_within, until};

use crate::FFMESH;
use crate::pair::{CLIENT, Family, Pair, SERVER, Setup};

const MIB: u64 = 1 << 20;
/// A dead neighbour is noticed within this time when nothing is sent.
const NOTICED: Duration = Duration::from_millis(3500);
/// A restarted node carries flows again within this time of listening.
const BACK: Duration = Duration::from_millis(1500);

#[test]
fn ten_thousand_aborted_downloads_leave_the_link_healthy_and_no_memory_behind() {
    const WARM_UP: usize = 1_000;
    const ABORTS: usize = 10_000;
    const AT_ONCE: usize = 64;
    const GROWTH: u64 = 64 * MIB;
    let Some(mut pair) = Pair::new("aborts", Family::V4) else { return };
    let address = pair.proxy("source");
    let abort = |n: usize| {
        let conn = Conn::open(&address).unwrap();
        // Some would never end by themselves; of the others little is left to send.
        let count = if n.is_multiple_of(16) { u64::MAX } else { MIB };
        conn.send(&Service::request(n as u64, count)).unwrap();
        conn.receive_random(n as u64, 20_000).unwrap();
        // A close with unread bytes is a reset, too.
        if n.is_multiple_of(2) {
            conn.reset();
        }
    };
    let idle = |pair: &Pair| {
        until("no flow is open", Duration::from_secs(20), || {
            pair.client.status().flows_open + pair.server.status().flows_open == 0
        });
    };

    pair.client.net().inside(|| in_parallel(WARM_UP, AT_ONCE, abort));
    idle(&pair);
    let before = [pair.client.process().memory(), pair.server.process().memory()];
    let since = pair.client.peers();
    pair.client.net().inside(|| in_parallel(ABORTS, AT_ONCE, abort));
    idle(&pair);

    let (client, server) = (pair.client.process(), pair.server.process());
    until("the memory is given back", Duration::from_secs(20), || {
        client.memory() < before[0] + GROWTH && server.memory() < before[1] + GROWTH
    });
    for (old, new) in since.iter().zip(pair.client.peers()) {
        assert_eq!((&old.node_id, old.since), (&new.node_id, new.since), "the link was lost");
    }
    // All windows are whole again: a large transfer each way at once.
    pair.client.net().inside(|| {
        in_parallel(8, 8, |n| {
            let conn = Conn::open(&address).unwrap();
            conn.send(&Service::request(n as u64, 32 * MIB)).unwrap();
            conn.receive_random(n as u64, 32 * MIB).unwrap();
        });
    });
    pair.assert_healthy();
}

#[test]
fn readers_stalled_for_a_minute_hold_back_nobody_else() {
    const STALL: Duration = Duration::from_mins(1);
    let Some(mut pair) = Pair::new("stall", Family::V4) else { return };
    let connect = |name| pair.client.net().connect(&pair.proxy(name)).unwrap();
    let stalled: Vec<_> = (0..8)
        .map(|seed| {
            let conn = connect("source");
            conn.send(&Service::request(seed, 64 * MIB)).unwrap();
            conn
        })
        .collect();
    let established = connect("echo");

    let start = Instant::now();
    let mut round: u64 = 0;
    while start.elapsed() < STALL {
        let time = Instant::now();
        established.echo(b"an established flow goes on").unwrap();
        connect("echo").echo(b"a new flow opens").unwrap();
        assert!(time.elapsed() < Duration::from_secs(3), "round {round} took {:?}", time.elapsed());
        if round.is_multiple_of(10) {
            let conn = connect("source");
            conn.send(&Service::request(round, 32 * MIB)).unwrap();
            conn.receive_random(round, 32 * MIB).unwrap();
        }
        round += 1;
        sleep(Duration::from_secs(1));
    }
    for (seed, conn) in (0..).zip(&stalled) {
        conn.receive_random(seed, 64 * MIB).unwrap();
        assert_eq!(conn.end(), End::Closed);
    }
    pair.assert_healthy();
}

#[test]
fn a_killed_peer_is_back_within_a_second_and_a_half_of_listening_again() {
    let Some(mut pair) = Pair::new("killed", Family::V4) else { return };
    // Sooner than its death is noticed, and so late that dialling has slowed down if it does.
    for downtime in [Duration::from_millis(200), Duration::from_secs(6)] {
        once_within(&format!("back after {downtime:?}"), BACK, || {
            let held = pair.client.net().connect(&pair.proxy("echo")).unwrap();
            held.echo(b"a flow of the life before").unwrap();
            pair.server.kill();
            sleep(downtime);
            pair.server.spawn();
            while !pair.server.process().listens_on_udp(3334) {
                assert!(pair.server.is_running());
                sleep(Duration::from_millis(2));
            }
            let listening = Instant::now();
            while !pair.echoes_within(Duration::from_millis(250)) {
                assert!(listening.elapsed() < Duration::from_secs(30), "the peer did not come back");
                sleep(Duration::from_millis(10));
            }
            let time = listening.elapsed();
            assert_eq!(held.end(), End::Reset, "a flow of a killed node must end");
            time
        });
    }
    pair.client.wait_for_record(Role::Ingress, "echo", Reason::Lost);
    pair.assert_healthy();
}

#[test]
fn a_dialling_node_that_was_killed_is_back_at_once() {
    let Some(mut pair) = Pair::new("dialler", Family::V4) else { return };
    let target = pair.server.net().connect(&pair.proxy("echo")).unwrap();
    target.echo(b"through the node that will die").unwrap();
    pair.client.kill();
    pair.client.start();
    until("the restarted node carries flows", Duration::from_secs(5), || {
        pair.echoes_within(Duration::from_millis(500))
    });
    assert_eq!(target.end(), End::Reset);
    pair.assert_healthy();
}

#[test]
fn a_dead_neighbour_is_noticed_within_three_and_a_half_seconds_without_traffic() {
    let Some(mut pair) = Pair::new("dead", Family::V4) else { return };
    once_within("both nodes have noticed", NOTICED, || {
        pair.client.wait_for_peer(SERVER);
        pair.server.wait_for_peer(CLIENT);
        sleep(Duration::from_millis(1200));
        pair.cut();
        let limit = Duration::from_secs(15);
        let time = until("both notice", limit, || !pair.client.sees(SERVER) && !pair.server.sees(CLIENT));
        pair.mend();
        time
    });
    pair.client.wait_for_peer(SERVER);
    pair.server.wait_for_peer(CLIENT);
    pair.client.wait_log(0, &[SERVER, "warn"]);
    pair.assert_healthy();
}

#[test]
fn flows_survive_packets_lost_for_five_seconds() {
    survive_outage("outage", Pair::cut, Pair::mend);
}

#[test]
fn flows_survive_an_interface_that_was_down_for_five_seconds() {
    survive_outage(
        "unplugged",
        |pair| pair.client.net().set_link(pair.server.net(), false),
        |pair| pair.client.net().set_link(pair.server.net(), true),
    );
}

fn survive_outage(name: &str, cut: impl Fn(&Pair), mend: impl Fn(&Pair)) {
    const DOWNLOAD: u64 = 256 * MIB;
    let Some(mut pair) = Pair::new(name, Family::V4) else { return };
    let quiet = pair.client.net().connect(&pair.proxy("echo")).unwrap();
    quiet.echo(b"before").unwrap();
    let busy = pair.client.net().connect(&pair.proxy("source")).unwrap();
    busy.set_patience(Duration::from_mins(1)).unwrap();
    busy.send(&Service::request(51, DOWNLOAD)).unwrap();
    let reader = std::thread::spawn(move || {
        // Slower than the wire, so that the outage falls into it.
        let mut bytes = RandomBytes::new(51);
        let mut left = DOWNLOAD;
        while left > 0 {
            let received = busy.receive_some(128 << 10).unwrap();
            assert!(!received.is_empty(), "{left} bytes are missing");
            bytes.expect(&received);
            left -= received.len() as u64;
            sleep(Duration::from_millis(1));
        }
        busy.end()
    });
    sleep(Duration::from_millis(300));
    cut(&pair);
    quiet.send(b"during").unwrap();
    sleep(Duration::from_secs(5));
    assert!(!reader.is_finished(), "the outage came too late to matter");
    mend(&pair);
    assert_eq!(quiet.receive(6).unwrap(), b"during");
    quiet.echo(b"after").unwrap();
    assert_eq!(reader.join().unwrap(), End::Closed);
    pair.assert_healthy();
}

#[test]
fn an_outage_longer_than_the_hold_resets_flows_with_a_reason() {
    let setup = Setup { both: "mesh: { hold: 3s }\n", ..Setup::default() };
    let Some(mut pair) = Pair::with("hold", Family::V4, &setup) else { return };
    let conn = pair.client.net().connect(&pair.proxy("echo")).unwrap();
    conn.echo(b"before").unwrap();
    pair.cut();
    let (end, time) = conn.timed_end();
    assert_eq!(end, End::Reset, "after {time:?}");
    assert!(time >= Duration::from_secs(3), "given up after {time:?}");
    assert!(time < Duration::from_secs(20), "given up after {time:?}");
    let ended = pair.client.flows().ended;
    assert!(matches!(ended[0].reason, Some(Reason::NoRoute | Reason::Lost)), "{:?}", ended[0]);
    pair.mend();
    pair.client.wait_for_peer(SERVER);
    pair.assert_healthy();
}

#[test]
fn an_upstream_that_is_silent_delays_no_other() {
    // The absent upstream of every pair is silent; this one is deaf from the start, on a network of its own.
    let Some(lab) = ffmesh_lab::Lab::new("silent-up") else { return };
    let lab = lab.with_program(FFMESH);
    let (a, b, c) = (lab.net("a"), lab.net("b"), lab.net("c"));
    lab.wire(&a, &["10.71.1.1/24"], &b, &["10.71.1.2/24"]);
    lab.wire(&a, &["10.71.2.1/24"], &c, &["10.71.2.2/24"]);
    let yaml = "quic:\n  listen_port: 3334\n";
    let upstreams = "quic:\n  upstreams:\n    \
        - { node_id: bbbb, address: \"10.71.1.2:3334\" }\n    \
        - { node_id: cccc, address: \"10.71.2.2:3334\" }\n";
    let (mut a, mut b) = (lab.node(&a, "aaaa", upstreams), lab.node(&b, "bbbb", yaml));
    let mut founder = lab.node(&c, "cccc", yaml);
    founder.init(&["--advertise", "10.71.2.2:3334"]);
    founder.start();
    a.join(&founder.token(&["--node", "aaaa"]));
    // Founded elsewhere: b enrols over a wire of its own.
    lab.wire(b.net(), &["10.71.3.1/24"], &c, &["10.71.3.2/24"]);
    b.net().run("ip", &["route", "add", "10.71.2.2/32", "via", "10.71.3.2"]);
    b.join(&founder.token(&[]));

    c.deafen();
    b.start();
    a.spawn();
    a.wait_ready();
    until("the other upstream is up", Duration::from_secs(3), || a.sees("bbbb"));
    assert!(!a.sees("cccc"));
    c.hear();
    until("the silent one is up", Duration::from_secs(3), || a.sees("cccc"));
    assert!(a.sees("bbbb"));
}

#[test]
fn two_nodes_that_dial_each_other_keep_one_link() {
    let Some(lab) = ffmesh_lab::Lab::new("both") else { return };
    let lab = lab.with_program(FFMESH);
    let (a, b) = (lab.net("a"), lab.net("b"));
    lab.wire(&a, &["10.71.1.1/24"], &b, &["10.71.1.2/24"]);
    let yaml = |other: &str, host: &str| {
        format!(
            "quic:\n  listen_port: 3334\n  upstreams:\n    - {{ node_id: {other}, address: \"{host}:3334\" }}\n\
             proxies:\n  - {{ name: echo, local_port: 17001, target_node_id: {other}, target_address: \"127.0.0.1:7001\" }}\n"
        )
    };
    let mut first = lab.node(&a, "aaaa", &yaml("bbbb", "10.71.1.2"));
    let mut second = lab.node(&b, "bbbb", &yaml("aaaa", "10.71.1.1"));
    let _echoes = [&a, &b].map(|net| Service::echo(net, "127.0.0.1:7001"));
    first.init(&["--advertise", "10.71.1.1:3334"]);
    first.start();
    second.join(&first.token(&[]));
    second.start();
    first.wait_for_peer("bbbb");
    second.wait_for_peer("aaaa");
    let flows = [&a, &b].map(|net| net.connect("127.0.0.1:17001").unwrap());
    for _ in 0..20 {
        for conn in &flows {
            conn.echo(b"while the nodes agree on a link").unwrap();
        }
        sleep(Duration::from_millis(100));
    }
    for (node, other) in [(&first, "bbbb"), (&second, "aaaa")] {
        let peers = node.peers();
        assert_eq!(peers.len(), 1, "{} has two links to {other}: {peers:?}", node.id());
        assert_eq!(node.status().links_up, 1);
    }
    // Which of the two stays depends on how close together they were dialled; both nodes must keep the same.
    until("one link stays", Duration::from_secs(5), || first.peers()[0].dialled != second.peers()[0].dialled);
}
