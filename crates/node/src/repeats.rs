//! Keeping the log readable: what goes wrong again and again is said once a minute.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a line is not repeated.
const INTERVAL: Duration = Duration::from_mins(1);
/// Lines that are remembered. A stranger who makes up more is met with silence for the rest of the minute.
const MAX_LINES: usize = 1024;

/// Remembers what was said lately.
#[derive(Debug, Default)]
pub struct Repeats(Mutex<HashMap<u64, Instant>>);

impl Repeats {
    /// Whether a line about `what` is new, or its minute is over.
    pub fn is_news(&self, what: impl Hash) -> bool {
        self.is_news_at(what, Instant::now())
    }

    fn is_news_at(&self, what: impl Hash, now: Instant) -> bool {
        let mut hasher = DefaultHasher::new();
        what.hash(&mut hasher);
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if said.len() >= MAX_LINES {
            said.retain(|_, at| now.saturating_duration_since(*at) < INTERVAL);
        }
        let full = said.len() >= MAX_LINES;
        match said.entry(hasher.finish()) {
            std::collections::hash_map::Entry::Occupied(mut entry) => {
                let due = now.saturating_duration_since(*entry.get()) >= INTERVAL;
                if due {
                    entry.insert(now);
                }
                due
            }
            std::collections::hash_map::Entry::Vacant(entry) => {
                if !full {
                    entry.insert(now);
                }
                !full
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_said_once_a_minute() {
        let repeats = Repeats::default();
        let start = Instant::now();
        assert!(repeats.is_news_at("a", start));
        assert!(repeats.is_news_at("b", start));
        assert!(!repeats.is_news_at("a", start + INTERVAL / 2));
        assert!(repeats.is_news_at("a", start + INTERVAL));
    }

    #[test]
    fn made_up_lines_do_not_fill_the_memory_and_silence_ends() {
        let repeats = Repeats::default();
        let start = Instant::now();
        let news = (0..10_000).filter(|i| repeats.is_news_at(i, start)).count();
        assert_eq!(news, MAX_LINES);
        assert!(repeats.is_news_at("other", start + INTERVAL));
    }
}
