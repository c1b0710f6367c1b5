//! Steering a node: configuration, reload, drain, speed test, sessions of the console.

use ffmesh_core::id::NodeId;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Problem;

/// `GET /api/v1/config`: the configuration in force, with the defaults of what the file leaves out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Config {
    /// The file
    pub path: Option<String>,
    /// When it was applied last
    pub applied: Timestamp,
    /// The keys of the file and their values
    #[schema(value_type = Object)]
    pub values: serde_json::Value,
    /// What the file says that has no effect
    pub warnings: Vec<Problem>,
    /// Keys whose new value takes a restart
    pub needs_restart: Vec<String>,
}

/// `POST /api/v1/reload`: what applying the file again has changed. Nothing changes where the file has problems: they
/// come in the error.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct Reload {
    /// What changed, such as `proxies.web: added`, `access` or `log.level`; empty where nothing did
    pub changed: Vec<String>,
    /// Keys whose new value takes a restart; the old value is in force
    pub needs_restart: Vec<String>,
    /// What could not be done as the file says, such as a port that is taken; trying goes on
    pub failed: Vec<String>,
    /// What the file says that has no effect
    pub warnings: Vec<Problem>,
}

/// `POST /api/v1/drain`: the node refuses new flows and transit from now on, and ends when the open flows have, at
/// the latest after the timeout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Drain {
    /// Flows open now
    pub flows_open: u64,
    /// `mesh.drain_timeout`, seconds
    pub timeout_s: u64,
}

/// `POST /api/v1/speedtest`: what to measure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SpeedtestRequest {
    /// The node
    #[schema(value_type = String, example = "server")]
    pub node: NodeId,
    /// Seconds for each direction, 1 to 30; 3 without it
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_s: Option<u32>,
}

/// Answer to a [`SpeedtestRequest`]: payload over the mesh to that node and back, one direction after the other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Speedtest {
    /// The node
    #[schema(value_type = String)]
    pub node_id: NodeId,
    /// From here to there, as that node counted it
    pub up: Throughput,
    /// From there to here
    pub down: Throughput,
    /// Round trip time before, ms
    pub rtt_idle_ms: Option<f64>,
    /// Mean round trip time under load, ms
    pub rtt_loaded_ms: Option<f64>,
    /// The route that was first choice at the end, first to last node
    #[schema(value_type = Vec<String>)]
    pub route: Vec<NodeId>,
}

/// What went one way.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Throughput {
    /// Payload bytes that arrived
    pub bytes: u64,
    /// In this time
    pub seconds: f64,
    /// That is, in Mbit/s
    pub mbit_per_s: f64,
}

/// `POST /api/v1/login`: the admin token or a one-time code, exactly one of them, for a session of the console.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Login {
    /// What is in `admin.token`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// That of a [`LoginCode`]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
}

/// `POST /api/v1/login-codes`: a code that opens one session.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LoginCode {
    /// The code
    pub code: String,
    /// The console with the code: what a browser on the node's machine opens
    pub url: String,
    /// When it ends
    pub expires: Timestamp,
}

/// `POST /api/v1/login` and `GET /api/v1/session`: a session. The cookie comes beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Session {
    /// To be sent as `X-CSRF-Token` with every request that is not GET
    pub csrf_token: String,
    /// When the session ends; each request puts it off
    pub expires: Timestamp,
}
