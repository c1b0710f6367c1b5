//! Sending where `sendmsg(2)` has no UDP_SEGMENT: the batch is copied once to put its slices and headers
//! together.

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::task::{Context, Poll, ready};

use noq_udp::{RecvMeta, Transmit, UdpSocketState};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use super::Batch;

/// The socket.
#[derive(Debug)]
pub(crate) struct Io(UdpSocket);

impl Io {
    pub(crate) fn new(socket: std::net::UdpSocket) -> io::Result<Self> {
        UdpSocket::from_std(socket).map(Self)
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    pub(crate) async fn writable(&self) {
        let _ = self.0.writable().await; // fails only when the runtime ends
    }

    pub(crate) fn try_send(&self, state: &UdpSocketState, batch: &Batch<'_>) -> io::Result<()> {
        self.0.try_io(Interest::WRITABLE, || send(&self.0, state, batch))
    }

    pub(crate) fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        state: &UdpSocketState,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.0.poll_recv_ready(cx))?;
            match self.0.try_io(Interest::READABLE, || state.recv((&self.0).into(), bufs, meta)) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }
}

fn send(io: &UdpSocket, state: &UdpSocketState, batch: &Batch<'_>) -> io::Result<()> {
    let copied: Vec<u8>;
    let contents = match batch.contents {
        [slice] if batch.header.is_empty() => *slice,
        _ => {
            copied = batch.datagrams().flat_map(|datagram| [batch.header, datagram].concat()).collect();
            &copied
        }
    };
    let segment = batch.segment + batch.header.len();
    let transmit = Transmit {
        destination: batch.to,
        ecn: batch.ecn,
        contents,
        segment_size: (contents.len() > segment).then_some(segment),
        src_ip: batch.from,
    };
    state.try_send(io.into(), &transmit)
}

pub(crate) fn is_segmentation_error(_: &io::Error) -> bool {
    false
}
