//! Policy check, name resolution and dialling of targets.
//!
//! A name is resolved once, each address is put to the policy, and exactly the addresses that it allowed are
//! dialled, so that DNS can't change its answer in between.

mod network;
mod race;
mod services;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use ffmesh_core::id::NodeId;
use ffmesh_core::policy::{self, Caller, Denial, Own, Policy, Verdict};
use ffmesh_core::reason::Reason;
use ffmesh_core::target::{Host, Target};
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout_at};

pub use network::{Network, Pending, System};
pub use services::{SERVICE_INTERVAL, ServiceAddresses, resolve_services};

use crate::config::{Config, Service};
use crate::local::Stream;

/// How long a dial may take in total, the lookup included: a client that waits longer has given up.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a lookup may take, so that there is time left to dial.
pub const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Dials that one caller may have under way: more than any burst of a browser or a load test, and few enough
/// that silent targets don't cost other callers their file descriptors.
pub const MAX_DIALS_PER_CALLER: usize = 2_048;
/// Lookups that one caller may have under way, its others wait: names that hang would otherwise use up those of
/// everybody.
pub const MAX_LOOKUPS_PER_CALLER: usize = 8;
/// How often a Unix socket with a full backlog is tried again; the system doesn't say when there is room.
const UNIX_RETRY: Duration = Duration::from_millis(20);

/// Why a target was not reached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {detail}")]
pub struct Refusal {
    /// What the caller learns: denied, refused, unroutable, timeout or limit.
    pub reason: Reason,
    /// The explanation for this node's log and flow records; never sent to the caller.
    pub detail: String,
}

impl Refusal {
    fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into() }
    }

    fn denied(denial: &Denial) -> Self {
        Self::new(Reason::Denied, denial.to_string())
    }
}

/// Dials targets for callers, within the policy and the limits.
pub struct Egress {
    policy: ArcSwap<Policy>,
    network: Arc<dyn Network>,
    dials: Arc<Dials>,
}

impl std::fmt::Debug for Egress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Egress").field("policy", &self.policy).finish_non_exhaustive()
    }
}

impl Egress {
    /// An egress on the system's resolver and sockets.
    pub fn new(policy: Policy) -> Self {
        Self::with_network(policy, Arc::new(System::default()))
    }

    /// An egress on another resolver and connector, for tests.
    pub fn with_network(policy: Policy, network: Arc<dyn Network>) -> Self {
        Self { policy: ArcSwap::from_pointee(policy), network, dials: Arc::default() }
    }

    /// Replaces the policy, for dials that start from now on: the file was read again, or a listener or an
    /// address of this host came or went.
    pub fn set_policy(&self, policy: Policy) {
        self.policy.store(Arc::new(policy));
    }

    /// Whether the policy, as it is now, lets `caller` go on with `target`, which was dialled at `address`.
    pub fn check(
        &self,
        caller: &Caller<'_>,
        target: &Target,
        address: Option<SocketAddr>,
    ) -> Result<(), Refusal> {
        let policy = self.policy.load();
        let verdict = match (target, address) {
            (Target::Unix(path), _) => policy.decide_unix(*caller, path),
            (Target::Port { host: Host::Name(name), .. }, Some(address)) => {
                policy.decide(*caller, Some(name), address)
            }
            // As it was asked for: one to 0.0.0.0 ends elsewhere.
            (Target::Port { host: Host::Ip(ip), port }, _) => {
                policy.decide(*caller, None, SocketAddr::new(*ip, *port))
            }
            (Target::Port { .. }, None) => return Ok(()), // the target is gone already
        };
        match verdict {
            Verdict::Allow => Ok(()),
            Verdict::Deny(denial) => Err(Refusal::denied(&denial)),
        }
    }

