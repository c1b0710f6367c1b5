//! The node's one UDP port: links on real addresses, sessions behind labels.
//!
//! QUIC sees real addresses for links and a *virtual address* (a random unique local address, RFC 4193) for each slot
//! of a session. [`Labels`] holds what a virtual address stands for just now: the neighbour's address and the
//! labels of a circuit. Pointing a slot at another circuit is one change in that table; QUIC does not notice.

mod table;

use std::collections::VecDeque;
use std::future::Future;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use ffmesh_core::label::{LABEL_HEADER_LEN, Label, Lane};
use ffmesh_udp::{Batch, Socket, mapped};
use noq::udp::{RecvMeta, Transmit};
use tokio::time::Sleep;

pub use table::{Dialling, Hop, Labels, SlotAddr};

/// Largest UDP payload: what a batch of one send may hold.
const MAX_SEND: usize = 65_000;
/// How long receiving pauses after an error of the system.
const RECEIVE_PAUSE: Duration = Duration::from_millis(500);
/// Packets set aside because a received buffer held packets of several slots. More than one `recvmmsg(2)` can
/// bring, as they are handed on before the next.
const MAX_ASIDE: usize = 32 * 64;

/// The socket under the node's QUIC endpoint.
#[derive(Debug)]
pub struct LabelSocket {
    udp: Arc<Socket>,
    labels: Labels,
    /// Largest number of segments in one send.
    segments: usize,
    /// Packets of the last receive that did not fit the buffers they came in.
    aside: VecDeque<(RecvMeta, Vec<u8>)>,
    /// Set after an error of the system, such as no memory: QUIC would end the endpoint.
    pause: Option<Pin<Box<Sleep>>>,
}

impl LabelSocket {
    /// Over a bound socket. `mtu` is the largest UDP payload that QUIC may try, without the label.
    pub fn new(udp: Arc<Socket>, labels: Labels, mtu: u16) -> Self {
        let segments = MAX_SEND / (usize::from(mtu) + LABEL_HEADER_LEN);
        Self { udp, labels, segments: segments.max(1), aside: VecDeque::new(), pause: None }
    }

    /// Turns received buffers into what QUIC expects: labels off, virtual source addresses on. A buffer whose packets
    /// belong to several slots is cut into runs; the first stays, the others are set aside.
    fn demultiplex(&mut self, bufs: &mut [IoSliceMut<'_>], meta: &mut [RecvMeta]) {
        let table = self.labels.read();
        for (buf, meta) in bufs.iter_mut().zip(meta) {
            meta.addr = mapped(meta.addr);
            let from = meta.addr;
            if SlotAddr::of(from).is_some() {
                meta.len = 0; // nobody on a network has such an address
                continue;
            }
            if table.is_dialling(from) {
                meta.dst_ip = None;
            }
            let stride = meta.stride.clamp(1, meta.len.max(1));
            // What each packet belongs to: a slot, or QUIC as it is.
            let owner =
                |packet: &[u8]| Label::of_packet(packet).and_then(|(label, _)| table.accept(label, from));

            let first = owner(&buf[..stride.min(meta.len)]);
            let mut end = stride.min(meta.len);
            while end < meta.len && owner(&buf[end..(end + stride).min(meta.len)]) == first {
                end = (end + stride).min(meta.len);
            }
            let mut rest = end;
            while rest < meta.len {
                let slot = owner(&buf[rest..(rest + stride).min(meta.len)]);
                let start = rest;
                while rest < meta.len && owner(&buf[rest..(rest + stride).min(meta.len)]) == slot {
                    rest = (rest + stride).min(meta.len);
                }
                if self.aside.len() < MAX_ASIDE {
                    let mut run = buf[start..rest].to_vec();
                    let mut run_meta = *meta;
                    (run_meta.len, run_meta.stride) = (run.len(), stride);
                    own(&mut run, &mut run_meta, slot);
                    self.aside.push_back((run_meta, run));
                }
            }
            meta.len = end;
            meta.stride = stride;
            own(buf, meta, first);
        }
    }
}

/// Makes a run of packets the property of a slot: labels off, the slot's address on.
fn own(buf: &mut [u8], meta: &mut RecvMeta, slot: Option<SlotAddr>) {
    let Some(slot) = slot else { return };
    let (mut read, mut write) = (0, 0);
    while read < meta.len {
        let end = (read + meta.stride).min(meta.len);
        let start = (read + LABEL_HEADER_LEN).min(end); // a short last packet has no label to take off
        buf.copy_within(start..end, write);
        write += end - start;
        read = end;
    }
    meta.len = write;
    meta.stride = meta.stride.saturating_sub(LABEL_HEADER_LEN).max(1);
    meta.addr = slot.into();
    meta.dst_ip = None;
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
        if self.aside.is_empty() {
            loop {
                if let Some(pause) = &mut self.pause {
                    ready!(pause.as_mut().poll(cx));
                    self.pause = None;
                }
                match ready!(self.udp.poll_recv(cx, bufs, meta)) {
                    Ok(count) => {
                        self.demultiplex(&mut bufs[..count], &mut meta[..count]);
                        return Poll::Ready(Ok(count));
                    }
                    Err(error) => {
                        tracing::warn!("cannot receive on the UDP port: {error}; trying on");
                        self.pause = Some(Box::pin(tokio::time::sleep(RECEIVE_PAUSE)));
                    }
                }
            }
        }
        let mut count = 0;
        while count < bufs.len().min(meta.len()) {
            let Some((run_meta, run)) = self.aside.pop_front() else { break };
            let len = run_meta.len.min(bufs[count].len());
            bufs[count][..len].copy_from_slice(&run[..len]);
            meta[count] = run_meta;
            meta[count].len = len;
            count += 1;
        }
        Poll::Ready(Ok(count))
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

type Writable = Pin<Box<dyn Future<Output = io::Result<()>> + Send + Sync>>;

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
                let Some(hop) = self.labels.read().hop(slot) else { return Ok(()) };
                header = hop.label.header(Lane::Slot(0));
                (hop.to, hop.from, &header)
            }
        };
        let batch = Batch { to, from, ecn: transmit.ecn, header, contents: &[transmit.contents], segment };
        self.udp.try_send(&batch)
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
                ready!(writable.as_mut().poll(cx))?;
                this.writable = None;
            }
            match this.try_send(transmit) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    let udp = this.udp.clone();
                    this.writable = Some(Box::pin(async move { udp.writable().await }));
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

