//! The driver: owns what the node knows of its neighbours, the mesh and circuits, and publishes the routes.
//!
//! One task takes in what happens to links and what sessions ask for, hands it to the state machines of `core`
//! ([`Mesh`], [`Circuits`]), and carries out what they answer; nobody else changes this state. Others read the
//! [`RoutingTable`], a snapshot that is replaced as a whole.

mod act;
mod changes;
mod configure;
mod ends;
mod metrics;
mod neighbors;
mod records;
mod routes;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use ffmesh_core::circuit::Circuits;
use ffmesh_core::id::NodeId;
use ffmesh_core::lsdb::Service;
use ffmesh_core::mesh::{Input, Mesh};
use ffmesh_core::steer::Path;
use ffmesh_core::target::Target;
use ffmesh_core::time::Time;
use ffmesh_core::trace::{self, Hop, Measured, Traces};
use ffmesh_core::wire::Message;
use prometheus_client::collector::Collector;
use tokio::sync::{mpsc, oneshot, watch};

use crate::bucket::Bucket;
use crate::clock;
use crate::events::Events;
use crate::identity::{Certificates, KnownKeys};
use crate::link::{Link, LinkEvent, Linked, Wanted, code};
use crate::metrics::{Counters, ErrorKind};
use crate::repeats::Repeats;
use crate::socket::{Labels, SessionAddr};

pub use ends::{CircuitEvent, SessionEnds};
pub use records::NodeRecord;
pub use routes::{Lost, NodeFacts, RoutingTable};

use changes::Changes;
use ends::Ends;
pub(crate) use metrics::Metrics;

/// Requests of sessions that may wait.
const QUEUE: usize = 256;
/// How often links are sampled, idle circuits looked for, and what has ended swept.
const TICK: Duration = Duration::from_secs(1);
/// Transit circuits without a packet for this long are closed: their session probes them twice a second.
const CIRCUIT_IDLE: Duration = Duration::from_mins(1);

/// Circuits that a neighbour may ask for a second, on average and at once: after an outage, all that it may have.
const MAX_OPENS_PER_SECOND: u32 = 4_096;
/// A link that was made for a session is closed after this long without one.
const SPARE_LINK: Duration = Duration::from_mins(10);
/// The link to a node that is no upstream any more is closed after this long: the mesh learns within a second that it is to
/// be used last, and sessions change their route at once.
const LEAVE_AFTER: Duration = Duration::from_secs(5);

/// What a session asks the driver for.
#[derive(Debug)]
enum Request {
    Enter { session: u64, node: NodeId, answer: oneshot::Sender<SessionEnds> },
    Claim { address: SessionAddr, answer: oneshot::Sender<Option<(NodeId, SessionEnds)>> },
    Leave { session: u64 },
    OpenCircuit { session: u64, path: Path },
    CloseCircuit { circuit: u64 },
    Suspect { neighbor: NodeId },
    Find { node: NodeId },
    Advertise { addresses: Vec<Target> },
    Configure { terms: Terms, answer: oneshot::Sender<()> },
    Load { permille: u16 },
    Issuers { answer: oneshot::Sender<Vec<NodeId>> },
    NodeRecords { answer: oneshot::Sender<Vec<NodeRecord>> },
    Trace { route: Vec<NodeId>, answer: TraceAnswer },
    Answer { answer: oneshot::Sender<()> },
    Drain { answer: oneshot::Sender<()> },
    Withdraw { answer: oneshot::Sender<()> },
}

type TraceAnswer = oneshot::Sender<Vec<Hop>>;

/// What sessions hold to ask the driver.
#[derive(Debug, Clone)]
pub struct Driver {
    requests: mpsc::Sender<Request>,
    table: watch::Receiver<Arc<RoutingTable>>,
    metrics: Arc<Metrics>,
}

/// What the configuration says of links and transit; it may change while the node runs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Terms {
    /// `quic.max_links`
    pub max_links: usize,
    /// The nodes of `quic.upstreams`, known before they are first met, with what is configured for the link, in µs
    pub upstreams: BTreeMap<NodeId, u32>,
    /// `mesh.transit`: whether this node is willing to carry transit
    pub transit: bool,
    /// `mesh.cost`, in µs
    pub cost: u32,
    /// What this node offers by name
    pub services: Vec<Service>,
}

