//! Changes of state, as they happen.

use std::collections::BTreeMap;

use ffmesh_core::id::NodeId;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{PeerState, Reload, Sample};

/// `GET /api/v1/events`: server-sent events, one for each change. Each has its number as `id`, the word of its kind as
/// `event` and an [`Event`] in JSON as `data`. `Last-Event-ID` brings those of the last 1,000 that came after it (samples and logs
/// are not kept for that); without it, `?after=` does the same. A client that reads too slowly, or comes back too late, gets
/// the event `lagged`, and has to ask anew for all it shows. `?kinds=peer,failover` brings those kinds and `lagged` alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Counts the events of this node; after a restart it goes on from a larger number
    pub id: u64,
    /// When it happened
    pub at: Timestamp,
    /// What happened
    #[serde(flatten)]
    pub change: Change,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Change {
    /// A link came up or went down, or its node is being dialled. What keeps it from being reached is told of once a minute
    Peer {
        /// The neighbour
        #[schema(value_type = String)]
        node_id: NodeId,
        /// Its state now
        state: PeerState,
        /// Why it went down or was not reached
        reason: Option<String>,
    },
    /// A node of the mesh appeared, can be reached or can't be any more. The mesh is looked at once a second at most;
    /// where more than 100 nodes changed since, `topology` alone comes
    Node {
        /// The node
        #[schema(value_type = String)]
        node_id: NodeId,
        /// Whether a route leads to it now
        reachable: bool,
    },
    /// Links or costs somewhere in the mesh have changed; comes at most once a second
    Topology {
        /// That of the topology
        generation: u64,
    },
    /// A session that this node dialled left a route that had died
    Failover {
        /// The node at its other end
        #[schema(value_type = String)]
        node_id: NodeId,
        /// The route that died, this node first
        #[schema(value_type = Vec<String>)]
        from: Vec<NodeId>,
        /// The route that it goes on over; empty where none is left and flows wait, which is not counted in
        /// [`Status::failovers`](crate::Status::failovers)
        #[schema(value_type = Vec<String>)]
        to: Vec<NodeId>,
    },
    /// A session with a node was opened, or took over from another one, or there is none any more
    Session {
        /// The node at its other end
        #[schema(value_type = String)]
        node_id: NodeId,
        /// Whether it is open now
        open: bool,
    },
    /// A proxy was added, changed or removed
    Proxy {
        /// Its name
        name: String,
    },
    /// A service of this node was added, changed or removed
    Service {
        /// Its name
        name: String,
    },
    /// The file was applied again, or refused
    Reload {
        /// What changed
        result: Option<Reload>,
        /// Why nothing did
        error: Option<String>,
    },
    /// The node began to drain
    Drain {
        /// Flows open at this moment
        flows_open: u64,
    },
    /// The node has a new certificate
    Certificate {
        /// Its end
        expires: Timestamp,
    },
    /// One second's figures
    Sample(Sample),
    /// A line of the log
    Log(LogLine),
    /// Events were left out, as this client read too slowly
    Lagged {
        /// How many, at most, as samples and lines of the log count
        missed: u64,
    },
}

impl Change {
    /// All that [`kind`](Self::kind) says.
    pub const KINDS: [&str; 13] = [
        "peer",
        "node",
        "topology",
        "failover",
        "session",
        "proxy",
        "service",
        "reload",
        "drain",
        "certificate",
        "sample",
        "log",
        "lagged",
    ];

    /// The word of its kind, for the `event` field of server-sent events.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Peer { .. } => "peer",
            Self::Node { .. } => "node",
            Self::Topology { .. } => "topology",
            Self::Failover { .. } => "failover",
            Self::Session { .. } => "session",
            Self::Proxy { .. } => "proxy",
            Self::Service { .. } => "service",
            Self::Reload { .. } => "reload",
            Self::Drain { .. } => "drain",
            Self::Certificate { .. } => "certificate",
            Self::Sample(_) => "sample",
            Self::Log(_) => "log",
            Self::Lagged { .. } => "lagged",
        }
    }
}

/// A line of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogLine {
    /// `ERROR`, `WARN`, `INFO`, `DEBUG` or `TRACE`
    pub level: String,
    /// The part of the program that speaks
    pub target: String,
    /// What it says
    pub message: String,
    /// What it names: at most 32 fields of at most 1,024 bytes
    pub fields: BTreeMap<String, String>,
}

/// `GET /api/v1/log`: one of the last 1,000 lines of the log, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogEntry {
    /// When it was written
    pub at: Timestamp,
    /// The line
    #[serde(flatten)]
    pub line: LogLine,
}
