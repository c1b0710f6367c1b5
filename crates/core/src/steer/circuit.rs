//! One circuit as the Decider sees it: how often it is asked, and when it is dead.
//!
//! **Silence** counts from the last packet of any kind, but not from before the first answer to fast Asks could
//! have come. It is suspicious beyond the limit of [`Asks`]: three intervals and four times the variation of the round
//! trip time; more intervals where losses make longer runs of them likely. A circuit over which packets come but no
//! echoes for much longer is dead, too: what we send is lost.
//!
//! **A witness** is another live circuit that echoed meanwhile. Not so easy where the ways differ in length:
//! - When the other node pauses, a longer way still tells of the time before. So the witness has to have echoed in the
//!   second half of the limit, later by half of what its round trip is longer.
//! - A witness that stood still itself tells nothing about the time before it spoke again. From then on the others have
//!   what their way is longer and their whole limit.
//! - When our own cable is out for less than a witness notices ([`BREAK`]), the Asks and the echoes that it takes lie a round
//!   trip apart: one gap on a short way, two small ones on a long one. So a witness of another length waits for longer.
//! - On a machine that never comes to rest there is always a gap or a late poll. There the witness's echoes are counted:
//!   as many as would have let the others speak, however long that took.
//!
//! - There relays come late as well: silence may last longer by how late polls come, as [`Lateness`](super::lateness::Lateness)
//!   says.
//!
//! What still misleads: Asks of all circuits lost for tens of milliseconds while their echoes are not. A witness of equal
//! length is not fooled by that, either.

use std::collections::VecDeque;
use std::time::Duration;

use super::asks::Asks;
use super::{FAST, IDLE, MUTE, SLOW};
use crate::time::Time;

/// Echoes that show that a circuit is alive: one may be a leftover.
const PROOFS: u32 = 2;
/// A new circuit, or one that echoed once, is asked fast for this long, and has to echo twice within it.
const PROVING: Duration = Duration::from_secs(1);
/// A circuit that comes back gets no traffic for this long: it may be gone again in the next moment.
const RETURN_HOLD: Duration = Duration::from_millis(300);
/// Echoes further apart than this break a witness's run: an interval less than the least limit, so that of two circuits that
/// stand still together none is taken to have spoken through it.
const BREAK: Duration = Duration::from_millis(20);
/// Echoes further apart than this are an outage, and the Asks between them not lost one by one: more than a run that is
/// ever taken for chance, and fewer Asks than show that a circuit is impaired.
const OUTAGE: Duration = Duration::from_millis(150);
/// Echoes of a witness that are remembered: what the longest limit and the largest difference of round trips that can be
/// told apart take.
const BEATS: usize = 96;
/// No echo for this many intervals, or that many limits, is death, whatever else comes in.
const DEAF_INTERVALS: u32 = 25;
const DEAF_LIMITS: u32 = 5;

/// A poll that may condemn circuits.
#[derive(Debug)]
pub(super) struct Poll {
    pub(super) now: Time,
    /// When one last came late
    pub(super) late: Time,
    /// That was long enough ago for all that was received to have been read
    pub(super) calm: bool,
    /// How much longer silence may last as polls come late all the time
    pub(super) patience: Duration,
}

/// A circuit.
#[derive(Debug, Clone)]
pub(super) struct Circuit {
    pub(super) id: u64,
    pub(super) alive: bool,
    pub(super) impaired: bool,
    /// When it became alive or dead
    pub(super) since: Time,
    /// Until when it gets no traffic though it is alive
    pub(super) hold: Option<Time>,
    /// Whether its route was alive before and died
    returning: bool,
    asks: Asks,
    /// Since when it is alive and asked fast
    fast: Option<Time>,
    heard: Time,
    echoed: Time,
    /// Since when echoes come without a break
    run: Time,
    /// The last echoes that came at least half an interval after one another, oldest first; at most [`BEATS`]
    beats: VecDeque<Time>,
    /// When the last Ask was due
    asked: Option<Time>,
    /// The first Ask since something was heard
    unheard: Option<Time>,
    /// Since when it is asked fast to prove itself, and its echoes since
    proving: Time,
    proofs: u32,
}

