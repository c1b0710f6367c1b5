//! The messages of enrolment and renewal: JSON, bounded, with a MAC where a token stands behind them.
//!
//! On the wire each has its length before it (4 bytes, big endian). The token's secret never travels: both sides key
//! HMAC-SHA256 with it. The request's MAC covers everything that the issuer acts on; the answer's MAC covers the
//! request's nonce, so that an old answer cannot be replayed and only the issuer can have made it.

use std::time::Duration;

use data_encoding::BASE64;
use ffmesh_core::id::NodeId;
use ffmesh_core::text::{foreign, foreign_within};
use jiff::Timestamp;
use rcgen::{CertificateParams, KeyPair};
use ring::hmac;
use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};

use super::certificate::random;
use super::error::IdentityError;
use super::token::{Secret, TokenId};

/// ALPN of the connections that can do nothing but enrol.
pub const JOIN_ALPN: &[u8] = b"ffmesh-join";
/// Largest enrolment or renewal message in bytes, without its length.
pub const MAX_ENROL_LEN: usize = 64 << 10;
/// Most join connections that a node should serve at once; more are refused by whoever accepts them.
pub const MAX_JOIN_CONNECTIONS: usize = 64;
/// From this difference of clocks on, a node is not enrolled.
pub const MAX_CLOCK_SKEW: Duration = Duration::from_hours(1);
/// Most CA certificates in an answer: the authority in force and those it overlaps with.
pub(super) const MAX_AUTHORITIES: usize = 4;
const VERSION: u8 = 1;
/// Longest sentence of a refusal that is shown, in characters.
const MAX_MESSAGE: usize = 500;

/// A node asks to be enrolled.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct EnrolRequest {
    version: u8,
    /// Hex
    token: String,
    pub(super) node: NodeId,
    /// Base64 of PKCS #10 in DER; proves that the node has the key
    csr: String,
    nonce: String,
    pub(super) clock_ms: i64,
    mac: String,
}

/// A node asks for a new certificate over a connection that tells who it is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct RenewRequest {
    version: u8,
    csr: String,
}

/// The answer to either.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Answer {
    Granted(Granted),
    Refused(Refusal),
}

/// The certificate that was asked for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Granted {
    certificate: String,
    authorities: Vec<String>,
    pub(super) clock_ms: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mac: Option<String>,
}

/// Why there is none.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Refusal {
    pub(super) reason: RefusalReason,
    message: String,
    pub(super) clock_ms: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mac: Option<String>,
}

/// One word for why a node was not enrolled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum RefusalReason {
    UnknownToken,
    TokenExpired,
    TokenUsed,
    WrongNode,
    IdTaken,
    Malformed,
    ClockSkew,
    Busy,
    /// A renewal came too early; the certificate that the node has is good.
    NotDue,
    /// The certificate to be renewed has ended.
    Expired,
    Unavailable,
    #[serde(other)]
    Other,
}

impl RefusalReason {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::UnknownToken => "unknown_token",
            Self::TokenExpired => "token_expired",
            Self::TokenUsed => "token_used",
            Self::WrongNode => "wrong_node",
            Self::IdTaken => "id_taken",
            Self::Malformed => "malformed",
            Self::ClockSkew => "clock_skew",
            Self::Busy => "busy",
            Self::NotDue => "not_due",
            Self::Expired => "expired",
            Self::Unavailable => "unavailable",
            Self::Other => "other",
        }
    }
}

impl EnrolRequest {
    pub(super) fn new(
        token: TokenId,
        secret: &Secret,
        node: &NodeId,
        key: &KeyPair,
        now: Timestamp,
    ) -> Result<Self, IdentityError> {
        let mut request = Self {
            version: VERSION,
            token: token.to_string(),
            node: node.clone(),
            csr: signing_request(key)?,
            nonce: BASE64.encode(&random::<16>()?),
            clock_ms: now.as_millisecond(),
            mac: String::new(),
        };
        request.mac = BASE64.encode(hmac::sign(&mac_key(secret), &request.covered()).as_ref());
        Ok(request)
    }

    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let request: Self = parse(bytes)?;
        if request.version == VERSION { Ok(request) } else { Err(other_version(request.version)) }
    }

    pub(super) fn token(&self) -> Option<TokenId> {
        self.token.parse().ok()
    }

    pub(super) fn csr(&self) -> Option<Vec<u8>> {
        BASE64.decode(self.csr.as_bytes()).ok()
    }

    /// Whether its sender knows the secret.
    pub(super) fn is_authentic(&self, secret: &Secret) -> bool {
        verify(secret, &self.covered(), Some(&self.mac))
    }

    fn covered(&self) -> Vec<u8> {
        let clock = self.clock_ms.to_be_bytes();
        let parts = [
            self.token.as_bytes(),
            self.node.as_str().as_bytes(),
            self.csr.as_bytes(),
            self.nonce.as_bytes(),
            &clock,
        ];
        encode("ffmesh enrol request 1", &parts)
    }
}

impl RenewRequest {
    pub(super) fn new(key: &KeyPair) -> Result<Self, IdentityError> {
        Ok(Self { version: VERSION, csr: signing_request(key)? })
    }

    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let request: Self = parse(bytes)?;
        if request.version == VERSION { Ok(request) } else { Err(other_version(request.version)) }
    }

    pub(super) fn csr(&self) -> Option<Vec<u8>> {
        BASE64.decode(self.csr.as_bytes()).ok()
    }
}

