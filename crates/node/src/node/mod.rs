//! The composition root: makes the parts of a node, wires them, and ends them in order.
//!
//! ```text
//!            ┌── dial (one an upstream) ──┐
//!  accept ───┤                            ├─ link events ─▶ driver ─▶ routing table, links there are
//!            ├── link (two a neighbour) ──┘                   ▲  │
//!            ├── enrolment (one a joining node)       circuits │  ▼
//!            └── session ◀───────────────────────────── supervise (one a session)
//!                  │ opened
//!                  ▼
//!                serve (one a session) ─▶ stream (one a flow) ─▶ egress ─▶ target
//!  ingress (one a proxy) ─▶ open (one a flow) ─▶ session
//!  admin (one a request)    renew    flow watch
//! ```
//!
//! All tasks live in one [`JoinSet`] or are owned by one that does; when the node is dropped they end.

mod accept;
mod control;
mod renew;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ffmesh_core::id::NodeId;
use ffmesh_core::policy::Own;
use ffmesh_core::reason::Reason;
use ffmesh_core::wire::Capability;
use ffmesh_udp::Socket;
use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::admin;
use crate::config::{Config, Listen};
use crate::driver::{Driver, DriverConfig};
use crate::egress::{self, Egress};
use crate::flow::{FlowLimits, Flows, OpenContext, ServeContext, serve};
use crate::identity::{Credentials, IdentityError, Issuer, KnownKeys};
use crate::ingress::{BindError, Ingress};
use crate::link::{Dialler, LinkContext, dial_upstream};
use crate::metrics::Counters;
use crate::session::{SessionContext, Sessions};
use crate::socket::Labels;
use crate::state::{StateDir, StateError, StateLock};
use crate::transport::{Transport, TransportError};

