//! The routing table: what can be reached, how, and at what cost, as the database says at one moment.

use std::collections::{BTreeMap, BTreeSet};

use crate::graph::{Graph, Listed, Node, NodeIndex};
use crate::id::NodeId;
use crate::lsdb::Database;
use crate::metric::LoadBand;
use crate::routes::{self, MAX_ROUTES, Route, routes};
use crate::spf::Spf;

/// A snapshot of all routes from this node.
#[derive(Debug, Clone)]
pub struct Table {
    index: NodeIndex,
    graph: Graph,
    spf: Spf,
    /// How busy each node says that it is
    bands: Vec<LoadBand>,
}

/// How a node is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reach {
    /// Cost of the best route, in µs
    pub cost: u64,
    /// Its hops; 1 for a neighbour
    pub hops: u32,
    /// Its first node after this one
    pub next: NodeId,
}

impl Table {
    /// The table of `own`, whose links are `links` (neighbour to cost in µs): these, and not its own record, which may
    /// be held back by damping.
    pub(super) fn new(db: &Database, own: &NodeId, links: &BTreeMap<NodeId, u32>) -> Self {
        let mut index = NodeIndex::default();
        let source = index.intern(own);
        let mut nodes = vec![Node { transit: false, cost: 0 }];
        let mut numbers = Vec::new(); // from the database's names to those of the graph
        for name in db.nodes() {
            let Some(id) = db.id(name).filter(|id| *id != own) else { continue };
            let at = name.0 as usize;
            if numbers.len() <= at {
                numbers.resize(at + 1, None);
            }
            numbers[at] = Some((index.intern(id), name));
            let transit = db.transit(name);
            nodes.push(Node { transit: transit.is_some(), cost: transit.unwrap_or_default() });
        }
        let mut listed: Vec<_> = links
            .iter()
            .filter_map(|(id, cost)| Some(Listed { from: source, to: index.get(id)?, cost: *cost }))
            .collect();
        let own = db.name(own);
        let mut bands = vec![LoadBand::Idle; nodes.len()];
        for (from, name) in numbers.iter().flatten() {
            for edge in db.edges(*name) {
                let band = &mut bands[*from as usize];
                *band = (*band).max(LoadBand::from_number(edge.band()));
                let number = numbers.get(edge.to.0 as usize).copied().flatten();
                let to = number.map_or_else(|| (Some(edge.to) == own).then_some(source), |(to, _)| Some(to));
                listed.extend(to.map(|to| Listed { from: *from, to, cost: edge.cost() }));
            }
        }
        Self::of(index, Graph::new(&nodes, &listed), bands)
    }

    /// The table of node number 0 of a graph.
    pub fn of(index: NodeIndex, graph: Graph, bands: Vec<LoadBand>) -> Self {
        let spf = Spf::new(&graph, 0);
        Self { index, graph, spf, bands }
    }

    /// How a node is reached; `None` for this node itself, for one that is not known and for one without a route.
    pub fn reach(&self, id: &NodeId) -> Option<Reach> {
        let target = self.index.get(id)?;
        let next = self.index.id(self.spf.first_hop(target)?)?.clone();
        Some(Reach { cost: self.spf.cost(target)?, hops: self.spf.hops(target)?, next })
    }

    /// The first hop of the best route to a node, and how many hops it has, by the numbers of [`index`](Self::index).
    /// `None` as with [`reach`](Self::reach).
    pub fn hop(&self, node: u32) -> Option<(u32, u32)> {
        Some((self.spf.first_hop(node)?, self.spf.hops(node)?))
    }

    /// All nodes of the best route to a node, this one and that one included.
    pub fn path(&self, id: &NodeId) -> Option<Vec<NodeId>> {
        self.spf.path(self.index.get(id)?)?.into_iter().map(|node| self.index.id(node).cloned()).collect()
    }

    /// Up to [`MAX_ROUTES`] routes to a node of which no two share a relay, cheapest first, each with its cost in µs.
    ///
    /// Searches anew at each call (a millisecond or two in a mesh of 10,000 nodes): for nodes in use.
    pub fn routes(&self, id: &NodeId) -> Vec<(Vec<NodeId>, u64)> {
        let Some(target) = self.index.get(id) else { return Vec::new() };
        let named = |route: Route| {
            let nodes: Option<_> = route.nodes.into_iter().map(|node| self.index.id(node).cloned()).collect();
            Some((nodes?, route.cost))
        };
        routes(&self.graph, self.spf.source(), target, MAX_ROUTES).into_iter().filter_map(named).collect()
    }

    /// What a route costs now, in µs; `None` where it no longer leads to its last node.
    pub fn cost(&self, path: &[NodeId]) -> Option<u64> {
        let nodes: Option<Vec<_>> = path.iter().map(|id| self.index.get(id)).collect();
        routes::cost(&self.graph, &nodes?)
    }

    /// How busy the busiest relay of a route says that it is.
    pub fn load(&self, path: &[NodeId]) -> LoadBand {
        let relays = path.get(1..path.len().saturating_sub(1)).unwrap_or_default();
        let band = |id: &NodeId| self.bands.get(self.index.get(id)? as usize).copied();
        relays.iter().filter_map(band).max().unwrap_or_default()
    }

    /// Whether a node says anything about itself.
    pub fn knows(&self, id: &NodeId) -> bool {
        self.index.get(id).is_some()
    }

    /// All nodes that say something about themselves, without this one.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeId> {
        (1..u32::try_from(self.index.len()).unwrap_or(u32::MAX)).filter_map(|number| self.index.id(number))
    }

    /// Nodes that can be reached, without this one.
    pub fn reachable(&self) -> BTreeSet<NodeId> {
        let numbers = 0..u32::try_from(self.index.len()).unwrap_or(u32::MAX);
        let reached = numbers.filter(|number| self.spf.first_hop(*number).is_some());
        reached.filter_map(|number| self.index.id(number).cloned()).collect()
    }

    /// The numbers of [`graph`](Self::graph).
    pub fn index(&self) -> &NodeIndex {
        &self.index
    }

    /// The mesh as a graph; this node is number 0.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }
}
