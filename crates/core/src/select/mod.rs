//! Which of the routes to a node its session uses, and in which slots.
//!
//! One [`Selector`] for each node in use. It is told which routes there are ([`offer`](Selector::offer)), how they fare
//! ([`state`](Selector::state), as end-to-end probes find it), and answers with a route for each slot. Slot 0 holds the route in use: QUIC fills the lowest path first and the others with what does not fit.
//!
//! | the route in use | what happens |
//! | --- | --- |
//! | works | left only for one that was at least 30 % and 10 ms cheaper for [`HOLD`], for one over cheaper upstreams that was up for as long, or for a direct one that was no dearer than a relayed one for [`DIRECT_HOLD`] |
//! | is down | left at once for the best that is up, however often: flows must not stand while there is a way |
//! | is impaired by loss, was withdrawn by the mesh, or a node of it is draining | left at once for one that is neither |
//!
//! After [`MAX_CHANGES`] in a minute, of any kind, a route is left only because it is down. One flapping link can't use
//! that up, as a route that was left is not returned to for being up again.
//!
//! The best is the one with the least of: impaired or withdrawn; times it went down in the last minute, from the
//! second on; configured cost of its upstreams (so a backup is used when all cheaper ones are gone); cost.
//! A route in slot 1 or 2 stays there as long as it is up, over upstreams as cheap as those of the route in use, and not
//! flapping. When the route in use changes, the old and the new one swap slots, and no other moves.

use std::collections::VecDeque;
use std::time::Duration;

use crate::lsdb::MAX_COST;
use crate::metric::LoadBand;
use crate::time::Time;

#[cfg(test)]
mod tests;

/// Slots of a session.
pub const SLOTS: usize = 3;
/// For how long a route has to be better before a working one is left for it.
pub const HOLD: Duration = Duration::from_secs(30);
/// The same for a direct route, where the one in use burdens relays and is no cheaper.
pub const DIRECT_HOLD: Duration = Duration::from_secs(3);
/// By how much it has to be cheaper, in microseconds...
pub const MIN_GAIN: u64 = 10_000;
/// ...and in per cent of the cost of the one in use.
pub const MIN_GAIN_PERCENT: u64 = 30;
/// New sessions go over routes that cost at most this many per cent of the cheapest.
pub const SPREAD_PERCENT: u64 = 125;
/// The window in which a route's failures and the changes of the route in use are counted.
pub const MINUTE: Duration = Duration::from_mins(1);
/// From this many changes of the route in use in a [`MINUTE`] on it is left only when it is down.
pub const MAX_CHANGES: usize = 5;
/// From this many failures in a [`MINUTE`] on a route is flapping.
pub const FLAPPING: usize = 2;
/// Routes that are remembered at most: those offered, those in slots, and those that failed within a [`MINUTE`].
const MAX_KNOWN: usize = 16;

/// The route for a new session: of two that `random` draws among those that cost at most a quarter more than the
/// cheapest, over upstreams as cheap as can be, the less busy (Mitzenmacher, "The power of two choices in randomized load
/// balancing", 2001). `load` is that of the busiest node on a route. So the sessions of many nodes spread over relays that
/// are about as good; what is there already stays.
pub fn pick<R>(offers: &[Offer<R>], load: impl Fn(&R) -> LoadBand, random: u64) -> Option<&Offer<R>> {
    let upstreams = offers.iter().map(|offer| offer.upstreams).min()?;
    let cheap = || offers.iter().filter(|offer| offer.upstreams == upstreams);
    let limit = cheap().map(|offer| offer.cost).min()?.saturating_mul(SPREAD_PERCENT);
    let near: Vec<_> = cheap().filter(|offer| offer.cost.saturating_mul(100) <= limit).collect();
    let draw = |random: u64, below: usize| {
        usize::try_from((random & 0xffff_ffff) % u64::try_from(below).unwrap_or(1)).unwrap_or(0)
    };
    if near.len() < 2 {
        return near.first().copied();
    }
    let first = draw(random, near.len());
    let second = (first + 1 + draw(random >> 32, near.len() - 1)) % near.len();
    Some(if load(&near[second].route) < load(&near[first].route) { near[second] } else { near[first] })
}

