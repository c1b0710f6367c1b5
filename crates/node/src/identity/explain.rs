//! A user's sentence for what goes wrong between two nodes.
//!
//! The verifier of a certificate knows all about it; the other side gets only a TLS alert. Both are explained in the
//! terms of who reads it.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use ffmesh_core::id::NodeId;
use ffmesh_core::text::foreign;
use jiff::Timestamp;
use rustls::CertificateError;
use rustls::pki_types::UnixTime;

use super::enrol::skew_text;

/// What was expected of a connection.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    address: SocketAddr,
    node: Option<&'a NodeId>,
    joining: bool,
}

impl<'a> Expected<'a> {
    /// This node dialled `node` at `address`.
    pub fn dialled(address: SocketAddr, node: &'a NodeId) -> Self {
        Self { address, node: Some(node), joining: false }
    }

    /// This node accepted a connection from `address`.
    pub fn accepted(address: SocketAddr) -> Self {
        Self { address, node: None, joining: false }
    }

    /// This node has no certificate yet and dialled `node` with a token.
    pub fn joining(address: SocketAddr, node: &'a NodeId) -> Self {
        Self { address, node: Some(node), joining: true }
    }
}

/// A sentence for a connection or handshake that failed: what happened at which address, and what to do.
///
/// A handshake that the caller gave up on is [`noq::ConnectionError::TimedOut`].
pub fn explain_connection_error(error: &noq::ConnectionError, expected: &Expected<'_>) -> String {
    use noq::ConnectionError as E;
    let address = expected.address;
    match error {
        E::TimedOut if expected.node.is_some() => format!(
            "no answer from {address}: is the node running there, and is UDP port {} open on the way?",
            address.port()
        ),
        E::TimedOut => format!("the node at {address} fell silent"),
        E::VersionMismatch => {
            format!("{address} speaks another version of QUIC: is an FFMesh node listening there?")
        }
        E::TransportError(e) => match e.crypto.as_deref().and_then(|e| e.downcast_ref::<rustls::Error>()) {
            Some(tls) => explain_own_verdict(tls, expected),
            None => match alert(e.code.into()) {
                Some(alert) => explain_own_alert(alert, expected, &e.reason),
                None => format!("the connection with {address} failed: {}", foreign(e)),
            },
        },
        E::ConnectionClosed(close) => match alert(close.error_code.into()) {
            Some(alert) => explain_their_alert(alert, expected),
            None if close.error_code == noq::TransportErrorCode::CONNECTION_REFUSED => {
                format!("the node at {address} takes no more connections now: it is busy or shutting down")
            }
            None => format!("the node at {address} ended the connection: {}", foreign(close)),
        },
        E::ApplicationClosed(close) => {
            let reason = foreign(String::from_utf8_lossy(&close.reason));
            if reason.is_empty() {
                format!("the node at {address} closed the connection")
            } else {
                format!("the node at {address} closed the connection: {reason}")
            }
        }
        E::Reset => format!("the node at {address} does not know the connection any more: it was restarted"),
        E::LocallyClosed => format!("the connection with {address} was closed by this node"),
        E::CidsExhausted => format!("no connection to {address}: this node has too many connections"),
    }
}

/// A sentence for a certificate that the stock verifier refuses; `subject` is the beginning of the sentence.
pub(super) fn explain_certificate_error(subject: &str, error: &CertificateError) -> String {
    use CertificateError as C;
    match error {
        C::UnknownIssuer | C::BadSignature => {
            format!("{subject} belongs to another mesh: its certificate is not from this mesh's authority")
        }
        C::Expired => format!("{subject} has expired: it must be renewed, or one of the two clocks is wrong"),
        C::ExpiredContext { time, not_after } => format!(
            "{subject} expired at {} (this machine's clock says {}): it must be renewed, or one of the two clocks is \
             wrong",
            utc(*not_after),
            utc(*time)
        ),
        C::NotValidYet => format!("{subject} is not valid yet: one of the two clocks is wrong"),
        C::NotValidYetContext { time, not_before } => {
            let skew = Duration::from_secs(not_before.as_secs().saturating_sub(time.as_secs()));
            format!(
                "{subject} is not valid before {}, and this machine's clock says {}: it is at least {} behind; set \
                 the clocks (for example with NTP)",
                utc(*not_before),
                utc(*time),
                skew_text(skew)
            )
        }
        C::InvalidPurpose | C::InvalidPurposeContext { .. } => {
            format!("{subject} is not that of a node")
        }
        C::Revoked => format!("{subject} has been revoked"),
        other => format!("{subject} cannot be verified: {}", foreign(other)),
    }
}

