//! What has changed, for whoever looks on: the console and other clients of the admin API.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use ffmesh_api::{Change, Event};
use jiff::Timestamp;
use tokio::sync::broadcast;

/// Events that are kept for clients that come back after a lost connection.
pub const MAX_KEPT: usize = 1_000;
/// Events that may wait for a client; one that is further behind is told how many it has missed.
pub const MAX_WAITING: usize = 1_024;

/// The events of a node. Cheap to clone; whoever changes state publishes.
#[derive(Debug, Clone)]
pub struct Events(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    sender: broadcast::Sender<Arc<Event>>,
    log: Mutex<Log>,
}

#[derive(Debug, Default)]
struct Log {
    last: u64,
    kept: VecDeque<Arc<Event>>,
}

impl Default for Events {
    fn default() -> Self {
        Self(Arc::new(Inner { sender: broadcast::Sender::new(MAX_WAITING), log: Mutex::default() }))
    }
}

impl Events {
    /// Tells all who listen.
    pub fn publish(&self, change: Change) {
        let mut log = self.0.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.last += 1;
        // Samples and log lines are frequent, and kept elsewhere.
        let keep = !matches!(change, Change::Sample(_) | Change::Log(_));
        let event = Arc::new(Event { id: log.last, at: Timestamp::now(), change });
        if keep {
            if log.kept.len() >= MAX_KEPT {
                log.kept.pop_front();
            }
            log.kept.push_back(event.clone());
        }
        // Sent under the lock, so that all see them in the order of their numbers. Nobody listens: nothing is lost.
        let _ = self.0.sender.send(event);
    }

    /// The kept events after the number `after`, and all that come from now on; nothing in between is missed.
    pub fn subscribe(&self, after: u64) -> (Vec<Arc<Event>>, broadcast::Receiver<Arc<Event>>) {
        let log = self.0.log.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = log.kept.iter().filter(|event| event.id > after).cloned().collect();
        (kept, self.0.sender.subscribe())
    }

    /// The number of the last event.
    pub fn last(&self) -> u64 {
        self.0.log.lock().unwrap_or_else(PoisonError::into_inner).last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy(name: &str) -> Change {
        Change::Proxy { name: name.to_owned() }
    }

    #[test]
    fn who_comes_back_gets_what_it_missed() {
        let events = Events::default();
        for name in ["a", "b"] {
            events.publish(proxy(name));
        }
        let (kept, mut live) = events.subscribe(1);
        events.publish(proxy("c"));
        assert_eq!(kept.iter().map(|event| event.id).collect::<Vec<_>>(), [2]);
        let event = live.try_recv().unwrap();
        assert_eq!((event.id, &event.change), (3, &proxy("c")));
        assert_eq!(events.last(), 3);
    }

    #[test]
    fn samples_are_not_kept_and_the_rest_is_bounded() {
        let events = Events::default();
        for _ in 0..=MAX_KEPT {
            events.publish(Change::Sample(ffmesh_api::Sample::default()));
            events.publish(proxy("a"));
        }
        let (kept, _live) = events.subscribe(0);
        assert_eq!((kept.len(), kept[0].id), (MAX_KEPT, 4));
    }
}
