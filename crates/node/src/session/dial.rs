//! Dialling a session: once, in a task of its own, whoever waits for it and however long.

use std::sync::Mutex;
use std::time::Duration;

use ffmesh_core::id::NodeId;
use ffmesh_core::reason::Reason;
use noq::VarInt;
use tokio::sync::watch;
use tokio::time::timeout;

use super::{Dialled, Session, SessionError, Sessions, end_text, lock};
use crate::driver::Route;
use crate::identity::PeerIdentity;
use crate::transport::{HANDSHAKE_TIMEOUT, server_name};

/// How long a flow to a node that cannot be reached just now waits for a route.
const ROUTE_WAIT: Duration = Duration::from_millis(2_900);

/// What comes of a dial: nothing yet, or its end.
pub(super) type Outcome = watch::Receiver<Option<Result<(), SessionError>>>;

impl Sessions {
    /// Joins the dial to a node that is under way, or begins one, and returns the session that comes of it.
    pub(super) async fn dialled(&self, node: &NodeId) -> Result<Session, SessionError> {
        let mut outcome = self.begin_dial(node);
        let ended = match outcome.wait_for(Option::is_some).await {
            Ok(ended) => ended.clone(),
            Err(_) => None, // the node is shutting down
        };
        match ended {
            Some(Err(e)) => Err(e),
            Some(Ok(())) | None => self.current(node).ok_or_else(|| SessionError {
                reason: Reason::NoRoute,
                detail: format!("the session with {node} ended as soon as it was made"),
            }),
        }
    }

    fn begin_dial(&self, node: &NodeId) -> Outcome {
        let place = self.place(node);
        let mut dial = lock(&place.dial);
        // One whose task is gone without a word is none.
        if let Some(outcome) = dial.as_ref().filter(|outcome| outcome.has_changed().is_ok()) {
            return outcome.clone();
        }
        let (sender, outcome) = watch::channel(None);
        *dial = Some(outcome.clone());
        drop(dial);
        let (sessions, node) = (self.clone(), node.clone());
        tokio::spawn(async move {
            let result = sessions.dial(&node).await;
            *lock(&place.dial) = None; // who comes now begins anew
            sender.send_replace(Some(result));
        });
        outcome
    }

    async fn dial(&self, node: &NodeId) -> Result<(), SessionError> {
        let route = self.route(node).await?;
        if self.current(node).is_some() {
            return Ok(()); // it was only without a route, or the other node dialled
        }
        let session = self.connect(node, route).await?;
        self.enter(session);
        Ok(())
    }

    /// The best route to a node, awaited for [`ROUTE_WAIT`].
    async fn route(&self, node: &NodeId) -> Result<Route, SessionError> {
        let mut table = self.table.clone();
        if let Ok(Ok(table)) = timeout(ROUTE_WAIT, table.wait_for(|table| table.has_route(node))).await
            && let Some(route) = table.routes(node).into_iter().next()
        {
            return Ok(route);
        }
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

    async fn connect(&self, node: &NodeId, route: Route) -> Result<Session, SessionError> {
        let no_route = |detail: String| SessionError { reason: Reason::NoRoute, detail };
        let id: u64 = rand::random();
        let slot = self.context.labels.new_session().slot(0);
        let (epoch, key) = {
            let table = self.table.borrow();
            (table.epoch(node), table.key(node))
        };
        let circuit = self.context.driver.open_circuit(route, id, slot).await;
        let circuit = circuit.map_err(|e| no_route(format!("no circuit to {node}: {e}")))?;
        let handshake = async {
            let name = server_name(&self.context.credentials, node);
            let connecting =
                self.context.transport.connect_session(slot, &name).map_err(|e| e.to_string())?;
            let connection = timeout(HANDSHAKE_TIMEOUT, connecting)
                .await
                .map_err(|_| "no answer within 5 s".to_owned())?
                .map_err(|e| end_text(&e))?;
            let mesh = self.context.credentials.mesh();
            let peer = PeerIdentity::of(&connection, &mesh).map_err(|e| e.to_string())?;
            if key.is_some_and(|key| peer.key != key) {
                connection.close(VarInt::from_u32(Reason::Denied.code()), b"another key than on the link");
                return Err(format!("it came with the key {}, and on its link with another", peer.key));
            }
            Ok::<_, String>((connection, peer))
        };
        match handshake.await {
            Ok((connection, peer)) => {
                let dialled = Dialled { id, circuit: Mutex::new(Some(circuit)) };
                Ok(Session::new(connection, peer, epoch, slot, Some(dialled), self.place(node).opens.clone()))
            }
            Err(e) => {
                self.context.driver.close_circuit(circuit).await;
                Err(no_route(format!("no session with {node}: {e}")))
            }
        }
    }
}
