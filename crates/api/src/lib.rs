//! The types of the admin API, shared by the node, the command line and the console.
//!
//! Times are RFC 3339 in UTC; durations are in the unit that the field's name ends with. Unknown fields are
//! ignored when reading answers, so that a command line and a node of different versions understand each other.

mod control;
mod error;
mod event;
mod flow;
mod history;
mod peer;
mod proxy;
mod route;
mod status;
mod token;
mod topology;
mod trace;

pub use control::{
    Config, Drain, Login, LoginCode, Reload, Session, Speedtest, SpeedtestRequest, Throughput,
};
pub use error::{Error, Problem};
pub use event::{Change, Event, LogEntry, LogLine};
pub use flow::{Flow, Flows, Role};
pub use history::{Columns, History, PeerHistory, Sample, Step};
pub use peer::{Peer, PeerState};
pub use proxy::{Origin, Proxy, ProxySpec, Service, ServiceSpec};
pub use route::{Route, RouteState};
pub use status::{ErrorCount, Status, Transit};
pub use token::{Token, TokenRequest};
pub use topology::{Topology, TopologyLink, TopologyNode, TopologyPath};
pub use trace::{Ping, PingRequest, Trace, TraceHop, TraceRequest};
