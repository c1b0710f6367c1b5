//! The socket of a node that dials before it has an identity.
//!
//! noq 1.3.0 does not send a client's CONNECTION_CLOSE when the handshake fails and the socket reports the local
//! address of packets: it answers only on a path that equals the packet's, and before the handshake is confirmed its
//! path has no local address. The other side then sees silence, not the reason. A socket that does not report the
//! address is the way around; a client has no use for it.

use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use noq::{AsyncUdpSocket, Runtime, UdpSender};

/// An endpoint that only dials, bound to `local`.
pub(super) fn client_endpoint(local: SocketAddr) -> io::Result<noq::Endpoint> {
    let runtime = Arc::new(noq::TokioRuntime);
    let socket = WithoutLocalAddress(runtime.wrap_udp_socket(UdpSocket::bind(local)?)?);
    noq::Endpoint::new_with_abstract_socket(noq::EndpointConfig::default(), None, Box::new(socket), runtime)
}

#[derive(Debug)]
struct WithoutLocalAddress(Box<dyn AsyncUdpSocket>);

impl AsyncUdpSocket for WithoutLocalAddress {
    fn create_sender(&self) -> Pin<Box<dyn UdpSender>> {
        self.0.create_sender()
    }

    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [noq::udp::RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let received = self.0.poll_recv(cx, bufs, meta);
        for meta in meta {
            meta.dst_ip = None;
        }
        received
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    fn max_receive_segments(&self) -> std::num::NonZeroUsize {
        self.0.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.0.may_fragment()
    }
}
