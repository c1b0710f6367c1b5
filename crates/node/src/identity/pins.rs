//! The keys of the nodes that this node has met, over a link or by their records.
//!
//! The authority's word makes a member; this remembers which key stood behind an id, so that a second certificate for
//! the same id (a mistake of the authority, or a token that was misused) is noticed and not followed.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use ffmesh_core::id::NodeId;
use ffmesh_core::lsdb::database::MAX_ORIGINS;
use serde::{Deserialize, Serialize};

use super::certificate::{KeyHash, PeerIdentity};
use super::error::IdentityError;
use crate::state::{StateDir, StateError};

/// Most nodes that are remembered: all whose records are kept. Beyond, those met longest ago are forgotten.
pub const MAX_KNOWN_NODES: usize = MAX_ORIGINS;
pub(super) const FILE: &str = "known_nodes.json";

/// How long the writer gathers new pins before it stores them.
const WRITE_DELAY: Duration = Duration::from_secs(1);

/// The keys of known nodes, kept in `known_nodes.json`.
///
/// Nobody waits for the disk: a thread stores what is new, once a second at most. A crash costs the pins of the last
/// second, which are then learned again. Dropping this stores what is left.
#[derive(Debug)]
pub struct KnownKeys {
    pins: Arc<Mutex<Pins>>,
    /// Wakes the writer, and ends it when dropped.
    news: Option<SyncSender<()>>,
    writer: Option<JoinHandle<()>>,
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

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
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
        let pins = Arc::new(Mutex::new(pins));
        // One word is enough: whoever comes while it waits is stored with it.
        let (news, wake) = sync_channel(1);
        let (shared, dir) = (pins.clone(), state.clone());
        let writer = std::thread::Builder::new().name("known-nodes".to_owned());
        let writer = writer.spawn(move || write(&dir, &shared, &wake)).map_err(|source| StateError::Io {
            action: "start the writer of",
            path: state.path().join(FILE),
            source,
        })?;
        Ok(Self { pins, news: Some(news), writer: Some(writer) })
    }

    /// Checks the key of a peer that TLS has verified. A node that is met first is remembered; one whose certificate
    /// says that its key replaces the known one is remembered anew. Does not block.
    pub fn check(&self, peer: &PeerIdentity) -> Result<(), KeyConflict> {
        let mut pins = lock(&self.pins);
        if let Some(pin) = pins.nodes.get(&peer.id) {
            if pin.key == peer.key {
                return Ok(());
            }
            if !peer.replaces.contains(&pin.key) {
                return Err(KeyConflict { node: peer.id.clone(), known: pin.key, presented: peer.key });
            }
        }
        pins.remember(&peer.id, peer.key);
        drop(pins);
        if let Some(news) = &self.news {
            let _ = news.try_send(()); // full: the writer has yet to look
        }
        Ok(())
    }

    /// The key that a node is known by.
    pub fn key_of(&self, node: &NodeId) -> Option<KeyHash> {
        lock(&self.pins).nodes.get(node).map(|pin| pin.key)
    }
}

impl Drop for KnownKeys {
    fn drop(&mut self) {
        self.news = None;
        if let Some(writer) = self.writer.take() {
            let _ = writer.join(); // it has told what went wrong
        }
    }
}

/// Stores the pins whenever there is news, until [`KnownKeys`] is dropped.
fn write(state: &StateDir, pins: &Mutex<Pins>, wake: &Receiver<()>) {
    while wake.recv().is_ok() {
        let end = std::time::Instant::now() + WRITE_DELAY;
        let left = || end.saturating_duration_since(std::time::Instant::now());
        let last = loop {
            match wake.recv_timeout(left()) {
                Ok(()) => {}
                Err(RecvTimeoutError::Timeout) => break false,
                Err(RecvTimeoutError::Disconnected) => break true,
            }
        };
        let snapshot = lock(pins).clone();
        // The pins hold for this run even when the disk is full.
        let stored = serde_json::to_vec(&snapshot).map_err(|e| e.to_string());
        if let Err(error) = stored.and_then(|json| state.write(FILE, &json).map_err(|e| e.to_string())) {
            tracing::warn!(%error, "known nodes cannot be stored");
        }
        if last {
            return;
        }
    }
}

fn lock(pins: &Mutex<Pins>) -> MutexGuard<'_, Pins> {
    pins.lock().unwrap_or_else(PoisonError::into_inner)
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
        drop(keys);

        let keys = KnownKeys::load(&state).unwrap();
        assert_eq!(keys.key_of(&"a".parse().unwrap()), Some(KeyHash([2; 32])));
        // The replaced key has no way back.
        keys.check(&peer("a", 1, &[])).unwrap_err();
    }

    #[test]
    #[allow(clippy::disallowed_methods)] // no executor here
    fn many_are_stored_in_one_go_by_and_by() {
        let temp = tempfile::tempdir().unwrap();
        let state = StateDir::at(temp.path());
        let keys = KnownKeys::load(&state).unwrap();
        for n in 0..1_000 {
            keys.check(&peer(&format!("n{n}"), 1, &[])).unwrap();
        }
        assert!(!state.has(FILE), "a check waits for no disk");
        let begin = std::time::Instant::now();
        while !state.has(FILE) {
            assert!(begin.elapsed() < Duration::from_secs(10), "nothing was stored");
            std::thread::sleep(Duration::from_millis(20));
        }
        let stored = KnownKeys::load(&state).unwrap();
        assert!(stored.key_of(&"n999".parse().unwrap()).is_some());
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
