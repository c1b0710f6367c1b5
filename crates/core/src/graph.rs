//! The mesh as a graph, compact enough to be rebuilt at each change.
//!
//! Nodes are numbers from 0, given out by a [`NodeIndex`]. [`Graph::new`] takes the links as the nodes list them in
//! their LINKS records and keeps those that **both** ends list, at the greater of the two costs: loss that one end
//! sees counts for both directions, and a lying node cannot make a link cheaper than its other end says. So the cost
//! of a route is the same both ways.
//!
//! Links lie in one array, those of a node side by side and sorted (compressed sparse rows). 10,000 nodes of degree 8
//! take 0.7 MB.

use std::cmp::Ordering;
use std::collections::HashMap;

use crate::id::NodeId;

/// What each relay of a route adds to its cost, in microseconds: a relay costs time and processor at a node of
/// somebody else, so a detour has to be worth it.
pub const RELAY_COST: u32 = 10_000;

/// The `through` of a node that carries no transit.
const NO_TRANSIT: u32 = u32::MAX;

/// Numbers for the nodes of a mesh: 0, 1, 2... in the order of their first mention. A number is never given again.
#[derive(Debug, Clone, Default)]
pub struct NodeIndex {
    numbers: HashMap<NodeId, u32>,
    ids: Vec<NodeId>,
}

impl NodeIndex {
    /// The number of `id`; a new id gets the next one. At most `u32::MAX` ids.
    pub fn intern(&mut self, id: &NodeId) -> u32 {
        if let Some(number) = self.numbers.get(id) {
            return *number;
        }
        let number = u32::try_from(self.ids.len()).unwrap_or(u32::MAX);
        self.ids.push(id.clone());
        self.numbers.insert(id.clone(), number);
        number
    }

    /// The number of `id` if it has one.
    pub fn get(&self, id: &NodeId) -> Option<u32> {
        self.numbers.get(id).copied()
    }

    /// The node of a number.
    pub fn id(&self, number: u32) -> Option<&NodeId> {
        self.ids.get(at(number))
    }

    /// How many numbers were given out.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether no number was given out.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }
}

/// What a node says about routes through it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node {
    /// Whether it carries transit. Where not, it can only be the first or the last node of a route.
    pub transit: bool,
    /// Its configured cost in microseconds, added to each route through it beside [`RELAY_COST`]
    pub cost: u32,
}

impl Default for Node {
    /// A node that carries transit at no cost of its own.
    fn default() -> Self {
        Self { transit: true, cost: 0 }
    }
}

/// A link as one of its ends lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listed {
    /// The node that lists the link
    pub from: u32,
    /// Its neighbour
    pub to: u32,
    /// The link's cost in microseconds
    pub cost: u32,
}

/// A link as seen from one of its ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Edge {
    /// The node at the other end
    pub to: u32,
    /// The link's cost in microseconds, the same from both ends
    pub cost: u32,
}

/// Nodes and the links that both of their ends list.
#[derive(Debug, Clone, Default)]
pub struct Graph {
    /// For each node what passing through it costs, or [`NO_TRANSIT`].
    through: Vec<u32>,
    links: Rows,
}

impl Graph {
    /// The graph of `nodes` (node `i` is number `i`) and the links that both ends list.
    ///
    /// Of several entries for one link in one direction the cheapest counts. Entries from a node to itself or
    /// with a number that is not in `nodes` are left out.
    pub fn new(nodes: &[Node], listed: &[Listed]) -> Self {
        let through = nodes.iter().map(|node| {
            if node.transit { node.cost.saturating_add(RELAY_COST).min(NO_TRANSIT - 1) } else { NO_TRANSIT }
        });
        let count = nodes.len();
        let sound = |l: &&Listed| at(l.from) < count && at(l.to) < count && l.from != l.to;
        // Turned round twice, rows are in the order of their nodes, and sorted within.
        let by_target = Rows::by_target(count, || listed.iter().filter(sound));
        let outgoing = by_target.transposed();
        let incoming = outgoing.transposed();
        Self { through: through.collect(), links: outgoing.common(&incoming) }
    }

