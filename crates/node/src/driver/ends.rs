//! The ends of circuits at this node, by the session that they are for.
//!
//! A session that this node dials is entered with its number, one of another node with the first circuit that arrives for
//! it. Its task gets [`CircuitEvent`]s and probes on channels, and points its slots by itself.

use std::collections::hash_map::Entry as MapEntry;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use ffmesh_core::circuit::{CircuitKey, OpenError};
use ffmesh_core::id::NodeId;
use ffmesh_core::label::Label;
use ffmesh_core::steer::Path;
use tokio::sync::{Notify, mpsc};

use crate::link::Link;
use crate::socket::{Activity, CircuitEnd, Hop, Labels, ReceivedProbe, SessionAddr, Way};

/// Events of circuits that may wait for a session: a few for each of its circuits. What does not fit is lost, and probes
/// find out.
const EVENTS: usize = 128;
/// Probes that may wait for a session: what comes within its longest turn. More are lost, as probes may be.
const PROBES: usize = 64;

/// What happens to the circuits of a session.
#[derive(Debug)]
pub enum CircuitEvent {
    /// A circuit that this node asked for is set up.
    Opened {
        /// Its route
        path: Path,
        /// Its number
        circuit: u64,
        /// Where its packets go
        way: Way,
    },
    /// A circuit that this node asked for did not come about.
    Failed {
        /// Its route
        path: Path,
        /// Why
        error: OpenError,
    },
    /// A circuit of the other node ends here.
    Arrived {
        /// Its number
        circuit: u64,
        /// Where what goes back goes
        way: Way,
    },
    /// The first hop of a circuit has another address.
    Moved {
        /// Its number
        circuit: u64,
        /// Where its packets go from now on
        way: Way,
    },
    /// A circuit is gone.
    Gone {
        /// Its number
        circuit: u64,
        /// Why
        reason: String,
    },
}

/// What the task of a session holds of its circuits.
#[derive(Debug)]
pub struct SessionEnds {
    /// Its virtual addresses
    pub address: SessionAddr,
    /// What happens to its circuits
    pub events: mpsc::Receiver<CircuitEvent>,
    /// Probes that came over them
    pub probes: mpsc::Receiver<ReceivedProbe>,
    /// Tells that data is carried again after a pause
    pub resumed: Arc<Notify>,
}

struct Session {
    node: NodeId,
    address: SessionAddr,
    events: mpsc::Sender<CircuitEvent>,
    probes: mpsc::Sender<ReceivedProbe>,
    resumed: Arc<Notify>,
    /// Until its QUIC connection has come.
    unclaimed: Option<SessionEnds>,
    circuits: HashMap<u64, Arc<Activity>>,
    ways: HashMap<u64, Way>,
}

impl Session {
    fn new(node: NodeId, address: SessionAddr) -> (Self, SessionEnds) {
        let (events, events_in) = mpsc::channel(EVENTS);
        let (probes, probes_in) = mpsc::channel(PROBES);
        let resumed = Arc::<Notify>::default();
        let session = Self {
            node,
            address,
            events,
            probes,
            resumed: resumed.clone(),
            unclaimed: None,
            circuits: HashMap::new(),
            ways: HashMap::new(),
        };
        (session, SessionEnds { address, events: events_in, probes: probes_in, resumed })
    }

    /// Makes a circuit one of this session's, and returns its end.
    fn end(&mut self, circuit: u64) -> CircuitEnd {
        let activity = self.activity(circuit);
        CircuitEnd { session: self.address, circuit, activity, probes: self.probes.clone() }
    }

    fn way(&mut self, circuit: u64, hop: Hop) -> Way {
        let activity = self.activity(circuit);
        let way = Way { hop, activity };
        self.ways.insert(circuit, way.clone());
        way
    }

    fn activity(&mut self, circuit: u64) -> Arc<Activity> {
        let new = || Arc::new(Activity::new(self.resumed.clone()));
        self.circuits.entry(circuit).or_insert_with(new).clone()
    }

