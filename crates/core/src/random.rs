//! Random numbers out of a seed that the caller gives: for jitter and for names of queries, never for keys.

use std::time::Duration;

/// SplitMix64 (Steele, Lea and Flood, 2014).
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Starts the series of `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, or 0 where `end` is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.bits().checked_rem(end).unwrap_or_default()
    }

    /// `period`, shortened by up to `percent` percent.
    pub fn jitter(&mut self, period: Duration, percent: u32) -> Duration {
        let most = u64::try_from((period * percent / 100).as_micros()).unwrap_or(u64::MAX);
        period.saturating_sub(Duration::from_micros(self.below(most.saturating_add(1))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_shortens_by_no_more_than_asked() {
        let mut random = Random::new(1);
        let period = Duration::from_secs(10);
        for _ in 0..1000 {
            let time = random.jitter(period, 25);
            assert!(time <= period && time >= period * 3 / 4);
        }
    }
}
