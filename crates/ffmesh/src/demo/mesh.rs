//! The demo's four nodes.
//!
//! Only the relays listen, so client and server meet through them:
//!
//! ```text
//!          ┌─▶ relay-1 ◀─┐
//!   client ┤             ├ server
//!          └─▶ relay-2 ◀─┘
//! ```

use std::future::poll_fn;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::task::Poll;
use std::time::Duration;

use ffmesh_core::id::NodeId;
use ffmesh_core::target::{Host, Target};
use ffmesh_node::config::{self, Address, Config, Listen, Protocol, Proxy, ProxyTarget, Quic, Upstream};
use ffmesh_node::identity::{self, InitOptions, JoinOptions, TokenOptions};
use ffmesh_node::node::Node;
use ffmesh_node::state::StateDir;

use super::relay::Relay;
use crate::failure::{Failure, Outcome};
use crate::run::run_node;

/// The node that the proxy is on.
pub(super) const CLIENT: &str = "client";
/// The node that the web service is behind.
pub(super) const SERVER: &str = "server";
/// The nodes between, the one that founds the mesh first.
const RELAYS: [&str; 2] = ["relay-1", "relay-2"];
const CREDENTIALS_TTL: Duration = Duration::from_hours(24);
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// The nodes, running. Dropping it ends them at once.
pub(super) struct Mesh {
    /// `admin.listen` of the client
    pub(super) admin: SocketAddr,
    pub(super) relays: Vec<Relay>,
    /// Client and server.
    ends: Vec<End>,
}

/// A node at an end of the mesh, which runs as long as the demo.
struct End {
    id: NodeId,
    state: StateDir,
    node: Node,
}

impl End {
    fn seen(&self) -> Seen<'_> {
        Seen { id: &self.id, state: &self.state, runs: true, is_relay: false }
    }
}

/// What is known of a node.
pub(super) struct Seen<'a> {
    pub(super) id: &'a NodeId,
    pub(super) state: &'a StateDir,
    pub(super) runs: bool,
    pub(super) is_relay: bool,
}

impl Mesh {
    /// Starts all four, with state directories in `dir`: a proxy on `port` leads to `web` behind the server, and the
    /// client's console is on the port `console`.
    pub(super) async fn start(dir: &Path, port: u16, console: u16, web: SocketAddr) -> Outcome<Self> {
        let admin = (LOOPBACK, console).into();
        let mut mesh = Self { admin, relays: Vec::new(), ends: Vec::new() };
        let mut addresses = Vec::new();
        for name in RELAYS {
            let address = free_address()?;
            mesh.add_relay(dir, name, &address).await?;
            addresses.push((id(name)?, address));
        }
        let upstreams: Vec<_> = addresses.into_iter().map(upstream).collect();
        let proxies = [(SERVER, Vec::new()), (CLIENT, vec![proxy(web, port)?])];
        for (name, proxies) in proxies {
            let (id, state) = (id(name)?, state(dir, name));
            mesh.enrol(&id, &state).await?;
            let quic = Quic { upstreams: upstreams.clone(), ..loopback() };
            let mut config = Config { proxies, ..config(&id, quic) };
            if name == CLIENT {
                config.admin.listen = Some(admin);
            }
            let node = run_node(config, state.clone())?;
            mesh.ends.push(End { id, state, node });
        }
        mesh.ends.reverse(); // the server starts first and is told of last
        Ok(mesh)
    }

    /// Starts a relay that listens at `address`. The first one founds the mesh.
    async fn add_relay(&mut self, dir: &Path, name: &str, address: &Address) -> Outcome {
        let (id, state) = (id(name)?, state(dir, name));
        if self.relays.is_empty() {
            identity::init(&InitOptions {
                state: state.clone(),
                node_id: Some(id.clone()),
                mesh: Some("demo".parse().map_err(Failure::failed)?),
                advertise: vec![address.clone()],
                listen_port: address.port,
                cert_ttl: CREDENTIALS_TTL,
            })?;
        } else {
            self.enrol(&id, &state).await?;
        }
        let (listen_port, advertise) = (Some(address.port), vec![address.clone()]);
        let quic = Quic { listen_port, advertise, ..loopback() };
        let mut relay = Relay::new(id.clone(), state, config(&id, quic));
        relay.start()?;
        self.relays.push(relay);
        Ok(())
    }

