//! The configuration in force, and what may be changed of it: reload, and proxies and services at run time.

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use ffmesh_api as api;

use super::routes::{Failure, Node, json, read};

/// The configuration in force
#[utoipa::path(get, path = "/config", tag = "settings", responses((status = 200, description = "What the node acts by", body = api::Config)))]
pub(super) async fn config(State(node): Node) -> Response {
    json(&node.control.config())
}

/// Apply the configuration file again
#[utoipa::path(post, path = "/reload", tag = "settings", responses(
    (status = 200, description = "What has changed", body = api::Reload),
    (status = 409, body = api::Error, description = "There is no file, or the node is about to end"),
    (status = 422, body = api::Error, description = "The file has problems, and nothing has changed"),
))]
pub(super) async fn reload(State(node): Node) -> Result<Response, Failure> {
    Ok(json(&node.control.reload().await?))
}

/// Add a proxy
#[utoipa::path(post, path = "/proxies", tag = "settings", request_body = api::ProxySpec, responses(
    (status = 201, description = "It listens", body = api::Proxy),
    (status = 409, body = api::Error, description = "Its name or its address is taken"),
    (status = 422, body = api::Error, description = "It is no proxy that could be"),
))]
pub(super) async fn add_proxy(State(node): Node, body: Body) -> Result<Response, Failure> {
    let added = node.control.put_proxy(None, read(body).await?).await?;
    Ok((StatusCode::CREATED, Json(added)).into_response())
}

/// Change a proxy that was added
#[utoipa::path(put, path = "/proxies/{name}", tag = "settings", params(("name" = String, Path, description = "Its name")), request_body = api::ProxySpec, responses(
    (status = 200, description = "It is changed", body = api::Proxy),
    (status = 404, body = api::Error, description = "There is none"),
    (status = 409, body = api::Error, description = "It is of the file, or its name or its address is taken"),
    (status = 422, body = api::Error, description = "It is no proxy that could be"),
))]
pub(super) async fn change_proxy(
    State(node): Node,
    Path(name): Path<String>,
    body: Body,
) -> Result<Response, Failure> {
    Ok(json(&node.control.put_proxy(Some(name), read(body).await?).await?))
}

/// Remove a proxy that was added; its open flows go on
#[utoipa::path(delete, path = "/proxies/{name}", tag = "settings", params(("name" = String, Path, description = "Its name")), responses(
    (status = 204, description = "It is gone"),
    (status = 404, body = api::Error, description = "There is none"),
    (status = 409, body = api::Error, description = "It is of the file"),
))]
pub(super) async fn remove_proxy(State(node): Node, Path(name): Path<String>) -> Result<StatusCode, Failure> {
    node.control.remove_proxy(name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Add a service
#[utoipa::path(post, path = "/services", tag = "settings", request_body = api::ServiceSpec, responses(
    (status = 201, description = "It is offered", body = api::Service),
    (status = 409, body = api::Error, description = "Its name is taken"),
    (status = 422, body = api::Error, description = "It is no service that could be"),
))]
pub(super) async fn add_service(State(node): Node, body: Body) -> Result<Response, Failure> {
    let added = node.control.put_service(None, read(body).await?).await?;
    Ok((StatusCode::CREATED, Json(added)).into_response())
}

/// Change a service that was added
#[utoipa::path(put, path = "/services/{name}", tag = "settings", params(("name" = String, Path, description = "Its name")), request_body = api::ServiceSpec, responses(
    (status = 200, description = "It is changed", body = api::Service),
    (status = 404, body = api::Error, description = "There is none"),
    (status = 409, body = api::Error, description = "It is of the file, or its name is taken"),
    (status = 422, body = api::Error, description = "It is no service that could be"),
))]
pub(super) async fn change_service(
    State(node): Node,
    Path(name): Path<String>,
    body: Body,
) -> Result<Response, Failure> {
    Ok(json(&node.control.put_service(Some(name), read(body).await?).await?))
}

/// Remove a service that was added
#[utoipa::path(delete, path = "/services/{name}", tag = "settings", params(("name" = String, Path, description = "Its name")), responses(
    (status = 204, description = "It is gone"),
    (status = 404, body = api::Error, description = "There is none"),
    (status = 409, body = api::Error, description = "It is of the file"),
))]
pub(super) async fn remove_service(
    State(node): Node,
    Path(name): Path<String>,
) -> Result<StatusCode, Failure> {
    node.control.remove_service(name).await?;
    Ok(StatusCode::NO_CONTENT)
}
