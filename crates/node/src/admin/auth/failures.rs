//! How many logins may fail.

use std::time::{Duration, Instant};

/// Logins that may fail in each [`WINDOW`], whoever tries them: a person mistypes less often.
const MAX_FAILURES: u32 = 10;
const WINDOW: Duration = Duration::from_mins(1);

/// Those of the window.
#[derive(Debug, Default)]
pub(super) struct Failures {
    began: Option<Instant>,
    count: u32,
}

impl Failures {
    /// Counts one. Where there were too many, how long until the next window.
    pub(super) fn add(&mut self, now: Instant) -> Option<Duration> {
        let began = match self.began {
            Some(began) if now.saturating_duration_since(began) < WINDOW => began,
            _ => {
                self.count = 0;
                *self.began.insert(now)
            }
        };
        self.count = self.count.saturating_add(1);
        (self.count > MAX_FAILURES).then(|| WINDOW.saturating_sub(now.saturating_duration_since(began)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_failures_wait_for_the_next_window() {
        let (mut failures, start) = (Failures::default(), Instant::now());
        for _ in 0..MAX_FAILURES {
            assert_eq!(failures.add(start), None);
        }
        assert_eq!(failures.add(start + WINDOW / 4), Some(WINDOW * 3 / 4));
        assert_eq!(failures.add(start + WINDOW), None);
    }
}
