//! Packets that pass a node.

use std::future::poll_fn;
use std::hint::black_box;
use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::task::Poll;

use ffmesh_core::label::{Label, Lane};
use ffmesh_node::socket::{Hop, LabelSocket, Labels, TransitLimit};
use ffmesh_udp::Socket;
use noq::AsyncUdpSocket as _;
use noq::udp::RecvMeta;

use super::Job;

/// Packets that wait when the relay looks.
const PACKETS: u32 = 32;
/// Buffers of a receive, each for one packet or what the kernel has merged.
const BUFFERS: usize = 32;
const BUFFER: usize = 64 << 10;

/// New labels for 64 packets.
pub(super) fn swaps() -> Job {
    let labels = [Label::from_random(4), Label::from_random(8)];
    let mut packets = vec![[&labels[0].header(Lane::Slot(1))[..], &[0; 55]].concat(); 64];
    let mut turn = 0;
    Box::new(move || {
        turn ^= 1;
        for packet in black_box(&mut packets) {
            labels[turn].swap_into(packet);
        }
    })
}

/// Packets with so much behind the label, from one socket through a relay's to another.
pub(super) fn passage(len: usize) -> io::Result<Job> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let entered = runtime.enter();
    let (source, sink) =
        (UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?, UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?);
    let udp = Arc::new(Socket::bind(Some(Ipv4Addr::LOCALHOST.into()), 0)?);
    source.connect(udp.local_addr()?)?;
    // As much as it takes: this is about what a packet costs, not about who may have how many.
    let most = u64::from(u32::MAX);
    let labels = Labels::new(TransitLimit { packets: most, bytes: most * 100 });
    let label = Label::from_random(4);
    let hop = Hop { to: sink.local_addr()?, from: None, label: Label::from_random(8), link: 2 };
    labels.install_relay(label, 1, ffmesh_udp::mapped(source.local_addr()?), hop);
    let mut socket = LabelSocket::new(udp, labels.clone(), 1452);
    let packet = [&label.header(Lane::Slot(0))[..], &vec![7; len]].concat();
    let mut storage = vec![vec![0; BUFFER]; BUFFERS];
    drop(entered);
    Ok(Box::new(move || {
        // It is lost where nobody takes it, as the sink's are.
        let sent = (0..PACKETS).filter(|_| source.send(&packet).is_ok()).count();
        let wanted = labels.transit().packets + sent as u64;
        let mut meta = [RecvMeta::default(); BUFFERS];
        let mut buffers: Vec<_> = storage.iter_mut().map(|buffer| IoSliceMut::new(buffer)).collect();
        runtime.block_on(poll_fn(|cx| {
            let _ = socket.poll_recv(cx, &mut buffers, &mut meta);
            if labels.transit().packets >= wanted { Poll::Ready(()) } else { Poll::Pending }
        }));
        let _keep = &sink;
    }))
}