/// What the driver is made with.
pub struct DriverConfig {
    /// This node
    pub own: NodeId,
    /// Whether its certificate lets it carry transit
    pub relay: bool,
    /// What the configuration says
    pub terms: Terms,
    /// The keys that ids are bound to
    pub known_keys: Arc<KnownKeys>,
    /// The certificates of the mesh's nodes
    pub certificates: Certificates,
    /// The mesh's control plane
    pub mesh: Mesh,
    /// The socket's labels
    pub labels: Labels,
    /// Where refusals are counted
    pub counters: Arc<Counters>,
    /// Where it is published what links and the mesh do
    pub changes: Events,
}

/// What others see of the driver.
pub struct Started {
    /// For sessions
    pub driver: Driver,
    /// For those who dial
    pub linked: watch::Receiver<Linked>,
    /// Nodes to be dialled at the addresses that they advertise
    pub wanted: watch::Receiver<Wanted>,
}

impl Driver {
    /// Starts the driver; it ends when `events` do.
    pub fn start(config: DriverConfig, events: mpsc::Receiver<LinkEvent>) -> Started {
        let (requests, incoming) = mpsc::channel(QUEUE);
        let (linked_tx, linked) = watch::channel(Linked::default());
        let (wanted_tx, wanted) = watch::channel(Wanted::default());
        let DriverConfig { own, relay, terms, known_keys, certificates, mesh, labels, counters, changes } =
            config;
        let upstream_costs = Arc::new(terms.upstreams.clone());
        let transit = relay && terms.transit;
        let table = RoutingTable {
            own: own.clone(),
            neighbors: BTreeMap::new(),
            lost: BTreeMap::new(),
            upstream_costs: upstream_costs.clone(),
            mesh: mesh.table(),
            generation: 0,
            facts: BTreeMap::new(),
        };
        let (table_tx, table) = watch::channel(Arc::new(table));
        let metrics = Arc::new(Metrics::default());
        let mut circuits = Circuits::new(own.clone(), ffmesh_core::circuit::Limits::default());
        circuits.relay(transit);
        let state = State {
            traces: Traces::new(own.clone(), transit),
            ends: Ends::new(own.clone(), labels.clone()),
            own,
            relay,
            terms,
            draining: false,
            leaving: HashMap::new(),
            known_keys,
            certificates,
            upstream_costs,
            mesh,
            circuits,
            labels,
            counters,
            metrics: metrics.clone(),
            neighbors: BTreeMap::new(),
            links: HashMap::new(),
            opens: HashMap::new(),
            lost: BTreeMap::new(),
            in_use: BTreeSet::new(),
            spare: HashMap::new(),
            generation: 0,
            changes: Changes::new(changes),
            repeats: Repeats::default(),
            linked: linked_tx,
            wanted: wanted_tx,
            table: table_tx,
        };
        tokio::spawn(state.run(events, incoming));
        Started { driver: Self { requests, table, metrics }, linked, wanted }
    }

    /// The routes, as they are and as they change.
    pub fn table(&self) -> watch::Receiver<Arc<RoutingTable>> {
        self.table.clone()
    }

    /// What it does, as metrics.
    pub fn collector(&self) -> Box<dyn Collector> {
        Box::new(self.metrics.clone())
    }

    /// Enters a session with a node that is about to be dialled. `None` when the node is shutting down.
    pub async fn enter(&self, session: u64, node: NodeId) -> Option<SessionEnds> {
        self.ask(|answer| Request::Enter { session, node, answer }).await
    }

    /// The node that has set up a circuit for a session, and this end of it; once for each session.
    pub async fn claim(&self, address: SessionAddr) -> Option<(NodeId, SessionEnds)> {
        self.ask(|answer| Request::Claim { address, answer }).await?
    }

    /// A session that was entered has ended: its circuits are closed.
    pub async fn leave(&self, session: u64) {
        self.tell(Request::Leave { session }).await;
    }

    /// Asks for a circuit of a session that was entered, which is told.
    pub async fn open_circuit(&self, session: u64, path: Path) {
        self.tell(Request::OpenCircuit { session, path }).await;
    }

