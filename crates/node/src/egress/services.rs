//! The addresses of named services whose target is a name, so that `services[].allow` holds for them under every name.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, ToSocketAddrs};
use std::time::Duration;

use ffmesh_core::target::{Host, Target};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::RESOLVE_TIMEOUT;
use crate::config::Service;

/// How often the names of services are looked up.
pub const SERVICE_INTERVAL: Duration = Duration::from_secs(30);

/// The addresses of the hosts of services.
#[derive(Debug, Clone, Default)]
pub struct ServiceAddresses {
    hosts: BTreeMap<String, Vec<IpAddr>>,
    looked_up: Option<Instant>,
}

/// Equal when the addresses are.
impl PartialEq for ServiceAddresses {
    fn eq(&self, other: &Self) -> bool {
        self.hosts == other.hosts
    }
}

impl ServiceAddresses {
    /// Whether it is time to look them up again: after [`SERVICE_INTERVAL`].
    pub fn are_old(&self) -> bool {
        self.looked_up.is_none_or(|at| at.elapsed() >= SERVICE_INTERVAL)
    }

    /// Whether a host of these services was never looked up.
    pub fn lack<'a>(&self, services: impl IntoIterator<Item = &'a Service>) -> bool {
        services.into_iter().filter_map(host_to_resolve).any(|(name, _)| !self.hosts.contains_key(name))
    }

    /// Those of a service's target; empty where it is no name or they are not known.
    pub fn of(&self, target: &Target) -> &[IpAddr] {
        match target {
            Target::Port { host: Host::Name(name), .. } => self.hosts.get(name).map_or(&[], Vec::as_slice),
            _ => &[],
        }
    }
}

/// The name that has to be looked up for a service, and its port.
fn host_to_resolve(service: &Service) -> Option<(&str, u16)> {
    match &service.target {
        Target::Port { host: Host::Name(name), port } if service.allow.is_some() => Some((name, *port)),
        _ => None,
    }
}

/// Looks up the hosts of the services that have an `allow`, all at once, in at most [`RESOLVE_TIMEOUT`]. A host whose
/// lookup fails keeps the addresses that are `known`.
pub async fn resolve_services(services: Vec<Service>, known: ServiceAddresses) -> ServiceAddresses {
    let mut lookups = JoinSet::new();
    let mut names = BTreeSet::new();
    for (name, port) in services.iter().filter_map(host_to_resolve) {
        names.insert(name.to_owned());
        let name = name.to_owned();
        lookups.spawn(async move {
            let host = name.clone();
            let lookup = tokio::task::spawn_blocking(move || {
                let mut found: Vec<_> = (host.as_str(), port).to_socket_addrs()?.map(|at| at.ip()).collect();
                // In an order that does not change with each answer.
                found.sort_unstable();
                found.dedup();
                std::io::Result::Ok(found)
            });
            (name, timeout(RESOLVE_TIMEOUT, lookup).await)
        });
    }
    let mut hosts = known.hosts;
    hosts.retain(|name, _| names.contains(name));
    while let Some(looked_up) = lookups.join_next().await {
        match looked_up {
            Ok((name, Ok(Ok(Ok(found))))) => drop(hosts.insert(name, found)),
            Ok((name, Ok(Ok(Err(error))))) => {
                tracing::debug!(%name, "the host of a service does not resolve: {error}");
            }
            Ok((name, _)) => tracing::debug!(%name, "the host of a service does not resolve in time"),
            Err(_) => {} // lookups do not panic
        }
    }
    ServiceAddresses { hosts, looked_up: Some(Instant::now()) }
}
