//! What was measured over time.

use ffmesh_core::id::NodeId;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How fine a history is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub enum Step {
    /// Seconds, of the last hour
    #[default]
    #[serde(rename = "1s")]
    Second,
    /// Minutes, of the last week
    #[serde(rename = "1m")]
    Minute,
}

/// `GET /api/v1/history?step=1s|1m&from=…&to=…`: one column for each quantity, one entry for each step, oldest first.
/// Where the node did not run, entries are null.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
pub struct History {
    /// Seconds from one entry to the next: 1 or 60
    pub step_s: u32,
    /// The moment that the first entry ends at
    pub from: Option<Timestamp>,
    /// The node's figures
    pub columns: Columns,
    /// Round trip times of links to neighbours, at most 32 of them
    pub peers: Vec<PeerHistory>,
}

/// The columns of a [`History`]. Rates are means over the step.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
pub struct Columns {
    /// Payload bytes a second to other nodes
    pub sent: Vec<Option<f64>>,
    /// Payload bytes a second from other nodes
    pub received: Vec<Option<f64>>,
    /// Bytes a second carried for others
    pub transit: Vec<Option<f64>>,
    /// Flows open
    pub flows_open: Vec<Option<f64>>,
    /// Flows that began, a second
    pub flows_started: Vec<Option<f64>>,
    /// Flows that were refused or failed, a second
    pub flows_failed: Vec<Option<f64>>,
    /// Errors of all kinds, a second
    pub errors: Vec<Option<f64>>,
    /// Times that a session left a route that had died, in the step
    pub failovers: Vec<Option<f64>>,
    /// Links that are up
    pub links_up: Vec<Option<f64>>,
    /// Mean round trip time of the links that are up, ms
    pub rtt_ms: Vec<Option<f64>>,
    /// Mean loss of the links that are up, 0 to 1
    pub loss: Vec<Option<f64>>,
    /// Processors that the node takes: 1 is one core
    pub cpu: Vec<Option<f64>>,
    /// Resident memory in bytes
    pub memory: Vec<Option<f64>>,
}

/// One neighbour's link over time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PeerHistory {
    /// The neighbour
    #[schema(value_type = String)]
    pub node_id: NodeId,
    /// Round trip time, ms; null where the link was down
    pub rtt_ms: Vec<Option<f64>>,
}

/// One second, as the event `sample` brings it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
pub struct Sample {
    /// Payload bytes a second to other nodes
    pub sent: f64,
    /// Payload bytes a second from other nodes
    pub received: f64,
    /// Bytes a second carried for others
    pub transit: f64,
    /// Flows open
    pub flows_open: f64,
    /// Flows that began, a second
    pub flows_started: f64,
    /// Flows that were refused or failed, a second
    pub flows_failed: f64,
    /// Errors of all kinds, a second
    pub errors: f64,
    /// Times that a session left a route that had died
    pub failovers: f64,
    /// Links that are up
    pub links_up: f64,
    /// Mean round trip time of the links that are up, ms
    pub rtt_ms: Option<f64>,
    /// Mean loss of the links that are up, 0 to 1
    pub loss: Option<f64>,
    /// Processors that the node takes: 1 is one core
    pub cpu: f64,
    /// Resident memory in bytes
    pub memory: f64,
}
