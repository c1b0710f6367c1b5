//! Accepting connections: links, sessions and enrolments, each in a task of its own and within limits.

use std::sync::Arc;

use ffmesh_core::wire::{FlowProtocol, Message, SynData, VERSION};
use noq::Incoming;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::Parts;
use crate::flow::request;
use crate::identity::{Expected, MAX_JOIN_CONNECTIONS, explain_connection_error, serve_join, unavailable};
use crate::link::{self, LinkContext};
use crate::metrics::ErrorKind;
use crate::transport::{HANDSHAKE_TIMEOUT, Kind};

/// Handshakes under way at once; more are refused.
const MAX_HANDSHAKES: usize = 512;
/// From here on, who dials must first show that it gets what is sent to its address (RFC 9000, section 8.1.2).
const RETRY_HANDSHAKES: usize = 64;

/// Accepts until the endpoint is closed.
pub(super) async fn accept_loop(parts: Arc<Parts>, links: LinkContext) {
    let handshakes = Arc::new(Semaphore::new(MAX_HANDSHAKES));
    let joins = Arc::new(Semaphore::new(MAX_JOIN_CONNECTIONS));
    while let Some((incoming, kind)) = parts.transport.accept().await {
        let from_outside = !matches!(kind, Kind::Session(_));
        if from_outside && parts.config.quic.listen_port.is_none() {
            incoming.ignore(); // this node only dials out
            continue;
        }
        let under_way = MAX_HANDSHAKES - handshakes.available_permits();
        if from_outside && under_way >= RETRY_HANDSHAKES && incoming.may_retry() {
            let _ = incoming.retry(); // only fails where a retry is not possible, which was asked
            continue;
        }
        let permit = match kind {
            Kind::Join => joins.clone().try_acquire_owned(),
            Kind::Link | Kind::Session(_) => handshakes.clone().try_acquire_owned(),
        };
        let Ok(permit) = permit else {
            parts.counters.error(ErrorKind::Limit);
            tracing::warn!(from = %incoming.remote_address(), "connection refused: too many handshakes under way");
            incoming.refuse();
            continue;
        };
        let (parts, links) = (parts.clone(), links.clone());
        tokio::spawn(async move {
            accept(&parts, &links, incoming, kind).await;
            drop(permit);
        });
    }
}

async fn accept(parts: &Arc<Parts>, links: &LinkContext, incoming: Incoming, kind: Kind) {
    let from = ffmesh_udp::canonical(incoming.remote_address());
    let result = match kind {
        Kind::Session(slot) => parts.sessions.accept(incoming, slot).await,
        Kind::Link => match handshake(parts, incoming, kind).await {
            Ok(connection) => link::accept(links, connection).await.map(|_| ()).map_err(|e| e.to_string()),
            Err(e) => Err(e),
        },
        Kind::Join => match handshake(parts, incoming, kind).await {
            Ok(connection) => {
                serve_join(connection, |request| enrol(parts, request)).await.map_err(|e| e.to_string())
            }
            Err(e) => Err(e),
        },
    };
    if let Err(reason) = result {
        parts.counters.error(if kind == Kind::Join { ErrorKind::Enrolment } else { ErrorKind::Handshake });
        if !parts.repeats.is_news((from.ip(), &reason)) {
            return;
        }
        match kind {
            Kind::Session(_) => tracing::warn!("session refused: {reason}"),
            Kind::Link => tracing::warn!(%from, "link refused: {reason}"),
            Kind::Join => tracing::warn!(%from, "enrolment broke off: {reason}"),
        }
    }
}

async fn handshake(parts: &Parts, incoming: Incoming, kind: Kind) -> Result<noq::Connection, String> {
    let from = incoming.remote_address();
    let from = ffmesh_udp::canonical(from);
    let explain = |e: &noq::ConnectionError| explain_connection_error(e, &Expected::accepted(from));
    let connecting = parts.transport.accept_as(incoming, kind).map_err(|e| explain(&e))?;
    match timeout(HANDSHAKE_TIMEOUT, connecting).await {
        Ok(connected) => connected.map_err(|e| explain(&e)),
        Err(_) => Err(explain(&noq::ConnectionError::TimedOut)),
    }
}

/// Answers a joining node: as the issuer, or with the answer of one that this node has a link to.
async fn enrol(parts: &Parts, bytes: Vec<u8>) -> Vec<u8> {
    if let Some(issuer) = &parts.issuer {
        return issuer.enrol(&bytes);
    }
    match ask_issuer(parts, FlowProtocol::Enrol, bytes).await {
        Ok(answer) => answer,
        Err(reason) => {
            tracing::warn!("enrolment could not be passed on: {reason}");
            unavailable()
        }
    }
}

/// Asks an issuer that there is a link to; the first that answers.
pub(super) async fn ask_issuer(
    parts: &Parts,
    protocol: FlowProtocol,
    bytes: Vec<u8>,
) -> Result<Vec<u8>, String> {
    let table = parts.sessions.table();
    let issuers = table.neighbors.values().map(|neighbor| neighbor.link.peer()).filter(|peer| peer.issuer);
    let mut reason = "no issuer of the mesh is linked with this node".to_owned();
    for issuer in issuers {
        let syn = Message::SynData(SynData {
            version: VERSION,
            protocol,
            target: None,
            flow_id: String::new(),
            proxy: String::new(),
        });
        match request(&parts.sessions, &issuer.id, &syn, &bytes).await {
            Ok(answer) => return Ok(answer),
            Err(e) => reason = format!("{}: {e}", issuer.id),
        }
    }
    Err(reason)
}