/// What this node's own verifier found.
fn explain_own_verdict(error: &rustls::Error, expected: &Expected<'_>) -> String {
    let address = expected.address;
    match error {
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) if expected.joining => format!(
            "the node at {address} is not of the token's mesh: the token is for another mesh, or another node has \
             this address by now"
        ),
        rustls::Error::InvalidCertificate(CertificateError::NotValidForNameContext { presented, .. }) => {
            let expected = expected.node.map_or("another node", NodeId::as_str);
            let is = presented_nodes(presented);
            format!(
                "the node at {address} is {is}, not {expected} as configured: correct node_id or address of the \
                 upstream"
            )
        }
        rustls::Error::InvalidCertificate(e) => {
            explain_certificate_error(&format!("the certificate of the node at {address}"), e)
        }
        rustls::Error::NoCertificatesPresented => no_certificate(address),
        rustls::Error::NoApplicationProtocol => other_protocol(address),
        other => format!("the TLS handshake with {address} failed: {}", foreign(other)),
    }
}

/// An alert that this node sent, where nothing more is known.
fn explain_own_alert(alert: u8, expected: &Expected<'_>, reason: &str) -> String {
    let address = expected.address;
    match alert {
        ALERT_CERTIFICATE_REQUIRED => no_certificate(address),
        ALERT_NO_APPLICATION_PROTOCOL => other_protocol(address),
        _ => format!("the TLS handshake with {address} failed: {}", foreign(reason)),
    }
}

// TLS alerts (RFC 8446, section 6).
const ALERT_BAD_CERTIFICATE: u8 = 42;
const ALERT_UNSUPPORTED_CERTIFICATE: u8 = 43;
const ALERT_CERTIFICATE_REVOKED: u8 = 44;
const ALERT_CERTIFICATE_EXPIRED: u8 = 45;
const ALERT_CERTIFICATE_UNKNOWN: u8 = 46;
const ALERT_UNKNOWN_CA: u8 = 48;
const ALERT_ACCESS_DENIED: u8 = 49;
const ALERT_DECRYPT_ERROR: u8 = 51;
const ALERT_PROTOCOL_VERSION: u8 = 70;
const ALERT_CERTIFICATE_REQUIRED: u8 = 116;
const ALERT_NO_APPLICATION_PROTOCOL: u8 = 120;

/// What the other node's verifier found in this one's certificate.
fn explain_their_alert(alert: u8, expected: &Expected<'_>) -> String {
    let address = expected.address;
    let who = format!("the node at {address} refused this node's certificate");
    match alert {
        ALERT_UNKNOWN_CA | ALERT_DECRYPT_ERROR if expected.joining => {
            format!("the node at {address} is not of the token's mesh")
        }
        ALERT_UNKNOWN_CA | ALERT_DECRYPT_ERROR => {
            format!("{who}: the two nodes are in different meshes; join both to the same one")
        }
        ALERT_CERTIFICATE_EXPIRED => {
            format!(
                "{who} as expired or not valid yet: it must be renewed, or one of the two clocks is wrong"
            )
        }
        ALERT_CERTIFICATE_REVOKED => format!("{who} as revoked"),
        ALERT_BAD_CERTIFICATE if expected.node.is_none() => format!(
            "the node at {address} expected another node here: its upstream entry has another node_id than this node's"
        ),
        ALERT_BAD_CERTIFICATE
        | ALERT_UNSUPPORTED_CERTIFICATE
        | ALERT_CERTIFICATE_UNKNOWN
        | ALERT_ACCESS_DENIED => format!("{who}: its log says why"),
        ALERT_CERTIFICATE_REQUIRED => {
            format!(
                "the node at {address} demands a certificate and this node presented none: enrol it with `ffmesh join`"
            )
        }
        ALERT_NO_APPLICATION_PROTOCOL | ALERT_PROTOCOL_VERSION => other_protocol(address),
        other => format!("the node at {address} ended the TLS handshake (alert {other}): its log says why"),
    }
}

fn no_certificate(address: SocketAddr) -> String {
    format!("the node at {address} presented no certificate: it has to be enrolled with `ffmesh join`")
}

fn other_protocol(address: SocketAddr) -> String {
    format!(
        "{address} does not speak this version of the FFMesh protocol: update the older node, or check that an \
         FFMesh node listens there"
    )
}

fn alert(code: u64) -> Option<u8> {
    // QUIC carries alerts as 0x100 + alert (RFC 9001, section 4.8).
    u8::try_from(code.checked_sub(0x100)?).ok()
}

/// The ids in the names that a certificate presents. The text is the verifier's, with quotes around each name.
fn presented_nodes(presented: &[String]) -> String {
    let id = |name: &String| {
        let name = name.trim_start_matches("DnsName(").trim_end_matches(')').trim_matches('"');
        let (id, rest) = name.split_once('.')?;
        rest.ends_with(".ffmesh").then(|| id.parse::<NodeId>().ok())?
    };
    presented.iter().find_map(id).map_or_else(|| "another one".to_owned(), |id| id.to_string())
}

fn utc(time: UnixTime) -> impl fmt::Display {
    i64::try_from(time.as_secs()).ok().and_then(|s| Timestamp::from_second(s).ok()).unwrap_or_default()
}
