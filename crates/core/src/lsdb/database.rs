//! Which record of an origin stays, for how long, and within which limits.

use std::collections::BTreeSet;
use std::time::Duration;

use super::digest::{Bucket, Entry, Sums};
use super::names::{Name, Names};
use super::record::{Content, Head, Kind, Listed, NodeInfo, Parts, RecordError, Version};
use super::trust::{KeyHash, Verdict, Verifier};
use crate::hash::fingerprint;
use crate::id::NodeId;
use crate::time::Time;

/// How often a node signs its records anew when nothing changes. Shortened by up to a quarter, so that a mesh
/// that was started together does not refresh together.
pub const REFRESH: Duration = Duration::from_hours(2);
/// A record that was not refreshed for this long is purged.
pub const MAX_AGE: Duration = Duration::from_hours(6);
/// How long the version of a purged record is remembered. Longer than [`MAX_AGE`]: by then every copy that could come back
/// is too old itself.
pub const TOMBSTONE: Duration = Duration::from_hours(7);
/// Most origins. A mesh is to stay below about 10,000 nodes; the rest is for nodes that have gone and are remembered.
pub const MAX_ORIGINS: usize = 20_000;

/// One record's place: whose and what about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The origin's number
    pub name: Name,
    /// What it is about
    pub kind: Kind,
}

/// What became of a record that was offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is stored, to be passed on.
    Stored(Key, News),
    /// It is there already.
    Same(Key),
    /// A newer one is there, or was.
    Older(Key),
    /// Nothing of it was kept.
    Refused(Refusal),
    /// It could not be checked: no certificate of this key is known.
    UnknownKey(KeyHash),
}

/// What a stored record tells beside the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// The same with a newer version
    Refresh,
    /// Something that can wait for a moment
    Good,
    /// A link or node is gone or has become worse: others may be sending into it
    Bad,
}

/// Why a record was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The bytes are no record, or over a bound of one.
    #[error("malformed record: {0}")]
    Malformed(RecordError),
    /// The id is not that of the key's certificate, or the signature is wrong.
    #[error("the record's key is not its origin's, or the signature is wrong")]
    Forged,
    /// It claims the capability `relay`, which its certificate has not.
    #[error("the record claims a capability that its node's certificate has not")]
    Capability,
    /// The key is revoked.
    #[error("the record's key is revoked")]
    Revoked,
    /// It should have been refreshed long ago.
    #[error("the record is too old")]
    Expired,
    /// There are [`MAX_ORIGINS`] origins already.
    #[error("the database is full")]
    Full,
}

/// A link as the database has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edge {
    /// The neighbour
    pub to: Name,
    /// Load band in the top two bits, cost in µs in the rest
    bits: u32,
}

impl Edge {
    /// Cost in µs.
    pub fn cost(self) -> u32 {
        self.bits & super::MAX_COST
    }

    /// Load band, 0 to 3.
    pub fn band(self) -> u8 {
        (self.bits >> 30) as u8
    }
}

#[derive(Debug)]
struct Slot {
    version: Version,
    fingerprint: u64,
    /// Signature and body as they came; empty when purged.
    record: Box<[u8]>,
    /// When it is purged, or (purged) forgotten.
    expires: Time,
    state: State,
}

#[derive(Debug)]
enum State {
    Node {
        forwards: bool,
        cost: u32,
    },
    /// In the order of the names' numbers
    Links(Box<[Edge]>),
    Withdrawn,
    Purged,
}

/// The newest record of each origin and kind.
#[derive(Debug, Default)]
pub struct Database {
    names: Names,
    /// By the origin's number, then by kind
    slots: Vec<[Option<Slot>; 2]>,
    origins: usize,
    expiries: BTreeSet<(Time, Key)>,
    sums: Sums,
    revoked: BTreeSet<KeyHash>,
    conflicts: u64,
}

