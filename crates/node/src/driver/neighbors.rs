//! Links as they come and go, and the table that others read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ffmesh_api::PeerState;
use ffmesh_core::id::NodeId;
use ffmesh_core::mesh::{Input, LinkUp};
use ffmesh_core::neighbor::{Choice, LinkFacts, choose};
use jiff::Timestamp;

use super::routes::{Lost, NodeFacts, RoutingTable};
use super::{State, link_id};
use crate::clock;
use crate::link::{Link, code};
use crate::metrics::ErrorKind;

/// Lost neighbours that are remembered, for `peers` and for telling an unknown node from an unreachable one.
const MAX_LOST: usize = 1_000;

impl State {
    pub(super) fn is_current(&self, link: &Link) -> bool {
        self.links.contains_key(&link.serial())
    }

    /// Decides whether a link may run, and publishes it before its dialler learns so.
    pub(super) fn admit(&mut self, link: &Link) -> Result<(), String> {
        let node = link.node().clone();
        if let Err(conflict) = self.known_keys.check(link.peer()) {
            if self.repeats.is_news((&node, link.peer().key)) {
                let address = link.address().map(tracing::field::display);
                tracing::error!(peer = %node, address, "link refused: {conflict}");
            }
            self.counters.error(ErrorKind::KeyConflict);
            return Err(format!("{node} is bound to another key here"));
        }
        if link.dialled() && !link.is_found() && !self.terms.upstreams.contains_key(&node) {
            return Err(format!("{node} is no upstream any more"));
        }
        let facts =
            |link: &Link, up_since| LinkFacts { epoch: link.epoch(), dialled: link.dialled(), up_since };
        let now = clock::now();
        if let Some((old, up_since)) = self.neighbors.get(&node).cloned() {
            match choose(&self.own, &node, facts(&old, up_since), facts(link, now)) {
                Choice::Old => return Err(format!("there is a link with {node} already")),
                Choice::New => {
                    let why =
                        if link.epoch() == old.epoch() { "replaced by a newer link" } else { "it restarted" };
                    tracing::info!(peer = %node, "link replaced: {why}");
                    old.close(code::REPLACED, why);
                    self.forget_link(&old);
                }
            }
        } else if self.neighbors.len() >= self.terms.max_links {
            self.counters.error(ErrorKind::Limit);
            if self.repeats.is_news((&node, "max_links")) {
                tracing::warn!(peer = %node, limit = self.terms.max_links, "link refused: quic.max_links is reached");
            }
            return Err(format!("this node has all the {} links it takes", self.terms.max_links));
        }
        tracing::info!(
            peer = %node, address = link.address().map(tracing::field::display), dialled = link.dialled(), "link up"
        );
        if !self.neighbors.contains_key(&node) {
            self.changes.link(&node, PeerState::Up, None);
        }
        self.lost.remove(&node);
        self.neighbors.insert(node.clone(), (link.clone(), now));
        self.links.insert(link.serial(), link.clone());
        self.labels.link_up(link.serial(), &node);
        link.learn_certificate(&self.certificates);
        self.circuits.link_up(link_id(link), node.clone());
        let cost = self.terms.upstreams.get(&node).copied().unwrap_or_default();
        let key = link.peer().key.into();
        self.hand(Input::LinkUp(LinkUp { link: link_id(link), neighbor: node, key, cost, rtt: link.rtt() }));
        self.publish();
        Ok(())
    }

    pub(super) fn on_down(&mut self, link: &Link, reason: String, orderly: bool) {
        let node = link.node();
        if !self.is_current(link) {
            return; // it was replaced, which was told then
        }
        if orderly {
            tracing::info!(peer = %node, "link down: {reason}");
        } else {
            tracing::warn!(peer = %node, "link down: {reason}");
            self.counters.error(ErrorKind::LinkDown);
        }
        self.forget_link(link);
        self.traces.link_down(node);
        self.hand(Input::LinkDown(link_id(link)));
        self.neighbors.remove(node);
        if self.lost.len() >= MAX_LOST {
            let oldest = self.lost.iter().min_by_key(|(_, lost)| lost.since).map(|(node, _)| node.clone());
            oldest.and_then(|node| self.lost.remove(&node));
        }
        self.changes.link(node, PeerState::Down, Some(reason.clone()));
        self.lost.insert(node.clone(), Lost { since: Timestamp::now(), reason });
        self.publish();
    }

    /// A link is gone, and every circuit over it.
    fn forget_link(&mut self, link: &Link) {
        self.links.remove(&link.serial());
        self.opens.remove(&link.serial());
        self.at_circuits(|circuits, out| circuits.link_down(link_id(link), out));
        self.labels.link_down(link.serial());
    }

    /// Notes which nodes there are sessions with.
    pub(super) fn follow_use(&mut self) {
        if let Some(in_use) = self.ends.in_use().filter(|in_use| *in_use != self.in_use) {
            self.in_use = in_use;
            self.publish_facts();
        }
    }

    /// Links or routes have changed: replaces what others read.
    pub(super) fn publish(&mut self) {
        self.generation += 1;
        self.publish_facts();
    }

    /// Replaces what others read, with the links and routes that there were.
    fn publish_facts(&mut self) {
        let neighbors: BTreeMap<_, _> =
            self.neighbors.iter().map(|(node, (link, _))| (node.clone(), link.clone())).collect();
        let mut facts = BTreeMap::new();
        let mut wanted = BTreeMap::new();
        for node in &self.in_use {
            let Some(info) = self.mesh.database().node(node) else { continue };
            if let Some(key) = self.mesh.database().key_of(node) {
                facts.insert(node.clone(), NodeFacts { epoch: info.boot, key: key.into() });
            }
            if !neighbors.contains_key(node) && !info.addresses.is_empty() {
                wanted.insert(node.clone(), info.addresses);
            }
        }
        let linked_now: BTreeSet<NodeId> = neighbors.keys().cloned().collect();
        self.table.send_replace(Arc::new(RoutingTable {
            own: self.own.clone(),
            neighbors,
            lost: self.lost.clone(),
            upstream_costs: self.upstream_costs.clone(),
            mesh: self.mesh.table(),
            generation: self.generation,
            facts,
        }));
        // Told before those who dial begin to, and tell of it.
        self.changes.tell_links();
        self.linked.send_if_modified(|linked| {
            let changed = **linked != linked_now;
            *linked = Arc::new(linked_now);
            changed
        });
        self.wanted.send_if_modified(|there| {
            let changed = **there != wanted;
            *there = Arc::new(wanted);
            changed
        });
    }
}
