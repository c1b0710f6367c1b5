//! What a request over TCP must have before it reaches the API, and what each answer carries.
//!
//! In this order: a method that is served; a host that is this node; no foreign page behind it; the token or a session,
//! and with a session its CSRF token; room.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use ffmesh_core::text::escape;
use tokio::sync::Semaphore;

use super::auth::{Auth, Login};
use super::hosts::{HostError, Hosts, is_own_origin};
use super::limits::{MAX_REQUESTS, Place, busy};
use super::routes::Failure;

/// Header with a session's CSRF token.
pub(super) const CSRF_HEADER: &str = "x-csrf-token";
/// What needs neither token nor session.
const PUBLIC: [&str; 3] = ["/healthz", "/readyz", "/api/v1/login"];
/// What is there over the Unix socket only: it gives more than the token does.
const LOCAL: [&str; 2] = ["/api/v1/nc", "/api/v1/login-codes"];
/// Longest host name that an error repeats (RFC 1035, section 2.3.4).
const MAX_NAME: usize = 255;

/// Only what this node serves itself may run, be shown and be asked by the console; no other page may show it.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
     img-src 'self' data:; font-src 'self'; connect-src 'self'; manifest-src 'self'; base-uri 'none'; \
     form-action 'none'; frame-ancestors 'none'";
