//! A small network of meshes on one virtual clock and one seed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::flood::LinkId;
use crate::id::NodeId;
use crate::lsdb::Kind;
use crate::lsdb::digest::{Bucket, Entry};
use crate::lsdb::fake::{FakeSigner, FakeVerifier, key_of};
use crate::mesh::{Action, Config, Event, Input, LinkUp, Mesh};
use crate::random::Random;
use crate::time::Time;
use crate::wire::{AgedRecord, MAX_ADVERT_LEN, MAX_FRAME_LEN, Message, decode_datagram, encode};

/// Nodes are numbers; those from here on are leaves, without the capability `relay`.
pub(super) const LEAF: usize = 90;

pub(super) fn id(node: usize) -> NodeId {
    if (LEAF..100).contains(&node) { format!("leaf{node}") } else { format!("n{node:05}") }.parse().unwrap()
}

enum Happening {
    Input(usize, Input),
    /// A message on its way over a link from a node
    Arrival(LinkId, usize, Message),
}

pub(super) struct Net {
    pub(super) now: Time,
    pub(super) nodes: BTreeMap<usize, Mesh>,
    pub(super) events: Vec<(usize, Event)>,
    /// Links that are up and their ends
    pub(super) links: BTreeMap<LinkId, (usize, usize)>,
    /// Messages that are lost, in thousandths. A link's stream loses none; a bug might.
    pub(super) loss: u64,
    /// Whether messages overtake each other, and are read back from their frames
    pub(super) rough: bool,
    /// Whether nodes have to ask for certificates
    pub(super) learning: bool,
    pub(super) messages: u64,
    pub(super) bytes: u64,
    pub(super) random: Random,
    /// The first records that were on the wire, for those that replay them
    pub(super) overheard: Vec<AgedRecord>,
    queue: BTreeMap<(Time, u64), Happening>,
    deadlines: BTreeSet<(Time, usize)>,
    deadline_of: BTreeMap<usize, Time>,
    count: u64,
}

