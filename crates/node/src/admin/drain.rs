//! `POST /api/v1/drain`.

use axum::extract::State;
use axum::response::Response;
use ffmesh_api as api;

use super::routes::{Node, json};

/// Let the node end
///
/// It refuses new flows and transit from now on, and ends once the open flows have. Asking again changes nothing.
#[utoipa::path(
    post,
    path = "/drain",
    tag = "actions",
    responses((status = 200, description = "It drains", body = api::Drain))
)]
pub(super) async fn drain(State(node): Node) -> Response {
    json(&node.control.drain())
}
