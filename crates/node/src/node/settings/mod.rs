//! What is in force, and how it changes while the node runs.
//!
//! One task, the [`Owner`], applies the file again and takes in what the API adds; nobody else changes any of this. The
//! others read [`Parts::config`], the file's configuration in force, and [`InForce`], what has come of it.
//!
//! ```text
//! SIGHUP, API, watch ─▶ commands ─▶ owner ─┬─▶ listeners      (`Ingresses`: by address, so that nothing is bound twice)
//!                        addresses ─▶  │    ├─▶ upstreams      (`Upstreams`: a dialling task each)
//!                        the store ◀───┘    ├─▶ policy         (flows that it refuses now end)
//!                                           ├─▶ driver         (costs, transit, services)
//!                                           └─▶ limits, hold, `InForce`, events
//! ```
//! Each of them is told all of what is to be, not what has changed, and leaves alone what is so already.

mod commands;
mod entries;
mod offer;
mod plan;
mod policy;
mod runtime;
#[cfg(test)]
mod tests;
mod watch;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ffmesh_api as api;
use ffmesh_core::id::NodeId;
use jiff::Timestamp;
use tokio::sync::watch as channel;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::{Parts, flow_limits, terms};
use crate::config::{Change, Config, Diff, Loaded, Problem, Proxy, Service, read_again};
use crate::egress::{self, ServiceAddresses};
use crate::flow::OpenContext;
use crate::ingress::{BindError, Ingresses};
use crate::link::{Dialler, Upstreams};

pub(super) use commands::{Commands, Settings, commands};
pub(super) use offer::Offered;
pub(super) use plan::{Bound, Plan};

use runtime::Entries;
use watch::{Content, Watch};

/// How often this machine's addresses are looked at.
const ADDRESS_INTERVAL: Duration = Duration::from_secs(10);
/// How often a watched file is looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How long a proxy that could not be bound waits for the next try, at first and in the long run.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// What has come of the configuration, for others to read. Replaced as a whole.
#[derive(Debug, Clone)]
pub(super) struct InForce {
    /// In the file's order, then those added at run time
    pub(super) proxies: Vec<Offered<Proxy>>,
    /// The same
    pub(super) services: Vec<Offered<Service>>,
    /// TCP addresses of the proxies that listen
    pub(super) listening: Vec<SocketAddr>,
    /// The nodes that are dialled as upstreams
    pub(super) diallers: Vec<Dialler>,
    /// When the file was applied last
    pub(super) applied: Timestamp,
    /// What the file says that has no effect
    pub(super) warnings: Vec<Problem>,
    /// Keys whose new value takes a restart
    pub(super) needs_restart: Vec<String>,
}

/// Those that stand.
fn offered<T>(all: &[Offered<T>]) -> impl Iterator<Item = &T> {
    all.iter().filter(|offered| offered.error.is_none()).map(|offered| &offered.item)
}

/// Owns what is in force.
pub(super) struct Owner {
    parts: Arc<Parts>,
    ingresses: Ingresses,
    upstreams: Upstreams,
    hold: channel::Sender<Duration>,
    /// The nodes that sessions are kept with before a flow asks
    ahead: channel::Sender<Vec<NodeId>>,
    proxies: Entries<Proxy>,
    services: Entries<Service>,
    /// Proxies that could not be bound
    failed: Vec<BindError>,
    /// When they are tried again, and after which pause then
    retry: Option<(Instant, Duration)>,
    hosts: ServiceAddresses,
    watch: Watch,
    /// The node is about to end
    ending: bool,
}

impl Owner {
    /// Serves the plan: lets the bound proxies accept, dials upstreams, and sets the policy before anything can ask for it.
    pub(super) fn start(
        parts: Arc<Parts>,
        plan: Plan,
        (bound, failed): Bound,
        opening: OpenContext,
        upstreams: Upstreams,
        (hold, ahead): (channel::Sender<Duration>, channel::Sender<Vec<NodeId>>),
    ) -> std::io::Result<Self> {
        let mut owner = Self {
            ingresses: Ingresses::start(opening, parts.counters.clone(), bound),
            upstreams,
            hold,
            ahead,
            proxies: plan.proxies,
            services: plan.services,
            failed: Vec::new(),
            retry: None,
            hosts: ServiceAddresses::default(),
            watch: Watch::default(),
            ending: false,
            parts,
        };
        owner.set_policy(&[])?;
        owner.upstreams.apply(&owner.parts.config().quic.upstreams);
        owner.note_failed(failed);
        owner.publish(|_| {});
        Ok(owner)
    }

