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
mod offer;
mod runtime;
mod watch;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ffmesh_api as api;
use ffmesh_core::policy::{Caller, Own};
use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot, watch as channel};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::{Parts, flow_limits, terms, where_to_dial};
use crate::config::{Change, Config, Diff, Listen, Loaded, Problem, Proxy, Service, read_file};
use crate::egress::{self, ServiceAddresses};
use crate::flow::OpenContext;
use crate::ingress::{BindError, Ingress, Ingresses};
use crate::link::{Dialler, Upstreams};
use crate::store::{Store, StoreError};

pub(super) use offer::Offered;

use runtime::Entries;
use watch::{Content, Watch};

/// Commands that may wait: each is a request of the API, and those are bounded themselves.
const COMMANDS: usize = 64;
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

/// What the owner is asked for.
enum Command {
    Reload(Answer<api::Reload>),
    PutProxy(Option<String>, api::ProxySpec, Answer<Offered<Proxy>>),
    RemoveProxy(String, Answer<()>),
    PutService(Option<String>, api::ServiceSpec, Answer<Offered<Service>>),
    RemoveService(String, Answer<()>),
    CloseProxies(oneshot::Sender<()>),
}

type Answer<T> = oneshot::Sender<Result<T, api::Error>>;

/// Reaches the [`Owner`]. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Settings(mpsc::Sender<Command>);

impl Settings {
    /// Applies the file again.
    pub(super) async fn reload(&self) -> Result<api::Reload, api::Error> {
        self.ask(Command::Reload).await
    }

    /// Adds a proxy, or puts it in the place of another one that was added.
    pub(super) async fn put_proxy(
        &self,
        instead: Option<String>,
        spec: api::ProxySpec,
    ) -> Result<Offered<Proxy>, api::Error> {
        self.ask(|answer| Command::PutProxy(instead, spec, answer)).await
    }

    /// Removes a proxy that was added. Its open flows go on.
    pub(super) async fn remove_proxy(&self, name: String) -> Result<(), api::Error> {
        self.ask(|answer| Command::RemoveProxy(name, answer)).await
    }

    /// Adds a service, or puts it in the place of another one that was added.
    pub(super) async fn put_service(
        &self,
        instead: Option<String>,
        spec: api::ServiceSpec,
    ) -> Result<Offered<Service>, api::Error> {
        self.ask(|answer| Command::PutService(instead, spec, answer)).await
    }

    /// Removes a service that was added.
    pub(super) async fn remove_service(&self, name: String) -> Result<(), api::Error> {
        self.ask(|answer| Command::RemoveService(name, answer)).await
    }

    /// Stops listening for new flows, for good: the node is about to end. From then on every change is refused.
    pub(super) async fn close_proxies(&self) {
        let (answer, done) = oneshot::channel();
        if self.0.send(Command::CloseProxies(answer)).await.is_ok() {
            let _ = done.await; // the owner is gone, and its listeners with it
        }
    }

    async fn ask<T>(&self, command: impl FnOnce(Answer<T>) -> Command) -> Result<T, api::Error> {
        let ending = || api::Error::new("the node is about to end: nothing is changed any more");
        let (answer, result) = oneshot::channel();
        self.0.send(command(answer)).await.map_err(|_| ending())?;
        result.await.unwrap_or_else(|_| Err(ending()))
    }
}

/// What was added at run time, and what that and the file make together; made before anything is bound.
pub(super) struct Plan {
    proxies: Entries<Proxy>,
    services: Entries<Service>,
    offered_proxies: Vec<Offered<Proxy>>,
    offered_services: Vec<Offered<Service>>,
}

/// The proxies of a [`Plan`] that could be bound, and those of run time that could not.
pub(super) type Bound = (Vec<Ingress>, Vec<BindError>);

impl Plan {
    /// Reads the store.
    pub(super) fn new(config: &Config, store: &Store) -> Result<Self, StoreError> {
        let (proxies, services) = (Entries::load(store)?, Entries::load(store)?);
        let offered_proxies = offer::proxies(config, proxies.items());
        let offered_services = offer::services(config, services.items());
        for (name, error) in offered_proxies
            .iter()
            .filter(|offered| offered.origin == api::Origin::Runtime)
            .filter_map(|offered| Some((&offered.item.name, offered.error.as_ref()?)))
        {
            tracing::warn!(proxy = ?name, "a proxy that was added at run time does not listen: {error}");
        }
        Ok(Self { proxies, services, offered_proxies, offered_services })
    }

    /// Binds the proxies.
    ///
    /// # Errors
    /// The first of the file that cannot be bound: so a port that is taken is known at once. What was added at run time
    /// is tried again later.
    pub(super) fn bind(&self) -> Result<Bound, BindError> {
        let (mut bound, mut failed) = (Vec::new(), Vec::new());
        for offered in self.offered_proxies.iter().filter(|offered| offered.error.is_none()) {
            match Ingress::bind(&offered.item) {
                Ok(ingress) => bound.extend(ingress),
                Err(error) if offered.origin == api::Origin::File => return Err(error),
                Err(error) => failed.push(error),
            }
        }
        Ok((bound, failed))
    }

    /// What is offered by name.
    pub(super) fn services(&self) -> impl Iterator<Item = &Service> {
        offered(&self.offered_services)
    }

