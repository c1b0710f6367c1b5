//! Ingress: local listeners whose connections become flows.

pub mod holder;
mod set;

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use ffmesh_core::id::NodeId;
use ffmesh_core::target::Target;
use socket2::{Domain, SockRef, Socket, Type};
use tokio::net::{TcpListener, UnixListener};

use crate::config::{Listen, Protocol, Proxy, ProxyTarget};
use crate::flow::{OpenContext, Opened, new_id, open};
use crate::local::Stream;
use crate::metrics::{Counters, ErrorKind};

pub use set::Ingresses;

/// Connections that may wait to be accepted; the kernel may give less (`net.core.somaxconn`).
const BACKLOG: i32 = 4096;
/// How long accepting pauses where the process has no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why a proxy does not listen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("proxy {name:?} cannot listen on {listen}: {reason}")]
pub struct BindError {
    /// The proxy
    pub name: String,
    /// Where it was to listen
    pub listen: String,
    /// Why it cannot, and what to do
    pub reason: String,
}

#[derive(Debug)]
enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

/// What a proxy is called and leads to; it may change while the proxy listens.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Lead {
    name: Arc<str>,
    node: NodeId,
    target: Target,
    idle_timeout: Option<Duration>,
}

impl Lead {
    /// `None` for a proxy of a kind that this version does not serve yet.
    fn of(proxy: &Proxy) -> Option<Self> {
        let (Protocol::Tcp, Some(ProxyTarget::Address { node, target })) = (proxy.protocol, &proxy.target)
        else {
            return None;
        };
        let (name, node, target) = (proxy.name.as_str().into(), node.clone(), target.clone());
        Some(Self { name, node, target, idle_timeout: proxy.idle_timeout })
    }
}

/// A proxy that is bound, and not accepting yet.
#[derive(Debug)]
pub struct Ingress {
    proxy: Proxy,
    lead: Arc<ArcSwap<Lead>>,
    listener: Arc<Listener>,
}

impl Ingress {
    /// Binds a proxy's listener. `None` for a proxy of a kind that this version does not serve yet.
    pub fn bind(proxy: &Proxy) -> Result<Option<Self>, BindError> {
        Self::bind_beside(proxy, &[])
    }

    /// The same where own listeners that are about to close are in its way.
    fn bind_beside(proxy: &Proxy, leaving: &[Arc<Listener>]) -> Result<Option<Self>, BindError> {
        let Some(lead) = Lead::of(proxy) else { return Ok(None) };
        let failed =
            |reason: String| BindError { name: proxy.name.clone(), listen: proxy.listen.to_string(), reason };
        let listener = match &proxy.listen {
            Listen::Port(ip, port) => {
                let address = SocketAddr::new(*ip, *port);
                Listener::Tcp(bind_tcp(address, leaving).map_err(|e| failed(explain_tcp(address, &e)))?)
            }
            Listen::Unix(path) => {
                Listener::Unix(bind_unix(path).map_err(|e| failed(explain_unix(&e)))?, path.clone())
            }
        };
        let (lead, listener) = (Arc::new(ArcSwap::from_pointee(lead)), Arc::new(listener));
        Ok(Some(Self { proxy: proxy.clone(), lead, listener }))
    }

    /// The TCP address it is bound to.
    pub fn address(&self) -> Option<SocketAddr> {
        match &*self.listener {
            Listener::Tcp(listener) => listener.local_addr().ok(),
            Listener::Unix(..) => None,
        }
    }

