//! Nodes, links and the virtual clock: an event heap that runs each [`Mesh`] as its driver in a node does.
//!
//! Links keep the order of messages and lose none, as QUIC streams do; a lost packet shows as delay. Nodes take no time
//! to compute. All else (who is linked, delays, jitter, loss) comes from one seed.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::{Duration, Instant};

use ffmesh_core::flood::LinkId;
use ffmesh_core::hash::fingerprint;
use ffmesh_core::id::NodeId;
use ffmesh_core::lsdb::record::sign;
use ffmesh_core::lsdb::{Content, Version};
use ffmesh_core::mesh::{Action, Config, Input, LinkUp, Mesh};
use ffmesh_core::random::Random;
use ffmesh_core::time::Time;
use ffmesh_core::wire::{Advert, AgedRecord, Base64, Message, encode};

use crate::keys::{Authority, Keys, key};
use crate::topology::{Pair, index};

/// Payload of one packet, for the chance that a message loses one
const PACKET: usize = 1200;
/// How often a link is measured
const SAMPLE_EVERY: Duration = Duration::from_secs(5);
/// How often a lying member lies
const LIE_EVERY: Duration = Duration::from_secs(1);
/// Events of one moment after which the clock is taken for stuck
const MAX_AT_ONCE: u64 = 50_000_000;

/// What the network is like.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Network {
    /// Longest delay of a link one way; the shortest is a twentieth of it
    pub(crate) delay: Duration,
    /// Packets lost, per mille
    pub(crate) loss: u64,
    /// A neighbour notices a change of a link within this time
    pub(crate) detection: Duration,
}

#[derive(Debug, PartialEq, Eq)]
enum Event {
    Tick(usize),
    /// A message over a link, to the end of this number
    Deliver(LinkId, usize, Box<Message>),
    /// A node notices that a link is gone.
    Lost(usize, LinkId),
    /// A link is measured at both ends.
    Sample(LinkId),
    Lie(usize),
}

/// One node of the world.
pub(crate) struct Host {
    pub(crate) id: NodeId,
    /// None while it is not running
    pub(crate) mesh: Option<Mesh>,
    boot: u64,
    tick: Option<Time>,
    pub(crate) bytes_sent: u64,
    pub(crate) messages_sent: u64,
    /// Fingerprint of what the table says, and since when
    table: (u64, Time),
}

/// A wire between two nodes.
struct Wire {
    ends: Pair,
    delay: Duration,
    up: Option<LinkId>,
    /// When the last message arrives at each end
    last: [Time; 2],
}

/// The world.
pub(crate) struct World {
    pub(crate) now: Time,
    network: Network,
    random: Random,
    queue: BinaryHeap<Reverse<(Time, u64)>>,
    events: BTreeMap<u64, Event>,
    next_event: u64,
    pub(crate) hosts: Vec<Host>,
    wires: Vec<Wire>,
    /// Links that are up
    links: BTreeMap<LinkId, usize>,
    next_link: u64,
    /// Whether measurements waver, as they do; off while a single change is watched
    pub(crate) wavering: bool,
    /// Real time of the calls in which routes were computed
    pub(crate) spf_times: Vec<Duration>,
}

impl World {
    /// `nodes` nodes that are not started yet, with wires between them that are down.
    pub(crate) fn new(nodes: usize, wires: &[Pair], network: Network, seed: u64) -> Self {
        let mut world = Self {
            now: Time(1_000_000),
            network,
            random: Random::new(seed),
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            next_event: 0,
            hosts: Vec::new(),
            wires: Vec::new(),
            links: BTreeMap::new(),
            next_link: 0,
            wavering: false,
            spf_times: Vec::new(),
        };
        (0..nodes).for_each(|_| world.add_host());
        for ends in wires {
            world.add_wire(*ends);
        }
        world
    }

    /// A node that is not started yet.
    pub(crate) fn add_host(&mut self) {
        let id = format!("n{:05x}", self.hosts.len()).parse();
        let id = id.unwrap_or_else(|error| unreachable!("the id {error}"));
        let (mesh, tick, table) = (None, None, (0, self.now));
        self.hosts.push(Host { id, mesh, boot: 0, tick, bytes_sent: 0, messages_sent: 0, table });
    }

    /// A wire that is down.
    pub(crate) fn add_wire(&mut self, ends: Pair) -> usize {
        let longest = u64::try_from(self.network.delay.as_micros()).unwrap_or(u64::MAX);
        let delay = Duration::from_micros((longest / 20 + self.random.below(longest - longest / 20)).max(1));
        self.wires.push(Wire { ends, delay, up: None, last: [self.now; 2] });
        self.wires.len() - 1
    }