/// Events of links that may wait for the driver.
const LINK_EVENTS: usize = 1024;
/// New sessions that may wait to be served.
const OPENED_SESSIONS: usize = 64;
/// How often this machine's addresses are looked at.
const ADDRESS_INTERVAL: Duration = Duration::from_secs(10);
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
    /// The UDP port cannot be bound.
    #[error("cannot bind UDP port {port}: {error}; choose another quic.listen_port, or stop what holds it")]
    Udp {
        /// `quic.listen_port`, or 0
        port: u16,
        /// What the system says
        error: io::Error,
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
    /// The QUIC endpoint could not be made.
    #[error("cannot start QUIC: {0}")]
    Transport(#[from] TransportError),
}

/// A running node. Dropping it ends it at once; [`stop`](Self::stop) tells the neighbours.
#[derive(Debug)]
pub struct Node {
    parts: Arc<Parts>,
    tasks: JoinSet<()>,
    listening: Vec<SocketAddr>,
    /// Keeps other nodes out of the state directory.
    _lock: StateLock,
}

/// What the admin API looks at.
#[derive(Debug)]
struct Parts {
    config: Config,
    state: StateDir,
    started: Timestamp,
    udp: SocketAddr,
    credentials: Arc<Credentials>,
    transport: Transport,
    sessions: Sessions,
    flows: Flows,
    diallers: Vec<Dialler>,
    counters: Arc<Counters>,
    issuer: Option<Arc<Issuer>>,
}

impl Node {
    /// Starts a node: binds everything first, so that what is taken is known at once, then serves.
    pub async fn start(config: Config, state: StateDir) -> Result<Self, StartError> {
        let lock = state.lock()?;
        let credentials = Arc::new(Credentials::load(&state)?);
        let issuer = Issuer::load(&state)?.map(Arc::new);
        if let Some(issuer) = issuer.as_ref().filter(|_| credentials.expires() <= Timestamp::now()) {
            issuer.renew_self(&credentials)?; // it was off for longer than its certificate lived
        }
        credentials.check(config.node_id.as_ref(), Timestamp::now())?;
        let own = credentials.node_id();
        let epoch = state.next_epoch().map_err(|e| state_error(&state, e))?;

        // Everything is bound before anything is served.
        let port = config.quic.listen_port.unwrap_or(0);
        let udp = Socket::bind(config.quic.listen_address, port)
            .map_err(|error| StartError::Udp { port, error })?;
        let udp_address = udp.local_addr().map_err(|error| StartError::Udp { port, error })?;
        let ingresses: Vec<Ingress> = config
            .proxies
            .iter()
            .map(Ingress::bind)
            .filter_map(Result::transpose)
            .collect::<Result<_, _>>()?;
        let admin_path = state.prepare_admin_socket()?;
        let admin_socket = admin::bind(&admin_path)
            .map_err(|error| StartError::Admin { path: admin_path.clone(), error })?;

        let counters = Arc::new(Counters::default());
        let labels = Labels::default();
        let transport = Transport::new(Arc::new(udp), labels.clone(), &credentials, &config)?;
        let (events, link_events) = mpsc::channel(LINK_EVENTS);
        let (driver, linked) = Driver::start(
            DriverConfig {
                own: own.clone(),
                max_links: config.quic.max_links as usize,
                known_keys: KnownKeys::load(&state)?,
                configured: config.quic.upstreams.iter().map(|upstream| upstream.node_id.clone()).collect(),
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
        let (opened, mut new_sessions) = mpsc::channel(OPENED_SESSIONS);
        let sessions = Sessions::new(SessionContext {
            transport: transport.clone(),
            credentials: credentials.clone(),
            driver,
            labels,
            hold: config.mesh.hold,
            opened,
        });
        let limits = FlowLimits {
            flows: config.quic.max_flows.into(),
            memory: config.quic.flow_memory,
            window: config.quic.stream_window.into(),
        };
        let flows = Flows::new(limits, counters.clone());
        let listening: Vec<SocketAddr> = ingresses.iter().filter_map(Ingress::address).collect();
        let parts = Arc::new(Parts {
            state,
            started: Timestamp::now(),
            udp: udp_address,
            credentials,
            transport,
            sessions: sessions.clone(),
            flows: flows.clone(),
            diallers: config.quic.upstreams.iter().cloned().map(Dialler::new).collect(),
            counters: counters.clone(),
            issuer: issuer.clone(),
            config,
        });
        let own_listeners = own_listeners(&parts.config, &listening, &admin_path)
            .map_err(|e| state_error(&parts.state, e))?;
        let egress = Arc::new(Egress::new(egress::policy(&parts.config, own_listeners)));
        let serving =
            ServeContext { flows: flows.clone(), egress: egress.clone(), issuer, counters: counters.clone() };
        let opening = OpenContext { sessions, flows: flows.clone() };

        let mut tasks = JoinSet::new();
        tasks.spawn(accept::accept_loop(parts.clone(), links.clone()));
        tasks.spawn(async move {
            let mut served = JoinSet::new();
            while let Some(session) = new_sessions.recv().await {
                while served.try_join_next().is_some() {}
                served.spawn(serve(serving.clone(), session));
            }
        });
        for dialler in &parts.diallers {
            tasks.spawn(dial_upstream(links.clone(), dialler.clone(), linked.clone()));
        }
        for ingress in ingresses {
            tasks.spawn(ingress.run(opening.clone(), counters.clone()));
        }
        tasks.spawn(follow_addresses(parts.clone(), egress, listening.clone(), admin_path));
        tasks.spawn(async move { flows.watch().await });
        tasks.spawn(renew::renew(parts.clone()));
        let control = Arc::new(control::NodeControl::new(parts.clone(), opening));
        tasks.spawn(admin::serve(admin_socket, control, std::future::pending()));

        tracing::info!(
            node = %own, mesh = %parts.credentials.mesh(), listen = %ffmesh_udp::canonical(udp_address),
            accepts = parts.config.quic.listen_port.is_some(), "node started"
        );
        for (proxy, address) in
            parts.config.proxies.iter().filter(|proxy| proxy.is_served()).map(|p| (p, &p.listen))
        {
            tracing::info!(proxy = ?proxy.name, listen = %address, "proxy listens");
        }
        Ok(Self { parts, tasks, listening, _lock: lock })
    }

    /// The node's id.
    pub fn id(&self) -> NodeId {
        self.parts.credentials.node_id()
    }

    /// TCP addresses of its proxies, in the file's order.
    pub fn listening(&self) -> &[SocketAddr] {
        &self.listening
    }

    /// Ends the node: no new flows, open ones are ended as drained, the neighbours are told.
    pub async fn stop(mut self) {
        self.parts.flows.drain();
        self.parts.transport.close(Reason::Drained.code(), "the node is shutting down", CLOSE_LIMIT).await;
        self.tasks.shutdown().await;
    }
}

fn capabilities(config: &Config, credentials: &Credentials) -> Vec<Capability> {
    let identity = credentials.identity();
    let relay = (identity.relay && config.mesh.transit).then_some(Capability::Relay);
    relay.into_iter().chain(identity.issuer.then_some(Capability::Issuer)).collect()
}

/// This node's own listeners, with the addresses that the machine has now.
fn own_listeners(config: &Config, listening: &[SocketAddr], admin_path: &Path) -> io::Result<Own> {
    let listeners = listening.iter().copied().chain(config.admin.listen).collect();
    let unix = config.proxies.iter().filter_map(|proxy| match &proxy.listen {
        Listen::Unix(path) => Some(path.clone()),
        Listen::Port(..) => None,
    });
    egress::own(listeners, &unix.chain([admin_path.to_owned()]).collect::<Vec<_>>())
}

/// Keeps the policy's picture of this machine's addresses: what a wildcard listener listens on changes with them.
async fn follow_addresses(
    parts: Arc<Parts>,
    egress: Arc<Egress>,
    listening: Vec<SocketAddr>,
    admin_path: PathBuf,
) {
    let mut last = None;
    loop {
        match own_listeners(&parts.config, &listening, &admin_path) {
            Ok(own) if last.as_ref() != Some(&own) => {
                egress.set_policy(egress::policy(&parts.config, own.clone()));
                last = Some(own);
            }
            Ok(_) => {}
            Err(error) => tracing::warn!("addresses of this machine cannot be read: {error}"),
        }
        tokio::time::sleep(ADDRESS_INTERVAL).await;
    }
}

fn state_error(state: &StateDir, error: io::Error) -> StartError {
    StartError::Admin { path: state.path().to_owned(), error }
}
