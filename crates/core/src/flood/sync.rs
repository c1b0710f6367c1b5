//! Comparing two databases: one fingerprint of everything, then down to where they differ.
//!
//! Of two neighbours the one with the lower id **announces** its root at link-up and every [`ANNOUNCE`]; the
//! other one **compares**. Then both do the same with what comes back, level by level:
//!
//! | comes | and differs in | goes back |
//! | --- | --- | --- |
//! | root | anything | 32 sums of the groups |
//! | sums of groups | some groups | 32 sums of the buckets of each |
//! | sums of buckets | some buckets | the list of each; where the neighbour has nothing, the records |
//! | list of a bucket | some records | ADVERT with what it lacks, DIGEST_REQUEST for what is lacking here |
//! | DIGEST_REQUEST | | ADVERT |
//!
//! Nothing is remembered between two messages, so none can be lost or come twice with harm. A record under way makes two
//! databases differ for a moment, which costs a few hundred bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Flood, LinkId, Outgoing};
use crate::lsdb::digest::{Bucket, Entry};
use crate::lsdb::{Database, Key, Kind, Version};
use crate::time::Time;
use crate::wire::{Digest, DigestRequest, ListedRecord, MAX_DIGEST_ENTRIES, Message, Sum, SumList};

/// How often two neighbours compare their databases.
pub(super) const ANNOUNCE: Duration = Duration::from_secs(10);
/// DIGESTs and DIGEST_REQUESTs of one neighbour that are answered within one [`WINDOW`]. A cold join to 10,000 nodes takes about 60.
const MAX_IN_WINDOW: u32 = 256;
const WINDOW: Duration = Duration::from_secs(1);

/// The comparison with one neighbour.
#[derive(Debug)]
pub(super) struct Digests {
    announce: Option<Time>,
    window: Time,
    answered: u32,
}

impl Digests {
    pub(super) fn new(announces: bool, now: Time) -> Self {
        Self { announce: announces.then_some(now), window: now, answered: 0 }
    }

    /// Whether to announce now.
    pub(super) fn announce(&mut self, now: Time) -> bool {
        let due = self.announce.is_some_and(|at| at <= now);
        if due {
            self.announce = Some(now + ANNOUNCE);
        }
        due
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        self.announce
    }

    fn admits(&mut self, now: Time) -> bool {
        if now - self.window >= WINDOW {
            (self.window, self.answered) = (now, 0);
        }
        self.answered += 1;
        self.answered <= MAX_IN_WINDOW
    }
}

/// The announcement.
pub(super) fn root(db: &Database) -> Message {
    Message::Digest(Digest::Root(Sum(db.sums().root())))
}

impl Flood {
    /// Answers a DIGEST.
    pub fn digest(&mut self, link: LinkId, digest: &Digest, db: &Database, now: Time, out: &mut Outgoing) {
        if !self.answers(link, now) {
            return;
        }
        match digest {
            Digest::Root(theirs) if theirs.0 != db.sums().root() => {
                self.counters.differences += 1;
                out.push((link, Message::Digest(Digest::Groups(SumList::new(db.sums().groups())))));
            }
            Digest::Groups(theirs) => {
                let ours = db.sums().groups();
                let differ = ours.iter().zip(theirs.sums()).zip(0u8..).filter(|((a, b), _)| a != b);
                let buckets: Vec<_> =
                    differ.map(|(_, g)| (g, SumList::new(db.sums().buckets(g.into()).to_vec()))).collect();
                if !buckets.is_empty() {
                    out.push((link, Message::Digest(Digest::Buckets(buckets))));
                }
            }
            Digest::Buckets(theirs) => self.buckets(link, theirs, db, now, out),
            Digest::Entries(theirs) => self.entries(link, theirs, db, now, out),
            Digest::Root(_) | Digest::Unknown(_) => {}
        }
    }

    /// Answers a DIGEST_REQUEST.
    pub fn request(&mut self, link: LinkId, request: &DigestRequest, db: &Database, now: Time) {
        if self.answers(link, now) {
            for (origin, kind) in &request.records {
                if let Some(key) = Kind::of(*kind).and_then(|kind| db.key(origin, kind)) {
                    self.send(key, link, now);
                }
            }
        }
    }

