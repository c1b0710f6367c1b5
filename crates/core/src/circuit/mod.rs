//! Circuits: labels installed along a route, a pair on each hop. The part of one node, whichever place it has on a route.
//!
//! ```text
//!   first               relay               last
//!     │─── OPEN, label 1 ─▶│─── OPEN, label 2 ─▶│    each label: what the sender of the
//!     │◀── ACK, label 4 ───│◀── ACK, label 3 ───│    message accepts from its receiver
//!     │                    │                    │
//!     │══ 4 ══════════════▶│══ 3 ══════════════▶│    packets
//!     │◀═════════════ 1 ═══│◀═════════════ 2 ═══│
//! ```
//!
//! A circuit is known at every node of its route or about to be forgotten by all: whoever forgets it first, because its
//! first node closed it, a link is gone, an answer did not come or it was idle, tells both sides, and they go on telling.
//! Links lose and reorder nothing while they live, and one that dies is an event at both its ends, so nothing has to be
//! sent again and nobody is left with a circuit that the others have forgotten.
//!
//! A message counts only on a link that its circuit uses, and for what that side of it may say: no neighbour can touch
//! a circuit that does not pass through it.

mod action;
mod index;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub use action::{Action, Forward, OpenError};
use index::{Circuit, Index, Side};

use crate::flood::LinkId;
use crate::id::NodeId;
use crate::label::Label;
use crate::text::foreign;
use crate::time::Time;
use crate::wire::{CircuitAck, CircuitClose, CircuitOpen, MAX_ROUTE_LEN, Message};

/// How long the first node waits for the answer to CIRCUIT_OPEN: 15 hops of 60 ms there and back.
pub const OPEN_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a relay waits for it. Longer than [`OPEN_TIMEOUT`]: it is the first node that gives up, where it lives.
pub const RELAY_TIMEOUT: Duration = Duration::from_secs(3);
/// Transit circuits that came over one link, and as many that came over it and end here: all that a thousand nodes behind
/// one relay need, and about 3 MB. No neighbour can use up what is there for all.
pub const PER_LINK: usize = 4096;
/// Circuits that end here, over all links: two for each node of a mesh of 10,000.
pub const ENDS: usize = 20_000;
/// Circuits along one route that end here. A session has one, and one more for the moment in which it is replaced; two
/// nodes have up to three sessions in either direction, and some that just ended.
pub const PER_ROUTE: usize = 32;

/// Names a circuit in the mesh.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CircuitKey {
    /// First node of its route
    pub origin: NodeId,
    /// 64 random bits, chosen by that node
    pub id: u64,
}

/// How many circuits of others a node has at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Transit circuits that came over one link; see [`PER_LINK`]
    pub per_link: usize,
    /// Circuits that came over one link and end here; see [`PER_LINK`]
    pub ends_per_link: usize,
    /// Circuits that end here; see [`ENDS`]
    pub ends: usize,
    /// Those of them that came along one route, at least 1; the oldest gives way to the next. See [`PER_ROUTE`]
    pub per_route: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { per_link: PER_LINK, ends_per_link: PER_LINK, ends: ENDS, per_route: PER_ROUTE }
    }
}

/// A source of random numbers. What it gives must be impossible to guess: a label is all that a packet needs to be let in.
pub type Draw<'a> = &'a mut dyn FnMut() -> u64;

/// The circuits that start at, end at and pass through a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Circuits {
    own: NodeId,
    limits: Limits,
    willing: bool,
    index: Index,
}

impl Circuits {
    /// A node without links, that carries no transit yet.
    pub fn new(own: NodeId, limits: Limits) -> Self {
        Self { own, limits, willing: false, index: Index::default() }
    }

    /// Whether this node carries transit from now on. Circuits that pass through it already stay.
    pub fn relay(&mut self, willing: bool) {
        self.willing = willing;
    }

    /// A link came up. Of several to one neighbour the one with the highest number is used for what is opened from now on.
    pub fn link_up(&mut self, link: LinkId, neighbor: NodeId) {
        self.index.link_up(link, neighbor);
    }