    /// Accepts connections for ever; each becomes a flow in a task of its own, which leads where the proxy leads at this
    /// moment.
    async fn run(self, context: OpenContext, counters: Arc<Counters>) {
        let context = Arc::new(context);
        let mut failing = false;
        loop {
            match self.accept().await {
                Ok((local, client)) => {
                    let lead = self.lead.load_full();
                    if std::mem::take(&mut failing) {
                        tracing::info!(proxy = ?lead.name, "accepting again");
                    }
                    let opened = Opened {
                        id: new_id(),
                        proxy: lead.name.clone(),
                        node: lead.node.clone(),
                        target: lead.target.clone(),
                        client,
                        idle_timeout: lead.idle_timeout,
                        connected: None,
                    };
                    let context = context.clone();
                    tokio::spawn(async move { open(&context, local, opened).await });
                }
                // The client left before it was accepted.
                Err(e) if e.kind() == io::ErrorKind::ConnectionAborted => {}
                // No descriptors or no memory: what waits is accepted once others have closed.
                Err(e) => {
                    counters.error(ErrorKind::Accept);
                    if !std::mem::replace(&mut failing, true) {
                        tracing::error!(
                            proxy = ?self.lead.load().name,
                            "cannot accept: {e}; trying on. Raise the limit of open files (ulimit -n, LimitNOFILE=)"
                        );
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn accept(&self) -> io::Result<(Stream, Option<String>)> {
        match &*self.listener {
            Listener::Tcp(listener) => {
                let (stream, client) = listener.accept().await?;
                // A client that has left already fails here and in the flow.
                let _ = stream.set_nodelay(true);
                Ok((Stream::Tcp(stream), Some(ffmesh_udp::canonical(client).to_string())))
            }
            Listener::Unix(listener, _) => Ok((Stream::Unix(listener.accept().await?.0), None)),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Self::Unix(_, path) = self {
            let _ = fs::remove_file(path); // what is left is found stale at the next start
        }
    }
}

/// Binds an address, beside own listeners that are about to leave it. `0.0.0.0:80` cannot be bound while `127.0.0.1:80`
/// is, unless both share the port; so they do for this moment, and clients are served by the old one until the new one is there.
fn bind_tcp(address: SocketAddr, leaving: &[Arc<Listener>]) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if address.is_ipv6() {
        // `::` means all addresses of both families; a given IPv6 address is that address.
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    // A port whose last connections still linger is free.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    let leaving = leaving.iter().filter_map(|listener| match &**listener {
        Listener::Tcp(listener) => Some(SockRef::from(listener)),
        Listener::Unix(..) => None,
    });
    let leaving: Vec<_> = leaving.collect();
    let share = |share: bool| {
        leaving.iter().try_for_each(|old| old.set_reuse_port(share))?;
        socket.set_reuse_port(share && !leaving.is_empty())
    };
    share(true)?;
    let bound = socket.bind(&address.into()).and_then(|()| socket.listen(BACKLOG));
    share(false)?;
    bound?;
    TcpListener::from_std(socket.into())
}

fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    match UnixListener::bind(path) {
        Err(e) if e.kind() == io::ErrorKind::AddrInUse => {
            let stale = fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket())
                && std::os::unix::net::UnixStream::connect(path)
                    .is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused);
            if !stale {
                return Err(e);
            }
            fs::remove_file(path)?;
            UnixListener::bind(path)
        }
        bound => bound,
    }
}

fn explain_tcp(address: SocketAddr, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => match holder::of_tcp_port(address.port()) {
            Some(holder) => format!("{holder} listens there; choose another local_port, or stop it"),
            None => "another program listens there; choose another local_port, or stop it".to_owned(),
        },
        io::ErrorKind::PermissionDenied => {
            format!("{error}; ports below 1024 need root or the capability CAP_NET_BIND_SERVICE")
        }
        io::ErrorKind::AddrNotAvailable => format!("{} is no address of this machine", address.ip()),
        _ => error.to_string(),
    }
}

fn explain_unix(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "something is there already, and it is no stale socket; remove it".to_owned()
        }
        io::ErrorKind::NotFound => "its directory does not exist; create it".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::net::TcpStream;

    use super::*;

    fn address(ip: [u8; 4], port: u16) -> SocketAddr {
        (Ipv4Addr::from(ip), port).into()
    }

    /// A client that waits in a listener's queue is there until another listener has taken the port.
    #[tokio::test]
    async fn a_wider_address_is_bound_beside_the_one_that_leaves_it() {
        let old = bind_tcp(address([127, 0, 0, 1], 0), &[]).unwrap();
        let port = old.local_addr().unwrap().port();
        let other = bind_tcp(address([127, 0, 0, 2], port), &[]).unwrap();
        let old = Arc::new(Listener::Tcp(old));
        let leaving = std::slice::from_ref(&old);
        let wide = address([0, 0, 0, 0], port);
        let _client = TcpStream::connect(address([127, 0, 0, 1], port)).await.unwrap();
        assert_eq!(bind_tcp(wide, leaving).unwrap_err().kind(), io::ErrorKind::AddrInUse, "another has it");
        drop(other);
        let new = bind_tcp(wide, leaving).unwrap();
        let Listener::Tcp(listener) = &*old else { unreachable!() };
        listener.accept().await.unwrap();
        drop(old);
        let _client = TcpStream::connect(address([127, 0, 0, 1], port)).await.unwrap();
        new.accept().await.unwrap();
        assert!(bind_tcp(wide, &[]).is_err(), "who comes later does not share it");
    }
}