    /// Takes a circuit of this node's down.
    pub async fn close_circuit(&self, circuit: u64) {
        self.tell(Request::CloseCircuit { circuit }).await;
    }

    /// A route over this neighbour is silent: the link is to be looked at.
    pub async fn suspect(&self, neighbor: NodeId) {
        self.tell(Request::Suspect { neighbor }).await;
    }

    /// Asks the mesh for a node that is not known here.
    pub async fn find(&self, node: NodeId) {
        self.tell(Request::Find { node }).await;
    }

    /// Where this node can be dialled from now on.
    pub async fn advertise(&self, addresses: Vec<Target>) {
        self.tell(Request::Advertise { addresses }).await;
    }

    /// What the configuration says from now on. Returns once it holds.
    pub async fn configure(&self, terms: Terms) {
        self.ask(|answer| Request::Configure { terms, answer }).await;
    }

    /// How busy this node is, in thousandths.
    pub async fn load(&self, permille: u16) {
        self.tell(Request::Load { permille }).await;
    }

    /// Nodes of the mesh that enrol others, nearest first.
    pub async fn issuers(&self) -> Vec<NodeId> {
        self.ask(|answer| Request::Issuers { answer }).await.unwrap_or_default()
    }

    /// What all nodes of the mesh say about themselves, this one too, in no particular order.
    pub async fn node_records(&self) -> Vec<NodeRecord> {
        self.ask(|answer| Request::NodeRecords { answer }).await.unwrap_or_default()
    }

    /// Asks each node of a route that begins here. `None` where the node is shutting down.
    pub async fn trace(&self, route: Vec<NodeId>) -> Option<Vec<Hop>> {
        self.ask(|answer| Request::Trace { route, answer }).await
    }

    /// Whether the driver does its work: it answers behind all that it was asked before. Waits for as long as it takes.
    pub async fn answers(&self) -> bool {
        ask(&self.requests, |answer| Request::Answer { answer }).await.is_some()
    }

    /// Asks the others to take other routes, and takes no new transit.
    pub async fn drain(&self) {
        self.ask(|answer| Request::Drain { answer }).await;
    }

    /// Tells the mesh that this node is gone.
    pub async fn withdraw(&self) {
        self.ask(|answer| Request::Withdraw { answer }).await;
    }

    async fn tell(&self, request: Request) {
        let _ = self.requests.send(request).await; // without a driver the node is shutting down
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Option<T> {
        ask(&self.requests, request).await
    }
}

/// What the driver answers; none when it has ended.
async fn ask<T>(
    requests: &mpsc::Sender<Request>,
    request: impl FnOnce(oneshot::Sender<T>) -> Request,
) -> Option<T> {
    let (answer, result) = oneshot::channel();
    requests.send(request(answer)).await.ok()?;
    result.await.ok()
}

struct State {
    own: NodeId,
    relay: bool,
    terms: Terms,
    draining: bool,
    /// Links to nodes that are no upstreams any more, by their serials, and when they are closed
    leaving: HashMap<u64, Time>,
    known_keys: Arc<KnownKeys>,
    certificates: Certificates,
    /// Those of `terms`, and of links that are about to be left
    upstream_costs: Arc<BTreeMap<NodeId, u32>>,
    mesh: Mesh,
    circuits: Circuits,
    ends: Ends,
    traces: Traces<TraceAnswer>,
    labels: Labels,
    counters: Arc<Counters>,
    metrics: Arc<Metrics>,
    neighbors: BTreeMap<NodeId, (Link, Time)>,
    /// The same links by their serials
    links: HashMap<u64, Link>,
    /// What each link may still ask for, by its serial
    opens: HashMap<u64, Bucket>,
    lost: BTreeMap<NodeId, Lost>,
    in_use: BTreeSet<NodeId>,
    /// Since when links that this node made for a session are without one
    spare: HashMap<u64, Time>,
    generation: u64,
    changes: Changes,
    repeats: Repeats,
    linked: watch::Sender<Linked>,
    wanted: watch::Sender<Wanted>,
    table: watch::Sender<Arc<RoutingTable>>,
}

impl State {
    async fn run(mut self, mut events: mpsc::Receiver<LinkEvent>, mut requests: mpsc::Receiver<Request>) {
        let mut tick = clock::now();
        self.hand(Input::Tick); // the first records are signed
        loop {
            let deadlines = [
                self.circuits.deadline(),
                self.mesh.next_deadline(),
                self.traces.deadline(),
                self.changes.deadline(self.generation),
                Some(tick),
            ];
            let deadline = deadlines.into_iter().flatten().min().unwrap_or(tick);
            tokio::select! {
                event = events.recv() => match event {
                    Some(event) => self.on_event(event),
                    None => return,
                },
                Some(request) = requests.recv() => self.on_request(request),
                () = tokio::time::sleep_until(clock::instant(deadline)) => {}
            }
            let now = clock::now();
            if now >= tick {
                tick = now + TICK;
                self.sample();
            }
            if self.mesh.next_deadline().is_some_and(|due| due <= now) {
                self.hand(Input::Tick);
            }
            self.at_circuits(|circuits, out| circuits.poll(now, out));
            for (answer, hops) in self.traces.expire(now) {
                let _ = answer.send(hops);
            }
            self.follow_use();
            self.changes.tell_mesh(&self.mesh.table(), &self.linked.borrow(), self.generation, now);
        }
    }