    /// Until nobody can ask any more.
    pub(super) async fn run(mut self, mut commands: Commands) {
        let (mut lookup, mut look) = (JoinSet::new(), JoinSet::new());
        let mut addresses = paced(ADDRESS_INTERVAL);
        let mut looks = paced(LOOK_INTERVAL);
        loop {
            let config = self.parts.config();
            let retry = self.retry.filter(|_| !self.ending).map(|(at, _)| at);
            tokio::select! {
                command = commands.next() => match command {
                    Some(command) => self.obey(command).await,
                    None => return,
                },
                _ = addresses.tick() => {
                    if self.hosts.are_old() && lookup.is_empty() {
                        let services = self.services_in_force();
                        lookup.spawn(egress::resolve_services(services, self.hosts.clone()));
                    }
                    self.follow_addresses().await;
                }
                Some(Ok(hosts)) = lookup.join_next() => {
                    // One that began before a service was added would forget where that is.
                    let services = self.services_in_force();
                    if self.hosts.lack(&services) || !hosts.lack(&services) {
                        self.hosts = hosts;
                        self.refresh_policy();
                    }
                }
                _ = looks.tick(), if config.watch && !self.ending && look.is_empty() => {
                    if let Some(path) = config.path.clone() {
                        look.spawn_blocking(move || read_again(&path));
                    }
                }
                Some(Ok(content)) = look.join_next() => self.seen(content).await,
                () = sleep_until(retry.unwrap_or_else(Instant::now)), if retry.is_some() => {
                    self.serve_proxies().await;
                    self.publish(|_| {});
                }
            }
        }
    }

    /// A watched file was looked at.
    async fn seen(&mut self, content: Content) {
        if self.ending || !self.watch.sees(content.clone()) {
            return;
        }
        let config = self.parts.config();
        if !self.watch.has_tried()
            && let (Ok(bytes), Some(path)) = (&content, &config.path)
            && let Ok(loaded) = Config::parse_bytes(bytes, path)
            && config.diff(loaded.config).0 == Diff::default()
        {
            return self.watch.tried(content); // it is what the node has started with
        }
        let _ = self.apply_file(content).await; // it is in the log
    }

    /// Applies the file again.
    async fn reload(&mut self) -> Result<api::Reload, api::Error> {
        let Some(path) = self.parts.config().path.clone() else {
            return Err(api::Error::new("this node was started without a configuration file"));
        };
        let content = tokio::task::spawn_blocking(move || read_again(&path)).await;
        self.apply_file(content.map_err(|error| api::Error::new(error.to_string()))?).await
    }

    /// Applies what the file holds, or nothing of it, and tells of it.
    async fn apply_file(&mut self, content: Content) -> Result<api::Reload, api::Error> {
        self.watch.tried(content.clone());
        let path = self.parts.config().path.clone().unwrap_or_default();
        let loaded = content.and_then(|bytes| Config::parse_bytes(&bytes, &path));
        let result = match loaded {
            Ok(loaded) => Ok(self.apply(loaded).await),
            Err(problems) => {
                let count = problems.0.len();
                let some = if count == 1 { "a problem".to_owned() } else { format!("{count} problems") };
                let error = format!("{} has {some}, and nothing was changed", path.display());
                tracing::error!("configuration not applied: {error}");
                for problem in &problems.0 {
                    tracing::error!("{problem}");
                }
                let problems = problems.0.iter().map(Into::into).collect();
                Err(api::Error { problems, ..api::Error::new(error) })
            }
        };
        let error = result.as_ref().err().map(|error| error.error.clone());
        self.parts.events.publish(api::Change::Reload { result: result.clone().ok(), error });
        result
    }

    async fn apply(&mut self, loaded: Loaded) -> api::Reload {
        let (diff, config) = self.parts.config().diff(loaded.config);
        let concerns_policy = |change: &Change| matches!(change, Change::Access | Change::Service(_));
        let access = diff.changes.iter().any(concerns_policy);
        self.parts.config.send_replace(Arc::new(config));
        self.settle(access).await;
        let reload = api::Reload {
            changed: diff.changes.iter().map(ToString::to_string).collect(),
            needs_restart: diff.needs_restart.iter().map(ToString::to_string).collect(),
            failed: self.failed.iter().map(ToString::to_string).collect(),
            warnings: loaded.warnings.iter().map(Into::into).collect(),
        };
        self.publish(|in_force| {
            in_force.applied = Timestamp::now();
            in_force.warnings = loaded.warnings;
            in_force.needs_restart.clone_from(&reload.needs_restart);
        });
        tracing::info!(changed = ?reload.changed, "configuration applied");
        for key in &reload.needs_restart {
            tracing::warn!("{key} has changed in the file, which takes a restart: the old value is in force");
        }
        reload
    }

