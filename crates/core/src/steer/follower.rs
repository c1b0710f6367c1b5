//! The side that was dialled: it does as the newest map says, and speaks up when it sends into silence.

use std::time::Duration;

use super::asks::Asks;
use super::{BUSY, FAST, IDLE, MAX_CIRCUITS, Map, SLOW};
use crate::select::SLOTS;
use crate::time::Time;

/// Circuits that a Follower knows at most: all that a Decider has, and as many that are on their way out.
pub const MAX_ARRIVED: usize = 2 * MAX_CIRCUITS;

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FollowerStep {
    /// Point the slots so
    Point(Map),
    /// Send a suspicious Ask over a circuit
    Ask {
        /// Which
        circuit: u64,
        /// Its number there
        seq: u32,
    },
}

/// The following side of one session. See the [module](super) for how to drive it.
#[derive(Debug)]
pub struct Follower {
    circuits: Vec<Arrived>,
    /// What the Decider said last
    told: Map,
    map: Map,
    /// What was last pointed at
    pointed: Map,
    /// While suspicious: when to ask next, and how long after that again
    next: Option<(Time, Duration)>,
    polled: Time,
    /// Since when there is something to do at once
    event: Option<Time>,
}

#[derive(Debug)]
struct Arrived {
    id: u64,
    asks: Asks,
    heard: Time,
    /// When data was last sent over it; 0 for never
    sent: Time,
    /// When that began, after a second without
    sending: Time,
}

impl Arrived {
    /// From when on it is suspect.
    fn suspect_at(&self) -> Time {
        self.heard.max(self.sending + self.asks.rtt()) + self.asks.limit()
    }

    /// Whether data was sent over it within the last second.
    fn busy(&self, now: Time) -> bool {
        self.sent > Time(0) && now - self.sent < BUSY
    }
}

impl Follower {
    /// One without circuits.
    pub fn new(now: Time) -> Self {
        Self {
            circuits: Vec::new(),
            told: Map::default(),
            map: Map::default(),
            pointed: Map::default(),
            next: None,
            polled: now,
            event: None,
        }
    }

    /// A circuit of the session is there. Beyond [`MAX_ARRIVED`] the one in no slot that was silent longest is forgotten.
    pub fn arrived(&mut self, circuit: u64, now: Time) {
        if circuit == 0 || self.find(circuit).is_some() {
            return;
        }
        if self.circuits.len() >= MAX_ARRIVED {
            let slots = self.map.slots;
            let spare = self.circuits.iter().enumerate().filter(|(_, known)| !slots.contains(&known.id));
            if let Some((at, _)) = spare.min_by_key(|(_, known)| known.heard) {
                self.circuits.remove(at);
            }
        }
        let asks = Asks::default();
        self.circuits.push(Arrived { id: circuit, asks, heard: now, sent: Time(0), sending: Time(0) });
        self.follow(now);
    }

    /// A circuit of the session is gone.
    pub fn left(&mut self, circuit: u64, now: Time) {
        self.circuits.retain(|known| known.id != circuit);
        self.follow(now);
    }

    /// A probe of the Decider came with this map. Older ones than the newest are ignored.
    pub fn heard_map(&mut self, map: Map, now: Time) {
        if map.epoch > self.told.epoch {
            self.told = map;
            self.follow(now);
        }
    }

    /// When a circuit last carried a packet to us, data to us, and data from us; `Time(0)` for never.
    pub fn activity(&mut self, circuit: u64, heard: Time, _heard_data: Time, sent_data: Time) {
        let Some(known) = self.find(circuit) else { return };
        known.heard = known.heard.max(heard);
        if sent_data > known.sent {
            if known.sent == Time(0) || sent_data - known.sent >= BUSY {
                known.sending = sent_data;
            }
            known.sent = sent_data;
        }
    }

    /// An Echo came over a circuit.
    pub fn echo(&mut self, circuit: u64, seq: u32, now: Time) {
        let Some(known) = self.find(circuit) else { return };
        if known.asks.echo(seq, false, now) {
            known.heard = known.heard.max(now);
        }
    }

    /// Does what is due. To be called at [`deadline`](Self::deadline), and when the [module](super) says so.
    pub fn poll(&mut self, now: Time, out: &mut Vec<FollowerStep>) {
        (self.polled, self.event) = (now, None);
        if self.map != self.pointed {
            self.pointed = self.map;
            out.push(FollowerStep::Point(self.map));
        }
        self.circuits.iter_mut().for_each(|known| known.asks.settle(now));
        let suspects: Vec<u64> = self
            .circuits
            .iter()
            .filter(|known| {
                self.map.slots.contains(&known.id) && known.busy(now) && now >= known.suspect_at()
            })
            .map(|known| known.id)
            .collect();
        if suspects.is_empty() {
            self.next = None;
            return;
        }
        let (at, wait) = self.next.unwrap_or((now, FAST));
        if now < at {
            return;
        }
        self.next = Some((now + wait, (wait * 2).min(SLOW)));
        for known in self.circuits.iter_mut().filter(|known| !suspects.contains(&known.id)) {
            out.push(FollowerStep::Ask { circuit: known.id, seq: known.asks.send(now) });
        }
    }

    /// When to call [`poll`](Self::poll) next. After a poll always later than that.
    pub fn deadline(&self) -> Time {
        let used = self.circuits.iter().filter(|known| self.map.slots.contains(&known.id));
        let suspects = used.filter(|known| known.busy(self.polled)).map(Arrived::suspect_at);
        let times = suspects.chain(self.next.map(|(at, _)| at)).filter(|at| *at > self.polled);
        times.chain([self.polled + IDLE]).chain(self.event).min().unwrap_or(self.polled + IDLE)
    }

    /// The map that the slots are pointed by: the newest, as far as its circuits are there.
    pub fn map(&self) -> Map {
        self.map
    }

    fn find(&mut self, circuit: u64) -> Option<&mut Arrived> {
        self.circuits.iter_mut().find(|known| known.id == circuit)
    }

    /// Points each slot at the circuit that it is to take, or leaves it where it is, or saves it from one that is gone.
    fn follow(&mut self, now: Time) {
        let there = |circuit: u64| self.circuits.iter().any(|known| known.id == circuit);
        let talking = self.circuits.iter().rev().max_by_key(|known| known.heard).map(|known| known.id);
        let mut slots = [0; SLOTS];
        for (slot, (told, before)) in slots.iter_mut().zip(self.told.slots.into_iter().zip(self.map.slots)) {
            *slot = match (there(told), there(before)) {
                (true, _) => told,
                (false, true) => before,
                (false, false) => talking.unwrap_or(before),
            };
        }
        self.map = Map { epoch: self.told.epoch, slots };
        if self.map != self.pointed {
            self.event.get_or_insert(now);
        }
    }
}
