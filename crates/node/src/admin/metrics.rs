//! `GET /metrics`: for Prometheus and what understands its formats.

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use super::routes::Node;

/// OpenMetrics 1.0 text.
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The node's metrics
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "node",
    responses((
        status = 200, description = "Metrics as docs/metrics.md lists them, in OpenMetrics text", body = String,
        content_type = "application/openmetrics-text"
    ))
)]
pub(super) async fn metrics(State(node): Node) -> Response {
    let headers = [(header::CONTENT_TYPE, CONTENT_TYPE), (header::CACHE_CONTROL, "no-store")];
    (headers, node.control.metrics()).into_response()
}
