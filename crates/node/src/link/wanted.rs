//! Dialling nodes that are in use, where they say that they can be dialled: with a link to them, their sessions need no
//! relay.
//!
//! Most attempts fail in most meshes, as nodes are behind NATs and firewalls. So failures are no news, and pauses get
//! long.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ffmesh_api::{Change, PeerState};
use ffmesh_core::id::NodeId;
use ffmesh_core::lsdb::record::MAX_ADDRESSES;
use ffmesh_core::target::{Host, Target};
use jiff::Timestamp;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::addresses::may_dial;
use super::dial::{DialState, Linked, MAX_LOOKUPS, connect, open, resolve};
use super::handshake::LinkError;
use super::{LinkContext, Made};
use crate::config::Upstream;

/// Most nodes without a link that are dialled; of more, those with the lowest ids. Their sessions have relays.
pub const MAX_WANTED: usize = 256;
/// Attempts under way at once, so that many wanted nodes don't become a burst: the next ones wait up to 15 s.
pub(super) const MAX_ATTEMPTS: usize = 32;
/// Names of one node that are looked up: a machine has one, or one for each family.
const MAX_NAMES: usize = 2;
/// After the first attempt. Also how long a link that was lost, and addresses that changed, wait for one, so that
/// neither makes a tight loop; and the higher of two ids.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Between attempts in the long run.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

/// The nodes that this node has a session with, or wants one, and the addresses that they advertise, best first. Nodes
/// that there is a link to may be among them.
pub type Wanted = Arc<BTreeMap<NodeId, Vec<Target>>>;

/// Who is dialled by [`dial_wanted`], and how it goes. Clones share it.
#[derive(Debug, Clone)]
pub struct WantedDialler {
    /// Nodes that are dialled as upstreams
    upstreams: Arc<watch::Sender<BTreeSet<NodeId>>>,
    states: Arc<Mutex<BTreeMap<NodeId, DialState>>>,
}

impl WantedDialler {
    /// One that leaves out the nodes of `upstreams`: those are dialled anyway.
    pub fn new(upstreams: &[Upstream]) -> Self {
        Self { upstreams: Arc::new(watch::Sender::new(nodes_of(upstreams))), states: Arc::default() }
    }

    /// Leaves out the nodes of these instead.
    pub fn leave_out(&self, upstreams: &[Upstream]) {
        let nodes = nodes_of(upstreams);
        self.upstreams.send_if_modified(|now| std::mem::replace(now, nodes.clone()) != nodes);
    }

    /// How dialling a node goes; none where it is not dialled.
    pub fn state(&self, node: &NodeId) -> Option<DialState> {
        self.states().get(node).cloned()
    }

    /// The nodes that are dialled, and how it goes.
    pub fn all(&self) -> Vec<(NodeId, DialState)> {
        self.states().iter().map(|(node, state)| (node.clone(), state.clone())).collect()
    }

    fn states(&self) -> MutexGuard<'_, BTreeMap<NodeId, DialState>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, node: &NodeId, error: LinkError) {
        tracing::debug!(peer = %node, "wanted node not reached: {}", error.0);
        if let Some(state) = self.states().get_mut(node) {
            state.last_error = Some(error.0);
        }
    }
}

fn nodes_of(upstreams: &[Upstream]) -> BTreeSet<NodeId> {
    upstreams.iter().map(|upstream| upstream.node_id.clone()).collect()
}

/// Dials the nodes of `wanted` that are not in `linked`, for as long as both are published. A link that comes about is
/// like any other: its certificate is for the very node that was wanted.
///
/// All addresses of a node are dialled at once, then again after 1 s, 2 s, 4 s and so on up to 60 s, names looked up anew
/// each time. Other addresses start anew.
pub async fn dial_wanted(
    context: LinkContext,
    dialler: WantedDialler,
    mut wanted: watch::Receiver<Wanted>,
    mut linked: watch::Receiver<Linked>,
) {
    let own = context.credentials.node_id();
    let lookups = Arc::new(Semaphore::new(MAX_LOOKUPS));
    let bounds = Arc::new(Bounds { attempts: Semaphore::new(MAX_ATTEMPTS), lookups });
    let mut pursuits = Pursuits::default();
    let mut upstreams = dialler.upstreams.subscribe();
    loop {
        let upstreams_now = upstreams.borrow_and_update().clone();
        let wanted_now = wanted.borrow_and_update().clone();
        let linked_now = linked.borrow_and_update().clone();
        {
            let mut states = dialler.states(); // a task that fails at once waits for its state
            let is_dialled = |node: &NodeId| *node != own && !upstreams_now.contains(node);
            let nodes = wanted_now.iter().filter(|(node, _)| is_dialled(node));
            pursuits.follow(&own, nodes, &linked_now, |node, addresses, delay| {
                let mut task = JoinSet::new();
                let (context, dialler, bounds) = (context.clone(), dialler.clone(), bounds.clone());
                let (node, addresses) = (node.clone(), addresses.to_vec());
                task.spawn(
                    async move { pursue(&context, &dialler, &bounds, &node, &addresses, delay).await },
                );
                task
            });
            let given_up = states.extract_if(.., |node, _| !pursuits.is_dialled(node));
            for (node_id, _) in given_up.filter(|(node, _)| !linked_now.contains(node)) {
                let (state, reason) = (PeerState::Down, Some("not wanted any more".to_owned()));
                context.changes.publish(Change::Peer { node_id, state, reason });
            }
            for node in pursuits.dialled().filter(|node| !states.contains_key(*node)).collect::<Vec<_>>() {
                states.insert(node.clone(), DialState { since: Timestamp::now(), last_error: None });
                context.publish_dialling(node, None);
            }
        }
        tokio::select! {
            changed = wanted.changed() => if changed.is_err() { return },
            changed = linked.changed() => if changed.is_err() { return },
            _ = upstreams.changed() => {}
        }
    }
}