    fn tell(&self, event: CircuitEvent) {
        if self.events.try_send(event).is_err() {
            tracing::debug!(peer = %self.node, "an event of a circuit was lost");
        }
    }

    fn lose(&mut self, circuit: u64, reason: String) {
        self.circuits.remove(&circuit);
        self.ways.remove(&circuit);
        self.tell(CircuitEvent::Gone { circuit, reason });
    }

    /// Whether nobody wants it any more.
    fn is_over(&self) -> bool {
        self.circuits.is_empty() && (self.unclaimed.is_some() || self.events.is_closed())
    }
}

/// Names a session at this node: the node that dialled it and the number that this one chose.
type SessionKey = (NodeId, u64);

pub(super) struct Ends {
    own: NodeId,
    labels: Labels,
    sessions: HashMap<SessionKey, Session>,
    by_address: HashMap<SessionAddr, SessionKey>,
    /// The session and the route of each circuit of this node
    paths: HashMap<u64, (u64, Path)>,
    /// The session of each circuit that ends here
    arrived: HashMap<CircuitKey, SessionKey>,
    /// Set when a session came or went
    changed: bool,
}

impl Ends {
    pub(super) fn new(own: NodeId, labels: Labels) -> Self {
        Self {
            own,
            labels,
            sessions: HashMap::new(),
            by_address: HashMap::new(),
            paths: HashMap::new(),
            arrived: HashMap::new(),
            changed: false,
        }
    }

    /// Enters a session that this node is about to dial.
    pub(super) fn enter(&mut self, session: u64, node: NodeId) -> SessionEnds {
        let (entry, ends) = Session::new(node, self.labels.new_session());
        let key = (self.own.clone(), session);
        self.by_address.insert(entry.address, key.clone());
        self.sessions.insert(key, entry);
        self.changed = true;
        ends
    }

    /// The end of a session that another node dials, once, and that node.
    pub(super) fn claim(&mut self, address: SessionAddr) -> Option<(NodeId, SessionEnds)> {
        let key = self.by_address.get(&address)?;
        let session = self.sessions.get_mut(key)?;
        Some((session.node.clone(), session.unclaimed.take()?))
    }

    /// A session of this node asks for a circuit: notes whose it is. `false` where the session is not entered.
    pub(super) fn opening(&mut self, session: u64, circuit: u64, path: Path) -> bool {
        let known = self.sessions.contains_key(&(self.own.clone(), session));
        if known {
            self.paths.insert(circuit, (session, path));
        }
        known
    }

    /// A session of this node has ended. Returns its circuits, which are to be closed.
    pub(super) fn leave(&mut self, session: u64) -> Vec<u64> {
        let Some(entry) = self.sessions.remove(&(self.own.clone(), session)) else { return Vec::new() };
        self.by_address.remove(&entry.address);
        self.changed = true;
        self.paths.extract_if(|_, (of, _)| *of == session).map(|(circuit, _)| circuit).collect()
    }

    /// The end of an own circuit, for its label.
    pub(super) fn own_end(&mut self, circuit: u64) -> Option<CircuitEnd> {
        let (session, _) = self.paths.get(&circuit)?;
        Some(self.sessions.get_mut(&(self.own.clone(), *session))?.end(circuit))
    }

    /// An own circuit is set up.
    pub(super) fn opened(&mut self, circuit: u64, hop: Hop) {
        let Some((session, path)) = self.paths.get(&circuit).cloned() else { return };
        let Some(session) = self.sessions.get_mut(&(self.own.clone(), session)) else { return };
        let way = session.way(circuit, hop);
        session.tell(CircuitEvent::Opened { path, circuit, way });
    }

    /// An own circuit did not come about.
    pub(super) fn failed(&mut self, circuit: u64, error: OpenError) {
        let Some((session, path)) = self.paths.remove(&circuit) else { return };
        let Some(session) = self.sessions.get_mut(&(self.own.clone(), session)) else { return };
        session.circuits.remove(&circuit);
        session.tell(CircuitEvent::Failed { path, error });
    }

