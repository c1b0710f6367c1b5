//! Another configuration while the node runs.

use std::sync::Arc;

use ffmesh_core::lsdb::MAX_COST;
use ffmesh_core::mesh::Input;

use super::{LEAVE_AFTER, State, Terms, link_id};
use crate::clock;
use crate::link::code;

impl State {
    /// Takes over what the configuration says.
    pub(super) fn configure(&mut self, terms: Terms) {
        if terms == self.terms {
            return;
        }
        let old = std::mem::replace(&mut self.terms, terms);
        let transit = self.relay && self.terms.transit;
        self.circuits.relay(transit && !self.draining);
        self.traces.relay(transit);
        self.hand(Input::SetTransit(self.terms.transit));
        self.hand(Input::SetCost(self.terms.cost));
        self.hand(Input::SetServices(self.terms.services.clone()));
        self.leave(&old);
        self.price_links();
        self.publish();
    }

    /// Begins to leave the links to nodes that are no upstreams any more, so that sessions take other routes first; and
    /// stays where one is an upstream again. A link that the other node dialled, or that was made for a session, stays.
    fn leave(&mut self, old: &Terms) {
        let now = clock::now();
        let upstreams = &self.terms.upstreams;
        let links = &self.links;
        self.leaving
            .retain(|serial, _| links.get(serial).is_some_and(|link| !upstreams.contains_key(link.node())));
        for node in old.upstreams.keys().filter(|node| !upstreams.contains_key(*node)) {
            let Some((link, _)) = self.neighbors.get(node) else { continue };
            if link.dialled() && !link.is_found() {
                tracing::info!(peer = %node, "no upstream any more: other routes are taken, then the link is closed");
                self.leaving.entry(link.serial()).or_insert(now + LEAVE_AFTER);
            }
        }
    }

    /// Brings what is configured for links in line with the configuration and with what is about to be left.
    fn price_links(&mut self) {
        let mut costs = self.terms.upstreams.clone();
        let leaving = self.leaving.keys().filter_map(|serial| self.links.get(serial));
        costs.extend(leaving.map(|link| (link.node().clone(), MAX_COST)));
        let links: Vec<_> = self.links.values().cloned().collect();
        for link in links {
            let cost = costs.get(link.node()).copied().unwrap_or_default();
            self.hand(Input::SetLinkCost(link_id(&link), cost));
        }
        self.upstream_costs = Arc::new(costs);
    }

    /// Closes links whose time to be left has come. One that was replaced meanwhile was dialled by the other node, and
    /// stays.
    pub(super) fn close_left(&mut self) {
        let now = clock::now();
        let left: Vec<_> = self.leaving.extract_if(|_, at| *at <= now).map(|(serial, _)| serial).collect();
        for serial in &left {
            if let Some(link) = self.links.get(serial) {
                link.close(code::GOODBYE, "no upstream any more");
            }
        }
        // What a link that was left or replaced had to cost goes with it.
        let links = &self.links;
        let before = self.leaving.len();
        self.leaving.retain(|serial, _| links.contains_key(serial));
        if !left.is_empty() || self.leaving.len() < before {
            self.price_links();
            self.publish();
        }
    }
}
