//! Ports and sockets that the node listens on: free, its own, or taken by whom.

use std::io;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::Path;

use ffmesh_node::config::{Config, Listen};
use ffmesh_node::ingress::holder;
use ffmesh_node::state::StateDir;

use super::finding::Finding;

/// What was found out about one listener.
struct Fact {
    name: String,
    at: String,
    /// Whether it could be bound
    bound: io::Result<()>,
    /// `nginx (process 123)`, as far as the system shows
    holder: Option<String>,
}

/// All of them. `running` says whether the node of this directory runs.
pub(super) fn ports(config: &Config, state: &StateDir, running: bool) -> Vec<Finding> {
    let own = running.then(|| node_process(state));
    let mut findings = Vec::new();
    if let Some(port) = config.quic.listen_port {
        let bound = ffmesh_udp::Socket::bind(config.quic.listen_address, port).map(drop);
        let at = config
            .quic
            .listen_address
            .map_or_else(|| format!("UDP port {port}"), |ip| format!("UDP {}", SocketAddr::new(ip, port)));
        let holder = holder::of_udp_port(port);
        findings.push(judge(&Fact { name: "quic.listen_port".to_owned(), at, bound, holder }, own.as_ref()));
    }
    for proxy in config.proxies.iter().filter(|proxy| proxy.is_served()) {
        let name = format!("proxy {}", proxy.name);
        findings.push(match &proxy.listen {
            Listen::Port(ip, port) => tcp(name, SocketAddr::new(*ip, *port), own.as_ref()),
            Listen::Unix(path) => unix(name, path, running),
        });
    }
    if let Some(address) = config.admin.listen {
        findings.push(tcp("admin.listen".to_owned(), address, own.as_ref()));
    }
    findings
}

/// The process of the node that holds the directory, as its lock file says; empty where that is not known.
fn node_process(state: &StateDir) -> String {
    std::fs::read_to_string(state.path().join("lock")).unwrap_or_default().trim().to_owned()
}

fn tcp(name: String, address: SocketAddr, own: Option<&String>) -> Finding {
    let bound = std::net::TcpListener::bind(address).map(drop);
    let holder = holder::of_tcp_port(address.port());
    judge(&Fact { name, at: address.to_string(), bound, holder }, own)
}

/// `own` is the process of this node where it runs.
fn judge(fact: &Fact, own: Option<&String>) -> Finding {
    let Fact { name, at, bound, holder } = fact;
    let error = match bound {
        Ok(()) if own.is_some() => {
            let advice = "see the node's log: it runs and does not listen there; `ffmesh proxies` says why";
            return Finding::warning(name, format!("{at} is free"), advice);
        }
        Ok(()) => return Finding::ok(name, format!("{at} is free")),
        Err(error) => error,
    };
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            let is_own = |own: &String| match holder {
                Some(holder) => holder.ends_with(&format!("(process {own})")),
                None => true, // the system does not show whose it is, and the node runs
            };
            if own.is_some_and(is_own) {
                return Finding::ok(name, format!("this node listens on {at}"));
            }
            let holder = holder.as_deref().unwrap_or("another program");
            let advice = "stop that program, or choose another port";
            Finding::failed(name, format!("{at} is taken: {holder} holds it"), advice)
        }
        io::ErrorKind::AddrNotAvailable => {
            let advice = "choose another address, or leave it out; `ip address` shows this machine's";
            Finding::failed(name, format!("{at} is at no address of this machine"), advice)
        }
        io::ErrorKind::PermissionDenied => {
            let advice =
                "choose a port from 1024 on, or give the program the capability CAP_NET_BIND_SERVICE";
            Finding::failed(name, format!("{at}: {error}"), advice)
        }
        _ => Finding::failed(name, format!("{at}: {error}"), "choose another address or port"),
    }
}

fn unix(name: String, path: &Path, running: bool) -> Finding {
    let at = path.display();
    let answers = UnixStream::connect(path).is_ok();
    match (answers, running) {
        (true, true) => Finding::ok(name, format!("this node listens on {at}")),
        (true, false) => Finding::failed(
            name,
            format!("another program listens on {at}"),
            "stop it, or choose another path",
        ),
        (false, true) => {
            let advice = "see the node's log; `ffmesh proxies` says why";
            Finding::failed(name, format!("the node runs, and {at} does not answer"), advice)
        }
        (false, false) if path.parent().is_some_and(Path::is_dir) => {
            Finding::ok(name, format!("{at} is free"))
        }
        (false, false) => Finding::failed(
            name,
            format!("the directory of {at} does not exist"),
            "make it, or choose another path",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    fn fact(bound: io::Result<()>, holder: Option<&str>) -> Fact {
        Fact { name: "p".into(), at: "127.0.0.1:80".into(), bound, holder: holder.map(str::to_owned) }
    }

    fn taken(holder: Option<&str>) -> Fact {
        fact(Err(io::ErrorKind::AddrInUse.into()), holder)
    }

    #[test]
    fn a_port_is_free_or_the_nodes_own_or_taken() {
        let own = "12".to_owned();
        assert_eq!(judge(&fact(Ok(()), None), None).result, Verdict::Ok);
        assert_eq!(judge(&fact(Ok(()), None), Some(&own)).result, Verdict::Warning);
        assert_eq!(judge(&taken(Some("ffmesh (process 12)")), Some(&own)).result, Verdict::Ok);
        assert_eq!(judge(&taken(None), Some(&own)).result, Verdict::Ok);
        let other = judge(&taken(Some("nginx (process 112)")), Some(&own));
        assert!(other.result == Verdict::Failed && other.found.contains("nginx"), "{other:?}");
        assert_eq!(judge(&taken(None), None).result, Verdict::Failed);
        for kind in [io::ErrorKind::AddrNotAvailable, io::ErrorKind::PermissionDenied, io::ErrorKind::Other] {
            assert_eq!(judge(&fact(Err(kind.into()), None), None).result, Verdict::Failed);
        }
    }
}
