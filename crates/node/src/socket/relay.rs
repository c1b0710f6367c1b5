//! Packets of circuits that pass this node: merged and sent on, or dropped. Nothing waits here.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ffmesh_udp::{Batch, MAX_SEGMENTS, Socket};
use noq::udp::EcnCodepoint;

use super::MAX_SEND;
use super::peers::{PeerBytes, Place};

/// Why packets were not relayed, a fixed set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DropReason {
    /// The link they came by had more relayed than it may
    Limit,
    /// The socket's send buffer was full
    BufferFull,
    /// The system refused to send them, as when they are longer than the next hop's MTU
    SendError,
}

impl DropReason {
    /// Of packets that the socket has not taken.
    fn of(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::WouldBlock { Self::BufferFull } else { Self::SendError }
    }
}

const DROPS: [(DropReason, &str); 3] = [
    (DropReason::Limit, "limit"),
    (DropReason::BufferFull, "buffer_full"),
    (DropReason::SendError, "send_error"),
];

/// What was relayed since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Transit {
    /// Packets sent on
    pub packets: u64,
    /// Their bytes, labels included
    pub bytes: u64,
    /// Calls of the system that this took
    pub sends: u64,
    /// Circuits that pass this node now
    pub circuits: usize,
    dropped: [u64; DROPS.len()],
}

impl Transit {
    /// Packets dropped, by reason: `limit`, `buffer_full`, `send_error`.
    pub fn dropped(&self) -> impl Iterator<Item = (&'static str, u64)> {
        DROPS.iter().zip(self.dropped).map(|((_, word), count)| (*word, count))
    }
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    packets: AtomicU64,
    bytes: AtomicU64,
    sends: AtomicU64,
    payload_packets: AtomicU64,
    dropped: [AtomicU64; DROPS.len()],
    peers: PeerBytes,
}

impl Counters {
    pub(super) fn snapshot(&self, circuits: usize) -> Transit {
        Transit {
            circuits,
            packets: self.packets.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            sends: self.sends.load(Ordering::Relaxed),
            dropped: self.dropped.each_ref().map(|count| count.load(Ordering::Relaxed)),
        }
    }

    fn sent(&self, runs: &[Run], packets: usize) {
        add(&self.packets, packets);
        add(&self.bytes, runs.iter().map(Run::len).sum());
        add(&self.sends, 1);
        for run in runs {
            self.peers.sent(run.peer, run.len());
        }
    }

    /// Bytes from and to each neighbour.
    pub(super) fn peers(&self) -> &PeerBytes {
        &self.peers
    }

    /// Packets of sessions, not probes, that came to be sent on.
    pub(super) fn payload_packets(&self) -> u64 {
        self.payload_packets.load(Ordering::Relaxed)
    }

    /// Counts packets of sessions, not probes.
    pub(super) fn carried(&self, packets: usize) {
        add(&self.payload_packets, packets);
    }

    pub(super) fn dropped(&self, why: DropReason, packets: usize) {
        add(&self.dropped[why as usize], packets);
    }
}

fn add(counter: &AtomicU64, count: usize) {
    counter.fetch_add(count as u64, Ordering::Relaxed);
}

/// Packets of one hop that stand one behind the other in a received buffer, with their new label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    /// Where to
    pub(super) to: SocketAddr,
    /// Serial of the link there
    pub(super) link: u64,
    /// Who is there
    pub(super) peer: Place,
    /// From where
    pub(super) from: Option<IpAddr>,
    /// Of each packet
    pub(super) ecn: Option<EcnCodepoint>,
    /// Which of the received buffers
    pub(super) buffer: usize,
    /// Where in it they begin
    pub(super) start: usize,
    /// Where in it they end
    pub(super) end: usize,
    /// Length of each but the last, which may be shorter
    pub(super) segment: usize,
}

impl Run {
    fn len(&self) -> usize {
        self.end - self.start
    }

    pub(super) fn packets(&self) -> usize {
        self.len().div_ceil(self.segment)
    }

    fn goes_with(&self, other: &Self) -> bool {
        (self.to, self.from, self.ecn) == (other.to, other.from, other.ecn)
    }
}

/// Sends on what one receive brought.
#[derive(Debug)]
pub(super) struct Relay {
    udp: Arc<Socket>,
    counters: Arc<Counters>,
    // The memory of these is used again for each receive.
    runs: Vec<Run>,
    /// Links and places of the runs
    order: Vec<(u64, usize)>,
    /// The runs in that order
    sorted: Vec<Run>,
}

impl Relay {
    pub(super) fn new(udp: Arc<Socket>, counters: Arc<Counters>) -> Self {
        Self { udp, counters, runs: Vec::new(), order: Vec::new(), sorted: Vec::new() }
    }

    pub(super) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Adds a run.
    pub(super) fn push(&mut self, run: Run) {
        // What was received at once may be more than can be sent at once.
        let most = (MAX_SEND / run.segment).clamp(1, MAX_SEGMENTS) * run.segment;
        for start in (run.start..run.end).step_by(most) {
            self.runs.push(Run { start, end: (start + most).min(run.end), ..run });
        }
    }

