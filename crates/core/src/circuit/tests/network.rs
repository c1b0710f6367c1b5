//! A mesh of circuits without a network: links that keep order, die unnoticed for a while and lose what was on them.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use super::super::{Action, CircuitKey, Circuits, Forward, Limits, RELAY_TIMEOUT};
use crate::flood::LinkId;
use crate::id::NodeId;
use crate::label::Label;
use crate::random::Random;
use crate::time::Time;
use crate::wire::Message;

pub(super) fn id(name: &str) -> NodeId {
    name.parse().unwrap()
}

/// "abc" as the nodes a, b and c.
pub(super) fn route(names: &str) -> Vec<NodeId> {
    names.chars().map(|name| id(&name.to_string())).collect()
}

enum Event {
    Message(Message),
    Down,
}

pub(super) struct Node {
    pub(super) circuits: Circuits,
    /// What a socket would know
    pub(super) labels: HashMap<Label, (LinkId, Forward)>,
    /// Own circuits that are open
    pub(super) open: BTreeMap<u64, (LinkId, Label)>,
    /// Circuits that end here
    pub(super) ends: BTreeMap<CircuitKey, (LinkId, Label)>,
    /// What became of circuits, the latest last
    pub(super) news: Vec<Action>,
    up: BTreeSet<LinkId>,
}

pub(super) struct Network {
    pub(super) nodes: BTreeMap<NodeId, Node>,
    /// Links that carry packets
    pub(super) links: BTreeMap<LinkId, [NodeId; 2]>,
    /// What is under way, by link and receiver
    channels: BTreeMap<(LinkId, NodeId), VecDeque<Event>>,
    /// Nodes that answer nothing
    pub(super) silent: BTreeSet<NodeId>,
    pub(super) now: Time,
    pub(super) random: Random,
    limits: Limits,
    next_link: u64,
}

impl Network {
    pub(super) fn new(names: &str, limits: Limits, seed: u64) -> Self {
        let node = |own: NodeId| {
            let mut circuits = Circuits::new(own.clone(), limits);
            circuits.relay(true);
            let (labels, open, ends) = (HashMap::new(), BTreeMap::new(), BTreeMap::new());
            (own, Node { circuits, labels, open, ends, news: Vec::new(), up: BTreeSet::new() })
        };
        Self {
            nodes: route(names).into_iter().map(node).collect(),
            links: BTreeMap::new(),
            channels: BTreeMap::new(),
            silent: BTreeSet::new(),
            now: Time(0),
            random: Random::new(seed),
            limits,
            next_link: 1,
        }
    }

    /// Nodes that each have a link with the next.
    pub(super) fn chain(names: &str) -> Self {
        let mut net = Self::new(names, Limits::default(), 1);
        for ends in route(names).windows(2) {
            net.connect(&ends[0], &ends[1]);
        }
        net
    }

    pub(super) fn node(&self, name: &str) -> &Node {
        &self.nodes[&id(name)]
    }

    pub(super) fn connect(&mut self, a: &NodeId, b: &NodeId) -> LinkId {
        let link = LinkId(self.next_link);
        self.next_link += 1;
        for (own, other) in [(a, b), (b, a)] {
            let node = self.nodes.get_mut(own).unwrap();
            node.up.insert(link);
            node.circuits.link_up(link, other.clone());
            self.channels.insert((link, own.clone()), VecDeque::new());
        }
        self.links.insert(link, [a.clone(), b.clone()]);
        link
    }

    /// The link between two nodes.
    pub(super) fn link(&self, a: &str, b: &str) -> LinkId {
        let ends = [id(a), id(b)];
        *self.links.iter().find(|(_, others)| others.iter().all(|end| ends.contains(end))).unwrap().0
    }

    /// A link carries nothing any more. Its ends will notice.
    pub(super) fn cut(&mut self, link: LinkId) {
        for end in self.links.remove(&link).unwrap() {
            self.channels.insert((link, end), VecDeque::from([Event::Down]));
        }
    }

    /// Something happens at a node.
    pub(super) fn at<R>(
        &mut self,
        own: &NodeId,
        event: impl FnOnce(&mut Circuits, &mut dyn FnMut() -> u64, Time, &mut Vec<Action>) -> R,
    ) -> R {
        let (mut out, random) = (Vec::new(), &mut self.random);
        let node = self.nodes.get_mut(own).unwrap();
        let result = event(&mut node.circuits, &mut || random.bits(), self.now, &mut out);
        for action in out {
            self.carry_out(own, action);
        }
        result
    }

    fn carry_out(&mut self, own: &NodeId, action: Action) {
        let node = self.nodes.get_mut(own).unwrap();
        match &action {
            Action::Send(link, message) => {
                assert!(node.up.contains(link), "{own} sends over a link that it knows to be down");
                self.send(own, *link, message.clone());
                return;
            }
            Action::Install { label, link, to } => {
                assert!(node.up.contains(link));
                assert_eq!(node.labels.insert(*label, (*link, to.clone())), None, "installed twice");
                return;
            }
            Action::Remove(label) => {
                assert!(node.labels.remove(label).is_some(), "was not installed");
                return;
            }
            Action::Opened { id, link, label } => {
                assert_eq!(node.open.insert(*id, (*link, *label)), None);
            }
            Action::Failed { id, .. } => assert!(!node.open.contains_key(id)),
            Action::Closed { id, .. } => assert!(node.open.remove(id).is_some()),
            Action::Arrived { key, link, label, .. } => {
                assert_eq!(node.ends.insert(key.clone(), (*link, *label)), None);
            }
            Action::Left { key, .. } => assert!(node.ends.remove(key).is_some()),
        }
        node.news.push(action);
    }

