//! Circuits: labels installed along a route. Each node chooses the label it accepts and tells the one before.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ffmesh_core::id::NodeId;
use ffmesh_core::label::Label;
use ffmesh_core::time::Time;
use ffmesh_core::wire::{CircuitAck, CircuitClose, CircuitOpen, Message};
use tokio::sync::{mpsc, oneshot};

use super::Route;
use crate::clock;
use crate::identity::KeyHash;
use crate::link::Link;
use crate::socket::{CircuitEnd, Hop, Labels, SlotAddr, Way};

/// Sessions of one node that circuits may be set up for; what was pointed longest ago is forgotten. One is in use,
/// one may be retired, others are left from before the node restarted or dialled anew.
const MAX_SESSIONS_PER_ORIGIN: usize = 4;
/// Circuits that end here, over all neighbours.
const MAX_CIRCUITS: usize = 20_000;
/// How long the answer to CIRCUIT_OPEN may take.
const OPEN_TIMEOUT: Duration = Duration::from_secs(2);

pub(super) type Answer = oneshot::Sender<Result<Circuit, CircuitError>>;

/// Why a circuit was not set up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CircuitError {
    /// The link of the first hop is gone.
    #[error("the link to the route's first node is gone")]
    NoLink,
    /// A node of the route refused.
    #[error("refused by a node of the route: {0}")]
    Refused(String),
    /// No answer in time.
    #[error("no answer within 2 s")]
    Timeout,
    /// The node is shutting down.
    #[error("the node is shutting down")]
    Stopping,
}

/// A circuit that this node set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Circuit {
    /// Its number; with this node's id it names the circuit
    pub id: u64,
    /// Its route
    pub route: Route,
    slot: SlotAddr,
    /// What this node accepts
    inbound: Label,
    /// What the next node accepts
    outbound: Label,
}

impl Circuit {
    /// The neighbour that is its first hop.
    pub fn next(&self) -> &NodeId {
        &self.route.nodes[1]
    }
}

struct Opening {
    link: u64,
    route: Route,
    slot: SlotAddr,
    inbound: Label,
    answer: Answer,
    until: Time,
}

/// A circuit that another node set up and that ends here.
struct Ending {
    link: u64,
    id: u64,
    inbound: Label,
    outbound: Label,
}

/// A session of another node that circuits were set up for.
struct RemoteSession {
    id: u64,
    epoch: u64,
    slots: HashMap<u8, (SlotAddr, Option<Ending>)>,
}

/// Who set up the circuit behind a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The first node of its route
    pub node: NodeId,
    /// That node's boot epoch
    pub epoch: u64,
    /// That node's key, as it proved on its link
    pub key: KeyHash,
}

pub(super) struct Circuits {
    own: NodeId,
    labels: Labels,
    opening: HashMap<u64, Opening>,
    open: HashMap<u64, Circuit>,
    /// By the node that set them up, the session that was pointed longest ago first.
    origins: HashMap<NodeId, VecDeque<RemoteSession>>,
    by_slot: HashMap<SlotAddr, Origin>,
}

impl Circuits {
    pub(super) fn new(own: NodeId, labels: Labels) -> Self {
        Self {
            own,
            labels,
            opening: HashMap::new(),
            open: HashMap::new(),
            origins: HashMap::new(),
            by_slot: HashMap::new(),
        }
    }

    /// Asks the first hop for a circuit.
    pub(super) fn open(
        &mut self,
        link: Option<Link>,
        route: Route,
        session: u64,
        address: SlotAddr,
        answer: Answer,
    ) {
        let current = link.filter(|link| link.serial() == route.link);
        let Some((link, to)) = current.and_then(|link| link.address().map(|to| (link, to))) else {
            let _ = answer.send(Err(CircuitError::NoLink));
            return;
        };
        let id = rand::random();
        let inbound = accept(&self.labels, address, id, link.serial(), to);
        link.send(Message::CircuitOpen(CircuitOpen {
            circuit: id,
            route: route.nodes.clone(),
            session,
            label: inbound,
        }));
        let until = clock::now() + OPEN_TIMEOUT;
        self.opening
            .insert(id, Opening { link: link.serial(), route, slot: address, inbound, answer, until });
    }

