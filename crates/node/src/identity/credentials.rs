//! The credentials of this node, and the TLS configurations made of them.

use std::sync::Arc;

use arc_swap::ArcSwap;
use ffmesh_core::id::{MeshName, NodeId};
use jiff::Timestamp;
use rcgen::{KeyPair, PublicKeyData};
use ring::hmac;
use rustls::client::danger::ServerCertVerifier;
use rustls::client::{ResolvesClientCert, Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, ring as provider};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SigningKey};
use rustls::{RootCertStore, SignatureScheme};

use super::authority::key_from_pem;
use super::certificate::{KeyHash, PeerIdentity, to_pem};
use super::enrol::{Answer, JOIN_ALPN, RefusalReason, RenewRequest};
use super::error::IdentityError;
use super::explain::explain_certificate_error;
use super::renewal::Renewal;
use crate::state::StateDir;

pub(super) const KEY_FILE: &str = "node.key";
pub(super) const CERTIFICATE_FILE: &str = "node.crt";
pub(super) const AUTHORITIES_FILE: &str = "ca.crt";

/// This node's key and certificate, loaded. The certificate can be replaced while connections live.
pub struct Credentials {
    state: StateDir,
    key: KeyPair,
    signing_key: Arc<dyn SigningKey>,
    authorities: Vec<CertificateDer<'static>>,
    members: Arc<WebPkiServerVerifier>,
    current: Arc<ArcSwap<Current>>,
    server: rustls::ServerConfig,
    client: rustls::ClientConfig,
    join_server: rustls::ServerConfig,
}

/// The certificate in force.
struct Current {
    identity: PeerIdentity,
    /// The leaf alone: members have the authorities.
    leaf: Arc<CertifiedKey>,
    /// With the authorities, for those who join and know only a fingerprint.
    chain: Arc<CertifiedKey>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("identity", &self.current.load().identity).finish_non_exhaustive()
    }
}

impl Credentials {
    /// The credentials in a state directory. An expired certificate loads: an issuer can still renew its own; see
    /// [`Credentials::check`].
    ///
    /// # Errors
    /// [`IdentityError::NotEnrolled`] where there are none, [`IdentityError::Damaged`] where they do not fit together,
    /// and [`crate::state::StateError::Exposed`] where others can read the key.
    pub fn load(state: &StateDir) -> Result<Self, IdentityError> {
        let damaged = |name: &str, why: String| IdentityError::Damaged { path: state.path().join(name), why };
        let Some(pem) = state.read(CERTIFICATE_FILE)? else {
            return Err(IdentityError::NotEnrolled { path: state.path().to_owned() });
        };
        let leaf = CertificateDer::from_pem_slice(&pem)
            .map_err(|_| damaged(CERTIFICATE_FILE, "it is no certificate in PEM".to_owned()))?;
        let key = state.read_secret(KEY_FILE)?.unwrap_or_default();
        let key = key_from_pem(&key)
            .ok_or_else(|| damaged(KEY_FILE, "it is missing or no private key in PEM".to_owned()))?;
        let authorities = state.read(AUTHORITIES_FILE)?.unwrap_or_default();
        let authorities: Vec<_> = CertificateDer::pem_slice_iter(&authorities)
            .collect::<Result<_, _>>()
            .map_err(|_| damaged(AUTHORITIES_FILE, "it is no list of certificates in PEM".to_owned()))?;
        let identity = PeerIdentity::parse(&leaf).map_err(|e| damaged(CERTIFICATE_FILE, e.to_string()))?;
        if identity.key != KeyHash::of_spki(&key.subject_public_key_info()) {
            return Err(damaged(CERTIFICATE_FILE, "it does not belong to node.key".to_owned()));
        }
        let at = unix_time(identity.issued);
        verify_leaf(&leaf, &authorities, &identity.id.dns_name(&identity.mesh), at)
            .map_err(|why| damaged(CERTIFICATE_FILE, why))?;
        Self::new(state.clone(), key, &leaf, authorities, identity)
    }