    /// Sends all runs out of the buffers that they stand in, in as few sends as there can be. Packets of one
    /// destination keep their order.
    pub(super) fn send(&mut self, bufs: &[IoSliceMut<'_>]) {
        self.sort();
        let mut rest = &self.sorted[..];
        while let Some(first) = rest.first() {
            let (send, others) = rest.split_at(runs_of_one_send(rest));
            let mut slices = [&[][..]; MAX_SEGMENTS];
            for (slice, run) in slices.iter_mut().zip(send) {
                *slice = &bufs[run.buffer][run.start..run.end];
            }
            let batch = Batch {
                to: first.to,
                from: first.from,
                ecn: first.ecn,
                header: &[],
                contents: &slices[..send.len()],
                segment: first.segment,
            };
            let packets = send.iter().map(Run::packets).sum();
            match self.udp.try_send(&batch) {
                Ok(()) => self.counters.sent(send, packets),
                Err(error) => self.counters.dropped(DropReason::of(&error), packets),
            }
            rest = others;
        }
    }

    /// Puts the runs of each link together, in the order in which they came: those of several take turns.
    fn sort(&mut self) {
        // Short keys are sorted instead of the runs: up to 2,000 of those may come at once.
        self.order.clear();
        self.order.extend(self.runs.iter().enumerate().map(|(at, run)| (run.link, at)));
        self.order.sort_unstable();
        self.sorted.clear();
        self.sorted.extend(self.order.iter().map(|(_, at)| self.runs[*at]));
        self.runs.clear();
    }
}

/// How many runs, from the first on, one send can have: all its packets but the last have one length.
fn runs_of_one_send(runs: &[Run]) -> usize {
    let Some(first) = runs.first() else { return 0 };
    let (mut bytes, mut packets) = (0, 0);
    let fits = |run: &&Run| {
        let is_whole = bytes % first.segment == 0;
        let is_alike = run.segment == first.segment || run.packets() == 1 && run.len() <= first.segment;
        let goes = run.goes_with(first) && is_whole && is_alike;
        bytes += run.len();
        packets += run.packets();
        goes && bytes <= MAX_SEND && packets <= MAX_SEGMENTS
    };
    runs.iter().take_while(fits).count().max(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(port: u16, len: usize, segment: usize) -> Run {
        let to = SocketAddr::from(([192, 0, 2, 1], port));
        Run {
            to,
            link: 1,
            peer: Place::default(),
            from: None,
            ecn: None,
            buffer: 0,
            start: 7,
            end: 7 + len,
            segment,
        }
    }

    #[test]
    fn what_a_full_socket_does_not_take_counts_as_such() {
        assert_eq!(DropReason::of(&io::ErrorKind::WouldBlock.into()), DropReason::BufferFull);
        for code in [libc::EMSGSIZE, libc::EPERM, libc::ENETUNREACH, libc::ENOBUFS] {
            assert_eq!(DropReason::of(&io::Error::from_raw_os_error(code)), DropReason::SendError);
        }
    }

    #[test]
    fn runs_of_one_hop_and_length_share_a_send() {
        let count = |runs: &[Run]| runs_of_one_send(runs);
        assert_eq!(count(&[run(1, 3_000, 1_000), run(1, 2_000, 1_000), run(1, 1_000, 1_000)]), 3);
        assert_eq!(count(&[run(1, 2_000, 1_000), run(2, 2_000, 1_000)]), 1, "another hop");
        assert_eq!(count(&[run(1, 2_500, 1_000), run(1, 1_000, 1_000)]), 1, "a short packet ends a send");
        assert_eq!(count(&[run(1, 2_000, 1_000), run(1, 1_500, 1_000), run(1, 1_000, 1_000)]), 2);
        assert_eq!(count(&[run(1, 2_000, 1_000), run(1, 300, 300), run(1, 300, 300)]), 2, "also as a run");
        assert_eq!(count(&[run(1, 2_000, 1_000), run(1, 600, 300)]), 1, "two short ones cannot");
        assert_eq!(count(&[run(1, 1_000, 1_000), run(1, 1_200, 1_200)]), 1, "nor a longer one");
        assert_eq!(count(&vec![run(1, 10, 10); 100]), MAX_SEGMENTS);
        assert_eq!(count(&vec![run(1, 10_000, 1_000); 10]), 6, "MAX_SEND");
        let marked = Run { ecn: Some(EcnCodepoint::Ce), ..run(1, 1_000, 1_000) };
        assert_eq!(count(&[run(1, 1_000, 1_000), marked]), 1, "other ECN bits");
    }

    proptest! {
        #[test]
        fn every_send_is_one_that_the_kernel_cuts_as_it_was(
            runs in prop::collection::vec((0u16..3, 1usize..5_000, 1usize..1_500), 1..50)
        ) {
            let runs: Vec<Run> = runs.iter().map(|(port, len, seg)| run(*port, *len, (*seg).min(*len))).collect();
            let mut rest = &runs[..];
            while !rest.is_empty() {
                let (send, others) = rest.split_at(runs_of_one_send(rest));
                let lengths: Vec<usize> = send
                    .iter()
                    .flat_map(|run| (0..run.packets()).map(|i| run.segment.min(run.len() - i * run.segment)))
                    .collect();
                let (last, full) = lengths.split_last().unwrap();
                if send.len() > 1 {
                    prop_assert!(full.iter().all(|len| *len == send[0].segment) && *last <= send[0].segment);
                    prop_assert!(lengths.len() <= MAX_SEGMENTS && lengths.iter().sum::<usize>() <= MAX_SEND);
                }
                rest = others;
            }
        }
    }
}
