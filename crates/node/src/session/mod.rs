//! Sessions: the end-to-end connection of two nodes, which carries their flows.
//!
//! ```text
//! to(node) ─▶ dial ──┐                one task each:
//!                    ├─ Session ─┬─ supervise: its circuits and their probes, which circuit each slot takes (`steering`),
//! accept() ──────────┘           │             QUIC's paths (`paths`), and its end (`upkeep`)
//!                                └─ handed to `opened`, whose owner accepts its streams
//! ```
//!
//! A session outlives the links and relays that its packets take: with no route left it waits for `mesh.hold`.

mod ahead;
mod approach;
mod dial;
mod paths;
mod seal;
mod slots;
mod steering;
mod supervise;
mod trace;
mod upkeep;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use ffmesh_api::Change;
use ffmesh_core::id::NodeId;
use ffmesh_core::reason::Reason;
use ffmesh_core::steer::{Path, RouteReport, RouteState};
use noq::{Connection, ConnectionError, Incoming, VarInt};
use tokio::sync::{Notify, Semaphore, SemaphorePermit, mpsc, watch};
use tokio::time::timeout;

pub use ahead::MAX_AHEAD;
use approach::Approach;

use crate::bucket::Bucket;
use crate::driver::{Driver, RoutingTable};
use crate::events::Events;
use crate::identity::{Certificates, Credentials, KnownKeys, PeerIdentity};
use crate::link::Link;
use crate::socket::{Labels, SlotAddr};
use crate::transport::{HANDSHAKE_TIMEOUT, Kind, Transport};

/// Sessions that one node may have open with this one: the current, one retired, one that takes over.
const MAX_SESSIONS: usize = 3;
/// Echoes of one session at once.
const MAX_ECHOES: usize = 16;

/// Streams that one node may open a second, on average and at once.
const MAX_OPENS_PER_SECOND: u32 = 20_000;

/// What sessions need of their node.
#[derive(Debug, Clone)]
pub struct SessionContext {
    /// The QUIC endpoint
    pub transport: Transport,
    /// Who this node is
    pub credentials: Arc<Credentials>,
    /// The certificates of the mesh's nodes
    pub certificates: Certificates,
    /// The keys that ids are bound to
    pub known_keys: Arc<KnownKeys>,
    /// This node's boot epoch
    pub epoch: u64,
    /// Sets up circuits and knows the routes
    pub driver: Driver,
    /// The socket's labels
    pub labels: Labels,
    /// `mesh.hold`, as it is now
    pub hold: watch::Receiver<Duration>,
    /// The nodes that sessions are kept with before a flow asks, at most [`MAX_AHEAD`], as it is now
    pub ahead: watch::Receiver<Vec<NodeId>>,
    /// Where new sessions go, dialled and accepted
    pub opened: mpsc::Sender<Session>,
    /// Times that a session left a route that had died
    pub failovers: Arc<AtomicU64>,
    /// Where failovers are published, and that a session begins or ends
    pub changes: Events,
}

/// Why there is no session with a node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct SessionError {
    /// For the flow that asked
    pub reason: Reason,
    /// For the log
    pub detail: String,
}

/// A session with a node that has proved who it is. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Session(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    peer: PeerIdentity,
    /// The peer's boot epoch, once it has told.
    epoch: OnceLock<u64>,
    /// The epoch of the peer's record when the session was opened.
    recorded: Option<u64>,
    /// Names it in CIRCUIT_OPEN; set where this node dialled it, and so sets up its circuits.
    dialled: Option<u64>,
    connection: Connection,
    /// Flows that are open.
    flows: AtomicU64,
    /// Set once another session with the node took over.
    retired: watch::Sender<bool>,
    /// Why this node closed it.
    closed: OnceLock<(Reason, &'static str)>,
    opens: Arc<Mutex<Bucket>>,
    echoes: Semaphore,
    /// How its routes fare.
    routes: Mutex<Vec<RouteReport>>,
}

impl Session {
    fn new(
        connection: Connection,
        peer: PeerIdentity,
        recorded: Option<u64>,
        dialled: Option<u64>,
        opens: Arc<Mutex<Bucket>>,
    ) -> Self {
        Self(Arc::new(Inner {
            peer,
            epoch: OnceLock::new(),
            recorded,
            dialled,
            connection,
            flows: AtomicU64::new(0),
            retired: watch::Sender::new(false),
            closed: OnceLock::new(),
            opens,
            echoes: Semaphore::new(MAX_ECHOES),
            routes: Mutex::default(),
        }))
    }

