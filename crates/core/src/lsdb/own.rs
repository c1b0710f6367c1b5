//! This node's own records: when they are signed anew, and with which version.
//!
//! Bad news is signed at once, good news within [`BATCH`], the next ones after [`SIGNING`]'s delays; without any a
//! record is signed anew every [`REFRESH`](super::REFRESH). Versions begin at the boot epoch. Where the mesh still has a newer record of this node,
//! from before a restart that lost the epoch, the next one goes above it; so the epoch of a version can be
//! higher than the boot epoch.

use std::time::Duration;

use super::database::{News, REFRESH};
use super::record::{Content, Kind, Version, sign};
use super::trust::{KeyHash, Signer};
use crate::backoff::{Backoff, SIGNING};
use crate::id::NodeId;
use crate::random::Random;
use crate::time::Time;

/// How long good news may wait for more of it: links that come up together are one record.
const BATCH: Duration = Duration::from_millis(50);
/// Percent by which a refresh may come early.
const REFRESH_JITTER: u32 = 25;

/// What this node says about itself, and the key that it signs with.
pub struct Own {
    id: NodeId,
    signer: Box<dyn Signer>,
    records: [OwnRecord; 2],
}

struct OwnRecord {
    content: Option<Content>,
    version: Version,
    backoff: Backoff,
    due: Option<Time>,
}

impl Own {
    /// Says nothing yet.
    pub fn new(id: NodeId, boot: u64, signer: Box<dyn Signer>) -> Self {
        let record = || OwnRecord {
            content: None,
            version: Version { epoch: boot, sequence: 0 },
            backoff: Backoff::default(),
            due: None,
        };
        Self { id, signer, records: [record(), record()] }
    }

    /// This node's id.
    pub fn id(&self) -> &NodeId {
        &self.id
    }

    /// The key that signs.
    pub fn key(&self) -> KeyHash {
        self.signer.key()
    }

    /// What is to be said from now on. The same as before changes nothing.
    pub fn say(&mut self, content: Content, news: News, now: Time) {
        let kind = match &content {
            Content::Node(_) => Kind::Node,
            Content::Links(_) => Kind::Links,
            Content::Withdrawn(kind) => *kind,
        };
        let record = &mut self.records[kind as usize];
        if record.content.as_ref() != Some(&content) {
            record.content = Some(content);
            record.sign_soon(if news == News::Bad { now } else { now + BATCH });
        }
    }

    /// The mesh has a record of this node with this version that is not the one signed last: goes above it.
    pub fn jump(&mut self, kind: Kind, version: Version, now: Time) {
        let record = &mut self.records[kind as usize];
        if version >= record.version {
            record.version = version;
            record.sign_soon(now);
        }
    }

    /// The version signed last.
    pub fn version(&self, kind: Kind) -> Version {
        self.records[kind as usize].version
    }

    /// Takes both records back at once, whatever the delays say.
    pub fn withdraw(&mut self, now: Time) {
        for (record, kind) in self.records.iter_mut().zip(Kind::ALL) {
            record.content = Some(Content::Withdrawn(kind));
            record.due = Some(now);
        }
    }

    /// Signs what is due.
    pub fn sign(&mut self, now: Time, random: &mut Random) -> Vec<Vec<u8>> {
        let mut signed = Vec::new();
        for record in &mut self.records {
            let Some(content) = record.content.as_ref().filter(|_| record.due.is_some_and(|due| due <= now))
            else {
                continue;
            };
            record.version = record.version.next();
            record.due = Some(now + random.jitter(REFRESH, REFRESH_JITTER));
            signed.push(sign(&self.id, record.version, content, self.signer.as_ref()));
        }
        signed
    }

    /// When [`sign`](Self::sign) has something to do.
    pub fn deadline(&self) -> Option<Time> {
        self.records.iter().filter_map(|record| record.due).min()
    }
}

impl OwnRecord {
    fn sign_soon(&mut self, now: Time) {
        if self.content.is_some() {
            let at = self.backoff.event(SIGNING, now);
            self.due = Some(self.due.map_or(at, |due| due.min(at)));
        }
    }
}
