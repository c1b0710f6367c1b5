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

/// Measures the throughput to a node and back.
#[utoipa::path(
    post,
    path = "/speedtest",
    request_body = api::SpeedtestRequest,
    responses(
        (status = OK, body = api::Speedtest),
        (status = BAD_REQUEST, description = "Not a speed test, or longer than 30 s", body = api::Error),
        (status = NOT_FOUND, description = "No such node is known", body = api::Error),
        (status = NOT_IMPLEMENTED, description = "The node's version has no speed test", body = api::Error),
        (status = SERVICE_UNAVAILABLE, description = "No route, or too many tests at once", body = api::Error),
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
