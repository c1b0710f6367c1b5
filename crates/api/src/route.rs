//! The ways to other nodes.

use ffmesh_core::id::NodeId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How a route is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RouteState {
    /// A session's first choice: its traffic takes this route
    InUse,
    /// Set up, probed and answering: takes over at once, and what the first choice has no room for
    Warm,
    /// Answers, and loses too much to be used while there is a better one
    Impaired,
    /// Set up or to be set up, and does not answer
    Down,
    /// There is one, and nobody uses it
    Known,
    /// The node is known, and no route leads to it
    Unreachable,
}

/// `GET /api/v1/routes`: one way to one node. A node with several has several entries, the best first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Route {
    /// Where it leads
    #[schema(value_type = String)]
    pub node_id: NodeId,
    /// Its nodes, this one first; empty for one that can't be reached
    #[schema(value_type = Vec<String>)]
    pub path: Vec<NodeId>,
    /// Links of it
    pub hops: u32,
    /// What routing reckons with: delay, loss, configured costs and relays
    pub cost_ms: Option<f64>,
    /// How it is used
    pub state: RouteState,
    /// Round trip time by end-to-end probes
    pub rtt_ms: Option<f64>,
    /// Lost share of these probes lately, 0 to 1
    pub loss: Option<f64>,
}
