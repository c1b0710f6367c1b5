//! A link that is up: control messages both ways, probes, changes of address.

use std::net::SocketAddr;

use bytes::Bytes;
use ffmesh_core::neighbor::{Liveness, Probe};
use ffmesh_core::wire::{Message, Ping, Pong, decode_datagram, encode_datagram};
use noq::{ConnectionError, SendStream, VarInt};
use tokio::sync::mpsc;

use super::handshake::{ControlReader, write};
use super::{Link, LinkContext, LinkEvent, Vitals, code};
use crate::clock;
use crate::identity::{Expected, explain_connection_error};

/// Runs an admitted link to its end, and tells of it.
pub(super) async fn run(
    context: LinkContext,
    link: Link,
    send: SendStream,
    reader: ControlReader,
    outbox: mpsc::Receiver<Message>,
) {
    let writer = tokio::spawn(write_messages(link.clone(), send, outbox));
    let reason = converse(&context, &link, reader).await;
    writer.abort();
    let orderly = match link.0.connection.close_reason() {
        Some(ConnectionError::ApplicationClosed(close)) => {
            close.error_code == VarInt::from_u32(code::GOODBYE)
        }
        _ => context.events.is_closed(),
    };
    let _ = context.events.send(LinkEvent::Down { link, reason, orderly }).await;
}

async fn write_messages(link: Link, mut send: SendStream, mut outbox: mpsc::Receiver<Message>) {
    while let Some(message) = outbox.recv().await {
        if write(&mut send, link.node(), &message).await.is_err() {
            return; // the connection is gone, which `converse` sees
        }
    }
}

/// Until the link ends; returns why.
async fn converse(context: &LinkContext, link: &Link, mut reader: ControlReader) -> String {
    let connection = &link.0.connection;
    let mut liveness = Liveness::new(context.keep_alive, clock::now());
    let mut address = link.address();
    loop {
        tokio::select! {
            message = reader.next() => match message {
                Ok(message) => {
                    liveness.heard(clock::now());
                    let event = LinkEvent::Message { link: link.clone(), message };
                    if context.events.send(event).await.is_err() {
                        return "the node is shutting down".to_owned();
                    }
                }
                Err(e) => {
                    if let Some(reason) = connection.close_reason() {
                        return end(link, &reason);
                    }
                    link.close(code::PROTOCOL, &e.0);
                    return e.0;
                }
            },
            datagram = connection.read_datagram() => match datagram {
                Ok(datagram) => heard(link, &mut liveness, &datagram),
                Err(e) => return end(link, &e),
            },
            () = tokio::time::sleep_until(clock::instant(liveness.deadline())) => {}
        }
        match liveness.poll(clock::now()) {
            Probe::Ping(seq) => send_datagram(link, &Message::Ping(Ping { seq })),
            Probe::Wait => {}
            Probe::Dead => {
                link.close(code::SILENT, "no answer");
                return format!(
                    "no answer for {:?}",
                    context.keep_alive * ffmesh_core::neighbor::DEAD_AFTER_INTERVALS
                );
            }
        }
        if let (Some(old), Some(new)) = (address, link.address())
            && old != new
        {
            address = Some(new);
            let _ = context.events.send(LinkEvent::Moved { old, new }).await;
        }
    }
}

/// Takes in a datagram. What is no message is ignored, as a lost one would be.
fn heard(link: &Link, liveness: &mut Liveness, datagram: &Bytes) {
    let Ok(envelope) = decode_datagram(datagram) else { return };
    let now = clock::now();
    match envelope.message {
        Message::Ping(ping) => {
            liveness.heard(now);
            send_datagram(link, &Message::Pong(Pong { seq: ping.seq }));
        }
        Message::Pong(pong) => {
            liveness.pong(pong.seq, now);
            link.set_vitals(Vitals { rtt: liveness.rtt(), loss: liveness.loss() });
        }
        _ => {}
    }
}

fn send_datagram(link: &Link, message: &Message) {
    // A datagram that cannot be sent is a lost probe.
    let _ = link.0.connection.send_datagram(encode_datagram(link.node(), message).into());
}

fn end(link: &Link, error: &ConnectionError) -> String {
    let address = link.address().unwrap_or(SocketAddr::from(([0; 4], 0)));
    match error {
        ConnectionError::LocallyClosed => "closed by this node".to_owned(),
        ConnectionError::Reset => "it restarted".to_owned(),
        other => explain_connection_error(other, &Expected::accepted(address)),
    }
}
