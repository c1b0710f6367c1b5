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
//!  admin (one a request) ─▶ settings ─▶ ingress, dial, driver, egress, flows
//!  renew    load    flow watch    history    sessions ahead    log ─▶ events
//! ```
//!
//! What brings flows and links is in [`JoinSet`]s of the node. The tasks of links, sessions and flows end with their
//! connections, which the node closes when it is dropped.

mod accept;
mod bind;
mod control;
mod drain;
mod liveness;
mod load;
mod measure;
mod renew;
mod routes;
mod settings;
mod speedtest;
mod topology;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use ffmesh_core::id::NodeId;
use ffmesh_core::lsdb;
use ffmesh_core::mesh::{self, Mesh};
use ffmesh_core::policy::{Own, Policy};
use ffmesh_core::reason::Reason;
use ffmesh_core::target::Target;
use ffmesh_core::wire::Capability;
use jiff::Timestamp;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::admin;
use crate::config::{self, Config, Loaded};
use crate::driver::{Driver, DriverConfig, Started, Terms};
use crate::egress::Egress;
use crate::events::Events;
use crate::flow::{FlowLimits, Flows, OpenContext, ServeContext, Speedtests, serve};
use crate::history::History;
use crate::identity::{Certificates, Credentials, Issuer, KnownKeys, RecordSigner};
use crate::ingress::Ingress;
use crate::journal::Journal;
use crate::link::{self, LinkContext, Upstreams, WantedDialler, dial_wanted};
use crate::metrics::Counters;
use crate::repeats::Repeats;
use crate::session::{Session, SessionContext, Sessions};
use crate::socket::Labels;
use crate::state::{StateDir, StateError, StateLock};
use crate::store::Store;
use crate::transport::Transport;

use bind::Bound;
pub use bind::StartError;
pub use liveness::Liveness;
use settings::{InForce, Owner, Plan, Settings};

/// Events of links that may wait for the driver.
const LINK_EVENTS: usize = 1024;
/// New sessions that may wait to be served.
const OPENED_SESSIONS: usize = 64;
/// What the other nodes are told when this one ends.
const STOPPING: &str = "the node is shutting down";
/// How long closed sessions have to tell so before their links are closed.
const SESSION_CLOSE_LEAD: Duration = Duration::from_millis(50);
/// How long the neighbours are given to take in that this node ends.
const CLOSE_LIMIT: Duration = Duration::from_millis(500);

/// A running node. Dropping it ends it at once; [`stop`](Self::stop) tells the neighbours.
#[derive(Debug)]
pub struct Node {
    parts: Arc<Parts>,
    tasks: JoinSet<()>,
    /// Keeps other nodes out of the state directory.
    _lock: StateLock,
}

/// What the admin API looks at.
#[derive(Debug)]
struct Parts {
    /// The file's configuration in force; replaced as a whole by `settings`
    config: watch::Sender<Arc<Config>>,
    /// What has come of it; the same
    in_force: ArcSwap<InForce>,
    settings: Settings,
    state: StateDir,
    store: Store,
    history: History,
    events: Events,
    /// The process's log
    journal: Journal,
    started: Timestamp,
    udp: SocketAddr,
    admin_path: PathBuf,
    credentials: Arc<Credentials>,
    transport: Transport,
    sessions: Sessions,
    labels: Labels,
    flows: Flows,
    egress: Arc<Egress>,
    wanted: WantedDialler,
    counters: Arc<Counters>,
    issuer: Option<Arc<Issuer>>,
    repeats: Arc<Repeats>,
    /// Whether somebody has asked that the node drains
    drain_asked: watch::Sender<bool>,
}

