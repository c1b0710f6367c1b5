//! The issuer: answers join and renewal requests with certificates.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ffmesh_core::id::{MeshName, NodeId};
use jiff::Timestamp;
use rcgen::CertificateSigningRequestParams;
use rcgen::{PublicKey, PublicKeyData};
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use super::authority::Authority;
use super::certificate::{CLOCK_TOLERANCE, Grant, KeyHash, MAX_REPLACED, PeerIdentity};
use super::credentials::Credentials;
use super::enrol::{Answer, EnrolRequest, MAX_CLOCK_SKEW, RefusalReason, RenewRequest, skew_text};
use super::error::IdentityError;
use super::token::TokenId;
use super::token_store::{self, MAX_TOKENS, StoredToken, Use};
use crate::repeats::Repeats;
use crate::state::StateDir;

/// Most nodes that an issuer remembers.
pub const MAX_NODES: usize = 100_000;
/// Requests by token holders that are answered per second in the long run, so that a flood of them cannot keep the
/// disk busy ...
const REQUESTS_PER_SECOND: f64 = 50.0;
/// ... and at once.
const REQUEST_BURST: f64 = 200.0;
/// Of these, requests with one token: per second in the long run ...
const TOKEN_REQUESTS_PER_SECOND: f64 = 1.0;
/// ... and at once, beside the uses that the token has left: many nodes may join with one token in one go.
const TOKEN_BURST: f64 = 5.0;
/// A node's certificate is renewed once in this time, or in this part of its life where that is shorter.
const RENEWAL_INTERVAL: Duration = Duration::from_mins(1);
const RENEWAL_PART: u32 = 20;
/// The percentage of its life from which on a certificate is renewed. Nodes ask from half of it on.
const RENEWAL_DUE: u32 = 40;
/// Requests that are worked on at once: each writes files and waits for the disk, which gains nothing from more.
const MAX_AT_WORK: usize = 2;
/// How long a request waits for its turn.
const TURN_TIMEOUT: Duration = Duration::from_secs(2);
pub(super) const DIR: &str = "issued";

/// Enrols nodes and renews their certificates. It reads and writes files: in an async task, use
/// [`Issuer::answer_enrol`], [`Issuer::answer_renew`] and [`Issuer::renew_own`], which block no thread of the runtime;
/// the others block for a few milliseconds.
///
/// One process at a time may have an issuer of a state directory: [`StateDir::lock`].
pub struct Issuer {
    state: StateDir,
    authority: Authority,
    /// Held for all of a request that may change something, so that a token is not used twice by two nodes at once.
    ledger: Mutex<Ledger>,
    turns: Arc<Semaphore>,
    repeats: Repeats,
}

struct Ledger {
    nodes: usize,
    all: Allowance,
    /// Of tokens that were used lately; at most [`MAX_TOKENS`].
    tokens: HashMap<TokenId, Allowance>,
    /// When nodes were last renewed, lately; at most [`MAX_NODES`].
    renewed: HashMap<NodeId, Instant>,
}

