//! Who may say what about a node: keys and signatures, checked by what the caller brings.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::NodeId;

/// SHA-256 of the subject public key info of a node's key, 32 bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyHash(pub [u8; 32]);

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl From<KeyHash> for String {
    fn from(key: KeyHash) -> Self {
        format!("{key:?}")
    }
}

impl TryFrom<String> for KeyHash {
    type Error = &'static str;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(text.as_bytes());
        let bytes = bytes.ok().and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or("a key hash is 64 hex digits")
    }
}

/// What a [`Verifier`] finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The origin's certificate has this key, and the key made this signature.
    Genuine,
    /// The certificate of this key names another node, is not of this mesh or is revoked; the node is known by
    /// another key; or the signature is wrong.
    Forged,
    /// No certificate of this key is known here, or it has ended and there may be a renewed one. It can be asked of the
    /// neighbour that sent the record.
    Unknown,
}

/// Checks signatures of records and keeps the certificates that this takes. The node's has the mesh's authorities
/// and pins; a simulation's can be anything.
pub trait Verifier: Send {
    /// Whether `signature` over `bytes` is that of `origin`, whose certificate has `key`.
    fn verify(&self, origin: &NodeId, key: &KeyHash, bytes: &[u8], signature: &[u8]) -> Verdict;

    /// Whether the certificate of a key lets its node carry transit.
    fn may_relay(&self, key: &KeyHash) -> bool;

    /// The certificate of a key in DER, for a neighbour that asks.
    fn certificate(&self, _key: &KeyHash) -> Option<Vec<u8>> {
        None
    }

    /// Takes in a certificate from a neighbour. Returns its key when it is one of this mesh.
    fn learn(&mut self, _certificate: &[u8]) -> Option<KeyHash> {
        None
    }
}

/// Signs this node's own records.
pub trait Signer: Send {
    /// The key that it signs with.
    fn key(&self) -> KeyHash;

    /// A signature over `bytes`, at most [`MAX_SIGNATURE_LEN`](super::MAX_SIGNATURE_LEN) bytes.
    fn sign(&self, bytes: &[u8]) -> Vec<u8>;
}
