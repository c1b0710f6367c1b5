//! What goes wrong in the laboratory goes wrong as it says.

#![cfg(target_os = "linux")]
#![allow(clippy::disallowed_methods, reason = "a test may sleep")]
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::net::UdpSocket;
use std::thread::sleep;
use std::time::{Duration, Instant};

use ffmesh_lab::{
    Capture, DelayLine, Lab, Line, Load, Net, Pace, RandomBytes, Service, contains, require_programs,
};

const SHORT: Duration = Duration::from_millis(300);

/// Two namespaces, `a` at 10.71.1.1 and `b` at 10.71.1.2.
fn pair(lab: &Lab) -> (Net, Net) {
    let (a, b) = (lab.net("a"), lab.net("b"));
    lab.wire(&a, &["10.71.1.1/24"], &b, &["10.71.1.2/24"]);
    (a, b)
}

/// `a` at 10.71.1.1, a router, and `b` at 10.71.2.2.
fn routed(lab: &Lab) -> (Net, Net, Net) {
    let (a, router, b) = (lab.net("a"), lab.net("router"), lab.net("b"));
    lab.wire(&a, &["10.71.1.1/24"], &router, &["10.71.1.2/24"]);
    lab.wire(&router, &["10.71.2.1/24"], &b, &["10.71.2.2/24"]);
    router.route_packets();
    a.add_route("default", "10.71.1.2");
    b.add_route("default", "10.71.2.1");
    (a, router, b)
}

fn udp(net: &Net, address: &str) -> UdpSocket {
    let socket = net.inside(|| UdpSocket::bind(address)).unwrap();
    socket.set_read_timeout(Some(SHORT)).unwrap();
    socket
}

/// Whether a datagram arrives.
fn passes(from: &UdpSocket, to: &UdpSocket, length: usize) -> bool {
    let bytes = RandomBytes::take(length as u64, length);
    from.send_to(&bytes, to.local_addr().unwrap()).expect("the sender is told nothing");
    let mut buffer = [0; 2000];
    to.recv(&mut buffer).is_ok_and(|count| buffer[..count] == bytes[..])
}

#[test]
fn one_direction_goes_silent_and_the_other_goes_on() {
    let Some(lab) = Lab::new("one-way") else { return };
    let (a, b) = pair(&lab);
    let ends = [udp(&a, "10.71.1.1:5001"), udp(&b, "10.71.1.2:5001")];
    b.deafen_to(&a);
    assert!(!passes(&ends[0], &ends[1], 100));
    assert!(passes(&ends[1], &ends[0], 100));
    b.hear_from(&a);
    assert!(passes(&ends[0], &ends[1], 100));
}

#[test]
fn the_share_that_is_lost_is_about_right() {
    let Some(lab) = Lab::new("loss") else { return };
    let (a, b) = pair(&lab);
    let (from, to) = (udp(&a, "10.71.1.1:5001"), udp(&b, "10.71.1.2:5001"));
    b.lose_from(&a, 30);
    let arrived = (0..1000)
        .filter(|_| {
            from.send_to(b"x", to.local_addr().unwrap()).unwrap();
            to.set_read_timeout(Some(Duration::from_millis(2))).unwrap();
            to.recv(&mut [0; 10]).is_ok()
        })
        .count();
    assert!((550..=850).contains(&arrived), "{arrived} of 1000");
    b.lose_nothing_from(&a);
    to.set_read_timeout(Some(SHORT)).unwrap();
    assert!((0..50).all(|_| passes(&from, &to, 10)));
}

#[test]
fn a_router_hides_a_source_and_forgets_it() {
    let Some(lab) = Lab::new("nat") else { return };
    if !require_programs(&["conntrack"]) {
        return;
    }
    let (a, router, b) = routed(&lab);
    let (inside, outside) = (udp(&a, "10.71.1.1:5001"), udp(&b, "10.71.2.2:5001"));
    for first_port in [20_000, 30_000] {
        router.masquerade(&b, first_port);
        inside.send_to(b"x", "10.71.2.2:5001").unwrap();
        let (_, source) = outside.recv_from(&mut [0; 10]).unwrap();
        assert_eq!(source.ip().to_string(), "10.71.2.1");
        assert!((first_port..first_port + 1000).contains(&source.port()), "{source}");
        outside.send_to(b"y", source).unwrap();
        assert_eq!(inside.recv(&mut [0; 10]).unwrap(), 1);
    }
}

