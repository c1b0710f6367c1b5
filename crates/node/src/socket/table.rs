//! What labels and virtual addresses stand for.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use ffmesh_core::id::NodeId;
use ffmesh_core::label::Label;
use ffmesh_core::time::Time;
use ffmesh_udp::mapped;

use super::address::{MAX_SLOTS, SessionAddr, SlotAddr};
use super::circuit::{CircuitEnd, Hop, Way};
use super::hash::RandomKeys;
use super::limit::{Allowance, TransitLimit};
use super::peers::{Peers, Place};
use super::relay::{Counters, Transit};
use crate::clock;

/// A label that this node accepts.
#[derive(Debug)]
struct Accept {
    from: SocketAddr,
    /// Serial of the link that the label was agreed over.
    link: u64,
    owner: Owner,
}

/// Whose packets come behind a label.
#[derive(Debug)]
pub(super) enum Owner {
    /// A session's: the circuit ends here
    End(CircuitEnd),
    /// Another node's: the circuit goes on
    Passage(Passage),
}

/// A circuit that passes this node, in one direction.
#[derive(Debug)]
pub(super) struct Passage {
    /// Where it goes on, with the label to swap in
    pub(super) hop: Hop,
    /// Whom its packets come from
    pub(super) from: Place,
    /// Whom they go to
    pub(super) to: Place,
    /// When the last packet came, in microseconds
    used: AtomicU64,
    /// What is left to the link it comes by
    allowance: Arc<Mutex<Allowance>>,
}

impl Passage {
    /// Takes note of a run of packets. Returns whether it may pass.
    pub(super) fn admit(&self, packets: usize, bytes: usize, now: Time) -> bool {
        self.used.store(now.0, Ordering::Relaxed);
        self.allowance.lock().unwrap_or_else(PoisonError::into_inner).take(packets, bytes, now)
    }
}

/// The tables behind [`Labels`].
#[derive(Debug, Default)]
pub(super) struct Table {
    accepts: HashMap<Label, Accept, RandomKeys>,
    ways: HashMap<SlotAddr, Way, RandomKeys>,
    /// Of each link that something is relayed for.
    allowances: HashMap<u64, Arc<Mutex<Allowance>>>,
    peers: Peers,
    /// Addresses that are being dialled, and how often.
    dialling: HashMap<SocketAddr, usize>,
}

impl Table {
    /// Whether a handshake with this address is under way that this node began.
    pub(super) fn is_dialling(&self, address: SocketAddr) -> bool {
        self.dialling.contains_key(&address)
    }

    /// The owner of a label, if the packet came from the address of the neighbour that the label is for.
    pub(super) fn owner(&self, label: Label, from: SocketAddr) -> Option<&Owner> {
        let accept = self.accepts.get(&label)?;
        (accept.from == from).then_some(&accept.owner)
    }

    /// Where a slot's packets go.
    pub(super) fn way(&self, slot: SlotAddr) -> Option<&Way> {
        self.ways.get(&slot)
    }

    fn remove(&mut self, label: Label) {
        let Some(accept) = self.accepts.remove(&label) else { return };
        if let Owner::Passage(passage) = accept.owner {
            // One count is this passage's, one the table's.
            if Arc::strong_count(&passage.allowance) <= 2 {
                self.allowances.remove(&accept.link);
            }
        }
    }
}

/// The node's labels, shared by its socket and whoever sets up circuits. How many there are is theirs to bound.
#[derive(Debug, Clone, Default)]
pub struct Labels {
    table: Arc<RwLock<Table>>,
    limit: TransitLimit,
    transit: Arc<Counters>,
}

impl Labels {
    /// Without any labels. Each link may have so much relayed.
    pub fn new(limit: TransitLimit) -> Self {
        Self { limit, ..Self::default() }
    }

    /// Fresh virtual addresses, whose slots point nowhere yet.
    pub fn new_session(&self) -> SessionAddr {
        SessionAddr::from_random(rand::random())
    }

    /// A link came up: what is relayed over it is counted as its neighbour's. Comes before the labels that are agreed over it.
    pub fn link_up(&self, link: u64, neighbor: &NodeId) {
        self.write().peers.link_up(link, neighbor);
    }

    /// A link is gone. What was counted stays.
    pub fn link_down(&self, link: u64) {
        self.write().peers.link_down(link);
    }

    /// From now on `label` is accepted from `from`, the other end of a link, as the end of a circuit.
    pub fn install_end(&self, label: Label, link: u64, from: SocketAddr, end: CircuitEnd) {
        self.install(label, link, from, |_| Owner::End(end));
    }