    /// How many nodes there are, linked or not.
    pub fn len(&self) -> usize {
        self.through.len()
    }

    /// Whether there are no nodes.
    pub fn is_empty(&self) -> bool {
        self.through.is_empty()
    }

    /// How many links both ends list.
    pub fn link_count(&self) -> usize {
        self.links.edges.len() / 2
    }

    /// The links of `node`, sorted by the other end. Empty for an unknown number.
    pub fn links(&self, node: u32) -> &[Edge] {
        self.links.row(node)
    }

    /// What the link of two nodes costs in microseconds, if there is one.
    pub fn link(&self, from: u32, to: u32) -> Option<u32> {
        let links = self.links(from);
        links.binary_search_by_key(&to, |edge| edge.to).ok().map(|i| links[i].cost)
    }

    /// What passing through `node` costs in microseconds; `None` where it carries no transit or is unknown.
    pub fn through(&self, node: u32) -> Option<u32> {
        self.through.get(at(node)).copied().filter(|cost| *cost != NO_TRANSIT)
    }
}

/// The edges of each node side by side.
#[derive(Debug, Clone, Default)]
struct Rows {
    /// Row `i` is `edges[starts[i]..starts[i + 1]]`.
    starts: Vec<u32>,
    edges: Vec<Edge>,
}

impl Rows {
    /// Rows out of `entries`, each an edge of the node that it leads to: sorted by counting.
    fn by_target<'a, I: Iterator<Item = &'a Listed>>(rows: usize, entries: impl Fn() -> I) -> Self {
        let mut starts = vec![0u32; rows + 1];
        for entry in entries() {
            starts[at(entry.to)] += 1;
        }
        let mut next = sums(&mut starts);
        let mut edges = vec![Edge::default(); at(starts[rows])];
        for entry in entries() {
            place(&mut edges, &mut next[at(entry.to)], Edge { to: entry.from, cost: entry.cost });
        }
        Self { starts, edges }
    }

    /// Each edge turned round; the rows of the result are sorted.
    fn transposed(&self) -> Self {
        let mut starts = vec![0u32; self.starts.len()];
        for edge in &self.edges {
            starts[at(edge.to)] += 1;
        }
        let mut next = sums(&mut starts);
        let mut edges = vec![Edge::default(); self.edges.len()];
        for (row, turned) in self.each() {
            for edge in turned {
                place(&mut edges, &mut next[at(edge.to)], Edge { to: row, cost: edge.cost });
            }
        }
        Self { starts, edges }
    }

    fn row(&self, node: u32) -> &[Edge] {
        match self.starts.get(at(node)..) {
            Some([start, end, ..]) => &self.edges[at(*start)..at(*end)],
            _ => &[],
        }
    }

    fn each(&self) -> impl Iterator<Item = (u32, &[Edge])> {
        (0u32..).zip(self.starts.windows(2)).map(|(row, ends)| (row, &self.edges[at(ends[0])..at(ends[1])]))
    }

    /// The edges in both, each once at the greater cost. Both are sorted, and may have an edge several times, of which
    /// the cheapest counts.
    fn common(&self, other: &Self) -> Self {
        let mut starts = Vec::with_capacity(self.starts.len());
        let mut edges: Vec<Edge> = Vec::with_capacity(self.edges.len());
        starts.push(0);
        for (row, mine) in self.each() {
            let theirs = other.row(row);
            let (mut i, mut j) = (0, 0);
            while i < mine.len() && j < theirs.len() {
                let to = mine[i].to;
                match to.cmp(&theirs[j].to) {
                    Ordering::Less => i += 1,
                    Ordering::Greater => j += 1,
                    Ordering::Equal => {
                        let cost = cheapest(mine, &mut i).max(cheapest(theirs, &mut j));
                        edges.push(Edge { to, cost });
                    }
                }
            }
            starts.push(u32::try_from(edges.len()).unwrap_or(u32::MAX)); // no more than came in
        }
        Self { starts, edges }
    }
}