    /// Who is at the other end, as its certificate says.
    pub fn peer(&self) -> &PeerIdentity {
        &self.0.peer
    }

    /// Its QUIC connection, for streams.
    pub fn connection(&self) -> &Connection {
        &self.0.connection
    }

    /// Whether this node dialled it.
    pub fn dialled(&self) -> bool {
        self.0.dialled.is_some()
    }

    /// Counts a flow for as long as the guard lives: a retired session ends after its last flow.
    pub fn flow(&self) -> FlowOfSession {
        self.0.flows.fetch_add(1, Ordering::Relaxed);
        FlowOfSession(self.clone())
    }

    /// Takes one of the streams that its node may open a second.
    pub fn take_open(&self) -> bool {
        lock(&self.0.opens).take()
    }

    /// Leave to echo, for as long as the permit lives.
    pub fn echo_permit(&self) -> Option<SemaphorePermit<'_>> {
        self.0.echoes.try_acquire().ok()
    }

    /// Ends it, and with it its flows, for this reason on both nodes.
    pub fn close(&self, reason: Reason, text: &'static str) {
        let _ = self.0.closed.set((reason, text)); // the first reason counts
        self.0.connection.close(VarInt::from_u32(reason.code()), text.as_bytes());
    }

    /// Why its flows end, now that its connection has ended with `error`.
    pub fn end(&self, error: &ConnectionError) -> (Reason, Option<String>) {
        if let Some((reason, text)) = self.0.closed.get() {
            return (*reason, Some((*text).to_owned()));
        }
        let reason = match error {
            ConnectionError::ApplicationClosed(close) => {
                match Reason::from_code(close.error_code.into_inner()) {
                    Reason::Done | Reason::Reset => Reason::Lost,
                    reason => reason,
                }
            }
            ConnectionError::TimedOut => Reason::NoRoute,
            _ => Reason::Lost,
        };
        (reason, Some(format!("the session ended: {}", end_text(error))))
    }

    fn is_open(&self) -> bool {
        self.0.connection.close_reason().is_none()
    }

    /// Whether the node has started anew since, as its epoch now is `epoch`.
    fn is_stale(&self, epoch: Option<u64>) -> bool {
        started_anew(self.0.epoch.get().copied(), epoch)
    }

    /// Whether the node seems to have started anew since: a node that was killed before it told its epoch never will. A
    /// session that was opened faster than the record of its node came seems so as well, until its first probe.
    fn seems_stale(&self, epoch: Option<u64>) -> bool {
        started_anew(self.0.epoch.get().copied().or(self.0.recorded), epoch)
    }

    fn is_idle(&self) -> bool {
        self.0.flows.load(Ordering::Relaxed) == 0
    }

    /// How its routes fare; nothing where the other node dialled it and chooses them.
    fn routes(&self) -> Vec<RouteReport> {
        lock(&self.0.routes).clone()
    }
}

/// A flow that is counted; see [`Session::flow`].
#[derive(Debug)]
pub struct FlowOfSession(Session);

impl Drop for FlowOfSession {
    fn drop(&mut self) {
        self.0.0.flows.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The node's sessions. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Sessions {
    context: SessionContext,
    table: watch::Receiver<Arc<RoutingTable>>,
    /// Places stay: there are no more than nodes of the mesh and targets that this node's users name.
    nodes: Arc<Mutex<HashMap<NodeId, Arc<Place>>>>,
}

/// Where the session with one node is kept.
#[derive(Debug)]
struct Place {
    current: Mutex<Option<Session>>,
    /// All that are open, oldest first: the current one, and retired ones that still have flows.
    open: Mutex<Vec<Session>>,
    /// What the node may open a second, over all its sessions.
    opens: Arc<Mutex<Bucket>>,
    /// The dial under way, which all who wait for the session share.
    dial: Mutex<Option<dial::Outcome>>,
    /// Told when a session has become the current one.
    entered: Notify,
}

impl Default for Place {
    fn default() -> Self {
        Self {
            current: Mutex::default(),
            open: Mutex::default(),
            opens: Arc::new(Mutex::new(Bucket::new(MAX_OPENS_PER_SECOND))),
            dial: Mutex::default(),
            entered: Notify::new(),
        }
    }
}

impl Sessions {
    /// None yet.
    pub fn new(context: SessionContext) -> Self {
        let table = context.driver.table();
        Self { context, table, nodes: Arc::default() }
    }

