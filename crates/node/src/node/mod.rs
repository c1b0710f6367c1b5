//! The composition root: makes the parts of a node, wires them, and ends them in order.
//!
//! ```text
//!            ┌── dial (one an upstream) ──┐
//!            ├── wanted (one a node) ─────┤
//!  accept ───┤                            ├─ link events ─▶ driver ─▶ routing table, links there are, nodes wanted
//!            ├── link (two a neighbour) ──┘                   ▲  │
//!            ├── enrolment (one a joining node)      circuits │  ▼ events and probes of circuits
//!            └── session ◀──── dial (one a node) ──▶ supervise (one a session)
//!                  │ opened
//!                  ▼
//!                serve (one a session) ─▶ stream (one a flow) ─▶ egress ─▶ target
//!  ingress (one a proxy) ─▶ open (one a flow) ─▶ session
//!  admin (one a request)    renew    load    flow watch    addresses of this machine
//! ```
//!
//! What brings flows and links is in [`JoinSet`]s of the node. The tasks of links, sessions and flows end with their
//! connections, which the node closes when it is dropped.

mod accept;
mod control;
mod drain;
mod load;
mod renew;
mod routes;
mod speedtest;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use ffmesh_core::id::NodeId;
use ffmesh_core::lsdb;
use ffmesh_core::mesh::{self, Mesh};
use ffmesh_core::policy::Own;
use ffmesh_core::reason::Reason;
use ffmesh_core::target::Target;
use ffmesh_core::wire::Capability;
use ffmesh_udp::Socket;
use jiff::Timestamp;
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::admin;
use crate::config::{self, Config, Listen};
use crate::driver::{Driver, DriverConfig, Started};
use crate::egress::{self, Egress, ServiceAddresses};
use crate::events::Events;
use crate::flow::{FlowLimits, Flows, OpenContext, ServeContext, Speedtests, serve};
use crate::identity::{
    CertificateError, Certificates, Credentials, IdentityError, Issuer, KnownKeys, RecordSigner,
};
use crate::ingress::{BindError, Ingress, holder};
use crate::link::{self, Dialler, LinkContext, WantedDialler, dial_upstream, dial_wanted};
use crate::metrics::Counters;
use crate::repeats::Repeats;
use crate::session::{Session, SessionContext, Sessions};
use crate::socket::Labels;
use crate::state::{StateDir, StateError, StateLock};
use crate::store::{Store, StoreError};
use crate::transport::{Transport, TransportError};

/// Events of links that may wait for the driver.
const LINK_EVENTS: usize = 1024;
/// New sessions that may wait to be served.
const OPENED_SESSIONS: usize = 64;
/// How often this machine's addresses are looked at.
const ADDRESS_INTERVAL: Duration = Duration::from_secs(10);
/// What the other nodes are told when this one ends.
const STOPPING: &str = "the node is shutting down";
/// How long closed sessions have to tell so before their links are closed.
const SESSION_CLOSE_LEAD: Duration = Duration::from_millis(50);
/// How long the neighbours are given to take in that this node ends.
const CLOSE_LIMIT: Duration = Duration::from_millis(500);