    /// Lets a node into the mesh with a token of the first relay.
    async fn enrol(&self, id: &NodeId, state: &StateDir) -> Outcome {
        let Some(founder) = self.relays.first() else {
            return Err(Failure::failed("there is no mesh yet"));
        };
        let quic = &founder.config.quic;
        let token = identity::create_token(
            &founder.state,
            &TokenOptions {
                members: Vec::new(),
                ttl: Duration::from_mins(1),
                uses: 1,
                node: Some(id.clone()),
                groups: Vec::new(),
                relay: true,
                advertise: quic.advertise.clone(),
                listen_port: quic.listen_port,
            },
        )?;
        let options = JoinOptions { state: state.clone(), node_id: Some(id.clone()) };
        identity::join(&token.token, &options).await?;
        Ok(())
    }

    /// The relay of this name.
    pub(super) fn relay(&mut self, id: &NodeId) -> Outcome<&mut Relay> {
        let found = self.relays.iter_mut().find(|relay| relay.id == *id);
        found.ok_or_else(|| Failure::failed(format!("{id} is no relay; there are {}", RELAYS.join(" and "))))
    }

    /// All nodes, on the way from the client to the server.
    pub(super) fn nodes(&self) -> Vec<Seen<'_>> {
        let (client, server) = (self.ends.iter().take(1), self.ends.iter().skip(1));
        let relays = self.relays.iter().map(|relay| Seen {
            id: &relay.id,
            state: &relay.state,
            runs: relay.runs(),
            is_relay: true,
        });
        client.map(End::seen).chain(relays).chain(server.map(End::seen)).collect()
    }

    /// Waits until one of the nodes is told to drain (`ffmesh drain`), and says which. Of those that run now.
    pub(super) fn drain_asked(&self) -> impl Future<Output = NodeId> + use<> {
        let ends = self.ends.iter().map(|end| (end.id.clone(), &end.node));
        let relays = self.relays.iter().filter_map(|relay| Some((relay.id.clone(), relay.node()?)));
        let mut asked: Vec<_> =
            ends.chain(relays).map(|(id, node)| (id, Box::pin(node.drain_asked()))).collect();
        poll_fn(move |context| {
            let told = asked
                .iter_mut()
                .find_map(|(id, asked)| asked.as_mut().poll(context).is_ready().then(|| id.clone()));
            told.map_or(Poll::Pending, Poll::Ready)
        })
    }

    /// Ends them in order.
    pub(super) async fn stop(self) {
        for end in self.ends {
            end.node.stop().await;
        }
        for mut relay in self.relays {
            relay.stop().await;
        }
    }
}

fn id(name: &str) -> Outcome<NodeId> {
    name.parse().map_err(Failure::failed)
}

fn state(dir: &Path, name: &str) -> StateDir {
    StateDir::resolve(Some(&dir.join(name)), None, None, None)
}

fn config(id: &NodeId, quic: Quic) -> Config {
    // Ctrl-C does not wait for a browser that keeps its connection open.
    let mesh = config::Mesh { drain_timeout: Duration::from_secs(1), ..config::Mesh::default() };
    Config { node_id: Some(id.clone()), quic, mesh, ..Config::default() }
}

fn loopback() -> Quic {
    Quic { listen_address: Some(LOOPBACK), ..Quic::default() }
}

/// A UDP port that is free now.
fn free_address() -> Outcome<Address> {
    let port = UdpSocket::bind((LOOPBACK, 0))?.local_addr()?.port();
    Ok(Address { host: Host::Ip(LOOPBACK), port })
}

fn upstream((node_id, address): (NodeId, Address)) -> Upstream {
    Upstream { name: node_id.to_string(), node_id, address, cost: 0 }
}

fn proxy(web: SocketAddr, port: u16) -> Outcome<Proxy> {
    let target = Target::Port { host: Host::Ip(web.ip()), port: web.port() };
    Ok(Proxy {
        name: "web".to_owned(),
        listen: Listen::Port(LOOPBACK, port),
        protocol: Protocol::Tcp,
        target: Some(ProxyTarget::Address { node: id(SERVER)?, target }),
        exit: None,
        idle_timeout: None,
    })
}
