//! The driver: owns what the node knows of its neighbours and circuits, and publishes the routes.
//!
//! One task takes in what happens to links and what sessions ask for; nobody else changes this state. Others read
//! the [`RoutingTable`], a snapshot that is replaced as a whole.

mod circuits;
mod routes;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ffmesh_core::id::NodeId;
use ffmesh_core::neighbor::{Choice, LinkFacts, choose};
use ffmesh_core::time::Time;
use ffmesh_core::trace::{Action, Hop, Measured, Traces};
use ffmesh_core::wire::Message;
use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};

use crate::clock;
use crate::identity::KnownKeys;
use crate::link::{Link, LinkEvent, Linked, code};
use crate::metrics::{Counters, ErrorKind};
use crate::repeats::Repeats;
use crate::socket::{Labels, SlotAddr};

pub use circuits::{Circuit, CircuitError, Origin};
pub use routes::{Route, RoutingTable};

use routes::Lost;

/// Requests of sessions that may wait.
const QUEUE: usize = 256;
/// Lost neighbours that are remembered, for `peers` and for telling an unknown node from an unreachable one.
const MAX_LOST: usize = 1_000;

/// What a session asks the driver for.
#[derive(Debug)]
enum Request {
    OpenCircuit { route: Route, session: u64, address: SlotAddr, answer: circuits::Answer },
    CloseCircuit { circuit: Circuit },
    Origin { slot: SlotAddr, answer: oneshot::Sender<Option<Origin>> },
    Trace { route: Vec<NodeId>, answer: TraceAnswer },
}

type TraceAnswer = oneshot::Sender<Vec<Hop>>;

/// What sessions hold to ask the driver.
#[derive(Debug, Clone)]
pub struct Driver {
    requests: mpsc::Sender<Request>,
    table: watch::Receiver<Arc<RoutingTable>>,
}

/// What the driver is made with.
#[derive(Debug)]
pub struct DriverConfig {
    /// This node
    pub own: NodeId,
    /// Whether it forwards for others
    pub transit: bool,
    /// `quic.max_links`
    pub max_links: usize,
    /// The keys that ids are bound to
    pub known_keys: KnownKeys,
    /// Nodes of the configuration, known before they are first met
    pub configured: BTreeSet<NodeId>,
    /// The socket's labels
    pub labels: Labels,
    /// Where refusals are counted
    pub counters: Arc<Counters>,
}

impl Driver {
    /// Starts the driver; it ends when `events` do. The second value is for those who dial.
    pub fn start(config: DriverConfig, events: mpsc::Receiver<LinkEvent>) -> (Self, watch::Receiver<Linked>) {
        let (requests, incoming) = mpsc::channel(QUEUE);
        let (linked_tx, linked) = watch::channel(Linked::default());
        let table = RoutingTable { configured: config.configured.clone(), ..RoutingTable::default() };
        let (table_tx, table) = watch::channel(Arc::new(table.clone()));
        let state = State {
            circuits: circuits::Circuits::new(config.own.clone(), config.labels.clone()),
            traces: Traces::new(config.own.clone(), config.transit),
            config,
            neighbors: BTreeMap::new(),
            lost: BTreeMap::new(),
            repeats: Repeats::default(),
            linked: linked_tx,
            table: table_tx,
        };
        tokio::spawn(state.run(events, incoming));
        (Self { requests, table }, linked)
    }

    /// The routes, as they are and as they change.
    pub fn table(&self) -> watch::Receiver<Arc<RoutingTable>> {
        self.table.clone()
    }

    /// Sets up a circuit along `route` for a slot of a session, and points the slot at it.
    pub async fn open_circuit(
        &self,
        route: Route,
        session: u64,
        address: SlotAddr,
    ) -> Result<Circuit, CircuitError> {
        let (answer, result) = oneshot::channel();
        let request = Request::OpenCircuit { route, session, address, answer };
        self.requests.send(request).await.map_err(|_| CircuitError::Stopping)?;
        result.await.map_err(|_| CircuitError::Stopping)?
    }

    /// Takes a circuit down.
    pub async fn close_circuit(&self, circuit: Circuit) {
        let _ = self.requests.send(Request::CloseCircuit { circuit }).await;
    }