impl Circuit {
    /// A new one, which has to prove itself. `returning`: its route was alive before.
    pub(super) fn new(id: u64, returning: bool, now: Time) -> Self {
        Self {
            id,
            alive: false,
            impaired: false,
            since: now,
            hold: None,
            returning,
            asks: Asks::default(),
            fast: None,
            heard: now,
            echoed: now,
            run: Time(0),
            beats: VecDeque::new(),
            asked: None,
            unheard: None,
            proving: now,
            proofs: 0,
        }
    }

    /// The last packet that came over it.
    pub(super) fn hear(&mut self, at: Time) {
        self.heard = self.heard.max(at);
    }

    /// An Echo came over it.
    pub(super) fn echo(&mut self, seq: u32, now: Time) {
        let gap = self.expected().map_or(Duration::ZERO, |expected| now - self.echoed.max(expected));
        let jitter = self.asks.jitter();
        if !self.asks.echo(seq, gap > OUTAGE, now) {
            return;
        }
        if gap > BREAK + jitter * 2 {
            self.run = now;
        }
        self.heard = self.heard.max(now);
        self.echoed = now;
        if self.beats.back().is_none_or(|last| now - *last >= FAST / 2) {
            self.beats.push_back(now);
        }
        if self.beats.len() > BEATS {
            self.beats.pop_front();
        }
        if !self.alive && (self.proofs == 0 || now - self.proving > PROVING) {
            (self.proving, self.proofs) = (now, 0);
        }
        self.proofs += 1;
    }

    /// Gives up old Asks; true if it became impaired or well.
    pub(super) fn settle(&mut self, now: Time) -> bool {
        self.asks.settle(now);
        let before = self.impaired;
        self.impaired = self.asks.loss.impaired(now);
        self.impaired != before
    }

    /// Whether it has echoed often enough to be alive (again).
    pub(super) fn proven(&self) -> bool {
        !self.alive && self.proofs >= PROOFS
    }

    pub(super) fn revive(&mut self, now: Time) {
        (self.alive, self.since) = (true, now);
        self.hold = self.returning.then(|| now + RETURN_HOLD);
        self.run = Time(0);
    }

    pub(super) fn die(&mut self, now: Time) {
        (self.alive, self.since) = (false, now);
        (self.hold, self.fast, self.unheard) = (None, None, None);
        (self.returning, self.proofs) = (true, 0);
        self.proving = Time(0);
        self.asked = Some(now);
        self.asks.forget();
    }

    /// Whether slots may be pointed at it.
    pub(super) fn usable(&self) -> bool {
        self.alive && self.hold.is_none()
    }

    /// Whether an answer is missing.
    pub(super) fn suspect(&self, now: Time) -> bool {
        self.alive && self.suspect_at().is_some_and(|at| now >= at)
    }

    /// Whether it was asked and not heard for [`MUTE`].
    pub(super) fn mute(&self, now: Time) -> bool {
        self.missing().is_some_and(|since| now - since >= MUTE)
    }

    /// Whether the session is to be fast. A dead circuit keeps its own pace.
    pub(super) fn pace(&mut self, fast: bool, now: Time) {
        self.fast = (fast && self.alive).then(|| self.fast.unwrap_or(now));
    }

