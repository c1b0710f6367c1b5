//! Shortest paths first: what each node costs from here, and over which neighbour.
//!
//! Dijkstra's algorithm ("A note on two problems in connexion with graphs", 1959) with one rule of ours: a node that
//! carries no transit ends a path and never continues one. The cost of a path is the sum of its links and of what
//! [passing through](Graph::through) its inner nodes costs. As that is more than 0, paths have no detours, and which
//! of two equally cheap paths wins does not depend on the order of anything: the one of fewer links, then the one
//! whose last node but one has the lower number.
//!
//! This tree serves tables and reachability. What a session uses comes from [`crate::routes`], which also knows the
//! limit on a route's length and paths that share no relay.

use crate::graph::{Graph, at};
use crate::queue::RadixHeap;

/// No node.
pub(crate) const NONE: u32 = u32::MAX;

/// The shortest paths from one node to all others.
#[derive(Debug, Clone)]
pub struct Spf {
    source: u32,
    reached: Vec<Reached>,
}

/// How a node is reached.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reached {
    /// In microseconds; `u64::MAX`: not reached
    pub(crate) cost: u64,
    /// The node before it, [`NONE`] for the source
    pub(crate) parent: u32,
    /// Links on the way
    pub(crate) hops: u32,
}

impl Spf {
    /// The shortest paths from `source`. A number that is not in the graph reaches nothing.
    pub fn new(graph: &Graph, source: u32) -> Self {
        Self { source, reached: search(graph, source, NONE) }
    }

    /// The node that all paths start at.
    pub fn source(&self) -> u32 {
        self.source
    }

    /// What the path to `target` costs in microseconds: 0 for the source, `None` where there is none.
    pub fn cost(&self, target: u32) -> Option<u64> {
        self.reached(target).map(|reached| reached.cost)
    }

    /// How many links the path to `target` has: 0 for the source, 1 for a neighbour reached directly.
    ///
    /// At [`MAX_ROUTE_LEN`](crate::wire::MAX_ROUTE_LEN) or more no circuit can follow this path.
    pub fn hops(&self, target: u32) -> Option<u32> {
        self.reached(target).map(|reached| reached.hops)
    }

    /// The neighbour that the path to `target` starts with; `None` for the source itself and where there is no path.
    pub fn first_hop(&self, target: u32) -> Option<u32> {
        let mut node = target;
        let mut reached = self.reached(node)?;
        while reached.hops > 1 {
            node = reached.parent;
            reached = self.reached(node)?;
        }
        (reached.hops == 1).then_some(node)
    }

    /// The nodes of the path to `target`, source and target included.
    pub fn path(&self, target: u32) -> Option<Vec<u32>> {
        let mut path = vec![target];
        let mut reached = self.reached(target)?;
        while reached.parent != NONE {
            path.push(reached.parent);
            reached = self.reached(reached.parent)?;
        }
        path.reverse();
        Some(path)
    }

    fn reached(&self, target: u32) -> Option<&Reached> {
        self.reached.get(at(target)).filter(|reached| reached.cost != u64::MAX)
    }
}