    /// The session with a node, dialled if there is none. Waits up to 3 s for a route, and for the dial.
    pub async fn to(&self, node: &NodeId) -> Result<Session, SessionError> {
        if *node == self.context.credentials.node_id() {
            let detail = format!("{node} is this node: a flow to its own services needs no mesh");
            return Err(SessionError { reason: Reason::NoRoute, detail });
        }
        // An established session without a route takes no new flows: they would wait for `mesh.hold`.
        if self.table.borrow().has_route(node)
            && let Some(session) = self.current(node)
        {
            return Ok(session);
        }
        self.dialled(node).await
    }

    /// Accepts a session that another node dials, and serves it.
    pub async fn accept(&self, incoming: Incoming, slot: SlotAddr) -> Result<(), String> {
        if slot.index() != 0 {
            incoming.ignore(); // a session begins on its first slot
            return Err("it began on another slot than the first".to_owned());
        }
        let Some((node, ends)) = self.context.driver.claim(slot.session()).await else {
            incoming.ignore();
            return Err("the circuit it came by is gone, or its session has begun already".to_owned());
        };
        let mut approach = Approach::new(self.context.labels.clone(), ends);
        let connecting =
            self.context.transport.accept_as(incoming, Kind::Session(slot)).map_err(|e| e.to_string())?;
        let accepted = timeout(HANDSHAKE_TIMEOUT, approach.until(connecting)).await;
        let accepted = match accepted {
            Ok(Ok(connection)) => self.accepted(&node, &connection).map(|peer| (connection, peer)),
            Ok(Err(e)) => Err(end_text(&e)),
            Err(_) => Err("no handshake within 5 s".to_owned()),
        };
        let (connection, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(why) => {
                approach.linger();
                return Err(format!("session of {node}: {why}"));
            }
        };
        let opens = self.place(&node).opens.clone();
        let recorded = self.table.borrow().epoch(&peer.id);
        self.enter(Session::new(connection, peer, recorded, None, opens), approach);
        Ok(())
    }

    /// Who a session is with that came by a circuit of `node`.
    fn accepted(&self, node: &NodeId, connection: &Connection) -> Result<PeerIdentity, String> {
        let refused = |why: String| {
            connection
                .close(VarInt::from_u32(Reason::Denied.code()), b"not the node that set up the circuit");
            why
        };
        let peer = PeerIdentity::of(connection, &self.context.credentials.mesh());
        let peer = peer.map_err(|e| refused(e.to_string()))?;
        if peer.id != *node {
            return Err(refused(format!("{} came by its circuit", peer.id)));
        }
        self.check_key(&peer).map_err(refused)?;
        Ok(peer)
    }

    /// Whether a node has the key that its link, the mesh and this node's memory have of it.
    fn check_key(&self, peer: &PeerIdentity) -> Result<(), String> {
        let known = self.table.borrow().key(&peer.id);
        if let Some(known) = known.filter(|known| *known != peer.key) {
            return Err(format!("it came with the key {}, and the mesh knows {known}", peer.key));
        }
        self.context.known_keys.check(peer).map_err(|conflict| conflict.to_string())
    }

