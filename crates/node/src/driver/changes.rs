//! What changed in the mesh, for the node's [`Events`].
//!
//! Links are told of one by one. What other nodes do is told of once a second at most, as it stands then: in a large
//! mesh something changes all the time.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use ffmesh_api::{Change, PeerState};
use ffmesh_core::id::NodeId;
use ffmesh_core::mesh::Table;
use ffmesh_core::time::Time;

use crate::events::Events;

/// Shortest time between two looks at the mesh: as often as somebody wants to draw it.
const INTERVAL: Duration = Duration::from_secs(1);
/// Most nodes that are told of one by one after one look. More are a part of the mesh that came or went; whoever looks on
/// has to ask for the topology anyway.
const MAX_NODES: usize = 100;

/// What those who look on have been told.
pub(super) struct Changes {
    events: Events,
    /// Links that came or went, told of once the table says so
    links: Vec<Change>,
    /// The nodes, and whether a route led to each
    reachable: HashMap<NodeId, bool>,
    generation: u64,
    /// No look before this moment
    next: Time,
}

impl Changes {
    pub(super) fn new(events: Events) -> Self {
        Self { events, links: Vec::new(), reachable: HashMap::new(), generation: 0, next: Time(0) }
    }

    /// A link came, or went for a reason.
    pub(super) fn link(&mut self, node: &NodeId, state: PeerState, reason: Option<String>) {
        self.links.push(Change::Peer { node_id: node.clone(), state, reason });
    }

    /// Tells of links, now that the table has what they say.
    pub(super) fn tell_links(&mut self) {
        for change in self.links.drain(..) {
            self.events.publish(change);
        }
    }

    /// When [`tell_mesh`](Self::tell_mesh) has something to say; none while it has not.
    pub(super) fn deadline(&self, generation: u64) -> Option<Time> {
        (generation != self.generation).then_some(self.next)
    }

    /// Tells what changed in the mesh, if the table is a new one and the last look was a second ago.
    pub(super) fn tell_mesh(&mut self, mesh: &Table, linked: &BTreeSet<NodeId>, generation: u64, now: Time) {
        if self.deadline(generation).is_none_or(|due| now < due) {
            return;
        }
        (self.generation, self.next) = (generation, now + INTERVAL);
        let changed = self.compare(mesh, linked);
        if changed.len() <= MAX_NODES {
            for (node_id, reachable) in changed {
                self.events.publish(Change::Node { node_id, reachable });
            }
        }
        self.events.publish(Change::Topology { generation });
    }