impl Node {
    /// Starts a node: binds everything first, so that what is taken is known at once, then serves. Needs a tokio
    /// runtime. `journal` is what the process logs to.
    pub fn start(loaded: impl Into<Loaded>, state: StateDir, journal: Journal) -> Result<Self, StartError> {
        let loaded = loaded.into();
        let lock = state.lock()?;
        let credentials = Arc::new(Credentials::load(&state)?);
        let issuer = Issuer::load(&state)?.map(Arc::new);
        if let Some(issuer) = issuer.as_ref().filter(|_| credentials.expires() <= Timestamp::now()) {
            issuer.renew_self(&credentials)?; // it was off for longer than its certificate lived
        }
        credentials.check(loaded.config.node_id.as_ref(), Timestamp::now())?;
        let load = |store: &Store| {
            Ok((Plan::new(&loaded.config, store)?, History::load(store.clone(), Timestamp::now())?))
        };
        let (store, (plan, history)) = Store::open(&state, load)?;
        let bound = Bound::bind(&loaded.config, &plan, &state)?;
        Self::serve(loaded, plan, state, store, history, journal, lock, credentials, issuer, bound)
    }

    #[expect(clippy::too_many_arguments, reason = "what `start` has made, used once")]
    fn serve(
        Loaded { config, warnings }: Loaded,
        plan: Plan,
        state: StateDir,
        store: Store,
        history: History,
        journal: Journal,
        lock: StateLock,
        credentials: Arc<Credentials>,
        issuer: Option<Arc<Issuer>>,
        bound: Bound,
    ) -> Result<Self, StartError> {
        let counters = Arc::new(Counters::default());
        let auth = admin_auth(&config, &state, &counters)?;
        let labels = Labels::default();
        let transport = Transport::new(Arc::new(bound.udp), labels.clone(), &credentials, &config)?;
        let (events, link_events) = mpsc::channel(LINK_EVENTS);
        let epoch = state.next_epoch().map_err(|error| StartError::state(&state, error))?;
        let changes = Events::of_run(epoch);
        let known_keys = Arc::new(KnownKeys::load(&state)?);
        let certificates = Certificates::new(credentials.clone(), known_keys.clone())?;
        let terms = terms(&config, plan.services());
        let addresses = where_to_dial(&config, bound.udp_address);
        let Started { driver, linked, wanted } = Driver::start(
            DriverConfig {
                own: credentials.node_id(),
                relay: credentials.identity().relay,
                known_keys: known_keys.clone(),
                certificates: certificates.clone(),
                mesh: mesh(&terms, &credentials, addresses, epoch, &certificates)?,
                terms,
                labels: labels.clone(),
                counters: counters.clone(),
                changes: changes.clone(),
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
            changes: changes.clone(),
        };
        let (opened, new_sessions) = mpsc::channel(OPENED_SESSIONS);
        let (hold, hold_now) = watch::channel(config.mesh.hold);
        let (ahead, ahead_now) = watch::channel(Vec::new());
        let sessions = Sessions::new(SessionContext {
            transport: transport.clone(),
            credentials: credentials.clone(),
            certificates,
            known_keys: known_keys.clone(),
            epoch,
            driver,
            labels: labels.clone(),
            hold: hold_now,
            ahead: ahead_now,
            opened,
            failovers: Arc::default(),
            changes: changes.clone(),
        });
        let (settings, commands) = settings::commands();
        let listening = bound.proxies.0.iter().filter_map(Ingress::address).collect();
        let parts = Arc::new(Parts {
            started: Timestamp::now(),
            udp: bound.udp_address,
            admin_path: bound.admin_path,
            credentials,
            transport,
            flows: Flows::new(flow_limits(&config), counters.clone()),
            // Nothing, until `settings` says what.
            egress: Arc::new(Egress::new(Policy::new(Some(Vec::new()), Vec::new(), Own::default()))),
            sessions,
            labels,
            wanted: WantedDialler::new(&config.quic.upstreams),
            counters,
            issuer,
            repeats: Arc::default(),
            drain_asked: watch::Sender::new(false),
            state,
            history,
            store,
            events: changes,
            journal,
            in_force: ArcSwap::from_pointee(plan.in_force(listening, warnings)),
            settings,
            config: watch::Sender::new(Arc::new(config)),
        });
        let opening = OpenContext { sessions: parts.sessions.clone(), flows: parts.flows.clone() };
        let upstreams = Upstreams::new(links.clone(), linked.clone());
        let owner =
            Owner::start(parts.clone(), plan, bound.proxies, opening.clone(), upstreams, (hold, ahead))
                .map_err(|error| StartError::state(&parts.state, error))?;

        let mut tasks = JoinSet::new();
        tasks.spawn(accept::accept_loop(parts.clone(), links.clone()));
        tasks.spawn(serve_sessions(parts.clone(), new_sessions));
        tasks.spawn(dial_wanted(links, parts.wanted.clone(), wanted, linked));
        tasks.spawn(owner.run(commands));
        let flows = parts.flows.clone();
        tasks.spawn(async move { flows.watch().await });
        tasks.spawn(renew::renew(parts.clone()));
        tasks.spawn(parts.journal.publish_to(parts.events.clone()));
        tasks.spawn(measure::sample(parts.clone()));
        let sessions = parts.sessions.clone();
        tasks.spawn(async move { sessions.keep_ahead().await });
        tasks.spawn(load::watch(parts.sessions.driver().clone()));
        let control = Arc::new(control::NodeControl::new(parts.clone(), opening));
        serve_admin(&mut tasks, bound.admin_socket, bound.admin_tcp, control, auth);
        parts.announce();
        Ok(Self { parts, tasks, _lock: lock })
    }

    /// The node's id.
    pub fn id(&self) -> NodeId {
        self.parts.credentials.node_id()
    }

    /// The configuration in force, as it is and as it changes.
    pub fn config(&self) -> watch::Receiver<Arc<Config>> {
        self.parts.config.subscribe()
    }

    /// Applies the configuration file again.
    ///
    /// # Errors
    /// What is wrong with the file; then nothing has changed.
    pub async fn reload(&self) -> Result<ffmesh_api::Reload, ffmesh_api::Error> {
        self.parts.settings.reload().await
    }

    /// Whether this node does its work, for a watchdog.
    pub fn liveness(&self) -> Liveness {
        Liveness::new(self.parts.sessions.driver().clone())
    }

    /// How long flows and transit have to end at [`stop`](Self::stop): `mesh.drain_timeout`.
    pub fn drain_timeout(&self) -> Duration {
        self.parts.config().mesh.drain_timeout
    }

    /// Waits until somebody asks over the admin API that the node drains. It refuses new flows from then on; the rest
    /// is up to whoever runs it: call [`stop`](Self::stop), and end.
    ///
    /// Never comes back when the node is dropped before that.
    pub fn drain_asked(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut asked = self.parts.drain_asked.subscribe();
        async move {
            if asked.wait_for(|asked| *asked).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Ends the node: no new flows and circuits; open flows have `mesh.drain_timeout` to end, and those of others to take
    /// other routes; the mesh is told.
    pub async fn stop(mut self) {
        let driver = self.parts.sessions.driver();
        self.parts.flows.drain();
        let flows_open = self.parts.flows.totals().0;
        self.parts.events.publish(ffmesh_api::Change::Drain { flows_open });
        driver.drain().await;
        self.parts.settings.close_proxies().await;
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
        let history = self.parts.history.clone();
        let written = tokio::task::spawn_blocking(move || history.flush());
        if let Ok(Err(error)) = written.await {
            tracing::warn!("the history of the last minute is not stored: {error}");
        }
        // Sessions first: their last packets travel behind labels that go with the links.
        self.parts.sessions.close(Reason::Drained, STOPPING);
        tokio::time::sleep(SESSION_CLOSE_LEAD).await;
        self.parts.transport.close(link::code::GOODBYE, STOPPING, CLOSE_LIMIT).await;
    }
}

impl Parts {
    /// The file's configuration in force.
    fn config(&self) -> Arc<Config> {
        self.config.borrow().clone()
    }

    fn announce(&self) {
        tracing::info!(
            node = %self.credentials.node_id(), mesh = %self.credentials.mesh(),
            listen = %ffmesh_udp::canonical(self.udp), accepts = self.config().quic.listen_port.is_some(), "node started"
        );
        let in_force = self.in_force.load();
        for proxy in in_force.proxies.iter().filter(|proxy| proxy.error.is_none()) {
            tracing::info!(proxy = ?proxy.item.name, listen = %proxy.item.listen, "proxy listens");
        }
        if let Some(listen) = self.config().admin.listen {
            tracing::info!(%listen, "admin API listens; `ffmesh console` opens the console");
            admin::warn_of_clear_text(listen);
        }
        // The first, Go, FFMesh bound all interfaces: who comes from there would look for the fault elsewhere.
        if in_force.listening.iter().any(|address| address.ip().is_loopback()) {
            tracing::info!(
                "proxies on a loopback address are reachable from this machine only; \
                 `local_address` of a proxy, such as 0.0.0.0, opens it to others"
            );
        }
    }
}

/// Who may use the admin API over TCP; none where it is not offered there.
fn admin_auth(
    config: &Config,
    state: &StateDir,
    counters: &Arc<Counters>,
) -> Result<Option<Arc<admin::Auth>>, StateError> {
    let auth = |listen| admin::Auth::new(state, &config.admin, listen, counters.clone());
    Ok(config.admin.listen.map(auth).transpose()?.map(Arc::new))
}

fn serve_admin(
    tasks: &mut JoinSet<()>,
    socket: UnixListener,
    tcp: Option<TcpListener>,
    control: Arc<dyn admin::Control>,
    auth: Option<Arc<admin::Auth>>,
) {
    if let (Some(listener), Some(auth)) = (tcp, auth.clone()) {
        tasks.spawn(admin::serve_tcp(listener, control.clone(), auth, std::future::pending()));
    }
    tasks.spawn(admin::serve(socket, control, auth, std::future::pending()));
}

/// Serves the streams of each session in a task of its own.
async fn serve_sessions(parts: Arc<Parts>, mut sessions: mpsc::Receiver<Session>) {
    let context = ServeContext {
        sessions: parts.sessions.clone(),
        flows: parts.flows.clone(),
        egress: parts.egress.clone(),
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

/// What the configuration says of links and transit.
fn terms<'a>(config: &Config, services: impl IntoIterator<Item = &'a config::Service>) -> Terms {
    let service = |service: &config::Service| lsdb::Service {
        name: service.name.clone(),
        protocol: u8::from(service.protocol == config::Protocol::Udp),
        attachment: String::new(),
    };
    Terms {
        max_links: config.quic.max_links as usize,
        upstreams: upstream_costs(config),
        transit: config.mesh.transit,
        cost: config.mesh.cost.saturating_mul(1_000),
        services: services.into_iter().map(service).collect(),
    }
}

/// The mesh's control plane, with what this node says about itself.
fn mesh(
    terms: &Terms,
    credentials: &Credentials,
    addresses: Vec<Target>,
    epoch: u64,
    certificates: &Certificates,
) -> Result<Mesh, StartError> {
    let identity = credentials.identity();
    let config = mesh::Config {
        relay: identity.relay,
        issuer: identity.issuer,
        transit: terms.transit,
        cost: terms.cost,
        addresses,
        services: terms.services.clone(),
    };
    let signer = Box::new(RecordSigner::new(credentials)?);
    let verifier = Box::new(certificates.clone());
    Ok(Mesh::new(config, credentials.node_id(), epoch, signer, verifier, rand::random()))
}

/// The limits over all flows.
fn flow_limits(config: &Config) -> FlowLimits {
    FlowLimits {
        flows: config.quic.max_flows.into(),
        memory: config.quic.flow_memory,
        window: config.quic.stream_window.into(),
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
