//! Carrying a flow's bytes between a local socket and a stream, each direction by itself.
//!
//! | here | on the stream, and the other way round |
//! | --- | --- |
//! | FIN | FIN |
//! | RST | RESET_STREAM and STOP_SENDING |
//! | full socket buffer | flow control: the sender waits |

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::pin;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use ffmesh_core::reason::Reason;
use ffmesh_core::wire::Message;
use noq::{PathId, ReadError, RecvStream, SendStream, StoppedError, VarInt, WriteError};
use tokio::sync::oneshot;
use tokio::time::{sleep_until, timeout};

use super::entry::Flow;
use super::{HeadError, read_head};
use crate::clock;
use crate::local::Stream;
use crate::session::Session;

/// First read of a direction; a full read makes the next one larger.
const MIN_READ: usize = 4 << 10;
/// Largest read.
pub(super) const MAX_READ: usize = 128 << 10;
/// Chunks of a stream that one write hands over.
const MAX_CHUNKS: usize = 64;
/// How long SYN_ACK_DATA may take: the other node dials for 10 s, and its answer travels.
const ACK_TIMEOUT: Duration = Duration::from_secs(12);
/// Longest that a reset waits for the bytes before it to arrive.
const MAX_RESET_DELAY: Duration = Duration::from_millis(500);

/// Which way the local side of a flow faces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// The client is here: what it sends goes up.
    Ingress,
    /// The target is here: what it sends goes down.
    Egress,
}

/// What stands before the bytes that a stream brings.
pub(super) enum Head {
    /// SYN_ACK_DATA, still to come; who waits for it is told
    Ack(Option<oneshot::Sender<()>>),
    /// These bytes, read with SYN_DATA
    Bytes(Vec<u8>),
}

/// How a flow ended.
pub(super) type End = (Reason, Option<String>);

/// A flow between a local socket and a stream.
pub(super) struct Carrier<'a> {
    pub(super) session: &'a Session,
    pub(super) flow: &'a Flow,
    pub(super) side: Side,
    pub(super) idle_timeout: Option<Duration>,
}