    /// A link went down, and with it every circuit over it. The first node of each is told at once, hop by hop.
    pub fn link_down(&mut self, link: LinkId, out: &mut Vec<Action>) {
        let Some((neighbor, lost)) = self.index.link_down(link) else { return };
        let reason = format!("the link between {} and {neighbor} is gone", self.own);
        for key in lost {
            self.end(&key, Some(link), Some(reason.clone()), |_| OpenError::NoLink, out);
        }
    }

    /// Asks for a circuit along a route that starts here, and ends in [`Action::Opened`] or [`Action::Failed`], unless it
    /// is closed before. Its `id` is random and not used again; what is no route or no new id fails and harms none.
    pub fn open(
        &mut self,
        id: u64,
        route: Vec<NodeId>,
        session: u64,
        random: Draw,
        now: Time,
        out: &mut Vec<Action>,
    ) {
        let key = self.own_key(id);
        let place = place(&route, &self.own);
        if place != Some(0) || self.index.get(&key).is_some() {
            let error =
                OpenError::Refused(format!("{} has no such route, or this circuit already", self.own));
            return out.push(Action::Failed { id, error });
        }
        let Some(link) = route.get(1).and_then(|next| self.index.link_to(next)) else {
            return out.push(Action::Failed { id, error: OpenError::NoLink });
        };
        let label = self.index.accept(&key, random);
        let after = Side { link, inbound: Some(label) };
        let open = CircuitOpen { circuit: id, route: route.clone(), session, label };
        let until = Some(now + OPEN_TIMEOUT);
        self.index.insert(key, Circuit { session, route, before: None, after: Some(after), until });
        out.push(Action::Install { label, link, to: Forward::Own(id) });
        out.push(Action::Send(link, Message::CircuitOpen(open)));
    }

    /// Closes an own circuit, whether it is open yet or not. No other action of it follows.
    pub fn close(&mut self, id: u64, out: &mut Vec<Action>) {
        self.forget(&self.own_key(id), None, None, out);
    }

    /// A message came over a link. Those that are not about circuits are ignored.
    pub fn message(
        &mut self,
        link: LinkId,
        message: Message,
        random: Draw,
        now: Time,
        out: &mut Vec<Action>,
    ) {
        match message {
            Message::CircuitOpen(open) => self.on_open(link, open, random, now, out),
            Message::CircuitAck(ack) => self.on_ack(link, ack, random, out),
            Message::CircuitClose(close) => self.on_close(link, close, out),
            _ => {}
        }
    }

    /// No packet came with this label for long. A transit circuit is closed both ways; any other is its session's matter.
    pub fn idle(&mut self, label: Label, out: &mut Vec<Action>) {
        let Some(key) = self.index.by_label(label).cloned() else { return };
        if self.index.get(&key).is_some_and(Circuit::is_transit) {
            self.end(&key, None, Some(format!("idle at {}", self.own)), OpenError::Refused, out);
        }
    }

    /// Gives up on answers that are overdue.
    pub fn poll(&mut self, now: Time, out: &mut Vec<Action>) {
        while let Some((key, next)) = self.index.overdue(now) {
            let wait = RELAY_TIMEOUT.as_secs();
            let reason = (key.origin != self.own)
                .then(|| format!("{} had no answer from {next} within {wait} s", self.own));
            self.end(&key, None, reason, |_| OpenError::Timeout, out);
        }
    }

    /// When [`poll`](Self::poll) has something to do.
    pub fn deadline(&self) -> Option<Time> {
        self.index.deadline()
    }

    /// How many circuits pass through this node now, those counted that wait for their answer.
    pub fn transit(&self) -> usize {
        self.index.transit()
    }

    /// How many circuits of other nodes end here now.
    pub fn ends(&self) -> usize {
        self.index.ends()
    }

    /// All circuits that this node knows, with their routes.
    pub fn routes(&self) -> impl Iterator<Item = (&CircuitKey, &[NodeId])> {
        self.index.iter().map(|(key, circuit)| (key, circuit.route.as_slice()))
    }

    /// The route of an own circuit, open or opening.
    pub fn route(&self, id: u64) -> Option<&[NodeId]> {
        self.index.get(&self.own_key(id)).map(|circuit| circuit.route.as_slice())
    }

    /// Whether an own circuit is set up: [`Action::Opened`], and nothing since.
    pub fn is_open(&self, id: u64) -> bool {
        self.index.get(&self.own_key(id)).is_some_and(|circuit| circuit.until.is_none())
    }

