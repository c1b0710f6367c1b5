//! What the admin API answers. Every error is an [`api::Error`] in JSON.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use ffmesh_api as api;
use ffmesh_core::id::NodeId;
use ffmesh_core::reason::Reason;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::auth::Auth;
use super::limits::Streams;
use super::{Control, drain, history, login, metrics, nc, openapi, settings, speedtest, stream, topology};

/// Largest body of a request. The largest that makes sense, a token request with many groups, is far below.
pub const BODY_LIMIT: usize = 64 * 1024;
/// How long a client may take to send a body.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest life of a token: one year. Longer than that nobody remembers that it exists.
const MAX_TOKEN_TTL: u64 = 365 * 24 * 3600;

/// State of the router.
pub(super) struct Shared {
    pub(super) control: Arc<dyn Control>,
    /// Who may use it over TCP; none where it is not offered there
    pub(super) auth: Option<Arc<Auth>>,
    /// Room for event streams
    pub(super) streams: Streams,
    /// The OpenAPI document, in JSON
    pub(super) document: Bytes,
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
pub fn router(control: Arc<dyn Control>, auth: Option<Arc<Auth>>) -> Router {
    let (router, document) = openapi::split(operations());
    // What is made of types alone can be written.
    let document = document.to_pretty_json().unwrap_or_default().into();
    router.fallback(not_found).method_not_allowed_fallback(wrong_method).with_state(Arc::new(Shared {
        control,
        auth,
        streams: Streams::default(),
        document,
        flows: Mutex::default(),
    }))
}

/// All there is, each with its description.
pub(super) fn operations() -> OpenApiRouter<Arc<Shared>> {
    let api = OpenApiRouter::default()
        .routes(routes!(status))
        .routes(routes!(peers))
        .routes(routes!(routes))
        .routes(routes!(proxies, settings::add_proxy))
        .routes(routes!(settings::change_proxy, settings::remove_proxy))
        .routes(routes!(flows))
        .routes(routes!(history::history))
        .routes(routes!(ping))
        .routes(routes!(trace))
        .routes(routes!(speedtest::speedtest))
        .routes(routes!(drain::drain))
        .routes(routes!(tokens))
        .routes(routes!(nc::nc))
        .routes(routes!(topology::topology))
        .routes(routes!(topology::services, settings::add_service))
        .routes(routes!(settings::change_service, settings::remove_service))
        .routes(routes!(settings::config))
        .routes(routes!(settings::reload))
        .routes(routes!(stream::events))
        .routes(routes!(stream::log))
        .routes(routes!(login::login))
        .routes(routes!(login::session))
        .routes(routes!(login::logout))
        .routes(routes!(login::login_codes))
        .routes(routes!(openapi::openapi));
    OpenApiRouter::with_openapi(openapi::frame())
        .nest("/api/v1", api)
        .routes(routes!(metrics::metrics))
        .routes(routes!(healthz))
        .routes(routes!(readyz))
}

pub(super) type Node = State<Arc<Shared>>;

/// The node at a glance
#[utoipa::path(
    get,
    path = "/status",
    tag = "node",
    responses((status = 200, description = "The node at a glance", body = api::Status))
)]
async fn status(State(node): Node) -> Response {
    json(&node.control.status())
}

/// The neighbours, by id
#[utoipa::path(
    get,
    path = "/peers",
    tag = "node",
    responses((status = 200, description = "The neighbours", body = Vec<api::Peer>))
)]
async fn peers(State(node): Node) -> Response {
    json(&node.control.peers())
}

/// Which routes.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
struct RouteFilter {
    /// Those to this node
    #[param(value_type = Option<String>)]
    node: Option<NodeId>,
}

/// The ways to other nodes: by node, the best first
#[utoipa::path(
    get,
    path = "/routes",
    tag = "node",
    params(RouteFilter),
    responses((status = 200, description = "The routes", body = Vec<api::Route>))
)]
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

/// The local listeners
#[utoipa::path(
    get,
    path = "/proxies",
    tag = "node",
    responses((status = 200, description = "The local listeners", body = Vec<api::Proxy>))
)]
async fn proxies(State(node): Node) -> Response {
    json(&node.control.proxies())
}

