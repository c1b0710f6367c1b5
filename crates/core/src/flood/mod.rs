//! Flooding: how a record gets from its origin to every node.
//!
//! As in OSPF (RFC 2328, section 13) a node passes a record that is new to it on to all neighbours but the one it came from.
//! Links are QUIC streams, which lose nothing while they live, so nothing is acknowledged; what
//! a lost link took along is found by [comparing fingerprints](sync) at link-up and every 10 s.
//!
//! - **Bad news** (a link is gone) goes at once, **good news** waits up to [`BATCH`] for company.
//! - **Damping**: the more often an origin has had news, the longer its next record is held back, by
//!   [`PASSING`]'s delays. A node itself takes everything in at once; only what it passes on is held.
//! - **A queue for each neighbour** holds keys, not records, and is never longer than the database. It goes out at
//!   [`MESSAGE_LEN`] bytes every [`PACE`], so that a cold join does not flood the link.

mod queue;
mod sync;

use std::collections::BTreeMap;
use std::time::Duration;

use queue::Queue;

use crate::backoff::{Backoff, PASSING};
use crate::id::NodeId;
use crate::lsdb::{Database, Key, Name, News};
use crate::time::Time;
use crate::wire::{Advert, AgedRecord, Base64, Message};

/// How long good news may wait for more of it.
pub const BATCH: Duration = Duration::from_millis(50);
/// Records of one ADVERT, in bytes before base64; a longer record goes alone. Leaves room below 64 KiB.
pub const MESSAGE_LEN: usize = 32 << 10;
/// Time between two ADVERTs to one neighbour: at most 3.3 MB/s, and 10,000 nodes take a joining node about 2 s.
pub const PACE: Duration = Duration::from_millis(10);
/// Records of one origin that are taken in within one hold of its damping; more are ignored until it ends. An honest origin
/// sends no more than one or two.
const MAX_WITHIN_HOLD: u32 = 8;

/// A link of this node, named by the caller. Numbers are not used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// What goes where.
pub type Outgoing = Vec<(LinkId, Message)>;

/// Queues and comparisons with all neighbours.
#[derive(Debug, Default)]
pub struct Flood {
    peers: BTreeMap<LinkId, Peer>,
    dampers: BTreeMap<Name, Damper>,
    /// When quiet dampers are next forgotten
    sweep: Time,
    counters: FloodCounters,
}

/// What flooding has done so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FloodCounters {
    /// Records sent in ADVERTs
    pub records_sent: u64,
    /// Digests that found a difference
    pub differences: u64,
    /// DIGESTs and DIGEST_REQUESTs left unanswered because a neighbour sent too many
    pub digests_ignored: u64,
    /// Records left unread because their origin sent too many
    pub damped: u64,
}

#[derive(Debug)]
struct Peer {
    queue: Queue,
    /// When the next ADVERT may go
    paced: Time,
    digests: sync::Digests,
}

#[derive(Debug, Default)]
struct Damper {
    backoff: Backoff,
    release: Time,
    within: u32,
}

impl Flood {
    /// A link came up. The two databases are compared at once.
    pub fn link_up(&mut self, link: LinkId, own: &NodeId, neighbor: &NodeId, now: Time) {
        let digests = sync::Digests::new(own < neighbor, now);
        self.peers.insert(link, Peer { queue: Queue::default(), paced: now, digests });
    }

    /// A link went down. What waited for it is dropped.
    pub fn link_down(&mut self, link: LinkId) {
        self.peers.remove(&link);
    }

    /// Whether records of an origin are to be read now, or there were too many of late.
    pub fn admits(&mut self, origin: Option<Name>, now: Time) -> bool {
        let held = origin.and_then(|name| self.dampers.get(&name));
        let admitted = held.is_none_or(|damper| now >= damper.release || damper.within < MAX_WITHIN_HOLD);
        self.counters.damped += u64::from(!admitted);
        admitted
    }

    /// A record is new here: to all neighbours but the one that it came from.
    pub fn spread(&mut self, key: Key, news: News, from: Option<LinkId>, now: Time) {
        let damper = self.dampers.entry(key.name).or_default();
        let release = damper.backoff.event(PASSING, now);
        damper.within = if release == damper.release { damper.within + 1 } else { 0 };
        damper.release = release;
        for (link, peer) in &mut self.peers {
            if Some(*link) == from {
                peer.queue.remove(key);
            } else if news == News::Bad {
                peer.queue.push(key, release);
            } else {
                peer.queue.push_batched(key, release, BATCH);
            }
        }
    }

    /// A neighbour has what is here: it need not be sent.
    pub fn known(&mut self, key: Key, link: LinkId) {
        if let Some(peer) = self.peers.get_mut(&link) {
            peer.queue.remove(key);
        }
    }

    /// A neighbour lacks what is here.
    pub fn send(&mut self, key: Key, link: LinkId, now: Time) {
        if let Some(peer) = self.peers.get_mut(&link) {
            peer.queue.push(key, now);
        }
    }

    /// Sends what is due.
    pub fn poll(&mut self, db: &Database, now: Time, out: &mut Outgoing) {
        if now >= self.sweep {
            self.dampers.retain(|_, damper| !damper.backoff.is_quiet(PASSING, now));
            self.sweep = now + PASSING.longest * 2;
        }
        for (link, peer) in &mut self.peers {
            if peer.digests.announce(now) {
                out.push((*link, sync::root(db)));
            }
            if now < peer.paced {
                continue;
            }
            let records = take(&mut peer.queue, db, now);
            if !records.is_empty() {
                self.counters.records_sent += records.len() as u64;
                peer.paced = now + PACE;
                out.push((*link, Message::Advert(Advert { records })));
            }
        }
    }

    /// When [`poll`](Self::poll) has something to do.
    pub fn deadline(&self) -> Option<Time> {
        let peer = |peer: &Peer| {
            let queue = peer.queue.deadline().map(|due| due.max(peer.paced));
            queue.into_iter().chain(peer.digests.deadline()).min()
        };
        self.peers.values().filter_map(peer).min()
    }

    /// Records that wait for neighbours, all together.
    pub fn waiting(&self) -> usize {
        self.peers.values().map(|peer| peer.queue.len()).sum()
    }

    /// What happened so far.
    pub fn counters(&self) -> FloodCounters {
        self.counters
    }
}

/// A record for the wire, its age rounded up so that it never gets younger on its way.
pub(crate) fn aged(age: Duration, record: &[u8]) -> AgedRecord {
    let age = u32::try_from(age.as_micros().div_ceil(1_000_000)).unwrap_or(u32::MAX);
    AgedRecord(age, Base64(record.to_vec()))
}

fn take(queue: &mut Queue, db: &Database, now: Time) -> Vec<AgedRecord> {
    let (mut records, mut len) = (Vec::new(), 0);
    while len < MESSAGE_LEN
        && let Some(key) = queue.pop(now)
    {
        let Some((age, record)) = db.record(key, now) else { continue }; // purged meanwhile
        if len > 0 && len + record.len() > MESSAGE_LEN {
            queue.push(key, now);
            break;
        }
        len += record.len();
        records.push(aged(age, record));
    }
    records
}

#[cfg(test)]
mod tests;
