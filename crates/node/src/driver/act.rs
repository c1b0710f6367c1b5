//! Carrying out what the state machines of `core` decide.

use std::time::Instant;

use ffmesh_core::circuit::{Action as CircuitAction, Circuits, Forward};
use ffmesh_core::flood::LinkId;
use ffmesh_core::lsdb::Refusal;
use ffmesh_core::mesh::{Action, Event, Input};

use super::State;
use super::ends::hop;
use crate::clock;
use crate::link::{Link, code};
use crate::metrics::ErrorKind;

impl State {
    /// Hands something that happened to the mesh, and does what it says.
    pub(super) fn hand(&mut self, input: Input) {
        let mut actions = Vec::new();
        let begun = Instant::now();
        self.mesh.handle(input, clock::now(), &mut actions);
        let took = begun.elapsed();
        self.metrics.update(&self.mesh.counters());
        let mut changed = false;
        for action in actions {
            match action {
                Action::Send(link, message) => {
                    if let Some(link) = self.link(link) {
                        link.send(message);
                    }
                }
                Action::Close(link) => {
                    if let Some(link) = self.link(link) {
                        link.close(code::REFUSED, "the key is revoked");
                    }
                }
                Action::RoutesChanged => changed = true,
                Action::Event(event) => self.tell(&event),
            }
        }
        if changed {
            self.metrics.routes_computed(took);
            self.publish();
        }
    }

    fn tell(&mut self, event: &Event) {
        match event {
            Event::Refused(link, refusal) => {
                self.counters.error(ErrorKind::Record);
                let peer = self.link(*link).map(|link| link.node().clone());
                if self.repeats.is_news((&peer, refusal.to_string())) {
                    let peer = peer.as_ref().map(tracing::field::display);
                    match refusal {
                        Refusal::Forged | Refusal::Capability | Refusal::Malformed(_) => {
                            tracing::warn!(peer, "record refused: {refusal}");
                        }
                        _ => tracing::info!(peer, "record refused: {refusal}"),
                    }
                }
            }
            Event::OwnRecordReturned(version) => {
                tracing::info!(
                    epoch = version.epoch,
                    "the mesh remembers a later record of this node; signed anew"
                );
            }
            Event::Found(node) => tracing::debug!(peer = %node, "node found"),
            Event::NotFound(node) => tracing::debug!(peer = %node, "nobody knows the node"),
        }
    }

    /// Lets something happen to the circuits, and does what they say.
    pub(super) fn at_circuits(&mut self, event: impl FnOnce(&mut Circuits, &mut Vec<CircuitAction>)) {
        let mut actions = Vec::new();
        event(&mut self.circuits, &mut actions);
        self.carry_out(actions);
    }

    fn carry_out(&mut self, actions: Vec<CircuitAction>) {
        for action in actions {
            match action {
                CircuitAction::Send(link, message) => {
                    if let Some(link) = self.link(link) {
                        link.send(message);
                    }
                }
                CircuitAction::Install { label, link, to } => {
                    let Some((from, serial)) =
                        self.link(link).and_then(|link| Some((link.address()?, link.serial())))
                    else {
                        continue; // it is gone, which ends the circuit
                    };
                    match to {
                        Forward::Relay { link, label: out } => {
                            if let Some(hop) = self.link(link).and_then(|link| hop(link, out)) {
                                self.labels.install_relay(label, serial, from, hop);
                            }
                        }
                        Forward::Own(circuit) => {
                            if let Some(end) = self.ends.own_end(circuit) {
                                self.labels.install_end(label, serial, from, end);
                            }
                        }
                        Forward::End(circuit) => {
                            if let Some(end) = self.ends.end(&circuit) {
                                self.labels.install_end(label, serial, from, end);
                            }
                        }
                    }
                }
                CircuitAction::Remove(label) => self.labels.remove(label),
                CircuitAction::Opened { id, link, label } => {
                    if let Some(hop) = self.link(link).and_then(|link| hop(link, label)) {
                        self.ends.opened(id, hop);
                    }
                }
                CircuitAction::Failed { id, error } => self.ends.failed(id, error),
                CircuitAction::Closed { id, reason } => self.ends.closed(id, reason),
                CircuitAction::Arrived { key, session, link, label, .. } => {
                    self.ends.arriving(&key, session, link.0);
                    if let Some(hop) = self.link(link).and_then(|link| hop(link, label)) {
                        self.ends.arrive(&key, hop);
                    }
                }
                CircuitAction::Left { key, reason, .. } => self.ends.left(&key, reason),
            }
        }
    }

    fn link(&self, link: LinkId) -> Option<&Link> {
        self.links.get(&link.0)
    }
}
