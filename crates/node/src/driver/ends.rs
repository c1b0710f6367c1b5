//! The ends of circuits at this node, by the session that they are for.
//!
//! A session that this node dials is entered with its number, one of another node with the first circuit that arrives for
//! it. Its task gets [`CircuitEvent`]s and probes on channels, and points its slots by itself.

use std::collections::hash_map::Entry as MapEntry;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use ffmesh_core::circuit::{CircuitKey, OpenError};
use ffmesh_core::id::NodeId;
use ffmesh_core::label::Label;
use ffmesh_core::steer::Path;
use ffmesh_core::time::Time;
use tokio::sync::{Notify, mpsc};

use crate::clock;
use crate::link::Link;
use crate::socket::{Activity, CircuitEnd, Hop, Labels, ReceivedProbe, SessionAddr, Way};

/// Events of circuits that may wait for a session: a few for each of its circuits. What does not fit is lost, and probes
/// find out.
const EVENTS: usize = 128;
/// Probes that may wait for a session: what comes within its longest turn. More are lost, as probes may be.
const PROBES: usize = 64;

/// Circuits of a session of another node that came over one link: along each route one, and one that replaces it.
const MAX_CIRCUITS_OF_LINK: usize = 4;
/// How long a session of another node may take to begin once its first circuit is there.
const UNCLAIMED: Duration = Duration::from_secs(10);

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
    unclaimed: Option<(SessionEnds, Time)>,
    /// With the link that each came over, where another node set it up
    circuits: HashMap<u64, (Arc<Activity>, Option<u64>)>,
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
        self.circuits.entry(circuit).or_insert_with(|| (new(), None)).0.clone()
    }

    /// Whether a circuit of another node, over a link, is one of this session from now on. Whoever is on one route of a
    /// session knows its number, and must not drown the circuits that come over other links.
    fn admit(&mut self, circuit: u64, link: u64) -> bool {
        let of_link = self.circuits.values().filter(|(_, over)| *over == Some(link)).count();
        let admitted = of_link < MAX_CIRCUITS_OF_LINK;
        if admitted {
            let activity = self.activity(circuit);
            self.circuits.insert(circuit, (activity, Some(link)));
        }
        admitted
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
        let (ends, _) = session.unclaimed.take()?;
        self.changed = true;
        Some((session.node.clone(), ends))
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

    fn own_session(&mut self, session: u64) -> Option<&mut Session> {
        self.sessions.get_mut(&(self.own.clone(), session))
    }

    /// The end of an own circuit, for its label.
    pub(super) fn own_end(&mut self, circuit: u64) -> Option<CircuitEnd> {
        let session = self.paths.get(&circuit)?.0;
        Some(self.own_session(session)?.end(circuit))
    }

    /// An own circuit is set up.
    pub(super) fn opened(&mut self, circuit: u64, hop: Hop) {
        let Some((session, path)) = self.paths.get(&circuit).cloned() else { return };
        let Some(session) = self.own_session(session) else { return };
        let way = session.way(circuit, hop);
        session.tell(CircuitEvent::Opened { path, circuit, way });
    }

    /// An own circuit did not come about.
    pub(super) fn failed(&mut self, circuit: u64, error: OpenError) {
        let Some((session, path)) = self.paths.remove(&circuit) else { return };
        let Some(session) = self.own_session(session) else { return };
        session.circuits.remove(&circuit);
        session.tell(CircuitEvent::Failed { path, error });
    }

    /// An own circuit is gone.
    pub(super) fn closed(&mut self, circuit: u64, reason: String) {
        let Some((session, _)) = self.paths.remove(&circuit) else { return };
        if let Some(session) = self.own_session(session) {
            session.lose(circuit, reason);
        }
    }

    /// An own circuit is closed by its session, which knows.
    pub(super) fn close(&mut self, circuit: u64) {
        let Some((session, _)) = self.paths.remove(&circuit) else { return };
        if let Some(session) = self.own_session(session) {
            session.circuits.remove(&circuit);
            session.ways.remove(&circuit);
        }
    }

    /// A circuit of another node ends here: whose it is.
    pub(super) fn arriving(&mut self, circuit: &CircuitKey, session: u64, link: u64) {
        let key = (circuit.origin.clone(), session);
        if let MapEntry::Vacant(vacant) = self.sessions.entry(key.clone()) {
            let (mut entry, ends) = Session::new(circuit.origin.clone(), self.labels.new_session());
            self.by_address.insert(entry.address, key.clone());
            entry.unclaimed = Some((ends, clock::now()));
            vacant.insert(entry);
        }
        if !self.sessions.get_mut(&key).is_some_and(|session| session.admit(circuit.id, link)) {
            return; // it stays dark: nothing comes in by it
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
            for event in moved {
                session.tell(event);
            }
        }
    }

    /// Forgets sessions of others that have not begun in time, or have ended without a last circuit that left.
    pub(super) fn sweep(&mut self, now: Time) {
        for session in self.sessions.values_mut() {
            if session.unclaimed.as_ref().is_some_and(|(_, since)| now - *since >= UNCLAIMED) {
                session.unclaimed = None; // and with it the channels
                session.circuits.clear();
            }
        }
        for (_, session) in
            self.sessions.extract_if(|(origin, _), session| *origin != self.own && session.is_over())
        {
            self.by_address.remove(&session.address);
            self.changed = true;
        }
    }

    /// The nodes that there are sessions with, if that may have changed since the last call. One that has set up a circuit
    /// and not begun has proved nothing.
    pub(super) fn in_use(&mut self) -> Option<BTreeSet<NodeId>> {
        let changed = std::mem::take(&mut self.changed);
        let begun = |session: &&Session| session.unclaimed.is_none();
        changed.then(|| self.sessions.values().filter(begun).map(|session| session.node.clone()).collect())
    }
}

