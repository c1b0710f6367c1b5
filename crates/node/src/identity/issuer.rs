//! The issuer: answers join and renewal requests with certificates.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ffmesh_core::id::{MeshName, NodeId};
use jiff::Timestamp;
use rcgen::CertificateSigningRequestParams;
use rcgen::{PublicKey, PublicKeyData};
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer};
use serde::{Deserialize, Serialize};

use super::authority::Authority;
use super::certificate::{CLOCK_TOLERANCE, Grant, KeyHash, MAX_REPLACED, PeerIdentity};
use super::credentials::Credentials;
use super::enrol::{Answer, EnrolRequest, MAX_CLOCK_SKEW, RefusalReason, RenewRequest, skew_text};
use super::error::IdentityError;
use super::token_store::{self, StoredToken, Use};
use crate::state::StateDir;

/// Most nodes that an issuer remembers.
pub const MAX_NODES: usize = 100_000;
/// Requests by token holders that are answered per second in the long run, so that a flood of them cannot keep the
/// disk busy ...
const REQUESTS_PER_SECOND: f64 = 50.0;
/// ... and at once.
const REQUEST_BURST: f64 = 200.0;
pub(super) const DIR: &str = "issued";

/// Enrols nodes and renews their certificates. Its calls read and write files and block for a few milliseconds.
///
/// One process at a time may have an issuer of a state directory: [`StateDir::lock`].
pub struct Issuer {
    state: StateDir,
    authority: Authority,
    /// Held for all of a request, so that a token is not used twice by two nodes at once.
    ledger: Mutex<Ledger>,
}

struct Ledger {
    nodes: usize,
    allowance: f64,
    refilled: Instant,
}

/// What the issuer remembers of a node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Binding {
    pub(super) key: KeyHash,
    pub(super) groups: Vec<String>,
    pub(super) relay: bool,
    pub(super) issuer: bool,
    /// Newest first
    #[serde(default)]
    pub(super) replaces: Vec<KeyHash>,
    pub(super) expires: Timestamp,
}

type Refused = (RefusalReason, String);

impl std::fmt::Debug for Issuer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issuer").field("mesh", &self.authority.mesh).finish_non_exhaustive()
    }
}

impl Issuer {
    /// The issuer of this state directory; none where this node is none.
    pub fn load(state: &StateDir) -> Result<Option<Self>, IdentityError> {
        let Some(authority) = Authority::load(state)? else { return Ok(None) };
        let nodes = state.list(DIR)?.len();
        let ledger = Mutex::new(Ledger { nodes, allowance: REQUEST_BURST, refilled: Instant::now() });
        Ok(Some(Self { state: state.clone(), authority, ledger }))
    }

    /// The mesh that it enrols into.
    pub fn mesh(&self) -> &MeshName {
        &self.authority.mesh
    }

    /// SHA-256 of the authority's public key.
    pub fn fingerprint(&self) -> KeyHash {
        self.authority.fingerprint()
    }

    /// Answers a join request. Takes and returns messages without their length, so that any node can pass them on.
    pub fn enrol(&self, request: &[u8]) -> Vec<u8> {
        self.enrol_at(request, Timestamp::now())
    }

    /// Answers the renewal request of a node that TLS has authenticated as `peer`.
    ///
    /// The new certificate has the groups and capabilities that the issuer has on record; those of the presented
    /// certificate where it has none, because another issuer enrolled the node.
    pub fn renew(&self, request: &[u8], peer: &PeerIdentity) -> Vec<u8> {
        let now = Timestamp::now();
        let mut ledger = self.ledger();
        match self.renewed(&mut ledger, request, peer, now) {
            Ok(certificate) => self.granted(&certificate, now),
            Err((reason, message)) => Answer::refused(reason, message, now),
        }
        .to_bytes()
    }

    /// Renews the certificate of the issuer itself.
    pub fn renew_self(&self, credentials: &Credentials) -> Result<Timestamp, IdentityError> {
        let answer = self.renew(&credentials.renewal_request()?, &credentials.identity());
        credentials.install(&answer)
    }

