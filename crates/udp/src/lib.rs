//! FFMesh's UDP socket: the system calls of the data path.
//!
//! One UDP port for everything: QUIC packets and packets behind a label. On Linux a label is put before each
//! segment of a batch without copying it (`sendmsg(2)` with UDP_SEGMENT and one pair of `iovec`s a segment); elsewhere
//! the batch is copied once. Receiving is `noq-udp`'s: `recvmmsg(2)` with UDP_GRO where there is.
//!
//! This is the only crate with unsafe code.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use noq_udp::UdpSocketState;
pub use noq_udp::{EcnCodepoint, RecvMeta};

pub use memory::{keep_memory, release_memory};

#[cfg(target_os = "linux")]
mod linux;
mod memory;
#[cfg(not(target_os = "linux"))]
mod portable;
#[cfg(target_os = "linux")]
use linux as sys;
#[cfg(not(target_os = "linux"))]
use portable as sys;

/// Bytes asked of the kernel for each direction's buffer. A GSO batch is up to 64 KiB and arrives at once, so the
/// usual 208 KiB hold three. The kernel may give less (`net.core.rmem_max`).
pub const SOCKET_BUFFER: usize = 4 << 20;
/// Most segments of one send: what Linux takes (UDP_MAX_SEGMENTS).
pub const MAX_SEGMENTS: usize = 64;
/// Longest header that can stand before each segment.
pub const MAX_HEADER_LEN: usize = 16;

/// A batch of datagrams of one size (the last may be shorter) to one destination.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'a> {
    /// Where to
    pub to: SocketAddr,
    /// Local address to send from; the system's choice where there is none
    pub from: Option<IpAddr>,
    /// ECN bits of the IP header (RFC 3168)
    pub ecn: Option<EcnCodepoint>,
    /// What stands before each datagram; may be empty, at most [`MAX_HEADER_LEN`]
    pub header: &'a [u8],
    /// The datagrams, end to end: at most [`MAX_SEGMENTS`] slices, each of whole datagrams
    pub contents: &'a [&'a [u8]],
    /// Length of each datagram but the last of all; at most [`MAX_SEGMENTS`] of them
    pub segment: usize,
}

impl<'a> Batch<'a> {
    /// The datagrams, without what stands before them.
    pub fn datagrams(&self) -> impl Iterator<Item = &'a [u8]> {
        let segment = self.segment;
        self.contents.iter().flat_map(move |slice| slice.chunks(segment))
    }

    /// Bytes of all of them, with what stands before each.
    pub fn bytes(&self) -> usize {
        self.contents.iter().map(|slice| slice.len()).sum::<usize>() + self.count() * self.header.len()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.contents.iter().map(|slice| slice.len().div_ceil(self.segment)).sum()
    }
}

/// A UDP socket that sends and receives batches. Non-blocking; use it within a tokio runtime.
#[derive(Debug)]
pub struct Socket {
    io: sys::Io,
    state: UdpSocketState,
    v6: bool,
    /// Segments that one send may have: falls to 1 when the kernel or a driver turns out not to segment.
    segments: AtomicUsize,
}

