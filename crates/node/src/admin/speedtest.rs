//! `POST /api/v1/speedtest`.

use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use ffmesh_api as api;

use super::routes::{Failure, Node, json, read};
use crate::flow::MAX_DURATION;

/// Seconds for each direction where the request does not say.
const DEFAULT_SECONDS: u32 = 3;

/// Throughput to a node and back
#[utoipa::path(
    post,
    path = "/speedtest",
    tag = "actions",
    request_body = api::SpeedtestRequest,
    responses(
        (status = 200, description = "What was measured", body = api::Speedtest),
        (status = 404, description = "No such node is known", body = api::Error),
        (status = 501, description = "The node's version has no speed test", body = api::Error),
        (status = 503, description = "No route, or too many tests at once", body = api::Error),
    )
)]
pub(super) async fn speedtest(State(node): Node, body: Body) -> Result<Response, Failure> {
    let request: api::SpeedtestRequest = read(body).await?;
    let seconds = request.duration_s.unwrap_or(DEFAULT_SECONDS);
    let duration = Duration::from_secs(seconds.into());
    if seconds == 0 || duration > MAX_DURATION {
        return Err(Failure::bad_request("`duration_s` is not in the range of 1 to 30 seconds"));
    }
    Ok(json(&node.control.speedtest(request.node, duration).await?))
}
