//! Which circuit each slot of a session takes: carries out what the roles of `core::steer` decide.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ffmesh_api::Change;
use ffmesh_core::id::NodeId;
use ffmesh_core::steer::{
    Decider, Finding, Follower, FollowerStep, Kind, Map, Probe, RouteReport, RouteState, Step,
};
use ffmesh_core::time::Time;

use super::approach::Approach;
use super::paths::Paths;
use super::seal::Seal;
use super::slots::Slots;
use super::{Session, SessionContext, lock};
use crate::clock;
use crate::driver::{CircuitEvent, RoutingTable};
use crate::socket::{ReceivedProbe, Way};

/// How often what `ffmesh routes` shows is brought up to date while nothing else happens.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

enum Role {
    /// Of the side that dialled the session
    Decider(Box<Decider>),
    /// Of the other one
    Follower(Box<Follower>),
}

/// The circuits of one session.
pub(super) struct Steering {
    context: SessionContext,
    session: Session,
    slots: Arc<Slots>,
    role: Role,
    seal: Seal,
    ways: BTreeMap<u64, Way>,
    map: Map,
    paths: Paths,
    /// Since when no circuit answers
    dead_since: Option<Time>,
    reported: Time,
}

impl Steering {
    /// Takes over from the approach. `None` where the session's keys cannot be had: it has ended.
    pub(super) fn new(context: SessionContext, session: Session, approach: &Approach) -> Option<Self> {
        let connection = session.connection().clone();
        let seal = Seal::of(&connection, session.dialled())?;
        let address = approach.ends.address;
        let now = clock::now();
        let taken = approach.taken;
        let mut circuits: Vec<_> = approach.circuits.iter().collect();
        circuits.sort_by_key(|(circuit, _)| Some(**circuit) != taken);
        let role = if session.dialled() {
            let mut decider = Decider::new(now);
            for (circuit, ready) in &circuits {
                match &ready.path {
                    Some(path) if Some(**circuit) == taken => decider.adopt(path, **circuit, now),
                    Some(path) => decider.opened(path, **circuit, now),
                    None => {}
                }
            }
            Role::Decider(Box::new(decider))
        } else {
            let mut follower = Follower::new(now);
            for (circuit, _) in &circuits {
                follower.arrived(**circuit, now);
            }
            Role::Follower(Box::new(follower))
        };
        let paths = Paths::new(context.transport.clone(), connection, address);
        let ways = circuits.into_iter().map(|(circuit, ready)| (*circuit, ready.way.clone())).collect();
        let first = taken.unwrap_or_default();
        Some(Self {
            context,
            session,
            slots: approach.slots.clone(),
            role,
            seal,
            ways,
            map: Map { epoch: 0, slots: [first; 3] },
            paths,
            dead_since: None,
            reported: Time(0),
        })
    }

    /// The mesh offers other routes, or the same at other costs.
    pub(super) fn offer(&mut self, table: &RoutingTable) {
        if let Role::Decider(decider) = &mut self.role {
            let offers = table.offers(&self.session.0.peer.id);
            decider.offer(&offers, |path| table.cost(path), clock::now());
        }
    }

    fn node_id(&self) -> &NodeId {
        &self.session.0.peer.id
    }

