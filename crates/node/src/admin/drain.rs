//! `POST /api/v1/drain`.

use axum::extract::State;
use axum::response::Response;
use ffmesh_api as api;

use super::routes::{Node, json};

/// The node refuses new flows and transit, and ends once the open flows have. Asking again changes nothing.
#[utoipa::path(post, path = "/drain", responses((status = 200, body = api::Drain)))]
pub(super) async fn drain(State(node): Node) -> Response {
    json(&node.control.drain())
}
