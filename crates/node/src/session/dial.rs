//! Dialling a session: once, in a task of its own, whoever waits for it and however long.

use std::pin::pin;
use std::time::Duration;

use ffmesh_core::id::NodeId;
use ffmesh_core::reason::Reason;
use ffmesh_core::steer::Path;
use noq::VarInt;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::approach::Approach;
use super::{Session, SessionError, Sessions, end_text, lock};
use crate::identity::PeerIdentity;
use crate::transport::{HANDSHAKE_TIMEOUT, server_name};

/// How long a flow to a node that cannot be reached just now waits for a route.
const ROUTE_WAIT: Duration = Duration::from_millis(2_900);
/// How long a circuit over one route may take before the next route is asked for one as well.
const STAGGER: Duration = Duration::from_millis(300);
/// How long all circuits may take.
const CIRCUIT_WAIT: Duration = Duration::from_millis(2_900);

/// What comes of a dial: nothing yet, or its end.
pub(super) type Outcome = watch::Receiver<Option<Result<(), SessionError>>>;

impl Sessions {
    /// Joins the dial to a node that is under way, or begins one, and returns the session that comes of it.
    pub(super) async fn dialled(&self, node: &NodeId) -> Result<Session, SessionError> {
        let mut outcome = self.begin_dial(node);
        let place = self.place(node);
        loop {
            let mut entered = pin!(place.entered.notified());
            entered.as_mut().enable();
            // A dial to a node that has restarted meanwhile takes long to fail, and the node may have dialled itself.
            if self.table.borrow().has_route(node)
                && let Some(session) = self.current(node)
            {
                return Ok(session);
            }
            let ended = tokio::select! {
                () = entered => continue,
                ended = outcome.wait_for(Option::is_some) => match ended {
                    Ok(ended) => ended.clone(),
                    Err(_) => None, // the node is shutting down
                },
            };
            return match ended {
                Some(Err(e)) => Err(e),
                Some(Ok(())) | None => self.latest(node).ok_or_else(|| SessionError {
                    reason: Reason::NoRoute,
                    detail: format!("the session with {node} ended as soon as it was made"),
                }),
            };
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
        let routes = self.routes_to(node).await?;
        if self.current(node).is_some() {
            return Ok(()); // it was only without a route, or the other node dialled
        }
        let (session, approach) = self.connect(node, routes).await?;
        self.enter(session, approach);
        Ok(())
    }

    /// The routes to a node, the best first, awaited for [`ROUTE_WAIT`]. A node that is not known is asked for.
    pub(super) async fn routes_to(&self, node: &NodeId) -> Result<Vec<Path>, SessionError> {
        let mut table = self.table.clone();
        let knows = table.borrow().knows(node);
        if !knows {
            self.context.driver.find(node.clone()).await;
        }
        if let Ok(Ok(table)) = timeout(ROUTE_WAIT, table.wait_for(|table| table.has_route(node))).await {
            let routes = table.routes_for_new(node, rand::random());
            if !routes.is_empty() {
                return Ok(routes);
            }
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
            let detail = format!("no node {node} is known: check its id, and that the node is up");
            SessionError { reason: Reason::UnknownNode, detail }
        })
    }

    async fn connect(&self, node: &NodeId, routes: Vec<Path>) -> Result<(Session, Approach), SessionError> {
        let no_route = |detail: String| SessionError { reason: Reason::NoRoute, detail };
        let id: u64 = rand::random();
        let ends = self.context.driver.enter(id, node.clone()).await;
        let ends = ends.ok_or_else(|| no_route("the node is shutting down".to_owned()))?;
        let mut approach = Approach::new(self.context.labels.clone(), ends);
        let connected = async {
            let left = self.first_circuit(&mut approach, id, node, routes).await?;
            // A circuit that was set up may still carry nothing: the others are there by then.
            tokio::select! {
                connected = self.shake_hands(&mut approach, node) => connected,
                never = self.open_others(id, left) => match never {},
            }
        };
        match connected.await {
            Ok((connection, peer)) => {
                let opens = self.place(node).opens.clone();
                let recorded = self.table.borrow().epoch(node);
                Ok((Session::new(connection, peer, recorded, Some(id), opens), approach))
            }
            Err(detail) => {
                self.context.driver.leave(id).await;
                Err(no_route(detail))
            }
        }
    }

    /// Asks for circuits over further routes, one after the other. Never returns.
    async fn open_others(&self, id: u64, routes: Vec<Path>) -> std::convert::Infallible {
        for path in routes {
            tokio::time::sleep(STAGGER).await;
            self.context.driver.open_circuit(id, path).await;
        }
        std::future::pending().await
    }

    /// Asks for circuits over one route after the other until one is set up. Returns the routes that are left.
    async fn first_circuit(
        &self,
        approach: &mut Approach,
        id: u64,
        node: &NodeId,
        routes: Vec<Path>,
    ) -> Result<Vec<Path>, String> {
        let end = Instant::now() + CIRCUIT_WAIT;
        let mut why = format!("no answer within {CIRCUIT_WAIT:?}");
        let (mut left, mut waiting, mut next) = (routes.into_iter(), 0, Instant::now());
        loop {
            tokio::select! {
                () = sleep_until(next), if left.len() > 0 => {
                    if let Some(path) = left.next() {
                        waiting += 1;
                        next = Instant::now() + STAGGER;
                        self.context.driver.open_circuit(id, path).await;
                    }
                }
                outcome = approach.next(), if waiting > 0 => match outcome {
                    Some(Ok(())) => return Ok(left.collect()),
                    Some(Err(error)) => {
                        (why, next) = (error.to_string(), Instant::now());
                        waiting -= 1;
                        if waiting == 0 && left.len() == 0 {
                            return Err(format!("no circuit to {node}: {why}"));
                        }
                    }
                    None => return Err("the node is shutting down".to_owned()),
                },
                () = sleep_until(end) => return Err(format!("no circuit to {node}: {why}")),
            }
        }
    }

    async fn shake_hands(
        &self,
        approach: &mut Approach,
        node: &NodeId,
    ) -> Result<(noq::Connection, PeerIdentity), String> {
        let failed = |why: &str| format!("no session with {node}: {why}");
        let name = server_name(&self.context.credentials, node);
        let slot = approach.ends.address.slot(0);
        let connecting =
            self.context.transport.connect_session(slot, &name).map_err(|e| failed(&e.to_string()))?;
        let connection = timeout(HANDSHAKE_TIMEOUT, approach.until(connecting))
            .await
            .map_err(|_| failed("no answer within 5 s"))?
            .map_err(|e| failed(&end_text(&e)))?;
        let mesh = self.context.credentials.mesh();
        let peer = PeerIdentity::of(&connection, &mesh).map_err(|e| failed(&e.to_string()))?;
        if let Err(why) = self.check_key(&peer) {
            connection.close(VarInt::from_u32(Reason::Denied.code()), b"another key than is known");
            return Err(failed(&why));
        }
        Ok((connection, peer))
    }
}