/// Whether a route leads over a link of the highest cost: one of its nodes is about to stop, and asks to be left.
fn is_drained(cost: u64) -> bool {
    cost >= u64::from(MAX_COST)
}

/// How a route fares, by end-to-end probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Answers.
    Up,
    /// Answers, with a loss of [`IMPAIRING_LOSS`](crate::metric::IMPAIRING_LOSS) or more.
    Impaired,
    /// Does not answer, or has no circuit yet.
    Down,
}

/// A route that the mesh offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offer<R> {
    /// The route as the caller names it
    pub route: R,
    /// In microseconds
    pub cost: u64,
    /// The configured cost of the upstreams on it, in microseconds; of two routes the one with more is a backup
    pub upstreams: u32,
    /// Whether it has no relay
    pub direct: bool,
}

/// What the selector knows of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing<'a, R> {
    /// The route
    pub route: &'a R,
    /// In microseconds
    pub cost: u64,
    /// How it fares, as [`Selector::state`] was told last
    pub state: State,
    /// Whether it should have a circuit: the mesh offers it, or it is in a slot
    pub wanted: bool,
}

/// Chooses among the routes to one node. `R` names a route.
#[derive(Debug, Clone)]
pub struct Selector<R> {
    known: Vec<Known<R>>,
    /// Each a serial number of `known`; slot 0 is the route in use, be it up or down.
    slots: [Option<u64>; SLOTS],
    /// When the route in use was changed, within the last [`MINUTE`].
    changes: VecDeque<Time>,
    next_serial: u64,
}

#[derive(Debug, Clone)]
struct Known<R> {
    serial: u64,
    route: R,
    cost: u64,
    upstreams: u32,
    direct: bool,
    /// When the mesh ceased to offer it.
    unoffered: Option<Time>,
    /// Whether the mesh says that it no longer leads to the target.
    withdrawn: bool,
    state: State,
    /// When it went down, within the last [`MINUTE`]; as many as count.
    downs: VecDeque<Time>,
    /// Since when it is better than the route in use by enough.
    better: Option<Time>,
}

impl<R> Known<R> {
    /// Failures that count against it.
    fn flaps(&self) -> usize {
        if self.downs.len() < FLAPPING { 0 } else { self.downs.len() }
    }

    /// Less is better.
    fn rank(&self) -> impl Ord + use<R> {
        (self.state, self.withdrawn, self.flaps(), self.upstreams, self.cost, self.serial)
    }

    fn sound(&self) -> bool {
        self.state == State::Up && !self.withdrawn
    }

    fn better_than(&self, used: &Self) -> bool {
        let cheaper = self.cost.saturating_add(MIN_GAIN) <= used.cost
            && self.cost.saturating_mul(100) <= used.cost.saturating_mul(100 - MIN_GAIN_PERCENT);
        let same = self.upstreams == used.upstreams && (cheaper || self.relieves(used));
        self.sound() && self.flaps() == 0 && (self.upstreams < used.upstreams || same)
    }

    /// Whether it spares the relays of a route that is no cheaper.
    fn relieves(&self, used: &Self) -> bool {
        self.direct && !used.direct && self.cost <= used.cost
    }

    /// For how long it has to be better than the route in use.
    fn trial(&self, used: &Self) -> Duration {
        if self.relieves(used) { DIRECT_HOLD } else { HOLD }
    }

    /// Whether it can share the traffic with the route in use.
    fn shares(&self, used: &Self) -> bool {
        self.sound() && self.flaps() == 0 && self.upstreams == used.upstreams
    }
}

impl<R> Default for Selector<R> {
    fn default() -> Self {
        Self { known: Vec::new(), slots: [None; SLOTS], changes: VecDeque::new(), next_serial: 0 }
    }
}