    /// Brings everything in line with the configuration and with what was added. `access` says whether who may dial what
    /// has changed.
    async fn settle(&mut self, access: bool) {
        let config = self.parts.config();
        let services = self.services_in_force();
        if access && self.hosts.lack(&services) {
            // Until it is known where a restricted service is, others could dial it there.
            self.hosts = egress::resolve_services(services.clone(), self.hosts.clone()).await;
        }
        self.serve_proxies().await;
        if access {
            self.end_refused();
        }
        self.parts.flows.set_limits(flow_limits(&config));
        self.hold.send_replace(config.mesh.hold);
        let driver = self.parts.sessions.driver();
        driver.configure(terms(&config, &services)).await;
        self.parts.wanted.leave_out(&config.quic.upstreams);
        self.upstreams.apply(&config.quic.upstreams);
        self.follow_addresses().await;
    }

    /// Binds what is not bound yet, closes what is not wanted any more, and lets the policy know.
    async fn serve_proxies(&mut self) {
        let wanted: Vec<_> = offered(&self.offered_proxies()).cloned().collect();
        // Before anybody can connect to them through the mesh.
        let soon: Vec<_> = wanted.iter().map(|proxy| proxy.listen.clone()).collect();
        if let Err(error) = self.set_policy(&soon) {
            tracing::warn!("addresses of this machine cannot be read: {error}");
        }
        let failed = self.ingresses.apply(&wanted).await;
        self.note_failed(failed);
        self.refresh_policy();
    }

    /// Notes which proxies could not be bound, and when they are tried again.
    fn note_failed(&mut self, failed: Vec<BindError>) {
        let before = std::mem::replace(&mut self.failed, failed);
        for error in self.failed.iter().filter(|error| !before.contains(error)) {
            tracing::warn!("{error}; trying on");
        }
        let pause = match self.retry {
            Some((_, pause)) if self.failed == before => pause,
            _ => RETRY.0,
        };
        self.retry = (!self.failed.is_empty()).then(|| (Instant::now() + pause, (pause * 2).min(RETRY.1)));
    }

    fn offered_proxies(&self) -> Vec<Offered<Proxy>> {
        offer::proxies(&self.parts.config(), self.proxies.items())
    }

    fn services_in_force(&self) -> Vec<Service> {
        offered(&offer::services(&self.parts.config(), self.services.items())).cloned().collect()
    }

    /// Publishes what is in force, and tells what of it has changed.
    fn publish(&self, change: impl FnOnce(&mut InForce)) {
        let old = self.parts.in_force.load_full();
        let mut new = InForce::clone(&old);
        new.proxies = self.offered_proxies();
        for offered in &mut new.proxies {
            let failed = self.failed.iter().find(|failed| failed.name == offered.item.name);
            let Some(failed) = failed.filter(|_| offered.error.is_none()) else { continue };
            let meanwhile = self.ingresses.listens(&failed.name);
            let meanwhile = meanwhile.map_or_else(String::new, |at| format!("; it still listens on {at}"));
            offered.error = Some(format!("cannot listen on {}: {}{meanwhile}", failed.listen, failed.reason));
        }
        let own = self.parts.credentials.node_id();
        self.ahead.send_replace(offer::nodes_ahead(&own, offered(&new.proxies)));
        new.services = offer::services(&self.parts.config(), self.services.items());
        new.listening = self.ingresses.addresses();
        new.diallers = self.upstreams.diallers();
        change(&mut new);
        for name in changed(&old.proxies, &new.proxies, |proxy| &proxy.name) {
            self.parts.events.publish(api::Change::Proxy { name });
        }
        for name in changed(&old.services, &new.services, |service| &service.name) {
            self.parts.events.publish(api::Change::Service { name });
        }
        self.parts.in_force.store(Arc::new(new));
    }
}

/// The names of what is not the same before and after.
fn changed<T: PartialEq>(
    old: &[Offered<T>],
    new: &[Offered<T>],
    name: impl Fn(&T) -> &String,
) -> Vec<String> {
    let mut names: BTreeMap<&String, [Vec<&Offered<T>>; 2]> = BTreeMap::new();
    for (side, all) in [old, new].into_iter().enumerate() {
        for offered in all {
            names.entry(name(&offered.item)).or_default()[side].push(offered);
        }
    }
    let differ = names.into_iter().filter(|(_, [old, new])| old != new);
    differ.map(|(name, _)| name.clone()).collect()
}

/// `GET /api/v1/config`
pub(super) fn config(parts: &Parts) -> api::Config {
    let (config, in_force) = (parts.config(), parts.in_force.load());
    api::Config {
        path: config.path.as_ref().map(|path| path.display().to_string()),
        applied: in_force.applied,
        values: config.values(),
        warnings: in_force.warnings.iter().map(Into::into).collect(),
        needs_restart: in_force.needs_restart.clone(),
    }
}

fn paced(period: Duration) -> tokio::time::Interval {
    let mut pace = interval(period);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    pace
}
