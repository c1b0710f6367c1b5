//! The laboratory itself, without any node: what tests of FFMesh rely on holds.

#![cfg(target_os = "linux")]
#![allow(clippy::disallowed_methods, reason = "a test may sleep")]

use std::time::{Duration, Instant};

use ffmesh_lab::{Conn, End, Lab, Net, Nginx, RandomBytes, Service, in_parallel, require_programs};

/// Two namespaces, `a` at .1 and `b` at .2 of both families.
fn pair(lab: &Lab) -> (Net, Net) {
    let (a, b) = (lab.net("a"), lab.net("b"));
    lab.wire(&a, &["10.71.1.1/24", "fd71:1::1/64"], &b, &["10.71.1.2/24", "fd71:1::2/64"]);
    (a, b)
}

#[test]
fn bytes_cross_a_wire_exactly_in_both_families() {
    let Some(lab) = Lab::new("bytes") else { return };
    let (a, b) = pair(&lab);
    for host in ["10.71.1.2", "[fd71:1::2]"] {
        let _echo = Service::echo(&b, &format!("{host}:7001"));
        let _digest = Service::digest(&b, &format!("{host}:7002"));
        let _source = Service::source(&b, &format!("{host}:7003"));

        let bytes = RandomBytes::take(1, 1 << 20);
        a.connect(&format!("{host}:7001")).unwrap().echo(&bytes).unwrap();

        let upload = a.connect(&format!("{host}:7002")).unwrap();
        upload.send_random(2, 5_000_001).unwrap();
        upload.finish().unwrap();
        assert_eq!(upload.receive(32).unwrap(), RandomBytes::digest(2, 5_000_001));

        let download = a.connect(&format!("{host}:7003")).unwrap();
        download.send(&Service::request(3, 5_000_001)).unwrap();
        assert_eq!(download.receive_random(3, 5_000_001).unwrap(), RandomBytes::digest(3, 5_000_001));
        assert_eq!(download.end(), End::Closed);
    }
}

#[test]
fn a_thousand_connections_are_served_at_once() {
    let Some(lab) = Lab::new("many") else { return };
    let (a, b) = pair(&lab);
    let _echo = Service::echo(&b, "10.71.1.2:7001");
    a.inside(|| {
        let conns = in_parallel(1000, 64, |_| Conn::open("10.71.1.2:7001").unwrap());
        in_parallel(1000, 1000, |n| conns[n].echo(&RandomBytes::take(n as u64, 10_000)).unwrap());
    });
}

#[test]
fn resets_and_refusals_are_told_from_closing_in_order() {
    let Some(lab) = Lab::new("ends") else { return };
    let (a, b) = pair(&lab);
    let _resetter = Service::resetter(&b, "10.71.1.2:7004");
    let (_witness, ends) = Service::witness(&b, "10.71.1.2:7005");

    let conn = a.connect("10.71.1.2:7004").unwrap();
    conn.send(b"x").unwrap();
    assert_eq!(conn.end(), End::Reset);

    let patience = Duration::from_secs(5);
    let conn = a.connect("10.71.1.2:7005").unwrap();
    conn.receive(1).unwrap();
    conn.reset();
    assert_eq!(ends.recv_timeout(patience).unwrap(), End::Reset);
    drop(a.connect("10.71.1.2:7005").unwrap().receive(1).unwrap());
    assert_eq!(ends.recv_timeout(patience).unwrap(), End::Closed);

    let refused = a.connect("10.71.1.2:7009").unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
}

#[test]
fn a_deaf_namespace_hears_again_and_a_link_that_was_down_comes_up() {
    let Some(lab) = Lab::new("deaf") else { return };
    let (a, b) = pair(&lab);
    for host in ["10.71.1.2", "[fd71:1::2]"] {
        let _echo = Service::echo(&b, &format!("{host}:7001"));
        let conn = a.connect(&format!("{host}:7001")).unwrap();
        conn.echo(b"before").unwrap();
        b.deafen();
        conn.set_patience(Duration::from_millis(300)).unwrap();
        conn.send(b"during").unwrap();
        assert!(conn.receive(6).is_err(), "a packet arrived in a deaf namespace");
        b.hear();
        conn.set_patience(Duration::from_secs(10)).unwrap();
        assert_eq!(conn.receive(6).unwrap(), b"during");

        a.set_link(&b, false);
        a.set_link(&b, true);
        conn.echo(b"after").unwrap();
    }
}

