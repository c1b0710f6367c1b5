//! What the socket and a session share of each circuit that begins or ends here.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ffmesh_core::label::{LABEL_HEADER_LEN, Label, Lane};
use ffmesh_core::time::Time;
use ffmesh_udp::{Batch, Socket};
use tokio::sync::{Notify, mpsc};

use super::address::SessionAddr;

/// Longest body of a probe, in bytes. Far below any MTU, so that a probe never asks how much a path carries.
pub const MAX_PROBE_LEN: usize = 256;

/// The first hop of a circuit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hop {
    /// The neighbour's current address
    pub to: SocketAddr,
    /// This node's address on the link to it
    pub from: Option<IpAddr>,
    /// The label that the neighbour accepts
    pub label: Label,
    /// Serial of the link to it
    pub link: u64,
}

/// Where the packets of a slot go now.
#[derive(Debug, Clone)]
pub struct Way {
    /// The first hop
    pub hop: Hop,
    /// That of the circuit
    pub activity: Arc<Activity>,
}

/// One end of a circuit: whose packets come by it, and who is told.
#[derive(Debug, Clone)]
pub struct CircuitEnd {
    /// The session that the circuit serves
    pub session: SessionAddr,
    /// The circuit's number
    pub circuit: u64,
    /// That of the circuit
    pub activity: Arc<Activity>,
    /// Takes the probes that come by it; what does not fit is lost, as on a network
    pub probes: mpsc::Sender<ReceivedProbe>,
}

/// A probe that came by a circuit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceivedProbe {
    /// Number of the circuit
    pub circuit: u64,
    /// What stands behind the label, at most [`MAX_PROBE_LEN`] bytes. Nothing says who wrote it
    pub bytes: Vec<u8>,
    /// When it was received
    pub at: Time,
}

/// Without data for this long, the next data is news to the session, which then probes faster.
const PAUSE: Duration = Duration::from_millis(500);

/// When a circuit that begins or ends here last carried something, in [`clock`](crate::clock) time; zero is never.
#[derive(Debug, Default)]
pub struct Activity {
    heard: AtomicU64,
    heard_data: AtomicU64,
    sent_data: AtomicU64,
    /// Told of the first data after a [`PAUSE`]
    resumed: Arc<Notify>,
}

impl Activity {
    /// Nothing yet. `resumed` is told of the first data after a pause of 500 ms.
    pub fn new(resumed: Arc<Notify>) -> Self {
        Self { resumed, ..Self::default() }
    }

    /// The last packet of any kind that came in.
    pub fn heard(&self) -> Time {
        Time(self.heard.load(Ordering::Relaxed))
    }

    /// The last QUIC packet that came in.
    pub fn heard_data(&self) -> Time {
        Time(self.heard_data.load(Ordering::Relaxed))
    }

    /// The last QUIC packet that was to go out.
    pub fn sent_data(&self) -> Time {
        Time(self.sent_data.load(Ordering::Relaxed))
    }

    pub(super) fn hear(&self, at: Time, lane: Lane) {
        self.heard.store(at.0, Ordering::Relaxed);
        if lane != Lane::Probe {
            self.data(&self.heard_data, at);
        }
    }

    pub(super) fn send(&self, at: Time) {
        self.data(&self.sent_data, at);
    }

    fn data(&self, last: &AtomicU64, at: Time) {
        if at - Time(last.swap(at.0, Ordering::Relaxed)) >= PAUSE {
            self.resumed.notify_one();
        }
    }
}

impl CircuitEnd {
    /// Hands on the probes of a run of packets.
    pub(super) fn take_probes<'p>(&self, packets: impl Iterator<Item = &'p [u8]>, at: Time) {
        for body in packets.filter_map(|packet| packet.get(LABEL_HEADER_LEN..)) {
            if body.len() <= MAX_PROBE_LEN {
                let probe = ReceivedProbe { circuit: self.circuit, bytes: body.to_vec(), at };
                let _ = self.probes.try_send(probe); // full, or nobody listens
            }
        }
    }
}

/// Sends probes, past QUIC. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ProbeSender {
    udp: Arc<Socket>,
}

impl ProbeSender {
    /// Over the node's socket.
    pub fn new(udp: Arc<Socket>) -> Self {
        Self { udp }
    }

    /// Sends a probe at once, or never: one that the socket does not take is lost, as on a network. So is a body of
    /// more than [`MAX_PROBE_LEN`] bytes.
    pub fn send(&self, hop: &Hop, body: &[u8]) {
        if body.len() > MAX_PROBE_LEN {
            return;
        }
        let mut packet = [0; LABEL_HEADER_LEN + MAX_PROBE_LEN];
        let packet = &mut packet[..LABEL_HEADER_LEN + body.len()];
        packet[..LABEL_HEADER_LEN].copy_from_slice(&hop.label.header(Lane::Probe));
        packet[LABEL_HEADER_LEN..].copy_from_slice(body);
        let batch = Batch {
            to: hop.to,
            from: hop.from,
            ecn: None,
            header: &[],
            contents: &[packet],
            segment: packet.len(),
        };
        if let Err(error) = self.udp.try_send(&batch) {
            tracing::trace!(%error, to = %hop.to, "probe not sent");
        }
    }
}
