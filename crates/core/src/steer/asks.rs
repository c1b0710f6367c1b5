//! The Asks of one circuit: which are open, how long echoes take, how many are lost.

use std::collections::VecDeque;
use std::time::Duration;

use super::loss::Loss;
use super::{FAST, UNMEASURED};
use crate::time::Time;

/// An Ask is given up after this, if a round trip takes no longer.
const GIVE_UP: Duration = Duration::from_secs(1);
/// Open Asks at most: all of [`GIVE_UP`] and a round trip of more than a second.
const MAX_OPEN: usize = 256;
/// An open Ask is lost once a later one was answered and it is older than four round trips and this.
const REORDERED: Duration = Duration::from_millis(50);
/// The limit of silence grows with jitter up to half a round trip and this. More is a circuit not worth to wait for.
const MOST_PATIENCE: Duration = Duration::from_millis(100);

/// Those of one circuit.
#[derive(Debug, Clone, Default)]
pub(super) struct Asks {
    last_seq: u32,
    /// Sent and unanswered, oldest first
    open: VecDeque<(u32, Time)>,
    /// When the newest one that was answered was sent
    answered: Time,
    /// Smoothed round trip time and its variation (RFC 9002, section 5.3), once measured
    rtt: Option<(Duration, Duration)>,
    pub(super) loss: Loss,
}

impl Asks {
    /// The number of an Ask that goes out at `now`.
    pub(super) fn send(&mut self, now: Time) -> u32 {
        self.last_seq = self.last_seq.wrapping_add(1);
        self.open.push_back((self.last_seq, now));
        if self.open.len() > MAX_OPEN {
            self.open.pop_front();
        }
        self.last_seq
    }

    /// Takes in an echo; false where it answers no open Ask. After an `outage` the Asks before this one are
    /// forgotten: what stood still as a whole has lost nothing.
    pub(super) fn echo(&mut self, seq: u32, outage: bool, now: Time) -> bool {
        let Some(at) = self.open.iter().position(|(open, _)| *open == seq) else { return false };
        let Some((_, sent)) = self.open.remove(at) else { return false };
        if outage {
            self.open.drain(..at);
        }
        self.answered = self.answered.max(sent);
        self.loss.outcome(true, now);
        let sample = now - sent;
        self.rtt = Some(match self.rtt {
            None => (sample, sample / 2),
            Some((srtt, var)) => ((srtt * 7 + sample) / 8, (var * 3 + srtt.abs_diff(sample)) / 4),
        });
        true
    }

    /// Gives up what is too old.
    pub(super) fn settle(&mut self, now: Time) {
        let patience = self.rtt() * 4 + REORDERED;
        while let Some((_, sent)) = self.open.front().copied() {
            let lost = sent < self.answered && now - sent > patience;
            if !lost && now - sent <= GIVE_UP + self.rtt() {
                break;
            }
            self.open.pop_front();
            if sent < self.answered {
                self.loss.outcome(false, now);
            }
        }
    }

    /// Forgets those that are open.
    pub(super) fn forget(&mut self) {
        self.open.clear();
    }

    /// How many of those since `from` should have been answered between `heard` and `now`, and were not.
    pub(super) fn missed(&self, from: Time, heard: Time, now: Time) -> u32 {
        let rtt = self.rtt();
        let due = |sent: Time| sent >= from && sent + rtt > heard && sent + rtt <= now;
        self.open.iter().map(|(_, sent)| u32::from(due(*sent))).sum()
    }

    /// Smoothed round trip time, if measured.
    pub(super) fn srtt(&self) -> Option<Duration> {
        self.rtt.map(|(srtt, _)| srtt)
    }

    /// The same, or what is taken for it.
    pub(super) fn rtt(&self) -> Duration {
        self.srtt().unwrap_or(UNMEASURED)
    }

    /// How much echoes differ from each other.
    pub(super) fn jitter(&self) -> Duration {
        self.rtt.map_or(Duration::ZERO, |(_, var)| var)
    }

    /// How long silence may last while asked at the [`FAST`] interval: a run of losses, and jitter.
    pub(super) fn limit(&self) -> Duration {
        let (srtt, var) = self.rtt.unwrap_or((UNMEASURED, UNMEASURED / 2));
        let run = FAST * self.loss.run();
        (run + var * 4).min(run.max(srtt / 2 + MOST_PATIENCE))
    }

    /// How long an answer may take before it is missed.
    pub(super) fn patience(&self) -> Duration {
        let rtt = self.rtt();
        (rtt * 2).max(rtt + FAST * 3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: u64) -> Time {
        Time(n * 1000)
    }

    /// Asks every 10 ms until `until`, answered after `rtt`, but for those that `lost` picks.
    fn ask(asks: &mut Asks, until: u64, rtt: u64, lost: impl Fn(u32) -> bool) {
        let mut echoes = VecDeque::new();
        for at in (0..until).step_by(10) {
            while let Some((seq, due)) = echoes.pop_front_if(|(_, due)| *due <= at) {
                asks.echo(seq, false, ms(due));
            }
            let seq = asks.send(ms(at));
            if !lost(seq) {
                echoes.push_back((seq, at + rtt));
            }
            asks.settle(ms(at));
        }
    }

    #[test]
    fn the_limit_is_three_intervals_and_jitter_whatever_the_round_trip() {
        let limit = |rtt| {
            let mut asks = Asks::default();
            ask(&mut asks, 3000, rtt, |_| false);
            assert_eq!(asks.srtt(), Some(Duration::from_millis(rtt)));
            asks.limit()
        };
        for rtt in [1, 10, 80, 200] {
            assert_eq!(limit(rtt).as_millis(), 30, "{rtt}");
        }
        assert_eq!(Asks::default().limit(), Duration::from_millis(150), "unmeasured");
    }

    #[test]
    fn what_later_ones_overtook_is_lost_and_counted_once() {
        let mut asks = Asks::default();
        ask(&mut asks, 2500, 10, |seq| seq % 5 == 0);
        assert!((190..=200).contains(&asks.loss.per_mille().unwrap()), "{:?}", asks.loss.per_mille());
        assert!(asks.open.len() < 20);
    }

    #[test]
    fn an_outage_is_no_loss() {
        for outage in [true, false] {
            let mut asks = Asks::default();
            ask(&mut asks, 1000, 10, |seq| seq > 50);
            assert_eq!(asks.loss.per_mille(), Some(0), "nothing overtook them");
            let seq = asks.send(ms(1000));
            assert!(asks.echo(seq, outage, ms(1010)));
            assert!(!asks.echo(seq, outage, ms(1011)), "twice");
            asks.settle(ms(1200));
            assert_eq!(asks.loss.per_mille() == Some(0), outage);
        }
    }

    #[test]
    fn open_asks_are_bounded() {
        let mut asks = Asks::default();
        for _ in 0..10_000 {
            asks.send(ms(0));
        }
        assert_eq!(asks.open.len(), MAX_OPEN);
        asks.settle(ms(1101));
        assert_eq!((asks.open.len(), asks.loss.per_mille()), (0, None));
    }
}
