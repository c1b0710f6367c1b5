//! Flows.

use ffmesh_core::id::NodeId;
use ffmesh_core::reason::Reason;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The part a node plays in a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The client is connected here
    Ingress,
    /// The target is dialled here
    Egress,
}

/// One flow, open or ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Flow {
    /// Its id, the same on both nodes
    pub id: String,
    /// This node's part
    pub role: Role,
    /// The proxy it came through (`nc` for `ffmesh nc`); at the egress, the name the ingress gave
    pub proxy: String,
    /// The node at the other end
    #[schema(value_type = String)]
    pub peer: NodeId,
    /// What is dialled
    pub target: String,
    /// The client's address, at the ingress
    pub client: Option<String>,
    /// When it began
    pub started: Timestamp,
    /// How long it has been open, or was
    pub duration_ms: u64,
    /// Bytes from the client to the target
    pub bytes_up: u64,
    /// Bytes from the target to the client
    pub bytes_down: u64,
    /// Whether the target is connected, or was
    pub connected: bool,
    /// Why it ended; none while it is open
    #[schema(value_type = Option<String>)]
    pub reason: Option<Reason>,
    /// What there is to say beyond the reason
    pub detail: Option<String>,
}

/// `GET /api/v1/flows`
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
pub struct Flows {
    /// Open now, oldest first
    pub open: Vec<Flow>,
    /// The last 1,000 that ended, newest first
    pub ended: Vec<Flow>,
}
