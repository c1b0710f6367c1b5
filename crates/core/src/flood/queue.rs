//! Which records wait for a neighbour, and since when they may go.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::lsdb::{Key, Kind, Name};
use crate::time::Time;

/// Records that wait for one neighbour: keys only. What goes out is what the database has then, so a record that was
/// replaced while it waited goes once, and the queue is never longer than the database.
#[derive(Debug, Default)]
pub(super) struct Queue {
    due: BTreeMap<Key, Time>,
    order: BTreeSet<(Time, Key)>,
}

impl Queue {
    /// Lets a record go at `at`, or earlier where it was to go earlier.
    pub(super) fn push(&mut self, key: Key, at: Time) {
        match self.due.get(&key) {
            Some(due) if *due <= at => return,
            Some(due) => self.order.remove(&(*due, key)),
            None => false,
        };
        self.due.insert(key, at);
        self.order.insert((at, key));
    }

    /// Lets a record go at `at` or up to `batch` later, together with others.
    pub(super) fn push_batched(&mut self, key: Key, at: Time, batch: Duration) {
        let first = Key { name: Name(0), kind: Kind::Node };
        let together = self.order.range((at, first)..).next().map(|(due, _)| *due);
        self.push(key, together.map_or(at + batch, |due| due.min(at + batch)));
    }

    /// The neighbour has it.
    pub(super) fn remove(&mut self, key: Key) {
        if let Some(due) = self.due.remove(&key) {
            self.order.remove(&(due, key));
        }
    }

    /// The next record that may go at `now`.
    pub(super) fn pop(&mut self, now: Time) -> Option<Key> {
        let (_, key) = self.order.first().copied().filter(|(due, _)| *due <= now)?;
        self.remove(key);
        Some(key)
    }

    /// When the next record may go.
    pub(super) fn deadline(&self) -> Option<Time> {
        self.order.first().map(|(due, _)| *due)
    }

    pub(super) fn len(&self) -> usize {
        self.due.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u32) -> Key {
        Key { name: Name(n), kind: Kind::Links }
    }

    #[test]
    fn a_record_waits_once_and_for_the_earlier_time() {
        let mut queue = Queue::default();
        queue.push(key(1), Time(50));
        queue.push(key(1), Time(10));
        queue.push(key(1), Time(90));
        assert_eq!((queue.len(), queue.deadline()), (1, Some(Time(10))));
        assert_eq!(queue.pop(Time(9)), None);
        assert_eq!(queue.pop(Time(10)), Some(key(1)));
        assert_eq!((queue.pop(Time(99)), queue.len()), (None, 0));
    }

    #[test]
    fn good_news_goes_together_and_waits_no_longer_than_the_batch() {
        let batch = Duration::from_micros(50);
        let mut queue = Queue::default();
        queue.push_batched(key(1), Time(100), batch);
        queue.push_batched(key(2), Time(120), batch);
        queue.push_batched(key(3), Time(151), batch);
        assert_eq!(queue.due.values().copied().collect::<Vec<_>>(), [Time(150), Time(150), Time(201)]);
    }
}