impl Net {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            now: Time(1_000_000),
            nodes: BTreeMap::new(),
            events: Vec::new(),
            links: BTreeMap::new(),
            loss: 0,
            rough: true,
            learning: false,
            messages: 0,
            bytes: 0,
            random: Random::new(seed),
            overheard: Vec::new(),
            queue: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            deadline_of: BTreeMap::new(),
            count: 0,
        }
    }

    /// Nodes 0 to `count` - 1, linked to their neighbours in a ring and to those `strides` further on.
    pub(super) fn ring(count: usize, strides: &[usize], seed: u64) -> Self {
        let mut net = Self::new(seed);
        for node in 0..count {
            net.start(node, 1);
        }
        for node in 0..count {
            for stride in strides {
                net.connect(node, (node + stride) % count);
            }
        }
        net
    }

    /// Starts a node, or starts it again: without memory, in epoch `boot`.
    pub(super) fn start(&mut self, node: usize, boot: u64) {
        let own = id(node);
        let relay = !(LEAF..100).contains(&node);
        let config = Config { relay, transit: true, ..Config::default() };
        let verifier = if self.learning { FakeVerifier::learning(&own) } else { FakeVerifier::default() };
        let (signer, seed) = (Box::new(FakeSigner::of(&own)), self.random.bits());
        self.nodes.insert(node, Mesh::new(config, own, boot, signer, Box::new(verifier), seed));
        self.input(node, Input::Tick);
    }

    /// A node is gone without a word; its neighbours notice.
    pub(super) fn crash(&mut self, node: usize) {
        let links: Vec<_> = self.links.iter().filter(|(_, (a, b))| *a == node || *b == node).collect();
        for link in links.into_iter().map(|(link, _)| *link).collect::<Vec<_>>() {
            self.cut(link);
        }
        self.nodes.remove(&node);
        if let Some(old) = self.deadline_of.remove(&node) {
            self.deadlines.remove(&(old, node));
        }
    }

    pub(super) fn link_between(&self, a: usize, b: usize) -> Option<LinkId> {
        let ends = (a.min(b), a.max(b));
        self.links.iter().find(|(_, found)| **found == ends).map(|(link, _)| *link)
    }

    /// Links two nodes, if they are not.
    pub(super) fn connect(&mut self, a: usize, b: usize) -> Option<LinkId> {
        if a == b || self.link_between(a, b).is_some() {
            return None;
        }
        self.count += 1;
        let link = LinkId(self.count);
        self.links.insert(link, (a.min(b), a.max(b)));
        let rtt = Some(Duration::from_millis(2 + (a * 31 + b * 31) as u64 % 17));
        for (at, neighbor) in [(a, b), (b, a)] {
            let neighbor = id(neighbor);
            let up = LinkUp { link, key: key_of(&neighbor), neighbor, cost: 0, rtt };
            self.soon(Happening::Input(at, Input::LinkUp(up)));
        }
        Some(link)
    }

    /// Cuts a link: what is under way is lost, both ends notice.
    pub(super) fn cut(&mut self, link: LinkId) {
        let Some((a, b)) = self.links.remove(&link) else { return };
        self.soon(Happening::Input(a, Input::LinkDown(link)));
        self.soon(Happening::Input(b, Input::LinkDown(link)));
    }

    /// Runs for a time.
    pub(super) fn run(&mut self, time: Duration) {
        let until = self.now + time;
        loop {
            let arrival = self.queue.keys().next().map(|(at, _)| *at);
            let deadline = self.deadlines.first().map(|(at, _)| *at);
            let Some(next) = arrival.into_iter().chain(deadline).min().filter(|at| *at <= until) else {
                break;
            };
            self.now = self.now.max(next);
            if arrival == Some(next) {
                if let Some((_, happening)) = self.queue.pop_first() {
                    self.happen(happening);
                }
            } else if let Some((_, node)) = self.deadlines.first().copied() {
                self.input(node, Input::Tick);
                let next = self.deadline_of.get(&node);
                assert!(next.is_none_or(|at| *at > self.now), "no progress of {node} at {:?}", self.now);
            }
        }
        self.now = until;
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Input(node, input) => self.input(node, input),
            Happening::Arrival(link, from, message) => {
                if let Some((a, b)) = self.links.get(&link) {
                    let to = if *a == from { *b } else { *a };
                    self.input(to, Input::Message(link, message));
                }
            }
        }
    }

    /// Passes an input to a node and carries out what it wants.
    pub(super) fn input(&mut self, node: usize, input: Input) {
        let Some(mesh) = self.nodes.get_mut(&node) else { return };
        let mut actions = Vec::new();
        mesh.handle(input, self.now, &mut actions);
        let next = mesh.next_deadline();
        if let Some(old) = self.deadline_of.remove(&node) {
            self.deadlines.remove(&(old, node));
        }
        if let Some(next) = next {
            self.deadlines.insert((next, node));
            self.deadline_of.insert(node, next);
        }
        for action in actions {
            match action {
                Action::Send(link, message) => self.send(link, node, message),
                Action::Close(link) => self.cut(link),
                Action::RoutesChanged => {}
                Action::Event(event) => self.events.push((node, event)),
            }
        }
    }

    fn send(&mut self, link: LinkId, from: usize, message: Message) {
        let frame = encode(&id(0), &message);
        let records = matches!(message, Message::Advert(_) | Message::FindNodeAck(_));
        assert!(frame.len() <= 4 + if records { MAX_ADVERT_LEN } else { MAX_FRAME_LEN }, "messages bounded");
        self.messages += 1;
        self.bytes += frame.len() as u64;
        if self.rough {
            assert_eq!(decode_datagram(&frame[4..]).unwrap().message, message);
        }
        if let Message::Advert(advert) = &message
            && self.overheard.len() < 200
        {
            self.overheard.extend(advert.records.iter().cloned());
        }
        if self.random.below(1000) >= self.loss {
            self.soon(Happening::Arrival(link, from, message));
        }
    }

    fn soon(&mut self, happening: Happening) {
        self.count += 1;
        // What a node notices of its links keeps its order.
        let message = matches!(happening, Happening::Arrival(..));
        let delay = if self.rough && message { 500 + self.random.below(10_000) } else { 5_000 };
        self.queue.insert((self.now + Duration::from_micros(delay), self.count), happening);
    }

    /// Nodes that can be reached from one over links that are up and relays that may forward.
    pub(super) fn reachable(&self, from: usize) -> BTreeSet<NodeId> {
        let mut seen = BTreeSet::from([from]);
        let mut queue = VecDeque::from([from]);
        while let Some(node) = queue.pop_front() {
            if node != from && (LEAF..100).contains(&node) {
                continue;
            }
            for (a, b) in self.links.values() {
                let other = if *a == node {
                    *b
                } else if *b == node {
                    *a
                } else {
                    continue;
                };
                if self.nodes.contains_key(&other) && seen.insert(other) {
                    queue.push_back(other);
                }
            }
        }
        seen.remove(&from);
        seen.into_iter().map(id).collect()
    }

    /// Checks all that must hold when nothing has happened for long enough.
    pub(super) fn check(&self) {
        self.databases_are_equal_within_each_part();
        self.every_reachable_pair_is_routed_and_no_other();
        self.no_route_loops();
    }

    pub(super) fn databases_are_equal_within_each_part(&self) {
        for (a, b) in self.links.values() {
            let entries = |node: usize| self.nodes[&node].database().entries(|_| true);
            let sums = |node: &usize| self.nodes[node].database().sums();
            if sums(a) != sums(b) {
                let (here, there) = (entries(*a), entries(*b));
                let only = |x: &[(Bucket, Entry)], y: &[(Bucket, Entry)]| {
                    x.iter().filter(|entry| !y.contains(entry)).cloned().collect::<Vec<_>>()
                };
                panic!("{a} only {:?}, {b} only {:?}", only(&here, &there), only(&there, &here));
            }
        }
        for (node, mesh) in &self.nodes {
            for kind in Kind::ALL {
                let (db, own) = (mesh.database(), id(*node));
                let stored = db.key(&own, kind).and_then(|key| db.version(key));
                assert_eq!(stored, Some(mesh.own.version(kind)), "{node} has its own record");
            }
        }
    }

    fn every_reachable_pair_is_routed_and_no_other(&self) {
        for (node, mesh) in &self.nodes {
            assert_eq!(mesh.table().reachable(), self.reachable(*node), "from {node}");
        }
    }

    fn no_route_loops(&self) {
        let numbers: BTreeMap<_, _> = self.nodes.keys().map(|node| (id(*node), *node)).collect();
        for (node, mesh) in &self.nodes {
            for target in mesh.table().reachable() {
                let path = mesh.table().path(&target).unwrap();
                assert_eq!(path.iter().collect::<BTreeSet<_>>().len(), path.len(), "{path:?}");
                for pair in path.windows(2) {
                    let (a, b) = (numbers[&pair[0]], numbers[&pair[1]]);
                    assert!(self.link_between(a, b).is_some(), "{path:?} uses {a}-{b}, which is down");
                }
                // Hop by hop as well: each node's own table leads nearer.
                let (mut at, mut hops) = (*node, 0);
                while id(at) != target {
                    at = numbers[&self.nodes[&at].table().reach(&target).unwrap().next];
                    hops += 1;
                    assert!(hops <= self.nodes.len(), "loop from {node} to {target}");
                }
            }
        }
    }
}
