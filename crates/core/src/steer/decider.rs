//! The side that dialled the session: it opens circuits, asks them, and points the slots.

use std::time::Duration;

use super::candidate::{Candidate, Setup};
use super::circuit::{Circuit, Poll};
use super::lateness::Lateness;
use super::{BUSY, Map, Path};
use crate::select::{Offer, SLOTS, Selector, State};
use crate::time::Time;

/// Circuits of a session at most, those that are being opened included: three that are offered and three in slots.
pub const MAX_CIRCUITS: usize = 6;
/// A circuit that was dead for this long is replaced, if no slot takes it: a relay may have forgotten it without our
/// hearing of it.
const REPLACE: Duration = Duration::from_secs(30);
/// A poll this late was kept from running, and so were the packets that wait to be read.
const LATE: Duration = Duration::from_millis(25);
/// After which none is declared dead for this long: time to read them.
const CATCH_UP: Duration = Duration::from_millis(30);

/// A [`Step::Open`] without an answer for this long has failed: circuits give up after
/// [`OPEN_TIMEOUT`](crate::circuit::OPEN_TIMEOUT), and the news of it may be lost.
const NO_ANSWER: Duration = Duration::from_secs(3);

/// What was found out about a circuit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// It answers
    Alive,
    /// It does not answer any more
    Dead,
    /// It loses much
    Impaired,
    /// It loses little again
    Well,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Something was found out about a circuit: for the log
    Verdict {
        /// Its route
        path: Path,
        /// Which
        circuit: u64,
        /// What
        finding: Finding,
        /// What made it so
        why: &'static str,
    },
    /// The route in use was left because it is dead: for the log and the count of failovers
    Failover {
        /// The route that died
        from: Path,
        /// The one that is in use now
        to: Path,
    },
    /// Point the slots so. The Asks after it announce it.
    Point(Map),
    /// Send an Ask over a circuit
    Ask {
        /// Which
        circuit: u64,
        /// Its number there
        seq: u32,
    },
    /// Tear a circuit down
    Close(u64),
    /// Set up a circuit along a route; answer with [`Decider::opened`] or [`Decider::failed`]
    Open(Path),
}

/// The deciding side of one session. See the [module](super) for how to drive it.
#[derive(Debug)]
pub struct Decider {
    pub(super) selector: Selector<Path>,
    pub(super) candidates: Vec<Candidate>,
    pub(super) map: Map,
    /// Epoch of the map that was last pointed at
    pointed: u32,
    /// Circuits that were opened in vain
    stray: Vec<u64>,
    /// Last data on any circuit; 0 before any
    data: Time,
    /// When the Follower last asked; `None` before
    asked: Option<Time>,
    fast: bool,
    pub(super) polled: Time,
    /// Since when there is something to do at once
    event: Option<Time>,
    /// When a poll last came late
    late: Time,
    lateness: Lateness,
    failovers: u64,
}

impl Decider {
    /// One without routes.
    pub fn new(now: Time) -> Self {
        Self {
            selector: Selector::default(),
            candidates: Vec::new(),
            map: Map::default(),
            pointed: 0,
            stray: Vec::new(),
            data: Time(0),
            asked: None,
            fast: false,
            polled: now,
            event: None,
            late: Time(0),
            lateness: Lateness::default(),
            failovers: 0,
        }
    }

    /// Takes in the routes that the mesh has to the other node; see [`Selector::offer`].
    pub fn offer(&mut self, offers: &[Offer<Path>], cost_of: impl Fn(&Path) -> Option<u64>, now: Time) {
        self.selector.offer(offers, cost_of, now);
        self.due(now);
    }

    /// Takes in the circuit that the session was dialled over: alive, and all slots take it.
    pub fn adopt(&mut self, path: &Path, circuit: u64, now: Time) {
        if circuit == 0 || self.candidate(circuit).is_some() {
            return;
        }
        let candidate = self.along(path, now);
        let mut adopted = Circuit::new(circuit, false, now);
        adopted.revive(now);
        let old = std::mem::replace(&mut candidate.setup, Setup::Open(Box::new(adopted)));
        if let Setup::Open(old) = old {
            self.stray.push(old.id);
        }
        self.selector.adopt(path, now);
        self.map = Map { epoch: self.map.epoch.saturating_add(1), slots: [circuit; SLOTS] };
        self.due(now);
    }