    fn answers(&mut self, link: LinkId, now: Time) -> bool {
        let Some(peer) = self.peers.get_mut(&link) else { return false };
        let answers = peer.digests.admits(now);
        self.counters.digests_ignored += u64::from(!answers);
        answers
    }

    fn buckets(
        &mut self,
        link: LinkId,
        theirs: &[(u8, SumList)],
        db: &Database,
        now: Time,
        out: &mut Outgoing,
    ) {
        // Buckets that differ, and whether the neighbour has anything in them.
        let mut differ = BTreeMap::new();
        for (group, theirs) in theirs {
            let ours = db.sums().buckets((*group).into());
            for ((ours, theirs), bucket) in
                ours.iter().zip(theirs.sums()).zip(Bucket::all_of((*group).into()))
            {
                if ours != theirs {
                    differ.insert(bucket, *theirs != 0);
                }
            }
        }
        let mut lists: BTreeMap<Bucket, Vec<ListedRecord>> =
            differ.iter().filter(|(_, any)| **any).map(|(bucket, _)| (*bucket, Vec::new())).collect();
        for (bucket, entry) in db.entries(|bucket| differ.contains_key(&bucket)) {
            if let Some(list) = lists.get_mut(&bucket) {
                list.push(listed(entry));
            } else if let Some(key) = db.key(&entry.origin, entry.kind) {
                self.send(key, link, now);
            }
        }
        let mut message = (Vec::new(), 0);
        for (bucket, mut list) in lists {
            list.truncate(MAX_DIGEST_ENTRIES); // a bucket of more is brought in line in several rounds
            let len = list.len().max(1);
            if message.1 + len > MAX_DIGEST_ENTRIES {
                out.push((link, Message::Digest(Digest::Entries(std::mem::take(&mut message.0)))));
                message.1 = 0;
            }
            message.0.push((bucket.0, list));
            message.1 += len;
        }
        if !message.0.is_empty() {
            out.push((link, Message::Digest(Digest::Entries(message.0))));
        }
    }

    fn entries(
        &mut self,
        link: LinkId,
        theirs: &[(u16, Vec<ListedRecord>)],
        db: &Database,
        now: Time,
        out: &mut Outgoing,
    ) {
        let mut current: BTreeSet<Key> = BTreeSet::new(); // what the neighbour has as new as here, or newer
        let mut lacking = Vec::new();
        for (bucket, list) in theirs {
            for ListedRecord(origin, kind, epoch, sequence, fingerprint) in list {
                let Some(kind) = Kind::of(*kind).filter(|_| Bucket::of(origin).0 == *bucket) else {
                    continue;
                };
                let version = Version { epoch: *epoch, sequence: *sequence };
                let entry = Entry { origin: origin.clone(), kind, version, fingerprint: fingerprint.0 };
                let lacks = db.lacks(&entry);
                if lacks {
                    lacking.push((origin.clone(), kind as u8));
                }
                if let Some(key) = db.key(origin, kind)
                    && (lacks || db.fingerprint(key) == Some(fingerprint.0))
                {
                    current.insert(key);
                }
            }
        }
        let compared: BTreeSet<_> = theirs.iter().map(|(bucket, _)| Bucket(*bucket)).collect();
        for (_, entry) in db.entries(|bucket| compared.contains(&bucket)) {
            if let Some(key) = db.key(&entry.origin, entry.kind)
                && !current.contains(&key)
            {
                self.send(key, link, now);
            }
        }
        for records in lacking.chunks(MAX_DIGEST_ENTRIES) {
            out.push((link, Message::DigestRequest(DigestRequest { records: records.to_vec() })));
        }
    }
}

fn listed(entry: Entry) -> ListedRecord {
    let Version { epoch, sequence } = entry.version;
    ListedRecord(entry.origin, entry.kind as u8, epoch, sequence, Sum(entry.fingerprint))
}
