//! The control plane of one node: everything above in one state machine.
//!
//! The caller owns links, clock and keys. It passes in what happens ([`Input`]) with the time, carries out what comes back
//! ([`Action`]), and calls again at [`Mesh::next_deadline`] with [`Input::Tick`]:
//!
//! ```text
//!   LinkUp, LinkDown ──► own LINKS ──► sign ──┐
//!   SetServices ───────► own NODE ───► sign ──┤
//!   ADVERT ──► version ► bounds ► signature ──┴─► database ──► flood to the other neighbours
//!                                                    │
//!                                                    └──► (0, 50 ms … 1 s) ──► graph, SPF ──► Table
//! ```
//!
//! A message can cost the link that it came on some attention, and nobody else anything.

mod adverts;
mod find;
mod parked;
mod table;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use find::Finder;
pub use find::{PATIENCE as FIND_PATIENCE, TTL as FIND_TTL};
use parked::Parked;
pub use table::{Reach, Table};

use crate::backoff::{Backoff, SPF};
use crate::flood::{Flood, FloodCounters, LinkId, Outgoing};
use crate::id::NodeId;
use crate::lsdb::own::Own;
use crate::lsdb::{
    Content, Database, KeyHash, Listed, MAX_COST, News, NodeInfo, Service, Signer, Verifier, Version,
};
use crate::metric::{LinkMetric, Load};
use crate::random::Random;
use crate::target::Target;
use crate::time::Time;
use crate::wire::Message;

/// What this node says about itself from the start.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Config {
    /// Its certificate has the capability `relay`
    pub relay: bool,
    /// Its certificate has the capability `issuer`
    pub issuer: bool,
    /// `mesh.transit`: it is willing to forward for others
    pub transit: bool,
    /// `mesh.cost`, in µs: added to each route through it
    pub cost: u32,
    /// Where it can be dialled, best first
    pub addresses: Vec<Target>,
    /// What it offers
    pub services: Vec<Service>,
}

/// What happens to a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A link came up. One to the same neighbour that is up already is replaced by it.
    LinkUp(LinkUp),
    /// A link is gone, or is to be replaced.
    LinkDown(LinkId),
    /// A link was measured.
    LinkSample {
        /// The link
        link: LinkId,
        /// A round trip time
        rtt: Option<Duration>,
        /// The share of packets lost lately, in thousandths
        loss: u16,
    },
    /// A message came over a link.
    Message(LinkId, Message),
    /// The deadline has come.
    Tick,
    /// The utilisation of this node, in thousandths.
    Load(u16),
    /// What this node offers from now on.
    SetServices(Vec<Service>),
    /// Where this node can be dialled from now on.
    SetAddresses(Vec<Target>),
    /// Whether this node is willing to forward for others from now on.
    SetTransit(bool),
    /// What is added to each route through this node from now on, in µs.
    SetCost(u32),
    /// What is configured for a link from now on, in µs.
    SetLinkCost(LinkId, u32),
    /// A node is wanted that may not be in the database.
    Find(NodeId),
    /// A key is revoked: what it signed is purged, links with it are closed.
    Revoked(KeyHash),
    /// This node will stop soon: its links get the highest cost.
    Drain,
    /// This node stops: its records are withdrawn at once.
    Withdraw,
}

/// A link that came up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkUp {
    /// Names it
    pub link: LinkId,
    /// The other end
    pub neighbor: NodeId,
    /// The other end's key
    pub key: KeyHash,
    /// What is configured for it, in µs
    pub cost: u32,
    /// The round trip time of its handshake, where it is known
    pub rtt: Option<Duration>,
}

/// What a node is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Send a message to the neighbour at the other end of a link.
    Send(LinkId, Message),
    /// Close a link: its neighbour's key is revoked.
    Close(LinkId),
    /// [`Mesh::table`] is new.
    RoutesChanged,
    /// Something to log or to count.
    Event(Event),
}

/// What is worth a line in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A neighbour sent a record that was refused.
    Refused(LinkId, crate::lsdb::Refusal),
    /// The mesh has a newer record of this node than this node has signed: it has restarted without its memory, or somebody uses
    /// its key.
    OwnRecordReturned(Version),
    /// A node that was asked for is in the database.
    Found(NodeId),
    /// Nobody has answered for a node.
    NotFound(NodeId),
}

/// What happened so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Records that came in ADVERTs and answers
    pub records_received: u64,
    /// Those that were new
    pub records_stored: u64,
    /// Those that were no records, or over a bound
    pub refused_malformed: u64,
    /// Those with a wrong key or signature
    pub refused_forged: u64,
    /// Those that claim a capability that their certificate has not
    pub refused_capability: u64,
    /// Those of revoked keys
    pub refused_revoked: u64,
    /// Those that were too old
    pub refused_expired: u64,
    /// Those there was no room for
    pub refused_full: u64,
    /// Those left unread because the neighbour had sent too many forged ones
    pub muted: u64,
    /// Those dropped before the certificate came
    pub dropped_without_certificate: u64,
    /// Pairs of genuine records of one version with different contents
    pub conflicts: u64,
    /// Queries that were not passed on: seen before, or too many
    pub finds_ignored: u64,
    /// Times that routes were computed
    pub spf_runs: u64,
    /// Those of flooding
    pub flood: FloodCounters,
}

