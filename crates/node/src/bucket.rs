//! How fast another node may do something.

use std::time::{Duration, Instant};

/// A token bucket: `rate` a second, and as many at once.
#[derive(Debug)]
pub struct Bucket {
    rate: f64,
    tokens: f64,
    filled: Instant,
}

impl Bucket {
    /// A full one.
    pub fn new(rate: u32) -> Self {
        Self { rate: rate.into(), tokens: rate.into(), filled: Instant::now() }
    }

    /// Takes one, if there is one.
    pub fn take(&mut self) -> bool {
        self.take_at(Instant::now())
    }

    fn take_at(&mut self, now: Instant) -> bool {
        let gained =
            now.saturating_duration_since(self.filled).min(Duration::from_secs(1)).as_secs_f64() * self.rate;
        self.filled = now;
        self.tokens = (self.tokens + gained).min(self.rate);
        let taken = self.tokens >= 1.0;
        self.tokens -= f64::from(u8::from(taken));
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_its_rate_and_no_more() {
        let mut bucket = Bucket::new(10);
        let start = Instant::now();
        let mut taken = 0;
        for ms in 0..3_000 {
            taken += u32::from(bucket.take_at(start + Duration::from_millis(ms)));
        }
        assert!((38..=40).contains(&taken), "{taken} in 3 s at 10 a second, 10 at once");
    }
}