    /// Something happened to a circuit.
    pub(super) fn on_event(&mut self, event: CircuitEvent) {
        let now = clock::now();
        match (event, &mut self.role) {
            (CircuitEvent::Opened { path, circuit, way }, Role::Decider(decider)) => {
                self.ways.insert(circuit, way);
                decider.opened(&path, circuit, now);
            }
            (CircuitEvent::Failed { path, error }, Role::Decider(decider)) => {
                tracing::debug!(peer = %self.session.0.peer.id, route = %shown(&path), "no circuit yet: {error}");
                decider.failed(&path, now);
            }
            (CircuitEvent::Arrived { circuit, way }, Role::Follower(follower)) => {
                self.ways.insert(circuit, way);
                follower.arrived(circuit, now);
            }
            (CircuitEvent::Moved { circuit, way }, _) => {
                self.ways.insert(circuit, way.clone());
                for (slot, _) in (0u8..).zip(self.map.slots).filter(|(_, taken)| *taken == circuit) {
                    self.slots.point(slot, way.clone());
                }
            }
            (CircuitEvent::Gone { circuit, reason }, role) => {
                tracing::debug!(peer = %self.session.0.peer.id, "circuit gone: {reason}");
                self.ways.remove(&circuit);
                self.seal.forget(circuit);
                match role {
                    Role::Decider(decider) => decider.closed(circuit, now),
                    Role::Follower(follower) => follower.left(circuit, now),
                }
            }
            // What is meant for the other role is none of this session's.
            (CircuitEvent::Opened { .. } | CircuitEvent::Failed { .. } | CircuitEvent::Arrived { .. }, _) => {
            }
        }
    }

    /// A probe came over a circuit.
    pub(super) fn on_probe(&mut self, received: &ReceivedProbe) {
        let Some(probe) = self.seal.open(received.circuit, &received.bytes) else { return };
        let _ = self.session.0.epoch.set(probe.boot);
        match probe.kind {
            Kind::Ask => {
                match &mut self.role {
                    Role::Decider(decider) => decider.asked(probe.circuit, received.at),
                    Role::Follower(follower) => follower.heard_map(probe.map, received.at),
                }
                let map = self.told();
                let boot = self.context.epoch;
                self.send(&Probe { kind: Kind::Echo, boot, map, suspicious: false, ..probe });
            }
            Kind::Echo => match &mut self.role {
                Role::Decider(decider) => decider.echo(probe.circuit, probe.seq, received.at),
                Role::Follower(follower) => {
                    follower.heard_map(probe.map, received.at);
                    follower.echo(probe.circuit, probe.seq, received.at);
                }
            },
        }
    }

    /// Does what is due. Returns when to call again.
    pub(super) async fn poll(&mut self) -> Time {
        let now = clock::now();
        for (circuit, way) in &self.ways {
            let activity = &way.activity;
            let (heard, data, sent) = (activity.heard(), activity.heard_data(), activity.sent_data());
            match &mut self.role {
                Role::Decider(decider) => decider.activity(*circuit, heard, data, sent),
                Role::Follower(follower) => follower.activity(*circuit, heard, data, sent),
            }
        }
        match &mut self.role {
            Role::Decider(decider) => {
                let mut steps = Vec::new();
                decider.poll(now, &mut steps);
                for step in steps {
                    self.carry_out(step, now).await;
                }
            }
            Role::Follower(follower) => {
                let mut steps = Vec::new();
                follower.poll(now, &mut steps);
                for step in steps {
                    match step {
                        FollowerStep::Point(map) => self.point(map, now),
                        FollowerStep::Ask { circuit, seq } => self.ask(circuit, seq, true, now),
                    }
                }
            }
        }
        let before = self.dead_since;
        self.dead_since = if self.any_alive() { None } else { before.or(Some(now)) };
        if before.is_none() && self.dead_since.is_some() {
            self.tell_stranded(now);
        }
        if now - self.reported >= REPORT_INTERVAL {
            self.report(now);
        }
        match &self.role {
            Role::Decider(decider) => decider.deadline(),
            Role::Follower(follower) => follower.deadline(),
        }
    }

