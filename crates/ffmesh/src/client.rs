//! Talking to a running node over its admin socket.

use std::io;
use std::time::Duration;

use ffmesh_api as api;
use ffmesh_core::id::NodeId;
use ffmesh_core::target::Target;
use ffmesh_core::text::escape;
use ffmesh_node::admin::{FLOW_HEADER, NC_PROTOCOL};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use crate::failure::{Failure, Outcome};
use crate::format::shell_word;
use crate::place::Node;

/// How long a node may take to answer. Its slowest answer, a ping, takes 5 s; opening a flow 10 s.
const TIMEOUT: Duration = Duration::from_secs(15);
/// Largest answer: 50,000 flows of 1 KiB each, with room to spare.
const MAX_ANSWER: usize = 256 << 20;

/// Longest line of an answer that goes on: an event with 32 fields of 1 KiB, all escaped, with room to spare.
const MAX_LINE: usize = 1 << 20;

/// A node that can be asked.
#[derive(Debug)]
pub(crate) struct Client<'a> {
    node: &'a Node,
}

/// A flow of `ffmesh nc`.
#[derive(Debug)]
pub(crate) struct OpenFlow {
    /// Its id in the node's table of flows.
    pub(crate) id: String,
    pub(crate) stream: UnixStream,
    /// What was read beyond the answer's head.
    pub(crate) first: Bytes,
}

/// The lines of an answer that goes on.
#[derive(Debug)]
pub(crate) struct Lines {
    body: Incoming,
    read: Vec<u8>,
}

impl Lines {
    /// The next line, without its end; none once the node has ended the answer.
    pub(crate) async fn line(&mut self) -> Outcome<Option<String>> {
        let mut looked = 0;
        loop {
            if let Some(end) = self.read[looked..].iter().position(|byte| *byte == b'\n') {
                let line: Vec<_> = self.read.drain(..=looked + end).collect();
                return Ok(Some(String::from_utf8_lossy(&line).trim_end().to_owned()));
            }
            looked = self.read.len();
            if looked > MAX_LINE {
                return Err(Failure::failed("the node's answer has a line that is too long"));
            }
            let Some(Ok(frame)) = self.body.frame().await else { return Ok(None) };
            self.read.extend(frame.data_ref().map(|data| &data[..]).unwrap_or_default());
        }
    }
}

/// What the node answered when it did not do what it was asked.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// The node says why.
    Node(api::Error),
    /// The node could not be asked, or is not understood.
    Other(Failure),
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self::Other(failure)
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Node(error) => Self::failed(describe(&error)),
            Refusal::Other(failure) => failure,
        }
    }
}

/// `refused by policy (denied)`
pub(crate) fn describe(error: &api::Error) -> String {
    let text: Vec<_> = error.error.lines().map(escape).collect();
    let text = text.join("\n");
    match error.reason {
        Some(reason) if !text.contains(reason.as_str()) => format!("{text} ({reason})"),
        _ => text,
    }
}

impl<'a> Client<'a> {
    pub(crate) fn new(node: &'a Node) -> Self {
        Self { node }
    }