impl Database {
    /// Takes in a record that is `age` old, if it is genuine and newer than what is there.
    ///
    /// The version is looked at before the signature, so that what is known costs next to nothing. Two
    /// records of one version with different bodies are both genuine only when their origin lies or has lost its memory: the
    /// one with the higher fingerprint stays everywhere, and they are counted.
    pub fn offer(&mut self, record: &[u8], age: Duration, now: Time, verifier: &dyn Verifier) -> Outcome {
        let parts = match Parts::of(record) {
            Ok(parts) => parts,
            Err(error) => return Outcome::Refused(Refusal::Malformed(error)),
        };
        let head = match parts.head() {
            Ok(head) => head,
            Err(error) => return Outcome::Refused(Refusal::Malformed(error)),
        };
        if self.revoked.contains(&head.key) {
            return Outcome::Refused(Refusal::Revoked);
        }
        let print = fingerprint(parts.body);
        let known = self.key(&head.origin, head.kind).and_then(|key| Some((key, self.slot(key)?)));
        let mut conflict = None;
        if let Some((key, slot)) = known {
            if head.version < slot.version || head.version == slot.version && slot.record.is_empty() {
                return Outcome::Older(key);
            }
            if head.version == slot.version {
                if print == slot.fingerprint {
                    return Outcome::Same(key);
                }
                conflict = Some((key, print < slot.fingerprint));
            }
        } else if self.origins >= MAX_ORIGINS {
            return Outcome::Refused(Refusal::Full);
        }
        if age >= MAX_AGE {
            return Outcome::Refused(Refusal::Expired);
        }
        let content = match parts.decode() {
            Ok((_, content)) => content,
            Err(error) => return Outcome::Refused(Refusal::Malformed(error)),
        };
        match verifier.verify(&head.origin, &head.key, parts.body, parts.signature) {
            Verdict::Genuine => {}
            Verdict::Forged => return Outcome::Refused(Refusal::Forged),
            Verdict::Unknown => return Outcome::UnknownKey(head.key),
        }
        if matches!(&content, Content::Node(node) if node.relay) && !verifier.may_relay(&head.key) {
            return Outcome::Refused(Refusal::Capability);
        }
        if let Some((key, loses)) = conflict {
            self.conflicts += 1;
            if loses {
                return Outcome::Older(key);
            }
        }
        let (key, news) = self.store(&head, &content, record, print, now + MAX_AGE.saturating_sub(age));
        Outcome::Stored(key, news)
    }

    /// Stores a record that this node has signed itself.
    pub fn put_own(&mut self, record: &[u8], now: Time) -> Option<(Key, News)> {
        let parts = Parts::of(record).ok()?;
        let (head, content) = parts.decode().ok()?;
        Some(self.store(&head, &content, record, fingerprint(parts.body), now + MAX_AGE))
    }

    /// Purges what is too old and forgets what was purged long ago. Returns the keys of the purged.
    pub fn expire(&mut self, now: Time) -> Vec<Key> {
        let mut purged = Vec::new();
        while let Some((_, key)) = self.expiries.first().copied().filter(|(at, _)| *at <= now) {
            if self.slot(key).is_some_and(|slot| slot.record.is_empty()) {
                self.remove(key);
            } else {
                self.purge(key, now);
                purged.push(key);
            }
        }
        purged
    }

    /// When [`expire`](Self::expire) has something to do.
    pub fn next_expiry(&self) -> Option<Time> {
        self.expiries.first().map(|(at, _)| *at)
    }

    /// Purges all records that were signed with a key and refuses it from now on.
    pub fn revoke(&mut self, revoked: KeyHash, now: Time) -> Vec<Key> {
        self.revoked.insert(revoked);
        let signed =
            |slot: &Slot| Parts::of(&slot.record).and_then(|p| p.head()).is_ok_and(|h| h.key == revoked);
        let keys: Vec<_> = self.iter().filter(|(_, slot)| signed(slot)).map(|(key, _)| key).collect();
        for key in &keys {
            self.purge(*key, now);
        }
        keys
    }

    /// The record at a key and its age. `None` where there is none or it was purged.
    pub fn record(&self, key: Key, now: Time) -> Option<(Duration, &[u8])> {
        let slot = self.slot(key).filter(|slot| !slot.record.is_empty())?;
        Some((MAX_AGE.saturating_sub(slot.expires - now), &slot.record))
    }

    /// The version at a key, also of a purged record.
    pub fn version(&self, key: Key) -> Option<Version> {
        self.slot(key).map(|slot| slot.version)
    }

    /// The fingerprint of the body at a key, also of a purged record.
    pub fn fingerprint(&self, key: Key) -> Option<u64> {
        self.slot(key).map(|slot| slot.fingerprint)
    }

    /// The key of an origin's record, if the origin is known at all.
    pub fn key(&self, origin: &NodeId, kind: Kind) -> Option<Key> {
        Some(Key { name: self.names.find(origin)?, kind })
    }

    /// The number of an id that any record is of or mentions.
    pub fn name(&self, id: &NodeId) -> Option<Name> {
        self.names.find(id)
    }

    /// The id behind a number.
    pub fn id(&self, name: Name) -> Option<&NodeId> {
        self.names.id(name)
    }

    /// What a node says about itself. `None` where it says nothing (any more).
    pub fn node(&self, id: &NodeId) -> Option<NodeInfo> {
        match self.content(id, Kind::Node)? {
            Content::Node(node) => Some(node),
            _ => None,
        }
    }