    /// What is in force at the start.
    pub(super) fn in_force(&self, listening: Vec<SocketAddr>, warnings: Vec<Problem>) -> InForce {
        InForce {
            proxies: self.offered_proxies.clone(),
            services: self.offered_services.clone(),
            listening,
            diallers: Vec::new(),
            applied: Timestamp::now(),
            warnings,
            needs_restart: Vec::new(),
        }
    }
}

/// Those that stand.
fn offered<T>(all: &[Offered<T>]) -> impl Iterator<Item = &T> {
    all.iter().filter(|offered| offered.error.is_none()).map(|offered| &offered.item)
}

/// Commands for an owner that is still to be made.
pub(super) fn commands() -> (Settings, Commands) {
    let (sender, commands) = mpsc::channel(COMMANDS);
    (Settings(sender), Commands(commands))
}

/// What [`Settings`] ask for.
pub(super) struct Commands(mpsc::Receiver<Command>);

/// Owns what is in force.
pub(super) struct Owner {
    parts: Arc<Parts>,
    ingresses: Ingresses,
    upstreams: Upstreams,
    hold: channel::Sender<Duration>,
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
        hold: channel::Sender<Duration>,
    ) -> std::io::Result<Self> {
        let mut owner = Self {
            ingresses: Ingresses::start(opening, parts.counters.clone(), bound),
            upstreams,
            hold,
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
    pub(super) async fn run(mut self, commands: Commands) {
        let Commands(mut commands) = commands;
        let (mut lookup, mut look) = (JoinSet::new(), JoinSet::new());
        let mut addresses = paced(ADDRESS_INTERVAL);
        let mut looks = paced(LOOK_INTERVAL);
        loop {
            let config = self.parts.config();
            let retry = self.retry.filter(|_| !self.ending).map(|(at, _)| at);
            tokio::select! {
                command = commands.recv() => match command {
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
                    self.hosts = hosts;
                    self.refresh_policy();
                }
                _ = looks.tick(), if config.watch && !self.ending && look.is_empty() => {
                    if let Some(path) = config.path.clone() {
                        look.spawn_blocking(move || read_file(&path));
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
        if !self.watch.sees(content.clone()) {
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
        let content = tokio::task::spawn_blocking(move || read_file(&path)).await;
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
                let problems = problems.0.iter().map(as_told).collect();
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
            warnings: loaded.warnings.iter().map(as_told).collect(),
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

    /// Sets the policy, with what listens and what is `soon` to listen as FFMesh's own.
    fn set_policy(&self, soon: &[Listen]) -> std::io::Result<()> {
        let config = self.parts.config();
        let mut listeners = self.ingresses.addresses();
        listeners.extend(config.admin.listen);
        let mut unix = self.ingresses.paths();
        unix.push(self.parts.admin_path.clone());
        for listen in soon {
            match listen {
                Listen::Port(ip, port) => listeners.push(SocketAddr::new(*ip, *port)),
                Listen::Unix(path) => unix.push(path.clone()),
            }
        }
        let own: Own = egress::own(listeners, &unix)?;
        let services = self.services_in_force();
        self.parts.egress.set_policy(egress::policy(&config, &services, own, &self.hosts));
        Ok(())
    }

    fn refresh_policy(&self) {
        if let Err(error) = self.set_policy(&[]) {
            tracing::warn!("addresses of this machine cannot be read: {error}");
        }
    }

    /// Ends the flows that the policy would refuse now.
    fn end_refused(&self) {
        let egress = &self.parts.egress;
        let ended = self.parts.flows.revoke(|peer, dialled| {
            let caller = Caller { id: peer, groups: &dialled.groups };
            let refusal = egress.check(&caller, &dialled.target, dialled.address).err()?;
            Some(format!("access was taken away: {}", refusal.detail))
        });
        if ended > 0 {
            tracing::info!(flows = ended, "open flows ended that the new access rules refuse");
        }
    }

    /// Keeps the policy's picture of this machine's addresses, as what a wildcard listener listens on changes with them; and
    /// tells the mesh where this node can be dialled.
    async fn follow_addresses(&self) {
        self.refresh_policy();
        let addresses = where_to_dial(&self.parts.config(), self.parts.udp);
        self.parts.sessions.driver().advertise(addresses).await;
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

/// A problem of a file, as the API tells it.
pub(super) fn as_told(problem: &Problem) -> api::Problem {
    api::Problem {
        file: problem.file.as_ref().map(|file| file.display().to_string()),
        line: problem.line as u64,
        column: problem.column as u64,
        key: problem.key.clone(),
        message: problem.message.clone(),
    }
}

/// `GET /api/v1/config`
pub(super) fn config(parts: &Parts) -> api::Config {
    let (config, in_force) = (parts.config(), parts.in_force.load());
    api::Config {
        path: config.path.as_ref().map(|path| path.display().to_string()),
        applied: in_force.applied,
        values: config.values(),
        warnings: in_force.warnings.iter().map(as_told).collect(),
        needs_restart: in_force.needs_restart.clone(),
    }
}

fn paced(period: Duration) -> tokio::time::Interval {
    let mut pace = interval(period);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    pace
}
