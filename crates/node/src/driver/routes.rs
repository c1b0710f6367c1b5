//! The routing table: which nodes can be reached, and how.

use std::collections::BTreeMap;
use std::sync::Arc;

use ffmesh_core::id::NodeId;
use ffmesh_core::mesh::Table;
use ffmesh_core::metric::UNMEASURED;
use ffmesh_core::routes::MAX_ROUTES;
use ffmesh_core::select::{Offer, pick};
use ffmesh_core::steer::Path;
use jiff::Timestamp;

use crate::identity::KeyHash;
use crate::link::Link;

/// A neighbour whose link is gone.
#[derive(Debug, Clone)]
pub struct Lost {
    /// Since when
    pub since: Timestamp,
    /// Why
    pub reason: String,
}

/// What the mesh says of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeFacts {
    /// Its boot epoch
    pub epoch: u64,
    /// Its key
    pub key: KeyHash,
}

/// What the node knows of the ways to others. Replaced as a whole at each change.
#[derive(Debug, Clone)]
pub struct RoutingTable {
    pub(super) own: NodeId,
    /// The links to neighbours
    pub neighbors: BTreeMap<NodeId, Link>,
    /// Neighbours that have been lost
    pub lost: BTreeMap<NodeId, Lost>,
    /// What is configured for the links to upstreams, in µs
    pub(super) upstream_costs: Arc<BTreeMap<NodeId, u32>>,
    /// Routes over any number of hops
    pub mesh: Arc<Table>,
    /// Counts the changes of links and routes
    pub generation: u64,
    /// What the mesh says of the nodes that there are sessions with
    pub(super) facts: BTreeMap<NodeId, NodeFacts>,
}

impl RoutingTable {
    /// Up to three routes to a node of which no two share a relay, best first; none where it cannot be reached now.
    pub fn offers(&self, node: &NodeId) -> Vec<Offer<Path>> {
        let offer = |path: Path, cost| {
            let upstreams = path.get(1).and_then(|next| self.upstream_costs.get(next)).copied();
            let direct = path.len() == 2;
            Offer { route: path, cost, upstreams: upstreams.unwrap_or_default(), direct }
        };
        let mut offers: Vec<_> =
            self.mesh.routes(node).into_iter().map(|(path, cost)| offer(path.into(), cost)).collect();
        // A route leads over links that are up: a lost one takes a moment to leave the mesh's table...
        offers.retain(|offer| offer.route.get(1).is_some_and(|next| self.neighbors.contains_key(next)));
        // ...and one that just came up to get into it, as both ends have to list it.
        if let Some(link) = self.neighbors.get(node)
            && !offers.iter().any(|offer| offer.route.len() == 2)
        {
            offers.insert(0, offer([self.own.clone(), node.clone()].into(), self.link_cost(link)));
            offers.truncate(MAX_ROUTES);
        }
        offers.sort_by_key(|offer| offer.upstreams); // backups last
        offers
    }

    /// The routes for a new session with a node: first the one that [`pick`] chooses, then the others, best first.
    pub fn routes_for_new(&self, node: &NodeId, random: u64) -> Vec<Path> {
        let offers = self.offers(node);
        let chosen = pick(&offers, |path| self.mesh.load(path), random).map(|offer| offer.route.clone());
        let others = offers.into_iter().map(|offer| offer.route).filter(|path| Some(path) != chosen.as_ref());
        chosen.iter().cloned().chain(others).collect()
    }

    /// What a route costs now, in µs; `None` where it no longer leads to its last node.
    pub fn cost(&self, path: &[NodeId]) -> Option<u64> {
        let link = self.neighbors.get(path.get(1)?)?;
        self.mesh.cost(path).or_else(|| (path.len() == 2).then(|| self.link_cost(link)))
    }

    fn link_cost(&self, link: &Link) -> u64 {
        let rtt = link
            .vitals()
            .rtt
            .map_or(UNMEASURED.into(), |rtt| u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX));
        rtt.saturating_add(self.upstream_costs.get(link.node()).copied().unwrap_or_default().into())
    }

    /// Mean round trip time in ms and loss (0 to 1) of the links that are up, as far as they are measured.
    pub fn mean_vitals(&self) -> (Option<f64>, Option<f64>) {
        let vitals = || self.neighbors.values().map(Link::vitals);
        let rtts = vitals().filter_map(|vitals| vitals.rtt).map(|rtt| rtt.as_secs_f64() * 1e3);
        (mean(rtts), mean(vitals().filter_map(|vitals| vitals.loss)))
    }

    /// Whether a node can be reached now.
    pub fn has_route(&self, node: &NodeId) -> bool {
        let far = || self.mesh.reach(node).is_some_and(|reach| self.neighbors.contains_key(&reach.next));
        self.neighbors.contains_key(node) || far()
    }

    /// The boot epoch of a node with which there is a link or a session, as far as it is known.
    pub fn epoch(&self, node: &NodeId) -> Option<u64> {
        let linked = self.neighbors.get(node).map(Link::epoch);
        linked.max(self.facts.get(node).map(|facts| facts.epoch))
    }

    /// The key of a node with which there is a link or a session, as far as it is known.
    pub fn key(&self, node: &NodeId) -> Option<KeyHash> {
        let linked = self.neighbors.get(node).map(|link| link.peer().key);
        linked.or_else(|| self.facts.get(node).map(|facts| facts.key))
    }

    /// Whether the node has been met, is in the configuration or in the mesh.
    pub fn knows(&self, node: &NodeId) -> bool {
        self.neighbors.contains_key(node)
            || self.lost.contains_key(node)
            || self.upstream_costs.contains_key(node)
            || self.mesh.knows(node)
    }
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (count, sum) = values.fold((0_u32, 0.0), |(count, sum), value| (count + 1, sum + value));
    (count > 0).then(|| sum / f64::from(count))
}