    /// Who set up the circuit behind a slot.
    pub async fn origin(&self, slot: SlotAddr) -> Option<Origin> {
        let (answer, result) = oneshot::channel();
        self.requests.send(Request::Origin { slot, answer }).await.ok()?;
        result.await.ok()?
    }

    /// Asks each node of a route that begins here. `None` where the node is shutting down.
    pub async fn trace(&self, route: Vec<NodeId>) -> Option<Vec<Hop>> {
        let (answer, hops) = oneshot::channel();
        self.requests.send(Request::Trace { route, answer }).await.ok()?;
        hops.await.ok()
    }
}

struct State {
    config: DriverConfig,
    neighbors: BTreeMap<NodeId, (Link, Time)>,
    lost: BTreeMap<NodeId, Lost>,
    circuits: circuits::Circuits,
    traces: Traces<TraceAnswer>,
    repeats: Repeats,
    linked: watch::Sender<Linked>,
    table: watch::Sender<Arc<RoutingTable>>,
}

impl State {
    async fn run(mut self, mut events: mpsc::Receiver<LinkEvent>, mut requests: mpsc::Receiver<Request>) {
        loop {
            let deadline = self.circuits.deadline().into_iter().chain(self.traces.deadline()).min();
            tokio::select! {
                event = events.recv() => match event {
                    Some(event) => self.on_event(event),
                    None => return,
                },
                Some(request) = requests.recv() => self.on_request(request),
                () = tokio::time::sleep_until(clock::instant(deadline.unwrap_or_default())), if deadline.is_some() => {
                    self.expire();
                }
            }
        }
    }

    fn expire(&mut self) {
        for (next, close) in self.circuits.expire(clock::now()) {
            if let Some((link, _)) = self.neighbors.get(&next) {
                link.send(Message::CircuitClose(close));
            }
        }
        for (answer, hops) in self.traces.expire(clock::now()) {
            let _ = answer.send(hops);
        }
    }