    pub(super) fn enrol_at(&self, bytes: &[u8], now: Timestamp) -> Vec<u8> {
        let refused = |reason, message: &str| Answer::refused(reason, message, now).to_bytes();
        let mut ledger = self.ledger();
        let request = match EnrolRequest::parse(bytes) {
            Ok(request) => request,
            Err(why) => return refused(RefusalReason::Malformed, &why),
        };
        let unknown = "the issuer does not know this token: it was removed, is long expired, or was made by another \
                       issuer; make a new one with `ffmesh token create`";
        let token = request.token().and_then(|id| {
            let stored = token_store::load(&self.state, id).unwrap_or_else(|error| {
                tracing::warn!(%error, token = %id, "token cannot be read");
                None
            })?;
            Some((id, stored.secret()?, stored))
        });
        let Some((id, secret, mut token)) = token else {
            return refused(RefusalReason::UnknownToken, unknown);
        };
        if !request.is_authentic(&secret) {
            // The same words as for an unknown token: there is nothing to learn by guessing.
            return refused(RefusalReason::UnknownToken, unknown);
        }
        // Only now: strangers cost no disk, and must not use up what is there for token holders.
        let outcome = if ledger.take() {
            self.enrolled(&mut ledger, &request, &mut token, now)
        } else {
            let message = "the issuer has too many requests: try again in a minute";
            Err((RefusalReason::Busy, message.to_owned()))
        };
        let mut answer = match outcome {
            Ok((certificate, counted)) => {
                // Counted after all that can fail and before the answer leaves: a crash in between costs nobody a
                // use, and no certificate leaves uncounted.
                let stored = if counted { token_store::store(&self.state, id, &token) } else { Ok(()) };
                match stored {
                    Ok(()) => {
                        tracing::info!(node = %request.node, token = %id, "node enrolled");
                        self.granted(&certificate, now)
                    }
                    Err(error) => {
                        let (reason, message) = internal(&error);
                        Answer::refused(reason, message, now)
                    }
                }
            }
            Err((reason, message)) => {
                tracing::warn!(node = %request.node, token = %id, reason = reason.word(), "join refused: {message}");
                Answer::refused(reason, message, now)
            }
        };
        answer.sign(&secret, &request);
        answer.to_bytes()
    }

    /// Checks a join request and makes the certificate; says whether this is a use of the token that is to be stored.
    fn enrolled(
        &self,
        ledger: &mut Ledger,
        request: &EnrolRequest,
        token: &mut StoredToken,
        now: Timestamp,
    ) -> Result<(CertificateDer<'static>, bool), Refused> {
        let node = &request.node;
        if token.expires <= now {
            let message = format!(
                "the token expired at {}: make a new one with `ffmesh token create`",
                token.expires.strftime("%Y-%m-%dT%H:%M:%SZ")
            );
            return Err((RefusalReason::TokenExpired, message));
        }
        if token.node.as_ref().is_some_and(|named| named != node) {
            let named = token.node.as_ref().map_or("", NodeId::as_str);
            let message = format!("the token is for the node {named} only, and this is {node}");
            return Err((RefusalReason::WrongNode, message));
        }
        let key = public_key(request.csr())?;
        let this = Use { node: node.clone(), key: key_hash(&key) };
        // Whoever asks again with the same key has lost the answer.
        let again = token.used.contains(&this);
        if !again && token.used_up() {
            let times = if token.uses == 1 { "once".to_owned() } else { format!("{} times", token.uses) };
            let message = format!(
                "the token could be used {times} and has been: make a new one with `ffmesh token create`"
            );
            return Err((RefusalReason::TokenUsed, message));
        }
        self.check_clock(request.clock_ms, now)?;

        let known = self.binding(node)?;
        let (mut issuer, mut replaces) = (false, Vec::new());
        if let Some(known) = known {
            if known.key == this.key {
                (issuer, replaces) = (known.issuer, known.replaces);
            } else if token.node.is_some() && !again {
                // Once per use: the replaced key cannot take the id back with the same token.
                replaces = known.replaces;
                replaces.insert(0, known.key);
                replaces.retain(|hash| *hash != this.key);
                replaces.truncate(MAX_REPLACED);
            } else {
                let message = format!(
                    "the id {node} belongs to another key: choose another node_id, or, to replace that node, make a \
                     token with `ffmesh token create --node {node}`"
                );
                return Err((RefusalReason::IdTaken, message));
            }
        }
        let grant =
            Grant { node: node.clone(), groups: token.groups.clone(), relay: token.relay, issuer, replaces };
        let certificate = self.bind(ledger, &grant, &key, now)?;
        if !again {
            token.used.push(this);
        }
        Ok((certificate, !again))
    }

