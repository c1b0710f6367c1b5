mod demultiplex;
mod outbox;
mod relay;
mod send;
mod throughput;

use std::io::IoSliceMut;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ffmesh_core::label::{LABEL_HEADER_LEN, Label, Lane};
use ffmesh_core::time::Time;
use ffmesh_udp::{Socket, canonical};
use noq::udp::{EcnCodepoint, RecvMeta};
use tokio::sync::mpsc;

use super::*;

/// Serial of the link to [`neighbor`].
const LINK: u64 = 7;

fn udp() -> Socket {
    Socket::bind(Some(Ipv4Addr::LOCALHOST.into()), 0).unwrap()
}

fn label_socket(labels: &Labels) -> LabelSocket {
    LabelSocket::new(Arc::new(udp()), labels.clone(), 1452)
}

fn neighbor() -> SocketAddr {
    "192.0.2.1:3334".parse().unwrap()
}

fn label(bits: u64) -> Label {
    Label::from_random(bits << 2)
}

/// A session, and an end of a circuit for it behind `label` from `from`.
fn end(labels: &Labels, label: Label, from: SocketAddr) -> (CircuitEnd, mpsc::Receiver<ReceivedProbe>) {
    let (probes, received) = mpsc::channel(4);
    let end = CircuitEnd { session: labels.new_session(), circuit: 5, activity: Arc::default(), probes };
    labels.install_end(label, LINK, from, end.clone());
    (end, received)
}

fn hop(to: SocketAddr, label: Label) -> Hop {
    Hop { to, from: None, label, link: 8 }
}

fn packet(label: Label, lane: Lane, body: &[u8]) -> Vec<u8> {
    [&label.header(lane)[..], body].concat()
}

/// What one buffer of a receive holds.
#[derive(Debug, Clone)]
struct Buffer {
    bytes: Vec<u8>,
    stride: usize,
    from: SocketAddr,
    ecn: Option<EcnCodepoint>,
}

impl Buffer {
    /// Packets from [`neighbor`], all of the first one's length but the last.
    fn of(packets: &[Vec<u8>]) -> Self {
        Self { bytes: packets.concat(), stride: packets[0].len(), from: neighbor(), ecn: None }
    }
}

/// A run as QUIC gets it: its source, its packets and their length.
type Got = (SocketAddr, Vec<u8>, usize);

/// Hands buffers to a socket as if received, with so many empty ones behind. Returns what QUIC gets, and in how many calls.
fn receive_with(socket: &mut LabelSocket, buffers: &[Buffer], spare: usize) -> (Vec<Got>, usize) {
    let mut storage = vec![vec![0; 1 << 16]; buffers.len() + spare];
    let mut meta = vec![RecvMeta::default(); storage.len()];
    for ((bytes, meta), buffer) in storage.iter_mut().zip(&mut meta).zip(buffers) {
        bytes[..buffer.bytes.len()].copy_from_slice(&buffer.bytes);
        (meta.addr, meta.len, meta.stride) = (buffer.from, buffer.bytes.len(), buffer.stride);
        (meta.ecn, meta.dst_ip) = (buffer.ecn, Some(Ipv4Addr::LOCALHOST.into()));
    }
    let mut bufs: Vec<_> = storage.iter_mut().map(|bytes| IoSliceMut::new(bytes)).collect();
    let mut got = Vec::new();
    let mut calls = 0;
    let mut count = socket.demultiplexer.sort(&mut bufs, &mut meta, buffers.len());
    while count > 0 {
        calls += 1;
        got.extend((0..count).map(|i| (meta[i].addr, bufs[i][..meta[i].len].to_vec(), meta[i].stride)));
        count = socket.demultiplexer.left_over(&mut bufs, &mut meta);
    }
    (got, calls)
}

fn receive(socket: &mut LabelSocket, buffers: &[Buffer]) -> Vec<Got> {
    receive_with(socket, buffers, 32).0
}

/// The next datagrams that come to a socket.
async fn datagrams(socket: &Socket, count: usize) -> Vec<(Vec<u8>, Option<EcnCodepoint>)> {
    let mut got = Vec::new();
    while got.len() < count {
        let mut buffer = vec![0; 1 << 16];
        let mut meta = [RecvMeta::default()];
        let receive =
            std::future::poll_fn(|cx| socket.poll_recv(cx, &mut [IoSliceMut::new(&mut buffer)], &mut meta));
        tokio::time::timeout(Duration::from_secs(5), receive).await.expect("nothing came").unwrap();
        let packets = buffer[..meta[0].len].chunks(meta[0].stride.max(1));
        got.extend(packets.map(|packet| (packet.to_vec(), meta[0].ecn)));
    }
    got
}

/// A moment of the clock that is not "never".
fn now() -> Time {
    loop {
        match clock::now() {
            Time(0) => std::thread::yield_now(),
            now => return now,
        }
    }
}