    pub(super) fn on_ack(&mut self, link: &Link, ack: &CircuitAck) {
        // The answer counts only from the link that was asked.
        let asked = self.opening.get(&ack.circuit).is_some_and(|opening| opening.link == link.serial());
        if ack.origin != self.own || !asked {
            return;
        }
        let Some(opening) = self.opening.remove(&ack.circuit) else { return };
        let Some((outbound, to)) = ack.label.zip(link.address()) else {
            self.labels.remove(opening.inbound);
            let reason = ack.reason.as_deref().unwrap_or("no reason given").escape_debug().to_string();
            let _ = opening.answer.send(Err(CircuitError::Refused(reason)));
            return;
        };
        let circuit = Circuit {
            id: ack.circuit,
            route: opening.route,
            slot: opening.slot,
            inbound: opening.inbound,
            outbound,
        };
        point(&self.labels, circuit.slot, link, to, outbound);
        self.open.insert(circuit.id, circuit.clone());
        if opening.answer.send(Ok(circuit.clone())).is_err() {
            self.close(Some(link), &circuit); // nobody waits for it any more
        }
    }

    /// Takes down a circuit of this node's.
    pub(super) fn close(&mut self, link: Option<&Link>, circuit: &Circuit) {
        if self.open.remove(&circuit.id).is_none() {
            return; // went down with its link
        }
        self.labels.remove(circuit.inbound);
        unpoint(&self.labels, circuit.slot, circuit.outbound);
        if let Some(link) = link.filter(|link| link.serial() == circuit.route.link) {
            link.send(Message::CircuitClose(CircuitClose {
                origin: self.own.clone(),
                circuit: circuit.id,
                reason: None,
            }));
        }
    }

    /// A neighbour asks for a circuit: this node is its end, as it relays nothing yet.
    pub(super) fn on_open(&mut self, link: &Link, open: &CircuitOpen) {
        let origin = link.node().clone();
        let refuse = |reason: &str| {
            tracing::debug!(peer = %origin, "circuit refused: {reason}"); // who asked says more
            link.send(Message::CircuitAck(CircuitAck {
                origin: open.route[0].clone(),
                circuit: open.circuit,
                label: None,
                reason: Some(reason.to_owned()),
            }));
        };
        if open.route[0] != origin || open.route.len() != 2 || open.route[1] != self.own {
            return refuse("this node relays nothing in this version");
        }
        if self.by_slot.len() >= MAX_CIRCUITS {
            self.forget_unused();
        }
        if self.by_slot.len() >= MAX_CIRCUITS {
            return refuse("all circuits are in use");
        }
        let Some(to) = link.address() else { return };

        let sessions = self.origins.entry(origin.clone()).or_default();
        let known =
            sessions.iter().position(|known| known.id == open.session).and_then(|at| sessions.remove(at));
        if known.is_none()
            && sessions.len() >= MAX_SESSIONS_PER_ORIGIN
            && let Some(oldest) = sessions.pop_front()
        {
            for (slot, ending) in oldest.slots.into_values() {
                self.by_slot.remove(&slot);
                forget(&self.labels, slot, ending);
            }
        }
        sessions.push_back(known.unwrap_or_else(|| RemoteSession {
            id: open.session,
            epoch: link.epoch(),
            slots: HashMap::new(),
        }));
        let Some(session) = sessions.back_mut() else { return };
        let (slot, ending) =
            session.slots.entry(0).or_insert_with(|| (self.labels.new_session().slot(0), None));
        self.by_slot
            .insert(*slot, Origin { node: origin.clone(), epoch: session.epoch, key: link.peer().key });
        forget(&self.labels, *slot, ending.take());
        let inbound = accept(&self.labels, *slot, open.circuit, link.serial(), to);
        point(&self.labels, *slot, link, to, open.label);
        *ending = Some(Ending { link: link.serial(), id: open.circuit, inbound, outbound: open.label });
        link.send(Message::CircuitAck(CircuitAck {
            origin,
            circuit: open.circuit,
            label: Some(inbound),
            reason: None,
        }));
    }