    /// Why it is dead, if `witness` shows that it is.
    pub(super) fn condemned(&self, witness: &Self, poll: &Poll) -> Option<&'static str> {
        let Poll { now, late, calm, patience } = *poll;
        let (fast, limit) = (self.fast?, self.asks.limit() + patience);
        let deaf_limit = (FAST * DEAF_INTERVALS).max(limit * DEAF_LIMITS);
        // One Ask of the run may have gone out an instant late. Where a poll was late, few were sent in a long time, and they
        // have to show it by themselves.
        let sparse = late + self.asks.rtt() > self.heard;
        let run = if sparse { self.asks.loss.run() + 1 } else { self.asks.loss.run() - 1 };
        let missed = self.asks.missed(fast, self.heard, now);
        if calm && missed >= run && self.overdue(self.heard, limit, witness, now) {
            Some("silent")
        } else if missed > run && self.outspoken(limit, witness, now) {
            Some("silent for long")
        } else if calm && self.overdue(self.echoed, deaf_limit, witness, now) {
            Some("no echoes")
        } else {
            None
        }
    }

    /// Whether a sign of life, the last of its kind at `last`, is overdue by `limit`, as `witness` shows.
    fn overdue(&self, last: Time, limit: Duration, witness: &Self, now: Time) -> bool {
        let (own, other) = (self.asks.rtt(), witness.asks.rtt());
        let (longer, shorter) = (own.saturating_sub(other), other.saturating_sub(own));
        let start = last.max(self.expected().unwrap_or(now)).max(witness.run + longer);
        let stall = own.abs_diff(other).min(own).min(BREAK);
        now >= start + limit + stall && witness.echoed > start + limit / 2 + shorter / 2
    }

    /// Whether `witness` has echoed so often since this one was heard that, however long the pauses between, it would have
    /// been heard as well. On a busy machine polls come late and echoes in bursts all the time, and the stricter rules
    /// would wait for a calm moment for ever.
    fn outspoken(&self, limit: Duration, witness: &Self, now: Time) -> bool {
        let (own, other) = (self.asks.rtt(), witness.asks.rtt());
        let (longer, shorter) = (own.saturating_sub(other), other.saturating_sub(own));
        // What takes longer still tells of the time before.
        let start = self.heard.max(self.expected().unwrap_or(now)) + shorter;
        let beats = witness.beats.iter().filter(|at| **at > start).count();
        let enough = (limit + longer).as_micros().div_ceil(FAST.as_micros()) + 2;
        beats as u128 >= enough && now - witness.echoed < limit
    }

    /// When the first answer to a fast Ask should be here.
    fn expected(&self) -> Option<Time> {
        self.fast.map(|fast| fast + self.asks.rtt())
    }

    /// Since when answers are missing.
    fn missing(&self) -> Option<Time> {
        self.unheard.filter(|unheard| self.heard < *unheard)
    }

    fn suspect_at(&self) -> Option<Time> {
        self.missing().map(|since| since + self.asks.patience())
    }

    fn interval(&self, now: Time) -> Duration {
        match (self.alive, self.fast) {
            (false, _) if now - self.proving < PROVING => FAST,
            (false, _) => SLOW,
            (true, _) if self.mute(now) => SLOW,
            (true, Some(_)) => FAST,
            (true, None) => IDLE,
        }
    }

    /// When it is to be asked next, as of `now`.
    fn ask_at(&self, now: Time) -> Time {
        self.asked.map_or(Time(0), |asked| asked + self.interval(now))
    }

    pub(super) fn ask_due(&self, now: Time) -> bool {
        self.ask_at(now) <= now
    }

    /// The number of an Ask that goes out now.
    pub(super) fn ask(&mut self, now: Time) -> u32 {
        // Late by little does not make the next one late.
        let due = self.ask_at(now);
        let steady = due <= now && now - due < self.interval(now) / 2;
        self.asked = Some(if steady { due } else { now });
        if self.missing().is_none() {
            self.unheard = Some(now);
        }
        self.asks.send(now)
    }

    /// When something is due next, after a poll at `polled`, where silence may last longer by `patience`.
    pub(super) fn deadline(&self, polled: Time, patience: Duration) -> Time {
        let silent = self.expected().map(|at| self.heard.max(at) + self.asks.limit() + patience);
        let suspect = self.suspect_at().filter(|_| self.alive);
        let times = [Some(self.ask_at(polled)), silent, suspect, self.hold];
        times.into_iter().flatten().filter(|at| *at > polled).min().unwrap_or(Time(u64::MAX))
    }

    pub(super) fn srtt(&self) -> Option<Duration> {
        self.asks.srtt()
    }

    pub(super) fn rtt(&self) -> Duration {
        self.asks.rtt()
    }

    /// Lost share of what it was asked lately, per mille.
    pub(super) fn loss(&self) -> Option<u16> {
        self.asks.loss.per_mille()
    }
}