    /// The nodes that appeared, became reachable or unreachable, by id.
    fn compare(&mut self, mesh: &Table, linked: &BTreeSet<NodeId>) -> Vec<(NodeId, bool)> {
        let (before, mut seen, mut changed) = (&mut self.reachable, 0, Vec::new());
        let mut see = |node: &NodeId, reachable: bool| {
            seen += 1;
            if before.get(node) != Some(&reachable) {
                before.insert(node.clone(), reachable);
                changed.push((node.clone(), reachable));
            }
        };
        // As `RoutingTable::has_route` has it, for all at once.
        let next_hops: BTreeSet<_> = linked.iter().filter_map(|node| mesh.index().get(node)).collect();
        for (number, node) in (1..).zip(mesh.nodes()) {
            let next = mesh.hop(number).map(|(next, _)| next);
            see(node, next_hops.contains(&number) || next.is_some_and(|next| next_hops.contains(&next)));
        }
        for node in linked.iter().filter(|node| !mesh.knows(node)) {
            see(node, true);
        }
        if before.len() > seen {
            // Nothing is known of them any more. One that could not be reached is no news.
            let gone = before.extract_if(|node, _| !mesh.knows(node) && !linked.contains(node));
            changed.extend(gone.filter(|(_, reachable)| *reachable).map(|(node, _)| (node, false)));
        }
        changed.sort();
        changed
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ffmesh_api::Event;
    use ffmesh_core::graph::{Graph, Listed, Node, NodeIndex};
    use tokio::sync::broadcast::Receiver;

    use super::*;

    /// What this node knows where it has `count` others, of which only the first `linked` hang together with it, in a
    /// chain.
    fn table(count: u32, linked: u32) -> Table {
        let mut index = NodeIndex::default();
        for number in 0..=count {
            index.intern(&format!("n{number}").parse().unwrap());
        }
        let nodes = vec![Node::default(); index.len()];
        let links = (0..linked).flat_map(|n| [(n, n + 1), (n + 1, n)]);
        let listed: Vec<_> = links.map(|(from, to)| Listed { from, to, cost: 1_000 }).collect();
        Table::of(index, Graph::new(&nodes, &listed), Vec::new())
    }

    /// The only neighbour, where there is one.
    fn neighbor(linked: u32) -> BTreeSet<NodeId> {
        (linked > 0).then(|| "n1".parse().unwrap()).into_iter().collect()
    }

    impl Changes {
        fn tell(&mut self, generation: u64, count: u32, linked: u32, ms: u64) {
            self.tell_mesh(&table(count, linked), &neighbor(linked), generation, at(ms));
        }
    }

    fn told(live: &mut Receiver<Arc<Event>>) -> Vec<Change> {
        std::iter::from_fn(|| live.try_recv().ok()).map(|event| event.change.clone()).collect()
    }

    fn node(number: u32, reachable: bool) -> Change {
        Change::Node { node_id: format!("n{number}").parse().unwrap(), reachable }
    }

    fn at(ms: u64) -> Time {
        Time(0) + Duration::from_millis(ms)
    }

    #[test]
    fn nodes_that_come_and_go_are_told_of_once_a_second() {
        let events = Events::default();
        let (_, mut live) = events.subscribe(0);
        let mut changes = Changes::new(events);
        let mut tell = |generation, count, linked, ms| {
            changes.tell(generation, count, linked, ms);
            told(&mut live)
        };
        let topology = |generation| Change::Topology { generation };
        assert_eq!(tell(1, 3, 2, 5_000), [node(1, true), node(2, true), node(3, false), topology(1)]);
        assert_eq!(tell(1, 3, 2, 9_000), [], "it is the same table");
        assert_eq!(tell(2, 3, 3, 10_000), [node(3, true), topology(2)]);
        assert_eq!(tell(3, 3, 0, 10_999), []);
        assert_eq!(tell(4, 3, 1, 11_000), [node(2, false), node(3, false), topology(4)]);
        assert_eq!(tell(5, 0, 0, 20_000), [node(1, false), topology(5)], "two were not reached before");
    }

    #[test]
    fn the_next_look_waits_for_a_new_table() {
        let mut changes = Changes::new(Events::default());
        changes.tell(7, 3, 3, 5_000);
        assert_eq!(changes.deadline(7), None);
        assert_eq!(changes.deadline(8), Some(at(6_000)));
    }

    #[test]
    fn a_part_of_the_mesh_that_goes_is_told_of_as_a_whole() {
        let events = Events::default();
        let (_, mut live) = events.subscribe(0);
        let mut changes = Changes::new(events);
        let most = u32::try_from(MAX_NODES).unwrap();
        changes.tell(1, most, most, 1_000);
        assert_eq!(told(&mut live).len(), MAX_NODES + 1);
        changes.tell(2, 10 * most, most, 2_000);
        assert_eq!(told(&mut live), [Change::Topology { generation: 2 }]);
        changes.tell(3, 10 * most, most - 1, 3_000);
        assert_eq!(
            told(&mut live),
            [node(most, false), Change::Topology { generation: 3 }],
            "the rest is known"
        );
    }

    #[test]
    fn a_link_is_a_node_before_the_mesh_knows_it() {
        let events = Events::default();
        let (_, mut live) = events.subscribe(0);
        let mut changes = Changes::new(events);
        let new = BTreeSet::from(["n7".parse().unwrap()]);
        changes.tell_mesh(&table(0, 0), &new, 1, at(1_000));
        assert_eq!(told(&mut live), [node(7, true), Change::Topology { generation: 1 }]);
    }

    #[test]
    fn ten_thousand_nodes_are_compared_in_no_time() {
        let mut changes = Changes::new(Events::default());
        changes.tell(1, 10_000, 10, 1_000);
        let after = table(10_000, 9);
        let begin = std::time::Instant::now();
        changes.tell_mesh(&after, &neighbor(9), 2, at(2_000));
        // It takes some milliseconds; a comparison of each with each would take minutes.
        assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
    }
}