    /// Forgets the slots that no circuit ends at: their sessions wait for a route, which is worth less than new ones.
    fn forget_unused(&mut self) {
        for sessions in self.origins.values_mut() {
            sessions.retain(|session| {
                let used = session.slots.values().any(|(_, ending)| ending.is_some());
                if !used {
                    for (slot, _) in session.slots.values() {
                        self.by_slot.remove(slot);
                    }
                }
                used
            });
        }
        self.origins.retain(|_, sessions| !sessions.is_empty());
    }

    pub(super) fn on_close(&mut self, link: &Link, close: &CircuitClose) {
        let Some(sessions) = self.origins.get_mut(&close.origin) else { return };
        for session in sessions.iter_mut() {
            session.slots.retain(|_, (slot, ending)| {
                let closed =
                    ending.as_ref().is_some_and(|e| e.link == link.serial() && e.id == close.circuit);
                if closed {
                    forget(&self.labels, *slot, ending.take());
                    self.by_slot.remove(slot);
                }
                !closed
            });
        }
        sessions.retain(|session| !session.slots.is_empty());
        if sessions.is_empty() {
            self.origins.remove(&close.origin);
        }
    }

    /// A link is gone, and every circuit over it. Their slots stay, to be pointed elsewhere.
    pub(super) fn link_down(&mut self, link: &Link) {
        let serial = link.serial();
        for (_, opening) in self.opening.extract_if(|_, opening| opening.link == serial) {
            self.labels.remove(opening.inbound);
            let _ = opening.answer.send(Err(CircuitError::NoLink));
        }
        for (_, circuit) in self.open.extract_if(|_, circuit| circuit.route.link == serial) {
            self.labels.remove(circuit.inbound);
            unpoint(&self.labels, circuit.slot, circuit.outbound);
        }
        for (slot, ending) in
            self.origins.values_mut().flatten().flat_map(|session| session.slots.values_mut())
        {
            if ending.as_ref().is_some_and(|ending| ending.link == serial) {
                forget(&self.labels, *slot, ending.take());
            }
        }
    }

    /// When [`expire`](Self::expire) has something to do.
    pub(super) fn deadline(&self) -> Option<Time> {
        self.opening.values().map(|opening| opening.until).min()
    }

    /// Gives up on answers that are overdue. Returns who is to be told, and what: it may have set up its part.
    pub(super) fn expire(&mut self, now: Time) -> Vec<(NodeId, CircuitClose)> {
        let overdue = self.opening.extract_if(|_, opening| opening.until <= now);
        overdue
            .map(|(circuit, opening)| {
                self.labels.remove(opening.inbound);
                let _ = opening.answer.send(Err(CircuitError::Timeout));
                let next = opening.route.nodes[1].clone();
                (next, CircuitClose { origin: self.own.clone(), circuit, reason: None })
            })
            .collect()
    }

    pub(super) fn origin(&self, slot: SlotAddr) -> Option<Origin> {
        self.by_slot.get(&slot).cloned()
    }
}

/// A fresh label for the end of a circuit, accepted from the other end of a link.
fn accept(labels: &Labels, slot: SlotAddr, circuit: u64, link: u64, from: SocketAddr) -> Label {
    let label = Label::from_random(rand::random());
    let (probes, _) = mpsc::channel(1); // nobody probes yet
    let end = CircuitEnd { session: slot.session(), circuit, activity: Arc::default(), probes };
    labels.install_end(label, link, from, end);
    label
}

fn point(labels: &Labels, slot: SlotAddr, link: &Link, to: SocketAddr, label: Label) {
    let hop = Hop { to, from: link.local_ip(), label, link: link.serial() };
    labels.point(slot, Some(Way { hop, activity: Arc::default() }));
}

/// Takes a slot's circuit away, if it is still the one with this label.
fn unpoint(labels: &Labels, slot: SlotAddr, label: Label) {
    if labels.hop(slot).is_some_and(|hop| hop.label == label) {
        labels.point(slot, None);
    }
}

fn forget(labels: &Labels, slot: SlotAddr, ending: Option<Ending>) {
    let Some(ending) = ending else { return };
    labels.remove(ending.inbound);
    unpoint(labels, slot, ending.outbound);
}