    fn on_event(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Candidate { link, answer } => {
                let decision = self.admit(&link);
                let _ = answer.send(decision);
            }
            LinkEvent::Message { link, message } => self.on_message(&link, message),
            LinkEvent::Moved { link, old, new } => {
                tracing::info!(peer = %link.node(), %old, %new, "neighbour's address changed");
                self.config.labels.move_link(link.serial(), new);
            }
            LinkEvent::Down { link, reason, orderly } => self.on_down(&link, reason, orderly),
        }
    }

    fn on_request(&mut self, request: Request) {
        match request {
            Request::OpenCircuit { route, session, address, answer } => {
                let link = route
                    .nodes
                    .get(1)
                    .and_then(|next| self.neighbors.get(next))
                    .map(|(link, _)| link.clone());
                self.circuits.open(link, route, session, address, answer);
            }
            Request::CloseCircuit { circuit } => {
                let link = self.neighbors.get(circuit.next()).map(|(link, _)| link.clone());
                self.circuits.close(link.as_ref(), &circuit);
            }
            Request::Origin { slot, answer } => {
                let _ = answer.send(self.circuits.origin(slot));
            }
            Request::Trace { route, answer } => {
                let links = |node: &NodeId| measured(&self.neighbors, node);
                let actions = self.traces.start(route, answer, links, rand::random, clock::now());
                self.carry_out(actions);
            }
        }
    }

    fn carry_out(&self, actions: impl IntoIterator<Item = Action<TraceAnswer>>) {
        for action in actions {
            match action {
                Action::Send(to, message) => {
                    if let Some((link, _)) = self.neighbors.get(&to) {
                        link.send(message);
                    }
                }
                Action::Ended(answer, hops) => {
                    let _ = answer.send(hops);
                }
            }
        }
    }

    fn is_current(&self, link: &Link) -> bool {
        self.neighbors.get(link.node()).is_some_and(|(current, _)| current.serial() == link.serial())
    }

    fn on_message(&mut self, link: &Link, message: Message) {
        if !self.is_current(link) {
            return; // it was under way when its link was replaced
        }
        match message {
            Message::CircuitOpen(open) => self.circuits.on_open(link, &open),
            Message::CircuitAck(ack) => self.circuits.on_ack(link, &ack),
            Message::CircuitClose(close) => self.circuits.on_close(link, &close),
            Message::Trace(trace) => {
                let links = |node: &NodeId| measured(&self.neighbors, node);
                let action = self.traces.on_trace(link.node(), trace, links, clock::now());
                self.carry_out(action);
            }
            Message::TraceAck(ack) => {
                let action = self.traces.on_ack(link.node(), ack, clock::now());
                self.carry_out(action);
            }
            other => tracing::debug!(peer = %link.node(), "message of type {} ignored", other.number()),
        }
    }

    /// Decides whether a link may run, and publishes it before its dialler learns so.
    fn admit(&mut self, link: &Link) -> Result<(), String> {
        let node = link.node().clone();
        if let Err(conflict) = self.config.known_keys.check(link.peer()) {
            if self.repeats.is_news((&node, link.peer().key)) {
                let address = link.address().map(tracing::field::display);
                tracing::error!(peer = %node, address, "link refused: {conflict}");
            }
            self.config.counters.error(ErrorKind::KeyConflict);
            return Err(format!("{node} is bound to another key here"));
        }
        let facts =
            |link: &Link, up_since| LinkFacts { epoch: link.epoch(), dialled: link.dialled(), up_since };
        let now = clock::now();
        if let Some((old, up_since)) = self.neighbors.get(&node).cloned() {
            match choose(&self.config.own, &node, facts(&old, up_since), facts(link, now)) {
                Choice::Old => return Err(format!("there is a link with {node} already")),
                Choice::New => {
                    let why =
                        if link.epoch() == old.epoch() { "replaced by a newer link" } else { "it restarted" };
                    tracing::info!(peer = %node, "link replaced: {why}");
                    old.close(code::REPLACED, why);
                    self.circuits.link_down(&old);
                }
            }
        } else if self.neighbors.len() >= self.config.max_links {
            self.config.counters.error(ErrorKind::Limit);
            if self.repeats.is_news((&node, "max_links")) {
                tracing::warn!(peer = %node, limit = self.config.max_links, "link refused: quic.max_links is reached");
            }
            return Err(format!("this node has all the {} links it takes", self.config.max_links));
        }
        tracing::info!(
            peer = %node, address = link.address().map(tracing::field::display), dialled = link.dialled(), "link up"
        );
        self.lost.remove(&node);
        self.neighbors.insert(node, (link.clone(), now));
        self.publish();
        Ok(())
    }

    fn on_down(&mut self, link: &Link, reason: String, orderly: bool) {
        let node = link.node();
        if !self.is_current(link) {
            return; // it was replaced, which was told then
        }
        if orderly {
            tracing::info!(peer = %node, "link down: {reason}");
        } else {
            tracing::warn!(peer = %node, "link down: {reason}");
            self.config.counters.error(ErrorKind::LinkDown);
        }
        self.circuits.link_down(link);
        self.traces.link_down(node);
        self.neighbors.remove(node);
        if self.lost.len() >= MAX_LOST {
            let oldest = self.lost.iter().min_by_key(|(_, lost)| lost.since).map(|(node, _)| node.clone());
            oldest.and_then(|node| self.lost.remove(&node));
        }
        self.lost.insert(node.clone(), Lost { since: Timestamp::now(), reason });
        self.publish();
    }

    fn publish(&self) {
        let neighbors: BTreeMap<_, _> =
            self.neighbors.iter().map(|(node, (link, _))| (node.clone(), link.clone())).collect();
        self.linked.send_replace(Arc::new(neighbors.keys().cloned().collect()));
        self.table.send_replace(Arc::new(RoutingTable {
            own: Some(self.config.own.clone()),
            neighbors,
            lost: self.lost.clone(),
            configured: self.config.configured.clone(),
        }));
    }
}

/// How the link to a neighbour does; none where there is no link.
fn measured(neighbors: &BTreeMap<NodeId, (Link, Time)>, node: &NodeId) -> Option<Measured> {
    let vitals = neighbors.get(node)?.0.vitals();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share from 0 to 1")]
    let loss = vitals.loss.map(|loss| (loss * 1e3).round() as u16);
    Some(Measured { rtt: vitals.rtt, loss })
}
