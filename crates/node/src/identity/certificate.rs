//! Certificates: what they say about a node, and how that is written into them.
//!
//! | Subject alternative name | says |
//! | --- | --- |
//! | DNS `<node>.<mesh>.ffmesh` | the node's id, for the stock TLS verifiers |
//! | URI `ffmesh://<mesh>/<node>` | the same; both must be there and agree |
//! | URI `ffmesh-group://<mesh>/<group>` | a group, at most 32 of them |
//! | URI `ffmesh-cap://<mesh>/<capability>` | `relay` or `issuer`; others are ignored, for later versions |
//! | URI `ffmesh-replaces://<mesh>/<hex>` | SHA-256 of an earlier key's SPKI that this certificate replaces, newest first |

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use data_encoding::{BASE64, HEXLOWER};
use ffmesh_core::id::{MeshName, NodeId};
use ffmesh_core::lsdb;
use jiff::Timestamp;
use rcgen::{
    CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType, SerialNumber,
};
use ring::rand::SecureRandom;
use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use x509_parser::extensions::{GeneralName, ParsedExtension};

use super::error::IdentityError;

/// Most groups of one node, so that a certificate fits the first flight of a handshake.
pub const MAX_GROUPS: usize = 32;
/// Most earlier keys that a certificate names as replaced; older ones are forgotten.
pub(super) const MAX_REPLACED: usize = 8;
/// How far back a certificate's validity begins, so that it is valid at once on a node whose clock is a little slow.
pub const CLOCK_TOLERANCE: Duration = Duration::from_mins(5);

/// SHA-256 of a public key's SubjectPublicKeyInfo in DER.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyHash(pub [u8; 32]);

/// What a verified certificate says about the node that presented it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerIdentity {
    /// The node
    pub id: NodeId,
    /// Its mesh
    pub mesh: MeshName,
    /// Its groups
    pub groups: Vec<String>,
    /// Whether it may carry transit
    pub relay: bool,
    /// Whether it may enrol others
    pub issuer: bool,
    /// Its key
    pub key: KeyHash,
    /// Earlier keys of the same id that this one replaces by the issuer's word, newest first; at most 8
    pub replaces: Vec<KeyHash>,
    /// When the certificate was made
    pub issued: Timestamp,
    /// When it ends
    pub expires: Timestamp,
}

/// Why a certificate says nothing that could be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerIdentityError {
    /// The connection has no certificate of the peer.
    #[error("the peer presented no certificate: it has to be enrolled with `ffmesh join`")]
    Missing,
    /// It is no X.509 certificate.
    #[error("the peer's certificate cannot be read")]
    Unreadable,
    /// It is none that FFMesh makes.
    #[error("the peer's certificate is none of an FFMesh node: {0}")]
    Foreign(&'static str),
    /// It belongs to another mesh.
    #[error("the peer belongs to the mesh {theirs}, this node to {ours}")]
    OtherMesh {
        /// The peer's mesh
        theirs: MeshName,
        /// This node's mesh
        ours: MeshName,
    },
}

impl PeerIdentity {
    /// The identity of the peer of a connection whose handshake is complete, so that TLS has verified it.
    pub fn of(connection: &noq::Connection, mesh: &MeshName) -> Result<Self, PeerIdentityError> {
        Self::of_certificate(&presented(connection)?, mesh)
    }

    /// What a certificate in DER says. Checks its form and its mesh, not its signature.
    pub fn of_certificate(der: &[u8], mesh: &MeshName) -> Result<Self, PeerIdentityError> {
        let identity = Self::parse(der)?;
        if identity.mesh != *mesh {
            return Err(PeerIdentityError::OtherMesh { theirs: identity.mesh, ours: mesh.clone() });
        }
        Ok(identity)
    }

