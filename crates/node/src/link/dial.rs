//! Dialling upstreams: at once, and again until there is a link.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use ffmesh_core::id::NodeId;
use ffmesh_core::target::Host;
use jiff::Timestamp;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use super::handshake::{self, Connected, LinkError};
use super::{LinkContext, Made};
use crate::config::{Address, Upstream};
use crate::lookup::lookup;
use crate::repeats::Repeats;
use crate::transport::server_name;

/// Between attempts in the first [`EAGER_FOR`]; attempts overlap, so that a slow path still has its 5 s.
const EAGER_INTERVAL: Duration = Duration::from_millis(500);
/// How long a lost upstream is dialled eagerly.
const EAGER_FOR: Duration = Duration::from_mins(1);
/// Between attempts after that.
const PATIENT_INTERVAL: Duration = Duration::from_secs(5);
/// Addresses of one name that are tried at once.
const MAX_ADDRESSES_OF_NAME: usize = 8;
/// Lookups of upstreams' names at once, over all; see [`lookup`].
pub(super) const MAX_LOOKUPS: usize = 16;
/// How long a name may take to resolve.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);

/// The nodes that there are links to.
pub type Linked = Arc<BTreeSet<NodeId>>;

/// How dialling a node goes.
#[derive(Debug, Clone)]
pub struct DialState {
    /// When the link was lost, or dialling began.
    pub since: Timestamp,
    /// Why the last attempt failed.
    pub last_error: Option<String>,
}

/// A node to dial, at all the addresses that the upstreams of the configuration name for it, and how it goes.
#[derive(Debug, Clone)]
pub struct Dialler {
    upstreams: Arc<[Upstream]>,
    state: Arc<Mutex<DialState>>,
}

impl Dialler {
    fn new(upstreams: Vec<Upstream>) -> Self {
        let state = DialState { since: Timestamp::now(), last_error: None };
        Self { upstreams: upstreams.into(), state: Arc::new(Mutex::new(state)) }
    }

    /// The first upstream of the node.
    pub fn upstream(&self) -> &Upstream {
        &self.upstreams[0]
    }

    /// How it goes.
    pub fn state(&self) -> DialState {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, change: impl FnOnce(&mut DialState)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn addresses(&self) -> impl Iterator<Item = &Address> {
        self.upstreams.iter().map(|upstream| &upstream.address)
    }
}

/// The upstreams of the configuration, each node dialled by a task of its own. Dropping this ends the dialling.
#[derive(Debug)]
pub struct Upstreams {
    context: LinkContext,
    linked: watch::Receiver<Linked>,
    dialled: Vec<(Dialler, JoinSet<()>)>,
}

impl Upstreams {
    /// None yet. A node is linked for as long as it is in `linked`.
    pub fn new(context: LinkContext, linked: watch::Receiver<Linked>) -> Self {
        Self { context, linked, dialled: Vec::new() }
    }

    /// Dials these from now on, and no others. What has not changed goes on undisturbed. Where a node has lost one of its
    /// addresses, the others are dialled although there is a link, which the new one then replaces.
    pub fn apply(&mut self, upstreams: &[Upstream]) {
        let mut before = std::mem::take(&mut self.dialled);
        for upstreams in by_node(upstreams) {
            let same_node = |(old, _): &(Dialler, _)| old.upstream().node_id == upstreams[0].node_id;
            let old = before.iter().position(same_node).map(|at| before.swap_remove(at));
            if let Some((old, task)) = old {
                if *old.upstreams == *upstreams {
                    self.dialled.push((old, task));
                    continue;
                }
                let new = Dialler { upstreams: upstreams.into(), state: old.state.clone() };
                let moved = old.addresses().any(|address| !new.addresses().any(|kept| kept == address));
                self.start(new, moved);
            } else {
                self.start(Dialler::new(upstreams), false);
            }
        }
    }

    /// The nodes, in the order of the configuration.
    pub fn diallers(&self) -> Vec<Dialler> {
        self.dialled.iter().map(|(dialler, _)| dialler.clone()).collect()
    }

