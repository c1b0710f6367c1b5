//! Keys and signatures for tests: anybody could make them, nobody does by accident.

use super::trust::{KeyHash, Signer, Verdict, Verifier};
use crate::hash::fingerprint;
use crate::id::NodeId;

/// The key that belongs to an id.
pub(crate) fn key_of(id: &NodeId) -> KeyHash {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&fingerprint(id.as_str().as_bytes()).to_be_bytes());
    KeyHash(key)
}

fn signature(key: &KeyHash, bytes: &[u8]) -> Vec<u8> {
    fingerprint(&[&key.0, bytes].concat()).to_be_bytes().repeat(8)
}

#[derive(Debug)]
pub(crate) struct FakeSigner(KeyHash);

impl FakeSigner {
    pub(crate) fn of(id: &NodeId) -> Self {
        Self(key_of(id))
    }
}

impl Signer for FakeSigner {
    fn key(&self) -> KeyHash {
        self.0
    }

    fn sign(&self, bytes: &[u8]) -> Vec<u8> {
        signature(&self.0, bytes)
    }
}

/// Knows the certificates of all ids, or only those it has learnt: a certificate is `cert:<id>`.
#[derive(Debug, Default)]
pub(crate) struct FakeVerifier {
    pub(crate) learnt: Option<std::collections::BTreeMap<KeyHash, NodeId>>,
}

impl FakeVerifier {
    pub(crate) fn learning(own: &NodeId) -> Self {
        Self { learnt: Some([(key_of(own), own.clone())].into()) }
    }
}

impl Verifier for FakeVerifier {
    fn verify(&self, origin: &NodeId, key: &KeyHash, bytes: &[u8], signed: &[u8]) -> Verdict {
        if let Some(learnt) = &self.learnt
            && !learnt.contains_key(key)
        {
            return Verdict::Unknown;
        }
        if *key == key_of(origin) && signed == signature(key, bytes) {
            Verdict::Genuine
        } else {
            Verdict::Forged
        }
    }

    /// All but those whose id begins with `leaf`.
    fn may_relay(&self, key: &KeyHash) -> bool {
        !(0..100).any(|n| *key == key_of(&format!("leaf{n}").parse().unwrap()))
    }

    fn certificate(&self, key: &KeyHash) -> Option<Vec<u8>> {
        Some(format!("cert:{}", self.learnt.as_ref()?.get(key)?).into_bytes())
    }

    fn learn(&mut self, certificate: &[u8]) -> Option<KeyHash> {
        let id: NodeId = std::str::from_utf8(certificate).ok()?.strip_prefix("cert:")?.parse().ok()?;
        self.learnt.as_mut()?.insert(key_of(&id), id.clone());
        Some(key_of(&id))
    }
}
