//! One circuit as the Decider sees it: how often it is asked, and when it is dead.
//!
//! **Silence** counts from the last packet of any kind, but not from before the first answer to fast Asks could
//! have come. It is suspicious beyond the limit of [`Asks`]: three intervals and four times the variation of the round
//! trip time; more intervals where losses make longer runs of them likely. A circuit over which packets come but no
//! echoes for much longer is dead, too: what we send is lost.
//!
//! **A witness** is another live circuit. What it says is compared as of the moments when the other node sent it: after
//! a pause of that node the circuit with the shortest way speaks first, and the one with the longest still tells of the
//! time before. So its words are shifted by half the difference of the round trip times, and have to reach into the
//! second half of the limit. A witness that was silent itself, and speaks again, tells nothing about the time before.
//! From then on the others have a round trip and their whole limit to speak up.

use std::time::Duration;

use super::asks::Asks;
use super::loss::MIN_RUN;
use super::{FAST, IDLE, MUTE, SLOW};
use crate::metric::IMPAIRING_LOSS;
use crate::time::Time;

/// Echoes that show that a circuit is alive: one may be a leftover.
const PROOFS: u32 = 2;
/// A new circuit, or one that echoed once, is asked fast for this long, and has to echo twice within it.
const PROVING: Duration = Duration::from_secs(1);
/// A circuit that comes back gets no traffic for this long: it may be gone again in the next moment.
pub(super) const RETURN_HOLD: Duration = Duration::from_millis(300);
/// Packets further apart than this break a witness's run. Less than the least limit by half an interval: of two
/// circuits that stand still together, none shall be taken to have spoken through it.
const BREAK: Duration = Duration::from_millis(25);
/// No echo for this many intervals, or that many limits, is death, whatever else comes in.
const DEAF_INTERVALS: u32 = 25;
const DEAF_LIMITS: u32 = 5;

/// Signs of life of one kind.
#[derive(Debug, Clone, Copy)]
struct Signs {
    last: Time,
    /// Since when they came without a break
    run: Time,
}

impl Signs {
    fn add(&mut self, at: Time, expected: Option<Time>, jitter: Duration) {
        if expected.is_some_and(|expected| at - self.last.max(expected) > BREAK + jitter * 2) {
            self.run = at;
        }
        self.last = self.last.max(at);
    }
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
    heard: Signs,
    echoed: Signs,
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
        let signs = Signs { last: now, run: Time(0) };
        Self {
            id,
            alive: false,
            impaired: false,
            since: now,
            hold: None,
            returning,
            asks: Asks::default(),
            fast: None,
            heard: signs,
            echoed: signs,
            asked: None,
            unheard: None,
            proving: now,
            proofs: 0,
        }
    }

    /// The last packet that came over it.
    pub(super) fn hear(&mut self, at: Time) {
        self.heard.add(at, self.expected(), self.asks.jitter());
    }

    /// An Echo came over it.
    pub(super) fn echo(&mut self, seq: u32, now: Time) {
        let expected = self.expected();
        let outage = expected.is_some_and(|at| now - self.echoed.last.max(at) > self.asks.limit());
        if !self.asks.echo(seq, outage, now) {
            return;
        }
        self.heard.add(now, expected, self.asks.jitter());
        self.echoed.add(now, expected, self.asks.jitter());
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
        self.heard.run = Time(0);
        self.echoed.run = Time(0);
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
    pub(super) fn condemned(&self, witness: &Self, now: Time) -> Option<&'static str> {
        let (fast, limit) = (self.fast?, self.asks.limit());
        let deaf_limit = (FAST * DEAF_INTERVALS).max(limit * DEAF_LIMITS);
        // An Ask may have been late: all but one of the run, and time enough for all.
        let missed = self.asks.missed(fast, self.heard.last, now) + 1;
        let run = usize::try_from(self.asks.loss.run().max(MIN_RUN)).unwrap_or(usize::MAX);
        if missed >= run && self.overdue(self.heard, witness, witness.heard, limit, now) {
            Some("silent")
        } else if self.overdue(self.echoed, witness, witness.echoed, deaf_limit, now) {
            Some("no echoes")
        } else {
            None
        }
    }

    /// Whether `own` signs have been missing for `limit` while `witness` gave `its`.
    fn overdue(&self, own: Signs, witness: &Self, its: Signs, limit: Duration, now: Time) -> bool {
        let slower = self.asks.rtt().saturating_sub(witness.asks.rtt());
        let faster = witness.asks.rtt().saturating_sub(self.asks.rtt());
        let expected = self.expected().unwrap_or(now);
        let start = own.last.max(expected).max(its.run + slower);
        now >= start + limit && its.last + slower / 2 > start + limit / 2 + faster / 2
    }

    /// When the first answer to a fast Ask should be here.
    fn expected(&self) -> Option<Time> {
        self.fast.map(|fast| fast + self.asks.rtt())
    }

    /// Since when answers are missing.
    fn missing(&self) -> Option<Time> {
        self.unheard.filter(|unheard| self.heard.last < *unheard)
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

    /// When something is due next, after a poll at `polled`.
    pub(super) fn deadline(&self, polled: Time) -> Time {
        let silent = self.expected().map(|at| self.heard.last.max(at) + self.asks.limit());
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

    /// Why it is impaired or not.
    pub(super) fn loss_reason(&self) -> &'static str {
        const { assert!(IMPAIRING_LOSS == 100, "the sentence says a tenth") }
        if self.impaired { "loses a tenth or more" } else { "loses little again" }
    }
}
