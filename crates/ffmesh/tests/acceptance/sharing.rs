//! One connection over two relays: their rates add up, and one that dies or loses packets costs its share only.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use ffmesh_lab::{Mesh, RandomBytes, Service, report, until};
use serde_json::json;

use crate::{diamond, mesh};

/// What each relay passes on.
const RELAY_MBIT: u32 = 300;
/// How long a rate is measured.
const MEASURED: Duration = Duration::from_secs(3);
const SEED: u64 = 61;

/// A download without an end, every byte of which is checked.
pub(crate) struct Download {
    received: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    reading: JoinHandle<()>,
}

impl Download {
    pub(crate) fn start(mesh: &Mesh) -> Self {
        let conn = mesh.connect("a", "b", "source").unwrap();
        conn.send(&Service::request(SEED, u64::MAX)).unwrap();
        let (received, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let reading = std::thread::spawn({
            let (received, stop) = (received.clone(), stop.clone());
            move || {
                let mut bytes = RandomBytes::new(SEED);
                while !stop.load(Ordering::Relaxed) {
                    let piece = conn.receive_some(256 << 10).expect("the download goes on");
                    assert!(!piece.is_empty(), "the download has ended");
                    bytes.expect(&piece);
                    received.fetch_add(piece.len() as u64, Ordering::Relaxed);
                }
            }
        });
        Self { received, stop, reading }
    }

    /// Mbit/s from now on.
    fn rate(&self) -> f64 {
        let (start, before) = (Instant::now(), self.received.load(Ordering::Relaxed));
        sleep(MEASURED);
        assert!(!self.reading.is_finished(), "the download has failed");
        let bytes = u32::try_from(self.received.load(Ordering::Relaxed) - before).unwrap();
        f64::from(bytes) * 8.0 / 1e6 / start.elapsed().as_secs_f64()
    }

    /// Bytes until now.
    pub(crate) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    pub(crate) fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Err(panic) = self.reading.join() {
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn one_connection_gets_the_rates_of_both_relays_and_outlives_one() {
    let Some(mut mesh) = mesh("sharing", &diamond()) else { return };
    for relay in ["r1", "r2"] {
        mesh.limit_relay(relay, ["a", "b"], RELAY_MBIT);
    }
    let download = Download::start(&mesh);
    let both_ready = |mesh: &Mesh| mesh.node("a").routes_to("b").len() == 2;
    until("both relays are ready", Duration::from_secs(10), || both_ready(&mesh));
    sleep(Duration::from_secs(2));
    let both = download.rate();

    mesh.node_mut("r1").kill();
    sleep(Duration::from_secs(1));
    let one = download.rate();

    mesh.node_mut("r1").start();
    until("both relays are ready again", Duration::from_secs(10), || both_ready(&mesh));
    sleep(Duration::from_secs(2));
    let again = download.rate();

    // A third of what r1 passes on is lost, in both directions.
    for end in ["a", "b"] {
        mesh.net(end).one_packet_at_a_time(mesh.net("r1"));
        mesh.net(end).lose_from(mesh.net("r1"), 30);
    }
    sleep(Duration::from_secs(2));
    let lossy = download.rate();
    download.end();

    let figures = json!({
        "relay_mbit": RELAY_MBIT, "both": both, "one_killed": one, "both_again": again, "one_loses_30_percent": lossy,
    });
    report("sharing", &figures);
    let relay = f64::from(RELAY_MBIT);
    assert!(one >= 0.8 * relay, "{one:.0} Mbit/s over the relay that is left");
    assert!(both >= 1.5 * one, "{both:.0} Mbit/s over two relays, {one:.0} over one");
    assert!(again >= 1.5 * one, "{again:.0} Mbit/s over two relays again, {one:.0} over one");
    assert!(
        lossy >= 0.8 * one,
        "{lossy:.0} Mbit/s where one relay loses packets, {one:.0} over one that does not"
    );
}