    /// Measures links, and lets go of what nobody uses.
    fn sample(&mut self) {
        let links: Vec<_> = self.links.values().cloned().collect();
        for link in links {
            let vitals = link.vitals();
            let loss = vitals.loss.map_or(0, permille);
            self.hand(Input::LinkSample { link: link_id(&link), rtt: vitals.rtt, loss });
        }
        let idle = self.labels.idle_relays(earlier(clock::now(), CIRCUIT_IDLE));
        self.at_circuits(|circuits, out| {
            for label in idle {
                circuits.idle(label, out);
            }
        });
        self.ends.sweep(clock::now());
        self.close_spare();
        self.close_left();
    }

    /// Closes links that were made for a session, once there has been none for long.
    fn close_spare(&mut self) {
        let now = clock::now();
        let (in_use, links) = (&self.in_use, &self.links);
        self.spare.retain(|serial, _| links.get(serial).is_some_and(|link| !in_use.contains(link.node())));
        for link in links.values().filter(|link| link.is_found() && !in_use.contains(link.node())) {
            let since = *self.spare.entry(link.serial()).or_insert(now);
            if now - since >= SPARE_LINK {
                link.close(code::GOODBYE, "not used any more");
            }
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
                self.labels.move_link(link.serial(), new);
                self.ends.moved(&link);
            }
            LinkEvent::Down { link, reason, orderly } => self.on_down(&link, reason, orderly),
        }
    }

    fn on_request(&mut self, request: Request) {
        match request {
            Request::Enter { session, node, answer } => {
                let _ = answer.send(self.ends.enter(session, node));
            }
            Request::Claim { address, answer } => {
                let _ = answer.send(self.ends.claim(address));
            }
            Request::Leave { session } => {
                let ended = self.ends.leave(session);
                self.at_circuits(|circuits, out| {
                    for circuit in ended {
                        circuits.close(circuit, out);
                    }
                });
            }
            Request::OpenCircuit { session, path } => {
                let circuit = rand::random();
                if self.ends.opening(session, circuit, path.clone()) {
                    let (route, now) = (path.to_vec(), clock::now());
                    self.at_circuits(|circuits, out| {
                        circuits.open(circuit, route, session, &mut rand::random, now, out);
                    });
                }
            }
            Request::CloseCircuit { circuit } => {
                self.ends.close(circuit);
                self.at_circuits(|circuits, out| circuits.close(circuit, out));
            }
            Request::Suspect { neighbor } => {
                if let Some((link, _)) = self.neighbors.get(&neighbor) {
                    link.suspect();
                }
            }
            Request::Find { node } => self.hand(Input::Find(node)),
            Request::Advertise { addresses } => self.hand(Input::SetAddresses(addresses)),
            Request::Configure { terms, answer } => {
                self.configure(terms);
                let _ = answer.send(());
            }
            Request::Load { permille } => self.hand(Input::Load(permille)),
            Request::Issuers { answer } => {
                let _ = answer.send(self.issuers());
            }
            Request::NodeRecords { answer } => {
                let _ = answer.send(records::of(self.mesh.database()));
            }
            Request::Trace { route, answer } => {
                let links = |node: &NodeId| measured(&self.neighbors, node);
                for action in self.traces.start(route, answer, links, rand::random, clock::now()) {
                    self.trace(action);
                }
            }
            Request::Answer { answer } => {
                let _ = answer.send(());
            }
            Request::Drain { answer } => {
                self.draining = true;
                self.circuits.relay(false);
                self.hand(Input::Drain);
                let _ = answer.send(());
            }
            Request::Withdraw { answer } => {
                self.hand(Input::Withdraw);
                let _ = answer.send(());
            }
        }
    }

