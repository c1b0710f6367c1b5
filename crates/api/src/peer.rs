//! Neighbours.

use ffmesh_core::id::NodeId;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// State of a neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PeerState {
    /// The link is up
    Up,
    /// Being dialled
    Dialling,
    /// It was up and is not now; it is not dialled from here
    Down,
}

/// `GET /api/v1/peers`: one neighbour.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Peer {
    /// The neighbour
    #[schema(value_type = String)]
    pub node_id: NodeId,
    /// `name` of its upstream entry
    pub name: Option<String>,
    /// Its link's state
    pub state: PeerState,
    /// Its address now, or the one that is dialled
    pub address: Option<String>,
    /// Whether this node dialled the link
    pub dialled: bool,
    /// When the state was entered
    pub since: Timestamp,
    /// Smoothed round trip time
    pub rtt_ms: Option<f64>,
    /// Lost share of the last probes, 0 to 1
    pub loss: Option<f64>,
    /// Its groups, as its certificate says
    pub groups: Vec<String>,
    /// Whether it may relay
    pub relay: bool,
    /// By how much its clock was ahead of this machine's when the link was made, ms, give or take half a round trip
    #[serde(default)]
    pub clock_offset_ms: Option<i64>,
    /// Why it was lost or could not be dialled, last
    pub last_error: Option<String>,
}
