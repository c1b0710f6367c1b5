//! Two nodes, the circuits between them and their traffic on one virtual clock, in steps of [`TICK`].

use std::collections::BTreeMap;
use std::time::Duration;

use crate::random::Random;
use crate::select::Offer;
use crate::steer::{Decider, Finding, Follower, FollowerStep, Kind, Map, Path, Probe, Step};
use crate::time::Time;

pub(super) const TICK: Duration = Duration::from_micros(500);
/// How long it takes to set up a circuit.
const OPENING: Duration = Duration::from_millis(20);

pub(super) const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// A route by a number: over one relay of that name.
pub(super) fn path(route: usize) -> Path {
    ["a".to_owned(), format!("r{route}"), "b".to_owned()].iter().map(|name| name.parse().unwrap()).collect()
}

/// A node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Node {
    Decider,
    Follower,
}

/// How a route is. Circuits along it are as it is.
#[derive(Debug, Clone)]
pub(super) struct Road {
    pub(super) rtt: Duration,
    /// One-way delays grow by up to this
    pub(super) jitter: Duration,
    /// Of 1000 packets, each way
    pub(super) loss: u64,
    /// Whether the relay drops packets on the way to the Decider, to the Follower
    pub(super) cut: [bool; 2],
    /// Whether circuits can be set up
    pub(super) refuses: bool,
}

/// What a socket has seen last on a circuit.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    heard: Time,
    heard_data: Time,
    sent_data: Time,
}

#[derive(Debug, Clone, Copy)]
enum Packet {
    Data,
    Ack,
    Probe(Probe),
}

/// A packet of a circuit on its way to the relay (and how long it takes from there on), or from it.
type Flight = (u64, Node, Packet, Option<Duration>);

pub(super) struct Net {
    pub(super) now: Time,
    pub(super) decider: Decider,
    pub(super) follower: Follower,
    pub(super) roads: Vec<Road>,
    /// Which route each circuit follows
    pub(super) circuits: BTreeMap<u64, usize>,
    seen: BTreeMap<u64, [Seen; 2]>,
    flying: BTreeMap<(Time, u64), Flight>,
    opening: Vec<(Time, usize)>,
    serial: u64,
    random: Random,
    /// Whether the Decider, the Follower sends data
    pub(super) sends: [bool; 2],
    /// How often of 1000 polls a node sleeps for up to `nap` before it
    pub(super) naps: u64,
    pub(super) nap: Duration,
    /// Whether a sleeping node also leaves its packets unread
    pub(super) sound: bool,
    /// When each is to be polled, unless something happens
    due: [Time; 2],
    /// Until when a node sleeps
    pub(super) asleep: [Time; 2],
    /// Whether a node's cable is out
    pub(super) unplugged: [bool; 2],
    pub(super) points: Vec<(Time, Node, Map)>,
    pub(super) verdicts: Vec<(Time, usize, bool, &'static str)>,
    /// Routes that were left as they were dead, and those taken instead
    pub(super) failovers: Vec<(usize, usize)>,
    /// Asks sent, by the Decider and by the Follower
    pub(super) asks: [u64; 2],
    pub(super) closes: Vec<u64>,
    pub(super) opens: Vec<(Time, usize)>,
}

impl Net {
    /// Routes of these round trip times in ms, all offered at the same cost; the session was dialled over the first.
    pub(super) fn new(rtts: &[u64], seed: u64) -> Self {
        let now = Time(1_000_000);
        let road = |rtt: &u64| Road {
            rtt: ms(*rtt),
            jitter: Duration::ZERO,
            loss: 0,
            cut: [false; 2],
            refuses: false,
        };
        let mut net = Self {
            now,
            decider: Decider::new(now),
            follower: Follower::new(now),
            roads: rtts.iter().map(road).collect(),
            circuits: BTreeMap::new(),
            seen: BTreeMap::new(),
            flying: BTreeMap::new(),
            opening: Vec::new(),
            serial: 0,
            random: Random::new(seed),
            sends: [false; 2],
            naps: 0,
            nap: Duration::ZERO,
            sound: false,
            due: [now; 2],
            asleep: [Time(0); 2],
            unplugged: [false; 2],
            points: Vec::new(),
            verdicts: Vec::new(),
            failovers: Vec::new(),
            asks: [0; 2],
            closes: Vec::new(),
            opens: Vec::new(),
        };
        let circuit = net.circuit(0);
        net.decider.adopt(&path(0), circuit, now);
        net.offer(&(0..rtts.len()).collect::<Vec<_>>());
        net
    }

    pub(super) fn offer(&mut self, routes: &[usize]) {
        let offers: Vec<_> = routes
            .iter()
            .map(|route| Offer { route: path(*route), cost: 50_000, upstreams: 0, direct: false })
            .collect();
        self.decider.offer(&offers, |_| None, self.now);
        self.due[0] = self.now;
    }

