//! Sessions: the end-to-end connection of two nodes, which carries their flows.
//!
//! ```text
//! to(node) ──┐                        one task each:
//!            ├─ Session ─┬─ supervise: points the slot at the current route, ends the session when its node
//! accept() ──┘           │             restarted, when it was without a route for too long, or when it is retired
//!                        └─ handed to `opened`, whose owner accepts its streams
//! ```
//!
//! A session outlives the links that its packets take: with no route left it waits for `mesh.hold`.

mod supervise;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use ffmesh_core::id::NodeId;
use ffmesh_core::reason::Reason;
use noq::{Connection, ConnectionError, Incoming, VarInt};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout, timeout_at};

use crate::driver::{Circuit, Driver, Route, RoutingTable};
use crate::identity::{Credentials, PeerIdentity};
use crate::socket::{Labels, SlotAddr};
use crate::transport::{HANDSHAKE_TIMEOUT, Kind, Transport, server_name};

/// How long a flow to a node that cannot be reached just now waits for a route.
pub const ROUTE_WAIT: Duration = Duration::from_millis(2_900);
/// The slot that this version uses: the best route.
const FIRST_SLOT: u8 = 0;

/// What sessions need of their node.
#[derive(Debug, Clone)]
pub struct SessionContext {
    /// The QUIC endpoint
    pub transport: Transport,
    /// Who this node is
    pub credentials: Arc<Credentials>,
    /// Sets up circuits and knows the routes
    pub driver: Driver,
    /// The socket's labels
    pub labels: Labels,
    /// `mesh.hold`
    pub hold: Duration,
    /// Where new sessions go, dialled and accepted
    pub opened: mpsc::Sender<Session>,
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
    id: u64,
    peer: PeerIdentity,
    /// The peer's boot epoch when the session was made.
    epoch: Option<u64>,
    /// This node's slot, where this node dialled; with the circuit that it points at.
    dialled: Option<(SlotAddr, Mutex<Option<Circuit>>)>,
    connection: Connection,
    /// Flows that are open.
    flows: AtomicU64,
    /// Set once another session with the node took over.
    retired: watch::Sender<bool>,
    /// Why this node closed it.
    closed: OnceLock<(Reason, &'static str)>,
}

impl Session {
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
}

/// A flow that is counted; see [`Session::flow`].
#[derive(Debug)]
pub struct FlowOfSession(Session);

impl Drop for FlowOfSession {
    fn drop(&mut self) {
        self.0.0.flows.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The node's sessions.
#[derive(Debug, Clone)]
pub struct Sessions {
    context: SessionContext,
    table: watch::Receiver<Arc<RoutingTable>>,
    nodes: Arc<Mutex<HashMap<NodeId, Arc<Place>>>>,
}

/// Where the session with one node is kept.
#[derive(Debug, Default)]
struct Place {
    current: Mutex<Option<Session>>,
    /// Held while the session is dialled, so that it is dialled once.
    dialling: tokio::sync::Mutex<()>,
}

impl Place {
    fn get(&self) -> Option<Session> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone().filter(Session::is_open)
    }
}

impl Sessions {
    /// None yet.
    pub fn new(context: SessionContext) -> Self {
        let table = context.driver.table();
        Self { context, table, nodes: Arc::default() }
    }

    /// The session with a node, dialled if there is none. Waits [`ROUTE_WAIT`] for a route.
    pub async fn to(&self, node: &NodeId) -> Result<Session, SessionError> {
        if *node == self.context.credentials.node_id() {
            let detail = format!("{node} is this node: a flow to its own services needs no mesh");
            return Err(SessionError { reason: Reason::NoRoute, detail });
        }
        let route = self.route(node).await?;
        // Places stay: there are no more than there are nodes with routes.
        let place = self.lock().entry(node.clone()).or_default().clone();
        if let Some(session) = place.get() {
            return Ok(session);
        }
        let _dialling = place.dialling.lock().await;
        if let Some(session) = place.get() {
            return Ok(session); // another flow dialled it, or the node did
        }
        let session = self.dial(node, route).await?;
        self.enter(session);
        place.get().ok_or_else(|| SessionError {
            reason: Reason::NoRoute,
            detail: format!("the session with {node} ended as soon as it was made"),
        })
    }

    /// Accepts a session that another node dials, and serves it.
    pub async fn accept(&self, incoming: Incoming, slot: SlotAddr) -> Result<(), String> {
        let Some((origin, id)) = self.context.driver.origin(slot).await else {
            incoming.ignore();
            return Err("the circuit it came by is gone".to_owned());
        };
        let connecting =
            self.context.transport.accept_as(incoming, Kind::Session(slot)).map_err(|e| e.to_string())?;
        let connection = timeout(HANDSHAKE_TIMEOUT, connecting)
            .await
            .map_err(|_| format!("session of {origin}: no handshake within 5 s"))?
            .map_err(|e| format!("session of {origin}: {}", end_text(&e)))?;
        let peer =
            PeerIdentity::of(&connection, &self.context.credentials.mesh()).map_err(|e| e.to_string())?;
        if peer.id != origin {
            connection
                .close(VarInt::from_u32(Reason::Denied.code()), b"not the node that set up the circuit");
            return Err(format!("{} came by a circuit of {origin}", peer.id));
        }
        let epoch = self.table.borrow().epoch(&peer.id);
        self.enter(Session(Arc::new(Inner {
            id,
            peer,
            epoch,
            dialled: None,
            connection,
            flows: AtomicU64::new(0),
            retired: watch::Sender::new(false),
            closed: OnceLock::new(),
        })));
        Ok(())
    }

