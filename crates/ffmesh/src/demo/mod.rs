//! `ffmesh demo`: two nodes in one process on loopback, with a web service to reach through them.
//!
//! ```text
//! browser -> 127.0.0.1:8080 -> node "client" == QUIC ==> node "server" -> web service
//! ```

mod web;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::time::Duration;

use ffmesh_core::id::NodeId;
use ffmesh_core::target::{Host, Target};
use ffmesh_node::config::{
    self, Address, Config, Listen, LogFormat, Protocol, Proxy, ProxyTarget, Quic, Upstream,
};
use ffmesh_node::identity::{self, InitOptions, JoinOptions, TokenOptions};
use ffmesh_node::node::Node;
use ffmesh_node::state::StateDir;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::args::Demo;
use crate::commands::up::Signals;
use crate::failure::{Failure, Outcome};
use crate::format::shell_word;
use crate::run::{raise_file_limit, run_node};
use crate::{log, output};

/// Port of the proxy, unless it is taken.
const PORT: u16 = 8080;
/// How long the first connection through the mesh may take.
const READY_TIMEOUT: Duration = Duration::from_secs(15);
const READY_POLL: Duration = Duration::from_millis(50);
const CREDENTIALS_TTL: Duration = Duration::from_hours(24);
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Runs until SIGTERM, SIGINT or the end of its terminal. Its files are in a temporary directory that goes with it.
pub(crate) async fn demo(args: &Demo) -> Outcome {
    // The demo's output is for a newcomer, who is to see warnings but not each step.
    log::start(args.log_level.as_deref(), tracing::Level::WARN, LogFormat::Text)?;
    raise_file_limit();
    let mut signals = Signals::listen()?;
    let (port, taken) = free_port(args.port)?;
    let dir = tempfile::Builder::new().prefix("ffmesh-demo-").tempdir()?;

    let ended = tokio::select! {
        mesh = Mesh::start(dir.path(), port) => {
            let mesh = mesh?;
            mesh.tell(args.json, port, taken)?;
            signals.next().await;
            tokio::select! {
                () = mesh.stop() => Ok(()),
                name = signals.next() => Err(Failure::failed(format!("a second signal ({name}) ended the demo at once"))),
            }
        }
        name = signals.next() => Err(Failure::failed(format!("{name} came before the demo had started"))),
    };
    dir.close()?;
    ended
}

struct Mesh {
    client: Node,
    server: Node,
    nodes: [(NodeId, StateDir); 2],
}

impl Mesh {
    async fn start(dir: &Path, port: u16) -> Outcome<Self> {
        let server_id = id("server")?;
        let client_id = id("client")?;
        let web = web::start(server_id.clone()).await?;
        let quic_port = UdpSocket::bind((LOOPBACK, 0))?.local_addr()?.port();
        let address = Address { host: Host::Ip(LOOPBACK), port: quic_port };

        let server_state = StateDir::resolve(Some(&dir.join("server")), None, None, None);
        identity::init(&InitOptions {
            state: server_state.clone(),
            node_id: Some(server_id.clone()),
            mesh: Some("demo".parse().map_err(Failure::failed)?),
            advertise: vec![address.clone()],
            listen_port: quic_port,
            cert_ttl: CREDENTIALS_TTL,
        })?;
        let quic = Quic { listen_port: Some(quic_port), advertise: vec![address.clone()], ..loopback() };
        let config =
            Config { node_id: Some(server_id.clone()), quic, mesh: impatient(), ..Config::default() };
        let server = run_node(config, server_state.clone())?;

        let client_state = StateDir::resolve(Some(&dir.join("client")), None, None, None);
        let token = identity::create_token(
            &server_state,
            &TokenOptions {
                members: Vec::new(),
                ttl: Duration::from_mins(1),
                uses: 1,
                node: Some(client_id.clone()),
                groups: Vec::new(),
                relay: true,
                advertise: vec![address.clone()],
                listen_port: Some(quic_port),
            },
        )?;
        let options = JoinOptions { state: client_state.clone(), node_id: Some(client_id.clone()) };
        identity::join(&token.token, &options).await?;
        let upstream = Upstream { name: "server".to_owned(), node_id: server_id.clone(), address, cost: 0 };
        let config = Config {
            node_id: Some(client_id.clone()),
            proxies: vec![proxy(&server_id, web, port)],
            quic: Quic { upstreams: vec![upstream], ..loopback() },
            mesh: impatient(),
            ..Config::default()
        };
        let client = run_node(config, client_state.clone())?;
        reach(port).await?;
        Ok(Self { client, server, nodes: [(client_id, client_state), (server_id, server_state)] })
    }