    /// Warmed up for three seconds of traffic both ways.
    pub(super) fn busy(rtts: &[u64], seed: u64) -> Self {
        let mut net = Self::new(rtts, seed);
        net.sends = [true; 2];
        net.run(ms(3000));
        assert!((0..rtts.len()).all(|route| net.alive(route)), "{:?}", net.decider.report());
        net
    }

    fn circuit(&mut self, route: usize) -> u64 {
        self.serial += 1;
        let id = 1000 + self.serial;
        self.circuits.insert(id, route);
        self.seen.insert(id, [Seen::default(); 2]);
        self.follower.arrived(id, self.now);
        id
    }

    pub(super) fn of(&self, route: usize) -> Option<u64> {
        let report = self.decider.report();
        report.iter().find(|report| report.path == path(route)).and_then(|report| report.circuit)
    }

    pub(super) fn alive(&self, route: usize) -> bool {
        self.of(route).is_some_and(|circuit| self.decider.is_alive(circuit))
    }

    /// The routes that the slots of a map take.
    pub(super) fn routes(&self, map: Map) -> [Option<usize>; 3] {
        map.slots.map(|slot| self.circuits.get(&slot).copied())
    }

    /// Whether both nodes are off a route.
    pub(super) fn left(&self, route: usize) -> bool {
        let maps = [self.decider.map(), self.follower.map()];
        maps.iter().all(|map| !self.routes(*map).contains(&Some(route)))
    }

    /// A relay is killed and its neighbours say so.
    pub(super) fn kill(&mut self, route: usize) {
        self.roads[route].refuses = true;
        self.roads[route].cut = [true; 2];
        if let Some(circuit) = self.of(route) {
            self.decider.closed(circuit, self.now);
            self.poll_decider();
            self.follower.left(circuit, self.now);
            self.poll_follower();
        }
    }

    pub(super) fn heal(&mut self, route: usize) {
        self.roads[route].refuses = false;
        self.roads[route].cut = [false; 2];
    }

    pub(super) fn run(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.tick();
        }
    }

    /// How long it takes until `done`; panics after `most`.
    pub(super) fn until(&mut self, most: Duration, done: impl Fn(&Self) -> bool) -> Duration {
        let start = self.now;
        while !done(self) {
            assert!(self.now - start < most, "not within {most:?}: {:?}", self.decider.report());
            self.tick();
        }
        self.now - start
    }

    fn tick(&mut self) {
        self.now = self.now + TICK;
        let now = self.now;
        let mut happened = false;
        while let Some(entry) = self.flying.first_entry().filter(|entry| entry.key().0 <= now) {
            let (circuit, to, packet, further) = entry.remove();
            match further {
                Some(_) if self.roads[self.circuits[&circuit]].cut[to as usize] => {}
                Some(delay) => self.fly(circuit, to, packet, delay, None),
                None => {
                    self.receive(circuit, to, packet);
                    happened |= matches!(packet, Packet::Probe(_));
                }
            }
        }
        while let Some(at) = self.opening.iter().position(|(at, _)| *at <= now) {
            let (_, route) = self.opening.remove(at);
            happened = true;
            if self.roads[route].refuses {
                self.decider.failed(&path(route), now);
            } else {
                let id = self.circuit(route);
                self.decider.opened(&path(route), id, now);
            }
        }
        if now.0.is_multiple_of(1000) {
            for (side, map) in [(0, self.decider.map()), (1, self.follower.map())] {
                if self.sends[side] && now >= self.asleep[side] {
                    self.send(map.slots[0], [Node::Follower, Node::Decider][side], Packet::Data);
                }
            }
        }
        if happened {
            self.due = [self.decider.deadline(), self.follower.deadline()];
        }
        for side in [0, 1] {
            if self.due[side] <= now && self.asleep[side] <= now {
                let woken = self.asleep[side] == now;
                if !woken && self.random.below(1000) < self.naps {
                    let ticks =
                        self.random.below(u64::try_from(self.nap.as_micros() / TICK.as_micros()).unwrap());
                    self.asleep[side] = now + TICK * u32::try_from(ticks + 1).unwrap();
                } else if side == 0 {
                    self.poll_decider();
                } else {
                    self.poll_follower();
                }
            }
        }
    }

    fn send(&mut self, circuit: u64, to: Node, packet: Packet) {
        let Some(seen) = self.seen.get_mut(&circuit) else { return };
        if matches!(packet, Packet::Data) {
            seen[1 - to as usize].sent_data = self.now;
        }
        let road = &self.roads[self.circuits[&circuit]];
        if self.unplugged[1 - to as usize] || self.random.below(1000) < road.loss {
            return;
        }
        let jitter = u64::try_from(road.jitter.as_micros()).unwrap();
        let delay = road.rtt / 4;
        let further = delay + Duration::from_micros(self.random.below(jitter + 1));
        self.fly(circuit, to, packet, delay, Some(further));
    }

