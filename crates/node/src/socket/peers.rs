//! How many bytes were relayed from and to each neighbour.
//!
//! Each neighbour has a place in two arrays of a fixed size, which the circuits over its links know: a run of packets costs
//! two additions, without a lock or a look-up.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use ffmesh_core::id::NodeId;

/// Neighbours that are counted by name, also after their links have gone: four times as many as the default of
/// `quic.max_links`, and a bound for what nodes that come and go cost.
pub(super) const MAX_PEERS: usize = 4_096;
/// What those beyond are counted as.
const OTHER: &str = "(other)";

/// A neighbour's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Place(u16);

/// The bytes of each place, labels included. The first place is that of all who have none of their own.
#[derive(Debug)]
pub(super) struct PeerBytes {
    received: Box<[AtomicU64]>,
    sent: Box<[AtomicU64]>,
}

impl Default for PeerBytes {
    fn default() -> Self {
        let zeros = || (0..=MAX_PEERS).map(|_| AtomicU64::new(0)).collect();
        Self { received: zeros(), sent: zeros() }
    }
}

impl PeerBytes {
    /// Counts bytes that came from a neighbour to be relayed.
    pub(super) fn received(&self, from: Place, bytes: usize) {
        self.received[usize::from(from.0)].fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Counts bytes that were relayed to a neighbour.
    pub(super) fn sent(&self, to: Place, bytes: usize) {
        self.sent[usize::from(to.0)].fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// Who has which place.
#[derive(Debug, Default)]
pub(super) struct Peers {
    places: HashMap<NodeId, Place>,
    links: HashMap<u64, Place>,
}

impl Peers {
    /// A link to a neighbour came up.
    pub(super) fn link_up(&mut self, link: u64, node: &NodeId) {
        let free = u16::try_from(self.places.len() + 1).ok().filter(|place| usize::from(*place) <= MAX_PEERS);
        let place = match (self.places.get(node), free) {
            (Some(place), _) => *place,
            (None, Some(free)) => {
                self.places.insert(node.clone(), Place(free));
                Place(free)
            }
            (None, None) => Place::default(),
        };
        self.links.insert(link, place);
    }

    /// A link is gone.
    pub(super) fn link_down(&mut self, link: u64) {
        self.links.remove(&link);
    }

    /// The place of the neighbour at the other end of a link.
    pub(super) fn of_link(&self, link: u64) -> Place {
        self.links.get(&link).copied().unwrap_or_default()
    }

    /// The bytes relayed from each neighbour and to it, by name.
    pub(super) fn bytes(&self, bytes: &PeerBytes) -> Vec<(String, u64, u64)> {
        let named = self.places.iter().map(|(node, place)| (node.to_string(), *place));
        let mut all: Vec<_> = named
            .chain([(OTHER.to_owned(), Place::default())])
            .map(|(peer, Place(place))| {
                let of = |counts: &[AtomicU64]| counts[usize::from(place)].load(Ordering::Relaxed);
                (peer, of(&bytes.received), of(&bytes.sent))
            })
            .filter(|(peer, received, sent)| peer != OTHER || received + sent > 0)
            .collect();
        all.sort_unstable();
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_neighbour_keeps_its_count_over_its_links_and_there_is_a_bound() {
        let (mut peers, bytes) = (Peers::default(), PeerBytes::default());
        let node = |i: usize| format!("n{i}").parse::<NodeId>().unwrap();
        for link in [1, 2] {
            peers.link_up(link, &node(0));
            bytes.received(peers.of_link(link), 5);
            bytes.sent(peers.of_link(link), 1);
            peers.link_down(link);
        }
        assert_eq!(peers.bytes(&bytes), [("n0".to_owned(), 10, 2)]);
        for i in 0..MAX_PEERS + 2 {
            peers.link_up(i as u64, &node(i));
            bytes.sent(peers.of_link(i as u64), 1);
        }
        let all = peers.bytes(&bytes);
        assert_eq!((all.len(), all[0].clone()), (MAX_PEERS + 1, ("(other)".to_owned(), 0, 2)));
    }
}
