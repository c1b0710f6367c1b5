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
    ///
    /// A short read does not mean that nothing more is there: urgent data ends one (tcp(7)).
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

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::TcpListener;
    use tokio::time::timeout;

    use super::*;

    const ROOM: usize = 64;

    async fn pair() -> (TcpStream, Stream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (near, far) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        (near.unwrap(), Stream::Tcp(far.unwrap().0))
    }

    /// Reads until the end, and says how much there was.
    async fn read_all(stream: &Stream) -> usize {
        let mut total = 0;
        loop {
            timeout(Duration::from_secs(5), stream.readable()).await.expect("never readable").unwrap();
            match stream.try_read(&mut BytesMut::with_capacity(ROOM)) {
                Ok(0) => return total,
                Ok(read) => total += read,
                Err(e) => assert_eq!(e.kind(), io::ErrorKind::WouldBlock),
            }
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn nothing_is_missed_behind_a_short_read() {
        for pieces in [&[1, 1, 1][..], &[ROOM], &[ROOM, 1], &[ROOM - 1, ROOM + 1, 1], &[10 * ROOM], &[]] {
            let (mut near, far) = pair().await;
            let reading = tokio::spawn(async move { read_all(&far).await });
            for piece in pieces {
                near.write_all(&vec![7; *piece]).await.unwrap();
                tokio::task::yield_now().await;
            }
            drop(near);
            assert_eq!(reading.await.unwrap(), pieces.iter().sum::<usize>(), "{pieces:?}");
        }
    }

    #[tokio::test]
    async fn data_and_end_that_came_together_are_both_read() {
        let (mut near, far) = pair().await;
        near.write_all(b"the last words").await.unwrap();
        near.shutdown().await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(read_all(&far).await, 14);
    }

    #[tokio::test]
    async fn what_stands_behind_urgent_data_is_read() {
        let (near, far) = pair().await;
        let near = near.into_std().unwrap();
        let socket = SockRef::from(&near);
        socket.send(b"before").unwrap();
        socket.send_out_of_band(b"!").unwrap();
        socket.send(b"behind").unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        let mut total = 0;
        while total < b"beforebehind".len() {
            timeout(Duration::from_secs(5), far.readable()).await.expect("never readable").unwrap();
            total += far.try_read(&mut BytesMut::with_capacity(ROOM)).unwrap_or(0);
        }
        assert_eq!(total, b"beforebehind".len());
    }
}
