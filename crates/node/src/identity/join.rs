//! `ffmesh join`: enrols this node with a token.
//!
//! All addresses of the token are dialled at once; the first that answers is asked. What it presents is checked
//! against the fingerprint in the token, so that nobody between can answer instead.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ffmesh_core::id::{MeshName, NodeId};
use ffmesh_core::target::Host;
use ffmesh_core::text::foreign;
use jiff::Timestamp;
use rcgen::{KeyPair, PublicKeyData};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, SignatureScheme};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::authority::{key_from_pem, new_key};
use super::certificate::{KeyHash, PeerIdentity, to_pem};
use super::client_socket::client_endpoint;
use super::credentials::{AUTHORITIES_FILE, CERTIFICATE_FILE, KEY_FILE, check_issued, roots, tls_provider};
use super::enrol::{
    Answer, EnrolRequest, JOIN_ALPN, MAX_CLOCK_SKEW, MAX_ENROL_LEN, RefusalReason, skew_text,
};
use super::error::IdentityError;
use super::explain::{Expected, explain_connection_error};
use super::found::{random_node_id, refuse_existing};
use super::token::{JoinToken, address_text};
use crate::config::Address;
use crate::state::StateDir;

/// All of joining.
pub const JOIN_TIMEOUT: Duration = Duration::from_secs(20);
/// One handshake, and one look-up of a name.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Request and answer, once there is a connection; a forwarding node may have to find an issuer.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(10);
/// Most socket addresses that are dialled; names may resolve to several.
const MAX_ATTEMPTS: usize = 16;
/// The id that was made up for this node, until it has a certificate that says so.
const ID_FILE: &str = "node.id";

/// What `ffmesh join` is asked for.
#[derive(Debug, Clone)]
pub struct JoinOptions {
    /// Where the credentials go.
    pub state: StateDir,
    /// The node's id; 10 random hex digits without one.
    pub node_id: Option<NodeId>,
}

/// What `ffmesh join` got.
#[derive(Debug, Clone)]
pub struct Joined {
    /// This node
    pub node_id: NodeId,
    /// The mesh
    pub mesh: MeshName,
    /// The nodes of the token and where they are, for `quic.upstreams`; the one that answered comes first.
    pub upstreams: Vec<(NodeId, Address)>,
    /// Groups that the certificate names
    pub groups: Vec<String>,
    /// End of this node's certificate
    pub expires: Timestamp,
    /// By how much this machine's clock differs from the issuer's (`7m 3s behind`), where that is more than 5
    /// minutes and so worth a warning
    pub clock_skew: Option<String>,
}

/// Enrols this node with a token. Over an existing identity: an error, nothing changed.
///
/// It can be repeated: a first attempt whose answer was lost is recognised by its key, which stays in the state
/// directory, and costs no second use of the token. Takes at most 20 s.
///
/// # Errors
/// [`IdentityError::Refused`] is the issuer's word and final; [`IdentityError::Unreachable`] lists why each address
/// failed.
pub async fn join(token: &str, options: &JoinOptions) -> Result<Joined, IdentityError> {
    let token: JoinToken = token.parse()?;
    let state = &options.state;
    refuse_existing(state)?;
    let _lock = state.lock()?;
    refuse_existing(state)?;

    let applicant =
        Applicant { node: node_id(state, options.node_id.as_ref())?, key: node_key(state)?, token };
    let (reached, welcome) = applicant.enrol().await?;

    // Of a mesh that this directory was in before.
    state.remove(super::pins::FILE)?;
    state.write(AUTHORITIES_FILE, to_pem(&welcome.authorities).as_bytes())?;
    state.write(CERTIFICATE_FILE, to_pem([&welcome.certificate]).as_bytes())?;
    state.remove(ID_FILE)?;
    // The one that answered comes first, under the name that it proved.
    let others = applicant.token.addresses().filter(|(_, address)| **address != reached.1);
    let others: Vec<_> = others.map(|(node, address)| (node.clone(), address.clone())).collect();
    let upstreams = std::iter::once(reached).chain(others).collect();
    Ok(Joined {
        node_id: welcome.identity.id,
        mesh: welcome.identity.mesh,
        upstreams,
        groups: welcome.identity.groups,
        expires: welcome.identity.expires,
        clock_skew: welcome.clock_skew,
    })
}

/// The node that wants to join.
struct Applicant {
    token: JoinToken,
    node: NodeId,
    key: KeyPair,
}

/// What an issuer granted, checked.
struct Welcome {
    certificate: CertificateDer<'static>,
    authorities: Vec<CertificateDer<'static>>,
    identity: PeerIdentity,
    clock_skew: Option<String>,
}