    fn renewed(
        &self,
        ledger: &mut Ledger,
        request: &[u8],
        peer: &PeerIdentity,
        now: Timestamp,
    ) -> Result<CertificateDer<'static>, Refused> {
        let request = RenewRequest::parse(request).map_err(|why| (RefusalReason::Malformed, why))?;
        if peer.mesh != self.authority.mesh {
            let message = format!("this issuer is of the mesh {}", self.authority.mesh);
            return Err((RefusalReason::Other, message));
        }
        let key = public_key(request.csr())?;
        if key_hash(&key) != peer.key {
            let message = "a certificate is renewed for its own key only";
            return Err((RefusalReason::Malformed, message.to_owned()));
        }
        let known = match self.binding(&peer.id)? {
            Some(known) if known.key != peer.key => {
                let message = format!("the id {} belongs to another key by now", peer.id);
                return Err((RefusalReason::IdTaken, message));
            }
            known => known,
        };
        let grant = match known {
            Some(known) => Grant {
                node: peer.id.clone(),
                groups: known.groups,
                relay: known.relay,
                issuer: known.issuer,
                replaces: known.replaces,
            },
            None => Grant {
                node: peer.id.clone(),
                groups: peer.groups.clone(),
                relay: peer.relay,
                issuer: peer.issuer,
                replaces: peer.replaces.clone(),
            },
        };
        self.bind(ledger, &grant, &key, now)
    }

    fn granted(&self, certificate: &CertificateDer<'_>, now: Timestamp) -> Answer {
        Answer::granted(certificate, std::slice::from_ref(self.authority.certificate()), now)
    }

    /// Makes the certificate and remembers whose id it is.
    fn bind(
        &self,
        ledger: &mut Ledger,
        grant: &Grant,
        key: &PublicKey,
        now: Timestamp,
    ) -> Result<CertificateDer<'static>, Refused> {
        let certificate = self.authority.issue(grant, key, now).map_err(|e| internal(&e))?;
        let new = !self.state.has(&file(&grant.node));
        if new && ledger.nodes >= MAX_NODES {
            let message = format!("the issuer knows {MAX_NODES} nodes already, and that is its limit");
            return Err((RefusalReason::Unavailable, message));
        }
        let expires = self.authority.expiry(now);
        record(&self.state, grant, key_hash(key), expires).map_err(|e| internal(&e))?;
        ledger.nodes += usize::from(new);
        Ok(certificate)
    }

    fn binding(&self, node: &NodeId) -> Result<Option<Binding>, Refused> {
        let name = file(node);
        let Some(json) = self.state.read(&name).map_err(|e| internal(&e.into()))? else { return Ok(None) };
        serde_json::from_slice(&json).map(Some).map_err(|e| {
            internal(&IdentityError::Damaged { path: self.state.path().join(name), why: e.to_string() })
        })
    }

    /// A certificate that the node itself takes for not yet valid or expired would be of no use to it.
    fn check_clock(&self, clock_ms: i64, now: Timestamp) -> Result<(), Refused> {
        let theirs = Timestamp::from_millisecond(clock_ms).unwrap_or(Timestamp::MIN);
        let skew = theirs.duration_since(now).unsigned_abs();
        let behind = theirs < now;
        let useless = if behind { skew > CLOCK_TOLERANCE } else { theirs >= self.authority.expiry(now) };
        if skew < MAX_CLOCK_SKEW && !(useless && skew > CLOCK_TOLERANCE) {
            return Ok(());
        }
        let direction = if behind { "behind" } else { "ahead of" };
        let message = format!(
            "the clock of the joining node is {} {direction} that of the issuer: set it (for example with NTP) and \
             join again",
            skew_text(skew)
        );
        Err((RefusalReason::ClockSkew, message))
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        // What it guards is consistent after every statement.
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ledger {
    fn take(&mut self) -> bool {
        let now = Instant::now();
        let passed: Duration = now.duration_since(self.refilled);
        self.refilled = now;
        self.allowance = (self.allowance + passed.as_secs_f64() * REQUESTS_PER_SECOND).min(REQUEST_BURST);
        let has = self.allowance >= 1.0;
        if has {
            self.allowance -= 1.0;
        }
        has
    }
}

/// Remembers whose id it is.
pub(super) fn record(
    state: &StateDir,
    grant: &Grant,
    key: KeyHash,
    expires: Timestamp,
) -> Result<(), IdentityError> {
    let binding = Binding {
        key,
        groups: grant.groups.clone(),
        relay: grant.relay,
        issuer: grant.issuer,
        replaces: grant.replaces.clone(),
        expires,
    };
    let json = serde_json::to_vec(&binding).map_err(|e| IdentityError::Answer(e.to_string()))?;
    Ok(state.write(&file(&grant.node), &json)?)
}

fn file(node: &NodeId) -> String {
    format!("{DIR}/{node}.json")
}

fn public_key(csr: Option<Vec<u8>>) -> Result<PublicKey, Refused> {
    let malformed = |why: &str| (RefusalReason::Malformed, format!("the certificate signing request {why}"));
    let csr = csr.ok_or_else(|| malformed("is not in base64"))?;
    // This verifies its signature: whoever asks has the key.
    let csr = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(csr))
        .map_err(|e| malformed(&format!("cannot be used: {e}")))?;
    let algorithm = csr.public_key.algorithm();
    if *algorithm != rcgen::PKCS_ED25519 && *algorithm != rcgen::PKCS_ECDSA_P256_SHA256 {
        return Err(malformed("has a key that is neither Ed25519 nor ECDSA P-256"));
    }
    Ok(csr.public_key)
}

fn key_hash(key: &PublicKey) -> KeyHash {
    KeyHash::of_spki(&key.subject_public_key_info())
}

/// The peer learns that it failed; the details are the log's.
fn internal(error: &IdentityError) -> Refused {
    tracing::error!(%error, "the issuer failed");
    (
        RefusalReason::Unavailable,
        "the issuer has a problem of its own, which its log names: try again".to_owned(),
    )
}