    /// Ends all of them.
    pub fn close(&self, reason: Reason, text: &'static str) {
        for session in self.lock().values().filter_map(|place| place.get()) {
            session.close(reason, text);
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.lock().values().filter(|place| place.get().is_some()).count()
    }

    /// The routing table as it is now.
    pub fn table(&self) -> Arc<RoutingTable> {
        self.table.borrow().clone()
    }

    /// The best route to a node, awaited for [`ROUTE_WAIT`].
    async fn route(&self, node: &NodeId) -> Result<Route, SessionError> {
        let best = |table: &Arc<RoutingTable>| table.routes(node).into_iter().next();
        if let Some(route) = best(&self.table.borrow()) {
            return Ok(route);
        }
        let mut table = self.table.clone();
        let found = timeout(ROUTE_WAIT, table.wait_for(|table| best(table).is_some())).await;
        if let Ok(Ok(table)) = &found
            && let Some(route) = best(table)
        {
            return Ok(route);
        }
        drop(found);
        let table = self.table.borrow();
        Err(if table.knows(node) {
            let why = table
                .lost
                .get(node)
                .map(|lost| format!("; it was lost: {}", lost.reason))
                .unwrap_or_default();
            SessionError { reason: Reason::NoRoute, detail: format!("no route to {node}{why}") }
        } else {
            let detail = format!("no node {node} is known: check target_node_id, and that the node is up");
            SessionError { reason: Reason::UnknownNode, detail }
        })
    }

    async fn dial(&self, node: &NodeId, route: Route) -> Result<Session, SessionError> {
        let no_route = |detail: String| SessionError { reason: Reason::NoRoute, detail };
        let id: u64 = rand::random();
        let slot = self.context.labels.new_slot();
        let epoch = self.table.borrow().epoch(node);
        let circuit = self.context.driver.open_circuit(route, id, FIRST_SLOT, slot).await;
        let circuit = circuit.map_err(|e| no_route(format!("no circuit to {node}: {e}")))?;

        let deadline = Instant::now() + HANDSHAKE_TIMEOUT;
        let handshake = async {
            let connecting = self
                .context
                .transport
                .connect_session(slot, &server_name(&self.context.credentials, node))
                .map_err(|e| e.to_string())?;
            let connection = timeout_at(deadline, connecting)
                .await
                .map_err(|_| "no answer within 5 s".to_owned())?
                .map_err(|e| end_text(&e))?;
            let peer =
                PeerIdentity::of(&connection, &self.context.credentials.mesh()).map_err(|e| e.to_string())?;
            Ok::<_, String>((connection, peer))
        };
        match handshake.await {
            Ok((connection, peer)) => Ok(Session(Arc::new(Inner {
                id,
                peer,
                epoch,
                dialled: Some((slot, Mutex::new(Some(circuit)))),
                connection,
                flows: AtomicU64::new(0),
                retired: watch::Sender::new(false),
                closed: OnceLock::new(),
            }))),
            Err(e) => {
                self.context.driver.close_circuit(circuit).await;
                Err(no_route(format!("no session with {node}: {e}")))
            }
        }
    }

    /// Makes a session the current one with its node, unless the one there is stays, and starts to serve it.
    fn enter(&self, session: Session) {
        let place = self.lock().entry(session.peer().id.clone()).or_default().clone();
        {
            let mut current = place.current.lock().unwrap_or_else(PoisonError::into_inner);
            let takes_over = current.as_ref().is_none_or(|old| !old.is_open() || self.prefers(old, &session));
            let retired = if takes_over { current.replace(session.clone()) } else { Some(session.clone()) };
            if let Some(retired) = retired {
                retired.0.retired.send_replace(true);
            }
        }
        tracing::info!(peer = %session.peer().id, dialled = session.dialled(), "session open");
        let (context, table) = (self.context.clone(), self.table.clone());
        tokio::spawn(async move {
            // Its streams are accepted also when it is retired at once: the other node may not know yet.
            if context.opened.send(session.clone()).await.is_ok() {
                supervise::supervise(context, table, session).await;
            }
        });
    }

    /// Whether `new` takes over from `old`: when both nodes dialled, the session of the lower id stays; a second one
    /// from the same side means that this side has lost the first.
    fn prefers(&self, old: &Session, new: &Session) -> bool {
        if old.dialled() == new.dialled() {
            return true;
        }
        new.dialled() == (self.context.credentials.node_id() < new.peer().id)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<NodeId, Arc<Place>>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
