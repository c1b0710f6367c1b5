//! What labels and virtual addresses stand for.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use ffmesh_core::label::Label;
use ffmesh_udp::mapped;
use tokio::sync::watch;

/// First 6 bytes of virtual addresses. Only this process ever sees them, so they need not be unique.
const PREFIX: [u8; 6] = [0xfd, 0xff, 0x4d, 0x45, 0x53, 0x48];
const PORT: u16 = 1;

/// The virtual address of one slot, as QUIC sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SlotAddr(u64);

impl SlotAddr {
    /// The slot of an address, or `None` where the address is a real one.
    pub fn of(address: SocketAddr) -> Option<Self> {
        let IpAddr::V6(ip) = address.ip() else { return None };
        let [prefix @ .., _, _, b0, b1, b2, b3, b4, b5, b6, b7] = ip.octets();
        (prefix == PREFIX).then_some(Self(u64::from_be_bytes([b0, b1, b2, b3, b4, b5, b6, b7])))
    }
}

impl From<SlotAddr> for SocketAddr {
    fn from(slot: SlotAddr) -> Self {
        let mut octets = [0; 16];
        octets[..6].copy_from_slice(&PREFIX);
        octets[8..].copy_from_slice(&slot.0.to_be_bytes());
        Self::new(Ipv6Addr::from(octets).into(), PORT)
    }
}

/// Where the packets of a slot go now: the first hop of its circuit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hop {
    /// The neighbour's current address
    pub to: SocketAddr,
    /// This node's address on the link to it
    pub from: Option<IpAddr>,
    /// The label that the neighbour accepts
    pub label: Label,
    /// Serial of the link to it
    pub link: u64,
}

#[derive(Debug, Clone, Copy)]
struct Accept {
    slot: SlotAddr,
    from: SocketAddr,
    /// Serial of the link that the label was agreed over.
    link: u64,
}

/// The tables behind [`Labels`].
#[derive(Debug, Default)]
pub(super) struct Table {
    accepts: HashMap<Label, Accept>,
    hops: HashMap<SlotAddr, Hop>,
    /// Addresses that are being dialled, and how often.
    dialling: HashMap<SocketAddr, usize>,
}

impl Table {
    /// Whether a handshake with this address is under way that this node began.
    pub(super) fn is_dialling(&self, address: SocketAddr) -> bool {
        self.dialling.contains_key(&address)
    }

    /// The slot that owns a label, if the packet came from the address of the neighbour that the label is for.
    pub(super) fn accept(&self, label: Label, from: SocketAddr) -> Option<SlotAddr> {
        let accept = self.accepts.get(&label)?;
        (accept.from == from).then_some(accept.slot)
    }

    /// Where a slot's packets go.
    pub(super) fn hop(&self, slot: SlotAddr) -> Option<Hop> {
        self.hops.get(&slot).copied()
    }
}

/// The node's labels, shared by its socket and whoever sets up circuits.
#[derive(Debug, Clone, Default)]
pub struct Labels {
    table: Arc<RwLock<Table>>,
    pointed: Arc<watch::Sender<()>>,
}

impl Labels {
    /// A fresh virtual address, with no route yet.
    pub fn new_slot(&self) -> SlotAddr {
        SlotAddr(rand::random())
    }

    /// A fresh label that is accepted from `from`, the other end of a link, for `slot`.
    pub fn accept_from(&self, slot: SlotAddr, from: SocketAddr, link: u64) -> Label {
        let mut table = self.write();
        loop {
            let label = Label::from_random(rand::random());
            if let Entry::Vacant(entry) = table.accepts.entry(label) {
                entry.insert(Accept { slot, from: mapped(from), link });
                return label;
            }
        }
    }

    /// Marks an address as being dialled, for as long as the guard lives: see [`Dialling`].
    pub fn dialling(&self, address: SocketAddr) -> Dialling {
        let address = mapped(address);
        *self.write().dialling.entry(address).or_default() += 1;
        Dialling { labels: self.clone(), address }
    }

    /// Forgets a label.
    pub fn forget(&self, label: Label) {
        self.write().accepts.remove(&label);
    }

    /// Points a slot at a circuit's first hop.
    pub fn point(&self, slot: SlotAddr, hop: Hop) {
        self.write().hops.insert(slot, hop);
        self.pointed.send_replace(());
    }

    /// Takes a slot's route away, if it is still the one with this label: what it sends from now on is lost.
    pub fn unpoint(&self, slot: SlotAddr, label: Label) {
        let mut table = self.write();
        if table.hops.get(&slot).is_some_and(|hop| hop.label == label) {
            table.hops.remove(&slot);
            drop(table);
            self.pointed.send_replace(());
        }
    }

    /// Where a slot's packets go now.
    pub fn hop(&self, slot: SlotAddr) -> Option<Hop> {
        self.read().hop(slot)
    }

    /// Tells that some slot was pointed or unpointed.
    pub fn pointed(&self) -> watch::Receiver<()> {
        self.pointed.subscribe()
    }

    /// The other end of a link has proved a new address: the labels that were agreed over this link follow.
    pub fn move_link(&self, link: u64, new: SocketAddr) {
        let mut table = self.write();
        for accept in table.accepts.values_mut().filter(|accept| accept.link == link) {
            accept.from = mapped(new);
        }
        for hop in table.hops.values_mut().filter(|hop| hop.link == link) {
            hop.to = new;
            hop.from = None; // the link's local address may be another one, too
        }
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
