//! The types of the admin API, shared by the node, the command line and the console.
//!
//! Times are RFC 3339 in UTC; durations are in the unit that the field's name ends with. Unknown fields are
//! ignored when reading, so that a command line and a node of different versions understand each other.

use ffmesh_core::id::NodeId;
use ffmesh_core::reason::Reason;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// `GET /api/v1/status`: the node at a glance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// This node
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorCount {
    /// One word out of a fixed set
    pub kind: String,
    /// Times since the start
    pub count: u64,
}

/// What a node has carried for others as a relay, since its start.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
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

/// How a route is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Route {
    /// Where it leads
    pub node_id: NodeId,
    /// Its nodes, this one first; empty for one that can't be reached
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

/// `POST /api/v1/trace`: what to trace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceRequest {
    /// The node
    pub node: NodeId,
}

/// Answer to a [`TraceRequest`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trace {
    /// The node that was traced
    pub node_id: NodeId,
    /// The nodes on the way, without this one, the traced one last
    pub hops: Vec<TraceHop>,
}

/// One node on a traced route.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TraceHop {
    /// The node
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

/// State of a neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Peer {
    /// The neighbour
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
    /// Why it was lost or could not be dialled, last
    pub last_error: Option<String>,
}

/// `GET /api/v1/proxies`: one local listener.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Proxy {
    /// Its name
    pub name: String,
    /// `tcp`
    pub protocol: String,
    /// `127.0.0.1:3333` or `unix:/path`
    pub listen: String,
    /// Node and address, or service
    pub target: String,
    /// Whether it is listening, and why not
    pub error: Option<String>,
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

/// The part a node plays in a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The client is connected here
    Ingress,
    /// The target is dialled here
    Egress,
}

/// One flow, open or ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Flow {
    /// Its id, the same on both nodes
    pub id: String,
    /// This node's part
    pub role: Role,
    /// The proxy it came through (`nc` for `ffmesh nc`); at the egress, the name the ingress gave
    pub proxy: String,
    /// The node at the other end
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
    pub reason: Option<Reason>,
    /// What there is to say beyond the reason
    pub detail: Option<String>,
}

/// `GET /api/v1/flows`
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Flows {
    /// Open now, oldest first
    pub open: Vec<Flow>,
    /// The last 1,000 that ended, newest first
    pub ended: Vec<Flow>,
}

/// `POST /api/v1/ping`: what to ping.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PingRequest {
    /// The node
    pub node: NodeId,
}

/// Answer to one [`PingRequest`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ping {
    /// The node that answered
    pub node_id: NodeId,
    /// End-to-end round trip time
    pub rtt_ms: f64,
    /// The route it took, first to last node
    pub route: Vec<NodeId>,
}

/// `POST /api/v1/tokens`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRequest {
    /// Seconds until it expires
    pub ttl_s: u64,
    /// How often it can be used
    pub uses: u32,
    /// The only id that may join with it; it may also replace that id's key
    pub node: Option<NodeId>,
    /// Groups of the joining node
    pub groups: Vec<String>,
    /// Whether the joining node may relay
    pub relay: bool,
}

/// A token that was made. The one place where its secret is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// `ffm1.…`
    pub token: String,
    /// The command for the other machine
    pub join: String,
    /// When it expires
    pub expires: Timestamp,
}

/// Any error of the API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Error {
    /// A sentence that says what failed, why, and what to do next
    pub error: String,
    /// Why a flow or ping was refused
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
}