    fn new(
        state: StateDir,
        key: KeyPair,
        leaf: &CertificateDer<'static>,
        authorities: Vec<CertificateDer<'static>>,
        identity: PeerIdentity,
    ) -> Result<Self, IdentityError> {
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialized_der().to_vec()));
        let signing_key = provider::sign::any_supported_type(&private).map_err(|e| tls(&e))?;
        let current =
            Arc::new(ArcSwap::from_pointee(Current::new(identity, leaf, &authorities, &signing_key)));
        let roots = Arc::new(roots(&authorities).map_err(|e| tls(&e))?);
        let provider = tls_provider();
        let versions = &[&rustls::version::TLS13];

        let clients = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
            .build()
            .map_err(|e| IdentityError::Crypto { action: "set up TLS", why: e.to_string() })?;
        let mut server = rustls::ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(versions)
            .map_err(|e| tls(&e))?
            .with_client_cert_verifier(clients)
            .with_cert_resolver(Arc::new(Presented { current: current.clone(), chain: false }));
        no_resumption(&mut server);
        let mut join_server = rustls::ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(versions)
            .map_err(|e| tls(&e))?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Presented { current: current.clone(), chain: true }));
        no_resumption(&mut join_server);
        join_server.alpn_protocols = vec![JOIN_ALPN.to_vec()];

        let members = WebPkiServerVerifier::builder_with_provider(roots, provider.clone())
            .build()
            .map_err(|e| IdentityError::Crypto { action: "set up TLS", why: e.to_string() })?;
        let mut client = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .map_err(|e| tls(&e))?
            .with_webpki_verifier(members.clone())
            .with_client_cert_resolver(Arc::new(Presented { current: current.clone(), chain: false }));
        client.resumption = Resumption::disabled();
        Ok(Self { state, key, signing_key, authorities, members, current, server, client, join_server })
    }

    /// This node.
    pub fn node_id(&self) -> NodeId {
        self.current.load().identity.id.clone()
    }

    /// Its mesh.
    pub fn mesh(&self) -> MeshName {
        self.current.load().identity.mesh.clone()
    }

    /// What its certificate says.
    pub fn identity(&self) -> PeerIdentity {
        self.current.load().identity.clone()
    }

    /// Its certificate, in DER.
    pub fn certificate(&self) -> CertificateDer<'static> {
        self.current.load().leaf.cert[0].clone()
    }

    /// End of its certificate.
    pub fn expires(&self) -> Timestamp {
        self.current.load().identity.expires
    }

    /// Whether a node can run on these credentials.
    ///
    /// # Errors
    /// [`IdentityError::OtherNode`] where the configuration names another node, [`IdentityError::Expired`] where the
    /// certificate has ended.
    pub fn check(&self, configured: Option<&NodeId>, now: Timestamp) -> Result<(), IdentityError> {
        let current = self.current.load();
        let identity = &current.identity;
        if let Some(configured) = configured.filter(|id| **id != identity.id) {
            return Err(IdentityError::OtherNode {
                configured: configured.clone(),
                enrolled: identity.id.clone(),
                path: self.state.path().to_owned(),
            });
        }
        if identity.expires <= now {
            return Err(IdentityError::Expired {
                node: identity.id.clone(),
                expires: identity.expires,
                path: self.state.path().join(CERTIFICATE_FILE),
            });
        }
        Ok(())
    }

    /// What checks the certificates of members by the mesh's authorities.
    pub(super) fn members(&self) -> Arc<WebPkiServerVerifier> {
        self.members.clone()
    }

    /// This node's key, for signing.
    pub(super) fn signing_key(&self) -> &dyn SigningKey {
        self.signing_key.as_ref()
    }

    /// For accepting members: mutual TLS with the mesh's authorities only. Certificates follow renewals.
    pub fn server_config(&self, alpn: &[u8]) -> Arc<rustls::ServerConfig> {
        let mut config = self.server.clone();
        config.alpn_protocols = vec![alpn.to_vec()];
        Arc::new(config)
    }

    /// For dialling members, by their DNS name [`NodeId::dns_name`]. Certificates follow renewals.
    pub fn client_config(&self, alpn: &[u8]) -> Arc<rustls::ClientConfig> {
        let mut config = self.client.clone();
        config.alpn_protocols = vec![alpn.to_vec()];
        Arc::new(config)
    }

    /// For accepting those who join: no certificate is asked for, the ALPN is [`JOIN_ALPN`], and the authorities are
    /// presented with the leaf.
    pub fn join_server_config(&self) -> Arc<rustls::ServerConfig> {
        Arc::new(self.join_server.clone())
    }

    /// The key of stateless resets. It follows from the node's key, so that a restarted node can tell its peers at
    /// once that their connections are gone.
    pub fn stateless_reset_key(&self) -> Arc<dyn noq_proto::crypto::HmacKey> {
        let secret = hmac::Key::new(hmac::HMAC_SHA256, self.key.serialized_der());
        let derived = hmac::sign(&secret, b"ffmesh stateless reset 1");
        Arc::new(hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref()))
    }

    /// When the certificate is to be renewed.
    pub fn renewal(&self) -> Renewal {
        let current = self.current.load();
        Renewal { issued: current.identity.issued, expires: current.identity.expires }
    }

    /// A request for a new certificate for the same key; goes to an issuer's [`super::Issuer::renew`].
    pub fn renewal_request(&self) -> Result<Vec<u8>, IdentityError> {
        let request = RenewRequest::new(&self.key)?;
        serde_json::to_vec(&request).map_err(|e| IdentityError::Answer(e.to_string()))
    }

    /// Takes an issuer's answer to a [`Credentials::renewal_request`]: checks the certificate, stores it, and uses it
    /// from the next handshake on. Connections that are open stay. Returns when the new certificate ends.
    ///
    /// # Errors
    /// [`IdentityError::NotDue`] when it came too early, which is harmless; [`IdentityError::Refused`] when the issuer
    /// refused, [`IdentityError::Answer`] when the certificate is not this
    /// node's. The old certificate then stays.
    pub fn install(&self, answer: &[u8]) -> Result<Timestamp, IdentityError> {
        let granted = match Answer::parse(answer)? {
            Answer::Granted(granted) => granted,
            Answer::Refused(refusal) if refusal.reason == RefusalReason::NotDue => {
                return Err(IdentityError::NotDue { message: refusal.message() });
            }
            Answer::Refused(refusal) => {
                let reason = refusal.reason.word().to_owned();
                return Err(IdentityError::Refused { reason, message: refusal.message() });
            }
        };
        let (leaf, _) = granted.certificates()?;
        let ours = self.identity();
        let identity = check_issued(&leaf, &self.authorities, &ours.id, &ours.mesh, ours.key)?;
        let expires = identity.expires;
        self.state.write(CERTIFICATE_FILE, to_pem([&leaf]).as_bytes())?;
        self.current.store(Arc::new(Current::new(identity, &leaf, &self.authorities, &self.signing_key)));
        Ok(expires)
    }
}

