//! Records that wait for the certificate of their origin.
//!
//! Records carry the hash of a key, not its certificate. A key that is seen for the first time is asked for, at the neighbour
//! that sent the record; what cannot wait for the answer is dropped and comes again with the next comparison of databases.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::flood::LinkId;
use crate::lsdb::KeyHash;
use crate::time::Time;
use crate::wire::{AgedRecord, MAX_CERTIFICATE_KEYS};

/// Memory for waiting records, in bytes: about what a cold join to a mesh of 10,000 nodes brings.
const MAX_BYTES: usize = 8 << 20;
/// What a waiting record takes beside its own bytes, roughly.
const OVERHEAD: usize = 200;
/// Records that wait for one key: two kinds, each from some neighbours.
const MAX_FOR_KEY: usize = 8;
/// How long an answer is awaited before another neighbour is asked.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a record waits.
const MAX_WAIT: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
pub(super) struct Parked {
    keys: BTreeMap<KeyHash, Waiting>,
    bytes: usize,
    to_ask: BTreeMap<LinkId, Vec<KeyHash>>,
    dropped: u64,
}

#[derive(Debug)]
struct Waiting {
    since: Time,
    asked: Time,
    records: Vec<(LinkId, AgedRecord)>,
}

impl Parked {
    /// Keeps a record until [`learnt`](Self::learnt), and asks for its key if that was not done.
    pub(super) fn park(&mut self, key: KeyHash, link: LinkId, record: AgedRecord, now: Time) {
        if self.bytes > MAX_BYTES {
            self.expire(now);
        }
        let size = record.1.0.len() + OVERHEAD;
        let waiting = self.keys.get(&key).map_or(0, |waiting| waiting.records.len());
        if self.bytes + size > MAX_BYTES || waiting >= MAX_FOR_KEY {
            self.dropped += 1;
            return;
        }
        let asks = match self.keys.get(&key) {
            Some(waiting) => now - waiting.asked >= PATIENCE,
            None => true,
        };
        let waiting =
            self.keys.entry(key).or_insert_with(|| Waiting { since: now, asked: now, records: Vec::new() });
        waiting.records.push((link, record));
        self.bytes += size;
        if asks {
            waiting.asked = now;
            self.to_ask.entry(link).or_default().push(key);
        }
    }

    /// Keys to ask for since the last call, in messages of a bounded size.
    pub(super) fn requests(&mut self) -> Vec<(LinkId, Vec<KeyHash>)> {
        std::mem::take(&mut self.to_ask)
            .into_iter()
            .flat_map(|(link, keys)| {
                keys.chunks(MAX_CERTIFICATE_KEYS).map(|keys| (link, keys.to_vec())).collect::<Vec<_>>()
            })
            .collect()
    }

    /// Whether a certificate was asked for; others are not looked at.
    pub(super) fn is_awaited(&self, key: &KeyHash) -> bool {
        self.keys.contains_key(key)
    }

    /// Whether any certificate was asked for.
    pub(super) fn wants_any(&self) -> bool {
        !self.keys.is_empty()
    }

    /// The records that waited for a key.
    pub(super) fn learnt(&mut self, key: &KeyHash) -> Vec<(LinkId, AgedRecord)> {
        let records = self.keys.remove(key).map(|waiting| waiting.records).unwrap_or_default();
        self.bytes -= bytes(&records);
        records
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Drops what has waited for too long.
    pub(super) fn expire(&mut self, now: Time) {
        for (_, waiting) in self.keys.extract_if(.., |_, waiting| now - waiting.since >= MAX_WAIT) {
            self.bytes -= bytes(&waiting.records);
            self.dropped += waiting.records.len() as u64;
        }
    }

    /// When [`expire`](Self::expire) has something to do, at the latest.
    pub(super) fn deadline(&self) -> Option<Time> {
        self.keys.values().map(|waiting| waiting.since + MAX_WAIT).min()
    }
}

fn bytes(records: &[(LinkId, AgedRecord)]) -> usize {
    records.iter().map(|(_, record)| record.1.0.len() + OVERHEAD).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Base64;

    fn record(len: usize) -> AgedRecord {
        AgedRecord(0, Base64(vec![0; len]))
    }

    #[test]
    fn a_key_is_asked_for_once_and_again_after_patience() {
        let (mut parked, key) = (Parked::default(), KeyHash([1; 32]));
        parked.park(key, LinkId(1), record(100), Time(0));
        parked.park(key, LinkId(2), record(100), Time(5));
        assert_eq!(parked.requests(), [(LinkId(1), vec![key])]);
        parked.park(key, LinkId(2), record(100), Time(0) + PATIENCE);
        assert_eq!(parked.requests(), [(LinkId(2), vec![key])]);
        assert_eq!(parked.learnt(&key).len(), 3);
        assert_eq!((parked.bytes, parked.wants_any()), (0, false));
    }

    #[test]
    fn what_waits_is_bounded_in_bytes_and_in_time() {
        let mut parked = Parked::default();
        for n in 0..100_000u32 {
            let mut key = [0; 32];
            key[..4].copy_from_slice(&n.to_be_bytes());
            parked.park(KeyHash(key), LinkId(1), record(1000), Time(0));
        }
        assert!(parked.bytes <= MAX_BYTES && parked.dropped() > 90_000);
        assert!(parked.requests().iter().all(|(_, keys)| keys.len() <= MAX_CERTIFICATE_KEYS));
        parked.expire(Time(0) + MAX_WAIT);
        assert_eq!((parked.bytes, parked.wants_any()), (0, false));
    }
}
