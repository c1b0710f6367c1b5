//! `POST /api/v1/nc?node=…&target=…`: one flow as the raw bytes of an upgraded connection (RFC 9110, section 7.8).

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use ffmesh_api as api;
use ffmesh_core::id::NodeId;
use ffmesh_core::target::Target;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::io::copy_bidirectional_with_sizes;
use tracing::debug;

use super::routes::{Failure, Shared};
use super::{FLOW_HEADER, NC_PROTOCOL, OpenFlow};

/// Buffer for each direction, as large as what a Unix socket takes in one call.
const BUFFER: usize = 64 * 1024;

/// Where to.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Destination {
    /// The node that dials
    #[param(value_type = String, example = "server")]
    node: NodeId,
    /// What it dials: `host:port` or `unix:/path`
    #[param(value_type = String, example = "127.0.0.1:22")]
    target: Target,
}

/// Opens a flow to a target behind a node and carries it as the bytes of the upgraded connection
///
/// Over the Unix socket only. Opens the flow first, so that a refusal is an ordinary answer with its reason; then answers
/// 101 and copies. The end of either side's bytes ends that direction only.
#[utoipa::path(
    post,
    path = "/nc",
    tag = "actions",
    params(Destination),
    responses(
        (status = 101, description = "The flow is open: its bytes follow", headers(("ffmesh-flow" = String, description = "Its id"))),
        (status = 403, description = "Refused by policy, or not over the Unix socket", body = api::Error),
        (status = 404, description = "The node is unknown", body = api::Error),
        (status = 426, description = "The request does not ask for `Upgrade: ffmesh-nc`", body = api::Error),
    )
)]
pub(super) async fn nc(
    State(node): State<Arc<Shared>>,
    query: Result<Query<Destination>, QueryRejection>,
    mut request: Request,
) -> Result<Response, Failure> {
    let Query(query) = query.map_err(|error| Failure::bad_request(error.body_text()))?;
    if !asks_for_upgrade(request.headers()) {
        let error = format!("the request must ask for `Connection: Upgrade` and `Upgrade: {NC_PROTOCOL}`");
        return Err(Failure::new(StatusCode::UPGRADE_REQUIRED, error));
    }
    let upgrade = hyper::upgrade::on(&mut request);
    let OpenFlow { id, io: mut flow } = node.control.open(query.node, query.target).await?;
    node.spawn(async move {
        let client = match upgrade.await {
            Ok(client) => client,
            Err(error) => return debug!(%error, "the client of a flow went away"),
        };
        let mut client = TokioIo::new(client);
        if let Err(error) = copy_bidirectional_with_sizes(&mut client, &mut flow, BUFFER, BUFFER).await {
            debug!(%error, "a flow of the admin socket was cut");
        }
    });
    let headers = [(header::CONNECTION, "Upgrade"), (header::UPGRADE, NC_PROTOCOL)];
    Ok((StatusCode::SWITCHING_PROTOCOLS, headers, [(FLOW_HEADER, id)], Body::empty()).into_response())
}

fn asks_for_upgrade(headers: &HeaderMap) -> bool {
    let names = |name, word: &str| {
        headers
            .get_all(name)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|value| value.trim().eq_ignore_ascii_case(word))
    };
    names(header::CONNECTION, "upgrade") && names(header::UPGRADE, NC_PROTOCOL)
}