    /// From now on what comes behind `label` from `from`, the other end of a link, goes on to `hop`.
    pub fn install_relay(&self, label: Label, link: u64, from: SocketAddr, hop: Hop) {
        self.install(label, link, from, |table| {
            let now = clock::now();
            let (from, to) = (table.peers.of_link(link), table.peers.of_link(hop.link));
            let allowance = table
                .allowances
                .entry(link)
                .or_insert_with(|| Arc::new(Mutex::new(Allowance::new(self.limit, now))))
                .clone();
            Owner::Passage(Passage { hop, from, to, used: AtomicU64::new(now.0), allowance })
        });
    }

    fn install(&self, label: Label, link: u64, from: SocketAddr, owner: impl FnOnce(&mut Table) -> Owner) {
        let mut table = self.write();
        table.remove(label);
        let owner = owner(&mut table);
        table.accepts.insert(label, Accept { from: mapped(from), link, owner });
    }

    /// Forgets a label.
    pub fn remove(&self, label: Label) {
        self.write().remove(label);
    }

    /// Says which circuit a slot's packets take from now on. Without one they are lost.
    pub fn point(&self, slot: SlotAddr, way: Option<Way>) {
        let mut table = self.write();
        let _ = match way {
            Some(way) => table.ways.insert(slot, way),
            None => table.ways.remove(&slot),
        };
    }

    /// Forgets the slots of a session that has ended.
    pub fn forget_session(&self, session: SessionAddr) {
        (0..MAX_SLOTS).for_each(|slot| self.point(session.slot(slot), None));
    }

    /// The other end of a link has proved a new address: all that was agreed over this link follows.
    pub fn move_link(&self, link: u64, new: SocketAddr) {
        let mut table = self.write();
        let Table { accepts, ways, .. } = &mut *table;
        let mut hops: Vec<&mut Hop> = ways.values_mut().map(|way| &mut way.hop).collect();
        for accept in accepts.values_mut() {
            if accept.link == link {
                accept.from = mapped(new);
            }
            if let Owner::Passage(passage) = &mut accept.owner {
                hops.push(&mut passage.hop);
            }
        }
        for hop in hops.into_iter().filter(|hop| hop.link == link) {
            hop.to = new;
            hop.from = None; // the link's local address may be another one, too
        }
    }

    /// The labels of circuits that pass this node and had no packet since `before`.
    pub fn idle_relays(&self, before: Time) -> Vec<Label> {
        let table = self.read();
        let is_idle = |accept: &Accept| match &accept.owner {
            Owner::Passage(passage) => passage.used.load(Ordering::Relaxed) < before.0,
            Owner::End(_) => false,
        };
        table.accepts.iter().filter(|(_, accept)| is_idle(accept)).map(|(label, _)| *label).collect()
    }

    /// What was relayed so far.
    pub fn transit(&self) -> Transit {
        let passes = |accept: &&Accept| matches!(accept.owner, Owner::Passage(_));
        // Each has a label for either direction.
        self.transit.snapshot(self.read().accepts.values().filter(passes).count() / 2)
    }

    /// Bytes relayed so far from each neighbour and to it, by name.
    pub(super) fn peer_bytes(&self) -> Vec<(String, u64, u64)> {
        self.read().peers.bytes(self.transit.peers())
    }

    /// Packets that came to be relayed so far and were no probes.
    pub fn payload_packets(&self) -> u64 {
        self.transit.payload_packets()
    }

    pub(super) fn counters(&self) -> Arc<Counters> {
        self.transit.clone()
    }

    /// Marks an address as being dialled, for as long as the guard lives: see [`Dialling`].
    pub fn dialling(&self, address: SocketAddr) -> Dialling {
        let address = mapped(address);
        *self.write().dialling.entry(address).or_default() += 1;
        Dialling { labels: self.clone(), address }
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Table> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An address that is being dialled.
///
/// noq 1.3.0 knows a dialled path's local address only once the handshake is confirmed. Told of it before, it takes the
/// path for another one and never sends the CONNECTION_CLOSE of a handshake that failed here, so that the other side
/// learns no reason. The socket keeps it to itself for that long.
#[derive(Debug)]
pub struct Dialling {
    labels: Labels,
    address: SocketAddr,
}

impl Drop for Dialling {
    fn drop(&mut self) {
        if let Entry::Occupied(mut entry) = self.labels.write().dialling.entry(self.address) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }
}
