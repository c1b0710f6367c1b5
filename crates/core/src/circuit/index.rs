//! The circuits that a node knows: by name, label, link, route and deadline.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use super::{CircuitKey, Draw};
use crate::flood::LinkId;
use crate::id::NodeId;
use crate::label::Label;
use crate::time::Time;

/// The hop of a circuit on one side of this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Side {
    pub(super) link: LinkId,
    /// What this node accepts. None while it has not said so.
    pub(super) inbound: Option<Label>,
}

/// What a node knows of a circuit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Circuit {
    pub(super) session: u64,
    pub(super) route: Vec<NodeId>,
    /// Towards the first node; none at that node
    pub(super) before: Option<Side>,
    /// Towards the last node; none at that node
    pub(super) after: Option<Side>,
    /// The answer is awaited until then; none once it has come
    pub(super) until: Option<Time>,
}

impl Circuit {
    pub(super) fn sides(&self) -> impl Iterator<Item = Side> {
        self.before.into_iter().chain(self.after)
    }

    /// Whether it passes through this node.
    pub(super) fn is_transit(&self) -> bool {
        self.before.is_some() && self.after.is_some()
    }

    /// Whether it is another node's and ends here.
    fn is_end(&self) -> bool {
        self.before.is_some() && self.after.is_none()
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Neighbor {
    node: NodeId,
    circuits: BTreeSet<CircuitKey>,
    /// Transit circuits that came over this link
    transit: usize,
    /// Circuits that came over this link and end here
    ends: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Index {
    circuits: BTreeMap<CircuitKey, Circuit>,
    labels: HashMap<Label, CircuitKey>,
    links: BTreeMap<LinkId, Neighbor>,
    neighbors: BTreeSet<(NodeId, LinkId)>,
    /// Those that end here, the oldest of each route first
    along: BTreeMap<Vec<NodeId>, VecDeque<u64>>,
    ends: usize,
    deadlines: BTreeSet<(Time, CircuitKey)>,
}

impl Index {
    pub(super) fn link_up(&mut self, link: LinkId, node: NodeId) {
        if self.links.contains_key(&link) {
            return; // numbers are not used again
        }
        self.neighbors.insert((node.clone(), link));
        self.links.insert(link, Neighbor { node, circuits: BTreeSet::new(), transit: 0, ends: 0 });
    }

    /// Forgets a link. Returns its neighbour, and its circuits, which are to be removed now.
    pub(super) fn link_down(&mut self, link: LinkId) -> Option<(NodeId, BTreeSet<CircuitKey>)> {
        let Neighbor { node, circuits, .. } = self.links.remove(&link)?;
        self.neighbors.remove(&(node.clone(), link));
        Some((node, circuits))
    }

    /// The neighbour at the other end of a link that is up.
    pub(super) fn neighbor(&self, link: LinkId) -> Option<&NodeId> {
        self.links.get(&link).map(|neighbor| &neighbor.node)
    }

    /// The newest link to a node.
    pub(super) fn link_to(&self, node: &NodeId) -> Option<LinkId> {
        let all = (node.clone(), LinkId(0))..=(node.clone(), LinkId(u64::MAX));
        self.neighbors.range(all).next_back().map(|(_, link)| *link)
    }

    pub(super) fn get(&self, key: &CircuitKey) -> Option<&Circuit> {
        self.circuits.get(key)
    }

    pub(super) fn by_label(&self, label: Label) -> Option<&CircuitKey> {
        self.labels.get(&label)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&CircuitKey, &Circuit)> {
        self.circuits.iter()
    }

    /// Those along a route that end here, the oldest first.
    pub(super) fn along(&self, route: &[NodeId]) -> Option<&VecDeque<u64>> {
        self.along.get(route)
    }

    pub(super) fn ends(&self) -> usize {
        self.ends
    }

    pub(super) fn transit(&self) -> usize {
        self.links.values().map(|neighbor| neighbor.transit).sum()
    }

    pub(super) fn transit_from(&self, link: LinkId) -> usize {
        self.links.get(&link).map_or(0, |neighbor| neighbor.transit)
    }

    pub(super) fn ends_from(&self, link: LinkId) -> usize {
        self.links.get(&link).map_or(0, |neighbor| neighbor.ends)
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        self.deadlines.first().map(|(until, _)| *until)
    }

    /// A circuit whose answer should have come by now, and from whom.
    pub(super) fn overdue(&self, now: Time) -> Option<(CircuitKey, NodeId)> {
        let (_, key) = self.deadlines.first().filter(|(until, _)| *until <= now)?;
        let after = self.circuits.get(key)?.after?;
        Some((key.clone(), self.neighbor(after.link)?.clone()))
    }

    /// A label that no circuit here has, for this one.
    pub(super) fn accept(&mut self, key: &CircuitKey, random: Draw) -> Label {
        let mut label = Label::from_random(random());
        while self.labels.contains_key(&label) {
            label = Label::from_random(random());
        }
        self.labels.insert(label, key.clone());
        label
    }

    pub(super) fn insert(&mut self, key: CircuitKey, circuit: Circuit) {
        for side in circuit.sides() {
            if let Some(neighbor) = self.links.get_mut(&side.link) {
                neighbor.circuits.insert(key.clone());
            }
        }
        self.count(&circuit, 1);
        if circuit.is_end() {
            self.ends += 1;
            self.along.entry(circuit.route.clone()).or_default().push_back(key.id);
        }
        if let Some(until) = circuit.until {
            self.deadlines.insert((until, key.clone()));
        }
        self.circuits.insert(key, circuit);
    }

    pub(super) fn remove(&mut self, key: &CircuitKey) -> Option<Circuit> {
        let circuit = self.circuits.remove(key)?;
        for side in circuit.sides() {
            if let Some(neighbor) = self.links.get_mut(&side.link) {
                neighbor.circuits.remove(key);
            }
            if let Some(label) = side.inbound {
                self.labels.remove(&label);
            }
        }
        self.count(&circuit, -1);
        if circuit.is_end() {
            self.ends -= 1;
            if let Some(along) = self.along.get_mut(&circuit.route) {
                along.retain(|id| *id != key.id);
                if along.is_empty() {
                    self.along.remove(&circuit.route);
                }
            }
        }
        if let Some(until) = circuit.until {
            self.deadlines.remove(&(until, key.clone()));
        }
        Some(circuit)
    }

    /// The neighbour that was asked has agreed. At a relay returns the link to the node before it, and the label that it may
    /// use now.
    pub(super) fn answered(&mut self, key: &CircuitKey, random: Draw) -> Option<(LinkId, Label)> {
        let circuit = self.circuits.get_mut(key)?;
        if let Some(until) = circuit.until.take() {
            self.deadlines.remove(&(until, key.clone()));
        }
        let link = circuit.before?.link;
        let inbound = self.accept(key, random);
        if let Some(before) = self.circuits.get_mut(key).and_then(|circuit| circuit.before.as_mut()) {
            before.inbound = Some(inbound);
        }
        Some((link, inbound))
    }

    /// Counts a circuit of another node for the link that it came over.
    fn count(&mut self, circuit: &Circuit, by: isize) {
        let came_over = circuit.before.and_then(|before| self.links.get_mut(&before.link));
        if let Some(neighbor) = came_over {
            let count = if circuit.is_end() { &mut neighbor.ends } else { &mut neighbor.transit };
            *count = count.saturating_add_signed(by);
        }
    }
}