/// A token bucket.
#[derive(Debug, Clone, Copy)]
struct Allowance {
    left: f64,
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
        let ledger = Mutex::new(Ledger {
            nodes,
            all: Allowance::new(REQUEST_BURST, Instant::now()),
            tokens: HashMap::new(),
            renewed: HashMap::new(),
        });
        let turns = Arc::new(Semaphore::new(MAX_AT_WORK));
        Ok(Some(Self { state: state.clone(), authority, ledger, turns, repeats: Repeats::default() }))
    }

    /// The mesh that it enrols into.
    pub fn mesh(&self) -> &MeshName {
        &self.authority.mesh
    }

    /// SHA-256 of the authority's public key.
    pub fn fingerprint(&self) -> KeyHash {
        self.authority.fingerprint()
    }

    /// [`Issuer::enrol`] for async tasks: on another thread, and when its turn comes; busy where that takes 2 s.
    pub async fn answer_enrol(self: Arc<Self>, request: Vec<u8>) -> Vec<u8> {
        self.answer(move |issuer| issuer.enrol(&request)).await
    }

    /// [`Issuer::renew`] for async tasks, as [`Issuer::answer_enrol`].
    pub async fn answer_renew(self: Arc<Self>, request: Vec<u8>, peer: PeerIdentity) -> Vec<u8> {
        self.answer(move |issuer| issuer.renew(&request, &peer)).await
    }

    /// [`Issuer::renew_self`] for async tasks, on another thread.
    pub async fn renew_own(
        self: Arc<Self>,
        credentials: Arc<Credentials>,
    ) -> Result<Timestamp, IdentityError> {
        let renewed = tokio::task::spawn_blocking(move || self.renew_self(&credentials)).await;
        renewed.unwrap_or_else(|e| Err(IdentityError::Answer(e.to_string())))
    }

    async fn answer(self: Arc<Self>, work: impl FnOnce(&Self) -> Vec<u8> + Send + 'static) -> Vec<u8> {
        let turn = self.turns.clone().acquire_owned();
        let Ok(Ok(turn)) = tokio::time::timeout(TURN_TIMEOUT, turn).await else {
            return busy(Timestamp::now());
        };
        let done = tokio::task::spawn_blocking(move || {
            // Held by the thread, as that goes on when nobody waits for it any more.
            let _turn = turn;
            work(&self)
        });
        match done.await {
            Ok(answer) => answer,
            Err(error) => {
                tracing::error!(%error, "the issuer failed");
                busy(Timestamp::now())
            }
        }
    }

    /// Answers a join request. Takes and returns messages without their length, so that any node can pass them on.
    pub fn enrol(&self, request: &[u8]) -> Vec<u8> {
        self.enrol_at(request, Timestamp::now())
    }

    /// Answers the renewal request of a node that TLS has authenticated as `peer`. Refused as not due before 40 % of
    /// the life of the presented certificate has passed, unless the new one would say something else, and more often
    /// than once a minute (or a twentieth of the life).
    ///
    /// The new certificate has the groups and capabilities that the issuer has on record; those of the presented
    /// certificate where it has none, because another issuer enrolled the node.
    pub fn renew(&self, request: &[u8], peer: &PeerIdentity) -> Vec<u8> {
        self.renew_at(request, peer, (Timestamp::now(), Instant::now()), false)
    }

    /// Renews the certificate of the issuer itself, at any time and even after its end.
    pub fn renew_self(&self, credentials: &Credentials) -> Result<Timestamp, IdentityError> {
        let (request, peer) = (credentials.renewal_request()?, credentials.identity());
        credentials.install(&self.renew_at(&request, &peer, (Timestamp::now(), Instant::now()), true))
    }

    pub(super) fn renew_at(
        &self,
        request: &[u8],
        peer: &PeerIdentity,
        (now, instant): (Timestamp, Instant),
        own: bool,
    ) -> Vec<u8> {
        let mut ledger = self.ledger();
        let renewed = self.renewed(&mut ledger, request, peer, (now, instant), own);
        match renewed {
            Ok(certificate) => self.granted(&certificate, now),
            Err((reason, message)) => Answer::refused(reason, message, now),
        }
        .to_bytes()
    }

    pub(super) fn enrol_at(&self, bytes: &[u8], now: Timestamp) -> Vec<u8> {
        let refused = |reason, message: &str| Answer::refused(reason, message, now).to_bytes();
        let request = match EnrolRequest::parse(bytes) {
            Ok(request) => request,
            Err(why) => return refused(RefusalReason::Malformed, &why),
        };
        let unknown = "the issuer does not know this token: it was removed, is long expired, or was made by another \
                       issuer; make a new one with `ffmesh token create`";
        let load = |id| {
            token_store::load(&self.state, id).unwrap_or_else(|error| {
                tracing::warn!(%error, token = %id, "token cannot be read");
                None
            })
        };
        let stored = request.token().and_then(|id| Some((id, load(id)?.secret()?)));
        // The same words for a wrong secret as for an unknown token: there is nothing to learn by guessing.
        let Some((id, secret)) = stored.filter(|(_, secret)| request.is_authentic(secret)) else {
            return refused(RefusalReason::UnknownToken, unknown);
        };
        // Only now: strangers hold up nobody and use up nothing of what is there for token holders.
        let mut ledger = self.ledger();
        // Again, as another request may have used it since.
        let Some(mut token) = load(id) else { return refused(RefusalReason::UnknownToken, unknown) };
        let outcome = self.enrolled(&mut ledger, &request, id, &mut token, now);
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
                // A token's holder cannot fill the log.
                if self.repeats.is_news((id.to_string(), reason.word())) {
                    tracing::warn!(node = %request.node, token = %id, reason = reason.word(), "join refused: {message}");
                }
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
        id: TokenId,
        token: &mut StoredToken,
        now: Timestamp,
    ) -> Result<(CertificateDer<'static>, bool), Refused> {
        let node = &request.node;
        let used_up = || {
            let times = if token.uses == 1 { "once".to_owned() } else { format!("{} times", token.uses) };
            let message = format!(
                "the token could be used {times} and has been: make a new one with `ffmesh token create`"
            );
            (RefusalReason::TokenUsed, message)
        };
        // First what costs nothing, so that a token without worth takes nothing from the others ...
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
        if token.used_up() && token.used.iter().all(|used| used.node != *node) {
            return Err(used_up());
        }
        // ... then what one token may cost, and all of them.
        let left = usize::try_from(token.uses).unwrap_or(usize::MAX).saturating_sub(token.used.len());
        if !ledger.take(id, left, Instant::now()) {
            return Err((RefusalReason::Busy, BUSY.to_owned()));
        }
        let key = public_key(request.csr())?;
        let this = Use { node: node.clone(), key: key_hash(&key) };
        // Whoever asks again with the same key has lost the answer.
        let again = token.used.contains(&this);
        if !again && token.used_up() {
            return Err(used_up());
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
        (now, instant): (Timestamp, Instant),
        own: bool,
    ) -> Result<CertificateDer<'static>, Refused> {
        let request = RenewRequest::parse(request).map_err(|why| (RefusalReason::Malformed, why))?;
        if peer.mesh != self.authority.mesh {
            let message = format!("this issuer is of the mesh {}", self.authority.mesh);
            return Err((RefusalReason::Other, message));
        }
        if !own {
            ledger.check_pace(peer, now, instant)?;
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
        if !own {
            let due = peer.issued.checked_add(life(peer) / 100 * RENEWAL_DUE).unwrap_or(peer.issued);
            if now < due && grant.is_of(peer) {
                let message = format!(
                    "it is renewed from {} on, when {RENEWAL_DUE} % of its life have passed",
                    due.strftime("%Y-%m-%dT%H:%M:%SZ")
                );
                return Err((RefusalReason::NotDue, message));
            }
            ledger.renewed.insert(peer.id.clone(), instant);
        }
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
    /// Whether a request with a token that has so many uses left is within the limits.
    fn take(&mut self, token: TokenId, uses: usize, now: Instant) -> bool {
        if self.tokens.len() >= MAX_TOKENS && !self.tokens.contains_key(&token) {
            self.tokens.retain(|_, allowance| !allowance.is_full(now));
            if self.tokens.len() >= MAX_TOKENS {
                return false;
            }
        }
        let uses = u32::try_from(uses).map_or(f64::MAX, f64::from);
        let of_token = self.tokens.entry(token).or_insert_with(|| Allowance::new(TOKEN_BURST.max(uses), now));
        of_token.take(TOKEN_REQUESTS_PER_SECOND, TOKEN_BURST, now)
            && self.all.take(REQUESTS_PER_SECOND, REQUEST_BURST, now)
    }

    /// Refuses the renewal of a certificate that has ended, and one that comes too soon after the last.
    fn check_pace(&mut self, peer: &PeerIdentity, now: Timestamp, instant: Instant) -> Result<(), Refused> {
        // A session outlives the certificate that it began with.
        if peer.expires <= now {
            let message = format!(
                "the presented certificate ended at {}: connect with the present one, or join again with a token for \
                 the node",
                peer.expires.strftime("%Y-%m-%dT%H:%M:%SZ")
            );
            return Err((RefusalReason::Expired, message));
        }
        let interval = RENEWAL_INTERVAL.min(life(peer) / RENEWAL_PART);
        let since = |last: &Instant| instant.saturating_duration_since(*last);
        if self.renewed.get(&peer.id).is_some_and(|last| since(last) < interval) {
            let message = format!("it was renewed less than {} s ago", interval.as_secs() + 1);
            return Err((RefusalReason::NotDue, message));
        }
        if self.renewed.len() >= MAX_NODES {
            self.renewed.retain(|_, last| since(last) < RENEWAL_INTERVAL);
            if self.renewed.len() >= MAX_NODES {
                return Err((RefusalReason::Busy, BUSY.to_owned()));
            }
        }
        Ok(())
    }
}

impl Allowance {
    fn new(left: f64, now: Instant) -> Self {
        Self { left, refilled: now }
    }

    /// Takes one; refills up to `burst`.
    fn take(&mut self, rate: f64, burst: f64, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.refilled).as_secs_f64();
        self.refilled = now;
        self.left = self.left.max((self.left + passed * rate).min(burst));
        let has = self.left >= 1.0;
        if has {
            self.left -= 1.0;
        }
        has
    }

    /// Whether forgetting a token's allowance gives nothing away.
    fn is_full(&self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.refilled).as_secs_f64();
        self.left + passed * TOKEN_REQUESTS_PER_SECOND >= TOKEN_BURST
    }
}

fn life(peer: &PeerIdentity) -> Duration {
    Duration::try_from(peer.expires.duration_since(peer.issued)).unwrap_or_default()
}

const BUSY: &str = "the issuer has too many requests: try again in a minute";

fn busy(now: Timestamp) -> Vec<u8> {
    Answer::refused(RefusalReason::Busy, BUSY, now).to_bytes()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_tokens_together_are_bounded_per_second() {
        let start = Instant::now();
        let mut ledger = Ledger {
            nodes: 0,
            all: Allowance::new(REQUEST_BURST, start),
            tokens: HashMap::new(),
            renewed: HashMap::new(),
        };
        let mut taken = |ms: u64, n: u64| {
            let id = TokenId(n.to_be_bytes());
            (0..1_000).filter(|_| ledger.take(id, 10_000, start + Duration::from_millis(ms))).count()
        };
        assert_eq!(taken(0, 1), 200);
        assert_eq!(taken(0, 2), 0);
        assert_eq!(taken(2_000, 3), 100);
        // Tokens that are not used any more are forgotten.
        for n in 0..2_000 {
            taken(60_000, 10 + n);
        }
        assert!(ledger.tokens.len() <= MAX_TOKENS);
    }
}
