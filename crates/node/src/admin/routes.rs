//! What the admin API answers. Every error is an [`api::Error`] in JSON.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use ffmesh_api as api;
use ffmesh_core::id::NodeId;
use ffmesh_core::reason::Reason;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use super::{Control, nc, speedtest};

/// Largest body of a request. The largest that makes sense, a token request with many groups, is far below.
pub const BODY_LIMIT: usize = 64 * 1024;
/// How long a client may take to send a body.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest life of a token: one year. Longer than that nobody remembers that it exists.
const MAX_TOKEN_TTL: u64 = 365 * 24 * 3600;

/// State of the router.
pub(super) struct Shared {
    pub(super) control: Arc<dyn Control>,
    /// The flows of `ffmesh nc`. They end with the router.
    flows: Mutex<JoinSet<()>>,
}

impl Shared {
    pub(super) fn spawn(&self, flow: impl Future<Output = ()> + Send + 'static) {
        let mut flows = self.flows.lock().unwrap_or_else(PoisonError::into_inner);
        while flows.try_join_next().is_some() {}
        flows.spawn(flow);
    }
}

/// The API, without authentication: whoever reaches it may use it.
pub fn router(control: Arc<dyn Control>) -> Router {
    let api = Router::new()
        .route("/status", get(status))
        .route("/peers", get(peers))
        .route("/routes", get(routes))
        .route("/proxies", get(proxies))
        .route("/flows", get(flows))
        .route("/ping", post(ping))
        .route("/trace", post(trace))
        .route("/speedtest", post(speedtest::speedtest))
        .route("/tokens", post(tokens))
        .route("/nc", post(nc::nc));
    Router::new()
        .nest("/api/v1", api)
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .fallback(not_found)
        .method_not_allowed_fallback(wrong_method)
        .with_state(Arc::new(Shared { control, flows: Mutex::default() }))
}

pub(super) type Node = State<Arc<Shared>>;

async fn status(State(node): Node) -> Response {
    json(&node.control.status())
}

async fn peers(State(node): Node) -> Response {
    json(&node.control.peers())
}

/// Which routes.
#[derive(Deserialize)]
struct RouteFilter {
    /// Those to this node
    node: Option<NodeId>,
}

async fn routes(
    State(node): Node,
    query: Result<Query<RouteFilter>, QueryRejection>,
) -> Result<Response, Failure> {
    let Query(filter) = query.map_err(|error| Failure::bad_request(error.body_text()))?;
    let mut routes = node.control.routes();
    if let Some(to) = filter.node {
        routes.retain(|route| route.node_id == to);
    }
    Ok(json(&routes))
}

async fn proxies(State(node): Node) -> Response {
    json(&node.control.proxies())
}

/// Which flows.
#[derive(Deserialize)]
struct FlowFilter {
    /// Those with this id: one, or both ends of one that leads back to this node
    id: Option<String>,
}

async fn flows(
    State(node): Node,
    query: Result<Query<FlowFilter>, QueryRejection>,
) -> Result<Response, Failure> {
    let Query(filter) = query.map_err(|error| Failure::bad_request(error.body_text()))?;
    let mut flows = node.control.flows();
    if let Some(id) = filter.id {
        flows.open.retain(|flow| flow.id == id);
        flows.ended.retain(|flow| flow.id == id);
    }
    Ok(json(&flows))
}

async fn ping(State(node): Node, body: Body) -> Result<Response, Failure> {
    let request: api::PingRequest = read(body).await?;
    Ok(json(&node.control.ping(request.node).await?))
}

async fn trace(State(node): Node, body: Body) -> Result<Response, Failure> {
    let request: api::TraceRequest = read(body).await?;
    Ok(json(&node.control.trace(request.node).await?))
}

async fn tokens(State(node): Node, body: Body) -> Result<Response, Failure> {
    let request: api::TokenRequest = read(body).await?;
    if request.uses == 0 {
        return Err(Failure::bad_request("`uses` is 0: a token can be used once or more"));
    }
    if !(1..=MAX_TOKEN_TTL).contains(&request.ttl_s) {
        return Err(Failure::bad_request("`ttl_s` is not in the range of 1 second to 365 days"));
    }
    Ok(json(&node.control.create_token(request)?))
}

/// Ready means useful: everything is bound, new flows are taken, and a node that has upstreams has a link.
async fn readyz(State(node): Node) -> Result<&'static str, Failure> {
    let status = node.control.status();
    if status.draining {
        return Err(Failure::new(StatusCode::SERVICE_UNAVAILABLE, "not ready: the node is draining"));
    }
    if status.upstreams > 0 && status.links_up == 0 {
        return Err(Failure::new(StatusCode::SERVICE_UNAVAILABLE, "not ready: no link to any node is up"));
    }
    Ok("ok\n")
}

async fn not_found() -> Failure {
    Failure::new(StatusCode::NOT_FOUND, "no such path; the API is under /api/v1/")
}

async fn wrong_method() -> Failure {
    Failure::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "the path exists, but not for this method; see the Allow header",
    )
}

/// An error on its way to the client.
#[derive(Debug)]
pub(super) struct Failure {
    status: StatusCode,
    body: api::Error,
}

impl Failure {
    pub(super) fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self { status, body: api::Error::new(error) }
    }

    pub(super) fn bad_request(error: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error)
    }
}

/// What the node refuses gets the status that HTTP has for its reason.
impl From<api::Error> for Failure {
    fn from(body: api::Error) -> Self {
        let status = match body.reason {
            // A request that the node understood and cannot carry out as it stands: no issuer, for example.
            None => StatusCode::CONFLICT,
            Some(Reason::Denied) => StatusCode::FORBIDDEN,
            Some(Reason::UnknownNode) => StatusCode::NOT_FOUND,
            Some(Reason::Timeout) => StatusCode::GATEWAY_TIMEOUT,
            Some(Reason::NoRoute | Reason::Drained | Reason::Limit) => StatusCode::SERVICE_UNAVAILABLE,
            Some(Reason::Unsupported) => StatusCode::NOT_IMPLEMENTED,
            Some(_) => StatusCode::BAD_GATEWAY,
        };
        Self { status, body }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.status, Json(self.body)).into_response()
    }
}

pub(super) fn json(value: &impl Serialize) -> Response {
    // Figures of this moment: nothing on the way may keep them.
    ([(header::CACHE_CONTROL, "no-store")], Json(value)).into_response()
}

pub(super) async fn read<T: DeserializeOwned>(body: Body) -> Result<T, Failure> {
    let bytes = read_bytes(body).await?;
    serde_json::from_slice(&bytes)
        .map_err(|error| Failure::bad_request(format!("the body is not the JSON that was expected: {error}")))
}

async fn read_bytes(body: Body) -> Result<Bytes, Failure> {
    let collected = tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, BODY_LIMIT).collect()).await;
    match collected {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Failure::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the body has more than {} KiB", BODY_LIMIT / 1024),
        )),
        Ok(Err(error)) => Err(Failure::bad_request(format!("the body could not be read: {error}"))),
        Err(_) => Err(Failure::new(
            StatusCode::REQUEST_TIMEOUT,
            format!("the body did not arrive within {} s", BODY_TIMEOUT.as_secs()),
        )),
    }
}