    fn own_key(&self, id: u64) -> CircuitKey {
        CircuitKey { origin: self.own.clone(), id }
    }

    fn on_open(&mut self, link: LinkId, open: CircuitOpen, random: Draw, now: Time, out: &mut Vec<Action>) {
        let Some(origin) = open.route.first().cloned() else { return };
        let Some(sender) = self.index.neighbor(link).cloned() else { return };
        let key = CircuitKey { origin, id: open.circuit };
        match self.admit(link, &sender, &key, &open.route) {
            Err(reason) => out.push(Action::Send(link, refusal(key, Some(reason)))),
            Ok(Some(next)) => {
                let inbound = self.index.accept(&key, random);
                let before = Side { link, inbound: None };
                let after = Side { link: next, inbound: Some(inbound) };
                let circuit = Circuit {
                    session: open.session,
                    route: open.route.clone(),
                    before: Some(before),
                    after: Some(after),
                    until: Some(now + RELAY_TIMEOUT),
                };
                self.index.insert(key, circuit);
                let to = Forward::Relay { link, label: open.label };
                out.push(Action::Install { label: inbound, link: next, to });
                let onward = CircuitOpen { label: inbound, ..open };
                out.push(Action::Send(next, Message::CircuitOpen(onward)));
            }
            Ok(None) => self.arrive(link, key, open, random, out),
        }
    }

    /// Which link an OPEN goes on over, `None` where the route ends here, or why not.
    fn admit(
        &self,
        link: LinkId,
        sender: &NodeId,
        key: &CircuitKey,
        route: &[NodeId],
    ) -> Result<Option<LinkId>, String> {
        let own = &self.own;
        let Some(before) = place(route, own).and_then(|place| place.checked_sub(1)) else {
            return Err(format!("{own} is no further node of this route, or the route is none"));
        };
        if route[before] != *sender {
            return Err(format!("{own} is asked by {sender}, which is not the node before it"));
        }
        if self.index.get(key).is_some() {
            return Err(format!("{own} knows a circuit of this name"));
        }
        let Some(next) = route.get(before + 2) else {
            let full = self.index.ends() >= self.limits.ends
                || self.index.ends_from(link) >= self.limits.ends_per_link;
            let full = full && self.crowded(route).is_none();
            return if full { Err(format!("{own} has too many circuits")) } else { Ok(None) };
        };
        if !self.willing {
            return Err(format!("{own} carries no transit"));
        }
        if self.index.transit_from(link) >= self.limits.per_link {
            return Err(format!("{own} carries as many circuits of {sender} as it can"));
        }
        self.index.link_to(next).map(Some).ok_or_else(|| format!("{own} has no link to {next}"))
    }

    /// The oldest circuit along a route that has as many as it may.
    ///
    /// They are counted by route, not by origin: anyone can name another node as the first, but whoever sends along a
    /// route is on it, as each node checks the one before. So a liar displaces no circuit that it could not break anyway.
    fn crowded(&self, route: &[NodeId]) -> Option<CircuitKey> {
        let along = self.index.along(route)?;
        let oldest = along.front().filter(|_| along.len() >= self.limits.per_route)?;
        Some(CircuitKey { origin: route.first()?.clone(), id: *oldest })
    }

    /// A circuit that ends here.
    fn arrive(
        &mut self,
        link: LinkId,
        key: CircuitKey,
        open: CircuitOpen,
        random: Draw,
        out: &mut Vec<Action>,
    ) {
        if let Some(oldest) = self.crowded(&open.route) {
            let reason = format!("{} has newer circuits along this route", self.own);
            self.end(&oldest, None, Some(reason), OpenError::Refused, out);
        }
        let CircuitOpen { route, session, label, .. } = open;
        let inbound = self.index.accept(&key, random);
        let before = Side { link, inbound: Some(inbound) };
        let circuit =
            Circuit { session, route: route.clone(), before: Some(before), after: None, until: None };
        self.index.insert(key.clone(), circuit);
        // Whose it is comes first: the label is installed for its session.
        out.push(Action::Arrived { key: key.clone(), session, route, link, label });
        out.push(Action::Install { label: inbound, link, to: Forward::End(key.clone()) });
        out.push(Action::Send(link, ack(key, Some(inbound), None)));
    }

