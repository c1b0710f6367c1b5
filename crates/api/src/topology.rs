//! The mesh as a graph, as this node knows it.

use ffmesh_core::id::NodeId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::RouteState;

/// `GET /api/v1/topology`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Topology {
    /// Counts the changes of links and routes: the same number, the same graph
    pub generation: u64,
    /// This node first, then the others by id
    pub nodes: Vec<TopologyNode>,
    /// Links that both of their ends list, and own ones that are up, each once
    pub links: Vec<TopologyLink>,
    /// The ways that sessions of this node take or keep ready
    pub paths: Vec<TopologyPath>,
}

/// A node of the mesh.
#[allow(clippy::struct_excessive_bools)] // independent facts, each shown by itself
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TopologyNode {
    /// Its id
    #[schema(value_type = String)]
    pub node_id: NodeId,
    /// Whether a route leads to it; true for this node
    pub reachable: bool,
    /// Links of the best route to it; 0 for this node
    pub hops: Option<u32>,
    /// Whether it carries traffic of others
    pub relay: bool,
    /// Whether it can enrol others
    pub issuer: bool,
    /// Whether it is about to end
    pub draining: bool,
    /// Names of its services
    pub services: Vec<String>,
}

/// A link between two nodes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TopologyLink {
    /// One end: this node for an own link, else the end with the lesser id
    #[schema(value_type = String)]
    pub a: NodeId,
    /// The other end
    #[schema(value_type = String)]
    pub b: NodeId,
    /// Whether it is a link of this node
    pub own: bool,
    /// What routing reckons for it, of both directions the dearer one; none where it is to be used last
    pub cost_ms: Option<f64>,
    /// Round trip time, for own links
    pub rtt_ms: Option<f64>,
    /// Lost share of the last probes, 0 to 1, for own links
    pub loss: Option<f64>,
}

/// A route of a session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TopologyPath {
    /// The node that it leads to
    #[schema(value_type = String)]
    pub node_id: NodeId,
    /// Its nodes, this one first
    #[schema(value_type = Vec<String>)]
    pub path: Vec<NodeId>,
    /// How it is used
    pub state: RouteState,
    /// Round trip time by end-to-end probes
    pub rtt_ms: Option<f64>,
    /// Lost share of these probes lately, 0 to 1
    pub loss: Option<f64>,
    /// Flows open now with that node, over all of its routes
    pub flows_open: u64,
}