    /// What a node sends to the other end of a link, where that is not cut.
    pub(super) fn send(&mut self, own: &NodeId, link: LinkId, message: Message) {
        if let Some(ends) = self.links.get(&link) {
            let other = ends.iter().find(|end| *end != own).unwrap().clone();
            self.channels.get_mut(&(link, other)).unwrap().push_back(Event::Message(message));
        }
    }

    pub(super) fn open(&mut self, id: u64, route: Vec<NodeId>) {
        let first = route[0].clone();
        self.at(&first, |node, random, now, out| node.open(id, route, 7, random, now, out));
    }

    pub(super) fn close(&mut self, own: &NodeId, id: u64) {
        self.at(own, |node, _, _, out| node.close(id, out));
        self.nodes.get_mut(own).unwrap().open.remove(&id);
    }

    /// One event of those under way happens. Returns whether there was one.
    pub(super) fn deliver(&mut self) -> bool {
        let mut busy: Vec<_> = self.channels.iter().filter(|(_, events)| !events.is_empty()).collect();
        if busy.is_empty() {
            return false;
        }
        let place = usize::try_from(self.random.below(busy.len() as u64)).unwrap();
        let (link, own) = busy.swap_remove(place).0.clone();
        match self.channels.get_mut(&(link, own.clone())).unwrap().pop_front().unwrap() {
            Event::Message(_) if self.silent.contains(&own) => {}
            Event::Message(message) => self.at(&own, |node, random, now, out| {
                node.message(link, message, random, now, out);
            }),
            Event::Down => {
                self.at(&own, |node, _, _, out| node.link_down(link, out));
                self.nodes.get_mut(&own).unwrap().up.remove(&link);
                self.channels.remove(&(link, own));
            }
        }
        true
    }

    pub(super) fn settle(&mut self) {
        while self.deliver() {}
    }

    pub(super) fn wait(&mut self, time: Duration) {
        self.now = self.now + time;
        for own in self.nodes.keys().cloned().collect::<Vec<_>>() {
            self.at(&own, |node, _, now, out| node.poll(now, out));
            assert!(self.nodes[&own].circuits.deadline().is_none_or(|deadline| deadline > self.now));
        }
    }

    /// Until nothing is under way and nobody waits.
    pub(super) fn rest(&mut self) {
        self.settle();
        self.wait(RELAY_TIMEOUT);
        self.settle();
        assert!(self.nodes.values().all(|node| node.circuits.deadline().is_none()));
    }

    /// Sends a packet. Returns the nodes that it reaches, and for whom the last one takes it.
    pub(super) fn packet(&self, from: &NodeId, link: LinkId, label: Label) -> (Vec<NodeId>, Option<Forward>) {
        let (mut path, mut link, mut label) = (vec![from.clone()], link, label);
        while let Some(ends) = self.links.get(&link) {
            let here = ends.iter().find(|end| *end != path.last().unwrap()).unwrap();
            path.push(here.clone());
            assert!(path.len() <= 16, "a loop: {path:?}");
            match self.nodes[here].labels.get(&label).filter(|(over, _)| *over == link) {
                None => break,
                Some((_, Forward::Relay { link: next, label: other })) => (link, label) = (*next, *other),
                Some((_, to)) => return (path, Some(to.clone())),
            }
        }
        (path, None)
    }

    /// Whether packets of an own circuit of a node arrive at its other end, and back. Where not, they have not strayed.
    pub(super) fn carries(&self, own: &NodeId, id: u64) -> bool {
        let node = &self.nodes[own];
        let (link, label) = node.open[&id];
        let mut route = node.circuits.route(id).unwrap().to_vec();
        let key = CircuitKey { origin: own.clone(), id };
        let (path, there) = self.packet(own, link, label);
        assert!(route.starts_with(&path), "{path:?} on {route:?}");
        let last = route.last().unwrap().clone();
        let Some((link, label)) = self.nodes[&last].ends.get(&key) else {
            assert_eq!(there, None, "taken for a circuit that has left");
            return false;
        };
        assert!(there.is_none_or(|to| path.len() == route.len() && to == Forward::End(key)));
        let (back, here) = self.packet(&last, *link, *label);
        route.reverse();
        assert!(route.starts_with(&back), "{back:?} on {route:?}");
        assert!(here.as_ref().is_none_or(|to| back.len() == route.len() && *to == Forward::Own(id)));
        path.len() == route.len() && here.is_some()
    }

    /// Own circuits of all nodes that are open.
    pub(super) fn all_open(&self) -> Vec<(NodeId, u64)> {
        let of =
            |(own, node): (&NodeId, &Node)| node.open.keys().map(|id| (own.clone(), *id)).collect::<Vec<_>>();
        self.nodes.iter().flat_map(of).collect()
    }

    /// Asserts that a node knows no more than one to which nothing has happened, and that has the same links.
    pub(super) fn assert_blank(&self) {
        for (own, node) in &self.nodes {
            let mut blank = Circuits::new(own.clone(), self.limits);
            blank.relay(true);
            for link in &node.up {
                let other = self.links[link].iter().find(|end| *end != own).unwrap();
                blank.link_up(*link, other.clone());
            }
            let mut circuits = node.circuits.clone();
            circuits.relay(true);
            assert_eq!(circuits, blank);
            assert!(node.labels.is_empty() && node.open.is_empty() && node.ends.is_empty());
        }
    }
}
