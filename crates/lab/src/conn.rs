//! What a client does: connect, send, receive, close in every way there is.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, Type};

use crate::bytes::{Digest, Hasher, RandomBytes};

/// How long a read or write may take before it fails, unless a test says otherwise.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes moved by one call in bulk transfers.
const PIECE: usize = 256 << 10;

/// Where a service or proxy is: `127.0.0.1:80`, `[::1]:80` or `unix:/path`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A TCP port
    Port(SocketAddr),
    /// A Unix stream socket
    Unix(PathBuf),
}

/// How a connection ended, seen from one end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// In order: no more bytes come.
    Closed,
    /// By a reset.
    Reset,
    /// It has not ended within the reader's patience.
    Open,
    /// Otherwise.
    Failed(ErrorKind),
}

/// A connected TCP or Unix stream socket with a limit on each wait.
#[derive(Debug)]
pub struct Conn(Socket);

impl Conn {
    /// Connects from the calling thread's namespace.
    pub fn open(address: &str) -> io::Result<Self> {
        let address: Address = address.parse().map_err(io::Error::other)?;
        let socket = Socket::new(address.domain(), Type::STREAM, None)?;
        match &address {
            Address::Port(_) => socket.connect_timeout(&address.sockaddr()?, PATIENCE)?,
            Address::Unix(_) => socket.connect(&address.sockaddr()?)?,
        }
        Self::of(socket, PATIENCE)
    }

    pub(crate) fn of(socket: Socket, patience: Duration) -> io::Result<Self> {
        let conn = Self(socket);
        conn.set_patience(patience)?;
        Ok(conn)
    }

    /// How long each read or write may take.
    pub fn set_patience(&self, patience: Duration) -> io::Result<()> {
        self.0.set_read_timeout(Some(patience))?;
        self.0.set_write_timeout(Some(patience))
    }

    /// A second handle to the same connection, for the other direction.
    pub fn other_handle(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// Sends all of it.
    pub fn send(&self, bytes: &[u8]) -> io::Result<()> {
        (&self.0).write_all(bytes)
    }

    /// Receives exactly as many bytes.
    pub fn receive(&self, count: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; count];
        (&self.0).read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// Receives what there is, at most `count` bytes; nothing at the end.
    pub fn receive_some(&self, count: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; count];
        let received = (&self.0).read(&mut bytes)?;
        bytes.truncate(received);
        Ok(bytes)
    }

    /// Sends and receives the same bytes back, as an echo service answers them.
    ///
    /// # Panics
    /// When other bytes come back.
    pub fn echo(&self, bytes: &[u8]) -> io::Result<()> {
        std::thread::scope(|scope| {
            let sender = scope.spawn(|| self.send(bytes));
            let back = self.receive(bytes.len())?;
            assert!(back == bytes, "other bytes came back");
            sender.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Closes the sending direction; the other goes on.
    pub fn finish(&self) -> io::Result<()> {
        self.0.shutdown(Shutdown::Write)
    }

    /// Ends the connection with a reset (TCP).
    pub fn reset(self) {
        let _ = self.0.set_linger(Some(Duration::ZERO));
    }

    /// Throws away what still comes and tells how it ended.
    pub fn end(&self) -> End {
        let mut buffer = vec![0; 64 << 10];
        loop {
            match (&self.0).read(&mut buffer) {
                Ok(0) => return End::Closed,
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return End::from(e.kind()),
            }
        }
    }

    /// Like [`Conn::end`], with the time that it took.
    pub fn timed_end(&self) -> (End, Duration) {
        let start = Instant::now();
        (self.end(), start.elapsed())
    }

    /// Sends the first `count` bytes of a seed.
    pub fn send_random(&self, seed: u64, count: u64) -> io::Result<()> {
        let mut bytes = RandomBytes::new(seed);
        let mut buffer = vec![0; PIECE];
        let mut left = count;
        while left > 0 {
            let piece = &mut buffer[..usize::try_from(left).unwrap_or(PIECE).min(PIECE)];
            bytes.fill(piece);
            self.send(piece)?;
            left -= piece.len() as u64;
        }
        Ok(())
    }

    /// Receives exactly the first `count` bytes of a seed and returns the SHA-256 of what came.
    ///
    /// # Panics
    /// At the first byte that differs.
    pub fn receive_random(&self, seed: u64, count: u64) -> io::Result<Digest> {
        let mut bytes = RandomBytes::new(seed);
        let mut hasher = Hasher::new();
        let mut buffer = vec![0; PIECE];
        let mut left = count;
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
            let received = (&self.0).read(&mut buffer[..most])?;
            if received == 0 {
                return Err(io::Error::new(ErrorKind::UnexpectedEof, format!("{left} bytes are missing")));
            }
            bytes.expect(&buffer[..received]);
            hasher.update(&buffer[..received]);
            left -= received as u64;
        }
        Ok(hasher.finish())
    }

    /// Receives to the end and returns the SHA-256 and the number of bytes.
    pub fn receive_digest(&self) -> io::Result<(Digest, u64)> {
        let mut hasher = Hasher::new();
        let mut buffer = vec![0; PIECE];
        let mut count = 0;
        loop {
            let received = (&self.0).read(&mut buffer)?;
            if received == 0 {
                return Ok((hasher.finish(), count));
            }
            hasher.update(&buffer[..received]);
            count += received as u64;
        }
    }
}

impl Address {
    pub(crate) fn domain(&self) -> Domain {
        match self {
            Self::Port(address) => Domain::for_address(*address),
            Self::Unix(_) => Domain::UNIX,
        }
    }

    pub(crate) fn sockaddr(&self) -> io::Result<SockAddr> {
        match self {
            Self::Port(address) => Ok((*address).into()),
            Self::Unix(path) => SockAddr::unix(path),
        }
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("unix:") {
            Some(path) => Ok(Self::Unix(path.into())),
            None => text.parse().map(Self::Port).map_err(|e| format!("{text}: {e}")),
        }
    }
}

impl From<ErrorKind> for End {
    fn from(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::ConnectionReset => Self::Reset,
            ErrorKind::WouldBlock | ErrorKind::TimedOut => Self::Open,
            other => Self::Failed(other),
        }
    }
}