    /// Ends all of them.
    pub fn close(&self, reason: Reason, text: &'static str) {
        let places: Vec<_> = self.lock().values().cloned().collect();
        for session in places.iter().flat_map(|place| lock(&place.open).clone()) {
            session.close(reason, text);
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        let places: Vec<_> = self.lock().values().cloned().collect();
        places.iter().filter(|place| lock(&place.current).as_ref().is_some_and(Session::is_open)).count()
    }

    /// What a session's node is by its latest certificate: that of its link or in the mesh, where it has renewed it since.
    pub fn identity(&self, session: &Session) -> PeerIdentity {
        let table = self.table.borrow();
        let linked = table.neighbors.get(&session.peer().id).map(Link::peer);
        let linked = linked.filter(|linked| linked.key == session.peer().key).cloned();
        let known = linked.or_else(|| self.context.certificates.identity_of(&session.peer().key));
        known.filter(|known| known.issued > session.peer().issued).unwrap_or_else(|| session.peer().clone())
    }

    /// How the routes fare that sessions use, by the node that they lead to.
    pub fn route_reports(&self) -> HashMap<NodeId, Vec<RouteReport>> {
        let places: Vec<_> = self.lock().iter().map(|(node, place)| (node.clone(), place.clone())).collect();
        let current = |(node, place): (NodeId, Arc<Place>)| {
            let session = lock(&place.current).clone().filter(Session::is_open)?;
            Some((node, session.routes()))
        };
        places.into_iter().filter_map(current).collect()
    }

    /// The route that the traffic of the session with a node takes; none where there is no session, or the other node
    /// chooses.
    pub fn route_in_use(&self, node: &NodeId) -> Option<Path> {
        let reports = self.current(node)?.routes();
        reports.into_iter().find(|report| report.state == RouteState::InUse).map(|report| report.path)
    }

    /// Times that a session left a route that had died.
    pub fn failovers(&self) -> u64 {
        self.context.failovers.load(Ordering::Relaxed)
    }

    /// The driver, for what concerns the mesh as a whole.
    pub fn driver(&self) -> &Driver {
        &self.context.driver
    }

    /// The routing table as it is now.
    pub fn table(&self) -> Arc<RoutingTable> {
        self.table.borrow().clone()
    }

    /// The session there is with a node, unless the node has restarted since.
    fn current(&self, node: &NodeId) -> Option<Session> {
        let epoch = self.table.borrow().epoch(node);
        self.latest(node).filter(|session| !session.seems_stale(epoch))
    }

    /// The session there is with a node, as long as its connection is not closed.
    fn latest(&self, node: &NodeId) -> Option<Session> {
        let place = self.lock().get(node)?.clone();
        lock(&place.current).clone().filter(Session::is_open)
    }

    fn place(&self, node: &NodeId) -> Arc<Place> {
        self.lock().entry(node.clone()).or_default().clone()
    }

    /// Makes a session the current one with its node, unless the one there is stays, and starts to serve it.
    fn enter(&self, session: Session, approach: Approach) {
        let place = self.place(&session.peer().id);
        let is_current = {
            let mut current = lock(&place.current);
            let takes_over = current.as_ref().is_none_or(|old| self.prefers(old, &session));
            let retired = if takes_over { current.replace(session.clone()) } else { Some(session.clone()) };
            if let Some(retired) = retired {
                retired.0.retired.send_replace(true);
            }
            let mut open = lock(&place.open);
            open.retain(Session::is_open);
            open.push(session.clone());
            if open.len() > MAX_SESSIONS {
                let current = current.as_ref().map(|current| Arc::as_ptr(&current.0));
                // One without flows first.
                let mut spare: Vec<_> =
                    open.iter().filter(|open| Some(Arc::as_ptr(&open.0)) != current).collect();
                spare.sort_by_key(|open| !open.is_idle());
                if let Some(oldest) = spare.first() {
                    oldest.close(Reason::Limit, "too many sessions with one node");
                }
            }
            takes_over
        };
        tracing::info!(peer = %session.peer().id, dialled = session.dialled(), "session open");
        if is_current {
            place.entered.notify_waiters();
            let node_id = session.peer().id.clone();
            self.context.changes.publish(Change::Session { node_id, open: true });
        }
        let (context, table) = (self.context.clone(), self.table.clone());
        tokio::spawn(async move {
            // Its streams are accepted also when it is retired at once: the other node may not know yet.
            if context.opened.send(session.clone()).await.is_ok() {
                supervise::supervise(context, table, session, approach).await;
            }
        });
    }

    /// Whether `new` takes over from `old`: when both nodes dialled, the session of the lower id stays; a second one
    /// from the same side means that this side has lost the first.
    fn prefers(&self, old: &Session, new: &Session) -> bool {
        if !old.is_open()
            || old.seems_stale(self.table.borrow().epoch(&new.peer().id))
            || old.dialled() == new.dialled()
        {
            return true;
        }
        new.dialled() == (self.context.credentials.node_id() < new.peer().id)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<NodeId, Arc<Place>>> {
        lock(&self.nodes)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn started_anew(then: Option<u64>, now: Option<u64>) -> bool {
    matches!((then, now), (Some(then), Some(now)) if then < now)
}

/// Why a session's connection ended, for the log.
fn end_text(error: &ConnectionError) -> String {
    match error {
        ConnectionError::ApplicationClosed(close) => {
            format!("the other node closed it: {}", String::from_utf8_lossy(&close.reason).escape_debug())
        }
        ConnectionError::Reset => "the other node restarted".to_owned(),
        ConnectionError::TimedOut => "no route for longer than mesh.hold".to_owned(),
        other => other.to_string().escape_debug().to_string(),
    }
}