    /// Connects to `target` for `caller`, in at most [`DIAL_TIMEOUT`]. Dropping the future ends the attempt.
    pub async fn dial(&self, caller: &Caller<'_>, target: &Target) -> Result<Stream, Refusal> {
        let _dial = Dial::begin(&self.dials, caller.id)?;
        let deadline = Instant::now() + DIAL_TIMEOUT;
        match target {
            Target::Port { host, port } => {
                let addresses = self.addresses(caller, host, *port, deadline).await?;
                race::connect(&self.network, addresses, deadline).await.map(Stream::Tcp)
            }
            Target::Unix(path) => match self.policy.load().decide_unix(*caller, path) {
                Verdict::Allow => connect_unix(path, deadline).await.map(Stream::Unix),
                Verdict::Deny(denial) => Err(Refusal::denied(&denial)),
            },
        }
    }

    /// The addresses of `host` that `caller` may dial, in the order of the resolver; at least one.
    async fn addresses(
        &self,
        caller: &Caller<'_>,
        host: &Host,
        port: u16,
        deadline: Instant,
    ) -> Result<Vec<SocketAddr>, Refusal> {
        let (name, found) = match host {
            Host::Ip(ip) => (None, vec![SocketAddr::new(*ip, port)]),
            Host::Name(name) => {
                if let Verdict::Deny(denial) = self.policy.load().may_resolve(*caller, name, port) {
                    return Err(Refusal::denied(&denial));
                }
                (Some(name.as_str()), self.resolve(caller.id, name, port, deadline).await?)
            }
        };
        let policy = self.policy.load();
        let mut allowed = Vec::new();
        let mut denied = None;
        for address in found {
            // An IPv4-mapped address is dialled as the IPv4 one that the policy saw: that works on a host without
            // IPv6, too.
            let address = match address.ip().to_canonical() {
                ip if ip.is_ipv4() => SocketAddr::new(ip, address.port()),
                _ => address,
            };
            match policy.decide(*caller, name, address) {
                Verdict::Allow if allowed.contains(&address) => {}
                Verdict::Allow => allowed.push(address),
                Verdict::Deny(denial) => denied = denied.or(Some((address, denial))),
            }
        }
        match (allowed.is_empty(), denied) {
            (false, _) => Ok(allowed),
            (true, Some((_, denial))) if name.is_none() => Err(Refusal::denied(&denial)),
            (true, Some((address, denial))) => {
                let detail = format!("it resolves to {}: {denial}", address.ip());
                Err(Refusal::new(Reason::Denied, detail))
            }
            (true, None) => Err(Refusal::new(Reason::Unroutable, "the name has no address")),
        }
    }

    async fn resolve(
        &self,
        caller: &NodeId,
        name: &str,
        port: u16,
        deadline: Instant,
    ) -> Result<Vec<SocketAddr>, Refusal> {
        let deadline = deadline.min(Instant::now() + RESOLVE_TIMEOUT);
        let (lookups, lookup) = Lookup::begin(&self.dials, caller);
        let resolved = async {
            let turn = lookups.acquire_owned().await.map_err(io::Error::other)?;
            let pending = self.network.resolve(name, port);
            // A task of its own, as the system's resolver goes on when nobody waits for it any more, and counts
            // until it ends.
            let task = tokio::spawn(async move {
                let _counted = (turn, lookup);
                pending.await
            });
            task.await.map_err(io::Error::other)?
        };
        match timeout_at(deadline, resolved).await {
            Ok(Ok(found)) => Ok(found),
            Ok(Err(error)) => {
                let reason = if reason(&error) == Reason::Limit { Reason::Limit } else { Reason::Unroutable };
                Err(Refusal::new(reason, format!("the name does not resolve: {error}")))
            }
            Err(_) => {
                let detail = format!("the resolver did not answer in {} s", RESOLVE_TIMEOUT.as_secs());
                Err(Refusal::new(Reason::Unroutable, detail))
            }
        }
    }
}

async fn connect_unix(path: &str, deadline: Instant) -> Result<UnixStream, Refusal> {
    loop {
        match UnixStream::connect(path).await {
            Ok(stream) => return Ok(stream),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if Instant::now() + UNIX_RETRY >= deadline {
                    let detail = format!("its backlog was full for {} s", DIAL_TIMEOUT.as_secs());
                    return Err(Refusal::new(Reason::Timeout, detail));
                }
                sleep(UNIX_RETRY).await;
            }
            Err(error) => return Err(Refusal::new(reason(&error), error.to_string())),
        }
    }
}

