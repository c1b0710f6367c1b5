//! When a certificate is to be renewed.

use std::time::Duration;

use jiff::Timestamp;

/// The life of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Renewal {
    /// When it was made
    pub issued: Timestamp,
    /// When it ends
    pub expires: Timestamp,
}

/// Where a certificate stands in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// In its first half: nothing to do.
    Fresh,
    /// From half its life on: to be renewed.
    Due,
    /// From three quarters on: renewal has been failing for long, which is worth a warning.
    Overdue,
    /// It has ended.
    Expired,
}

impl Renewal {
    /// Where it stands now.
    pub fn standing(&self, now: Timestamp) -> Standing {
        if now >= self.expires {
            Standing::Expired
        } else if now >= self.at(3, 4) {
            Standing::Overdue
        } else if now >= self.due_at() {
            Standing::Due
        } else {
            Standing::Fresh
        }
    }

    /// How long is left, when it is time to renew; zero where the certificate has ended. None before half its life.
    pub fn due(&self, now: Timestamp) -> Option<Duration> {
        let left = Duration::try_from(self.expires.duration_since(now)).unwrap_or_default();
        (self.standing(now) > Standing::Fresh).then_some(left)
    }

    /// Half of its life.
    pub fn due_at(&self) -> Timestamp {
        self.at(1, 2)
    }

    /// How long to wait after a failed attempt: a fiftieth of the life, 1 s to 1 h.
    pub fn retry_after(&self) -> Duration {
        (self.life() / 50).clamp(Duration::from_secs(1), Duration::from_hours(1))
    }

    fn life(&self) -> Duration {
        Duration::try_from(self.expires.duration_since(self.issued)).unwrap_or_default()
    }

    fn at(&self, numerator: u32, denominator: u32) -> Timestamp {
        self.issued.checked_add(self.life() / denominator * numerator).unwrap_or(self.expires)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_due_from_half_its_life_and_overdue_from_three_quarters() {
        use Standing::{Due, Expired, Fresh, Overdue};
        let at = |second| Timestamp::from_second(second).unwrap();
        let renewal = Renewal { issued: at(1_000), expires: at(1_400) };
        let standings: Vec<_> =
            [0, 1_199, 1_200, 1_299, 1_300, 1_399, 1_400].map(|s| renewal.standing(at(s))).into();
        assert_eq!(standings, [Fresh, Fresh, Due, Due, Overdue, Overdue, Expired]);
        assert_eq!(renewal.due(at(1_100)), None);
        assert_eq!(renewal.due(at(1_300)), Some(Duration::from_secs(100)));
        assert_eq!(renewal.due(at(2_000)), Some(Duration::ZERO));
        assert_eq!(renewal.retry_after(), Duration::from_secs(8));
    }
}
