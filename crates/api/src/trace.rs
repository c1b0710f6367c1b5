//! Measuring the way to a node: ping, trace.

use ffmesh_core::id::NodeId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `POST /api/v1/trace`: what to trace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TraceRequest {
    /// The node
    #[schema(value_type = String, example = "server")]
    pub node: NodeId,
}

/// Answer to a [`TraceRequest`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Trace {
    /// The node that was traced
    #[schema(value_type = String)]
    pub node_id: NodeId,
    /// The nodes on the way, without this one, the traced one last
    pub hops: Vec<TraceHop>,
}

/// One node on a traced route.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TraceHop {
    /// The node
    #[schema(value_type = String)]
    pub node_id: NodeId,
    /// From here to it and back, through the nodes before it; none where it did not answer
    pub rtt_ms: Option<f64>,
    /// Round trip time of its link to the node before it, as this one measures it
    pub link_rtt_ms: Option<f64>,
    /// Lost share of the last probes of that link, 0 to 1
    pub link_loss: Option<f64>,
    /// Why there is no more to say
    pub error: Option<String>,
}

/// `POST /api/v1/ping`: what to ping.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PingRequest {
    /// The node
    #[schema(value_type = String, example = "server")]
    pub node: NodeId,
}

/// Answer to one [`PingRequest`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Ping {
    /// The node that answered
    #[schema(value_type = String)]
    pub node_id: NodeId,
    /// End-to-end round trip time
    pub rtt_ms: f64,
    /// The route it took, first to last node
    #[schema(value_type = Vec<String>)]
    pub route: Vec<NodeId>,
}