/// What all pursuits share.
struct Bounds {
    attempts: Semaphore,
    /// Apart from those of upstreams: what other nodes tell must not stand in the way of the configuration.
    lookups: Arc<Semaphore>,
}

/// The wanted nodes that are dialled, and those that have been and have a link now.
#[derive(Default)]
struct Pursuits(BTreeMap<NodeId, Pursuit>);

struct Pursuit {
    addresses: Vec<Target>,
    /// Dials while it is kept; none while there is a link.
    task: Option<JoinSet<()>>,
}

impl Pursuits {
    /// Starts what is to be dialled and ends what is not. `start` gets the pause before the first attempt.
    ///
    /// Two nodes with a session mostly want each other. Of two links that are dialled at once, that of the lower id
    /// stays (`core::neighbor::choose`), so it goes first.
    fn follow<'a>(
        &mut self,
        own: &NodeId,
        wanted: impl Iterator<Item = (&'a NodeId, &'a Vec<Target>)>,
        linked: &BTreeSet<NodeId>,
        mut start: impl FnMut(&NodeId, &[Target], Duration) -> JoinSet<()>,
    ) {
        let mut before = std::mem::take(&mut self.0);
        let mut dialled = 0;
        for (node, addresses) in wanted {
            let old = before.remove(node);
            let has_link = linked.contains(node);
            dialled += usize::from(!has_link);
            if dialled > MAX_WANTED && !has_link {
                continue;
            }
            let delay = if old.is_some() || node < own { FIRST_PAUSE } else { Duration::ZERO };
            let task = match old {
                _ if has_link => None,
                Some(Pursuit { addresses: same, task: Some(task) }) if same == *addresses => Some(task),
                _ => Some(start(node, addresses, delay)),
            };
            self.0.insert(node.clone(), Pursuit { addresses: addresses.clone(), task });
        }
    }

    fn is_dialled(&self, node: &NodeId) -> bool {
        self.0.get(node).is_some_and(|pursuit| pursuit.task.is_some())
    }

    fn dialled(&self) -> impl Iterator<Item = &NodeId> {
        self.0.iter().filter(|(_, pursuit)| pursuit.task.is_some()).map(|(node, _)| node)
    }
}

/// Dials one node until it is dropped: also when a link came about, as that can be gone before anybody looks.
async fn pursue(
    context: &LinkContext,
    dialler: &WantedDialler,
    bounds: &Bounds,
    node: &NodeId,
    addresses: &[Target],
    delay: Duration,
) {
    let mut pause = FIRST_PAUSE;
    sleep(delay).await;
    loop {
        let permit = bounds.attempts.acquire().await;
        match attempt(context, bounds, node, addresses).await {
            Ok(()) => pause = FIRST_PAUSE,
            Err(error) => dialler.failed(node, error),
        }
        drop(permit);
        // Two nodes that want each other must not collide each time.
        sleep(pause.mul_f64(rand::random_range(0.8..1.0))).await;
        pause = longer(pause);
    }
}

fn longer(pause: Duration) -> Duration {
    (pause * 2).min(LONGEST_PAUSE)
}

async fn attempt(
    context: &LinkContext,
    bounds: &Bounds,
    node: &NodeId,
    addresses: &[Target],
) -> Result<(), LinkError> {
    let udp = context.transport.local_addr().map_err(|e| LinkError(e.to_string()))?;
    // Without them, this node may dial itself, which the certificate ends.
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    let interfaces: Vec<IpAddr> = interfaces.iter().map(if_addrs::Interface::ip).collect();
    let mut found: Vec<SocketAddr> = Vec::new();
    for at in resolve_all(addresses, &bounds.lookups).await {
        let at = ffmesh_udp::canonical(at);
        if found.len() < MAX_ADDRESSES && !found.contains(&at) && may_dial(at, udp, &interfaces) {
            found.push(at);
        }
    }
    if found.is_empty() {
        return Err(LinkError("it tells no address that can be dialled from here".to_owned()));
    }
    let connected = connect(context, node, found).await?;
    open(context.clone(), connected, node.clone(), Made::Found).await
}