    fn tell(&self, json: bool, port: u16, taken: bool) -> Outcome {
        let url = format!("http://127.0.0.1:{port}/");
        if json {
            let node = |(id, state): &(NodeId, StateDir)| json!({"node_id": id, "state_dir": state.path()});
            let nodes: Vec<_> = self.nodes.iter().map(node).collect();
            return output::json(&json!({"web": url, "nodes": nodes}));
        }
        let [(client, client_state), (server, server_state)] = &self.nodes;
        let client_dir = shell_word(&client_state.path().to_string_lossy());
        let server_dir = shell_word(&server_state.path().to_string_lossy());
        let taken =
            if taken { format!("(port {PORT} is taken, so this is a free one)\n") } else { String::new() };
        output::text(&format!(
            "A mesh of two nodes is running on this machine:\n\n  \
             browser -> 127.0.0.1:{port} -> node {client} == QUIC ==> node {server} -> web service\n\n\
             Open   {url}\n{taken}\n\
             Try    curl {url}\n       \
             curl -o /dev/null '{url}big?mib=1024'\n       \
             curl --data-binary hello {url}echo\n       \
             ffmesh status --state-dir {client_dir}\n       \
             ffmesh flows --state-dir {client_dir}\n       \
             ffmesh ping {server} --state-dir {client_dir}\n       \
             ffmesh peers --state-dir {server_dir}\n\n\
             Ctrl-C ends it and removes its files.\n"
        ))
    }

    async fn stop(self) {
        self.client.stop().await;
        self.server.stop().await;
    }
}

fn id(name: &str) -> Outcome<NodeId> {
    name.parse().map_err(Failure::failed)
}

/// Ctrl-C does not wait for a browser that keeps its connection open.
fn impatient() -> config::Mesh {
    config::Mesh { drain_timeout: Duration::from_secs(1), ..config::Mesh::default() }
}

fn loopback() -> Quic {
    Quic { listen_address: Some(LOOPBACK), ..Quic::default() }
}

fn proxy(server: &NodeId, web: SocketAddr, port: u16) -> Proxy {
    let target = Target::Port { host: Host::Ip(web.ip()), port: web.port() };
    Proxy {
        name: "web".to_owned(),
        listen: Listen::Port(LOOPBACK, port),
        protocol: Protocol::Tcp,
        target: Some(ProxyTarget::Address { node: server.clone(), target }),
        exit: None,
        idle_timeout: None,
    }
}

/// The port that was asked for, or 8080, or a free one; and whether 8080 was taken.
fn free_port(asked: Option<u16>) -> Outcome<(u16, bool)> {
    let free = |port| TcpListener::bind((LOOPBACK, port)).and_then(|listener| listener.local_addr());
    match (asked, free(asked.unwrap_or(PORT))) {
        (_, Ok(address)) => Ok((address.port(), false)),
        (Some(port), Err(error)) => Err(Failure::failed(format!(
            "port {port} of 127.0.0.1 cannot be used: {error}\nname another one, or leave --port out"
        ))),
        (None, Err(_)) => Ok((free(0)?.port(), true)),
    }
}

/// Fetches a page through the mesh until one comes back.
async fn reach(port: u16) -> Outcome {
    let reached = async {
        while !fetch(port).await.unwrap_or(false) {
            tokio::time::sleep(READY_POLL).await;
        }
    };
    tokio::time::timeout(READY_TIMEOUT, reached).await.map_err(|_| {
        Failure::failed(format!(
            "nothing came back through the mesh within {} s\nrun it with --log-level debug to see why",
            READY_TIMEOUT.as_secs()
        ))
    })
}

async fn fetch(port: u16) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect((LOOPBACK, port)).await?;
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n").await?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await?;
    Ok(reply.starts_with("HTTP/1.1 200 "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_refused_when_it_was_asked_for() {
        let taken = TcpListener::bind((LOOPBACK, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        assert_eq!(free_port(Some(port)).unwrap_err().status(), 1);
        drop(taken);
        assert_eq!(free_port(Some(port)).unwrap(), (port, false));
    }

    #[tokio::test]
    async fn the_web_service_says_that_it_is_there() {
        let web = web::start("server".parse().unwrap()).await.unwrap();
        assert!(fetch(web.port()).await.unwrap());
    }
}
