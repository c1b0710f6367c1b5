//! The mesh's authority: a private CA, made by `ffmesh init`, that lives in the state directory of each issuer.

use std::time::Duration;

use ffmesh_core::id::MeshName;
use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyPair, KeyUsagePurpose,
    PublicKeyData,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};

use super::certificate::{CLOCK_TOLERANCE, Grant, KeyHash, node_params, serial_number, since_1970, to_pem};
use super::error::IdentityError;
use crate::config::Address;
use crate::identity::token::address_of;
use crate::state::StateDir;

pub(super) const KEY_FILE: &str = "authority.key";
const CERTIFICATE_FILE: &str = "authority.crt";
const SETTINGS_FILE: &str = "authority.json";
/// An authority lives for ten years; meshes that live longer rotate it.
const LIFE: Duration = Duration::from_hours(10 * 365 * 24 + 3 * 24);

/// A CA with its key.
pub(super) struct Authority {
    key: KeyPair,
    certificate: CertificateDer<'static>,
    pub(super) mesh: MeshName,
    settings: Settings,
}

/// What `init` was told, for the tokens and certificates to come.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Settings {
    pub(super) mesh: MeshName,
    pub(super) cert_ttl_s: u64,
    /// `host:port`
    pub(super) advertise: Vec<String>,
    pub(super) listen_port: u16,
}

impl Authority {
    pub(super) fn found(settings: Settings, now: Timestamp) -> Result<Self, IdentityError> {
        let key = new_key()?;
        // Two meshes may have the same name. The key's hash tells their authorities apart, so that verifiers see an
        // unknown issuer, not a bad signature.
        let hash = KeyHash::of_spki(&key.subject_public_key_info()).to_string();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "FFMesh");
        params.distinguished_name.push(DnType::OrganizationalUnitName, &hash[..16]);
        params.distinguished_name.push(DnType::CommonName, settings.mesh.as_str());
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.serial_number = Some(serial_number()?);
        let begins = now.checked_sub(CLOCK_TOLERANCE).unwrap_or(now);
        params.not_before = rcgen::date_time_ymd(1970, 1, 1) + since_1970(begins);
        params.not_after = rcgen::date_time_ymd(1970, 1, 1) + since_1970(now) + LIFE;
        let certificate =
            params.self_signed(&key).map_err(IdentityError::crypto("sign the authority's certificate"))?;
        Ok(Self { key, certificate: certificate.into(), mesh: settings.mesh.clone(), settings })
    }

    /// Writes it; the key goes last, as it is what makes a node an issuer.
    pub(super) fn save(&self, state: &StateDir) -> Result<(), IdentityError> {
        let settings =
            serde_json::to_vec_pretty(&self.settings).map_err(|e| IdentityError::Answer(e.to_string()))?;
        state.write(SETTINGS_FILE, &settings)?;
        state.write(CERTIFICATE_FILE, to_pem([&self.certificate]).as_bytes())?;
        state.write(KEY_FILE, self.key.serialize_pem().as_bytes())?;
        Ok(())
    }

    /// The authority in the state directory; none where this node is no issuer.
    pub(super) fn load(state: &StateDir) -> Result<Option<Self>, IdentityError> {
        let damaged = |name: &str, why: &str| IdentityError::Damaged {
            path: state.path().join(name),
            why: why.to_owned(),
        };
        let Some(key) = state.read_secret(KEY_FILE)? else { return Ok(None) };
        let key = key_from_pem(&key).ok_or_else(|| damaged(KEY_FILE, "it is no private key in PEM"))?;
        let certificate = state.read(CERTIFICATE_FILE)?.unwrap_or_default();
        let certificate = CertificateDer::from_pem_slice(&certificate)
            .map_err(|_| damaged(CERTIFICATE_FILE, "it is no certificate in PEM"))?;
        if KeyHash::of_certificate(&certificate) != Some(KeyHash::of_spki(&key.subject_public_key_info())) {
            return Err(damaged(CERTIFICATE_FILE, "it does not belong to authority.key"));
        }
        let settings = state.read(SETTINGS_FILE)?.unwrap_or_default();
        let settings: Settings =
            serde_json::from_slice(&settings).map_err(|e| damaged(SETTINGS_FILE, &e.to_string()))?;
        Ok(Some(Self { key, certificate, mesh: settings.mesh.clone(), settings }))
    }

    /// SHA-256 of its public key.
    pub(super) fn fingerprint(&self) -> KeyHash {
        KeyHash::of_spki(&self.key.subject_public_key_info())
    }

    pub(super) fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// Addresses given to `init`.
    pub(super) fn advertise(&self) -> Vec<Address> {
        self.settings.advertise.iter().filter_map(|text| address_of(text)).collect()
    }

    /// Port given to `init`.
    pub(super) fn listen_port(&self) -> u16 {
        self.settings.listen_port
    }

    /// When a certificate that is made now ends.
    pub(super) fn expiry(&self, now: Timestamp) -> Timestamp {
        now.checked_add(Duration::from_secs(self.settings.cert_ttl_s)).unwrap_or(Timestamp::MAX)
    }

    /// Makes a node's certificate.
    pub(super) fn issue(
        &self,
        grant: &Grant,
        key: &impl PublicKeyData,
        now: Timestamp,
    ) -> Result<CertificateDer<'static>, IdentityError> {
        let failed = "sign a node's certificate";
        let issuer = rcgen::Issuer::from_ca_cert_der(&self.certificate, &self.key)
            .map_err(IdentityError::crypto(failed))?;
        let params = node_params(grant, &self.mesh, now, self.expiry(now))?;
        Ok(params.signed_by(key, &issuer).map_err(IdentityError::crypto(failed))?.into())
    }
}

/// A new Ed25519 key.
pub(super) fn new_key() -> Result<KeyPair, IdentityError> {
    KeyPair::generate_for(&rcgen::PKCS_ED25519).map_err(IdentityError::crypto("make a key"))
}

/// A private key in PEM (PKCS #8); none where it is something else.
pub(super) fn key_from_pem(pem: &[u8]) -> Option<KeyPair> {
    KeyPair::from_pem(std::str::from_utf8(pem).ok()?).ok()
}
