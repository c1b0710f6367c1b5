//! Traces: each node of a route says that it is there, and how its link to the node before it does.
//!
//! ```text
//!           TRACE for 1           TRACE for 2, passed on
//!   a ────────────────▶ r1     a ────────▶ r1 ────────▶ b
//!     ◀────────────────          ◀────────    ◀────────     TRACE_ACK
//! ```
//!
//! The first node of the route sends a TRACE for each of the others and takes the time until each answer. Nodes between
//! remember nothing: the whole route is in every message, and each node looks only whether the message came from where
//! that route says. So a trace shows the links that a circuit along the same route would take, and not how its packets
//! fare.
//!
//! [`Traces`] does both parts: it answers and passes on, and keeps the traces of this node until all answers have come
//! or [`PATIENCE`] is over.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::id::NodeId;
use crate::time::Time;
use crate::wire::{MAX_ROUTE_LEN, Message, Trace, TraceAck};

/// How long a trace waits for its answers: twice what a round trip through many slow relays takes.
pub const PATIENCE: Duration = Duration::from_secs(2);
/// TRACE and TRACE_ACK of one neighbour that are answered or passed on within a second. A trace of the longest route
/// takes 15 of each, and more of them serve nobody who looks at a terminal.
pub const MAX_TRACES_PER_SECOND: u32 = 64;
/// Traces of this node at once.
pub const MAX_OWN: usize = 16;

/// How a link does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Measured {
    /// Smoothed round trip time
    pub rtt: Option<Duration>,
    /// Lost share of the last probes, in thousandths
    pub loss: Option<u16>,
}

/// What a trace found out about one node of its route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hop {
    /// The node
    pub node: NodeId,
    /// From this node to it and back, along the route. None where it did not answer
    pub rtt: Option<Duration>,
    /// Its link to the node before it
    pub link: Measured,
    /// Why there is no more to say
    pub error: Option<String>,
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub enum Action<T> {
    /// Send a message to a neighbour.
    Send(NodeId, Message),
    /// A trace of this node has ended: tell who waits for it. One hop for each node of the route but the first.
    Ended(T, Vec<Hop>),
}

/// A node's part in traces. `T` stands for those who wait for its own.
#[derive(Debug)]
pub struct Traces<T> {
    own: NodeId,
    transit: bool,
    waiting: Vec<Waiting<T>>,
    /// When the second of each neighbour began, and what it sent since.
    rates: BTreeMap<NodeId, (Time, u32)>,
    ignored: u64,
}

/// A trace of this node.
#[derive(Debug)]
struct Waiting<T> {
    route: Vec<NodeId>,
    /// The number of the TRACE for each node but the first.
    numbers: Vec<u64>,
    hops: Vec<Option<Hop>>,
    sent: Time,
    waiter: T,
}

impl<T> Traces<T> {
    /// None yet. With `transit` the node passes messages of others on.
    pub fn new(own: NodeId, transit: bool) -> Self {
        Self { own, transit, waiting: Vec::new(), rates: BTreeMap::new(), ignored: 0 }
    }

    /// Whether messages of others are passed on from now on.
    pub fn relay(&mut self, transit: bool) {
        self.transit = transit;
    }

    /// Traces a route that begins with this node. `links` are those to neighbours; `random` gives 64 random bits.
    pub fn start(
        &mut self,
        route: Vec<NodeId>,
        waiter: T,
        links: impl Fn(&NodeId) -> Option<Measured>,
        random: impl FnMut() -> u64,
        now: Time,
    ) -> Vec<Action<T>> {
        if !(2..=MAX_ROUTE_LEN).contains(&route.len()) || route[0] != self.own {
            return vec![Action::Ended(waiter, Vec::new())];
        }
        let next = route[1].clone();
        let refusal = if links(&next).is_none() {
            Some(no_link(&next))
        } else if self.waiting.len() >= MAX_OWN {
            Some(format!("{MAX_OWN} traces are under way"))
        } else {
            None
        };
        if let Some(error) = refusal {
            let hops = route[1..].iter().map(|node| Hop::silent(node, error.clone())).collect();
            return vec![Action::Ended(waiter, hops)];
        }
        let numbers: Vec<u64> = std::iter::repeat_with(random).take(route.len() - 1).collect();
        let messages = (1..).zip(&numbers).map(|(to, number)| {
            let message = Trace { trace: *number, origin: self.own.clone(), route: route.clone(), to };
            Action::Send(next.clone(), Message::Trace(message))
        });
        let messages = messages.collect();
        let hops = vec![None; numbers.len()];
        self.waiting.push(Waiting { route, numbers, hops, sent: now, waiter });
        messages
    }