    /// An own circuit is gone.
    pub(super) fn closed(&mut self, circuit: u64, reason: String) {
        let Some((session, _)) = self.paths.remove(&circuit) else { return };
        if let Some(session) = self.sessions.get_mut(&(self.own.clone(), session)) {
            session.lose(circuit, reason);
        }
    }

    /// An own circuit is closed by its session, which knows.
    pub(super) fn close(&mut self, circuit: u64) {
        let Some((session, _)) = self.paths.remove(&circuit) else { return };
        if let Some(session) = self.sessions.get_mut(&(self.own.clone(), session)) {
            session.circuits.remove(&circuit);
            session.ways.remove(&circuit);
        }
    }

    /// A circuit of another node ends here: whose it is.
    pub(super) fn arriving(&mut self, circuit: &CircuitKey, session: u64) {
        let key = (circuit.origin.clone(), session);
        if let MapEntry::Vacant(vacant) = self.sessions.entry(key.clone()) {
            let (mut entry, ends) = Session::new(circuit.origin.clone(), self.labels.new_session());
            self.by_address.insert(entry.address, key.clone());
            entry.unclaimed = Some(ends);
            vacant.insert(entry);
            self.changed = true;
        }
        self.arrived.insert(circuit.clone(), key);
    }

    /// The end of such a circuit, for its label.
    pub(super) fn end(&mut self, circuit: &CircuitKey) -> Option<CircuitEnd> {
        let key = self.arrived.get(circuit)?;
        Some(self.sessions.get_mut(key)?.end(circuit.id))
    }

    /// Such a circuit is ready.
    pub(super) fn arrive(&mut self, circuit: &CircuitKey, hop: Hop) {
        let Some(session) = self.arrived.get(circuit).and_then(|key| self.sessions.get_mut(key)) else {
            return;
        };
        let way = session.way(circuit.id, hop);
        session.tell(CircuitEvent::Arrived { circuit: circuit.id, way });
    }

    /// Such a circuit is gone.
    pub(super) fn left(&mut self, circuit: &CircuitKey, reason: String) {
        let Some(key) = self.arrived.remove(circuit) else { return };
        let Some(session) = self.sessions.get_mut(&key) else { return };
        session.lose(circuit.id, reason);
        if session.is_over() {
            self.by_address.remove(&session.address);
            self.sessions.remove(&key);
            self.changed = true;
        }
    }

    /// The neighbour at the other end of a link is at another address.
    pub(super) fn moved(&mut self, link: &Link) {
        let Some(to) = link.address() else { return };
        for session in self.sessions.values_mut() {
            let mut moved = Vec::new();
            for (circuit, way) in session.ways.iter_mut().filter(|(_, way)| way.hop.link == link.serial()) {
                (way.hop.to, way.hop.from) = (to, None);
                moved.push(CircuitEvent::Moved { circuit: *circuit, way: way.clone() });
            }
            moved.into_iter().for_each(|event| session.tell(event));
        }
    }

    /// Forgets sessions of others that have ended without a last circuit that left.
    pub(super) fn sweep(&mut self) {
        for (_, session) in
            self.sessions.extract_if(|(origin, _), session| *origin != self.own && session.is_over())
        {
            self.by_address.remove(&session.address);
            self.changed = true;
        }
    }

    /// The nodes that there are sessions with, if that may have changed since the last call.
    pub(super) fn in_use(&mut self) -> Option<BTreeSet<NodeId>> {
        let changed = std::mem::take(&mut self.changed);
        changed.then(|| self.sessions.values().map(|session| session.node.clone()).collect())
    }
}

/// Where a circuit goes from here.
pub(super) fn hop(link: &Link, label: Label) -> Option<Hop> {
    Some(Hop { to: link.address()?, from: link.local_ip(), label, link: link.serial() })
}
