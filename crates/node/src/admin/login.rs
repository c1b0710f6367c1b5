//! `POST /api/v1/login`, `logout` and `login-codes`, `GET /api/v1/session`: sessions of the console.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{AppendHeaders, IntoResponse, Response};
use ffmesh_api as api;

use super::auth::{Auth, Login};
use super::guard::{Client, unauthorized};
use super::routes::{Failure, Shared, json, read};

type Node = State<Arc<Shared>>;

/// Opens a session of the console, with the token or a one-time code
#[utoipa::path(
    post,
    path = "/login",
    tag = "console",
    security(()),
    request_body(content = api::Login, example = json!({"token": "what is in admin.token"})),
    responses(
        (status = 200, description = "The session, whose cookie comes beside it", body = api::Session,
            headers(("set-cookie" = String, description = "`ffmesh_session_…`, out of reach of scripts"))),
        (status = 400, description = "Not exactly one of `token` and `code`", body = api::Error),
        (status = 401, description = "The token is wrong, or the code is wrong, used or too old", body = api::Error),
        (status = 409, description = "`admin.listen` is not set", body = api::Error),
        (status = 429, description = "Too many logins have failed; `Retry-After` says how long to wait", body = api::Error),
    )
)]
pub(super) async fn login(
    State(node): Node,
    client: Option<Extension<Client>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let auth = auth(&node)?;
    let login: api::Login = read(body).await?;
    if login.token.is_some() == login.code.is_some() {
        return Err(Failure::bad_request("a login takes either `token` or `code`"));
    }
    let Some((id, session)) = auth.log_in(&login) else {
        let client = client.map(|Extension(Client(address))| address);
        return Err(match auth.login_failed(client) {
            Some(wait) => {
                let error = "too many logins have failed; wait a moment. The token is in `admin.token` in the node's \
                             state directory";
                Failure::new(StatusCode::TOO_MANY_REQUESTS, error).retry_after(wait)
            }
            None if login.code.is_some() => unauthorized(
                "the code is wrong, used or older than a minute; `ffmesh console` makes a new one",
            ),
            None => unauthorized("the token is wrong; it is in `admin.token` in the node's state directory"),
        });
    };
    // Behind a proxy with TLS the cookie never travels in clear.
    let tls = headers.get(header::ORIGIN).is_some_and(|origin| origin.as_bytes().starts_with(b"https://"));
    let secure = if tls { "; Secure" } else { "" };
    let cookie = format!("{}={id}; HttpOnly; SameSite=Strict; Path=/{secure}", auth.cookie());
    Ok((AppendHeaders([(header::SET_COOKIE, cookie)]), json(&session)).into_response())
}

/// The session of the request, for a page that was loaded again
#[utoipa::path(
    get,
    path = "/session",
    tag = "console",
    responses(
        (status = 200, description = "The session", body = api::Session),
        (status = 409, description = "The request has no session, but the token, or came over the Unix socket", body = api::Error),
    )
)]
pub(super) async fn session(login: Option<Extension<Login>>) -> Result<Response, Failure> {
    let Extension(login) = login.ok_or_else(no_session)?;
    Ok(json(&Auth::session(&login)))
}

/// Ends the session of the request
#[utoipa::path(
    post,
    path = "/logout",
    tag = "console",
    responses(
        (status = 204, description = "It has ended; its cookie is taken back"),
        (status = 409, description = "The request has no session, but the token, or came over the Unix socket", body = api::Error),
    )
)]
pub(super) async fn logout(State(node): Node, login: Option<Extension<Login>>) -> Result<Response, Failure> {
    let Extension(login) = login.ok_or_else(no_session)?;
    let auth = auth(&node)?;
    auth.log_out(&login);
    let cookie = format!("{}=; HttpOnly; SameSite=Strict; Path=/; Max-Age=0", auth.cookie());
    Ok((StatusCode::NO_CONTENT, [(header::SET_COOKIE, cookie)]).into_response())
}

/// Makes a code that opens one session within a minute; over the Unix socket only
#[utoipa::path(
    post,
    path = "/login-codes",
    tag = "console",
    responses(
        (status = 200, description = "The code, and the link that uses it", body = api::LoginCode),
        (status = 403, description = "Not over the Unix socket", body = api::Error),
        (status = 409, description = "`admin.listen` is not set", body = api::Error),
    )
)]
pub(super) async fn login_codes(State(node): Node) -> Result<Response, Failure> {
    Ok(json(&auth(&node)?.create_code()))
}

fn auth(node: &Shared) -> Result<&Auth, Failure> {
    node.auth.as_deref().ok_or_else(|| {
        let error = "this node has no console, as `admin.listen` is not set: add\n\nadmin:\n  \
                     listen: \"127.0.0.1:9464\"\n\nto its configuration file and start it again";
        Failure::new(StatusCode::CONFLICT, error)
    })
}

fn no_session() -> Failure {
    let error = "this request has no session: it has the token, or came over the Unix socket";
    Failure::new(StatusCode::CONFLICT, error)
}
