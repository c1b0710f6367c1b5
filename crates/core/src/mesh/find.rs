//! FIND_NODE: asking around for a node that is not in the database.
//!
//! A query goes to all neighbours, from each to all of its own, as far as its TTL and never twice through one node. Who
//! knows the target answers with its signed records, which go back the way the query came; only the first
//! answer does.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::flood::LinkId;
use crate::id::NodeId;
use crate::time::Time;

/// Hops that a query of this node goes.
pub const TTL: u8 = 8;
/// How long a query of this node waits for an answer.
pub const PATIENCE: Duration = Duration::from_secs(3);
/// How long a query that passed is remembered: longer than any answer takes.
const MEMORY: Duration = Duration::from_secs(10);
/// Queries that are remembered. More are not passed on.
const MAX_REMEMBERED: usize = 4096;
/// Queries of one neighbour that are taken in within a second.
const MAX_PER_SECOND: u32 = 64;
/// Queries of this node that wait at once.
const MAX_OWN: usize = 64;

/// Names a query: who asks, and 64 random bits.
pub(super) type QueryId = (NodeId, u64);

/// Queries that passed, and those of this node.
#[derive(Debug, Default)]
pub(super) struct Finder {
    seen: BTreeMap<QueryId, Option<LinkId>>,
    order: VecDeque<(Time, QueryId)>,
    own: BTreeMap<NodeId, (u64, Time)>,
    rates: BTreeMap<LinkId, (Time, u32)>,
    ignored: u64,
}

impl Finder {
    /// Starts a query of this node. `false` where one for this target runs, or there are too many.
    pub(super) fn start(&mut self, target: &NodeId, own: &NodeId, query: u64, now: Time) -> bool {
        if self.own.contains_key(target) || self.own.len() >= MAX_OWN {
            return false;
        }
        self.own.insert(target.clone(), (query, now + PATIENCE));
        self.remember((own.clone(), query), None, now);
        true
    }

    /// A query came over a link. `false` where it was here before, or there are too many.
    pub(super) fn admits(&mut self, query: QueryId, from: LinkId, now: Time) -> bool {
        self.forget(now);
        let (since, count) = self.rates.entry(from).or_insert((now, 0));
        if now - *since >= Duration::from_secs(1) {
            (*since, *count) = (now, 0);
        }
        *count += 1;
        let admitted =
            *count <= MAX_PER_SECOND && self.seen.len() < MAX_REMEMBERED && !self.seen.contains_key(&query);
        if admitted {
            self.remember(query, Some(from), now);
        } else {
            self.ignored += 1;
        }
        admitted
    }

    /// Where an answer is to go: back over a link. `None` where it is for this node, there was one before, or
    /// nobody has asked.
    pub(super) fn answer(&mut self, query: &QueryId) -> Option<LinkId> {
        self.seen.get_mut(query)?.take()
    }

    /// Whether this node still waits for the answer to its query.
    pub(super) fn waits_for(&self, target: &NodeId, query: u64) -> bool {
        self.own.get(target).is_some_and(|(own, _)| *own == query)
    }

    /// The target of a query of this node is known.
    pub(super) fn found(&mut self, target: &NodeId) -> bool {
        self.own.remove(target).is_some()
    }

    /// Targets of this node's queries that nobody knew.
    pub(super) fn give_up(&mut self, now: Time) -> Vec<NodeId> {
        self.own.extract_if(.., |_, (_, until)| *until <= now).map(|(target, _)| target).collect()
    }

    pub(super) fn link_down(&mut self, link: LinkId) {
        self.rates.remove(&link);
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        self.own.values().map(|(_, until)| *until).min()
    }

    pub(super) fn ignored(&self) -> u64 {
        self.ignored
    }

    fn remember(&mut self, query: QueryId, from: Option<LinkId>, now: Time) {
        self.order.push_back((now + MEMORY, query.clone()));
        self.seen.insert(query, from);
    }

    fn forget(&mut self, now: Time) {
        while let Some((_, query)) = self.order.front().filter(|(until, _)| *until <= now) {
            self.seen.remove(query);
            self.order.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_taken_once_and_answered_once() {
        let mut finder = Finder::default();
        let query: QueryId = ("a".parse().unwrap(), 7);
        assert!(finder.admits(query.clone(), LinkId(1), Time(0)));
        assert!(!finder.admits(query.clone(), LinkId(2), Time(0)));
        assert_eq!(finder.answer(&query), Some(LinkId(1)));
        assert_eq!(finder.answer(&query), None);
        assert_eq!(finder.answer(&("b".parse().unwrap(), 7)), None);
    }

    #[test]
    fn a_neighbour_that_asks_without_end_is_bounded_and_alone() {
        let mut finder = Finder::default();
        let ask = |finder: &mut Finder, n: u64, link| {
            finder.admits(("a".parse().unwrap(), n), LinkId(link), Time(n))
        };
        let taken = (0..100_000).filter(|n| ask(&mut finder, *n, 1)).count();
        assert_eq!(taken, MAX_PER_SECOND as usize);
        assert!(ask(&mut finder, 200_000, 2));
        assert!(finder.seen.len() <= MAX_REMEMBERED);
        finder.forget(Time(300_000) + MEMORY);
        assert!(finder.seen.is_empty() && finder.order.is_empty());
    }
}