/// Which flows.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
struct FlowFilter {
    /// Those with this id: one, or both ends of one that leads back to this node
    id: Option<String>,
}

/// Open flows, and the last that ended
#[utoipa::path(
    get,
    path = "/flows",
    tag = "node",
    params(FlowFilter),
    responses((status = 200, description = "The flows", body = api::Flows))
)]
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

/// One round trip to a node, end to end
#[utoipa::path(
    post,
    path = "/ping",
    tag = "actions",
    request_body = api::PingRequest,
    responses(
        (status = 200, description = "The node answered", body = api::Ping),
        (status = 404, description = "The node is unknown", body = api::Error),
        (status = 503, description = "No route leads to it", body = api::Error),
        (status = 504, description = "It did not answer", body = api::Error),
    )
)]
async fn ping(State(node): Node, body: Body) -> Result<Response, Failure> {
    let request: api::PingRequest = read(body).await?;
    Ok(json(&node.control.ping(request.node).await?))
}

/// Asks each node on the way to a node whether it is there
#[utoipa::path(
    post,
    path = "/trace",
    tag = "actions",
    request_body = api::TraceRequest,
    responses(
        (status = 200, description = "What each node of the route said", body = api::Trace),
        (status = 404, description = "The node is unknown", body = api::Error),
        (status = 503, description = "No route leads to it", body = api::Error),
        (status = 504, description = "It did not answer", body = api::Error),
    )
)]
async fn trace(State(node): Node, body: Body) -> Result<Response, Failure> {
    let request: api::TraceRequest = read(body).await?;
    Ok(json(&node.control.trace(request.node).await?))
}

/// Makes a token, with which another machine can join
#[utoipa::path(
    post,
    path = "/tokens",
    tag = "actions",
    request_body = api::TokenRequest,
    responses(
        (status = 200, description = "The token", body = api::Token),
        (status = 409, description = "The node can't make tokens as it stands", body = api::Error),
    )
)]
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

/// Whether the node runs
#[utoipa::path(
    get,
    path = "/healthz",
    tag = "health",
    security(()),
    responses((status = 200, description = "It does", body = str))
)]
async fn healthz() -> &'static str {
    "ok\n"
}

/// Ready means useful: everything is bound, new flows are taken, and a node that has upstreams has a link.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "health",
    security(()),
    responses(
        (status = 200, description = "It is", body = str),
        (status = 503, description = "It is not, and why", body = api::Error),
    )
)]
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
    retry_after: Option<Duration>,
    body: api::Error,
}

impl Failure {
    pub(super) fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self { status, retry_after: None, body: api::Error::new(error) }
    }

    /// Says when to try again.
    pub(super) fn retry_after(self, wait: Duration) -> Self {
        Self { retry_after: Some(wait), ..self }
    }

    pub(super) fn bad_request(error: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error)
    }
}

/// What the node refuses gets the status that HTTP has for its reason.
impl From<api::Error> for Failure {
    fn from(body: api::Error) -> Self {
        let status = match body.reason {
            None if body.missing => StatusCode::NOT_FOUND,
            None if !body.problems.is_empty() => StatusCode::UNPROCESSABLE_ENTITY,
            // A request that the node understood and cannot carry out as it stands: no issuer, for example.
            None => StatusCode::CONFLICT,
            Some(Reason::Denied) => StatusCode::FORBIDDEN,
            Some(Reason::UnknownNode) => StatusCode::NOT_FOUND,
            Some(Reason::Timeout) => StatusCode::GATEWAY_TIMEOUT,
            Some(Reason::NoRoute | Reason::Drained | Reason::Limit) => StatusCode::SERVICE_UNAVAILABLE,
            Some(Reason::Unsupported) => StatusCode::NOT_IMPLEMENTED,
            Some(_) => StatusCode::BAD_GATEWAY,
        };
        Self { status, retry_after: None, body }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body)).into_response();
        let headers = response.headers_mut();
        if let Some(wait) = self.retry_after {
            headers.insert(header::RETRY_AFTER, wait.as_secs().max(1).into());
            // Who has to wait does so without holding a connection.
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
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