    /// Starts a node, or starts it again.
    pub(crate) fn start(&mut self, node: usize) {
        let seed = self.random.bits();
        let host = &mut self.hosts[node];
        host.boot += 1;
        let config = Config {
            relay: true,
            transit: true,
            addresses: format!("192.0.2.{}:8443", node % 250).parse().into_iter().collect(),
            ..Config::default()
        };
        let (signer, id) = (Box::new(Keys(host.id.clone())), host.id.clone());
        host.mesh = Some(Mesh::new(config, id, host.boot, signer, Box::new(Authority), seed));
        host.tick = None;
        self.input(node, Input::Tick);
    }

    /// A node is gone, and all its links. Returns when all neighbours have noticed.
    pub(crate) fn crash(&mut self, node: usize) -> Time {
        self.hosts[node].mesh = None;
        let wires = self.wires_of(node);
        wires.into_iter().map(|wire| self.cut(wire)).max().unwrap_or(self.now)
    }

    /// The wires of a node.
    pub(crate) fn wires_of(&self, node: usize) -> Vec<usize> {
        let at = |wire: &Wire| wire.ends.0 == node || wire.ends.1 == node;
        (0..self.wires.len()).filter(|wire| at(&self.wires[*wire])).collect()
    }

    /// The ends of a wire, and whether it is up.
    pub(crate) fn wire(&self, wire: usize) -> (Pair, bool) {
        (self.wires[wire].ends, self.wires[wire].up.is_some())
    }

    /// How many wires there are, up or not.
    pub(crate) fn wire_count(&self) -> usize {
        self.wires.len()
    }

    /// A wire is cut. Returns when the first end has noticed: a link counts only when both list it.
    pub(crate) fn cut(&mut self, wire: usize) -> Time {
        let Some(link) = self.wires[wire].up.take() else { return self.now };
        self.links.remove(&link);
        let window = u64::try_from(self.network.detection.as_micros()).unwrap_or(u64::MAX);
        let (a, b) = self.wires[wire].ends;
        let noticed = [a, b].map(|end| {
            let at = self.now + Duration::from_micros(self.random.below(window.max(1)));
            self.schedule(at, Event::Lost(end, link));
            self.hosts[end].mesh.as_ref().map(|_| at)
        });
        noticed.into_iter().flatten().min().unwrap_or(self.now)
    }

    /// A wire works, if both ends run: they link up now.
    pub(crate) fn join(&mut self, wire: usize) {
        let ((a, b), delay) = (self.wires[wire].ends, self.wires[wire].delay);
        if self.wires[wire].up.is_some() || [a, b].iter().any(|end| self.hosts[*end].mesh.is_none()) {
            return;
        }
        let link = LinkId(self.next_link);
        self.next_link += 1;
        (self.wires[wire].up, self.wires[wire].last) = (Some(link), [self.now; 2]);
        self.links.insert(link, wire);
        for (end, other) in [(a, b), (b, a)] {
            let neighbor = self.hosts[other].id.clone();
            let (key, rtt) = (key(&neighbor), Some(delay * 2));
            self.input(end, Input::LinkUp(LinkUp { link, neighbor, key, cost: 0, rtt }));
        }
        let first = Duration::from_micros(self.random.below(5_000_000));
        self.schedule(self.now + first, Event::Sample(link));
    }

    /// From now on a node lies to its neighbours every second.
    pub(crate) fn lie(&mut self, node: usize) {
        self.schedule(self.now + LIE_EVERY, Event::Lie(node));
    }

    /// Runs all events up to `until`.
    pub(crate) fn run(&mut self, until: Time) -> Result<(), String> {
        let mut at_once = 0;
        while let Some(Reverse((at, number))) = self.queue.peek().copied()
            && at <= until
        {
            self.queue.pop();
            at_once = if at > self.now { 0 } else { at_once + 1 };
            if at_once >= MAX_AT_ONCE {
                return Err(format!("the clock stands at {:?}: a deadline is not kept", self.now));
            }
            self.now = at;
            if let Some(event) = self.events.remove(&number) {
                self.step(event);
            }
        }
        self.now = until;
        Ok(())
    }

    /// When the last of the tables changed.
    pub(crate) fn settled(&self) -> Time {
        let running = self.hosts.iter().filter(|host| host.mesh.is_some());
        running.map(|host| host.table.1).max().unwrap_or(self.now)
    }

