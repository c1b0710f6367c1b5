//! The addresses of named services whose target is a name, so that `services[].allow` holds for them under every name.

use std::collections::BTreeMap;
use std::net::{IpAddr, ToSocketAddrs};
use std::time::Duration;

use ffmesh_core::target::{Host, Target};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::RESOLVE_TIMEOUT;
use crate::config::Config;

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
    /// Those of a service's target; empty where it is no name or they are not known.
    pub fn of(&self, target: &Target) -> &[IpAddr] {
        match target {
            Target::Port { host: Host::Name(name), .. } => self.hosts.get(name).map_or(&[], Vec::as_slice),
            _ => &[],
        }
    }
}

/// Looks up the hosts of the services that have an `allow`, all at once, in at most [`RESOLVE_TIMEOUT`]. A host whose
/// lookup fails keeps the addresses that are `known`. Returns `known` where it is younger than [`SERVICE_INTERVAL`].
pub async fn resolve_services(config: &Config, known: ServiceAddresses) -> ServiceAddresses {
    if known.looked_up.is_some_and(|at| at.elapsed() < SERVICE_INTERVAL) {
        return known;
    }
    let mut lookups = JoinSet::new();
    for service in config.services.iter().filter(|service| service.allow.is_some()) {
        let Target::Port { host: Host::Name(name), port } = &service.target else { continue };
        let (name, port) = (name.clone(), *port);
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
