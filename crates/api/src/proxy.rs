//! Local listeners, and what nodes offer by name.

use ffmesh_core::id::NodeId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Where a proxy or a service of this node comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// The configuration file: changed there
    #[default]
    File,
    /// The API, kept in the node's store: changed through the API
    Runtime,
}

/// `GET /api/v1/proxies`: one local listener.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Proxy {
    /// Its name
    pub name: String,
    /// Whether it is of the file or was added at run time
    #[serde(default)]
    pub origin: Origin,
    /// `tcp`, `udp`, `socks5` or `http`
    pub protocol: String,
    /// `127.0.0.1:3333` or `unix:/path`
    pub listen: String,
    /// Node and address, or service
    pub target: String,
    /// Whether it is listening, and why not
    pub error: Option<String>,
    /// Flows without a byte for this long are ended, such as `10m`; none where they are not
    #[serde(default)]
    pub idle_timeout: Option<String>,
    /// Flows open now
    pub flows_open: u64,
    /// Flows since the start
    pub flows_total: u64,
    /// Of these, refused or failed before they were connected
    pub flows_failed: u64,
    /// Bytes from clients to the target
    pub bytes_up: u64,
    /// Bytes from the target to clients
    pub bytes_down: u64,
}

/// `POST /api/v1/proxies` and `PUT /api/v1/proxies/{name}`: a proxy to add or to change, with the keys of the
/// configuration file, checked as there.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ProxySpec {
    /// Its name, which no other proxy has
    pub name: String,
    /// TCP port; none for a Unix socket
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_port: Option<u16>,
    /// `127.0.0.1` (the default), another address, or `unix:/path`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_address: Option<String>,
    /// `tcp` (the default)
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// The node that dials
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_node_id: Option<String>,
    /// What it dials: `host:port` or `unix:/path`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_address: Option<String>,
    /// A service, instead of node and address
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_service: Option<String>,
    /// Ends flows without a byte for this long: `10m`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<String>,
}

/// `GET /api/v1/services`: a service that a node of the mesh offers by name, this node's first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Service {
    /// Its name
    pub name: String,
    /// `tcp` or `udp`
    pub protocol: String,
    /// The node that offers it
    #[schema(value_type = String)]
    pub node_id: NodeId,
    /// Whether that node can be reached now
    pub reachable: bool,
    /// Where the service is, seen from its node; known for this node's own
    pub address: Option<String>,
    /// Who may use it; none means every member. Known for this node's own
    pub allow: Option<Vec<String>>,
    /// Whether it is of the file or was added at run time, for this node's own
    pub origin: Option<Origin>,
    /// Why it is not offered, for this node's own
    pub error: Option<String>,
}

/// `POST /api/v1/services` and `PUT /api/v1/services/{name}`: a service to add or to change, with the keys of the
/// configuration file, checked as there.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ServiceSpec {
    /// Its name, which no other service of this node has
    pub name: String,
    /// `host:port` or `unix:/path`
    pub address: String,
    /// `tcp` (the default) or `udp`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// `*`, `node:ID` and `group:NAME`; without it every member
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow: Option<Vec<String>>,
}
