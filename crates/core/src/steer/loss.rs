//! How much of what a circuit is asked gets lost.
//!
//! Two figures. That of the last [`WINDOW`] says whether the circuit is impaired. A slower one says how many Asks in a row are
//! lost by chance once in a day, so that an odd run of losses is not taken for death.
//!
//! Bulk traffic that fills a queue delays echoes and drops some. Delay is no loss here: a queue keeps the order of packets, and an
//! Ask counts as lost only after a later one was answered. What TCP-like senders drop is 1 to 3 % and far below the
//! bound. A circuit that gets over it all the same stays impaired for [`CALM`], so that traffic that impairs what
//! it is on does not go to and fro.

use std::collections::VecDeque;
use std::time::Duration;

use crate::metric::IMPAIRING_LOSS;
use crate::time::Time;

/// Over which time losses are counted: 300 Asks while there is data.
pub(super) const WINDOW: Duration = Duration::from_secs(3);
/// As many outcomes as are kept: those of a [`WINDOW`] of Asks every [`FAST`](super::FAST) interval.
const MAX_OUTCOMES: usize = 300;
/// Fewer lost Asks than this in a window show nothing: with 4 % loss, 5 of the first 50 are lost by chance every tenth time, and
/// 20 of 200 never. With 30 % it takes 70 Asks to get here.
const MIN_LOST: usize = 20;
/// An impaired circuit is well again when it loses less than this share (per mille)...
const WELL: u16 = 50;
/// ...for this long, as long as the mesh holds a band of loss ([`crate::metric::BAND_HOLD`]).
pub(super) const CALM: Duration = Duration::from_secs(30);
/// Weight of an outcome in the slow figure: some 250 Asks.
const WEIGHT: f64 = 1.0 / 256.0;
/// A run of losses this unlikely does not happen by chance: with 100 Asks a second, once in a day.
const UNLIKELY: f64 = 1e-7;
/// Longest run that is waited for: that of 30 % loss, which makes a circuit impaired anyway.
const MAX_RUN: u32 = 14;
/// Shortest run that is taken for more than chance.
pub(super) const MIN_RUN: u32 = 3;

/// The losses of one circuit.
#[derive(Debug, Clone, Default)]
pub(super) struct Loss {
    /// When Asks were answered (true) or given up, oldest first
    outcomes: VecDeque<(Time, bool)>,
    /// Lost ones among them
    lost: usize,
    /// Share of lost ones, 0 to 1, slowly moving
    slow: f64,
    impaired: bool,
    /// Since when an impaired one loses little
    calm: Option<Time>,
}

impl Loss {
    pub(super) fn outcome(&mut self, answered: bool, now: Time) {
        self.outcomes.push_back((now, answered));
        self.lost += usize::from(!answered);
        self.slow += ((if answered { 0.0 } else { 1.0 }) - self.slow) * WEIGHT;
        if self.outcomes.len() > MAX_OUTCOMES {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some((_, answered)) = self.outcomes.pop_front() {
            self.lost -= usize::from(!answered);
        }
    }

    /// Drops what is old and says whether the circuit is impaired.
    pub(super) fn impaired(&mut self, now: Time) -> bool {
        while self.outcomes.front().is_some_and(|(at, _)| now - *at > WINDOW) {
            self.drop_oldest();
        }
        let share = self.per_mille();
        if self.lost >= MIN_LOST && share.is_some_and(|share| share >= IMPAIRING_LOSS) {
            self.impaired = true;
        }
        let calm = self.impaired && share.is_some_and(|share| share < WELL);
        self.calm = calm.then(|| self.calm.unwrap_or(now));
        if self.calm.is_some_and(|since| now - since >= CALM) {
            (self.impaired, self.calm) = (false, None);
        }
        self.impaired
    }

    /// Lost share of the [`WINDOW`]; `None` where nothing was asked.
    pub(super) fn per_mille(&self) -> Option<u16> {
        u16::try_from((self.lost * 1000).checked_div(self.outcomes.len())?).ok()
    }

    /// How many Asks in a row have to stay unanswered for it to be more than chance.
    pub(super) fn run(&self) -> u32 {
        let (mut run, mut chance) = (0, 1.0);
        while chance > UNLIKELY && run < MAX_RUN {
            chance *= self.slow;
            run += 1;
        }
        run.max(MIN_RUN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn ms(n: u64) -> Time {
        Time(n * 1000)
    }

    /// Asks every 10 ms from `from` to `until`, of which `percent` are lost; when it was first found impaired.
    fn ask(loss: &mut Loss, from: u64, until: u64, percent: u64, seed: u64) -> Option<u64> {
        let mut random = Random::new(seed);
        let mut found = None;
        for at in (from..until).step_by(10) {
            loss.outcome(random.below(100) >= percent, ms(at));
            if loss.impaired(ms(at)) {
                found = found.or(Some(at - from));
            }
        }
        found
    }

    #[test]
    fn a_tenth_impairs_and_a_twenty_fifth_does_not() {
        for seed in 0..20 {
            let mut loss = Loss::default();
            assert_eq!(ask(&mut loss, 0, 600_000, 4, seed), None, "{seed}");
            assert!(ask(&mut loss, 600_000, 602_000, 30, seed).is_some_and(|took| took <= 1500), "{seed}");
        }
        assert!(ask(&mut Loss::default(), 0, 30_000, 13, 1).is_some());
    }

    #[test]
    fn an_impaired_one_is_well_after_half_a_minute() {
        let mut loss = Loss::default();
        ask(&mut loss, 0, 3000, 30, 1);
        ask(&mut loss, 3000, 34_000, 0, 1);
        assert!(loss.impaired(ms(34_000)));
        ask(&mut loss, 34_000, 36_500, 0, 1);
        assert!(!loss.impaired(ms(36_500)));
    }

    #[test]
    fn without_asks_nothing_gets_well() {
        let mut loss = Loss::default();
        ask(&mut loss, 0, 3000, 30, 1);
        assert!((3..600).all(|second| loss.impaired(ms(second * 1000))));
        assert_eq!(loss.per_mille(), None);
    }

    #[test]
    fn the_more_is_lost_the_longer_a_run_is_chance() {
        for (percent, runs) in [(0, 3..=3), (1, 3..=4), (4, 4..=5), (10, 6..=8), (30, 12..=14), (90, 14..=14)]
        {
            let mut loss = Loss::default();
            ask(&mut loss, 0, 20_000, percent, 3);
            assert!(runs.contains(&loss.run()), "{percent} %: {}", loss.run());
        }
    }
}