impl<R: Clone + Eq> Selector<R> {
    /// Takes in the routes that the mesh has to the node now. New ones count as down until [`state`](Self::state) says
    /// otherwise. A known route that is not among them stays as long as it is in a slot; `cost_of` tells what
    /// it costs now, or `None` where it no longer leads to the node ([`routes::cost`](crate::routes::cost)).
    pub fn offer(&mut self, offers: &[Offer<R>], cost_of: impl Fn(&R) -> Option<u64>, now: Time) {
        for known in &mut self.known {
            if let Some(offer) = offers.iter().find(|offer| offer.route == known.route) {
                (known.cost, known.upstreams, known.direct) = (offer.cost, offer.upstreams, offer.direct);
                (known.unoffered, known.withdrawn) = (None, is_drained(offer.cost));
            } else {
                let cost = cost_of(&known.route);
                known.withdrawn = cost.is_none_or(is_drained);
                known.cost = cost.unwrap_or(known.cost);
                known.unoffered.get_or_insert(now);
            }
        }
        for offer in offers {
            if !self.known.iter().any(|known| known.route == offer.route) {
                self.learn(offer.clone());
            }
        }
        self.poll(now);
    }

    /// Takes in the route that carries traffic already, whether the mesh offers it or not: up, and the one in use. One
    /// that the mesh has not offered costs nothing until [`offer`](Self::offer) says what it costs.
    pub fn adopt(&mut self, route: &R, now: Time) {
        if !self.known.iter().any(|known| known.route == *route) {
            let known = self.learn(Offer { route: route.clone(), cost: 0, upstreams: 0, direct: false });
            known.unoffered = Some(now);
        }
        if let Some(known) = self.known.iter_mut().find(|known| known.route == *route) {
            known.state = State::Up;
            let serial = known.serial;
            if self.slots[0] != Some(serial) {
                self.change(serial, now);
            }
        }
        self.poll(now);
    }

    fn learn(&mut self, offer: Offer<R>) -> &mut Known<R> {
        self.known.push(Known {
            serial: self.next_serial,
            route: offer.route,
            cost: offer.cost,
            upstreams: offer.upstreams,
            direct: offer.direct,
            unoffered: None,
            withdrawn: is_drained(offer.cost),
            state: State::Down,
            downs: VecDeque::new(),
            better: None,
        });
        self.next_serial += 1;
        let last = self.known.len() - 1;
        &mut self.known[last]
    }

    /// Takes in how a route fares. An unknown route is ignored.
    pub fn state(&mut self, route: &R, state: State, now: Time) {
        if let Some(known) = self.known.iter_mut().find(|known| known.route == *route)
            && known.state != state
        {
            if state == State::Down {
                known.downs.push_back(now);
                if known.downs.len() > MAX_CHANGES {
                    known.downs.pop_front();
                }
            }
            known.state = state;
        }
        self.poll(now);
    }

    /// Does what is due at `now`. To be called at [`deadline`](Self::deadline); all other calls do it, too.
    pub fn poll(&mut self, now: Time) {
        let old = |time: &Time| now - *time >= MINUTE;
        while self.changes.pop_front_if(|time| old(time)).is_some() {}
        for known in &mut self.known {
            while known.downs.pop_front_if(|time| old(time)).is_some() {}
        }
        self.compare(now);
        if let Some(serial) = self.choice(now) {
            self.change(serial, now);
            self.compare(now);
        }
        self.seat(now);
        self.forget();
    }

    /// When to call [`poll`](Self::poll) next, after a call at `now`.
    pub fn deadline(&self, now: Time) -> Option<Time> {
        let holds = self.known.iter().flat_map(|known| {
            let flap = known.downs.front().map(|time| *time + MINUTE);
            let trial = self.used().map_or(HOLD, |used| known.trial(used));
            [known.better.map(|time| time + trial), known.unoffered.map(|time| time + HOLD), flap]
        });
        let budget = self.changes.front().map(|time| *time + MINUTE);
        holds.chain([budget]).flatten().filter(|time| *time > now).min()
    }

    /// The route in use, whether it is up or not; `None` as long as none has been up.
    pub fn in_use(&self) -> Option<&R> {
        self.used().map(|used| &used.route)
    }

    /// The route of each slot, as far as it answers. Slot 0 is the one in use.
    pub fn slots(&self) -> [Option<&R>; SLOTS] {
        self.slots.map(|serial| {
            self.find(serial).filter(|known| known.state != State::Down).map(|known| &known.route)
        })
    }