/// The addresses behind what a node advertises, in its order; what does not resolve is left out.
async fn resolve_all(targets: &[Target], lookups: &Arc<Semaphore>) -> Vec<SocketAddr> {
    let mut resolving = JoinSet::new();
    let mut names = 0;
    for (place, target) in targets.iter().take(MAX_ADDRESSES).enumerate() {
        let Target::Port { host, port } = target.clone() else { continue };
        names += usize::from(matches!(host, Host::Name(_)));
        if matches!(host, Host::Ip(_)) || names <= MAX_NAMES {
            let lookups = lookups.clone();
            resolving.spawn(async move { (place, resolve(&host, port, &lookups).await.unwrap_or_default()) });
        }
    }
    let mut resolved = resolving.join_all().await;
    resolved.sort_by_key(|(place, _)| *place);
    resolved.into_iter().flat_map(|(_, addresses)| addresses).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> NodeId {
        text.parse().unwrap()
    }

    /// What is started for these wanted nodes, and after which pause.
    fn follow(
        pursuits: &mut Pursuits,
        wanted: &[(&str, &str)],
        linked: &[&str],
    ) -> Vec<(String, String, Duration)> {
        let wanted: BTreeMap<_, _> =
            wanted.iter().map(|(node, at)| (id(node), vec![at.parse::<Target>().unwrap()])).collect();
        let mut started = Vec::new();
        pursuits.follow(
            &id("a"),
            wanted.iter(),
            &linked.iter().map(|node| id(node)).collect(),
            |node, addresses, delay| {
                started.push((node.to_string(), addresses[0].to_string(), delay));
                JoinSet::new()
            },
        );
        started
    }

    fn start(node: &str, at: &str, delay: Duration) -> Vec<(String, String, Duration)> {
        vec![(node.to_owned(), at.to_owned(), delay)]
    }

    #[test]
    fn what_is_wanted_and_has_no_link_is_dialled() {
        let (mut pursuits, one, two) = (Pursuits::default(), "192.0.2.1:1", "192.0.2.2:1");
        assert_eq!(follow(&mut pursuits, &[("a", one)], &[]), start("a", one, Duration::ZERO));
        assert_eq!(follow(&mut pursuits, &[("a", one)], &[]), []);
        assert_eq!(follow(&mut pursuits, &[("a", two)], &[]), start("a", two, FIRST_PAUSE));
        // Another one with a link from elsewhere
        assert_eq!(follow(&mut pursuits, &[("a", two), ("b", one)], &["b"]), []);
        assert_eq!((pursuits.is_dialled(&id("a")), pursuits.is_dialled(&id("b"))), (true, false));
        assert_eq!(follow(&mut pursuits, &[("a", two)], &["a"]), []);
        assert_eq!(pursuits.dialled().count(), 0);
        assert_eq!(
            follow(&mut pursuits, &[("a", two)], &[]),
            start("a", two, FIRST_PAUSE),
            "the link is gone"
        );
        assert_eq!(follow(&mut pursuits, &[], &[]), []);
        assert_eq!(pursuits.0.len(), 0);
    }

    #[test]
    fn pauses_get_long() {
        let pauses = std::iter::successors(Some(FIRST_PAUSE), |pause| Some(longer(*pause)));
        let pauses: Vec<_> = pauses.map(|pause| pause.as_secs()).take(8).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
    }

    #[test]
    fn no_more_are_dialled_than_the_limit_and_links_make_room() {
        let names: Vec<_> = (0..MAX_WANTED + 10).map(|n| format!("n{n:03}")).collect();
        let wanted: Vec<_> = names.iter().map(|name| (name.as_str(), "192.0.2.1:1")).collect();
        let mut pursuits = Pursuits::default();
        assert_eq!(follow(&mut pursuits, &wanted, &[]).len(), MAX_WANTED);
        assert_eq!(follow(&mut pursuits, &wanted, &["n000", "n001"]).len(), 2);
        assert_eq!(pursuits.dialled().count(), MAX_WANTED);
    }

    #[tokio::test]
    async fn few_names_of_a_node_are_looked_up_and_none_hides_the_addresses() {
        let lookups = Arc::new(Semaphore::new(0)); // all hang
        let target = |text: &str| text.parse::<Target>().unwrap();
        let targets =
            [target("localhost:1"), target("192.0.2.1:1"), target("unix:/x"), target("[2001:db8::1]:2")];
        let found = resolve_all(&targets, &lookups).await;
        assert_eq!(found, ["192.0.2.1:1".parse().unwrap(), "[2001:db8::1]:2".parse().unwrap()]);
        let names: Vec<_> = (1..=9).map(|port| target(&format!("localhost:{port}"))).collect();
        let found = resolve_all(&names, &Arc::new(Semaphore::new(16))).await;
        let ports: BTreeSet<_> = found.iter().map(SocketAddr::port).collect();
        assert_eq!(ports.into_iter().collect::<Vec<_>>(), [1, 2]);
    }
}