    /// The answer to [`Step::Open`]: there is a circuit.
    pub fn opened(&mut self, path: &Path, circuit: u64, now: Time) {
        if circuit == 0 || self.candidate(circuit).is_some() {
            return self.failed(path, now);
        }
        self.due(now);
        let waiting = |candidate: &&mut Candidate| {
            candidate.path == *path && matches!(candidate.setup, Setup::Opening(_))
        };
        let Some(candidate) = self.candidates.iter_mut().find(waiting) else {
            self.stray.push(circuit);
            return;
        };
        candidate.setup = Setup::Open(Box::new(Circuit::new(circuit, candidate.died, now)));
    }

    /// The answer to [`Step::Open`]: there is none. Tried again after 500 ms, doubled each time up to 5 s.
    pub fn failed(&mut self, path: &Path, now: Time) {
        self.due(now);
        let opening = |candidate: &&mut Candidate| {
            candidate.path == *path && matches!(candidate.setup, Setup::Opening(_))
        };
        if let Some(candidate) = self.candidates.iter_mut().find(opening) {
            candidate.fail(now);
        }
    }

    /// A circuit is gone: a relay or a link said so.
    pub fn closed(&mut self, circuit: u64, now: Time) {
        self.due(now);
        let Some(candidate) = self.candidate(circuit) else { return };
        if candidate.circuit().is_some_and(|circuit| circuit.alive) {
            candidate.died = true;
            candidate.succeeded();
            candidate.setup = Setup::Closed(now);
        } else {
            candidate.fail(now);
        }
    }

    /// When a circuit last carried a packet to us, data to us, and data from us; `Time(0)` for never.
    pub fn activity(&mut self, circuit: u64, heard: Time, heard_data: Time, sent_data: Time) {
        let Some(known) = self.candidate(circuit).and_then(Candidate::circuit_mut) else { return };
        known.hear(heard);
        self.data = self.data.max(heard_data).max(sent_data);
    }

    /// An Echo came over a circuit.
    pub fn echo(&mut self, circuit: u64, seq: u32, now: Time) {
        let Some(known) = self.candidate(circuit).and_then(Candidate::circuit_mut) else { return };
        known.echo(seq, now);
        if known.proven() {
            self.due(now);
        }
    }

    /// The Follower sent an Ask: it misses answers, so for a second all live circuits are asked fast.
    pub fn asked(&mut self, circuit: u64, now: Time) {
        if let Some(known) = self.candidate(circuit).and_then(Candidate::circuit_mut) {
            known.hear(now);
            self.asked = Some(now);
            self.due(now);
        }
    }

    /// Does what is due. To be called at [`deadline`](Self::deadline), and when the [module](super) says so.
    pub fn poll(&mut self, now: Time, out: &mut Vec<Step>) {
        let late = now - self.deadline();
        if late > LATE {
            self.late = now;
        }
        self.lateness.poll(late, now);
        (self.polled, self.event) = (now, None);
        self.judge(now, out);
        self.select(now, out);
        let changed = self.point(out);
        self.ask(changed, now, out);
        self.close(now, out);
        self.open(now, out);
    }

    /// When to call [`poll`](Self::poll) next. After a poll always later than that.
    pub fn deadline(&self) -> Time {
        let circuits = self.circuits().map(|circuit| circuit.deadline(self.polled, self.lateness.usual()));
        let retries = self.candidates.iter().filter_map(|candidate| match candidate.setup {
            Setup::Closed(at) => Some(at),
            Setup::Opening(since) => Some(since + NO_ANSWER),
            Setup::Open(_) => None,
        });
        let other = [self.event, self.selector.deadline(self.polled)];
        let times = circuits.chain(retries).filter(|at| *at > self.polled).chain(other.into_iter().flatten());
        times.min().unwrap_or(Time(u64::MAX))
    }

    /// The map of slots to circuits.
    pub fn map(&self) -> Map {
        self.map
    }