const HEADERS: [(HeaderName, &str); 5] = [
    (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// Where a request over TCP comes from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Client(pub(super) IpAddr);

#[derive(Debug)]
struct Guard {
    auth: Arc<Auth>,
    hosts: Hosts,
    requests: Semaphore,
}

/// The API behind its guard.
pub(super) fn guarded(api: Router, auth: Arc<Auth>) -> Router {
    let hosts = Hosts::new(auth.hosts(), auth.listen().port());
    let guard = Arc::new(Guard { auth, hosts, requests: Semaphore::new(MAX_REQUESTS) });
    let authenticated = api.layer(middleware::from_fn_with_state(guard.clone(), authenticate));
    // What is none of the console's files needs token or session.
    super::console::console()
        .fallback_service(authenticated)
        .layer(middleware::from_fn_with_state(guard, examine))
        .layer(middleware::map_response(harden))
}

/// Headers for every answer.
async fn harden(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// Who is addressed, and by which page.
async fn examine(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    match guard.examine(&request) {
        Ok(()) => next.run(request).await,
        Err(failure) => failure.into_response(),
    }
}

/// Who asks.
async fn authenticate(State(guard): State<Arc<Guard>>, mut request: Request, next: Next) -> Response {
    if PUBLIC.contains(&request.uri().path()) {
        // Bounded by the connections, and makes way like one that says nothing: who has no token takes no room from
        // who has it.
        return next.run(request).await;
    }
    match guard.authenticate(&request) {
        Ok(None) => {}
        Ok(Some(login)) => drop(request.extensions_mut().insert(login)),
        Err(failure) => return failure.into_response(),
    }
    if LOCAL.contains(&request.uri().path()) {
        let error =
            "this is offered over the Unix socket in the node's state directory only: use the command line";
        return Failure::new(StatusCode::FORBIDDEN, error).into_response();
    }
    let Ok(_room) = guard.requests.try_acquire() else {
        return busy(format!("{MAX_REQUESTS} requests are being answered already")).into_response();
    };
    let answering = request.extensions().get::<Arc<Place>>().map(Place::answering);
    let mut response = next.run(request).await;
    if let Some(answering) = answering {
        response.extensions_mut().insert(Arc::new(answering));
    }
    response
}

impl Guard {
    fn examine(&self, request: &Request) -> Result<(), Failure> {
        let (method, headers) = (request.method(), request.headers());
        if ![Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::DELETE].contains(method) {
            let error =
                "this method is not served; other pages cannot use this API, so there is no preflight either";
            return Err(Failure::new(StatusCode::METHOD_NOT_ALLOWED, error));
        }
        self.hosts.check(request.uri(), headers).map_err(refused_host)?;
        let foreign = || {
            let error = "the request comes from another page, and only this node's own console may use its API; \
                         programs leave `Origin` and `Sec-Fetch-Site` out, and a proxy in front passes `Host` on as \
                         it is";
            Failure::new(StatusCode::FORBIDDEN, error)
        };
        if !is_own_origin(headers) {
            return Err(foreign());
        }
        match headers.get("sec-fetch-site").map(HeaderValue::as_bytes) {
            None | Some(b"same-origin" | b"none") => Ok(()),
            // A link to the console on another page: the browser shows what comes to its user alone.
            Some(_) if is_navigation(request) => Ok(()),
            Some(_) => Err(foreign()),
        }
    }

    /// None for who has the token, else the session.
    fn authenticate(&self, request: &Request) -> Result<Option<Login>, Failure> {
        let client = request.extensions().get::<Client>().map(|client| client.0);
        let headers = request.headers();
        if let Some(value) = headers.get(header::AUTHORIZATION) {
            if bearer(value.as_bytes()).is_some_and(|token| self.auth.is_token(token)) {
                return Ok(None);
            }
            self.auth.failed(client, "wrong token");
            return Err(unauthorized(
                "the token is wrong; it is in `admin.token` in the node's state directory",
            ));
        }
        let mut cookies = session_cookies(headers, self.auth.cookie()).peekable();
        if cookies.peek().is_none() {
            return Err(unauthorized(
                "this needs `Authorization: Bearer` with the token in `admin.token` in the node's state directory; \
                 for the console, `ffmesh console` prints a link to open",
            ));
        }
        let Some(login) = cookies.find_map(|id| self.auth.find(id)) else {
            return Err(unauthorized("the session has ended; log in again"));
        };
        let safe = [Method::GET, Method::HEAD].contains(request.method());
        if !safe && !headers.get(CSRF_HEADER).is_some_and(|given| login.has_csrf(given.as_bytes())) {
            self.auth.failed(client, "wrong CSRF token");
            let error = "`X-CSRF-Token` is missing or not that of this session; `GET /api/v1/session` has it";
            return Err(Failure::new(StatusCode::FORBIDDEN, error));
        }
        Ok(Some(login))
    }
}

/// Whether a browser goes to a page, rather than a page asking for data.
fn is_navigation(request: &Request) -> bool {
    let is = |name: &str, word: &str| request.headers().get(name).is_some_and(|value| value == word);
    let path = request.uri().path();
    let data = path.starts_with("/api/") || path == "/metrics";
    let page = is("sec-fetch-mode", "navigate") && is("sec-fetch-dest", "document");
    request.method() == Method::GET && !data && page
}

fn refused_host(error: HostError) -> Failure {
    match error {
        HostError::Malformed => Failure::bad_request(
            "the request must say which host it is for: one `Host` with a name or address",
        ),
        HostError::Foreign(host) => {
            let shown: String = host.chars().take(MAX_NAME).collect();
            let error = format!(
                "this node is not known as \"{}\": use an address or localhost with the port of `admin.listen`, or \
                 add the name to `admin.hosts`",
                escape(&shown)
            );
            Failure::new(StatusCode::MISDIRECTED_REQUEST, error)
        }
    }
}

pub(super) fn unauthorized(error: &str) -> Failure {
    Failure::new(StatusCode::UNAUTHORIZED, error)
}

/// The token of `Authorization: Bearer …` (RFC 6750, section 2.1).
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

/// What the request has as ids of sessions: several, where pages of other paths have set some.
fn session_cookies<'a>(headers: &'a HeaderMap, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    let cookies = headers.get_all(header::COOKIE).iter();
    let cookies = cookies.flat_map(|value| value.as_bytes().split(|byte| *byte == b';'));
    cookies.filter_map(|cookie| cookie.trim_ascii().strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}