#[cfg(test)]
mod tests {
    use ffmesh_udp::Socket;

    use super::*;

    fn socket() -> LabelSocket {
        let udp = Arc::new(Socket::bind(Some(std::net::Ipv4Addr::LOCALHOST.into()), 0).unwrap());
        LabelSocket::new(udp, Labels::default(), 1452)
    }

    fn peer() -> SocketAddr {
        "192.0.2.1:3334".parse().unwrap()
    }

    /// `count` packets of `slot` (or plain QUIC ones), 20 bytes each without label, padded to one stride.
    fn packets(label: Option<Label>, count: usize, fill: u8) -> Vec<u8> {
        let one = match label {
            Some(label) => [&label.header(Lane::Slot(0))[..], &[fill; 20]].concat(),
            None => vec![fill & 0x3f; 29],
        };
        one.repeat(count)
    }

    fn receive(
        socket: &mut LabelSocket,
        bytes: &[u8],
        from: SocketAddr,
    ) -> Vec<(SocketAddr, Vec<u8>, usize)> {
        let mut buffer = bytes.to_vec();
        let mut meta = [RecvMeta::default()];
        (meta[0].addr, meta[0].len, meta[0].stride) = (from, bytes.len(), 29);
        socket.demultiplex(&mut [IoSliceMut::new(&mut buffer)], &mut meta);
        let mut runs = vec![(meta[0].addr, buffer[..meta[0].len].to_vec(), meta[0].stride)];
        runs.extend(socket.aside.drain(..).map(|(m, b)| (m.addr, b[..m.len].to_vec(), m.stride)));
        runs
    }

    #[tokio::test]
    async fn a_batch_of_one_slot_comes_out_without_labels() {
        let mut socket = socket();
        let slot = socket.labels.new_slot();
        let label = socket.labels.accept_from(slot, peer(), 7);
        let mut bytes = packets(Some(label), 3, 7);
        bytes.truncate(bytes.len() - 5); // the last packet of a batch may be shorter
        let runs = receive(&mut socket, &bytes, peer());
        assert_eq!(runs, [(slot.into(), vec![7; 55], 20)]);
    }

    #[tokio::test]
    async fn a_batch_of_several_slots_and_links_is_cut_into_runs() {
        let mut socket = socket();
        let (a, b) = (socket.labels.new_slot(), socket.labels.new_slot());
        let (la, lb) = (socket.labels.accept_from(a, peer(), 7), socket.labels.accept_from(b, peer(), 7));
        let bytes =
            [packets(Some(la), 2, 1), packets(None, 1, 2), packets(Some(lb), 1, 3), packets(Some(la), 1, 4)]
                .concat();
        let runs = receive(&mut socket, &bytes, peer());
        assert_eq!(
            runs,
            [
                (a.into(), vec![1; 40], 20),
                (mapped(peer()), vec![2; 29], 29),
                (b.into(), vec![3; 20], 20),
                (a.into(), vec![4; 20], 20)
            ]
        );
    }

    #[tokio::test]
    async fn a_label_counts_only_from_its_neighbours_address() {
        let mut socket = socket();
        let slot = socket.labels.new_slot();
        let label = socket.labels.accept_from(slot, peer(), 7);
        let bytes = packets(Some(label), 1, 7);
        let stranger: SocketAddr = "192.0.2.2:3334".parse().unwrap();
        assert_eq!(receive(&mut socket, &bytes, stranger), [(mapped(stranger), bytes.clone(), 29)]);
        // The IPv4 and the v4-mapped form are one address.
        assert_eq!(receive(&mut socket, &bytes, mapped(peer()))[0].0, slot.into());
        socket.labels.move_link(8, stranger);
        assert_eq!(
            receive(&mut socket, &bytes, peer())[0].0,
            slot.into(),
            "another link's move is not this one's"
        );
        socket.labels.move_link(7, stranger);
        assert_eq!(
            receive(&mut socket, &bytes, stranger)[0].0,
            slot.into(),
            "labels follow a link that moved"
        );
        assert_ne!(receive(&mut socket, &bytes, peer())[0].0, slot.into());
    }

    #[tokio::test]
    async fn a_packet_that_claims_to_come_from_a_slot_is_dropped() {
        let mut socket = socket();
        let slot = socket.labels.new_slot();
        assert!(receive(&mut socket, &packets(None, 1, 7), slot.into())[0].1.is_empty());
    }

    #[tokio::test]
    async fn odd_packets_do_no_harm() {
        let mut socket = socket();
        let slot = socket.labels.new_slot();
        let label = socket.labels.accept_from(slot, peer(), 7);
        for len in 0..40 {
            let bytes = packets(Some(label), 2, 7);
            receive(&mut socket, &bytes[..len], peer());
        }
    }
}
