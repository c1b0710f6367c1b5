//! Messages to bytes and back.

use std::hint::black_box;
use std::io;

use ffmesh_core::id::NodeId;
use ffmesh_core::label::Label;
use ffmesh_core::wire::{CircuitOpen, Message, Ping, decode_datagram, encode, encode_datagram};

use super::Job;

fn id(text: &str) -> io::Result<NodeId> {
    text.parse().map_err(|_| io::Error::other("no node's id"))
}

/// What links send all the time.
pub(super) fn ping() -> Message {
    Message::Ping(Ping { seq: 123_456 })
}

/// What sets up a circuit over two relays.
pub(super) fn opening() -> io::Result<Message> {
    let route =
        ["client", "relay-one", "relay-two", "server"].map(id).into_iter().collect::<io::Result<_>>()?;
    let label = Label::from_random(1 << 58);
    Ok(Message::CircuitOpen(CircuitOpen { circuit: 1 << 60, route, session: 1 << 59, label }))
}

pub(super) fn encoding(message: Message) -> io::Result<Job> {
    let to = id("server")?;
    Ok(Box::new(move || drop(black_box(encode(&to, black_box(&message))))))
}

pub(super) fn decoding(message: &Message) -> io::Result<Job> {
    let text = encode_datagram(&id("server")?, message);
    Ok(Box::new(move || drop(black_box(decode_datagram(black_box(&text))))))
}
