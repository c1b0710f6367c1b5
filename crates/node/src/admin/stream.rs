//! `GET /api/v1/events`: changes of state as server-sent events (WHATWG HTML, section 9.2), and `GET /api/v1/log`.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Extension;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use ffmesh_api as api;
use ffmesh_api::Change;
use serde::Deserialize;
use tokio::sync::OwnedSemaphorePermit;
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::wrappers::errors::BroadcastStreamRecvError;
use tokio_stream::{Stream, StreamExt};

use super::BoxFuture;
use super::auth::Login;
use super::routes::{Failure, Node, json};
use crate::events::{Events, lagged};

/// A comment is sent where nothing else was for this long, so that neither side takes silence for a lost connection.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How long a browser waits before it connects again.
const RECONNECT: Duration = Duration::from_secs(1);
/// The header with which a client comes back.
const LAST_EVENT_ID: &str = "last-event-id";

/// Which events.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Wanted {
    /// Those after the one with this number, as far as they are kept; without it and without `Last-Event-ID`, those
    /// from now on. 0 brings all that are kept
    after: Option<u64>,
    /// Those of these kinds, such as `peer,failover`; `lagged` always comes
    kinds: Option<String>,
}

/// Changes of state as they happen, as server-sent events
#[utoipa::path(
    get,
    path = "/events",
    tag = "mesh",
    params(Wanted),
    responses(
        (status = 200, description = "The stream", body = api::Event, content_type = "text/event-stream"),
        (status = 503, description = "All streams are taken", body = api::Error),
    )
)]
pub(super) async fn events(
    State(node): Node,
    login: Option<Extension<Login>>,
    query: Result<Query<Wanted>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let Query(wanted) = query.map_err(|error| Failure::bad_request(error.body_text()))?;
    let kinds = wanted.kinds.as_deref().map(kinds).transpose()?;
    let after = last_event_id(&headers)?.or(wanted.after);
    let permit = node.streams.take()?;
    let ended: BoxFuture<'static, ()> = match (&node.auth, login) {
        (Some(auth), Some(Extension(login))) => Box::pin(auth.ended(&login)),
        _ => Box::pin(std::future::pending()), // who has the token keeps it
    };
    let stream = Box::pin(stream(node.control.events(), after, kinds, permit));
    let events = Sse::new(Until { stream, ended }).keep_alive(KeepAlive::new().interval(KEEP_ALIVE));
    Ok(([(header::CACHE_CONTROL, "no-store")], events).into_response())
}

/// The last lines of the log, oldest first
#[utoipa::path(
    get,
    path = "/log",
    tag = "node",
    responses((status = 200, description = "The last lines of the log", body = Vec<api::LogEntry>))
)]
pub(super) async fn log(State(node): Node) -> Response {
    json(&node.control.log())
}

/// What a browser that comes back has seen last; that counts, and not what it asked for at first.
fn last_event_id(headers: &HeaderMap) -> Result<Option<u64>, Failure> {
    let Some(id) = headers.get(LAST_EVENT_ID).filter(|id| !id.is_empty()) else { return Ok(None) };
    let id = id.to_str().ok().and_then(|id| id.parse().ok());
    id.map(Some).ok_or_else(|| Failure::bad_request("`Last-Event-ID` is not the number of an event"))
}

fn kinds(words: &str) -> Result<BTreeSet<&'static str>, Failure> {
    let kind = |word: &str| {
        let known = Change::KINDS.into_iter().find(|kind| *kind == word);
        known.ok_or_else(|| {
            let all = Change::KINDS.join(", ");
            Failure::bad_request(format!("`kinds` has {word:?}; there are {all}"))
        })
    };
    words.split(',').map(str::trim).filter(|word| !word.is_empty()).map(kind).collect()
}

/// The events of one client, which hold its permit. First comes a comment, at once: it is connected.
fn stream(
    events: &Events,
    after: Option<u64>,
    kinds: Option<BTreeSet<&'static str>>,
    permit: OwnedSemaphorePermit,
) -> impl Stream<Item = Result<Event, Infallible>> + use<> {
    let after = after.unwrap_or_else(|| events.last());
    let (kept, live) = events.subscribe(after);
    let mut last = kept.last().map_or(after, |event| event.id);
    let live = BroadcastStream::new(live).map(move |event| match event {
        Ok(event) => {
            last = event.id;
            event
        }
        // The events in between are consecutive.
        Err(BroadcastStreamRecvError::Lagged(missed)) => {
            last += missed;
            Arc::new(lagged(last, missed))
        }
    });
    let wanted = move |event: &Arc<api::Event>| {
        let kind = event.change.kind();
        kinds.as_ref().is_none_or(|kinds| kinds.contains(kind) || kind == "lagged")
    };
    let hello = Event::default().comment("connected").retry(RECONNECT);
    let events = tokio_stream::iter(kept).chain(live).filter(wanted).filter_map(move |event| {
        let _held = &permit;
        written(&event).map(Ok)
    });
    tokio_stream::once(Ok(hello)).chain(events)
}

/// A stream that ends early when `ended` is ready.
struct Until<S> {
    stream: Pin<Box<S>>,
    ended: BoxFuture<'static, ()>,
}

impl<S: Stream> Stream for Until<S> {
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<S::Item>> {
        if self.ended.as_mut().poll(context).is_ready() {
            return Poll::Ready(None);
        }
        self.stream.as_mut().poll_next(context)
    }
}

fn written(event: &api::Event) -> Option<Event> {
    let data = serde_json::to_string(event).ok()?; // numbers and text, which JSON has words for
    Some(Event::default().id(event.id.to_string()).event(event.change.kind()).data(data))
}
