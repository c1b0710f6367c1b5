//! A local stream socket: a client's at the ingress, a target's at the egress.

/// A connected TCP or Unix stream.
#[derive(Debug)]
pub enum Stream {
    /// TCP, with TCP_NODELAY set
    Tcp(tokio::net::TcpStream),
    /// A Unix stream socket
    Unix(tokio::net::UnixStream),
}
