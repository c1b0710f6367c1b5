//! How fast it relays. Run it with
//! `cargo test --release -p ffmesh-node --lib throughput -- --ignored --nocapture`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use noq::AsyncUdpSocket as _;

use super::*;

/// Bytes of a packet, and packets of one send: full ones of Ethernet as QUIC makes them, and short ones together and one by one.
const LOADS: [(usize, usize); 3] = [(1461, 10), (64, 60), (64, 1)];
const SECONDS: u64 = 3;

/// Seconds that this thread has run on a processor so far.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos: f64 = stat.split(' ').next().and_then(|nanos| nanos.parse().ok()).unwrap_or_default();
    nanos / 1e9
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Bound within a runtime of its own, which the socket's thread then runs.
fn bound() -> (tokio::runtime::Runtime, Socket) {
    let runtime = runtime();
    let guard = runtime.enter();
    let socket = udp();
    drop(guard);
    (runtime, socket)
}

async fn relay_until(mut node: LabelSocket, stop: &AtomicBool) {
    let mut storage = vec![vec![0; 1 << 16]; 32];
    let mut bufs: Vec<_> = storage.iter_mut().map(|bytes| IoSliceMut::new(bytes)).collect();
    let mut meta = vec![RecvMeta::default(); 32];
    while !stop.load(Ordering::Relaxed) {
        let receive = std::future::poll_fn(|cx| node.poll_recv(cx, &mut bufs, &mut meta));
        let _ = tokio::time::timeout(Duration::from_millis(50), receive).await;
    }
}

#[test]
#[ignore = "a measurement; it asserts nothing about speed"]
fn throughput_of_the_relay() {
    for (length, packets) in LOADS {
        relayed(length, packets);
    }
}

#[expect(clippy::cast_precision_loss, reason = "a measurement that is printed")]
#[expect(clippy::disallowed_methods, reason = "threads of its own, and this one only waits")]
fn relayed(length: usize, packets: usize) {
    let labels = Labels::default();
    let stop = AtomicBool::new(false);
    let ((run_a, a), (run_b, b)) = (bound(), bound());
    let run_node = runtime();
    let guard = run_node.enter();
    let node = label_socket(&labels);
    drop(guard);
    let address = canonical(node.local_addr().unwrap());
    labels.install_relay(label(1), LINK, a.local_addr().unwrap(), hop(b.local_addr().unwrap(), label(2)));
    let started = Instant::now();
    let (received, relay_cpu) = thread::scope(|scope| {
        scope.spawn(|| {
            let contents =
                vec![packet(label(1), Lane::Slot(0), &vec![7; length - LABEL_HEADER_LEN]); packets].concat();
            let to = address;
            let batch =
                Batch { to, from: None, ecn: None, header: &[], contents: &[&contents], segment: length };
            run_a.block_on(async {
                while !stop.load(Ordering::Relaxed) {
                    if a.try_send(&batch).is_err() {
                        let _ = tokio::time::timeout(Duration::from_millis(50), a.writable()).await;
                    }
                }
            });
        });
        let sink = scope.spawn(|| {
            let mut storage = vec![vec![0; 1 << 16]; 32];
            let mut bufs: Vec<_> = storage.iter_mut().map(|bytes| IoSliceMut::new(bytes)).collect();
            let mut meta = vec![RecvMeta::default(); 32];
            let mut bytes = 0;
            run_b.block_on(async {
                while !stop.load(Ordering::Relaxed) {
                    let receive = std::future::poll_fn(|cx| b.poll_recv(cx, &mut bufs, &mut meta));
                    if let Ok(Ok(count)) = tokio::time::timeout(Duration::from_millis(50), receive).await {
                        bytes += meta[..count].iter().map(|meta| meta.len).sum::<usize>();
                    }
                }
            });
            bytes
        });
        let relay = scope.spawn(|| {
            run_node.block_on(relay_until(node, &stop));
            cpu()
        });
        thread::sleep(Duration::from_secs(SECONDS));
        stop.store(true, Ordering::Relaxed);
        (sink.join().unwrap(), relay.join().unwrap())
    });
    let seconds = started.elapsed().as_secs_f64();
    let transit = labels.transit();
    eprintln!(
        "{packets} x {length} bytes: relayed {:.2} Gbit/s, {:.0} packets a second, arrived {:.2} Gbit/s, \
         relay's CPU {:.0} ns a packet, {:.3} s/GB, {:.1} packets a send, dropped {:?}",
        transit.bytes as f64 * 8e-9 / seconds,
        transit.packets as f64 / seconds,
        received as f64 * 8e-9 / seconds,
        relay_cpu / transit.packets as f64 * 1e9,
        relay_cpu / (transit.bytes as f64 / 1e9),
        transit.packets as f64 / transit.sends as f64,
        transit.dropped().collect::<Vec<_>>(),
    );
    assert!(transit.packets > 0);
}