    /// Whether a circuit is alive, as far as is known: the only one always is.
    pub fn is_alive(&self, circuit: u64) -> bool {
        self.circuits().any(|known| known.id == circuit && known.alive)
    }

    /// Whether any circuit is.
    pub fn any_alive(&self) -> bool {
        self.circuits().any(|known| known.alive)
    }

    /// The route in use, alive or not.
    pub fn in_use(&self) -> Option<&Path> {
        self.selector.in_use()
    }

    /// Times that the route in use was left because it was dead.
    pub fn failovers(&self) -> u64 {
        self.failovers
    }

    fn due(&mut self, now: Time) {
        self.event.get_or_insert(now);
    }

    fn circuits(&self) -> impl Iterator<Item = &Circuit> {
        self.candidates.iter().filter_map(Candidate::circuit)
    }

    fn circuits_mut(&mut self) -> impl Iterator<Item = &mut Circuit> {
        self.candidates.iter_mut().filter_map(Candidate::circuit_mut)
    }

    fn candidate(&mut self, circuit: u64) -> Option<&mut Candidate> {
        let has = |known: &Circuit| known.id == circuit;
        self.candidates.iter_mut().find(|candidate| candidate.circuit().is_some_and(has))
    }

    /// The candidate of a route, made if there is none.
    fn along(&mut self, path: &Path, now: Time) -> &mut Candidate {
        let at = self.candidates.iter().position(|candidate| candidate.path == *path);
        let at = at.unwrap_or_else(|| {
            self.candidates.push(Candidate::new(path.clone(), now));
            self.candidates.len() - 1
        });
        &mut self.candidates[at]
    }

    /// Finds out which circuits are alive.
    fn judge(&mut self, now: Time, out: &mut Vec<Step>) {
        for candidate in &mut self.candidates {
            let Some(circuit) = candidate.circuit_mut() else { continue };
            if circuit.settle(now) {
                let impaired = circuit.impaired;
                let finding = if impaired { Finding::Impaired } else { Finding::Well };
                out.extend(candidate.verdict(finding, "its Asks"));
            }
        }
        for candidate in &mut self.candidates {
            if let Some(circuit) = candidate.circuit_mut().filter(|circuit| circuit.proven()) {
                circuit.revive(now);
                candidate.succeeded();
                out.extend(candidate.verdict(Finding::Alive, "answers"));
            }
        }
        let recent = |at: Time| now - at < BUSY;
        let busy = self.data > Time(0) && recent(self.data) || self.asked.is_some_and(recent);
        self.fast = busy || self.circuits().any(|circuit| circuit.suspect(now));
        let fast = self.fast;
        self.circuits_mut().for_each(|circuit| circuit.pace(fast, now));
        self.condemn(now, out);
        let others = self.circuits().any(Circuit::usable);
        for circuit in self.circuits_mut() {
            // With nothing else alive there is no reason to wait.
            circuit.hold = circuit.hold.filter(|until| others && now < *until);
        }
    }

    fn condemn(&mut self, now: Time, out: &mut Vec<Step>) {
        let poll =
            Poll { now, late: self.late, calm: now >= self.late + CATCH_UP, patience: self.lateness.usual() };
        for at in 0..self.candidates.len() {
            let accused = self.candidates[at].circuit().filter(|circuit| circuit.alive);
            let why = accused.and_then(|accused| {
                let mut witnesses = self.circuits().filter(|other| other.alive && other.id != accused.id);
                witnesses.find_map(|witness| accused.condemned(witness, &poll))
            });
            let candidate = &mut self.candidates[at];
            if let (Some(why), Some(circuit)) = (why, candidate.circuit_mut()) {
                circuit.die(now);
                candidate.died = true;
                out.extend(candidate.verdict(Finding::Dead, why));
            }
        }
    }