    /// The key that a node signs with. `None` where it says nothing (any more).
    pub fn key_of(&self, id: &NodeId) -> Option<KeyHash> {
        let slot = self.slot(self.key(id, Kind::Node)?).filter(|slot| !slot.record.is_empty())?;
        Some(Parts::of(&slot.record).and_then(|parts| parts.head()).ok()?.key)
    }

    /// The neighbours that a node lists.
    pub fn links(&self, id: &NodeId) -> Option<Vec<Listed>> {
        match self.content(id, Kind::Links)? {
            Content::Links(links) => Some(links),
            _ => None,
        }
    }

    /// Nodes that have a record of either kind that is not withdrawn, in no particular order.
    pub fn nodes(&self) -> impl Iterator<Item = Name> + '_ {
        let live = |slot: &Option<Slot>| {
            slot.as_ref().is_some_and(|slot| matches!(slot.state, State::Node { .. } | State::Links(_)))
        };
        self.slots
            .iter()
            .zip(0u32..)
            .filter(move |(slots, _)| slots.iter().any(live))
            .map(|(_, number)| Name(number))
    }

    /// The NODE records that are not withdrawn, as they came, in no particular order: decoding them
    /// ([`Parts::decode`]) is left to who has the time.
    pub fn node_records(&self) -> impl Iterator<Item = (Name, &[u8])> {
        self.slots.iter().zip(0u32..).filter_map(|(slots, number)| {
            let [node, _] = slots;
            let node = node.as_ref().filter(|slot| matches!(slot.state, State::Node { .. }))?;
            Some((Name(number), &*node.record))
        })
    }

    /// Whether others may forward through a node, and what that costs beside its links, in µs.
    pub fn transit(&self, name: Name) -> Option<u32> {
        match self.slot(Key { name, kind: Kind::Node })?.state {
            State::Node { forwards: true, cost } => Some(cost),
            _ => None,
        }
    }

    /// The links that a node lists, whether the other end does or not.
    pub fn edges(&self, name: Name) -> &[Edge] {
        match self.slot(Key { name, kind: Kind::Links }).map(|slot| &slot.state) {
            Some(State::Links(edges)) => edges,
            _ => &[],
        }
    }

    /// The fingerprints of what is stored.
    pub fn sums(&self) -> &Sums {
        &self.sums
    }

    /// The lists of the buckets that `wanted` names.
    pub fn entries(&self, wanted: impl Fn(Bucket) -> bool) -> Vec<(Bucket, Entry)> {
        let stored = self.iter().filter(|(_, slot)| !slot.record.is_empty());
        let mut entries: Vec<_> = stored
            .filter_map(|(key, slot)| {
                let bucket = self.names.bucket(key.name).filter(|bucket| wanted(*bucket))?;
                let origin = self.names.id(key.name)?.clone();
                let (version, fingerprint) = (slot.version, slot.fingerprint);
                Some((bucket, Entry { origin, kind: key.kind, version, fingerprint }))
            })
            .collect();
        entries.sort_by(|(a, x), (b, y)| (a, &x.origin, x.kind).cmp(&(b, &y.origin, y.kind)));
        entries
    }

    /// Whether an entry of a neighbour's list is newer than what is here.
    pub fn lacks(&self, entry: &Entry) -> bool {
        match self.key(&entry.origin, entry.kind).and_then(|key| self.slot(key)) {
            None => true,
            Some(slot) if entry.version == slot.version => {
                !slot.record.is_empty() && entry.fingerprint > slot.fingerprint
            }
            Some(slot) => entry.version > slot.version,
        }
    }

    /// Records that are stored.
    pub fn len(&self) -> usize {
        self.iter().filter(|(_, slot)| !slot.record.is_empty()).count()
    }

    /// Whether nothing is stored.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Pairs of genuine records with one version and different bodies seen so far.
    pub fn conflicts(&self) -> u64 {
        self.conflicts
    }

    /// Bytes of memory, estimated from the sizes of what is allocated.
    pub fn memory(&self) -> usize {
        let heap = |slot: &Slot| {
            let edges = if let State::Links(edges) = &slot.state { edges.len() } else { 0 };
            // The allocator's own 16 bytes for each block, as glibc's has them
            slot.record.len() + edges * size_of::<Edge>() + 32
        };
        self.names.memory()
            + self.slots.capacity() * size_of::<[Option<Slot>; 2]>()
            + self.iter().map(|(_, slot)| heap(slot)).sum::<usize>()
            + self.expiries.len() * size_of::<(Time, Key)>() * 3 / 2 // nodes of the tree are two thirds full
            + size_of_val(self.sums.groups().as_slice()) * super::digest::FAN_OUT
    }

    fn store(
        &mut self,
        head: &Head,
        content: &Content,
        record: &[u8],
        print: u64,
        expires: Time,
    ) -> (Key, News) {
        let key = Key { name: self.names.hold(&head.origin), kind: head.kind };
        let state = match content {
            Content::Node(node) => State::Node { forwards: node.relay && node.transit, cost: node.cost },
            Content::Links(links) => State::Links(self.hold_links(links)),
            Content::Withdrawn(_) => State::Withdrawn,
        };
        let news = match self.slot(key) {
            Some(old) if payload(&old.record) == payload(record) => News::Refresh,
            Some(old) if is_worse(&old.state, &state) => News::Bad,
            _ => News::Good,
        };
        self.remove(key);
        if self.slots.len() < self.names.end() {
            self.slots.resize_with(self.names.end(), Default::default);
        }
        let slots = &mut self.slots[key.name.0 as usize];
        self.origins += usize::from(slots.iter().all(Option::is_none));
        slots[key.kind as usize] =
            Some(Slot { version: head.version, fingerprint: print, record: record.into(), expires, state });
        self.expiries.insert((expires, key));
        self.sums.toggle(Bucket::of(&head.origin), print);
        (key, news)
    }

    /// Takes the record at a key away and remembers its version.
    fn purge(&mut self, key: Key, now: Time) {
        let Some(id) = self.names.id(key.name).cloned() else { return };
        let Some(slot) = self.slots.get_mut(key.name.0 as usize).and_then(|s| s[key.kind as usize].as_mut())
        else {
            return;
        };
        self.expiries.remove(&(slot.expires, key));
        slot.expires = now + TOMBSTONE;
        self.expiries.insert((slot.expires, key));
        if !slot.record.is_empty() {
            self.sums.toggle(Bucket::of(&id), slot.fingerprint);
        }
        slot.record = Box::default();
        let state = std::mem::replace(&mut slot.state, State::Purged);
        self.release_links(&state);
    }

    /// Forgets the record at a key altogether, with its mention of the origin.
    fn remove(&mut self, key: Key) {
        let Some(slots) = self.slots.get_mut(key.name.0 as usize) else { return };
        let Some(slot) = slots[key.kind as usize].take() else { return };
        self.origins -= usize::from(slots.iter().all(Option::is_none));
        self.expiries.remove(&(slot.expires, key));
        if !slot.record.is_empty()
            && let Some(id) = self.names.id(key.name)
        {
            self.sums.toggle(Bucket::of(id), slot.fingerprint);
        }
        self.release_links(&slot.state);
        self.names.release(key.name);
    }

    fn hold_links(&mut self, links: &[Listed]) -> Box<[Edge]> {
        let mut edges: Vec<_> = links
            .iter()
            .map(|link| Edge {
                to: self.names.hold(&link.neighbor),
                bits: link.cost.min(super::MAX_COST) | u32::from(link.band.min(3)) << 30,
            })
            .collect();
        edges.sort_unstable_by_key(|edge| edge.to);
        edges.into()
    }

    fn release_links(&mut self, state: &State) {
        if let State::Links(edges) = state {
            edges.iter().for_each(|edge| self.names.release(edge.to));
        }
    }

    fn content(&self, id: &NodeId, kind: Kind) -> Option<Content> {
        let slot = self.slot(self.key(id, kind)?)?;
        Some(Parts::of(&slot.record).ok()?.decode().ok()?.1)
    }

    fn slot(&self, key: Key) -> Option<&Slot> {
        self.slots.get(key.name.0 as usize)?[key.kind as usize].as_ref()
    }

    fn iter(&self) -> impl Iterator<Item = (Key, &Slot)> {
        self.slots.iter().zip(0u32..).flat_map(|(slots, number)| {
            Kind::ALL
                .into_iter()
                .zip(slots)
                .filter_map(move |(kind, slot)| Some((Key { name: Name(number), kind }, slot.as_ref()?)))
        })
    }
}

fn payload(record: &[u8]) -> Option<(&[u8], bool, KeyHash)> {
    let parts = Parts::of(record).ok()?;
    let head = parts.head().ok()?;
    Some((parts.payload(), head.withdrawn, head.key))
}

/// Whether somebody who still believes the old one would send into a gap.
fn is_worse(old: &State, new: &State) -> bool {
    match (old, new) {
        (State::Links(old), State::Links(new)) => {
            old.iter().any(|was| match new.binary_search_by_key(&was.to, |edge| edge.to) {
                Ok(at) => new[at].cost() > was.cost().saturating_mul(2),
                Err(_) => true,
            })
        }
        (State::Node { forwards, .. }, State::Node { forwards: still, .. }) => *forwards && !still,
        (State::Node { .. } | State::Links(_), State::Withdrawn) => true,
        _ => false,
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
