//! Services that nodes dial.

use std::io;
use std::net::Shutdown;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::{Socket, Type};

use crate::bytes::RandomBytes;
use crate::conn::{Address, Conn, End};
use crate::net::Net;

/// How long a service waits for its client: longer than any stall that a test makes.
const PATIENCE: Duration = Duration::from_mins(3);
/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;
/// Stack of each connection's thread.
const STACK: usize = 128 << 10;
/// Bytes that [`Service::source`] is asked with.
const REQUEST_LEN: usize = 16;

/// A service in a namespace, with a thread for each connection. It stops accepting when this is dropped.
#[derive(Debug)]
pub struct Service {
    listener: Arc<Socket>,
    accepting: Option<JoinHandle<()>>,
    path: Option<PathBuf>,
}

impl Service {
    /// Serves each connection to `address` with `serve`.
    ///
    /// # Panics
    /// When the address can't be bound.
    pub fn new(net: &Net, address: &str, serve: impl Fn(&Conn) + Send + Sync + 'static) -> Self {
        let parsed: Address = address.parse().expect("an address");
        let listener = net.inside(|| listen(&parsed)).unwrap_or_else(|e| panic!("listen on {address}: {e}"));
        let listener = Arc::new(listener);
        let accepting = std::thread::spawn({
            let (listener, serve) = (listener.clone(), Arc::new(serve));
            // Shutting the listener down ends this.
            move || {
                while let Ok((socket, _)) = listener.accept() {
                    let serve = serve.clone();
                    let thread = std::thread::Builder::new().stack_size(STACK);
                    let served = thread.spawn(move || {
                        if let Ok(conn) = Conn::of(socket, PATIENCE) {
                            serve(&conn);
                        }
                    });
                    served.expect("start a thread");
                }
            }
        });
        let path = match parsed {
            Address::Unix(path) => Some(path),
            Address::Port(_) => None,
        };
        Self { listener, accepting: Some(accepting), path }
    }

    /// Sends back what it receives, and closes when the client has.
    pub fn echo(net: &Net, address: &str) -> Self {
        Self::new(net, address, |conn| {
            while let Ok(bytes) = conn.receive_some(64 << 10) {
                if bytes.is_empty() {
                    let _ = conn.finish();
                    return;
                }
                if conn.send(&bytes).is_err() {
                    return;
                }
            }
        })
    }

    /// Receives until the client half-closes, and only then answers: the SHA-256 of what came.
    pub fn digest(net: &Net, address: &str) -> Self {
        Self::new(net, address, |conn| {
            if let Ok((digest, _)) = conn.receive_digest() {
                let _ = conn.send(&digest);
            }
        })
    }

    /// Sends random bytes as the request asks: see [`Service::request`].
    pub fn source(net: &Net, address: &str) -> Self {
        Self::new(net, address, |conn| {
            let Ok(request) = conn.receive(REQUEST_LEN) else { return };
            let number =
                |range: std::ops::Range<usize>| request[range].try_into().map_or(0, u64::from_be_bytes);
            let _ = conn.send_random(number(0..8), number(8..16));
        })
    }

    /// Asks [`Service::source`] for the first `count` bytes of a seed.
    pub fn request(seed: u64, count: u64) -> [u8; REQUEST_LEN] {
        let mut request = [0; REQUEST_LEN];
        request[..8].copy_from_slice(&seed.to_be_bytes());
        request[8..].copy_from_slice(&count.to_be_bytes());
        request
    }

    /// Sends one byte and resets the connection when the client answers.
    pub fn resetter(net: &Net, address: &str) -> Self {
        Self::new(net, address, |conn| {
            let _ = conn.send(b"x");
            let _ = conn.receive(1);
            if let Ok(conn) = conn.other_handle() {
                conn.reset();
            }
        })
    }

    /// Sends one byte and reports how each connection ended.
    pub fn witness(net: &Net, address: &str) -> (Self, Receiver<End>) {
        let (ends, seen) = channel();
        let service = Self::new(net, address, move |conn| {
            let _ = conn.send(b"x");
            let _ = ends.send(conn.end());
        });
        (service, seen)
    }

    /// Sends random bytes of this seed to whoever connects, as a digest of them is known to the client.
    pub fn page(net: &Net, address: &str, seed: u64, count: usize) -> Self {
        let page = RandomBytes::take(seed, count);
        Self::new(net, address, move |conn| {
            let _ = conn.send(&page);
        })
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.listener.shutdown(Shutdown::Both);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
        if let Some(path) = &self.path {
            let _ = std::fs::remove_file(path);
        }
    }
}

fn listen(address: &Address) -> io::Result<Socket> {
    let socket = Socket::new(address.domain(), Type::STREAM, None)?;
    if let Address::Port(port) = address {
        socket.set_reuse_address(true)?;
        if port.is_ipv6() {
            socket.set_only_v6(true)?;
        }
    }
    socket.bind(&address.sockaddr()?)?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}