/// Why one address led to nothing.
enum Failure {
    /// Another one may do better.
    Retry(String),
    /// The issuer's word, or a problem of this machine.
    Final(IdentityError),
}

type Candidate = (NodeId, Address);

impl Applicant {
    async fn enrol(&self) -> Result<(Candidate, Welcome), IdentityError> {
        let mut report = String::new();
        let mut waiting: Vec<(Candidate, SocketAddr)> = Vec::new();
        let attempt = self.attempt(&mut report, &mut waiting);
        if let Ok(outcome) = timeout(JOIN_TIMEOUT, attempt).await {
            return outcome;
        }
        for ((node, address), socket) in waiting {
            let _ = write!(report, "\n  {}: no answer in time", place(&node, &address, socket));
        }
        Err(IdentityError::Unreachable { report })
    }

    async fn attempt(
        &self,
        report: &mut String,
        waiting: &mut Vec<(Candidate, SocketAddr)>,
    ) -> Result<(Candidate, Welcome), IdentityError> {
        *waiting = self.resolve(report).await;
        let config = join_client_config(self.token.authority, self.token.mesh.clone())?;
        let mut dials = JoinSet::new();
        for ((node, address), socket) in waiting.iter().cloned() {
            let (config, mesh) = (config.clone(), self.token.mesh.clone());
            dials.spawn(async move {
                let dialled = dial(config, socket, &mesh, &node).await;
                ((node, address), socket, dialled)
            });
        }
        let mut refusal = None;
        while let Some(dialled) = dials.join_next().await {
            // Dials do not panic, and nobody aborts them before the end.
            let Ok((mut candidate, socket, dialled)) = dialled else { continue };
            waiting.retain(|(_, other)| *other != socket);
            let outcome = match dialled {
                Ok(Dialled { endpoint, connection, node }) => {
                    candidate.0 = node;
                    match timeout(EXCHANGE_TIMEOUT, self.exchange(&connection)).await {
                        Ok(outcome) => {
                            connection.close(0_u32.into(), b"");
                            // So that the close leaves before the process does.
                            let _ = timeout(Duration::from_millis(200), endpoint.wait_idle()).await;
                            outcome
                        }
                        Err(_) => Err(Failure::Retry("connected, but got no answer in 10 s".to_owned())),
                    }
                }
                Err(why) => Err(Failure::Retry(why)),
            };
            match outcome {
                Ok(welcome) => return Ok((candidate, welcome)),
                Err(Failure::Final(e @ IdentityError::Refused { .. }))
                    if !waiting.is_empty() && is_soft(&e) =>
                {
                    refusal = Some(e);
                }
                Err(Failure::Final(e)) => return Err(e),
                Err(Failure::Retry(why)) => {
                    let _ = write!(report, "\n  {}: {why}", place(&candidate.0, &candidate.1, socket));
                }
            }
        }
        Err(refusal.unwrap_or(IdentityError::Unreachable { report: std::mem::take(report) }))
    }

    /// The socket addresses to dial; names that lead nowhere go into the report.
    async fn resolve(&self, report: &mut String) -> Vec<(Candidate, SocketAddr)> {
        let mut lookups = JoinSet::new();
        for (order, (node, address)) in self.token.addresses().enumerate() {
            let (node, address) = (node.clone(), address.clone());
            lookups.spawn(async move {
                let sockets = match &address.host {
                    Host::Ip(ip) => Ok(vec![SocketAddr::new(*ip, address.port)]),
                    Host::Name(name) => {
                        let lookup = tokio::net::lookup_host((name.as_str(), address.port));
                        match timeout(HANDSHAKE_TIMEOUT, lookup).await {
                            Ok(Ok(sockets)) => Ok(sockets.collect()),
                            Ok(Err(e)) => Err(format!("the name cannot be resolved: {e}")),
                            Err(_) => Err("the name was not resolved in 5 s".to_owned()),
                        }
                    }
                };
                (order, (node, address), sockets)
            });
        }
        let mut found = lookups.join_all().await;
        found.sort_by_key(|(order, ..)| *order);
        let mut sockets: Vec<(Candidate, SocketAddr)> = Vec::new();
        for (_, candidate, resolved) in found {
            match resolved {
                Ok(resolved) => {
                    for socket in resolved {
                        let known = sockets.iter().any(|(_, other)| *other == socket);
                        if !known && sockets.len() < MAX_ATTEMPTS {
                            sockets.push((candidate.clone(), socket));
                        }
                    }
                }
                Err(why) => {
                    let _ = write!(report, "\n  {} at {}: {why}", candidate.0, address_text(&candidate.1));
                }
            }
        }
        sockets
    }

