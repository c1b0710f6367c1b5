//! The admin API: HTTP over the Unix socket in the state directory, and over TCP.
//!
//! [`bind`] makes the socket, [`serve`] answers on it, [`router`] is what it answers: the same router stands behind
//! the `guard` of the TCP listener ([`bind_tcp`], [`serve_tcp`]), which lets in who has the token or a session ([`Auth`]). The node is seen through [`Control`] only.

mod auth;
mod console;
mod drain;
mod guard;
mod history;
mod hosts;
mod limits;
mod login;
mod metrics;
mod nc;
mod openapi;
mod patience;
mod routes;
mod server;
mod settings;
mod socket;
mod speedtest;
mod stream;
mod tcp;
#[cfg(test)]
mod tests;
mod topology;

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use ffmesh_api as api;
use ffmesh_core::id::NodeId;
use ffmesh_core::target::Target;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::events::Events;

pub use crate::history::Query as HistoryQuery;
pub use auth::{Auth, COOKIE, LOGIN_IDLE};
pub use limits::MAX_STREAMS;
pub use routes::{BODY_LIMIT, BODY_TIMEOUT, router};
pub use server::{HEAD_TIMEOUT, MAX_CONNECTIONS, serve};
pub use socket::bind;
pub use tcp::{ListenError, bind_tcp, serve_tcp, warn_of_clear_text};

/// Protocol name of the `Upgrade` header of `POST /api/v1/nc`.
pub const NC_PROTOCOL: &str = "ffmesh-nc";

/// Header of the answer to `POST /api/v1/nc`: the flow's id.
pub const FLOW_HEADER: &str = "ffmesh-flow";

/// A future that can be kept in a box.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Both directions of a flow's bytes; shutting the writer down ends that direction only.
pub trait FlowIo: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> FlowIo for T {}

/// A flow whose target is connected.
pub struct OpenFlow {
    /// Its id in [`Control::flows`].
    pub id: String,
    /// Its bytes.
    pub io: Box<dyn FlowIo>,
}

/// What the admin API can see and do of a node. The node implements it; tests use a double.
pub trait Control: Send + Sync + 'static {
    /// The node at a glance.
    fn status(&self) -> api::Status;
    /// Its neighbours, by id.
    fn peers(&self) -> Vec<api::Peer>;
    /// The ways to other nodes: by node, the best first.
    fn routes(&self) -> Vec<api::Route>;
    /// Its local listeners, in the file's order.
    fn proxies(&self) -> Vec<api::Proxy>;
    /// Its flows.
    fn flows(&self) -> api::Flows;
    /// Its metrics, in OpenMetrics text.
    fn metrics(&self) -> String;
    /// What was measured over time.
    fn history(&self, query: HistoryQuery) -> api::History;
    /// One round trip to a node, end to end; at most 5 s.
    fn ping(&self, node: NodeId) -> BoxFuture<'_, Result<api::Ping, api::Error>>;
    /// Asks each node on the way to a node, once; at most 5 s. An error is what keeps it from asking at all.
    fn trace(&self, node: NodeId) -> BoxFuture<'_, Result<api::Trace, api::Error>>;
    /// Measures the throughput to a node and back, so long in each direction: 1 s to 30 s. Takes up to twice that and
    /// 20 s.
    fn speedtest(
        &self,
        node: NodeId,
        duration: Duration,
    ) -> BoxFuture<'_, Result<api::Speedtest, api::Error>>;
    /// Opens a flow to a target behind a node (`ffmesh nc`).
    fn open(&self, node: NodeId, target: Target) -> BoxFuture<'_, Result<OpenFlow, api::Error>>;
    /// The mesh as a graph.
    fn topology(&self) -> BoxFuture<'_, api::Topology>;
    /// What the nodes of the mesh offer by name: this one's first.
    fn services(&self) -> BoxFuture<'_, Vec<api::Service>>;
    /// Its changes of state.
    fn events(&self) -> &Events;
    /// The last lines of the log, oldest first.
    fn log(&self) -> Vec<api::LogEntry>;
    /// Refuses new flows from now on, and has the node end once the open ones have. Asking again changes nothing.
    fn drain(&self) -> api::Drain;
    /// Makes a token.
    fn create_token(&self, request: api::TokenRequest) -> Result<api::Token, api::Error>;
    /// The configuration in force.
    fn config(&self) -> api::Config;
    /// Applies the configuration file again. Where the file is wrong nothing changes, and the error has its problems.
    fn reload(&self) -> BoxFuture<'_, Result<api::Reload, api::Error>>;
    /// Adds a proxy, or puts it in the place of one that was added at run time.
    fn put_proxy(
        &self,
        instead: Option<String>,
        spec: api::ProxySpec,
    ) -> BoxFuture<'_, Result<api::Proxy, api::Error>>;
    /// Removes a proxy that was added at run time. Its open flows go on.
    fn remove_proxy(&self, name: String) -> BoxFuture<'_, Result<(), api::Error>>;
    /// Adds a service, or puts it in the place of one that was added at run time.
    fn put_service(
        &self,
        instead: Option<String>,
        spec: api::ServiceSpec,
    ) -> BoxFuture<'_, Result<api::Service, api::Error>>;
    /// Removes a service that was added at run time.
    fn remove_service(&self, name: String) -> BoxFuture<'_, Result<(), api::Error>>;
}
