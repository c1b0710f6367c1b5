//! What dialling needs of the system: a resolver and TCP connections.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use crate::lookup::lookup;

/// Lookups at once; see [`lookup`].
const MAX_LOOKUPS: usize = 64;

/// What a [`Network`] returns.
pub type Pending<T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send>>;

/// A resolver and a connector.
pub trait Network: Send + Sync {
    /// The addresses of a name with `port`, the most preferred first.
    fn resolve(&self, name: &str, port: u16) -> Pending<Vec<SocketAddr>>;
    /// A connection to an address. Dropping the future ends the attempt.
    fn connect(&self, address: SocketAddr) -> Pending<TcpStream>;
}

/// The system's resolver and TCP.
pub struct System {
    lookups: Arc<Semaphore>,
}

impl Default for System {
    fn default() -> Self {
        Self { lookups: Arc::new(Semaphore::new(MAX_LOOKUPS)) }
    }
}

impl Network for System {
    fn resolve(&self, name: &str, port: u16) -> Pending<Vec<SocketAddr>> {
        let (name, lookups) = (name.to_owned(), Arc::clone(&self.lookups));
        Box::pin(async move {
            let permit = lookups.acquire_owned().await.map_err(io::Error::other)?;
            lookup(permit, name, port).await
        })
    }

    fn connect(&self, address: SocketAddr) -> Pending<TcpStream> {
        Box::pin(async move {
            let stream = connect(address).await?;
            // Without a listener, a loopback connection can meet itself on an ephemeral port (simultaneous
            // open, RFC 9293, section 3.5), and would echo.
            if stream.local_addr()? == stream.peer_addr()? {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            stream.set_nodelay(true)?;
            Ok(stream)
        })
    }
}

/// Connects without waiting for the runtime to hear of it where the connection stands at once, as on the loopback
/// interface.
async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    let begun = [libc::EINPROGRESS, libc::EALREADY];
    let is_begun = |error: &io::Error| error.raw_os_error().is_some_and(|code| begun.contains(&code));
    // The first call begins, the second one says what has come of it by now.
    let connected = match socket.connect(&address.into()) {
        Err(error) if is_begun(&error) => socket.connect(&address.into()),
        begun => begun,
    };
    match connected {
        Ok(()) => TcpStream::from_std(socket.into()),
        Err(error) if is_begun(&error) => {
            let stream = TcpStream::from_std(socket.into())?;
            stream.writable().await?;
            stream.take_error()?.map_or(Ok(stream), Err)
        }
        Err(error) => Err(error),
    }
}
