//! The node at a glance.

use ffmesh_core::id::NodeId;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `GET /api/v1/status`: the node at a glance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// This node
    #[schema(value_type = String)]
    pub node_id: NodeId,
    /// Its mesh
    pub mesh: String,
    /// Version of the program
    pub version: String,
    /// When the node started
    pub started: Timestamp,
    /// The configuration file in force
    pub config: Option<String>,
    /// The state directory
    pub state_dir: String,
    /// UDP addresses that the node is bound to
    pub listen: Vec<String>,
    /// Whether it takes connections from others (`quic.listen_port`)
    pub accepts: bool,
    /// Links that are up
    pub links_up: u32,
    /// Upstreams of the configuration, and how many of them are up
    pub upstreams: u32,
    /// Upstreams that are up
    pub upstreams_up: u32,
    /// Sessions that are open
    pub sessions: u32,
    /// Other nodes of the mesh that this one knows
    #[serde(default)]
    pub nodes_known: u32,
    /// Other nodes that a route leads to
    #[serde(default)]
    pub nodes_reachable: u32,
    /// Times that a session left a route because it had died, and went on over another
    #[serde(default)]
    pub failovers: u64,
    /// What was carried for others
    #[serde(default)]
    pub transit: Transit,
    /// Whether new flows are refused, as the node is about to end
    #[serde(default)]
    pub draining: bool,
    /// Flows open now, in both roles
    pub flows_open: u64,
    /// Flows since the start, in both roles
    pub flows_total: u64,
    /// Payload bytes carried from local clients to other nodes and to local services
    pub bytes_sent: u64,
    /// Payload bytes carried from other nodes to local clients and services
    pub bytes_received: u64,
    /// Mean round trip time of the links that are up, ms
    #[serde(default)]
    pub rtt_ms: Option<f64>,
    /// Mean loss of the links that are up, 0 to 1
    #[serde(default)]
    pub loss: Option<f64>,
    /// Errors of all kinds a minute, over the last minute
    #[serde(default)]
    pub errors_per_minute: f64,
    /// Estimated bytes held for slow readers
    pub flow_memory: u64,
    /// End of this node's certificate
    pub certificate_expires: Timestamp,
    /// Whether this node can enrol others
    pub issuer: bool,
    /// Errors counted since the start, by kind, largest first
    pub errors: Vec<ErrorCount>,
}

/// How often an error of one kind occurred.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorCount {
    /// One word out of a fixed set
    pub kind: String,
    /// Times since the start
    pub count: u64,
}

/// What a node has carried for others as a relay, since its start.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct Transit {
    /// Circuits through this node now
    pub circuits: u32,
    /// Packets passed on
    pub packets: u64,
    /// Bytes of these, with their labels
    pub bytes: u64,
    /// Packets that were not passed on, by the reason, largest first: one word each out of a fixed set
    pub dropped: Vec<ErrorCount>,
}
