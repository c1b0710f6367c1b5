//! Signatures of records: this node's own, and those of others by their certificates.
//!
//! A record names the key that signed it by its hash. [`Certificates`] has the certificates of these keys: those that
//! neighbours present, and those that are asked of neighbours because a record came without.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use ffmesh_core::id::{MeshName, NodeId};
use ffmesh_core::lsdb::database::MAX_ORIGINS;
use ffmesh_core::lsdb::{self, Signer, Verdict, Verifier};
use ffmesh_core::wire::MAX_CERTIFICATE_LEN;
use jiff::Timestamp;
use ring::signature::{ECDSA_P256_SHA256_ASN1, ED25519, UnparsedPublicKey, VerificationAlgorithm};
use rustls::SignatureScheme;
use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::CertificateDer;
use x509_parser::oid_registry::{OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_SIG_ED25519};

use super::certificate::{CLOCK_TOLERANCE, KeyHash, PeerIdentity, PeerIdentityError, presented};
use super::credentials::{Credentials, unix_time, verify_member};
use super::error::IdentityError;
use super::pins::KnownKeys;
use crate::repeats::Repeats;

/// Most certificates that are kept: one for each node whose records are kept.
pub const MAX_CERTIFICATES: usize = MAX_ORIGINS;

/// Stands before a record when it is signed, so that its signature is good for nothing else: a handshake's starts with
/// blanks (RFC 8446, section 4.4.3), and what a certificate request signs is DER.
const RECORD: &[u8] = b"ffmesh record 1\0";

fn signed(record: &[u8]) -> Vec<u8> {
    [RECORD, record].concat()
}

/// Signs this node's records with its key, which a renewal of the certificate leaves as it is.
#[derive(Debug)]
pub struct RecordSigner {
    key: KeyHash,
    signer: Box<dyn rustls::sign::Signer>,
}

impl RecordSigner {
    /// The signer of a node.
    ///
    /// # Errors
    /// [`IdentityError::Crypto`] where its key is neither Ed25519 nor ECDSA on P-256, which no issuer certifies.
    pub fn new(credentials: &Credentials) -> Result<Self, IdentityError> {
        let schemes = [SignatureScheme::ED25519, SignatureScheme::ECDSA_NISTP256_SHA256];
        let signer = credentials.signing_key().choose_scheme(&schemes).ok_or(IdentityError::Crypto {
            action: "sign records",
            why: "the node's key is neither Ed25519 nor ECDSA P-256".to_owned(),
        })?;
        Ok(Self { key: credentials.identity().key, signer })
    }
}

impl Signer for RecordSigner {
    fn key(&self) -> lsdb::KeyHash {
        self.key.into()
    }

    /// Ed25519 (RFC 8032), 64 bytes, or ECDSA in DER (RFC 3279, section 2.2.3), up to 72. Empty, which nobody takes,
    /// where the system has no random numbers for ECDSA.
    fn sign(&self, record: &[u8]) -> Vec<u8> {
        self.signer.sign(&signed(record)).unwrap_or_else(|error| {
            tracing::error!("own record cannot be signed: {error}");
            Vec::new()
        })
    }
}

/// Why a certificate was not taken in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// It cannot be read, is none of a node, or is of another mesh.
    #[error(transparent)]
    Identity(#[from] PeerIdentityError),
    /// Neighbours could not be given it.
    #[error("the certificate is longer than {MAX_CERTIFICATE_LEN} bytes")]
    Long,
    /// It ended more than [`CLOCK_TOLERANCE`] ago.
    #[error("the certificate of {node} ended at {expires}")]
    Expired {
        /// Whose it is
        node: NodeId,
        /// Its end
        expires: Timestamp,
    },
    /// None of the mesh's authorities signed it, or it is not valid yet.
    #[error("the certificate does not hold: {0}")]
    Invalid(String),
    /// Its key is neither Ed25519 nor ECDSA on P-256.
    #[error("the certificate's key is of a kind that signs no records")]
    Key,
    /// There are [`MAX_CERTIFICATES`] that have not ended.
    #[error("there are {MAX_CERTIFICATES} certificates already")]
    Full,
}

