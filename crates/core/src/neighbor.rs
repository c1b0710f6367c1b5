//! Which link to a neighbour counts, and whether it is alive.
//!
//! [`Liveness`] decides when to probe and when a neighbour is gone. [`choose`] decides which of two links to the
//! same neighbour stays.

use std::collections::VecDeque;
use std::time::Duration;

use crate::id::NodeId;
use crate::time::Time;

/// Unanswered intervals after which a neighbour is gone.
pub const DEAD_AFTER_INTERVALS: u32 = 3;
/// An unanswered PING is repeated this soon, so that a restarted neighbour is found at once.
pub const SUSPECT_INTERVAL: Duration = Duration::from_millis(250);
/// A PING without an answer for this long (or twice the round trip time, where that is longer) makes the neighbour suspect.
const SUSPECT_AFTER: Duration = Duration::from_millis(400);
/// A neighbour that something speaks against has this long to answer (or twice the round trip time)...
pub const SUSPICION_LIMIT: Duration = Duration::from_millis(500);
/// ...and is asked this often meanwhile, so that a lost PING or two do not decide.
const SUSPICION_INTERVAL: Duration = Duration::from_millis(100);
/// PINGs that the loss figure is made of.
const LOSS_WINDOW: usize = 64;

/// The probing of one link: PING at an interval, faster while suspect, gone after silence.
///
/// Drive it with [`poll`](Self::poll) at [`deadline`](Self::deadline) and whenever a PONG was taken in.
#[derive(Debug, Clone)]
pub struct Liveness {
    interval: Duration,
    last_heard: Time,
    next_ping: Time,
    next_seq: u64,
    /// Sent and unanswered, oldest first; at most [`LOSS_WINDOW`].
    unanswered: VecDeque<(u64, Time)>,
    /// The last answered or given up, newest last: was it answered?
    outcomes: VecDeque<bool>,
    srtt: Option<Duration>,
    /// Since when something speaks against the neighbour, and nothing was heard of it.
    suspected: Option<Time>,
}

/// What [`Liveness::poll`] asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    /// Send a PING with this sequence number.
    Ping(u64),
    /// Nothing before [`Liveness::deadline`].
    Wait,
    /// The neighbour is gone.
    Dead,
}

impl Liveness {
    /// Starts probing at `now`, every `interval` while all is well.
    pub fn new(interval: Duration, now: Time) -> Self {
        Self {
            interval,
            last_heard: now,
            next_ping: now,
            next_seq: 0,
            unanswered: VecDeque::new(),
            outcomes: VecDeque::new(),
            srtt: None,
            suspected: None,
        }
    }

    /// What to do at `now`.
    pub fn poll(&mut self, now: Time) -> Probe {
        if now >= self.dead_at() {
            return Probe::Dead;
        }
        if now < self.ping_at() {
            return Probe::Wait;
        }
        let seq = self.next_seq;
        self.next_seq += 1;
        self.next_ping =
            now + if self.is_suspect(now) { SUSPECT_INTERVAL.min(self.interval) } else { self.interval };
        self.unanswered.push_back((seq, now));
        if self.unanswered.len() > LOSS_WINDOW {
            self.unanswered.pop_front();
            self.outcome(false);
        }
        Probe::Ping(seq)
    }

    /// When to call [`poll`](Self::poll) next.
    pub fn deadline(&self) -> Time {
        self.ping_at().min(self.dead_at())
    }

    /// Something speaks against the neighbour: a route over it is silent. It is asked at once, and is gone if it does not
    /// answer within [`SUSPICION_LIMIT`].
    pub fn suspect(&mut self, now: Time) {
        if self.suspected.is_none() {
            self.suspected = Some(now);
            self.next_ping = now;
        }
    }

    /// Takes in a PONG. One that answers no open PING counts as a sign of life only.
    pub fn pong(&mut self, seq: u64, now: Time) {
        self.heard(now);
        let Some(at) = self.unanswered.iter().position(|(s, _)| *s == seq) else { return };
        // Answers can overtake each other; what is older than this one by more than the window is lost.
        let (_, sent) = self.unanswered.remove(at).unwrap_or((seq, now));
        for _ in 0..at {
            self.unanswered.pop_front();
            self.outcome(false);
        }
        self.outcome(true);
        let rtt = now - sent;
        // RFC 9002, section 5.3
        self.srtt = Some(self.srtt.map_or(rtt, |srtt| (srtt * 7 + rtt) / 8));
    }

    /// Takes in any other sign of life.
    pub fn heard(&mut self, now: Time) {
        self.last_heard = self.last_heard.max(now);
        self.suspected = None;
    }

    /// How long nothing was heard of the neighbour, in whole milliseconds.
    pub fn silence(&self, now: Time) -> Duration {
        Duration::from_millis(u64::try_from((now - self.last_heard).as_millis()).unwrap_or(u64::MAX))
    }

