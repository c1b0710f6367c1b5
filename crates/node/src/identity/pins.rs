//! The keys of the nodes that this node has met.
//!
//! The authority's word makes a member; this remembers which key stood behind an id, so that a second certificate for
//! the same id (a mistake of the authority, or a token that was misused) is noticed and not followed.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use ffmesh_core::id::NodeId;
use serde::{Deserialize, Serialize};

use super::certificate::{KeyHash, PeerIdentity};
use super::error::IdentityError;
use crate::state::StateDir;

/// Most nodes that are remembered; beyond, those met longest ago are forgotten.
pub const MAX_KNOWN_NODES: usize = 10_000;
pub(super) const FILE: &str = "known_nodes.json";

/// The keys of known nodes, kept in `known_nodes.json`.
#[derive(Debug)]
pub struct KnownKeys {
    state: StateDir,
    pins: Mutex<Pins>,
}

/// A node presented another key than the one it is known by.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the node {node} is known by the key {known}, and now presents {presented}: refused; if its key was replaced on \
     purpose, enrol it again with a token made by `ffmesh token create --node {node}`"
)]
pub struct KeyConflict {
    /// The id that both claim
    pub node: NodeId,
    /// The key that is remembered
    pub known: KeyHash,
    /// The key that was presented
    pub presented: KeyHash,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Pins {
    nodes: HashMap<NodeId, Pin>,
    /// Counts the pins ever made, for their order.
    next: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Pin {
    key: KeyHash,
    order: u64,
}

impl KnownKeys {
    /// The known keys of a state directory.
    pub fn load(state: &StateDir) -> Result<Self, IdentityError> {
        let pins = match state.read(FILE)? {
            Some(json) => serde_json::from_slice(&json)
                .map_err(|e| IdentityError::Damaged { path: state.path().join(FILE), why: e.to_string() })?,
            None => Pins::default(),
        };
        Ok(Self { state: state.clone(), pins: Mutex::new(pins) })
    }

    /// Checks the key of a peer that TLS has verified. A node that is met first is remembered; one whose certificate
    /// says that its key replaces the known one is remembered anew. Writes a file then, a few milliseconds.
    pub fn check(&self, peer: &PeerIdentity) -> Result<(), KeyConflict> {
        let mut pins = self.pins.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pin) = pins.nodes.get(&peer.id) {
            if pin.key == peer.key {
                return Ok(());
            }
            if !peer.replaces.contains(&pin.key) {
                return Err(KeyConflict { node: peer.id.clone(), known: pin.key, presented: peer.key });
            }
        }
        pins.remember(&peer.id, peer.key);
        // The pin holds for this run even when the disk is full.
        let stored = serde_json::to_vec(&*pins).map_err(|e| e.to_string());
        if let Err(error) = stored.and_then(|json| self.state.write(FILE, &json).map_err(|e| e.to_string())) {
            tracing::warn!(%error, "known nodes cannot be stored");
        }
        Ok(())
    }

    /// The key that a node is known by.
    pub fn key_of(&self, node: &NodeId) -> Option<KeyHash> {
        self.pins.lock().unwrap_or_else(PoisonError::into_inner).nodes.get(node).map(|pin| pin.key)
    }
}

impl Pins {
    fn remember(&mut self, node: &NodeId, key: KeyHash) {
        let order = self.next;
        self.next += 1;
        self.nodes.insert(node.clone(), Pin { key, order });
        while self.nodes.len() > MAX_KNOWN_NODES {
            let oldest = self.nodes.iter().min_by_key(|(_, pin)| pin.order).map(|(node, _)| node.clone());
            oldest.and_then(|node| self.nodes.remove(&node));
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn peer(id: &str, key: u8, replaces: &[u8]) -> PeerIdentity {
        PeerIdentity {
            id: id.parse().unwrap(),
            mesh: "m".parse().unwrap(),
            groups: Vec::new(),
            relay: true,
            issuer: false,
            key: KeyHash([key; 32]),
            replaces: replaces.iter().map(|k| KeyHash([*k; 32])).collect(),
            issued: Timestamp::UNIX_EPOCH,
            expires: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn another_key_is_refused_unless_the_authority_says_it_replaces_the_known_one() {
        let temp = tempfile::tempdir().unwrap();
        let state = StateDir::at(temp.path());
        let keys = KnownKeys::load(&state).unwrap();
        keys.check(&peer("a", 1, &[])).unwrap();
        keys.check(&peer("a", 1, &[])).unwrap();
        let conflict = keys.check(&peer("a", 2, &[9])).unwrap_err();
        let text = conflict.to_string();
        assert!(text.contains(&KeyHash([1; 32]).to_string()) && text.contains(&KeyHash([2; 32]).to_string()));
        keys.check(&peer("a", 2, &[7, 1])).unwrap();

        let keys = KnownKeys::load(&state).unwrap();
        assert_eq!(keys.key_of(&"a".parse().unwrap()), Some(KeyHash([2; 32])));
        // The replaced key has no way back.
        keys.check(&peer("a", 1, &[])).unwrap_err();
    }

    #[test]
    fn the_oldest_are_forgotten() {
        let mut pins = Pins::default();
        for n in 0..=MAX_KNOWN_NODES {
            pins.remember(&format!("n{n}").parse().unwrap(), KeyHash([0; 32]));
        }
        assert_eq!(pins.nodes.len(), MAX_KNOWN_NODES);
        assert!(!pins.nodes.contains_key(&"n0".parse().unwrap()));
    }
}