/// Paths from `source`, all of them or (with `until` a node) those that cost less than the one to `until`, and that
/// one. Nodes further away then have a cost that is no less, or none.
pub(crate) fn search(graph: &Graph, source: u32, until: u32) -> Vec<Reached> {
    let mut reached = vec![Reached { cost: u64::MAX, parent: NONE, hops: 0 }; graph.len()];
    let Some(start) = reached.get_mut(at(source)) else { return reached };
    start.cost = 0;
    let mut queue = RadixHeap::default();
    queue.push(0, source);
    while let Some((cost, node)) = queue.pop() {
        let here = reached[at(node)];
        if cost != here.cost {
            continue; // a cheaper way was found since
        }
        if node == until {
            break;
        }
        let onward = match graph.through(node) {
            _ if node == source => 0,
            Some(through) => cost + u64::from(through),
            None => continue,
        };
        let hops = here.hops + 1;
        for edge in graph.links(node) {
            let there = &mut reached[at(edge.to)];
            let cost = onward + u64::from(edge.cost);
            if cost < there.cost {
                *there = Reached { cost, parent: node, hops };
                queue.push(cost, edge.to);
            } else if cost == there.cost && edge.to != source && (hops, node) < (there.hops, there.parent) {
                (there.hops, there.parent) = (hops, node);
            }
        }
    }
    reached
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::graph::{Listed, Node};

    /// A graph out of links that both ends list at the same cost.
    pub(crate) fn graph(nodes: &[Node], links: &[(u32, u32, u32)]) -> Graph {
        let listed: Vec<Listed> = links
            .iter()
            .flat_map(|&(a, b, cost)| [Listed { from: a, to: b, cost }, Listed { from: b, to: a, cost }])
            .collect();
        Graph::new(nodes, &listed)
    }

    /// Small graphs with few different costs, so that paths tie, and some nodes without transit.
    pub(crate) fn any_graph(nodes: std::ops::Range<usize>) -> impl Strategy<Value = Graph> {
        nodes.prop_flat_map(|count| {
            let end = u32::try_from(count).unwrap();
            let node = (prop::bool::weighted(0.8), 0u32..3)
                .prop_map(|(transit, cost)| Node { transit, cost: cost * 7000 });
            let links =
                prop::collection::vec((0..end, 0..end, (0u32..6).prop_map(|c| c * 5000)), 0..count * 3);
            (prop::collection::vec(node, count), links).prop_map(|(nodes, links)| graph(&nodes, &links))
        })
    }

    /// Every simple path from `source` to `target`, with its cost, of at most `limit` nodes.
    pub(crate) fn all_paths(graph: &Graph, source: u32, target: u32, limit: usize) -> Vec<(u64, Vec<u32>)> {
        fn extend(
            graph: &Graph,
            target: u32,
            limit: usize,
            cost: u64,
            path: &mut Vec<u32>,
            all: &mut Vec<(u64, Vec<u32>)>,
        ) {
            let last = *path.last().unwrap();
            if last == target {
                all.push((cost, path.clone()));
                return;
            }
            let through = if path.len() == 1 { Some(0) } else { graph.through(last) };
            let Some(through) = through else { return };
            for edge in graph.links(last) {
                if path.len() < limit && !path.contains(&edge.to) {
                    path.push(edge.to);
                    extend(graph, target, limit, cost + u64::from(through) + u64::from(edge.cost), path, all);
                    path.pop();
                }
            }
        }
        let mut all = Vec::new();
        extend(graph, target, limit, 0, &mut vec![source], &mut all);
        all
    }

    #[test]
    fn a_node_without_transit_is_only_ever_the_last_hop() {
        let closed = Node { transit: false, cost: 0 };
        let graph = graph(&[Node::default(), closed, Node::default()], &[(0, 1, 1), (1, 2, 1)]);
        let spf = Spf::new(&graph, 0);
        assert_eq!((spf.cost(1), spf.cost(2)), (Some(1), None));
        assert_eq!(Spf::new(&graph, 1).cost(2), Some(1), "its own flows start there all the same");
    }

    #[test]
    fn a_relay_is_worth_ten_milliseconds() {
        let nodes = [Node::default(); 3];
        let spf = Spf::new(&graph(&nodes, &[(0, 1, 1000), (1, 2, 1000), (0, 2, 11_999)]), 0);
        assert_eq!((spf.path(2), spf.first_hop(2)), (Some(vec![0, 2]), Some(2)));
        let spf = Spf::new(&graph(&nodes, &[(0, 1, 1000), (1, 2, 1000), (0, 2, 12_001)]), 0);
        assert_eq!((spf.path(2), spf.first_hop(2), spf.hops(2)), (Some(vec![0, 1, 2]), Some(1), Some(2)));
        assert_eq!((spf.cost(0), spf.first_hop(0), spf.path(0)), (Some(0), None, Some(vec![0])));
    }

    #[test]
    fn sums_of_the_greatest_costs_do_not_overflow() {
        let costly = Node { transit: true, cost: u32::MAX };
        let links: Vec<_> = (0..999).map(|i| (i, i + 1, u32::MAX)).collect();
        let spf = Spf::new(&graph(&[costly; 1000], &links), 0);
        assert_eq!(spf.cost(999), Some(999 * u64::from(u32::MAX) + 998 * u64::from(u32::MAX - 1)));
        assert_eq!(spf.hops(999), Some(999));
    }

    #[test]
    fn an_unknown_source_or_target_is_not_reached() {
        let graph = graph(&[Node::default(); 2], &[(0, 1, 1)]);
        assert_eq!(Spf::new(&graph, 7).cost(0), None);
        assert_eq!(Spf::new(&graph, 0).cost(7), None);
        assert_eq!(Spf::new(&graph, NONE).path(NONE), None);
    }

    proptest! {
        #[test]
        fn its_paths_are_the_cheapest_of_all(graph in any_graph(1..9)) {
            let count = u32::try_from(graph.len()).unwrap();
            for source in 0..count {
                let spf = Spf::new(&graph, source);
                for target in (0..count).filter(|target| *target != source) {
                    // Cheapest, then fewest links.
                    let best = all_paths(&graph, source, target, usize::MAX)
                        .into_iter()
                        .map(|(cost, path)| (cost, path.len() - 1))
                        .min();
                    let found = spf.cost(target).zip(spf.hops(target)).map(|(cost, hops)| (cost, hops as usize));
                    prop_assert_eq!(found, best);
                    if let Some(path) = spf.path(target) {
                        prop_assert_eq!(path.len() - 1, best.unwrap().1);
                        prop_assert_eq!(spf.first_hop(target), Some(path[1]));
                    }
                }
            }
        }

        #[test]
        fn costs_are_the_same_both_ways(graph in any_graph(2..12)) {
            let count = u32::try_from(graph.len()).unwrap();
            let trees: Vec<Spf> = (0..count).map(|source| Spf::new(&graph, source)).collect();
            for (a, there) in (0..).zip(&trees) {
                for (b, back) in (0..).zip(&trees) {
                    prop_assert_eq!(there.cost(b), back.cost(a));
                }
            }
        }
    }
}