impl Current {
    fn new(
        identity: PeerIdentity,
        leaf: &CertificateDer<'static>,
        authorities: &[CertificateDer<'static>],
        key: &Arc<dyn SigningKey>,
    ) -> Self {
        let chain = std::iter::once(leaf).chain(authorities).cloned().collect();
        Self {
            identity,
            leaf: Arc::new(CertifiedKey::new(vec![leaf.clone()], key.clone())),
            chain: Arc::new(CertifiedKey::new(chain, key.clone())),
        }
    }
}

/// Presents the certificate in force.
struct Presented {
    current: Arc<ArcSwap<Current>>,
    chain: bool,
}

impl std::fmt::Debug for Presented {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Presented").field("chain", &self.chain).finish_non_exhaustive()
    }
}

impl Presented {
    fn certificate(&self) -> Arc<CertifiedKey> {
        let current = self.current.load();
        if self.chain { current.chain.clone() } else { current.leaf.clone() }
    }
}

impl ResolvesServerCert for Presented {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.certificate())
    }
}

impl ResolvesClientCert for Presented {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.certificate())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Checks that a certificate is one of this key, node and mesh, signed by one of `authorities` and valid now.
pub(super) fn check_issued(
    leaf: &CertificateDer<'_>,
    authorities: &[CertificateDer<'_>],
    node: &NodeId,
    mesh: &MeshName,
    key: KeyHash,
) -> Result<PeerIdentity, IdentityError> {
    let identity =
        PeerIdentity::of_certificate(leaf, mesh).map_err(|e| IdentityError::Answer(e.to_string()))?;
    if identity.id != *node || identity.key != key {
        return Err(IdentityError::Answer("the certificate is that of another node or key".to_owned()));
    }
    verify_leaf(leaf, authorities, &node.dns_name(mesh), UnixTime::now()).map_err(IdentityError::Answer)?;
    Ok(identity)
}

/// The stock verifier's word on a certificate.
fn verify_leaf(
    leaf: &CertificateDer<'_>,
    authorities: &[CertificateDer<'_>],
    name: &str,
    at: UnixTime,
) -> Result<(), String> {
    let roots = roots(authorities).map_err(|e| e.to_string())?;
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), tls_provider())
        .build()
        .map_err(|e| e.to_string())?;
    verify_member(&verifier, leaf, name, at)
}

/// The same by a verifier that is there already: making one reads the authorities.
pub(super) fn verify_member(
    verifier: &WebPkiServerVerifier,
    leaf: &CertificateDer<'_>,
    name: &str,
    at: UnixTime,
) -> Result<(), String> {
    let name = ServerName::try_from(name).map_err(|e| e.to_string())?;
    match verifier.verify_server_cert(leaf, &[], &name, &[], at) {
        Ok(_) => Ok(()),
        Err(rustls::Error::InvalidCertificate(e)) => Err(explain_certificate_error("the certificate", &e)),
        Err(e) => Err(e.to_string()),
    }
}

pub(super) fn roots(authorities: &[CertificateDer<'_>]) -> Result<RootCertStore, rustls::Error> {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority.clone().into_owned())?;
    }
    Ok(roots)
}

/// What TLS is made of: TLS 1.3 with AES-128 first, as it is the fastest where the processor helps.
pub(super) fn tls_provider() -> Arc<CryptoProvider> {
    use provider::cipher_suite::{
        TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256,
    };
    let cipher_suites =
        vec![TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256];
    Arc::new(CryptoProvider { cipher_suites, ..provider::default_provider() })
}

/// A resumed session skips the check of the certificate, so it would outlive its end and its revocation. Without
/// 0-RTT it saves no round trip either, only two signatures.
fn no_resumption(config: &mut rustls::ServerConfig) {
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
}

pub(super) fn unix_time(time: Timestamp) -> UnixTime {
    UnixTime::since_unix_epoch(super::certificate::since_1970(time))
}

fn tls(error: &rustls::Error) -> IdentityError {
    IdentityError::Crypto { action: "set up TLS", why: error.to_string() }
}