    /// The answer to GET, as the node wrote it and as its type.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Outcome<(serde_json::Value, T)> {
        let answer = self.ask(Method::GET, path, Bytes::new(), TIMEOUT).await?;
        let value: serde_json::Value = understand(&answer)?;
        Ok((value, understand(&answer)?))
    }

    /// The answer to POST.
    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Refusal> {
        self.post_slow(path, body, Duration::ZERO).await
    }

    /// The answer to POST of something that takes the node so long.
    pub(crate) async fn post_slow<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        takes: Duration,
    ) -> Result<T, Refusal> {
        let body = serde_json::to_vec(body).map_err(Failure::failed)?;
        Ok(understand(&self.ask(Method::POST, path, body.into(), takes + TIMEOUT).await?)?)
    }

    /// Opens a flow.
    pub(crate) async fn nc(&self, node: &NodeId, target: &Target) -> Result<OpenFlow, Refusal> {
        let path = format!("nc?node={node}&target={}", percent_encoded(&target.to_string()));
        let request = request(Method::POST, &path)
            .header(header::CONNECTION, "Upgrade")
            .header(header::UPGRADE, NC_PROTOCOL)
            .body(Full::default())
            .map_err(Failure::failed)?;
        let answer = self.send(request, TIMEOUT).await?;
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(refusal(answer).await);
        }
        let id = answer.headers().get(FLOW_HEADER).and_then(|id| id.to_str().ok());
        let id = id.ok_or_else(|| Failure::failed("the node does not say how it calls the flow"))?.to_owned();
        let upgraded = hyper::upgrade::on(answer).await.map_err(|error| broken(&error))?;
        let parts = upgraded
            .downcast::<TokioIo<UnixStream>>()
            .map_err(|_| Failure::failed("the connection to the node is of an unknown kind"))?;
        Ok(OpenFlow { id, stream: parts.io.into_inner(), first: parts.read_buf })
    }

    /// The flow that this node began under an id, open or ended; none when the node knows it no more.
    pub(crate) async fn flow(&self, id: &str) -> Outcome<Option<api::Flow>> {
        let (_, flows) = self.get::<api::Flows>(&format!("flows?id={}", percent_encoded(id))).await?;
        let mut flows = flows.open.into_iter().chain(flows.ended);
        // A flow to a target behind the node itself has both its ends there.
        Ok(flows.find(|flow| flow.id == id && flow.role == api::Role::Ingress))
    }

    /// An answer that goes on: its lines as they come.
    pub(crate) async fn stream(&self, path: &str) -> Result<Lines, Refusal> {
        let request = request(Method::GET, path).body(Full::default()).map_err(Failure::failed)?;
        let answer = self.send(request, TIMEOUT).await?;
        if answer.status() != StatusCode::OK {
            return Err(refusal(answer).await);
        }
        Ok(Lines { body: answer.into_body(), read: Vec::new() })
    }

    async fn ask(&self, method: Method, path: &str, body: Bytes, limit: Duration) -> Result<Bytes, Refusal> {
        let request = request(method, path)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(Failure::failed)?;
        let answer = self.send(request, limit).await?;
        if answer.status() != StatusCode::OK {
            return Err(refusal(answer).await);
        }
        Ok(collect(answer).await?)
    }

    async fn send(&self, request: Request<Full<Bytes>>, limit: Duration) -> Outcome<Response<Incoming>> {
        let mut sender = self.connect().await?;
        match tokio::time::timeout(limit, sender.send_request(request)).await {
            Ok(answer) => answer.map_err(|error| broken(&error)),
            Err(_) => Err(Failure::failed(format!("the node did not answer within {} s", limit.as_secs()))),
        }
    }

    async fn connect(&self) -> Outcome<SendRequest<Full<Bytes>>> {
        let path = self.node.state.admin_socket();
        let stream = UnixStream::connect(&path).await.map_err(|error| self.unreachable(&error))?;
        let uid = stream.peer_cred().map_err(|error| self.unreachable(&error))?.uid();
        if !self.node.state.may_be_node(uid) {
            return Err(Failure::failed(format!(
                "what answers at {} runs as the user {uid}, and is not asked: a node runs as you or as root",
                path.display()
            )));
        }
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| broken(&error))?;
        // Its error is that of the request as well.
        tokio::spawn(async move { drop(connection.with_upgrades().await) });
        Ok(sender)
    }

    /// The file that starts the node, as far as it is known.
    fn config(&self) -> String {
        let path = self.node.config.as_ref().and_then(|config| config.path.as_deref());
        path.map_or("CONFIG.yaml".to_owned(), |path| shell_word(&path.to_string_lossy()))
    }

    fn unreachable(&self, error: &io::Error) -> Failure {
        let dir = self.node.state.path();
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Failure::failed(format!(
                "no node is running with the state directory {}\nstart it with `ffmesh {}`; if another one \
                 is meant, choose it with --node ID, --config FILE or --state-dir DIR",
                dir.display(),
                self.config()
            )),
            io::ErrorKind::PermissionDenied => Failure::failed(format!(
                "the node with the state directory {} belongs to another user\nrun this as that user or as root: \
                 sudo ffmesh … --state-dir {}",
                dir.display(),
                shell_word(&dir.to_string_lossy())
            )),
            _ => Failure::failed(format!("the node's socket in {} cannot be used: {error}", dir.display())),
        }
    }
}

fn request(method: Method, path: &str) -> hyper::http::request::Builder {
    Request::builder().method(method).uri(format!("/api/v1/{path}")).header(header::HOST, "localhost")
}

async fn refusal(answer: Response<Incoming>) -> Refusal {
    let status = answer.status();
    match collect(answer).await {
        Ok(body) => match serde_json::from_slice(&body) {
            Ok(error) => Refusal::Node(error),
            Err(_) => Refusal::Other(Failure::failed(format!(
                "the node answered {status}; is it of the same version as this command ({})?",
                env!("CARGO_PKG_VERSION")
            ))),
        },
        Err(failure) => Refusal::Other(failure),
    }
}

async fn collect(answer: Response<Incoming>) -> Outcome<Bytes> {
    let body = Limited::new(answer.into_body(), MAX_ANSWER).collect();
    match tokio::time::timeout(TIMEOUT, body).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) => Err(Failure::failed(format!("the node's answer could not be read: {error}"))),
        Err(_) => Err(Failure::failed(format!("the node's answer took longer than {} s", TIMEOUT.as_secs()))),
    }
}

fn understand<T: DeserializeOwned>(body: &[u8]) -> Outcome<T> {
    serde_json::from_slice(body).map_err(|error| {
        Failure::failed(format!(
            "the node's answer is not understood: {error}\nis it of the same version as this command ({})?",
            env!("CARGO_PKG_VERSION")
        ))
    })
}

fn broken(error: &hyper::Error) -> Failure {
    Failure::failed(format!("the connection to the node broke: {error}\nit may have stopped; see its log"))
}

/// A value in a query (RFC 3986, section 2.1).
fn percent_encoded(text: &str) -> String {
    use std::fmt::Write as _;
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:/".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;
    use ffmesh_core::reason::Reason;

    #[test]
    fn targets_survive_a_query() {
        assert_eq!(percent_encoded("[::1]:80"), "%5B::1%5D:80");
        assert_eq!(percent_encoded("unix:/run/a b&c=+.sock"), "unix:/run/a%20b%26c%3D%2B.sock");
    }

    #[test]
    fn errors_of_a_node_are_escaped_and_name_their_reason() {
        let error = api::Error::because(Reason::Denied, "no\x1b[2J");
        assert_eq!(describe(&error), "no\\u{1b}[2J (denied)");
    }
}
