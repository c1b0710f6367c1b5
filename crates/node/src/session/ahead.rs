//! Sessions opened ahead: with the nodes that this node's proxies lead to, so that their first flows wait for none.

use std::collections::HashMap;
use std::time::Duration;

use ffmesh_core::id::NodeId;
use tokio::time::{Instant, sleep};

use super::Sessions;

/// Nodes that sessions are opened with ahead, at most: an idle session costs four packets a second, and memory at both ends.
/// Others wait for their first flow.
pub const MAX_AHEAD: usize = 16;
/// Pause after each dial: a node that starts has other things to do as well.
const STAGGER: Duration = Duration::from_millis(50);
/// How much later the node with the higher id dials: where both would, the session of the lower one is the one to stay.
const PRECEDENCE: Duration = Duration::from_secs(1);
/// Pause after a dial, at first and in the long run: also after one that brought a session, as the other node may end that at
/// once.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));
/// How long a node has to have a session until the pause is the first one again.
const RESTED: Duration = Duration::from_secs(30);
/// How often it is looked whether a session has ended.
const LOOK: Duration = Duration::from_secs(1);

/// When a node is to be dialled.
#[derive(Debug, Clone, Copy)]
struct Turn {
    at: Instant,
    /// The pause after that dial
    pause: Duration,
}

/// The turns of nodes without a session, and of those that have got one of late.
#[derive(Debug, Default)]
struct Turns(HashMap<NodeId, Turn>);

impl Turns {
    /// The one of `lacking`, the nodes that there should be a session with, that is to be dialled now: the one that has waited
    /// longest, as a node that does not answer takes its time.
    fn next(&mut self, own: &NodeId, lacking: &[NodeId], now: Instant) -> Option<NodeId> {
        self.0.retain(|node, turn| lacking.contains(node) || turn.at + RESTED > now);
        for node in lacking {
            let first = || Turn { at: if own < node { now } else { now + PRECEDENCE }, pause: RETRY.0 };
            self.0.entry(node.clone()).or_insert_with(first);
        }
        let due = lacking.iter().filter_map(|node| Some((self.0.get(node)?.at, node)));
        due.filter(|(at, _)| *at <= now).min_by_key(|(at, _)| *at).map(|(_, node)| node.clone())
    }

    /// A dial has come to its end.
    fn dialled(&mut self, node: &NodeId, now: Instant) {
        if let Some(turn) = self.0.get_mut(node) {
            *turn = Turn { at: now + turn.pause, pause: (turn.pause * 2).min(RETRY.1) };
        }
    }
}

impl Sessions {
    /// Keeps sessions with the nodes of `SessionContext::ahead`, as far as a route leads to them. Never returns.
    pub async fn keep_ahead(&self) {
        let (mut table, mut ahead) = (self.table.clone(), self.context.ahead.clone());
        let own = self.context.credentials.node_id();
        let mut turns = Turns::default();
        loop {
            table.borrow_and_update();
            let mut lacking = ahead.borrow_and_update().clone();
            lacking.retain(|node| self.table.borrow().has_route(node) && self.current(node).is_none());
            if let Some(node) = turns.next(&own, &lacking, Instant::now()) {
                if let Err(error) = self.to(&node).await {
                    tracing::debug!(peer = %node, "no session ahead: {error}");
                }
                turns.dialled(&node, Instant::now());
                sleep(STAGGER).await;
                continue;
            }
            let ended = tokio::select! {
                changed = table.changed() => changed.is_err(),
                changed = ahead.changed() => changed.is_err(),
                () = sleep(LOOK) => false,
            };
            if ended {
                return std::future::pending().await; // the node is shutting down
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> NodeId {
        text.parse().unwrap()
    }

    #[test]
    fn the_lower_id_dials_first() {
        let now = Instant::now();
        let next = |turns: &mut Turns, at| turns.next(&id("m"), &[id("a"), id("z")], at);
        let mut turns = Turns::default();
        assert_eq!(next(&mut turns, now), Some(id("z")));
        assert_eq!(turns.next(&id("m"), &[id("a")], now), None, "a dials itself, if it wants to");
        assert_eq!(turns.next(&id("m"), &[id("a")], now + PRECEDENCE), Some(id("a")));
    }

    #[test]
    fn who_cannot_be_dialled_is_asked_less_and_less_often_and_is_in_nobodys_way() {
        let (own, nodes) = (id("a"), [id("b"), id("c")]);
        let mut turns = Turns::default();
        let mut now = Instant::now();
        let end = now + Duration::from_mins(10);
        let mut dials = 0;
        assert_eq!(turns.next(&own, &nodes, now), Some(id("b")));
        turns.dialled(&id("b"), now);
        assert_eq!(turns.next(&own, &nodes, now), Some(id("c")));
        while now < end {
            if turns.next(&own, &nodes[..1], now).is_some() {
                dials += 1;
                turns.dialled(&id("b"), now);
            }
            now += LOOK;
        }
        assert!((14..=16).contains(&dials), "{dials}: at 1, 3, 7, 15, 31, 63 s and each minute from then on");
    }

    #[test]
    fn who_has_waited_longest_is_next() {
        let (own, nodes, now) = (id("a"), [id("b"), id("c")], Instant::now());
        let mut turns = Turns::default();
        assert_eq!(turns.next(&own, &nodes, now), Some(id("b")));
        // A dial may take longer than the pause after it.
        turns.dialled(&id("b"), now);
        assert_eq!(turns.next(&own, &nodes, now + 2 * RETRY.0), Some(id("c")));
    }

    #[test]
    fn a_node_whose_session_lasts_begins_anew_and_one_that_ends_it_at_once_waits() {
        let (own, node, now) = (id("a"), [id("b")], Instant::now());
        let mut turns = Turns::default();
        turns.next(&own, &node, now);
        turns.dialled(&node[0], now);
        turns.next(&own, &[], now);
        assert_eq!(turns.next(&own, &node, now), None, "its session ended at once");
        let now = now + RETRY.0;
        assert_eq!(turns.next(&own, &node, now), Some(id("b")));
        turns.dialled(&node[0], now);
        assert_eq!(turns.next(&own, &node, now + RETRY.0), None, "the second pause is longer");

        let now = now + 2 * RETRY.0 + RESTED;
        turns.next(&own, &[], now);
        assert_eq!(turns.next(&own, &node, now), Some(id("b")));
        turns.dialled(&node[0], now);
        assert_eq!(turns.next(&own, &node, now + RETRY.0), Some(id("b")), "as at first");
    }
}