    fn start(&mut self, dialler: Dialler, moved: bool) {
        let mut task = JoinSet::new();
        task.spawn(dial_upstream(self.context.clone(), dialler.clone(), self.linked.clone(), moved));
        self.dialled.push((dialler, task));
    }
}

/// The upstreams of each node, in their order.
fn by_node(upstreams: &[Upstream]) -> Vec<Vec<Upstream>> {
    let mut nodes: Vec<Vec<Upstream>> = Vec::new();
    for upstream in upstreams {
        match nodes.iter_mut().find(|node| node[0].node_id == upstream.node_id) {
            Some(node) => node.push(upstream.clone()),
            None => nodes.push(vec![upstream.clone()]),
        }
    }
    nodes
}

/// Keeps an upstream linked for as long as `linked` is published. With `moved`, makes one link although there may be one.
async fn dial_upstream(
    context: LinkContext,
    dialler: Dialler,
    mut linked: watch::Receiver<Linked>,
    moved: bool,
) {
    let node = dialler.upstream().node_id.clone();
    let mut log = Repeats::default();
    let mut earliest = Instant::now();
    if moved {
        dial_until_linked(&context, &dialler, earliest, &log).await;
    }
    while linked.wait_for(|linked| !linked.contains(&node)).await.is_ok() {
        dialler.set(|state| state.since = Timestamp::now());
        context.publish_dialling(&node, None);
        tokio::select! {
            linked = linked.wait_for(|linked| linked.contains(&node)) => if linked.is_err() { return },
            // An admitted link is in `linked` by the time this returns.
            () = dial_until_linked(&context, &dialler, earliest, &log) => {}
        }
        dialler.set(|state| state.last_error = None);
        log = Repeats::default(); // the next failure is news again
        // A link that breaks as soon as it is made must not be made in a tight loop.
        earliest = Instant::now() + EAGER_INTERVAL;
    }
}

async fn dial_until_linked(context: &LinkContext, dialler: &Dialler, earliest: Instant, log: &Repeats) {
    let node = &dialler.upstream().node_id;
    let started = Instant::now();
    let mut next = earliest;
    let mut attempts: JoinSet<Result<Connected, LinkError>> = JoinSet::new();
    loop {
        tokio::select! {
            () = sleep_until(next) => {
                let pace = if started.elapsed() < EAGER_FOR { EAGER_INTERVAL } else { PATIENT_INTERVAL };
                // Nodes that lost the same relay must not come back in step.
                next = Instant::now() + pace.mul_f64(rand::random_range(0.8..1.0));
                for upstream in dialler.upstreams.iter() {
                    attempts.spawn(attempt(context.clone(), node.clone(), upstream.address.clone()));
                }
            }
            Some(Ok(result)) = attempts.join_next() => {
                let opened = match result {
                    Ok(connection) => open(context.clone(), connection, node.clone(), Made::Dialled).await,
                    Err(e) => Err(e),
                };
                match opened {
                    Ok(()) => return,
                    Err(e) => {
                        let is_news = log.is_news(&e.0);
                        if is_news {
                            tracing::warn!(peer = %node, "upstream not reached, dialling again: {}", e.0);
                        }
                        dialler.set(|state| state.last_error = Some(e.0.clone()));
                        if is_news {
                            context.publish_dialling(node, Some(e.0));
                        }
                    }
                }
            }
        }
    }
}

/// Opens the control channel in a task of its own: a link that is admitted must run, whoever stops waiting for it.
pub(super) async fn open(
    context: LinkContext,
    connected: Connected,
    node: NodeId,
    made: Made,
) -> Result<(), LinkError> {
    let opened = tokio::spawn(async move { handshake::open(&context, connected, &node, made).await });
    match opened.await {
        Ok(result) => result.map(|_| ()),
        Err(e) => Err(LinkError(e.to_string())),
    }
}

/// One attempt: resolves anew and dials all addresses.
async fn attempt(context: LinkContext, node: NodeId, address: Address) -> Result<Connected, LinkError> {
    static LOOKUPS: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(MAX_LOOKUPS)));
    let addresses = resolve(&address.host, address.port, &LOOKUPS).await?;
    if addresses.is_empty() {
        return Err(LinkError(format!("{} has no address", address.host)));
    }
    connect(&context, &node, addresses).await
}

/// Dials addresses at once; the first that answers wins.
pub(super) async fn connect(
    context: &LinkContext,
    node: &NodeId,
    addresses: Vec<SocketAddr>,
) -> Result<Connected, LinkError> {
    let name = server_name(&context.credentials, node);
    let mut dials = JoinSet::new();
    let mut error = LinkError("there is no address to dial".to_owned());
    for at in addresses {
        match context.transport.connect_link(at, &name) {
            Ok((connecting, dialling)) => {
                let node = node.clone();
                dials.spawn(async move { handshake::connect(connecting, dialling, &node).await });
            }
            Err(e) => error = LinkError(format!("{at}: {e}")),
        }
    }
    while let Some(result) = dials.join_next().await {
        match result {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(e)) => error = e,
            Err(_) => {}
        }
    }
    Err(error)
}

/// The addresses of a host. At most as many names are looked up at once as `lookups` has permits; more fail.
pub(super) async fn resolve(
    host: &Host,
    port: u16,
    lookups: &Arc<Semaphore>,
) -> Result<Vec<SocketAddr>, LinkError> {
    let name = match host {
        Host::Ip(ip) => return Ok(vec![SocketAddr::new(*ip, port)]),
        Host::Name(name) => name.clone(),
    };
    let failed = |why: &dyn std::fmt::Display| LinkError(format!("cannot resolve {name}: {why}"));
    let permit = lookups.clone().try_acquire_owned();
    let permit = permit.map_err(|_| failed(&"too many lookups hang"))?;
    match timeout(RESOLVE_TIMEOUT, lookup(permit, name.clone(), port)).await {
        Ok(Ok(mut found)) => {
            found.truncate(MAX_ADDRESSES_OF_NAME);
            Ok(found)
        }
        Ok(Err(e)) => Err(failed(&e)),
        Err(_) => Err(failed(&format_args!("no answer within {RESOLVE_TIMEOUT:?}"))),
    }
}
