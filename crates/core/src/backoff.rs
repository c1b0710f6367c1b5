//! Acting at once on the first event and less and less often while events keep coming.
//!
//! The idea is that of RFC 8405 (SPF back-off) with one series of delays: the first event is acted on after
//! the first delay, and each next one only after a longer hold since the last action. All events of a hold are
//! answered by one action at its end. A quiet time of twice the longest delay makes it prompt again.

use std::time::Duration;

use crate::time::Time;

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// For the records that a node signs.
pub const SIGNING: Delays = Delays { first: Duration::ZERO, second: ms(200), longest: ms(5000) };
/// For the records of one origin that a node passes on. Half of [`SIGNING`], so that an origin that keeps to that is
/// never held up on the way, and one that does not is.
pub const PASSING: Delays = Delays { first: Duration::ZERO, second: ms(100), longest: ms(2500) };
/// For computing routes.
pub const SPF: Delays = Delays { first: Duration::ZERO, second: ms(50), longest: ms(1000) };

/// A series of delays: `first`, then `second` doubled up to `longest`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delays {
    /// After quiet
    pub first: Duration,
    /// Between the first action and the next
    pub second: Duration,
    /// Between actions under steady churn
    pub longest: Duration,
}

/// Where one thing stands in its series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// When the last action was or will be.
    last: Time,
    /// How long after it the next one may come; zero before the first event.
    hold: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { last: Time(0), hold: Duration::ZERO }
    }
}

impl Backoff {
    /// Takes in an event at `now` and says when to act on it. While that time has not come, more events get the
    /// same answer.
    pub fn event(&mut self, delays: Delays, now: Time) -> Time {
        if self.hold > Duration::ZERO && now < self.last {
            return self.last;
        }
        if self.is_quiet(delays, now) {
            self.last = now + delays.first;
            self.hold = delays.second;
        } else {
            self.last = now.max(self.last + self.hold);
            self.hold = (self.hold * 2).min(delays.longest);
        }
        self.last
    }

    /// Whether nothing has happened for so long that there is nothing to remember.
    pub fn is_quiet(&self, delays: Delays, now: Time) -> bool {
        self.hold.is_zero() || now >= self.last + delays.longest * 2
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_first_is_at_once_and_the_rest_wait_longer_and_longer() {
        let mut backoff = Backoff::default();
        let start = Time(7_000_000);
        let mut at = Vec::new();
        for step in 0..20_000 {
            let act = backoff.event(SIGNING, start + ms(step));
            if at.last() != Some(&act) {
                at.push(act);
            }
        }
        let at: Vec<_> = at.iter().map(|act| (*act - start).as_millis()).collect();
        assert_eq!(at[..8], [0, 200, 600, 1400, 3000, 6200, 11200, 16200]);
    }

    #[test]
    fn quiet_makes_it_prompt_again() {
        let mut backoff = Backoff::default();
        for step in 0..10 {
            backoff.event(SIGNING, Time(0) + ms(step * 100));
        }
        let later = Time(0) + ms(20_000);
        assert_eq!(backoff.event(SIGNING, later), later);
    }

    proptest! {
        #[test]
        fn actions_are_never_in_the_past_and_never_later_than_the_longest_delay(
            gaps in prop::collection::vec(0u64..8_000, 1..100),
        ) {
            let (mut backoff, mut now) = (Backoff::default(), Time(0));
            for gap in gaps {
                now = now + ms(gap);
                let at = backoff.event(SIGNING, now);
                prop_assert!(at >= now && at <= now + SIGNING.longest);
            }
        }
    }
}
