//! How late polls come on this machine.
//!
//! Where polls come late again and again, so do those of relays: they share this machine, or have one like it that many use.
//! A relay that waits for its turn is silent for as long, and comes back at once.

use std::time::Duration;

use crate::time::Time;

/// How long a late poll counts, and up to twice as long.
const MEMORY: Duration = Duration::from_secs(1);
/// What is late by more is an interruption, and none that others have to share.
const MOST: Duration = Duration::from_millis(50);

/// The second worst of the last polls: one alone is chance.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Lateness {
    since: Time,
    /// Of this second: the worst and the second worst
    worst: [Duration; 2],
    /// The second worst of the one before
    before: Duration,
}

impl Lateness {
    /// A poll came, so late.
    pub(super) fn poll(&mut self, late: Duration, now: Time) {
        let age = now - self.since;
        if age >= MEMORY {
            self.before = if age < MEMORY * 2 { self.worst[1] } else { Duration::ZERO };
            (self.since, self.worst) = (now, [Duration::ZERO; 2]);
        }
        let [worst, second] = self.worst;
        self.worst = [worst.max(late), second.max(late.min(worst))];
    }

    /// How late they come.
    pub(super) fn usual(&self) -> Duration {
        self.worst[1].max(self.before).min(MOST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_late_twice_counts_for_a_while() {
        let ms = Duration::from_millis;
        let mut lateness = Lateness::default();
        let start = Time(1_000_000);
        lateness.poll(ms(30), start);
        assert_eq!(lateness.usual(), Duration::ZERO, "once is chance");
        lateness.poll(ms(20), start + ms(10));
        assert_eq!(lateness.usual(), ms(20));
        lateness.poll(ms(0), start + ms(1_500));
        assert_eq!(lateness.usual(), ms(20));
        lateness.poll(ms(0), start + ms(2_600));
        assert_eq!(lateness.usual(), Duration::ZERO);
        for at in [2_610, 2_620] {
            lateness.poll(ms(9_000), start + ms(at));
        }
        assert_eq!(lateness.usual(), MOST);
        lateness.poll(ms(0), start + ms(60_000));
        assert_eq!(lateness.usual(), Duration::ZERO);
    }
}