/// Why a node did not start. Nothing is left running.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Credentials are missing or cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The state directory cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The UDP port cannot be bound.
    #[error("cannot bind UDP port {port}: {reason}")]
    Udp {
        /// `quic.listen_port`, or 0
        port: u16,
        /// Why, and what to do
        reason: String,
    },
    /// A proxy cannot listen.
    #[error(transparent)]
    Proxy(#[from] BindError),
    /// The admin socket cannot be bound.
    #[error("cannot bind the admin socket {}: {error}", path.display())]
    Admin {
        /// Where
        path: PathBuf,
        /// What the system says
        error: io::Error,
    },
    /// The state directory or the machine's addresses cannot be read.
    #[error("cannot use {} or read this machine's addresses: {error}", path.display())]
    Machine {
        /// The state directory
        path: PathBuf,
        /// What the system says
        error: io::Error,
    },
    /// This node's certificate would not be taken by others.
    #[error("this node's certificate cannot be used: {0}")]
    Certificate(#[from] CertificateError),
    /// The QUIC endpoint could not be made.
    #[error("cannot start QUIC: {0}")]
    Transport(#[from] TransportError),
}

/// A running node. Dropping it ends it at once; [`stop`](Self::stop) tells the neighbours.
#[derive(Debug)]
pub struct Node {
    parts: Arc<Parts>,
    ingresses: JoinSet<()>,
    tasks: JoinSet<()>,
    /// Keeps other nodes out of the state directory.
    _lock: StateLock,
}

/// What the admin API looks at.
#[derive(Debug)]
struct Parts {
    /// The configuration in force; replaced as a whole
    config: ArcSwap<Config>,
    state: StateDir,
    #[allow(dead_code)] // until something is kept in it
    store: Store,
    events: Events,
    started: Timestamp,
    udp: SocketAddr,
    listening: Vec<SocketAddr>,
    admin_path: PathBuf,
    credentials: Arc<Credentials>,
    transport: Transport,
    sessions: Sessions,
    labels: Labels,
    flows: Flows,
    diallers: Vec<Dialler>,
    wanted: WantedDialler,
    counters: Arc<Counters>,
    issuer: Option<Arc<Issuer>>,
    repeats: Arc<Repeats>,
}

impl Node {
    /// Starts a node: binds everything first, so that what is taken is known at once, then serves. Needs a tokio
    /// runtime.
    pub fn start(config: Config, state: StateDir) -> Result<Self, StartError> {
        let lock = state.lock()?;
        let credentials = Arc::new(Credentials::load(&state)?);
        let issuer = Issuer::load(&state)?.map(Arc::new);
        if let Some(issuer) = issuer.as_ref().filter(|_| credentials.expires() <= Timestamp::now()) {
            issuer.renew_self(&credentials)?; // it was off for longer than its certificate lived
        }
        credentials.check(config.node_id.as_ref(), Timestamp::now())?;
        let store = Store::open(&state)?;
        let bound = Bound::bind(&config, &state)?;
        Self::serve(config, state, store, lock, credentials, issuer, bound)
    }

    fn serve(
        config: Config,
        state: StateDir,
        store: Store,
        lock: StateLock,
        credentials: Arc<Credentials>,
        issuer: Option<Arc<Issuer>>,
        bound: Bound,
    ) -> Result<Self, StartError> {
        let counters = Arc::new(Counters::default());
        let labels = Labels::default();
        let transport = Transport::new(Arc::new(bound.udp), labels.clone(), &credentials, &config)?;
        let (events, link_events) = mpsc::channel(LINK_EVENTS);
        let epoch = state.next_epoch().map_err(|error| StartError::state(&state, error))?;
        let known_keys = Arc::new(KnownKeys::load(&state)?);
        let certificates = Certificates::new(credentials.clone(), known_keys.clone())?;
        let addresses = where_to_dial(&config, bound.udp_address);
        let Started { driver, linked, wanted } = Driver::start(
            DriverConfig {
                own: credentials.node_id(),
                max_links: config.quic.max_links as usize,
                known_keys: known_keys.clone(),
                certificates: certificates.clone(),
                upstreams: upstream_costs(&config),
                mesh: Mesh::new(
                    mesh_config(&config, &credentials, addresses),
                    credentials.node_id(),
                    epoch,
                    Box::new(RecordSigner::new(&credentials)?),
                    Box::new(certificates.clone()),
                    rand::random(),
                ),
                transit: credentials.identity().relay && config.mesh.transit,
                labels: labels.clone(),
                counters: counters.clone(),
            },
            link_events,
        );
        let links = LinkContext {
            transport: transport.clone(),
            credentials: credentials.clone(),
            epoch,
            capabilities: capabilities(&config, &credentials),
            keep_alive: config.quic.keep_alive,
            events,
        };
        let (opened, new_sessions) = mpsc::channel(OPENED_SESSIONS);
        let sessions = Sessions::new(SessionContext {
            transport: transport.clone(),
            credentials: credentials.clone(),
            certificates,
            known_keys: known_keys.clone(),
            epoch,
            driver,
            labels: labels.clone(),
            hold: config.mesh.hold,
            opened,
            failovers: Arc::default(),
        });
        let limits = FlowLimits {
            flows: config.quic.max_flows.into(),
            memory: config.quic.flow_memory,
            window: config.quic.stream_window.into(),
        };
        let parts = Arc::new(Parts {
            started: Timestamp::now(),
            udp: bound.udp_address,
            listening: bound.ingresses.iter().filter_map(Ingress::address).collect(),
            admin_path: bound.admin_path,
            credentials,
            transport,
            flows: Flows::new(limits, counters.clone()),
            sessions,
            labels,
            diallers: Dialler::for_upstreams(&config.quic.upstreams),
            wanted: WantedDialler::new(&config.quic.upstreams),
            counters,
            issuer,
            repeats: Arc::default(),
            state,
            store,
            events: Events::default(),
            config: ArcSwap::from_pointee(config),
        });
        let own = parts.own_listeners().map_err(|error| StartError::state(&parts.state, error))?;
        let egress =
            Arc::new(Egress::new(egress::policy(&parts.config(), own, &ServiceAddresses::default())));
        let opening = OpenContext { sessions: parts.sessions.clone(), flows: parts.flows.clone() };

        let (mut ingresses, mut tasks) = (JoinSet::new(), JoinSet::new());
        tasks.spawn(accept::accept_loop(parts.clone(), links.clone()));
        tasks.spawn(serve_sessions(parts.clone(), egress.clone(), new_sessions));
        for dialler in &parts.diallers {
            tasks.spawn(dial_upstream(links.clone(), dialler.clone(), linked.clone()));
        }
        tasks.spawn(dial_wanted(links, parts.wanted.clone(), wanted, linked));
        for ingress in bound.ingresses {
            ingresses.spawn(ingress.run(opening.clone(), parts.counters.clone()));
        }
        tasks.spawn(follow_addresses(parts.clone(), egress));
        let flows = parts.flows.clone();
        tasks.spawn(async move { flows.watch().await });
        tasks.spawn(renew::renew(parts.clone()));
        tasks.spawn(load::watch(parts.sessions.driver().clone()));
        let control = Arc::new(control::NodeControl::new(parts.clone(), opening));
        tasks.spawn(admin::serve(bound.admin_socket, control, std::future::pending()));
        parts.announce();
        Ok(Self { parts, ingresses, tasks, _lock: lock })
    }

    /// The node's id.
    pub fn id(&self) -> NodeId {
        self.parts.credentials.node_id()
    }

    /// TCP addresses of its proxies, in the file's order.
    pub fn listening(&self) -> &[SocketAddr] {
        &self.parts.listening
    }

    /// Ends the node: no new flows and circuits; open flows have `mesh.drain_timeout` to end, and those of others to take
    /// other routes; the mesh is told.
    pub async fn stop(mut self) {
        let driver = self.parts.sessions.driver();
        self.parts.flows.drain();
        let flows_open = self.parts.flows.totals().0;
        self.parts.events.publish(ffmesh_api::Change::Drain { flows_open });
        driver.drain().await;
        self.ingresses.shutdown().await;
        let limit = self.parts.config().mesh.drain_timeout;
        let drained =
            async { tokio::join!(self.parts.flows.ended(), drain::transit_ended(&self.parts.labels)) };
        if tokio::time::timeout(limit, drained).await.is_err() {
            tracing::warn!(
                "after {limit:?} (mesh.drain_timeout) flows or transit are still there, and are cut"
            );
        }
        driver.withdraw().await;
        self.tasks.shutdown().await;
        // Sessions first: their last packets travel behind labels that go with the links.
        self.parts.sessions.close(Reason::Drained, STOPPING);
        tokio::time::sleep(SESSION_CLOSE_LEAD).await;
        self.parts.transport.close(link::code::GOODBYE, STOPPING, CLOSE_LIMIT).await;
    }
}

impl Parts {
    /// The configuration in force.
    fn config(&self) -> Arc<Config> {
        self.config.load_full()
    }

    /// This node's own listeners, with the addresses that the machine has now.
    fn own_listeners(&self) -> io::Result<Own> {
        let listeners = self.listening.iter().copied().chain(self.config().admin.listen).collect();
        let config = self.config();
        let unix = config.proxies.iter().filter_map(|proxy| match &proxy.listen {
            Listen::Unix(path) => Some(path.clone()),
            Listen::Port(..) => None,
        });
        egress::own(listeners, &unix.chain([self.admin_path.clone()]).collect::<Vec<_>>())
    }

    fn announce(&self) {
        tracing::info!(
            node = %self.credentials.node_id(), mesh = %self.credentials.mesh(),
            listen = %ffmesh_udp::canonical(self.udp), accepts = self.config().quic.listen_port.is_some(), "node started"
        );
        for proxy in self.config().proxies.iter().filter(|proxy| proxy.is_served()) {
            tracing::info!(proxy = ?proxy.name, listen = %proxy.listen, "proxy listens");
        }
        // The first, Go, FFMesh bound all interfaces: who comes from there would look for the fault elsewhere.
        if self.listening.iter().any(|address| address.ip().is_loopback()) {
            tracing::info!(
                "proxies on a loopback address are reachable from this machine only; \
                 `local_address` of a proxy, such as 0.0.0.0, opens it to others"
            );
        }
    }
}

/// What a node has bound before it serves.
struct Bound {
    udp: Socket,
    udp_address: SocketAddr,
    ingresses: Vec<Ingress>,
    admin_path: PathBuf,
    admin_socket: UnixListener,
}

impl Bound {
    fn bind(config: &Config, state: &StateDir) -> Result<Self, StartError> {
        let port = config.quic.listen_port.unwrap_or(0);
        let failed = |error| StartError::Udp { port, reason: explain_udp(config, &error) };
        let udp = Socket::bind(config.quic.listen_address, port).map_err(failed)?;
        let udp_address = udp.local_addr().map_err(failed)?;
        let ingresses = config.proxies.iter().map(Ingress::bind).filter_map(Result::transpose);
        let ingresses = ingresses.collect::<Result<_, _>>()?;
        let admin_path = state.prepare_admin_socket()?;
        let admin_socket = admin::bind(&admin_path)
            .map_err(|error| StartError::Admin { path: admin_path.clone(), error })?;
        Ok(Self { udp, udp_address, ingresses, admin_path, admin_socket })
    }
}

impl StartError {
    fn state(state: &StateDir, error: io::Error) -> Self {
        Self::Machine { path: state.path().to_owned(), error }
    }
}

fn explain_udp(config: &Config, error: &io::Error) -> String {
    let port = config.quic.listen_port.unwrap_or(0);
    match (error.kind(), config.quic.listen_address) {
        (io::ErrorKind::AddrInUse, _) => {
            let holder = holder::of_udp_port(port).unwrap_or_else(|| "another program".to_owned());
            format!("{holder} holds it; choose another quic.listen_port, or stop it")
        }
        (io::ErrorKind::AddrNotAvailable, Some(address)) => {
            format!(
                "{address} is no address of this machine; choose another quic.listen_address, or leave it out"
            )
        }
        (io::ErrorKind::PermissionDenied, _) if (1..1024).contains(&port) => {
            format!("{error}; ports below 1024 need root or the capability CAP_NET_BIND_SERVICE")
        }
        _ => error.to_string(),
    }
}

/// Serves the streams of each session in a task of its own.
async fn serve_sessions(parts: Arc<Parts>, egress: Arc<Egress>, mut sessions: mpsc::Receiver<Session>) {
    let context = ServeContext {
        sessions: parts.sessions.clone(),
        flows: parts.flows.clone(),
        egress,
        issuer: parts.issuer.clone(),
        speedtests: Speedtests::default(),
        counters: parts.counters.clone(),
        repeats: parts.repeats.clone(),
    };
    let mut served = JoinSet::new();
    while let Some(session) = sessions.recv().await {
        while served.try_join_next().is_some() {}
        served.spawn(serve(context.clone(), session));
    }
}

/// Keeps the policy's picture of this machine's addresses, as what a wildcard listener listens on changes with them,
/// and of those of its services; and tells the mesh where this node can be dialled.
async fn follow_addresses(parts: Arc<Parts>, egress: Arc<Egress>) {
    let (mut last, mut services) = (None, ServiceAddresses::default());
    loop {
        services = egress::resolve_services(&parts.config(), services).await;
        match parts.own_listeners() {
            Ok(own) => {
                let new = Some((own, services.clone()));
                if let Some((own, services)) = new.as_ref().filter(|_| new != last) {
                    egress.set_policy(egress::policy(&parts.config(), own.clone(), services));
                    last = new;
                }
            }
            Err(error) => tracing::warn!("addresses of this machine cannot be read: {error}"),
        }
        parts.sessions.driver().advertise(where_to_dial(&parts.config(), parts.udp)).await;
        tokio::time::sleep(ADDRESS_INTERVAL).await;
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.parts.transport.close_now(link::code::GOODBYE, STOPPING);
    }
}

/// What is configured for the links to upstreams, in µs: the least of a node's entries.
fn upstream_costs(config: &Config) -> BTreeMap<NodeId, u32> {
    let mut costs = BTreeMap::new();
    for upstream in &config.quic.upstreams {
        let cost = upstream.cost.saturating_mul(1_000);
        costs
            .entry(upstream.node_id.clone())
            .and_modify(|least: &mut u32| *least = cost.min(*least))
            .or_insert(cost);
    }
    costs
}

/// What this node says about itself.
fn mesh_config(config: &Config, credentials: &Credentials, addresses: Vec<Target>) -> mesh::Config {
    let identity = credentials.identity();
    let service = |service: &config::Service| lsdb::Service {
        name: service.name.clone(),
        protocol: u8::from(service.protocol == config::Protocol::Udp),
        attachment: String::new(),
    };
    mesh::Config {
        relay: identity.relay,
        issuer: identity.issuer,
        transit: config.mesh.transit,
        cost: config.mesh.cost.saturating_mul(1_000),
        addresses,
        services: config.services.iter().map(service).collect(),
    }
}

/// Where others can dial this node, as far as it can be said.
fn where_to_dial(config: &Config, udp: SocketAddr) -> Vec<Target> {
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    let addresses: Vec<_> = interfaces.iter().map(if_addrs::Interface::ip).collect();
    link::advertised(&config.quic, udp, &addresses)
}

fn capabilities(config: &Config, credentials: &Credentials) -> Vec<Capability> {
    let identity = credentials.identity();
    let relay = (identity.relay && config.mesh.transit).then_some(Capability::Relay);
    relay.into_iter().chain(identity.issuer.then_some(Capability::Issuer)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Quic;

    #[test]
    fn a_udp_port_that_cannot_be_bound_is_explained_by_its_cause() {
        let held = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = held.local_addr().unwrap().port();
        let quic =
            Quic { listen_port: Some(port), listen_address: "192.0.2.1".parse().ok(), ..Quic::default() };
        let config = Config { quic, ..Config::default() };
        let said = |kind: io::ErrorKind| explain_udp(&config, &kind.into());
        let taken = said(io::ErrorKind::AddrInUse);
        assert!(taken.ends_with("holds it; choose another quic.listen_port, or stop it"), "{taken}");
        #[cfg(target_os = "linux")]
        assert!(taken.contains(&format!("(process {})", std::process::id())), "{taken}");
        let elsewhere = said(io::ErrorKind::AddrNotAvailable);
        assert!(elsewhere.starts_with("192.0.2.1 is no address of this machine"), "{elsewhere}");
        assert!(!said(io::ErrorKind::PermissionDenied).contains("1024"), "{port} is none of the low ports");
        let low = Config { quic: Quic { listen_port: Some(443), ..Quic::default() }, ..Config::default() };
        assert!(explain_udp(&low, &io::ErrorKind::PermissionDenied.into()).contains("ports below 1024"));
    }
}