impl Socket {
    /// Binds `port` (0: any free one) on `address`, or on all addresses of both families without one; on all of
    /// IPv4 where there is no IPv6.
    pub fn bind(address: Option<IpAddr>, port: u16) -> io::Result<Self> {
        match address {
            Some(ip) => Self::bind_one(SocketAddr::new(ip, port)),
            None => match Self::bind_one(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port)) {
                // No IPv6 in this kernel or namespace.
                Err(e) if !matches!(e.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied) => {
                    Self::bind_one(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port))
                }
                bound => bound,
            },
        }
    }

    fn bind_one(address: SocketAddr) -> io::Result<Self> {
        let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::DGRAM, None)?;
        if address.is_ipv6() {
            // Only the wildcard speaks both; a given IPv6 address is that address.
            socket.set_only_v6(!address.ip().is_unspecified())?;
        }
        // Less than asked for is no failure.
        let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
        let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        let socket = std::net::UdpSocket::from(socket);
        let state = UdpSocketState::new((&socket).into())?;
        let segments = AtomicUsize::new(state.max_gso_segments().get().min(MAX_SEGMENTS));
        Ok(Self { io: sys::Io::new(socket)?, state, v6: address.is_ipv6(), segments })
    }

    /// The address it is bound to.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.io.local_addr()
    }

    /// Whether the IP layer might fragment what is sent.
    pub fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }

    /// Segments that one [`Batch`] may have.
    pub fn max_segments(&self) -> NonZeroUsize {
        NonZeroUsize::new(self.segments.load(Ordering::Relaxed)).unwrap_or(NonZeroUsize::MIN)
    }

    /// Datagrams that one received buffer may hold.
    pub fn receive_segments(&self) -> NonZeroUsize {
        self.state.gro_segments()
    }

    /// Sends a batch. `WouldBlock` where the socket's buffer is full: wait for [`writable`](Self::writable). Other
    /// errors mean that the batch, or a part of it, was dropped as a network might have.
    pub fn try_send(&self, batch: &Batch<'_>) -> io::Result<()> {
        let batch = Batch { to: self.in_family(batch.to), segment: batch.segment.max(1), ..*batch };
        let send = |batch: &Batch<'_>| self.io.try_send(&self.state, batch);
        let count = batch.count();
        if count == 0 {
            return Ok(());
        }
        let mut refused = false;
        if count == 1 || count <= self.segments.load(Ordering::Relaxed) {
            match send(&batch) {
                Err(error) if count > 1 && sys::is_segmentation_error(&error) => refused = true,
                result => return result,
            }
        }
        // Dropping the rest of a batch is what a full queue of the network does. `WouldBlock` is for a batch of which
        // nothing has left: it is sent again.
        for (sent, datagram) in batch.datagrams().enumerate() {
            match send(&Batch { contents: &[datagram], ..batch }) {
                Err(e) if sent > 0 && e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                result => result?,
            }
            if std::mem::take(&mut refused) {
                // Some drivers and kernels do not segment, and say so only here. Those that refuse segments longer than
                // the interface's MTU with the same error have refused a single one, too.
                self.segments.store(1, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    /// Waits until the socket takes more, or might.
    pub async fn writable(&self) {
        self.io.writable().await;
    }

    /// Receives into `bufs`, one [`RecvMeta`] for each buffer that was filled.
    ///
    /// Addresses are those of the socket's family: IPv4 peers of an IPv6 socket are v4-mapped.
    pub fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        loop {
            match self.io.poll_recv(cx, &self.state, bufs, meta) {
                // An ICMP error of an earlier send; forged ones must not stop the socket.
                Poll::Ready(Err(e))
                    if matches!(
                        e.kind(),
                        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset
                    ) => {}
                result => return result,
            }
        }
    }

    fn in_family(&self, address: SocketAddr) -> SocketAddr {
        if self.v6 { mapped(address) } else { canonical(address) }
    }
}

/// The IPv6 form of an address: IPv4 becomes v4-mapped (RFC 4291, section 2.5.5.2).
pub fn mapped(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(v4) => SocketAddrV6::new(v4.ip().to_ipv6_mapped(), v4.port(), 0, 0).into(),
        v6 @ SocketAddr::V6(_) => v6,
    }
}

/// The plain form of an address: v4-mapped becomes IPv4.
pub fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        v4 @ IpAddr::V4(_) => SocketAddr::new(v4, address.port()),
        IpAddr::V6(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    async fn receive(socket: &Socket, datagrams: usize) -> Vec<Vec<u8>> {
        let mut got = Vec::new();
        while got.len() < datagrams {
            let mut buffer = vec![0; 1 << 16];
            let mut meta = [RecvMeta::default()];
            let received = std::future::poll_fn(|cx| {
                socket.poll_recv(cx, &mut [IoSliceMut::new(&mut buffer)], &mut meta)
            });
            let n =
                tokio::time::timeout(Duration::from_secs(5), received).await.expect("nothing came").unwrap();
            assert_eq!(n, 1);
            got.extend(buffer[..meta[0].len].chunks(meta[0].stride.max(1)).map(<[u8]>::to_vec));
        }
        got
    }

    async fn a_batch_arrives(from: Option<IpAddr>, to: IpAddr, limit: Option<usize>) {
        let sender = Socket::bind(from, 0).unwrap();
        let receiver = Socket::bind(Some(to), 0).unwrap();
        if let Some(limit) = limit {
            sender.segments.store(limit, Ordering::Relaxed);
        }
        let contents: Vec<u8> = (0..5u8).flat_map(|i| vec![i; if i < 4 { 1000 } else { 500 }]).collect();
        for header in [&b""[..], b"\x40label..."] {
            let batch = Batch {
                to: receiver.local_addr().unwrap(),
                from: None,
                ecn: Some(EcnCodepoint::Ect0),
                header,
                contents: &[&contents],
                segment: 1000,
            };
            sender.writable().await;
            sender.try_send(&batch).unwrap();
            let expected: Vec<Vec<u8>> = contents.chunks(1000).map(|c| [header, c].concat()).collect();
            assert_eq!(receive(&receiver, 5).await, expected, "{from:?} to {to}");
        }
    }

    #[tokio::test]
    async fn a_header_stands_before_each_datagram_of_a_batch() {
        let (v4, v6): (IpAddr, IpAddr) = (Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into());
        a_batch_arrives(Some(v4), v4, None).await;
        a_batch_arrives(None, v4, None).await;
        a_batch_arrives(None, v6, None).await;
    }

    #[tokio::test]
    async fn a_batch_arrives_where_nothing_segments() {
        a_batch_arrives(None, Ipv4Addr::LOCALHOST.into(), Some(1)).await;
    }

    async fn slices_arrive(limit: Option<usize>) {
        let sender = Socket::bind(Some(Ipv4Addr::LOCALHOST.into()), 0).unwrap();
        let receiver = Socket::bind(Some(Ipv4Addr::LOCALHOST.into()), 0).unwrap();
        if let Some(limit) = limit {
            sender.segments.store(limit, Ordering::Relaxed);
        }
        let (a, b, c) = (vec![1; 2000], vec![2; 1000], vec![3; 1100]);
        for header in [&b""[..], b"\x40label..."] {
            let batch = Batch {
                to: receiver.local_addr().unwrap(),
                from: None,
                ecn: None,
                header,
                contents: &[&a, &b, &c],
                segment: 1000,
            };
            sender.writable().await;
            sender.try_send(&batch).unwrap();
            let expected: Vec<Vec<u8>> = [(1, 1000), (1, 1000), (2, 1000), (3, 1000), (3, 100)]
                .map(|(fill, len)| [header, &vec![fill; len]].concat())
                .to_vec();
            assert_eq!(receive(&receiver, 5).await, expected);
        }
    }

    #[tokio::test]
    async fn a_batch_of_several_slices_arrives_as_one() {
        slices_arrive(None).await;
        slices_arrive(Some(1)).await;
    }

    #[tokio::test]
    async fn what_is_too_long_is_an_error_and_no_reason_to_stop_segmenting() {
        let sender = Socket::bind(Some(Ipv4Addr::LOCALHOST.into()), 0).unwrap();
        let segments = sender.max_segments();
        let long = vec![0; 70_000];
        let batch = Batch {
            to: sender.local_addr().unwrap(),
            from: None,
            ecn: None,
            header: b"",
            contents: &[&long],
            segment: 70_000,
        };
        sender.writable().await;
        assert!(sender.try_send(&batch).is_err());
        assert!(sender.try_send(&Batch { contents: &[&long, &long], ..batch }).is_err());
        assert!(
            sender.try_send(&Batch { contents: &[&b"x"[..]; MAX_SEGMENTS + 1], segment: 1, ..batch }).is_ok()
        );
        assert_eq!(sender.max_segments(), segments);
    }

    #[tokio::test]
    async fn a_socket_that_was_emptied_receives_what_comes_next() {
        let address = Ipv4Addr::LOCALHOST.into();
        let (sender, receiver) =
            (Socket::bind(Some(address), 0).unwrap(), Socket::bind(Some(address), 0).unwrap());
        let to = receiver.local_addr().unwrap();
        let batch = Batch { to, from: None, ecn: None, header: b"", contents: &[b"x"], segment: 1 };
        for pause in [0, 1, 0, 20] {
            let receiving = receive(&receiver, 1);
            let sending = async {
                tokio::time::sleep(Duration::from_millis(pause)).await;
                sender.writable().await;
                sender.try_send(&batch).unwrap();
            };
            assert_eq!(tokio::join!(receiving, sending).0, [b"x"]);
        }
    }

    #[tokio::test]
    async fn it_sends_from_the_address_asked_for() {
        let sender = Socket::bind(None, 0).unwrap();
        let receiver = Socket::bind(Some(Ipv4Addr::LOCALHOST.into()), 0).unwrap();
        let from: IpAddr = Ipv4Addr::new(127, 0, 0, 5).into();
        let batch = Batch {
            to: receiver.local_addr().unwrap(),
            from: Some(from),
            ecn: None,
            header: b"h",
            contents: &[b"x"],
            segment: 1,
        };
        sender.writable().await;
        sender.try_send(&batch).unwrap();
        let mut buffer = [0; 10];
        let mut meta = [RecvMeta::default()];
        std::future::poll_fn(|cx| receiver.poll_recv(cx, &mut [IoSliceMut::new(&mut buffer)], &mut meta))
            .await
            .unwrap();
        assert_eq!(meta[0].addr.ip(), from);
    }
}