/// One link, as the mesh knows it.
#[derive(Debug)]
struct Link {
    neighbor: NodeId,
    key: KeyHash,
    metric: LinkMetric,
    /// Since when forged records are counted, and how many there were
    forged: (Time, u32),
}

/// The control plane of one node.
pub struct Mesh {
    own: Own,
    info: NodeInfo,
    verifier: Box<dyn Verifier>,
    random: Random,
    links: BTreeMap<LinkId, Link>,
    load: Load,
    draining: bool,
    stopped: bool,
    /// What this node says may no longer be what it is
    unsaid: Option<News>,
    db: Database,
    flood: Flood,
    finder: Finder,
    parked: Parked,
    spf: Backoff,
    spf_due: Option<Time>,
    table: Arc<Table>,
    counters: Counters,
}

impl Mesh {
    /// The control plane of node `id` in its `boot`-th epoch. `seed` is for jitter and names of queries.
    ///
    /// Its first records are signed with the first input.
    pub fn new(
        config: Config,
        id: NodeId,
        boot: u64,
        signer: Box<dyn Signer>,
        verifier: Box<dyn Verifier>,
        seed: u64,
    ) -> Self {
        let Config { relay, issuer, transit, cost, addresses, services } = config;
        let table = Arc::new(Table::new(&Database::default(), &id, &BTreeMap::new()));
        Self {
            own: Own::new(id, boot, signer),
            info: NodeInfo { boot, relay, issuer, transit, cost, addresses, services },
            verifier,
            random: Random::new(seed),
            links: BTreeMap::new(),
            load: Load::default(),
            draining: false,
            stopped: false,
            unsaid: Some(News::Good),
            db: Database::default(),
            flood: Flood::default(),
            finder: Finder::default(),
            parked: Parked::default(),
            spf: Backoff::default(),
            spf_due: None,
            table,
            counters: Counters::default(),
        }
    }

    /// Takes in what happened at `now`, which is never before that of an earlier call, and appends what is to be done.
    pub fn handle(&mut self, input: Input, now: Time, out: &mut Vec<Action>) {
        match input {
            Input::LinkUp(up) => self.link_up(up, now),
            Input::LinkDown(link) => self.link_down(link, now),
            Input::LinkSample { link, rtt, loss } => self.sample(link, rtt, loss, now),
            Input::Message(link, message) => self.message(link, message, now, out),
            Input::Tick => {}
            Input::Load(permille) => {
                let band = self.load.band();
                if self.load.update(permille, now) != band {
                    self.unsaid.get_or_insert(News::Good);
                }
            }
            Input::SetServices(services) => {
                self.info.services = services;
                self.unsaid.get_or_insert(News::Good);
            }
            Input::SetAddresses(addresses) => {
                self.info.addresses = addresses;
                self.unsaid.get_or_insert(News::Good);
            }
            Input::SetTransit(transit) => {
                let news = if transit { News::Good } else { News::Bad };
                if std::mem::replace(&mut self.info.transit, transit) != transit {
                    self.links_changed(news, now);
                }
            }
            Input::SetCost(cost) => {
                let old = std::mem::replace(&mut self.info.cost, cost);
                if old != cost {
                    self.links_changed(if cost > old { News::Bad } else { News::Good }, now);
                }
            }
            Input::SetLinkCost(link, cost) => self.set_link_cost(link, cost, now),
            Input::Find(target) => self.find(&target, now, out),
            Input::Revoked(key) => self.revoke(key, now, out),
            Input::Drain => {
                self.draining = true;
                self.links_changed(News::Bad, now);
            }
            Input::Withdraw => {
                self.stopped = true;
                self.own.withdraw(now);
            }
        }
        self.say(now);
        self.run(now, out);
    }

