//! What becomes of received packets: QUIC takes them, a session takes them as probes, or they are relayed.

use std::collections::VecDeque;
use std::io::IoSliceMut;
use std::sync::Arc;

use ffmesh_core::label::{LABEL_HEADER_LEN, Label, Lane};
use ffmesh_udp::{Socket, mapped};
use noq::udp::RecvMeta;

use super::address::SlotAddr;
use super::circuit::Hop;
use super::relay::{self, DropReason, Relay};
use super::table::{Labels, Owner};
use crate::clock;

/// Packets for QUIC that stand one behind the other in a received buffer and have one source.
#[derive(Debug, Clone, Copy)]
struct Run {
    buffer: usize,
    start: usize,
    /// Whether they have labels that are to come off.
    labelled: bool,
    /// As QUIC is to see it, but for the labels' bytes.
    meta: RecvMeta,
}

/// Sorts received packets by their owners.
#[derive(Debug)]
pub(super) struct Demultiplexer {
    labels: Labels,
    relay: Relay,
    // The memory of these is used again for each receive.
    runs: Vec<Run>,
    order: Vec<usize>,
    aside: Aside,
}

impl Demultiplexer {
    pub(super) fn new(udp: Arc<Socket>, labels: Labels) -> Self {
        let relay = Relay::new(udp, labels.counters());
        Self { labels, relay, runs: Vec::new(), order: Vec::new(), aside: Aside::default() }
    }

    /// Turns the first `received` buffers into what QUIC expects: labels off, virtual source addresses on, and each buffer
    /// from one source. Returns how many there are then; packets of each source keep their order. Those that do not fit
    /// `bufs` are to be taken from [`left_over`](Self::left_over) before the next receive. Everything that is not QUIC's
    /// has gone its way.
    pub(super) fn sort(
        &mut self,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
        received: usize,
    ) -> usize {
        self.classify(&mut bufs[..received], &meta[..received]);
        self.relay.send(bufs);
        self.place(bufs, meta, received)
    }

