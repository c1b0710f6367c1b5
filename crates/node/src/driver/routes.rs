//! The routing table: which nodes can be reached, and how.

use std::collections::{BTreeMap, BTreeSet};

use ffmesh_core::id::NodeId;
use jiff::Timestamp;

use crate::identity::KeyHash;
use crate::link::Link;

/// A sequence of nodes from this node to another, both included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// This node first, the destination last
    pub nodes: Vec<NodeId>,
    /// Serial of the link that the first hop takes: a new link is a new route
    pub link: u64,
}

/// A neighbour whose link is gone.
#[derive(Debug, Clone)]
pub struct Lost {
    /// Since when
    pub since: Timestamp,
    /// Why
    pub reason: String,
}

/// What the node knows of the ways to others. Replaced as a whole at each change.
#[derive(Debug, Clone, Default)]
pub struct RoutingTable {
    pub(super) own: Option<NodeId>,
    /// The links to neighbours
    pub neighbors: BTreeMap<NodeId, Link>,
    /// Neighbours that have been lost
    pub lost: BTreeMap<NodeId, Lost>,
    pub(super) configured: BTreeSet<NodeId>,
}

impl RoutingTable {
    /// The routes to a node, best first; none where it cannot be reached now.
    pub fn routes(&self, node: &NodeId) -> Vec<Route> {
        let (Some(own), Some(link)) = (&self.own, self.neighbors.get(node)) else { return Vec::new() };
        vec![Route { nodes: vec![own.clone(), node.clone()], link: link.serial() }]
    }

    /// Whether a node can be reached now.
    pub fn has_route(&self, node: &NodeId) -> bool {
        self.neighbors.contains_key(node)
    }

    /// The boot epoch of a node, while it is known.
    pub fn epoch(&self, node: &NodeId) -> Option<u64> {
        self.neighbors.get(node).map(Link::epoch)
    }

    /// The key of a node, as it proved on its link.
    pub fn key(&self, node: &NodeId) -> Option<KeyHash> {
        self.neighbors.get(node).map(|link| link.peer().key)
    }

    /// Whether the node has been met or is in the configuration.
    pub fn knows(&self, node: &NodeId) -> bool {
        self.neighbors.contains_key(node) || self.lost.contains_key(node) || self.configured.contains(node)
    }
}