    async fn exchange(&self, connection: &noq::Connection) -> Result<Welcome, Failure> {
        // The errors carry the peer's words.
        let retry =
            |e: &dyn std::fmt::Display| Failure::Retry(format!("connected, then failed: {}", foreign(e)));
        let JoinToken { id, secret, .. } = &self.token;
        let request = EnrolRequest::new(*id, secret, &self.node, &self.key, Timestamp::now());
        let request = request.map_err(Failure::Final)?;
        let json =
            serde_json::to_vec(&request).map_err(|e| Failure::Final(IdentityError::Answer(e.to_string())))?;
        let (mut send, mut receive) = connection.open_bi().await.map_err(|e| retry(&e))?;
        let len = u32::try_from(json.len()).unwrap_or(u32::MAX).to_be_bytes();
        send.write_all(&len).await.map_err(|e| retry(&e))?;
        send.write_all(&json).await.map_err(|e| retry(&e))?;
        send.finish().map_err(|e| retry(&e))?;
        let mut len = [0; 4];
        receive.read_exact(&mut len).await.map_err(|e| retry(&e))?;
        let len = usize::try_from(u32::from_be_bytes(len)).unwrap_or(usize::MAX);
        if len > MAX_ENROL_LEN {
            return Err(retry(&"the answer is too long"));
        }
        let mut bytes = vec![0; len];
        receive.read_exact(&mut bytes).await.map_err(|e| retry(&e))?;
        let answer = Answer::parse(&bytes).map_err(|e| retry(&e))?;
        self.judge(&answer, &request)
    }

    /// What an answer is worth. Only an issuer that knows the token's secret can sign it.
    fn judge(&self, answer: &Answer, request: &EnrolRequest) -> Result<Welcome, Failure> {
        let authentic = answer.is_authentic(&self.token.secret, request);
        let now = Timestamp::now();
        let clock_ms = match answer {
            Answer::Granted(granted) => granted.clock_ms,
            Answer::Refused(refusal) => refusal.clock_ms,
        };
        let theirs = Timestamp::from_millisecond(clock_ms).unwrap_or(now);
        let skew = now.duration_since(theirs).unsigned_abs();
        let direction = if now < theirs { "behind" } else { "ahead of" };
        let clock_error = || IdentityError::ClockSkew { amount: skew_text(skew), direction };
        let granted = match answer {
            Answer::Refused(refusal) if authentic && refusal.reason == RefusalReason::ClockSkew => {
                return Err(Failure::Final(clock_error()));
            }
            Answer::Refused(refusal) => {
                let (reason, message) = (refusal.reason.word().to_owned(), refusal.message());
                let passing = matches!(refusal.reason, RefusalReason::Busy | RefusalReason::Unavailable);
                // An unknown token has no secret to sign with; the sender is a member all the same, TLS says.
                return Err(if passing || !(authentic || refusal.reason == RefusalReason::UnknownToken) {
                    Failure::Retry(format!("answered {reason}: {message}"))
                } else {
                    Failure::Final(IdentityError::Refused { reason, message })
                });
            }
            Answer::Granted(_) if !authentic => {
                return Err(Failure::Retry("answered, but is no issuer that knows this token".to_owned()));
            }
            Answer::Granted(granted) => granted,
        };
        if skew >= MAX_CLOCK_SKEW {
            return Err(Failure::Final(clock_error()));
        }
        let welcome = || {
            let (certificate, authorities) = granted.certificates()?;
            let pinned: Vec<_> = authorities
                .iter()
                .filter(|ca| KeyHash::of_certificate(ca) == Some(self.token.authority))
                .cloned()
                .collect();
            let key = KeyHash::of_spki(&self.key.subject_public_key_info());
            let identity = check_issued(&certificate, &pinned, &self.node, &self.token.mesh, key)?;
            // Authorities that cannot be used would only fail later.
            roots(&authorities).map_err(|e| IdentityError::Answer(e.to_string()))?;
            let warn = skew > super::certificate::CLOCK_TOLERANCE;
            let clock_skew = warn.then(|| format!("{} {direction}", skew_text(skew)));
            Ok(Welcome { certificate, authorities, identity, clock_skew })
        };
        welcome().map_err(Failure::Final)
    }
}

/// Whether another address of the token may still do better: the token may be another issuer's.
fn is_soft(error: &IdentityError) -> bool {
    matches!(error, IdentityError::Refused { reason, .. } if reason == RefusalReason::UnknownToken.word())
}

