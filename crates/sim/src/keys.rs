//! Keys and signatures that cost nothing: anybody could forge them, and the [lying members](crate::world) do not know how.

use ffmesh_core::hash::fingerprint;
use ffmesh_core::id::NodeId;
use ffmesh_core::lsdb::{KeyHash, Signer, Verdict, Verifier};

/// The key of a node.
pub(crate) fn key(id: &NodeId) -> KeyHash {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&fingerprint(id.as_str().as_bytes()).to_be_bytes());
    KeyHash(key)
}

fn signature(key: &KeyHash, bytes: &[u8]) -> Vec<u8> {
    // As long as an ECDSA signature over P-256 in DER mostly is
    fingerprint(&[&key.0, bytes].concat()).to_be_bytes().repeat(9)[..71].to_vec()
}

/// Signs with the key of a node.
#[derive(Debug)]
pub(crate) struct Keys(pub(crate) NodeId);

impl Signer for Keys {
    fn key(&self) -> KeyHash {
        key(&self.0)
    }

    fn sign(&self, bytes: &[u8]) -> Vec<u8> {
        signature(&key(&self.0), bytes)
    }
}

/// Knows all certificates; all nodes may relay.
#[derive(Debug)]
pub(crate) struct Authority;

impl Verifier for Authority {
    fn verify(&self, origin: &NodeId, of: &KeyHash, bytes: &[u8], signed: &[u8]) -> Verdict {
        let genuine = *of == key(origin) && signed == signature(of, bytes);
        if genuine { Verdict::Genuine } else { Verdict::Forged }
    }

    fn may_relay(&self, _key: &KeyHash) -> bool {
        true
    }
}