/// What an error of `connect` means to the caller.
fn reason(error: &io::Error) -> Reason {
    use io::ErrorKind as Kind;
    let exhausted = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM, libc::EAGAIN];
    if error.raw_os_error().is_some_and(|code| exhausted.contains(&code)) {
        return Reason::Limit;
    }
    match error.kind() {
        // A path without a socket, or with one of another type, is to a client what a closed port is.
        Kind::ConnectionRefused | Kind::ConnectionReset | Kind::ConnectionAborted | Kind::NotFound => {
            Reason::Refused
        }
        _ if error.raw_os_error() == Some(libc::EPROTOTYPE) => Reason::Refused,
        Kind::TimedOut => Reason::Timeout,
        _ => Reason::Unroutable,
    }
}

/// The policy of a configuration's `access` and of services; `own` as from [`own`], `addresses` as from
/// [`resolve_services`].
pub fn policy<'a>(
    config: &Config,
    services: impl IntoIterator<Item = &'a Service>,
    own: Own,
    addresses: &ServiceAddresses,
) -> Policy {
    let service = |service: &Service| policy::Service {
        name: service.name.clone(),
        target: service.target.clone(),
        addresses: addresses.of(&service.target).to_vec(),
        allow: service.allow.clone(),
    };
    Policy::new(config.access.clone(), services.into_iter().map(service).collect(), own)
}

/// FFMesh's own listeners, with the addresses that this host has now.
pub fn own(listeners: Vec<SocketAddr>, unix: &[PathBuf]) -> io::Result<Own> {
    let addresses = if_addrs::get_if_addrs()?.iter().map(if_addrs::Interface::ip).collect();
    let unix = unix.iter().map(|path| path.to_string_lossy().into_owned()).collect();
    Ok(Own { listeners, addresses, unix })
}

/// Counts what is under way for each caller.
#[derive(Default)]
struct Dials(Mutex<HashMap<NodeId, UnderWay>>);

struct UnderWay {
    dials: usize,
    /// Those that wait included.
    lookups: usize,
    turns: Arc<Semaphore>,
}

/// One dial under way.
struct Dial {
    dials: Arc<Dials>,
    caller: NodeId,
}

/// One lookup under way, which may outlive its dial.
struct Lookup {
    dials: Arc<Dials>,
    caller: NodeId,
}

impl Dial {
    fn begin(dials: &Arc<Dials>, caller: &NodeId) -> Result<Self, Refusal> {
        let begun = dials.change(caller, |under_way| {
            let room = under_way.dials < MAX_DIALS_PER_CALLER;
            under_way.dials += usize::from(room);
            room
        });
        if !begun {
            let detail = format!("{MAX_DIALS_PER_CALLER} dials of this caller are under way");
            return Err(Refusal::new(Reason::Limit, detail));
        }
        Ok(Self { dials: Arc::clone(dials), caller: caller.clone() })
    }
}

impl Lookup {
    /// The lookup, and whose turn it has to wait for.
    fn begin(dials: &Arc<Dials>, caller: &NodeId) -> (Arc<Semaphore>, Self) {
        let turns = dials.change(caller, |under_way| {
            under_way.lookups += 1;
            Arc::clone(&under_way.turns)
        });
        (turns, Self { dials: Arc::clone(dials), caller: caller.clone() })
    }
}

impl Dials {
    fn change<T>(&self, caller: &NodeId, change: impl FnOnce(&mut UnderWay) -> T) -> T {
        let mut callers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let new =
            || UnderWay { dials: 0, lookups: 0, turns: Arc::new(Semaphore::new(MAX_LOOKUPS_PER_CALLER)) };
        let under_way = callers.entry(caller.clone()).or_insert_with(new);
        let result = change(under_way);
        if (under_way.dials, under_way.lookups) == (0, 0) {
            callers.remove(caller);
        }
        result
    }
}

impl Drop for Dial {
    fn drop(&mut self) {
        self.dials.change(&self.caller, |under_way| under_way.dials -= 1);
    }
}

impl Drop for Lookup {
    fn drop(&mut self) {
        self.dials.change(&self.caller, |under_way| under_way.lookups -= 1);
    }
}