    /// All routes that are known, offered or not.
    pub fn routes(&self) -> impl Iterator<Item = Standing<'_, R>> {
        self.known.iter().map(|known| Standing {
            route: &known.route,
            cost: known.cost,
            state: known.state,
            wanted: known.unoffered.is_none() || self.slots.contains(&Some(known.serial)),
        })
    }

    /// Changes of the route in use within the last minute, [`MAX_CHANGES`] at most, as of the last call.
    pub fn changes(&self) -> usize {
        self.changes.len()
    }

    fn find(&self, serial: Option<u64>) -> Option<&Known<R>> {
        self.known.iter().find(|known| Some(known.serial) == serial)
    }

    fn used(&self) -> Option<&Known<R>> {
        self.find(self.slots[0])
    }

    /// Notes since when each route is better than the one in use.
    fn compare(&mut self, now: Time) {
        let used = self.used().cloned();
        for known in &mut self.known {
            let better = used.as_ref().is_some_and(|used| known.better_than(used));
            known.better = better.then(|| known.better.unwrap_or(now));
        }
    }

    /// The route to use instead of the one in use, if it is to be left now.
    fn choice(&self, now: Time) -> Option<u64> {
        let best =
            self.known.iter().min_by_key(|known| known.rank()).filter(|best| best.state != State::Down)?;
        let Some(used) = self.used() else { return Some(best.serial) };
        if used.state == State::Down {
            return Some(best.serial);
        }
        let spare = self.changes.len() < MAX_CHANGES;
        if !used.sound() {
            return (spare && best.sound()).then_some(best.serial);
        }
        let held = |known: &&Known<R>| known.better.is_some_and(|since| now - since >= known.trial(used));
        let better = self.known.iter().filter(held).min_by_key(|known| known.rank())?;
        spare.then_some(better.serial)
    }

    /// Puts a route in use: into slot 0, and the one from there into the slot that this one had.
    fn change(&mut self, serial: u64, now: Time) {
        let old = self.slots[0].replace(serial);
        if old.is_some() {
            self.changes.push_back(now);
            if self.changes.len() > MAX_CHANGES {
                self.changes.pop_front();
            }
        }
        let place = self.slots[1..].iter().position(|slot| *slot == Some(serial));
        let place = place.or_else(|| self.slots[1..].iter().position(Option::is_none));
        if let Some(place) = place {
            self.slots[1 + place] = old;
        }
        for known in &mut self.known {
            known.better = None; // better than the one before
        }
    }

    /// Empties slots whose routes do not share the traffic (any more) and fills free ones.
    fn seat(&mut self, now: Time) {
        let Some(used) = self.used().cloned() else { return };
        let mut waiting: Vec<&Known<R>> = self
            .known
            .iter()
            .filter(|known| known.shares(&used) && known.unoffered.is_none())
            .filter(|known| !self.slots.contains(&Some(known.serial)))
            .collect();
        waiting.sort_by_key(|known| std::cmp::Reverse(known.rank()));
        let mut slots = self.slots;
        for slot in &mut slots[1..] {
            let holder = self.find(*slot).filter(|known| known.shares(&used));
            let stays = holder.is_some_and(|known| {
                let leaves = known.unoffered.is_some_and(|since| now - since >= HOLD);
                !leaves || waiting.is_empty()
            });
            if !stays {
                *slot = waiting.pop().map(|known| known.serial);
            }
        }
        self.slots = slots;
    }

    /// Drops routes that are neither offered nor in a slot, once their failures no longer count.
    fn forget(&mut self) {
        let slots = self.slots;
        let seated = |known: &Known<R>| slots.contains(&Some(known.serial));
        self.known.retain(|known| known.unoffered.is_none() || seated(known) || !known.downs.is_empty());
        while self.known.len() > MAX_KNOWN
            && let Some(oldest) =
                self.known.iter().position(|known| !seated(known) && known.unoffered.is_some())
        {
            self.known.remove(oldest);
        }
    }
}