    /// When the neighbour is gone unless it is heard.
    fn dead_at(&self) -> Time {
        let silent = self.last_heard + self.interval * DEAD_AFTER_INTERVALS;
        let limit = SUSPICION_LIMIT.max(self.srtt.unwrap_or_default() * 2);
        self.suspected.map_or(silent, |since| silent.min(since + limit))
    }

    /// Smoothed round trip time.
    pub fn rtt(&self) -> Option<Duration> {
        self.srtt
    }

    /// Lost share of the last 64 PINGs, 0 to 1; `None` before the first outcome.
    pub fn loss(&self) -> Option<f64> {
        if self.outcomes.is_empty() {
            return None;
        }
        let count = |n: usize| f64::from(u32::try_from(n).unwrap_or(u32::MAX)); // at most 64
        let lost = self.outcomes.iter().filter(|answered| !**answered).count();
        Some(count(lost) / count(self.outcomes.len()))
    }

    fn is_suspect(&self, now: Time) -> bool {
        let patience = self.patience();
        self.unanswered.iter().any(|(_, sent)| now - *sent >= patience && *sent + patience > self.last_heard)
    }

    /// How long an answer may take before the neighbour is suspect.
    fn patience(&self) -> Duration {
        SUSPECT_AFTER.max(self.srtt.unwrap_or_default() * 2)
    }

    /// When the next PING is due: earlier than planned once the last one has become suspect.
    fn ping_at(&self) -> Time {
        let patience = self.patience();
        match self.unanswered.back() {
            Some((_, sent)) if self.suspected.is_some() => self.next_ping.min(*sent + SUSPICION_INTERVAL),
            Some((_, sent)) if *sent >= self.last_heard => {
                self.next_ping.min((*sent + patience).max(*sent + SUSPECT_INTERVAL.min(self.interval)))
            }
            _ => self.next_ping,
        }
    }

    fn outcome(&mut self, answered: bool) {
        self.outcomes.push_back(answered);
        if self.outcomes.len() > LOSS_WINDOW {
            self.outcomes.pop_front();
        }
    }
}

/// A link, as far as the choice between two of them needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkFacts {
    /// Boot epoch of the neighbour
    pub epoch: u64,
    /// Whether this node dialled it
    pub dialled: bool,
    /// When it came up here
    pub up_since: Time,
}

/// Which of two links to one neighbour stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// The one there is; the new one is refused.
    Old,
    /// The new one; the old one is closed.
    New,
}

/// Two links that came up within this time are taken for a simultaneous dial. A later one means that the
/// neighbour has lost the first: a node that has a link does not dial.
pub const SIMULTANEOUS: Duration = Duration::from_secs(2);

