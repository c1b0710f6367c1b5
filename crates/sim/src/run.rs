//! A run: the mesh starts, is changed one change at a time, and is left alone. Each time the tables are compared with
//! what really is up, and the time that they took is noted.

use std::time::Duration;

use ffmesh_core::random::Random;
use ffmesh_core::time::Time;

use crate::oracle;
use crate::report::Report;
use crate::topology::{index, regular};
use crate::world::{Network, World};

/// Longest time that a change may take to be everywhere, in ms
const CONVERGENCE: f64 = 1000.0;
/// Most control traffic of a node at rest, in bytes a second
const STEADY: f64 = 1000.0;
/// Time after each change: longer than any damping lasts, so that each change is a single one
const QUIET: Duration = Duration::from_secs(15);
/// Time that the whole mesh has to start
const START: Duration = Duration::from_mins(1);

/// What to run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) nodes: usize,
    pub(crate) degree: usize,
    pub(crate) seed: u64,
    pub(crate) network: Network,
    /// How many times each kind of change is made
    pub(crate) changes: usize,
    /// Lying members
    pub(crate) liars: usize,
    /// How long the mesh is left alone at the end
    pub(crate) steady: Duration,
}

struct Run {
    world: World,
    random: Random,
    report: Report,
}

/// Runs a plan. An error says that the simulation itself does not go on.
pub(crate) fn run(plan: Plan) -> Result<Report, String> {
    let Plan { nodes, degree, seed, network, changes, liars, steady } = plan;
    let mut random = Random::new(seed);
    let wires = regular(nodes, degree, &mut random);
    let world = World::new(nodes, &wires, network, random.bits());
    let report = Report { nodes, degree, seed, ..Report::default() };
    let mut run = Run { world, random, report };
    run.start()?;
    for _ in 0..liars {
        let node = index(&mut run.random, nodes);
        run.world.lie(node);
    }
    run.links(changes)?;
    run.crashes(changes)?;
    run.joins(changes, degree)?;
    run.partition(nodes)?;
    run.steady(steady)?;
    let spf = std::mem::take(&mut run.world.spf_times);
    run.report.real("calls that computed routes, CPU", spf, None);
    Ok(run.report)
}

impl Run {
    /// Runs for `time`, checks the tables and returns how long after `since` the last of them changed.
    fn converge(&mut self, what: &str, since: Time, time: Duration) -> Result<Duration, String> {
        self.world.run(since + time)?;
        if let Err(error) = oracle::check(&self.world) {
            self.report.failures.push(format!("{what} at {:.3} s: {error}", seconds(since)));
        }
        Ok(self.world.settled() - since)
    }

    fn start(&mut self) -> Result<(), String> {
        let begin = self.world.now;
        for node in 0..self.world.hosts.len() {
            self.world.start(node);
        }
        for wire in 0..self.world.wire_count() {
            self.world.join(wire);
        }
        let took = self.converge("start of all nodes", begin, START)?;
        let sent: u64 = self.world.hosts.iter().map(|host| host.bytes_sent).sum();
        self.report.times("all nodes start at once", vec![took], None);
        self.report.number("  sent by a node", per(sent, self.world.hosts.len()) / 1000.0, "kB", None);
        Ok(())
    }

    fn links(&mut self, changes: usize) -> Result<(), String> {
        let (mut down, mut up) = (Vec::new(), Vec::new());
        for _ in 0..changes {
            let wire = index(&mut self.random, self.world.wire_count());
            let noticed = self.world.cut(wire);
            down.push(self.converge("link down", noticed, QUIET)?);
            let now = self.world.now;
            self.world.join(wire);
            up.push(self.converge("link up", now, QUIET)?);
        }
        self.report.times("link down", down, Some(CONVERGENCE));
        self.report.times("link up", up, Some(CONVERGENCE));
        Ok(())
    }

    fn crashes(&mut self, changes: usize) -> Result<(), String> {
        let (mut down, mut up) = (Vec::new(), Vec::new());
        for _ in 0..changes {
            let node = index(&mut self.random, self.world.hosts.len());
            let noticed = self.world.crash(node);
            down.push(self.converge("node crash", noticed, QUIET)?);
            up.push(self.bring_up(node, "node restart")?);
        }
        self.report.times("node crash", down, Some(CONVERGENCE));
        self.report.times("node restart", up, Some(CONVERGENCE));
        Ok(())
    }

    fn joins(&mut self, changes: usize, degree: usize) -> Result<(), String> {
        let mut times = Vec::new();
        for _ in 0..changes {
            let node = self.world.hosts.len();
            self.world.add_host();
            let mut others: Vec<usize> = (0..node).collect();
            for _ in 0..degree.min(node) {
                let other = index(&mut self.random, others.len());
                self.world.add_wire((others.swap_remove(other), node));
            }
            times.push(self.bring_up(node, "node join")?);
        }
        self.report.times("node join", times, Some(CONVERGENCE));
        Ok(())
    }

    fn bring_up(&mut self, node: usize, what: &str) -> Result<Duration, String> {
        let now = self.world.now;
        self.world.start(node);
        for wire in self.world.wires_of(node) {
            self.world.join(wire);
        }
        self.converge(what, now, QUIET)
    }

    /// Cuts all wires between two halves of the nodes and heals them.
    fn partition(&mut self, nodes: usize) -> Result<(), String> {
        let across = |world: &World, wire| {
            let ((a, b), _) = world.wire(wire);
            (a < nodes / 2) != (b < nodes / 2)
        };
        let wires: Vec<_> = (0..self.world.wire_count()).filter(|w| across(&self.world, *w)).collect();
        let noticed = wires.iter().map(|wire| self.world.cut(*wire)).max().unwrap_or(self.world.now);
        let apart = self.converge("partition", noticed, QUIET * 2)?;
        let now = self.world.now;
        for wire in wires {
            self.world.join(wire);
        }
        let merged = self.converge("heal", now, QUIET * 2)?;
        self.report.times("partition in halves", vec![apart], None);
        self.report.times("heal", vec![merged], None);
        Ok(())
    }

    fn steady(&mut self, time: Duration) -> Result<(), String> {
        let sent = |world: &World| {
            let bytes: u64 = world.hosts.iter().map(|host| host.bytes_sent).sum();
            let messages: u64 = world.hosts.iter().map(|host| host.messages_sent).sum();
            (bytes, messages)
        };
        self.world.wavering = true;
        let before = sent(&self.world);
        let now = self.world.now;
        self.converge("at rest", now, time)?;
        let after = sent(&self.world);
        let rate = |count: u64| per(count, self.world.hosts.len()) / time.as_secs_f64();
        self.report.number("at rest, sent by a node", rate(after.0 - before.0), "B/s", Some(STEADY));
        self.report.number("  messages", rate(after.1 - before.1), "/s", None);
        let meshes = || self.world.hosts.iter().filter_map(|host| host.mesh.as_ref());
        let memory = meshes().map(|mesh| mesh.database().memory()).max().unwrap_or_default();
        let refused: u64 =
            meshes().map(|mesh| mesh.counters().refused_forged + mesh.counters().refused_malformed).sum();
        self.report.number("database of a node", per(memory as u64, 1000), "kB", None);
        self.report.number("records refused by all", per(refused, 1), "", None);
        Ok(())
    }
}

fn seconds(time: Time) -> f64 {
    (time - Time(0)).as_secs_f64()
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn per(sum: u64, count: usize) -> f64 {
    sum as f64 / count as f64
}