    /// Tells the selector what changed. The route in use comes last: it is not to be left for one that died with it.
    fn select(&mut self, now: Time, out: &mut Vec<Step>) {
        let state = |path: &Path| {
            let candidate = self.candidates.iter().find(|candidate| candidate.path == *path);
            candidate.map_or(State::Down, Candidate::state)
        };
        let known =
            self.selector.routes().map(|known| (known.route.clone(), known.state, state(known.route)));
        let mut news: Vec<_> = known.filter(|(_, before, after)| before != after).collect();
        let used = self.selector.in_use().cloned();
        let dead = used.as_ref().is_some_and(|used| state(used) == State::Down);
        news.sort_by_key(|(path, ..)| Some(path) == used.as_ref());
        self.selector.poll(now);
        for (path, _, state) in news {
            self.selector.state(&path, state, now);
        }
        if let (Some(from), Some(to)) = (used.filter(|_| dead), self.selector.in_use())
            && from != *to
        {
            self.failovers += 1;
            out.push(Step::Failover { from, to: to.clone() });
        }
    }

    /// Points the slots at the circuits of their routes. One without a route shares the circuit of another, that with
    /// the lowest round trip time, and stays there: backups, lossy and flapping routes are none of the selector's.
    fn point(&mut self, out: &mut Vec<Step>) -> bool {
        let of = |path: &Path| self.candidates.iter().find(|candidate| candidate.path == *path);
        let seated = self.selector.slots().map(|path| path.and_then(of).and_then(Candidate::circuit));
        let fastest = seated.iter().flatten().min_by_key(|circuit| circuit.rtt()).map(|circuit| circuit.id);
        let mut slots = self.map.slots;
        for (slot, seat) in slots.iter_mut().zip(&seated) {
            let stays = seated.iter().flatten().any(|circuit| circuit.id == *slot);
            *slot = match seat {
                Some(circuit) => circuit.id,
                None if stays => *slot,
                None => fastest.unwrap_or(*slot),
            };
        }
        if slots != self.map.slots {
            self.map = Map { epoch: self.map.epoch.saturating_add(1), slots };
        }
        let changed = self.map.epoch != self.pointed;
        if changed {
            self.pointed = self.map.epoch;
            out.push(Step::Point(self.map));
        }
        changed
    }

    /// Asks what is due, and all that are alive after a change of the map.
    fn ask(&mut self, changed: bool, now: Time, out: &mut Vec<Step>) {
        for circuit in self.circuits_mut() {
            if circuit.ask_due(now) || changed && circuit.alive {
                out.push(Step::Ask { circuit: circuit.id, seq: circuit.ask(now) });
            }
        }
    }

    /// Closes circuits that nobody wants, and those that were dead for long. None that a slot takes.
    fn close(&mut self, now: Time, out: &mut Vec<Step>) {
        out.extend(self.stray.drain(..).map(Step::Close));
        let slots = self.map.slots;
        let wanted: Vec<&Path> =
            self.selector.routes().filter(|known| known.wanted).map(|known| known.route).collect();
        self.candidates.retain_mut(|candidate| {
            let keep = wanted.contains(&&candidate.path);
            match &candidate.setup {
                Setup::Open(circuit) if !slots.contains(&circuit.id) => {
                    let dead = !circuit.alive && now - circuit.since >= REPLACE;
                    if !keep || dead {
                        out.push(Step::Close(circuit.id));
                        candidate.setup = Setup::Closed(now);
                    }
                    keep
                }
                Setup::Closed(_) => keep,
                _ => true,
            }
        });
    }

    /// Has circuits opened for the routes that the selector wants.
    fn open(&mut self, now: Time, out: &mut Vec<Step>) {
        for candidate in &mut self.candidates {
            if matches!(candidate.setup, Setup::Opening(since) if now - since >= NO_ANSWER) {
                candidate.fail(now);
            }
        }
        let wanted: Vec<Path> =
            self.selector.routes().filter(|known| known.wanted).map(|known| known.route.clone()).collect();
        for path in wanted {
            let closed = |candidate: &Candidate| matches!(candidate.setup, Setup::Closed(_));
            let there = self.candidates.iter().filter(|candidate| !closed(candidate)).count();
            let candidate = self.along(&path, now);
            if let Setup::Closed(at) = candidate.setup
                && at <= now
                && there < MAX_CIRCUITS
            {
                candidate.setup = Setup::Opening(now);
                out.push(Step::Open(path));
            }
        }
    }
}
