//! The OpenAPI document: what is common to all operations. The operations describe themselves, each beside its handler.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use ffmesh_api as api;
use utoipa::OpenApi as _;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{ContentBuilder, OpenApi, Ref, ResponseBuilder, Server};
use utoipa_axum::router::OpenApiRouter;

use super::auth::COOKIE;
use super::routes::Shared;

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "FFMesh admin API",
        description = "What a node knows, and what it can be told to do. Over the Unix socket in the node's state \
                       directory nothing more is needed; over TCP (`admin.listen`) every operation takes the token in \
                       `admin.token`, or the cookie of a session got with it.",
    ),
    components(schemas(api::Error)),
    security(("token" = []), ("session" = []))
)]
struct Frame;

/// The document without operations.
pub(super) fn frame() -> OpenApi {
    let mut document = Frame::openapi();
    let mut server = Server::new("/");
    server.description = Some("The node that served this document".into());
    document.servers = Some(vec![server]);
    let token = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("What is in `admin.token` in the node's state directory"))
        .build();
    let session = ApiKeyValue::with_description(
        COOKIE,
        "Set by `POST /api/v1/login`, with a suffix of each node's own. Requests that are not GET need the session's `csrf_token` as `X-CSRF-Token`, too.",
    );
    if let Some(components) = &mut document.components {
        components.add_security_scheme("token", SecurityScheme::Http(token));
        components.add_security_scheme("session", SecurityScheme::ApiKey(ApiKey::Cookie(session)));
    }
    document
}

/// The router, and the document of its operations, to each of which the answer to whatever fails is added.
pub(super) fn split(router: OpenApiRouter<Arc<Shared>>) -> (Router<Arc<Shared>>, OpenApi) {
    let (router, mut document) = router.split_for_parts();
    for operation in document.paths.paths.values_mut().flat_map(operations) {
        let failed = ResponseBuilder::new().description("What failed, why, and what to do next").content(
            "application/json",
            ContentBuilder::new().schema(Some(Ref::from_schema_name("Error"))).build(),
        );
        operation.responses.responses.entry("default".into()).or_insert_with(|| failed.build().into());
    }
    (router, document)
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut item.get, &mut item.put, &mut item.post, &mut item.delete].into_iter().flatten()
}

/// The document of this API
#[utoipa::path(
    get,
    path = "/openapi.json",
    tag = "node",
    responses((status = 200, description = "The OpenAPI document", body = serde_json::Value))
)]
pub(super) async fn openapi(State(node): State<Arc<Shared>>) -> Response {
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
    (headers, Bytes::clone(&node.document)).into_response()
}