impl Answer {
    pub(super) fn granted(
        certificate: &CertificateDer<'_>,
        authorities: &[CertificateDer<'_>],
        now: Timestamp,
    ) -> Self {
        Self::Granted(Granted {
            certificate: BASE64.encode(certificate),
            authorities: authorities.iter().map(|ca| BASE64.encode(ca)).collect(),
            clock_ms: now.as_millisecond(),
            mac: None,
        })
    }

    pub(super) fn refused(reason: RefusalReason, message: impl Into<String>, now: Timestamp) -> Self {
        Self::Refused(Refusal { reason, message: message.into(), clock_ms: now.as_millisecond(), mac: None })
    }

    /// Signs the answer to `request` with the token's secret.
    pub(super) fn sign(&mut self, secret: &Secret, request: &EnrolRequest) {
        let tag = BASE64.encode(hmac::sign(&mac_key(secret), &self.covered(request)).as_ref());
        *self.mac() = Some(tag);
    }

    /// Whether it is the issuer's answer to this very request.
    pub(super) fn is_authentic(&self, secret: &Secret, request: &EnrolRequest) -> bool {
        let mac = match self {
            Self::Granted(granted) => &granted.mac,
            Self::Refused(refusal) => &refusal.mac,
        };
        verify(secret, &self.covered(request), mac.as_deref())
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        // Structures of strings and numbers always serialize.
        serde_json::to_vec(self).unwrap_or_default()
    }

    pub(super) fn parse(bytes: &[u8]) -> Result<Self, IdentityError> {
        parse(bytes).map_err(IdentityError::Answer)
    }

    fn mac(&mut self) -> &mut Option<String> {
        match self {
            Self::Granted(granted) => &mut granted.mac,
            Self::Refused(refusal) => &mut refusal.mac,
        }
    }

    fn covered(&self, request: &EnrolRequest) -> Vec<u8> {
        match self {
            Self::Granted(granted) => {
                let clock = granted.clock_ms.to_be_bytes();
                let mut parts = vec![
                    request.mac.as_bytes(),
                    request.nonce.as_bytes(),
                    &clock,
                    granted.certificate.as_bytes(),
                ];
                parts.extend(granted.authorities.iter().map(String::as_bytes));
                encode("ffmesh enrol granted 1", &parts)
            }
            Self::Refused(refusal) => {
                let clock = refusal.clock_ms.to_be_bytes();
                let reason = refusal.reason.word().as_bytes();
                let parts = [
                    request.mac.as_bytes(),
                    request.nonce.as_bytes(),
                    &clock,
                    reason,
                    refusal.message.as_bytes(),
                ];
                encode("ffmesh enrol refused 1", &parts)
            }
        }
    }
}

impl Granted {
    /// The certificate and the CAs in DER, at most [`MAX_AUTHORITIES`] of them.
    pub(super) fn certificates(
        &self,
    ) -> Result<(CertificateDer<'static>, Vec<CertificateDer<'static>>), IdentityError> {
        let decode = |text: &String| {
            let der = BASE64.decode(text.as_bytes());
            der.map(CertificateDer::from)
                .map_err(|_| IdentityError::Answer("a certificate is not in base64".to_owned()))
        };
        if self.authorities.len() > MAX_AUTHORITIES {
            return Err(IdentityError::Answer("it has too many authorities".to_owned()));
        }
        Ok((decode(&self.certificate)?, self.authorities.iter().map(decode).collect::<Result<_, _>>()?))
    }
}

impl Refusal {
    /// The sentence, fit to be shown: escaped and not endless.
    pub(super) fn message(&self) -> String {
        foreign_within(&self.message, MAX_MESSAGE)
    }
}

/// The refusal that a node answers to a join request when it can reach no issuer. The joining node then tries the
/// token's other addresses.
pub fn unavailable() -> Vec<u8> {
    let message =
        "this node can reach no issuer of the mesh now: try again later, or join through the issuer itself";
    Answer::refused(RefusalReason::Unavailable, message, Timestamp::now()).to_bytes()
}

/// How much one clock differs from another, for messages: `2h 5m`.
pub(super) fn skew_text(skew: Duration) -> String {
    let seconds = skew.as_secs();
    match (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0, s) => format!("{s}s"),
        (0, 0, m, s) => format!("{m}m {s}s"),
        (0, h, m, _) => format!("{h}h {m}m"),
        (d, h, _, _) => format!("{d}d {h}h"),
    }
}

fn signing_request(key: &KeyPair) -> Result<String, IdentityError> {
    let request = CertificateParams::default().serialize_request(key);
    let request = request.map_err(IdentityError::crypto("make a certificate signing request"))?;
    Ok(BASE64.encode(request.der()))
}

fn parse<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, String> {
    if bytes.len() > MAX_ENROL_LEN {
        return Err(format!("the message has {} bytes, more than {MAX_ENROL_LEN}", bytes.len()));
    }
    serde_json::from_slice(bytes).map_err(|e| format!("the message cannot be read: {}", foreign(e)))
}

fn other_version(version: u8) -> String {
    format!("the message is of version {version}, and this node speaks {VERSION}: update the older node")
}

fn mac_key(secret: &Secret) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, &secret.0)
}

fn verify(secret: &Secret, covered: &[u8], mac: Option<&str>) -> bool {
    let mac = mac.and_then(|mac| BASE64.decode(mac.as_bytes()).ok());
    mac.is_some_and(|mac| hmac::verify(&mac_key(secret), covered, &mac).is_ok())
}

/// What a MAC covers: each part with its length, so that no two lists of parts look alike.
fn encode(domain: &str, parts: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    for part in std::iter::once(&domain.as_bytes()).chain(parts) {
        out.extend((part.len() as u64).to_be_bytes());
        out.extend(*part);
    }
    out
}