    /// A TRACE came from a neighbour.
    pub fn on_trace(
        &mut self,
        from: &NodeId,
        trace: Trace,
        links: impl Fn(&NodeId) -> Option<Measured>,
        now: Time,
    ) -> Option<Action<T>> {
        let (at, to) = (self.position(&trace.route), usize::from(trace.to));
        let in_place = |at: &usize| {
            (1..=to).contains(at) && to < trace.route.len() && trace.route.get(*at - 1) == Some(from)
        };
        let Some(at) = at.filter(in_place).filter(|_| self.admits(from, now)) else {
            self.ignored += 1;
            return None;
        };
        let next = trace.route.get(at + 1).filter(|_| at < to);
        let error = match next {
            None => None,
            Some(_) if !self.transit => Some("carries nothing for others".to_owned()),
            Some(next) if links(next).is_none() => Some(no_link(next)),
            Some(next) => return Some(Action::Send(next.clone(), Message::Trace(trace))),
        };
        let Measured { rtt, loss } = links(from).unwrap_or_default();
        Some(Action::Send(
            from.clone(),
            Message::TraceAck(TraceAck {
                trace: trace.trace,
                origin: trace.origin,
                at: u8::try_from(at).unwrap_or(u8::MAX), // a route has 16 nodes at most
                route: trace.route,
                link_rtt_us: rtt.map(|rtt| u32::try_from(rtt.as_micros()).unwrap_or(u32::MAX)),
                link_loss_permille: loss,
                error,
            }),
        ))
    }

    /// A TRACE_ACK came from a neighbour.
    pub fn on_ack(&mut self, from: &NodeId, ack: TraceAck, now: Time) -> Option<Action<T>> {
        let at = self.position(&ack.route);
        let in_place =
            |at: &usize| *at < usize::from(ack.at) && ack.route.get(*at + 1).is_some_and(|next| next == from);
        match at.filter(in_place) {
            Some(0) => self.on_own_ack(&ack, now),
            Some(at) if self.transit && self.admits(from, now) => {
                Some(Action::Send(ack.route[at - 1].clone(), Message::TraceAck(ack)))
            }
            _ => {
                self.ignored += 1;
                None
            }
        }
    }

    /// An answer for this node.
    fn on_own_ack(&mut self, ack: &TraceAck, now: Time) -> Option<Action<T>> {
        let asked = |waiting: &Waiting<T>| waiting.numbers.iter().position(|number| *number == ack.trace);
        let found = self.waiting.iter().enumerate().find_map(|(i, waiting)| Some((i, asked(waiting)?)));
        let Some((waiting, hop)) = found.filter(|(i, _)| self.waiting[*i].route == ack.route) else {
            self.ignored += 1; // it is late, or nobody has asked
            return None;
        };
        self.waiting[waiting].take(hop, ack, now);
        if self.waiting[waiting].hops.iter().any(Option::is_none) {
            return None;
        }
        let (waiter, hops) = self.waiting.swap_remove(waiting).end();
        Some(Action::Ended(waiter, hops))
    }

    /// When [`expire`](Self::expire) has something to do.
    pub fn deadline(&self) -> Option<Time> {
        self.waiting.iter().map(|waiting| waiting.sent + PATIENCE).min()
    }

    /// Traces of this node whose time is over, and what came.
    pub fn expire(&mut self, now: Time) -> Vec<(T, Vec<Hop>)> {
        let overdue = self.waiting.extract_if(.., |waiting| waiting.sent + PATIENCE <= now);
        overdue.map(Waiting::end).collect()
    }

    /// There is no link to a neighbour any more.
    pub fn link_down(&mut self, neighbor: &NodeId) {
        self.rates.remove(neighbor);
    }

    /// Messages that were out of place, late or too many.
    pub fn ignored(&self) -> u64 {
        self.ignored
    }

    fn position(&self, route: &[NodeId]) -> Option<usize> {
        route.iter().position(|node| *node == self.own)
    }

    /// Counts a message of a neighbour. `false` where there were too many within the second.
    fn admits(&mut self, from: &NodeId, now: Time) -> bool {
        let (since, count) = self.rates.entry(from.clone()).or_insert((now, 0));
        if now - *since >= Duration::from_secs(1) {
            (*since, *count) = (now, 0);
        }
        *count = count.saturating_add(1);
        *count <= MAX_TRACES_PER_SECOND
    }
}

impl<T> Waiting<T> {
    /// Takes the first answer for a hop.
    fn take(&mut self, hop: usize, ack: &TraceAck, now: Time) {
        let (node, by) = (&self.route[hop + 1], usize::from(ack.at));
        let reached = by == hop + 1;
        let new = Hop {
            node: node.clone(),
            rtt: reached.then(|| now - self.sent),
            link: if reached {
                Measured {
                    rtt: ack.link_rtt_us.map(|us| Duration::from_micros(us.into())),
                    loss: ack.link_loss_permille,
                }
            } else {
                Measured::default() // of another node's link
            },
            error: match (&ack.error, self.route.get(by)) {
                (error, _) if reached => error.clone(),
                (Some(error), Some(by)) => Some(format!("{by}: {error}")),
                _ => Some("another node answered".to_owned()),
            },
        };
        self.hops[hop].get_or_insert(new);
    }

    fn end(self) -> (T, Vec<Hop>) {
        let nodes = self.route.iter().skip(1);
        let silent = |node| Hop::silent(node, format!("no answer within {} s", PATIENCE.as_secs()));
        let hops = self.hops.into_iter().zip(nodes).map(|(hop, node)| hop.unwrap_or_else(|| silent(node)));
        (self.waiter, hops.collect())
    }
}

impl Hop {
    /// One that did not answer.
    fn silent(node: &NodeId, error: String) -> Self {
        Self { node: node.clone(), rtt: None, link: Measured::default(), error: Some(error) }
    }
}

fn no_link(next: &NodeId) -> String {
    format!("no link to {next}")
}