    async fn carry_out(&mut self, step: Step, now: Time) {
        let driver = &self.context.driver;
        match step {
            Step::Open(path) => {
                if let Some(session) = self.session.0.dialled {
                    driver.open_circuit(session, path).await;
                }
            }
            Step::Close(circuit) => {
                self.ways.remove(&circuit);
                self.seal.forget(circuit);
                driver.close_circuit(circuit).await;
            }
            Step::Ask { circuit, seq } => self.ask(circuit, seq, false, now),
            Step::Failover { from, to } => {
                self.report(now); // who hears of it asks for the routes
                self.context.failovers.fetch_add(1, Ordering::Relaxed);
                self.publish_failover(&from, &to);
            }
            Step::Point(map) => {
                self.point(map, now);
                self.report(now);
            }
            Step::Verdict { path, finding, why, .. } => {
                let (peer, route) = (self.node_id(), shown(&path));
                match finding {
                    Finding::Alive => tracing::info!(%peer, %route, "route is alive: it {why}"),
                    Finding::Impaired => tracing::warn!(%peer, %route, "route loses many packets"),
                    Finding::Well => tracing::info!(%peer, %route, "route loses few packets again"),
                    Finding::Dead => {
                        tracing::warn!(%peer, %route, "route is dead: {why}");
                        // A neighbour that other circuits answer through is none to suspect.
                        if let Some(next) = path.get(1).filter(|next| !self.answers_through(next)) {
                            driver.suspect(next.clone()).await;
                        }
                    }
                }
            }
        }
    }

    /// The last circuit is gone: flows wait.
    fn tell_stranded(&mut self, now: Time) {
        let Role::Decider(decider) = &self.role else { return };
        let Some(from) = decider.in_use().cloned() else { return };
        self.report(now);
        self.publish_failover(&from, &[]);
    }

    fn publish_failover(&self, from: &[NodeId], to: &[NodeId]) {
        let node_id = self.node_id().clone();
        self.context.changes.publish(Change::Failover { node_id, from: from.to_vec(), to: to.to_vec() });
    }

    fn answers_through(&self, neighbor: &NodeId) -> bool {
        let Role::Decider(decider) = &self.role else { return false };
        let answers = |report: &RouteReport| report.state != RouteState::Down;
        decider.report().iter().any(|report| answers(report) && report.path.get(1) == Some(neighbor))
    }

    /// Lets the slots take the circuits of a map.
    fn point(&mut self, map: Map, now: Time) {
        let mut changed = Vec::new();
        for (slot, (old, new)) in (0u8..).zip(self.map.slots.into_iter().zip(map.slots)) {
            let Some(way) = self.ways.get(&new) else { continue };
            if old != new {
                self.slots.point(slot, way.clone());
                self.map.slots[usize::from(slot)] = new;
                changed.push(slot);
            }
            if self.session.dialled() && slot > 0 && new != map.slots[0] {
                self.paths.ensure(slot);
            }
        }
        self.map.epoch = map.epoch;
        let outage = self.dead_since.map_or(Duration::ZERO, |since| now - since);
        if !changed.is_empty() {
            tracing::debug!(peer = %self.node_id(), ?map, "slots point at other circuits");
            self.paths.awaken(changed, outage);
        }
    }

    fn ask(&mut self, circuit: u64, seq: u32, suspicious: bool, now: Time) {
        let (map, boot) = (self.told(), self.context.epoch);
        self.send(&Probe { kind: Kind::Ask, seq, sent: now.0, boot, circuit, map, suspicious });
    }

    /// The map that probes carry.
    fn told(&self) -> Map {
        match &self.role {
            Role::Decider(decider) => decider.map(),
            Role::Follower(follower) => follower.map(),
        }
    }

    fn send(&mut self, probe: &Probe) {
        if let Some(way) = self.ways.get(&probe.circuit) {
            let sealed = self.seal.seal(probe);
            self.context.transport.probes().send(&way.hop, &sealed);
        }
    }

    /// Whether any circuit carries packets, as far as is known.
    pub(super) fn any_alive(&self) -> bool {
        match &self.role {
            Role::Decider(decider) => decider.any_alive(),
            Role::Follower(_) => !self.ways.is_empty(),
        }
    }

    /// Whether there is any circuit.
    pub(super) fn has_circuit(&self) -> bool {
        !self.ways.is_empty()
    }

    fn report(&mut self, now: Time) {
        self.reported = now;
        let Role::Decider(decider) = &self.role else { return };
        *lock(&self.session.0.routes) = decider.report();
    }
}

/// A route as the log shows it.
fn shown(path: &[NodeId]) -> String {
    path.iter().map(ToString::to_string).collect::<Vec<_>>().join(" > ")
}