/// Decides between the link there is and a new one to the same neighbour (same id, same key).
///
/// A newer boot epoch always wins and an older one never does. Between equals that came up at about the same
/// time the one dialled by the lower id stays; otherwise the new one does.
pub fn choose(own: &NodeId, neighbor: &NodeId, old: LinkFacts, new: LinkFacts) -> Choice {
    if new.epoch != old.epoch {
        return if new.epoch > old.epoch { Choice::New } else { Choice::Old };
    }
    if new.up_since - old.up_since >= SIMULTANEOUS || new.dialled == old.dialled {
        return Choice::New;
    }
    if new.dialled == (own < neighbor) { Choice::New } else { Choice::Old }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn ms(n: u64) -> Time {
        Time(n * 1000)
    }

    /// Runs the machine from `from`; answers each PING after `rtt` while `alive`. Returns when it was found dead.
    fn run(live: &mut Liveness, from: Time, until: Time, rtt: Option<Duration>) -> Option<Time> {
        let mut now = from;
        let mut pongs: VecDeque<(Time, u64)> = VecDeque::new();
        while now < until {
            while pongs.front().is_some_and(|(at, _)| *at <= now) {
                let (_, seq) = pongs.pop_front().unwrap();
                live.pong(seq, now);
            }
            match live.poll(now) {
                Probe::Ping(seq) => pongs.extend(rtt.map(|rtt| (now + rtt, seq))),
                Probe::Dead => return Some(now),
                Probe::Wait => {
                    let next = pongs.front().map_or(live.deadline(), |(at, _)| live.deadline().min(*at));
                    assert!(next > now, "no progress at {now:?}");
                    now = next;
                }
            }
        }
        None
    }

    #[test]
    fn a_live_neighbour_is_pinged_once_an_interval() {
        let mut live = Liveness::new(SECOND, ms(0));
        assert_eq!(run(&mut live, ms(0), ms(60_000), Some(Duration::from_millis(20))), None);
        assert!((59..=61).contains(&live.next_seq), "{} pings", live.next_seq);
        assert_eq!(live.rtt(), Some(Duration::from_millis(20)));
        assert_eq!(live.loss(), Some(0.0));
    }

    #[test]
    fn a_dead_idle_neighbour_is_noticed_within_three_and_a_half_seconds() {
        for death in (0..2000).step_by(37) {
            let mut live = Liveness::new(SECOND, ms(0));
            assert_eq!(run(&mut live, ms(0), ms(10_000 + death), Some(Duration::from_millis(5))), None);
            let dead = run(&mut live, ms(10_000 + death), ms(60_000), None).expect("never noticed");
            assert!(
                dead - ms(10_000 + death) <= Duration::from_millis(3500),
                "{:?}",
                dead - ms(10_000 + death)
            );
        }
    }

    #[test]
    fn a_silent_neighbour_is_pinged_faster() {
        let mut live = Liveness::new(SECOND, ms(0));
        run(&mut live, ms(0), ms(10_000), Some(Duration::from_millis(5)));
        let before = live.next_seq;
        run(&mut live, ms(10_000), ms(20_000), None);
        assert!(live.next_seq - before >= 7, "{} pings in silence", live.next_seq - before);
    }

    #[test]
    fn a_neighbour_that_something_speaks_against_answers_soon_or_is_gone() {
        let mut live = Liveness::new(SECOND, ms(0));
        let rtt = Some(Duration::from_millis(5));
        assert_eq!(run(&mut live, ms(0), ms(10_300), rtt), None);
        live.suspect(ms(10_300));
        assert_eq!(run(&mut live, ms(10_300), ms(20_200), rtt), None, "it answers");
        live.suspect(ms(20_200));
        let before = live.next_seq;
        let dead = run(&mut live, ms(20_200), ms(30_000), None).expect("never noticed");
        assert_eq!(dead, ms(20_200) + SUSPICION_LIMIT);
        assert!(live.next_seq - before >= 4, "one lost PING must not decide");
    }

    #[test]
    fn a_slow_link_is_alive() {
        let mut live = Liveness::new(SECOND, ms(0));
        assert_eq!(run(&mut live, ms(0), ms(60_000), Some(Duration::from_millis(1500))), None);
    }

    #[test]
    fn lost_pings_show_as_loss() {
        let mut live = Liveness::new(SECOND, ms(0));
        let mut now = ms(0);
        for _ in 0..400 {
            if let Probe::Ping(seq) = live.poll(now) {
                if seq % 4 == 0 {
                    continue;
                }
                live.pong(seq, now + Duration::from_millis(1));
            }
            now = live.deadline();
        }
        assert!((0.1..0.4).contains(&live.loss().unwrap()), "{:?}", live.loss());
    }

    fn facts(epoch: u64, dialled: bool, at: u64) -> LinkFacts {
        LinkFacts { epoch, dialled, up_since: ms(at) }
    }

    #[test]
    fn a_restarted_neighbour_replaces_its_old_link_at_once() {
        let (a, b) = ("a".parse().unwrap(), "b".parse().unwrap());
        for (own, other) in [(&a, &b), (&b, &a)] {
            for (old, new) in [(true, false), (false, true), (true, true)] {
                assert_eq!(choose(own, other, facts(1, old, 0), facts(2, new, 1)), Choice::New);
                assert_eq!(choose(own, other, facts(2, old, 0), facts(1, new, 9000)), Choice::Old);
            }
        }
    }

    #[test]
    fn a_dial_long_after_replaces_the_link_that_the_neighbour_has_lost() {
        let (a, b) = ("a".parse().unwrap(), "b".parse().unwrap());
        assert_eq!(choose(&a, &b, facts(1, true, 0), facts(1, false, 2000)), Choice::New);
    }

    proptest! {
        #[test]
        fn both_ends_of_a_simultaneous_dial_keep_the_same_link(
            lower_first_here in any::<bool>(), lower_first_there in any::<bool>(), gap in 0u64..1999,
        ) {
            let (low, high): (NodeId, NodeId) = ("a".parse().unwrap(), "b".parse().unwrap());
            // Which link each end saw first is up to the network. `true`: the one dialled by the lower id.
            let kept_by_lower = |end_is_low: bool, lower_first: bool| {
                let (own, other) = if end_is_low { (&low, &high) } else { (&high, &low) };
                let by_low = |at| facts(1, end_is_low, at);
                let by_high = |at| facts(1, !end_is_low, at);
                let (old, new) =
                    if lower_first { (by_low(0), by_high(gap)) } else { (by_high(0), by_low(gap)) };
                (choose(own, other, old, new) == Choice::Old) == lower_first
            };
            prop_assert!(kept_by_lower(true, lower_first_here));
            prop_assert!(kept_by_lower(false, lower_first_there));
        }
    }
}