    pub(super) fn parse(der: &[u8]) -> Result<Self, PeerIdentityError> {
        use PeerIdentityError::{Foreign, Unreadable};
        let (rest, certificate) = x509_parser::parse_x509_certificate(der).map_err(|_| Unreadable)?;
        if !rest.is_empty() {
            return Err(Unreadable);
        }
        let mut names = Names::default();
        for extension in certificate.extensions() {
            match extension.parsed_extension() {
                ParsedExtension::SubjectAlternativeName(san) => {
                    san.general_names.iter().try_for_each(|name| names.read(name))?;
                }
                ParsedExtension::BasicConstraints(constraints) if constraints.ca => {
                    return Err(Foreign("it is an authority's"));
                }
                _ => {}
            }
        }
        let (mesh, id) = names.node.ok_or(Foreign("no URI says which node it is"))?;
        if names.dns != [id.dns_name(&mesh)] {
            return Err(Foreign("its DNS name and its URI disagree"));
        }
        let only = |of: Vec<(MeshName, String)>| {
            let names = of.into_iter().map(|(m, name)| (m == mesh).then_some(name));
            names.collect::<Option<Vec<_>>>().ok_or(Foreign("its names are of several meshes"))
        };
        let groups = only(names.groups)?;
        let capabilities = only(names.capabilities)?;
        let replaces = only(names.replaces)?.iter().map(|hex| hex.parse()).collect::<Result<Vec<_>, _>>();
        let replaces = replaces.map_err(|_| Foreign("a replaced key's hash is no hash"))?;
        if groups.len() > MAX_GROUPS || replaces.len() > MAX_REPLACED {
            return Err(Foreign("it has too many names"));
        }
        if groups.iter().any(|group| group.parse::<NodeId>().is_err()) {
            return Err(Foreign("a group's name is no name"));
        }
        let second = |time: x509_parser::time::ASN1Time| {
            Timestamp::from_second(time.timestamp()).map_err(|_| Foreign("its validity is out of range"))
        };
        let begins = second(certificate.validity().not_before)?;
        Ok(Self {
            id,
            groups,
            relay: capabilities.iter().any(|c| c == "relay"),
            issuer: capabilities.iter().any(|c| c == "issuer"),
            key: KeyHash::of_spki(certificate.public_key().raw),
            replaces,
            issued: begins.checked_add(CLOCK_TOLERANCE).unwrap_or(begins),
            expires: second(certificate.validity().not_after)?,
            mesh,
        })
    }
}

/// The certificate that the peer of a connection presented.
pub(super) fn presented(connection: &noq::Connection) -> Result<CertificateDer<'static>, PeerIdentityError> {
    let identity = connection.peer_identity().ok_or(PeerIdentityError::Missing)?;
    let chain = identity
        .downcast::<Vec<CertificateDer<'static>>>()
        .map_err(|_| PeerIdentityError::Foreign("it is no X.509 certificate"))?;
    chain.into_iter().next().ok_or(PeerIdentityError::Missing)
}

/// The subject alternative names of one certificate.
#[derive(Default)]
struct Names {
    dns: Vec<String>,
    node: Option<(MeshName, NodeId)>,
    groups: Vec<(MeshName, String)>,
    capabilities: Vec<(MeshName, String)>,
    replaces: Vec<(MeshName, String)>,
}

impl Names {
    fn read(&mut self, name: &GeneralName<'_>) -> Result<(), PeerIdentityError> {
        use PeerIdentityError::Foreign;
        let uri = match name {
            GeneralName::DNSName(dns) => {
                self.dns.push(dns.to_ascii_lowercase());
                return Ok(());
            }
            GeneralName::URI(uri) => uri,
            _ => return Ok(()),
        };
        let Some((scheme, rest)) = uri.split_once("://") else { return Ok(()) };
        if scheme != "ffmesh" && !scheme.starts_with("ffmesh-") {
            return Ok(());
        }
        let (mesh, value) = rest.split_once('/').ok_or(Foreign("a URI has no mesh and name"))?;
        let mesh: MeshName = mesh.parse().map_err(|_| Foreign("a mesh's name is no name"))?;
        match scheme {
            "ffmesh" => {
                let id = value.parse().map_err(|_| Foreign("its node id is no name"))?;
                if self.node.replace((mesh, id)).is_some() {
                    return Err(Foreign("it names several nodes"));
                }
            }
            "ffmesh-group" => self.groups.push((mesh, value.to_owned())),
            "ffmesh-cap" => self.capabilities.push((mesh, value.to_owned())),
            "ffmesh-replaces" => self.replaces.push((mesh, value.to_owned())),
            _ => {}
        }
        Ok(())
    }
}

impl KeyHash {
    /// The hash of a SubjectPublicKeyInfo in DER.
    pub fn of_spki(spki: &[u8]) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, spki).as_ref());
        Self(hash)
    }

    /// The hash of the key in a certificate in DER; none where it cannot be read.
    pub(super) fn of_certificate(der: &[u8]) -> Option<Self> {
        let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
        Some(Self::of_spki(certificate.public_key().raw))
    }
}

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A key's hash is 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a key's hash is 64 hexadecimal digits")]
pub struct KeyHashError;

