//! A link that is up: control messages both ways, probes, changes of address, the end of the neighbour's certificate.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use ffmesh_core::neighbor::{Liveness, Probe};
use ffmesh_core::time::Time;
use ffmesh_core::wire::{Message, Ping, Pong, decode_datagram, encode_datagram};
use jiff::Timestamp;
use noq::{ConnectionError, SendStream, VarInt};
use tokio::sync::mpsc;

use super::handshake::{ControlReader, write};
use super::{Link, LinkContext, LinkEvent, Vitals, WRITE_TIMEOUT, code};
use crate::clock;
use crate::identity::{Expected, explain_connection_error};

/// Between PINGs to an address that the neighbour seems to have moved to.
const PROOF_INTERVAL: Duration = Duration::from_millis(200);
/// The bit that tells these PINGs from those of [`Liveness`].
const PROOF_BIT: u64 = 1 << 63;
/// Longest sleep before the neighbour's certificate is looked at again: clocks are set.
const EXPIRY_LOOK: Duration = Duration::from_hours(1);

/// Runs an admitted link to its end, and tells of it.
pub(super) async fn run(
    context: LinkContext,
    link: Link,
    send: SendStream,
    reader: ControlReader,
    outbox: mpsc::Receiver<Message>,
) {
    let writer = tokio::spawn(write_messages(link.clone(), send, outbox));
    let mut conversation = Conversation {
        context: &context,
        link: &link,
        liveness: Liveness::new(context.keep_alive, clock::now()),
        proof: None,
    };
    let (reason, orderly) = conversation.run(reader).await;
    writer.abort();
    let _ = context.events.send(LinkEvent::Down { link, reason, orderly }).await;
}

async fn write_messages(link: Link, mut send: SendStream, mut outbox: mpsc::Receiver<Message>) {
    while let Some(message) = outbox.recv().await {
        match tokio::time::timeout(WRITE_TIMEOUT, write(&mut send, link.node(), &message)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return, // the connection is gone, which the conversation sees
            Err(_) => return link.close(code::PROTOCOL, "does not read its control messages"),
        }
    }
}

/// What a neighbour has to answer from a new address before it counts: a number that only a packet sent there tells.
#[derive(Debug, Clone, Copy)]
struct Proof {
    address: SocketAddr,
    seq: u64,
    next: Time,
}

struct Conversation<'a> {
    context: &'a LinkContext,
    link: &'a Link,
    liveness: Liveness,
    proof: Option<Proof>,
}

impl Conversation<'_> {
    /// Until the link ends; returns why, and whether on purpose.
    async fn run(&mut self, mut reader: ControlReader) -> (String, bool) {
        let connection = &self.link.0.connection;
        loop {
            let wake =
                self.proof.map_or(self.liveness.deadline(), |proof| self.liveness.deadline().min(proof.next));
            tokio::select! {
                message = reader.next() => match message {
                    Ok(message) => {
                        self.liveness.heard(clock::now());
                        let event = LinkEvent::Message { link: self.link.clone(), message };
                        if self.context.events.send(event).await.is_err() {
                            return ("the node is shutting down".to_owned(), true);
                        }
                    }
                    Err(e) => {
                        if let Some(reason) = connection.close_reason() {
                            return end(self.link, &reason);
                        }
                        self.link.close(code::PROTOCOL, &e.0);
                        return (e.0, false);
                    }
                },
                datagram = connection.read_datagram() => match datagram {
                    Ok(datagram) => self.heard(&datagram).await,
                    Err(e) => return end(self.link, &e),
                },
                () = tokio::time::sleep_until(clock::instant(wake)) => {}
                () = self.link.0.suspected.notified() => self.liveness.suspect(clock::now()),
                () = expired(self.link.peer().expires) => {
                    // A node that has renewed its certificate comes back at once; sessions wait for it.
                    self.link.close(code::EXPIRED, "the certificate has ended");
                    return ("its certificate has ended, and a new link needs the renewed one".to_owned(), true);
                }
            }
            match self.liveness.poll(clock::now()) {
                Probe::Ping(seq) => self.send(&Message::Ping(Ping { seq })),
                Probe::Wait => {}
                Probe::Dead => {
                    self.link.close(code::SILENT, "no answer");
                    return (format!("no answer for {:?}", self.liveness.silence(clock::now())), false);
                }
            }
            self.watch_address();
        }
    }

    /// Takes in a datagram. What is no message is ignored, as a lost one would be.
    async fn heard(&mut self, datagram: &Bytes) {
        let Ok(envelope) = decode_datagram(datagram) else { return };
        let now = clock::now();
        match envelope.message {
            Message::Ping(ping) => {
                self.liveness.heard(now);
                self.send(&Message::Pong(Pong { seq: ping.seq }));
            }
            Message::Pong(pong) => {
                self.liveness.pong(pong.seq, now);
                self.link.set_vitals(Vitals { rtt: self.liveness.rtt(), loss: self.liveness.loss() });
                self.proved(pong.seq).await;
            }
            _ => {}
        }
    }

    /// Asks for proof where packets have begun to come from another address.
    fn watch_address(&mut self) {
        let Some(address) =
            self.link.claimed_address().filter(|claimed| Some(*claimed) != self.link.address())
        else {
            self.proof = None;
            return;
        };
        let now = clock::now();
        let proof = match self.proof {
            Some(proof) if proof.address == address => proof,
            _ => Proof { address, seq: rand::random::<u64>() | PROOF_BIT, next: now },
        };
        self.proof = Some(proof);
        if now >= proof.next {
            self.proof = Some(Proof { next: now + PROOF_INTERVAL, ..proof });
            self.send(&Message::Ping(Ping { seq: proof.seq }));
        }
    }

    async fn proved(&mut self, seq: u64) {
        let Some(proof) = self.proof.filter(|proof| proof.seq == seq) else { return };
        let Some(old) = self.link.address().filter(|_| self.link.claimed_address() == Some(proof.address))
        else {
            return;
        };
        self.proof = None;
        self.link.set_address(proof.address);
        let event = LinkEvent::Moved { link: self.link.clone(), old, new: proof.address };
        let _ = self.context.events.send(event).await;
    }

    fn send(&self, message: &Message) {
        // A datagram that cannot be sent is a lost probe.
        let _ = self.link.0.connection.send_datagram(encode_datagram(self.link.node(), message).into());
    }
}

async fn expired(at: Timestamp) {
    loop {
        let left = Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or_default();
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(EXPIRY_LOOK)).await;
    }
}

fn end(link: &Link, error: &ConnectionError) -> (String, bool) {
    match error {
        ConnectionError::LocallyClosed => ("closed by this node".to_owned(), true),
        ConnectionError::Reset => ("it restarted".to_owned(), false),
        other => {
            let on_purpose = [code::GOODBYE, code::EXPIRED].map(VarInt::from_u32);
            let orderly = matches!(other, ConnectionError::ApplicationClosed(close) if on_purpose.contains(&close.error_code));
            let address = link.address().unwrap_or(SocketAddr::from(([0; 4], 0)));
            (explain_connection_error(other, &Expected::accepted(address)), orderly)
        }
    }
}
