//! What round trip times tell of the queue on the way.

use std::time::{Duration, Instant};

/// For how long the shortest round trip counts as the one without a queue, at least; at most twice that. Long enough
/// to remember a queue's low after a reduction, short enough that a longer route is not taken for a queue for ever.
const MEMORY: Duration = Duration::from_secs(10);
/// Samples of a round before its shortest means something (RFC 9406, `N_RTT_SAMPLE`).
const ENOUGH_SAMPLES: u32 = 8;
/// What timers and schedulers of both ends add to the shortest of a round, and no queue does.
const JITTER: Duration = Duration::from_millis(1);
/// Part of the round trip, beside that, that is not called a queue yet.
const JITTER_PART: u32 = 16;

/// Round trips of one path: the shortest of late, and of each round. A round ends when a packet that was sent in it
/// is acknowledged.
#[derive(Debug, Clone)]
pub(super) struct Delay {
    /// Shortest since `since`, and in the span before
    recent: Duration,
    before: Duration,
    since: Instant,
    /// Round under way
    started: Instant,
    shortest: Duration,
    samples: u32,
    /// Shortest of the last round
    last: Option<Duration>,
}

impl Delay {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            recent: Duration::MAX,
            before: Duration::MAX,
            since: now,
            started: now,
            shortest: Duration::MAX,
            samples: 0,
            last: None,
        }
    }

    /// Takes in that a packet sent at `sent` has just been acknowledged. Whether that begins a round.
    pub(super) fn sample(&mut self, now: Instant, sent: Instant) -> bool {
        let rtt = now.saturating_duration_since(sent);
        if now.saturating_duration_since(self.since) >= MEMORY {
            self.before = self.recent;
            self.recent = Duration::MAX;
            self.since = now;
        }
        self.recent = self.recent.min(rtt);
        let ends = sent >= self.started;
        if ends {
            self.last = (self.samples > 0).then_some(self.shortest);
            self.shortest = Duration::MAX;
            self.samples = 0;
            self.started = now;
        }
        self.shortest = self.shortest.min(rtt);
        self.samples += 1;
        ends
    }

    /// Shortest round trip of late: what the way takes without a queue.
    pub(super) fn base(&self) -> Duration {
        self.recent.min(self.before)
    }

    /// Shortest of this round, as soon as it means something.
    pub(super) fn round(&self) -> Option<Duration> {
        (self.samples >= ENOUGH_SAMPLES).then_some(self.shortest)
    }

    /// Shortest of the round before.
    pub(super) fn last_round(&self) -> Option<Duration> {
        self.last
    }

    /// What part of a window is on the way and not in a queue: one if there is no queue to speak of.
    pub(super) fn on_the_way(&self) -> f64 {
        let base = self.base();
        let now = self.round().or(self.last).unwrap_or(self.shortest);
        if now == Duration::MAX || now <= base + JITTER + base / JITTER_PART {
            1.0
        } else {
            base.as_secs_f64() / now.as_secs_f64()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RTT: Duration = Duration::from_millis(40);

    /// Acknowledges `count` packets, a millisecond apart, with a round trip of `rtt` each.
    fn acknowledge(delay: &mut Delay, now: &mut Instant, rtt: Duration, count: u32) {
        for _ in 0..count {
            *now += Duration::from_millis(1);
            delay.sample(*now, now.checked_sub(rtt).unwrap());
        }
    }

    #[test]
    fn a_queue_is_what_a_whole_round_waits_for() {
        let mut now = Instant::now() + Duration::from_secs(100);
        let mut delay = Delay::new(now);
        acknowledge(&mut delay, &mut now, RTT, 200);
        assert!((delay.on_the_way() - 1.0).abs() < f64::EPSILON);

        // Single late packets are noise.
        for _ in 0..20 {
            acknowledge(&mut delay, &mut now, RTT * 3, 3);
            acknowledge(&mut delay, &mut now, RTT, 1);
        }
        assert!((delay.on_the_way() - 1.0).abs() < f64::EPSILON);

        acknowledge(&mut delay, &mut now, RTT * 2, 200);
        assert!((delay.on_the_way() - 0.5).abs() < 0.01);
    }

    #[test]
    fn a_longer_route_is_no_queue_for_ever() {
        let mut now = Instant::now() + Duration::from_secs(100);
        let mut delay = Delay::new(now);
        acknowledge(&mut delay, &mut now, RTT, 200);
        acknowledge(&mut delay, &mut now, RTT * 2, 5_000);
        assert!(delay.on_the_way() < 0.6, "too early to forget");
        acknowledge(&mut delay, &mut now, RTT * 2, 20_000);
        assert!((delay.on_the_way() - 1.0).abs() < f64::EPSILON);
        assert_eq!(delay.base(), RTT * 2);
    }
}