/// The certificates of the mesh's nodes, by their keys, each checked once when it comes in. Clones share them.
///
/// This node's own is always there, the renewed one as soon as it is in force.
#[derive(Debug, Clone)]
pub struct Certificates(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    credentials: Arc<Credentials>,
    own: KeyHash,
    mesh: MeshName,
    authorities: Arc<WebPkiServerVerifier>,
    known_keys: Arc<KnownKeys>,
    limit: usize,
    held: RwLock<HashMap<KeyHash, Arc<Held>>>,
    repeats: Repeats,
}

#[derive(Debug)]
struct Held {
    der: CertificateDer<'static>,
    identity: PeerIdentity,
    public_key: UnparsedPublicKey<Box<[u8]>>,
}

impl Certificates {
    /// Begins with this node's own certificate. `known_keys` is asked about the key of each genuine record, and
    /// remembers it as it does for links.
    ///
    /// # Errors
    /// Where this node's own certificate would not be taken by others.
    pub fn new(credentials: Arc<Credentials>, known_keys: Arc<KnownKeys>) -> Result<Self, CertificateError> {
        Self::with_limit(credentials, known_keys, MAX_CERTIFICATES)
    }

    pub(super) fn with_limit(
        credentials: Arc<Credentials>,
        known_keys: Arc<KnownKeys>,
        limit: usize,
    ) -> Result<Self, CertificateError> {
        let certificates = Self(Arc::new(Shared {
            own: credentials.identity().key,
            mesh: credentials.mesh(),
            authorities: credentials.members(),
            known_keys,
            limit,
            held: RwLock::default(),
            repeats: Repeats::default(),
            credentials,
        }));
        certificates.insert(&certificates.0.credentials.certificate())?;
        Ok(certificates)
    }

    /// Takes in a certificate in DER: its form, its mesh, its validity and the authority's signature are checked. Of
    /// two for one key the one that was issued later stays. Returns its key.
    pub fn insert(&self, der: &[u8]) -> Result<KeyHash, CertificateError> {
        self.insert_at(der, Timestamp::now())
    }

    /// Takes in the certificate that the peer of a connection has presented.
    pub fn insert_peer(&self, connection: &noq::Connection) -> Result<KeyHash, CertificateError> {
        self.insert(&presented(connection)?)
    }

    /// What the certificate of a key says; none where there is none, or it has ended.
    pub fn identity_of(&self, key: &KeyHash) -> Option<PeerIdentity> {
        self.held(key, Timestamp::now()).map(|held| held.identity.clone())
    }

    pub(super) fn insert_at(&self, der: &[u8], now: Timestamp) -> Result<KeyHash, CertificateError> {
        let shared = &self.0;
        if der.len() > MAX_CERTIFICATE_LEN {
            return Err(CertificateError::Long);
        }
        let identity = PeerIdentity::of_certificate(der, &shared.mesh)?;
        // Before all else: a neighbour that answers with what has ended must not look as if it had brought news.
        if has_ended(&identity, now) {
            return Err(CertificateError::Expired { node: identity.id, expires: identity.expires });
        }
        let key = identity.key;
        if self.read().get(&key).is_some_and(|held| *held.der == *der) {
            return Ok(key);
        }
        let der = CertificateDer::from(der.to_vec());
        let (name, at) = (identity.id.dns_name(&shared.mesh), unix_time(now.min(identity.expires)));
        verify_member(&shared.authorities, &der, &name, at).map_err(CertificateError::Invalid)?;
        let public_key = public_key(&der).ok_or(CertificateError::Key)?;

        let mut held = shared.held.write().unwrap_or_else(PoisonError::into_inner);
        match held.get(&key) {
            Some(old) if old.identity.issued >= identity.issued => return Ok(key),
            None if held.len() >= shared.limit => {
                held.retain(|_, held| !has_ended(&held.identity, now));
                if held.len() >= shared.limit {
                    return Err(CertificateError::Full);
                }
            }
            _ => {}
        }
        held.insert(key, Arc::new(Held { der, identity, public_key }));
        Ok(key)
    }