fn place(node: &NodeId, address: &Address, socket: SocketAddr) -> String {
    let text = address_text(address);
    if text == socket.to_string() {
        format!("{node} at {text}")
    } else {
        format!("{node} at {text} ({socket})")
    }
}

/// A member that was reached, and who it proved to be: an address may lead to another one than the token says, and
/// any member passes the request on.
struct Dialled {
    endpoint: noq::Endpoint,
    connection: noq::Connection,
    node: NodeId,
}

/// Connects from any free port.
async fn dial(
    config: Arc<noq::crypto::rustls::QuicClientConfig>,
    socket: SocketAddr,
    mesh: &MeshName,
    node: &NodeId,
) -> Result<Dialled, String> {
    let local: IpAddr = match socket.ip() {
        IpAddr::V4(ip) if ip.is_loopback() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(ip) if ip.is_loopback() => Ipv6Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let endpoint = client_endpoint(SocketAddr::new(local, 0))
        .map_err(|e| format!("no UDP port could be opened for it: {e}"))?;
    let connecting = endpoint
        .connect_with(noq::ClientConfig::new(config), socket, &node.dns_name(mesh))
        .map_err(|e| format!("it cannot be dialled: {e}"))?;
    match timeout(HANDSHAKE_TIMEOUT, connecting).await {
        Ok(Ok(connection)) => {
            let node = PeerIdentity::of(&connection, mesh).map_err(|e| e.to_string())?.id;
            Ok(Dialled { endpoint, connection, node })
        }
        Ok(Err(e)) => Err(explain_connection_error(&e, &Expected::joining(socket, node))),
        Err(_) => {
            Err(explain_connection_error(&noq::ConnectionError::TimedOut, &Expected::joining(socket, node)))
        }
    }
}

fn join_client_config(
    authority: KeyHash,
    mesh: MeshName,
) -> Result<Arc<noq::crypto::rustls::QuicClientConfig>, IdentityError> {
    let failed = |why: String| IdentityError::Crypto { action: "set up TLS", why };
    let provider = tls_provider();
    let verifier = Arc::new(Fingerprint { authority, mesh, provider: provider.clone() });
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| failed(e.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = vec![JOIN_ALPN.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    let config = noq::crypto::rustls::QuicClientConfig::try_from(config);
    Ok(Arc::new(config.map_err(|e| failed(e.to_string()))?))
}

/// Trusts the one authority whose key has the token's fingerprint, out of those that the server presents; the rest is
/// the stock verifier's work. Which member of the mesh it is does not matter.
#[derive(Debug)]
struct Fingerprint {
    authority: KeyHash,
    mesh: MeshName,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Fingerprint {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let authority = intermediates
            .iter()
            .take(super::enrol::MAX_AUTHORITIES)
            .find(|ca| KeyHash::of_certificate(ca) == Some(self.authority))
            .ok_or(CertificateError::UnknownIssuer)?;
        let member = PeerIdentity::of_certificate(end_entity, &self.mesh)
            .map_err(|e| rustls::Error::General(e.to_string()))?;
        let name = ServerName::try_from(member.id.dns_name(&self.mesh))
            .map_err(|e| rustls::Error::General(e.to_string()))?;
        let roots = Arc::new(roots(std::slice::from_ref(authority))?);
        WebPkiServerVerifier::builder_with_provider(roots, self.provider.clone())
            .build()
            .map_err(|e| rustls::Error::General(e.to_string()))?
            .verify_server_cert(end_entity, &[], &name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 is not spoken".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The configured id, or the one that was made up in an earlier attempt, or a new one.
fn node_id(state: &StateDir, configured: Option<&NodeId>) -> Result<NodeId, IdentityError> {
    if let Some(id) = configured {
        return Ok(id.clone());
    }
    let earlier = state.read(ID_FILE)?.and_then(|bytes| String::from_utf8(bytes).ok()?.trim().parse().ok());
    if let Some(id) = earlier {
        return Ok(id);
    }
    let id = random_node_id()?;
    state.write(ID_FILE, id.as_str().as_bytes())?;
    Ok(id)
}

/// The key of an earlier attempt, or a new one; stored before it is used, so that the next attempt is recognised.
fn node_key(state: &StateDir) -> Result<KeyPair, IdentityError> {
    if let Some(key) = state.read_secret(KEY_FILE)?.and_then(|pem| key_from_pem(&pem)) {
        return Ok(key);
    }
    let key = new_key()?;
    state.write(KEY_FILE, key.serialize_pem().as_bytes())?;
    Ok(key)
}
