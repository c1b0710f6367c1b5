//! One-time codes, with which a browser gets a session without anyone copying the token.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::{Fingerprint, fingerprint, random};

/// How long a code is good: what it takes to open a link.
pub(super) const CODE_LIFE: Duration = Duration::from_mins(1);
/// Codes that are good at once; the oldest makes way. Only who can use the node anyway makes them.
const MAX_CODES: usize = 16;

/// Codes by their fingerprint, with the time they end.
#[derive(Debug, Default)]
pub(super) struct Codes(HashMap<Fingerprint, Instant>);

impl Codes {
    pub(super) fn create(&mut self, now: Instant) -> String {
        self.0.retain(|_, end| *end > now);
        if self.0.len() >= MAX_CODES {
            let oldest = self.0.iter().min_by_key(|(_, end)| **end).map(|(code, _)| *code);
            oldest.and_then(|code| self.0.remove(&code));
        }
        let code = random();
        self.0.insert(fingerprint(code.as_bytes()), now + CODE_LIFE);
        code
    }

    /// Whether it is a code that is good. It is not any more.
    pub(super) fn redeem(&mut self, code: &[u8], now: Instant) -> bool {
        self.0.remove(&fingerprint(code)).is_some_and(|end| end > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_works_once_and_for_a_minute() {
        let (mut codes, now) = (Codes::default(), Instant::now());
        let code = codes.create(now);
        assert!(!codes.redeem(b"another", now));
        assert!(codes.redeem(code.as_bytes(), now + CODE_LIFE / 2));
        assert!(!codes.redeem(code.as_bytes(), now + CODE_LIFE / 2));
        let code = codes.create(now);
        assert!(!codes.redeem(code.as_bytes(), now + CODE_LIFE));
    }

    #[test]
    fn the_oldest_code_makes_way() {
        let (mut codes, now) = (Codes::default(), Instant::now());
        let made: Vec<_> = (0..=16).map(|i| codes.create(now + Duration::from_millis(i))).collect();
        assert_eq!(codes.0.len(), MAX_CODES);
        assert!(!codes.redeem(made[0].as_bytes(), now) && codes.redeem(made[16].as_bytes(), now));
    }
}