impl Carrier<'_> {
    /// Carries both directions to their ends.
    pub(super) async fn carry(
        &self,
        local: Stream,
        mut send: SendStream,
        mut recv: RecvStream,
        head: Head,
    ) -> End {
        let end = {
            let both = async {
                tokio::try_join!(self.to_stream(&local, &mut send), self.to_local(&local, &mut recv, head))
            };
            tokio::select! {
                biased; // what was received before a reset is carried first
                result = both => result.err(),
                end = self.interrupted(&local) => Some(end),
            }
        };
        match end {
            None => (Reason::Done, None),
            Some(end) => {
                self.abort(local, send, recv, end.0).await;
                end
            }
        }
    }

    /// Ends both directions at once, on both sides.
    async fn abort(&self, local: Stream, mut send: SendStream, mut recv: RecvStream, reason: Reason) {
        let code = VarInt::from_u32(reason.code());
        let _ = recv.stop(code);
        drop(recv); // gives the credit of unread bytes back
        local.reset();
        // RESET_STREAM overtakes data that is under way. TCP delivers what was sent before the RST as a rule, so
        // give it the time of a round trip.
        if reason == Reason::Reset
            && let Some(rtt) = self.session.connection().rtt(PathId::ZERO)
        {
            tokio::time::sleep((rtt * 3 / 2).min(MAX_RESET_DELAY)).await;
        }
        let _ = send.reset(code);
    }

    /// Local socket to stream, until FIN.
    async fn to_stream(&self, local: &Stream, send: &mut SendStream) -> Result<(), End> {
        let stopped = send.stopped();
        tokio::pin!(stopped);
        let mut size = MIN_READ;
        loop {
            // While there is nothing to read, no buffer is held.
            tokio::select! {
                ready = local.readable() => ready.map_err(|e| local_end(&e))?,
                stop = &mut stopped => return Err(stopped_end(self.session, stop)),
            }
            let mut buffer = BytesMut::with_capacity(size);
            match local.try_read(&mut buffer) {
                Ok(0) => {
                    let _ = send.finish(); // fails only after a stop, which is seen below
                    break;
                }
                Ok(n) => {
                    size = next_size(size, n);
                    self.sent(n);
                    self.flow.unsent(true);
                    send.write_chunk(shrunk(buffer)).await.map_err(|e| write_end(self.session, &e))?;
                    self.flow.unsent(false);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(local_end(&e)),
            }
        }
        // After FIN the other side may still stop the stream: its local end was reset.
        match stopped.await {
            Ok(None) => Ok(()),
            stop => Err(stopped_end(self.session, stop)),
        }
    }

    /// Stream to local socket, until FIN.
    async fn to_local(&self, local: &Stream, recv: &mut RecvStream, head: Head) -> Result<(), End> {
        let first = match head {
            Head::Bytes(first) => first,
            Head::Ack(told) => {
                let rest = self.acknowledged(recv).await?;
                told.map(|told| told.send(()));
                rest
            }
        };
        if !first.is_empty() {
            let mut first = Bytes::from(first);
            let written = local.write_first(&first).unwrap_or_default(); // an error is there for the next one, too
            self.received(written);
            first.advance(written);
            if !first.is_empty() {
                self.write(local, &mut [first]).await?;
            }
        }
        while let Some(mut chunks) = self.read(recv).await? {
            self.write(local, &mut chunks).await?;
        }
        match local.finish() {
            Err(e) if e.kind() != io::ErrorKind::NotConnected => Err(local_end(&e)),
            _ => Ok(()),
        }
    }

    /// Awaits SYN_ACK_DATA; returns what came behind it.
    async fn acknowledged(&self, recv: &mut RecvStream) -> Result<Vec<u8>, End> {
        let wrong = |text: String| (Reason::Unsupported, Some(text));
        match timeout(ACK_TIMEOUT, read_head(recv)).await {
            Ok(Ok((Message::SynAckData(ack), rest))) if ack.result => {
                self.flow.connected();
                Ok(rest)
            }
            Ok(Ok((Message::SynAckData(ack), _))) => {
                let node = self.flow.peer();
                Err((
                    ack.reason.unwrap_or(Reason::Refused),
                    Some(format!("refused by {node}, whose log says more")),
                ))
            }
            Ok(Ok((other, _))) => Err(wrong(format!("answered with a message of type {}", other.number()))),
            Ok(Err(HeadError::Read(e))) => Err(read_end(self.session, &e)),
            Ok(Err(e)) => Err(wrong(e.to_string())),
            Err(_) => {
                Err((Reason::Timeout, Some(format!("no answer from {} within 12 s", self.flow.peer()))))
            }
        }
    }

    /// The next chunks of the stream; none at its end. Notes whether more had come than was taken.
    async fn read(&self, recv: &mut RecvStream) -> Result<Option<Vec<Bytes>>, End> {
        let read = poll_fn(|cx| {
            // On the stack: a flow that waits holds no room for chunks.
            let mut chunks = [const { Bytes::new() }; MAX_CHUNKS];
            let read = pin!(recv.read_many_chunks(&mut chunks)).poll(cx);
            if read.is_pending() {
                self.flow.drained();
            }
            read.map_ok(|count| count.map(|count| chunks.into_iter().take(count).collect()))
        });
        let read = read.await.map_err(|e| read_end(self.session, &e))?;
        self.flow.undrained();
        Ok(read)
    }

    /// Writes all chunks, and leaves them empty.
    async fn write(&self, local: &Stream, mut chunks: &mut [Bytes]) -> Result<(), End> {
        while !chunks.is_empty() {
            match try_write(local, chunks) {
                Ok(mut n) => {
                    self.received(n);
                    while let Some(chunk) = chunks.first_mut() {
                        let taken = n.min(chunk.len());
                        chunk.advance(taken);
                        n -= taken;
                        if !chunk.is_empty() {
                            break;
                        }
                        *chunk = Bytes::new();
                        chunks = &mut chunks[1..];
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    local.writable().await.map_err(|e| local_end(&e))?;
                }
                Err(e) => return Err(local_end(&e)),
            }
        }
        Ok(())
    }

    /// What ends a flow from outside its directions.
    async fn interrupted(&self, local: &Stream) -> End {
        tokio::select! {
            _ = local.reset_by_peer() => (Reason::Reset, None),
            (reason, detail) = self.flow.cancelled() => (reason, Some(detail)),
            () = self.idle() => (Reason::Idle, Some("no byte for as long as idle_timeout allows".to_owned())),
        }
    }

    async fn idle(&self) {
        let Some(timeout) = self.idle_timeout else { return std::future::pending().await };
        loop {
            let end = self.flow.last_active() + timeout;
            if clock::now() >= end {
                return;
            }
            sleep_until(clock::instant(end)).await;
        }
    }

    fn sent(&self, bytes: usize) {
        match self.side {
            Side::Ingress => self.flow.count_up(bytes),
            Side::Egress => self.flow.count_down(bytes),
        }
    }

    fn received(&self, bytes: usize) {
        match self.side {
            Side::Ingress => self.flow.count_down(bytes),
            Side::Egress => self.flow.count_up(bytes),
        }
    }
}

/// Writes as many of at most [`MAX_CHUNKS`] chunks as the socket takes now. Apart, so that a flow that waits does not
/// hold the slices.
fn try_write(local: &Stream, chunks: &[Bytes]) -> io::Result<usize> {
    let mut slices = std::array::from_fn::<_, MAX_CHUNKS, _>(|_| IoSlice::new(&[]));
    for (slice, chunk) in slices.iter_mut().zip(chunks) {
        *slice = IoSlice::new(chunk);
    }
    local.try_write(&slices[..chunks.len().min(MAX_CHUNKS)])
}

fn next_size(size: usize, read: usize) -> usize {
    if read == size {
        (size * 2).min(MAX_READ)
    } else if read < size / 4 {
        (size / 2).max(MIN_READ)
    } else {
        size
    }
}

/// What was read, in an allocation of its own size where much of the buffer is free: it stays until it is
/// acknowledged.
fn shrunk(buffer: BytesMut) -> Bytes {
    if buffer.len() < buffer.capacity() / 2 { Bytes::copy_from_slice(&buffer) } else { buffer.freeze() }
}

fn local_end(error: &io::Error) -> End {
    match error.kind() {
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionAborted => {
            (Reason::Reset, None)
        }
        _ => (Reason::Reset, Some(format!("the local socket failed: {error}"))),
    }
}

/// What the other node says with an error code.
fn told(session: &Session, code: VarInt) -> End {
    let reason = Reason::from_code(code.into_inner());
    let detail = || format!("so says {}, whose log says more", session.peer().id);
    (reason, (reason != Reason::Reset).then(detail))
}

fn stopped_end(session: &Session, stop: Result<Option<VarInt>, StoppedError>) -> End {
    match stop {
        Ok(Some(code)) => told(session, code),
        Ok(None) => (Reason::Reset, None),
        Err(StoppedError::ConnectionLost(e)) => session.end(&e),
        Err(e) => (Reason::Reset, Some(e.to_string())),
    }
}

/// Why a flow ends whose stream takes nothing more.
pub(super) fn write_end(session: &Session, error: &WriteError) -> End {
    match error {
        WriteError::Stopped(code) => told(session, *code),
        WriteError::ConnectionLost(e) => session.end(e),
        other => (Reason::Reset, Some(other.to_string())),
    }
}

pub(super) fn read_end(session: &Session, error: &ReadError) -> End {
    match error {
        ReadError::Reset(code) => told(session, *code),
        ReadError::ConnectionLost(e) => session.end(e),
        other => (Reason::Reset, Some(other.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_grow_with_bulk_and_shrink_with_small_messages() {
        let mut size = MIN_READ;
        for _ in 0..10 {
            size = next_size(size, size);
        }
        assert_eq!(size, MAX_READ);
        for _ in 0..10 {
            size = next_size(size, 64);
        }
        assert_eq!(size, MIN_READ);
    }

    #[test]
    fn a_small_message_does_not_keep_a_large_buffer() {
        let mut buffer = BytesMut::with_capacity(MAX_READ);
        buffer.extend_from_slice(b"small");
        let bytes = shrunk(buffer);
        assert_eq!(&bytes[..], b"small");
        assert!(bytes.try_into_mut().unwrap().capacity() < 64);
    }
}