impl FromStr for KeyHash {
    type Err = KeyHashError;
    fn from_str(text: &str) -> Result<Self, KeyHashError> {
        let bytes = HEXLOWER.decode(text.as_bytes()).map_err(|_| KeyHashError)?;
        bytes.try_into().map(Self).map_err(|_| KeyHashError)
    }
}

impl TryFrom<String> for KeyHash {
    type Error = KeyHashError;
    fn try_from(text: String) -> Result<Self, KeyHashError> {
        text.parse()
    }
}

impl From<KeyHash> for String {
    fn from(hash: KeyHash) -> String {
        hash.to_string()
    }
}

/// The same hash, as records name it.
impl From<KeyHash> for lsdb::KeyHash {
    fn from(hash: KeyHash) -> Self {
        Self(hash.0)
    }
}

impl From<lsdb::KeyHash> for KeyHash {
    fn from(hash: lsdb::KeyHash) -> Self {
        Self(hash.0)
    }
}

/// What a node's certificate is to say.
#[derive(Debug, Clone)]
pub(super) struct Grant {
    pub node: NodeId,
    pub groups: Vec<String>,
    pub relay: bool,
    pub issuer: bool,
    pub replaces: Vec<KeyHash>,
}

impl Grant {
    /// Whether the node's certificate says just this.
    pub(super) fn is_of(&self, peer: &PeerIdentity) -> bool {
        (&self.node, &self.groups, self.relay, self.issuer, &self.replaces)
            == (&peer.id, &peer.groups, peer.relay, peer.issuer, &peer.replaces)
    }
}

/// The certificate of a node, unsigned.
pub(super) fn node_params(
    grant: &Grant,
    mesh: &MeshName,
    now: Timestamp,
    expires: Timestamp,
) -> Result<CertificateParams, IdentityError> {
    let encode = IdentityError::crypto("encode the certificate's names");
    let mut uris = vec![format!("ffmesh://{mesh}/{}", grant.node)];
    uris.extend(grant.groups.iter().map(|group| format!("ffmesh-group://{mesh}/{group}")));
    let capabilities = [(grant.relay, "relay"), (grant.issuer, "issuer")];
    let granted = capabilities.iter().filter(|(has, _)| *has);
    uris.extend(granted.map(|(_, capability)| format!("ffmesh-cap://{mesh}/{capability}")));
    uris.extend(grant.replaces.iter().map(|hash| format!("ffmesh-replaces://{mesh}/{hash}")));

    let mut params = CertificateParams::default();
    let names = std::iter::once(grant.node.dns_name(mesh).try_into().map(SanType::DnsName))
        .chain(uris.into_iter().map(|uri| uri.try_into().map(SanType::URI)));
    params.subject_alt_names = names.collect::<Result<_, _>>().map_err(encode)?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, grant.node.as_str());
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    params.serial_number = Some(serial_number()?);
    let begins = now.checked_sub(CLOCK_TOLERANCE).unwrap_or(now);
    params.not_before = rcgen::date_time_ymd(1970, 1, 1) + since_1970(begins);
    params.not_after = rcgen::date_time_ymd(1970, 1, 1) + since_1970(expires);
    Ok(params)
}

pub(super) fn since_1970(time: Timestamp) -> Duration {
    Duration::from_secs(u64::try_from(time.as_second()).unwrap_or(0))
}

/// 128 random bits, without the highest one, so that it is a positive number of at most 16 bytes.
pub(super) fn serial_number() -> Result<SerialNumber, IdentityError> {
    let mut bytes = random::<16>()?;
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

/// Bytes from the operating system's random generator.
pub(super) fn random<const N: usize>() -> Result<[u8; N], IdentityError> {
    let mut bytes = [0; N];
    ring::rand::SystemRandom::new().fill(&mut bytes).map_err(|_| IdentityError::Crypto {
        action: "get random bytes",
        why: "the operating system's generator failed".to_owned(),
    })?;
    Ok(bytes)
}

/// Certificates in PEM (RFC 7468).
pub(super) fn to_pem<'a>(certificates: impl IntoIterator<Item = &'a CertificateDer<'a>>) -> String {
    let mut pem = String::new();
    for certificate in certificates {
        pem.push_str("-----BEGIN CERTIFICATE-----\n");
        let base64 = BASE64.encode(certificate);
        let mut rest = base64.as_str();
        while !rest.is_empty() {
            let (line, after) = rest.split_at(rest.len().min(64));
            pem.push_str(line);
            pem.push('\n');
            rest = after;
        }
        pem.push_str("-----END CERTIFICATE-----\n");
    }
    pem
}
