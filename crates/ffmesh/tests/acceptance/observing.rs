//! What it costs to be looked at: bulk throughput beside what an open console and a scrape each second ask of both nodes.
//!
//! The bound here holds on any machine; the figure is in docs/performance.md.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use ffmesh_lab::{Mesh, Node, Plan, report, require_programs};
use serde_json::json;

use crate::iperf::{median, serve, transfer};
use crate::mesh;

/// Pairs of transfers, one of each unobserved.
const PAIRS: usize = 3;
/// Seconds of each transfer.
const SECONDS: u32 = 3;
/// What must be left at least, in the better of two tries.
const LEAST_SHARE: f64 = 0.85;
/// What a console asks for while it is open; it looks at flows each second only on their page.
const LOOKED_AT: [&str; 5] =
    ["/api/v1/status", "/api/v1/flows", "/api/v1/topology", "/api/v1/peers", "/metrics"];

#[test]
fn observation_is_cheap() {
    if !require_programs(&["iperf3"]) {
        return;
    }
    let Some(mesh) = mesh("observing", &Plan::chain(&["a", "b"])) else { return };
    let _server = serve(&mesh, "b");
    let mut shares = Vec::new();
    for _ in 0..2 {
        let pairs: Vec<_> =
            (0..PAIRS).map(|_| (transfer(&mesh, "b", SECONDS).mbit, observed(&mesh))).collect();
        let share = median(pairs.iter().map(|(alone, observed)| observed / alone));
        shares.push(share);
        report(
            "observing",
            &json!({
                "share": share,
                "alone_mbit": median(pairs.iter().map(|pair| pair.0)),
                "observed_mbit": median(pairs.iter().map(|pair| pair.1)),
            }),
        );
        eprintln!("observed: {share:.3} of the throughput");
        if share >= LEAST_SHARE {
            return;
        }
    }
    panic!("{shares:.2?} of the throughput is left");
}

/// A transfer while both nodes are looked at.
fn observed(mesh: &Mesh) -> f64 {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for node in ["a", "b"].map(|id| mesh.node(id)) {
            scope.spawn(|| listen(node, &done));
            scope.spawn(|| look(node, &done));
        }
        let mbit = transfer(mesh, "b", SECONDS).mbit;
        done.store(true, Ordering::Relaxed);
        mbit
    })
}

/// Asks for everything once a second.
fn look(node: &Node, done: &AtomicBool) {
    while !done.load(Ordering::Relaxed) {
        let begin = Instant::now();
        for path in LOOKED_AT {
            assert!(!node.get(path).is_empty());
        }
        sleep(Duration::from_secs(1).saturating_sub(begin.elapsed()));
    }
}

/// Reads the events.
fn listen(node: &Node, done: &AtomicBool) {
    let mut socket = UnixStream::connect(node.state_dir().join("admin.sock")).unwrap();
    socket.write_all(b"GET /api/v1/events HTTP/1.0\r\nHost: x\r\n\r\n").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let mut buffer = vec![0; 1 << 16];
    let mut read = 0;
    while !done.load(Ordering::Relaxed) {
        read += socket.read(&mut buffer).unwrap_or_default();
    }
    assert!(read > 0, "no event came");
}
