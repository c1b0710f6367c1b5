//! What has changed, for whoever looks on: the console and other clients of the admin API.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ffmesh_api::{Change, Event};
use jiff::Timestamp;
use tokio::sync::broadcast;

/// Events that are kept for clients that come back after a lost connection.
pub const MAX_KEPT: usize = 1_000;
/// Events that may wait for a client; one that is further behind is told how many it has missed.
pub const MAX_WAITING: usize = 1_024;

/// Numbers that each millisecond of a run has: far more than there are events, so that the next run begins above them.
const EVENTS_PER_MS: u64 = 1_000;
/// No run begins above this, as JavaScript counts to 2^53 only: it is the year 2112 then.
const LAST_START: u64 = 1 << 52;

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
    /// The number before the first event
    start: u64,
    last: u64,
    /// The last one that was kept once
    forgotten: u64,
    kept: VecDeque<Arc<Event>>,
}

impl Default for Events {
    fn default() -> Self {
        Self::after(0)
    }
}

impl Events {
    /// None yet, in the run of the node that began with this [epoch](crate::state::StateDir::next_epoch): their numbers go
    /// on from those of earlier runs, so that a client that comes back is understood.
    pub fn of_run(epoch: u64) -> Self {
        Self::after(epoch.saturating_mul(EVENTS_PER_MS).min(LAST_START))
    }

    fn after(start: u64) -> Self {
        let log = Log { start, last: start, forgotten: start, kept: VecDeque::new() };
        Self(Arc::new(Inner { sender: broadcast::Sender::new(MAX_WAITING), log: Mutex::new(log) }))
    }

    /// Tells all who listen.
    pub fn publish(&self, change: Change) {
        // Samples and log lines are frequent, and kept elsewhere: without a listener they are nothing.
        let keep = !matches!(change, Change::Sample(_) | Change::Log(_));
        if !keep && !self.is_watched() {
            return;
        }
        let mut log = self.lock();
        log.last += 1;
        let event = Arc::new(Event { id: log.last, at: Timestamp::now(), change });
        if keep {
            if log.kept.len() >= MAX_KEPT
                && let Some(oldest) = log.kept.pop_front()
            {
                log.forgotten = oldest.id;
            }
            log.kept.push_back(event.clone());
        }
        // Sent under the lock, so that all see them in the order of their numbers. Nobody listens: nothing is lost.
        let _ = self.0.sender.send(event);
    }

    /// The kept events after the number `after`, and all that come from now on; nothing in between is missed. Where some
    /// of them are not kept any more, or the number is of an earlier run of the node, they begin with
    /// [`Change::Lagged`]. With 0 they are all that are kept.
    pub fn subscribe(&self, after: u64) -> (Vec<Arc<Event>>, broadcast::Receiver<Arc<Event>>) {
        let log = self.lock();
        let live = self.0.sender.subscribe();
        let is_of_this_run = (log.start..=log.last).contains(&after);
        let from = if is_of_this_run { after } else { log.start };
        let lagged = (after > 0 && (!is_of_this_run || from < log.forgotten))
            .then(|| Arc::new(lagged(log.forgotten, log.forgotten.saturating_sub(from))));
        let kept = log.kept.iter().filter(|event| event.id > from).cloned();
        (lagged.into_iter().chain(kept).collect(), live)
    }

    /// The number of the last event.
    pub fn last(&self) -> u64 {
        self.lock().last
    }

    /// Whether anybody listens.
    pub fn is_watched(&self) -> bool {
        self.0.sender.receiver_count() > 0
    }

    fn lock(&self) -> MutexGuard<'_, Log> {
        self.0.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells that the `missed` events up to the number `id` were left out.
pub fn lagged(id: u64, missed: u64) -> Event {
    Event { id, at: Timestamp::now(), change: Change::Lagged { missed } }
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
        let (_, live) = events.subscribe(0);
        for _ in 0..=MAX_KEPT {
            events.publish(Change::Sample(ffmesh_api::Sample::default()));
            events.publish(proxy("a"));
        }
        let (kept, _live) = events.subscribe(0);
        assert_eq!((kept.len(), kept[0].id), (MAX_KEPT, 4));
        drop(live);
    }

    #[test]
    fn samples_are_nothing_when_nobody_listens() {
        let events = Events::default();
        events.publish(Change::Sample(ffmesh_api::Sample::default()));
        assert!(!events.is_watched() && events.last() == 0);
        let (_, _live) = events.subscribe(0);
        events.publish(Change::Sample(ffmesh_api::Sample::default()));
        assert!(events.is_watched() && events.last() == 1);
    }

    #[test]
    fn who_comes_back_too_late_is_told_so() {
        let events = Events::default();
        for _ in 0..MAX_KEPT + 10 {
            events.publish(proxy("a"));
        }
        let first = |after| {
            let kept = events.subscribe(after).0;
            (kept[0].id, kept[0].change.clone(), kept[1].id)
        };
        assert_eq!(first(7), (10, Change::Lagged { missed: 3 }, 11));
        assert_eq!(first(10), (11, proxy("a"), 12));
        assert_eq!(first(0), (11, proxy("a"), 12));
        assert_eq!(first(5_000), (10, Change::Lagged { missed: 10 }, 11), "of another run");
    }

    #[test]
    fn numbers_go_on_after_a_restart() {
        let published = |epoch| {
            let events = Events::of_run(epoch);
            events.publish(proxy("a"));
            events.publish(proxy("b"));
            events
        };
        let epoch = 1_800_000_000_000;
        let (before, after) = (published(epoch), published(epoch + 1));
        assert!(after.last() > before.last() && after.last() < 1 << 53);
        let (kept, _live) = after.subscribe(before.last());
        assert_eq!(kept[0].change, Change::Lagged { missed: 0 }, "it may have missed some of the run before");
        assert_eq!(
            kept[1..].iter().map(|event| &event.change).collect::<Vec<_>>(),
            [&proxy("a"), &proxy("b")]
        );
        let (none, _live) = Events::of_run(epoch).subscribe(Events::of_run(epoch).last());
        assert!(none.is_empty());
        assert!(published(u64::MAX).last() < 1 << 53);
    }
}