    fn step(&mut self, event: Event) {
        match event {
            Event::Tick(node) => {
                if self.hosts[node].tick == Some(self.now) {
                    self.hosts[node].tick = None;
                    self.input(node, Input::Tick);
                }
            }
            Event::Deliver(link, to, message) => {
                if self.links.contains_key(&link) {
                    self.input(to, Input::Message(link, *message));
                }
            }
            Event::Lost(node, link) => self.input(node, Input::LinkDown(link)),
            Event::Sample(link) => {
                let Some(wire) = self.links.get(&link).map(|wire| &self.wires[*wire]) else { return };
                let (ends, rtt) = (wire.ends, wire.delay * 2);
                for end in [ends.0, ends.1] {
                    // The least of five PINGs, each of which waits up to half of it again in queues
                    let busy = (0..5).map(|_| self.random.below(51)).min().unwrap_or_default();
                    let busy = u32::try_from(busy).unwrap_or_default() * u32::from(self.wavering);
                    let rtt = Some(rtt + rtt * busy / 100);
                    self.input(end, Input::LinkSample { link, rtt, loss: 0 });
                }
                self.schedule(self.now + SAMPLE_EVERY, Event::Sample(link));
            }
            Event::Lie(node) => {
                for (link, message) in self.lies(node) {
                    self.send(node, link, message);
                }
                self.schedule(self.now + LIE_EVERY, Event::Lie(node));
            }
        }
    }

    fn input(&mut self, node: usize, input: Input) {
        let host = &mut self.hosts[node];
        let Some(mesh) = host.mesh.as_mut() else { return };
        let mut actions = Vec::new();
        let start = Instant::now();
        mesh.handle(input, self.now, &mut actions);
        let took = start.elapsed();
        if let Some(next) = mesh.next_deadline().map(|next| next.max(self.now))
            && host.tick.is_none_or(|tick| tick > next)
        {
            host.tick = Some(next);
            self.schedule(next, Event::Tick(node));
        }
        for action in actions {
            match action {
                Action::Send(link, message) => self.send(node, link, message),
                Action::RoutesChanged => {
                    self.spf_times.push(took);
                    self.compare(node);
                }
                Action::Close(_) | Action::Event(_) => {}
            }
        }
    }

    fn send(&mut self, from: usize, link: LinkId, message: Message) {
        let Some(wire) = self.links.get(&link).copied() else { return };
        let (a, b) = self.wires[wire].ends;
        let (end, to) = if a == from { (1, b) } else { (0, a) };
        let len = encode(&self.hosts[to].id, &message).len();
        self.hosts[from].bytes_sent += len as u64;
        self.hosts[from].messages_sent += 1;
        let mut delay = self.wires[wire].delay;
        for _ in 0..len.div_ceil(PACKET) {
            if self.network.loss > 0 && self.random.below(1000) < self.network.loss {
                // Found by later packets or a probe, and sent again
                delay += self.wires[wire].delay * 3 + Duration::from_millis(25);
            }
        }
        let at = (self.now + delay).max(self.wires[wire].last[end]);
        self.wires[wire].last[end] = at;
        self.schedule(at, Event::Deliver(link, to, Box::new(message)));
    }

    fn schedule(&mut self, at: Time, event: Event) {
        self.queue.push(Reverse((at, self.next_event)));
        self.events.insert(self.next_event, event);
        self.next_event += 1;
    }

    /// Notes when a node's table says something new.
    fn compare(&mut self, node: usize) {
        let host = &mut self.hosts[node];
        let Some(mesh) = host.mesh.as_ref() else { return };
        let table = mesh.table();
        let mut sum = 0u64;
        for id in (0..).map_while(|number| table.index().id(number)) {
            if let Some(reach) = table.reach(id) {
                let line =
                    [id.as_str().as_bytes(), reach.next.as_str().as_bytes(), &reach.cost.to_be_bytes()];
                sum = sum.wrapping_add(fingerprint(&line.concat()));
            }
        }
        if sum != host.table.0 {
            host.table = (sum, self.now);
        }
    }

    /// What a lying member sends: a record of somebody else signed with its own key, one whose signature is noise, an old record
    /// of somebody else, and bytes that are no record.
    fn lies(&mut self, node: usize) -> Vec<(LinkId, Message)> {
        // Never the liar itself: that record would be genuine.
        let victim = (node + 1 + index(&mut self.random, self.hosts.len() - 1)) % self.hosts.len();
        let epoch = self.random.bits() >> 1;
        let (liar, victim) = (&self.hosts[node], &self.hosts[victim].id);
        if liar.mesh.is_none() {
            return Vec::new();
        }
        let version = Version { epoch, sequence: 9 };
        let nothing = Content::Links(Vec::new());
        let foreign = sign(victim, version, &nothing, &Keys(liar.id.clone()));
        let mut noise = sign(victim, version, &nothing, &Keys(victim.clone()));
        noise[5] ^= 1;
        let old = sign(victim, Version { epoch: 0, sequence: 0 }, &nothing, &Keys(victim.clone()));
        let records = [foreign, noise, old, vec![0xff; 300]];
        let records: Vec<_> = records.into_iter().map(|record| AgedRecord(0, Base64(record))).collect();
        let links = self.links.iter().filter(|(_, wire)| {
            let (a, b) = self.wires[**wire].ends;
            a == node || b == node
        });
        links.map(|(link, _)| (*link, Message::Advert(Advert { records: records.clone() }))).collect()
    }
}
