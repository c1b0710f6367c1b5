//! `GET /api/v1/history`: what was measured over time.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::Response;
use ffmesh_api as api;
use jiff::Timestamp;
use serde::Deserialize;

use super::HistoryQuery;
use super::routes::{Failure, Node, json};

/// What a wrong query is told.
const EXPECTED: &str =
    "expected are `step`, 1s or 1m, and `from` and `to`, moments such as 2026-01-31T12:00:00Z";

/// What is asked for. All of it may be left out.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    #[serde(default)]
    step: api::Step,
    from: Option<Timestamp>,
    to: Option<Timestamp>,
}

/// What was measured over time
#[utoipa::path(
    get,
    path = "/history",
    tag = "node",
    params(
        ("step" = Option<String>, Query, description = "`1s` (the default): seconds of the last hour; `1m`: minutes of the last week"),
        ("from" = Option<String>, Query, description = "RFC 3339; without it, as far back as is kept"),
        ("to" = Option<String>, Query, description = "RFC 3339; without it, now")
    ),
    responses((status = 200, description = "One column for each quantity", body = api::History))
)]
pub(super) async fn history(
    State(node): Node,
    query: Result<Query<Asked>, QueryRejection>,
) -> Result<Response, Failure> {
    let wrong = |error: String| Failure::bad_request(format!("{error}; {EXPECTED}"));
    let Query(Asked { step, from, to }) = query.map_err(|error| wrong(error.body_text()))?;
    if from.zip(to).is_some_and(|(from, to)| from > to) {
        return Err(wrong("`from` is later than `to`".to_owned()));
    }
    Ok(json(&node.control.history(HistoryQuery { step, from, to })))
}
