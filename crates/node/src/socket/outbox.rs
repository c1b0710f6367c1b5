//! Merges what one turn of a connection sends to one destination into few system calls.
//!
//! noq hands over [`FULL`] packets at most at a time, the kernel takes 64 KiB. So full batches are gathered for as long as a
//! [turn](super::runtime) lasts, and leave when one comes that does not fit, or with the turn. What is no full batch and finds
//! nothing to join leaves at once and is not copied.

use std::cell::RefCell;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ffmesh_udp::{Batch, EcnCodepoint, Socket};

use super::MAX_SEND;

/// Packets of a batch that more are likely to follow: noq's limit for one send.
const FULL: usize = 10;

thread_local! {
    /// That of the turn under way on this thread.
    static OUTBOX: RefCell<Option<Outbox>> = const { RefCell::new(None) };
    /// The memory of the thread's outbox while it is empty.
    static SPARE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// What was gathered in a turn and has not left: at most [`MAX_SEND`] bytes.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    head: Option<Head>,
    /// The packets, with what stands before each
    bytes: Vec<u8>,
    /// Whether all packets have the full length, so that others can follow
    is_whole: bool,
    /// Whether a full batch has come in this turn
    is_bulk: bool,
}

/// What packets of one send have in common.
#[derive(Debug)]
struct Head {
    udp: Arc<Socket>,
    to: SocketAddr,
    from: Option<IpAddr>,
    ecn: Option<EcnCodepoint>,
    /// Length of each packet but the last, with what stands before it
    segment: usize,
}

/// Sends a batch, now or with others of this turn. `WouldBlock` where the socket takes no more: the batch was not taken.
pub(super) fn send(udp: &Arc<Socket>, batch: &Batch<'_>) -> io::Result<()> {
    OUTBOX.with_borrow_mut(|outbox| match outbox {
        Some(outbox) => outbox.take(udp, batch),
        None => udp.try_send(batch),
    })
}

impl Outbox {
    /// Gathers in this outbox what `turn` sends on this thread. Turns do not nest.
    pub(super) fn gather<T>(&mut self, turn: impl FnOnce() -> T) -> T {
        OUTBOX.set(Some(std::mem::take(self)));
        let guard = Turn;
        let result = turn();
        *self = OUTBOX.take().unwrap_or_default();
        drop(guard);
        result
    }

    /// Whether nothing waits to be sent.
    pub(super) fn is_empty(&self) -> bool {
        self.head.is_none()
    }

    /// Whether a full batch has come since this was asked last.
    pub(super) fn was_bulk(&mut self) -> bool {
        std::mem::take(&mut self.is_bulk)
    }

    /// The socket that what waits is to be sent by.
    pub(super) fn socket(&self) -> Option<&Arc<Socket>> {
        self.head.as_ref().map(|head| &head.udp)
    }

    fn take(&mut self, udp: &Arc<Socket>, batch: &Batch<'_>) -> io::Result<()> {
        if self.fits(udp, batch) {
            self.append(batch);
            return Ok(());
        }
        self.flush()?;
        if batch.count() < FULL {
            return udp.try_send(batch);
        }
        let segment = batch.header.len() + batch.segment;
        self.bytes = SPARE.take();
        self.is_bulk = true;
        self.head = Some(Head { udp: udp.clone(), to: batch.to, from: batch.from, ecn: batch.ecn, segment });
        self.append(batch);
        Ok(())
    }

    fn fits(&self, udp: &Arc<Socket>, batch: &Batch<'_>) -> bool {
        let Some(head) = &self.head else { return false };
        let (segment, count) = (batch.header.len() + batch.segment, batch.count());
        let is_alike = segment == head.segment || count == 1 && segment < head.segment;
        let bytes = self.bytes.len() + batch.bytes();
        Arc::ptr_eq(udp, &head.udp)
            && (batch.to, batch.from, batch.ecn) == (head.to, head.from, head.ecn)
            && self.is_whole
            && is_alike
            && bytes <= MAX_SEND
            && bytes.div_ceil(head.segment) <= udp.max_segments().get()
    }

    fn append(&mut self, batch: &Batch<'_>) {
        for packet in batch.datagrams() {
            self.bytes.extend_from_slice(batch.header);
            self.bytes.extend_from_slice(packet);
        }
        self.is_whole = self.head.as_ref().is_some_and(|head| self.bytes.len().is_multiple_of(head.segment));
    }

    /// Sends what waits. `WouldBlock` where the socket takes no more: it waits on.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        let Some(Head { udp, to, from, ecn, segment }) = &self.head else { return Ok(()) };
        let (to, from, ecn, segment) = (*to, *from, *ecn, *segment);
        let batch = Batch { to, from, ecn, header: &[], contents: &[&self.bytes], segment };
        match udp.try_send(&batch) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Err(e),
            // As on a network: an interface may be down for a moment.
            Err(error) => tracing::trace!(%error, %to, "packets not sent"),
            Ok(()) => {}
        }
        self.head = None;
        self.bytes.clear();
        SPARE.set(std::mem::take(&mut self.bytes));
        Ok(())
    }
}

/// Ends a turn that panics, too.
struct Turn;

impl Drop for Turn {
    fn drop(&mut self) {
        OUTBOX.set(None);
    }
}
