//! What may stand in a file only once: names, and sockets to listen on.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::problem::{Place, Report};
use super::section::Placed;
use super::yaml::shown;
use super::{Listen, Protocol, Proxy};

/// Something to listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Socket {
    Tcp(SocketAddr),
    Udp(SocketAddr),
    Unix(PathBuf),
}

/// What the file has taken so far.
#[derive(Default)]
pub(super) struct Taken {
    names: HashMap<(&'static str, String), Holder>,
    /// By port, 0 for Unix sockets, so that a long file is not compared all with all.
    sockets: HashMap<u16, Vec<(Socket, Holder)>>,
}

impl Proxy {
    /// What it binds.
    pub(super) fn socket(&self) -> Socket {
        socket(&self.listen, self.protocol)
    }

    /// Whether the system would refuse to bind what this and another proxy listen on.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.socket().overlaps(&other.socket())
    }

    /// The same with the TCP address of something else.
    pub fn overlaps_tcp(&self, address: SocketAddr) -> bool {
        self.socket().overlaps(&Socket::Tcp(address))
    }
}

/// What a proxy that listens there binds.
pub(super) fn socket(listen: &Listen, protocol: Protocol) -> Socket {
    match listen {
        Listen::Port(ip, port) if protocol == Protocol::Udp => Socket::Udp((*ip, *port).into()),
        Listen::Port(ip, port) => Socket::Tcp((*ip, *port).into()),
        Listen::Unix(path) => Socket::Unix(path.clone()),
    }
}

/// Who took it.
struct Holder {
    key: String,
    place: Place,
}

impl Holder {
    fn of<T>(placed: &Placed<T>) -> Self {
        Self { key: placed.key.clone(), place: placed.place }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` on line {}", self.key, self.place.line)
    }
}

impl Taken {
    /// Takes a name among its kind.
    pub(super) fn name(&mut self, kind: &'static str, name: &Placed<String>, report: &mut Report<'_>) {
        match self.names.entry((kind, name.value.clone())) {
            std::collections::hash_map::Entry::Occupied(first) => {
                let message =
                    format!("a second {kind} \"{}\": the first is {}", shown(&name.value), first.get());
                report.problem(name.place, &name.key, message);
            }
            std::collections::hash_map::Entry::Vacant(free) => {
                free.insert(Holder::of(name));
            }
        }
    }

    /// Takes a socket, said at `placed`.
    pub(super) fn socket<T>(&mut self, socket: Socket, placed: &Placed<T>, report: &mut Report<'_>) {
        let port = match &socket {
            Socket::Tcp(at) | Socket::Udp(at) => at.port(),
            Socket::Unix(_) => 0,
        };
        let holders = self.sockets.entry(port).or_default();
        if let Some((first, holder)) = holders.iter().find(|(other, _)| other.overlaps(&socket)) {
            let message = if *first == socket {
                format!("listens on {socket}, which is taken by {holder}")
            } else {
                format!("listens on {socket}, which overlaps with {first} of {holder}")
            };
            report.problem(placed.place, &placed.key, message);
            return;
        }
        holders.push((socket, Holder::of(placed)));
    }
}

impl Socket {
    /// Whether the system would refuse to bind both. `::` takes IPv4 as well.
    fn overlaps(&self, other: &Self) -> bool {
        let covers = |wide: SocketAddr, narrow: SocketAddr| {
            wide.ip() == narrow.ip() || (wide.ip().is_unspecified() && (wide.is_ipv6() || narrow.is_ipv4()))
        };
        match (self, other) {
            (Self::Tcp(a), Self::Tcp(b)) | (Self::Udp(a), Self::Udp(b)) => {
                a.port() == b.port() && (covers(*a, *b) || covers(*b, *a))
            }
            (Self::Unix(a), Self::Unix(b)) => a == b,
            _ => false,
        }
    }
}

impl fmt::Display for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(at) => write!(f, "{at}"),
            Self::Udp(at) => write!(f, "{at} (UDP)"),
            Self::Unix(path) => write!(f, "unix:{}", shown(&path.to_string_lossy())),
        }
    }
}