#[test]
fn a_silent_port_neither_answers_nor_refuses() {
    let Some(lab) = Lab::new("silent") else { return };
    let net = lab.net("a");
    net.silence_port(7010);
    let start = Instant::now();
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], 7010));
    let result = net.inside(|| std::net::TcpStream::connect_timeout(&address, Duration::from_millis(500)));
    assert_eq!(result.unwrap_err().kind(), std::io::ErrorKind::TimedOut);
    assert!(start.elapsed() >= Duration::from_millis(400));
}

#[test]
fn without_ipv4_nothing_but_ipv6_works() {
    let Some(lab) = Lab::new("v6") else { return };
    let net = lab.net("a");
    net.without_ipv4();
    let _echo = Service::echo(&net, "[::1]:7001");
    net.connect("[::1]:7001").unwrap().echo(b"hello").unwrap();
    let result = net.inside(|| std::net::TcpListener::bind("127.0.0.1:7001"));
    assert!(result.is_err(), "127.0.0.1 is still there");
}

#[test]
fn unix_sockets_serve_and_go_away() {
    let Some(lab) = Lab::new("unix") else { return };
    let net = lab.net("a");
    let path = lab.dir().join("echo.sock");
    let address = format!("unix:{}", path.display());
    let echo = Service::echo(&net, &address);
    net.connect(&address).unwrap().echo(b"hello").unwrap();
    drop(echo);
    assert!(!path.exists());
}

#[test]
fn nginx_serves_curl_by_a_name_with_two_addresses() {
    if !require_programs(&["nginx", "curl"]) {
        return;
    }
    let Some(lab) = Lab::new("nginx") else { return };
    let (a, b) = pair(&lab);
    a.hosts(&[("web.test", "fd71:1::2"), ("web.test", "10.71.1.2")]);
    let page = RandomBytes::take(4, 100_000);
    // Only IPv4 is served: curl has to try both.
    let _nginx =
        Nginx::start(&b, &lab.dir().join("nginx"), "10.71.1.2:80", &[("page", &page), ("name", b"b")]);
    let curl = a.run("curl", &["-sS", "--fail", "--max-time", "5", "http://web.test/name"]);
    assert_eq!((curl.stdout.as_str(), curl.stderr.as_str()), ("b", ""));
    let file = lab.dir().join("page");
    let got = a.run("curl", &["-sS", "--fail", "-o", &file.to_string_lossy(), "http://web.test/page"]);
    assert!(got.is_success(), "{}", got.stderr);
    assert!(std::fs::read(file).unwrap() == page);
    let unknown = a.run("curl", &["-sS", "--max-time", "5", "http://nowhere.invalid/"]);
    assert_eq!(unknown.code, Some(6), "{}", unknown.stderr);
}

#[test]
fn nothing_is_left_behind_by_a_lab_whose_test_panics() {
    let names = std::sync::Mutex::new(Vec::new());
    let test = || {
        let Some(lab) = Lab::new("panics") else { return };
        let net = lab.net("a");
        net.hosts(&[("x.test", "10.0.0.1")]);
        *names.lock().unwrap() = vec![net.name().to_owned(), lab.dir().to_string_lossy().into_owned()];
        let mut sleep = net.command("sleep");
        sleep.arg("60");
        let _process = ffmesh_lab::Process::start("sleep", sleep, &lab.dir().join("log"));
        panic!("on purpose");
    };
    let result = std::thread::scope(|scope| scope.spawn(test).join());
    let names = names.into_inner().unwrap();
    let [net, dir] = names.as_slice() else { return assert!(result.is_ok()) };
    assert!(result.is_err());
    for path in [format!("/var/run/netns/{net}"), format!("/etc/netns/{net}"), dir.clone()] {
        assert!(!std::path::Path::new(&path).exists(), "{path} was left behind");
    }
}
