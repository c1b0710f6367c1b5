//! The socket on Linux. Sending: `sendmsg(2)` with UDP_SEGMENT; an `iovec` a slice, or a pair of them (header, datagram) a segment.

use std::io::{self, IoSliceMut};
use std::mem::{size_of, zeroed};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use noq_udp::{RecvMeta, UdpSocketState};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::{Batch, MAX_SEGMENTS};

/// How long a full socket is left alone where it cannot be waited for.
const WRITABLE_WAIT: Duration = Duration::from_millis(1);
/// Room for the control messages: segment size, ECN bits, source address.
const CONTROL_LEN: usize = 128;

/// The socket, registered for reading alone: for a UDP socket that is registered for writing, too, the kernel tells that it
/// is writable whenever a packet has left it, which would wake the node once more for each that it sends.
#[derive(Debug)]
pub(crate) struct Io(AsyncFd<UdpSocket>);

impl Io {
    pub(crate) fn new(socket: UdpSocket) -> io::Result<Self> {
        register(socket, Interest::READABLE).map(Self)
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.get_ref().local_addr()
    }

    /// Registers the socket a second time for as long as this is waited for, which is rare. Where that cannot be done, for want
    /// of descriptors, a moment's wait has to do.
    pub(crate) async fn writable(&self) {
        let socket = self.0.get_ref();
        match socket.try_clone().and_then(|socket| register(socket, Interest::WRITABLE)) {
            Ok(waiting) => drop(waiting.writable().await),
            Err(_) => tokio::time::sleep(WRITABLE_WAIT).await,
        }
    }

    pub(crate) fn try_send(&self, _: &UdpSocketState, batch: &Batch<'_>) -> io::Result<()> {
        send(self.0.get_ref(), batch)
    }

    pub(crate) fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        state: &UdpSocketState,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.0.poll_read_ready(cx))?;
            let Ok(result) = guard.try_io(|io| state.recv(io.get_ref().into(), bufs, meta)) else { continue };
            // Fewer than fit: the socket is empty, which need not be asked a second time.
            if result.as_ref().is_ok_and(|received| *received < bufs.len().min(noq_udp::BATCH_SIZE)) {
                guard.clear_ready();
            }
            return Poll::Ready(result);
        }
    }
}

fn register(socket: UdpSocket, interest: Interest) -> io::Result<AsyncFd<UdpSocket>> {
    // SAFETY: the AsyncFd owns the socket, which is never taken out of it: its descriptor is open for as long.
    unsafe { AsyncFd::register_with_interest(socket, interest) }.map_err(io::Error::from)
}

#[repr(align(8))]
struct Control([u8; CONTROL_LEN]);

fn send(io: &UdpSocket, batch: &Batch<'_>) -> io::Result<()> {
    let count = batch.count();
    if count > MAX_SEGMENTS || batch.contents.len() > MAX_SEGMENTS {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    let mut vectors = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; 2 * MAX_SEGMENTS];
    let vector =
        |bytes: &[u8]| libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let used = if batch.header.is_empty() {
        for (entry, slice) in vectors.iter_mut().zip(batch.contents) {
            *entry = vector(slice);
        }
        batch.contents.len()
    } else {
        for (pair, datagram) in vectors.chunks_exact_mut(2).zip(batch.datagrams()) {
            pair[0] = vector(batch.header);
            pair[1] = vector(datagram);
        }
        2 * count
    };

    let to = socket2::SockAddr::from(batch.to);
    let mut control = Control([0; CONTROL_LEN]);
    // SAFETY: a msghdr of zeros is valid: null pointers with lengths of zero.
    let mut message: libc::msghdr = unsafe { zeroed() };
    message.msg_name = to.as_ptr().cast_mut().cast();
    message.msg_namelen = to.len();
    message.msg_iov = vectors.as_mut_ptr();
    message.msg_iovlen = used;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = CONTROL_LEN;

    let mut encoder = Encoder::new(&mut message);
    if count > 1 {
        let Ok(segment) = u16::try_from(batch.segment + batch.header.len()) else {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        };
        encoder.push(libc::SOL_UDP, libc::UDP_SEGMENT, segment);
    }
    let ecn = batch.ecn.map_or(0, |ecn| ecn as libc::c_int);
    if is_v4(batch.to) {
        encoder.push(libc::IPPROTO_IP, libc::IP_TOS, ecn);
    } else {
        encoder.push(libc::IPPROTO_IPV6, libc::IPV6_TCLASS, ecn);
    }
    match batch.from.map(|ip| ip.to_canonical()) {
        Some(IpAddr::V4(ip)) if is_v4(batch.to) => encoder.push(
            libc::IPPROTO_IP,
            libc::IP_PKTINFO,
            libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: libc::in_addr { s_addr: u32::from_ne_bytes(ip.octets()) },
                ipi_addr: libc::in_addr { s_addr: 0 },
            },
        ),
        Some(IpAddr::V6(ip)) if !is_v4(batch.to) => encoder.push(
            libc::IPPROTO_IPV6,
            libc::IPV6_PKTINFO,
            libc::in6_pktinfo { ipi6_addr: libc::in6_addr { s6_addr: ip.octets() }, ipi6_ifindex: 0 },
        ),
        _ => {} // none asked for, or one of the other family, which cannot be used
    }
    let control_len = encoder.len;
    message.msg_controllen = control_len;

    loop {
        // SAFETY: all pointers of `message` are to live values of this frame, with their true lengths; the
        // kernel only reads them.
        let sent = unsafe { libc::sendmsg(io.as_raw_fd(), &raw const message, 0) };
        if sent >= 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Whether a send failed since the kernel or a driver does not segment.
pub(crate) fn is_segmentation_error(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EIO | libc::EINVAL))
}

fn is_v4(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_ipv4()
}

/// Writes control messages one behind the other (RFC 3542, section 20).
struct Encoder<'a> {
    message: &'a mut libc::msghdr,
    next: *mut libc::cmsghdr,
    len: usize,
}

impl<'a> Encoder<'a> {
    fn new(message: &'a mut libc::msghdr) -> Self {
        // SAFETY: msg_control and msg_controllen are set to a live, aligned buffer.
        let next = unsafe { libc::CMSG_FIRSTHDR(message) };
        Self { message, next, len: 0 }
    }

    fn push<T: Copy>(&mut self, level: libc::c_int, kind: libc::c_int, value: T) {
        #[expect(clippy::cast_possible_truncation, reason = "asserted to be a few bytes")]
        let size = const {
            assert!(size_of::<T>() <= CONTROL_LEN);
            size_of::<T>() as u32
        };
        // SAFETY: plain arithmetic.
        let space = unsafe { libc::CMSG_SPACE(size) } as usize;
        assert!(!self.next.is_null() && self.len + space <= CONTROL_LEN, "control buffer is too small");
        // SAFETY: `next` points into the zeroed control buffer with at least `space` bytes left, as asserted;
        // CMSG_DATA may be less aligned than T, so the write is unaligned.
        unsafe {
            (*self.next).cmsg_level = level;
            (*self.next).cmsg_type = kind;
            (*self.next).cmsg_len = libc::CMSG_LEN(size) as usize;
            libc::CMSG_DATA(self.next).cast::<T>().write_unaligned(value);
            self.next = libc::CMSG_NXTHDR(self.message, self.next);
        }
        self.len += space;
    }
}