    /// When to call [`handle`](Self::handle) at the latest.
    pub fn next_deadline(&self) -> Option<Time> {
        [
            self.own.deadline(),
            self.flood.deadline(),
            self.db.next_expiry(),
            self.finder.deadline(),
            self.parked.deadline(),
            self.spf_due,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// The routes, as of the last [`Action::RoutesChanged`].
    pub fn table(&self) -> Arc<Table> {
        self.table.clone()
    }

    /// What all nodes say about themselves.
    pub fn database(&self) -> &Database {
        &self.db
    }

    /// This node's id.
    pub fn id(&self) -> &NodeId {
        self.own.id()
    }

    /// What happened so far.
    pub fn counters(&self) -> Counters {
        Counters {
            conflicts: self.db.conflicts(),
            dropped_without_certificate: self.parked.dropped(),
            finds_ignored: self.finder.ignored(),
            flood: self.flood.counters(),
            ..self.counters
        }
    }

    fn link_up(&mut self, up: LinkUp, now: Time) {
        let LinkUp { link, neighbor, key, cost, rtt } = up;
        let old: Vec<_> = self.links.extract_if(.., |_, link| link.neighbor == neighbor).collect();
        for (old, _) in old {
            self.flood.link_down(old);
            self.finder.link_down(old);
        }
        let mut metric = LinkMetric::new(cost);
        if let Some(rtt) = rtt {
            metric.rtt(rtt, now);
        }
        metric.advertise(now);
        self.flood.link_up(link, self.own.id(), &neighbor, now);
        self.links.insert(link, Link { neighbor, key, metric, forged: (now, 0) });
        self.links_changed(News::Good, now);
    }

    fn link_down(&mut self, link: LinkId, now: Time) {
        if self.links.remove(&link).is_some() {
            self.flood.link_down(link);
            self.finder.link_down(link);
            self.links_changed(News::Bad, now);
        }
    }

    fn sample(&mut self, link: LinkId, rtt: Option<Duration>, loss: u16, now: Time) {
        let Some(link) = self.links.get_mut(&link) else { return };
        if let Some(rtt) = rtt {
            link.metric.rtt(rtt, now);
        }
        link.metric.loss(loss, now);
        let told = link.metric.told();
        if let Some(cost) = link.metric.advertise(now) {
            let news = if told.is_some_and(|told| cost > told) { News::Bad } else { News::Good };
            self.links_changed(news, now);
        }
    }

    fn set_link_cost(&mut self, link: LinkId, cost: u32, now: Time) {
        let Some(link) = self.links.get_mut(&link) else { return };
        let told = link.metric.told();
        if let Some(cost) = link.metric.configure(cost, now) {
            let news = if told.is_some_and(|told| cost > told) { News::Bad } else { News::Good };
            self.links_changed(news, now);
        }
    }

    fn revoke(&mut self, key: KeyHash, now: Time, out: &mut Vec<Action>) {
        if !self.db.revoke(key, now).is_empty() {
            self.changed(now);
        }
        let with_key = self.links.iter().filter(|(_, link)| link.key == key);
        out.extend(with_key.map(|(link, _)| Action::Close(*link)));
    }

    /// A link of this node came, went or costs something else.
    fn links_changed(&mut self, news: News, now: Time) {
        if self.unsaid.is_none() || news == News::Bad {
            self.unsaid = Some(news);
        }
        self.changed(now);
    }

    /// Something changed that routes depend on.
    fn changed(&mut self, now: Time) {
        let at = self.spf.event(SPF, now);
        self.spf_due = Some(self.spf_due.map_or(at, |due| due.min(at)));
    }

    /// Brings what this node is to say in line with what it is.
    fn say(&mut self, now: Time) {
        let Some(news) = self.unsaid.take().filter(|_| !self.stopped) else { return };
        let band = self.load.band().number();
        let costs = self.costs();
        let links = costs.into_iter().map(|(neighbor, cost)| Listed { neighbor, cost, band }).collect();
        self.own.say(Content::Links(links), news, now);
        self.own.say(Content::Node(self.info.clone()), news, now);
    }

    /// The neighbours and what the links to them cost, in µs.
    fn costs(&self) -> BTreeMap<NodeId, u32> {
        let cost = |link: &Link| match link.metric.told() {
            Some(told) if !self.draining => told.min(MAX_COST),
            _ => MAX_COST,
        };
        self.links.values().map(|link| (link.neighbor.clone(), cost(link))).collect()
    }

    /// Does what is due.
    fn run(&mut self, now: Time, out: &mut Vec<Action>) {
        if !self.db.expire(now).is_empty() {
            self.changed(now);
        }
        for record in self.own.sign(now, &mut self.random) {
            if let Some((key, news)) = self.db.put_own(&record, now) {
                self.flood.spread(key, news, None, now);
            }
        }
        self.parked.expire(now);
        let mut messages = Outgoing::new();
        self.flood.poll(&self.db, now, &mut messages);
        out.extend(messages.into_iter().map(|(link, message)| Action::Send(link, message)));
        out.extend(self.finder.give_up(now).into_iter().map(|node| Action::Event(Event::NotFound(node))));
        if self.spf_due.is_some_and(|due| due <= now) {
            self.spf_due = None;
            self.counters.spf_runs += 1;
            self.table = Arc::new(Table::new(&self.db, self.own.id(), &self.costs()));
            out.push(Action::RoutesChanged);
        }
    }
}