    fn on_ack(&mut self, link: LinkId, answer: CircuitAck, random: Draw, out: &mut Vec<Action>) {
        let key = CircuitKey { origin: answer.origin, id: answer.circuit };
        let waiting = self.index.get(&key).filter(|circuit| circuit.until.is_some());
        let asked = waiting.and_then(|circuit| circuit.after);
        if asked.is_none_or(|after| after.link != link) {
            return;
        }
        let Some(label) = answer.label else {
            return self.end(&key, Some(link), answer.reason, OpenError::Refused, out);
        };
        match self.index.answered(&key, random) {
            Some((before, inbound)) => {
                let to = Forward::Relay { link, label };
                out.push(Action::Install { label: inbound, link: before, to });
                out.push(Action::Send(before, ack(key, Some(inbound), None)));
            }
            None => out.push(Action::Opened { id: key.id, link, label }),
        }
    }

    fn on_close(&mut self, link: LinkId, close: CircuitClose, out: &mut Vec<Action>) {
        let key = CircuitKey { origin: close.origin, id: close.circuit };
        if self.index.get(&key).is_some_and(|circuit| circuit.sides().any(|side| side.link == link)) {
            self.end(&key, Some(link), close.reason, OpenError::Refused, out);
        }
    }

    /// A circuit is over, though this node did not close it: [`forget`](Self::forget), and the caller hears of it.
    fn end(
        &mut self,
        key: &CircuitKey,
        from: Option<LinkId>,
        reason: Option<String>,
        error: fn(String) -> OpenError,
        out: &mut Vec<Action>,
    ) {
        let Some(circuit) = self.forget(key, from, reason.clone(), out) else { return };
        let said = |unsaid: &str| reason.map_or_else(|| unsaid.to_owned(), foreign);
        let id = key.id;
        if circuit.before.is_none() {
            let reason = said("no reason given");
            let opening = circuit.until.is_some();
            out.push(if opening {
                Action::Failed { id, error: error(reason) }
            } else {
                Action::Closed { id, reason }
            });
        } else if circuit.after.is_none() {
            let reason = said("its first node closed it");
            out.push(Action::Left { key: key.clone(), session: circuit.session, reason });
        }
    }

    /// Forgets a circuit and its labels, and tells the neighbours on both sides. `from` is the link that the news came over: the
    /// node before this one need not hear its own.
    ///
    /// The node after this one hears it even then: what it said may have been about an earlier circuit of the same name,
    /// where a liar uses names again, and it would be left with this one.
    fn forget(
        &mut self,
        key: &CircuitKey,
        from: Option<LinkId>,
        reason: Option<String>,
        out: &mut Vec<Action>,
    ) -> Option<Circuit> {
        let circuit = self.index.remove(key)?;
        out.extend(circuit.sides().filter_map(|side| side.inbound).map(Action::Remove));
        if let Some(before) = circuit.before.filter(|before| Some(before.link) != from) {
            // An OPEN that waits for its answer gets one.
            let message = if circuit.until.is_some() { refusal } else { closing };
            out.push(Action::Send(before.link, message(key.clone(), reason.clone())));
        }
        if let Some(after) = circuit.after.filter(|after| self.index.neighbor(after.link).is_some()) {
            out.push(Action::Send(after.link, closing(key.clone(), reason)));
        }
        Some(circuit)
    }
}

/// Where on a route a node stands. `None` where it does not, or the route is none: too short, too long, a node twice.
fn place(route: &[NodeId], node: &NodeId) -> Option<usize> {
    let once = |(at, node): (usize, &NodeId)| !route[..at].contains(node);
    let valid = (2..=MAX_ROUTE_LEN).contains(&route.len()) && route.iter().enumerate().all(once);
    route.iter().position(|other| other == node).filter(|_| valid)
}

fn ack(key: CircuitKey, label: Option<Label>, reason: Option<String>) -> Message {
    Message::CircuitAck(CircuitAck { origin: key.origin, circuit: key.id, label, reason })
}

fn refusal(key: CircuitKey, reason: Option<String>) -> Message {
    ack(key, None, reason)
}

fn closing(key: CircuitKey, reason: Option<String>) -> Message {
    Message::CircuitClose(CircuitClose { origin: key.origin, circuit: key.id, reason })
}