/// Where a circuit goes from here.
pub(super) fn hop(link: &Link, label: Label) -> Option<Hop> {
    Some(Hop { to: link.address()?, from: link.local_ip(), label, link: link.serial() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends() -> Ends {
        Ends::new("own".parse().unwrap(), Labels::default())
    }

    fn hop(link: u64) -> Hop {
        let to = "192.0.2.1:3334".parse().unwrap();
        Hop { to, from: None, label: Label::from_random(link), link }
    }

    fn circuit(id: u64) -> CircuitKey {
        CircuitKey { origin: "far".parse().unwrap(), id }
    }

    /// A circuit of node `far` for its session 7, over a link.
    fn arrive(ends: &mut Ends, id: u64, link: u64) -> Option<CircuitEnd> {
        ends.arriving(&circuit(id), 7, link);
        ends.arrive(&circuit(id), hop(link));
        ends.end(&circuit(id))
    }

    #[tokio::test]
    async fn a_session_of_another_node_is_claimed_once_and_hears_of_its_circuits() {
        let mut ends = ends();
        let end = arrive(&mut ends, 1, 5).unwrap();
        assert_eq!(ends.in_use(), None, "who has not begun has proved nothing");
        let (node, mut claimed) = ends.claim(end.session).unwrap();
        assert_eq!((node.as_str(), claimed.address), ("far", end.session));
        assert!(ends.claim(end.session).is_none());
        assert_eq!(ends.in_use(), Some(BTreeSet::from([node])));
        assert!(matches!(claimed.events.recv().await, Some(CircuitEvent::Arrived { circuit: 1, .. })));
        assert_eq!(arrive(&mut ends, 2, 6).unwrap().session, end.session, "the same session");
        assert!(matches!(claimed.events.recv().await, Some(CircuitEvent::Arrived { circuit: 2, .. })));
        ends.left(&circuit(1), "gone".to_owned());
        assert!(matches!(claimed.events.recv().await, Some(CircuitEvent::Gone { circuit: 1, .. })));
        drop(claimed);
        ends.left(&circuit(2), "gone".to_owned());
        assert_eq!(ends.in_use(), Some(BTreeSet::new()));
        assert!(ends.sessions.is_empty() && ends.by_address.is_empty() && ends.arrived.is_empty());
    }

    #[test]
    fn circuits_over_one_link_do_not_drown_those_over_others() {
        let mut ends = ends();
        let most = u64::try_from(MAX_CIRCUITS_OF_LINK).unwrap();
        for id in 0..100 {
            assert_eq!(arrive(&mut ends, id, 5).is_some(), id < most, "circuit {id}");
        }
        assert!(arrive(&mut ends, 100, 6).is_some(), "another link");
        ends.left(&circuit(0), "gone".to_owned());
        assert!(arrive(&mut ends, 101, 5).is_some(), "a place is free again");
    }

    #[test]
    fn a_session_that_does_not_begin_is_forgotten() {
        let mut ends = ends();
        let address = arrive(&mut ends, 1, 5).unwrap().session;
        ends.sweep(clock::now());
        assert_eq!(ends.sessions.len(), 1);
        ends.sweep(clock::now() + UNCLAIMED);
        assert!(ends.sessions.is_empty() && ends.claim(address).is_none());
        ends.left(&circuit(1), "gone".to_owned());
    }

    #[tokio::test]
    async fn an_own_session_has_its_circuits_until_it_leaves() {
        let mut ends = ends();
        let path: Path = ["own", "r", "far"].map(|id| id.parse().unwrap()).into();
        let mut session = ends.enter(3, "far".parse().unwrap());
        assert!(ends.opening(3, 11, path.clone()) && !ends.opening(4, 12, path.clone()));
        let end = ends.own_end(11).unwrap();
        assert_eq!((end.session, end.circuit), (session.address, 11));
        ends.opened(11, hop(5));
        match session.events.recv().await {
            Some(CircuitEvent::Opened { path: along, circuit: 11, way }) => {
                assert!(
                    along == path && Arc::ptr_eq(&way.activity, &end.activity),
                    "one activity for both ways"
                );
            }
            other => panic!("{other:?}"),
        }
        ends.opening(3, 13, path.clone());
        ends.failed(13, OpenError::Timeout);
        assert!(matches!(session.events.recv().await, Some(CircuitEvent::Failed { .. })));
        ends.closed(11, "cut".to_owned());
        assert!(matches!(session.events.recv().await, Some(CircuitEvent::Gone { circuit: 11, .. })));
        ends.opening(3, 14, path);
        assert_eq!(ends.leave(3), [14]);
        assert!(ends.sessions.is_empty() && ends.paths.is_empty());
    }
}