/// Turns counts into the places where the rows start (the last one: where they end), and returns a copy to advance.
fn sums(counts: &mut [u32]) -> Vec<u32> {
    let mut total = 0;
    for count in counts.iter_mut() {
        total += std::mem::replace(count, total);
    }
    counts.to_vec()
}

fn place(edges: &mut [Edge], next: &mut u32, edge: Edge) {
    edges[at(*next)] = edge;
    *next += 1;
}

/// The cheapest of the edges from `*next` on that lead to the same node as the first; moves `*next` behind them.
fn cheapest(row: &[Edge], next: &mut usize) -> u32 {
    let Edge { to, mut cost } = row[*next];
    *next += 1;
    while let Some(again) = row.get(*next).filter(|edge| edge.to == to) {
        cost = cost.min(again.cost);
        *next += 1;
    }
    cost
}

/// A node's number as a place in an array.
pub(crate) fn at(number: u32) -> usize {
    number as usize // 32 bits at least on what this runs on
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_link_counts_only_when_both_ends_list_it() {
        let listed = [(0, 1, 5), (1, 0, 7), (1, 2, 5), (2, 2, 1), (0, 9, 1), (9, 0, 1)];
        let listed = listed.map(|(from, to, cost)| Listed { from, to, cost });
        let graph = Graph::new(&[Node::default(); 3], &listed);
        assert_eq!(graph.links(0), [Edge { to: 1, cost: 7 }]);
        assert_eq!(graph.links(1), [Edge { to: 0, cost: 7 }]);
        assert_eq!(graph.links(2), []);
        assert_eq!(graph.links(3), []);
        assert_eq!(graph.link_count(), 1);
        assert_eq!((graph.link(0, 1), graph.link(1, 2)), (Some(7), None));
    }

    #[test]
    fn passing_through_costs_the_nodes_own_cost_and_ten_milliseconds() {
        let nodes = [(true, 0), (true, 500), (false, 0), (true, u32::MAX)];
        let graph = Graph::new(&nodes.map(|(transit, cost)| Node { transit, cost }), &[]);
        let through = [0, 1, 2, 3, 4].map(|node| graph.through(node));
        assert_eq!(through, [Some(10_000), Some(10_500), None, Some(u32::MAX - 1), None]);
        assert!(Graph::new(&[], &[]).is_empty());
    }

    #[test]
    fn a_node_keeps_its_number() {
        let mut index = NodeIndex::default();
        let [a, b] = ["a", "b"].map(|id| id.parse::<NodeId>().unwrap());
        assert_eq!([index.intern(&a), index.intern(&b), index.intern(&a)], [0, 1, 0]);
        assert_eq!((index.get(&b), index.id(1), index.id(2)), (Some(1), Some(&b), None));
    }

    proptest! {
        #[test]
        fn its_links_are_those_that_a_map_would_hold(
            listed in prop::collection::vec((0u32..9, 0u32..9, 0u32..50), 0..80),
        ) {
            let listed: Vec<Listed> =
                listed.into_iter().map(|(from, to, cost)| Listed { from, to, cost }).collect();
            let graph = Graph::new(&[Node::default(); 8], &listed);
            let mut cheapest = BTreeMap::new();
            for l in listed.iter().filter(|l| l.from < 8 && l.to < 8 && l.from != l.to) {
                let cost = cheapest.entry((l.from, l.to)).or_insert(l.cost);
                *cost = l.cost.min(*cost);
            }
            let expected: Vec<(u32, u32, u32)> = cheapest
                .iter()
                .filter_map(|((from, to), cost)| {
                    cheapest.get(&(*to, *from)).map(|back| (*from, *to, *cost.max(back)))
                })
                .collect();
            let found: Vec<_> = (0..8u32)
                .flat_map(|from| graph.links(from).iter().map(move |edge| (from, edge.to, edge.cost)))
                .collect();
            prop_assert_eq!(found, expected);
        }
    }
}
