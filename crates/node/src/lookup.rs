//! Looking a name up with the system's resolver.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};

use tokio::sync::OwnedSemaphorePermit;

/// The addresses of a name with `port`, the most preferred first (`getaddrinfo`, so `/etc/hosts` and its order by RFC
/// 6724).
///
/// A lookup cannot be stopped: it holds a thread until the resolver gives up, which can be 30 s. So the thread holds
/// `permit` as well, also when nobody waits for it any more: without a bound, names that hang would use up the threads
/// that everything else needs.
pub async fn lookup(permit: OwnedSemaphorePermit, name: String, port: u16) -> io::Result<Vec<SocketAddr>> {
    let found = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        (name.as_str(), port).to_socket_addrs().map(Vec::from_iter)
    });
    found.await.map_err(io::Error::other)?
}
