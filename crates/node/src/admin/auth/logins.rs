//! Sessions of the console, in memory: a node that restarts asks for the token again.

use std::collections::HashMap;
use std::fmt;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::{Fingerprint, fingerprint, random};

/// Sessions at once: many times the people who look at one node. The one that is idle for longest makes way.
const MAX_LOGINS: usize = 64;
/// A session ends when it was not used for this long: a working day with its breaks.
pub const LOGIN_IDLE: Duration = Duration::from_hours(12);

struct Kept {
    csrf: String,
    used: Instant,
    /// Dropped with the session, which ends what hangs on it
    alive: watch::Sender<()>,
}

#[derive(Default)]
pub(super) struct Logins(HashMap<Fingerprint, Kept>);

impl Logins {
    /// A new session: its id and its CSRF token.
    pub(super) fn open(&mut self, now: Instant) -> (String, String) {
        if self.0.len() >= MAX_LOGINS {
            let oldest = self.0.iter().min_by_key(|(_, kept)| kept.used).map(|(id, _)| *id);
            oldest.and_then(|id| self.0.remove(&id));
        }
        let (id, csrf) = (random(), random());
        let kept = Kept { csrf: csrf.clone(), used: now, alive: watch::Sender::new(()) };
        self.0.insert(fingerprint(id.as_bytes()), kept);
        (id, csrf)
    }

    /// The CSRF token of a session that has not ended.
    pub(super) fn find(&mut self, id: &Fingerprint, now: Instant) -> Option<String> {
        let kept = self.0.get_mut(id)?;
        if now.saturating_duration_since(kept.used) >= LOGIN_IDLE {
            self.0.remove(id);
            return None;
        }
        kept.used = now;
        Some(kept.csrf.clone())
    }

    /// Closed when the session ends; none where it has ended.
    pub(super) fn alive(&self, id: &Fingerprint) -> Option<watch::Receiver<()>> {
        Some(self.0.get(id)?.alive.subscribe())
    }

    pub(super) fn close(&mut self, id: &Fingerprint) {
        self.0.remove(id);
    }
}

/// Without the secrets.
impl fmt::Debug for Logins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} sessions", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_ends_when_it_is_idle_or_closed() {
        let (mut logins, start) = (Logins::default(), Instant::now());
        let (id, csrf) = logins.open(start);
        let id = fingerprint(id.as_bytes());
        let soon = start + LOGIN_IDLE / 2;
        assert_eq!(logins.find(&id, soon), Some(csrf.clone()));
        assert_eq!(logins.find(&id, start + LOGIN_IDLE), Some(csrf), "use puts the end off");
        assert_eq!(logins.find(&id, start + LOGIN_IDLE * 2), None);
        let (id, _) = logins.open(start);
        let id = fingerprint(id.as_bytes());
        logins.close(&id);
        assert_eq!(logins.find(&id, start), None);
    }

    #[test]
    fn the_longest_idle_session_makes_way() {
        let (mut logins, start) = (Logins::default(), Instant::now());
        let open = |i| fingerprint(logins.open(start + Duration::from_secs(i)).0.as_bytes());
        let ids: Vec<_> = (0..=64).map(open).collect();
        let now = start + Duration::from_mins(5);
        assert_eq!((logins.0.len(), ids.len()), (MAX_LOGINS, MAX_LOGINS + 1));
        assert!(logins.find(&ids[0], now).is_none());
        assert!(ids[1..].iter().all(|id| logins.find(id, now).is_some()));
    }
}