    fn on_message(&mut self, link: &Link, message: Message) {
        if !self.is_current(link) {
            return; // it was under way when its link was replaced
        }
        match message {
            Message::CircuitOpen(_) if !self.may_ask(link) => {
                self.counters.error(ErrorKind::Limit); // who asks gives up after 2 s
            }
            Message::CircuitOpen(_) | Message::CircuitAck(_) | Message::CircuitClose(_) => {
                let (link, now) = (link_id(link), clock::now());
                self.at_circuits(|circuits, out| {
                    circuits.message(link, message, &mut rand::random, now, out);
                });
            }
            Message::Trace(trace) => {
                let links = |node: &NodeId| measured(&self.neighbors, node);
                let action = self.traces.on_trace(link.node(), trace, links, clock::now());
                if let Some(action) = action {
                    self.trace(action);
                }
            }
            Message::TraceAck(ack) => {
                let action = self.traces.on_ack(link.node(), ack, clock::now());
                if let Some(action) = action {
                    self.trace(action);
                }
            }
            other => self.hand(Input::Message(link_id(link), other)),
        }
    }

    /// Takes one of the circuits that a neighbour may ask for.
    fn may_ask(&mut self, link: &Link) -> bool {
        self.opens.entry(link.serial()).or_insert_with(|| Bucket::new(MAX_OPENS_PER_SECOND)).take()
    }

    fn trace(&self, action: trace::Action<TraceAnswer>) {
        match action {
            trace::Action::Send(to, message) => {
                if let Some((link, _)) = self.neighbors.get(&to) {
                    link.send(message);
                }
            }
            trace::Action::Ended(answer, hops) => {
                let _ = answer.send(hops);
            }
        }
    }

    fn issuers(&self) -> Vec<NodeId> {
        let table = self.mesh.table();
        let near = |node: &NodeId| {
            let linked = self.neighbors.get(node).map(|(link, _)| (0, link.peer().issuer));
            let far = || {
                let cost = table.reach(node)?.cost;
                Some((cost, self.mesh.database().node(node)?.issuer))
            };
            linked.or_else(far).and_then(|(cost, issuer)| issuer.then_some((cost, node.clone())))
        };
        let mut issuers: Vec<_> = self
            .neighbors
            .keys()
            .chain(table.nodes())
            .filter_map(near)
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
        issuers.dedup_by(|a, b| a.1 == b.1);
        issuers.into_iter().map(|(_, node)| node).collect()
    }
}

/// How the link to a neighbour does; none where there is no link.
fn measured(neighbors: &BTreeMap<NodeId, (Link, Time)>, node: &NodeId) -> Option<Measured> {
    let vitals = neighbors.get(node)?.0.vitals();
    Some(Measured { rtt: vitals.rtt, loss: vitals.loss.map(permille) })
}

/// A share of 0 to 1 in thousandths.
fn permille(share: f64) -> u16 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 1000")]
    let permille = (share.clamp(0.0, 1.0) * 1000.0) as u16;
    permille
}

fn earlier(now: Time, by: Duration) -> Time {
    Time(now.0.saturating_sub(u64::try_from(by.as_micros()).unwrap_or(u64::MAX)))
}

fn link_id(link: &Link) -> ffmesh_core::flood::LinkId {
    ffmesh_core::flood::LinkId(link.serial())
}
