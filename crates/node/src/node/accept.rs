//! Accepting connections: links, sessions and enrolments, each in a task of its own and within limits.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

use ffmesh_core::wire::{FlowProtocol, Message, SynData, VERSION};
use noq::{Connection, ConnectionError, Incoming, TransportErrorCode, VarInt};
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
/// The same from one address. Several nodes behind one NAT dial at once, each several times.
const MAX_HANDSHAKES_OF_SOURCE: usize = 64;
/// From here on, who dials must first show that it gets what is sent to its address (RFC 9000, section 8.1.2).
const RETRY_HANDSHAKES: usize = 64;

/// Accepts until the endpoint is closed.
pub(super) async fn accept_loop(parts: Arc<Parts>, links: LinkContext) {
    let permits = |most| Arc::new(Semaphore::new(most));
    let (for_links, for_sessions, for_joins) =
        (permits(MAX_HANDSHAKES), permits(MAX_HANDSHAKES), permits(MAX_JOIN_CONNECTIONS));
    let sources = Arc::new(Sources::default());
    while let Some((incoming, kind)) = parts.transport.accept().await {
        let from = ffmesh_udp::canonical(incoming.remote_address()).ip();
        let from_outside = !matches!(kind, Kind::Session(_));
        if from_outside && parts.config().quic.listen_port.is_none() {
            incoming.ignore(); // this node only dials out
            continue;
        }
        // A stranger shows that it gets what is sent to its address before it costs anything; members only under load.
        let under_way = MAX_HANDSHAKES - for_links.available_permits();
        if from_outside && (kind == Kind::Join || under_way >= RETRY_HANDSHAKES) && incoming.may_retry() {
            let _ = incoming.retry(); // only fails where a retry is not possible, which was asked
            continue;
        }
        let semaphore = match kind {
            Kind::Join => &for_joins,
            Kind::Link => &for_links,
            Kind::Session(_) => &for_sessions,
        };
        let source = if from_outside { Sources::enter(&sources, from) } else { None };
        let permit = semaphore.clone().try_acquire_owned();
        let (Ok(permit), true) = (permit, source.is_some() || !from_outside) else {
            parts.counters.error(ErrorKind::Limit);
            if parts.repeats.is_news((from, "handshakes")) {
                tracing::warn!(%from, "connection refused: too many handshakes under way");
            }
            incoming.refuse();
            continue;
        };
        let (parts, links) = (parts.clone(), links.clone());
        tokio::spawn(async move {
            accept(&parts, &links, incoming, kind).await;
            drop((permit, source));
        });
    }
}

/// Handshakes under way by where they come from, so that one machine does not take all of them.
#[derive(Debug, Default)]
struct Sources(Mutex<HashMap<IpAddr, usize>>);

/// One handshake of a source.
#[derive(Debug)]
struct FromSource {
    sources: Arc<Sources>,
    network: IpAddr,
}

impl Sources {
    /// Enters a handshake, unless its source has all that it may have. An IPv6 machine has a /64 of addresses.
    fn enter(this: &Arc<Self>, from: IpAddr) -> Option<FromSource> {
        let network = match from {
            IpAddr::V4(_) => from,
            IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)).into(),
        };
        let mut counts = this.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(network).or_default();
        if *count >= MAX_HANDSHAKES_OF_SOURCE {
            return None;
        }
        *count += 1;
        Some(FromSource { sources: this.clone(), network })
    }
}

impl Drop for FromSource {
    fn drop(&mut self) {
        let mut counts = self.sources.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut count) = counts.entry(self.network) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

async fn accept(parts: &Arc<Parts>, links: &LinkContext, incoming: Incoming, kind: Kind) {
    let from = ffmesh_udp::canonical(incoming.remote_address());
    let result = match kind {
        Kind::Session(slot) => parts.sessions.accept(incoming, slot).await.map_err(Some),
        Kind::Link | Kind::Join => match handshake(parts, incoming, kind).await {
            Ok(connection) if kind == Kind::Join => {
                let served = serve_join(connection, |request| enrol(parts, request)).await;
                served.map_err(|e| Some(e.to_string()))
            }
            Ok(connection) => match link::accept(links, connection.clone()).await {
                Ok(_) => Ok(()),
                Err(_) if connection.close_reason().is_some_and(|e| is_withdrawn(&e)) => Err(None),
                Err(e) => Err(Some(e.to_string())),
            },
            Err(e) if is_withdrawn(&e) => Err(None),
            Err(e) => Err(Some(explain_connection_error(&e, &Expected::accepted(from)))),
        },
    };
    let Err(Some(reason)) = result else { return };
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

async fn handshake(parts: &Parts, incoming: Incoming, kind: Kind) -> Result<Connection, ConnectionError> {
    let connecting = parts.transport.accept_as(incoming, kind)?;
    timeout(HANDSHAKE_TIMEOUT, connecting).await.unwrap_or(Err(ConnectionError::TimedOut))
}

/// Whether the other node has withdrawn its dial: it dials all addresses of a name at once and keeps one connection.
fn is_withdrawn(error: &ConnectionError) -> bool {
    match error {
        // Before the handshake is over, that an application closes is all that is told (RFC 9000, section 10.2.3).
        ConnectionError::ConnectionClosed(close) => close.error_code == TransportErrorCode::APPLICATION_ERROR,
        ConnectionError::ApplicationClosed(close) => close.error_code == VarInt::from_u32(0),
        _ => false,
    }
}

/// Answers a joining node: as the issuer, or with the answer of one that this node has a link to.
async fn enrol(parts: &Parts, bytes: Vec<u8>) -> Vec<u8> {
    if let Some(issuer) = &parts.issuer {
        return issuer.clone().answer_enrol(bytes).await;
    }
    match ask_issuer(parts, FlowProtocol::Enrol, bytes).await {
        Ok(answer) => answer,
        Err(reason) => {
            tracing::warn!("enrolment could not be passed on: {reason}");
            unavailable()
        }
    }
}

/// Asks the issuers of the mesh, the nearest first; the first that answers.
pub(super) async fn ask_issuer(
    parts: &Parts,
    protocol: FlowProtocol,
    bytes: Vec<u8>,
) -> Result<Vec<u8>, String> {
    let mut reason = "no issuer of the mesh can be reached from this node".to_owned();
    for issuer in parts.sessions.driver().issuers().await {
        let syn = Message::SynData(SynData {
            version: VERSION,
            protocol,
            target: None,
            flow_id: String::new(),
            proxy: String::new(),
        });
        match request(&parts.sessions, &issuer, &syn, &bytes).await {
            Ok(answer) => return Ok(answer),
            Err(e) => reason = format!("{issuer}: {e}"),
        }
    }
    Err(reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_source_does_not_take_all_handshakes() {
        let sources = Arc::new(Sources::default());
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let mut held = Vec::new();
        for i in 0..MAX_HANDSHAKES_OF_SOURCE {
            held.push(Sources::enter(&sources, address(&format!("2001:db8::{i:x}"))).unwrap());
        }
        assert!(Sources::enter(&sources, address("2001:db8::ffff")).is_none(), "the same /64");
        assert!(Sources::enter(&sources, address("2001:db8:0:1::1")).is_some());
        assert!(Sources::enter(&sources, address("192.0.2.1")).is_some());
        held.pop();
        assert!(Sources::enter(&sources, address("2001:db8::ffff")).is_some());
        drop(held);
        assert!(sources.0.lock().unwrap().is_empty());
    }
}
