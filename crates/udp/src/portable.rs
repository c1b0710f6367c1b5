//! Sending where `sendmsg(2)` has no UDP_SEGMENT: the batch is copied once to put its slices and headers
//! together.

use std::io;

use noq_udp::{Transmit, UdpSocketState};
use tokio::net::UdpSocket;

use super::Batch;

pub(crate) fn send(io: &UdpSocket, state: &UdpSocketState, batch: &Batch<'_>) -> io::Result<()> {
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