#[test]
fn a_router_drops_what_is_too_long_and_says_nothing() {
    let Some(lab) = Lab::new("mtu") else { return };
    let (a, router, b) = routed(&lab);
    let (from, to) = (udp(&a, "10.71.1.1:5001"), udp(&b, "10.71.2.2:5001"));
    assert!(passes(&from, &to, 1400));
    router.drop_longer_than(1280);
    assert!(!passes(&from, &to, 1400));
    assert!(passes(&from, &to, 1200));
}

#[test]
fn a_slow_wire_carries_its_rate() {
    let Some(lab) = Lab::new("slow") else { return };
    let (a, b) = pair(&lab);
    let _source = Service::source(&b, "10.71.1.2:7003");
    b.limit_rate_to(&a, 100);
    let start = Instant::now();
    let conn = a.connect("10.71.1.2:7003").unwrap();
    conn.send(&Service::request(1, 20_000_000)).unwrap();
    conn.receive_random(1, 20_000_000).unwrap();
    let time = start.elapsed();
    // 1.6 s of payload.
    assert!(time > Duration::from_millis(1500), "{time:?}");
}

#[test]
fn a_long_line_takes_its_time_in_both_directions() {
    let Some(lab) = Lab::new("long") else { return };
    let (a, b) = pair(&lab);
    let far = udp(&b, "10.71.1.2:5001");
    let line = Line { delay: Duration::from_millis(20), ..Line::default() };
    let _line = DelayLine::start(&b, "10.71.1.2:6001", "10.71.1.2:5001", line);
    for near in [udp(&a, "10.71.1.1:5001"), udp(&a, "10.71.1.1:5002")] {
        let start = Instant::now();
        near.send_to(b"there", "10.71.1.2:6001").unwrap();
        let (_, source) = far.recv_from(&mut [0; 10]).unwrap();
        assert!(start.elapsed() >= line.delay);
        far.send_to(b"back", source).unwrap();
        let (count, from) = near.recv_from(&mut [0; 10]).unwrap();
        assert_eq!((count, from.to_string().as_str()), (4, "10.71.1.2:6001"));
        assert!(start.elapsed() >= 2 * line.delay);
    }
}

#[test]
fn a_load_notes_silences_and_lost_flows() {
    const CUT: Duration = Duration::from_millis(400);
    let Some(lab) = Lab::new("load") else { return };
    let (a, b) = pair(&lab);
    let at = "10.71.1.2:7004";
    let load = Load::start(&a, at, &b, at, 50, Pace::STEADY);
    let before = Instant::now();
    sleep(Duration::from_secs(1));
    let cut = Instant::now();
    b.deafen_to(&a);
    sleep(CUT);
    // Nothing arrives anywhere: acknowledgements are missing, too.
    assert!(load.silent_for(CUT / 2) >= 50);
    b.hear_from(&a);
    load.wait_flowing();
    let report = load.finish(Duration::from_secs(20));
    assert_eq!(report.lost, Vec::<String>::new());
    let stall = report.stalls(&[cut])[0];
    assert!(stall >= CUT, "{stall:?}");
    assert_eq!(report.longest_silence(), stall);
    assert!(report.worst_silence(before, cut) <= stall);
    // At least half of what 50 flows of 20 kB/s send in a second, both ways.
    assert!(report.bytes > 1_000_000, "{} bytes", report.bytes);

    let load = Load::start(&a, at, &b, at, 10, Pace::STEADY);
    b.nft(
        "add table inet t; add chain inet t c { type filter hook input priority 0; }; \
         add rule inet t c tcp dport 7004 reject with tcp reset",
    );
    sleep(SHORT);
    let report = load.finish(SHORT);
    assert!(report.lost.len() >= 10, "{:?}", report.lost);
}

#[test]
fn what_passes_a_namespace_can_be_searched() {
    let Some(lab) = Lab::new("capture") else { return };
    if !require_programs(&["tcpdump"]) {
        return;
    }
    let (a, b) = pair(&lab);
    let capture = Capture::start(&b, lab.dir(), "udp");
    let ends = [udp(&a, "10.71.1.1:5001"), udp(&b, "10.71.1.2:5001")];
    assert!(passes(&ends[0], &ends[1], 1000));
    let bytes = capture.finish();
    assert!(contains(&bytes, &RandomBytes::take(1000, 1000)));
    assert!(!contains(&bytes, &RandomBytes::take(1001, 50)));
}
