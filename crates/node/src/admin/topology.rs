//! `GET /api/v1/topology` and `services`: the mesh as a whole.

use axum::extract::State;
use axum::response::Response;
use ffmesh_api as api;

use super::routes::{Node, json};

/// The mesh as a graph
#[utoipa::path(
    get,
    path = "/topology",
    tag = "mesh",
    responses((status = 200, description = "The mesh as this node knows it", body = api::Topology))
)]
pub(super) async fn topology(State(node): Node) -> Response {
    json(&node.control.topology().await)
}

/// What the nodes of the mesh offer by name
#[utoipa::path(
    get,
    path = "/services",
    tag = "mesh",
    responses((status = 200, description = "Services, this node's first", body = Vec<api::Service>))
)]
pub(super) async fn services(State(node): Node) -> Response {
    json(&node.control.services().await)
}
