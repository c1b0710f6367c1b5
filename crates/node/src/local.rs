//! A local stream socket: a client's at the ingress, a target's at the egress.

use std::io::{self, IoSlice, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use bytes::BytesMut;
use socket2::SockRef;
use tokio::io::{Interest, Ready};
use tokio::net::{TcpStream, UnixStream};

/// A connected TCP or Unix stream.
#[derive(Debug)]
pub enum Stream {
    /// TCP, with TCP_NODELAY set
    Tcp(TcpStream),
    /// A Unix stream socket
    Unix(UnixStream),
}

macro_rules! either {
    ($stream:expr, $inner:ident => $call:expr) => {
        match $stream {
            Stream::Tcp($inner) => $call,
            Stream::Unix($inner) => $call,
        }
    };
}

impl Stream {
    /// The TCP address of the other end.
    pub fn peer_address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(stream) => stream.peer_addr().ok(),
            Self::Unix(_) => None,
        }
    }

    /// Waits until there is something to read, or the end.
    pub async fn readable(&self) -> io::Result<()> {
        either!(self, s => s.readable().await)
    }

    /// Reads what is there into the free room of `buffer`. 0 is the end of the stream; `WouldBlock` means that nothing
    /// is there now.
    pub fn try_read(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        either!(self, s => s.try_read_buf(buffer))
    }

    /// What the other end has sent already, at most `limit` bytes; empty where that is nothing yet. Asks the kernel,
    /// as the runtime knows nothing yet of a socket that is new.
    pub fn already_sent(&self, limit: usize) -> io::Result<Vec<u8>> {
        let mut buffer = vec![0; limit];
        let read = either!(self, s => (&*SockRef::from(s)).read(&mut buffer));
        match read {
            Ok(n) => {
                buffer.truncate(n);
                Ok(buffer)
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(Vec::new()),
            Err(e) => Err(e),
        }
    }

    /// Writes what a socket that is new takes now: the runtime knows nothing yet of one.
    pub fn write_first(&self, bytes: &[u8]) -> io::Result<usize> {
        either!(self, s => (&*SockRef::from(s)).write(bytes))
    }

    /// Waits until the socket takes more.
    pub async fn writable(&self) -> io::Result<()> {
        either!(self, s => s.writable().await)
    }

    /// Writes as much as the socket takes now.
    pub fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        either!(self, s => s.try_write_vectored(slices))
    }

    /// Waits until the other end has reset the connection. An orderly end in one direction is none.
    pub async fn reset_by_peer(&self) -> io::Result<()> {
        loop {
            let ready: Ready = either!(self, s => s.ready(Interest::ERROR).await)?;
            if ready.is_error() {
                return Ok(());
            }
        }
    }

    /// Ends the sending direction: FIN.
    pub fn finish(&self) -> io::Result<()> {
        either!(self, s => SockRef::from(s).shutdown(Shutdown::Write))
    }

    /// Ends both directions at once: RST on TCP. A Unix socket has no such thing; its peer sees the end.
    pub fn reset(self) {
        if let Self::Tcp(stream) = self {
            // Without it the peer sees an orderly end, which is what then remains.
            let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
        }
    }
}
