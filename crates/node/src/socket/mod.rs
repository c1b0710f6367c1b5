//! The node's one UDP port: links on real addresses, sessions behind labels, and what is relayed for others.
//!
//! QUIC sees real addresses for links and a *virtual address* (a random unique local address, RFC 4193) for each slot
//! of a session. [`Labels`] holds what a virtual address stands for just now: the neighbour's address and the
//! labels of a circuit. Pointing a slot at another circuit is one change in that table; QUIC does not notice.
//!
//! ```text
//!              ┌─ QUIC: links (real address), slots (label off, virtual address on)
//! received ────┼─ probes of circuits that end here: to their session, past QUIC
//!  (recvmmsg)  └─ circuits that pass: label swapped in place, merged, sent on at once or dropped
//! ```

mod address;
mod circuit;
mod demultiplex;
mod hash;
mod limit;
mod metrics;
mod outbox;
mod peers;
mod relay;
mod runtime;
mod table;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use ffmesh_core::label::{LABEL_HEADER_LEN, Lane};
use ffmesh_udp::{Batch, Socket, mapped};
use noq::udp::{RecvMeta, Transmit};
use tokio::time::Sleep;

pub use address::{MAX_SLOTS, SessionAddr, SlotAddr};
pub use circuit::{Activity, CircuitEnd, Hop, MAX_PROBE_LEN, ProbeSender, ReceivedProbe, Way};
pub use limit::{MAX_TRANSIT_BYTES_PER_SECOND, MAX_TRANSIT_PACKETS_PER_SECOND, TransitLimit};
pub use relay::{DropReason, Transit};
pub use runtime::TurnRuntime;
pub use table::{Dialling, Labels};

use crate::clock;
use demultiplex::Demultiplexer;

/// Largest UDP payload: what a batch of one send may hold.
const MAX_SEND: usize = 65_000;
/// How long receiving pauses after an error of the system.
const RECEIVE_PAUSE: Duration = Duration::from_millis(500);
/// Receives one after the other that bring QUIC nothing, before its timers and other tasks have their turn.
const MAX_ROUNDS: usize = 8;

/// The socket under the node's QUIC endpoint.
#[derive(Debug)]
pub struct LabelSocket {
    udp: Arc<Socket>,
    labels: Labels,
    /// Largest number of segments in one send.
    segments: usize,
    demultiplexer: Demultiplexer,
    /// Set after an error of the system, such as no memory: QUIC would end the endpoint.
    pause: Option<Pin<Box<Sleep>>>,
}

impl LabelSocket {
    /// Over a bound socket. `mtu` is the largest UDP payload that QUIC may try, without the label.
    pub fn new(udp: Arc<Socket>, labels: Labels, mtu: u16) -> Self {
        let segments = (MAX_SEND / (usize::from(mtu) + LABEL_HEADER_LEN)).max(1);
        let demultiplexer = Demultiplexer::new(udp.clone(), labels.clone());
        Self { udp, labels, segments, demultiplexer, pause: None }
    }
}

impl noq::AsyncUdpSocket for LabelSocket {
    fn create_sender(&self) -> Pin<Box<dyn noq::UdpSender>> {
        Box::pin(Sender {
            udp: self.udp.clone(),
            labels: self.labels.clone(),
            segments: self.segments,
            writable: None,
        })
    }

    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let left_over = self.demultiplexer.left_over(bufs, meta);
        if left_over > 0 {
            return Poll::Ready(Ok(left_over));
        }
        for _ in 0..MAX_ROUNDS {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            match ready!(self.udp.poll_recv(cx, bufs, meta)) {
                Ok(received) => {
                    let count = self.demultiplexer.sort(bufs, meta, received);
                    if count > 0 {
                        return Poll::Ready(Ok(count));
                    }
                }
                Err(error) => {
                    tracing::warn!("cannot receive on the UDP port: {error}; trying on");
                    self.pause = Some(Box::pin(tokio::time::sleep(RECEIVE_PAUSE)));
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Always an IPv6 address, so that QUIC takes virtual addresses; IPv4 peers are v4-mapped.
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.udp.local_addr().map(mapped)
    }

    fn may_fragment(&self) -> bool {
        self.udp.may_fragment()
    }

    fn max_receive_segments(&self) -> NonZeroUsize {
        self.udp.receive_segments()
    }
}

/// A full socket that is waited for.
type Writable = Pin<Box<dyn Future<Output = ()> + Send + Sync>>;

fn writable(udp: &Arc<Socket>) -> Writable {
    let udp = udp.clone();
    Box::pin(async move { udp.writable().await })
}

struct Sender {
    udp: Arc<Socket>,
    labels: Labels,
    segments: usize,
    writable: Option<Writable>,
}

impl std::fmt::Debug for Sender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sender")
    }
}

impl Sender {
    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let segment = transmit.segment_size.unwrap_or(transmit.contents.len());
        let header;
        let (to, from, header): (SocketAddr, Option<IpAddr>, &[u8]) = match SlotAddr::of(transmit.destination)
        {
            None => (transmit.destination, transmit.src_ip, &[]),
            Some(slot) => {
                // A slot without a route loses its packets; QUIC sends them again when there is one.
                let table = self.labels.read();
                let Some(way) = table.way(slot) else { return Ok(()) };
                way.activity.send(clock::now());
                header = way.hop.label.header(Lane::Slot(slot.index()));
                (way.hop.to, way.hop.from, &header)
            }
        };
        let batch = Batch { to, from, ecn: transmit.ecn, header, contents: &[transmit.contents], segment };
        outbox::send(&self.udp, &batch)
    }
}

impl noq::UdpSender for Sender {
    fn poll_send(
        self: Pin<&mut Self>,
        transmit: &Transmit<'_>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if let Some(writable) = &mut this.writable {
                ready!(writable.as_mut().poll(cx));
                this.writable = None;
            }
            match this.try_send(transmit) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    this.writable = Some(writable(&this.udp));
                }
                Err(error) => {
                    // A lost packet, not a broken connection: an interface may be down for a moment.
                    tracing::trace!(%error, to = %transmit.destination, "packet not sent");
                    return Poll::Ready(Ok(()));
                }
                Ok(()) => return Poll::Ready(Ok(())),
            }
        }
    }

    fn max_transmit_segments(&self) -> NonZeroUsize {
        let segments = self.udp.max_segments().get().min(self.segments);
        NonZeroUsize::new(segments).unwrap_or(NonZeroUsize::MIN)
    }
}
