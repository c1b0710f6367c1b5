//! How much one neighbour may have relayed.

use std::time::Duration;

use ffmesh_core::time::Time;

/// Packets of one link that are relayed a second: full ones make [`MAX_TRANSIT_BYTES_PER_SECOND`].
pub const MAX_TRANSIT_PACKETS_PER_SECOND: u64 = 2_000_000;
/// Bytes of one link that are relayed a second, labels included: about what one core relays, so that one neighbour
/// alone cannot take more of the node than that.
pub const MAX_TRANSIT_BYTES_PER_SECOND: u64 = 2_500_000_000;
/// What may come at once: as much as in this time. More than a full receive buffer holds.
const BURST: Duration = Duration::from_millis(100);

/// What may be relayed for one link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransitLimit {
    /// Packets a second
    pub packets: u64,
    /// Bytes a second
    pub bytes: u64,
}

impl Default for TransitLimit {
    fn default() -> Self {
        Self { packets: MAX_TRANSIT_PACKETS_PER_SECOND, bytes: MAX_TRANSIT_BYTES_PER_SECOND }
    }
}

/// What one link has left of its limit: two token buckets.
#[derive(Debug)]
pub(super) struct Allowance {
    packets: Bucket,
    bytes: Bucket,
    filled: Time,
}

impl Allowance {
    pub(super) fn new(limit: TransitLimit, now: Time) -> Self {
        Self { packets: Bucket::new(limit.packets), bytes: Bucket::new(limit.bytes), filled: now }
    }

    /// Takes what a run of packets needs, or nothing if it is not there: a run is dropped whole.
    pub(super) fn take(&mut self, packets: usize, bytes: usize, now: Time) -> bool {
        let passed = now - self.filled;
        self.filled = now;
        self.packets.fill(passed);
        self.bytes.fill(passed);
        let (Some(packets), Some(bytes)) = (self.packets.without(packets), self.bytes.without(bytes)) else {
            return false;
        };
        (self.packets.left, self.bytes.left) = (packets, bytes);
        true
    }
}

/// Units of a bucket in one token: at a rate of so many tokens a second, a unit comes every microsecond.
const TOKEN: u64 = 1_000_000;

#[derive(Debug)]
struct Bucket {
    rate: u64,
    left: u64,
}

impl Bucket {
    fn new(rate: u64) -> Self {
        let mut bucket = Self { rate, left: 0 };
        bucket.fill(BURST);
        bucket
    }

    fn gained(&self, passed: Duration) -> u64 {
        u64::try_from(passed.as_micros()).unwrap_or(u64::MAX).saturating_mul(self.rate)
    }

    fn fill(&mut self, passed: Duration) {
        self.left = self.left.saturating_add(self.gained(passed)).min(self.gained(BURST));
    }

    fn without(&self, tokens: usize) -> Option<u64> {
        self.left.checked_sub(u64::try_from(tokens).unwrap_or(u64::MAX).saturating_mul(TOKEN))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many packets of 100 bytes pass in 10 s, one offered each millisecond.
    fn passed(limit: TransitLimit) -> usize {
        let mut allowance = Allowance::new(limit, Time(0));
        (0..10_000).filter(|ms| allowance.take(1, 100, Time(ms * 1_000))).count()
    }

    #[test]
    fn a_link_gets_its_rate_and_a_burst_and_no_more() {
        assert_eq!(passed(TransitLimit { packets: 200, bytes: 1_000_000 }), 20 + 1_999, "by packets");
        assert_eq!(passed(TransitLimit { packets: 1_000_000, bytes: 10_000 }), 10 + 999, "by bytes");
        assert_eq!(passed(TransitLimit::default()), 10_000);
    }

    #[test]
    fn what_is_refused_costs_nothing() {
        let mut allowance = Allowance::new(TransitLimit { packets: 100, bytes: 100_000 }, Time(0));
        assert!(!allowance.take(11, 1, Time(0)));
        assert!(!allowance.take(1, 10_001, Time(0)));
        assert!(allowance.take(10, 10_000, Time(0)));
        assert!(!allowance.take(1, 1, Time(0)));
        assert!(allowance.take(10, 10_000, Time(u64::MAX)), "a long time fills no more than the burst");
        assert!(!allowance.take(1, 1, Time(u64::MAX)));
    }
}
