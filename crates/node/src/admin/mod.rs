//! The admin API: HTTP over the Unix socket in the state directory.
//!
//! [`bind`] makes the socket, [`serve`] answers on it, [`router`] is what it answers: the same router goes behind
//! the authentication of the TCP listener. The node is seen through [`Control`] only.

mod nc;
mod routes;
mod server;
mod socket;
mod speedtest;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use ffmesh_api as api;
use ffmesh_core::id::NodeId;
use ffmesh_core::target::Target;
use tokio::io::{AsyncRead, AsyncWrite};

pub use routes::{BODY_LIMIT, BODY_TIMEOUT, router};
pub use server::{HEAD_TIMEOUT, MAX_CONNECTIONS, serve};
pub use socket::bind;

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
    /// Makes a token.
    fn create_token(&self, request: api::TokenRequest) -> Result<api::Token, api::Error>;
}