    fn fly(&mut self, circuit: u64, to: Node, packet: Packet, delay: Duration, further: Option<Duration>) {
        self.serial += 1;
        self.flying.insert((self.now + delay, self.serial), (circuit, to, packet, further));
    }

    fn receive(&mut self, circuit: u64, to: Node, packet: Packet) {
        let now = self.now;
        if self.sound && self.asleep[to as usize] > now {
            self.fly(circuit, to, packet, self.asleep[to as usize] - now, None);
            return;
        }
        if self.unplugged[to as usize] {
            return;
        }
        let Some(seen) = self.seen.get_mut(&circuit) else { return };
        let seen = &mut seen[to as usize];
        seen.heard = now;
        let back = if to == Node::Follower { Node::Decider } else { Node::Follower };
        match packet {
            Packet::Ack => {}
            Packet::Data => {
                seen.heard_data = now;
                self.send(circuit, back, Packet::Ack);
            }
            Packet::Probe(probe) => {
                let probe = Probe::decode(&probe.encode()).unwrap();
                if to == Node::Follower {
                    self.follower.heard_map(probe.map, now);
                }
                match (probe.kind, to) {
                    (Kind::Ask, _) => {
                        if to == Node::Decider {
                            self.decider.asked(circuit, now);
                        }
                        let map = if to == Node::Decider { self.decider.map() } else { self.follower.map() };
                        self.send(circuit, back, Packet::Probe(Probe { kind: Kind::Echo, map, ..probe }));
                    }
                    (Kind::Echo, Node::Decider) => self.decider.echo(circuit, probe.seq, now),
                    (Kind::Echo, Node::Follower) => self.follower.echo(circuit, probe.seq, now),
                }
            }
        }
    }

    fn ask(&mut self, circuit: u64, to: Node, seq: u32) {
        let (map, suspicious) = match to {
            Node::Follower => (self.decider.map(), false),
            Node::Decider => (self.follower.map(), true),
        };
        self.asks[1 - to as usize] += 1;
        let probe = Probe { kind: Kind::Ask, seq, sent: self.now.0, boot: 1, circuit, map, suspicious };
        self.send(circuit, to, Packet::Probe(probe));
    }

    pub(super) fn poll_decider(&mut self) {
        for (circuit, [seen, _]) in &self.seen {
            self.decider.activity(*circuit, seen.heard, seen.heard_data, seen.sent_data);
        }
        let mut steps = Vec::new();
        self.decider.poll(self.now, &mut steps);
        self.due[0] = self.decider.deadline();
        assert!(self.due[0] > self.now);
        for step in steps {
            match step {
                Step::Verdict { circuit, finding, why, .. } => {
                    let alive = finding != Finding::Dead;
                    self.verdicts.push((self.now, self.circuits[&circuit], alive, why));
                }
                Step::Failover { from, to } => {
                    let route = |path: &Path| path[1].as_str()[1..].parse().unwrap();
                    self.failovers.push((route(&from), route(&to)));
                }
                Step::Point(map) => self.points.push((self.now, Node::Decider, map)),
                Step::Ask { circuit, seq } => self.ask(circuit, Node::Follower, seq),
                Step::Close(circuit) => {
                    self.closes.push(circuit);
                    self.follower.left(circuit, self.now);
                    self.seen.remove(&circuit);
                }
                Step::Open(path) => {
                    let route = path[1].as_str()[1..].parse().unwrap();
                    self.opens.push((self.now, route));
                    self.opening.push((self.now + OPENING, route));
                }
            }
        }
    }

    pub(super) fn poll_follower(&mut self) {
        for (circuit, [_, seen]) in &self.seen {
            self.follower.activity(*circuit, seen.heard, seen.heard_data, seen.sent_data);
        }
        let mut steps = Vec::new();
        self.follower.poll(self.now, &mut steps);
        self.due[1] = self.follower.deadline();
        assert!(self.due[1] > self.now);
        for step in steps {
            match step {
                FollowerStep::Point(map) => self.points.push((self.now, Node::Follower, map)),
                FollowerStep::Ask { circuit, seq } => self.ask(circuit, Node::Decider, seq),
            }
        }
    }

    /// Times at which the Decider left a route in slot 0.
    pub(super) fn changes(&self) -> Vec<Time> {
        let points: Vec<_> = self.points.iter().filter(|(_, side, _)| *side == Node::Decider).collect();
        let route = |map: Map| self.routes(map)[0];
        points.windows(2).filter(|pair| route(pair[0].2) != route(pair[1].2)).map(|pair| pair[1].0).collect()
    }

    pub(super) fn deaths(&self) -> Vec<(Time, usize, &'static str)> {
        let deaths = self.verdicts.iter().filter(|(_, _, alive, _)| !alive);
        deaths.map(|(at, route, _, why)| (*at, *route, *why)).collect()
    }
}