    pub(super) fn verify_at(
        &self,
        origin: &NodeId,
        key: &lsdb::KeyHash,
        record: &[u8],
        signature: &[u8],
        now: Timestamp,
    ) -> Verdict {
        let Some(held) = self.held(&KeyHash::from(*key), now) else { return Verdict::Unknown };
        let identity = &held.identity;
        if identity.id != *origin || held.public_key.verify(&signed(record), signature).is_err() {
            return Verdict::Forged;
        }
        // This node knows its own key better than any memory of it.
        match self.0.known_keys.check(identity) {
            Err(conflict) if identity.key != self.0.own => {
                if self.0.repeats.is_news((origin, identity.key)) {
                    tracing::error!(node = %origin, "record refused: {conflict}");
                }
                Verdict::Forged
            }
            _ => Verdict::Genuine,
        }
    }

    /// The certificate of a key, unless it has ended.
    fn held(&self, key: &KeyHash, now: Timestamp) -> Option<Arc<Held>> {
        let held = self.read().get(key).cloned();
        let credentials = &self.0.credentials;
        if *key == self.0.own
            && held.as_ref().is_none_or(|held| held.identity.issued < credentials.renewal().issued)
        {
            let _ = self.insert_at(&credentials.certificate(), now); // as good as the one before, unless it has ended
            return self.read().get(key).cloned().filter(|held| !has_ended(&held.identity, now));
        }
        held.filter(|held| !has_ended(&held.identity, now))
    }

    fn read(&self) -> RwLockReadGuard<'_, HashMap<KeyHash, Arc<Held>>> {
        self.0.held.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A certificate that has ended is as good as none: its node may have renewed it, and the neighbour that sent a record
/// may have the new one.
impl Verifier for Certificates {
    fn verify(&self, origin: &NodeId, key: &lsdb::KeyHash, record: &[u8], signature: &[u8]) -> Verdict {
        self.verify_at(origin, key, record, signature, Timestamp::now())
    }

    fn may_relay(&self, key: &lsdb::KeyHash) -> bool {
        self.held(&KeyHash::from(*key), Timestamp::now()).is_some_and(|held| held.identity.relay)
    }

    fn certificate(&self, key: &lsdb::KeyHash) -> Option<Vec<u8>> {
        self.held(&KeyHash::from(*key), Timestamp::now()).map(|held| held.der.to_vec())
    }

    fn learn(&mut self, certificate: &[u8]) -> Option<lsdb::KeyHash> {
        match self.insert(certificate) {
            Ok(key) => Some(key.into()),
            Err(error) => {
                tracing::debug!("certificate from a neighbour not taken: {error}");
                None
            }
        }
    }
}

fn has_ended(identity: &PeerIdentity, now: Timestamp) -> bool {
    identity.expires.checked_add(CLOCK_TOLERANCE).is_ok_and(|end| end < now)
}

/// The key in a certificate, as far as nodes have such keys (RFC 8410; RFC 5480 with the curve P-256).
fn public_key(der: &[u8]) -> Option<UnparsedPublicKey<Box<[u8]>>> {
    let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
    let key = certificate.public_key();
    let curve = key.algorithm.parameters.as_ref().and_then(|curve| curve.as_oid().ok());
    let algorithm: &dyn VerificationAlgorithm = if key.algorithm.algorithm == OID_SIG_ED25519 {
        &ED25519
    } else if key.algorithm.algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY && curve == Some(OID_EC_P256) {
        &ECDSA_P256_SHA256_ASN1
    } else {
        return None;
    };
    Some(UnparsedPublicKey::new(algorithm, key.subject_public_key.data.as_ref().into()))
}