    /// Fills `bufs` with what did not fit them before.
    pub(super) fn left_over(&mut self, bufs: &mut [IoSliceMut<'_>], meta: &mut [RecvMeta]) -> usize {
        let mut count = 0;
        for (buf, meta) in bufs.iter_mut().zip(meta) {
            let Some(next) = self.aside.pop(buf) else { break };
            *meta = next;
            count += 1;
        }
        count
    }

    /// Cuts buffers into runs of one owner. Relayed ones get their new labels.
    fn classify(&mut self, bufs: &mut [IoSliceMut<'_>], meta: &[RecvMeta]) {
        let now = clock::now();
        let table = self.labels.read();
        for (buffer, (bytes, meta)) in bufs.iter_mut().zip(meta).enumerate() {
            let from = mapped(meta.addr);
            if SlotAddr::of(from).is_some() {
                continue; // nobody on a network has such an address
            }
            let dst_ip = meta.dst_ip.filter(|_| !table.is_dialling(from));
            let len = meta.len.min(bytes.len());
            let bytes = &mut bytes[..len];
            let stride = meta.stride.clamp(1, bytes.len().max(1));
            let mut start = 0;
            while start < bytes.len() {
                let (head, end) = run_at(bytes, start, stride);
                let run = &mut bytes[start..end];
                let segment = stride.min(run.len());
                let owner = head.and_then(|(label, lane)| Some((table.owner(label, from)?, lane)));
                let mut run_meta = *meta;
                (run_meta.len, run_meta.stride) = (run.len(), segment);
                match owner {
                    None => {
                        (run_meta.addr, run_meta.dst_ip) = (from, dst_ip);
                        self.runs.push(Run { buffer, start, labelled: false, meta: run_meta });
                    }
                    Some((Owner::End(end), lane)) => {
                        end.activity.hear(now, lane);
                        match lane {
                            Lane::Slot(slot) => {
                                (run_meta.addr, run_meta.dst_ip) = (end.session.slot(slot).into(), None);
                                self.runs.push(Run { buffer, start, labelled: true, meta: run_meta });
                            }
                            Lane::Probe => end.take_probes(run.chunks(stride), now),
                        }
                    }
                    Some((Owner::Passage(passage), lane)) => {
                        let packets = run.len().div_ceil(stride);
                        if passage.admit(packets, run.len(), now) {
                            self.relay.counters().peers().received(passage.from, run.len());
                            if lane != Lane::Probe {
                                self.relay.counters().carried(packets);
                            }
                            run.chunks_mut(stride).for_each(|packet| passage.hop.label.swap_into(packet));
                            let Hop { to, from, link, .. } = passage.hop;
                            self.relay.push(relay::Run {
                                to,
                                link,
                                peer: passage.to,
                                from,
                                ecn: meta.ecn,
                                buffer,
                                start,
                                end,
                                segment,
                            });
                        } else {
                            self.relay.counters().dropped(DropReason::Limit, packets);
                        }
                    }
                }
                start = end;
            }
        }
    }

    /// Puts each run for QUIC at the front of a buffer of its own: the first of a received buffer stays there, others go to
    /// free ones.
    fn place(&mut self, bufs: &mut [IoSliceMut<'_>], meta: &mut [RecvMeta], received: usize) -> usize {
        let mut free = received;
        let mut taken = None;
        self.order.clear();
        for run in self.runs.drain(..) {
            let stays = taken != Some(run.buffer);
            let home = if stays { run.buffer } else { free };
            // Once one is set aside all are, or later packets of a slot would come before earlier ones.
            if home >= bufs.len() || !self.aside.is_empty() {
                self.aside.push(&bufs[run.buffer][run.start..run.start + run.meta.len], &run);
                continue;
            }
            if stays {
                taken = Some(run.buffer);
                meta[home] = settle(&mut bufs[home], run.start, &run);
            } else {
                let (before, after) = bufs.split_at_mut(free);
                let packets = &before[run.buffer][run.start..run.start + run.meta.len];
                after[0][..packets.len()].copy_from_slice(packets);
                meta[home] = settle(&mut after[0], 0, &run);
                free += 1;
            }
            self.order.push(home);
        }
        // QUIC takes the buffers in the order in which the runs came.
        for at in 0..self.order.len() {
            let mut home = self.order[at];
            while home < at {
                home = self.order[home]; // it was swapped away from there
            }
            bufs.swap(at, home);
            meta.swap(at, home);
        }
        self.order.len()
    }
}

/// The label and lane that a run has which begins at `start`, and where it ends.
fn run_at(bytes: &[u8], start: usize, stride: usize) -> (Option<(Label, Lane)>, usize) {
    let head_at = |at: usize| Label::of_packet(&bytes[at..(at + stride).min(bytes.len())]);
    let head = head_at(start);
    let mut end = (start + stride).min(bytes.len());
    while end < bytes.len() && head_at(end) == head {
        end = (end + stride).min(bytes.len());
    }
    (head, end)
}

/// Moves a run that begins at `start` to the front of its buffer, without labels if it has them.
fn settle(bytes: &mut [u8], start: usize, run: &Run) -> RecvMeta {
    let mut meta = run.meta;
    let end = start + meta.len;
    if !run.labelled {
        bytes.copy_within(start..end, 0);
        return meta;
    }
    let (mut read, mut write) = (start, 0);
    while read < end {
        let next = (read + meta.stride).min(end);
        bytes.copy_within(read + LABEL_HEADER_LEN..next, write);
        write += next - read - LABEL_HEADER_LEN;
        read = next;
    }
    meta.len = write;
    meta.stride = (meta.stride - LABEL_HEADER_LEN).max(1);
    meta
}

/// Runs that found no free buffer, in their order: at most what one receive brings.
#[derive(Debug, Default)]
struct Aside {
    metas: VecDeque<RecvMeta>,
    bytes: Vec<u8>,
    /// How many of the bytes were taken.
    taken: usize,
}

impl Aside {
    fn is_empty(&self) -> bool {
        self.metas.is_empty()
    }

    fn push(&mut self, packets: &[u8], run: &Run) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(packets);
        let meta = settle(&mut self.bytes[start..], 0, run);
        self.bytes.truncate(start + meta.len);
        self.metas.push_back(meta);
    }

    fn pop(&mut self, buf: &mut [u8]) -> Option<RecvMeta> {
        let Some(meta) = self.metas.pop_front() else {
            self.bytes.clear();
            self.taken = 0;
            return None;
        };
        buf[..meta.len].copy_from_slice(&self.bytes[self.taken..self.taken + meta.len]);
        self.taken += meta.len;
        Some(meta)
    }
}
